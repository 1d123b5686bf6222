/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's trace says of the addresses that an IOMMU translates.
 */
#ifndef T_TRACE_H
#define T_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../t_sysfs.h"

static inline int t_trace_maps(bool on)
{
	return t_write_text("/sys/kernel/tracing/events/iommu/map/enable",
			    on ? "1" : "0");
}

/* Where a device found physical memory, the last time that it was mapped; 0: never. */
static inline uint64_t t_traced_address(uint64_t phys)
{
	FILE *trace = fopen("/sys/kernel/tracing/trace", "r");
	unsigned long long iova, paddr, size;
	uint64_t found = 0;
	char line[256], *map;

	while (trace && fgets(line, sizeof(line), trace)) {
		map = strstr(line, "iova=");
		if (!map || sscanf(map, "iova=%llx - %*x paddr=%llx size=%llu",
				   &iova, &paddr, &size) != 3)
			continue;
		if (phys - paddr < size)
			found = iova + phys - paddr;
	}
	if (trace)
		fclose(trace);
	return found;
}

#endif /* T_TRACE_H */
