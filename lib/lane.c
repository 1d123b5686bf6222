// SPDX-License-Identifier: MIT
/*
 * A lane is what one call needs to keep a GPU's copy engine busy: a stream of its
 * own, so that it waits for nobody's kernels and nobody waits for it, events that
 * tell how far the copies have come, and pinned memory for a small request. Made
 * once, kept for the next call.
 */
#include <stdlib.h>
#include <time.h>

#include "internal.h"

#define WRITE_DEFAULT		0
#define FLAG_LEN		64
/* A sleep ends up to so much late, in nanoseconds. */
#define SLEEP_ERROR		120000
/* What is waited for awake is done long before, unless the GPU is behind. */
#define SOON_NS			(2 * SLEEP_ERROR)

/* Without it small requests go as large ones do. */
static void fill_small(const struct peerdma_cuda *cuda,
		       struct peerdma_lane *lane)
{
	void *addr;

	if (cuda->cuMemAllocHost(&addr, PEERDMA_SMALL_LEN + FLAG_LEN))
		return;
	lane->small = addr;
	lane->flag = (void *)(lane->small + PEERDMA_SMALL_LEN);
	atomic_init(lane->flag, lane->flag_value);
}

static int lane_fill(const struct peerdma_cuda *cuda, struct peerdma_lane *lane)
{
	unsigned int i;
	int result;

	result = cuda->cuStreamCreate(&lane->stream,
				      PEERDMA_STREAM_NON_BLOCKING);
	if (!result)
		fill_small(cuda, lane);
	for (i = 0; !result && i < PEERDMA_LANE_EVENTS; i++)
		result = cuda->cuEventCreate(&lane->events[i],
					     PEERDMA_EVENT_DISABLE_TIMING);
	return result;
}

static void lane_empty(const struct peerdma_cuda *cuda,
		       struct peerdma_lane *lane)
{
	unsigned int i;

	for (i = 0; i < PEERDMA_LANE_EVENTS; i++)
		if (lane->events[i])
			cuda->cuEventDestroy(lane->events[i]);
	if (lane->small)
		cuda->cuMemFreeHost(lane->small);
	if (lane->stream)
		cuda->cuStreamDestroy(lane->stream);
}

static struct peerdma_lane *take_idle(struct peerdma *ctx,
				      peerdma_cuda_context context)
{
	struct peerdma_lane **link, *lane;

	pthread_mutex_lock(&ctx->lock);
	for (link = &ctx->lanes; (lane = *link); link = &lane->next)
		if (lane->context == context)
			break;
	if (lane)
		*link = lane->next;
	pthread_mutex_unlock(&ctx->lock);
	return lane;
}

/**
 * peerdma_lane_get() - take a lane, and make its CUDA context current
 * @ctx: the context
 * @context: of the memory to copy
 * @out: to be given back on the same thread
 *
 * Return: 0 or a negative errno.
 */
int peerdma_lane_get(struct peerdma *ctx, peerdma_cuda_context context,
		     struct peerdma_lane **out)
{
	const struct peerdma_cuda *cuda = &ctx->cuda;
	struct peerdma_lane *lane;
	int err, mode, result = 0;

	err = peerdma_cuda_enter(cuda, context, &mode);
	if (err)
		return err;
	lane = take_idle(ctx, context);
	if (!lane) {
		lane = calloc(1, sizeof(*lane));
		result = lane ? lane_fill(cuda, lane) : PEERDMA_CUDA_NO_MEMORY;
	}
	if (result) {
		if (lane)
			lane_empty(cuda, lane);
		free(lane);
		peerdma_cuda_leave(cuda, mode);
		return peerdma_cuda_errno(result);
	}
	lane->context = context;
	lane->mode = mode;
	lane->head = lane->tail = 0;
	atomic_fetch_add(&ctx->busy_lanes, 1);
	*out = lane;
	return 0;
}

/**
 * peerdma_lane_put() - give a lane back
 * @ctx: the context
 * @lane: nothing of it is under way
 */
