// SPDX-License-Identifier: MIT
/*
 * PAGES, sentence by sentence of include/uapi/peerdma.h: the mapping as memory, who
 * may have it, and who holds a page.
 *
 * usage: pages [CASE...]
 *        pages 'no route'    on a machine whose host bridge is not known to route
 *
 * Writes over the first 4 MiB of the first drive. held.h says what else it wants.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_touch.h"
#include "held.h"

#define PAGE	4096u
#define LEN	(4u << 20)
#define CANARY	0xc5
#define HOLD	"--hold"

static int dev, drive;
static struct t_buffer buffer;
static unsigned char *bytes, *ram;

static int map_errno(int fd, size_t len, int prot, int flags, off_t offset)
{
	void *at = mmap(NULL, len, prot, flags, fd, offset);

	if (at == MAP_FAILED)
		return -errno;
	munmap(at, len);
	return 0;
}

/* ---- as memory ----------------------------------------------------------- */

static void test_memory(void)
{
	unsigned char *at = t_pages_map(dev, buffer.fd, LEN);
	struct iovec here = { ram, LEN }, there = { at, LEN };
	int pipe_ends[2], fd;

	t_same(at, bytes, LEN, "its bytes are CUDA's");
	t_fill(bytes, LEN, 2);
	memcpy(at, bytes, LEN);
	t_gpu_same(buffer.ptr, bytes, LEN, "CUDA has what the CPU wrote");
	t_is(process_vm_readv(getpid(), &here, 1, &there, 1, 0), LEN,
	     "process_vm_readv()");
	t_same(ram, bytes, LEN, "... is right");
	fd = t_open("/proc/self/mem", O_RDWR);
	t_fill(ram, LEN, 4);
	t_is(pwrite(fd, ram, LEN, (uintptr_t)at), LEN, "/proc/self/mem");
	t_gpu_same(buffer.ptr, ram, LEN, "... is right");
	close(fd);
	fd = t_open("/tmp/file", O_RDWR | O_CREAT);
	t_is(write(fd, at, LEN), LEN, "write() to a file in memory");
	t_gpu_set(buffer.ptr, 0, LEN);
	t_is(pread(fd, at, LEN, 0), LEN, "read() from it");
	t_gpu_same(buffer.ptr, ram, LEN, "... is right");
	close(fd);
	t_need(!pipe(pipe_ends), "a pipe");
	there.iov_len = 4 * PAGE;
	t_is(vmsplice(pipe_ends[1], &there, 1, 0), 4 * PAGE, "vmsplice()");
	t_is(read(pipe_ends[0], bytes, 4 * PAGE), 4 * PAGE, "... is read");
	t_same(bytes, ram, 4 * PAGE, "... right");
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	munmap(at, LEN);
}

static void test_parts(void)
{
	struct peerdma_page_map arg;
	int fd = t_pages(dev, buffer.fd, 0, &arg);
	unsigned char *at;

	t_need(fd >= 0, "a descriptor");
	t_is(fcntl(fd, F_GETFD), FD_CLOEXEC, "it is close-on-exec");
	t_is(arg.out_reason, PEERDMA_REASON_NONE, "there is no reason");
	at = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, fd, LEN - 3 * PAGE);
	t_need(at != MAP_FAILED, "its last pages are mapped");
	t_same(at, bytes + LEN - 3 * PAGE, 3 * PAGE, "... are those bytes");
	t_is(t_touch(at, true), SIGSEGV, "... and not to be written");
	munmap(at, 3 * PAGE);
	t_result(map_errno(fd, LEN, PROT_READ, MAP_PRIVATE, 0), -EINVAL,
		 "a private mapping");
	t_result(map_errno(fd, LEN + PAGE, PROT_READ, MAP_SHARED, 0), -EINVAL,
		 "a page too much");
	t_result(map_errno(fd, PAGE, PROT_READ, MAP_SHARED, LEN), -EINVAL,
		 "past the end");
	t_result(map_errno(fd, LEN, PROT_READ, MAP_SHARED, PAGE), -EINVAL,
		 "across the end");
	t_result(map_errno(fd, 2 * PAGE, PROT_READ, MAP_SHARED, -PAGE & INT64_MAX),
		 -EINVAL, "far from the end");
	close(fd);
}

