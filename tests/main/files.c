// SPDX-License-Identifier: MIT
/*
 * Files of all shapes: holes, unwritten extents, odd sizes, many extents, dirty
 * and mapped page caches. In both directions, compared byte by byte.
 *
 * usage: files FOLDER [CASE...]
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "../t_counters.h"
#include "../t_transfer.h"

#define BLOCK	4096u
#define LEN	(4u << 20)
#define LARGE	(19u << 20)
#define FILL	0xc3

static int dev;
static const char *folder;
static struct t_buffer buffer;
/* What the file should have, and room for what it has. */
static unsigned char *bytes, *got;

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static int make(const char *name, size_t len)
{
	t_fill(bytes, LEN, strlen(name) + name[0]);
	return t_file_make(path_of(name), bytes, len);
}

static int make_empty(const char *name)
{
	memset(bytes, 0, LEN);
	return t_file_make(path_of(name), bytes, 0);
}

static int open_cached(const char *name)
{
	return t_open(path_of(name), O_RDWR);
}

static void drop(int fd)
{
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* The whole file by FILE_IO: exactly so many bytes, and these. */
static void check_read(int fd, size_t size, const char *what)
{
	t_gpu_set(buffer.ptr, FILL, LEN);
	t_result(t_move_one(dev, T_READ, buffer.fd, fd, 0, 0, LEN), size,
		 "%s is read to its end", what);
	t_gpu_same(buffer.ptr, bytes, size, "... right");
}

/* The file by read(2), from the page cache and then from the drive. */
static void check_file(const char *name, size_t size, const char *what)
{
	int fd = open_cached(name);
	struct stat now;

	t_ok(!fstat(fd, &now) && now.st_size == (off_t)size,
	     "%s has its size", what);
	t_is(pread(fd, got, LEN, 0), size, "... is read");
	t_same(got, bytes, size, "... right");
	drop(fd);
	t_is(pread(fd, got, LEN, 0), size, "... is read from the drive");
	t_same(got, bytes, size, "... right");
	close(fd);
}

static long long put(int fd, uint64_t file_offset, uint64_t buffer_offset,
		     uint64_t len)
{
	t_gpu_read(bytes + file_offset, buffer.ptr + buffer_offset, len);
	return t_move_one(dev, T_WRITE, buffer.fd, fd, file_offset,
			  buffer_offset, len);
}

static void fill_buffer(uint64_t seed)
{
	t_fill(got, LEN, seed);
	t_gpu_write(buffer.ptr, got, LEN);
}

/* ---- cases --------------------------------------------------------------- */

static void test_odd_sizes(void)
{
	static const size_t sizes[] = {
		1, 511, 512, 513, 1023, 1025, 2049, 4095, 4096, 4097, 65535,
		65537, 1000003, LEN - 1,
	};
	size_t i;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char what[32];
		int fd = make("odd", sizes[i]);

		snprintf(what, sizeof(what), "%zu bytes", sizes[i]);
		check_read(fd, sizes[i], what);
		close(fd);
	}
}

static void test_holes(void)
{
	int fd = make_empty("holes"), cached = open_cached("holes");
	size_t at;

	for (at = 3 * BLOCK; at < LEN; at += 37 * BLOCK + 512) {
		t_fill(bytes + at, 700, at);
		if (pwrite(cached, bytes + at, 700, at) != 700)
			t_need(false, "the file is written");
	}
	if (ftruncate(cached, LEN))
		t_need(false, "the file ends in a hole");
	check_read(fd, LEN, "a dirty file with holes");
	drop(cached);
	check_read(fd, LEN, "a file with holes");
	close(cached);
	close(fd);
}

/* Pieces of less than a block, far from each other, and from the end. */
static void test_into_holes(void)
{
	int fd = make_empty("pieces");
	size_t at, size = 0;
	bool whole = true;

	fill_buffer(21);
	for (at = BLOCK + 512; at < LEN - BLOCK; at += 29 * BLOCK + 1536) {
		whole &= put(fd, at, at / 2 & -512, 1536) == 1536;
		size = at + 1536;
	}
	t_ok(whole, "pieces of blocks are written into nothing");
	check_file("pieces", size, "the file");
	check_read(fd, size, "the file");
	close(fd);
}

static void test_unwritten(void)
{
	int fd = make_empty("unwritten");

	if (fallocate(fd, 0, 0, LEN))
		t_need(false, "fallocate: %s", strerror(errno));
	check_read(fd, LEN, "a file that is allocated only");
	fill_buffer(22);
	t_result(put(fd, 512, 4608, 512), 512, "a sector into its first block");
	t_result(put(fd, 100 * BLOCK - 512, 0, 1024), 1024,
		 "two that touch two blocks");
	t_result(put(fd, 1u << 20, 1u << 20, 1u << 20), 1u << 20, "a megabyte");
	check_file("unwritten", LEN, "the file");
	check_read(fd, LEN, "the file");
	close(fd);
}

