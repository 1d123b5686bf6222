// SPDX-License-Identifier: MIT
/* A context opens on any machine and says what it found. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"

static int set_up(void **state)
{
	(void)state;
	fake_kernel_reset();
	fake_cuda = (struct fake_cuda){ .nr_gpus = 2 };
	return 0;
}

static void expect_info(const struct peerdma_open_opts *opts, int module_reason,
			int cuda_reason, int gpu)
{
	PEERDMA_SIZED(peerdma_context_info, info);
	struct peerdma *ctx;

	assert_int_equal(peerdma_open(&ctx, opts), 0);
	assert_int_equal(peerdma_context_info(ctx, &info), 0);
	assert_int_equal(info.module_reason, module_reason);
	assert_int_equal(info.cuda_reason, cuda_reason);
	assert_int_equal(info.gpu, gpu);
	if (!module_reason) {
		assert_string_equal(info.providers, "nvidia");
		assert_int_equal(info.verbs, 0x1f);
		assert_int_equal(info.max_segments, 65536);
	}
	peerdma_close(ctx);
}

static void module_and_cuda(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE, .gpu = 1);

	(void)state;
	expect_info(&opts, 0, 0, 1);
}

static void no_module(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = "/dev/peerdma-none");

	(void)state;
	expect_info(&opts, PEERDMA_REASON_NO_MODULE, 0, 0);
	opts.device = FAKE_DEVICE;
	fake_kernel.absent = true;
	expect_info(&opts, PEERDMA_REASON_NO_MODULE, 0, 0);
}

static void no_permission(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	(void)state;
	fake_kernel.open_errno = EACCES;
	fake_kernel.open_path = FAKE_DEVICE;
	expect_info(&opts, PEERDMA_REASON_NO_PERMISSION, 0, 0);
}

static void no_gpu(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	(void)state;
	fake_cuda.nr_gpus = 0;
	expect_info(&opts, 0, PEERDMA_REASON_NO_GPU, PEERDMA_GPU_NONE);
}

static void gpu_declined(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		      .gpu = PEERDMA_GPU_NONE);

	(void)state;
	expect_info(&opts, 0, PEERDMA_REASON_NO_GPU, PEERDMA_GPU_NONE);
}

static void wrong_options(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	struct peerdma *ctx = NULL;

	(void)state;
	opts.gpu = 2;
	assert_int_equal(peerdma_open(&ctx, &opts), -ENODEV);
	opts.gpu = -2;
	assert_int_equal(peerdma_open(&ctx, &opts), -EINVAL);
	opts.gpu = 0;
	opts.flags = 1;
	assert_int_equal(peerdma_open(&ctx, &opts), -EOPNOTSUPP);
	opts.size = 1;
	assert_int_equal(peerdma_open(&ctx, &opts), -EINVAL);
	assert_null(ctx);
}

static void gpus_have_addresses(void **state)
{
	PEERDMA_SIZED(peerdma_gpu_info, info);
	struct peerdma *ctx;

	(void)state;
	assert_int_equal(peerdma_open(&ctx, NULL), 0);
	assert_int_equal(peerdma_gpu_info(ctx, 1, &info), 0);
	assert_string_equal(info.name, "Fake 1");
	assert_string_equal(info.device, "0000:02:02.0");
	assert_int_equal(peerdma_gpu_info(ctx, 2, &info), -ENODEV);
	peerdma_close(ctx);
}

static void a_context_waits_for_its_buffers(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	struct peerdma_buffer *buf;
	struct peerdma *ctx;
	char byte = 1;

	(void)state;
	assert_int_equal(peerdma_open(&ctx, &opts), 0);
	assert_int_equal(peerdma_buffer_alloc(ctx, 100, NULL, &buf), 0);
	peerdma_close(ctx);
	assert_int_equal(fake_cuda.contexts, 1);
	assert_int_equal(peerdma_buffer_copy_in(buf, 99, &byte, 1), 0);
	peerdma_buffer_close(buf);
	assert_int_equal(fake_cuda.contexts, 0);
	assert_int_equal(fake_cuda.allocations, 0);
	assert_int_equal(fake_cuda.streams, 0);
	assert_int_equal(fake_cuda.depth, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(module_and_cuda, set_up),
		cmocka_unit_test_setup(no_module, set_up),
		cmocka_unit_test_setup(no_permission, set_up),
		cmocka_unit_test_setup(no_gpu, set_up),
		cmocka_unit_test_setup(gpu_declined, set_up),
		cmocka_unit_test_setup(wrong_options, set_up),
		cmocka_unit_test_setup(gpus_have_addresses, set_up),
		cmocka_unit_test_setup(a_context_waits_for_its_buffers, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
