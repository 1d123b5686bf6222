// SPDX-License-Identifier: GPL-2.0-only
/*
 * How the CPU's mappings of a buffer are cached.
 *
 * One physical page has one type, whoever maps it: x86 gives a PFN mapping what
 * is on record for the page, whatever was asked for, and uncached where nothing
 * is. So write-combining is put on record before the first mapping. Where the
 * device's driver has mapped the memory in another way, its type stays, and what
 * was obtained is read back from the page table and told.
 */
#include <linux/io.h>

#include "core.h"

static void extents_free_wc(const struct peerdma_buffer *buffer, u32 nr)
{
	while (nr--)
		arch_io_free_memtype_wc(buffer->extents[nr].phys,
					buffer->extents[nr].len);
}

static int extents_reserve_wc(const struct peerdma_buffer *buffer)
{
	u32 i;
	int ret;

	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];

		ret = arch_io_reserve_memtype_wc(extent->phys, extent->len);
		if (ret) {
			extents_free_wc(buffer, i);
			return ret;
		}
	}
	return 0;
}

/**
 * peerdma_caching_prot - the page protection of a mapping of a buffer
 * @buffer: held by the caller
 * @prot: the mapping's, cached; out: what to ask for
 *
 * Context: process; takes buffer->alive.
 * Return: 0 or -ENOMEM. Another type on record is no error.
 */
int peerdma_caching_prot(struct peerdma_buffer *buffer, pgprot_t *prot)
{
	int ret = 0;

	switch (buffer->caching) {
	case PEERDMA_CACHED:
		return 0;
	case PEERDMA_UNCACHED:
		*prot = pgprot_noncached(*prot);
		return 0;
	case PEERDMA_WRITE_COMBINED:
		break;
	}

	down_write(&buffer->alive);
	if (!buffer->wc_reserved && !buffer->dead) {
		ret = extents_reserve_wc(buffer);
		buffer->wc_reserved = !ret;
	}
	up_write(&buffer->alive);
	*prot = pgprot_writecombine(*prot);
	return ret == -ENOMEM ? ret : 0;
}

/**
 * peerdma_caching_free - take off the record what peerdma_caching_prot() put there
 * @buffer: dead or on its way out, with no mapping left
 */
void peerdma_caching_free(struct peerdma_buffer *buffer)
{
	if (buffer->wc_reserved)
		extents_free_wc(buffer, buffer->nr_extents);
	buffer->wc_reserved = false;
}

static bool same_prot(pgprot_t a, pgprot_t b)
{
	return pgprot_val(a) == pgprot_val(b);
}

/**
 * peerdma_caching_note - remember which type a page of a mapping got
 * @buffer: mapped
 * @vma: the mapping
 * @addr: in it; nothing is noted when no page is there
 *
 * Context: mmap_lock and buffer->alive held for reading.
 */
void peerdma_caching_note(struct peerdma_buffer *buffer,
			  struct vm_area_struct *vma, unsigned long addr)
{
	u32 seen = PEERDMA_CACHING_CACHED;
	pgprot_t got;

	if (peerdma_mapped_prot(vma, addr, &got))
		return;
	/* x86 only adds bits in both, and strong uncached has those of both. */
	if (same_prot(got, pgprot_noncached(got)))
		seen = PEERDMA_CACHING_UNCACHED;
	else if (same_prot(got, pgprot_writecombine(got)))
		seen = PEERDMA_CACHING_WRITE_COMBINED;
	if (!(atomic_read(&buffer->caching_seen) & seen))
		atomic_or(seen, &buffer->caching_seen);
}
