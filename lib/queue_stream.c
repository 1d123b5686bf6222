// SPDX-License-Identifier: MIT
/*
 * Requests in the order of a CUDA stream. Three things are put into the stream:
 * a host function, which lets the request begin; a wait until it is done; an
 * event, by which it can be told later that the stream is past both.
 *
 * The wait is one for a word in pinned memory, which costs nobody a thread.
 * Where the driver has none it is a host function that sleeps; that is not what
 * CUDA's manual likes, as it may hold up the host functions of other streams,
 * but these then wait for a file and no more.
 *
 * While a stream waits for us nothing may be done that waits for all streams,
 * as pinning memory does. So all of that is pinned before, for each CUDA context,
 * and the thread that keeps file ranges pinned waits until no stream does.
 *
 * A context in which a kernel has failed calls no host function any more. The
 * event tells, and the request ends with an error.
 */
#include <errno.h>
#include <stdlib.h>

#include "queue.h"

#define WAIT_VALUE_GEQ	0
/* More than the queue and a few callers use at a time. */
#define LANES		(2 * PEERDMA_QUEUE_THREADS)

static uint32_t *word_of(struct peerdma_queue *queue,
			 const struct peerdma_entry *entry)
{
	return &queue->words[entry - queue->entries];
}

static bool is_reached(const uint32_t *word, uint32_t ticket)
{
	return (int32_t)(__atomic_load_n(word, __ATOMIC_ACQUIRE) - ticket) >= 0;
}

/* ---- what streams call, where no call of CUDA's is allowed --------------- */

static void let_go(struct peerdma_entry *entry, int hold)
{
	if (atomic_fetch_and(&entry->holds, ~hold) == hold)
		peerdma_queue_pend(entry->queue, entry, false);
}

static void begin_request(void *arg)
{
	let_go(arg, PEERDMA_HOLD_STREAM);
}

struct sleeper {
	struct peerdma_queue *queue;
	const uint32_t *word;
	uint32_t ticket;
};

static void sleep_until_done(void *arg)
{
	struct sleeper *sleeper = arg;
	struct peerdma_queue *queue = sleeper->queue;

	pthread_mutex_lock(&queue->lock);
	while (!is_reached(sleeper->word, sleeper->ticket))
		pthread_cond_wait(&queue->released, &queue->lock);
	pthread_mutex_unlock(&queue->lock);
	free(sleeper);
}

/* ---- preparation --------------------------------------------------------- */

static void warm_lanes(struct peerdma *ctx, peerdma_cuda_context context)
{
	struct peerdma_lane *lanes[LANES];
	unsigned int nr;

	for (nr = 0; nr < LANES; nr++)
		if (peerdma_lane_get(ctx, context, &lanes[nr]))
			break;
	while (nr)
		peerdma_lane_put(ctx, lanes[--nr]);
}

/* Before the first stream of a CUDA context waits for this queue. */
static void warm(struct peerdma_queue *queue, peerdma_cuda_context context)
{
	unsigned int i;
	bool known;

	pthread_mutex_lock(&queue->lock);
	for (i = 0; i < queue->nr_warm && queue->warm[i] != context; i++)
		;
	known = i < queue->nr_warm;
	pthread_mutex_unlock(&queue->lock);
	if (known)
		return;
	warm_lanes(queue->ctx, context);
	peerdma_bounce_warm(queue->ctx);
	pthread_mutex_lock(&queue->lock);
	if (queue->nr_warm < PEERDMA_QUEUE_CONTEXTS)
		queue->warm[queue->nr_warm++] = context;
	pthread_mutex_unlock(&queue->lock);
}

static bool can_wait(const struct peerdma_cuda *cuda, uint32_t *word)
{
	peerdma_cuda_stream stream;
	int result;

	if (!cuda->cuStreamWaitValue32 ||
	    cuda->cuStreamCreate(&stream, PEERDMA_STREAM_NON_BLOCKING))
		return false;
	/* It is there already. */
	result = cuda->cuStreamWaitValue32(stream, (uintptr_t)word, 0,
					   WAIT_VALUE_GEQ);
	cuda->cuStreamDestroy(stream);
	return !result;
}

