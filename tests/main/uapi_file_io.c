// SPDX-License-Identifier: MIT
/*
 * FILE_IO: each sentence of include/uapi/peerdma.h about it, as an ioctl and as
 * an io_uring command, which must answer the same.
 *
 * usage: uapi_file_io [CASE...], with an ext4 on DRIVE mounted at /mnt and with
 * what tests/main/uapi.t sets up
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <limits.h>
#include <pty.h>
#include <sys/ioctl.h>

#include "../t_counters.h"
#include "../t_transfer.h"
#include "../t_uring.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define LEN		(4u << 20)
#define FILL		0xc3
#define UNTOUCHED	(-1234567)
#define FILE_PATH	"/mnt/file"
#define LEASED		"/mnt/leased"

static int dev, file;
static struct io_uring ring;
static struct t_buffer buffer;
static unsigned char *bytes;
static uint32_t align, memory_align;

static struct peerdma_file_segment piece(uint64_t file_offset,
					 uint64_t buffer_offset, uint64_t len)
{
	return (struct peerdma_file_segment){
		file_offset, buffer_offset, len, UNTOUCHED,
	};
}

/* Sum of what was moved, which out_bytes must be. */
static uint64_t moved(const struct peerdma_file_segment *segments, uint32_t nr)
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (segments[i].out_result > 0)
			sum += segments[i].out_result;
	return sum;
}

/* ---- kinds of files ------------------------------------------------------ */

static int open_buffered(void)
{
	return t_open(FILE_PATH, O_RDWR);
}

static int open_for_reading(void)
{
	return t_open(FILE_PATH, O_RDONLY | O_DIRECT);
}

static int open_for_writing(void)
{
	return t_open(FILE_PATH, O_WRONLY | O_DIRECT);
}

static int open_terminal(void)
{
	int master, slave;

	if (openpty(&master, &slave, NULL, NULL, NULL))
		return -errno;
	close(slave);
	return master;
}

static int open_memory(void)
{
	return t_open("/tmp/file", O_RDWR | O_CREAT | O_DIRECT);
}

static int open_network(void)
{
	return t_open("/out/file", O_RDWR | O_CREAT | O_DIRECT);
}

static int open_loop(void)
{
	return t_open("/dev/loop0", O_RDWR | O_DIRECT);
}

static int open_mapper(void)
{
	return t_open("/dev/dm-0", O_RDWR | O_DIRECT);
}

static int open_md(void)
{
	return t_open("/dev/md9", O_RDWR | O_DIRECT);
}

static int open_btrfs(void)
{
	return t_open("/tmp/mnt/file", O_RDWR | O_DIRECT);
}

static int open_scsi(void)
{
	return t_open("/dev/sda", O_RDWR | O_DIRECT);
}

static int open_journalled(void)
{
	return t_open("/mnt/journalled", O_RDWR | O_DIRECT);
}

static int open_drive(void)
{
	return t_open("/dev/disk/by-serial/peerdma0", O_RDONLY | O_DIRECT);
}

/**
 * struct kind - what FILE_IO says of a file; of what is none, see uapi_sweep
 * @name: for people
 * @open: a descriptor or a negative errno
 * @read: what reading it into a buffer answers
 * @write: what writing it answers
 * @reason: out_reason
 */
static const struct kind {
	const char *name;
	int (*open)(void);
	int read;
	int write;
	uint32_t reason;
} kinds[] = {
	{ "a terminal", open_terminal, -ESPIPE, -ESPIPE, 0 },
	{ "a file without O_DIRECT", open_buffered, -EBADFD, -EBADFD, 0 },
	{ "a file for reading", open_for_reading, 0, -EBADF, 0 },
	{ "a file for writing", open_for_writing, -EBADF, 0, 0 },
	{ "a drive for reading", open_drive, 0, -EBADF, 0 },
	{ "a file in memory", open_memory, -EMEDIUMTYPE, -EMEDIUMTYPE,
	  PEERDMA_REASON_NO_BLOCK_DEVICE },
	{ "a file on 9p", open_network, -EMEDIUMTYPE, -EMEDIUMTYPE,
	  PEERDMA_REASON_NO_BLOCK_DEVICE },
	{ "a loop device", open_loop, -EMEDIUMTYPE, -EMEDIUMTYPE,
	  PEERDMA_REASON_STACKED },
	{ "a device mapper's", open_mapper, -EMEDIUMTYPE, -EMEDIUMTYPE,
	  PEERDMA_REASON_STACKED },
	{ "md's", open_md, -EMEDIUMTYPE, -EMEDIUMTYPE, PEERDMA_REASON_STACKED },
	{ "a file on btrfs", open_btrfs, -EMEDIUMTYPE, -EMEDIUMTYPE,
	  PEERDMA_REASON_NO_BLOCK_DEVICE },
	{ "a drive that is no PCI function's", open_scsi, -EMEDIUMTYPE,
	  -EMEDIUMTYPE, PEERDMA_REASON_NOT_PCI },
	{ "a file with journalled data", open_journalled, -EMEDIUMTYPE,
	  -EMEDIUMTYPE, PEERDMA_REASON_NO_DIRECT_IO },
};

