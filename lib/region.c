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
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
/* Below that a sleep would end too late. */
#define SLEEP_MIN		((uint64_t)4 << 20)
/*
 * NVIDIA's driver 580 reads up to 16 KiB with the CPU, through the mapping, and a
 * file that shrinks meanwhile would be a SIGBUS. So nothing near that.
 */
#define REGION_MIN		((uint64_t)64 << 10)

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

struct peerdma_region {
	struct peerdma_region *next;	/* in peerdma.regions */
	struct peerdma *ctx;		/* holds a reference */
	dev_t dev;			/* the mapping holds the inode */
	ino_t ino;
	uint64_t offset;		/* in the file, whole pages */
	uint64_t len;
	char *addr;			/* registered */
	char *watch;			/* the same pages, without rights */
	int pagemap_fd;
	unsigned int users;		/* guarded by the context's lock */
};

/* ---- making and ending one ------------------------------------------------ */

static int check_opts(const struct peerdma_region_opts *opts)
{
	struct peerdma_region_opts o;
	int err;

	err = peerdma_sized_in(&o, sizeof(o), opts);
	if (err)
		return err;
	return o.flags || o.reserved ? -EOPNOTSUPP : 0;
}

static int check_file(struct peerdma_region *region, int fd, uint64_t offset,
		      uint64_t len)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	struct peerdma_file file;
	int err;

	if (!len)
		return -EINVAL;
	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -EOVERFLOW;
	err = peerdma_file_open(&file, fd, false);
	if (err)
		return err;
	region->dev = file.dev;
	region->ino = file.ino;
	region->offset = offset & -page;
	region->len = ((offset + len + page - 1) & -page) - region->offset;
	if (file.end != UINT64_MAX && offset + len > file.end)
		err = -ERANGE;
	peerdma_file_close(&file);
	return err;
}

static int map_pages(struct peerdma_region *region, int fd)
{
	int err;

	region->addr = mmap(NULL, region->len, PROT_READ, MAP_SHARED, fd,
			    region->offset);
	if (region->addr == MAP_FAILED)
		return -errno;
	region->watch = mmap(NULL, region->len, PROT_READ,
			     MAP_SHARED | MAP_POPULATE, fd, region->offset);
	if (region->watch == MAP_FAILED)
		goto unmap;
	if (mprotect(region->watch, region->len, PROT_NONE))
		goto unmap_watch;
	/* A child would inherit the mappings without the pins. */
	madvise(region->addr, region->len, MADV_DONTFORK);
	madvise(region->watch, region->len, MADV_DONTFORK);
	return 0;

unmap_watch:
	err = -errno;
	munmap(region->watch, region->len);
	errno = -err;
unmap:
	err = -errno;
	munmap(region->addr, region->len);
	return err;
}

static void unmap_pages(struct peerdma_region *region)
{
	munmap(region->watch, region->len);
	munmap(region->addr, region->len);
}

static int pin_pages(struct peerdma_region *region, int fd)
{
	struct peerdma *ctx = region->ctx;
	peerdma_cuda_context context;
	int result, err;

	err = peerdma_context_cuda(ctx, &context);
	if (!err)
		err = map_pages(region, fd);
	if (err)
		return err;
	result = ctx->cuda.cuCtxPushCurrent(context);
	if (result)
		goto unmap;
	result = ctx->cuda.cuMemHostRegister(region->addr, region->len,
					     REGISTER_PORTABLE |
						     REGISTER_READ_ONLY);
	ctx->cuda.cuCtxPopCurrent(&context);
	if (!result)
		return 0;
unmap:
	unmap_pages(region);
	return peerdma_cuda_errno(result);
}

