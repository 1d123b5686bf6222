/* SPDX-License-Identifier: MIT */
/*
 * The verbs that are not /dev/peerdma's own: memory, descriptors, processes, the
 * GPU and the card; and the table of all.
 */
#ifndef OPS_H
#define OPS_H

#include <linux/dma-buf.h>
#include <poll.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "calls.h"

/* ---- memory -------------------------------------------------------------- */

static long do_mmap(const struct op *op)
{
	static const int prots[] = {
		PROT_READ | PROT_WRITE, PROT_READ, PROT_WRITE, PROT_NONE,
		PROT_READ | PROT_WRITE | PROT_EXEC,
	};
	int fd = op->d & 0x20 ? slot_fd(op->a, FIRST_PAGE_FD, PAGE_FDS) :
				slot_fd(op->a, 0, BUFFERS);
	size_t len = op->f ? value(op->f) % (MAP_ROOM + 1) : 65536;
	int flags = MAP_FIXED;

	flags |= (op->d & 0xc0) == 0xc0 ? MAP_PRIVATE : MAP_SHARED;
	if ((op->d & 0xe0) == 0xa0)
		flags |= MAP_POPULATE;
	return mmap(map_at(op->b), len, prots[op->g < 200 ? 0 : op->g % 5],
		    flags, fd, value(op->e)) == MAP_FAILED ? -1 : 0;
}

static long do_touch(const struct op *op)
{
	volatile unsigned char *at = map_at(op->b) + value(op->e) % MAP_ROOM;
	unsigned int i, nr = 1 + op->f % 16;

	for (i = 0; i < nr && at < map_at(op->b) + MAP_ROOM; i++) {
		if (op->d & 1)
			*at = op->d;
		else
			(void)*at;
		at += op->g & 1 ? 4096 : 65536;
	}
	return 0;
}

static long do_munmap(const struct op *op)
{
	unsigned char *at = map_at(op->b);
	size_t len = MAP_ROOM;

	if (op->d & 1) {
		len = map_part(op, &at) & ~4095ull;
		at = (void *)((uintptr_t)at & ~4095ull);
	}
	return place((uintptr_t)at, len, PROT_NONE) == MAP_FAILED ? -1 : 0;
}

static long do_madvise(const struct op *op)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_DOFORK, MADV_DONTFORK, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_FREE, MADV_DODUMP,
		21 /* PAGEOUT */, 22 /* POPULATE_READ */,
		23 /* POPULATE_WRITE */, 20 /* COLD */, MADV_WILLNEED,
	};
	unsigned char *at;
	size_t len = map_part(op, &at);

	return madvise((void *)((uintptr_t)at & ~4095ull), len,
		       advices[op->d % 13]);
}

static long do_mprotect(const struct op *op)
{
	unsigned char *at;
	size_t len = map_part(op, &at);

	return mprotect((void *)((uintptr_t)at & ~4095ull), len, op->d & 7);
}

static long do_mremap(const struct op *op)
{
	size_t old = 4096 * (1 + op->e % 64), new = 4096 * (1 + op->f % 64);

	if (op->a % MAPS == op->b % MAPS)
		return -1;
	return mremap(map_at(op->b), old, new, MREMAP_MAYMOVE | MREMAP_FIXED,
		      map_at(op->a)) == MAP_FAILED ? -1 : 0;
}

static long do_mlock(const struct op *op)
{
	unsigned char *at;
	size_t len = map_part(op, &at);

	return op->d & 1 ? munlock(at, len) : mlock(at, len);
}

static long do_rw(const struct op *op)
{
	int fd = slot_fd(op->a, FIRST_FILE, FILES);
	unsigned char *at;
	size_t len = map_part(op, &at);
	off_t offset = value(op->g) & 0x3ffffff;

	return op->d & 1 ? pwrite(fd, at, len, offset) :
			   pread(fd, at, len, offset);
}

static long do_ram_rw(const struct op *op)
{
	int fd = slot_fd(op->a, FIRST_FILE, FILES);
	size_t len = value(op->f) & 0x1fffff;
	off_t offset = value(op->e) & 0x3ffffff;

	return op->d & 1 ? pwrite(fd, self->ram, len, offset) :
			   pread(fd, self->ram, len, offset);
}

static long do_splice(const struct op *op)
{
	unsigned char bytes[4096], *at;
	struct iovec vec;
	long ret;

	vec.iov_len = map_part(op, &at);
	vec.iov_base = at;
	ret = vmsplice(self->pipe[1], &vec, 1,
		       SPLICE_F_NONBLOCK | (op->d & 1 ? SPLICE_F_GIFT : 0));
	while (read(self->pipe[0], bytes, sizeof(bytes)) > 0)
		;
	return ret;
}

