// SPDX-License-Identifier: MIT
/*
 * Requests of several parts. Each part has a result of its own, as the kernel's
 * FILE_IO has it: what becomes of one does not touch the others. Small parts
 * that the page cache holds are gathered: read one behind the other into pinned
 * memory, and copied together where they lie together in the buffer, too. Whole
 * blocks that the drive moves go to it together, one request for all.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "internal.h"

/* A part that nobody has begun; no length is negative. */
#define TO_DO	INT64_MIN
/* Parts that go to the drive together; the kernel chooses how many at once. */
#define RUN_MAX	1024

/**
 * peerdma_gather_wants() - is a read worth gathering?
 * @buf: its buffer
 * @write: it is none
 * @len: its bytes
 * @path: enum peerdma_path
 *
 * Return: true: peerdma_gather_read() may have it.
 */
bool peerdma_gather_wants(const struct peerdma_buffer *buf, bool write,
			  uint64_t len, uint32_t path)
{
	return !write && buf->cuda && len && len <= PEERDMA_SMALL_LEN &&
	       (path == PEERDMA_PATH_AUTO || path == PEERDMA_PATH_CACHE);
}

/**
 * peerdma_gather_begin() - get what small reads need
 * @g: filled in
 * @buf: of the first one; others of the same GPU may follow
 *
 * Return: 0: peerdma_gather_end() must follow on the same thread; a negative
 * errno.
 */
int peerdma_gather_begin(struct peerdma_gather *g, struct peerdma_buffer *buf)
{
	int err;

	g->ctx = buf->ctx;
	g->used = 0;
	g->copies.nr = 0;
	g->err = 0;
	err = peerdma_lane_get(g->ctx, buf->pointer.context, &g->lane);
	if (err)
		return err;
	/* None to be had: each read by itself needs less. */
	g->bounce = peerdma_bounce_get(g->ctx, true, false);
	if (g->bounce)
		return 0;
	peerdma_lane_put(g->ctx, g->lane);
	return -ENOMEM;
}

static void start_copies(struct peerdma_gather *g)
{
	int err = peerdma_lane_copies(g->ctx, g->lane, &g->copies);

	if (!g->err)
		g->err = err;
}

static void empty_bounce(struct peerdma_gather *g)
{
	int err;

	start_copies(g);
	err = peerdma_lane_finish(g->ctx, g->lane);
	if (!g->err)
		g->err = err;
	g->used = 0;
}

/* What has been read goes on where the last copy ends, or is another one. */
static void add_copy(struct peerdma_gather *g, uint64_t to, size_t len)
{
	struct peerdma_copies *c = &g->copies;
	unsigned int last = c->nr - 1;

	if (c->nr && c->to[last] + c->len[last] == to) {
		c->len[last] += len;
		return;
	}
	if (c->nr == PEERDMA_COPIES_MAX)
		start_copies(g);
	c->to[c->nr] = to;
	c->from[c->nr] = (uintptr_t)g->bounce->addr + g->used;
	c->len[c->nr++] = len;
}

/**
 * peerdma_gather_read() - read one more range, if the page cache holds it
 * @g: begun
 * @buf: the buffer
 * @file: of the read
 * @vec: the range, of which peerdma_gather_wants()
 * @out_moved: bytes that are on their way; less than asked for: the file ends
 *
 * Return: false: not this way.
 */
bool peerdma_gather_read(struct peerdma_gather *g, struct peerdma_buffer *buf,
			 struct peerdma_file *file,
			 const struct peerdma_io_vec *vec, size_t *out_moved)
{
	uint64_t to = buf->addr + vec->buffer_offset;

	if (file->unbuffered || buf->pointer.context != g->lane->context)
		return false;
	if (peerdma_direct_first(buf, file, vec->file_offset, vec->len))
		return false;
	if (g->used + vec->len > PEERDMA_BOUNCE_LEN)
		empty_bounce(g);
	if (peerdma_file_peek(file, (char *)g->bounce->addr + g->used,
			      vec->file_offset, vec->len, out_moved))
		return false;
	if (!*out_moved)
		return true;
	add_copy(g, to, *out_moved);
	g->used += *out_moved;
	return true;
}

/**
 * peerdma_gather_end() - wait until all has arrived
 * @g: begun
 *
 * Return: 0; a negative errno: of what was read no byte counts.
 */
int peerdma_gather_end(struct peerdma_gather *g)
{
	empty_bounce(g);
	peerdma_bounce_put(g->ctx, g->bounce);
	peerdma_lane_put(g->ctx, g->lane);
	return g->err;
}

