// SPDX-License-Identifier: MIT
/*
 * MAP_DEVICE: a card that user space drives, and what its DMA reaches.
 *
 * usage: moves CASE..., as root, with QEMU's edu card and T_DRIVER its driver.
 * The case "host" leaves in /out/memory where GPU memory holds what, for
 * random(compare-memory) with HOST_SEED.
 */
#define _GNU_SOURCE
#include "map.h"

#define STALE		0x3a
#define HOST_SEED	7

static void check_segments(const struct map *map, bool own)
{
	struct peerdma_segment physical[SEGMENTS];
	uint32_t i, nr = gpu_segments(map->buffer.fd, physical);
	uint64_t high = 0, total = 0;

	t_ok(nr > 4, "the memory is scattered: %u parts", nr);
	t_ok(physical[0].addr >> 32, "and above 4 GiB");
	t_ok(map->arg.nr_segments >= 1 &&
	     map->arg.nr_segments <= (own ? 1 : nr), "segments");
	t_is(map->arg.out_reason, PEERDMA_REASON_NONE, "no reason");
	for (i = 0; i < map->arg.nr_segments; i++) {
		uint64_t last = map->segments[i].addr +
				map->segments[i].len - 1;

		high = last > high ? last : high;
		total += map->segments[i].len;
	}
	t_is(total, LEN, "they hold all bytes");
	t_ok(high <= UINT32_MAX, "below the card's mask");
}

/* Both ways, by an address that was found and one that was chosen. */
static void test_move(void)
{
	bool own = driver_is_own();
	unsigned char *bytes = t_ram(LEN), *want = t_ram(LEN);
	struct map from, to;
	uint64_t addr, room;

	map_make(&from, 0, 0);
	map_make(&to, own ? PEERDMA_MAP_DEVICE_IOVA : 0, own ? IOVA : 0);
	t_is(t_counter("device_maps"), 2, "two mappings are counted");
	t_is(from.arg.out_translated, 1, "an IOMMU translates");
	t_is(fcntl(from.fd, F_GETFD), FD_CLOEXEC, "close-on-exec");
	check_segments(&from, own);
	check_segments(&to, own);
	if (own)
		t_is(to.segments[0].addr, IOVA, "where it was asked for");

	t_fill(bytes, LEN, 5);
	t_gpu_write(from.buffer.ptr, bytes, LEN);
	t_gpu_set(to.buffer.ptr, CANARY, LEN);
	edu_make_master(&edu);
	copy_chunks(&from, &to);
	expect_chunks(want, bytes);
	t_gpu_same(to.buffer.ptr, want, LEN, "the card has copied, no byte more");
	t_gpu_same(from.buffer.ptr, bytes, LEN, "and left the source alone");

	addr = map_addr(&to, 0, &room);
	close(to.fd);
	to.fd = -1;
	t_is(t_counter("device_maps"), 1, "one mapping is closed");
	check_blocked(to.buffer.ptr, addr, "one mapping closed");
	addr = map_addr(&from, 0, &room);
	close(from.fd);
	from.fd = -1;
	if (own)
		t_ok(!edu_is_master(&edu), "the last one ends the mastering");
	check_blocked(from.buffer.ptr, addr, "both closed");
	map_drop(&to);
	map_drop(&from);
	munmap(want, LEN);
	munmap(bytes, LEN);
}

/* Half a page in the middle: exact bytes, and the mapping's own pages only. */
static void test_part(void)
{
	uint64_t offset = 3 * GPU_PAGE - 100, len = 300;
	unsigned char *want = t_ram(LEN);
	uint64_t sum = 0, room;
	struct map map;
	uint32_t i;

	t_buffer_make(&map.buffer, dev, LEN);
	t_need(map_part(&map, 0, offset, len, 0) >= 0, "a part is mapped");
	for (i = 0; i < map.arg.nr_segments; i++)
		sum += map.segments[i].len;
	t_is(sum, len, "300 bytes");
	t_is(map.segments[0].addr % PAGE, PAGE - 100, "as they lie in a page");
	memset(want, CANARY, LEN);
	memset(want + offset, STALE, 100);
	t_gpu_set(map.buffer.ptr, STALE, LEN);
	edu_make_master(&edu);
	edu_read(&edu, map.segments[0].addr, 100);
	t_gpu_set(map.buffer.ptr, CANARY, LEN);
	edu_write(&edu, map_addr(&map, 0, &room), 100);
	t_gpu_same(map.buffer.ptr, want, LEN, "the card writes them");
	edu_write(&edu, map.segments[0].addr - 2 * PAGE, 100);
	t_gpu_same(map.buffer.ptr, want, LEN, "and not what lies before");
	map_drop(&map);
	munmap(want, LEN);
}

