// SPDX-License-Identifier: MIT
/*
 * A pool of pinned GPU buffers, filled by another process.
 *
 * The flow is that of Donard's pinpool: allocate and pin some buffers once, hand
 * them out and take them back, and mmap() one where the CPU is to write to it.
 * What is better here:
 *
 * - A buffer's handle is a descriptor, and that is what is mapped. Donard's driver
 *   is first told by an ioctl which buffer the next mmap() means, in one variable
 *   for all: two processes that do so at a time get each other's memory.
 * - The descriptor can be sent to another process. It needs no CUDA, and reaches
 *   that buffer and no other.
 * - A buffer's end is close(), which a process that dies does, too. The memory
 *   stays until its last user is gone.
 *
 * usage: pinpool
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <peerdma.h>

#define NR_BUFFERS	4
#define NR_ROUNDS	3
#define BUFFER_LEN	(1u << 20)
#define NR_WORDS	(BUFFER_LEN / sizeof(uint64_t))

/**
 * struct pool - pinned buffers, the free ones first
 * @buffers: all
 * @nr_free: so many are free
 */
struct pool {
	struct peerdma_buffer *buffers[NR_BUFFERS];
	unsigned int nr_free;
};

static void check(int err, const char *what, const char *remedy)
{
	if (err >= 0)
		return;
	fprintf(stderr, "pinpool: %s: %s; %s\n", what, strerror(-err), remedy);
	exit(1);
}

static struct peerdma *open_context(int32_t gpu)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .gpu = gpu);
	PEERDMA_SIZED(peerdma_context_info, info);
	struct peerdma *ctx;
	int reason;

	check(peerdma_open(&ctx, &opts), "peerdma_open()",
	      "is there enough memory?");
	peerdma_context_info(ctx, &info);
	reason = info.module_reason;
	if (!reason && gpu != PEERDMA_GPU_NONE)
		reason = info.cuda_reason;
	if (reason) {
		fprintf(stderr, "pinpool: %s\n", peerdma_reason_string(reason));
		exit(1);
	}
	return ctx;
}

static void pool_make(struct pool *pool, struct peerdma *ctx)
{
	for (pool->nr_free = 0; pool->nr_free < NR_BUFFERS; pool->nr_free++)
		check(peerdma_buffer_alloc(ctx, BUFFER_LEN, NULL,
					   &pool->buffers[pool->nr_free]),
		      "cannot allocate and pin GPU memory",
		      "free some, or make the pool smaller");
}

static struct peerdma_buffer *pool_take(struct pool *pool)
{
	return pool->buffers[--pool->nr_free];
}

static void pool_give(struct pool *pool, struct peerdma_buffer *buffer)
{
	pool->buffers[pool->nr_free++] = buffer;
}

static void pool_end(struct pool *pool)
{
	while (pool->nr_free)
		peerdma_buffer_close(pool_take(pool));
}

/* One byte and, unless it is -1, a descriptor. */
static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(fd))] = "", byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (fd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}
	check(sendmsg(socket, &msg, MSG_NOSIGNAL) == 1 ? 0 : -errno, "sendmsg()",
	      "the other process has ended; see what it said");
}

/* A descriptor; -1: the other side is done; -2: a byte without one. */
static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -2;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/* Fill each buffer that comes; the first word of it says with what. */
static int work(int socket)
{
	struct peerdma_buffer *buffer;
	struct peerdma *ctx = NULL;
	uint64_t *words, job;
	void *addr;
	size_t i;
	int fd;

	while ((fd = receive_fd(socket)) >= 0) {
		if (!ctx)
			ctx = open_context(PEERDMA_GPU_NONE);
		check(peerdma_buffer_import(ctx, fd, NULL, &buffer),
		      "what came is no buffer", "send a dma-buf");
		check(peerdma_buffer_map(buffer, NULL, &addr),
		      "cannot map the buffer", "was it revoked?");
		words = addr;
		job = words[0];
		for (i = 0; i < NR_WORDS; i++)
			words[i] = job * NR_WORDS + i;
		/* Write-combined stores are on their way before the answer is. */
		__sync_synchronize();
		peerdma_buffer_unmap(buffer, addr);
		peerdma_buffer_close(buffer);
		close(fd);
		send_fd(socket, -1);
	}
	peerdma_close(ctx);
	return 0;
}

/* Read by the GPU's copy engine, which knows nothing of the CPU's mappings. */
static void check_words(struct peerdma_buffer *buffer, uint64_t job)
{
	static uint64_t words[NR_WORDS];
	size_t i;

	check(peerdma_buffer_copy_out(buffer, 0, words, sizeof(words)),
	      "cannot copy from the GPU", "see the kernel's log");
	for (i = 0; i < NR_WORDS; i++) {
		if (words[i] == job * NR_WORDS + i)
			continue;
		fprintf(stderr, "pinpool: job %d: word %zu is wrong; this is a bug\n",
			(int)job, i);
		exit(1);
	}
}

/* Every buffer of the pool is with the worker at once. */
static void run_round(struct pool *pool, int socket, uint64_t job)
{
	struct peerdma_buffer *taken[NR_BUFFERS];
	unsigned int i;

	for (i = 0; i < NR_BUFFERS; i++, job++) {
		taken[i] = pool_take(pool);
		check(peerdma_buffer_copy_in(taken[i], 0, &job, sizeof(job)),
		      "cannot copy to the GPU", "see the kernel's log");
		send_fd(socket, peerdma_buffer_fd(taken[i]));
	}
	for (i = 0; i < NR_BUFFERS; i++) {
		check(receive_fd(socket) == -1 ? -EPIPE : 0, "the worker",
		      "see what it said");
		check_words(taken[i], job - NR_BUFFERS + i);
		pool_give(pool, taken[i]);
	}
}

int main(void)
{
	struct peerdma *ctx;
	struct pool pool;
	int ends[2], round, status;
	pid_t worker;

	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) ?
	      -errno : 0, "socketpair()", "raise the limit of open files");
	/* Before CUDA, which does not survive a fork(). */
	worker = fork();
	check(worker < 0 ? -errno : 0, "fork()", "raise the limit of processes");
	if (!worker) {
		close(ends[0]);
		return work(ends[1]);
	}
	close(ends[1]);
	ctx = open_context(0);
	pool_make(&pool, ctx);
	printf("pool: %d buffers of %u KiB, pinned\n", NR_BUFFERS,
	       BUFFER_LEN >> 10);
	for (round = 0; round < NR_ROUNDS; round++)
		run_round(&pool, ends[0], 1 + round * NR_BUFFERS);
	printf("process %d filled %d, and the GPU has what it wrote\n",
	       (int)worker, NR_ROUNDS * NR_BUFFERS);
	pool_end(&pool);
	peerdma_close(ctx);
	close(ends[0]);
	return waitpid(worker, &status, 0) == worker && !status ? 0 : 1;
}
