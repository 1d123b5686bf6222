// SPDX-License-Identifier: MIT
/*
 * The io_uring of a queue: FILE_IO as commands, so that many requests are in
 * flight and no thread waits for any of them. What is not moved as it should be
 * comes back to the queue's threads, which go on as peerdma_read() would and
 * find out why.
 *
 * A thread waits for completions. Commands are submitted under a lock, so that
 * one that the kernel does not take can be taken back.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue.h"
#include "uring.h"

/* What the kernel moves as one request. */
#define LEN_MAX		((uint64_t)4 << 20)
/*
 * Of a single segment the kernel does not tell whether the filesystem copied,
 * as it may when it writes. So writes are two segments; smaller ones are not
 * worth it.
 */
#define WRITE_MIN	((uint64_t)128 << 10)

struct peerdma_ring {
	struct peerdma_uring uring;
	int stop_fd;			/* an eventfd */
	pthread_mutex_t lock;		/* guards the submission side */
	pthread_t thread;
	bool has_thread;
	bool broken;			/* the kernel takes no more */
};

/* ---- submission ---------------------------------------------------------- */

static bool submit(struct peerdma_ring *ring,
		   const struct peerdma_uring_command *command)
{
	bool taken = false;

	pthread_mutex_lock(&ring->lock);
	if (!ring->broken) {
		/* At most one is in line, so there is room. */
		peerdma_uring_push(&ring->uring, command);
		taken = !peerdma_uring_enter(&ring->uring, 0);
		if (!taken) {
			peerdma_uring_pull(&ring->uring);
			ring->broken = true;
		}
	}
	pthread_mutex_unlock(&ring->lock);
	return taken;
}

static bool may_take(const struct peerdma_entry *entry)
{
	const struct peerdma_transfer *t = &entry->transfer;
	uint64_t min = t->file.write ? WRITE_MIN : 1;

	return !entry->request.nr_vecs && t->len >= min && t->len <= LEN_MAX;
}

static void fill_segments(struct peerdma_entry *entry)
{
	const struct peerdma_transfer *t = &entry->transfer;
	struct peerdma_file_segment *s = entry->segments;
	uint64_t half = WRITE_MIN / 2;

	s[0] = (struct peerdma_file_segment){
		.file_offset = t->file_offset,
		.buffer_offset = t->buffer_offset,
		.len = t->len,
	};
	if (!t->file.write)
		return;
	s[1] = s[0];
	s[0].len = half;
	s[1].file_offset += half;
	s[1].buffer_offset += half;
	s[1].len -= half;
}

/**
 * peerdma_ring_take() - give a request to the ring, if it may have it
 * @queue: with a ring
 * @entry: begun, and of which nothing was moved
 *
 * Return: true: the ring has it, and with it everything that is @entry's.
 */
bool peerdma_ring_take(struct peerdma_queue *queue,
		       struct peerdma_entry *entry)
{
	struct peerdma_transfer *t = &entry->transfer;
	struct peerdma_uring_command command = {
		.opcode = PEERDMA_URING_CMD,
		.fd = queue->ctx->device_fd,
		.cmd_op = PEERDMA_FILE_IO,
		.user_data = (uintptr_t)entry,
		.cmd = { (uintptr_t)&entry->io, 0 },
	};

	if (!may_take(entry) || !peerdma_transfer_is_direct(t))
		return false;
	fill_segments(entry);
	entry->io = (struct peerdma_file_io){
		.size = sizeof(entry->io),
		.flags = t->file.write ? PEERDMA_FILE_IO_WRITE : 0,
		.buffer_fd = t->buf->fd,
		.file_fd = t->file.direct_fd,
		.segments = (uintptr_t)entry->segments,
		.nr_segments = t->file.write ? 2 : 1,
	};
	return submit(queue->ring, &command);
}

/* ---- completion ---------------------------------------------------------- */

/* Bytes that count; of a write all or none, as a thread writes them again. */
static uint64_t moved(struct peerdma_entry *entry, int32_t result)
{
	struct peerdma_transfer *t = &entry->transfer;

	if (result < 0 || (uint64_t)result > t->len)
		return 0;
	if ((uint64_t)result == t->len)
		return result;
	return t->file.write ? 0 : result / t->probe.align * t->probe.align;
}

