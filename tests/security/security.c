// SPDX-License-Identifier: MIT
/*
 * What users who are not root can do to each other and learn from the kernel,
 * each of them a program of its own. docs/security.md names these cases.
 *
 * Wants /mnt/scratch, a directory for files, and a group that /dev/peerdma is
 * open to: MEMBERS.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <grp.h>
#include <inttypes.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_touch.h"

#define OWNER		1001
#define INTRUDER	1002
#define STRANGER	1003
#define MEMBERS		2000
#define LEN		(1u << 20)
#define SEED		77
#define MOST		(16u << 20)
#define SCRATCH		"/mnt/scratch/owner"

static int dev;

/* ---- two programs that talk ---------------------------------------------- */

/**
 * struct letter - what one program tells another
 * @pid: who writes
 * @ptr: its GPU memory, pinned and filled with t_fill(SEED)
 * @map: the CPU's mapping of it, in that process
 * @buffer: the dma-buf's number among the writer's descriptors
 */
struct letter {
	pid_t pid;
	uint64_t ptr;
	uint64_t map;
	int buffer;
};

static bool post(int socket, const struct letter *letter, const int *fds, int nr)
{
	char control[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec data = { (void *)letter, sizeof(*letter) };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(header), fds, nr * sizeof(int));
	return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(*letter);
}

static bool receive(int socket, struct letter *letter, int *fds, int nr)
{
	char control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec data = { letter, sizeof(*letter) };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};

	if (recvmsg(socket, &message, 0) != sizeof(*letter) ||
	    !CMSG_FIRSTHDR(&message))
		return false;
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), nr * sizeof(int));
	return true;
}

/* For a user's program: what was wrong becomes a note of the test's. */
#define MUST(condition) do {						\
	if (!(condition)) {						\
		t_note("user %u: line %d: %s: %s", getuid(), __LINE__,	\
		       #condition, strerror(errno));			\
		fflush(stdout);						\
		return 1;						\
	}								\
} while (0)

struct user {
	pid_t pid;
	int socket;
};

/* CUDA does not outlive fork(), so a user is a program of its own. */
static struct user user_start(const char *role, uid_t uid, bool member)
{
	char name[16], number[16];
	gid_t group = MEMBERS;
	struct user user;
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		t_need(false, "a pair of sockets");
	fcntl(sockets[0], F_SETFD, FD_CLOEXEC);
	fflush(stdout);
	user.pid = fork();
	user.socket = sockets[0];
	if (!user.pid) {
		snprintf(number, sizeof(number), "%d", sockets[1]);
		snprintf(name, sizeof(name), "%s", role);
		if (setgroups(member, &group) || setresgid(uid, uid, uid) ||
		    setresuid(uid, uid, uid))
			_exit(97);
		execl("/proc/self/exe", "security", "--user", name, number,
		      NULL);
		_exit(98);
	}
	close(sockets[1]);
	return user;
}

/* Its exit status, or 256 plus the signal. */
static int user_end(struct user *user)
{
	int status;

	close(user->socket);
	if (waitpid(user->pid, &status, 0) != user->pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) :
				   256 + WTERMSIG(status);
}

/* ---- what an owner does, and sees ---------------------------------------- */

static struct {
	char *bytes;
	size_t len;
} seen;

static void see(const void *bytes, size_t len)
{
	if (len > MOST - seen.len)
		len = MOST - seen.len;
	memcpy(seen.bytes + seen.len, bytes, len);
	seen.len += len;
}

static bool see_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	ssize_t len = -1;
	char part[4096];

	while (fd >= 0 && (len = read(fd, part, sizeof(part))) > 0)
		see(part, len);
	close(fd);
	return fd >= 0 && !len;
}

/* A module's notes have a hash of its build, in which anything may be seen. */
static void see_folder(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	char name[512];

	while (folder && (entry = readdir(folder))) {
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_REG)
			see_file(name);
		else if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
			 strcmp(entry->d_name, "notes"))
			see_folder(name);
	}
	if (folder)
		closedir(folder);
}

