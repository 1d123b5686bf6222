// SPDX-License-Identifier: MIT
/* What the queue promises. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "queue_fixture.h"

static void wrong_queues(void **state)
{
	PEERDMA_SIZED(peerdma_queue_opts, opts, .flags = 1u << 31);
	PEERDMA_SIZED(peerdma_queue_info, info);

	(void)state;
	assert_int_equal(peerdma_queue_create(ctx, 0, NULL, &queue), -EINVAL);
	assert_int_equal(peerdma_queue_create(ctx, PEERDMA_QUEUE_DEPTH_MAX + 1,
					      NULL, &queue), -EINVAL);
	assert_int_equal(peerdma_queue_create(ctx, 1, &opts, &queue),
			 -EOPNOTSUPP);
	opts.size = 0;
	assert_int_equal(peerdma_queue_create(ctx, 1, &opts, &queue), -EINVAL);
	peerdma_queue_destroy(NULL);
	make_queue(1, 0, 0);
	info.size = 1;
	assert_int_equal(peerdma_queue_info(queue, &info), -EINVAL);
	peerdma_queue_destroy(queue);
}

static void wrong_requests_are_not_taken(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	struct { struct peerdma_io_request request; char more; } newer = { 0 };
	struct peerdma_io_request r[2];
	struct peerdma_io_vec vec = { .len = 1 };
	struct peerdma *other;
	int fd = open_file(O_RDONLY);

	(void)state;
	make_queue(4, 0, 0);
	r[0] = request_of(fd, 0, 1, 0);
	assert_int_equal(peerdma_queue_submit(queue, r, 1, 1u << 31),
			 -EOPNOTSUPP);
	assert_int_equal(peerdma_queue_submit(queue, r, 0, 0), 0);
	r[0].flags = 1u << 31;
	assert_int_equal(submit(r), -EOPNOTSUPP);
	r[0] = request_of(fd, 0, 1, 0);
	r[0].path = PEERDMA_PATH_CACHE + 1;
	assert_int_equal(submit(r), -EOPNOTSUPP);
	r[0] = request_of(fd, 0, 1, 0);
	r[0].size = 0;
	assert_int_equal(submit(r), -EINVAL);
	r[0] = request_of(fd, 0, 1, 0);
	r[0].buf = NULL;
	assert_int_equal(submit(r), -EINVAL);
	r[0] = request_of(fd, 0, 1, 0);
	r[0].nr_vecs = 1;
	r[0].vecs = &vec;
	assert_int_equal(submit(r), -EINVAL);
	r[0].len = 0;
	r[0].vecs = NULL;
	assert_int_equal(submit(r), -EINVAL);
	newer.request = request_of(fd, 0, 1, 0);
	newer.request.size = sizeof(newer);
	newer.more = 1;
	assert_int_equal(submit(&newer.request), -E2BIG);
	/* The ones before it count. */
	r[0] = request_of(fd, 0, 1, 7);
	r[1] = request_of(fd, 0, 1, 8);
	r[1].size--;
	assert_int_equal(peerdma_queue_submit(queue, r, 2, 0), 1);
	assert_int_equal(reap_one()->user_data, 7);
	assert_int_equal(peerdma_open(&other, &opts), 0);
	peerdma_queue_destroy(queue);
	assert_int_equal(peerdma_queue_create(other, 1, NULL, &queue), 0);
	assert_int_equal(submit(r), -EINVAL);
	peerdma_queue_destroy(queue);
	peerdma_close(other);
	close(fd);
}

static void wrong_waits(void **state)
{
	struct timespec wrong = { .tv_nsec = 1000000000 };
	const struct timespec soon = { .tv_nsec = 1000 };

	(void)state;
	make_queue(4, 0, 0);
	assert_int_equal(peerdma_queue_reap(queue, done, 2, 1, NULL), -EINVAL);
	assert_int_equal(peerdma_queue_reap(queue, done, 5, 5, NULL), -EINVAL);
	assert_int_equal(peerdma_queue_reap(queue, done, 1, 1, &wrong),
			 -EINVAL);
	assert_int_equal(peerdma_queue_reap(queue, done, 0, 1, NULL), 0);
	assert_int_equal(peerdma_queue_reap(queue, done, 1, 1, &soon), 0);
	assert_int_equal(peerdma_queue_cancel(queue, 0, 0), -ENOENT);
	assert_int_equal(peerdma_queue_cancel(queue, 0, 1u << 31),
			 -EOPNOTSUPP);
	peerdma_queue_destroy(queue);
}

