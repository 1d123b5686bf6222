// SPDX-License-Identifier: MIT
/*
 * What is particular to FILE_IO as an io_uring command: many at once, links,
 * cancellation, rings of other kinds, and a ring that goes away.
 *
 * usage: uapi_uring [CASE...], with an ext4 mounted at /mnt
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "../t_counters.h"
#include "../t_sysfs.h"
#include "../t_transfer.h"
#include "../t_uring.h"

#define PAGE		4096u
#define LEN		(16u << 20)
#define NR		32
#define FILL		0xc3
#define UNTOUCHED	(-1234567)

static int dev, file;
static struct io_uring ring;
static struct t_buffer buffer;
static unsigned char *bytes;

/* One command: the struct and array that must stay until it ends. */
struct command {
	struct peerdma_file_io io;
	struct peerdma_file_segment segment;
};

static struct peerdma_file_io *prepare(struct command *command, uint32_t flags,
				       int fd, uint64_t at, uint64_t len)
{
	command->segment = (struct peerdma_file_segment){
		at, at, len, UNTOUCHED,
	};
	command->io = (struct peerdma_file_io){
		.size = sizeof(command->io),
		.flags = flags,
		.buffer_fd = buffer.fd,
		.file_fd = fd,
		.segments = (uintptr_t)&command->segment,
		.nr_segments = 1,
	};
	return &command->io;
}

/* The whole file in pieces of @len, all in flight; how many came whole. */
static int move_all(struct io_uring *with, uint32_t flags, int fd, uint64_t len)
{
	struct command *commands = calloc(LEN / len, sizeof(*commands));
	int nr = LEN / len, whole = 0, sent = 0, taken = 0;

	while (taken < nr) {
		while (sent < nr && sent - taken < NR) {
			t_ring_put(with, dev, prepare(&commands[sent], flags,
						      fd, sent * len, len), 1);
			sent++;
		}
		io_uring_submit(with);
		whole += t_ring_take(with, NULL) == (long long)len;
		taken++;
	}
	free(commands);
	return whole;
}

/* The file into the buffer and out of it into another one, in pieces of @len. */
static void check_ring(struct io_uring *with, uint64_t len, const char *what)
{
	unsigned char *ram = t_ram(LEN);
	int copy = t_open("/mnt/copy", O_RDWR | O_CREAT | O_DIRECT);

	t_gpu_set(buffer.ptr, FILL, LEN);
	t_is(move_all(with, T_READ, file, len), LEN / len,
	     "%s: reads of %" PRIu64, what, len);
	t_gpu_same(buffer.ptr, bytes, LEN, "... bring the file");
	t_is(move_all(with, T_WRITE, copy, len), LEN / len,
	     "%s: writes of %" PRIu64, what, len);
	t_is(pread(copy, ram, LEN, 0), LEN, "... are read");
	t_same(ram, bytes, LEN, "... and right");
	close(copy);
	unlink("/mnt/copy");
	munmap(ram, LEN);
}

static void test_many(void)
{
	check_ring(&ring, 16 * PAGE, "a plain ring");
	check_ring(&ring, 4u << 20, "a plain ring");
	check_ring(&ring, 8u << 20, "a plain ring");
}

static void test_other_rings(void)
{
	static const struct { unsigned int flags; const char *name; } kinds[] = {
		{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		  "a ring with deferred task work" },
		{ IORING_SETUP_COOP_TASKRUN, "a cooperative ring" },
		{ IORING_SETUP_SQPOLL, "a ring with a thread" },
		{ IORING_SETUP_SQE128 | IORING_SETUP_CQE32, "a wide ring" },
	};
	struct io_uring other;
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		t_ring_make(&other, NR, kinds[i].flags);
		check_ring(&other, 256 * PAGE, kinds[i].name);
		io_uring_queue_exit(&other);
	}
}

