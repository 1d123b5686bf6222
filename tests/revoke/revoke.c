// SPDX-License-Identifier: MIT
/*
 * Memory that is taken back while the CPU and files use it: afterwards nothing
 * of ours touches it, whoever owns it by then.
 *
 * Wants the drive /dev/nvme0n1, whose first 32 MiB are written over.
 * `revoke unbind`, `revoke leaving` and `revoke remove` leave the GPU without its
 * driver, or the machine without its GPU.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../t_counters.h"
#include "../t_pin.h"
#include "../t_sysfs.h"
#include "../t_touch.h"
#include "../t_uring.h"

#define DRIVE	"/dev/nvme0n1"
#define LEN	(32ull << 20)
#define CANARY	0xc5
#define STALE	0x3a
#define DIE	"--die"
#define COMMANDS	8

static int dev;

/* A pin with everything on it that a revocation has to deal with. */
struct rig {
	uint64_t ptr;
	struct peerdma_pin pin;
	unsigned char *map;
	int event;
	int file;
};

static int watch(int buffer, int event)
{
	struct peerdma_watch watch = {
		.size = sizeof(watch),
		.buffer_fd = buffer,
		.event_fd = event,
	};

	return ioctl(dev, PEERDMA_WATCH, &watch) ? -errno : 0;
}

static void rig_open(struct rig *rig, uint32_t flags)
{
	rig->ptr = t_gpu_alloc(LEN);
	t_gpu_set(rig->ptr, STALE, LEN);
	t_need(t_pin(dev, rig->ptr, LEN, flags, &rig->pin) >= 0,
	       "the memory is pinned");
	rig->map = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
			rig->pin.out_fd, 0);
	t_need(rig->map != MAP_FAILED, "the buffer is mapped");
	rig->event = eventfd(0, EFD_NONBLOCK);
	t_need(!watch(rig->pin.out_fd, rig->event), "it is watched");
	rig->file = open(DRIVE, O_RDWR | O_DIRECT);
	t_need(rig->file >= 0, "the drive opens");
}

static void rig_close(struct rig *rig)
{
	close(rig->file);
	close(rig->event);
	munmap(rig->map, LEN);
	close(rig->pin.out_fd);
}

static sigjmp_buf bus_error;

static void on_bus_error(int signal)
{
	siglongjmp(bus_error, signal);
}

/* Does touching the byte end in SIGBUS? */
static bool touch_faults(volatile unsigned char *byte)
{
	struct sigaction action = { .sa_handler = on_bus_error }, old;
	bool faulted = true;

	sigaction(SIGBUS, &action, &old);
	if (!sigsetjmp(bus_error, 1)) {
		*byte = STALE;
		faulted = false;
	}
	sigaction(SIGBUS, &old, NULL);
	return faulted;
}

static int move(const struct rig *rig, uint32_t flags)
{
	struct peerdma_file_segment segment = { .len = LEN };
	struct peerdma_file_io io = {
		.flags = flags,
		.buffer_fd = rig->pin.out_fd,
		.file_fd = rig->file,
		.segments = (uintptr_t)&segment,
		.nr_segments = 1,
	};

	return t_file_io(dev, &io);
}

static unsigned int state(const struct rig *rig)
{
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = rig->pin.out_fd,
	};

	return ioctl(dev, PEERDMA_QUERY, &query) ? ~0u : query.out_state;
}

/* All doors to the memory are shut, and whoever asked has been told. */
static void check_revoked(struct rig *rig)
{
	uint64_t count = 0;

	t_ok(read(rig->event, &count, sizeof(count)) == sizeof(count) &&
	     count == 1, "the watcher is told, once");
	t_ok(touch_faults(rig->map), "the first byte of the mapping faults");
	t_ok(touch_faults(rig->map + LEN - 1), "and so does the last");
	t_result(t_debug(rig->map, true), -EIO, "a debugger does not write it");
	t_result(t_debug(rig->map + LEN - 1, false), -EIO, "nor read it");
	t_result(move(rig, 0), -ENODEV, "nothing is read into it");
	t_result(move(rig, PEERDMA_FILE_IO_WRITE), -ENODEV,
		 "nothing is written from it");
	t_ok(state(rig) & PEERDMA_BUFFER_REVOKED, "QUERY says so");
	t_is(t_counter("pinned_bytes"), 0, "nothing is pinned");
	/* -1: the GPU is gone, and its counters with it. */
	t_ok(t_gpu_counter("pinned") <= 0, "nor does the GPU think so");
}

