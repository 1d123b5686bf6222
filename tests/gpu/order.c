// SPDX-License-Identifier: MIT
/*
 * make test-gpu: reads and writes in the order of a CUDA stream, on a real GPU and
 * without the module. A stream is held by a host function; into it go, around each
 * transfer, what fills the memory before, copies it aside after, and spoils it then.
 * What was copied aside, and what was written, are compared.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include <peerdma.h>

#include "../t_tap.h"

#define LEN		((size_t)16 << 20)
#define MIB		((size_t)1 << 20)
#define ROUNDS		20
#define STREAM_LEGACY	((void *)1)
#define STREAM_PER_THREAD ((void *)2)
#define NON_BLOCKING	1
#define SPOILT		55

static struct {
	int (*cuInit)(unsigned int flags);
	int (*cuDeviceGet)(int *device, int ordinal);
	int (*cuDevicePrimaryCtxRetain)(void **out, int device);
	int (*cuCtxSetCurrent)(void *context);
	int (*cuMemAlloc)(unsigned long long *out, size_t len);
	int (*cuMemcpyDtoH)(void *dst, unsigned long long src, size_t len);
	int (*cuStreamCreate)(void **out, unsigned int flags);
	int (*cuStreamDestroy)(void *stream);
	int (*cuStreamSynchronize)(void *stream);
	int (*cuMemsetD8Async)(unsigned long long dst, unsigned char byte,
			       size_t len, void *stream);
	int (*cuMemcpyDtoDAsync)(unsigned long long dst, unsigned long long src,
				 size_t len, void *stream);
	int (*cuLaunchHostFunc)(void *stream, void (*fn)(void *arg), void *arg);
	int (*cuStreamBeginCapture)(void *stream, int mode);
	int (*cuStreamEndCapture)(void *stream, void **out_graph);
} cuda;

static const struct {
	const char *name;
	size_t offset;
} calls[] = {
#define CALL(field, symbol) { symbol, offsetof(typeof(cuda), field) }
	CALL(cuInit, "cuInit"),
	CALL(cuDeviceGet, "cuDeviceGet"),
	CALL(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain"),
	CALL(cuCtxSetCurrent, "cuCtxSetCurrent"),
	CALL(cuMemAlloc, "cuMemAlloc_v2"),
	CALL(cuMemcpyDtoH, "cuMemcpyDtoH_v2"),
	CALL(cuStreamCreate, "cuStreamCreate"),
	CALL(cuStreamDestroy, "cuStreamDestroy_v2"),
	CALL(cuStreamSynchronize, "cuStreamSynchronize"),
	CALL(cuMemsetD8Async, "cuMemsetD8Async"),
	CALL(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2"),
	CALL(cuLaunchHostFunc, "cuLaunchHostFunc"),
	CALL(cuStreamBeginCapture, "cuStreamBeginCapture_v2"),
	CALL(cuStreamEndCapture, "cuStreamEndCapture"),
#undef CALL
};

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static struct peerdma_queue *queue;
static unsigned long long memory;	/* of buf */
static unsigned long long aside;
static void *own, *blocking;		/* streams */
static int file, unbuffered, written;
static unsigned char content[LEN], back[LEN];
static atomic_bool held;

static int load(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW), *symbol;
	size_t i;

	for (i = 0; library && i < sizeof(calls) / sizeof(calls[0]); i++) {
		symbol = dlsym(library, calls[i].name);
		if (!symbol)
			return -ENOSYS;
		memcpy((char *)&cuda + calls[i].offset, &symbol,
		       sizeof(symbol));
	}
	return library ? 0 : -ENOENT;
}

static int make_file(const char *folder, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/peerdma-test-XXXXXX", folder);
	fd = mkstemp(path);
	if (fd < 0)
		return fd;
	if (flags && write(fd, content, LEN) == (ssize_t)LEN && !fsync(fd))
		unbuffered = open(path, flags);
	unlink(path);
	return fd;
}

static bool make_streams(void)
{
	void *context;
	int device;

	return !cuda.cuInit(0) && !cuda.cuDeviceGet(&device, 0) &&
	       !cuda.cuDevicePrimaryCtxRetain(&context, device) &&
	       !cuda.cuCtxSetCurrent(context) &&
	       !cuda.cuMemAlloc(&memory, LEN) &&
	       !cuda.cuMemAlloc(&aside, LEN) &&
	       !cuda.cuStreamCreate(&own, NON_BLOCKING) &&
	       !cuda.cuStreamCreate(&blocking, 0);
}

