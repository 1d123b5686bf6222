// SPDX-License-Identifier: MIT
/*
 * What is read again is kept: file ranges that reads found in the page cache more
 * than once become regions by themselves. To take a range out of the page cache by
 * the CPU costs two to three times what pinning it does, and reading pinned memory
 * costs nothing, so the second reading pays for it.
 *
 * A file is looked at in chunks. A note counts what was read of one; when that is
 * more than the chunk, the reader maps it, which is cheap and needs the caller's
 * descriptor, and a thread of the context's pins it. No descriptor is kept: to
 * close one would drop the program's POSIX locks on the file. What nobody has read
 * for a while is let go, and so is what has become stale. Where all that may be
 * kept is kept, nothing is pushed out for something else: a file that is larger
 * than that would push itself out in every pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define CHUNK		((uint64_t)32 << 20)
/* Not worth a mapping. */
#define KEPT_MIN	((uint64_t)1 << 20)
/* Chunks that are mapped together: half a gibibyte. */
#define AHEAD		15
#define WAYS		4
#define SETS_MIN	64
#define SETS_MAX	(1u << 16)
#define IDLE_MS		10000
#define TICK_NS		500000000

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC	0x58465342
#endif

enum state {
	NOTED,			/* read so far, or not even that */
	MAPPING,		/* by the reader that found it worth it */
	WANTED,			/* by the thread: to be pinned */
	KEPT,
	STALE,			/* by the thread: to be let go */
	REFUSED,		/* cannot be pinned */
};

/* Of one chunk. @region is this note's, from MAPPING's end until it is let go. */
struct note {
	dev_t dev;
	ino_t ino;
	uint64_t index;
	uint64_t read;		/* bytes, through the page cache */
	uint64_t used;		/* when, in milliseconds */
	enum state state;
	struct peerdma_region *region;
	struct note *next;	/* in peerdma_keep.wanted */
};

/* The context's, from the first read that counts until its end. */
struct peerdma_keep {
	struct peerdma *ctx;
	uint64_t limit;
	pthread_mutex_t lock;		/* guards what follows, and the notes */
	pthread_cond_t work;
	struct note *wanted, **last;
	uint64_t held;			/* bytes: kept, or soon to be */
	atomic_uint nr_kept;		/* read without the lock, too */
	bool started;
	bool stop;
	pthread_t thread;
	unsigned int nr_sets;
	struct note notes[];
};

static uint64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * UINT64_C(1000) + now.tv_nsec / 1000000;
}

/* A child has none of its parent's threads, mappings and pins. */
static bool is_parents(const struct peerdma_keep *keep)
{
	return keep->ctx->pid != getpid();
}

/* ---- notes ----------------------------------------------------------------- */

static struct note *set_of(struct peerdma_keep *keep,
			   const struct peerdma_file *file, uint64_t index)
{
	uint64_t hash = (file->dev * 31 + file->ino) * 31 + index;

	hash *= UINT64_C(0x9e3779b97f4a7c15);
	return &keep->notes[(hash >> 32) % keep->nr_sets * WAYS];
}

static struct note *find_note(struct peerdma_keep *keep,
			      const struct peerdma_file *file, uint64_t index)
{
	struct note *note = set_of(keep, file, index);
	int i;

	for (i = 0; i < WAYS; i++, note++)
		if (note->used && note->index == index &&
		    note->ino == file->ino && note->dev == file->dev)
			return note;
	return NULL;
}

/* In the place of the one that was longest not used; NULL: all are in use. */
static struct note *make_note(struct peerdma_keep *keep,
			      const struct peerdma_file *file, uint64_t index)
{
	struct note *set = set_of(keep, file, index), *oldest = NULL;
	int i;

	for (i = 0; i < WAYS; i++)
		if ((set[i].state == NOTED || set[i].state == REFUSED) &&
		    (!oldest || set[i].used < oldest->used))
			oldest = &set[i];
	if (oldest)
		*oldest = (struct note){ .dev = file->dev, .ino = file->ino,
					 .index = index };
	return oldest;
}

