// SPDX-License-Identifier: MIT
/*
 * A drive's side of staged transfers: unbuffered reads and writes of bounces, a
 * few in flight and no thread for each of them. A thread in pread(2) has to be
 * woken for every piece, and looks up each page of memory every time; an io_uring
 * is told of pinned bounces once.
 *
 * Where io_uring is forbidden threads do it. The kernel counts registered memory
 * against RLIMIT_MEMLOCK, for all processes of a user: the bounces that it
 * refuses are read into without.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "uring.h"

/* A drive that takes so long for a request, in nanoseconds, is in no hurry ... */
#define DOZE_NS		400000
/* ... and nor is who waits for a copy of so much, some 15 us. */
#define DOZE_MIN	((uint64_t)512 << 10)

/* All that a context pins. */
#define FIXED_MAX	(2 * PEERDMA_BOUNCES)

/* Of the kernel's ABI, which older headers lack. */
#define REGISTER_BUFFERS_UPDATE	16

struct update {
	uint32_t first;
	uint32_t reserved;
	uint64_t data;
	uint64_t tags;
	uint32_t nr;
	uint32_t reserved2;
};

/* Used by one call at a time; idle ones are kept by the context. */
struct peerdma_drive {
	struct peerdma_drive *next;	/* in peerdma.drives */
	struct peerdma_uring ring;
	unsigned int in_flight;
	bool broken;			/* the kernel takes no more */
	bool registers;			/* bounces, until one is refused */
	uint64_t began;			/* when it was taken, in nanoseconds */
	unsigned int nr_ended;		/* requests since */
	uint64_t pace;			/* of a request the last time, likewise */
	unsigned int nr_fixed;
	const void *fixed[FIXED_MAX];	/* bounces that the kernel knows */
};

/* An empty table that bounces are entered into; the kernel has that since 5.13. */
static void prepare_table(struct peerdma_drive *drive)
{
	const struct iovec none[FIXED_MAX] = { { .iov_len = 0 } };

	drive->registers = !peerdma_uring_register(
		&drive->ring, IORING_REGISTER_BUFFERS, none, FIXED_MAX);
}

static struct peerdma_drive *drive_new(struct peerdma *ctx)
{
	struct peerdma_drive *drive = calloc(1, sizeof(*drive));
	int err;

	if (!drive)
		return NULL;
	err = peerdma_uring_open(&drive->ring, PEERDMA_DRIVE_DEPTH);
	if (err) {
		free(drive);
		/* By the system or a filter, so for good. */
		if (err == -EPERM || err == -ENOSYS || err == -EACCES)
			atomic_store(&ctx->no_drives, true);
		return NULL;
	}
	prepare_table(drive);
	return drive;
}

static void drive_free(struct peerdma_drive *drive)
{
	peerdma_uring_close(&drive->ring);
	free(drive);
}

/**
 * peerdma_drive_get() - take a drive's side
 * @ctx: the context
 *
 * Return: to be given back; NULL: threads have to do.
 */
struct peerdma_drive *peerdma_drive_get(struct peerdma *ctx)
{
	struct peerdma_drive *drive;

	/* A child shares the parent's rings. */
	if (atomic_load(&ctx->no_drives) || ctx->pid != getpid())
		return NULL;
	pthread_mutex_lock(&ctx->lock);
	drive = ctx->drives;
	if (drive)
		ctx->drives = drive->next;
	pthread_mutex_unlock(&ctx->lock);
	if (!drive)
		drive = drive_new(ctx);
	if (!drive)
		return NULL;
	drive->nr_ended = 0;
	drive->began = peerdma_nanoseconds();
	return drive;
}

/**
 * peerdma_drive_put() - give it back
 * @ctx: the context
 * @drive: with nothing in flight
 */
void peerdma_drive_put(struct peerdma *ctx, struct peerdma_drive *drive)
{
	if (drive->broken) {
		atomic_store(&ctx->no_drives, true);
		drive_free(drive);
		return;
	}
	if (drive->nr_ended)
		drive->pace = (peerdma_nanoseconds() - drive->began) /
			      drive->nr_ended;
	pthread_mutex_lock(&ctx->lock);
	drive->next = ctx->drives;
	ctx->drives = drive;
	pthread_mutex_unlock(&ctx->lock);
}

/**
 * peerdma_drive_drain() - free all
 * @ctx: a context that nobody uses any more
 */
void peerdma_drive_drain(struct peerdma *ctx)
{
	struct peerdma_drive *drive;

	while ((drive = ctx->drives)) {
		ctx->drives = drive->next;
		drive_free(drive);
	}
}

/* Return: its place in the kernel's table; below 0: it is not there. */
static int fixed_place(struct peerdma_drive *drive,
		       const struct peerdma_bounce *bounce)
{
	const struct iovec vec = { bounce->addr, PEERDMA_BOUNCE_LEN };
	const struct update update = {
		.first = drive->nr_fixed,
		.data = (uintptr_t)&vec,
		.nr = 1,
	};
	unsigned int i;

	for (i = 0; i < drive->nr_fixed; i++)
		if (drive->fixed[i] == bounce->addr)
			return i;
	/* What is not pinned a fork(2) may move. */
	if (!drive->registers || !bounce->cuda || i == FIXED_MAX)
		return -1;
	drive->registers = !peerdma_uring_register(
		&drive->ring, REGISTER_BUFFERS_UPDATE, &update, sizeof(update));
	if (!drive->registers)
		return -1;
	drive->fixed[drive->nr_fixed++] = bounce->addr;
	return i;
}

