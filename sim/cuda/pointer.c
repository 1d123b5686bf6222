// SPDX-License-Identifier: MIT
/* What an address is. */
#include <string.h>

#include "sim.h"
#include "vmm.h"

#define STORE(data, type, value)				\
	do {							\
		type stored = (value);				\
		memcpy(data, &stored, sizeof(stored));		\
	} while (0)

static bool is_rdma_capable(const struct sim_range *range)
{
	if (range->kind == SIM_MAPPED)
		return range->handle->prop.allocFlags.gpuDirectRDMACapable;
	return range->kind == SIM_DEVICE;
}

static CUresult attribute_where(void *data, CUpointer_attribute attr,
				const struct sim_range *range, CUdeviceptr ptr)
{
	bool device = sim_range_is_device(range);
	const struct sim_range *whole = range;

	if (range->kind == SIM_MAPPED)
		whole = sim_range_find(&sim_reservations, ptr);

	switch (attr) {
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		STORE(data, unsigned int,
		      device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
		STORE(data, CUdeviceptr, ptr);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (device)
			return CUDA_ERROR_INVALID_VALUE;
		STORE(data, void *, (void *)(uintptr_t)ptr);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
		STORE(data, CUdeviceptr, whole->start);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
		STORE(data, size_t, whole->len);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
		STORE(data, CUdeviceptr, range->start);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
		STORE(data, size_t, range->room);
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

static CUresult attribute_get(void *data, CUpointer_attribute attr,
			      const struct sim_range *range, CUdeviceptr ptr)
{
	if (!range)
		return CUDA_ERROR_INVALID_VALUE;
	switch (attr) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
		STORE(data, CUcontext, range->ctx);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
		if (range->kind != SIM_DEVICE)
			return CUDA_ERROR_INVALID_VALUE;
		STORE(data, CUDA_POINTER_ATTRIBUTE_P2P_TOKENS,
		      (CUDA_POINTER_ATTRIBUTE_P2P_TOKENS){ 0 });
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
		STORE(data, unsigned int, range->sync_memops);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
		STORE(data, unsigned long long, range->id);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		STORE(data, int, range->dev);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MAPPED:
		STORE(data, unsigned int, 1);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
		STORE(data, unsigned int, 0);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
		STORE(data, uint64_t, 0);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
		STORE(data, unsigned int, is_rdma_capable(range));
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		STORE(data, unsigned int,
		      sim_range_is_device(range) ? range->access :
		      CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
		STORE(data, void *, NULL);
		return CUDA_SUCCESS;
	default:
		return attribute_where(data, attr, range, ptr);
	}
}

static size_t attribute_size(CUpointer_attribute attr)
{
	switch (attr) {
	case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
		return sizeof(CUDA_POINTER_ATTRIBUTE_P2P_TOKENS);
	case CU_POINTER_ATTRIBUTE_CONTEXT:
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
		return sizeof(uint64_t);
	default:
		return sizeof(unsigned int);
	}
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attr,
			       CUdeviceptr ptr)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (!data)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	return sim_leave(attribute_get(data, attr,
				       sim_range_find(&sim_ranges, ptr), ptr));
}

/* Unlike the call for one, this one succeeds for a stranger: all is zero. */
CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attrs,
				void **data, CUdeviceptr ptr)
{
	CUresult result = sim_enter(NULL);
	const struct sim_range *range;
	unsigned int i;

	if (result)
		return result;
	if (!count || !attrs || !data)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	range = sim_range_find(&sim_ranges, ptr);
	for (i = 0; i < count; i++)
		if (attribute_get(data[i], attrs[i], range, ptr))
			memset(data[i], 0, attribute_size(attrs[i]));
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attr,
			       CUdeviceptr ptr)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;
	unsigned int on;

	if (result)
		return result;
	range = sim_range_find(&sim_ranges, ptr);
	if (!value || attr != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !range)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (range->kind == SIM_MAPPED)
		return sim_leave(CUDA_ERROR_NOT_SUPPORTED);
	memcpy(&on, value, sizeof(on));
	range->sync_memops = on;
	return sim_leave(CUDA_SUCCESS);
}
