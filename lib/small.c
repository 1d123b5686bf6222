// SPDX-License-Identifier: MIT
/*
 * Small requests: one read(2), one copy, one wait, or the other way about, without
 * bounces and threads. Asking the page cache first would cost as much as reading it.
 *
 * cuMemcpy() of memory that is not pinned returns sooner, but before the
 * bytes have arrived: they would be there for work on the same stream, and not
 * yet for another device.
 */
#include <errno.h>

#include "internal.h"

/* One pread(2) of a drive, and one copy: pieces would overlap nothing. */
#define ONCE_MAX	((size_t)256 << 10)

_Static_assert(ONCE_MAX <= PEERDMA_BOUNCE_LEN, "it fits");

/* One request's, and where its bytes lie. */
struct small {
	struct peerdma_transfer *t;
	struct peerdma_lane *lane;
	char *bytes;
	size_t len;
	size_t moved;
};

static uint64_t file_place(const struct small *s)
{
	return s->t->file_offset + s->t->done;
}

/* Return: 0 or a negative errno; nothing is under way then. */
static int copy(const struct small *s, size_t len)
{
	struct peerdma_transfer *t = s->t;
	struct peerdma *ctx = t->buf->ctx;
	int err;

	err = peerdma_lane_copy(ctx, s->lane, peerdma_transfer_addr(t), s->bytes,
				len, t->file.write);
	if (err)
		return err;
	peerdma_lane_sign(ctx, s->lane);
	return peerdma_lane_finish(ctx, s->lane);
}

/* What was read before an error counts, once it has arrived. */
static int copy_read(struct small *s)
{
	int err = s->moved ? copy(s, s->moved) : 0;

	if (err)
		s->moved = 0;
	return err;
}

static int read_cached(struct small *s)
{
	int part = peerdma_transfer_peek(s->t, s->bytes, s->len, &s->moved);

	return part ? part : copy_read(s);
}

static int move_staged(struct small *s)
{
	struct peerdma_file *file = &s->t->file;
	int err, copy_err;

	if (file->write) {
		err = copy(s, s->len);
		return err ? err : peerdma_file_store(file, s->bytes,
						      file_place(s), s->len,
						      &s->moved);
	}
	err = peerdma_file_load(file, s->bytes, file_place(s), s->len,
				&s->moved);
	copy_err = copy_read(s);
	return err ? err : copy_err;
}

/* @memory: pinned; NULL: the lane's own */
static int move(struct small *s, char *memory, size_t skew,
		int (*by)(struct small *s), uint64_t *counter)
{
	struct peerdma_transfer *t = s->t;
	struct peerdma *ctx = t->buf->ctx;
	int part, err;

	err = peerdma_lane_get(ctx, t->buf->pointer.context, &s->lane);
	if (err)
		return err;
	part = PEERDMA_PART_REFUSED;
	if (!memory)
		memory = s->lane->small;
	if (memory) {
		s->bytes = memory + skew;
		part = by(s);
	}
	peerdma_lane_put(ctx, s->lane);
	if (part == PEERDMA_PART_REFUSED)
		return part;
	err = peerdma_transfer_advance(t, s->moved, counter);
	if (part || err)
		return part ? part : err;
	return s->moved < s->len ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}

/**
 * peerdma_small_move() - read a small range out of the page cache
 * @t: into CUDA memory; its file without O_DIRECT
 * @len: bytes, at most PEERDMA_SMALL_LEN
 * @counter: of @t->result, where they count
 *
 * Return: PEERDMA_PART_DONE; PEERDMA_PART_SHORT; PEERDMA_PART_REFUSED: nothing
 * was moved, since not all that is to be read is in the page cache; or a negative
 * errno.
 */
int peerdma_small_move(struct peerdma_transfer *t, size_t len,
		       uint64_t *counter)
{
	struct small s = { .t = t, .len = len };

	return move(&s, NULL, 0, read_cached, counter);
}

/* What does not fit into the lane's memory, by way of a bounce. */
static int stage_once(struct small *s, size_t skew, uint64_t *counter)
{
	struct peerdma *ctx = s->t->buf->ctx;
	struct peerdma_bounce *bounce;
	int part = PEERDMA_PART_REFUSED;

	bounce = peerdma_bounce_get(ctx, true, false);
	if (!bounce)
		return part;
	if (bounce->cuda)
		part = move(s, bounce->addr, skew, move_staged, counter);
	peerdma_bounce_put(ctx, bounce);
	return part;
}

/**
 * peerdma_small_stage() - move a small range through host memory
 * @t: to or from CUDA memory; its file says whether through the page cache, of
 *	which several threads read more than PEERDMA_SMALL_LEN sooner
 * @len: bytes
 * @counter: of @t->result, where they count
 *
 * Return: as peerdma_small_move(); PEERDMA_PART_REFUSED: with the blocks that it
 * lies in it is not small.
 */
int peerdma_small_stage(struct peerdma_transfer *t, uint64_t len,
			uint64_t *counter)
{
	struct small s = { .t = t, .len = len };
	size_t align, skew, blocks;

	if (len > ONCE_MAX)
		return PEERDMA_PART_REFUSED;
	align = peerdma_file_align(&t->file);
	skew = file_place(&s) & (align - 1);
	blocks = (skew + len + align - 1) & -align;
	if (blocks <= PEERDMA_SMALL_LEN)
		return move(&s, NULL, skew, move_staged, counter);
	if (t->file.unbuffered && blocks <= ONCE_MAX)
		return stage_once(&s, skew, counter);
	return PEERDMA_PART_REFUSED;
}
