// SPDX-License-Identifier: MIT
/*
 * The library's calls with option and result structs of every size and content,
 * on a kernel and a CUDA that are fakes (tests/lib). A struct lies in memory of
 * just its size, so that a sanitizer sees who reads or writes past it; what it
 * points to is good, as the caller has to see to. What is moved is compared with
 * a model.
 *
 * Input: which call, four bytes of its numbers, then the struct.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <peerdma.h>

#include "../../lib/fake_cuda.h"
#include "../../lib/fake_kernel.h"

#define LEN	((size_t)1 << 20)
#define HEAD	5
#define BUFFERS	8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct {
	struct peerdma *ctx;
	struct peerdma_buffer *buf;
	unsigned char *memory;	/* of the buffer */
	unsigned char *model;	/* what it must hold */
	unsigned char *content;	/* of the file */
	int fd;
	int nr_buffers;		/* made since it was opened */
} rig;

static void need(int ok)
{
	if (!ok)
		abort();
}

static void rig_open(void)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .device = FAKE_DEVICE);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	char path[] = "/var/tmp/peerdma-XXXXXX";
	size_t i;

	if (rig.ctx)
		return;
	fake_kernel_reset();
	fake_cuda = (struct fake_cuda){ .nr_gpus = 1, .ordering = 100,
		.has_default = true };
	need(!peerdma_open(&rig.ctx, &opts));
	need(!peerdma_buffer_alloc(rig.ctx, LEN, NULL, &rig.buf));
	need(!peerdma_buffer_info(rig.buf, &info));
	rig.memory = fake_cuda_memory(info.device_addr);
	rig.model = calloc(1, LEN);
	rig.content = malloc(LEN);
	need(rig.model && rig.content);
	memset(rig.memory, 0, LEN);
	for (i = 0; i < LEN; i++)
		rig.content[i] = i * 2654435761u >> 13;
	rig.fd = mkstemp(path);
	need(rig.fd >= 0 && !unlink(path));
	need(write(rig.fd, rig.content, LEN) == (ssize_t)LEN);
}

/* The fakes remember only so many buffers. */
static void rig_close(void)
{
	peerdma_buffer_close(rig.buf);
	peerdma_close(rig.ctx);
	close(rig.fd);
	free(rig.model);
	free(rig.content);
	need(!fake_cuda.allocations && !fake_cuda.host_allocations &&
	     !fake_cuda.contexts && !fake_cuda.registrations);
	memset(&rig, 0, sizeof(rig));
}

/* A number from two bytes: around the edges, and in between. */
static uint64_t number(const uint8_t *bytes)
{
	static const uint64_t edges[] = {
		0, 1, 511, 512, 4095, 4096, 4097, 65536, LEN / 2, LEN - 1, LEN,
		LEN + 1, INT64_MAX, -1ull, -4096ull, 1ull << 32,
	};

	if (bytes[0] < 64)
		return edges[bytes[0] % 16] + bytes[1] % 2;
	return (bytes[0] * 256u + bytes[1]) * 13u;
}

/*
 * A copy of the struct of just its size, which is what it says itself. @pointer
 * is put where it has one, and it has room for that.
 */
static void *sized(const uint8_t *bytes, size_t len, const void *pointer,
		   int nr_pointers)
{
	unsigned char *copy = malloc(len ? len : 1);
	int i;

	if (!copy)
		abort();
	memcpy(copy, bytes, len);
	if (len >= sizeof(len))
		memcpy(copy, &len, sizeof(len));
	for (i = 1; i <= nr_pointers; i++) {
		size_t at = i * sizeof(pointer);

		/* A part of a pointer is no pointer. */
		if (len > at)
			memset(copy + at, 0, len - at < sizeof(pointer) ?
			       len - at : sizeof(pointer));
		if (i == 1 && len >= at + sizeof(pointer))
			memcpy(copy + at, &pointer, sizeof(pointer));
	}
	return copy;
}

static void put(unsigned char *to, size_t len, size_t at, const void *value,
		size_t size)
{
	if (len <= at)
		return;
	/* A part of a pointer is no pointer. */
	if (len < at + size)
		memset(to + at, 0, len - at);
	else
		memcpy(to + at, value, size);
}

