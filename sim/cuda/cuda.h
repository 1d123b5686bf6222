/* SPDX-License-Identifier: MIT */
/*
 * The part of the CUDA driver API that this libcuda.so.1 implements, written
 * after NVIDIA's public documentation: same names, values and layout. A program
 * built with this header runs on the real library, and the other way round.
 */
#ifndef __cuda_cuda_h__
#define __cuda_cuda_h__

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_VERSION	13000

#define CUDAAPI

/* As the real header does: the plain name means the newest ABI. */
#define cuDeviceTotalMem		cuDeviceTotalMem_v2
#define cuDeviceGetUuid			cuDeviceGetUuid_v2
#define cuDevicePrimaryCtxRelease	cuDevicePrimaryCtxRelease_v2
#define cuCtxCreate			cuCtxCreate_v2
#define cuCtxDestroy			cuCtxDestroy_v2
#define cuCtxPushCurrent		cuCtxPushCurrent_v2
#define cuCtxPopCurrent			cuCtxPopCurrent_v2
#define cuMemAlloc			cuMemAlloc_v2
#define cuMemFree			cuMemFree_v2
#define cuMemGetInfo			cuMemGetInfo_v2
#define cuMemGetAddressRange		cuMemGetAddressRange_v2
#define cuMemAllocHost			cuMemAllocHost_v2
#define cuMemHostGetDevicePointer	cuMemHostGetDevicePointer_v2
#define cuMemHostRegister		cuMemHostRegister_v2
#define cuMemcpyHtoD			cuMemcpyHtoD_v2
#define cuMemcpyDtoH			cuMemcpyDtoH_v2
#define cuMemcpyDtoD			cuMemcpyDtoD_v2
#define cuMemcpyHtoDAsync		cuMemcpyHtoDAsync_v2
#define cuMemcpyDtoHAsync		cuMemcpyDtoHAsync_v2
#define cuMemcpyDtoDAsync		cuMemcpyDtoDAsync_v2
#define cuMemsetD8			cuMemsetD8_v2
#define cuMemsetD16			cuMemsetD16_v2
#define cuMemsetD32			cuMemsetD32_v2
#define cuStreamDestroy			cuStreamDestroy_v2
#define cuStreamWaitValue32		cuStreamWaitValue32_v2
#define cuStreamWriteValue32		cuStreamWriteValue32_v2
#define cuEventDestroy			cuEventDestroy_v2
#define cuGetProcAddress		cuGetProcAddress_v2

typedef unsigned long long cuuint64_t;
typedef uint32_t cuuint32_t;
typedef unsigned long long CUdeviceptr;
typedef int CUdevice;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef unsigned long long CUmemGenericAllocationHandle;
typedef void (*CUhostFn)(void *userData);

typedef enum CUstreamWaitValue_flags_enum {
	CU_STREAM_WAIT_VALUE_GEQ	= 0x0,
	CU_STREAM_WAIT_VALUE_EQ		= 0x1,
	CU_STREAM_WAIT_VALUE_AND	= 0x2,
	CU_STREAM_WAIT_VALUE_NOR	= 0x3,
	CU_STREAM_WAIT_VALUE_FLUSH	= 1 << 30,
} CUstreamWaitValue_flags;

typedef enum CUstreamWriteValue_flags_enum {
	CU_STREAM_WRITE_VALUE_DEFAULT			= 0x0,
	CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER		= 0x1,
} CUstreamWriteValue_flags;

typedef struct CUuuid_st {
	char bytes[16];
} CUuuid;

#define CU_STREAM_LEGACY		((CUstream)0x1)
#define CU_STREAM_PER_THREAD		((CUstream)0x2)
#define CU_DEVICE_CPU			((CUdevice)-1)
#define CU_DEVICE_INVALID		((CUdevice)-2)

typedef enum cudaError_enum {
	CUDA_SUCCESS				= 0,
	CUDA_ERROR_INVALID_VALUE		= 1,
	CUDA_ERROR_OUT_OF_MEMORY		= 2,
	CUDA_ERROR_NOT_INITIALIZED		= 3,
	CUDA_ERROR_DEINITIALIZED		= 4,
	CUDA_ERROR_DEVICE_UNAVAILABLE		= 46,
	CUDA_ERROR_NO_DEVICE			= 100,
	CUDA_ERROR_INVALID_DEVICE		= 101,
	CUDA_ERROR_INVALID_CONTEXT		= 201,
	CUDA_ERROR_MAP_FAILED			= 205,
	CUDA_ERROR_UNMAP_FAILED			= 206,
	CUDA_ERROR_ALREADY_MAPPED		= 208,
	CUDA_ERROR_NOT_MAPPED			= 211,
	CUDA_ERROR_OPERATING_SYSTEM		= 304,
	CUDA_ERROR_INVALID_HANDLE		= 400,
	CUDA_ERROR_ILLEGAL_STATE		= 401,
	CUDA_ERROR_NOT_FOUND			= 500,
	CUDA_ERROR_NOT_READY			= 600,
	CUDA_ERROR_ILLEGAL_ADDRESS		= 700,
	CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE	= 708,
	CUDA_ERROR_CONTEXT_IS_DESTROYED		= 709,
	CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712,
	CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED	= 713,
	CUDA_ERROR_LAUNCH_FAILED		= 719,
	CUDA_ERROR_NOT_PERMITTED		= 800,
	CUDA_ERROR_NOT_SUPPORTED		= 801,
	CUDA_ERROR_UNKNOWN			= 999,
} CUresult;

