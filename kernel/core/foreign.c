// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other exporters' dma-bufs as memory for FILE_IO, MAP_DEVICE and PAGES.
 *
 * What these want of an exporter is where its memory lies, since the mapping for
 * a device is the block layer's or our own. A dma-buf tells that only
 * to a device that is attached and only as DMA addresses, so it is attached to
 * one, mapped, and the addresses are turned back into physical ones. From there on
 * it is a buffer like one of ours, without a dma-buf of its own: an import. It
 * stays attached and mapped, which is what holds the memory, for as long as anybody
 * wants it; those that come meanwhile share it, since the DMA API's debugging knows
 * seven mappings of the same memory and no more.
 *
 * A FILE_IO attaches its drive. PAGES is for no device in particular, and one that
 * MAP_DEVICE maps for may have no driver, and so no DMA API that an exporter could
 * use, or address little; there any function that has all that stands in.
 *
 * An exporter that takes its memory back calls us with its dma_resv held, and
 * with locks of its own that its page faults want. We wait there until nothing
 * is in flight, so what is in flight must not wait for a task that may be in
 * such a fault. A regular file's lock is held over faults, by write(2). So an
 * import for a regular file is one that the exporter does not take back: it is
 * pinned, and the attachment has no callback. So is one for a device that nothing
 * can stop, and for pages, which somebody may hold.
 */
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "core.h"

/**
 * struct peerdma_import - another exporter's dma-buf, attached to a function
 * @buffer: its memory; first, so that peerdma_buffer_free() frees the whole
 * @list: in peerdma_core::imports
 * @dmabuf: counted
 * @importer: the function that it is attached to; counted
 * @attachment: NULL when it is detached; changed under the dma-buf's dma_resv.
 *	The buffer's @revoked says that the exporter knows.
 * @sgt: the mapping, NULL when there is none; under the dma_resv
 * @pinned: the exporter has promised not to move it; under the dma_resv
 * @lasting: for those from whom it cannot be taken back at any moment; the others
 *	have their own
 * @sharers: transfers, mappings and page maps; none is added to none
 *
 * Owner: the sharers, the last one's end detaches it. Before that the exporter or
 * the unbinding of a driver may take the memory away; the struct stays.
 */
struct peerdma_import {
	struct peerdma_buffer buffer;
	struct list_head list;
	struct dma_buf *dmabuf;
	struct pci_dev *importer;
	struct dma_buf_attachment *attachment;
	struct sg_table *sgt;
	bool pinned;
	bool lasting;
	refcount_t sharers;
};

static_assert(!offsetof(struct peerdma_import, buffer));

/*
 * Not on the list of providers, since nothing is pinned by name. Its imports hold
 * this module: nothing else may, while somebody holds a page of one.
 */
static struct peerdma_provider foreign = {
	.name = "foreign",
	.owner = THIS_MODULE,
};

/* Only our own buffers' is held around dma_buf_export(), which no dma_resv is over. */
static struct lock_class_key import_alive;

/* ---- let go -------------------------------------------------------------- */

/* On return nothing of ours uses the memory, nor will. Idempotent. */
static void import_drain(struct peerdma_import *import)
{
	struct peerdma_buffer *buffer = &import->buffer;

	if (atomic_cmpxchg(&buffer->ended, PEERDMA_END_OPEN,
			   PEERDMA_END_REVOKE) == PEERDMA_END_OPEN) {
		peerdma_buffer_shut(buffer);
		complete_all(&buffer->shut);
	}
	wait_for_completion(&buffer->shut);
}

static void import_unmap(struct peerdma_import *import)
{
	dma_resv_assert_held(import->dmabuf->resv);
	if (import->sgt)
		dma_buf_unmap_attachment(import->attachment, import->sgt,
					 DMA_BIDIRECTIONAL);
	import->sgt = NULL;
	if (import->pinned)
		dma_buf_unpin(import->attachment);
	import->pinned = false;
}

