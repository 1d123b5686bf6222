// SPDX-License-Identifier: MIT
/*
 * The library's queue on the kernel's own FILE_IO: by io_uring, and by threads
 * where that is forbidden; in the order of CUDA's streams; and what goes wrong
 * under way.
 *
 * usage: queue BAD [CASE...]
 *   BAD  offset in /mnt/victim of the first sector that cannot be read
 *
 * /out/victim has the file's bytes; /run/good is an ext4 on a slow drive.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <peerdma.h>

#include "../t_counters.h"
#include "../t_pin.h"

#define LEN	((size_t)8 << 20)
#define DEPTH	64
#define FILL	0xc3

static struct peerdma *ctx;
static struct peerdma_buffer *buf;
static uint64_t gpu;			/* of buf */
static unsigned char *bytes, *victim_bytes;
static int victim, good;
static uint64_t bad;
static struct peerdma_completion done[DEPTH];

static struct peerdma_queue *make_queue(uint32_t flags)
{
	PEERDMA_SIZED(peerdma_queue_opts, opts, .flags = flags);
	struct peerdma_queue *queue;

	t_need(!peerdma_queue_create(ctx, DEPTH, &opts, &queue), "a queue");
	return queue;
}

static struct peerdma_io_request request_of(int fd, uint64_t at, uint64_t len)
{
	return (struct peerdma_io_request){
		.size = sizeof(struct peerdma_io_request),
		.user_data = at,
		.buf = buf,
		.fd = fd,
		.file_offset = at,
		.buffer_offset = at,
		.len = len,
	};
}

static void submit(struct peerdma_queue *queue,
		   const struct peerdma_io_request *request)
{
	if (peerdma_queue_submit(queue, request, 1, 0) != 1)
		t_need(false, "a request is taken");
}

static struct peerdma_completion *run(struct peerdma_queue *queue,
				      const struct peerdma_io_request *request)
{
	submit(queue, request);
	if (peerdma_queue_reap(queue, done, 1, 1, NULL) != 1)
		t_need(false, "it is reaped");
	return done;
}

/* The whole file, in pieces, all at once. */
static void fill_queue(struct peerdma_queue *queue, int fd, uint32_t flags)
{
	struct peerdma_io_request r[DEPTH];
	int i;

	for (i = 0; i < DEPTH; i++) {
		r[i] = request_of(fd, i * (LEN / DEPTH), LEN / DEPTH);
		r[i].flags = flags;
	}
	t_is(peerdma_queue_submit(queue, r, DEPTH, 0), DEPTH,
	     "the queue is filled");
	t_result(peerdma_queue_submit(queue, r, 1, 0), -EAGAIN,
		 "it takes no more");
}

static void reap_whole(struct peerdma_queue *queue)
{
	int i, whole = 0, direct = 0;

	t_is(peerdma_queue_reap(queue, done, DEPTH, DEPTH, NULL), DEPTH,
	     "each is reaped");
	for (i = 0; i < DEPTH; i++) {
		whole += done[i].result == (int64_t)(LEN / DEPTH);
		direct += done[i].bytes_direct == LEN / DEPTH;
	}
	t_is(whole, DEPTH, "whole");
	t_is(direct, DEPTH, "by the drive's DMA");
}

static void check_moves(uint32_t flags)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	struct peerdma_queue *queue = make_queue(flags);
	int copy = t_open("/run/good/copy", O_RDWR | O_CREAT | O_DIRECT);
	unsigned char *ram = t_ram(LEN);
	struct pollfd event = {
		.fd = peerdma_queue_eventfd(queue), .events = POLLIN,
	};

	peerdma_queue_info(queue, &info);
	t_is(info.uring, !flags, "an io_uring, or none");
	t_gpu_set(gpu, FILL, LEN);
	fill_queue(queue, good, 0);
	t_is(poll(&event, 1, 60000), 1, "the eventfd tells");
	reap_whole(queue);
	t_is(poll(&event, 1, 0), 0, "... and no longer");
	t_gpu_same(gpu, bytes, LEN, "the file is in the GPU's memory");
	fill_queue(queue, copy, PEERDMA_IO_WRITE);
	reap_whole(queue);
	t_is(pread(copy, ram, LEN, 0), LEN, "the copy is read");
	t_same(ram, bytes, LEN, "and right");
	peerdma_queue_destroy(queue);
	munmap(ram, LEN);
	close(copy);
	unlink("/run/good/copy");
}

