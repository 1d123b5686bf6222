// SPDX-License-Identifier: MIT
/*
 * Small requests and the page cache: one read(2), one copy, one wait, or the
 * other way about. Asking the page cache first would cost as much as reading it.
 *
 * cuMemcpy() of memory that is not pinned returns sooner, but before the
 * bytes have arrived: they would be there for work on the same stream, and not
 * yet for another device.
 */
#include <errno.h>

#include "internal.h"

/* Return: 0 or a negative errno; nothing is under way then. */
static int copy(struct peerdma_transfer *t, struct peerdma_lane *lane,
		size_t len)
{
	struct peerdma *ctx = t->buf->ctx;
	uint64_t at = t->buf->addr + t->buffer_offset + t->done;
	int err;

	err = peerdma_lane_copy(ctx, lane, at, lane->small, len,
				t->file.write);
	return err ? err : peerdma_lane_finish_soon(ctx, lane);
}

static int read_small(struct peerdma_transfer *t, struct peerdma_lane *lane,
		      size_t len, size_t *out_moved)
{
	if (peerdma_direct_first(t->buf, &t->file, t->file_offset + t->done,
				 len))
		return PEERDMA_PART_REFUSED;
	if (peerdma_file_peek(&t->file, lane->small, t->file_offset + t->done,
			      len, out_moved))
		return PEERDMA_PART_REFUSED;
	return *out_moved ? copy(t, lane, *out_moved) : 0;
}

static int write_small(struct peerdma_transfer *t, struct peerdma_lane *lane,
		       size_t len, size_t *out_moved)
{
	int err = copy(t, lane, len);

	*out_moved = 0;
	if (err)
		return err;
	return peerdma_file_store(&t->file, lane->small,
				  t->file_offset + t->done, len, out_moved);
}

/**
 * peerdma_small_move() - move a small range through the page cache
 * @t: to or from CUDA memory; its file without O_DIRECT
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
	struct peerdma *ctx = t->buf->ctx;
	struct peerdma_lane *lane;
	size_t moved = 0;
	int part, err;

	err = peerdma_lane_get(ctx, t->buf->pointer.context, &lane);
	if (err)
		return err;
	if (!lane->small)
		part = PEERDMA_PART_REFUSED;
	else if (t->file.write)
		part = write_small(t, lane, len, &moved);
	else
		part = read_small(t, lane, len, &moved);
	peerdma_lane_put(ctx, lane);
	if (part == PEERDMA_PART_REFUSED || (part && !t->file.write))
		return part;
	err = peerdma_transfer_advance(t, moved, counter);
	if (part || err)
		return part ? part : err;
	return moved < len ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}
