// SPDX-License-Identifier: GPL-2.0-only
/*
 * A buffer for other drivers: dma_buf_attach() and what follows.
 *
 * The addresses are made here, from the physical pages and for the importing
 * device, and never taken from a vendor: a vendor's answer can be a raw BAR
 * address although an IOMMU translates (open-gpu-kernel-modules#1324).
 */
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/swiotlb.h>

#include "trace.h"

/**
 * peerdma_device_attach - dma_buf_ops.attach
 * @dmabuf: ours
 * @attachment: the importing device; not PCI devices do not reach a BAR
 *
 * Return: 0, -EREMOTEIO when there is no way from the device to the memory,
 * -EOPNOTSUPP when the buffer is revocable and the importer cannot let go, or when
 * the importer says that it takes no memory of devices. A static one cannot say.
 */
int peerdma_device_attach(struct dma_buf *dmabuf,
			  struct dma_buf_attachment *attachment)
{
	struct peerdma_buffer *buffer = dmabuf->priv;
	struct peerdma_path path;

	if (buffer->pinned.revocable &&
	    (!attachment->importer_ops ||
	     !attachment->importer_ops->invalidate_mappings))
		return -EOPNOTSUPP;
	if (peerdma_buffer_is_ram(buffer))
		goto count;
	if (attachment->importer_ops && !attachment->peer2peer)
		return -EOPNOTSUPP;
	if (!dev_is_pci(attachment->dev))
		return -EREMOTEIO;
	peerdma_path_find(to_pci_dev(attachment->dev), buffer->pdev,
			  buffer->end, &path);
	if (path.reason != PEERDMA_REASON_NONE)
		return -EREMOTEIO;
count:
	peerdma_buffer_count(buffer, PEERDMA_COUNT_IMPORTERS, 1);
	return 0;
}

/**
 * peerdma_device_detach - dma_buf_ops.detach
 * @dmabuf: ours
 * @attachment: as attached
 */
void peerdma_device_detach(struct dma_buf *dmabuf,
			   struct dma_buf_attachment *attachment)
{
	peerdma_buffer_count(dmabuf->priv, PEERDMA_COUNT_IMPORTERS, -1);
}

/**
 * peerdma_device_pin - dma_buf_ops.pin
 * @attachment: as attached
 *
 * Return: 0, or -EOPNOTSUPP: what may be revoked cannot be promised to stay.
 */
int peerdma_device_pin(struct dma_buf_attachment *attachment)
{
	struct peerdma_buffer *buffer = attachment->dmabuf->priv;

	return buffer->pinned.revocable ? -EOPNOTSUPP : 0;
}

/**
 * peerdma_device_unpin - dma_buf_ops.unpin
 * @attachment: as pinned; the memory stays where it is in any case
 */
void peerdma_device_unpin(struct dma_buf_attachment *attachment)
{
}

/* Where the device's address leads, as far as the kernel can tell. */
static phys_addr_t address_target(struct device *dev, dma_addr_t addr)
{
	if (!peerdma_device_translated(dev))
		return addr;
	return iommu_iova_to_phys(iommu_get_domain_for_dev(dev), addr);
}

/**
 * peerdma_dma_map - a physical range as a device sees it, by the DMA API
 * @dev: the device; it reaches the memory
 * @phys: on a CPU page
 * @len: bytes, whole CPU pages
 * @dir: which way it moves data
 *
 * The answer is looked through: within the device's mask, and leading to the
 * memory at both ends.
 *
 * Return: the address, to be undone by dma_unmap_resource(), or
 * DMA_MAPPING_ERROR.
 */
dma_addr_t peerdma_dma_map(struct device *dev, phys_addr_t phys, u64 len,
			   enum dma_data_direction dir)
{
	dma_addr_t addr = dma_map_resource(dev, phys, len, dir, 0);
	u64 last = len - PAGE_SIZE;

	if (dma_mapping_error(dev, addr))
		return DMA_MAPPING_ERROR;
	if (addr + len - 1 <= dma_get_mask(dev) &&
	    address_target(dev, addr) == phys &&
	    address_target(dev, addr + last) == phys + last)
		return addr;
	dma_unmap_resource(dev, addr, len, dir, 0);
	return DMA_MAPPING_ERROR;
}

/**
 * peerdma_device_flush - make what was unmapped unreachable at once
 * @dev: what it was mapped for
 *
 * The DMA API may leave what it has unmapped to the IOMMU's cache for some
 * milliseconds, and trusts drivers to have stopped their devices.
 */
void peerdma_device_flush(struct device *dev)
{
	if (peerdma_device_translated(dev))
		iommu_flush_iotlb_all(iommu_get_domain_for_dev(dev));
}

/* Undo the first @nr extents of a table. */
static void unmap_extents(struct device *dev, struct sg_table *sgt,
			  const struct peerdma_buffer *buffer, u32 nr,
			  enum dma_data_direction dir)
{
	struct scatterlist *sg = sgt->sgl;
	u32 i;

	for (i = 0; i < nr; i++) {
		u64 left = buffer->extents[i].len;

		dma_unmap_resource(dev, sg_dma_address(sg), left, dir, 0);
		while (left) {
			left -= sg_dma_len(sg);
			sg = sg_next(sg);
		}
	}
}

/*
 * Does the DMA API leave it where it is? What it bounces nobody copies for a dma-buf
 * that stays mapped, and where there is no room to bounce to it warns.
 */
