// SPDX-License-Identifier: GPL-2.0-only
/* /dev/simgpuN: a process's memory on one GPU. */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "simgpu.h"
#include "simgpu_uapi.h"

static bool client_is_current(struct simgpu_client *client)
{
	return client->tgid == task_tgid(current);
}

/**
 * simgpu_range_find() - whose address is that
 * @tgid: the process
 * @va: an address in it
 *
 * Context: caller holds simgpu_lock, and the range is good until it lets go.
 * Return: the range that covers @va on any GPU, or NULL.
 */
struct simgpu_range *simgpu_range_find(struct pid *tgid, u64 va)
{
	struct simgpu_client *client;
	struct simgpu_range *range;
	struct simgpu *gpu;

	lockdep_assert_held(&simgpu_lock);
	list_for_each_entry(gpu, &simgpu_gpus, link) {
		list_for_each_entry(client, &gpu->clients, link) {
			if (client->tgid != tgid)
				continue;
			range = mtree_load(&client->ranges, va);
			if (range)
				return range;
		}
	}
	return NULL;
}

static bool range_is_valid(u64 va, u64 len)
{
	u64 mask = simgpu_granule() - 1;

	return len && !((va | len) & mask) && va + len > va &&
	       va + len <= TASK_SIZE_MAX;
}

/* The caller's reference to @mem passes to the range, also on failure. */
static int range_create(struct simgpu_client *client, struct simgpu_mem *mem,
			const struct simgpu_map *map)
{
	struct simgpu_range *range;
	int err = -ENODEV;

	range = kzalloc_obj(*range, GFP_KERNEL);
	if (!range) {
		simgpu_mem_put(mem);
		return -ENOMEM;
	}
	range->start = map->va;
	range->len = map->len;
	range->offset = map->offset;
	range->mem = mem;
	INIT_LIST_HEAD(&range->pins);

	mutex_lock(&simgpu_lock);
	if (!client->gpu->dead)
		err = mtree_insert_range(&client->ranges, map->va,
					 map->va + map->len - 1, range,
					 GFP_KERNEL);
	mutex_unlock(&simgpu_lock);
	if (err) {
		simgpu_mem_put(mem);
		kfree(range);
	}
	return err;
}

/* Nobody can find @range any more; those who have pinned it are told. */
static void range_destroy(struct simgpu_range *range)
{
	simgpu_pins_revoke(range);
	simgpu_mem_put(range->mem);
	kfree(range);
}

static struct simgpu_range *client_take_range(struct simgpu_client *client)
{
	struct simgpu_range *range;
	unsigned long index = 0;

	mutex_lock(&simgpu_lock);
	range = mt_find(&client->ranges, &index, ULONG_MAX);
	if (range)
		mtree_erase(&client->ranges, range->start);
	mutex_unlock(&simgpu_lock);
	return range;
}

static struct simgpu_mem *client_take_handle(struct simgpu_client *client)
{
	unsigned long index = 0;
	struct simgpu_mem *mem;

	mutex_lock(&simgpu_lock);
	mem = xa_find(&client->handles, &index, ULONG_MAX, XA_PRESENT);
	if (mem)
		xa_erase(&client->handles, index);
	mutex_unlock(&simgpu_lock);
	return mem;
}

static void client_clear(struct simgpu_client *client)
{
	struct simgpu_range *range;
	struct simgpu_mem *mem;

	while ((range = client_take_range(client)))
		range_destroy(range);
	while ((mem = client_take_handle(client)))
		simgpu_mem_put(mem);
}

static void client_release(struct kref *ref)
{
	struct simgpu_client *client =
		container_of(ref, struct simgpu_client, ref);

	mtree_destroy(&client->ranges);
	xa_destroy(&client->handles);
	put_pid(client->tgid);
	simgpu_put(client->gpu);
	kfree(client);
}

/**
 * simgpu_clients_clear() - free everybody's memory
 * @gpu: a dead one, so that nobody allocates meanwhile
 */
void simgpu_clients_clear(struct simgpu *gpu)
{
	struct simgpu_client *client;

	for (;;) {
		mutex_lock(&simgpu_lock);
		client = list_first_entry_or_null(&gpu->clients,
						  struct simgpu_client, link);
		if (client) {
			list_del_init(&client->link);
			kref_get(&client->ref);
		}
		mutex_unlock(&simgpu_lock);
		if (!client)
			return;
		client_clear(client);
		kref_put(&client->ref, client_release);
	}
}

static int client_fop_open(struct inode *inode, struct file *file)
{
	struct miscdevice *misc = file->private_data;
	struct simgpu *gpu = container_of(misc, struct simgpu, misc);
	struct simgpu_client *client;

	client = kzalloc_obj(*client, GFP_KERNEL);
	if (!client)
		return -ENOMEM;
	kref_init(&client->ref);
	mt_init(&client->ranges);
	xa_init_flags(&client->handles, XA_FLAGS_ALLOC1);
	client->tgid = get_pid(task_tgid(current));
	/* misc_open() holds off misc_deregister(): the GPU is still there. */
	simgpu_get(gpu);
	client->gpu = gpu;
	file->private_data = client;

	mutex_lock(&simgpu_lock);
	list_add_tail(&client->link, &gpu->clients);
	mutex_unlock(&simgpu_lock);
	return 0;
}

static int client_fop_release(struct inode *inode, struct file *file)
{
	struct simgpu_client *client = file->private_data;

	client_clear(client);
	mutex_lock(&simgpu_lock);
	list_del_init(&client->link);
	mutex_unlock(&simgpu_lock);
	kref_put(&client->ref, client_release);
	return 0;
}

