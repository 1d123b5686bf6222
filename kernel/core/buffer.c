// SPDX-License-Identifier: GPL-2.0-only
/*
 * The buffer: a pinned range of device memory that is a dma-buf.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "trace.h"

/**
 * peerdma_buffer_forget_pages - let the struct pages go; idempotent
 * @buffer: no transfer is left, and none can begin
 */
void peerdma_buffer_forget_pages(struct peerdma_buffer *buffer)
{
	struct peerdma_pages *pages;

	mutex_lock(&buffer->pages_lock);
	pages = buffer->pages;
	buffer->pages = NULL;
	mutex_unlock(&buffer->pages_lock);
	if (pages)
		peerdma_pages_free(pages);
}

/**
 * peerdma_buffer_end_pin - what the pin's end takes with it
 * @buffer: no transfer and no device mapping is left, and none can begin
 */
void peerdma_buffer_end_pin(struct peerdma_buffer *buffer)
{
	peerdma_buffer_forget_pages(buffer);
	peerdma_caching_free(buffer);
	peerdma_account_uncharge(buffer->account, buffer->pinned.len);
	peerdma_count(PEERDMA_COUNT_PINNED_BYTES, -(s64)buffer->pinned.len);
	trace_unpin(buffer);
}

/*
 * Give the memory back, or wait until the revocation that has come first is
 * through with the buffer.
 */
static void buffer_unpin(struct peerdma_buffer *buffer)
{
	if (atomic_cmpxchg(&buffer->ended, PEERDMA_END_OPEN,
			   PEERDMA_END_RELEASE) == PEERDMA_END_OPEN) {
		peerdma_buffer_end_pin(buffer);
		buffer->provider->unpin(&buffer->pinned);
		complete_all(&buffer->revoked);
	} else {
		wait_for_completion(&buffer->revoked);
	}
}

/**
 * peerdma_buffer_free - the last reference to the struct is gone
 * @ref: the buffer's; its pin has ended
 */
void peerdma_buffer_free(struct kref *ref)
{
	struct peerdma_buffer *buffer =
		container_of(ref, struct peerdma_buffer, ref);
	struct peerdma_provider *provider = buffer->provider;

	pci_dev_put(buffer->reachable);
	pci_dev_put(buffer->pdev);
	put_pid(buffer->owner);
	kvfree(buffer->extents);
	if (buffer->inode)
		iput(buffer->inode);
	mutex_destroy(&buffer->pages_lock);
	mutex_destroy(&buffer->watchers_lock);
	kfree(buffer);
	peerdma_provider_put(provider);
}

static void buffer_unlist(struct peerdma_buffer *buffer)
{
	mutex_lock(&peerdma.buffers_lock);
	list_del(&buffer->list);
	mutex_unlock(&peerdma.buffers_lock);
}

static void buffer_release(struct dma_buf *dmabuf)
{
	struct peerdma_buffer *buffer = dmabuf->priv;

	/* Until the memory is given back its device's departure waits for that. */
	buffer_unpin(buffer);
	buffer_unlist(buffer);
	peerdma_buffer_forget_watchers(buffer);
	peerdma_count(PEERDMA_COUNT_BUFFERS, -1);
	kref_put(&buffer->ref, peerdma_buffer_free);
}

static const struct dma_buf_ops buffer_ops = {
	.attach = peerdma_device_attach,
	.detach = peerdma_device_detach,
	.pin = peerdma_device_pin,
	.unpin = peerdma_device_unpin,
	.map_dma_buf = peerdma_device_map,
	.unmap_dma_buf = peerdma_device_unmap,
	.mmap = peerdma_cpu_map,
	.release = buffer_release,
};

/**
 * peerdma_buffer_of - the buffer that a dma-buf is
 * @dmabuf: any
 *
 * Return: the buffer, which stays as long as @dmabuf, or NULL: somebody else's.
 */