/* Idempotent; of two callers that race one completes @revoked. */
static void import_detach(struct peerdma_import *import)
{
	struct dma_buf_attachment *attachment;

	import_drain(import);
	peerdma_buffer_forget_pages(&import->buffer);
	dma_resv_lock(import->dmabuf->resv, NULL);
	import_unmap(import);
	attachment = import->attachment;
	import->attachment = NULL;
	dma_resv_unlock(import->dmabuf->resv);
	if (!attachment)
		return;
	dma_buf_detach(import->dmabuf, attachment);
	complete_all(&import->buffer.revoked);
}

/*
 * The exporter moves the memory or takes it back. What is in flight is waited for
 * here and not by a fence: a fence would be waited for in its turn.
 */
static void import_moved(struct dma_buf_attachment *attachment)
{
	struct peerdma_import *import = attachment->importer_priv;

	dma_resv_assert_held(attachment->dmabuf->resv);
	/* Before the memory is mapped nobody knows where it lies. */
	if (!import->sgt)
		return;
	import_drain(import);
	import_unmap(import);
}

static const struct dma_buf_attach_ops revocable_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = import_moved,
};

static const struct dma_buf_attach_ops lasting_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = PEERDMA_DECLINED(import_moved),
};

/* ---- from DMA addresses to memory ---------------------------------------- */

/*
 * One entry of an exporter's table. An address that the IOMMU does not know is a
 * raw one: exporters return those although an IOMMU translates
 * (open-gpu-kernel-modules#1324). One that lies in a BAR and is also translated
 * to something else could mean either.
 */
static int entry_walk(struct iommu_domain *domain, dma_addr_t addr, u64 len,
		      struct peerdma_extents *extents)
{
	phys_addr_t phys = addr;
	u64 done;
	int ret;

	if (!len || !IS_ALIGNED(addr | len, PAGE_SIZE) || addr + len - 1 < addr)
		return -EINVAL;
	if (domain && (iommu_iova_to_phys(domain, addr) ||
		       iommu_iova_to_phys(domain, addr + len - 1)))
		phys = iommu_iova_to_phys(domain, addr);
	if (phys == addr)
		return peerdma_extents_add(extents, addr, len);
	if (peerdma_is_bar(addr))
		return -EINVAL;

	for (done = 0; done < len; done += PAGE_SIZE) {
		phys = iommu_iova_to_phys(domain, addr + done);
		if (!phys)
			return -EINVAL;
		ret = peerdma_extents_add(extents, phys, PAGE_SIZE);
		if (ret)
			return ret;
		if (IS_ALIGNED(done, SZ_4M))
			cond_resched();
	}
	return 0;
}

static int table_walk(struct peerdma_import *import,
		      struct peerdma_extents *extents)
{
	struct iommu_domain *domain =
		iommu_get_domain_for_dev(&import->importer->dev);
	u64 left = import->dmabuf->size;
	struct scatterlist *sg;
	unsigned int i;
	int ret;

	if (domain && !(domain->type & __IOMMU_DOMAIN_PAGING))
		domain = NULL;
	for_each_sgtable_dma_sg(import->sgt, sg, i) {
		u64 len = min_t(u64, sg_dma_len(sg), left);

		if (!left)
			break;
		ret = entry_walk(domain, sg_dma_address(sg), len, extents);
		if (ret)
			return ret;
		left -= len;
	}
	return left ? -EINVAL : 0;
}

/* Find out where the memory lies; called with it mapped. */
static int import_fill(struct peerdma_import *import,
		       enum peerdma_reason *reason)
{
	struct peerdma_buffer *buffer = &import->buffer;
	struct peerdma_extents extents = {};

	*reason = PEERDMA_REASON_FOREIGN_ADDRESSES;
	if (table_walk(import, &extents) || !extents.nr)
		return -EREMOTEIO;
	buffer->extents = kvcalloc(extents.nr, sizeof(*buffer->extents),
				   GFP_KERNEL);
	if (!buffer->extents)
		return -ENOMEM;
	extents = (struct peerdma_extents){ .extents = buffer->extents,
					    .room = extents.nr };
	if (table_walk(import, &extents))
		return -EREMOTEIO;
	buffer->nr_extents = extents.nr;
	buffer->len = import->dmabuf->size;

	*reason = PEERDMA_REASON_FOREIGN_MEMORY;
	return peerdma_buffer_place(buffer) ? -EREMOTEIO : 0;
}

/* ---- attached and mapped ------------------------------------------------- */

