// SPDX-License-Identifier: MIT
/*
 * The provider "user": the caller's own memory, how much of it there may be, and
 * the quota, which holds for all providers.
 *
 * Wants a drive, which is written over, and a file system with a block device on
 * /mnt.
 *
 * usage: user [CASE...], as root
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include "../t_counters.h"
#include "../t_pin.h"
#include "../t_touch.h"

#define PAGE	4096u
#define LEN	(4u << 20)
#define QUOTA	"/sys/module/peerdma/parameters/quota_bytes"
#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define NOBODY	65534
#define OTHER	65533
#define NR_THREADS	6
#define TURNS		300

static int dev, drive;
static unsigned char *bytes;

static int pin_flags(const void *at, uint64_t len, uint32_t flags)
{
	struct peerdma_pin pin = {
		.flags = flags, .provider = "user", .addr = (uintptr_t)at,
		.len = len,
	};

	return t_pin_range(dev, &pin);
}

static int pin(const void *at, uint64_t len)
{
	return pin_flags(at, len, 0);
}

/* As pin(), for what is to fail; 0 when it does not. */
static int refusal(const void *at, uint64_t len)
{
	int fd = pin(at, len);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static void *shared(int fd, size_t len)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	t_need(at != MAP_FAILED, "shared memory");
	return at;
}

/* Bytes that count against RLIMIT_MEMLOCK. */
static long long locked(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	long long kib = -1;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmLck: %lld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib << 10;
}

/* ---- what is the caller's memory ----------------------------------------- */

static void test_refused(void)
{
	struct peerdma_pin device = {
		.provider = "user", .len = PAGE, .device = 1,
	}, bar = {
		.provider = "user", .len = PAGE, .bar = 1,
	};
	unsigned char *ram = t_ram(LEN), *hole = t_ram(3 * PAGE);

	munmap(hole + PAGE, PAGE);
	device.addr = bar.addr = (uintptr_t)ram;
	t_result(t_pin_range(dev, &device), -EOPNOTSUPP, "a device");
	t_result(t_pin_range(dev, &bar), -EOPNOTSUPP, "a BAR");
	t_result(pin_flags(ram, PAGE, PEERDMA_PIN_REVOCABLE), -EOPNOTSUPP,
		 "revocable");
	t_result(pin_flags(ram, PAGE, PEERDMA_PIN_UNCACHED), -EOPNOTSUPP,
		 "uncached");
	t_result(refusal(ram, 0), -EINVAL, "no byte");
	t_result(refusal((void *)UINTPTR_MAX, 2), -EOVERFLOW, "across 2^64");
	t_result(refusal(NULL, PAGE), -EFAULT, "address 0");
	t_result(refusal(hole, 3 * PAGE), -EFAULT, "a page missing");
	t_result(refusal(hole + PAGE - 1, 2), -EFAULT, "... by a byte");
	t_result(refusal((void *)-(1l << 40), PAGE), -EFAULT,
		 "a kernel address");
	t_result(refusal((void *)(1ul << 47), PAGE), -EFAULT,
		 "an address of nobody's");
	t_result(refusal((void *)(1ul << 16), 1ull << 46), -ENOMEM, "more than there is");
	mprotect(ram, LEN, PROT_READ);
	t_result(refusal(ram, LEN), -EFAULT, "memory that is only read");
	mprotect(ram, LEN, PROT_NONE);
	t_result(refusal(ram, LEN), -EFAULT, "memory that is not even read");
	t_result(refusal((void *)test_refused, 1), -EFAULT, "a program's text");
	t_is(locked(), 0, "nothing is left locked");
	munmap(ram, LEN);
	munmap(hole, 3 * PAGE);
}

