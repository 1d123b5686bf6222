// SPDX-License-Identifier: MIT
/*
 * Memory that everything uses at once, and every way in which it ends. The CPU
 * writes to it, a card's DMA engine does, a drive reads into it and out of it by
 * FILE_IO until its queue is full, another one into it by plain preadv(2), one more
 * importer has it mapped, the card has it by MAP_DEVICE, and QUERY asks. No module
 * can be unloaded. Then it is taken back, freed, its process is killed, its driver
 * is unbound or its device removed.
 *
 * At once it is somebody else's and full of canaries, while all those who had it
 * go on trying with everything they had. No canary may change. The drives are slow,
 * so that what a revocation does not wait for comes when the canaries are there.
 *
 * usage: together OUT [END]...; wants the edu card with examples/edu's driver,
 * t_importer.ko and the raw drives peerdma0 and peerdma1. The host is to look at the
 * memory when OUT/END asks for it (t_record.h).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include "../devices/importer/t_importer.h"
#include "../devices/t_card.h"
#include "../t_clock.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_record.h"
#include "../t_transfer.h"

#define LEN	(4ull << 20)
#define BLOCK	4096u
#define CANARY	0xc5
#define LARGE	(32ull << 20)
#define CHUNK	(64ull << 10)
#define MOST	1024
#define TIMES	4
#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define OTHER	"/dev/disk/by-serial/peerdma1"
/* As many requests as a transfer may have in flight; an NVMe queue has 1023. */
#define REQUESTS	1024u
#define QUEUE_FULL	1000
/* The debug kernel is no faster than its drive. */
#define QUEUE_DEBUG	64

/* ---- the users, threads of one process ----------------------------------- */

static struct {
	int dev;
	int buffer;
	int drive;
	int other;
	int card;
	int importer;
	unsigned char *map;
	unsigned char *pages;
	volatile bool stop;
} rig;

/**
 * struct user - one who uses the memory in a loop
 * @name: for the report
 * @once: uses it; 0, or a negative errno
 * @cut: what it is to answer when the memory is gone
 * @idle: it waits for no device, and leaves the CPU to the others in between
 * @rounds: how often it went well
 * @last: what @once answered last
 */
struct user {
	const char *name;
	int (*once)(void);
	int cut;
	bool idle;
	volatile int rounds;
	volatile int last;
	pthread_t thread;
};

static __thread sigjmp_buf gone;

static void on_bus_error(int signal)
{
	(void)signal;
	siglongjmp(gone, 1);
}

static int cpu_writes(void)
{
	if (sigsetjmp(gone, 1))
		return -EFAULT;
	memset(rig.map, 0x11, LEN);
	return 0;
}

/* In an order in which the block layer merges none with its neighbour. */
static int drive_moves(uint32_t flags, uint64_t file_offset)
{
	struct peerdma_file_segment segments[REQUESTS];
	struct peerdma_file_io arg = {
		.flags = flags,
		.buffer_fd = rig.buffer,
		.file_fd = rig.drive,
		.segments = (uintptr_t)segments,
		.nr_segments = REQUESTS,
		.depth = REQUESTS,
	};
	uint32_t i;

	for (i = 0; i < REQUESTS; i++) {
		uint64_t at = i * 5 % REQUESTS * (LEN / REQUESTS);

		segments[i] = (struct peerdma_file_segment){
			file_offset + at, at, LEN / REQUESTS, 0,
		};
	}
	return t_file_io(rig.dev, &arg);
}

static int drive_reads(void)
{
	return drive_moves(T_READ, 0);
}

static int drive_writes(void)
{
	return drive_moves(T_WRITE, LEN);
}

/* From a drive of its own, and so much that it takes longer than FILE_IO. */
static int preadv_reads(void)
{
	struct iovec parts[TIMES];
	int i;

	for (i = 0; i < TIMES; i++)
		parts[i] = (struct iovec){ rig.pages, LEN };
	return preadv(rig.other, parts, TIMES, 0) < 0 ? -errno : 0;
}

static int card_writes(void)
{
	static unsigned char block[BLOCK];
	ssize_t ret;

	memset(block, 0x33, sizeof(block));
	ret = t_card_write(rig.card, block, sizeof(block), LEN / 2);
	return ret < 0 ? ret : 0;
}

/* EINVAL: it has it mapped still. */
static int importer_maps(void)
{
	int ret = ioctl(rig.importer, T_IMPORT_MAP) ? -errno : 0;

	return ret == -EINVAL ? 0 : ret;
}

static int query_asks(void)
{
	struct peerdma_query query;
	int ret = t_query(rig.dev, rig.buffer, &query);

	if (!ret && query.out_state & PEERDMA_BUFFER_REVOKED)
		ret = -ENODEV;
	return ret;
}

