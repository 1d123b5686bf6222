// SPDX-License-Identifier: MIT
/*
 * MAP_DEVICE: what is not mapped, and the errno for it.
 *
 * usage: refused CASE..., as root, with QEMU's edu card and T_DRIVER its driver
 */
#define _GNU_SOURCE
#include <limits.h>

#include "map.h"

static int at(struct map *map, uint64_t iova)
{
	return map_try(map, PEERDMA_MAP_DEVICE_IOVA, iova);
}

static void test_chosen(void)
{
	struct map map;

	map_make(&map, PEERDMA_MAP_DEVICE_IOVA, IOVA);
	t_result(at(&map, IOVA + LEN + 1), -EINVAL, "an odd address");
	t_result(at(&map, IOVA + LEN + 512), -EINVAL, "a part of a page");
	t_result(at(&map, 0xfee00000), -EADDRNOTAVAIL, "the interrupts' place");
	t_result(at(&map, 0xfee00000 - LEN + PAGE), -EADDRNOTAVAIL,
		 "a page of the interrupts'");
	t_result(at(&map, IOVA), -EADDRINUSE, "where the first one is");
	t_result(at(&map, IOVA + LEN - PAGE), -EADDRINUSE, "its last page");
	t_result(at(&map, IOVA - LEN + PAGE), -EADDRINUSE, "its first page");
	t_result(at(&map, IOVA - LEN) < 0, 0, "just before it");
	t_result(at(&map, IOVA + LEN) < 0, 0, "just behind it");
	t_result(at(&map, 1ull << 32), -EDOM, "above the card's mask");
	t_result(at(&map, (1ull << 32) - LEN + PAGE), -EDOM,
		 "a page above the card's mask");
	t_result(at(&map, 1ull << 60), -EDOM, "where no IOMMU maps");
	t_result(at(&map, -(uint64_t)LEN), -EDOM, "at the end of all");
	t_result(at(&map, -(uint64_t)PAGE), -EOVERFLOW, "beyond it");
	t_is(t_counter("device_maps"), 1, "the first one is as it was");
	map_drop(&map);
}

/* The address bits are the stub's; the IOMMU has its own end. */
static void test_bits(void)
{
	struct peerdma_device_segment segment;
	struct peerdma_map_device arg = {
		.flags = PEERDMA_MAP_DEVICE_IOVA,
		.device = edu.number,
		.len = LEN,
		.iova = 1ull << 33,
		.segments = (uintptr_t)&segment,
		.nr_segments = 1,
		.address_bits = 64,
	};
	struct t_buffer buffer;
	int fd;

	t_buffer_make(&buffer, dev, LEN);
	arg.buffer_fd = buffer.fd;
	fd = map_call(&arg);
	t_ok(fd >= 0, "a 64-bit device has addresses above 4 GiB");
	close(fd);
	arg.iova = 1ull << 63;
	t_result(map_call(&arg), -EDOM, "the IOMMU has not all of them");
	arg.iova = 1ull << 24;
	arg.address_bits = 24;
	t_result(map_call(&arg), -EDOM, "a 24-bit device ends there");
	arg.address_bits = 8;
	t_result(map_call(&arg), -EINVAL, "no device has 8 bits");
	arg.address_bits = 65;
	t_result(map_call(&arg), -EINVAL, "nor 65");
	arg.address_bits = 32;
	fd = map_call(&arg);
	t_ok(fd >= 0, "32 bits again");
	close(fd);
	t_buffer_drop(&buffer);
}

static void test_no_iommu(void)
{
	struct map map;

	t_buffer_make(&map.buffer, dev, LEN);
	t_result(map_bits(&map, 0, 0, 0), -EREMOTEIO,
		 "32 bits of address do not do");
	t_is(map.arg.out_reason, PEERDMA_REASON_DMA_MASK, "and why");
	t_is(map.arg.out_translated, 0, "nothing translates");
	t_result(map_bits(&map, PEERDMA_MAP_DEVICE_IOVA, 0, IOVA),
		 driver_is_own() ? -EREMOTEIO : -EBUSY,
		 "no address can be chosen");
	if (!strcmp(driver, "peerdma-stub")) {
		t_result(map_bits(&map, PEERDMA_MAP_DEVICE_IOVA, 64, IOVA),
			 -EREMOTEIO, "not with 64 bits either");
		t_is(map.arg.out_reason, PEERDMA_REASON_NO_IOMMU, "and why");
		map_bits(&map, 0, 32, 0);
	} else {
		t_result(map_bits(&map, 0, 64, 0), -EINVAL,
			 "the bits are for the stub");
	}
	map.fd = -1;
	map_drop(&map);
}

