// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#include "fake_cuda.h"
#include "fake_stream.h"

#define NR_MAX		64
#define CPU_LEN		16384
#define BASE		0x700000000000ull
#define STRIDE		0x100000000ull

struct fake_cuda fake_cuda = { .nr_gpus = 1, .ordering = 100 };

/* Allocation n lives at BASE + n * STRIDE. */
static struct {
	int fd;
	size_t len;
	unsigned char *memory;
} slots[NR_MAX];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define GPUS_MAX	4
#define STACK_MAX	32

static int contexts[GPUS_MAX];
static _Thread_local void *stack[STACK_MAX];
static _Thread_local int depth;
static _Thread_local int capture_mode;	/* 0: global, 2: relaxed */

/*
 * What a thread may not call while another one records a graph, unless it says
 * that it knows what it does. The real one forbids less.
 */
bool fake_cuda_breaks_capture(void)
{
	if (!atomic_load(&fake_cuda.capturing) || capture_mode == 2)
		return false;
	atomic_fetch_add(&fake_cuda.broken_captures, 1);
	return true;
}

bool fake_cuda_has_context(void)
{
	return depth > 0;
}

int cuThreadExchangeStreamCaptureMode(int *mode)
{
	int was = capture_mode;

	if (*mode < 0 || *mode > 2)
		return INVALID_VALUE;
	capture_mode = *mode;
	*mode = was;
	return 0;
}

bool fake_cuda_find(uint64_t addr, uint64_t len, int *out_fd,
		    uint64_t *out_offset)
{
	uint64_t n = (addr - BASE) / STRIDE, offset = (addr - BASE) % STRIDE;

	if (addr < BASE || n >= NR_MAX || !slots[n].memory ||
	    offset + len > slots[n].len)
		return false;
	*out_fd = slots[n].fd;
	*out_offset = offset;
	return true;
}

unsigned char *fake_cuda_memory(uint64_t addr)
{
	uint64_t offset;
	int fd;

	if (!fake_cuda_find(addr, 1, &fd, &offset))
		return NULL;
	return slots[(addr - BASE) / STRIDE].memory + offset;
}

int cuInit(unsigned int flags)
{
	return flags ? INVALID_VALUE : 0;
}

int cuDeviceGetCount(int *count)
{
	*count = fake_cuda.nr_gpus;
	return fake_cuda.nr_gpus ? 0 : 100;
}

int cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal + 10;
	return ordinal < fake_cuda.nr_gpus ? 0 : 101;
}

int cuDeviceGetName(char *name, int len, int device)
{
	snprintf(name, len, "Fake %d", device - 10);
	return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
	switch (attribute) {
	case 33:
		*value = device - 10 + 1;
		return 0;
	case 34:
		*value = 2;
		return 0;
	case 50:
		*value = 0;
		return 0;
	case 117:
		*value = fake_cuda.flush_options;
		return 0;
	case 118:
		*value = fake_cuda.ordering;
		return 0;
	default:
		return INVALID_VALUE;
	}
}

int cuDevicePrimaryCtxRetain(void **out, int device)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	__atomic_add_fetch(&fake_cuda.contexts, 1, __ATOMIC_SEQ_CST);
	*out = &contexts[device - 10];
	return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	(void)device;
	fake_cuda.contexts--;
	return 0;
}

int cuCtxPushCurrent_v2(void *context)
{
	int *own = context;

	if (own < contexts || own >= contexts + GPUS_MAX)
		return INVALID_CONTEXT;
	if (depth == STACK_MAX)
		abort();
	stack[depth++] = context;
	atomic_fetch_add(&fake_cuda.depth, 1);
	return 0;
}

int cuCtxPopCurrent_v2(void **out)
{
	*out = stack[--depth];
	atomic_fetch_sub(&fake_cuda.depth, 1);
	return 0;
}

