// SPDX-License-Identifier: GPL-2.0-only
/*
 * A buffer as struct pages for user space: the descriptor that PAGES makes, and
 * its mmap(). A process hands the mapping to pread(2), io_uring or whatever else
 * takes pages, as if it were RAM.
 *
 * The kernel gives references to the pages to whoever asks (a request in flight,
 * an io_uring registered buffer, a pipe), for as long as they like, and tells
 * nobody when they let go: a generic page has no callback on newer kernels, and
 * memunmap_pages() waits for no user of one. So the references are counted here.
 * Nobody but pages.c registers the pages, which starts them with a count of one
 * and never drops it: a page with that count is held by nobody. A page map keeps
 * its buffer, and so the pin, until all of its pages are back at it.
 */
#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/page_ref.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "core.h"

#define POLL_TIME	(HZ / 10)

/**
 * struct page_map - the pages of a buffer, lent to user space
 * @list: in peerdma_core::page_maps
 * @buffer: counted
 * @write_combined: how the pages' memory is reserved, and so to be mapped
 * @closed: no descriptor and no mapping is left
 * @using: counts among the buffer's users
 * @held: somebody holds a page, and only therefore the memory is kept
 * @extent: pages of extents before this one are held by nobody, see pages_held()
 * @page: likewise, of that extent
 *
 * Owner: its file, and after the file's release the list until nobody holds a
 * page. @closed and what follows is guarded by peerdma_core::page_maps_lock.
 */
struct page_map {
	struct list_head list;
	struct peerdma_buffer *buffer;
	bool write_combined;
	bool closed;
	bool using;
	bool held;
	u32 extent;
	u64 page;
};

/*
 * Memory that is pinned twice may be mapped through the other pin's page map, which
 * holds no page of this one. It may come or go meanwhile, so the lower count is
 * believed. The pages are of order 0, so the field is the count less one.
 */
static bool page_is_held(struct page *page)
{
	int mapped = atomic_read_acquire(&page->_mapcount);
	int refs = atomic_read_acquire(&page->_refcount);

	return refs - 2 > min(mapped, atomic_read(&page->_mapcount));
}

/*
 * Does anybody hold a page? To be asked when no mapping of this buffer can get a
 * page any more: only who has a reference can then make another, or who uses the
 * memory by another pin, so a page that nobody holds need not be looked at again.
 */
static bool pages_held(struct page_map *map)
{
	const struct peerdma_buffer *buffer = map->buffer;

	lockdep_assert_held(&peerdma.page_maps_lock);
	for (; map->extent < buffer->nr_extents; map->extent++, map->page = 0) {
		const struct peerdma_extent *extent =
			&buffer->extents[map->extent];
		unsigned long pfn = PHYS_PFN(extent->phys);

		for (; map->page < PHYS_PFN(extent->len); map->page++)
			if (page_is_held(pfn_to_page(pfn + map->page)))
				return true;
		cond_resched();
	}
	/* What the holders did comes before the memory is given back. */
	smp_mb();
	return false;
}

/* A fault inserts with @alive held, so none does once this is true. */
static bool buffer_is_dead(struct peerdma_buffer *buffer)
{
	bool dead;

	down_read(&buffer->alive);
	dead = buffer->dead;
	up_read(&buffer->alive);
	return dead;
}

static void page_map_set_held(struct page_map *map, bool held)
{
	peerdma_buffer_count(map->buffer, PEERDMA_COUNT_HELD_PAGE_MAPS,
			     held - map->held);
	map->held = held;
}

/*
 * End a page map that was closed, or its use of a revoked buffer, if nobody
 * holds a page. True when somebody does, and is to be waited for. What has ended
 * goes to @ended.
 */
static bool page_map_settle(struct page_map *map, struct list_head *ended)
{
	struct peerdma_buffer *buffer = map->buffer;

	lockdep_assert_held(&peerdma.page_maps_lock);
	if (map->using) {
		if (!map->closed && !buffer_is_dead(buffer))
			return false;
		page_map_set_held(map, pages_held(map));
		if (map->held)
			return true;
		map->using = false;
		peerdma_buffer_unuse(buffer);
	}
	if (map->closed)
		list_move(&map->list, ended);
	return false;
}

/* May call another exporter: with no lock held. */
static void page_maps_free(struct list_head *ended)
{
	struct page_map *map, *next;

	list_for_each_entry_safe(map, next, ended, list) {
		peerdma_buffer_count(map->buffer, PEERDMA_COUNT_PAGE_MAPS, -1);
		peerdma_buffer_put(map->buffer);
		kfree(map);
	}
}

