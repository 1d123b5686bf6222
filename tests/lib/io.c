// SPDX-License-Identifier: MIT
/* What one transfer answers when something is not as usual. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "one_transfer.h"

static void wrong_arguments(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = 1);
	int fd = open_file(O_RDONLY), wr = open_file(O_WRONLY);
	int append = open_file(O_WRONLY | O_APPEND), pipes[2];
	int folder = open("/tmp", O_RDONLY), name = open(path, O_PATH);

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(peerdma_read(buf, -1, 1, 0, 0), -EBADF);
	assert_int_equal(peerdma_read(buf, wr, 1, 0, 0), -EBADF);
	assert_int_equal(peerdma_read(buf, name, 1, 0, 0), -EBADF);
	assert_int_equal(peerdma_write(buf, fd, 1, 0, 0), -EBADF);
	assert_int_equal(peerdma_write(buf, append, 1, 0, 0), -EINVAL);
	assert_int_equal(peerdma_read(buf, folder, 1, 0, 0), -EISDIR);
	assert_int_equal(peerdma_read(buf, pipes[0], 1, 0, 0), -ESPIPE);
	assert_int_equal(peerdma_read(buf, fd, LEN + 1, 0, 0), -ERANGE);
	assert_int_equal(peerdma_read(buf, fd, 1, 0, LEN), -ERANGE);
	assert_int_equal(peerdma_read(buf, fd, 2, 0, -1ull), -EOVERFLOW);
	assert_int_equal(peerdma_read(buf, fd, 1, INT64_MAX, 0), -EOVERFLOW);
	assert_int_equal(peerdma_read(buf, fd, (size_t)1 << 63, 0, 0), -EINVAL);
	assert_int_equal(peerdma_read(buf, fd, 0, 0, LEN), 0);
	assert_int_equal(peerdma_read(buf, fd, 10, LEN + 512, 0), 0);
	assert_int_equal(peerdma_read_opts(buf, fd, 1, 0, 0, &opts, NULL),
			 -EOPNOTSUPP);
	opts.flags = 0;
	opts.path = PEERDMA_PATH_CACHE + 1;
	assert_int_equal(peerdma_read_opts(buf, fd, 1, 0, 0, &opts, NULL),
			 -EOPNOTSUPP);
	close(fd);
	close(wr);
	close(append);
	close(folder);
	close(name);
	close(pipes[0]);
	close(pipes[1]);
}

static void the_kernel_refuses_the_pair(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.probe_errno = EREMOTEIO;
	fake_kernel.io_reason = PEERDMA_REASON_HOST_BRIDGE;
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_DIRECT, fd, LEN), -EOPNOTSUPP);
	expect(0, 0, PEERDMA_REASON_HOST_BRIDGE, -EOPNOTSUPP);
	assert_int_equal(fake_kernel.nr_file_io, 0);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	expect(0, LEN, PEERDMA_REASON_HOST_BRIDGE, 0);
	assert_memory_equal(memory, content, LEN);
	close(fd);
}

static void the_kernel_changes_its_mind(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	memset(memory, 0, LEN);
	fake_kernel.io_limit = MIB;
	fake_kernel.io_errno = EMEDIUMTYPE;
	fake_kernel.io_skip = 2;
	fake_kernel.io_reason = PEERDMA_REASON_NO_DIRECT_IO;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	expect(2 * MIB, LEN - 2 * MIB, PEERDMA_REASON_NO_DIRECT_IO, 0);
	assert_memory_equal(memory, content, LEN);
	close(fd);
}

static void askew_in_memory(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = PEERDMA_PATH_DIRECT);
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	assert_int_equal(peerdma_read_opts(buf, fd, MIB, 0, 2, &opts, &result),
			 -EOPNOTSUPP);
	expect(0, 0, PEERDMA_REASON_MISALIGNED, -EOPNOTSUPP);
	assert_int_equal(fake_kernel.nr_file_io, 0);
	opts.path = PEERDMA_PATH_AUTO;
	assert_int_equal(peerdma_read_opts(buf, fd, MIB, 0, 2, &opts, &result),
			 MIB);
	expect(0, MIB, PEERDMA_REASON_MISALIGNED, 0);
	close(fd);
}

/* It only finds out on trying. */
static void askew_for_an_older_module(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.io_old = true;
	assert_int_equal(peerdma_read_opts(buf, fd, MIB, 0, 2, NULL, &result),
			 MIB);
	expect(0, MIB, PEERDMA_REASON_MISALIGNED, 0);
	assert_memory_equal(memory + 2, content, MIB);
	assert_int_equal(fake_kernel.nr_file_io, 1);
	close(fd);
}

