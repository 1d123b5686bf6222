// SPDX-License-Identifier: MIT
/*
 * The rules that all ioctls of /dev/peerdma share, and INFO and ROUTE: each
 * sentence of include/uapi/peerdma.h about them.
 *
 * usage: uapi [CASE...], as root
 */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "../t_counters.h"
#include "../t_transfer.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define DRIVE		"/dev/disk/by-serial/peerdma1"

static int dev;
static int drive;
static int event;
static struct t_buffer any;

/* ---- every ioctl --------------------------------------------------------- */

union any_arg {
	uint32_t size;
	struct peerdma_info info;
	struct peerdma_pin pin;
	struct peerdma_query query;
	struct peerdma_file_io file_io;
	struct peerdma_route route;
	struct peerdma_watch watch;
	struct peerdma_revoke revoke;
	struct peerdma_page_map pages;
	struct peerdma_map_device map_device;
};

static void fill_info(union any_arg *arg)
{
	arg->size = sizeof(struct peerdma_info);
}

static void fill_pin(union any_arg *arg)
{
	arg->pin = (struct peerdma_pin){
		.size = sizeof(arg->pin),
		.provider = "nvidia",
		.addr = any.ptr,
		.len = PAGE,
		.out_fd = -1,
	};
}

static void fill_query(union any_arg *arg)
{
	arg->query = (struct peerdma_query){
		.size = sizeof(arg->query),
		.buffer_fd = any.fd,
	};
}

static void fill_file_io(union any_arg *arg)
{
	arg->file_io = (struct peerdma_file_io){
		.size = sizeof(arg->file_io),
		.buffer_fd = any.fd,
		.file_fd = drive,
	};
}

static uint32_t drive_number, gpu_number;

static void fill_route(union any_arg *arg)
{
	arg->route = (struct peerdma_route){
		.size = sizeof(arg->route),
		.from_device = drive_number,
		.to_device = gpu_number,
	};
}

static void fill_watch(union any_arg *arg)
{
	arg->watch = (struct peerdma_watch){
		.size = sizeof(arg->watch),
		.buffer_fd = any.fd,
		.event_fd = event,
	};
}

static void fill_map_device(union any_arg *arg)
{
	static struct peerdma_device_segment segments[4];

	arg->map_device = (struct peerdma_map_device){
		.size = sizeof(arg->map_device),
		.buffer_fd = any.fd,
		.device = drive_number,
		.len = PAGE,
		.segments = (uintptr_t)segments,
		.nr_segments = 4,
		.out_fd = -1,
	};
}

/* The last verb of all: the others need a buffer that is not revoked. */
static void fill_revoke(union any_arg *arg)
{
	arg->revoke = (struct peerdma_revoke){
		.size = sizeof(arg->revoke),
		.buffer_fd = any.fd,
	};
}

static void fill_pages(union any_arg *arg)
{
	arg->pages = (struct peerdma_page_map){
		.size = sizeof(arg->pages),
		.buffer_fd = any.fd,
		.out_fd = -1,
	};
}

/* Of a struct, and of its first version, whose last field was @last. */
#define SIZES(type, last)						\
	sizeof(struct type),						\
	offsetof(struct type, last) + sizeof(((struct type *)0)->last)

/**
 * struct verb - an ioctl and an argument that it accepts
 * @name: for people
 * @nr: its number
 * @size: of its struct
 * @min_size: of that of its first version
 * @known_flags: those that are no error
 * @fill: makes the argument
 */
static const struct verb {
	const char *name;
	unsigned int nr;
	uint32_t size;
	uint32_t min_size;
	uint32_t known_flags;
	void (*fill)(union any_arg *arg);
} verbs[] = {
	{ "INFO", 0, SIZES(peerdma_info, out_page_size), 0, fill_info },
	{ "PIN", 1, SIZES(peerdma_pin, out_offset),
	  PEERDMA_PIN_READ_ONLY | PEERDMA_PIN_REVOCABLE |
	  PEERDMA_PIN_UNCACHED, fill_pin },
	{ "QUERY", 2, SIZES(peerdma_query, reserved), 0, fill_query },
	{ "FILE_IO", 3, SIZES(peerdma_file_io, reserved),
	  PEERDMA_FILE_IO_WRITE, fill_file_io },
	{ "ROUTE", 4, SIZES(peerdma_route, out_distance), 0, fill_route },
	{ "WATCH", 5, SIZES(peerdma_watch, event_fd), 0, fill_watch },
	{ "MAP_DEVICE", 7, SIZES(peerdma_map_device, reserved),
	  PEERDMA_MAP_DEVICE_IOVA | PEERDMA_MAP_DEVICE_READ_ONLY,
	  fill_map_device },
	{ "PAGES", 8, SIZES(peerdma_page_map, out_device),
	  PEERDMA_PAGES_ANY_ROUTE, fill_pages },
	{ "REVOKE", 6, SIZES(peerdma_revoke, reserved), 0, fill_revoke },
};

#define NR_VERBS	(sizeof(verbs) / sizeof(verbs[0]))

static void close_made(const struct verb *verb, const union any_arg *arg)
{
	if (verb->nr == PEERDMA_NR_PIN)
		close(arg->pin.out_fd);
	else if (verb->nr == PEERDMA_NR_PAGES)
		close(arg->pages.out_fd);
	else if (verb->nr == PEERDMA_NR_MAP_DEVICE)
		close(arg->map_device.out_fd);
}

