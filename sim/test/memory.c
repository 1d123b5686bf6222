// SPDX-License-Identifier: MIT
/*
 * Allocation and copies, against a reference in host memory: all sizes and
 * offsets around the edges of scattered pages. Passes with the real library and
 * a real GPU, too.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"
#include "tap.h"

#define KIB	1024ul
#define MIB	(1024 * KIB)
#define LEN	(3 * MIB + 12345)

static uint64_t state = 88172645463325252ull;

static uint64_t rnd(uint64_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

static void fill(uint8_t *at, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		at[i] = rnd(256);
}

static bool device_equals(CUdeviceptr ptr, const uint8_t *want, size_t len)
{
	uint8_t *got = malloc(len);
	bool same;

	same = !cuMemcpyDtoH(got, ptr, len) && !memcmp(got, want, len);
	free(got);
	return same;
}

static void test_whole(CUdeviceptr ptr, uint8_t *ref)
{
	fill(ref, LEN);
	is(cuMemcpyHtoD(ptr, ref, LEN), CUDA_SUCCESS, "copy in");
	ok(device_equals(ptr, ref, LEN), "copy out gives the same bytes");
}

/* One byte to either side of every kind of page edge. */
static void test_edges(CUdeviceptr ptr, uint8_t *ref)
{
	static const size_t edges[] = { 4 * KIB, 64 * KIB, 128 * KIB, 2 * MIB };
	uint8_t piece[512];
	bool good = true;
	size_t i, before, len;

	for (i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		for (before = 0; before < 3; before++) {
			for (len = 1; len <= sizeof(piece); len = len * 2 + 1) {
				fill(piece, len);
				memcpy(ref + edges[i] - before, piece, len);
				good = good && !cuMemcpyHtoD(
					ptr + edges[i] - before, piece, len);
			}
		}
	}
	ok(good && device_equals(ptr, ref, LEN), "writes across page edges");
}

static void test_random(CUdeviceptr ptr, uint8_t *ref)
{
	static uint8_t piece[200 * KIB];
	bool good = true;
	size_t at, len;
	int i;

	for (i = 0; i < 200 && good; i++) {
		len = 1 + rnd(i % 4 ? 5000 : sizeof(piece));
		at = rnd(LEN - len);
		if (i % 2) {
			fill(piece, len);
			memcpy(ref + at, piece, len);
			good = !cuMemcpyHtoD(ptr + at, piece, len);
		} else {
			good = !cuMemcpyDtoH(piece, ptr + at, len) &&
			       !memcmp(piece, ref + at, len);
		}
	}
	ok(good, "200 copies of random size and place");
	ok(device_equals(ptr, ref, LEN), "nothing else has changed");
}

static void test_device_to_device(CUdeviceptr ptr, uint8_t *ref)
{
	CUdeviceptr other;
	bool good = true;
	size_t at, to, len;
	int i;

	is(cuMemAlloc(&other, LEN), CUDA_SUCCESS, "a second allocation");
	good = !cuMemcpyDtoD(other, ptr, LEN);
	for (i = 0; i < 50; i++) {
		len = 1 + rnd(300 * KIB);
		at = rnd(LEN - len);
		to = rnd(LEN - len);
		good = good && !cuMemcpyDtoD(ptr + to, other + at, len);
		good = good && !cuMemcpyDtoD(other + to, ptr + to, len);
		memmove(ref + to, ref + at, len);
	}
	ok(good && device_equals(ptr, ref, LEN), "device to device");
	ok(device_equals(other, ref, LEN), "and back");
	is(cuMemFree(other), CUDA_SUCCESS, "free");
}

static void test_memset(CUdeviceptr ptr, uint8_t *ref)
{
	const uint32_t word = 0x11223344;
	const uint16_t half = 0xabcd;
	size_t i;

	is(cuMemsetD8(ptr + 65530, 0x5a, 70001), CUDA_SUCCESS, "memset bytes");
	memset(ref + 65530, 0x5a, 70001);
	is(cuMemsetD16(ptr + 131070, half, 33333), CUDA_SUCCESS,
	   "memset half words");
	for (i = 0; i < 33333; i++)
		memcpy(ref + 131070 + 2 * i, &half, 2);
	is(cuMemsetD32(ptr + 2 * MIB - 4, word, 16385), CUDA_SUCCESS,
	   "memset words");
	for (i = 0; i < 16385; i++)
		memcpy(ref + 2 * MIB - 4 + 4 * i, &word, 4);
	ok(device_equals(ptr, ref, LEN), "the values are there, and only there");
	is(cuMemsetD32(ptr + 2, 0, 1), CUDA_ERROR_INVALID_VALUE,
	   "a misaligned word is refused");
	is(cuMemsetD16(ptr + 1, 0, 1), CUDA_ERROR_INVALID_VALUE,
	   "a misaligned half word is refused");
	is(cuMemsetD8(ptr, 0, LEN + 1), CUDA_ERROR_INVALID_VALUE,
	   "a memset past the end is refused");
	is(cuMemsetD8(ptr, 0, 0), CUDA_SUCCESS, "memset of nothing");
}