static long do_user_memory(const struct op *op)
{
	uintptr_t at = USER_ARENA + value(op->e) % USER_BYTES;
	size_t len = value(op->f) % (USER_BYTES / 2);

	at &= ~4095ul;
	if (at + len > USER_ARENA + USER_BYTES)
		len = USER_ARENA + USER_BYTES - at;
	switch (op->d % 4) {
	case 0:
		return madvise((void *)at, len, MADV_DONTNEED);
	case 1:
		return mprotect((void *)at, len, op->g & 3);
	case 2:
		return mmap((void *)at, len, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		       MAP_FAILED ? -1 : 0;
	default:
		return place(at, len, PROT_READ | PROT_WRITE) == MAP_FAILED ?
		       -1 : 0;
	}
}

/* ---- descriptors, processes ---------------------------------------------- */

static long do_close(const struct op *op)
{
	unsigned int slot = op->a < 128 ? op->a % BUFFERS : op->a % FIRST_FILE;
	int fd = __atomic_exchange_n(&rig.slots[slot], EMPTY, __ATOMIC_RELAXED);

	return fd < 0 ? -1 : close(fd);
}

static long do_dup(const struct op *op)
{
	int fd = fcntl(slot_fd(op->a, 0, FIRST_FILE), F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return -1;
	slot_put(op->b % FIRST_FILE, fd);
	return 0;
}

/* A child has the descriptors, not the mappings; it may be killed at it. */
static long do_fork(const struct op *op)
{
	struct peerdma_file_io arg;
	int status;
	pid_t child;

	child = syscall(SYS_fork);
	if (!child) {
		/* Its faults are its end. */
		self->may_fault = false;
		io_fill(op, &arg, self->segments);
		ioctl(rig.dev, PEERDMA_FILE_IO, &arg);
		if (op->c & 1)
			*(volatile char *)map_at(op->b) = 1;
		syscall(SYS_exit_group, 0);
	}
	if (child < 0)
		return -1;
	if (op->d & 1)
		kill(child, SIGKILL);
	return waitpid(child, &status, 0) == child ? 0 : -1;
}

static long do_dmabuf(const struct op *op)
{
	struct dma_buf_sync sync = { .flags = op->d & 7 };
	struct dma_buf_export_sync_file export = { .flags = op->d & 7 };
	int fd = slot_fd(op->a, 0, BUFFERS);

	switch (op->g % 3) {
	case 0:
		return ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync);
	case 1:
		return ioctl(fd, DMA_BUF_SET_NAME, "fuzzed");
	default:
		if (ioctl(fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &export))
			return -1;
		close(export.fd);
		return 0;
	}
}

/* What files can be asked for: it is not to be of use, but not to harm. */
static long do_fd(const struct op *op)
{
	int fd = op->b & 1 ? rig.dev : slot_fd(op->a, 0, FIRST_FILE);
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN | POLLOUT };
	struct stat info;

	switch (op->g % 7) {
	case 0:
		return poll(&poll_fd, 1, 0);
	case 1:
		return lseek(fd, value(op->e), op->d % 5);
	case 2:
		return fstat(fd, &info);
	case 3:
		return read(fd, self->ram, 64);
	case 4:
		return ftruncate(fd, value(op->e));
	case 5:
		return fsync(fd);
	default:
		/* An eventfd that blocks would stop the program. */
		return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	}
}

/* ---- the GPU, the card, the administrator -------------------------------- */

static long do_gpu_free(const struct op *op)
{
	rig_changed(1u << op->b % RANGES);
	return gpu_free(op->b);
}

static long do_gpu_alloc(const struct op *op)
{
	uint64_t len = op->f ? value(op->f) & 0x3f0000 : range_bytes[op->b %
								     RANGES];

	rig_changed(1u << op->b % RANGES);
	return gpu_alloc(op->b, len);
}

static long do_export(const struct op *op)
{
	struct simgpu_export_fd export = {
		.va = range_at(op->b) + (value(op->e) & 0xfffff000),
		.len = op->f ? value(op->f) & 0xfffff000 : 65536,
	};

	if (gpu_call(SIMGPU_EXPORT, &export))
		return -1;
	slot_put(op->a % BUFFERS, export.out_fd);
	return 0;
}

static long do_card(const struct op *op)
{
	off_t offset = value(op->e) & 0xffffff;

	if (rig.card < 0)
		return -1;
	rig_changed(CHANGED_ATTACHMENT);
	switch (op->g % 3) {
	case 0:
		return ioctl(rig.card, EDU_ATTACH, slot_fd(op->a, 0, BUFFERS));
	case 1:
		return pwrite(rig.card, self->ram, 4096, offset);
	default:
		return pread(rig.card, self->ram, 4096, offset);
	}
}

/* The card gets another driver. Its own one's file is then of no use any more. */
static long do_driver(const struct op *op)
{
	if (!*rig.card_name)
		return -1;
	rig_changed(CHANGED_DRIVER | CHANGED_ATTACHMENT);
	card_driver(op->d % 3);
	return 0;
}