static void test_read_only(void)
{
	struct peerdma_page_map arg;
	struct peerdma_pin pin;
	unsigned char *at;
	int pinned, fd;

	pinned = t_pin(dev, buffer.ptr, LEN, PEERDMA_PIN_READ_ONLY, &pin);
	fd = t_pages(dev, pinned, 0, &arg);
	t_need(fd >= 0, "pages of a read-only pin");
	t_result(map_errno(fd, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, 0),
		 -EACCES, "they are not mapped for writing");
	at = mmap(NULL, LEN, PROT_READ, MAP_SHARED, fd, 0);
	t_need(at != MAP_FAILED, "they are mapped for reading");
	t_result(mprotect(at, LEN, PROT_READ | PROT_WRITE) ? -errno : 0,
		 -EACCES, "... and stay so");
	t_is(pread(drive, at, LEN, 0), -1, "nothing is read into them");
	t_is(pwrite(drive, at, LEN, 0), LEN, "they are written");
	t_is(pread(drive, ram, LEN, 0), LEN, "... and read");
	t_same(ram, bytes, LEN, "... right");
	munmap(at, LEN);
	close(fd);
	close(pinned);
}

static int child_touches(void *at)
{
	return t_touch(at, true);
}

static int child_reads(void *at)
{
	return pread(drive, at, LEN, 0) != LEN;
}

static void test_reshaped(void)
{
	unsigned char *at = t_pages_map(dev, buffer.fd, LEN), *moved;

	t_is(pwrite(drive, bytes, LEN, 0), LEN, "the drive has bytes");
	t_is(t_touch(at, true), 0, "the mapping is used");
	t_is(t_child(child_touches, at), SIGSEGV, "a child does not inherit it");
	t_is(mprotect(at, PAGE, PROT_READ), 0, "a page becomes read-only");
	t_is(t_touch(at, true), SIGSEGV, "... and is");
	t_is(mprotect(at, PAGE, PROT_READ | PROT_WRITE), 0, "and back");
	t_is(t_touch(at, true), 0, "... it is");
	t_is(madvise(at, LEN, MADV_DONTNEED), 0, "MADV_DONTNEED");
	t_same(at, bytes, LEN, "... changes nothing");
	t_ok(mremap(at, LEN, LEN + PAGE, MREMAP_MAYMOVE) == MAP_FAILED,
	     "it does not grow");
	munmap(at, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	moved = mremap(at, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED,
		       t_ram(LEN));
	t_need(moved != MAP_FAILED, "it moves");
	t_same(moved, bytes, LEN, "... with its bytes");
	t_gpu_set(buffer.ptr, 0, LEN);
	/* Not all kernels let a process undo that children do not inherit. */
	if (madvise(moved, LEN, MADV_DOFORK)) {
		t_result(-errno, -EINVAL, "children cannot be made to inherit");
		t_is(pread(drive, moved, LEN, 0), LEN, "... it is read into");
	} else {
		t_is(t_child(child_reads, moved), 0, "a child reads into it");
	}
	t_gpu_same(buffer.ptr, bytes, LEN, "... what arrives");
	munmap(moved + LEN / 2, PAGE);
	t_is(t_touch(moved + LEN / 2 - PAGE, true), 0, "before a cut it is used");
	t_is(t_touch(moved + LEN / 2 + PAGE, true), 0, "... and behind it");
	munmap(moved, LEN);
}

/* ---- who may ------------------------------------------------------------- */

static int child_asks(void *data)
{
	struct peerdma_page_map arg;
	int plain, any;

	(void)data;
	if (setuid(65534))
		return 1;
	plain = t_pages(dev, buffer.fd, 0, &arg);
	any = t_pages(dev, buffer.fd, PEERDMA_PAGES_ANY_ROUTE, &arg);
	return plain >= 0 && any == -EPERM ? 0 : 2;
}

static int child_has_none_left(void *data)
{
	struct rlimit none = { 3, 3 };
	struct peerdma_page_map arg;

	(void)data;
	if (setrlimit(RLIMIT_NOFILE, &none))
		return 1;
	return t_pages(dev, buffer.fd, 0, &arg) == -EMFILE ? 0 : 2;
}

static void test_refused(void)
{
	struct peerdma_page_map arg;
	int pages;

	t_result(t_pages(dev, -1, 0, &arg), -EBADF, "no descriptor");
	t_result(t_pages(dev, drive, 0, &arg), -EINVAL, "a drive");
	t_result(t_pages(dev, dev, 0, &arg), -EINVAL, "/dev/peerdma");
	t_result(t_pages(dev, buffer.fd, 2, &arg), -EOPNOTSUPP, "a flag");
	pages = t_pages(dev, buffer.fd, 0, &arg);
	t_result(t_pages(dev, pages, 0, &arg), -EINVAL, "pages of pages");
	close(pages);
	t_is(t_child(child_has_none_left, NULL), 0, "no number is left");
	t_is(t_counter("page_maps"), 0, "nothing came of it");
}

static void test_revocable(void)
{
	struct peerdma_page_map arg;
	struct peerdma_pin pin;
	int fd = t_pin(dev, buffer.ptr, LEN, PEERDMA_PIN_REVOCABLE, &pin);

	t_result(t_pages(dev, fd, 0, &arg), -EREMOTEIO, "there are no pages");
	t_is(arg.out_reason, PEERDMA_REASON_REVOCABLE, "... for this reason");
	t_is(arg.out_device, PEERDMA_DEVICE_NONE, "... and for no device");
	t_result(t_pages(dev, fd, PEERDMA_PAGES_ANY_ROUTE, &arg), -EREMOTEIO,
		 "whatever the route");
	close(fd);
}

static void test_ordinary_memory(void)
{
	struct peerdma_pin pin = {
		.provider = "user",
		.addr = (uintptr_t)ram,
		.len = LEN,
	};
	struct peerdma_page_map arg;
	int fd = t_pin_range(dev, &pin);

	t_need(fd >= 0, "ordinary memory is pinned");
	t_result(t_pages(dev, fd, 0, &arg), -EREMOTEIO, "there are no pages");
	t_is(arg.out_reason, PEERDMA_REASON_BORROWED_PAGES, "... of ours");
	close(fd);
}

static void test_any_route(void)
{
	struct peerdma_page_map arg;
	int fd;

	t_is(t_child(child_asks, NULL), 0,
	     "an ordinary user may not do without the routes");
	fd = t_pages(dev, buffer.fd, PEERDMA_PAGES_ANY_ROUTE, &arg);
	t_ok(fd >= 0, "root may");
	close(fd);
}

/* On a machine whose host bridge is not known to route. */
static void no_route(void)
{
	struct peerdma_page_map arg;
	int fd;

	t_result(t_pages(dev, buffer.fd, 0, &arg), -EREMOTEIO,
		 "a device does not reach the memory");
	t_is(arg.out_reason, PEERDMA_REASON_HOST_BRIDGE, "... for this reason");
	t_ok(arg.out_device != PEERDMA_DEVICE_NONE, "... and is named");
	fd = t_pages(dev, buffer.fd, PEERDMA_PAGES_ANY_ROUTE, &arg);
	t_ok(fd >= 0, "root may do without");
	close(fd);
}

/* ---- who holds a page ---------------------------------------------------- */

/*
 * The next memory that the GPU has to give becomes somebody else's; simgpu gives
 * first what it got back last.
 */
static void canaries_place(uint64_t *canaries, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		canaries[i] = t_gpu_alloc(LEN);
		t_gpu_set(canaries[i], CANARY, LEN);
	}
}