typedef enum CUdevice_attribute_enum {
	CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK		= 1,
	CU_DEVICE_ATTRIBUTE_WARP_SIZE				= 10,
	CU_DEVICE_ATTRIBUTE_CLOCK_RATE				= 13,
	CU_DEVICE_ATTRIBUTE_GPU_OVERLAP				= 15,
	CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT		= 16,
	CU_DEVICE_ATTRIBUTE_INTEGRATED				= 18,
	CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY			= 19,
	CU_DEVICE_ATTRIBUTE_COMPUTE_MODE			= 20,
	CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS			= 31,
	CU_DEVICE_ATTRIBUTE_ECC_ENABLED				= 32,
	CU_DEVICE_ATTRIBUTE_PCI_BUS_ID				= 33,
	CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID			= 34,
	CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE			= 36,
	CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH		= 37,
	CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE			= 38,
	CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT			= 40,
	CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING			= 41,
	CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID			= 50,
	CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR		= 75,
	CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR		= 76,
	CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED		= 78,
	CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY			= 83,
	CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS		= 88,
	CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS		= 89,
	CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM = 91,
	CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES		= 98,
	CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED		= 99,
	CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED	= 102,
	CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED = 103,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED = 110,
	CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED	= 113,
	CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED		= 115,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED		= 116,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS = 117,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING	= 118,
	CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED			= 124,
	CU_DEVICE_ATTRIBUTE_MAX					= 145,
} CUdevice_attribute;

typedef enum CUpointer_attribute_enum {
	CU_POINTER_ATTRIBUTE_CONTEXT			= 1,
	CU_POINTER_ATTRIBUTE_MEMORY_TYPE		= 2,
	CU_POINTER_ATTRIBUTE_DEVICE_POINTER		= 3,
	CU_POINTER_ATTRIBUTE_HOST_POINTER		= 4,
	CU_POINTER_ATTRIBUTE_P2P_TOKENS			= 5,
	CU_POINTER_ATTRIBUTE_SYNC_MEMOPS		= 6,
	CU_POINTER_ATTRIBUTE_BUFFER_ID			= 7,
	CU_POINTER_ATTRIBUTE_IS_MANAGED			= 8,
	CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL		= 9,
	CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE	= 10,
	CU_POINTER_ATTRIBUTE_RANGE_START_ADDR		= 11,
	CU_POINTER_ATTRIBUTE_RANGE_SIZE			= 12,
	CU_POINTER_ATTRIBUTE_MAPPED			= 13,
	CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES	= 14,
	CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE	= 15,
	CU_POINTER_ATTRIBUTE_ACCESS_FLAGS		= 16,
	CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE		= 17,
	CU_POINTER_ATTRIBUTE_MAPPING_SIZE		= 18,
	CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR		= 19,
	CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID		= 20,
} CUpointer_attribute;

typedef struct CUDA_POINTER_ATTRIBUTE_P2P_TOKENS_st {
	unsigned long long p2pToken;
	unsigned int vaSpaceToken;
} CUDA_POINTER_ATTRIBUTE_P2P_TOKENS;

typedef enum CUmemorytype_enum {
	CU_MEMORYTYPE_HOST	= 1,
	CU_MEMORYTYPE_DEVICE	= 2,
	CU_MEMORYTYPE_ARRAY	= 3,
	CU_MEMORYTYPE_UNIFIED	= 4,
} CUmemorytype;

typedef enum CUctx_flags_enum {
	CU_CTX_SCHED_AUTO		= 0x00,
	CU_CTX_SCHED_SPIN		= 0x01,
	CU_CTX_SCHED_YIELD		= 0x02,
	CU_CTX_SCHED_BLOCKING_SYNC	= 0x04,
	CU_CTX_SCHED_MASK		= 0x07,
	CU_CTX_MAP_HOST			= 0x08,
	CU_CTX_LMEM_RESIZE_TO_MAX	= 0x10,
	CU_CTX_COREDUMP_ENABLE		= 0x20,
	CU_CTX_USER_COREDUMP_ENABLE	= 0x40,
	CU_CTX_SYNC_MEMOPS		= 0x80,
	CU_CTX_FLAGS_MASK		= 0xff,
} CUctx_flags;

