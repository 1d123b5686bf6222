// SPDX-License-Identifier: MIT
/*
 * A card that nobody has stopped, when its memory is unmapped: from the moment that
 * the unmapping returns it does not get there, though Linux's lazy mode would leave
 * the addresses in the IOMMU's cache for some milliseconds. The card's DMA is begun
 * before the unmapping, so that it comes soon after; one that came too early does
 * not count.
 *
 * usage: unmapped, the card being bound to peerdma-stub and translated
 */
#define _GNU_SOURCE
#include "importer/t_importer.h"
#include "t_card.h"
#include "t_trace.h"
#include "../t_clock.h"
#include "../t_pin.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define FILL		0xee
#define ROUNDS		24
/* Linux's lazy mode empties the cache after so long, in seconds. */
#define LAZY		0.010

static int dev, buffer;
static uint32_t card;
static volatile uint64_t *regs;
static uint64_t physical;
static unsigned char old[PAGE];
/* What the unmapping takes, and how long the engine waits before it begins. */
static double unmapping, engine;

static int map_device(uint64_t *address)
{
	struct peerdma_device_segment segment;
	struct peerdma_map_device map = {
		.size = sizeof(map),
		.buffer_fd = buffer,
		.device = card,
		.len = GPU_PAGE,
		.segments = (uintptr_t)&segment,
		.nr_segments = 1,
	};

	if (ioctl(dev, PEERDMA_MAP_DEVICE, &map))
		t_need(false, "MAP_DEVICE: %s", t_errno_name(-errno));
	*address = segment.addr;
	return map.out_fd;
}

static int map_by_importer(uint64_t *address)
{
	struct t_import arg = {
		.fd = buffer, .flags = T_IMPORT_STATIC, .device = card,
	};
	int fd = open("/dev/t_importer", O_RDWR | O_CLOEXEC);

	/* Older kernels map for static importers when these attach. */
	if (fd < 0 || t_trace_maps(true) || ioctl(fd, T_IMPORT, &arg) ||
	    ioctl(fd, T_IMPORT_MAP) || t_trace_maps(false))
		t_need(false, "an importer: %s", t_errno_name(-errno));
	*address = t_traced_address(physical);
	return fd;
}

static bool is_untouched(uint64_t ptr)
{
	unsigned char got[PAGE];

	t_gpu_read(got, ptr, PAGE);
	return !memcmp(got, old, PAGE);
}

/* Whether the card has written, and then what was there before. */
static bool reaches(uint64_t ptr, uint64_t address)
{
	double start = t_now();
	bool touched;

	t_card_start(regs, address, PAGE);
	while (t_card_is_busy(regs))
		;
	engine = t_now() - start;
	touched = !is_untouched(ptr);
	t_gpu_write(ptr, old, PAGE);
	return touched;
}

/*
 * The memory is unmapped so long before the card's DMA is due.
 * Return: -1: the card was there first; 0: it did not get there; 1: it did.
 */
static int unmap_before(uint64_t ptr, uint64_t address, int fd, double early)
{
	double begin, until = t_now() + engine - unmapping - early;

	t_card_start(regs, address, PAGE);
	while (t_now() < until)
		;
	begin = t_now();
	close(fd);
	unmapping = t_now() - begin;
	if (!is_untouched(ptr))
		return -1;
	while (t_card_is_busy(regs))
		;
	return !is_untouched(ptr);
}

/* @map gives the card an address, for as long as the descriptor is open. */
static void check(int (*map)(uint64_t *address))
{
	uint64_t ptr = t_gpu_alloc(GPU_PAGE), address;
	int i, ret, counted = 0, in_time = 0, late = 0;
	struct peerdma_pin pin;

	buffer = t_pin(dev, ptr, GPU_PAGE, 0, &pin);
	t_need(buffer >= 0, "it is pinned");
	physical = t_physical(dev, buffer, 0);
	memset(old, FILL, PAGE);
	unmapping = 0;
	for (i = 0; i < ROUNDS || (!counted && i < 20 * ROUNDS); i++) {
		int fd = map(&address);

		t_gpu_write(ptr, old, PAGE);
		in_time += t_card_be_master() && reaches(ptr, address);
		ret = unmap_before(ptr, address, fd, LAZY * (i % 8) / 8);
		counted += ret >= 0;
		late += ret > 0;
		t_gpu_write(ptr, old, PAGE);
	}
	t_is(in_time, i, "the card gets there while it is mapped");
	t_ok(counted > 0, "... was late %d times of %d", counted, i);
	t_is(late, 0, "... and never got there");
	close(buffer);
	t_gpu_free(ptr);
}

static void mapped(void)
{
	check(map_device);
}

static void imported(void)
{
	check(map_by_importer);
}

static const struct t_case cases[] = {
	{ "mapped", mapped },
	{ "imported", imported },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_gpu_init();
	dev = t_device_open();
	card = t_card_number();
	regs = t_card_registers();
	return T_RUN(cases, t_nothing_left);
}
