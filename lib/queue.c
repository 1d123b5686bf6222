// SPDX-License-Identifier: MIT
/*
 * A queue: requests go in, completions come out, each exactly once. A request
 * takes one of @depth entries until it is reaped, so that there is always room
 * for its completion.
 *
 * Its threads take requests in order (queue_work.c). What is whole blocks and
 * goes directly they give to the io_uring, where there is one (queue_ring.c);
 * everything else they move themselves, as peerdma_read() would. Small reads
 * are taken many at a time and gathered. Nothing of a request is done on the
 * caller's thread, so submitting never blocks on a file.
 *
 * The eventfd is readable as long as a completion can be reaped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue.h"

#define NOBODY	UINT32_MAX
/* How long a stream's death may go unnoticed, in nanoseconds. */
#define LOOK_NS	100000000

static void list_init(struct peerdma_entry_list *list)
{
	list->first = NULL;
	list->last = &list->first;
	list->nr = 0;
}

static void list_add(struct peerdma_entry_list *list,
		     struct peerdma_entry *entry)
{
	entry->next = NULL;
	*list->last = entry;
	list->last = &entry->next;
	list->nr++;
}

static struct peerdma_entry *list_take(struct peerdma_entry_list *list)
{
	struct peerdma_entry *entry = list->first;

	list->first = entry->next;
	if (!list->first)
		list->last = &list->first;
	list->nr--;
	return entry;
}

static void signal_event(struct peerdma_queue *queue)
{
	uint64_t one = 1;

	if (queue->event_fd >= 0 &&
	    write(queue->event_fd, &one, sizeof(one)) != sizeof(one))
		return;		/* full, so it is readable */
}

static void clear_event(struct peerdma_queue *queue)
{
	uint64_t count;

	if (queue->event_fd < 0)
		return;
	/* NOLINTNEXTLINE(*.BlockInCriticalSection): it is EFD_NONBLOCK */
	if (read(queue->event_fd, &count, sizeof(count)) != sizeof(count))
		return;		/* the caller has read it */
}

/**
 * peerdma_queue_add_done() - a request that has its completion
 * @queue: the queue, its lock held
 * @entry: in nobody's list
 */
void peerdma_queue_add_done(struct peerdma_queue *queue,
			    struct peerdma_entry *entry)
{
	if (entry->in_stream)
		peerdma_queue_release(queue, entry);
	entry->state = PEERDMA_ENTRY_DONE;
	list_add(&queue->done, entry);
	if (queue->done.nr == 1)
		signal_event(queue);
}

static void announce(struct peerdma_queue *queue)
{
	if (queue->done.nr >= queue->wake_at) {
		queue->wake_at = NOBODY;
		pthread_cond_broadcast(&queue->reapable);
	}
	if (queue->stop)
		pthread_cond_broadcast(&queue->room);
}

/**
 * peerdma_queue_finish() - requests that have their completions
 * @queue: the queue
 * @first: of a chain by @next
 */
void peerdma_queue_finish(struct peerdma_queue *queue,
			  struct peerdma_entry *first)
{
	struct peerdma_entry *next;

	pthread_mutex_lock(&queue->lock);
	for (; first; first = next) {
		next = first->next;
		peerdma_queue_add_done(queue, first);
	}
	announce(queue);
	pthread_mutex_unlock(&queue->lock);
}

static void wake_thread(struct peerdma_queue *queue)
{
	if (queue->nr_idle > queue->nr_called) {
		queue->nr_called++;
		pthread_cond_signal(&queue->work);
	} else if (queue->nr_threads < queue->threads_max) {
		peerdma_queue_start_thread(queue);
	}
}

/**
 * peerdma_queue_pend() - a request that a thread is to go on with
 * @queue: the queue
 * @entry: in nobody's list
 * @front: before the others, since it has begun
 */
void peerdma_queue_pend(struct peerdma_queue *queue,
			struct peerdma_entry *entry, bool front)
{
	struct peerdma_entry_list *list = &queue->pending;

	pthread_mutex_lock(&queue->lock);
	if (entry->state == PEERDMA_ENTRY_ARMED)
		queue->nr_armed--;
	entry->state = PEERDMA_ENTRY_PENDING;
	if (front && list->first) {
		entry->next = list->first;
		list->first = entry;
		list->nr++;
	} else {
		list_add(list, entry);
	}
	wake_thread(queue);
	pthread_mutex_unlock(&queue->lock);
}

/* ---- its life ------------------------------------------------------------ */

