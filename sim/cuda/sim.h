/* SPDX-License-Identifier: MIT */
/*
 * Inside the simulated libcuda.so.1.
 *
 * One lock, sim_lock, guards everything here; every entry point takes it with
 * sim_enter() and lets go with sim_leave(). It is not held while bytes are
 * copied or a host function runs, and the condition variables release it.
 *
 * Objects that a caller names by a handle are looked up among the live ones
 * before they are used, so a stale handle is an error code and not a crash.
 */
#ifndef SIM_H
#define SIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda.h"
#include "simgpu_uapi.h"

#define SIM_MAX_DEVICES	64
#define SIM_GRANULE_VMM	(2ul << 20)
#define SIM_GREATEST_PRIORITY	(-5)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/**
 * struct sim_device - one GPU
 * @fd: /dev/simgpuN
 * @info: as the kernel gave it at cuInit()
 * @primary: its primary context, made when first retained, never freed
 * @primary_refs: how often it is retained
 */
struct sim_device {
	int fd;
	struct simgpu_info info;
	struct CUctx_st *primary;
	unsigned int primary_refs;
};

/**
 * struct CUctx_st - a context
 * @next: in the list of all that ever were: a destroyed context's shell stays,
 *	so that a thread that still has it current gets an answer
 * @dev: of this device
 * @flags: as created
 * @alive: not destroyed, or a primary context that is retained
 * @is_primary: made by cuDevicePrimaryCtxRetain()
 * @error: the first asynchronous failure; every later call returns it
 * @legacy: the stream named 0
 * @per_thread: the stream named CU_STREAM_PER_THREAD; one for all threads, which
 *	orders more than it must
 * @streams: those made by cuStreamCreate(), and @legacy and @per_thread
 */
struct CUctx_st {
	struct CUctx_st *next;
	CUdevice dev;
	unsigned int flags;
	bool alive;
	bool is_primary;
	CUresult error;
	struct CUstream_st *legacy;
	struct CUstream_st *per_thread;
	struct CUstream_st *streams;
};

/**
 * struct CUstream_st - a queue of work and the thread that does it
 * @next: in ctx->streams
 * @refs: held by its handle, its thread, and all who wait for it
 * @ctx: of this context
 * @flags: CU_STREAM_NON_BLOCKING: not ordered with the legacy stream
 * @priority: as asked for; nothing depends on it
 * @issued: number of the newest operation
 * @completed: all operations up to this number are done
 * @head: the next operation
 * @tail: where to append
 * @work: signalled when @head or @closing changes
 * @has_thread: the worker is started with the first queued operation
 * @closing: destroyed; the worker ends when the queue is empty
 */
struct CUstream_st {
	struct CUstream_st *next;
	unsigned int refs;
	struct CUctx_st *ctx;
	unsigned int flags;
	int priority;
	uint64_t issued;
	uint64_t completed;
	struct sim_op *head;
	struct sim_op **tail;
	pthread_cond_t work;
	bool has_thread;
	bool closing;
};

/**
 * struct CUevent_st - a point in a stream
 * @next: in the list of live ones
 * @refs: held by its handle and by operations that record or await it
 * @ctx: of this context
 * @flags: as created
 * @recorded: number of cuEventRecord() calls
 * @reached: the last of those whose work is done
 * @ns: when, by CLOCK_MONOTONIC
 */
struct CUevent_st {
	struct CUevent_st *next;
	unsigned int refs;
	struct CUctx_st *ctx;
	unsigned int flags;
	uint64_t recorded;
	uint64_t reached;
	uint64_t ns;
};

enum sim_op_kind {
	SIM_OP_NOP,
	SIM_OP_AWAIT,
	SIM_OP_COPY,
	SIM_OP_HOST_COPY,
	SIM_OP_MEMSET,
	SIM_OP_HOST_FN,
	SIM_OP_RECORD,
	SIM_OP_WAIT_VALUE,
	SIM_OP_WRITE_VALUE,
};

/**
 * struct sim_wait - work of another stream that must be done first
 * @stream: referenced
 * @ticket: number of the operation
 */
struct sim_wait {
	struct CUstream_st *stream;
	uint64_t ticket;
};

