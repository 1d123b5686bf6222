// SPDX-License-Identifier: MIT
/*
 * What goes wrong with a file: sectors that cannot be read or written, a full
 * drive, limits, immutable and frozen files. The error is the one that pread(2) or
 * pwrite(2) gets, what was moved is told exactly, and the next transfer works.
 *
 * usage: faults READ LATE WRITE [CASE...]
 *   READ, LATE, WRITE  offsets in /mnt/victim: of the first two sectors that cannot
 *                      be read, of the one that cannot be written; LATE is beyond
 *                      what one request moves
 *
 * /out/victim has the file's bytes; /run/full is a small file system.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "../t_counters.h"
#include "../t_transfer.h"
#include "../t_uring.h"

#define LEN		(8u << 20)
#define REQUEST		(4u << 20)
#define PIECE		32768u
#define STRIDE		(2 * PIECE)
#define FILL		0xc3
#define NR		16
#define UNTOUCHED	(-1234567)

static int dev;
static struct io_uring ring;
static struct t_buffer buffer;
static unsigned char *bytes, *ram;
static int victim;
/* The files' bad sectors, as offsets. */
static uint64_t bad_read, bad_late, bad_write;

static long long result(ssize_t ret)
{
	return ret < 0 ? -errno : ret;
}

/* What pread(2) and pwrite(2) answer. */
static long long by_read(int fd, uint64_t at, size_t len)
{
	return result(pread(fd, ram, len, at));
}

static long long by_write(int fd, uint64_t at, size_t len)
{
	return result(pwrite(fd, ram, len, at));
}

static long long move_one(uint32_t flags, int fd, uint64_t at, uint64_t len)
{
	return t_move_one(dev, flags, buffer.fd, fd, at, 0, len);
}

static long long ring_one(uint32_t flags, int fd, uint64_t at, uint64_t len)
{
	struct peerdma_file_segment segment = { at, 0, len, UNTOUCHED };
	struct peerdma_file_io io;

	return t_ring_move(&ring, dev, flags, buffer.fd, fd, &segment, 1, &io);
}

/* ---- bad sectors --------------------------------------------------------- */

/*
 * Pieces of the file around @bad, to the same places of the buffer. They do not
 * touch, or the kernel would make one request of several.
 */
static void make_pieces(struct peerdma_file_segment *segments, uint64_t bad)
{
	uint64_t at = (bad - NR / 2 * STRIDE) / PIECE * PIECE;
	int i;

	for (i = 0; i < NR; i++, at += STRIDE)
		segments[i] = (struct peerdma_file_segment){
			at, at, PIECE, UNTOUCHED,
		};
}

/* All but the piece with the bad sector are whole, and that one is @error. */
static void check_pieces(const struct peerdma_file_segment *segments,
			 uint64_t bad, long long error)
{
	int i, right = 0;

	for (i = 0; i < NR; i++) {
		uint64_t at = segments[i].file_offset;
		bool is_bad = bad - at < PIECE;

		right += segments[i].out_result == (is_bad ? error : PIECE);
	}
	t_is(right, NR, "... each piece says how it went");
}

static void test_bad_read(void)
{
	struct peerdma_file_segment segments[NR];
	long long error = by_read(victim, bad_read, 512);
	struct peerdma_file_io io;
	uint64_t at;
	int by_ring, i;

	t_ok(error < 0, "a sector cannot be read: %s", t_errno_name(error));
	for (by_ring = 0; by_ring < 2; by_ring++) {
		make_pieces(segments, bad_read);
		t_gpu_set(buffer.ptr, FILL, LEN);
		if (by_ring)
			t_result(t_ring_move(&ring, dev, T_READ, buffer.fd,
					     victim, segments, NR, &io), error,
				 "by the ring");
		else
			t_result(t_move(dev, T_READ, buffer.fd, victim,
					segments, NR, &io), error,
				 "pieces around it are read");
		check_pieces(segments, bad_read, error);
		t_is(io.out_bytes, (NR - 1) * PIECE, "... out_bytes");
		memset(ram, FILL, LEN);
		for (i = 0; i < NR; i++) {
			at = segments[i].file_offset;
			memcpy(ram + at, bytes + at, PIECE);
		}
		/* Nobody knows what the bad piece's memory holds. */
		at = bad_read / PIECE * PIECE;
		t_gpu_read(ram + at, buffer.ptr + at, PIECE);
		t_gpu_same(buffer.ptr, ram, LEN, "... the others are right");
	}
	t_result(ring_one(T_READ, victim, bad_read, 512), error,
		 "the sector alone, by the ring");
	t_result(move_one(T_READ, victim, bad_read - 512, 512), 512,
		 "its neighbour before");
	t_result(move_one(T_READ, victim, bad_read + 512, 512), 512,
		 "its neighbour behind");
}

