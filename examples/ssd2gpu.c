// SPDX-License-Identifier: MIT
/*
 * A file from an SSD into GPU memory by chunks.
 *
 * The flow is that of NVMe-Strom: map GPU memory once; give a list of chunks, in
 * any order; copy those that the page cache has while the drive's DMA brings the
 * others, and wait for it; or one after the other (--sync). What is better here:
 *
 * - Stock kernels and the drive's stock driver. NVMe-Strom builds NVMe commands
 *   of its own, with private structures of the kernel's driver copied.
 * - Whether a chunk is in the page cache decides which way is shorter, and no
 *   more. The bytes are those of read(2) either way, also when the cache has
 *   changed by the time the chunk is read.
 * - Waiting is io_uring's, with everything else that a program waits for.
 * - GPU pages may lie anywhere, and a request says how many bytes it moved.
 *
 * usage: ssd2gpu [--sync] FILE COPY
 * COPY, for cmp(1), gets what is in GPU memory afterwards, read by CUDA.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liburing.h>
#include <peerdma.h>
#include <peerdma/uapi.h>

#define CHUNK_LEN	(1u << 20)
/* Every drive takes it; peerdma_file_io.out_align would tell the least. */
#define BLOCK_LEN	4096u
#define NR_IN_FLIGHT	16

/* For the kernel, and in place until the request is done. */
struct chunk {
	struct peerdma_file_io io;
	struct peerdma_file_segment segment;
};

static const char *name;
/* The file by way of the page cache and around it, and its length. */
static int cached, direct;
static uint64_t file_len;
static int device;
static struct peerdma_buffer *buffer;
static struct io_uring ring;
static unsigned int in_flight;
static unsigned long long by_drive, by_cpu;

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

static int open_file(const char *path, int flags, const char *remedy)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		fail(-errno, path, remedy);
	return fd;
}

static size_t chunk_len(uint64_t at)
{
	return file_len - at < CHUNK_LEN ? file_len - at : CHUNK_LEN;
}

/*
 * Is all of the chunk in the page cache? To those who may not write the file
 * mincore() says yes whatever is true.
 */
static int is_cached(uint64_t at)
{
	size_t i, page = sysconf(_SC_PAGESIZE), len = chunk_len(at);
	unsigned char pages[CHUNK_LEN / 4096];
	void *addr;
	int all;

	if (access(name, W_OK))
		return 0;
	addr = mmap(NULL, len, PROT_READ, MAP_SHARED, cached, at);
	check(addr == MAP_FAILED ? -errno : 0, name, "use a regular file");
	all = !mincore(addr, len, pages);
	for (i = 0; all && i * page < len; i++)
		all = pages[i] & 1;
	munmap(addr, len);
	return all;
}

/* By the library, which returns when the bytes are there. */
static void read_now(uint64_t at, uint32_t path)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = path);
	PEERDMA_SIZED(peerdma_io_result, result);
	ssize_t got = peerdma_read_opts(buffer, cached, chunk_len(at), at, at,
					&opts, &result);

	check(got < 0 ? got : result.error, name, "is the drive in order?");
	by_drive += result.bytes_direct;
	by_cpu += result.bytes_staged + result.bytes_cached;
}

static void wait_for_one(void)
{
	struct io_uring_cqe *cqe;

	check(io_uring_wait_cqe(&ring, &cqe), "io_uring", "begin again");
	if (cqe->res == -EREMOTEIO || cqe->res == -EMEDIUMTYPE)
		check(cqe->res, "the drive's DMA cannot do it",
		      "use --sync, or ask why: peerdma check FILE");
	check(cqe->res, name, "is the drive in order?");
	by_drive += cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	in_flight--;
}

