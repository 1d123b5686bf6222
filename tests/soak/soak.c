// SPDX-License-Identifier: MIT
/*
 * Soak: processes that pin, map, read, write, free, fork and die at random, for as
 * long as asked, while memory is taken back under them, the GPU's driver goes and
 * the modules are loaded anew. What they read is what the host has made, of which
 * each word is known by its place (t_random.h); what they write they read again.
 *
 * Two canaries are the host's to look at all the while (tests/soak/run): a part of
 * the second GPU's BAR, which has no driver, and the end of the scratch drive.
 *
 * usage: soak SECONDS SEED DATA_SEED SPARE, as root; the drive peerdma1 has the
 * host's bytes, peerdma0 is to be written to, SPARE is the second GPU
 */
#define _GNU_SOURCE
#include <glob.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "../t_clock.h"
#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_random.h"
#include "../t_sysfs.h"
#include "../t_touch.h"

#define WORKERS		3
#define DATA		"/dev/disk/by-serial/peerdma1"
#define SCRATCH		"/dev/disk/by-serial/peerdma0"
#define DATA_BYTES	(32ull << 20)
#define CANARY_BYTES	(4ull << 20)
#define SCRATCH_ROOM	(4ull << 20)	/* of each worker */
#define BAR_CANARY	(32ull << 20)	/* in the spare GPU's BAR */
#define SCRATCH_CANARY	(24ull << 20)	/* on the scratch drive */
#define MOST		(2u << 20)
#define BLOCK		4096u

/**
 * struct shared - what the processes tell: memory that all of them share
 * @operations: that were begun
 * @verified: bytes
 * @wrong: what must not be
 * @cut: workers that lost their memory
 * @taken: how often the administrator took all memory back; raised before
 * @begun: what that was when each worker was started
 */
static struct shared {
	unsigned long long operations;
	unsigned long long verified;
	unsigned long long wrong;
	unsigned long long cut;
	unsigned long long taken;
	unsigned long long begun[WORKERS];
} *shared;

static uint64_t state, data_seed;
static int dev, data, scratch;
static unsigned int self;	/* this worker */
static bool revoked;		/* it has called REVOKE */

static uint64_t next(void)
{
	state++;
	return t_random_word(state, state);
}

static uint64_t below(uint64_t bound)
{
	return next() % bound;
}

