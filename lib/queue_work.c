// SPDX-License-Identifier: MIT
/*
 * The threads of a queue. Each takes the next request, or many small ones
 * together, and gives direct ones to the ring.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "queue.h"

/* ---- one request --------------------------------------------------------- */

/**
 * peerdma_queue_end() - close what a request has opened, and fill its completion
 * @entry: of which nothing is under way
 * @err: what its last part answered
 */
void peerdma_queue_end(struct peerdma_entry *entry, int err)
{
	struct peerdma_transfer *t = &entry->transfer;
	struct peerdma_completion *c = &entry->completion;

	if (entry->opened)
		peerdma_transfer_end(t, err);
	entry->opened = false;
	c->result = t->done || err >= 0 ? (int64_t)t->done : err;
	c->error = err < 0 ? err : 0;
	c->reason = t->result.reason;
	c->bytes_direct = t->result.bytes_direct;
	c->bytes_staged = t->result.bytes_staged;
	c->bytes_cached = t->result.bytes_cached;
	c->bytes_registered = t->result.bytes_registered;
	c->bytes_zeroed = t->result.bytes_zeroed;
}

static int begin(struct peerdma_entry *entry)
{
	const struct peerdma_io_request *request = &entry->request;
	struct peerdma_transfer *t = &entry->transfer;
	bool write = request->flags & PEERDMA_IO_WRITE;
	int err;

	memset(t, 0, sizeof(*t));
	t->buf = request->buf;
	t->opts.path = request->path;
	t->file_offset = request->file_offset;
	t->buffer_offset = request->buffer_offset;
	t->len = request->len;
	t->cancel = &entry->cancel;
	err = peerdma_transfer_begin(t, request->fd, write);
	entry->opened = !err;
	if (err) {
		t->result.error = err;
		peerdma_stats_add(t->buf->ctx, &t->result, write);
	}
	return err;
}

static int move(struct peerdma_entry *entry)
{
	const struct peerdma_io_request *request = &entry->request;
	struct peerdma_transfer *t = &entry->transfer;

	if (request->nr_vecs)
		return peerdma_vector_move(t, request->vecs, request->nr_vecs);
	if (t->done == t->len)
		return 0;
	if (atomic_load(&entry->cancel))
		return -ECANCELED;
	return peerdma_transfer_move(t);
}

/* Return: true: it has its completion; false: the ring has it. */
static bool run_one(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	int err = 0;

	if (!entry->opened)
		err = begin(entry);
	if (!err && entry->in_stream)
		err = entry->stream_err;
	if (!err && !entry->no_ring && queue->ring &&
	    !atomic_load(&entry->cancel) && peerdma_ring_take(queue, entry))
		return false;
	if (!err)
		err = move(entry);
	else
		peerdma_vector_fail(entry->request.vecs,
				    entry->request.nr_vecs, err);
	peerdma_queue_end(entry, err);
	return true;
}

/* ---- many small ones ----------------------------------------------------- */

/* The file of the requests, opened once for those that follow each other. */
struct small_file {
	struct peerdma_file file;
	bool open;
};

static struct peerdma_file *file_of(struct small_file *small, int fd)
{
	if (small->open && small->file.fd == fd)
		return &small->file;
	if (small->open)
		peerdma_file_close(&small->file);
	small->open = !peerdma_file_open(&small->file, fd, false);
	return small->open ? &small->file : NULL;
}

static bool gather_one(struct peerdma_gather *g, struct small_file *small,
		       struct peerdma_entry *entry)
{
	const struct peerdma_io_request *request = &entry->request;
	const struct peerdma_io_vec vec = {
		.file_offset = request->file_offset,
		.buffer_offset = request->buffer_offset,
		.len = request->len,
	};
	struct peerdma_file *file;
	size_t moved;

	if (atomic_load(&entry->cancel) || request->buf->read_only ||
	    peerdma_transfer_check(request->buf, vec.len, vec.file_offset,
				   vec.buffer_offset))
		return false;
	file = file_of(small, request->fd);
	if (!file || !peerdma_gather_read(g, request->buf, file, &vec, &moved))
		return false;
	entry->completion.result = moved;
	entry->completion.bytes_cached = moved;
	return true;
}