/*
 * What an exporter's refusal means to our caller. ENOMEM tells nothing: dma-buf's
 * core makes it of exporters that fail without an errno.
 */
static int exporter_error(int error, enum peerdma_reason *reason)
{
	if (error == -ENODEV)
		return error;
	*reason = PEERDMA_REASON_FOREIGN_REFUSED;
	return -EREMOTEIO;
}

static int import_attach(struct peerdma_import *import,
			 enum peerdma_reason *reason)
{
	struct device *dev = &import->importer->dev;
	struct dma_buf_attachment *attachment;
	bool lasting = import->lasting;

	/* With a driver that is being unbound goes peerdma_foreign_forget(). */
	if (!dev->driver)
		return -ENODEV;
	if (to_pci_driver(dev->driver)->driver_managed_dma)
		return -EBUSY;
	*reason = PEERDMA_REASON_FOREIGN_REVOCABLE;
	if (lasting && !import->dmabuf->ops->pin &&
	    !peerdma_declining_is_heard())
		return -EREMOTEIO;
	attachment = dma_buf_dynamic_attach(import->dmabuf, dev,
					    lasting ? &lasting_ops :
					    &revocable_ops, import);
	/* What dma_buf_attach_revocable()'s callers answer. */
	if (lasting && attachment == ERR_PTR(-EOPNOTSUPP))
		return -EREMOTEIO;
	if (IS_ERR(attachment))
		return exporter_error(PTR_ERR(attachment), reason);
	import->attachment = attachment;
	return 0;
}

/*
 * With the dma_resv held throughout, the exporter cannot move the memory between
 * the mapping and our having understood it.
 */
static int import_map(struct peerdma_import *import,
		      enum peerdma_reason *reason)
{
	struct dma_resv *resv = import->dmabuf->resv;
	struct sg_table *sgt;
	int ret;

	dma_resv_lock(resv, NULL);
	ret = dma_buf_pin(import->attachment);
	import->pinned = !ret;
	if (ret && import->lasting) {
		*reason = PEERDMA_REASON_FOREIGN_REVOCABLE;
		ret = ret == -ENODEV ? ret : -EREMOTEIO;
		goto unlock;
	}
	sgt = dma_buf_map_attachment(import->attachment, DMA_BIDIRECTIONAL);
	if (IS_ERR(sgt)) {
		ret = exporter_error(PTR_ERR(sgt), reason);
		goto unlock;
	}
	import->sgt = sgt;
	/* The exporter may still be moving the contents in. */
	dma_resv_wait_timeout(resv, DMA_RESV_USAGE_KERNEL, false,
			      MAX_SCHEDULE_TIMEOUT);
	ret = import_fill(import, reason);
unlock:
	dma_resv_unlock(resv);
	return ret;
}

/**
 * peerdma_foreign_put - undo peerdma_foreign_get()
 * @buffer: nothing of the caller's is in flight; one of our own is left alone
 *
 * Context: process; may sleep.
 */
void peerdma_foreign_put(struct peerdma_buffer *buffer)
{
	struct peerdma_import *import;

	if (buffer->provider != &foreign)
		return;
	import = container_of(buffer, struct peerdma_import, buffer);
	if (!refcount_dec_and_test(&import->sharers))
		return;
	/* Until it is detached an unbinding finds it, and waits. */
	import_detach(import);
	mutex_lock(&peerdma.buffers_lock);
	list_del(&import->list);
	mutex_unlock(&peerdma.buffers_lock);
	pci_dev_put(import->importer);
	dma_buf_put(import->dmabuf);
	kref_put(&buffer->ref, peerdma_buffer_free);
	peerdma_count(PEERDMA_COUNT_IMPORTS, -1);
}

/* One that is in use already and has not been taken away, or NULL. */
static struct peerdma_import *import_share(struct dma_buf *dmabuf,
					   struct pci_dev *importer,
					   bool lasting)
{
	struct peerdma_import *import, *found = NULL;

	mutex_lock(&peerdma.buffers_lock);
	list_for_each_entry(import, &peerdma.imports, list) {
		if (import->dmabuf == dmabuf && import->importer == importer &&
		    import->lasting == lasting &&
		    !READ_ONCE(import->buffer.dead) &&
		    refcount_inc_not_zero(&import->sharers)) {
			found = import;
			break;
		}
	}
	mutex_unlock(&peerdma.buffers_lock);
	return found;
}

