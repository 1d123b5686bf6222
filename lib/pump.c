// SPDX-License-Identifier: MIT
/*
 * The pump: file to host memory to buffer, or back, in pieces. Any number of
 * threads move pieces between file and host memory, or of an unbuffered file an
 * io_uring (drive.c) and no thread beside the caller's; the caller's own one moves
 * them between host memory and buffer, in order, and by as few copies as it can:
 * CUDA takes one lock for all its callers, and copies of less than a megabyte cost
 * more than they move.
 *
 * Piece k lies in slot k % ring of the bounces. What was moved is a range without
 * a gap: pieces behind one that failed or ended short are forgotten. For reads
 * they never reach the buffer; for writes they may have reached the file, as with
 * any asynchronous writes.
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

_Static_assert(PEERDMA_SMALL_LEN >= PEERDMA_STREAM_LEN,
	       "a lane's small memory is its caller's scratch");

#define PIECE_MIN	((size_t)32 << 10)
#define PIECE_MAX	((size_t)512 << 10)
/* Where copies follow close behind. */
#define STREAM_PIECE_MAX	((size_t)128 << 10)
/* Where the ring turns: rows of such copies lose least. */
#define TURNING_PIECE	((size_t)1 << 20)
/* Enough that all threads work and the first copy starts early. */
#define PIECES_MIN	16
/* One thread writes to the page cache, and needs no small pieces to share. */
#define WRITE_PIECE_MIN	((size_t)128 << 10)
/* A drive has a cost for every request, and does several at a time. */
#define DRIVE_PIECE_MIN	((size_t)1 << 20)
#define DRIVE_PIECE_MAX	((size_t)2 << 20)
#define DRIVE_PIECES	8
#define SLOTS_MAX	256
/* Below that many pieces a caller is done before help comes. */
#define HELPED_MIN	4
/* Up to that many it works itself instead of waiting for others. */
#define ALONE_MAX	32
#define READERS		8
/* With less to do for each of them, more of them only cost CPU time. */
#define READER_MIN	((uint64_t)256 << 10)
#define HELPERS_MIN	2
/* Of longer reads most has left the caches by itself before it is copied. */
#define STREAMED_MAX	((uint64_t)64 << 20)
/* More than that in line gain nothing; what is read meanwhile goes together. */
#define COPIES_MAX	2
/* Looks away between two looks at the GPU, which cost everybody CUDA's lock. */
#define PAUSES		16
/* A page-cached piece takes less than going to sleep and waking; nanoseconds. */
#define AWAKE_NS	20000
/* At a drive; more gain nothing, and cost CPU time. */
#define WIDTH_UNBUFFERED	4
/* Less is one pread(2), which is a system call as well. */
#define DRIVE_MIN		((uint64_t)256 << 10)

_Static_assert(WIDTH_UNBUFFERED <= PEERDMA_DRIVE_DEPTH, "room in its ring");

/* Written by who moved the piece, before @piece says that it is there. */
struct slot {
	_Atomic uint64_t piece;		/* that lies here, plus one */
	size_t moved;			/* between file and slot */
	int err;
};

/* Owned by one call and its stack; helpers are gone when it ends. */
struct pump {
	struct peerdma_job job;		/* first: run() finds the pump by it */
	struct peerdma_transfer *transfer;
	uint64_t *counter;
	struct peerdma_lane *lane;	/* NULL: the CPU copies */
	struct peerdma_drive *drive;	/* NULL: threads are at the file */
	struct peerdma_bounce *bounces[PEERDMA_BOUNCES];
	unsigned int nr_bounces;
	uint64_t start;			/* in the file */
	uint64_t end;
	size_t piece;			/* bytes */
	uint64_t base;			/* of piece 0, a multiple of piece */
	uint64_t nr;			/* pieces */
	unsigned int ring;		/* slots */
	unsigned int width;		/* threads at the file at once */
	/* The caller's own. */
	uint64_t copied;		/* pieces: copies were started */
	uint64_t counted;		/* bytes that the transfer knows of */
	uint64_t written;		/* pieces that were counted */
	bool gap;			/* a piece could not be written */
	bool marks;			/* constant: a mark behind every copy */
	bool streams;			/* constant: reads go past the caches */
	bool alert;			/* constant: waits awake for a moment */
	/* Guarded by lock. */
	pthread_mutex_t lock;
	pthread_cond_t room;		/* for helpers */
	pthread_cond_t ready;		/* for the caller */
	unsigned int nr_waiting;	/* for room */
	bool awaited;			/* the caller waits for a piece */
	uint64_t claimed;		/* pieces that the file side has begun */
	uint64_t open;			/* pieces that it may begin */
	unsigned int active;		/* threads at the file */
	bool stop;
	struct slot slots[SLOTS_MAX];
};

