// SPDX-License-Identifier: GPL-2.0-only
/*
 * peerdma.ko: memory behind a PCI BAR as an ordinary citizen of Linux.
 *
 * This file is the table of contents: the device, its ioctls, init and exit.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "../providers/providers.h"
#include "core.h"

static long peerdma_ioctl(struct file *file, unsigned int cmd,
			  unsigned long uarg);

static const struct file_operations peerdma_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = peerdma_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.uring_cmd = peerdma_file_io_uring,
};

struct peerdma_core peerdma = {
	.misc = {
		.minor = MISC_DYNAMIC_MINOR,
		.name = "peerdma",
		.fops = &peerdma_fops,
		.mode = 0660,
	},
	.providers = LIST_HEAD_INIT(peerdma.providers),
	.providers_lock = __MUTEX_INITIALIZER(peerdma.providers_lock),
	.buffers = LIST_HEAD_INIT(peerdma.buffers),
	.imports = LIST_HEAD_INIT(peerdma.imports),
	.buffers_lock = __MUTEX_INITIALIZER(peerdma.buffers_lock),
	.accounts = LIST_HEAD_INIT(peerdma.accounts),
	.accounts_lock = __MUTEX_INITIALIZER(peerdma.accounts_lock),
	.mappings = LIST_HEAD_INIT(peerdma.mappings),
	.domains = LIST_HEAD_INIT(peerdma.domains),
	.mappings_lock = __MUTEX_INITIALIZER(peerdma.mappings_lock),
	.bars = LIST_HEAD_INIT(peerdma.bars),
	.bars_lock = __MUTEX_INITIALIZER(peerdma.bars_lock),
	.page_maps = LIST_HEAD_INIT(peerdma.page_maps),
	.page_maps_lock = __MUTEX_INITIALIZER(peerdma.page_maps_lock),
};

static int peerdma_info_ioctl(struct peerdma_call *call);

/**
 * struct ioctl_row - one ioctl
 * @run: the handler; may leave a reply in the call's argument even when it fails
 * @size: of the struct as this module knows it
 * @min_size: up to the end of the last field of its first version
 */
struct ioctl_row {
	int (*run)(struct peerdma_call *call);
	u32 size;
	u32 min_size;
};

#define IOCTL_ROW(nr, fn, type, last)					\
	[nr] = {							\
		.run = fn,						\
		.size = sizeof(struct type) +				\
			BUILD_BUG_ON_ZERO(sizeof(struct type) >		\
					  sizeof(union peerdma_arg)),	\
		.min_size = offsetofend(struct type, last),		\
	}

static const struct ioctl_row ioctl_rows[] = {
	IOCTL_ROW(PEERDMA_NR_INFO, peerdma_info_ioctl, peerdma_info,
		  out_page_size),
	IOCTL_ROW(PEERDMA_NR_PIN, peerdma_pin_ioctl, peerdma_pin, out_offset),
	IOCTL_ROW(PEERDMA_NR_QUERY, peerdma_query_ioctl, peerdma_query,
		  reserved),
	IOCTL_ROW(PEERDMA_NR_FILE_IO, peerdma_file_io_ioctl, peerdma_file_io,
		  reserved),
	IOCTL_ROW(PEERDMA_NR_ROUTE, peerdma_route_ioctl, peerdma_route,
		  out_distance),
	IOCTL_ROW(PEERDMA_NR_WATCH, peerdma_watch_ioctl, peerdma_watch,
		  event_fd),
	IOCTL_ROW(PEERDMA_NR_REVOKE, peerdma_revoke_ioctl, peerdma_revoke,
		  reserved),
	IOCTL_ROW(PEERDMA_NR_MAP_DEVICE, peerdma_map_device_ioctl,
		  peerdma_map_device, reserved),
	IOCTL_ROW(PEERDMA_NR_PAGES, peerdma_pages_ioctl, peerdma_page_map,
		  out_device),
};

static int peerdma_info_ioctl(struct peerdma_call *call)
{
	struct peerdma_info *info = &call->arg.info;
	unsigned int nr;

	if (info->flags)
		return -EOPNOTSUPP;

	info->out_verbs = 0;
	for (nr = 0; nr < ARRAY_SIZE(ioctl_rows); nr++)
		if (ioctl_rows[nr].run)
			info->out_verbs |= BIT_ULL(nr);
	info->out_features = PEERDMA_FEATURE_URING;
	if (IS_ENABLED(CONFIG_PCI_P2PDMA))
		info->out_features |= PEERDMA_FEATURE_KERNEL_ROUTE;
	peerdma_provider_names(info->out_providers,
			       sizeof(info->out_providers));
	info->out_max_segments = PEERDMA_FILE_IO_MAX_SEGMENTS;
	info->out_page_size = PAGE_SIZE;
	return 0;
}

/**
 * peerdma_copy_in - copy an argument struct from user space
 * @arg: out; its first member is the size that was checked
 * @size: of the struct as this module knows it
 * @min_size: the least that the caller must have
 * @uarg: starts with the size as the caller knows it
 *
 * Return: 0, -EFAULT, -EINVAL when the caller's is too short, -E2BIG when its
 * tail is not zero.
 */
