// SPDX-License-Identifier: MIT
/* Which way requests of a queue go, and those of several parts. */
#include <errno.h>
#include <limits.h>

#include "queue_fixture.h"

/* More than go to CUDA at once. */
#define SCATTERED	300

static void whole_blocks_go_by_the_ring(void **state)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDWR);
	struct peerdma_io_request request = request_of(fd, 0, MIB, 0);

	(void)state;
	make_queue(4, 0, 0);
	assert_int_equal(peerdma_queue_info(queue, &info), 0);
	assert_int_equal(info.uring, 1);
	assert_int_equal(info.depth, 4);
	assert_int_equal(run(&request)->bytes_direct, MIB);
	assert_int_equal(fake_kernel.nr_commands, 1);
	request.flags = PEERDMA_IO_WRITE;
	assert_int_equal(run(&request)->bytes_direct, MIB);
	assert_int_equal(fake_kernel.nr_commands, 2);
	/* Not whole blocks, too little to be written, the end of the file. */
	request.len--;
	assert_int_equal(run(&request)->result, MIB - 1);
	request.len = 64 * KIB;
	assert_int_equal(run(&request)->bytes_direct, 64 * KIB);
	request = request_of(fd, LEN - PIECE, PIECE, 0);
	request.file_offset += PIECE / 2;
	assert_int_equal(run(&request)->result, PIECE / 2);
	assert_int_equal(fake_kernel.nr_commands, 2);
	peerdma_queue_destroy(queue);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.direct.requests, 5);
	assert_int_equal(stats.errors, 0);
	close(fd);
}

/* A command of /dev/null moves nothing, so that a thread has to do it all. */
static void the_machines_own_ring_works(void **state)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	int fd = open_file(O_RDONLY), i;

	(void)state;
	fake_kernel.uring_real = true;
	make_queue(DEPTH, 0, 0);
	assert_int_equal(peerdma_queue_info(queue, &info), 0);
	for (i = 0; i < DEPTH; i++)
		submit_read(fd, i * LEN / DEPTH, LEN / DEPTH, i);
	assert_int_equal(peerdma_queue_reap(queue, done, DEPTH, DEPTH, NULL),
			 DEPTH);
	for (i = 0; i < DEPTH; i++)
		assert_int_equal(done[i].bytes_direct, LEN / DEPTH);
	assert_memory_equal(memory, content, LEN);
	peerdma_queue_destroy(queue);
	/* Where it may be had at all. */
	if (!info.uring)
		skip();
	close(fd);
}