struct piece {
	uint64_t offset;		/* in the file */
	size_t len;
	char *addr;
};

static struct piece piece_at(const struct pump *p, uint64_t k)
{
	uint64_t from = p->base + k * p->piece, to = from + p->piece;
	size_t at = k % p->ring * p->piece;
	struct piece piece;

	piece.addr = (char *)p->bounces[at / PEERDMA_BOUNCE_LEN]->addr +
		     at % PEERDMA_BOUNCE_LEN;
	piece.offset = from;
	if (from < p->start) {
		piece.offset = p->start;
		piece.addr += p->start - from;
	}
	piece.len = (to < p->end ? to : p->end) - piece.offset;
	return piece;
}

/* Does it follow the piece before it in memory, within one bounce? */
static bool follows(const struct pump *p, uint64_t k)
{
	return k % p->ring && k % p->ring * p->piece % PEERDMA_BOUNCE_LEN;
}

/* ---- the file's side: helpers, and the caller where it has time ---------- */

static bool may_claim(const struct pump *p)
{
	return !p->stop && p->claimed < p->open && p->active < p->width;
}

static bool claim(struct pump *p, bool wait, uint64_t *k)
{
	bool go;

	pthread_mutex_lock(&p->lock);
	while (wait && !may_claim(p) && !p->stop && p->claimed < p->nr) {
		p->nr_waiting++;
		pthread_cond_wait(&p->room, &p->lock);
		p->nr_waiting--;
	}
	go = may_claim(p);
	if (go) {
		*k = p->claimed++;
		p->active++;
	}
	pthread_mutex_unlock(&p->lock);
	return go;
}

static void end_piece(struct pump *p, uint64_t k, size_t moved, int err)
{
	struct slot *slot = &p->slots[k % p->ring];

	slot->moved = moved;
	slot->err = err;
	atomic_store(&slot->piece, k + 1);
	pthread_mutex_lock(&p->lock);
	p->active--;
	/* Whoever has begun goes on; what follows is not wanted any more. */
	if (err || moved < piece_at(p, k).len) {
		p->stop = true;
		pthread_cond_broadcast(&p->room);
	} else if (p->nr_waiting && may_claim(p)) {
		pthread_cond_signal(&p->room);
	}
	if (p->awaited)
		pthread_cond_signal(&p->ready);
	pthread_mutex_unlock(&p->lock);
}

/* @scratch is PEERDMA_STREAM_LEN bytes of the thread's own, or NULL. */
static void move_piece(struct pump *p, uint64_t k, char *scratch)
{
	struct peerdma_file *file = &p->transfer->file;
	struct piece c = piece_at(p, k);
	size_t moved;
	int err;

	if (file->write)
		err = peerdma_file_store(file, c.addr, c.offset, c.len, &moved);
	else if (p->streams && scratch)
		err = peerdma_stream_load(file, c.addr, c.offset, c.len,
					  scratch, &moved);
	else
		err = peerdma_file_load(file, c.addr, c.offset, c.len, &moved);
	end_piece(p, k, moved, err);
}

static void help(struct peerdma_job *job)
{
	struct pump *p = (struct pump *)job;
	char scratch[PEERDMA_STREAM_LEN];
	uint64_t k;

	while (claim(p, true, &k))
		move_piece(p, k, scratch);
}

static void open_until(struct pump *p, uint64_t piece)
{
	uint64_t more;

	if (piece > p->nr)
		piece = p->nr;
	pthread_mutex_lock(&p->lock);
	more = piece - p->open;
	p->open = piece;
	if (more > p->nr_waiting)
		more = p->nr_waiting;
	for (; more; more--)
		pthread_cond_signal(&p->room);
	pthread_mutex_unlock(&p->lock);
}

static bool help_oneself(struct pump *p)
{
	uint64_t k;

	if (!claim(p, false, &k))
		return false;
	move_piece(p, k, p->lane ? p->lane->small : NULL);
	return true;
}

/* ---- the same by the drive's ring ----------------------------------------- */

