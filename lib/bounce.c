// SPDX-License-Identifier: MIT
/*
 * Host memory that staged transfers go through. Pinning by CUDA takes
 * milliseconds, so a few pieces are kept from one transfer to the next.
 */
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define IDLE_MAX	8

static int pin_by_cuda(struct peerdma *ctx, void **out)
{
	peerdma_cuda_context context;
	int err;

	err = peerdma_context_cuda(ctx, &context);
	if (err)
		return err;
	err = peerdma_cuda_errno(ctx->cuda.cuCtxPushCurrent(context));
	if (err)
		return err;
	err = peerdma_cuda_errno(ctx->cuda.cuMemAllocHost(out,
							  PEERDMA_BOUNCE_LEN));
	ctx->cuda.cuCtxPopCurrent(&context);
	return err;
}

static struct peerdma_bounce *bounce_new(struct peerdma *ctx, bool cuda)
{
	struct peerdma_bounce *bounce = malloc(sizeof(*bounce));

	if (!bounce)
		return NULL;
	bounce->cuda = cuda && !pin_by_cuda(ctx, &bounce->addr);
	if (bounce->cuda)
		return bounce;
	if (!posix_memalign(&bounce->addr, sysconf(_SC_PAGESIZE),
			    PEERDMA_BOUNCE_LEN))
		return bounce;
	free(bounce);
	return NULL;
}

static void bounce_free(struct peerdma *ctx, struct peerdma_bounce *bounce)
{
	peerdma_cuda_context context = ctx->context;

	if (!bounce->cuda) {
		free(bounce->addr);
	} else if (!ctx->cuda.cuCtxPushCurrent(context)) {
		ctx->cuda.cuMemFreeHost(bounce->addr);
		ctx->cuda.cuCtxPopCurrent(&context);
	}
	free(bounce);
}

/**
 * peerdma_bounce_get() - take a piece of host memory
 * @ctx: the context
 * @cuda: CUDA will copy to or from it
 *
 * Return: PEERDMA_BOUNCE_LEN bytes, or NULL.
 */
struct peerdma_bounce *peerdma_bounce_get(struct peerdma *ctx, bool cuda)
{
	struct peerdma_bounce **link, *bounce;

	pthread_mutex_lock(&ctx->lock);
	for (link = &ctx->bounces; *link; link = &(*link)->next)
		if ((*link)->cuda == cuda)
			break;
	bounce = *link;
	if (bounce) {
		*link = bounce->next;
		ctx->nr_bounces--;
	}
	pthread_mutex_unlock(&ctx->lock);
	return bounce ? bounce : bounce_new(ctx, cuda);
}

/**
 * peerdma_bounce_put() - give it back
 * @ctx: the context
 * @bounce: from peerdma_bounce_get()
 */
void peerdma_bounce_put(struct peerdma *ctx, struct peerdma_bounce *bounce)
{
	pthread_mutex_lock(&ctx->lock);
	if (ctx->nr_bounces < IDLE_MAX) {
		bounce->next = ctx->bounces;
		ctx->bounces = bounce;
		ctx->nr_bounces++;
		bounce = NULL;
	}
	pthread_mutex_unlock(&ctx->lock);
	if (bounce)
		bounce_free(ctx, bounce);
}

/**
 * peerdma_bounce_drain() - free all idle ones
 * @ctx: a context that nobody uses any more
 */
void peerdma_bounce_drain(struct peerdma *ctx)
{
	struct peerdma_bounce *bounce;

	while ((bounce = ctx->bounces)) {
		ctx->bounces = bounce->next;
		bounce_free(ctx, bounce);
	}
}
