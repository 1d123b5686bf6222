// SPDX-License-Identifier: MIT
/*
 * Random operations on a file and a buffer, beside a model of both in RAM: FILE_IO
 * in both directions and by both ways, the page cache, holes, unwritten extents,
 * odd sizes. What the model has must be what the file and the GPU have.
 *
 * usage: files_random PLACE SEED OPERATIONS [OUT]
 *   PLACE  a folder on a file system, or a block device
 *   OUT    leave the model (OUT/file, OUT/buffer) and the buffer's record there
 *          for the host
 */
#define _GNU_SOURCE
#include <inttypes.h>

#include "../t_counters.h"
#include "../t_record.h"
#include "../t_transfer.h"
#include "../t_uring.h"

#define FILE_MAX	(4u << 20)
#define MEMORY		(3u << 20)
#define NR_SEGMENTS	5
#define CHECK_EVERY	8
#define SECTOR		512u

/**
 * struct pair - a file and GPU memory, each with its model
 * @dev: /dev/peerdma
 * @ring: for every other FILE_IO
 * @direct: the file, with O_DIRECT
 * @cached: the file, without
 * @regular: it is no block device
 * @file: what is in it; zeroes from @size on
 * @size: its size
 * @ptr: the GPU memory, of MEMORY bytes
 * @memory: what is in it
 * @buffer: a pin of @len bytes from @start of it
 * @start: a multiple of sectors
 * @len: bytes that are pinned
 * @map: the dma-buf's mapping, of @window bytes
 * @view: where in it the pin begins
 */
static struct pair {
	int dev;
	struct io_uring ring;
	int direct;
	int cached;
	bool regular;
	unsigned char *file;
	uint64_t size;
	uint64_t ptr;
	unsigned char *memory;
	int buffer;
	uint64_t start;
	uint64_t len;
	unsigned char *map;
	uint64_t window;
	unsigned char *view;
} pair;

static uint64_t state;

static uint64_t below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What failed, in the words of the operation. */
static char doing[256];

static bool differ(const char *what, const unsigned char *got,
		   const unsigned char *want, uint64_t from, uint64_t len)
{
	uint64_t at = t_first_difference(got, want, len);

	if (at == len)
		return false;
	t_note("%s: byte %" PRIu64 " of the %s is %#x and should be %#x",
	       doing, from + at, what, got[at], want[at]);
	return true;
}

/* ---- FILE_IO ------------------------------------------------------------- */

/*
 * Segments that overlap neither in the file nor in memory, in any order, of single
 * sectors up to a quarter of a megabyte. How many.
 */
static uint32_t make_segments(struct peerdma_file_segment *segments)
{
	uint64_t unit = below(3) ? SECTOR : 4096, file, memory = 0;
	uint32_t nr = 1 + below(NR_SEGMENTS), i, j;

	file = below(FILE_MAX / unit) * unit;
	for (i = 0; i < nr; i++) {
		uint64_t most = below(2) ? 8 : (1u << 18) / unit;
		uint64_t len = (1 + below(most)) * unit;

		file += below(2) * below(20) * unit;
		memory += below(2) * below(200) * SECTOR;
		if (file + len > FILE_MAX || memory + len > pair.len)
			break;
		segments[i] = (struct peerdma_file_segment){
			file, memory, len, -1234567,
		};
		file += len;
		memory += len;
	}
	nr = i;
	for (i = 0; i < nr; i++) {
		uint64_t offset = segments[i].file_offset, len;

		/* Only pieces of one length may change places in the file. */
		j = below(nr);
		len = segments[j].len;
		if (len != segments[i].len)
			continue;
		segments[i].file_offset = segments[j].file_offset;
		segments[j].file_offset = offset;
	}
	return nr;
}

static uint64_t expected(const struct peerdma_file_segment *segment,
			 uint32_t flags)
{
	if (flags)
		return segment->len;
	if (segment->file_offset >= pair.size)
		return 0;
	return least(segment->len, pair.size - segment->file_offset);
}

static void model_write(const struct peerdma_file_segment *segment)
{
	uint64_t end = segment->file_offset + segment->len;

	memcpy(pair.file + segment->file_offset,
	       pair.memory + pair.start + segment->buffer_offset, segment->len);
	if (end > pair.size)
		pair.size = end;
}

/* Behind the end of the file the rest of a segment may hold anything. */
static void model_read(const struct peerdma_file_segment *segment, uint64_t len)
{
	uint64_t to = pair.start + segment->buffer_offset;

	memcpy(pair.memory + to, pair.file + segment->file_offset, len);
	if (len < segment->len)
		t_gpu_read(pair.memory + to + len, pair.ptr + to + len,
			   segment->len - len);
}