static void check_kind(const struct kind *kind, int fd, uint32_t flags)
{
	struct peerdma_file_segment segment = piece(0, 0, LEN);
	int want = flags ? kind->write : kind->read;
	const char *verb = flags ? "write" : "read";
	struct peerdma_file_io io;

	t_result(t_move(dev, flags, buffer.fd, fd, NULL, 0, &io), want,
		 "%s: asking to %s", kind->name, verb);
	t_is(io.out_reason, kind->reason, "... out_reason");
	t_result(t_ring_move(&ring, dev, flags, buffer.fd, fd, NULL, 0, &io),
		 want, "... by the ring");
	if (!want)
		return;
	t_result(t_move(dev, flags, buffer.fd, fd, &segment, 1, &io), want,
		 "%s: to %s", kind->name, verb);
	t_ok(!io.out_bytes && segment.out_result <= 0, "... moves nothing");
	t_result(t_ring_move(&ring, dev, flags, buffer.fd, fd, &segment, 1,
			     &io), want, "... by the ring");
}

/* What tests/main/uapi-guest makes only where the kernel can. */
static bool is_missing(const struct kind *kind, int fd)
{
	return fd == -ENOENT &&
	       (kind->open == open_md || kind->open == open_btrfs);
}

static void test_kinds(void)
{
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		int fd = kinds[i].open();

		if (fd == -EINVAL && kinds[i].open == open_memory) {
			t_skip(kinds[i].name, "this kernel's has no O_DIRECT");
			continue;
		}
		if (is_missing(&kinds[i], fd)) {
			t_skip(kinds[i].name, "this kernel has none");
			continue;
		}
		if (!t_ok(fd >= 0, "%s: opened", kinds[i].name))
			continue;
		check_kind(&kinds[i], fd, T_READ);
		check_kind(&kinds[i], fd, T_WRITE);
		close(fd);
	}
}

/* Only a file that nobody else has open can be leased for writing. */
static void check_let_go(int flags, int want, const char *what)
{
	struct peerdma_file_segment segment = { .len = PAGE };
	int fd = t_open(LEASED, O_RDWR | O_CREAT | flags);
	struct peerdma_file_io io;

	t_need(fd >= 0 && !ftruncate(fd, PAGE), "a file is made");
	t_result(t_move(dev, T_READ, buffer.fd, fd, &segment, 1, &io), want,
		 "%s", what);
	close(fd);
	fd = t_open(LEASED, O_RDWR);
	t_is(fcntl(fd, F_SETLEASE, F_WRLCK), 0, "%s: it is not held", what);
	close(fd);
}

static void test_let_go(void)
{
	check_let_go(O_DIRECT, 0, "a file that was read");
	check_let_go(0, -EBADFD, "one that was refused");
	unlink(LEASED);
}

/* ---- segments ------------------------------------------------------------ */

/* A segment that is refused, alone and in company, whichever way it comes. */
static void check_refused(struct peerdma_file_segment bad, int want,
			  const char *what)
{
	struct peerdma_file_segment segments[3];
	struct peerdma_file_io io;
	uint32_t flags;

	for (flags = 0; flags <= T_WRITE; flags += T_WRITE) {
		segments[0] = bad;
		t_result(t_move(dev, flags, buffer.fd, file, segments, 1, &io),
			 want, "%s, %s", what, flags ? "written" : "read");
		t_result(segments[0].out_result, want, "... its out_result");
		t_result(t_ring_move(&ring, dev, flags, buffer.fd, file,
				     segments, 1, &io), want,
			 "... by the ring");

		segments[0] = segments[2] = piece(0, 0, PAGE);
		segments[1] = bad;
		t_result(t_move(dev, flags, buffer.fd, file, segments, 3, &io),
			 want, "... among good ones");
		t_is(io.out_bytes, 0, "... none is begun");
		t_result(segments[1].out_result, want, "... its out_result");
		t_ok(!segments[0].out_result && !segments[2].out_result,
		     "... and the others'");
		t_result(t_ring_move(&ring, dev, flags, buffer.fd, file,
				     segments, 3, &io), want,
			 "... by the ring");
	}
}

