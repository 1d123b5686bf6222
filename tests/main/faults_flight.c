// SPDX-License-Identifier: MIT
/*
 * What happens while a transfer is in flight: signals, descriptors that are closed,
 * memory that is freed or unmapped, rings that go away, a drive that is reset and
 * one that is pulled out. Data lands where it was to land and nowhere else.
 *
 * usage: faults_flight [CASE...], with slow drives: /dev/disk/by-serial/peerdma0,
 * and peerdma1, which is pulled out in the end
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/utsname.h>

#include "../t_counters.h"
#include "../t_transfer.h"
#include "../t_uring.h"

#define LEN		(8u << 20)
#define PIECE		(256u << 10)
#define NR		((int)(LEN / PIECE))
#define FILL		0xc3
#define CANARY		0x5a
#define UNTOUCHED	(-1234567)

static int dev, drive;
static struct t_buffer buffer;
static unsigned char *bytes;

/**
 * struct flight - a FILE_IO in a thread or a child, in memory that both see
 * @io: its argument
 * @segments: of PIECE each
 * @result: 0 or a negative errno, once it has returned
 * @returned: it has
 */
struct flight {
	struct peerdma_file_io io;
	struct peerdma_file_segment segments[NR];
	volatile int result;
	volatile bool returned;
};

