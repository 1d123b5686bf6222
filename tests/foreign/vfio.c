// SPDX-License-Identifier: MIT
/*
 * FILE_IO and MAP_DEVICE with what vfio-pci exports, and what iommufd makes of our
 * dma-bufs.
 *
 * usage: vfio DEVICE FILE [CASE...], as root: DEVICE is the PCI address of an
 * ivshmem card that vfio-pci drives, behind an IOMMU; FILE is on a file system
 * that does unbuffered I/O. The first 16 MiB of drive 0 are written over.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "../mapdev/edu.h"
#include "../t_pages.h"

#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define LEN	(4ull << 20)
#define PLACE	(16ull << 20)
#define CANARY	0xc5

/* Since 6.19. */
#define FEATURE_DMA_BUF	11

struct dma_range {
	uint64_t offset;
	uint64_t length;
};

/* A struct vfio_device_feature and what its end stands for. */
struct feature_dma_buf {
	uint32_t argsz;
	uint32_t feature_flags;
	uint32_t region_index;
	uint32_t open_flags;
	uint32_t flags;
	uint32_t nr_ranges;
	struct dma_range ranges[1];
};

/* Since 6.13. */
#define IOAS_MAP_FILE	_IO(IOMMUFD_TYPE, 0x8f)

struct map_file {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	int32_t fd;
	uint64_t start;
	uint64_t length;
	uint64_t iova;
};

static int dev, drive, container, card;
static const char *name, *regular;
static unsigned char *bar, *ram;
static uint64_t config;

static void open_card(void)
{
	struct vfio_region_info info = { .argsz = sizeof(info) };
	char path[PATH_MAX], link[PATH_MAX];
	ssize_t len;
	int group;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group",
		 name);
	len = readlink(path, link, sizeof(link) - 1);
	t_need(len > 0, "the card has a group");
	link[len] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(link, '/') + 1);
	container = t_open("/dev/vfio/vfio", O_RDWR);
	group = t_open(path, O_RDWR);
	t_need(container >= 0 && group >= 0 &&
	       !ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) &&
	       !ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU),
	       "its group is opened");
	card = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
	t_need(card >= 0, "it is opened");

	info.index = VFIO_PCI_CONFIG_REGION_INDEX;
	t_need(!ioctl(card, VFIO_DEVICE_GET_REGION_INFO, &info), "its registers");
	config = info.offset;
	info.index = VFIO_PCI_BAR2_REGION_INDEX;
	t_need(!ioctl(card, VFIO_DEVICE_GET_REGION_INFO, &info), "its memory");
	bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, card,
		   info.offset);
	t_need(bar != MAP_FAILED, "its memory is mapped");
}

/* Without its memory a card's dma-bufs are taken back, and can be had again. */
static void memory_on(bool on)
{
	uint16_t command;

	t_need(pread(card, &command, 2, config + PCI_COMMAND) == 2,
	       "the command register is read");
	command = on ? command | PCI_COMMAND_MEMORY :
		  command & ~PCI_COMMAND_MEMORY;
	t_need(pwrite(card, &command, 2, config + PCI_COMMAND) == 2,
	       "the card's memory is turned %s", on ? "on" : "off");
}

/* One range: behind an IOMMU 7.2 maps every range to the same addresses. */
static int export_piece(void)
{
	struct feature_dma_buf arg = {
		.argsz = sizeof(arg),
		.feature_flags = VFIO_DEVICE_FEATURE_GET | FEATURE_DMA_BUF,
		.region_index = VFIO_PCI_BAR2_REGION_INDEX,
		.open_flags = O_RDWR | O_CLOEXEC,
		.nr_ranges = 1,
		.ranges = { { PLACE, LEN } },
	};
	int fd = ioctl(card, VFIO_DEVICE_FEATURE, &arg);

	t_need(fd >= 0, "vfio-pci exports");
	return fd;
}

static void fill_drive(uint64_t seed)
{
	t_fill(ram, LEN, seed);
	t_need(pwrite(drive, ram, LEN, 0) == (ssize_t)LEN,
	       "the drive is filled");
}

static void test_contents(void)
{
	int fd = export_piece();
	struct peerdma_file_io io;

	fill_drive(1);
	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), 0, "asked");
	t_is(io.out_reason, PEERDMA_REASON_NONE, "... the reason");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, LEN), LEN, "read");
	t_same(bar + PLACE, ram, LEN, "it is in the BAR");
	t_result(t_move_one(dev, T_WRITE, fd, drive, LEN, 0, LEN), LEN,
		 "written");
	t_need(pread(drive, ram + LEN, LEN, LEN) == (ssize_t)LEN,
	       "it is read back");
	t_same(ram + LEN, ram, LEN, "it is on the drive");
	close(fd);
}

static void test_regular_file(void)
{
	int fd = export_piece(), file;
	struct peerdma_file_io io;

	fill_drive(2);
	file = t_file_make(regular, ram, LEN);
	t_result(t_move(dev, T_READ, fd, file, NULL, 0, &io), -EREMOTEIO,
		 "a regular file");
	t_is(io.out_reason, PEERDMA_REASON_FOREIGN_REVOCABLE, "... says why");
	close(file);
	close(fd);
}

