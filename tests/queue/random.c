// SPDX-License-Identifier: MIT
/*
 * The library against read(2) and write(2): random files (holes, unwritten
 * extents, odd sizes; dirty, cached and not), ranges and parts, buffers, paths,
 * both ways, by calls and by queues. Not a byte may differ, in the range or
 * beside it.
 *
 * usage: random FOLDER SEED CASES
 * A case that fails prints its seed; with CASES 1 it is repeated alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include <peerdma.h>

#include "../t_draw.h"
#include "../t_tap.h"

#define BUFFER_LEN	((size_t)4 << 20)
#define FILE_MAX	((size_t)6 << 20)
#define PARTS_MAX	8

enum memory { PINNED, NOT_PINNED, HOST, NR_MEMORIES };
enum way { CALL, RING, THREADS, NR_WAYS };

/* A context with its buffers and queues: with the module, and as if without. */
static struct {
	struct peerdma *ctx;
	struct peerdma_queue *queues[NR_WAYS];
} worlds[2];

static struct {
	struct peerdma *ctx;
	struct peerdma_buffer *buf;
	struct peerdma_queue **queues;
} memories[NR_MEMORIES];

static unsigned char *before, *after, *file_before, *file_after;
static unsigned char *host;
static char path[256];

/* Data, holes and unwritten extents; what of it is in the page cache differs. */
static bool make_file(uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	uint64_t at = t_draw(3) * 4096, len;
	bool good = fd >= 0 && !ftruncate(fd, size);

	for (; good && at < size;
	     at += len + (t_draw(8) ? t_draw(4) : t_draw(200)) * 4096) {
		len = t_draw_len(2 << 20) + 1;
		if (len > size - at)
			len = size - at;
		if (!t_draw(4)) {
			good = !fallocate(fd, 0, at, len);
			continue;
		}
		t_draw_bytes(after, len);
		good = pwrite(fd, after, len, at) == (ssize_t)len;
	}
	if (t_draw(2))
		good = good && !fsync(fd);
	if (!t_draw(3))
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	else if (!t_draw(3))
		good = good && pread(fd, after, size / 2, 0) >= 0;
	close(fd);
	return good;
}

/* Return: bytes of the whole file. */
static size_t read_file(int flags, unsigned char *bytes)
{
	int fd = open(path, O_RDONLY | flags);
	size_t done = 0;
	ssize_t n;

	while ((n = pread(fd, bytes + done, FILE_MAX - done, done)) > 0)
		done += n;
	close(fd);
	return n ? 0 : done;
}

struct one {
	enum memory memory;
	enum way way;
	uint32_t path;
	bool write;
	bool direct;
	unsigned int nr;		/* parts; 1: perhaps none, but a range */
	bool as_range;
	struct peerdma_io_vec parts[PARTS_MAX];
	uint64_t size;			/* of the file */
	struct peerdma_io_result result;
	int64_t moved;
};

/* What is written to does not overlap. */
static void draw_parts(struct one *c)
{
	uint64_t to = t_draw_offset(), from, len;
	unsigned int i;

	for (i = 0; i < c->nr; i++) {
		len = t_draw_len(2 << 20);
		if (c->nr > 1)
			len %= 200000;
		from = t_draw_offset() + (t_draw(2) ? t_draw(c->size + 1) : 0);
		if (c->write && from + len > BUFFER_LEN)
			from = 0;
		c->parts[i] = (struct peerdma_io_vec){
			.file_offset = c->write ? to : from,
			.buffer_offset = c->write ? from : to,
			.len = len,
		};
		to += len + (t_draw(2) ? t_draw(3) * 512 : 0);
	}
}

static void draw_one(struct one *c)
{
	*c = (struct one){
		.memory = t_draw(NR_MEMORIES),
		.way = t_draw(NR_WAYS),
		.path = t_draw(4),
		.write = t_draw(2),
		.direct = t_draw(2),
		.nr = t_draw(2) ? 1 : 1 + t_draw(PARTS_MAX),
		.as_range = t_draw(2),
		.size = t_draw(4) ? t_draw_len(2 << 20) + t_draw_len(2 << 20) : 0,
		.result.size = sizeof(c->result),
	};
	c->as_range &= c->nr == 1;
	draw_parts(c);
}

