// SPDX-License-Identifier: MIT
/*
 * Races, each of two deeds that may come in either order. They are begun at the
 * same time, a little apart, the distance being moved to where the order changes;
 * in two of three rounds a function in the way of one of them takes longer
 * (tests/races/delay, or the simulator's own delay). Each round ends well, and
 * both orders must be seen.
 *
 * usage: races ROUNDS [CASE...], as root, with a GPU, the edu card bound to
 * peerdma-stub, the raw drive peerdma0 and t_delay.ko
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "../mapdev/edu.h"
#include "../t_clock.h"
#include "../t_pin.h"
#include "../t_touch.h"

#define LEN		65536u
#define NOBODY		65534
#define DRIVE		"/dev/disk/by-serial/peerdma0"
#define MODULES		"/peerdma/build/lab/%s/%s.ko"
#define DELAY_MS	3
#define STEP_US		60
#define FARTHEST_US	10000000
/* So many times the rounds, until both orders were seen. */
#define PATIENCE	10

/* As t_need(), but says nothing when all is well: it is asked in each round. */
#define must(ok, ...) do {						\
	if (!(ok))							\
		t_need(false, __VA_ARGS__);				\
} while (0)

static int dev, drive, rounds;
static struct edu edu;

/* What the two work on. */
static struct {
	uint64_t ptr;
	struct peerdma_pin pin;
	int buffer;
	int event;
	unsigned char *map;
	unsigned char *ram;
} rig;

enum order { FIRST, SECOND, WRONG };

/**
 * struct race - two deeds
 * @name: of the case
 * @begin: makes what they work on
 * @first: one of them; what it answers goes to @judge
 * @second: the other
 * @judge: which was first; WRONG when that cannot be
 * @end: undoes @begin, and checks what must be so whoever was first
 * @in_first: a function that the first one passes through, to be slow
 * @in_second: likewise; NULL: the simulator's callback
 */
struct race {
	const char *name;
	void (*begin)(void);
	long (*first)(void);
	long (*second)(void);
	enum order (*judge)(long first, long second);
	bool (*end)(void);
	const char *in_first;
	const char *in_second;
};

/* ---- two threads --------------------------------------------------------- */

struct runner {
	long (*deed)(void);
	pthread_barrier_t *barrier;
	long wait_us;
	long answer;
};

static void *runner_run(void *data)
{
	struct runner *runner = data;
	double until;

	pthread_barrier_wait(runner->barrier);
	until = t_now() + runner->wait_us * 1e-6;
	while (t_now() < until)
		;
	runner->answer = runner->deed();
	return NULL;
}

/* @lead: microseconds that the second one waits longer. */
static enum order race_run(const struct race *race, long lead)
{
	struct runner runners[2] = {
		{ .deed = race->first, .wait_us = lead < 0 ? -lead : 0 },
		{ .deed = race->second, .wait_us = lead > 0 ? lead : 0 },
	};
	pthread_barrier_t barrier;
	pthread_t threads[2];
	int i;

	pthread_barrier_init(&barrier, NULL, 2);
	for (i = 0; i < 2; i++) {
		runners[i].barrier = &barrier;
		pthread_create(&threads[i], NULL, runner_run, &runners[i]);
	}
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
	return race->judge(runners[0].answer, runners[1].answer);
}

static void slow_down(const char *function)
{
	char text[96];

	if (function)
		snprintf(text, sizeof(text), "%s %d", function, DELAY_MS);
	else
		snprintf(text, sizeof(text), "-");
	must(!t_write_text("/sys/module/t_delay/parameters/at", text),
	     "'%s' is slow", text);
}

static void slow_callback(bool slow)
{
	t_write_text("/sys/kernel/debug/simgpu/callback_delay_ms",
		     slow ? "3" : "0");
}

static void race_prepare(const struct race *race, int round)
{
	slow_callback(false);
	if (round % 3 == 0)
		slow_down(NULL);
	else if (round % 3 == 1)
		slow_down(race->in_first);
	else if (race->in_second)
		slow_down(race->in_second);
	else
		slow_callback(true);
}

