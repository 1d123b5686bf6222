// SPDX-License-Identifier: MIT
/* Staged transfers of an unbuffered file, whose drive's side is an io_uring. */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "io_fixture.h"

static struct peerdma_io_result result = { .size = sizeof(result) };

/* What fails is done again, so that it would not show otherwise. */
static int end(void **state)
{
	return tear_down(state) || fake_kernel.nr_failed;
}

static ssize_t read_at(int fd, size_t len, uint64_t offset)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_STAGED);

	memset(memory, 0, LEN);
	return peerdma_read_opts(buf, fd, len, offset, 0, &opts, &result);
}

static ssize_t write_at(int fd, size_t len, uint64_t offset)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_STAGED);

	return peerdma_write_opts(buf, fd, len, offset, 0, &opts, &result);
}

static void read_all(int fd)
{
	assert_int_equal(read_at(fd, LEN, 0), LEN);
	assert_int_equal(result.bytes_staged, LEN);
	assert_int_equal(result.error, 0);
	assert_memory_equal(memory, content, LEN);
}

/* A file of its own, of @len bytes of value 1. */
static int make_other(size_t len)
{
	char name[] = "/var/tmp/peerdma-XXXXXX";
	char *bytes = malloc(len);
	int fd = mkstemp(name), direct;

	if (!bytes)
		abort();
	memset(bytes, 1, len);
	assert_int_equal(pwrite(fd, bytes, len, 0), len);
	direct = open(name, O_RDWR | O_DIRECT);
	assert_true(direct >= 0);
	unlink(name);
	close(fd);
	free(bytes);
	return direct;
}

/* The file is @nr times 1, @len bytes of the buffer, then 1 up to its end. */
static void expect_written(int fd, size_t nr, size_t len)
{
	size_t room = LEN + MIB, i;
	unsigned char *back = aligned_alloc(4096, room / 4096 * 4096);
	ssize_t size = pread(fd, back, room / 4096 * 4096, 0);

	assert_true(size >= (ssize_t)(nr + len));
	for (i = 0; i < nr; i++)
		assert_int_equal(back[i], 1);
	assert_memory_equal(back + nr, memory, len);
	for (i = nr + len; i < (size_t)size; i++)
		assert_int_equal(back[i], 1);
	free(back);
}

static void write_all(void)
{
	int fd = make_other(LEN);

	memcpy(memory, content, LEN);
	assert_int_equal(write_at(fd, LEN, 0), LEN);
	assert_int_equal(result.bytes_staged, LEN);
	expect_written(fd, 0, LEN);
	close(fd);
}

static void bounces_are_registered_once(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT), before, i;

	(void)state;
	read_all(fd);
	assert_true(fake_kernel.nr_requests >= 15);
	assert_int_equal(fake_kernel.nr_fixed, fake_kernel.nr_requests);
	before = fake_kernel.nr_requests;
	write_all();
	/* All but the last piece, whose last block is not whole. */
	assert_true(fake_kernel.nr_requests - before >= 14);
	assert_int_equal(fake_kernel.nr_fixed, fake_kernel.nr_requests);
	/* A second time the kernel would refuse. */
	fake_kernel.register_errno = ENOMEM;
	for (i = 0; i < 3; i++)
		read_all(fd);
	assert_int_equal(fake_kernel.nr_fixed, fake_kernel.nr_requests);
	assert_int_equal(fake_kernel.nr_setups, 1);
	close(fd);
}

static void small_ones_are_a_system_call(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	assert_int_equal(read_at(fd, 4096, 8192), 4096);
	assert_memory_equal(memory, content + 8192, 4096);
	assert_int_equal(fake_kernel.nr_setups, 0);
	close(fd);
}

#define KIB	((size_t)1 << 10)

