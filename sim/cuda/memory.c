// SPDX-License-Identifier: MIT
/*
 * Device memory.
 *
 * Each cuMemAlloc() has pages of its own: address and room are multiples of 64
 * KiB (or of the physical page, if larger), and from 1 MiB on the address is a
 * multiple of 2 MiB. The real library packs small allocations into shared 2 MiB
 * blocks; here two never share a page, so a pin covers one allocation.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "sim.h"

#define LARGE_SIZE	(1ul << 20)
#define LARGE_ALIGNMENT	(2ul << 20)

static CUresult memory_alloc(struct CUctx_st *ctx, size_t size,
			     CUdeviceptr *out)
{
	const struct simgpu_info *info = &sim_devices[ctx->dev].info;
	size_t alignment = info->granule;
	struct simgpu_alloc alloc;
	struct simgpu_free undo;
	struct sim_range range;
	void *addr;
	int err;

	if (size > info->vram_bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (size >= LARGE_SIZE)
		alignment = LARGE_ALIGNMENT;
	range = (struct sim_range){
		.len = size,
		.room = (size + info->granule - 1) & -(size_t)info->granule,
		.kind = SIM_DEVICE,
		.ctx = ctx,
		.dev = ctx->dev,
		.access = CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
	};
	addr = sim_address_reserve(range.room, alignment, 0);
	if (!addr)
		return CUDA_ERROR_OUT_OF_MEMORY;
	range.start = (uintptr_t)addr;
	alloc = (struct simgpu_alloc){ .va = range.start, .len = range.room };
	err = sim_ioctl(ctx->dev, SIMGPU_ALLOC, &alloc);
	if (err) {
		munmap(addr, range.room);
		return sim_error(err);
	}
	if (!sim_range_add(&sim_ranges, &range)) {
		undo = (struct simgpu_free){ .va = range.start };
		sim_ioctl(ctx->dev, SIMGPU_FREE, &undo);
		munmap(addr, range.room);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = range.start;
	return CUDA_SUCCESS;
}

/**
 * sim_range_free() - end memory of any kind but VMM
 * @range: in sim_ranges
 *
 * Those who have pinned device memory are told, and may take their time: the
 * lock is released meanwhile.
 */
void sim_range_free(struct sim_range *range)
{
	struct simgpu_free free_args = { .va = range->start };

	sim_range_remove(&sim_ranges, range);
	if (range->kind == SIM_DEVICE) {
		pthread_mutex_unlock(&sim_lock);
		sim_ioctl(range->dev, SIMGPU_FREE, &free_args);
		pthread_mutex_lock(&sim_lock);
	}
	if (range->kind != SIM_REGISTERED)
		munmap((void *)range->start, range->room);
	free(range);
}

void sim_context_free_memory(struct CUctx_st *ctx)
{
	size_t i = 0;

	while (i < sim_ranges.nr) {
		if (sim_ranges.range[i]->ctx != ctx) {
			i++;
			continue;
		}
		sim_range_free(sim_ranges.range[i]);
		i = 0;
	}
}

CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t size)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!ptr || !size)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	return sim_leave(memory_alloc(ctx, size, ptr));
}

CUresult cuMemFree_v2(CUdeviceptr ptr)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;

	if (result)
		return result;
	if (!ptr)
		return sim_leave(CUDA_SUCCESS);
	range = sim_range_find(&sim_ranges, ptr);
	if (!range || range->kind != SIM_DEVICE || range->start != ptr)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	sim_context_drain(range->ctx);
	range = sim_range_find(&sim_ranges, ptr);
	if (!range || range->start != ptr)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	sim_range_free(range);
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	struct simgpu_info info;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!free_bytes || !total)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = sim_error(sim_ioctl(ctx->dev, SIMGPU_INFO, &info));
	if (!result) {
		*free_bytes = info.free_bytes;
		*total = info.vram_bytes;
	}
	return sim_leave(result);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size,
				 CUdeviceptr ptr)
{
	struct sim_range *range;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	range = sim_range_find(&sim_ranges, ptr);
	if (!range || range->kind == SIM_REGISTERED)
		return sim_leave(CUDA_ERROR_NOT_FOUND);
	if (base)
		*base = range->start;
	if (size)
		*size = range->len;
	return sim_leave(CUDA_SUCCESS);
}

/*
 * The checks come first, as in the real library: what a GPU cannot do is
 * NOT_SUPPORTED for a good range only. An H100 has no mapping forced over PCIe.
 */
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr ptr,
				       size_t size, CUmemRangeHandleType type,
				       unsigned long long flags)
{
	struct simgpu_export_fd export = { .va = ptr, .len = size };
	const size_t page = 4096;
	struct sim_range *range;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!handle || !size || (ptr | size) & (page - 1) ||
	    type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD ||
	    flags & ~(unsigned long long)
			CU_MEM_RANGE_FLAG_DMA_BUF_MAPPING_TYPE_PCIE)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	range = sim_range_find(&sim_ranges, ptr);
	if (range && range->kind == SIM_MAPPED)
		result = sim_device_span(ptr, size, 0, NULL);
	else if (!range || range->kind != SIM_DEVICE ||
		 size > range->start + range->room - ptr)
		result = CUDA_ERROR_INVALID_VALUE;
	if (result)
		return sim_leave(result);
	if (flags)
		return sim_leave(CUDA_ERROR_NOT_SUPPORTED);
	result = sim_error(sim_ioctl(range->dev, SIMGPU_EXPORT, &export));
	if (!result)
		*(int *)handle = export.out_fd;
	return sim_leave(result);
}