static void *open_gate_soon(void *arg)
{
	(void)arg;
	await_gate(1);
	usleep(10000);
	fake_kernel_open_gate();
	return NULL;
}

/* No clock goes so far. */
static void the_longest_wait(void **state)
{
	const struct timespec ever = { INT64_MAX, 999999999 };
	int fd = open_file(O_RDONLY);
	pthread_t thread;

	(void)state;
	make_queue(4, PEERDMA_QUEUE_NO_URING, 1);
	fake_kernel.gate = 1;
	submit_read(fd, 0, PIECE, 0);
	assert_int_equal(pthread_create(&thread, NULL, open_gate_soon, NULL),
			 0);
	assert_int_equal(peerdma_queue_reap(queue, done, 1, 1, &ever), 1);
	pthread_join(thread, NULL);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void expect_error(struct peerdma_io_request request, int error)
{
	const struct peerdma_completion *c = run(&request);

	assert_int_equal(c->result, error);
	assert_int_equal(c->error, error);
}

static void what_is_wrong_later_is_told_by_completions(void **state)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_READ_ONLY);
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDONLY), folder = open("/", O_RDONLY);
	struct peerdma_io_request request = request_of(fd, 0, 1, 0);
	struct peerdma_buffer *read_only;

	(void)state;
	make_queue(4, 0, 0);
	expect_error(request_of(-1, 0, 1, 0), -EBADF);
	expect_error(request_of(folder, 0, 1, 0), -EISDIR);
	expect_error(request_of(fd, 1, LEN, 0), -ERANGE);
	expect_error(request_of(fd, INT64_MAX, 1, 0), -EOVERFLOW);
	request.flags = PEERDMA_IO_WRITE;
	expect_error(request, -EBADF);
	assert_int_equal(peerdma_buffer_alloc(ctx, 1, &opts, &read_only), 0);
	request = request_of(fd, 0, 1, 0);
	request.buf = read_only;
	expect_error(request, -EACCES);
	peerdma_buffer_close(read_only);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.errors, 6);
	peerdma_queue_destroy(queue);
	close(folder);
	close(fd);
}