static void test_refused(void)
{
	check_refused(piece(0, 0, 0), -EINVAL, "no length");
	check_refused(piece(1, 0, PAGE), -EINVAL, "a file offset of 1");
	check_refused(piece(align / 2, 0, PAGE), -EINVAL,
		      "half an aligned file offset");
	check_refused(piece(0, 0, 1), -EINVAL, "a length of 1");
	check_refused(piece(0, 0, PAGE + align / 2), -EINVAL,
		      "half an aligned length");
	check_refused(piece(0, 1, PAGE), -EINVAL, "a buffer offset of 1");
	check_refused(piece(0, LEN, PAGE), -ERANGE, "past the buffer's end");
	check_refused(piece(0, LEN - PAGE, 2 * PAGE), -ERANGE,
		      "across the buffer's end");
	check_refused(piece(0, 1ull << 62, PAGE), -ERANGE,
		      "far from the buffer");
	check_refused(piece(0, -(uint64_t)PAGE, PAGE), -EOVERFLOW,
		      "a buffer offset that ends at 2^64");
	check_refused(piece(0, -(uint64_t)PAGE, 2 * PAGE), -EOVERFLOW,
		      "a buffer offset beyond 2^64");
	check_refused(piece(-(uint64_t)PAGE, 0, 2 * PAGE), -EOVERFLOW,
		      "a file offset beyond 2^64");
	check_refused(piece(1ull << 63, 0, PAGE), -EOVERFLOW,
		      "a file offset beyond what files have");
	check_refused(piece((1ull << 63) - PAGE, 0, PAGE), -EOVERFLOW,
		      "a file offset that ends there");
	t_gpu_same(buffer.ptr, bytes, LEN, "the buffer is as it was");
}

static void test_array(void)
{
	const size_t len = 2 * PAGE;
	struct peerdma_file_segment *segments = t_ram(len);
	struct peerdma_file_io io;
	uint32_t nr = len / sizeof(*segments), i;

	t_result(t_move(dev, T_READ, buffer.fd, file, NULL, 1, &io), -EFAULT,
		 "no array");
	t_result(t_move(dev, T_READ, buffer.fd, file, NULL, 2, &io), -EFAULT,
		 "no array of two");
	t_result(t_move(dev, T_READ, buffer.fd, file, (void *)-len, 2, &io),
		 -EFAULT, "an array in the kernel");
	t_result(t_move(dev, T_READ, buffer.fd, file, segments,
			PEERDMA_FILE_IO_MAX_SEGMENTS + 1, &io), -EINVAL,
		 "one segment too many");
	t_result(t_move(dev, T_READ, buffer.fd, file, segments, UINT32_MAX,
			&io), -EINVAL, "2^32 - 1 segments");
	t_result(t_ring_move(&ring, dev, T_READ, buffer.fd, file, NULL, 1,
			     &io), -EFAULT, "no array by the ring");
	t_result(t_ring_move(&ring, dev, T_READ, buffer.fd, file, NULL, 2,
			     &io), -EFAULT, "no array of two by the ring");
	t_result(t_ring_move(&ring, dev, T_READ, buffer.fd, file, segments,
			     PEERDMA_FILE_IO_MAX_SEGMENTS + 1, &io), -EINVAL,
		 "one too many by the ring");

	for (i = 0; i < nr; i++)
		segments[i] = piece(LEN, 0, PAGE);
	mprotect((char *)segments + PAGE, PAGE, PROT_NONE);
	t_result(t_move(dev, T_READ, buffer.fd, file, segments, nr, &io),
		 -EFAULT, "half an array");
	mprotect(segments, len, PROT_READ);
	t_result(t_move(dev, T_READ, buffer.fd, file, segments, nr, &io),
		 -EFAULT, "an array that cannot be written");
	munmap(segments, len);
}

