// SPDX-License-Identifier: MIT
/*
 * FILE_IO with other exporters' dma-bufs: udmabuf's, a test module's of every
 * kind (exporter/), and those of the simulated GPU.
 *
 * usage: foreign DEVICE [CASE...], as root: DEVICE is the PCI address of an
 * ivshmem card that no driver has. Wants two drives: the first 32 MiB of drive 0
 * are written over, on drive 1 is an ext4 that is mounted on /mnt.
 * `foreign DEVICE --cost` says what a call costs,
 * `foreign DEVICE --keep` leaves bytes for the host to compare,
 * `foreign DEVICE --unbind` drive 1, not mounted, without its driver.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "../t_counters.h"
#include "../t_uring.h"

#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define DRIVE_1	"/dev/disk/by-serial/peerdma1"
#define LEN	(4ull << 20)
/* More than the 7 mappings of the same memory that DMA debugging counts. */
#define TASKS	12
#define COMMANDS	16
#define CANARY	0xc5

#include "export.h"

static int dev, drive;
static unsigned char *ram;

static long long read_in(int fd, uint64_t file_offset)
{
	return t_move_one(dev, T_READ, fd, drive, file_offset, 0, LEN);
}

/* ---- what is refused, and why -------------------------------------------- */

static void refused(int fd, int want, uint32_t reason, const char *what)
{
	struct peerdma_file_segment segment = { .len = LEN };
	struct peerdma_file_io io;

	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), want,
		 "%s: asked", what);
	t_is(io.out_reason, reason, "%s: ... the reason", what);
	t_result(t_move(dev, T_READ, fd, drive, &segment, 1, &io), want,
		 "%s: read into", what);
	t_result(t_move(dev, T_WRITE, fd, drive, &segment, 1, &io), want,
		 "%s: written from", what);
	close(fd);
}

static void test_refused(void)
{
	static const struct {
		uint32_t flags;
		uint32_t reason;
		const char *what;
	} rows[] = {
		{ T_EXPORT_NO_ATTACH, PEERDMA_REASON_FOREIGN_REFUSED,
		  "no attachment" },
		{ T_EXPORT_NO_MAP, PEERDMA_REASON_FOREIGN_REFUSED,
		  "no mapping" },
		{ T_EXPORT_DYNAMIC | T_EXPORT_NO_MAP,
		  PEERDMA_REASON_FOREIGN_REFUSED, "a pin but no mapping" },
		{ T_EXPORT_UNALIGNED, PEERDMA_REASON_FOREIGN_ADDRESSES,
		  "no whole pages" },
		{ T_EXPORT_SHORT, PEERDMA_REASON_FOREIGN_ADDRESSES,
		  "a page less" },
		{ T_EXPORT_EMPTY, PEERDMA_REASON_FOREIGN_ADDRESSES,
		  "a piece of no bytes" },
		{ T_EXPORT_RAW | T_EXPORT_WRAP,
		  PEERDMA_REASON_FOREIGN_ADDRESSES,
		  "a piece past all addresses" },
		{ T_EXPORT_RAW | T_EXPORT_AROUND,
		  PEERDMA_REASON_FOREIGN_MEMORY,
		  "pieces that together go past all addresses" },
		{ T_EXPORT_HOST_TAIL, PEERDMA_REASON_FOREIGN_MEMORY,
		  "a piece of host RAM" },
		{ T_EXPORT_BEYOND, PEERDMA_REASON_FOREIGN_MEMORY,
		  "a piece past the BAR" },
		{ T_EXPORT_RAW | T_EXPORT_BEYOND,
		  PEERDMA_REASON_FOREIGN_MEMORY, "a raw piece past the BAR" },
	};
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refused(export_at(rows[i].flags, PLACE), -EREMOTEIO,
			rows[i].reason, rows[i].what);
}

