// SPDX-License-Identifier: GPL-2.0-only
/*
 * A buffer for a device that user space drives: MAP_DEVICE.
 *
 * Two ways. A device that a driver works with gets its addresses from the DMA
 * API, as a dma_buf_attach() of that driver's would. A device without one, or
 * with peerdma-stub, gets them in an IOMMU domain of our own (domain.c), as one
 * range and where it was asked for; with no IOMMU its addresses are those of the
 * bus.
 *
 * Whoever holds the descriptor is not asked when the memory is taken back, nor
 * when the device goes: the mapping is undone under it.
 */
#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "trace.h"

/**
 * struct piece - what the device sees as one run of addresses
 * @addr: for the device
 * @len: bytes, whole CPU pages
 */
struct piece {
	dma_addr_t addr;
	u64 len;
};

/**
 * struct mapping - a part of a buffer, for one device
 * @list: in peerdma_core::mappings; empty once the device has been left
 * @of_buffer: in peerdma_buffer::mappings; empty once unmapped
 * @buffer: counted
 * @pdev: counted
 * @start: from there in the dma-buf, on a CPU page
 * @end: to there, likewise
 * @read_only: the device may only read
 * @free: no driver but our stub works with the device
 * @mapped: the device reaches the memory
 * @domain: ours, held; NULL when the addresses are the DMA API's, or once left
 * @iova: the place in @domain
 * @pieces: what was mapped, in order; one where there is a @domain
 * @nr_pieces: how many
 *
 * Owner: its descriptor's file. Unmapped by the first of the file's release, a
 * revocation of the buffer, its exporter's taking it back, and the coming or going
 * of the device's driver or its removal; all but these two in the middle also leave
 * the device. What changes is under peerdma_core::mappings_lock. The struct dies
 * with the file.
 */
struct mapping {
	struct list_head list;
	struct list_head of_buffer;
	struct peerdma_buffer *buffer;
	struct pci_dev *pdev;
	u64 start;
	u64 end;
	bool read_only;
	bool free;
	bool mapped;
	struct peerdma_domain *domain;
	struct peerdma_iova iova;
	struct piece *pieces;
	u32 nr_pieces;
};

static enum dma_data_direction direction(const struct mapping *mapping)
{
	return mapping->read_only ? DMA_TO_DEVICE : DMA_BIDIRECTIONAL;
}

static void pieces_unmap(struct mapping *mapping, u32 nr)
{
	struct device *dev = &mapping->pdev->dev;
	u32 i;

	for (i = 0; i < nr; i++)
		dma_unmap_resource(dev, mapping->pieces[i].addr,
				   mapping->pieces[i].len, direction(mapping),
				   0);
	peerdma_device_flush(dev);
}

static int pieces_map(struct mapping *mapping)
{
	const struct peerdma_buffer *buffer = mapping->buffer;
	u32 first = peerdma_buffer_extent_at(buffer, mapping->start);
	u32 i;

	for (i = 0; i < mapping->nr_pieces; i++) {
		struct piece *piece = &mapping->pieces[i];
		phys_addr_t phys;

		piece->len = peerdma_buffer_part(buffer, first + i,
						 mapping->start, mapping->end,
						 &phys);
		piece->addr = peerdma_dma_map(&mapping->pdev->dev, phys,
					      piece->len, direction(mapping));
		if (piece->addr == DMA_MAPPING_ERROR) {
			pieces_unmap(mapping, i);
			return -EREMOTEIO;
		}
	}
	return 0;
}

static int domain_map(struct mapping *mapping, bool chosen)
{
	int ret;

	ret = peerdma_domain_place(mapping->domain, mapping->pdev,
				   &mapping->iova, chosen);
	if (ret)
		return ret;
	ret = peerdma_domain_map(mapping->domain, &mapping->iova,
				 mapping->buffer, mapping->start,
				 mapping->read_only);
	if (ret)
		return ret;
	mapping->pieces[0].addr = mapping->iova.start;
	mapping->pieces[0].len = mapping->iova.len;
	return 0;
}