static void a_failure_is_no_refusal(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.probe_errno = ENODEV;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), -ENODEV);
	fake_kernel.probe_errno = 0;
	fake_kernel.io_limit = MIB;
	fake_kernel.io_errno = EIO;
	fake_kernel.io_skip = 3;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), 3 * MIB);
	expect(3 * MIB, 0, 0, -EIO);
	fake_kernel.io_skip = 0;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), -EIO);
	close(fd);
}

static void the_kernel_is_asked_once(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);
	int i;

	(void)state;
	for (i = 0; i < 4; i++)
		assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, MIB), MIB);
	assert_int_equal(fake_kernel.nr_probes, 1);
	/* What is no longer true is found out. */
	fake_kernel.io_errno = EMEDIUMTYPE;
	fake_kernel.io_reason = PEERDMA_REASON_NO_DIRECT_IO;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, MIB), MIB);
	expect(0, MIB, PEERDMA_REASON_NO_DIRECT_IO, 0);
	close(fd);
}

static void signals_do_not_end_it(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.interrupts = 3;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	assert_int_equal(fake_kernel.interrupts, 0);
	close(fd);
}

static void copied_bytes_are_not_called_direct(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.io_out_flags = PEERDMA_FILE_IO_OUT_BUFFERED;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4 * MIB), 4 * MIB);
	expect(0, 4 * MIB, PEERDMA_REASON_FILESYSTEM_COPIED, 0);
	close(fd);
}

static void a_file_that_cannot_be_reopened(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_kernel.open_path = "/proc/";
	fake_kernel.open_errno = EACCES;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	expect(0, LEN, PEERDMA_REASON_NO_REOPEN, 0);
	assert_memory_equal(memory, content, LEN);
	fake_kernel.open_errno = EINVAL;
	assert_int_equal(read_by(PEERDMA_PATH_DIRECT, fd, LEN), -EOPNOTSUPP);
	expect(0, 0, PEERDMA_REASON_NO_DIRECT_IO, -EOPNOTSUPP);
	fake_kernel.open_errno = EMFILE;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), -EMFILE);
	close(fd);
}

/* An odd size, with O_DIRECT only: blocks around the edges are read instead. */
static void unbuffered_reads_need_no_reopening(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.open_path = "/proc/";
	fake_kernel.open_errno = ENOENT;
	memset(memory, 0, LEN);
	assert_int_equal(peerdma_read(buf, fd, LEN - 7, 7, 7), LEN - 7);
	assert_memory_equal(memory + 7, content + 7, LEN - 7);
	assert_int_equal(memory[6], 0);
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), LEN);
	expect(0, LEN, PEERDMA_REASON_FORCED, 0);
	assert_memory_equal(memory, content, LEN);
	/* Past the end, where the last block is short. */
	fake_kernel.probe_errno = EREMOTEIO;
	fake_kernel.io_reason = PEERDMA_REASON_KERNEL;
	assert_int_equal(peerdma_read(buf, fd, LEN, 4096, 0), LEN - 4096);
	assert_memory_equal(memory, content + 4096, LEN - 4096);
	close(fd);
}