static uint64_t chunk_len(const struct peerdma_file *file, uint64_t index)
{
	uint64_t page = sysconf(_SC_PAGESIZE), left;

	if (file->end <= index * CHUNK)
		return 0;
	left = (file->end - index * CHUNK + page - 1) & -page;
	return left < CHUNK ? left : CHUNK;
}

/* ---- the thread ------------------------------------------------------------ */

static struct note *pop_wanted(struct peerdma_keep *keep)
{
	struct note *note = keep->wanted;

	if (!note)
		return NULL;
	keep->wanted = note->next;
	if (!keep->wanted)
		keep->last = &keep->wanted;
	return note;
}

/* Called and left with the lock held; between, it is not. */
static void let_go(struct peerdma_keep *keep, struct note *note,
		   enum state state)
{
	struct peerdma_region *region = note->region;
	uint64_t len = region->len;

	if (note->state == KEPT || note->state == STALE)
		atomic_fetch_sub(&keep->nr_kept, 1);
	note->region = NULL;
	note->state = state;
	note->read = 0;
	pthread_mutex_unlock(&keep->lock);
	peerdma_region_free(region);
	pthread_mutex_lock(&keep->lock);
	keep->held -= len;
}

static void pin(struct peerdma_keep *keep, struct note *note)
{
	int err;

	pthread_mutex_unlock(&keep->lock);
	err = peerdma_region_pin(note->region);
	pthread_mutex_lock(&keep->lock);
	if (err) {
		let_go(keep, note, REFUSED);
		return;
	}
	note->state = KEPT;
	note->used = milliseconds();
	atomic_fetch_add(&keep->nr_kept, 1);
}

/* Return: false: there was none. */
static bool let_one_go(struct peerdma_keep *keep)
{
	uint64_t now = milliseconds();
	struct note *note, *end = keep->notes + keep->nr_sets * WAYS;

	if (!atomic_load(&keep->nr_kept))
		return false;
	for (note = keep->notes; note < end; note++)
		if (note->state == STALE ||
		    (note->state == KEPT && now - note->used > IDLE_MS)) {
			let_go(keep, note, NOTED);
			return true;
		}
	return false;
}

static void await_work(struct peerdma_keep *keep)
{
	struct timespec time;

	if (!keep->held) {
		pthread_cond_wait(&keep->work, &keep->lock);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_nsec += TICK_NS;
	time.tv_sec += time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&keep->work, &keep->lock, &time);
}

static void *thread_main(void *arg)
{
	struct peerdma_keep *keep = arg;
	struct note *note;

	pthread_mutex_lock(&keep->lock);
	while (!keep->stop) {
		note = pop_wanted(keep);
		if (note)
			pin(keep, note);
		else if (!let_one_go(keep))
			await_work(keep);
	}
	pthread_mutex_unlock(&keep->lock);
	return NULL;
}

/* Signals are the program's: its handlers run on its own threads. */
static bool start_thread(struct peerdma_keep *keep)
{
	sigset_t all, old;

	if (keep->started)
		return true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	keep->started = !pthread_create(&keep->thread, NULL, thread_main, keep);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return keep->started;
}

/* ---- what was read --------------------------------------------------------- */

static struct peerdma_keep *create(struct peerdma *ctx)
{
	uint64_t limit = ctx->keep_limit, sets = SETS_MIN;
	struct peerdma_keep *keep, *other = NULL;
	pthread_condattr_t attr;

