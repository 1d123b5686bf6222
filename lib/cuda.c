// SPDX-License-Identifier: MIT
/*
 * The CUDA driver API, found at run time: this library runs on a machine that
 * has never heard of CUDA, and links nothing of it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "internal.h"

/* Numbers of the driver API; they are its ABI. */
enum {
	CUDA_SUCCESS			= 0,
	CUDA_ERROR_INVALID_VALUE	= 1,
	CUDA_ERROR_OUT_OF_MEMORY	= PEERDMA_CUDA_NO_MEMORY,
	CUDA_ERROR_NO_DEVICE		= 100,
	CUDA_ERROR_INVALID_DEVICE	= 101,
	CUDA_ERROR_ILLEGAL_ADDRESS	= 700,
	CUDA_ERROR_NOT_PERMITTED	= 800,
	CUDA_ERROR_NOT_SUPPORTED	= 801,

	DEVICE_ATTRIBUTE_PCI_BUS_ID	= 33,
	DEVICE_ATTRIBUTE_PCI_DEVICE_ID	= 34,
	DEVICE_ATTRIBUTE_PCI_DOMAIN_ID	= 50,
	DEVICE_ATTRIBUTE_FLUSH_OPTIONS	= 117,
	DEVICE_ATTRIBUTE_WRITES_ORDERING = 118,

	POINTER_ATTRIBUTE_CONTEXT	= 1,
	POINTER_ATTRIBUTE_MEMORY_TYPE	= 2,
	POINTER_ATTRIBUTE_SYNC_MEMOPS	= 6,
	POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,

	MEMORY_TYPE_DEVICE		= 2,
	FLUSH_OPTION_HOST		= 1,
	FLUSH_TARGET_CURRENT_CONTEXT	= 0,
	WRITES_TO_OWNER			= 100,
	CAPTURE_MODE_RELAXED		= 2,
	RANGE_HANDLE_DMA_BUF_FD		= 1,
};

