/* SPDX-License-Identifier: MIT */
/* Memory without an address: what a CUmemGenericAllocationHandle stands for. */
#ifndef SIM_VMM_H
#define SIM_VMM_H

#include "sim.h"

/**
 * struct sim_handle - one cuMemCreate()
 * @next: in the list of live ones
 * @prop: as the caller gave it
 * @len: bytes
 * @kernel: the kernel's handle
 * @owners: cuMemCreate() and cuMemRetainAllocationHandle(), less cuMemRelease()
 * @mappings: cuMemMap(), less cuMemUnmap()
 */
struct sim_handle {
	struct sim_handle *next;
	CUmemAllocationProp prop;
	size_t len;
	uint32_t kernel;
	unsigned int owners;
	unsigned int mappings;
};

#endif
