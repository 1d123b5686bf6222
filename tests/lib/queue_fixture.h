/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the queue share: a context, a buffer, a file, and requests.
 */
#ifndef QUEUE_FIXTURE_H
#define QUEUE_FIXTURE_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../include/uapi/peerdma.h"
#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"

#define LEN	((size_t)8 << 20)
#define PIECE	((size_t)4096)
#define KIB	((size_t)1024)
#define MIB	(KIB * KIB)
#define DEPTH	128

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static struct peerdma_queue *queue;
static unsigned char *memory;	/* of buf */
static unsigned char *content;	/* of the file */
static char path[] = "/var/tmp/peerdma-XXXXXX";
static int nr_fds;
static struct peerdma_completion done[DEPTH];

static inline int set_up(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	PEERDMA_SIZED(peerdma_buffer_info, info);

	(void)state;
	fake_kernel_memory();
	fake_kernel_reset();
	fake_kernel.uring = true;
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	nr_fds = fake_kernel_count_fds();
	if (peerdma_open(&ctx, &opts) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_buffer_info(buf, &info))
		return -1;
	memory = fake_cuda_memory(info.device_addr);
	memset(memory, 0, LEN);
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	assert_int_equal(fake_cuda.allocations, 0);
	assert_int_equal(fake_cuda.host_allocations, 0);
	assert_int_equal(fake_cuda.streams, 0);
	assert_int_equal(fake_cuda.depth, 0);
	return 0;
}

/* threads 0 and no flags: the defaults. */
static inline void make_queue(unsigned int depth, uint32_t flags,
			      uint32_t threads)
{
	PEERDMA_SIZED(peerdma_queue_opts, opts, .flags = flags,
		.threads = threads);

	assert_int_equal(peerdma_queue_create(ctx, depth, &opts, &queue), 0);
}

static inline int open_file(int flags)
{
	int fd = open(path, flags);

	assert_true(fd >= 0);
	return fd;
}

static inline struct peerdma_io_request request_of(int fd, uint64_t at,
						   uint64_t len,
						   uint64_t user_data)
{
	return (struct peerdma_io_request){
		.size = sizeof(struct peerdma_io_request),
		.user_data = user_data,
		.buf = buf,
		.fd = fd,
		.file_offset = at,
		.buffer_offset = at,
		.len = len,
	};
}

static inline int submit(const struct peerdma_io_request *request)
{
	return peerdma_queue_submit(queue, request, 1, 0);
}

static inline void submit_read(int fd, uint64_t at, uint64_t len,
			       uint64_t user_data)
{
	struct peerdma_io_request request = request_of(fd, at, len, user_data);

	assert_int_equal(submit(&request), 1);
}

static inline struct peerdma_completion *reap_one(void)
{
	assert_int_equal(peerdma_queue_reap(queue, done, 1, 1, NULL), 1);
	return &done[0];
}

/* One request, by itself, to its end. */
static inline struct peerdma_completion *
run(const struct peerdma_io_request *request)
{
	assert_int_equal(submit(request), 1);
	return reap_one();
}

static inline void await_gate(int nr)
{
	while (fake_kernel_in_gate() < nr)
		usleep(1000);
}

static inline int make_file(void **state)
{
	int fd = mkstemp(path);
	size_t i;

	(void)state;
	content = malloc(LEN);
	if (!content)
		return -1;
	for (i = 0; i < LEN; i++)
		content[i] = i * 2654435761u >> 13 | 1;
	if (write(fd, content, LEN) != (ssize_t)LEN)
		return -1;
	return close(fd);
}

static inline int remove_file(void **state)
{
	(void)state;
	free(content);
	return unlink(path);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif /* QUEUE_FIXTURE_H */