static void test_ring(void)
{
	check_moves(0);
}

/* The same memory as CUDA's own dma-buf. */
static void test_exported(void)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts,
		.provider = PEERDMA_PROVIDER_DMA_BUF);
	PEERDMA_SIZED(peerdma_buffer_info, info);
	struct peerdma_buffer *pinned = buf;
	void *addr;

	t_need(!peerdma_buffer_pin(ctx, gpu, LEN, &opts, &buf),
	       "CUDA exports it");
	peerdma_buffer_info(buf, &info);
	t_ok(strcmp(info.provider, "nvidia") && info.provider[0],
	     "its exporter is another: %s", info.provider);
	t_is(info.reason, 0, "files go there");
	t_result(peerdma_buffer_map(buf, NULL, &addr), -EOPNOTSUPP,
		 "the CPU does not map it");
	check_moves(0);
	check_moves(PEERDMA_QUEUE_NO_URING);
	peerdma_buffer_close(buf);
	buf = pinned;
}

static void test_threads(void)
{
	check_moves(PEERDMA_QUEUE_NO_URING);
}

/* What every container runtime forbids. */
static void forbid_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_io_uring_setup, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_io_uring_register, 1,
			 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {
		.len = sizeof(code) / sizeof(code[0]), .filter = code,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		t_need(false, "a filter");
}

/* In a process of its own, since a filter stays; CUDA does not survive a fork. */
static void test_forbidden(void)
{
	pid_t child = fork();
	int status;

	if (!child) {
		execl("/proc/self/exe", "queue", "--forbidden", NULL);
		_exit(127);
	}
	t_is(waitpid(child, &status, 0), child, "a process without io_uring");
	t_is(status, 0, "... moves all the same");
}

static int forbidden(void)
{
	PEERDMA_SIZED(peerdma_queue_info, info);
	struct peerdma_queue *queue;
	unsigned char *ram = t_ram(LEN);
	struct peerdma_io_request request;
	bool fine;

	forbid_uring();
	good = open("/run/good/file", O_RDONLY | O_DIRECT);
	if (good < 0 || pread(good, ram, LEN, 0) != (ssize_t)LEN ||
	    peerdma_open(&ctx, NULL) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_queue_create(ctx, 2, NULL, &queue) ||
	    peerdma_queue_info(queue, &info))
		return 2;
	request = request_of(good, 0, LEN);
	bytes = t_ram(LEN);
	fine = !info.uring &&
	       run(queue, &request)->bytes_direct == LEN &&
	       !peerdma_buffer_copy_out(buf, 0, bytes, LEN) &&
	       !memcmp(bytes, ram, LEN);
	peerdma_queue_destroy(queue);
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	return fine ? 0 : 1;
}

/* Bytes count up to the bad sector at most, and those that count are there. */
static void check_bad(struct peerdma_queue *queue, uint64_t len, int error,
		      const char *what)
{
	struct peerdma_io_request request = request_of(victim, bad - len / 2,
						       len);
	const struct peerdma_completion *c;

	request.buffer_offset = 0;
	t_gpu_set(gpu, FILL, LEN);
	c = run(queue, &request);
	t_result(c->error, error, "%s: the error", what);
	t_ok(c->result == error || (c->result > 0 &&
				   c->result <= (int64_t)(len / 2)),
	     "... and no byte behind it: %lld", (long long)c->result);
	if (c->result > 0)
		t_gpu_same(gpu, victim_bytes + request.file_offset, c->result,
			   "... those before it are there");
}

