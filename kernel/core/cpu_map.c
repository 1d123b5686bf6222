// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU's view of a buffer: mmap() of the dma-buf, write-combined.
 *
 * Mapped by fault, not at mmap(): a mapping of gigabytes costs nothing until it
 * is touched, and there is one place that inserts. PFNs and not pages, so that
 * the kernel takes no reference that could outlive the pin.
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

/* Map a page table's worth around @fault; what fails besides it is no matter. */
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
		vm_fault_t got;

		if (offset >= extent->offset + extent->len)
			extent++;
		got = vmf_insert_pfn(vma, addr,
				     PHYS_PFN(extent->phys + offset -
					      extent->offset));
		if (addr == fault)
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
	up_read(&buffer->alive);
	return ret;
}

/*
 * For debuggers. A page at a time: generic_access_phys() goes on where the page
 * ends in physical memory, and that may be another owner's. What it copies with
 * @alive held is copied before the memory is given back.
 */
static int cpu_map_access(struct vm_area_struct *vma, unsigned long addr,
			  void *buf, int len, int write)
{
	struct peerdma_buffer *buffer = vma->vm_private_data;
	int ret = -EIO;

	len = min_t(int, len, PAGE_SIZE - offset_in_page(addr));
	down_read(&buffer->alive);
	if (!buffer->dead)
		ret = generic_access_phys(vma, addr, buf, len, write);
	up_read(&buffer->alive);
	return ret;
}

static const struct vm_operations_struct cpu_map_ops = {
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
 * Return: 0, or -EINVAL for a private mapping, of which copy-on-write would make
 * ordinary memory.
 */
int peerdma_cpu_map(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;

	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP |
			  VM_DONTCOPY);
	vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
	vma->vm_private_data = dmabuf->priv;
	vma->vm_ops = &cpu_map_ops;
	cpu_map_open(vma);
	return 0;
}
