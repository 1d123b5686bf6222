// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "internal.h"

/**
 * peerdma_version() - the version of this library
 *
 * Return: a constant such as "1.2.0".
 */
const char *peerdma_version(void)
{
	return PEERDMA_VERSION;
}

static int reason_of_open(int err)
{
	if (err == -EACCES || err == -EPERM)
		return PEERDMA_REASON_NO_PERMISSION;
	return PEERDMA_REASON_NO_MODULE;
}

static void open_device(struct peerdma *ctx, const char *path)
{
	ctx->info.size = sizeof(ctx->info);
	ctx->device_fd = open(path ? path : "/dev/peerdma", O_RDWR | O_CLOEXEC);
	if (ctx->device_fd < 0) {
		ctx->device_fd = -errno;
		ctx->reason = reason_of_open(ctx->device_fd);
		return;
	}
	if (!ioctl(ctx->device_fd, PEERDMA_INFO, &ctx->info))
		return;
	/* Another device under this name. */
	close(ctx->device_fd);
	ctx->device_fd = -ENXIO;
	ctx->reason = PEERDMA_REASON_NO_MODULE;
}

static int choose_gpu(struct peerdma *ctx, int gpu)
{
	if (gpu < PEERDMA_GPU_NONE)
		return -EINVAL;
	ctx->gpu = PEERDMA_GPU_NONE;
	if (gpu == PEERDMA_GPU_NONE) {
		ctx->cuda.reason = PEERDMA_REASON_NO_GPU;
		return 0;
	}
	peerdma_cuda_load(&ctx->cuda);
	if (ctx->cuda.reason)
		return 0;
	if (gpu >= ctx->cuda.nr_gpus)
		return -ENODEV;
	ctx->contexts = calloc(ctx->cuda.nr_gpus, sizeof(*ctx->contexts));
	if (!ctx->contexts)
		return -ENOMEM;
	ctx->gpu = gpu;
	return 0;
}

/**
 * peerdma_open() - open a context, through which everything else goes
 * @out_ctx: the context
 * @opts: NULL: /dev/peerdma and CUDA's first GPU
 *
 * Succeeds without the kernel module and without CUDA; peerdma_context_info()
 * says what there is.
 *
 * Return: 0 or a negative errno.
 */
int peerdma_open(struct peerdma **out_ctx, const struct peerdma_open_opts *opts)
{
	struct peerdma_open_opts o;
	struct peerdma *ctx;
	int err;

	err = peerdma_sized_in(&o, sizeof(o), opts);
	if (err)
		return err;
	if (o.flags)
		return -EOPNOTSUPP;
	ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		return -ENOMEM;
	atomic_init(&ctx->refs, 1);
	ctx->pid = getpid();
	atomic_init(&ctx->keep, NULL);
	ctx->keep_limit = o.keep;
	ctx->pagemap_fd = -1;
	err = choose_gpu(ctx, o.gpu);
	if (!err)
		err = peerdma_pool_create(ctx);
	if (err)
		goto free_ctx;
	pthread_mutex_init(&ctx->lock, NULL);
	pthread_cond_init(&ctx->bounce_idle, NULL);
	pthread_cond_init(&ctx->region_idle, NULL);
	pthread_mutex_init(&ctx->streams_lock, NULL);
	pthread_cond_init(&ctx->streams_idle, NULL);
	open_device(ctx, o.device);
	*out_ctx = ctx;
	return 0;

free_ctx:
	free(ctx->contexts);
	free(ctx);
	return err;
}

/**
 * peerdma_context_get() - hold a context
 * @ctx: the context
 *
 * Return: @ctx.
 */
struct peerdma *peerdma_context_get(struct peerdma *ctx)
{
	atomic_fetch_add(&ctx->refs, 1);
	return ctx;
}

static void release_contexts(struct peerdma *ctx)
{
	int i;

	for (i = 0; ctx->contexts && i < ctx->cuda.nr_gpus; i++)
		if (ctx->contexts[i])
			peerdma_cuda_release(&ctx->cuda, i);
	free(ctx->contexts);
}

/**
 * peerdma_context_put() - let go of a context; the last one ends it
 * @ctx: the context
 */
void peerdma_context_put(struct peerdma *ctx)
{
	if (atomic_fetch_sub(&ctx->refs, 1) != 1)
		return;
	peerdma_keep_end(ctx);
	peerdma_pool_destroy(ctx);
	peerdma_slot_drain(ctx);
	peerdma_lane_drain(ctx);
	peerdma_drive_drain(ctx);
	peerdma_bounce_drain(ctx);
	peerdma_reopened_sweep();
	release_contexts(ctx);
	if (ctx->device_fd >= 0)
		close(ctx->device_fd);
	if (ctx->pagemap_fd >= 0)
		close(ctx->pagemap_fd);
	pthread_cond_destroy(&ctx->streams_idle);
	pthread_mutex_destroy(&ctx->streams_lock);
	pthread_cond_destroy(&ctx->region_idle);
	pthread_cond_destroy(&ctx->bounce_idle);
	pthread_mutex_destroy(&ctx->lock);
	free(ctx);
}

/**
 * peerdma_close() - close a context
 * @ctx: from peerdma_open(), or NULL; buffers that were made from it stay
 */