/* The first time; with unified addresses the GPU knows a word by the CPU's. */
static int make_words(struct peerdma_queue *queue)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	uint32_t *words;
	void *memory;
	unsigned int i;
	bool may_wait;
	int result;

	pthread_mutex_lock(&queue->lock);
	words = queue->words;
	pthread_mutex_unlock(&queue->lock);
	if (words)
		return 0;
	result = cuda->cuMemAllocHost(&memory, queue->depth * sizeof(*words));
	if (result)
		return peerdma_cuda_errno(result);
	words = memory;
	for (i = 0; i < queue->depth; i++)
		words[i] = queue->entries[i].ticket;
	may_wait = can_wait(cuda, words);
	pthread_mutex_lock(&queue->lock);
	if (!queue->words) {
		queue->may_wait = may_wait;
		queue->words = words;
		words = NULL;
	}
	pthread_mutex_unlock(&queue->lock);
	if (words)
		cuda->cuMemFreeHost(words);
	return 0;
}

static void set_event(struct peerdma_queue *queue, struct peerdma_entry *entry,
		      peerdma_cuda_event event, peerdma_cuda_context context)
{
	pthread_mutex_lock(&queue->events);
	entry->event = event;
	entry->event_context = context;
	pthread_mutex_unlock(&queue->events);
}

static void drop_event(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	peerdma_cuda_context context = entry->event_context;
	peerdma_cuda_event event = entry->event;
	int mode;

	if (!event)
		return;
	set_event(queue, entry, NULL, NULL);
	/* The program may have ended its CUDA context, and it with that. */
	if (peerdma_cuda_enter(cuda, context, &mode))
		return;
	cuda->cuEventSynchronize(event);
	cuda->cuEventDestroy(event);
	peerdma_cuda_leave(cuda, mode);
}

/* Word and event may serve again once the last stream is past them. */
static int make_event(struct peerdma_queue *queue, struct peerdma_entry *entry,
		      peerdma_cuda_context context)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	peerdma_cuda_event event;
	int err;

	if (entry->event && entry->event_context == context)
		return peerdma_cuda_errno(
			cuda->cuEventSynchronize(entry->event));
	drop_event(queue, entry);
	err = peerdma_cuda_errno(cuda->cuEventCreate(
		&event, PEERDMA_EVENT_DISABLE_TIMING));
	if (!err)
		set_event(queue, entry, event, context);
	return err;
}

/* ---- arming -------------------------------------------------------------- */

static int put_wait(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	peerdma_cuda_stream stream = entry->request.stream;
	uint32_t *word = word_of(queue, entry);
	struct sleeper *sleeper;
	int result;

	if (queue->may_wait)
		return peerdma_cuda_errno(cuda->cuStreamWaitValue32(
			stream, (uintptr_t)word, entry->ticket,
			WAIT_VALUE_GEQ));
	sleeper = malloc(sizeof(*sleeper));
	if (!sleeper)
		return -ENOMEM;
	*sleeper = (struct sleeper){ queue, word, entry->ticket };
	result = cuda->cuLaunchHostFunc(stream, sleep_until_done, sleeper);
	if (result)
		free(sleeper);
	return peerdma_cuda_errno(result);
}

static int put_into_stream(struct peerdma_queue *queue,
			   struct peerdma_entry *entry)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	peerdma_cuda_stream stream = entry->request.stream;
	int err, result;

	entry->in_stream = true;
	entry->stream_err = 0;
	entry->ticket++;
	atomic_store(&entry->holds,
		     PEERDMA_HOLD_STREAM | PEERDMA_HOLD_ARMING);
	err = peerdma_cuda_errno(cuda->cuLaunchHostFunc(stream, begin_request,
							entry));
	if (err) {
		atomic_store(&entry->holds, 0);
		return err;
	}
	/* It cannot be called back: what fails now fails the request. */
	entry->stream_err = put_wait(queue, entry);
	result = cuda->cuEventRecord(entry->event, stream);
	if (!entry->stream_err)
		entry->stream_err = peerdma_cuda_errno(result);
	let_go(entry, PEERDMA_HOLD_ARMING);
	return 0;
}

