// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../include/uapi/peerdma.h"
#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"

static struct peerdma *ctx;
static int nr_fds;		/* before each test */

static int set_up(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	(void)state;
	fake_kernel_memory();
	fake_kernel_reset();
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	nr_fds = fake_kernel_count_fds();
	return peerdma_open(&ctx, &opts);
}

static int tear_down(void **state)
{
	(void)state;
	peerdma_close(ctx);
	assert_int_equal(fake_cuda.allocations, 0);
	assert_int_equal(fake_cuda.host_allocations, 0);
	assert_int_equal(fake_cuda.contexts, 0);
	assert_int_equal(fake_cuda.streams, 0);
	assert_int_equal(fake_cuda.depth, 0);
	assert_int_equal(fake_kernel_count_fds(), nr_fds);
	return 0;
}

static void pin_tells_of_itself(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *buf;

	(void)state;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR + 100, 70000, NULL,
					    &buf), 0);
	assert_int_equal(fake_kernel.pin_flags, 0);
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_int_equal(info.len, 70000);
	assert_int_equal(info.device_addr, FAKE_ADDR + 100);
	assert_int_equal(info.page_size, 65536);
	assert_int_equal(info.state,
			 PEERDMA_STATE_PINNED | PEERDMA_STATE_PERSISTENT);
	assert_int_equal(info.fd, peerdma_buffer_fd(buf));
	assert_int_equal(info.reason, 0);
	assert_string_equal(info.provider, "nvidia");
	assert_string_equal(info.device, "0000:01:02.0");
	assert_true(fcntl(info.fd, F_GETFD) & FD_CLOEXEC);
	peerdma_buffer_close(buf);
}

static void pin_fails_as_the_kernel_says(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .provider = "amd");
	struct peerdma_buffer *buf;

	(void)state;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 0, NULL, &buf),
			 -EINVAL);
	assert_int_equal(peerdma_buffer_pin(ctx, -4096ull, 8192, NULL, &buf),
			 -EOVERFLOW);
	assert_int_equal(peerdma_buffer_pin(ctx, 64, 1, NULL, &buf), -EFAULT);
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 1, &opts, &buf),
			 -ENOENT);
	opts.provider = "a name of sixteen";
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 1, &opts, &buf),
			 -ENOENT);
	opts.provider = NULL;
	opts.flags = 1u << 31;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 1, &opts, &buf),
			 -EOPNOTSUPP);
	fake_kernel.pin_errno = ENOBUFS;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 1, NULL, &buf),
			 -ENOBUFS);
}

static void without_module_pin_fails(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = "/nowhere");
	struct peerdma_buffer *buf;
	struct peerdma *other;

	(void)state;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	assert_int_equal(peerdma_buffer_pin(other, FAKE_ADDR, 1, NULL, &buf),
			 -ENXIO);
	peerdma_close(other);
	fake_kernel.open_errno = EACCES;
	fake_kernel.open_path = FAKE_DEVICE;
	opts.device = FAKE_DEVICE;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	assert_int_equal(peerdma_buffer_pin(other, FAKE_ADDR, 1, NULL, &buf),
			 -EACCES);
	peerdma_close(other);
}

static void expect_staged(struct peerdma *of, int pin_errno, int reason)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *buf;

	fake_kernel.pin_errno = pin_errno;
	assert_int_equal(peerdma_buffer_alloc(of, 5000, &opts, &buf), 0);
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_int_equal(info.reason, reason);
	assert_int_equal(info.fd, -1);
	assert_int_equal(info.state, 0);
	assert_string_equal(info.provider, "");
	assert_string_equal(info.device, "0000:01:02.0");
	assert_int_equal(peerdma_buffer_fd(buf), -EOPNOTSUPP);
	peerdma_buffer_close(buf);
}

