// SPDX-License-Identifier: MIT
/*
 * The buffer as a descriptor and as memory: mmap(), fork(), exec(), SCM_RIGHTS,
 * and what each of them keeps alive.
 *
 * usage: cpu_map [CASE...]
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_touch.h"

#define PAGE	4096u
#define LEN	(4u << 20)
#define DRIVE	"/dev/disk/by-serial/peerdma1"

static int dev;
static int drive;
static struct t_buffer buffer;
static unsigned char *bytes;

/* An address, or MAP_FAILED and errno. */
static unsigned char *map(int fd, size_t len, int prot, int flags, off_t offset)
{
	return mmap(NULL, len, prot, flags, fd, offset);
}

static int map_errno(int fd, size_t len, int prot, int flags, off_t offset)
{
	void *at = map(fd, len, prot, flags, offset);

	if (at == MAP_FAILED)
		return -errno;
	munmap(at, len);
	return 0;
}

static void test_whole(void)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED, 0);

	if (!t_ok(at != MAP_FAILED, "the whole buffer is mapped"))
		return;
	t_is(t_counter("cpu_maps"), 1, "... and counted");
	t_same(at, bytes, LEN, "its bytes are CUDA's");
	t_fill(bytes, LEN, 2);
	memcpy(at, bytes, LEN);
	t_gpu_same(buffer.ptr, bytes, LEN, "CUDA has what the CPU wrote");
	t_fill(bytes, LEN, 3);
	t_gpu_write(buffer.ptr, bytes, LEN);
	t_same(at, bytes, LEN, "the CPU has what CUDA wrote");
	munmap(at, LEN);
	t_is(t_counter("cpu_maps"), 0, "nothing is mapped any more");
}

static void test_parts(void)
{
	static const struct { off_t offset; size_t len; } parts[] = {
		{ 0, 1 }, { 0, PAGE }, { PAGE, 3 * PAGE },
		{ 65536 - PAGE, 2 * PAGE }, { (2u << 20) - PAGE, 9 * PAGE },
		{ LEN - PAGE, PAGE }, { 3 * PAGE, LEN - 3 * PAGE },
	};
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		unsigned char *at = map(buffer.fd, parts[i].len, PROT_READ,
					MAP_SHARED, parts[i].offset);

		if (!t_ok(at != MAP_FAILED, "%zu bytes from %lld",
			  parts[i].len, (long long)parts[i].offset))
			continue;
		t_same(at, bytes + parts[i].offset, parts[i].len,
		       "... are those bytes");
		munmap(at, parts[i].len);
	}
}

/* What is written through one mapping is seen through all. */
static void test_several(void)
{
	unsigned char *whole, *part, *reader;
	const size_t at = 65536 - PAGE, len = 3 * PAGE;

	whole = map(buffer.fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	part = map(buffer.fd, len, PROT_READ | PROT_WRITE, MAP_SHARED, at);
	reader = map(buffer.fd, LEN, PROT_READ, MAP_SHARED, 0);
	t_need(whole != MAP_FAILED && part != MAP_FAILED &&
	       reader != MAP_FAILED, "three mappings of one buffer");
	t_is(t_counter("cpu_maps"), 3, "... are counted");
	t_same(reader, bytes, LEN, "the reader sees what is there");
	memset(part, 0x21, len);
	memset(bytes + at, 0x21, len);
	t_same(whole, bytes, LEN, "the whole has what the part wrote");
	t_same(reader, bytes, LEN, "and so has the reader");
	whole[at + PAGE] = 0x22;
	t_is(part[PAGE], 0x22, "the part has what the whole wrote");
	munmap(whole, LEN);
	t_is(t_touch(part, true), 0, "the others outlive the first");
	munmap(part, len);
	munmap(reader, LEN);
	t_is(t_counter("cpu_maps"), 0, "nothing is mapped any more");
}

static void test_refused(void)
{
	const int both = PROT_READ | PROT_WRITE;

	t_result(map_errno(buffer.fd, LEN, both, MAP_PRIVATE, 0), -EINVAL,
		 "a private mapping");
	t_result(map_errno(buffer.fd, LEN, PROT_READ, MAP_PRIVATE, 0), -EINVAL,
		 "a private mapping for reading");
	t_result(map_errno(buffer.fd, LEN + PAGE, both, MAP_SHARED, 0),
		 -EINVAL, "a page too much");
	t_result(map_errno(buffer.fd, PAGE, both, MAP_SHARED, LEN), -EINVAL,
		 "past the end");
	t_result(map_errno(buffer.fd, LEN, both, MAP_SHARED, PAGE), -EINVAL,
		 "across the end");
}

static void test_read_only(void)
{
	struct peerdma_pin pin;
	int fd = t_pin(dev, buffer.ptr, LEN, PEERDMA_PIN_READ_ONLY, &pin);
	unsigned char *at;

	t_need(fd >= 0, "a read-only pin");
	t_is(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY,
	     "its descriptor is for reading");
	t_result(map_errno(fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0),
		 -EACCES, "it is not mapped for writing");
	t_result(map_errno(fd, LEN, PROT_READ, MAP_PRIVATE, 0), -EINVAL,
		 "nor privately");
	at = map(fd, LEN, PROT_READ, MAP_SHARED, 0);
	if (t_ok(at != MAP_FAILED, "it is mapped for reading")) {
		t_same(at, bytes, LEN, "... to its bytes");
		t_result(mprotect(at, LEN, PROT_READ | PROT_WRITE) ? -errno : 0,
			 -EACCES, "... and stays for reading");
		t_is(t_touch(at, true), SIGSEGV, "... a write is a SIGSEGV");
		munmap(at, LEN);
	}
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, PAGE), -EACCES,
		 "no file is read into it");
	t_result(t_move_one(dev, T_WRITE, fd, drive, 0, 0, LEN), LEN,
		 "it is written into a file");
	close(fd);
}

