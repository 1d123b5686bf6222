// SPDX-License-Identifier: MIT
/*
 * Small requests by one descriptor, of which the library looks at the file only
 * once, and what may become of the file in between.
 */
#include <errno.h>
#include <string.h>

#include "one_transfer.h"

#define PIECE	((size_t)64 << 10)

/* Bytes of it that are at the start of the buffer. */
static void expect_bytes(const unsigned char *bytes, size_t len)
{
	assert_memory_equal(memory, bytes, len);
	memset(memory, 0, LEN);
}

/* A file of the content's bytes from @from on, which only its descriptor keeps. */
static int open_other(size_t from, size_t len)
{
	char name[] = "/var/tmp/peerdma-other-XXXXXX";
	int fd = mkstemp(name), direct;

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, content + from, len, 0), len);
	direct = open(name, O_RDWR | O_DIRECT);
	assert_true(direct >= 0);
	unlink(name);
	close(fd);
	return direct;
}

static void a_file_is_looked_at_once(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);
	size_t at;

	(void)state;
	memset(memory, 0, LEN);
	for (at = 0; at < 10 * PIECE; at += PIECE) {
		assert_int_equal(peerdma_read_opts(buf, fd, PIECE, at, at, NULL,
						   &result), PIECE);
		expect(PIECE, 0, 0, 0);
	}
	expect_bytes(content, 10 * PIECE);
	assert_int_equal(fake_kernel.nr_fstats, 1);
	assert_int_equal(fake_kernel.nr_file_io, 10);
	close(fd);
}

static void writes_too(void **state)
{
	int fd = open_other(0, PIECE);
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		memcpy(memory, content + i * PIECE, PIECE);
		assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
		expect(PIECE, 0, 0, 0);
		assert_int_equal(pread(fd, memory, PIECE, 0), PIECE);
		expect_bytes(content + i * PIECE, PIECE);
	}
	assert_int_equal(fake_kernel.nr_fstats, 1);
	close(fd);
}

static void what_is_counted(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	assert_int_equal(read_by(PEERDMA_PATH_DIRECT, fd, PIECE), PIECE);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.direct.requests, 2);
	assert_int_equal(stats.direct.bytes_read, 2 * PIECE);
	close(fd);
}

static void what_is_asked_for(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, PIECE), PIECE);
	expect(0, PIECE, PEERDMA_REASON_FORCED, 0);
	assert_int_equal(fake_kernel.nr_file_io, 1);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 1000), 1000);
	expect(512, 488, PEERDMA_REASON_MISALIGNED, 0);
	assert_int_equal(fake_kernel.nr_file_io, 2);
	expect_bytes(content, PIECE);
	assert_int_equal(peerdma_read_opts(buf, fd, PIECE, 0, 2, NULL, &result),
			 PIECE);
	expect(0, PIECE, PEERDMA_REASON_MISALIGNED, 0);
	assert_int_equal(fake_kernel.nr_file_io, 2);
	assert_int_equal(peerdma_read(buf, fd, PIECE, 0, LEN), -ERANGE);
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, PIECE), -EBADF);
	close(fd);
}

static void another_file_has_the_number(void **state)
{
	int fd = open_file(O_RDWR | O_DIRECT), other;

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect_bytes(content, PIECE);
	other = open_other(MIB, 2 * PIECE);
	assert_int_equal(peerdma_read(buf, other, PIECE, 0, 0), PIECE);
	expect_bytes(content + MIB, PIECE);
	assert_int_equal(fake_kernel.nr_fstats, 2);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect_bytes(content, PIECE);
	assert_int_equal(dup2(other, fd), fd);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect_bytes(content + MIB, PIECE);
	close(other);
	other = open_other(2 * MIB, 1000);
	assert_int_equal(dup2(other, fd), fd);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), 1000);
	expect_bytes(content + 2 * MIB, 1000);
	close(other);
	close(fd);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), -EBADF);
}

static void a_file_shrinks_and_grows(void **state)
{
	int fd = open_other(0, 4 * PIECE);

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	assert_int_equal(ftruncate(fd, 1000), 0);
	memset(memory, 0xaa, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), 1000);
	assert_int_equal(result.error, 0);
	assert_int_equal(memory[1024], 0xaa);
	expect_bytes(content, 1000);
	close(fd);
	fd = open_other(MIB, PIECE);
	fake_kernel.nr_fstats = 0;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	assert_int_equal(pwrite(fd, content, PIECE, PIECE), PIECE);
	assert_int_equal(fcntl(fd, F_SETFL, O_DIRECT), 0);
	assert_int_equal(peerdma_read(buf, fd, PIECE, PIECE, 0), PIECE);
	expect_bytes(content, PIECE);
	assert_int_equal(fake_kernel.nr_fstats, 2);
	assert_int_equal(peerdma_read(buf, fd, PIECE, 2 * PIECE, 0), 0);
	close(fd);
}

static void its_flags_change(void **state)
{
	int fd = open_other(0, PIECE);

	(void)state;
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect(PIECE, 0, 0, 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_DIRECT | O_APPEND), 0);
	assert_int_equal(write_by(PEERDMA_PATH_AUTO, fd, PIECE), -EINVAL);
	assert_int_equal(fcntl(fd, F_SETFL, O_DIRECT), 0);
	assert_int_equal(fake_kernel.nr_fstats, 1);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect(PIECE, 0, 0, 0);
	assert_int_equal(fake_kernel.nr_fstats, 2);
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	fake_kernel.resident = true;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	assert_int_equal(result.bytes_cached, PIECE);
	close(fd);
}

/* Which bytes came with the error is found out as if for the first time. */
static void an_error(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4 * PIECE), 4 * PIECE);
	fake_kernel.io_limit = PIECE;
	fake_kernel.io_bad_at = 2 * PIECE + 512;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4 * PIECE), -EIO);
	expect(0, 0, 0, -EIO);
	fake_kernel.io_bad_at = 0;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4 * PIECE), 4 * PIECE);
	fake_kernel.io_errno = EIO;
	fake_kernel.io_skip = 2;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4 * PIECE), -EIO);
	expect(0, 0, 0, -EIO);
	fake_kernel.io_skip = 2;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4 * PIECE), 2 * PIECE);
	expect(2 * PIECE, 0, 0, -EIO);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.errors, 3);
	assert_int_equal(stats.direct.bytes_read, 10 * PIECE);
	close(fd);
}

static void a_refusal(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT), tried;

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	fake_kernel.io_errno = EMEDIUMTYPE;
	fake_kernel.io_reason = PEERDMA_REASON_NO_DIRECT_IO;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect(0, PIECE, PEERDMA_REASON_NO_DIRECT_IO, 0);
	tried = fake_kernel.nr_file_io;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, PIECE), PIECE);
	expect(0, PIECE, PEERDMA_REASON_NO_DIRECT_IO, 0);
	assert_int_equal(fake_kernel.nr_file_io, tried + 1);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_is_looked_at_once),
		TEST(writes_too),
		TEST(what_is_counted),
		TEST(what_is_asked_for),
		TEST(another_file_has_the_number),
		TEST(a_file_shrinks_and_grows),
		TEST(its_flags_change),
		TEST(an_error),
		TEST(a_refusal),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
