// SPDX-License-Identifier: MIT
/*
 * Memory that everything uses at once, and every way in which it ends. The CPU
 * writes to it, a card's DMA engine does, a drive reads into it and out of it by
 * FILE_IO and into it by plain pread(2), and QUERY asks. Then it is taken back,
 * freed, its process is killed, its driver is unbound or its device removed.
 * Afterwards it is somebody else's and full of canaries, which the host counts.
 *
 * usage: together OUT [END]...; wants the edu card with examples/edu's driver and
 * the raw drive peerdma0.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../devices/t_card.h"
#include "../t_clock.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_record.h"
#include "../t_transfer.h"

#define LEN	(4ull << 20)
#define PIECE	(256u << 10)
#define BLOCK	4096
#define CANARY	0xc5
#define CHUNK	(64u << 10)
#define MOST	65536
#define DRIVE	"/dev/disk/by-serial/peerdma0"

/* ---- the users, threads of one process ----------------------------------- */

static struct {
	int dev;
	int buffer;
	int drive;
	int card;
	unsigned char *map;
	unsigned char *pages;
	volatile bool stop;
} rig;

/**
 * struct user - one who uses the memory in a loop
 * @name: for the report
 * @once: uses it; 0, or a negative errno
 * @cut: what it is to answer when the memory is gone
 * @rounds: how often it went well
 * @last: what @once answered last
 */
struct user {
	const char *name;
	int (*once)(void);
	int cut;
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

static int drive_reads(void)
{
	long long got = t_move_one(rig.dev, T_READ, rig.buffer, rig.drive, 0, 0,
				   LEN);

	return got < 0 ? got : 0;
}

static int drive_writes(void)
{
	long long got = t_move_one(rig.dev, T_WRITE, rig.buffer, rig.drive,
				   LEN, 0, LEN);

	return got < 0 ? got : 0;
}

static int pread_reads(void)
{
	return pread(rig.drive, rig.pages, PIECE, 0) < 0 ? -errno : 0;
}

static int card_writes(void)
{
	static unsigned char block[BLOCK];
	ssize_t ret;

	memset(block, 0x33, sizeof(block));
	ret = t_card_write(rig.card, block, sizeof(block), LEN / 2);
	return ret < 0 ? ret : 0;
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
	{ .name = "QUERY", .once = query_asks, .cut = -ENODEV },
	{ .name = "pread(2)", .once = pread_reads, .cut = -EFAULT },
	{ .name = "the card's DMA", .once = card_writes, .cut = -ENODEV },
};

#define NR_USERS	(sizeof(users) / sizeof(users[0]))
/* Those that a revocable pin admits everywhere: no pages, no card. */
#define NR_ALWAYS	4

/*
 * Goes on after a failure, as a program that does not look would, but leaves the
 * CPU to the others.
 */
static void *user_run(void *data)
{
	struct user *user = data;

	while (!rig.stop) {
		int ret = user->once();

		if (ret < 0) {
			user->last = ret;
			t_sleep_ms(1);
		} else {
			user->rounds++;
		}
	}
	return NULL;
}

static void rig_make(const char *out, uint64_t ptr, bool revocable)
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
	t_need(rig.map != MAP_FAILED && rig.drive >= 0, "a mapping, a drive");
	if (revocable)
		return;
	rig.pages = t_pages_map(rig.dev, rig.buffer, LEN);
	rig.card = t_card_open();
	t_need(!t_card_attach(rig.card, rig.buffer), "a card");
}

/*
 * The process: says when all go, waits until they have been cut off, then frees
 * what is still its own. Under a revocable pin it is the freeing that cuts off.
 */
