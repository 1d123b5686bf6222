// SPDX-License-Identifier: MIT
/*
 * The direct path: the drive's DMA into or out of the buffer itself. For device
 * memory that is FILE_IO of /dev/peerdma, or where that knows no way an unbuffered
 * read into its struct pages (pages.c); for host memory it is what O_DIRECT has
 * always been.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "internal.h"

/* Long enough that the drive does not notice the gap between two requests. */
#define STEP_LEN	((uint64_t)64 << 20)
/* More is worth a look at the file each time. */
#define AGAIN_LEN	((uint64_t)1 << 20)
/* Where somebody watches: from here on, as fast as the drive turns out to be. */
#define STEP_FIRST	((uint64_t)4 << 20)
#define STEP_MIN	((uint64_t)1 << 20)

/**
 * peerdma_split_range() - part a range into whole blocks and the rest
 * @offset: where the range starts
 * @len: its bytes
 * @align: bytes of a block, a power of two
 *
 * Return: the bytes before, of and after the whole blocks; all of it is @head
 * when there is none.
 */
struct peerdma_split peerdma_split_range(uint64_t offset, uint64_t len,
					 uint32_t align)
{
	struct peerdma_split split = { .head = -offset & (align - 1) };

	if (split.head > len)
		split.head = len;
	split.middle = (len - split.head) & ~(uint64_t)(align - 1);
	if (!split.middle)
		split.head = len;
	split.tail = len - split.head - split.middle;
	return split;
}

static int file_io(struct peerdma_buffer *buf, struct peerdma_file *file,
		   struct peerdma_file_io *io)
{
	io->size = sizeof(*io);
	io->flags = file->write ? PEERDMA_FILE_IO_WRITE : 0;
	io->buffer_fd = buf->fd;
	io->file_fd = file->direct_fd;
	return ioctl(buf->ctx->device_fd, PEERDMA_FILE_IO, io) ? -errno : 0;
}

/* 0: @err is no word about the way, but a failure. */
static int reason_of_refusal(int err, const struct peerdma_file_io *io)
{
	switch (err) {
	case -EMEDIUMTYPE:
	case -EREMOTEIO:
		return io->out_reason;
	case -ENOTTY:
		return PEERDMA_REASON_NO_VERB;
	case -EOPNOTSUPP:
		return PEERDMA_REASON_FOREIGN_BUFFER;
	case -EINVAL:
		return PEERDMA_REASON_MISALIGNED;
	default:
		return 0;
	}
}

static int reason_of_reopen(int err)
{
	switch (err) {
	case -EINVAL:
		return PEERDMA_REASON_NO_DIRECT_IO;
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
	case -EINTR:
		return 0;
	default:
		return PEERDMA_REASON_NO_REOPEN;
	}
}

/* The least that a page of the CPU has. */
#define PAGE_LEN	4096
/* The memory's alignment that every drive is content with. */
#define PAGES_ALIGN	512

/* FILE_IO refuses the drive; an ordinary read(2) into struct pages may not. */
static int probe_pages(struct peerdma_buffer *buf, struct peerdma_file *file,
		       struct peerdma_probe *probe)
{
	int err;

	if (probe->reason != PEERDMA_REASON_STACKED ||
	    !peerdma_pages_suit(file))
		return 0;
	err = peerdma_pages_get(buf, &probe->reason);
	if (err || probe->reason)
		return err;
	probe->by_pages = true;
	probe->align = peerdma_file_align(file);
	probe->memory_align = PAGES_ALIGN;
	return 0;
}

static int probe_device(struct peerdma_buffer *buf, struct peerdma_file *file,
			struct peerdma_probe *probe)
{
	struct peerdma_file_io io = { .nr_segments = 0 };
	int err;

