// SPDX-License-Identifier: GPL-2.0-only
/*
 * Struct pages for BAR memory, which is what the block layer moves.
 *
 * Most GPU drivers register none, so we do, of type MEMORY_DEVICE_GENERIC: it
 * needs no private structure of any kernel, exists where PCI_P2PDMA is off, and
 * passes through dm and md. The price is that the kernel then checks no
 * topology; topology.c does.
 *
 * What was measured decides the shape: memremap_pages() wants 2 MiB granules,
 * and taking a range back costs 35-50 ms however small it is. So the unit is
 * large, is registered when a buffer first needs it, is kept when the last
 * buffer leaves, and is freed by a worker after a while.
 *
 * Transfers hold the buffer, and so do page maps (pages_map.c) until nobody holds
 * one of their pages; the buffer holds its units. So no page reference outlives a
 * unit.
 */
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/memremap.h>
#include <linux/slab.h>

#include "core.h"

#define GRANULE		SZ_2M
#define UNIT_MIN	SZ_128M
#define IDLE_TIME	(10 * HZ)

/**
 * struct peerdma_page_unit - struct pages for one part of a BAR
 * @bar: the BAR
 * @start: first physical address
 * @len: bytes, a multiple of GRANULE
 * @users: buffers that hold it, under peerdma_core::bars_lock
 * @idle_since: jiffies when @users became 0
 * @wc_reserved: the range is reserved as write-combining
 * @pgmap: ours, when @borrowed is NULL
 * @borrowed: the pages are the device's driver's own; counted
 *
 * Owner: its BAR. Born with the first user; dies in the worker some time after
 * the last one, or with the module.
 */
struct peerdma_page_unit {
	struct peerdma_bar *bar;
	phys_addr_t start;
	u64 len;
	u32 users;
	unsigned long idle_since;
	bool wc_reserved;
	struct dev_pagemap pgmap;
	struct dev_pagemap *borrowed;
};

/**
 * struct peerdma_bar - a BAR of which some part has struct pages
 * @list: in peerdma_core::bars
 * @pdev: the function; counted
 * @start: first physical address
 * @len: bytes
 * @unit_shift: log2 of a unit's bytes; units are aligned to their size
 * @nr_units: entries of @units
 * @units: by (physical address >> unit_shift) minus that of @start
 *
 * Guarded, with its units, by peerdma_core::bars_lock. Freed with its last unit.
 */
struct peerdma_bar {
	struct list_head list;
	struct pci_dev *pdev;
	phys_addr_t start;
	u64 len;
	u32 unit_shift;
	u32 nr_units;
	struct peerdma_page_unit *units[];
};

static struct peerdma_bar *bar_find(phys_addr_t phys)
{
	struct peerdma_bar *bar;

	lockdep_assert_held(&peerdma.bars_lock);
	list_for_each_entry(bar, &peerdma.bars, list)
		if (phys >= bar->start && phys - bar->start < bar->len)
			return bar;
	return NULL;
}

static struct peerdma_bar *bar_create(struct pci_dev *pdev, phys_addr_t phys)
{
	struct resource *res = NULL;
	struct peerdma_bar *bar;
	u32 shift, nr;
	int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		res = &pdev->resource[i];
		if (phys >= res->start && phys <= res->end)
			break;
	}
	if (i == PCI_STD_NUM_BARS)
		return ERR_PTR(-ENODEV);

	shift = ilog2(max_t(u64, UNIT_MIN,
			    roundup_pow_of_two(resource_size(res)) /
			    PEERDMA_UNITS_MAX));
	nr = (res->end >> shift) - (res->start >> shift) + 1;
	bar = kzalloc(struct_size(bar, units, nr), GFP_KERNEL);
	if (!bar)
		return ERR_PTR(-ENOMEM);

	bar->pdev = pci_dev_get(pdev);
	bar->start = res->start;
	bar->len = resource_size(res);
	bar->unit_shift = shift;
	bar->nr_units = nr;
	list_add(&bar->list, &peerdma.bars);
	return bar;
}

static u32 unit_index(const struct peerdma_bar *bar, phys_addr_t phys)
{
	return (phys >> bar->unit_shift) - (bar->start >> bar->unit_shift);
}

static void bar_free_if_empty(struct peerdma_bar *bar)
{
	u32 i;

	for (i = 0; i < bar->nr_units; i++)
		if (bar->units[i])
			return;
	list_del(&bar->list);
	pci_dev_put(bar->pdev);
	kfree(bar);
}

