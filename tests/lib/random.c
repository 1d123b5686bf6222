// SPDX-License-Identifier: MIT
/*
 * Random files, ranges, buffers and paths, in one part or several, by calls and
 * by queues: what arrives is what pread(2) reads and pwrite(2) writes, not a
 * byte more, whichever way it goes; and what goes directly is what can.
 *
 * PEERDMA_SEED=N repeats a run, PEERDMA_CASES=N sets its length.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <peerdma.h>

#include "../t_draw.h"
#include "fake_cuda.h"
#include "fake_kernel.h"

enum kind { CUDA_PINNED, CUDA_STAGED, CPU_MAPPED, HOST, NR_KINDS };

#define LEN_MAX		((size_t)14 << 20)
/* A file of that length, which begins behind the largest offset. */
#define ROOM		(LEN_MAX + (128u << 10))
#define VECS_MAX	9

struct test_case {
	enum kind kind;
	bool write;
	bool direct_fd;
	bool resident;		/* the file is in the page cache */
	bool no_cachestat;	/* it is, and mincore(2) says so, or not */
	int queue;		/* 0: none; 1: with an io_uring; 2: without */
	unsigned int nr_vecs;	/* 0: one range */
	uint32_t path;
	uint64_t buf_len;
	uint64_t buf_skew;	/* of the memory itself */
	uint64_t file_len;
	uint64_t file_offset;
	uint64_t buf_offset;
	size_t len;
};

static struct peerdma *ctx;
static struct peerdma_queue *queues[2];
static char path[] = "/var/tmp/peerdma-XXXXXX";
static unsigned char *before, *after, *expected;
static struct test_case now;
static uint64_t now_seed;
static bool running;

static void draw_case(struct test_case *c)
{
	c->kind = t_draw(NR_KINDS);
	c->write = t_draw(2);
	c->direct_fd = t_draw(2);
	c->path = t_draw(4);
	c->resident = t_draw(2);
	c->no_cachestat = !t_draw(4);
	c->queue = t_draw(3);
	c->nr_vecs = t_draw(2) ? t_draw(VECS_MAX + 1) : 0;
	c->len = t_draw_len(LEN_MAX);
	c->buf_offset = t_draw(3) ? t_draw_offset() : t_draw(64) * 4;
	c->buf_skew = t_draw(2) ? t_draw(5000) : 0;
	c->buf_len = c->buf_offset + c->len + t_draw(100) + 1;
	c->file_offset = t_draw_offset();
	c->file_len = t_draw(2) ? c->file_offset + c->len + t_draw(9000) :
				t_draw_len(LEN_MAX);
}

/* Bytes with holes between them; what is left of it in the page cache differs. */
static void make_file(const struct test_case *c)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	uint64_t at, len;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, c->file_len), 0);
	for (at = t_draw(3) * 4096; at < c->file_len;
	     at += len + (t_draw(8) ? t_draw(4) : t_draw(400)) * 4096) {
		len = t_draw_len(LEN_MAX) + 1;
		if (len > c->file_len - at)
			len = c->file_len - at;
		t_draw_bytes(after, len);
		assert_int_equal(pwrite(fd, after, len, at), len);
	}
	if (t_draw(2))
		assert_int_equal(fdatasync(fd), 0);
	close(fd);
}

static unsigned char *make_buffer(const struct test_case *c,
				  struct peerdma_buffer **buf, void **host)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	unsigned char *memory = *host = NULL;

	fake_kernel_reset();
	fake_kernel.resident = c->resident;
	fake_kernel.no_cachestat = c->no_cachestat;
	switch (c->kind) {
	case CUDA_STAGED:
		fake_kernel.pin_errno = ENOBUFS;
		/* fallthrough */
	case CUDA_PINNED:
		assert_int_equal(peerdma_buffer_alloc(ctx, c->buf_len, &opts,
						      buf), 0);
		break;
	case CPU_MAPPED:
		assert_int_equal(peerdma_buffer_pin(ctx, FAKE_ADDR + c->buf_skew,
						    c->buf_len, NULL, buf), 0);
		return fake_kernel_memory() + c->buf_skew;
	default:
		*host = malloc(c->buf_len + c->buf_skew);
		assert_non_null(*host);
		memory = (unsigned char *)*host + c->buf_skew;
		assert_int_equal(peerdma_buffer_host(ctx, memory, c->buf_len,
						     NULL, buf), 0);
		return memory;
	}
	assert_int_equal(peerdma_buffer_info(*buf, &info), 0);
	return fake_cuda_memory(info.device_addr);
}

