// SPDX-License-Identifier: MIT
/*
 * A region: a range of a file whose pages in the page cache stay mapped and
 * pinned, so that the GPU's copy engine reads them where they lie.
 *
 * Pinned pages outlive their place in the file: truncation, a hole that is
 * punched, a write around the page cache take them out of it, and the copy engine
 * would go on reading what the file once held. But whatever takes a page out of
 * the page cache takes it out of all mappings first. So there is a second mapping,
 * the watch, filled before the pages are pinned: every read looks at its page
 * table, and what is missing there is read in another way. Nothing puts a page
 * back: the watch has no access rights, so no fault does. The mapping that is
 * registered must keep its rights, since the driver reads it with the CPU where a
 * copy is small.
 *
 * The look may be taken while the copy runs. A page that is still there has been
 * there since before it was pinned, and was the file's when its bytes were copied.
 * So may the one at the file's size: read(2), too, asks for it before it copies.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "internal.h"

#define REGISTER_PORTABLE	1
#define REGISTER_READ_ONLY	8
/* Entries of /proc/self/pagemap: one for each page, and its highest bit. */
#define ENTRIES			512
#define ENTRY_PRESENT		(UINT64_C(1) << 63)
/* What is told to the caller as one step, and what goes on if he is not asked. */
#define STEP_WATCHED		((uint64_t)16 << 20)
#define STEP_LEN		((uint64_t)1 << 30)
/* Of Linux 5.14; C libraries know it since 2022. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#endif
/* Below that a sleep would end too late. */
#define SLEEP_MIN		((uint64_t)4 << 20)
/* In one go. */
#define SPANS_MAX		16

/* Numbers and struct of the kernel's ABI (PAGEMAP_SCAN, struct pm_scan_arg). */
#define SCAN_PRESENT		(1u << 3)
#define SCAN			_IOWR('f', 16, struct scan)

struct scan {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

/* Where a transfer and a region meet. */
struct span {
	struct peerdma_region *region;	/* held */
	uint64_t at;			/* in the region */
	uint64_t len;
};

/* ---- making and ending one ------------------------------------------------ */

static int open_pagemap(struct peerdma *ctx)
{
	int err = 0;

	pthread_mutex_lock(&ctx->lock);
	if (ctx->pagemap_fd < 0)
		ctx->pagemap_fd = open("/proc/thread-self/pagemap",
				       O_RDONLY | O_CLOEXEC);
	if (ctx->pagemap_fd < 0)
		err = -errno;
	pthread_mutex_unlock(&ctx->lock);
	return err;
}

static int map_pages(struct peerdma_region *region, int fd)
{
	int err;

	region->addr = mmap(NULL, region->len, PROT_READ, MAP_SHARED, fd,
			    region->offset);
	if (region->addr == MAP_FAILED)
		return -errno;
	region->watch = mmap(NULL, region->len, PROT_READ, MAP_SHARED, fd,
			     region->offset);
	if (region->watch == MAP_FAILED) {
		err = -errno;
		munmap(region->addr, region->len);
		return err;
	}
	/* A child would inherit the mappings without the pins. */
	madvise(region->addr, region->len, MADV_DONTFORK);
	madvise(region->watch, region->len, MADV_DONTFORK);
	return 0;
}

/**
 * peerdma_region_map() - map a file range that is to become a region
 * @ctx: the context; must outlive the region
 * @file: the file
 * @offset: where the range starts, a multiple of the page size
 * @len: its bytes, whole pages
 * @out_region: ended by peerdma_region_free()
 *
 * Reads nothing and pins nothing.
 *
 * Return: 0 or a negative errno.
 */
int peerdma_region_map(struct peerdma *ctx, const struct peerdma_file *file,
		       uint64_t offset, uint64_t len,
		       struct peerdma_region **out_region)
{
	struct peerdma_region *region;
	int err;