/* Take all the room there is, but for every other block of @len bytes. */
static void leave_crumbs(size_t len)
{
	int crumbs = make_empty("crumbs"), filler = make_empty("filler");
	off_t at = 0, step;

	if (fallocate(crumbs, 0, 0, 2 * len))
		t_need(false, "fallocate: %s", strerror(errno));
	for (step = 256u << 20; step >= BLOCK; step /= 2)
		while (!fallocate(filler, 0, at, step))
			at += step;
	for (at = 0; at < (off_t)(2 * len); at += 2 * BLOCK)
		if (fallocate(crumbs, FALLOC_FL_PUNCH_HOLE |
			      FALLOC_FL_KEEP_SIZE, at, BLOCK))
			t_need(false, "a hole: %s", strerror(errno));
	close(filler);
	/* Freed blocks are free once the journal says so. */
	fsync(crumbs);
	syncfs(crumbs);
	close(crumbs);
}

/* Every other block first, in one call, so that few neighbours stay neighbours. */
static long long put_halves(int fd)
{
	static struct peerdma_file_segment segments[LEN / BLOCK / 2];
	const uint32_t nr = LEN / BLOCK / 2;
	struct peerdma_file_io io = {
		.flags = T_WRITE, .buffer_fd = buffer.fd, .file_fd = fd,
		.segments = (uintptr_t)segments, .nr_segments = nr, .depth = 1,
	};
	uint64_t half, sum = 0;
	uint32_t i;

	for (half = 0; half < 2; half++) {
		for (i = 0; i < nr; i++) {
			segments[i].file_offset = (2 * i + half) * BLOCK;
			segments[i].buffer_offset = segments[i].file_offset;
			segments[i].len = BLOCK;
		}
		if (t_file_io(dev, &io))
			return -errno;
		sum += io.out_bytes;
	}
	return sum;
}

static void test_fragments(void)
{
	struct fiemap map = {
		.fm_length = FIEMAP_MAX_OFFSET, .fm_flags = FIEMAP_FLAG_SYNC,
	};
	int fd;

	leave_crumbs(LEN + LEN / 4);
	fd = make_empty("fragments");
	fill_buffer(31);
	memcpy(bytes, got, LEN);
	t_result(put_halves(fd), LEN, "a file is made of single blocks");
	ioctl(fd, FS_IOC_FIEMAP, &map);
	t_ok(map.fm_mapped_extents >= LEN / BLOCK / 4, "it has many extents: %u",
	     map.fm_mapped_extents);
	check_file("fragments", LEN, "it");
	check_read(fd, LEN, "it");
	fill_buffer(32);
	t_result(put(fd, 0, 0, LEN), LEN, "it is written over");
	check_file("fragments", LEN, "it");
	close(fd);
	unlink(path_of("fragments"));
	unlink(path_of("crumbs"));
	unlink(path_of("filler"));
}

static void test_dirty(void)
{
	int fd = make("dirty", LEN), cached = open_cached("dirty");

	t_fill(bytes + 5000, 300000, 41);
	t_is(pwrite(cached, bytes + 5000, 300000, 5000), 300000,
	     "bytes that are only in the page cache");
	check_read(fd, LEN, "the file with them");
	close(cached);
	close(fd);
}

/* What is cached, and what is mapped, is not what was there before. */
static void test_cached(void)
{
	int fd = make("cached", LEN), cached = open_cached("cached");
	unsigned char *view = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
				   MAP_SHARED, cached, 0);

	t_is(pread(cached, got, LEN, 0), LEN, "a file is cached");
	t_same(view, bytes, LEN, "... and mapped");
	fill_buffer(42);
	t_result(put(fd, 8 * BLOCK, 0, 1u << 20), 1u << 20,
		 "a part of it is written");
	t_is(pread(cached, got, LEN, 0), LEN, "read() reads it");
	t_same(got, bytes, LEN, "... as it is now");
	t_same(view, bytes, LEN, "the mapping shows it");
	memset(view + 9 * BLOCK, 0x99, 100);
	memset(bytes + 9 * BLOCK, 0x99, 100);
	check_read(fd, LEN, "the file with what the mapping wrote");
	munmap(view, LEN);
	close(cached);
	close(fd);
}

