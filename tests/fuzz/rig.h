/* SPDX-License-Identifier: MIT */
/*
 * What a program works on: descriptors, mappings, GPU memory. All threads share
 * them and take no lock; a slot is emptied by an atomic exchange, so that nobody
 * closes a number twice. Places in memory are fixed, so that a thread that loses
 * its mapping to another touches nothing of the program's own.
 */
#ifndef RIG_H
#define RIG_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <liburing.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../examples/edu/edu.h"
#include "../../include/uapi/peerdma.h"
#include "../../sim/include/simgpu_uapi.h"
#include "program.h"

#define BUFFERS		8	/* slots 0 to 7: dma-bufs */
#define PAGE_FDS	4	/* then: what PAGES made */
#define DEVICE_MAPS	4	/* then: what MAP_DEVICE made */
#define EVENTS		2
#define FILES		12
#define FIRST_PAGE_FD	BUFFERS
#define FIRST_DEVICE	(FIRST_PAGE_FD + PAGE_FDS)
#define FIRST_EVENT	(FIRST_DEVICE + DEVICE_MAPS)
#define FIRST_FILE	(FIRST_EVENT + EVENTS)
#define SLOTS		(FIRST_FILE + FILES)

#define MAPS		8
#define MAP_ROOM	(4ull << 20)
#define RANGES		8
#define RANGE_ROOM	(4ull << 20)
#define USER_BYTES	(2ull << 20)
#define ARENA		0x200000000000ull
#define GPU_ARENA	0x210000000000ull
#define USER_ARENA	0x220000000000ull

#define COMMANDS	8
#define SEGMENTS	8	/* that are filled in */
#define SEGMENTS_ROOM	1024	/* that are said to be there at most */
#define EMPTY		(-1)

#define CHANGED_RANGES		((1u << RANGES) - 1)	/* a bit for each */
#define CHANGED_QUOTA		(1u << 16)
#define CHANGED_ATTACHMENT	(1u << 17)
#define CHANGED_DRIVER		(1u << 18)
#define NOBODY		65534

/**
 * struct command - a FILE_IO that the ring has
 * @busy: not completed yet
 * @arg: must stay until then
 */
struct command {
	bool busy;
	struct peerdma_file_io arg;
};

/**
 * struct worker - one thread
 * @ring: its own
 * @in_ring: what it has submitted and not reaped
 * @commands: for those that are FILE_IO
 * @scratch: two pages with nothing behind them, for arguments
 * @segments: for FILE_IO and for each command, all within their own room
 * @ram: for plain reads and writes
 * @pipe: for vmsplice(2), never full
 * @fail_fd: makes the Nth allocation of the next call fail, where there is that
 * @fail_nth: which one; or 0
 * @fault: where a fault goes
 * @may_fault: it is expected
 * @tid: the kernel's number of it
 * @at: which operation it is at
 * @verb: and what that is
 * @calls: how many operations, by verb
 * @good: how many of them succeeded
 */
struct worker {
	pthread_t thread;
	unsigned int index;
	struct io_uring ring;
	unsigned int in_ring;
	struct command commands[COMMANDS];
	unsigned char *scratch;
	struct peerdma_file_segment *segments;
	unsigned char *ram;
	int pipe[2];
	int fail_fd;
	unsigned int fail_nth;
	sigjmp_buf fault;
	volatile bool may_fault;
	pid_t tid;
	volatile unsigned int at;
	volatile unsigned int verb;
	unsigned long long calls[NR_VERBS];
	unsigned long long good[NR_VERBS];
};

static struct {
	int dev;
	int gpu;
	int card;
	int slots[SLOTS];
	uint32_t devices[6];
	char gpu_name[16];
	char card_name[16];
	pthread_rwlock_t gpu_lock; /* the GPU's descriptor and its going away */
	unsigned int changed; /* what rig_clean() has to put back */
} rig;

static __thread struct worker *self;

static const uint64_t range_bytes[RANGES] = {
	65536, 131072, 262144, 1 << 20, 2 << 20, 2 << 20, 65536, 524288,
};

static void on_fault(int signal)
{
	if (!self || !self->may_fault)
		_exit(128 + signal);
	self->may_fault = false;
	siglongjmp(self->fault, 1);
}

static void rig_changed(unsigned int what)
{
	__atomic_or_fetch(&rig.changed, what, __ATOMIC_RELAXED);
}

static void *place(uint64_t at, size_t len, int prot)
{
	return mmap((void *)at, len, prot,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
		    0);
}

static inline unsigned char *map_at(uint8_t slot)
{
	return (void *)(ARENA + slot % MAPS * MAP_ROOM);
}

static inline uint64_t range_at(uint8_t range)
{
	return GPU_ARENA + range % RANGES * RANGE_ROOM;
}