struct peerdma_buffer *peerdma_buffer_of(struct dma_buf *dmabuf)
{
	return dmabuf->ops == &buffer_ops ? dmabuf->priv : NULL;
}

/**
 * peerdma_buffer_get - the buffer behind a descriptor, with a reference
 * @fd: a dma-buf of ours
 *
 * Return: the buffer, or ERR_PTR: -EBADF, -EINVAL (not a dma-buf), -EOPNOTSUPP
 * (somebody else's).
 */
struct peerdma_buffer *peerdma_buffer_get(int fd)
{
	struct dma_buf *dmabuf = dma_buf_get(fd);

	if (IS_ERR(dmabuf))
		return ERR_CAST(dmabuf);
	if (!peerdma_buffer_of(dmabuf)) {
		dma_buf_put(dmabuf);
		return ERR_PTR(-EOPNOTSUPP);
	}
	return dmabuf->priv;
}

/**
 * peerdma_buffer_put - undo peerdma_buffer_get() or peerdma_foreign_buffer()
 * @buffer: may go away with this call
 *
 * Context: process; may sleep when it is another exporter's.
 */
void peerdma_buffer_put(struct peerdma_buffer *buffer)
{
	if (buffer->dmabuf)
		dma_buf_put(buffer->dmabuf);
	else
		peerdma_foreign_put(buffer);
}

/**
 * peerdma_buffer_extent_at - the extent that holds a byte
 * @buffer: any
 * @offset: bytes from the start of the dma-buf, inside it
 *
 * Return: the index in buffer->extents.
 */
u32 peerdma_buffer_extent_at(const struct peerdma_buffer *buffer, u64 offset)
{
	u32 low = 0, high = buffer->nr_extents - 1;

	while (low < high) {
		u32 mid = low + (high - low + 1) / 2;

		if (buffer->extents[mid].offset <= offset)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

/**
 * peerdma_buffer_part - what one extent has of a range
 * @buffer: any
 * @index: of an extent that the range touches
 * @start: where the range starts, in bytes from the start of the dma-buf
 * @end: where it ends, likewise
 * @phys: out: physical address of the part's first byte
 *
 * Return: bytes of the part.
 */
u64 peerdma_buffer_part(const struct peerdma_buffer *buffer, u32 index,
			u64 start, u64 end, phys_addr_t *phys)
{
	const struct peerdma_extent *extent = &buffer->extents[index];
	u64 from = max(start, extent->offset);

	*phys = extent->phys + from - extent->offset;
	return min(end, extent->offset + extent->len) - from;
}

/*
 * The function and BAR that hold a physical address. The device's driver keeps
 * the BAR where it is for as long as the pin lives, so the answer stays true.
 */
static struct pci_dev *bar_owner(phys_addr_t phys, struct resource **bar)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev) {
		struct resource *res;
		int i;

		for (i = 0; i < PCI_STD_NUM_BARS; i++) {
			res = &pdev->resource[i];
			/* One without a parent was never given its place. */
			if ((res->flags & IORESOURCE_MEM) && res->parent &&
			    phys >= res->start && phys <= res->end) {
				*bar = res;
				return pdev;
			}
		}
	}
	return NULL;
}

/**
 * peerdma_is_bar - is this the address of memory behind a PCI BAR
 * @phys: any
 *
 * Context: process.
 */
bool peerdma_is_bar(phys_addr_t phys)
{
	struct resource *bar;
	struct pci_dev *pdev = bar_owner(phys, &bar);

	pci_dev_put(pdev);
	return pdev;
}

/**
 * peerdma_extents_add - the next part of a buffer's memory
 * @extents: so far; what is physically adjacent is merged
 * @phys: where the part lies
 * @len: bytes
 *
 * Return: 0, or -ERANGE when there is more to fill than was counted.
 */
