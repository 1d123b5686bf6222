// SPDX-License-Identifier: GPL-2.0-only
/*
 * The provider "pci": a part of any memory BAR, named by device, BAR and offset.
 *
 * For memory whose device has no driver that would hand it out: an FPGA's, a
 * controller memory buffer, a card on the bench. What is pinned is claimed in the
 * kernel's resource tree, as a driver would: what a driver or the kernel itself
 * has claimed cannot be pinned, and what is pinned cannot be claimed.
 *
 * A BAR has no owner who could free it. The core takes it back when the device's
 * driver is unbound or the device removed.
 */
#include <linux/capability.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/security.h>
#include <linux/slab.h>

#include "../include/peerdma_provider.h"
#include "providers.h"

/**
 * struct claim - a pinned part of a BAR
 * @pdev: the function; counted, and kept awake
 * @start: CPU physical address
 * @len: bytes
 * @res: the claim in the resource tree
 * @prefetchable: reads have no side effects
 *
 * Owner: the pin. Born in pci_pin(), dies in pci_unpin().
 */
struct claim {
	struct pci_dev *pdev;
	resource_size_t start;
	resource_size_t len;
	struct resource *res;
	bool prefetchable;
};

/*
 * Whole pages of one assigned memory BAR, or nothing: what shares the last page
 * of a small BAR may be another device's.
 */
static int find_range(const struct peerdma_pinned *pinned, struct claim *claim)
{
	const struct resource *bar = &claim->pdev->resource[pinned->bar];
	resource_size_t size = resource_size(bar);

	if (!(bar->flags & IORESOURCE_MEM) || (bar->flags & IORESOURCE_UNSET) ||
	    !bar->parent)
		return -EFAULT;
	if (pinned->addr >= size || pinned->len > size - pinned->addr ||
	    !PAGE_ALIGNED(bar->start))
		return -EFAULT;
	claim->start = bar->start + pinned->addr;
	claim->len = pinned->len;
	claim->prefetchable = bar->flags & IORESOURCE_PREFETCH;
	return 0;
}

/* A virtual function decodes memory when its physical one says so. */
static bool decodes_memory(struct pci_dev *pdev)
{
	u16 command;

	if (pdev->current_state != PCI_D0 && pdev->current_state != PCI_UNKNOWN)
		return false;
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	if (command == (u16)~0)
		return false;
	return pdev->is_virtfn || (command & PCI_COMMAND_MEMORY);
}

/* request_mem_region() does not tell a claim in the way from want of memory. */
static int claim_errno(const struct claim *claim, struct resource *bar)
{
	struct resource probe = DEFINE_RES_MEM(claim->start, claim->len);

	if (request_resource(bar, &probe))
		return -EBUSY;
	release_resource(&probe);
	return -ENOMEM;
}

static int claim_range(struct claim *claim, struct resource *bar)
{
	struct device *dev = &claim->pdev->dev;
	int ret;

	if (pm_runtime_resume_and_get(dev) < 0)
		return -ENODEV;
	ret = -ENODEV;
	if (!decodes_memory(claim->pdev))
		goto let_sleep;
	claim->res = request_mem_region(claim->start, claim->len, "peerdma");
	if (claim->res)
		return 0;
	ret = claim_errno(claim, bar);

let_sleep:
	pm_runtime_put(dev);
	return ret;
}

static struct pci_dev *device_get(u32 number)
{
	return pci_get_domain_bus_and_slot(number >> 16, (number >> 8) & 0xff,
					   number & 0xff);
}

/*
 * With the rescan lock held a device that is found is not being removed, and its
 * BARs stay where they are until they are claimed.
 */
static int claim_device(const struct peerdma_pinned *pinned,
			struct claim *claim)
{
	int ret;

	pci_lock_rescan_remove();
	claim->pdev = device_get(pinned->device);
	ret = claim->pdev ? find_range(pinned, claim) : -ENOENT;
	if (!ret)
		ret = claim_range(claim, &claim->pdev->resource[pinned->bar]);
	pci_unlock_rescan_remove();
	if (ret)
		pci_dev_put(claim->pdev);
	return ret;
}

static int pci_pin(struct peerdma_pinned *pinned)
{
	struct claim *claim;
	int ret;

	if (!capable(CAP_SYS_RAWIO) ||
	    security_locked_down(LOCKDOWN_PCI_ACCESS))
		return -EPERM;
	if (pinned->bar >= PCI_STD_NUM_BARS)
		return -EINVAL;

	claim = kzalloc_obj(*claim, GFP_KERNEL);
	if (!claim)
		return -ENOMEM;
	ret = claim_device(pinned, claim);
	if (ret) {
		kfree(claim);
		return ret;
	}
	pinned->priv = claim;
	return 0;
}

static int pci_describe(struct peerdma_pinned *pinned)
{
	const struct claim *claim = pinned->priv;

	pinned->page_size = PAGE_SIZE;
	pinned->nr_pages = claim->len >> PAGE_SHIFT;
	if (!claim->prefetchable)
		pinned->caching = PEERDMA_UNCACHED;
	return 0;
}

static phys_addr_t pci_page(const struct peerdma_pinned *pinned, u32 index)
{
	const struct claim *claim = pinned->priv;

	return claim->start + (phys_addr_t)index * PAGE_SIZE;
}

/*
 * By the claim itself and not by its addresses: those may be another device's
 * when this one was removed before the buffer could be found.
 */
static void pci_unpin(struct peerdma_pinned *pinned)
{
	struct claim *claim = pinned->priv;

	release_resource(claim->res);
	kfree(claim->res);
	pm_runtime_put(&claim->pdev->dev);
	pci_dev_put(claim->pdev);
	kfree(claim);
}

struct peerdma_provider peerdma_provider_pci = {
	.name = "pci",
	.owner = THIS_MODULE,
	.granule = PAGE_SIZE,
	.by_device = true,
	.pin = pci_pin,
	.describe = pci_describe,
	.page = pci_page,
	.unpin = pci_unpin,
};