static struct user users[] = {
	{ .name = "the CPU's writes", .once = cpu_writes, .cut = -EFAULT },
	{ .name = "FILE_IO, reading", .once = drive_reads, .cut = -ENODEV },
	{ .name = "FILE_IO, writing", .once = drive_writes, .cut = -ENODEV },
	{ .name = "QUERY", .once = query_asks, .cut = -ENODEV, .idle = true },
	{ .name = "the card's DMA", .once = card_writes, .cut = -ENODEV },
	{ .name = "an importer", .once = importer_maps, .cut = -ENODEV,
	  .idle = true },
	{ .name = "preadv(2)", .once = preadv_reads, .cut = -EFAULT },
};

#define NR_USERS	(sizeof(users) / sizeof(users[0]))
/* A revocable pin has no pages; before 7.x, as Debian builds it, no importers. */
#define NR_REVOCABLE	(NR_USERS - 1)
#define NR_NO_IMPORTERS	4

static size_t count_users(bool revocable)
{
	struct utsname name;

	if (!revocable)
		return NR_USERS;
	uname(&name);
	return atoi(name.release) < 7 ? NR_NO_IMPORTERS : NR_REVOCABLE;
}

/*
 * Goes on after a failure, as a program that does not look would, but leaves the
 * CPU to the others.
 */
static void *user_run(void *data)
{
	struct user *user = data;

	while (!rig.stop) {
		int ret = user->once();

		if (ret < 0)
			user->last = ret;
		else
			user->rounds++;
		if (ret < 0 || user->idle)
			t_sleep_ms(1);
	}
	return NULL;
}

static void rig_import(void)
{
	struct t_import import = { .fd = rig.buffer, .device = t_card_number() };

	rig.card = t_card_open();
	t_need(!t_card_attach(rig.card, rig.buffer), "a card");
	rig.importer = t_open("/dev/t_importer", O_RDWR);
	t_need(rig.importer >= 0 && !ioctl(rig.importer, T_IMPORT, &import),
	       "another importer");
}

static void rig_make(const char *out, uint64_t ptr, bool revocable, size_t nr)
{
	struct t_record record;
	struct peerdma_pin pin;

	rig.dev = t_device_open();
	rig.buffer = t_pin(rig.dev, ptr, LEN,
			   revocable ? PEERDMA_PIN_REVOCABLE : 0, &pin);
	t_need(rig.buffer >= 0, "memory is pinned");
	t_record_open(&record, out, rig.dev, rig.buffer);
	t_record_fill(&record, CANARY, 0, LEN);
	t_record_close(&record);
	rig.map = t_map(rig.buffer, LEN, PROT_READ | PROT_WRITE);
	rig.drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	rig.other = t_open(OTHER, O_RDONLY | O_DIRECT);
	t_need(rig.map != MAP_FAILED && rig.drive >= 0 && rig.other >= 0,
	       "a mapping, two drives");
	t_need(t_card_map(rig.dev, rig.buffer, LEN, t_card_number()) >= 0,
	       "addresses for the card");
	if (nr > NR_NO_IMPORTERS)
		rig_import();
	if (!revocable)
		rig.pages = t_pages_map(rig.dev, rig.buffer, LEN);
}

static bool users_are_cut(size_t nr)
{
	bool cut = true;
	size_t i;

	for (i = 0; i < nr; i++) {
		cut &= t_ok(t_wait_long_for(users[i].last == users[i].cut),
			    "%s: %s", users[i].name,
			    t_errno_name(users[i].cut));
		t_note("%s: %d rounds, then %s", users[i].name, users[i].rounds,
		       t_errno_name(users[i].last));
	}
	return cut;
}

static bool handshake(int socket)
{
	char byte = 0;

	return write(socket, &byte, 1) == 1 && read(socket, &byte, 1) == 1;
}

/*
 * The process: says when all go, and goes on until it is told to stop. A giver's
 * memory is his no more when it is taken from the users: only their pin keeps it
 * from its next owner. Under a revocable pin it is the freeing that cuts off.
 */
static int be_users(const char *out, const char *role, int socket)
{
	bool revocable = !strcmp(role, "freer"), cut;
	size_t i, nr = count_users(revocable);
	uint64_t ptr;

	t_tap.name = strrchr(out, '/') + 1;
	signal(SIGBUS, on_bus_error);
	t_gpu_init();
	ptr = t_gpu_alloc(LEN);
	rig_make(out, ptr, revocable, nr);
	if (!strcmp(role, "giver"))
		t_gpu_free(ptr);
	for (i = 0; i < nr; i++)
		pthread_create(&users[i].thread, NULL, user_run, &users[i]);
	for (i = 0; i < nr; i++)
		t_need(t_wait_long_for(users[i].rounds), "%s", users[i].name);
	if (!handshake(socket))
		return 2;
	if (revocable) {
		t_gpu_free(ptr);
		if (!handshake(socket))
			return 3;
	}
	cut = users_are_cut(nr);
	rig.stop = true;
	for (i = 0; i < nr; i++)
		pthread_join(users[i].thread, NULL);
	return !cut;
}

