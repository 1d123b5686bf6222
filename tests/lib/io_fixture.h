/* SPDX-License-Identifier: MIT */
/*
 * What the tests of one transfer share: a context, a buffer and a file.
 */
#ifndef IO_FIXTURE_H
#define IO_FIXTURE_H

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
static unsigned char *memory;	/* of buf */
static unsigned char *content;	/* of the file */
static char path[] = "/var/tmp/peerdma-XXXXXX";

static inline int open_context(uint64_t keep)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = keep);
	PEERDMA_SIZED(peerdma_buffer_info, info);

	if (peerdma_open(&ctx, &opts) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_buffer_info(buf, &info))
		return -1;
	memory = fake_cuda_memory(info.device_addr);
	return 0;
}

static inline int set_up(void **state)
{
	(void)state;
	fake_kernel_reset();
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	return open_context(PEERDMA_KEEP_NONE);
}

static inline int tear_down(void **state)
{
	(void)state;
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	return fake_cuda.allocations || fake_cuda.host_allocations ||
	       fake_cuda.contexts || fake_cuda.streams || fake_cuda.depth;
}

static inline int open_file(int flags)
{
	int fd = open(path, flags);

	assert_true(fd >= 0);
	return fd;
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
		content[i] = i * 2654435761u >> 13;
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

#endif /* IO_FIXTURE_H */
