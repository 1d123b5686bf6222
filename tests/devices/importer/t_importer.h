/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * /dev/t_importer: a driver that attaches to a dma-buf in any of the ways that there
 * are. For tests, as root; it believes what it is told. A file is one attachment.
 */
#ifndef T_IMPORTER_H
#define T_IMPORTER_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* How. Without one it can let go, and takes devices' memory. */
#define T_IMPORT_STATIC	(1u << 0)	/* cannot let go */
#define T_IMPORT_RAM	(1u << 1)	/* wants memory that is RAM */

/**
 * struct t_import - attach
 * @fd: the dma-buf
 * @flags: T_IMPORT_*
 * @device: a PCI function as PEERDMA_DEVICE(), or all ones for a device that is none
 * @reserved: not looked at
 */
struct t_import {
	__s32 fd;
	__u32 flags;
	__u32 device;
	__u32 reserved;
};

/**
 * struct t_copy - read what is mapped, by its struct pages; EOPNOTSUPP where the
 *	kernel hides them
 * @to: user pointer
 * @offset: bytes from the start of the dma-buf
 * @len: bytes
 * @out_pages: entries of the table that have pages
 * @out_entries: all of them
 */
struct t_copy {
	__aligned_u64 to;
	__aligned_u64 offset;
	__aligned_u64 len;
	__u32 out_pages;
	__u32 out_entries;
};

#define T_IMPORT	_IOW('i', 0, struct t_import)
#define T_IMPORT_MAP	_IO('i', 1)
#define T_IMPORT_COPY	_IOWR('i', 2, struct t_copy)

#endif /* T_IMPORTER_H */
