// SPDX-License-Identifier: MIT
/* What peerdma_check() and peerdma_check_route() answer. */
#include <errno.h>

#include "io_fixture.h"

static void check_answers_as_a_read_would(void **state)
{
	PEERDMA_SIZED(peerdma_check_result, found);
	int fd = open_file(O_RDONLY);

	(void)state;
	assert_int_equal(peerdma_check(ctx, fd, NULL, &found), 0);
	assert_int_equal(found.path, PEERDMA_PATH_DIRECT);
	assert_int_equal(found.reason, 0);
	assert_int_equal(found.align, FAKE_ALIGN);
	assert_int_equal(found.memory_align, FAKE_MEMORY_ALIGN);
	assert_string_equal(found.drive, "0000:03:00.0");
	assert_string_equal(found.device, "0000:01:02.0");
	assert_string_equal(found.via, "0000:00:01.0");
	assert_int_equal(found.translated, 1);
	assert_int_equal(found.file_len, LEN);
	assert_int_equal(found.resident, 0);
	assert_int_equal(found.cache_reason, PEERDMA_REASON_NOT_CACHED);
	fake_kernel.probe_errno = EREMOTEIO;
	fake_kernel.io_reason = PEERDMA_REASON_SWIOTLB;
	assert_int_equal(peerdma_check(ctx, fd, buf, &found), 0);
	assert_int_equal(found.path, PEERDMA_PATH_STAGED);
	assert_int_equal(found.reason, PEERDMA_REASON_SWIOTLB);
	assert_int_equal(found.align, 0);
	assert_int_equal(peerdma_check(ctx, -1, buf, &found), -EBADF);
	close(fd);
}

static void check_tells_what_is_cached(void **state)
{
	PEERDMA_SIZED(peerdma_check_result, found);
	int fd = open_file(O_RDONLY), direct = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.resident = true;
	assert_int_equal(peerdma_check(ctx, fd, NULL, &found), 0);
	assert_int_equal(found.resident, LEN);
	assert_int_equal(found.cache_reason, 0);
	assert_int_equal(found.path, PEERDMA_PATH_DIRECT);
	assert_int_equal(peerdma_check(ctx, direct, NULL, &found), 0);
	assert_int_equal(found.resident, LEN);
	assert_int_equal(found.cache_reason, PEERDMA_REASON_UNBUFFERED);
	/* mincore(2) tells the truth about a file that was just read. */
	assert_int_equal(pread(fd, content, LEN, 0), LEN);
	fake_kernel.no_cachestat = true;
	assert_int_equal(peerdma_check(ctx, fd, NULL, &found), 0);
	assert_int_equal(found.resident, LEN);
	assert_int_equal(found.cache_reason, 0);
	close(direct);
	close(fd);
}

/* The kernel does not tell whoever may only read it. */
static void check_of_somebody_elses_file(void **state)
{
	PEERDMA_SIZED(peerdma_check_result, found);
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_kernel.resident = true;
	fake_kernel.stranger = true;
	assert_int_equal(peerdma_check(ctx, fd, NULL, &found), 0);
	assert_int_equal(found.resident, 0);
	assert_int_equal(found.cache_reason, PEERDMA_REASON_NOT_CACHED);
	fake_kernel.no_cachestat = true;
	assert_int_equal(peerdma_check(ctx, fd, NULL, &found), 0);
	assert_int_equal(found.resident, 0);
	close(fd);
}

static void check_of_a_route(void **state)
{
	PEERDMA_SIZED(peerdma_check_result, found);

	(void)state;
	assert_int_equal(peerdma_check_route(ctx, "0000:03:00.0",
					     "0000:01:02.0", &found), 0);
	assert_int_equal(found.path, PEERDMA_PATH_DIRECT);
	fake_kernel.route_reason = PEERDMA_REASON_HOST_BRIDGES;
	assert_int_equal(peerdma_check_route(ctx, "0000:03:00.0",
					     "0000:01:02.0", &found), 0);
	assert_int_equal(found.path, PEERDMA_PATH_STAGED);
	assert_int_equal(found.reason, PEERDMA_REASON_HOST_BRIDGES);
	fake_kernel.route_errno = ENOENT;
	assert_int_equal(peerdma_check_route(ctx, "0000:03:00.0",
					     "0000:01:02.0", &found), -ENOENT);
	assert_int_equal(peerdma_check_route(ctx, "3:0", "0000:01:02.0",
					     &found), -EINVAL);
	assert_int_equal(peerdma_check_route(ctx, "0000:03:20.0",
					     "0000:01:02.0", &found), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(check_answers_as_a_read_would),
		TEST(check_tells_what_is_cached),
		TEST(check_of_somebody_elses_file),
		TEST(check_of_a_route),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