static void a_filesystem_of_other_alignment(void **state)
{
	int fd = open_file(O_RDWR | O_DIRECT);

	(void)state;
	fake_kernel.rw_errno = EINVAL;
	fake_kernel.rw_direct = true;
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), LEN);
	assert_memory_equal(memory, content, LEN);
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, fd, LEN), LEN);
	fake_kernel.rw_errno = 0;
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), LEN);
	assert_memory_equal(memory, content, LEN);
	close(fd);
}

/* A file is never opened for what its descriptor does not allow. */
static void access_does_not_grow(void **state)
{
	int fd = open_file(O_RDONLY), wr = open_file(O_WRONLY);
	uint32_t way;

	(void)state;
	memset(memory, 0xff, LEN);
	for (way = PEERDMA_PATH_AUTO; way <= PEERDMA_PATH_STAGED; way++) {
		assert_int_equal(write_by(way, fd, LEN), -EBADF);
		assert_int_equal(read_by(way, wr, LEN), -EBADF);
	}
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	assert_memory_equal(memory, content, LEN);
	close(fd);
	close(wr);
}

/* Half a block can only be the last one: it is the end, not a refusal. */
static void a_file_that_shrinks(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.io_limit = 5000;
	assert_int_equal(read_by(PEERDMA_PATH_DIRECT, fd, MIB), 5000);
	expect(5000, 0, 0, 0);
	assert_int_equal(fake_kernel.nr_file_io, 1);
	close(fd);
}

static void no_descriptor_stays_open(void **state)
{
	int before = fake_kernel_count_fds(), flags, fd;

	(void)state;
	for (flags = O_RDWR; flags <= (O_RDWR | O_DIRECT); flags += O_DIRECT) {
		fd = open_file(flags);
		assert_int_equal(peerdma_write(buf, fd, LEN, 0, 0), LEN);
		assert_int_equal(peerdma_read(buf, fd, LEN, 0, 0), LEN);
		close(fd);
	}
	assert_int_equal(fake_kernel_count_fds(), before);
}

static void staged_failures_count_exactly(void **state)
{
	int fd = open_file(O_RDONLY), wr = open_file(O_WRONLY);

	(void)state;
	memset(memory, 0, LEN);
	fake_kernel.rw_errno = EIO;
	fake_kernel.rw_offset = 8 * MIB;
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), 8 * MIB);
	expect(0, 8 * MIB, PEERDMA_REASON_FORCED, -EIO);
	assert_memory_equal(memory, content, 8 * MIB);
	assert_int_equal(memory[8 * MIB], 0);
	fake_kernel.rw_offset = 0;
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), -EIO);
	memcpy(memory, content, LEN);
	fake_kernel.rw_errno = ENOSPC;
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, wr, LEN), -ENOSPC);
	fake_kernel.rw_offset = 12 * MIB;
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, wr, LEN), 12 * MIB);
	expect(0, 12 * MIB, PEERDMA_REASON_FORCED, -ENOSPC);
	fake_kernel.rw_errno = 0;
	close(fd);
	close(wr);
}

struct watch {
	int calls;
	uint64_t last;
	uint64_t stop_at;
};

static int watch(void *arg, uint64_t done, uint64_t total)
{
	struct watch *w = arg;

	assert_true(done >= w->last && done <= total);
	assert_int_equal(total, LEN);
	w->calls++;
	w->last = done;
	return w->stop_at && done >= w->stop_at;
}

static void progress_is_told_and_can_stop(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .progress = watch);
	int fd = open_file(O_RDWR), i;
	struct watch w;
	ssize_t n;

	(void)state;
	memcpy(memory, content, LEN);
	for (i = 0; i < 8; i++) {
		bool write = i & 1;

		opts.path = i & 2 ? PEERDMA_PATH_STAGED : PEERDMA_PATH_AUTO;
		w = (struct watch){ .stop_at = i & 4 ? 5 * MIB : 0 };
		opts.arg = &w;
		fake_kernel.io_limit = 2 * MIB;
		n = (write ? peerdma_write_opts : peerdma_read_opts)(
			buf, fd, LEN, 0, 0, &opts, &result);
		assert_int_equal(w.last <= (uint64_t)n, true);
		assert_true(w.calls >= 2);
		if (i & 4) {
			assert_int_equal(result.error, -ECANCELED);
			assert_true(n >= (ssize_t)(5 * MIB) && n < (ssize_t)LEN);
		} else {
			assert_int_equal(result.error, 0);
			assert_int_equal(n, LEN);
			assert_int_equal(w.last, LEN);
		}
		assert_int_equal(result.bytes_direct + result.bytes_staged, n);
	}
	assert_memory_equal(memory, content, LEN);
	close(fd);
}

