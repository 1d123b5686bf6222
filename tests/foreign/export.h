/* SPDX-License-Identifier: MIT */
/*
 * Dma-bufs of a card's BAR by the test exporter, and the CPU's view of that BAR.
 * LEN is how long they are.
 */
#ifndef EXPORT_H
#define EXPORT_H

#include <limits.h>
#include <sys/ioctl.h>

#include "../t_transfer.h"
#include "exporter/t_exporter.h"

#define PIECE	65536u
#define PLACE	(16ull << 20)
#define OTHER	(64ull << 20)
#define BAR	2
#define BUFINFO	"/sys/kernel/debug/dma_buf/bufinfo"

static int exporter;
static uint32_t device;
static unsigned char *bar;

/* @name is the card's in sysfs. */
static inline void exporter_open(const char *name)
{
	unsigned int domain, bus, slot, fn;
	char path[PATH_MAX];
	struct stat stat;
	int fd;

	exporter = t_open("/dev/t_exporter", O_RDWR);
	t_need(exporter >= 0, "the exporter is opened");
	t_need(sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &fn) == 4,
	       "%s is a PCI address", name);
	device = PEERDMA_DEVICE(domain, bus, slot, fn);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2_wc",
		 name);
	fd = open(path, O_RDWR);
	t_need(fd >= 0 && !fstat(fd, &stat), "its memory is opened");
	bar = mmap(NULL, stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0);
	t_need(bar != MAP_FAILED, "its memory is mapped");
	close(fd);
}

static inline int export_len(uint32_t flags, uint64_t offset, uint64_t len)
{
	struct t_export export = {
		.device = device,
		.bar = BAR,
		.offset = offset,
		.len = len,
		.flags = flags,
	};

	if (ioctl(exporter, T_EXPORT, &export))
		t_need(false, "an export: %s", strerror(errno));
	return export.out_fd;
}

static inline int export_at(uint32_t flags, uint64_t offset)
{
	return export_len(flags, offset, LEN);
}

static inline struct t_move ask(int fd)
{
	struct t_move move = { .fd = fd, .ask = 1 };

	t_need(!ioctl(exporter, T_MOVE, &move), "the exporter answers");
	return move;
}

static inline struct t_move move_to(int fd, uint64_t offset, bool revoke)
{
	struct t_move move = { .fd = fd, .offset = offset, .revoke = revoke };

	t_need(!ioctl(exporter, T_MOVE, &move), "the exporter moves it");
	return move;
}

/* On kernels before 7 a mapping of an exporter without pins ends with the
 * attachment.
 */
static inline bool maps_when_attached(void)
{
	return strtol(getenv("PEERDMA_RELEASE"), NULL, 10) < 7;
}

/* Nothing holds the exporter's memory any more. */
static inline void let_go(int fd, const char *what)
{
	struct t_move now = ask(fd);

	t_ok(!now.out_attachments && !now.out_mappings, "%s: it is let go",
	     what);
}

/* As the dma-buf's bytes lie in the BAR. */
static inline unsigned char *lying(uint32_t flags, uint64_t offset)
{
	static unsigned char bytes[LEN];
	size_t i;

	for (i = 0; i < LEN; i += PIECE)
		memcpy(bytes + (flags & T_EXPORT_SCATTERED ? LEN - PIECE - i :
				i), bar + offset + i, PIECE);
	return bytes;
}

/* The name of the function that the only dma-buf's attachment is of. */
static inline void stand_in(char *found)
{
	FILE *file = fopen(BUFINFO, "r");
	bool next = false;
	char line[256];

	*found = '\0';
	while (file && fgets(line, sizeof(line), file)) {
		if (next && sscanf(line, " %15s", found) == 1 &&
		    strcmp(found, "Total"))
			break;
		*found = '\0';
		next = !!strstr(line, "Attached Devices:");
	}
	if (file)
		fclose(file);
}

#endif /* EXPORT_H */
