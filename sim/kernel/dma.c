// SPDX-License-Identifier: GPL-2.0-only
/* nvidia_p2p_dma_map_pages(): a pin's addresses for another PCI device. */
#include <linux/dma-mapping.h>
#include <linux/export.h>
#include <linux/hashtable.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "simgpu.h"

/**
 * struct simgpu_dma - what stands around a DMA mapping that was handed out
 * @mapping: what the caller sees
 * @link: in pin->dmas; under simgpu_lock
 * @raw: bus addresses that nobody has mapped
 */
struct simgpu_dma {
	struct nvidia_p2p_dma_mapping mapping;
	struct list_head link;
	bool raw;
};

static bool iommu_translates(struct device *dev)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return domain && domain->type & __IOMMU_DOMAIN_PAGING;
}

/**
 * simgpu_dma_reaches() - can the device be given an address for that
 * @dev: the device that will do the DMA
 * @phys: first byte
 * @len: bytes
 *
 * dma_map_resource() warns when it must refuse; a small mask is no reason to.
 */
bool simgpu_dma_reaches(struct device *dev, phys_addr_t phys, size_t len)
{
	u64 limit = min_not_zero(dma_get_mask(dev), dev->bus_dma_limit);

	return iommu_translates(dev) || phys + len - 1 <= limit;
}

static void dma_unmap(struct simgpu_dma *dma)
{
	struct nvidia_p2p_dma_mapping *mapping = &dma->mapping;
	u32 i;

	for (i = 0; !dma->raw && i < mapping->entries; i++)
		dma_unmap_resource(&mapping->pci_dev->dev,
				   mapping->dma_addresses[i],
				   1u << simgpu_page_shift(),
				   DMA_BIDIRECTIONAL, 0);
}

static void dma_free(struct simgpu_dma *dma)
{
	pci_dev_put(dma->mapping.pci_dev);
	kvfree(dma->mapping.dma_addresses);
	kfree(dma);
}

/* entries counts what is mapped, so that dma_unmap() can undo a part. */
static int dma_map(struct simgpu_dma *dma,
		   const struct nvidia_p2p_page_table *table)
{
	struct nvidia_p2p_dma_mapping *mapping = &dma->mapping;
	struct device *dev = &mapping->pci_dev->dev;
	size_t len = 1u << simgpu_page_shift();
	dma_addr_t addr;
	u64 phys;
	u32 i;

	for (i = 0; i < table->entries; i++) {
		phys = table->pages[i]->physical_address;
		addr = phys;
		if (!dma->raw) {
			if (!simgpu_dma_reaches(dev, phys, len))
				return -EIO;
			addr = dma_map_resource(dev, phys, len,
						DMA_BIDIRECTIONAL, 0);
			if (dma_mapping_error(dev, addr))
				return -EIO;
		}
		mapping->dma_addresses[i] = addr;
		mapping->entries = i + 1;
	}
	return 0;
}

static struct simgpu_dma *dma_create(struct pci_dev *peer,
				     const struct nvidia_p2p_page_table *table)
{
	struct simgpu_dma *dma = kzalloc_obj(*dma, GFP_KERNEL);
	int err = -ENOMEM;

	if (!dma)
		return ERR_PTR(-ENOMEM);
	dma->raw = READ_ONCE(simgpu_raw_dma);
	dma->mapping.version = NVIDIA_P2P_DMA_MAPPING_VERSION;
	dma->mapping.page_size_type = table->page_size;
	dma->mapping.pci_dev = pci_dev_get(peer);
	dma->mapping.dma_addresses = kvcalloc(table->entries, sizeof(u64),
					      GFP_KERNEL);
	if (!dma->mapping.dma_addresses)
		goto free;
	err = dma_map(dma, table);
	if (err)
		goto unmap;
	return dma;

unmap:
	dma_unmap(dma);
free:
	dma_free(dma);
	return ERR_PTR(err);
}

