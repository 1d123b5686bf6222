// SPDX-License-Identifier: MIT
/*
 * Bytes between host memory and a buffer: by the GPU's copy engine where CUDA
 * knows the memory, else by the CPU through a mapping of the dma-buf.
 */
#include <errno.h>
#include <linux/dma-buf.h>
#include <string.h>
#include <sys/ioctl.h>

#include "internal.h"

#define STREAM_NON_BLOCKING	1

/*
 * A stream of our own: on the default one a copy would wait for every kernel
 * that the process has running.
 */
static int stream_of(struct peerdma_buffer *buf, peerdma_cuda_stream *out)
{
	int result = 0;

	pthread_mutex_lock(&buf->lock);
	if (!buf->stream)
		result = buf->ctx->cuda.cuStreamCreate(&buf->stream,
						       STREAM_NON_BLOCKING);
	*out = buf->stream;
	pthread_mutex_unlock(&buf->lock);
	return result;
}

static int copy_by_cuda(struct peerdma_buffer *buf, uint64_t offset,
			const void *src, void *dst, size_t len)
{
	const struct peerdma_cuda *cuda = &buf->ctx->cuda;
	peerdma_cuda_context context;
	peerdma_cuda_stream stream;
	int result;

	result = cuda->cuCtxPushCurrent(buf->pointer.context);
	if (result)
		return peerdma_cuda_errno(result);
	result = stream_of(buf, &stream);
	if (!result && src)
		result = cuda->cuMemcpyHtoDAsync(buf->addr + offset, src, len,
						 stream);
	else if (!result)
		result = cuda->cuMemcpyDtoHAsync(dst, buf->addr + offset, len,
						 stream);
	if (!result)
		result = cuda->cuStreamSynchronize(stream);
	cuda->cuCtxPopCurrent(&context);
	return peerdma_cuda_errno(result);
}

static int window_of(struct peerdma_buffer *buf, char **out)
{
	int err = 0;

	pthread_mutex_lock(&buf->lock);
	if (!buf->window)
		err = peerdma_buffer_map(buf, NULL, &buf->window);
	*out = buf->window;
	pthread_mutex_unlock(&buf->lock);
	return err;
}

static int sync_window(struct peerdma_buffer *buf, uint64_t flags)
{
	struct dma_buf_sync sync = { .flags = flags };
	int err;

	do {
		err = ioctl(buf->fd, DMA_BUF_IOCTL_SYNC, &sync) ? -errno : 0;
	} while (err == -EINTR || err == -EAGAIN);
	return err;
}

static int copy_by_cpu(struct peerdma_buffer *buf, uint64_t offset,
		       const void *src, void *dst, size_t len)
{
	uint64_t way = src ? DMA_BUF_SYNC_WRITE : DMA_BUF_SYNC_READ;
	char *window;
	int err;

	err = window_of(buf, &window);
	if (err)
		return err;
	err = sync_window(buf, DMA_BUF_SYNC_START | way);
	if (err)
		return err;
	if (src)
		memcpy(window + offset, src, len);
	else	/* NOLINTNEXTLINE(*.NonNullParamChecker): there is one of both */
		memcpy(dst, window + offset, len);
	/* Write-combined stores reach the device before anything that follows. */
	atomic_thread_fence(memory_order_seq_cst);
	return sync_window(buf, DMA_BUF_SYNC_END | way);
}

/**
 * peerdma_copy_in() - host memory to a buffer
 * @buf: the buffer
 * @offset: within it; the range was checked
 * @src: from here
 * @len: bytes
 *
 * Return: 0 or a negative errno.
 */
int peerdma_copy_in(struct peerdma_buffer *buf, uint64_t offset,
		    const void *src, size_t len)
{
	if (buf->host) {
		memcpy((char *)buf->host + offset, src, len);
		return 0;
	}
	if (buf->cuda)
		return copy_by_cuda(buf, offset, src, NULL, len);
	return copy_by_cpu(buf, offset, src, NULL, len);
}

/**
 * peerdma_copy_out() - a buffer to host memory
 * @buf: the buffer
 * @offset: within it; the range was checked
 * @dst: to here
 * @len: bytes
 *
 * Return: 0 or a negative errno.
 */
int peerdma_copy_out(struct peerdma_buffer *buf, uint64_t offset, void *dst,
		     size_t len)
{
	if (buf->host) {
		memcpy(dst, (char *)buf->host + offset, len);
		return 0;
	}
	if (buf->cuda)
		return copy_by_cuda(buf, offset, NULL, dst, len);
	return copy_by_cpu(buf, offset, NULL, dst, len);
}

/**
 * peerdma_buffer_copy_in() - store host memory in a buffer
 * @buf: the buffer
 * @offset: within it, in bytes
 * @src: from here
 * @len: bytes, any number
 *
 * Return: 0; -EACCES: the buffer is read-only; -ERANGE; -EOVERFLOW; another
 * negative errno.
 */
int peerdma_buffer_copy_in(struct peerdma_buffer *buf, uint64_t offset,
			   const void *src, size_t len)
{
	int err;

	if (buf->read_only)
		return -EACCES;
	err = peerdma_buffer_range(buf, offset, len);
	if (err || !len)
		return err;
	return peerdma_copy_in(buf, offset, src, len);
}

/**
 * peerdma_buffer_copy_out() - load host memory from a buffer
 * @buf: the buffer
 * @offset: within it, in bytes
 * @dst: to here
 * @len: bytes, any number
 *
 * Return: 0; -ERANGE; -EOVERFLOW; another negative errno.
 */
int peerdma_buffer_copy_out(struct peerdma_buffer *buf, uint64_t offset,
			    void *dst, size_t len)
{
	int err;

	err = peerdma_buffer_range(buf, offset, len);
	if (err || !len)
		return err;
	return peerdma_copy_out(buf, offset, dst, len);
}