static void canaries_check(uint64_t *canaries, size_t nr)
{
	unsigned char *want = t_ram(LEN);
	size_t i, bad = 0;

	memset(want, CANARY, LEN);
	for (i = 0; i < nr; i++) {
		t_gpu_read(ram, canaries[i], LEN);
		bad += memcmp(ram, want, LEN) != 0;
		t_gpu_free(canaries[i]);
	}
	munmap(want, LEN);
	t_is(bad, 0, "nobody else's memory has changed");
}

#define NR_CANARIES	8

/* All descriptors and mappings go before the drive has moved a byte. */
static void test_in_flight(void)
{
	struct t_buffer own;
	struct io_uring ring;
	unsigned char *at;

	t_is(pwrite(drive, bytes, LEN, 0), LEN, "the drive has bytes");
	t_buffer_make(&own, dev, LEN);
	t_gpu_set(own.ptr, 0, LEN);
	at = t_pages_map(dev, own.fd, LEN);
	hold(&ring, at, LEN);
	munmap(at, LEN);
	close(own.fd);
	t_ok(t_wait_for(t_counter("held_page_maps") == 1),
	     "a read in flight alone holds the pages");
	t_is(t_counter("buffers"), 2, "... and the pin");
	t_is(t_counter("cpu_maps"), 0, "nothing is mapped");
	t_result(let_go(&ring), LEN, "the read ends");
	t_gpu_same(own.ptr, bytes, LEN, "... right");
	t_ok(t_wait_for(!t_counter("page_maps") && t_counter("buffers") == 1),
	     "a worker ends the pin");
	t_gpu_free(own.ptr);
}