void peerdma_lane_put(struct peerdma *ctx, struct peerdma_lane *lane)
{
	peerdma_cuda_leave(&ctx->cuda, lane->mode);
	atomic_fetch_sub(&ctx->busy_lanes, 1);
	pthread_mutex_lock(&ctx->lock);
	lane->next = ctx->lanes;
	ctx->lanes = lane;
	pthread_mutex_unlock(&ctx->lock);
}

/**
 * peerdma_lane_drain() - free all
 * @ctx: a context that nobody uses any more
 */
void peerdma_lane_drain(struct peerdma *ctx)
{
	struct peerdma_lane *lane;
	int mode;

	while ((lane = ctx->lanes)) {
		ctx->lanes = lane->next;
		/* The program may have ended its CUDA context, and them with it. */
		if (!peerdma_cuda_enter(&ctx->cuda, lane->context, &mode)) {
			lane_empty(&ctx->cuda, lane);
			peerdma_cuda_leave(&ctx->cuda, mode);
		}
		free(lane);
	}
}

/**
 * peerdma_lane_copy() - start a copy between pinned memory and the GPU
 * @ctx: the context
 * @lane: of the memory's CUDA context
 * @device: address on the GPU
 * @host: address in host memory
 * @len: bytes
 * @out: from the GPU, else to it
 *
 * Return: 0 or a negative errno.
 */
int peerdma_lane_copy(struct peerdma *ctx, struct peerdma_lane *lane,
		      uint64_t device, void *host, size_t len, bool out)
{
	int result;

	if (out)
		result = ctx->cuda.cuMemcpyDtoHAsync(host, device, len,
						     lane->stream);
	else
		result = ctx->cuda.cuMemcpyHtoDAsync(device, host, len,
						     lane->stream);
	return peerdma_cuda_errno(result);
}

/* Return: false: not this way, none was started. */
static bool copy_batch(struct peerdma *ctx, struct peerdma_lane *lane,
		       struct peerdma_copies *copies)
{
	struct peerdma_cuda_copy_hint hint = {
		.order = PEERDMA_COPY_ORDER_STREAM,
	};
	size_t start = 0, failed;

	return copies->nr > 1 && ctx->cuda.cuMemcpyBatchAsync &&
	       !ctx->cuda.cuMemcpyBatchAsync(copies->to, copies->from,
					     copies->len, copies->nr, &hint,
					     &start, 1, &failed, lane->stream);
}

/**
 * peerdma_lane_copies() - start many copies to the GPU
 * @ctx: the context
 * @lane: of the memory's CUDA context
 * @copies: none afterwards
 *
 * All at once takes CUDA's lock once, and two thirds of the time.
 *
 * Return: 0 or a negative errno.
 */
int peerdma_lane_copies(struct peerdma *ctx, struct peerdma_lane *lane,
			struct peerdma_copies *copies)
{
	unsigned int i, nr = copies->nr;
	int err = 0;

	if (copy_batch(ctx, lane, copies))
		nr = 0;
	for (i = 0; i < nr && !err; i++)
		err = peerdma_lane_copy(ctx, lane, copies->to[i],
					(void *)(uintptr_t)copies->from[i],
					copies->len[i], false);
	copies->nr = 0;
	return err;
}

/**
 * peerdma_lane_mark() - note how far the copies will have come
 * @ctx: the context
 * @lane: with fewer than PEERDMA_LANE_EVENTS marks
 * @value: what peerdma_lane_passed() answers once they have
 *
 * Return: 0 or a negative errno.
 */
int peerdma_lane_mark(struct peerdma *ctx, struct peerdma_lane *lane,
		      uint64_t value)
{
	unsigned int i = lane->head % PEERDMA_LANE_EVENTS;
	int result = ctx->cuda.cuEventRecord(lane->events[i], lane->stream);

	if (result)
		return peerdma_cuda_errno(result);
	lane->values[i] = value;
	lane->head++;
	return 0;
}

/**
 * peerdma_lane_passed() - the oldest mark, once the copies have come that far
 * @ctx: the context
 * @lane: with a mark
 * @wait: until they have
 * @out_value: of the mark, which is forgotten
 *
 * Return: 1; 0: not yet; a negative errno.
 */