static void count(unsigned long long *counter, unsigned long long n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

/* ---- a worker ------------------------------------------------------------ */

/**
 * struct thing - a buffer of a worker
 * @ptr: the GPU's memory, or 0
 * @ram: or ordinary memory
 * @len: bytes
 * @fd: the dma-buf
 * @map: the CPU's view; NULL
 * @revocable: its memory's freeing ends it
 */
struct thing {
	uint64_t ptr;
	unsigned char *ram;
	size_t len;
	int fd;
	unsigned char *map;
	bool revocable;
};

static bool was_taken(unsigned int worker)
{
	return __atomic_load_n(&shared->taken, __ATOMIC_RELAXED) !=
	       shared->begun[worker];
}

/* Memory is gone, which is nobody's fault where it was taken back. */
static void cut_if_taken(void)
{
	if (!revoked && !was_taken(self))
		return;
	count(&shared->cut, 1);
	_exit(0);
}

/* What may be answered when memory goes, and what not. */
static void expect(long long result, const char *what)
{
	count(&shared->operations, 1);
	if (result >= 0)
		return;
	if (result == -ENODEV || result == -ENOENT || result == -EFAULT)
		cut_if_taken();
	count(&shared->wrong, 1);
	t_note("worker: %s: %s", what, t_errno_name(result));
	_exit(1);
}

static void on_bus_error(int signal)
{
	static const char said[] = "# worker: SIGBUS, and nothing was taken back\n";

	(void)signal;
	cut_if_taken();
	count(&shared->wrong, 1);
	_exit(write(STDOUT_FILENO, said, sizeof(said) - 1) > 0 ? 1 : 2);
}

static bool thing_make(struct thing *thing)
{
	struct peerdma_pin pin = { .provider = "nvidia" };

	*thing = (struct thing){ .len = (1 + below(MOST / 65536)) * 65536 };
	thing->revocable = below(2);
	if (below(4)) {
		thing->ptr = t_gpu_alloc(thing->len);
		pin.addr = thing->ptr;
		pin.flags = thing->revocable ? PEERDMA_PIN_REVOCABLE : 0;
	} else {
		thing->ram = t_ram(thing->len);
		strcpy(pin.provider, "user");
		pin.addr = (uintptr_t)thing->ram;
	}
	pin.len = thing->len;
	thing->fd = t_pin_range(dev, &pin);
	expect(thing->fd, "PIN");
	return true;
}

static void thing_map(struct thing *thing)
{
	if (thing->map)
		return;
	thing->map = t_map(thing->fd, thing->len, PROT_READ | PROT_WRITE);
	expect(thing->map == MAP_FAILED ? -errno : 0, "mmap");
}

static void thing_drop(struct thing *thing)
{
	bool free_first = below(2);

	if (thing->ptr && free_first)
		t_gpu_free(thing->ptr);
	if (thing->map)
		munmap(thing->map, thing->len);
	close(thing->fd);
	if (thing->ptr && !free_first)
		t_gpu_free(thing->ptr);
	if (thing->ram)
		munmap(thing->ram, thing->len);
	thing->len = 0;
	count(&shared->operations, 1);
}

/* The host's bytes from @offset of the drive on. */
static void verify_data(const unsigned char *bytes, uint64_t offset, size_t len)
{
	const uint64_t *words = (const void *)bytes;
	size_t i;

	for (i = 0; i < len / 8; i++)
		if (words[i] != t_random_word(data_seed, offset / 8 + i)) {
			count(&shared->wrong, 1);
			t_note("worker: byte %zu of %zu read from %llu is wrong",
			       i * 8, len, (unsigned long long)offset);
			_exit(1);
		}
	count(&shared->verified, len);
}

static void read_data(struct thing *thing)
{
	size_t len = (1 + below(thing->len / BLOCK)) * BLOCK;
	uint64_t offset = below((DATA_BYTES - len) / BLOCK) * BLOCK;
	uint64_t to = below((thing->len - len) / BLOCK + 1) * BLOCK;
	unsigned char *bytes;

	if (thing->ram)
		return;
	expect(t_move_one(dev, T_READ, thing->fd, data, offset, to, len),
	       "FILE_IO");
	thing_map(thing);
	bytes = t_ram(len);
	memcpy(bytes, thing->map + to, len);
	verify_data(bytes, offset, len);
	munmap(bytes, len);
}

/* A plain read by pages. */
static void read_pages(struct thing *thing)
{
	uint64_t offset = below((DATA_BYTES - thing->len) / BLOCK) * BLOCK;
	struct peerdma_page_map arg;
	unsigned char *pages, *bytes;
	int fd;

	if (thing->ram || thing->revocable)
		return;
	fd = t_pages(dev, thing->fd, 0, &arg);
	expect(fd, "PAGES");
	pages = t_map(fd, thing->len, PROT_READ | PROT_WRITE);
	close(fd);
	expect(pages == MAP_FAILED ? -errno : 0, "mmap of pages");
	expect(pread(data, pages, thing->len, offset) < 0 ? -errno : 0,
	       "pread");
	bytes = t_ram(thing->len);
	memcpy(bytes, pages, thing->len);
	verify_data(bytes, offset, thing->len);
	munmap(bytes, thing->len);
	munmap(pages, thing->len);
}

/* To the worker's own part of the scratch drive, and back another way. */
static void write_data(struct thing *thing)
{
	size_t len = (1 + below(thing->len / BLOCK)) * BLOCK;
	uint64_t offset = self * SCRATCH_ROOM +
			  below((SCRATCH_ROOM - len) / BLOCK) * BLOCK;
	unsigned char *bytes = t_ram(len), *again = t_ram(len);

	if (thing->ram)
		goto unmap;
	thing_map(thing);
	t_fill(bytes, len, next());
	memcpy(thing->map, bytes, len);
	expect(t_move_one(dev, T_WRITE, thing->fd, scratch, offset, 0, len),
	       "FILE_IO, writing");
	if (pread(scratch, again, len, offset) != (ssize_t)len ||
	    memcmp(again, bytes, len)) {
		count(&shared->wrong, 1);
		t_note("worker: what was written is not what is read");
		_exit(1);
	}
	count(&shared->verified, len);
unmap:
	munmap(bytes, len);
	munmap(again, len);
}

/* The child has the descriptor and not the mapping. */
static void fork_once(struct thing *thing)
{
	struct peerdma_query query;
	int status;
	pid_t child;

	thing_map(thing);
	child = fork();
	if (!child) {
		t_query(dev, thing->fd, &query);
		_exit(t_touch(thing->map, false) == SIGSEGV ? 0 : 1);
	}
	expect(child < 0 ? -errno : 0, "fork");
	if (below(3) == 0)
		kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status)) {
		count(&shared->wrong, 1);
		t_note("worker: a child has its parent's mapping");
		_exit(1);
	}
}

static void watch_it(struct thing *thing)
{
	int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct peerdma_watch watch = {
		.size = sizeof(watch),
		.buffer_fd = thing->fd,
		.event_fd = event,
	};

	expect(ioctl(dev, PEERDMA_WATCH, &watch) ? -errno : 0, "WATCH");
	close(event);
}