	err = file_io(buf, file, &io);
	probe->drive = io.out_device ? io.out_device : PEERDMA_DEVICE_NONE;
	if (!err) {
		probe->align = io.out_align;
		/* A module that does not say so finds out when it is tried. */
		probe->memory_align = io.out_memory_align ?
					      io.out_memory_align : 1;
		return 0;
	}
	probe->reason = reason_of_refusal(err, &io);
	return probe->reason ? probe_pages(buf, file, probe) : err;
}

static void remember(struct peerdma_buffer *buf,
		     const struct peerdma_file *file,
		     const struct peerdma_probe *probe)
{
	pthread_mutex_lock(&buf->lock);
	buf->known = *probe;
	buf->dev = file->dev;
	buf->ino = file->ino;
	pthread_mutex_unlock(&buf->lock);
}

/**
 * peerdma_direct_probe() - may this file go straight to or from this buffer?
 * @buf: the buffer
 * @file: the file
 * @probe: the answer; its @reason is 0 for yes
 *
 * Return: 0 or a negative errno.
 */
int peerdma_direct_probe(struct peerdma_buffer *buf, struct peerdma_file *file,
			 struct peerdma_probe *probe)
{
	int err, fd;

	*probe = (struct peerdma_probe){
		.memory_align = 1,
		.drive = PEERDMA_DEVICE_NONE,
	};
	if (buf->host) {
		probe->align = peerdma_file_align(file);
		if (!(file->flags & O_DIRECT))
			probe->reason = PEERDMA_REASON_HOST_MEMORY;
		return 0;
	}
	if (buf->fd < 0 || buf->ctx->device_fd < 0) {
		probe->reason = buf->reason;
		return 0;
	}
	fd = peerdma_file_direct(file);
	if (fd < 0) {
		probe->reason = reason_of_reopen(fd);
		return probe->reason ? 0 : fd;
	}
	err = probe_device(buf, file, probe);
	if (!err && !probe->reason)
		remember(buf, file, probe);
	return err;
}

/**
 * peerdma_direct_known() - the answer of an earlier peerdma_direct_probe()
 * @buf: the buffer
 * @file: the file
 * @probe: the answer
 *
 * Who reads a file in small pieces asks the kernel once. An answer that is no
 * longer true, or of another file that got the number, does no harm: FILE_IO
 * decides each time anew, and what it refuses is staged.
 *
 * Return: true when the answer is yes; else it is to be asked for.
 */
bool peerdma_direct_known(struct peerdma_buffer *buf, struct peerdma_file *file,
			  struct peerdma_probe *probe)
{
	bool known;

	pthread_mutex_lock(&buf->lock);
	known = buf->known.align && buf->dev == file->dev &&
		buf->ino == file->ino;
	if (known)
		*probe = buf->known;
	pthread_mutex_unlock(&buf->lock);
	return known && peerdma_file_direct(file) >= 0;
}

/**
 * peerdma_direct_may() - may anything of a buffer be moved by FILE_IO?
 * @buf: the buffer
 *
 * Return: true: it depends on the file.
 */
bool peerdma_direct_may(const struct peerdma_buffer *buf)
{
	return !buf->host && buf->fd >= 0 && buf->ctx->device_fd >= 0;
}

/**
 * peerdma_direct_first() - is a small read better not tried in the page cache?
 * @buf: the buffer
 * @file: the file, open without O_DIRECT
 * @offset: within the file
 * @len: bytes, at most PEERDMA_SMALL_LEN
 *
 * A read with RWF_NOWAIT of what is not there makes the kernel read it ahead:
 * then it is there, and nothing ever goes directly.
 *
 * Return: true: the page cache does not hold it, and the drive may reach @buf.
 */
bool peerdma_direct_first(const struct peerdma_buffer *buf,
			  struct peerdma_file *file, uint64_t offset,
			  uint64_t len)
{
	bool resident;

	if (!peerdma_direct_may(buf) || offset >= file->end)
		return false;
	peerdma_residency_run(file, offset, len, &resident);
	return !resident;
}