static bool race_goes_on(const int *counts, int round)
{
	if (round < rounds)
		return true;
	return (!counts[FIRST] || !counts[SECOND]) && round < rounds * PATIENCE;
}

/*
 * Whoever was first begins later next time, by more and more until the order turns;
 * each kind of round has a distance of its own. How far that is, the machine's
 * speed decides: rounds are added until the order has turned once.
 */
static void race(const struct race *race)
{
	long lead[3] = { 0 }, step[3] = { STEP_US, STEP_US, STEP_US };
	enum order last[3] = { WRONG, WRONG, WRONG };
	int counts[3] = { 0 }, round, kind, bad = 0;

	for (round = 0; race_goes_on(counts, round); round++) {
		enum order order;

		kind = round % 3;
		race->begin();
		race_prepare(race, round);
		order = race_run(race, lead[kind]);
		slow_down(NULL);
		counts[order]++;
		if (order == last[kind])
			step[kind] *= 4;
		else
			step[kind] = STEP_US;
		last[kind] = order;
		lead[kind] += order == FIRST ? -step[kind] : step[kind];
		if (labs(lead[kind]) > FARTHEST_US) {
			lead[kind] = 0;
			step[kind] = STEP_US;
		}
		bad += !race->end();
	}
	slow_callback(false);
	t_note("%s: %d and %d of %d rounds", race->name, counts[FIRST],
	       counts[SECOND], round);
	t_is(counts[WRONG], 0, "one of them was first");
	t_is(bad, 0, "what must be so after each round");
	t_ok(counts[FIRST] && counts[SECOND], "both orders were seen");
}

/* ---- a buffer ------------------------------------------------------------ */

static void buffer_make(uint32_t flags)
{
	rig.ptr = t_gpu_alloc(LEN);
	rig.buffer = t_pin(dev, rig.ptr, LEN, flags, &rig.pin);
	must(rig.buffer >= 0, "a pin: %s", t_errno_name(rig.buffer));
}

static long revoke_it(void)
{
	return t_revoke(dev, rig.buffer);
}

static bool all_gone(void)
{
	return t_wait_for(!t_in_use());
}

static bool buffer_end(void)
{
	close(rig.buffer);
	t_gpu_free(rig.ptr);
	return all_gone();
}

/* ---- unpin against the provider's callback -------------------------------- */

static void unpin_begin(void)
{
	struct peerdma_watch watch = { .size = sizeof(watch) };

	buffer_make(PEERDMA_PIN_REVOCABLE);
	rig.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	watch.buffer_fd = rig.buffer;
	watch.event_fd = rig.event;
	must(!ioctl(dev, PEERDMA_WATCH, &watch), "it is watched");
}

static long unpin_close(void)
{
	return close(rig.buffer);
}

static long unpin_free(void)
{
	t_gpu_free(rig.ptr);
	return 0;
}

/* Only a revocation that found the pin tells. */
static enum order unpin_judge(long first, long second)
{
	uint64_t count = 0;
	ssize_t got = read(rig.event, &count, sizeof(count));

	close(rig.event);
	if (first || second || (got > 0 && count != 1))
		return WRONG;
	return got > 0 ? SECOND : FIRST;
}

/* ---- revoke against the provider's callback -------------------------------- */

static long long callbacks;

static void revoke_begin(void)
{
	buffer_make(PEERDMA_PIN_REVOCABLE);
	callbacks = t_gpu_counter("callbacks");
}

/* The provider calls back only when it has a pin to end. */
static enum order revoke_judge(long first, long second)
{
	if (first || second)
		return WRONG;
	return t_gpu_counter("callbacks") == callbacks ? FIRST : SECOND;
}

static bool revoke_end(void)
{
	close(rig.buffer);
	return all_gone();
}

/* ---- close against fault -------------------------------------------------- */

static void fault_begin(void)
{
	buffer_make(0);
	rig.map = t_map(rig.buffer, LEN, PROT_READ | PROT_WRITE);
	must(rig.map != MAP_FAILED, "a mapping");
}

