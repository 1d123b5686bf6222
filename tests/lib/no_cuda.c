// SPDX-License-Identifier: MIT
/* A machine that has never heard of CUDA: this program is not linked to its fake. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <peerdma.h>

#include "fake_kernel.h"

static void open_context(struct peerdma **ctx)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	fake_kernel_reset();
	assert_int_equal(peerdma_open(ctx, &opts), 0);
}

static void a_context_says_so(void **state)
{
	PEERDMA_SIZED(peerdma_context_info, info);
	struct peerdma_buffer *buf;
	struct peerdma *ctx;

	(void)state;
	open_context(&ctx);
	assert_int_equal(peerdma_context_info(ctx, &info), 0);
	assert_int_equal(info.cuda_reason, PEERDMA_REASON_NO_CUDA);
	assert_int_equal(info.gpu, PEERDMA_GPU_NONE);
	assert_int_equal(peerdma_buffer_alloc(ctx, 1, NULL, &buf), -ENODEV);
	peerdma_close(ctx);
}

static void device_memory_is_copied_by_the_cpu(void **state)
{
	static const char text[] = "through the mapping";
	struct peerdma_buffer *buf;
	struct peerdma *ctx;
	char back[sizeof(text)];

	(void)state;
	open_context(&ctx);
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR + 5000, 10000, NULL,
					    &buf), 0);
	assert_int_equal(peerdma_buffer_copy_in(buf, 77, text, sizeof(text)),
			 0);
	assert_string_equal((char *)fake_kernel_memory() + 5077, text);
	assert_int_equal(peerdma_buffer_copy_out(buf, 77, back, sizeof(text)),
			 0);
	assert_string_equal(back, text);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
}

static void unpinned_memory_is_out_of_reach(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	struct peerdma_buffer *buf;
	struct peerdma *ctx;

	(void)state;
	open_context(&ctx);
	fake_kernel.pin_errno = ENOBUFS;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 1, &opts, &buf),
			 -ENOBUFS);
	peerdma_close(ctx);
}

static void read_by_queue(struct peerdma *ctx, struct peerdma_buffer *buf,
			  int fd, char *memory)
{
	struct peerdma_io_request request = {
		.size = sizeof(request), .buf = buf, .fd = fd, .len = 3000,
	};
	struct peerdma_completion done;
	struct peerdma_queue *queue;

	memset(memory, 0, 3000);
	assert_int_equal(peerdma_queue_create(ctx, 1, NULL, &queue), 0);
	assert_int_equal(peerdma_queue_submit(queue, &request, 1, 0), 1);
	assert_int_equal(peerdma_queue_reap(queue, &done, 1, 1, NULL), 1);
	assert_int_equal(done.result, 6);
	assert_string_equal(memory, "hello");
	/* Streams are CUDA's. */
	request.flags = PEERDMA_IO_STREAM;
	assert_int_equal(peerdma_queue_submit(queue, &request, 1, 0), -EINVAL);
	peerdma_queue_destroy(queue);
}

static void host_memory_works(void **state)
{
	char path[] = "/var/tmp/peerdma-XXXXXX", memory[3000] = "";
	struct peerdma_buffer *buf;
	struct peerdma *ctx;
	int fd = mkstemp(path);

	(void)state;
	unlink(path);
	open_context(&ctx);
	assert_int_equal(write(fd, "hello", 6), 6);
	assert_int_equal(peerdma_buffer_host(ctx, memory, sizeof(memory), NULL,
					     &buf), 0);
	assert_int_equal(peerdma_read(buf, fd, 3000, 0, 0), 6);
	assert_string_equal(memory, "hello");
	read_by_queue(ctx, buf, fd, memory);
	peerdma_buffer_close(buf);
	close(fd);
	peerdma_close(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_context_says_so),
		cmocka_unit_test(device_memory_is_copied_by_the_cpu),
		cmocka_unit_test(unpinned_memory_is_out_of_reach),
		cmocka_unit_test(host_memory_works),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