/* What a mapping shows is not always memory of the caller's. */
static void test_not_ordinary(void)
{
	int fd = open("/mnt/file", O_RDWR | O_CREAT, 0644), buffer;
	unsigned char *ram = t_ram(LEN), *at;

	t_need(fd >= 0 && !ftruncate(fd, LEN), "a file");
	at = shared(fd, LEN);
	t_result(refusal(at, LEN), -EFAULT, "a mapped file");
	memset(at, 1, LEN);
	t_result(refusal(at, LEN), -EFAULT, "... that is dirty");
	munmap(at, LEN);
	at = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	t_result(refusal(at, LEN), 0, "but a private copy of it goes");
	munmap(at, LEN);
	close(fd);

	buffer = pin(ram, LEN);
	at = t_map(buffer, LEN, PROT_READ | PROT_WRITE);
	t_need(at != MAP_FAILED, "a buffer is mapped");
	t_touch(at, true);
	t_result(refusal(at, LEN), -EFAULT, "a mapping of a buffer");
	munmap(at, LEN);
	close(buffer);
	munmap(ram, LEN);
}

static void test_query(void)
{
	struct peerdma_query query;
	unsigned char *ram = t_ram(LEN);
	int fd = pin(ram + 100, 2 * PAGE);

	t_result(t_query(dev, fd, &query), 0, "QUERY");
	t_ok(!strcmp(query.out_provider, "user"), "out_provider");
	t_is(query.out_offset, 100, "out_offset");
	t_is(query.out_len, 2 * PAGE, "out_len");
	t_is(query.out_page_size, PAGE, "out_page_size");
	t_is(query.out_device, PEERDMA_DEVICE_NONE, "out_device");
	t_is(query.out_state, PEERDMA_BUFFER_PERSISTENT, "out_state");
	t_is(query.out_caching, 0, "out_caching");
	t_is(locked(), 3 * PAGE, "whole pages are locked");
	close(fd);
	t_is(locked(), 0, "... and no longer");
	munmap(ram, LEN);
}

/* ---- the same memory ----------------------------------------------------- */

static void test_files(void)
{
	unsigned char *ram = t_ram(LEN), *other = t_ram(LEN);
	int fd = pin(ram, LEN);

	t_need(fd >= 0, "memory is pinned");
	memcpy(other, bytes, LEN);
	t_is(pwrite(drive, other, LEN, 0), LEN, "the drive has bytes");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, LEN), LEN,
		 "they are read into it");
	t_same(ram, bytes, LEN, "... and are there");
	t_fill(bytes, LEN, 6);
	memcpy(ram, bytes, LEN);
	t_result(t_move_one(dev, T_WRITE, fd, drive, LEN, 0, LEN), LEN,
		 "other bytes are written from it");
	t_is(pread(drive, other, LEN, LEN), LEN, "... are read back");
	t_same(other, bytes, LEN, "... and are right");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, LEN + PAGE), -ERANGE,
		 "no byte more than was pinned");
	close(fd);
	munmap(ram, LEN);
	munmap(other, LEN);
}

/* A range that starts and ends within pages; its neighbours are not touched. */
static void test_odd(void)
{
	unsigned char *ram = t_ram(LEN);
	int fd = pin(ram + 512, LEN - 1024);

	memset(ram, 0x6b, LEN);
	t_result(t_move_one(dev, T_READ, fd, drive, LEN, 0, LEN - 1024),
		 LEN - 1024, "a range without its page's first and last block");
	t_same(ram + 512, bytes, LEN - 1024, "... holds the file");
	t_is(ram[511], 0x6b, "... what stands before is as it was");
	t_is(ram[LEN - 512], 0x6b, "... and so is what follows");
	close(fd);
	munmap(ram, LEN);
}

