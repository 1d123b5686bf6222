// SPDX-License-Identifier: GPL-2.0-only
/*
 * nvidia_p2p_get_pages() and its relatives, as nv-p2p.h and the behaviour of the
 * open driver define them.
 */
#include <linux/export.h>
#include <linux/hashtable.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "simgpu.h"

#define P2P_ALIGN	0x10000ull

/* Page tables that callers hold, by address; under simgpu_lock. */
static DEFINE_HASHTABLE(simgpu_pins, 12);

/* Pins whose callback runs at this moment; under simgpu_lock. */
static LIST_HEAD(simgpu_revoking);

/*
 * The real driver runs callbacks and get/put under one lock of its own. This
 * stands for it, so that lockdep sees a caller whose callback takes a lock that
 * he holds around get or put.
 */
#ifdef CONFIG_LOCKDEP
static struct lockdep_map p2p_map = STATIC_LOCKDEP_MAP_INIT("nvidia_p2p",
							    &p2p_map);
#endif

static void p2p_might_lock(void)
{
	might_sleep();
	lock_map_acquire(&p2p_map);
	lock_map_release(&p2p_map);
}

/**
 * struct pin_request - the arguments of both ways to pin
 * @va: first address
 * @len: bytes
 * @persistent: no callback
 * @force_bar1: NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING
 * @callback: the caller's
 * @data: the caller's
 */
struct pin_request {
	u64 va;
	u64 len;
	bool persistent;
	bool force_bar1;
	void (*callback)(void *data);
	void *data;
};

static void pin_release(struct kref *ref)
{
	struct simgpu_pin *pin = container_of(ref, struct simgpu_pin, ref);

	if (pin->table.pages)
		kvfree(pin->table.pages[0]);
	kvfree(pin->table.pages);
	kfree(pin->table.gpu_uuid);
	kfree(pin);
}

void simgpu_pin_put(struct simgpu_pin *pin)
{
	kref_put(&pin->ref, pin_release);
}

static u32 page_size_type(void)
{
	switch (simgpu_page_shift()) {
	case 12:
		return NVIDIA_P2P_PAGE_SIZE_4KB;
	case 16:
		return NVIDIA_P2P_PAGE_SIZE_64KB;
	default:
		return NVIDIA_P2P_PAGE_SIZE_128KB;
	}
}

/* Entry 0 is the page that holds the first byte, wherever in it that byte is. */
static int pin_fill(struct simgpu_pin *pin, const struct simgpu_range *range,
		    const struct pin_request *req)
{
	struct nvidia_p2p_page_table *table = &pin->table;
	const struct simgpu_mem *mem = range->mem;
	u64 offset = range->offset + req->va - range->start;
	u32 shift = simgpu_page_shift();
	u32 first = offset >> shift;
	u32 nr = ((offset + req->len - 1) >> shift) - first + 1;
	struct nvidia_p2p_page *pages;
	u32 i;

	table->gpu_uuid = kmemdup(mem->gpu->uuid, sizeof(mem->gpu->uuid),
				  GFP_KERNEL);
	pages = kvcalloc(nr, sizeof(*pages), GFP_KERNEL);
	table->pages = kvmalloc_array(nr, sizeof(*table->pages), GFP_KERNEL);
	if (!table->gpu_uuid || !pages || !table->pages) {
		kvfree(pages);
		kvfree(table->pages);
		table->pages = NULL;
		return -ENOMEM;
	}
	for (i = 0; i < nr; i++) {
		table->pages[i] = &pages[i];
		pages[i].physical_address = mem->gpu->bar_phys +
			((u64)mem->pages[first + i] << shift);
	}
	table->version = NVIDIA_P2P_PAGE_TABLE_VERSION;
	table->page_size = page_size_type();
	table->entries = nr;
	pin->bytes = (u64)nr << shift;
	return 0;
}

static struct simgpu_pin *pin_alloc(const struct pin_request *req)
{
	struct simgpu_pin *pin = kzalloc_obj(*pin, GFP_KERNEL);

	if (!pin)
		return NULL;
	kref_init(&pin->ref);
	INIT_LIST_HEAD(&pin->gpu_link);
	INIT_LIST_HEAD(&pin->range_link);
	INIT_LIST_HEAD(&pin->dmas);
	init_completion(&pin->revoked);
	pin->va = req->va;
	pin->persistent = req->persistent;
	pin->force_bar1 = req->force_bar1;
	pin->callback = req->callback;
	pin->data = req->data;
	return pin;
}