static int udmabuf_make(void)
{
	int memfd = memfd_create("pages", MFD_ALLOW_SEALING);
	struct udmabuf_create create = { .memfd = memfd, .size = LEN };
	int dev_fd = open("/dev/udmabuf", O_RDWR);
	int fd;

	if (dev_fd < 0 || ftruncate(memfd, LEN) ||
	    fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -1;
	fd = ioctl(dev_fd, UDMABUF_CREATE, &create);
	close(dev_fd);
	close(memfd);
	return fd;
}

static void test_udmabuf(void)
{
	struct peerdma_query got = { .size = sizeof(got) };
	int fd = udmabuf_make();

	if (fd < 0) {
		t_skip("host RAM", "this kernel has no udmabuf");
		return;
	}
	got.buffer_fd = fd;
	t_result(ioctl(dev, PEERDMA_QUERY, &got) ? -errno : 0, 0, "QUERY");
	t_is(got.out_len, LEN, "... its length");
	t_is(got.out_state, PEERDMA_BUFFER_FOREIGN, "... its state");
	refused(fd, -EREMOTEIO, PEERDMA_REASON_FOREIGN_MEMORY, "udmabuf");
}

/* ---- the verbs ----------------------------------------------------------- */

static void test_query(void)
{
	int fd = export_at(T_EXPORT_READ_ONLY, PLACE);
	struct peerdma_segment segments[4];
	struct peerdma_query got = {
		.size = sizeof(got),
		.buffer_fd = fd,
		.nr_segments = 4,
		.segments = (uintptr_t)segments,
	};

	t_result(ioctl(dev, PEERDMA_QUERY, &got) ? -errno : 0, 0, "QUERY");
	t_ok(!strcmp(got.out_provider, "a long name of "),
	     "the exporter's name, cut off");
	t_is(got.nr_segments, 0, "where it lies is not told");
	t_is(got.out_len, LEN, "out_len");
	t_is(got.out_offset, 0, "out_offset");
	t_is(got.out_page_size, sysconf(_SC_PAGESIZE), "out_page_size");
	t_is(got.out_device, PEERDMA_DEVICE_NONE, "out_device");
	t_is(got.out_state, PEERDMA_BUFFER_FOREIGN | PEERDMA_BUFFER_READ_ONLY,
	     "out_state");
	t_is(ask(fd).out_attached, 0, "nothing is attached for that");
	close(fd);
}

static void test_verbs(void)
{
	int fd = export_at(0, PLACE), event = eventfd(0, 0);
	struct peerdma_revoke revoke = {
		.size = sizeof(revoke),
		.buffer_fd = fd,
	};
	struct peerdma_watch watch = {
		.size = sizeof(watch),
		.buffer_fd = fd,
		.event_fd = event,
	};

	t_result(ioctl(dev, PEERDMA_REVOKE, &revoke) ? -errno : 0, -EOPNOTSUPP,
		 "REVOKE is for our own");
	t_result(ioctl(dev, PEERDMA_WATCH, &watch) ? -errno : 0, -EOPNOTSUPP,
		 "and so is WATCH");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, LEN, 4096), -ERANGE,
		 "a segment past the end");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, 1), -EINVAL,
		 "a segment of one byte");
	t_result(t_move_one(dev, T_READ, fd, dev, 0, 0, 4096), -ESPIPE,
		 "what is no file");
	close(fd);
	fd = export_at(T_EXPORT_READ_ONLY, PLACE);
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, 4096), -EACCES,
		 "a read-only one is not read into");
	t_result(t_move_one(dev, T_WRITE, fd, drive, LEN, 0, 4096), 4096,
		 "but written from");
	close(fd);
	close(event);
}

/* ---- contents ------------------------------------------------------------ */

static void drive_fill(uint64_t offset, uint64_t seed)
{
	t_fill(ram, LEN, seed);
	t_need(pwrite(drive, ram, LEN, offset) == (ssize_t)LEN,
	       "the drive is filled");
}

