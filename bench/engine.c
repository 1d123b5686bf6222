// SPDX-License-Identifier: MIT
/*
 * libpeerdma's paths in the lab, each beside what it is made of: unbuffered reads
 * into host RAM (the drive's limit), reads of the page cache, and the copy into
 * GPU memory, out of pinned memory in huge pages as the library's is. One caller,
 * one request at a time. The ways take turns, several rounds; the medians are
 * printed as one JSON line each.
 *
 * usage: engine ROUNDS NAME=FILE...
 *   For each FILE and each block, all ways; FILE is 64 MiB or longer and is read
 *   unbuffered, but for the ways that read the page cache, where it must be by then.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <peerdma.h>

#include "../tests/t_clock.h"

#define SPAN		(64ull << 20)
#define ROUNDS_MAX	15
/* QEMU's is a tenth of a second's rate: 10 MB of each of two drives. */
#define SAVINGS		(32ull << 20)
#define SAVINGS_BLOCK	(1u << 20)

enum way { RAM, RAM_BEST, DIRECT, STAGED, PLAIN_DIRECT, CACHED,
	   PLAIN_CACHED, NR_WAYS };

static const struct way_kind {
	const char *name;
	bool cached;
	bool gpu;
	uint32_t path;		/* 0: read(2), and a copy of CUDA's */
} ways[NR_WAYS] = {
	[RAM] = { "ram", false, false, 0 },
	[RAM_BEST] = { "ram-best", false, false, 0 },
	[DIRECT] = { "direct", false, true, PEERDMA_PATH_DIRECT },
	[STAGED] = { "staged", false, true, PEERDMA_PATH_STAGED },
	[PLAIN_DIRECT] = { "plain", false, true, 0 },
	[CACHED] = { "cached", true, true, PEERDMA_PATH_CACHE },
	[PLAIN_CACHED] = { "plain-cached", true, true, 0 },
};

static const struct shape {
	const char *name;
	size_t block;
	uint64_t total;
} shapes[] = {
	{ "4K", 4u << 10, 8u << 20 },
	{ "128K", 128u << 10, SPAN },
	{ "1M", 1u << 20, SPAN },
	{ "16M", 16u << 20, SPAN },
	{ "64M", 64u << 20, SPAN },
};

#define NR_SHAPES	(sizeof(shapes) / sizeof(shapes[0]))

struct figure {
	double seconds;
	double cpu;
};

static struct peerdma_buffer *buffer;
static char *ram;		/* as most programs have it: 4 KiB pages */
static char *stage;		/* huge pages, pinned by CUDA */
static int direct_fd, cached_fd;

