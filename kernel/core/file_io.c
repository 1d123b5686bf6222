// SPDX-License-Identifier: GPL-2.0-only
/*
 * FILE_IO: a file's data to and from a buffer, by the drive's own DMA.
 *
 * A request is one kiocb over bio_vecs that were made once for the buffer, so a
 * transfer allocates nothing per page, maps nothing into user space and takes no
 * page references: what is in flight holds the buffer itself. The file's own
 * read_iter and write_iter do the rest, unbuffered and asynchronously, with the
 * checks that pread(2) and pwrite(2) would make.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/wait.h>

#include "trace.h"

#define DEPTH_DEFAULT	64
#define DEPTH_MAX	1024

/* ---- the two ends -------------------------------------------------------- */

static int file_check(struct file *file, bool write)
{
	umode_t mode = file_inode(file)->i_mode;

	if (S_ISDIR(mode))
		return -EISDIR;
	if (!S_ISREG(mode) && !S_ISBLK(mode))
		return -ESPIPE;
	if (!(file->f_mode & (write ? FMODE_WRITE : FMODE_READ)))
		return -EBADF;
	if (!(file->f_flags & O_DIRECT))
		return -EBADFD;
	return 0;
}

/*
 * Kernels that look at each bio_vec's length want whole blocks of it, so there a
 * place in memory would work or not by where an extent happens to end.
 */
static u32 memory_alignment(u32 memory, u32 block)
{
	return peerdma_bvecs_are_whole_blocks() ? max(memory, block) : memory;
}

/* What unbuffered I/O on the file wants of offsets and of memory. */
static int file_alignment(struct peerdma_transfer *transfer)
{
	struct inode *inode = file_inode(transfer->file);
	struct block_device *bdev;
	struct kstat stat;
	u32 block, memory;
	int ret;

	if (S_ISBLK(inode->i_mode)) {
		bdev = I_BDEV(transfer->file->f_mapping->host);
	} else {
		ret = vfs_getattr_nosec(&transfer->file->f_path, &stat,
					STATX_DIOALIGN, 0);
		if (ret)
			return ret;
		if (stat.result_mask & STATX_DIOALIGN) {
			transfer->offset_align = stat.dio_offset_align;
			transfer->memory_align =
				memory_alignment(stat.dio_mem_align,
						 stat.dio_offset_align);
			return stat.dio_offset_align ? 0 : -EMEDIUMTYPE;
		}
		bdev = inode->i_sb->s_bdev;
	}
	block = bdev_logical_block_size(bdev);
	memory = bdev_dma_alignment(bdev) + 1;
	transfer->offset_align = block;
	/* A filesystem that does not say goes by fs/direct-io.c: blocks of both. */
	transfer->memory_align = S_ISREG(inode->i_mode) ?
					 max(memory, block) :
					 memory_alignment(memory, block);
	return 0;
}

/*
 * The way from the drive to the memory, walked once for a pair. What is kept is
 * only ever compared with a device that the caller holds, so it cannot be taken
 * for another one at the same address.
 */
static int drive_reaches(struct peerdma_buffer *buffer, struct pci_dev *drive,
			 struct peerdma_file_io *arg)
{
	struct peerdma_path path;

	if (peerdma_buffer_is_ram(buffer) ||
	    READ_ONCE(buffer->reachable) == drive)
		return 0;
	peerdma_path_find(drive, buffer->pdev, buffer->end, &path);
	arg->out_reason = path.reason;
	if (path.reason != PEERDMA_REASON_NONE)
		return -EREMOTEIO;
	pci_dev_put(xchg(&buffer->reachable, pci_dev_get(drive)));
	return 0;
}

/* The memory as this drive reaches it, and its struct pages. */
static int transfer_memory(struct peerdma_transfer *transfer,
			   struct pci_dev *drive, struct peerdma_file_io *arg)
{
	struct peerdma_buffer *buffer = transfer->buffer;
	enum peerdma_reason reason;
	int ret;

	if (!buffer) {
		/* Unbuffered, a block device makes nobody wait for a lock. */
		bool waits = !S_ISBLK(file_inode(transfer->file)->i_mode);

		buffer = peerdma_foreign_get(transfer->dmabuf, drive, waits,
					     &reason);
		if (IS_ERR(buffer)) {
			arg->out_reason = reason;
			return PTR_ERR(buffer);
		}
		transfer->buffer = buffer;
	}
	ret = drive_reaches(buffer, drive, arg);
	if (ret)
		return ret;