static void a_gpu_is_flushed_when_it_asks(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	int fd = open_file(O_RDWR), ordering, options, expected;
	struct peerdma_buffer *other;

	(void)state;
	assert_int_equal(peerdma_buffer_info(buf, &info), 0);
	for (ordering = 0; ordering <= 200; ordering += 100) {
		for (options = 0; options < 3; options++) {
			fake_cuda.ordering = ordering;
			fake_cuda.flush_options = options;
			fake_cuda.flushes = 0;
			expected = ordering == 0 && options == 1;
			assert_int_equal(
				peerdma_buffer_pin(ctx, info.device_addr, LEN,
						   NULL, &other), 0);
			assert_int_equal(peerdma_read(other, fd, 5000, 0, 0),
					 5000);
			assert_int_equal(fake_cuda.flushes, expected);
			/* Staged, and the other way: nothing to flush. */
			assert_int_equal(peerdma_read(other, fd, 100, 0, 0),
					 100);
			assert_int_equal(peerdma_write(other, fd, 4096, 0, 0),
					 4096);
			assert_int_equal(fake_cuda.flushes, expected);
			peerdma_buffer_close(other);
		}
	}
	close(fd);
}

static void pageable_memory_does_too(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_cuda.fail_alloc_host = 1;
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), LEN);
	assert_memory_equal(memory, content, LEN);
	close(fd);
}

static void host_memory_goes_directly_where_it_can(void **state)
{
	int fd = open_file(O_RDONLY | O_DIRECT), cached = open_file(O_RDONLY);
	struct peerdma_buffer *gpu = buf;
	unsigned char *host = aligned_alloc(4096, 31 * MIB);

	(void)state;
	assert_int_equal(peerdma_buffer_host(ctx, host, LEN, NULL, &buf), 0);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	expect(LEN / 4096 * 4096, LEN % 4096, PEERDMA_REASON_MISALIGNED, 0);
	assert_memory_equal(host, content, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, cached, LEN), LEN);
	expect(0, LEN, PEERDMA_REASON_HOST_MEMORY, 0);
	assert_int_equal(read_by(PEERDMA_PATH_DIRECT, cached, LEN),
			 -EOPNOTSUPP);
	peerdma_buffer_close(buf);
	buf = gpu;
	/* What that was staged through is no memory for CUDA to copy from. */
	assert_int_equal(read_by(PEERDMA_PATH_STAGED, fd, LEN), LEN);
	assert_int_equal(fake_cuda.host_allocations, 8 + 1);
	free(host);
	close(fd);
	close(cached);
}

static void expect_cached(size_t cached, size_t direct, int reason)
{
	assert_int_equal(result.bytes_cached, cached);
	expect(direct, 0, reason, 0);
}

static void what_is_resident_comes_from_the_page_cache(void **state)
{
	int fd = open_file(O_RDONLY), direct = open_file(O_RDONLY | O_DIRECT);

	(void)state;
	fake_kernel.resident = true;
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	expect_cached(LEN, 0, 0);
	assert_int_equal(fake_kernel.nr_file_io, 0);
	assert_memory_equal(memory, content, LEN);
	/* Who asks for O_DIRECT is taken at his word, unless forced. */
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, direct, 8192), 8192);
	expect_cached(0, 8192, 0);
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_CACHE, direct, LEN), LEN);
	expect_cached(LEN, 0, 0);
	assert_memory_equal(memory, content, LEN);
	fake_kernel.open_path = "/proc/";
	fake_kernel.open_errno = ENOENT;
	assert_int_equal(read_by(PEERDMA_PATH_CACHE, direct, LEN),
			 -EOPNOTSUPP);
	expect(0, 0, PEERDMA_REASON_NO_REOPEN, -EOPNOTSUPP);
	/* The rest of it has to be read, but nobody asked about that. */
	fake_kernel.open_errno = 0;
	fake_kernel.resident = false;
	assert_int_equal(read_by(PEERDMA_PATH_CACHE, fd, LEN), LEN);
	expect_cached(LEN, 0, 0);
	close(fd);
	close(direct);
}

