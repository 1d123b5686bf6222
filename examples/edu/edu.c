// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for QEMU's edu card, as the maker of an FPGA board might write it:
 * its DMA engine moves bytes between the card's memory and memory of another
 * driver's, such as a GPU's, that user space names by a dma-buf descriptor. The
 * README goes through it step by step.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/iopoll.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/version.h>

#include "edu.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#define invalidate_mappings	move_notify
#endif

#define EDU_SOURCE	0x80
#define EDU_TARGET	0x88
#define EDU_COUNT	0x90
#define EDU_COMMAND	0x98
#define EDU_RUN		BIT(0)
#define EDU_FROM_CARD	BIT(1)
#define EDU_MEMORY	0x40000		/* where the card has its own */
#define EDU_CHUNK	4096		/* bytes of it */

static unsigned int dma_bits = 28;
module_param(dma_bits, uint, 0444);
MODULE_PARM_DESC(dma_bits, "the card's address lines; QEMU: edu,dma_mask=");

static bool static_attach;
module_param(static_attach, bool, 0644);
MODULE_PARM_DESC(static_attach, "attach as drivers that cannot let go do");

/* One card. It lives until the driver has left it and its file is closed. */
struct edu {
	refcount_t users;
	struct mutex lock;		/* one call at a time */
	struct pci_dev *pdev;
	struct miscdevice misc;
	void __iomem *regs;
	void *host;			/* for user space's bytes */
	dma_addr_t host_addr;
	bool opened;			/* by one file at a time */
	bool gone;			/* unplugged or broken */
	struct dma_buf *dmabuf;		/* attached, or NULL */
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;		/* mapped, or NULL; resv lock */
};

/* Run the engine. On return it is at rest, whatever happened. */
static int edu_run(struct edu *edu, dma_addr_t addr, u32 len, bool from_card)
{
	u32 state = EDU_RUN | (from_card ? EDU_FROM_CARD : 0);

	if (edu->gone)
		return -ENODEV;
	writeq(from_card ? EDU_MEMORY : addr, edu->regs + EDU_SOURCE);
	writeq(from_card ? addr : EDU_MEMORY, edu->regs + EDU_TARGET);
	writeq(len, edu->regs + EDU_COUNT);
	writeq(state, edu->regs + EDU_COMMAND);
	if (!readl_poll_timeout(edu->regs + EDU_COMMAND, state,
				!(state & EDU_RUN), 1000, 5 * USEC_PER_SEC))
		return 0;
	pci_clear_master(edu->pdev);
	edu->gone = true;
	return -EIO;
}

/* With the reservation lock held: by our own wish, or the memory's owner's. */
static void edu_unmap(struct dma_buf_attachment *attach)
{
	struct edu *edu = attach->importer_priv;

	if (edu->sgt)
		dma_buf_unmap_attachment(attach, edu->sgt, DMA_BIDIRECTIONAL);
	edu->sgt = NULL;
}

static const struct dma_buf_attach_ops edu_attach_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = edu_unmap,
};

/*
 * Between the card and the dma-buf, which is in pieces: *len is what was moved.
 *
 * Whoever wants the memory back takes the reservation lock first and so waits
 * for the engine; then edu_unmap() is called, and whoever asks for a mapping
 * again gets -ENODEV.
 */
static int edu_run_buffer(struct edu *edu, u64 offset, u32 *len, bool write)
{
	struct dma_resv *resv = edu->dmabuf->resv;
	struct sg_table *sgt;
	struct scatterlist *sg;
	unsigned int i;
	dma_addr_t addr;
	int err;

	dma_resv_lock(resv, NULL);
	sgt = edu->sgt ?: dma_buf_map_attachment(edu->attach, DMA_BIDIRECTIONAL);
	err = PTR_ERR_OR_ZERO(sgt);
	if (err)
		goto unlock;
	edu->sgt = sgt;
	/* The owner may still be moving the bytes to where they are now. */
	dma_resv_wait_timeout(resv, DMA_RESV_USAGE_KERNEL, false, LONG_MAX);
	for_each_sgtable_dma_sg(sgt, sg, i) {
		if (offset < sg_dma_len(sg))
			break;
		offset -= sg_dma_len(sg);
	}
	/* Not all exporters map all of it, or heed the mask. */
	err = -ERANGE;
	if (!sg)
		goto unlock;
	addr = sg_dma_address(sg) + offset;
	*len = min_t(u64, *len, sg_dma_len(sg) - offset);
	/* The card drops what is above. */
	if (addr + *len - 1 <= dma_get_mask(&edu->pdev->dev))
		err = edu_run(edu, addr, *len, write);
unlock:
	dma_resv_unlock(resv);
	return err;
}