static void init_conditions(struct peerdma_queue *queue)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&queue->reapable, &attr);
	pthread_cond_init(&queue->work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_cond_init(&queue->room, NULL);
	pthread_cond_init(&queue->released, NULL);
}

static void free_queue(struct peerdma_queue *queue)
{
	if (queue->event_fd >= 0)
		close(queue->event_fd);
	free(queue->entries);
	peerdma_context_put(queue->ctx);
	free(queue);
}

static void init_entries(struct peerdma_queue *queue)
{
	unsigned int i;

	list_init(&queue->pending);
	list_init(&queue->done);
	for (i = queue->depth; i--;) {
		queue->entries[i].queue = queue;
		queue->entries[i].next = queue->free;
		queue->free = &queue->entries[i];
	}
	queue->nr_free = queue->depth;
}

/* With the lock held: what nobody has begun ends here. */
static void cancel_pending(struct peerdma_queue *queue, bool all,
			   uint64_t user_data)
{
	const struct peerdma_io_result cancelled = { .error = -ECANCELED };
	struct peerdma_entry_list kept;
	struct peerdma_entry *entry;

	list_init(&kept);
	while (queue->pending.nr) {
		entry = list_take(&queue->pending);
		/* What has begun has a file to close, on a thread. */
		if (entry->opened ||
		    (!all && entry->request.user_data != user_data)) {
			list_add(&kept, entry);
			continue;
		}
		peerdma_vector_fail(entry->request.vecs,
				    entry->request.nr_vecs, -ECANCELED);
		entry->completion.result = -ECANCELED;
		entry->completion.error = -ECANCELED;
		peerdma_stats_add(queue->ctx, &cancelled, false);
		peerdma_queue_add_done(queue, entry);
	}
	queue->pending = kept;
	if (!kept.nr)
		list_init(&queue->pending);
}

static unsigned int cancel(struct peerdma_queue *queue, bool all,
			   uint64_t user_data)
{
	struct peerdma_entry *entry;
	unsigned int i, nr = 0;

	for (i = 0; i < queue->depth; i++) {
		entry = &queue->entries[i];
		if (entry->state == PEERDMA_ENTRY_FREE ||
		    entry->state == PEERDMA_ENTRY_DONE ||
		    (!all && entry->request.user_data != user_data))
			continue;
		atomic_store(&entry->cancel, true);
		nr++;
	}
	cancel_pending(queue, all, user_data);
	announce(queue);
	return nr;
}

/* Return: false: no clock will ever say so. */
static bool deadline_of(const struct timespec *timeout, struct timespec *at)
{
	clock_gettime(CLOCK_MONOTONIC, at);
	at->tv_nsec += timeout->tv_nsec;
	at->tv_sec += at->tv_nsec / 1000000000;
	at->tv_nsec %= 1000000000;
	return !__builtin_add_overflow(at->tv_sec, timeout->tv_sec,
				       &at->tv_sec);
}

/**
 * peerdma_queue_look() - end requests whose streams have died, now and then
 * @queue: the queue, its lock held, which may be let go meanwhile
 *
 * Nobody is told that a stream has died, so the threads look, whatever the program
 * waits by.
 */
void peerdma_queue_look(struct peerdma_queue *queue)
{
	struct timespec time;
	uint64_t now;

	if (!queue->nr_armed)
		return;
	clock_gettime(CLOCK_MONOTONIC, &time);
	now = time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
	if (now < queue->next_look)
		return;
	queue->next_look = now + LOOK_NS;
	peerdma_queue_sweep(queue);
}

/**
 * peerdma_queue_await_work() - sleep until there may be something to do
 * @queue: the queue, its lock held, which is let go meanwhile
 */
void peerdma_queue_await_work(struct peerdma_queue *queue)
{
	const struct timespec look = { .tv_nsec = LOOK_NS };
	struct timespec at;

	if (!queue->nr_armed) {
		pthread_cond_wait(&queue->work, &queue->lock);
		return;
	}
	deadline_of(&look, &at);
	queue->nr_looking++;
	pthread_cond_timedwait(&queue->work, &queue->lock, &at);
	queue->nr_looking--;
}

static void stop_threads(struct peerdma_queue *queue)
{
	unsigned int i;

	pthread_mutex_lock(&queue->lock);
	queue->stop = true;
	cancel(queue, true, 0);
	while (queue->nr_free + queue->done.nr < queue->depth)
		pthread_cond_wait(&queue->room, &queue->lock);
	pthread_cond_broadcast(&queue->work);
	pthread_mutex_unlock(&queue->lock);
	for (i = 0; i < queue->nr_threads; i++)
		pthread_join(queue->threads[i], NULL);
}

