// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "internal.h"

/* Enough to be pinned and asked about. */
#define SAMPLE_LEN	65536

static int ask_route(struct peerdma *ctx, uint32_t from, uint32_t to,
		     struct peerdma_check_result *found)
{
	struct peerdma_route route = {
		.size = sizeof(route),
		.from_device = from,
		.to_device = to,
	};

	if (ctx->device_fd < 0) {
		found->reason = ctx->reason;
		return 0;
	}
	if (ioctl(ctx->device_fd, PEERDMA_ROUTE, &route)) {
		if (errno != ENOTTY)
			return -errno;
		found->reason = PEERDMA_REASON_NO_VERB;
		return 0;
	}
	found->reason = route.out_reason;
	found->translated = route.out_translated;
	found->distance = route.out_distance;
	peerdma_pci_format(route.out_via, found->via);
	return 0;
}

/**
 * peerdma_check_route() - may one PCI device reach another one's memory?
 * @ctx: the context
 * @from: PCI address of the device that would do the DMA
 * @to: PCI address of the device with the memory
 * @result: where to
 *
 * Return: 0; -EINVAL: no PCI address; -ENOENT: no such device; another negative
 * errno.
 */
int peerdma_check_route(struct peerdma *ctx, const char *from, const char *to,
			struct peerdma_check_result *result)
{
	PEERDMA_SIZED(peerdma_check_result, found);
	uint32_t from_device, to_device;
	int err;

	if (peerdma_pci_parse(from, &from_device) ||
	    peerdma_pci_parse(to, &to_device))
		return -EINVAL;
	err = ask_route(ctx, from_device, to_device, &found);
	if (err)
		return err;
	peerdma_pci_format(from_device, found.drive);
	peerdma_pci_format(to_device, found.device);
	found.path = found.reason ? PEERDMA_PATH_STAGED : PEERDMA_PATH_DIRECT;
	return peerdma_sized_out(result, &found, sizeof(found));
}

static uint32_t drive_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return PEERDMA_DEVICE_NONE;
	return peerdma_pci_of_disk(S_ISBLK(st.st_mode) ? st.st_rdev :
							 st.st_dev);
}

static void describe_way(struct peerdma_buffer *buf, int fd, uint32_t drive,
			 struct peerdma_check_result *found)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	PEERDMA_SIZED(peerdma_check_result, way);
	uint32_t device;

	if (drive == PEERDMA_DEVICE_NONE)
		drive = drive_of(fd);
	peerdma_pci_format(drive, found->drive);
	peerdma_buffer_info(buf, &info);
	memcpy(found->device, info.device, sizeof(found->device));
	if (drive == PEERDMA_DEVICE_NONE ||
	    peerdma_pci_parse(found->device, &device))
		return;
	if (ask_route(buf->ctx, drive, device, &way))
		return;
	found->translated = way.translated;
	found->distance = way.distance;
	memcpy(found->via, way.via, sizeof(found->via));
}

static uint64_t len_of(int fd)
{
	uint64_t len = 0;
	struct stat st;

	if (fstat(fd, &st))
		return 0;
	if (!S_ISBLK(st.st_mode))
		return st.st_size;
	return ioctl(fd, BLKGETSIZE64, &len) ? 0 : len;
}

/* What a read would find in the page cache, and whether it would look there. */
static void check_cache(const struct peerdma_buffer *buf,
			struct peerdma_file *file,
			struct peerdma_check_result *found)
{
	int fd = peerdma_file_cached(file);

	found->file_len = len_of(file->fd);
	if (fd >= 0)
		found->resident = peerdma_residency_count(fd, found->file_len);
	if (buf && buf->host)
		found->cache_reason = PEERDMA_REASON_HOST_MEMORY;
	else if (file->flags & O_DIRECT)
		found->cache_reason = PEERDMA_REASON_UNBUFFERED;
	else if (found->resident < found->file_len)
		found->cache_reason = PEERDMA_REASON_NOT_CACHED;
}

static int open_to_check(struct peerdma_file *file, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return peerdma_file_open(file, fd, flags >= 0 &&
				 (flags & O_ACCMODE) == O_WRONLY);
}

static int check_buffer(struct peerdma_buffer *buf, int fd,
			struct peerdma_check_result *found)
{
	struct peerdma_probe probe;
	struct peerdma_file file;
	int err;

	err = open_to_check(&file, fd);
	if (err)
		return err;
	check_cache(buf, &file, found);
	err = peerdma_direct_probe(buf, &file, &probe);
	peerdma_file_close(&file);
	if (err)
		return err;
	found->reason = probe.reason;
	found->path = probe.reason ? PEERDMA_PATH_STAGED : PEERDMA_PATH_DIRECT;
	if (!probe.reason) {
		found->align = probe.align;
		found->memory_align = probe.memory_align;
	}
	if (!buf->host)
		describe_way(buf, fd, probe.drive, found);
	return 0;
}

/* No GPU to ask about: say what is known all the same. */
static int check_alone(struct peerdma *ctx, int fd,
		       struct peerdma_check_result *found)
{
	struct peerdma_file file;
	int err;

	err = open_to_check(&file, fd);
	if (err)
		return err;
	check_cache(NULL, &file, found);
	peerdma_file_close(&file);
	found->path = PEERDMA_PATH_STAGED;
	found->reason = ctx->reason ? ctx->reason : ctx->cuda.reason;
	peerdma_pci_format(drive_of(fd), found->drive);
	return 0;
}

/**
 * peerdma_check() - which path a file would take, and why not a better one
 * @ctx: the context
 * @fd: the file, open for reading or writing
 * @buf: the buffer; NULL: memory of the context's GPU
 * @result: where to
 *
 * Return: 0; a negative errno as peerdma_read() and peerdma_buffer_alloc().
 */
int peerdma_check(struct peerdma *ctx, int fd, struct peerdma_buffer *buf,
		  struct peerdma_check_result *result)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_check_result, found);
	struct peerdma_buffer *sample = NULL;
	int err = 0;

	if (!buf && ctx->gpu != PEERDMA_GPU_NONE)
		err = peerdma_buffer_alloc(ctx, SAMPLE_LEN, &opts, &sample);
	if (err)
		return err;
	if (buf || sample)
		err = check_buffer(buf ? buf : sample, fd, &found);
	else
		err = check_alone(ctx, fd, &found);
	peerdma_buffer_close(sample);
	if (err)
		return err;
	return peerdma_sized_out(result, &found, sizeof(found));
}
