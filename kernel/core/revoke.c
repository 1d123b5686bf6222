// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking memory back while the CPU, devices and files use it.
 *
 * There is one way, whoever asks: the provider's callback, a driver's unbinding,
 * a device's removal, or a privileged caller. In this order: mark the buffer
 * dead, so that nothing begins; let importers go; zap the CPU's mappings; wait
 * for transfers and importers; undo what MAP_DEVICE made; then the memory is
 * nobody's but its owner's. What is waited for ends by itself: a drive's
 * requests by its timeout, an importer's mappings by the contract of
 * dma_buf_invalidate_mappings(). Not so the pages of a page map, which somebody
 * may hold for as long as he likes; a device could still write to them, so they
 * are waited for all the same.
 */
#include <linux/capability.h>
#include <linux/dma-resv.h>
#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "trace.h"

#define PATIENCE	(30 * HZ)
/* Each may be anybody's, and keeps an eventfd's memory. */
#define WATCHERS_MAX	1024

/**
 * struct watcher - somebody who wants to know of a revocation
 * @list: in peerdma_buffer::watchers
 * @event: counted
 *
 * Owner: the buffer. Freed with it.
 */
struct watcher {
	struct list_head list;
	struct eventfd_ctx *event;
};

/**
 * peerdma_buffer_use - begin to use a buffer's memory
 * @buffer: held by the caller
 *
 * Return: true, to be undone by peerdma_buffer_unuse(); false when it is revoked.
 */
bool peerdma_buffer_use(struct peerdma_buffer *buffer)
{
	if (READ_ONCE(buffer->dead))
		return false;
	/*
	 * A revocation may have come in between. While anybody else's use keeps
	 * the count above zero this one is still counted, and waited for.
	 */
	return refcount_inc_not_zero(&buffer->users);
}

/**
 * peerdma_buffer_unuse - undo peerdma_buffer_use()
 * @buffer: held by the caller
 *
 * Context: any.
 */
void peerdma_buffer_unuse(struct peerdma_buffer *buffer)
{
	if (refcount_dec_and_test(&buffer->users))
		complete_all(&buffer->drained);
}

/*
 * Wakes up now and then: that somebody holds pages is no reason to take this for
 * a hung task, but is one to tell the administrator why it takes so long.
 */
static void buffer_drain(struct peerdma_buffer *buffer)
{
	if (wait_for_completion_timeout(&buffer->drained, PATIENCE))
		return;
	if (buffer->pdev)
		pci_warn(buffer->pdev,
			 "peerdma: a revoked buffer is still in use\n");
	else
		pr_warn("peerdma: a revoked buffer is still in use\n");
	while (!wait_for_completion_timeout(&buffer->drained, PATIENCE))
		;
}

static void importers_invalidate(struct dma_buf *dmabuf)
{
	dma_resv_lock(dmabuf->resv, NULL);
	dma_buf_invalidate_mappings(dmabuf);
	dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP, false,
			      MAX_SCHEDULE_TIMEOUT);
	dma_resv_unlock(dmabuf->resv);
}

static void watchers_signal(struct peerdma_buffer *buffer)
{
	struct watcher *watcher;

	mutex_lock(&buffer->watchers_lock);
	buffer->signalled = true;
	list_for_each_entry(watcher, &buffer->watchers, list)
		eventfd_signal(watcher->event);
	mutex_unlock(&buffer->watchers_lock);
}

/**
 * peerdma_buffer_shut - cut off all that uses a buffer's memory
 * @buffer: @ended has been left for this
 *
 * On return no device of ours and no file reaches the memory, nor does the CPU by
 * a mapping of ours, and none will. Sleeps for as long as what is in flight takes.
 *
 * Context: process. None of our locks is held, but perhaps a vendor's, or the
 * dma_resv of another exporter's dma-buf.
 */
void peerdma_buffer_shut(struct peerdma_buffer *buffer)
{
	down_write(&buffer->alive);
	WRITE_ONCE(buffer->dead, true);
	up_write(&buffer->alive);

	/* A buffer that was never exported has no inode, and no users either. */
	if (buffer->inode) {
		if (buffer->dmabuf)
			importers_invalidate(buffer->dmabuf);
		unmap_mapping_range(buffer->inode->i_mapping, 0, 0, 1);
		peerdma_page_maps_revoked();
	}
	peerdma_buffer_unuse(buffer);
	buffer_drain(buffer);
	peerdma_mappings_revoke(buffer);
}

/**
 * peerdma_buffer_revoke - take a buffer's memory back
 * @buffer: cannot be freed while this runs: its release waits for it
 * @unpin: give the memory back to the provider too; false when it is the
 *	provider that asks
 *
 * On return no device of ours and no file reaches the memory, and no CPU mapping
 * of it is left; touching one is SIGBUS. Idempotent: a second caller waits for
 * the first. The provider, when it is second, waits no longer than until that is
 * so: the first one's unpin may be waiting for the provider's callback. A buffer
 * on its way out already is left to its release, which the provider does not wait
 * for.
 *
 * Context: process; sleeps for as long as what is in flight takes. The caller may
 * hold locks of the provider's vendor, none of ours.
 */
