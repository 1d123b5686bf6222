// SPDX-License-Identifier: MIT
/*
 * MAP_DEVICE of other exporters' dma-bufs, for QEMU's edu card.
 *
 * usage: mapped DEVICE CASE..., as root: DEVICE is the PCI address of an ivshmem
 * card that no driver has, T_DRIVER the edu card's driver, T_WIDE set where it
 * has all bits of address and no IOMMU is in its way.
 */
#define _GNU_SOURCE
#include <linux/udmabuf.h>
#include <pthread.h>

#include "../mapdev/map.h"
#include "export.h"

#define STALE	0x3a
/* A DMA of the card takes a tenth of a second. */
#define PARTS	4

static const char *name;
static bool wide;

/* All of a dma-buf, which stays the caller's; its descriptor or an errno. */
static int map_fd(struct map *map, int fd, uint32_t flags, uint64_t iova)
{
	map->buffer.fd = fd;
	return map_bits(map, flags, wide ? 64 : 0, iova);
}

static void map_need(struct map *map, int fd, uint32_t flags, uint64_t iova)
{
	if (map_fd(map, fd, flags, iova) < 0)
		t_need(false, "it is mapped: %s, reason %u",
		       t_errno_name(map->fd), map->arg.out_reason);
}

static void map_refused(int fd, int want, uint32_t reason, const char *what)
{
	struct map map;

	t_result(map_fd(&map, fd, 0, 0), want, "%s", what);
	t_is(map.arg.out_reason, reason, "%s: ... the reason", what);
	t_is(t_counter("imports"), 0, "%s: ... nothing is attached", what);
	close(fd);
}

static uint64_t part_at(unsigned int part)
{
	return part * (LEN - EDU_MEMORY) / (PARTS - 1) / PAGE * PAGE;
}

static void copy_parts(const struct map *from, const struct map *to)
{
	unsigned int i;

	edu_make_master(&edu);
	for (i = 0; i < PARTS; i++)
		card_copy(from, to, part_at(i), EDU_MEMORY);
}

/* The card cannot write to what lies at @offset in the BAR. */
static void blocked(uint64_t addr, uint64_t offset, const char *what)
{
	size_t i, bad = 0;

	memset(bar + offset, CANARY, LEN);
	if (!wide)
		edu_make_master(&edu);
	edu_write(&edu, addr, EDU_MEMORY);
	for (i = 0; i < LEN; i++)
		bad += bar[offset + i] != CANARY;
	t_is(bad, 0, "%s: the card writes nothing", what);
}

/* ---- contents ------------------------------------------------------------ */

/* Both ways, by an address that was found and one that was chosen. */
static void moves(uint32_t kind, const char *what)
{
	bool chosen = driver_is_own() && !wide;
	unsigned char *bytes = t_ram(LEN), *want = t_ram(LEN);
	static uint64_t seed = 40;
	uint64_t addr, room;
	struct map from, to;
	unsigned int i;
	int fds[2];

	fds[0] = export_at(kind, PLACE);
	fds[1] = export_at(kind, OTHER);
	map_need(&from, fds[0], PEERDMA_MAP_DEVICE_READ_ONLY, 0);
	map_need(&to, fds[1], chosen ? PEERDMA_MAP_DEVICE_IOVA : 0,
		 chosen ? IOVA : 0);
	t_is(t_counter("imports"), 2, "%s: two are attached", what);
	t_is(t_counter("device_maps"), 2, "%s: two are mapped", what);
	if (chosen)
		t_is(map_addr(&to, 0, &room), IOVA, "... where it was asked for");
	memset(bar + PLACE, STALE, LEN);
	t_fill(bytes, LEN, ++seed);
	memcpy(bar + PLACE, bytes, LEN);
	memcpy(bytes, lying(kind, PLACE), LEN);
	memset(bar + OTHER - PIECE, CANARY, LEN + 2 * PIECE);
	copy_parts(&from, &to);
	memset(want, CANARY, LEN);
	for (i = 0; i < PARTS; i++)
		memcpy(want + part_at(i), bytes + part_at(i), EDU_MEMORY);
	t_same(lying(kind, OTHER), want, LEN, "%s: the card has copied", what);
	t_ok(bar[OTHER - 1] == CANARY && bar[OTHER + LEN] == CANARY,
	     "... and nothing around it is touched");

	/* The mapping holds what it is of. */
	close(fds[1]);
	edu_write(&edu, map_addr(&to, 0, &room), EDU_MEMORY);
	t_same(lying(kind, OTHER), bytes + part_at(PARTS - 1), EDU_MEMORY,
	       "... also when the dma-buf's descriptor is closed");
	addr = map_addr(&to, 0, &room);
	close(to.fd);
	t_is(t_counter("imports"), 1, "closed, it is let go");
	blocked(addr, OTHER, "closed");
	close(from.fd);
	let_go(fds[0], what);
	close(fds[0]);
	munmap(want, LEN);
	munmap(bytes, LEN);
}

