// SPDX-License-Identifier: MIT
/* The GPUs and the NVMe drives of this machine. */
#include <glob.h>
#include <limits.h>
#include <pci/pci.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"

static int gpus_by_cuda(struct peerdma *ctx, unsigned int nr, struct gpu **out)
{
	struct gpu *gpus = calloc(nr, sizeof(*gpus));
	unsigned int i, found = 0;

	for (i = 0; gpus && i < nr; i++) {
		PEERDMA_SIZED(peerdma_gpu_info, info);
		struct gpu *gpu = &gpus[found];

		if (peerdma_gpu_info(ctx, i, &info))
			continue;
		snprintf(gpu->label, sizeof(gpu->label), "gpu:%u", i);
		memcpy(gpu->device, info.device, sizeof(gpu->device));
		snprintf(gpu->name, sizeof(gpu->name), "%s", info.name);
		gpu->ordinal = i;
		found++;
	}
	*out = gpus;
	return found;
}

static void take_display(struct pci_access *pci, struct pci_dev *dev,
			 struct gpu *gpu)
{
	snprintf(gpu->device, sizeof(gpu->device), "%04x:%02x:%02x.%x",
		 dev->domain & 0xffff, dev->bus, dev->dev, dev->func);
	memcpy(gpu->label, gpu->device, sizeof(gpu->label));
	pci_lookup_name(pci, gpu->name, sizeof(gpu->name), PCI_LOOKUP_DEVICE,
			dev->vendor_id, dev->device_id);
	gpu->ordinal = -1;
}

/* Without CUDA: what looks like a GPU on the PCI bus. */
static int gpus_by_pci(struct gpu **out)
{
	struct pci_access *pci = pci_alloc();
	struct gpu *gpus = NULL, *more;
	struct pci_dev *dev;
	int found = 0;

	pci_init(pci);
	pci_scan_bus(pci);
	for (dev = pci->devices; dev; dev = dev->next) {
		pci_fill_info(dev, PCI_FILL_IDENT | PCI_FILL_CLASS);
		if (dev->device_class >> 8 != PCI_BASE_CLASS_DISPLAY)
			continue;
		more = reallocarray(gpus, found + 1, sizeof(*gpus));
		if (!more)
			break;
		gpus = more;
		take_display(pci, dev, &gpus[found++]);
	}
	pci_cleanup(pci);
	*out = gpus;
	return found;
}

/**
 * devices_gpus() - the GPUs of this machine
 * @ctx: to ask CUDA
 * @out: an array to be freed
 *
 * Return: how many.
 */
int devices_gpus(struct peerdma *ctx, struct gpu **out)
{
	PEERDMA_SIZED(peerdma_context_info, info);

	if (!peerdma_context_info(ctx, &info) && info.nr_gpus)
		return gpus_by_cuda(ctx, info.nr_gpus, out);
	return gpus_by_pci(out);
}

/* The last PCI address on the way from the root, if any. */
static bool find_address(const char *link, char device[16])
{
	unsigned int domain, bus, dev, fn;
	char path[PATH_MAX];
	bool found = false;
	char *part, *rest;
	int end;

	if (!realpath(link, path))
		return false;
	for (part = strtok_r(path, "/", &rest); part;
	     part = strtok_r(NULL, "/", &rest)) {
		end = 0;
		if (sscanf(part, "%4x:%2x:%2x.%1x%n", &domain, &bus, &dev, &fn,
			   &end) != 4 || part[end])
			continue;
		snprintf(device, 16, "%s", part);
		found = true;
	}
	return found;
}

static bool find_controller(const char *block, char device[16])
{
	char pattern[PATH_MAX];
	bool found = false;
	glob_t paths;
	size_t i;

	if (find_address(block, device))
		return true;
	/* With multipath the block device hangs on a subsystem instead. */
	snprintf(pattern, sizeof(pattern), "%s/device/nvme[0-9]*", block);
	if (glob(pattern, 0, NULL, &paths))
		return false;
	for (i = 0; i < paths.gl_pathc && !found; i++)
		found = find_address(paths.gl_pathv[i], device);
	globfree(&paths);
	return found;
}

/**
 * devices_drives() - the NVMe drives of this machine
 * @out: an array to be freed
 *
 * Return: how many.
 */
int devices_drives(struct drive **out)
{
	struct drive *drives, *drive;
	glob_t paths;
	int found = 0;
	size_t i;

	*out = NULL;
	if (glob("/sys/block/nvme*", 0, NULL, &paths))
		return 0;
	drives = calloc(paths.gl_pathc, sizeof(*drives));
	for (i = 0; drives && i < paths.gl_pathc; i++) {
		drive = &drives[found];
		if (!find_controller(paths.gl_pathv[i], drive->device))
			continue;
		snprintf(drive->name, sizeof(drive->name), "%s",
			 strrchr(paths.gl_pathv[i], '/') + 1);
		found++;
	}
	globfree(&paths);
	*out = drives;
	return found;
}
