// SPDX-License-Identifier: MIT
/* Requests in the order of a stream: after what is before, before what follows. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <peerdma.h>

#include "fake_cuda.h"
#include "fake_kernel.h"
#include "stream_gate.h"

#define LEN	((size_t)1 << 20)
#define PIECE	((size_t)4096)
/* Milliseconds to wait for what another thread does; then it will not come. */
#define PATIENCE	20000

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static struct peerdma_queue *queue;
static unsigned char *memory;	/* of buf */
static unsigned char content[LEN];
static unsigned char seen[LEN];	/* of the memory, by the stream */
static char path[] = "/var/tmp/peerdma-XXXXXX";
static atomic_int reached;
static int fd;

static int set_up(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	PEERDMA_SIZED(peerdma_buffer_info, info);

	(void)state;
	fake_kernel_memory();
	fake_kernel_reset();
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100 };
	if (peerdma_open(&ctx, &opts) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_buffer_info(buf, &info))
		return -1;
	memory = fake_cuda_memory(info.device_addr);
	memset(memory, 0, LEN);
	atomic_store(&reached, 0);
	fd = open(path, O_RDWR);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	drain_stream();
	close(fd);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	assert_int_equal(fake_cuda.allocations, 0);
	assert_int_equal(fake_cuda.host_allocations, 0);
	assert_int_equal(fake_cuda.streams, 0);
	assert_int_equal(fake_cuda.depth, 0);
	return 0;
}

static void look(void *arg)
{
	(void)arg;
	memcpy(seen, memory, LEN);
	atomic_fetch_add(&reached, 1);
}

static void scribble(void *arg)
{
	memset(memory, (intptr_t)arg, LEN);
}

static void await(int nr)
{
	while (atomic_load(&reached) < nr)
		usleep(100);
}

static struct peerdma_io_request request_of(uint32_t flags)
{
	return (struct peerdma_io_request){
		.size = sizeof(struct peerdma_io_request),
		.flags = PEERDMA_IO_STREAM | flags,
		.stream = fake_cuda_stream(),
		.buf = buf,
		.fd = fd,
		.len = LEN,
	};
}

static int submit(const struct peerdma_io_request *request)
{
	return peerdma_queue_submit(queue, request, 1, 0);
}

static struct peerdma_completion reap(void)
{
	struct peerdma_completion done;

	assert_int_equal(peerdma_queue_reap(queue, &done, 1, 1, NULL), 1);
	return done;
}

static void order(void)
{
	struct peerdma_io_request read = request_of(0);
	struct peerdma_io_request write = request_of(PEERDMA_IO_WRITE);
	static unsigned char back[LEN];
	struct peerdma_completion done;
	int round;

	for (round = 1; round <= 20; round++) {
		memset(seen, 0, LEN);
		hold_stream();
		launch(scribble, (void *)(intptr_t)round);
		assert_int_equal(submit(&write), 1);
		launch(scribble, (void *)(intptr_t)77);
		assert_int_equal(submit(&read), 1);
		launch(look, NULL);
		launch(scribble, (void *)(intptr_t)88);
		assert_int_equal(peerdma_queue_reap(queue, &done, 0, 1, NULL),
				 0);
		atomic_store(&gate, 0);
		assert_int_equal(reap().result, LEN);
		assert_int_equal(reap().result, LEN);
		await(round);
		assert_int_equal(pread(fd, back, LEN, 0), LEN);
		memset(content, round, LEN);
		assert_memory_equal(back, content, LEN);
		assert_memory_equal(seen, content, LEN);
	}
}

static void in_order_with_the_stream(void **state)
{
	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 2, NULL, &queue), 0);
	order();
	peerdma_queue_destroy(queue);
}

static void streams_that_wait_for_no_word(void **state)
{
	(void)state;
	fake_cuda.no_wait_value = true;
	assert_int_equal(peerdma_queue_create(ctx, 2, NULL, &queue), 0);
	order();
	peerdma_queue_destroy(queue);
}

