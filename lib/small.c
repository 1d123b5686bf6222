// SPDX-License-Identifier: MIT
/*
 * A small read of what the page cache holds: one read(2), one copy, one wait.
 * Asking the page cache first would cost as much as reading it.
 */
#include <errno.h>

#include "internal.h"

static int copy(struct peerdma_transfer *t, struct peerdma_lane *lane,
		size_t len)
{
	struct peerdma_buffer *buf = t->buf;
	int err;

	err = peerdma_lane_copy(buf->ctx, lane,
				buf->addr + t->buffer_offset + t->done,
				lane->small, len, false);
	if (err)
		return err;
	return peerdma_lane_finish(buf->ctx, lane, 0);
}

/**
 * peerdma_small_move() - read a small range out of the page cache
 * @t: a read into CUDA memory
 * @len: bytes, at most PEERDMA_SMALL_LEN
 *
 * Return: PEERDMA_PART_DONE; PEERDMA_PART_SHORT; PEERDMA_PART_REFUSED: nothing
 * was moved, since not all is in the page cache; or a negative errno.
 */
int peerdma_small_move(struct peerdma_transfer *t, size_t len)
{
	struct peerdma *ctx = t->buf->ctx;
	struct peerdma_lane *lane;
	size_t moved;
	int err;

	err = peerdma_lane_get(ctx, t->buf->pointer.context, &lane);
	if (err)
		return err;
	err = lane->small ? peerdma_file_peek(&t->file, lane->small,
					      t->file_offset + t->done, len,
					      &moved) :
			    -ENOMEM;
	if (err) {
		peerdma_lane_put(ctx, lane);
		return PEERDMA_PART_REFUSED;
	}
	if (moved)
		err = copy(t, lane, moved);
	peerdma_lane_put(ctx, lane);
	if (!err)
		err = peerdma_transfer_advance(t, moved,
					       &t->result.bytes_cached);
	if (err)
		return err;
	return moved < len ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}