/* One segment of two requests, of which one fails. */
static void test_bad_request(void)
{
	struct peerdma_file_segment segment;
	long long error = by_read(victim, bad_late, 512);
	struct peerdma_file_io io;

	segment = (struct peerdma_file_segment){ 0, 0, LEN, UNTOUCHED };
	t_result(t_move(dev, T_READ, buffer.fd, victim, &segment, 1, &io),
		 error, "the first of two requests fails");
	t_result(segment.out_result, error, "... nothing is certain");
	t_is(io.out_bytes, 0, "... out_bytes");

	segment = (struct peerdma_file_segment){
		bad_late - REQUEST - 512, 0, LEN - (bad_late - REQUEST - 512),
		UNTOUCHED,
	};
	t_result(t_move(dev, T_READ, buffer.fd, victim, &segment, 1, &io),
		 error, "the second of two requests fails");
	t_is(segment.out_result, REQUEST, "... the first is certain");
	t_is(io.out_bytes, REQUEST, "... out_bytes");
	t_gpu_same(buffer.ptr, bytes + segment.file_offset, REQUEST,
		   "... and right");
}

static void test_bad_write(void)
{
	struct peerdma_file_segment segments[NR];
	struct peerdma_file_io io;
	long long error;
	uint64_t at;
	int i;

	memcpy(ram, bytes + bad_write, 512);
	error = by_write(victim, bad_write, 512);
	t_ok(error < 0, "a sector cannot be written: %s", t_errno_name(error));
	make_pieces(segments, bad_write);
	for (i = 0; i < NR; i++)
		t_fill(bytes + segments[i].file_offset, PIECE, 17 + i);
	t_gpu_write(buffer.ptr, bytes, LEN);
	t_result(t_move(dev, T_WRITE, buffer.fd, victim, segments, NR, &io),
		 error, "pieces around it are written");
	check_pieces(segments, bad_write, error);
	t_is(io.out_bytes, (NR - 1) * PIECE, "... out_bytes");
	/* Nobody knows what the bad piece has. */
	at = bad_write / PIECE * PIECE;
	t_is(pread(victim, bytes + at, PIECE, at), PIECE, "... they are read");
	at = segments[0].file_offset;
	t_is(by_read(victim, at, NR * STRIDE), NR * STRIDE, "... all of them");
	t_same(ram, bytes + at, NR * STRIDE, "... right");
	t_result(ring_one(T_WRITE, victim, bad_write, 512), error,
		 "the sector alone, by the ring");
	t_result(move_one(T_WRITE, victim, bad_write + 512, 512), 512,
		 "its neighbour");
	memcpy(bytes + bad_write + 512, bytes, 512);
}

/* ---- limits -------------------------------------------------------------- */

/* Leave room for @len bytes and not much more. */
static int fill_up(uint64_t len)
{
	int filler = t_open("/run/full/filler", O_RDWR | O_CREAT);
	struct statfs room;

	if (fstatfs(filler, &room) ||
	    fallocate(filler, 0, 0, room.f_bfree * room.f_bsize - len))
		t_need(false, "the drive is filled: %s", strerror(errno));
	return filler;
}

/* As much as there is room for, and ENOSPC; then the next one works. */
static void test_full(void)
{
	int fd = t_open("/run/full/file", O_RDWR | O_CREAT | O_DIRECT);
	struct peerdma_file_segment segment = { 0, 0, LEN, UNTOUCHED };
	int filler = fill_up(REQUEST + REQUEST / 2);
	struct peerdma_file_io io;
	struct stat now;

	t_gpu_write(buffer.ptr, bytes, LEN);
	t_result(t_move(dev, T_WRITE, buffer.fd, fd, &segment, 1, &io),
		 -ENOSPC, "more than there is room for");
	t_is(segment.out_result, REQUEST, "... out_result is what went");
	t_is(io.out_bytes, REQUEST, "... out_bytes");
	fstat(fd, &now);
	t_is(now.st_size, REQUEST, "... and the file is as long");
	t_result(by_read(fd, 0, LEN), REQUEST, "it is read");
	t_same(ram, bytes, REQUEST, "... right");
	t_result(by_write(fd, REQUEST, REQUEST), -ENOSPC,
		 "pwrite() finds no more room");
	t_result(move_one(T_WRITE, fd, REQUEST, REQUEST), -ENOSPC,
		 "nor does FILE_IO");
	t_result(ring_one(T_WRITE, fd, REQUEST, REQUEST), -ENOSPC,
		 "nor the ring");
	t_result(move_one(T_READ, fd, 0, LEN), REQUEST, "what went is read");
	t_gpu_same(buffer.ptr, bytes, REQUEST, "... right");
	t_result(ftruncate(filler, 0) ? -errno : 0, 0, "room is made");
	t_result(move_one(T_WRITE, fd, 0, LEN), LEN, "the rest goes too");
	close(fd);
	close(filler);
	unlink("/run/full/file");
	unlink("/run/full/filler");
}

