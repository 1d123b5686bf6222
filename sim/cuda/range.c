// SPDX-License-Identifier: MIT
/* Which addresses are what. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim.h"

struct sim_table sim_ranges;
struct sim_table sim_reservations;

/* Index of the first range that ends after @addr. */
static size_t table_index(const struct sim_table *table, uintptr_t addr)
{
	size_t low = 0, high = table->nr, mid;

	while (low < high) {
		mid = (low + high) / 2;
		if (table->range[mid]->start + table->range[mid]->room <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct sim_range *sim_range_find(const struct sim_table *table, uintptr_t addr)
{
	size_t i = table_index(table, addr);

	if (i == table->nr || table->range[i]->start > addr)
		return NULL;
	return table->range[i];
}

bool sim_range_overlaps(const struct sim_table *table, uintptr_t start,
			size_t len)
{
	size_t i = table_index(table, start);

	return i < table->nr && table->range[i]->start < start + len;
}

/**
 * sim_range_add() - remember addresses
 * @table: where
 * @template: the range; it overlaps none in the table
 *
 * Return: the range as it is in the table, or NULL without memory.
 */
struct sim_range *sim_range_add(struct sim_table *table,
				const struct sim_range *template)
{
	static unsigned long long last_id;
	struct sim_range **bigger, *range;
	size_t i;

	if (table->nr == table->room) {
		bigger = reallocarray(table->range, table->room * 2 + 16,
				      sizeof(*bigger));
		if (!bigger)
			return NULL;
		table->range = bigger;
		table->room = table->room * 2 + 16;
	}
	range = malloc(sizeof(*range));
	if (!range)
		return NULL;
	*range = *template;
	range->id = ++last_id;
	i = table_index(table, range->start);
	memmove(&table->range[i + 1], &table->range[i],
		(table->nr - i) * sizeof(range));
	table->range[i] = range;
	table->nr++;
	return range;
}

void sim_range_remove(struct sim_table *table, struct sim_range *range)
{
	size_t i = table_index(table, range->start);

	table->nr--;
	memmove(&table->range[i], &table->range[i + 1],
		(table->nr - i) * sizeof(range));
}

bool sim_range_is_device(const struct sim_range *range)
{
	return range &&
	       (range->kind == SIM_DEVICE || range->kind == SIM_MAPPED);
}

/**
 * sim_device_span() - is all of that device memory
 * @addr: first byte
 * @len: bytes, at least 1; may go on through adjacent VMM mappings
 * @access: CUmemAccess_flags needed
 * @first: where to put the range of @addr, or NULL
 */
CUresult sim_device_span(uintptr_t addr, size_t len, unsigned int access,
			 struct sim_range **first)
{
	struct sim_range *range;
	size_t here;

	range = sim_range_find(&sim_ranges, addr);
	if (first)
		*first = range;
	for (;;) {
		if (!sim_range_is_device(range) || range->start > addr ||
		    addr - range->start >= range->len ||
		    (range->access & access) != access)
			return CUDA_ERROR_INVALID_VALUE;
		here = range->len - (addr - range->start);
		if (here >= len)
			return CUDA_SUCCESS;
		if (range->kind != SIM_MAPPED)
			return CUDA_ERROR_INVALID_VALUE;
		addr += here;
		len -= here;
		range = sim_range_find(&sim_ranges, addr);
	}
}

/**
 * sim_address_reserve() - address space on which the CPU faults
 * @len: bytes, a multiple of the page size
 * @alignment: a power of two, at least the page size
 * @hint: where the caller would like it, or 0
 *
 * Return: the address, or NULL.
 */
void *sim_address_reserve(size_t len, size_t alignment, uintptr_t hint)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uintptr_t start, aligned;
	void *room;

	if (len + alignment < len)
		return NULL;
	if (hint && !(hint & (alignment - 1))) {
		room = mmap((void *)hint, len, PROT_NONE,
			    flags | MAP_FIXED_NOREPLACE, -1, 0);
		if (room != MAP_FAILED)
			return room;
	}
	room = mmap(NULL, len + alignment, PROT_NONE, flags, -1, 0);
	if (room == MAP_FAILED)
		return NULL;
	start = (uintptr_t)room;
	aligned = (start + alignment - 1) & ~(alignment - 1);
	if (aligned > start)
		munmap(room, aligned - start);
	if (start + alignment > aligned)
		munmap((void *)(aligned + len), start + alignment - aligned);
	return (void *)aligned;
}
