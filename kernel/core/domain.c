// SPDX-License-Identifier: GPL-2.0-only
/*
 * An IOMMU domain of our own, for a device that no other driver works with.
 *
 * The DMA API chooses addresses by itself, and mapping behind its back into the
 * domain that it manages would collide with it. So a chosen address exists only
 * where we own the IOMMU group: claimed, which keeps every driver and VFIO off
 * it, and led into a domain that holds what was mapped here and nothing else.
 *
 * peerdma-stub is the driver to give such a device to. It does nothing, and binds
 * only by driver_override.
 */
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/slab.h>

#include "core.h"

/**
 * struct peerdma_domain - an IOMMU group that is ours, and where it leads
 * @list: in peerdma_core::domains
 * @users: mappings that have it
 * @group: counted, and claimed with this struct as the owner
 * @domain: attached to @group
 * @reserved: list of struct iommu_resv_region: what no mapping may cover
 * @taken: list of struct peerdma_iova: what mappings cover
 *
 * Owner: its users. All of it is under peerdma_core::mappings_lock. Born with the
 * first mapping for a device of the group and dead with the last one's
 * descriptor, not with what it maps: a device that goes on after a revocation
 * finds an empty domain and not the one that it had before, which may be none.
 */
struct peerdma_domain {
	struct list_head list;
	unsigned int users;
	struct iommu_group *group;
	struct iommu_domain *domain;
	struct list_head reserved;
	struct list_head taken;
};

static void reserved_free(struct peerdma_domain *domain)
{
	struct iommu_resv_region *region, *next;

	/* The group's list holds plain copies, as for vfio and iommufd. */
	list_for_each_entry_safe(region, next, &domain->reserved, list)
		kfree(region);
}

/* NULL when no IOMMU is there for the device. Consumes @group but for an error. */
static struct peerdma_domain *domain_create(struct pci_dev *pdev,
					    struct iommu_group *group)
{
	struct peerdma_domain *domain;
	int ret;

	domain = kzalloc_obj(*domain, GFP_KERNEL);
	if (!domain)
		return ERR_PTR(-ENOMEM);
	domain->users = 1;
	domain->group = group;
	INIT_LIST_HEAD(&domain->reserved);
	INIT_LIST_HEAD(&domain->taken);

	domain->domain = iommu_paging_domain_alloc(&pdev->dev);
	if (IS_ERR(domain->domain)) {
		ret = PTR_ERR(domain->domain);
		goto free_domain;
	}
	ret = iommu_group_claim_dma_owner(group, domain);
	if (ret) {
		/*
		 * -EPERM where it has another owner, a driver's DMA API too;
		 * for want of memory older kernels say -EINVAL.
		 */
		ret = ret == -ENOMEM || ret == -EINVAL ? -ENOMEM : -EBUSY;
		goto free_iommu_domain;
	}
	ret = iommu_attach_group(domain->domain, group);
	if (ret)
		goto release_group;
	ret = iommu_get_group_resv_regions(group, &domain->reserved);
	if (ret)
		goto detach_group;
	list_add_tail(&domain->list, &peerdma.domains);
	return domain;

detach_group:
	reserved_free(domain);
	iommu_detach_group(domain->domain, group);
release_group:
	iommu_group_release_dma_owner(group);
free_iommu_domain:
	iommu_domain_free(domain->domain);
free_domain:
	kfree(domain);
	return ERR_PTR(ret);
}

/**
 * peerdma_domain_get - take the device's IOMMU group, or a part in what we have
 * @pdev: bound to no driver or to peerdma-stub; its device lock is held
 *
 * All devices of the group lose what they were mapped, and no driver binds to
 * them, until peerdma_domain_put().
 *
 * Return: the domain; NULL when no IOMMU stands before the device; or ERR_PTR:
 * -EBUSY when somebody else works with a device of the group, -ENOMEM, -EREMOTEIO
 * when the IOMMU's driver refuses.
 */
struct peerdma_domain *peerdma_domain_get(struct pci_dev *pdev)
{
	struct iommu_group *group = iommu_group_get(&pdev->dev);
	struct peerdma_domain *domain;

	lockdep_assert_held(&peerdma.mappings_lock);
	if (!group)
		return NULL;

	list_for_each_entry(domain, &peerdma.domains, list) {
		if (domain->group == group) {
			domain->users++;
			iommu_group_put(group);
			return domain;
		}
	}

	domain = domain_create(pdev, group);
	if (!IS_ERR(domain))
		return domain;
	iommu_group_put(group);
	switch (PTR_ERR(domain)) {
	case -ENODEV:
		return NULL;
	case -EBUSY:
	case -ENOMEM:
		return domain;
	default:
		return ERR_PTR(-EREMOTEIO);
	}
}