static bool move(uint32_t flags)
{
	struct peerdma_file_segment segments[NR_SEGMENTS];
	uint32_t nr = make_segments(segments), i;
	bool by_ring = below(2);
	uint64_t sum = 0, want;
	struct peerdma_file_io io;
	long long ret;

	if (!nr)
		return true;
	for (i = 0; i < nr; i++)
		sum += expected(&segments[i], flags);
	snprintf(doing, sizeof(doing), "%s of %u segments by the %s, the first "
		 "of %llu at %llu to %llu", flags ? "write" : "read", nr,
		 by_ring ? "ring" : "ioctl", segments[0].len,
		 segments[0].file_offset, segments[0].buffer_offset);
	if (by_ring)
		ret = t_ring_move(&pair.ring, pair.dev, flags, pair.buffer,
				  pair.direct, segments, nr, &io);
	else
		ret = t_move(pair.dev, flags, pair.buffer, pair.direct,
			     segments, nr, &io) ?: (long long)io.out_bytes;
	if (ret != (long long)sum) {
		t_note("%s: %s, and should be %" PRIu64, doing,
		       t_errno_name(ret), sum);
		return false;
	}
	for (i = 0; i < nr; i++) {
		want = expected(&segments[i], flags);
		if (!(by_ring && nr == 1) &&
		    segments[i].out_result != (long long)want) {
			t_note("%s: segment %u: %lld of %" PRIu64, doing, i,
			       segments[i].out_result, want);
			return false;
		}
		if (!flags)
			model_read(&segments[i], want);
	}
	for (i = 0; i < nr && flags; i++)
		model_write(&segments[i]);
	return true;
}

static bool read_into(void)
{
	return move(T_READ);
}

static bool write_from(void)
{
	return move(T_WRITE);
}

/* ---- the file by other ways ---------------------------------------------- */

static bool cached_write(void)
{
	uint64_t at = below(FILE_MAX - 1);
	uint64_t len = 1 + below(least(FILE_MAX - at, 100000));

	snprintf(doing, sizeof(doing), "cached write of %" PRIu64 " at %" PRIu64,
		 len, at);
	t_fill(pair.file + at, len, below(1u << 30));
	if (at + len > pair.size)
		pair.size = at + len;
	return pwrite(pair.cached, pair.file + at, len, at) == (ssize_t)len;
}

static bool cached_read(void)
{
	static unsigned char got[FILE_MAX];
	uint64_t at, len;

	if (!pair.size)
		return true;
	at = below(pair.size);
	len = least(1 + below(300000), pair.size - at);
	snprintf(doing, sizeof(doing), "cached read of %" PRIu64 " at %" PRIu64,
		 len, at);
	return pread(pair.cached, got, len, at) == (ssize_t)len &&
	       !differ("file", got, pair.file + at, at, len);
}

static bool resize(void)
{
	uint64_t size = below(FILE_MAX);

	snprintf(doing, sizeof(doing), "size %" PRIu64, size);
	if (!pair.regular)
		return true;
	if (size < pair.size)
		memset(pair.file + size, 0, pair.size - size);
	pair.size = size;
	return !ftruncate(pair.cached, size);
}

static bool allocate(void)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	};
	int mode = modes[below(4)];
	uint64_t at = below(FILE_MAX - 1);
	uint64_t len = 1 + below(least(FILE_MAX - at, 500000));

	snprintf(doing, sizeof(doing), "fallocate %#x of %" PRIu64 " at %"
		 PRIu64, mode, len, at);
	if (!pair.regular)
		return true;
	if (mode & (FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE))
		memset(pair.file + at, 0, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && at + len > pair.size)
		pair.size = at + len;
	return !fallocate(pair.cached, mode, at, len);
}

static bool evict(void)
{
	snprintf(doing, sizeof(doing), "fsync");
	if (fsync(pair.cached))
		return false;
	posix_fadvise(pair.cached, 0, 0, POSIX_FADV_DONTNEED);
	return true;
}

/* ---- the memory by other ways -------------------------------------------- */

static bool gpu_write(void)
{
	uint64_t at = below(MEMORY - 1);
	uint64_t len = 1 + below(least(MEMORY - at, 400000));

	snprintf(doing, sizeof(doing), "GPU write of %" PRIu64 " at %" PRIu64,
		 len, at);
	t_fill(pair.memory + at, len, below(1u << 30));
	t_gpu_write(pair.ptr + at, pair.memory + at, len);
	return true;
}

static bool cpu_write(void)
{
	uint64_t at = below(pair.len - 1);
	uint64_t len = 1 + below(least(pair.len - at, 100000));

	snprintf(doing, sizeof(doing), "CPU write of %" PRIu64 " at %" PRIu64,
		 len, at);
	t_fill(pair.memory + pair.start + at, len, below(1u << 30));
	memcpy(pair.view + at, pair.memory + pair.start + at, len);
	return true;
}