/* Until it is killed, or has had enough. */
static int be_worker(void)
{
	unsigned int i, rounds = 20 + below(200);
	struct thing things[4] = { 0 };

	t_gpu_init();
	dev = t_device_open();
	data = t_open(DATA, O_RDONLY | O_DIRECT);
	scratch = t_open(SCRATCH, O_RDWR | O_DIRECT);
	signal(SIGBUS, on_bus_error);
	for (i = 0; i < rounds; i++) {
		struct thing *thing = &things[below(4)];

		if (!thing->len) {
			thing_make(thing);
			continue;
		}
		switch (below(16)) {
		case 0:
			fork_once(thing);
			break;
		case 1:
			watch_it(thing);
			break;
		case 2:
		case 3:
		case 4:
			thing_drop(thing);
			break;
		case 5:
		case 6:
			read_pages(thing);
			break;
		case 7:
			if (below(4))
				break;
			revoked = true;
			expect(t_revoke(dev, thing->fd), "REVOKE");
			break;
		case 8:
		case 9:
		case 10:
			write_data(thing);
			break;
		default:
			read_data(thing);
		}
	}
	return 0;
}

/* ---- the administrator --------------------------------------------------- */

static char gpu_name[16];
static pid_t workers[WORKERS];

static void worker_start(unsigned int worker)
{
	char text[4][24];

	fflush(stdout);
	shared->begun[worker] = shared->taken;
	workers[worker] = fork();
	if (workers[worker])
		return;
	snprintf(text[0], 24, "%u", worker);
	snprintf(text[1], 24, "%llu", (unsigned long long)next());
	snprintf(text[2], 24, "%llu", (unsigned long long)data_seed);
	execl("/proc/self/exe", "soak", "--worker", text[0], text[1], text[2],
	      NULL);
	_exit(98);
}

/* Its end, if it has come: any status but 0 and a kill is a failure. */
static bool worker_ended(unsigned int worker, int flags)
{
	int status;

	if (waitpid(workers[worker], &status, flags) != workers[worker])
		return false;
	workers[worker] = 0;
	if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL : status) {
		/* 99: no GPU, since that was just away. */
		if (WIFEXITED(status) && WEXITSTATUS(status) == 99 &&
		    was_taken(worker)) {
			count(&shared->cut, 1);
			return true;
		}
		count(&shared->wrong, 1);
		t_note("worker %u ended with status %#x", worker, status);
	}
	return true;
}

static void workers_kill(void)
{
	unsigned int i;

	for (i = 0; i < WORKERS; i++)
		if (workers[i]) {
			kill(workers[i], SIGKILL);
			worker_ended(i, 0);
		}
}

/* Under everybody's eyes. It returns when nobody has the old one open. */
static void gpu_goes(void)
{
	char path[64];

	count(&shared->taken, 1);
	t_write_text("/sys/bus/pci/drivers/simgpu/unbind", gpu_name);
	workers_kill();
	t_write_text("/sys/bus/pci/drivers/simgpu/bind", gpu_name);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", gpu_name);
	t_need(t_wait_for(!access(path, F_OK)), "the GPU comes back");
}

static void modules_reload(void)
{
	workers_kill();
	t_need(t_wait_for(!t_in_use()), "nothing is in use");
	t_need(!system("tests/soak/guest reload"), "the modules come back");
}

/* What is spent: slabs that cannot be had back, and all that is not available. */
static long long memory(const char *name)
{
	long long value = -1;
	char line[128];
	FILE *file;

	t_write_text("/proc/sys/vm/drop_caches", "3");
	file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)))
			sscanf(line + strlen(name), ": %lld", &value);
	if (file)
		fclose(file);
	return value;
}

/* Both canaries are the first bytes of the host's drive. */
static void canaries_make(const char *spare)
{
	unsigned int domain, bus, slot, fn;
	unsigned char *bytes = t_ram(CANARY_BYTES), *map;
	struct peerdma_pin pin = {
		.provider = "pci",
		.addr = BAR_CANARY,
		.len = CANARY_BYTES,
		.bar = 2,
	};
	int fd;

	sscanf(spare, "%x:%x:%x.%x", &domain, &bus, &slot, &fn);
	pin.device = PEERDMA_DEVICE(domain, bus, slot, fn);
	data = t_open(DATA, O_RDONLY | O_DIRECT);
	scratch = t_open(SCRATCH, O_RDWR | O_DIRECT);
	dev = t_device_open();
	t_need(pread(data, bytes, CANARY_BYTES, 0) == CANARY_BYTES &&
	       pwrite(scratch, bytes, CANARY_BYTES, SCRATCH_CANARY) ==
	       CANARY_BYTES, "a canary on the drive");
	fd = t_pin_range(dev, &pin);
	if (fd < 0)
		t_need(false, "the spare BAR: %s", t_errno_name(fd));
	map = t_map(fd, CANARY_BYTES, PROT_READ | PROT_WRITE);
	t_need(map != MAP_FAILED, "it is mapped");
	memcpy(map, bytes, CANARY_BYTES);
	t_same(map, bytes, CANARY_BYTES, "a canary in a BAR");
	munmap(map, CANARY_BYTES);
	munmap(bytes, CANARY_BYTES);
	close(fd);
	close(dev);
	close(scratch);
	close(data);
	t_write_text("/out/canaries", "");
	close(creat("/out/canaries", 0644));
}