/**
 * peerdma_page_maps_poll - look whether pages that were held are still
 * @work: peerdma_core::page_maps_poll
 */
void peerdma_page_maps_poll(struct work_struct *work)
{
	struct page_map *map, *next;
	bool held = false;
	LIST_HEAD(ended);

	mutex_lock(&peerdma.page_maps_lock);
	list_for_each_entry_safe(map, next, &peerdma.page_maps, list)
		held |= page_map_settle(map, &ended);
	mutex_unlock(&peerdma.page_maps_lock);
	page_maps_free(&ended);
	if (held)
		schedule_delayed_work(&peerdma.page_maps_poll, POLL_TIME);
}

/**
 * peerdma_page_maps_revoked - a buffer's mappings have been zapped
 *
 * Its page maps, if it has any, are no users of it any more as soon as nobody
 * holds a page.
 *
 * Context: any.
 */
void peerdma_page_maps_revoked(void)
{
	schedule_delayed_work(&peerdma.page_maps_poll, 0);
}

static int page_map_release(struct inode *inode, struct file *file)
{
	struct page_map *map = file->private_data;
	LIST_HEAD(ended);
	bool held;

	mutex_lock(&peerdma.page_maps_lock);
	map->closed = true;
	held = page_map_settle(map, &ended);
	mutex_unlock(&peerdma.page_maps_lock);
	page_maps_free(&ended);
	if (held)
		schedule_delayed_work(&peerdma.page_maps_poll, 0);
	return 0;
}

/*
 * Not VM_IO and not VM_PFNMAP, of which the kernel takes no pages. A child does
 * not inherit the mapping unless its parent asks for that (MADV_DOFORK), which
 * does no harm: its pages are counted like all others.
 */
static int page_map_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct page_map *map = file->private_data;
	u64 pages = PHYS_PFN(peerdma_buffer_window(map->buffer));

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff > pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return -EINVAL;

	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP |
			  VM_DONTCOPY);
	vma->vm_page_prot = map->write_combined ?
			    pgprot_writecombine(vma->vm_page_prot) :
			    pgprot_noncached(vma->vm_page_prot);
	vma->vm_private_data = map->buffer;
	vma->vm_ops = &peerdma_cpu_map_ops;
	vma->vm_ops->open(vma);
	return 0;
}

static const struct file_operations page_map_fops = {
	.owner = THIS_MODULE,
	.mmap = page_map_mmap,
	.release = page_map_release,
};

/*
 * Memory that lies wholly above what a function can address without an IOMMU is
 * bounced by the DMA API: slow, and right. All else is as for FILE_IO.
 */
static enum peerdma_reason route_reason(struct pci_dev *from,
					const struct peerdma_buffer *buffer)
{
	phys_addr_t lowest = buffer->end;
	struct peerdma_path path;
	u32 i;

	for (i = 0; i < buffer->nr_extents; i++)
		lowest = min(lowest, buffer->extents[i].phys);
	peerdma_path_find(from, buffer->pdev, lowest + 1, &path);
	if (path.reason == PEERDMA_REASON_DMA_MASK)
		return PEERDMA_REASON_NONE;
	peerdma_path_find(from, buffer->pdev, buffer->end, &path);
	return path.reason;
}

/*
 * Once the pages are lent, nobody asks whose DMA will reach them: a drive's, a
 * network card's that sends them, a USB controller's. So every function that
 * does DMA has to reach the memory.
 */
static int routes_check(const struct peerdma_buffer *buffer,
			struct peerdma_page_map *arg)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev) {
		enum peerdma_reason reason;

		if (pdev == buffer->pdev || !pdev->is_busmaster ||
		    pci_is_bridge(pdev))
			continue;
		reason = route_reason(pdev, buffer);
		if (reason == PEERDMA_REASON_NONE)
			continue;
		arg->out_reason = reason;
		arg->out_device = peerdma_device_number(pdev);
		pci_dev_put(pdev);
		return -EREMOTEIO;
	}
	return 0;
}

static int pages_check(struct peerdma_buffer *buffer,
		       struct peerdma_page_map *arg, bool *write_combined)
{
	enum peerdma_reason reason;
	struct peerdma_pages *pages;

	pages = peerdma_pages_get(buffer, &reason);
	if (!IS_ERR(pages))
		reason = peerdma_pages_lendable(pages, write_combined);
	arg->out_reason = reason;
	if (IS_ERR(pages))
		return PTR_ERR(pages);
	return reason == PEERDMA_REASON_NONE ? 0 : -EREMOTEIO;
}

/*
 * The kernel marks a device's pages as reserved until somebody puts them into
 * service, which for these nobody does but us. VFIO's type 1 pins such pages like
 * others, takes them for no pages when it lets go, and so would hold them for ever.
 */