static bool check(void)
{
	static unsigned char memory[MEMORY], file[FILE_MAX];
	struct stat now;

	t_gpu_read(memory, pair.ptr, MEMORY);
	if (differ("memory", memory, pair.memory, 0, MEMORY))
		return false;
	if (pair.regular &&
	    (fstat(pair.direct, &now) || (uint64_t)now.st_size != pair.size)) {
		t_note("%s: the file has %lld bytes of %" PRIu64, doing,
		       (long long)now.st_size, pair.size);
		return false;
	}
	if (pread(below(2) ? pair.direct : pair.cached, file, FILE_MAX, 0) !=
	    (ssize_t)pair.size) {
		t_note("%s: the file is not read to its end", doing);
		return false;
	}
	return !differ("file", file, pair.file, 0, pair.size);
}

/* FILE_IO comes up as often as all the others together. */
static bool (*const operations[])(void) = {
	read_into, write_from, read_into, write_from, read_into, write_from,
	read_into, write_from, cached_write, cached_read, resize, allocate,
	evict, gpu_write, gpu_write, cpu_write,
};

static bool run(uint64_t seed, int nr)
{
	int i;

	for (i = 1; i <= nr; i++) {
		bool good = operations[below(16)]() &&
			    (i % CHECK_EVERY || check());

		if (!good) {
			t_note("operation %d of seed %" PRIu64 ": %s: %s", i,
			       seed, doing, strerror(errno));
			return false;
		}
	}
	return evict() && check();
}

static void open_file(const char *place)
{
	struct stat kind;
	char path[256];

	if (stat(place, &kind))
		t_need(false, "%s: %s", place, strerror(errno));
	pair.regular = S_ISDIR(kind.st_mode);
	snprintf(path, sizeof(path), pair.regular ? "%s/random" : "%s", place);
	pair.cached = open(path, O_RDWR | (pair.regular ? O_CREAT | O_TRUNC : 0),
			   0644);
	pair.direct = open(path, O_RDWR | O_DIRECT);
	if (pair.cached < 0 || pair.direct < 0)
		t_need(false, "%s: %s", path, strerror(errno));
	pair.file = aligned_alloc(4096, FILE_MAX);
	memset(pair.file, 0, FILE_MAX);
	if (pair.regular)
		return;
	pair.size = FILE_MAX;
	if (pread(pair.cached, pair.file, FILE_MAX, 0) != FILE_MAX)
		t_need(false, "%s is read", path);
}

static void make_buffer(void)
{
	struct peerdma_pin pin;

	pair.ptr = t_gpu_alloc(MEMORY);
	pair.memory = t_ram(MEMORY);
	t_fill(pair.memory, MEMORY, 99);
	t_gpu_write(pair.ptr, pair.memory, MEMORY);
	pair.start = below(600) * SECTOR;
	pair.len = MEMORY - pair.start - below(600) * SECTOR - below(SECTOR);
	pair.buffer = t_pin(pair.dev, pair.ptr + pair.start, pair.len, 0, &pin);
	t_need(pair.buffer >= 0, "%" PRIu64 " bytes from %" PRIu64 " are pinned",
	       pair.len, pair.start);
	pair.window = pin.out_offset + pair.len;
	pair.map = mmap(NULL, pair.window, PROT_READ | PROT_WRITE, MAP_SHARED,
			pair.buffer, 0);
	t_need(pair.map != MAP_FAILED, "and mapped");
	pair.view = pair.map + pin.out_offset;
}

static void leave(const char *out, const char *name, const void *bytes,
		  size_t len)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", out, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || close(fd))
		t_need(false, "%s is written", path);
}

static void leave_record(const char *out)
{
	struct t_record record;

	leave(out, "file", pair.file, pair.size);
	leave(out, "buffer", pair.memory + pair.start, pair.len);
	t_record_open(&record, out, pair.dev, pair.buffer);
	t_record_data(&record, 0, 0, pair.len);
	t_record_close(&record);
}

int main(int argc, char **argv)
{
	uint64_t seed;

	if (argc != 4 && argc != 5) {
		fprintf(stderr,
			"usage: files_random PLACE SEED OPERATIONS [OUT]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "random operations";
	seed = strtoull(argv[2], NULL, 0);
	state = seed * 0x9e3779b97f4a7c15ull + 1;
	t_gpu_init();
	pair.dev = t_device_open();
	t_ring_make(&pair.ring, 4, 0);
	open_file(argv[1]);
	make_buffer();
	t_ok(run(seed, atoi(argv[3])), "%s of seed %" PRIu64, argv[3], seed);
	if (argc == 5)
		leave_record(argv[4]);
	munmap(pair.map, pair.window);
	close(pair.buffer);
	t_nothing_left();
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