	if (!peerdma_buffer_use(buffer))
		return -ENODEV;
	transfer->pages = peerdma_pages_get(buffer, &reason);
	if (IS_ERR(transfer->pages)) {
		arg->out_reason = reason;
		ret = PTR_ERR(transfer->pages);
	}
	peerdma_buffer_unuse(buffer);
	return ret;
}

static int transfer_check(struct peerdma_transfer *transfer,
			  struct peerdma_file_io *arg)
{
	enum peerdma_reason reason;
	struct pci_dev *drive;
	int ret;

	drive = peerdma_drive_get(transfer->file, &reason);
	if (IS_ERR(drive))
		return PTR_ERR(drive);
	if (!drive) {
		arg->out_reason = reason;
		return -EMEDIUMTYPE;
	}
	arg->out_device = peerdma_device_number(drive);

	ret = file_alignment(transfer);
	if (ret == -EMEDIUMTYPE)
		arg->out_reason = PEERDMA_REASON_NO_DIRECT_IO;
	if (ret)
		goto put_drive;
	arg->out_align = transfer->offset_align;
	arg->out_memory_align = transfer->memory_align;

	ret = transfer_memory(transfer, drive, arg);
put_drive:
	pci_dev_put(drive);
	return ret;
}

/**
 * peerdma_transfer_get - check and hold the two ends of a FILE_IO
 * @transfer: out
 * @arg: in; its out_ fields are cleared, and filled as far as the check comes
 *
 * The buffer is held and not yet used, so a revocation does not wait for the
 * caller's memory, which may be a mapping that the revocation has to get out of
 * the way first. peerdma_buffer_use() is for when requests are submitted.
 *
 * Context: process; may sleep.
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_transfer_get(struct peerdma_transfer *transfer,
			 struct peerdma_file_io *arg)
{
	int ret;

	arg->out_bytes = 0;
	arg->out_flags = 0;
	arg->out_reason = PEERDMA_REASON_NONE;
	arg->out_align = 0;
	arg->out_device = PEERDMA_DEVICE_NONE;
	arg->out_memory_align = 0;
	if (arg->flags & ~PEERDMA_FILE_IO_WRITE || arg->reserved)
		return -EOPNOTSUPP;
	if (arg->nr_segments > PEERDMA_FILE_IO_MAX_SEGMENTS)
		return -EINVAL;

	transfer->write = arg->flags & PEERDMA_FILE_IO_WRITE;
	transfer->dmabuf = dma_buf_get(arg->buffer_fd);
	if (IS_ERR(transfer->dmabuf))
		return PTR_ERR(transfer->dmabuf);
	transfer->buffer = peerdma_buffer_of(transfer->dmabuf);
	if (!transfer->write &&
	    !(transfer->dmabuf->file->f_mode & FMODE_WRITE)) {
		ret = -EACCES;
		goto put_dmabuf;
	}

	if (transfer->buffer && READ_ONCE(transfer->buffer->dead)) {
		ret = -ENODEV;
		goto put_dmabuf;
	}

	transfer->file = fget(arg->file_fd);
	if (!transfer->file) {
		ret = -EBADF;
		goto put_dmabuf;
	}
	ret = file_check(transfer->file, transfer->write);
	if (!ret)
		ret = transfer_check(transfer, arg);
	if (ret)
		goto put_buffer;
	peerdma_buffer_count(transfer->buffer, PEERDMA_COUNT_FILE_IOS, 1);
	return 0;

put_buffer:
	if (transfer->buffer)
		peerdma_foreign_put(transfer->buffer);
	fput(transfer->file);
put_dmabuf:
	dma_buf_put(transfer->dmabuf);
	return ret;
}

/**
 * peerdma_transfer_put - undo peerdma_transfer_get()
 * @transfer: nothing of it may be in flight
 */
void peerdma_transfer_put(struct peerdma_transfer *transfer)
{
	peerdma_buffer_count(transfer->buffer, PEERDMA_COUNT_FILE_IOS, -1);
	peerdma_foreign_put(transfer->buffer);
	fput(transfer->file);
	dma_buf_put(transfer->dmabuf);
}

/**
 * peerdma_segment_check - may this segment be moved
 * @transfer: the ends
 * @segment: copied from the caller
 *
 * Return: 0, -EINVAL, -EOVERFLOW or -ERANGE.
 */