/* The device reaches the memory no longer; what it had stays empty. */
static void mapping_unmap(struct mapping *mapping)
{
	lockdep_assert_held(&peerdma.mappings_lock);
	if (!mapping->mapped)
		return;
	mapping->mapped = false;
	list_del_init(&mapping->of_buffer);

	if (mapping->domain) {
		peerdma_domain_unmap(mapping->domain, &mapping->iova);
	} else {
		pieces_unmap(mapping, mapping->nr_pieces);
		/* With nothing between them, the device itself is stopped. */
		if (mapping->free)
			pci_clear_master(mapping->pdev);
	}
	peerdma_buffer_count(mapping->buffer, PEERDMA_COUNT_DEVICE_MAPS, -1);
	trace_unmap(mapping->buffer, &mapping->pdev->dev, mapping->start,
		    mapping->end - mapping->start);
}

static void mapping_leave(struct mapping *mapping)
{
	mapping_unmap(mapping);
	list_del_init(&mapping->list);
	if (mapping->domain)
		peerdma_domain_put(mapping->domain);
	mapping->domain = NULL;
}

static void mapping_free(struct mapping *mapping)
{
	mutex_lock(&peerdma.mappings_lock);
	mapping_leave(mapping);
	mutex_unlock(&peerdma.mappings_lock);

	/* May end the pin, and so call vendor or exporter: with no lock held. */
	peerdma_buffer_put(mapping->buffer);
	pci_dev_put(mapping->pdev);
	kvfree(mapping->pieces);
	kfree(mapping);
}

static int mapping_release(struct inode *inode, struct file *file)
{
	mapping_free(file->private_data);
	return 0;
}

static const struct file_operations mapping_fops = {
	.owner = THIS_MODULE,
	.release = mapping_release,
};

/**
 * peerdma_mappings_revoke - undo what MAP_DEVICE made of a buffer
 * @buffer: is dead, so that nothing is added
 *
 * On return no device reaches the buffer by a mapping of ours, where an IOMMU
 * translates for it or no driver works with it.
 *
 * Context: process; may be called with a vendor's locks held.
 */
void peerdma_mappings_revoke(struct peerdma_buffer *buffer)
{
	struct mapping *mapping, *next;

	mutex_lock(&peerdma.mappings_lock);
	list_for_each_entry_safe(mapping, next, &buffer->mappings, of_buffer)
		mapping_unmap(mapping);
	mutex_unlock(&peerdma.mappings_lock);
}

/*
 * A driver comes to the device or leaves it, or the device leaves the machine.
 * BUS_NOTIFY_REMOVED_DEVICE is for a mapping that was made between
 * BUS_NOTIFY_DEL_DEVICE and the time from when the device is no longer found.
 */
static int device_event(struct notifier_block *block, unsigned long action,
			void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);
	struct mapping *mapping, *next;

	if (action != BUS_NOTIFY_BIND_DRIVER &&
	    action != BUS_NOTIFY_UNBIND_DRIVER &&
	    action != BUS_NOTIFY_DEL_DEVICE &&
	    action != BUS_NOTIFY_REMOVED_DEVICE)
		return NOTIFY_DONE;

	mutex_lock(&peerdma.mappings_lock);
	list_for_each_entry_safe(mapping, next, &peerdma.mappings, list)
		if (mapping->pdev == pdev)
			mapping_leave(mapping);
	mutex_unlock(&peerdma.mappings_lock);
	return NOTIFY_OK;
}

static struct notifier_block device_notifier = {
	.notifier_call = device_event,
	/*
	 * Before the IOMMU's own, which wants a removed device's group free, and
	 * before Intel's, of priority 1: older drivers attach no domain to a
	 * device that this one has taken from its table.
	 */
	.priority = 2,
};

/*
 * Which way the device goes, and whether it gets there. Leaving the domain that
 * this may have found is the caller's business, also when it fails.
 */
