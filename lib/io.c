// SPDX-License-Identifier: MIT
#include <errno.h>
#include <limits.h>

#include "internal.h"

/* Below that a second opening and a slow drive cost more than the page cache. */
#define UNBUFFERED_MIN	((uint64_t)1 << 20)

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
		t->cancelled = t->opts.progress(t->opts.arg,
						  t->before + t->done,
						  t->before + t->len +
							  t->after);
	if (t->cancel && atomic_load(t->cancel))
		t->cancelled = true;
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

/**
 * peerdma_transfer_check() - may a range be moved at all?
 * @buf: the buffer
 * @len: bytes
 * @file_offset: where in the file
 * @buffer_offset: where in the buffer
 *
 * Return: 0; -EINVAL: no ssize_t counts so much; -EOVERFLOW; -ERANGE.
 */
int peerdma_transfer_check(const struct peerdma_buffer *buf, size_t len,
			   uint64_t file_offset, uint64_t buffer_offset)
{
	if (len > SSIZE_MAX)
		return -EINVAL;
	if (file_offset > INT64_MAX || len > INT64_MAX - file_offset)
		return -EOVERFLOW;
	return peerdma_buffer_range(buf, buffer_offset, len);
}

/**
 * peerdma_transfer_take() - take a caller's options
 * @t: with its buffer
 * @opts: the caller's; NULL: defaults
 *
 * Return: 0 or a negative errno.
 */
int peerdma_transfer_take(struct peerdma_transfer *t,
			  const struct peerdma_io_opts *opts)
{
	struct peerdma_io_opts *o = &t->opts;
	int err;

	err = peerdma_sized_in(o, sizeof(*o), opts);
	if (err)
		return err;
	if (o->flags & ~PEERDMA_IO_STREAM || o->reserved ||
	    o->path > PEERDMA_PATH_CACHE)
		return -EOPNOTSUPP;
	if (o->flags & PEERDMA_IO_STREAM ? !t->buf->cuda : o->stream != NULL)
		return -EINVAL;
	return 0;
}

/*
 * A file that is read, and whose pages the cache does not hold, goes around it
 * where that pays: the drive writes to the stage itself.
 */
static int stage(struct peerdma_transfer *t, uint64_t len)
{
	struct peerdma_file *file = &t->file;
	bool unbuffered = file->unbuffered;
	int part;

	if (t->opts.path == PEERDMA_PATH_AUTO && !file->write &&
	    !t->buf->host && len >= UNBUFFERED_MIN)
		file->unbuffered = peerdma_file_direct(file) >= 0;
	part = peerdma_staged_move(t, len, &t->result.bytes_staged);
	file->unbuffered = unbuffered;
	return part;
}

