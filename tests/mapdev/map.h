/* SPDX-License-Identifier: MIT */
/*
 * A buffer, a mapping of it for QEMU's edu card, and the card's way from one
 * mapping to another one.
 */
#ifndef MAP_H
#define MAP_H

#include <errno.h>
#include <sys/ioctl.h>

#include "../t_pin.h"
#include "../t_transfer.h"
#include "edu.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define LEN		(16u * GPU_PAGE)
/* One DMA for each GPU page, across its end where there is a next one. */
#define CHUNKS		(LEN / GPU_PAGE)
/* As many as there are pages, where those are the CPU's. */
#define SEGMENTS	(LEN / PAGE)
#define IOVA		0x20000000ull
#define CANARY		0xc5

static int dev;
static struct edu edu;
/* The card's: "none", peerdma-stub, or another one. */
static const char *driver;
/* Where the GPU's memory begins. */
static uint64_t gpu_bar;

/**
 * struct map - a buffer and a mapping of it
 * @buffer: the buffer
 * @segments: where the device finds it
 * @arg: what the kernel answered
 * @fd: the mapping, or a negative errno
 */
struct map {
	struct t_buffer buffer;
	struct peerdma_device_segment segments[SEGMENTS];
	struct peerdma_map_device arg;
	int fd;
};

static inline bool driver_is_own(void)
{
	return !strcmp(driver, "none") || !strcmp(driver, "peerdma-stub");
}

static inline int map_call(struct peerdma_map_device *arg)
{
	arg->size = sizeof(*arg);
	return ioctl(dev, PEERDMA_MAP_DEVICE, arg) ? -errno : arg->out_fd;
}

/* Map what @map->buffer has from @offset on; its descriptor or an errno. */
static inline int map_part(struct map *map, uint32_t flags, uint64_t offset,
			   uint64_t len, uint64_t iova)
{
	map->arg = (struct peerdma_map_device){
		.flags = flags,
		.buffer_fd = map->buffer.fd,
		.device = edu.number,
		.offset = offset,
		.len = len,
		.iova = iova,
		.segments = (uintptr_t)map->segments,
		.nr_segments = SEGMENTS,
		.out_fd = -1,
	};
	map->fd = map_call(&map->arg);
	return map->fd;
}

static inline void map_make(struct map *map, uint32_t flags, uint64_t iova)
{
	t_buffer_make(&map->buffer, dev, LEN);
	if (map_part(map, flags, 0, LEN, iova) < 0)
		t_need(false, "the buffer is mapped: %s, reason %u",
		       t_errno_name(map->fd), map->arg.out_reason);
}

/* All of @map->buffer, for a card that drives @bits bits of address. */
static inline int map_bits(struct map *map, uint32_t flags, uint32_t bits,
			   uint64_t iova)
{
	map->arg = (struct peerdma_map_device){
		.flags = flags,
		.buffer_fd = map->buffer.fd,
		.device = edu.number,
		.len = LEN,
		.iova = iova,
		.segments = (uintptr_t)map->segments,
		.nr_segments = SEGMENTS,
		.address_bits = bits,
		.out_reason = 99,
	};
	map->fd = map_call(&map->arg);
	return map->fd;
}

/* What an attempt to map @map->buffer once more comes to. */
static inline int map_try(const struct map *map, uint32_t flags, uint64_t iova)
{
	struct map other = { .buffer = map->buffer };
	int ret = map_part(&other, flags, 0, LEN, iova);

	if (ret >= 0)
		close(ret);
	return ret;
}

static inline void map_drop(struct map *map)
{
	if (map->fd >= 0)
		close(map->fd);
	t_buffer_drop(&map->buffer);
}

