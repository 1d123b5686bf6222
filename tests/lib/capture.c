// SPDX-License-Identifier: MIT
/*
 * While the program records a CUDA graph, in the mode that forbids other threads
 * most, requests are in flight on all paths, and neither knows of the other.
 */
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "io_fixture.h"

static struct peerdma_queue *queue;
static struct peerdma_io_result result = { .size = sizeof(result) };

/* The recording is whole, and this thread is as it was. */
static void expect_whole(void)
{
	int mode = 0;

	assert_int_equal(fake_cuda.broken_captures, 0);
	assert_int_equal(cuThreadExchangeStreamCaptureMode(&mode), 0);
	assert_int_equal(mode, 0);
}

/* Everything is made anew while the recording is on. */
static int set_up_recording(void **state)
{
	(void)state;
	fake_kernel_reset();
	fake_kernel.fs_type = EXT4_SUPER_MAGIC;
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .flush_options = 1 };
	atomic_store(&fake_cuda.capturing, true);
	return open_context(0);
}

static int tear_down_recording(void **state)
{
	(void)state;
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	expect_whole();
	return fake_cuda_leaks();
}

static void read_all(int fd, size_t len)
{
	memset(memory, 0, len);
	assert_int_equal(peerdma_read_opts(buf, fd, len, 0, 0, NULL, &result),
			 len);
	assert_int_equal(result.error, 0);
	assert_memory_equal(memory, content, len);
	expect_whole();
}

static const size_t lengths[] = { 4096, 64 << 10, 1 << 20, 16 << 20 };

static void reads_and_writes(void **state)
{
	int flags, resident, fd;
	unsigned int i;

	(void)state;
	for (flags = O_RDWR; flags <= (O_RDWR | O_DIRECT); flags += O_DIRECT)
		for (resident = 0; resident < 2; resident++)
			for (i = 0; i < 4; i++) {
				fd = open_file(flags);
				fake_kernel.resident = resident;
				/* The direct path, and then the stage. */
				fake_kernel.probe_errno = i % 2 ? EREMOTEIO : 0;
				fake_kernel.io_reason =
					PEERDMA_REASON_HOST_BRIDGE;
				read_all(fd, lengths[i]);
				assert_int_equal(peerdma_write(buf, fd,
							lengths[i], 0, 0),
						 lengths[i]);
				expect_whole();
				close(fd);
			}
}

static void copies(void **state)
{
	char text[] = "nothing of it is recorded", back[sizeof(text)];

	(void)state;
	assert_int_equal(peerdma_buffer_copy_in(buf, 5, text, sizeof(text)),
			 0);
	assert_int_equal(peerdma_buffer_copy_out(buf, 5, back, sizeof(text)),
			 0);
	assert_string_equal(back, text);
}

static void holes(void **state)
{
	char name[] = "/var/tmp/peerdma-XXXXXX";
	int fd = mkstemp(name);

	(void)state;
	assert_int_equal(ftruncate(fd, MIB), 0);
	assert_int_equal(peerdma_read_opts(buf, fd, MIB, 0, 0, NULL, &result),
			 MIB);
	assert_int_equal(result.bytes_zeroed, MIB);
	unlink(name);
	close(fd);
}

static void regions(void **state)
{
	struct peerdma_region *region;
	int fd = open_file(O_RDONLY);

	(void)state;
	fake_kernel.resident = true;
	assert_int_equal(peerdma_region_open(ctx, fd, 0, LEN, NULL, &region),
			 0);
	read_all(fd, LEN);
	assert_int_equal(result.bytes_registered, LEN);
	peerdma_region_close(region);
	expect_whole();
	close(fd);
}

static void what_is_kept(void **state)
{
	int fd = open_file(O_RDONLY), i;

	(void)state;
	fake_kernel.resident = true;
	for (i = 0; i < 2000; i++) {
		read_all(fd, LEN);
		if (result.bytes_registered == LEN)
			break;
		usleep(1000);
	}
	assert_int_equal(result.bytes_registered, LEN);
	close(fd);
}

static void queues(void **state)
{
	struct peerdma_completion done[64];
	struct peerdma_io_request r[64];
	int fd = open_file(O_RDONLY), i, round;

	(void)state;
	fake_kernel.uring = true;
	assert_int_equal(peerdma_queue_create(ctx, 64, NULL, &queue), 0);
	memset(memory, 0, LEN);
	for (round = 0; round < 4; round++) {
		fake_kernel.resident = round & 1;
		for (i = 0; i < 64; i++)
			r[i] = (struct peerdma_io_request){
				.size = sizeof(r[i]), .buf = buf, .fd = fd,
				.file_offset = i * 400 * 1024,
				.buffer_offset = i * 400 * 1024,
				.len = round & 2 ? 400 * 1024 : 4096,
				.flags = round == 3 ? PEERDMA_IO_STREAM : 0,
				.stream = round == 3 ? fake_cuda_stream() :
						       NULL,
			};
		assert_int_equal(peerdma_queue_submit(queue, r, 64, 0), 64);
		assert_int_equal(peerdma_queue_reap(queue, done, 64, 64, NULL),
				 64);
		for (i = 0; i < 64; i++)
			assert_int_equal(done[i].result, r[i].len);
		expect_whole();
	}
	assert_memory_equal(memory, content, 64 * 400 * 1024);
	peerdma_queue_destroy(queue);
	close(fd);
}

#define RECORDED(name)	cmocka_unit_test_setup_teardown(name, \
				set_up_recording, tear_down_recording)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RECORDED(reads_and_writes),
		RECORDED(copies),
		RECORDED(holes),
		RECORDED(regions),
		RECORDED(what_is_kept),
		RECORDED(queues),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
