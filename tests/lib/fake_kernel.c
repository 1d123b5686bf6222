// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../../include/uapi/peerdma.h"
#include "fake_cuda.h"
#include "fake_kernel.h"

#define NR_MAX	64

#ifndef SYS_cachestat
#define SYS_cachestat	451
#endif

/* Without CUDA there is no fake of it either. */
#pragma weak fake_cuda_find

struct fake_kernel fake_kernel;

/* Every dma-buf that was ever made; memory files are told by inode. */
static struct {
	ino_t inode;
	bool foreign;
	uint64_t offset;
	uint64_t len;
	uint32_t flags;
} bufs[NR_MAX];
static int nr_bufs;

static int provider_fd = -1;
static unsigned char *provider_memory;

int __real_fstat64(int fd, struct stat *st);
int __real_ioctl(int fd, unsigned long request, void *arg);
ssize_t __real_pread64(int fd, void *dst, size_t len, off_t offset);
ssize_t __real_pwrite64(int fd, const void *src, size_t len, off_t offset);
ssize_t __real_preadv64v2(int fd, const struct iovec *vecs, int nr,
			  off_t offset, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *vecs, int nr,
			  off_t offset, int flags);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
int __real_open64(const char *path, int flags, ...);
int __real_poll(struct pollfd *fds, nfds_t nr, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t nr, int timeout);
int __wrap_ioctl(int fd, unsigned long request, void *arg);
ssize_t __wrap_pread64(int fd, void *dst, size_t len, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *src, size_t len, off_t offset);
int __wrap_open64(const char *path, int flags, ...);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd,
		    off_t offset);
void *__real_mmap64(void *addr, size_t len, int prot, int flags, int fd,
		    off_t offset);

void fake_kernel_reset(void)
{
	memset(&fake_kernel, 0, sizeof(fake_kernel));
	nr_bufs = 0;
}

static ino_t inode_of(int fd)
{
	struct stat st;

	return __real_fstat64(fd, &st) ? 0 : st.st_ino;
}

static int answer(int err)
{
	if (!err)
		return 0;
	errno = err;
	return -1;
}

unsigned char *fake_kernel_memory(void)
{
	if (provider_fd >= 0)
		return provider_memory;
	provider_fd = memfd_create("provider", MFD_CLOEXEC);
	if (ftruncate(provider_fd, FAKE_LEN))
		abort();
	provider_memory = mmap(NULL, FAKE_LEN, PROT_READ | PROT_WRITE,
			       MAP_SHARED, provider_fd, 0);
	return provider_memory;
}

/* Gone from @keep on: who touches it has a SIGBUS; FAKE_LEN: all is back. */
void fake_kernel_take_back(size_t keep)
{
	fake_kernel_memory();
	if (ftruncate(provider_fd, keep))
		abort();
}

static int add_buf(int fd, bool foreign, uint64_t offset, uint64_t len,
		   uint32_t flags)
{
	if (nr_bufs == NR_MAX)
		abort();
	bufs[nr_bufs].inode = inode_of(fd);
	bufs[nr_bufs].foreign = foreign;
	bufs[nr_bufs].offset = offset;
	bufs[nr_bufs].len = len;
	bufs[nr_bufs].flags = flags;
	nr_bufs++;
	return fd;
}

int fake_kernel_foreign(size_t len)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);

	if (ftruncate(fd, len))
		abort();
	return add_buf(fd, true, 0, len, 0);
}

/* What is left open shows. */
int fake_kernel_count_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* The last one made of that memory. */
static int find_buf(int fd)
{
	ino_t inode = inode_of(fd);
	int i;

	for (i = nr_bufs - 1; i >= 0; i--)
		if (bufs[i].inode == inode)
			return i;
	return -1;
}

static int find_memory(const struct peerdma_pin *pin, int *fd, uint64_t *offset)
{
	if (fake_cuda_find &&
	    fake_cuda_find(pin->addr, pin->len, fd, offset))
		return 0;
	fake_kernel_memory();
	if (pin->addr < FAKE_ADDR || pin->len > FAKE_LEN ||
	    pin->addr - FAKE_ADDR > FAKE_LEN - pin->len)
		return EFAULT;
	*fd = provider_fd;
	*offset = pin->addr - FAKE_ADDR;
	return 0;
}

