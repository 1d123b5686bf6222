// SPDX-License-Identifier: MIT
/*
 * The second table of make bench-gpu: how many small random reads of a cached file
 * a queue does in a second, into places that lie one behind the other and into
 * places that do not; beside it pread and one copy each, by one thread. All that
 * was read in the last round is compared with the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu.h"

#define BLOCK		((size_t)4096)
#define DEPTH		4096
/* As many as the window holds, so that no place is written twice in a round. */
#define REQUESTS	16384
_Static_assert(REQUESTS == WINDOW / BLOCK, "the window is full");
#define ROUNDS		9

enum way_id { PLAIN, QUEUE, NR_WAY_IDS };

struct round {
	double requests_per_s;
	double cpu;		/* microseconds a request */
};

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static struct peerdma_queue *queue;
static int fd;
static uint64_t file_blocks;
/* Of each request: block of the file, block of the window. */
static uint64_t from[REQUESTS], to[REQUESTS];

static void draw(bool scattered, uint64_t seed)
{
	uint64_t other;
	size_t i, j;

	for (i = 0; i < REQUESTS; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		from[i] = (seed >> 20) % file_blocks;
		to[i] = i;
	}
	for (i = REQUESTS - 1; scattered && i; i--) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		j = (seed >> 20) % (i + 1);
		other = to[i];
		to[i] = to[j];
		to[j] = other;
	}
}

static int run_plain(void)
{
	char *pinned = callers[0].pinned;
	size_t i;

	for (i = 0; i < REQUESTS; i++) {
		if (pread(fd, pinned + i * BLOCK, BLOCK, from[i] * BLOCK) !=
			    (ssize_t)BLOCK ||
		    cuda.cuMemcpyHtoDAsync(callers[0].addr + to[i] * BLOCK,
					   pinned + i * BLOCK, BLOCK,
					   callers[0].stream))
			return EIO;
	}
	return cuda.cuStreamSynchronize(callers[0].stream) ? EIO : 0;
}

static int reap(unsigned int min, size_t *out_done)
{
	static struct peerdma_completion done[DEPTH];
	int n = peerdma_queue_reap(queue, done, min, DEPTH, NULL), i;

	for (i = 0; i < n; i++)
		if (done[i].result != (int64_t)BLOCK)
			return EIO;
	if (n < 0)
		return -n;
	*out_done += n;
	return 0;
}

static int run_queue(void)
{
	static struct peerdma_io_request requests[DEPTH / 4];
	size_t sent = 0, done = 0, n, i;
	int err = 0, taken;

	while (!err && done < REQUESTS) {
		n = REQUESTS - sent;
		if (n > DEPTH / 4)
			n = DEPTH / 4;
		if (n > DEPTH - (sent - done))
			n = DEPTH - (sent - done);
		for (i = 0; i < n; i++)
			requests[i] = (struct peerdma_io_request){
				.size = sizeof(requests[i]), .buf = buf,
				.fd = fd, .len = BLOCK,
				.file_offset = from[sent + i] * BLOCK,
				.buffer_offset = to[sent + i] * BLOCK };
		taken = n ? peerdma_queue_submit(queue, requests, n, 0) : 0;
		if (taken < 0)
			return -taken;
		sent += taken;
		err = reap(sent < REQUESTS ? DEPTH / 4 : 1, &done);
	}
	return err;
}

static int compare(void)
{
	char *gpu = callers[0].pageable, block[BLOCK];
	size_t i;

	if (cuda.cuMemcpyDtoH(gpu, callers[0].addr, WINDOW))
		return EIO;
	for (i = 0; i < REQUESTS; i++)
		if (pread(fd, block, BLOCK, from[i] * BLOCK) !=
			    (ssize_t)BLOCK ||
		    memcmp(block, gpu + to[i] * BLOCK, BLOCK))
			return EILSEQ;
	return 0;
}

static int run_round(enum way_id way, struct round *round)
{
	double start = gpu_now(), cpu = gpu_cpu_time();
	int err = way == PLAIN ? run_plain() : run_queue();

	round->requests_per_s = (double)REQUESTS / (gpu_now() - start);
	round->cpu = (gpu_cpu_time() - cpu) / (double)REQUESTS * 1e6;
	return err;
}

static int compare_rounds(const void *a, const void *b)
{
	const struct round *x = a, *y = b;

	return (x->requests_per_s > y->requests_per_s) -
	       (x->requests_per_s < y->requests_per_s);
}

static int run_case(bool scattered, FILE *json)
{
	static const char *const names[NR_WAY_IDS] = { "plain", "queue" };
	struct round rounds[NR_WAY_IDS][ROUNDS], *middle;
	int r, way, err = 0;

	for (r = -1; r < ROUNDS && !err; r++) {
		draw(scattered, r + 77);
		for (way = 0; way < NR_WAY_IDS && !err; way++)
			err = run_round(way, &rounds[way][r < 0 ? 0 : r]);
	}
	/* The queue came last. */
	if (!err)
		err = compare();
	if (err) {
		fprintf(stderr, "gpu_queue: %s\n", strerror(err));
		return err;
	}
	printf("%-10s", scattered ? "scattered" : "adjacent");
	for (way = 0; way < NR_WAY_IDS; way++) {
		qsort(rounds[way], ROUNDS, sizeof(rounds[way][0]),
		      compare_rounds);
		middle = &rounds[way][ROUNDS / 2];
		printf("  %8.2f M/s %6.2f us", middle->requests_per_s * 1e-6,
		       middle->cpu);
		fprintf(json, "%s{\"places\":\"%s\",\"way\":\"%s\","
			"\"requests_per_s\":%.0f,\"cpu_us\":%.3f}",
			!scattered && way == PLAIN ? "" : ",\n",
			scattered ? "scattered" : "adjacent", names[way],
			middle->requests_per_s, middle->cpu);
	}
	printf("\n");
	return 0;
}

static int set_up(const char *path)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	struct stat st;
	int err;

	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	file_blocks = st.st_size / BLOCK;
	if (!file_blocks)
		return -ENODATA;
	err = gpu_start();
	if (!err)
		err = peerdma_open(&ctx, NULL);
	if (!err)
		err = peerdma_buffer_pin(ctx, callers[0].addr, WINDOW, &opts,
					 &buf);
	if (!err)
		err = peerdma_queue_create(ctx, DEPTH, NULL, &queue);
	return err;
}

int main(int argc, char **argv)
{
	FILE *json;
	int err;

	if (argc != 3) {
		fprintf(stderr, "usage: gpu_queue FILE JSON\n");
		return 2;
	}
	err = set_up(argv[1]);
	if (err) {
		fprintf(stderr, "gpu_queue: %s\n", strerror(-err));
		return 1;
	}
	json = fopen(argv[2], "w");
	if (!json) {
		perror(argv[2]);
		return 1;
	}
	printf("4 KiB random reads of a cached file; CPU time of one\n");
	printf("%-10s  %23s  %23s\n", "places", "pread and a copy each",
	       "queue");
	fprintf(json, "[\n");
	err = run_case(false, json);
	if (!err)
		err = run_case(true, json);
	fprintf(json, "\n]\n");
	fclose(json);
	peerdma_queue_destroy(queue);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	return err ? 1 : 0;
}