/* What the direct path cannot do the staged one does, unless forced. */
static int stage_instead(struct peerdma_transfer *t, uint64_t len, int reason)
{
	peerdma_transfer_blame(t, reason);
	if (t->opts.path == PEERDMA_PATH_DIRECT)
		return -EOPNOTSUPP;
	return stage(t, len);
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
static uint64_t direct_len(const struct peerdma_transfer *t, uint64_t len)
{
	uint64_t from = t->file_offset + t->done, left = 0;

	if (t->file.end > from)
		left = t->file.end - from;
	return left < len ? left : len;
}

/**
 * peerdma_transfer_probe() - find out whether the direct path is open, once
 * @t: begun; @t->probe gets the answer
 *
 * Return: 0 or a negative errno.
 */
int peerdma_transfer_probe(struct peerdma_transfer *t)
{
	int err;

	if (!t->probed)
		t->probed = peerdma_direct_known(t->buf, &t->file, &t->probe);
	if (t->probed)
		return 0;
	err = peerdma_direct_probe(t->buf, &t->file, &t->probe);
	t->probed = !err;
	return err;
}

/* Around the page cache: the aligned middle directly, the rest staged. */
static int move_uncached(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t *staged = &t->result.bytes_staged, end = t->done + len;
	uint64_t direct = direct_len(t, len), place;
	struct peerdma_split split;
	int part;

	part = peerdma_transfer_probe(t);
	if (part)
		return part;
	if (t->probe.reason)
		return stage_instead(t, len, t->probe.reason);
	if (!direct)
		return peerdma_staged_move(t, len, staged);
	split = peerdma_split_range(t->file_offset + t->done, direct,
				    t->probe.align);
	place = t->buf->fd_offset + t->buffer_offset + t->done + split.head;
	/* Parts of blocks are staged, even where the direct path is forced. */
	if (!split.middle) {
		peerdma_transfer_blame(t, PEERDMA_REASON_MISALIGNED);
		return stage(t, len);
	}
	if (place % t->probe.memory_align)
		return stage_instead(t, len, PEERDMA_REASON_MISALIGNED);
	part = peerdma_staged_move(t, split.head, staged);
	if (!part)
		part = move_middle(t, split.middle);
	if (!part)
		part = peerdma_staged_move(t, end - t->done, staged);
	if (t->result.bytes_staged)
		peerdma_transfer_blame(t, PEERDMA_REASON_MISALIGNED);
	return part;
}

static int move_cached(struct peerdma_transfer *t, uint64_t len)
{
	if (peerdma_file_cached(&t->file) < 0) {
		peerdma_transfer_blame(t, PEERDMA_REASON_NO_REOPEN);
		return -EOPNOTSUPP;
	}
	t->file.unbuffered = false;
	return peerdma_staged_move(t, len, &t->result.bytes_cached);
}

/* Each part of the file from where it is: memory, or the drive. */
static int move_by_residency(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t end = t->done + len, run;
	bool resident;
	int part = 0;

	while (!part && t->done < end) {
		run = peerdma_residency_run(&t->file,
					    t->file_offset + t->done,
					    end - t->done, &resident);
		part = resident ? move_cached(t, run) : move_uncached(t, run);
	}
	return part;
}

static int move_data(struct peerdma_transfer *t, uint64_t len)
{
	/* Who opens a file with O_DIRECT wants the page cache left alone. */
	if (t->file.write || t->file.unbuffered || t->buf->host)
		return move_uncached(t, len);
	return move_by_residency(t, len);
}

static int move_around_holes(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t end = t->done + len, run;
	int part = 0;
	bool hole;

	while (!part && t->done < end) {
		run = peerdma_holes_run(t, end - t->done, &hole);
		part = hole ? peerdma_holes_zero(t, run) : move_data(t, run);
	}
	return part;
}

/* Without regions. */
static int move_plainly(struct peerdma_transfer *t, uint64_t len)
{
	int part;

	if (t->opts.path == PEERDMA_PATH_CACHE)
		return move_cached(t, len);
	if (peerdma_holes_wanted(t, len))
		return move_around_holes(t, len);
	if (!t->file.write && !t->file.unbuffered && t->buf->cuda &&
	    len <= PEERDMA_SMALL_LEN) {
		part = peerdma_small_move(t, len, &t->result.bytes_cached);
		if (part != PEERDMA_PART_REFUSED)
			return part;
	}
	return move_data(t, len);
}

/* What came out of the page cache may be worth keeping there. */
static int move_and_note(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t from = t->done, cached = t->result.bytes_cached;
	int part = move_plainly(t, len);
	uint64_t moved = t->done - from;

	if (len >= PEERDMA_REGION_MIN && moved &&
	    t->result.bytes_cached - cached == moved)
		peerdma_keep_note(t, t->file_offset + from, moved);
	return part;
}

static int move_by_regions(struct peerdma_transfer *t)
{
	int part = 0;
	uint64_t run;

	while (!part && t->done < t->len) {
		run = t->len - t->done;
		part = PEERDMA_PART_REFUSED;
		/* Less would be refused, but only after a search. */
		if (run >= PEERDMA_REGION_MIN)
			part = peerdma_region_move(t, &run);
		if (part == PEERDMA_PART_REFUSED)
			part = move_and_note(t, run);
	}
	return part;
}

/* May the page cache, or a region, be left out of account? */
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

/**
 * peerdma_transfer_is_direct() - will FILE_IO do for all of a transfer?
 * @t: begun, of which nothing was moved
 *
 * Return: true: peerdma_transfer_move() would do nothing else.
 */
bool peerdma_transfer_is_direct(struct peerdma_transfer *t)
{
	if (t->opts.path != PEERDMA_PATH_AUTO &&
	    t->opts.path != PEERDMA_PATH_DIRECT)
		return false;
	return t->len && peerdma_direct_may(t->buf) && is_uncached(t) &&
	       !peerdma_transfer_probe(t) && !t->probe.reason &&
	       !t->probe.by_pages &&
	       peerdma_direct_fits(t, &t->probe, t->file.end);
}

static int move_by_path(struct peerdma_transfer *t)
{
	uint64_t len = t->len - t->done;

	switch (t->opts.path) {
	case PEERDMA_PATH_DIRECT:
		return move_uncached(t, len);
	case PEERDMA_PATH_STAGED:
		return stage_instead(t, len, PEERDMA_REASON_FORCED);
	default:
		break;
	}
	if (t->file.write || !t->buf->cuda)
		return move_plainly(t, len);
	return move_by_regions(t);
}

/**
 * peerdma_transfer_peek() - the next bytes to host memory, if they are cached
 * @t: a read of a file without O_DIRECT
 * @dst: where to
 * @len: bytes, at most PEERDMA_SMALL_LEN
 * @out_moved: bytes that arrived, less than @len where the file ends
 *
 * Return: 0, or PEERDMA_PART_REFUSED: not all of it is in the page cache.
 */
int peerdma_transfer_peek(struct peerdma_transfer *t, void *dst, size_t len,
			  size_t *out_moved)
{
	uint64_t from = t->file_offset + t->done;

	if (peerdma_direct_first(t->buf, &t->file, from, len) ||
	    peerdma_file_peek(&t->file, dst, from, len, out_moved))
		return PEERDMA_PART_REFUSED;
	return 0;
}

/* What nobody need wait for is put into the stream, all else comes after it. */
static int move_in_stream(struct peerdma_transfer *t)
{
	int part = PEERDMA_PART_REFUSED;

	if (!t->file.write && !t->file.unbuffered &&
	    t->len < PEERDMA_REGION_MIN &&
	    (t->opts.path == PEERDMA_PATH_AUTO ||
	     t->opts.path == PEERDMA_PATH_CACHE))
		part = peerdma_slot_move(t, t->len, &t->result.bytes_cached);
	if (part != PEERDMA_PART_REFUSED)
		return part;
	part = peerdma_slot_reach(t);
	return part ? part : move_by_path(t);
}

/**
 * peerdma_transfer_move() - move what is left of a transfer
 * @t: begun
 *
 * Return: enum peerdma_part or a negative errno.
 */
int peerdma_transfer_move(struct peerdma_transfer *t)
{
	int part;

	if (t->opts.flags & PEERDMA_IO_STREAM)
		part = move_in_stream(t);
	else
		part = move_by_path(t);

	/* Stopped too late: all of it is there. */
	if (part == -ECANCELED && t->done == t->len)
		return PEERDMA_PART_DONE;
	return part;
}

static int check_buffer(const struct peerdma_transfer *t, bool write)
{
	int err;

	err = peerdma_transfer_check(t->buf, t->len, t->file_offset,
				     t->buffer_offset);
	if (err)
		return err;
	return !write && t->buf->read_only ? -EACCES : 0;
}

/**
 * peerdma_transfer_begin() - check a transfer's two ends
 * @t: with buffer, range and options
 * @fd: the caller's file
 * @write: to the file, else from it
 *
 * Return: 0: peerdma_transfer_end() must follow; a negative errno.
 */
int peerdma_transfer_begin(struct peerdma_transfer *t, int fd, bool write)
{
	int err = check_buffer(t, write);

	return err ? err : peerdma_file_open(&t->file, fd, write);
}

/**
 * peerdma_transfer_end() - let go of the file, and count
 * @t: begun
 * @err: what the last part answered
 */
void peerdma_transfer_end(struct peerdma_transfer *t, int err)
{
	t->result.error = err < 0 ? err : 0;
	peerdma_stats_add(t->buf->ctx, &t->result, t->file.write);
	peerdma_file_close(&t->file);
}

/* @t: whose buffer was checked */
static void move_file(struct peerdma_transfer *t, int fd, bool write)
{
	int err;

	err = peerdma_file_open(&t->file, fd, write);
	if (err) {
		t->result.error = err;
		peerdma_stats_add(t->buf->ctx, &t->result, write);
		return;
	}
	if (t->len)
		err = peerdma_transfer_move(t);
	peerdma_direct_note(t);
	peerdma_transfer_end(t, err);
}

static ssize_t transfer(struct peerdma_transfer *t, int fd, bool write,
			const struct peerdma_io_opts *opts,
			struct peerdma_io_result *result)
{
	int err;

	err = peerdma_sized_check(result);
	if (err)
		return err;
	err = peerdma_transfer_take(t, opts);
	if (!err)
		err = check_buffer(t, write);
	if (err || peerdma_direct_again(t, fd, write)) {
		t->result.error = err;
		peerdma_stats_add(t->buf->ctx, &t->result, write);
	} else {
		move_file(t, fd, write);
	}
	peerdma_sized_out(result, &t->result, sizeof(t->result));
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