static void test_bad_sector(void)
{
	/* What a drive calls it differs from kernel to kernel. */
	int error = pread(victim, t_ram(512), 512, bad) < 0 ? -errno : 0;
	uint32_t flags;

	t_ok(error < 0, "a sector cannot be read: %s", t_errno_name(error));
	for (flags = 0; flags <= PEERDMA_QUEUE_NO_URING; flags++) {
		struct peerdma_queue *queue = make_queue(flags);
		struct peerdma_io_request request = request_of(victim, 0, 8192);

		check_bad(queue, 8192, error, "two blocks");
		check_bad(queue, 1 << 20, error, "a megabyte");
		t_is(run(queue, &request)->result, 8192,
		     "the next one is fine");
		peerdma_queue_destroy(queue);
	}
}

/* A file that gets shorter: the bytes that count are its bytes. */
static void test_truncated(void)
{
	struct peerdma_queue *queue = make_queue(0);
	int fd = t_file_make("/run/good/short", bytes, LEN), i, wrong = 0;
	unsigned char *ram = t_ram(LEN);

	t_gpu_set(gpu, FILL, LEN);
	fill_queue(queue, fd, 0);
	t_is(ftruncate(fd, LEN / 2 + 100), 0, "the file is cut off");
	t_is(peerdma_queue_reap(queue, done, DEPTH, DEPTH, NULL), DEPTH,
	     "each is reaped");
	t_gpu_read(ram, gpu, LEN);
	for (i = 0; i < DEPTH; i++) {
		uint64_t at = done[i].user_data;

		wrong += done[i].error || done[i].result < 0 ||
			 (at < LEN / 2 &&
			  done[i].result != (int64_t)(LEN / DEPTH)) ||
			 memcmp(ram + at, bytes + at, done[i].result);
	}
	t_is(wrong, 0, "with bytes of the file, as many as it says");
	peerdma_queue_destroy(queue);
	munmap(ram, LEN);
	close(fd);
}

static void test_revoked(void)
{
	struct peerdma_queue *queue;
	struct peerdma_io_request request;
	int dev = t_device_open(), i, wrong = 0;
	struct peerdma_buffer *kept = buf;
	uint32_t flags;

	for (flags = 0; flags <= PEERDMA_QUEUE_NO_URING; flags++) {
		t_need(!peerdma_buffer_alloc(ctx, LEN, NULL, &buf),
		       "a buffer");
		queue = make_queue(flags);
		fill_queue(queue, good, 0);
		t_is(t_revoke(dev, peerdma_buffer_fd(buf)), 0,
		     "it is taken back");
		t_is(peerdma_queue_reap(queue, done, DEPTH, DEPTH, NULL),
		     DEPTH, "each is reaped");
		for (i = 0; i < DEPTH; i++)
			wrong += done[i].result != (int64_t)(LEN / DEPTH) &&
				 done[i].error != -ENODEV;
		t_is(wrong, 0, "whole, or ENODEV");
		request = request_of(good, 0, 4096);
		request.path = PEERDMA_PATH_DIRECT;
		t_result(run(queue, &request)->result, -ENODEV,
			 "later ones do not begin");
		peerdma_queue_destroy(queue);
		peerdma_buffer_close(buf);
	}
	buf = kept;
	close(dev);
}

/* Return: so many never began. */
static int cancel_all(struct peerdma_queue *queue, int *wrong)
{
	struct peerdma_io_request r[DEPTH];
	int i, told, cancelled = 0;

	for (i = 0; i < DEPTH; i++)
		r[i] = request_of(good, i * (LEN / DEPTH), LEN / DEPTH);
	*wrong += peerdma_queue_submit(queue, r, DEPTH, 0) != DEPTH;
	told = peerdma_queue_cancel(queue, 0, PEERDMA_CANCEL_ALL);
	*wrong += peerdma_queue_reap(queue, done, DEPTH, DEPTH, NULL) != DEPTH;
	for (i = 0; i < DEPTH; i++) {
		cancelled += done[i].error == -ECANCELED;
		*wrong += done[i].error != -ECANCELED &&
			  done[i].result != (int64_t)(LEN / DEPTH);
	}
	*wrong += cancelled && told <= 0;
	return cancelled;
}

