/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contract between peerdma.ko and the modules that own device memory.
 *
 * A provider pins; nothing else. It never sees a user pointer, a dma-buf, an
 * importer or a file, and core never sees a vendor's header.
 */
#ifndef PEERDMA_PROVIDER_H
#define PEERDMA_PROVIDER_H

#include <linux/list.h>
#include <linux/module.h>
#include <linux/types.h>

struct page;

/**
 * enum peerdma_caching - how the CPU may map a provider's memory
 * @PEERDMA_WRITE_COMBINED: memory of a device
 * @PEERDMA_UNCACHED: registers of a device, or what may be some: a load can have
 *	side effects, and the kernel must not map it in any other way
 * @PEERDMA_CACHED: ordinary memory
 */
enum peerdma_caching {
	PEERDMA_WRITE_COMBINED,
	PEERDMA_UNCACHED,
	PEERDMA_CACHED,
};

/**
 * struct peerdma_pinned - what a provider answers to a pin
 * @addr: first byte covered, in the provider's addresses; set by core
 * @len: bytes covered, a multiple of the granule; set by core
 * @page_size: bytes of one provider page, a power of two of at least PAGE_SIZE;
 *	set by describe
 * @nr_pages: how many pages, from the one that holds @addr to the one that holds
 *	the last byte; set by describe
 * @revocable: in: the pin must end when the owner frees the memory, by
 *	peerdma_pinned_revoke(); else it must keep the memory until unpin
 * @device: in: of a provider with @by_device, the PCI function that the caller
 *	named, as PEERDMA_DEVICE()
 * @bar: in: likewise, the number of a BAR
 * @caching: set by describe where it is not 0
 * @pages: set by describe for ordinary memory, one for each PAGE_SIZE from @addr
 *	on; NULL for memory behind a BAR
 * @priv: the provider's own
 */
struct peerdma_pinned {
	u64 addr;
	u64 len;
	u32 page_size;
	u32 nr_pages;
	bool revocable;
	u32 device;
	u32 bar;
	enum peerdma_caching caching;
	struct page **pages;
	void *priv;
};

/**
 * struct peerdma_provider - a source of device memory
 * @name: what peerdma_pin.provider names, shorter than PEERDMA_PROVIDER_LEN
 * @owner: held from before a pin until after its unpin
 * @granule: bytes; core rounds address and length out to it at both ends, once,
 *	so that no provider has to. A power of two of at least PAGE_SIZE.
 * @by_device: the caller names a PCI function and a BAR, which @addr counts from
 * @pin: make [addr, addr + len) resident and keep it where it is.
 *	Guarantees: on success every page is there and stays until @unpin; on
 *	failure nothing is held. Runs in the context of the process that asked,
 *	which must own the memory: the provider checks that. May sleep.
 *	Returns 0, -EFAULT (not this process's memory of this provider, or not
 *	all of it), -ENOBUFS (no BAR aperture left), -EOPNOTSUPP (not in that
 *	mode), -EPERM, -EBUSY (in use otherwise), -EDQUOT, -EINTR, -ENOENT and
 *	-EINVAL (no such device or BAR), -ENODEV, -ENOMEM.
 * @describe: fill page_size and nr_pages. Guarantees asked of core: called once
 *	after @pin, and no revocation of this pin returns meanwhile, so the
 *	vendor's table is there. Returns 0, or -ENODEV when the vendor's answer
 *	makes no sense. Does not sleep.
 * @page: the CPU's physical address of page @index. Guarantees: the address lies
 *	in a memory BAR (or is that of ordinary memory, where @pages is set),
 *	aligned to page_size, and does not change until @unpin.
 *	Called as @describe. Does not sleep.
 * @unpin: the reverse of @pin. Guarantees asked of core: called once, in process
 *	context but of any process, with no mapping, attachment or transfer live
 *	and no lock held (a vendor's put waits for a callback in flight, and that
 *	callback takes locks of ours). Not called for a pin that the provider
 *	itself has revoked. May sleep.
 * @list: core's
 */
struct peerdma_provider {
	const char *name;
	struct module *owner;
	u64 granule;
	bool by_device;
	int (*pin)(struct peerdma_pinned *pinned);
	int (*describe)(struct peerdma_pinned *pinned);
	phys_addr_t (*page)(const struct peerdma_pinned *pinned, u32 index);
	void (*unpin)(struct peerdma_pinned *pinned);
	struct list_head list;
};

int peerdma_provider_register(struct peerdma_provider *provider);
void peerdma_provider_unregister(struct peerdma_provider *provider);
void peerdma_pinned_revoke(struct peerdma_pinned *pinned);

#endif /* PEERDMA_PROVIDER_H */