int peerdma_extents_add(struct peerdma_extents *extents, phys_addr_t phys,
			u64 len)
{
	struct peerdma_extent *list = extents->extents;

	while (len) {
		u64 part;

		if (!extents->left || phys != extents->next) {
			if (list && extents->nr == extents->room)
				return -ERANGE;
			if (list)
				list[extents->nr] = (struct peerdma_extent){
					.offset = extents->len,
					.phys = phys,
				};
			extents->nr++;
			extents->left = PEERDMA_EXTENT_MAX;
		}
		part = min(len, extents->left);
		if (list)
			list[extents->nr - 1].len += part;
		phys += part;
		len -= part;
		extents->next = phys;
		extents->left -= part;
		extents->len += part;
	}
	return 0;
}

/*
 * Walk the provider's pages from @skip bytes in. Nothing is presumed of the
 * order of pages, which a GPU scatters as it likes.
 */
static int extents_walk(const struct peerdma_provider *provider,
			const struct peerdma_pinned *pinned, u64 skip, u64 len,
			struct peerdma_extents *extents)
{
	/* The first page holds the first byte, not always at its start. */
	u64 at = (pinned->addr & (pinned->page_size - 1)) + skip;
	u64 end = at + len, part;
	int ret;

	for (; at < end; at += part) {
		u64 in_page = at & (pinned->page_size - 1);
		phys_addr_t phys = provider->page(pinned,
						  at / pinned->page_size);

		part = min_t(u64, pinned->page_size - in_page, end - at);
		ret = peerdma_extents_add(extents, phys + in_page, part);
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}

/**
 * peerdma_buffer_place - find the BAR that holds a buffer
 * @buffer: its extents are known; @pdev and @end are found
 *
 * All of a buffer lies in one memory BAR, or it is none of ours to move. One that
 * is not prefetchable is uncached, whoever has pinned or exported it.
 * Ordinary memory that was pinned as such is the kernel's and lies anywhere.
 *
 * Return: 0 or -EOPNOTSUPP.
 */
int peerdma_buffer_place(struct peerdma_buffer *buffer)
{
	struct resource *bar;
	u32 i;

	if (peerdma_buffer_is_ram(buffer))
		return 0;
	buffer->pdev = bar_owner(buffer->extents[0].phys, &bar);
	if (!buffer->pdev)
		return -EOPNOTSUPP;
	if (!(bar->flags & IORESOURCE_PREFETCH))
		buffer->pinned.caching = PEERDMA_UNCACHED;

	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];

		/* Adjacent parts may together wrap where none did. */
		if (extent->phys < bar->start || extent->phys > bar->end ||
		    extent->len - 1 > bar->end - extent->phys)
			return -EOPNOTSUPP;
		buffer->end = max(buffer->end, extent->phys + extent->len);
	}
	return 0;
}

/* Round the range out to the provider's granule at both ends. */
static int pinned_range(struct peerdma_pinned *pinned, u64 granule, u64 addr,
			u64 len)
{
	u64 last;

	if (check_add_overflow(addr, len - 1, &last) ||
	    round_down(last, granule) > U64_MAX - granule)
		return -EOVERFLOW;
	pinned->addr = round_down(addr, granule);
	pinned->len = round_down(last, granule) + granule - pinned->addr;
	return 0;
}

/* How the CPU maps ordinary memory is not the caller's to choose. */
static int buffer_caching(struct peerdma_buffer *buffer, u32 flags)
{
	buffer->caching = buffer->pinned.caching;
	if (!(flags & PEERDMA_PIN_UNCACHED))
		return 0;
	buffer->caching = PEERDMA_UNCACHED;
	return peerdma_buffer_is_ram(buffer) ? -EOPNOTSUPP : 0;
}

/*
 * Find the extents of the whole CPU pages that the range of @pin touches. Called
 * with @alive held for writing: a revocation that has begun waits for it, so the
 * provider's table does not go away meanwhile.
 */
