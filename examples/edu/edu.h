/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * /dev/edu: an edu card and the memory that it works on.
 *
 *	ioctl(fd, EDU_ATTACH, dmabuf_fd)   from now on, this memory and no other
 *	pwrite(fd, data, len, offset)      data, through the card, to the memory
 *	pread(fd, data, len, offset)       memory, through the card, to data
 *
 * pwrite and pread move at most 4096 bytes, and fewer where the memory's pieces
 * meet. Closing the file, or an EDU_ATTACH that fails, leaves no memory attached.
 *
 * EDU_ATTACH: EBADF, EINVAL no dma-buf; ENODEV the card has gone; or what the
 * memory's driver answers. pwrite and pread: ENOTCONN no memory is attached; ENXIO
 * past its end; ENODEV it was taken back, or the card has gone; ERANGE it is where
 * the card has no address for it; EIO the card does not answer; or what the memory's
 * driver answers.
 */
#ifndef EDU_H
#define EDU_H

#include <linux/ioctl.h>

#define EDU_ATTACH	_IO('E', 1)

#endif
