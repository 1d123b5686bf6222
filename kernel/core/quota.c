// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each user has pinned, and how much it may be.
 *
 * A BAR's aperture and pinned RAM are everybody's, so one user must not be able
 * to take all of them. Counted for the real user, as locked memory is, over all
 * providers.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "core.h"

static unsigned long long quota_bytes;
module_param(quota_bytes, ullong, 0644);
MODULE_PARM_DESC(quota_bytes,
		 "bytes that one user may pin, without CAP_SYS_RESOURCE (0: any)");

/**
 * struct peerdma_account - what one user has pinned
 * @list: in peerdma_core::accounts
 * @uid: whose
 * @pins: how many charges there are
 * @bytes: their sum
 *
 * Guarded by peerdma_core::accounts_lock. Born with the user's first pin, freed
 * with the last.
 */
struct peerdma_account {
	struct list_head list;
	kuid_t uid;
	u64 pins;
	u64 bytes;
};

static struct peerdma_account *account_get(kuid_t uid)
{
	struct peerdma_account *account;

	lockdep_assert_held(&peerdma.accounts_lock);
	list_for_each_entry(account, &peerdma.accounts, list)
		if (uid_eq(account->uid, uid))
			return account;

	account = kzalloc_obj(*account, GFP_KERNEL);
	if (!account)
		return NULL;
	account->uid = uid;
	list_add(&account->list, &peerdma.accounts);
	return account;
}

static bool exceeds(const struct peerdma_account *account, u64 bytes)
{
	u64 quota = READ_ONCE(quota_bytes);

	return quota && (bytes > quota || account->bytes > quota - bytes);
}

static void account_free_if_empty(struct peerdma_account *account)
{
	if (account->pins)
		return;
	list_del(&account->list);
	kfree(account);
}

/**
 * peerdma_account_charge - count bytes that the caller is about to pin
 * @bytes: how many
 *
 * Context: process, of the user who pins; may sleep.
 * Return: whom to uncharge, or ERR_PTR: -EDQUOT, -ENOMEM.
 */
struct peerdma_account *peerdma_account_charge(u64 bytes)
{
	struct peerdma_account *account;

	mutex_lock(&peerdma.accounts_lock);
	account = account_get(current_uid());
	if (!account) {
		account = ERR_PTR(-ENOMEM);
	} else if (exceeds(account, bytes) && !capable(CAP_SYS_RESOURCE)) {
		account_free_if_empty(account);
		account = ERR_PTR(-EDQUOT);
	} else {
		account->pins++;
		account->bytes += bytes;
	}
	mutex_unlock(&peerdma.accounts_lock);
	return account;
}

/**
 * peerdma_account_uncharge - undo peerdma_account_charge()
 * @account: may go away with this call
 * @bytes: as charged
 *
 * Context: process, of any user.
 */
void peerdma_account_uncharge(struct peerdma_account *account, u64 bytes)
{
	mutex_lock(&peerdma.accounts_lock);
	account->pins--;
	account->bytes -= bytes;
	account_free_if_empty(account);
	mutex_unlock(&peerdma.accounts_lock);
}