/* What the next request is, and what became of it. */
struct step {
	uint64_t file_offset;
	uint64_t buffer_offset;
	uint64_t len;
	uint64_t moved;
	bool copied;		/* the filesystem used its page cache */
	int reason;		/* refused: why */
};

/* @addr: where byte 0 of the buffer is in this process */
static int step_mapped(struct peerdma_transfer *t, struct step *step,
		       char *addr)
{
	int fd = t->file.direct_fd;
	ssize_t n;

	addr += step->buffer_offset;
	if (t->file.write)
		n = pwrite(fd, addr, step->len, step->file_offset);
	else
		n = pread(fd, addr, step->len, step->file_offset);
	if (n >= 0) {
		step->moved = n;
		return 0;
	}
	if (errno == EINVAL)
		step->reason = PEERDMA_REASON_MISALIGNED;
	return -errno;
}

/*
 * A block device takes a request of up to 256 pages as one bio, and one bio's pages
 * are of one of the kernel's page maps. What is left of a read(2) or write(2) goes
 * through the page cache then, and nobody is told (block/fops.c, since 6.2); what is
 * asynchronous ends short instead, and the rest is the next step.
 */
static int step_block(struct peerdma_transfer *t, struct step *step)
{
	const struct peerdma_drive_io io = {
		.addr = t->buf->pages + step->buffer_offset,
		.len = step->len,
		.fd = t->file.direct_fd,
		.offset = step->file_offset,
		.write = t->file.write,
	};
	int32_t result;

	if (!peerdma_drive_one(t->buf->ctx, &io, &result)) {
		step->copied = true;
		return step_mapped(t, step, t->buf->pages);
	}
	if (result >= 0)
		step->moved = result;
	if (result == -EINVAL)
		step->reason = PEERDMA_REASON_MISALIGNED;
	return result < 0 ? result : 0;
}

static bool is_one_page(const struct peerdma_transfer *t,
			const struct step *step)
{
	uintptr_t at = (uintptr_t)t->buf->pages + step->buffer_offset;

	return at % PAGE_LEN + step->len <= PAGE_LEN;
}

static int step_pages(struct peerdma_transfer *t, struct step *step)
{
	bool whole = !t->file.block || is_one_page(t, step);
	int err = whole ? step_mapped(t, step, t->buf->pages) :
			  step_block(t, step);

	/* The range is the buffer's, so the buffer was revoked. */
	return err == -EFAULT ? -ENODEV : err;
}

static int step_device(struct peerdma_transfer *t, struct step *step)
{
	struct peerdma_file_segment segment = {
		.file_offset = step->file_offset,
		.buffer_offset = step->buffer_offset,
		.len = step->len,
	};
	struct peerdma_file_io io = {
		.segments = (uintptr_t)&segment,
		.nr_segments = 1,
		.depth = t->opts.depth,
	};
	int err;

	err = file_io(t->buf, &t->file, &io);
	step->moved = segment.out_result > 0 ? segment.out_result : 0;
	step->copied = io.out_flags & PEERDMA_FILE_IO_OUT_BUFFERED;
	/* Bytes that were moved count, and the error comes again. */
	if (!err || step->moved)
		return 0;
	step->reason = reason_of_refusal(err, &io);
	return err;
}

static int take_step(struct peerdma_transfer *t, struct step *step)
{
	if (t->buf->host)
		return step_mapped(t, step, t->buf->host);
	if (t->probe.by_pages)
		return step_pages(t, step);
	return step_device(t, step);
}

static int advance(struct peerdma_transfer *t, const struct step *step)
{
	if (!step->copied)
		return peerdma_transfer_advance(t, step->moved,
						&t->result.bytes_direct);
	/* Which of these bytes the CPU copied is not known: claim none. */
	peerdma_transfer_blame(t, PEERDMA_REASON_FILESYSTEM_COPIED);
	return peerdma_transfer_advance(t, step->moved,
					&t->result.bytes_staged);
}

