/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Old kernels made to look new; force-included into every file of kernel/.
 *
 * The code is written against the newest kernel. This is the one place that
 * knows versions; PEERDMA_HAVE_* come from Kbuild.compat, which looks into the
 * kernel's headers where the version of a change is not the same everywhere.
 */
#ifndef PEERDMA_COMPAT_H
#define PEERDMA_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "peerdma needs Linux 6.1 or newer"
#endif

#include <linux/blkdev.h>
#include <linux/dma-buf.h>
#include <linux/eventfd.h>
#include <linux/export.h>
#include <linux/fs.h>
#include <linux/io_uring/cmd.h>
#include <linux/iommu.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

/* Namespaces are strings: since 6.13, cdd30ebb1b9f; drop with 6.13. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#undef MODULE_IMPORT_NS
#define MODULE_IMPORT_NS(ns)	MODULE_INFO(import_ns, ns)
#define PEERDMA_NS		PEERDMA
#else
#define PEERDMA_NS		"PEERDMA"
#endif

/* kzalloc_obj: since 7.0; drop with 7.0. */
#ifndef kzalloc_obj
#define kzalloc_obj(object, gfp)	kzalloc(sizeof(object), gfp)
#endif

/* GD_DEAD is set under open_mutex: since 6.4; before, the inode is unhashed. */
static inline bool peerdma_disk_is_dead(struct gendisk *disk)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
	return !disk_live(disk);
#else
	return test_bit(GD_DEAD, &disk->state);
#endif
}

/* vm_flags_set: since 6.3, bc292ab00f6c; drop with 6.3. */
#ifndef PEERDMA_HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	mmap_assert_write_locked(vma->vm_mm);
	vma->vm_flags |= flags;
}
#endif

/* vmf_insert_mixed takes a plain PFN: since 6.17; drop with 6.17. */
#ifdef PEERDMA_HAVE_PFN_T
#include <linux/pfn_t.h>
#define vmf_insert_mixed(vma, addr, pfn)	\
	vmf_insert_mixed(vma, addr, __pfn_to_pfn_t(pfn, PFN_DEV))
#endif

/* get_dev_pagemap takes one argument: since 6.18; drop with 6.18. */
#ifndef PEERDMA_HAVE_GET_DEV_PAGEMAP_1
#define get_dev_pagemap(pfn)	get_dev_pagemap(pfn, NULL)
#endif

/* dma_buf_invalidate_mappings: since 7.1; drop with 7.1. */
#ifndef PEERDMA_HAVE_INVALIDATE_MAPPINGS
#define dma_buf_invalidate_mappings	dma_buf_move_notify
#define invalidate_mappings		move_notify
#endif

/*
 * The protection of a page that is mapped, with mmap_lock held.
 * follow_pfnmap_start() is there since 6.12; follow_pte(), which it replaced, took
 * the mm until 6.10.
 */
static inline int peerdma_mapped_prot(struct vm_area_struct *vma,
				      unsigned long addr, pgprot_t *prot)
{
#ifdef PEERDMA_HAVE_FOLLOW_PFNMAP
	struct follow_pfnmap_args args = { .vma = vma, .address = addr };
	int ret = follow_pfnmap_start(&args);

	if (ret)
		return ret;
	*prot = args.pgprot;
	follow_pfnmap_end(&args);
	return 0;
#else
	spinlock_t *lock; /* the page table's */
	pte_t *pte;
	int ret;

#ifdef PEERDMA_HAVE_FOLLOW_PTE_VMA
	ret = follow_pte(vma, addr, &pte, &lock);
#else
	ret = follow_pte(vma->vm_mm, addr, &pte, &lock);
#endif
	if (ret)
		return ret;
	*prot = pte_pgprot(*pte);
	pte_unmap_unlock(pte, lock);
	return 0;
#endif
}

/* iommu_map takes GFP flags: since 6.3, 1369459b2e21; drop with 6.3. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline int peerdma_iommu_map(struct iommu_domain *domain,
				    unsigned long iova, phys_addr_t phys,
				    size_t size, int prot, gfp_t gfp)
{
	return iommu_map(domain, iova, phys, size, prot);
}

#define iommu_map peerdma_iommu_map
#endif

/* iommu_paging_domain_alloc: since 6.11; drop with 6.11. */
#ifndef PEERDMA_HAVE_PAGING_DOMAIN_ALLOC
static inline struct iommu_domain *iommu_paging_domain_alloc(struct device *dev)
{
	struct iommu_domain *domain = iommu_domain_alloc(dev->bus);

	if (domain)
		return domain;
	return ERR_PTR(device_iommu_mapped(dev) ? -ENOMEM : -ENODEV);
}
#endif

