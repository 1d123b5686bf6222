// SPDX-License-Identifier: MIT
/* Transfers by one call in the order of a stream, and small reads nobody waits for. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "io_fixture.h"
#include "stream_gate.h"

#define PIECE	((size_t)4096)
#define NR	((size_t)600)		/* more pieces than are kept at a time */

static struct peerdma_io_result result = { .size = sizeof(result) };
static void *where;			/* the stream, by either of its names */
static unsigned char *seen;		/* of the memory, by the stream */

static void look(void *arg)
{
	(void)arg;
	memcpy(seen, memory, LEN);
}

static void scribble(void *arg)
{
	memset(memory, (intptr_t)arg, LEN);
}

static void look_and_go_on(void)
{
	launch(look, NULL);
	launch(scribble, (void *)(intptr_t)99);
	drain_stream();
}

static ssize_t read_in_stream(int fd, size_t len, uint64_t from, uint64_t to,
			      uint32_t path)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM,
		.stream = where, .path = path);

	return peerdma_read_opts(buf, fd, len, from, to, &opts, &result);
}

static int set_up_stream(void **state)
{
	int err = set_up(state);

	fake_cuda.has_default = true;
	fake_kernel.resident = true;
	where = *state ? fake_cuda_stream() : NULL;
	seen = calloc(1, LEN);
	memset(memory, 0, LEN);
	return err;
}

static int tear_down_stream(void **state)
{
	drain_stream();
	free(seen);
	return tear_down(state);
}

/* Nobody waits, and it is there after what was before, before what follows. */
static void small_reads_go_into_it(void **state)
{
	int fd = open_file(O_RDONLY);
	size_t i;

	(void)state;
	hold_stream();
	launch(scribble, (void *)(intptr_t)77);
	for (i = 0; i < 100; i++) {
		assert_int_equal(read_in_stream(fd, PIECE - i, i * PIECE + 5,
						i * PIECE + 3, 0), PIECE - i);
		assert_int_equal(result.bytes_cached, PIECE - i);
	}
	assert_int_equal(memory[3], 0);
	look_and_go_on();
	for (i = 0; i < 100; i++) {
		assert_memory_equal(seen + i * PIECE + 3,
				    content + i * PIECE + 5, PIECE - i);
		assert_int_equal(seen[(i + 1) * PIECE + 3 - i - (i == 0)],
				 i ? 77 : content[PIECE + 4]);
	}
	close(fd);
}

static void the_end_of_the_file(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	assert_int_equal(read_in_stream(fd, PIECE, LEN - 100, 0, 0), 100);
	assert_int_equal(read_in_stream(fd, PIECE, LEN, 0, 0), 0);
	look_and_go_on();
	assert_memory_equal(seen, content + LEN - 100, 100);
	assert_int_equal(seen[100], 0);
	close(fd);
}

static void *read_many(void *arg)
{
	size_t i;

	for (i = 0; i < NR; i++)
		if (read_in_stream(*(int *)arg, PIECE, i * PIECE, i * PIECE,
				   0) != (ssize_t)PIECE)
			return (void *)1;
	return NULL;
}

/* What has not been copied is not written over, however far behind the GPU is. */
static void more_than_fits(void **state)
{
	int fd = open_file(O_RDONLY);
	pthread_t thread;
	void *failed;

	(void)state;
	hold_stream();
	assert_int_equal(pthread_create(&thread, NULL, read_many, &fd), 0);
	usleep(100000);
	atomic_store(&gate, 0);
	pthread_join(thread, &failed);
	assert_null(failed);
	look_and_go_on();
	assert_memory_equal(seen, content, NR * PIECE);
	close(fd);
}

/* ... which waits for the stream, since another thread lets it go on. */
static void await_stream(ssize_t (*move)(int fd), int fd, ssize_t expected)
{
	pthread_t thread;

	hold_stream();
	launch(scribble, (void *)(intptr_t)77);
	assert_int_equal(pthread_create(&thread, NULL, open_gate_later, NULL),
			 0);
	assert_int_equal(move(fd), expected);
	assert_int_equal(atomic_load(&gate), 0);
	pthread_join(thread, NULL);
}

static ssize_t read_large(int fd)
{
	return read_in_stream(fd, MIB, 0, 0, 0);
}

static ssize_t read_staged(int fd)
{
	return read_in_stream(fd, PIECE, 0, 0, PEERDMA_PATH_STAGED);
}

static ssize_t read_small(int fd)
{
	return read_in_stream(fd, PIECE, 0, 0, 0);
}

static ssize_t read_parts(int fd)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM,
		.stream = where);
	struct peerdma_io_vec vecs[] = {
		{ .len = PIECE }, { PIECE, PIECE, PIECE, 0 },
	};

	return peerdma_readv(buf, fd, vecs, 2, &opts, &result);
}

