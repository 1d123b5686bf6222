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
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "queue.h"

/* What the kernel moves as one request. */
#define LEN_MAX		((uint64_t)4 << 20)
/*
 * Of a single segment the kernel does not tell whether the filesystem copied,
 * as it may when it writes. So writes are two segments; smaller ones are not
 * worth it.
 */
#define WRITE_MIN	((uint64_t)128 << 10)

/* Numbers and structs of the kernel's ABI, which older headers lack. */
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup	425
#define SYS_io_uring_enter	426
#endif
#define OP_URING_CMD		46

struct command {
	uint8_t opcode;
	uint8_t flags;
	uint16_t ioprio;
	int32_t fd;
	uint32_t cmd_op;
	uint32_t pad;
	uint64_t addr;
	uint32_t len;
	uint32_t op_flags;
	uint64_t user_data;
	uint16_t buf_index;
	uint16_t personality;
	int32_t splice_fd;
	uint64_t cmd[2];
};

struct map {
	void *addr;
	size_t len;
};

struct peerdma_ring {
	int fd;
	int stop_fd;			/* an eventfd */
	struct map submissions;
	struct map commands;
	struct map completions;
	struct io_uring_params params;
	pthread_mutex_t lock;		/* guards the submission side */
	pthread_t thread;
	bool has_thread;
	bool broken;			/* the kernel takes no more */
};

static uint32_t *word(const struct map *map, uint32_t offset)
{
	return (uint32_t *)((char *)map->addr + offset);
}

/* ---- submission ---------------------------------------------------------- */

/* Return: false: the kernel did not take it. */
static bool enter(struct peerdma_ring *ring)
{
	struct timespec pause = { .tv_nsec = 100000 };
	unsigned int tries;
	long n;

	for (tries = 0; tries < 1000; tries++) {
		n = syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0);
		if (n == 1)
			return true;
		if (n < 0 && errno != EINTR && errno != EAGAIN &&
		    errno != EBUSY && errno != ENOMEM)
			break;
		nanosleep(&pause, NULL);
	}
	return false;
}

static bool submit(struct peerdma_ring *ring, const struct command *command)
{
	const struct io_sqring_offsets *at = &ring->params.sq_off;
	uint32_t *tail = word(&ring->submissions, at->tail);
	uint32_t mask = *word(&ring->submissions, at->ring_mask);
	bool taken = false;
	uint32_t i;

	pthread_mutex_lock(&ring->lock);
	if (!ring->broken) {
		/* At most one is there, so there is room. */
		i = *tail & mask;
		((struct command *)ring->commands.addr)[i] = *command;
		word(&ring->submissions, at->array)[i] = i;
		__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
		taken = enter(ring);
		if (!taken) {
			__atomic_store_n(tail, *tail - 1, __ATOMIC_RELEASE);
			ring->broken = true;
		}
	}
	pthread_mutex_unlock(&ring->lock);
	return taken;
}

/* As in io.c, where nothing but the direct path comes into question. */
static bool is_uncached(struct peerdma_transfer *t)
{
	bool resident;

	if (t->opts.path == PEERDMA_PATH_DIRECT || t->file.write)
		return true;
	if (t->buf->cuda && atomic_load(&t->buf->ctx->regions))
		return false;
	if (peerdma_holes_wanted(t, t->len))
		return false;
	if (t->file.unbuffered)
		return true;
	return peerdma_residency_run(&t->file, t->file_offset, t->len,
				     &resident) == t->len && !resident;
}

static bool is_whole_blocks(const struct peerdma_transfer *t)
{
	uint64_t place = t->buf->fd_offset + t->buffer_offset;

	return !((t->file_offset | t->len) % t->probe.align) &&
	       !(place % t->probe.memory_align) &&
	       t->file.end >= t->file_offset + t->len;
}

