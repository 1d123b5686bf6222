// SPDX-License-Identifier: MIT
/* Devices: what there is and what it can do. */
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define DEVICE_NAME	"Simulated GPU"

/* What is the same for every GPU; the numbers are those of a small Hopper. */
static const struct {
	CUdevice_attribute attr;
	int value;
} attributes[] = {
	{ CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024 },
	{ CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32 },
	{ CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000 },
	{ CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1 },
	{ CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1 },
	{ CU_DEVICE_ATTRIBUTE_INTEGRATED, 0 },
	{ CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1 },
	{ CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 0 },
	{ CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1 },
	{ CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 0 },
	{ CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000000 },
	{ CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 64 },
	{ CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 1 << 20 },
	{ CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 2 },
	{ CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1 },
	{ CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9 },
	{ CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0 },
	{ CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0 },
	{ CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0 },
	{ CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0 },
	{ CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1 },
	{ CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES, 0 },
	{ CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0 },
	{ CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 0 },
	{ CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS,
	  CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST },
	{ CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING,
	  CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER },
	{ CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, 1 },
};

CUresult cuDeviceGetCount(int *count)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (!count)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*count = sim_nr_devices;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	CUresult result = sim_enter_device(ordinal);

	if (result)
		return result;
	if (!device)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*device = ordinal;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);

	if (result)
		return result;
	if (!name || len <= 0)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	snprintf(name, len, "%s", DEVICE_NAME);
	return sim_leave(CUDA_SUCCESS);
}

static CUresult device_attribute(int *value, CUdevice_attribute attr,
				 CUdevice dev)
{
	const struct simgpu_info *info = &sim_devices[dev].info;
	size_t i;

	if (!value || attr <= 0 || attr >= CU_DEVICE_ATTRIBUTE_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	switch (attr) {
	case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
		*value = info->bus;
		return CUDA_SUCCESS;
	case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID:
		*value = info->devfn >> 3;
		return CUDA_SUCCESS;
	case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID:
		*value = info->domain;
		return CUDA_SUCCESS;
	default:
		break;
	}
	*value = 0;
	for (i = 0; i < ARRAY_SIZE(attributes); i++)
		if (attributes[i].attr == attr)
			*value = attributes[i].value;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attr, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);

	if (result)
		return result;
	return sim_leave(device_attribute(value, attr, dev));
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);

	if (result)
		return result;
	if (!bytes)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*bytes = sim_devices[dev].info.vram_bytes;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetPCIBusId(char *id, int len, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);
	const struct simgpu_info *info;

	if (result)
		return result;
	if (!id || len < (int)sizeof("0000:00:00.0"))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	info = &sim_devices[dev].info;
	snprintf(id, len, "%04X:%02X:%02X.%X", info->domain, info->bus,
		 info->devfn >> 3, info->devfn & 7);
	return sim_leave(CUDA_SUCCESS);
}

static bool parse_bus_id(const char *id, unsigned int *domain,
			 unsigned int *bus, unsigned int *devfn)
{
	unsigned int dev, fn = 0;

	if (sscanf(id, "%x:%x:%x.%x", domain, bus, &dev, &fn) < 3) {
		*domain = 0;
		if (sscanf(id, "%x:%x.%x", bus, &dev, &fn) != 3)
			return false;
	}
	*devfn = dev << 3 | fn;
	return true;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *id)
{
	CUresult result = sim_enter(NULL);
	unsigned int domain, bus, devfn;
	const struct simgpu_info *info;
	int i;

	if (result)
		return result;
	if (!dev || !id || !parse_bus_id(id, &domain, &bus, &devfn))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	for (i = 0; i < sim_nr_devices; i++) {
		info = &sim_devices[i].info;
		if (info->domain != domain || info->bus != bus ||
		    info->devfn != devfn)
			continue;
		*dev = i;
		return sim_leave(CUDA_SUCCESS);
	}
	return sim_leave(CUDA_ERROR_INVALID_DEVICE);
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);

	if (result)
		return result;
	if (!uuid)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	memcpy(uuid->bytes, sim_devices[dev].info.uuid, sizeof(uuid->bytes));
	return sim_leave(CUDA_SUCCESS);
}