static void errors_do_not_stop_it(void **state)
{
	struct peerdma_io_request request = request_of(0);

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 4, NULL, &queue), 0);
	request.fd = -1;
	assert_int_equal(submit(&request), 1);
	launch(look, NULL);
	await(1);
	assert_int_equal(reap().error, -EBADF);
	request = request_of(0);
	request.path = PEERDMA_PATH_STAGED;
	fake_kernel.rw_errno = EIO;
	assert_int_equal(submit(&request), 1);
	launch(look, NULL);
	await(2);
	assert_int_equal(reap().result, -EIO);
	peerdma_queue_destroy(queue);
}

static void wrong_requests(void **state)
{
	struct peerdma_io_request request = request_of(0);
	struct peerdma_buffer *host;

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 1, NULL, &queue), 0);
	request.flags = 0;
	assert_int_equal(submit(&request), -EINVAL);
	request = request_of(0);
	assert_int_equal(peerdma_buffer_host(ctx, content, LEN, NULL, &host),
			 0);
	request.buf = host;
	assert_int_equal(submit(&request), -EINVAL);
	peerdma_buffer_close(host);
	/* A stream that CUDA does not know: the queue is as it was. */
	request = request_of(0);
	request.stream = &request;
	assert_int_equal(submit(&request), -EINVAL);
	request = request_of(0);
	assert_int_equal(submit(&request), 1);
	assert_int_equal(submit(&request), -EAGAIN);
	assert_int_equal(reap().result, LEN);
	peerdma_queue_destroy(queue);
}

static void cancelled_before_the_stream_comes(void **state)
{
	struct peerdma_io_request request = request_of(0);

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 2, NULL, &queue), 0);
	hold_stream();
	assert_int_equal(submit(&request), 1);
	launch(look, NULL);
	assert_int_equal(peerdma_queue_cancel(queue, 0, 0), 1);
	assert_int_equal(atomic_load(&reached), 0);
	atomic_store(&gate, 0);
	assert_int_equal(reap().result, -ECANCELED);
	await(1);
	assert_int_equal(seen[0], 0);
	peerdma_queue_destroy(queue);
}

static void its_end_waits_for_the_stream(void **state)
{
	struct peerdma_io_request request = request_of(0);
	pthread_t thread;
	int kind;

	(void)state;
	for (kind = 0; kind < 2; kind++) {
		fake_cuda.no_wait_value = kind;
		assert_int_equal(peerdma_queue_create(ctx, 2, NULL, &queue), 0);
		hold_stream();
		assert_int_equal(submit(&request), 1);
		assert_int_equal(submit(&request), 1);
		launch(look, NULL);
		assert_int_equal(pthread_create(&thread, NULL, open_gate_later,
						NULL), 0);
		peerdma_queue_destroy(queue);
		assert_int_equal(atomic_load(&gate), 0);
		pthread_join(thread, NULL);
		await(kind + 1);
	}
}

static void a_dead_context_ends_them(void **state)
{
	struct peerdma_io_request request = request_of(0);

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 4, NULL, &queue), 0);
	hold_stream();
	assert_int_equal(submit(&request), 1);
	assert_int_equal(submit(&request), 1);
	fake_cuda_kill();
	assert_int_equal(reap().result, -EIO);
	assert_int_equal(reap().error, -EIO);
	atomic_store(&gate, 0);
	peerdma_queue_destroy(queue);
	/* Once more, for its end to notice. */
	drain_stream();
	fake_cuda.dead = false;
	assert_int_equal(peerdma_queue_create(ctx, 4, NULL, &queue), 0);
	hold_stream();
	assert_int_equal(submit(&request), 1);
	assert_int_equal(submit(&request), 1);
	fake_cuda_kill();
	atomic_store(&gate, 0);
	peerdma_queue_destroy(queue);
}

