// SPDX-License-Identifier: GPL-2.0-only
/*
 * The provider "nvidia": CUDA memory, pinned through nv-p2p.
 *
 * The only file that includes NVIDIA's header. Works with the open flavour of
 * NVIDIA's kernel modules: the proprietary flavour's symbols are not for modules
 * that use GPL-only ones (inherit_taint() in kernel/module/main.c).
 *
 * Persistent pins have no callback, and the memory outlives cuMemFree() until it
 * is unpinned. Revocable ones end when the memory is freed: NVIDIA's driver calls
 * back, and frees its table and the memory when we return.
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
 * BAR1 has no room, since the tables are small. ENOTSUPP is not for user space;
 * EIO stands for all that the driver has no errno for, a lost GPU first.
 */
static int pin_errno(int ret)
{
	switch (ret) {
	case -EINVAL:
		return -EFAULT;
	case -ENOMEM:
		return -ENOBUFS;
	case -ENOTSUPP:
		return -EOPNOTSUPP;
	case -EIO:
		return -ENODEV;
	}
	return ret;
}

/*
 * Runs with locks of NVIDIA's driver held, which put_pages takes too. When it
 * returns the driver frees the table itself; drivers before 555 want to be asked.
 */
static void nvidia_freed(void *data)
{
	struct peerdma_pinned *pinned = data;
	struct nvidia_p2p_page_table *table = READ_ONCE(pinned->priv);

	peerdma_pinned_revoke(pinned);
	if (table)
		nvidia_p2p_free_page_table(table);
}

static int get_pages(struct peerdma_pinned *pinned,
		     struct nvidia_p2p_page_table **table)
{
	if (pinned->revocable)
		return nvidia_p2p_get_pages(0, 0, pinned->addr, pinned->len,
					    table, nvidia_freed, pinned);
	return nvidia_p2p_get_pages_persistent(pinned->addr, pinned->len,
					       table, 0);
}

static void nvidia_unpin(struct peerdma_pinned *pinned)
{
	if (pinned->revocable)
		nvidia_p2p_put_pages(0, 0, pinned->addr, pinned->priv);
	else
		nvidia_p2p_put_pages_persistent(pinned->addr, pinned->priv, 0);
}

static int nvidia_pin(struct peerdma_pinned *pinned)
{
	struct nvidia_p2p_page_table *table;
	int ret;

	ret = get_pages(pinned, &table);
	if (ret)
		return pin_errno(ret);

	WRITE_ONCE(pinned->priv, table);
	return 0;
}

/*
 * Apart from @pin, since a revocable table may be freed as soon as get_pages has
 * returned: core calls this with the callback held off.
 */
static int nvidia_describe(struct peerdma_pinned *pinned)
{
	const struct nvidia_p2p_page_table *table = pinned->priv;
	u64 lead;

	pinned->page_size = page_bytes(table);
	pinned->nr_pages = table->entries;
	if (!NVIDIA_P2P_PAGE_TABLE_VERSION_COMPATIBLE(table) ||
	    !pinned->page_size)
		return -ENODEV;
	lead = pinned->addr & (pinned->page_size - 1);
	if ((u64)pinned->nr_pages * pinned->page_size < lead + pinned->len)
		return -ENODEV;
	return 0;
}

static phys_addr_t nvidia_page(const struct peerdma_pinned *pinned, u32 index)
{
	const struct nvidia_p2p_page_table *table = pinned->priv;

	return table->pages[index]->physical_address;
}

static struct peerdma_provider nvidia = {
	.name = "nvidia",
	.owner = THIS_MODULE,
	.granule = GRANULE,
	.pin = nvidia_pin,
	.describe = nvidia_describe,
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