/* The device's address of a byte, and how many there follow it. */
static inline uint64_t map_addr(const struct map *map, uint64_t offset,
				uint64_t *room)
{
	uint32_t i;

	for (i = 0; i < map->arg.nr_segments; i++) {
		const struct peerdma_device_segment *at = &map->segments[i];

		if (offset < at->len) {
			*room = at->len - offset;
			return at->addr + offset;
		}
		offset -= at->len;
	}
	*room = 0;
	return 0;
}

static inline uint32_t gpu_segments(int fd, struct peerdma_segment *segments)
{
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = fd,
		.nr_segments = SEGMENTS,
		.segments = (uintptr_t)segments,
	};

	t_need(!ioctl(dev, PEERDMA_QUERY, &query), "QUERY answers");
	return query.nr_segments;
}

static inline uint64_t chunk_at(unsigned int chunk)
{
	return (uint64_t)chunk * GPU_PAGE +
	       (chunk + 1 < CHUNKS ? GPU_PAGE - EDU_MEMORY / 2 :
				     GPU_PAGE - EDU_MEMORY);
}

/* Move bytes from one mapping to another one through the card. */
static inline void card_copy(const struct map *from, const struct map *to,
			     uint64_t offset, uint32_t len)
{
	while (len) {
		uint64_t have, room, n = len;
		uint64_t src = map_addr(from, offset, &have);
		uint64_t dst = map_addr(to, offset, &room);

		n = n < have ? n : have;
		n = n < room ? n : room;
		t_need(n, "the mapping has the bytes");
		edu_read(&edu, src, n);
		edu_write(&edu, dst, n);
		offset += n;
		len -= n;
	}
}

static inline void copy_chunks(const struct map *from, const struct map *to)
{
	unsigned int i;

	for (i = 0; i < CHUNKS; i++)
		card_copy(from, to, chunk_at(i), EDU_MEMORY);
}

/* What the copy of @bytes onto CANARYs leaves. */
static inline void expect_chunks(unsigned char *want,
				 const unsigned char *bytes)
{
	unsigned int i;

	memset(want, CANARY, LEN);
	for (i = 0; i < CHUNKS; i++)
		memcpy(want + chunk_at(i), bytes + chunk_at(i), EDU_MEMORY);
}

/* The card stays away from GPU memory that is all CANARY. */
static inline void check_blocked(uint64_t ptr, uint64_t addr, const char *what)
{
	unsigned char *want = t_ram(LEN);

	memset(want, CANARY, LEN);
	t_gpu_set(ptr, CANARY, LEN);
	edu_make_master(&edu);
	edu_write(&edu, addr, EDU_MEMORY);
	t_gpu_same(ptr, want, LEN, "%s: the card's write is blocked", what);
	munmap(want, LEN);
}

/* Where a function's BAR 2 is. */
static inline uint64_t bar_start(const char *name)
{
	char path[64], line[128] = "";
	FILE *file;
	int i;

	pci_path(path, sizeof(path), name, "resource");
	file = fopen(path, "r");
	for (i = 0; file && i < 3; i++)
		if (!fgets(line, sizeof(line), file))
			break;
	if (file)
		fclose(file);
	return strtoull(line, NULL, 0);
}

/* T_DRIVER gets the card. */
static inline void map_prepare(void)
{
	struct peerdma_segment physical[SEGMENTS];
	struct t_buffer any;
	char name[16];
	uint32_t gpu;

	driver = getenv("T_DRIVER");
	t_tap.name = "prepare";
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_gpu_init();
	dev = t_device_open();
	t_need(driver, "the card's driver is named");
	t_need(edu_open(&edu), "the card is found");
	t_need(edu_bind(&edu, driver), "its driver is %s", driver);
	t_need(pci_find("device", 0x1110, name, &gpu), "the GPU is found");
	gpu_bar = bar_start(name);
	t_buffer_make(&any, dev, LEN);
	gpu_segments(any.fd, physical);
	t_need(gpu_bar && physical[0].addr >= gpu_bar, "the GPU's BAR is known");
	t_buffer_drop(&any);
}

#endif /* MAP_H */