/* Who waits by poll(2), and never in a call, is told too. */
static void a_dead_context_is_told_by_the_eventfd(void **state)
{
	struct peerdma_io_request request = request_of(0);
	struct peerdma_completion done;
	struct pollfd event = { .events = POLLIN };

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 4, NULL, &queue), 0);
	event.fd = peerdma_queue_eventfd(queue);
	hold_stream();
	assert_int_equal(submit(&request), 1);
	fake_cuda_kill();
	assert_int_equal(poll(&event, 1, 60000), 1);
	assert_int_equal(peerdma_queue_reap(queue, &done, 0, 1, NULL), 1);
	assert_int_equal(done.error, -EIO);
	atomic_store(&gate, 0);
	peerdma_queue_destroy(queue);
}

static void *submit_thread(void *arg)
{
	return (void *)(intptr_t)submit(arg);
}

static void *submit_and_wait_thread(void *arg)
{
	return (void *)(intptr_t)peerdma_queue_submit(queue, arg, 1,
						      PEERDMA_SUBMIT_WAIT);
}

static intptr_t join(pthread_t thread)
{
	void *result;

	assert_int_equal(pthread_join(thread, &result), 0);
	return (intptr_t)result;
}

/* Its entry is free again, and somebody waits for that. */
static void a_failed_one_makes_room(void **state)
{
	struct peerdma_io_request wrong = request_of(0), request = wrong;
	pthread_t threads[2];

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 1, NULL, &queue), 0);
	wrong.stream = &wrong;
	atomic_store(&fake_cuda.hold_launch, 1);
	assert_int_equal(pthread_create(&threads[0], NULL, submit_thread,
					&wrong), 0);
	while (atomic_load(&fake_cuda.hold_launch) != 2)
		usleep(100);
	assert_int_equal(pthread_create(&threads[1], NULL,
					submit_and_wait_thread, &request), 0);
	usleep(20000);
	atomic_store(&fake_cuda.hold_launch, 0);
	assert_int_equal(join(threads[0]), -EINVAL);
	assert_int_equal(join(threads[1]), 1);
	assert_int_equal(reap().result, LEN);
	peerdma_queue_destroy(queue);
}

static void *reap_thread(void *arg)
{
	const struct timespec most = { .tv_nsec = 500000000 };

	return (void *)(intptr_t)peerdma_queue_reap(queue, arg, 1, 1, &most);
}

/* While its entry is used again nobody may take it for the one before. */
static void a_dead_one_ends_once(void **state)
{
	struct peerdma_io_request request = request_of(0);
	struct peerdma_completion done;
	pthread_t threads[2];

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 1, NULL, &queue), 0);
	hold_stream();
	assert_int_equal(submit(&request), 1);
	fake_cuda_kill();
	assert_int_equal(reap().error, -EIO);
	atomic_store(&fake_cuda.hold_synchronize, 1);
	assert_int_equal(pthread_create(&threads[0], NULL, submit_thread,
					&request), 0);
	while (atomic_load(&fake_cuda.hold_synchronize) != 2)
		usleep(100);
	assert_int_equal(pthread_create(&threads[1], NULL, reap_thread, &done),
			 0);
	assert_int_equal(join(threads[1]), 0);
	atomic_store(&gate, 0);
	atomic_store(&fake_cuda.hold_synchronize, 0);
	assert_true(join(threads[0]) < 0);
	peerdma_queue_destroy(queue);
}

/* CUDA may wait for a host function, which waits for nothing that we hold. */
static void looking_holds_nothing(void **state)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	struct peerdma_io_request request = request_of(0);
	struct peerdma_completion done;
	pthread_t thread;

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 4, NULL, &queue), 0);
	hold_stream();
	atomic_store(&fake_cuda.strict, 1);
	assert_int_equal(submit(&request), 1);
	assert_int_equal(pthread_create(&thread, NULL, reap_thread, &done), 0);
	while (atomic_load(&fake_cuda.strict) == 1)
		usleep(100);
	assert_int_equal(peerdma_queue_info(queue, &info), 0);
	assert_int_equal(info.held, 1);
	atomic_store(&gate, 0);
	if (!join(thread))
		done = reap();
	assert_int_equal(done.result, LEN);
	peerdma_queue_destroy(queue);
	atomic_store(&fake_cuda.strict, 0);
}

