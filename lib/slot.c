// SPDX-License-Identifier: MIT
/*
 * Small reads of the page cache that nobody waits for: the copy goes into the
 * program's own stream, behind what is there, and the call returns. Until the copy
 * is made its bytes have to lie somewhere.
 *
 * CUDA takes them before it returns where it is asked to, in a batch; of an ordinary
 * copy its manual no longer says so. It takes no batch for its default stream, which
 * is always there, though, so that a mark can be put into it later: there the bytes
 * lie in pinned memory, one half of which is filled while the other is copied.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

#define HALF_LEN	((size_t)512 << 10)
#define CAPTURE_NONE	0
#define STREAM_LEGACY	((void *)1)
/* The default stream, which another one that captures waits for. */
#define CAPTURE_IMPLICIT	906

/* Of one CUDA context, as long as the library's; never moved in its list. */
struct peerdma_slot {
	struct peerdma_slot *next;	/* in peerdma.slots */
	peerdma_cuda_context context;
	char *bytes;			/* both halves, pinned */
	pthread_mutex_t lock;		/* guards what follows */
	unsigned int half;		/* that is being filled ... */
	size_t used;			/* ... so far */
	peerdma_cuda_event left[2];	/* behind the last copy out of a half */
};

static void slot_free(const struct peerdma_cuda *cuda,
		      struct peerdma_slot *slot)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (slot->left[i])
			cuda->cuEventDestroy(slot->left[i]);
	if (slot->bytes)
		cuda->cuMemFreeHost(slot->bytes);
	pthread_mutex_destroy(&slot->lock);
	free(slot);
}

static int slot_fill(const struct peerdma_cuda *cuda, struct peerdma_slot *slot)
{
	unsigned int i;
	void *bytes;
	int result;

	result = cuda->cuMemAllocHost(&bytes, 2 * HALF_LEN);
	if (!result)
		slot->bytes = bytes;
	for (i = 0; i < 2 && !result; i++)
		result = cuda->cuEventCreate(&slot->left[i],
					     PEERDMA_EVENT_DISABLE_TIMING);
	return peerdma_cuda_errno(result);
}

static struct peerdma_slot *find(struct peerdma_slot *slot,
				 peerdma_cuda_context context)
{
	while (slot && slot->context != context)
		slot = slot->next;
	return slot;
}

/* Return: the one that is there now, whoever was first. */
static struct peerdma_slot *publish(struct peerdma *ctx,
				    struct peerdma_slot *made)
{
	struct peerdma_slot *slot;

	pthread_mutex_lock(&ctx->lock);
	slot = find(ctx->slots, made->context);
	if (!slot) {
		made->next = ctx->slots;
		ctx->slots = made;
	}
	pthread_mutex_unlock(&ctx->lock);
	if (!slot)
		return made;
	slot_free(&ctx->cuda, made);
	return slot;
}

static int slot_get(struct peerdma *ctx, peerdma_cuda_context context,
		    struct peerdma_slot **out)
{
	struct peerdma_slot *slot;
	int err;

	pthread_mutex_lock(&ctx->lock);
	*out = find(ctx->slots, context);
	pthread_mutex_unlock(&ctx->lock);
	if (*out)
		return 0;
	slot = calloc(1, sizeof(*slot));
	if (!slot)
		return -ENOMEM;
	slot->context = context;
	pthread_mutex_init(&slot->lock, NULL);
	err = slot_fill(&ctx->cuda, slot);
	if (err) {
		slot_free(&ctx->cuda, slot);
		return err;
	}
	*out = publish(ctx, slot);
	return 0;
}

/**
 * peerdma_slot_drain() - free all
 * @ctx: a context that nobody uses any more
 */
void peerdma_slot_drain(struct peerdma *ctx)
{
	struct peerdma_slot *slot;
	int mode;

	while ((slot = ctx->slots)) {
		ctx->slots = slot->next;
		/* The program may have ended its CUDA context, and it with that. */
		if (peerdma_cuda_enter(&ctx->cuda, slot->context, &mode)) {
			pthread_mutex_destroy(&slot->lock);
			free(slot);
			continue;
		}
		ctx->cuda.cuStreamSynchronize(NULL);
		slot_free(&ctx->cuda, slot);
		peerdma_cuda_leave(&ctx->cuda, mode);
	}
}

static bool is_default(peerdma_cuda_stream stream)
{
	return !stream || stream == STREAM_LEGACY;
}

/* A graph would do the copy again whenever it is launched. */
static int check_stream(const struct peerdma_cuda *cuda,
			peerdma_cuda_stream stream)
{
	int result, status = CAPTURE_NONE;

	if (!cuda->cuStreamIsCapturing)
		return 0;
	result = cuda->cuStreamIsCapturing(stream, &status);
	if (result == CAPTURE_IMPLICIT)
		return -EBUSY;
	if (result)
		return peerdma_cuda_errno(result);
	return status == CAPTURE_NONE ? 0 : -EBUSY;
}

