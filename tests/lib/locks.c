// SPDX-License-Identifier: MIT
/* POSIX locks of the program outlive whatever the library opens and closes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "io_fixture.h"

/* More than are parked. */
#define MANY	80

static int lock(int fd, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET };

	return fcntl(fd, F_SETLK, &lock);
}

/* As another process sees it: to look from here would drop what it looks for. */
static bool is_locked(const char *name)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct flock lock = { .l_type = F_WRLCK };
		int fd = open(name, O_RDWR);

		_exit(fd >= 0 && !fcntl(fd, F_GETLK, &lock) &&
		      lock.l_type != F_UNLCK && lock.l_pid == getppid());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WEXITSTATUS(status);
}

static void read_whole(int fd, uint32_t way, uint64_t offset, size_t len)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = way);

	memset(memory, 0, len);
	assert_int_equal(peerdma_read_opts(buf, fd, len, offset, 0, &opts,
					   NULL), len);
	assert_memory_equal(memory, content + offset, len);
}

static void write_whole(int fd, uint64_t offset, size_t len)
{
	memcpy(memory, content + offset, len);
	assert_int_equal(peerdma_write(buf, fd, len, offset, 0), len);
}

static void no_request_drops_a_lock(void **state)
{
	int before = fake_kernel_count_fds(), fd, direct, i, parked;
	PEERDMA_SIZED(peerdma_check_result, found);

	(void)state;
	fd = open_file(O_RDWR);
	direct = open_file(O_RDWR | O_DIRECT);
	assert_int_equal(lock(fd, F_WRLCK), 0);
	for (i = 0; i < 20; i++) {
		read_whole(fd, PEERDMA_PATH_AUTO, 0, 4 * MIB);
		assert_true(is_locked(path));
		read_whole(fd, PEERDMA_PATH_STAGED, 0, 4 * MIB);
		read_whole(fd, PEERDMA_PATH_DIRECT, 0, 4 * MIB);
		read_whole(direct, PEERDMA_PATH_CACHE, 0, MIB);
		assert_true(is_locked(path));
		write_whole(direct, 100, MIB);
		write_whole(fd, 100, MIB);
		assert_int_equal(peerdma_check(ctx, direct, buf, &found), 0);
		assert_true(is_locked(path));
		/* What is parked is used again. */
		if (!i)
			parked = fake_kernel_count_fds();
		assert_int_equal(fake_kernel_count_fds(), parked);
	}
	assert_true(parked <= before + 2 + 4);
	assert_int_equal(lock(fd, F_UNLCK), 0);
	for (i = 0; i < 5; i++)
		read_whole(fd, PEERDMA_PATH_AUTO, 0, 4 * MIB);
	assert_int_equal(fake_kernel_count_fds(), before + 2);
	close(direct);
	close(fd);
}

/* Nor may somebody else's, which hides ours from the question. */
static void a_lock_behind_anothers(void **state)
{
	int to_child[2], to_parent[2], fd = open_file(O_RDWR);
	char byte = 0;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(to_child) | pipe(to_parent), 0);
	child = fork();
	if (!child) {
		int other = open(path, O_RDWR);

		_exit(lock(other, F_RDLCK) || write(to_parent[1], "", 1) != 1 ||
		      read(to_child[0], &byte, 1) != 1);
	}
	assert_int_equal(read(to_parent[0], &byte, 1), 1);
	assert_int_equal(lock(fd, F_RDLCK), 0);
	read_whole(fd, PEERDMA_PATH_AUTO, 0, 4 * MIB);
	assert_int_equal(write(to_child[1], &byte, 1), 1);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(is_locked(path));
	assert_int_equal(lock(fd, F_UNLCK), 0);
	close(fd);
	close(to_child[0]);
	close(to_child[1]);
	close(to_parent[0]);
	close(to_parent[1]);
}

/* A context ends, and the lock does not. */
static void the_end_of_a_context(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	int before = fake_kernel_count_fds(), fd = open_file(O_RDWR);
	struct peerdma *other;

	(void)state;
	assert_int_equal(lock(fd, F_WRLCK), 0);
	read_whole(fd, PEERDMA_PATH_AUTO, 0, 4 * MIB);
	assert_int_equal(peerdma_open(&other, &opts), 0);
	peerdma_close(other);
	assert_true(is_locked(path));
	assert_int_equal(lock(fd, F_UNLCK), 0);
	assert_int_equal(peerdma_open(&other, &opts), 0);
	peerdma_close(other);
	assert_int_equal(fake_kernel_count_fds(), before + 1);
	close(fd);
}

static void many_locked_files(void **state)
{
	int before = fake_kernel_count_fds(), fds[MANY], fd, i;
	char names[MANY][64];

	(void)state;
	for (i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "%s.%d", path, i);
		fds[i] = open(names[i], O_RDWR | O_CREAT, 0600);
		assert_int_equal(write(fds[i], content, MIB), MIB);
		assert_int_equal(lock(fds[i], F_WRLCK), 0);
		read_whole(fds[i], PEERDMA_PATH_AUTO, 0, MIB);
	}
	for (i = 0; i < MANY; i++)
		assert_true(is_locked(names[i]));
	assert_true(fake_kernel_count_fds() <= before + MANY + 64);
	for (i = 0; i < MANY; i++) {
		unlink(names[i]);
		close(fds[i]);
	}
	fd = open_file(O_RDONLY);
	for (i = 0; i < MANY; i++)
		read_whole(fd, PEERDMA_PATH_AUTO, 0, MIB);
	close(fd);
	assert_int_equal(fake_kernel_count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_request_drops_a_lock),
		TEST(a_lock_behind_anothers),
		TEST(the_end_of_a_context),
		TEST(many_locked_files),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
