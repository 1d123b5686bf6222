// SPDX-License-Identifier: MIT
/* Host memory that the copy engine may use while the caller goes on. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

#define ALLOC_FLAGS	(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | \
			 CU_MEMHOSTALLOC_WRITECOMBINED)
#define REGISTER_FLAGS	(CU_MEMHOSTREGISTER_PORTABLE | \
			 CU_MEMHOSTREGISTER_DEVICEMAP | \
			 CU_MEMHOSTREGISTER_IOMEMORY | \
			 CU_MEMHOSTREGISTER_READ_ONLY)

static CUresult host_alloc(void **ptr, size_t size, unsigned int flags)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);
	size_t page = sysconf(_SC_PAGESIZE);
	struct sim_range range;
	void *addr;

	if (result)
		return result;
	if (!ptr || flags & ~ALLOC_FLAGS)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*ptr = NULL;
	if (!size)
		return sim_leave(CUDA_SUCCESS);
	range = (struct sim_range){
		.len = size,
		.room = (size + page - 1) & -page,
		.kind = SIM_HOST,
		.ctx = ctx,
		.dev = ctx->dev,
		.flags = flags | CU_MEMHOSTALLOC_DEVICEMAP,
	};
	if (range.room < size)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	addr = mmap(NULL, range.room, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (addr == MAP_FAILED)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	range.start = (uintptr_t)addr;
	if (!sim_range_add(&sim_ranges, &range)) {
		munmap(addr, range.room);
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	}
	*ptr = addr;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemAllocHost_v2(void **ptr, size_t size)
{
	return host_alloc(ptr, size, 0);
}

CUresult cuMemHostAlloc(void **ptr, size_t size, unsigned int flags)
{
	return host_alloc(ptr, size, flags);
}

CUresult cuMemFreeHost(void *ptr)
{
	struct sim_range *range;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!ptr)
		return sim_leave(CUDA_SUCCESS);
	range = sim_range_find(&sim_ranges, (uintptr_t)ptr);
	if (!range || range->kind != SIM_HOST ||
	    range->start != (uintptr_t)ptr)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	sim_context_drain(range->ctx);
	sim_range_free(range);
	return sim_leave(CUDA_SUCCESS);
}

/*
 * Pinning faults every page in, for writing unless told otherwise, and fails
 * where that fails. The pages need not stay: the copies are the CPU's.
 */
static CUresult host_populate(uintptr_t start, size_t len, unsigned int flags)
{
	int advice = flags & CU_MEMHOSTREGISTER_READ_ONLY ?
		     MADV_POPULATE_READ : MADV_POPULATE_WRITE;

	if (flags & CU_MEMHOSTREGISTER_IOMEMORY)
		return CUDA_SUCCESS;
	if (!madvise((void *)start, len, advice))
		return CUDA_SUCCESS;
	return errno == EAGAIN ? CUDA_ERROR_OUT_OF_MEMORY :
				 CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostRegister_v2(void *ptr, size_t size, unsigned int flags)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);
	size_t page = sysconf(_SC_PAGESIZE);
	uintptr_t start = (uintptr_t)ptr & -page;
	uintptr_t end = ((uintptr_t)ptr + size + page - 1) & -page;
	struct sim_range range, *known;

	if (result)
		return result;
	if (!ptr || !size || flags & ~REGISTER_FLAGS || end <= start)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	known = sim_range_find(&sim_ranges, (uintptr_t)ptr);
	if (known && known->kind != SIM_REGISTERED)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (sim_range_overlaps(&sim_ranges, (uintptr_t)ptr, size))
		return sim_leave(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	result = host_populate(start, end - start, flags);
	if (result)
		return sim_leave(result);
	range = (struct sim_range){
		.start = (uintptr_t)ptr,
		.len = size,
		.room = size,
		.kind = SIM_REGISTERED,
		.ctx = ctx,
		.dev = ctx->dev,
		.flags = flags | CU_MEMHOSTREGISTER_DEVICEMAP,
	};
	if (!sim_range_add(&sim_ranges, &range))
		result = CUDA_ERROR_OUT_OF_MEMORY;
	return sim_leave(result);
}

CUresult cuMemHostUnregister(void *ptr)
{
	struct sim_range *range;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	range = sim_range_find(&sim_ranges, (uintptr_t)ptr);
	if (range && range->kind != SIM_REGISTERED)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (!range || range->start != (uintptr_t)ptr)
		return sim_leave(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
	sim_context_drain(range->ctx);
	sim_range_free(range);
	return sim_leave(CUDA_SUCCESS);
}

static struct sim_range *host_find(void *ptr)
{
	struct sim_range *range = sim_range_find(&sim_ranges, (uintptr_t)ptr);

	return range && !sim_range_is_device(range) ? range : NULL;
}

/* One address space: the device's view of host memory has the same addresses. */
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *dptr, void *ptr,
				      unsigned int flags)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!dptr || flags || !host_find(ptr))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*dptr = (uintptr_t)ptr;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemHostGetFlags(unsigned int *flags, void *ptr)
{
	struct sim_range *range;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	range = host_find(ptr);
	if (!flags || !range)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*flags = range->flags;
	return sim_leave(CUDA_SUCCESS);
}