/* The kernel's page map of a range, which has frame numbers for root. */
static void see_pagemap(const char *at, size_t len)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entries[LEN / 4096];
	ssize_t got = pread(fd, entries, len / 4096 * 8,
			    (uintptr_t)at / 4096 * 8);

	if (got > 0)
		see(entries, got);
	close(fd);
}

/* Every answer that the interface gives to one who may not know addresses. */
static int see_answers(int device, int buffer)
{
	struct peerdma_info info = { .size = sizeof(info) };
	struct peerdma_query query = {
		.size = sizeof(query), .buffer_fd = buffer,
	};
	struct peerdma_segment segments[64] = { 0 };
	struct peerdma_query ask = {
		.size = sizeof(ask), .buffer_fd = buffer, .nr_segments = 64,
		.segments = (uintptr_t)segments,
	};
	struct peerdma_route route = { .size = sizeof(route) };

	MUST(!ioctl(device, PEERDMA_INFO, &info));
	MUST(!ioctl(device, PEERDMA_QUERY, &query));
	MUST(query.out_len == LEN);
	MUST(ioctl(device, PEERDMA_QUERY, &ask) && errno == EPERM);
	route.from_device = query.out_device;
	route.to_device = query.out_device;
	ioctl(device, PEERDMA_ROUTE, &route);
	/* A stack's address, with what lies beside it, may look like the kernel's. */
	ask.segments = 0;
	see(&info, sizeof(info));
	see(&query, sizeof(query));
	see(segments, sizeof(segments));
	see(&ask, sizeof(ask));
	see(&route, sizeof(route));
	return 0;
}

static int see_all(int device, int buffer, const char *map)
{
	static const char *const names[] = {
		"maps", "smaps", "numa_maps", "stat", "status", "syscall",
	};
	char path[64];
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "/proc/self/%s", names[i]);
		see_file(path);
	}
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", buffer);
	MUST(see_file(path));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", device);
	MUST(see_file(path));
	see_folder("/sys/module/peerdma");
	see_folder("/sys/module/peerdma_nvidia");
	see_folder("/sys/class/misc/peerdma/");
	see_folder("/sys/kernel/debug/peerdma");
	see_folder("/sys/kernel/tracing/events/peerdma");
	see_file("/sys/kernel/tracing/trace");
	see_pagemap(map, LEN);
	return see_answers(device, buffer);
}

static int move_own_file(int device, int buffer, unsigned char *map)
{
	unsigned char *ram = t_ram(LEN);
	int file = t_open(SCRATCH, O_RDWR | O_CREAT | O_DIRECT);

	MUST(file >= 0);
	MUST(t_move_one(device, T_WRITE, buffer, file, 0, 0, LEN) == LEN);
	MUST(pread(file, ram, LEN, 0) == LEN);
	MUST(!memcmp(ram, map, LEN));
	close(file);
	munmap(ram, LEN);
	return 0;
}

/* Pins, maps, moves; tells all that it saw; waits; has its bytes still. */
static int role_owner(int socket)
{
	struct letter letter = { .pid = getpid() };
	unsigned char *bytes = t_ram(LEN), *map;
	int device = t_device_open(), fds[2];
	struct peerdma_revoke revoke = { .size = sizeof(revoke) };
	struct peerdma_pin pin;
	char byte;

	seen.bytes = t_ram(MOST);
	t_gpu_init();
	letter.ptr = t_gpu_alloc(LEN);
	t_fill(bytes, LEN, SEED);
	t_gpu_write(letter.ptr, bytes, LEN);
	letter.buffer = t_pin(device, letter.ptr, LEN, 0, &pin);
	MUST(letter.buffer >= 0);
	map = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, letter.buffer,
		   0);
	MUST(map != MAP_FAILED && !memcmp(map, bytes, LEN));
	letter.map = (uintptr_t)map;
	if (move_own_file(device, letter.buffer, map) ||
	    see_all(device, letter.buffer, (char *)map))
		return 1;
	pin.addr = 0;
	see(&pin, sizeof(pin));
	revoke.buffer_fd = letter.buffer;
	MUST(ioctl(device, PEERDMA_REVOKE, &revoke) && errno == EPERM);

	fds[0] = letter.buffer;
	fds[1] = memfd_create("seen", 0);
	MUST(write(fds[1], seen.bytes, seen.len) == (ssize_t)seen.len);
	MUST(post(socket, &letter, fds, 2));
	MUST(read(socket, &byte, 1) >= 0);
	MUST(!memcmp(map, bytes, LEN));
	return 0;
}