/* The freed pages' next owner: simgpu hands out first what was freed last. */
static uint64_t canary_place(void)
{
	uint64_t canary = t_gpu_alloc(LEN);

	t_gpu_set(canary, CANARY, LEN);
	return canary;
}

static void canary_check(uint64_t canary)
{
	unsigned char *bytes = t_ram(LEN);
	size_t i, bad = 0;

	t_gpu_read(bytes, canary, LEN);
	for (i = 0; i < LEN; i++)
		bad += bytes[i] != CANARY;
	t_is(bad, 0, "no byte of the next owner's memory has changed");
	munmap(bytes, LEN);
	t_gpu_free(canary);
}

static void free_revocable(void)
{
	long long unfreed = t_gpu_counter("unfreed_tables");
	struct rig rig;
	uint64_t canary;

	rig_open(&rig, PEERDMA_PIN_REVOCABLE);
	t_is(state(&rig), 0, "a revocable pin is not persistent");
	memset(rig.map, STALE, LEN);
	t_gpu_free(rig.ptr);
	t_is(t_gpu_counter("unfreed_tables"), unfreed,
	     "the vendor is asked to free its table");
	canary = canary_place();
	check_revoked(&rig);
	canary_check(canary);
	rig_close(&rig);
}

static void free_persistent(void)
{
	struct rig rig;
	uint64_t canary;

	rig_open(&rig, 0);
	t_is(state(&rig), PEERDMA_BUFFER_PERSISTENT, "a pin is persistent");
	t_gpu_free(rig.ptr);
	canary = canary_place();
	rig.map[0] = STALE;
	t_is(rig.map[0], STALE, "freed memory stays as long as it is pinned");
	t_result(move(&rig, PEERDMA_FILE_IO_WRITE), 0,
		 "and files reach it");
	canary_check(canary);
	rig_close(&rig);
}

struct mover {
	struct rig *rig;
	uint32_t flags;
	int ret;
};

/* One transfer after the other, until one fails. */
static void *mover_run(void *data)
{
	struct mover *mover = data;

	do {
		mover->ret = move(mover->rig, mover->flags);
	} while (!mover->ret);
	return NULL;
}

static void *writer_run(void *data)
{
	struct rig *rig = data;
	size_t i;

	for (i = 0; !touch_faults(rig->map + i % LEN); i += 4097)
		;
	return NULL;
}

static void *asker_run(void *data)
{
	while (!(state(data) & PEERDMA_BUFFER_REVOKED))
		;
	return NULL;
}

static void in_flight(uint32_t flags, const char *what)
{
	pthread_t moving, writing, asking;
	struct mover mover = { .flags = flags };
	uint64_t canary;
	struct rig rig;

	rig_open(&rig, PEERDMA_PIN_REVOCABLE);
	mover.rig = &rig;
	pthread_create(&moving, NULL, mover_run, &mover);
	pthread_create(&asking, NULL, asker_run, &rig);
	/* The handler's jump buffer is one: one thread touches at a time. */
	pthread_create(&writing, NULL, writer_run, &rig);
	t_ok(t_wait_for(t_counter("file_ios") == 1), "a %s is under way", what);
	t_gpu_free(rig.ptr);
	canary = canary_place();
	pthread_join(moving, NULL);
	pthread_join(writing, NULL);
	pthread_join(asking, NULL);
	t_result(mover.ret, -ENODEV, "the %s was cut off", what);
	check_revoked(&rig);
	canary_check(canary);
	rig_close(&rig);
}

static void free_while_reading(void)
{
	in_flight(0, "read");
}

static void free_while_writing(void)
{
	in_flight(PEERDMA_FILE_IO_WRITE, "write");
}

static int revoke_as_nobody(void *data)
{
	if (setuid(65534))
		return 1;
	return t_revoke(dev, *(int *)data) == -EPERM ? 0 : 2;
}

static void revoke_by_hand(void)
{
	struct rig rig;
	int late = eventfd(0, EFD_NONBLOCK);
	int second = eventfd(0, EFD_NONBLOCK);
	uint64_t count = 0;

	rig_open(&rig, 0);
	t_result(watch(rig.pin.out_fd, second), 0, "somebody else watches");
	t_is(t_child(revoke_as_nobody, &rig.pin.out_fd), 0,
	     "an ordinary user may not");
	rig.map[0] = STALE;
	t_result(t_revoke(dev, rig.pin.out_fd), 0,
		 "root may, of a persistent pin too");
	check_revoked(&rig);
	t_ok(read(second, &count, sizeof(count)) == sizeof(count),
	     "whoever else watches is told, too");
	t_result(t_revoke(dev, rig.pin.out_fd), 0,
		 "a second time changes nothing");
	t_result(watch(rig.pin.out_fd, late), 0, "one may watch afterwards");
	t_ok(read(late, &count, sizeof(count)) == sizeof(count),
	     "and is told at once");
	t_result(watch(rig.pin.out_fd, rig.file), -EINVAL,
		 "only an eventfd is told");
	close(second);
	close(late);
	rig_close(&rig);
	t_gpu_free(rig.ptr);
}