/*
 * Has the device's driver registered pages of its own here (NVIDIA's UVM with
 * static BAR1, habanalabs)? Returns its pagemap with a reference, NULL when
 * there are none at all, -EBUSY when only some of the unit has any:
 * memremap_pages() would warn and fail.
 */
static struct dev_pagemap *owner_pages(phys_addr_t start, u64 len)
{
	struct dev_pagemap *first = get_dev_pagemap(PHYS_PFN(start));
	u64 at;

	for (at = GRANULE; at < len; at += GRANULE) {
		struct dev_pagemap *here = get_dev_pagemap(PHYS_PFN(start + at));

		if (here)
			put_dev_pagemap(here);
		if (here != first) {
			if (first)
				put_dev_pagemap(first);
			return ERR_PTR(-EBUSY);
		}
	}
	return first;
}

/*
 * Write-combining is reserved before the pages are made: memremap_pages() asks
 * for write-back, takes what is reserved instead, and without a reservation the
 * owner's own ioremap_wc() of the same range would fail from then on. Where the
 * owner has the range uncached already the reservation fails, and
 * memremap_pages() takes the owner's type; where the owner has both inside one
 * unit it fails too.
 */
static int unit_register(struct peerdma_page_unit *unit)
{
	void *addr;
	int ret;

	ret = arch_io_reserve_memtype_wc(unit->start, unit->len);
	if (ret == -ENOMEM)
		return ret;
	unit->wc_reserved = !ret;
	unit->pgmap.type = MEMORY_DEVICE_GENERIC;
	unit->pgmap.range.start = unit->start;
	unit->pgmap.range.end = unit->start + unit->len - 1;
	unit->pgmap.nr_range = 1;
	unit->pgmap.owner = unit;
	addr = memremap_pages(&unit->pgmap, dev_to_node(&unit->bar->pdev->dev));
	if (IS_ERR(addr)) {
		if (unit->wc_reserved)
			arch_io_free_memtype_wc(unit->start, unit->len);
		return PTR_ERR(addr);
	}
	peerdma_count(PEERDMA_COUNT_PAGE_BYTES, unit->len);
	return 0;
}

static struct peerdma_page_unit *unit_create(struct peerdma_bar *bar, u32 index,
					     enum peerdma_reason *reason)
{
	u64 base = ((bar->start >> bar->unit_shift) + index) << bar->unit_shift;
	phys_addr_t start = max_t(u64, base, bar->start);
	phys_addr_t end = min_t(u64, base + BIT_ULL(bar->unit_shift),
				bar->start + bar->len);
	struct peerdma_page_unit *unit;
	int ret;

	*reason = PEERDMA_REASON_BAR_GRANULE;
	if (!IS_ALIGNED(start, GRANULE) || !IS_ALIGNED(end, GRANULE))
		return ERR_PTR(-EREMOTEIO);

	*reason = PEERDMA_REASON_NONE;
	unit = kzalloc_obj(*unit, GFP_KERNEL);
	if (!unit)
		return ERR_PTR(-ENOMEM);
	unit->bar = bar;
	unit->start = start;
	unit->len = end - start;
	unit->borrowed = owner_pages(unit->start, unit->len);
	if (IS_ERR(unit->borrowed)) {
		ret = PTR_ERR(unit->borrowed);
		goto free_unit;
	}
	if (!unit->borrowed) {
		ret = unit_register(unit);
		if (ret)
			goto free_unit;
	}
	bar->units[index] = unit;
	return unit;

free_unit:
	kfree(unit);
	if (ret == -EBUSY || ret == -EINVAL) {
		*reason = PEERDMA_REASON_BAR_CACHING;
		ret = -EREMOTEIO;
	}
	return ERR_PTR(ret);
}

static void unit_free(struct peerdma_page_unit *unit)
{
	struct peerdma_bar *bar = unit->bar;

	lockdep_assert_held(&peerdma.bars_lock);
	bar->units[unit_index(bar, unit->start)] = NULL;
	if (unit->borrowed) {
		put_dev_pagemap(unit->borrowed);
	} else {
		memunmap_pages(&unit->pgmap);
		if (unit->wc_reserved)
			arch_io_free_memtype_wc(unit->start, unit->len);
		peerdma_count(PEERDMA_COUNT_PAGE_BYTES, -(s64)unit->len);
	}
	kfree(unit);
}

