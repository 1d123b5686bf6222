// SPDX-License-Identifier: MIT
/*
 * What only the simulated library does: an error code where the real one
 * crashes, and where it puts allocations.
 */
#include <stdint.h>

#include "cuda.h"
#include "tap.h"

#define KIB	1024ul
#define MIB	(1024 * KIB)

static void test_handles(void)
{
	CUmemGenericAllocationHandle memory = 0x1234;
	CUdeviceptr at;
	CUstream stream;
	CUevent event;

	is(cuCtxPushCurrent((CUcontext)0x1234), CUDA_ERROR_INVALID_CONTEXT,
	   "no such context");
	is(cuStreamSynchronize((CUstream)0x1234), CUDA_ERROR_INVALID_HANDLE,
	   "no such stream");
	is(cuStreamCreate(&stream, 0), CUDA_SUCCESS, "stream");
	is(cuStreamDestroy(stream), CUDA_SUCCESS, "destroy");
	is(cuStreamDestroy(stream), CUDA_ERROR_INVALID_HANDLE, "twice");
	is(cuEventCreate(&event, 0), CUDA_SUCCESS, "event");
	is(cuEventDestroy(event), CUDA_SUCCESS, "destroy");
	is(cuEventDestroy(event), CUDA_ERROR_INVALID_HANDLE, "twice");
	is(cuMemAddressReserve(&at, 2 * MIB, 0, 0, 0), CUDA_SUCCESS,
	   "reserve");
	is(cuMemMap(at, 2 * MIB, 0, memory, 0), CUDA_ERROR_INVALID_VALUE,
	   "no such memory");
	is(cuMemAddressFree(at, 2 * MIB), CUDA_SUCCESS, "free");
}

static void test_host_faults(void)
{
	char byte = 42;
	CUdeviceptr ptr;

	is(cuMemAlloc(&ptr, 1), CUDA_SUCCESS, "allocation");
	is(cuMemcpyHtoD(ptr, &byte, 1), CUDA_SUCCESS, "copy in");
	is(cuMemcpyHtoD(ptr, (void *)8, 1), CUDA_ERROR_INVALID_VALUE,
	   "copy from nowhere");
	is(cuMemcpyDtoH((void *)8, ptr, 1), CUDA_ERROR_INVALID_VALUE,
	   "copy to nowhere");
	byte = 0;
	is(cuMemcpyDtoH(&byte, ptr, 1), CUDA_SUCCESS, "copy out");
	is(byte, 42, "the memory is as it was");
	is(cuMemFree(ptr), CUDA_SUCCESS, "free");
}

static void test_placement(void)
{
	bool aligned = true, apart = true;
	CUdeviceptr small[8];
	int i;

	for (i = 0; i < 8; i++) {
		if (cuMemAlloc(&small[i], 1 + i * 1000))
			small[i] = 1;
		aligned = aligned && !(small[i] & (64 * KIB - 1));
		apart = apart && (!i || small[i] / (64 * KIB) !=
					small[i - 1] / (64 * KIB));
	}
	ok(aligned, "small allocations start on a 64 KiB page");
	ok(apart, "and do not share it");
	for (i = 0; i < 8; i++)
		cuMemFree(small[i]);
}

int main(void)
{
	CUcontext ctx;

	is(cuInit(0), CUDA_SUCCESS, "init");
	is(cuCtxCreate(&ctx, 0, 0), CUDA_SUCCESS, "context");
	if (tap_failed)
		return tap_done();
	test_handles();
	test_host_faults();
	test_placement();
	is(cuCtxDestroy(ctx), CUDA_SUCCESS, "destroy the context");
	return tap_done();
}
