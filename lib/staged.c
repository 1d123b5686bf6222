// SPDX-License-Identifier: MIT
/*
 * The staged path: file to host memory to buffer, or back. One thread of ours
 * moves between file and host memory while the caller's moves between host
 * memory and buffer, so that drive and copy engine work at the same time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "internal.h"

#define SLOTS	3

/*
 * Chunk k waits in slot k % SLOTS between its two stages. Each stage counts the
 * chunks that it has finished; the first one runs at most SLOTS ahead.
 */
struct pipeline {
	struct peerdma_transfer *transfer;
	struct peerdma_bounce *slots[SLOTS];
	uint64_t start;			/* in the file */
	uint64_t end;
	uint64_t nr_chunks;
	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t changed;
	uint64_t file_done;
	uint64_t buffer_done;
	size_t moved[SLOTS];		/* between file and slot */
	int err;			/* of the last chunk that the file saw */
	bool stop;
};

struct chunk {
	uint64_t offset;		/* in the file */
	size_t len;
	char *bounce;
};

/* Inner chunks start at multiples of the bounce's length: whole blocks. */
static struct chunk chunk_at(const struct pipeline *p, uint64_t k)
{
	uint64_t base = p->start & -(uint64_t)PEERDMA_BOUNCE_LEN;
	uint64_t from = base + k * PEERDMA_BOUNCE_LEN;
	uint64_t to = from + PEERDMA_BOUNCE_LEN;
	struct chunk chunk;

	chunk.offset = from > p->start ? from : p->start;
	chunk.len = (to < p->end ? to : p->end) - chunk.offset;
	chunk.bounce = p->slots[k % SLOTS]->addr;
	return chunk;
}

static int file_stage(struct pipeline *p, uint64_t k, size_t *out_moved)
{
	struct peerdma_file *file = &p->transfer->file;
	struct chunk c = chunk_at(p, k);

	if (file->write)
		return peerdma_file_store(file, c.bounce, c.offset, c.len,
					  out_moved);
	return peerdma_file_load(file, c.bounce, c.offset, c.len, out_moved);
}

static int buffer_stage(struct pipeline *p, uint64_t k, size_t len)
{
	struct peerdma_transfer *t = p->transfer;
	struct chunk c = chunk_at(p, k);
	char *bytes = c.bounce + peerdma_file_skew(&t->file, c.offset);
	uint64_t offset = t->buffer_offset + (c.offset - t->file_offset);

	if (t->file.write)
		return peerdma_copy_out(t->buf, offset, bytes, len);
	return peerdma_copy_in(t->buf, offset, bytes, len);
}

/* One chunk, or no thread to be had: one stage after the other. */
static int run_alone(struct pipeline *p)
{
	struct peerdma_transfer *t = p->transfer;
	int err, file_err = 0;
	size_t len, moved;
	uint64_t k;

	for (k = 0; k < p->nr_chunks; k++) {
		len = moved = chunk_at(p, k).len;
		if (!t->file.write)
			file_err = file_stage(p, k, &moved);
		err = moved ? buffer_stage(p, k, moved) : 0;
		if (err)
			return err;
		if (t->file.write)
			file_err = file_stage(p, k, &moved);
		err = peerdma_transfer_advance(t, moved,
					       &t->result.bytes_staged);
		if (file_err || err)
			return file_err ? file_err : err;
		if (moved < len)
			return PEERDMA_PART_SHORT;
	}
	return PEERDMA_PART_DONE;
}

static bool may_run(const struct pipeline *p, bool file_side, uint64_t k)
{
	uint64_t other = file_side ? p->buffer_done : p->file_done;
	bool first = file_side != p->transfer->file.write;

	return first ? k < other + SLOTS : k < other;
}

/* Return: false: the other side has stopped. */
static bool wait_turn(struct pipeline *p, bool file_side, uint64_t k)
{
	bool go;

	pthread_mutex_lock(&p->lock);
	while (!may_run(p, file_side, k) && !p->stop)
		pthread_cond_wait(&p->changed, &p->lock);
	go = !p->stop;
	pthread_mutex_unlock(&p->lock);
	return go;
}

