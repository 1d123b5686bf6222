// SPDX-License-Identifier: MIT
/* Contexts, and which one is current in a thread. */
#include <stdlib.h>

#include "sim.h"

#define STACK_DEPTH	64

static struct CUctx_st *contexts;

static _Thread_local struct {
	struct CUctx_st *ctx[STACK_DEPTH];
	int depth;
} stack;

struct CUctx_st *sim_context_current(void)
{
	return stack.depth ? stack.ctx[stack.depth - 1] : NULL;
}

bool sim_context_is_known(const struct CUctx_st *ctx)
{
	const struct CUctx_st *known;

	for (known = contexts; known; known = known->next)
		if (known == ctx)
			return true;
	return false;
}

static CUresult context_check(const struct CUctx_st *ctx)
{
	if (!sim_context_is_known(ctx))
		return CUDA_ERROR_INVALID_CONTEXT;
	return ctx->alive ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

static CUresult context_push(struct CUctx_st *ctx)
{
	if (stack.depth == STACK_DEPTH)
		return CUDA_ERROR_OUT_OF_MEMORY;
	stack.ctx[stack.depth++] = ctx;
	return CUDA_SUCCESS;
}

static CUresult context_open(struct CUctx_st *ctx)
{
	ctx->legacy = sim_stream_create(ctx, CU_STREAM_DEFAULT, 0);
	ctx->per_thread = sim_stream_create(ctx, CU_STREAM_DEFAULT, 0);
	if (!ctx->legacy || !ctx->per_thread) {
		if (ctx->legacy)
			sim_stream_close(ctx->legacy);
		if (ctx->per_thread)
			sim_stream_close(ctx->per_thread);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	ctx->error = CUDA_SUCCESS;
	ctx->alive = true;
	return CUDA_SUCCESS;
}

/* Not alive any more, so nobody adds to it while we wait. */
static void context_close(struct CUctx_st *ctx)
{
	ctx->alive = false;
	sim_context_drain(ctx);
	while (ctx->streams)
		sim_stream_close(ctx->streams);
	sim_context_drop_events(ctx);
	sim_context_free_memory(ctx);
}

static struct CUctx_st *context_alloc(CUdevice dev, unsigned int flags)
{
	struct CUctx_st *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return NULL;
	ctx->dev = dev;
	ctx->flags = flags;
	ctx->next = contexts;
	contexts = ctx;
	return ctx;
}

CUresult cuCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);
	struct CUctx_st *ctx;

	if (result)
		return result;
	if (!out || flags & ~CU_CTX_FLAGS_MASK)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	ctx = context_alloc(dev, flags);
	if (!ctx)
		return sim_leave(CUDA_ERROR_OUT_OF_MEMORY);
	result = context_open(ctx);
	if (!result)
		result = context_push(ctx);
	if (!result)
		*out = ctx;
	return sim_leave(result);
}

CUresult cuCtxDestroy_v2(CUcontext ctx)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (sim_context_is_known(ctx) && ctx->is_primary)
		return sim_leave(CUDA_ERROR_INVALID_CONTEXT);
	result = context_check(ctx);
	if (result)
		return sim_leave(result);
	context_close(ctx);
	if (sim_context_current() == ctx)
		stack.depth--;
	return sim_leave(CUDA_SUCCESS);
}

static CUresult primary_retain(struct sim_device *device, CUdevice dev)
{
	CUresult result;

	if (!device->primary) {
		device->primary = context_alloc(dev, 0);
		if (!device->primary)
			return CUDA_ERROR_OUT_OF_MEMORY;
		device->primary->is_primary = true;
	}
	if (!device->primary_refs) {
		result = context_open(device->primary);
		if (result)
			return result;
	}
	device->primary_refs++;
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice dev)
{
	CUresult result = sim_enter_device(dev);

	if (result)
		return result;
	if (!ctx)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = primary_retain(&sim_devices[dev], dev);
	if (!result)
		*ctx = sim_devices[dev].primary;
	return sim_leave(result);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	CUresult result = sim_enter_device(dev);
	struct sim_device *device;

	if (result)
		return result;
	device = &sim_devices[dev];
	if (!device->primary_refs)
		return sim_leave(CUDA_ERROR_INVALID_CONTEXT);
	if (!--device->primary_refs)
		context_close(device->primary);
	return sim_leave(CUDA_SUCCESS);
}

/* The name that programs older than CUDA 11 look for. */
#undef cuDevicePrimaryCtxRelease
CUresult cuDevicePrimaryCtxRelease(CUdevice dev);

CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return cuDevicePrimaryCtxRelease_v2(dev);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags,
				    int *active)
{
	CUresult result = sim_enter_device(dev);

	if (result)
		return result;
	if (!flags || !active)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*flags = 0;
	*active = sim_devices[dev].primary_refs > 0;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuCtxSetCurrent(CUcontext ctx)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (ctx) {
		result = context_check(ctx);
		if (result)
			return sim_leave(result);
	}
	if (stack.depth)
		stack.depth--;
	return sim_leave(ctx ? context_push(ctx) : CUDA_SUCCESS);
}

CUresult cuCtxGetCurrent(CUcontext *ctx)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (!ctx)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*ctx = sim_context_current();
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (!ctx)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	result = context_check(ctx);
	return sim_leave(result ? result : context_push(ctx));
}

CUresult cuCtxPopCurrent_v2(CUcontext *ctx)
{
	CUresult result = sim_enter(NULL);

	if (result)
		return result;
	if (!stack.depth)
		return sim_leave(CUDA_ERROR_INVALID_CONTEXT);
	stack.depth--;
	if (ctx)
		*ctx = stack.ctx[stack.depth];
	return sim_leave(CUDA_SUCCESS);
}

/* Answers for a context that is destroyed, too. */
CUresult cuCtxGetDevice(CUdevice *dev)
{
	CUresult result = sim_enter(NULL);
	struct CUctx_st *ctx;

	if (result)
		return result;
	ctx = sim_context_current();
	if (!ctx)
		return sim_leave(CUDA_ERROR_INVALID_CONTEXT);
	if (!dev)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*dev = ctx->dev;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetFlags(unsigned int *flags)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (!flags)
		return sim_leave(CUDA_ERROR_INVALID_VALUE);
	*flags = ctx->flags;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	if (least)
		*least = 0;
	if (greatest)
		*greatest = SIM_GREATEST_PRIORITY;
	return sim_leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void)
{
	struct CUctx_st *ctx;
	CUresult result = sim_enter(&ctx);

	if (result)
		return result;
	sim_context_drain(ctx);
	return sim_leave(ctx->error);
}
