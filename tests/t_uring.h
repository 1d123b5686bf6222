/* SPDX-License-Identifier: MIT */
/*
 * FILE_IO as an io_uring command.
 */
#ifndef T_URING_H
#define T_URING_H

#include <liburing.h>

#include "t_transfer.h"

static inline void t_ring_make(struct io_uring *ring, unsigned int entries,
			       unsigned int flags)
{
	int ret = io_uring_queue_init(entries, ring, flags);

	if (ret)
		t_need(false, "a ring: %s", strerrorname_np(-ret));
}

/* A command that is ready for submission. */
static inline struct io_uring_sqe *t_ring_put(struct io_uring *ring, int dev,
					      const struct peerdma_file_io *arg,
					      uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	uint64_t command[2] = { (uintptr_t)arg, 0 };

	if (!sqe)
		t_need(false, "the ring has room");
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, dev, NULL, 0, 0);
	sqe->cmd_op = PEERDMA_FILE_IO;
	memcpy(sqe->cmd, command, sizeof(command));
	sqe->user_data = user_data;
	return sqe;
}

/* The next completion's result. */
static inline long long t_ring_take(struct io_uring *ring, uint64_t *user_data)
{
	struct io_uring_cqe *cqe;
	long long result;
	int ret;

	do
		ret = io_uring_wait_cqe(ring, &cqe);
	while (ret == -EINTR);
	if (ret)
		return ret;
	result = cqe->res;
	if (user_data)
		*user_data = cqe->user_data;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

/* As t_move(), by the ring; bytes or a negative errno. */
static inline long long t_ring_move(struct io_uring *ring, int dev,
				    uint32_t flags, int buffer, int file,
				    struct peerdma_file_segment *segments,
				    uint32_t nr, struct peerdma_file_io *arg)
{
	*arg = (struct peerdma_file_io){
		.size = sizeof(*arg),
		.flags = flags,
		.buffer_fd = buffer,
		.file_fd = file,
		.segments = (uintptr_t)segments,
		.nr_segments = nr,
	};
	t_ring_put(ring, dev, arg, 1);
	io_uring_submit(ring);
	return t_ring_take(ring, NULL);
}

#endif /* T_URING_H */