static void test_contents(void)
{
	moves(0, "without pins");
	moves(T_EXPORT_RAW | T_EXPORT_SCATTERED, "raw and scattered");
	if (!maps_when_attached())
		moves(T_EXPORT_REVOCABLE, "revocable");
}

static void test_read_only(void)
{
	int fd = export_at(T_EXPORT_READ_ONLY | T_EXPORT_DYNAMIC, PLACE);
	struct map map;
	uint64_t room;

	t_result(map_fd(&map, fd, 0, 0), -EACCES,
		 "a read-only one is not mapped for writing");
	let_go(fd, "refused");
	map_need(&map, fd, PEERDMA_MAP_DEVICE_READ_ONLY, 0);
	if (!wide)
		blocked(map_addr(&map, 0, &room), PLACE, "read-only");
	close(map.fd);
	close(fd);
}

/* ---- what is refused ------------------------------------------------------- */

static int udmabuf_make(void)
{
	struct udmabuf_create create = { .size = LEN };
	int fd, udmabuf = t_open("/dev/udmabuf", O_RDWR);

	if (udmabuf < 0)
		return udmabuf;
	create.memfd = memfd_create("pages", MFD_ALLOW_SEALING);
	t_need(!ftruncate(create.memfd, LEN) &&
	       !fcntl(create.memfd, F_ADD_SEALS, F_SEAL_SHRINK), "RAM");
	fd = ioctl(udmabuf, UDMABUF_CREATE, &create);
	close(create.memfd);
	close(udmabuf);
	return fd;
}

static void test_refused(void)
{
	struct map map = { .buffer.fd = export_at(0, PLACE) };
	int fd = udmabuf_make();

	if (fd < 0)
		t_skip("host RAM", "this kernel has no udmabuf");
	else
		map_refused(fd, -EREMOTEIO, PEERDMA_REASON_FOREIGN_MEMORY,
			    "host RAM");
	map_refused(export_at(T_EXPORT_NO_ATTACH, PLACE), -EREMOTEIO,
		    PEERDMA_REASON_FOREIGN_REFUSED, "no attachment");
	map_refused(export_at(T_EXPORT_NO_MAP, PLACE), -EREMOTEIO,
		    PEERDMA_REASON_FOREIGN_REFUSED, "no mapping");
	map_refused(export_at(T_EXPORT_SHORT, PLACE), -EREMOTEIO,
		    PEERDMA_REASON_FOREIGN_ADDRESSES, "a page less");
	map_refused(export_at(T_EXPORT_HOST_TAIL, PLACE), -EREMOTEIO,
		    PEERDMA_REASON_FOREIGN_MEMORY, "a piece of host RAM");
	t_result(map_part(&map, 0, LEN, 1, 0), -ERANGE, "past the end");
	t_result(map_part(&map, 0, 0, LEN + 1, 0), -ERANGE, "too much");
	edu.number ^= 0x4000;
	t_result(map_part(&map, 0, 0, LEN, 0), -ENOENT, "no such card");
	edu.number ^= 0x4000;
	let_go(map.buffer.fd, "refused");
	close(map.buffer.fd);
}