/* The GPU's driver goes, or the GPU; it comes back when its file is closed. */
static long do_gpu_goes(const struct op *op)
{
	bool removed = op->d >= 192;
	long ret;

	if (self->index == THREADS - 1)
		return -1;
	if (removed)
		text_to_device(rig.gpu_name, "remove", "1");
	else
		text_to("/sys/bus/pci/drivers/simgpu/unbind", rig.gpu_name);
	pthread_rwlock_wrlock(&rig.gpu_lock);
	if (rig.gpu >= 0)
		close(rig.gpu);
	if (removed)
		ret = text_to("/sys/bus/pci/rescan", "1");
	else
		ret = text_to("/sys/bus/pci/drivers/simgpu/bind", rig.gpu_name);
	gpu_open();
	rig_changed(CHANGED_RANGES);
	pthread_rwlock_unlock(&rig.gpu_lock);
	return ret;
}

static long do_quota(const struct op *op)
{
	char text[32];

	rig_changed(CHANGED_QUOTA);
	snprintf(text, sizeof(text), "%llu",
		 op->d & 1 ? 0 : (unsigned long long)value(op->e));
	return text_to("/sys/module/peerdma/parameters/quota_bytes", text);
}

/* For the next call; a kernel without fault injection has no such file. */
static long do_fail(const struct op *op)
{
	if (self->fail_fd < 0)
		return -1;
	self->fail_nth = 1 + op->d % 32;
	return 0;
}

static long do_debugfs(const struct op *op)
{
	int fd = open(op->d & 1 ? "/sys/kernel/debug/peerdma/buffers" :
				  "/sys/kernel/debug/peerdma/counters",
		      O_RDONLY | O_CLOEXEC);
	char bytes[4096];
	ssize_t ret = -1;

	if (fd >= 0) {
		ret = read(fd, bytes, sizeof(bytes));
		close(fd);
	}
	return ret;
}

/* ---- one operation ------------------------------------------------------- */

static long (*const run_verb[NR_VERBS])(const struct op *op) = {
	[VERB_INFO] = do_info,
	[VERB_PIN] = do_pin,
	[VERB_QUERY] = do_query,
	[VERB_FILE_IO] = do_file_io,
	[VERB_COMMAND] = do_command,
	[VERB_REAP] = do_reap,
	[VERB_CANCEL] = do_cancel,
	[VERB_ROUTE] = do_route,
	[VERB_WATCH] = do_watch,
	[VERB_REVOKE] = do_revoke,
	[VERB_MAP_DEVICE] = do_map_device,
	[VERB_PAGES] = do_pages,
	[VERB_MMAP] = do_mmap,
	[VERB_TOUCH] = do_touch,
	[VERB_MUNMAP] = do_munmap,
	[VERB_CLOSE] = do_close,
	[VERB_DUP] = do_dup,
	[VERB_FORK] = do_fork,
	[VERB_GPU_FREE] = do_gpu_free,
	[VERB_GPU_ALLOC] = do_gpu_alloc,
	[VERB_RW] = do_rw,
	[VERB_RING_RW] = do_ring_rw,
	[VERB_RING_FIXED] = do_ring_fixed,
	[VERB_SPLICE] = do_splice,
	[VERB_MADVISE] = do_madvise,
	[VERB_MPROTECT] = do_mprotect,
	[VERB_MREMAP] = do_mremap,
	[VERB_MLOCK] = do_mlock,
	[VERB_DMABUF] = do_dmabuf,
	[VERB_FD] = do_fd,
	[VERB_CARD] = do_card,
	[VERB_DRIVER] = do_driver,
	[VERB_EXPORT] = do_export,
	[VERB_GPU_GOES] = do_gpu_goes,
	[VERB_QUOTA] = do_quota,
	[VERB_FAIL] = do_fail,
	[VERB_RAW] = do_raw,
	[VERB_DEBUGFS] = do_debugfs,
	[VERB_USER_MEMORY] = do_user_memory,
	[VERB_RAM_RW] = do_ram_rw,
};

static void fail_set(unsigned int nth)
{
	char text[8];

	snprintf(text, sizeof(text), "%u", nth);
	if (write(self->fail_fd, text, strlen(text)) < 0)
		self->fail_fd = -1;
}

/* What the verb answered; -1 when it faulted. */
static long op_try(const struct op *op)
{
	long ret;

	if (sigsetjmp(self->fault, 0))
		return -1;
	self->may_fault = true;
	ret = run_verb[op->verb % NR_VERBS](op);
	self->may_fault = false;
	return ret;
}

static void op_run(const struct op *op)
{
	unsigned int verb = op->verb % NR_VERBS;
	bool fail = self->fail_nth && verb != VERB_FAIL;

	self->verb = verb;
	if (fail)
		fail_set(self->fail_nth);
	self->calls[verb]++;
	if (op_try(op) >= 0)
		self->good[verb]++;
	if (fail) {
		self->fail_nth = 0;
		fail_set(0);
	}
}

#endif /* OPS_H */