/* From the drive, where its bytes are at @from; to it, at @to. */
static void moves_file(int file, uint64_t from, uint64_t to, uint32_t flags,
		       const char *what)
{
	static uint64_t seed = 1;
	int fd = export_at(flags, PLACE);

	memset(bar + PLACE - PIECE, CANARY, LEN + 2 * PIECE);
	t_fill(ram, LEN, ++seed);
	t_need(pwrite(file, ram, LEN, from) == (ssize_t)LEN,
	       "the file is filled");
	t_result(t_move_one(dev, T_READ, fd, file, from, 0, LEN), LEN,
		 "%s: read", what);
	t_same(lying(flags, PLACE), ram, LEN, "%s: ... is in the BAR", what);
	t_ok(bar[PLACE - 1] == CANARY && bar[PLACE + LEN] == CANARY,
	     "%s: ... and nothing around it is touched", what);
	t_result(t_move_one(dev, T_WRITE, fd, file, to, 0, LEN), LEN,
		 "%s: written", what);
	t_fill(ram + LEN, LEN, seed);
	t_need(pread(file, ram, LEN, to) == (ssize_t)LEN, "it is read back");
	t_same(ram, ram + LEN, LEN, "%s: ... is on the drive", what);
	let_go(fd, what);
	close(fd);
}

static void moves(uint32_t flags, const char *what)
{
	moves_file(drive, 0, LEN, flags, what);
}

static void test_contents(void)
{
	moves(0, "without pins");
	moves(T_EXPORT_SCATTERED, "scattered");
	moves(T_EXPORT_DYNAMIC, "with pins");
	moves(T_EXPORT_RAW, "raw addresses");
	moves(T_EXPORT_RAW | T_EXPORT_SCATTERED, "raw and scattered");
	moves(T_EXPORT_REVOCABLE, "revocable");
	moves(T_EXPORT_LONG, "a page more than it has");
}

static void test_no_promise(void)
{
	if (maps_when_attached()) {
		t_skip("no promise", "kernels before 7 pin what is mapped");
		return;
	}
	moves(T_EXPORT_DYNAMIC | T_EXPORT_NO_PROMISE, "without a promise");
}

/* A regular file's lock may be held by who waits for the exporter. */
static void test_regular_file(void)
{
	int file = t_open("/mnt/regular", O_RDWR | O_CREAT | O_DIRECT);
	struct peerdma_file_io io;
	int fd;

	t_need(file >= 0, "a file is made");
	moves_file(file, 0, LEN, 0, "without pins");
	moves_file(file, 0, LEN, T_EXPORT_DYNAMIC, "with pins");
	moves_file(file, 0, LEN, T_EXPORT_RAW | T_EXPORT_SCATTERED, "raw");

	fd = export_at(T_EXPORT_DYNAMIC | T_EXPORT_NO_PROMISE, PLACE);
	t_result(t_move(dev, T_READ, fd, file, NULL, 0, &io), -EREMOTEIO,
		 "no promise not to move it");
	t_is(io.out_reason, PEERDMA_REASON_FOREIGN_REVOCABLE, "... says why");
	let_go(fd, "no promise");
	close(fd);
	fd = export_at(T_EXPORT_REVOCABLE, PLACE);
	if (maps_when_attached()) {
		t_skip("revocable", "kernels before 7 have no such exporter");
	} else {
		t_result(t_move(dev, T_READ, fd, file, NULL, 0, &io),
			 -EREMOTEIO, "who takes it back");
		t_is(io.out_reason, PEERDMA_REASON_FOREIGN_REVOCABLE,
		     "... says why");
	}
	close(fd);
	close(file);
}

/* ---- many ---------------------------------------------------------------- */

struct task {
	pthread_t thread;
	int fd;
	uint64_t offset;
	int calls;
	uint64_t len;
	long bad;
};

static atomic_bool go_on;	/* beyond their calls */

/* Each has a part of the memory of its own, as the block layer maps that, too. */
static void *task_run(void *data)
{
	struct task *task = data;
	int i;

	for (i = 0; i < task->calls || atomic_load(&go_on); i++)
		task->bad += t_move_one(dev, T_READ, task->fd, drive,
					task->offset, task->offset,
					task->len) != (long long)task->len;
	return NULL;
}

static void tasks_start(struct task *tasks, int fd, int calls, uint64_t len)
{
	int i;

	for (i = 0; i < TASKS; i++) {
		tasks[i] = (struct task){
			.fd = fd, .offset = i * len, .calls = calls, .len = len,
		};
		pthread_create(&tasks[i].thread, NULL, task_run, &tasks[i]);
	}
}

static void tasks_end(struct task *tasks, const char *what)
{
	long bad = 0;
	int i;

	for (i = 0; i < TASKS; i++) {
		pthread_join(tasks[i].thread, NULL);
		bad += tasks[i].bad;
	}
	t_is(bad, 0, "%s", what);
}