/* ---- descriptors --------------------------------------------------------- */

/* One of @nr slots from @base on; now and then any other, or none at all. */
static int slot_fd(uint8_t code, unsigned int base, unsigned int nr)
{
	static const int wild[] = { -1, 0, 12345, -2147483647 - 1 };

	if (code < 216)
		return __atomic_load_n(&rig.slots[base + code % nr],
				       __ATOMIC_RELAXED);
	if (code < 248)
		return __atomic_load_n(&rig.slots[code % SLOTS],
				       __ATOMIC_RELAXED);
	if (code == 248)
		return rig.dev;
	return wild[code % 4];
}

static void slot_put(unsigned int slot, int fd)
{
	int old = __atomic_exchange_n(&rig.slots[slot], fd, __ATOMIC_RELAXED);

	if (old >= 0)
		close(old);
}

static long gpu_call(unsigned long request, void *arg)
{
	long ret;

	pthread_rwlock_rdlock(&rig.gpu_lock);
	ret = rig.gpu < 0 ? -ENODEV : ioctl(rig.gpu, request, arg);
	pthread_rwlock_unlock(&rig.gpu_lock);
	return ret;
}

static long gpu_alloc(uint8_t range, uint64_t len)
{
	struct simgpu_alloc alloc = { range_at(range), len };

	return gpu_call(SIMGPU_ALLOC, &alloc);
}

static long gpu_free(uint8_t range)
{
	struct simgpu_free free = { range_at(range) };

	return gpu_call(SIMGPU_FREE, &free);
}

/* Its number may be another one when it has been away. */
static void gpu_open(void)
{
	char path[32];
	int tries;

	for (tries = 0; tries < 1000; tries++) {
		snprintf(path, sizeof(path), "/dev/simgpu%d", tries % 4);
		rig.gpu = open(path, O_RDWR | O_CLOEXEC);
		if (rig.gpu >= 0)
			return;
		usleep(1000);
	}
}

/* ---- sysfs --------------------------------------------------------------- */

static long text_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t ret = -1;

	if (fd >= 0) {
		ret = write(fd, text, strlen(text));
		close(fd);
	}
	return ret < 0 ? -1 : 0;
}

static void text_to_device(const char *name, const char *file,
			   const char *text)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", name, file);
	text_to(path, text);
}

/* 0: its own, 1: the stub, 2: none. The file of the one before is of no use. */
static void card_driver(unsigned int which)
{
	static const char *const drivers[] = { "edu", "peerdma-stub", "\n" };
	int fd;

	text_to_device(rig.card_name, "driver/unbind", rig.card_name);
	text_to_device(rig.card_name, "driver_override", drivers[which]);
	if (which < 2)
		text_to("/sys/bus/pci/drivers_probe", rig.card_name);
	if (which)
		return;
	fd = open("/dev/edu", O_RDWR | O_CLOEXEC);
	fd = __atomic_exchange_n(&rig.card, fd, __ATOMIC_RELAXED);
	if (fd >= 0)
		close(fd);
}

/* ---- between two programs ------------------------------------------------ */

static void pin_make(unsigned int slot, uint8_t range, uint32_t flags)
{
	struct peerdma_pin pin = {
		.size = sizeof(pin),
		.flags = flags,
		.provider = "nvidia",
		.addr = range_at(range),
		.len = range_bytes[range],
	};

	if (!ioctl(rig.dev, PEERDMA_PIN, &pin))
		slot_put(slot, pin.out_fd);
}

