// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#define KERNEL_ENOTSUPP	524

static int take_opts(struct peerdma_buffer_opts *o,
		     const struct peerdma_buffer_opts *opts, uint32_t known)
{
	int err;

	err = peerdma_sized_in(o, sizeof(*o), opts);
	if (err)
		return err;
	if (o->flags & ~known || o->reserved)
		return -EOPNOTSUPP;
	return 0;
}

static int buffer_new(struct peerdma *ctx, uint64_t len, uint32_t flags,
		      struct peerdma_buffer **out)
{
	struct peerdma_buffer *buf = calloc(1, sizeof(*buf));

	if (!buf)
		return -ENOMEM;
	pthread_mutex_init(&buf->lock, NULL);
	buf->ctx = peerdma_context_get(ctx);
	buf->len = len;
	buf->read_only = flags & PEERDMA_F_READ_ONLY;
	buf->fd = -1;
	*out = buf;
	return 0;
}

/**
 * peerdma_buffer_skew() - how far into a page of its dma-buf a buffer begins
 * @buf: the buffer
 *
 * Return: bytes; a mapping begins so much earlier.
 */
size_t peerdma_buffer_skew(const struct peerdma_buffer *buf)
{
	return buf->fd_offset & (sysconf(_SC_PAGESIZE) - 1);
}

static void free_memory(struct peerdma *ctx, uint64_t addr)
{
	peerdma_cuda_context context;
	int mode;

	if (peerdma_context_cuda(ctx, &context))
		return;
	if (peerdma_cuda_enter(&ctx->cuda, context, &mode))
		return;
	ctx->cuda.cuMemFree(addr);
	peerdma_cuda_leave(&ctx->cuda, mode);
}

static void end_stream(struct peerdma_buffer *buf)
{
	const struct peerdma_cuda *cuda = &buf->ctx->cuda;
	int mode;

	/* The program may have ended its CUDA context, and it with that. */
	if (!buf->stream ||
	    peerdma_cuda_enter(cuda, buf->pointer.context, &mode))
		return;
	cuda->cuStreamDestroy(buf->stream);
	peerdma_cuda_leave(cuda, mode);
}

/**
 * peerdma_buffer_close() - end a buffer
 * @buf: the buffer, or NULL
 *
 * Its mappings by peerdma_buffer_map() stay until they are unmapped, and so does
 * the pin while somebody else holds or uses the dma-buf.
 */
void peerdma_buffer_close(struct peerdma_buffer *buf)
{
	struct peerdma *ctx;

	if (!buf)
		return;
	ctx = buf->ctx;
	end_stream(buf);
	if (buf->window)
		peerdma_buffer_unmap(buf, buf->window);
	peerdma_pages_put(buf);
	if (buf->fd >= 0)
		close(buf->fd);
	if (buf->owned)
		free_memory(ctx, buf->addr);
	pthread_mutex_destroy(&buf->lock);
	free(buf);
	peerdma_context_put(ctx);
}

static int reason_of_pin(const struct peerdma *ctx, int err)
{
	switch (err) {
	case -ENXIO:
	case -EACCES:
		return ctx->reason;
	case -ENOTTY:
	case -E2BIG:
	case -EOPNOTSUPP:
		return PEERDMA_REASON_NO_VERB;
	case -ENOENT:
		return PEERDMA_REASON_NO_PROVIDER;
	case -ENOBUFS:
		return PEERDMA_REASON_NO_APERTURE;
	default:
		return PEERDMA_REASON_NOT_PINNABLE;
	}
}

static int no_device(const struct peerdma *ctx)
{
	return ctx->reason == PEERDMA_REASON_NO_PERMISSION ? -EACCES : -ENXIO;
}

static int pin(struct peerdma_buffer *buf, const char *provider)
{
	struct peerdma *ctx = buf->ctx;
	struct peerdma_pin pin = {
		.size = sizeof(pin),
		.flags = buf->read_only ? PEERDMA_PIN_READ_ONLY : 0,
		.addr = buf->addr,
		.len = buf->len,
	};

	if (strlen(provider) >= sizeof(pin.provider))
		return -ENOENT;
	memcpy(pin.provider, provider, strlen(provider));
	if (ctx->device_fd < 0)
		return no_device(ctx);
	if (ioctl(ctx->device_fd, PEERDMA_PIN, &pin))
		return -errno;
	buf->fd = pin.out_fd;
	buf->fd_offset = pin.out_offset;
	return 0;
}

/*
 * CUDA's own dma-buf of the memory. Its mode is its exporter's: who wants memory
 * that nobody writes to has to have it pinned.
 */