static bool may_take(const struct peerdma_entry *entry)
{
	const struct peerdma_transfer *t = &entry->transfer;
	uint64_t min = t->file.write ? WRITE_MIN : 1;

	return !entry->request.nr_vecs && !t->buf->host && t->buf->fd >= 0 &&
	       t->buf->ctx->device_fd >= 0 && t->len >= min &&
	       t->len <= LEN_MAX && (t->opts.path == PEERDMA_PATH_AUTO ||
				     t->opts.path == PEERDMA_PATH_DIRECT);
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
	struct command command = {
		.opcode = OP_URING_CMD,
		.fd = queue->ctx->device_fd,
		.cmd_op = PEERDMA_FILE_IO,
		.user_data = (uintptr_t)entry,
		.cmd = { (uintptr_t)&entry->io, 0 },
	};

	if (!may_take(entry) || !is_uncached(t) || peerdma_transfer_probe(t) ||
	    t->probe.reason || t->probe.by_pages || !is_whole_blocks(t))
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
	const struct io_cqring_offsets *at = &ring->params.cq_off;
	uint32_t *head = word(&ring->completions, at->head);
	uint32_t mask = *word(&ring->completions, at->ring_mask);
	uint32_t tail = __atomic_load_n(word(&ring->completions, at->tail),
					__ATOMIC_ACQUIRE);
	const struct io_uring_cqe *cqes = (const void *)
		((char *)ring->completions.addr + at->cqes);
	struct peerdma_entry *done = NULL, *entry;
	uint32_t i = *head;

	/* Whoever submitted has let go of the entries by then. */
	pthread_mutex_lock(&ring->lock);
	pthread_mutex_unlock(&ring->lock);
	for (; i != tail; i++) {
		entry = (void *)(uintptr_t)cqes[i & mask].user_data;
		if (finish(entry, cqes[i & mask].res)) {
			entry->next = done;
			done = entry;
		} else {
			peerdma_queue_pend(queue, entry, true);
		}
	}
	__atomic_store_n(head, i, __ATOMIC_RELEASE);
	if (done)
		peerdma_queue_finish(queue, done);
}

/* By poll(2): a filter that comes later may forbid io_uring_enter(2). */
static void *thread_main(void *arg)
{
	struct peerdma_queue *queue = arg;
	struct pollfd fds[] = {
		{ .fd = queue->ring->fd, .events = POLLIN },
		{ .fd = queue->ring->stop_fd, .events = POLLIN },
	};

	while (!fds[1].revents) {
		poll(fds, 2, -1);
		harvest(queue);
	}
	return NULL;
}

/* ---- its life ------------------------------------------------------------ */

static bool map(struct peerdma_ring *ring, struct map *map, size_t len,
		off_t offset)
{
	map->addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE, ring->fd, offset);
	if (map->addr == MAP_FAILED)
		return false;
	map->len = len;
	return true;
}

static void unmap(struct map *map)
{
	if (map->len)
		munmap(map->addr, map->len);
}

static bool map_all(struct peerdma_ring *ring)
{
	const struct io_uring_params *p = &ring->params;

	return map(ring, &ring->submissions,
		   p->sq_off.array + p->sq_entries * sizeof(uint32_t),
		   IORING_OFF_SQ_RING) &&
	       map(ring, &ring->completions,
		   p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe),
		   IORING_OFF_CQ_RING) &&
	       map(ring, &ring->commands,
		   p->sq_entries * sizeof(struct command), IORING_OFF_SQES);
}

static void free_ring(struct peerdma_ring *ring)
{
	unmap(&ring->commands);
	unmap(&ring->completions);
	unmap(&ring->submissions);
	close(ring->stop_fd);
	close(ring->fd);
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
	ring->fd = syscall(SYS_io_uring_setup, queue->depth, &ring->params);
	if (ring->fd < 0) {
		free(ring);
		return 0;
	}
	ring->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (ring->stop_fd < 0 || !map_all(ring)) {
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
