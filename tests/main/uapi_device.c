// SPDX-License-Identifier: MIT
/*
 * MAP_DEVICE: each sentence of include/uapi/peerdma.h about it that needs neither
 * an IOMMU nor a card, for a drive's function. The others are in tests/mapdev.
 *
 * usage: uapi_device [CASE...], as root
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "../t_counters.h"
#include "../t_transfer.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define LEN		(16u * GPU_PAGE)
#define SEGMENTS	64u
#define NOBODY		65534
#define DRIVE		"/dev/disk/by-serial/peerdma1"

static int dev;
static struct t_buffer any;
static uint32_t device;
static struct peerdma_device_segment segments[SEGMENTS + 1];

/* An argument that is accepted. */
static struct peerdma_map_device good(void)
{
	return (struct peerdma_map_device){
		.size = sizeof(struct peerdma_map_device),
		.buffer_fd = any.fd,
		.device = device,
		.len = LEN,
		.segments = (uintptr_t)segments,
		.nr_segments = SEGMENTS,
		.out_fd = -1,
		.out_reason = 99,
		.out_via = 99,
		.out_translated = 99,
	};
}

/* 0 or a negative errno; nothing stays mapped. */
static int try(struct peerdma_map_device *arg)
{
	if (ioctl(dev, PEERDMA_MAP_DEVICE, arg))
		return -errno;
	close(arg->out_fd);
	return 0;
}

/* What comes of the good argument with one @field as it should not be. */
#define TRY(field, value) ({					\
	struct peerdma_map_device t_arg = good();		\
								\
	t_arg.field = (value);					\
	try(&t_arg);						\
})

/* Likewise with two of them. */
#define TRY_2(field, value, field_2, value_2) ({		\
	struct peerdma_map_device t_arg = good();		\
								\
	t_arg.field = (value);					\
	t_arg.field_2 = (value_2);				\
	try(&t_arg);						\
})

static void test_values(void)
{
	static const uint32_t bits[] = { 1, 8, 23, 65, 1u << 31, UINT32_MAX };
	size_t i;

	t_result(TRY(len, 0), -EINVAL, "no byte");
	for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		t_result(TRY(address_bits, bits[i]), -EINVAL,
			 "%u bits of address", bits[i]);
	t_result(TRY(address_bits, 64), -EINVAL,
		 "bits of address for a device with a driver");
	t_result(TRY(iova, PAGE), -EINVAL, "an address without its flag");
	t_result(TRY_2(iova, 1, flags, PEERDMA_MAP_DEVICE_IOVA), -EINVAL,
		 "an address that lies otherwise in its page");
}

static void test_ranges(void)
{
	t_result(TRY(len, LEN + 1), -ERANGE, "a byte too much");
	t_result(TRY(offset, 1), -ERANGE, "a byte too far");
	t_result(TRY_2(offset, LEN, len, 1), -ERANGE, "behind the end");
	t_result(TRY_2(offset, LEN + 1, len, 1), -ERANGE, "further behind");
	t_result(TRY_2(offset, UINT64_MAX, len, 1), -ERANGE, "at 2^64 - 1");
	t_result(TRY_2(offset, UINT64_MAX, len, 2), -EOVERFLOW, "across 2^64");
	t_result(TRY_2(offset, PAGE, len, UINT64_MAX), -EOVERFLOW,
		 "a length of -1");
	t_result(TRY_2(flags, PEERDMA_MAP_DEVICE_IOVA, iova,
		       -(uint64_t)PAGE), -EOVERFLOW,
		 "an address that leaves 64 bits");
	t_result(TRY_2(offset, LEN - 1, len, 1), 0, "the last byte");
}

static int host_memory(void)
{
	struct peerdma_pin pin = {
		.size = sizeof(pin),
		.provider = "user",
		.addr = (uintptr_t)t_ram(PAGE),
		.len = PAGE,
	};

	return ioctl(dev, PEERDMA_PIN, &pin) ? -errno : pin.out_fd;
}

static void test_host_memory(void)
{
	int fd = host_memory();

	t_result(TRY_2(buffer_fd, fd, len, PAGE), -EOPNOTSUPP, "host memory");
	close(fd);
}

static void test_read_only(void)
{
	struct peerdma_pin pin;
	int fd = t_pin(dev, any.ptr, LEN, PEERDMA_PIN_READ_ONLY, &pin);

	t_result(TRY(buffer_fd, fd), -EACCES, "memory that is for reading");
	t_result(TRY_2(buffer_fd, fd, flags, PEERDMA_MAP_DEVICE_READ_ONLY), 0,
		 "is mapped for that");
	close(fd);
}

static void test_devices(void)
{
	t_result(TRY(device, PEERDMA_DEVICE(0, 0xfe, 31, 7)), -ENOENT,
		 "no such device");
	t_result(TRY(device, 0xffff0000), -ENOENT, "no such domain");
	t_result(TRY(device, PEERDMA_DEVICE_NONE), -ENOENT,
		 "PEERDMA_DEVICE_NONE");
	t_result(TRY_2(flags, PEERDMA_MAP_DEVICE_IOVA, iova, 1u << 29), -EBUSY,
		 "a chosen address for a device with a driver");
}