static void die(const char *what, long long err)
{
	fprintf(stderr, "engine: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void read_block(const struct way_kind *way, uint64_t at, size_t len)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = way->path);
	char *memory = way == &ways[RAM] ? ram : stage;
	int fd = way->cached ? cached_fd : direct_fd;
	ssize_t n;
	int err;

	if (way->path) {
		n = peerdma_read_opts(buffer, fd, len, at, at, &opts, NULL);
	} else {
		n = pread(fd, memory + at, len, at);
		if (n < 0)
			n = -errno;
	}
	if (n != (ssize_t)len)
		die(way->name, n < 0 ? n : -EIO);
	if (way->path || !way->gpu)
		return;
	err = peerdma_buffer_copy_in(buffer, at, memory + at, len);
	if (err)
		die("copy", err);
}

/* A throttled drive saves up what it did not do while the other ways copied. */
static void spend_savings(void)
{
	uint64_t at;

	for (at = 0; at < SAVINGS; at += SAVINGS_BLOCK)
		read_block(&ways[RAM], at, SAVINGS_BLOCK);
}

static struct figure measure(const struct way_kind *way,
			     const struct shape *shape)
{
	struct figure figure;
	double start, cpu;
	uint64_t at;

	if (!way->cached)
		spend_savings();
	start = t_now();
	cpu = t_cpu_busy();
	for (at = 0; at < shape->total; at += shape->block)
		read_block(way, at, shape->block);
	figure.seconds = t_now() - start;
	figure.cpu = t_cpu_busy() - cpu;
	return figure;
}

static int by_seconds(const void *a, const void *b)
{
	const struct figure *left = a, *right = b;

	return (left->seconds > right->seconds) -
	       (left->seconds < right->seconds);
}

static void report(const char *name, const struct way_kind *way,
		   const struct shape *shape, struct figure *figures,
		   int rounds)
{
	const struct figure *median = &figures[rounds / 2];

	qsort(figures, rounds, sizeof(*figures), by_seconds);
	printf("{\"file\":\"%s\",\"shape\":\"%s\",\"block\":%zu,\"way\":\"%s\","
	       "\"mb_per_s\":%.1f,\"us_per_request\":%.2f,"
	       "\"cpu_s_per_gib\":%.3f}\n",
	       name, shape->name, shape->block, way->name,
	       shape->total / median->seconds / 1e6,
	       median->seconds * 1e6 * shape->block / shape->total,
	       median->cpu * (1ull << 30) / shape->total);
	fflush(stdout);
}

static void measure_shape(const char *name, const struct shape *shape,
			  int rounds)
{
	static struct figure figures[NR_WAYS][ROUNDS_MAX];
	int round, way;

	for (way = 0; way < NR_WAYS; way++)
		measure(&ways[way], shape);
	for (round = 0; round < rounds; round++)
		for (way = 0; way < NR_WAYS; way++)
			figures[way][round] = measure(&ways[way], shape);
	for (way = 0; way < NR_WAYS; way++)
		report(name, &ways[way], shape, figures[way], rounds);
}

/* The last way's bytes are the file's. */
static void compare(void)
{
	char *seen = mmap(NULL, SPAN, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (seen == MAP_FAILED)
		die("mmap", -errno);
	err = peerdma_buffer_copy_out(buffer, 0, seen, SPAN);
	if (err)
		die("copy", err);
	if (pread(cached_fd, ram, SPAN, 0) != (ssize_t)SPAN ||
	    memcmp(seen, ram, SPAN))
		die("the bytes differ", -EIO);
	munmap(seen, SPAN);
}

static void measure_file(char *argument, int rounds)
{
	char *path = strchr(argument, '=');
	size_t i;

	if (!path)
		die(argument, -EINVAL);
	*path++ = '\0';
	direct_fd = open(path, O_RDONLY | O_DIRECT);
	cached_fd = open(path, O_RDONLY);
	if (direct_fd < 0 || cached_fd < 0)
		die(path, -errno);
	for (i = 0; i < NR_SHAPES; i++)
		measure_shape(argument, &shapes[i], rounds);
	compare();
	close(direct_fd);
	close(cached_fd);
}

static char *map_memory(int advice)
{
	size_t huge = 2u << 20;
	char *mem = mmap(NULL, SPAN + huge, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		die("mmap", -errno);
	mem += -(uintptr_t)mem % huge;
	if (madvise(mem, SPAN, advice))
		die("madvise", -errno);
	memset(mem, 1, SPAN);
	return mem;
}

static void *symbol(void *library, const char *name)
{
	void *found = library ? dlsym(library, name) : NULL;

	if (!found)
		die(name, -ENOSYS);
	return found;
}

/* In the context of the library's buffers, which is the GPU's first one. */
static void pin(void *memory)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW), *context;
	int (*retain)(void **context, int device);
	int (*set_current)(void *context);
	int (*host_register)(void *addr, size_t len, unsigned int flags);

	*(void **)&retain = symbol(library, "cuDevicePrimaryCtxRetain");
	*(void **)&set_current = symbol(library, "cuCtxSetCurrent");
	*(void **)&host_register = symbol(library, "cuMemHostRegister_v2");
	if (retain(&context, 0) || set_current(context) ||
	    host_register(memory, SPAN, 1))
		die("cuMemHostRegister", -ENOMEM);
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[1]) : 0, err, i;
	/* What is kept needs no copy by the CPU, and that is what is measured. */
	PEERDMA_SIZED(peerdma_open_opts, opts, .keep = PEERDMA_KEEP_NONE);
	struct peerdma *ctx;

	if (rounds < 1 || rounds > ROUNDS_MAX)
		die("usage: engine ROUNDS NAME=FILE...", -EINVAL);
	ram = map_memory(MADV_NOHUGEPAGE);
	stage = map_memory(MADV_HUGEPAGE);
	err = peerdma_open(&ctx, &opts);
	if (!err)
		err = peerdma_buffer_alloc(ctx, SPAN, NULL, &buffer);
	if (err)
		die("a buffer", err);
	pin(stage);
	for (i = 2; i < argc; i++)
		measure_file(argv[i], rounds);
	peerdma_buffer_close(buffer);
	peerdma_close(ctx);
	return 0;
}