static int check_vecs(struct peerdma_transfer *t, struct peerdma_io_vec *vecs,
		      size_t nr)
{
	uint64_t total = 0;
	int err = 0, bad;
	size_t i;

	for (i = 0; i < nr; i++) {
		bad = peerdma_transfer_check(t->buf, vecs[i].len,
					     vecs[i].file_offset,
					     vecs[i].buffer_offset);
		if (!bad && __builtin_add_overflow(total, vecs[i].len, &total))
			bad = -EINVAL;
		if (!bad && total > SSIZE_MAX)
			bad = -EINVAL;
		vecs[i].result = bad;
		err = err ? err : bad;
	}
	t->after = total;
	for (i = 0; !err && i < nr; i++)
		vecs[i].result = TO_DO;
	return err;
}

static void gather_vecs(struct peerdma_transfer *t, struct peerdma_io_vec *vecs,
			size_t nr)
{
	struct peerdma_gather g;
	size_t i, first, moved;
	uint64_t sum = 0, wanted = 0;

	for (i = 0; i < nr; i++)
		if (peerdma_gather_wants(t->buf, t->file.write, vecs[i].len,
					 t->opts.path))
			break;
	if (i == nr || peerdma_gather_begin(&g, t->buf))
		return;
	for (first = i; i < nr; i++) {
		if (!peerdma_gather_wants(t->buf, false, vecs[i].len,
					  t->opts.path) ||
		    !peerdma_gather_read(&g, t->buf, &t->file, &vecs[i],
					 &moved))
			continue;
		vecs[i].result = moved;
		sum += moved;
		wanted += vecs[i].len;
	}
	if (!peerdma_gather_end(&g)) {
		t->before = sum;
		t->after -= wanted;
		t->result.bytes_cached += sum;
		return;
	}
	/* Each by itself will tell what is wrong. */
	for (i = first; i < nr; i++)
		vecs[i].result = TO_DO;
}

/* Where @t is, within a request of several parts. */
static void enter_vec(struct peerdma_transfer *t,
		      const struct peerdma_io_vec *vec)
{
	t->file_offset = vec->file_offset;
	t->buffer_offset = vec->buffer_offset;
	t->len = vec->len;
	t->done = 0;
}

static int move_vec(struct peerdma_transfer *t, struct peerdma_io_vec *vec)
{
	int err = 0;

	if (t->cancel && atomic_load(t->cancel))
		t->cancelled = true;
	if (t->cancelled && vec->len) {
		vec->result = -ECANCELED;
		return -ECANCELED;
	}
	enter_vec(t, vec);
	if (t->len)
		err = peerdma_transfer_move(t);
	if (err > 0)
		err = 0;
	vec->result = t->done || !err ? (int64_t)t->done : err;
	return err;
}

/* Parts that are in flight together. */
struct run {
	struct peerdma_file_segment *segments;
	uint32_t nr;
	uint64_t len;			/* bytes of all of them */
};

static bool join(struct peerdma_transfer *t, struct run *run,
		 const struct peerdma_io_vec *vec)
{
	if (run->nr == RUN_MAX ||
	    vec->len > peerdma_direct_step(t) - run->len)
		return false;
	enter_vec(t, vec);
	if (!peerdma_transfer_is_direct(t))
		return false;
	run->segments[run->nr++] = (struct peerdma_file_segment){
		.file_offset = vec->file_offset,
		.buffer_offset = vec->buffer_offset,
		.len = vec->len,
	};
	run->len += vec->len;
	return true;
}

/* Those that were moved get their results. */
static void move_run(struct peerdma_transfer *t, struct run *run,
		     struct peerdma_io_vec *vecs)
{
	const struct peerdma_file_segment *s = run->segments;
	uint64_t moved;
	uint32_t i;

	t->done = 0;
	t->len = run->len;
	t->after -= run->len;
	moved = peerdma_direct_segments(t, run->segments, run->nr);
	for (i = 0; i < run->nr; vecs++) {
		if (vecs->result != TO_DO)
			continue;
		if (moved && s[i].out_result == (int64_t)s[i].len)
			vecs->result = s[i].out_result;
		i++;
	}
	t->before += moved;
	t->after += run->len - moved;
	t->done = t->len = 0;
}

/*
 * The parts from here on that are whole blocks for the drive, as one request.
 *
 * Return: parts that were looked at; what of them is to be done still goes by
 * itself.
 */
static size_t try_run(struct peerdma_transfer *t, struct run *run,
		      struct peerdma_io_vec *vecs, size_t nr)
{
	size_t i;

