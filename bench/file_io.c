// SPDX-License-Identifier: MIT
/*
 * How fast does a drive move data into GPU memory, and at what price in CPU time,
 * beside the same reads into host RAM?
 *
 * Four ways in one run: into RAM as most programs have it (4 KiB pages, io_uring
 * and O_DIRECT), into RAM at its best (huge pages, registered buffers), and into
 * GPU memory by FILE_IO as one ioctl and as io_uring commands. The ways take
 * turns, several rounds; the medians are printed as one JSON line each.
 *
 * usage: file_io FILE ROUNDS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../tests/t_clock.h"
#include "../tests/t_gpu.h"

#define BUFFER_LEN	(64u << 20)
#define ROUNDS_MAX	15

enum way { RAM, RAM_BEST, GPU_IOCTL, GPU_URING, NR_WAYS };

static const char *const way_names[NR_WAYS] = {
	[RAM] = "ram",
	[RAM_BEST] = "ram-best",
	[GPU_IOCTL] = "gpu-ioctl",
	[GPU_URING] = "gpu-uring",
};

struct shape {
	const char *name;
	unsigned int block;
	unsigned int depth;
	uint64_t total;
};

static const struct shape shapes[] = {
	{ "1M QD8", 1u << 20, 8, 1ull << 30 },
	{ "128K QD32", 128u << 10, 32, 1ull << 30 },
	{ "4K QD32", 4u << 10, 32, 64ull << 20 },
	{ "4K QD1", 4u << 10, 1, 16ull << 20 },
};

struct rig {
	int file;
	int dev;
	int buffer;
	char *ram;
	char *huge;
};

struct sample {
	double seconds;
	double cpu;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(err));
	exit(1);
}

static char *map_ram(int flags, int advice)
{
	char *mem = mmap(NULL, BUFFER_LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (mem == MAP_FAILED)
		die("mmap", errno);
	if (advice && madvise(mem, BUFFER_LEN, advice))
		die("madvise", errno);
	memset(mem, 0xa5, BUFFER_LEN);
	return mem;
}

static void setup_ring(struct io_uring *ring, const struct rig *rig,
		       const struct shape *shape, enum way way)
{
	struct iovec iov = { rig->huge, BUFFER_LEN };
	int ret = io_uring_queue_init(shape->depth, ring, 0);

	if (!ret && way == RAM_BEST)
		ret = io_uring_register_buffers(ring, &iov, 1);
	if (ret)
		die("io_uring", -ret);
}

struct command {
	struct peerdma_file_io io;
	struct peerdma_file_segment segment;
};

static void prepare(struct io_uring_sqe *sqe, const struct rig *rig,
		    const struct shape *shape, enum way way, uint64_t offset,
		    struct command *command)
{
	uint64_t at = offset % BUFFER_LEN;

	if (way == RAM) {
		io_uring_prep_read(sqe, rig->file, rig->ram + at, shape->block,
				   offset);
		return;
	}
	if (way == RAM_BEST) {
		io_uring_prep_read_fixed(sqe, rig->file, rig->huge + at,
					 shape->block, offset, 0);
		return;
	}
	*command = (struct command){
		.io = {
			.size = sizeof(command->io),
			.buffer_fd = rig->buffer,
			.file_fd = rig->file,
			.segments = (uintptr_t)&command->segment,
			.nr_segments = 1,
		},
		.segment = {
			.file_offset = offset,
			.buffer_offset = at,
			.len = shape->block,
		},
	};
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = rig->dev;
	sqe->cmd_op = PEERDMA_FILE_IO;
	*(uint64_t *)sqe->cmd = (uintptr_t)&command->io;
}

static void run_ring(const struct rig *rig, const struct shape *shape,
		     enum way way, struct sample *sample)
{
	struct command *commands = calloc(shape->depth, sizeof(*commands));
	uint64_t next = 0, done = 0;
	unsigned int free_slots = shape->depth;
	struct io_uring ring;
	double cpu, start;

	setup_ring(&ring, rig, shape, way);
	cpu = t_cpu_busy();
	start = t_now();
	while (done < shape->total) {
		struct io_uring_cqe *cqe;
		unsigned int head, seen = 0;

		while (free_slots && next < shape->total) {
			uint64_t slot = next / shape->block % shape->depth;

			prepare(io_uring_get_sqe(&ring), rig, shape, way, next,
				&commands[slot]);
			next += shape->block;
			free_slots--;
		}
		io_uring_submit_and_wait(&ring, 1);
		io_uring_for_each_cqe(&ring, head, cqe) {
			if (cqe->res != (int)shape->block)
				die(way_names[way], cqe->res < 0 ? -cqe->res :
								   EIO);
			seen++;
		}
		io_uring_cq_advance(&ring, seen);
		done += (uint64_t)seen * shape->block;
		free_slots += seen;
	}
	sample->seconds = t_now() - start;
	sample->cpu = t_cpu_busy() - cpu;
	io_uring_queue_exit(&ring);
	free(commands);
}

/* Queue depth 1 is one call each, as pread() is; else one call for all. */
static void run_ioctl(const struct rig *rig, const struct shape *shape,
		      struct sample *sample)
{
	uint32_t nr = shape->depth == 1 ? 1 : shape->total / shape->block;
	struct peerdma_file_segment *segments;
	uint64_t offset = 0;
	double cpu, start;
	uint32_t i;

