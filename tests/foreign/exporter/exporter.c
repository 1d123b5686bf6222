// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another exporter, of every kind: see t_exporter.h.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "t_exporter.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define T_DMA_BUF_NS	DMA_BUF
#else
#define T_DMA_BUF_NS	"DMA_BUF"
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#define dma_buf_invalidate_mappings	dma_buf_move_notify
#define invalidate_mappings		move_notify
#endif

#define PIECE	SZ_64K

/**
 * struct export - what stands behind a dma-buf
 * @pdev: counted
 * @phys: where the memory is; under the dma_resv
 * @len: bytes
 * @flags: T_EXPORT_*
 * @revoked: not to be mapped; under the dma_resv
 * @mappings: that there are; under the dma_resv
 * @attachments: that there are
 * @attached: that there have ever been
 * @pinned: how often; under the dma_resv
 * @ram: the piece that is host memory
 *
 * Owner: the dma-buf, whose release ends it.
 */
struct export {
	struct pci_dev *pdev;
	phys_addr_t phys;
	u64 len;
	u32 flags;
	bool revoked;
	u32 mappings;
	atomic_t attachments;
	atomic_t attached;
	u32 pinned;
	void *ram;
};

static int export_attach(struct dma_buf *dmabuf,
			 struct dma_buf_attachment *attachment)
{
	struct export *export = dmabuf->priv;

	if (export->flags & T_EXPORT_NO_ATTACH)
		return -EPERM;
	if (export->flags & T_EXPORT_DRIVES &&
	    to_pci_dev(attachment->dev)->class != PCI_CLASS_STORAGE_EXPRESS)
		return -EPERM;
	if (!attachment->peer2peer || !attachment->importer_ops)
		return -EOPNOTSUPP;
	/* As vfio-pci. */
	if (export->flags & T_EXPORT_REVOCABLE &&
	    !attachment->importer_ops->invalidate_mappings)
		return -EOPNOTSUPP;
	atomic_inc(&export->attachments);
	atomic_inc(&export->attached);
	return 0;
}

static void export_detach(struct dma_buf *dmabuf,
			  struct dma_buf_attachment *attachment)
{
	struct export *export = dmabuf->priv;

	atomic_dec(&export->attachments);
}

static int export_pin(struct dma_buf_attachment *attachment)
{
	struct export *export = attachment->dmabuf->priv;

	if (export->flags & T_EXPORT_NO_PROMISE)
		return -EBUSY;
	export->pinned++;
	return 0;
}

static void export_unpin(struct dma_buf_attachment *attachment)
{
	struct export *export = attachment->dmabuf->priv;

	WARN_ON(!export->pinned--);
}

/* Where the piece that comes at @index lies. */
static phys_addr_t piece_phys(const struct export *export, u32 index)
{
	u32 nr = export->len / PIECE;

	if (index >= nr - 2 && export->flags & T_EXPORT_AROUND)
		return -(phys_addr_t)PIECE * (nr - 1 - index);
	if (index == nr - 1 && export->flags & T_EXPORT_WRAP)
		return -(phys_addr_t)PAGE_SIZE;
	if (index == nr - 1 && export->flags & T_EXPORT_BEYOND)
		return pci_resource_end(export->pdev, 2) + 1;
	if (export->flags & T_EXPORT_SCATTERED)
		index = nr - 1 - index;
	return export->phys + (u64)index * PIECE;
}

static bool piece_is_ram(const struct export *export, u32 index)
{
	return export->flags & T_EXPORT_HOST_TAIL &&
	       index == export->len / PIECE - 1;
}

static dma_addr_t map_piece(struct export *export, struct device *dev,
			    u32 index)
{
	phys_addr_t phys = piece_phys(export, index);

	if (export->flags & T_EXPORT_RAW)
		return phys;
	if (piece_is_ram(export, index))
		return dma_map_single(dev, export->ram, PIECE,
				      DMA_BIDIRECTIONAL);
	return dma_map_resource(dev, phys, PIECE, DMA_BIDIRECTIONAL, 0);
}

static void unmap_piece(struct export *export, struct device *dev, u32 index,
			dma_addr_t addr)
{
	if (export->flags & T_EXPORT_UNALIGNED)
		addr -= 512;
	if (export->flags & T_EXPORT_RAW)
		return;
	if (piece_is_ram(export, index))
		dma_unmap_single(dev, addr, PIECE, DMA_BIDIRECTIONAL);
	else
		dma_unmap_resource(dev, addr, PIECE, DMA_BIDIRECTIONAL, 0);
}

static void unmap_pieces(struct export *export, struct device *dev,
			 struct sg_table *sgt, u32 nr)
{
	struct scatterlist *sg;
	u32 i;

	for_each_sg(sgt->sgl, sg, nr, i)
		unmap_piece(export, dev, i, sg_dma_address(sg));
	sg_free_table(sgt);
	kfree(sgt);
}

static struct sg_table *export_map(struct dma_buf_attachment *attachment,
				   enum dma_data_direction dir)
{
	struct export *export = attachment->dmabuf->priv;
	struct device *dev = attachment->dev;
	struct scatterlist *sg;
	struct sg_table *sgt;
	u32 i;

