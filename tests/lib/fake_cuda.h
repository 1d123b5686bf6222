/* SPDX-License-Identifier: MIT */
/*
 * A libcuda.so.1 of memory files, for unit tests: device addresses that the CPU
 * cannot dereference, and counters of what is alive.
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fake_cuda {
	int nr_gpus;
	int ordinal;		/* of the GPU where all memory is ... */
	bool no_context;	/* ... which belongs to no context */
	int ordering;		/* GPU_DIRECT_RDMA_WRITES_ORDERING */
	int flush_options;
	int fail_alloc_host;	/* cuMemAllocHost has no memory */
	atomic_int fail_register; /* cuMemHostRegister neither */
	int fail_write_value;	/* cuStreamWriteValue32 is not to be had */
	int busy;		/* streams are far behind */
	int waits;		/* by cuStreamSynchronize */
	int copies;		/* to the GPU, by streams ... */
	int failing_copies;	/* ... of which so many fail first */
	atomic_int batches;	/* of copies */
	int fail_batch;		/* CUDA takes none */
	int fail_export;	/* cuMemGetHandleForAddressRange answers this */
	bool no_wait_value;	/* streams wait for no words */
	bool dead;		/* a kernel has failed */
	bool has_default;	/* NULL is fake_cuda_stream(), as its default */
	bool stream_captures;	/* ... and a graph is being recorded there */
	/* 1: the next call waits until it is 0, and says so by making it 2. */
	atomic_int hold_launch;
	atomic_int hold_synchronize;
	atomic_int strict;	/* not 0: queries wait for host functions, counted */
	atomic_bool capturing;	/* a thread records a graph ... */
	atomic_int broken_captures; /* ... and this often one got in its way */
	int allocations;
	int host_allocations;
	int contexts;		/* primary contexts retained */
	int streams;		/* and events */
	atomic_int registrations; /* of host memory */
	atomic_int depth;	/* of the stack of contexts */
	atomic_int flushes;
	uint64_t sync_memops;	/* the last address it was set for */
};

extern struct fake_cuda fake_cuda;

/* Is anything left of what was made? */
static inline bool fake_cuda_leaks(void)
{
	return fake_cuda.registrations || fake_cuda.allocations ||
	       fake_cuda.host_allocations || fake_cuda.contexts ||
	       fake_cuda.streams || fake_cuda.depth;
}

bool fake_cuda_find(uint64_t addr, uint64_t len, int *out_fd,
		    uint64_t *out_offset);
unsigned char *fake_cuda_memory(uint64_t addr);
/* The program's one stream that does things in order and in its own time. */
void *fake_cuda_stream(void);
void fake_cuda_kill(void);
int cuThreadExchangeStreamCaptureMode(int *mode);
int cuStreamSynchronize(void *stream);
int cuLaunchHostFunc(void *stream, void (*fn)(void *data), void *data);

#endif /* FAKE_CUDA_H */
