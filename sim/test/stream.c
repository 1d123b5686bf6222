// SPDX-License-Identifier: MIT
/*
 * Streams and events. A host function that waits at a gate holds a stream up, so
 * that "not yet" can be observed without a clock. Passes with the real library
 * and a real GPU, too.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"
#include "tap.h"

#define LEN	(256 * 1024)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool gate_open;
static int passed;

static CUdeviceptr device;
static uint8_t *pinned;

static void close_gate(void)
{
	gate_open = false;
}

static void open_gate(void)
{
	pthread_mutex_lock(&lock);
	gate_open = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void wait_at_gate(void *data)
{
	pthread_mutex_lock(&lock);
	while (!gate_open)
		pthread_cond_wait(&changed, &lock);
	passed++;
	pthread_mutex_unlock(&lock);
}

static void note_order(void *data)
{
	int *slot = data;

	pthread_mutex_lock(&lock);
	*slot = ++passed;
	pthread_mutex_unlock(&lock);
}

static void call_cuda(void *data)
{
	CUresult *result = data;

	*result = cuCtxSynchronize();
}

static bool device_is(uint8_t value)
{
	static uint8_t out[LEN];
	size_t i;

	if (cuMemcpyDtoH(out, device, LEN))
		return false;
	for (i = 0; i < LEN; i++)
		if (out[i] != value)
			return false;
	return true;
}

static void test_order(CUstream stream)
{
	int slot[16] = { 0 };
	bool good = true;
	int i;

	passed = 0;
	for (i = 0; i < 16; i++)
		good = good && !cuLaunchHostFunc(stream, note_order, &slot[i]);
	good = good && !cuStreamSynchronize(stream);
	for (i = 0; i < 16; i++)
		good = good && slot[i] == i + 1;
	ok(good, "operations of a stream run in order");
}

static void test_async(CUstream stream)
{
	close_gate();
	memset(pinned, 1, LEN);
	cuMemsetD8(device, 0, LEN);
	is(cuCtxSynchronize(), CUDA_SUCCESS, "all is zero");
	is(cuLaunchHostFunc(stream, wait_at_gate, NULL), CUDA_SUCCESS,
	   "a host function waits at the gate");
	is(cuMemcpyHtoDAsync(device, pinned, LEN, stream), CUDA_SUCCESS,
	   "a copy is queued behind it");
	is(cuStreamQuery(stream), CUDA_ERROR_NOT_READY, "not ready");
	memset(pinned, 2, LEN);
	open_gate();
	is(cuStreamSynchronize(stream), CUDA_SUCCESS, "synchronize");
	is(cuStreamQuery(stream), CUDA_SUCCESS, "ready");
	ok(device_is(2), "the copy took what was there when it ran");
}

static void test_sync_memops(CUstream stream)
{
	unsigned int on = 1;

	is(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
				 device), CUDA_SUCCESS, "SYNC_MEMOPS on");
	is(cuMemsetD8(device, 3, LEN), CUDA_SUCCESS, "a memset");
	is(cuStreamQuery(NULL), CUDA_SUCCESS, "is over when it returns");
	is(cuMemcpyDtoD(device, device + LEN / 2, LEN / 2), CUDA_SUCCESS,
	   "a copy within the device");
	is(cuStreamQuery(NULL), CUDA_SUCCESS, "is over when it returns");
	close_gate();
	cuLaunchHostFunc(stream, wait_at_gate, NULL);
	is(cuMemcpyHtoDAsync(device, pinned, LEN, stream), CUDA_SUCCESS,
	   "an asynchronous copy returns");
	is(cuStreamQuery(stream), CUDA_ERROR_NOT_READY, "before it is done");
	open_gate();
	is(cuStreamSynchronize(stream), CUDA_SUCCESS, "synchronize");
	on = 0;
	cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, device);
}

static void test_events(CUstream first, CUstream second)
{
	CUevent event, end;
	float ms = -1;

	is(cuEventCreate(&event, 0), CUDA_SUCCESS, "event");
	is(cuEventCreate(&end, 0), CUDA_SUCCESS, "event");
	is(cuEventQuery(event), CUDA_SUCCESS, "never recorded: ready");
	is(cuEventElapsedTime(&ms, event, end), CUDA_ERROR_INVALID_HANDLE,
	   "never recorded: no time");
	close_gate();
	cuMemsetD8(device, 0, LEN);
	cuCtxSynchronize();
	memset(pinned, 4, LEN);
	cuLaunchHostFunc(first, wait_at_gate, NULL);
	cuMemcpyHtoDAsync(device, pinned, LEN, first);
	is(cuEventRecord(event, first), CUDA_SUCCESS, "record");
	is(cuEventQuery(event), CUDA_ERROR_NOT_READY, "not reached");
	is(cuStreamWaitEvent(second, event, 0), CUDA_SUCCESS,
	   "another stream waits for it");
	cuMemcpyDtoHAsync(pinned + LEN, device, LEN, second);
	cuEventRecord(end, second);
	is(cuEventElapsedTime(&ms, event, end), CUDA_ERROR_NOT_READY,
	   "no time yet");
	open_gate();
	is(cuEventSynchronize(end), CUDA_SUCCESS, "synchronize");
	ok(!memcmp(pinned, pinned + LEN, LEN), "the second saw the first");
	is(cuEventElapsedTime(&ms, event, end), CUDA_SUCCESS, "elapsed");
	ok(ms >= 0, "time does not run backwards");
	is(cuEventDestroy(event), CUDA_SUCCESS, "destroy");
	is(cuEventDestroy(end), CUDA_SUCCESS, "destroy");
}

/* What device memory holds now, past all streams that wait for one another. */
static bool peek_is(uint8_t value, CUstream non_blocking)
{
	size_t i;

	if (cuMemcpyDtoHAsync(pinned, device, LEN, non_blocking) ||
	    cuStreamSynchronize(non_blocking))
		return false;
	for (i = 0; i < LEN; i++)
		if (pinned[i] != value)
			return false;
	return true;
}