static void small_reads_take_what_is_there(void **state)
{
	PEERDMA_SIZED(peerdma_io_opts, opts);
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_kernel.resident = true;
	memset(memory, 0, 100000);
	assert_int_equal(peerdma_read_opts(buf, fd, 65536, 77, 3, &opts,
					   &result), 65536);
	expect_cached(65536, 0, 0);
	assert_memory_equal(memory + 3, content + 77, 65536);
	assert_int_equal(memory[2] | memory[3 + 65536], 0);
	/* No bounces, no threads. */
	assert_int_equal(fake_cuda.host_allocations, 1);
	assert_int_equal(peerdma_read_opts(buf, fd, 1000, LEN - 10, 0, &opts,
					   &result), 10);
	expect_cached(10, 0, 0);
	assert_memory_equal(memory, content + LEN - 10, 10);
	fake_kernel.resident = false;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 4096), 4096);
	expect_cached(0, 4096, 0);
	close(fd);
}

static int count_threads(void)
{
	DIR *folder = opendir("/proc/self/task");
	int count = 0;

	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* No thread without a CPU, and no second copy past the caches by a few. */
static void few_cpus_are_not_shared_by_many(void **state)
{
	static const struct { int cpus, threads, reads; } cases[] = {
		{ 1, 0, 100 }, { 2, 1, 100 }, { 3, 2, 100 }, { 16, 8, 10000 },
	};
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	int fd = open_file(O_RDONLY), threads = count_threads();
	struct peerdma_buffer *other;
	struct peerdma *few;
	size_t i;

	(void)state;
	fake_kernel.resident = true;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake_kernel.cpus = cases[i].cpus;
		assert_int_equal(peerdma_open(&few, &opts), 0);
		assert_int_equal(peerdma_buffer_alloc(few, LEN, NULL, &other),
				 0);
		assert_int_equal(peerdma_buffer_info(other, &info), 0);
		fake_kernel.nr_preads = 0;
		assert_int_equal(peerdma_read(other, fd, LEN, 0, 0), LEN);
		assert_memory_equal(fake_cuda_memory(info.device_addr), content,
				    LEN);
		assert_true(count_threads() - threads <= cases[i].threads);
		assert_true(fake_kernel.nr_preads <= cases[i].reads);
		peerdma_buffer_close(other);
		peerdma_close(few);
		/* Who was joined may be seen in /proc for a moment yet. */
		while (count_threads() > threads)
			usleep(100);
	}
	close(fd);
}

/* It has no RWF_NOWAIT. */
static void small_reads_of_tmpfs_are_small_too(void **state)
{
	int fd = memfd_create("peerdma", 0);

	(void)state;
	assert_int_equal(pwrite(fd, content, MIB, 0), MIB);
	fake_kernel.resident = true;
	memset(memory, 0, 100000);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 65536), 65536);
	expect_cached(65536, 0, 0);
	assert_memory_equal(memory, content, 65536);
	assert_int_equal(fake_cuda.host_allocations, 1);
	close(fd);
}

static void read_and_compare(int fd, size_t len)
{
	memset(memory, 0, len);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, len), (ssize_t)len);
	expect_cached(len, 0, 0);
	assert_memory_equal(memory, content, len);
}