static int buffer_fill(struct peerdma_buffer *buffer,
		       const struct peerdma_pin *pin)
{
	const struct peerdma_provider *provider = buffer->provider;
	struct peerdma_pinned *pinned = &buffer->pinned;
	u64 start = round_down(pin->addr, PAGE_SIZE);
	u64 window = round_down(pin->addr + pin->len - 1, PAGE_SIZE) +
		     PAGE_SIZE - start;
	struct peerdma_extents extents = {};
	int ret;

	lockdep_assert_held_write(&buffer->alive);
	if (buffer->dead)
		return -ENODEV;
	ret = provider->describe(pinned);
	if (ret)
		return ret;

	buffer->offset = pin->addr - start;
	buffer->len = pin->len;
	extents_walk(provider, pinned, start - pinned->addr, window, &extents);
	buffer->nr_extents = extents.nr;
	/* More of them than kvcalloc() ever gives is for the caller to hear. */
	buffer->extents = kvcalloc(buffer->nr_extents, sizeof(*buffer->extents),
				   GFP_KERNEL | __GFP_NOWARN);
	if (!buffer->extents)
		return -ENOMEM;
	extents = (struct peerdma_extents){
		.extents = buffer->extents,
		.room = buffer->nr_extents,
	};
	ret = extents_walk(provider, pinned, start - pinned->addr, window,
			   &extents);
	if (!ret)
		ret = peerdma_buffer_place(buffer);
	/* Only now it is known what kind of BAR it is. */
	return ret ? ret : buffer_caching(buffer, pin->flags);
}

/**
 * peerdma_buffer_window - bytes of the dma-buf, whole CPU pages
 * @buffer: filled
 *
 * Return: the bytes.
 */
u64 peerdma_buffer_window(const struct peerdma_buffer *buffer)
{
	const struct peerdma_extent *last =
		&buffer->extents[buffer->nr_extents - 1];

	return last->offset + last->len;
}

static int buffer_export(struct peerdma_buffer *buffer)
{
	DEFINE_DMA_BUF_EXPORT_INFO(export);

	lockdep_assert_held_write(&buffer->alive);
	export.exp_name = "peerdma";
	export.ops = &buffer_ops;
	export.size = peerdma_buffer_window(buffer);
	export.flags = buffer->read_only ? O_RDONLY : O_RDWR;
	export.priv = buffer;
	buffer->dmabuf = dma_buf_export(&export);
	if (IS_ERR(buffer->dmabuf))
		return PTR_ERR(buffer->dmabuf);
	buffer->inode = file_inode(buffer->dmabuf->file);
	ihold(buffer->inode);
	return 0;
}

/**
 * peerdma_buffer_init - a buffer without memory
 * @buffer: zeroes; kfree() frees it
 * @provider: who will pin; the reference passes to the buffer
 * @pin: how
 *
 * From here on it ends with its last reference; it has one.
 */
void peerdma_buffer_init(struct peerdma_buffer *buffer,
			 struct peerdma_provider *provider,
			 const struct peerdma_pin *pin)
{
	buffer->provider = provider;
	buffer->read_only = pin->flags & PEERDMA_PIN_READ_ONLY;
	buffer->pinned.revocable = pin->flags & PEERDMA_PIN_REVOCABLE;
	buffer->pinned.device = pin->device;
	buffer->pinned.bar = pin->bar;
	kref_init(&buffer->ref);
	INIT_LIST_HEAD(&buffer->list);
	init_rwsem(&buffer->alive);
	refcount_set(&buffer->users, 1);
	init_completion(&buffer->drained);
	init_completion(&buffer->shut);
	init_completion(&buffer->revoked);
	INIT_WORK(&buffer->revoke_work, peerdma_buffer_revoke_work);
	INIT_LIST_HEAD(&buffer->mappings);
	INIT_LIST_HEAD(&buffer->watchers);
	mutex_init(&buffer->watchers_lock);
	mutex_init(&buffer->pages_lock);
	buffer->owner = get_pid(task_tgid(current));
	buffer->owner_uid = current_uid();
	get_task_comm(buffer->owner_comm, current);
}