/* ---- no permission ------------------------------------------------------- */

/* No member of the group, with nothing but what everybody has. */
static int role_stranger(int socket)
{
	static const char *const closed[] = {
		"/dev/peerdma",
		"/sys/kernel/debug/peerdma/buffers",
		"/sys/kernel/debug/peerdma/counters",
		"/sys/kernel/tracing/events/peerdma/pin/format",
	};
	size_t i;

	(void)socket;
	for (i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
		MUST(open(closed[i], O_RDONLY) < 0 && errno == EACCES);
		MUST(open(closed[i], O_RDWR) < 0 && errno == EACCES);
	}
	return 0;
}

static void stranger_is_kept_out(void)
{
	struct user stranger = user_start("stranger", STRANGER, false);

	t_is(user_end(&stranger), 0,
	     "device, list, counters and trace are closed to strangers");
}

/* ---- addresses ----------------------------------------------------------- */

static bool has(const char *text, size_t len, const void *what, size_t size)
{
	return memmem(text, len, what, size);
}

/* As a number of its own, leading zeroes or not: user addresses have all digits. */
static bool has_number(const char *text, size_t len, const char *digits)
{
	size_t size = strlen(digits);
	const char *at = text, *end = text + len, *before;

	while ((at = memmem(at, end - at, digits, size))) {
		for (before = at; before > text && before[-1] == '0'; before--)
			;
		if ((before == text || !isxdigit((unsigned char)before[-1])) &&
		    (at + size == end || !isxdigit((unsigned char)at[size])))
			return true;
		at++;
	}
	return false;
}

/* Does @text hold this number: as text of either base, or as it is stored? */
static bool holds(const char *text, size_t len, uint64_t number)
{
	char hex[32], large[32], decimal[32];

	snprintf(hex, sizeof(hex), "%" PRIx64, number);
	snprintf(large, sizeof(large), "%" PRIX64, number);
	snprintf(decimal, sizeof(decimal), "%" PRIu64, number);
	return has_number(text, len, hex) || has_number(text, len, large) ||
	       has_number(text, len, decimal) ||
	       has(text, len, &number, sizeof(number));
}

/* The buffer's physical pages, or their frame numbers. */
static bool tells_place(const char *text, size_t len,
			const struct peerdma_segment *where, uint32_t nr)
{
	uint64_t at;
	uint32_t i;

	for (i = 0; i < nr; i++)
		for (at = 0; at < where[i].len; at += 4096)
			if (holds(text, len, where[i].addr + at) ||
			    holds(text, len, (where[i].addr + at) >> 12)) {
				t_note("it tells %#" PRIx64,
				       (uint64_t)where[i].addr + at);
				return true;
			}
	return false;
}

/* A pointer into the kernel's half, stored or printed; -1 stands for no device. */
static bool tells_pointer(const char *text, size_t len)
{
	size_t i, j;

	for (i = 0; i + 8 <= len; i++) {
		uint64_t word;

		memcpy(&word, text + i, 8);
		if (word >= 0xffff800000000000 && word < 0xfffffffffffff000)
			return true;
	}
	for (i = 0; i + 16 <= len; i++) {
		if (memcmp(text + i, "ffff", 4))
			continue;
		for (j = 4; j < 16 && strchr("0123456789abcdef", text[i + j]) &&
		     text[i + j]; j++)
			;
		if (j == 16 && memcmp(text + i, "ffffffffffffffff", 16) &&
		    memcmp(text + i, "ffffffffff600000", 16))
			return true;
	}
	return false;
}