static int do_pin(struct peerdma_pin *pin)
{
	uint64_t offset;
	int fd, err;

	if (pin->size != sizeof(*pin) || !pin->len)
		return EINVAL;
	if (fake_kernel.pin_errno)
		return fake_kernel.pin_errno;
	if (strcmp(pin->provider, "nvidia"))
		return ENOENT;
	err = find_memory(pin, &fd, &offset);
	if (err)
		return err;
	fake_kernel.pin_flags = pin->flags;
	pin->out_fd = add_buf(fcntl(fd, F_DUPFD_CLOEXEC, 0), false, offset,
			      pin->len, pin->flags);
	pin->out_page_size = 65536;
	pin->out_offset = offset;
	return 0;
}

static int do_query(struct peerdma_query *query)
{
	int i = find_buf(query->buffer_fd);

	if (fake_kernel.query_errno)
		return fake_kernel.query_errno;
	if (i < 0)
		return EINVAL;
	if (bufs[i].foreign)
		return EOPNOTSUPP;
	strcpy(query->out_provider, "nvidia");
	query->out_offset = bufs[i].offset;
	query->out_len = bufs[i].len;
	query->out_page_size = 65536;
	query->out_state = PEERDMA_BUFFER_PERSISTENT;
	if (bufs[i].flags & PEERDMA_PIN_READ_ONLY)
		query->out_state |= PEERDMA_BUFFER_READ_ONLY;
	query->out_device = PEERDMA_DEVICE(0, 1, 2, 0);
	return 0;
}

static ssize_t move(const struct peerdma_file_io *io,
		    const struct peerdma_file_segment *s, uint64_t offset)
{
	ssize_t limit = fake_kernel.io_limit, n, len = s->len;
	void *bounce;

	if (fake_kernel.io_bad_at && fake_kernel.io_bad_at - s->file_offset <
					     s->len)
		return -EIO;
	if (fake_kernel.io_nothing)
		return 0;
	if (limit && len > limit)
		len = (limit + FAKE_ALIGN - 1) / FAKE_ALIGN * FAKE_ALIGN;
	if (posix_memalign(&bounce, 4096, len))
		return -ENOMEM;
	if (io->flags & PEERDMA_FILE_IO_WRITE) {
		n = __real_pread64(io->buffer_fd, bounce, len, offset);
		n = __real_pwrite64(io->file_fd, bounce, n, s->file_offset);
	} else {
		n = __real_pread64(io->file_fd, bounce, len, s->file_offset);
		if (n > 0)
			n = __real_pwrite64(io->buffer_fd, bounce, n, offset);
	}
	n = n < 0 ? -errno : n;
	free(bounce);
	return limit && n > limit ? limit : n;
}

static int check_segment(const struct peerdma_file_segment *s, uint64_t start,
			 uint64_t len)
{
	if ((s->file_offset | s->len) % FAKE_ALIGN)
		return EINVAL;
	if ((start + s->buffer_offset) % FAKE_MEMORY_ALIGN)
		return EINVAL;
	if (s->buffer_offset > len || s->len > len - s->buffer_offset)
		return ERANGE;
	return 0;
}

static int io_failure(const struct peerdma_file_io *io)
{
	if (!io->nr_segments) {
		fake_kernel.nr_probes++;
		return fake_kernel.probe_errno;
	}
	__atomic_add_fetch(&fake_kernel.nr_file_io, 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&fake_kernel.interrupts, __ATOMIC_RELAXED) > 0 &&
	    __atomic_fetch_sub(&fake_kernel.interrupts, 1,
			       __ATOMIC_RELAXED) > 0)
		return EINTR;
	if (fake_kernel.io_errno && fake_kernel.io_skip-- <= 0)
		return fake_kernel.io_errno;
	return 0;
}

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opened = PTHREAD_COND_INITIALIZER;
static int nr_in_gate;

void fake_kernel_open_gate(void)
{
	pthread_mutex_lock(&gate_lock);
	fake_kernel.gate = 0;
	pthread_cond_broadcast(&gate_opened);
	pthread_mutex_unlock(&gate_lock);
}

