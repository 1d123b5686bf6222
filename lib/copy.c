// SPDX-License-Identifier: MIT
/*
 * Bytes between host memory and a buffer: by the GPU's copy engine where CUDA
 * knows the memory, else by the CPU through a mapping of the dma-buf.
 */
#include <errno.h>
#include <linux/dma-buf.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

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
	peerdma_cuda_stream stream;
	int err, mode, result;

	err = peerdma_cuda_enter(cuda, buf->pointer.context, &mode);
	if (err)
		return err;
	result = stream_of(buf, &stream);
	if (!result && src)
		result = cuda->cuMemcpyHtoDAsync(buf->addr + offset, src, len,
						 stream);
	else if (!result)
		result = cuda->cuMemcpyDtoHAsync(dst, buf->addr + offset, len,
						 stream);
	if (!result)
		result = cuda->cuStreamSynchronize(stream);
	peerdma_cuda_leave(cuda, mode);
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

/* Return: bytes, from the start; less: with errno. */
static size_t copy_by_kernel(char *window, char *host, size_t len, bool out)
{
	size_t done = 0;
	ssize_t n = 0;

	errno = 0;
	while (done < len && n >= 0) {
		struct iovec near = { window + done, len - done };
		struct iovec far = { host + done, len - done };

		n = out ? process_vm_writev(getpid(), &near, 1, &far, 1, 0) :
			  process_vm_readv(getpid(), &near, 1, &far, 1, 0);
		if (n > 0)
			done += n;
		else if (!n)
			break;
	}
	return done;
}

/*
 * The memory may be taken back, or its device go, at any time: a memcpy() would
 * end in SIGBUS. For the kernel's own copy that is an error. The window is on the
 * side that it reads and writes as any system call does; the other side it looks
 * up by pages, which a window has none of.
 */
static int copy_window(char *window, char *host, size_t len, bool out)
{
	size_t done = copy_by_kernel(window, host, len, out);
	char byte;

	if (done == len)
		return 0;
	window += done;
	host += done;
	/* Which of the two is it that cannot be reached? */
	if (errno == EFAULT) {
		byte = *host;
		if (!copy_by_kernel(window, &byte, 1, out) && errno == EFAULT)
			return -ENODEV;
	}
	/* Host memory that has no pages either, or a filter of system calls. */
	if (out)
		memcpy(host, window, len - done);
	else
		memcpy(window, host, len - done);
	return 0;
}

static int copy_by_cpu(struct peerdma_buffer *buf, uint64_t offset, char *host,
		       size_t len, bool out)
{
	uint64_t way = out ? DMA_BUF_SYNC_READ : DMA_BUF_SYNC_WRITE;
	char *window;
	int err, end;

	err = window_of(buf, &window);
	if (err)
		return err;
	err = sync_window(buf, DMA_BUF_SYNC_START | way);
	if (err)
		return err;
	err = copy_window(window + offset, host, len, out);
	/* Write-combined stores reach the device before anything that follows. */
	atomic_thread_fence(memory_order_seq_cst);
	end = sync_window(buf, DMA_BUF_SYNC_END | way);
	return err ? err : end;
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
	return copy_by_cpu(buf, offset, (char *)(uintptr_t)src, len, false);
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
	return copy_by_cpu(buf, offset, dst, len, true);
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
