// SPDX-License-Identifier: MIT
/*
 * The provider "pci": any memory BAR by device, number and offset, and nothing
 * that is somebody else's.
 *
 * Wants two simulated GPUs, the second without its driver, the edu card and a
 * drive, which is written over. Leaves for the host what must be in the second
 * GPU's memory and on the drive: /out/expected, at FILE_AT and CPU_AT of both.
 *
 * usage: pci [CASE...], pci --remove or pci --lockdown, as root
 */
#define _GNU_SOURCE
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "../t_counters.h"
#include "../t_pin.h"
#include "../t_touch.h"

#define PAGE		4096u
#define LEN		(4u << 20)
#define FILE_AT		(16u << 20)
#define CPU_AT		(48u << 20)
#define GONE_AT		(80u << 20)
#define NOBODY		65534
#define DRIVE		"/dev/disk/by-serial/peerdma0"
#define EDU_IDENTITY	0x010000edu
#define COMMAND		4
#define COMMAND_MEMORY	2

static int dev, drive;
static uint32_t gpu, spare, edu, nvme;
static unsigned char *bytes;

/* ---- devices ------------------------------------------------------------- */

/* The @nth function whose sysfs file @name begins with @value, or NONE. */
static uint32_t find(const char *name, const char *value, int nth)
{
	unsigned int domain, bus, slot, fn;
	uint32_t found = PEERDMA_DEVICE_NONE;
	char pattern[64], text[32];
	glob_t files;
	size_t i;

	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/*/%s", name);
	if (glob(pattern, 0, NULL, &files))
		return found;
	for (i = 0; i < files.gl_pathc; i++) {
		FILE *file = fopen(files.gl_pathv[i], "r");

		if (file && fgets(text, sizeof(text), file) &&
		    !strncmp(text, value, strlen(value)) && !nth-- &&
		    sscanf(files.gl_pathv[i],
			   "/sys/bus/pci/devices/%x:%x:%x.%x", &domain, &bus,
			   &slot, &fn) == 4)
			found = PEERDMA_DEVICE(domain, bus, slot, fn);
		if (file)
			fclose(file);
	}
	globfree(&files);
	return found;
}

static void device_path(uint32_t device, const char *name, char path[64])
{
	snprintf(path, 64, "/sys/bus/pci/devices/%04x:%02x:%02x.%x/%s",
		 device >> 16, device >> 8 & 0xff, device >> 3 & 0x1f,
		 device & 7, name);
}

/* Write a word to a file of sysfs; 0 or a negative errno. */
static int tell(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, word, strlen(word)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int bar_range(uint32_t device, int bar, uint64_t *start, uint64_t *len)
{
	char path[64];
	FILE *file;
	uint64_t end = 0;
	int i, ret = 0;

	device_path(device, "resource", path);
	file = fopen(path, "r");
	if (!file)
		return -errno;
	for (i = 0; i <= bar; i++)
		if (fscanf(file, "%" SCNx64 " %" SCNx64 " %*x", start,
			   &end) != 2)
			ret = -EIO;
	fclose(file);
	*len = end - *start + 1;
	return ret;
}

static int pin_flags(uint32_t device, uint32_t bar, uint64_t addr,
		     uint64_t len, uint32_t flags)
{
	struct peerdma_pin pin = {
		.flags = flags, .provider = "pci", .addr = addr, .len = len,
		.device = device, .bar = bar,
	};

	return t_pin_range(dev, &pin);
}

static int pin(uint32_t device, uint32_t bar, uint64_t addr, uint64_t len)
{
	return pin_flags(device, bar, addr, len, 0);
}

/* As pin(), for what is to fail; a descriptor that came of it is no secret. */
static int refusal(uint32_t device, uint32_t bar, uint64_t addr, uint64_t len)
{
	int fd = pin(device, bar, addr, len);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* A file's lines that hold a word. */
static int lines_with(const char *path, const char *word)
{
	FILE *file = fopen(path, "r");
	char line[256];
	int nr = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		nr += !!strstr(line, word);
	fclose(file);
	return nr;
}

/* ---- what is refused ----------------------------------------------------- */

static void test_refused(void)
{
	uint64_t start, len;

	t_need(!bar_range(spare, 2, &start, &len), "the BAR's size");
	t_result(refusal(spare, 2, len, 1), -EFAULT, "past the end");
	t_result(refusal(spare, 2, len - 1, 2), -EFAULT, "across the end");
	t_result(refusal(spare, 2, 0, len + 1), -EFAULT, "a byte too much");
	t_result(refusal(spare, 2, start, PAGE), -EFAULT,
		 "the BAR's own physical address");
	t_result(refusal(spare, 2, 0, 0), -EINVAL, "no byte");
	t_result(refusal(spare, 2, UINT64_MAX, 2), -EOVERFLOW, "across 2^64");
	t_result(refusal(spare, 2, 0, UINT64_MAX), -EOVERFLOW, "length -1");
	t_result(refusal(spare, 0, 0, 1), -EFAULT, "a BAR of less than a page");
	t_result(refusal(spare, 3, 0, PAGE), -EFAULT,
		 "the upper half of a 64-bit BAR");
	t_result(refusal(spare, 5, 0, PAGE), -EFAULT, "no such BAR");
	t_result(refusal(spare, 6, 0, PAGE), -EINVAL, "no BAR has that number");
	t_result(refusal(spare, UINT32_MAX, 0, PAGE), -EINVAL, "BAR -1");
	t_result(refusal(PEERDMA_DEVICE_NONE, 0, 0, PAGE), -ENOENT,
		 "no such device");
	t_result(refusal(spare | 7, 2, 0, PAGE), -ENOENT, "no such function");
	t_result(refusal(0, 0, 0, PAGE), -EFAULT, "a bridge without BARs");
}

static int pin_as_nobody(void *data)
{
	(void)data;
	if (setresuid(NOBODY, NOBODY, NOBODY))
		return 1;
	if (refusal(spare, 2, 0, PAGE) != -EPERM)
		return 2;
	return refusal(PEERDMA_DEVICE_NONE, 9, 0, PAGE) == -EPERM ? 0 : 3;
}

static void test_unprivileged(void)
{
	t_is(t_child(pin_as_nobody, NULL), 0,
	     "EPERM without CAP_SYS_RAWIO, and not a word of what there is");
}

static void test_bound(void)
{
	char path[64], name[32];

	t_result(refusal(nvme, 0, 0, PAGE), -EBUSY, "the drive's registers");
	t_result(refusal(nvme, 0, 2 * PAGE, 1), -EBUSY, "... any of them");
	t_result(refusal(gpu, 2, 0, PAGE), -EBUSY, "a GPU's memory");
	t_result(refusal(gpu, 2, LEN, LEN), -EBUSY, "... any of it");
	device_path(nvme, "driver", path);
	t_ok(readlink(path, name, sizeof(name)) > 0, "the drive has its driver");
	t_is(pread(drive, bytes, PAGE, 0), PAGE, "... and works");
}

/* ---- what is pinned is claimed ------------------------------------------- */

/* Return: 0 once the spare GPU is bound, or unbound, as @verb says. */
static int spare_driver(const char *verb)
{
	char path[64];
	char name[16];

	snprintf(name, sizeof(name), "%04x:%02x:%02x.%x", spare >> 16,
		 spare >> 8 & 0xff, spare >> 3 & 0x1f, spare & 7);
	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/simgpu/%s", verb);
	return tell(path, name);
}

static void test_claimed(void)
{
	int fd = pin(spare, 2, FILE_AT, LEN), neighbour;
	char path[64];

	t_need(fd >= 0, "a part of a BAR is pinned");
	t_is(lines_with("/proc/iomem", "peerdma"), 1, "it is claimed");
	t_is(t_counter("pinned_bytes"), LEN, "and counted");
	t_result(refusal(spare, 2, FILE_AT, LEN), -EBUSY, "the same again");
	t_result(refusal(spare, 2, 0, FILE_AT + 1), -EBUSY, "a byte of it");
	t_result(refusal(spare, 2, FILE_AT + LEN - 1, 1), -EBUSY,
		 "its last byte");
	neighbour = pin(spare, 2, FILE_AT + LEN, PAGE);
	t_ok(neighbour >= 0, "what follows is free");
	close(neighbour);
	neighbour = pin(spare, 2, FILE_AT - 1, 1);
	t_ok(neighbour >= 0, "and so is what stands before");
	close(neighbour);

	t_ok(spare_driver("bind"), "no driver gets the device");
	device_path(spare, "driver", path);
	t_is(access(path, F_OK), -1, "... indeed");
	close(fd);
	t_is(lines_with("/proc/iomem", "peerdma"), 0, "the claim ends");
	t_result(refusal(spare, 2, FILE_AT, LEN), 0, "it is free again");
}

static int dies_with_pin(void *data)
{
	(void)data;
	t_touch(t_map(pin(spare, 2, FILE_AT, LEN), LEN, PROT_READ), false);
	raise(SIGKILL);
	return 0;
}

static void test_killed(void)
{
	t_is(t_child(dies_with_pin, NULL), 256 + SIGKILL,
	     "a process dies with its pin");
	t_ok(t_wait_for(!t_counter("buffers")), "the pin goes with it");
	t_result(refusal(spare, 2, FILE_AT, LEN), 0, "the memory is free");
}

static void test_query(void)
{
	struct peerdma_segment segment = { 0 };
	struct peerdma_query query = {
		.size = sizeof(query), .nr_segments = 1,
		.segments = (uintptr_t)&segment,
	};
	uint64_t start, len;

	bar_range(spare, 2, &start, &len);
	query.buffer_fd = pin(spare, 2, FILE_AT + 100, 2 * PAGE);
	t_result(ioctl(dev, PEERDMA_QUERY, &query) ? -errno : 0, 0, "QUERY");
	t_ok(!strcmp(query.out_provider, "pci"), "out_provider");
	t_is(query.out_offset, 100, "out_offset");
	t_is(query.out_len, 2 * PAGE, "out_len");
	t_is(query.out_page_size, PAGE, "out_page_size");
	t_is(query.out_device, spare, "out_device");
	t_is(query.out_state, PEERDMA_BUFFER_PERSISTENT, "out_state");
	t_is(query.nr_segments, 1, "one segment");
	t_is(segment.addr, start + FILE_AT, "... in the BAR");
	t_is(segment.len, 3 * PAGE, "... of whole pages");
	close(query.buffer_fd);
}

/* ---- the CPU's view ------------------------------------------------------ */

/* Records of the range's caching, of x86's page attribute table. */
static int recorded(uint64_t start, const char *type)
{
	char line[256], address[32];
	FILE *file = fopen("/sys/kernel/debug/x86/pat_memtype_list", "r");
	int nr = 0;

	if (!file)
		return -1;
	snprintf(address, sizeof(address), "%" PRIx64 "-", start);
	while (fgets(line, sizeof(line), file))
		nr += strstr(line, address) && strstr(line, type);
	fclose(file);
	return nr;
}

static void check_caching(uint32_t flags, uint32_t want, const char *name)
{
	int fd = pin_flags(spare, 2, CPU_AT, LEN, flags);
	unsigned char *at = t_map(fd, LEN, PROT_READ | PROT_WRITE);

	t_need(at != MAP_FAILED, "%s: a mapping", name);
	t_is(t_caching(dev, fd), 0, "%s: nothing is touched yet", name);
	at[PAGE] = 1;
	t_is(t_caching(dev, fd), want, "%s: what was obtained", name);
	munmap(at, LEN);
	close(fd);
}

/* Uncached first: with write-combining on record nothing else is to be had. */
static void test_caching(void)
{
	uint64_t start, len;
	unsigned char *at;
	int fd, second;

	bar_range(spare, 2, &start, &len);
	check_caching(PEERDMA_PIN_UNCACHED, PEERDMA_CACHING_UNCACHED,
		      "uncached");
	check_caching(0, PEERDMA_CACHING_WRITE_COMBINED, "write-combined");
	check_caching(PEERDMA_PIN_UNCACHED, PEERDMA_CACHING_UNCACHED,
		      "uncached once more");

	fd = pin(spare, 2, CPU_AT, LEN);
	t_is(recorded(start + CPU_AT, "write-combining"), 0,
	     "a pin alone sets no caching");
	at = t_map(fd, LEN, PROT_READ);
	t_ok(at != MAP_FAILED, "a mapping");
	t_is(recorded(start + CPU_AT, "write-combining"), 1,
	     "write-combining is on record, as the kernel sees it");
	second = dup(fd);
	munmap(t_map(second, LEN, PROT_READ), LEN);
	close(second);
	t_is(recorded(start + CPU_AT, "write-combining"), 1,
	     "... once, however often it is mapped");
	munmap(at, LEN);
	close(fd);
	t_is(recorded(start + CPU_AT, "write-combining"), 0,
	     "... and gone with the pin");
}

/* The GPU's driver has its memory write-combined, and that stays. */
static void test_overridden(void)
{
	struct peerdma_pin pin;
	uint64_t ptr;
	unsigned char *at;
	int fd;

	t_gpu_init();
	ptr = t_gpu_alloc(LEN);
	fd = t_pin(dev, ptr, LEN, PEERDMA_PIN_UNCACHED, &pin);
	at = t_map(fd, LEN, PROT_READ);
	t_need(at != MAP_FAILED, "GPU memory is mapped uncached");
	t_touch(at, false);
	t_is(t_caching(dev, fd), PEERDMA_CACHING_WRITE_COMBINED,
	     "the driver's choice overrides, and QUERY says so");
	munmap(at, LEN);
	close(fd);
	t_gpu_free(ptr);
}

static void test_mapped(void)
{
	int fd = pin(spare, 2, CPU_AT, LEN), only, mem;
	unsigned char *at = t_map(fd, LEN, PROT_READ | PROT_WRITE), *again;
	unsigned char byte = 9;

	t_need(at != MAP_FAILED, "a mapping");
	memcpy(at, bytes, LEN);
	again = t_map(fd, LEN, PROT_READ);
	t_same(again, bytes, LEN, "a second mapping sees what the first wrote");
	munmap(again, LEN);
	munmap(at, LEN);
	close(fd);

	only = pin_flags(spare, 2, CPU_AT, LEN, PEERDMA_PIN_READ_ONLY);
	at = t_map(only, LEN, PROT_READ);
	t_need(at != MAP_FAILED, "a read-only pin is mapped");
	t_same(at, bytes, LEN, "the bytes outlive the pin");
	t_ok(t_map(only, LEN, PROT_READ | PROT_WRITE) == MAP_FAILED &&
	     errno == EACCES, "it is not mapped for writing");
	mem = open("/proc/self/mem", O_RDWR);
	t_is(pwrite(mem, &byte, 1, (uintptr_t)at + 7), -1,
	     "a debugger does not write it either");
	t_is(pread(mem, &byte, 1, (uintptr_t)at + LEN - 1), 1,
	     "... and reads a page that was never touched");
	t_is(byte, bytes[LEN - 1], "... right");
	close(mem);
	munmap(at, LEN);
	close(only);
}

/* ---- files --------------------------------------------------------------- */

static void expect(void)
{
	int fd = open("/out/expected", O_WRONLY | O_CREAT | O_TRUNC, 0644);

	t_need(fd >= 0 && write(fd, bytes, LEN) == LEN, "the host is told");
	close(fd);
}

/* From the drive into the BAR by DMA, from the BAR to the drive by both. */
static void test_files(void)
{
	int fd = pin(spare, 2, FILE_AT, LEN);
	unsigned char *ram = t_ram(LEN), *at;

	t_need(fd >= 0, "a part of a BAR is pinned");
	memcpy(ram, bytes, LEN);
	t_is(pwrite(drive, ram, LEN, FILE_AT), LEN, "the drive has bytes");
	t_result(t_move_one(dev, T_READ, fd, drive, FILE_AT, 0, LEN), LEN,
		 "they are read into the BAR");
	at = t_map(fd, LEN, PROT_READ);
	t_same(at, bytes, LEN, "the CPU sees them there");
	munmap(at, LEN);
	close(fd);

	fd = pin(spare, 2, CPU_AT, LEN);
	at = t_map(fd, LEN, PROT_READ | PROT_WRITE);
	memcpy(at, bytes, LEN);
	t_result(t_move_one(dev, T_WRITE, fd, drive, CPU_AT, 0, LEN), LEN,
		 "what the CPU wrote there goes to the drive");
	memset(ram, 0, LEN);
	t_is(pread(drive, ram, LEN, CPU_AT), LEN, "... is read back");
	t_same(ram, bytes, LEN, "... and is right");
	munmap(at, LEN);
	munmap(ram, LEN);
	close(fd);
	expect();
}

/* ---- registers ----------------------------------------------------------- */

static void test_registers(void)
{
	struct peerdma_file_io io;
	unsigned char *at;
	int fd = pin(edu, 0, 0, PAGE);

	t_need(fd >= 0, "a BAR of registers is pinned");
	at = t_map(fd, PAGE, PROT_READ | PROT_WRITE);
	t_need(at != MAP_FAILED, "... and mapped");
	t_is(*(volatile uint32_t *)at, EDU_IDENTITY,
	     "the card says what it is");
	*(volatile uint32_t *)(at + 4) = 0x12345678;
	t_is(*(volatile uint32_t *)(at + 4), ~0x12345678u,
	     "and inverts what it is given");
	t_is(t_caching(dev, fd), PEERDMA_CACHING_UNCACHED,
	     "it is mapped uncached, without having been asked");
	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), -EREMOTEIO,
		 "no file goes there");
	t_is(io.out_reason, PEERDMA_REASON_NOT_PREFETCHABLE, "... and why");
	munmap(at, PAGE);
	close(fd);
}

/* It may want the BAR's struct pages for itself, or map it in its own way. */
static void test_driver_comes(void)
{
	struct peerdma_file_io io;
	int fd = pin(spare, 2, FILE_AT, LEN);

	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), 0,
		 "a file may go there");
	close(fd);
	t_ok(t_counter("page_bytes") > 0, "struct pages stay for a while");
	t_ok(!spare_driver("bind"), "a driver comes");
	t_is(t_counter("page_bytes"), 0, "they have gone");
	t_ok(!spare_driver("unbind"), "the driver goes");
}

