// SPDX-License-Identifier: MIT
/*
 * cuMemGetHandleForAddressRange(): what may be exported, how long it lives, and
 * what the CPU may do with it. Runs as root with no other user of the GPUs.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cuda.h"
#include "tap.h"

#define KIB	1024ul
#define MIB	(1024 * KIB)
#define PAGE	4096ul

static CUresult export(int *fd, CUdeviceptr ptr, size_t len,
		       unsigned long long flags)
{
	*fd = -1;
	return cuMemGetHandleForAddressRange(fd, ptr, len,
					     CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD,
					     flags);
}

static long long counter(const char *name)
{
	long long value = -1;
	char pattern[64];
	glob_t found;
	FILE *file;

	snprintf(pattern, sizeof(pattern), "/sys/kernel/debug/simgpu/*:*/%s",
		 name);
	if (glob(pattern, 0, NULL, &found))
		return -1;
	file = fopen(found.gl_pathv[0], "r");
	if (!file || fscanf(file, "%lld", &value) != 1)
		value = -1;
	if (file)
		fclose(file);
	globfree(&found);
	return value;
}

static void test_arguments(void)
{
	const int PCIE = CU_MEM_RANGE_FLAG_DMA_BUF_MAPPING_TYPE_PCIE;
	static char host[PAGE];
	CUdeviceptr ptr;
	int fd;

	is(cuMemAlloc(&ptr, MIB), CUDA_SUCCESS, "a MiB");
	is(export(&fd, ptr, 0, 0), CUDA_ERROR_INVALID_VALUE, "no bytes");
	is(export(&fd, ptr + 512, PAGE, 0), CUDA_ERROR_INVALID_VALUE,
	   "a misaligned address");
	is(export(&fd, ptr, PAGE + 512, 0), CUDA_ERROR_INVALID_VALUE,
	   "a misaligned length");
	is(export(&fd, ptr, MIB + 2 * MIB, 0), CUDA_ERROR_INVALID_VALUE,
	   "more than was allocated");
	is(export(&fd, (uintptr_t)host & -PAGE, PAGE, 0),
	   CUDA_ERROR_INVALID_VALUE, "host memory");
	is(export(&fd, ptr, MIB, 2), CUDA_ERROR_INVALID_VALUE,
	   "a flag of no meaning");
	is(export(&fd, ptr, MIB, PCIE), CUDA_ERROR_NOT_SUPPORTED,
	   "a mapping over PCIe alone");
	is(cuMemGetHandleForAddressRange(&fd, ptr, MIB, 2, 0),
	   CUDA_ERROR_INVALID_VALUE, "a handle of another type");
	is(fd, -1, "none of them leaves a descriptor");
	is(cuMemFree(ptr), CUDA_SUCCESS, "free");
}

static void test_descriptor(void)
{
	CUdeviceptr ptr;
	void *map;
	int fd;

	is(cuMemAlloc(&ptr, MIB), CUDA_SUCCESS, "a MiB");
	is(export(&fd, ptr + 3 * PAGE, 17 * PAGE, 0), CUDA_SUCCESS,
	   "a part, by pages of the host");
	is(lseek(fd, 0, SEEK_END), 17 * PAGE, "is as large as asked for");
	is(fcntl(fd, F_GETFD), FD_CLOEXEC, "close-on-exec");
	is(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR, "to be read and written");
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	ok(map == MAP_FAILED && errno == 524, "but not by the CPU");
	close(fd);
	is(cuMemFree(ptr), CUDA_SUCCESS, "free");
}

/* To the memory, a dma-buf is an owner as good as the allocation. */
static void test_lifetime(void)
{
	long long before = counter("allocated");
	CUdeviceptr ptr;
	int first, second;

	is(cuMemAlloc(&ptr, 4 * MIB), CUDA_SUCCESS, "4 MiB");
	is(export(&first, ptr, 4 * MIB, 0), CUDA_SUCCESS, "all of it");
	is(export(&second, ptr + MIB, MIB, 0), CUDA_SUCCESS, "and a part");
	ok(counter("dma_bufs") == 2 || counter("dma_bufs") == -1,
	   "are two dma-bufs");
	is(cuMemFree(ptr), CUDA_SUCCESS, "free");
	is(counter("allocated") - before, 4 * MIB, "which frees nothing yet");
	close(first);
	is(counter("allocated") - before, 4 * MIB, "nor does the first close");
	close(second);
	is(counter("allocated"), before, "but the last does");
	is(counter("dma_bufs"), 0, "no dma-buf is left");
}

/* Two pieces of memory, side by side in the address space. */
static void test_adjacent(void)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
	};
	CUmemGenericAllocationHandle half[2];
	CUdeviceptr at;
	int i, fd;

	is(cuMemAddressReserve(&at, 4 * MIB, 0, 0, 0), CUDA_SUCCESS,
	   "reserve");
	for (i = 0; i < 2; i++) {
		is(cuMemCreate(&half[i], 2 * MIB, &prop, 0), CUDA_SUCCESS,
		   "a half");
		is(cuMemMap(at + i * 2 * MIB, 2 * MIB, 0, half[i], 0),
		   CUDA_SUCCESS, "is mapped");
		is(cuMemRelease(half[i]), CUDA_SUCCESS, "and released");
	}
	is(export(&fd, at + MIB, 2 * MIB, 0), CUDA_SUCCESS,
	   "a dma-buf of both");
	is(lseek(fd, 0, SEEK_END), 2 * MIB, "has both");
	close(fd);
	is(cuMemUnmap(at, 2 * MIB), CUDA_SUCCESS, "unmap the first");
	is(export(&fd, at + MIB, 2 * MIB, 0), CUDA_ERROR_INVALID_VALUE,
	   "then it is not all memory");
	is(cuMemUnmap(at + 2 * MIB, 2 * MIB), CUDA_SUCCESS, "unmap");
	is(cuMemAddressFree(at, 4 * MIB), CUDA_SUCCESS, "free");
}

static void test_failure(void)
{
	int control = open("/sys/kernel/debug/simgpu/fail", O_WRONLY);
	CUdeviceptr ptr;
	int fd;

	is(cuMemAlloc(&ptr, MIB), CUDA_SUCCESS, "a MiB");
	ok(write(control, "dma_buf -12 1", 13) == 13, "a failure is asked for");
	is(export(&fd, ptr, MIB, 0), CUDA_ERROR_OUT_OF_MEMORY, "and comes");
	is(fd, -1, "without a descriptor");
	is(export(&fd, ptr, MIB, 0), CUDA_SUCCESS, "once");
	close(fd);
	close(control);
	is(cuMemFree(ptr), CUDA_SUCCESS, "free");
}

int main(void)
{
	CUcontext ctx;

	is(cuInit(0), CUDA_SUCCESS, "init");
	is(cuCtxCreate(&ctx, 0, 0), CUDA_SUCCESS, "context");
	if (tap_failed)
		return tap_done();
	test_arguments();
	test_descriptor();
	test_lifetime();
	test_adjacent();
	test_failure();
	is(cuCtxDestroy(ctx), CUDA_SUCCESS, "destroy the context");
	return tap_done();
}
