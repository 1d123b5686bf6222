// SPDX-License-Identifier: MIT
/*
 * MAP_DEVICE: what ends a mapping, while the card is at it.
 *
 * usage: ends CASE..., as root, with QEMU's edu card and T_DRIVER its driver; in
 *        "gpu goes" and "gpu removed" the host is asked to compare (t_record.h), and
 *        the process has no CUDA afterwards
 *        ends --victim PIPE
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "../t_record.h"
#include "map.h"

#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define TRACING	"/sys/kernel/tracing/"
#define PIECES	16
/* Takes every device whose driver_override says so. */
#define ANY_DRIVER "uio_pci_generic"

#define STALE	0x3a

struct writer {
	uint64_t addr;
	int rounds;
	bool stop;
};

static void *writer_run(void *data)
{
	struct writer *writer = data;

	while (!__atomic_load_n(&writer->stop, __ATOMIC_ACQUIRE)) {
		edu_set(&edu, EDU_SRC, EDU_AT);
		edu_set(&edu, EDU_DST, writer->addr);
		edu_set(&edu, EDU_COUNT, EDU_MEMORY);
		edu_set(&edu, EDU_COMMAND, EDU_TO_HOST | EDU_START);
		while (edu_busy(&edu))
			t_sleep_ms(1);
		__atomic_add_fetch(&writer->rounds, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static int rounds(struct writer *writer)
{
	return __atomic_load_n(&writer->rounds, __ATOMIC_ACQUIRE);
}

/* The card can reach what is mapped, and has bytes that are no canaries. */
static uint64_t card_ready(const struct map *map)
{
	uint64_t room, addr = map_addr(map, 0, &room);

	t_gpu_set(map->buffer.ptr, STALE, LEN);
	edu_make_master(&edu);
	edu_read(&edu, addr, EDU_MEMORY);
	return addr;
}

/* Taken back under the card's eyes, whose holder keeps all descriptors. */
static void revoke_under(bool by_free)
{
	struct writer writer = { 0 };
	unsigned char *want = t_ram(LEN);
	uint64_t canary;
	pthread_t thread;
	struct map map;
	int before;

	map.buffer.len = LEN;
	map.buffer.ptr = t_gpu_alloc(LEN);
	map.buffer.fd = t_pin(dev, map.buffer.ptr, LEN,
			      by_free ? PEERDMA_PIN_REVOCABLE : 0,
			      &map.buffer.pin);
	t_need(map_part(&map, 0, 0, LEN, 0) >= 0, "a buffer is mapped");
	writer.addr = card_ready(&map);
	pthread_create(&thread, NULL, writer_run, &writer);
	t_ok(t_wait_for(rounds(&writer) >= 2), "the card writes");

	if (by_free)
		t_gpu_free(map.buffer.ptr);
	else
		t_result(t_revoke(dev, map.buffer.fd), 0, "it is revoked");
	t_is(t_counter("device_maps"), 0, "the mapping is no more");
	t_is(t_counter("pinned_bytes"), 0, "nor is the pin");
	t_ok(edu_is_master(&edu), "the card is still a master");
	if (!by_free)
		t_gpu_free(map.buffer.ptr);
	canary = t_gpu_alloc(LEN);
	t_gpu_set(canary, CANARY, LEN);
	before = rounds(&writer);
	t_ok(t_wait_for(rounds(&writer) >= before + 3), "the card goes on");
	__atomic_store_n(&writer.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	memset(want, CANARY, LEN);
	t_gpu_same(canary, want, LEN, "the next owner's memory is untouched");
	t_result(map_part(&(struct map){ .buffer = map.buffer }, 0, 0, LEN, 0),
		 -ENODEV, "there is no second mapping");
	close(map.fd);
	check_blocked(canary, writer.addr, "closed");
	t_gpu_free(canary);
	close(map.buffer.fd);
	munmap(want, LEN);
}

static void test_revoke(void)
{
	revoke_under(false);
}

static void test_free(void)
{
	revoke_under(true);
}

/* ---- the order of a revocation ------------------------------------------- */

/* Reads a drive into the buffer, much at a time, until that is refused. */
static void *reader_run(void *data)
{
	struct peerdma_file_segment segments[PIECES];
	int i, drive, fd = *(int *)data;
	struct peerdma_file_io arg;
	long ret = 0;

	drive = t_open(DRIVE, O_RDONLY | O_DIRECT);
	while (!ret) {
		for (i = 0; i < PIECES; i++)
			segments[i] = (struct peerdma_file_segment){
				.file_offset = (uint64_t)i * GPU_PAGE,
				.buffer_offset = (uint64_t)i * GPU_PAGE,
				.len = GPU_PAGE,
			};
		ret = t_move(dev, T_READ, fd, drive, segments, PIECES, &arg);
	}
	close(drive);
	return (void *)ret;
}

static void trace_set(const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), TRACING "%s", file);
	t_need(!t_write_text(path, text), "%s is set", path);
}

/* The last line with @event and @more, counted from 1; 0 when there is none. */
static int traced(const char *event, const char *more)
{
	FILE *file = fopen(TRACING "trace", "r");
	int nr = 0, last = 0;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		nr++;
		if (strstr(line, event) && strstr(line, more))
			last = nr;
	}
	if (file)
		fclose(file);
	return last;
}

/* What is in flight ends first, then the card's way, and the pin last. */
static void test_order(void)
{
	int revoke, io, unmap, unpin;
	pthread_t thread;
	struct map map;
	void *ret;

	map_make(&map, 0, 0);
	/* The clocks of two CPUs need not agree; a counter does. */
	trace_set("trace_clock", "counter");
	trace_set("trace", "\n");
	trace_set("events/peerdma/enable", "1");
	pthread_create(&thread, NULL, reader_run, &map.buffer.fd);
	t_ok(t_wait_for(traced("io_done:", "")), "a drive is read");
	t_result(t_revoke(dev, map.buffer.fd), 0, "the buffer is revoked");
	pthread_join(thread, &ret);
	trace_set("events/peerdma/enable", "0");
	t_result((long)ret, -ENODEV, "no more of the drive is read");
	revoke = traced("revoke:", "");
	io = traced("io_done:", "");
	unmap = traced("unmap:", edu.name);
	unpin = traced("unpin:", "");
	t_ok(revoke && revoke < unmap, "a revocation ends the mapping");
	t_ok(io < unmap, "when the drive is done");
	t_ok(unmap < unpin, "and before the pin is ended");
	trace_set("trace_clock", "local");
	map_drop(&map);
}

/* ---- the holder goes ----------------------------------------------------- */

/* Has the card write to a buffer until it is killed, and tells where. */
static int victim(int pipe)
{
	struct writer writer = { 0 };
	struct map map;

	t_gpu_init();
	dev = t_device_open();
	if (!edu_open(&edu))
		return 1;
	map_make(&map, 0, 0);
	writer.addr = card_ready(&map);
	if (write(pipe, &writer.addr, sizeof(writer.addr)) !=
	    sizeof(writer.addr))
		return 1;
	writer_run(&writer);
	return 0;
}

static pid_t victim_start(int *from)
{
	char text[16];
	int ends[2];
	pid_t child;

	t_need(!pipe(ends), "a pipe is made");
	child = fork();
	if (!child) {
		snprintf(text, sizeof(text), "%d", ends[1]);
		execl("/proc/self/exe", "ends", "--victim", text, NULL);
		_exit(1);
	}
	close(ends[1]);
	*from = ends[0];
	return child;
}

static void test_killed(void)
{
	unsigned char *want = t_ram(LEN);
	uint64_t addr = 0, canary;
	pid_t child;
	int from;

	child = victim_start(&from);
	t_is(read(from, &addr, sizeof(addr)), sizeof(addr),
	     "somebody's card writes");
	t_is(t_counter("device_maps"), 1, "by one mapping");
	t_ok(t_wait_for(edu_busy(&edu)), "it is at it");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	t_ok(t_wait_for(!t_in_use()), "killed, he holds nothing");
	canary = t_gpu_alloc(LEN);
	t_gpu_set(canary, CANARY, LEN);
	t_ok(t_wait_for(!edu_busy(&edu)), "the card comes to rest");
	memset(want, CANARY, LEN);
	t_gpu_same(canary, want, LEN, "the next owner's memory is untouched");
	check_blocked(canary, addr, "his address");
	t_gpu_free(canary);
	close(from);
	munmap(want, LEN);
}

/* ---- one descriptor, several processes ----------------------------------- */

static int unload(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? -errno : 0;
}

/* Has the mapping's descriptor alone, until it becomes another program. */
static int child_holds(const struct map *map, const int *ends)
{
	char byte;

	close(ends[1]);
	close(map->buffer.fd);
	close(dev);
	if (read(ends[0], &byte, 1) != 1)
		return 97;
	dup2(ends[0], STDIN_FILENO);
	execl("/usr/bin/cat", "cat", NULL);
	return 98;
}

/* A mapping is its descriptor's, whoever has that; exec() takes it away. */
static void test_shared(void)
{
	int ends[2], status;
	char byte = 0;
	struct map map;
	pid_t child;

	map_make(&map, 0, 0);
	t_need(!pipe2(ends, O_CLOEXEC), "a pipe");
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(child_holds(&map, ends));
	close(map.fd);
	close(map.buffer.fd);
	t_is(t_counter("device_maps"), 1, "a child keeps the mapping");
	t_is(t_counter("buffers"), 1, "and the buffer");
	close(dev);
	t_result(unload("peerdma_nvidia"), -EAGAIN, "and the provider");
	t_result(unload("peerdma"), -EAGAIN, "and peerdma");
	dev = t_device_open();
	t_is(write(ends[1], &byte, 1), 1, "it becomes another program");
	t_ok(t_wait_for(!t_in_use()), "which has nothing of it");
	close(ends[0]);
	close(ends[1]);
	t_ok(waitpid(child, &status, 0) == child && !status,
	     "and went on meanwhile");
	t_gpu_free(map.buffer.ptr);
}

/* ---- the card's own comings and goings ----------------------------------- */

static void test_other_driver(void)
{
	struct map map;
	uint64_t addr;

	t_buffer_make(&map.buffer, dev, LEN);
	t_result(map_try(&map, PEERDMA_MAP_DEVICE_IOVA, IOVA), -EBUSY,
		 "no chosen address for a device with a driver");
	t_need(map_part(&map, 0, 0, LEN, 0) >= 0, "others it has");
	addr = card_ready(&map);
	t_ok(edu_bind(&edu, "none"), "the driver goes");
	t_is(t_counter("device_maps"), 0, "and the mapping");
	check_blocked(map.buffer.ptr, addr, "without it");
	t_ok(edu_bind(&edu, driver), "the driver is back");
	check_blocked(map.buffer.ptr, addr, "with it");
	map_drop(&map);
}

static void test_driver_comes(void)
{
	struct map map;
	uint64_t addr;

	t_ok(edu_bind(&edu, "none"), "the card has no driver");
	map_make(&map, 0, 0);
	if (!access("/sys/bus/pci/drivers/" ANY_DRIVER, F_OK)) {
		t_ok(!edu_bind(&edu, ANY_DRIVER), "it is given to none");
		t_is(t_counter("device_maps"), 1, "while it is mapped for");
	}
	addr = card_ready(&map);
	t_ok(edu_bind(&edu, "peerdma-stub"), "it gets the stub");
	t_is(t_counter("device_maps"), 0, "that ends the mapping");
	check_blocked(map.buffer.ptr, addr, "with the stub");
	close(map.fd);
	t_ok(map_part(&map, 0, 0, LEN, 0) >= 0, "another one is made");
	addr = card_ready(&map);
	t_ok(edu_bind(&edu, "none"), "the stub goes");
	t_is(t_counter("device_maps"), 0, "that ends the mapping, too");
	check_blocked(map.buffer.ptr, addr, "without the stub");
	t_ok(edu_bind(&edu, driver), "as before");
	map_drop(&map);
}

static void test_removal(void)
{
	struct map map;
	uint64_t addr;
	char path[64];

	map_make(&map, 0, 0);
	addr = card_ready(&map);
	pci_path(path, sizeof(path), edu.name, "remove");
	t_result(t_write_text(path, "1"), 0, "the card is taken out");
	t_is(t_counter("device_maps"), 0, "and the mapping with it");
	t_result(map_try(&map, 0, 0), -ENOENT, "there is no other one");
	t_result(t_write_text("/sys/bus/pci/rescan", "1"), 0, "it is put back");
	t_need(edu_open(&edu), "and found");
	check_blocked(map.buffer.ptr, addr, "put back");
	t_ok(edu_bind(&edu, driver), "as before");
	check_blocked(map.buffer.ptr, addr, "with its driver");
	map_drop(&map);
}

/* ---- the GPU goes -------------------------------------------------------- */

/**
 * struct place - where a buffer lay, for the CPU while the GPU has no driver
 * @bar: the GPU's memory
 * @len: bytes of it
 * @segments: the buffer's, with addresses as they were
 * @nr: of them
 */
struct place {
	unsigned char *bar;
	size_t len;
	struct peerdma_segment segments[SEGMENTS];
	uint32_t nr;
};

static void place_map(struct place *place, const char *gpu)
{
	struct stat stat;
	char path[64];
	int fd;

	pci_path(path, sizeof(path), gpu, "enable");
	t_need(!t_write_text(path, "1"), "the GPU without a driver answers");
	t_need(bar_start(gpu) == gpu_bar, "its memory is where it was");
	pci_path(path, sizeof(path), gpu, "resource2_wc");
	fd = t_open(path, O_RDWR);
	t_need(fd >= 0 && !fstat(fd, &stat), "its memory is opened");
	place->len = stat.st_size;
	place->bar = mmap(NULL, place->len, PROT_READ | PROT_WRITE, MAP_SHARED,
			  fd, 0);
	close(fd);
	t_need(place->bar != MAP_FAILED, "... and mapped");
}

static void place_fill(const struct place *place)
{
	uint32_t i;

	for (i = 0; i < place->nr; i++)
		memset(place->bar + place->segments[i].addr - gpu_bar, CANARY,
		       place->segments[i].len);
}

/* Bytes that are no canaries any more. */
static size_t place_wrong(const struct place *place)
{
	size_t at, wrong = 0;
	uint32_t i;

	for (i = 0; i < place->nr; i++) {
		const struct peerdma_segment *segment = &place->segments[i];

		for (at = 0; at < segment->len; at++)
			wrong += place->bar[segment->addr - gpu_bar + at] !=
				 CANARY;
	}
	return wrong;
}

/* The driver goes, or the device, which comes back without a driver. */
static void gpu_leave(const char *gpu, bool removed)
{
	char path[64];

	t_write_text("/sys/bus/pci/drivers_autoprobe", "0");
	if (removed)
		pci_path(path, sizeof(path), gpu, "remove");
	t_result(removed ? t_write_text(path, "1") :
			   t_write_text("/sys/bus/pci/drivers/simgpu/unbind",
					gpu), 0, "the GPU goes");
	t_is(t_counter("device_maps"), 0, "the mapping goes with the GPU");
	t_is(t_counter("pinned_bytes"), 0, "and the pin");
	if (removed)
		t_result(t_write_text("/sys/bus/pci/rescan", "1"), 0,
			 "the GPU is put back");
}

static void gpu_return(const char *gpu)
{
	char path[64];

	pci_path(path, sizeof(path), gpu, "enable");
	t_write_text(path, "0");
	t_write_text("/sys/bus/pci/drivers_autoprobe", "1");
	t_write_text("/sys/bus/pci/drivers/simgpu/bind", gpu);
	pci_path(path, sizeof(path), gpu, "driver");
	t_result(access(path, F_OK), 0, "the GPU is back");
}

static void place_record(struct place *place, const char *out, int buffer)
{
	struct t_record record;

	mkdir(out, 0755);
	t_record_open(&record, out, dev, buffer);
	t_record_fill(&record, CANARY, 0, LEN);
	t_record_close(&record);
	place->nr = gpu_segments(buffer, place->segments);
}

/* Under a card that goes on writing, whose holder keeps all descriptors. */
static void gpu_goes(const char *out, bool removed)
{
	struct writer writer = { 0 };
	struct place place;
	pthread_t thread;
	uint32_t number;
	struct map map;
	char gpu[16];
	int before;

	map_make(&map, 0, 0);
	t_need(pci_find("device", 0x1110, gpu, &number), "the GPU is found");
	place_record(&place, out, map.buffer.fd);
	writer.addr = card_ready(&map);
	pthread_create(&thread, NULL, writer_run, &writer);
	t_ok(t_wait_for(rounds(&writer) >= 2), "the card writes");
	gpu_leave(gpu, removed);
	place_map(&place, gpu);
	place_fill(&place);
	before = rounds(&writer);
	t_ok(t_wait_for(rounds(&writer) >= before + 3), "the card goes on");
	t_is(place_wrong(&place), 0, "the memory is untouched");
	t_ok(t_record_look(out), "the host has looked");
	__atomic_store_n(&writer.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	t_ok(edu_is_master(&edu), "the card is still a master");
	close(map.fd);
	close(map.buffer.fd);
	edu_write(&edu, writer.addr, EDU_MEMORY);
	t_is(place_wrong(&place), 0, "closed: the card's write is blocked");
	munmap(place.bar, place.len);
	gpu_return(gpu);
}

static void test_gpu_goes(void)
{
	gpu_goes("/out/gpu-goes", false);
}

static void test_gpu_removed(void)
{
	gpu_goes("/out/gpu-removed", true);
}

static const struct t_case cases[] = {
	{ "revoke", test_revoke },
	{ "free", test_free },
	{ "order", test_order },
	{ "killed", test_killed },
	{ "shared", test_shared },
	{ "other driver", test_other_driver },
	{ "driver comes", test_driver_comes },
	{ "gpu goes", test_gpu_goes },
	{ "gpu removed", test_gpu_removed },
	{ "removal", test_removal },
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--victim"))
		return victim(atoi(argv[2]));
	map_prepare();
	return T_RUN(cases, t_nothing_left);
}