/* The verb's argument at the end of a page after which there is nothing. */
static void *edge(const struct verb *verb, uint32_t room)
{
	static char *pages;
	union any_arg arg = { 0 };

	if (!pages) {
		pages = t_ram(3 * PAGE);
		mprotect(pages + 2 * PAGE, PAGE, PROT_NONE);
	}
	memset(pages, 0, 2 * PAGE);
	verb->fill(&arg);
	memcpy(pages + 2 * PAGE - room, &arg,
	       room < verb->size ? room : verb->size);
	return pages + 2 * PAGE - room;
}

static int call_sized(const struct verb *verb, uint32_t size, uint32_t room)
{
	void *arg = edge(verb, room);
	int ret;

	*(uint32_t *)arg = size;
	ret = t_ioctl(dev, verb->nr, arg);
	if (!ret)
		close_made(verb, arg);
	return ret;
}

static void test_sizes(void)
{
	const struct verb *verb;

	for (verb = verbs; verb < verbs + NR_VERBS; verb++) {
		uint32_t size = verb->size;
		char *arg;

		t_result(call_sized(verb, 0, size), -EINVAL,
			 "%s: a size of 0", verb->name);
		t_result(call_sized(verb, verb->min_size - 1, size), -EINVAL,
			 "%s: a byte too short", verb->name);
		t_result(call_sized(verb, verb->min_size, verb->min_size), 0,
			 "%s: as short as it once was", verb->name);
		t_result(call_sized(verb, size, size), 0,
			 "%s: as long as it is", verb->name);
		t_result(call_sized(verb, size + 1, size + 1), 0,
			 "%s: a zero byte more", verb->name);
		t_result(call_sized(verb, PAGE, PAGE), 0,
			 "%s: zeroes to a page", verb->name);
		t_result(call_sized(verb, PAGE + 1, PAGE + 4), -E2BIG,
			 "%s: more than a page", verb->name);
		t_result(call_sized(verb, UINT32_MAX, PAGE), -E2BIG,
			 "%s: more than there is", verb->name);
		t_result(call_sized(verb, size + 8, size), -EFAULT,
			 "%s: a tail in no memory", verb->name);
		arg = edge(verb, size + 9);
		*(uint32_t *)arg = size + 9;
		arg[size + 8] = 1;
		t_result(t_ioctl(dev, verb->nr, arg), -E2BIG,
			 "%s: a tail that is not zero", verb->name);
	}
}

static void test_addresses(void)
{
	const struct verb *verb;
	int before = t_open_descriptors();
	char *page = t_ram(PAGE);

	for (verb = verbs; verb < verbs + NR_VERBS; verb++) {
		t_result(t_ioctl(dev, verb->nr, NULL), -EFAULT, "%s: NULL",
			 verb->name);
		t_result(t_ioctl(dev, verb->nr, (void *)-PAGE), -EFAULT,
			 "%s: a kernel address", verb->name);
		t_result(call_sized(verb, verb->size, verb->size - 4),
			 -EFAULT, "%s: its end in no memory", verb->name);

		verb->fill((union any_arg *)page);
		mprotect(page, PAGE, PROT_READ);
		t_result(t_ioctl(dev, verb->nr, page), -EFAULT,
			 "%s: memory that cannot be written", verb->name);
		mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	}
	t_is(t_open_descriptors(), before, "no descriptor came of it");
	munmap(page, PAGE);
}

static void test_flags(void)
{
	const struct verb *verb;
	int bit;

	for (verb = verbs; verb < verbs + NR_VERBS; verb++) {
		int refused = 0, known = __builtin_popcount(verb->known_flags);

		for (bit = 0; bit < 32; bit++) {
			uint32_t *arg = edge(verb, verb->size);
			int ret;

			arg[1] = 1u << bit;
			ret = t_ioctl(dev, verb->nr, arg);
			refused += ret == -EOPNOTSUPP;
			if (!ret)
				close_made(verb, (const void *)arg);
		}
		t_is(refused, 32 - known, "%s: every unknown flag is refused",
		     verb->name);
	}
}

static void test_reserved(void)
{
	union any_arg arg;
	int bit, query = 0, file_io = 0, device = 0, bar = 0;

	for (bit = 0; bit < 32; bit++) {
		fill_query(&arg);
		arg.query.reserved = 1u << bit;
		query += t_ioctl(dev, PEERDMA_NR_QUERY, &arg) == -EOPNOTSUPP;
		fill_pin(&arg);
		arg.pin.device = 1u << bit;
		device += t_ioctl(dev, PEERDMA_NR_PIN, &arg) == -EOPNOTSUPP;
		fill_pin(&arg);
		arg.pin.bar = 1u << bit;
		bar += t_ioctl(dev, PEERDMA_NR_PIN, &arg) == -EOPNOTSUPP;
		fill_file_io(&arg);
		arg.file_io.reserved = 1u << bit;
		file_io += t_ioctl(dev, PEERDMA_NR_FILE_IO, &arg) == -EOPNOTSUPP;
	}
	t_is(query, 32, "QUERY: every bit of reserved is refused");
	t_is(device, 32, "PIN: nvidia wants no device");
	t_is(bar, 32, "PIN: nor a BAR");
	t_is(file_io, 32, "FILE_IO: every bit of reserved is refused");
}

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
	{ "sizes", test_sizes },
	{ "addresses", test_addresses },
	{ "flags", test_flags },
	{ "reserved", test_reserved },
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
	event = eventfd(0, 0);
	t_need(event >= 0, "an eventfd is made");
	prepare();
	return T_RUN(cases, renew);
}