/* Context: caller holds simgpu_lock, and the caller's GPU is alive. */
static void pin_publish(struct simgpu_pin *pin, struct simgpu_range *range)
{
	struct simgpu *gpu = range->mem->gpu;

	pin->mem = range->mem;
	simgpu_mem_get(pin->mem);
	__module_get(THIS_MODULE);
	gpu->count.pinned += pin->bytes;
	gpu->count.page_tables++;
	list_add_tail(&pin->gpu_link, &gpu->pins);
	hash_add(simgpu_pins, &pin->hash, (unsigned long)&pin->table);
	if (!pin->persistent) {
		list_add_tail(&pin->range_link, &range->pins);
		gpu->revocable++;
	}
}

static int pin_create_locked(struct simgpu_pin *pin,
			     const struct pin_request *req)
{
	struct simgpu_range *range;
	struct simgpu *gpu;
	int err;

	range = simgpu_range_find(task_tgid(current), req->va);
	if (!range || req->len > range->start + range->len - req->va)
		return -EINVAL;
	gpu = range->mem->gpu;
	err = pin_fill(pin, range, req);
	if (err)
		return err;
	if (simgpu_aperture() &&
	    pin->bytes > simgpu_aperture() - gpu->count.pinned)
		return -ENOMEM;
	pin_publish(pin, range);
	return 0;
}

static int pin_create(const struct pin_request *req,
		      struct nvidia_p2p_page_table **table)
{
	struct simgpu_pin *pin;
	int err;

	p2p_might_lock();
	if (!table)
		return -EINVAL;
	*table = NULL;
	if (!req->len || (req->va | req->len) & (P2P_ALIGN - 1) ||
	    req->va + req->len < req->va)
		return -EINVAL;
	pin = pin_alloc(req);
	if (!pin)
		return -ENOMEM;
	mutex_lock(&simgpu_lock);
	err = pin_create_locked(pin, req);
	mutex_unlock(&simgpu_lock);
	if (err) {
		simgpu_pin_put(pin);
		return err;
	}
	*table = &pin->table;
	return 0;
}

/**
 * simgpu_pin_find() - from a caller's pointer, which may be stale, to the pin
 * @table: never dereferenced
 *
 * Context: caller holds simgpu_lock.
 * Return: the pin, or NULL if there is none (any more).
 */
struct simgpu_pin *simgpu_pin_find(struct nvidia_p2p_page_table *table)
{
	struct simgpu_pin *pin;

	lockdep_assert_held(&simgpu_lock);
	hash_for_each_possible(simgpu_pins, pin, hash, (unsigned long)table)
		if (&pin->table == table)
			return pin;
	return NULL;
}

/* Nobody can find the pin any more: give back what it holds. */
static void pin_retire(struct simgpu_pin *pin)
{
	struct simgpu *gpu = pin->mem->gpu;

	simgpu_dma_destroy_all(pin);
	mutex_lock(&simgpu_lock);
	list_del(&pin->gpu_link);
	gpu->count.pinned -= pin->bytes;
	gpu->count.page_tables--;
	if (!pin->persistent && !--gpu->revocable)
		wake_up(&gpu->quiet);
	mutex_unlock(&simgpu_lock);
	simgpu_mem_put(pin->mem);
	module_put(THIS_MODULE);
}

static void pin_revoke(struct simgpu_pin *pin)
{
	simgpu_callback_delay();
	lock_map_acquire(&p2p_map);
	pin->callback(pin->data);
	lock_map_release(&p2p_map);

	mutex_lock(&simgpu_lock);
	hash_del(&pin->hash);
	list_del(&pin->revoking_link);
	pin->mem->gpu->count.callbacks++;
	pin->mem->gpu->count.unfreed_tables += !pin->table_freed;
	mutex_unlock(&simgpu_lock);
	pin_retire(pin);
	complete_all(&pin->revoked);
	simgpu_pin_put(pin);
}

/**
 * simgpu_pins_revoke() - run the callbacks of a range that ends
 * @range: nobody can find it any more, so no pin is added
 *
 * Context: process context, no lock held.
 */
void simgpu_pins_revoke(struct simgpu_range *range)
{
	struct simgpu_pin *pin;

	for (;;) {
		mutex_lock(&simgpu_lock);
		pin = list_first_entry_or_null(&range->pins, struct simgpu_pin,
					       range_link);
		if (pin) {
			list_del_init(&pin->range_link);
			pin->revoker = current;
			list_add(&pin->revoking_link, &simgpu_revoking);
		}
		mutex_unlock(&simgpu_lock);
		if (!pin)
			return;
		pin_revoke(pin);
	}
}

