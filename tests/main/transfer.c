// SPDX-License-Identifier: MIT
/*
 * Moves a file into GPU memory and from there into a new file, and leaves a
 * record in OUT of where everything lay (t_record.h), by which the host judges.
 *
 * usage: transfer [--staged] SOURCE COPY OUT
 *   --staged  through host RAM, as everybody else does: what the host's checks
 *             must find
 *
 * The status is 1 when the kernel module refuses; errno and reason are printed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../t_gpu.h"
#include "../t_record.h"

#define BLOCK		4096u
#define FILL		0xee
#define GPU_PAGE	65536u
#define NR_PIECES	24

/**
 * struct rig - the transfer
 * @dev: /dev/peerdma
 * @buffer: the dma-buf
 * @pin: what was pinned
 * @ptr: its CUDA address
 * @len: of the file
 * @pieces: the file, cut up; out of order and with gaps in the buffer
 */
struct rig {
	int dev;
	int buffer;
	struct peerdma_pin pin;
	uint64_t ptr;
	uint64_t len;
	struct peerdma_file_segment pieces[NR_PIECES];
};

static void die(const char *what)
{
	fprintf(stderr, "transfer: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* Bytes between a piece and what follows it in the buffer. */
static uint64_t gap(int piece)
{
	return 512 * (piece % 7 + 1);
}

/*
 * Pieces of 4 KiB and up, none of a GPU page's length; the last holds the file's
 * odd end. In the buffer they lie in reverse order, 512 bytes and more apart.
 */
static void cut(struct rig *rig)
{
	uint64_t share = rig->len / NR_PIECES / BLOCK * BLOCK;
	uint64_t offset = 0, place = 0;
	int i;

	for (i = 0; i < NR_PIECES; i++) {
		struct peerdma_file_segment *piece = &rig->pieces[i];

		piece->file_offset = offset;
		piece->len = i % 5 == 4 ? BLOCK : share - (i % 3) * BLOCK;
		if (i == NR_PIECES - 1)
			piece->len = round_up(rig->len - offset, BLOCK);
		offset += piece->len;
	}
	for (i = NR_PIECES - 1; i >= 0; i--) {
		rig->pieces[i].buffer_offset = place;
		place += rig->pieces[i].len + gap(i);
	}
}

/* The range that is pinned starts in the middle of a GPU page. */
static void pin(struct rig *rig)
{
	uint64_t inset = 3 * BLOCK;
	uint64_t len = rig->pieces[0].buffer_offset + rig->pieces[0].len;

	t_gpu_init();
	rig->ptr = t_gpu_alloc(round_up(inset + len, GPU_PAGE));
	t_gpu_set(rig->ptr, FILL, round_up(inset + len, GPU_PAGE));
	rig->dev = t_device_open();
	rig->ptr += inset;
	rig->buffer = t_pin(rig->dev, rig->ptr, len, 0, &rig->pin);
	errno = -rig->buffer;
	if (rig->buffer < 0)
		die("PIN");
}

/*
 * What is between the pieces stays as it was. What follows the file's end in its
 * last block may be written, so nothing is said of it.
 */
static void record(const struct rig *rig, const char *out)
{
	struct t_record record;
	int i;

	t_record_open(&record, out, rig->dev, rig->buffer);
	for (i = 0; i < NR_PIECES; i++) {
		const struct peerdma_file_segment *piece = &rig->pieces[i];
		uint64_t len = piece->len;

		if (piece->file_offset + len > rig->len)
			len = rig->len - piece->file_offset;
		t_record_data(&record, piece->file_offset, piece->buffer_offset,
			      len);
		if (i)
			t_record_fill(&record, FILL,
				      piece->buffer_offset + piece->len,
				      gap(i));
	}
	t_record_close(&record);
}

static void move_direct(struct rig *rig, int file, uint32_t flags)
{
	uint64_t expected = rig->len;
	struct peerdma_file_io io = {
		.flags = flags,
		.buffer_fd = rig->buffer,
		.file_fd = file,
		.segments = (uintptr_t)rig->pieces,
		.nr_segments = NR_PIECES,
	};
	int ret = t_file_io(rig->dev, &io);

	if (ret) {
		printf("FILE_IO: %s, reason %u\n", strerrorname_np(-ret),
		       io.out_reason);
		exit(1);
	}
	if (flags & PEERDMA_FILE_IO_WRITE)
		expected = round_up(rig->len, BLOCK);
	if (io.out_bytes != expected || io.out_flags) {
		printf("FILE_IO: %llu bytes of %" PRIu64 ", flags %u\n",
		       io.out_bytes, expected, io.out_flags);
		exit(2);
	}
}

static void move_staged(struct rig *rig, int file, uint32_t flags)
{
	char *ram = aligned_alloc(BLOCK, round_up(rig->len, BLOCK));
	int i;

	for (i = 0; i < NR_PIECES; i++) {
		const struct peerdma_file_segment *piece = &rig->pieces[i];
		uint64_t ptr = rig->ptr + piece->buffer_offset;
		ssize_t len;

		if (flags & PEERDMA_FILE_IO_WRITE) {
			t_gpu_read(ram, ptr, piece->len);
			len = pwrite(file, ram, piece->len, piece->file_offset);
		} else {
			len = pread(file, ram, piece->len, piece->file_offset);
			if (len > 0)
				t_gpu_write(ptr, ram, len);
		}
		if (len <= 0)
			die("staged");
	}
	free(ram);
}

int main(int argc, char **argv)
{
	void (*move)(struct rig *rig, int file, uint32_t flags) = move_direct;
	struct rig rig = { 0 };
	struct stat stat;
	int source, copy;

	if (argc == 5 && !strcmp(argv[1], "--staged")) {
		move = move_staged;
		argv++;
	} else if (argc != 4) {
		fprintf(stderr, "usage: transfer [--staged] SOURCE COPY OUT\n");
		return 2;
	}
	source = open(argv[1], O_RDONLY | O_DIRECT);
	if (source < 0 || fstat(source, &stat))
		die(argv[1]);
	rig.len = stat.st_size;
	cut(&rig);
	pin(&rig);
	record(&rig, argv[3]);
	move(&rig, source, 0);

	copy = open(argv[2], O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0644);
	if (copy < 0)
		die(argv[2]);
	move(&rig, copy, PEERDMA_FILE_IO_WRITE);
	if (ftruncate(copy, rig.len) || fsync(copy))
		die(argv[2]);
	return 0;
}