/* Whoever takes a mapping off the list, unmaps it. */
static struct simgpu_dma *dma_take(struct simgpu_pin *pin,
				   struct nvidia_p2p_dma_mapping *mapping)
{
	struct simgpu_dma *dma;

	lockdep_assert_held(&simgpu_lock);
	list_for_each_entry(dma, &pin->dmas, link) {
		if (mapping && &dma->mapping != mapping)
			continue;
		list_del(&dma->link);
		pin->mem->gpu->count.dma_mappings--;
		return dma;
	}
	return NULL;
}

/* Context: simgpu_lock not held; the caller keeps @pin and its memory. */
void simgpu_dma_destroy_all(struct simgpu_pin *pin)
{
	struct simgpu_dma *dma;

	for (;;) {
		mutex_lock(&simgpu_lock);
		dma = dma_take(pin, NULL);
		mutex_unlock(&simgpu_lock);
		if (!dma)
			return;
		dma_unmap(dma);
		dma_free(dma);
	}
}

static struct simgpu_pin *pin_get(struct nvidia_p2p_page_table *table)
{
	struct simgpu_pin *pin;

	mutex_lock(&simgpu_lock);
	pin = simgpu_pin_find(table);
	if (pin)
		kref_get(&pin->ref);
	mutex_unlock(&simgpu_lock);
	return pin;
}

/* Fails when the pin has ended since it was looked up. */
static int dma_publish(struct simgpu_dma *dma, struct simgpu_pin *pin)
{
	bool live;

	mutex_lock(&simgpu_lock);
	live = hash_hashed(&pin->hash) && !pin->mem->gpu->dead;
	if (live) {
		list_add_tail(&dma->link, &pin->dmas);
		pin->mem->gpu->count.dma_mappings++;
	}
	mutex_unlock(&simgpu_lock);
	return live ? 0 : -EINVAL;
}

int nvidia_p2p_dma_map_pages(struct pci_dev *peer,
			     struct nvidia_p2p_page_table *page_table,
			     struct nvidia_p2p_dma_mapping **dma_mapping)
{
	struct simgpu_dma *dma;
	struct simgpu_pin *pin;
	int err;

	if (!peer || !page_table || !dma_mapping)
		return -EINVAL;
	*dma_mapping = NULL;
	err = simgpu_fail(SIMGPU_FAIL_DMA_MAP_PAGES);
	if (err)
		return err;
	pin = pin_get(page_table);
	if (!pin)
		return -EINVAL;
	/* Memory reached over PCIe only, past the coherent link, has no IOVA. */
	err = -P2P_ENOTSUPP;
	if (pin->force_bar1)
		goto put;
	dma = dma_create(peer, page_table);
	err = PTR_ERR_OR_ZERO(dma);
	if (err)
		goto put;
	err = dma_publish(dma, pin);
	if (err) {
		dma_unmap(dma);
		dma_free(dma);
		goto put;
	}
	*dma_mapping = &dma->mapping;
put:
	simgpu_pin_put(pin);
	return err;
}
EXPORT_SYMBOL_GPL(nvidia_p2p_dma_map_pages);

int nvidia_p2p_dma_unmap_pages(struct pci_dev *peer,
			       struct nvidia_p2p_page_table *page_table,
			       struct nvidia_p2p_dma_mapping *dma_mapping)
{
	struct simgpu_dma *dma = NULL;
	struct simgpu_pin *pin;

	if (!peer || !page_table || !dma_mapping)
		return -EINVAL;
	mutex_lock(&simgpu_lock);
	pin = simgpu_pin_find(page_table);
	if (pin)
		dma = dma_take(pin, dma_mapping);
	mutex_unlock(&simgpu_lock);
	if (dma) {
		dma_unmap(dma);
		dma_free(dma);
	}
	/* Already gone: the tear-down was faster. */
	return 0;
}
EXPORT_SYMBOL_GPL(nvidia_p2p_dma_unmap_pages);