static void test_polled_ring(void)
{
	struct command command;
	struct io_uring other;
	long long result;

	t_ring_make(&other, 4, IORING_SETUP_IOPOLL);
	t_gpu_set(buffer.ptr, FILL, LEN);
	t_ring_put(&other, dev, prepare(&command, T_READ, file, 0, LEN), 1);
	io_uring_submit(&other);
	result = t_ring_take(&other, NULL);
	if (result == -EOPNOTSUPP)
		t_skip("a ring that polls", "this kernel refuses it");
	else if (t_result(result, LEN, "a ring that polls"))
		t_gpu_same(buffer.ptr, bytes, LEN, "... brings the file");
	io_uring_queue_exit(&other);
}

static void test_refused(void)
{
	struct peerdma_file_io io = { .size = sizeof(io) };
	struct command command;
	struct io_uring_sqe *sqe;
	int byte, refused = 0;

	for (byte = 8; byte < 16; byte++) {
		sqe = t_ring_put(&ring, dev, prepare(&command, T_READ, file, 0,
						     PAGE), 1);
		((char *)sqe->cmd)[byte] = 1;
		io_uring_submit(&ring);
		refused += t_ring_take(&ring, NULL) == -EOPNOTSUPP;
	}
	t_is(refused, 8, "every reserved byte of cmd[] is refused");

	for (byte = 0, refused = 0; byte < 256; byte++) {
		if (byte == PEERDMA_NR_FILE_IO)
			continue;
		sqe = t_ring_put(&ring, dev, &io, 1);
		sqe->cmd_op = _IO(PEERDMA_IOCTL_TYPE, byte);
		io_uring_submit(&ring);
		refused += t_ring_take(&ring, NULL) == -ENOTTY;
	}
	t_is(refused, 255, "no other cmd_op is a command");
}

/* @out_ fields come with more than one segment. */
static void test_answers(void)
{
	struct peerdma_file_segment segments[3] = {
		{ 0, 0, PAGE, UNTOUCHED },
		{ LEN - PAGE, PAGE, 2 * PAGE, UNTOUCHED },
		{ LEN, 3 * PAGE, PAGE, UNTOUCHED },
	};
	struct peerdma_file_io io;

	t_result(t_ring_move(&ring, dev, T_READ, buffer.fd, file, segments, 3,
			     &io), 2 * PAGE, "three segments");
	t_is(io.out_bytes, 2 * PAGE, "out_bytes");
	t_is(segments[0].out_result, PAGE, "out_result of the first");
	t_is(segments[1].out_result, PAGE, "... across the file's end");
	t_is(segments[2].out_result, 0, "... past it");
	t_ok(io.out_align && io.out_device != PEERDMA_DEVICE_NONE,
	     "out_align and out_device");
}

static void test_links(void)
{
	struct command commands[4];
	long long results[4];
	uint64_t which = 0;
	unsigned char want[PAGE];
	int copy = t_open("/mnt/copy", O_RDWR | O_CREAT | O_DIRECT);
	int i;

	/* Into the buffer, out of it to elsewhere, back in: each needs the one
	 * before.
	 */
	prepare(&commands[0], T_READ, file, 8 * PAGE, PAGE);
	prepare(&commands[1], T_WRITE, copy, 8 * PAGE, PAGE);
	prepare(&commands[2], T_READ, copy, 8 * PAGE, PAGE);
	commands[0].segment.buffer_offset = 0;
	commands[1].segment.buffer_offset = 0;
	commands[1].segment.file_offset = 0;
	commands[2].segment.file_offset = 0;
	t_gpu_set(buffer.ptr, FILL, LEN);
	for (i = 0; i < 3; i++)
		t_ring_put(&ring, dev, &commands[i].io, i)->flags =
			i < 2 ? IOSQE_IO_LINK : 0;
	io_uring_submit(&ring);
	for (i = 0; i < 3; i++)
		t_result(t_ring_take(&ring, &which), PAGE, "link %d", i);
	t_is(which, 2, "... in order");
	t_gpu_read(want, buffer.ptr + 8 * PAGE, PAGE);
	t_same(want, bytes + 8 * PAGE, PAGE, "and each saw the one before");

	prepare(&commands[0], T_READ, file, 1, PAGE);
	for (i = 0; i < 2; i++)
		t_ring_put(&ring, dev, &commands[i].io, i)->flags =
			i < 1 ? IOSQE_IO_LINK : 0;
	io_uring_submit(&ring);
	for (i = 0; i < 2; i++) {
		long long result = t_ring_take(&ring, &which);

		results[which] = result;
	}
	t_result(results[0], -EINVAL, "a link that fails");
	t_result(results[1], -ECANCELED, "... ends the chain");
	close(copy);
	unlink("/mnt/copy");
}

