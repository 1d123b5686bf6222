// SPDX-License-Identifier: MIT
/*
 * Threads share a context, a buffer and a descriptor, each in a range of its own.
 * ThreadSanitizer has a word to say about it too.
 */
#include <fcntl.h>
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

#define NR_THREADS	4
#define ROUNDS		8
#define RANGE		((size_t)9 << 20)
#define ODD		123

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static char path[] = "/var/tmp/peerdma-XXXXXX";
static unsigned char *content;
static int fd;

/* No assertions here: they jump, which other threads must not. */
static const char *round_trip(int n, uint32_t way, unsigned char *back)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = way);
	uint64_t at = n * RANGE;
	size_t len = RANGE - ODD;

	memset(back, 0, RANGE);
	if (peerdma_buffer_copy_in(buf, at, back, RANGE))
		return "copy_in";
	if (peerdma_read_opts(buf, fd, len, at, at, &opts, NULL) !=
	    (ssize_t)len)
		return "read";
	if (peerdma_buffer_copy_out(buf, at, back, RANGE))
		return "copy_out";
	if (memcmp(back, content + at, len) || back[len])
		return "bytes";
	if (peerdma_write_opts(buf, fd, len, at, at, &opts, NULL) !=
	    (ssize_t)len)
		return "write";
	return NULL;
}

static void *work(void *arg)
{
	int n = (intptr_t)arg, i;
	const char *wrong = NULL;
	unsigned char *back = malloc(RANGE);

	if (!back)
		return "malloc";
	for (i = 0; !wrong && i < ROUNDS; i++)
		wrong = round_trip(n, (i + n) % 4, back);
	free(back);
	return (void *)wrong;
}

static void ranges_of_one_buffer(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	pthread_t threads[NR_THREADS];
	void *wrong[NR_THREADS];
	intptr_t i;

	(void)state;
	assert_int_equal(peerdma_open(&ctx, &opts), 0);
	assert_int_equal(peerdma_buffer_alloc(ctx, NR_THREADS * RANGE, NULL,
					      &buf), 0);
	for (i = 0; i < NR_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work,
						(void *)i), 0);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], &wrong[i]);
	for (i = 0; i < NR_THREADS; i++)
		if (wrong[i])
			fail_msg("%s", (char *)wrong[i]);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	assert_int_equal(fake_cuda.host_allocations, 0);
	assert_int_equal(fake_cuda.streams, 0);
}

static int make_file(void **state)
{
	size_t i;

	(void)state;
	fd = mkstemp(path);
	content = malloc(NR_THREADS * RANGE);
	if (!content)
		return -1;
	for (i = 0; i < NR_THREADS * RANGE; i++)
		content[i] = i * 2654435761u >> 11;
	if (pwrite(fd, content, NR_THREADS * RANGE, 0) !=
	    (ssize_t)(NR_THREADS * RANGE))
		return -1;
	fake_kernel_reset();
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_of_one_buffer),
	};

	return cmocka_run_group_tests(tests, make_file, NULL);
}
