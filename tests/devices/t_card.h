/* SPDX-License-Identifier: MIT */
/*
 * The edu card: by its driver (examples/edu), and by its bare registers.
 */
#ifndef T_CARD_H
#define T_CARD_H

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../../examples/edu/edu.h"
#include "../t_counters.h"
#include "../t_sysfs.h"

#define T_CARD_DRIVER	"/sys/bus/pci/drivers/edu"

static inline int t_card_open(void)
{
	int fd = open("/dev/edu", O_RDWR | O_CLOEXEC);

	t_need(fd >= 0, "the card opens");
	return fd;
}

static inline int t_card_attach(int card, int dmabuf)
{
	return ioctl(card, EDU_ATTACH, dmabuf) ? -errno : 0;
}

/* The whole of it, in as many pieces as the driver likes; bytes or -errno. */
static inline ssize_t t_card_write(int card, const void *data, size_t len,
				   off_t offset)
{
	size_t done;
	ssize_t ret;

	for (done = 0; done < len; done += ret) {
		ret = pwrite(card, (const char *)data + done, len - done,
			     offset + done);
		if (ret <= 0)
			return ret ? -errno : -EPROTO;
	}
	return done;
}

static inline ssize_t t_card_read(int card, void *data, size_t len,
				  off_t offset)
{
	size_t done;
	ssize_t ret;

	for (done = 0; done < len; done += ret) {
		ret = pread(card, (char *)data + done, len - done,
			    offset + done);
		if (ret <= 0)
			return ret ? -errno : -EPROTO;
	}
	return done;
}

/* The card's PCI address. */
static inline const char *t_card_address(void)
{
	static char address[16];
	char line[16];
	glob_t found;
	size_t i;

	if (glob("/sys/bus/pci/devices/*/device", 0, NULL, &found))
		return NULL;
	for (i = 0; i < found.gl_pathc && !*address; i++)
		if (!strcmp(t_line(found.gl_pathv[i], line, sizeof(line)),
			    "0x11e8"))
			sscanf(found.gl_pathv[i],
			       "/sys/bus/pci/devices/%15[^/]", address);
	globfree(&found);
	return *address ? address : NULL;
}

/* The same as PEERDMA_DEVICE(). */
static inline uint32_t t_card_number(void)
{
	unsigned int domain, bus, slot, fn;

	t_need(t_card_address() &&
	       sscanf(t_card_address(), "%x:%x:%x.%x", &domain, &bus, &slot,
		      &fn) == 4, "the card has an address");
	return PEERDMA_DEVICE(domain, bus, slot, fn);
}

/* All of a buffer for the card by MAP_DEVICE; the mapping or a negative errno. */
static inline int t_card_map(int dev, int buffer, uint64_t len, uint32_t card)
{
	struct peerdma_device_segment segments[64];
	struct peerdma_map_device map = {
		.size = sizeof(map),
		.buffer_fd = buffer,
		.device = card,
		.len = len,
		.segments = (uintptr_t)segments,
		.nr_segments = 64,
	};

	return ioctl(dev, PEERDMA_MAP_DEVICE, &map) ? -errno : map.out_fd;
}

/* Whether the card's DMA goes anywhere; the kernel ends that with a MAP_DEVICE. */
static inline bool t_card_be_master(void)
{
	const uint16_t memory_and_master = 2 | 4;
	char path[96];
	int config;
	bool done;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config",
		 t_card_address());
	config = open(path, O_RDWR);
	done = pwrite(config, &memory_and_master, 2, 4) == 2;
	close(config);
	return done;
}

/* The card's bare registers. No driver may have claimed them. */
static inline volatile uint64_t *t_card_registers(void)
{
	volatile uint64_t *regs;
	char path[96];
	int bar;

	t_need(t_card_be_master(), "the card is made bus master");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0",
		 t_card_address());
	bar = open(path, O_RDWR);
	regs = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
	t_need(regs != MAP_FAILED, "its registers are mapped");
	close(bar);
	return regs;
}

/* A DMA write of the card's memory; QEMU's engine begins 100 ms later. */
static inline void t_card_start(volatile uint64_t *regs, uint64_t target,
				uint64_t len)
{
	regs[0x80 / 8] = 0x40000;
	regs[0x88 / 8] = target;
	regs[0x90 / 8] = len;
	regs[0x98 / 8] = 3;
}

static inline bool t_card_is_busy(volatile uint64_t *regs)
{
	return regs[0x98 / 8] & 1;
}

/* As a card with a mind of its own would do it: nobody has mapped anything. */
static inline void t_card_poke(uint64_t target, uint64_t len)
{
	volatile uint64_t *regs = t_card_registers();

	t_card_start(regs, target, len);
	t_ok(t_wait_for(!t_card_is_busy(regs)), "its engine has run");
	munmap((void *)regs, 4096);
}

#endif /* T_CARD_H */