/* A device that does not answer at its addresses. */
static void test_switched_off(void)
{
	char path[64];
	uint16_t on, off;
	int fd;

	device_path(spare, "config", path);
	fd = open(path, O_RDWR);
	t_need(pread(fd, &on, sizeof(on), COMMAND) == sizeof(on),
	       "the command register");
	off = on & ~COMMAND_MEMORY;
	t_is(pwrite(fd, &off, sizeof(off), COMMAND), sizeof(off),
	     "the device is switched off");
	t_result(refusal(spare, 2, 0, PAGE), -ENODEV, "it cannot be pinned");
	t_is(pwrite(fd, &on, sizeof(on), COMMAND), sizeof(on), "on");
	t_result(refusal(spare, 2, 0, PAGE), 0, "it can");
	close(fd);
}

/* ---- taken back ---------------------------------------------------------- */

static void check_dead(int fd, unsigned char *at)
{
	struct peerdma_file_io io;
	struct peerdma_query query;

	t_is(t_touch(at, false), SIGBUS, "its mapping is a SIGBUS");
	t_is(t_touch(at + LEN - 1, true), SIGBUS, "... to its end");
	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), -ENODEV,
		 "no file goes there");
	t_result(t_query(dev, fd, &query), 0, "QUERY");
	t_is(query.out_state & PEERDMA_BUFFER_REVOKED, PEERDMA_BUFFER_REVOKED,
	     "... says that it is revoked");
	t_is(t_counter("pinned_bytes"), 0, "nothing is pinned any more");
	t_is(lines_with("/proc/iomem", "peerdma"), 0, "nor claimed");
}