	err = open_pagemap(ctx);
	if (err)
		return err;
	region = calloc(1, sizeof(*region));
	if (!region)
		return -ENOMEM;
	err = peerdma_context_cuda(ctx, &region->context);
	if (err)
		goto free_region;
	region->ctx = ctx;
	atomic_init(&region->users, 0);
	region->dev = file->dev;
	region->ino = file->ino;
	region->offset = offset;
	region->len = len;
	err = map_pages(region, file->fd);
	if (err)
		goto free_region;
	*out_region = region;
	return 0;

free_region:
	free(region);
	return err;
}

/* Read what is not in the page cache yet, and put all into the page table. */
static int fill_watch(struct peerdma_region *region)
{
	if (madvise(region->watch, region->len, MADV_POPULATE_READ))
		return -errno;
	if (mprotect(region->watch, region->len, PROT_NONE))
		return -errno;
	return 0;
}

/*
 * (Un)registering waits for every stream of the GPU. What is kept can wait for
 * those that wait for us; the program itself knows what it does.
 */
static int begin_registering(struct peerdma_region *region, int *out_mode)
{
	struct peerdma *ctx = region->ctx;
	int err;

	if (region->kept)
		peerdma_streams_hold(ctx);
	err = peerdma_cuda_enter(&ctx->cuda, region->context, out_mode);
	if (err && region->kept)
		peerdma_streams_unhold(ctx);
	return err;
}

static void end_registering(struct peerdma_region *region, int mode)
{
	peerdma_cuda_leave(&region->ctx->cuda, mode);
	if (region->kept)
		peerdma_streams_unhold(region->ctx);
}

/**
 * peerdma_region_pin() - make a mapped region one to read out of
 * @region: mapped; no other thread knows it
 *
 * Takes as long as reading the range.
 *
 * Return: 0 or a negative errno.
 */
int peerdma_region_pin(struct peerdma_region *region)
{
	struct peerdma *ctx = region->ctx;
	int result, err, mode;

	err = fill_watch(region);
	if (!err)
		err = begin_registering(region, &mode);
	if (err)
		return err;
	result = ctx->cuda.cuMemHostRegister(region->addr, region->len,
					     REGISTER_PORTABLE |
						     REGISTER_READ_ONLY);
	end_registering(region, mode);
	region->pinned = !result;
	return peerdma_cuda_errno(result);
}

/**
 * peerdma_region_free() - let the pages go
 * @region: mapped, perhaps pinned; reads that use it end first
 */
void peerdma_region_free(struct peerdma_region *region)
{
	struct peerdma *ctx = region->ctx;
	int mode;

	if (atomic_load(&region->users)) {
		pthread_mutex_lock(&ctx->lock);
		while (atomic_load(&region->users))
			pthread_cond_wait(&ctx->region_idle, &ctx->lock);
		pthread_mutex_unlock(&ctx->lock);
	}
	/* Where the program has ended the CUDA context, its pins are gone. */
	if (region->pinned && !begin_registering(region, &mode)) {
		ctx->cuda.cuMemHostUnregister(region->addr);
		end_registering(region, mode);
	}
	/* A child has no such mappings, and perhaps something else there. */
	if (ctx->pid == getpid()) {
		munmap(region->watch, region->len);
		munmap(region->addr, region->len);
	}
	free(region);
}

static int check_opts(const struct peerdma_region_opts *opts)
{
	struct peerdma_region_opts o;
	int err;

	err = peerdma_sized_in(&o, sizeof(o), opts);
	if (err)
		return err;
	return o.flags || o.reserved ? -EOPNOTSUPP : 0;
}

/*
 * There a file's bytes change hands when it is first written to: its descriptors
 * and mappings stay with the old ones, and nothing tells them.
 */
static bool may_change_hands(const struct peerdma_file *file)
{
	struct statfs fs;

	return !fstatfs(file->fd, &fs) &&
	       (uint32_t)fs.f_type == OVERLAYFS_SUPER_MAGIC;
}

static int map_range(struct peerdma *ctx, int fd, uint64_t offset,
		     uint64_t len, struct peerdma_region **out_region)
{
	uint64_t page = sysconf(_SC_PAGESIZE), start = offset & -page;
	struct peerdma_file file;
	int err;

	if (!len)
		return -EINVAL;
	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -EOVERFLOW;
	err = peerdma_file_open(&file, fd, false);
	if (err)
		return err;
	if (file.end != UINT64_MAX && offset + len > file.end)
		err = -ERANGE;
	else if (may_change_hands(&file))
		err = -EOPNOTSUPP;
	else
		err = peerdma_region_map(ctx, &file, start,
					 ((offset + len + page - 1) & -page) -
						 start,
					 out_region);
	peerdma_file_close(&file);
	return err;
}

/**
 * peerdma_region_open() - keep a file range in memory, for the GPU to read
 * @ctx: the context; its GPU and any other of the process
 * @fd: the file, open for reading; stays the caller's and may be closed
 * @offset: where the range starts
 * @len: its bytes
 * @opts: NULL
 * @out_region: the region
 *
 * The range is read into the page cache and pinned there. From then on every
 * read of the file on this context, through any descriptor, takes the parts that
 * lie in the region from there, by the GPU's copy engine alone. What was cut off
 * or replaced since is noticed and read as if there were no region.
 *
 * Return: 0; -EINVAL: no length; -ERANGE: the file is shorter; -ENODEV: no GPU;
 * -EOPNOTSUPP: a flag that is not known, or overlayfs, where it would go stale;
 * -ENOMEM: too much to be pinned; another negative errno.
 */
int peerdma_region_open(struct peerdma *ctx, int fd, uint64_t offset,
			uint64_t len, const struct peerdma_region_opts *opts,
			struct peerdma_region **out_region)
{
	struct peerdma_region *region;
	int err;

