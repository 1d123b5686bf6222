// SPDX-License-Identifier: MIT
/* What is read again stays pinned, and what becomes of it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"

#define MIB	((size_t)1 << 20)
#define PAGE	((size_t)4096)
#define CHUNK	(32 * MIB)
/* A chunk and the odd part of another. */
#define LEN	(CHUNK + 3 * MIB + 1000)
/* A file system that others may write to. */
#define NFS	0x6969
/* Milliseconds to wait for what another thread does; then it will not come. */
#define PATIENCE	20000

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static unsigned char *memory, *content;
static char path[] = "/var/tmp/peerdma-XXXXXX";
static struct peerdma_io_result result;
static int fd;

static int open_context(uint64_t keep)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = keep);
	PEERDMA_SIZED(peerdma_buffer_info, info);

	if (peerdma_open(&ctx, &opts) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_buffer_info(buf, &info))
		return -1;
	memory = fake_cuda_memory(info.device_addr);
	return 0;
}

static void close_context(void)
{
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
}

static int set_up(void **state)
{
	size_t i;

	(void)state;
	fake_kernel_reset();
	fake_kernel.resident = true;
	fake_kernel.fs_type = EXT4_SUPER_MAGIC;
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	content = malloc(LEN);
	if (!content)
		return -1;
	for (i = 0; i < LEN; i++)
		content[i] = i * 2654435761u >> 11;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	result.size = sizeof(result);
	if (pwrite(fd, content, LEN, 0) != (ssize_t)LEN)
		return -1;
	return open_context(0);
}

static int tear_down(void **state)
{
	(void)state;
	free(content);
	close_context();
	close(fd);
	unlink(path);
	return fake_cuda_leaks();
}

/* A piece, as the file has it. Return: how much of it came without the CPU. */
static uint64_t read_piece(uint64_t offset, size_t len)
{
	memset(memory + offset, 0, len);
	assert_int_equal(peerdma_read_opts(buf, fd, len, offset, offset, NULL,
					   &result), len);
	assert_memory_equal(memory + offset, content + offset, len);
	assert_int_equal(result.error, 0);
	assert_int_equal(result.reason, 0);
	assert_int_equal(result.bytes_cached + result.bytes_registered, len);
	return result.bytes_registered;
}

/* Read again until so much of it is kept. */
static bool becomes(uint64_t kept)
{
	int i;

	for (i = 0; i < PATIENCE / 100; i++) {
		if (read_piece(0, LEN) == kept)
			return true;
		usleep(1000);
	}
	return false;
}

static void what_is_read_again_is_kept(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);

	(void)state;
	assert_int_equal(read_piece(0, LEN), 0);
	assert_int_equal(fake_cuda.registrations, 0);
	assert_true(becomes(LEN));
	assert_int_equal(fake_cuda.registrations, 2);
	assert_int_equal(read_piece(CHUNK - 5 * MIB, 7 * MIB), 7 * MIB);
	assert_int_equal(read_piece(MIB + 11, CHUNK), CHUNK);
	/* Little goes another way, as from any region. */
	assert_int_equal(read_piece(0, 60000), 0);
	assert_int_equal(read_piece(CHUNK - 100000, 100000 + 5000), 100000);
	assert_int_equal(peerdma_read(buf, fd, 100, LEN - 10, 0), 10);
	assert_int_equal(peerdma_read(buf, fd, 100, LEN, 0), 0);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_true(stats.registered.bytes_read >= LEN + 7 * MIB);
}

/* Chunks that were read before come along with the one that is read again. */
static void what_follows_comes_too(void **state)
{
	int i;

	(void)state;
	assert_int_equal(read_piece(0, LEN), 0);
	read_piece(0, MIB);
	for (i = 0; i < PATIENCE && fake_cuda.registrations < 2; i++)
		usleep(1000);
	assert_int_equal(fake_cuda.registrations, 2);
}

static void another_descriptor_will_do(void **state)
{
	(void)state;
	assert_true(becomes(LEN));
	close(fd);
	fd = open(path, O_RDWR);
	assert_int_equal(read_piece(0, LEN), LEN);
}