/* Each watcher is memory that the kernel keeps, so there is an end to them. */
static void watched_by_many(void)
{
	int event = eventfd(0, EFD_NONBLOCK), i;
	uint64_t count = 0;
	struct rig rig;

	rig_open(&rig, 0);
	/* The rig's own is the first. */
	for (i = 1; i < 1024 && !watch(rig.pin.out_fd, event); i++)
		;
	t_is(i, 1024, "1024 may watch");
	t_result(watch(rig.pin.out_fd, event), -EUSERS, "one more may not");
	t_result(t_revoke(dev, rig.pin.out_fd), 0, "it is taken back");
	t_ok(read(event, &count, sizeof(count)) == sizeof(count) &&
	     count == 1023, "each is told once");
	check_revoked(&rig);
	rig_close(&rig);
	t_gpu_free(rig.ptr);
}

/*
 * The task that takes the memory back is the one in which its own commands in
 * flight would be completed: it must not wait for itself.
 */
static void revoke_under_commands(void)
{
	struct peerdma_file_segment segments[COMMANDS];
	struct peerdma_file_io args[COMMANDS];
	int i, wrong = 0, whole = 0;
	struct io_uring ring;
	struct rig rig;

	rig_open(&rig, 0);
	t_ring_make(&ring, COMMANDS, 0);
	for (i = 0; i < COMMANDS; i++) {
		segments[i] = (struct peerdma_file_segment){
			.file_offset = i * LEN / COMMANDS,
			.buffer_offset = i * LEN / COMMANDS,
			.len = LEN / COMMANDS,
		};
		args[i] = (struct peerdma_file_io){
			.size = sizeof(args[i]),
			.buffer_fd = rig.pin.out_fd,
			.file_fd = rig.file,
			.segments = (uintptr_t)&segments[i],
			.nr_segments = 1,
		};
		t_ring_put(&ring, dev, &args[i], i);
	}
	io_uring_submit(&ring);
	t_result(t_revoke(dev, rig.pin.out_fd), 0,
		 "memory with commands in flight");
	for (i = 0; i < COMMANDS; i++) {
		long long result = t_ring_take(&ring, NULL);

		whole += result == LEN / COMMANDS;
		wrong += result != LEN / COMMANDS && result != -ENODEV;
	}
	t_is(wrong, 0, "commands end whole or with ENODEV");
	t_ok(whole, "some had begun before");
	check_revoked(&rig);
	io_uring_queue_exit(&ring);
	rig_close(&rig);
	t_gpu_free(rig.ptr);
}

/* A process of its own, since CUDA does not outlive fork(). */
static int die_with_pin(void)
{
	struct rig rig;

	rig_open(&rig, PEERDMA_PIN_REVOCABLE);
	memset(rig.map, STALE, LEN);
	kill(getpid(), SIGKILL);
	return 1;
}

static int become(void *data)
{
	execl("/proc/self/exe", "revoke", (const char *)data, NULL);
	return 1;
}

static void killed_with_pin(void)
{
	fflush(stdout);
	t_is(t_child(become, DIE), 256 + SIGKILL, "a process dies with a pin");
}

/* The GPU as sysfs shows it. */
static void gpu_path(const struct rig *rig, char *path, size_t size)
{
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = rig->pin.out_fd,
	};
	uint32_t gpu;

	t_need(!ioctl(dev, PEERDMA_QUERY, &query), "QUERY answers");
	gpu = query.out_device;
	snprintf(path, size, "/sys/bus/pci/devices/%04x:%02x:%02x.%x",
		 gpu >> 16, (gpu >> 8) & 0xff, (gpu >> 3) & 0x1f, gpu & 7);
}

/*
 * The driver, or the device, goes while a persistent pin is mapped and read
 * into; nothing hangs, and all is as if it had been revoked.
 */