/* Nothing could stop the card: what may be taken back is not for it. */
static void test_unstoppable(void)
{
	uint64_t bar_at = bar_start(name);
	int fd = export_at(T_EXPORT_DYNAMIC, PLACE);
	struct map map;
	uint64_t room;

	if (bar_at >> 32) {
		map_refused(fd, -EREMOTEIO, PEERDMA_REASON_DMA_MASK,
			    "what stays, above the card's mask");
	} else {
		map_need(&map, fd, 0, 0);
		t_is(map_addr(&map, 0, &room), bar_at + PLACE,
		     "what stays is mapped");
		close(map.fd);
		close(fd);
	}
	map_refused(export_at(T_EXPORT_DYNAMIC | T_EXPORT_NO_PROMISE, PLACE),
		    -EREMOTEIO, PEERDMA_REASON_FOREIGN_REVOCABLE,
		    "what may move");
	if (!maps_when_attached())
		map_refused(export_at(T_EXPORT_REVOCABLE, PLACE), -EREMOTEIO,
			    PEERDMA_REASON_FOREIGN_REVOCABLE,
			    "what may be taken back");
}

/* ---- taken back while the card works --------------------------------------- */

static void *writer_run(void *addr)
{
	int i;

	for (i = 0; i < 8; i++) {
		edu_set(&edu, EDU_SRC, EDU_AT);
		edu_set(&edu, EDU_DST, *(uint64_t *)addr);
		edu_set(&edu, EDU_COUNT, EDU_MEMORY);
		edu_set(&edu, EDU_COMMAND, EDU_TO_HOST | EDU_START);
		while (edu_busy(&edu))
			t_sleep_ms(1);
	}
	return NULL;
}

static void taken(uint32_t kind, bool revoke, const char *what)
{
	int fd = export_at(kind, PLACE);
	struct t_move moved;
	size_t i, bad = 0;
	pthread_t thread;
	uint64_t addr, room;
	struct map map;

	map_need(&map, fd, 0, 0);
	addr = map_addr(&map, 0, &room);
	memset(bar + OTHER, STALE, LEN);
	memset(bar + PLACE, STALE, LEN);
	edu_make_master(&edu);
	edu_read(&edu, addr, EDU_MEMORY);
	memset(bar + PLACE, CANARY, LEN);
	pthread_create(&thread, NULL, writer_run, &addr);
	t_ok(t_wait_for(*(volatile unsigned char *)(bar + PLACE) == STALE),
	     "%s: the card writes", what);
	moved = move_to(fd, OTHER, revoke);
	memset(bar + PLACE, CANARY, LEN);
	t_is(t_counter("device_maps"), 0, "%s: the mapping is no more", what);
	if (!maps_when_attached() || kind & T_EXPORT_DYNAMIC)
		t_is(moved.out_mappings, 0, "%s: nor the exporter's", what);
	pthread_join(thread, NULL);
	for (i = 0; i < LEN; i++)
		bad += bar[PLACE + i] != CANARY;
	t_is(bad, 0, "%s: no byte of the old place has changed", what);
	close(map.fd);
	let_go(fd, what);
	if (revoke) {
		t_result(map_fd(&map, fd, 0, 0), -ENODEV,
			 "%s: there is no other one", what);
	} else {
		map_need(&map, fd, 0, 0);
		edu_make_master(&edu);
		edu_write(&edu, map_addr(&map, 0, &room), EDU_MEMORY);
		memset(bar + PLACE, STALE, EDU_MEMORY);
		t_same(bar + OTHER, bar + PLACE, EDU_MEMORY,
		       "%s: mapped again it is where it has gone", what);
		close(map.fd);
	}
	blocked(addr, PLACE, what);
	close(fd);
}

static void test_taken(void)
{
	taken(0, false, "moved");
	taken(T_EXPORT_DYNAMIC, false, "moved though pinned");
	taken(0, true, "revoked");
	if (!maps_when_attached())
		taken(T_EXPORT_REVOCABLE, true, "revocable");
}

/* ---- a stand-in's driver goes ---------------------------------------------- */