/* Nothing came, or half a block, which only the last one can be. */
static bool file_ended(const struct peerdma_transfer *t,
		       const struct step *step)
{
	return !t->file.write &&
	       (!step->moved || step->moved % t->probe.align);
}

static uint64_t milliseconds(void)
{
	return peerdma_nanoseconds() / 1000000;
}

/*
 * A request is not interrupted, so its time is how long Ctrl-C may take. A small
 * one need not be timed.
 */
static uint64_t next_limit(uint64_t limit, uint64_t start)
{
	uint64_t took;

	if (!start)
		return limit;
	took = milliseconds() - start;
	if (took < 100 && limit < STEP_LEN)
		return limit * 2;
	if (took > 300 && limit > STEP_MIN)
		return limit / 2;
	return limit;
}

/**
 * peerdma_direct_step() - how much goes as one request, to begin with
 * @t: the transfer
 *
 * Return: bytes.
 */
uint64_t peerdma_direct_step(const struct peerdma_transfer *t)
{
	return t->opts.progress ? STEP_FIRST : STEP_LEN;
}

static int move_steps(struct peerdma_transfer *t, uint64_t len)
{
	uint64_t limit = peerdma_direct_step(t);
	uint64_t end = t->done + len, start;
	bool ended;
	int err;

	while (t->done < end) {
		struct step step = {
			.file_offset = t->file_offset + t->done,
			.buffer_offset = t->buffer_offset + t->done,
			.len = end - t->done,
		};

		if (step.len > limit)
			step.len = limit;
		start = step.len < STEP_MIN ? 0 : milliseconds();
		err = take_step(t, &step);
		if (step.reason) {
			peerdma_transfer_blame(t, step.reason);
			return PEERDMA_PART_REFUSED;
		}
		if (err && err != -EINTR)
			return err;
		/* A write that was cut short goes on, and fails with the cause. */
		if (!err && !step.moved && t->file.write)
			return -EIO;
		limit = next_limit(limit, start);
		ended = !err && file_ended(t, &step);
		err = advance(t, &step);
		if (err)
			return err;
		if (ended)
			return PEERDMA_PART_SHORT;
	}
	return PEERDMA_PART_DONE;
}

/**
 * peerdma_direct_move() - move the next bytes of a transfer directly
 * @t: the transfer; peerdma_direct_probe() said yes
 * @len: bytes, whole blocks
 *
 * Return: enum peerdma_part or a negative errno.
 */
int peerdma_direct_move(struct peerdma_transfer *t, uint64_t len)
{
	const struct peerdma_cuda_pointer *pointer = &t->buf->pointer;
	int err, part;

	part = move_steps(t, len);
	if (t->file.write || !pointer->flush)
		return part;
	err = peerdma_cuda_flush(&t->buf->ctx->cuda, pointer->context);
	return err ? err : part;
}

/**
 * peerdma_direct_note() - remember how a transfer went
 * @t: ended
 *
 * What peerdma_direct_again() may try next time is a transfer that was direct from
 * end to end, through the caller's own descriptor.
 */
void peerdma_direct_note(const struct peerdma_transfer *t)
{
	struct peerdma_buffer *buf = t->buf;

	if (!t->probed || t->probe.by_pages || buf->host ||
	    t->file.direct_fd != t->file.fd || t->len > AGAIN_LEN ||
	    t->result.bytes_direct != t->len)
		return;
	pthread_mutex_lock(&buf->lock);
	buf->last.probe = t->probe;
	buf->last.fd = t->file.fd;
	buf->last.flags = t->file.flags;
	buf->last.write = t->file.write;
	buf->last.end = t->file.end;
	pthread_mutex_unlock(&buf->lock);
}

static struct peerdma_way last_way(struct peerdma_buffer *buf)
{
	struct peerdma_way last;

	pthread_mutex_lock(&buf->lock);
	last = buf->last;
	pthread_mutex_unlock(&buf->lock);
	return last;
}

static void forget_way(struct peerdma_buffer *buf)
{
	pthread_mutex_lock(&buf->lock);
	buf->last.probe.align = 0;
	pthread_mutex_unlock(&buf->lock);
}