static void test_revoked(void)
{
	int fd = pin(spare, 2, FILE_AT, LEN);
	unsigned char *at = t_map(fd, LEN, PROT_READ | PROT_WRITE);

	t_need(at != MAP_FAILED, "a mapping");
	t_is(t_touch(at, true), 0, "it is used");
	t_result(t_revoke(dev, fd), 0, "it is revoked");
	check_dead(fd, at);
	t_result(refusal(spare, 2, FILE_AT, LEN), 0,
		 "the memory is free while its mapping is there");
	munmap(at, LEN);
	close(fd);
}

static int event_of(int buffer)
{
	struct peerdma_watch watch = {
		.size = sizeof(watch), .buffer_fd = buffer,
		.event_fd = eventfd(0, EFD_NONBLOCK),
	};

	t_need(!ioctl(dev, PEERDMA_WATCH, &watch), "it is watched");
	return watch.event_fd;
}

/* The device is pulled while it is mapped and has been the goal of transfers. */
static void remove_spare(void)
{
	int fd = pin(spare, 2, GONE_AT, LEN), event;
	unsigned char *at = t_map(fd, LEN, PROT_READ | PROT_WRITE);
	uint64_t count = 0;
	char path[64];

	t_need(at != MAP_FAILED, "a mapping");
	event = event_of(fd);
	t_result(t_move_one(dev, T_READ, fd, drive, FILE_AT, 0, LEN), LEN,
		 "a file is read into it");
	t_is(t_touch(at, true), 0, "it is used");
	device_path(spare, "remove", path);
	t_result(tell(path, "1"), 0, "the device is removed");
	t_is(access(path, F_OK), -1, "... and gone");
	t_is(read(event, &count, sizeof(count)), sizeof(count),
	     "who watches is told");
	check_dead(fd, at);
	t_result(refusal(spare, 2, GONE_AT, LEN), -ENOENT,
		 "it cannot be pinned any more");
	munmap(at, LEN);
	close(event);
	close(fd);
	t_nothing_left();
}