/* While @first is held up by the gate, @then must not begin, at any time. */
static void test_follows(CUstream first, CUstream then, CUstream non_blocking,
			 const char *what)
{
	bool early = false;
	int i;

	cuMemsetD8(device, 8, LEN);
	cuCtxSynchronize();
	close_gate();
	cuLaunchHostFunc(first, wait_at_gate, NULL);
	cuMemsetD8Async(device, 9, LEN, then);
	for (i = 0; i < 50 && !early; i++)
		early = !peek_is(8, non_blocking);
	ok(!early, what);
	open_gate();
	is(cuCtxSynchronize(), CUDA_SUCCESS, "synchronize");
	ok(device_is(9), "it was done in the end");
}

/* A blocking stream holds the legacy stream up; a non-blocking one does not. */
static void test_legacy(CUstream blocking, CUstream non_blocking)
{
	int slot = 0;

	close_gate();
	passed = 0;
	cuLaunchHostFunc(non_blocking, wait_at_gate, NULL);
	is(cuMemsetD8(device, 5, LEN), CUDA_SUCCESS, "memset, legacy stream");
	is(cuStreamSynchronize(NULL), CUDA_SUCCESS,
	   "does not wait for a non-blocking stream");
	cuLaunchHostFunc(blocking, wait_at_gate, NULL);
	is(cuMemsetD8(device, 6, LEN), CUDA_SUCCESS, "memset, legacy stream");
	is(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY,
	   "waits for a blocking stream");
	is(cuStreamQuery(CU_STREAM_LEGACY), CUDA_ERROR_NOT_READY,
	   "by its other name too");
	cuLaunchHostFunc(blocking, note_order, &slot);
	open_gate();
	is(cuCtxSynchronize(), CUDA_SUCCESS, "synchronize");
	ok(slot >= 2, "after the gate");
	ok(device_is(6), "the memset was last");
}

static void test_destroy(void)
{
	CUstream stream;

	is(cuStreamCreate(&stream, 0), CUDA_SUCCESS, "stream");
	close_gate();
	cuMemsetD8(device, 0, LEN);
	cuCtxSynchronize();
	memset(pinned, 7, LEN);
	cuLaunchHostFunc(stream, wait_at_gate, NULL);
	cuMemcpyHtoDAsync(device, pinned, LEN, stream);
	is(cuStreamDestroy(stream), CUDA_SUCCESS, "destroyed with work in it");
	open_gate();
	is(cuCtxSynchronize(), CUDA_SUCCESS, "synchronize");
	ok(device_is(7), "the work was done all the same");
}

static void test_host_function(CUstream stream)
{
	CUresult result = CUDA_SUCCESS;

	cuLaunchHostFunc(stream, call_cuda, &result);
	cuStreamSynchronize(stream);
	is(result, CUDA_ERROR_NOT_PERMITTED, "no CUDA in a host function");
	is(cuLaunchHostFunc(stream, NULL, NULL), CUDA_ERROR_INVALID_VALUE,
	   "no function");
}