	segments = nr ? calloc(nr, sizeof(*segments)) : NULL;
	if (!segments)
		die("calloc", ENOMEM);
	cpu = t_cpu_busy();
	start = t_now();
	while (offset < shape->total) {
		struct peerdma_file_io io = {
			.buffer_fd = rig->buffer,
			.file_fd = rig->file,
			.segments = (uintptr_t)segments,
			.nr_segments = nr,
			.depth = shape->depth,
		};
		int ret;

		for (i = 0; i < nr; i++, offset += shape->block)
			segments[i] = (struct peerdma_file_segment){
				.file_offset = offset,
				.buffer_offset = offset % BUFFER_LEN,
				.len = shape->block,
			};
		ret = t_file_io(rig->dev, &io);
		if (ret)
			die(way_names[GPU_IOCTL], -ret);
	}
	sample->seconds = t_now() - start;
	sample->cpu = t_cpu_busy() - cpu;
	free(segments);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, int nr)
{
	qsort(values, nr, sizeof(*values), compare);
	return values[nr / 2];
}

static void report(const struct shape *shape, enum way way,
		   const struct sample *samples, int rounds)
{
	double seconds[ROUNDS_MAX] = { 0 }, cpu[ROUNDS_MAX] = { 0 };
	double gib = shape->total / (double)(1 << 30);
	int i;

	for (i = 0; i < rounds; i++) {
		seconds[i] = samples[i].seconds;
		cpu[i] = samples[i].cpu;
	}
	printf("{\"shape\": \"%s\", \"block\": %u, \"depth\": %u, "
	       "\"way\": \"%s\", \"mb_per_s\": %.1f, \"us_per_request\": %.2f, "
	       "\"cpu_s_per_gib\": %.3f, \"rounds\": %d}\n",
	       shape->name, shape->block, shape->depth, way_names[way],
	       shape->total / median(seconds, rounds) / 1e6,
	       median(seconds, rounds) * 1e6 * shape->block / shape->total,
	       median(cpu, rounds) / gib, rounds);
}

static void bench(const struct rig *rig, const struct shape *shape, int rounds)
{
	struct sample samples[NR_WAYS][ROUNDS_MAX];
	int round, way;

	/* Round -1 warms caches and is not counted. */
	for (round = -1; round < rounds; round++) {
		for (way = 0; way < NR_WAYS; way++) {
			struct sample sample;

			if (way == GPU_IOCTL)
				run_ioctl(rig, shape, &sample);
			else
				run_ring(rig, shape, way, &sample);
			if (round >= 0)
				samples[way][round] = sample;
		}
	}
	for (way = 0; way < NR_WAYS; way++)
		report(shape, way, samples[way], rounds);
}

int main(int argc, char **argv)
{
	struct peerdma_pin pin;
	struct rig rig;
	unsigned int i;
	int rounds;

	if (argc != 3) {
		fprintf(stderr, "usage: file_io FILE ROUNDS\n");
		return 2;
	}
	rounds = atoi(argv[2]);
	if (rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "bench: ROUNDS is 1 to %d\n", ROUNDS_MAX);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	rig.file = open(argv[1], O_RDONLY | O_DIRECT);
	if (rig.file < 0)
		die(argv[1], errno);
	t_gpu_init();
	rig.dev = t_device_open();
	rig.buffer = t_pin(rig.dev, t_gpu_alloc(BUFFER_LEN), BUFFER_LEN, 0,
			   &pin);
	if (rig.buffer < 0)
		die("PIN", -rig.buffer);
	rig.ram = map_ram(0, MADV_NOHUGEPAGE);
	rig.huge = map_ram(MAP_HUGETLB, 0);

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		bench(&rig, &shapes[i], rounds);
	return 0;
}
