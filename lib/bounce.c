// SPDX-License-Identifier: MIT
/*
 * Host memory that staged transfers go through: pinned by CUDA where CUDA copies
 * from or to it. Pinning takes milliseconds, so what was pinned is kept; and it
 * takes memory from everybody, so all callers of a context share a bounded
 * amount. A caller that finds none waits for one that somebody gives back; whoever
 * has one asks for no second one that way, so that they cannot wait in a circle.
 */
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* Twice what one call uses. */
#define TOTAL_MAX	(2 * PEERDMA_BOUNCES)
#define HUGE_PAGE	((size_t)2 << 20)
#define REGISTER_PORTABLE	1
#define NODES_MAX	1024

_Static_assert(PEERDMA_BOUNCE_LEN % HUGE_PAGE == 0, "all of it in huge pages");

/* Near the GPU, where the machine says which node that is; else where we run. */
static void bind_to_gpu(struct peerdma *ctx, void *addr)
{
	unsigned long nodes[NODES_MAX / 8 / sizeof(long)] = { 0 };
	unsigned int bits = 8 * sizeof(long);
	uint32_t device;
	int node;

	if (peerdma_cuda_gpu_device(&ctx->cuda, ctx->gpu, &device))
		return;
	node = peerdma_pci_node(device);
	if (node < 0 || node >= NODES_MAX)
		return;
	nodes[node / bits] = 1ul << node % bits;
	syscall(SYS_mbind, addr, PEERDMA_BOUNCE_LEN, MPOL_PREFERRED, nodes,
		NODES_MAX, 0);
}

/*
 * In huge pages, if they can be had: a drive's request looks up each page, which is
 * more than half of what reading with O_DIRECT costs in pages of 4 KiB.
 */
static void *map_memory(void)
{
	size_t len = PEERDMA_BOUNCE_LEN + HUGE_PAGE, head;
	char *addr;

	addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return NULL;
	head = -(uintptr_t)addr % HUGE_PAGE;
	if (head)
		munmap(addr, head);
	addr += head;
	if (len - head > PEERDMA_BOUNCE_LEN)
		munmap(addr + PEERDMA_BOUNCE_LEN,
		       len - head - PEERDMA_BOUNCE_LEN);
	madvise(addr, PEERDMA_BOUNCE_LEN, MADV_HUGEPAGE);
	return addr;
}

static int pin_by_cuda(struct peerdma *ctx, void *addr)
{
	peerdma_cuda_context context;
	int err, mode;

	err = peerdma_context_cuda(ctx, &context);
	if (err)
		return err;
	err = peerdma_cuda_enter(&ctx->cuda, context, &mode);
	if (err)
		return err;
	bind_to_gpu(ctx, addr);
	err = peerdma_cuda_errno(ctx->cuda.cuMemHostRegister(
		addr, PEERDMA_BOUNCE_LEN, REGISTER_PORTABLE));
	peerdma_cuda_leave(&ctx->cuda, mode);
	/* Of pinned pages a child would get copies at once. */
	if (!err)
		madvise(addr, PEERDMA_BOUNCE_LEN, MADV_DONTFORK);
	return err;
}

static struct peerdma_bounce *bounce_new(struct peerdma *ctx, bool cuda)
{
	struct peerdma_bounce *bounce = malloc(sizeof(*bounce));

	if (!bounce)
		return NULL;
	bounce->wanted_cuda = cuda;
	bounce->addr = map_memory();
	if (!bounce->addr) {
		free(bounce);
		return NULL;
	}
	bounce->cuda = cuda && !pin_by_cuda(ctx, bounce->addr);
	return bounce;
}

static void bounce_free(struct peerdma *ctx, struct peerdma_bounce *bounce)
{
	peerdma_cuda_context context;
	int mode;

	/* Where the program has ended the CUDA context, its pins are gone. */
	if (bounce->cuda && !peerdma_context_cuda(ctx, &context) &&
	    !peerdma_cuda_enter(&ctx->cuda, context, &mode)) {
		ctx->cuda.cuMemHostUnregister(bounce->addr);
		peerdma_cuda_leave(&ctx->cuda, mode);
	}
	/* A child has none that is pinned, and perhaps something else there. */
	if (!bounce->cuda || ctx->pid == getpid())
		munmap(bounce->addr, PEERDMA_BOUNCE_LEN);
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