static void test_stand_in(void)
{
	int fd = export_at(T_EXPORT_DRIVES, PLACE);
	char drive[16], other[16];
	uint64_t addr, room;
	struct map map;

	map_need(&map, fd, 0, 0);
	addr = map_addr(&map, 0, &room);
	stand_in(drive);
	t_ok(pci_value(drive, "class") >> 8 == 0x0108, "%s stands in", drive);
	t_write_text("/sys/bus/pci/drivers/nvme/unbind", drive);
	t_is(t_counter("device_maps"), 0, "its driver goes, and the mapping");
	t_is(ask(fd).out_attachments, 0, "nothing is attached to it");
	blocked(addr, PLACE, "its driver is gone");
	close(map.fd);
	map_need(&map, fd, 0, 0);
	stand_in(other);
	t_ok(*other && strcmp(drive, other), "the next one takes %s", other);
	t_write_text("/sys/bus/pci/drivers/nvme/bind", drive);
	t_is(t_counter("device_maps"), 1, "that a driver comes is no matter");
	close(map.fd);
	let_go(fd, "closed");
	close(fd);
}

/* ---- the simulated GPU's own exporter --------------------------------------- */

static void gpu_moves(const char *raw, const char *what)
{
	unsigned char *bytes = t_ram(LEN), *want = t_ram(LEN);
	uint64_t ptrs[2] = { t_gpu_alloc(LEN), t_gpu_alloc(LEN) };
	struct map maps[2];
	unsigned int i;
	char found[16];

	t_need(!t_write_text("/sys/module/simgpu/parameters/raw_dma", raw),
	       "raw_dma is set");
	for (i = 0; i < 2; i++)
		map_need(&maps[i], t_gpu_export(ptrs[i], LEN), 0, 0);
	stand_in(found);
	if (!wide)
		t_is(pci_value(found, "device"), 0x1110,
		     "%s: the GPU itself stands in", what);
	t_fill(bytes, LEN, 71);
	t_gpu_write(ptrs[0], bytes, LEN);
	t_gpu_set(ptrs[1], CANARY, LEN);
	copy_parts(&maps[0], &maps[1]);
	memset(want, CANARY, LEN);
	for (i = 0; i < PARTS; i++)
		memcpy(want + part_at(i), bytes + part_at(i), EDU_MEMORY);
	t_gpu_same(ptrs[1], want, LEN, "%s: the card has copied", what);
	for (i = 0; i < 2; i++) {
		close(maps[i].buffer.fd);
		close(maps[i].fd);
		t_gpu_free(ptrs[i]);
	}
	t_is(t_gpu_counter("dma_mappings"), 0, "%s: it is let go", what);
	t_write_text("/sys/module/simgpu/parameters/raw_dma", "1");
	munmap(want, LEN);
	munmap(bytes, LEN);
}

static void test_gpu(void)
{
	gpu_moves("1", "raw");
	gpu_moves("0", "mapped");
}

/* ---- for the host ------------------------------------------------------------ */

/* The card copies the first pages of what is at PLACE. */
static void test_host(void)
{
	int fds[2] = { export_at(0, PLACE), export_at(0, OTHER) };
	struct map from, to;
	int i;

	memset(bar + OTHER, CANARY, LEN);
	map_need(&from, fds[0], 0, 0);
	map_need(&to, fds[1], 0, 0);
	edu_make_master(&edu);
	for (i = 0; i < 4; i++)
		card_copy(&from, &to, i * EDU_MEMORY, EDU_MEMORY);
	t_same(bar + OTHER, bar + PLACE, 4 * EDU_MEMORY, "the card has copied");
	close(from.fd);
	close(to.fd);
	close(fds[0]);
	close(fds[1]);
}

static const struct t_case cases[] = {
	{ "contents", test_contents },
	{ "read-only", test_read_only },
	{ "refused", test_refused },
	{ "unstoppable", test_unstoppable },
	{ "taken", test_taken },
	{ "stand-in", test_stand_in },
	{ "gpu", test_gpu },
	{ "host", test_host },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	if (argc < 3)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	driver = getenv("T_DRIVER");
	wide = getenv("T_WIDE");
	t_gpu_init();
	dev = t_device_open();
	t_need(driver && edu_open(&edu) && edu_bind(&edu, driver),
	       "the card is found, and its driver is %s", driver);
	name = argv[1];
	exporter_open(name);
	argc--;
	argv++;
	return T_RUN(cases, t_nothing_left);
}
