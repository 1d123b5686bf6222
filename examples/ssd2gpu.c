// SPDX-License-Identifier: MIT
/*
 * A file from an SSD into GPU memory by chunks.
 *
 * The flow is that of NVMe-Strom: map GPU memory once; give a list of chunks,
 * in any order; copy those that the page cache has while the drive's DMA brings
 * the others, and wait for each task's status; or one after the other (--sync).
 * What is better here:
 *
 * - Stock kernels and the drive's stock driver. NVMe-Strom builds NVMe commands
 *   of its own, with private structures of the kernel's driver copied.
 * - Whether a chunk is in the page cache decides which way is shorter, and no
 *   more. The bytes are those of read(2) either way, also when the cache has
 *   changed by the time the chunk is read.
 * - The chunks may have any length, the GPU's pages may lie anywhere, and a
 *   status says how many bytes were moved, which way, and why not a better one.
 * - Without the kernel module, and where io_uring is forbidden, it works, too.
 *
 * usage: ssd2gpu [--sync] FILE COPY
 * COPY, for cmp(1), gets what is in GPU memory afterwards, read by CUDA.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <peerdma.h>

#define CHUNK_LEN	(1u << 20)
#define NR_IN_FLIGHT	16

static const char *name;
static int file;
static uint64_t file_len;
static struct peerdma_buffer *buffer;
static unsigned long long by_drive, by_cpu, holes;

__attribute__((noreturn))
static void fail(int err, const char *what, const char *remedy)
{
	fprintf(stderr, "ssd2gpu: %s: %s; %s\n", what, strerror(-err), remedy);
	exit(1);
}

static void check(int err, const char *what, const char *remedy)
{
	if (err < 0)
		fail(err, what, remedy);
}

static size_t chunk_len(uint64_t at)
{
	return file_len - at < CHUNK_LEN ? file_len - at : CHUNK_LEN;
}

static void take_status(const struct peerdma_completion *status)
{
	check(status->error, name, "is the drive in order?");
	by_drive += status->bytes_direct;
	by_cpu += status->bytes_staged + status->bytes_cached;
	holes += status->bytes_zeroed;
}

static unsigned int wait_for_some(struct peerdma_queue *queue)
{
	struct peerdma_completion done[NR_IN_FLIGHT];
	int i, nr;

	nr = peerdma_queue_reap(queue, done, 1, NR_IN_FLIGHT, NULL);
	check(nr, "the queue", "begin again");
	for (i = 0; i < nr; i++)
		take_status(&done[i]);
	return nr;
}

/* The last chunk comes first, since the order is free. */
static void load_async(struct peerdma *ctx)
{
	uint64_t nr = (file_len + CHUNK_LEN - 1) / CHUNK_LEN;
	struct peerdma_io_request request = {
		.size = sizeof(request), .buf = buffer, .fd = file,
	};
	unsigned int in_flight = 0;
	struct peerdma_queue *queue;
	int err;

	check(peerdma_queue_create(ctx, NR_IN_FLIGHT, NULL, &queue), "a queue",
	      "free some memory");
	while (nr || in_flight) {
		if (!nr || in_flight == NR_IN_FLIGHT) {
			in_flight -= wait_for_some(queue);
			continue;
		}
		request.user_data = --nr;
		request.file_offset = nr * CHUNK_LEN;
		request.buffer_offset = nr * CHUNK_LEN;
		request.len = chunk_len(nr * CHUNK_LEN);
		err = peerdma_queue_submit(queue, &request, 1, 0);
		check(err, "a chunk", "begin again");
		in_flight++;
	}
	peerdma_queue_destroy(queue);
}

static void load_sync(void)
{
	uint64_t at;
	ssize_t got;

	for (at = 0; at < file_len; at += CHUNK_LEN) {
		PEERDMA_SIZED(peerdma_io_result, result);

		got = peerdma_read_opts(buffer, file, chunk_len(at), at, at,
					NULL, &result);
		check(got < 0 ? got : result.error, name,
		      "is the drive in order?");
		by_drive += result.bytes_direct;
		by_cpu += result.bytes_staged + result.bytes_cached;
		holes += result.bytes_zeroed;
	}
}

/* What the GPU's copy engine finds. */
static void save(const char *copy)
{
	static char bytes[CHUNK_LEN];
	FILE *out = fopen(copy, "we");
	uint64_t at;

	if (!out)
		fail(-errno, copy, "check the name");
	for (at = 0; at < file_len; at += CHUNK_LEN) {
		size_t len = chunk_len(at);

		check(peerdma_buffer_copy_out(buffer, at, bytes, len),
		      "cannot copy from the GPU", "see the kernel's log");
		check(fwrite(bytes, len, 1, out) == 1 ? 0 : -errno, copy,
		      "make room for it");
	}
	check(fclose(out) ? -errno : 0, copy, "make room for it");
}

int main(int argc, char **argv)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	int sync = argc > 1 && !strcmp(argv[1], "--sync");
	struct peerdma *ctx;
	struct stat stat;

	if (argc != 3 + sync) {
		fprintf(stderr, "usage: ssd2gpu [--sync] FILE COPY\n");
		return 2;
	}
	name = argv[1 + sync];
	file = open(name, O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &stat))
		fail(-errno, name, "check the name");
	file_len = stat.st_size;
	check(peerdma_open(&ctx, NULL), "peerdma_open()", "free some memory");
	check(peerdma_buffer_alloc(ctx, file_len, &opts, &buffer),
	      "GPU memory for the file",
	      "ask: peerdma info; and is the file empty, or too long?");
	if (sync)
		load_sync();
	else
		load_async(ctx);
	if (by_drive + by_cpu + holes != file_len)
		check(-EIO, name, "it got shorter meanwhile; begin again");
	save(argv[2 + sync]);
	printf("%s: %llu bytes by the drive's DMA, %llu through host memory",
	       sync ? "sync" : "async", by_drive, by_cpu);
	if (holes)
		printf(", %llu of holes", holes);
	printf("\n");
	peerdma_buffer_close(buffer);
	peerdma_close(ctx);
	return 0;
}