int peerdma_lane_passed(struct peerdma *ctx, struct peerdma_lane *lane,
			bool wait, uint64_t *out_value)
{
	unsigned int i = lane->tail % PEERDMA_LANE_EVENTS;
	int result;

	if (wait)
		result = ctx->cuda.cuEventSynchronize(lane->events[i]);
	else
		result = ctx->cuda.cuEventQuery(lane->events[i]);
	if (result == PEERDMA_CUDA_NOT_READY)
		return 0;
	if (result)
		return peerdma_cuda_errno(result);
	*out_value = lane->values[i];
	lane->tail++;
	return 1;
}

/*
 * The fastest copy so far says how long this one takes at least: so long nobody
 * need wait awake.
 */
static void sleep_through(struct peerdma *ctx, size_t len, uint64_t since)
{
	uint64_t rate = atomic_load(&ctx->link_rate), ns, passed;
	struct timespec time;

	if (!rate)
		return;
	ns = len / rate * 1000;
	passed = peerdma_nanoseconds() - since;
	if (ns < passed + 2 * SLEEP_ERROR)
		return;
	ns -= passed + SLEEP_ERROR;
	time.tv_sec = ns / 1000000000;
	time.tv_nsec = ns % 1000000000;
	nanosleep(&time, NULL);
}

static void note_rate(struct peerdma *ctx, size_t len, uint64_t ns)
{
	uint64_t rate = ns ? len * UINT64_C(1000) / ns : 0;

	if (rate > atomic_load(&ctx->link_rate))
		atomic_store(&ctx->link_rate, rate);
}

/**
 * peerdma_lane_sign() - have the GPU write a word behind the copies so far
 * @ctx: the context
 * @lane: to be finished next; nothing is started in it before
 *
 * The CPU watches the word, which is sooner than what CUDA's own waiting takes. But
 * it is one call more into CUDA, whose lock is for all of the process, so it is for
 * a call that is alone. Where it cannot be had, CUDA waits.
 */
void peerdma_lane_sign(struct peerdma *ctx, struct peerdma_lane *lane)
{
	const struct peerdma_cuda *cuda = &ctx->cuda;

	if (!lane->flag || !cuda->cuStreamWriteValue32 ||
	    atomic_load(&ctx->busy_lanes) > 1 ||
	    cuda->cuStreamWriteValue32(lane->stream, (uintptr_t)lane->flag,
				       lane->flag_value + 1, WRITE_DEFAULT))
		return;
	lane->flag_value++;
	lane->is_signed = true;
}

/* Return: false: the word is not there, or none was asked for. */
static bool word_came(const struct peerdma_lane *lane)
{
	struct peerdma_spin spin;

	if (!lane->is_signed)
		return false;
	peerdma_spin_start(&spin, SOON_NS);
	/* What the GPU wrote before the word is there with it. */
	while (atomic_load_explicit(lane->flag, memory_order_acquire) !=
	       lane->flag_value)
		if (!peerdma_spin_on(&spin))
			return false;
	return true;
}

/**
 * peerdma_lane_finish() - wait for all copies of a lane
 * @ctx: the context
 * @lane: the lane
 *
 * Return: 0 or a negative errno.
 */
int peerdma_lane_finish(struct peerdma *ctx, struct peerdma_lane *lane)
{
	int result = 0;

	lane->tail = lane->head;
	if (!word_came(lane))
		result = ctx->cuda.cuStreamSynchronize(lane->stream);
	lane->is_signed = false;
	return peerdma_cuda_errno(result);
}

/**
 * peerdma_lane_finish_large() - the same, asleep for most of it
 * @ctx: the context
 * @lane: the lane
 * @len: bytes, which are all that it has to copy
 * @since: before they were given to it, in nanoseconds; or later an interruption
 *	would make the link look faster than it is
 *
 * Return: 0 or a negative errno.
 */
int peerdma_lane_finish_large(struct peerdma *ctx, struct peerdma_lane *lane,
			      size_t len, uint64_t since)
{
	int err;

	sleep_through(ctx, len, since);
	err = peerdma_lane_finish(ctx, lane);
	if (!err)
		note_rate(ctx, len, peerdma_nanoseconds() - since);
	return err;
}
