// SPDX-License-Identifier: MIT
/*
 * simgpu.ko by its ioctls: bad arguments, other processes, what debugfs counts,
 * where in the BAR the pages lie, and the driver's leaving. Runs as root, with no
 * other user of GPU 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "simgpu_uapi.h"
#include "tap.h"

#define NODE	"/dev/simgpu0"
#define MIB	(1024ull * 1024)
#define PAGES	16
#define MARK	0x5157a5e600000000ull

static struct simgpu_info info;
static uint64_t granule;
static uint64_t room;

/* Return: 0 or a positive errno. */
static int call(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) ? errno : 0;
}

static int alloc(int fd, uint64_t va, uint64_t len)
{
	struct simgpu_alloc args = { .va = va, .len = len };

	return call(fd, SIMGPU_ALLOC, &args);
}

static int release(int fd, uint64_t va)
{
	struct simgpu_free args = { .va = va };

	return call(fd, SIMGPU_FREE, &args);
}

static int copy(int fd, uint32_t direction, const void *dst, const void *src,
		uint64_t len)
{
	struct simgpu_copy args = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.len = len,
		.direction = direction,
	};

	return call(fd, SIMGPU_COPY, &args);
}

static int set(int fd, uint64_t va, uint64_t len, uint32_t width)
{
	struct simgpu_memset args = { .va = va, .len = len, .width = width };

	return call(fd, SIMGPU_MEMSET, &args);
}

static void *device(uint64_t offset)
{
	return (void *)(uintptr_t)(room + offset);
}

static long long counter(const char *name)
{
	long long value = -1;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path),
		 "/sys/kernel/debug/simgpu/%04x:%02x:%02x.%x/%s", info.domain,
		 info.bus, info.devfn >> 3, info.devfn & 7, name);
	file = fopen(path, "r");
	if (file) {
		if (fscanf(file, "%lld", &value) != 1)
			value = -1;
		fclose(file);
	}
	return value;
}

static void test_alloc(int fd)
{
	is(alloc(fd, room + 1, granule), EINVAL, "a misaligned address");
	is(alloc(fd, room, granule + 1), EINVAL, "a misaligned length");
	is(alloc(fd, room, 0), EINVAL, "no length");
	is(alloc(fd, -granule, 2 * granule), EINVAL, "past 2^64");
	is(alloc(fd, 1ull << 62, granule), EINVAL, "no user address");
	is(alloc(fd, room, info.vram_bytes + granule), ENOMEM,
	   "more than there is");
	is(alloc(fd, room, 2 * granule), 0, "two granules");
	is(alloc(fd, room + granule, granule), EEXIST, "on top of it");
	is(counter("allocated"), 2 * granule, "debugfs counts them");
	is(release(fd, room + granule), ENOENT, "free of an address inside");
	is(release(fd, room), 0, "free");
	is(release(fd, room), ENOENT, "free twice");
	is(counter("allocated"), 0, "none allocated");
	is(call(fd, _IO('G', 99), NULL), ENOTTY, "no such ioctl");
	is(call(fd, SIMGPU_ALLOC, NULL), EFAULT, "no argument");
}

static void test_handles(int fd)
{
	struct simgpu_create create = { .len = 2 * granule };
	struct simgpu_release handle = { .handle = 4711 };
	struct simgpu_map map = { .va = room, .len = granule };

	is(call(fd, SIMGPU_RELEASE, &handle), ENOENT, "no such handle");
	is(call(fd, SIMGPU_CREATE, &create), 0, "create");
	map.handle = create.out_handle;
	map.offset = granule + 1;
	is(call(fd, SIMGPU_MAP, &map), EINVAL, "map at a misaligned offset");
	map.offset = 2 * granule;
	is(call(fd, SIMGPU_MAP, &map), EINVAL, "map past the end");
	map.offset = -granule;
	is(call(fd, SIMGPU_MAP, &map), EINVAL, "map past 2^64");
	map.offset = granule;
	is(call(fd, SIMGPU_MAP, &map), 0, "map the second half");
	map.va = room + granule;
	map.offset = 0;
	is(call(fd, SIMGPU_MAP, &map), 0, "and the first behind it");
	is(set(fd, room, 2 * granule, 4), 0, "both are memory");
	handle.handle = create.out_handle;
	is(call(fd, SIMGPU_RELEASE, &handle), 0, "release");
	is(counter("allocated"), 2 * granule, "what is mapped stays");
	is(release(fd, room), 0, "unmap");
	is(release(fd, room + granule), 0, "unmap");
	is(counter("allocated"), 0, "none allocated");
}