int fake_kernel_in_gate(void)
{
	int nr;

	pthread_mutex_lock(&gate_lock);
	nr = nr_in_gate;
	pthread_mutex_unlock(&gate_lock);
	return nr;
}

static void pass_gate(void)
{
	pthread_mutex_lock(&gate_lock);
	nr_in_gate++;
	while (fake_kernel.gate)
		pthread_cond_wait(&gate_opened, &gate_lock);
	nr_in_gate--;
	pthread_mutex_unlock(&gate_lock);
}

static int move_segments(struct peerdma_file_io *io, int buf)
{
	struct peerdma_file_segment *s =
		(struct peerdma_file_segment *)(uintptr_t)io->segments;
	int err, first = 0;
	uint32_t i;

	for (i = 0; i < io->nr_segments; i++) {
		s[i].out_result = 0;
		err = check_segment(&s[i], bufs[buf].offset, bufs[buf].len);
		if (err)
			return err;
	}
	for (i = 0; i < io->nr_segments; i++, s++) {
		s->out_result = move(io, s, bufs[buf].offset + s->buffer_offset);
		if (s->out_result >= 0)
			io->out_bytes += s->out_result;
		else if (!first)
			first = -s->out_result;
	}
	return first;
}

static int do_file_io(struct peerdma_file_io *io)
{
	int i = find_buf(io->buffer_fd), err;

	io->out_device = PEERDMA_DEVICE(0, 3, 0, 0);
	io->out_align = FAKE_ALIGN;
	io->out_memory_align = fake_kernel.io_old ? 0 : FAKE_MEMORY_ALIGN;
	io->out_reason = fake_kernel.io_reason;
	if (i < 0)
		return EINVAL;
	if (bufs[i].foreign)
		return EOPNOTSUPP;
	if (!(fcntl(io->file_fd, F_GETFL) & O_DIRECT))
		return EBADFD;
	if (io->nr_segments)
		pass_gate();
	err = io_failure(io);
	if (err || !io->nr_segments)
		return err;
	io->out_flags = fake_kernel.io_out_flags;
	return move_segments(io, i);
}

static int do_route(struct peerdma_route *route)
{
	route->out_reason = fake_kernel.route_reason;
	route->out_via = PEERDMA_DEVICE(0, 0, 1, 0);
	route->out_distance = 2;
	route->out_translated = 1;
	return fake_kernel.route_errno;
}

static int do_info(struct peerdma_info *info)
{
	strcpy(info->out_providers, "nvidia");
	info->out_verbs = 0x1f;
	info->out_max_segments = PEERDMA_FILE_IO_MAX_SEGMENTS;
	info->out_features = fake_kernel.uring ? PEERDMA_FEATURE_URING : 0;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	if (request == DMA_BUF_IOCTL_SYNC)
		return answer(find_buf(fd) < 0 ? ENOTTY : 0);
	if (fake_kernel.no_pagemap_scan && _IOC_TYPE(request) == 'f')
		return answer(ENOTTY);
	if (_IOC_TYPE(request) != PEERDMA_IOCTL_TYPE)
		return __real_ioctl(fd, request, arg);
	if (fake_kernel.absent)
		return answer(ENOTTY);
	switch (request) {
	case PEERDMA_INFO:
		return answer(do_info(arg));
	case PEERDMA_PIN:
		return answer(do_pin(arg));
	case PEERDMA_QUERY:
		return answer(do_query(arg));
	case PEERDMA_FILE_IO:
		return answer(do_file_io(arg));
	case PEERDMA_ROUTE:
		return answer(do_route(arg));
	default:
		return answer(ENOTTY);
	}
}

static int rw_failure(int fd, off_t offset)
{
	if (!fake_kernel.rw_errno || offset < fake_kernel.rw_offset)
		return 0;
	if (fake_kernel.rw_direct && !(fcntl(fd, F_GETFL) & O_DIRECT))
		return 0;
	return fake_kernel.rw_errno;
}

ssize_t __wrap_pread64(int fd, void *dst, size_t len, off_t offset)
{
	int err = rw_failure(fd, offset);

	atomic_fetch_add(&fake_kernel.nr_preads, 1);
	return err ? answer(err) : __real_pread64(fd, dst, len, offset);
}