/*
 * An importer may decline to give memory back, and who takes it back refuses it:
 * since 7.1, with dma_buf_attach_revocable(); drop with 7.1. Before, each had to
 * have the callback, and none was called for memory that cannot be or is not
 * pinned, until vfio-pci came in 6.19.
 */
#ifdef PEERDMA_HAVE_INVALIDATE_MAPPINGS
#define PEERDMA_DECLINED(callback)	(0 ? (callback) : NULL)
#else
#define PEERDMA_DECLINED(callback)	callback
#endif

static inline bool peerdma_declining_is_heard(void)
{
	return __is_defined(PEERDMA_HAVE_INVALIDATE_MAPPINGS) ||
	       LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0);
}

/* eventfd_signal always adds one: since 6.8, 3652117f8548; drop with 6.8. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define eventfd_signal(ctx)	eventfd_signal(ctx, 1)
#endif

/* vfs_iocb_iter_write starts the write itself: since 6.8, 6ae654392bb5. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
static inline ssize_t compat_iocb_iter_write(struct file *file,
					     struct kiocb *kiocb,
					     struct iov_iter *iter)
{
	ssize_t ret;

	kiocb_start_write(kiocb);
	ret = vfs_iocb_iter_write(file, kiocb, iter);
	if (ret != -EIOCBQUEUED)
		kiocb_end_write(kiocb);
	return ret;
}

#define vfs_iocb_iter_write	compat_iocb_iter_write
#endif

/*
 * Unbuffered I/O stopped to check every bio_vec's length together with
 * iov_iter_is_aligned(): since 6.18; drop with 6.18.
 */
static inline bool peerdma_bvecs_are_whole_blocks(void)
{
	return __is_defined(PEERDMA_HAVE_ITER_IS_ALIGNED);
}

/*
 * What the caller put into the submission's cmd[]. linux/io_uring/cmd.h is there
 * since 6.8 (compat/include has it for older kernels), cmd->sqe since 6.6. From
 * 6.10, 5eff57fa9f3a, to 6.14, e663da62ba86, cmd->sqe of a command that comes
 * back in a worker still points into the caller's ring, which by then may hold
 * another command; the copy that belongs to this one is in async_data.
 */
static inline const void *peerdma_uring_payload(struct io_uring_cmd *cmd,
						unsigned int issue_flags)
{
#ifndef PEERDMA_HAVE_URING_SQE
	return cmd->cmd;
#else
	const struct io_uring_sqe *sqe = cmd->sqe;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0) && \
	LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
	if (!(issue_flags & IO_URING_F_NONBLOCK) &&
	    cmd_to_io_kiocb(cmd)->async_data)
		sqe = cmd_to_io_kiocb(cmd)->async_data;
#endif
	return sqe->cmd;
#endif
}

/*
 * Since 6.18, which brought dma_map_phys(), a kernel with DMA_API_DEBUG refuses to
 * map every device page but P2PDMA ones, and nvme queues such a request again
 * without end. Who builds for a kernel that has been taught better says so with
 * PEERDMA_DMA_DEBUG_NARROWED=y on make's command line.
 */
static inline bool peerdma_dma_debug_refuses(void)
{
	return IS_ENABLED(CONFIG_DMA_API_DEBUG) &&
	       __is_defined(PEERDMA_HAVE_DMA_MAP_PHYS) &&
	       !__is_defined(PEERDMA_HAVE_DMA_DEBUG_NARROWED);
}

/* io_uring_cmd_to_pdu: since 6.9; drop with 6.9. */
#ifndef io_uring_cmd_to_pdu
#define io_uring_cmd_to_pdu(c, type)	((type *)&(c)->pdu)
#endif

/* io_uring_cmd_done lost its second result: since 6.18; drop with 6.18. */
#ifndef PEERDMA_HAVE_URING_DONE_3
#define io_uring_cmd_done(cmd, ret, issue_flags)	\
	io_uring_cmd_done(cmd, ret, 0, issue_flags)
#endif

/* Task work gets a token instead of the command: since 6.19; drop with 6.19. */
#ifdef PEERDMA_HAVE_URING_TW_REQ
#define PEERDMA_URING_TASK_WORK(fn)	fn##_task_work
#define PEERDMA_DEFINE_URING_TASK_WORK(fn)				\
static void fn##_task_work(struct io_tw_req req, io_tw_token_t token)	\
{									\
	fn(io_uring_cmd_from_tw(req),					\
	   IO_URING_CMD_TASK_WORK_ISSUE_FLAGS);				\
}
#else
#define PEERDMA_URING_TASK_WORK(fn)	fn
#define PEERDMA_DEFINE_URING_TASK_WORK(fn)
#endif

#endif /* PEERDMA_COMPAT_H */