/* ---- the ends ------------------------------------------------------------ */

static char gpu[96];

static bool gpu_find(void)
{
	char line[16];
	glob_t found;
	size_t i;

	glob("/sys/bus/pci/devices/*/device", 0, NULL, &found);
	*gpu = '\0';
	for (i = 0; i < found.gl_pathc; i++)
		if (!strcmp(t_line(found.gl_pathv[i], line, sizeof(line)),
			    "0x1110"))
			snprintf(gpu, sizeof(gpu), "%.*s",
				 (int)(strrchr(found.gl_pathv[i], '/') -
				       found.gl_pathv[i]), found.gl_pathv[i]);
	globfree(&found);
	return *gpu;
}

static int end_unbind(pid_t child)
{
	(void)child;
	return t_write_text("/sys/bus/pci/drivers/simgpu/unbind",
			    strrchr(gpu, '/') + 1);
}

static int end_remove(pid_t child)
{
	char path[128];

	(void)child;
	snprintf(path, sizeof(path), "%s/remove", gpu);
	return t_write_text(path, "1");
}

static int end_kill(pid_t child)
{
	return kill(child, SIGKILL) ? -errno : 0;
}

static int end_revoke(pid_t child)
{
	char path[64], link[64];
	int dev = t_device_open(), process = syscall(SYS_pidfd_open, child, 0);
	int ret = -ENOENT, fd, buffer;

	/* The buffer is the child's dma-buf. */
	for (fd = 3; fd < 64 && ret == -ENOENT; fd++) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", child, fd);
		len = readlink(path, link, sizeof(link) - 1);
		link[len < 0 ? 0 : len] = '\0';
		if (!strstr(link, "dmabuf"))
			continue;
		buffer = syscall(SYS_pidfd_getfd, process, fd, 0);
		ret = t_revoke(dev, buffer);
		close(buffer);
	}
	close(process);
	close(dev);
	return ret;
}

static void gpu_back(const char *name)
{
	if (!strcmp(name, "unbind"))
		t_result(t_write_text("/sys/bus/pci/drivers/simgpu/bind",
				      strrchr(gpu, '/') + 1), 0,
			 "the GPU's driver returns");
	if (!strcmp(name, "remove"))
		t_result(t_write_text("/sys/bus/pci/rescan", "1"), 0,
			 "the GPU returns");
	t_need(t_wait_for(gpu_find()), "there is a GPU");
}

/*
 * Somebody else, who has been waiting for it, gets all memory and fills it with
 * canaries, while the users go on trying; his bytes must stay what they are. What
 * was freed last he gets first.
 */
static int be_next(const char *out, int socket)
{
	static struct {
		uint64_t ptr;
		size_t len;
	} parts[MOST];
	int (*alloc)(uint64_t *ptr, size_t len);
	unsigned char want[CHUNK], got[CHUNK];
	size_t at, len, sum = 0;
	int nr = 0, wrong = 0;

	t_tap.name = strrchr(out, '/') + 1;
	t_gpu_init();
	alloc = (int (*)(uint64_t *, size_t))dlsym(dlopen("libcuda.so.1",
							  RTLD_NOW),
						   "cuMemAlloc_v2");
	memset(want, CANARY, sizeof(want));
	if (!handshake(socket))
		return 2;
	for (len = LARGE; len >= CHUNK; len /= 2)
		while (nr < MOST && !alloc(&parts[nr].ptr, len)) {
			parts[nr].len = len;
			t_gpu_set(parts[nr++].ptr, CANARY, len);
			sum += len;
		}
	t_note("somebody else has %zu MiB", sum >> 20);
	t_sleep_ms(2000);
	t_ok(t_record_look(out), "the host has looked");
	while (nr--)
		for (at = 0; at < parts[nr].len; at += CHUNK) {
			t_gpu_read(got, parts[nr].ptr + at, CHUNK);
			if (memcmp(got, want, CHUNK))
				wrong += t_note("%#x in the next owner's memory",
						got[t_first_difference(got, want,
								       CHUNK)]);
		}
	return wrong || t_tap.failed;
}

/**
 * struct other - a process of this program
 * @pid: its
 * @socket: to it
 */
struct other {
	pid_t pid;
	int socket;
};