	err = check_opts(opts);
	if (!err)
		err = map_range(ctx, fd, offset, len, &region);
	if (err)
		return err;
	err = peerdma_region_pin(region);
	if (err) {
		peerdma_region_free(region);
		return err;
	}
	peerdma_context_get(ctx);
	pthread_mutex_lock(&ctx->lock);
	region->next = ctx->regions;
	atomic_store(&ctx->regions, region);
	pthread_mutex_unlock(&ctx->lock);
	*out_region = region;
	return 0;
}

/**
 * peerdma_region_close() - let the pages go
 * @region: the region, or NULL; reads that use it end first
 */
void peerdma_region_close(struct peerdma_region *region)
{
	struct peerdma_region *other;
	struct peerdma *ctx;

	if (!region)
		return;
	ctx = region->ctx;
	pthread_mutex_lock(&ctx->lock);
	other = atomic_load(&ctx->regions);
	if (other == region)
		atomic_store(&ctx->regions, region->next);
	for (; other; other = other->next)
		if (other->next == region)
			other->next = region->next;
	pthread_mutex_unlock(&ctx->lock);
	peerdma_region_free(region);
	peerdma_context_put(ctx);
}

/* ---- reading out of one ---------------------------------------------------- */

/*
 * The region of the program's that a part of a file lies in, held. @len gets the
 * bytes within it, or where there is none, those up to the next one.
 */
static struct peerdma_region *find_opened(struct peerdma *ctx,
					  const struct peerdma_file *file,
					  uint64_t offset, uint64_t *len)
{
	struct peerdma_region *region;

	if (!atomic_load(&ctx->regions))
		return NULL;
	pthread_mutex_lock(&ctx->lock);
	for (region = ctx->regions; region; region = region->next) {
		if (region->dev != file->dev || region->ino != file->ino ||
		    region->offset + region->len <= offset ||
		    region->offset >= offset + *len)
			continue;
		if (region->offset <= offset)
			break;
		*len = region->offset - offset;
	}
	if (region) {
		atomic_fetch_add(&region->users, 1);
		if (*len > region->offset + region->len - offset)
			*len = region->offset + region->len - offset;
	}
	pthread_mutex_unlock(&ctx->lock);
	return region;
}

static struct peerdma_region *find(struct peerdma *ctx,
				   const struct peerdma_file *file,
				   uint64_t offset, uint64_t *len)
{
	struct peerdma_region *region;

	region = find_opened(ctx, file, offset, len);
	return region ? region : peerdma_keep_get(ctx, file, offset, len);
}

static void put(struct peerdma_region *region)
{
	struct peerdma *ctx = region->ctx;

	if (atomic_fetch_sub(&region->users, 1) != 1)
		return;
	/* The region may be gone by now; who waits for it looks under the lock. */
	pthread_mutex_lock(&ctx->lock);
	pthread_cond_broadcast(&ctx->region_idle);
	pthread_mutex_unlock(&ctx->lock);
}

/* By one entry for each page. */
static bool entries_present(const struct peerdma_region *region, uint64_t start,
			    uint64_t end)
{
	uint64_t page = sysconf(_SC_PAGESIZE), entries[ENTRIES];
	uint64_t at = start / page, left = (end - start) / page;
	size_t i, n;

	for (; left; left -= n, at += n) {
		n = left < ENTRIES ? left : ENTRIES;
		if (pread(region->ctx->pagemap_fd, entries, n * sizeof(*entries),
			  at * sizeof(*entries)) !=
		    (ssize_t)(n * sizeof(*entries)))
			return false;
		for (i = 0; i < n; i++)
			if (!(entries[i] & ENTRY_PRESENT))
				return false;
	}
	return true;
}

/*
 * Are the pages still where they were registered? Since Linux 6.7 the kernel
 * looks for the first one that is not.
 */
static bool pages_present(const struct peerdma_region *region, uint64_t at,
			  uint64_t len)
{
	uint64_t page = sysconf(_SC_PAGESIZE), found[3];
	struct scan scan = {
		.size = sizeof(scan),
		.start = ((uintptr_t)region->watch + at) & -page,
		.end = ((uintptr_t)region->watch + at + len + page - 1) &
		       -page,
		.vec = (uintptr_t)found,
		.vec_len = 1,
		.max_pages = 1,
		.category_inverted = SCAN_PRESENT,
		.category_mask = SCAN_PRESENT,
		.return_mask = SCAN_PRESENT,
	};
	int nr = ioctl(region->ctx->pagemap_fd, SCAN, &scan);

	if (nr >= 0)
		return !nr;
	return entries_present(region, scan.start, scan.end);
}

static bool file_reaches(const struct peerdma_file *file, uint64_t end)
{
	struct stat st;

	if (file->end == UINT64_MAX)
		return true;
	return !fstat(file->fd, &st) && (uint64_t)st.st_size >= end;
}

/*
 * Of @all bytes @left at most.
 *
 * Return: how many; where there is none, @run ends where the next one begins.
 */
static unsigned int hold_spans(struct peerdma_transfer *t, struct span *spans,
			       uint64_t all, uint64_t left, uint64_t *run)
{
	uint64_t from = t->file_offset + t->done;
	unsigned int n;

	for (n = 0; n < SPANS_MAX && left; n++) {
		struct span *span = &spans[n];

		span->len = n ? left : all;
		span->region = find(t->buf->ctx, &t->file, from, &span->len);
		if (!span->region) {
			if (!n && span->len < all)
				*run = span->len;
			break;
		}
		if (span->len > left)
			span->len = left;
		span->at = from - span->region->offset;
		left -= span->len;
		from += span->len;
	}
	return n;
}

/* As many as are worth it: pieces near what the driver reads itself are not. */
static unsigned int drop_small(struct span *spans, unsigned int n,
			       uint64_t *run)
{
	unsigned int i, good = 0;

	while (good < n && spans[good].len >= PEERDMA_REGION_MIN)
		good++;
	if (!good && n)
		*run = spans[0].len;
	for (i = good; i < n; i++)
		put(spans[i].region);
	return good;
}

static int copy_spans(struct peerdma_transfer *t, struct peerdma_lane *lane,
		      const struct span *spans, unsigned int n)
{
	uint64_t to = peerdma_transfer_addr(t);
	unsigned int i;
	int err;

	for (i = 0; i < n; i++) {
		err = peerdma_lane_copy(t->buf->ctx, lane, to,
					spans[i].region->addr + spans[i].at,
					spans[i].len, false);
		if (err)
			return err;
		to += spans[i].len;
	}
	return 0;
}

/* Bytes from the start that are the file's. */
static uint64_t sound_bytes(struct peerdma_transfer *t, const struct span *spans,
			    unsigned int n)
{
	uint64_t sound = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (!pages_present(spans[i].region, spans[i].at, spans[i].len))
			break;
		sound += spans[i].len;
	}
	if (!sound ||
	    !file_reaches(&t->file, t->file_offset + t->done + sound))
		return 0;
	return sound;
}