static void test_bounds(CUdeviceptr ptr, uint8_t *ref)
{
	is(cuMemcpyHtoD(ptr + LEN - 1, ref, 2), CUDA_ERROR_INVALID_VALUE,
	   "copy in past the end");
	is(cuMemcpyDtoH(ref, ptr + LEN - 1, 2), CUDA_ERROR_INVALID_VALUE,
	   "copy out past the end");
	is(cuMemcpyHtoD(ptr - 1, ref, 2), CUDA_ERROR_INVALID_VALUE,
	   "copy in before the start");
	is(cuMemcpyHtoD((uintptr_t)ref, ref, 1), CUDA_ERROR_INVALID_VALUE,
	   "host memory as destination of HtoD");
	is(cuMemcpyDtoH(ref, (uintptr_t)ref, 1), CUDA_ERROR_INVALID_VALUE,
	   "host memory as source of DtoH");
	is(cuMemcpyDtoD((uintptr_t)ref, ptr, 1), CUDA_ERROR_INVALID_VALUE,
	   "host memory as destination of DtoD");
	is(cuMemcpyHtoD(ptr, ref, 0), CUDA_SUCCESS, "copy of nothing");
	ok(device_equals(ptr, ref, LEN), "none of this wrote anything");
}

static void test_unified(CUdeviceptr ptr, uint8_t *ref)
{
	uint8_t piece[777], back[777] = { 0 };

	fill(piece, sizeof(piece));
	memcpy(ref + 65000, piece, sizeof(piece));
	is(cuMemcpy(ptr + 65000, (uintptr_t)piece, sizeof(piece)),
	   CUDA_SUCCESS, "cuMemcpy from host to device");
	is(cuMemcpy((uintptr_t)back, ptr + 65000, sizeof(back)),
	   CUDA_SUCCESS, "cuMemcpy from device to host");
	ok(!memcmp(piece, back, sizeof(back)), "the same bytes");
	memset(back, 0, sizeof(back));
	is(cuMemcpy((uintptr_t)back, (uintptr_t)piece, sizeof(back)),
	   CUDA_SUCCESS, "cuMemcpy from host to host");
	ok(!memcmp(piece, back, sizeof(back)), "the same bytes");
}

/* From one GPU to another, if there are two. */
static void test_peer(CUdeviceptr ptr, uint8_t *ref)
{
	CUdeviceptr other;
	CUcontext ctx;
	int count;

	cuDeviceGetCount(&count);
	if (count < 2)
		return;
	is(cuCtxCreate(&ctx, 0, 1), CUDA_SUCCESS, "a context of GPU 1");
	is(cuMemAlloc(&other, LEN), CUDA_SUCCESS, "memory of GPU 1");
	is(cuMemcpyDtoD(other + 1, ptr, LEN - 1), CUDA_SUCCESS,
	   "copy from GPU 0 to GPU 1");
	ok(device_equals(other + 1, ref, LEN - 1), "the same bytes");
	is(cuCtxDestroy(ctx), CUDA_SUCCESS, "destroy the context");
}

static void test_free(void)
{
	CUdeviceptr large;

	is(cuMemAlloc(&large, MIB), CUDA_SUCCESS, "a large allocation");
	ok(!(large & (2 * MIB - 1)), "starts on a 2 MiB boundary");
	is(cuMemFree(large + 64 * KIB), CUDA_ERROR_INVALID_VALUE,
	   "free of an address inside");
	is(cuMemFree(large), CUDA_SUCCESS, "free");
	is(cuMemFree(large), CUDA_ERROR_INVALID_VALUE, "free twice");
}

static void test_exhaustion(void)
{
	size_t before, after, total, part;
	CUdeviceptr ptr[4] = { 0 }, more;
	int i, nr = 0;

	cuMemGetInfo(&before, &total);
	is(cuMemAlloc(&more, total + 1), CUDA_ERROR_OUT_OF_MEMORY,
	   "more than there is");
	part = (before / 5) & ~(2 * MIB - 1);
	for (i = 0; i < 4; i++)
		nr += !cuMemAlloc(&ptr[i], part);
	is(nr, 4, "four fifths");
	is(cuMemAlloc(&more, 2 * part), CUDA_ERROR_OUT_OF_MEMORY,
	   "and no two more");
	for (i = 0; i < 4; i++)
		cuMemFree(ptr[i]);
	cuMemGetInfo(&after, &total);
	is(after, before, "all of it is free again");
}

static sigjmp_buf fault;

static void on_fault(int number)
{
	siglongjmp(fault, number);
}

static void test_cpu_faults(CUdeviceptr ptr)
{
	volatile uint8_t *cpu = (volatile uint8_t *)ptr;
	volatile bool faulted = true;

	signal(SIGSEGV, on_fault);
	if (!sigsetjmp(fault, 1)) {
		*cpu;
		faulted = false;
	}
	signal(SIGSEGV, SIG_DFL);
	ok(faulted, "the CPU faults on a device pointer");
}

int main(void)
{
	uint8_t *ref = malloc(LEN);
	CUdeviceptr ptr;
	CUcontext ctx;
	CUdevice dev;

	is(cuInit(0), CUDA_SUCCESS, "init");
	is(cuDeviceGet(&dev, 0), CUDA_SUCCESS, "device 0");
	is(cuCtxCreate(&ctx, 0, dev), CUDA_SUCCESS, "context");
	is(cuMemAlloc(&ptr, LEN), CUDA_SUCCESS, "allocation");
	if (tap_failed || !ref)
		return tap_done() | 1;
	test_whole(ptr, ref);
	test_edges(ptr, ref);
	test_random(ptr, ref);
	test_device_to_device(ptr, ref);
	test_memset(ptr, ref);
	test_bounds(ptr, ref);
	test_unified(ptr, ref);
	test_cpu_faults(ptr);
	test_peer(ptr, ref);
	test_free();
	is(cuMemFree(ptr), CUDA_SUCCESS, "free");
	test_exhaustion();
	is(cuCtxDestroy(ctx), CUDA_SUCCESS, "destroy the context");
	free(ref);
	return tap_done();
}
