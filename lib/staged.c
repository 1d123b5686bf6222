// SPDX-License-Identifier: MIT
/* The staged path and the cache path: through host memory, or out of it. */
#include <errno.h>

#include "internal.h"

/* What is told to the caller as one step. */
#define STEP_LEN	((size_t)4 << 20)

/* Host memory and a page-cached file: the page cache is the stage. */
static int move_host(struct peerdma_transfer *t, uint64_t len,
		     uint64_t *counter)
{
	uint64_t end = t->done + len;
	struct peerdma_file *file = &t->file;
	size_t step, moved;
	char *addr;
	int err, file_err;

	while (t->done < end) {
		addr = (char *)t->buf->host + t->buffer_offset + t->done;
		step = end - t->done < STEP_LEN ? end - t->done : STEP_LEN;
		if (file->write)
			file_err = peerdma_file_store(
				file, addr, t->file_offset + t->done, step,
				&moved);
		else
			file_err = peerdma_file_load(
				file, addr, t->file_offset + t->done, step,
				&moved);
		err = peerdma_transfer_advance(t, moved, counter);
		if (file_err || err)
			return file_err ? file_err : err;
		if (moved < step)
			return PEERDMA_PART_SHORT;
	}
	return PEERDMA_PART_DONE;
}

/**
 * peerdma_staged_move() - move the next bytes of a transfer through host memory
 * @t: the transfer; its file says whether through the page cache
 * @len: bytes, any number
 * @counter: of @t->result, where they count
 *
 * Return: enum peerdma_part, not PEERDMA_PART_REFUSED; or a negative errno.
 */
int peerdma_staged_move(struct peerdma_transfer *t, uint64_t len,
			uint64_t *counter)
{
	int part;

	if (!len)
		return PEERDMA_PART_DONE;
	if (t->buf->host && !t->file.unbuffered)
		return move_host(t, len, counter);
	if (t->buf->cuda) {
		part = peerdma_small_stage(t, len, counter);
		if (part != PEERDMA_PART_REFUSED)
			return part;
	}
	return peerdma_pump_move(t, len, counter);
}