static void test_mapped(void)
{
	unsigned char *ram = t_ram(LEN), *at, byte = 9;
	int fd = pin(ram, LEN), only, mem = open("/proc/self/mem", O_RDWR);

	at = t_map(fd, LEN, PROT_READ | PROT_WRITE);
	t_need(at != MAP_FAILED, "memory is mapped a second time");
	memcpy(ram, bytes, LEN);
	t_same(at, bytes, LEN, "the buffer shows what the memory holds");
	at[PAGE] ^= 1;
	t_is(ram[PAGE], bytes[PAGE] ^ 1, "and the other way round");
	t_is(t_caching(dev, fd), PEERDMA_CACHING_CACHED, "it is cached");
	t_is(pwrite(mem, &byte, 1, (uintptr_t)at + PAGE), 1,
	     "a debugger writes it");
	t_is(ram[PAGE], 9, "... there");
	munmap(at, LEN);
	close(fd);

	only = pin_flags(ram, LEN, PEERDMA_PIN_READ_ONLY);
	t_ok(t_map(only, LEN, PROT_READ | PROT_WRITE) == MAP_FAILED &&
	     errno == EACCES, "a read-only pin is not mapped for writing");
	at = t_map(only, LEN, PROT_READ);
	t_is(pread(mem, &byte, 1, (uintptr_t)at + 2 * PAGE), 1,
	     "a debugger reads it, touched or not");
	t_is(byte, bytes[2 * PAGE], "... right");
	t_is(pwrite(mem, &byte, 1, (uintptr_t)at + PAGE), -1,
	     "... and does not write it");
	t_result(t_move_one(dev, T_READ, only, drive, 0, 0, LEN), -EACCES,
		 "nor is a file read into it");
	munmap(at, LEN);
	close(only);
	close(mem);
	munmap(ram, LEN);
}

static void test_outlives(void)
{
	unsigned char *ram = t_ram(LEN), *at;
	int fd = pin(ram, LEN);

	memcpy(ram, bytes, LEN);
	munmap(ram, LEN);
	t_is(locked(), LEN, "what is unmapped stays pinned");
	at = t_map(fd, LEN, PROT_READ | PROT_WRITE);
	t_same(at, bytes, LEN, "... with its bytes");
	memset(at, 0, LEN);
	t_result(t_move_one(dev, T_READ, fd, drive, LEN, 0, LEN), LEN,
		 "a file is read into it");
	t_same(at, bytes, LEN, "... where the buffer shows it");
	close(fd);
	t_is(locked(), LEN, "the mapping alone keeps it");
	munmap(at, LEN);
	t_is(locked(), 0, "... and lets it go");
}

static void test_shared(void)
{
	int memory = memfd_create("shared", 0), fd;
	unsigned char *one, *two;

	t_need(memory >= 0 && !ftruncate(memory, LEN), "shared memory");
	one = shared(memory, LEN);
	two = shared(memory, LEN);
	fd = pin(one, LEN);
	t_need(fd >= 0, "it is pinned");
	t_result(t_move_one(dev, T_READ, fd, drive, LEN, 0, LEN), LEN,
		 "a file is read into it");
	t_same(two, bytes, LEN, "whoever else maps it sees that");
	close(fd);
	munmap(one, LEN);
	munmap(two, LEN);
	close(memory);
}

struct forked {
	unsigned char *ram, *at;
};

static int child_writes(void *data)
{
	struct forked *forked = data;

	if (memcmp(forked->ram, bytes, LEN))
		return 1;
	if (t_touch(forked->at, false) != SIGSEGV)
		return 2;
	memset(forked->ram, 0x44, LEN);
	return 0;
}

/* What is pinned stays the parent's: the child has the copy. */
static void test_fork(void)
{
	struct forked forked = { .ram = t_ram(LEN) };
	int fd = pin(forked.ram, LEN);

	memcpy(forked.ram, bytes, LEN);
	forked.at = t_map(fd, LEN, PROT_READ);
	t_is(t_touch(forked.at, false), 0, "a buffer is mapped");
	t_is(t_child(child_writes, &forked), 0,
	     "a child has a copy of the memory, and not the mapping");
	t_same(forked.at, bytes, LEN, "what it writes is not in the buffer");
	forked.ram[7] = 0x55;
	t_is(forked.at[7], 0x55, "what the parent writes is");
	t_result(t_move_one(dev, T_READ, fd, drive, LEN, 0, LEN), LEN,
		 "a file is read into it");
	t_same(forked.ram, bytes, LEN, "... and is in the parent's memory");
	munmap(forked.at, LEN);
	close(fd);
	munmap(forked.ram, LEN);
}