static void test_read_only(void)
{
	unsigned char *want = t_ram(LEN);
	struct map map, out;
	uint64_t room;

	map_make(&map, PEERDMA_MAP_DEVICE_READ_ONLY, 0);
	map_make(&out, 0, 0);
	t_gpu_set(map.buffer.ptr, CANARY, LEN);
	t_gpu_set(out.buffer.ptr, STALE, LEN);
	edu_make_master(&edu);
	edu_read(&edu, map_addr(&map, 0, &room), EDU_MEMORY);
	edu_write(&edu, map_addr(&out, 0, &room), EDU_MEMORY);
	memset(want, STALE, LEN);
	memset(want, CANARY, EDU_MEMORY);
	t_gpu_same(out.buffer.ptr, want, LEN, "the card reads it");
	edu_read(&edu, map_addr(&out, EDU_MEMORY, &room), EDU_MEMORY);
	edu_write(&edu, map_addr(&map, 0, &room), EDU_MEMORY);
	memset(want, CANARY, LEN);
	t_gpu_same(map.buffer.ptr, want, LEN, "and cannot write to it");
	map_drop(&out);
	map_drop(&map);
	munmap(want, LEN);
}

/* Where a page of this process lies, for a card whose addresses are the bus's. */
static uint64_t host_address(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	t_need(pread(fd, &entry, 8, (uintptr_t)page / PAGE * 8) == 8 &&
	       entry >> 63, "a page of ours is found");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE;
}

static bool all_canary(const unsigned char *bytes, size_t len)
{
	size_t i, other = 0;

	for (i = 0; i < len; i++)
		other += bytes[i] != CANARY;
	return !other;
}

/*
 * A card goes where it likes: before and behind what it was given, and to a
 * program's memory. Only an IOMMU holds it.
 */
static void test_outside(void)
{
	unsigned char *want = t_ram(LEN), *page = t_ram(PAGE);
	uint64_t addr, low = UINT64_MAX, high = 0, room;
	struct map map;
	uint32_t i;

	t_buffer_make(&map.buffer, dev, LEN);
	t_need(map_bits(&map, 0, getenv("T_WIDE") ? 64 : 0, 0) >= 0,
	       "a buffer is mapped");
	for (i = 0; i < map.arg.nr_segments; i++) {
		addr = map.segments[i].addr;
		low = addr < low ? addr : low;
		addr += map.segments[i].len;
		high = addr > high ? addr : high;
	}
	addr = map_addr(&map, 0, &room);
	t_gpu_set(map.buffer.ptr, STALE, LEN);
	edu_make_master(&edu);
	edu_read(&edu, addr, EDU_MEMORY);
	t_gpu_set(map.buffer.ptr, CANARY, LEN);
	memset(want, CANARY, LEN);
	memset(page, CANARY, PAGE);

	edu_write(&edu, host_address(page), EDU_MEMORY);
	if (map.arg.out_translated) {
		t_ok(all_canary(page, PAGE), "host memory it does not reach");
		edu_write(&edu, high, EDU_MEMORY);
		edu_write(&edu, low - PAGE, EDU_MEMORY);
		t_gpu_same(map.buffer.ptr, want, LEN, "nor what lies around");
	} else {
		t_ok(!all_canary(page, PAGE),
		     "host memory it reaches, with no IOMMU");
	}
	edu_write(&edu, addr, EDU_MEMORY);
	memset(want, STALE, EDU_MEMORY);
	t_gpu_same(map.buffer.ptr, want, LEN, "what it was given it writes");
	map_drop(&map);
	munmap(page, PAGE);
	munmap(want, LEN);
}

/* Bus addresses, for a card that has them all. */
static void test_wide(void)
{
	struct peerdma_segment physical[SEGMENTS];
	unsigned char *bytes = t_ram(LEN), *want = t_ram(LEN);
	struct map from, to;
	uint32_t i, nr, same = 0;
	uint64_t room, addr;

	t_buffer_make(&from.buffer, dev, LEN);
	t_buffer_make(&to.buffer, dev, LEN);
	t_need(map_bits(&from, 0, 64, 0) >= 0 && map_bits(&to, 0, 0, 0) >= 0,
	       "64 bits of address do, and are remembered");
	nr = gpu_segments(to.buffer.fd, physical);
	t_is(to.arg.nr_segments, nr, "as many parts as there are");
	for (i = 0; i < nr; i++)
		same += physical[i].addr == to.segments[i].addr &&
			physical[i].len == to.segments[i].len;
	t_is(same, nr, "where they are");
	t_fill(bytes, LEN, 9);
	t_gpu_write(from.buffer.ptr, bytes, LEN);
	t_gpu_set(to.buffer.ptr, CANARY, LEN);
	edu_make_master(&edu);
	copy_chunks(&from, &to);
	expect_chunks(want, bytes);
	t_gpu_same(to.buffer.ptr, want, LEN, "the card has copied");

	addr = map_addr(&to, 0, &room);
	t_result(t_revoke(dev, to.buffer.fd), 0, "the memory is taken back");
	t_ok(!edu_is_master(&edu), "the card is no longer a bus master");
	t_gpu_set(to.buffer.ptr, CANARY, LEN);
	memset(want, CANARY, LEN);
	edu_write(&edu, addr, EDU_MEMORY);
	t_gpu_same(to.buffer.ptr, want, LEN, "and reaches nothing");
	edu_make_master(&edu);
	close(from.fd);
	from.fd = -1;
	t_ok(!edu_is_master(&edu), "closing ends it, too");
	map_drop(&to);
	map_drop(&from);
	munmap(want, LEN);
	munmap(bytes, LEN);
}