static void test_cancel(void)
{
	struct command commands[NR / 2];
	struct io_uring_sqe *sqe;
	int i, good = 0, cancelled = 0;
	uint64_t which = 0;

	for (i = 0; i < NR / 2; i++)
		t_ring_put(&ring, dev, prepare(&commands[i], T_READ, file,
					       i * 64 * PAGE, 64 * PAGE), i);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY |
				       IORING_ASYNC_CANCEL_ALL);
	sqe->user_data = 1000;
	io_uring_submit(&ring);
	for (i = 0; i <= NR / 2; i++) {
		long long result = t_ring_take(&ring, &which);

		if (which == 1000)
			continue;
		good += result == 64 * PAGE;
		cancelled += result == -ECANCELED;
	}
	t_is(good + cancelled, NR / 2, "each command ends whole or cancelled");
}

/*
 * A slot of the queue belongs to the program again once it is submitted, also
 * when the command waits for a worker.
 */
static void test_reused(void)
{
	struct command commands[NR];
	unsigned char *ram = t_ram(LEN);
	int copy = t_open("/mnt/copy", O_RDWR | O_CREAT | O_DIRECT);
	uint64_t len = 64 * PAGE;
	int i, whole = 0;

	for (i = 0; i < NR; i++)
		t_ring_put(&ring, dev, prepare(&commands[i], T_WRITE, copy,
					       i * len, len), i);
	io_uring_submit(&ring);
	memset(ring.sq.sqes, 0xff, NR * sizeof(*ring.sq.sqes));
	for (i = 0; i < NR; i++)
		whole += t_ring_take(&ring, NULL) == (long long)len;
	t_is(whole, NR, "each command is read before its slot is another's");
	t_is(pread(copy, ram, NR * len, 0), NR * len, "the file");
	t_same(ram, bytes, NR * len, "... is right");
	close(copy);
	unlink("/mnt/copy");
	munmap(ram, LEN);
}

/* An eventfd and poll() on the ring say when something has come. */
static void test_notified(void)
{
	struct command command;
	int event = eventfd(0, EFD_CLOEXEC);
	struct pollfd polled = { .fd = event, .events = POLLIN };

	io_uring_register_eventfd(&ring, event);
	t_ring_put(&ring, dev, prepare(&command, T_READ, file, 0, PAGE), 1);
	io_uring_submit(&ring);
	t_is(poll(&polled, 1, T_PATIENCE_MS), 1, "the eventfd is signalled");
	t_result(t_ring_take(&ring, NULL), PAGE, "for the command");
	io_uring_unregister_eventfd(&ring);
	close(event);
}

/* Descriptors that are closed as soon as the command is submitted. */
static void test_closed(void)
{
	struct command commands[NR / 2];
	struct t_buffer own;
	int copy = t_open("/mnt/file", O_RDONLY | O_DIRECT);
	int other = t_device_open(), i, whole = 0;

	t_buffer_make(&own, dev, LEN);
	t_gpu_set(own.ptr, FILL, LEN);
	for (i = 0; i < NR / 2; i++) {
		prepare(&commands[i], T_READ, copy, i * 16 * PAGE, 16 * PAGE);
		commands[i].io.buffer_fd = own.fd;
		t_ring_put(&ring, other, &commands[i].io, i);
	}
	io_uring_submit(&ring);
	close(own.fd);
	close(copy);
	close(other);
	for (i = 0; i < NR / 2; i++)
		whole += t_ring_take(&ring, NULL) == 16 * PAGE;
	t_is(whole, NR / 2, "each command ends whole");
	t_gpu_same(own.ptr, bytes, NR / 2 * 16 * PAGE, "and is right");
	t_gpu_free(own.ptr);
}