static void staged_buffers_know_why(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = "/nowhere");
	struct peerdma *other;

	(void)state;
	expect_staged(ctx, ENOBUFS, PEERDMA_REASON_NO_APERTURE);
	expect_staged(ctx, ENOENT, PEERDMA_REASON_NO_PROVIDER);
	expect_staged(ctx, EFAULT, PEERDMA_REASON_NOT_PINNABLE);
	expect_staged(ctx, ENOTTY, PEERDMA_REASON_NO_VERB);
	assert_int_equal(peerdma_open(&other, &opts), 0);
	expect_staged(other, 0, PEERDMA_REASON_NO_MODULE);
	peerdma_close(other);
}

/* No module looks at it then. */
static void staged_buffers_stay_in_their_memory(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *all, *part = NULL;
	uint64_t addr;

	(void)state;
	assert_int_equal(peerdma_buffer_alloc(ctx, 5000, &opts, &all), 0);
	assert_int_equal(peerdma_buffer_info(all, &info), 0);
	addr = info.device_addr;
	fake_kernel.pin_errno = ENXIO;
	assert_int_equal(peerdma_buffer_pin(ctx, addr + 1, 5000, &opts, &part),
			 -EFAULT);
	assert_int_equal(peerdma_buffer_pin(ctx, addr + 4999, 2, &opts, &part),
			 -EFAULT);
	assert_null(part);
	assert_int_equal(peerdma_buffer_pin(ctx, addr + 1, 4999, &opts, &part),
			 0);
	peerdma_buffer_close(part);
	peerdma_buffer_close(all);
}

static void alloc_frees_what_cannot_be_pinned(void **state)
{
	struct peerdma_buffer *buf;

	(void)state;
	fake_kernel.pin_errno = ENOBUFS;
	assert_int_equal(peerdma_buffer_alloc(ctx, 1, NULL, &buf), -ENOBUFS);
	assert_int_equal(fake_cuda.allocations, 0);
	assert_int_equal(peerdma_buffer_alloc(ctx, 0, NULL, &buf), -EINVAL);
	assert_int_equal(peerdma_buffer_alloc(ctx, 1ull << 40, NULL, &buf),
			 -ENOMEM);
}

static void cuda_memory_is_made_synchronous(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *buf;

	(void)state;
	assert_int_equal(peerdma_buffer_alloc(ctx, 1000, NULL, &buf), 0);
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_int_equal(fake_cuda.sync_memops, info.device_addr);
	peerdma_buffer_close(buf);
}

static void a_mapping_starts_at_the_first_byte(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_READ_ONLY);
	struct peerdma_buffer *buf;
	int zero = open("/dev/zero", O_RDONLY);
	unsigned char vec[1];
	char *addr;

	(void)state;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR + 8195, 8000, NULL,
					    &buf), 0);
	assert_int_equal(peerdma_buffer_map(buf, NULL, (void **)&addr), 0);
	addr[0] = 'a';
	addr[7999] = 'z';
	assert_int_equal(fake_kernel_memory()[8195], 'a');
	assert_int_equal(fake_kernel_memory()[8195 + 7999], 'z');
	assert_int_equal(peerdma_buffer_unmap(buf, addr), 0);
	assert_int_equal(mincore(addr - 3, 1, vec), -1);
	assert_int_equal(mincore(addr - 3 + 4096, 1, vec), -1);
	assert_int_equal(peerdma_buffer_map(buf, &opts, (void **)&addr), 0);
	assert_int_equal(addr[7999], 'z');
	/* Not writable: the kernel may not write there either. */
	assert_int_equal(read(zero, addr, 1), -1);
	close(zero);
	assert_int_equal(peerdma_buffer_unmap(buf, addr), 0);
	peerdma_buffer_close(buf);
}