/* By a word that the GPU writes; else, or where it is late, by CUDA's waiting. */
static void small_reads_wait_for_their_bytes(void **state)
{
	int fd = open_file(O_RDONLY), waits = fake_cuda.waits;

	(void)state;
	fake_kernel.resident = true;
	read_and_compare(fd, 4096);
	read_and_compare(fd, 100);
	assert_int_equal(fake_cuda.waits, waits);
	fake_cuda.busy = 1;
	read_and_compare(fd, 8192);
	assert_int_equal(fake_cuda.waits, waits + 1);
	fake_cuda.busy = 0;
	fake_cuda.fail_write_value = 1;
	read_and_compare(fd, 12288);
	assert_int_equal(fake_cuda.waits, waits + 2);
	fake_cuda.fail_write_value = 0;
	read_and_compare(fd, 65536);
	assert_int_equal(fake_cuda.waits, waits + 2);
	close(fd);
}

static void small_writes_are_one_copy(void **state)
{
	int fd = open_file(O_RDWR), waits = fake_cuda.waits;
	unsigned char *back = malloc(LEN);

	(void)state;
	memset(memory, 7, 65536);
	memory[65535] = 8;
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, fd, 65536), 65536);
	assert_int_equal(fake_cuda.waits, waits);
	assert_int_equal(pread(fd, back, LEN, 0), LEN);
	assert_memory_equal(back, memory, 65536);
	assert_memory_equal(back + 65536, content + 65536, LEN - 65536);
	fake_kernel.rw_errno = ENOSPC;
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, fd, 100), -ENOSPC);
	assert_int_equal(result.bytes_staged, 0);
	fake_kernel.rw_errno = 0;
	memcpy(memory, content, 65536);
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, fd, 65536), 65536);
	free(back);
	close(fd);
}

static void errors_of_the_page_cache_count_exactly(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_kernel.resident = true;
	fake_kernel.rw_errno = EIO;
	fake_kernel.rw_offset = 5 * MIB;
	memset(memory, 0, LEN);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), 5 * MIB);
	assert_int_equal(result.error, -EIO);
	assert_int_equal(result.bytes_cached, 5 * MIB);
	assert_memory_equal(memory, content, 5 * MIB);
	assert_int_equal(memory[5 * MIB], 0);
	close(fd);
}

static void requests_are_summed_up(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDWR);

	(void)state;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 8192 + 100), 8292);
	fake_kernel.resident = true;
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, 10), 10);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
	memcpy(memory, content, 4096);
	assert_int_equal(write_by(PEERDMA_PATH_STAGED, fd, 77), 77);
	assert_int_equal(read_by(PEERDMA_PATH_AUTO, -1, 1), -EBADF);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.direct.requests, 1);
	assert_int_equal(stats.direct.bytes_read, 8192);
	assert_int_equal(stats.direct.bytes_written, 0);
	assert_int_equal(stats.staged.requests, 2);
	assert_int_equal(stats.staged.bytes_read, 100);
	assert_int_equal(stats.staged.bytes_written, 77);
	assert_int_equal(stats.cached.requests, 2);
	assert_int_equal(stats.cached.bytes_read, LEN + 10);
	assert_int_equal(stats.errors, 1);
	stats.size = 0;
	assert_int_equal(peerdma_context_stats(ctx, &stats), -EINVAL);
	close(fd);
}

