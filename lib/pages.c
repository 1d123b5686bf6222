// SPDX-License-Identifier: MIT
/*
 * The direct path through drives that are made of others. The kernel tells no
 * module which disks a RAID's request will reach, so FILE_IO refuses; but memory
 * that has been lent as struct pages every drive of the machine is known to reach
 * (PEERDMA_PAGES), and with it an ordinary unbuffered pread(2) is the drives' own
 * DMA.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "internal.h"

/* Block devices stand on block devices; deeper than that nobody builds. */
#define LEVELS_MAX	8
#define LINE_LEN	32

static bool read_line(const char *dir, const char *name, char line[LINE_LEN])
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= PATH_MAX)
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, line, LINE_LEN - 1);
	close(fd);
	if (n < 0)
		return false;
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return true;
}

/*
 * Layers that hand requests on as they are. Others (parity, encryption, thin
 * volumes) have the CPU read the data, and from device memory it does so at some
 * ten megabytes a second.
 */
static bool layer_passes(const char *dir)
{
	static const char *const levels[] = {
		"linear", "raid0", "raid1", "raid10",
	};
	char line[LINE_LEN];
	size_t i;

	if (!read_line(dir, "md/level", line))
		/* LVM's, and with no other dm below it: linear or striped. */
		return read_line(dir, "dm/uuid", line) &&
		       !strncmp(line, "LVM-", 4);
	for (i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (!strcmp(line, levels[i]))
			return true;
	return false;
}

static bool device_passes(const char *path, bool below_dm, int level);

/* All devices that the one of sysfs' folder @dir is made of. */
static bool slaves_pass(const char *dir, bool is_dm, int level)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool pass = true;
	DIR *slaves;

	if (snprintf(path, sizeof(path), "%s/slaves", dir) >= PATH_MAX)
		return false;
	slaves = opendir(path);
	if (!slaves)
		return false;
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of this call's own */
	while (pass && (entry = readdir(slaves))) {
		if (entry->d_name[0] == '.')
			continue;
		pass = snprintf(path, sizeof(path), "%s/slaves/%s", dir,
				entry->d_name) < PATH_MAX &&
		       device_passes(path, is_dm, level + 1);
	}
	closedir(slaves);
	return pass;
}

static bool device_passes(const char *path, bool below_dm, int level)
{
	char dir[PATH_MAX], line[LINE_LEN];
	bool is_dm;

	if (level > LEVELS_MAX || !realpath(path, dir))
		return false;
	if (read_line(dir, "partition", line))
		*strrchr(dir, '/') = '\0';
	if (!strstr(dir, "/virtual/"))
		return level > 0;
	is_dm = read_line(dir, "dm/uuid", line);
	if (is_dm && below_dm)
		return false;
	return layer_passes(dir) && slaves_pass(dir, is_dm, level);
}

/**
 * peerdma_pages_suit() - is a file on drives that take memory as struct pages?
 * @file: the file, which FILE_IO refuses with PEERDMA_REASON_STACKED
 *
 * Return: true for one on a device that is made of real drives by layers that
 * hand requests on as they are.
 */
bool peerdma_pages_suit(const struct peerdma_file *file)
{
	char path[64];
	struct stat st;
	dev_t disk;

	if (fstat(file->fd, &st))
		return false;
	disk = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(disk),
		 minor(disk));
	return device_passes(path, false, 0);
}

static int lend(struct peerdma_buffer *buf, int *out_reason)
{
	struct peerdma_page_map map = {
		.size = sizeof(map),
		.buffer_fd = buf->fd,
	};
	size_t skew = peerdma_buffer_skew(buf);
	int prot = buf->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	char *at;

	if (ioctl(buf->ctx->device_fd, PEERDMA_PAGES, &map)) {
		*out_reason = errno == EREMOTEIO ? (int)map.out_reason :
						   PEERDMA_REASON_STACKED;
		switch (errno) {
		case EREMOTEIO:
		case ENOTTY:
		case E2BIG:
		/* Another driver's dma-buf. */
		case EINVAL:
			return 0;
		default:
			return -errno;
		}
	}
	at = mmap(NULL, skew + buf->len, prot, MAP_SHARED, map.out_fd,
		  buf->fd_offset - skew);
	close(map.out_fd);
	if (at == MAP_FAILED)
		return -errno;
	buf->pages = at + skew;
	return 0;
}

/**
 * peerdma_pages_get() - a buffer's memory as struct pages
 * @buf: the buffer, pinned; they stay lent until it is closed
 * @out_reason: 0: @buf->pages is where they are; else why there are none
 *
 * Return: 0 or a negative errno.
 */
int peerdma_pages_get(struct peerdma_buffer *buf, int *out_reason)
{
	int err = 0;

	*out_reason = 0;
	pthread_mutex_lock(&buf->lock);
	if (!buf->pages)
		err = lend(buf, out_reason);
	pthread_mutex_unlock(&buf->lock);
	return err;
}

/**
 * peerdma_pages_put() - give back what peerdma_pages_get() lent
 * @buf: the buffer, which is being closed
 */
void peerdma_pages_put(struct peerdma_buffer *buf)
{
	size_t skew = peerdma_buffer_skew(buf);

	if (buf->pages)
		munmap(buf->pages - skew, skew + buf->len);
}
