// SPDX-License-Identifier: MIT
/* Where the next hole is far away is found once. */
#include <string.h>

#include "io_fixture.h"

static struct peerdma_io_result result = { .size = sizeof(result) };

static void where_there_are_no_holes_is_remembered(void **state)
{
	char name[] = "/var/tmp/peerdma-XXXXXX";
	int fd = mkstemp(name), i;

	(void)state;
	fake_kernel.resident = true;
	assert_int_equal(pwrite(fd, content, 8 * MIB, 0), 8 * MIB);
	assert_int_equal(ftruncate(fd, 9 * MIB), 0);
	for (i = 0; i < 14; i++) {
		assert_int_equal(peerdma_read_opts(buf, fd, MIB / 2,
						   i * MIB / 2, 0, NULL,
						   &result), MIB / 2);
		assert_memory_equal(memory, content + i * MIB / 2, MIB / 2);
	}
	/* One is of the GPU's NUMA node. */
	assert_true(fake_kernel.nr_opens <= 2);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE |
				   FALLOC_FL_KEEP_SIZE, MIB, MIB), 0);
	assert_int_equal(peerdma_read(buf, fd, 2 * MIB, 0, 0), 2 * MIB);
	assert_memory_equal(memory, content, MIB);
	for (i = 0; i < (int)MIB; i++)
		assert_int_equal(memory[MIB + i], 0);
	assert_int_equal(peerdma_read_opts(buf, fd, MIB, 8 * MIB, 0, NULL,
					   &result), MIB);
	assert_int_equal(result.bytes_zeroed, MIB);
	unlink(name);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(where_there_are_no_holes_is_remembered),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
