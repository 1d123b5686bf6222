// SPDX-License-Identifier: MIT
/*
 * PCI addresses as people write them and as the kernel module counts them.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "internal.h"

/**
 * peerdma_pci_parse() - read a PCI address
 * @text: "0000:01:00.0"
 * @out_device: the same as PEERDMA_DEVICE()
 *
 * Return: 0; -EINVAL: no PCI address.
 */
int peerdma_pci_parse(const char *text, uint32_t *out_device)
{
	unsigned int domain, bus, dev, fn;
	int end = 0;

	/* sscanf() would take blanks and signs. */
	if (text[strspn(text, "0123456789abcdefABCDEF:.")])
		return -EINVAL;
	if (sscanf(text, "%4x:%2x:%2x.%1x%n", &domain, &bus, &dev, &fn,
		   &end) != 4 || text[end])
		return -EINVAL;
	if (dev > 0x1f || fn > 7)
		return -EINVAL;
	*out_device = PEERDMA_DEVICE(domain, bus, dev, fn);
	return 0;
}

/**
 * peerdma_pci_format() - write a PCI address
 * @device: PEERDMA_DEVICE(), or PEERDMA_DEVICE_NONE, which becomes ""
 * @text: where to
 */
void peerdma_pci_format(uint32_t device, char text[PEERDMA_PCI_LEN])
{
	if (device == PEERDMA_DEVICE_NONE) {
		text[0] = '\0';
		return;
	}
	snprintf(text, PEERDMA_PCI_LEN, "%04x:%02x:%02x.%x", device >> 16,
		 device >> 8 & 0xff, device >> 3 & 0x1f, device & 7);
}

/**
 * peerdma_pci_of_disk() - the PCI function of a block device, from sysfs
 * @disk: number of the block device or of a partition of it
 *
 * For when the kernel module is not there to tell.
 *
 * Return: PEERDMA_DEVICE(), PEERDMA_DEVICE_NONE when there is none.
 */
uint32_t peerdma_pci_of_disk(dev_t disk)
{
	uint32_t device, last = PEERDMA_DEVICE_NONE;
	char link[64], path[PATH_MAX];
	char *part, *rest;

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(disk),
		 minor(disk));
	if (!realpath(link, path))
		return last;
	/* The last address on the way from the root is the drive's own. */
	for (part = strtok_r(path, "/", &rest); part;
	     part = strtok_r(NULL, "/", &rest))
		if (!peerdma_pci_parse(part, &device))
			last = device;
	return last;
}

/**
 * peerdma_pci_node() - the NUMA node of a PCI function
 * @device: PEERDMA_DEVICE()
 *
 * Return: its number; -1: nobody knows, or there is only one.
 */
int peerdma_pci_node(uint32_t device)
{
	char text[PEERDMA_PCI_LEN], path[64];
	int node = -1;
	FILE *file;

	peerdma_pci_format(device, text);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", text);
	file = fopen(path, "re");
	if (!file)
		return -1;
	if (fscanf(file, "%d", &node) != 1)
		node = -1;
	fclose(file);
	return node;
}
