// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../../include/uapi/peerdma.h"
#include "fake_cuda.h"
#include "fake_kernel.h"

#define NR_MAX	64

/* Without CUDA there is no fake of it either. */
#pragma weak fake_cuda_find

struct fake_kernel fake_kernel;

/* Every dma-buf that was ever made; memory files are told by inode. */
static struct {
	ino_t inode;
	bool foreign;
	uint64_t offset;
	uint64_t len;
	uint32_t flags;
} bufs[NR_MAX];
static int nr_bufs;

static int provider_fd = -1;
static unsigned char *provider_memory;

int __real_ioctl(int fd, unsigned long request, void *arg);
ssize_t __real_pread64(int fd, void *dst, size_t len, off_t offset);
ssize_t __real_pwrite64(int fd, const void *src, size_t len, off_t offset);
ssize_t __real_preadv64v2(int fd, const struct iovec *vecs, int nr,
			  off_t offset, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *vecs, int nr,
			  off_t offset, int flags);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long request, void *arg);
ssize_t __wrap_pread64(int fd, void *dst, size_t len, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *src, size_t len, off_t offset);
int __wrap_open64(const char *path, int flags, ...);

void fake_kernel_reset(void)
{
	memset(&fake_kernel, 0, sizeof(fake_kernel));
	nr_bufs = 0;
}

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

static int answer(int err)
{
	if (!err)
		return 0;
	errno = err;
	return -1;
}

unsigned char *fake_kernel_memory(void)
{
	if (provider_fd >= 0)
		return provider_memory;
	provider_fd = memfd_create("provider", MFD_CLOEXEC);
	if (ftruncate(provider_fd, FAKE_LEN))
		abort();
	provider_memory = mmap(NULL, FAKE_LEN, PROT_READ | PROT_WRITE,
			       MAP_SHARED, provider_fd, 0);
	return provider_memory;
}

static int add_buf(int fd, bool foreign, uint64_t offset, uint64_t len,
		   uint32_t flags)
{
	if (nr_bufs == NR_MAX)
		abort();
	bufs[nr_bufs].inode = inode_of(fd);
	bufs[nr_bufs].foreign = foreign;
	bufs[nr_bufs].offset = offset;
	bufs[nr_bufs].len = len;
	bufs[nr_bufs].flags = flags;
	nr_bufs++;
	return fd;
}

int fake_kernel_foreign(size_t len)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);

	if (ftruncate(fd, len))
		abort();
	return add_buf(fd, true, 0, len, 0);
}

/* What is left open shows. */
int fake_kernel_count_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* The last one made of that memory. */
static int find_buf(int fd)
{
	ino_t inode = inode_of(fd);
	int i;

	for (i = nr_bufs - 1; i >= 0; i--)
		if (bufs[i].inode == inode)
			return i;
	return -1;
}

static int find_memory(const struct peerdma_pin *pin, int *fd, uint64_t *offset)
{
	if (fake_cuda_find &&
	    fake_cuda_find(pin->addr, pin->len, fd, offset))
		return 0;
	fake_kernel_memory();
	if (pin->addr < FAKE_ADDR || pin->len > FAKE_LEN ||
	    pin->addr - FAKE_ADDR > FAKE_LEN - pin->len)
		return EFAULT;
	*fd = provider_fd;
	*offset = pin->addr - FAKE_ADDR;
	return 0;
}

static int do_pin(struct peerdma_pin *pin)
{
	uint64_t offset;
	int fd, err;

	if (pin->size != sizeof(*pin) || !pin->len)
		return EINVAL;
	if (fake_kernel.pin_errno)
		return fake_kernel.pin_errno;
	if (strcmp(pin->provider, "nvidia"))
		return ENOENT;
	err = find_memory(pin, &fd, &offset);
	if (err)
		return err;
	fake_kernel.pin_flags = pin->flags;
	pin->out_fd = add_buf(fcntl(fd, F_DUPFD_CLOEXEC, 0), false, offset,
			      pin->len, pin->flags);
	pin->out_page_size = 65536;
	pin->out_offset = offset;
	return 0;
}

static int do_query(struct peerdma_query *query)
{
	int i = find_buf(query->buffer_fd);

	if (fake_kernel.query_errno)
		return fake_kernel.query_errno;
	if (i < 0)
		return EINVAL;
	if (bufs[i].foreign)
		return EOPNOTSUPP;
	strcpy(query->out_provider, "nvidia");
	query->out_offset = bufs[i].offset;
	query->out_len = bufs[i].len;
	query->out_page_size = 65536;
	query->out_state = PEERDMA_BUFFER_PERSISTENT;
	if (bufs[i].flags & PEERDMA_PIN_READ_ONLY)
		query->out_state |= PEERDMA_BUFFER_READ_ONLY;
	query->out_device = PEERDMA_DEVICE(0, 1, 2, 0);
	return 0;
}

static ssize_t move(const struct peerdma_file_io *io,
		    const struct peerdma_file_segment *s, uint64_t offset)
{
	ssize_t limit = fake_kernel.io_limit, n, len = s->len;
	void *bounce;

	if (limit && len > limit)
		len = (limit + FAKE_ALIGN - 1) / FAKE_ALIGN * FAKE_ALIGN;
	if (posix_memalign(&bounce, 4096, len))
		return -ENOMEM;
	if (io->flags & PEERDMA_FILE_IO_WRITE) {
		n = __real_pread64(io->buffer_fd, bounce, len, offset);
		n = __real_pwrite64(io->file_fd, bounce, n, s->file_offset);
	} else {
		n = __real_pread64(io->file_fd, bounce, len, s->file_offset);
		if (n > 0)
			n = __real_pwrite64(io->buffer_fd, bounce, n, offset);
	}
	n = n < 0 ? -errno : n;
	free(bounce);
	return limit && n > limit ? limit : n;
}