static void without_a_ring_threads_do_it(void **state)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	int fd = open_file(O_RDONLY);
	struct peerdma_io_request request = request_of(fd, 0, LEN / 2, 0);

	(void)state;
	fake_kernel.uring_errno = EPERM;
	make_queue(4, 0, 0);
	assert_int_equal(peerdma_queue_info(queue, &info), 0);
	assert_int_equal(info.uring, 0);
	assert_int_equal(run(&request)->bytes_direct, LEN / 2);
	peerdma_queue_destroy(queue);
	/* Forbidden once it is there. */
	fake_kernel.uring_errno = 0;
	make_queue(4, 0, 0);
	fake_kernel.enter_errno = EPERM;
	assert_int_equal(run(&request)->bytes_direct, LEN / 2);
	assert_int_equal(run(&request)->bytes_direct, LEN / 2);
	assert_int_equal(fake_kernel.nr_commands, 0);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void what_the_ring_leaves_goes_on(void **state)
{
	int fd = open_file(O_RDONLY);
	struct peerdma_io_request request = request_of(fd, 0, 16 * PIECE, 0);
	const struct peerdma_completion *c;

	(void)state;
	make_queue(4, 0, 0);
	fake_kernel.io_limit = 3 * PIECE;
	assert_int_equal(run(&request)->bytes_direct, 16 * PIECE);
	assert_memory_equal(memory, content, 16 * PIECE);
	/* Not whole blocks: the rest is found again. */
	fake_kernel.io_limit = 3 * PIECE + 100;
	memset(memory, 0, LEN);
	c = run(&request);
	assert_int_equal(c->result, 3 * PIECE + 3 * PIECE + 100);
	assert_int_equal(c->error, 0);
	fake_kernel.io_limit = 0;
	/* The pair is refused from now on. */
	fake_kernel.io_errno = EREMOTEIO;
	fake_kernel.io_reason = PEERDMA_REASON_SWIOTLB;
	memset(memory, 0, LEN);
	c = run(&request);
	assert_int_equal(c->bytes_staged, 16 * PIECE);
	assert_int_equal(c->reason, PEERDMA_REASON_SWIOTLB);
	assert_memory_equal(memory, content, 16 * PIECE);
	request.path = PEERDMA_PATH_DIRECT;
	c = run(&request);
	assert_int_equal(c->result, -EOPNOTSUPP);
	assert_int_equal(c->reason, PEERDMA_REASON_SWIOTLB);
	fake_kernel.io_errno = ENODEV;
	assert_int_equal(run(&request)->result, -ENODEV);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void what_the_filesystem_copied_is_not_called_direct(void **state)
{
	int fd = open_file(O_RDWR);
	struct peerdma_io_request request = request_of(fd, 0, MIB, 0);
	const struct peerdma_completion *c;

	(void)state;
	make_queue(4, 0, 0);
	assert_int_equal(run(&request)->result, MIB);
	fake_kernel.io_out_flags = PEERDMA_FILE_IO_OUT_BUFFERED;
	request.flags = PEERDMA_IO_WRITE;
	c = run(&request);
	assert_int_equal(c->bytes_staged, MIB);
	assert_int_equal(c->reason, PEERDMA_REASON_FILESYSTEM_COPIED);
	assert_int_equal(fake_kernel.nr_commands, 2);
	peerdma_queue_destroy(queue);
	close(fd);
}

/* Small parts in places that are not adjacent: many copies, few calls of CUDA. */
static void scattered_parts_go_together(void **state)
{
	struct peerdma_io_vec vecs[SCATTERED];
	int fd = open_file(O_RDONLY), i, failing;
	struct peerdma_io_request request = request_of(fd, 0, 0, 0);
	const struct peerdma_completion *c;

	(void)state;
	make_queue(1, 0, 0);
	/* Others may have gone around the page cache. */
	assert_int_equal(pread(fd, memory, SCATTERED * 1000, 0),
			 SCATTERED * 1000);
	fake_kernel.resident = true;
	request.vecs = vecs;
	request.nr_vecs = SCATTERED;
	for (failing = 0; failing < 2; failing++) {
		fake_cuda.fail_batch = failing;
		fake_cuda.batches = 0;
		memset(memory, 0, LEN);
		for (i = 0; i < SCATTERED; i++)
			vecs[i] = (struct peerdma_io_vec){
				.file_offset = i * 1000, .len = 700,
				.buffer_offset = (SCATTERED - 1 - i) * 900 };
		c = run(&request);
		assert_int_equal(c->result, SCATTERED * 700);
		assert_int_equal(c->bytes_cached, SCATTERED * 700);
		for (i = 0; i < SCATTERED; i++) {
			assert_int_equal(vecs[i].result, 700);
			assert_memory_equal(memory + (SCATTERED - 1 - i) * 900,
					    content + i * 1000, 700);
		}
		assert_int_equal(fake_cuda.batches, failing ? 0 : 2);
	}
	peerdma_queue_destroy(queue);
	close(fd);
}

static void parts_have_results_of_their_own(void **state)
{
	int fd = open_file(O_RDONLY);
	struct peerdma_io_vec vecs[] = {
		{ .file_offset = 3 * PIECE, .buffer_offset = 0, .len = PIECE },
		{ .file_offset = LEN - 10, .buffer_offset = PIECE, .len = 20 },
		{ .file_offset = 7, .buffer_offset = 3 * PIECE, .len = 70000 },
		{ .file_offset = 0, .buffer_offset = 2 * PIECE, .len = 0 },
		{ .file_offset = PIECE, .buffer_offset = 2 * PIECE, .len = 9 },
	};
	struct peerdma_io_request request = request_of(fd, 0, 0, 0);
	const struct peerdma_completion *c;
	int resident;

	(void)state;
	make_queue(4, 0, 0);
	request.vecs = vecs;
	request.nr_vecs = 5;
	for (resident = 0; resident < 2; resident++) {
		fake_kernel.resident = resident;
		memset(memory, 0, LEN);
		c = run(&request);
		assert_int_equal(c->result, PIECE + 10 + 70000 + 9);
		assert_int_equal(c->error, 0);
		assert_int_equal(vecs[0].result, PIECE);
		assert_int_equal(vecs[1].result, 10);
		assert_int_equal(vecs[2].result, 70000);
		assert_int_equal(vecs[3].result, 0);
		assert_int_equal(vecs[4].result, 9);
		assert_memory_equal(memory, content + 3 * PIECE, PIECE);
		assert_memory_equal(memory + PIECE, content + LEN - 10, 10);
		assert_int_equal(memory[PIECE + 10], 0);
		assert_memory_equal(memory + 2 * PIECE, content + PIECE, 9);
		assert_memory_equal(memory + 3 * PIECE, content + 7, 70000);
		if (resident)
			assert_int_equal(c->bytes_cached, c->result);
	}
	/* One is bad: none is begun. */
	vecs[2].buffer_offset = LEN;
	memset(memory, 0, LEN);
	c = run(&request);
	assert_int_equal(c->result, -ERANGE);
	assert_int_equal(vecs[2].result, -ERANGE);
	assert_int_equal(vecs[0].result, 0);
	assert_int_equal(memory[0], 0);
	/* One fails: the others do not. */
	vecs[2].buffer_offset = 3 * PIECE;
	fake_kernel.resident = false;
	request.path = PEERDMA_PATH_STAGED;
	fake_kernel.rw_errno = EIO;
	fake_kernel.rw_offset = LEN - MIB;
	c = run(&request);
	assert_int_equal(c->error, -EIO);
	assert_int_equal(vecs[1].result, -EIO);
	assert_int_equal(vecs[2].result, 70000);
	assert_int_equal(c->result, PIECE + 70000 + 9);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void parts_without_a_queue(void **state)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	int fd = open_file(O_RDWR);
	struct peerdma_io_vec vecs[] = {
		{ .file_offset = PIECE, .buffer_offset = 0, .len = PIECE },
		{ .file_offset = 10, .buffer_offset = PIECE, .len = 20 },
	};

	(void)state;
	assert_int_equal(peerdma_readv(buf, fd, vecs, 2, NULL, &result),
			 PIECE + 20);
	assert_int_equal(result.bytes_direct, PIECE);
	assert_int_equal(result.bytes_staged, 20);
	assert_memory_equal(memory, content + PIECE, PIECE);
	assert_memory_equal(memory + PIECE, content + 10, 20);
	assert_int_equal(peerdma_writev(buf, fd, vecs, 2, NULL, NULL),
			 PIECE + 20);
	assert_int_equal(peerdma_readv(buf, fd, NULL, 0, NULL, NULL), 0);
	assert_int_equal(peerdma_readv(buf, fd, NULL, 1, NULL, NULL), -EINVAL);
	assert_int_equal(peerdma_readv(buf, -1, vecs, 2, NULL, NULL), -EBADF);
	assert_int_equal(vecs[0].result, -EBADF);
	assert_int_equal(vecs[1].result, -EBADF);
	vecs[0].len = vecs[1].len = SSIZE_MAX;
	assert_int_equal(peerdma_readv(buf, fd, vecs, 2, NULL, NULL),
			 -EOVERFLOW);
	result.size = 0;
	assert_int_equal(peerdma_readv(buf, fd, vecs, 2, NULL, &result),
			 -EINVAL);
	close(fd);
}

/* The one thread is busy, so that all of them are there when it comes. */
static void submit_small(int fd, int nr, int stride, bool reversed)
{
	int direct = open_file(O_RDONLY | O_DIRECT), i;
	struct peerdma_io_request r[DEPTH];

	/* Others have read and written around the page cache. */
	assert_int_equal(pread(fd, content, LEN, 0), LEN);
	fake_kernel.gate = 1;
	submit_read(direct, LEN - PIECE, PIECE, DEPTH);
	await_gate(1);
	for (i = 0; i < nr; i++) {
		r[i] = request_of(fd, i * stride * PIECE, PIECE, i);
		if (reversed)
			r[i].file_offset = (nr - i) * PIECE;
	}
	assert_int_equal(peerdma_queue_submit(queue, r, nr, 0), nr);
	fake_kernel_open_gate();
	assert_int_equal(peerdma_queue_reap(queue, done, nr + 1, DEPTH, NULL),
			 nr + 1);
	for (i = 0; i <= nr; i++) {
		assert_int_equal(done[i].result, PIECE);
		assert_int_equal(done[i].error, 0);
	}
	close(direct);
}

static void small_reads_become_few_copies(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDONLY), i;

	(void)state;
	fake_kernel.resident = true;
	make_queue(DEPTH, PEERDMA_QUEUE_NO_URING, 1);
	fake_cuda.copies = 0;
	submit_small(fd, 100, 1, false);
	assert_int_equal(fake_cuda.copies, 2);
	assert_memory_equal(memory, content, 100 * PIECE);
	/* From anywhere to one place. */
	memset(memory, 0, LEN);
	submit_small(fd, 100, 1, true);
	assert_int_equal(fake_cuda.copies, 4);
	for (i = 0; i < 100; i++)
		assert_memory_equal(memory + i * PIECE,
				    content + (100 - i) * PIECE, PIECE);
	/* To places that are not adjacent. */
	memset(memory, 0, LEN);
	submit_small(fd, 100, 2, false);
	assert_int_equal(fake_cuda.copies, 104);
	for (i = 0; i < 200; i += 2) {
		assert_memory_equal(memory + i * PIECE, content + i * PIECE,
				    PIECE);
		assert_int_equal(memory[(i + 1) * PIECE], 0);
	}
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.cached.requests, 300);
	assert_int_equal(stats.cached.bytes_read, 300 * PIECE);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void what_cannot_be_gathered_goes_alone(void **state)
{
	int fd = open_file(O_RDONLY);

	(void)state;
	make_queue(DEPTH, PEERDMA_QUEUE_NO_URING, 1);
	submit_small(fd, 80, 1, false);
	assert_memory_equal(memory, content, 80 * PIECE);
	/* A copy that fails is made again. */
	fake_kernel.resident = true;
	fake_cuda.failing_copies = 1;
	memset(memory, 0, LEN);
	submit_small(fd, 80, 1, false);
	assert_memory_equal(memory, content, 80 * PIECE);
	peerdma_queue_destroy(queue);
	close(fd);
}