static void unit_put(struct peerdma_page_unit *unit)
{
	lockdep_assert_held(&peerdma.bars_lock);
	if (--unit->users)
		return;
	unit->idle_since = jiffies;
	schedule_delayed_work(&peerdma.bars_reap, IDLE_TIME);
}

/* Hold every unit that @extent touches and that @pages does not hold yet. */
static int pages_hold(struct peerdma_pages *pages,
		      const struct peerdma_extent *extent,
		      enum peerdma_reason *reason)
{
	struct peerdma_bar *bar = pages->bar;
	u32 last = unit_index(bar, extent->phys + extent->len - 1);
	u32 i;

	for (i = unit_index(bar, extent->phys); i <= last; i++) {
		struct peerdma_page_unit *unit = bar->units[i];

		if (test_bit(i, pages->held))
			continue;
		if (!unit)
			unit = unit_create(bar, i, reason);
		if (IS_ERR(unit))
			return PTR_ERR(unit);
		unit->users++;
		set_bit(i, pages->held);
	}
	return 0;
}

/* Ordinary memory has its pages already, and no unit of ours. */
static void pages_fill_ram(struct peerdma_pages *pages,
			   const struct peerdma_buffer *buffer)
{
	u32 i;

	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];

		bvec_set_page(&pages->bvecs[i],
			      pfn_to_page(PHYS_PFN(extent->phys)), extent->len,
			      0);
	}
}

static void pages_release(struct peerdma_pages *pages)
{
	u32 i;

	if (!pages->bar)
		return;
	for_each_set_bit(i, pages->held, pages->bar->nr_units)
		unit_put(pages->bar->units[i]);
	bar_free_if_empty(pages->bar);
}

static int pages_fill(struct peerdma_pages *pages,
		      const struct peerdma_buffer *buffer,
		      enum peerdma_reason *reason)
{
	u32 i;
	int ret;

	pages->bar = bar_find(buffer->extents[0].phys);
	if (!pages->bar)
		pages->bar = bar_create(buffer->pdev, buffer->extents[0].phys);
	if (IS_ERR(pages->bar))
		return PTR_ERR(pages->bar);

	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];

		ret = pages_hold(pages, extent, reason);
		if (ret) {
			pages_release(pages);
			return ret;
		}
		bvec_set_page(&pages->bvecs[i],
			      pfn_to_page(PHYS_PFN(extent->phys)), extent->len,
			      offset_in_page(extent->phys));
	}
	return 0;
}

static int pages_make(struct peerdma_pages *pages,
		      const struct peerdma_buffer *buffer,
		      enum peerdma_reason *reason)
{
	int ret;

	if (peerdma_buffer_is_ram(buffer)) {
		pages_fill_ram(pages, buffer);
		return 0;
	}
	mutex_lock(&peerdma.bars_lock);
	ret = pages_fill(pages, buffer, reason);
	mutex_unlock(&peerdma.bars_lock);
	return ret;
}

/*
 * Pages bring a mapping of the kernel's, through which the CPU may read ahead as
 * it likes.
 */
static enum peerdma_reason
device_pages_reason(const struct peerdma_buffer *buffer)
{
	if (peerdma_buffer_is_ram(buffer))
		return PEERDMA_REASON_NONE;
	if (!IS_ENABLED(CONFIG_ZONE_DEVICE) || !IS_ENABLED(CONFIG_X86_64))
		return PEERDMA_REASON_ARCH;
	if (buffer->pinned.caching == PEERDMA_UNCACHED)
		return PEERDMA_REASON_NOT_PREFETCHABLE;
	if (peerdma_dma_debug_refuses())
		return PEERDMA_REASON_DMA_DEBUG;
	return PEERDMA_REASON_NONE;
}

/**
 * peerdma_pages_get - the struct pages of a buffer, made on first use
 * @buffer: held by the caller; it keeps the pages until it is freed
 * @reason: out; why not, with -EREMOTEIO
 *
 * Context: process; may sleep.
 * Return: the pages, or ERR_PTR: -ENOMEM, -EREMOTEIO, or what memremap_pages()
 * answers.
 */
struct peerdma_pages *peerdma_pages_get(struct peerdma_buffer *buffer,
					enum peerdma_reason *reason)
{
	struct peerdma_pages *pages;
	int ret;