static void move_by(uint32_t way, uint32_t flags, int file_flags)
{
	static const char changed[] = { 'n', 'e', 'w', 'e', 'r' };
	const ssize_t nr = sizeof(changed);
	int fd = open_file(O_RDWR | file_flags);
	struct peerdma_io_request r[DEPTH];
	size_t piece = LEN / 32, i;
	uint64_t seen = 0, moved = 0;
	char back[64];

	make_queue(DEPTH, flags, 0);
	for (i = 0; i < 32; i++) {
		r[i] = request_of(fd, i * piece, piece, i);
		r[i].path = way;
	}
	memset(memory, 0, LEN);
	assert_int_equal(peerdma_queue_submit(queue, r, 32, 0), 32);
	assert_int_equal(peerdma_queue_reap(queue, done, 32, DEPTH, NULL), 32);
	for (i = 0; i < 32; i++) {
		assert_int_equal(done[i].result, piece);
		assert_int_equal(done[i].error, 0);
		moved += done[i].bytes_direct + done[i].bytes_staged +
			 done[i].bytes_cached;
		seen |= UINT64_C(1) << done[i].user_data;
	}
	assert_int_equal(seen, 0xffffffff);
	assert_int_equal(moved, LEN);
	assert_memory_equal(memory, content, LEN);
	/* The other way, and back to what it was. */
	memcpy(memory, changed, sizeof(changed));
	r[0].flags = PEERDMA_IO_WRITE;
	assert_int_equal(run(&r[0])->result, piece);
	assert_int_equal(pread(fd, back, nr, 0), file_flags ? -1 : nr);
	if (!file_flags)
		assert_memory_equal(back, changed, nr);
	memcpy(memory, content, nr);
	assert_int_equal(run(&r[0])->result, piece);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void every_path_both_ways(void **state)
{
	uint32_t way;

	(void)state;
	for (way = 0; way <= PEERDMA_PATH_CACHE; way++) {
		move_by(way, 0, 0);
		move_by(way, PEERDMA_QUEUE_NO_URING, 0);
	}
	move_by(PEERDMA_PATH_AUTO, 0, O_DIRECT);
	fake_kernel.resident = true;
	move_by(PEERDMA_PATH_AUTO, 0, 0);
}

static void errors_count_exactly(void **state)
{
	int fd = open_file(O_RDWR);
	struct peerdma_io_request request = request_of(fd, 0, LEN, 0);
	const struct peerdma_completion *c;

	(void)state;
	make_queue(4, 0, 0);
	request.path = PEERDMA_PATH_STAGED;
	fake_kernel.rw_errno = EIO;
	fake_kernel.rw_offset = 5 * MIB;
	c = run(&request);
	assert_int_equal(c->result, 5 * MIB);
	assert_int_equal(c->error, -EIO);
	assert_int_equal(c->bytes_staged, 5 * MIB);
	assert_memory_equal(memory, content, 5 * MIB);
	fake_kernel.rw_errno = ENOSPC;
	memcpy(memory, content, LEN);
	request.flags = PEERDMA_IO_WRITE;
	c = run(&request);
	assert_int_equal(c->result, 5 * MIB);
	assert_int_equal(c->error, -ENOSPC);
	fake_kernel.rw_offset = 0;
	c = run(&request);
	assert_int_equal(c->result, -ENOSPC);
	assert_int_equal(c->error, -ENOSPC);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void *reap_later(void *arg)
{
	(void)arg;
	await_gate(1);
	fake_kernel_open_gate();
	return (void *)(intptr_t)peerdma_queue_reap(queue, done, 1, 1, NULL);
}

static void a_full_queue_says_so(void **state)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	int fd = open_file(O_RDONLY);
	struct peerdma_io_request r[4];
	pthread_t thread;
	void *reaped;
	int i;

	(void)state;
	make_queue(3, PEERDMA_QUEUE_NO_URING, 1);
	for (i = 0; i < 4; i++)
		r[i] = request_of(fd, i * PIECE, PIECE, i);
	assert_int_equal(peerdma_queue_submit(queue, r, 4, 0), 3);
	assert_int_equal(submit(&r[3]), -EAGAIN);
	assert_int_equal(peerdma_queue_reap(queue, done, 3, 0, NULL), -EINVAL);
	assert_int_equal(peerdma_queue_info(queue, &info), 0);
	assert_int_equal(info.held, 3);
	/* Done is not enough: it must be reaped. */
	assert_int_equal(peerdma_queue_reap(queue, done, 3, 3, NULL), 3);
	assert_int_equal(submit(&r[3]), 1);
	assert_int_equal(reap_one()->user_data, 3);
	/* Or somebody waits. */
	fake_kernel.gate = 1;
	assert_int_equal(peerdma_queue_submit(queue, r, 3, 0), 3);
	assert_int_equal(pthread_create(&thread, NULL, reap_later, NULL), 0);
	assert_int_equal(peerdma_queue_submit(queue, &r[3], 1,
					      PEERDMA_SUBMIT_WAIT), 1);
	pthread_join(thread, &reaped);
	assert_int_equal((intptr_t)reaped, 1);
	assert_int_equal(peerdma_queue_reap(queue, done, 3, 3, NULL), 3);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void cancelled_requests_are_reaped(void **state)
{
	PEERDMA_SIZED(peerdma_stats, stats);
	int fd = open_file(O_RDONLY), i;

	(void)state;
	make_queue(8, PEERDMA_QUEUE_NO_URING, 1);
	fake_kernel.gate = 1;
	for (i = 0; i < 4; i++)
		submit_read(fd, i * PIECE, PIECE, i / 2);
	await_gate(1);
	/* The second one, since the first has begun. */
	assert_int_equal(peerdma_queue_cancel(queue, 0, 0), 2);
	assert_int_equal(reap_one()->result, -ECANCELED);
	assert_int_equal(done[0].error, -ECANCELED);
	assert_int_equal(done[0].user_data, 0);
	assert_int_equal(peerdma_queue_cancel(queue, 5, 0), -ENOENT);
	assert_int_equal(peerdma_queue_cancel(queue, 0, PEERDMA_CANCEL_ALL), 3);
	assert_int_equal(peerdma_queue_reap(queue, done, 2, 4, NULL), 2);
	assert_int_equal(done[0].user_data, 1);
	assert_int_equal(done[1].user_data, 1);
	fake_kernel_open_gate();
	/* A drive cannot be called back. */
	assert_int_equal(reap_one()->result, PIECE);
	assert_int_equal(done[0].error, 0);
	assert_int_equal(peerdma_queue_cancel(queue, 0, PEERDMA_CANCEL_ALL),
			 -ENOENT);
	assert_int_equal(fake_kernel.nr_file_io, 1);
	assert_int_equal(peerdma_context_stats(ctx, &stats), 0);
	assert_int_equal(stats.errors, 3);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void cancelled_on_the_way_counts_exactly(void **state)
{
	int fd = open_file(O_RDONLY);
	const struct peerdma_completion *c;
	uint32_t flags;

	(void)state;
	for (flags = 0; flags <= PEERDMA_QUEUE_NO_URING; flags++) {
		make_queue(8, flags, 1);
		memset(memory, 0, LEN);
		fake_kernel.gate = 1;
		fake_kernel.io_limit = 2 * PIECE;
		submit_read(fd, 0, MIB, 0);
		await_gate(1);
		assert_int_equal(peerdma_queue_cancel(queue, 0, 0), 1);
		fake_kernel_open_gate();
		c = reap_one();
		assert_int_equal(c->result, 2 * PIECE);
		assert_int_equal(c->error, -ECANCELED);
		assert_memory_equal(memory, content, 2 * PIECE);
		assert_int_equal(memory[2 * PIECE], 0);
		peerdma_queue_destroy(queue);
	}
	close(fd);
}

static bool is_asleep(pid_t thread)
{
	char path[64], state = '?';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
	fclose(file);
	return state == 'S';
}

/* The thread that ends the queue; 0 until it is about to. */
static atomic_int ender;

/* Who ends a queue sleeps only after it has told everybody to stop. */
static void *open_gate_later(void *unused)
{
	pid_t thread;

	(void)unused;
	while (!(thread = atomic_load(&ender)))
		usleep(100);
	while (!is_asleep(thread))
		usleep(100);
	fake_kernel_open_gate();
	return NULL;
}

static void its_end_waits_for_what_has_begun(void **state)
{
	int fd = open_file(O_RDONLY), i;
	pthread_t thread;
	uint32_t flags;

	(void)state;
	for (flags = 0; flags <= PEERDMA_QUEUE_NO_URING; flags++) {
		intptr_t begun = flags ? 2 : 8;

		fake_kernel.nr_file_io = 0;
		fake_kernel.gate = 1;
		make_queue(8, flags, 2);
		for (i = 0; i < 8; i++)
			submit_read(fd, i * PIECE, PIECE, i);
		assert_int_equal(pthread_create(&thread, NULL, open_gate_later,
						NULL), 0);
		await_gate(begun);
		atomic_store(&ender, gettid());
		peerdma_queue_destroy(queue);
		/* Closed memory would be a fault from here on. */
		assert_int_equal(fake_kernel_in_gate(), 0);
		assert_int_equal(fake_kernel.nr_file_io, begun);
		pthread_join(thread, NULL);
		atomic_store(&ender, 0);
	}
	close(fd);
}

static void await_done(unsigned int nr)
{
	PEERDMA_SIZED(peerdma_queue_info, info);

	while (info.done < nr) {
		usleep(100);
		assert_int_equal(peerdma_queue_info(queue, &info), 0);
	}
}

static bool is_readable(int event_fd)
{
	struct pollfd fd = { .fd = event_fd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static void the_eventfd_is_readable_while_there_is_something(void **state)
{
	int fd = open_file(O_RDONLY), event_fd, i;
	struct pollfd wait = { .events = POLLIN };
	uint64_t count;

	(void)state;
	make_queue(8, 0, 0);
	submit_read(fd, 0, PIECE, 0);
	assert_int_equal(peerdma_queue_reap(queue, done, 1, 1, NULL), 1);
	event_fd = peerdma_queue_eventfd(queue);
	assert_true(event_fd >= 0);
	assert_true(fcntl(event_fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(peerdma_queue_eventfd(queue), event_fd);
	assert_false(is_readable(event_fd));
	wait.fd = event_fd;
	for (i = 0; i < 3; i++) {
		submit_read(fd, 0, PIECE, 0);
		assert_int_equal(poll(&wait, 1, -1), 1);
		assert_int_equal(peerdma_queue_reap(queue, done, 0, 8, NULL),
				 1);
		assert_false(is_readable(event_fd));
	}
	for (i = 0; i < 3; i++)
		submit_read(fd, 0, PIECE, 0);
	await_done(3);
	/* Also for a caller who reads it. */
	assert_int_equal(read(event_fd, &count, sizeof(count)), sizeof(count));
	reap_one();
	assert_int_equal(poll(&wait, 1, -1), 1);
	assert_int_equal(peerdma_queue_reap(queue, done, 2, 8, NULL), 2);
	assert_false(is_readable(event_fd));
	/* One that is asked for late. */
	peerdma_queue_destroy(queue);
	make_queue(8, 0, 0);
	submit_read(fd, 0, PIECE, 0);
	submit_read(fd, 0, PIECE, 0);
	reap_one();
	wait.fd = peerdma_queue_eventfd(queue);
	assert_int_equal(poll(&wait, 1, -1), 1);
	reap_one();
	assert_false(is_readable(wait.fd));
	peerdma_queue_destroy(queue);
	close(fd);
}

static void a_child_has_no_queue(void **state)
{
	int fd = open_file(O_RDONLY), status;
	struct peerdma_io_request request = request_of(fd, 0, PIECE, 0);
	pid_t child;

	(void)state;
	make_queue(8, 0, 0);
	submit_read(fd, 0, PIECE, 1);
	reap_one();
	child = fork();
	if (!child) {
		PEERDMA_SIZED(peerdma_queue_info, info);
		bool good = submit(&request) == -ECHILD &&
			    peerdma_queue_reap(queue, done, 1, 1, NULL) ==
				    -ECHILD &&
			    peerdma_queue_cancel(queue, 0, 0) == -ECHILD &&
			    peerdma_queue_eventfd(queue) == -ECHILD &&
			    peerdma_queue_info(queue, &info) == -ECHILD;

		peerdma_queue_destroy(queue);
		_exit(!good);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(run(&request)->result, PIECE);
	peerdma_queue_destroy(queue);
	close(fd);
}

static void nothing(int number)
{
	(void)number;
}

static void signals_lose_nothing(void **state)
{
	struct itimerval often = {
		.it_interval.tv_usec = 200,
		.it_value.tv_usec = 200,
	};
	const struct itimerval never = { .it_value.tv_usec = 0 };
	int fd = open_file(O_RDONLY), i;

	(void)state;
	make_queue(DEPTH, 0, 0);
	fake_kernel.interrupts = 5;
	signal(SIGALRM, nothing);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	for (i = 0; i < 64; i++)
		submit_read(fd, i * LEN / 64, LEN / 64, i);
	assert_int_equal(peerdma_queue_reap(queue, done, 64, 64, NULL), 64);
	setitimer(ITIMER_REAL, &never, NULL);
	for (i = 0; i < 64; i++)
		assert_int_equal(done[i].result, LEN / 64);
	assert_memory_equal(memory, content, LEN);
	peerdma_queue_destroy(queue);
	close(fd);
}

#define NR_THREADS	4
#define ROUNDS		300

static atomic_int nr_left;
static int shared_fd;

static void *submit_many(void *arg)
{
	struct peerdma_io_request r[2];
	uint64_t at;
	int i, n;

	for (i = 0; i < ROUNDS; i++) {
		at = ((intptr_t)arg * ROUNDS + i) * PIECE;
		r[0] = request_of(shared_fd, at, i % 3 ? PIECE : PIECE - 1, 1);
		while ((n = submit(r)) == -EAGAIN)
			sched_yield();
		if (n != 1)
			abort();
		if (i % 16 == 7)
			peerdma_queue_cancel(queue, 2, 0);
	}
	return NULL;
}

static void *reap_many(void *arg)
{
	const struct timespec soon = { .tv_nsec = 1000000 };
	struct peerdma_completion c[8];
	intptr_t wrong = 0;
	int i, n;

	(void)arg;
	while (atomic_load(&nr_left) > 0) {
		n = peerdma_queue_reap(queue, c, 1, 8, &soon);
		for (i = 0; i < n; i++)
			wrong += c[i].result < (int64_t)PIECE - 1;
		atomic_fetch_sub(&nr_left, n);
	}
	return (void *)wrong;
}

static void many_threads_share_it(void **state)
{
	pthread_t submitters[NR_THREADS], reapers[2];
	void *wrong;
	intptr_t i;

	(void)state;
	shared_fd = open_file(O_RDONLY);
	make_queue(16, 0, 0);
	assert_true(peerdma_queue_eventfd(queue) >= 0);
	atomic_store(&nr_left, NR_THREADS * ROUNDS);
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&reapers[i], NULL, reap_many,
						NULL), 0);
	for (i = 0; i < NR_THREADS; i++)
		assert_int_equal(pthread_create(&submitters[i], NULL,
						submit_many, (void *)i), 0);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(submitters[i], NULL);
	for (i = 0; i < 2; i++) {
		pthread_join(reapers[i], &wrong);
		assert_int_equal((intptr_t)wrong, 0);
	}
	assert_int_equal(atomic_load(&nr_left), 0);
	for (i = 0; i < NR_THREADS * ROUNDS; i++)
		assert_memory_equal(memory + i * PIECE, content + i * PIECE,
				    PIECE - 1);
	peerdma_queue_destroy(queue);
	close(shared_fd);
}

static void it_holds_its_context(void **state)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE,
		.keep = PEERDMA_KEEP_NONE);
	struct peerdma *other;

	(void)state;
	assert_int_equal(peerdma_open(&other, &opts), 0);
	assert_int_equal(peerdma_queue_create(other, 4, NULL, &queue), 0);
	peerdma_close(other);
	assert_int_equal(peerdma_queue_reap(queue, done, 0, 4, NULL), 0);
	peerdma_queue_destroy(queue);
}

static void host_memory_goes_too(void **state)
{
	static unsigned char host[64 * 1024];
	int fd = open_file(O_RDWR);
	struct peerdma_io_request request = request_of(fd, 5, 50000, 0);

	(void)state;
	make_queue(4, 0, 0);
	assert_int_equal(peerdma_buffer_host(ctx, host, sizeof(host), NULL,
					     &request.buf), 0);
	assert_int_equal(run(&request)->result, 50000);
	assert_memory_equal(host + 5, content + 5, 50000);
	request.flags = PEERDMA_IO_WRITE;
	assert_int_equal(run(&request)->result, 50000);
	peerdma_buffer_close(request.buf);
	peerdma_queue_destroy(queue);
	close(fd);
}

/* The fake's own two stay. */
static void no_descriptor_stays_open(void **state)
{
	int before, fd = open_file(O_RDONLY);

	(void)state;
	make_queue(4, 0, 0);
	peerdma_queue_destroy(queue);
	before = fake_kernel_count_fds();
	make_queue(4, 0, 0);
	assert_true(peerdma_queue_eventfd(queue) >= 0);
	submit_read(fd, 0, PIECE, 0);
	submit_read(fd, 1, LEN / 2, 0);
	submit_read(-1, 1, LEN / 2, 0);
	peerdma_queue_destroy(queue);
	assert_int_equal(fake_kernel_count_fds(), before);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(wrong_queues),
		TEST(wrong_requests_are_not_taken),
		TEST(wrong_waits),
		TEST(the_longest_wait),
		TEST(what_is_wrong_later_is_told_by_completions),
		TEST(every_path_both_ways),
		TEST(errors_count_exactly),
		TEST(a_full_queue_says_so),
		TEST(cancelled_requests_are_reaped),
		TEST(cancelled_on_the_way_counts_exactly),
		TEST(its_end_waits_for_what_has_begun),
		TEST(the_eventfd_is_readable_while_there_is_something),
		TEST(a_child_has_no_queue),
		TEST(signals_lose_nothing),
		TEST(many_threads_share_it),
		TEST(it_holds_its_context),
		TEST(host_memory_goes_too),
		TEST(no_descriptor_stays_open),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
