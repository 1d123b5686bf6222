// SPDX-License-Identifier: MIT
#include "t_gpu.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define EXIT_SETUP 99

static struct {
	int (*init)(unsigned int flags);
	int (*device_get)(int *dev, int ordinal);
	int (*ctx_retain)(void **ctx, int dev);
	int (*ctx_set)(void *ctx);
	int (*ctx_sync)(void);
	int (*alloc)(uint64_t *ptr, size_t len);
	int (*free)(uint64_t ptr);
	int (*set)(uint64_t dst, unsigned char byte, size_t len);
	int (*htod)(uint64_t dst, const void *src, size_t len);
	int (*dtoh)(void *dst, uint64_t src, size_t len);
	int (*export)(int *fd, uint64_t ptr, size_t len, int type,
		      unsigned long long flags);
} cuda;

static void check(int result, const char *what)
{
	if (!result)
		return;
	fprintf(stderr, "t_gpu: %s failed with CUDA error %d\n", what, result);
	exit(EXIT_SETUP);
}

static void *symbol(void *lib, const char *name)
{
	void *addr = dlsym(lib, name);

	if (!addr) {
		fprintf(stderr, "t_gpu: libcuda.so.1 has no %s\n", name);
		exit(EXIT_SETUP);
	}
	return addr;
}

void t_gpu_init(void)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW);
	void *ctx;
	int dev;

	if (!lib) {
		fprintf(stderr, "t_gpu: %s\n", dlerror());
		exit(EXIT_SETUP);
	}
	cuda.init = symbol(lib, "cuInit");
	cuda.device_get = symbol(lib, "cuDeviceGet");
	cuda.ctx_retain = symbol(lib, "cuDevicePrimaryCtxRetain");
	cuda.ctx_set = symbol(lib, "cuCtxSetCurrent");
	cuda.ctx_sync = symbol(lib, "cuCtxSynchronize");
	cuda.alloc = symbol(lib, "cuMemAlloc_v2");
	cuda.free = symbol(lib, "cuMemFree_v2");
	cuda.set = symbol(lib, "cuMemsetD8_v2");
	cuda.htod = symbol(lib, "cuMemcpyHtoD_v2");
	cuda.dtoh = symbol(lib, "cuMemcpyDtoH_v2");
	cuda.export = symbol(lib, "cuMemGetHandleForAddressRange");
	check(cuda.init(0), "cuInit");
	check(cuda.device_get(&dev, 0), "cuDeviceGet");
	check(cuda.ctx_retain(&ctx, dev), "cuDevicePrimaryCtxRetain");
	check(cuda.ctx_set(ctx), "cuCtxSetCurrent");
}

uint64_t t_gpu_alloc(size_t len)
{
	uint64_t ptr;

	check(cuda.alloc(&ptr, len), "cuMemAlloc");
	return ptr;
}

void t_gpu_free(uint64_t ptr)
{
	check(cuda.free(ptr), "cuMemFree");
}

void t_gpu_set(uint64_t dst, unsigned char byte, size_t len)
{
	check(cuda.set(dst, byte, len), "cuMemsetD8");
	/* CUDA fills device memory while the caller goes on. */
	check(cuda.ctx_sync(), "cuCtxSynchronize");
}

void t_gpu_write(uint64_t dst, const void *src, size_t len)
{
	check(cuda.htod(dst, src, len), "cuMemcpyHtoD");
}

void t_gpu_read(void *dst, uint64_t src, size_t len)
{
	check(cuda.dtoh(dst, src, len), "cuMemcpyDtoH");
}

/* CUDA's own dma-buf. */
int t_gpu_export(uint64_t ptr, size_t len)
{
	const int dma_buf_fd = 1;
	int fd = -1;

	check(cuda.export(&fd, ptr, len, dma_buf_fd, 0),
	      "cuMemGetHandleForAddressRange");
	return fd;
}

int t_device_open(void)
{
	int dev = open("/dev/peerdma", O_RDWR | O_CLOEXEC);

	if (dev < 0) {
		fprintf(stderr, "t_gpu: /dev/peerdma: %s\n", strerror(errno));
		exit(EXIT_SETUP);
	}
	return dev;
}

int t_ioctl(int dev, unsigned int nr, void *arg)
{
	return ioctl(dev, _IO(PEERDMA_IOCTL_TYPE, nr), arg) ? -errno : 0;
}

int t_pin(int dev, uint64_t ptr, uint64_t len, uint32_t flags,
	  struct peerdma_pin *pin)
{
	*pin = (struct peerdma_pin){
		.size = sizeof(*pin),
		.flags = flags,
		.provider = "nvidia",
		.addr = ptr,
		.len = len,
	};
	return ioctl(dev, PEERDMA_PIN, pin) ? -errno : pin->out_fd;
}

int t_file_io(int dev, struct peerdma_file_io *arg)
{
	arg->size = sizeof(*arg);
	return ioctl(dev, PEERDMA_FILE_IO, arg) ? -errno : 0;
}
