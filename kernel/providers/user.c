// SPDX-License-Identifier: GPL-2.0-only
/*
 * The provider "user": the caller's own pages, pinned for as long as the buffer
 * lives.
 *
 * They are named by the caller's virtual address, and found by the kernel's own
 * pinning, which takes nothing but memory that the caller can write: no physical
 * address, no device's memory, no file whose filesystem must know who writes.
 */
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "../include/peerdma_provider.h"
#include "providers.h"

/* So many pages are pinned between two looks at the caller's signals. */
#define BATCH	SZ_64K

/**
 * struct user_pages - pinned pages
 * @mm: whose they are counted to; its struct is held, not its memory
 * @nr: how many
 * @pages: in the order of their addresses
 *
 * Owner: the pin. Born in user_pin(), dies in user_unpin().
 */
struct user_pages {
	struct mm_struct *mm;
	unsigned long nr;
	struct page *pages[];
};

/* The most that kvmalloc() takes without a warning. */
#define PAGES_MAX	((INT_MAX - sizeof(struct user_pages)) /	\
			 sizeof(struct page *))

/*
 * Anonymous and shared memory. Neither a device's, which a mapping can consist of
 * too, nor a file's: kernels before 6.5 pin a file's pages although its
 * filesystem would not know of what is written after it has cleaned them.
 */
static bool is_ordinary(struct page *page)
{
	struct folio *folio = page_folio(page);

	return !folio_is_zone_device(folio) &&
	       (folio_test_anon(folio) || folio_test_swapbacked(folio) ||
		folio_test_hugetlb(folio));
}

static int batch_check(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (!is_ordinary(pages[i]))
			return -EFAULT;
	return fatal_signal_pending(current) ? -EINTR : 0;
}

static int pages_pin(struct user_pages *user, unsigned long addr)
{
	unsigned long done = 0;
	int got, ret;

	while (done < user->nr) {
		got = pin_user_pages_fast(addr + done * PAGE_SIZE,
					  min_t(unsigned long, BATCH,
						user->nr - done),
					  FOLL_WRITE | FOLL_LONGTERM,
					  &user->pages[done]);
		ret = got == -ENOMEM || got == -EINTR ? got : -EFAULT;
		if (got <= 0)
			goto unpin;
		ret = batch_check(&user->pages[done], got);
		done += got;
		if (ret)
			goto unpin;
		cond_resched();
	}
	return 0;

unpin:
	unpin_user_pages(user->pages, done);
	return ret;
}

static int user_pin(struct peerdma_pinned *pinned)
{
	u64 nr = pinned->len >> PAGE_SHIFT;
	struct user_pages *user;
	int ret;

	if (pinned->revocable)
		return -EOPNOTSUPP;
	if (!access_ok(u64_to_user_ptr(pinned->addr), pinned->len))
		return -EFAULT;
	/* More cannot be resident, so it bounds the array as well. */
	if (nr > min_t(u64, totalram_pages(), PAGES_MAX))
		return -ENOMEM;

	user = kvzalloc(struct_size(user, pages, nr), GFP_KERNEL_ACCOUNT);
	if (!user)
		return -ENOMEM;
	user->nr = nr;
	user->mm = current->mm;
	ret = -EDQUOT;
	if (account_locked_vm(user->mm, nr, true))
		goto free_user;
	ret = pages_pin(user, pinned->addr);
	if (ret)
		goto unaccount;
	mmgrab(user->mm);
	pinned->priv = user;
	return 0;

unaccount:
	account_locked_vm(user->mm, nr, false);
free_user:
	kvfree(user);
	return ret;
}

static int user_describe(struct peerdma_pinned *pinned)
{
	struct user_pages *user = pinned->priv;

	pinned->page_size = PAGE_SIZE;
	pinned->nr_pages = user->nr;
	pinned->caching = PEERDMA_CACHED;
	pinned->pages = user->pages;
	return 0;
}

static phys_addr_t user_page(const struct peerdma_pinned *pinned, u32 index)
{
	const struct user_pages *user = pinned->priv;

	return page_to_phys(user->pages[index]);
}

/* Devices and the CPU's mappings have written without a word to the owner. */
static void user_unpin(struct peerdma_pinned *pinned)
{
	struct user_pages *user = pinned->priv;

	unpin_user_pages_dirty_lock(user->pages, user->nr, true);
	account_locked_vm(user->mm, user->nr, false);
	mmdrop(user->mm);
	kvfree(user);
}

struct peerdma_provider peerdma_provider_user = {
	.name = "user",
	.owner = THIS_MODULE,
	.granule = PAGE_SIZE,
	.pin = user_pin,
	.describe = user_describe,
	.page = user_page,
	.unpin = user_unpin,
};