int peerdma_segment_check(const struct peerdma_transfer *transfer,
			  const struct peerdma_file_segment *segment)
{
	u64 end;

	if (!segment->len)
		return -EINVAL;
	if (check_add_overflow(segment->file_offset, segment->len, &end) ||
	    end > S64_MAX)
		return -EOVERFLOW;
	if (check_add_overflow(segment->buffer_offset, segment->len, &end))
		return -EOVERFLOW;
	if (end > transfer->buffer->len)
		return -ERANGE;
	if (!IS_ALIGNED(segment->file_offset | segment->len,
			transfer->offset_align) ||
	    !IS_ALIGNED(transfer->buffer->offset + segment->buffer_offset,
			transfer->memory_align))
		return -EINVAL;
	return 0;
}

/* ---- one request --------------------------------------------------------- */

static void request_complete(struct kiocb *kiocb, long result)
{
	struct peerdma_request *request =
		container_of(kiocb, struct peerdma_request, kiocb);

	if (request->transfer->write)
		kiocb_end_write(kiocb);
	request->result = result;
	trace_io_done(request);
	request->done(request);
}

/**
 * peerdma_request_submit - start a request
 * @request: @transfer, @done, @start and @len filled in; its buffer is in use
 * @segment: what it is a part of
 *
 * The request is completed by its @done, perhaps before this returns.
 *
 * Context: process, of the task that asked: the file's checks look at its
 * limits and credentials. May sleep.
 */
void peerdma_request_submit(struct peerdma_request *request,
			    const struct peerdma_file_segment *segment)
{
	const struct peerdma_transfer *transfer = request->transfer;
	const struct peerdma_buffer *buffer = transfer->buffer;
	u64 offset = buffer->offset + segment->buffer_offset + request->start;
	u32 first = peerdma_buffer_extent_at(buffer, offset);
	u64 skip = offset - buffer->extents[first].offset;
	struct kiocb *kiocb = &request->kiocb;
	struct iov_iter iter;
	ssize_t ret;

	init_sync_kiocb(kiocb, transfer->file);
	kiocb->ki_pos = segment->file_offset + request->start;
	kiocb->ki_complete = request_complete;

	iov_iter_bvec(&iter, transfer->write ? ITER_SOURCE : ITER_DEST,
		      &transfer->pages->bvecs[first],
		      buffer->nr_extents - first, skip + request->len);
	iov_iter_advance(&iter, skip);
	request->offset = segment->buffer_offset + request->start;
	trace_io_start(request, kiocb->ki_pos);

	/*
	 * Ends the kiocb's write itself when it returns at once; a queued one
	 * may be complete, and the request gone, by the time it returns.
	 */
	if (transfer->write)
		ret = vfs_iocb_iter_write(transfer->file, kiocb, &iter);
	else
		ret = vfs_iocb_iter_read(transfer->file, kiocb, &iter);
	if (ret == -EIOCBQUEUED)
		return;

	/* Filesystems clear the flag when they turn to the page cache. */
	request->buffered = !(kiocb->ki_flags & IOCB_DIRECT);
	request->result = ret;
	trace_io_done(request);
	request->done(request);
}

/* ---- many requests, waited for ------------------------------------------- */

/**
 * struct segment_state - how far a segment has come
 * @next: where its next request starts
 * @good: bytes from its start up to the first one that is known not to have
 *	moved
 * @error: what stopped it there, or 0 at the end of the file
 */
struct segment_state {
	u64 next;
	u64 good;
	int error;
};

/**
 * struct file_io - a FILE_IO that its caller waits for
 * @transfer: the ends
 * @segments: copied from the caller
 * @states: one per segment
 * @nr_segments: how many
 * @current_segment: the first that is not wholly submitted
 * @free: requests not in flight; the submitter's alone
 * @in_flight: requests submitted and not yet reaped; the submitter's alone
 * @lock: guards what follows; taken in interrupts. A completion's last touch is
 *	its unlock, so whoever has counted all completions under the lock may
 *	free this.
 * @done: completed requests
 * @nr_done: how many
 * @wake_at: the submitter sleeps until there are so many
 * @wait: the submitter
 * @buffered: some request went through the page cache
 *
 * Owner: the submitting task, on whose stack or heap it is.
 */
struct file_io {
	struct peerdma_transfer transfer;
	struct peerdma_file_segment *segments;
	struct segment_state *states;
	u32 nr_segments;
	u32 current_segment;
	struct peerdma_request *free;
	u32 in_flight;
	spinlock_t lock; /* guards the completions below */
	struct peerdma_request *done;
	u32 nr_done;
	u32 wake_at;
	wait_queue_head_t wait;
	bool buffered;
};

struct file_io_request {
	struct peerdma_request request;
	struct file_io *io;
};

