// SPDX-License-Identifier: MIT
/*
 * Every kind of I/O on memory that is a buffer as pages, in both directions, on
 * files and block devices of every make. What is read is compared with what CUDA
 * sees, what is written with what an ordinary read finds; the host compares again.
 *
 * usage: stacks SEED OUT NAME=PATH...
 *   PATH is a block device or a file, whose first 12 MiB are written over.
 *   OUT/NAME gets a record of the memory (t_record.h), which holds the random bytes
 *   (tests/main/random.c) of SEED; so do the 4 MiB at 8 MiB of PATH.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <liburing.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_record.h"

#define LEN		(4u << 20)
#define SOURCE		0
#define SCRATCH		LEN
#define COPY		(2 * LEN)
#define PIECE		512u
#define NR		16
#define NR_BUFFERS	16

static int dev;
static uint64_t seed;
/* @other: @bytes in the order of by_vectors() */
static unsigned char *bytes, *other, *ram;

/* ---- kinds of I/O: bytes moved or a negative errno ------------------------ */

static long long by_pread(int fd, bool write, void *at, size_t len, off_t offset)
{
	ssize_t ret = write ? pwrite(fd, at, len, offset) :
			      pread(fd, at, len, offset);

	return ret < 0 ? -errno : ret;
}

/*
 * As many pieces as one call takes, backwards through the memory, so that no two
 * are neighbours both here and in the file.
 */
static long long by_vectors(int fd, bool write, void *at, size_t len,
			    off_t offset)
{
	struct iovec vectors[IOV_MAX];
	size_t done, i;
	ssize_t ret;

	for (done = 0; done < len; done += IOV_MAX * PIECE) {
		for (i = 0; i < IOV_MAX; i++)
			vectors[i] = (struct iovec){
				(char *)at + len - done - (i + 1) * PIECE,
				PIECE
			};
		ret = write ? pwritev(fd, vectors, IOV_MAX, offset + done) :
			      preadv(fd, vectors, IOV_MAX, offset + done);
		if (ret != IOV_MAX * PIECE)
			return ret < 0 ? -errno : (long long)done + ret;
	}
	return len;
}

/* What by_vectors() makes of the order. */
static void backwards(unsigned char *to, const unsigned char *from, size_t len)
{
	size_t at;

	for (at = 0; at < len; at += PIECE)
		memcpy(to + at, from + len - PIECE - at, PIECE);
}

static long long by_aio(int fd, bool write, void *at, size_t len, off_t offset)
{
	struct iocb iocbs[NR], *list[NR];
	struct io_event events[NR];
	aio_context_t context = 0;
	size_t part = len / NR;
	long long sum = 0;
	int i;

	if (syscall(SYS_io_setup, NR, &context))
		return -errno;
	for (i = 0; i < NR; i++) {
		iocbs[i] = (struct iocb){
			.aio_lio_opcode = write ? IOCB_CMD_PWRITE :
						  IOCB_CMD_PREAD,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)at + i * part,
			.aio_nbytes = part,
			.aio_offset = offset + i * part,
		};
		list[i] = &iocbs[i];
	}
	if (syscall(SYS_io_submit, context, NR, list) != NR ||
	    syscall(SYS_io_getevents, context, NR, NR, events, NULL) != NR)
		sum = -errno;
	for (i = 0; i < NR && sum >= 0; i++)
		sum = (long long)events[i].res < 0 ? events[i].res :
						     sum + events[i].res;
	syscall(SYS_io_destroy, context);
	return sum;
}

static void prepare(struct io_uring_sqe *sqe, int fd, bool write, bool fixed,
		    void *at, size_t len, off_t offset)
{
	if (fixed && write)
		io_uring_prep_write_fixed(sqe, fd, at, len, offset, 0);
	else if (fixed)
		io_uring_prep_read_fixed(sqe, fd, at, len, offset, 0);
	else if (write)
		io_uring_prep_write(sqe, fd, at, len, offset);
	else
		io_uring_prep_read(sqe, fd, at, len, offset);
}

