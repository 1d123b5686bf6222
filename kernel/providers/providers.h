/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The providers that are a part of peerdma.ko, since they need no vendor.
 */
#ifndef PEERDMA_PROVIDERS_H
#define PEERDMA_PROVIDERS_H

extern struct peerdma_provider peerdma_provider_pci;
extern struct peerdma_provider peerdma_provider_user;

#endif /* PEERDMA_PROVIDERS_H */
