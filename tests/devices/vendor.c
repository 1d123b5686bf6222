// SPDX-License-Identifier: MIT
/*
 * A card and what NVIDIA's own interfaces tell of GPU memory: raw addresses of the
 * BAR, though an IOMMU translates (open-gpu-kernel-modules#1324), by CUDA's dma-buf
 * and by nvidia_p2p_dma_map_pages(), which consumer/ calls as a third party does.
 * What peerdma gives the card of the same memory at the same time is right.
 *
 * usage: vendor BITS [CASE]...; BITS are the card's address lines
 */
#define _GNU_SOURCE
#include <sys/utsname.h>

#include "consumer/t_consumer.h"
#include "t_card.h"
#include "../t_pin.h"

#define PAGE	4096ull
#define GPU_PAGE	65536ull
#define FILL	0xee
#define SEED	20261

static int dev;
static int bits;

static bool translated(void)
{
	return strcmp(getenv("PEERDMA_IOMMU"), "none");
}

/* Before 7.x only CONFIG_DMABUF_MOVE_NOTIFY, which Debian does not set. */
static bool pins_on_map(void)
{
	struct utsname name;

	uname(&name);
	return atoi(name.release) < 7;
}

static uint64_t filled(uint64_t len)
{
	uint64_t ptr = t_gpu_alloc(len);

	t_gpu_set(ptr, FILL, len);
	return ptr;
}

/*
 * CUDA's own dma-buf under an IOMMU: raw addresses of the BAR, which a card with
 * few address lines cannot even say, and which lead nowhere for another one.
 */
static void vendor_dmabuf(void)
{
	uint64_t ptr = filled(GPU_PAGE);
	int card = t_card_open(), buffer = t_gpu_export(ptr, GPU_PAGE);
	unsigned char data[PAGE], got[PAGE], old[PAGE];
	const char *raw_dma = "/sys/module/simgpu/parameters/raw_dma";
	bool few = bits <= 32;

	t_fill(data, PAGE, SEED);
	memset(old, FILL, PAGE);
	t_need(buffer >= 0, "CUDA makes a dma-buf");
	t_result(t_card_attach(card, buffer), 0, "the card is attached");
	t_result(t_card_write(card, data, PAGE, 0), few ? -ERANGE : (int)PAGE,
		 "raw addresses%s", few ? " are beyond the card" :
		 ", and the card thinks that it writes");
	if (!few) {
		t_gpu_read(got, ptr, PAGE);
		t_same(got, translated() ? old : data, PAGE,
		       translated() ? "but nothing arrives" :
				      "and without an IOMMU it does");
	}
	t_result(t_card_attach(card, -1), -EBADF, "detached");
	t_result(t_write_text(raw_dma, "0"), 0, "the defect is turned off");
	if (!translated() && few && pins_on_map()) {
		t_result(t_card_attach(card, buffer), -ENOMEM,
			 "out of reach is out of memory, when attached already");
	} else if (translated() || !few) {
		t_result(t_card_attach(card, buffer), 0, "the card is attached again");
		t_result(t_card_write(card, data, PAGE, 0), PAGE, "it writes");
		t_gpu_read(got, ptr, PAGE);
		t_same(got, data, PAGE, "it arrives");
	} else {
		t_result(t_card_attach(card, buffer), 0, "the card is attached again");
		t_result(t_card_write(card, data, PAGE, 0), -ENOMEM,
			 "out of reach is out of memory, to this exporter");
	}
	t_result(t_write_text(raw_dma, "1"), 0, "the defect is turned on");
	close(card);
	close(buffer);
	t_is(t_gpu_counter("dma_mappings"), 0, "nothing stays mapped");
	t_gpu_free(ptr);
}

/* By NVIDIA's own interface: the driver's file, and where the card is sent. */
static int vendor_map(uint64_t ptr, uint64_t len, uint64_t *address)
{
	int consumer = open(T_CONSUMER_DEVICE, O_RDWR);
	struct t_consume consume = {
		.addr = ptr,
		.len = len,
		.device = t_card_number(),
	};

	t_need(consumer >= 0 && !ioctl(consumer, T_CONSUME, &consume),
	       "NVIDIA's driver maps it for the card");
	t_is(consume.out_nr, len / GPU_PAGE, "page by page");
	*address = consume.out_addresses[0];
	return consumer;
}