static int map_as_nobody(void *data)
{
	if (setuid(65534))
		return 1;
	return map_call(data) == -EPERM ? 0 : 2;
}

/* ---- with a neighbour below the same conventional bridge ----------------- */

static void bridge_above(const struct edu *card, struct edu *bridge)
{
	char path[64], real[PATH_MAX];

	pci_path(path, sizeof(path), card->name, "");
	t_need(realpath(path, real), "the card's place is known");
	*strrchr(real, '/') = '\0';
	snprintf(bridge->name, sizeof(bridge->name), "%.15s",
		 strrchr(real, '/') + 1);
}

/* What stands below such a bridge is one group: an IOMMU cannot tell it apart. */
static void test_neighbour(void)
{
	struct edu bridge, other;
	struct map map;

	bridge_above(&edu, &bridge);
	t_need(pci_find("device", 0x0005, other.name, &other.number),
	       "there is a neighbour");
	t_buffer_make(&map.buffer, dev, LEN);
	t_ok(edu_bind(&other, "uio_pci_generic"), "it has a driver");
	t_ok(edu_is_master(&bridge), "so their bridge forwards");
	t_result(map_try(&map, 0, 0), -EBUSY, "the card is not given");
	t_ok(edu_bind(&other, "none"), "the driver goes");
	t_need(map_part(&map, 0, 0, LEN, 0) >= 0, "the card is given");
	t_ok(!edu_bind(&other, "uio_pci_generic"), "now the driver is kept off");
	edu_make_master(&edu);
	map_drop(&map);
	t_ok(!edu_is_master(&edu), "at the end the card's mastering ends");
	t_ok(edu_is_master(&bridge), "and not the bridge's");
	t_ok(edu_bind(&other, "uio_pci_generic"), "the driver may come");
	t_ok(edu_bind(&other, "none"), "and go");
}

/* ---- whatever there is --------------------------------------------------- */

/* A drive, whose driver has set 64 bits: mapped with an IOMMU or without. */
static void test_drive(void)
{
	struct peerdma_device_segment segments[SEGMENTS];
	struct peerdma_map_device arg = {
		.len = LEN,
		.segments = (uintptr_t)segments,
		.nr_segments = SEGMENTS,
	}, again;
	struct t_buffer buffer, tight;
	char name[16];
	int fd;

	t_need(pci_find("class", 0x010802, name, &arg.device),
	       "a drive is found");

	t_buffer_make(&buffer, dev, LEN);
	arg.buffer_fd = buffer.fd;
	again = arg;
	t_is(t_child(map_as_nobody, &again), 0, "not for everybody");
	again.nr_segments = 0;
	t_result(map_call(&again), -EMSGSIZE, "more segments than room");
	t_ok(again.nr_segments, "and how many");
	fd = map_call(&arg);
	t_ok(fd >= 0, "a drive is given addresses");
	t_ok(arg.out_translated || arg.nr_segments == again.nr_segments,
	     "as many as was said, unless the IOMMU joins some");
	t_is(t_counter("device_maps"), 1, "one mapping");
	close(fd);
	again = arg;
	again.flags = PEERDMA_MAP_DEVICE_IOVA;
	again.iova = IOVA;
	t_result(map_call(&again), -EBUSY, "a chosen one it is not given");
	tight.ptr = t_gpu_alloc(LEN);
	tight.len = LEN;
	tight.fd = t_pin(dev, tight.ptr, LEN, PEERDMA_PIN_REVOCABLE,
			 &tight.pin);
	arg.buffer_fd = tight.fd;
	arg.nr_segments = SEGMENTS;
	fd = map_call(&arg);
	if (arg.out_translated) {
		t_ok(fd >= 0, "nor is it kept from revocable memory");
		close(fd);
	} else {
		t_result(fd, -EREMOTEIO,
			 "what cannot be stopped gets no revocable memory");
		t_is(arg.out_reason, PEERDMA_REASON_NO_IOMMU, "and why");
	}
	t_buffer_drop(&tight);
	t_buffer_drop(&buffer);
}

static const struct t_case cases[] = {
	{ "chosen", test_chosen },
	{ "bits", test_bits },
	{ "no iommu", test_no_iommu },
	{ "neighbour", test_neighbour },
	{ "drive", test_drive },
};

int main(int argc, char **argv)
{
	map_prepare();
	return T_RUN(cases, t_nothing_left);
}