typedef enum CUstream_flags_enum {
	CU_STREAM_DEFAULT	= 0,
	CU_STREAM_NON_BLOCKING	= 1,
} CUstream_flags;

typedef enum CUevent_flags_enum {
	CU_EVENT_DEFAULT	= 0,
	CU_EVENT_BLOCKING_SYNC	= 1,
	CU_EVENT_DISABLE_TIMING	= 2,
	CU_EVENT_INTERPROCESS	= 4,
} CUevent_flags;

#define CU_MEMHOSTALLOC_PORTABLE	0x01
#define CU_MEMHOSTALLOC_DEVICEMAP	0x02
#define CU_MEMHOSTALLOC_WRITECOMBINED	0x04

#define CU_MEMHOSTREGISTER_PORTABLE	0x01
#define CU_MEMHOSTREGISTER_DEVICEMAP	0x02
#define CU_MEMHOSTREGISTER_IOMEMORY	0x04
#define CU_MEMHOSTREGISTER_READ_ONLY	0x08

typedef enum CUflushGPUDirectRDMAWritesOptions_enum {
	CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST	= 1,
	CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_MEMOPS	= 2,
} CUflushGPUDirectRDMAWritesOptions;

typedef enum CUGPUDirectRDMAWritesOrdering_enum {
	CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE		= 0,
	CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER	= 100,
	CU_GPU_DIRECT_RDMA_WRITES_ORDERING_ALL_DEVICES	= 200,
} CUGPUDirectRDMAWritesOrdering;

typedef enum CUflushGPUDirectRDMAWritesScope_enum {
	CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER	= 100,
	CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES	= 200,
} CUflushGPUDirectRDMAWritesScope;

typedef enum CUflushGPUDirectRDMAWritesTarget_enum {
	CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX = 0,
} CUflushGPUDirectRDMAWritesTarget;

typedef enum CUmemRangeHandleType_enum {
	CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD	= 1,
} CUmemRangeHandleType;

typedef enum CUmemRangeFlags_enum {
	CU_MEM_RANGE_FLAG_DMA_BUF_MAPPING_TYPE_PCIE = 1,
} CUmemRangeFlags;

typedef enum CUdriverProcAddressQueryResult_enum {
	CU_GET_PROC_ADDRESS_SUCCESS			= 0,
	CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND		= 1,
	CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT	= 2,
} CUdriverProcAddressQueryResult;

typedef enum CUmemAllocationHandleType_enum {
	CU_MEM_HANDLE_TYPE_NONE			= 0,
	CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR = 1,
} CUmemAllocationHandleType;

typedef enum CUmemAllocationType_enum {
	CU_MEM_ALLOCATION_TYPE_INVALID	= 0,
	CU_MEM_ALLOCATION_TYPE_PINNED	= 1,
} CUmemAllocationType;

typedef enum CUmemLocationType_enum {
	CU_MEM_LOCATION_TYPE_INVALID	= 0,
	CU_MEM_LOCATION_TYPE_DEVICE	= 1,
	CU_MEM_LOCATION_TYPE_HOST	= 2,
} CUmemLocationType;

typedef enum CUmemAccess_flags_enum {
	CU_MEM_ACCESS_FLAGS_PROT_NONE		= 0,
	CU_MEM_ACCESS_FLAGS_PROT_READ		= 1,
	CU_MEM_ACCESS_FLAGS_PROT_READWRITE	= 3,
} CUmemAccess_flags;

typedef enum CUmemAllocationGranularity_flags_enum {
	CU_MEM_ALLOC_GRANULARITY_MINIMUM	= 0,
	CU_MEM_ALLOC_GRANULARITY_RECOMMENDED	= 1,
} CUmemAllocationGranularity_flags;

typedef struct CUmemLocation_st {
	CUmemLocationType type;
	int id;
} CUmemLocation;

typedef struct CUmemAllocationProp_st {
	CUmemAllocationType type;
	CUmemAllocationHandleType requestedHandleTypes;
	CUmemLocation location;
	void *win32HandleMetaData;
	struct {
		unsigned char compressionType;
		unsigned char gpuDirectRDMACapable;
		unsigned short usage;
		unsigned char reserved[4];
	} allocFlags;
} CUmemAllocationProp;

typedef struct CUmemAccessDesc_st {
	CUmemLocation location;
	CUmemAccess_flags flags;
} CUmemAccessDesc;

/* Driver */
CUresult cuInit(unsigned int flags);
CUresult cuDriverGetVersion(int *version);
CUresult cuGetErrorName(CUresult error, const char **name);
CUresult cuGetErrorString(CUresult error, const char **text);
CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version,
			     cuuint64_t flags,
			     CUdriverProcAddressQueryResult *status);

