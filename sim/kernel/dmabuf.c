// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory as a dma-buf, with the properties of NVIDIA's exporter: static (no pin,
 * no revocation), for the CPU not to map, and with addresses that are those of
 * the BAR although an IOMMU translates (raw_dma).
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "simgpu.h"
#include "simgpu_uapi.h"

/* Larger than any GPU, and small enough to allocate the lists for. */
#define EXPORT_MAX	BIT_ULL(36)

/**
 * struct part - physically contiguous bytes
 * @phys: CPU physical address
 * @len: bytes
 */
struct part {
	u64 phys;
	u64 len;
};

/**
 * struct simgpu_export - what stands behind a dma-buf
 * @gpu: all the memory is its; alive as long as we are, see gpu_remove()
 * @mems: referenced, which is what keeps the memory after cuMemFree()
 * @nr_mems: how many
 * @parts: the memory in the order of its addresses, adjacent pages merged
 * @nr_parts: how many
 *
 * Owner: the dma-buf, whose release ends it. Constant once exported.
 */
struct simgpu_export {
	struct simgpu *gpu;
	struct simgpu_mem **mems;
	u32 nr_mems;
	struct part *parts;
	u32 nr_parts;
};

/* Context: simgpu_lock not held. */
static void export_free(struct simgpu_export *export)
{
	u32 i;

	for (i = 0; i < export->nr_mems; i++)
		simgpu_mem_put(export->mems[i]);
	kvfree(export->mems);
	kvfree(export->parts);
	kfree(export);
}

static struct simgpu_export *export_alloc(u64 len)
{
	struct simgpu_export *export = kzalloc_obj(*export, GFP_KERNEL);

	if (!export)
		return NULL;
	/* Ranges and pages that @len bytes can touch, at worst. */
	export->mems = kvcalloc(len / simgpu_granule() + 2,
				sizeof(*export->mems), GFP_KERNEL);
	export->parts = kvcalloc((len >> simgpu_page_shift()) + 2,
				 sizeof(*export->parts), GFP_KERNEL);
	if (export->mems && export->parts)
		return export;
	export_free(export);
	return NULL;
}

static void export_add_part(struct simgpu_export *export, u64 phys, u64 len)
{
	struct part *last = export->parts + export->nr_parts;

	if (export->nr_parts && last[-1].phys + last[-1].len == phys) {
		last[-1].len += len;
		return;
	}
	last->phys = phys;
	last->len = len;
	export->nr_parts++;
}

static void export_add_range(struct simgpu_export *export,
			     const struct simgpu_range *range, u64 va, u64 len)
{
	u64 offset = range->offset + va - range->start;
	struct simgpu_mem *mem = range->mem;
	u32 shift = simgpu_page_shift();
	u64 inside, piece;

	simgpu_mem_get(mem);
	export->mems[export->nr_mems++] = mem;
	for (; len; len -= piece, offset += piece) {
		inside = offset & ((1ull << shift) - 1);
		piece = min(len, (1ull << shift) - inside);
		export_add_part(export, mem->gpu->bar_phys + inside +
				((u64)mem->pages[offset >> shift] << shift),
				piece);
	}
}

/* The addresses may go on through adjacent VMM mappings of one GPU. */
static int export_fill(struct simgpu_export *export, u64 va, u64 len)
{
	struct simgpu_range *range;
	u64 here;

	lockdep_assert_held(&simgpu_lock);
	for (; len; va += here, len -= here) {
		range = simgpu_range_find(task_tgid(current), va);
		if (!range)
			return -EFAULT;
		if (export->gpu && export->gpu != range->mem->gpu)
			return -EINVAL;
		export->gpu = range->mem->gpu;
		here = min(len, range->start + range->len - va);
		export_add_range(export, range, va, here);
	}
	export->gpu->count.dma_bufs++;
	return 0;
}

/* The GPU's driver can go when the last one is gone. */
static void export_destroy(struct simgpu_export *export)
{
	struct simgpu *gpu = export->gpu;

	mutex_lock(&simgpu_lock);
	if (!--gpu->count.dma_bufs)
		wake_up(&gpu->quiet);
	mutex_unlock(&simgpu_lock);
	export_free(export);
}

static int export_op_attach(struct dma_buf *dmabuf,
			    struct dma_buf_attachment *attachment)
{
	/* The real one takes any device for a PCI function, unseen. */
	if (WARN_ONCE(!dev_is_pci(attachment->dev),
		      "attached by what is no PCI device\n"))
		return -EINVAL;
	if (attachment->importer_ops && !attachment->peer2peer)
		return -P2P_ENOTSUPP;
	return 0;
}

static void unmap_entries(struct device *dev, struct sg_table *sgt, u32 nr)
{
	struct scatterlist *sg;
	u32 i;

	for_each_sg(sgt->sgl, sg, nr, i)
		dma_unmap_resource(dev, sg_dma_address(sg), sg_dma_len(sg),
				   DMA_BIDIRECTIONAL, 0);
}

/* Return: 0 or -errno; *nr counts what is mapped. */
static int map_part(struct device *dev, bool raw, const struct part *part,
		    struct scatterlist **sg, u32 *nr)
{
	u64 room = ALIGN_DOWN(dma_get_max_seg_size(dev), PAGE_SIZE);
	dma_addr_t addr;
	u64 done, len;

