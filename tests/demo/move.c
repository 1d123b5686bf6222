// SPDX-License-Identifier: MIT
/*
 * The main job, as a program that uses the library does it: a file into GPU
 * memory, and from there into a new file, straight.
 *
 * usage: move SOURCE COPY OUT
 *
 * OUT gets a record of where in GPU memory the bytes are (t_record.h), for the
 * host to look. A line with dots shows how each direction goes on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <peerdma.h>

#include "../t_gpu.h"
#include "../t_record.h"

#define DOTS	20

static void check(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "\nmove: %s: %s\n", what, strerror(-err));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static int show(void *arg, uint64_t done, uint64_t total)
{
	uint64_t *shown = arg;

	for (; *shown < done * DOTS / total; ++*shown)
		putchar('.');
	fflush(stdout);
	return 0;
}

typedef ssize_t move_fn(struct peerdma_buffer *buffer, int fd, size_t len,
			uint64_t file_offset, uint64_t buffer_offset,
			const struct peerdma_io_opts *opts,
			struct peerdma_io_result *result);

static void run(const char *what, move_fn *move, struct peerdma_buffer *buffer,
		int fd, size_t len)
{
	uint64_t shown = 0;
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_DIRECT,
		      .progress = show, .arg = &shown);
	PEERDMA_SIZED(peerdma_io_result, result);
	double start = now();
	ssize_t moved;

	printf("  %-44s ", what);
	moved = move(buffer, fd, len, 0, 0, &opts, &result);
	if (moved == (ssize_t)len && result.bytes_direct == len) {
		printf("%*s%6.1f s\n", (int)(DOTS - shown), "", now() - start);
		return;
	}
	fprintf(stderr, "\nmove: %zd of %zu bytes, of them %zu straight; %s\n",
		moved, len, (size_t)result.bytes_direct,
		peerdma_reason_string(result.reason));
	exit(1);
}

int main(int argc, char **argv)
{
	PEERDMA_SIZED(peerdma_open_opts, open_opts, .gpu = 0);
	struct peerdma_buffer *buffer;
	struct t_record record;
	struct peerdma *ctx;
	struct stat stat;
	int source, copy;

	if (argc != 4) {
		fprintf(stderr, "usage: move SOURCE COPY OUT\n");
		return 2;
	}
	source = open(argv[1], O_RDONLY | O_DIRECT);
	copy = open(argv[2], O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0644);
	if (source < 0 || copy < 0 || fstat(source, &stat)) {
		perror("move: open");
		return 1;
	}
	check(peerdma_open(&ctx, &open_opts), "peerdma_open");
	check(peerdma_buffer_alloc(ctx, stat.st_size, NULL, &buffer),
	      "peerdma_buffer_alloc");
	t_record_open(&record, argv[3], t_device_open(),
		      peerdma_buffer_fd(buffer));
	t_record_data(&record, 0, 0, stat.st_size);
	t_record_close(&record);

	run("drive -> GPU memory, straight", peerdma_read_opts, buffer, source,
	    stat.st_size);
	run("GPU memory -> drive, straight", peerdma_write_opts, buffer, copy,
	    stat.st_size);
	if (fsync(copy)) {
		perror("move: fsync");
		return 1;
	}
	peerdma_buffer_close(buffer);
	peerdma_close(ctx);
	return 0;
}