int cuMemAlloc_v2(unsigned long long *out, size_t len)
{
	int n;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth)
		return INVALID_CONTEXT;
	if (len >= STRIDE)
		return OUT_OF_MEMORY;
	for (n = 0; n < NR_MAX && slots[n].memory; n++)
		;
	if (n == NR_MAX)
		return OUT_OF_MEMORY;
	slots[n].fd = memfd_create("gpu", MFD_CLOEXEC);
	slots[n].len = len;
	if (ftruncate(slots[n].fd, (len + 65535) & ~65535ull))
		abort();
	slots[n].memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED,
			       slots[n].fd, 0);
	*out = BASE + n * STRIDE;
	fake_cuda.allocations++;
	return 0;
}

int cuMemFree_v2(unsigned long long addr)
{
	uint64_t n = (addr - BASE) / STRIDE;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth)
		return INVALID_CONTEXT;
	munmap(slots[n].memory, slots[n].len);
	close(slots[n].fd);
	slots[n].memory = NULL;
	fake_cuda.allocations--;
	return 0;
}

int cuMemGetAddressRange_v2(unsigned long long *base, size_t *size,
			    unsigned long long addr);
int cuMemGetAddressRange_v2(unsigned long long *base, size_t *size,
			    unsigned long long addr)
{
	uint64_t n = (addr - BASE) / STRIDE, offset;
	int fd;

	if (!depth)
		return INVALID_CONTEXT;
	if (!fake_cuda_find(addr, 1, &fd, &offset))
		return INVALID_VALUE;
	*base = BASE + n * STRIDE;
	*size = slots[n].len;
	return 0;
}

int cuMemGetHandleForAddressRange(void *handle, unsigned long long addr,
				  size_t len, int type,
				  unsigned long long flags);
int cuMemGetHandleForAddressRange(void *handle, unsigned long long addr,
				  size_t len, int type,
				  unsigned long long flags)
{
	uint64_t offset;
	int fd;

	if (!depth)
		return INVALID_CONTEXT;
	if (fake_cuda.fail_export)
		return fake_cuda.fail_export;
	if (type != 1 || flags || (addr | len) % 4096 ||
	    !fake_cuda_find(addr, len, &fd, &offset))
		return INVALID_VALUE;
	fd = memfd_create("exported", 0);
	*(int *)handle = fd;
	return ftruncate(fd, len);
}

int cuMemAllocHost_v2(void **out, size_t len)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth)
		return INVALID_CONTEXT;
	if (fake_cuda.fail_alloc_host || posix_memalign(out, 4096, len))
		return OUT_OF_MEMORY;
	pthread_mutex_lock(&lock);
	fake_cuda.host_allocations++;
	pthread_mutex_unlock(&lock);
	return 0;
}

int cuMemFreeHost(void *addr)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	free(addr);
	pthread_mutex_lock(&lock);
	fake_cuda.host_allocations--;
	pthread_mutex_unlock(&lock);
	return 0;
}

/*
 * Registered host memory. What is pinned stays readable, whatever becomes of
 * the mapping's rights, and whatever becomes of the file: a page that the
 * mapping has lost is as it was when it was registered. The CPU reads it, too,
 * as the driver's does: the first byte of large copies, all of small ones.
 */
static struct registration {
	char *addr;
	size_t len;
	char *now;		/* the same pages, readable */
	char *then;		/* their bytes at first */
} registrations[NR_MAX];

static struct registration *find_registration(const void *addr)
{
	struct registration *r;

	for (r = registrations; r < registrations + NR_MAX; r++)
		if (r->len && (const char *)addr >= r->addr &&
		    (const char *)addr < r->addr + r->len)
			return r;
	return NULL;
}

static bool is_mapped(const void *addr)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (pread(fd, &entry, 8, (uintptr_t)addr / 4096 * 8) != 8)
		abort();
	close(fd);
	return entry >> 63;
}

