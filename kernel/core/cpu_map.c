// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU's view of a buffer: mmap() of the dma-buf; caching.c says of which type.
 *
 * Mapped by fault, not at mmap(): a mapping of gigabytes costs nothing until it
 * is touched, and there is one place that inserts. PFNs and not pages, so that
 * the kernel takes no reference that could outlive the pin; pages_map.c's mappings
 * are filled here too, and are the other kind.
 *
 * The mapping is VM_MIXEDMAP and not VM_PFNMAP. Nothing of mm/ treats the two
 * differently here: each entry is special, so that it has no page for anybody even
 * where the memory has struct pages, and VM_IO refuses whoever pins. But VFIO's
 * type 1 takes PFNs that it cannot pin out of VM_PFNMAP mappings, maps them for
 * its device and is told of no end.
 */
#include <linux/mm.h>

#include "trace.h"

#define FAULT_AROUND	PMD_SIZE

static void cpu_map_open(struct vm_area_struct *vma)
{
	struct peerdma_buffer *buffer = vma->vm_private_data;

	peerdma_buffer_count(buffer, PEERDMA_COUNT_CPU_MAPS, 1);
	trace_map(buffer, NULL, (u64)vma->vm_pgoff << PAGE_SHIFT,
		  vma->vm_end - vma->vm_start);
}

static void cpu_map_close(struct vm_area_struct *vma)
{
	struct peerdma_buffer *buffer = vma->vm_private_data;

	peerdma_buffer_count(buffer, PEERDMA_COUNT_CPU_MAPS, -1);
	trace_unmap(buffer, NULL, (u64)vma->vm_pgoff << PAGE_SHIFT,
		    vma->vm_end - vma->vm_start);
}

/* Map a page table's worth around @fault; what fails behind it is no matter. */
static vm_fault_t insert_around(struct vm_area_struct *vma,
				const struct peerdma_buffer *buffer,
				unsigned long fault)
{
	unsigned long addr = max(round_down(fault, FAULT_AROUND),
				 vma->vm_start);
	unsigned long end = min(round_down(fault, FAULT_AROUND) + FAULT_AROUND,
				vma->vm_end);
	u64 offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) + addr - vma->vm_start;
	const struct peerdma_extent *extent =
		&buffer->extents[peerdma_buffer_extent_at(buffer, offset)];
	vm_fault_t ret = VM_FAULT_SIGBUS;

	for (; addr < end; addr += PAGE_SIZE, offset += PAGE_SIZE) {
		unsigned long pfn;
		vm_fault_t got;

		if (offset >= extent->offset + extent->len)
			extent++;
		pfn = PHYS_PFN(extent->phys + offset - extent->offset);
		if (vma->vm_flags & VM_IO)
			got = vmf_insert_mixed(vma, addr, pfn);
		else
			got = vmf_insert_page(vma, addr, pfn_to_page(pfn));
		if (addr <= fault)
			ret = got;
		if (got & VM_FAULT_ERROR)
			break;
	}
	return ret;
}

/*
 * What is inserted under @alive is inserted before the buffer is dead, and so
 * before its mappings are zapped.
 */
static vm_fault_t cpu_map_fault(struct vm_fault *vmf)
{
	struct peerdma_buffer *buffer = vmf->vma->vm_private_data;
	vm_fault_t ret = VM_FAULT_SIGBUS;

	down_read(&buffer->alive);
	if (!buffer->dead)
		ret = insert_around(vmf->vma, buffer,
				    vmf->address & PAGE_MASK);
	if (ret == VM_FAULT_NOPAGE)
		peerdma_caching_note(buffer, vmf->vma,
				     vmf->address & PAGE_MASK);
	up_read(&buffer->alive);
	return ret;
}

/* The kernel refuses to map RAM as it maps a device's memory, so it is copied. */
static void ram_access(const struct peerdma_buffer *buffer, u64 offset,
		       void *buf, int len, bool write)
{
	struct page *page = buffer->pinned.pages[offset >> PAGE_SHIFT];
	void *at = kmap_local_page(page);

	if (write)
		memcpy(at + offset_in_page(offset), buf, len);
	else
		memcpy(buf, at + offset_in_page(offset), len);
	kunmap_local(at);
}

static int page_access(struct vm_area_struct *vma,
		       struct peerdma_buffer *buffer, unsigned long addr,
		       void *buf, int len, int write)
{
	u64 offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) + addr - vma->vm_start;
	int ret;

	if (buffer->dead)
		return -EIO;
	if (peerdma_buffer_is_ram(buffer)) {
		ram_access(buffer, offset, buf, len, write);
		return len;
	}
	ret = generic_access_phys(vma, addr, buf, len, write);
	if (ret != -EINVAL)
		return ret;
	/* It finds only what is in the page table. */
	if (insert_around(vma, buffer, addr & PAGE_MASK) != VM_FAULT_NOPAGE)
		return -EIO;
	return generic_access_phys(vma, addr, buf, len, write);
}

/*
 * For debuggers. One page at a time, since generic_access_phys() goes on where
 * the page ends in physical memory, which may be another owner's. Not further
 * than the mapping's own rights, and never after a revocation: what is copied
 * with @alive held is copied before the memory is given back.
 */
static int cpu_map_access(struct vm_area_struct *vma, unsigned long addr,
			  void *buf, int len, int write)
{
	struct peerdma_buffer *buffer = vma->vm_private_data;
	int ret;

	if (!(vma->vm_flags & (write ? VM_WRITE : VM_READ)))
		return -EIO;
	len = min_t(int, len, PAGE_SIZE - offset_in_page(addr));
	down_read(&buffer->alive);
	ret = page_access(vma, buffer, addr, buf, len, write);
	up_read(&buffer->alive);
	return ret;
}

/* Of pages_map.c's mappings too, which are of pages. */
const struct vm_operations_struct peerdma_cpu_map_ops = {
	.open = cpu_map_open,
	.close = cpu_map_close,
	.fault = cpu_map_fault,
	.access = cpu_map_access,
};

/**
 * peerdma_cpu_map - dma_buf_ops.mmap
 * @dmabuf: ours
 * @vma: within the dma-buf, as dma-buf's core has checked
 *
 * A child does not inherit the mapping, nothing grows it, and a core dump leaves
 * it out. The mapping holds the dma-buf's file, and so the pin.
 *
 * Return: 0, -ENOMEM, or -EINVAL for a private mapping, of which copy-on-write
 * would make ordinary memory.
 */
int peerdma_cpu_map(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	int ret;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;

	vm_flags_set(vma, VM_IO | VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP |
			  VM_DONTCOPY);
	ret = peerdma_caching_prot(dmabuf->priv, &vma->vm_page_prot);
	if (ret)
		return ret;
	vma->vm_private_data = dmabuf->priv;
	vma->vm_ops = &peerdma_cpu_map_ops;
	cpu_map_open(vma);
	return 0;
}