static int mapping_choose(struct mapping *mapping,
			  struct peerdma_map_device *arg)
{
	bool chosen = arg->flags & PEERDMA_MAP_DEVICE_IOVA;
	struct pci_dev *pdev = mapping->pdev;
	struct peerdma_path path;

	mapping->free = peerdma_device_is_free(pdev);
	if (arg->address_bits &&
	    (!peerdma_device_is_stub(pdev) ||
	     dma_set_mask_and_coherent(&pdev->dev,
				       DMA_BIT_MASK(arg->address_bits))))
		return -EINVAL;
	if (mapping->free) {
		struct peerdma_domain *domain = peerdma_domain_get(pdev);

		if (IS_ERR(domain)) {
			arg->out_reason = PTR_ERR(domain) == -EREMOTEIO ?
				PEERDMA_REASON_DMA_API : PEERDMA_REASON_NONE;
			return PTR_ERR(domain);
		}
		mapping->domain = domain;
	} else if (chosen ||
		   to_pci_driver(pdev->dev.driver)->driver_managed_dma) {
		return -EBUSY;
	}

	peerdma_path_find(pdev, mapping->buffer->pdev, mapping->buffer->end,
			  &path);
	arg->out_via = path.via;
	arg->out_translated = path.translated;
	if (path.reason == PEERDMA_REASON_NONE &&
	    ((chosen && !mapping->domain) ||
	     (!path.translated && mapping->buffer->pinned.revocable &&
	      !mapping->free)))
		path.reason = PEERDMA_REASON_NO_IOMMU;
	arg->out_reason = path.reason;
	return path.reason == PEERDMA_REASON_NONE ? 0 : -EREMOTEIO;
}

static int pieces_alloc(struct mapping *mapping)
{
	const struct peerdma_buffer *buffer = mapping->buffer;

	mapping->nr_pieces = 1;
	if (!mapping->domain)
		mapping->nr_pieces +=
			peerdma_buffer_extent_at(buffer, mapping->end - 1) -
			peerdma_buffer_extent_at(buffer, mapping->start);
	mapping->pieces = kvcalloc(mapping->nr_pieces,
				   sizeof(*mapping->pieces), GFP_KERNEL);
	return mapping->pieces ? 0 : -ENOMEM;
}

/* Called with the device's lock and mappings_lock held. */
static int mapping_map(struct mapping *mapping, struct peerdma_map_device *arg)
{
	struct peerdma_buffer *buffer = mapping->buffer;
	int ret;

	/*
	 * A revocation marks the buffer before it asks for mappings_lock: it
	 * either is seen here, or will see this mapping.
	 */
	if (READ_ONCE(buffer->dead))
		return -ENODEV;
	ret = mapping_choose(mapping, arg);
	if (!ret)
		ret = pieces_alloc(mapping);
	if (ret)
		return ret;

	ret = mapping->domain ?
		domain_map(mapping, arg->flags & PEERDMA_MAP_DEVICE_IOVA) :
		pieces_map(mapping);
	if (ret) {
		if (ret == -EREMOTEIO)
			arg->out_reason = PEERDMA_REASON_DMA_API;
		return ret;
	}

	mapping->mapped = true;
	peerdma_buffer_count(buffer, PEERDMA_COUNT_DEVICE_MAPS, 1);
	trace_map(buffer, &mapping->pdev->dev, mapping->start,
		  mapping->end - mapping->start);
	list_add_tail(&mapping->list, &peerdma.mappings);
	list_add_tail(&mapping->of_buffer, &buffer->mappings);
	return 0;
}

/*
 * The device's lock keeps its driver where it is. That the device is found while
 * mappings_lock is held means that device_event() for its removal is to come.
 */