/* Task work that interrupts the system call is no signal. */
static void test_no_signal(void)
{
	struct __kernel_timespec soon[NR];
	struct peerdma_file_segment segments[64];
	struct peerdma_file_io io;
	int i, round, broken = 0;

	for (round = 0; round < 20; round++) {
		for (i = 0; i < NR; i++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			soon[i] = (struct __kernel_timespec){ 0, i * 500000 };
			io_uring_prep_timeout(sqe, &soon[i], 0, 0);
		}
		io_uring_submit(&ring);
		for (i = 0; i < 64; i++)
			segments[i] = (struct peerdma_file_segment){
				i * 64 * PAGE, i * 64 * PAGE, 64 * PAGE, 0,
			};
		io = (struct peerdma_file_io){
			.buffer_fd = buffer.fd, .file_fd = file,
			.segments = (uintptr_t)segments, .nr_segments = 64,
			.depth = 1,
		};
		broken += t_file_io(dev, &io) == -EINTR;
		for (i = 0; i < NR; i++)
			t_ring_take(&ring, NULL);
	}
	t_is(broken, 0, "a ring's completions do not interrupt the ioctl");
}

/* A ring of a process that ends with commands in flight. */
static int leave_ring(void *flags)
{
	struct command *commands = t_ram(PAGE);
	struct io_uring own;
	int i;

	t_ring_make(&own, NR, *(unsigned int *)flags);
	for (i = 0; i < 8; i++)
		t_ring_put(&own, dev, prepare(&commands[i], i % 2 ? T_WRITE :
					      T_READ, file, i * 256 * PAGE,
					      256 * PAGE), i);
	io_uring_submit(&own);
	return 0;
}

static void test_left(void)
{
	static unsigned int kinds[] = {
		0, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SQPOLL,
	};
	unsigned char *ram = t_ram(LEN);
	size_t i;

	t_gpu_write(buffer.ptr, bytes, LEN);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		t_is(t_child(leave_ring, &kinds[i]), 0,
		     "a process leaves a ring of kind %#x", kinds[i]);
	t_ok(t_wait_for(!t_counter("file_ios")), "its commands end");
	t_gpu_same(buffer.ptr, bytes, LEN, "reads and writes were right");
	t_is(pread(file, ram, LEN, 0), LEN, "the file is read");
	t_same(ram, bytes, LEN, "... and right");
	munmap(ram, LEN);
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
	t_gpu_write(buffer.ptr, bytes, LEN);
}

static void slow_down(const char *text)
{
	t_need(!t_write_text("/sys/module/t_delay/parameters/at", text),
	       "'%s' is slow", text);
}

/*
 * A filesystem looks at the request once more after it has queued a read and let go
 * of its locks: in a worker perhaps after the read has come back.
 */
static void test_workers(void)
{
	struct command command;
	int i, whole = 0;

	slow_down("up_read 2");
	for (i = 0; i < 40; i++) {
		t_ring_put(&ring, dev, prepare(&command, T_READ, file, 0, PAGE),
			   1)->flags |= IOSQE_ASYNC;
		io_uring_submit(&ring);
		whole += t_ring_take(&ring, NULL) == PAGE;
	}
	slow_down("-");
	t_is(whole, i, "reads by workers");
}

static const struct t_case cases[] = {
	{ "many commands", test_many },
	{ "other rings", test_other_rings },
	{ "a polled ring", test_polled_ring },
	{ "refused commands", test_refused },
	{ "answers", test_answers },
	{ "links", test_links },
	{ "cancelled", test_cancel },
	{ "reused slots", test_reused },
	{ "notified", test_notified },
	{ "closed in flight", test_closed },
	{ "no signal", test_no_signal },
	{ "left behind", test_left },
	{ "by workers", test_workers },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	bytes = t_ram(LEN);
	t_fill(bytes, LEN, 6);
	file = t_file_make("/mnt/file", bytes, LEN);
	t_ring_make(&ring, NR, 0);
	t_buffer_make(&buffer, dev, LEN);
	t_gpu_write(buffer.ptr, bytes, LEN);
	return T_RUN(cases, renew);
}
