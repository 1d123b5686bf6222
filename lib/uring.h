/* SPDX-License-Identifier: MIT */
/* An io_uring, as the queue and the drive's side of the pump use one. */
#ifndef PEERDMA_URING_H
#define PEERDMA_URING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of the kernel's ABI, which older headers lack. */
#define PEERDMA_URING_READ	22
#define PEERDMA_URING_WRITE	23
#define PEERDMA_URING_CMD	46

/* struct io_uring_sqe. */
struct peerdma_uring_command {
	uint8_t opcode;
	uint8_t flags;
	uint16_t ioprio;
	int32_t fd;
	union {
		uint64_t offset;
		uint32_t cmd_op;
	};
	uint64_t addr;
	uint32_t len;
	uint32_t op_flags;
	uint64_t user_data;
	uint16_t buf_index;
	uint16_t personality;
	int32_t splice_fd;
	uint64_t cmd[2];
};

struct peerdma_uring_map {
	void *addr;
	size_t len;			/* 0: none */
};

/*
 * Owner: whoever opened it. Commands are put in line and submitted by one thread
 * at a time, completions taken by one thread at a time.
 */
struct peerdma_uring {
	int fd;
	unsigned int nr_queued;		/* in line, and not submitted */
	struct peerdma_uring_map submissions;
	struct peerdma_uring_map commands;
	struct peerdma_uring_map completions;
	struct io_uring_params params;
};

int peerdma_uring_open(struct peerdma_uring *ring, unsigned int depth);
void peerdma_uring_close(struct peerdma_uring *ring);
void peerdma_uring_push(struct peerdma_uring *ring,
			const struct peerdma_uring_command *command);
uint64_t peerdma_uring_pull(struct peerdma_uring *ring);
int peerdma_uring_enter(struct peerdma_uring *ring, unsigned int least);
unsigned int peerdma_uring_ready(const struct peerdma_uring *ring);
void peerdma_uring_take(struct peerdma_uring *ring, uint64_t *user_data,
			int32_t *out_result);
int peerdma_uring_register(struct peerdma_uring *ring, unsigned int what,
			   const void *arg, unsigned int nr);

#endif /* PEERDMA_URING_H */