/* Return: enum peerdma_part; what was refused starts with a stale span. */
static int move_spans(struct peerdma_transfer *t, const struct span *spans,
		      unsigned int n, uint64_t *run)
{
	struct peerdma *ctx = t->buf->ctx;
	uint64_t total = 0, sound = 0, since;
	struct peerdma_lane *lane;
	unsigned int i;
	int err, end;

	for (i = 0; i < n; i++)
		total += spans[i].len;
	err = peerdma_lane_get(ctx, t->buf->pointer.context, &lane);
	if (err)
		return err;
	since = peerdma_nanoseconds();
	err = copy_spans(t, lane, spans, n);
	if (!err) {
		peerdma_lane_sign(ctx, lane);
		sound = sound_bytes(t, spans, n);
	}
	if (total < SLEEP_MIN)
		end = peerdma_lane_finish(ctx, lane);
	else
		end = peerdma_lane_finish_large(ctx, lane, total, since);
	peerdma_lane_put(ctx, lane);
	if (err || end)
		return err ? err : end;
	err = sound ? peerdma_transfer_advance(t, sound,
					       &t->result.bytes_registered) : 0;
	if (err || sound == total)
		return err;
	for (i = 0; sound && sound >= spans[i].len; i++)
		sound -= spans[i].len;
	*run = spans[i].len;
	if (!peerdma_keep_stale(spans[i].region))
		peerdma_transfer_blame(t, PEERDMA_REASON_REGION_STALE);
	return PEERDMA_PART_REFUSED;
}

/**
 * peerdma_region_move() - move the next bytes of a read, if they lie in regions
 * @t: a read into CUDA memory
 * @run: bytes from where @t is; out, where they are refused: so many have no
 *	region, or no more
 *
 * Return: PEERDMA_PART_DONE: some were moved, and there may be more;
 * PEERDMA_PART_REFUSED; or a negative errno.
 */
int peerdma_region_move(struct peerdma_transfer *t, uint64_t *run)
{
	uint64_t step = t->opts.progress ? STEP_WATCHED : STEP_LEN;
	uint64_t from = t->file_offset + t->done, all = *run, left;
	struct span spans[SPANS_MAX];
	unsigned int n, i;
	int part;

	if (t->file.end <= from)
		return PEERDMA_PART_REFUSED;
	if (all > t->file.end - from)
		all = t->file.end - from;
	left = all < step + PEERDMA_REGION_MIN ? all : step;
	n = hold_spans(t, spans, all, left, run);
	n = drop_small(spans, n, run);
	if (!n)
		return PEERDMA_PART_REFUSED;
	part = move_spans(t, spans, n, run);
	for (i = 0; i < n; i++)
		put(spans[i].region);
	return part;
}