static void *mover_run(void *data)
{
	struct peerdma_file_segment segments[8];
	struct peerdma_file_io io;
	long result;
	int i;

	for (i = 0; i < 8; i++)
		segments[i] = (struct peerdma_file_segment){
			i * LEN / 8, i * LEN / 8, LEN / 8, 0,
		};
	do {
		result = t_move(dev, T_READ, *(int *)data, drive, segments, 8,
				&io);
	} while (!result);
	return (void *)result;
}

static void test_taken_back(void)
{
	int fd = export_piece();
	pthread_t moving;
	void *result;
	size_t i, bad = 0;

	fill_drive(3);
	pthread_create(&moving, NULL, mover_run, &fd);
	t_ok(t_wait_for(t_counter("file_ios") == 1), "a read is under way");
	t_sleep_ms(50);
	memory_on(false);
	pthread_join(moving, &result);
	t_result((long)result, -ENODEV, "it is cut off");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, LEN), -ENODEV,
		 "and no other begins");
	memory_on(true);
	memset(bar + PLACE, CANARY, LEN);
	t_sleep_ms(50);
	for (i = 0; i < LEN; i++)
		bad += bar[PLACE + i] != CANARY;
	t_is(bad, 0, "nothing is written any more");
	t_result(t_move_one(dev, T_READ, fd, drive, 0, 0, LEN), LEN,
		 "with its memory on again it moves");
	t_same(bar + PLACE, ram, LEN, "it is in the BAR");
	close(fd);
}

/* The card's memory is turned off under another card's mapping of it. */
static void test_mapped(void)
{
	struct peerdma_device_segment at;
	struct peerdma_map_device map = {
		.size = sizeof(map),
		.flags = PEERDMA_MAP_DEVICE_IOVA,
		.buffer_fd = export_piece(),
		.len = LEN,
		.iova = 1 << 30,
		.segments = (uintptr_t)&at,
		.nr_segments = 1,
	};
	struct peerdma_page_map pages;
	unsigned char *want = t_ram(LEN);
	struct edu edu;

	t_need(edu_open(&edu) && edu_bind(&edu, "peerdma-stub"), "a card");
	map.device = edu.number;
	t_fill(bar + PLACE, LEN, 12);
	memcpy(want, bar + PLACE, LEN);
	t_result(ioctl(dev, PEERDMA_MAP_DEVICE, &map) ? -errno : 0, 0,
		 "it is mapped");
	edu_make_master(&edu);
	edu_read(&edu, map.iova, EDU_MEMORY);
	edu_write(&edu, map.iova + LEN / 2, EDU_MEMORY);
	memcpy(want + LEN / 2, want, EDU_MEMORY);
	t_same(bar + PLACE, want, LEN, "the other card has copied");
	memory_on(false);
	t_is(t_counter("device_maps"), 0, "without memory no mapping is left");
	memory_on(true);
	memset(bar + PLACE, CANARY, LEN);
	memset(want, CANARY, LEN);
	edu_write(&edu, map.iova, EDU_MEMORY);
	t_same(bar + PLACE, want, LEN, "and the other card writes nothing");
	close(map.out_fd);
	t_result(t_pages(dev, map.buffer_fd, 0, &pages), -EREMOTEIO, "PAGES");
	t_is(pages.out_reason, PEERDMA_REASON_FOREIGN_REVOCABLE,
	     "... says why not");
	close(map.buffer_fd);
	munmap(want, LEN);
}

/* iommufd attaches what is no PCI device, and takes vfio-pci's dma-bufs alone. */
static void test_iommufd(void)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	struct map_file map = { .size = sizeof(map), .length = LEN };
	int iommu = t_open("/dev/iommu", O_RDWR);
	struct t_buffer buffer;

	if (iommu < 0) {
		t_skip("iommufd", "not in this kernel");
		return;
	}
	t_buffer_make(&buffer, dev, LEN);
	t_need(!ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc), "an address space");
	map.flags = IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;
	map.ioas_id = alloc.out_ioas_id;
	map.fd = buffer.fd;
	t_result(ioctl(iommu, IOAS_MAP_FILE, &map) ? -errno : 0, -EREMOTEIO,
		 "iommufd takes none of ours");
	t_is(t_counter("importers"), 0, "and is not attached");
	close(iommu);
	t_buffer_drop(&buffer);
}

static const struct t_case cases[] = {
	{ "contents", test_contents },
	{ "regular file", test_regular_file },
	{ "taken back", test_taken_back },
	{ "mapped", test_mapped },
	{ "iommufd", test_iommufd },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	if (argc < 3)
		return 2;
	name = argv[1];
	regular = argv[2];
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	open_card();
	memory_on(true);
	ram = t_ram(2 * LEN);
	argc -= 2;
	argv += 2;
	return T_RUN(cases, t_nothing_left);
}
