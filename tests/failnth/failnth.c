// SPDX-License-Identifier: MIT
/*
 * Everything that the module does for a program, with its first, second, third
 * ... allocation or user copy failing, until it is through without one that
 * failed. Each time: an errno that peerdma.h has for it, nothing left behind, and
 * the same once more, which works.
 *
 * usage: failnth [VERB...], as root, on a kernel with fault injection and with
 * what tests/failnth/guest sets up
 */
#define _GNU_SOURCE
#include "rows.h"

/* More failures than any verb has; who gets there never ends. */
#define NTH_MAX		1000

static unsigned long injected[FAIL_KINDS];
static int kept[2];
static long long kept_bytes;

static bool is_documented(const struct verb *verb, int ret)
{
	bool ring = verb->flags & RING;

	switch (kind) {
	case FAIL_ALLOCATIONS:
		/* What can be done without the memory is done. */
		return !ret || ret == -ENOMEM || ret == -verb->also ||
		       (ring && (ret == -EAGAIN || ret == -ECANCELED));
	default:
		return ret == -EFAULT || (!ret && ring);
	}
}

/* All but the pages that stay for a while. */
static void read_counters(char *text, size_t size)
{
	char line[64];
	FILE *counters = fopen(T_COUNTERS, "r");

	text[0] = '\0';
	while (counters && fgets(line, sizeof(line), counters))
		if (strncmp(line, "page_bytes", 10) && strncmp(line, "held", 4))
			strncat(text, line, size - strlen(text) - 1);
	if (counters)
		fclose(counters);
}

static bool counters_are(const char *want)
{
	char text[512];

	read_counters(text, sizeof(text));
	return !strcmp(text, want);
}

static void make(const struct verb *verb)
{
	if (verb->make)
		verb->make();
}

static void drop(const struct verb *verb)
{
	if (verb->drop)
		verb->drop();
}

/* What a verb moves bytes of, or 0. */
static int moves(const struct verb *verb)
{
	if (verb->flags & MOVES_FILE)
		return file;
	return verb->flags & MOVES ? drive : 0;
}

/* With the @nth failing; false when there was none any more. */
static bool try(const struct verb *verb, int count, unsigned int nth,
		const char *before)
{
	bool failed, good;
	int ret, again = 0;

	make(verb);
	if (moves(verb))
		moved_prepare(moves(verb), nth);
	fail_arm(count, nth);
	ret = verb->call();
	failed = fail_disarm(count);
	good = failed ? is_documented(verb, ret) : !ret;
	if (!ret && moves(verb))
		good &= moved_right(moves(verb));
	if (!ret && verb->flags & COMBINED)
		good &= is_combined();
	drop(verb);
	good &= t_wait_for(counters_are(before));
	if (verb->flags & NEW_PAGES)
		good &= t_wait_for(t_counter("page_bytes") == kept_bytes);
	else if (failed) {
		make(verb);
		again = verb->call();
		drop(verb);
	}
	if (!good || again)
		t_ok(false, "%s, the %uth failing: %s, then %s%s", verb->name,
		     nth, t_errno_name(ret), t_errno_name(again),
		     counters_are(before) ? "" : ", and something is left");
	return failed;
}

/*
 * What is not ours: memremap_pages() leaves the kernel with a page map that is
 * freed, or a warning; the debugging of DMA and of leaks ends without memory.
 */
static const char *spared(const struct verb *verb)
{
	if (verb->flags & NEW_PAGES)
		return "memremap_pages";
	return verb->flags & DMA ? "add_dma_entry" : "__create_object";
}

static unsigned int fail_all(const struct verb *verb)
{
	int count = own_count;
	unsigned int nth = 1;
	char before[512];

	fail_choose(kind);
	if (kind == FAIL_ALLOCATIONS)
		fail_spare(spared(verb));
	if (verb->flags & WORKER)
		count = open_worker();
	read_counters(before, sizeof(before));
	while (nth < NTH_MAX && try(verb, count, nth, before))
		nth++;
	if (verb->flags & WORKER)
		close(count);
	t_ok(nth < NTH_MAX, "%s: it is through at last", verb->name);
	injected[kind] += nth - 1;
	return nth - 1;
}

/* The card is peerdma-stub's, or its own driver's. */
static void bind_card(bool stub)
{
	const char *name = getenv("T_CARD");
	char path[96];

	if (stub == !!access("/dev/edu", F_OK))
		return;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver/unbind",
		 name);
	t_write_text(path, name);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override",
		 name);
	t_write_text(path, stub ? "peerdma-stub" : "\n");
	t_write_text("/sys/bus/pci/drivers_probe", name);
	NEED(stub == !!access("/dev/edu", F_OK), "the card's driver");
}

static void run(const struct verb *verb)
{
	unsigned int nr[FAIL_KINDS];

	bind_card(verb->flags & STUB);
	if (verb->flags & WORKER) {
		unsigned int most[2] = { 1, 1 };

		t_ring_make(&ring, 4, 0);
		io_uring_register_iowq_max_workers(&ring, most);
	}
	for (kind = 0; kind < FAIL_KINDS; kind++)
		nr[kind] = fail_all(verb);
	if (verb->flags & WORKER)
		io_uring_queue_exit(&ring);
	t_note("%s: allocations failed %u, user copies failed %u", verb->name,
	       nr[FAIL_ALLOCATIONS], nr[FAIL_COPIES]);
}