/* Data, a hole of a megabyte, data, a small hole, data, a hole to the end. */
static void holes_are_not_read(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);
	char name[] = "/var/tmp/peerdma-XXXXXX";
	int file = mkstemp(name), fd, flags;
	uint32_t way;
	off_t where;

	(void)state;
	assert_int_equal(pwrite(file, content, MIB, 0), MIB);
	assert_int_equal(pwrite(file, content, MIB, 2 * MIB), MIB);
	assert_int_equal(pwrite(file, content, MIB, 3 * MIB + 8192), MIB);
	assert_int_equal(ftruncate(file, 6 * MIB), 0);
	assert_int_equal(fsync(file), 0);
	for (flags = 0; flags <= O_DIRECT; flags += O_DIRECT) {
		fd = open(name, O_RDONLY | flags);
		where = lseek(fd, 12345, SEEK_SET);
		memset(memory, 0x55, LEN);
		assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), 6 * MIB);
		assert_int_equal(result.error, 0);
		assert_int_equal(result.bytes_zeroed, 3 * MIB - 8192);
		assert_memory_equal(memory, content, MIB);
		assert_int_equal(memory[MIB], 0);
		assert_memory_equal(memory + MIB, memory + MIB + 1, MIB - 1);
		assert_memory_equal(memory + 2 * MIB, content, MIB);
		assert_int_equal(memory[3 * MIB], 0);
		assert_memory_equal(memory + 3 * MIB + 8192, content, MIB);
		assert_int_equal(memory[6 * MIB - 1], 0);
		assert_int_equal(memory[6 * MIB], 0x55);
		/* The caller's offset stays where it is. */
		assert_int_equal(lseek(fd, 0, SEEK_CUR), where);
		close(fd);
	}
	/* Who forces a path has it. */
	for (way = PEERDMA_PATH_DIRECT; way <= PEERDMA_PATH_CACHE; way++) {
		assert_int_equal(read_by(way, file, LEN), 6 * MIB);
		assert_int_equal(result.bytes_zeroed, 0);
	}
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.zeroed.requests, 2);
	assert_int_equal(stats.zeroed.bytes_read, 2 * (3 * MIB - 8192));
	close(file);
	unlink(name);
}

/* Whoever may only read a file is not told what of it is in the page cache. */
static void somebody_elses_file(void **state)
{
	int fd = open_file(O_RDONLY), old, i, moved = 0;
	off_t last = 0;

	(void)state;
	fake_kernel.stranger = true;
	for (old = 0; old < 2; old++) {
		fake_kernel.no_cachestat = old;
		fake_kernel.resident = false;
		for (i = 0; i < 8; i++) {
			assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, MIB),
					 MIB);
			expect(MIB, 0, 0, 0);
			moved += fake_kernel.nowait_offset != last;
			last = fake_kernel.nowait_offset;
		}
		fake_kernel.resident = true;
		assert_int_equal(pread(fd, content, LEN, 0), LEN);
		assert_int_equal(read_by(PEERDMA_PATH_AUTO, fd, LEN), LEN);
		expect(0, 0, 0, 0);
		assert_int_equal(result.bytes_cached, LEN);
	}
	/* Not where it was looked at the last time. */
	assert_true(moved > 8);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(wrong_arguments),
		TEST(the_kernel_refuses_the_pair),
		TEST(the_kernel_changes_its_mind),
		TEST(askew_in_memory),
		TEST(askew_for_an_older_module),
		TEST(the_kernel_is_asked_once),
		TEST(a_failure_is_no_refusal),
		TEST(signals_do_not_end_it),
		TEST(copied_bytes_are_not_called_direct),
		TEST(a_file_that_cannot_be_reopened),
		TEST(unbuffered_reads_need_no_reopening),
		TEST(a_filesystem_of_other_alignment),
		TEST(access_does_not_grow),
		TEST(a_file_that_shrinks),
		TEST(staged_failures_count_exactly),
		TEST(progress_is_told_and_can_stop),
		TEST(a_gpu_is_flushed_when_it_asks),
		TEST(pageable_memory_does_too),
		TEST(host_memory_goes_directly_where_it_can),
		TEST(what_is_resident_comes_from_the_page_cache),
		TEST(small_reads_take_what_is_there),
		TEST(few_cpus_are_not_shared_by_many),
		TEST(small_reads_of_tmpfs_are_small_too),
		TEST(small_reads_wait_for_their_bytes),
		TEST(small_writes_are_one_copy),
		TEST(errors_of_the_page_cache_count_exactly),
		TEST(requests_are_summed_up),
		TEST(holes_are_not_read),
		/* Last: it writes what the memory happens to hold. */
		TEST(no_descriptor_stays_open),
		TEST(somebody_elses_file),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
