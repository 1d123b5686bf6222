/* SPDX-License-Identifier: MIT */
/*
 * Pages that somebody holds, for as long as a test wants. The first drive has a
 * mapped device HELD_VALVE over it, which tests/pages/guest makes.
 */
#ifndef HELD_H
#define HELD_H

#include <liburing.h>

#include "../t_transfer.h"

#define HELD_DRIVE	"/dev/disk/by-serial/peerdma0"
#define HELD_VALVE	"/dev/mapper/valve"
#define HELD_PAGE	4096u

static struct {
	int drive;
	int valve;
	unsigned char *page;
} held;

static inline void held_prepare(void)
{
	held.drive = t_open(HELD_DRIVE, O_RDWR | O_DIRECT);
	t_need(held.drive >= 0, "the drive is opened");
	held.valve = t_open(HELD_VALVE, O_RDONLY | O_DIRECT);
	t_need(held.valve >= 0, HELD_VALVE " is opened");
	held.page = t_ram(HELD_PAGE);
}

/* What is sent to a suspended mapped device waits until it is resumed. */
static inline void valve_set(const char *verb)
{
	char command[64];

	snprintf(command, sizeof(command), "dmsetup %s --nolockfs %s", verb,
		 strrchr(HELD_VALVE, '/') + 1);
	t_need(!system(command), "%s", command);
}

/*
 * Begin to read the drive's bytes into the mapping, which cannot end before
 * let_go(). On return the request has its pages: it and a read that ends are
 * given to the same single worker, one after the other.
 */
static inline void hold(struct io_uring *ring, unsigned char *at, size_t len)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned int one[2] = { 1, 1 };

	t_need(!io_uring_queue_init(4, ring, 0) &&
	       !io_uring_register_iowq_max_workers(ring, one), "a ring");
	valve_set("suspend");
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, held.valve, at, len, 0);
	sqe->flags |= IOSQE_ASYNC;
	sqe->user_data = 1;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, held.drive, held.page, HELD_PAGE, 0);
	sqe->flags |= IOSQE_ASYNC;
	sqe->user_data = 2;
	io_uring_submit(ring);
	io_uring_wait_cqe(ring, &cqe);
	t_need(cqe->user_data == 2 && cqe->res == HELD_PAGE,
	       "a read waits for its drive");
	io_uring_cqe_seen(ring, cqe);
}

/* What the read that hold() began says: it goes to the drive only now. */
static inline long long let_go(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	long long ret;

	valve_set("resume");
	io_uring_wait_cqe(ring, &cqe);
	ret = cqe->res;
	io_uring_queue_exit(ring);
	return ret;
}

#endif /* HELD_H */
