// SPDX-License-Identifier: MIT
/*
 * A small read of what the page cache holds: one read(2), one copy, one wait.
 * Asking the page cache first would cost as much as reading it.
 */
#include <errno.h>

#include "internal.h"

/*
 * The shortest way there is. The thread's default stream waits for kernels on the
 * legacy one, as every cuMemcpy does: only where that has none.
 */
static bool is_tiny(const struct peerdma_cuda *cuda, size_t len)
{
	return len <= PEERDMA_TINY_LEN && cuda->cuMemcpyHtoD_ptds &&
	       !cuda->cuStreamQuery(NULL);
}

static int copy(struct peerdma_transfer *t, struct peerdma_lane *lane,
		void *from, size_t len)
{
	struct peerdma *ctx = t->buf->ctx;
	uint64_t to = t->buf->addr + t->buffer_offset + t->done;
	int err;

	if (from == lane->tiny)
		return peerdma_cuda_errno(
			ctx->cuda.cuMemcpyHtoD_ptds(to, from, len));
	err = peerdma_lane_copy(ctx, lane, to, from, len, false);
	if (err)
		return err;
	return peerdma_lane_finish(ctx, lane, 0);
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
	void *from;
	int err;

	err = peerdma_lane_get(ctx, t->buf->pointer.context, &lane);
	if (err)
		return err;
	from = is_tiny(&ctx->cuda, len) ? lane->tiny : lane->small;
	err = from ? peerdma_file_peek(&t->file, from, t->file_offset + t->done,
				       len, &moved) :
		     -ENOMEM;
	if (err) {
		peerdma_lane_put(ctx, lane);
		return PEERDMA_PART_REFUSED;
	}
	if (moved)
		err = copy(t, lane, from, moved);
	peerdma_lane_put(ctx, lane);
	if (!err)
		err = peerdma_transfer_advance(t, moved,
					       &t->result.bytes_cached);
	if (err)
		return err;
	return moved < len ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}