/* mprotect(), splits, moves and growth of a mapping. */
static void test_reshaped(void)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED, 0);
	unsigned char *moved;

	t_need(at != MAP_FAILED, "a mapping");
	t_result(mprotect(at, PAGE, PROT_READ) ? -errno : 0, 0,
		 "one page becomes read-only");
	t_is(t_touch(at, true), SIGSEGV, "... a write to it is a SIGSEGV");
	t_is(t_touch(at + PAGE, false), 0, "... the next page is as it was");
	munmap(at + LEN / 2, PAGE);
	t_is(t_counter("cpu_maps"), 3, "cut twice, it is three mappings");
	t_same(at + LEN / 2 + PAGE, bytes + LEN / 2 + PAGE,
	       LEN / 2 - PAGE, "behind the cut the bytes are right");
	t_ok(mremap(at + PAGE, PAGE, 2 * LEN, MREMAP_MAYMOVE) == MAP_FAILED,
	     "a mapping does not grow");
	moved = mremap(at + LEN / 2 + PAGE, LEN / 2 - PAGE, LEN / 2 - PAGE,
		       MREMAP_MAYMOVE | MREMAP_FIXED,
		       t_ram(LEN));
	if (t_ok(moved != MAP_FAILED, "a mapping moves")) {
		t_same(moved, bytes + LEN / 2 + PAGE, LEN / 2 - PAGE,
		       "... with its bytes");
		munmap(moved, LEN);
	}
	munmap(at, LEN);
	t_is(t_counter("cpu_maps"), 0, "nothing is mapped any more");
}

/* The mapping keeps the pin when the descriptor is closed and CUDA has freed. */
static void test_keeps_pin(void)
{
	struct t_buffer own;
	unsigned char *at;
	uint64_t other;

	t_buffer_make(&own, dev, LEN);
	t_gpu_write(own.ptr, bytes, LEN);
	at = map(own.fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	t_buffer_drop(&own);
	t_is(t_counter("buffers"), 2, "the mapping keeps the pin");
	other = t_gpu_alloc(LEN);
	t_gpu_set(other, 0x77, LEN);
	t_same(at, bytes, LEN, "... and its bytes, which nobody else gets");
	memset(at, 0x11, LEN);
	t_ok(t_gpu_counter("pinned") >= LEN, "... at simgpu too");
	munmap(at, LEN);
	memset(bytes, 0x77, LEN);
	t_gpu_same(other, bytes, LEN, "the next owner's bytes are untouched");
	t_fill(bytes, LEN, 3);
	t_gpu_free(other);
	t_is(t_counter("buffers"), 1, "munmap() ends the pin");
}

/* A transfer writes what the CPU put, and the CPU sees what it read. */
static void test_with_files(void)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED, 0);
	unsigned char *ram = t_ram(LEN);

	t_need(at != MAP_FAILED, "a mapping");
	t_fill(ram, LEN, 11);
	memcpy(at, ram, LEN);
	t_result(t_move_one(dev, T_WRITE, buffer.fd, drive, 0, 0, LEN), LEN,
		 "what the CPU wrote goes to the drive");
	memset(at, 0, LEN);
	t_is(pread(drive, ram, LEN, 0), LEN, "... and is read back");
	t_fill(bytes, LEN, 11);
	t_same(ram, bytes, LEN, "... unchanged");
	t_result(t_move_one(dev, T_READ, buffer.fd, drive, 0, 0, LEN), LEN,
		 "what the drive has is read");
	t_same(at, bytes, LEN, "... where the CPU sees it");
	t_fill(bytes, LEN, 3);
	munmap(ram, LEN);
	munmap(at, LEN);
}

