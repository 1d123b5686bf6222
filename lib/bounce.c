// SPDX-License-Identifier: MIT
/*
 * Host memory that staged transfers go through: pinned by CUDA where CUDA copies
 * from or to it. Pinning takes milliseconds, so what was pinned is kept; and it
 * takes memory from everybody, so all callers of a context share a bounded
 * amount. A caller that finds none waits for one that somebody gives back; whoever
 * has one asks for no second one that way, so that they cannot wait in a circle.
 */
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

/* Twice what one call uses. */
#define TOTAL_MAX	(2 * PEERDMA_BOUNCES)

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
	bounce->wanted_cuda = cuda;
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

static struct peerdma_bounce *take_idle(struct peerdma *ctx, bool cuda)
{
	struct peerdma_bounce **link, *bounce;

	for (link = &ctx->bounces; (bounce = *link); link = &bounce->next)
		if (bounce->wanted_cuda == cuda)
			break;
	if (bounce)
		*link = bounce->next;
	return bounce;
}

/**
 * peerdma_bounce_get() - take a piece of host memory
 * @ctx: the context
 * @cuda: CUDA will copy to or from it
 * @wait: for one that is in use where all are; only for a caller with none
 *
 * Return: PEERDMA_BOUNCE_LEN bytes, or NULL: no memory, or none without waiting.
 */
struct peerdma_bounce *peerdma_bounce_get(struct peerdma *ctx, bool cuda,
					  bool wait)
{
	struct peerdma_bounce *bounce;

	pthread_mutex_lock(&ctx->lock);
	for (;;) {
		bounce = take_idle(ctx, cuda);
		if (bounce || ctx->nr_bounces[cuda] < TOTAL_MAX || !wait)
			break;
		pthread_cond_wait(&ctx->bounce_idle, &ctx->lock);
	}
	if (bounce || ctx->nr_bounces[cuda] >= TOTAL_MAX) {
		pthread_mutex_unlock(&ctx->lock);
		return bounce;
	}
	ctx->nr_bounces[cuda]++;
	pthread_mutex_unlock(&ctx->lock);
	bounce = bounce_new(ctx, cuda);
	if (bounce)
		return bounce;
	pthread_mutex_lock(&ctx->lock);
	ctx->nr_bounces[cuda]--;
	pthread_cond_signal(&ctx->bounce_idle);
	pthread_mutex_unlock(&ctx->lock);
	return NULL;
}

/**
 * peerdma_bounce_put() - give it back
 * @ctx: the context
 * @bounce: from peerdma_bounce_get()
 */
void peerdma_bounce_put(struct peerdma *ctx, struct peerdma_bounce *bounce)
{
	pthread_mutex_lock(&ctx->lock);
	bounce->next = ctx->bounces;
	ctx->bounces = bounce;
	pthread_cond_broadcast(&ctx->bounce_idle);
	pthread_mutex_unlock(&ctx->lock);
}

/**
 * peerdma_bounce_warm() - pin all that there may be
 * @ctx: the context
 *
 * Pinning may wait for every stream of the GPU, and one of them for us.
 */
void peerdma_bounce_warm(struct peerdma *ctx)
{
	struct peerdma_bounce *taken[TOTAL_MAX];
	unsigned int nr;

	for (nr = 0; nr < TOTAL_MAX; nr++) {
		taken[nr] = peerdma_bounce_get(ctx, true, false);
		if (!taken[nr])
			break;
	}
	while (nr)
		peerdma_bounce_put(ctx, taken[--nr]);
}

/**
 * peerdma_bounce_drain() - free all
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
