// SPDX-License-Identifier: MIT
/* A program and a library of different age understand each other's structs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "../../lib/internal.h"

struct now {
	size_t size;
	uint64_t a;
	uint64_t b;
};

struct newer {
	struct now known;
	uint64_t c;
};

static void nothing_is_defaults(void **state)
{
	struct now in;

	(void)state;
	memset(&in, 0xff, sizeof(in));
	assert_int_equal(peerdma_sized_in(&in, sizeof(in), NULL), 0);
	assert_int_equal(in.a | in.b, 0);
}

static void an_older_caller_gets_defaults(void **state)
{
	struct now in, caller = { offsetof(struct now, b), 1, 2 };

	(void)state;
	assert_int_equal(peerdma_sized_in(&in, sizeof(in), &caller), 0);
	assert_int_equal(in.a, 1);
	assert_int_equal(in.b, 0);
}

static void a_newer_caller_may_ask_for_nothing_new(void **state)
{
	struct newer caller = { { sizeof(caller), 1, 2 }, 0 };
	struct now in;

	(void)state;
	assert_int_equal(peerdma_sized_in(&in, sizeof(in), &caller), 0);
	assert_int_equal(in.b, 2);
	caller.c = 1;
	assert_int_equal(peerdma_sized_in(&in, sizeof(in), &caller), -E2BIG);
}

static void a_size_is_needed(void **state)
{
	struct now in, caller = { 0, 1, 2 }, out = { 7, 0, 0 };

	(void)state;
	assert_int_equal(peerdma_sized_in(&in, sizeof(in), &caller), -EINVAL);
	assert_int_equal(peerdma_sized_out(&out, &caller, sizeof(caller)),
			 -EINVAL);
}

static void results_fit_the_caller(void **state)
{
	const struct now found = { sizeof(found), 1, 2 };
	struct now older = { offsetof(struct now, b), 8, 9 };
	struct newer newer = { { sizeof(newer), 8, 9 }, 10 };

	(void)state;
	assert_int_equal(peerdma_sized_out(&older, &found, sizeof(found)), 0);
	assert_int_equal(older.size, offsetof(struct now, b));
	assert_int_equal(older.a, 1);
	assert_int_equal(older.b, 9);
	assert_int_equal(peerdma_sized_out(&newer, &found, sizeof(found)), 0);
	assert_int_equal(newer.known.size, sizeof(newer));
	assert_int_equal(newer.known.b, 2);
	assert_int_equal(newer.c, 0);
	assert_int_equal(peerdma_sized_out(NULL, &found, sizeof(found)), 0);
}

/* Padding would be a field that nobody could add to. */
static void public_structs_have_no_padding(void **state)
{
	(void)state;
#define ENDS_WITH(type, field)						\
	assert_int_equal(sizeof(struct type),				\
			 offsetof(struct type, field) +			\
				 sizeof(((struct type *)0)->field))
	ENDS_WITH(peerdma_open_opts, keep);
	ENDS_WITH(peerdma_context_info, nr_gpus);
	ENDS_WITH(peerdma_gpu_info, device);
	ENDS_WITH(peerdma_buffer_opts, reserved);
	ENDS_WITH(peerdma_buffer_info, device);
	ENDS_WITH(peerdma_io_opts, stream);
	ENDS_WITH(peerdma_io_result, bytes_zeroed);
	ENDS_WITH(peerdma_stats, zeroed);
	ENDS_WITH(peerdma_region_opts, reserved);
	ENDS_WITH(peerdma_check_result, reserved);
	ENDS_WITH(peerdma_queue_opts, threads);
	ENDS_WITH(peerdma_queue_info, uring);
	ENDS_WITH(peerdma_io_request, stream);
	ENDS_WITH(peerdma_io_vec, result);
	ENDS_WITH(peerdma_completion, reserved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_defaults),
		cmocka_unit_test(an_older_caller_gets_defaults),
		cmocka_unit_test(a_newer_caller_may_ask_for_nothing_new),
		cmocka_unit_test(a_size_is_needed),
		cmocka_unit_test(results_fit_the_caller),
		cmocka_unit_test(public_structs_have_no_padding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