/* Is the page cache asked at all? */
static bool may_be_cached(const struct test_case *c)
{
	if (c->path == PEERDMA_PATH_CACHE)
		return true;
	return c->path == PEERDMA_PATH_AUTO && !c->write && !c->direct_fd &&
	       c->kind != HOST && (c->resident || c->no_cachestat);
}

/* Bytes that must go directly; -1: not for certain. */
static int64_t must_be_direct(const struct test_case *c)
{
	uint64_t head = -c->file_offset % FAKE_ALIGN, len = c->len;
	uint64_t place = c->buf_offset + head;

	/* A pin of this kind starts anywhere in its dma-buf. */
	if (c->kind == CPU_MAPPED)
		place += c->buf_skew;
	if (!c->write && c->file_offset + len > c->file_len)
		len = c->file_len > c->file_offset ?
			      c->file_len - c->file_offset : 0;

	if (c->path == PEERDMA_PATH_STAGED || c->path == PEERDMA_PATH_CACHE ||
	    c->kind == CUDA_STAGED)
		return 0;
	if (may_be_cached(c))
		return c->no_cachestat ? -1 : 0;
	if (c->kind == HOST)
		return c->direct_fd ? -1 : 0;
	if (len < head || place % FAKE_MEMORY_ALIGN)
		return 0;
	return (len - head) / FAKE_ALIGN * FAKE_ALIGN;
}

/*
 * Is a range refused where the direct path is forced? It is where whole blocks
 * cannot go; 1, 0, or -1: not for certain.
 */
static int must_be_refused(const struct test_case *c, uint64_t file_offset,
			   uint64_t buf_offset, uint64_t len)
{
	uint64_t head = -file_offset % FAKE_ALIGN, place = buf_offset + head;

	if (c->path != PEERDMA_PATH_DIRECT || !len)
		return 0;
	if (c->kind == CUDA_STAGED)
		return 1;
	/* Of host memory the filesystem knows what it takes. */
	if (c->kind == HOST)
		return c->direct_fd ? -1 : 1;
	if (c->kind == CPU_MAPPED)
		place += c->buf_skew;
	if (!c->write)
		len = file_offset >= c->file_len ? 0 :
		      len < c->file_len - file_offset ? len :
		      c->file_len - file_offset;
	return len >= head + FAKE_ALIGN && place % FAKE_MEMORY_ALIGN;
}

static void check_result(const struct test_case *c, ssize_t moved,
			 const struct peerdma_io_result *result, size_t want)
{
	int64_t direct = must_be_direct(c);
	int refused = must_be_refused(c, c->file_offset, c->buf_offset, c->len);

	if (refused == 1 || (refused < 0 && result->error)) {
		assert_int_equal(result->error, -EOPNOTSUPP);
		assert_true(direct <= 0 && result->reason);
		assert_int_equal(result->bytes_direct, 0);
		if (refused == 1)
			assert_int_equal(moved, -EOPNOTSUPP);
		return;
	}
	assert_int_equal(result->error, 0);
	assert_int_equal(moved, want);
	assert_int_equal(result->bytes_direct + result->bytes_staged +
				 result->bytes_cached + result->bytes_zeroed,
			 moved);
	if (!may_be_cached(c))
		assert_int_equal(result->bytes_cached, 0);
	else if (!c->no_cachestat || c->path == PEERDMA_PATH_CACHE)
		assert_int_equal(result->bytes_cached + result->bytes_zeroed,
				 moved);
	if (direct >= 0 && !result->bytes_zeroed)
		assert_int_equal(result->bytes_direct, direct);
	if (result->bytes_staged)
		assert_int_not_equal(result->reason, 0);
	else if (moved)
		assert_int_equal(result->reason, 0);
}

