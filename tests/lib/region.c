// SPDX-License-Identifier: MIT
/* File ranges that stay pinned, and what becomes of the file meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"

#define PAGE		((size_t)4096)
#define LEN		(300 * PAGE + 1000)
#define SOME		(17 * PAGE)

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static struct peerdma_region *region;
static unsigned char *memory, *content;
static char path[] = "/var/tmp/peerdma-XXXXXX";
static struct peerdma_io_result result;
static int fd;

static int set_up(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	size_t i;

	(void)state;
	fake_kernel_reset();
	fake_kernel.resident = true;
	fake_kernel.fs_type = EXT4_SUPER_MAGIC;
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	content = malloc(LEN);
	if (!content)
		return -1;
	for (i = 0; i < LEN; i++)
		content[i] = i * 2654435761u >> 11;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (pwrite(fd, content, LEN, 0) != (ssize_t)LEN ||
	    peerdma_open(&ctx, &opts) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_buffer_info(buf, &info))
		return -1;
	memory = fake_cuda_memory(info.device_addr);
	memset(memory, 0, LEN);
	result.size = sizeof(result);
	region = NULL;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(content);
	peerdma_region_close(region);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	close(fd);
	unlink(path);
	return fake_cuda_leaks();
}

static ssize_t read_at(uint64_t offset, size_t len)
{
	return peerdma_read_opts(buf, fd, len, offset, offset, NULL, &result);
}

/* All of the file is in the buffer, so much of it out of the region. */
static void expect_file(size_t registered, int reason)
{
	assert_int_equal(read_at(0, LEN), LEN);
	assert_memory_equal(memory, content, LEN);
	assert_int_equal(result.bytes_registered, registered);
	assert_int_equal(result.reason, reason);
	assert_int_equal(result.error, 0);
}

static void wrong_arguments(void **state)
{
	PEERDMA_SIZED(peerdma_region_opts, opts, .flags = 1);
	int wr = open(path, O_WRONLY), folder = open("/tmp", O_RDONLY);

	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, 1, &opts, &region),
			 -EOPNOTSUPP);
	assert_int_equal(peerdma_region_open(ctx, fd, 0, 0, NULL, &region),
			 -EINVAL);
	assert_int_equal(peerdma_region_open(ctx, fd, 1, LEN, NULL, &region),
			 -ERANGE);
	assert_int_equal(peerdma_region_open(ctx, fd, 1, -1ull, NULL, &region),
			 -EOVERFLOW);
	assert_int_equal(peerdma_region_open(ctx, -1, 0, 1, NULL, &region),
			 -EBADF);
	assert_int_equal(peerdma_region_open(ctx, wr, 0, 1, NULL, &region),
			 -EBADF);
	assert_int_equal(peerdma_region_open(ctx, folder, 0, 1, NULL, &region),
			 -EISDIR);
	/* Its bytes are another file's once somebody writes to it. */
	fake_kernel.fs_type = OVERLAYFS_SUPER_MAGIC;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 -EOPNOTSUPP);
	fake_kernel.fs_type = EXT4_SUPER_MAGIC;
	fake_cuda.fail_register = 1;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 -ENOMEM);
	fake_cuda.fail_register = 0;
	assert_null(region);
	peerdma_region_close(NULL);
	close(wr);
	close(folder);
}

static void reads_come_out_of_it(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);

	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	expect_file(LEN, 0);
	assert_int_equal(read_at(LEN - SOME, SOME), SOME);
	assert_int_equal(result.bytes_registered, SOME);
	/* Little goes another way: the driver might read it with the CPU. */
	assert_int_equal(read_at(LEN - 10, 10), 10);
	assert_int_equal(result.bytes_registered, 0);
	assert_int_equal(result.reason, 0);
	/* Behind the end there is nothing, in a region or not. */
	assert_int_equal(peerdma_read(buf, fd, 100, LEN - 10, 0), 10);
	assert_int_equal(peerdma_read(buf, fd, 100, LEN + 10, 0), 0);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.registered.requests, 2);
	assert_int_equal(stats.registered.bytes_read, LEN + SOME);
	assert_int_equal(stats.cached.requests, 2);
	peerdma_region_close(region);
	region = NULL;
	expect_file(0, 0);
	assert_int_equal(result.bytes_cached, LEN);
}

static void parts_go_their_own_way(void **state)
{
	struct peerdma_region *second;

	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 2 * PAGE + 1, SOME, NULL,
					     &region), 0);
	assert_int_equal(peerdma_region_open(ctx, fd, 200 * PAGE, SOME - 10,
					     NULL, &second), 0);
	/* Whole pages: one more of the first. */
	expect_file(2 * SOME + PAGE, 0);
	assert_int_equal(result.bytes_cached, LEN - 2 * SOME - PAGE);
	peerdma_region_close(second);
	expect_file(SOME + PAGE, 0);
	assert_int_equal(read_at(2 * PAGE + 5, 2 * SOME), 2 * SOME);
	assert_int_equal(result.bytes_registered, SOME + PAGE - 5);
}

