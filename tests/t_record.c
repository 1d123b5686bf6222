// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "t_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "t_counters.h"

#define EXIT_SETUP	99
#define BAR_INDEX	2
/* As many as a GPU of 16 GiB has pages of 64 KiB. */
#define NR_SEGMENTS	(1u << 18)

static void die(const char *what)
{
	fprintf(stderr, "t_record: %s: %s\n", what, strerror(errno));
	exit(EXIT_SETUP);
}

static FILE *open_out(const char *out, const char *name)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", out, name);
	file = fopen(path, "w");
	if (!file)
		die(path);
	return file;
}

static void close_out(FILE *file)
{
	int err = ferror(file);

	if (fclose(file) || err)
		die("writing");
}

static void record_bar(struct t_record *record, const char *out)
{
	uint32_t device = record->query.out_device;
	uint64_t start, end;
	char path[128];
	FILE *file;
	int i;

	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%04x:%02x:%02x.%x/resource",
		 device >> 16, device >> 8 & 0xff, device >> 3 & 0x1f,
		 device & 7);
	file = fopen(path, "r");
	if (!file)
		die(path);
	for (i = 0; i <= BAR_INDEX; i++)
		if (fscanf(file, "%" SCNx64 " %" SCNx64 " %*x", &start,
			   &end) != 2)
			die(path);
	fclose(file);
	record->bar = start;
	file = open_out(out, "bar");
	fprintf(file, "%" PRIu64 " %" PRIu64 "\n", start, end - start + 1);
	close_out(file);
}

/**
 * t_record_open - begin the record of a buffer
 * @record: out
 * @out: the folder
 * @dev: /dev/peerdma
 * @buffer_fd: the dma-buf
 */
void t_record_open(struct t_record *record, const char *out, int dev,
		   int buffer_fd)
{
	struct peerdma_segment *segments = calloc(NR_SEGMENTS,
						  sizeof(*segments));

	record->query = (struct peerdma_query){
		.size = sizeof(record->query),
		.buffer_fd = buffer_fd,
		.nr_segments = NR_SEGMENTS,
		.segments = (uintptr_t)segments,
	};
	if (ioctl(dev, PEERDMA_QUERY, &record->query))
		die("QUERY");
	record_bar(record, out);
	record->memory = open_out(out, "memory");
}

/* One line for each physically contiguous part. */
static void record_part(struct t_record *record, const char *kind,
			uint64_t value, uint64_t buffer_offset, uint64_t len)
{
	const struct peerdma_segment *segment =
		(void *)(uintptr_t)record->query.segments;
	uint64_t offset = record->query.out_offset + buffer_offset;
	uint32_t i;

	for (i = 0; i < record->query.nr_segments && len; i++, segment++) {
		uint64_t skip = offset - segment->offset;
		uint64_t place = segment->addr + skip - record->bar;
		uint64_t part;

		/* Also when it starts before the segment: skip wraps. */
		if (skip >= segment->len)
			continue;
		part = segment->len - skip < len ? segment->len - skip : len;
		fprintf(record->memory,
			"%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", kind, value,
			place, part);
		offset += part;
		len -= part;
		if (*kind == 'd')
			value += part;
	}
	errno = ERANGE;
	if (len)
		die("segments");
}

/**
 * t_record_data - note that a part of the buffer holds a part of the file
 * @record: open
 * @file_offset: where the part begins in the file
 * @buffer_offset: and in the pinned range
 * @len: bytes
 */
void t_record_data(struct t_record *record, uint64_t file_offset,
		   uint64_t buffer_offset, uint64_t len)
{
	record_part(record, "data", file_offset, buffer_offset, len);
}

/**
 * t_record_fill - note that nobody may have changed a part of the buffer
 * @record: open
 * @byte: what it was filled with
 * @buffer_offset: where it begins in the pinned range
 * @len: bytes
 */
void t_record_fill(struct t_record *record, unsigned char byte,
		   uint64_t buffer_offset, uint64_t len)
{
	record_part(record, "fill", byte, buffer_offset, len);
}

/**
 * t_record_close - end the record
 * @record: open
 */
void t_record_close(struct t_record *record)
{
	close_out(record->memory);
	free((void *)(uintptr_t)record->query.segments);
}

/**
 * t_record_look - have the host compare while the memory is as it was recorded
 * @out: the record's folder
 *
 * Return: whether it has; what it has found is for the host to say.
 */
bool t_record_look(const char *out)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/look", out);
	fd = open(path, O_WRONLY | O_CREAT, 0644);
	close(fd);
	snprintf(path, sizeof(path), "%s/looked", out);
	return fd >= 0 && t_wait_long_for(!access(path, F_OK));
}