/**
 * peerdma_queue_create() - make a queue
 * @ctx: the context; it may be closed first
 * @depth: requests that it can hold, 1 to PEERDMA_QUEUE_DEPTH_MAX
 * @opts: NULL: an io_uring where there may be one, as many threads as are of use
 * @out_queue: the queue
 *
 * Return: 0; -EINVAL: @depth; -EAGAIN: no thread can be started; another negative
 * errno.
 */
int peerdma_queue_create(struct peerdma *ctx, unsigned int depth,
			 const struct peerdma_queue_opts *opts,
			 struct peerdma_queue **out_queue)
{
	struct peerdma_queue_opts o;
	struct peerdma_queue *queue;
	int err;

	err = peerdma_sized_in(&o, sizeof(o), opts);
	if (err)
		return err;
	if (o.flags & ~PEERDMA_QUEUE_NO_URING)
		return -EOPNOTSUPP;
	if (!depth || depth > PEERDMA_QUEUE_DEPTH_MAX)
		return -EINVAL;
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return -ENOMEM;
	queue->ctx = peerdma_context_get(ctx);
	queue->pid = getpid();
	queue->depth = depth;
	queue->threads_max = PEERDMA_QUEUE_THREADS;
	if (o.threads && o.threads < queue->threads_max)
		queue->threads_max = o.threads;
	queue->wake_at = NOBODY;
	queue->event_fd = -1;
	queue->entries = calloc(depth, sizeof(*queue->entries));
	if (!queue->entries) {
		free_queue(queue);
		return -ENOMEM;
	}
	peerdma_spin_mutex(&queue->lock);
	pthread_mutex_init(&queue->events, NULL);
	init_conditions(queue);
	init_entries(queue);
	/* One at least, so that there is always somebody to do the work. */
	err = peerdma_queue_start_thread(queue);
	if (!err && !(o.flags & PEERDMA_QUEUE_NO_URING))
		err = peerdma_ring_create(queue);
	if (err) {
		peerdma_queue_destroy(queue);
		return err;
	}
	*out_queue = queue;
	return 0;
}

/**
 * peerdma_queue_destroy() - end a queue
 * @queue: the queue, or NULL
 *
 * Requests that nobody has begun are dropped, those in flight are waited for, and
 * no completion comes any more. Afterwards buffers, files and vectors are the
 * caller's again.
 */
void peerdma_queue_destroy(struct peerdma_queue *queue)
{
	if (!queue)
		return;
	/* A child after fork() has the memory, and none of the threads. */
	if (queue->pid == getpid()) {
		stop_threads(queue);
		peerdma_queue_disarm(queue);
	}
	peerdma_ring_destroy(queue);
	if (queue->pid == getpid()) {
		pthread_cond_destroy(&queue->released);
		pthread_cond_destroy(&queue->room);
		pthread_cond_destroy(&queue->work);
		pthread_cond_destroy(&queue->reapable);
		pthread_mutex_destroy(&queue->events);
		pthread_mutex_destroy(&queue->lock);
	}
	free_queue(queue);
}

/* ---- submit -------------------------------------------------------------- */

static int check_request(const struct peerdma_queue *queue,
			 const struct peerdma_io_request *request)
{
	bool in_stream = request->flags & PEERDMA_IO_STREAM;

	if (request->flags & ~(PEERDMA_IO_WRITE | PEERDMA_IO_STREAM) ||
	    request->path > PEERDMA_PATH_CACHE)
		return -EOPNOTSUPP;
	if (!request->buf || request->buf->ctx != queue->ctx)
		return -EINVAL;
	if (in_stream ? !request->buf->cuda : request->stream != NULL)
		return -EINVAL;
	if (in_stream && !queue->ctx->cuda.cuLaunchHostFunc)
		return -EOPNOTSUPP;
	if (!request->nr_vecs)
		return 0;
	if (!request->vecs || request->file_offset || request->buffer_offset ||
	    request->len)
		return -EINVAL;
	return 0;
}

static int take_request(const struct peerdma_queue *queue,
			struct peerdma_io_request *taken,
			const struct peerdma_io_request *requests,
			unsigned int i)
{
	const char *at = (const char *)requests + i * requests->size;
	size_t size;
	int err;

	/* An array has one size. */
	memcpy(&size, at, sizeof(size));
	if (size != requests->size)
		return -EINVAL;
	err = peerdma_sized_in(taken, sizeof(*taken), at);
	return err ? err : check_request(queue, taken);
}

