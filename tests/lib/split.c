// SPDX-License-Identifier: MIT
/* A range parts into whole blocks and the rest, without loss or overlap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../lib/internal.h"

static void expect(uint64_t offset, uint64_t len, uint32_t align, uint64_t head,
		   uint64_t middle, uint64_t tail)
{
	struct peerdma_split s = peerdma_split_range(offset, len, align);

	assert_int_equal(s.head, head);
	assert_int_equal(s.middle, middle);
	assert_int_equal(s.tail, tail);
}

static void known_ranges(void **state)
{
	(void)state;
	expect(0, 4096, 4096, 0, 4096, 0);
	expect(0, 10000, 4096, 0, 8192, 1808);
	expect(1, 8192, 4096, 4095, 4096, 1);
	expect(512, 1024, 512, 0, 1024, 0);
	expect(8192, 0, 4096, 0, 0, 0);
	expect((uint64_t)1 << 62, 512, 512, 0, 512, 0);
}

static void without_whole_block_all_is_head(void **state)
{
	(void)state;
	expect(0, 4095, 4096, 4095, 0, 0);
	expect(1, 4095, 4096, 4095, 0, 0);
	expect(1, 8190, 4096, 8190, 0, 0);
	expect(4095, 2, 4096, 2, 0, 0);
}

static void every_small_range(void **state)
{
	const uint32_t align = 8;
	uint64_t offset, len;

	(void)state;
	for (offset = 0; offset < 32; offset++) {
		for (len = 0; len < 64; len++) {
			struct peerdma_split s =
				peerdma_split_range(offset, len, align);

			assert_int_equal(s.head + s.middle + s.tail, len);
			assert_int_equal(s.middle % align, 0);
			if (!s.middle)
				continue;
			assert_int_equal((offset + s.head) % align, 0);
			assert_true(s.head < align && s.tail < align);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_ranges),
		cmocka_unit_test(without_whole_block_all_is_head),
		cmocka_unit_test(every_small_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
