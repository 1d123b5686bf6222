// SPDX-License-Identifier: MIT
/*
 * MAP_DEVICE: what ends a mapping, while the card is at it.
 *
 * usage: ends CASE..., as root, with QEMU's edu card and T_DRIVER its driver
 *        ends --victim PIPE
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "map.h"

#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define TRACING	"/sys/kernel/tracing/"
#define PIECES	16
/* Takes every device whose driver_override says so. */
#define ANY_DRIVER "uio_pci_generic"

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

/* Taken back under the card's eyes, whose holder keeps all descriptors. */
static void revoke_under(bool by_free)
{
	struct writer writer = { 0 };
	unsigned char *want = t_ram(LEN);
	uint64_t canary, room;
	pthread_t thread;
	struct map map;
	int before;

	map.buffer.len = LEN;
	map.buffer.ptr = t_gpu_alloc(LEN);
	map.buffer.fd = t_pin(dev, map.buffer.ptr, LEN,
			      by_free ? PEERDMA_PIN_REVOCABLE : 0,
			      &map.buffer.pin);
	t_need(map_part(&map, 0, 0, LEN, 0) >= 0, "a buffer is mapped");
	edu_make_master(&edu);
	writer.addr = map_addr(&map, 0, &room);
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
	uint64_t room;

	t_gpu_init();
	dev = t_device_open();
	if (!edu_open(&edu))
		return 1;
	map_make(&map, 0, 0);
	edu_make_master(&edu);
	writer.addr = map_addr(&map, 0, &room);
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

	t_buffer_make(&map.buffer, dev, LEN);
	t_result(map_try(&map, PEERDMA_MAP_DEVICE_IOVA, IOVA), -EBUSY,
		 "no chosen address for a device with a driver");
	t_need(map_part(&map, 0, 0, LEN, 0) >= 0, "others it has");
	t_ok(edu_bind(&edu, "none"), "the driver goes");
	t_is(t_counter("device_maps"), 0, "and the mapping");
	t_ok(edu_bind(&edu, driver), "the driver is back");
	map_drop(&map);
}

static void test_driver_comes(void)
{
	struct map map;

	t_ok(edu_bind(&edu, "none"), "the card has no driver");
	map_make(&map, 0, 0);
	if (!access("/sys/bus/pci/drivers/" ANY_DRIVER, F_OK)) {
		t_ok(!edu_bind(&edu, ANY_DRIVER), "it is given to none");
		t_is(t_counter("device_maps"), 1, "while it is mapped for");
	}
	t_ok(edu_bind(&edu, "peerdma-stub"), "it gets the stub");
	t_is(t_counter("device_maps"), 0, "that ends the mapping");
	close(map.fd);
	t_ok(map_part(&map, 0, 0, LEN, 0) >= 0, "another one is made");
	t_ok(edu_bind(&edu, "none"), "the stub goes");
	t_is(t_counter("device_maps"), 0, "that ends the mapping, too");
	t_ok(edu_bind(&edu, driver), "as before");
	map_drop(&map);
}

static void test_removal(void)
{
	struct map map;
	char path[64];

	map_make(&map, 0, 0);
	pci_path(path, sizeof(path), edu.name, "remove");
	t_result(t_write_text(path, "1"), 0, "the card is taken out");
	t_is(t_counter("device_maps"), 0, "and the mapping with it");
	t_result(map_try(&map, 0, 0), -ENOENT, "there is no other one");
	t_result(t_write_text("/sys/bus/pci/rescan", "1"), 0, "it is put back");
	t_need(edu_open(&edu), "and found");
	t_ok(edu_bind(&edu, driver), "as before");
	edu_make_master(&edu);
	map_drop(&map);
}

static void test_gpu_goes(void)
{
	struct map map;
	char name[16], path[64];
	uint32_t number;

	map_make(&map, 0, 0);
	t_need(pci_find("device", 0x1110, name, &number), "the GPU is found");
	t_write_text("/sys/bus/pci/drivers/simgpu/unbind", name);
	t_is(t_counter("device_maps"), 0, "the mapping goes with the GPU");
	t_is(t_counter("pinned_bytes"), 0, "and the pin");
	t_write_text("/sys/bus/pci/drivers/simgpu/bind", name);
	pci_path(path, sizeof(path), name, "driver");
	t_result(access(path, F_OK), 0, "the GPU is back");
	close(map.fd);
	close(map.buffer.fd);
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
	{ "removal", test_removal },
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--victim"))
		return victim(atoi(argv[2]));
	map_prepare();
	return T_RUN(cases, t_nothing_left);
}