static void test_revoked(void)
{
	unsigned char *ram = t_ram(LEN), *at;
	int fd = pin(ram, LEN);
	struct peerdma_file_io io;

	at = t_map(fd, LEN, PROT_READ | PROT_WRITE);
	t_is(t_touch(at, true), 0, "a buffer is mapped");
	t_result(t_revoke(dev, fd), 0, "it is revoked");
	t_is(t_touch(at, true), SIGBUS, "its mapping is a SIGBUS");
	t_result(t_debug(at, false), -EIO, "for a debugger EIO");
	t_result(t_debug(at, true), -EIO, "... which does not write it, either");
	t_is(t_touch(ram, true), 0, "the memory is as it was");
	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), -ENODEV,
		 "no file goes there");
	t_is(locked(), 0, "nothing is locked");
	t_is(t_counter("pinned_bytes"), 0, "nothing is pinned");
	munmap(at, LEN);
	close(fd);
	munmap(ram, LEN);
}

/* ---- how much ------------------------------------------------------------ */

static void set_quota(long long quota)
{
	FILE *file = fopen(QUOTA, "w");

	t_need(file && fprintf(file, "%lld\n", quota) > 0 && !fclose(file),
	       "the quota is %lld", quota);
}

static void become(uid_t uid, rlim_t may_lock)
{
	struct rlimit limit = { may_lock, may_lock };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(uid, uid, uid))
		_exit(99);
}

/* Each step that is not as it should be has a number. */
#define STEP(nr, condition)	do { if (!(condition)) return nr; } while (0)

static int locks_too_much(void *data)
{
	unsigned char *ram = data;
	int fd;

	become(NOBODY, LEN);
	STEP(1, refusal(ram, LEN + 1) == -EDQUOT);
	STEP(2, locked() == 0);
	fd = pin(ram, LEN);
	STEP(3, fd >= 0 && locked() == LEN);
	STEP(4, refusal(ram + LEN, 1) == -EDQUOT);
	STEP(5, mlock(ram + LEN, PAGE) < 0);
	close(fd);
	STEP(6, locked() == 0);
	STEP(7, !refusal(ram + LEN, LEN));
	STEP(8, refusal(NULL, LEN) == -EFAULT && locked() == 0);
	return 0;
}

static void test_memlock(void)
{
	unsigned char *ram = t_ram(2 * LEN);
	int fd = pin(ram, 2 * LEN);

	t_is(locked(), 2 * LEN, "what root pins is counted, too");
	t_ok(fd >= 0, "... and has no bound");
	close(fd);
	t_is(t_child(locks_too_much, ram), 0,
	     "EDQUOT beyond RLIMIT_MEMLOCK; what is let go is given back");
	munmap(ram, 2 * LEN);
}

static int exceeds_quota(void *data)
{
	unsigned char *ram = data;
	int fd, small;

	become(NOBODY, RLIM_INFINITY);
	STEP(1, refusal(ram, LEN + 1) == -EDQUOT);
	fd = pin(ram, LEN - PAGE);
	STEP(2, fd >= 0);
	small = pin(ram, 1);
	STEP(3, small >= 0);
	STEP(4, refusal(ram, 1) == -EDQUOT);
	close(small);
	STEP(5, !refusal(ram, 1) && refusal(ram, PAGE + 1) == -EDQUOT);
	STEP(6, refusal(NULL, PAGE) == -EFAULT && !refusal(ram, 1));
	close(fd);
	STEP(7, !refusal(ram, LEN));
	return 0;
}

static int pins_and_dies(void *data)
{
	become(NOBODY, RLIM_INFINITY);
	t_touch(t_map(pin(data, LEN), LEN, PROT_READ), false);
	raise(SIGKILL);
	return 0;
}

/* Another user's account is another account. */
static int pins_besides(void *data)
{
	int fd;

	fd = pin(data, LEN);
	become(OTHER, RLIM_INFINITY);
	STEP(1, fd >= 0);
	STEP(2, !refusal(data, LEN));
	STEP(3, refusal(data, LEN + 1) == -EDQUOT);
	return 0;
}