static int be_users(const char *out, const char *role, int socket)
{
	bool revocable = !strcmp(role, "freer");
	size_t i, nr = revocable ? NR_ALWAYS : NR_USERS;
	int wrong = 0;
	uint64_t ptr;
	char byte = 0;

	t_tap.name = "users";
	signal(SIGBUS, on_bus_error);
	t_gpu_init();
	ptr = t_gpu_alloc(LEN);
	rig_make(out, ptr, revocable);
	for (i = 0; i < nr; i++)
		pthread_create(&users[i].thread, NULL, user_run, &users[i]);
	for (i = 0; i < nr; i++)
		t_need(t_wait_for(users[i].rounds >= 2), "%s", users[i].name);
	if (write(socket, &byte, 1) != 1 || read(socket, &byte, 1) != 1)
		return 2;
	if (revocable)
		t_gpu_free(ptr);
	for (i = 0; i < nr; i++)
		if (!t_wait_for(users[i].last == users[i].cut))
			wrong += t_note("%s: %d rounds, then %s", users[i].name,
					users[i].rounds,
					t_errno_name(users[i].last));
	if (!strcmp(role, "giver"))
		t_gpu_free(ptr);
	if (write(socket, &byte, 1) != 1 || read(socket, &byte, 1) != 1)
		return 3;
	rig.stop = true;
	for (i = 0; i < nr; i++)
		pthread_join(users[i].thread, NULL);
	return wrong;
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
 * Somebody else gets all memory and fills it with canaries, while the users go on
 * trying; his bytes must stay what they are.
 */
static int be_next(void)
{
	static uint64_t ptrs[MOST];
	int (*alloc)(uint64_t *ptr, size_t len);
	unsigned char want[CHUNK], got[CHUNK];
	int nr = 0, wrong = 0;

	t_gpu_init();
	alloc = (int (*)(uint64_t *, size_t))dlsym(dlopen("libcuda.so.1",
							  RTLD_NOW),
						   "cuMemAlloc_v2");
	memset(want, CANARY, sizeof(want));
	while (nr < MOST && !alloc(&ptrs[nr], CHUNK))
		t_gpu_set(ptrs[nr++], CANARY, CHUNK);
	t_note("somebody else has %d MiB", nr * (CHUNK >> 10) / 1024);
	t_sleep_ms(500);
	while (nr) {
		t_gpu_read(got, ptrs[--nr], CHUNK);
		wrong += memcmp(got, want, CHUNK) != 0;
	}
	return wrong ? 1 : 0;
}

struct start {
	const char *out;
	const char *role;
	char socket[12];
};

static int become(void *data)
{
	struct start *start = data;

	execl("/proc/self/exe", "together", "--be", start->role, start->out,
	      start->socket, NULL);
	return 98;
}

static void users_stop(pid_t child, int socket)
{
	char byte = 0;
	int status;

	t_is(write(socket, &byte, 1), 1, "the users stop");
	waitpid(child, &status, 0);
	t_is(status, 0, "each was told what it had to be");
}

/* How long it took to end; and all that must be so afterwards. */
static void run_end(const char *out, const char *name, const char *role,
		    int (*end)(pid_t child))
{
	struct start start = { .role = role };
	char folder[128], byte = 0;
	int sockets[2], status;
	double began;
	bool away;
	pid_t child;

	t_tap.name = name;
	snprintf(folder, sizeof(folder), "%s/%s", out, name);
	mkdir(folder, 0755);
	start.out = folder;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		t_need(false, "a pair of sockets");
	fcntl(sockets[0], F_SETFD, FD_CLOEXEC);
	snprintf(start.socket, sizeof(start.socket), "%d", sockets[1]);
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(become(&start));
	close(sockets[1]);
	t_need(read(sockets[0], &byte, 1) == 1, "everybody uses the memory");

	began = t_now();
	if (end)
		t_result(end(child), 0, "it ends");
	if (end != end_kill) {
		t_is(write(sockets[0], &byte, 1), 1, "the users are told");
		t_is(read(sockets[0], &byte, 1), 1, "and were cut off");
		t_note("all was over after %.0f ms", (t_now() - began) * 1000);
	} else {
		waitpid(child, &status, 0);
		t_ok(WIFSIGNALED(status), "the process is dead");
		t_ok(t_wait_for(!t_in_use()), "nothing of it is left");
		t_note("nothing was left after %.0f ms",
		       (t_now() - began) * 1000);
	}
	/* A simulated GPU returns when nobody has the old one open any more. */
	away = end == end_unbind || end == end_remove;
	if (away)
		users_stop(child, sockets[0]);
	gpu_back(name);
	start.role = "next";
	t_is(t_child(become, &start), 0,
	     "another gets the memory, and keeps its bytes");
	if (!away && end != end_kill)
		users_stop(child, sockets[0]);
	close(sockets[0]);
	t_nothing_left();
}

static int be(char **argv)
{
	if (!strcmp(argv[0], "next"))
		return be_next();
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
	t_need(argc >= 2 && gpu_find(), "a folder for records, and a GPU");
	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (t_chosen(ends[i].name, argc - 1, argv + 1))
			run_end(argv[1], ends[i].name, ends[i].role, ends[i].end);
	printf("1..%d\n", t_tap.run);
	return t_tap.failed != 0;
}
