// SPDX-License-Identifier: MIT
/*
 * Streams. Each is a queue with a thread of its own, so that what a program
 * forgot to wait for has really not happened yet.
 *
 * The legacy stream (0) and the blocking streams of its context are ordered as
 * CUDA orders them: an operation of the legacy stream waits for all that was
 * queued before it in the blocking streams, and the other way round.
 */
#include <stdlib.h>
#include <time.h>

#include "sim.h"

#define LOOK_AGAIN_NS	200000

/* Whenever an operation is done. */
pthread_cond_t sim_done = PTHREAD_COND_INITIALIZER;

static void stream_put(struct CUstream_st *stream)
{
	if (--stream->refs)
		return;
	pthread_cond_destroy(&stream->work);
	free(stream);
}

struct CUstream_st *sim_stream_create(struct CUctx_st *ctx, unsigned int flags,
				      int priority)
{
	struct CUstream_st *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->refs = 1;
	stream->ctx = ctx;
	stream->flags = flags;
	stream->priority = priority;
	stream->tail = &stream->head;
	pthread_cond_init(&stream->work, NULL);
	stream->next = ctx->streams;
	ctx->streams = stream;
	return stream;
}

static bool stream_is_idle(const struct CUstream_st *stream)
{
	return stream->issued == stream->completed;
}

static void stream_unlink(struct CUstream_st *stream)
{
	struct CUstream_st **link = &stream->ctx->streams;

	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	stream_put(stream);
}

/**
 * sim_stream_close() - no more work for a stream
 * @stream: leaves its context when it is idle, which may be now
 */
void sim_stream_close(struct CUstream_st *stream)
{
	stream->closing = true;
	pthread_cond_signal(&stream->work);
	if (stream_is_idle(stream))
		stream_unlink(stream);
}

/**
 * sim_stream_find() - a handle's stream
 * @ctx: current
 * @handle: the caller's
 * @stream: where to put it
 */
CUresult sim_stream_find(struct CUctx_st *ctx, CUstream handle,
			 struct CUstream_st **stream)
{
	struct CUstream_st *known;

	if (!handle || handle == CU_STREAM_LEGACY) {
		*stream = ctx->legacy;
		return CUDA_SUCCESS;
	}
	if (handle == CU_STREAM_PER_THREAD) {
		*stream = ctx->per_thread;
		return CUDA_SUCCESS;
	}
	for (known = ctx->streams; known; known = known->next) {
		if (known != handle || known->closing)
			continue;
		*stream = known;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_INVALID_HANDLE;
}

/* Is what is queued in @other to be done before what comes next in @stream? */
static bool stream_follows(const struct CUstream_st *stream,
			   const struct CUstream_st *other)
{
	const struct CUstream_st *legacy = stream->ctx->legacy;

	if (stream == other || stream_is_idle(other) ||
	    (stream->flags | other->flags) & CU_STREAM_NON_BLOCKING)
		return false;
	return stream == legacy || other == legacy;
}

static CUresult op_add_waits(struct sim_op *op, struct CUstream_st *stream)
{
	struct CUstream_st *other;
	struct sim_wait *wait;
	size_t nr = 0;

	for (other = stream->ctx->streams; other; other = other->next)
		nr += stream_follows(stream, other);
	if (!nr)
		return CUDA_SUCCESS;
	op->waits = calloc(nr, sizeof(*op->waits));
	if (!op->waits)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (other = stream->ctx->streams; other; other = other->next) {
		if (!stream_follows(stream, other))
			continue;
		wait = &op->waits[op->nr_waits++];
		wait->stream = other;
		wait->ticket = other->issued;
		other->refs++;
	}
	return CUDA_SUCCESS;
}

static void op_free(struct sim_op *op)
{
	size_t i;

	if (op->event)
		sim_event_put(op->event);
	for (i = 0; i < op->nr_waits; i++)
		stream_put(op->waits[i].stream);
	free(op->waits);
	free(op);
}

static struct sim_op *op_create(const struct sim_op *template,
				struct CUstream_st *stream)
{
	struct sim_op *op = malloc(sizeof(*op));

