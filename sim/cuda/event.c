// SPDX-License-Identifier: MIT
/* Events: points in a stream. */
#include <stdlib.h>
#include <time.h>

#include "sim.h"

#define EVENT_FLAGS	(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING)

static struct CUevent_st *events;

static struct CUevent_st *event_find(CUevent handle)
{
	struct CUevent_st *event;

	for (event = events; event; event = event->next)
		if (event == handle)
			return event;
	return NULL;
}

static void event_unlink(struct CUevent_st *event)
{
	struct CUevent_st **link = &events;

	while (*link != event)
		link = &(*link)->next;
	*link = event->next;
	sim_event_put(event);
}

void sim_event_put(struct CUevent_st *event)
{
	if (!--event->refs)
		free(event);
}

/* A later record may have been reached first, in another stream. */
void sim_event_reach(struct CUevent_st *event, uint64_t generation)
{
	struct timespec now;

	if (generation <= event->reached)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	event->ns = now.tv_sec * 1000000000ull + now.tv_nsec;
	event->reached = generation;
}

void sim_context_drop_events(struct CUctx_st *ctx)
{
	struct CUevent_st *event, *next;

	for (event = events; event; event = next) {
		next = event->next;
		if (event->ctx == ctx)
			event_unlink(event);
	}
}

CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
	struct CUevent_st *event;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!out || flags & ~EVENT_FLAGS)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	event = calloc(1, sizeof(*event));
	if (!event)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	event->refs = 1;
	event->ctx = ctx;
	event->flags = flags;
	event->next = events;
	events = event;
	*out = event;
	return sim_leave(CUDA_SUCCESS);
}

static CUresult event_enter(CUevent handle, struct CUctx_st **ctx)
{
	CUresult result = sim_enter(ctx);

	if (!result && !event_find(handle))
		return sim_leave(CUDA_ERROR_INVALID_HANDLE);
	return result;
}

CUresult cuEventDestroy_v2(CUevent event)
{
	struct CUctx_st *ctx;
	CUresult result = event_enter(event, &ctx);

	if (result)
		return result;
	event_unlink(event);
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuEventRecord(CUevent event, CUstream handle)
{
	struct CUstream_st *stream;
	struct CUctx_st *ctx;
	CUresult result = event_enter(event, &ctx);
	struct sim_op op = { .kind = SIM_OP_RECORD, .event = event };

	if (result)
		return result;
	result = sim_stream_find(ctx, handle, &stream);
	if (!result && event->ctx != ctx)
		result = CUDA_ERROR_INVALID_HANDLE;
	if (result)
		return sim_leave(result);
	op.generation = ++event->recorded;
	return sim_leave(sim_stream_submit(stream, &op, false));
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int flags)
{
	struct CUstream_st *stream;
	struct CUctx_st *ctx;
	CUresult result = event_enter(event, &ctx);
	struct sim_op op = { .kind = SIM_OP_AWAIT, .event = event };

	if (result)
		return result;
	if (flags)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = sim_stream_find(ctx, handle, &stream);
	if (result)
		return sim_leave(result);
	op.generation = event->recorded;
	return sim_leave(sim_stream_submit(stream, &op, false));
}

CUresult cuEventQuery(CUevent event)
{
	struct CUctx_st *ctx;
	CUresult result = event_enter(event, &ctx);

	if (result)
		return result;
	return sim_leave(event->reached < event->recorded ?
			 CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

CUresult cuEventSynchronize(CUevent event)
{
	struct CUctx_st *ctx;
	CUresult result = event_enter(event, &ctx);
	uint64_t generation;

	if (result)
		return result;
	generation = event->recorded;
	event->refs++;
	while (event->reached < generation)
		pthread_cond_wait(&sim_done, &sim_lock);
	sim_event_put(event);
	return sim_leave(ctx->error);
}

CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
	struct CUctx_st *ctx;
	CUresult result = event_enter(start, &ctx);

	if (result)
		return result;
	if (!ms)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (!event_find(end) || !start->recorded || !end->recorded ||
	    (start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
		return sim_leave(CUDA_ERROR_INVALID_HANDLE);
	if (start->reached < start->recorded || end->reached < end->recorded)
		return sim_leave(CUDA_ERROR_NOT_READY);
	*ms = (int64_t)(end->ns - start->ns) / 1e6f;
	return sim_leave(CUDA_SUCCESS);
}

/*
 * Device and CPU see the same memory here, so nothing is ever in between: the
 * checks are all there is.
 */
CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
				    CUflushGPUDirectRDMAWritesScope scope)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (target != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX ||
	    (scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER &&
	     scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES))
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	__sync_synchronize();
	return sim_leave(CUDA_SUCCESS);
}
