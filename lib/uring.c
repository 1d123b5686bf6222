// SPDX-License-Identifier: MIT
/*
 * An io_uring: its three mappings, and who writes which word. The kernel takes
 * commands from the head on and puts completions at the tail; the other two words
 * are ours.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "uring.h"

/* Numbers of the kernel's ABI, which older headers lack. */
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup	425
#define SYS_io_uring_enter	426
#define SYS_io_uring_register	427
#endif

#define TRIES		1000
#define PAUSE_NS	100000

_Static_assert(sizeof(struct peerdma_uring_command) == 64, "the kernel's");

static uint32_t *word(const struct peerdma_uring_map *map, uint32_t offset)
{
	return (uint32_t *)((char *)map->addr + offset);
}

/**
 * peerdma_uring_push() - put a command in line
 * @ring: with fewer in line than its depth
 * @command: is copied
 */
void peerdma_uring_push(struct peerdma_uring *ring,
			const struct peerdma_uring_command *command)
{
	const struct io_sqring_offsets *at = &ring->params.sq_off;
	uint32_t *tail = word(&ring->submissions, at->tail);
	uint32_t i = *tail & *word(&ring->submissions, at->ring_mask);

	((struct peerdma_uring_command *)ring->commands.addr)[i] = *command;
	word(&ring->submissions, at->array)[i] = i;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	ring->nr_queued++;
}

/**
 * peerdma_uring_pull() - take the last command in line back
 * @ring: with one in line
 *
 * Return: its user_data.
 */
uint64_t peerdma_uring_pull(struct peerdma_uring *ring)
{
	const struct io_sqring_offsets *at = &ring->params.sq_off;
	uint32_t *tail = word(&ring->submissions, at->tail);
	uint32_t i = (*tail - 1) & *word(&ring->submissions, at->ring_mask);

	__atomic_store_n(tail, *tail - 1, __ATOMIC_RELEASE);
	ring->nr_queued--;
	return ((struct peerdma_uring_command *)ring->commands.addr)[i]
		.user_data;
}

static bool passes(int err)
{
	return err == EINTR || err == EAGAIN || err == EBUSY || err == ENOMEM;
}

/**
 * peerdma_uring_enter() - submit what is in line, and wait
 * @ring: the ring
 * @least: completions to wait for; a signal ends that early
 *
 * Return: 0; a negative errno: what is left in line the kernel does not take, and
 * it will take no more.
 */
int peerdma_uring_enter(struct peerdma_uring *ring, unsigned int least)
{
	struct timespec pause = { .tv_nsec = PAUSE_NS };
	unsigned int tries;
	long n;

	for (tries = 0; tries < TRIES; tries++) {
		n = syscall(SYS_io_uring_enter, ring->fd, ring->nr_queued,
			    least, least ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
		if (n >= 0)
			ring->nr_queued -= n;
		if (n < 0 && !passes(errno))
			return -errno;
		if (!ring->nr_queued)
			return 0;
		if (n <= 0)
			nanosleep(&pause, NULL);
	}
	return -EBUSY;
}

/**
 * peerdma_uring_ready() - completions that are there
 * @ring: the ring
 *
 * Return: how many.
 */
unsigned int peerdma_uring_ready(const struct peerdma_uring *ring)
{
	const struct io_cqring_offsets *at = &ring->params.cq_off;

	return __atomic_load_n(word(&ring->completions, at->tail),
			       __ATOMIC_ACQUIRE) -
	       *word(&ring->completions, at->head);
}

/**
 * peerdma_uring_take() - take the oldest completion
 * @ring: with one that is ready
 * @user_data: of its command
 * @out_result: of its command
 */
void peerdma_uring_take(struct peerdma_uring *ring, uint64_t *user_data,
			int32_t *out_result)
{
	const struct io_cqring_offsets *at = &ring->params.cq_off;
	uint32_t *head = word(&ring->completions, at->head);
	uint32_t mask = *word(&ring->completions, at->ring_mask);
	const struct io_uring_cqe *cqes = (const void *)
		((char *)ring->completions.addr + at->cqes);

	*user_data = cqes[*head & mask].user_data;
	*out_result = cqes[*head & mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
}

/**
 * peerdma_uring_register() - io_uring_register(2)
 * @ring: the ring
 * @what: IORING_REGISTER_...
 * @arg: as that says
 * @nr: as that says
 *
 * Return: 0 or a negative errno.
 */
int peerdma_uring_register(struct peerdma_uring *ring, unsigned int what,
			   const void *arg, unsigned int nr)
{
	long n = syscall(SYS_io_uring_register, ring->fd, what, arg, nr);

	return n < 0 ? -errno : 0;
}

static bool map(struct peerdma_uring *ring, struct peerdma_uring_map *map,
		size_t len, off_t offset)
{
	map->addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE, ring->fd, offset);
	if (map->addr == MAP_FAILED)
		return false;
	map->len = len;
	return true;
}

static void unmap(struct peerdma_uring_map *map)
{
	if (map->len)
		munmap(map->addr, map->len);
	map->len = 0;
}

static bool map_all(struct peerdma_uring *ring)
{
	const struct io_uring_params *p = &ring->params;

	return map(ring, &ring->submissions,
		   p->sq_off.array + p->sq_entries * sizeof(uint32_t),
		   IORING_OFF_SQ_RING) &&
	       map(ring, &ring->completions,
		   p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe),
		   IORING_OFF_CQ_RING) &&
	       map(ring, &ring->commands,
		   p->sq_entries * sizeof(struct peerdma_uring_command),
		   IORING_OFF_SQES);
}

/**
 * peerdma_uring_open() - make one
 * @ring: filled in
 * @depth: commands in line at most
 *
 * Return: 0; -ENOSYS, -EPERM or -EACCES: forbidden by the system or a filter;
 * another negative errno, as for too much locked memory.
 */
int peerdma_uring_open(struct peerdma_uring *ring, unsigned int depth)
{
	*ring = (struct peerdma_uring){ .nr_queued = 0 };
	ring->fd = syscall(SYS_io_uring_setup, depth, &ring->params);
	if (ring->fd < 0)
		return -errno;
	if (map_all(ring))
		return 0;
	peerdma_uring_close(ring);
	return -ENOMEM;
}

/**
 * peerdma_uring_close() - end it
 * @ring: open, with nothing in flight, or that of the parent process
 */
void peerdma_uring_close(struct peerdma_uring *ring)
{
	unmap(&ring->commands);
	unmap(&ring->completions);
	unmap(&ring->submissions);
	close(ring->fd);
}