/* The user's account is charged first, so that no two pins share what is left. */
static int buffer_pin(struct peerdma_buffer *buffer,
		      const struct peerdma_pin *pin)
{
	struct peerdma_provider *provider = buffer->provider;
	struct peerdma_pinned *pinned = &buffer->pinned;
	int ret;

	ret = pinned_range(pinned, provider->granule, pin->addr, pin->len);
	if (ret)
		return ret;
	buffer->account = peerdma_account_charge(pinned->len);
	if (IS_ERR(buffer->account))
		return PTR_ERR(buffer->account);
	ret = provider->pin(pinned);
	if (ret) {
		peerdma_account_uncharge(buffer->account, pinned->len);
		return ret;
	}
	peerdma_count(PEERDMA_COUNT_PINNED_BYTES, pinned->len);
	return 0;
}

/*
 * Consumes the reference to @provider, also when it fails. -EAGAIN: a device has
 * gone meanwhile, perhaps this one.
 */
static struct peerdma_buffer *buffer_create(struct peerdma_provider *provider,
					    const struct peerdma_pin *pin)
{
	u64 departures = peerdma_departures();
	struct peerdma_buffer *buffer;
	int ret;

	buffer = kzalloc_obj(*buffer, GFP_KERNEL);
	if (!buffer) {
		peerdma_provider_put(provider);
		return ERR_PTR(-ENOMEM);
	}
	peerdma_buffer_init(buffer, provider, pin);
	ret = buffer_pin(buffer, pin);
	if (ret)
		goto free_buffer;

	down_write(&buffer->alive);
	ret = buffer_fill(buffer, pin);
	if (ret || !peerdma_buffer_list(buffer, departures)) {
		/* A device that has gone is found in no list of BARs either. */
		if (departures != peerdma_departures())
			ret = -EAGAIN;
		goto unpin;
	}
	ret = buffer_export(buffer);
	if (ret)
		goto unpin;
	up_write(&buffer->alive);

	/* From here on the dma-buf's release ends the buffer. */
	peerdma_count(PEERDMA_COUNT_BUFFERS, 1);
	return buffer;

unpin:
	up_write(&buffer->alive);
	buffer_unpin(buffer);
	buffer_unlist(buffer);
free_buffer:
	kref_put(&buffer->ref, peerdma_buffer_free);
	return ERR_PTR(ret);
}

/**
 * peerdma_pin_ioctl - PEERDMA_PIN
 * @call: arg.pin in and out
 *
 * Return: 0 with the dma-buf's file in @call, or -errno as peerdma.h says.
 */
int peerdma_pin_ioctl(struct peerdma_call *call)
{
	struct peerdma_pin *pin = &call->arg.pin;
	struct peerdma_provider *provider;
	struct peerdma_buffer *buffer;
	int fd;

	if (pin->flags & ~(PEERDMA_PIN_READ_ONLY | PEERDMA_PIN_REVOCABLE |
			   PEERDMA_PIN_UNCACHED))
		return -EOPNOTSUPP;
	if (!pin->len)
		return -EINVAL;
	if (strnlen(pin->provider, sizeof(pin->provider)) ==
	    sizeof(pin->provider))
		return -ENOENT;

	provider = peerdma_provider_get(pin->provider);
	if (!provider)
		return -ENOENT;

	if ((pin->device || pin->bar) && !provider->by_device) {
		peerdma_provider_put(provider);
		return -EOPNOTSUPP;
	}

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		peerdma_provider_put(provider);
		return fd;
	}

	do {
		__module_get(provider->owner);
		buffer = buffer_create(provider, pin);
	} while (buffer == ERR_PTR(-EAGAIN));
	peerdma_provider_put(provider);
	trace_pin(pin, buffer, PTR_ERR_OR_ZERO(buffer));
	if (IS_ERR(buffer)) {
		put_unused_fd(fd);
		return PTR_ERR(buffer);
	}

	pin->out_fd = fd;
	pin->out_page_size = buffer->pinned.page_size;
	pin->out_offset = buffer->offset;
	call->fd = fd;
	/* The buffer's only reference passes to the caller's descriptor. */
	call->file = buffer->dmabuf->file;
	return 0;
}

