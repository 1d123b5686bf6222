// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_cuda.h"
#include "fake_stream.h"

/*
 * The program's stream: a list and a thread. Other streams do everything at
 * once. Once the context is dead, nothing of it is done any more.
 */
struct op {
	struct op *next;
	void (*fn)(void *data);
	void *data;
	uint32_t *word;
	uint32_t value;
	struct event *event;
	unsigned char *to;
	const void *from;
	size_t len;
	void *owned;
};

struct event {
	int pending;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct op *first;
	struct op **last;
	bool started;
} stream = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.last = &stream.first,
};

static bool is_dead(void)
{
	return __atomic_load_n(&fake_cuda.dead, __ATOMIC_SEQ_CST);
}

/* A driver may have a lock that it calls host functions with. */
static pthread_mutex_t callbacks = PTHREAD_MUTEX_INITIALIZER;

static void wait_while_held(atomic_int *hold)
{
	int wanted = 1;

	if (!atomic_compare_exchange_strong(hold, &wanted, 2))
		return;
	while (atomic_load(hold))
		usleep(100);
}

static void run_op(const struct op *op)
{
	if (op->len && !is_dead())
		memcpy(op->to, op->from, op->len);
	if (op->fn && !is_dead()) {
		pthread_mutex_lock(&callbacks);
		op->fn(op->data);
		pthread_mutex_unlock(&callbacks);
	}
	while (op->word && !is_dead() &&
	       (int32_t)(__atomic_load_n(op->word, __ATOMIC_ACQUIRE) -
			 op->value) < 0)
		usleep(100);
}

static void *stream_main(void *arg)
{
	struct op *op;

	pthread_mutex_lock(&stream.lock);
	for (;;) {
		op = stream.first;
		if (!op) {
			pthread_cond_wait(&stream.changed, &stream.lock);
			continue;
		}
		pthread_mutex_unlock(&stream.lock);
		run_op(op);
		pthread_mutex_lock(&stream.lock);
		stream.first = op->next;
		if (!stream.first)
			stream.last = &stream.first;
		if (op->event)
			op->event->pending--;
		free(op->owned);
		free(op);
		pthread_cond_broadcast(&stream.changed);
	}
	return arg;
}

static int put_op(struct op template)
{
	struct op *op = malloc(sizeof(*op));
	pthread_t thread;

	if (!op)
		abort();
	*op = template;
	op->next = NULL;
	pthread_mutex_lock(&stream.lock);
	if (!stream.started && !pthread_create(&thread, NULL, stream_main,
					       NULL))
		stream.started = !pthread_detach(thread);
	*stream.last = op;
	stream.last = &op->next;
	if (op->event)
		op->event->pending++;
	pthread_cond_broadcast(&stream.changed);
	pthread_mutex_unlock(&stream.lock);
	return 0;
}

static bool is_program_stream(const void *handle)
{
	return handle == &stream || (!handle && fake_cuda.has_default);
}

bool fake_stream_copy(void *handle, unsigned char *dst, const void *src,
		      size_t len, bool now)
{
	struct op op = { .to = dst, .from = src, .len = len };

	if (!is_program_stream(handle))
		return false;
	if (now) {
		op.from = op.owned = malloc(len);
		memcpy(op.owned, src, len);
	}
	put_op(op);
	return true;
}

static bool await_stream(void *handle)
{
	if (!is_program_stream(handle))
		return false;
	pthread_mutex_lock(&stream.lock);
	while (stream.first)
		pthread_cond_wait(&stream.changed, &stream.lock);
	pthread_mutex_unlock(&stream.lock);
	return true;
}

int cuStreamSynchronize(void *handle)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	__atomic_add_fetch(&fake_cuda.waits, 1, __ATOMIC_SEQ_CST);
	return await_stream(handle) || handle ? 0 : INVALID_VALUE;
}

int cuStreamIsCapturing(void *handle, int *status);
int cuStreamIsCapturing(void *handle, int *status)
{
	*status = handle == &stream && fake_cuda.stream_captures;
	/* The default stream waits for the others, also for one that captures. */
	return !handle && fake_cuda.stream_captures ? CAPTURE_IMPLICIT : 0;
}

void *fake_cuda_stream(void)
{
	return &stream;
}

void fake_cuda_kill(void)
{
	__atomic_store_n(&fake_cuda.dead, true, __ATOMIC_SEQ_CST);
}

int cuLaunchHostFunc(void *handle, void (*fn)(void *data), void *data)
{
	wait_while_held(&fake_cuda.hold_launch);
	if (is_dead())
		return ILLEGAL_ADDRESS;
	if (handle != &stream)
		return INVALID_VALUE;
	return put_op((struct op){ .fn = fn, .data = data });
}

int cuStreamWaitValue32_v2(void *handle, unsigned long long addr,
			   uint32_t value, unsigned int flags);
int cuStreamWaitValue32_v2(void *handle, unsigned long long addr,
			   uint32_t value, unsigned int flags)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (fake_cuda.no_wait_value)
		return NOT_SUPPORTED;
	if (!fake_cuda_has_context() || flags || (handle != &stream && value))
		return INVALID_VALUE;
	if (handle != &stream)
		return 0;
	return put_op((struct op){
		.word = (uint32_t *)(uintptr_t)addr,
		.value = value,
	});
}

int cuEventCreate(void **out, unsigned int flags)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!fake_cuda_has_context() || flags != 2)
		return INVALID_VALUE;
	*out = calloc(1, sizeof(struct event));
	__atomic_add_fetch(&fake_cuda.streams, 1, __ATOMIC_SEQ_CST);
	return 0;
}

int cuEventDestroy_v2(void *event)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	free(event);
	__atomic_sub_fetch(&fake_cuda.streams, 1, __ATOMIC_SEQ_CST);
	return 0;
}

int cuEventRecord(void *event, void *handle)
{
	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!fake_cuda_has_context() || !event || (!handle && !fake_cuda.has_default))
		return INVALID_VALUE;
	return is_program_stream(handle) ?
		       put_op((struct op){ .event = event }) : 0;
}

static bool is_pending(const struct event *event)
{
	bool pending;

	pthread_mutex_lock(&stream.lock);
	pending = event->pending;
	pthread_mutex_unlock(&stream.lock);
	return pending;
}

/* A copy is never done when it is asked about first. */
int cuEventQuery(void *event)
{
	static _Thread_local unsigned int calls;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!event)
		return INVALID_VALUE;
	if (atomic_load(&fake_cuda.strict)) {
		atomic_fetch_add(&fake_cuda.strict, 1);
		pthread_mutex_lock(&callbacks);
		pthread_mutex_unlock(&callbacks);
	}
	if (is_dead())
		return ILLEGAL_ADDRESS;
	return !is_pending(event) && calls++ & 1 ? 0 : NOT_READY;
}

int cuEventSynchronize(void *event)
{
	struct event *e = event;

	if (fake_cuda_breaks_capture())
		return CAPTURE_UNSUPPORTED;
	if (!event)
		return INVALID_VALUE;
	wait_while_held(&fake_cuda.hold_synchronize);
	pthread_mutex_lock(&stream.lock);
	while (e->pending)
		pthread_cond_wait(&stream.changed, &stream.lock);
	pthread_mutex_unlock(&stream.lock);
	return 0;
}