/* One request of the drive's for all, and by itself what it did not move. */
static void whole_blocks_go_together(void **state)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	PEERDMA_SIZED(peerdma_io_opts, opts);
	struct peerdma_io_vec vecs[SCATTERED];
	int flags, write, i, fd, whole = open_file(O_WRONLY);

	(void)state;
	fake_kernel.io_bad_at = 100 * PIECE + 5;
	for (flags = 0; flags < 4; flags++) {
		write = flags & 1;
		fd = open_file(O_RDWR | (flags & 2 ? O_DIRECT : 0));
		for (i = 0; i < SCATTERED; i++)
			vecs[i] = (struct peerdma_io_vec){
				.file_offset = (2 * i) * PIECE,
				.buffer_offset = 2 * (SCATTERED - i) * PIECE,
				.len = i == 7 ? 0 : PIECE,
			};
		/* Not whole, in the middle of the others. */
		vecs[20].len = 100;
		memset(memory, write ? 0x33 : 0, LEN);
		fake_kernel.nr_file_io = 0;
		assert_int_equal((write ? peerdma_writev : peerdma_readv)(
			buf, fd, vecs, SCATTERED, &opts, &result),
			(SCATTERED - 3) * PIECE + 100);
		assert_int_equal(result.error, -EIO);
		assert_int_equal(result.bytes_direct,
				 (SCATTERED - 3) * PIECE);
		assert_int_equal(result.bytes_staged, 100);
		for (i = 0; i < SCATTERED; i++)
			assert_int_equal(vecs[i].result, i == 50 ? -EIO :
					 (int)vecs[i].len);
		for (i = 0; i < SCATTERED && !write; i++)
			if (i != 50)
				assert_memory_equal(
					memory + vecs[i].buffer_offset,
					content + vecs[i].file_offset,
					vecs[i].len);
		/* Three runs, and the one that failed. */
		assert_int_equal(fake_kernel.nr_file_io, 4);
		/* As it was. */
		assert_int_equal(pwrite(whole, content, LEN, 0), LEN);
		close(fd);
	}
	close(whole);
}