static int child_touches(void *at)
{
	return t_touch(at, false);
}

static int child_maps(void *data)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ, MAP_SHARED, 0);

	(void)data;
	if (at == MAP_FAILED)
		return 1;
	return memcmp(at, bytes, LEN) ? 2 : 0;
}

static void test_fork(void)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED, 0);

	t_need(at != MAP_FAILED, "a mapping");
	t_is(t_touch(at, false), 0, "the mapping is used");
	t_is(t_child(child_touches, at), SIGSEGV,
	     "a child does not inherit the mapping");
	t_is(madvise(at, LEN, MADV_DOFORK), -1,
	     "nor can it be made to");
	t_is(t_child(child_maps, NULL), 0,
	     "a child maps the descriptor it inherited");
	t_is(t_counter("cpu_maps"), 1, "its mapping ended with it");
	munmap(at, LEN);
}

static int child_execs(void *data)
{
	char path[32];

	(void)data;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", buffer.fd);
	execl("/usr/bin/test", "test", "-e", path, NULL);
	return 99;
}

static void test_exec(void)
{
	int status;

	t_is(fcntl(buffer.fd, F_GETFD), FD_CLOEXEC,
	     "the descriptor is close-on-exec");
	fflush(stdout);
	status = t_child(child_execs, NULL);
	t_is(status, 1, "a program that is started does not have it");
}

static int send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(fd))] = { 0 }, byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(socket, &message, 0) == 1 ? 0 : -errno;
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(socket, &message, MSG_DONTWAIT) == 1 &&
	    CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

/* The owner, a program of its own: pins, sends the buffer away, and is gone. */
static int send_buffer(int socket)
{
	struct t_buffer own;

	t_gpu_init();
	bytes = t_ram(LEN);
	t_fill(bytes, LEN, 3);
	own.ptr = t_gpu_alloc(LEN);
	t_gpu_write(own.ptr, bytes, LEN);
	own.fd = t_pin(t_device_open(), own.ptr, LEN, 0, &own.pin);
	return own.fd < 0 || send_fd(socket, own.fd) ? 1 : 0;
}

static int child_sends(void *data)
{
	char socket[16];

	snprintf(socket, sizeof(socket), "%d", *(int *)data);
	execl("/proc/self/exe", "cpu_map", "--send", socket, NULL);
	return 98;
}

static void test_sent(void)
{
	unsigned char *at, *ram = t_ram(LEN);
	int sockets[2], fd;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		t_need(false, "a pair of sockets");
	t_is(t_child(child_sends, &sockets[1]), 0,
	     "a process sends its buffer");
	t_is(t_counter("buffers"), 2, "the message keeps the pin");
	fd = receive_fd(sockets[0]);
	at = map(fd, LEN, PROT_READ, MAP_SHARED, 0);
	if (t_ok(at != MAP_FAILED, "the receiver maps it")) {
		t_same(at, bytes, LEN, "... to the sender's bytes");
		munmap(at, LEN);
	}
	t_result(t_move_one(dev, T_WRITE, fd, drive, 0, 0, LEN), LEN,
		 "and moves it into a file");
	t_is(pread(drive, ram, LEN, 0), LEN, "... which is read");
	t_same(ram, bytes, LEN, "... and has those bytes");
	close(fd);

	t_is(t_child(child_sends, &sockets[1]), 0, "a second buffer is sent");
	close(sockets[0]);
	close(sockets[1]);
	t_ok(t_wait_for(t_counter("buffers") == 1),
	     "one that nobody receives is gone with the socket");
	munmap(ram, LEN);
}