void peerdma_buffer_revoke(struct peerdma_buffer *buffer, bool unpin)
{
	struct completion *done = unpin ? &buffer->revoked : &buffer->shut;

	switch (atomic_cmpxchg(&buffer->ended, PEERDMA_END_OPEN,
			       PEERDMA_END_REVOKE)) {
	case PEERDMA_END_RELEASE:
		if (!unpin)
			return;
		fallthrough;
	case PEERDMA_END_REVOKE:
		while (!wait_for_completion_timeout(done, PATIENCE))
			;
		return;
	}
	trace_revoke(buffer);
	peerdma_buffer_shut(buffer);
	peerdma_buffer_end_pin(buffer);
	complete_all(&buffer->shut);
	if (unpin)
		buffer->provider->unpin(&buffer->pinned);
	watchers_signal(buffer);
	/* The release, and with it the end of @buffer, may follow at once. */
	complete_all(&buffer->revoked);
}

/**
 * peerdma_pinned_revoke - for providers: the memory is being taken back
 * @pinned: of a pin with @revocable set; its unpin will not be called
 *
 * To be called from the vendor's callback. On return nothing of ours touches the
 * memory, nor what describes it.
 *
 * Context: process; sleeps. May be called as soon as the provider's pin has begun
 * and until its unpin has returned.
 */
void peerdma_pinned_revoke(struct peerdma_pinned *pinned)
{
	peerdma_buffer_revoke(container_of(pinned, struct peerdma_buffer,
					   pinned), false);
}
EXPORT_SYMBOL_NS_GPL(peerdma_pinned_revoke, PEERDMA_NS);

/**
 * peerdma_buffer_revoke_work - a revocation that outlives who asked for it
 * @work: peerdma_buffer::revoke_work; consumes a reference to the dma-buf
 */
void peerdma_buffer_revoke_work(struct work_struct *work)
{
	struct peerdma_buffer *buffer =
		container_of(work, struct peerdma_buffer, revoke_work);

	peerdma_buffer_revoke(buffer, true);
	peerdma_buffer_put(buffer);
}

/**
 * peerdma_revoke_ioctl - PEERDMA_REVOKE
 * @call: arg.revoke
 *
 * Pages can be held for ever, so whoever waits for them can be killed; the
 * revocation goes on.
 *
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_revoke_ioctl(struct peerdma_call *call)
{
	struct peerdma_revoke *revoke = &call->arg.revoke;
	struct peerdma_buffer *buffer;
	int ret = 0;

	if (revoke->flags || revoke->reserved)
		return -EOPNOTSUPP;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;

	buffer = peerdma_buffer_get(revoke->buffer_fd);
	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	get_dma_buf(buffer->dmabuf);
	if (!queue_work(peerdma.revocations, &buffer->revoke_work))
		peerdma_buffer_put(buffer);
	if (wait_for_completion_killable(&buffer->revoked))
		ret = -EINTR;
	peerdma_buffer_put(buffer);
	return ret;
}

static int watch_add(struct peerdma_buffer *buffer, struct eventfd_ctx *event)
{
	struct watcher *watcher = kzalloc_obj(*watcher, GFP_KERNEL_ACCOUNT);
	int ret = 0;

	if (!watcher)
		return -ENOMEM;
	watcher->event = event;
	mutex_lock(&buffer->watchers_lock);
	if (buffer->nr_watchers == WATCHERS_MAX) {
		kfree(watcher);
		ret = -EUSERS;
	} else {
		buffer->nr_watchers++;
		list_add_tail(&watcher->list, &buffer->watchers);
		/* One that came too late for the others' signal gets its own. */
		if (buffer->signalled)
			eventfd_signal(event);
	}
	mutex_unlock(&buffer->watchers_lock);
	return ret;
}

/**
 * peerdma_watch_ioctl - PEERDMA_WATCH
 * @call: arg.watch
 *
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_watch_ioctl(struct peerdma_call *call)
{
	struct peerdma_watch *watch = &call->arg.watch;
	struct peerdma_buffer *buffer;
	struct eventfd_ctx *event;
	int ret;

	if (watch->flags)
		return -EOPNOTSUPP;

	buffer = peerdma_buffer_get(watch->buffer_fd);
	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	event = eventfd_ctx_fdget(watch->event_fd);
	ret = PTR_ERR_OR_ZERO(event);
	if (ret)
		goto put_buffer;
	ret = watch_add(buffer, event);
	if (ret)
		eventfd_ctx_put(event);
put_buffer:
	peerdma_buffer_put(buffer);
	return ret;
}

/**
 * peerdma_buffer_forget_watchers - nobody is to be told any more
 * @buffer: on its way out
 */
