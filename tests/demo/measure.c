// SPDX-License-Identifier: MIT
/*
 * How fast, and at what price in CPU time, do files move between a drive and GPU
 * memory: straight, and through host RAM; beside plain reads into host RAM.
 *
 * usage: measure FILE NEW-FILE
 *
 * The ways take turns; the first round warms caches, of the others the median is
 * printed. A dot is printed for each transfer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <peerdma.h>

#include "../t_clock.h"

#define ROUNDS		3
#define BLOCK		(1u << 20)
#define DEPTH		8
#define RAM_LEN		(64u << 20)

/**
 * struct rig - what is measured with
 * @buffer: GPU memory of the file's length
 * @source: open to read
 * @copy: open to write
 * @len: of both
 * @ram: ordinary memory, 4 KiB pages
 * @huge: 2 MiB pages
 */
struct rig {
	struct peerdma_buffer *buffer;
	int source;
	int copy;
	uint64_t len;
	char *ram;
	char *huge;
};

struct sample {
	double seconds;
	double cpu;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "\nmeasure: %s: %s\n", what, strerror(err));
	exit(1);
}

static void move_gpu(const struct rig *rig, enum peerdma_path path, bool write)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = path);
	PEERDMA_SIZED(peerdma_io_result, result);
	ssize_t moved;

	if (write)
		moved = peerdma_write_opts(rig->buffer, rig->copy, rig->len, 0,
					   0, &opts, &result);
	else
		moved = peerdma_read_opts(rig->buffer, rig->source, rig->len, 0,
					  0, &opts, &result);
	if (moved != (ssize_t)rig->len)
		die(peerdma_reason_string(result.reason), -result.error);
}

static void read_direct(const struct rig *rig)
{
	move_gpu(rig, PEERDMA_PATH_DIRECT, false);
}

static void write_direct(const struct rig *rig)
{
	move_gpu(rig, PEERDMA_PATH_DIRECT, true);
}

static void read_staged(const struct rig *rig)
{
	move_gpu(rig, PEERDMA_PATH_STAGED, false);
}

static void read_ring(const struct rig *rig, struct io_uring *ring, char *to,
		      bool registered)
{
	uint64_t next = 0, done = 0;

	while (done < rig->len) {
		struct io_uring_cqe *cqe;

		while (next < rig->len && next - done < DEPTH * BLOCK) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
			char *at = to + next % RAM_LEN;

			if (registered)
				io_uring_prep_read_fixed(sqe, rig->source, at,
							 BLOCK, next, 0);
			else
				io_uring_prep_read(sqe, rig->source, at, BLOCK,
						   next);
			next += BLOCK;
		}
		io_uring_submit_and_wait(ring, 1);
		while (!io_uring_peek_cqe(ring, &cqe)) {
			if (cqe->res != BLOCK)
				die("read", cqe->res < 0 ? -cqe->res : EIO);
			io_uring_cqe_seen(ring, cqe);
			done += BLOCK;
		}
	}
}

static void read_ram(const struct rig *rig)
{
	struct io_uring ring;
	int ret = io_uring_queue_init(DEPTH, &ring, 0);

	if (ret)
		die("io_uring", -ret);
	read_ring(rig, &ring, rig->ram, false);
	io_uring_queue_exit(&ring);
}

static void read_ram_best(const struct rig *rig)
{
	struct iovec iov = { rig->huge, RAM_LEN };
	struct io_uring ring;
	int ret = io_uring_queue_init(DEPTH, &ring, 0);

	if (!ret)
		ret = io_uring_register_buffers(&ring, &iov, 1);
	if (ret)
		die("io_uring", -ret);
	read_ring(rig, &ring, rig->huge, true);
	io_uring_queue_exit(&ring);
}

static const struct way {
	const char *name;
	void (*move)(const struct rig *rig);
} ways[] = {
	{ "drive -> GPU, direct", read_direct },
	{ "GPU -> drive, direct", write_direct },
	{ "drive -> host RAM -> GPU, staged", read_staged },
	{ "drive -> host RAM, O_DIRECT", read_ram },
	{ "drive -> host RAM, at its best: the limit", read_ram_best },
};

#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

static char *map_ram(int flags, int advice)
{
	char *mem = mmap(NULL, RAM_LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (mem == MAP_FAILED)
		die("mmap", errno);
	if (advice && madvise(mem, RAM_LEN, advice))
		die("madvise", errno);
	memset(mem, 0xa5, RAM_LEN);
	return mem;
}

static void prepare(struct rig *rig, const char *source, const char *copy)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .gpu = 0);
	struct peerdma *ctx;
	struct stat stat;
	int ret;

	rig->source = open(source, O_RDONLY | O_DIRECT);
	if (rig->source < 0 || fstat(rig->source, &stat))
		die(source, errno);
	rig->len = stat.st_size;
	rig->copy = open(copy, O_WRONLY | O_CREAT | O_DIRECT, 0644);
	if (rig->copy < 0)
		die(copy, errno);
	ret = peerdma_open(&ctx, &opts);
	if (ret)
		die("peerdma_open", -ret);
	ret = peerdma_buffer_alloc(ctx, rig->len, NULL, &rig->buffer);
	if (ret)
		die("peerdma_buffer_alloc", -ret);
	rig->ram = map_ram(0, MADV_NOHUGEPAGE);
	rig->huge = map_ram(MAP_HUGETLB, 0);
}

static void measure(const struct rig *rig, const struct way *way,
		    struct sample *sample)
{
	double cpu = t_cpu_busy(), start = t_now();

	way->move(rig);
	sample->seconds = t_now() - start;
	sample->cpu = t_cpu_busy() - cpu;
	putchar('.');
	fflush(stdout);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void report(const struct rig *rig, const struct way *way,
		   const struct sample *samples)
{
	double seconds[ROUNDS], cpu[ROUNDS];
	int i;

	for (i = 0; i < ROUNDS; i++) {
		seconds[i] = samples[i].seconds;
		cpu[i] = samples[i].cpu;
	}
	qsort(seconds, ROUNDS, sizeof(*seconds), compare);
	qsort(cpu, ROUNDS, sizeof(*cpu), compare);
	printf("  %-44s %8.0f %16.2f\n", way->name,
	       rig->len / seconds[ROUNDS / 2] / 1e6,
	       cpu[ROUNDS / 2] / (rig->len / (double)(1 << 30)));
}

int main(int argc, char **argv)
{
	struct sample samples[NR_WAYS][ROUNDS + 1];
	struct rig rig;
	unsigned int i;
	double start;
	int round;

	if (argc != 3) {
		fprintf(stderr, "usage: measure FILE NEW-FILE\n");
		return 2;
	}
	prepare(&rig, argv[1], argv[2]);
	start = t_now();
	for (round = 0; round <= ROUNDS; round++)
		for (i = 0; i < NR_WAYS; i++)
			measure(&rig, &ways[i], &samples[i][round]);
	printf("%6.1f s\n\n  %-44s %8s %16s\n", t_now() - start, "1 MiB requests",
	       "MB/s", "CPU s per GiB");
	for (i = 0; i < NR_WAYS; i++)
		report(&rig, &ways[i], &samples[i][1]);
	return 0;
}