/* What an unbuffered request has to be of a piece. */
static struct peerdma_drive_io blocks_of(struct pump *p, uint64_t k)
{
	struct peerdma_file *file = &p->transfer->file;
	uint64_t align = peerdma_file_align(file);
	struct piece c = piece_at(p, k);
	uint64_t skew = c.offset & (align - 1);

	return (struct peerdma_drive_io){
		.bounce = p->bounces[k % p->ring * p->piece /
				     PEERDMA_BOUNCE_LEN],
		.addr = c.addr - skew,
		.len = (skew + c.len + align - 1) & -align,
		.fd = file->direct_fd,
		.offset = c.offset - skew,
		.tag = k,
		.write = file->write,
	};
}

/*
 * Whatever did not go as it should is done again by the thread, which finds out how
 * far it goes and why.
 */
static void end_request(struct pump *p, uint64_t k, int32_t result)
{
	struct peerdma_drive_io io = blocks_of(p, k);
	struct piece c = piece_at(p, k);

	if (result < 0 || (size_t)result < c.offset - io.offset + c.len)
		move_piece(p, k, NULL);
	else
		end_piece(p, k, c.len, 0);
}

/* Return: false: nothing is in flight, or has ended and not to be waited for. */
static bool harvest(struct pump *p, bool wait)
{
	bool any = false;
	int32_t result;
	uint64_t k;

	while (p->drive && peerdma_drive_next(p->drive, wait && !any, &k,
					      &result)) {
		end_request(p, k, result);
		any = true;
	}
	return any;
}

/* Return: whether there was any. */
static bool start_requests(struct pump *p)
{
	struct peerdma_drive_io io;
	bool any = false;
	uint64_t k;

	while (claim(p, false, &k)) {
		any = true;
		io = blocks_of(p, k);
		/* Parts of blocks are written through the page cache. */
		if (io.write && io.len != piece_at(p, k).len)
			move_piece(p, k, NULL);
		else
			peerdma_drive_add(p->drive, &io);
	}
	if (any && !peerdma_drive_submit(p->drive))
		while (peerdma_drive_refused(p->drive, &k))
			move_piece(p, k, NULL);
	return any;
}

/* Return: whether there was anything to do. */
static bool file_side(struct pump *p)
{
	return peerdma_drive_works(p->drive) ? start_requests(p) :
					       help_oneself(p);
}

/* ---- until a piece is there ----------------------------------------------- */

static bool slot_ready(struct pump *p, uint64_t k)
{
	return atomic_load(&p->slots[k % p->ring].piece) == k + 1;
}

/* Return: false: nobody has begun with it. */
static bool await_slot(struct pump *p, uint64_t k)
{
	struct peerdma_spin spin;
	bool begun;

	pthread_mutex_lock(&p->lock);
	begun = k < p->claimed;
	pthread_mutex_unlock(&p->lock);
	if (!begun)
		return false;
	while (!slot_ready(p, k) && harvest(p, true))
		;
	peerdma_spin_start(&spin, AWAKE_NS);
	while (p->alert && !slot_ready(p, k) && peerdma_spin_on(&spin))
		;
	if (slot_ready(p, k))
		return true;
	pthread_mutex_lock(&p->lock);
	p->awaited = true;
	while (!slot_ready(p, k))
		pthread_cond_wait(&p->ready, &p->lock);
	p->awaited = false;
	pthread_mutex_unlock(&p->lock);
	return true;
}

/* ---- the buffer's side: the caller --------------------------------------- */

static int copy(struct pump *p, const struct piece *c, size_t len)
{
	struct peerdma_transfer *t = p->transfer;
	struct peerdma_buffer *buf = t->buf;
	uint64_t at = t->buffer_offset + (c->offset - t->file_offset);

	if (p->lane)
		return peerdma_lane_copy(buf->ctx, p->lane, buf->addr + at,
					 c->addr, len, t->file.write);
	if (t->file.write)
		return peerdma_copy_out(buf, at, c->addr, len);
	return peerdma_copy_in(buf, at, c->addr, len);
}

/* Bytes up to the end of a piece. */
static uint64_t bytes_until(const struct pump *p, uint64_t piece)
{
	uint64_t to = p->base + piece * p->piece;

	if (to <= p->start)
		return 0;
	return (to < p->end ? to : p->end) - p->start;
}

static int count(struct pump *p, uint64_t bytes)
{
	uint64_t more = bytes - p->counted;

	p->counted = bytes;
	return peerdma_transfer_advance(p->transfer, more, p->counter);
}