void peerdma_buffer_forget_watchers(struct peerdma_buffer *buffer)
{
	struct watcher *watcher, *next;

	list_for_each_entry_safe(watcher, next, &buffer->watchers, list) {
		eventfd_ctx_put(watcher->event);
		kfree(watcher);
	}
}

/**
 * peerdma_departures - to be called before a pin, for peerdma_buffer_list()
 *
 * Return: how many drivers and devices have gone so far.
 */
u64 peerdma_departures(void)
{
	u64 departures;

	mutex_lock(&peerdma.buffers_lock);
	departures = peerdma.departures;
	mutex_unlock(&peerdma.buffers_lock);
	return departures;
}

/**
 * peerdma_buffer_list - let a buffer be found by its device's departure
 * @buffer: pinned, its @pdev known, its @alive held for writing
 * @departures: what peerdma_departures() said before the pin
 *
 * Return: false when a driver or device has gone meanwhile, which may have been
 * this one's: the pin is to be undone and tried again.
 */
bool peerdma_buffer_list(struct peerdma_buffer *buffer, u64 departures)
{
	bool unchanged;

	mutex_lock(&peerdma.buffers_lock);
	unchanged = departures == peerdma.departures;
	if (unchanged)
		list_add_tail(&buffer->list, &peerdma.buffers);
	mutex_unlock(&peerdma.buffers_lock);
	return unchanged;
}

/*
 * A buffer of @pdev whose pin has not ended yet, with a reference, or NULL: one that
 * is being revoked or released by somebody else is to be waited for. It goes to the
 * end of the list, so that who asks again does not pass it again.
 */
static struct peerdma_buffer *buffer_of_device(struct pci_dev *pdev)
{
	struct peerdma_buffer *buffer, *found = NULL;

	mutex_lock(&peerdma.buffers_lock);
	list_for_each_entry(buffer, &peerdma.buffers, list) {
		if (buffer->pdev != pdev || completion_done(&buffer->revoked))
			continue;
		kref_get(&buffer->ref);
		list_move_tail(&buffer->list, &peerdma.buffers);
		found = buffer;
		break;
	}
	mutex_unlock(&peerdma.buffers_lock);
	return found;
}

/*
 * The device's driver is about to let it go: its memory is taken back while the
 * driver is still there to be given it. Called with the device's lock held. Or
 * the driver has gone, and what it let be pinned meanwhile goes too. Or the device
 * itself goes, which may have had no driver. A driver that comes may want struct
 * pages of its own for the BAR, or map it in its own way: idle ones of ours go.
 */
static int device_event(struct notifier_block *block, unsigned long action,
			void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);
	struct peerdma_buffer *buffer;
	bool unanswered;

	if (action == BUS_NOTIFY_BIND_DRIVER) {
		peerdma_pages_forget(pdev);
		return NOTIFY_OK;
	}
	if (action != BUS_NOTIFY_UNBIND_DRIVER &&
	    action != BUS_NOTIFY_UNBOUND_DRIVER &&
	    action != BUS_NOTIFY_DEL_DEVICE)
		return NOTIFY_DONE;

	mutex_lock(&peerdma.buffers_lock);
	peerdma.departures++;
	mutex_unlock(&peerdma.buffers_lock);
	while ((buffer = buffer_of_device(pdev))) {
		peerdma_buffer_revoke(buffer, true);
		kref_put(&buffer->ref, peerdma_buffer_free);
	}
	/*
	 * A driver whose device has been pulled out fails what is in flight when
	 * it leaves, and not before: it is waited for afterwards.
	 */
	unanswered = action == BUS_NOTIFY_UNBIND_DRIVER &&
		     pci_channel_offline(pdev);
	peerdma_foreign_forget(pdev, !unanswered);
	peerdma_pages_forget(pdev);
	return NOTIFY_OK;
}

static struct notifier_block device_notifier = {
	.notifier_call = device_event,
};

/**
 * peerdma_revoke_init - begin to listen to drivers' comings and goings
 *
 * Return: 0 or -errno.
 */
int peerdma_revoke_init(void)
{
	int ret;

	peerdma.revocations = alloc_workqueue("peerdma_revoke", WQ_UNBOUND, 0);
	if (!peerdma.revocations)
		return -ENOMEM;
	ret = bus_register_notifier(&pci_bus_type, &device_notifier);
	if (ret)
		destroy_workqueue(peerdma.revocations);
	return ret;
}

/**
 * peerdma_revoke_exit - undo peerdma_revoke_init()
 */
void peerdma_revoke_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &device_notifier);
	destroy_workqueue(peerdma.revocations);
}