/* A try would make the kernel read it ahead, and then it is there. */
static void cold_reads_do_not_warm_the_page_cache(void **state)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	struct peerdma_io_vec vecs[] = {
		{ .len = PIECE }, { .file_offset = PIECE,
				    .buffer_offset = PIECE, .len = PIECE },
	};
	int fd = open_file(O_RDONLY);

	(void)state;
	assert_int_equal(peerdma_read_opts(buf, fd, PIECE, 0, 0, NULL,
					   &result), PIECE);
	assert_int_equal(result.bytes_direct, PIECE);
	assert_int_equal(peerdma_readv(buf, fd, vecs, 2, NULL, &result),
			 2 * PIECE);
	assert_int_equal(result.bytes_direct, 2 * PIECE);
	assert_int_equal(fake_kernel.nr_peeks, 0);
	fake_kernel.resident = true;
	assert_int_equal(peerdma_read_opts(buf, fd, PIECE, 0, 0, NULL,
					   &result), PIECE);
	assert_int_equal(result.bytes_cached, PIECE);
	assert_int_equal(fake_kernel.nr_peeks, 1);
	close(fd);
}

/* Each part has a result, also where the request was never begun. */
static void parts_of_what_was_not_begun(void **state)
{
	struct peerdma_io_vec vecs[] = { { .len = PIECE }, { .len = 1 } };
	int fd = open_file(O_RDONLY);
	struct peerdma_io_request request = request_of(-1, 0, 0, 0);

	(void)state;
	make_queue(4, PEERDMA_QUEUE_NO_URING, 1);
	request.vecs = vecs;
	request.nr_vecs = 2;
	assert_int_equal(run(&request)->error, -EBADF);
	assert_int_equal(vecs[0].result, -EBADF);
	assert_int_equal(vecs[1].result, -EBADF);
	fake_kernel.gate = 1;
	submit_read(fd, 0, MIB, 1);
	await_gate(1);
	request.fd = fd;
	assert_int_equal(submit(&request), 1);
	assert_int_equal(peerdma_queue_cancel(queue, 0, 0), 1);
	assert_int_equal(reap_one()->error, -ECANCELED);
	assert_int_equal(vecs[0].result, -ECANCELED);
	assert_int_equal(vecs[1].result, -ECANCELED);
	fake_kernel_open_gate();
	assert_int_equal(reap_one()->result, MIB);
	peerdma_queue_destroy(queue);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(whole_blocks_go_by_the_ring),
		TEST(the_machines_own_ring_works),
		TEST(without_a_ring_threads_do_it),
		TEST(what_the_ring_leaves_goes_on),
		TEST(what_the_filesystem_copied_is_not_called_direct),
		TEST(scattered_parts_go_together),
		TEST(parts_have_results_of_their_own),
		TEST(parts_without_a_queue),
		TEST(whole_blocks_go_together),
		TEST(cold_reads_do_not_warm_the_page_cache),
		TEST(parts_of_what_was_not_begun),
		TEST(small_reads_become_few_copies),
		TEST(what_cannot_be_gathered_goes_alone),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
