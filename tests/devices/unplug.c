// SPDX-License-Identifier: MIT
/*
 * The card is unplugged by the machine, not by software, while it writes to GPU
 * memory by its driver, and is mapped more of it by MAP_DEVICE. Then it is plugged
 * in again.
 *
 * usage: unplug FOLDER DEVICE; FOLDER is for the host's record, DEVICE what QEMU's
 * device_add makes the card of. QEMU's monitor is the virtio port peerdma.monitor.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/stat.h>

#include "t_card.h"
#include "../t_clock.h"
#include "../t_pin.h"
#include "../t_record.h"

#define PAGE	4096u
#define LEN	(4ull << 16)
#define CANARY	0xc5

static int dev;
static const char *folder, *device;

/* One line for QEMU's monitor. */
static void monitor(const char *format, const char *what)
{
	char path[64], line[160], name[32];
	glob_t found;
	size_t i;
	int fd = -1;

	glob("/sys/class/virtio-ports/*/name", 0, NULL, &found);
	for (i = 0; i < found.gl_pathc && fd < 0; i++) {
		if (strcmp(t_line(found.gl_pathv[i], name, sizeof(name)),
			   "peerdma.monitor"))
			continue;
		snprintf(path, sizeof(path), "/dev/%.*s", (int)(
			 strlen(found.gl_pathv[i]) - strlen("/name") -
			 strlen("/sys/class/virtio-ports/")),
			 found.gl_pathv[i] + strlen("/sys/class/virtio-ports/"));
		fd = open(path, O_RDWR | O_NONBLOCK);
	}
	globfree(&found);
	snprintf(line, sizeof(line), format, what);
	t_need(fd >= 0 && write(fd, line, strlen(line)) == (int)strlen(line),
	       "QEMU is told: %.*s", (int)strcspn(line, "\n"), line);
	close(fd);
}

struct looper {
	int card;
	volatile bool stop;
	volatile int rounds;
	volatile int refused;
	volatile ssize_t ret;
};

static void *looper_run(void *data)
{
	static unsigned char block[PAGE];
	struct looper *looper = data;

	memset(block, 0xee, sizeof(block));
	while (!looper->stop) {
		looper->ret = t_card_write(looper->card, block, sizeof(block),
					   looper->rounds % 8 * sizeof(block));
		if (looper->ret < 0)
			looper->refused++;
		looper->rounds++;
	}
	return NULL;
}

static void record(const char *name, int buffer)
{
	struct t_record record;
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	mkdir(path, 0755);
	t_record_open(&record, path, dev, buffer);
	t_record_fill(&record, CANARY, 0, LEN);
	t_record_close(&record);
}

/* The card is back: it is attached and writes. */
static void plug_in(int buffer, uint64_t ptr)
{
	unsigned char block[PAGE], got[PAGE];
	int card = -1, i;

	/* QEMU takes it only when the old one's slot is free; a second is refused. */
	for (i = 0; i < 20 && card < 0; i++) {
		monitor("device_add %s\n", device);
		t_wait_ms_for(1000, (card = open("/dev/edu", O_RDWR)) >= 0);
	}
	t_need(card >= 0, "the card is back");
	t_result(t_card_attach(card, buffer), 0, "it is attached");
	memset(block, 0x77, PAGE);
	t_result(t_card_write(card, block, PAGE, 0), PAGE, "and writes");
	t_gpu_read(got, ptr, PAGE);
	t_same(got, block, PAGE, "which arrives");
	close(card);
}

static void unplugged(void)
{
	uint64_t ptr = t_gpu_alloc(LEN), other = t_gpu_alloc(LEN), third;
	struct peerdma_pin pin, second;
	struct looper looper = { 0 };
	uint32_t number = t_card_number();
	pthread_t thread;
	char path[96];
	double began;
	int map;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s",
		 t_card_address());
	t_need(t_pin(dev, ptr, LEN, 0, &pin) >= 0 &&
	       t_pin(dev, other, LEN, 0, &second) >= 0, "memory is pinned");
	record("imported", pin.out_fd);
	record("mapped", second.out_fd);
	map = t_card_map(dev, second.out_fd, LEN, number);
	t_need(map >= 0, "MAP_DEVICE maps some");
	looper.card = t_card_open();
	t_need(!t_card_attach(looper.card, pin.out_fd), "the card is attached");
	pthread_create(&thread, NULL, looper_run, &looper);
	t_ok(t_wait_for(looper.rounds >= 2), "the card writes in a loop");
	t_is(looper.refused, 0, "and may");
	t_is(t_counter("device_maps"), 2, "it is mapped twice");

	began = t_now();
	monitor("device_del %s\n", "card");
	t_ok(t_wait_for(access(path, F_OK)), "the card goes");
	t_note("that took %.0f ms", (t_now() - began) * 1000);
	t_is(t_counter("device_maps"), 0, "nothing is mapped");
	t_ok(t_wait_for(!t_counter("importers")), "nobody is attached");
	t_gpu_set(ptr, CANARY, LEN);
	t_gpu_set(other, CANARY, LEN);
	t_result(t_card_map(dev, second.out_fd, LEN, number), -ENOENT,
		 "there is nothing to map for");
	t_ok(t_wait_for(looper.refused >= 5), "its file still tries");
	looper.stop = true;
	pthread_join(thread, NULL);
	t_result(looper.ret, -ENODEV, "and is told that it has gone");
	close(looper.card);
	close(map);
	close(second.out_fd);
	close(pin.out_fd);
	t_ok(t_wait_for(!t_in_use()), "nothing is held any more");

	third = t_gpu_alloc(LEN);
	t_need(t_pin(dev, third, LEN, 0, &pin) >= 0, "memory is pinned");
	plug_in(pin.out_fd, third);
	close(pin.out_fd);
	t_gpu_free(third);
}

static const struct t_case cases[] = {
	{ "unplugged", unplugged },
};

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	folder = argv[1];
	device = argv[2];
	argc = 1;
	t_gpu_init();
	dev = t_device_open();
	return T_RUN(cases, t_nothing_left);
}
