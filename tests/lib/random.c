// SPDX-License-Identifier: MIT
/*
 * Random files, ranges, buffers and paths: what arrives is what pread(2) reads
 * and pwrite(2) writes, not a byte more, whichever way it goes; and what goes
 * directly is what can.
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

#include "fake_cuda.h"
#include "fake_kernel.h"

enum kind { CUDA_PINNED, CUDA_STAGED, CPU_MAPPED, HOST, NR_KINDS };

#define LEN_MAX		((size_t)14 << 20)

struct test_case {
	enum kind kind;
	bool write;
	bool direct_fd;
	bool resident;		/* the file is in the page cache */
	bool no_cachestat;	/* it is, and mincore(2) says so, or not */
	uint32_t path;
	uint64_t buf_len;
	uint64_t buf_skew;	/* of the memory itself */
	uint64_t file_len;
	uint64_t file_offset;
	uint64_t buf_offset;
	size_t len;
};

static uint64_t state;
static struct peerdma *ctx;
static char path[] = "/var/tmp/peerdma-XXXXXX";
static unsigned char *before, *after, *expected;
static struct test_case now;
static uint64_t now_seed;
static bool running;

static uint64_t draw(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below ? (state >> 11) % below : 0;
}

static void fill(unsigned char *bytes, size_t len)
{
	size_t i;

	for (i = 0; i + 8 <= len; i += 8) {
		draw(1);
		memcpy(bytes + i, &state, 8);
	}
	for (; i < len; i++)
		bytes[i] = draw(256);
}

/* Mostly small, mostly odd, sometimes round, now and then several chunks. */
static uint64_t draw_len(void)
{
	switch (draw(8)) {
	case 0:
		return draw(600);
	case 1:
		return draw(40) * 512;
	case 2:
		return draw(16) * 4096;
	case 3:
		return draw(20) ? draw(100000) : draw(LEN_MAX);
	default:
		return draw(30000);
	}
}

static uint64_t draw_offset(void)
{
	switch (draw(4)) {
	case 0:
		return draw(5000);
	case 1:
		return draw(10) * 4096;
	case 2:
		return draw(30) * 512;
	default:
		return 0;
	}
}

static void draw_case(struct test_case *c)
{
	c->kind = draw(NR_KINDS);
	c->write = draw(2);
	c->direct_fd = draw(2);
	c->path = draw(4);
	c->resident = draw(2);
	c->no_cachestat = !draw(4);
	c->len = draw_len();
	c->buf_offset = draw(3) ? draw_offset() : draw(64) * 4;
	c->buf_skew = draw(2) ? draw(5000) : 0;
	c->buf_len = c->buf_offset + c->len + draw(100) + 1;
	c->file_offset = draw_offset();
	c->file_len = draw(2) ? c->file_offset + c->len + draw(9000) :
				draw_len();
}

/* Bytes with holes between them; what is left of it in the page cache differs. */
static void make_file(const struct test_case *c)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	uint64_t at, len;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, c->file_len), 0);
	for (at = draw(3) * 4096; at < c->file_len; at += len + draw(4) * 4096) {
		len = draw_len() + 1;
		if (len > c->file_len - at)
			len = c->file_len - at;
		fill(after, len);
		assert_int_equal(pwrite(fd, after, len, at), len);
	}
	if (draw(2))
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

static void check_result(const struct test_case *c, ssize_t moved,
			 const struct peerdma_io_result *result, size_t want)
{
	int64_t direct = must_be_direct(c);

	if (result->error == -EOPNOTSUPP && c->path == PEERDMA_PATH_DIRECT) {
		assert_true(direct <= 0 && result->reason);
		assert_int_equal(result->bytes_direct, 0);
		/* Only host memory is not known to be refused. */
		if (direct == 0)
			assert_int_equal(moved, -EOPNOTSUPP);
		return;
	}
	assert_int_equal(result->error, 0);
	assert_int_equal(moved, want);
	assert_int_equal(result->bytes_direct + result->bytes_staged +
				 result->bytes_cached, moved);
	if (!may_be_cached(c))
		assert_int_equal(result->bytes_cached, 0);
	else if (!c->no_cachestat || c->path == PEERDMA_PATH_CACHE)
		assert_int_equal(result->bytes_cached, moved);
	if (direct >= 0)
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
	while ((n = pread(fd, bytes + done, LEN_MAX - done, done)) > 0)
		done += n;
	assert_int_equal(n, 0);
	close(fd);
	return done;
}

static void run_read(const struct test_case *c, struct peerdma_buffer *buf,
		     unsigned char *memory, int fd)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = c->path);
	PEERDMA_SIZED(peerdma_io_result, result);
	ssize_t moved, want;

	fill(before, c->buf_len);
	memcpy(memory, before, c->buf_len);
	memcpy(expected, before, c->buf_len);
	moved = peerdma_read_opts(buf, fd, c->len, c->file_offset,
				  c->buf_offset, &opts, &result);
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
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = c->path);
	PEERDMA_SIZED(peerdma_io_result, result);
	size_t size = c->file_len;
	ssize_t moved;

	memset(expected, 0, LEN_MAX + 65536);
	assert_int_equal(read_file(0, expected), size);
	fill(memory, c->buf_len);
	moved = peerdma_write_opts(buf, fd, c->len, c->file_offset,
				   c->buf_offset, &opts, &result);
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
	if (c->write)
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
		state = (seed + 1) * 0x9e3779b97f4a7c15;
		draw(1);
		draw_case(&now);
		running = true;
		run_case(&now);
		running = false;
	}
}

static void report_case(void)
{
	print_error("repeat with PEERDMA_SEED=%#llx PEERDMA_CASES=1: kind %d "
		    "%s %s path %d, %zu bytes at %llu of %llu, %llu of %llu\n",
		    (unsigned long long)now_seed, now.kind,
		    now.write ? "write" : "read",
		    now.direct_fd ? "O_DIRECT" : "cached", now.path, now.len,
		    (unsigned long long)now.file_offset,
		    (unsigned long long)now.file_len,
		    (unsigned long long)now.buf_offset,
		    (unsigned long long)now.buf_len);
}

static int set_up(void **unused)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);

	(void)unused;
	close(mkstemp(path));
	before = malloc(LEN_MAX + 65536);
	after = aligned_alloc(4096, LEN_MAX + 65536);
	expected = malloc(LEN_MAX + 65536);
	fake_kernel_memory();
	fake_kernel_reset();
	return peerdma_open(&ctx, &opts);
}

static int tear_down(void **unused)
{
	(void)unused;
	/* A failed assertion has jumped out of the case. */
	if (running)
		report_case();
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