/* A busy machine may be done with all before it is asked to cancel: again. */
static void test_cancelled(void)
{
	PEERDMA_SIZED(peerdma_queue_opts, opts, .threads = 1,
		.flags = PEERDMA_QUEUE_NO_URING);
	struct peerdma_queue *queue;
	int i, wrong = 0, cancelled = 0;

	t_need(!peerdma_queue_create(ctx, DEPTH, &opts, &queue), "a queue");
	for (i = 0; i < 100 && !cancelled; i++)
		cancelled = cancel_all(queue, &wrong);
	t_ok(cancelled > 0, "some never began");
	t_is(wrong, 0, "all were taken and reaped, the others whole");
	peerdma_queue_destroy(queue);
}

static void test_destroyed(void)
{
	uint32_t flags;

	for (flags = 0; flags <= PEERDMA_QUEUE_NO_URING; flags++) {
		struct peerdma_queue *queue = make_queue(flags);

		fill_queue(queue, good, 0);
		peerdma_queue_destroy(queue);
		t_ok(t_wait_for(!t_counter("file_ios")),
		     "nothing is in flight");
	}
}

/* Fills its queue for ever. */
static int victim_of_kill(void)
{
	struct peerdma_queue *queue;
	struct peerdma_io_request r[DEPTH];
	int fd = open("/run/good/file", O_RDONLY | O_DIRECT), i;

	if (fd < 0 || peerdma_open(&ctx, NULL) ||
	    peerdma_buffer_alloc(ctx, LEN, NULL, &buf) ||
	    peerdma_queue_create(ctx, DEPTH, NULL, &queue))
		return 1;
	for (i = 0; i < DEPTH; i++)
		r[i] = request_of(fd, i * (LEN / DEPTH), LEN / DEPTH);
	for (i = 0;; i++) {
		peerdma_queue_submit(queue, r, DEPTH, 0);
		if (!i && write(STDOUT_FILENO, "!", 1) != 1)
			return 1;
		peerdma_queue_reap(queue, done, 1, DEPTH, NULL);
	}
}

static void test_killed(void)
{
	int ready[2], status, i;
	char byte;
	pid_t child;

	for (i = 0; i < 5; i++) {
		if (pipe(ready))
			t_need(false, "a pipe");
		child = fork();
		if (!child) {
			dup2(ready[1], STDOUT_FILENO);
			close(ready[1]);
			execl("/proc/self/exe", "queue", "--victim", NULL);
			_exit(127);
		}
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			t_need(false, "the victim is ready");
		t_sleep_ms(i * 7);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		t_ok(WIFSIGNALED(status), "killed with a full queue");
		close(ready[0]);
	}
}

/* ---- streams ------------------------------------------------------------- */

static atomic_int gate;

static void wait_at_gate(void *data)
{
	(void)data;
	while (atomic_load(&gate))
		t_sleep_ms(1);
}

