// SPDX-License-Identifier: MIT
#include <errno.h>
#include <limits.h>

#include "internal.h"

/**
 * peerdma_transfer_advance() - count bytes that were moved
 * @t: the transfer
 * @len: how many
 * @counter: of @t->result, the path that they took
 *
 * Return: 0; -ECANCELED: the caller wants no more.
 */
int peerdma_transfer_advance(struct peerdma_transfer *t, size_t len,
			     uint64_t *counter)
{
	t->done += len;
	*counter += len;
	if (t->opts.progress && !t->cancelled)
		t->cancelled = t->opts.progress(t->opts.arg, t->done, t->len);
	return t->cancelled ? -ECANCELED : 0;
}

/**
 * peerdma_transfer_blame() - note why not all goes directly
 * @t: the transfer
 * @reason: the first one stays
 */
void peerdma_transfer_blame(struct peerdma_transfer *t, int reason)
{
	if (!t->result.reason)
		t->result.reason = reason;
}

static int check_range(const struct peerdma_buffer *buf, size_t len,
		       uint64_t file_offset, uint64_t buffer_offset)
{
	if (len > SSIZE_MAX)
		return -EINVAL;
	if (file_offset > INT64_MAX || len > INT64_MAX - file_offset)
		return -EOVERFLOW;
	return peerdma_buffer_range(buf, buffer_offset, len);
}

static int take_opts(struct peerdma_io_opts *o,
		     const struct peerdma_io_opts *opts)
{
	int err;

	err = peerdma_sized_in(o, sizeof(*o), opts);
	if (err)
		return err;
	if (o->flags || o->reserved || o->path > PEERDMA_PATH_STAGED)
		return -EOPNOTSUPP;
	return 0;
}

/* What the direct path cannot do the staged one does, unless forced. */
static int stage_instead(struct peerdma_transfer *t, uint64_t len, int reason)
{
	peerdma_transfer_blame(t, reason);
	if (t->opts.path == PEERDMA_PATH_DIRECT)
		return -EOPNOTSUPP;
	return peerdma_staged_move(t, len, &t->result.bytes_staged);
}

static int move_middle(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t end = t->done + len;
	int part;

	part = peerdma_direct_move(t, len);
	if (part != PEERDMA_PART_REFUSED)
		return part;
	return stage_instead(t, end - t->done, t->result.reason);
}

/*
 * Unbuffered reads write zeroes behind the end of a file: the direct path stops
 * at its last whole block, and the staged one finds the end to the byte.
 */
static uint64_t direct_len(const struct peerdma_transfer *t)
{
	uint64_t left = 0;

	if (t->file.end > t->file_offset)
		left = t->file.end - t->file_offset;
	return left < t->len ? left : t->len;
}

static int move(struct peerdma_transfer *t)
{
	uint64_t *staged = &t->result.bytes_staged, len = direct_len(t);
	struct peerdma_split split;
	uint64_t place;
	int part;

	if (t->opts.path == PEERDMA_PATH_STAGED)
		return stage_instead(t, t->len, PEERDMA_REASON_FORCED);
	part = peerdma_direct_probe(t->buf, &t->file, &t->probe);
	if (part)
		return part;
	if (t->probe.reason)
		return stage_instead(t, t->len, t->probe.reason);
	if (!len)
		return peerdma_staged_move(t, t->len, staged);
	split = peerdma_split_range(t->file_offset, len, t->probe.align);
	place = t->buf->fd_offset + t->buffer_offset + split.head;
	if (!split.middle || place % t->probe.memory_align)
		return stage_instead(t, t->len, PEERDMA_REASON_MISALIGNED);
	part = peerdma_staged_move(t, split.head, staged);
	if (!part)
		part = move_middle(t, split.middle);
	if (!part)
		part = peerdma_staged_move(t, t->len - t->done, staged);
	if (t->result.bytes_staged)
		peerdma_transfer_blame(t, PEERDMA_REASON_MISALIGNED);
	return part;
}