/* Nothing is pinned for it once its stream waits. */
static void a_second_gpu(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	struct peerdma_io_request request;
	struct peerdma_buffer *near, *far;
	struct peerdma *other;
	int pinned;

	(void)state;
	fake_cuda.nr_gpus = 2;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	assert_int_equal(peerdma_queue_create(other, 4, NULL, &queue), 0);
	assert_int_equal(peerdma_buffer_alloc(other, LEN, NULL, &near), 0);
	request = request_of(0);
	request.buf = near;
	assert_int_equal(submit(&request), 1);
	assert_int_equal(reap().result, LEN);
	fake_cuda.ordinal = 1;
	fake_cuda.no_context = true;
	assert_int_equal(peerdma_buffer_alloc(other, LEN, NULL, &far), 0);
	hold_stream();
	request.buf = far;
	request.path = PEERDMA_PATH_STAGED;
	assert_int_equal(submit(&request), 1);
	pinned = fake_cuda.host_allocations;
	atomic_store(&gate, 0);
	assert_int_equal(reap().result, LEN);
	assert_int_equal(fake_cuda.host_allocations, pinned);
	peerdma_queue_destroy(queue);
	peerdma_buffer_close(far);
	peerdma_buffer_close(near);
	peerdma_close(other);
}

/* What is read again is not pinned while a stream waits. */
static void pinning_can_wait(void **state)
{
	struct peerdma_io_request request = request_of(0);
	int i;

	(void)state;
	fake_kernel.resident = true;
	fake_kernel.fs_type = EXT4_SUPER_MAGIC;
	assert_int_equal(peerdma_queue_create(ctx, 4, NULL, &queue), 0);
	hold_stream();
	assert_int_equal(submit(&request), 1);
	for (i = 0; i < 50; i++) {
		assert_int_equal(peerdma_read(buf, fd, LEN, 0, 0), LEN);
		usleep(1000);
	}
	assert_int_equal(fake_cuda.registrations, 0);
	atomic_store(&gate, 0);
	assert_int_equal(reap().result, LEN);
	for (i = 0; i < PATIENCE && !fake_cuda.registrations; i++)
		usleep(1000);
	assert_int_equal(fake_cuda.registrations, 1);
	/* And so is letting it go. */
	hold_stream();
	assert_int_equal(submit(&request), 1);
	atomic_store(&fake_kernel.clock_ahead, 11);
	usleep(700000);
	assert_int_equal(fake_cuda.registrations, 1);
	atomic_store(&gate, 0);
	assert_int_equal(reap().result, LEN);
	/* Whoever looks late finds that it was used when the clock went on. */
	atomic_store(&fake_kernel.clock_ahead, 22);
	for (i = 0; i < PATIENCE && fake_cuda.registrations; i++)
		usleep(1000);
	assert_int_equal(fake_cuda.registrations, 0);
	peerdma_queue_destroy(queue);
}

static int make_file(void **state)
{
	int file = mkstemp(path);

	(void)state;
	memset(content, 1, LEN);
	if (write(file, content, LEN) != (ssize_t)LEN)
		return -1;
	return close(file);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(in_order_with_the_stream),
		TEST(streams_that_wait_for_no_word),
		TEST(errors_do_not_stop_it),
		TEST(wrong_requests),
		TEST(cancelled_before_the_stream_comes),
		TEST(its_end_waits_for_the_stream),
		TEST(a_second_gpu),
		TEST(pinning_can_wait),
		TEST(a_dead_context_ends_them),
		TEST(a_dead_context_is_told_by_the_eventfd),
		TEST(a_failed_one_makes_room),
		TEST(a_dead_one_ends_once),
		TEST(looking_holds_nothing),
	};

	/* What hangs is red, too. */
	alarm(300);
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
