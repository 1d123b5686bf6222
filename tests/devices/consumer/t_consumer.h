/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * t_consumer.ko: a third party's driver that asks NVIDIA's interface, and not
 * peerdma, for another device's addresses of GPU memory.
 */
#ifndef T_CONSUMER_H
#define T_CONSUMER_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define T_CONSUMER_DEVICE	"/dev/t_consumer"
#define T_CONSUMER_MOST		16

/**
 * struct t_consume - GPU memory mapped for a device, until the file is closed
 * @addr: of GPU memory, a multiple of 64 KiB
 * @len: bytes, likewise; at most T_CONSUMER_MOST pages
 * @device: PCI address, as PEERDMA_DEVICE()
 * @out_nr: pages
 * @out_addresses: the device's addresses of the pages, as the driver gave them
 *
 * EBUSY when the file has memory already, ENOENT no such device, EINVAL more pages;
 * or what NVIDIA's driver answers.
 */
struct t_consume {
	__u64 addr;
	__u64 len;
	__u32 device;
	__u32 out_nr;
	__u64 out_addresses[T_CONSUMER_MOST];
};

#define T_CONSUME	_IOWR('C', 1, struct t_consume)

#endif