	for (done = 0; done < part->len; done += len) {
		len = min(part->len - done, room);
		addr = part->phys + done;
		if (!raw && !simgpu_dma_reaches(dev, addr, len))
			return -EIO;
		if (!raw)
			addr = dma_map_resource(dev, addr, len,
						DMA_BIDIRECTIONAL, 0);
		if (!raw && dma_mapping_error(dev, addr))
			return -EIO;
		sg_set_page(*sg, NULL, len, 0);
		sg_dma_address(*sg) = addr;
		sg_dma_len(*sg) = len;
		*sg = sg_next(*sg);
		(*nr)++;
	}
	return 0;
}

static int map_parts(const struct simgpu_export *export, struct device *dev,
		     bool raw, struct sg_table *sgt)
{
	struct scatterlist *sg = sgt->sgl;
	u32 i, nr = 0;
	int err;

	for (i = 0; i < export->nr_parts; i++) {
		err = map_part(dev, raw, &export->parts[i], &sg, &nr);
		if (!err)
			continue;
		if (!raw)
			unmap_entries(dev, sgt, nr);
		return err;
	}
	return 0;
}

static u32 count_entries(const struct simgpu_export *export,
			 struct device *dev)
{
	u64 room = ALIGN_DOWN(dma_get_max_seg_size(dev), PAGE_SIZE);
	u32 i, nr = 0;

	for (i = 0; room && i < export->nr_parts; i++)
		nr += DIV64_U64_ROUND_UP(export->parts[i].len, room);
	return nr;
}

/**
 * struct mapping - a table that was handed out
 * @sgt: what the importer sees
 * @raw: bus addresses that nobody has mapped; the switch may have been turned
 */
struct mapping {
	struct sg_table sgt;
	bool raw;
};

static void count_mapping(struct simgpu *gpu, int n)
{
	mutex_lock(&simgpu_lock);
	gpu->count.dma_mappings += n;
	mutex_unlock(&simgpu_lock);
}

/* NULL whatever went wrong, of which dma-buf's core makes -ENOMEM. */
static struct sg_table *export_op_map(struct dma_buf_attachment *attachment,
				      enum dma_data_direction dir)
{
	struct simgpu_export *export = attachment->dmabuf->priv;
	struct device *dev = attachment->dev;
	u32 nr = count_entries(export, dev);
	struct mapping *mapping;

	if (!nr || simgpu_fail(SIMGPU_FAIL_DMA_BUF_MAP))
		return NULL;
	mapping = kzalloc_obj(*mapping, GFP_KERNEL);
	if (!mapping)
		return NULL;
	mapping->raw = READ_ONCE(simgpu_raw_dma);
	if (sg_alloc_table(&mapping->sgt, nr, GFP_KERNEL))
		goto free_mapping;
	if (map_parts(export, dev, mapping->raw, &mapping->sgt))
		goto free_table;
	count_mapping(export->gpu, 1);
	return &mapping->sgt;

free_table:
	sg_free_table(&mapping->sgt);
free_mapping:
	kfree(mapping);
	return NULL;
}

static void export_op_unmap(struct dma_buf_attachment *attachment,
			    struct sg_table *sgt, enum dma_data_direction dir)
{
	struct simgpu_export *export = attachment->dmabuf->priv;
	struct mapping *mapping = container_of(sgt, struct mapping, sgt);

	if (!mapping->raw)
		unmap_entries(attachment->dev, sgt, sgt->nents);
	sg_free_table(sgt);
	kfree(mapping);
	count_mapping(export->gpu, -1);
}

static int export_op_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	return -P2P_ENOTSUPP;
}

static void export_op_release(struct dma_buf *dmabuf)
{
	export_destroy(dmabuf->priv);
}

static const struct dma_buf_ops export_ops = {
	.attach = export_op_attach,
	.map_dma_buf = export_op_map,
	.unmap_dma_buf = export_op_unmap,
	.mmap = export_op_mmap,
	.release = export_op_release,
};

static struct dma_buf *export_create(u64 va, u64 len)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct simgpu_export *export;
	struct dma_buf *dmabuf;
	int err;

	err = simgpu_fail(SIMGPU_FAIL_DMA_BUF);
	if (err)
		return ERR_PTR(err);
	export = export_alloc(len);
	if (!export)
		return ERR_PTR(-ENOMEM);
	mutex_lock(&simgpu_lock);
	err = export_fill(export, va, len);
	mutex_unlock(&simgpu_lock);
	if (err) {
		export_free(export);
		return ERR_PTR(err);
	}
	info.ops = &export_ops;
	info.size = len;
	info.flags = O_RDWR | O_CLOEXEC;
	info.priv = export;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf))
		export_destroy(export);
	return dmabuf;
}

/**
 * simgpu_export_ioctl() - SIMGPU_EXPORT
 * @arg: struct simgpu_export_fd
 */
long simgpu_export_ioctl(void __user *arg)
{
	struct simgpu_export_fd args;
	struct dma_buf *dmabuf;
	int fd;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.reserved || !args.len || !PAGE_ALIGNED(args.va | args.len) ||
	    args.va + args.len < args.va || args.len > EXPORT_MAX)
		return -EINVAL;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	dmabuf = export_create(args.va, args.len);
	if (IS_ERR(dmabuf)) {
		put_unused_fd(fd);
		return PTR_ERR(dmabuf);
	}
	args.out_fd = fd;
	if (copy_to_user(arg, &args, sizeof(args))) {
		put_unused_fd(fd);
		dma_buf_put(dmabuf);
		return -EFAULT;
	}
	fd_install(fd, dmabuf->file);
	return 0;
}