	dma_resv_assert_held(attachment->dmabuf->resv);
	if (export->revoked)
		return ERR_PTR(-ENODEV);
	if (export->flags & T_EXPORT_NO_MAP)
		return NULL;
	sgt = kzalloc(sizeof(*sgt), GFP_KERNEL);
	if (!sgt || sg_alloc_table(sgt, export->len / PIECE, GFP_KERNEL)) {
		kfree(sgt);
		return ERR_PTR(-ENOMEM);
	}
	for_each_sg(sgt->sgl, sg, sgt->nents, i) {
		dma_addr_t addr = map_piece(export, dev, i);

		if (dma_mapping_error(dev, addr)) {
			unmap_pieces(export, dev, sgt, i);
			return ERR_PTR(-EIO);
		}
		if (export->flags & T_EXPORT_UNALIGNED)
			addr += 512;
		sg_dma_address(sg) = addr;
		sg_dma_len(sg) = PIECE;
		if (i == sgt->nents - 1 && export->flags & T_EXPORT_SHORT)
			sg_dma_len(sg) -= PAGE_SIZE;
		if (i == sgt->nents - 1 && export->flags & T_EXPORT_LONG)
			sg_dma_len(sg) += PAGE_SIZE;
		if (!i && export->flags & T_EXPORT_EMPTY)
			sg_dma_len(sg) = 0;
	}
	export->mappings++;
	return sgt;
}

static void export_unmap(struct dma_buf_attachment *attachment,
			 struct sg_table *sgt, enum dma_data_direction dir)
{
	struct export *export = attachment->dmabuf->priv;

	dma_resv_assert_held(attachment->dmabuf->resv);
	export->mappings--;
	unmap_pieces(export, attachment->dev, sgt, sgt->nents);
}

static void export_free(struct export *export)
{
	WARN_ON(export->mappings || export->pinned);
	if (export->ram)
		free_pages_exact(export->ram, PIECE);
	pci_dev_put(export->pdev);
	kfree(export);
}

static void export_release(struct dma_buf *dmabuf)
{
	export_free(dmabuf->priv);
}

static const struct dma_buf_ops static_ops = {
	.attach = export_attach,
	.detach = export_detach,
	.map_dma_buf = export_map,
	.unmap_dma_buf = export_unmap,
	.release = export_release,
};

static const struct dma_buf_ops dynamic_ops = {
	.attach = export_attach,
	.detach = export_detach,
	.pin = export_pin,
	.unpin = export_unpin,
	.map_dma_buf = export_map,
	.unmap_dma_buf = export_unmap,
	.release = export_release,
};

static struct export *export_alloc(const struct t_export *arg)
{
	struct export *export = kzalloc(sizeof(*export), GFP_KERNEL);

	if (!export)
		return NULL;
	export->ram = alloc_pages_exact(PIECE, GFP_KERNEL);
	export->pdev = pci_get_domain_bus_and_slot(arg->device >> 16,
						   arg->device >> 8 & 0xff,
						   arg->device & 0xff);
	if (!export->ram || !export->pdev) {
		export_free(export);
		return NULL;
	}
	export->phys = pci_resource_start(export->pdev, arg->bar) + arg->offset;
	export->len = arg->len;
	export->flags = arg->flags;
	return export;
}

static long export_ioctl(void __user *user)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct export *export;
	struct dma_buf *dmabuf;
	struct t_export arg;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	export = export_alloc(&arg);
	if (!export)
		return -ENODEV;
	info.exp_name = "a long name of an exporter";
	info.ops = arg.flags & T_EXPORT_DYNAMIC ? &dynamic_ops : &static_ops;
	info.size = arg.len;
	info.flags = arg.flags & T_EXPORT_READ_ONLY ? O_RDONLY : O_RDWR;
	info.priv = export;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		export_free(export);
		return PTR_ERR(dmabuf);
	}
	arg.out_fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (arg.out_fd < 0) {
		dma_buf_put(dmabuf);
		return arg.out_fd;
	}
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long move_ioctl(void __user *user)
{
	struct dma_buf *dmabuf;
	struct export *export;
	struct t_move arg;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	dmabuf = dma_buf_get(arg.fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	if (dmabuf->ops != &static_ops && dmabuf->ops != &dynamic_ops) {
		dma_buf_put(dmabuf);
		return -EINVAL;
	}
	export = dmabuf->priv;

	dma_resv_lock(dmabuf->resv, NULL);
	if (!arg.ask) {
		export->revoked = arg.revoke;
		dma_buf_invalidate_mappings(dmabuf);
		dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP,
				      false, MAX_SCHEDULE_TIMEOUT);
		export->phys = pci_resource_start(export->pdev, 2) + arg.offset;
	}
	arg.out_mappings = export->mappings;
	dma_resv_unlock(dmabuf->resv);
	arg.out_attachments = atomic_read(&export->attachments);
	arg.out_attached = atomic_read(&export->attached);
	dma_buf_put(dmabuf);
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long exporter_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	switch (cmd) {
	case T_EXPORT:
		return export_ioctl((void __user *)arg);
	case T_MOVE:
		return move_ioctl((void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations exporter_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = exporter_ioctl,
};

static struct miscdevice exporter = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "t_exporter",
	.fops = &exporter_fops,
	.mode = 0600,
};
module_misc_device(exporter);

MODULE_DESCRIPTION("dma-bufs of a BAR by every kind of exporter");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(T_DMA_BUF_NS);