/* Its owner has freed the memory, too; what arrives harms nobody. */
static void test_in_flight_freed(void)
{
	uint64_t canaries[NR_CANARIES];
	struct t_buffer own;
	struct io_uring ring;
	unsigned char *at;

	t_buffer_make(&own, dev, LEN);
	at = t_pages_map(dev, own.fd, LEN);
	hold(&ring, at, LEN);
	munmap(at, LEN);
	t_buffer_drop(&own);
	canaries_place(canaries, NR_CANARIES);
	t_ok(t_gpu_counter("pinned") >= 2 * LEN, "simgpu keeps it pinned");
	t_result(let_go(&ring), LEN, "the read ends");
	canaries_check(canaries, NR_CANARIES);
}

/* Registers the whole mapping; false where the kernel does not. */
static bool hold_registered(struct io_uring *ring, unsigned char *at)
{
	struct iovec whole = { at, LEN };
	int ret = io_uring_queue_init(4, ring, 0);

	t_need(!ret, "a ring");
	ret = io_uring_register_buffers(ring, &whole, 1);
	if (!ret)
		return true;
	io_uring_queue_exit(ring);
	if (ret != -EOPNOTSUPP)
		t_result(ret, 0, "the mapping is registered");
	t_skip("a registered buffer", "this kernel registers no such mapping");
	return false;
}

/*
 * The registered buffer's pages, by their old address: the kernel looks at the
 * registration only. Brings the drive's bytes to where the pages are.
 */
static long long read_into_held(struct io_uring *ring, void *at)
{
	struct io_uring_cqe *cqe;
	long long ret;

	io_uring_prep_read_fixed(io_uring_get_sqe(ring), drive, at, LEN, 0, 0);
	io_uring_submit(ring);
	io_uring_wait_cqe(ring, &cqe);
	ret = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return ret;
}

static void test_registered(void)
{
	uint64_t canaries[NR_CANARIES];
	struct t_buffer own;
	struct io_uring ring;
	unsigned char *at;

	t_buffer_make(&own, dev, LEN);
	at = t_pages_map(dev, own.fd, LEN);
	if (!hold_registered(&ring, at)) {
		munmap(at, LEN);
		t_buffer_drop(&own);
		return;
	}
	t_is(pwrite(drive, bytes, LEN, 0), LEN, "the drive has bytes");
	munmap(at, LEN);
	t_buffer_drop(&own);
	t_ok(t_wait_for(t_counter("held_page_maps") == 1),
	     "a registered buffer alone holds the pages");
	t_is(t_counter("buffers"), 2, "... and the pin");
	t_ok(t_gpu_counter("pinned") >= 2 * LEN, "... at simgpu too");
	canaries_place(canaries, NR_CANARIES);
	t_result(read_into_held(&ring, at), LEN, "it is read into");
	canaries_check(canaries, NR_CANARIES);
	t_is(t_counter("held_page_maps"), 1, "it is still held");
	t_is(io_uring_unregister_buffers(&ring), 0, "it is let go");
	t_ok(t_wait_for(!t_counter("page_maps") && t_counter("buffers") == 1),
	     "the pin ends");
	io_uring_queue_exit(&ring);
}

/* Two pages in a pipe, and copies of them by tee(). */
static void test_pipe(void)
{
	struct t_buffer own;
	struct iovec part;
	int one[2], two[2];
	unsigned char *at;

	t_buffer_make(&own, dev, LEN);
	t_gpu_write(own.ptr, bytes, LEN);
	at = t_pages_map(dev, own.fd, LEN);
	part = (struct iovec){ at + LEN - 2 * PAGE, 2 * PAGE };
	t_need(!pipe(one) && !pipe(two), "pipes");
	t_is(vmsplice(one[1], &part, 1, 0), 2 * PAGE, "pages go into a pipe");
	munmap(at, LEN);
	t_buffer_drop(&own);
	t_ok(t_wait_for(t_counter("held_page_maps") == 1), "they are held");
	t_is(tee(one[0], two[1], 2 * PAGE, 0), 2 * PAGE, "they are copied");
	close(one[0]);
	close(one[1]);
	t_sleep_ms(500);
	t_is(t_counter("held_page_maps"), 1, "the copy holds them");
	t_is(read(two[0], ram, 2 * PAGE), 2 * PAGE, "it is read");
	t_same(ram, bytes + LEN - 2 * PAGE, 2 * PAGE, "... right");
	t_ok(t_wait_for(!t_counter("page_maps")), "nobody holds them any more");
	close(two[0]);
	close(two[1]);
}