/* Copies of a read have arrived: their slots are free, their bytes count. */
static int settle(struct pump *p, uint64_t bytes)
{
	uint64_t pieces = (p->start - p->base + bytes) / p->piece;

	open_until(p, pieces + p->ring);
	return count(p, bytes);
}

/* Return: 1; 0: no mark has been passed; a negative errno. */
static int settle_mark(struct pump *p, bool wait)
{
	uint64_t bytes;
	int err;

	if (!p->lane || p->lane->head == p->lane->tail)
		return 0;
	err = peerdma_lane_passed(p->transfer->buf->ctx, p->lane, wait, &bytes);
	if (err <= 0)
		return err;
	err = settle(p, bytes);
	return err ? err : 1;
}

/* After a copy of a read was started, or done, up to so many bytes. */
static int mark(struct pump *p, uint64_t bytes)
{
	int err = 0;

	if (!p->lane)
		return settle(p, bytes);
	if (!p->marks)
		return 0;
	if (p->lane->head - p->lane->tail == PEERDMA_LANE_EVENTS)
		err = settle_mark(p, true);
	if (err >= 0)
		err = peerdma_lane_mark(p->transfer->buf->ctx, p->lane, bytes);
	/* Who watches is told as it goes on. */
	if (!err && p->transfer->opts.progress)
		err = settle_mark(p, false);
	return err < 0 ? err : 0;
}

static bool copies_queue(const struct pump *p)
{
	return p->lane && p->lane->head - p->lane->tail >= COPIES_MAX;
}

/*
 * Copy the pieces that are there and adjacent in memory, in one go.
 *
 * Return: PEERDMA_PART_DONE: go on, if @copied moved; else the end of it all.
 */
static int copy_ready(struct pump *p, uint64_t *bytes)
{
	struct piece first = piece_at(p, p->copied);
	size_t len = 0, want = 0;
	uint64_t k = p->copied;
	int err, file_err = 0;

	while (k < p->nr && slot_ready(p, k) && len == want && !file_err) {
		const struct slot *slot = &p->slots[k % p->ring];

		if (k > p->copied && !follows(p, k))
			break;
		want += piece_at(p, k).len;
		len += slot->moved;
		file_err = slot->err;
		k++;
	}
	if (k < p->nr && len == want && !file_err && copies_queue(p))
		return PEERDMA_PART_DONE;
	if (len) {
		err = copy(p, &first, len);
		if (err)
			return err;
		*bytes += len;
		err = mark(p, *bytes);
		if (err)
			return err;
	}
	p->copied = k;
	if (file_err)
		return file_err;
	return len < want ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}

/* Nothing to copy: make use of the time, or wait. */
static int pass_time(struct pump *p)
{
	int err = settle_mark(p, false);

	if (err)
		return err < 0 ? err : 0;
	harvest(p, false);
	if ((p->drive || p->streams || p->nr <= ALONE_MAX) && file_side(p))
		return 0;
	if (copies_queue(p) && p->alert) {
		peerdma_spin_pause(PAUSES);
		return 0;
	}
	if (copies_queue(p) && !harvest(p, true)) {
		err = settle_mark(p, true);
		return err < 0 ? err : 0;
	}
	if (await_slot(p, p->copied) || file_side(p))
		return 0;
	err = settle_mark(p, true);
	return err < 0 ? err : 0;
}

static int read_side(struct pump *p)
{
	uint64_t bytes = 0, copied;
	int part = 0, err;

	open_until(p, p->ring);
	while (!part && p->copied < p->nr) {
		copied = p->copied;
		part = copy_ready(p, &bytes);
		if (!part && p->copied == copied)
			part = pass_time(p);
	}
	if (!p->lane)
		return part;
	peerdma_drive_doze(p->drive, bytes - p->counted);
	err = peerdma_lane_finish(p->transfer->buf->ctx, p->lane);
	if (err)
		return err;
	err = count(p, bytes);
	return part < 0 || !err ? part : err;
}

/* Start the next copy out of the buffer, of pieces adjacent in memory. */
static int fetch(struct pump *p)
{
	struct piece first = piece_at(p, p->copied);
	size_t limit = p->copied ? PEERDMA_BOUNCE_LEN / 2 : p->piece;
	uint64_t from = bytes_until(p, p->copied), k = p->copied + 1;
	int err;

	while (k < p->nr && follows(p, k) &&
	       bytes_until(p, k + 1) - from <= limit)
		k++;
	err = copy(p, &first, bytes_until(p, k) - from);
	if (err)
		return err;
	p->copied = k;
	if (p->lane)
		return peerdma_lane_mark(p->transfer->buf->ctx, p->lane, k);
	open_until(p, k);
	return 0;
}