static void stop(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void *file_side(void *arg)
{
	struct pipeline *p = arg;
	bool complete = true;
	size_t moved;
	uint64_t k;
	int err;

	for (k = 0; complete && k < p->nr_chunks; k++) {
		if (!wait_turn(p, true, k))
			break;
		err = file_stage(p, k, &moved);
		complete = !err && moved == chunk_at(p, k).len;
		pthread_mutex_lock(&p->lock);
		p->moved[k % SLOTS] = moved;
		p->err = err;
		p->file_done++;
		/* A reader still takes what has arrived. */
		if (!complete && p->transfer->file.write)
			p->stop = true;
		pthread_cond_signal(&p->changed);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static void buffer_side_done(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	p->buffer_done++;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static int buffer_side_read(struct pipeline *p)
{
	struct peerdma_transfer *t = p->transfer;
	size_t len, moved;
	uint64_t k;
	int err;

	for (k = 0; k < p->nr_chunks && wait_turn(p, false, k); k++) {
		len = chunk_at(p, k).len;
		moved = p->moved[k % SLOTS];
		err = moved ? buffer_stage(p, k, moved) : 0;
		if (err)
			return err;
		buffer_side_done(p);
		err = peerdma_transfer_advance(t, moved,
					       &t->result.bytes_staged);
		if (err)
			return err;
		/* The file side ended here, so its error is this chunk's. */
		if (moved < len)
			return p->err ? p->err : PEERDMA_PART_SHORT;
	}
	return PEERDMA_PART_DONE;
}

/* Count what has been written since the last time. */
static int account(struct pipeline *p, uint64_t *counted)
{
	struct peerdma_transfer *t = p->transfer;
	uint64_t done;
	int err = 0;

	pthread_mutex_lock(&p->lock);
	done = p->file_done;
	pthread_mutex_unlock(&p->lock);
	for (; !err && *counted < done; ++*counted)
		err = peerdma_transfer_advance(t, p->moved[*counted % SLOTS],
					       &t->result.bytes_staged);
	return err;
}

static int buffer_side_write(struct pipeline *p, uint64_t *counted)
{
	uint64_t k;
	int err;

	for (k = 0; k < p->nr_chunks && wait_turn(p, false, k); k++) {
		err = account(p, counted);
		if (err)
			return err;
		err = buffer_stage(p, k, chunk_at(p, k).len);
		if (err)
			return err;
		buffer_side_done(p);
	}
	return PEERDMA_PART_DONE;
}

/* Signals are the program's: its handlers run on its own threads. */
static int start_file_side(struct pipeline *p, pthread_t *out_thread)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(out_thread, NULL, file_side, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

static int run_together(struct pipeline *p)
{
	bool write = p->transfer->file.write;
	uint64_t counted = 0;
	pthread_t thread;
	int err;

	if (start_file_side(p, &thread))
		return run_alone(p);
	err = write ? buffer_side_write(p, &counted) : buffer_side_read(p);
	if (err)
		stop(p);
	pthread_join(thread, NULL);
	if (!write)
		return err;
	if (!err)
		err = account(p, &counted);
	else
		account(p, &counted);
	return err ? err : p->err;
}

static void put_slots(struct pipeline *p)
{
	unsigned int i;

	for (i = 0; i < SLOTS && p->slots[i]; i++)
		peerdma_bounce_put(p->transfer->buf->ctx, p->slots[i]);
}

static int get_slots(struct pipeline *p)
{
	struct peerdma_buffer *buf = p->transfer->buf;
	unsigned int i;

	for (i = 0; i < SLOTS && i < p->nr_chunks; i++) {
		p->slots[i] = peerdma_bounce_get(buf->ctx, buf->cuda);
		if (!p->slots[i]) {
			put_slots(p);
			return -ENOMEM;
		}
	}
	return 0;
}

static int move_by_slots(struct peerdma_transfer *t, uint64_t len)
{
	struct pipeline p = {
		.transfer = t,
		.start = t->file_offset + t->done,
		.end = t->file_offset + t->done + len,
	};
	uint64_t base = p.start & -(uint64_t)PEERDMA_BOUNCE_LEN;
	int err;

	p.nr_chunks = (p.end - base + PEERDMA_BOUNCE_LEN - 1) /
		      PEERDMA_BOUNCE_LEN;
	err = get_slots(&p);
	if (err)
		return err;
	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.changed, NULL);
	err = p.nr_chunks > 1 ? run_together(&p) : run_alone(&p);
	pthread_cond_destroy(&p.changed);
	pthread_mutex_destroy(&p.lock);
	put_slots(&p);
	return err;
}

/* Host memory and a page-cached file: the page cache is the stage. */
static int move_by_cache(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t end = t->done + len;
	struct peerdma_file *file = &t->file;
	size_t step, moved;
	char *addr;
	int err, file_err;

	while (t->done < end) {
		addr = (char *)t->buf->host + t->buffer_offset + t->done;
		step = end - t->done;
		if (step > PEERDMA_BOUNCE_LEN)
			step = PEERDMA_BOUNCE_LEN;
		if (file->write)
			file_err = peerdma_file_store(
				file, addr, t->file_offset + t->done, step,
				&moved);
		else
			file_err = peerdma_file_load(
				file, addr, t->file_offset + t->done, step,
				&moved);
		err = peerdma_transfer_advance(t, moved,
					       &t->result.bytes_staged);
		if (file_err || err)
			return file_err ? file_err : err;
		if (moved < step)
			return PEERDMA_PART_SHORT;
	}
	return PEERDMA_PART_DONE;
}

/**
 * peerdma_staged_move() - move the next bytes of a transfer through host memory
 * @t: the transfer
 * @len: bytes, any number
 *
 * Return: enum peerdma_part, not PEERDMA_PART_REFUSED; or a negative errno.
 */
int peerdma_staged_move(struct peerdma_transfer *t, uint64_t len)
{
	if (!len)
		return PEERDMA_PART_DONE;
	if (t->buf->host && !(t->file.flags & O_DIRECT))
		return move_by_cache(t, len);
	return move_by_slots(t, len);
}