static void test_segments(void)
{
	size_t bytes = SEGMENTS * sizeof(segments[0]);
	struct peerdma_map_device arg = good();
	int before = t_open_descriptors();
	char *room = t_ram(bytes);
	uint64_t sum = 0;
	uint32_t i, nr;

	arg.nr_segments = 0;
	t_result(try(&arg), -EMSGSIZE, "no room");
	nr = arg.nr_segments;
	t_ok(nr > 1 && nr <= LEN / GPU_PAGE, "... and how many: %u", nr);
	t_result(TRY(nr_segments, nr - 1), -EMSGSIZE, "one too few");
	t_result(TRY(segments, 0), -EFAULT, "into no memory");
	mprotect(room, bytes, PROT_READ);
	t_result(TRY(segments, (uintptr_t)room), -EFAULT,
		 "into memory that cannot be written");
	munmap(room, bytes);
	memset(segments, 0x55, sizeof(segments));
	arg = good();
	t_result(try(&arg), 0, "room enough");
	t_is(arg.nr_segments, nr, "... says how many there are");
	t_is(arg.out_reason, PEERDMA_REASON_NONE, "... no reason");
	t_is(arg.out_translated, 0, "... no IOMMU");
	t_ok(arg.out_via != 99, "... and the bridge");
	for (i = 0; i < nr; i++)
		sum += segments[i].len;
	t_is(sum, LEN, "... they hold all bytes");
	t_is(segments[nr].addr, 0x5555555555555555,
	     "... what is behind them is left alone");
	t_is(t_open_descriptors(), before, "no descriptor stays");
}

static void test_bytes(void)
{
	uint64_t first;

	t_result(TRY(len, 1), 0, "one byte");
	first = segments[0].addr;
	t_result(TRY_2(offset, 4097, len, 17), 0, "17 of them in a page");
	t_is(segments[0].addr, first + 4097, "... begin where they are");
	t_is(segments[0].len, 17, "... and are 17");
}

static void test_descriptors(void)
{
	struct rlimit limit, less;
	struct peerdma_map_device arg = good();

	getrlimit(RLIMIT_NOFILE, &limit);
	less = limit;
	less.rlim_cur = dup(dev);
	close(less.rlim_cur);
	setrlimit(RLIMIT_NOFILE, &less);
	t_result(try(&arg), -EMFILE, "no descriptor left");
	setrlimit(RLIMIT_NOFILE, &limit);
	t_is(t_counter("device_maps"), 0, "... nothing is mapped");
	arg = good();
	t_result(ioctl(dev, PEERDMA_MAP_DEVICE, &arg) ? -errno : 0, 0,
		 "a mapping");
	t_is(fcntl(arg.out_fd, F_GETFD), FD_CLOEXEC, "... is close-on-exec");
	t_is(t_counter("device_maps"), 1, "... and counted");
	t_buffer_drop(&any);
	t_is(t_counter("buffers"), 1, "... keeps the buffer");
	close(arg.out_fd);
	t_is(t_counter("buffers"), 0, "... until it is closed");
	t_buffer_make(&any, dev, LEN);
}

static int map_as_nobody(void *data)
{
	struct peerdma_map_device arg = good();

	(void)data;
	if (setresuid(NOBODY, NOBODY, NOBODY))
		return 1;
	segments[0].addr = 0x55;
	return try(&arg) == -EPERM && segments[0].addr == 0x55 ? 0 : 2;
}

static void test_unprivileged(void)
{
	t_is(t_child(map_as_nobody, NULL), 0, "not without CAP_SYS_RAWIO");
}

static void test_revoked(void)
{
	struct peerdma_revoke revoke = {
		.size = sizeof(revoke), .buffer_fd = any.fd,
	};

	t_result(ioctl(dev, PEERDMA_REVOKE, &revoke) ? -errno : 0, 0,
		 "the buffer is revoked");
	t_result(TRY(len, LEN), -ENODEV, "it is not mapped any more");
}

static void renew(void)
{
	t_buffer_drop(&any);
	t_nothing_left();
	t_buffer_make(&any, dev, LEN);
}

static const struct t_case cases[] = {
	{ "device values", test_values },
	{ "device ranges", test_ranges },
	{ "device host memory", test_host_memory },
	{ "device read-only", test_read_only },
	{ "device devices", test_devices },
	{ "device segments", test_segments },
	{ "device bytes", test_bytes },
	{ "device descriptors", test_descriptors },
	{ "device unprivileged", test_unprivileged },
	{ "device revoked", test_revoked },
};

int main(int argc, char **argv)
{
	struct peerdma_file_io io;
	int drive;

	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	t_buffer_make(&any, dev, LEN);
	t_result(t_move(dev, T_READ, any.fd, drive, NULL, 0, &io), 0,
		 "the drive is known");
	device = io.out_device;
	close(drive);
	return T_RUN(cases, renew);
}
