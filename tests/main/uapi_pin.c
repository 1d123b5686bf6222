// SPDX-License-Identifier: MIT
/*
 * PIN and QUERY, and what else than a buffer of ours a descriptor may be: each
 * sentence of include/uapi/peerdma.h about them.
 *
 * usage: uapi_pin [CASE...], as root, with simgpu's aperture at 64 MiB
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <linux/udmabuf.h>

#include "../t_counters.h"
#include "../t_transfer.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define APERTURE	(64u << 20)
#define ALLOC		(4u << 20)
#define NOBODY		65534
#define DRIVE		"/dev/disk/by-serial/peerdma1"

static int dev, drive;
static struct t_buffer any;

/* ---- PIN ----------------------------------------------------------------- */

static int try_pin(uint64_t addr, uint64_t len, uint32_t flags)
{
	struct peerdma_pin pin;

	return t_pin(dev, addr, len, flags, &pin);
}

static int pin_provider(const char *provider)
{
	struct peerdma_pin pin = {
		.size = sizeof(pin), .addr = any.ptr, .len = PAGE,
	};

	memset(pin.provider, 'x', sizeof(pin.provider));
	memcpy(pin.provider, provider,
	       strnlen(provider, sizeof(pin.provider) - 1) + 1);
	return t_ioctl(dev, PEERDMA_NR_PIN, &pin);
}

static void test_pin_refused(void)
{
	struct peerdma_pin pin = {
		.size = sizeof(pin), .addr = any.ptr, .len = PAGE,
	};
	uint64_t freed = t_gpu_alloc(ALLOC);
	char *ram = t_ram(ALLOC);

	t_gpu_free(freed);
	t_result(try_pin(any.ptr, 0, 0), -EINVAL, "length 0");
	t_result(try_pin(any.ptr, UINT64_MAX, 0), -EOVERFLOW, "length -1");
	t_result(try_pin(any.ptr, -any.ptr + 1, 0), -EOVERFLOW,
		 "a byte beyond 2^64");
	t_result(try_pin(UINT64_MAX, 2, 0), -EOVERFLOW, "across 2^64");
	t_result(try_pin(1ull << 63, 1ull << 63, 0), -EOVERFLOW,
		 "up to 2^64");
	t_result(try_pin(0, PAGE, 0), -EFAULT, "address 0");
	t_result(try_pin(1ull << 62, PAGE, 0), -EFAULT, "nobody's address");
	t_result(try_pin(-(1ull << 40), PAGE, 0), -EFAULT, "a kernel address");
	t_result(try_pin((uintptr_t)ram, ALLOC, 0), -EFAULT, "host memory");
	t_result(try_pin(freed, PAGE, 0), -EFAULT, "freed GPU memory");
	t_result(try_pin(any.ptr + any.len, 1, 0), -EFAULT, "past the end");
	t_result(try_pin(any.ptr, any.len + GPU_PAGE, 0), -EFAULT,
		 "beyond the end");
	t_result(try_pin(any.ptr - 1, 2, 0), -EFAULT, "from before the start");
	t_result(pin_provider("nobody"), -ENOENT, "an unknown provider");
	t_result(pin_provider(""), -ENOENT, "a provider without a name");
	t_result(pin_provider("nvidi"), -ENOENT, "a provider's first letters");
	t_result(pin_provider("nvidia2"), -ENOENT, "a provider's name and more");
	memcpy(pin.provider, "nvidianvidianvid", sizeof(pin.provider));
	t_result(t_ioctl(dev, PEERDMA_NR_PIN, &pin), -ENOENT,
		 "a name without an end");
	munmap(ram, ALLOC);
}

static int pin_fathers(void *data)
{
	(void)data;
	return -try_pin(any.ptr, PAGE, 0);
}

static void test_pin_foreign(void)
{
	t_is(t_child(pin_fathers, NULL), EFAULT,
	     "another process's memory: EFAULT");
}

/* Of include/linux/errno.h, and not for user space. */
#define KERNEL_ENOTSUPP	524

/* simgpu lets a test choose what the vendor's function answers. */
static int pin_failing(int error)
{
	FILE *file = fopen("/sys/kernel/debug/simgpu/fail", "w");

	if (!file || fprintf(file, "get_pages_persistent %d 1\n", error) < 0 ||
	    fclose(file))
		return -EPROTO;
	return try_pin(any.ptr, PAGE, 0);
}

