// SPDX-License-Identifier: MIT
/* cuGetProcAddress(): from a name without suffix to the newest function. */
#include <string.h>

#include "sim.h"

/* "since" is the CUDA version that brought the function in this form. */
static const struct {
	const char *name;
	void *fn;
	int since;
} functions[] = {
#define FUNCTION(name, symbol, since) { name, (void *)(symbol), since }
	FUNCTION("cuInit", cuInit, 2000),
	FUNCTION("cuDriverGetVersion", cuDriverGetVersion, 2020),
	FUNCTION("cuGetErrorName", cuGetErrorName, 6000),
	FUNCTION("cuGetErrorString", cuGetErrorString, 6000),
	FUNCTION("cuGetProcAddress", cuGetProcAddress_v2, 12000),
	FUNCTION("cuDeviceGet", cuDeviceGet, 2000),
	FUNCTION("cuDeviceGetCount", cuDeviceGetCount, 2000),
	FUNCTION("cuDeviceGetName", cuDeviceGetName, 2000),
	FUNCTION("cuDeviceGetAttribute", cuDeviceGetAttribute, 2000),
	FUNCTION("cuDeviceTotalMem", cuDeviceTotalMem_v2, 3020),
	FUNCTION("cuDeviceGetPCIBusId", cuDeviceGetPCIBusId, 4010),
	FUNCTION("cuDeviceGetByPCIBusId", cuDeviceGetByPCIBusId, 4010),
	FUNCTION("cuDeviceGetUuid", cuDeviceGetUuid_v2, 11040),
	FUNCTION("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain, 7000),
	FUNCTION("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2,
		 11000),
	FUNCTION("cuDevicePrimaryCtxGetState", cuDevicePrimaryCtxGetState,
		 7000),
	FUNCTION("cuCtxCreate", cuCtxCreate_v2, 3020),
	FUNCTION("cuCtxDestroy", cuCtxDestroy_v2, 4000),
	FUNCTION("cuCtxSetCurrent", cuCtxSetCurrent, 4000),
	FUNCTION("cuCtxGetCurrent", cuCtxGetCurrent, 4000),
	FUNCTION("cuCtxPushCurrent", cuCtxPushCurrent_v2, 4000),
	FUNCTION("cuCtxPopCurrent", cuCtxPopCurrent_v2, 4000),
	FUNCTION("cuCtxGetDevice", cuCtxGetDevice, 2000),
	FUNCTION("cuCtxGetFlags", cuCtxGetFlags, 7000),
	FUNCTION("cuCtxGetStreamPriorityRange", cuCtxGetStreamPriorityRange,
		 5050),
	FUNCTION("cuCtxSynchronize", cuCtxSynchronize, 2000),
	FUNCTION("cuMemAlloc", cuMemAlloc_v2, 3020),
	FUNCTION("cuMemFree", cuMemFree_v2, 3020),
	FUNCTION("cuMemGetInfo", cuMemGetInfo_v2, 3020),
	FUNCTION("cuMemGetAddressRange", cuMemGetAddressRange_v2, 3020),
	FUNCTION("cuMemGetHandleForAddressRange",
		 cuMemGetHandleForAddressRange, 11070),
	FUNCTION("cuMemAllocHost", cuMemAllocHost_v2, 3020),
	FUNCTION("cuMemHostAlloc", cuMemHostAlloc, 2020),
	FUNCTION("cuMemFreeHost", cuMemFreeHost, 2000),
	FUNCTION("cuMemHostRegister", cuMemHostRegister_v2, 6050),
	FUNCTION("cuMemHostUnregister", cuMemHostUnregister, 4000),
	FUNCTION("cuMemHostGetDevicePointer", cuMemHostGetDevicePointer_v2,
		 3020),
	FUNCTION("cuMemHostGetFlags", cuMemHostGetFlags, 2030),
	FUNCTION("cuMemcpy", cuMemcpy, 4000),
	FUNCTION("cuMemcpyHtoD", cuMemcpyHtoD_v2, 3020),
	FUNCTION("cuMemcpyDtoH", cuMemcpyDtoH_v2, 3020),
	FUNCTION("cuMemcpyDtoD", cuMemcpyDtoD_v2, 3020),
	FUNCTION("cuMemcpyAsync", cuMemcpyAsync, 4000),
	FUNCTION("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2, 3020),
	FUNCTION("cuMemcpyDtoHAsync", cuMemcpyDtoHAsync_v2, 3020),
	FUNCTION("cuMemcpyDtoDAsync", cuMemcpyDtoDAsync_v2, 3020),
	FUNCTION("cuMemsetD8", cuMemsetD8_v2, 3020),
	FUNCTION("cuMemsetD16", cuMemsetD16_v2, 3020),
	FUNCTION("cuMemsetD32", cuMemsetD32_v2, 3020),
	FUNCTION("cuMemsetD8Async", cuMemsetD8Async, 3020),
	FUNCTION("cuMemsetD16Async", cuMemsetD16Async, 3020),
	FUNCTION("cuMemsetD32Async", cuMemsetD32Async, 3020),
	FUNCTION("cuPointerGetAttribute", cuPointerGetAttribute, 4000),
	FUNCTION("cuPointerGetAttributes", cuPointerGetAttributes, 7000),
	FUNCTION("cuPointerSetAttribute", cuPointerSetAttribute, 6000),
	FUNCTION("cuStreamCreate", cuStreamCreate, 2000),
	FUNCTION("cuStreamCreateWithPriority", cuStreamCreateWithPriority,
		 5050),
	FUNCTION("cuStreamDestroy", cuStreamDestroy_v2, 4000),
	FUNCTION("cuStreamSynchronize", cuStreamSynchronize, 2000),
	FUNCTION("cuStreamQuery", cuStreamQuery, 2000),
	FUNCTION("cuStreamWaitEvent", cuStreamWaitEvent, 3020),
	FUNCTION("cuStreamGetCtx", cuStreamGetCtx, 9020),
	FUNCTION("cuStreamGetFlags", cuStreamGetFlags, 5050),
	FUNCTION("cuStreamGetPriority", cuStreamGetPriority, 5050),
	FUNCTION("cuLaunchHostFunc", cuLaunchHostFunc, 10000),
	FUNCTION("cuStreamWaitValue32", cuStreamWaitValue32_v2, 11070),
	FUNCTION("cuStreamWriteValue32", cuStreamWriteValue32_v2, 11070),
	FUNCTION("cuEventCreate", cuEventCreate, 2000),
	FUNCTION("cuEventDestroy", cuEventDestroy_v2, 4000),
	FUNCTION("cuEventRecord", cuEventRecord, 2000),
	FUNCTION("cuEventSynchronize", cuEventSynchronize, 2000),
	FUNCTION("cuEventQuery", cuEventQuery, 2000),
	FUNCTION("cuEventElapsedTime", cuEventElapsedTime, 2000),
	FUNCTION("cuFlushGPUDirectRDMAWrites", cuFlushGPUDirectRDMAWrites,
		 11030),
	FUNCTION("cuMemAddressReserve", cuMemAddressReserve, 10020),
	FUNCTION("cuMemAddressFree", cuMemAddressFree, 10020),
	FUNCTION("cuMemCreate", cuMemCreate, 10020),
	FUNCTION("cuMemRelease", cuMemRelease, 10020),
	FUNCTION("cuMemRetainAllocationHandle", cuMemRetainAllocationHandle,
		 11000),
	FUNCTION("cuMemMap", cuMemMap, 10020),
	FUNCTION("cuMemUnmap", cuMemUnmap, 10020),
	FUNCTION("cuMemSetAccess", cuMemSetAccess, 10020),
	FUNCTION("cuMemGetAccess", cuMemGetAccess, 10020),
	FUNCTION("cuMemGetAllocationGranularity",
		 cuMemGetAllocationGranularity, 10020),
	FUNCTION("cuMemGetAllocationPropertiesFromHandle",
		 cuMemGetAllocationPropertiesFromHandle, 10020),
#undef FUNCTION
};

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version,
			     cuuint64_t flags,
			     CUdriverProcAddressQueryResult *status)
{
	CUdriverProcAddressQueryResult found =
		CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	size_t i;

	if (!symbol || !*symbol || !pfn)
		return CUDA_ERROR_INVALID_VALUE;
	*pfn = NULL;
	for (i = 0; i < ARRAY_SIZE(functions); i++) {
		if (strcmp(functions[i].name, symbol))
			continue;
		found = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
		if (version < functions[i].since)
			break;
		*pfn = functions[i].fn;
		found = CU_GET_PROC_ADDRESS_SUCCESS;
		break;
	}
	if (status)
		*status = found;
	return CUDA_SUCCESS;
}

/* Before CUDA 12 there was no status, but an error. */
#undef cuGetProcAddress
CUresult cuGetProcAddress(const char *symbol, void **pfn, int version,
			  cuuint64_t flags);

CUresult cuGetProcAddress(const char *symbol, void **pfn, int version,
			  cuuint64_t flags)
{
	CUresult result = cuGetProcAddress_v2(symbol, pfn, version, flags,
					      NULL);

	return result || *pfn ? result : CUDA_ERROR_NOT_FOUND;
}