static void read_later(struct chunk *chunk, uint64_t at)
{
	uint64_t command[2] = { (uintptr_t)&chunk->io, 0 };
	struct io_uring_sqe *sqe;

	if (in_flight == NR_IN_FLIGHT)
		wait_for_one();
	chunk->segment = (struct peerdma_file_segment){
		.file_offset = at,
		.buffer_offset = at,
		.len = chunk_len(at),
	};
	chunk->io = (struct peerdma_file_io){
		.size = sizeof(chunk->io),
		.buffer_fd = peerdma_buffer_fd(buffer),
		.file_fd = direct,
		.segments = (uintptr_t)&chunk->segment,
		.nr_segments = 1,
	};
	/* Submitted one by one, so there is room. */
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, device, NULL, 0, 0);
	sqe->cmd_op = PEERDMA_FILE_IO;
	memcpy(sqe->cmd, command, sizeof(command));
	check(io_uring_submit(&ring), "io_uring", "use --sync");
	in_flight++;
}

/* The last chunk comes first, since the order is free. */
static void load_async(void)
{
	uint64_t at, nr = (file_len + CHUNK_LEN - 1) / CHUNK_LEN;
	struct chunk *chunks = calloc(nr, sizeof(*chunks));

	check(chunks ? 0 : -ENOMEM, "a list of chunks", "free some memory");
	check(io_uring_queue_init(NR_IN_FLIGHT, &ring, 0), "io_uring",
	      "it may be switched off on this machine; use --sync");
	while (nr--) {
		at = nr * CHUNK_LEN;
		/* No drive moves a part of a block. */
		if (chunk_len(at) % BLOCK_LEN || is_cached(at))
			read_now(at, PEERDMA_PATH_STAGED);
		else
			read_later(&chunks[nr], at);
	}
	while (in_flight)
		wait_for_one();
	io_uring_queue_exit(&ring);
	free(chunks);
}

static void load_sync(void)
{
	uint64_t at;

	for (at = 0; at < file_len; at += CHUNK_LEN)
		read_now(at, PEERDMA_PATH_AUTO);
}

/* What the GPU's copy engine finds. */
static void save(const char *copy)
{
	static char bytes[CHUNK_LEN];
	FILE *file = fopen(copy, "we");
	uint64_t at;

	if (!file)
		fail(-errno, copy, "check the name");
	for (at = 0; at < file_len; at += CHUNK_LEN) {
		size_t len = chunk_len(at);

		check(peerdma_buffer_copy_out(buffer, at, bytes, len),
		      "cannot copy from the GPU", "see the kernel's log");
		check(fwrite(bytes, len, 1, file) == 1 ? 0 : -errno, copy,
		      "make room for it");
	}
	check(fclose(file) ? -errno : 0, copy, "make room for it");
}

int main(int argc, char **argv)
{
	int sync = argc > 1 && !strcmp(argv[1], "--sync");
	struct peerdma *ctx;
	struct stat stat;

	if (argc != 3 + sync) {
		fprintf(stderr, "usage: ssd2gpu [--sync] FILE COPY\n");
		return 2;
	}
	name = argv[1 + sync];
	device = open_file("/dev/peerdma", O_RDWR,
			   "run: modprobe peerdma_nvidia");
	cached = open_file(name, O_RDONLY, "check the name");
	direct = open_file(name, O_RDONLY | O_DIRECT,
			   "put it where O_DIRECT works");
	check(fstat(cached, &stat) ? -errno : 0, name, "check the name");
	file_len = stat.st_size;
	check(peerdma_open(&ctx, NULL), "peerdma_open()", "free some memory");
	check(peerdma_buffer_alloc(ctx, file_len, NULL, &buffer),
	      "GPU memory for the file",
	      "ask: peerdma info; and is the file empty, or too long?");
	if (sync)
		load_sync();
	else
		load_async();
	if (by_drive + by_cpu != file_len)
		check(-EIO, name, "it got shorter meanwhile; begin again");
	save(argv[2 + sync]);
	printf("%s: %llu bytes by the drive's DMA, %llu through host memory\n",
	       sync ? "sync" : "async", by_drive, by_cpu);
	peerdma_buffer_close(buffer);
	peerdma_close(ctx);
	return 0;
}
