// SPDX-License-Identifier: MIT
/* What peerdma_check() and peerdma_check_route() answer. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../include/uapi/peerdma.h"
#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"

#define MIB		((size_t)1 << 20)
#define LEN		(30 * MIB + 1000)

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static unsigned char *content;
static char path[] = "/var/tmp/peerdma-XXXXXX";

static int set_up(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	(void)state;
	fake_kernel_reset();
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	if (peerdma_open(&ctx, &opts) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf))
		return -1;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	return fake_cuda.allocations || fake_cuda.host_allocations ||
	       fake_cuda.contexts || fake_cuda.streams || fake_cuda.depth;
}

static int open_file(int flags)
{
	int fd = open(path, flags);

	assert_true(fd >= 0);
	return fd;
}

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

static int make_file(void **state)
{
	int fd = mkstemp(path);
	size_t i;

	(void)state;
	content = malloc(LEN);
	if (!content)
		return -1;
	for (i = 0; i < LEN; i++)
		content[i] = i * 2654435761u >> 13;
	if (write(fd, content, LEN) != (ssize_t)LEN)
		return -1;
	return close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	free(content);
	return unlink(path);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(check_answers_as_a_read_would),
		TEST(check_tells_what_is_cached),
		TEST(check_of_a_route),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
