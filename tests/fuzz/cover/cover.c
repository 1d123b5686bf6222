// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which blocks of the modules that were compiled with -fsanitize-coverage=trace-pc
 * have run: a page map of /dev/t_cover has a byte for each, counted up to 255.
 * What KCOV would do, but for any kernel, and for all tasks and interrupts
 * together.
 */
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

#include "cover.h"
#include "t_cover.h"

static u8 *blocks;

/* Counts of two CPUs at once may get lost: that one has run does not. */
void notrace __sanitizer_cov_trace_pc(void)
{
	u8 *block = &blocks[hash_long(_RET_IP_, T_COVER_BITS)];
	u8 count = READ_ONCE(*block);

	if (count != U8_MAX)
		WRITE_ONCE(*block, count + 1);
}
EXPORT_SYMBOL_GPL(__sanitizer_cov_trace_pc);

static int cover_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_vmalloc_range(vma, blocks, 0);
}

static const struct file_operations cover_fops = {
	.owner = THIS_MODULE,
	.mmap = cover_mmap,
};

static struct miscdevice cover_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "t_cover",
	.fops = &cover_fops,
	.mode = 0600,
};

static int __init cover_init(void)
{
	int ret;

	blocks = vmalloc_user(T_COVER_BLOCKS);
	if (!blocks)
		return -ENOMEM;
	ret = misc_register(&cover_misc);
	if (ret)
		vfree(blocks);
	return ret;
}

static void __exit cover_exit(void)
{
	misc_deregister(&cover_misc);
	vfree(blocks);
}

module_init(cover_init);
module_exit(cover_exit);
MODULE_DESCRIPTION("Coverage of instrumented modules, for a fuzzer");
MODULE_LICENSE("GPL");