/* With the lock held. */
static struct peerdma_entry *get_entry(struct peerdma_queue *queue, bool wait)
{
	struct peerdma_entry *entry;

	while (!queue->nr_free && wait)
		pthread_cond_wait(&queue->room, &queue->lock);
	entry = queue->free;
	if (!entry)
		return NULL;
	queue->free = entry->next;
	queue->nr_free--;
	atomic_store_explicit(&entry->cancel, false, memory_order_relaxed);
	entry->no_ring = false;
	entry->opened = false;
	entry->in_stream = false;
	memset(&entry->completion, 0, sizeof(entry->completion));
	return entry;
}

/* With the lock held, which is let go meanwhile: CUDA may wait for a stream. */
static int arm(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	int err;

	entry->gather = false;
	entry->state = PEERDMA_ENTRY_ARMED;
	queue->nr_armed++;
	if (!queue->nr_looking)
		pthread_cond_signal(&queue->work);
	pthread_mutex_unlock(&queue->lock);
	err = peerdma_queue_arm(queue, entry);
	pthread_mutex_lock(&queue->lock);
	if (!err)
		return 0;
	queue->nr_armed--;
	entry->state = PEERDMA_ENTRY_FREE;
	entry->next = queue->free;
	queue->free = entry;
	queue->nr_free++;
	pthread_cond_broadcast(&queue->room);
	return err;
}

static void put_pending(struct peerdma_queue *queue,
			struct peerdma_entry *entry, unsigned int nr_gathered)
{
	const struct peerdma_io_request *request = &entry->request;

	entry->gather = !request->nr_vecs &&
			peerdma_gather_wants(request->buf,
					     request->flags & PEERDMA_IO_WRITE,
					     request->len, request->path);
	entry->state = PEERDMA_ENTRY_PENDING;
	list_add(&queue->pending, entry);
	/* A thread takes many small ones; where there are more, two do. */
	if (!entry->gather || nr_gathered % PEERDMA_QUEUE_GATHER == 0)
		wake_thread(queue);
}

/**
 * peerdma_queue_submit() - put requests into a queue
 * @queue: the queue
 * @requests: an array of them
 * @nr: how many
 * @flags: PEERDMA_SUBMIT_WAIT
 *
 * Return: how many were taken, fewer than @nr when the queue is full or the next
 * one is wrong; when none was: -EAGAIN: the queue is full; -EINVAL, -E2BIG,
 * -EOPNOTSUPP: the request is wrong; -ECHILD: the queue is that of the parent
 * process. Everything else is told by completions.
 */
int peerdma_queue_submit(struct peerdma_queue *queue,
			 const struct peerdma_io_request *requests,
			 unsigned int nr, uint32_t flags)
{
	struct peerdma_io_request request;
	struct peerdma_entry *entry;
	unsigned int i, gathered = 0;
	int err = 0;

	if (flags & ~PEERDMA_SUBMIT_WAIT)
		return -EOPNOTSUPP;
	if (queue->pid != getpid())
		return -ECHILD;
	if (nr > INT32_MAX)
		return -EINVAL;
	pthread_mutex_lock(&queue->lock);
	for (i = 0; i < nr; i++) {
		err = take_request(queue, &request, requests, i);
		if (err)
			break;
		entry = get_entry(queue, flags & PEERDMA_SUBMIT_WAIT);
		err = entry ? 0 : -EAGAIN;
		if (err)
			break;
		entry->request = request;
		entry->completion.user_data = request.user_data;
		if (request.flags & PEERDMA_IO_STREAM) {
			err = arm(queue, entry);
			if (err)
				break;
			continue;
		}
		put_pending(queue, entry, gathered);
		gathered += entry->gather;
	}
	pthread_mutex_unlock(&queue->lock);
	return i ? (int)i : err;
}

/* ---- reap ---------------------------------------------------------------- */

/* With the lock held. */
static void await_done(struct peerdma_queue *queue, unsigned int min,
		       const struct timespec *timeout)
{
	struct timespec at;
	int err = 0;

	if (queue->done.nr >= min)
		return;
	if (timeout && !deadline_of(timeout, &at))
		timeout = NULL;
	while (queue->done.nr < min && !err) {
		if (min < queue->wake_at)
			queue->wake_at = min;
		if (timeout)
			err = pthread_cond_timedwait(&queue->reapable,
						     &queue->lock, &at);
		else
			err = pthread_cond_wait(&queue->reapable,
						&queue->lock);
	}
}