static volatile int signals;

static void on_signal(int signal)
{
	(void)signal;
	signals++;
}

static void test_limit(void)
{
	const uint64_t limit = 1u << 20;
	struct peerdma_file_segment segments[] = {
		{ limit - PIECE, 0, PIECE, UNTOUCHED },
		{ limit, PIECE, PIECE, UNTOUCHED },
	};
	int fd = t_open("/mnt/limited", O_RDWR | O_CREAT | O_DIRECT);
	struct rlimit all, less;
	struct peerdma_file_io io;

	getrlimit(RLIMIT_FSIZE, &all);
	less = all;
	less.rlim_cur = limit;
	setrlimit(RLIMIT_FSIZE, &less);
	signal(SIGXFSZ, on_signal);
	t_result(move_one(T_WRITE, fd, 0, 2 * limit), limit,
		 "a write ends at RLIMIT_FSIZE");
	t_result(move_one(T_WRITE, fd, 0, LEN), limit,
		 "so does one of several requests");
	t_is(signals, 0, "... with no signal");
	t_result(move_one(T_WRITE, fd, limit, PIECE), -EFBIG,
		 "one begins there");
	t_is(signals, 1, "... with SIGXFSZ");
	t_result(t_move(dev, T_WRITE, buffer.fd, fd, segments, 2, &io), -EFBIG,
		 "of two segments the second is beyond");
	t_is(segments[0].out_result, PIECE, "... the first is whole");
	t_result(segments[1].out_result, -EFBIG, "... the second is not");
	t_is(io.out_bytes, PIECE, "... out_bytes");
	t_is(signals, 2, "... and there was a signal");
	t_result(ring_one(T_WRITE, fd, limit, PIECE), -EFBIG, "by the ring");
	t_result(move_one(T_READ, fd, 0, 2 * limit), limit, "reads go on");
	setrlimit(RLIMIT_FSIZE, &all);
	signal(SIGXFSZ, SIG_DFL);
	t_result(move_one(T_WRITE, fd, limit, PIECE), PIECE,
		 "without the limit it goes");
	close(fd);
}

static void set_flag(int fd, int flag, bool on)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		t_need(false, "flags are read");
	flags = on ? flags | flag : flags & ~flag;
	if (ioctl(fd, FS_IOC_SETFLAGS, &flags))
		t_need(false, "flags are set");
}

static void test_immutable(void)
{
	int fd = t_file_make("/mnt/immutable", bytes, LEN);

	set_flag(fd, FS_IMMUTABLE_FL, true);
	t_result(by_write(fd, 0, PIECE), -EPERM, "pwrite() is refused");
	t_result(move_one(T_WRITE, fd, 0, PIECE), -EPERM, "FILE_IO is refused");
	t_result(ring_one(T_WRITE, fd, 0, PIECE), -EPERM, "... by the ring");
	t_result(move_one(T_READ, fd, 0, LEN), LEN, "it can be read");
	t_gpu_same(buffer.ptr, bytes, LEN, "... unchanged");
	set_flag(fd, FS_IMMUTABLE_FL, false);
	t_result(move_one(T_WRITE, fd, 0, PIECE), PIECE, "and written again");
	close(fd);
}

/* Linux lets pwrite(2) append where O_APPEND is set; so do we. */
static void test_append(void)
{
	int plain = t_file_make("/mnt/append", bytes, PIECE), fd;
	struct stat now;

	set_flag(plain, FS_APPEND_FL, true);
	fd = t_open("/mnt/append", O_RDWR | O_DIRECT | O_APPEND);
	t_gpu_write(buffer.ptr, bytes + PIECE, PIECE);
	t_result(move_one(T_WRITE, fd, 0, PIECE), PIECE, "a write at 0");
	fstat(fd, &now);
	t_is(now.st_size, 2 * PIECE, "... is appended");
	t_result(by_read(fd, 0, LEN), 2 * PIECE, "the file");
	t_same(ram, bytes, 2 * PIECE, "... is right");
	set_flag(plain, FS_APPEND_FL, false);
	close(plain);
	close(fd);
}

/* ---- frozen -------------------------------------------------------------- */

struct writer {
	pthread_t thread;
	int fd;
	volatile pid_t tid;
	volatile bool done;
	long long result;
};