/* Whatever is not put into it: what the stream does before is not undone by it. */
static void the_rest_waits_for_it(void **state)
{
	int fd = open_file(O_RDONLY), unbuffered = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	await_stream(read_large, fd, MIB);
	assert_memory_equal(memory, content, MIB);
	assert_int_equal(memory[MIB], 77);
	await_stream(read_staged, fd, PIECE);
	assert_memory_equal(memory, content, PIECE);
	await_stream(read_small, unbuffered, PIECE);
	assert_memory_equal(memory, content, PIECE);
	/* Once more, as the one before it went. */
	assert_int_equal(peerdma_read(buf, unbuffered, PIECE, 0, 0), PIECE);
	await_stream(read_small, unbuffered, PIECE);
	assert_memory_equal(memory, content, PIECE);
	assert_int_equal(result.bytes_direct, PIECE);
	await_stream(read_parts, fd, 2 * PIECE);
	assert_memory_equal(memory, content, 2 * PIECE);
	/* Where the drive may reach the buffer, nothing is read ahead. */
	fake_kernel.resident = false;
	fake_kernel.nr_peeks = 0;
	await_stream(read_small, fd, PIECE);
	assert_memory_equal(memory, content, PIECE);
	assert_int_equal(fake_kernel.nr_peeks, 0);
	assert_int_equal(memory[PIECE], 77);
	close(unbuffered);
	close(fd);
}

static ssize_t write_small(int fd)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM,
		.stream = where);

	return peerdma_write_opts(buf, fd, PIECE, 0, 0, &opts, &result);
}

static void writes_wait_for_it(void **state)
{
	char name[] = "/var/tmp/peerdma-XXXXXX";
	unsigned char back[PIECE], want[PIECE];
	int fd = mkstemp(name);

	(void)state;
	unlink(name);
	assert_int_equal(write(fd, content, PIECE), PIECE);
	await_stream(write_small, fd, PIECE);
	assert_int_equal(pread(fd, back, PIECE, 0), PIECE);
	memset(want, 77, PIECE);
	assert_memory_equal(back, want, PIECE);
	close(fd);
}

/* A driver without batches, or one that refuses: it is waited for instead. */
static void without_batches(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_cuda.fail_batch = 1;
	await_stream(read_small, fd, PIECE);
	assert_memory_equal(memory, content, PIECE);
	close(fd);
}

static void nothing_is_recorded(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_cuda.stream_captures = true;
	assert_int_equal(read_in_stream(fd, PIECE, 0, 0, 0), -EBUSY);
	assert_int_equal(result.error, -EBUSY);
	assert_int_equal(read_in_stream(fd, MIB, 0, 0, 0), -EBUSY);
	assert_int_equal(read_parts(fd), -EBUSY);
	assert_int_equal(fake_cuda.copies, 0);
	close(fd);
}

static void a_copy_that_fails(void **state)
{
	int fd = open_file(O_RDONLY);

	fake_cuda.failing_copies = 1;
	/* A batch that is refused is waited for instead. */
	assert_int_equal(read_in_stream(fd, PIECE, 0, 0, 0),
			 *state ? (ssize_t)PIECE : -ENOMEM);
	assert_int_equal(read_in_stream(fd, PIECE, 0, 0, 0), PIECE);
	look_and_go_on();
	assert_memory_equal(seen, content, PIECE);
	close(fd);
}

static void wrong_options(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .stream = &opts);
	struct peerdma_buffer *host;
	char bytes[16];
	int fd = open_file(O_RDONLY);

	(void)state;
	assert_int_equal(peerdma_read_opts(buf, fd, 16, 0, 0, &opts, NULL),
			 -EINVAL);
	assert_int_equal(peerdma_buffer_host(ctx, bytes, 16, NULL, &host), 0);
	opts.flags = PEERDMA_IO_STREAM;
	assert_int_equal(peerdma_read_opts(host, fd, 16, 0, 0, &opts, NULL),
			 -EINVAL);
	opts.flags |= PEERDMA_IO_WRITE;
	assert_int_equal(peerdma_read_opts(buf, fd, 16, 0, 0, &opts, NULL),
			 -EOPNOTSUPP);
	peerdma_buffer_close(host);
	close(fd);
}

/* What the copies come from is there as long as they need it. */
static void closed_meanwhile(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	int fd = open_file(O_RDONLY);
	struct peerdma_buffer *first = buf;
	struct peerdma *other;
	pthread_t thread;

	(void)state;
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	assert_int_equal(peerdma_open(&other, NULL), 0);
	assert_int_equal(peerdma_buffer_pin(other, info.device_addr, MIB, &opts,
					    &buf), 0);
	hold_stream();
	assert_int_equal(read_in_stream(fd, PIECE, 0, 0, 0), PIECE);
	assert_int_equal(pthread_create(&thread, NULL, open_gate_later, NULL),
			 0);
	peerdma_buffer_close(buf);
	peerdma_close(other);
	buf = first;
	pthread_join(thread, NULL);
	look_and_go_on();
	assert_memory_equal(seen, content, PIECE);
	close(fd);
}

#define BY_NAME(test)	\
	{ #test ", by NULL", test, set_up_stream, tear_down_stream, NULL }, \
	{ #test ", by handle", test, set_up_stream, tear_down_stream, &gate }

int main(void)
{
	const struct CMUnitTest tests[] = {
		BY_NAME(small_reads_go_into_it),
		BY_NAME(the_end_of_the_file),
		BY_NAME(more_than_fits),
		BY_NAME(the_rest_waits_for_it),
		BY_NAME(writes_wait_for_it),
		{ "without_batches", without_batches, set_up_stream,
		  tear_down_stream, &gate },
		BY_NAME(nothing_is_recorded),
		BY_NAME(a_copy_that_fails),
		BY_NAME(wrong_options),
		BY_NAME(closed_meanwhile),
	};

	/* What hangs is red, too. */
	alarm(300);
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