static void test_race(void)
{
	int fd = export_at(T_EXPORT_DYNAMIC, PLACE);
	struct task tasks[TASKS];

	tasks_start(tasks, fd, 20, PIECE);
	tasks_end(tasks, "tasks at once");
	let_go(fd, "tasks");
	close(fd);
}

/* With no pause between a task's calls, all are there at once most of the time. */
static void shared_by(uint32_t flags, const char *what)
{
	uint64_t len = 4 << 20;
	int fd = export_len(flags, PLACE, TASKS * len);
	struct task tasks[TASKS];

	atomic_store(&go_on, true);
	tasks_start(tasks, fd, 0, len);
	t_ok(t_wait_for(t_counter("file_ios") == TASKS),
	     "%s: %d calls are under way", what, TASKS);
	t_is(t_counter("imports"), 1, "... one import is");
	t_is(ask(fd).out_attachments, 1, "... attached once");
	t_is(ask(fd).out_mappings, 1, "... mapped once");
	atomic_store(&go_on, false);
	tasks_end(tasks, "... and all is moved");
	let_go(fd, what);
	close(fd);
}

static void test_shared(void)
{
	shared_by(T_EXPORT_DYNAMIC, "with pins");
	shared_by(0, "without pins");
	shared_by(T_EXPORT_RAW | T_EXPORT_SCATTERED, "raw addresses");
}

static void kill_me(int fd)
{
	struct peerdma_file_segment segments[8];
	struct peerdma_file_io io;
	int i;

	for (;;) {
		for (i = 0; i < 8; i++)
			segments[i] = (struct peerdma_file_segment){
				i * LEN / 8, i * LEN / 8, LEN / 8, 0,
			};
		t_move(dev, T_READ, fd, drive, segments, 8, &io);
	}
}