/* A transfer's options: the stream that they name is one. */
static void *io_opts(const uint8_t *head, const uint8_t *bytes, size_t len,
		     const void *progress)
{
	void *opts = sized(bytes, len, progress, 2);
	void *stream = head[0] & 0x20 ? fake_cuda_stream() : NULL;

	put(opts, len, offsetof(struct peerdma_io_opts, stream), &stream,
	    sizeof(stream));
	return opts;
}

static int go_on(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	need(done <= total);
	return done > LEN / 2;
}

/* A range that was to be read: the file's bytes as far as it says, then any. */
static void read_check(uint64_t at, uint64_t to, uint64_t wanted, int64_t ret)
{
	/* It may have been put into a stream. */
	need(!cuStreamSynchronize(NULL));
	if (ret > 0) {
		need((uint64_t)ret <= wanted);
		need(at + ret <= LEN && to + ret <= LEN);
		need(!memcmp(rig.memory + to, rig.content + at, ret));
	}
	/* What is refused for its range is not begun. */
	if (to <= LEN && wanted <= LEN - to)
		memcpy(rig.model + to, rig.memory + to, wanted);
}

/* And not a byte beside it. */
static void memory_check(void)
{
	need(!memcmp(rig.memory, rig.model, LEN));
}

/* What was written is there; then the file is as it was. */
static void file_check(uint64_t at, uint64_t from, ssize_t len)
{
	static unsigned char bytes[LEN];

	if (len > 0) {
		need(from + len <= LEN);
		need(pread(rig.fd, bytes, len, at) == len);
		need(!memcmp(bytes, rig.memory + from, len));
	}
	need(pwrite(rig.fd, rig.content, LEN, 0) == (ssize_t)LEN);
	need(!ftruncate(rig.fd, LEN));
}

/* Not shorter than what holds the size: less is no struct at all. */
static int is_struct(size_t len)
{
	return len >= sizeof(size_t);
}

static void call_io(const uint8_t *head, const uint8_t *bytes, size_t len,
		    int writes)
{
	union {
		int (*progress)(void *arg, uint64_t done, uint64_t total);
		const void *pointer;
	} callback = { .progress = head[0] & 0x80 ? go_on : NULL };
	void *opts = is_struct(len) ?
		io_opts(head, bytes, len, callback.pointer) : NULL;
	void *result = is_struct(len) ? sized(bytes, len, NULL, 0) : NULL;
	uint64_t at = number(head + 1), to = number(head + 3), bytes_wanted = LEN;
	ssize_t ret;

	if (head[0] & 0x40)
		bytes_wanted = (head[3] * 4096ull) ^ head[4];
	if (writes) {
		ret = peerdma_write_opts(rig.buf, rig.fd, bytes_wanted, at, to,
					 opts, result);
		file_check(at, to, ret);
	} else {
		ret = peerdma_read_opts(rig.buf, rig.fd, bytes_wanted, at, to,
					opts, result);
		read_check(at, to, bytes_wanted, ret);
	}
	memory_check();
	free(opts);
	free(result);
}

static void call_buffer(const uint8_t *head, const uint8_t *bytes, size_t len)
{
	static const char *const providers[] = {
		NULL, "nvidia", "", "a-name-that-is-too-long-for-the-kernel",
	};
	void *opts = is_struct(len) ?
		     sized(bytes, len, providers[head[0] >> 6], 1) : NULL;
	static unsigned char host[8192] __attribute__((aligned(4096)));
	struct peerdma_buffer *buf = NULL;
	void *addr;
	int ret;

	switch (head[0] / 8 % 4) {
	case 0:
		ret = peerdma_buffer_pin(rig.ctx, FAKE_ADDR, number(head + 1),
					 opts, &buf);
		break;
	case 1:
		ret = peerdma_buffer_alloc(rig.ctx, number(head + 1) % (4 * LEN),
					   opts, &buf);
		break;
	case 2:
		ret = peerdma_buffer_host(rig.ctx, host, number(head + 1) % 8192,
					  opts, &buf);
		break;
	default:
		ret = peerdma_buffer_map(rig.buf, opts, &addr);
		if (!ret)
			need(!peerdma_buffer_unmap(rig.buf, addr));
		free(opts);
		return;
	}
	need(!ret == !!buf);
	rig.nr_buffers++;
	if (!ret)
		peerdma_buffer_close(buf);
	free(opts);
}