static void no_address_is_told(void)
{
	struct user owner = user_start("owner", OWNER, true);
	struct peerdma_segment where[64] = { 0 };
	struct peerdma_query query = {
		.size = sizeof(query), .nr_segments = 64,
		.segments = (uintptr_t)where,
	};
	struct letter letter;
	struct stat file;
	char *text;
	int fds[2];

	t_need(receive(owner.socket, &letter, fds, 2),
	       "a user pins, maps and moves what is his");
	query.buffer_fd = fds[0];
	t_need(!ioctl(dev, PEERDMA_QUERY, &query) && query.nr_segments > 1,
	       "root is told where the memory lies");
	fstat(fds[1], &file);
	text = t_ram(file.st_size + sizeof(where));
	t_is(pread(fds[1], text, file.st_size, 0), file.st_size,
	     "what the user saw: %lld bytes", (long long)file.st_size);
	t_ok(!tells_place(text, file.st_size, where, query.nr_segments),
	     "no physical address is in it");
	t_ok(!tells_pointer(text, file.st_size), "no kernel pointer is in it");
	memcpy(text + file.st_size, where, sizeof(where));
	t_ok(tells_place(text, file.st_size + sizeof(where), where,
			 query.nr_segments), "one would have been found");
	munmap(text, file.st_size + sizeof(where));
	close(fds[0]);
	close(fds[1]);
	t_is(user_end(&owner), 0, "and the user ends well");
}

/* ---- another's memory ---------------------------------------------------- */

/* Has the device, knows where the owner's memory is, and tries every way. */
static int role_intruder(int socket)
{
	int device = t_device_open(), none[1], process;
	struct peerdma_pin pin;
	struct letter owner;
	char word[64], path[64];
	struct iovec here = { word, sizeof(word) }, there;

	MUST(receive(socket, &owner, none, 1));
	t_gpu_init();
	MUST(t_pin(device, owner.ptr, LEN, 0, &pin) == -EFAULT);
	MUST(t_pin(device, owner.ptr, LEN, PEERDMA_PIN_REVOCABLE, &pin) ==
	     -EFAULT);
	MUST(t_pin(device, owner.map, LEN, 0, &pin) == -EFAULT);

	process = syscall(SYS_pidfd_open, owner.pid, 0);
	MUST(process >= 0);
	MUST(syscall(SYS_pidfd_getfd, process, owner.buffer, 0) < 0 &&
	     errno == EPERM);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", owner.pid, owner.buffer);
	MUST(open(path, O_RDWR) < 0 && errno == EACCES);
	snprintf(path, sizeof(path), "/proc/%d/mem", owner.pid);
	MUST(open(path, O_RDWR) < 0 && errno == EACCES);
	there = (struct iovec){ (void *)(uintptr_t)owner.map, sizeof(word) };
	MUST(process_vm_readv(owner.pid, &here, 1, &there, 1, 0) < 0 &&
	     errno == EPERM);
	MUST(open(SCRATCH, O_RDONLY) < 0 && errno == EACCES);
	return 0;
}

static void another_is_left_alone(void)
{
	struct user owner = user_start("owner", OWNER, true);
	struct user intruder;
	struct letter letter;
	int fds[2], null = open("/dev/null", O_RDONLY);

	t_need(receive(owner.socket, &letter, fds, 2), "a user pins memory");
	close(fds[0]);
	close(fds[1]);
	intruder = user_start("intruder", INTRUDER, true);
	post(intruder.socket, &letter, &null, 1);
	t_is(user_end(&intruder), 0,
	     "another one cannot pin, open, map or read it");
	t_is(user_end(&owner), 0, "its owner has it still, unchanged");
	close(null);
}

/* ---- a descriptor that was passed ---------------------------------------- */

/* Was given a read-only buffer, and by it nothing more. */
static int role_receiver(int socket)
{
	unsigned char *bytes = t_ram(LEN), *map;
	struct peerdma_revoke revoke = { .size = sizeof(revoke) };
	int device = t_device_open(), fd, file;
	struct letter letter;
	char path[64];

	MUST(receive(socket, &letter, &fd, 1));
	t_fill(bytes, LEN, SEED);
	map = mmap(NULL, LEN, PROT_READ, MAP_SHARED, fd, 0);
	MUST(map != MAP_FAILED && !memcmp(map, bytes, LEN));
	MUST(mprotect(map, LEN, PROT_READ | PROT_WRITE) && errno == EACCES);
	MUST(mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ==
	     MAP_FAILED && errno == EACCES);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	MUST(open(path, O_RDWR) < 0);
	MUST(fcntl(fd, F_SETFL, O_RDWR) || (fcntl(fd, F_GETFL) & O_ACCMODE) ==
	     O_RDONLY);
	file = t_open("/mnt/scratch/receiver", O_RDWR | O_CREAT | O_DIRECT);
	MUST(file >= 0);
	MUST(t_move_one(device, T_WRITE, fd, file, 0, 0, LEN) == LEN);
	MUST(t_move_one(device, T_READ, fd, file, 0, 0, LEN) == -EACCES);
	revoke.buffer_fd = fd;
	MUST(ioctl(device, PEERDMA_REVOKE, &revoke) && errno == EPERM);
	return 0;
}