/* An address space for page maps; the exporter's own mappings are its business. */
static int import_inode(struct peerdma_import *import)
{
	struct inode *of_dmabuf = file_inode(import->dmabuf->file);
	struct inode *inode = alloc_anon_inode(of_dmabuf->i_sb);

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	inode->i_ino = of_dmabuf->i_ino;
	import->buffer.inode = inode;
	return 0;
}

static struct peerdma_import *import_create(struct dma_buf *dmabuf,
					    struct pci_dev *importer,
					    bool lasting,
					    enum peerdma_reason *reason)
{
	struct peerdma_import *import = kzalloc_obj(*import, GFP_KERNEL);
	u64 departures = peerdma_departures();
	int ret;

	if (!import)
		return ERR_PTR(-ENOMEM);
	__module_get(foreign.owner);
	peerdma_buffer_init(&import->buffer, &foreign, &(struct peerdma_pin){});
	lockdep_set_class(&import->buffer.alive, &import_alive);
	import->buffer.read_only = !(dmabuf->file->f_mode & FMODE_WRITE);
	import->buffer.pinned.revocable = !lasting;
	import->dmabuf = dmabuf;
	get_dma_buf(dmabuf);
	import->importer = pci_dev_get(importer);
	import->lasting = lasting;
	refcount_set(&import->sharers, 1);
	peerdma_count(PEERDMA_COUNT_IMPORTS, 1);
	mutex_lock(&peerdma.buffers_lock);
	list_add(&import->list, &peerdma.imports);
	mutex_unlock(&peerdma.buffers_lock);

	ret = import_inode(import) ?: import_attach(import, reason);
	if (ret)
		complete_all(&import->buffer.revoked);
	else
		ret = import_map(import, reason);
	/* Whose memory it is was not known yet to what went meanwhile. */
	if (!ret && departures != peerdma_departures())
		ret = -EAGAIN;
	if (!ret)
		return import;
	peerdma_foreign_put(&import->buffer);
	return ERR_PTR(ret);
}

/**
 * peerdma_foreign_get - another exporter's memory as a function reaches it
 * @dmabuf: held by the caller; not ours
 * @importer: held by the caller
 * @lasting: it cannot be let go at any moment: a transfer may wait, while it uses
 *	the memory, for a lock that others hold over page faults; a device goes on
 *	that nothing stops; somebody holds pages
 * @reason: out; why not, with -EREMOTEIO
 *
 * Context: process; may sleep, and takes the function's device lock, which an
 * unbinding may hold for as long as the caller holds something else.
 * Return: a buffer, to be given to peerdma_foreign_put(), or ERR_PTR: -EREMOTEIO,
 * -ENODEV when exporter or function are going away, -EBUSY when the DMA API is not
 * the function's driver's, -EINTR, -ENOMEM.
 */
struct peerdma_buffer *peerdma_foreign_get(struct dma_buf *dmabuf,
					   struct pci_dev *importer,
					   bool lasting,
					   enum peerdma_reason *reason)
{
	struct peerdma_import *import;

	*reason = PEERDMA_REASON_NONE;
	/* One after the other: nobody sees another one's import half made. */
	if (mutex_lock_killable(&importer->dev.mutex))
		return ERR_PTR(-EINTR);
	do {
		import = import_share(dmabuf, importer, lasting) ?:
			 import_create(dmabuf, importer, lasting, reason);
	} while (import == ERR_PTR(-EAGAIN));
	device_unlock(&importer->dev);
	if (import != ERR_PTR(-EREMOTEIO))
		*reason = PEERDMA_REASON_NONE;
	return IS_ERR(import) ? ERR_CAST(import) : &import->buffer;
}

/* Could an exporter map memory that ends at @end for this function? */
static bool stands_in(struct pci_dev *pdev, phys_addr_t end)
{
	return pdev->dev.driver && pdev->is_busmaster && !pci_is_bridge(pdev) &&
	       (peerdma_device_translated(&pdev->dev) ||
		end - 1 <= dma_get_mask(&pdev->dev));
}