static void test_pin_vendor(void)
{
	int before = t_open_descriptors();

	t_result(pin_failing(-EINVAL), -EFAULT, "the vendor's EINVAL");
	t_result(pin_failing(-ENOMEM), -ENOBUFS, "the vendor's ENOMEM");
	t_result(pin_failing(-ENODEV), -ENODEV, "the vendor's ENODEV");
	t_result(pin_failing(-EIO), -ENODEV, "the vendor's EIO");
	t_result(pin_failing(-KERNEL_ENOTSUPP), -EOPNOTSUPP,
		 "the vendor's ENOTSUPP");
	t_is(t_open_descriptors(), before, "no descriptor came of it");
}

static void test_pin_aperture(void)
{
	uint64_t ptr = t_gpu_alloc(APERTURE + ALLOC);
	int first, second;

	t_result(try_pin(ptr, APERTURE + ALLOC, 0), -ENOBUFS,
		 "more than the aperture");
	first = try_pin(ptr, APERTURE / 2, 0);
	t_ok(first >= 0, "half of it");
	t_result(try_pin(ptr, APERTURE / 2 + GPU_PAGE, 0), -ENOBUFS,
		 "then a page more than half");
	close(first);
	second = try_pin(ptr, APERTURE / 2 + GPU_PAGE, 0);
	t_ok(second >= 0, "which goes after the first has gone");
	close(second);
	t_gpu_free(ptr);
}

static void test_pin_descriptors(void)
{
	struct rlimit limit, less;
	int fd;

	getrlimit(RLIMIT_NOFILE, &limit);
	less = limit;
	less.rlim_cur = dup(dev);
	close(less.rlim_cur);
	setrlimit(RLIMIT_NOFILE, &less);
	t_result(try_pin(any.ptr, PAGE, 0), -EMFILE, "no descriptor left");
	setrlimit(RLIMIT_NOFILE, &limit);
	fd = try_pin(any.ptr, PAGE, 0);
	t_is(fcntl(fd, F_GETFD), FD_CLOEXEC, "a pin is close-on-exec");
	close(fd);
}

static int query(int buffer, struct peerdma_segment *segments, uint32_t nr,
		 struct peerdma_query *arg)
{
	memset(arg, 0xff, sizeof(*arg));
	arg->size = sizeof(*arg);
	arg->flags = 0;
	arg->reserved = 0;
	arg->buffer_fd = buffer;
	arg->segments = (uintptr_t)segments;
	arg->nr_segments = nr;
	return t_ioctl(dev, PEERDMA_NR_QUERY, arg);
}

/* A pin of @len bytes at @at of an allocation that holds @bytes. */
static void pin_odd(uint64_t ptr, const char *bytes, uint64_t at, uint64_t len)
{
	uint64_t window = (at % PAGE + len + PAGE - 1) / PAGE * PAGE;
	uint64_t granules = (at % GPU_PAGE + len + GPU_PAGE - 1) / GPU_PAGE;
	struct peerdma_query got;
	struct peerdma_pin pin;
	char *view;
	int fd;

	memset(&pin, 0xff, sizeof(pin));
	fd = t_pin(dev, ptr + at, len, 0, &pin);
	if (!t_ok(fd >= 0, "%" PRIu64 " bytes at %" PRIu64, len, at))
		return;
	t_ok(pin.out_offset == at % PAGE && pin.out_page_size == GPU_PAGE &&
	     lseek(fd, 0, SEEK_END) == (off_t)window,
	     "... out_offset, out_page_size and the dma-buf's size");
	t_is(t_counter("pinned_bytes"), (granules + 1) * GPU_PAGE,
	     "... whole provider pages are pinned, and those of `any`");
	t_result(query(fd, NULL, 0, &got), 0, "... QUERY");
	t_ok(got.out_offset == at % PAGE && got.out_len == len,
	     "... says the same");

	view = mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0);
	if (t_ok(view != MAP_FAILED, "... is mapped")) {
		t_same(view + pin.out_offset, bytes + at, len,
		       "... to these bytes");
		munmap(view, window);
	}
	close(fd);
}

static void test_pin_odd(void)
{
	static const uint64_t ranges[][2] = {
		{ 0, 1 }, { 1, 1 }, { 4095, 2 }, { 4096, 4096 }, { 65535, 1 },
		{ 65535, 2 }, { 123, 70000 }, { 65536 + 4100, 3 * 65536 + 7 },
		{ ALLOC - 1, 1 }, { 3, ALLOC - 3 }, { 0, ALLOC },
	};
	uint64_t ptr = t_gpu_alloc(ALLOC);
	char *bytes = t_ram(ALLOC);
	size_t i;

	t_fill(bytes, ALLOC, 4);
	t_gpu_write(ptr, bytes, ALLOC);
	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		pin_odd(ptr, bytes, ranges[i][0], ranges[i][1]);
	munmap(bytes, ALLOC);
	t_gpu_free(ptr);
}