static const struct call {
	const char *name;
	size_t offset;
	bool optional;
} calls[] = {
#define CALL(field, symbol) { symbol, offsetof(struct peerdma_cuda, field), false }
	CALL(cuInit, "cuInit"),
	CALL(cuDeviceGetCount, "cuDeviceGetCount"),
	CALL(cuDeviceGet, "cuDeviceGet"),
	CALL(cuDeviceGetName, "cuDeviceGetName"),
	CALL(cuDeviceGetAttribute, "cuDeviceGetAttribute"),
	CALL(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain"),
	CALL(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2"),
	CALL(cuCtxPushCurrent, "cuCtxPushCurrent_v2"),
	CALL(cuCtxPopCurrent, "cuCtxPopCurrent_v2"),
	CALL(cuMemAlloc, "cuMemAlloc_v2"),
	CALL(cuMemFree, "cuMemFree_v2"),
	CALL(cuMemAllocHost, "cuMemAllocHost_v2"),
	CALL(cuMemFreeHost, "cuMemFreeHost"),
	CALL(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2"),
	CALL(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2"),
	CALL(cuStreamCreate, "cuStreamCreate"),
	CALL(cuStreamDestroy, "cuStreamDestroy_v2"),
	CALL(cuStreamSynchronize, "cuStreamSynchronize"),
	CALL(cuEventCreate, "cuEventCreate"),
	CALL(cuEventDestroy, "cuEventDestroy_v2"),
	CALL(cuEventRecord, "cuEventRecord"),
	CALL(cuEventQuery, "cuEventQuery"),
	CALL(cuEventSynchronize, "cuEventSynchronize"),
	CALL(cuMemHostRegister, "cuMemHostRegister_v2"),
	CALL(cuMemHostUnregister, "cuMemHostUnregister"),
	CALL(cuPointerGetAttribute, "cuPointerGetAttribute"),
	CALL(cuPointerSetAttribute, "cuPointerSetAttribute"),
	{ "cuMemsetD8Async",
	  offsetof(struct peerdma_cuda, cuMemsetD8Async), true },
	{ "cuLaunchHostFunc",
	  offsetof(struct peerdma_cuda, cuLaunchHostFunc), true },
	{ "cuStreamWaitValue32_v2",
	  offsetof(struct peerdma_cuda, cuStreamWaitValue32), true },
#undef CALL
	{ "cuMemGetAddressRange_v2",
	  offsetof(struct peerdma_cuda, cuMemGetAddressRange), true },
	{ "cuMemGetHandleForAddressRange",
	  offsetof(struct peerdma_cuda, cuMemGetHandleForAddressRange), true },
	{ "cuStreamWriteValue32_v2",
	  offsetof(struct peerdma_cuda, cuStreamWriteValue32), true },
	{ "cuMemcpyBatchAsync",
	  offsetof(struct peerdma_cuda, cuMemcpyBatchAsync), true },
	{ "cuThreadExchangeStreamCaptureMode",
	  offsetof(struct peerdma_cuda, cuThreadExchangeStreamCaptureMode),
	  true },
	{ "cuStreamIsCapturing",
	  offsetof(struct peerdma_cuda, cuStreamIsCapturing), true },
	{ "cuFlushGPUDirectRDMAWrites",
	  offsetof(struct peerdma_cuda, cuFlushGPUDirectRDMAWrites), true },
};

static bool find_calls(struct peerdma_cuda *cuda)
{
	void *symbol;
	size_t i;

	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		symbol = dlsym(cuda->library, calls[i].name);
		if (!symbol && !calls[i].optional)
			return false;
		memcpy((char *)cuda + calls[i].offset, &symbol, sizeof(symbol));
	}
	return true;
}

/**
 * peerdma_cuda_load() - find CUDA on this machine
 * @cuda: filled in; @cuda->reason is 0 when CUDA can be used
 *
 * The library stays loaded for good (RTLD_NODELETE): CUDA starts threads and
 * registers exit handlers, and does not survive being unloaded.
 */
void peerdma_cuda_load(struct peerdma_cuda *cuda)
{
	int result;

	memset(cuda, 0, sizeof(*cuda));
	cuda->reason = PEERDMA_REASON_NO_CUDA;
	cuda->library = dlopen("libcuda.so.1",
			       RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!cuda->library)
		return;
	if (!find_calls(cuda))
		return;
	result = cuda->cuInit(0);
	if (!result)
		result = cuda->cuDeviceGetCount(&cuda->nr_gpus);
	if (result && result != CUDA_ERROR_NO_DEVICE)
		return;
	cuda->reason = cuda->nr_gpus ? 0 : PEERDMA_REASON_NO_GPU;
}

/**
 * peerdma_cuda_errno() - a CUresult as an errno
 * @result: of a driver API call
 *
 * Return: 0 or a negative errno.
 */
int peerdma_cuda_errno(int result)
{
	switch (result) {
	case CUDA_SUCCESS:
		return 0;
	case CUDA_ERROR_INVALID_VALUE:
		return -EINVAL;
	case CUDA_ERROR_OUT_OF_MEMORY:
		return -ENOMEM;
	case CUDA_ERROR_NO_DEVICE:
	case CUDA_ERROR_INVALID_DEVICE:
		return -ENODEV;
	case CUDA_ERROR_ILLEGAL_ADDRESS:
		return -EFAULT;
	case CUDA_ERROR_NOT_PERMITTED:
		return -EPERM;
	case CUDA_ERROR_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

/**
 * peerdma_cuda_gpu_device() - the PCI address of a GPU
 * @cuda: loaded
 * @ordinal: CUDA's number of the GPU
 * @out_device: PEERDMA_DEVICE()
 *
 * Return: 0 or a negative errno.
 */
int peerdma_cuda_gpu_device(const struct peerdma_cuda *cuda, int ordinal,
			    uint32_t *out_device)
{
	int gpu, domain, bus, dev, result;

	result = cuda->cuDeviceGet(&gpu, ordinal);
	if (!result)
		result = cuda->cuDeviceGetAttribute(
			&domain, DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, gpu);
	if (!result)
		result = cuda->cuDeviceGetAttribute(
			&bus, DEVICE_ATTRIBUTE_PCI_BUS_ID, gpu);
	if (!result)
		result = cuda->cuDeviceGetAttribute(
			&dev, DEVICE_ATTRIBUTE_PCI_DEVICE_ID, gpu);
	if (!result)
		*out_device = PEERDMA_DEVICE(domain, bus, dev, 0);
	return peerdma_cuda_errno(result);
}

/*
 * NVIDIA's rule: where the ordering attribute is "owner" or wider, a kernel that
 * starts after a peer's write sees it; else the CPU must flush, on GPUs that let
 * it.
 */
static bool needs_flush(const struct peerdma_cuda *cuda, int ordinal)
{
	int gpu, ordering, options;

	if (!cuda->cuFlushGPUDirectRDMAWrites)
		return false;
	if (cuda->cuDeviceGet(&gpu, ordinal))
		return false;
	if (cuda->cuDeviceGetAttribute(&ordering,
				       DEVICE_ATTRIBUTE_WRITES_ORDERING, gpu))
		return false;
	if (cuda->cuDeviceGetAttribute(&options, DEVICE_ATTRIBUTE_FLUSH_OPTIONS,
				       gpu))
		return false;
	return ordering < WRITES_TO_OWNER && options & FLUSH_OPTION_HOST;
}

/* Without it in the driver threads do not get in each other's way, or all do. */
static int exchange_mode(const struct peerdma_cuda *cuda, int mode)
{
	if (cuda->cuThreadExchangeStreamCaptureMode)
		cuda->cuThreadExchangeStreamCaptureMode(&mode);
	return mode;
}

/**
 * peerdma_cuda_enter() - begin with calls of the library's own
 * @cuda: loaded
 * @context: becomes the thread's current one
 * @out_mode: for peerdma_cuda_leave(), on the same thread
 *
 * While a thread records a graph (in the mode that is the default) CUDA lets no
 * other thread allocate, pin or wait, and the attempt ends the recording. What we
 * do has nothing to do with it, and CUDA takes a thread's word for that.
 *
 * Return: 0 or a negative errno.
 */
int peerdma_cuda_enter(const struct peerdma_cuda *cuda,
		       peerdma_cuda_context context, int *out_mode)
{
	int result = cuda->cuCtxPushCurrent(context);

	if (!result)
		*out_mode = exchange_mode(cuda, CAPTURE_MODE_RELAXED);
	return peerdma_cuda_errno(result);
}

/**
 * peerdma_cuda_leave() - the thread is its owner's again
 * @cuda: entered
 * @mode: from peerdma_cuda_enter(); the last one that was entered comes first
 */
void peerdma_cuda_leave(const struct peerdma_cuda *cuda, int mode)
{
	peerdma_cuda_context context;

	exchange_mode(cuda, mode);
	cuda->cuCtxPopCurrent(&context);
}

/**
 * peerdma_cuda_retain() - the primary context of a GPU
 * @cuda: loaded
 * @ordinal: CUDA's number of the GPU
 * @out: valid until peerdma_cuda_release()
 *
 * Return: 0 or a negative errno.
 */
int peerdma_cuda_retain(const struct peerdma_cuda *cuda, int ordinal,
			peerdma_cuda_context *out)
{
	int mode = exchange_mode(cuda, CAPTURE_MODE_RELAXED), gpu, result;

	result = cuda->cuDeviceGet(&gpu, ordinal);
	if (!result)
		result = cuda->cuDevicePrimaryCtxRetain(out, gpu);
	exchange_mode(cuda, mode);
	return peerdma_cuda_errno(result);
}

/**
 * peerdma_cuda_release() - let go of it
 * @cuda: loaded
 * @ordinal: as it was retained
 */
void peerdma_cuda_release(const struct peerdma_cuda *cuda, int ordinal)
{
	int mode = exchange_mode(cuda, CAPTURE_MODE_RELAXED), gpu;

	if (!cuda->cuDeviceGet(&gpu, ordinal))
		cuda->cuDevicePrimaryCtxRelease(gpu);
	exchange_mode(cuda, mode);
}

/**
 * peerdma_cuda_pointer() - what CUDA knows of an address
 * @cuda: loaded, or not to be had
 * @addr: perhaps a CUDA device pointer
 * @out: filled in when it is one
 *
 * Return: true when CUDA's copies reach the address.
 */
bool peerdma_cuda_pointer(const struct peerdma_cuda *cuda, uint64_t addr,
			  struct peerdma_cuda_pointer *out)
{
	unsigned int type;

	if (cuda->reason)
		return false;
	if (cuda->cuPointerGetAttribute(&type, POINTER_ATTRIBUTE_MEMORY_TYPE,
					addr))
		return false;
	if (type != MEMORY_TYPE_DEVICE)
		return false;
	if (cuda->cuPointerGetAttribute(&out->context,
					POINTER_ATTRIBUTE_CONTEXT, addr))
		out->context = NULL;
	if (cuda->cuPointerGetAttribute(&out->ordinal,
					POINTER_ATTRIBUTE_DEVICE_ORDINAL, addr))
		out->ordinal = -1;
	out->flush = out->ordinal >= 0 && needs_flush(cuda, out->ordinal);
	return true;
}

/**
 * peerdma_cuda_range() - is a range wholly CUDA's?
 * @cuda: loaded
 * @context: of the memory
 * @addr: a CUDA device pointer
 * @len: bytes
 *
 * Allocations that are mapped one behind the other count as one.
 *
 * Return: true, also where this driver does not tell.
 */
bool peerdma_cuda_range(const struct peerdma_cuda *cuda,
			peerdma_cuda_context context, uint64_t addr,
			uint64_t len)
{
	unsigned long long base;
	uint64_t end = addr + len;
	size_t size;
	int mode;

	if (!cuda->cuMemGetAddressRange)
		return true;
	if (peerdma_cuda_enter(cuda, context, &mode))
		return false;
	while (addr < end) {
		if (cuda->cuMemGetAddressRange(&base, &size, addr) ||
		    base + size <= addr)
			break;
		addr = base + size;
	}
	peerdma_cuda_leave(cuda, mode);
	return addr >= end;
}

/**
 * peerdma_cuda_export() - CUDA's own dma-buf of a range
 * @cuda: loaded
 * @context: of the memory
 * @addr: a CUDA device pointer
 * @len: bytes; both whole pages of the CPU's
 *
 * It keeps the memory until it is closed, and all that was made of it.
 *
 * Return: the descriptor; -EINVAL: no whole pages, or not wholly one allocation;
 * -EOPNOTSUPP: this GPU or driver exports none; another negative errno.
 */
int peerdma_cuda_export(const struct peerdma_cuda *cuda,
			peerdma_cuda_context context, uint64_t addr,
			uint64_t len)
{
	int err, fd = -1, mode;

	if (!cuda->cuMemGetHandleForAddressRange)
		return -EOPNOTSUPP;
	err = peerdma_cuda_enter(cuda, context, &mode);
	if (err)
		return err;
	err = peerdma_cuda_errno(cuda->cuMemGetHandleForAddressRange(
		&fd, addr, len, RANGE_HANDLE_DMA_BUF_FD, 0));
	peerdma_cuda_leave(cuda, mode);
	return err ? err : fd;
}

/**
 * peerdma_cuda_sync_memops() - keep CUDA's own copies in order with a peer's DMA
 * @cuda: loaded
 * @addr: start of memory that a peer is about to reach
 *
 * GPUDirect RDMA's rule for memory whose address is given to another device.
 * Memory that does not know the attribute (cuMemCreate(), stream-ordered pools)
 * leaves that order to its owner, as everywhere in CUDA.
 */
void peerdma_cuda_sync_memops(const struct peerdma_cuda *cuda, uint64_t addr)
{
	int mode = exchange_mode(cuda, CAPTURE_MODE_RELAXED);
	unsigned int on = 1;

	cuda->cuPointerSetAttribute(&on, POINTER_ATTRIBUTE_SYNC_MEMOPS, addr);
	exchange_mode(cuda, mode);
}

/**
 * peerdma_cuda_flush() - let kernels that start from now on see a peer's writes
 * @cuda: loaded, of a GPU that asks for it
 * @context: of the memory
 *
 * Return: 0 or a negative errno.
 */
int peerdma_cuda_flush(const struct peerdma_cuda *cuda,
		       peerdma_cuda_context context)
{
	int err, mode;

	err = peerdma_cuda_enter(cuda, context, &mode);
	if (err)
		return err;
	err = peerdma_cuda_errno(cuda->cuFlushGPUDirectRDMAWrites(
		FLUSH_TARGET_CURRENT_CONTEXT, WRITES_TO_OWNER));
	peerdma_cuda_leave(cuda, mode);
	return err;
}