static void pages_put_in_service(const struct peerdma_buffer *buffer)
{
	u32 i;

	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];
		struct page *page = pfn_to_page(PHYS_PFN(extent->phys));
		u64 n;

		for (n = 0; n < PHYS_PFN(extent->len); n++)
			ClearPageReserved(page + n);
		cond_resched();
	}
}

/*
 * Consumes the reference to @buffer, and its use, when it succeeds. The file gets
 * the buffer's address space, so that a revocation finds its mappings where it
 * finds those of the dma-buf.
 */
static struct file *page_map_create(struct peerdma_buffer *buffer,
				    bool write_combined)
{
	struct page_map *map;
	struct file *file;

	map = kzalloc_obj(*map, GFP_KERNEL);
	if (!map)
		return ERR_PTR(-ENOMEM);
	map->buffer = buffer;
	map->write_combined = write_combined;
	map->using = true;
	file = anon_inode_getfile("[peerdma-pages]", &page_map_fops, map,
				  buffer->read_only ? O_RDONLY : O_RDWR);
	if (IS_ERR(file)) {
		kfree(map);
		return file;
	}
	file->f_mapping = buffer->inode->i_mapping;
	peerdma_buffer_count(buffer, PEERDMA_COUNT_PAGE_MAPS, 1);
	mutex_lock(&peerdma.page_maps_lock);
	list_add_tail(&map->list, &peerdma.page_maps);
	mutex_unlock(&peerdma.page_maps_lock);
	/* A revocation that did not find it in the list waits for it. */
	if (READ_ONCE(buffer->dead))
		peerdma_page_maps_revoked();
	return file;
}

/* The checks, and then the file. */
static struct file *page_map_open(struct peerdma_buffer *buffer,
				  struct peerdma_page_map *arg)
{
	bool write_combined;
	int ret;

	arg->out_reason = PEERDMA_REASON_REVOCABLE;
	if (buffer->pinned.revocable)
		return ERR_PTR(-EREMOTEIO);
	/* Ordinary memory has no device to be reached, and pages of its own. */
	arg->out_reason = PEERDMA_REASON_BORROWED_PAGES;
	if (peerdma_buffer_is_ram(buffer))
		return ERR_PTR(-EREMOTEIO);
	arg->out_reason = PEERDMA_REASON_NONE;
	if (!(arg->flags & PEERDMA_PAGES_ANY_ROUTE)) {
		ret = routes_check(buffer, arg);
		if (ret)
			return ERR_PTR(ret);
	}
	ret = pages_check(buffer, arg, &write_combined);
	if (ret)
		return ERR_PTR(ret);
	pages_put_in_service(buffer);
	return page_map_create(buffer, write_combined);
}

/**
 * peerdma_pages_ioctl - PEERDMA_PAGES
 * @call: arg.pages in and out
 *
 * Return: 0 with the file in @call, or -errno as peerdma.h says.
 */
int peerdma_pages_ioctl(struct peerdma_call *call)
{
	struct peerdma_page_map *arg = &call->arg.pages;
	struct peerdma_buffer *buffer;
	enum peerdma_reason reason;
	int fd, ret;

	arg->out_reason = PEERDMA_REASON_NONE;
	arg->out_device = PEERDMA_DEVICE_NONE;
	if (arg->flags & ~PEERDMA_PAGES_ANY_ROUTE)
		return -EOPNOTSUPP;
	if (arg->flags && !capable(CAP_SYS_RAWIO))
		return -EPERM;

	/* A page that somebody holds cannot be taken back. */
	buffer = peerdma_foreign_buffer(arg->buffer_fd, true, &reason);
	arg->out_reason = reason;
	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	ret = -ENODEV;
	if (!peerdma_buffer_use(buffer))
		goto put_buffer;

	fd = get_unused_fd_flags(O_CLOEXEC);
	ret = fd;
	if (fd < 0)
		goto unuse_buffer;
	call->file = page_map_open(buffer, arg);
	if (IS_ERR(call->file)) {
		ret = PTR_ERR(call->file);
		call->file = NULL;
		put_unused_fd(fd);
		goto unuse_buffer;
	}
	arg->out_fd = fd;
	call->fd = fd;
	return 0;

unuse_buffer:
	peerdma_buffer_unuse(buffer);
put_buffer:
	peerdma_buffer_put(buffer);
	return ret;
}

/**
 * peerdma_page_maps_exit - no page map is left, since each holds this module
 */
void peerdma_page_maps_exit(void)
{
	cancel_delayed_work_sync(&peerdma.page_maps_poll);
}