/* Past the end of the file, so that no drive has to work for it. */
static void test_most(void)
{
	const uint32_t nr = PEERDMA_FILE_IO_MAX_SEGMENTS;
	struct peerdma_file_segment *segments = t_ram(nr * sizeof(*segments));
	struct peerdma_file_io io;
	uint32_t i, zero = 0;

	for (i = 0; i < nr; i++)
		segments[i] = piece(LEN + i * (uint64_t)PAGE, 0, PAGE);
	segments[nr / 2] = piece(PAGE, 0, PAGE);
	t_result(t_move(dev, T_READ, buffer.fd, file, segments, nr, &io), 0,
		 "as many segments as may be");
	for (i = 0; i < nr; i++)
		zero += !segments[i].out_result;
	t_is(zero, nr - 1, "all but one are past the end");
	t_is(segments[nr / 2].out_result, PAGE, "one is not");
	t_is(io.out_bytes, PAGE, "out_bytes");
	munmap(segments, nr * sizeof(*segments));
}

/* The file's pages to and from random places of the buffer, in random order. */
static void shuffle(struct peerdma_file_segment *segments, uint32_t nr)
{
	uint32_t i, j;

	for (i = 0; i < nr; i++)
		segments[i] = piece(i * PAGE, (i * 37 + 11) % nr * PAGE, PAGE);
	for (i = nr - 1; i > 0; i--) {
		struct peerdma_file_segment other = segments[i];

		j = random() % (i + 1);
		segments[i] = segments[j];
		segments[j] = other;
	}
}

static void check_shuffled(unsigned char *want, const char *what,
			   struct peerdma_file_segment *segments, uint32_t nr)
{
	bool whole = true;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		whole &= segments[i].out_result == PAGE;
		memcpy(want + segments[i].buffer_offset,
		       bytes + segments[i].file_offset, PAGE);
	}
	t_ok(whole, "%s: all are whole", what);
	t_gpu_same(buffer.ptr, want, LEN, "... and where they belong");
}

static void test_many(void)
{
	static const uint32_t depths[] = { 0, 1, 2, 7, 5000, UINT32_MAX };
	struct peerdma_file_segment segments[LEN / PAGE];
	unsigned char *want = t_ram(LEN);
	struct peerdma_file_io io;
	size_t i;

	srandom(1);
	for (i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		shuffle(segments, LEN / PAGE);
		t_gpu_set(buffer.ptr, FILL, LEN);
		io = (struct peerdma_file_io){
			.buffer_fd = buffer.fd, .file_fd = file,
			.segments = (uintptr_t)segments,
			.nr_segments = LEN / PAGE, .depth = depths[i],
		};
		t_result(t_file_io(dev, &io), 0, "depth %u", depths[i]);
		t_is(io.out_bytes, LEN, "... out_bytes");
		check_shuffled(want, "...", segments, LEN / PAGE);
	}
	shuffle(segments, LEN / PAGE);
	t_gpu_set(buffer.ptr, FILL, LEN);
	t_result(t_ring_move(&ring, dev, T_READ, buffer.fd, file, segments,
			     LEN / PAGE, &io), LEN, "by the ring");
	t_is(io.out_bytes, LEN, "... out_bytes");
	check_shuffled(want, "...", segments, LEN / PAGE);
	munmap(want, LEN);
}

/* ---- answers ------------------------------------------------------------- */

static void test_check_only(void)
{
	struct peerdma_file_io io;

	memset(&io, 0xff, sizeof(io));
	io.flags = 0;
	io.buffer_fd = buffer.fd;
	io.file_fd = file;
	io.segments = 8;
	io.nr_segments = 0;
	io.reserved = 0;
	t_result(t_file_io(dev, &io), 0, "no segment asks only");
	t_is(io.out_bytes, 0, "out_bytes");
	t_is(io.out_flags, 0, "out_flags");
	t_is(io.out_reason, PEERDMA_REASON_NONE, "out_reason");
	t_ok(io.out_align == 512 || io.out_align == PAGE, "out_align: %u",
	     io.out_align);
	t_ok(io.out_device != PEERDMA_DEVICE_NONE, "out_device: %#x",
	     io.out_device);
	t_gpu_same(buffer.ptr, bytes, LEN, "and moves nothing");

	memset(&io, 0xff, sizeof(io));
	io.flags = 0;
	io.reserved = 0;
	io.buffer_fd = buffer.fd;
	io.file_fd = 1023;
	t_result(t_file_io(dev, &io), -EINVAL, "2^32 - 1 segments");
	t_ok(!io.out_bytes && !io.out_flags && !io.out_reason &&
	     !io.out_align && !io.out_memory_align &&
	     io.out_device == PEERDMA_DEVICE_NONE,
	     "the out_ fields are written when it fails");
	t_is(io.segments, UINT64_MAX, "the others are left alone");
}