static void prepare(void)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	const char *folder = getenv("TMPDIR");
	uint32_t noise = 1;
	size_t i;

	for (i = 0; i < LEN; i++) {
		noise = noise * 1664525 + 1013904223;
		content[i] = noise >> 24;
	}
	t_need(!load(), "CUDA is there");
	t_need(make_streams(), "a GPU, memory and streams");
	file = make_file(folder ? folder : "/var/tmp", O_RDONLY | O_DIRECT);
	written = make_file(folder ? folder : "/var/tmp", 0);
	t_need(file >= 0 && written >= 0, "files");
	t_need(!peerdma_open(&ctx, NULL) &&
		       !peerdma_buffer_pin(ctx, memory, LEN, &opts, &buf) &&
		       !peerdma_queue_create(ctx, 16, NULL, &queue),
	       "a buffer and a queue");
}

static void wait_while_held(void *arg)
{
	(void)arg;
	while (atomic_load(&held))
		usleep(50);
}

static void hold(void *stream)
{
	atomic_store(&held, true);
	cuda.cuLaunchHostFunc(stream, wait_while_held, NULL);
}

static void *let_go_later(void *arg)
{
	usleep(3000);
	atomic_store(&held, false);
	return arg;
}

static void fill(void *stream, unsigned char byte)
{
	cuda.cuMemsetD8Async(memory, byte, LEN, stream);
}

static void spoil_copy(void *stream)
{
	cuda.cuMemcpyDtoDAsync(aside, memory, LEN, stream);
	fill(stream, SPOILT);
}

/* Return: is what was copied aside the file's bytes, and the rest @around? */
static bool is_read(size_t len, size_t from, unsigned char around)
{
	size_t i;

	if (cuda.cuMemcpyDtoH(back, aside, LEN) ||
	    memcmp(back, content + from, len))
		return false;
	for (i = len; i < LEN && back[i] == around; i++)
		;
	return i == LEN;
}

static bool is_written(size_t len, unsigned char byte)
{
	size_t i;

	if (pread(written, back, len, 0) != (ssize_t)len)
		return false;
	for (i = 0; i < len && back[i] == byte; i++)
		;
	return i == len;
}

/* One that a table may name before it is made. */
static const struct {
	const char *name;
	void **where;
	void *handle;
} streams[] = {
	{ "a stream", &own, NULL },
	{ "a blocking stream", &blocking, NULL },
	{ "the default stream", NULL, NULL },
	{ "its handle", NULL, STREAM_LEGACY },
	{ "the thread's default stream", NULL, STREAM_PER_THREAD },
};

static const struct {
	const char *name;
	size_t len;
	int *fd;
	uint32_t path;
} kinds[] = {
	{ "4 KiB", 4096, &file, 0 },
	{ "1000 bytes", 1000, &file, 0 },
	{ "63 KiB", 63 << 10, &file, 0 },
	{ "1 MiB", MIB, &file, 0 },
	{ "5 MiB staged", 5 * MIB, &file, PEERDMA_PATH_STAGED },
	{ "16 MiB with O_DIRECT", LEN, &unbuffered, 0 },
};

#define NR_STREAMS	(sizeof(streams) / sizeof(streams[0]))
#define NR_KINDS	(sizeof(kinds) / sizeof(kinds[0]))

static void *handle_of(size_t i)
{
	return streams[i].where ? *streams[i].where : streams[i].handle;
}

static bool submit(void *stream, size_t kind, size_t from, bool write)
{
	struct peerdma_io_request request = {
		.size = sizeof(request),
		.flags = PEERDMA_IO_STREAM | (write ? PEERDMA_IO_WRITE : 0),
		.stream = stream,
		.buf = buf,
		.fd = write ? written : *kinds[kind].fd,
		.len = kinds[kind].len,
		.file_offset = from,
		.path = kinds[kind].path,
	};

	return peerdma_queue_submit(queue, &request, 1, 0) == 1;
}

static bool queue_round(void *stream, size_t kind, size_t from,
			unsigned char byte)
{
	size_t len = kinds[kind].len;
	struct peerdma_completion done[2];

	hold(stream);
	fill(stream, byte);
	if (!submit(stream, kind, 0, true))
		return false;
	fill(stream, byte + 1);
	if (!submit(stream, kind, from, false))
		return false;
	spoil_copy(stream);
	if (peerdma_queue_reap(queue, done, 0, 2, NULL))
		return false;
	atomic_store(&held, false);
	if (peerdma_queue_reap(queue, done, 2, 2, NULL) != 2 ||
	    done[0].result != (int64_t)len || done[1].result != (int64_t)len ||
	    cuda.cuStreamSynchronize(stream))
		return false;
	return is_read(len, from, byte + 1) && is_written(len, byte);
}

static ssize_t call(void *stream, size_t kind, size_t from, bool write)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM,
		.stream = stream, .path = kinds[kind].path);
	size_t len = kinds[kind].len;

	if (write)
		return peerdma_write_opts(buf, written, len, from, 0, &opts,
					  NULL);
	return peerdma_read_opts(buf, *kinds[kind].fd, len, from, 0, &opts,
				 NULL);
}

