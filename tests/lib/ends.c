// SPDX-License-Identifier: MIT
/* How transfers end: early, in parts of blocks, or when it is too late to stop. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "one_transfer.h"

/* The last step of many; whole blocks there would have to go directly. */
static void a_forced_path_stages_parts_of_blocks(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_DIRECT);
	int fd = open_file(O_RDWR | O_DIRECT), write;

	(void)state;
	memcpy(memory, content, LEN);
	for (write = 0; write < 2; write++) {
		assert_int_equal((write ? peerdma_write_opts :
					  peerdma_read_opts)(
			buf, fd, 100, 4 * MIB, 4 * MIB, &opts, &result), 100);
		expect(0, 100, PEERDMA_REASON_MISALIGNED, 0);
	}
	/* Its place in memory does not matter then. */
	assert_int_equal(peerdma_read_opts(buf, fd, 600, 700, 3, &opts,
					   &result), 600);
	expect(0, 600, PEERDMA_REASON_MISALIGNED, 0);
	assert_memory_equal(memory + 3, content + 700, 600);
	close(fd);
}

static int stop_at_the_end(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	return done == total;
}

/* By then all is there, on each path. */
static void stopped_too_late_is_no_error(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .progress = stop_at_the_end);
	struct peerdma_io_vec vecs[] = {
		{ .len = MIB }, { .file_offset = MIB, .len = 70000 },
		{ .len = 0 },
	};
	int fd = open_file(O_RDONLY), i;

	(void)state;
	for (i = 0; i < 8; i++) {
		opts.path = i & 3;
		fake_kernel.resident = i & 4;
		assert_int_equal(peerdma_read_opts(buf, fd, 2 * MIB, 0, 0,
						   &opts, &result), 2 * MIB);
		assert_int_equal(result.error, 0);
		assert_int_equal(peerdma_readv(buf, fd, vecs, 3, &opts,
					       &result), MIB + 70000);
		assert_int_equal(result.error, 0);
		assert_int_equal(vecs[1].result, 70000);
		assert_int_equal(vecs[2].result, 0);
	}
	close(fd);
}

static void a_result_without_room_comes_before_the_bytes(void **state)
{
	struct peerdma_io_vec vec = { .len = MIB };
	int fd = open_file(O_RDONLY);

	(void)state;
	memset(memory, 0x55, MIB);
	result.size = 1;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, MIB), -EINVAL);
	assert_int_equal(peerdma_readv(buf, fd, &vec, 1, NULL, &result),
			 -EINVAL);
	result.size = sizeof(result);
	assert_int_equal(memory[0], 0x55);
	assert_int_equal(fake_kernel.nr_file_io, 0);
	close(fd);
}

/* A disk that is full after so much: the next request says why. */
static void short_writes_go_on_until_they_fail(void **state)
{
	int fd = open_file(O_RDWR | O_DIRECT);

	(void)state;
	memcpy(memory, content, LEN);
	fake_kernel.io_limit = 3 * 4096;
	fake_kernel.io_errno = ENOSPC;
	fake_kernel.io_skip = 2;
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, MIB), 6 * 4096);
	expect(6 * 4096, 0, 0, -ENOSPC);
	/* In the middle of a block; what cannot go on directly goes staged. */
	fake_kernel.io_errno = 0;
	fake_kernel.io_limit = 5000;
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, MIB), MIB);
	expect(5000, MIB - 5000, PEERDMA_REASON_MISALIGNED, 0);
	/* Nothing, and no reason. */
	fake_kernel.io_limit = 0;
	fake_kernel.io_nothing = true;
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, MIB), -EIO);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, MIB), 0);
	expect(0, 0, 0, 0);
	close(fd);
}

/* Of a file that may not grow: the limit is in the middle of a block. */
static void host_memory_says_why_a_write_is_short(void **state)
{
	const struct rlimit most = { 3 * MIB + 512, RLIM_INFINITY };
	int fd = open_file(O_RDWR | O_DIRECT);
	struct peerdma_buffer *gpu = buf;
	unsigned char *host = aligned_alloc(4096, 31 * MIB);
	struct rlimit before;

	(void)state;
	assert_non_null(host);
	memcpy(host, content, LEN);
	assert_int_equal(peerdma_buffer_host(ctx, host, LEN, NULL, &buf), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &most), 0);
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, LEN),
			 3 * MIB + 512);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(result.error, -EFBIG);
	peerdma_buffer_close(buf);
	buf = gpu;
	free(host);
	close(fd);
}

/* While the CPU copies: an error, no signal, and what was there counts. */
static void memory_that_is_taken_back(void **state)
{
	struct peerdma_buffer *gpu = buf;
	unsigned char *host = malloc(LEN);
	int fd = open_file(O_RDWR), write;
	size_t moved;
	ssize_t n;

	(void)state;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, LEN, NULL, &buf), 0);
	assert_int_equal(peerdma_buffer_copy_in(buf, 0, content, LEN), 0);
	assert_int_equal(peerdma_buffer_copy_out(buf, 5, host, LEN - 5), 0);
	assert_memory_equal(host, content + 5, LEN - 5);
	fake_kernel_take_back(9 * MIB);
	assert_int_equal(peerdma_buffer_copy_in(buf, 0, content, LEN), -ENODEV);
	assert_int_equal(peerdma_buffer_copy_out(buf, 9 * MIB, host, 1),
			 -ENODEV);
	assert_int_equal(peerdma_buffer_copy_out(buf, 9 * MIB - 8, host, 8), 0);
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, 8 * MIB), 8 * MIB);
	for (write = 0; write < 2; write++) {
		n = (write ? write_by : read_by)(PEERDMA_PATH_STAGED, fd, LEN);
		moved = result.bytes_staged;
		assert_int_equal(result.error, -ENODEV);
		assert_int_equal(n, moved ? (ssize_t)moved : -ENODEV);
		assert_true(moved <= 9 * MIB);
		assert_memory_equal(fake_kernel_memory(), content, moved);
	}
	fake_kernel_take_back(FAKE_LEN);
	peerdma_buffer_close(buf);
	buf = gpu;
	free(host);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_forced_path_stages_parts_of_blocks),
		TEST(stopped_too_late_is_no_error),
		TEST(a_result_without_room_comes_before_the_bytes),
		TEST(short_writes_go_on_until_they_fail),
		TEST(host_memory_says_why_a_write_is_short),
		TEST(memory_that_is_taken_back),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