/**
 * peerdma_queue_arm() - let a request begin when a stream comes to it
 * @queue: the queue
 * @entry: the request, in state ARMED, in nobody's list
 *
 * Context: without the queue's lock: CUDA may wait until a stream has room, and
 * the stream for a request of this queue.
 *
 * Return: 0; a negative errno: the stream knows nothing of it.
 */
int peerdma_queue_arm(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	peerdma_cuda_context context = entry->request.buf->pointer.context;
	int err, mode;

	err = peerdma_cuda_enter(cuda, context, &mode);
	if (err)
		return err;
	warm(queue, context);
	err = make_words(queue);
	if (!err)
		err = make_event(queue, entry, context);
	if (!err) {
		peerdma_streams_begin(queue->ctx);
		err = put_into_stream(queue, entry);
		if (err)
			peerdma_streams_end(queue->ctx);
	}
	peerdma_cuda_leave(cuda, mode);
	return err;
}

/**
 * peerdma_queue_release() - let a request's stream go on
 * @queue: the queue, its lock held
 * @entry: of which nothing is under way
 */
void peerdma_queue_release(struct peerdma_queue *queue,
			   struct peerdma_entry *entry)
{
	__atomic_store_n(word_of(queue, entry), entry->ticket,
			 __ATOMIC_RELEASE);
	pthread_cond_broadcast(&queue->released);
	peerdma_streams_end(queue->ctx);
}

static bool is_dead(const struct peerdma_cuda *cuda,
		    const struct peerdma_entry *entry)
{
	int mode, result;

	if (atomic_load(&entry->holds) != PEERDMA_HOLD_STREAM || !entry->event)
		return false;
	if (peerdma_cuda_enter(cuda, entry->event_context, &mode))
		return true;
	result = cuda->cuEventQuery(entry->event);
	peerdma_cuda_leave(cuda, mode);
	return result && result != PEERDMA_CUDA_NOT_READY;
}

/* Unless its stream came to it after all. */
static void end_dead(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	const struct peerdma_io_result result = { .error = -EIO };
	int hold = PEERDMA_HOLD_STREAM;

	if (!atomic_compare_exchange_strong(&entry->holds, &hold, 0))
		return;
	pthread_mutex_lock(&queue->lock);
	queue->nr_armed--;
	pthread_mutex_unlock(&queue->lock);
	peerdma_vector_fail(entry->request.vecs, entry->request.nr_vecs, -EIO);
	entry->completion.result = entry->completion.error = -EIO;
	peerdma_stats_add(queue->ctx, &result, false);
	entry->next = NULL;
	peerdma_queue_finish(queue, entry);
}

/**
 * peerdma_queue_sweep() - end requests whose streams will never come to them
 * @queue: the queue, its lock held, which is let go meanwhile
 *
 * Host functions take the queue's lock, and a call of CUDA's may wait for one of
 * them; so none is made with it held.
 */
void peerdma_queue_sweep(struct peerdma_queue *queue)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	unsigned int i;

	/* Somebody is at it already, or changes an event. */
	if (pthread_mutex_trylock(&queue->events))
		return;
	pthread_mutex_unlock(&queue->lock);
	for (i = 0; i < queue->depth; i++)
		if (is_dead(cuda, &queue->entries[i]))
			end_dead(queue, &queue->entries[i]);
	pthread_mutex_unlock(&queue->events);
	pthread_mutex_lock(&queue->lock);
}

/**
 * peerdma_queue_disarm() - wait until no stream knows of a queue
 * @queue: of which no request is under way
 */
void peerdma_queue_disarm(struct peerdma_queue *queue)
{
	const struct peerdma_cuda *cuda = &queue->ctx->cuda;
	peerdma_cuda_context context = NULL;
	unsigned int i;
	int mode;

	for (i = 0; i < queue->depth; i++) {
		if (queue->entries[i].event)
			context = queue->entries[i].event_context;
		drop_event(queue, &queue->entries[i]);
	}
	if (!queue->words || peerdma_cuda_enter(cuda, context, &mode))
		return;
	cuda->cuMemFreeHost(queue->words);
	peerdma_cuda_leave(cuda, mode);
}