/* Pins of the same memory do not know of each other. */
static void test_pin_twice(void)
{
	struct peerdma_segment left, right;
	struct peerdma_query query_left, query_right;
	int first = try_pin(any.ptr, PAGE, 0);
	int second = try_pin(any.ptr, PAGE, 0);

	t_ok(first >= 0 && second >= 0, "the same memory twice");
	t_result(query(first, &left, 1, &query_left), 0, "QUERY of the first");
	t_result(query(second, &right, 1, &query_right), 0, "... the second");
	t_is(left.addr, right.addr, "both are the same memory");
	close(first);
	t_result(query(second, &right, 1, &query_right), 0,
		 "the second outlives the first");
	close(second);
}

/* ---- QUERY --------------------------------------------------------------- */

/* First address and length of the GPU's memory BAR. */
static void gpu_bar(uint32_t gpu, uint64_t *start, uint64_t *end)
{
	char path[64];
	FILE *file;
	int i;

	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%04x:%02x:%02x.%x/resource",
		 gpu >> 16, gpu >> 8 & 0xff, gpu >> 3 & 0x1f, gpu & 7);
	file = fopen(path, "r");
	for (i = 0; i < 3; i++)
		if (!file || fscanf(file, "%" SCNx64 " %" SCNx64 " %*x", start,
				    end) != 2)
			t_need(false, "%s is read", path);
	fclose(file);
}

static void test_query(void)
{
	struct peerdma_query got;
	uint64_t start, end;
	int fd;

	t_result(query(any.fd, NULL, 0, &got), 0, "QUERY");
	t_ok(!strcmp(got.out_provider, "nvidia"), "out_provider");
	t_is(got.out_offset, 0, "out_offset");
	t_is(got.out_len, any.len, "out_len");
	t_is(got.out_page_size, GPU_PAGE, "out_page_size");
	t_is(got.out_state, PEERDMA_BUFFER_PERSISTENT, "out_state");
	gpu_bar(got.out_device, &start, &end);
	t_ok(end - start + 1 >= ALLOC, "out_device has a BAR");
	t_ok(got.nr_segments > 0, "nr_segments");

	fd = try_pin(any.ptr, 1, PEERDMA_PIN_READ_ONLY);
	t_result(query(fd, NULL, 0, &got), 0, "QUERY of a read-only pin");
	t_is(got.out_state,
	     PEERDMA_BUFFER_PERSISTENT | PEERDMA_BUFFER_READ_ONLY,
	     "out_state");
	close(fd);
}

static void check_segments(const struct peerdma_segment *segments, uint32_t nr,
			   uint32_t gpu, uint64_t size)
{
	uint64_t offset = 0, start, end;
	bool gapless = true, inside = true, merged = true, aligned = true;
	uint32_t i;

	gpu_bar(gpu, &start, &end);
	for (i = 0; i < nr; i++) {
		const struct peerdma_segment *at = &segments[i];

		gapless &= at->offset == offset;
		inside &= at->addr >= start && at->addr + at->len - 1 <= end;
		aligned &= at->addr % PAGE == 0 && at->len % PAGE == 0;
		if (i)
			merged &= at[-1].addr + at[-1].len != at->addr;
		offset += at->len;
	}
	t_ok(gapless, "each segment follows the one before");
	t_is(offset, size, "together they are the dma-buf");
	t_ok(inside, "each lies in the GPU's BAR");
	t_ok(merged, "neighbours are merged");
	t_ok(aligned, "in whole CPU pages");
}