static int device_map(struct mapping *mapping, struct peerdma_map_device *arg)
{
	struct pci_dev *pdev = mapping->pdev, *again;
	int ret = -ENOENT;

	/* An unbinding may wait for what the caller holds. */
	if (mutex_lock_killable(&pdev->dev.mutex))
		return -EINTR;
	mutex_lock(&peerdma.mappings_lock);
	again = peerdma_device_get(arg->device);
	if (again == pdev)
		ret = mapping_map(mapping, arg);
	if (ret)
		mapping_leave(mapping);
	pci_dev_put(again);
	mutex_unlock(&peerdma.mappings_lock);
	device_unlock(&pdev->dev);
	return ret;
}

/* What of the argument can be judged by itself. */
static int arg_check(const struct peerdma_map_device *arg)
{
	u64 last;

	if (arg->flags &
	    ~(PEERDMA_MAP_DEVICE_IOVA | PEERDMA_MAP_DEVICE_READ_ONLY))
		return -EOPNOTSUPP;
	if (arg->reserved)
		return -EOPNOTSUPP;
	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	if (!arg->len)
		return -EINVAL;
	/* Below 24 the DMA API promises nothing. */
	if (arg->address_bits &&
	    (arg->address_bits < 24 || arg->address_bits > 64))
		return -EINVAL;
	if (arg->iova && !(arg->flags & PEERDMA_MAP_DEVICE_IOVA))
		return -EINVAL;
	if (check_add_overflow(arg->offset, arg->len - 1, &last) ||
	    check_add_overflow(arg->iova, arg->len - 1, &last))
		return -EOVERFLOW;
	return 0;
}

static int range_check(const struct peerdma_buffer *buffer,
		       const struct peerdma_map_device *arg)
{
	/* The DMA API has other ways for what the CPU's caches hold. */
	if (peerdma_buffer_is_ram(buffer))
		return -EOPNOTSUPP;
	if (arg->offset > buffer->len ||
	    arg->len > buffer->len - arg->offset)
		return -ERANGE;
	if (buffer->read_only && !(arg->flags & PEERDMA_MAP_DEVICE_READ_ONLY))
		return -EACCES;
	/* An IOMMU maps pages: within one, a byte stays where it is. */
	if ((arg->flags & PEERDMA_MAP_DEVICE_IOVA) &&
	    offset_in_page(arg->iova ^ (buffer->offset + arg->offset)))
		return -EINVAL;
	return 0;
}

/*
 * A driver's device that no IOMMU can cut off gets nothing that its exporter may
 * take back; which is looked at again with the device's lock held.
 */
static struct peerdma_buffer *memory_get(struct pci_dev *pdev,
					 struct peerdma_map_device *arg)
{
	bool unstoppable = pdev && !peerdma_device_is_free(pdev) &&
			   !peerdma_device_translated(&pdev->dev);
	struct peerdma_buffer *buffer;
	enum peerdma_reason reason;

	buffer = peerdma_foreign_buffer(arg->buffer_fd, unstoppable, &reason);
	arg->out_reason = reason;
	return buffer;
}

/* Not mapped yet, of the whole CPU pages that the range touches. */
static struct mapping *mapping_create(struct peerdma_map_device *arg)
{
	struct pci_dev *pdev = peerdma_device_get(arg->device);
	struct peerdma_buffer *buffer = memory_get(pdev, arg);
	struct mapping *mapping;
	u64 first;
	int ret;

	ret = PTR_ERR_OR_ZERO(buffer);
	if (ret)
		goto put_pdev;
	ret = range_check(buffer, arg);
	if (!ret && !pdev)
		ret = -ENOENT;
	if (ret)
		goto put_buffer;
	mapping = kzalloc_obj(*mapping, GFP_KERNEL);
	ret = -ENOMEM;
	if (!mapping)
		goto put_buffer;

	INIT_LIST_HEAD(&mapping->list);
	INIT_LIST_HEAD(&mapping->of_buffer);
	mapping->buffer = buffer;
	mapping->pdev = pdev;
	first = buffer->offset + arg->offset;
	mapping->start = round_down(first, PAGE_SIZE);
	mapping->end = round_up(first + arg->len, PAGE_SIZE);
	mapping->read_only = arg->flags & PEERDMA_MAP_DEVICE_READ_ONLY;
	mapping->iova.start = round_down(arg->iova, PAGE_SIZE);
	mapping->iova.len = mapping->end - mapping->start;
	return mapping;

put_buffer:
	peerdma_buffer_put(buffer);
put_pdev:
	pci_dev_put(pdev);
	return ERR_PTR(ret);
}