	if (!limit)
		limit = peerdma_memory_limit() / 8;
	while (sets < SETS_MAX && sets < limit / CHUNK)
		sets *= 2;
	keep = calloc(1, sizeof(*keep) + sets * WAYS * sizeof(struct note));
	if (!keep)
		return NULL;
	keep->ctx = ctx;
	keep->limit = limit;
	keep->nr_sets = sets;
	keep->last = &keep->wanted;
	peerdma_spin_mutex(&keep->lock);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&keep->work, &attr);
	pthread_condattr_destroy(&attr);
	if (atomic_compare_exchange_strong(&ctx->keep, &other, keep))
		return keep;
	pthread_cond_destroy(&keep->work);
	pthread_mutex_destroy(&keep->lock);
	free(keep);
	return other;
}

/* The program may want to seal it, which waits in vain for pinned pages. */
static bool may_be_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && !(seals & (F_SEAL_SEAL | F_SEAL_WRITE));
}

/*
 * Only where every change of a file passes this machine's page cache: not on
 * network filesystems, and not where a file's pages may be another one's.
 */
static bool is_local(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	switch ((uint32_t)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
		return true;
	case TMPFS_MAGIC:
		return !may_be_sealed(fd);
	default:
		return false;
	}
}

/*
 * With the lock held: take a chunk to map it, if more than @read bytes were read of
 * it. Then the note is the caller's, until want().
 */
static bool claim(struct peerdma_keep *keep, struct note *note, uint64_t len,
		  uint64_t read)
{
	if (note->state != NOTED || note->read <= read || len < KEPT_MIN ||
	    len > keep->limit || keep->held > keep->limit - len)
		return false;
	note->state = MAPPING;
	keep->held += len;
	return true;
}

/* Return: the note, claimed; NULL: it is not worth it, yet or any more. */
static struct note *count(struct peerdma_keep *keep,
			  const struct peerdma_file *file, uint64_t index,
			  uint64_t bytes)
{
	uint64_t len = chunk_len(file, index);
	struct note *note;

	pthread_mutex_lock(&keep->lock);
	note = find_note(keep, file, index);
	if (!note)
		note = make_note(keep, file, index);
	if (note) {
		note->used = milliseconds();
		note->read += bytes;
		if (!claim(keep, note, len, len))
			note = NULL;
	}
	pthread_mutex_unlock(&keep->lock);
	return note;
}

/* Who reads one chunk again will read those behind it, if he did before. */
static struct note *look_ahead(struct peerdma_keep *keep,
			       const struct peerdma_file *file, uint64_t index)
{
	uint64_t len = chunk_len(file, index);
	struct note *note;

	pthread_mutex_lock(&keep->lock);
	note = find_note(keep, file, index);
	if (note && !claim(keep, note, len, len - len / 8))
		note = NULL;
	pthread_mutex_unlock(&keep->lock);
	return note;
}

static void want(struct peerdma_keep *keep, const struct peerdma_file *file,
		 struct note *note)
{
	uint64_t offset = note->index * CHUNK;
	uint64_t len = chunk_len(file, note->index);
	struct peerdma_region *region;
	bool mapped;

	mapped = is_local(file->fd) &&
		 !peerdma_region_map(keep->ctx, file, offset, len, &region);
	pthread_mutex_lock(&keep->lock);
	if (mapped && start_thread(keep)) {
		region->kept = true;
		note->region = region;
		note->state = WANTED;
		note->next = NULL;
		*keep->last = note;
		keep->last = &note->next;
		pthread_cond_signal(&keep->work);
		mapped = false;
	} else {
		note->state = REFUSED;
		keep->held -= len;
	}
	pthread_mutex_unlock(&keep->lock);
	if (mapped)
		peerdma_region_free(region);
}

/**
 * peerdma_keep_note() - a read came out of the page cache
 * @t: the read, into CUDA memory
 * @from: where in the file it began
 * @len: its bytes
 */
