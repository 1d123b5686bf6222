/* SPDX-License-Identifier: MIT */
/*
 * Pins of any provider, and what the module says of them.
 */
#ifndef T_PIN_H
#define T_PIN_H

#include <sys/ioctl.h>

#include "t_transfer.h"

/* The dma-buf or a negative errno; @pin has provider and range, and the reply. */
static inline int t_pin_range(int dev, struct peerdma_pin *pin)
{
	pin->size = sizeof(*pin);
	return ioctl(dev, PEERDMA_PIN, pin) ? -errno : pin->out_fd;
}

static inline int t_query(int dev, int buffer, struct peerdma_query *query)
{
	*query = (struct peerdma_query){
		.size = sizeof(*query),
		.buffer_fd = buffer,
	};
	return ioctl(dev, PEERDMA_QUERY, query) ? -errno : 0;
}

/* Where a byte of a buffer lies; ends the program where it does not. */
static inline uint64_t t_physical(int dev, int buffer, uint64_t offset)
{
	struct peerdma_segment segments[64] = { 0 };
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = buffer,
		.nr_segments = 64,
		.segments = (uintptr_t)segments,
	};
	uint32_t i;

	t_need(!ioctl(dev, PEERDMA_QUERY, &query), "QUERY answers");
	for (i = 0; i < query.nr_segments; i++)
		if (offset - segments[i].offset < segments[i].len)
			return segments[i].addr + offset - segments[i].offset;
	t_need(false, "the offset is in the buffer");
	return 0;
}

/* PEERDMA_CACHING_* that the mappings of a buffer got, or ~0. */
static inline uint32_t t_caching(int dev, int buffer)
{
	struct peerdma_query query;

	return t_query(dev, buffer, &query) ? ~0u : query.out_caching;
}

static inline int t_revoke(int dev, int buffer)
{
	struct peerdma_revoke revoke = {
		.size = sizeof(revoke),
		.buffer_fd = buffer,
	};

	return ioctl(dev, PEERDMA_REVOKE, &revoke) ? -errno : 0;
}

/* A whole buffer, shared. */
static inline unsigned char *t_map(int buffer, size_t len, int prot)
{
	return mmap(NULL, len, prot, MAP_SHARED, buffer, 0);
}

#endif /* T_PIN_H */