static void call_context(const uint8_t *head, const uint8_t *bytes, size_t len)
{
	static const char *const paths[] = {
		FAKE_DEVICE, NULL, "", "/nonexistent",
	};
	void *arg = is_struct(len) ? sized(bytes, len, paths[head[0] >> 6], 0) :
				     NULL;
	struct peerdma *ctx = NULL;

	switch (head[0] / 8 % 8) {
	case 0:
		free(arg);
		arg = is_struct(len) ? sized(bytes, len, paths[head[0] >> 6], 1)
				     : NULL;
		if (!peerdma_open(&ctx, arg))
			peerdma_close(ctx);
		break;
	case 1:
		peerdma_context_info(rig.ctx, arg);
		break;
	case 2:
		peerdma_gpu_info(rig.ctx, head[1], arg);
		break;
	case 3:
		peerdma_context_stats(rig.ctx, arg);
		break;
	case 4:
		peerdma_buffer_info(rig.buf, arg);
		break;
	case 5:
		peerdma_check(rig.ctx, rig.fd, rig.buf, arg);
		break;
	default:
		peerdma_check_route(rig.ctx, head[1] & 1 ? "0000:01:00.0" :
				    "x", "0000:02:00.0", arg);
	}
	free(arg);
}

static void call_region(const uint8_t *head, const uint8_t *bytes, size_t len)
{
	void *opts = is_struct(len) ? sized(bytes, len, NULL, 0) : NULL;
	struct peerdma_region *region;

	if (!peerdma_region_open(rig.ctx, rig.fd, number(head + 1),
				 number(head + 3) % (2 * LEN), opts, &region))
		peerdma_region_close(region);
	free(opts);
}

#define VECS	3

static void draw_vecs(const uint8_t *head, struct peerdma_io_vec *vecs)
{
	int i;

	for (i = 0; i < VECS; i++)
		vecs[i] = (struct peerdma_io_vec){
			.file_offset = number(head + 1) + i * 8192,
			.buffer_offset = number(head + 3) + i * 8192,
			.len = head[2 + i] & 1 ? head[2 + i] * 16 : 8192,
			.result = 12345,
		};
}

/* Each has a result; where the whole request was wrong, none has been begun. */
static void vecs_check(const struct peerdma_io_vec *vecs, int nr, int writes,
		       int64_t ret)
{
	int64_t sum = 0;
	int i;

	for (i = 0; i < nr; i++) {
		need(vecs[i].result != 12345 || ret == -EINVAL);
		if (vecs[i].result == 12345)
			continue;
		if (vecs[i].result > 0)
			sum += vecs[i].result;
		if (!writes)
			read_check(vecs[i].file_offset, vecs[i].buffer_offset,
				   vecs[i].len, vecs[i].result);
	}
	need(ret == sum || (ret < 0 && !sum));
	memory_check();
	if (writes)
		file_check(0, 0, 0);
}

static void call_vecs(const uint8_t *head, const uint8_t *bytes, size_t len,
		      int writes)
{
	void *opts = is_struct(len) ? io_opts(head, bytes, len, NULL) : NULL;
	void *result = is_struct(len) ? sized(bytes, len, NULL, 0) : NULL;
	struct peerdma_io_vec vecs[VECS];
	int nr = head[0] >> 6;
	ssize_t ret;

	draw_vecs(head, vecs);
	if (writes)
		ret = peerdma_writev(rig.buf, rig.fd, vecs, nr, opts, result);
	else
		ret = peerdma_readv(rig.buf, rig.fd, vecs, nr, opts, result);
	vecs_check(vecs, nr, writes, ret);
	free(opts);
	free(result);
}

#define PUT(to, len, field, value) \
	put(to, len, offsetof(struct peerdma_io_request, field), &(value), \
	    sizeof(value))

static void completed(const struct peerdma_io_request *r,
		      const struct peerdma_completion *c)
{
	int writes = r->flags & PEERDMA_IO_WRITE;

	need(c->user_data == r->user_data);
	need(c->result >= 0 || c->result == c->error);
	if (r->nr_vecs) {
		vecs_check(r->vecs, r->nr_vecs, writes, c->result);
	} else if (writes) {
		file_check(r->file_offset, r->buffer_offset, c->result);
		memory_check();
	} else {
		read_check(r->file_offset, r->buffer_offset, r->len, c->result);
		memory_check();
	}
}