static void soak(double seconds)
{
	double until = t_now() + seconds, said = t_now();
	unsigned int i;

	while (t_now() < until && !shared->wrong) {
		for (i = 0; i < WORKERS; i++)
			if (!workers[i] || worker_ended(i, WNOHANG))
				worker_start(i);
		t_sleep_ms(50 + below(200));
		i = below(WORKERS);
		switch (below(24)) {
		case 0:
		case 1:
		case 2:
			if (workers[i])
				kill(workers[i], SIGKILL);
			break;
		case 3:
			if (below(4) == 0)
				gpu_goes();
			break;
		case 4:
			if (below(8) == 0)
				modules_reload();
			break;
		default:
			break;
		}
		if (t_now() - said < 30)
			continue;
		said = t_now();
		t_note("%llu operations, %llu MiB verified, %llu cut",
		       shared->operations, shared->verified >> 20, shared->cut);
	}
	workers_kill();
}

/* KASAN keeps what was freed for a while, other kernels their slabs' pages. */
static long long memory_bound(void)
{
	return access("/sys/kernel/debug/kmemleak", F_OK) ? 32 << 10 :
							    160 << 10;
}

static void memory_check(long long available, long long slab)
{
	long long now_available, now_slab;

	t_ok(t_wait_for(!t_in_use()), "all counters are zero");
	t_ok(t_wait_for(!t_counter("page_bytes")), "no struct pages are left");
	now_available = memory("MemAvailable");
	now_slab = memory("SUnreclaim");
	t_note("memory available: %lld kB, then %lld; slabs: %lld kB, then %lld",
	       available, now_available, slab, now_slab);
	t_ok(now_available > available - memory_bound(),
	     "as much memory is available as before, but for %lld kB",
	     memory_bound());
	t_ok(now_slab < slab + memory_bound() / 2,
	     "slabs hold no more than before, but for %lld kB",
	     memory_bound() / 2);
}

static bool gpu_find(const char *spare)
{
	glob_t found;
	size_t i;

	glob("/sys/bus/pci/drivers/simgpu/*:*:*.*", 0, NULL, &found);
	for (i = 0; i < found.gl_pathc; i++) {
		const char *name = strrchr(found.gl_pathv[i], '/') + 1;

		if (strcmp(name, spare))
			snprintf(gpu_name, sizeof(gpu_name), "%.15s", name);
	}
	globfree(&found);
	return *gpu_name;
}

int main(int argc, char **argv)
{
	long long available, slab;
	double seconds;
	int fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "soak";
	fd = shm_open("/soak", O_RDWR | O_CREAT, 0600);
	if (ftruncate(fd, sizeof(*shared)))
		return 99;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED,
		      fd, 0);
	close(fd);
	if (argc == 5 && !strcmp(argv[1], "--worker")) {
		state = strtoull(argv[3], NULL, 0);
		data_seed = strtoull(argv[4], NULL, 0);
		self = atoi(argv[2]);
		return be_worker();
	}
	if (argc != 5) {
		fprintf(stderr, "usage: soak SECONDS SEED DATA_SEED SPARE\n");
		return 2;
	}
	seconds = atof(argv[1]);
	state = strtoull(argv[2], NULL, 0);
	data_seed = strtoull(argv[3], NULL, 0);
	t_need(gpu_find(argv[4]), "a GPU");
	canaries_make(argv[4]);
	/* Caches, the drivers' tables: what is made once is made before. */
	soak(seconds / 6);
	available = memory("MemAvailable");
	slab = memory("SUnreclaim");
	soak(seconds * 5 / 6);
	t_note("%llu operations, %llu bytes verified, %llu workers cut off",
	       shared->operations, shared->verified, shared->cut);
	t_is(shared->wrong, 0, "everything was as it had to be");
	t_ok(shared->operations && shared->verified, "something was done");
	memory_check(available, slab);
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