/* With the lock held. The half that comes next was left one half ago. */
static int turn(const struct peerdma_cuda *cuda, struct peerdma_slot *slot)
{
	int result = cuda->cuEventRecord(slot->left[slot->half], NULL);

	if (!result)
		result = cuda->cuEventSynchronize(slot->left[!slot->half]);
	if (result)
		return peerdma_cuda_errno(result);
	slot->half = !slot->half;
	slot->used = 0;
	return 0;
}

/* With the lock held. */
static int copy_pinned(struct peerdma_transfer *t, struct peerdma_slot *slot,
		       size_t len, size_t *out_moved)
{
	const struct peerdma_cuda *cuda = &t->buf->ctx->cuda;
	char *bytes;
	int part;

	part = HALF_LEN - slot->used < len ? turn(cuda, slot) : 0;
	if (part)
		return part;
	bytes = slot->bytes + slot->half * HALF_LEN + slot->used;
	part = peerdma_transfer_peek(t, bytes, len, out_moved);
	if (part || !*out_moved)
		return part;
	slot->used += *out_moved;
	return peerdma_cuda_errno(cuda->cuMemcpyHtoDAsync(
		peerdma_transfer_addr(t), bytes, *out_moved, NULL));
}

static int move_default(struct peerdma_transfer *t, size_t len,
			size_t *out_moved)
{
	struct peerdma_slot *slot;
	int part;

	part = slot_get(t->buf->ctx, t->buf->pointer.context, &slot);
	if (part)
		return part;
	pthread_mutex_lock(&slot->lock);
	part = copy_pinned(t, slot, len, out_moved);
	pthread_mutex_unlock(&slot->lock);
	return part;
}

static int copy_at_once(struct peerdma_transfer *t, const char *bytes,
			size_t len)
{
	struct peerdma_cuda_copy_hint hint = {
		.order = PEERDMA_COPY_ORDER_CALL,
	};
	unsigned long long to = peerdma_transfer_addr(t);
	unsigned long long from = (uintptr_t)bytes;
	size_t start = 0, failed;

	/* Refused it was not begun, and what is wrong will be told by the rest. */
	if (t->buf->ctx->cuda.cuMemcpyBatchAsync(&to, &from, &len, 1, &hint,
						 &start, 1, &failed,
						 t->opts.stream))
		return PEERDMA_PART_REFUSED;
	return 0;
}

static int move_batch(struct peerdma_transfer *t, size_t len, size_t *out_moved)
{
	char *bytes;
	int part;

	if (!t->buf->ctx->cuda.cuMemcpyBatchAsync)
		return PEERDMA_PART_REFUSED;
	bytes = malloc(len);
	if (!bytes)
		return PEERDMA_PART_REFUSED;
	part = peerdma_transfer_peek(t, bytes, len, out_moved);
	if (!part && *out_moved)
		part = copy_at_once(t, bytes, *out_moved);
	free(bytes);
	return part;
}

/**
 * peerdma_slot_move() - read a small range of the page cache into a stream
 * @t: from a file without O_DIRECT into CUDA memory, with PEERDMA_IO_STREAM
 * @len: bytes, at most PEERDMA_SMALL_LEN
 * @counter: of @t->result, where they count
 *
 * Return: PEERDMA_PART_DONE; PEERDMA_PART_SHORT; PEERDMA_PART_REFUSED: nothing
 * was moved, since not all of it is in the page cache, or CUDA cannot; or a
 * negative errno.
 */
int peerdma_slot_move(struct peerdma_transfer *t, size_t len, uint64_t *counter)
{
	const struct peerdma_cuda *cuda = &t->buf->ctx->cuda;
	size_t moved = 0;
	int part, mode;

	part = peerdma_cuda_enter(cuda, t->buf->pointer.context, &mode);
	if (part)
		return part;
	part = check_stream(cuda, t->opts.stream);
	if (!part && is_default(t->opts.stream))
		part = move_default(t, len, &moved);
	else if (!part)
		part = move_batch(t, len, &moved);
	peerdma_cuda_leave(cuda, mode);
	if (!part)
		part = peerdma_transfer_advance(t, moved, counter);
	if (part)
		return part;
	return moved < len ? PEERDMA_PART_SHORT : PEERDMA_PART_DONE;
}

/**
 * peerdma_slot_reach() - wait until a transfer's stream has come to it
 * @t: whatever it is; it is in no stream afterwards
 *
 * Return: 0 or a negative errno.
 */
int peerdma_slot_reach(struct peerdma_transfer *t)
{
	const struct peerdma_cuda *cuda = &t->buf->ctx->cuda;
	int err, mode;

	if (!(t->opts.flags & PEERDMA_IO_STREAM))
		return 0;
	err = peerdma_cuda_enter(cuda, t->buf->pointer.context, &mode);
	if (err)
		return err;
	err = check_stream(cuda, t->opts.stream);
	if (!err)
		err = peerdma_cuda_errno(
			cuda->cuStreamSynchronize(t->opts.stream));
	peerdma_cuda_leave(cuda, mode);
	t->opts.flags &= ~PEERDMA_IO_STREAM;
	return err;
}