static void test_query_segments(void)
{
	struct peerdma_segment *segments;
	struct peerdma_query got;
	struct t_buffer buffer;
	size_t bytes;
	uint32_t nr;

	t_buffer_make(&buffer, dev, ALLOC);
	t_result(query(buffer.fd, NULL, 0, &got), 0, "how many");
	nr = got.nr_segments;
	t_ok(nr > 8 && nr <= ALLOC / GPU_PAGE, "scattered: %u", nr);
	bytes = (nr + 1) * sizeof(*segments);
	segments = t_ram(bytes);
	memset(segments, 0x55, bytes);

	t_result(query(buffer.fd, segments, nr - 1, &got), -EMSGSIZE,
		 "one too few");
	t_is(got.nr_segments, nr, "... and how many are needed");
	t_is(segments[0].addr, 0x5555555555555555, "... none is written");
	t_result(query(buffer.fd, segments, nr + 1, &got), 0, "one too many");
	t_is(got.nr_segments, nr, "... says how many there are");
	t_is(segments[nr].addr, 0x5555555555555555,
	     "... what is behind them is left alone");
	check_segments(segments, nr, got.out_device, ALLOC);

	t_result(query(buffer.fd, NULL, nr, &got), -EFAULT, "into no memory");
	mprotect(segments, bytes, PROT_READ);
	t_result(query(buffer.fd, segments, nr, &got), -EFAULT,
		 "into memory that cannot be written");
	munmap(segments, bytes);
	t_buffer_drop(&buffer);
}

/* An unprivileged user who was given both descriptors. */
static int query_as_nobody(void *data)
{
	struct peerdma_segment segment = { 0x55, 0x55, 0x55 };
	struct peerdma_query got;
	int ret;

	(void)data;
	if (setresuid(NOBODY, NOBODY, NOBODY))
		return 1;
	ret = query(any.fd, &segment, 1, &got);
	if (ret != -EPERM || segment.addr != 0x55)
		return 2;
	if (query(any.fd, NULL, 1, &got) != -EPERM)
		return 3;
	if (query(any.fd, &segment, 0, &got) || got.nr_segments ||
	    segment.addr != 0x55)
		return 4;
	return got.out_len == any.len ? 0 : 5;
}

static void test_query_unprivileged(void)
{
	t_is(t_child(query_as_nobody, NULL), 0,
	     "no address without CAP_SYS_RAWIO, the rest is told");
}

static int foreign_dmabuf(void)
{
	struct udmabuf_create create = { .size = PAGE };
	int udmabuf = open("/dev/udmabuf", O_RDWR);
	int fd;

	if (udmabuf < 0)
		return -errno;
	create.memfd = memfd_create("foreign", MFD_ALLOW_SEALING);
	if (ftruncate(create.memfd, PAGE) ||
	    fcntl(create.memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -errno;
	fd = ioctl(udmabuf, UDMABUF_CREATE, &create);
	fd = fd < 0 ? -errno : fd;
	close(create.memfd);
	close(udmabuf);
	return fd;
}

static void test_buffer_fd(void)
{
	struct peerdma_query got;
	struct peerdma_file_io io;
	int fd;

	t_result(t_move(dev, T_READ, -1, drive, NULL, 0, &io), -EBADF,
		 "FILE_IO with descriptor -1");
	t_is(io.out_device, PEERDMA_DEVICE_NONE, "... writes its answer");
	fd = foreign_dmabuf();
	if (fd < 0) {
		t_skip("somebody else's dma-buf", "this kernel has no udmabuf");
		return;
	}
	t_result(query(fd, NULL, 0, &got), 0, "QUERY of somebody else's");
	t_is(got.out_state, PEERDMA_BUFFER_FOREIGN, "... says so");
	t_result(t_move(dev, T_READ, fd, drive, NULL, 0, &io), -EREMOTEIO,
		 "FILE_IO with host RAM of somebody else's");
	t_is(io.out_reason, PEERDMA_REASON_FOREIGN_MEMORY, "... says why");
	close(fd);
}

/* Each case has used `any`; it is made anew, so that nothing hides behind it. */
static void renew(void)
{
	t_buffer_drop(&any);
	t_nothing_left();
	any.ptr = t_gpu_alloc(any.len);
	any.fd = t_pin(dev, any.ptr, any.len, 0, &any.pin);
}

static const struct t_case cases[] = {
	{ "pin refused", test_pin_refused },
	{ "pin foreign", test_pin_foreign },
	{ "pin vendor", test_pin_vendor },
	{ "pin aperture", test_pin_aperture },
	{ "pin descriptors", test_pin_descriptors },
	{ "pin odd", test_pin_odd },
	{ "pin twice", test_pin_twice },
	{ "query", test_query },
	{ "query segments", test_query_segments },
	{ "query unprivileged", test_query_unprivileged },
	{ "buffer_fd", test_buffer_fd },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	t_buffer_make(&any, dev, GPU_PAGE);
	return T_RUN(cases, renew);
}