static void test_copy(int fd)
{
	uint8_t host[64] = { 0 };

	is(alloc(fd, room, granule), 0, "a granule");
	is(copy(fd, 3, device(0), host, 1), EINVAL, "no such direction");
	is(copy(fd, SIMGPU_HOST_TO_DEVICE, device(granule), host, 1), EFAULT,
	   "copy to nobody's memory");
	is(copy(fd, SIMGPU_HOST_TO_DEVICE, device(granule - 1), host, 2),
	   EFAULT, "copy past the end");
	is(copy(fd, SIMGPU_HOST_TO_DEVICE, device(0), (void *)-4096l, 1),
	   EFAULT, "copy from a kernel address");
	is(copy(fd, SIMGPU_DEVICE_TO_HOST, (void *)-4096l, device(0), 1),
	   EFAULT, "copy to a kernel address");
	is(set(fd, room, 3, 3), EINVAL, "memset of 3 byte values");
	is(set(fd, room + 1, 4, 4), EINVAL, "a misaligned memset");
	is(set(fd, room + granule, 1, 1), EFAULT, "memset of nobody's memory");
	is(release(fd, room), 0, "free");
}

/* Return: 0 or a positive errno; a descriptor is closed at once. */
static int export(int fd, uint64_t va, uint64_t len)
{
	struct simgpu_export_fd args = { .va = va, .len = len };
	int err = call(fd, SIMGPU_EXPORT, &args);

	if (!err)
		close(args.out_fd);
	return err;
}

static void test_export(int fd)
{
	struct simgpu_export_fd args = { .va = room, .len = granule };

	is(alloc(fd, room, granule), 0, "a granule");
	is(alloc(fd, room + granule, granule), 0, "and the next");
	is(export(fd, room, 0), EINVAL, "export of nothing");
	is(export(fd, room + 1, 4096), EINVAL, "of a misaligned address");
	is(export(fd, room, 4097), EINVAL, "of a misaligned length");
	is(export(fd, -4096ull, 8192), EINVAL, "past 2^64");
	is(export(fd, room, 1ull << 62), EINVAL, "of more than any GPU has");
	is(export(fd, room + granule, 2 * granule), EFAULT,
	   "of what is not all memory");
	args.reserved = 1;
	is(call(fd, SIMGPU_EXPORT, &args), EINVAL, "a reserved field");
	is(call(fd, SIMGPU_EXPORT, NULL), EFAULT, "no argument");
	is(export(fd, room + 4096, granule), 0, "of parts of both");
	is(counter("dma_bufs"), 0, "close ends it");
	is(release(fd, room), 0, "free");
	is(release(fd, room + granule), 0, "free");
}

/* A file passed on or inherited is of no use, and addresses are one's own. */
static int other_process(int fd)
{
	uint8_t host = 0;
	int mine;

	if (call(fd, SIMGPU_INFO, &info) != EPERM)
		return 1;
	if (release(fd, room) != EPERM)
		return 2;
	mine = open(NODE, O_RDWR);
	if (mine < 0)
		return 3;
	if (copy(mine, SIMGPU_DEVICE_TO_HOST, &host, device(0), 1) != EFAULT)
		return 4;
	if (release(mine, room) != ENOENT)
		return 5;
	if (export(mine, room, granule) != EFAULT)
		return 6;
	if (alloc(mine, room, granule))
		return 7;
	/* Left to exit(). */
	return 0;
}