static void copy_registered(unsigned char *dst, const char *src, size_t len,
			    const struct registration *r)
{
	size_t at, n;

	for (; len; len -= n, src += n, dst += n) {
		at = src - r->addr;
		n = 4096 - at % 4096;
		n = n < len ? n : len;
		memcpy(dst, (is_mapped(src) ? r->now : r->then) + at, n);
	}
}

static bool fails_now(void)
{
	bool fails;

	pthread_mutex_lock(&lock);
	fails = fake_cuda.failing_copies > 0;
	fake_cuda.failing_copies -= fails;
	fake_cuda.copies++;
	pthread_mutex_unlock(&lock);
	return fails;
}

int cuMemcpyHtoDAsync_v2(unsigned long long dst, const void *src, size_t len,
			 void *stream)
{
	struct registration *r;
	uint64_t offset;
	int fd;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || (!stream && !fake_cuda.has_default) ||
	    !fake_cuda_find(dst, len, &fd, &offset) ||
	    stack[depth - 1] != &contexts[fake_cuda.ordinal])
		return INVALID_VALUE;
	if (fails_now())
		return OUT_OF_MEMORY;
	if (fake_stream_copy(stream, fake_cuda_memory(dst), src, len, false))
		return 0;
	pthread_mutex_lock(&lock);
	r = find_registration(src);
	pthread_mutex_unlock(&lock);
	if (r && len > CPU_LEN) {
		copy_registered(fake_cuda_memory(dst), src, len, r);
		(void)*(const volatile char *)src;
	} else {
		memcpy(fake_cuda_memory(dst), src, len);
	}
	return 0;
}

int cuMemcpyBatchAsync(unsigned long long *dsts, unsigned long long *srcs,
		       size_t *lens, size_t nr,
		       struct peerdma_cuda_copy_hint *attributes,
		       size_t *starts, size_t nr_attributes, size_t *failed,
		       void *stream)
{
	int result = 0;
	size_t i;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	/* One alone need be none, unless its source is gone afterwards. */
	if (!stream || nr_attributes != 1 || starts[0] ||
	    (attributes->order == PEERDMA_COPY_ORDER_STREAM ? nr < 2 :
	     attributes->order != PEERDMA_COPY_ORDER_CALL))
		return INVALID_VALUE;
	if (fake_cuda.fail_batch)
		return OUT_OF_MEMORY;
	if (attributes->order == PEERDMA_COPY_ORDER_CALL) {
		if (fails_now())
			return OUT_OF_MEMORY;
		fake_stream_copy(stream, fake_cuda_memory(dsts[0]),
				 (const void *)(uintptr_t)srcs[0], lens[0],
				 true);
		fake_cuda.batches++;
		return 0;
	}
	for (i = 0; i < nr && !result; i++)
		result = cuMemcpyHtoDAsync_v2(
			dsts[i], (const void *)(uintptr_t)srcs[i], lens[i],
			stream);
	*failed = i;
	fake_cuda.batches++;
	return result;
}

int cuMemcpyDtoHAsync_v2(void *dst, unsigned long long src, size_t len,
			 void *stream)
{
	uint64_t offset;
	int fd;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || !stream || !fake_cuda_find(src, len, &fd, &offset))
		return INVALID_VALUE;
	memcpy(dst, fake_cuda_memory(src), len);
	/* For programs that should notice. */
	if (getenv("FAKE_CUDA_FLIP"))
		((char *)dst)[atol(getenv("FAKE_CUDA_FLIP"))] ^= 1;
	return 0;
}

int cuMemsetD8Async(unsigned long long dst, unsigned char value, size_t len,
		    void *handle);
int cuMemsetD8Async(unsigned long long dst, unsigned char value, size_t len,
		    void *handle)
{
	uint64_t offset;
	int fd;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || !handle || !fake_cuda_find(dst, len, &fd, &offset))
		return INVALID_VALUE;
	memset(fake_cuda_memory(dst), value, len);
	return 0;
}

