// SPDX-License-Identifier: MIT
/*
 * A caller's file, with and without the page cache.
 *
 * Whether I/O is unbuffered belongs to an open file description, which the
 * caller may share with others; so where the other kind is needed the file is
 * opened a second time (reopen.c), and the caller's flags stay as they are.
 *
 * Both kinds may serve one request: whole blocks go around the page cache, and
 * what is written of a partial block goes through it. The kernel keeps that
 * coherent as long as one follows the other, which they do here: before
 * unbuffered I/O it writes out and drops the cached pages of the range, after an
 * unbuffered write it drops them again, and a partial block that is written into
 * the cache afterwards is read from the drive first. What is on the drive after
 * a crash is a matter of fsync(2) for both kinds alike.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "internal.h"

/* Enough for every filesystem that does not ask for more. */
#define ALIGN_DEFAULT	4096

static int check_kind(struct peerdma_file *file)
{
	struct stat st;

	if (fstat(file->fd, &st))
		return -errno;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	file->end = UINT64_MAX;
	if (S_ISREG(st.st_mode) && !file->write) {
		file->end = st.st_size;
		file->sparse = st.st_blocks < st.st_size / 512;
	}
	file->block = S_ISBLK(st.st_mode);
	if (S_ISREG(st.st_mode) || file->block)
		return 0;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return -ESPIPE;
}

static uint32_t align_of(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) &&
	    stx.stx_mask & STATX_DIOALIGN &&
	    stx.stx_dio_offset_align > ALIGN_DEFAULT)
		return stx.stx_dio_offset_align;
#endif
	return ALIGN_DEFAULT;
}

/**
 * peerdma_file_open() - look at a caller's descriptor
 * @file: filled in
 * @fd: stays the caller's
 * @write: the file will be written, else read
 *
 * Return: 0; -EBADF: not open, or not for this; -EINVAL: open for appending,
 * where Linux lets no pwrite(2) choose its offset; -EISDIR; -ESPIPE.
 */
int peerdma_file_open(struct peerdma_file *file, int fd, bool write)
{
	int access, err;

	*file = (struct peerdma_file){
		.fd = fd,
		.flags = fcntl(fd, F_GETFL),
		.write = write,
		.direct_fd = -1,
		.cached_fd = -1,
	};
	if (file->flags < 0)
		return -errno;
	access = file->flags & O_ACCMODE;
	if (file->flags & O_PATH || access == (write ? O_RDONLY : O_WRONLY))
		return -EBADF;
	if (write && file->flags & O_APPEND)
		return -EINVAL;
	err = check_kind(file);
	if (err)
		return err;
	file->unbuffered = file->flags & O_DIRECT;
	if (file->unbuffered)
		file->direct_fd = fd;
	else
		file->cached_fd = fd;
	pthread_mutex_init(&file->lock, NULL);
	return 0;
}

/**
 * peerdma_file_close() - forget a caller's descriptor
 * @file: from peerdma_file_open()
 */
void peerdma_file_close(struct peerdma_file *file)
{
	if (file->direct_fd >= 0 && file->direct_fd != file->fd)
		peerdma_reopened_close(file, O_DIRECT, file->direct_fd);
	if (file->cached_fd >= 0 && file->cached_fd != file->fd)
		peerdma_reopened_close(file, 0, file->cached_fd);
	pthread_mutex_destroy(&file->lock);
}

/**
 * peerdma_file_direct() - the file without the page cache
 * @file: the file
 *
 * Return: a descriptor that is @file's; -EINVAL: the filesystem cannot do it;
 * another negative errno: it cannot be opened again.
 */
int peerdma_file_direct(struct peerdma_file *file)
{
	int fd;

	if (file->direct_fd >= 0)
		return file->direct_fd;
	fd = peerdma_reopen(file, O_DIRECT);
	if (fd < 0)
		return fd;
	file->direct_fd = fd;
	file->align = 0;
	return fd;
}

/**
 * peerdma_file_align() - what unbuffered offsets and lengths are multiples of
 * @file: the file; before several threads move it, one has asked
 *
 * It takes a system call, and whoever knows that the direct path is open does not
 * need it.
 *
 * Return: bytes, a power of two.
 */
uint32_t peerdma_file_align(struct peerdma_file *file)
{
	if (!file->align)
		file->align = file->direct_fd < 0 ? ALIGN_DEFAULT :
						    align_of(file->direct_fd);
	return file->align;
}

/**
 * peerdma_file_cached() - the file with the page cache
 * @file: the file, which several threads may be moving
 *
 * Return: a descriptor that is @file's; a negative errno: it cannot be opened
 * again.
 */
int peerdma_file_cached(struct peerdma_file *file)
{
	int fd;

	pthread_mutex_lock(&file->lock);
	if (file->cached_fd < 0) {
		fd = peerdma_reopen(file, 0);
		if (fd >= 0)
			file->cached_fd = fd;
	} else {
		fd = file->cached_fd;
	}
	pthread_mutex_unlock(&file->lock);
	return fd;
}