/*
 * What the device may still be doing must not meet its next domain. Bridges stay
 * masters: nobody would make them so again for a card that user space drives.
 */
static int device_silence(struct device *dev, void *unused)
{
	struct pci_dev *pdev;

	if (!dev_is_pci(dev))
		return 0;
	pdev = to_pci_dev(dev);
	if (pdev->hdr_type == PCI_HEADER_TYPE_NORMAL &&
	    peerdma_device_is_free(pdev))
		pci_clear_master(pdev);
	return 0;
}

/**
 * peerdma_domain_put - undo peerdma_domain_get()
 * @domain: with the last user, its group's devices are no longer bus masters and
 *	the group is the kernel's again
 */
void peerdma_domain_put(struct peerdma_domain *domain)
{
	lockdep_assert_held(&peerdma.mappings_lock);
	if (--domain->users)
		return;

	list_del(&domain->list);
	iommu_group_for_each_dev(domain->group, NULL, device_silence);
	iommu_detach_group(domain->domain, domain->group);
	iommu_group_release_dma_owner(domain->group);
	iommu_domain_free(domain->domain);
	reserved_free(domain);
	iommu_group_put(domain->group);
	kfree(domain);
}

static bool overlap(u64 start, u64 last, u64 other_start, u64 other_last)
{
	return start <= other_last && other_start <= last;
}

/*
 * Is [start, last] free? 0, -EADDRNOTAVAIL or -EADDRINUSE; then @past is where
 * what is in the way ends, 0 at the end of all addresses. What the bridges above
 * the device forward downwards never gets up to the IOMMU.
 */
static int iova_free(const struct peerdma_domain *domain, struct pci_dev *pdev,
		     u64 start, u64 last, u64 *past)
{
	struct pci_host_bridge *bridge = pci_find_host_bridge(pdev->bus);
	const struct iommu_resv_region *region;
	const struct peerdma_iova *taken;
	struct resource_entry *window;

	resource_list_for_each_entry(window, &bridge->windows) {
		u64 low = window->res->start - window->offset;
		u64 high = window->res->end - window->offset;

		if (resource_type(window->res) != IORESOURCE_MEM)
			continue;
		*past = high + 1;
		if (overlap(start, last, low, high))
			return -EADDRNOTAVAIL;
	}
	list_for_each_entry(region, &domain->reserved, list) {
		/* Firmware's mappings that a device may lose when it is taken. */
		if (region->type == IOMMU_RESV_DIRECT_RELAXABLE ||
		    !region->length)
			continue;
		*past = region->start + region->length;
		if (overlap(start, last, region->start, *past - 1))
			return -EADDRNOTAVAIL;
	}
	list_for_each_entry(taken, &domain->taken, list) {
		*past = taken->start + taken->len;
		if (overlap(start, last, taken->start, *past - 1))
			return -EADDRINUSE;
	}
	return 0;
}

static u64 iova_limit(const struct peerdma_domain *domain, struct pci_dev *pdev)
{
	return min_t(u64, domain->domain->geometry.aperture_end,
		     dma_get_mask(&pdev->dev));
}

static int iova_check(const struct peerdma_domain *domain, struct pci_dev *pdev,
		      const struct peerdma_iova *iova)
{
	u64 limit = iova_limit(domain, pdev), past;

	if (iova->start < domain->domain->geometry.aperture_start ||
	    iova->start > limit || iova->len - 1 > limit - iova->start)
		return -EDOM;
	return iova_free(domain, pdev, iova->start,
			 iova->start + iova->len - 1, &past);
}

/* The lowest free place; not 0, which programs take for "none". */
static int iova_find(const struct peerdma_domain *domain, struct pci_dev *pdev,
		     struct peerdma_iova *iova)
{
	u64 align = iova->len < SZ_2M ? PAGE_SIZE : SZ_2M;
	u64 past = max_t(u64, domain->domain->geometry.aperture_start,
			 PAGE_SIZE);
	u64 limit = iova_limit(domain, pdev), start;

	do {
		start = ALIGN(past, align);
		if (!past || start < past || start > limit ||
		    iova->len - 1 > limit - start)
			return -EDOM;
	} while (iova_free(domain, pdev, start, start + iova->len - 1, &past));
	iova->start = start;
	return 0;
}

