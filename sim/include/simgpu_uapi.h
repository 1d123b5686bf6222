/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * What sim/cuda's libcuda.so.1 says to /dev/simgpuN.
 *
 * An open file is one client: one process's use of one GPU. Only the process
 * that opened it may use it, and closing it frees all that it allocated. The
 * client chooses the virtual addresses: its library reserves them with
 * mmap(PROT_NONE), so that the CPU faults on a device pointer, as it does with a
 * real GPU.
 *
 * Errno: EINVAL wrong value or misaligned, EFAULT an address that is not (wholly)
 * memory of the calling process, EEXIST the range is in use, ENOENT no such
 * allocation or handle, ENOMEM memory exhausted, EPERM not the process that
 * opened the file, ENODEV the GPU is gone.
 */
#ifndef _UAPI_SIMGPU_H
#define _UAPI_SIMGPU_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct simgpu_info - the GPU behind this file
 * @vram_bytes: size of its memory
 * @free_bytes: what nobody has allocated
 * @page_bytes: physical page size
 * @granule: alignment of every address and length below, bytes
 * @caps: none defined yet
 * @domain: PCI address
 * @bus: PCI address
 * @devfn: PCI address
 * @uuid: stable as long as the PCI address is
 */
struct simgpu_info {
	__u64 vram_bytes;
	__u64 free_bytes;
	__u32 page_bytes;
	__u32 granule;
	__u32 caps;
	__u16 domain;
	__u8 bus;
	__u8 devfn;
	__u8 uuid[16];
};

/**
 * struct simgpu_alloc - memory at a virtual address, in one step
 * @va: where, a multiple of the granule
 * @len: how much, a multiple of the granule
 */
struct simgpu_alloc {
	__u64 va;
	__u64 len;
};

/**
 * struct simgpu_free - undo SIMGPU_ALLOC or SIMGPU_MAP
 * @va: the start of the range
 */
struct simgpu_free {
	__u64 va;
};

/**
 * struct simgpu_create - memory without an address
 * @len: how much, a multiple of the granule
 * @out_handle: for SIMGPU_MAP and SIMGPU_RELEASE
 * @reserved: 0
 */
struct simgpu_create {
	__u64 len;
	__u32 out_handle;
	__u32 reserved;
};

/**
 * struct simgpu_release - forget a handle; what is mapped stays mapped
 * @handle: from SIMGPU_CREATE
 * @reserved: 0
 */
struct simgpu_release {
	__u32 handle;
	__u32 reserved;
};

/**
 * struct simgpu_map - give memory an address
 * @va: where, a multiple of the granule
 * @len: how much, a multiple of the granule
 * @offset: into the memory, a multiple of the granule
 * @handle: from SIMGPU_CREATE
 * @reserved: 0
 */
struct simgpu_map {
	__u64 va;
	__u64 len;
	__u64 offset;
	__u32 handle;
	__u32 reserved;
};

/**
 * struct simgpu_memset - repeat a value
 * @va: first byte, a multiple of @width
 * @len: bytes, a multiple of @width
 * @value: the low @width bytes count
 * @width: 1, 2 or 4
 */
struct simgpu_memset {
	__u64 va;
	__u64 len;
	__u32 value;
	__u32 width;
};

#define SIMGPU_HOST_TO_DEVICE	0
#define SIMGPU_DEVICE_TO_HOST	1
#define SIMGPU_DEVICE_TO_DEVICE	2

/**
 * struct simgpu_copy - move bytes, at any alignment
 * @dst: an address of the calling process
 * @src: an address of the calling process
 * @len: bytes
 * @direction: SIMGPU_HOST_TO_DEVICE and so on; device addresses may lie on
 *	another GPU than this file's
 * @reserved: 0
 */
struct simgpu_copy {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u32 direction;
	__u32 reserved;
};

/**
 * struct simgpu_export_fd - a dma-buf of memory, which lives as long as that
 * @va: first byte, a multiple of the CPU's page
 * @len: bytes, a multiple of the CPU's page; may go on through adjacent maps
 * @out_fd: close-on-exec
 * @reserved: 0
 */
struct simgpu_export_fd {
	__u64 va;
	__u64 len;
	__s32 out_fd;
	__u32 reserved;
};

#define SIMGPU_INFO	_IOR('G', 0, struct simgpu_info)
#define SIMGPU_ALLOC	_IOW('G', 1, struct simgpu_alloc)
#define SIMGPU_FREE	_IOW('G', 2, struct simgpu_free)
#define SIMGPU_CREATE	_IOWR('G', 3, struct simgpu_create)
#define SIMGPU_RELEASE	_IOW('G', 4, struct simgpu_release)
#define SIMGPU_MAP	_IOW('G', 5, struct simgpu_map)
#define SIMGPU_MEMSET	_IOW('G', 6, struct simgpu_memset)
#define SIMGPU_COPY	_IOW('G', 7, struct simgpu_copy)
#define SIMGPU_EXPORT	_IOWR('G', 8, struct simgpu_export_fd)

#endif