static struct flight *flight_make(int fd, uint32_t flags, uint32_t depth)
{
	struct flight *flight = mmap(NULL, sizeof(*flight),
				     PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i;

	for (i = 0; i < NR; i++)
		flight->segments[i] = (struct peerdma_file_segment){
			i * (uint64_t)PIECE, i * (uint64_t)PIECE, PIECE, UNTOUCHED,
		};
	flight->io = (struct peerdma_file_io){
		.flags = flags, .buffer_fd = buffer.fd, .file_fd = fd,
		.segments = (uintptr_t)flight->segments, .nr_segments = NR,
		.depth = depth,
	};
	return flight;
}

static void flight_drop(struct flight *flight)
{
	munmap(flight, sizeof(*flight));
}

static void *fly(void *data)
{
	struct flight *flight = data;

	flight->result = t_file_io(dev, &flight->io);
	flight->returned = true;
	return NULL;
}

/* Run in a thread until it is seen to be under way. */
static pthread_t take_off(struct flight *flight)
{
	pthread_t thread;

	pthread_create(&thread, NULL, fly, flight);
	if (!t_wait_for(t_counter("file_ios") == 1 || flight->returned) ||
	    flight->returned)
		t_ok(false, "the transfer is in flight");
	return thread;
}

static void check_whole(const struct flight *flight)
{
	int i, whole = 0;

	t_result(flight->result, 0, "the transfer ends well");
	for (i = 0; i < NR; i++)
		whole += flight->segments[i].out_result == PIECE;
	t_is(whole, NR, "... all of it");
}

/* ---- cases --------------------------------------------------------------- */

static void test_closed(void)
{
	struct flight *flight = flight_make(-1, T_READ, 4);
	int own = dup(drive), fd = dup(buffer.fd), device = dev;
	pthread_t thread;

	flight->io.file_fd = own;
	flight->io.buffer_fd = fd;
	dev = t_device_open();
	thread = take_off(flight);
	close(own);
	close(fd);
	close(buffer.fd);
	close(dev);
	dev = device;
	t_is(t_counter("buffers"), 1, "a closed buffer lives while it is used");
	t_ok(!flight->returned, "the transfer is still in flight");
	pthread_join(thread, NULL);
	check_whole(flight);
	t_gpu_same(buffer.ptr, bytes, LEN, "... and right");
	t_ok(t_wait_for(t_counter("buffers") == 0), "then the buffer ends");
	buffer.fd = t_pin(dev, buffer.ptr, LEN, 0, &buffer.pin);
	flight_drop(flight);
}

/* The memory is freed, and everything else is taken by somebody else. */
static void test_freed(void)
{
	struct flight *flight = flight_make(drive, T_READ, 4);
	unsigned char *view = mmap(NULL, LEN, PROT_READ, MAP_SHARED, buffer.fd,
				   0);
	uint64_t other;
	pthread_t thread = take_off(flight);

	t_gpu_free(buffer.ptr);
	other = t_gpu_alloc(LEN);
	t_gpu_set(other, CANARY, LEN);
	t_ok(!flight->returned, "freed and allocated anew in flight");
	pthread_join(thread, NULL);
	check_whole(flight);
	t_same(view, bytes, LEN, "the data is in the pinned memory");
	munmap(view, LEN);
	view = t_ram(LEN);
	memset(view, CANARY, LEN);
	t_gpu_same(other, view, LEN, "... and nowhere else");
	munmap(view, LEN);
	close(buffer.fd);
	t_ok(t_wait_for(!t_in_use()), "then the pin ends");
	t_is(t_gpu_counter("allocated"), LEN, "... and the memory is free");
	buffer.ptr = other;
	buffer.fd = t_pin(dev, buffer.ptr, LEN, 0, &buffer.pin);
	flight_drop(flight);
}

/* The argument goes away before there is an answer. */
static void test_unmapped(void)
{
	struct flight *flight = flight_make(drive, T_READ, 4);
	struct flight *own = flight_make(drive, T_READ, 4);
	pthread_t thread;

	flight->io.segments = (uintptr_t)own->segments;
	thread = take_off(flight);
	flight_drop(own);
	pthread_join(thread, NULL);
	t_result(flight->result, -EFAULT, "segments unmapped in flight");
	t_gpu_same(buffer.ptr, bytes, LEN, "the data came");
	flight_drop(flight);
}

static volatile int alarms;

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

/* As with pread(2) on a file, nothing but death interrupts. */
static void test_signals(void)
{
	struct itimerval often = { { 0, 5000 }, { 0, 5000 } }, never = { 0 };
	struct flight *flight = flight_make(drive, T_READ, 2);
	struct sigaction action = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	fly(flight);
	setitimer(ITIMER_REAL, &never, NULL);
	signal(SIGALRM, SIG_DFL);
	t_ok(alarms > 0, "signals came");
	check_whole(flight);
	t_gpu_same(buffer.ptr, bytes, LEN, "... and right");
	flight_drop(flight);
}

/* What a killed process's answer says must be what is in the memory. */
static int check_answer(const struct flight *flight)
{
	unsigned char *got = t_gpu_copy(buffer.ptr, LEN);
	unsigned char *empty = t_ram(PIECE);
	uint64_t sum = 0;
	int wrong = 0, left = 0, i;

	memset(empty, FILL, PIECE);
	for (i = 0; i < NR; i++) {
		long long result = flight->segments[i].out_result;
		const unsigned char *want = result == PIECE ?
					    bytes + i * PIECE : empty;

		left += result == -EINTR;
		sum += result > 0 ? result : 0;
		wrong += result != PIECE && result != -EINTR &&
			 result != UNTOUCHED;
		wrong += memcmp(got + i * PIECE, want, PIECE) != 0;
	}
	munmap(empty, PIECE);
	munmap(got, LEN);
	return wrong || sum != flight->io.out_bytes ? -1 : left;
}

static void test_killed_answer(void)
{
	int round, wrong = 0, partial = 0;

	for (round = 1; round <= 8 || (!partial && round <= 64); round++) {
		struct flight *flight = flight_make(drive, T_READ, 2);
		int left;
		pid_t child;

		t_gpu_set(buffer.ptr, FILL, LEN);
		child = fork();
		if (!child) {
			fly(flight);
			_exit(0);
		}
		t_wait_for(t_counter("file_ios") == 1 || flight->returned);
		t_sleep_ms(((round - 1) % 8 + 1) * 7);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		left = check_answer(flight);
		wrong += left < 0;
		partial += left > 0 && left < NR;
		flight_drop(flight);
	}
	t_is(wrong, 0, "what was told was moved, and nothing else was");
	t_ok(partial > 0, "some were cut in the middle: %d of %d", partial,
	     round - 1);
}

/* A ring that is closed, and left; were its commands in flight then? */
static bool close_ring(struct flight *flight)
{
	struct peerdma_file_io ios[NR];
	struct io_uring ring;
	bool flying;
	int i;

	t_ring_make(&ring, NR, 0);
	for (i = 0; i < NR; i++) {
		ios[i] = flight->io;
		ios[i].size = sizeof(ios[i]);
		ios[i].segments = (uintptr_t)&flight->segments[i];
		ios[i].nr_segments = 1;
		t_ring_put(&ring, dev, &ios[i], i);
	}
	io_uring_submit(&ring);
	flying = t_counter("file_ios") > 0;
	io_uring_queue_exit(&ring);
	return flying;
}

/* A slow kernel may still be submitting when the drive is done: try again. */
static void test_ring_closed(void)
{
	struct flight *flight = flight_make(drive, T_READ, 0);
	int tries = 0;

	while (!close_ring(flight) && ++tries < 64)
		t_wait_for(!t_counter("file_ios"));
	t_ok(tries < 64, "commands are in flight when their ring is closed");
	t_ok(t_wait_for(!t_counter("file_ios")), "they end without their ring");
	t_gpu_same(buffer.ptr, bytes, LEN, "... and were right");
	flight_drop(flight);
}

/* Two transfers of the same buffer, in both directions. */
static void test_together(void)
{
	struct flight *in = flight_make(drive, T_READ, 4);
	struct flight *out = flight_make(drive, T_WRITE, 4);
	unsigned char *ram = t_ram(LEN);
	pthread_t threads[2];
	int i;

	t_fill(ram, LEN, 8);
	t_gpu_write(buffer.ptr, ram, LEN);
	/* The lower half is read into, the upper is written to behind. */
	in->io.nr_segments = NR / 2;
	out->io.nr_segments = NR / 2;
	for (i = 0; i < NR / 2; i++) {
		out->segments[i].buffer_offset += LEN / 2;
		out->segments[i].file_offset += LEN;
	}
	pthread_create(&threads[0], NULL, fly, in);
	pthread_create(&threads[1], NULL, fly, out);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	t_result(in->result, 0, "a read");
	t_result(out->result, 0, "... beside a write");
	t_gpu_same(buffer.ptr, bytes, LEN / 2, "the read was right");
	t_gpu_same(buffer.ptr + LEN / 2, ram + LEN / 2, LEN / 2,
		   "... and left the rest alone");
	t_is(pread(drive, ram, LEN / 2, LEN), LEN / 2, "the write");
	t_gpu_same(buffer.ptr + LEN / 2, ram, LEN / 2, "... was right");
	munmap(ram, LEN);
	flight_drop(in);
	flight_drop(out);
}

/* ---- drives -------------------------------------------------------------- */

/* Write a 1 to a file of the drive's, from its folder in sysfs. */
static bool poke(const char *serial, const char *file)
{
	char path[256], real[256];
	FILE *stream;

	snprintf(path, sizeof(path), "/dev/disk/by-serial/%s", serial);
	if (!realpath(path, real))
		return false;
	snprintf(path, sizeof(path), "/sys/block/%s/device/%s",
		 strrchr(real, '/') + 1, file);
	stream = fopen(path, "w");
	return stream && fprintf(stream, "1") == 1 && !fclose(stream);
}

/* Linux 6.1 keeps a drive's shadow doorbells as they were before the reset. */
static bool survives_reset(void)
{
	struct utsname kernel;

	return !uname(&kernel) && strncmp(kernel.release, "6.1.", 4);
}

static void test_reset(void)
{
	struct flight *flight;
	pthread_t thread;

	if (!survives_reset()) {
		t_skip("a drive reset", "QEMU's drive hangs after that on 6.1");
		return;
	}
	flight = flight_make(drive, T_READ, 4);
	thread = take_off(flight);
	t_ok(poke("peerdma0", "reset_controller"), "the drive is reset");
	pthread_join(thread, NULL);
	check_whole(flight);
	t_gpu_same(buffer.ptr, bytes, LEN, "... and right");
	flight_drop(flight);
}

/* To read(2) a drive that is gone is one of no length, or one that fails. */
static void check_gone(int fd)
{
	struct peerdma_file_io none = { .buffer_fd = buffer.fd, .file_fd = fd };

	t_result(t_file_io(dev, &none), -EIO, "it is not asked for any more");
	t_result(t_move_one(dev, T_READ, buffer.fd, fd, 0, 0, PIECE), -EIO,
		 "... read");
	t_result(t_move_one(dev, T_WRITE, buffer.fd, fd, 0, 0, PIECE), -EIO,
		 "... or written");
}

/* An open drive keeps nothing that it hung below. */
static void test_pulled_idle(void)
{
	const char *path = "/dev/disk/by-serial/virtio";
	int other;

	if (access(path, F_OK)) {
		t_skip("an idle drive", "this kernel has no virtio drives");
		return;
	}
	other = t_open(path, O_RDWR | O_DIRECT);
	t_need(other >= 0, "a virtio drive is opened");
	t_result(t_move_one(dev, T_READ, buffer.fd, other, 0, 0, PIECE), PIECE,
		 "it is read");
	t_ok(poke("virtio", "../remove"), "it is pulled out");
	check_gone(other);
	close(other);
}

static void test_pulled(void)
{
	int other = t_open("/dev/disk/by-serial/peerdma1", O_RDWR | O_DIRECT);
	struct flight *flight = flight_make(other, T_READ, 4);
	pthread_t thread = take_off(flight);
	int i, whole = 0, none = 0;

	t_ok(poke("peerdma1", "device/remove"), "the drive is pulled out");
	pthread_join(thread, NULL);
	for (i = 0; i < NR; i++) {
		whole += flight->segments[i].out_result == PIECE;
		none += flight->segments[i].out_result <= 0;
	}
	t_ok(none > 0, "the transfer is cut: %s, %d of %d",
	     t_errno_name(flight->result), whole, NR);
	t_is(whole + none, NR, "... no piece came in part");
	t_is(flight->io.out_bytes, whole * (uint64_t)PIECE, "... out_bytes");

	check_gone(other);
	t_result(t_move_one(dev, T_READ, buffer.fd, drive, 0, 0, PIECE), PIECE,
		 "another drive is not concerned");
	flight_drop(flight);
	close(other);
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
	t_gpu_set(buffer.ptr, FILL, LEN);
}

static const struct t_case cases[] = {
	{ "closed", test_closed },
	{ "freed", test_freed },
	{ "unmapped", test_unmapped },
	{ "signals", test_signals },
	{ "killed", test_killed_answer },
	{ "a ring closed", test_ring_closed },
	{ "together", test_together },
	{ "a drive pulled out", test_pulled },
	{ "an idle drive pulled out", test_pulled_idle },
	{ "a drive reset", test_reset },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	bytes = t_ram(LEN);
	t_fill(bytes, LEN, 7);
	drive = t_open("/dev/disk/by-serial/peerdma0", O_RDWR | O_DIRECT);
	t_need(drive >= 0 && pwrite(drive, bytes, LEN, 0) == LEN,
	       "the drive is written");
	t_buffer_make(&buffer, dev, LEN);
	t_gpu_set(buffer.ptr, FILL, LEN);
	return T_RUN(cases, renew);
}