/**
 * peerdma_domain_place - find out, or find, where a mapping may lie
 * @domain: ours
 * @pdev: the device that will use it
 * @iova: start and len, whole CPU pages; start is written unless @chosen
 * @chosen: the caller wants it there and nowhere else
 *
 * Return: 0; -EDOM outside of what device and IOMMU address; -EADDRNOTAVAIL for
 * what is reserved; -EADDRINUSE for what is mapped.
 */
int peerdma_domain_place(struct peerdma_domain *domain, struct pci_dev *pdev,
			 struct peerdma_iova *iova, bool chosen)
{
	lockdep_assert_held(&peerdma.mappings_lock);
	return chosen ? iova_check(domain, pdev, iova) :
			iova_find(domain, pdev, iova);
}

/* Does the IOMMU lead the first and the last page where they were sent? */
static bool leads_to(struct iommu_domain *domain, u64 iova, phys_addr_t phys,
		     u64 len)
{
	u64 last = len - PAGE_SIZE;

	return iommu_iova_to_phys(domain, iova) == phys &&
	       iommu_iova_to_phys(domain, iova + last) == phys + last;
}

/**
 * peerdma_domain_map - map a part of a buffer at one range of addresses
 * @domain: ours
 * @iova: as placed
 * @buffer: used by the caller
 * @start: from there in the dma-buf, on a page, iova->len bytes
 * @read_only: the device may only read
 *
 * Return: 0, -ENOMEM, or -EREMOTEIO when the IOMMU does not take it.
 */
int peerdma_domain_map(struct peerdma_domain *domain, struct peerdma_iova *iova,
		       const struct peerdma_buffer *buffer, u64 start,
		       bool read_only)
{
	int prot = IOMMU_READ | IOMMU_MMIO | (read_only ? 0 : IOMMU_WRITE);
	struct iommu_domain *to = domain->domain;
	u32 i = peerdma_buffer_extent_at(buffer, start);
	u64 done = 0;
	int ret;

	lockdep_assert_held(&peerdma.mappings_lock);
	/* Asked first, since iommu_map() complains to the log. */
	if ((to->pgsize_bitmap & -to->pgsize_bitmap) > PAGE_SIZE)
		return -EREMOTEIO;

	for (; done < iova->len; i++) {
		phys_addr_t phys;
		u64 len = peerdma_buffer_part(buffer, i, start,
					      start + iova->len, &phys);

		ret = iommu_map(to, iova->start + done, phys, len, prot,
				GFP_KERNEL);
		if (ret)
			goto unmap;
		done += len;
		if (!leads_to(to, iova->start + done - len, phys, len)) {
			ret = -EREMOTEIO;
			goto unmap;
		}
	}
	list_add_tail(&iova->list, &domain->taken);
	return 0;

unmap:
	if (done)
		iommu_unmap(to, iova->start, done);
	return ret == -ENOMEM ? ret : -EREMOTEIO;
}

/**
 * peerdma_domain_unmap - undo peerdma_domain_map()
 * @domain: ours
 * @iova: on return, no device reaches the buffer by it
 */
void peerdma_domain_unmap(struct peerdma_domain *domain,
			  struct peerdma_iova *iova)
{
	lockdep_assert_held(&peerdma.mappings_lock);
	WARN_ON_ONCE(iommu_unmap(domain->domain, iova->start, iova->len) !=
		     iova->len);
	list_del(&iova->list);
}

/* What the driver before said of the device, which stays, is not its user's. */
static int stub_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(32));
}

/* What a user said of the device is not the next driver's affair. */
static void stub_remove(struct pci_dev *pdev)
{
	dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(32));
}

static struct pci_driver stub = {
	.name = "peerdma-stub",
	.probe = stub_probe,
	.remove = stub_remove,
	.driver_managed_dma = true,
};

/**
 * peerdma_device_is_stub - does our stub hold the device?
 * @pdev: its device lock is held, or its group is ours
 */
bool peerdma_device_is_stub(struct pci_dev *pdev)
{
	return pdev->dev.driver == &stub.driver;
}

/**
 * peerdma_device_is_free - does no driver but our stub work with the device?
 * @pdev: its device lock is held, or its group is ours
 */
bool peerdma_device_is_free(struct pci_dev *pdev)
{
	return !pdev->dev.driver || peerdma_device_is_stub(pdev);
}

/**
 * peerdma_stub_init - offer peerdma-stub
 *
 * Return: 0 or -errno.
 */
int peerdma_stub_init(void)
{
	return pci_register_driver(&stub);
}

/**
 * peerdma_stub_exit - undo peerdma_stub_init()
 */
void peerdma_stub_exit(void)
{
	pci_unregister_driver(&stub);
}