void peerdma_close(struct peerdma *ctx)
{
	if (ctx)
		peerdma_context_put(ctx);
}

/**
 * peerdma_context_cuda() - the primary CUDA context of the context's GPU
 * @ctx: the context
 * @out: valid as long as @ctx
 *
 * Created when it is first needed: that takes a real GPU some 0.2 s.
 *
 * Return: 0; -ENODEV: there is no GPU; another negative errno.
 */
int peerdma_context_cuda(struct peerdma *ctx, peerdma_cuda_context *out)
{
	if (ctx->gpu == PEERDMA_GPU_NONE)
		return -ENODEV;
	return peerdma_context_cuda_of(ctx, ctx->gpu, out);
}

/**
 * peerdma_context_cuda_of() - the primary CUDA context of any GPU
 * @ctx: the context, which has one
 * @gpu: CUDA's number of the GPU
 * @out: valid as long as @ctx
 *
 * Return: 0; -ENODEV: there is no such GPU; another negative errno.
 */
int peerdma_context_cuda_of(struct peerdma *ctx, int gpu,
			    peerdma_cuda_context *out)
{
	int err = 0;

	if (gpu < 0 || gpu >= ctx->cuda.nr_gpus)
		return -ENODEV;
	pthread_mutex_lock(&ctx->lock);
	if (!ctx->contexts[gpu])
		err = peerdma_cuda_retain(&ctx->cuda, gpu,
					  &ctx->contexts[gpu]);
	*out = ctx->contexts[gpu];
	pthread_mutex_unlock(&ctx->lock);
	return err;
}

/**
 * peerdma_streams_begin() - a stream will wait for a request
 * @ctx: the context
 *
 * Waits while somebody is at what may not be done then.
 */
void peerdma_streams_begin(struct peerdma *ctx)
{
	pthread_mutex_lock(&ctx->streams_lock);
	ctx->nr_streams++;
	pthread_mutex_unlock(&ctx->streams_lock);
}

/**
 * peerdma_streams_end() - it waits no longer
 * @ctx: the context
 *
 * Never waits: as long as a stream does, nobody holds them.
 */
void peerdma_streams_end(struct peerdma *ctx)
{
	pthread_mutex_lock(&ctx->streams_lock);
	if (!--ctx->nr_streams)
		pthread_cond_broadcast(&ctx->streams_idle);
	pthread_mutex_unlock(&ctx->streams_lock);
}

/**
 * peerdma_streams_hold() - begin with what waits for all streams of a GPU
 * @ctx: the context
 *
 * CUDA would hold its lock meanwhile, without which no request ends that a stream
 * waits for. So none waits until peerdma_streams_unhold().
 *
 * Context: a thread of the library's own, on which no request depends.
 */
void peerdma_streams_hold(struct peerdma *ctx)
{
	pthread_mutex_lock(&ctx->streams_lock);
	while (ctx->nr_streams)
		pthread_cond_wait(&ctx->streams_idle, &ctx->streams_lock);
}

/**
 * peerdma_streams_unhold() - end it
 * @ctx: the context, held by this thread
 */
void peerdma_streams_unhold(struct peerdma *ctx)
{
	pthread_mutex_unlock(&ctx->streams_lock);
}

/**
 * peerdma_context_info() - what a context found
 * @ctx: the context
 * @info: where to
 *
 * Return: 0; -EINVAL: @info has no size.
 */
int peerdma_context_info(struct peerdma *ctx, struct peerdma_context_info *info)
{
	PEERDMA_SIZED(peerdma_context_info, found,
		.verbs = ctx->info.out_verbs,
		.features = ctx->info.out_features,
		.max_segments = ctx->info.out_max_segments,
		.page_size = sysconf(_SC_PAGESIZE),
		.module_reason = ctx->reason,
		.cuda_reason = ctx->cuda.reason,
		.gpu = ctx->gpu,
		.nr_gpus = ctx->cuda.nr_gpus);

	memcpy(found.providers, ctx->info.out_providers,
	       sizeof(found.providers) - 1);
	return peerdma_sized_out(info, &found, sizeof(found));
}

/**
 * peerdma_gpu_info() - a GPU as CUDA shows it
 * @ctx: the context
 * @ordinal: CUDA's number of the GPU; need not be the context's
 * @info: where to
 *
 * Return: 0; -ENODEV: no such GPU; another negative errno.
 */
int peerdma_gpu_info(struct peerdma *ctx, unsigned int ordinal,
		     struct peerdma_gpu_info *info)
{
	PEERDMA_SIZED(peerdma_gpu_info, found);
	struct peerdma_cuda *cuda = &ctx->cuda;
	uint32_t device;
	int err, gpu;

	if (cuda->reason || ordinal >= (unsigned int)cuda->nr_gpus)
		return -ENODEV;
	err = peerdma_cuda_gpu_device(cuda, ordinal, &device);
	if (err)
		return err;
	peerdma_pci_format(device, found.device);
	err = peerdma_cuda_errno(cuda->cuDeviceGet(&gpu, ordinal));
	if (!err)
		err = peerdma_cuda_errno(cuda->cuDeviceGetName(
			found.name, sizeof(found.name) - 1, gpu));
	if (err)
		return err;
	return peerdma_sized_out(info, &found, sizeof(found));
}