/* By MAP_DEVICE, of the first page; -1 where the card has nothing to go through. */
static int our_map(int buffer, uint64_t *address)
{
	struct peerdma_device_segment segment;
	struct peerdma_map_device map = {
		.size = sizeof(map),
		.buffer_fd = buffer,
		.device = t_card_number(),
		.len = GPU_PAGE,
		.segments = (uintptr_t)&segment,
		.nr_segments = 1,
	};

	if (ioctl(dev, PEERDMA_MAP_DEVICE, &map))
		return -1;
	*address = segment.addr;
	return map.out_fd;
}

static void card_arrives(uint64_t ptr, uint64_t address, bool arrives,
			 const char *what)
{
	unsigned char got[PAGE], old[PAGE], card[PAGE];

	/* What the card's memory has is what the driver sent last. */
	t_fill(card, PAGE, SEED);
	memset(old, FILL, PAGE);
	t_gpu_set(ptr, FILL, PAGE);
	t_card_poke(address, PAGE);
	t_gpu_read(got, ptr, PAGE);
	t_same(got, arrives ? card : old, PAGE, "%s %s", what,
	       arrives ? "arrives" : "leads nowhere");
}

/*
 * NVIDIA's interface gives the card's driver raw addresses of the BAR, though an
 * IOMMU translates; at the same time, of the same memory, ours are right.
 */
static void beside_vendor(bool raw)
{
	uint64_t ptr = filled(2 * GPU_PAGE), theirs, ours, phys;
	unsigned char data[PAGE], got[PAGE];
	int card = t_card_open(), consumer, map;
	struct peerdma_pin pin;

	t_result(t_write_text("/sys/module/simgpu/parameters/raw_dma",
			      raw ? "1" : "0"), 0, "the defect is turned %s",
		 raw ? "on" : "off");
	t_need(t_pin(dev, ptr, 2 * GPU_PAGE, 0, &pin) >= 0, "it is pinned");
	phys = t_physical(dev, pin.out_fd, 0);
	consumer = vendor_map(ptr, 2 * GPU_PAGE, &theirs);
	t_is(theirs == phys, raw || !translated(), "its address is %s",
	     raw || !translated() ? "the BAR's" : "the IOMMU's");
	t_is(t_gpu_counter("dma_mappings"), 1, "and the driver counts it");

	t_result(t_card_attach(card, pin.out_fd), 0, "the card is attached");
	t_fill(data, PAGE, SEED);
	t_result(t_card_write(card, data, PAGE, 0), PAGE, "it writes by ours");
	t_gpu_read(got, ptr, PAGE);
	t_same(got, data, PAGE, "which arrives");
	close(card);
	close(consumer);

	/* None may be left then, the DMA API's debugging says; it is made again. */
	t_result(t_write_text(T_CARD_DRIVER "/unbind", t_card_address()), 0,
		 "the card's driver leaves");
	consumer = vendor_map(ptr, 2 * GPU_PAGE, &theirs);
	card_arrives(ptr, theirs, !raw || !translated(),
		     "what is sent to NVIDIA's address");
	close(consumer);
	t_is(t_gpu_counter("dma_mappings"), 0, "the driver has none left");
	map = our_map(pin.out_fd, &ours);
	if (map < 0) {
		t_skip("MAP_DEVICE", "no IOMMU group without a driver");
	} else {
		t_is(ours == phys, !translated(), "MAP_DEVICE's address is %s",
		     translated() ? "the IOMMU's" : "the BAR's");
		card_arrives(ptr, ours, true, "what is sent to ours");
		close(map);
	}
	t_result(t_write_text(T_CARD_DRIVER "/bind", t_card_address()), 0,
		 "the driver returns");
	t_result(t_write_text("/sys/module/simgpu/parameters/raw_dma", "1"), 0,
		 "the defect is turned on");
	close(pin.out_fd);
	t_gpu_free(ptr);
}

static void beside_the_defect(void)
{
	beside_vendor(true);
}

static void beside_the_cure(void)
{
	beside_vendor(false);
}

static const struct t_case reachable[] = {
	{ "CUDA's dma-buf", vendor_dmabuf },
	{ "NVIDIA's addresses", beside_the_defect },
	{ "NVIDIA's addresses, mended", beside_the_cure },
};

static const struct t_case unreachable[] = {
	{ "CUDA's dma-buf", vendor_dmabuf },
};

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	bits = atoi(argv[1]);
	t_gpu_init();
	dev = t_device_open();
	/* What is left on the command line are names of cases. */
	argc--;
	argv++;
	if (!translated() && bits <= 32)
		return T_RUN(unreachable, t_nothing_left);
	return T_RUN(reachable, t_nothing_left);
}
