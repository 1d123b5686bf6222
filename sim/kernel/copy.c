// SPDX-License-Identifier: GPL-2.0-only
/* The copy engine: a CPU that walks over scattered pages. */
#include <linux/io.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "simgpu.h"
#include "simgpu_uapi.h"

/**
 * struct cursor - a walk over device memory, one contiguous piece at a time
 * @va: the next byte
 * @mem: shown at @va; referenced, or NULL before the first piece
 * @offset: of @va in @mem
 * @left: bytes until the range ends
 */
struct cursor {
	u64 va;
	struct simgpu_mem *mem;
	u64 offset;
	u64 left;
};

static void cursor_drop(struct cursor *cursor)
{
	if (cursor->mem)
		simgpu_mem_put(cursor->mem);
	cursor->mem = NULL;
}

/* Adjacent VMM mappings are one address range to the caller. */
static int cursor_next_range(struct cursor *cursor)
{
	struct simgpu_range *range;

	cursor_drop(cursor);
	mutex_lock(&simgpu_lock);
	range = simgpu_range_find(task_tgid(current), cursor->va);
	if (range) {
		cursor->mem = range->mem;
		simgpu_mem_get(range->mem);
		cursor->offset = range->offset + cursor->va - range->start;
		cursor->left = range->start + range->len - cursor->va;
	}
	mutex_unlock(&simgpu_lock);
	return range ? 0 : -EFAULT;
}

/* Clamp *len to what is contiguous at the cursor. */
static int cursor_piece(struct cursor *cursor, u64 *len)
{
	u64 page_bytes = 1ull << simgpu_page_shift();
	int err;

	if (!cursor->mem || !cursor->left) {
		err = cursor_next_range(cursor);
		if (err)
			return err;
	}
	*len = min(*len, cursor->left);
	*len = min(*len, page_bytes - (cursor->offset & (page_bytes - 1)));
	return 0;
}

static void cursor_advance(struct cursor *cursor, u64 len)
{
	cursor->va += len;
	cursor->offset += len;
	cursor->left -= len;
}

/* Context: in simgpu_bar_srcu, which the address is good for. */
static void __iomem *cursor_address(const struct cursor *cursor)
{
	void __iomem *bar = READ_ONCE(cursor->mem->gpu->bar);
	u32 shift = simgpu_page_shift();
	u64 page;

	if (!bar)
		return NULL;
	page = cursor->mem->pages[cursor->offset >> shift];
	return bar + (page << shift) + (cursor->offset & ((1ull << shift) - 1));
}

/* Unlike copy_from_user(), leaves alone what a fault kept from being copied. */
static unsigned long copy_from_user_only(void *to, u64 from, u64 len)
{
	const void __user *user = u64_to_user_ptr(from);

	return access_ok(user, len) ? __copy_from_user(to, user, len) : len;
}

/*
 * The BAR is plain memory of the simulated machine, and x86 reaches either kind
 * with the same instructions; so user memory goes straight into it.
 */
static int piece_copy(const struct simgpu_copy *copy, struct cursor *dst,
		      struct cursor *src, u64 len)
{
	void __iomem *to = NULL, *from = NULL;
	unsigned long left = 0;
	int idx, err = -ENODEV;

	idx = srcu_read_lock(&simgpu_bar_srcu);
	if (copy->direction != SIMGPU_DEVICE_TO_HOST) {
		to = cursor_address(dst);
		if (!to)
			goto unlock;
	}
	if (copy->direction != SIMGPU_HOST_TO_DEVICE) {
		from = cursor_address(src);
		if (!from)
			goto unlock;
	}
	if (!from)
		left = copy_from_user_only((void __force *)to, src->va, len);
	else if (!to)
		left = copy_to_user(u64_to_user_ptr(dst->va),
				    (void __force *)from, len);
	else
		memmove((void __force *)to, (void __force *)from, len);
	err = left ? -EFAULT : 0;
unlock:
	srcu_read_unlock(&simgpu_bar_srcu, idx);
	return err;
}

static int copy_run(const struct simgpu_copy *copy, struct cursor *dst,
		    struct cursor *src)
{
	u64 todo = copy->len, len;
	int err;

	for (; todo; todo -= len) {
		len = todo;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (copy->direction != SIMGPU_DEVICE_TO_HOST) {
			err = cursor_piece(dst, &len);
			if (err)
				return err;
		}
		if (copy->direction != SIMGPU_HOST_TO_DEVICE) {
			err = cursor_piece(src, &len);
			if (err)
				return err;
		}
		err = piece_copy(copy, dst, src, len);
		if (err)
			return err;
		cursor_advance(dst, len);
		cursor_advance(src, len);
		cond_resched();
	}
	return 0;
}

long simgpu_copy_ioctl(void __user *arg)
{
	struct simgpu_copy copy;
	struct cursor dst, src;
	int err;

	if (copy_from_user(&copy, arg, sizeof(copy)))
		return -EFAULT;
	if (copy.reserved || copy.direction > SIMGPU_DEVICE_TO_DEVICE)
		return -EINVAL;
	err = simgpu_fail(SIMGPU_FAIL_COPY);
	if (err)
		return err;
	dst = (struct cursor){ .va = copy.dst };
	src = (struct cursor){ .va = copy.src };
	err = copy_run(&copy, &dst, &src);
	cursor_drop(&dst);
	cursor_drop(&src);
	/* Nothing may linger in a write-combining buffer: a drive reads next. */
	wmb();
	return err;
}

static int memset_run(struct cursor *dst, u64 todo, const void *pattern)
{
	void __iomem *to;
	int idx, err;
	u64 len;

	for (; todo; todo -= len) {
		if (fatal_signal_pending(current))
			return -EINTR;
		len = min_t(u64, todo, PAGE_SIZE);
		err = cursor_piece(dst, &len);
		if (err)
			return err;
		idx = srcu_read_lock(&simgpu_bar_srcu);
		to = cursor_address(dst);
		if (to)
			memcpy_toio(to, pattern, len);
		srcu_read_unlock(&simgpu_bar_srcu, idx);
		if (!to)
			return -ENODEV;
		cursor_advance(dst, len);
		cond_resched();
	}
	return 0;
}

/* A page holds whole values, so every piece starts with a value's first byte. */
static void *pattern_create(const struct simgpu_memset *set)
{
	u8 *pattern = kmalloc(PAGE_SIZE, GFP_KERNEL);
	size_t i;

	if (!pattern)
		return NULL;
	for (i = 0; i < PAGE_SIZE; i++)
		pattern[i] = set->value >> (i % set->width * 8);
	return pattern;
}

long simgpu_memset_ioctl(void __user *arg)
{
	struct simgpu_memset set;
	struct cursor dst;
	void *pattern;
	int err;

	if (copy_from_user(&set, arg, sizeof(set)))
		return -EFAULT;
	if ((set.width != 1 && set.width != 2 && set.width != 4) ||
	    (set.va | set.len) & (set.width - 1))
		return -EINVAL;
	pattern = pattern_create(&set);
	if (!pattern)
		return -ENOMEM;
	dst = (struct cursor){ .va = set.va };
	err = memset_run(&dst, set.len, pattern);
	cursor_drop(&dst);
	kfree(pattern);
	/* As in simgpu_copy_ioctl(). */
	wmb();
	return err;
}
