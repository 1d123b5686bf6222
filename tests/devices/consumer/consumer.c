// SPDX-License-Identifier: GPL-2.0-only
/*
 * What many a card's driver does with GPU memory: nvidia_p2p_get_pages() and
 * nvidia_p2p_dma_map_pages(), and trust in what the latter answers. See
 * t_consumer.h.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "nv-p2p.h"
#include "t_consumer.h"

/**
 * struct consumer - an open file
 * @lock: over what follows
 * @pdev: the device; counted
 * @addr: as pinned
 * @table: pinned, or NULL
 * @mapping: of @table for @pdev
 */
struct consumer {
	struct mutex lock; /* over all of it */
	struct pci_dev *pdev;
	u64 addr;
	struct nvidia_p2p_page_table *table;
	struct nvidia_p2p_dma_mapping *mapping;
};

static int consume(struct consumer *consumer, struct t_consume *arg)
{
	u32 i;
	int ret;

	consumer->pdev = pci_get_domain_bus_and_slot(arg->device >> 16,
						     arg->device >> 8 & 0xff,
						     arg->device & 0xff);
	if (!consumer->pdev)
		return -ENOENT;
	consumer->addr = arg->addr;
	ret = nvidia_p2p_get_pages_persistent(arg->addr, arg->len,
					      &consumer->table, 0);
	if (ret)
		goto put_device;
	ret = nvidia_p2p_dma_map_pages(consumer->pdev, consumer->table,
				       &consumer->mapping);
	if (ret)
		goto put_pages;
	ret = -EINVAL;
	if (consumer->mapping->entries > T_CONSUMER_MOST)
		goto unmap;
	arg->out_nr = consumer->mapping->entries;
	for (i = 0; i < arg->out_nr; i++)
		arg->out_addresses[i] = consumer->mapping->dma_addresses[i];
	return 0;

unmap:
	nvidia_p2p_dma_unmap_pages(consumer->pdev, consumer->table,
				   consumer->mapping);
put_pages:
	nvidia_p2p_put_pages_persistent(arg->addr, consumer->table, 0);
	consumer->table = NULL;
put_device:
	pci_dev_put(consumer->pdev);
	return ret;
}

static long consumer_ioctl(struct file *file, unsigned int cmd,
			   unsigned long uarg)
{
	struct consumer *consumer = file->private_data;
	void __user *user = (void __user *)uarg;
	struct t_consume arg;
	long ret;

	if (cmd != T_CONSUME)
		return -ENOTTY;
	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	mutex_lock(&consumer->lock);
	ret = consumer->table ? -EBUSY : consume(consumer, &arg);
	mutex_unlock(&consumer->lock);
	if (!ret && copy_to_user(user, &arg, sizeof(arg)))
		ret = -EFAULT;
	return ret;
}

static int consumer_open(struct inode *inode, struct file *file)
{
	struct consumer *consumer = kzalloc(sizeof(*consumer), GFP_KERNEL);

	if (!consumer)
		return -ENOMEM;
	mutex_init(&consumer->lock);
	file->private_data = consumer;
	return 0;
}

static int consumer_release(struct inode *inode, struct file *file)
{
	struct consumer *consumer = file->private_data;

	if (consumer->table) {
		nvidia_p2p_dma_unmap_pages(consumer->pdev, consumer->table,
					   consumer->mapping);
		nvidia_p2p_put_pages_persistent(consumer->addr, consumer->table,
						0);
		pci_dev_put(consumer->pdev);
	}
	kfree(consumer);
	return 0;
}

static const struct file_operations consumer_fops = {
	.owner = THIS_MODULE,
	.open = consumer_open,
	.release = consumer_release,
	.unlocked_ioctl = consumer_ioctl,
};

static struct miscdevice consumer_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "t_consumer",
	.fops = &consumer_fops,
};
module_misc_device(consumer_misc);

MODULE_DESCRIPTION("A user of NVIDIA's peer-to-peer interface, for tests");
MODULE_LICENSE("GPL");