static bool ram_is_reached(struct device *dev,
			   const struct peerdma_buffer *buffer)
{
	u64 limit = min_not_zero(dma_get_mask(dev), dev->bus_dma_limit);
	u32 i;

	if (peerdma_device_translated(dev))
		return true;
	if (is_swiotlb_force_bounce(dev))
		return false;
	for (i = 0; i < buffer->nr_extents; i++)
		if (buffer->extents[i].phys + buffer->extents[i].len - 1 > limit)
			return false;
	return true;
}

static int map_ram(struct device *dev, struct sg_table *sgt,
		   const struct peerdma_buffer *buffer,
		   enum dma_data_direction dir)
{
	size_t len = buffer->dmabuf->size;
	int ret;

	if (!ram_is_reached(dev, buffer))
		return -EIO;
	ret = sg_alloc_table_from_pages_segment(sgt, buffer->pinned.pages,
						PHYS_PFN(len), 0, len,
						dma_get_max_seg_size(dev),
						GFP_KERNEL);
	if (ret)
		return ret;
	ret = dma_map_sgtable(dev, sgt, dir, 0);
	if (ret)
		sg_free_table(sgt);
	return ret ? -EIO : 0;
}

static int table_alloc(const struct peerdma_buffer *buffer,
		       struct sg_table *sgt, u64 max)
{
	u64 nr = 0;
	u32 i;

	/* An entry is whole pages. */
	if (!max)
		return -EIO;
	for (i = 0; i < buffer->nr_extents; i++)
		nr += DIV_ROUND_UP_ULL(buffer->extents[i].len, max);
	if (nr > UINT_MAX)
		return -ENOMEM;
	return sg_alloc_table(sgt, nr, GFP_KERNEL);
}

/*
 * Map every extent, as one so that the IOMMU's large pages fit, and tell of it in
 * entries no longer than the device takes: an importer programs it entry by
 * entry, and has told the DMA API how much that is.
 */
static int map_extents(struct device *dev, struct sg_table *sgt,
		       const struct peerdma_buffer *buffer,
		       enum dma_data_direction dir)
{
	u64 max = round_down(dma_get_max_seg_size(dev), PAGE_SIZE);
	struct scatterlist *sg;
	int ret;
	u32 i;

	ret = table_alloc(buffer, sgt, max);
	if (ret)
		return ret;

	sg = sgt->sgl;
	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];
		u64 left = extent->len;
		dma_addr_t addr;

		addr = peerdma_dma_map(dev, extent->phys, left, dir);
		if (addr == DMA_MAPPING_ERROR) {
			unmap_extents(dev, sgt, buffer, i, dir);
			sg_free_table(sgt);
			return -EIO;
		}
		while (left) {
			sg_dma_address(sg) = addr + extent->len - left;
			sg_dma_len(sg) = min(left, max);
			left -= sg_dma_len(sg);
			sg = sg_next(sg);
		}
	}
	return 0;
}

/**
 * peerdma_device_map - dma_buf_ops.map_dma_buf
 * @attachment: as attached
 * @dir: which way the device moves data
 *
 * The table's entries have DMA addresses and, but for ordinary memory, no pages:
 * BAR memory is not for the CPU's page-wise hands. None is longer than
 * dma_get_max_seg_size() of the device. Called with the dma-buf's reservation lock
 * held.
 *
 * Return: the table, or ERR_PTR: -ENODEV when the buffer is revoked, -ENOMEM, -EIO
 * when the DMA API cannot map.
 */
struct sg_table *peerdma_device_map(struct dma_buf_attachment *attachment,
				    enum dma_data_direction dir)
{
	struct peerdma_buffer *buffer = attachment->dmabuf->priv;
	struct device *dev = attachment->dev;
	struct sg_table *sgt;
	int ret;

	if (!peerdma_buffer_use(buffer))
		return ERR_PTR(-ENODEV);
	sgt = kzalloc_obj(*sgt, GFP_KERNEL);
	if (!sgt) {
		ret = -ENOMEM;
		goto unuse;
	}
	if (peerdma_buffer_is_ram(buffer))
		ret = map_ram(dev, sgt, buffer, dir);
	else
		ret = map_extents(dev, sgt, buffer, dir);
	if (ret)
		goto free_sgt;
	peerdma_buffer_count(buffer, PEERDMA_COUNT_DEVICE_MAPS, 1);
	trace_map(buffer, dev, 0, attachment->dmabuf->size);
	return sgt;

free_sgt:
	kfree(sgt);
unuse:
	peerdma_buffer_unuse(buffer);
	return ERR_PTR(ret);
}

/**
 * peerdma_device_unmap - dma_buf_ops.unmap_dma_buf
 * @attachment: as mapped
 * @sgt: consumed
 * @dir: as mapped
 *
 * On return an IOMMU that translates for the device blocks what it still does.
 */
void peerdma_device_unmap(struct dma_buf_attachment *attachment,
			  struct sg_table *sgt, enum dma_data_direction dir)
{
	struct peerdma_buffer *buffer = attachment->dmabuf->priv;

	if (peerdma_buffer_is_ram(buffer))
		dma_unmap_sgtable(attachment->dev, sgt, dir, 0);
	else
		unmap_extents(attachment->dev, sgt, buffer, buffer->nr_extents,
			      dir);
	peerdma_device_flush(attachment->dev);
	sg_free_table(sgt);
	kfree(sgt);
	peerdma_buffer_count(buffer, PEERDMA_COUNT_DEVICE_MAPS, -1);
	trace_unmap(buffer, attachment->dev, 0, attachment->dmabuf->size);
	peerdma_buffer_unuse(buffer);
}