static bool called_from_callback(void)
{
	struct simgpu_pin *pin;

	list_for_each_entry(pin, &simgpu_revoking, revoking_link)
		if (pin->revoker == current)
			return true;
	return false;
}

/*
 * The loser against the tear-down waits for it: when put returns, the callback
 * is not going to run, and does not run.
 */
static int pin_destroy(struct nvidia_p2p_page_table *table, u64 va,
		       bool persistent)
{
	struct simgpu_pin *pin;
	bool nested, lost;

	mutex_lock(&simgpu_lock);
	nested = called_from_callback();
	pin = nested ? NULL : simgpu_pin_find(table);
	if (pin && (pin->va != va || pin->persistent != persistent)) {
		mutex_unlock(&simgpu_lock);
		return -EINVAL;
	}
	lost = pin && pin->revoker;
	if (lost) {
		kref_get(&pin->ref);
	} else if (pin) {
		hash_del(&pin->hash);
		list_del_init(&pin->range_link);
	}
	mutex_unlock(&simgpu_lock);

	if (WARN_ONCE(nested, "pages put from inside a free callback\n"))
		return -EINVAL;
	if (!pin)
		return persistent ? -EINVAL : 0;
	if (lost)
		wait_for_completion(&pin->revoked);
	else
		pin_retire(pin);
	simgpu_pin_put(pin);
	return 0;
}

int nvidia_p2p_get_pages(u64 p2p_token, u32 va_space, u64 virtual_address,
			 u64 length,
			 struct nvidia_p2p_page_table **page_table,
			 void (*free_callback)(void *data), void *data)
{
	struct pin_request req = {
		.va = virtual_address,
		.len = length,
		.callback = free_callback,
		.data = data,
	};
	int err;

	if (!free_callback)
		return -EINVAL;
	err = simgpu_fail(SIMGPU_FAIL_GET_PAGES);
	return err ? err : pin_create(&req, page_table);
}
EXPORT_SYMBOL_GPL(nvidia_p2p_get_pages);

int nvidia_p2p_put_pages(u64 p2p_token, u32 va_space, u64 virtual_address,
			 struct nvidia_p2p_page_table *page_table)
{
	p2p_might_lock();
	if (!page_table)
		return 0;
	return pin_destroy(page_table, virtual_address, false);
}
EXPORT_SYMBOL_GPL(nvidia_p2p_put_pages);

int nvidia_p2p_get_pages_persistent(u64 virtual_address, u64 length,
				    struct nvidia_p2p_page_table **page_table,
				    u32 flags)
{
	struct pin_request req = {
		.va = virtual_address,
		.len = length,
		.persistent = true,
		.force_bar1 = flags & NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING,
	};
	int err;

	if (flags & ~NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING)
		return -EINVAL;
	err = simgpu_fail(SIMGPU_FAIL_GET_PAGES_PERSISTENT);
	return err ? err : pin_create(&req, page_table);
}
EXPORT_SYMBOL_GPL(nvidia_p2p_get_pages_persistent);

int nvidia_p2p_put_pages_persistent(u64 virtual_address,
				    struct nvidia_p2p_page_table *page_table,
				    u32 flags)
{
	p2p_might_lock();
	if (flags)
		return -EINVAL;
	if (!page_table)
		return 0;
	return pin_destroy(page_table, virtual_address, true);
}
EXPORT_SYMBOL_GPL(nvidia_p2p_put_pages_persistent);

/*
 * The driver frees both itself after the callback; these do nothing. Drivers
 * before 555 lost a table that they were not asked to free.
 */
int nvidia_p2p_free_page_table(struct nvidia_p2p_page_table *page_table)
{
	struct simgpu_pin *pin;

	mutex_lock(&simgpu_lock);
	pin = simgpu_pin_find(page_table);
	if (pin)
		pin->table_freed = true;
	mutex_unlock(&simgpu_lock);
	return 0;
}
EXPORT_SYMBOL_GPL(nvidia_p2p_free_page_table);

int nvidia_p2p_free_dma_mapping(struct nvidia_p2p_dma_mapping *dma_mapping)
{
	return 0;
}
EXPORT_SYMBOL_GPL(nvidia_p2p_free_dma_mapping);