static void file_io_done(struct peerdma_request *request)
{
	struct file_io *io = container_of(request, struct file_io_request,
					  request)->io;
	unsigned long flags;

	spin_lock_irqsave(&io->lock, flags);
	request->next = io->done;
	io->done = request;
	if (++io->nr_done == io->wake_at)
		wake_up(&io->wait);
	spin_unlock_irqrestore(&io->lock, flags);
}

/* A request came back: note how far its segment is certain. */
static void file_io_account(struct file_io *io, struct peerdma_request *request)
{
	struct segment_state *state = &io->states[request->segment];
	u64 moved = max(request->result, 0L);

	io->buffered |= request->buffered;
	if (moved == request->len || request->start + moved >= state->good)
		return;
	state->good = request->start + moved;
	state->error = min(request->result, 0L);
}

/* Take back what has completed, sleeping until there are @least of them. */
static void file_io_reap(struct file_io *io, u32 least)
{
	struct peerdma_request *request, *next;

	spin_lock_irq(&io->lock);
	io->wake_at = least;
	wait_event_lock_irq(io->wait, io->nr_done >= least, io->lock);
	io->wake_at = 0;
	request = io->done;
	io->in_flight -= io->nr_done;
	io->done = NULL;
	io->nr_done = 0;
	spin_unlock_irq(&io->lock);

	for (; request; request = next) {
		next = request->next;
		file_io_account(io, request);
		request->next = io->free;
		io->free = request;
	}
}

/* The next piece of work, or false when all is submitted. */
static bool file_io_next(struct file_io *io, struct peerdma_request *request)
{
	for (; io->current_segment < io->nr_segments; io->current_segment++) {
		u32 i = io->current_segment;
		struct segment_state *state = &io->states[i];
		u64 len = io->segments[i].len;

		/* Nothing is begun beyond a point that was not reached. */
		if (state->next >= len || state->good < len)
			continue;
		request->segment = i;
		request->start = state->next;
		request->len = min_t(u64, len - state->next,
				     PEERDMA_REQUEST_MAX);
		request->buffered = false;
		state->next += request->len;
		return true;
	}
	return false;
}

