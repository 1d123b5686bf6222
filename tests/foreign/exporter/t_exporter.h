/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * /dev/t_exporter: dma-bufs of a BAR's memory by every kind of exporter, good
 * and bad. For tests, as root; it believes what it is told.
 */
#ifndef T_EXPORTER_H
#define T_EXPORTER_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Kinds. Without one it knows no pins, as those of GPUs and of vfio-pci. */
#define T_EXPORT_DYNAMIC	(1u << 0)	/* can be pinned */
#define T_EXPORT_NO_PROMISE	(1u << 1)	/* refuses to be pinned */
/* Addresses that a device is given. */
#define T_EXPORT_RAW		(1u << 3)	/* of the BAR, mapped by nobody */
#define T_EXPORT_SCATTERED	(1u << 4)	/* 64 KiB pieces, last one first */
#define T_EXPORT_UNALIGNED	(1u << 5)	/* 512 bytes further */
#define T_EXPORT_SHORT		(1u << 6)	/* of one page less */
#define T_EXPORT_HOST_TAIL	(1u << 7)	/* the last piece is host RAM */
#define T_EXPORT_BEYOND		(1u << 8)	/* the last piece is past the BAR */
/* Refusals. */
#define T_EXPORT_NO_ATTACH	(1u << 9)
#define T_EXPORT_NO_MAP		(1u << 10)
#define T_EXPORT_READ_ONLY	(1u << 11)
#define T_EXPORT_REVOCABLE	(1u << 12)	/* who cannot give it back */
/* More of addresses. */
#define T_EXPORT_LONG		(1u << 13)	/* of one page more */
#define T_EXPORT_EMPTY		(1u << 14)	/* the first piece has no bytes */
#define T_EXPORT_WRAP		(1u << 15)	/* raw: the last piece has the last
						 * page of all, and goes on
						 */

#define T_EXPORT_DRIVES		(1u << 16)	/* for drives only */
#define T_EXPORT_AROUND		(1u << 17)	/* raw: the last piece but one has
						 * the last addresses of all, and
						 * the last one the first
						 */

/**
 * struct t_export - make a dma-buf
 * @device: of the BAR, as PEERDMA_DEVICE()
 * @bar: its number
 * @offset: bytes into the BAR, whole pages
 * @len: bytes, whole pieces of 64 KiB
 * @flags: T_EXPORT_*
 * @out_fd: the dma-buf
 */
struct t_export {
	__u32 device;
	__u32 bar;
	__aligned_u64 offset;
	__aligned_u64 len;
	__u32 flags;
	__s32 out_fd;
};

/**
 * struct t_move - invalidate a dma-buf's mappings and put it elsewhere
 * @fd: the dma-buf
 * @revoke: it cannot be mapped any more
 * @offset: where it is from now on
 * @out_mappings: how many mappings there are when the importers have been told
 * @out_attachments: that there are
 * @out_attached: that there have ever been
 * @ask: only answer
 */
struct t_move {
	__s32 fd;
	__u32 revoke;
	__aligned_u64 offset;
	__u32 out_mappings;
	__u32 out_attachments;
	__u32 out_attached;
	__u32 ask;
};

#define T_EXPORT	_IOWR('x', 0, struct t_export)
#define T_MOVE		_IOWR('x', 1, struct t_move)

#endif /* T_EXPORTER_H */