static void test_processes(int fd)
{
	int status = -1;
	pid_t pid;

	is(alloc(fd, room, granule), 0, "a granule");
	pid = fork();
	if (!pid)
		_exit(other_process(fd));
	waitpid(pid, &status, 0);
	is(WEXITSTATUS(status), 0, "another process cannot touch it");
	is(counter("allocated"), granule, "that process's memory went with it");
	is(release(fd, room), 0, "free");
}

static void test_kill(void)
{
	char byte;
	int pipe_fd[2];
	pid_t pid;
	int fd;

	if (pipe(pipe_fd))
		exit(1);
	pid = fork();
	if (!pid) {
		fd = open(NODE, O_RDWR);
		alloc(fd, room, 4 * granule);
		if (write(pipe_fd[1], "", 1) == 1)
			set(fd, room, 4 * granule, 1);
		pause();
		_exit(0);
	}
	if (read(pipe_fd[0], &byte, 1) != 1)
		exit(1);
	is(counter("allocated"), 4 * granule, "a child allocates");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	is(counter("allocated"), 0, "kill -9 frees");
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static void bind_driver(const char *verb)
{
	char path[64], bdf[16];
	int fd, len;

	len = snprintf(bdf, sizeof(bdf), "%04x:%02x:%02x.%x", info.domain,
		       info.bus, info.devfn >> 3, info.devfn & 7);
	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/simgpu/%s", verb);
	fd = open(path, O_WRONLY);
	ok(write(fd, bdf, len) == len, verb);
	close(fd);
}

/* The kernel shows a BAR only while no driver has it. */
static uint8_t *map_bar(void)
{
	char path[128];
	void *bar;
	int fd;

	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%04x:%02x:%02x.%x/resource2_wc",
		 info.domain, info.bus, info.devfn >> 3, info.devfn & 7);
	fd = open(path, O_RDWR);
	bar = mmap(NULL, info.vram_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		   fd, 0);
	close(fd);
	return bar == MAP_FAILED ? NULL : bar;
}

/* Where in the BAR a page lies that starts with @mark, if just one does. */
static long long find_mark(const uint8_t *bar, uint64_t mark)
{
	long long found = -1;
	uint64_t at;

	for (at = 0; at < info.vram_bytes; at += info.page_bytes) {
		if (*(volatile uint64_t *)(bar + at) != mark)
			continue;
		if (found >= 0)
			return -2;
		found = at;
	}
	return found;
}

