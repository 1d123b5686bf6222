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

/*
 * The PCI function that a disk hangs below, with a reference. A disk that is
 * removed while it is open loses its hold on what it hung below, but only after it
 * has been marked dead, which takes open_mutex.
 */
static struct pci_dev *function_above(struct gendisk *disk,
				      enum peerdma_reason *reason)
{
	struct pci_dev *found = NULL;
	struct device *dev;

	if (mutex_lock_killable(&disk->open_mutex))
		return ERR_PTR(-EINTR);
	if (peerdma_disk_is_dead(disk)) {
		found = ERR_PTR(-EIO);
		goto unlock;
	}
	dev = disk_to_dev(disk)->parent;
	/* dm, md and loop hang below no device. */
	*reason = dev ? PEERDMA_REASON_NOT_PCI : PEERDMA_REASON_STACKED;
	while (dev && !dev_is_pci(dev))
		dev = dev->parent;
	if (dev)
		found = pci_dev_get(to_pci_dev(dev));
unlock:
	mutex_unlock(&disk->open_mutex);
	return found;
}

/**
 * peerdma_drive_get - the PCI function behind a file
 * @file: a regular file or block device; holds its block device open
 * @reason: out; why there is none
 *
 * Context: process; may sleep, for somebody who opens or closes the disk.
 * Return: the function with a reference; NULL; ERR_PTR: -EINTR, -EIO for a drive
 * that has been removed.
 */
struct pci_dev *peerdma_drive_get(struct file *file, enum peerdma_reason *reason)
{
	struct block_device *bdev = bdev_below(file);
	struct pci_dev *found;

	*reason = PEERDMA_REASON_NO_BLOCK_DEVICE;
	if (!bdev)
		return NULL;
	found = function_above(bdev->bd_disk, reason);
	if (found)
		*reason = PEERDMA_REASON_NONE;
	return found;
}