static int export(struct peerdma_buffer *buf)
{
	int fd;

	if (!buf->cuda)
		return -EFAULT;
	if (buf->read_only)
		return -EOPNOTSUPP;
	fd = peerdma_cuda_export(&buf->ctx->cuda, buf->pointer.context,
				 buf->addr, buf->len);
	if (fd < 0)
		return fd;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	buf->fd = fd;
	return 0;
}

/*
 * A pin of the module's is the better dma-buf: any range, the CPU maps it, whoever
 * uses it is counted, it can be taken back, and no file operation has to attach it
 * anew. CUDA's is for a module that does not know NVIDIA's memory, or on demand.
 */
static int pin_or_export(struct peerdma_buffer *buf, const char *provider)
{
	int err;

	if (provider && !strcmp(provider, PEERDMA_PROVIDER_DMA_BUF))
		return export(buf);
	err = pin(buf, provider ? provider : "nvidia");
	if (err == -ENOENT && !provider && !export(buf))
		err = 0;
	return err;
}

/* Learn what CUDA knows of the address, so that its copies reach it too. */
static int meet_cuda(struct peerdma_buffer *buf)
{
	struct peerdma *ctx = buf->ctx;

	buf->cuda = peerdma_cuda_pointer(&ctx->cuda, buf->addr, &buf->pointer);
	if (!buf->cuda)
		return 0;
	peerdma_cuda_sync_memops(&ctx->cuda, buf->addr);
	if (buf->pointer.context)
		return 0;
	/* Of no context (VMM, pools), but on a GPU all the same. */
	return peerdma_context_cuda_of(ctx, buf->pointer.ordinal < 0 ?
						    ctx->gpu :
						    buf->pointer.ordinal,
				       &buf->pointer.context);
}

/**
 * peerdma_buffer_pin() - a buffer of device memory
 * @ctx: the context
 * @addr: where it starts: a CUDA device pointer
 * @len: bytes, any number above 0
 * @opts: NULL: NVIDIA's memory, to be read and written
 * @out_buf: the buffer
 *
 * With PEERDMA_F_STAGED_OK memory of CUDA that cannot be pinned makes a buffer
 * all the same; peerdma_buffer_info() says why it is not pinned.
 *
 * Return: 0; -EINVAL: no length; -EOVERFLOW; -EFAULT: not, or not wholly, memory
 * of that kind; -ENXIO: no kernel module; -EACCES: no permission to use it;
 * -ENOENT: no such provider; -ENOBUFS: no room left in the device's BAR; another
 * negative errno.
 */
int peerdma_buffer_pin(struct peerdma *ctx, uint64_t addr, uint64_t len,
		       const struct peerdma_buffer_opts *opts,
		       struct peerdma_buffer **out_buf)
{
	struct peerdma_buffer_opts o;
	struct peerdma_buffer *buf;
	int err;

	err = take_opts(&o, opts, PEERDMA_F_READ_ONLY | PEERDMA_F_STAGED_OK);
	if (err)
		return err;
	if (!len)
		return -EINVAL;
	if (addr + len < addr)
		return -EOVERFLOW;
	err = buffer_new(ctx, len, o.flags, &buf);
	if (err)
		return err;
	buf->addr = addr;
	err = meet_cuda(buf);
	if (err)
		goto close_buffer;
	err = pin_or_export(buf, o.provider);
	if (err && !(buf->cuda && o.flags & PEERDMA_F_STAGED_OK))
		goto close_buffer;
	/* Who would have pinned it has not looked. */
	if (err && !peerdma_cuda_range(&ctx->cuda, buf->pointer.context, addr,
				       len)) {
		err = -EFAULT;
		goto close_buffer;
	}
	/* What CUDA has exported needs the module for files all the same. */
	buf->reason = err ? reason_of_pin(ctx, err) : ctx->reason;
	*out_buf = buf;
	return 0;

close_buffer:
	peerdma_buffer_close(buf);
	return err;
}

/**
 * peerdma_buffer_alloc() - a buffer of new memory on the context's GPU
 * @ctx: the context
 * @len: bytes, any number above 0
 * @opts: as for peerdma_buffer_pin()
 * @out_buf: the buffer; its end frees the memory
 *
 * Return: 0; -ENODEV: the context has no GPU; -ENOMEM; another negative errno,
 * as peerdma_buffer_pin().
 */
int peerdma_buffer_alloc(struct peerdma *ctx, uint64_t len,
			 const struct peerdma_buffer_opts *opts,
			 struct peerdma_buffer **out_buf)
{
	peerdma_cuda_context context;
	unsigned long long addr;
	int err, mode;