/* The word is the CPU's to write; the stream goes on when it is far enough. */
static void test_values(CUstream stream)
{
	uint32_t *word = (uint32_t *)pinned;
	CUdeviceptr addr = (uintptr_t)pinned;

	__atomic_store_n(word, UINT32_MAX, __ATOMIC_SEQ_CST);
	is(cuStreamWaitValue32(stream, addr, 2, CU_STREAM_WAIT_VALUE_GEQ),
	   CUDA_SUCCESS, "a stream waits for a value");
	is(cuStreamWriteValue32(stream, addr + 4, 77, 0), CUDA_SUCCESS,
	   "and then writes one");
	is(cuStreamQuery(stream), CUDA_ERROR_NOT_READY, "it waits");
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	is(cuStreamQuery(stream), CUDA_ERROR_NOT_READY, "for no less");
	__atomic_store_n(word, 3, __ATOMIC_SEQ_CST);
	is(cuStreamSynchronize(stream), CUDA_SUCCESS, "more will do");
	is(__atomic_load_n(word + 1, __ATOMIC_SEQ_CST), 77, "it has written");
	cuStreamWaitValue32(stream, addr, 3, CU_STREAM_WAIT_VALUE_EQ);
	cuStreamWaitValue32(stream, addr, 2, CU_STREAM_WAIT_VALUE_AND);
	is(cuStreamSynchronize(stream), CUDA_SUCCESS,
	   "what is there already is not waited for");
	is(cuStreamWaitValue32(stream, addr + 2, 0, 0),
	   CUDA_ERROR_INVALID_VALUE, "a word askew");
	is(cuStreamWaitValue32(stream, addr, 0, 4), CUDA_ERROR_INVALID_VALUE,
	   "an unknown comparison");
}

static void *hammer(void *data)
{
	CUdeviceptr at = device + (uintptr_t)data * (LEN / 4);
	static _Thread_local uint8_t out[LEN / 4], in[LEN / 4];
	CUstream stream;
	CUcontext ctx;
	int i, bad = 0;

	cuDevicePrimaryCtxRetain(&ctx, 0);
	cuCtxSetCurrent(ctx);
	bad += !!cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
	for (i = 0; i < 50; i++) {
		memset(in, i, sizeof(in));
		bad += !!cuMemcpyHtoDAsync(at, in, sizeof(in), stream);
		bad += !!cuMemcpyDtoHAsync(out, at, sizeof(out), stream);
		bad += !!cuStreamSynchronize(stream);
		bad += !!memcmp(in, out, sizeof(in));
	}
	cuStreamDestroy(stream);
	cuDevicePrimaryCtxRelease(0);
	return (void *)(uintptr_t)bad;
}

static void test_threads(void)
{
	pthread_t thread[4];
	uintptr_t bad = 0;
	void *result;
	size_t i;

	for (i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, hammer, (void *)i);
	for (i = 0; i < 4; i++) {
		pthread_join(thread[i], &result);
		bad += (uintptr_t)result;
	}
	is(bad, 0, "four threads, each with its stream");
}

int main(void)
{
	CUstream first, second, non_blocking;
	CUcontext ctx;

	is(cuInit(0), CUDA_SUCCESS, "init");
	is(cuDevicePrimaryCtxRetain(&ctx, 0), CUDA_SUCCESS, "primary context");
	is(cuCtxSetCurrent(ctx), CUDA_SUCCESS, "is current");
	is(cuMemAlloc(&device, LEN), CUDA_SUCCESS, "device memory");
	is(cuMemAllocHost((void **)&pinned, 2 * LEN), CUDA_SUCCESS,
	   "pinned memory");
	is(cuStreamCreate(&first, 0), CUDA_SUCCESS, "stream");
	is(cuStreamCreate(&second, 0), CUDA_SUCCESS, "stream");
	is(cuStreamCreate(&non_blocking, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS,
	   "non-blocking stream");
	if (tap_failed)
		return tap_done();
	test_order(first);
	test_async(first);
	test_sync_memops(first);
	test_events(first, second);
	test_legacy(first, non_blocking);
	test_follows(first, NULL, non_blocking,
		     "the legacy stream follows a blocking one");
	test_follows(NULL, first, non_blocking,
		     "a blocking stream follows the legacy one");
	test_destroy();
	test_host_function(second);
	test_values(non_blocking);
	test_threads();
	is(cuDevicePrimaryCtxRelease(0), CUDA_SUCCESS, "release the context");
	is(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED,
	   "which ends it");
	return tap_done();
}
