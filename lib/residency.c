// SPDX-License-Identifier: MIT
/*
 * What of a file the page cache holds: cachestat(2) where the kernel has it,
 * mincore(2) of a mapping that is never touched elsewhere.
 *
 * To whom the file does not belong, and who may not write it, the kernel does not
 * tell: cachestat(2) is refused since 2025, and mincore(2) calls everything
 * resident. Then single bytes are read with RWF_NOWAIT, which fails where it
 * would wait. A byte that is missing makes the kernel read its page ahead; so they
 * are drawn at random, or those that were asked for before would be found.
 *
 * The answer is about speed alone: pages come and go while it is given, and what
 * is read is right whichever way it is read. So large ranges are sampled.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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

/* Does mincore(2) tell this process the truth? Root's capabilities aside. */
static bool may_ask(int fd)
{
	struct stat st;

	return (!fstat(fd, &st) && st.st_uid == geteuid()) ||
	       !faccessat(fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS);
}

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (*state >> 33) % below;
}

enum way {
	CACHESTAT,
	MINCORE,
	READ,
};

/* The first spot finds out which way there is. */
static bool spot_resident(int fd, uint64_t offset, uint64_t len, enum way *way)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	struct range range = { offset, len };
	struct state state;

	if (*way == CACHESTAT) {
		if (!syscall(SYS_cachestat, fd, &range, &state, 0))
			return state.nr_cache >=
			       (offset + len + page - 1) / page - offset / page;
		*way = errno != EPERM && may_ask(fd) ? MINCORE : READ;
	}
	return *way == MINCORE && spot_in_core(fd, offset, len, page);
}

static bool spots_resident(int fd, uint64_t offset, uint64_t len, enum way *way)
{
	uint64_t step = len / SPOTS;
	unsigned int i;

	if (len <= SPOT_LEN)
		return spot_resident(fd, offset, len, way);
	if (step < SPOT_LEN)
		step = SPOT_LEN;
	for (i = 0; i < SPOTS && i * step < len; i++) {
		uint64_t left = len - i * step;

		if (!spot_resident(fd, offset + i * step,
				   left < SPOT_LEN ? left : SPOT_LEN, way))
			return false;
	}
	return true;
}

static bool bytes_readable(int fd, uint64_t offset, uint64_t len)
{
	uint64_t from, to, state = peerdma_nanoseconds();
	unsigned int i;
	char byte;
	struct iovec vec = { .iov_base = &byte, .iov_len = 1 };

	for (i = 0; i < SPOTS; i++) {
		from = len * i / SPOTS;
		to = len * (i + 1) / SPOTS;
		if (to > from && preadv2(fd, &vec, 1, offset + from +
					 draw(&state, to - from), RWF_NOWAIT) != 1)
			return false;
	}
	return true;
}

static bool window_resident(int fd, uint64_t offset, uint64_t len,
			    enum way *way)
{
	if (*way != READ && spots_resident(fd, offset, len, way))
		return true;
	return *way == READ && bytes_readable(fd, offset, len);
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
	enum way way = CACHESTAT;
	bool resident;

	if (known > len)
		known = len;
	*out_resident = false;
	while (done < known) {
		step = known - done < WINDOW_LEN ? known - done : WINDOW_LEN;
		resident = window_resident(file->cached_fd, offset + done,
					   step, &way);
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
 * Return: bytes, at most @len; 0 where the kernel does not tell this process.
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
	else if (errno == EPERM || !may_ask(fd))
		return 0;
	else
		found = count_in_core(fd, len, page);
	return found * page < len ? found * page : len;
}