static void go_away(const char *file, bool name_device)
{
	struct mover mover = { 0 };
	char path[64], control[96];
	pthread_t moving;
	struct rig rig;

	rig_open(&rig, 0);
	gpu_path(&rig, path, sizeof(path));
	snprintf(control, sizeof(control), "%s/%s", path, file);
	rig.map[0] = STALE;
	mover.rig = &rig;
	pthread_create(&moving, NULL, mover_run, &mover);
	t_ok(t_wait_for(t_counter("file_ios") == 1), "a read is under way");
	t_result(t_write_text(control, name_device ? strrchr(path, '/') + 1 :
						   "1"), 0, "it goes away");
	pthread_join(moving, NULL);
	t_result(mover.ret, -ENODEV, "the read was cut off");
	check_revoked(&rig);
	t_is(t_counter("page_bytes"), 0, "no struct pages are left of it");
	rig_close(&rig);
}

/* ---- pins while the driver leaves ---------------------------------------- */

/* Of so many pages that most of a pin's time is spent on them. */
#define LEAVING_LEN	(64ull << 20)
#define LEAVING_MOST	256

static struct {
	uint64_t ptr;
	volatile bool leaving;
	int fds[LEAVING_MOST];
	int nr;
	int tried;
	int surprise;
} pinner;

/* Pins and lets go; from when the driver begins to leave, pins and keeps. */
static void *pinner_run(void *data)
{
	struct peerdma_pin pin;
	int fd;

	(void)data;
	while (pinner.nr < LEAVING_MOST) {
		bool keep = pinner.leaving;

		fd = t_pin(dev, pinner.ptr, LEAVING_LEN, 0, &pin);
		pinner.tried++;
		keep |= pinner.leaving;
		if (fd < 0 && keep)
			pinner.surprise = fd;
		if (fd < 0)
			break;
		if (keep)
			pinner.fds[pinner.nr++] = fd;
		else
			close(fd);
	}
	return NULL;
}

/*
 * The driver leaves while pins are made, in whatever state one is: each that came
 * of it is revoked by then, however late it was.
 */
static int leaving(void)
{
	struct peerdma_query query;
	char path[64], control[96];
	int i, survivors = 0;
	pthread_t thread;
	struct rig rig;

	t_tap.name = "leaving";
	rig_open(&rig, 0);
	gpu_path(&rig, path, sizeof(path));
	snprintf(control, sizeof(control), "%s/driver/unbind", path);
	rig_close(&rig);
	pinner.ptr = t_gpu_alloc(LEAVING_LEN);
	pthread_create(&thread, NULL, pinner_run, NULL);
	t_ok(t_wait_for(pinner.tried >= 2), "memory is pinned in a loop");
	pinner.leaving = true;
	t_result(t_write_text(control, strrchr(path, '/') + 1), 0,
		 "the driver leaves");
	pthread_join(thread, NULL);
	for (i = 0; i < pinner.nr; i++) {
		t_query(dev, pinner.fds[i], &query);
		survivors += !(query.out_state & PEERDMA_BUFFER_REVOKED);
		close(pinner.fds[i]);
	}
	t_is(survivors, 0, "none of %d pins outlives it", pinner.nr);
	t_ok(pinner.surprise == -EFAULT || pinner.surprise == -ENODEV,
	     "then there is nothing to be pinned: %s",
	     t_errno_name(pinner.surprise));
	t_is(t_counter("buffers") | t_counter("pinned_bytes"), 0,
	     "nothing is pinned");
	return t_tap.failed;
}

static int unbind(void)
{
	t_tap.name = "unbind";
	go_away("driver/unbind", true);
	return t_tap.failed;
}

static int removal(void)
{
	t_tap.name = "remove";
	go_away("remove", false);
	return t_tap.failed;
}

static const struct t_case cases[] = {
	{ "free under a revocable pin", free_revocable },
	{ "free under a persistent pin", free_persistent },
	{ "free while reading", free_while_reading },
	{ "free while writing", free_while_writing },
	{ "revoke by hand", revoke_by_hand },
	{ "watched by many", watched_by_many },
	{ "revoke under commands", revoke_under_commands },
	{ "killed with a pin", killed_with_pin },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_gpu_init();
	dev = t_device_open();
	if (argc == 2 && !strcmp(argv[1], DIE))
		return die_with_pin();
	if (argc == 2 && !strcmp(argv[1], "unbind"))
		return unbind();
	if (argc == 2 && !strcmp(argv[1], "leaving"))
		return leaving();
	if (argc == 2 && !strcmp(argv[1], "remove"))
		return removal();
	return T_RUN(cases, t_nothing_left);
}