	*reason = PEERDMA_REASON_NONE;
	/* Pairs with the release below. */
	pages = smp_load_acquire(&buffer->pages);
	if (pages)
		return pages;
	*reason = device_pages_reason(buffer);
	if (*reason != PEERDMA_REASON_NONE)
		return ERR_PTR(-EREMOTEIO);

	mutex_lock(&buffer->pages_lock);
	pages = buffer->pages;
	if (pages)
		goto unlock;
	pages = kvzalloc(struct_size(pages, bvecs, buffer->nr_extents),
			 GFP_KERNEL);
	if (!pages) {
		pages = ERR_PTR(-ENOMEM);
		goto unlock;
	}

	ret = pages_make(pages, buffer, reason);
	if (ret) {
		kvfree(pages);
		pages = ERR_PTR(ret);
		goto unlock;
	}
	/* Pairs with the acquire above: whoever sees it sees it filled. */
	smp_store_release(&buffer->pages, pages);
unlock:
	mutex_unlock(&buffer->pages_lock);
	return pages;
}

/**
 * peerdma_pages_lendable - may user space have them, and mapped how?
 * @pages: of a buffer in use
 * @write_combined: out; else they are uncached
 *
 * Pages that the device's driver has registered are not ours to count. One
 * mapping has one kind of caching, and it must be that of the pages.
 *
 * Return: PEERDMA_REASON_NONE or why not.
 */
enum peerdma_reason peerdma_pages_lendable(const struct peerdma_pages *pages,
					   bool *write_combined)
{
	enum peerdma_reason reason = PEERDMA_REASON_NONE;
	u32 i, nr = 0, nr_combined = 0;

	mutex_lock(&peerdma.bars_lock);
	for_each_set_bit(i, pages->held, pages->bar->nr_units) {
		const struct peerdma_page_unit *unit = pages->bar->units[i];

		nr++;
		nr_combined += unit->wc_reserved;
		if (unit->borrowed)
			reason = PEERDMA_REASON_BORROWED_PAGES;
	}
	mutex_unlock(&peerdma.bars_lock);
	*write_combined = nr_combined;
	if (reason == PEERDMA_REASON_NONE && nr_combined && nr_combined < nr)
		reason = PEERDMA_REASON_BAR_CACHING;
	return reason;
}

/**
 * peerdma_pages_free - let the struct pages of a buffer go
 * @pages: no transfer may be using them
 */
void peerdma_pages_free(struct peerdma_pages *pages)
{
	mutex_lock(&peerdma.bars_lock);
	pages_release(pages);
	mutex_unlock(&peerdma.bars_lock);
	kvfree(pages);
}

/* Free the units that are idle for at least @age jiffies; true if some stay. */
static bool bar_reap(struct peerdma_bar *bar, unsigned long age)
{
	bool idle = false;
	u32 i;

	for (i = 0; i < bar->nr_units; i++) {
		struct peerdma_page_unit *unit = bar->units[i];

		if (!unit || unit->users)
			continue;
		if (time_before(jiffies, unit->idle_since + age))
			idle = true;
		else
			unit_free(unit);
	}
	return idle;
}

/* @pdev: only of this device, or NULL for all. */
static bool bars_reap(const struct pci_dev *pdev, unsigned long age)
{
	struct peerdma_bar *bar, *next;
	bool idle = false;

	mutex_lock(&peerdma.bars_lock);
	list_for_each_entry_safe(bar, next, &peerdma.bars, list) {
		if (pdev && bar->pdev != pdev)
			continue;
		idle |= bar_reap(bar, age);
		bar_free_if_empty(bar);
	}
	mutex_unlock(&peerdma.bars_lock);
	return idle;
}

/**
 * peerdma_pages_reap - free the units that nobody has used for a while
 * @work: peerdma_core::bars_reap
 */
void peerdma_pages_reap(struct work_struct *work)
{
	if (bars_reap(NULL, IDLE_TIME))
		schedule_delayed_work(&peerdma.bars_reap, IDLE_TIME);
}

/**
 * peerdma_pages_forget - free the units of a device that goes away
 * @pdev: the device; its buffers are revoked
 */
void peerdma_pages_forget(struct pci_dev *pdev)
{
	bars_reap(pdev, 0);
}

/**
 * peerdma_pages_exit - free all units; no buffer is left
 */
void peerdma_pages_exit(void)
{
	cancel_delayed_work_sync(&peerdma.bars_reap);
	bars_reap(NULL, 0);
}