static void by_queue(struct one *c, int fd)
{
	struct peerdma_io_request request = {
		.size = sizeof(request),
		.user_data = 42,
		.buf = memories[c->memory].buf,
		.fd = fd,
		.flags = c->write ? PEERDMA_IO_WRITE : 0,
		.path = c->path,
	};
	struct peerdma_queue *queue = memories[c->memory].queues[c->way];
	struct peerdma_completion done = { .user_data = 0 };

	if (c->as_range) {
		request.file_offset = c->parts[0].file_offset;
		request.buffer_offset = c->parts[0].buffer_offset;
		request.len = c->parts[0].len;
	} else {
		request.vecs = c->parts;
		request.nr_vecs = c->nr;
	}
	c->moved = -EPROTO;
	if (peerdma_queue_submit(queue, &request, 1, 0) != 1 ||
	    peerdma_queue_reap(queue, &done, 1, 1, NULL) != 1 ||
	    done.user_data != 42)
		return;
	c->moved = done.result;
	c->result.error = done.error;
	c->result.reason = done.reason;
	c->result.bytes_direct = done.bytes_direct;
	c->result.bytes_staged = done.bytes_staged;
	c->result.bytes_cached = done.bytes_cached;
	c->result.bytes_zeroed = done.bytes_zeroed;
}

static void by_call(struct one *c, int fd)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = c->path);
	struct peerdma_buffer *buf = memories[c->memory].buf;
	struct peerdma_io_vec *part = c->parts;

	if (!c->as_range && c->write)
		c->moved = peerdma_writev(buf, fd, part, c->nr, &opts,
					  &c->result);
	else if (!c->as_range)
		c->moved = peerdma_readv(buf, fd, part, c->nr, &opts,
					 &c->result);
	else if (c->write)
		c->moved = peerdma_write_opts(buf, fd, part->len,
					      part->file_offset,
					      part->buffer_offset, &opts,
					      &c->result);
	else
		c->moved = peerdma_read_opts(buf, fd, part->len,
					     part->file_offset,
					     part->buffer_offset, &opts,
					     &c->result);
}

static int64_t wanted(const struct one *c, const struct peerdma_io_vec *part,
		      uint64_t size)
{
	if (c->write)
		return part->len;
	if (part->file_offset >= size)
		return 0;
	return part->len < size - part->file_offset ? part->len :
						      size - part->file_offset;
}

/* All is moved, unless the path was forced and cannot be. */
static bool check_counts(struct one *c, uint64_t size)
{
	const struct peerdma_io_result *r = &c->result;
	bool refused = r->error == -EOPNOTSUPP &&
		       c->path == PEERDMA_PATH_DIRECT && r->reason;
	int64_t sum = 0;
	unsigned int i;

	if (r->error && !refused)
		return false;
	if (c->as_range)
		c->parts[0].result = c->moved;
	for (i = 0; i < c->nr; i++) {
		const struct peerdma_io_vec *part = &c->parts[i];

		if (part->result < 0 && !(refused &&
					  part->result == -EOPNOTSUPP))
			return false;
		if (!refused && part->result != wanted(c, part, size))
			return false;
		sum += part->result > 0 ? part->result : 0;
	}
	if (c->moved != (sum || !refused ? sum : -EOPNOTSUPP))
		return false;
	return r->bytes_direct + r->bytes_staged + r->bytes_cached +
		       r->bytes_zeroed == (uint64_t)sum;
}

static bool check_read(struct one *c, struct peerdma_buffer *buf, int fd)
{
	uint64_t size;
	unsigned int i;

	t_draw_bytes(before, BUFFER_LEN);
	if (peerdma_buffer_copy_in(buf, 0, before, BUFFER_LEN))
		return false;
	if (c->way == CALL)
		by_call(c, fd);
	else
		by_queue(c, fd);
	size = read_file(0, file_after);
	if (size != c->size || !check_counts(c, size) ||
	    peerdma_buffer_copy_out(buf, 0, after, BUFFER_LEN))
		return false;
	for (i = 0; i < c->nr; i++) {
		const struct peerdma_io_vec *part = &c->parts[i];
		size_t got = part->result > 0 ? part->result : 0;

		memcpy(before + part->buffer_offset,
		       file_after + part->file_offset, got);
		/* After an error the rest of the range may hold anything. */
		if (c->result.error)
			memcpy(before + part->buffer_offset + got,
			       after + part->buffer_offset + got,
			       part->len - got);
	}
	return !memcmp(before, after, BUFFER_LEN);
}

static bool check_write(struct one *c, struct peerdma_buffer *buf, int fd)
{
	uint64_t size = c->size;
	unsigned int i;

	memset(file_before, 0, FILE_MAX);
	if (read_file(0, file_before) != size)
		return false;
	t_draw_bytes(before, BUFFER_LEN);
	if (peerdma_buffer_copy_in(buf, 0, before, BUFFER_LEN))
		return false;
	if (c->way == CALL)
		by_call(c, fd);
	else
		by_queue(c, fd);
	if (!check_counts(c, 0))
		return false;
	for (i = 0; i < c->nr; i++) {
		const struct peerdma_io_vec *part = &c->parts[i];

		if (part->result <= 0)
			continue;
		memcpy(file_before + part->file_offset,
		       before + part->buffer_offset, part->result);
		if (part->file_offset + part->result > size)
			size = part->file_offset + part->result;
	}
	if (read_file(0, file_after) != size ||
	    memcmp(file_after, file_before, size))
		return false;
	/* And from the drive, where a page cache that lies would show. */
	return read_file(O_DIRECT, file_after) == size &&
	       !memcmp(file_after, file_before, size);
}

