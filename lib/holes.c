// SPDX-License-Identifier: MIT
/*
 * Holes of files: what reads as zeroes is written as zeroes, without reading
 * it. Unwritten extents count as holes, where the filesystem says so and the
 * page cache has nothing newer.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "internal.h"

/* A shorter hole is read with what is around it. */
#define HOLE_MIN	((uint64_t)256 << 10)
/* What is told to the caller as one step. */
#define STEP_LEN	((uint64_t)64 << 20)

/*
 * lseek(2) moves the offset of a description, which the caller's may share with
 * others; so it is asked of one of our own.
 */
static int own_fd(struct peerdma_file *file)
{
	return file->flags & O_DIRECT ? peerdma_file_cached(file) :
					peerdma_file_direct(file);
}

/*
 * To the next hole it may be far, and the kernel walks all the way. So what it has
 * passed is remembered. A hole that is punched there later is read, no more.
 */
static void remember_data(struct peerdma_transfer *t, uint64_t from,
			  uint64_t to)
{
	struct peerdma_buffer *buf = t->buf;

	pthread_mutex_lock(&buf->lock);
	buf->data.dev = t->file.dev;
	buf->data.ino = t->file.ino;
	buf->data.from = from;
	buf->data.to = to;
	pthread_mutex_unlock(&buf->lock);
}

static bool is_data(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t from = t->file_offset + t->done;
	struct peerdma_buffer *buf = t->buf;
	bool known;

	pthread_mutex_lock(&buf->lock);
	known = buf->data.ino == t->file.ino && buf->data.dev == t->file.dev &&
		buf->data.from <= from && buf->data.to >= from + len;
	pthread_mutex_unlock(&buf->lock);
	return known;
}

/**
 * peerdma_holes_wanted() - is it worth looking for holes?
 * @t: the transfer
 * @len: bytes that come next
 *
 * Return: true: peerdma_holes_run() may be asked.
 */
bool peerdma_holes_wanted(struct peerdma_transfer *t, uint64_t len)
{
	return t->file.sparse && len >= HOLE_MIN && !t->buf->host &&
	       t->opts.path == PEERDMA_PATH_AUTO && !is_data(t, len) &&
	       own_fd(&t->file) >= 0;
}

/* Where data begins, at @at or behind; the file's end when there is none. */
static uint64_t data_from(int fd, uint64_t at)
{
	off_t found = lseek(fd, at, SEEK_DATA);

	if (found < 0 && errno == ENXIO)
		found = lseek(fd, 0, SEEK_END);
	return found < 0 ? at : (uint64_t)found;
}

static uint64_t hole_from(struct peerdma_transfer *t, int fd, uint64_t at,
			  uint64_t end)
{
	off_t found = lseek(fd, at, SEEK_HOLE);

	if (found >= 0 && (uint64_t)found > end)
		remember_data(t, at, found);
	return found < 0 || (uint64_t)found > end ? end : (uint64_t)found;
}

/**
 * peerdma_holes_run() - how far there is a hole, or data
 * @t: of which peerdma_holes_wanted()
 * @len: bytes at most, above 0
 * @out_hole: which of the two
 *
 * Return: bytes, above 0; data may have small holes, and what lies behind the end
 * of the file is no hole.
 */
uint64_t peerdma_holes_run(struct peerdma_transfer *t, uint64_t len,
			   bool *out_hole)
{
	uint64_t start = t->file_offset + t->done, end = start + len, at, data;
	int fd = own_fd(&t->file);

	data = data_from(fd, start);
	if (data > end)
		data = end;
	*out_hole = data > start && data - start >= HOLE_MIN;
	if (*out_hole)
		return data - start;
	for (at = start; at < end; at = data) {
		at = hole_from(t, fd, data > at ? data : at, end);
		if (at >= end)
			break;
		data = data_from(fd, at);
		/* At the end of the file nothing follows. */
		if (data <= at)
			return len;
		if (data - at >= HOLE_MIN)
			return at > start ? at - start : len;
	}
	return len;
}

static int zero_by_cuda(struct peerdma_buffer *buf, uint64_t offset,
			uint64_t len)
{
	struct peerdma *ctx = buf->ctx;
	struct peerdma_lane *lane;
	int err;

	err = peerdma_lane_get(ctx, buf->pointer.context, &lane);
	if (err)
		return err;
	err = peerdma_cuda_errno(ctx->cuda.cuMemsetD8Async(
		buf->addr + offset, 0, len, lane->stream));
	if (!err)
		err = peerdma_lane_finish(ctx, lane);
	peerdma_lane_put(ctx, lane);
	return err;
}

static int zero_by_copy(struct peerdma_buffer *buf, uint64_t offset,
			uint64_t len)
{
	static const char zeroes[4096];
	uint64_t n;
	int err;

	for (; len; len -= n, offset += n) {
		n = len < sizeof(zeroes) ? len : sizeof(zeroes);
		err = peerdma_copy_in(buf, offset, zeroes, n);
		if (err)
			return err;
	}
	return 0;
}

/**
 * peerdma_holes_zero() - write the next bytes of a transfer as zeroes
 * @t: the transfer
 * @len: bytes of a hole
 *
 * Return: PEERDMA_PART_DONE or a negative errno.
 */
int peerdma_holes_zero(struct peerdma_transfer *t, uint64_t len)
{
	struct peerdma_buffer *buf = t->buf;
	uint64_t end = t->done + len, step, at;
	int err = 0;

	while (!err && t->done < end) {
		step = end - t->done < STEP_LEN ? end - t->done : STEP_LEN;
		at = t->buffer_offset + t->done;
		if (buf->cuda && buf->ctx->cuda.cuMemsetD8Async)
			err = zero_by_cuda(buf, at, step);
		else
			err = zero_by_copy(buf, at, step);
		if (!err)
			err = peerdma_transfer_advance(
				t, step, &t->result.bytes_zeroed);
	}
	return err;
}