/*
 * A process that has all that a buffer can be had by, and becomes another program:
 * neither descriptor nor mapping is left, and so no pin, though the process goes on.
 */
static int child_becomes_cat(void *data)
{
	int *ends = data, fd;
	struct peerdma_page_map arg;
	unsigned char *at, *pages;
	char byte;

	at = map(buffer.fd, LEN, PROT_READ, MAP_SHARED, 0);
	fd = t_pages(dev, buffer.fd, 0, &arg);
	pages = fd < 0 ? MAP_FAILED : map(fd, LEN, PROT_READ, MAP_SHARED, 0);
	if (at == MAP_FAILED || pages == MAP_FAILED || t_touch(at, false) ||
	    t_touch(pages, false))
		return 97;
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		return 97;
	dup2(ends[0], STDIN_FILENO);
	execl("/usr/bin/cat", "cat", NULL);
	return 98;
}

static void test_exec_ends(void)
{
	int ends[2], status;
	pid_t child;

	t_need(!pipe2(ends, O_CLOEXEC), "a pipe");
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(child_becomes_cat(ends));
	t_ok(t_wait_for(t_counter("cpu_maps") == 2), "a child maps it twice");
	t_is(write(ends[1], "", 1), 1, "it becomes another program");
	t_ok(t_wait_for(t_counter("cpu_maps") == 0),
	     "which has neither mapping");
	close(buffer.fd);
	t_ok(t_wait_for(!t_in_use()), "nor anything of the pin");
	close(ends[0]);
	close(ends[1]);
	t_ok(waitpid(child, &status, 0) == child && !status,
	     "and went on meanwhile");
	buffer.fd = t_pin(dev, buffer.ptr, LEN, 0, &buffer.pin);
}

