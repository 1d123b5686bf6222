// SPDX-License-Identifier: GPL-2.0-only
/*
 * FILE_IO as an io_uring command.
 *
 * A command of one request is submitted from the ring's own task and completed
 * from the drive's interrupt through task work. Anything longer, and what may
 * block for long, goes to one of io_uring's workers, which runs the same code as
 * the ioctl.
 */
#include <linux/fs.h>
#include <linux/io_uring/cmd.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "core.h"

/**
 * struct uring_arg - what stands in the submission's cmd[]
 * @addr: user pointer to a struct peerdma_file_io
 * @reserved: must be 0
 */
struct uring_arg {
	u64 addr;
	u64 reserved;
};

/**
 * struct uring_io - a command in flight
 * @request: its one request
 * @users: its completion, and its submission until that has returned: filesystems
 *	look at kiocb and file after they have queued a request, which in a worker
 *	may be after it has come back
 * @transfer: the ends
 * @segment: copied from the caller
 * @cmd: completed once; holds /dev/peerdma, and so this module
 *
 * Owner: its two users; the last one has it freed, in the task work that completes
 * @cmd.
 */
struct uring_io {
	struct peerdma_request request;
	refcount_t users;
	struct peerdma_transfer transfer;
	struct peerdma_file_segment segment;
	struct io_uring_cmd *cmd;
};

struct uring_pdu {
	struct uring_io *io;
};

static void uring_finish(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct uring_io *io = io_uring_cmd_to_pdu(cmd, struct uring_pdu)->io;
	long result = io->request.result;

	peerdma_transfer_put(&io->transfer);
	kfree(io);
	io_uring_cmd_done(cmd, result, issue_flags);
}

PEERDMA_DEFINE_URING_TASK_WORK(uring_finish)

static void uring_put(struct uring_io *io)
{
	if (refcount_dec_and_test(&io->users))
		io_uring_cmd_complete_in_task(io->cmd,
					      PEERDMA_URING_TASK_WORK(uring_finish));
}

static void uring_done(struct peerdma_request *request)
{
	struct uring_io *io = container_of(request, struct uring_io, request);

	/*
	 * Not in the task work: the task may itself be waiting for the end of
	 * the memory's use, in a revocation or in what its owner's free() does.
	 */
	peerdma_buffer_unuse(io->transfer.buffer);
	uring_put(io);
}

/* One request, not waited for. */
static int uring_submit(struct io_uring_cmd *cmd, struct peerdma_file_io *arg,
			const struct peerdma_file_segment *segment)
{
	struct uring_io *io;
	int ret;

	io = kzalloc_obj(*io, GFP_KERNEL);
	if (!io)
		return -ENOMEM;
	io->cmd = cmd;
	io->segment = *segment;
	refcount_set(&io->users, 2);

	ret = peerdma_transfer_get(&io->transfer, arg);
	if (ret)
		goto free_io;
	ret = peerdma_segment_check(&io->transfer, &io->segment);
	if (ret)
		goto put_transfer;
	if (!peerdma_buffer_use(io->transfer.buffer)) {
		ret = -ENODEV;
		goto put_transfer;
	}

	io->request.transfer = &io->transfer;
	io->request.done = uring_done;
	io->request.len = io->segment.len;
	io_uring_cmd_to_pdu(cmd, struct uring_pdu)->io = io;
	peerdma_request_submit(&io->request, &io->segment);
	uring_put(io);
	return -EIOCBQUEUED;

put_transfer:
	peerdma_transfer_put(&io->transfer);
free_io:
	kfree(io);
	return ret;
}

/* A worker of io_uring's: as the ioctl, with the bytes as the result. */
static int uring_run(struct peerdma_file_io *arg, void __user *user)
{
	int ret;

	ret = peerdma_file_io_run(arg);
	if (peerdma_copy_out(arg, sizeof(*arg), user, arg->size) && !ret)
		ret = -EFAULT;
	return ret ? ret : min_t(u64, arg->out_bytes, INT_MAX);
}

static int uring_issue(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	const struct uring_arg *sqe = peerdma_uring_payload(cmd, issue_flags);
	struct peerdma_file_segment segment;
	struct peerdma_file_io arg = {};
	void __user *user;
	int ret;

	if (cmd->cmd_op != PEERDMA_FILE_IO)
		return -ENOTTY;
	if (issue_flags & IO_URING_F_IOPOLL || READ_ONCE(sqe->reserved))
		return -EOPNOTSUPP;
	user = u64_to_user_ptr(READ_ONCE(sqe->addr));
	ret = peerdma_copy_in(&arg, sizeof(arg),
			      offsetofend(struct peerdma_file_io, reserved),
			      user);
	if (ret)
		return ret;

	if (arg.nr_segments == 1) {
		if (copy_from_user(&segment, u64_to_user_ptr(arg.segments),
				   sizeof(segment)))
			return -EFAULT;
		/*
		 * A read blocks for no longer than a free request takes; a write
		 * may allocate blocks, and one that makes the file longer is
		 * waited for by the filesystem itself.
		 */
		if (segment.len <= PEERDMA_REQUEST_MAX &&
		    (!(issue_flags & IO_URING_F_NONBLOCK) ||
		     !(arg.flags & PEERDMA_FILE_IO_WRITE)))
			return uring_submit(cmd, &arg, &segment);
	}
	if (issue_flags & IO_URING_F_NONBLOCK)
		return -EAGAIN;
	return uring_run(&arg, user);
}

/**
 * peerdma_file_io_uring - file_operations.uring_cmd
 * @cmd: the command
 * @issue_flags: io_uring's
 *
 * Return: -EIOCBQUEUED, the result being posted apart, or -EAGAIN to be called
 * again from a worker that may block.
 */
int peerdma_file_io_uring(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	int ret = uring_issue(cmd, issue_flags);

	if (ret == -EAGAIN || ret == -EIOCBQUEUED)
		return ret;
	io_uring_cmd_done(cmd, ret, issue_flags);
	return -EIOCBQUEUED;
}
