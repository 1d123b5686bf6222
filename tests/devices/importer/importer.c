// SPDX-License-Identifier: GPL-2.0-only
/*
 * An importer of every kind: see t_importer.h.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "t_importer.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define T_DMA_BUF_NS	DMA_BUF
#else
#define T_DMA_BUF_NS	"DMA_BUF"
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#define invalidate_mappings	move_notify
#endif

/**
 * struct import - one attachment
 * @lock: below
 * @dmabuf: counted, NULL when nothing is attached
 * @attachment: of it
 * @pdev: what was attached; counted, NULL for the device that is no PCI function
 * @sgt: the mapping, or NULL; under the dma_resv too
 *
 * Owner: its file.
 */
struct import {
	struct mutex lock; /* guards the rest */
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attachment;
	struct pci_dev *pdev;
	struct sg_table *sgt;
};

static struct miscdevice importer;

static void import_unmap(struct dma_buf_attachment *attachment)
{
	struct import *import = attachment->importer_priv;

	if (import->sgt)
		dma_buf_unmap_attachment(attachment, import->sgt,
					 DMA_BIDIRECTIONAL);
	import->sgt = NULL;
}

static const struct dma_buf_attach_ops device_memory_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = import_unmap,
};

static const struct dma_buf_attach_ops ram_ops = {
	.invalidate_mappings = import_unmap,
};

static void import_end(struct import *import)
{
	if (import->dmabuf) {
		dma_resv_lock(import->dmabuf->resv, NULL);
		if (import->sgt)
			dma_buf_unmap_attachment(import->attachment,
						 import->sgt,
						 DMA_BIDIRECTIONAL);
		import->sgt = NULL;
		dma_resv_unlock(import->dmabuf->resv);
		dma_buf_detach(import->dmabuf, import->attachment);
		dma_buf_put(import->dmabuf);
	}
	import->dmabuf = NULL;
	pci_dev_put(import->pdev);
	import->pdev = NULL;
}

static long import_begin(struct import *import, const struct t_import *arg)
{
	const struct dma_buf_attach_ops *ops = &device_memory_ops;
	struct device *dev = importer.this_device;
	struct dma_buf *dmabuf;

	if (arg->device != ~0u) {
		import->pdev = pci_get_domain_bus_and_slot(arg->device >> 16,
							   arg->device >> 8 & 0xff,
							   arg->device & 0xff);
		if (!import->pdev)
			return -ENODEV;
		dev = &import->pdev->dev;
	}
	if (arg->flags & T_IMPORT_RAM)
		ops = &ram_ops;
	if (arg->flags & T_IMPORT_STATIC)
		ops = NULL;
	dmabuf = dma_buf_get(arg->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	import->attachment = dma_buf_dynamic_attach(dmabuf, dev, ops, import);
	if (IS_ERR(import->attachment)) {
		dma_buf_put(dmabuf);
		return PTR_ERR(import->attachment);
	}
	import->dmabuf = dmabuf;
	return 0;
}

static long import_map(struct import *import)
{
	struct sg_table *sgt;

	if (!import->dmabuf || import->sgt)
		return -EINVAL;
	dma_resv_lock(import->dmabuf->resv, NULL);
	sgt = dma_buf_map_attachment(import->attachment, DMA_BIDIRECTIONAL);
	if (!IS_ERR(sgt))
		import->sgt = sgt;
	dma_resv_unlock(import->dmabuf->resv);
	return PTR_ERR_OR_ZERO(sgt);
}

static long import_copy(struct import *import, struct t_copy *arg)
{
	struct scatterlist *sg;
	void *bytes;
	long ret = 0;
	int i;

	if (!import->sgt)
		return -EINVAL;
	/* dma-buf's core hides the pages then. */
	if (IS_ENABLED(CONFIG_DMABUF_DEBUG))
		return -EOPNOTSUPP;
	arg->out_pages = 0;
	arg->out_entries = import->sgt->orig_nents;
	for_each_sgtable_sg(import->sgt, sg, i)
		arg->out_pages += !!sg_page(sg);
	if (arg->out_pages < arg->out_entries)
		return 0;
	bytes = kvmalloc(arg->len, GFP_KERNEL);
	if (!bytes)
		return -ENOMEM;
	arg->len = sg_pcopy_to_buffer(import->sgt->sgl, arg->out_entries, bytes,
				      arg->len, arg->offset);
	if (copy_to_user(u64_to_user_ptr(arg->to), bytes, arg->len))
		ret = -EFAULT;
	kvfree(bytes);
	return ret;
}

static long importer_call(struct import *import, unsigned int cmd,
			  void __user *user)
{
	struct t_import attach;
	struct t_copy copy;
	long ret;

	switch (cmd) {
	case T_IMPORT:
		if (copy_from_user(&attach, user, sizeof(attach)))
			return -EFAULT;
		import_end(import);
		ret = import_begin(import, &attach);
		if (ret)
			import_end(import);
		return ret;
	case T_IMPORT_MAP:
		return import_map(import);
	case T_IMPORT_COPY:
		if (copy_from_user(&copy, user, sizeof(copy)))
			return -EFAULT;
		ret = import_copy(import, &copy);
		if (!ret && copy_to_user(user, &copy, sizeof(copy)))
			ret = -EFAULT;
		return ret;
	default:
		return -ENOTTY;
	}
}

static long importer_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	struct import *import = file->private_data;
	long ret;

	mutex_lock(&import->lock);
	ret = importer_call(import, cmd, (void __user *)arg);
	mutex_unlock(&import->lock);
	return ret;
}

static int importer_open(struct inode *inode, struct file *file)
{
	struct import *import = kzalloc(sizeof(*import), GFP_KERNEL);

	if (!import)
		return -ENOMEM;
	mutex_init(&import->lock);
	file->private_data = import;
	return 0;
}

static int importer_release(struct inode *inode, struct file *file)
{
	struct import *import = file->private_data;

	import_end(import);
	kfree(import);
	return 0;
}

static const struct file_operations importer_fops = {
	.owner = THIS_MODULE,
	.open = importer_open,
	.release = importer_release,
	.unlocked_ioctl = importer_ioctl,
};

static struct miscdevice importer = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "t_importer",
	.fops = &importer_fops,
	.mode = 0600,
};

static int __init importer_init(void)
{
	int ret = misc_register(&importer);

	if (ret)
		return ret;
	ret = dma_coerce_mask_and_coherent(importer.this_device,
					   DMA_BIT_MASK(64));
	if (ret)
		misc_deregister(&importer);
	return ret;
}

static void __exit importer_exit(void)
{
	misc_deregister(&importer);
}

module_init(importer_init);
module_exit(importer_exit);
MODULE_DESCRIPTION("An importer of dma-bufs of every kind");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(T_DMA_BUF_NS);