static int segment_put(const struct peerdma_map_device *arg, u32 nr,
		       const struct peerdma_device_segment *segment)
{
	struct peerdma_device_segment __user *user =
		u64_to_user_ptr(arg->segments);

	if (nr >= arg->nr_segments)
		return 0;
	return copy_to_user(&user[nr], segment, sizeof(*segment)) ? -EFAULT : 0;
}

/* The caller's bytes as the device sees them, runs merged. */
static int segments_put(const struct mapping *mapping,
			struct peerdma_map_device *arg)
{
	u64 skip = mapping->buffer->offset + arg->offset - mapping->start;
	struct peerdma_device_segment segment = {};
	u64 left = arg->len;
	u32 i, nr = 0;
	int ret = 0;

	for (i = 0; i < mapping->nr_pieces && !ret; i++) {
		u64 addr = mapping->pieces[i].addr + skip;
		u64 len = min(mapping->pieces[i].len - skip, left);

		if (segment.len && segment.addr + segment.len == addr) {
			segment.len += len;
		} else {
			if (segment.len)
				ret = segment_put(arg, nr++, &segment);
			segment.addr = addr;
			segment.len = len;
		}
		left -= len;
		skip = 0;
	}
	if (!ret)
		ret = segment_put(arg, nr++, &segment);
	if (!ret && nr > arg->nr_segments)
		ret = -EMSGSIZE;
	arg->nr_segments = nr;
	return ret;
}

static int mapping_publish(struct mapping *mapping, struct peerdma_call *call)
{
	struct file *file;
	int fd, ret;

	ret = segments_put(mapping, &call->arg.map_device);
	if (ret)
		return ret;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	file = anon_inode_getfile("[peerdma-mapping]", &mapping_fops, mapping,
				  O_RDONLY);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	call->arg.map_device.out_fd = fd;
	call->fd = fd;
	call->file = file;
	return 0;
}

/**
 * peerdma_map_device_ioctl - PEERDMA_MAP_DEVICE
 * @call: arg.map_device in and out
 *
 * Return: 0 with the mapping's file in @call, or -errno as peerdma.h says.
 */
int peerdma_map_device_ioctl(struct peerdma_call *call)
{
	struct peerdma_map_device *arg = &call->arg.map_device;
	struct mapping *mapping;
	int ret;

	ret = arg_check(arg);
	if (ret)
		return ret;
	arg->out_reason = PEERDMA_REASON_NONE;
	arg->out_via = PEERDMA_DEVICE_NONE;
	arg->out_translated = 0;

	mapping = mapping_create(arg);
	if (IS_ERR(mapping))
		return PTR_ERR(mapping);
	ret = device_map(mapping, arg);
	if (!ret)
		ret = mapping_publish(mapping, call);
	if (ret)
		mapping_free(mapping);
	return ret;
}

/**
 * peerdma_mappings_init - offer the stub driver, and listen to devices' comings
 *	and goings
 *
 * Return: 0 or -errno.
 */
int peerdma_mappings_init(void)
{
	int ret;

	ret = bus_register_notifier(&pci_bus_type, &device_notifier);
	if (ret)
		return ret;
	ret = peerdma_stub_init();
	if (ret)
		bus_unregister_notifier(&pci_bus_type, &device_notifier);
	return ret;
}

/**
 * peerdma_mappings_exit - undo peerdma_mappings_init()
 *
 * Every mapping's file holds the module, so none is left.
 */
void peerdma_mappings_exit(void)
{
	peerdma_stub_exit();
	bus_unregister_notifier(&pci_bus_type, &device_notifier);
}