static long info_ioctl(struct simgpu_client *client, void __user *arg)
{
	struct simgpu *gpu = client->gpu;
	struct simgpu_info info = {
		.vram_bytes = (u64)gpu->vram.nr_pages << simgpu_page_shift(),
		.free_bytes = simgpu_vram_free_bytes(gpu),
		.page_bytes = 1u << simgpu_page_shift(),
		.granule = simgpu_granule(),
		.domain = gpu->domain,
		.bus = gpu->bus,
		.devfn = gpu->devfn,
	};

	memcpy(info.uuid, gpu->uuid, sizeof(info.uuid));
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static struct simgpu_mem *client_mem_create(struct simgpu_client *client,
					    u64 len)
{
	struct simgpu_mem *mem = ERR_PTR(-ENODEV);

	mutex_lock(&simgpu_lock);
	if (!client->gpu->dead)
		mem = simgpu_mem_create(client->gpu, len);
	mutex_unlock(&simgpu_lock);
	return mem;
}

static long alloc_ioctl(struct simgpu_client *client, void __user *arg)
{
	struct simgpu_map map = { };
	struct simgpu_alloc alloc;
	struct simgpu_mem *mem;

	if (copy_from_user(&alloc, arg, sizeof(alloc)))
		return -EFAULT;
	if (!range_is_valid(alloc.va, alloc.len))
		return -EINVAL;
	mem = client_mem_create(client, alloc.len);
	if (IS_ERR(mem))
		return PTR_ERR(mem);
	map.va = alloc.va;
	map.len = alloc.len;
	return range_create(client, mem, &map);
}

static long free_ioctl(struct simgpu_client *client, void __user *arg)
{
	struct simgpu_range *range;
	struct simgpu_free free;

	if (copy_from_user(&free, arg, sizeof(free)))
		return -EFAULT;
	mutex_lock(&simgpu_lock);
	range = mtree_load(&client->ranges, free.va);
	if (range && range->start == free.va)
		mtree_erase(&client->ranges, free.va);
	else
		range = NULL;
	mutex_unlock(&simgpu_lock);
	if (!range)
		return -ENOENT;
	range_destroy(range);
	return 0;
}

static long create_ioctl(struct simgpu_client *client, void __user *arg)
{
	struct simgpu_create create;
	struct simgpu_mem *mem;
	int err = -ENODEV;

	if (copy_from_user(&create, arg, sizeof(create)))
		return -EFAULT;
	if (create.reserved || !range_is_valid(0, create.len))
		return -EINVAL;
	mem = client_mem_create(client, create.len);
	if (IS_ERR(mem))
		return PTR_ERR(mem);
	mutex_lock(&simgpu_lock);
	if (!client->gpu->dead)
		err = xa_alloc(&client->handles, &create.out_handle, mem,
			       xa_limit_31b, GFP_KERNEL);
	mutex_unlock(&simgpu_lock);
	if (err) {
		simgpu_mem_put(mem);
		return err;
	}
	return copy_to_user(arg, &create, sizeof(create)) ? -EFAULT : 0;
}

static long release_ioctl(struct simgpu_client *client, void __user *arg)
{
	struct simgpu_release release;
	struct simgpu_mem *mem;

	if (copy_from_user(&release, arg, sizeof(release)))
		return -EFAULT;
	if (release.reserved)
		return -EINVAL;
	mutex_lock(&simgpu_lock);
	mem = xa_erase(&client->handles, release.handle);
	mutex_unlock(&simgpu_lock);
	if (!mem)
		return -ENOENT;
	simgpu_mem_put(mem);
	return 0;
}

static long map_ioctl(struct simgpu_client *client, void __user *arg)
{
	struct simgpu_map map;
	struct simgpu_mem *mem;
	u64 bytes;

	if (copy_from_user(&map, arg, sizeof(map)))
		return -EFAULT;
	if (map.reserved || !range_is_valid(map.va, map.len) ||
	    map.offset & (simgpu_granule() - 1))
		return -EINVAL;
	mutex_lock(&simgpu_lock);
	mem = xa_load(&client->handles, map.handle);
	if (mem)
		simgpu_mem_get(mem);
	mutex_unlock(&simgpu_lock);
	if (!mem)
		return -ENOENT;
	bytes = (u64)mem->nr_pages << simgpu_page_shift();
	if (map.len > bytes || map.offset > bytes - map.len) {
		simgpu_mem_put(mem);
		return -EINVAL;
	}
	return range_create(client, mem, &map);
}

static long client_fop_ioctl(struct file *file, unsigned int cmd,
			     unsigned long arg)
{
	struct simgpu_client *client = file->private_data;
	void __user *user = (void __user *)arg;

	if (!client_is_current(client))
		return -EPERM;
	switch (cmd) {
	case SIMGPU_INFO:
		return info_ioctl(client, user);
	case SIMGPU_ALLOC:
		return alloc_ioctl(client, user);
	case SIMGPU_FREE:
		return free_ioctl(client, user);
	case SIMGPU_CREATE:
		return create_ioctl(client, user);
	case SIMGPU_RELEASE:
		return release_ioctl(client, user);
	case SIMGPU_MAP:
		return map_ioctl(client, user);
	case SIMGPU_MEMSET:
		return simgpu_memset_ioctl(user);
	case SIMGPU_COPY:
		return simgpu_copy_ioctl(user);
	case SIMGPU_EXPORT:
		return simgpu_export_ioctl(user);
	default:
		return -ENOTTY;
	}
}

const struct file_operations simgpu_client_fops = {
	.owner = THIS_MODULE,
	.open = client_fop_open,
	.release = client_fop_release,
	.unlocked_ioctl = client_fop_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
