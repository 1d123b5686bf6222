/* SPDX-License-Identifier: MIT */
/*
 * QEMU's edu card driven from user space, as an FPGA card would be by its user's
 * program: by its registers in BAR 0 and by its config space.
 */
#ifndef EDU_H
#define EDU_H

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "../t_counters.h"
#include "../t_sysfs.h"

/* What one DMA moves at most: the card's own memory. */
#define EDU_MEMORY	4096u

/* docs/specs/edu.rst of QEMU */
#define EDU_SRC		0x80
#define EDU_DST		0x88
#define EDU_COUNT	0x90
#define EDU_COMMAND	0x98
#define EDU_START	1u
#define EDU_TO_HOST	2u
#define EDU_AT		0x40000u

#define PCI_COMMAND_MEMORY_MASTER	6

/**
 * struct edu - the card
 * @name: in sysfs, as in 0000:00:05.0
 * @number: as PEERDMA_DEVICE()
 * @bar: its registers
 */
struct edu {
	char name[16];
	uint32_t number;
	volatile unsigned char *bar;
};

static inline void pci_path(char *path, size_t size, const char *name,
			    const char *file)
{
	snprintf(path, size, "/sys/bus/pci/devices/%s/%s", name, file);
}

static inline unsigned long pci_value(const char *name, const char *file)
{
	char path[320], text[32] = "";
	int fd;

	pci_path(path, sizeof(path), name, file);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strtoul(text, NULL, 0);
}

/* The first function whose @file in sysfs says @value; its name and number. */
static inline bool pci_find(const char *file, unsigned long value, char *name,
			    uint32_t *number)
{
	unsigned int domain, bus, slot, fn;
	DIR *dir = opendir("/sys/bus/pci/devices");
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "%x:%x:%x.%x", &domain, &bus, &slot,
			   &fn) != 4 ||
		    pci_value(entry->d_name, file) != value)
			continue;
		snprintf(name, 16, "%.15s", entry->d_name);
		*number = PEERDMA_DEVICE(domain, bus, slot, fn);
		found = true;
	}
	if (dir)
		closedir(dir);
	return found;
}

static inline bool edu_open(struct edu *edu)
{
	char path[64];
	int fd;

	if (!pci_find("device", 0x11e8, edu->name, &edu->number))
		return false;
	pci_path(path, sizeof(path), edu->name, "resource0");
	fd = open(path, O_RDWR | O_SYNC);
	edu->bar = mmap(NULL, 1u << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			0);
	close(fd);
	return edu->bar != MAP_FAILED;
}

static inline uint16_t edu_command(const struct edu *edu, uint16_t set)
{
	uint16_t command = 0;
	char path[64];
	int fd;

	pci_path(path, sizeof(path), edu->name, "config");
	fd = open(path, O_RDWR);
	if (pread(fd, &command, sizeof(command), 4) != sizeof(command))
		command = 0;
	command |= set;
	if (set && pwrite(fd, &command, sizeof(command), 4) != sizeof(command))
		command = 0;
	close(fd);
	return command;
}

static inline void edu_make_master(const struct edu *edu)
{
	edu_command(edu, PCI_COMMAND_MEMORY_MASTER);
}

static inline bool edu_is_master(const struct edu *edu)
{
	return edu_command(edu, 0) & 4;
}

/* Give the card to @driver, which may be "none"; true when it has it. */
static inline bool edu_bind(const struct edu *edu, const char *driver)
{
	bool none = !strcmp(driver, "none");
	char path[64], link[128] = "";

	pci_path(path, sizeof(path), edu->name, "driver/unbind");
	t_write_text(path, edu->name);
	pci_path(path, sizeof(path), edu->name, "driver_override");
	t_write_text(path, none ? "\n" : driver);
	if (!none)
		t_write_text("/sys/bus/pci/drivers_probe", edu->name);
	pci_path(path, sizeof(path), edu->name, "driver");
	if (readlink(path, link, sizeof(link) - 1) < 0)
		return none;
	return !strcmp(strrchr(link, '/') + 1, driver);
}

static inline void edu_set(const struct edu *edu, unsigned int at,
			   uint64_t value)
{
	*(volatile uint64_t *)(edu->bar + at) = value;
}

static inline bool edu_busy(const struct edu *edu)
{
	return *(volatile uint64_t *)(edu->bar + EDU_COMMAND) & EDU_START;
}

/* The card says nothing of whether it got where it was sent. */
static inline void edu_run(const struct edu *edu, uint64_t src, uint64_t dst,
			   uint32_t len, uint32_t command)
{
	edu_set(edu, EDU_SRC, src);
	edu_set(edu, EDU_DST, dst);
	edu_set(edu, EDU_COUNT, len);
	edu_set(edu, EDU_COMMAND, command | EDU_START);
	t_need(t_wait_for(!edu_busy(edu)), "the card's DMA ends");
}

static inline void edu_read(const struct edu *edu, uint64_t addr, uint32_t len)
{
	edu_run(edu, addr, EDU_AT, len, 0);
}

static inline void edu_write(const struct edu *edu, uint64_t addr, uint32_t len)
{
	edu_run(edu, EDU_AT, addr, len, EDU_TO_HOST);
}

#endif /* EDU_H */