/**
 * peerdma_direct_fits() - is a transfer whole blocks, and within the file?
 * @t: of which nothing was moved
 * @probe: what the drive asks for
 * @end: of the file, where it is read
 *
 * Return: true: it is, and its place in memory suits the drive.
 */
bool peerdma_direct_fits(const struct peerdma_transfer *t,
			 const struct peerdma_probe *probe, uint64_t end)
{
	uint64_t place = t->buf->fd_offset + t->buffer_offset;

	return !((t->file_offset | t->len) % probe->align) &&
	       !(place % probe->memory_align) &&
	       end >= t->file_offset + t->len;
}

static bool is_like(const struct peerdma_transfer *t, int fd, bool write,
		    const struct peerdma_way *last)
{
	return last->probe.align && last->fd == fd && last->write == write &&
	       t->len && t->len <= AGAIN_LEN && !t->opts.progress &&
	       !t->opts.flags &&
	       (t->opts.path == PEERDMA_PATH_AUTO ||
		t->opts.path == PEERDMA_PATH_DIRECT) &&
	       peerdma_direct_fits(t, &last->probe, last->end) &&
	       !(t->buf->cuda && atomic_load(&t->buf->ctx->regions)) &&
	       fcntl(fd, F_GETFL) == last->flags;
}

/**
 * peerdma_direct_again() - move a transfer as the last one went
 * @t: checked, and not begun
 * @fd: the caller's file
 * @write: to the file, else from it
 *
 * Of a small request it is a good part to find out what the file is, and where it
 * ends. Here nothing depends on that: whatever has become of the number meanwhile,
 * FILE_IO decides anew, and what it does not do whole is done again as if for the
 * first time. Where the file has become shorter, the rest of its last block is
 * written to as by any unbuffered read.
 *
 * Return: true: all of it was moved; else nothing counts.
 */
bool peerdma_direct_again(struct peerdma_transfer *t, int fd, bool write)
{
	struct peerdma_way last = last_way(t->buf);

	if (!is_like(t, fd, write, &last))
		return false;
	t->probe = last.probe;
	t->file = (struct peerdma_file){
		.fd = fd,
		.write = write,
		.direct_fd = fd,
		.end = last.end,
	};
	if (!peerdma_direct_move(t, t->len))
		return true;
	forget_way(t->buf);
	t->done = 0;
	t->result = (struct peerdma_io_result){ .error = 0 };
	return false;
}

/**
 * peerdma_direct_segments() - move parts of a file directly, many at a time
 * @t: their transfer, whose @done goes on; its @len is that of all of them
 * @segments: parts, for each of which peerdma_transfer_is_direct()
 * @nr: how many
 *
 * Of a part that was not wholly moved nothing counts: moved again by itself it
 * tells how far it goes, and why no further.
 *
 * Return: bytes that count, of the segments whose @out_result is their @len.
 */
uint64_t peerdma_direct_segments(struct peerdma_transfer *t,
				 struct peerdma_file_segment *segments,
				 uint32_t nr)
{
	const struct peerdma_cuda_pointer *pointer = &t->buf->pointer;
	struct peerdma_file_io io = {
		.segments = (uintptr_t)segments,
		.nr_segments = nr,
		.depth = t->opts.depth,
	};
	struct step step = { .moved = 0 };
	uint32_t i;

	file_io(t->buf, &t->file, &io);
	for (i = 0; i < nr; i++)
		if (segments[i].out_result == (int64_t)segments[i].len)
			step.moved += segments[i].len;
	if (!step.moved)
		return 0;
	if (!t->file.write && pointer->flush &&
	    peerdma_cuda_flush(&t->buf->ctx->cuda, pointer->context))
		return 0;
	step.copied = io.out_flags & PEERDMA_FILE_IO_OUT_BUFFERED;
	advance(t, &step);
	return step.moved;
}