/* Mappings of pages are no more inherited than others; their descriptor is. */
static void test_pages_fork(void)
{
	struct peerdma_page_map arg;
	int fd = t_pages(dev, buffer.fd, 0, &arg), saved = buffer.fd;
	unsigned char *at = map(fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	t_need(fd >= 0 && at != MAP_FAILED, "a mapping of pages");
	t_is(t_touch(at, false), 0, "it is used");
	t_is(t_child(child_touches, at), SIGSEGV,
	     "a child does not inherit it");
	buffer.fd = fd;
	t_is(t_child(child_maps, NULL), 0,
	     "a child maps the descriptor it inherited");
	buffer.fd = saved;
	t_is(t_counter("cpu_maps"), 1, "its mapping ended with it");
	close(fd);
	munmap(at, LEN);
	t_ok(t_wait_for(!t_counter("page_maps")), "there are no pages left");
}

/* ---- threads ------------------------------------------------------------- */

#define NR_THREADS	4

struct part {
	pthread_t thread;
	unsigned char *map;
	int fd;
	uint64_t offset;
	int wrong;
};

/* By a part of a mapping that another thread made, and by FILE_IO, in turn. */
static void *thread_run(void *data)
{
	unsigned char *ram = t_ram(LEN / NR_THREADS);
	struct part *part = data;
	size_t len = LEN / NR_THREADS;
	int round;

	for (round = 0; round < 4; round++) {
		t_fill(ram, len, part->offset + round);
		memcpy(part->map + part->offset, ram, len);
		part->wrong += t_move_one(dev, T_WRITE, part->fd, drive,
					  part->offset, part->offset, len) !=
			       (long long)len;
		memset(part->map + part->offset, 0, len);
		part->wrong += t_move_one(dev, T_READ, part->fd, drive,
					  part->offset, part->offset, len) !=
			       (long long)len;
		part->wrong += memcmp(part->map + part->offset, ram, len) != 0;
	}
	munmap(ram, len);
	return NULL;
}

/* Who made a descriptor or a mapping, and whether he lives, does not matter. */
static void *thread_pins(void *data)
{
	struct part *part = data;
	struct peerdma_pin pin;

	part->fd = t_pin(dev, buffer.ptr, LEN, 0, &pin);
	part->map = map(part->fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	return NULL;
}

static void test_threads(void)
{
	struct part parts[NR_THREADS], made;
	int i, wrong = 0;

	pthread_create(&made.thread, NULL, thread_pins, &made);
	pthread_join(made.thread, NULL);
	t_need(made.fd >= 0 && made.map != MAP_FAILED,
	       "a thread pins, maps and ends");
	for (i = 0; i < NR_THREADS; i++) {
		parts[i] = (struct part){
			.map = made.map, .fd = made.fd,
			.offset = (uint64_t)i * LEN / NR_THREADS,
		};
		pthread_create(&parts[i].thread, NULL, thread_run, &parts[i]);
	}
	for (i = 0; i < NR_THREADS; i++) {
		pthread_join(parts[i].thread, NULL);
		wrong += parts[i].wrong;
	}
	t_is(wrong, 0, "others use both at once, and have their own bytes");
	t_is(t_counter("file_ios"), 0, "no transfer is left");
	t_is(munmap(made.map, LEN), 0, "it is unmapped");
	t_is(t_touch(made.map, false), SIGSEGV, "for all of them");
	close(made.fd);
	t_is(t_counter("buffers"), 1, "and the pin ends");
}

/* What follows a page in physical memory is seldom what follows in the buffer. */
static bool reads_across(int mem, const unsigned char *at)
{
	unsigned char word[64];
	size_t i;

	for (i = PAGE; i < LEN; i += PAGE) {
		size_t from = i - sizeof(word) / 2;

		if (pread(mem, word, sizeof(word), (uintptr_t)at + from) !=
			    sizeof(word) ||
		    memcmp(word, bytes + from, sizeof(word)))
			return false;
	}
	return true;
}

/* All of @bytes, in pieces that lie on two pages each. */
static bool writes_across(int mem, const unsigned char *at)
{
	size_t i, len;

	for (i = 0; i < LEN; i += len) {
		len = i ? PAGE : PAGE / 2;
		len = len < LEN - i ? len : LEN - i;
		if (pwrite(mem, bytes + i, len, (uintptr_t)at + i) !=
		    (ssize_t)len)
			return false;
	}
	return true;
}

/* VM_DONTDUMP, as /proc/PID/smaps has it. */
static bool left_out_of_dumps(const unsigned char *at)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool left_out = false;
	char line[512];
	uint64_t start;
	char dash;

	while (smaps && fgets(line, sizeof(line), smaps))
		if (sscanf(line, "%" SCNx64 "%c", &start, &dash) == 2 &&
		    dash == '-' && start == (uintptr_t)at)
			break;
	while (smaps && fgets(line, sizeof(line), smaps))
		if (!strncmp(line, "VmFlags:", 8)) {
			left_out = strstr(line, " dd ");
			break;
		}
	if (smaps)
		fclose(smaps);
	return left_out;
}

/* ptrace and /proc/self/mem reach device memory through the mapping. */
static void test_debugger(void)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED, 0);
	int mem = open("/proc/self/mem", O_RDWR);
	unsigned char word[16];

	t_need(at != MAP_FAILED && mem >= 0, "a mapping");
	t_is(t_touch(at + PAGE, false), 0, "it is used");
	t_is(pread(mem, word, sizeof(word), (uintptr_t)at + PAGE + 5),
	     sizeof(word), "a debugger reads it");
	t_same(word, bytes + PAGE + 5, sizeof(word), "... right");
	t_is(t_touch(at + LEN / 2, false), 0, "all of it is used");
	t_ok(reads_across(mem, at), "... and read, from one page into the next");
	munmap(at, LEN);

	at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	t_fill(bytes, LEN, 13);
	t_ok(writes_across(mem, at),
	     "a debugger writes what was never touched, from page to page");
	t_gpu_same(buffer.ptr, bytes, LEN, "... right");
	t_ok(left_out_of_dumps(at), "a core dump leaves the mapping out");
	mprotect(at, LEN, PROT_READ);
	t_result(t_debug(at, true), -EIO, "what is for reading it leaves");
	t_gpu_same(buffer.ptr, bytes, LEN, "... as it was");
	t_result(t_debug(at, false), 0, "... and reads");
	close(mem);
	munmap(at, LEN);
}

