/* SPDX-License-Identifier: MIT */
/*
 * Buffers, files and what moves between them.
 */
#ifndef T_TRANSFER_H
#define T_TRANSFER_H

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "t_tap.h"

#define T_READ	0
#define T_WRITE	PEERDMA_FILE_IO_WRITE

/**
 * struct t_buffer - GPU memory and its pin
 * @ptr: what was allocated
 * @len: bytes of it, all pinned
 * @fd: the dma-buf
 * @pin: what PIN answered
 */
struct t_buffer {
	uint64_t ptr;
	size_t len;
	int fd;
	struct peerdma_pin pin;
};

static inline void t_buffer_make(struct t_buffer *buffer, int dev, size_t len)
{
	buffer->len = len;
	buffer->ptr = t_gpu_alloc(len);
	buffer->fd = t_pin(dev, buffer->ptr, len, 0, &buffer->pin);
	if (buffer->fd < 0)
		t_need(false, "%zu bytes are pinned: %s", len,
		       t_errno_name(buffer->fd));
}

static inline void t_buffer_drop(struct t_buffer *buffer)
{
	close(buffer->fd);
	t_gpu_free(buffer->ptr);
}

/* FILE_IO with the reply in @arg; 0 or a negative errno. */
static inline int t_move(int dev, uint32_t flags, int buffer, int file,
			 struct peerdma_file_segment *segments, uint32_t nr,
			 struct peerdma_file_io *arg)
{
	*arg = (struct peerdma_file_io){
		.flags = flags,
		.buffer_fd = buffer,
		.file_fd = file,
		.segments = (uintptr_t)segments,
		.nr_segments = nr,
	};
	return t_file_io(dev, arg);
}

/* One segment; bytes or a negative errno. */
static inline long long t_move_one(int dev, uint32_t flags, int buffer,
				   int file, uint64_t file_offset,
				   uint64_t buffer_offset, uint64_t len)
{
	struct peerdma_file_segment segment = {
		file_offset, buffer_offset, len, -1234567
	};
	struct peerdma_file_io arg;
	int ret;

	ret = t_move(dev, flags, buffer, file, &segment, 1, &arg);
	if (ret)
		return ret;
	return segment.out_result == (long long)arg.out_bytes ?
	       segment.out_result : -EPROTO;
}

/* Bytes that depend on the seed and on where they are (xorshift64). */
static inline void t_fill(void *to, size_t len, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
	unsigned char *at = to;
	size_t i;

	for (i = 0; i < len; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(at + i, &x, len - i < sizeof(x) ? len - i : sizeof(x));
	}
}

static inline void *t_ram(size_t len)
{
	void *ram = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ram == MAP_FAILED)
		t_need(false, "%zu bytes of memory", len);
	return ram;
}

/* GPU memory in RAM, for a comparison; to be unmapped. */
static inline void *t_gpu_copy(uint64_t ptr, size_t len)
{
	void *ram = t_ram(len);

	t_gpu_read(ram, ptr, len);
	return ram;
}

#define t_gpu_same(ptr, want, len, ...) ({				\
	size_t t_gpu_len = (len);					\
	void *t_gpu_ram = t_gpu_copy(ptr, t_gpu_len);			\
	bool t_gpu_ok = t_same(t_gpu_ram, want, t_gpu_len, __VA_ARGS__);\
									\
	munmap(t_gpu_ram, t_gpu_len);					\
	t_gpu_ok;							\
})

static inline int t_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	return fd < 0 ? -errno : fd;
}

/* A file with these bytes, on the drive and not in the page cache. */
static inline int t_file_make(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || fsync(fd))
		t_need(false, "%s is written: %s", path, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		t_need(false, "%s is opened: %s", path, strerror(errno));
	return fd;
}

#endif /* T_TRANSFER_H */