/* As random.c makes them. */
static void random_bytes(uint64_t *words, size_t len)
{
	size_t i;

	for (i = 0; i < len / 8; i++) {
		uint64_t z = HOST_SEED + (i + 1) * 0x9e3779b97f4a7c15ull;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		words[i] = z ^ (z >> 31);
	}
}

/* One run of bytes of the dma-buf, as lines for each part of GPU memory. */
static void tell(FILE *file, const struct map *map, const char *kind,
		 uint64_t offset, uint64_t len)
{
	struct peerdma_segment physical[SEGMENTS];
	uint32_t i, nr = gpu_segments(map->buffer.fd, physical);

	for (i = 0; i < nr; i++) {
		uint64_t start = physical[i].offset;
		uint64_t end = start + physical[i].len;
		uint64_t from = offset > start ? offset : start;
		uint64_t to = offset + len < end ? offset + len : end;

		if (from >= to)
			continue;
		fprintf(file, "%s %llu %llu %llu\n", kind,
			strcmp(kind, "data") ? CANARY : (unsigned long long)from,
			(unsigned long long)(physical[i].addr + from - start -
					     gpu_bar),
			(unsigned long long)(to - from));
	}
}

/* Copy @from to @to through the card, and write down what the host must find. */
static void host_pass(FILE *file, const struct map *from, const struct map *to)
{
	uint64_t *bytes = t_ram(LEN), done = 0;
	unsigned int i;

	random_bytes(bytes, LEN);
	t_gpu_write(from->buffer.ptr, bytes, LEN);
	t_gpu_set(to->buffer.ptr, CANARY, LEN);
	edu_make_master(&edu);
	copy_chunks(from, to);
	tell(file, from, "data", 0, LEN);
	for (i = 0; i < CHUNKS; i++) {
		tell(file, to, "fill", done, chunk_at(i) - done);
		tell(file, to, "data", chunk_at(i), EDU_MEMORY);
		done = chunk_at(i) + EDU_MEMORY;
	}
	t_need(done == LEN, "all of it is written down");
	munmap(bytes, LEN);
}

/*
 * Both ways by both kinds of addresses. Then they are given back, and what the
 * card still writes to the last ones must not be found; where no IOMMU is in
 * between it is no longer a bus master.
 */
static void test_host(void)
{
	bool wide = getenv("T_WIDE");
	uint32_t flags = wide ? 0 : PEERDMA_MAP_DEVICE_IOVA;
	FILE *file = fopen("/out/memory", "w");
	struct map map[4];
	uint64_t addr, room;
	int i;

	t_need(file, "/out/memory is opened");
	for (i = 0; i < 4; i++) {
		bool chosen = !wide && (i == 1 || i == 2);

		t_buffer_make(&map[i].buffer, dev, LEN);
		t_need(map_bits(&map[i], chosen ? flags : 0, wide ? 64 : 0,
				chosen ? IOVA + i * 2 * LEN : 0) >= 0,
		       "buffer %d is mapped", i);
	}
	host_pass(file, &map[0], &map[1]);
	host_pass(file, &map[2], &map[3]);
	fclose(file);

	for (i = 1; i < 4; i += 2) {
		addr = map_addr(&map[i], 0, &room);
		close(map[i].fd);
		map[i].fd = -1;
		if (!wide)
			edu_make_master(&edu);
		t_is(edu_is_master(&edu), !wide, "the card may try");
		edu_write(&edu, addr, EDU_MEMORY);
	}
	for (i = 0; i < 4; i++)
		map_drop(&map[i]);
}

static const struct t_case cases[] = {
	{ "move", test_move },
	{ "part", test_part },
	{ "read-only", test_read_only },
	{ "outside", test_outside },
	{ "wide", test_wide },
	{ "host", test_host },
};

int main(int argc, char **argv)
{
	map_prepare();
	return T_RUN(cases, t_nothing_left);
}
