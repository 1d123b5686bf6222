// SPDX-License-Identifier: GPL-2.0-only
/* The GPU's memory: which page belongs to whom. */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/prandom.h>
#include <linux/slab.h>

#include "simgpu.h"

/* A fixed seed gives the same pages in every run, so failures repeat. */
static void vram_shuffle(u32 *stack, u32 nr, u32 seed)
{
	struct rnd_state rnd;
	u32 i;

	for (i = 0; i < nr; i++)
		stack[i] = i;
	prandom_seed_state(&rnd, seed);
	for (i = nr - 1; i > 0; i--) {
		/* swap() evaluates its arguments twice. */
		u32 j = prandom_u32_state(&rnd) % (i + 1);

		swap(stack[i], stack[j]);
	}
}

int simgpu_vram_init(struct simgpu *gpu, u64 bytes, u32 seed)
{
	struct simgpu_vram *vram = &gpu->vram;
	u64 pages = bytes >> simgpu_page_shift();

	if (!pages || pages > U32_MAX)
		return -EINVAL;
	mutex_init(&vram->lock);
	vram->nr_pages = pages;
	vram->nr_free = pages;
	if (!seed) {
		vram->used = kvcalloc(BITS_TO_LONGS(pages), sizeof(long),
				      GFP_KERNEL);
		return vram->used ? 0 : -ENOMEM;
	}
	vram->stack = kvmalloc_array(pages, sizeof(*vram->stack), GFP_KERNEL);
	if (!vram->stack)
		return -ENOMEM;
	vram_shuffle(vram->stack, pages, seed);
	return 0;
}

void simgpu_vram_destroy(struct simgpu *gpu)
{
	kvfree(gpu->vram.stack);
	kvfree(gpu->vram.used);
}

u64 simgpu_vram_free_bytes(struct simgpu *gpu)
{
	return (u64)READ_ONCE(gpu->vram.nr_free) << simgpu_page_shift();
}

/* One run if there is one, else the lowest pages: a GPU's MMU does not mind. */
static void vram_take_lowest(struct simgpu_vram *vram, u32 *pages, u32 nr)
{
	unsigned long bit;
	u32 i;

	bit = bitmap_find_next_zero_area(vram->used, vram->nr_pages, 0, nr, 0);
	if (bit >= vram->nr_pages)
		bit = 0;
	for (i = 0; i < nr; i++, bit++) {
		bit = find_next_zero_bit(vram->used, vram->nr_pages, bit);
		__set_bit(bit, vram->used);
		pages[i] = bit;
	}
}

static int vram_take(struct simgpu_vram *vram, u32 *pages, u32 nr)
{
	u32 i;

	mutex_lock(&vram->lock);
	if (nr > vram->nr_free) {
		mutex_unlock(&vram->lock);
		return -ENOMEM;
	}
	if (vram->used)
		vram_take_lowest(vram, pages, nr);
	else
		for (i = 0; i < nr; i++)
			pages[i] = vram->stack[vram->nr_free - 1 - i];
	vram->nr_free -= nr;
	mutex_unlock(&vram->lock);
	return 0;
}

/*
 * The last pages freed are the first reused: whoever still writes to memory that
 * is no longer his hits the next owner at once, where a test can see it.
 */
static void vram_give(struct simgpu_vram *vram, const u32 *pages, u32 nr)
{
	u32 i;

	mutex_lock(&vram->lock);
	for (i = 0; i < nr; i++) {
		if (vram->used)
			__clear_bit(pages[i], vram->used);
		else
			vram->stack[vram->nr_free + i] = pages[i];
	}
	vram->nr_free += nr;
	mutex_unlock(&vram->lock);
}

/**
 * simgpu_mem_create() - take pages
 * @gpu: whose
 * @len: bytes, a non-zero multiple of the granule
 *
 * The pages hold what their last owner left, as CUDA's do.
 *
 * Context: caller holds simgpu_lock.
 * Return: the memory, or -ENOMEM.
 */
struct simgpu_mem *simgpu_mem_create(struct simgpu *gpu, u64 len)
{
	u64 nr = len >> simgpu_page_shift();
	struct simgpu_mem *mem;
	int err;

	lockdep_assert_held(&simgpu_lock);
	if (nr > gpu->vram.nr_pages)
		return ERR_PTR(-ENOMEM);
	err = simgpu_fail(SIMGPU_FAIL_ALLOC);
	if (err)
		return ERR_PTR(err);
	mem = kvzalloc(struct_size(mem, pages, nr), GFP_KERNEL);
	if (!mem)
		return ERR_PTR(-ENOMEM);
	kref_init(&mem->ref);
	mem->nr_pages = nr;
	err = vram_take(&gpu->vram, mem->pages, nr);
	if (err) {
		kvfree(mem);
		return ERR_PTR(err);
	}
	mem->gpu = gpu;
	simgpu_get(gpu);
	gpu->count.allocated += nr << simgpu_page_shift();
	return mem;
}

void simgpu_mem_get(struct simgpu_mem *mem)
{
	kref_get(&mem->ref);
}

static void mem_release(struct kref *ref)
{
	struct simgpu_mem *mem = container_of(ref, struct simgpu_mem, ref);
	struct simgpu *gpu = mem->gpu;

	vram_give(&gpu->vram, mem->pages, mem->nr_pages);
	gpu->count.allocated -= (u64)mem->nr_pages << simgpu_page_shift();
	mutex_unlock(&simgpu_lock);
	kvfree(mem);
	simgpu_put(gpu);
}

/* Context: simgpu_lock not held. */
void simgpu_mem_put(struct simgpu_mem *mem)
{
	kref_put_mutex(&mem->ref, mem_release, &simgpu_lock);
}
