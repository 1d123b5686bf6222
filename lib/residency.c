// SPDX-License-Identifier: MIT
/*
 * What of a file the page cache holds: cachestat(2) where the kernel has it,
 * mincore(2) of a mapping that is never touched elsewhere.
 *
 * The answer is about speed alone: pages come and go while it is given, and what
 * is read is right whichever way it is read. So large ranges are sampled.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#define WINDOW_LEN	((uint64_t)64 << 20)
#define SPOTS		8
#define SPOT_LEN	((uint64_t)128 << 10)
#define PAGES_MAX	(SPOT_LEN / 4096 + 2)

/* Number and structs of the kernel's ABI; C libraries know them since 2024. */
#ifndef SYS_cachestat
#define SYS_cachestat	451
#endif

struct range {
	uint64_t offset;
	uint64_t len;
};

struct state {
	uint64_t nr_cache;
	uint64_t others[4];
};

static bool spot_in_core(int fd, uint64_t offset, uint64_t len, uint64_t page)
{
	uint64_t start = offset & -page;
	unsigned char pages[PAGES_MAX];
	size_t n = (offset + len - start + page - 1) / page, i;
	bool in_core = false;
	void *addr;

	addr = mmap(NULL, n * page, PROT_READ, MAP_SHARED, fd, start);
	if (addr == MAP_FAILED)
		return false;
	if (!mincore(addr, n * page, pages)) {
		for (i = 0; i < n && pages[i] & 1; i++)
			;
		in_core = i == n;
	}
	munmap(addr, n * page);
	return in_core;
}

static bool spot_resident(int fd, uint64_t offset, uint64_t len)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	struct range range = { offset, len };
	struct state state;

	if (!syscall(SYS_cachestat, fd, &range, &state, 0))
		return state.nr_cache >=
		       (offset + len + page - 1) / page - offset / page;
	return spot_in_core(fd, offset, len, page);
}

static bool window_resident(int fd, uint64_t offset, uint64_t len)
{
	uint64_t step = len / SPOTS;
	unsigned int i;

	if (len <= SPOT_LEN)
		return spot_resident(fd, offset, len);
	if (step < SPOT_LEN)
		step = SPOT_LEN;
	for (i = 0; i < SPOTS && i * step < len; i++) {
		uint64_t left = len - i * step;

		if (!spot_resident(fd, offset + i * step,
				   left < SPOT_LEN ? left : SPOT_LEN))
			return false;
	}
	return true;
}

/**
 * peerdma_residency_run() - how far a file is, or is not, in the page cache
 * @file: the file, open without O_DIRECT
 * @offset: from here
 * @len: bytes at most, above 0
 * @out_resident: whether it is
 *
 * Return: bytes of which that holds, by all signs; above 0.
 */
uint64_t peerdma_residency_run(struct peerdma_file *file, uint64_t offset,
			       uint64_t len, bool *out_resident)
{
	uint64_t known = file->end > offset ? file->end - offset : 0;
	uint64_t done = 0, step;
	bool resident;

	if (known > len)
		known = len;
	*out_resident = false;
	while (done < known) {
		step = known - done < WINDOW_LEN ? known - done : WINDOW_LEN;
		resident = window_resident(file->cached_fd, offset + done,
					   step);
		if (done && resident != *out_resident)
			return done;
		*out_resident = resident;
		done += step;
	}
	/* What lies behind the end goes with the last byte. */
	return len;
}

/* With mincore(2), a piece at a time. */
static uint64_t count_in_core(int fd, uint64_t len, uint64_t page)
{
	unsigned char pages[PAGES_MAX];
	uint64_t at, step, found = 0;
	void *addr;
	size_t i;

	for (at = 0; at < len; at += step) {
		step = len - at < SPOT_LEN ? len - at : SPOT_LEN;
		addr = mmap(NULL, step, PROT_READ, MAP_SHARED, fd, at);
		if (addr == MAP_FAILED)
			return 0;
		if (!mincore(addr, step, pages))
			for (i = 0; i * page < step; i++)
				found += pages[i] & 1;
		munmap(addr, step);
	}
	return found;
}

/**
 * peerdma_residency_count() - how much of a file is in the page cache
 * @fd: the file, open without O_DIRECT
 * @len: its bytes
 *
 * Return: bytes, at most @len; 0 where the kernel does not tell.
 */
uint64_t peerdma_residency_count(int fd, uint64_t len)
{
	uint64_t page = sysconf(_SC_PAGESIZE), found;
	struct range range = { 0, len };
	struct state state;

	if (!len)
		return 0;
	if (!syscall(SYS_cachestat, fd, &range, &state, 0))
		found = state.nr_cache;
	else
		found = count_in_core(fd, len, page);
	return found * page < len ? found * page : len;
}