static long fault_touch(void)
{
	return t_touch(rig.map, true);
}

static long fault_close(void)
{
	close(rig.buffer);
	return munmap(rig.map, LEN);
}

static enum order fault_judge(long first, long second)
{
	if (second || (first && first != SIGSEGV))
		return WRONG;
	return first ? SECOND : FIRST;
}

static bool fault_end(void)
{
	t_gpu_free(rig.ptr);
	return all_gone();
}

/* ---- revoke against fault ------------------------------------------------- */

static enum order revoke_fault_judge(long first, long second)
{
	if (second || (first && first != SIGBUS))
		return WRONG;
	return first ? SECOND : FIRST;
}

/* A page that was filled in before is taken away again. */
static bool revoke_fault_end(void)
{
	bool shut = t_touch(rig.map, false) == SIGBUS;

	munmap(rig.map, LEN);
	return buffer_end() && shut;
}

/* ---- revoke against FILE_IO ----------------------------------------------- */

static void io_begin(void)
{
	buffer_make(0);
	t_gpu_set(rig.ptr, 0xee, LEN);
}

static long io_read(void)
{
	return t_move_one(dev, T_READ, rig.buffer, drive, 0, 0, LEN);
}

static enum order io_judge(long first, long second)
{
	if (second || (first != LEN && first != -ENODEV))
		return WRONG;
	if (first == LEN) {
		unsigned char *got = t_gpu_copy(rig.ptr, LEN);
		bool same = !memcmp(got, rig.ram, LEN);

		munmap(got, LEN);
		return same ? FIRST : WRONG;
	}
	return SECOND;
}

/* ---- unload against open -------------------------------------------------- */

