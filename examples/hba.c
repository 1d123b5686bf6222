// SPDX-License-Identifier: MIT
/*
 * A card's DMA into GPU memory at addresses that were chosen for it.
 *
 * The flow is that of AFHBA404, whose card drives 32 bits of address: pin GPU
 * memory, map it for the card at the low address that the card is set up for, run
 * the DMA, let go. QEMU's edu is the card here, driven from user space by its
 * registers. What is better:
 *
 * - GPU pages lie anywhere, and are contiguous for the card. AFHBA404 presumes
 *   that they follow the first one.
 * - The addresses are in an IOMMU domain that belongs to the card's owner; whatever
 *   is reserved there, or in use, is refused before it is mapped.
 * - The mapping is a descriptor: closed, or its process killed, or the memory
 *   taken back, and the card reaches nothing. AFHBA404's stays until its module
 *   goes, over memory that may be another's by then.
 *
 * The card first goes to the driver that does nothing (README.md, "hba").
 * usage: hba DOMAIN:BUS:DEVICE.FUNCTION, as root
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <peerdma.h>
#include <peerdma/uapi.h>

#define LEN		(1u << 20)
#define IOVA		0x20000000ull
#define GPU_PAGE	65536u

/* docs/specs/edu.rst of QEMU: a DMA engine with 4 KiB of memory. */
#define CARD_MEMORY	0x40000u
#define CARD_LEN	4096u
#define CARD_SRC	0x80
#define CARD_DST	0x88
#define CARD_COUNT	0x90
#define CARD_COMMAND	0x98
#define CARD_START	1u
#define CARD_TO_HOST	2u

static volatile unsigned char *card;
static unsigned char bytes[LEN], got[LEN];

static void check(int err, const char *what, const char *remedy)
{
	if (err >= 0)
		return;
	fprintf(stderr, "hba: %s: %s; %s\n", what, strerror(-err), remedy);
	exit(1);
}

static int open_card_file(const char *name, const char *file)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", name, file);
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	check(fd < 0 ? -errno : 0, path, "name an edu card, as root");
	return fd;
}

static void open_card(const char *name)
{
	int fd = open_card_file(name, "resource0");

	card = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(card == MAP_FAILED ? -errno : 0, "the card's registers",
	      "is the kernel locked down?");
	close(fd);
}

/* Memory decoding and bus mastering, which a driver would turn on. */
static void start_card(const char *name)
{
	int fd = open_card_file(name, "config");
	uint16_t command = 0;

	check(pread(fd, &command, 2, 4) == 2 ? 0 : -EIO, "config space",
	      "run it as root");
	command |= 6;
	check(pwrite(fd, &command, 2, 4) == 2 ? 0 : -EIO, "config space",
	      "is the kernel locked down?");
	close(fd);
}

static void run_card(uint64_t src, uint64_t dst, uint64_t command)
{
	*(volatile uint64_t *)(card + CARD_SRC) = src;
	*(volatile uint64_t *)(card + CARD_DST) = dst;
	*(volatile uint64_t *)(card + CARD_COUNT) = CARD_LEN;
	*(volatile uint64_t *)(card + CARD_COMMAND) = command | CARD_START;
	while (*(volatile uint64_t *)(card + CARD_COMMAND) & CARD_START)
		;
}

/* In the card's addresses: GPU memory to the card to GPU memory. */
static void move(uint64_t from, uint64_t to)
{
	run_card(from, CARD_MEMORY, 0);
	run_card(CARD_MEMORY, to, CARD_TO_HOST);
}

/* One contiguous part, or it fails. */
static int map_for_card(struct peerdma_buffer *buffer, uint32_t device)
{
	struct peerdma_device_segment segment;
	struct peerdma_map_device map = {
		.size = sizeof(map),
		.flags = PEERDMA_MAP_DEVICE_IOVA,
		.buffer_fd = peerdma_buffer_fd(buffer),
		.device = device,
		.len = LEN,
		.iova = IOVA,
		.segments = (uintptr_t)&segment,
		.nr_segments = 1,
	};
	int dev = open("/dev/peerdma", O_RDWR | O_CLOEXEC);
	int failed = ioctl(dev, PEERDMA_MAP_DEVICE, &map);

	if (failed && errno == EREMOTEIO) {
		fprintf(stderr, "hba: the card cannot have this address: %s\n",
			peerdma_reason_string(map.out_reason));
		exit(1);
	}
	check(failed ? -errno : 0, "MAP_DEVICE", errno == EBUSY ?
	      "give the card to peerdma-stub, see README.md" :
	      errno == EPERM ? "run it as root" : "choose another address");
	close(dev);
	printf("the card sees %llu KiB of GPU memory at %#llx\n",
	       (unsigned long long)segment.len >> 10,
	       (unsigned long long)segment.addr);
	return map.out_fd;
}

static void compare(struct peerdma_buffer *buffer, const char *what)
{
	check(peerdma_buffer_copy_out(buffer, 0, got, LEN),
	      "cannot copy from the GPU", "see the kernel's log");
	if (memcmp(got, bytes, LEN)) {
		fprintf(stderr, "hba: not so: %s; this is a bug\n", what);
		exit(1);
	}
	printf("%s\n", what);
}

int main(int argc, char **argv)
{
	/* Across the ends of GPU pages, which lie apart. */
	const uint64_t from = GPU_PAGE - CARD_LEN / 2;
	const uint64_t to = 8 * GPU_PAGE - CARD_LEN / 2;
	unsigned int domain, bus, slot, function, i;
	struct peerdma_buffer *buffer;
	struct peerdma *ctx;
	int mapping;

	if (argc != 2 || sscanf(argv[1], "%x:%x:%x.%x", &domain, &bus, &slot,
				&function) != 4) {
		fprintf(stderr, "usage: hba DOMAIN:BUS:DEVICE.FUNCTION\n");
		return 2;
	}
	check(peerdma_open(&ctx, NULL), "peerdma_open()", "free some memory");
	check(peerdma_buffer_alloc(ctx, LEN, NULL, &buffer),
	      "GPU memory", "ask: peerdma info");
	for (i = 0; i < LEN; i++)
		bytes[i] = (i * 2654435761u) >> 24;
	check(peerdma_buffer_copy_in(buffer, 0, bytes, LEN),
	      "cannot copy to the GPU", "see the kernel's log");

	open_card(argv[1]);
	mapping = map_for_card(buffer, PEERDMA_DEVICE(domain, bus, slot,
						      function));
	start_card(argv[1]);
	move(IOVA + from, IOVA + to);
	memcpy(bytes + to, bytes + from, CARD_LEN);
	compare(buffer, "the card has copied 4 KiB from GPU memory to GPU memory");

	close(mapping);
	start_card(argv[1]);
	run_card(CARD_MEMORY, IOVA, CARD_TO_HOST);
	compare(buffer, "unmapped: the card writes, and GPU memory stays as it is");
	peerdma_buffer_close(buffer);
	peerdma_close(ctx);
	return 0;
}