int peerdma_copy_in(void *arg, size_t size, size_t min_size,
		    const void __user *uarg)
{
	u32 usize;
	int ret;

	if (get_user(usize, (const u32 __user *)uarg))
		return -EFAULT;
	if (usize < min_size)
		return -EINVAL;
	if (usize > PAGE_SIZE)
		return -E2BIG;
	ret = copy_struct_from_user(arg, size, uarg, usize);
	/* What was checked counts, whatever another thread has written since. */
	*(u32 *)arg = usize;
	return ret;
}

/**
 * peerdma_copy_out - copy a reply to user space
 * @arg: the reply; starts with the caller's size
 * @size: of the struct as this module knows it
 * @uarg: where to
 * @usize: the caller's size, as it was when the argument was copied in
 *
 * Return: 0 or -EFAULT.
 */
int peerdma_copy_out(const void *arg, size_t size, void __user *uarg, u32 usize)
{
	return copy_to_user(uarg, arg, min_t(size_t, usize, size)) ? -EFAULT : 0;
}

static long peerdma_ioctl(struct file *file, unsigned int cmd,
			  unsigned long uarg)
{
	struct peerdma_call call = { .fd = -1 };
	void __user *user = (void __user *)uarg;
	const struct ioctl_row *row;
	u32 usize;
	int ret;

	if (_IOC_TYPE(cmd) != PEERDMA_IOCTL_TYPE || _IOC_DIR(cmd) ||
	    _IOC_SIZE(cmd) || _IOC_NR(cmd) >= ARRAY_SIZE(ioctl_rows))
		return -ENOTTY;
	row = &ioctl_rows[array_index_nospec(_IOC_NR(cmd),
					     ARRAY_SIZE(ioctl_rows))];
	if (!row->run)
		return -ENOTTY;

	ret = peerdma_copy_in(&call.arg, row->size, row->min_size, user);
	if (ret)
		return ret;
	usize = call.arg.info.size;

	ret = row->run(&call);
	if (peerdma_copy_out(&call.arg, row->size, user, usize) && !ret)
		ret = -EFAULT;

	if (call.file && !ret) {
		fd_install(call.fd, call.file);
	} else if (call.file) {
		put_unused_fd(call.fd);
		fput(call.file);
	}
	return ret;
}

static const char *const counter_names[PEERDMA_NR_COUNTERS] = {
	[PEERDMA_COUNT_BUFFERS] = "buffers",
	[PEERDMA_COUNT_PINNED_BYTES] = "pinned_bytes",
	[PEERDMA_COUNT_CPU_MAPS] = "cpu_maps",
	[PEERDMA_COUNT_IMPORTERS] = "importers",
	[PEERDMA_COUNT_DEVICE_MAPS] = "device_maps",
	[PEERDMA_COUNT_FILE_IOS] = "file_ios",
	[PEERDMA_COUNT_IMPORTS] = "imports",
	[PEERDMA_COUNT_PAGE_BYTES] = "page_bytes",
	[PEERDMA_COUNT_PAGE_MAPS] = "page_maps",
	[PEERDMA_COUNT_HELD_PAGE_MAPS] = "held_page_maps",
};

static int counters_show(struct seq_file *seq, void *unused)
{
	int i;

	for (i = 0; i < PEERDMA_NR_COUNTERS; i++)
		seq_printf(seq, "%s %lld\n", counter_names[i],
			   (s64)atomic64_read(&peerdma.counters[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

static int __init peerdma_init(void)
{
	int ret;

	INIT_DELAYED_WORK(&peerdma.bars_reap, peerdma_pages_reap);
	INIT_DELAYED_WORK(&peerdma.page_maps_poll, peerdma_page_maps_poll);

	ret = peerdma_revoke_init();
	if (ret)
		return ret;
	ret = peerdma_mappings_init();
	if (ret)
		goto exit_revoke;
	ret = peerdma_provider_register(&peerdma_provider_pci);
	if (ret)
		goto exit_mappings;
	ret = peerdma_provider_register(&peerdma_provider_user);
	if (ret)
		goto unregister_pci;
	ret = misc_register(&peerdma.misc);
	if (ret)
		goto unregister_user;

	peerdma.debugfs = debugfs_create_dir("peerdma", NULL);
	debugfs_create_file("counters", 0400, peerdma.debugfs, NULL,
			    &counters_fops);
	peerdma_watch_init();
	return 0;

unregister_user:
	peerdma_provider_unregister(&peerdma_provider_user);
unregister_pci:
	peerdma_provider_unregister(&peerdma_provider_pci);
exit_mappings:
	peerdma_mappings_exit();
exit_revoke:
	peerdma_revoke_exit();
	return ret;
}

static void __exit peerdma_exit(void)
{
	debugfs_remove_recursive(peerdma.debugfs);
	misc_deregister(&peerdma.misc);
	peerdma_provider_unregister(&peerdma_provider_user);
	peerdma_provider_unregister(&peerdma_provider_pci);
	peerdma_mappings_exit();
	peerdma_revoke_exit();
	peerdma_page_maps_exit();
	peerdma_pages_exit();
}

module_init(peerdma_init);
module_exit(peerdma_exit);
MODULE_DESCRIPTION("Memory behind a PCI BAR as a dma-buf, for CPUs, devices and files");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