	if (!op)
		return NULL;
	*op = *template;
	if (op->event)
		op->event->refs++;
	if (op_add_waits(op, stream)) {
		op_free(op);
		return NULL;
	}
	op->ticket = stream->issued + 1;
	return op;
}

static bool value_is_there(const struct sim_op *op)
{
	uint32_t now = __atomic_load_n(op->word, __ATOMIC_SEQ_CST);

	switch (op->wait_flags) {
	case CU_STREAM_WAIT_VALUE_EQ:
		return now == op->value;
	case CU_STREAM_WAIT_VALUE_AND:
		return now & op->value;
	default:
		/* Numbers that go round, as the manual has it. */
		return (int32_t)(now - op->value) >= 0;
	}
}

static bool op_is_ready(const struct sim_op *op,
			const struct CUstream_st *stream)
{
	size_t i;

	if (stream->completed + 1 != op->ticket)
		return false;
	for (i = 0; i < op->nr_waits; i++)
		if (op->waits[i].stream->completed < op->waits[i].ticket)
			return false;
	if (op->kind == SIM_OP_WAIT_VALUE)
		return value_is_there(op);
	return op->kind != SIM_OP_AWAIT || op->event->reached >= op->generation;
}

/* Nobody tells when a word changes: the GPU looks again and again. */
static void await_change(const struct sim_op *op)
{
	struct timespec at;

	if (op->kind != SIM_OP_WAIT_VALUE) {
		pthread_cond_wait(&sim_done, &sim_lock);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_nsec += LOOK_AGAIN_NS;
	at.tv_sec += at.tv_nsec / 1000000000;
	at.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&sim_done, &sim_lock, &at);
}

/* Whoever waits synchronously gets the result; else it is the context's. */
static void op_run(struct sim_op *op, struct CUstream_st *stream)
{
	CUresult result = CUDA_SUCCESS;

	/* "The function will not be called in the event of an error." */
	if (op->kind != SIM_OP_HOST_FN || !stream->ctx->error) {
		pthread_mutex_unlock(&sim_lock);
		result = sim_work_run(op, stream->ctx->dev);
		pthread_mutex_lock(&sim_lock);
	}
	if (op->kind == SIM_OP_RECORD)
		sim_event_reach(op->event, op->generation);
	if (op->out_result)
		*op->out_result = result;
	else if (result && !stream->ctx->error)
		stream->ctx->error = result;
	stream->completed = op->ticket;
	pthread_cond_broadcast(&sim_done);
	op_free(op);
	if (stream->closing && stream_is_idle(stream))
		stream_unlink(stream);
}

static void *stream_thread(void *data)
{
	struct CUstream_st *stream = data;
	struct sim_op *op;

	pthread_mutex_lock(&sim_lock);
	while (stream->head || !stream->closing) {
		op = stream->head;
		if (!op) {
			pthread_cond_wait(&stream->work, &sim_lock);
			continue;
		}
		while (!op_is_ready(op, stream))
			await_change(op);
		stream->head = op->next;
		if (!stream->head)
			stream->tail = &stream->head;
		op_run(op, stream);
	}
	stream_put(stream);
	pthread_mutex_unlock(&sim_lock);
	return NULL;
}

static CUresult stream_start(struct CUstream_st *stream)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	if (stream->has_thread)
		return CUDA_SUCCESS;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&thread, &attr, stream_thread, stream);
	pthread_attr_destroy(&attr);
	if (err)
		return CUDA_ERROR_OUT_OF_MEMORY;
	stream->has_thread = true;
	stream->refs++;
	return CUDA_SUCCESS;
}

/**
 * sim_stream_submit() - one more operation
 * @stream: where
 * @template: what; its event, if any, gets one more reference
 * @wait: return when it is done, with its result
 *
 * What need not wait for anything, and is not to be seen unfinished, is done at
 * once in this thread.
 */
CUresult sim_stream_submit(struct CUstream_st *stream,
			   const struct sim_op *template, bool wait)
{
	struct sim_op *op = op_create(template, stream);
	CUresult outcome = CUDA_SUCCESS;
	uint64_t ticket;
	bool here;

	if (!op)
		return CUDA_ERROR_OUT_OF_MEMORY;
	here = op_is_ready(op, stream) &&
	       (wait || op->kind == SIM_OP_RECORD || op->kind == SIM_OP_AWAIT ||
		op->kind == SIM_OP_WAIT_VALUE);
	if (!here && stream_start(stream)) {
		op_free(op);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	ticket = ++stream->issued;
	if (wait)
		op->out_result = &outcome;
	if (here) {
		op_run(op, stream);
		return outcome;
	}
	*stream->tail = op;
	stream->tail = &op->next;
	pthread_cond_signal(&stream->work);
	if (!wait)
		return CUDA_SUCCESS;
	stream->refs++;
	while (stream->completed < ticket)
		pthread_cond_wait(&sim_done, &sim_lock);
	stream_put(stream);
	return outcome;
}

/* All streams, and what is added meanwhile. */
void sim_context_drain(struct CUctx_st *ctx)
{
	struct CUstream_st *stream = ctx->streams;

	while (stream) {
		if (stream_is_idle(stream)) {
			stream = stream->next;
			continue;
		}
		pthread_cond_wait(&sim_done, &sim_lock);
		stream = ctx->streams;
	}
}

CUresult cuStreamCreateWithPriority(CUstream *out, unsigned int flags,
				    int priority)
{
	struct CUstream_st *stream;
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!out || flags & ~CU_STREAM_NON_BLOCKING)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (priority > 0)
		priority = 0;
	if (priority < SIM_GREATEST_PRIORITY)
		priority = SIM_GREATEST_PRIORITY;
	stream = sim_stream_create(ctx, flags, priority);
	if (!stream)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	*out = stream;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuStreamCreate(CUstream *out, unsigned int flags)
{
	return cuStreamCreateWithPriority(out, flags, 0);
}

static CUresult stream_enter(CUstream handle, struct CUstream_st **stream)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	result = sim_stream_find(ctx, handle, stream);
	if (result)
		sim_leave(result);
	return result;
}