ssize_t __wrap_pwrite64(int fd, const void *src, size_t len, off_t offset)
{
	int err = rw_failure(fd, offset);

	return err ? answer(err) : __real_pwrite64(fd, src, len, offset);
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *vecs, int nr,
			  off_t offset, int flags)
{
	fake_kernel.nr_peeks++;
	fake_kernel.nowait_offset = offset;
	if (fake_kernel.no_cachestat && !fake_kernel.stranger)
		return answer(EOPNOTSUPP);
	if (!fake_kernel.resident)
		return answer(EAGAIN);
	return __real_preadv64v2(fd, vecs, nr, offset, flags);
}

/*
 * A ring is a memory file that is mapped as the kernel's would be; but once, so that
 * a sanitizer sees who waits for whom. FILE_IO is done by a thread of its own, and
 * a thread polls for it; reads and writes are done when they are waited for, the
 * last one first.
 */
#define RING_OFFSETS	64
#define RINGS_MAX	32
#define LINE_MAX	64

struct command {
	struct ring *ring;
	struct peerdma_file_io *io;
	uint64_t user_data;
};

static struct ring {
	int fd;
	int event_fd;		/* of one that is polled: readable after a completion */
	bool handed_out[3];	/* the library has mapped, and will unmap: */
	char *submissions;
	char *completions;
	struct io_uring_sqe *commands;
	struct iovec fixed[16];
	unsigned int nr_fixed;	/* places for them */
	struct io_uring_sqe line[LINE_MAX];
	unsigned int nr_line;	/* reads and writes that were taken */
} rings[RINGS_MAX];

static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;

static struct ring *ring_of(int fd)
{
	struct ring *ring, *found = NULL;

	pthread_mutex_lock(&rings_lock);
	for (ring = rings; ring < rings + RINGS_MAX && !found; ring++)
		if (ring->fd && ring->fd == fd)
			found = ring;
	pthread_mutex_unlock(&rings_lock);
	return fake_kernel.uring_real ? NULL : found;
}

static char *map_ring(const struct ring *ring, off_t offset, size_t len)
{
	return __real_mmap64(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED,
			     ring->fd, offset);
}

static void *hand_out(struct ring *ring, int i, void *part)
{
	if (ring->handed_out[i])
		return NULL;
	ring->handed_out[i] = true;
	return part;
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd,
		    off_t offset)
{
	struct ring *ring = fd < 0 ? NULL : ring_of(fd);
	void *part = NULL;

	if (ring && offset == IORING_OFF_SQ_RING)
		part = hand_out(ring, 0, ring->submissions);
	else if (ring && offset == IORING_OFF_CQ_RING)
		part = hand_out(ring, 1, ring->completions);
	else if (ring && offset == IORING_OFF_SQES)
		part = hand_out(ring, 2, ring->commands);
	return part ? part : __real_mmap64(addr, len, prot, flags, fd, offset);
}

/* In the place of one that had the same number, and so was closed, or a new one. */
static struct ring *ring_new(int fd)
{
	struct ring *ring, *found = NULL;

	pthread_mutex_lock(&rings_lock);
	for (ring = rings; ring < rings + RINGS_MAX; ring++) {
		if (ring->fd == fd || (!ring->fd && !found))
			found = ring;
		if (ring->fd == fd)
			break;
	}
	if (!found)
		abort();
	if (found->event_fd)
		close(found->event_fd);
	memset(found, 0, sizeof(*found));
	found->fd = fd;
	pthread_mutex_unlock(&rings_lock);
	return found;
}

static long ring_setup(unsigned int depth, struct io_uring_params *p)
{
	uint32_t entries = 1;
	struct ring *ring;

	__atomic_add_fetch(&fake_kernel.nr_setups, 1, __ATOMIC_RELAXED);
	if (fake_kernel.uring_errno)
		return answer(fake_kernel.uring_errno);
	while (entries < depth)
		entries *= 2;
	p->sq_entries = entries;
	p->cq_entries = 2 * entries;
	p->sq_off.tail = p->cq_off.tail = 4;
	p->sq_off.ring_mask = p->cq_off.ring_mask = 8;
	p->sq_off.array = p->cq_off.cqes = RING_OFFSETS;
	ring = ring_new(memfd_create("ring", MFD_CLOEXEC));
	if (ftruncate(ring->fd, IORING_OFF_SQES + entries * 64))
		abort();
	ring->submissions = map_ring(ring, IORING_OFF_SQ_RING,
				     RING_OFFSETS + entries * 4);
	ring->completions = map_ring(ring, IORING_OFF_CQ_RING,
				     RING_OFFSETS + entries * 2 * 16);
	ring->commands = (void *)map_ring(ring, IORING_OFF_SQES, entries * 64);
	((uint32_t *)ring->submissions)[2] = entries - 1;
	((uint32_t *)ring->completions)[2] = 2 * entries - 1;
	return ring->fd;
}