/*
 * The memory as any function reaches it. An exporter does not say whose it is
 * before one is attached. Then the memory's own device is preferred: the import
 * ends with it anyway, and need not end with another one.
 */
static struct peerdma_buffer *foreign_find(struct dma_buf *dmabuf, bool lasting,
					   enum peerdma_reason *reason)
{
	struct peerdma_buffer *found = ERR_PTR(-EREMOTEIO), *got;
	struct pci_dev *pdev = NULL;
	enum peerdma_reason why;

	*reason = PEERDMA_REASON_FOREIGN_REFUSED;
	while (IS_ERR(found) && found != ERR_PTR(-EINTR) &&
	       (pdev = pci_get_device(PCI_ANY_ID, PCI_ANY_ID, pdev))) {
		if (!stands_in(pdev, 0))
			continue;
		got = peerdma_foreign_get(dmabuf, pdev, lasting, &why);
		if (got == ERR_PTR(-EBUSY))
			continue;
		found = got;
		*reason = why;
	}
	pci_dev_put(pdev);
	if (IS_ERR(found) || !stands_in(found->pdev, found->end))
		return found;
	got = peerdma_foreign_get(dmabuf, found->pdev, lasting, &why);
	if (IS_ERR(got))
		return found;
	peerdma_foreign_put(found);
	return got;
}

/**
 * peerdma_foreign_buffer - the buffer behind a descriptor, whoever exported it
 * @fd: any dma-buf
 * @lasting: as for peerdma_foreign_get()
 * @reason: out; why not, with -EREMOTEIO
 *
 * Context: process; may sleep.
 * Return: the buffer, to be given to peerdma_buffer_put(), or ERR_PTR: -EBADF,
 * -EINVAL (not a dma-buf), or what peerdma_foreign_get() says.
 */
struct peerdma_buffer *peerdma_foreign_buffer(int fd, bool lasting,
					      enum peerdma_reason *reason)
{
	struct dma_buf *dmabuf = dma_buf_get(fd);
	struct peerdma_buffer *buffer;

	*reason = PEERDMA_REASON_NONE;
	if (IS_ERR(dmabuf))
		return ERR_CAST(dmabuf);
	/* The reference to one of ours is the caller's from now on. */
	buffer = peerdma_buffer_of(dmabuf);
	if (buffer)
		return buffer;
	buffer = foreign_find(dmabuf, lasting, reason);
	dma_buf_put(dmabuf);
	return buffer;
}

/* ---- a device goes away -------------------------------------------------- */

/*
 * One that is attached to @pdev or is its memory, held with its dma-buf. One that is
 * about to be attached is not there: the device's lock is held or its driver gone.
 */
static struct peerdma_import *import_of_device(const struct pci_dev *pdev,
					       bool importer)
{
	struct peerdma_import *import, *found = NULL;

	mutex_lock(&peerdma.buffers_lock);
	list_for_each_entry(import, &peerdma.imports, list) {
		if ((!(importer && import->importer == pdev) &&
		     READ_ONCE(import->buffer.pdev) != pdev) ||
		    completion_done(&import->buffer.revoked))
			continue;
		kref_get(&import->buffer.ref);
		get_dma_buf(import->dmabuf);
		found = import;
		break;
	}
	mutex_unlock(&peerdma.buffers_lock);
	return found;
}

/**
 * peerdma_foreign_forget - let go what a device that goes away reads or holds
 * @pdev: what is attached, or the device whose memory it is
 * @importer: false: only what is its memory
 *
 * On return nothing is attached to it. Transfers end with ENODEV, page maps answer
 * SIGBUS, and what MAP_DEVICE made reaches the memory no longer.
 *
 * Context: process, with the device's lock held. Waits for who holds pages.
 */
void peerdma_foreign_forget(struct pci_dev *pdev, bool importer)
{
	struct peerdma_import *import;

	while ((import = import_of_device(pdev, importer))) {
		struct dma_buf *dmabuf = import->dmabuf;

		import_detach(import);
		wait_for_completion(&import->buffer.revoked);
		kref_put(&import->buffer.ref, peerdma_buffer_free);
		dma_buf_put(dmabuf);
	}
}