CUresult cuStreamDestroy_v2(CUstream handle)
{
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);

	if (result)
		return result;
	if (stream == stream->ctx->legacy || stream == stream->ctx->per_thread)
		return sim_leave(CUDA_ERROR_INVALID_HANDLE);
	sim_stream_close(stream);
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuStreamSynchronize(CUstream handle)
{
	const struct sim_op nop = { .kind = SIM_OP_NOP };
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);
	struct CUctx_st *ctx;

	if (result)
		return result;
	ctx = stream->ctx;
	result = sim_stream_submit(stream, &nop, true);
	return sim_leave(result ? result : ctx->error);
}

CUresult cuStreamQuery(CUstream handle)
{
	struct CUstream_st *stream, *other;
	CUresult result = stream_enter(handle, &stream);
	bool busy;

	if (result)
		return result;
	busy = !stream_is_idle(stream);
	if (stream == stream->ctx->legacy)
		for (other = stream->ctx->streams; other; other = other->next)
			busy = busy || stream_follows(stream, other);
	return sim_leave(busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *ctx)
{
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);

	if (result)
		return result;
	if (!ctx)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*ctx = stream->ctx;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuStreamGetFlags(CUstream handle, unsigned int *flags)
{
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);

	if (result)
		return result;
	if (!flags)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*flags = stream->flags;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuStreamGetPriority(CUstream handle, int *priority)
{
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);

	if (result)
		return result;
	if (!priority)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*priority = stream->priority;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn fn, void *data)
{
	struct sim_op op = { .kind = SIM_OP_HOST_FN, .fn = fn, .data = data };
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);

	if (result)
		return result;
	if (!fn)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	return sim_leave(sim_stream_submit(stream, &op, false));
}

/*
 * A word in host memory that the device can address. In device memory it is not
 * simulated, nor are a flush of remote writes and NOR, for which a device has
 * attributes that this one lacks.
 */
static CUresult value_submit(CUstream handle, CUdeviceptr addr,
			     struct sim_op *op)
{
	struct CUstream_st *stream;
	CUresult result = stream_enter(handle, &stream);
	struct sim_range *range;

	if (result)
		return result;
	range = sim_range_find(&sim_ranges, addr);
	if (addr % sizeof(uint32_t) || !range)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	if (sim_range_is_device(range))
		return sim_leave(CUDA_ERROR_NOT_SUPPORTED);
	op->word = (uint32_t *)(uintptr_t)addr;
	return sim_leave(sim_stream_submit(stream, op, false));
}

CUresult cuStreamWaitValue32_v2(CUstream handle, CUdeviceptr addr,
				cuuint32_t value, unsigned int flags)
{
	struct sim_op op = {
		.kind = SIM_OP_WAIT_VALUE,
		.value = value,
		.wait_flags = flags,
	};

	if (flags & ~(CU_STREAM_WAIT_VALUE_NOR | CU_STREAM_WAIT_VALUE_FLUSH))
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & CU_STREAM_WAIT_VALUE_FLUSH ||
	    flags == CU_STREAM_WAIT_VALUE_NOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	return value_submit(handle, addr, &op);
}

CUresult cuStreamWriteValue32_v2(CUstream handle, CUdeviceptr addr,
				 cuuint32_t value, unsigned int flags)
{
	struct sim_op op = { .kind = SIM_OP_WRITE_VALUE, .value = value };

	if (flags & ~CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER)
		return CUDA_ERROR_INVALID_VALUE;
	return value_submit(handle, addr, &op);
}