/**
 * peerdma_drive_add() - put a request in line
 * @drive: with fewer than PEERDMA_DRIVE_DEPTH in line and in flight
 * @io: the request
 */
void peerdma_drive_add(struct peerdma_drive *drive,
		       const struct peerdma_drive_io *io)
{
	struct peerdma_uring_command command = {
		.opcode = io->write ? PEERDMA_URING_WRITE : PEERDMA_URING_READ,
		.fd = io->fd,
		.offset = io->offset,
		.addr = (uintptr_t)io->addr,
		.len = io->len,
		.user_data = io->tag,
	};
	int place = io->bounce ? fixed_place(drive, io->bounce) : -1;

	if (place >= 0) {
		command.opcode = io->write ? IORING_OP_WRITE_FIXED :
					     IORING_OP_READ_FIXED;
		command.buf_index = place;
	}
	peerdma_uring_push(&drive->ring, &command);
	drive->in_flight++;
}

/**
 * peerdma_drive_submit() - begin with what is in line
 * @drive: the drive's side
 *
 * Return: true: all of it, nothing is in line; false: what peerdma_drive_refused()
 * then tells will not be done, and it takes no more.
 */
bool peerdma_drive_submit(struct peerdma_drive *drive)
{
	drive->broken |= peerdma_uring_enter(&drive->ring, 0) != 0;
	return !drive->broken;
}

/**
 * peerdma_drive_refused() - a request that was not begun
 * @drive: the drive's side
 * @out_tag: of the request
 *
 * Return: false: there is none.
 */
bool peerdma_drive_refused(struct peerdma_drive *drive, uint64_t *out_tag)
{
	if (!drive->ring.nr_queued)
		return false;
	*out_tag = peerdma_uring_pull(&drive->ring);
	drive->in_flight--;
	return true;
}

/**
 * peerdma_drive_works() - does it take requests?
 * @drive: the drive's side, or NULL
 *
 * Return: false: there are threads only, if any.
 */
bool peerdma_drive_works(const struct peerdma_drive *drive)
{
	return drive && !drive->broken;
}

/* A filter that came later may forbid io_uring_enter(2), but not poll(2). */
static void wait_for_one(struct peerdma_drive *drive)
{
	struct pollfd fd = { .fd = drive->ring.fd, .events = POLLIN };

	if (!drive->broken && !peerdma_uring_enter(&drive->ring, 1))
		return;
	drive->broken = true;
	poll(&fd, 1, -1);
}

/**
 * peerdma_drive_next() - a request that has ended
 * @drive: with none in line
 * @wait: for one, where there is any in flight
 * @out_tag: of the request
 * @out_result: bytes or a negative errno
 *
 * Return: false: there is none.
 */
bool peerdma_drive_next(struct peerdma_drive *drive, bool wait,
			uint64_t *out_tag, int32_t *out_result)
{
	if (!drive->in_flight)
		return false;
	while (!peerdma_uring_ready(&drive->ring)) {
		if (!wait)
			return false;
		wait_for_one(drive);
	}
	peerdma_uring_take(&drive->ring, out_tag, out_result);
	drive->in_flight--;
	drive->nr_ended++;
	return true;
}

/**
 * peerdma_drive_one() - do one request and wait for it
 * @ctx: the context
 * @io: the request
 * @out_result: bytes or a negative errno
 *
 * Return: false: it was not begun, a thread has to do it.
 */
bool peerdma_drive_one(struct peerdma *ctx, const struct peerdma_drive_io *io,
		       int32_t *out_result)
{
	struct peerdma_drive *drive = peerdma_drive_get(ctx);
	bool begun;
	uint64_t tag;

	if (!drive)
		return false;
	peerdma_drive_add(drive, io);
	begun = peerdma_drive_submit(drive) ||
		!peerdma_drive_refused(drive, &tag);
	if (begun)
		peerdma_drive_next(drive, true, &tag, out_result);
	/* It says nothing about the pace of staged ones. */
	drive->nr_ended = 0;
	peerdma_drive_put(ctx, drive);
	return begun;
}

/**
 * peerdma_drive_doze() - let a copy that was begun get along by itself for a while
 * @drive: the drive's side, or NULL
 * @len: bytes of the copy
 *
 * CUDA's waiting keeps a CPU busy, which for a megabyte is a third of what it costs.
 * The shortest sleep is some 60 us: behind a drive that takes its time nobody notices
 * it.
 */
void peerdma_drive_doze(const struct peerdma_drive *drive, uint64_t len)
{
	const struct timespec shortest = { .tv_nsec = 1 };

	if (drive && len >= DOZE_MIN && drive->pace >= DOZE_NS)
		nanosleep(&shortest, NULL);
}