static void other_start(struct other *other, const char *role, const char *out)
{
	int sockets[2];
	char number[12];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		t_need(false, "a pair of sockets");
	fcntl(sockets[0], F_SETFD, FD_CLOEXEC);
	snprintf(number, sizeof(number), "%d", sockets[1]);
	fflush(stdout);
	other->pid = fork();
	if (!other->pid) {
		execl("/proc/self/exe", "together", "--be", role, out, number,
		      NULL);
		_exit(98);
	}
	close(sockets[1]);
	other->socket = sockets[0];
}

static bool other_says(const struct other *other)
{
	char byte;

	return read(other->socket, &byte, 1) == 1;
}

static void other_tell(const struct other *other)
{
	char byte = 0;

	t_is(write(other->socket, &byte, 1), 1, "it is told");
}

static int other_end(struct other *other)
{
	int status = -1;

	waitpid(other->pid, &status, 0);
	close(other->socket);
	return status;
}

static int unload(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? -errno : 0;
}

/* What the drive has in flight. */
static int in_flight(void)
{
	char path[96], link[64], line[64];
	ssize_t len = readlink(DRIVE, link, sizeof(link) - 1);
	int reading = 0, writing = 0;

	link[len < 0 ? 0 : len] = '\0';
	snprintf(path, sizeof(path), "/sys/block/%s/inflight",
		 strrchr(link, '/') ? strrchr(link, '/') + 1 : link);
	sscanf(t_line(path, line, sizeof(line)), "%d %d", &reading, &writing);
	return reading && writing ? reading + writing : 0;
}

/* Nothing that is in use can be unloaded; and there is much in flight. */
static void check_busy(void)
{
	static const char *const modules[] = {
		"peerdma", "peerdma_nvidia", "simgpu",
	};
	bool debug = !strcmp(getenv("PEERDMA_KERNEL"), "debug");
	size_t i;

	for (i = 0; i < sizeof(modules) / sizeof(modules[0]); i++)
		t_result(unload(modules[i]), -EWOULDBLOCK, "%s stays",
			 modules[i]);
	t_ok(t_wait_long_for(in_flight() >= (debug ? QUEUE_DEBUG : QUEUE_FULL)),
	     "the drive's queue is full");
	t_note("%d requests are in flight", in_flight());
}

/*
 * The next owner stands ready where the GPU stays; where it returns, he comes when
 * it is back. @role tells who the users are, @end what befalls them.
 */
static void run_end(const char *out, const char *name, const char *role,
		    int (*end)(pid_t child))
{
	bool away = end == end_unbind || end == end_remove;
	struct other child, next;
	char folder[128];
	double began;

	t_tap.name = name;
	snprintf(folder, sizeof(folder), "%s/%s", out, name);
	mkdir(folder, 0755);
	other_start(&child, role, folder);
	t_need(other_says(&child), "everybody uses the memory");
	if (!away) {
		other_start(&next, "next", folder);
		t_need(other_says(&next), "somebody waits for it");
	}
	check_busy();

	began = t_now();
	if (end) {
		t_result(end(child.pid), 0, "it ends");
	} else {
		other_tell(&child);
		t_ok(other_says(&child), "it is freed");
	}
	if (end == end_kill) {
		t_ok(WIFSIGNALED(other_end(&child)), "the process is dead");
		t_ok(t_wait_for(!t_in_use()), "nothing of it is left");
	}
	t_note("that took %.0f ms", (t_now() - began) * 1000);
	t_is(t_counter("pinned_bytes"), 0, "nothing is pinned");
	t_is(t_counter("device_maps"), 0, "nothing is mapped for a device");
	if (away) {
		gpu_back(name);
		other_start(&next, "next", folder);
		t_need(other_says(&next), "somebody comes for it");
	}
	other_tell(&next);
	t_is(other_end(&next), 0,
	     "another gets the memory, and keeps its bytes");
	if (end != end_kill) {
		other_tell(&child);
		t_is(other_end(&child), 0, "each was told what it had to be");
	}
	t_nothing_left();
}

static int be(char **argv)
{
	if (!strcmp(argv[0], "next"))
		return be_next(argv[1], atoi(argv[2]));
	return be_users(argv[1], argv[0], atoi(argv[2]));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		const char *role;
		int (*end)(pid_t child);
	} ends[] = {
		{ "taken-back", "giver", end_revoke },
		{ "freed", "freer", NULL },
		{ "killed", "users", end_kill },
		{ "unbind", "users", end_unbind },
		{ "remove", "users", end_remove },
	};
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 5 && !strcmp(argv[1], "--be"))
		return be(argv + 2);
	t_tap.name = "together";
	t_need(argc >= 2 && gpu_find(), "a folder for records, and a GPU");
	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (t_chosen(ends[i].name, argc - 1, argv + 1))
			run_end(argv[1], ends[i].name, ends[i].role, ends[i].end);
	printf("1..%d\n", t_tap.run);
	return t_tap.failed != 0;
}