/* ---- workers of the kernel's ---------------------------------------------- */

/* How many failed under @function since fail_under(@function). */
static unsigned long fail_under_end(void)
{
	static const char *const names[] = { "failslab", "fail_page_alloc" };
	static const uint64_t all[2] = { 0, UINT64_MAX };
	unsigned long failed = 0;
	char path[64], line[32];
	int i;

	for (i = 0; i < 2; i++) {
		fail_set(names[i], "probability", "0");
		snprintf(path, sizeof(path), FAIL_FOLDER "/%s/times", names[i]);
		failed += NTH_MAX - atoi(t_line(path, line, sizeof(line)));
		fail_set(names[i], "times", "-1");
	}
	fail_range("require", all);
	return failed;
}

/* Whichever task it is: each allocation that is asked for below it fails. */
static void fail_under(const char *function)
{
	static const char *const names[] = { "failslab", "fail_page_alloc" };
	uint64_t range[2];
	char times[16];
	int i;

	t_need(fail_find(function, range), "the module has %s()", function);
	fail_choose(FAIL_ALLOCATIONS);
	fail_range("require", range);
	snprintf(times, sizeof(times), "%d", NTH_MAX);
	for (i = 0; i < 2; i++) {
		fail_set(names[i], "times", times);
		fail_set(names[i], "probability", "100");
	}
}

/*
 * A fault is tried again and a pin may be refused, but what takes memory back
 * must come to its end, without memory if need be.
 */
static void test_workers(void)
{
	unsigned long failed = 0;

	forget(&kept[0]);
	forget(&kept[1]);
	make_used();
	fail_under("peerdma_buffer_revoke_work");
	t_result(call_revoke(), 0, "REVOKE, its worker without memory");
	failed += fail_under_end();
	drop_mapped();

	make_pages_mapped();
	t_need(!call_touch(), "pages in use");
	fail_under("peerdma_page_maps_poll");
	t_result(call_revoke(), 0, "REVOKE of pages, nor who polls them");
	drop_mapped();
	failed += fail_under_end();
	t_nothing_left();

	fail_under("peerdma_pages_reap");
	t_ok(t_wait_for(!t_counter("page_bytes")), "struct pages are freed");
	failed += fail_under_end();
	t_note("workers: allocations failed %lu", failed);
	injected[FAIL_ALLOCATIONS] += failed;
}

static uint32_t number_of(const char *path)
{
	unsigned int domain, bus, slot, fn;
	const char *name = strrchr(path, '/');

	if (sscanf(name ? name + 1 : path, "%x:%x:%x.%x", &domain, &bus, &slot,
		   &fn) != 4)
		t_need(false, "%s is a PCI function", path);
	return PEERDMA_DEVICE(domain, bus, slot, fn);
}

/* Struct pages of the buffers to come stay while this one has them. */
static int keep_pages(void)
{
	int kept = buffer.fd;

	if (call_ask())
		t_need(false, "struct pages: %s", strerror(errno));
	buffer.fd = -1;
	return kept;
}

static void prepare(void)
{
	struct peerdma_query query;
	struct peerdma_file_io io;
	struct sigaction action = {
		.sa_handler = t_on_fault, .sa_flags = SA_NODEFER,
	};
	unsigned char *bytes = t_ram(LEN);

	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	exporter = t_open("/dev/t_exporter", O_RDWR);
	event = eventfd(0, EFD_CLOEXEC);
	memory_fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	t_need(drive >= 0 && exporter >= 0 && event >= 0 && memory_fd >= 0,
	       "all is opened");
	spare = number_of(getenv("T_SPARE"));
	spare_map();
	card = number_of(getenv("T_CARD"));
	file = t_file_make("/mnt/file", bytes, LEN);
	moved_from = t_ram(REACH);
	moved_to = t_ram(REACH);
	own = t_ram(OWN);
	allocated = t_gpu_alloc(LEN);
	make_pin();
	t_result(t_query(dev, buffer.fd, &query), 0, "the GPU is known");
	gpu = query.out_device;
	t_result(t_move(dev, T_READ, buffer.fd, drive, NULL, 0, &io), 0,
		 "the drive is known");
	drive_number = io.out_device;
	kept[0] = keep_pages();
	make_part(8 * LEN);
	kept[1] = keep_pages();
	kept_bytes = t_counter("page_bytes");
	sigaction(SIGBUS, &action, NULL);
	own_count = fail_open("/proc/thread-self/fail-nth");
	fail_prepare();
}

int main(int argc, char **argv)
{
	const struct verb *verb;
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "fail-nth";
	if (!fail_is_there()) {
		t_skip("all", "this kernel has no fault injection");
		printf("1..%d\n", t_tap.run);
		return 0;
	}
	prepare();
	for (i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (verb = tables[i]; verb->name; verb++)
			if (t_chosen(verb->name, argc, argv))
				run(verb);
	test_workers();
	t_gpu_free(allocated);
	t_nothing_left();
	t_note("in all: allocations failed %lu, user copies failed %lu",
	       injected[FAIL_ALLOCATIONS], injected[FAIL_COPIES]);
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