/* memset, write, memset, read, copy: each needs the one before. */
static void check_stream(CUstream stream, const char *what)
{
	struct peerdma_queue *queue = make_queue(0);
	int fd = t_open("/run/good/stream", O_RDWR | O_CREAT | O_TRUNC |
						     O_DIRECT);
	struct peerdma_io_request write = request_of(fd, 0, LEN / 8);
	struct peerdma_io_request read = write;
	unsigned char *want = t_ram(LEN / 8), *ram = t_ram(LEN / 8);
	void *seen;

	memset(want, 0x77, LEN / 8);
	t_need(!cuMemAllocHost(&seen, LEN / 8), "pinned memory");
	write.flags = PEERDMA_IO_STREAM | PEERDMA_IO_WRITE;
	read.flags = PEERDMA_IO_STREAM;
	write.stream = read.stream = stream;
	atomic_store(&gate, 1);
	cuLaunchHostFunc(stream, wait_at_gate, NULL);
	cuMemsetD8Async(gpu, 0x77, LEN / 8, stream);
	submit(queue, &write);
	cuMemsetD8Async(gpu, 0x11, LEN / 8, stream);
	submit(queue, &read);
	cuMemcpyDtoHAsync(seen, gpu, LEN / 8, stream);
	t_is(peerdma_queue_reap(queue, done, 0, 2, NULL), 0,
	     "%s: nothing begins before its time", what);
	atomic_store(&gate, 0);
	t_is(cuStreamSynchronize(stream), CUDA_SUCCESS, "the stream ends");
	t_same(seen, want, LEN / 8, "what follows sees what was read");
	t_is(peerdma_queue_reap(queue, done, 2, 2, NULL), 2, "both are reaped");
	t_is(done[0].result + done[1].result, LEN / 4, "whole");
	t_is(pread(fd, ram, LEN / 8, 0), LEN / 8, "the file is read");
	t_same(ram, want, LEN / 8, "it has what came before the write");
	/* An error is told, and does not stop the stream. */
	read.fd = -1;
	submit(queue, &read);
	t_is(cuStreamSynchronize(stream), CUDA_SUCCESS,
	     "the stream goes on after an error");
	t_is(peerdma_queue_reap(queue, done, 1, 1, NULL), 1, "it is reaped");
	t_result(done[0].error, -EBADF, "with the error");
	peerdma_queue_destroy(queue);
	cuMemFreeHost(seen);
	munmap(want, LEN / 8);
	munmap(ram, LEN / 8);
	close(fd);
}

static void test_streams(void)
{
	CUcontext context;
	CUstream stream;
	CUdevice device;

	cuDeviceGet(&device, 0);
	t_need(!cuDevicePrimaryCtxRetain(&context, device) &&
	       !cuCtxPushCurrent(context), "the primary context");
	t_need(!cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "a stream");
	check_stream(stream, "a non-blocking stream");
	cuStreamDestroy(stream);
	t_need(!cuStreamCreate(&stream, 0), "a stream");
	check_stream(stream, "a blocking stream");
	cuStreamDestroy(stream);
	check_stream(NULL, "the default stream");
	cuCtxPopCurrent(&context);
	cuDevicePrimaryCtxRelease(device);
}

/* ---- all ----------------------------------------------------------------- */

static void make_all(void)
{
	PEERDMA_SIZED(peerdma_buffer_info, info);
	int fd = t_open("/out/victim", O_RDONLY);

	bytes = t_ram(LEN);
	victim_bytes = t_ram(LEN);
	t_fill(bytes, LEN, 1);
	if (read(fd, victim_bytes, LEN) != (ssize_t)LEN)
		t_need(false, "the victim's bytes");
	close(fd);
	victim = t_open("/mnt/victim", O_RDONLY | O_DIRECT);
	t_need(victim >= 0, "the victim");
	good = t_file_make("/run/good/file", bytes, LEN);
	t_gpu_init();
	t_need(!peerdma_open(&ctx, NULL), "a context");
	t_need(!peerdma_buffer_alloc(ctx, LEN, NULL, &buf) &&
	       !peerdma_buffer_info(buf, &info), "a buffer");
	gpu = info.device_addr;
}

static void drop_all(void)
{
	peerdma_buffer_close(buf);
	peerdma_close(ctx);
	t_nothing_left();
}

int main(int argc, char **argv)
{
	static const struct t_case cases[] = {
		{ "ring", test_ring },
		{ "exported", test_exported },
		{ "threads", test_threads },
		{ "forbidden", test_forbidden },
		{ "bad sector", test_bad_sector },
		{ "truncated", test_truncated },
		{ "revoked", test_revoked },
		{ "cancelled", test_cancelled },
		{ "destroyed", test_destroyed },
		{ "killed", test_killed },
		{ "streams", test_streams },
		{ "nothing left", drop_all },
	};

	if (argc > 1 && !strcmp(argv[1], "--forbidden"))
		return forbidden();
	if (argc > 1 && !strcmp(argv[1], "--victim"))
		return victim_of_kill();
	if (argc < 2)
		return 2;
	bad = strtoull(argv[1], NULL, 0);
	t_tap.name = "all";
	make_all();
	argc--;
	argv++;
	return T_RUN(cases, NULL);
}