	if (!len)
		return -EINVAL;
	err = peerdma_context_cuda(ctx, &context);
	if (err)
		return err;
	err = peerdma_cuda_enter(&ctx->cuda, context, &mode);
	if (err)
		return err;
	err = peerdma_cuda_errno(ctx->cuda.cuMemAlloc(&addr, len));
	peerdma_cuda_leave(&ctx->cuda, mode);
	if (err)
		return err;
	err = peerdma_buffer_pin(ctx, addr, len, opts, out_buf);
	if (err) {
		free_memory(ctx, addr);
		return err;
	}
	(*out_buf)->owned = true;
	return 0;
}

static int query(const struct peerdma_buffer *buf, struct peerdma_query *query)
{
	memset(query, 0, sizeof(*query));
	query->size = sizeof(*query);
	query->buffer_fd = buf->fd;
	if (buf->ctx->device_fd < 0)
		return no_device(buf->ctx);
	return ioctl(buf->ctx->device_fd, PEERDMA_QUERY, query) ? -errno : 0;
}

/* An exporter that the module does not know, or no module to ask. */
static int measure_foreign(struct peerdma_buffer *buf)
{
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_READ };
	off_t len;

	/* Every dma-buf knows this ioctl, and nothing else does. */
	if (ioctl(buf->fd, DMA_BUF_IOCTL_SYNC, &sync))
		return -EINVAL;
	sync.flags |= DMA_BUF_SYNC_END;
	ioctl(buf->fd, DMA_BUF_IOCTL_SYNC, &sync);
	len = lseek(buf->fd, 0, SEEK_END);
	if (len <= 0)
		return -EINVAL;
	buf->len = len;
	buf->reason = buf->ctx->reason ? buf->ctx->reason :
					 PEERDMA_REASON_FOREIGN_BUFFER;
	return 0;
}

/**
 * peerdma_buffer_import() - a buffer of any dma-buf
 * @ctx: the context
 * @fd: the dma-buf; it is duplicated and stays the caller's
 * @opts: NULL: to be read and written
 * @out_buf: the buffer
 *
 * Return: 0; -EBADF; -EINVAL: @fd is no dma-buf; another negative errno.
 */
int peerdma_buffer_import(struct peerdma *ctx, int fd,
			  const struct peerdma_buffer_opts *opts,
			  struct peerdma_buffer **out_buf)
{
	struct peerdma_buffer_opts o;
	struct peerdma_buffer *buf;
	struct peerdma_query q;
	int err;

	err = take_opts(&o, opts, PEERDMA_F_READ_ONLY);
	if (err)
		return err;
	err = buffer_new(ctx, 0, o.flags, &buf);
	if (err)
		return err;
	buf->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (buf->fd < 0) {
		err = -errno;
		goto close_buffer;
	}
	if (query(buf, &q)) {
		err = measure_foreign(buf);
		if (err)
			goto close_buffer;
	} else {
		buf->len = q.out_len;
		buf->fd_offset = q.out_offset;
		if (q.out_state & PEERDMA_BUFFER_READ_ONLY)
			buf->read_only = true;
	}
	*out_buf = buf;
	return 0;

close_buffer:
	peerdma_buffer_close(buf);
	return err;
}

/**
 * peerdma_buffer_host() - a buffer of the caller's own memory
 * @ctx: the context
 * @addr: where it starts
 * @len: bytes, any number above 0
 * @opts: NULL: to be read and written
 * @out_buf: the buffer; its end leaves the memory alone
 *
 * Return: 0; -EINVAL: no length; another negative errno.
 */
int peerdma_buffer_host(struct peerdma *ctx, void *addr, uint64_t len,
			const struct peerdma_buffer_opts *opts,
			struct peerdma_buffer **out_buf)
{
	struct peerdma_buffer_opts o;
	int err;

	err = take_opts(&o, opts, PEERDMA_F_READ_ONLY);
	if (err)
		return err;
	if (!addr || !len)
		return -EINVAL;
	err = buffer_new(ctx, len, o.flags, out_buf);
	if (err)
		return err;
	(*out_buf)->host = addr;
	(*out_buf)->reason = PEERDMA_REASON_HOST_MEMORY;
	return 0;
}

/**
 * peerdma_buffer_fd() - the dma-buf of a buffer
 * @buf: the buffer
 *
 * For any driver that takes a dma-buf, and to be sent to other processes. It
 * stays the buffer's: duplicate it to keep it.
 *
 * Return: a descriptor; -EOPNOTSUPP: the buffer is not pinned.
 */
