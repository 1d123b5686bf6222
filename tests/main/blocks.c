// SPDX-License-Identifier: MIT
/*
 * Where files are on their drive: a line "NAME START LENGTH" for each extent, in
 * bytes and in the files' order.
 *
 * usage: blocks NAME FILE [NAME FILE]...
 *
 * Whole blocks only: to cut a file's last one to an odd length the file system
 * reads and writes it once more, through RAM.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <linux/fiemap.h>
#include <linux/fs.h>

#define BLOCK		4096
#define NR_EXTENTS	4096

static void die(const char *what)
{
	fprintf(stderr, "blocks: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void print_extent(const char *name, const struct fiemap_extent *extent,
			 uint64_t end)
{
	uint64_t len = extent->fe_length;

	if (extent->fe_logical >= end)
		return;
	if (len > end - extent->fe_logical)
		len = end - extent->fe_logical;
	printf("%s %" PRIu64 " %" PRIu64 "\n", name,
	       (uint64_t)extent->fe_physical, len);
}

static void print_blocks(const char *name, const char *path)
{
	struct fiemap *map = calloc(1, sizeof(*map) +
				    NR_EXTENTS * sizeof(map->fm_extents[0]));
	int fd = open(path, O_RDONLY);
	struct stat stat;
	uint32_t i;

	if (fd < 0 || fstat(fd, &stat))
		die(path);
	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_flags = FIEMAP_FLAG_SYNC;
	map->fm_extent_count = NR_EXTENTS;
	if (ioctl(fd, FS_IOC_FIEMAP, map))
		die(path);
	for (i = 0; i < map->fm_mapped_extents; i++)
		print_extent(name, &map->fm_extents[i],
			     stat.st_size / BLOCK * BLOCK);
	errno = EFBIG;
	if (!i || !(map->fm_extents[i - 1].fe_flags & FIEMAP_EXTENT_LAST))
		die(path);
	free(map);
}

int main(int argc, char **argv)
{
	int i;

	if (argc < 3 || argc % 2 == 0) {
		fprintf(stderr, "usage: blocks NAME FILE [NAME FILE]...\n");
		return 2;
	}
	for (i = 1; i < argc; i += 2)
		print_blocks(argv[i], argv[i + 1]);
	return 0;
}
