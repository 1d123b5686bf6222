// SPDX-License-Identifier: GPL-2.0-only
/*
 * Can one PCI function reach another one's BARs?
 *
 * Generic struct pages (pages.c) take the block layer past the kernel's own
 * peer-to-peer check, so it is made here, before anything is attempted: what
 * hardware cannot route is lost without an error. Rules: PCIe 6.0 section 6.12
 * (ACS) and what drivers/pci/p2pdma.c knows of host bridges.
 */
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/swiotlb.h>
#ifdef CONFIG_X86
#include <asm/processor.h>
#endif

#include "core.h"

#define GOOGLE	0x1ae0

/**
 * struct host_bridge - a root complex known to route between its root ports
 * @vendor: of its function 00.0, or of its root ports where it has none
 * @device: likewise, or PCI_ANY_ID
 * @within: routes only between ports of one host bridge
 */
struct host_bridge {
	u16 vendor;
	u32 device;
	bool within;
};

/* As in drivers/pci/p2pdma.c of Linux 7.2, for kernels built without it. */
static const struct host_bridge host_bridges[] = {
	{ PCI_VENDOR_ID_INTEL, 0x3c00, true },	/* Sandy Bridge-E */
	{ PCI_VENDOR_ID_INTEL, 0x3c01, true },
	{ PCI_VENDOR_ID_INTEL, 0x2f00, true },	/* Haswell-E */
	{ PCI_VENDOR_ID_INTEL, 0x2f01, true },
	{ PCI_VENDOR_ID_INTEL, 0x2030 },	/* Skylake-E */
	{ PCI_VENDOR_ID_INTEL, 0x2031 },
	{ PCI_VENDOR_ID_INTEL, 0x2032 },
	{ PCI_VENDOR_ID_INTEL, 0x2033 },
	{ PCI_VENDOR_ID_INTEL, 0x2020 },
	{ PCI_VENDOR_ID_INTEL, 0x09a2 },	/* Ice Lake-SP and later */
	/* Accelerators that take the place of function 00.0 in later Xeons. */
	{ PCI_VENDOR_ID_INTEL, 0x0b25 },
	{ PCI_VENDOR_ID_INTEL, 0x0cfe },
	{ PCI_VENDOR_ID_INTEL, 0x11fb },
	{ PCI_VENDOR_ID_INTEL, 0x1212 },
	{ PCI_VENDOR_ID_INTEL, 0x1216 },
	{ PCI_VENDOR_ID_INTEL, 0x4940 },
	{ PCI_VENDOR_ID_INTEL, 0x4942 },
	{ PCI_VENDOR_ID_INTEL, 0x4944 },
	{ PCI_VENDOR_ID_INTEL, 0x4946 },
	{ PCI_VENDOR_ID_INTEL, 0x4948 },
	{ GOOGLE, PCI_ANY_ID },
};

/**
 * peerdma_device_number - a function as PEERDMA_DEVICE() writes it
 * @pdev: any
 *
 * Return: the number, PEERDMA_DEVICE_NONE when its domain does not fit.
 */
u32 peerdma_device_number(struct pci_dev *pdev)
{
	u32 domain = pci_domain_nr(pdev->bus);

	if (domain > U16_MAX)
		return PEERDMA_DEVICE_NONE;
	return PEERDMA_DEVICE(domain, pdev->bus->number, PCI_SLOT(pdev->devfn),
			      PCI_FUNC(pdev->devfn));
}

static bool cpu_routes(void)
{
#ifdef CONFIG_X86
	/* Every AMD root complex since Zen routes between all of its ports. */
	return boot_cpu_data.x86_vendor == X86_VENDOR_AMD &&
	       boot_cpu_data.x86 >= 0x17;
#else
	return false;
#endif
}

static struct pci_dev *root_port(struct pci_dev *pdev)
{
	struct pci_dev *up;

	while ((up = pci_upstream_bridge(pdev)))
		pdev = up;
	return pdev;
}

/* What stands for the host bridge above @pdev in lists like ours; counted. */
static struct pci_dev *host_bridge_get(struct pci_dev *pdev)
{
	struct pci_dev *root = root_port(pdev);
	struct pci_dev *first = pci_get_slot(root->bus, PCI_DEVFN(0, 0));

	return first ? first : pci_dev_get(root);
}

static bool host_bridge_routes(struct pci_dev *pdev, bool within)
{
	struct pci_dev *bridge = host_bridge_get(pdev);
	bool routes = false;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(host_bridges); i++) {
		const struct host_bridge *known = &host_bridges[i];

		if (bridge->vendor == known->vendor &&
		    (known->device == (u32)PCI_ANY_ID ||
		     known->device == bridge->device))
			routes = within || !known->within;
	}
	pci_dev_put(bridge);
	return routes;
}

/* Peer requests are sent up to the root complex instead of across the switch. */
static bool acs_redirects(struct pci_dev *port)
{
	int acs = pci_find_ext_capability(port, PCI_EXT_CAP_ID_ACS);
	u16 ctrl = 0;

	if (acs)
		pci_read_config_word(port, acs + PCI_ACS_CTRL, &ctrl);
	return ctrl & (PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_EC);
}

static u32 depth(struct pci_dev *pdev)
{
	u32 n = 0;

	while ((pdev = pci_upstream_bridge(pdev)))
		n++;
	return n;
}

/*
 * The lowest bridge above both, or NULL. Bridges are held by the functions below
 * them, which the caller holds. Counts the bridges on the way and notes whether
 * one of them, below the common one, redirects.
 */