int peerdma_buffer_fd(const struct peerdma_buffer *buf)
{
	return buf->fd >= 0 ? buf->fd : -EOPNOTSUPP;
}

static uint32_t state_of(uint32_t kernel)
{
	uint32_t state = PEERDMA_STATE_PINNED;

	if (kernel & PEERDMA_BUFFER_PERSISTENT)
		state |= PEERDMA_STATE_PERSISTENT;
	if (kernel & PEERDMA_BUFFER_REVOKED)
		state |= PEERDMA_STATE_REVOKED;
	return state;
}

/**
 * peerdma_buffer_info() - what a buffer is
 * @buf: the buffer
 * @info: where to
 *
 * Return: 0; -EINVAL: @info has no size.
 */
int peerdma_buffer_info(struct peerdma_buffer *buf,
			struct peerdma_buffer_info *info)
{
	PEERDMA_SIZED(peerdma_buffer_info, found,
		.len = buf->len,
		.device_addr = buf->addr,
		.host_addr = buf->host,
		.fd = buf->fd,
		.reason = buf->reason);
	struct peerdma_query q;
	uint32_t device;

	if (buf->fd >= 0 && !query(buf, &q)) {
		found.page_size = q.out_page_size;
		found.state = state_of(q.out_state);
		memcpy(found.provider, q.out_provider,
		       sizeof(found.provider) - 1);
		peerdma_pci_format(q.out_device, found.device);
	} else if (buf->cuda && buf->pointer.ordinal >= 0 &&
		   !peerdma_cuda_gpu_device(&buf->ctx->cuda,
					    buf->pointer.ordinal, &device)) {
		peerdma_pci_format(device, found.device);
	}
	if (buf->read_only)
		found.state |= PEERDMA_STATE_READ_ONLY;
	return peerdma_sized_out(info, &found, sizeof(found));
}

/**
 * peerdma_buffer_map() - let the CPU see a buffer
 * @buf: the buffer
 * @opts: NULL: as the buffer may be used; PEERDMA_F_READ_ONLY: to read only
 * @out_addr: the address of the buffer's first byte
 *
 * Device memory appears write-combined: written fast, in any order until a
 * fence, and read slowly. Where the memory was revoked, an access is a SIGBUS.
 *
 * Return: 0; -EOPNOTSUPP: the buffer is not pinned; another negative errno.
 */
int peerdma_buffer_map(struct peerdma_buffer *buf,
		       const struct peerdma_buffer_opts *opts, void **out_addr)
{
	size_t skew = peerdma_buffer_skew(buf);
	struct peerdma_buffer_opts o;
	int err, prot = PROT_READ;
	char *addr;

	err = take_opts(&o, opts, PEERDMA_F_READ_ONLY);
	if (err)
		return err;
	if (buf->host) {
		*out_addr = buf->host;
		return 0;
	}
	if (buf->fd < 0)
		return -EOPNOTSUPP;
	if (!buf->read_only && !(o.flags & PEERDMA_F_READ_ONLY))
		prot |= PROT_WRITE;
	addr = mmap(NULL, buf->len + skew, prot, MAP_SHARED, buf->fd,
		    buf->fd_offset - skew);
	/* NVIDIA's exporter answers what is not for user space. */
	if (addr == MAP_FAILED)
		return errno == KERNEL_ENOTSUPP ? -EOPNOTSUPP : -errno;
	*out_addr = addr + skew;
	return 0;
}

/**
 * peerdma_buffer_unmap() - end a mapping
 * @buf: the buffer
 * @addr: from peerdma_buffer_map()
 *
 * Return: 0 or a negative errno.
 */
int peerdma_buffer_unmap(struct peerdma_buffer *buf, void *addr)
{
	size_t skew = peerdma_buffer_skew(buf);

	if (buf->host)
		return addr == buf->host ? 0 : -EINVAL;
	if (munmap((char *)addr - skew, buf->len + skew))
		return -errno;
	return 0;
}

/**
 * peerdma_buffer_range() - is a range within a buffer?
 * @buf: the buffer
 * @offset: where the range starts
 * @len: its bytes
 *
 * Return: 0; -EOVERFLOW; -ERANGE.
 */
int peerdma_buffer_range(const struct peerdma_buffer *buf, uint64_t offset,
			 uint64_t len)
{
	if (offset + len < offset)
		return -EOVERFLOW;
	return offset + len <= buf->len ? 0 : -ERANGE;
}