static void map_whole(unsigned int nr, size_t len, int fd)
{
	if (mmap(map_at(nr), len, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return;		/* programs find nothing mapped */
}

/* Two buffers, two mappings: what most of a program would else fail without. */
static void rig_fill(void)
{
	struct peerdma_page_map pages = { .size = sizeof(pages) };

	pin_make(0, 4, 0);
	pin_make(1, 5, PEERDMA_PIN_REVOCABLE);
	pages.buffer_fd = rig.slots[0];
	if (!ioctl(rig.dev, PEERDMA_PAGES, &pages))
		slot_put(FIRST_PAGE_FD, pages.out_fd);
	map_whole(0, range_bytes[4], rig.slots[FIRST_PAGE_FD]);
	map_whole(1, range_bytes[5], rig.slots[1]);
}

/* Nothing of the last program is left. The ring's work is its worker's. */
static void rig_clean(void)
{
	unsigned int i;

	place(ARENA, MAPS * MAP_ROOM, PROT_NONE);
	for (i = 0; i < FIRST_FILE; i++)
		if (rig.slots[i] >= 0)
			slot_put(i, EMPTY);
	for (i = 0; i < EVENTS; i++)
		rig.slots[FIRST_EVENT + i] = eventfd(0, EFD_NONBLOCK |
							EFD_CLOEXEC);
	place(USER_ARENA, USER_BYTES, PROT_READ | PROT_WRITE);
	if (rig.changed & CHANGED_DRIVER)
		card_driver(0);
	else if (rig.changed & CHANGED_ATTACHMENT)
		ioctl(rig.card, EDU_ATTACH, -1);
	if (rig.changed & CHANGED_QUOTA)
		text_to("/sys/module/peerdma/parameters/quota_bytes", "0");
	for (i = 0; i < RANGES; i++) {
		if (!(rig.changed & 1u << i))
			continue;
		gpu_free(i);
		gpu_alloc(i, range_bytes[i]);
	}
	rig.changed = 0;
}

static void files_open(void)
{
	static const struct {
		const char *path;
		int flags;
	} files[FILES] = {
		{ "/mnt/direct", O_RDWR | O_DIRECT },
		{ "/dev/disk/by-serial/peerdma1", O_RDWR | O_DIRECT },
		{ "/mnt/direct", O_RDONLY | O_DIRECT },
		{ "/mnt/append", O_WRONLY | O_DIRECT | O_APPEND | O_CREAT },
		{ "/mnt/direct", O_RDWR },
		{ "/tmp/ram", O_RDWR | O_CREAT },
		{ "/mnt", O_RDONLY | O_DIRECTORY },
		{ "/dev/null", O_RDWR },
		{ "/dev/zero", O_RDWR },
		{ "/mnt/inline", O_RDWR | O_DIRECT | O_CREAT },
		{ "/mnt/sparse", O_RDWR | O_DIRECT | O_CREAT },
		{ "/mnt/direct", O_PATH },
	};
	unsigned int i;

	for (i = 0; i < FILES; i++)
		rig.slots[FIRST_FILE + i] = open(files[i].path,
						 files[i].flags | O_CLOEXEC,
						 0600);
	if (ftruncate(rig.slots[FIRST_FILE + 10], 64 << 20))
		perror("fuzz: /mnt/sparse");
}

/* The GPU with a driver, the one without, the card, a drive, a bridge. */
static void devices_find(void)
{
	static const char *const roles[] = {
		"GPU", "CARD", "SPARE", "DRIVE", "BRIDGE",
	};
	unsigned int i, domain, bus, dev, fn;

	for (i = 0; i < 5; i++) {
		const char *name = getenv(roles[i]);

		rig.devices[i] = PEERDMA_DEVICE_NONE;
		if (!name || sscanf(name, "%x:%x:%x.%x", &domain, &bus, &dev,
				    &fn) != 4)
			continue;
		rig.devices[i] = PEERDMA_DEVICE(domain, bus, dev, fn);
		if (i < 2)
			snprintf(i ? rig.card_name : rig.gpu_name, 16, "%s",
				 name);
	}
	rig.devices[5] = PEERDMA_DEVICE_NONE;
}

static void rig_open(void)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		rig.slots[i] = EMPTY;
	rig.dev = open("/dev/peerdma", O_RDWR | O_CLOEXEC);
	rig.card = open("/dev/edu", O_RDWR | O_CLOEXEC);
	pthread_rwlock_init(&rig.gpu_lock, NULL);
	gpu_open();
	if (rig.dev < 0 || rig.gpu < 0) {
		perror("fuzz: /dev/peerdma, /dev/simgpu0");
		exit(99);
	}
	files_open();
	devices_find();
	place(GPU_ARENA, RANGES * RANGE_ROOM, PROT_NONE);
	rig.changed = CHANGED_RANGES;
	rig_clean();
}

static void worker_open(struct worker *worker)
{
	worker->tid = syscall(SYS_gettid);
	worker->scratch = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Two pages, one that cannot be touched, one that cannot be written. */
	mprotect(worker->scratch + 2 * 4096, 4096, PROT_NONE);
	mprotect(worker->scratch + 3 * 4096, 4096, PROT_READ);
	worker->segments = calloc((COMMANDS + 1) * SEGMENTS_ROOM,
				  sizeof(*worker->segments));
	worker->ram = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (io_uring_queue_init(2 * COMMANDS, &worker->ring, 0) ||
	    pipe2(worker->pipe, O_NONBLOCK | O_CLOEXEC)) {
		perror("fuzz: a ring, a pipe");
		exit(99);
	}
	worker->fail_fd = open("/proc/thread-self/fail-nth",
			       O_WRONLY | O_CLOEXEC);
	/* The last one may do nothing that is not everybody's right. */
	if (worker->index == THREADS - 1 &&
	    syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY))
		perror("fuzz: setresuid");
}

#endif /* RIG_H */