/* Up to 256 KiB with their blocks, wherever they begin. */
static void small_ones_are_one_copy(void **state)
{
	static const struct {
		size_t offset;
		size_t len;
		bool one;
	} cases[] = {
		{ 0, 65 * KIB, true }, { 1000, 128 * KIB, true },
		{ 4096, 256 * KIB, true }, { 3, 256 * KIB, false },
	};
	int fd = open_file(O_RDONLY | O_DIRECT), other;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t offset = cases[i].offset, len = cases[i].len;

		fake_cuda.copies = 0;
		fake_kernel.nr_preads = 0;
		assert_int_equal(read_at(fd, len, offset), len);
		assert_int_equal(result.bytes_staged, len);
		assert_memory_equal(memory, content + offset, len);
		assert_int_equal(memory[len], 0);
		if (cases[i].one) {
			assert_int_equal(fake_cuda.copies, 1);
			assert_int_equal(fake_kernel.nr_preads, 1);
			assert_int_equal(fake_kernel.nr_setups, 0);
		}
		other = make_other(MIB);
		memcpy(memory, content, len);
		assert_int_equal(write_at(other, len, offset), len);
		assert_int_equal(result.bytes_staged, len);
		expect_written(other, offset, len);
		close(other);
	}
	fake_kernel.rw_errno = EIO;
	assert_int_equal(read_at(fd, 128 * KIB, 0), -EIO);
	assert_int_equal(result.bytes_staged, 0);
	fake_kernel.rw_errno = 0;
	assert_int_equal(read_at(fd, 128 * KIB, LEN - 1000), 1000);
	assert_memory_equal(memory, content + LEN - 1000, 1000);
	close(fd);
}

static void io_uring_is_forbidden(void **state)
{
	static const int errnos[] = { EPERM, ENOSYS, EACCES, ENOMEM, EMFILE };
	int fd = open_file(O_RDONLY | O_DIRECT);
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++) {
		assert_int_equal(end(NULL), 0);
		assert_int_equal(set_up(NULL), 0);
		fake_kernel.uring_errno = errnos[i];
		read_all(fd);
		write_all();
		assert_int_equal(fake_kernel.nr_requests, 0);
		/* A limit may be lifted, what is forbidden stays so. */
		assert_int_equal(fake_kernel.nr_setups, i < 3 ? 1 : 2);
	}
	close(fd);
}

/* As when the program sandboxes itself after the first transfers. */
static void it_is_forbidden_later(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT), i;

	(void)state;
	for (i = 0; i < 12; i++) {
		assert_int_equal(end(NULL), 0);
		assert_int_equal(set_up(NULL), 0);
		fake_kernel.enter_errno = EPERM;
		fake_kernel.enter_skip = i;
		read_all(fd);
		read_all(fd);
		write_all();
		assert_true(fake_kernel.nr_setups == 1);
		assert_int_equal(end(NULL), 0);
		assert_int_equal(set_up(NULL), 0);
		fake_kernel.enter_errno = EPERM;
		fake_kernel.enter_skip = i;
		write_all();
		read_all(fd);
	}
	close(fd);
}

static void registering_is_refused(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT), i;

	(void)state;
	fake_kernel.table_errno = EINVAL;
	read_all(fd);
	write_all();
	assert_true(fake_kernel.nr_requests > 15);
	assert_int_equal(fake_kernel.nr_fixed, 0);
	for (i = 0; i < 4; i++) {
		assert_int_equal(end(NULL), 0);
		assert_int_equal(set_up(NULL), 0);
		fake_kernel.register_errno = ENOMEM;
		fake_kernel.register_skip = i;
		read_all(fd);
		write_all();
		assert_true(fake_kernel.nr_requests > 15);
		assert_true(fake_kernel.nr_fixed < fake_kernel.nr_requests);
		assert_true(!i == !fake_kernel.nr_fixed);
	}
	close(fd);
}

/* Those a fork(2) could move. */
static void pageable_bounces_are_not_registered(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_cuda.fail_alloc_host = 1;
	read_all(fd);
	assert_true(fake_kernel.nr_requests >= 15);
	assert_int_equal(fake_kernel.nr_fixed, 0);
	close(fd);
}

static void failures_count_exactly(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.rw_errno = EIO;
	fake_kernel.rw_offset = 10 * MIB;
	assert_int_equal(read_at(fd, LEN, 0), 10 * MIB);
	assert_int_equal(result.error, -EIO);
	assert_int_equal(result.bytes_staged, 10 * MIB);
	assert_memory_equal(memory, content, 10 * MIB);
	assert_int_equal(memory[10 * MIB], 0);
	fake_kernel.rw_offset = 0;
	assert_int_equal(read_at(fd, LEN, 0), -EIO);
	close(fd);
	fake_kernel.rw_errno = 0;
	fd = make_other(LEN);
	memcpy(memory, content, LEN);
	fake_kernel.rw_errno = ENOSPC;
	fake_kernel.rw_offset = 6 * MIB;
	assert_int_equal(write_at(fd, LEN, 0), 6 * MIB);
	assert_int_equal(result.error, -ENOSPC);
	fake_kernel.rw_errno = 0;
	expect_written(fd, 0, 6 * MIB);
	close(fd);
}

