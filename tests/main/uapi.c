// SPDX-License-Identifier: MIT
/*
 * The numbers of the ioctls of /dev/peerdma, and INFO and ROUTE: each sentence of
 * include/uapi/peerdma.h about them. What all arguments have in common is
 * uapi_sweep's.
 *
 * usage: uapi [CASE...], as root
 */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/ioctl.h>

#include "../t_counters.h"
#include "../t_transfer.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define DRIVE		"/dev/disk/by-serial/peerdma1"

static int dev;
static int drive;
static struct t_buffer any;
static uint32_t drive_number, gpu_number;

/* ---- every ioctl --------------------------------------------------------- */

static void test_numbers(void)
{
	static const unsigned long unknown[] = {
		_IO(PEERDMA_IOCTL_TYPE, 9), _IO(PEERDMA_IOCTL_TYPE, 64),
		_IO(PEERDMA_IOCTL_TYPE, 255), _IO(PEERDMA_IOCTL_TYPE - 1, 0),
		_IO(0, 0), _IOR(PEERDMA_IOCTL_TYPE, 0, struct peerdma_info),
		_IOW(PEERDMA_IOCTL_TYPE, 0, struct peerdma_info),
		_IOWR(PEERDMA_IOCTL_TYPE, 0, struct peerdma_info),
		_IOC(_IOC_NONE, PEERDMA_IOCTL_TYPE, 0, 8), UINT_MAX,
	};
	struct peerdma_info info = { .size = sizeof(info) };
	size_t i;

	for (i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		t_result(ioctl(dev, unknown[i], &info) ? -errno : 0, -ENOTTY,
			 "no ioctl %#lx", unknown[i]);
	t_result(ioctl(any.fd, PEERDMA_INFO, &info) ? -errno : 0, -ENOTTY,
		 "no INFO of a dma-buf");
	t_result(read(dev, &info, 1) < 0 ? -errno : 0, -EINVAL,
		 "the device is not read");
	t_result(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, dev, 0) == MAP_FAILED ?
		 -errno : 0, -ENODEV, "the device is not mapped");
}

/* A 32-bit program's way in: the structs are the same for it. */
static void test_compat(void)
{
	struct peerdma_info *info;
	long ret;

	info = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	info->size = sizeof(*info);
	asm volatile("int $0x80"
		     : "=a"(ret)
		     : "a"(54), "b"((long)dev), "c"((long)PEERDMA_INFO),
		       "d"(info)
		     : "memory", "r8", "r9", "r10", "r11");
	t_result((int)ret, 0, "INFO by the 32-bit system call");
	t_is(info->out_page_size, PAGE, "... answers the same");
	munmap(info, PAGE);
}

/* ---- INFO, ROUTE --------------------------------------------------------- */

static void test_info(void)
{
	struct peerdma_info info;

	memset(&info, 0xff, sizeof(info));
	info.size = sizeof(info);
	info.flags = 0;
	t_result(t_ioctl(dev, PEERDMA_NR_INFO, &info), 0, "INFO");
	t_is(info.size, sizeof(info), "size is left alone");
	t_is(info.out_verbs, 0x1ff, "out_verbs");
	t_is(info.out_features & ~PEERDMA_FEATURE_KERNEL_ROUTE,
	     PEERDMA_FEATURE_URING, "out_features");
	t_ok(!strcmp(info.out_providers, "pci user nvidia"), "out_providers");
	t_is(info.out_max_segments, PEERDMA_FILE_IO_MAX_SEGMENTS,
	     "out_max_segments");
	t_is(info.out_page_size, sysconf(_SC_PAGESIZE), "out_page_size");
}

static int route(uint32_t from, uint32_t to, struct peerdma_route *route)
{
	memset(route, 0xff, sizeof(*route));
	route->size = sizeof(*route);
	route->flags = 0;
	route->from_device = from;
	route->to_device = to;
	return t_ioctl(dev, PEERDMA_NR_ROUTE, route);
}

/* The root port above a function, by sysfs. */
static uint32_t port_above(uint32_t number)
{
	unsigned int domain, bus, slot, fn;
	char path[64], real[PATH_MAX], *last;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%04x:%02x:%02x.%x",
		 number >> 16, number >> 8 & 0xff, number >> 3 & 0x1f,
		 number & 7);
	if (!realpath(path, real))
		return PEERDMA_DEVICE_NONE;
	*strrchr(real, '/') = '\0';
	last = strrchr(real, '/') + 1;
	if (sscanf(last, "%x:%x:%x.%x", &domain, &bus, &slot, &fn) != 4)
		return PEERDMA_DEVICE_NONE;
	return PEERDMA_DEVICE(domain, bus, slot, fn);
}

static void test_route(void)
{
	struct peerdma_route got;
	uint32_t nowhere = PEERDMA_DEVICE(0, 0xfe, 31, 7);

	t_result(route(drive_number, gpu_number, &got), 0,
		 "from the drive to the GPU");
	t_is(got.out_reason, PEERDMA_REASON_NONE, "nothing in the way");
	t_is(got.out_via, port_above(drive_number), "by the root port");
	t_is(got.out_translated, 0, "untranslated");
	t_is(got.out_distance, 2, "two bridges");
	t_result(route(nowhere, gpu_number, &got), -ENOENT, "from nowhere");
	t_result(route(drive_number, nowhere, &got), -ENOENT, "to nowhere");
	t_result(route(0xffff0000, gpu_number, &got), -ENOENT,
		 "from another domain");
	t_result(route(PEERDMA_DEVICE_NONE, gpu_number, &got), -ENOENT,
		 "from PEERDMA_DEVICE_NONE");
}

static void prepare(void)
{
	struct peerdma_query got = { .size = sizeof(got) };
	struct peerdma_file_io io;

	any.len = GPU_PAGE;
	any.ptr = t_gpu_alloc(any.len);
	any.fd = t_pin(dev, any.ptr, any.len, 0, &any.pin);
	t_need(any.fd >= 0, "memory is pinned");
	got.buffer_fd = any.fd;
	t_result(t_ioctl(dev, PEERDMA_NR_QUERY, &got), 0, "the GPU is known");
	gpu_number = got.out_device;
	t_result(t_move(dev, T_READ, any.fd, drive, NULL, 0, &io), 0,
		 "the drive is known");
	drive_number = io.out_device;
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
	{ "numbers", test_numbers },
	{ "compat", test_compat },
	{ "info", test_info },
	{ "route", test_route },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	prepare();
	return T_RUN(cases, renew);
}