static int module_load(const char *name)
{
	char path[96];
	int fd, ret;

	snprintf(path, sizeof(path), MODULES, getenv("PEERDMA_KERNEL"), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ret = syscall(SYS_finit_module, fd, "", 0);
	close(fd);
	return ret ? -errno : 0;
}

static void unload_begin(void)
{
	syscall(SYS_delete_module, "peerdma_nvidia", O_NONBLOCK);
	close(dev);
}

static long unload_open(void)
{
	int fd = open("/dev/peerdma", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static long unload_unload(void)
{
	return syscall(SYS_delete_module, "peerdma", O_NONBLOCK) ? -errno : 0;
}

/* Who has it open has a module that answers. */
static enum order unload_judge(long first, long second)
{
	struct peerdma_info info = { .size = sizeof(info) };
	enum order order = WRONG;

	if (first >= 0 && second == -EAGAIN)
		order = ioctl(first, PEERDMA_INFO, &info) ? WRONG : FIRST;
	else if ((first == -ENOENT || first == -ENXIO || first == -ENODEV) &&
		 !second)
		order = SECOND;
	else
		t_note("open %s, unload %s", t_errno_name(first),
		       t_errno_name(second));
	if (first >= 0)
		close(first);
	return order;
}

static bool unload_end(void)
{
	int ret = module_load("peerdma");

	if (ret && ret != -EEXIST)
		t_note("the module comes back: %s", t_errno_name(ret));
	ret = module_load("peerdma_nvidia");
	if (ret)
		t_note("peerdma_nvidia comes back: %s", t_errno_name(ret));
	dev = t_device_open();
	return !ret && all_gone();
}

/* ---- quota against parallel pins ------------------------------------------ */

#define QUOTA	"/sys/module/peerdma/parameters/quota_bytes"

static void quota_begin(void)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", LEN);
	t_write_text(QUOTA, text);
}

/* As somebody whom the quota binds; only this thread. */
static long quota_pin(void)
{
	struct peerdma_pin pin = {
		.provider = "user",
		.addr = (uintptr_t)rig.ram,
		.len = LEN,
	};

	if (syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY))
		return -errno;
	return t_pin_range(dev, &pin);
}

/* There is room for one. */
static enum order quota_judge(long first, long second)
{
	enum order order = WRONG;

	if (first >= 0 && second == -EDQUOT)
		order = FIRST;
	if (second >= 0 && first == -EDQUOT)
		order = SECOND;
	if (order == WRONG)
		t_note("%s and %s", t_errno_name(first), t_errno_name(second));
	if (t_counter("pinned_bytes") > LEN)
		order = WRONG;
	close(first >= 0 ? first : -1);
	close(second >= 0 ? second : -1);
	return order;
}

static bool quota_end(void)
{
	t_write_text(QUOTA, "0");
	return all_gone();
}

/* ---- removal against MAP_DEVICE ------------------------------------------- */

static void removal_begin(void)
{
	buffer_make(0);
}

static long removal_map(void)
{
	struct peerdma_device_segment segments[16];
	struct peerdma_map_device arg = {
		.size = sizeof(arg),
		.buffer_fd = rig.buffer,
		.device = edu.number,
		.len = LEN,
		.segments = (uintptr_t)segments,
		.nr_segments = 16,
	};

	return ioctl(dev, PEERDMA_MAP_DEVICE, &arg) ? -errno : arg.out_fd;
}

static long removal_remove(void)
{
	char path[64];

	pci_path(path, sizeof(path), edu.name, "remove");
	return t_write_text(path, "1");
}

static enum order removal_judge(long first, long second)
{
	/* Whoever got a mapping has one that has ended. */
	bool ended = t_counter("device_maps") == 0;

	if (first >= 0)
		close(first);
	if (second || !ended || (first < 0 && first != -ENOENT)) {
		t_note("mapping %s, removal %s", t_errno_name(first),
		       t_errno_name(second));
		return WRONG;
	}
	return first >= 0 ? FIRST : SECOND;
}

static bool removal_end(void)
{
	t_write_text("/sys/bus/pci/rescan", "1");
	return edu_open(&edu) && edu_bind(&edu, "peerdma-stub") && buffer_end();
}

/* ---- */

static const struct race races[] = {
	{ "unpin, callback", unpin_begin, unpin_close, unpin_free, unpin_judge,
	  all_gone, "buffer_release", NULL },
	{ "revoke, callback", revoke_begin, revoke_it, unpin_free,
	  revoke_judge, revoke_end, "nvidia_unpin", NULL },
	{ "fault, close", fault_begin, fault_touch, fault_close, fault_judge,
	  fault_end, "cpu_map_fault", "cpu_map_close" },
	{ "fault, revoke", fault_begin, fault_touch, revoke_it,
	  revoke_fault_judge, revoke_fault_end, "cpu_map_fault",
	  "peerdma_buffer_revoke" },
	{ "FILE_IO, revoke", io_begin, io_read, revoke_it, io_judge,
	  buffer_end, "request_complete", "peerdma_buffer_revoke" },
	{ "open, unload", unload_begin, unload_open, unload_unload,
	  unload_judge, unload_end, "misc_open", "peerdma_provider_unregister" },
	{ "pin, pin", quota_begin, quota_pin, quota_pin, quota_judge,
	  quota_end, "peerdma_account_charge", "peerdma_account_uncharge" },
	{ "MAP_DEVICE, removal", removal_begin, removal_map, removal_remove,
	  removal_judge, removal_end, "peerdma_device_get",
	  "peerdma_mappings_revoke" },
};

int main(int argc, char **argv)
{
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "races";
	rounds = argc > 1 ? atoi(argv[1]) : 30;
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	rig.ram = t_ram(LEN);
	t_fill(rig.ram, LEN, 17);
	t_need(pwrite(drive, rig.ram, LEN, 0) == LEN, "the drive has data");
	t_need(edu_open(&edu) && edu_bind(&edu, "peerdma-stub"), "a card");
	for (i = 0; i < sizeof(races) / sizeof(races[0]); i++) {
		if (!t_chosen(races[i].name, argc - 1, argv + 1))
			continue;
		t_tap.name = races[i].name;
		race(&races[i]);
		t_nothing_left();
	}
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
