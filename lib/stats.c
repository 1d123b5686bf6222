// SPDX-License-Identifier: MIT
/* How much went which way, ever. */
#include "internal.h"

static void count(struct peerdma_path_counters *path, uint64_t bytes,
		  bool write)
{
	if (!bytes)
		return;
	atomic_fetch_add_explicit(&path->requests, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(write ? &path->written : &path->read, bytes,
				  memory_order_relaxed);
}

/**
 * peerdma_stats_add() - count a request
 * @ctx: the context
 * @result: of the request
 * @write: its direction
 */
void peerdma_stats_add(struct peerdma *ctx,
		       const struct peerdma_io_result *result, bool write)
{
	struct peerdma_counters *counters = &ctx->counters;

	count(&counters->direct, result->bytes_direct, write);
	count(&counters->staged, result->bytes_staged, write);
	count(&counters->cached, result->bytes_cached, write);
	count(&counters->registered, result->bytes_registered, write);
	count(&counters->zeroed, result->bytes_zeroed, write);
	if (result->error)
		atomic_fetch_add_explicit(&counters->errors, 1,
					  memory_order_relaxed);
}

static struct peerdma_path_stats look(const struct peerdma_path_counters *path)
{
	struct peerdma_path_stats stats = {
		.requests = atomic_load(&path->requests),
		.bytes_read = atomic_load(&path->read),
		.bytes_written = atomic_load(&path->written),
	};

	return stats;
}

/**
 * peerdma_context_stats() - how much went which way since the context was opened
 * @ctx: the context
 * @stats: where to
 *
 * Return: 0; -EINVAL: @stats has no size.
 */
int peerdma_context_stats(struct peerdma *ctx, struct peerdma_stats *stats)
{
	const struct peerdma_counters *counters = &ctx->counters;
	PEERDMA_SIZED(peerdma_stats, found,
		.direct = look(&counters->direct),
		.staged = look(&counters->staged),
		.cached = look(&counters->cached),
		.registered = look(&counters->registered),
		.errors = atomic_load(&counters->errors),
		.zeroed = look(&counters->zeroed));

	return peerdma_sized_out(stats, &found, sizeof(found));
}