/* Far behind what is moved as one step where somebody watches. */
#define FAR		((uint64_t)24 << 20)

static int go_on(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	return done > total;
}

static void a_region_far_ahead(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .progress = go_on);
	struct peerdma_buffer *large;

	(void)state;
	assert_int_equal(ftruncate(fd, FAR), 0);
	assert_int_equal(pwrite(fd, content, LEN, FAR), LEN);
	assert_int_equal(peerdma_region_open(ctx, fd, FAR, LEN, NULL, &region),
			 0);
	assert_int_equal(peerdma_buffer_alloc(ctx, FAR + LEN, NULL, &large), 0);
	opts.path = PEERDMA_PATH_CACHE;
	assert_int_equal(peerdma_read_opts(large, fd, FAR + LEN, 0, 0, &opts,
					   &result), FAR + LEN);
	assert_int_equal(result.bytes_registered, LEN);
	assert_int_equal(result.bytes_cached, FAR);
	peerdma_buffer_close(large);
}

static void expect_waits(int waits)
{
	int before = fake_cuda.waits;

	expect_file(LEN, 0);
	assert_int_equal(fake_cuda.waits - before, waits);
}

/* By a word that the GPU writes; else, or where it is late, by CUDA's waiting. */
static void reads_wait_for_their_bytes(void **state)
{
	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	expect_waits(0);
	fake_cuda.fail_write_value = 1;
	expect_waits(1);
	fake_cuda.fail_write_value = 0;
	fake_cuda.busy = 1;
	expect_waits(1);
	fake_cuda.busy = 0;
	expect_waits(0);
}

#define LARGE		((size_t)8 << 20)
#define MS		1000000ull

static void expect_sleep(uint64_t copy_ns, uint64_t ns)
{
	uint64_t slept = fake_kernel.slept_ns;

	/* One before the copy and one beside it. */
	fake_kernel.fstat_ns = copy_ns;
	assert_int_equal(read_at(0, LARGE), LARGE);
	assert_int_equal(result.bytes_registered, LARGE);
	assert_int_equal(fake_kernel.slept_ns - slept, ns);
}

/* All but what a sleep may be late, of what the link took for as much before. */
static void large_reads_are_slept_through(void **state)
{
	(void)state;
	peerdma_buffer_close(buf);
	assert_int_equal(ftruncate(fd, LARGE), 0);
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LARGE, NULL, &region),
			 0);
	assert_int_equal(peerdma_buffer_alloc(ctx, LARGE, NULL, &buf), 0);
	fake_kernel.stopped_ns = MS;
	expect_sleep(2 * MS, 0);
	expect_sleep(0, 2 * MS - 120000);
	/* Whoever was interrupted has not seen a faster link, and need not sleep. */
	expect_sleep(5 * MS, 0);
	expect_sleep(MS, MS - 240000);
}

static int cut_a_bit_off(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)done;
	return ftruncate(fd, total - 500) != 0;
}

/* All pages are where they were, and the last one's end is not the file's any more. */
static void a_file_that_shrinks_meanwhile(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .progress = cut_a_bit_off);

	(void)state;
	peerdma_buffer_close(buf);
	assert_int_equal(ftruncate(fd, FAR), 0);
	assert_int_equal(pwrite(fd, content, LEN, FAR), LEN);
	assert_int_equal(peerdma_region_open(ctx, fd, 0, FAR + LEN, NULL,
					     &region), 0);
	assert_int_equal(peerdma_buffer_alloc(ctx, FAR + LEN, NULL, &buf), 0);
	assert_int_equal(peerdma_read_opts(buf, fd, FAR + LEN, 0, 0, &opts,
					   &result), FAR + LEN - 500);
	assert_int_equal(result.reason, PEERDMA_REASON_REGION_STALE);
}

static void any_descriptor_of_the_file_will_do(void **state)
{
	int again = open(path, O_RDONLY | O_DIRECT);
	ssize_t n;

	(void)state;
	n = peerdma_region_open(ctx, again, 0, LEN, NULL, &region);
	assert_int_equal(n, 0);
	close(again);
	expect_file(LEN, 0);
}

static void writers_are_seen(void **state)
{
	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	memset(content + 5000, 0x55, 9000);
	assert_int_equal(pwrite(fd, content + 5000, 9000, 5000), 9000);
	expect_file(LEN, 0);
}

