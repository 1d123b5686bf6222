// SPDX-License-Identifier: GPL-2.0-only
/*
 * The list of providers: who can pin device memory.
 */
#include <linux/module.h>
#include <linux/string.h>

#include "core.h"

static struct peerdma_provider *find(const char *name)
{
	struct peerdma_provider *provider;

	lockdep_assert_held(&peerdma.providers_lock);
	list_for_each_entry(provider, &peerdma.providers, list)
		if (!strcmp(provider->name, name))
			return provider;
	return NULL;
}

/**
 * peerdma_provider_register - offer a source of device memory
 * @provider: filled in by the caller; stays until it is unregistered
 *
 * Context: process; may sleep.
 * Return: 0, -EINVAL for a name or granule that cannot be, -EEXIST when the name
 * is taken.
 */
int peerdma_provider_register(struct peerdma_provider *provider)
{
	int ret = 0;

	if (strlen(provider->name) >= PEERDMA_PROVIDER_LEN ||
	    !is_power_of_2(provider->granule) || provider->granule < PAGE_SIZE)
		return -EINVAL;

	mutex_lock(&peerdma.providers_lock);
	if (find(provider->name))
		ret = -EEXIST;
	else
		list_add_tail(&provider->list, &peerdma.providers);
	mutex_unlock(&peerdma.providers_lock);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(peerdma_provider_register, PEERDMA_NS);

/**
 * peerdma_provider_unregister - take an offer back
 * @provider: as registered
 *
 * To be called from the module's exit: every pin holds the module, so none is
 * left by then and none can begin.
 *
 * Context: process; may sleep.
 */
void peerdma_provider_unregister(struct peerdma_provider *provider)
{
	mutex_lock(&peerdma.providers_lock);
	list_del(&provider->list);
	mutex_unlock(&peerdma.providers_lock);
}
EXPORT_SYMBOL_NS_GPL(peerdma_provider_unregister, PEERDMA_NS);

/**
 * peerdma_provider_get - find a provider and hold its module
 * @name: NUL-terminated
 *
 * Return: the provider, or NULL when there is none of that name or its module is
 * on its way out.
 */
struct peerdma_provider *peerdma_provider_get(const char *name)
{
	struct peerdma_provider *provider;

	mutex_lock(&peerdma.providers_lock);
	provider = find(name);
	if (provider && !try_module_get(provider->owner))
		provider = NULL;
	mutex_unlock(&peerdma.providers_lock);
	return provider;
}

/**
 * peerdma_provider_put - undo peerdma_provider_get()
 * @provider: may go away with this call
 */
void peerdma_provider_put(struct peerdma_provider *provider)
{
	module_put(provider->owner);
}

/**
 * peerdma_provider_names - list the providers
 * @names: out; the names with a space between them
 * @size: room in @names, bytes; what does not fit is left out
 */
void peerdma_provider_names(char *names, size_t size)
{
	struct peerdma_provider *provider;
	size_t used = 0;

	names[0] = '\0';
	mutex_lock(&peerdma.providers_lock);
	list_for_each_entry(provider, &peerdma.providers, list)
		used += scnprintf(names + used, size - used, "%s%s",
				  used ? " " : "", provider->name);
	mutex_unlock(&peerdma.providers_lock);
}
