// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs, all for tests:
 *
 *	simgpu/fail               write "PLACE ERRNO N": the Nth next call at that
 *	                          place returns ERRNO ("get_pages -12 3")
 *	simgpu/callback_delay_ms  wait before each free callback, to widen races
 *	simgpu/BDF/...            counters, see struct simgpu_count
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "simgpu.h"

static const char * const fail_names[SIMGPU_FAIL_COUNT] = {
	[SIMGPU_FAIL_ALLOC] = "alloc",
	[SIMGPU_FAIL_COPY] = "copy",
	[SIMGPU_FAIL_GET_PAGES] = "get_pages",
	[SIMGPU_FAIL_GET_PAGES_PERSISTENT] = "get_pages_persistent",
	[SIMGPU_FAIL_DMA_MAP_PAGES] = "dma_map_pages",
	[SIMGPU_FAIL_DMA_BUF] = "dma_buf",
	[SIMGPU_FAIL_DMA_BUF_MAP] = "dma_buf_map",
};

static struct dentry *debug_root;
static u32 callback_delay_ms;

/* Over fail_plan; a leaf lock. */
static DEFINE_SPINLOCK(fail_lock);

static struct {
	u32 countdown;
	int err;
} fail_plan[SIMGPU_FAIL_COUNT];

/**
 * simgpu_fail() - ask whether a test wants a failure here and now
 * @place: here
 *
 * Return: 0, or the negative errno to return.
 */
int simgpu_fail(enum simgpu_fail place)
{
	int err = 0;

	spin_lock(&fail_lock);
	if (fail_plan[place].countdown && !--fail_plan[place].countdown)
		err = fail_plan[place].err;
	spin_unlock(&fail_lock);
	return err;
}

void simgpu_callback_delay(void)
{
	u32 ms = READ_ONCE(callback_delay_ms);

	if (ms)
		msleep(ms);
}

static ssize_t fail_write(struct file *file, const char __user *user,
			  size_t len, loff_t *pos)
{
	char line[64], name[32];
	int err, place;
	u32 nth;

	if (len >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, user, len))
		return -EFAULT;
	line[len] = '\0';
	if (sscanf(line, "%31s %d %u", name, &err, &nth) != 3 || err >= 0 ||
	    err < -MAX_ERRNO)
		return -EINVAL;
	place = match_string(fail_names, SIMGPU_FAIL_COUNT, name);
	if (place < 0)
		return place;
	spin_lock(&fail_lock);
	fail_plan[place].countdown = nth;
	fail_plan[place].err = err;
	spin_unlock(&fail_lock);
	return len;
}

static const struct file_operations fail_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = fail_write,
};

void simgpu_debug_add(struct simgpu *gpu)
{
	struct simgpu_count *count = &gpu->count;
	char bdf[16];

	snprintf(bdf, sizeof(bdf), "%04x:%02x:%02x.%x", gpu->domain, gpu->bus,
		 PCI_SLOT(gpu->devfn), PCI_FUNC(gpu->devfn));
	gpu->debugfs = debugfs_create_dir(bdf, debug_root);
	debugfs_create_u64("allocated", 0444, gpu->debugfs, &count->allocated);
	debugfs_create_u64("pinned", 0444, gpu->debugfs, &count->pinned);
	debugfs_create_u64("page_tables", 0444, gpu->debugfs,
			   &count->page_tables);
	debugfs_create_u64("dma_mappings", 0444, gpu->debugfs,
			   &count->dma_mappings);
	debugfs_create_u64("dma_bufs", 0444, gpu->debugfs, &count->dma_bufs);
	debugfs_create_u64("callbacks", 0444, gpu->debugfs, &count->callbacks);
	debugfs_create_u64("unfreed_tables", 0444, gpu->debugfs,
			   &count->unfreed_tables);
}

void simgpu_debug_remove(struct simgpu *gpu)
{
	debugfs_remove_recursive(gpu->debugfs);
}

void simgpu_debug_init(void)
{
	debug_root = debugfs_create_dir("simgpu", NULL);
	debugfs_create_u32("callback_delay_ms", 0600, debug_root,
			   &callback_delay_ms);
	debugfs_create_file("fail", 0200, debug_root, NULL, &fail_fops);
}

void simgpu_debug_exit(void)
{
	debugfs_remove_recursive(debug_root);
}