/* All memory at once: a page that were handed out twice would hold one mark. */
static void test_no_page_twice(int fd)
{
	uint64_t at, mark, bad = 0;
	void *space;

	if (info.vram_bytes > 1024 * MIB) {
		ok(true, "no page is handed out twice # SKIP too large a GPU");
		return;
	}
	space = mmap(NULL, info.vram_bytes + 2 * MIB, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	room = ((uintptr_t)space + 2 * MIB - 1) & -(2 * MIB);
	is(alloc(fd, room, info.vram_bytes), 0, "all of the memory");
	for (at = 0; at < info.vram_bytes; at += info.page_bytes) {
		mark = MARK + at;
		bad += !!copy(fd, SIMGPU_HOST_TO_DEVICE, device(at), &mark,
			      sizeof(mark));
	}
	for (at = 0; at < info.vram_bytes; at += info.page_bytes) {
		bad += !!copy(fd, SIMGPU_DEVICE_TO_HOST, &mark, device(at),
			      sizeof(mark));
		bad += mark != MARK + at;
	}
	is(bad, 0, "no page is handed out twice");
	set(fd, room, info.vram_bytes, 4);
	is(release(fd, room), 0, "free");
}

static unsigned int module_seed(void)
{
	FILE *file = fopen("/sys/module/simgpu/parameters/seed", "r");
	unsigned int seed = 0;

	if (file && fscanf(file, "%u", &seed) != 1)
		seed = 0;
	if (file)
		fclose(file);
	return seed;
}

static void mark_pages(int fd, uint64_t len)
{
	uint64_t mark, at;

	is(alloc(fd, room, len), 0, "some pages");
	for (at = 0; at < len; at += info.page_bytes) {
		mark = MARK + at / info.page_bytes;
		copy(fd, SIMGPU_HOST_TO_DEVICE, device(at), &mark,
		     sizeof(mark));
	}
}

/* Closes @fd: the driver has to leave before one can look. */
static void test_scatter(int fd)
{
	uint64_t len = PAGES * (uint64_t)info.page_bytes;
	int i, nr, adjacent = 0, found = 0;
	unsigned int seed = module_seed();
	long long at, last = -1;
	uint8_t *bar;

	len = (len + granule - 1) & -granule;
	nr = len / info.page_bytes;
	mark_pages(fd, len);
	close(fd);
	bind_driver("unbind");
	bar = map_bar();
	ok(bar, "the BAR can be seen");
	for (i = 0; bar && i < nr; i++) {
		at = find_mark(bar, MARK + i);
		if (at >= 0)
			*(volatile uint64_t *)(bar + at) = 0;
		found += at >= 0;
		adjacent += i && at == last + info.page_bytes;
		last = at;
	}
	is(found, nr, "each page lies in it, once");
	if (seed)
		ok(adjacent < nr / 2, "scattered");
	else
		is(adjacent, nr - 1, "contiguous");
	if (bar)
		munmap(bar, info.vram_bytes);
	bind_driver("bind");
}

/* What was open when the GPU went away is good for nothing but close(). */
static void test_unbind(void)
{
	int fd = open(NODE, O_RDWR);
	uint8_t host = 0;

	is(alloc(fd, room, granule), 0, "a granule");
	bind_driver("unbind");
	is(alloc(fd, room + granule, granule), ENODEV, "the GPU is gone");
	is(copy(fd, SIMGPU_HOST_TO_DEVICE, device(0), &host, 1), EFAULT,
	   "and so is the memory");
	close(fd);
	bind_driver("bind");
	fd = open(NODE, O_RDWR);
	is(alloc(fd, room, granule), 0, "a new GPU, a new start");
	close(fd);
}

static void test_injection(int fd)
{
	int control = open("/sys/kernel/debug/simgpu/fail", O_WRONLY);

	ok(control >= 0, "failures can be asked for");
	ok(write(control, "nowhere -5 1", 12) < 0, "but not anywhere");
	ok(write(control, "alloc 5 1", 9) < 0, "nor for success");
	ok(write(control, "alloc -5 2", 10) == 10, "the second allocation");
	is(alloc(fd, room, granule), 0, "the first is good");
	is(alloc(fd, room + granule, granule), EIO, "the second is not");
	is(alloc(fd, room + granule, granule), 0, "the third is");
	release(fd, room);
	release(fd, room + granule);
	close(control);
}

int main(void)
{
	int fd = open(NODE, O_RDWR);
	void *space = mmap(NULL, 64 * MIB, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ok(fd >= 0, "open");
	is(call(fd, SIMGPU_INFO, &info), 0, "info");
	if (tap_failed || space == MAP_FAILED)
		return tap_done() | 1;
	granule = info.granule;
	room = ((uintptr_t)space + 2 * MIB - 1) & -(2 * MIB);
	ok(info.page_bytes && granule % info.page_bytes == 0,
	   "a granule is whole pages");
	is(info.free_bytes, info.vram_bytes, "all memory is free");
	test_alloc(fd);
	test_handles(fd);
	test_copy(fd);
	test_export(fd);
	test_processes(fd);
	test_kill();
	test_injection(fd);
	test_no_page_twice(fd);
	test_scatter(fd);
	is(counter("allocated"), 0, "close frees");
	test_unbind();
	is(counter("allocated"), 0, "nothing is left");
	return tap_done();
}