/* Asks of what it was given for what needs a capability. */
static int heir_is_refused(int device, int fd)
{
	struct peerdma_device_segment segment;
	struct peerdma_segment physical;
	struct peerdma_revoke revoke = {
		.size = sizeof(revoke), .buffer_fd = fd,
	};
	struct peerdma_map_device map = {
		.size = sizeof(map), .buffer_fd = fd, .len = LEN,
		.segments = (uintptr_t)&segment, .nr_segments = 1,
	};
	struct peerdma_query query = {
		.size = sizeof(query), .buffer_fd = fd,
		.segments = (uintptr_t)&physical, .nr_segments = 1,
	};
	struct peerdma_page_map pages;

	MUST(ioctl(device, PEERDMA_REVOKE, &revoke) && errno == EPERM);
	MUST(ioctl(device, PEERDMA_MAP_DEVICE, &map) && errno == EPERM);
	MUST(ioctl(device, PEERDMA_QUERY, &query) && errno == EPERM);
	MUST(t_pages(device, fd, PEERDMA_PAGES_ANY_ROUTE, &pages) == -EPERM);
	return 0;
}

/* Was given a whole buffer, whose owner has ended: uses it by every verb. */
static int role_heir(int socket)
{
	unsigned char *bytes = t_ram(LEN), *map, *pages;
	int device = t_device_open(), fd, file;
	struct peerdma_query query;
	struct letter letter;
	uint64_t event = 0;
	struct peerdma_watch watch = { .size = sizeof(watch) };

	MUST(receive(socket, &letter, &fd, 1));
	t_fill(bytes, LEN, SEED);
	map = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(map != MAP_FAILED && !memcmp(map, bytes, LEN));
	MUST(!t_query(device, fd, &query) && query.out_len == LEN);
	file = t_open("/mnt/scratch/heir", O_RDWR | O_CREAT | O_DIRECT);
	MUST(file >= 0);
	MUST(t_move_one(device, T_WRITE, fd, file, 0, 0, LEN) == LEN);
	memset(map, 0, LEN);
	MUST(t_move_one(device, T_READ, fd, file, 0, 0, LEN) == LEN);
	MUST(!memcmp(map, bytes, LEN));
	pages = t_pages_map(device, fd, LEN);
	memset(pages, 0, LEN);
	MUST(pread(file, pages, LEN, 0) == (ssize_t)LEN);
	MUST(!memcmp(map, bytes, LEN));
	munmap(pages, LEN);
	watch.buffer_fd = fd;
	watch.event_fd = eventfd(0, 0);
	MUST(!ioctl(device, PEERDMA_WATCH, &watch));
	if (heir_is_refused(device, fd))
		return 1;
	/* Root takes it back, which ends it for the heir. */
	MUST(post(socket, &letter, &fd, 1));
	MUST(read(watch.event_fd, &event, sizeof(event)) == sizeof(event));
	MUST(t_touch(map, false) == SIGBUS);
	MUST(t_move_one(device, T_READ, fd, file, 0, 0, LEN) == -ENODEV);
	MUST(t_pages(device, fd, 0, &(struct peerdma_page_map){ 0 }) ==
	     -ENODEV);
	MUST(!t_query(device, fd, &query) &&
	     query.out_state & PEERDMA_BUFFER_REVOKED);
	return 0;
}