static uint64_t *counter_of(struct peerdma_entry *entry)
{
	struct peerdma_transfer *t = &entry->transfer;

	if (!t->file.write ||
	    !(entry->io.out_flags & PEERDMA_FILE_IO_OUT_BUFFERED))
		return &t->result.bytes_direct;
	peerdma_transfer_blame(t, PEERDMA_REASON_FILESYSTEM_COPIED);
	return &t->result.bytes_staged;
}

/* Return: true: it has its completion. */
static bool finish(struct peerdma_entry *entry, int32_t result)
{
	struct peerdma_transfer *t = &entry->transfer;
	const struct peerdma_cuda_pointer *pointer = &t->buf->pointer;
	uint64_t len = moved(entry, result);
	int err = 0;

	if (len)
		err = peerdma_transfer_advance(t, len, counter_of(entry));
	if (t->done == t->len)
		err = 0;
	if (len && !t->file.write && pointer->flush && !err)
		err = peerdma_cuda_flush(&t->buf->ctx->cuda, pointer->context);
	if (!err && t->done < t->len) {
		entry->no_ring = true;
		return false;
	}
	peerdma_queue_end(entry, err);
	return true;
}

static void harvest(struct peerdma_queue *queue)
{
	struct peerdma_ring *ring = queue->ring;
	unsigned int nr = peerdma_uring_ready(&ring->uring);
	struct peerdma_entry *done = NULL, *entry;
	uint64_t user_data;
	int32_t result;

	/* Whoever submitted has let go of the entries by then. */
	pthread_mutex_lock(&ring->lock);
	pthread_mutex_unlock(&ring->lock);
	while (nr--) {
		peerdma_uring_take(&ring->uring, &user_data, &result);
		entry = (void *)(uintptr_t)user_data;
		if (finish(entry, result)) {
			entry->next = done;
			done = entry;
		} else {
			peerdma_queue_pend(queue, entry, true);
		}
	}
	if (done)
		peerdma_queue_finish(queue, done);
}

/* By poll(2): a filter that comes later may forbid io_uring_enter(2). */
static void *thread_main(void *arg)
{
	struct peerdma_queue *queue = arg;
	struct pollfd fds[] = {
		{ .fd = queue->ring->uring.fd, .events = POLLIN },
		{ .fd = queue->ring->stop_fd, .events = POLLIN },
	};

	while (!fds[1].revents) {
		poll(fds, 2, -1);
		harvest(queue);
	}
	return NULL;
}

/* ---- its life ------------------------------------------------------------ */

static void free_ring(struct peerdma_ring *ring)
{
	peerdma_uring_close(&ring->uring);
	if (ring->stop_fd >= 0)
		close(ring->stop_fd);
	free(ring);
}

static int start_thread(struct peerdma_queue *queue)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&queue->ring->thread, NULL, thread_main, queue);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	queue->ring->has_thread = !err;
	return -err;
}

/**
 * peerdma_ring_create() - give a queue an io_uring, where it is of use
 * @queue: that nobody knows yet
 *
 * Return: 0, also where there can be none; a negative errno.
 */
int peerdma_ring_create(struct peerdma_queue *queue)
{
	const struct peerdma *ctx = queue->ctx;
	struct peerdma_ring *ring;

	if (ctx->device_fd < 0 ||
	    !(ctx->info.out_features & PEERDMA_FEATURE_URING))
		return 0;
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	/* Forbidden by the system or a filter, or too much locked memory. */
	if (peerdma_uring_open(&ring->uring, queue->depth)) {
		free(ring);
		return 0;
	}
	ring->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (ring->stop_fd < 0) {
		free_ring(ring);
		return -ENOMEM;
	}
	pthread_mutex_init(&ring->lock, NULL);
	queue->ring = ring;
	return start_thread(queue);
}

/**
 * peerdma_ring_destroy() - end the io_uring of a queue, if it has one
 * @queue: with nothing in flight, or that of the parent process
 */
void peerdma_ring_destroy(struct peerdma_queue *queue)
{
	struct peerdma_ring *ring = queue->ring;
	uint64_t one = 1;

	if (!ring)
		return;
	if (queue->pid == getpid()) {
		if (ring->has_thread &&
		    write(ring->stop_fd, &one, sizeof(one)) == sizeof(one))
			pthread_join(ring->thread, NULL);
		pthread_mutex_destroy(&ring->lock);
	}
	free_ring(ring);
}