static void not_unless_wanted(void **state)
{
	int i;

	(void)state;
	close_context();
	assert_int_equal(open_context(PEERDMA_KEEP_NONE), 0);
	for (i = 0; i < 5; i++)
		assert_int_equal(read_piece(0, LEN), 0);
	assert_int_equal(fake_cuda.registrations, 0);
}

static void no_more_than_allowed(void **state)
{
	uint64_t rest = LEN - CHUNK;
	int i;

	(void)state;
	close_context();
	assert_int_equal(open_context(4 * MIB), 0);
	assert_true(becomes(rest));
	for (i = 0; i < 3; i++)
		assert_int_equal(read_piece(0, LEN), rest);
	assert_int_equal(fake_cuda.registrations, 1);
}

static void not_where_others_write(void **state)
{
	int i;

	(void)state;
	fake_kernel.fs_type = NFS;
	for (i = 0; i < 4; i++)
		assert_int_equal(read_piece(0, LEN), 0);
	assert_int_equal(fake_cuda.registrations, 0);
}

/* The kernel refuses that as long as its pages are pinned. */
static void what_may_be_sealed_can_be(void **state)
{
	int file = fd, i;

	(void)state;
	fake_kernel.fs_type = TMPFS_MAGIC;
	fd = memfd_create("peerdma", MFD_ALLOW_SEALING);
	assert_int_equal(pwrite(fd, content, LEN, 0), LEN);
	for (i = 0; i < 4; i++)
		assert_int_equal(read_piece(0, LEN), 0);
	assert_int_equal(fake_cuda.registrations, 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	close(fd);
	/* Any other memory file is like any file. */
	fd = memfd_create("peerdma", 0);
	assert_int_equal(pwrite(fd, content, LEN, 0), LEN);
	assert_true(becomes(LEN));
	close(fd);
	fd = file;
}

static void what_cannot_be_pinned_is_read_as_ever(void **state)
{
	int i;

	(void)state;
	fake_cuda.fail_register = 1;
	for (i = 0; i < 20; i++) {
		assert_int_equal(read_piece(0, LEN), 0);
		usleep(1000);
	}
	fake_cuda.fail_register = 0;
	assert_int_equal(fake_cuda.registrations, 0);
}

static void writers_are_seen(void **state)
{
	(void)state;
	assert_true(becomes(LEN));
	memset(content + 7 * MIB, 0x5a, MIB);
	assert_int_equal(pwrite(fd, content + 7 * MIB, MIB, 7 * MIB), MIB);
	assert_int_equal(read_piece(0, LEN), LEN);
}

/* The chunk that lost pages goes by itself, and comes back. */
static void what_is_replaced_is_noticed(void **state)
{
	(void)state;
	assert_true(becomes(LEN));
	assert_int_equal(ftruncate(fd, CHUNK + MIB), 0);
	memset(content + CHUNK + MIB, 0x22, LEN - CHUNK - MIB);
	assert_int_equal(pwrite(fd, content + CHUNK + MIB, LEN - CHUNK - MIB,
				CHUNK + MIB), LEN - CHUNK - MIB);
	assert_int_equal(read_piece(0, LEN), CHUNK);
	assert_true(becomes(LEN));
	memset(content + CHUNK + 2 * MIB, 0x11, PAGE);
	assert_int_equal(pwrite(fd, content + CHUNK + 2 * MIB, PAGE,
				CHUNK + 2 * MIB), PAGE);
	assert_int_equal(read_piece(0, LEN), LEN);
}

static void the_end_of_a_shorter_file(void **state)
{
	(void)state;
	assert_true(becomes(LEN));
	assert_int_equal(ftruncate(fd, 20 * MIB + 5), 0);
	assert_int_equal(peerdma_read(buf, fd, LEN, 0, 0), 20 * MIB + 5);
	assert_memory_equal(memory, content, 20 * MIB + 5);
	assert_int_equal(peerdma_read(buf, fd, LEN, CHUNK, 0), 0);
}

static void a_longer_file(void **state)
{
	(void)state;
	assert_true(becomes(LEN));
	assert_int_equal(pwrite(fd, "more", 4, LEN), 4);
	assert_int_equal(peerdma_read(buf, fd, LEN, MIB, 0), LEN - MIB + 4);
	assert_memory_equal(memory, content + MIB, LEN - MIB);
	assert_memory_equal(memory + LEN - MIB, "more", 4);
}

static void what_nobody_reads_is_let_go(void **state)
{
	int i;

	(void)state;
	assert_true(becomes(LEN));
	atomic_store(&fake_kernel.clock_ahead, 11);
	for (i = 0; i < PATIENCE && fake_cuda.registrations; i++)
		usleep(1000);
	assert_int_equal(fake_cuda.registrations, 0);
	assert_int_equal(read_piece(0, LEN), 0);
}

/* What is too small to come out of it is no use of it either. */
static void what_is_read_in_small_pieces_is_let_go(void **state)
{
	int i;

	(void)state;
	assert_true(becomes(LEN));
	atomic_store(&fake_kernel.clock_ahead, 11);
	for (i = 0; i < PATIENCE && fake_cuda.registrations; i++) {
		assert_int_equal(read_piece(0, PAGE), 0);
		assert_int_equal(read_piece(CHUNK, PAGE), 0);
		usleep(1000);
	}
	assert_int_equal(fake_cuda.registrations, 0);
}

/* The context ends while its thread has work. */
static void ended_at_once(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 10; i++) {
		read_piece(0, LEN);
		read_piece(0, LEN);
		close_context();
		assert_int_equal(fake_cuda.registrations, 0);
		assert_int_equal(open_context(0), 0);
	}
}