static size_t read_file(int flags, unsigned char *bytes)
{
	int fd = open(path, O_RDONLY | flags);
	size_t done = 0;
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = pread(fd, bytes + done, ROOM - done, done)) > 0)
		done += n;
	assert_int_equal(n, 0);
	close(fd);
	return done;
}

static ssize_t by_queue(const struct test_case *c, struct peerdma_buffer *buf,
			int fd, struct peerdma_io_vec *vecs,
			struct peerdma_io_result *result)
{
	struct peerdma_io_request request = {
		.size = sizeof(request),
		.buf = buf,
		.fd = fd,
		.flags = c->write ? PEERDMA_IO_WRITE : 0,
		.path = c->path,
		.vecs = vecs,
		.nr_vecs = c->nr_vecs,
	};
	struct peerdma_queue *queue = queues[c->queue - 1];
	struct peerdma_completion done;

	if (!c->nr_vecs) {
		request.file_offset = c->file_offset;
		request.buffer_offset = c->buf_offset;
		request.len = c->len;
	}
	assert_int_equal(peerdma_queue_submit(queue, &request, 1, 0), 1);
	assert_int_equal(peerdma_queue_reap(queue, &done, 1, 1, NULL), 1);
	result->bytes_direct = done.bytes_direct;
	result->bytes_staged = done.bytes_staged;
	result->bytes_cached = done.bytes_cached;
	result->bytes_registered = done.bytes_registered;
	result->bytes_zeroed = done.bytes_zeroed;
	result->reason = done.reason;
	result->error = done.error;
	return done.result;
}

static ssize_t transfer(const struct test_case *c, struct peerdma_buffer *buf,
			int fd, struct peerdma_io_vec *vecs,
			struct peerdma_io_result *result)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = c->path);

	if (c->queue)
		return by_queue(c, buf, fd, vecs, result);
	if (c->nr_vecs && c->write)
		return peerdma_writev(buf, fd, vecs, c->nr_vecs, &opts,
				      result);
	if (c->nr_vecs)
		return peerdma_readv(buf, fd, vecs, c->nr_vecs, &opts, result);
	if (c->write)
		return peerdma_write_opts(buf, fd, c->len, c->file_offset,
					  c->buf_offset, &opts, result);
	return peerdma_read_opts(buf, fd, c->len, c->file_offset,
				 c->buf_offset, &opts, result);
}

/*
 * The case's range in parts: those that are written to do not overlap, and come
 * in any order; those that they come from may.
 */
static void draw_vecs(const struct test_case *c, struct peerdma_io_vec *vecs)
{
	uint64_t at = 0, from, room, len;
	struct peerdma_io_vec vec;
	unsigned int i, k;

	for (i = 0; i < c->nr_vecs; i++) {
		len = i + 1 < c->nr_vecs ? t_draw(c->len - at + 1) : c->len - at;
		if (t_draw(2))
			len &= -4096;
		room = c->write ? c->buf_len : c->file_len + 5000;
		room = room > len ? room - len : 1;
		from = t_draw(2) ? t_draw(room) : t_draw(room) & -512;
		vecs[i] = (struct peerdma_io_vec){
			.file_offset = c->write ? c->file_offset + at : from,
			.buffer_offset = c->write ? from : c->buf_offset + at,
			.len = len,
		};
		at += len;
	}
	for (i = 0; i < c->nr_vecs; i++) {
		k = t_draw(c->nr_vecs);
		vec = vecs[i];
		vecs[i] = vecs[k];
		vecs[k] = vec;
	}
}

static size_t file_part(uint64_t offset, uint64_t len, uint64_t size)
{
	if (offset >= size)
		return 0;
	return len < size - offset ? len : size - offset;
}