static void what_was_cut_off_is_noticed(void **state)
{
	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	assert_int_equal(ftruncate(fd, 100 * PAGE + 7), 0);
	assert_int_equal(read_at(0, LEN), 100 * PAGE + 7);
	assert_memory_equal(memory, content, 100 * PAGE + 7);
	assert_int_equal(ftruncate(fd, LEN), 0);
	memset(content + 100 * PAGE + 7, 0, LEN - (100 * PAGE + 7));
	expect_file(0, PEERDMA_REASON_REGION_STALE);
	/* What was stays away, though somebody has brought pages back. */
	memset(content + 150 * PAGE, 0x77, PAGE);
	assert_int_equal(pwrite(fd, content + 150 * PAGE, PAGE, 150 * PAGE),
			 PAGE);
	expect_file(0, PEERDMA_REASON_REGION_STALE);
}

static void holes_that_are_punched_are_noticed(void **state)
{
	(void)state;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE))
		skip();
	memset(content, 0, PAGE);
	expect_file(0, PEERDMA_REASON_REGION_STALE);
	/* The driver's own reading has brought a page back; it is another. */
	memset(content, 0x66, PAGE);
	assert_int_equal(pwrite(fd, content, PAGE, 0), PAGE);
	expect_file(0, PEERDMA_REASON_REGION_STALE);
}

static void older_kernels_notice_too(void **state)
{
	(void)state;
	fake_kernel.no_pagemap_scan = true;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	expect_file(LEN, 0);
	assert_int_equal(ftruncate(fd, LEN - PAGE), 0);
	assert_int_equal(ftruncate(fd, LEN), 0);
	memset(content + LEN - PAGE, 0, PAGE);
	expect_file(0, PEERDMA_REASON_REGION_STALE);
}

static void writes_around_the_page_cache_are_noticed(void **state)
{
	int direct = open(path, O_RDWR | O_DIRECT);
	void *page = aligned_alloc(PAGE, PAGE);

	(void)state;
	if (direct < 0)
		skip();
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	memset(page, 0x33, PAGE);
	assert_int_equal(pwrite(direct, page, PAGE, 20 * PAGE), PAGE);
	memcpy(content + 20 * PAGE, page, PAGE);
	expect_file(0, PEERDMA_REASON_REGION_STALE);
	free(page);
	close(direct);
}

static void it_holds_its_context(void **state)
{
	struct peerdma *other;
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	(void)state;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	assert_int_equal(peerdma_region_open(other, fd, 0, LEN, NULL, &region),
			 0);
	peerdma_close(other);
	/* The regions of another context are not this one's. */
	expect_file(0, 0);
	opts.gpu = PEERDMA_GPU_NONE;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	assert_int_equal(peerdma_region_open(other, fd, 0, LEN, NULL,
					     &(struct peerdma_region *){ 0 }),
			 -ENODEV);
	peerdma_close(other);
}

static void *open_and_close(void *arg)
{
	struct peerdma_region *mine;
	int i;

	for (i = 0; i < 100; i++) {
		if (peerdma_region_open(ctx, fd, i * PAGE, 50 * PAGE, NULL,
					&mine))
			return "region_open";
		peerdma_region_close(mine);
	}
	return arg;
}

static void *read_all(void *arg)
{
	int i;

	for (i = 0; i < 100; i++)
		if (peerdma_read(buf, fd, LEN, 0, 0) != (ssize_t)LEN)
			return "read";
	return arg;
}

static void readers_and_closers(void **state)
{
	void *(*work[])(void *) = { read_all, open_and_close, open_and_close };
	pthread_t threads[3];
	void *wrong;
	int i;

	(void)state;
	for (i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work[i],
						NULL), 0);
	for (i = 0; i < 3; i++) {
		pthread_join(threads[i], &wrong);
		if (wrong)
			fail_msg("%s", (char *)wrong);
	}
	assert_memory_equal(memory, content, LEN);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(wrong_arguments),
		TEST(reads_come_out_of_it),
		TEST(parts_go_their_own_way),
		TEST(a_region_far_ahead),
		TEST(reads_wait_for_their_bytes),
		TEST(large_reads_are_slept_through),
		TEST(a_file_that_shrinks_meanwhile),
		TEST(any_descriptor_of_the_file_will_do),
		TEST(writers_are_seen),
		TEST(what_was_cut_off_is_noticed),
		TEST(holes_that_are_punched_are_noticed),
		TEST(writes_around_the_page_cache_are_noticed),
		TEST(older_kernels_notice_too),
		TEST(it_holds_its_context),
		TEST(readers_and_closers),
	};

	close(mkstemp(path));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
