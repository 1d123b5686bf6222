// SPDX-License-Identifier: MIT
/*
 * Copies and memsets.
 *
 * Which of them the caller need not wait for follows "API synchronization
 * behavior" of NVIDIA's manual: what has Async in its name, unless pageable
 * memory takes part; but also cuMemsetD8() and copies from device to device,
 * whose names do not tell. The latter wait after all where
 * CU_POINTER_ATTRIBUTE_SYNC_MEMOPS is set: that is why GPUDirect RDMA asks for
 * it. It does nothing to what has Async in its name.
 */
#include "sim.h"

enum sync { SYNC, ASYNC };

/**
 * struct end - one side of a copy
 * @addr: first byte
 * @device: the device memory it lies in, or NULL
 * @pageable: host memory that CUDA does not know
 */
struct end {
	uintptr_t addr;
	struct sim_range *device;
	bool pageable;
};

static CUresult end_find(struct end *end, uintptr_t addr, size_t len,
			 unsigned int access)
{
	struct sim_range *range = sim_range_find(&sim_ranges, addr);

	*end = (struct end){ .addr = addr };
	if (sim_range_is_device(range))
		return sim_device_span(addr, len, access, &end->device);
	end->pageable = !range || len > range->start + range->len - addr;
	return addr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool is_synced(const struct CUctx_st *ctx, const struct sim_range *range)
{
	return range->sync_memops || ctx->flags & CU_CTX_SYNC_MEMOPS;
}

static bool must_wait(const struct CUctx_st *ctx, const struct end *dst,
		      const struct end *src, enum sync sync)
{
	if (dst->pageable || src->pageable)
		return true;
	if (sync == ASYNC)
		return false;
	return !dst->device || !src->device || is_synced(ctx, dst->device) ||
	       is_synced(ctx, src->device);
}

static CUresult copy_submit(struct CUctx_st *ctx, CUstream handle,
			    const struct end *dst, const struct end *src,
			    size_t len, enum sync sync)
{
	struct sim_op op = {
		.kind = SIM_OP_COPY,
		.copy = { .dst = dst->addr, .src = src->addr, .len = len },
	};
	struct CUstream_st *stream;
	CUresult result;
	bool wait;

	result = sim_stream_find(ctx, handle, &stream);
	if (result || !len)
		return result;
	if (dst->device && src->device)
		op.copy.direction = SIMGPU_DEVICE_TO_DEVICE;
	else if (dst->device)
		op.copy.direction = SIMGPU_HOST_TO_DEVICE;
	else if (src->device)
		op.copy.direction = SIMGPU_DEVICE_TO_HOST;
	else
		op.kind = SIM_OP_HOST_COPY;
	wait = must_wait(ctx, dst, src, sync);
	result = sim_stream_submit(stream, &op, wait);
	/* A host address that faults in the caller's own call is his mistake. */
	if (wait && result == CUDA_ERROR_ILLEGAL_ADDRESS)
		return CUDA_ERROR_INVALID_VALUE;
	return result;
}

/*
 * With one address space for all, a call whose name says host takes device
 * memory as well; but not the other way round.
 */
enum side { DEVICE, ANY };

static bool side_fits(const struct end *end, enum side side)
{
	return side == ANY || end->device;
}

static CUresult copy(uintptr_t dst, enum side dst_side, uintptr_t src,
		     enum side src_side, size_t len, CUstream stream,
		     enum sync sync)
{
	struct end from = { .addr = src }, to = { .addr = dst };
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!len)
		return sim_leave(copy_submit(ctx, stream, &to, &from, 0, sync));
	result = end_find(&to, dst, len, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	if (!result)
		result = end_find(&from, src, len,
				  CU_MEM_ACCESS_FLAGS_PROT_READ);
	if (!result && (!side_fits(&to, dst_side) ||
			!side_fits(&from, src_side)))
		result = CUDA_ERROR_INVALID_VALUE;
	if (!result)
		result = copy_submit(ctx, stream, &to, &from, len, sync);
	return sim_leave(result);
}

CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
	return copy(dst, ANY, src, ANY, len, NULL, SYNC);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t len)
{
	return copy(dst, DEVICE, (uintptr_t)src, ANY, len, NULL, SYNC);
}

CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t len)
{
	return copy((uintptr_t)dst, ANY, src, DEVICE, len, NULL, SYNC);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
	return copy(dst, DEVICE, src, DEVICE, len, NULL, SYNC);
}

CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t len,
		       CUstream stream)
{
	return copy(dst, ANY, src, ANY, len, stream, ASYNC);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t len,
			      CUstream stream)
{
	return copy(dst, DEVICE, (uintptr_t)src, ANY, len, stream, ASYNC);
}

CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t len,
			      CUstream stream)
{
	return copy((uintptr_t)dst, ANY, src, DEVICE, len, stream, ASYNC);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t len,
			      CUstream stream)
{
	return copy(dst, DEVICE, src, DEVICE, len, stream, ASYNC);
}

static CUresult set(CUdeviceptr dst, unsigned int value, unsigned int width,
		    size_t count, CUstream handle, enum sync sync)
{
	struct sim_op op = {
		.kind = SIM_OP_MEMSET,
		.set = { .va = dst, .value = value, .width = width },
	};
	struct CUstream_st *stream;
	struct sim_range *range;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);
	size_t len;

	if (result)
		return result;
	if (__builtin_mul_overflow(count, (size_t)width, &len) ||
	    dst & (width - 1))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = sim_stream_find(ctx, handle, &stream);
	if (result || !len)
		return sim_leave(result);
	result = sim_device_span(dst, len, CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
				 &range);
	if (result)
		return sim_leave(result);
	op.set.len = len;
	return sim_leave(sim_stream_submit(stream, &op, sync == SYNC &&
					   is_synced(ctx, range)));
}

CUresult cuMemsetD8_v2(CUdeviceptr dst, unsigned char value, size_t count)
{
	return set(dst, value, 1, count, NULL, SYNC);
}

CUresult cuMemsetD16_v2(CUdeviceptr dst, unsigned short value, size_t count)
{
	return set(dst, value, 2, count, NULL, SYNC);
}

CUresult cuMemsetD32_v2(CUdeviceptr dst, unsigned int value, size_t count)
{
	return set(dst, value, 4, count, NULL, SYNC);
}

CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char value, size_t count,
			 CUstream stream)
{
	return set(dst, value, 1, count, stream, ASYNC);
}

CUresult cuMemsetD16Async(CUdeviceptr dst, unsigned short value, size_t count,
			  CUstream stream)
{
	return set(dst, value, 2, count, stream, ASYNC);
}

CUresult cuMemsetD32Async(CUdeviceptr dst, unsigned int value, size_t count,
			  CUstream stream)
{
	return set(dst, value, 4, count, stream, ASYNC);
}