/* Each part whole, unless the path was forced and cannot be. */
static void check_vecs(const struct test_case *c, ssize_t moved,
		       const struct peerdma_io_vec *vecs,
		       const struct peerdma_io_result *result, size_t size)
{
	bool any_refused = false;
	int64_t want, sum = 0;
	unsigned int i;
	int refused;

	for (i = 0; i < c->nr_vecs; i++) {
		want = c->write ? vecs[i].len :
				  file_part(vecs[i].file_offset, vecs[i].len,
					    size);
		refused = must_be_refused(c, vecs[i].file_offset,
					  vecs[i].buffer_offset, vecs[i].len);
		if (!refused)
			assert_int_equal(vecs[i].result, want);
		else if (refused == 1 || vecs[i].result < 0)
			assert_int_equal(vecs[i].result, -EOPNOTSUPP);
		any_refused |= vecs[i].result != want;
		if (vecs[i].result > 0)
			sum += vecs[i].result;
	}
	assert_int_equal(result->error, any_refused ? -EOPNOTSUPP : 0);
	assert_int_equal(moved, sum || !any_refused ? sum : -EOPNOTSUPP);
	assert_int_equal(result->bytes_direct + result->bytes_staged +
				 result->bytes_cached + result->bytes_zeroed,
			 sum);
	if (result->bytes_staged)
		assert_int_not_equal(result->reason, 0);
}

static void run_read_vecs(const struct test_case *c, struct peerdma_buffer *buf,
			  unsigned char *memory, int fd)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	struct peerdma_io_vec vecs[VECS_MAX];
	ssize_t moved, got;
	unsigned int i;
	size_t size;

	draw_vecs(c, vecs);
	t_draw_bytes(before, c->buf_len);
	memcpy(memory, before, c->buf_len);
	memcpy(expected, before, c->buf_len);
	moved = transfer(c, buf, fd, vecs, &result);
	size = read_file(0, after);
	check_vecs(c, moved, vecs, &result, size);
	for (i = 0; i < c->nr_vecs; i++) {
		uint64_t at = vecs[i].buffer_offset;

		got = vecs[i].result > 0 ? vecs[i].result : 0;
		memcpy(expected + at, after + vecs[i].file_offset, got);
		if (result.error)
			memcpy(expected + at + got, memory + at + got,
			       vecs[i].len - got);
	}
	assert_memory_equal(memory, expected, c->buf_len);
}

static void run_write_vecs(const struct test_case *c,
			   struct peerdma_buffer *buf, unsigned char *memory,
			   int fd)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	struct peerdma_io_vec vecs[VECS_MAX];
	size_t size = c->file_len;
	unsigned int i;
	ssize_t moved;

	draw_vecs(c, vecs);
	memset(expected, 0, ROOM);
	assert_int_equal(read_file(0, expected), size);
	t_draw_bytes(memory, c->buf_len);
	moved = transfer(c, buf, fd, vecs, &result);
	check_vecs(c, moved, vecs, &result, size);
	for (i = 0; i < c->nr_vecs; i++) {
		if (vecs[i].result <= 0)
			continue;
		memcpy(expected + vecs[i].file_offset,
		       memory + vecs[i].buffer_offset, vecs[i].result);
		if (vecs[i].file_offset + vecs[i].result > size)
			size = vecs[i].file_offset + vecs[i].result;
	}
	assert_int_equal(read_file(0, after), size);
	assert_memory_equal(after, expected, size);
	assert_int_equal(read_file(O_DIRECT, after), size);
	assert_memory_equal(after, expected, size);
}

static void run_read(const struct test_case *c, struct peerdma_buffer *buf,
		     unsigned char *memory, int fd)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	ssize_t moved, want;

	t_draw_bytes(before, c->buf_len);
	memcpy(memory, before, c->buf_len);
	memcpy(expected, before, c->buf_len);
	moved = transfer(c, buf, fd, NULL, &result);
	want = read_file(0, after);
	want = (size_t)want > c->file_offset ? want - c->file_offset : 0;
	want = (size_t)want > c->len ? c->len : (size_t)want;
	check_result(c, moved, &result, want);
	if (moved < 0)
		moved = 0;
	memcpy(expected + c->buf_offset, after + c->file_offset, moved);
	/* After an error the rest of the range may hold anything. */
	if (result.error)
		memcpy(expected + c->buf_offset + moved,
		       memory + c->buf_offset + moved, c->len - moved);
	assert_memory_equal(memory, expected, c->buf_len);
}

