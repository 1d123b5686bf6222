// SPDX-License-Identifier: MIT
/*
 * GPU memory locked, asked after, mapped page by page, and unlocked.
 *
 * The flow is that of gpudma: cuMemAlloc, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, LOCK,
 * STATE, mmap() of each GPU page, UNLOCK; here by the kernel interface alone,
 * without libpeerdma. What is better:
 *
 * - gpudma's STATE hands every process physical addresses and its mmap() maps
 *   whichever one it is given, all of RAM among them. Here mmap() takes offsets
 *   within the buffer, and only CAP_SYS_RAWIO is told where that is.
 * - gpudma's mapping is uncached. This one is write-combined.
 * - LOCK rounds both ends of the range to GPU pages, where gpudma rounds the start,
 *   and says how far into them the range starts.
 * - UNLOCK is close(): whoever dies has unlocked. gpudma's handle is a kernel
 *   pointer that any process may pass.
 *
 * usage: gpumem
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cuda.h>
#include <peerdma/uapi.h>

#define LEN	(1u << 20)

static void check(int failed, const char *what, const char *remedy)
{
	if (!failed)
		return;
	fprintf(stderr, "gpumem: %s: %s; %s\n", what, strerror(errno), remedy);
	exit(1);
}

static void check_cuda(CUresult result, const char *what)
{
	const char *text = "an error that CUDA does not know";

	if (result == CUDA_SUCCESS)
		return;
	cuGetErrorString(result, &text);
	fprintf(stderr, "gpumem: %s: %s; does nvidia-smi show the GPU?\n", what,
		text);
	exit(1);
}

static CUdeviceptr gpu_alloc(void)
{
	unsigned int on = 1;
	CUcontext context;
	CUdeviceptr addr;
	CUdevice device;

	check_cuda(cuInit(0), "cuInit()");
	check_cuda(cuDeviceGet(&device, 0), "cuDeviceGet()");
	check_cuda(cuDevicePrimaryCtxRetain(&context, device),
		   "cuDevicePrimaryCtxRetain()");
	check_cuda(cuCtxSetCurrent(context), "cuCtxSetCurrent()");
	check_cuda(cuMemAlloc(&addr, LEN), "cuMemAlloc()");
	/* CUDA's own copies then keep in step with what others do to the memory. */
	check_cuda(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
					 addr), "cuPointerSetAttribute()");
	return addr;
}

static int lock_memory(int dev, CUdeviceptr addr)
{
	struct peerdma_pin pin = {
		.size = sizeof(pin),
		.provider = "nvidia",
		.addr = addr,
		.len = LEN,
	};
	int failed = ioctl(dev, PEERDMA_PIN, &pin);

	if (failed && errno == ENOENT)
		check(failed, "LOCK", "run: modprobe peerdma_nvidia");
	check(failed, "LOCK", "free GPU memory that is pinned elsewhere");
	return pin.out_fd;
}

/* Returns the GPU's page size. */
static uint32_t ask_state(int dev, int buffer)
{
	struct peerdma_segment segments[LEN / 4096];
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = buffer,
		.nr_segments = LEN / 4096,
		.segments = (uintptr_t)segments,
	};

	if (!ioctl(dev, PEERDMA_QUERY, &query)) {
		printf("state: %u pages of %u KiB, in %u pieces of the BAR\n",
		       LEN / query.out_page_size, query.out_page_size >> 10,
		       query.nr_segments);
		return query.out_page_size;
	}
	check(errno != EPERM, "STATE", "is the GPU still there?");
	/* Everybody may know what the buffer is, and not where. */
	query.nr_segments = 0;
	query.segments = 0;
	check(ioctl(dev, PEERDMA_QUERY, &query), "STATE",
	      "is the GPU still there?");
	printf("state: %u pages of %u KiB, where is for CAP_SYS_RAWIO to know\n",
	       LEN / query.out_page_size, query.out_page_size >> 10);
	return query.out_page_size;
}

/* A count that runs through all pages, each by a mapping of its own. */
static void fill(int buffer, uint32_t page_size)
{
	uint32_t *words, count = 0;
	off_t offset;
	uint32_t i;

	for (offset = 0; offset < LEN; offset += page_size) {
		words = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
			     MAP_SHARED, buffer, offset);
		check(words == MAP_FAILED, "mmap()", "was the memory revoked?");
		for (i = 0; i < page_size / sizeof(*words); i++)
			words[i] = count++;
		munmap(words, page_size);
	}
	/* What was stored write-combined is on its way before CUDA reads it. */
	__sync_synchronize();
}

static void verify(CUdeviceptr addr)
{
	static uint32_t words[LEN / sizeof(uint32_t)];
	uint32_t i;

	check_cuda(cuMemcpyDtoH(words, addr, LEN), "cuMemcpyDtoH()");
	for (i = 0; i < LEN / sizeof(*words); i++) {
		if (words[i] == i)
			continue;
		fprintf(stderr,
			"gpumem: word %u is %#x in GPU memory; this is a bug\n",
			i, words[i]);
		exit(1);
	}
	printf("the GPU has all %u words that the CPU wrote\n", i);
}

int main(void)
{
	const char *remedy = "run: modprobe peerdma_nvidia";
	CUdeviceptr addr = gpu_alloc();
	int dev, buffer;

	dev = open("/dev/peerdma", O_RDWR | O_CLOEXEC);
	if (dev < 0 && errno == EACCES)
		remedy = "join the group that owns it";
	check(dev < 0, "/dev/peerdma", remedy);
	buffer = lock_memory(dev, addr);
	fill(buffer, ask_state(dev, buffer));
	verify(addr);
	close(buffer);
	close(dev);
	check_cuda(cuMemFree(addr), "cuMemFree()");
	printf("unlocked\n");
	return 0;
}