static void test_killed(void)
{
	int i, fd = export_at(T_EXPORT_DYNAMIC, PLACE);

	for (i = 0; i < 10; i++) {
		pid_t child = fork();

		if (!child)
			kill_me(fd);
		if (!t_wait_for(t_counter("imports") == 1))
			t_ok(false, "a transfer is under way");
		t_sleep_ms(i);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	let_go(fd, "ten kills");
	close(fd);
}

/* ---- taken back under use ------------------------------------------------ */

struct mover {
	int fd;
	uint32_t flags;
	bool stop;
	long long result;
};

/* Eight requests at once, again and again, until a call fails or @stop. */
static void *mover_run(void *data)
{
	struct peerdma_file_segment segments[8];
	struct mover *mover = data;
	struct peerdma_file_io io;
	int i;

	for (i = 0; i < 8; i++)
		segments[i] = (struct peerdma_file_segment){
			LEN * 2 + i * LEN / 8, i * LEN / 8, LEN / 8, 0,
		};
	do {
		mover->result = t_move(dev, mover->flags, mover->fd, drive,
				       segments, 8, &io);
	} while (!mover->result && !__atomic_load_n(&mover->stop,
						    __ATOMIC_RELAXED));
	return NULL;
}

/* What the old place holds from now on is somebody else's. */
static void check_untouched(void)
{
	size_t i, bad = 0;

	for (i = 0; i < LEN; i++)
		bad += bar[PLACE + i] != CANARY;
	t_is(bad, 0, "no byte of the old place has changed");
}

static void under_use(uint32_t kind, uint32_t flags, bool revoke,
		      const char *what)
{
	struct mover mover = { .fd = export_at(kind, PLACE), .flags = flags };
	struct t_move moved;
	pthread_t moving;

	drive_fill(2 * LEN, 77);
	pthread_create(&moving, NULL, mover_run, &mover);
	t_ok(t_wait_for(t_counter("file_ios") == 1), "%s is under way", what);
	t_sleep_ms(50);
	moved = move_to(mover.fd, OTHER, revoke);
	memset(bar + PLACE, CANARY, LEN);
	if (!maps_when_attached() || kind & T_EXPORT_DYNAMIC)
		t_is(moved.out_mappings, 0, "it is unmapped at once");
	/* What moves is found again by the next call, at its other place. */
	__atomic_store_n(&mover.stop, !revoke, __ATOMIC_RELAXED);
	pthread_join(moving, NULL);
	t_ok(mover.result == -ENODEV || (!revoke && !mover.result),
	     "%s is cut off (%s)", what, t_errno_name(mover.result));
	let_go(mover.fd, what);
	if (revoke) {
		t_result(read_in(mover.fd, 2 * LEN), -ENODEV,
			 "what is revoked stays so");
	} else {
		drive_fill(2 * LEN, 78);
		t_result(read_in(mover.fd, 2 * LEN), LEN,
			 "what has moved is found again");
		t_same(bar + OTHER, ram, LEN, "... where it is");
	}
	check_untouched();
	close(mover.fd);
}

static void test_moved(void)
{
	under_use(0, T_READ, false, "a read");
	under_use(0, T_WRITE, false, "a write");
	under_use(T_EXPORT_DYNAMIC, T_READ, false, "a read of pinned memory");
}

static void test_revoked(void)
{
	under_use(0, T_READ, true, "a read");
	under_use(0, T_WRITE, true, "a write");
}

/*
 * The exporter's callback waits for commands that this very task has in flight
 * and would have to complete.
 */
static void test_own_commands(void)
{
	struct peerdma_file_segment segments[COMMANDS];
	struct peerdma_file_io args[COMMANDS];
	int i, wrong = 0, fd = export_at(0, PLACE);
	struct io_uring ring;

	t_ring_make(&ring, COMMANDS, 0);
	for (i = 0; i < COMMANDS; i++) {
		segments[i] = (struct peerdma_file_segment){
			i * LEN / COMMANDS, i * LEN / COMMANDS, LEN / COMMANDS,
			0,
		};
		args[i] = (struct peerdma_file_io){
			.size = sizeof(args[i]),
			.buffer_fd = fd,
			.file_fd = drive,
			.segments = (uintptr_t)&segments[i],
			.nr_segments = 1,
		};
		t_ring_put(&ring, dev, &args[i], i);
	}
	io_uring_submit(&ring);
	move_to(fd, PLACE, true);
	memset(bar + PLACE, CANARY, LEN);
	for (i = 0; i < COMMANDS; i++) {
		long long result = t_ring_take(&ring, NULL);

		wrong += result != LEN / COMMANDS && result != -ENODEV;
	}
	t_is(wrong, 0, "commands end whole or with ENODEV");
	check_untouched();
	io_uring_queue_exit(&ring);
	close(fd);
}

/* ---- the simulated GPU's own exporter ------------------------------------ */

static void raw_addresses(const char *value)
{
	int fd = open("/sys/module/simgpu/parameters/raw_dma", O_WRONLY);

	t_need(fd >= 0 && write(fd, value, 1) == 1, "raw_dma is set");
	close(fd);
}

static void gpu_moves(const char *raw, const char *what)
{
	uint64_t ptr = t_gpu_alloc(LEN);
	int fd = t_gpu_export(ptr, LEN);

	raw_addresses(raw);
	drive_fill(0, 5);
	t_result(read_in(fd, 0), LEN, "%s: read", what);
	t_gpu_same(ptr, ram, LEN, "%s: ... is in the GPU's memory", what);
	t_gpu_set(ptr, 0x44, LEN);
	t_result(t_move_one(dev, T_WRITE, fd, drive, LEN, 0, LEN), LEN,
		 "%s: written", what);
	t_need(pread(drive, ram, LEN, LEN) == (ssize_t)LEN, "it is read back");
	memset(ram + LEN, 0x44, LEN);
	t_same(ram, ram + LEN, LEN, "%s: ... is on the drive", what);
	t_is(t_gpu_counter("dma_mappings"), 0, "%s: it is let go", what);
	t_gpu_free(ptr);
	close(fd);
	raw_addresses("1");
}

static void test_gpu(void)
{
	gpu_moves("1", "raw");
	gpu_moves("0", "mapped");
}

/* ---- what has programs of its own ------------------------------------------- */

/* The host compares the first LEN bytes of the drive with what is in the BAR. */
static int keep(void)
{
	int fd = export_at(T_EXPORT_DYNAMIC, PLACE);

	t_tap.name = "keep";
	drive_fill(0, 4711);
	t_result(read_in(fd, 0), LEN, "bytes for the host to compare");
	return t_tap.failed;
}

static int unbind(void)
{
	int other = t_open(DRIVE_1, O_RDWR | O_DIRECT);
	int fd = export_at(T_EXPORT_DYNAMIC, PLACE), control;
	struct mover mover = { .fd = fd, .flags = T_READ };
	struct peerdma_file_io io;
	char path[PATH_MAX];
	pthread_t moving;

	t_tap.name = "unbind";
	t_result(t_move(dev, T_READ, fd, other, NULL, 0, &io), 0, "asked");
	snprintf(path, sizeof(path), "%04x:%02x:%02x.%x",
		 io.out_device >> 16, io.out_device >> 8 & 0xff,
		 io.out_device >> 3 & 0x1f, io.out_device & 7);
	drive = other;
	pthread_create(&moving, NULL, mover_run, &mover);
	t_ok(t_wait_for(t_counter("file_ios") == 1), "a read is under way");
	t_sleep_ms(50);
	control = open("/sys/bus/pci/drivers/nvme/unbind", O_WRONLY);
	t_is(write(control, path, strlen(path)), strlen(path),
	     "the drive's driver goes");
	pthread_join(moving, NULL);
	t_ok(mover.result < 0, "the read is cut off (%s)",
	     t_errno_name(mover.result));
	t_is(ask(fd).out_attachments, 0, "nothing is attached to it");
	t_is(ask(fd).out_mappings, 0, "nor mapped for it");
	t_result(t_move_one(dev, T_READ, fd, other, 0, 0, LEN) < 0, 1,
		 "it moves nothing");
	close(fd);
	close(other);
	t_nothing_left();
	return t_tap.failed;
}

static double call_us(int fd, int calls)
{
	struct timespec from, to;
	int i;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (i = 0; i < calls; i++)
		t_need(t_move_one(dev, T_READ, fd, drive, 0, 0, 4096) == 4096,
		       "4 KiB are moved");
	clock_gettime(CLOCK_MONOTONIC, &to);
	return ((to.tv_sec - from.tv_sec) * 1e6 +
		(to.tv_nsec - from.tv_nsec) / 1e3) / calls;
}

/* What a call costs that moves 4 KiB, by the size of the dma-buf. */
static int cost(void)
{
	static const struct {
		uint32_t flags;
		const char *what;
	} kinds[] = {
		{ 0, "mapped in pieces of 64 KiB" },
		{ T_EXPORT_RAW | T_EXPORT_SCATTERED, "raw and scattered" },
	};
	struct t_buffer own;
	size_t i, mib;
	int fd;

	t_tap.name = "cost";
	t_buffer_make(&own, dev, LEN);
	call_us(own.fd, 20);
	t_note("our own: %.0f us", call_us(own.fd, 100));
	t_buffer_drop(&own);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		for (mib = 4; mib <= 64; mib *= 4) {
			fd = export_len(kinds[i].flags, PLACE, mib << 20);
			call_us(fd, 2);
			t_note("%s, %zu MiB: %.0f us", kinds[i].what, mib,
			       call_us(fd, 20));
			close(fd);
		}
	}
	return t_tap.failed;
}

static const struct t_case cases[] = {
	{ "refused", test_refused },
	{ "udmabuf", test_udmabuf },
	{ "query", test_query },
	{ "verbs", test_verbs },
	{ "contents", test_contents },
	{ "no promise", test_no_promise },
	{ "regular file", test_regular_file },
	{ "race", test_race },
	{ "shared", test_shared },
	{ "killed", test_killed },
	{ "moved", test_moved },
	{ "revoked", test_revoked },
	{ "own commands", test_own_commands },
	{ "gpu", test_gpu },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	if (argc < 2)
		return 2;
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	exporter_open(argv[1]);
	ram = t_ram(2 * LEN);
	if (argc == 3 && !strcmp(argv[2], "--keep"))
		return keep();
	if (argc == 3 && !strcmp(argv[2], "--unbind"))
		return unbind();
	if (argc == 3 && !strcmp(argv[2], "--cost"))
		return cost();
	argc--;
	argv++;
	return T_RUN(cases, t_nothing_left);
}