static unsigned int take_done(struct peerdma_queue *queue,
			      struct peerdma_completion *completions,
			      unsigned int max)
{
	struct peerdma_entry *entry;
	unsigned int nr;

	for (nr = 0; nr < max && queue->done.nr; nr++) {
		entry = list_take(&queue->done);
		completions[nr] = entry->completion;
		entry->state = PEERDMA_ENTRY_FREE;
		entry->next = queue->free;
		queue->free = entry;
	}
	queue->nr_free += nr;
	if (nr && !queue->done.nr)
		clear_event(queue);
	else if (nr)
		signal_event(queue);
	if (nr)
		pthread_cond_broadcast(&queue->room);
	return nr;
}

static bool is_time(const struct timespec *time)
{
	return time->tv_sec >= 0 && time->tv_nsec >= 0 &&
	       time->tv_nsec < 1000000000;
}

/**
 * peerdma_queue_reap() - take completions out of a queue
 * @queue: the queue
 * @completions: where to
 * @min: wait for so many; 0: do not wait
 * @max: take so many at most
 * @timeout: wait no longer than that; NULL: for ever
 *
 * Return: how many, fewer than @min only when the time is over; -EINVAL: @min is
 * above @max or the queue's depth, or @timeout is no time; -ECHILD: the queue is
 * that of the parent process.
 */
int peerdma_queue_reap(struct peerdma_queue *queue,
		       struct peerdma_completion *completions, unsigned int min,
		       unsigned int max, const struct timespec *timeout)
{
	unsigned int nr;

	if (min > max || min > queue->depth || max > INT32_MAX)
		return -EINVAL;
	if (timeout && !is_time(timeout))
		return -EINVAL;
	if (queue->pid != getpid())
		return -ECHILD;
	pthread_mutex_lock(&queue->lock);
	await_done(queue, min, timeout);
	nr = take_done(queue, completions, max);
	pthread_mutex_unlock(&queue->lock);
	return nr;
}

/**
 * peerdma_queue_cancel() - end requests early
 * @queue: the queue
 * @user_data: of the requests
 * @flags: PEERDMA_CANCEL_ALL: all of them
 *
 * Each is reaped all the same: what nobody has begun with -ECANCELED, what is
 * under way with the bytes that were moved by then, or whole: a drive cannot be
 * called back.
 *
 * Return: how many requests it was said to; -ENOENT: there is none that is not
 * done; -ECHILD: the queue is that of the parent process.
 */
int peerdma_queue_cancel(struct peerdma_queue *queue, uint64_t user_data,
			 uint32_t flags)
{
	unsigned int nr;

	if (flags & ~PEERDMA_CANCEL_ALL)
		return -EOPNOTSUPP;
	if (queue->pid != getpid())
		return -ECHILD;
	pthread_mutex_lock(&queue->lock);
	nr = cancel(queue, flags & PEERDMA_CANCEL_ALL, user_data);
	pthread_mutex_unlock(&queue->lock);
	return nr ? (int)nr : -ENOENT;
}

/**
 * peerdma_queue_eventfd() - something to poll(2)
 * @queue: the queue
 *
 * Return: a descriptor that is the queue's, readable as long as a completion can
 * be reaped; a negative errno.
 */
int peerdma_queue_eventfd(struct peerdma_queue *queue)
{
	int fd;

	if (queue->pid != getpid())
		return -ECHILD;
	pthread_mutex_lock(&queue->lock);
	if (queue->event_fd < 0) {
		fd = eventfd(queue->done.nr != 0, EFD_NONBLOCK | EFD_CLOEXEC);
		queue->event_fd = fd < 0 ? -errno : fd;
	}
	fd = queue->event_fd;
	/* None yet, and perhaps one the next time. */
	if (fd < 0)
		queue->event_fd = -1;
	pthread_mutex_unlock(&queue->lock);
	return fd;
}

/**
 * peerdma_queue_info() - what a queue is and has
 * @queue: the queue
 * @info: where to
 *
 * Return: 0; -EINVAL: @info has no size; -ECHILD: the queue is that of the parent
 * process.
 */
int peerdma_queue_info(struct peerdma_queue *queue,
		       struct peerdma_queue_info *info)
{
	PEERDMA_SIZED(peerdma_queue_info, found,
		.depth = queue->depth,
		.uring = queue->ring != NULL);

	if (queue->pid != getpid())
		return -ECHILD;
	pthread_mutex_lock(&queue->lock);
	found.held = queue->depth - queue->nr_free;
	found.done = queue->done.nr;
	pthread_mutex_unlock(&queue->lock);
	return peerdma_sized_out(info, &found, sizeof(found));
}