static void passed_whole(void)
{
	struct user owner = user_start("owner", OWNER, true), heir;
	struct letter letter;
	int fds[2], back;

	t_need(receive(owner.socket, &letter, fds, 2), "a user pins");
	t_is(user_end(&owner), 0, "and ends");
	heir = user_start("heir", INTRUDER, true);
	post(heir.socket, &letter, &fds[0], 1);
	close(fds[0]);
	close(fds[1]);
	if (t_ok(receive(heir.socket, &letter, &back, 1),
		 "another user has it by every verb")) {
		t_is(t_counter("buffers"), 1, "the pin lives");
		t_result(t_revoke(dev, back), 0, "root takes it back");
		close(back);
	}
	t_is(user_end(&heir), 0, "which he is told, and sees");
}

static void passed_descriptor_gives_what_it_says(void)
{
	unsigned char *bytes = t_ram(LEN);
	uint64_t ptr = t_gpu_alloc(LEN);
	struct letter letter = { .pid = getpid() };
	struct peerdma_pin pin;
	struct user receiver;

	t_fill(bytes, LEN, SEED);
	t_gpu_write(ptr, bytes, LEN);
	t_need(t_pin(dev, ptr, LEN, PEERDMA_PIN_READ_ONLY, &pin) >= 0,
	       "memory is pinned for reading");
	receiver = user_start("receiver", INTRUDER, true);
	post(receiver.socket, &letter, &pin.out_fd, 1);
	t_is(user_end(&receiver), 0,
	     "another user reads it, by CPU and drive, and can do no more");
	t_gpu_same(ptr, bytes, LEN, "its bytes are what they were");
	close(pin.out_fd);
	t_gpu_free(ptr);
	munmap(bytes, LEN);
}

/* ---- the log ------------------------------------------------------------- */

/* Every verb, with sizes, flags and contents that are wrong in many ways. */
static int role_pest(int socket)
{
	int device = t_device_open();
	unsigned int nr, round;
	uint32_t arg[64];

	(void)socket;
	for (nr = 0; nr < 256; nr++)
		for (round = 0; round < 64; round++) {
			t_fill(arg, sizeof(arg), nr * 64 + round);
			arg[0] = round * 4;
			if (round & 1)
				arg[1] = 0;
			MUST(ioctl(device, _IO(PEERDMA_IOCTL_TYPE, nr), arg) ||
			     nr == PEERDMA_NR_INFO);
			MUST(ioctl(device, _IO(PEERDMA_IOCTL_TYPE, nr),
				   (void *)(uintptr_t)round) < 0);
		}
	MUST(read(device, arg, sizeof(arg)) < 0);
	MUST(mmap(NULL, 4096, PROT_READ, MAP_SHARED, device, 0) == MAP_FAILED);
	return 0;
}

static void user_cannot_log(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK), lines = 0;
	struct user pest;
	char line[2048];
	ssize_t len;

	t_need(log >= 0 && !lseek(log, 0, SEEK_END), "the kernel's log");
	pest = user_start("pest", INTRUDER, true);
	t_is(user_end(&pest), 0, "a user makes 32,000 calls that are wrong");
	while ((len = read(log, line, sizeof(line) - 1)) > 0) {
		line[len] = '\0';
		if (strstr(line, "peerdma"))
			lines += t_note("%s", line);
	}
	t_is(lines, 0, "the kernel's log says nothing about it");
	close(log);
}

static const struct t_case cases[] = {
	{ "strangers", stranger_is_kept_out },
	{ "addresses", no_address_is_told },
	{ "others", another_is_left_alone },
	{ "passed", passed_descriptor_gives_what_it_says },
	{ "passed whole", passed_whole },
	{ "log", user_cannot_log },
};

static int be_user(const char *role, int socket)
{
	static const struct {
		const char *name;
		int (*run)(int socket);
	} roles[] = {
		{ "owner", role_owner },
		{ "stranger", role_stranger },
		{ "intruder", role_intruder },
		{ "receiver", role_receiver },
		{ "heir", role_heir },
		{ "pest", role_pest },
	};
	size_t i;

	for (i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (!strcmp(roles[i].name, role))
			return roles[i].run(socket);
	return 99;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--user"))
		return be_user(argv[2], atoi(argv[3]));
	t_gpu_init();
	dev = t_device_open();
	return T_RUN(cases, t_nothing_left);
}
