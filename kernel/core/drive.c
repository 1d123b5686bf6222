// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which PCI function moves the data of a file?
 */
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/pci.h>

#include "core.h"

/*
 * The block device under a file. A filesystem whose files carry another device
 * number than its block device (btrfs) spreads them over devices of its own
 * choice, so there is no one answer.
 */
static struct block_device *bdev_below(struct file *file)
{
	struct inode *inode = file_inode(file);
	struct super_block *sb = inode->i_sb;

	if (S_ISBLK(inode->i_mode))
		return I_BDEV(file->f_mapping->host);
	if (!sb->s_bdev || sb->s_bdev->bd_dev != sb->s_dev)
		return NULL;
	return sb->s_bdev;
}

/**
 * peerdma_drive_get - the PCI function behind a file
 * @file: a regular file or block device; holds its block device open
 * @reason: out; why there is none
 *
 * Return: the function with a reference, or NULL.
 */
struct pci_dev *peerdma_drive_get(struct file *file, enum peerdma_reason *reason)
{
	struct block_device *bdev = bdev_below(file);
	struct device *dev;

	*reason = PEERDMA_REASON_NO_BLOCK_DEVICE;
	if (!bdev)
		return NULL;

	/* dm, md and loop hang below no device. */
	*reason = PEERDMA_REASON_STACKED;
	dev = disk_to_dev(bdev->bd_disk)->parent;
	if (!dev)
		return NULL;

	*reason = PEERDMA_REASON_NOT_PCI;
	while (dev && !dev_is_pci(dev))
		dev = dev->parent;
	if (!dev)
		return NULL;

	*reason = PEERDMA_REASON_NONE;
	return pci_dev_get(to_pci_dev(dev));
}