static int query_segments(const struct peerdma_buffer *buffer,
			  const struct peerdma_query *query)
{
	struct peerdma_segment __user *user = u64_to_user_ptr(query->segments);
	u32 i;

	for (i = 0; i < buffer->nr_extents; i++) {
		const struct peerdma_extent *extent = &buffer->extents[i];
		struct peerdma_segment segment = {
			.offset = extent->offset,
			.addr = extent->phys,
			.len = extent->len,
		};

		if (copy_to_user(&user[i], &segment, sizeof(segment)))
			return -EFAULT;
	}
	return 0;
}

static int query_own(const struct peerdma_buffer *buffer,
		     struct peerdma_query *query, bool raw)
{
	u32 room = query->nr_segments;
	int ret = 0;

	query->nr_segments = raw ? buffer->nr_extents : 0;
	if (room && room < buffer->nr_extents)
		ret = -EMSGSIZE;
	else if (room)
		ret = query_segments(buffer, query);

	strscpy_pad(query->out_provider, buffer->provider->name,
		    sizeof(query->out_provider));
	query->out_offset = buffer->offset;
	query->out_len = buffer->len;
	query->out_page_size = buffer->pinned.page_size;
	query->out_state = 0;
	if (!buffer->pinned.revocable)
		query->out_state |= PEERDMA_BUFFER_PERSISTENT;
	if (READ_ONCE(buffer->dead))
		query->out_state |= PEERDMA_BUFFER_REVOKED;
	if (buffer->read_only)
		query->out_state |= PEERDMA_BUFFER_READ_ONLY;
	query->out_device = PEERDMA_DEVICE_NONE;
	if (buffer->pdev)
		query->out_device = peerdma_device_number(buffer->pdev);
	query->out_caching = atomic_read(&buffer->caching_seen);
	query->out_page_maps =
		atomic_read(&buffer->uses[PEERDMA_COUNT_PAGE_MAPS]);
	return ret;
}

/* What of another exporter's dma-buf is known without a device attached. */
static void query_foreign(const struct dma_buf *dmabuf,
			  struct peerdma_query *query)
{
	query->nr_segments = 0;
	strscpy_pad(query->out_provider, dmabuf->exp_name,
		    sizeof(query->out_provider));
	query->out_offset = 0;
	query->out_len = dmabuf->size;
	query->out_page_size = PAGE_SIZE;
	query->out_caching = 0;
	query->out_page_maps = 0;
	query->out_state = PEERDMA_BUFFER_FOREIGN;
	if (!(dmabuf->file->f_mode & FMODE_WRITE))
		query->out_state |= PEERDMA_BUFFER_READ_ONLY;
	query->out_device = PEERDMA_DEVICE_NONE;
}

/**
 * peerdma_query_ioctl - PEERDMA_QUERY
 * @call: arg.query in and out
 *
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_query_ioctl(struct peerdma_call *call)
{
	struct peerdma_query *query = &call->arg.query;
	bool raw = capable(CAP_SYS_RAWIO);
	struct peerdma_buffer *buffer;
	struct dma_buf *dmabuf;
	int ret = 0;

	if (query->flags || query->reserved)
		return -EOPNOTSUPP;
	if (query->nr_segments && !raw)
		return -EPERM;

	dmabuf = dma_buf_get(query->buffer_fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	buffer = peerdma_buffer_of(dmabuf);
	if (buffer)
		ret = query_own(buffer, query, raw);
	else
		query_foreign(dmabuf, query);
	dma_buf_put(dmabuf);
	return ret;
}