static int module_unload(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? -errno : 0;
}

static void test_modules(void)
{
	struct io_uring ring;
	unsigned char *at = t_pages_map(dev, buffer.fd, LEN);

	hold(&ring, at, LEN);
	close(dev);
	close(buffer.fd);
	t_result(module_unload("peerdma_nvidia"), -EAGAIN,
		 "pages hold peerdma_nvidia");
	t_result(module_unload("peerdma"), -EAGAIN, "... and peerdma");
	munmap(at, LEN);
	t_result(module_unload("peerdma_nvidia"), -EAGAIN,
		 "so do pages that are held");
	t_result(module_unload("peerdma"), -EAGAIN, "... and peerdma");
	t_result(let_go(&ring), LEN, "they are let go");
	dev = t_device_open();
	buffer.fd = t_pin(dev, buffer.ptr, LEN, 0, &buffer.pin);
	t_ok(buffer.fd >= 0, "the modules still work");
}

/* A process of its own, since CUDA does not outlive fork(). */
static int hold_and_die(void)
{
	struct t_buffer own;
	struct io_uring ring;

	t_buffer_make(&own, dev, LEN);
	hold(&ring, t_pages_map(dev, own.fd, LEN), LEN);
	fflush(stdout);
	kill(getpid(), SIGKILL);
	return 1;
}

static int become(void *data)
{
	/* Its points are not to be counted with its parent's. */
	if (freopen("/dev/null", "w", stdout))
		execl("/proc/self/exe", "pages", (const char *)data, NULL);
	return 1;
}

static void test_killed(void)
{
	uint64_t canaries[NR_CANARIES];

	t_is(t_child(become, HOLD), 256 + SIGKILL,
	     "a process dies with a read in flight");
	t_ok(t_wait_for(t_counter("held_page_maps") == 1),
	     "the read outlives it, and holds the pages");
	t_is(t_counter("buffers"), 2, "... and the pin");
	canaries_place(canaries, NR_CANARIES);
	valve_set("resume");
	t_ok(t_wait_for(!t_counter("page_maps") && t_counter("buffers") == 1),
	     "the pin ends with the read");
	canaries_check(canaries, NR_CANARIES);
}

/* ---- taken back ---------------------------------------------------------- */

static void *revoker(void *data)
{
	return (void *)(intptr_t)t_revoke(dev, *(int *)data);
}

static int child_revokes(void *data)
{
	return t_revoke(dev, *(int *)data) == 0 ? 0 : 1;
}

static void test_revoked(void)
{
	struct t_buffer own;
	struct peerdma_page_map arg;
	unsigned char *at;
	int fd;

	t_buffer_make(&own, dev, LEN);
	fd = t_pages(dev, own.fd, 0, &arg);
	at = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	t_is(t_touch(at, true), 0, "the mapping is used");
	t_result(t_revoke(dev, own.fd), 0,
		 "with nobody holding it goes at once");
	t_is(t_touch(at, true), SIGBUS, "touching it is SIGBUS");
	t_result(pread(drive, at, LEN, 0) < 0 ? -errno : 0, -EFAULT,
		 "nothing is read into it");
	t_result(t_pages(dev, own.fd, 0, &arg), -ENODEV, "there are no pages");
	t_is(t_counter("page_maps"), 1, "its descriptor is still open");
	t_is(t_counter("pinned_bytes"), LEN, "nothing of it is pinned");
	munmap(at, LEN);
	close(fd);
	t_buffer_drop(&own);
}

/* Two pins of one memory: what the CPU maps of the other one holds nothing up. */
static void test_revoked_twin(void)
{
	struct peerdma_pin pin;
	int twin = t_pin(dev, buffer.ptr, LEN, 0, &pin), status = -1;
	unsigned char *at, *other;
	pid_t child;

	t_need(twin >= 0, "the memory is pinned once more");
	at = t_pages_map(dev, twin, LEN);
	other = t_pages_map(dev, buffer.fd, LEN);
	t_ok(!t_touch(at, true) && !t_touch(other, true), "both are mapped");
	child = fork();
	if (!child)
		_exit(child_revokes(&twin));
	t_ok(t_wait_for(waitpid(child, &status, WNOHANG) == child),
	     "one is taken back while the other is mapped");
	t_is(status, 0, "... well");
	t_is(t_touch(at, true), SIGBUS, "it is gone");
	t_is(t_touch(other, true), 0, "the other is there");
	t_is(t_counter("pinned_bytes"), LEN, "and pinned");
	munmap(at, LEN);
	munmap(other, LEN);
	close(twin);
}