static void test_end_of_file(void)
{
	const uint64_t size = 5 * PAGE + 123;
	struct peerdma_file_segment segments[] = {
		piece(0, 0, 64 * PAGE), piece(4 * PAGE, 64 * PAGE, PAGE),
		piece(5 * PAGE, 66 * PAGE, PAGE),
		piece(6 * PAGE, 68 * PAGE, PAGE),
		piece(1ull << 40, 70 * PAGE, PAGE),
		piece(PAGE, 72 * PAGE, 8 * PAGE),
	};
	const int64_t want[] = {
		size, PAGE, 123, 0, 0, size - PAGE,
	};
	unsigned char *ram = t_ram(LEN);
	struct peerdma_file_io io;
	uint64_t end;
	int odd, i;

	odd = t_file_make("/mnt/odd", bytes, size);
	for (i = 0; i < 6; i++) {
		struct peerdma_file_segment *one = &segments[i];

		memset(ram, FILL, LEN);
		t_gpu_set(buffer.ptr, FILL, LEN);
		t_result(t_move(dev, T_READ, buffer.fd, odd, one, 1, &io), 0,
			 "%lld bytes from %lld", one->len, one->file_offset);
		t_is(one->out_result, want[i], "... out_result");
		t_is(io.out_bytes, want[i], "... out_bytes");
		memcpy(ram + one->buffer_offset, bytes + one->file_offset,
		       want[i]);
		t_gpu_same(buffer.ptr, ram, one->buffer_offset + want[i],
			   "... the bytes");
		end = one->buffer_offset + one->len;
		t_gpu_same(buffer.ptr + end, ram + end, LEN - end,
			   "... and nothing behind the segment");
		t_result(t_ring_move(&ring, dev, T_READ, buffer.fd, odd, one, 1,
				     &io), want[i], "... by the ring");
	}
	t_result(t_move(dev, T_READ, buffer.fd, odd, segments, 6, &io), 0,
		 "all of them at once");
	for (i = 0; i < 6; i++)
		t_is(segments[i].out_result, want[i], "... segment %d", i);
	t_is(io.out_bytes, moved(segments, 6), "... out_bytes");
	munmap(ram, LEN);
	close(odd);
}

/* FILE_IO's ranges are those of the pin, not of the dma-buf around it. */
static void test_pinned_range(void)
{
	const uint64_t at = 3 * GPU_PAGE - 512, len = 2 * GPU_PAGE + 1024;
	unsigned char *want = t_ram(LEN);
	struct peerdma_pin pin;
	int fd;

	t_gpu_set(buffer.ptr, FILL, LEN);
	memset(want, FILL, LEN);
	fd = t_pin(dev, buffer.ptr + at, len, 0, &pin);
	t_need(fd >= 0, "an odd range is pinned");
	t_result(t_move_one(dev, T_READ, fd, file, 0, 0, len + 512), -ERANGE,
		 "a sector too much");
	t_result(t_move_one(dev, T_READ, fd, file, 0, 512, len), -ERANGE,
		 "a sector too far");
	t_result(t_move_one(dev, T_READ, fd, file, 512, 0, len), len,
		 "the whole range");
	memcpy(want + at, bytes + 512, len);
	t_gpu_same(buffer.ptr, want, LEN, "... and nothing around it");
	t_result(t_move_one(dev, T_READ, fd, file, 0, len - 512, 512), 512,
		 "its last sector");
	memcpy(want + at + len - 512, bytes, 512);
	t_gpu_same(buffer.ptr, want, LEN, "... and nothing around it");
	close(fd);
	munmap(want, LEN);
}

/* Into and out of the buffer at @at, across GPU pages. */
static void check_offset(uint64_t at)
{
	unsigned char *want = t_ram(LEN), *ram = t_ram(LEN);
	const uint64_t len = 5 * GPU_PAGE;

	memset(want, FILL, LEN);
	t_gpu_set(buffer.ptr, FILL, LEN);
	t_result(t_move_one(dev, T_READ, buffer.fd, file, PAGE, at, len), len,
		 "into buffer offset %" PRIu64, at);
	memcpy(want + at, bytes + PAGE, len);
	t_gpu_same(buffer.ptr, want, LEN, "... exactly there");

	t_gpu_write(buffer.ptr, bytes, LEN);
	t_result(t_move_one(dev, T_WRITE, buffer.fd, file, len, at, len), len,
		 "and out of it");
	t_is(pread(file, ram, len, len), len, "... is read");
	t_same(ram, bytes + at, len, "... and right");
	t_is(pwrite(file, bytes, LEN, 0), LEN, "the file is restored");
	munmap(ram, LEN);
	munmap(want, LEN);
}

