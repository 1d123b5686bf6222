// SPDX-License-Identifier: GPL-2.0-only
/*
 * The provider "nvidia": CUDA memory, pinned through nv-p2p.
 *
 * The only file that includes NVIDIA's header. Works with the open flavour of
 * NVIDIA's kernel modules: the proprietary flavour's symbols are not for modules
 * that use GPL-only ones (inherit_taint() in kernel/module/main.c).
 *
 * Pins are persistent: no callback, and the memory outlives cuMemFree() until it
 * is unpinned.
 */
#include <linux/module.h>
#include <linux/sizes.h>

#include "nv-p2p.h"

#include "../include/peerdma_provider.h"

/* nv-p2p takes addresses and lengths in multiples of this, whatever the page. */
#define GRANULE		SZ_64K

static u32 page_bytes(const struct nvidia_p2p_page_table *table)
{
	switch (table->page_size) {
	case NVIDIA_P2P_PAGE_SIZE_4KB:
		return SZ_4K;
	case NVIDIA_P2P_PAGE_SIZE_64KB:
		return SZ_64K;
	case NVIDIA_P2P_PAGE_SIZE_128KB:
		return SZ_128K;
	}
	return 0;
}

/*
 * Address and length are well-formed by now, so -EINVAL can only mean that the
 * address is not, or not all, this process's memory on a GPU; and -ENOMEM that
 * BAR1 has no room, since the tables are small.
 */
static int pin_errno(int ret)
{
	switch (ret) {
	case -EINVAL:
		return -EFAULT;
	case -ENOMEM:
		return -ENOBUFS;
	}
	return ret;
}

static int nvidia_pin(struct peerdma_pinned *pinned)
{
	struct nvidia_p2p_page_table *table;
	int ret;

	ret = nvidia_p2p_get_pages_persistent(pinned->addr, pinned->len,
					      &table, 0);
	if (ret)
		return pin_errno(ret);

	pinned->page_size = page_bytes(table);
	if (!NVIDIA_P2P_PAGE_TABLE_VERSION_COMPATIBLE(table) ||
	    !pinned->page_size ||
	    (u64)table->entries * pinned->page_size < pinned->len) {
		nvidia_p2p_put_pages_persistent(pinned->addr, table, 0);
		return -ENODEV;
	}
	pinned->nr_pages = table->entries;
	pinned->persistent = true;
	pinned->priv = table;
	return 0;
}

static phys_addr_t nvidia_page(const struct peerdma_pinned *pinned, u32 index)
{
	const struct nvidia_p2p_page_table *table = pinned->priv;

	return table->pages[index]->physical_address;
}

static void nvidia_unpin(struct peerdma_pinned *pinned)
{
	nvidia_p2p_put_pages_persistent(pinned->addr, pinned->priv, 0);
}

static struct peerdma_provider nvidia = {
	.name = "nvidia",
	.owner = THIS_MODULE,
	.granule = GRANULE,
	.pin = nvidia_pin,
	.page = nvidia_page,
	.unpin = nvidia_unpin,
};

static int __init nvidia_init(void)
{
	return peerdma_provider_register(&nvidia);
}

static void __exit nvidia_exit(void)
{
	peerdma_provider_unregister(&nvidia);
}

module_init(nvidia_init);
module_exit(nvidia_exit);
MODULE_DESCRIPTION("peerdma provider for CUDA memory");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("PEERDMA");
