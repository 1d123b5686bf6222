// SPDX-License-Identifier: MIT
/* Virtual memory management: addresses and memory apart. */
#include <stdlib.h>
#include <sys/mman.h>

#include "vmm.h"

static struct sim_handle *handles;

static bool is_aligned(uint64_t value)
{
	return !(value & (SIM_GRANULE_VMM - 1));
}

static struct sim_handle *handle_find(CUmemGenericAllocationHandle value)
{
	struct sim_handle *handle;

	for (handle = handles; handle; handle = handle->next)
		if ((uintptr_t)handle == value && handle->owners)
			return handle;
	return NULL;
}

/* The memory lives as long as it has an owner or an address. */
static void handle_drop(struct sim_handle *handle)
{
	struct simgpu_release release = { .handle = handle->kernel };
	struct sim_handle **link;

	if (handle->owners || handle->mappings)
		return;
	for (link = &handles; *link != handle; link = &(*link)->next)
		;
	*link = handle->next;
	sim_ioctl(handle->prop.location.id, SIMGPU_RELEASE, &release);
	free(handle);
}

static CUresult prop_check(const CUmemAllocationProp *prop)
{
	if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
	    prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
	    prop->win32HandleMetaData)
		return CUDA_ERROR_INVALID_VALUE;
	if (prop->location.id < 0 || prop->location.id >= sim_nr_devices)
		return CUDA_ERROR_INVALID_DEVICE;
	if (prop->requestedHandleTypes || prop->allocFlags.compressionType)
		return CUDA_ERROR_NOT_SUPPORTED;
	return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationGranularity(size_t *granularity,
				       const CUmemAllocationProp *prop,
				       CUmemAllocationGranularity_flags option)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (!granularity || option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = prop_check(prop);
	if (!result)
		*granularity = SIM_GRANULE_VMM;
	return sim_leave(result);
}

CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment,
			     CUdeviceptr addr, unsigned long long flags)
{
	CUresult result = sim_enter(NULL);
	struct sim_range range = { .kind = SIM_RESERVED, .dev = -1 };
	void *room;

	if (result)
		return result;
	if (!ptr || !size || !is_aligned(size) || flags ||
	    alignment & (alignment - 1))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (alignment < SIM_GRANULE_VMM)
		alignment = SIM_GRANULE_VMM;
	room = sim_address_reserve(size, alignment, addr);
	if (!room)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	range.start = (uintptr_t)room;
	range.len = size;
	range.room = size;
	if (!sim_range_add(&sim_reservations, &range)) {
		munmap(room, size);
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	}
	*ptr = range.start;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;

	if (result)
		return result;
	range = sim_range_find(&sim_reservations, ptr);
	if (!range || range->start != ptr || range->len != size ||
	    sim_range_overlaps(&sim_ranges, ptr, size))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	sim_range_remove(&sim_reservations, range);
	munmap((void *)range->start, range->len);
	free(range);
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t size,
		     const CUmemAllocationProp *prop, unsigned long long flags)
{
	CUresult result = sim_enter(NULL);
	struct simgpu_create create = { .len = size };
	struct sim_handle *handle;

	if (result)
		return result;
	if (!out || !size || !is_aligned(size) || flags)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = prop_check(prop);
	if (result)
		return sim_leave(result);
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	result = sim_error(sim_ioctl(prop->location.id, SIMGPU_CREATE,
				     &create));
	if (result) {
		free(handle);
		return sim_leave(result);
	}
	handle->prop = *prop;
	handle->len = size;
	handle->kernel = create.out_handle;
	handle->owners = 1;
	handle->next = handles;
	handles = handle;
	*out = (uintptr_t)handle;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle value)
{
	CUresult result = sim_enter(NULL);
	struct sim_handle *handle;

	if (result)
		return result;
	handle = handle_find(value);
	if (!handle)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	handle->owners--;
	handle_drop(handle);
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out,
				     void *addr)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;

	if (result)
		return result;
	range = sim_range_find(&sim_ranges, (uintptr_t)addr);
	if (!out || !range || range->kind != SIM_MAPPED)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	range->handle->owners++;
	*out = (uintptr_t)range->handle;
	return sim_leave(CUDA_SUCCESS);
}

static bool is_reserved(uintptr_t addr, size_t len)
{
	struct sim_range *range = sim_range_find(&sim_reservations, addr);

	return range && len <= range->start + range->len - addr;
}

CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset,
		  CUmemGenericAllocationHandle value, unsigned long long flags)
{
	CUresult result = sim_enter(NULL);
	struct simgpu_map map = { .va = ptr, .len = size, .offset = offset };
	struct simgpu_free undo = { .va = ptr };
	struct sim_handle *handle;
	struct sim_range range;

	if (result)
		return result;
	handle = handle_find(value);
	if (!handle || !size || !is_aligned(ptr) || !is_aligned(size) ||
	    offset || flags || size > handle->len || !is_reserved(ptr, size) ||
	    sim_range_overlaps(&sim_ranges, ptr, size))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	map.handle = handle->kernel;
	range = (struct sim_range){
		.start = ptr,
		.len = size,
		.room = size,
		.kind = SIM_MAPPED,
		.dev = handle->prop.location.id,
		.handle = handle,
	};
	result = sim_error(sim_ioctl(range.dev, SIMGPU_MAP, &map));
	if (result)
		return sim_leave(result);
	if (!sim_range_add(&sim_ranges, &range)) {
		sim_ioctl(range.dev, SIMGPU_FREE, &undo);
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	}
	handle->mappings++;
	return sim_leave(CUDA_SUCCESS);
}

/* Whole mappings, one behind the other. */
static bool is_mapped(uintptr_t addr, size_t len)
{
	struct sim_range *range;

	while (len) {
		range = sim_range_find(&sim_ranges, addr);
		if (!range || range->kind != SIM_MAPPED ||
		    range->start != addr || range->len > len)
			return false;
		addr += range->len;
		len -= range->len;
	}
	return true;
}

/* Is what is mapped in there mapped as a whole? Gaps do not matter. */
static bool is_unmappable(uintptr_t addr, size_t len)
{
	struct sim_range *first = sim_range_find(&sim_ranges, addr);
	struct sim_range *last = sim_range_find(&sim_ranges, addr + len - 1);

	return is_reserved(addr, len) && (!first || first->start == addr) &&
	       (!last || last->start + last->len == addr + len);
}

/* Those who have pinned the memory may take their time; the lock is released. */
static void range_unmap(struct sim_range *range)
{
	struct simgpu_free free_args = { .va = range->start };

	sim_range_remove(&sim_ranges, range);
	pthread_mutex_unlock(&sim_lock);
	sim_ioctl(range->dev, SIMGPU_FREE, &free_args);
	pthread_mutex_lock(&sim_lock);
	range->handle->mappings--;
	handle_drop(range->handle);
	free(range);
}

CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;
	size_t done;

	if (result)
		return result;
	if (!size || !is_aligned(ptr) || !is_aligned(size) ||
	    !is_unmappable(ptr, size))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	for (done = 0; done < size; done += SIM_GRANULE_VMM) {
		range = sim_range_find(&sim_ranges, ptr + done);
		if (range)
			range_unmap(range);
	}
	return sim_leave(CUDA_SUCCESS);
}

static CUresult access_check(const CUmemAccessDesc *desc, size_t count)
{
	size_t i;

	if (!desc || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (i = 0; i < count; i++) {
		if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
			return CUDA_ERROR_INVALID_VALUE;
		if (desc[i].location.id < 0 ||
		    desc[i].location.id >= sim_nr_devices)
			return CUDA_ERROR_INVALID_DEVICE;
		if (desc[i].flags & ~CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

/* What another GPU may do with the memory is not simulated. */
CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size,
			const CUmemAccessDesc *desc, size_t count)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;
	size_t done, i;

	if (result)
		return result;
	result = access_check(desc, count);
	if (!result && (!size || !is_mapped(ptr, size)))
		result = CUDA_ERROR_INVALID_VALUE;
	for (done = 0; !result && done < size; done += range->len) {
		range = sim_range_find(&sim_ranges, ptr + done);
		for (i = 0; i < count; i++)
			if (desc[i].location.id == range->dev)
				range->access = desc[i].flags;
	}
	return sim_leave(result);
}

CUresult cuMemGetAccess(unsigned long long *flags,
			const CUmemLocation *location, CUdeviceptr ptr)
{
	CUresult result = sim_enter(NULL);
	struct sim_range *range;

	if (result)
		return result;
	range = sim_range_find(&sim_ranges, ptr);
	if (!flags || !location || !range || range->kind != SIM_MAPPED ||
	    location->type != CU_MEM_LOCATION_TYPE_DEVICE)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*flags = location->id == range->dev ? range->access : 0;
	return sim_leave(CUDA_SUCCESS);
}

CUresult
cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
				       CUmemGenericAllocationHandle value)
{
	CUresult result = sim_enter(NULL);
	struct sim_handle *handle;

	if (result)
		return result;
	handle = handle_find(value);
	if (!prop || !handle)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*prop = handle->prop;
	return sim_leave(CUDA_SUCCESS);
}
