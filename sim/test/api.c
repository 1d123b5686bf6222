// SPDX-License-Identifier: MIT
/*
 * Every misuse has the real library's error code; and what pointers tell. Passes
 * with the real library and a real GPU, too.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda.h"
#include "tap.h"

#define MIB	(1024ul * 1024)

static void test_before_init(void)
{
	CUdeviceptr ptr;
	int count;

	is(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED, "no cuInit");
	is(cuMemAlloc(&ptr, 1), CUDA_ERROR_NOT_INITIALIZED, "no cuInit");
	is(cuDriverGetVersion(&count), CUDA_SUCCESS, "the version needs none");
	is(cuInit(1), CUDA_ERROR_INVALID_VALUE, "cuInit with flags");
	is(cuInit(0), CUDA_SUCCESS, "cuInit");
}

static void test_errors(void)
{
	const char *text = "";

	is(cuGetErrorName(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, &text),
	   CUDA_SUCCESS, "an error's name");
	ok(!strcmp(text, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"), "is that");
	is(cuGetErrorString((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE,
	   "no such error");
	ok(!text, "no text");
}

static void test_devices(void)
{
	char name[64], id[16];
	int count = 0, value = -1;
	CUdevice dev = -1;
	CUuuid uuid;
	size_t bytes;

	is(cuDeviceGetCount(&count), CUDA_SUCCESS, "count");
	ok(count >= 1, "at least one GPU");
	is(cuDeviceGet(&dev, count), CUDA_ERROR_INVALID_DEVICE, "one too many");
	is(cuDeviceGet(&dev, -1), CUDA_ERROR_INVALID_DEVICE, "device -1");
	is(cuDeviceGet(&dev, 0), CUDA_SUCCESS, "device 0");
	is(cuDeviceGetName(name, sizeof(name), dev), CUDA_SUCCESS, "name");
	is(cuDeviceTotalMem(&bytes, dev), CUDA_SUCCESS, "memory");
	ok(bytes >= 16 * MIB, "some");
	is(cuDeviceGetUuid(&uuid, dev), CUDA_SUCCESS, "UUID");
	is(cuDeviceGetPCIBusId(id, 4, dev), CUDA_ERROR_INVALID_VALUE,
	   "PCI address in too little room");
	is(cuDeviceGetPCIBusId(id, sizeof(id), dev), CUDA_SUCCESS,
	   "PCI address");
	dev = -1;
	is(cuDeviceGetByPCIBusId(&dev, id), CUDA_SUCCESS, "and back");
	is(dev, 0, "the same device");
	is(cuDeviceGetByPCIBusId(&dev, "ffff:ff:1f.7"),
	   CUDA_ERROR_INVALID_DEVICE, "no GPU there");
	is(cuDeviceGetByPCIBusId(&dev, "gpu"), CUDA_ERROR_INVALID_VALUE,
	   "no PCI address");
	is(cuDeviceGetAttribute(&value,
				CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED,
				0), CUDA_SUCCESS, "attribute");
	is(value, 1, "GPUDirect RDMA is supported");
	is(cuDeviceGetAttribute(&value, 0, 0), CUDA_ERROR_INVALID_VALUE,
	   "no such attribute");
}

static void test_contexts(void)
{
	CUcontext ctx, other, got;
	CUdeviceptr ptr;
	CUdevice dev;
	int active;
	unsigned int flags;

	is(cuMemAlloc(&ptr, 1), CUDA_ERROR_INVALID_CONTEXT, "no context");
	is(cuCtxGetCurrent(&got), CUDA_SUCCESS, "current context");
	ok(!got, "is none");
	is(cuCtxPopCurrent(&got), CUDA_ERROR_INVALID_CONTEXT, "empty stack");
	is(cuDevicePrimaryCtxGetState(0, &flags, &active), CUDA_SUCCESS,
	   "primary context");
	is(active, 0, "not active");
	is(cuDevicePrimaryCtxRelease(0), CUDA_ERROR_INVALID_CONTEXT,
	   "released, but never retained");
	is(cuCtxCreate(&ctx, 0, 99), CUDA_ERROR_INVALID_DEVICE, "no device 99");
	is(cuCtxCreate(&ctx, 0, 0), CUDA_SUCCESS, "create");
	is(cuCtxCreate(&other, 0, 0), CUDA_SUCCESS, "create another");
	cuCtxGetCurrent(&got);
	ok(got == other, "the newest is current");
	is(cuCtxPopCurrent(&got), CUDA_SUCCESS, "pop");
	ok(got == other, "it was the newest");
	cuCtxGetCurrent(&got);
	ok(got == ctx, "the first is current");
	is(cuCtxGetDevice(&dev), CUDA_SUCCESS, "its device");
	is(dev, 0, "is 0");
	is(cuCtxDestroy(other), CUDA_SUCCESS, "destroy");
	is(cuCtxPushCurrent(NULL), CUDA_ERROR_INVALID_VALUE, "push of none");
	is(cuCtxDestroy(ctx), CUDA_SUCCESS, "destroy the current one");
	cuCtxGetCurrent(&got);
	ok(!got, "none is current");
}

static void test_address_range(CUdeviceptr ptr)
{
	CUresult can_export = CUDA_ERROR_NOT_SUPPORTED;
	CUdeviceptr base;
	int fd = -1, dma_buf = 0;
	size_t size;

	cuDeviceGetAttribute(&dma_buf, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED,
			     0);
	if (dma_buf)
		can_export = CUDA_SUCCESS;
	is(cuMemGetAddressRange(&base, &size, ptr + 5000), CUDA_SUCCESS,
	   "address range");
	ok(base == ptr && size == MIB + 5, "is the allocation, to the byte");
	is(cuMemGetAddressRange(&base, &size, (uintptr_t)&base),
	   CUDA_ERROR_NOT_FOUND, "address range of the stack");
	is(cuMemGetHandleForAddressRange(&fd, ptr, MIB,
					 CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD,
					 0), can_export,
	   "dma-buf export, as the attribute says");
	close(fd);
	is(cuMemGetHandleForAddressRange(&fd, ptr + 1, MIB,
					 CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD,
					 0), CUDA_ERROR_INVALID_VALUE,
	   "but not of a misaligned address");
}

static unsigned int attribute(CUpointer_attribute attr, CUdeviceptr ptr)
{
	unsigned int value = 12345;

	return cuPointerGetAttribute(&value, attr, ptr) ? 99999 : value;
}

static void test_pointers(CUdeviceptr ptr, CUcontext ctx)
{
	CUpointer_attribute attrs[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
					CU_POINTER_ATTRIBUTE_CONTEXT };
	unsigned int type = 7, on = 1;
	unsigned long long id, other_id;
	CUcontext owner = (CUcontext)1;
	void *out[] = { &type, &owner };
	CUdeviceptr other;

	is(attribute(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, ptr + MIB),
	   CU_MEMORYTYPE_DEVICE, "device memory");
	is(attribute(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, ptr), 0, "of GPU 0");
	is(attribute(CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE, ptr), 1,
	   "fit for GPUDirect RDMA");
	is(attribute(CU_POINTER_ATTRIBUTE_MAPPED, ptr), 1, "mapped");
	is(attribute(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)&type), 99999,
	   "the stack is no CUDA memory");
	is(attribute(CU_POINTER_ATTRIBUTE_MAPPED, (uintptr_t)&type), 99999,
	   "in no respect");
	is(cuPointerGetAttributes(2, attrs, out, ptr), CUDA_SUCCESS, "two");
	ok(type == CU_MEMORYTYPE_DEVICE && owner == ctx, "at once");
	is(cuPointerGetAttributes(2, attrs, out, (uintptr_t)&type),
	   CUDA_SUCCESS, "two of a stranger");
	ok(!type && !owner, "are zero");
	is(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, ptr),
	   CUDA_SUCCESS, "SYNC_MEMOPS");
	is(attribute(CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, ptr), 1, "is set");
	is(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, ptr),
	   CUDA_ERROR_INVALID_VALUE, "an attribute that cannot be set");
	is(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
				 (uintptr_t)&on),
	   CUDA_ERROR_INVALID_VALUE, "SYNC_MEMOPS of the stack");
	cuMemAlloc(&other, 1);
	cuPointerGetAttribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, ptr);
	cuPointerGetAttribute(&other_id, CU_POINTER_ATTRIBUTE_BUFFER_ID, other);
	ok(id != other_id, "buffers have ids of their own");
	cuMemFree(other);
}

static void test_host_memory(void)
{
	char *page = mmap(NULL, MIB, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *read_only = mmap(NULL, MIB, PROT_READ,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int flags;
	CUdeviceptr dptr;
	void *ptr;

	is(cuMemAllocHost(&ptr, 0), CUDA_SUCCESS, "no bytes");
	is(cuMemHostAlloc(&ptr, MIB, 0x100), CUDA_ERROR_INVALID_VALUE,
	   "an unknown flag");
	is(cuMemHostAlloc(&ptr, MIB, CU_MEMHOSTALLOC_PORTABLE), CUDA_SUCCESS,
	   "pinned memory");
	memset(ptr, 1, MIB);
	is(attribute(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)ptr),
	   CU_MEMORYTYPE_HOST, "is host memory");
	is(cuMemHostGetDevicePointer(&dptr, ptr, 0), CUDA_SUCCESS,
	   "its device pointer");
	ok(dptr == (uintptr_t)ptr, "is the same");
	is(cuMemFree((uintptr_t)ptr), CUDA_ERROR_INVALID_VALUE,
	   "cuMemFree of it");
	is(cuMemFreeHost((char *)ptr + 4096), CUDA_ERROR_INVALID_VALUE,
	   "free of an address inside");
	is(cuMemHostUnregister(ptr), CUDA_ERROR_INVALID_VALUE,
	   "unregister of it");
	is(cuMemHostRegister(ptr, MIB, 0), CUDA_ERROR_INVALID_VALUE,
	   "register of it");
	is(cuMemFreeHost(ptr), CUDA_SUCCESS, "free");
	is(cuMemFreeHost(NULL), CUDA_SUCCESS, "free of nothing");
	is(cuMemHostUnregister(page), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
	   "unregister, but never registered");
	is(cuMemHostRegister(page, MIB, 0), CUDA_SUCCESS, "register");
	is(cuMemHostRegister(page + 4096, 4096, 0),
	   CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "register twice");
	is(cuMemHostGetFlags(&flags, page), CUDA_SUCCESS, "flags");
	is(cuMemFreeHost(page), CUDA_ERROR_INVALID_VALUE,
	   "free of registered memory");
	is(cuMemHostUnregister(page), CUDA_SUCCESS, "unregister");
	is(cuMemHostRegister(read_only, MIB, 0), CUDA_ERROR_INVALID_VALUE,
	   "register read-only memory for writing");
	is(cuMemHostRegister(read_only, MIB, CU_MEMHOSTREGISTER_READ_ONLY),
	   CUDA_SUCCESS, "for reading");
	is(cuMemHostUnregister(read_only), CUDA_SUCCESS, "unregister");
	munmap(page, MIB);
	is(cuMemHostRegister(page, MIB, 0), CUDA_ERROR_INVALID_VALUE,
	   "register what is not mapped");
}

static CUmemAllocationProp vmm_prop(void)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		.allocFlags.gpuDirectRDMACapable = 1,
	};

	return prop;
}

static void test_vmm_misuse(CUdeviceptr at, CUmemGenericAllocationHandle handle,
			    size_t granule)
{
	CUmemAllocationProp prop = vmm_prop();
	CUmemGenericAllocationHandle none;

	is(cuMemAddressFree(at, granule), CUDA_ERROR_INVALID_VALUE,
	   "free half a reservation");
	is(cuMemCreate(&none, granule + 1, &prop, 0), CUDA_ERROR_INVALID_VALUE,
	   "an odd size");
	prop.location.id = 99;
	is(cuMemCreate(&none, granule, &prop, 0), CUDA_ERROR_INVALID_DEVICE,
	   "no device 99");
	is(cuMemMap(at + 4096, granule, 0, handle, 0), CUDA_ERROR_INVALID_VALUE,
	   "map at an odd address");
	is(cuMemMap(at + 8 * granule, granule, 0, handle, 0),
	   CUDA_ERROR_INVALID_VALUE, "map outside the reservation");
}

static void test_vmm_attributes(CUdeviceptr at, size_t granule)
{
	CUcontext owner = (CUcontext)1;
	unsigned int on = 1;
	size_t size = 0;

	is(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, at),
	   CUDA_SUCCESS, "its context");
	ok(!owner, "is none");
	is(cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, at),
	   CUDA_SUCCESS, "its range");
	is(size, 2 * granule, "is the reservation");
	is(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at),
	   CUDA_ERROR_NOT_SUPPORTED, "no SYNC_MEMOPS");
	is(cuMemFree(at), CUDA_ERROR_INVALID_VALUE, "cuMemFree of it");
}

static void test_vmm(void)
{
	CUmemAccessDesc access = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
				   CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle handle[2], again;
	CUmemAllocationProp prop = vmm_prop(), got;
	uint8_t in[300], out[300];
	CUdeviceptr at;
	size_t granule;

	is(cuMemGetAllocationGranularity(&granule, &prop, 0), CUDA_SUCCESS,
	   "granularity");
	is(cuMemAddressReserve(&at, 2 * granule, 0, 0, 0), CUDA_SUCCESS,
	   "reserve");
	is(cuMemCreate(&handle[0], granule, &prop, 0), CUDA_SUCCESS, "create");
	is(cuMemCreate(&handle[1], granule, &prop, 0), CUDA_SUCCESS, "create");
	test_vmm_misuse(at, handle[0], granule);
	is(cuMemMap(at, granule, 0, handle[0], 0), CUDA_SUCCESS, "map");
	is(cuMemMap(at + granule, granule, 0, handle[1], 0), CUDA_SUCCESS,
	   "map behind it");
	is(cuMemMap(at, granule, 0, handle[1], 0), CUDA_ERROR_INVALID_VALUE,
	   "map where something is");
	memset(in, 0x77, sizeof(in));
	is(cuMemcpyHtoD(at + granule - 150, in, sizeof(in)),
	   CUDA_ERROR_INVALID_VALUE, "no access yet");
	is(cuMemSetAccess(at, 2 * granule, &access, 1), CUDA_SUCCESS,
	   "set access");
	is(cuMemcpyHtoD(at + granule - 150, in, sizeof(in)), CUDA_SUCCESS,
	   "copy across both");
	is(cuMemcpyDtoH(out, at + granule - 150, sizeof(out)), CUDA_SUCCESS,
	   "and back");
	ok(!memcmp(in, out, sizeof(in)), "the same bytes");
	is(cuMemGetAllocationPropertiesFromHandle(&got, handle[0]),
	   CUDA_SUCCESS, "properties");
	ok(!memcmp(&got, &prop, sizeof(got)), "are those given");
	is(cuMemRelease(handle[0]), CUDA_SUCCESS, "release");
	is(cuMemRelease(handle[0]), CUDA_ERROR_INVALID_VALUE, "release twice");
	is(cuMemRetainAllocationHandle(&again, (void *)at), CUDA_SUCCESS,
	   "retain by address");
	is(cuMemRelease(again), CUDA_SUCCESS, "release");
	is(cuMemRelease(handle[1]), CUDA_SUCCESS, "release");
	is(cuMemcpyDtoH(out, at, sizeof(out)), CUDA_SUCCESS,
	   "mapped memory outlives its handle");
	test_vmm_attributes(at, granule);
	is(cuMemAddressFree(at, 2 * granule), CUDA_ERROR_INVALID_VALUE,
	   "free with mappings in it");
	is(cuMemUnmap(at, 2 * granule), CUDA_SUCCESS, "unmap both");
	is(cuMemUnmap(at, 2 * granule), CUDA_SUCCESS, "unmap nothing");
	is(cuMemcpyDtoH(out, at, 1), CUDA_ERROR_INVALID_VALUE, "gone");
	is(cuMemAddressFree(at, 2 * granule), CUDA_SUCCESS, "free");
}

static void test_get_proc(void)
{
	CUdriverProcAddressQueryResult status;
	void *fn;

	is(cuGetProcAddress("cuMemAlloc", &fn, 12000, 0, &status), CUDA_SUCCESS,
	   "cuGetProcAddress");
	ok(fn == (void *)cuMemAlloc, "finds the newest");
	is(cuGetProcAddress("cuMemCreate", &fn, 2000, 0, &status), CUDA_SUCCESS,
	   "for an older version");
	is(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, "not enough");
	is(cuGetProcAddress("cuNoSuch", &fn, 12000, 0, &status), CUDA_SUCCESS,
	   "no such function");
	is(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, "is not found");
}

static void test_fork(CUdeviceptr ptr)
{
	pid_t pid = fork();
	char byte;
	int status;

	if (!pid)
		_exit(cuMemcpyDtoH(&byte, ptr, 1) == CUDA_ERROR_NOT_INITIALIZED &&
		      cuInit(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
	waitpid(pid, &status, 0);
	is(status, 0, "a forked child cannot use its parent's CUDA");
}

int main(void)
{
	CUdeviceptr ptr;
	CUcontext ctx;

	test_before_init();
	test_errors();
	test_devices();
	test_contexts();
	is(cuCtxCreate(&ctx, 0, 0), CUDA_SUCCESS, "context");
	is(cuMemAlloc(&ptr, 0), CUDA_ERROR_INVALID_VALUE, "no bytes");
	is(cuMemAlloc(&ptr, MIB + 5), CUDA_SUCCESS, "allocation");
	if (tap_failed)
		return tap_done();
	test_address_range(ptr);
	test_pointers(ptr, ctx);
	test_host_memory();
	test_vmm();
	test_get_proc();
	test_fork(ptr);
	is(cuCtxDestroy(ctx), CUDA_SUCCESS, "destroy the context");
	is(cuPointerGetAttribute(&ctx, CU_POINTER_ATTRIBUTE_CONTEXT, ptr),
	   CUDA_ERROR_INVALID_VALUE, "its memory went with it");
	return tap_done();
}