static void read_only_holds(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_READ_ONLY);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *buf, *twin;
	char byte = 0;

	(void)state;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 10, &opts, &buf),
			 0);
	assert_int_equal(fake_kernel.pin_flags, PEERDMA_PIN_READ_ONLY);
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_true(info.state & PEERDMA_STATE_READ_ONLY);
	assert_int_equal(peerdma_buffer_copy_in(buf, 0, &byte, 1), -EACCES);
	assert_int_equal(peerdma_buffer_copy_out(buf, 0, &byte, 1), 0);
	assert_int_equal(peerdma_read(buf, 0, 1, 0, 0), -EACCES);
	assert_int_equal(peerdma_buffer_import(ctx, peerdma_buffer_fd(buf),
					       NULL, &twin), 0);
	assert_int_equal(peerdma_buffer_copy_in(twin, 0, &byte, 1), -EACCES);
	peerdma_buffer_close(twin);
	peerdma_buffer_close(buf);
}

static void an_import_is_the_same_memory(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *buf, *twin;
	char byte = 0;

	(void)state;
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR + 4100, 9000, NULL,
					    &buf), 0);
	assert_int_equal(peerdma_buffer_import(ctx, peerdma_buffer_fd(buf),
					       NULL, &twin), 0);
	peerdma_buffer_close(buf);
	assert_int_equal(peerdma_buffer_info(twin, &info), 0);
	assert_int_equal(info.len, 9000);
	assert_int_equal(info.reason, 0);
	fake_kernel_memory()[4100 + 8999] = 'x';
	assert_int_equal(peerdma_buffer_copy_out(twin, 8999, &byte, 1), 0);
	assert_int_equal(byte, 'x');
	peerdma_buffer_close(twin);
}

static void a_foreign_dmabuf_is_copied(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	int fd = fake_kernel_foreign(8192);
	struct peerdma_buffer *buf;
	char byte = 0;

	(void)state;
	assert_int_equal(peerdma_buffer_import(ctx, fd, NULL, &buf), 0);
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_int_equal(info.len, 8192);
	assert_int_equal(info.reason, PEERDMA_REASON_FOREIGN_BUFFER);
	assert_int_equal(pwrite(fd, "y", 1, 8191), 1);
	assert_int_equal(peerdma_buffer_copy_out(buf, 8191, &byte, 1), 0);
	assert_int_equal(byte, 'y');
	peerdma_buffer_close(buf);
	close(fd);
}

static void expect_exported(struct peerdma *of, const char *provider, int reason)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .provider = provider);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *buf;

	assert_int_equal(peerdma_buffer_alloc(of, 8192, &opts, &buf), 0);
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_int_equal(info.reason, reason);
	assert_int_equal(lseek(info.fd, 0, SEEK_END), 8192);
	assert_true(fcntl(info.fd, F_GETFD) & FD_CLOEXEC);
	peerdma_buffer_close(buf);
}

/* CUDA's own dma-buf: on demand, and where the module knows no NVIDIA memory. */
static void cuda_exports_what_is_not_pinned(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts,
		.provider = PEERDMA_PROVIDER_DMA_BUF);
	PEERDMA_SIZED(peerdma_open_opts, nowhere, .device = "/nowhere");
	struct peerdma_buffer *buf;
	struct peerdma *other;

	(void)state;
	expect_exported(ctx, PEERDMA_PROVIDER_DMA_BUF, 0);
	fake_kernel.pin_errno = ENOENT;
	expect_exported(ctx, NULL, 0);
	assert_int_equal(peerdma_open(&other, &nowhere), 0);
	expect_exported(other, PEERDMA_PROVIDER_DMA_BUF,
			PEERDMA_REASON_NO_MODULE);
	peerdma_close(other);
	assert_int_equal(peerdma_buffer_alloc(ctx, 8193, &opts, &buf), -EINVAL);
	assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR, 4096, &opts, &buf),
			 -EFAULT);
	opts.flags = PEERDMA_F_READ_ONLY;
	assert_int_equal(peerdma_buffer_alloc(ctx, 8192, &opts, &buf),
			 -EOPNOTSUPP);
	opts.flags = 0;
	fake_cuda.fail_export = 801;
	assert_int_equal(peerdma_buffer_alloc(ctx, 8192, &opts, &buf),
			 -EOPNOTSUPP);
	assert_int_equal(peerdma_buffer_alloc(ctx, 8192, NULL, &buf), -ENOENT);
}