/* Why nothing more is to be begun: 0, -EINTR or -ENODEV. */
static int file_io_stopped(const struct file_io *io)
{
	if (READ_ONCE(io->transfer.buffer->dead))
		return -ENODEV;
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/*
 * Submit until requests or work run out; false when there is no more work. The
 * plug is finished before anybody sleeps: a plug that the scheduler flushes
 * hands its requests to a worker instead of to the drive.
 */
static bool file_io_submit(struct file_io *io)
{
	struct peerdma_request *request;
	struct blk_plug plug;
	bool more = true;

	blk_start_plug(&plug);
	while ((request = io->free)) {
		more = !file_io_stopped(io) && file_io_next(io, request);
		if (!more)
			break;
		io->free = request->next;
		io->in_flight++;
		peerdma_request_submit(request,
				       &io->segments[request->segment]);
	}
	blk_finish_plug(&plug);
	return more;
}

static void file_io_submit_all(struct file_io *io)
{
	/* Refill in batches: a quarter as many times asleep. */
	while (file_io_submit(io))
		file_io_reap(io, DIV_ROUND_UP(io->in_flight, 8));
	if (io->in_flight)
		file_io_reap(io, io->in_flight);
}

/* What a fatal signal or a revocation left undone counts as not moved. */
static void file_io_cut(struct file_io *io)
{
	int error = file_io_stopped(io);
	u32 i;

	if (!error)
		return;

	for (i = io->current_segment; i < io->nr_segments; i++) {
		struct segment_state *state = &io->states[i];

		if (state->next < state->good) {
			state->good = state->next;
			state->error = error;
		}
	}
}

static u32 requests_needed(const struct file_io *io, u32 depth)
{
	u64 nr = 0;
	u32 i;

	/* A filesystem may choose the end once more before the first is there. */
	if (io->transfer.write && io->transfer.file->f_flags & O_APPEND)
		return 1;
	if (!depth)
		depth = DEPTH_DEFAULT;
	for (i = 0; i < io->nr_segments && nr < depth; i++)
		nr += DIV_ROUND_UP_ULL(io->segments[i].len,
				       PEERDMA_REQUEST_MAX);
	return min3(nr, (u64)depth, (u64)DEPTH_MAX);
}

/* Move all segments with up to @nr requests in flight. */
static int file_io_move(struct file_io *io, u32 nr)
{
	struct file_io_request one, *requests = &one;
	u32 i;

	if (nr > 1)
		requests = kvmalloc_array(nr, sizeof(*requests), GFP_KERNEL);
	if (!requests)
		return -ENOMEM;

	for (i = 0; i < nr; i++) {
		requests[i].io = io;
		requests[i].request.transfer = &io->transfer;
		requests[i].request.done = file_io_done;
		requests[i].request.next = io->free;
		io->free = &requests[i].request;
	}
	for (i = 0; i < io->nr_segments; i++)
		io->states[i].good = io->segments[i].len;

	file_io_submit_all(io);
	file_io_cut(io);

	if (nr > 1)
		kvfree(requests);
	return 0;
}

/* One bad segment and none is begun; each bad one says what is wrong with it. */
static bool segments_check(struct file_io *io)
{
	bool good = true;
	u32 i;

	for (i = 0; i < io->nr_segments; i++) {
		io->states[i] = (struct segment_state){
			.error = peerdma_segment_check(&io->transfer,
						       &io->segments[i]),
		};
		good &= !io->states[i].error;
	}
	return good;
}

/*
 * A write stops at the limit of the file's size, as pwrite(2) does: a request that
 * began behind it would be answered with SIGXFSZ.
 */
static void segments_limit(struct file_io *io)
{
	const struct peerdma_transfer *transfer = &io->transfer;
	u64 limit = rlimit(RLIMIT_FSIZE);
	u32 i;

	if (!transfer->write || !S_ISREG(file_inode(transfer->file)->i_mode))
		return;
	limit = round_down(limit, transfer->offset_align);
	for (i = 0; i < io->nr_segments; i++) {
		struct peerdma_file_segment *segment = &io->segments[i];

		if (segment->file_offset < limit)
			segment->len = min(segment->len,
					   limit - segment->file_offset);
	}
}

/* Write the segments' results; the first error in their order is the call's. */
static int file_io_results(const struct file_io *io,
			   struct peerdma_file_io *arg)
{
	struct peerdma_file_segment __user *user =
		u64_to_user_ptr(arg->segments);
	int ret = 0;
	u32 i;

	for (i = 0; i < io->nr_segments; i++) {
		const struct segment_state *state = &io->states[i];
		s64 result = state->good ? state->good : state->error;

		arg->out_bytes += state->good;
		if (put_user(result, &user[i].out_result))
			return -EFAULT;
		if (!ret)
			ret = state->error;
	}
	if (io->buffered)
		arg->out_flags |= PEERDMA_FILE_IO_OUT_BUFFERED;
	return ret;
}

static int file_io_segments(struct file_io *io, struct peerdma_file_io *arg)
{
	int ret;

	if (copy_from_user(io->segments, u64_to_user_ptr(arg->segments),
			   io->nr_segments * sizeof(*io->segments)))
		return -EFAULT;
	if (segments_check(io)) {
		segments_limit(io);
		if (!peerdma_buffer_use(io->transfer.buffer))
			return -ENODEV;
		ret = file_io_move(io, requests_needed(io, arg->depth));
		peerdma_buffer_unuse(io->transfer.buffer);
		if (ret)
			return ret;
	}
	return file_io_results(io, arg);
}

/**
 * peerdma_file_io_run - a whole FILE_IO, waited for
 * @arg: in and out
 *
 * Context: process, of the task that asked; sleeps until nothing is in flight.
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_file_io_run(struct peerdma_file_io *arg)
{
	struct file_io io = { .nr_segments = arg->nr_segments };
	struct peerdma_file_segment one_segment;
	struct segment_state one_state;
	int ret;

	ret = peerdma_transfer_get(&io.transfer, arg);
	if (ret)
		return ret;
	if (!io.nr_segments)
		goto put_transfer;

	spin_lock_init(&io.lock);
	init_waitqueue_head(&io.wait);
	if (io.nr_segments == 1) {
		io.segments = &one_segment;
		io.states = &one_state;
		ret = file_io_segments(&io, arg);
		goto put_transfer;
	}

	io.segments = kvmalloc_array(io.nr_segments, sizeof(*io.segments),
				     GFP_KERNEL);
	io.states = kvmalloc_array(io.nr_segments, sizeof(*io.states),
				   GFP_KERNEL);
	ret = -ENOMEM;
	if (io.segments && io.states)
		ret = file_io_segments(&io, arg);
	kvfree(io.states);
	kvfree(io.segments);

put_transfer:
	peerdma_transfer_put(&io.transfer);
	return ret;
}

/**
 * peerdma_file_io_ioctl - PEERDMA_FILE_IO as an ioctl
 * @call: arg.file_io in and out
 *
 * Return: 0 or -errno as peerdma.h says.
 */
int peerdma_file_io_ioctl(struct peerdma_call *call)
{
	return peerdma_file_io_run(&call->arg.file_io);
}