static ssize_t transfer(struct peerdma_transfer *t, int fd, bool write,
			const struct peerdma_io_opts *opts,
			struct peerdma_io_result *result)
{
	int err;

	err = take_opts(&t->opts, opts);
	if (!err)
		err = check_range(t->buf, t->len, t->file_offset,
				  t->buffer_offset);
	if (!err && !write && t->buf->read_only)
		err = -EACCES;
	if (!err)
		err = peerdma_file_open(&t->file, fd, write);
	if (err)
		goto out_result;
	if (t->len)
		err = move(t);
	peerdma_file_close(&t->file);
out_result:
	t->result.error = err < 0 ? err : 0;
	if (peerdma_sized_out(result, &t->result, sizeof(t->result)))
		return -EINVAL;
	return t->done ? (ssize_t)t->done : t->result.error;
}

/**
 * peerdma_read_opts() - read a file into a buffer
 * @buf: the buffer
 * @fd: the file, open for reading, with or without O_DIRECT
 * @len: bytes, any number
 * @file_offset: where in the file, as pread(2) counts
 * @buffer_offset: where in the buffer
 * @opts: NULL: the best path
 * @result: which way it went and why; NULL: not wanted
 *
 * Return: bytes read, fewer than @len where the file ends or something ended the
 * transfer early (@result tells); or a negative errno when none was.
 */
ssize_t peerdma_read_opts(struct peerdma_buffer *buf, int fd, size_t len,
			  uint64_t file_offset, uint64_t buffer_offset,
			  const struct peerdma_io_opts *opts,
			  struct peerdma_io_result *result)
{
	struct peerdma_transfer t = {
		.buf = buf,
		.file_offset = file_offset,
		.buffer_offset = buffer_offset,
		.len = len,
	};

	return transfer(&t, fd, false, opts, result);
}

/**
 * peerdma_write_opts() - write a buffer to a file
 * @buf: the buffer
 * @fd: the file, open for writing, with or without O_DIRECT
 * @len: bytes, any number
 * @file_offset: where in the file, as pwrite(2) counts
 * @buffer_offset: where in the buffer
 * @opts: NULL: the best path
 * @result: which way it went and why; NULL: not wanted
 *
 * Return: bytes written, fewer than @len when something ended the transfer early
 * (@result tells); or a negative errno when none was.
 */
ssize_t peerdma_write_opts(struct peerdma_buffer *buf, int fd, size_t len,
			   uint64_t file_offset, uint64_t buffer_offset,
			   const struct peerdma_io_opts *opts,
			   struct peerdma_io_result *result)
{
	struct peerdma_transfer t = {
		.buf = buf,
		.file_offset = file_offset,
		.buffer_offset = buffer_offset,
		.len = len,
	};

	return transfer(&t, fd, true, opts, result);
}

/**
 * peerdma_read() - read a file into a buffer by the best path
 * @buf: the buffer
 * @fd: the file, open for reading, with or without O_DIRECT
 * @len: bytes, any number
 * @file_offset: where in the file, as pread(2) counts
 * @buffer_offset: where in the buffer
 *
 * Return: as peerdma_read_opts().
 */
ssize_t peerdma_read(struct peerdma_buffer *buf, int fd, size_t len,
		     uint64_t file_offset, uint64_t buffer_offset)
{
	return peerdma_read_opts(buf, fd, len, file_offset, buffer_offset, NULL,
				 NULL);
}

/**
 * peerdma_write() - write a buffer to a file by the best path
 * @buf: the buffer
 * @fd: the file, open for writing, with or without O_DIRECT
 * @len: bytes, any number
 * @file_offset: where in the file, as pwrite(2) counts
 * @buffer_offset: where in the buffer
 *
 * Return: as peerdma_write_opts().
 */
ssize_t peerdma_write(struct peerdma_buffer *buf, int fd, size_t len,
		      uint64_t file_offset, uint64_t buffer_offset)
{
	return peerdma_write_opts(buf, fd, len, file_offset, buffer_offset,
				  NULL, NULL);
}