/* Has the mapping where its parent has asked for it, and waits for him. */
static int child_is_traced(void *at)
{
	if (mmap(at, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 buffer.fd, 0) != at || ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 1;
	raise(SIGSTOP);
	return 0;
}

static void test_traced(void)
{
	const size_t place = LEN / 2 + 24, next = 65536 - 8;
	const long word = 0x1122334455667788;
	unsigned char *at = t_ram(LEN);
	int status = -1;
	pid_t child;
	long got;

	fflush(stdout);
	child = fork();
	if (!child)
		_exit(child_is_traced(at));
	t_need(waitpid(child, &status, 0) == child && WIFSTOPPED(status),
	       "a child is traced");
	errno = 0;
	got = ptrace(PTRACE_PEEKDATA, child, at + place, NULL);
	t_result(-errno, 0, "PTRACE_PEEKDATA");
	t_same(&got, bytes + place, sizeof(got), "... gets the buffer's bytes");
	t_is(ptrace(PTRACE_POKEDATA, child, at + place, word), 0,
	     "PTRACE_POKEDATA");
	t_is(ptrace(PTRACE_POKEDATA, child, at + next, ~word), 0,
	     "... and elsewhere");
	memcpy(bytes + place, &word, sizeof(word));
	got = ~word;
	memcpy(bytes + next, &got, sizeof(got));
	t_gpu_same(buffer.ptr, bytes, LEN, "... writes them there");
	t_result(t_revoke(dev, buffer.fd), 0, "it is revoked");
	errno = 0;
	ptrace(PTRACE_PEEKDATA, child, at + place, NULL);
	t_result(-errno, -EIO, "PTRACE_PEEKDATA then");
	t_is(ptrace(PTRACE_POKEDATA, child, at + place, 0l), -1,
	     "PTRACE_POKEDATA then");
	t_gpu_same(buffer.ptr, bytes, LEN, "... writes nothing");
	t_is(ptrace(PTRACE_DETACH, child, NULL, (void *)SIGKILL), 0,
	     "it is let go");
	waitpid(child, NULL, 0);
	munmap(at, LEN);
}

/* The kernel's own copies take the mapping as they take any memory. */
static void test_as_argument(void)
{
	unsigned char *at = map(buffer.fd, LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED, 0);
	unsigned char *ram = t_ram(LEN);
	int fd = memfd_create("copy", 0);

	t_need(at != MAP_FAILED && fd >= 0, "a mapping");
	t_is(write(fd, at, LEN), LEN, "write() from an untouched mapping");
	t_is(pread(fd, ram, LEN, 0), LEN, "... is read");
	t_same(ram, bytes, LEN, "... right");
	t_fill(ram, LEN, 12);
	t_is(pwrite(fd, ram, LEN, 0), LEN, "other bytes");
	t_is(pread(fd, at, LEN, 0), LEN, "read() into the mapping");
	t_gpu_same(buffer.ptr, ram, LEN, "... arrives");
	t_gpu_write(buffer.ptr, bytes, LEN);
	close(fd);
	munmap(ram, LEN);
	munmap(at, LEN);
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
	t_fill(bytes, LEN, 3);
	t_gpu_write(buffer.ptr, bytes, LEN);
}

static const struct t_case cases[] = {
	{ "map whole", test_whole },
	{ "map parts", test_parts },
	{ "map several times", test_several },
	{ "map refused", test_refused },
	{ "map read-only", test_read_only },
	{ "map reshaped", test_reshaped },
	{ "map keeps the pin", test_keeps_pin },
	{ "map and files", test_with_files },
	{ "map as an argument", test_as_argument },
	{ "map and debuggers", test_debugger },
	{ "map and ptrace", test_traced },
	{ "fork", test_fork },
	{ "exec", test_exec },
	{ "exec ends it", test_exec_ends },
	{ "fork and pages", test_pages_fork },
	{ "threads", test_threads },
	{ "sent", test_sent },
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--send"))
		return send_buffer(atoi(argv[2]));
	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	bytes = t_ram(LEN);
	t_buffer_make(&buffer, dev, LEN);
	t_fill(bytes, LEN, 3);
	t_gpu_write(buffer.ptr, bytes, LEN);
	return T_RUN(cases, renew);
}