void peerdma_keep_note(struct peerdma_transfer *t, uint64_t from, uint64_t len)
{
	struct peerdma *ctx = t->buf->ctx;
	struct peerdma_keep *keep;
	uint64_t end = from + len, next, ahead;
	struct note *note;

	if (ctx->keep_limit == PEERDMA_KEEP_NONE || t->file.end == UINT64_MAX)
		return;
	keep = atomic_load(&ctx->keep);
	if (!keep)
		keep = create(ctx);
	if (!keep || is_parents(keep))
		return;
	for (; from < end; from = next) {
		next = (from / CHUNK + 1) * CHUNK;
		if (next > end)
			next = end;
		note = count(keep, &t->file, from / CHUNK, next - from);
		for (ahead = 1; note; ahead++) {
			want(keep, &t->file, note);
			note = ahead > AHEAD ? NULL :
				look_ahead(keep, &t->file,
					   from / CHUNK + ahead);
		}
	}
}

/* ---- what is kept ----------------------------------------------------------- */

/**
 * peerdma_keep_get() - the kept region that a part of a file lies in
 * @ctx: the context
 * @file: the file
 * @offset: where the part starts
 * @len: its bytes; out: those within the region, or up to the next one
 *
 * Return: the region, held; NULL: none.
 */
struct peerdma_region *peerdma_keep_get(struct peerdma *ctx,
					const struct peerdma_file *file,
					uint64_t offset, uint64_t *len)
{
	struct peerdma_keep *keep = atomic_load(&ctx->keep);
	uint64_t end = offset + *len, index = offset / CHUNK, within;
	struct peerdma_region *region = NULL;
	struct note *note = NULL;

	if (!keep || !atomic_load(&keep->nr_kept) || is_parents(keep))
		return NULL;
	pthread_mutex_lock(&keep->lock);
	for (; index * CHUNK < end; index++) {
		note = find_note(keep, file, index);
		if (note && note->state == KEPT)
			break;
		note = NULL;
	}
	if (note && index * CHUNK > offset) {
		*len = index * CHUNK - offset;
	} else if (note) {
		within = note->region->offset + note->region->len;
		if (within > offset) {
			region = note->region;
			atomic_fetch_add(&region->users, 1);
			note->used = milliseconds();
			*len = (end < within ? end : within) - offset;
		} else if (*len > CHUNK - offset % CHUNK) {
			*len = CHUNK - offset % CHUNK;
		}
	}
	pthread_mutex_unlock(&keep->lock);
	return region;
}

/**
 * peerdma_keep_stale() - a region is no longer the file's
 * @region: held by the caller
 *
 * Return: true: it was a kept one, and goes; false: it is the program's.
 */
bool peerdma_keep_stale(struct peerdma_region *region)
{
	struct peerdma_keep *keep = atomic_load(&region->ctx->keep);
	struct note *note, *end;

	if (!region->kept)
		return false;
	pthread_mutex_lock(&keep->lock);
	end = keep->notes + keep->nr_sets * WAYS;
	for (note = keep->notes; note < end && note->region != region; note++)
		;
	if (note < end && note->state == KEPT) {
		note->state = STALE;
		pthread_cond_signal(&keep->work);
	}
	pthread_mutex_unlock(&keep->lock);
	return true;
}

/**
 * peerdma_keep_end() - let everything go
 * @ctx: a context that nobody uses any more
 */
void peerdma_keep_end(struct peerdma *ctx)
{
	struct peerdma_keep *keep = atomic_load(&ctx->keep);
	unsigned int i;

	if (keep && !is_parents(keep)) {
		pthread_mutex_lock(&keep->lock);
		keep->stop = true;
		pthread_cond_signal(&keep->work);
		pthread_mutex_unlock(&keep->lock);
		if (keep->started)
			pthread_join(keep->thread, NULL);
		for (i = 0; i < keep->nr_sets * WAYS; i++)
			if (keep->notes[i].region)
				peerdma_region_free(keep->notes[i].region);
		pthread_cond_destroy(&keep->work);
		pthread_mutex_destroy(&keep->lock);
	}
	free(keep);
}