/* Return: 1: the file side got more to do; 0; a negative errno. */
static int publish(struct pump *p, bool wait)
{
	uint64_t piece;
	int err;

	if (!p->lane || p->lane->head == p->lane->tail)
		return 0;
	err = peerdma_lane_passed(p->transfer->buf->ctx, p->lane, wait, &piece);
	if (err > 0)
		open_until(p, piece);
	return err;
}

/* Count the pieces that are in the file, as far as there is no gap. */
static int count_written(struct pump *p)
{
	const struct slot *slot;
	int err = 0;

	while (!p->gap && p->written < p->nr && slot_ready(p, p->written)) {
		slot = &p->slots[p->written++ % p->ring];
		p->gap = slot->err;
		err = count(p, p->counted + slot->moved);
		if (slot->err)
			return slot->err;
	}
	return err;
}

static int write_step(struct pump *p)
{
	uint64_t ahead = p->copied - p->written;
	int err;

	/* Half of the ring: a copy must not wait for a slot to be written. */
	if (p->copied < p->nr && (!ahead || ahead <= p->ring / 2) &&
	    (!p->lane || p->lane->head - p->lane->tail < 2))
		return fetch(p);
	harvest(p, false);
	err = publish(p, false);
	if (err || file_side(p))
		return err < 0 ? err : 0;
	/* It has enough to do until the copies are there: sleep with it. */
	if (p->drive && p->active > 1 && harvest(p, true))
		return 0;
	if (p->lane && p->lane->head != p->lane->tail)
		peerdma_drive_doze(p->drive, p->piece);
	err = publish(p, true);
	if (err)
		return err < 0 ? err : 0;
	await_slot(p, p->written);
	return 0;
}

static int write_side(struct pump *p)
{
	int part = 0, err;

	while (!part && p->written < p->nr) {
		part = write_step(p);
		err = count_written(p);
		if (!part)
			part = err;
	}
	if (!p->lane)
		return part;
	err = peerdma_lane_finish(p->transfer->buf->ctx, p->lane);
	return part ? part : err;
}

/* ---- setting it up ------------------------------------------------------- */

static size_t choose_piece(const struct pump *p, uint32_t align)
{
	const struct peerdma_file *file = &p->transfer->file;
	uint64_t len = p->end - p->start;
	size_t piece = PIECE_MIN, most = PIECE_MAX;

	if (file->unbuffered)
		piece = most = len > DRIVE_PIECES * DRIVE_PIECE_MIN ?
				       DRIVE_PIECE_MAX : DRIVE_PIECE_MIN;
	else if (file->write)
		piece = WRITE_PIECE_MIN;
	if (p->streams)
		most = STREAM_PIECE_MAX;
	while (piece < most && piece * PIECES_MIN < len)
		piece *= 2;
	if (!p->streams && !file->unbuffered &&
	    len > PEERDMA_BOUNCES * PEERDMA_BOUNCE_LEN)
		piece = TURNING_PIECE;
	return piece < align ? align : piece;
}

static void put_bounces(struct pump *p)
{
	struct peerdma *ctx = p->transfer->buf->ctx;

	while (p->nr_bounces)
		peerdma_bounce_put(ctx, p->bounces[--p->nr_bounces]);
}

static int get_bounces(struct pump *p)
{
	struct peerdma_buffer *buf = p->transfer->buf;
	uint64_t need = p->nr * p->piece;
	struct peerdma_bounce *bounce;
	unsigned int i;
	uint64_t slots;

	while (p->nr_bounces < PEERDMA_BOUNCES &&
	       p->nr_bounces * PEERDMA_BOUNCE_LEN < need) {
		bounce = peerdma_bounce_get(buf->ctx, buf->cuda,
					    !p->nr_bounces);
		if (!bounce)
			break;
		p->bounces[p->nr_bounces++] = bounce;
	}
	if (!p->nr_bounces)
		return -ENOMEM;
	slots = p->nr_bounces * PEERDMA_BOUNCE_LEN / p->piece;
	if (slots > SLOTS_MAX)
		slots = SLOTS_MAX;
	p->ring = slots < p->nr ? slots : p->nr;
	for (i = 0; i < p->ring; i++)
		atomic_init(&p->slots[i].piece, 0);
	return 0;
}