static void ring_complete(struct ring *ring, uint64_t user_data, int32_t result)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	uint32_t *words = (uint32_t *)ring->completions;
	struct io_uring_cqe *cqes =
		(void *)(ring->completions + RING_OFFSETS);

	pthread_mutex_lock(&lock);
	cqes[words[1] & words[2]].user_data = user_data;
	cqes[words[1] & words[2]].res = result;
	__atomic_store_n(&words[1], words[1] + 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
}

static void *run_command(void *arg)
{
	struct command *command = arg;
	int err = do_file_io(command->io), event_fd;
	uint64_t one = 1;

	/* The completion may be the ring's end. */
	pthread_mutex_lock(&rings_lock);
	event_fd = command->ring->event_fd;
	ring_complete(command->ring, command->user_data, err ? -err :
		      (int32_t)command->io->out_bytes);
	if (event_fd && write(event_fd, &one, sizeof(one)) != sizeof(one))
		abort();
	pthread_mutex_unlock(&rings_lock);
	free(command);
	return NULL;
}

static void start_command(struct ring *ring, const struct io_uring_sqe *sqe)
{
	struct command *command = malloc(sizeof(*command));
	pthread_t thread;
	uint64_t addr;

	if (!command)
		abort();
	memcpy(&addr, (const char *)sqe + 48, sizeof(addr));
	command->ring = ring;
	command->io = (void *)(uintptr_t)addr;
	command->user_data = sqe->user_data;
	__atomic_add_fetch(&fake_kernel.nr_commands, 1, __ATOMIC_RELAXED);
	if (pthread_create(&thread, NULL, run_command, command))
		abort();
	pthread_detach(thread);
}

static bool in_fixed(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	const struct iovec *vec = &ring->fixed[sqe->buf_index];
	uintptr_t start = (uintptr_t)vec->iov_base;

	return sqe->buf_index < ring->nr_fixed && sqe->addr >= start &&
	       sqe->addr + sqe->len <= start + vec->iov_len;
}

static ssize_t read_or_write(const struct ring *ring,
			     const struct io_uring_sqe *sqe)
{
	void *addr = (void *)(uintptr_t)sqe->addr;
	bool fixed = sqe->opcode == IORING_OP_READ_FIXED ||
		     sqe->opcode == IORING_OP_WRITE_FIXED;

	if (fixed && !in_fixed(ring, sqe))
		return answer(EFAULT);
	fake_kernel.nr_fixed += fixed;
	if (sqe->opcode == IORING_OP_READ ||
	    sqe->opcode == IORING_OP_READ_FIXED)
		return __wrap_pread64(sqe->fd, addr, sqe->len, sqe->off);
	return __wrap_pwrite64(sqe->fd, addr, sqe->len, sqe->off);
}

/* What becomes of a read or write; several threads may be at several rings. */
static int32_t outcome(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	ssize_t n;

	pthread_mutex_lock(&lock);
	fake_kernel.nr_requests++;
	n = read_or_write(ring, sqe);
	fake_kernel.nr_failed += n < 0 && errno != fake_kernel.rw_errno;
	n = n < 0 ? -errno : n;
	pthread_mutex_unlock(&lock);
	if (fake_kernel.uring_limit && n > fake_kernel.uring_limit)
		n = fake_kernel.uring_limit;
	return n;
}

static void run_line(struct ring *ring)
{
	const struct io_uring_sqe *sqe;

	while (ring->nr_line) {
		sqe = &ring->line[--ring->nr_line];
		ring_complete(ring, sqe->user_data, outcome(ring, sqe));
	}
}