static bool run_case(uint64_t seed, struct one *c)
{
	struct peerdma_buffer *buf;
	bool good;
	int fd;

	t_draw_begin(seed);
	t_draw(1);
	draw_one(c);
	if (!make_file(c->size))
		return false;
	buf = memories[c->memory].buf;
	fd = open(path, (c->write ? O_WRONLY : O_RDONLY) |
			(c->direct ? O_DIRECT : 0));
	good = fd >= 0 && (c->write ? check_write(c, buf, fd) :
				      check_read(c, buf, fd));
	close(fd);
	return good;
}

static void report(uint64_t seed, const struct one *c)
{
	unsigned int i;

	t_note("seed %" PRIu64 ": memory %d, way %d, %s, path %u, %s, file of "
	       "%" PRIu64 " bytes", seed, c->memory, c->way,
	       c->write ? "write" : "read", c->path,
	       c->direct ? "O_DIRECT" : "cached", c->size);
	t_note("moved %" PRId64 ", error %d, reason %d", c->moved,
	       c->result.error, c->result.reason);
	for (i = 0; i < c->nr; i++)
		t_note("  file %" PRIu64 ", buffer %" PRIu64 ", length %" PRIu64
		       ": %" PRId64, c->parts[i].file_offset,
		       c->parts[i].buffer_offset, c->parts[i].len,
		       c->parts[i].result);
}

static void make_world(int i, const char *device)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = device);
	PEERDMA_SIZED(peerdma_queue_opts, threads,
		.flags = PEERDMA_QUEUE_NO_URING);

	t_need(!peerdma_open(&worlds[i].ctx, &opts), "a context");
	t_need(!peerdma_queue_create(worlds[i].ctx, 4, NULL,
				     &worlds[i].queues[RING]), "a queue");
	t_need(!peerdma_queue_create(worlds[i].ctx, 4, &threads,
				     &worlds[i].queues[THREADS]),
	       "a queue without an io_uring");
}

static void make_memory(enum memory which, int world)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	struct peerdma *ctx = worlds[world].ctx;
	struct peerdma_buffer **buf = &memories[which].buf;
	int err;

	memories[which].queues = worlds[world].queues;
	if (which == HOST)
		err = peerdma_buffer_host(ctx, host, BUFFER_LEN, NULL, buf);
	else
		err = peerdma_buffer_alloc(ctx, BUFFER_LEN, &opts, buf);
	t_need(!err, "memory %d", which);
}

static void make_all(void)
{
	make_world(0, NULL);
	make_world(1, "/nowhere");
	host = aligned_alloc(4096, BUFFER_LEN);
	before = malloc(BUFFER_LEN);
	after = aligned_alloc(4096, FILE_MAX);
	file_before = malloc(FILE_MAX);
	file_after = aligned_alloc(4096, FILE_MAX);
	make_memory(PINNED, 0);
	make_memory(NOT_PINNED, 1);
	make_memory(HOST, 0);
}

static void drop_all(void)
{
	int i;

	for (i = 0; i < NR_MEMORIES; i++)
		peerdma_buffer_close(memories[i].buf);
	for (i = 0; i < 2; i++) {
		peerdma_queue_destroy(worlds[i].queues[RING]);
		peerdma_queue_destroy(worlds[i].queues[THREADS]);
		peerdma_close(worlds[i].ctx);
	}
}

int main(int argc, char **argv)
{
	uint64_t seed, i, cases, bad = 0, direct = 0;
	struct one c;

	if (argc != 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "random";
	snprintf(path, sizeof(path), "%s/random", argv[1]);
	seed = strtoull(argv[2], NULL, 0);
	cases = strtoull(argv[3], NULL, 0);
	make_all();
	for (i = 0; i < cases && bad < 5; i++) {
		if (!run_case(seed + i, &c)) {
			report(seed + i, &c);
			bad++;
		}
		direct += c.result.bytes_direct;
	}
	t_is(bad, 0, "%" PRIu64 " cases from seed %" PRIu64, cases, seed);
	t_ok(cases < 100 || direct, "some of it went directly");
	drop_all();
	unlink(path);
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