static void *write_in_thread(void *data)
{
	struct writer *writer = data;

	writer->tid = syscall(SYS_gettid);
	writer->result = move_one(T_WRITE, writer->fd, 0, PIECE);
	writer->done = true;
	return NULL;
}

/* The letter that ps(1) shows. */
static char state_of(pid_t tid)
{
	char path[64], letter = '?';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (file) {
		if (fscanf(file, "%*d (%*[^)]) %c", &letter) != 1)
			letter = '?';
		fclose(file);
	}
	return letter;
}

static void test_frozen(void)
{
	int fd = t_file_make("/mnt/frozen", bytes, PIECE);
	struct peerdma_file_segment segment = { 0, 0, PIECE, UNTOUCHED };
	struct peerdma_file_io io = {
		.size = sizeof(io), .flags = T_WRITE, .buffer_fd = buffer.fd,
		.file_fd = fd, .segments = (uintptr_t)&segment,
		.nr_segments = 1,
	};
	struct writer writer = { .fd = fd };

	t_fill(ram, PIECE, 23);
	t_gpu_write(buffer.ptr, ram, PIECE);
	t_result(ioctl(fd, FIFREEZE, 0) ? -errno : 0, 0, "a frozen file system");
	pthread_create(&writer.thread, NULL, write_in_thread, &writer);
	t_ring_put(&ring, dev, &io, 1);
	io_uring_submit(&ring);
	t_ok(t_wait_for(writer.done || (writer.tid &&
					state_of(writer.tid) == 'D')) &&
	     !writer.done, "a write waits");
	t_ok(t_wait_for(t_counter("file_ios") > 0), "... and is counted");
	t_result(by_read(fd, 0, PIECE), PIECE, "the file");
	t_same(ram, bytes, PIECE, "... has its old bytes");
	t_result(ioctl(fd, FITHAW, 0) ? -errno : 0, 0, "thawed");
	pthread_join(writer.thread, NULL);
	t_result(writer.result, PIECE, "the write is whole");
	t_result(t_ring_take(&ring, NULL), PIECE, "so is the ring's");
	t_fill(bytes, PIECE, 23);
	t_result(by_read(fd, 0, PIECE), PIECE, "the file");
	t_same(ram, bytes, PIECE, "... has its new bytes");
	close(fd);
}

/* ---- modules ------------------------------------------------------------- */

static int unload(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? -errno : 0;
}

static void check_held(const char *what)
{
	t_result(unload("peerdma_nvidia"), -EAGAIN, "%s holds peerdma_nvidia",
		 what);
	t_result(unload("peerdma"), -EAGAIN, "... and peerdma");
	t_result(unload("simgpu"), -EAGAIN, "... and simgpu");
}

static void test_modules(void)
{
	void *at;

	check_held("a buffer");
	close(dev);
	check_held("a buffer without /dev/peerdma");
	at = mmap(NULL, LEN, PROT_READ, MAP_SHARED, buffer.fd, 0);
	close(buffer.fd);
	check_held("a mapping alone");
	munmap(at, LEN);
	dev = t_device_open();
	buffer.fd = t_pin(dev, buffer.ptr, LEN, 0, &buffer.pin);
	t_ok(buffer.fd >= 0, "the modules still work");
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
}

static const struct t_case cases[] = {
	{ "bad sectors read", test_bad_read },
	{ "a bad request", test_bad_request },
	{ "bad sectors written", test_bad_write },
	{ "a full drive", test_full },
	{ "a limit", test_limit },
	{ "immutable", test_immutable },
	{ "append-only", test_append },
	{ "frozen", test_frozen },
	{ "modules in use", test_modules },
};

int main(int argc, char **argv)
{
	int fd;

	if (argc < 4) {
		fprintf(stderr, "usage: faults READ LATE WRITE [CASE...]\n");
		return 2;
	}
	t_tap.name = "prepare";
	bad_read = strtoull(argv[1], NULL, 0);
	bad_late = strtoull(argv[2], NULL, 0);
	bad_write = strtoull(argv[3], NULL, 0);
	argc -= 3;
	argv += 3;
	t_gpu_init();
	dev = t_device_open();
	bytes = t_ram(LEN);
	ram = t_ram(LEN);
	fd = t_open("/out/victim", O_RDONLY);
	t_need(pread(fd, bytes, LEN, 0) == LEN, "the victim's bytes");
	close(fd);
	victim = t_open("/mnt/victim", O_RDWR | O_DIRECT);
	t_need(victim >= 0, "the victim");
	t_ring_make(&ring, 4, 0);
	t_buffer_make(&buffer, dev, LEN);
	return T_RUN(cases, renew);
}