/**
 * struct sim_op - one operation in a stream
 * @next: in the queue
 * @ticket: its number in its stream
 * @kind: what to do
 * @copy: for SIM_OP_COPY and SIM_OP_HOST_COPY
 * @set: for SIM_OP_MEMSET
 * @fn: for SIM_OP_HOST_FN
 * @data: for @fn
 * @word: for SIM_OP_WAIT_VALUE and SIM_OP_WRITE_VALUE: in host memory
 * @value: for these
 * @wait_flags: CUstreamWaitValue_flags
 * @event: for SIM_OP_RECORD and SIM_OP_AWAIT, else NULL
 * @generation: of @event
 * @out_result: where a synchronous caller waits for the outcome, or NULL
 * @nr_waits: length of @waits
 * @waits: what must be done first
 */
struct sim_op {
	struct sim_op *next;
	uint64_t ticket;
	enum sim_op_kind kind;
	struct simgpu_copy copy;
	struct simgpu_memset set;
	CUhostFn fn;
	void *data;
	uint32_t *word;
	uint32_t value;
	unsigned int wait_flags;
	struct CUevent_st *event;
	uint64_t generation;
	CUresult *out_result;
	size_t nr_waits;
	struct sim_wait *waits;
};

enum sim_kind {
	SIM_DEVICE,		/* cuMemAlloc() */
	SIM_MAPPED,		/* cuMemMap() */
	SIM_HOST,		/* cuMemHostAlloc() */
	SIM_REGISTERED,		/* cuMemHostRegister() */
	SIM_RESERVED,		/* cuMemAddressReserve(); in a table of its own */
};

/**
 * struct sim_range - addresses that this library knows
 * @start: first byte
 * @len: as the caller asked for
 * @room: bytes of address space taken, from @start
 * @kind: what they are
 * @ctx: of this context; NULL for VMM and reservations
 * @dev: memory of this device; -1 for host memory
 * @id: CU_POINTER_ATTRIBUTE_BUFFER_ID
 * @flags: for host memory: as the caller gave them
 * @access: for device memory: CUmemAccess_flags
 * @sync_memops: CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
 * @handle: for SIM_MAPPED
 */
struct sim_range {
	uintptr_t start;
	size_t len;
	size_t room;
	enum sim_kind kind;
	struct CUctx_st *ctx;
	CUdevice dev;
	unsigned long long id;
	unsigned int flags;
	unsigned int access;
	bool sync_memops;
	struct sim_handle *handle;
};

/* Ranges sorted by address; none overlap. */
struct sim_table {
	struct sim_range **range;
	size_t nr;
	size_t room;
};

/* init.c */
extern pthread_mutex_t sim_lock;
extern struct sim_device sim_devices[SIM_MAX_DEVICES];
extern int sim_nr_devices;
extern _Thread_local bool sim_in_host_fn;
CUresult sim_enter(struct CUctx_st **ctx);
CUresult sim_enter_device(CUdevice dev);
CUresult sim_leave(CUresult result);
CUresult sim_error(int err);
int sim_ioctl(CUdevice dev, unsigned long request, void *arg);

/* context.c */
struct CUctx_st *sim_context_current(void);
bool sim_context_is_known(const struct CUctx_st *ctx);

/* stream.c */
extern pthread_cond_t sim_done;
struct CUstream_st *sim_stream_create(struct CUctx_st *ctx, unsigned int flags,
				      int priority);
CUresult sim_stream_find(struct CUctx_st *ctx, CUstream handle,
			 struct CUstream_st **stream);
CUresult sim_stream_submit(struct CUstream_st *stream, const struct sim_op *op,
			   bool wait);
void sim_stream_close(struct CUstream_st *stream);
void sim_context_drain(struct CUctx_st *ctx);

/* event.c */
void sim_event_put(struct CUevent_st *event);
void sim_event_reach(struct CUevent_st *event, uint64_t generation);
void sim_context_drop_events(struct CUctx_st *ctx);

/* work.c */
CUresult sim_work_run(struct sim_op *op, CUdevice dev);

/* range.c */
extern struct sim_table sim_ranges;
extern struct sim_table sim_reservations;
struct sim_range *sim_range_find(const struct sim_table *table, uintptr_t addr);
bool sim_range_overlaps(const struct sim_table *table, uintptr_t start,
			size_t len);
struct sim_range *sim_range_add(struct sim_table *table,
				const struct sim_range *range);
void sim_range_remove(struct sim_table *table, struct sim_range *range);
bool sim_range_is_device(const struct sim_range *range);
CUresult sim_device_span(uintptr_t addr, size_t len, unsigned int access,
			 struct sim_range **first);
void *sim_address_reserve(size_t len, size_t alignment, uintptr_t hint);

/* memory.c, host.c */
void sim_context_free_memory(struct CUctx_st *ctx);
void sim_range_free(struct sim_range *range);

#endif