static void unpin_pages(struct peerdma_region *region)
{
	struct peerdma *ctx = region->ctx;
	peerdma_cuda_context context = ctx->context;

	/* Where the program has ended the CUDA context, its pins are gone. */
	if (!ctx->cuda.cuCtxPushCurrent(context)) {
		ctx->cuda.cuMemHostUnregister(region->addr);
		ctx->cuda.cuCtxPopCurrent(&context);
	}
	unmap_pages(region);
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
 * -ENOMEM: too much to be pinned; another negative errno.
 */
int peerdma_region_open(struct peerdma *ctx, int fd, uint64_t offset,
			uint64_t len, const struct peerdma_region_opts *opts,
			struct peerdma_region **out_region)
{
	struct peerdma_region *region;
	int err;

	err = check_opts(opts);
	if (err)
		return err;
	region = calloc(1, sizeof(*region));
	if (!region)
		return -ENOMEM;
	region->ctx = ctx;
	err = check_file(region, fd, offset, len);
	if (err)
		goto free_region;
	region->pagemap_fd = open("/proc/thread-self/pagemap",
				  O_RDONLY | O_CLOEXEC);
	if (region->pagemap_fd < 0) {
		err = -errno;
		goto free_region;
	}
	err = pin_pages(region, fd);
	if (err)
		goto close_pagemap;
	peerdma_context_get(ctx);
	pthread_mutex_lock(&ctx->lock);
	region->next = ctx->regions;
	atomic_store(&ctx->regions, region);
	pthread_mutex_unlock(&ctx->lock);
	*out_region = region;
	return 0;

close_pagemap:
	close(region->pagemap_fd);
free_region:
	free(region);
	return err;
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
	while (region->users)
		pthread_cond_wait(&ctx->region_idle, &ctx->lock);
	pthread_mutex_unlock(&ctx->lock);
	unpin_pages(region);
	close(region->pagemap_fd);
	free(region);
	peerdma_context_put(ctx);
}

/* ---- reading out of one ---------------------------------------------------- */

/**
 * peerdma_region_get() - the region that a part of a file lies in
 * @ctx: the context
 * @file: the file
 * @offset: where the part starts
 * @len: its bytes; out: those within the region, or up to the next one
 *
 * Return: the region, held until peerdma_region_put(); NULL: none.
 */
struct peerdma_region *peerdma_region_get(struct peerdma *ctx,
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
		region->users++;
		if (*len > region->offset + region->len - offset)
			*len = region->offset + region->len - offset;
	}
	pthread_mutex_unlock(&ctx->lock);
	return region;
}

/**
 * peerdma_region_put() - let go of a region
 * @region: from peerdma_region_get()
 */
void peerdma_region_put(struct peerdma_region *region)
{
	struct peerdma *ctx = region->ctx;

	pthread_mutex_lock(&ctx->lock);
	if (!--region->users)
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
		if (pread(region->pagemap_fd, entries, n * sizeof(*entries),
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
	int nr = ioctl(region->pagemap_fd, SCAN, &scan);

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

static int move_step(struct peerdma_transfer *t, struct peerdma_region *region,
		     struct peerdma_lane *lane, uint64_t len)
{
	uint64_t from = t->file_offset + t->done, at = from - region->offset;
	struct peerdma_buffer *buf = t->buf;
	bool there;
	int err;

	err = peerdma_lane_copy(buf->ctx, lane,
				buf->addr + t->buffer_offset + t->done,
				region->addr + at, len, false);
	if (err)
		return err;
	there = pages_present(region, at, len);
	err = peerdma_lane_finish(buf->ctx, lane,
				  len < SLEEP_MIN ? 0 : len);
	if (err)
		return err;
	if (!there || !file_reaches(&t->file, from + len)) {
		peerdma_transfer_blame(t, PEERDMA_REASON_REGION_STALE);
		return PEERDMA_PART_REFUSED;
	}
	return peerdma_transfer_advance(t, len, &t->result.bytes_registered);
}

/**
 * peerdma_region_move() - move the next bytes of a read out of a region
 * @t: a read into CUDA memory
 * @region: that they lie in
 * @len: bytes
 *
 * Return: enum peerdma_part or a negative errno.
 */
int peerdma_region_move(struct peerdma_transfer *t,
			struct peerdma_region *region, uint64_t len)
{
	uint64_t step = t->opts.progress ? STEP_WATCHED : STEP_LEN;
	uint64_t end = t->done + len, known = t->file.end - t->file_offset;
	struct peerdma *ctx = t->buf->ctx;
	struct peerdma_lane *lane;
	int part = 0;

	if (t->file.end <= t->file_offset + t->done)
		return PEERDMA_PART_SHORT;
	if ((end < known ? end : known) - t->done < REGION_MIN)
		return PEERDMA_PART_REFUSED;
	part = peerdma_lane_get(ctx, t->buf->pointer.context, &lane);
	if (part)
		return part;
	while (!part && t->done < end && t->done < known) {
		uint64_t left = (end < known ? end : known) - t->done;

		if (left >= step + REGION_MIN)
			left = step;
		part = move_step(t, region, lane, left);
	}
	peerdma_lane_put(ctx, lane);
	if (part)
		return part;
	return t->done < end ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}