static bool call_round(void *stream, size_t kind, size_t from,
		       unsigned char byte)
{
	ssize_t len = kinds[kind].len;
	pthread_t thread;
	bool ok;

	hold(stream);
	pthread_create(&thread, NULL, let_go_later, NULL);
	fill(stream, byte);
	ok = !(byte % 2) || call(stream, kind, 0, true) == len;
	fill(stream, byte + 1);
	ok = ok && call(stream, kind, from, false) == len;
	spoil_copy(stream);
	pthread_join(thread, NULL);
	if (cuda.cuStreamSynchronize(stream) || !ok)
		return false;
	return is_read(len, from, byte + 1) &&
	       (!(byte % 2) || is_written(len, byte));
}

static void every_kind(bool (*round)(void *stream, size_t kind, size_t from,
				     unsigned char byte), const char *who)
{
	size_t i, kind, r, from, right;

	for (i = 0; i < NR_STREAMS; i++) {
		for (kind = 0; kind < NR_KINDS; kind++) {
			for (right = r = 0; r < ROUNDS; r++) {
				from = (r * 7919 * 4096) %
				       (LEN - kinds[kind].len + 1);
				right += round(handle_of(i), kind, from, r);
			}
			t_is(right, ROUNDS, "%s, %s: %s, %zu rounds in order",
			     who, streams[i].name, kinds[kind].name, r);
		}
	}
}

static void by_the_queue(void)
{
	every_kind(queue_round, "the queue");
}

static void by_a_call(void)
{
	every_kind(call_round, "a call");
}

/* More than is kept at a time, behind a stream that stands still meanwhile. */
static void far_behind(void)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM);
	size_t i, at, failed;
	pthread_t thread;

	for (i = 0; i < NR_STREAMS; i++) {
		opts.stream = handle_of(i);
		hold(opts.stream);
		pthread_create(&thread, NULL, let_go_later, NULL);
		fill(opts.stream, 1);
		for (failed = at = 0; at < 4 * MIB; at += 4096)
			failed += peerdma_read_opts(buf, file, 4096, at, at,
						    &opts, NULL) != 4096;
		spoil_copy(opts.stream);
		pthread_join(thread, NULL);
		cuda.cuStreamSynchronize(opts.stream);
		t_is(failed, 0, "%s: 1024 reads", streams[i].name);
		t_ok(is_read(4 * MIB, 0, 1), "%s: ... all arrive",
		     streams[i].name);
	}
}

/* Nothing is recorded, and nothing ends the recording. */
static void while_captured(void)
{
	void *graph;

	t_is(cuda.cuStreamBeginCapture(own, 0), 0, "a recording begins");
	t_result(call(own, 0, 0, false), -EBUSY, "4 KiB in it");
	t_result(call(own, 3, 0, false), -EBUSY, "1 MiB in it");
	t_result(call(blocking, 0, 0, false), 4096, "in another stream");
	t_result(peerdma_read(buf, file, 4096, 0, 0), 4096, "in none");
	t_is(cuda.cuStreamEndCapture(own, &graph), 0, "it ends well");
	t_is(cuda.cuStreamBeginCapture(blocking, 0), 0,
	     "one begins for which the default stream waits");
	t_result(call(NULL, 0, 0, false), -EBUSY, "in the default stream");
	t_is(cuda.cuStreamEndCapture(blocking, &graph), 0, "it ends well");
}

static void closed_meanwhile(void)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM);
	pthread_t thread;

	fill(NULL, 1);
	cuda.cuStreamSynchronize(NULL);
	hold(own);
	t_result(call(own, 0, 0, false), 4096, "a read in a stream");
	pthread_create(&thread, NULL, let_go_later, NULL);
	t_is(cuda.cuStreamDestroy(own), 0, "the stream is destroyed");
	t_result(peerdma_read_opts(buf, file, 4096, 4096, 4096, &opts, NULL),
		 4096, "one in the default stream");
	peerdma_queue_destroy(queue);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	pthread_join(thread, NULL);
	usleep(10000);
	cuda.cuMemcpyDtoDAsync(aside, memory, LEN, NULL);
	t_ok(is_read(8192, 0, 1), "both arrive");
}

int main(int argc, char **argv)
{
	const struct t_case cases[] = {
		{ "prepare", prepare },
		{ "queue", by_the_queue },
		{ "call", by_a_call },
		{ "far behind", far_behind },
		{ "captured", while_captured },
		{ "closed", closed_meanwhile },
	};

	/* What hangs is red, too. */
	alarm(300);
	return T_RUN(cases, NULL);
}