	run->nr = 0;
	run->len = 0;
	if (t->cancelled || (t->cancel && atomic_load(t->cancel)))
		return nr;
	for (i = 0; i < nr; i++)
		if (vecs[i].result == TO_DO && !join(t, run, &vecs[i]))
			break;
	if (run->nr > 1)
		move_run(t, run, vecs);
	return i ? i : 1;
}

/**
 * peerdma_vector_fail() - say of each part that it was not begun
 * @vecs: the parts, which get their results
 * @nr: how many
 * @err: why
 */
void peerdma_vector_fail(struct peerdma_io_vec *vecs, size_t nr, int err)
{
	size_t i;

	for (i = 0; i < nr; i++)
		vecs[i].result = err;
}

/**
 * peerdma_vector_move() - move a transfer of several parts
 * @t: begun; @t->done becomes the bytes of all parts
 * @vecs: the parts, which get their results
 * @nr: how many
 *
 * Return: 0; the first part's negative errno that has one.
 */
int peerdma_vector_move(struct peerdma_transfer *t, struct peerdma_io_vec *vecs,
			size_t nr)
{
	struct run run = { .segments = NULL };
	size_t i, looked_at = 0;
	int err, first = 0;

	err = check_vecs(t, vecs, nr);
	if (err)
		return err;
	if (!t->file.write && !t->file.unbuffered && nr > 1)
		gather_vecs(t, vecs, nr);
	/* Without memory for it each goes by itself. */
	if (nr > 1 && peerdma_direct_may(t->buf))
		run.segments = calloc(nr < RUN_MAX ? nr : RUN_MAX,
				      sizeof(*run.segments));
	for (i = 0; i < nr; i++) {
		if (run.segments && i == looked_at)
			looked_at += try_run(t, &run, vecs + i, nr - i);
		if (vecs[i].result != TO_DO)
			continue;
		t->after -= vecs[i].len;
		err = move_vec(t, &vecs[i]);
		first = first ? first : err;
		t->before += t->done;
		t->done = t->len = 0;
	}
	free(run.segments);
	t->done = t->before;
	return first;
}

static ssize_t transfer(struct peerdma_buffer *buf, int fd, bool write,
			struct peerdma_io_vec *vecs, size_t nr,
			const struct peerdma_io_opts *opts,
			struct peerdma_io_result *result)
{
	struct peerdma_transfer t = { .buf = buf };
	int err;

	err = peerdma_sized_check(result);
	if (!err && nr && !vecs)
		err = -EINVAL;
	if (err)
		return err;
	err = peerdma_transfer_take(&t, opts);
	if (!err)
		err = peerdma_slot_reach(&t);
	if (!err)
		err = peerdma_transfer_begin(&t, fd, write);
	if (err) {
		peerdma_vector_fail(vecs, nr, err);
		t.result.error = err;
		peerdma_stats_add(buf->ctx, &t.result, write);
	} else {
		peerdma_transfer_end(&t, peerdma_vector_move(&t, vecs, nr));
	}
	peerdma_sized_out(result, &t.result, sizeof(t.result));
	return t.done ? (ssize_t)t.done : t.result.error;
}

/**
 * peerdma_readv() - read parts of a file into parts of a buffer
 * @buf: the buffer
 * @fd: the file, open for reading, with or without O_DIRECT
 * @vecs: the parts, in any order; each gets its result
 * @nr: how many
 * @opts: NULL: the best path
 * @result: of all parts together; NULL: not wanted
 *
 * Return: bytes read, or a negative errno when none was.
 */
ssize_t peerdma_readv(struct peerdma_buffer *buf, int fd,
		      struct peerdma_io_vec *vecs, size_t nr,
		      const struct peerdma_io_opts *opts,
		      struct peerdma_io_result *result)
{
	return transfer(buf, fd, false, vecs, nr, opts, result);
}

/**
 * peerdma_writev() - write parts of a buffer to parts of a file
 * @buf: the buffer
 * @fd: the file, open for writing, with or without O_DIRECT
 * @vecs: the parts; each gets its result
 * @nr: how many
 * @opts: NULL: the best path
 * @result: of all parts together; NULL: not wanted
 *
 * Return: bytes written, or a negative errno when none was.
 */
ssize_t peerdma_writev(struct peerdma_buffer *buf, int fd,
		       struct peerdma_io_vec *vecs, size_t nr,
		       const struct peerdma_io_opts *opts,
		       struct peerdma_io_result *result)
{
	return transfer(buf, fd, true, vecs, nr, opts, result);
}