/* Somebody holds the pages: REVOKE waits, and whoever waits can be killed. */
static void test_revoked_held(void)
{
	uint64_t canaries[NR_CANARIES];
	struct t_buffer own;
	struct io_uring ring;
	unsigned char *at;
	pthread_t thread;
	pid_t child;
	void *ret;
	int status;

	t_buffer_make(&own, dev, LEN);
	at = t_pages_map(dev, own.fd, LEN);
	hold(&ring, at, LEN);
	child = fork();
	if (!child)
		_exit(child_revokes(&own.fd));
	t_ok(t_wait_for(t_touch(at, true) == SIGBUS), "the mapping is gone");
	t_ok(t_wait_for(t_counter("held_page_maps") == 1), "but it is held");
	t_is(waitpid(child, &status, WNOHANG), 0, "REVOKE waits");
	kill(child, SIGKILL);
	t_is(waitpid(child, &status, 0), child, "... until it is killed");
	pthread_create(&thread, NULL, revoker, &own.fd);
	t_gpu_free(own.ptr);
	canaries_place(canaries, NR_CANARIES);
	t_is(t_counter("pinned_bytes"), 2 * LEN, "the memory is not given back");
	t_result(let_go(&ring), LEN, "the read ends");
	pthread_join(thread, &ret);
	t_result((intptr_t)ret, 0, "the revocation is through");
	canaries_check(canaries, NR_CANARIES);
	t_is(t_counter("pinned_bytes"), LEN, "the memory is given back");
	munmap(at, LEN);
	close(own.fd);
}

static void *reader(void *at)
{
	ssize_t ret;

	do
		ret = pread(drive, at, LEN, 0);
	while (ret == LEN);
	return (void *)(intptr_t)(ret < 0 ? -errno : 0);
}

static void test_revoked_busy(void)
{
	struct t_buffer own;
	unsigned char *at;
	pthread_t thread;
	void *ret;

	t_buffer_make(&own, dev, LEN);
	at = t_pages_map(dev, own.fd, LEN);
	pthread_create(&thread, NULL, reader, at);
	t_sleep_ms(200);
	t_result(t_revoke(dev, own.fd), 0, "taken back while read into");
	pthread_join(thread, &ret);
	/* A read that had begun ends short or goes on to fail. */
	t_ok((intptr_t)ret == -EFAULT || !ret, "the reads end");
	t_is(t_counter("pinned_bytes"), LEN, "nothing of it is pinned");
	munmap(at, LEN);
	t_buffer_drop(&own);
}

static void renew(void)
{
	t_buffer_drop(&buffer);
	t_nothing_left();
	t_buffer_make(&buffer, dev, LEN);
	t_fill(bytes, LEN, 3);
	t_gpu_write(buffer.ptr, bytes, LEN);
}

static const struct t_case cases[] = {
	{ "memory", test_memory },
	{ "parts", test_parts },
	{ "read-only", test_read_only },
	{ "reshaped", test_reshaped },
	{ "refused", test_refused },
	{ "revocable", test_revocable },
	{ "ordinary memory", test_ordinary_memory },
	{ "any route", test_any_route },
	{ "in flight", test_in_flight },
	{ "in flight, freed", test_in_flight_freed },
	{ "registered", test_registered },
	{ "a pipe", test_pipe },
	{ "modules", test_modules },
	{ "killed", test_killed },
	{ "revoked", test_revoked },
	{ "revoked while held", test_revoked_held },
	{ "revoked beside a twin", test_revoked_twin },
	{ "revoked while read into", test_revoked_busy },
};

static const struct t_case route_cases[] = {
	{ "no route", no_route },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	held_prepare();
	drive = held.drive;
	bytes = t_ram(LEN);
	ram = t_ram(LEN);
	if (argc == 2 && !strcmp(argv[1], HOLD))
		return hold_and_die();
	t_buffer_make(&buffer, dev, LEN);
	t_fill(bytes, LEN, 3);
	t_gpu_write(buffer.ptr, bytes, LEN);
	if (argc == 2 && !strcmp(argv[1], "no route"))
		return T_RUN(route_cases, renew);
	return T_RUN(cases, renew);
}