static long long on_ring(int fd, bool write, bool fixed, void *at, size_t len,
			 off_t offset)
{
	struct iovec whole = { at, len };
	size_t part = len / NR;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	long long sum;
	int i;

	sum = io_uring_queue_init(NR, &ring, 0);
	if (sum)
		return sum;
	if (fixed)
		sum = io_uring_register_buffers(&ring, &whole, 1);
	for (i = 0; i < NR && sum >= 0; i++)
		prepare(io_uring_get_sqe(&ring), fd, write, fixed,
			(char *)at + i * part, part, offset + i * part);
	if (sum >= 0)
		io_uring_submit(&ring);
	for (i = 0; i < NR && sum >= 0; i++) {
		io_uring_wait_cqe(&ring, &cqe);
		sum = cqe->res < 0 ? cqe->res : sum + cqe->res;
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	return sum;
}

static long long by_ring(int fd, bool write, void *at, size_t len, off_t offset)
{
	return on_ring(fd, write, false, at, len, offset);
}

static long long by_registered(int fd, bool write, void *at, size_t len,
			       off_t offset)
{
	return on_ring(fd, write, true, at, len, offset);
}

static const struct kind {
	const char *name;
	long long (*move)(int fd, bool write, void *at, size_t len,
			  off_t offset);
} kinds[] = {
	{ "pread and pwrite", by_pread },
	{ "preadv and pwritev of small pieces", by_vectors },
	{ "libaio", by_aio },
	{ "io_uring", by_ring },
	{ "io_uring, a registered buffer", by_registered },
};

/* ---- the files ----------------------------------------------------------- */

/* As tests/main/random.c, which the host compares with. */
static uint64_t word_at(uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void fill_random(unsigned char *to, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += 8) {
		uint64_t word = word_at(i / 8);

		memcpy(to + i, &word, sizeof(word));
	}
}

/* Kernels before 6.12 (6.1 at least) register no mapping of a file. */
static bool is_refused(const struct kind *kind, long long ret)
{
	if (kind->move != by_registered || ret != -EOPNOTSUPP)
		return false;
	t_skip(kind->name, "this kernel registers no mapping of a file");
	return true;
}

/* @want: the file's bytes as this kind of I/O puts them into the memory */
static void both_ways(const struct kind *kind, int fd, uint64_t ptr, void *at,
		      const unsigned char *want)
{
	long long ret;

	t_gpu_set(ptr, 0x5a, LEN);
	ret = kind->move(fd, false, at, LEN, SOURCE);
	if (is_refused(kind, ret))
		return;
	t_result(ret, LEN, "%s: a read", kind->name);
	t_gpu_same(ptr, want, LEN, "... brings its bytes");
	t_same(at, want, LEN, "... which the CPU sees");
	t_gpu_set(ptr, 0x5a, LEN);
	memcpy(at, want, LEN);
	t_result(kind->move(fd, true, at, LEN, SCRATCH), LEN,
		 "... a write of what the CPU put there");
	t_is(pread(fd, ram, LEN, SCRATCH), LEN, "... is read back");
	t_same(ram, bytes, LEN, "... right");
	/* The next kind must not find what this one wrote. */
	memset(ram, 0, LEN);
	t_need(pwrite(fd, ram, LEN, SCRATCH) == LEN, "... and wiped");
}

/* One file; its GPU memory stays as it is for the host. */
static void stack(const char *name, const char *path, const char *out)
{
	struct t_buffer buffer;
	struct t_record record;
	unsigned char *at;
	char folder[128];
	size_t i;
	int fd;

	t_tap.name = name;
	fd = t_open(path, O_RDWR | O_DIRECT);
	if (fd < 0)
		t_need(false, "%s is opened: %s", path, t_errno_name(fd));
	t_need(pwrite(fd, bytes, LEN, SOURCE) == LEN, "there is something");
	t_buffer_make(&buffer, dev, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		both_ways(&kinds[i], fd, buffer.ptr, at,
			  kinds[i].move == by_vectors ? other : bytes);

	t_gpu_set(buffer.ptr, 0x5a, LEN);
	t_result(by_pread(fd, false, at, LEN, SOURCE), LEN, "read for the host");
	t_result(by_pread(fd, true, at, LEN, COPY), LEN, "written for the host");
	snprintf(folder, sizeof(folder), "%s/%s", out, name);
	mkdir(folder, 0755);
	t_record_open(&record, folder, dev, buffer.fd);
	t_record_data(&record, 0, 0, LEN);
	t_record_close(&record);
	fsync(fd);
	close(fd);
	munmap(at, LEN);
	close(buffer.fd);
}

int main(int argc, char **argv)
{
	int i;

	if (argc < 4 || argc > NR_BUFFERS) {
		fprintf(stderr, "usage: stacks SEED OUT NAME=PATH...\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = strtoull(argv[1], NULL, 0);
	t_gpu_init();
	dev = t_device_open();
	bytes = t_ram(LEN);
	other = t_ram(LEN);
	ram = t_ram(LEN);
	fill_random(bytes, LEN);
	backwards(other, bytes, LEN);
	for (i = 3; i < argc; i++) {
		char *path = strchr(argv[i], '=');

		if (!path)
			return 2;
		*path = '\0';
		stack(argv[i], path + 1, argv[2]);
		t_nothing_left();
	}
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