static long ring_enter(int fd, unsigned int nr, unsigned int least)
{
	struct ring *ring = ring_of(fd);
	uint32_t *words = (uint32_t *)ring->submissions, i;
	struct io_uring_sqe *sqe;

	if (fake_kernel.enter_errno && fake_kernel.enter_skip-- <= 0)
		return answer(fake_kernel.enter_errno);
	for (i = 0; i < nr; i++) {
		sqe = &ring->commands[((uint32_t *)(ring->submissions +
				       RING_OFFSETS))[words[0] & words[2]]];
		words[0]++;
		if (sqe->opcode == 46)
			start_command(ring, sqe);
		else if (ring->nr_line == LINE_MAX)
			abort();
		else
			ring->line[ring->nr_line++] = *sqe;
	}
	if (least)
		run_line(ring);
	return nr;
}

struct update {
	uint32_t first;
	uint32_t reserved;
	uint64_t data;
	uint64_t tags;
	uint32_t nr;
	uint32_t reserved2;
};

static long ring_register(int fd, unsigned int what, const void *arg,
			  unsigned int nr)
{
	struct ring *ring = ring_of(fd);
	const struct update *update = arg;

	if (what == IORING_REGISTER_BUFFERS && nr <= 16) {
		ring->nr_fixed = nr;
		return fake_kernel.table_errno ?
			       answer(fake_kernel.table_errno) : 0;
	}
	if (what != 16 || nr != sizeof(*update) || update->nr != 1 ||
	    update->first >= ring->nr_fixed)
		return answer(EINVAL);
	if (fake_kernel.register_errno && fake_kernel.register_skip-- <= 0)
		return answer(fake_kernel.register_errno);
	ring->fixed[update->first] = *(struct iovec *)(uintptr_t)update->data;
	return 1;
}

static int poll_ring(struct ring *ring, struct pollfd *fds, nfds_t nr,
		     int timeout)
{
	int fd = fds[0].fd, n;
	uint64_t count;

	/* For what has come before it. */
	pthread_mutex_lock(&rings_lock);
	if (!ring->event_fd)
		ring->event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_unlock(&rings_lock);
	fds[0].fd = ring->event_fd;
	n = __real_poll(fds, nr, timeout);
	if (fds[0].revents &&
	    read(ring->event_fd, &count, sizeof(count)) != sizeof(count))
		abort();
	fds[0].fd = fd;
	return n;
}

int __wrap_poll(struct pollfd *fds, nfds_t nr, int timeout)
{
	struct ring *ring = ring_of(fds[0].fd);

	if (!ring)
		return __real_poll(fds, nr, timeout);
	if (nr == 2)
		return poll_ring(ring, fds, nr, timeout);
	run_line(ring);
	return 1;
}

/* Of a file that was just written the truth would not be much of a test. */
static long do_cachestat(int fd, const uint64_t *range, uint64_t *state)
{
	if (fake_kernel.no_cachestat)
		return answer(ENOSYS);
	if (fake_kernel.stranger)
		return answer(EPERM);
	if (fcntl(fd, F_GETFL) < 0)
		return answer(EBADF);
	state[0] = fake_kernel.resident ? (range[1] + 4095) / 4096 + 1 : 0;
	return 0;
}

long __wrap_syscall(long number, ...)
{
	long args[6];
	va_list list;
	int i;

	va_start(list, number);
	for (i = 0; i < 6; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	if (fake_kernel.uring_real && number != SYS_cachestat)
		return __real_syscall(number, args[0], args[1], args[2],
				      args[3], args[4], args[5]);
	if (number == SYS_io_uring_setup)
		return ring_setup(args[0], (void *)args[1]);
	if (number == SYS_io_uring_enter)
		return ring_enter(args[0], args[1], args[2]);
	if (number == SYS_io_uring_register)
		return ring_register(args[0], args[1], (void *)args[2],
				     args[3]);
	return do_cachestat(args[0], (void *)args[1], (void *)args[2]);
}

int __wrap_open64(const char *path, int flags, ...)
{
	const char *prefix = fake_kernel.open_path;
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	atomic_fetch_add(&fake_kernel.nr_opens, 1);
	if (fake_kernel.open_errno && !strncmp(path, prefix, strlen(prefix)))
		return answer(fake_kernel.open_errno);
	return __real_open64(path, flags, mode);
}