/* Devices */
CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetCount(int *count);
CUresult cuDeviceGetName(char *name, int len, CUdevice dev);
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attr,
			      CUdevice dev);
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev);
CUresult cuDeviceGetPCIBusId(char *id, int len, CUdevice dev);
CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *id);
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev);
CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice dev);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev);
CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags,
				    int *active);

/* Contexts */
CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev);
CUresult cuCtxDestroy_v2(CUcontext ctx);
CUresult cuCtxSetCurrent(CUcontext ctx);
CUresult cuCtxGetCurrent(CUcontext *ctx);
CUresult cuCtxPushCurrent_v2(CUcontext ctx);
CUresult cuCtxPopCurrent_v2(CUcontext *ctx);
CUresult cuCtxGetDevice(CUdevice *dev);
CUresult cuCtxGetFlags(unsigned int *flags);
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest);
CUresult cuCtxSynchronize(void);

/* Device memory */
CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t size);
CUresult cuMemFree_v2(CUdeviceptr ptr);
CUresult cuMemGetInfo_v2(size_t *free, size_t *total);
CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size,
				 CUdeviceptr ptr);
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr ptr,
				       size_t size, CUmemRangeHandleType type,
				       unsigned long long flags);

/* Host memory */
CUresult cuMemAllocHost_v2(void **ptr, size_t size);
CUresult cuMemHostAlloc(void **ptr, size_t size, unsigned int flags);
CUresult cuMemFreeHost(void *ptr);
CUresult cuMemHostRegister_v2(void *ptr, size_t size, unsigned int flags);
CUresult cuMemHostUnregister(void *ptr);
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *dptr, void *ptr,
				      unsigned int flags);
CUresult cuMemHostGetFlags(unsigned int *flags, void *ptr);

/* Copies */
CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t len);
CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t len);
CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t len);
CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t len);
CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t len,
		       CUstream stream);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t len,
			      CUstream stream);
CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t len,
			      CUstream stream);
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t len,
			      CUstream stream);
CUresult cuMemsetD8_v2(CUdeviceptr dst, unsigned char value, size_t count);
CUresult cuMemsetD16_v2(CUdeviceptr dst, unsigned short value, size_t count);
CUresult cuMemsetD32_v2(CUdeviceptr dst, unsigned int value, size_t count);
CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char value, size_t count,
			 CUstream stream);
CUresult cuMemsetD16Async(CUdeviceptr dst, unsigned short value, size_t count,
			  CUstream stream);
CUresult cuMemsetD32Async(CUdeviceptr dst, unsigned int value, size_t count,
			  CUstream stream);

/* Pointers */
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attr,
			       CUdeviceptr ptr);
CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attrs,
				void **data, CUdeviceptr ptr);
CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attr,
			       CUdeviceptr ptr);

/* Streams and events */
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags,
				    int priority);
CUresult cuStreamDestroy_v2(CUstream stream);
CUresult cuStreamSynchronize(CUstream stream);
CUresult cuStreamQuery(CUstream stream);
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags);
CUresult cuStreamGetCtx(CUstream stream, CUcontext *ctx);
CUresult cuStreamGetFlags(CUstream stream, unsigned int *flags);
CUresult cuStreamGetPriority(CUstream stream, int *priority);
CUresult cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *data);
CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr addr,
				cuuint32_t value, unsigned int flags);
CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr addr,
				 cuuint32_t value, unsigned int flags);
CUresult cuEventCreate(CUevent *event, unsigned int flags);
CUresult cuEventDestroy_v2(CUevent event);
CUresult cuEventRecord(CUevent event, CUstream stream);
CUresult cuEventSynchronize(CUevent event);
CUresult cuEventQuery(CUevent event);
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end);
CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
				    CUflushGPUDirectRDMAWritesScope scope);

/* Virtual memory management */
CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment,
			     CUdeviceptr addr, unsigned long long flags);
CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size);
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size,
		     const CUmemAllocationProp *prop, unsigned long long flags);
CUresult cuMemRelease(CUmemGenericAllocationHandle handle);
CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle,
				     void *addr);
CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset,
		  CUmemGenericAllocationHandle handle,
		  unsigned long long flags);
CUresult cuMemUnmap(CUdeviceptr ptr, size_t size);
CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size,
			const CUmemAccessDesc *desc, size_t count);
CUresult cuMemGetAccess(unsigned long long *flags,
			const CUmemLocation *location, CUdeviceptr ptr);
CUresult
cuMemGetAllocationGranularity(size_t *granularity,
			      const CUmemAllocationProp *prop,
			      CUmemAllocationGranularity_flags option);
CUresult
cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
				       CUmemGenericAllocationHandle handle);

#ifdef __cplusplus
}
#endif

#endif