static struct pci_dev *common_bridge(struct pci_dev *a, struct pci_dev *b,
				     u32 *distance, bool *redirected)
{
	u32 depth_a = depth(a), depth_b = depth(b);

	*distance = 0;
	*redirected = false;
	while (a && b && a != b) {
		bool up_a = depth_a >= depth_b;
		bool up_b = depth_b >= depth_a;

		if (up_a) {
			*redirected |= acs_redirects(a);
			a = pci_upstream_bridge(a);
			depth_a--;
			*distance += a ? 1 : 0;
		}
		if (up_b) {
			*redirected |= acs_redirects(b);
			b = pci_upstream_bridge(b);
			depth_b--;
			*distance += b ? 1 : 0;
		}
	}
	return a == b ? a : NULL;
}

/**
 * peerdma_device_translated - does an IOMMU translate what the device sends?
 * @dev: any
 */
bool peerdma_device_translated(struct device *dev)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return domain && (domain->type & __IOMMU_DOMAIN_PAGING);
}

static bool bus_offset(struct pci_dev *pdev)
{
	int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		if ((pci_resource_flags(pdev, i) & IORESOURCE_MEM) &&
		    pci_bus_address(pdev, i) != pci_resource_start(pdev, i))
			return true;
	return false;
}

/* What is wrong with addressing @end from @from, whatever the way. */
static enum peerdma_reason address_reason(struct pci_dev *from,
					  struct pci_dev *to, phys_addr_t end,
					  bool translated)
{
	struct device *dev = &from->dev;

	if (from->untrusted)
		return PEERDMA_REASON_UNTRUSTED;
	if (translated)
		return PEERDMA_REASON_NONE;
	if (is_swiotlb_force_bounce(dev))
		return PEERDMA_REASON_SWIOTLB;
	if (end - 1 > min_not_zero(dma_get_mask(dev), dev->bus_dma_limit))
		return PEERDMA_REASON_DMA_MASK;
	if (bus_offset(to))
		return PEERDMA_REASON_BUS_OFFSET;
	return PEERDMA_REASON_NONE;
}

static enum peerdma_reason host_reason(struct pci_dev *from, struct pci_dev *to)
{
	bool within = root_port(from)->bus == root_port(to)->bus;

	if (cpu_routes())
		return PEERDMA_REASON_NONE;
	if (host_bridge_routes(from, within) && host_bridge_routes(to, within))
		return PEERDMA_REASON_NONE;
	return within ? PEERDMA_REASON_HOST_BRIDGE :
			PEERDMA_REASON_HOST_BRIDGES;
}

/* The kernel's own opinion: 1 yes, 0 no, -1 it has none. */
static int kernel_reaches(struct pci_dev *from, struct pci_dev *to)
{
	struct device *client = &from->dev;

	if (!IS_ENABLED(CONFIG_PCI_P2PDMA))
		return -1;
	return pci_p2pdma_distance_many(to, &client, 1, false) >= 0;
}

/**
 * peerdma_path_find - how, and whether, one function reaches another one's BARs
 * @from: does the DMA; held by the caller
 * @to: has the BAR; held by the caller
 * @end: one past the highest address to be reached
 * @path: out
 *
 * With an IOMMU that translates, generic pages are mapped through it, so every
 * request climbs to the root complex, also below one switch; without, requests
 * go where the switches send them.
 *
 * Context: process; reads config space.
 */
void peerdma_path_find(struct pci_dev *from, struct pci_dev *to,
		       phys_addr_t end, struct peerdma_path *path)
{
	struct pci_dev *common;
	bool redirected, host;
	int kernel;

	path->translated = peerdma_device_translated(&from->dev);
	common = common_bridge(from, to, &path->distance, &redirected);
	host = path->translated || redirected || !common;
	path->via = peerdma_device_number(host ? root_port(from) : common);

	path->reason = address_reason(from, to, end, path->translated);
	if (path->reason != PEERDMA_REASON_NONE || from == to)
		return;

	kernel = kernel_reaches(from, to);
	if (host)
		path->reason = host_reason(from, to);
	/* The kernel may know bridges that our list does not. */
	if (kernel == 1 && (redirected || !common))
		path->reason = PEERDMA_REASON_NONE;
	if (kernel == 0 && path->reason == PEERDMA_REASON_NONE)
		path->reason = PEERDMA_REASON_KERNEL;
}

/**
 * peerdma_device_get - the function that a PEERDMA_DEVICE() names
 * @number: as user space gave it
 *
 * Return: the function, counted, or NULL.
 */
struct pci_dev *peerdma_device_get(u32 number)
{
	return pci_get_domain_bus_and_slot(number >> 16, (number >> 8) & 0xff,
					   number & 0xff);
}

static phys_addr_t memory_end(struct pci_dev *pdev)
{
	phys_addr_t end = 0;
	int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		if (pci_resource_flags(pdev, i) & IORESOURCE_MEM)
			end = max_t(phys_addr_t, end,
				    pci_resource_end(pdev, i) + 1);
	return end;
}

/**
 * peerdma_route_ioctl - PEERDMA_ROUTE
 * @call: arg.route in and out
 *
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_route_ioctl(struct peerdma_call *call)
{
	struct peerdma_route *route = &call->arg.route;
	struct pci_dev *from, *to;
	struct peerdma_path path;
	int ret = -ENOENT;

	if (route->flags)
		return -EOPNOTSUPP;

	from = peerdma_device_get(route->from_device);
	if (!from)
		return -ENOENT;
	to = peerdma_device_get(route->to_device);
	if (!to)
		goto put_from;

	/* A function without memory has an end all the same. */
	peerdma_path_find(from, to, max(memory_end(to), 1), &path);
	route->out_reason = path.reason;
	route->out_via = path.via;
	route->out_translated = path.translated;
	route->out_distance = path.distance;
	ret = 0;

	pci_dev_put(to);
put_from:
	pci_dev_put(from);
	return ret;
}