/* The kernel may move less than it was asked for, and come back for the rest. */
static void what_is_cut_short_is_done_again(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.uring_limit = 12288;
	read_all(fd);
	write_all();
	close(fd);
}

static void files_end_where_they_end(void **state)
{
	static const size_t ends[] = {
		10 * MIB, 10 * MIB + 4096, 10 * MIB + 1, 9 * MIB - 100, 100,
	};
	size_t i;
	int fd;

	(void)state;
	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		fd = make_other(ends[i]);
		assert_int_equal(read_at(fd, LEN, 0), ends[i]);
		assert_int_equal(memory[0], 1);
		assert_memory_equal(memory, memory + 1, ends[i] - 1);
		assert_int_equal(memory[ends[i]], 0);
		assert_int_equal(result.error, 0);
		close(fd);
	}
}

static void askew(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	assert_int_equal(read_at(fd, 20 * MIB + 77, 3 * MIB + 777),
			 20 * MIB + 77);
	assert_memory_equal(memory, content + 3 * MIB + 777, 20 * MIB + 77);
	assert_int_equal(memory[20 * MIB + 77], 0);
	close(fd);
	fd = make_other(LEN);
	memcpy(memory, content, LEN);
	assert_int_equal(write_at(fd, 20 * MIB + 77, 3 * MIB + 777),
			 20 * MIB + 77);
	expect_written(fd, 3 * MIB + 777, 20 * MIB + 77);
	close(fd);
}

static int stop_at(void *arg, uint64_t done, uint64_t len)
{
	(void)len;
	return done >= *(uint64_t *)arg;
}

/* Nothing of it is under way when it returns. */
static void it_can_be_cancelled(void **state)
{
	uint64_t at = 5 * MIB;
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_STAGED,
		.progress = stop_at, .arg = &at);
	int fd = open_file(O_RDONLY | O_DIRECT);
	ssize_t n;

	(void)state;
	memset(memory, 0, LEN);
	n = peerdma_read_opts(buf, fd, LEN, 0, 0, &opts, &result);
	assert_true(n >= (ssize_t)at && n < (ssize_t)LEN);
	assert_int_equal(result.error, -ECANCELED);
	assert_memory_equal(memory, content, n);
	read_all(fd);
	close(fd);
	fd = make_other(LEN);
	memcpy(memory, content, LEN);
	n = peerdma_write_opts(buf, fd, LEN, 0, 0, &opts, &result);
	assert_true(n >= (ssize_t)at && n < (ssize_t)LEN);
	assert_int_equal(result.error, -ECANCELED);
	assert_int_equal(write_at(fd, LEN, 0), LEN);
	expect_written(fd, 0, LEN);
	close(fd);
}

/* A child has the rings, and must not use them. */
static void a_child_does_without(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT), before, status;
	struct peerdma_buffer *host;
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_STAGED);
	char *bytes = aligned_alloc(4096, 31 * MIB);
	pid_t pid;

	(void)state;
	if (!bytes)
		abort();
	assert_int_equal(peerdma_buffer_host(ctx, bytes, LEN, NULL, &host), 0);
	assert_int_equal(peerdma_read_opts(host, fd, LEN, 0, 0, &opts, NULL),
			 LEN);
	before = fake_kernel.nr_requests;
	assert_true(before > 0);
	memset(bytes, 0, LEN);
	pid = fork();
	if (!pid) {
		status = peerdma_read_opts(host, fd, LEN, 0, 0, &opts, NULL) !=
				 (ssize_t)LEN ||
			 memcmp(bytes, content, LEN) ||
			 fake_kernel.nr_requests != before;
		_exit(status);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	read_all(fd);
	peerdma_buffer_close(host);
	free(bytes);
	close(fd);
}

#define RING_TEST(name)	cmocka_unit_test_setup_teardown(name, set_up, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RING_TEST(bounces_are_registered_once),
		RING_TEST(small_ones_are_a_system_call),
		RING_TEST(small_ones_are_one_copy),
		RING_TEST(io_uring_is_forbidden),
		RING_TEST(it_is_forbidden_later),
		RING_TEST(registering_is_refused),
		RING_TEST(pageable_bounces_are_not_registered),
		RING_TEST(failures_count_exactly),
		RING_TEST(what_is_cut_short_is_done_again),
		RING_TEST(files_end_where_they_end),
		RING_TEST(askew),
		RING_TEST(it_can_be_cancelled),
		RING_TEST(a_child_does_without),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