/* The struct as the queue has to understand it, when it takes it. */
static void submit(struct peerdma_queue *queue, const uint8_t *head,
		   const uint8_t *bytes, size_t len)
{
	struct peerdma_io_request known = { 0 };
	unsigned char *request = sized(bytes, len, NULL, 0);
	struct peerdma_io_vec vecs[VECS], *some = vecs;
	uint64_t at = number(head + 1), to = number(head + 3);
	uint32_t nr = head[0] >> 6;
	struct peerdma_completion done;
	void *none = NULL;

	draw_vecs(head, vecs);
	PUT(request, len, buf, rig.buf);
	PUT(request, len, fd, rig.fd);
	PUT(request, len, stream, none);
	PUT(request, len, nr_vecs, nr);
	if (nr) {
		at = to = 0;
		PUT(request, len, len, at);
	}
	PUT(request, len, vecs, some);
	PUT(request, len, file_offset, at);
	PUT(request, len, buffer_offset, to);
	memcpy(&known, request, len < sizeof(known) ? len : sizeof(known));
	if (peerdma_queue_submit(queue, (const void *)request, 1,
				 head[1] & PEERDMA_SUBMIT_WAIT) == 1) {
		need(peerdma_queue_reap(queue, &done, 1, 1, NULL) == 1);
		completed(&known, &done);
	}
	need(!peerdma_queue_reap(queue, &done, 0, 1, NULL));
	free(request);
}

/* @known: the queue is an ordinary one, and the struct is a request. */
static void call_queue(const uint8_t *head, const uint8_t *bytes, size_t len,
		       int known)
{
	void *opts = is_struct(len) ? sized(bytes, len, NULL, 0) : NULL;
	unsigned int depth = number(head + 1) & 0xffff;
	struct peerdma_queue *queue;

	if (known)
		depth = 1 + head[4] % 4;
	if (!peerdma_queue_create(rig.ctx, depth, known ? NULL : opts,
				  &queue)) {
		if (known && opts)
			submit(queue, head, bytes, len);
		else if (opts)
			need(!peerdma_queue_info(queue, opts));
		peerdma_queue_destroy(queue);
	}
	free(opts);
}

static void call_import(const uint8_t *head, const uint8_t *bytes, size_t len)
{
	void *opts = is_struct(len) ? sized(bytes, len, NULL, 1) : NULL;
	int foreign = fake_kernel_foreign(4096 + head[1]);
	const int fds[] = {
		foreign, rig.fd, -1, peerdma_buffer_fd(rig.buf),
	};
	struct peerdma_buffer *buf;

	rig.nr_buffers++;
	if (!peerdma_buffer_import(rig.ctx, fds[head[0] >> 6], opts, &buf))
		peerdma_buffer_close(buf);
	close(foreign);
	free(opts);
}

static void call_copy(const uint8_t *head)
{
	static unsigned char host[LEN];
	uint64_t at = number(head + 1), len = number(head + 3);
	int fits = at <= LEN && len <= LEN - at;

	if (head[0] & 0x80) {
		memset(host, head[2], sizeof(host));
		need(fits == !peerdma_buffer_copy_in(rig.buf, at, host, len));
		if (fits)
			memcpy(rig.model + at, host, len);
	} else {
		need(fits == !peerdma_buffer_copy_out(rig.buf, at, host, len));
		need(!fits || !memcmp(host, rig.model + at, len));
	}
	memory_check();
}

/* What came after the first eight. */
static void call_more(const uint8_t *head, const uint8_t *bytes, size_t len)
{
	switch (head[0] / 8 % 8) {
	case 1:
	case 2:
		call_queue(head, bytes, len, head[0] / 8 % 8 == 2);
		break;
	case 3:
	case 4:
		call_vecs(head, bytes, len, head[0] / 8 % 8 == 4);
		break;
	case 5:
		call_import(head, bytes, len);
		break;
	case 6:
		call_copy(head);
		break;
	default:
		call_region(head, bytes, len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < HEAD)
		return 0;
	rig_open();
	fake_kernel.resident = data[0] & 0x40;
	switch (data[0] % 8) {
	case 0:
	case 1:
		call_io(data, data + HEAD, len - HEAD, 0);
		break;
	case 2:
		call_io(data, data + HEAD, len - HEAD, 1);
		break;
	case 3:
	case 4:
		call_buffer(data, data + HEAD, len - HEAD);
		break;
	case 5:
	case 6:
		call_context(data, data + HEAD, len - HEAD);
		break;
	default:
		call_more(data, data + HEAD, len - HEAD);
	}
	if (rig.nr_buffers == BUFFERS)
		rig_close();
	return 0;
}