static unsigned int choose_width(const struct pump *p)
{
	const struct peerdma_file *file = &p->transfer->file;

	if (file->unbuffered)
		return WIDTH_UNBUFFERED;
	/* Writers of one file through the page cache wait for each other. */
	return file->write ? 1 : READERS + 1;
}

/* Beside the caller. */
static unsigned int choose_helpers(const struct pump *p)
{
	const struct peerdma_file *file = &p->transfer->file;
	unsigned int cpus = peerdma_pool_cpus(p->transfer->buf->ctx);
	uint64_t helpers = p->nr / 2, most = p->width;

	if (p->drive || (file->write && !file->unbuffered))
		return 0;
	if (!file->unbuffered) {
		if (p->nr < HELPED_MIN)
			return 0;
		most = (p->end - p->start) / READER_MIN;
		if (most < HELPERS_MIN)
			most = HELPERS_MIN;
		if (most > cpus - 1)
			most = cpus - 1;
	}
	if (helpers > most)
		helpers = most;
	return helpers < READERS ? helpers : READERS;
}

static int run(struct pump *p)
{
	struct peerdma *ctx = p->transfer->buf->ctx;
	bool write = p->transfer->file.write;
	bool posted;
	int part;

	p->job.run = help;
	p->job.awake = p->alert;
	posted = peerdma_pool_post(ctx, &p->job, choose_helpers(p));
	part = write ? write_side(p) : read_side(p);
	if (posted) {
		pthread_mutex_lock(&p->lock);
		p->stop = true;
		pthread_cond_broadcast(&p->room);
		pthread_mutex_unlock(&p->lock);
		peerdma_pool_retract(ctx, &p->job);
	}
	while (harvest(p, true))
		;
	/* What was still in hand was written all the same. */
	if (write)
		count_written(p);
	return part;
}

static void set_up(struct pump *p, struct peerdma_transfer *t, uint64_t len,
		   uint64_t *counter)
{
	bool many = peerdma_pool_cpus(t->buf->ctx) >= PEERDMA_CPUS_MANY;

	memset(p, 0, offsetof(struct pump, slots));
	p->transfer = t;
	p->counter = counter;
	p->start = t->file_offset + t->done;
	p->end = p->start + len;
	p->alert = many && !t->file.unbuffered;
	/* Few threads do not come near the copy engine's pace. */
	p->streams = PEERDMA_STREAMS && many && t->buf->cuda &&
		     !t->file.write && !t->file.unbuffered &&
		     len <= STREAMED_MAX;
	p->piece = choose_piece(p, peerdma_file_align(&t->file));
	p->base = p->start & -(uint64_t)p->piece;
	p->nr = (p->end - p->base + p->piece - 1) / p->piece;
	p->width = choose_width(p);
	peerdma_spin_mutex(&p->lock);
	pthread_cond_init(&p->room, NULL);
	pthread_cond_init(&p->ready, NULL);
}

/**
 * peerdma_pump_move() - move the next bytes of a transfer through host memory
 * @t: the transfer; its file says whether through the page cache
 * @len: bytes, above 0
 * @counter: of @t->result, where they count
 *
 * Return: enum peerdma_part, not PEERDMA_PART_REFUSED; or a negative errno.
 */
int peerdma_pump_move(struct peerdma_transfer *t, uint64_t len,
		      uint64_t *counter)
{
	struct peerdma_buffer *buf = t->buf;
	struct pump p;
	int err;

	set_up(&p, t, len, counter);
	err = get_bounces(&p);
	if (err)
		goto destroy;
	p.marks = p.nr > 1 || t->opts.progress;
	if (buf->cuda)
		err = peerdma_lane_get(buf->ctx, buf->pointer.context, &p.lane);
	if (!err && t->file.unbuffered && len >= DRIVE_MIN)
		p.drive = peerdma_drive_get(buf->ctx);
	if (!err)
		err = run(&p);
	if (p.drive)
		peerdma_drive_put(buf->ctx, p.drive);
	if (p.lane)
		peerdma_lane_put(buf->ctx, p.lane);
destroy:
	put_bounces(&p);
	pthread_cond_destroy(&p.ready);
	pthread_cond_destroy(&p.room);
	pthread_mutex_destroy(&p.lock);
	return err;
}