static void run_write(const struct test_case *c, struct peerdma_buffer *buf,
		      unsigned char *memory, int fd)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	size_t size = c->file_len;
	ssize_t moved;

	memset(expected, 0, ROOM);
	assert_int_equal(read_file(0, expected), size);
	t_draw_bytes(memory, c->buf_len);
	moved = transfer(c, buf, fd, NULL, &result);
	check_result(c, moved, &result, c->len);
	if (moved > 0) {
		memcpy(expected + c->file_offset, memory + c->buf_offset,
		       moved);
		if (c->file_offset + moved > size)
			size = c->file_offset + moved;
	}
	assert_int_equal(read_file(0, after), size);
	assert_memory_equal(after, expected, size);
	/* And from the drive, where a cache that lies would show. */
	assert_int_equal(read_file(O_DIRECT, after), size);
	assert_memory_equal(after, expected, size);
}

static void run_case(const struct test_case *c)
{
	struct peerdma_buffer *buf;
	unsigned char *memory;
	int fd, flags;
	void *host;

	make_file(c);
	flags = (c->write ? O_WRONLY : O_RDONLY) | (c->direct_fd ? O_DIRECT : 0);
	fd = open(path, flags);
	assert_true(fd >= 0);
	memory = make_buffer(c, &buf, &host);
	if (c->write && c->nr_vecs)
		run_write_vecs(c, buf, memory, fd);
	else if (c->nr_vecs)
		run_read_vecs(c, buf, memory, fd);
	else if (c->write)
		run_write(c, buf, memory, fd);
	else
		run_read(c, buf, memory, fd);
	assert_int_equal(!(fcntl(fd, F_GETFL) & O_DIRECT), !c->direct_fd);
	peerdma_buffer_close(buf);
	free(host);
	close(fd);
}

static void same_bytes_on_every_path(void **unused)
{
	const char *cases_text = getenv("PEERDMA_CASES");
	const char *seed_text = getenv("PEERDMA_SEED");
	unsigned long i, cases = cases_text ? atol(cases_text) : 1500;
	uint64_t seed = (uint64_t)time(NULL) << 16 | getpid();

	(void)unused;
	if (seed_text)
		seed = strtoull(seed_text, NULL, 0);
	for (i = 0; i < cases; i++, seed++) {
		now_seed = seed;
		t_draw_begin(seed);
		t_draw(1);
		draw_case(&now);
		running = true;
		run_case(&now);
		running = false;
	}
}

static void report_case(void)
{
	print_error("repeat with PEERDMA_SEED=%#llx PEERDMA_CASES=1: kind %d "
		    "%s %s path %d, queue %d, %u parts, %zu bytes at %llu of "
		    "%llu, %llu of %llu\n",
		    (unsigned long long)now_seed, now.kind,
		    now.write ? "write" : "read",
		    now.direct_fd ? "O_DIRECT" : "cached", now.path, now.queue,
		    now.nr_vecs, now.len,
		    (unsigned long long)now.file_offset,
		    (unsigned long long)now.file_len,
		    (unsigned long long)now.buf_offset,
		    (unsigned long long)now.buf_len);
}

static int set_up(void **unused)
{
	/* The fake CUDA pins by reading, and the cases cut their file off. */
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	PEERDMA_SIZED(peerdma_queue_opts, no_uring,
		.flags = PEERDMA_QUEUE_NO_URING);

	(void)unused;
	close(mkstemp(path));
	before = malloc(ROOM);
	after = aligned_alloc(4096, ROOM);
	expected = malloc(ROOM);
	fake_kernel_memory();
	fake_kernel_reset();
	fake_kernel.uring = true;
	if (peerdma_open(&ctx, &opts) ||
	    peerdma_queue_create(ctx, 1, &no_uring, &queues[1]))
		return -1;
	return peerdma_queue_create(ctx, 1, NULL, &queues[0]);
}

static int tear_down(void **unused)
{
	(void)unused;
	/* A failed assertion has jumped out of the case. */
	if (running)
		report_case();
	peerdma_queue_destroy(queues[0]);
	peerdma_queue_destroy(queues[1]);
	peerdma_close(ctx);
	free(before);
	free(after);
	free(expected);
	unlink(path);
	return fake_cuda.allocations || fake_cuda.host_allocations;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_bytes_on_every_path),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