static bool stop;
static long pinned, surprises, survivors;
/* Odd while the device is gone. */
static unsigned int comings;

/* While the device is gone no buffer of it is alive. */
static void check_gone(int fd)
{
	struct peerdma_query query;
	unsigned int now = __atomic_load_n(&comings, __ATOMIC_SEQ_CST);

	t_query(dev, fd, &query);
	if (now & 1 && !(query.out_state & PEERDMA_BUFFER_REVOKED) &&
	    now == __atomic_load_n(&comings, __ATOMIC_SEQ_CST))
		__atomic_add_fetch(&survivors, 1, __ATOMIC_RELAXED);
}

static void *pins(void *data)
{
	uint64_t at = (uintptr_t)data;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		int fd = pin(spare, 2, at, LEN);

		if (fd >= 0) {
			__atomic_add_fetch(&pinned, 1, __ATOMIC_RELAXED);
			t_sleep_ms(1);
			check_gone(fd);
			close(fd);
		} else if (fd != -ENOENT && fd != -ENODEV && fd != -EFAULT) {
			__atomic_store_n(&surprises, fd, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

/* Comings and goings under pins: no pin is left on what has gone. */
static void remove_under_pins(void)
{
	pthread_t threads[2];
	int i, gone = 0, used = 0;
	char path[64];

	device_path(spare, "remove", path);
	tell("/sys/bus/pci/rescan", "1");
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, pins,
			       (void *)(uintptr_t)((i + 1) * LEN));
	for (i = 0; i < 8; i++) {
		long before = __atomic_load_n(&pinned, __ATOMIC_RELAXED);

		t_sleep_ms(50);
		used += t_wait_for(__atomic_load_n(&pinned, __ATOMIC_RELAXED) >
				   before);
		gone += !tell(path, "1");
		__atomic_add_fetch(&comings, 1, __ATOMIC_SEQ_CST);
		t_sleep_ms(5);
		__atomic_add_fetch(&comings, 1, __ATOMIC_SEQ_CST);
		tell("/sys/bus/pci/rescan", "1");
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	t_is(gone, 8, "the device went and came eight times");
	t_is(used, 8, "while it was pinned again and again");
	t_result(surprises, 0, "no pin failed without a reason");
	t_is(survivors, 0, "none outlived the device");
	t_is(lines_with("/proc/iomem", "peerdma"), 0, "nothing is claimed");
	t_nothing_left();
}

static void check_held(const char *what)
{
	close(dev);
	t_result(syscall(SYS_delete_module, "peerdma", O_NONBLOCK) ? -errno : 0,
		 -EAGAIN, "%s holds peerdma", what);
	dev = t_device_open();
}

/* No other module needs peerdma any more, and nobody has the device open. */
static void modules(void)
{
	struct peerdma_pin user = {
		.provider = "user", .addr = (uintptr_t)bytes, .len = LEN,
	};
	int fd = pin(spare, 2, 0, LEN);
	unsigned char *at = t_map(fd, LEN, PROT_READ | PROT_WRITE);

	t_need(at != MAP_FAILED, "a BAR is pinned and mapped");
	check_held("a BAR's pin");
	close(fd);
	check_held("a mapping alone");
	munmap(at, LEN);
	fd = t_pin_range(dev, &user);
	t_ok(fd >= 0, "host memory is pinned");
	check_held("its pin");
	close(fd);
	t_nothing_left();
}

static int removal(void)
{
	t_tap.name = "modules";
	modules();
	t_tap.name = "removed";
	remove_spare();
	t_tap.name = "removed under pins";
	remove_under_pins();
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}

static int lockdown(void)
{
	t_tap.name = "locked down";
	t_result(refusal(spare, 2, 0, PAGE), 0, "it can be pinned");
	if (tell("/sys/kernel/security/lockdown", "integrity"))
		t_skip("a kernel that is locked down", "this one cannot be");
	else
		t_result(refusal(spare, 2, 0, PAGE), -EPERM,
			 "not by root of a kernel that is locked down");
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}

/* Uncached before what leaves write-combined pages for a while. */
static const struct t_case cases[] = {
	{ "refused", test_refused },
	{ "unprivileged", test_unprivileged },
	{ "bound", test_bound },
	{ "claimed", test_claimed },
	{ "killed", test_killed },
	{ "query", test_query },
	{ "caching", test_caching },
	{ "overridden", test_overridden },
	{ "mapped", test_mapped },
	{ "registers", test_registers },
	{ "switched off", test_switched_off },
	{ "revoked", test_revoked },
	{ "files", test_files },
	{ "a driver comes", test_driver_comes },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "prepare";
	dev = t_device_open();
	gpu = find("device", "0x1110", 0);
	spare = find("device", "0x1110", 1);
	edu = find("device", "0x11e8", 0);
	nvme = find("class", "0x010802", 0);
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0 && gpu != PEERDMA_DEVICE_NONE &&
	       spare != PEERDMA_DEVICE_NONE && edu != PEERDMA_DEVICE_NONE &&
	       nvme != PEERDMA_DEVICE_NONE, "all devices are there");
	bytes = t_ram(LEN);
	t_fill(bytes, LEN, 5);
	if (argc == 2 && !strcmp(argv[1], "--remove"))
		return removal();
	if (argc == 2 && !strcmp(argv[1], "--lockdown"))
		return lockdown();
	return T_RUN(cases, t_nothing_left);
}