/* Any place that out_memory_align allows, wherever the GPU's pages lie. */
static void test_memory_offsets(void)
{
	uint64_t at = memory_align;
	struct peerdma_pin pin;
	int i, fd;

	t_ok(memory_align == 4 || memory_align == 512, "out_memory_align: %u",
	     memory_align);
	for (i = 0; i < 6; i++, at += 5 * memory_align + (at & PAGE))
		check_offset(at);
	at = memory_align / 2;
	t_result(t_move_one(dev, T_READ, buffer.fd, file, 0, at, 512), -EINVAL,
		 "half of it, for a sector");
	t_result(t_move_one(dev, T_WRITE, buffer.fd, file, 0, GPU_PAGE - at,
			    GPU_PAGE), -EINVAL, "... for more");

	fd = t_pin(dev, buffer.ptr + at, LEN / 2, 0, &pin);
	t_result(t_move_one(dev, T_READ, fd, file, 0, 0, 512), -EINVAL,
		 "a pin that starts there");
	t_gpu_set(buffer.ptr, FILL, LEN);
	t_result(t_move_one(dev, T_READ, fd, file, 0, at, 512), 512,
		 "the other half of it makes up for that");
	t_gpu_same(buffer.ptr + memory_align, bytes, 512, "... exactly there");
	close(fd);
}

/* The descriptor's own offset and flags. */
static void test_descriptor(void)
{
	int fd = t_open(FILE_PATH, O_RDWR | O_DIRECT), flags;

	lseek(fd, 3 * PAGE, SEEK_SET);
	t_result(t_move_one(dev, T_READ, buffer.fd, fd, 0, 0, PAGE), PAGE,
		 "a read");
	t_result(t_move_one(dev, T_WRITE, buffer.fd, fd, 0, 0, PAGE), PAGE,
		 "a write");
	t_is(lseek(fd, 0, SEEK_CUR), 3 * PAGE, "the file's position stays");
	flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags & ~O_DIRECT);
	t_result(t_move_one(dev, T_READ, buffer.fd, fd, 0, 0, PAGE), -EBADFD,
		 "O_DIRECT taken away");
	fcntl(fd, F_SETFL, flags);
	t_result(t_move_one(dev, T_READ, buffer.fd, fd, 0, 0, PAGE), PAGE,
		 "O_DIRECT given back");
	close(fd);
}

static void test_busy(void)
{
	struct peerdma_file_segment segment = piece(0, 0, PAGE);
	struct peerdma_file_io io;
	int other = t_device_open();

	t_result(t_move(other, T_READ, buffer.fd, file, &segment, 1, &io), 0,
		 "a buffer works with any open /dev/peerdma");
	close(other);
	t_is(t_counter("file_ios"), 0, "no transfer is counted any more");
	t_is(t_counter("buffers"), 1, "one buffer is");
	t_is(t_counter("pinned_bytes"), LEN, "with its bytes");
	t_ok(t_counter("page_bytes") >= LEN, "and with struct pages");
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
	t_gpu_write(buffer.ptr, bytes, LEN);
}

static const struct t_case cases[] = {
	{ "kinds of files", test_kinds },
	{ "let go", test_let_go },
	{ "refused segments", test_refused },
	{ "the array", test_array },
	{ "most segments", test_most },
	{ "many segments", test_many },
	{ "asking only", test_check_only },
	{ "end of file", test_end_of_file },
	{ "the pinned range", test_pinned_range },
	{ "memory offsets", test_memory_offsets },
	{ "the descriptor", test_descriptor },
	{ "counters", test_busy },
};

int main(int argc, char **argv)
{
	struct peerdma_file_io io;

	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	bytes = t_ram(LEN);
	t_fill(bytes, LEN, 5);
	file = t_file_make(FILE_PATH, bytes, LEN);
	t_ring_make(&ring, 8, 0);
	t_buffer_make(&buffer, dev, LEN);
	t_gpu_write(buffer.ptr, bytes, LEN);
	t_need(!t_move(dev, T_READ, buffer.fd, file, NULL, 0, &io),
	       "file and buffer go together");
	align = io.out_align;
	memory_align = io.out_memory_align;
	return T_RUN(cases, renew);
}