static void test_growing(void)
{
	int fd = make("growing", 1000);

	memset(bytes + 1000, 0, LEN - 1000);
	fill_buffer(51);
	t_result(put(fd, 512, 512, 512), 512,
		 "the rest of a sector is written, and what follows");
	check_file("growing", 1024, "the file");
	t_result(put(fd, 1u << 20, 0, BLOCK), BLOCK, "far behind its end");
	check_file("growing", (1u << 20) + BLOCK, "the file");
	close(fd);
}

/* More than one request can move, and more than are in flight at once. */
static void test_large(void)
{
	struct peerdma_file_segment segment = { 0, 0, LARGE, 0 };
	unsigned char *want = t_ram(LARGE);
	struct peerdma_file_io io = {
		.segments = (uintptr_t)&segment, .nr_segments = 1, .depth = 2,
	};
	struct t_buffer all;

	t_fill(want, LARGE, 61);
	t_buffer_make(&all, dev, LARGE);
	io.buffer_fd = all.fd;
	io.file_fd = t_file_make(path_of("large"), want, LARGE);
	t_gpu_set(all.ptr, FILL, LARGE);
	t_result(t_file_io(dev, &io), 0, "a large file in one segment");
	t_is(segment.out_result, LARGE, "... whole");
	t_gpu_same(all.ptr, want, LARGE, "... right");
	close(io.file_fd);
	unlink(path_of("large"));

	io.flags = T_WRITE;
	io.file_fd = t_open(path_of("large"), O_RDWR | O_CREAT | O_DIRECT);
	t_result(t_file_io(dev, &io), 0, "and into a new one");
	t_is(segment.out_result, LARGE, "... whole");
	memset(want, 0, LARGE);
	t_is(pread(io.file_fd, want, LARGE, 0), LARGE, "... is read");
	t_gpu_same(all.ptr, want, LARGE, "... right");
	close(io.file_fd);

	/* Its requests must not all find the same end. */
	io.file_fd = t_open(path_of("large"), O_RDWR | O_DIRECT | O_APPEND);
	t_result(t_file_io(dev, &io), 0, "it is appended");
	t_is(segment.out_result, LARGE, "... whole");
	memset(want, 0, LARGE);
	t_is(pread(io.file_fd, want, LARGE, LARGE), LARGE, "... is read");
	t_gpu_same(all.ptr, want, LARGE, "... right");
	close(io.file_fd);
	unlink(path_of("large"));
	munmap(want, LARGE);
	t_buffer_drop(&all);
}

/* Without extents ext4 fills a hole through the page cache, and may not say so. */
static void test_buffered(void)
{
	struct peerdma_file_segment segment = { 8 * BLOCK, 0, 4 * BLOCK, 0 };
	struct peerdma_file_io io;
	int fd = make_empty("buffered"), flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) || ftruncate(fd, 16 * BLOCK))
		t_need(false, "a hole");
	fill_buffer(71);
	memcpy(bytes + 8 * BLOCK, got, 4 * BLOCK);
	if (flags & FS_EXTENT_FL)
		t_need(false, "a file without extents");
	t_result(t_move(dev, T_WRITE, buffer.fd, fd, &segment, 1, &io), 0,
		 "a hole of a file without extents is filled");
	t_is(segment.out_result, 4 * BLOCK, "... whole");
	t_is(io.out_flags & ~PEERDMA_FILE_IO_OUT_BUFFERED, 0,
	     "... out_flags may say how");
	check_file("buffered", 16 * BLOCK, "the file");
	t_result(t_move(dev, T_WRITE, buffer.fd, fd, &segment, 1, &io), 0,
		 "it is written over");
	t_is(io.out_flags, 0, "... without the page cache");
	t_result(t_move(dev, T_READ, buffer.fd, fd, &segment, 1, &io), 0,
		 "it is read");
	t_is(io.out_flags, 0, "... without the page cache");
	close(fd);
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
}

/* By name only, since it wants a file system of its own. */
static const struct t_case buffered = { "buffered", test_buffered };

static const struct t_case cases[] = {
	{ "odd sizes", test_odd_sizes },
	{ "holes", test_holes },
	{ "into holes", test_into_holes },
	{ "unwritten", test_unwritten },
	{ "fragments", test_fragments },
	{ "dirty", test_dirty },
	{ "cached", test_cached },
	{ "growing", test_growing },
	{ "large", test_large },
};

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: files FOLDER [CASE...]\n");
		return 2;
	}
	t_tap.name = "prepare";
	folder = argv[1];
	argc--;
	argv++;
	t_gpu_init();
	dev = t_device_open();
	bytes = t_ram(LEN);
	got = t_ram(LEN);
	t_buffer_make(&buffer, dev, LEN);
	if (argc == 2 && !strcmp(argv[1], buffered.name))
		return t_run(&buffered, 1, renew, argc, argv);
	return T_RUN(cases, renew);
}