static int check_segment(const struct peerdma_file_segment *s, uint64_t start,
			 uint64_t len)
{
	if ((s->file_offset | s->len) % FAKE_ALIGN)
		return EINVAL;
	if ((start + s->buffer_offset) % FAKE_MEMORY_ALIGN)
		return EINVAL;
	if (s->buffer_offset > len || s->len > len - s->buffer_offset)
		return ERANGE;
	return 0;
}

static int io_failure(const struct peerdma_file_io *io)
{
	if (!io->nr_segments) {
		fake_kernel.nr_probes++;
		return fake_kernel.probe_errno;
	}
	__atomic_add_fetch(&fake_kernel.nr_file_io, 1, __ATOMIC_RELAXED);
	if (fake_kernel.interrupts > 0) {
		fake_kernel.interrupts--;
		return EINTR;
	}
	if (fake_kernel.io_errno && fake_kernel.io_skip-- <= 0)
		return fake_kernel.io_errno;
	return 0;
}

static int do_file_io(struct peerdma_file_io *io)
{
	struct peerdma_file_segment *s =
		(struct peerdma_file_segment *)(uintptr_t)io->segments;
	int i = find_buf(io->buffer_fd), err;

	io->out_device = PEERDMA_DEVICE(0, 3, 0, 0);
	io->out_align = FAKE_ALIGN;
	io->out_memory_align = fake_kernel.io_old ? 0 : FAKE_MEMORY_ALIGN;
	io->out_reason = fake_kernel.io_reason;
	if (i < 0)
		return EINVAL;
	if (bufs[i].foreign)
		return EOPNOTSUPP;
	if (!(fcntl(io->file_fd, F_GETFL) & O_DIRECT))
		return EBADFD;
	err = io_failure(io);
	if (err || !io->nr_segments)
		return err;
	err = check_segment(s, bufs[i].offset, bufs[i].len);
	if (err)
		return err;
	io->out_flags = fake_kernel.io_out_flags;
	s->out_result = move(io, s, bufs[i].offset + s->buffer_offset);
	return s->out_result < 0 ? -s->out_result : 0;
}

static int do_route(struct peerdma_route *route)
{
	route->out_reason = fake_kernel.route_reason;
	route->out_via = PEERDMA_DEVICE(0, 0, 1, 0);
	route->out_distance = 2;
	route->out_translated = 1;
	return fake_kernel.route_errno;
}

static int do_info(struct peerdma_info *info)
{
	strcpy(info->out_providers, "nvidia");
	info->out_verbs = 0x1f;
	info->out_max_segments = PEERDMA_FILE_IO_MAX_SEGMENTS;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	if (request == DMA_BUF_IOCTL_SYNC)
		return answer(find_buf(fd) < 0 ? ENOTTY : 0);
	if (fake_kernel.no_pagemap_scan && _IOC_TYPE(request) == 'f')
		return answer(ENOTTY);
	if (_IOC_TYPE(request) != PEERDMA_IOCTL_TYPE)
		return __real_ioctl(fd, request, arg);
	if (fake_kernel.absent)
		return answer(ENOTTY);
	switch (request) {
	case PEERDMA_INFO:
		return answer(do_info(arg));
	case PEERDMA_PIN:
		return answer(do_pin(arg));
	case PEERDMA_QUERY:
		return answer(do_query(arg));
	case PEERDMA_FILE_IO:
		return answer(do_file_io(arg));
	case PEERDMA_ROUTE:
		return answer(do_route(arg));
	default:
		return answer(ENOTTY);
	}
}

static int rw_failure(int fd, off_t offset)
{
	if (!fake_kernel.rw_errno || offset < fake_kernel.rw_offset)
		return 0;
	if (fake_kernel.rw_direct && !(fcntl(fd, F_GETFL) & O_DIRECT))
		return 0;
	return fake_kernel.rw_errno;
}

ssize_t __wrap_pread64(int fd, void *dst, size_t len, off_t offset)
{
	int err = rw_failure(fd, offset);

	return err ? answer(err) : __real_pread64(fd, dst, len, offset);
}

ssize_t __wrap_pwrite64(int fd, const void *src, size_t len, off_t offset)
{
	int err = rw_failure(fd, offset);

	return err ? answer(err) : __real_pwrite64(fd, src, len, offset);
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *vecs, int nr,
			  off_t offset, int flags)
{
	if (fake_kernel.no_cachestat)
		return answer(EOPNOTSUPP);
	if (!fake_kernel.resident)
		return answer(EAGAIN);
	return __real_preadv64v2(fd, vecs, nr, offset, flags);
}

/* Of a file that was just written the truth would not be much of a test. */
long __wrap_syscall(long number, ...)
{
	struct { uint64_t offset, len; } *range;
	uint64_t *state;
	va_list args;
	int fd;

	va_start(args, number);
	fd = va_arg(args, int);
	range = va_arg(args, void *);
	state = va_arg(args, uint64_t *);
	va_end(args);
	if (fake_kernel.no_cachestat)
		return answer(ENOSYS);
	if (fcntl(fd, F_GETFL) < 0)
		return answer(EBADF);
	state[0] = fake_kernel.resident ? (range->len + 4095) / 4096 + 1 : 0;
	return 0;
}

int __wrap_open64(const char *path, int flags, ...)
{
	const char *prefix = fake_kernel.open_path;
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	if (fake_kernel.open_errno && !strncmp(path, prefix, strlen(prefix)))
		return answer(fake_kernel.open_errno);
	return __real_open64(path, flags, mode);
}