int cuStreamCreate(void **out, unsigned int flags)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || flags != 1)
		return INVALID_VALUE;
	*out = malloc(1);
	__atomic_add_fetch(&fake_cuda.streams, 1, __ATOMIC_SEQ_CST);
	return 0;
}

int cuStreamDestroy_v2(void *stream)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	free(stream);
	__atomic_sub_fetch(&fake_cuda.streams, 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* A GPU that is far behind never writes, and waiting for it is told apart. */
int cuStreamWriteValue32_v2(void *stream, unsigned long long addr,
			    uint32_t value, unsigned int flags)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || !stream || flags || fake_cuda.fail_write_value)
		return INVALID_VALUE;
	if (!fake_cuda.busy)
		__atomic_store_n((uint32_t *)(uintptr_t)addr, value,
				 __ATOMIC_RELEASE);
	return 0;
}

/* Flags: for all contexts, and to be read only. */
/* Memory of the program's own, not of a file. */
static const void *pinned[64];

static bool pin_memory(const void *was, const void *is)
{
	size_t i;
	bool found;

	pthread_mutex_lock(&lock);
	for (i = 0; i < 64 && pinned[i] != was; i++)
		;
	found = i < 64;
	if (found) {
		pinned[i] = is;
		fake_cuda.host_allocations += is ? 1 : -1;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

int cuMemHostRegister_v2(void *addr, size_t len, unsigned int flags)
{
	struct registration *r;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || !addr || !len || (flags != 9 && flags != 1))
		return INVALID_VALUE;
	if (flags == 1 && fake_cuda.fail_alloc_host)
		return OUT_OF_MEMORY;
	if (flags == 1)
		return pin_memory(NULL, addr) ? 0 : OUT_OF_MEMORY;
	if (fake_cuda.fail_register)
		return OUT_OF_MEMORY;
	if (madvise(addr, len, MADV_POPULATE_READ))
		return INVALID_VALUE;
	pthread_mutex_lock(&lock);
	for (r = registrations; r->len; r++)
		if (r == registrations + NR_MAX - 1)
			abort();
	r->now = mremap(addr, 0, len, MREMAP_MAYMOVE);
	r->then = malloc(len);
	memcpy(r->then, addr, len);
	r->addr = addr;
	r->len = len;
	fake_cuda.registrations++;
	pthread_mutex_unlock(&lock);
	return r->now == MAP_FAILED ? INVALID_VALUE : 0;
}

int cuMemHostUnregister(void *addr)
{
	struct registration *r;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth)
		return INVALID_VALUE;
	if (pin_memory(addr, NULL))
		return 0;
	pthread_mutex_lock(&lock);
	r = find_registration(addr);
	if (r) {
		munmap(r->now, r->len);
		free(r->then);
		r->len = 0;
		fake_cuda.registrations--;
	}
	pthread_mutex_unlock(&lock);
	return r ? 0 : INVALID_VALUE;
}

int cuPointerGetAttribute(void *value, int attribute, unsigned long long addr)
{
	uint64_t offset;
	int fd;

	if (!fake_cuda_find(addr, 1, &fd, &offset))
		return INVALID_VALUE;
	switch (attribute) {
	case 1:
		if (fake_cuda.no_context)
			return INVALID_VALUE;
		*(void **)value = &contexts[fake_cuda.ordinal];
		return 0;
	case 2:
		*(unsigned int *)value = 2;
		return 0;
	case 9:
		*(int *)value = fake_cuda.ordinal;
		return 0;
	default:
		return INVALID_VALUE;
	}
}

int cuPointerSetAttribute(const void *value, int attribute,
			  unsigned long long addr)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (attribute != 6 || *(const unsigned int *)value != 1)
		return INVALID_VALUE;
	fake_cuda.sync_memops = addr;
	return 0;
}

int cuFlushGPUDirectRDMAWrites(int target, int scope)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!depth || target || scope != 100)
		return INVALID_VALUE;
	fake_cuda.flushes++;
	return 0;
}