static void only_dmabufs_are_imported(void **state)
{
	int fd = memfd_create("plain", 0);
	struct peerdma_buffer *buf;

	(void)state;
	assert_int_equal(peerdma_buffer_import(ctx, fd, NULL, &buf), -EINVAL);
	assert_int_equal(peerdma_buffer_import(ctx, -1, NULL, &buf), -EBADF);
	close(fd);
}

static void copies_stay_in_range(void **state)
{
	struct peerdma_buffer *buf;
	char bytes[16] = { 0 };

	(void)state;
	assert_int_equal(peerdma_buffer_alloc(ctx, 10, NULL, &buf), 0);
	assert_int_equal(peerdma_buffer_copy_in(buf, 1, bytes, 10), -ERANGE);
	assert_int_equal(peerdma_buffer_copy_out(buf, 11, bytes, 0), -ERANGE);
	assert_int_equal(peerdma_buffer_copy_out(buf, -1ull, bytes, 2),
			 -EOVERFLOW);
	assert_int_equal(peerdma_buffer_copy_out(buf, 10, bytes, 0), 0);
	peerdma_buffer_close(buf);
}

static void host_memory_maps_to_itself(void **state)
{
	struct peerdma_buffer *buf;
	char memory[10];
	void *addr;

	(void)state;
	assert_int_equal(peerdma_buffer_host(ctx, memory, 0, NULL, &buf),
			 -EINVAL);
	assert_int_equal(peerdma_buffer_host(ctx, memory, 10, NULL, &buf), 0);
	assert_int_equal(peerdma_buffer_map(buf, NULL, &addr), 0);
	assert_ptr_equal(addr, memory);
	assert_int_equal(peerdma_buffer_unmap(buf, addr), 0);
	assert_int_equal(peerdma_buffer_fd(buf), -EOPNOTSUPP);
	peerdma_buffer_close(buf);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Of cuMemCreate(), of a pool: the GPU is known, a context is not. */
static void memory_of_no_context_on_another_gpu(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	static const char text[] = "over there";
	struct peerdma_buffer *bufs[2];
	char back[sizeof(text)];
	struct peerdma *other;
	int i;

	(void)state;
	fake_cuda.nr_gpus = 2;
	fake_cuda.ordinal = 1;
	fake_cuda.no_context = true;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	for (i = 0; i < 2; i++) {
		assert_int_equal(peerdma_buffer_alloc(other, 10000, NULL,
						      &bufs[i]), 0);
		assert_int_equal(peerdma_buffer_copy_in(bufs[i], 7, text,
							sizeof(text)), 0);
		assert_int_equal(peerdma_buffer_copy_out(bufs[i], 7, back,
							 sizeof(text)), 0);
		assert_string_equal(back, text);
	}
	/* Once each, for good. */
	assert_int_equal(fake_cuda.contexts, 2);
	peerdma_buffer_close(bufs[0]);
	peerdma_buffer_close(bufs[1]);
	peerdma_close(other);
	assert_int_equal(fake_cuda.contexts, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pin_tells_of_itself),
		TEST(pin_fails_as_the_kernel_says),
		TEST(without_module_pin_fails),
		TEST(staged_buffers_know_why),
		TEST(staged_buffers_stay_in_their_memory),
		TEST(alloc_frees_what_cannot_be_pinned),
		TEST(cuda_memory_is_made_synchronous),
		TEST(a_mapping_starts_at_the_first_byte),
		TEST(read_only_holds),
		TEST(an_import_is_the_same_memory),
		TEST(a_foreign_dmabuf_is_copied),
		TEST(cuda_exports_what_is_not_pinned),
		TEST(only_dmabufs_are_imported),
		TEST(copies_stay_in_range),
		TEST(host_memory_maps_to_itself),
		TEST(memory_of_no_context_on_another_gpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