static void a_child_ends_nothing(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	assert_true(becomes(LEN));
	pid = fork();
	if (!pid) {
		close_context();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read_piece(0, LEN), LEN);
}

static atomic_bool enough;

static void *read_on(void *arg)
{
	while (!atomic_load(&enough))
		if (peerdma_read(buf, fd, CHUNK, 0, 0) < 0)
			return "read";
	return arg;
}

static void *read_some(void *arg)
{
	while (!atomic_load(&enough))
		if (peerdma_read(buf, fd, 3 * MIB, MIB, CHUNK) < 0)
			return "read";
	return arg;
}

/* Not by ftruncate(): the fake CUDA reads by the CPU, which would be a SIGBUS. */
static void *cut_out(void *arg)
{
	const char *wrong = NULL;
	int i;

	for (i = 0; !wrong && i < 30; i++) {
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      i * PAGE, CHUNK / 2) ||
		    pwrite(fd, content, CHUNK, 0) != (ssize_t)CHUNK)
			wrong = "write";
		usleep(3000);
	}
	atomic_store(&enough, true);
	return wrong ? (void *)wrong : arg;
}

static void readers_while_it_comes_and_goes(void **state)
{
	void *(*work[])(void *) = { read_on, read_some, cut_out };
	pthread_t threads[3];
	void *wrong;
	int i;

	(void)state;
	atomic_store(&enough, false);
	for (i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, work[i], NULL);
	for (i = 0; i < 3; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	assert_int_equal(peerdma_read(buf, fd, CHUNK, 0, 0), CHUNK);
	assert_memory_equal(memory, content, CHUNK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(what_is_read_again_is_kept),
		TEST(what_follows_comes_too),
		TEST(another_descriptor_will_do),
		TEST(not_unless_wanted),
		TEST(no_more_than_allowed),
		TEST(not_where_others_write),
		TEST(what_may_be_sealed_can_be),
		TEST(what_cannot_be_pinned_is_read_as_ever),
		TEST(writers_are_seen),
		TEST(what_is_replaced_is_noticed),
		TEST(the_end_of_a_shorter_file),
		TEST(a_longer_file),
		TEST(what_nobody_reads_is_let_go),
		TEST(what_is_read_in_small_pieces_is_let_go),
		TEST(ended_at_once),
		TEST(a_child_ends_nothing),
		TEST(readers_while_it_comes_and_goes),
#undef TEST
	};

	if (mkstemp(path) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