static void test_quota(void)
{
	unsigned char *ram = t_ram(2 * LEN);
	int fd;

	set_quota(LEN);
	t_is(t_child(exceeds_quota, ram), 0,
	     "EDQUOT beyond the quota; what is closed is given back");
	t_is(t_child(pins_and_dies, ram), 256 + SIGKILL,
	     "a process is killed with all of it");
	t_ok(t_wait_for(!t_counter("buffers")), "its pin goes");
	t_is(t_child(exceeds_quota, ram), 0, "... and is given back");
	t_is(t_child(pins_besides, ram), 0, "each user has their own");
	fd = pin(ram, 2 * LEN);
	t_ok(fd >= 0, "CAP_SYS_RESOURCE has no bound");
	close(fd);
	set_quota(0);
	munmap(ram, 2 * LEN);
}

static int pins_then_revoked(void *data)
{
	int fd = pin(data, LEN), other;

	STEP(1, fd >= 0);
	STEP(2, !setresuid(NOBODY, 0, 0) && !seteuid(NOBODY));
	other = pin(data, LEN);
	STEP(3, other >= 0 && refusal(data, 1) == -EDQUOT);
	STEP(4, !seteuid(0) && !t_revoke(dev, other) && !seteuid(NOBODY));
	STEP(5, !refusal(data, LEN));
	return 0;
}

static void test_quota_revoked(void)
{
	unsigned char *ram = t_ram(LEN);

	set_quota(LEN);
	t_is(t_child(pins_then_revoked, ram), 0,
	     "what is revoked is given back, though its descriptor is open");
	set_quota(0);
	munmap(ram, LEN);
}

static long long now_pinned;
static int over, odd_errors, refusals;

static void *pins_at_random(void *data)
{
	unsigned char *ram = data;
	unsigned int seed = (uintptr_t)data >> 12;
	int i;

	for (i = 0; i < TURNS; i++) {
		long long len = (rand_r(&seed) % (LEN / PAGE) + 1) * PAGE;
		int fd = pin(ram, len);

		if (fd == -EDQUOT)
			__atomic_add_fetch(&refusals, 1, __ATOMIC_SEQ_CST);
		else if (fd < 0)
			__atomic_store_n(&odd_errors, fd, __ATOMIC_SEQ_CST);
		if (fd < 0)
			continue;
		/* Less is counted here than is pinned, at any time. */
		if (__atomic_add_fetch(&now_pinned, len, __ATOMIC_SEQ_CST) >
		    LEN)
			over++;
		sched_yield();
		__atomic_sub_fetch(&now_pinned, len, __ATOMIC_SEQ_CST);
		close(fd);
	}
	return NULL;
}

static int race(void *data)
{
	pthread_t threads[NR_THREADS];
	int i, fd;

	become(NOBODY, RLIM_INFINITY);
	for (i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, pins_at_random, data);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	STEP(1, !over);
	STEP(2, !odd_errors);
	STEP(3, refusals);
	STEP(4, !locked());
	/* Exactly all of it is there again. */
	fd = pin(data, LEN);
	STEP(5, fd >= 0);
	STEP(6, refusal(data, 1) == -EDQUOT);
	return 0;
}

static void test_quota_race(void)
{
	unsigned char *ram = t_ram(LEN);

	set_quota(LEN);
	t_is(t_child(race, ram), 0,
	     "threads never have more than the quota, and lose none of it");
	set_quota(0);
	munmap(ram, LEN);
}

static const struct t_case cases[] = {
	{ "refused", test_refused },
	{ "not ordinary", test_not_ordinary },
	{ "query", test_query },
	{ "files", test_files },
	{ "odd", test_odd },
	{ "mapped", test_mapped },
	{ "outlives", test_outlives },
	{ "shared", test_shared },
	{ "fork", test_fork },
	{ "revoked", test_revoked },
	{ "memlock", test_memlock },
	{ "quota", test_quota },
	{ "quota and revocation", test_quota_revoked },
	{ "quota under threads", test_quota_race },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	bytes = t_ram(LEN);
	t_fill(bytes, LEN, 5);
	return T_RUN(cases, t_nothing_left);
}