/* From here on edu->lock is held by whoever touches edu. */
static void edu_detach(struct edu *edu)
{
	if (!edu->dmabuf)
		return;
	dma_resv_lock(edu->dmabuf->resv, NULL);
	edu_unmap(edu->attach);
	dma_resv_unlock(edu->dmabuf->resv);
	dma_buf_detach(edu->dmabuf, edu->attach);
	dma_buf_put(edu->dmabuf);
	edu->dmabuf = NULL;
}

static int edu_attach(struct edu *edu, int fd)
{
	struct dma_buf *dmabuf = dma_buf_get(fd);

	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	edu->attach = dma_buf_dynamic_attach(dmabuf, &edu->pdev->dev,
					     static_attach ? NULL :
					     &edu_attach_ops, edu);
	if (IS_ERR(edu->attach)) {
		dma_buf_put(dmabuf);
		return PTR_ERR(edu->attach);
	}
	edu->dmabuf = dmabuf;
	return 0;
}

static long edu_ioctl(struct file *file, unsigned int cmd, unsigned long fd)
{
	struct edu *edu = file->private_data;
	int err;

	if (cmd != EDU_ATTACH)
		return -ENOTTY;
	mutex_lock(&edu->lock);
	edu_detach(edu);
	err = edu->gone ? -ENODEV : edu_attach(edu, fd);
	mutex_unlock(&edu->lock);
	return err;
}

static ssize_t edu_transfer(struct kiocb *kiocb, struct iov_iter *data)
{
	struct edu *edu = kiocb->ki_filp->private_data;
	u32 len = min_t(size_t, iov_iter_count(data), EDU_CHUNK);
	bool write = iov_iter_rw(data) == WRITE;
	int err = 0;

	mutex_lock(&edu->lock);
	if (!edu->dmabuf)
		err = edu->gone ? -ENODEV : -ENOTCONN;
	else if (kiocb->ki_pos >= edu->dmabuf->size)
		err = -ENXIO;
	else if (write && copy_from_iter(edu->host, len, data) != len)
		err = -EFAULT;
	if (!err && write)
		err = edu_run(edu, edu->host_addr, len, false);
	if (!err)
		err = edu_run_buffer(edu, kiocb->ki_pos, &len, write);
	if (!err && !write)
		err = edu_run(edu, edu->host_addr, len, true);
	if (!err && !write && copy_to_iter(edu->host, len, data) != len)
		err = -EFAULT;
	mutex_unlock(&edu->lock);
	kiocb->ki_pos += err ? 0 : len;
	return err ? err : (ssize_t)len;
}

static int edu_open(struct inode *inode, struct file *file)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);

	if (xchg(&edu->opened, true))
		return -EBUSY;
	refcount_inc(&edu->users);
	file->private_data = edu;
	return 0;
}

static int edu_release(struct inode *inode, struct file *file)
{
	struct edu *edu = file->private_data;

	mutex_lock(&edu->lock);
	edu_detach(edu);
	mutex_unlock(&edu->lock);
	xchg(&edu->opened, false);
	if (refcount_dec_and_test(&edu->users))
		kfree(edu);
	return 0;
}

static const struct file_operations edu_fops = {
	.owner = THIS_MODULE,
	.open = edu_open,
	.release = edu_release,
	.read_iter = edu_transfer,
	.write_iter = edu_transfer,
	.unlocked_ioctl = edu_ioctl,
};

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu;
	int err;

	err = pcim_enable_device(pdev) ?:
	      pcim_iomap_regions(pdev, BIT(0), "edu") ?:
	      dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(dma_bits));
	if (err)
		return err;
	edu = kzalloc(sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	refcount_set(&edu->users, 1);
	mutex_init(&edu->lock);
	edu->pdev = pdev;
	edu->regs = pcim_iomap_table(pdev)[0];
	edu->misc = (struct miscdevice){ .minor = MISC_DYNAMIC_MINOR,
					 .name = "edu", .fops = &edu_fops };
	edu->host = dmam_alloc_coherent(&pdev->dev, EDU_CHUNK, &edu->host_addr,
					GFP_KERNEL);
	pci_set_master(pdev);
	pci_set_drvdata(pdev, edu);
	err = edu->host ? misc_register(&edu->misc) : -ENOMEM;
	if (err)
		kfree(edu);
	return err;
}

/* A file that is still open is good for nothing but close() from here on. */
static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	misc_deregister(&edu->misc);
	mutex_lock(&edu->lock);
	edu->gone = true;
	edu_detach(edu);
	mutex_unlock(&edu->lock);
	pci_clear_master(pdev);
	if (refcount_dec_and_test(&edu->users))
		kfree(edu);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) }, {}
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};
module_pci_driver(edu_driver);

MODULE_INFO(import_ns, "DMA_BUF");
MODULE_DESCRIPTION("QEMU's edu card: DMA to and from a dma-buf's memory");
MODULE_LICENSE("GPL");