static void count(struct peerdma_queue *queue, struct peerdma_entry *entry)
{
	const struct peerdma_io_result result = {
		.bytes_cached = entry->completion.bytes_cached,
	};

	peerdma_stats_add(queue->ctx, &result, false);
}

static void push(struct peerdma_entry **list, struct peerdma_entry *entry)
{
	entry->next = *list;
	*list = entry;
}

/* Not gathered: each by itself, and by several threads. */
static void give_back(struct peerdma_queue *queue, struct peerdma_entry *list)
{
	struct peerdma_entry *next;

	for (; list; list = next) {
		next = list->next;
		list->gather = false;
		list->completion.result = 0;
		list->completion.bytes_cached = 0;
		peerdma_queue_pend(queue, list, true);
	}
}

static void run_gathered(struct peerdma_queue *queue,
			 struct peerdma_entry *entries)
{
	struct peerdma_entry *there = NULL, *others = NULL, *entry, *next;
	struct small_file small = { .open = false };
	struct peerdma_gather g;
	bool begun;

	begun = !peerdma_gather_begin(&g, entries->request.buf);
	for (entry = entries; entry; entry = next) {
		next = entry->next;
		if (begun && gather_one(&g, &small, entry))
			push(&there, entry);
		else
			push(&others, entry);
	}
	if (small.open)
		peerdma_file_close(&small.file);
	if (begun && peerdma_gather_end(&g)) {
		give_back(queue, there);
		there = NULL;
	}
	for (entry = there; entry; entry = entry->next)
		count(queue, entry);
	if (there)
		peerdma_queue_finish(queue, there);
	give_back(queue, others);
}

/* ---- the threads --------------------------------------------------------- */

static struct peerdma_entry *take_first(struct peerdma_queue *queue)
{
	struct peerdma_entry_list *list = &queue->pending;
	struct peerdma_entry *entry = list->first;

	list->first = entry->next;
	if (!list->first)
		list->last = &list->first;
	list->nr--;
	entry->state = PEERDMA_ENTRY_RUNNING;
	entry->next = NULL;
	return entry;
}

/* The more go together the cheaper are their copies; but all threads read. */
static unsigned int share(const struct peerdma_queue *queue)
{
	unsigned int nr = queue->pending.nr / PEERDMA_QUEUE_THREADS;

	if (nr > PEERDMA_COPIES_MAX)
		return PEERDMA_COPIES_MAX;
	return nr < PEERDMA_QUEUE_GATHER ? PEERDMA_QUEUE_GATHER : nr;
}

/* With the lock held: the next one, or a chain of small ones. */
static struct peerdma_entry *take(struct peerdma_queue *queue)
{
	unsigned int nr = 1, most = share(queue);
	struct peerdma_entry *first = take_first(queue), *last = first;

	while (first->gather && nr < most &&
	       queue->pending.first && queue->pending.first->gather) {
		last->next = take_first(queue);
		last = last->next;
		nr++;
	}
	/* Alone it takes the shorter way. */
	if (nr == 1)
		first->gather = false;
	return first;
}

static void *thread_main(void *arg)
{
	struct peerdma_queue *queue = arg;
	struct peerdma_entry *entry;

	pthread_mutex_lock(&queue->lock);
	for (;;) {
		peerdma_queue_look(queue);
		if (!queue->pending.first) {
			if (queue->stop && queue->nr_free + queue->done.nr ==
						   queue->depth)
				break;
			queue->nr_idle++;
			peerdma_queue_await_work(queue);
			queue->nr_idle--;
			if (queue->nr_called)
				queue->nr_called--;
			continue;
		}
		entry = take(queue);
		pthread_mutex_unlock(&queue->lock);
		if (entry->gather)
			run_gathered(queue, entry);
		else if (run_one(queue, entry))
			peerdma_queue_finish(queue, entry);
		pthread_mutex_lock(&queue->lock);
	}
	pthread_mutex_unlock(&queue->lock);
	return NULL;
}

/**
 * peerdma_queue_start_thread() - one more thread
 * @queue: the queue, its lock held, or not known to anybody yet
 *
 * Signals are the program's: its handlers run on its own threads.
 *
 * Return: 0 or a negative errno.
 */
int peerdma_queue_start_thread(struct peerdma_queue *queue)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&queue->threads[queue->nr_threads], NULL,
			     thread_main, queue);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		queue->nr_threads++;
	return -err;
}