static int read_all(int fd, char *dst, size_t len, uint64_t offset,
		    uint32_t align, size_t *out_moved)
{
	size_t done = 0;
	ssize_t n;

	*out_moved = 0;
	while (done < len) {
		n = pread(fd, dst + done, len - done, offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += n;
		*out_moved = done;
		/* Unbuffered I/O stops within a block only where a file ends. */
		if (!n || done % align)
			break;
	}
	return 0;
}

static int write_all(int fd, const char *src, size_t len, uint64_t offset,
		     size_t *moved)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(fd, src + done, len - done, offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO;
		done += n;
		*moved += n;
	}
	return 0;
}

/**
 * peerdma_file_load() - from the file to host memory
 * @file: the file; its @unbuffered says which way
 * @dst: as much askew as @offset, with room for the blocks that the bytes lie in
 * @offset: within the file
 * @len: bytes
 * @out_moved: bytes that arrived, less than @len where the file ends
 *
 * Return: 0 or a negative errno.
 */
int peerdma_file_load(struct peerdma_file *file, char *dst, uint64_t offset,
		      size_t len, size_t *out_moved)
{
	size_t align = peerdma_file_align(file), skew = offset & (align - 1);
	size_t blocks = (skew + len + align - 1) & -align;
	int err, fd;

	*out_moved = 0;
	if (file->unbuffered) {
		err = read_all(file->direct_fd, dst - skew, blocks,
			       offset - skew, align, out_moved);
		*out_moved = *out_moved > skew ? *out_moved - skew : 0;
		if (*out_moved >= len) {
			*out_moved = len;
			return 0;
		}
		if (err != -EINVAL)
			return err;
	}
	fd = peerdma_file_cached(file);
	if (fd < 0)
		return fd;
	return read_all(fd, dst, len, offset, 1, out_moved);
}

/**
 * peerdma_file_peek() - from the page cache to host memory, if all is there
 * @file: the file, open without O_DIRECT
 * @dst: where to
 * @offset: within the file
 * @len: bytes
 * @out_moved: bytes that arrived, less than @len where the file ends
 *
 * Return: 0; -EAGAIN: not all of it is in the page cache, or nobody can tell.
 */
int peerdma_file_peek(struct peerdma_file *file, void *dst, uint64_t offset,
		      size_t len, size_t *out_moved)
{
	struct iovec vec = { .iov_base = dst, .iov_len = len };
	bool resident;
	ssize_t n;

	n = preadv2(file->cached_fd, &vec, 1, offset, RWF_NOWAIT);
	/* tmpfs does not know the flag, and has its pages in memory. */
	if (n < 0 && errno == EOPNOTSUPP &&
	    peerdma_residency_run(file, offset, len, &resident) == len &&
	    resident)
		n = pread(file->cached_fd, dst, len, offset);
	if (n < 0 || ((size_t)n < len && offset + n < file->end))
		return -EAGAIN;
	*out_moved = n;
	return 0;
}

static int store_blocks(struct peerdma_file *file, const char *src, size_t len,
			uint64_t offset, size_t *moved)
{
	size_t done = 0;
	int err, fd;

	err = write_all(file->direct_fd, src, len, offset, &done);
	*moved += done;
	if (err != -EINVAL)
		return err;
	/* A filesystem that wants another alignment, or whole extents. */
	fd = peerdma_file_cached(file);
	if (fd < 0)
		return -EINVAL;
	return write_all(fd, src + done, len - done, offset + done, moved);
}

static int store_cached(struct peerdma_file *file, const char *src, size_t len,
			uint64_t offset, size_t *moved)
{
	int fd;

	if (!len)
		return 0;
	fd = peerdma_file_cached(file);
	if (fd < 0)
		return fd;
	return write_all(fd, src, len, offset, moved);
}

/**
 * peerdma_file_store() - from host memory to the file
 * @file: the file; its @unbuffered says which way
 * @src: as much askew as @offset
 * @offset: within the file
 * @len: bytes; partial blocks go through the page cache
 * @out_moved: bytes that were written, from @offset on
 *
 * Return: 0 or a negative errno.
 */
int peerdma_file_store(struct peerdma_file *file, const char *src,
		       uint64_t offset, size_t len, size_t *out_moved)
{
	struct peerdma_split part;
	int err;

	*out_moved = 0;
	if (!file->unbuffered)
		return store_cached(file, src, len, offset, out_moved);
	part = peerdma_split_range(offset, len, peerdma_file_align(file));
	err = store_cached(file, src, part.head, offset, out_moved);
	if (err)
		return err;
	src += part.head;
	offset += part.head;
	err = store_blocks(file, src, part.middle, offset, out_moved);
	if (err)
		return err;
	src += part.middle;
	offset += part.middle;
	return store_cached(file, src, part.tail, offset, out_moved);
}
