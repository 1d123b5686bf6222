// SPDX-License-Identifier: MIT
/*
 * Everything that can be wrong with an argument whatever the verb: its size, its
 * place in memory, each flag, each reserved bit, each descriptor, and that it
 * changes while the kernel reads it. For every ioctl and the io_uring command.
 *
 * uapi_rows.h has the rows, uapi_list.h, made from include/uapi/peerdma.h, says
 * which there must be.
 *
 * usage: uapi_sweep [CASE...], as root
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "uapi_rows.h"

#define GPU_PAGE	65536u
#define DRIVE		"/dev/disk/by-serial/peerdma1"
#define CANARY		0x5a

#define NR(table)	(sizeof(table) / sizeof((table)[0]))
#define FOR_EACH(i, table)	for ((i) = 0; (i) < NR(table); (i)++)

static void close_made(const struct verb *verb, const void *arg)
{
	int fd;

	if (!verb->made)
		return;
	memcpy(&fd, (const char *)arg + verb->made, sizeof(fd));
	close(fd);
}

static int call(const struct verb *verb, void *arg)
{
	int ret = verb->call(verb, arg);

	if (!ret)
		close_made(verb, arg);
	return ret;
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

	*(uint32_t *)arg = size;
	return call(verb, arg);
}

/* ---- sizes and places ----------------------------------------------------- */

/* Each byte of a tail that is not known, alone. */
static int tails_refused(const struct verb *verb)
{
	int at, refused = 0;

	for (at = 0; at < 16; at++) {
		char *arg = edge(verb, verb->size + 16);

		*(uint32_t *)arg = verb->size + 16;
		arg[verb->size + at] = 1;
		refused += call(verb, arg) == -E2BIG;
	}
	return refused;
}

static void sweep_sizes(const struct verb *verb)
{
	uint32_t size = verb->size, min_size = verb->min_size;
	char *arg;

	t_result(call_sized(verb, 0, size), -EINVAL, "%s: a size of 0",
		 verb->name);
	t_result(call_sized(verb, 4, size), -EINVAL, "%s: of its first field",
		 verb->name);
	t_result(call_sized(verb, min_size - 1, size), -EINVAL,
		 "%s: a byte too short", verb->name);
	t_result(call_sized(verb, min_size, min_size), 0,
		 "%s: as short as it once was", verb->name);
	t_result(call_sized(verb, size - 1, size - 1),
		 size - 1 < min_size ? -EINVAL : 0, "%s: a byte less",
		 verb->name);
	t_result(call_sized(verb, size, size), 0, "%s: as long as it is",
		 verb->name);
	t_result(call_sized(verb, size + 1, size + 1), 0,
		 "%s: a zero byte more", verb->name);
	arg = edge(verb, size + 1);
	*(uint32_t *)arg = size + 1;
	arg[size] = 1;
	t_result(call(verb, arg), -E2BIG, "%s: another byte more", verb->name);
	t_is(tails_refused(verb), 16, "%s: a tail that is not zero",
	     verb->name);
	t_result(call_sized(verb, PAGE, PAGE), 0, "%s: zeroes to a page",
		 verb->name);
	t_result(call_sized(verb, PAGE + 1, PAGE + 4), -E2BIG,
		 "%s: more than a page", verb->name);
	t_result(call_sized(verb, INT_MAX, PAGE), -E2BIG, "%s: 2^31 - 1",
		 verb->name);
	t_result(call_sized(verb, UINT32_MAX, PAGE), -E2BIG,
		 "%s: more than there is", verb->name);
	t_result(call_sized(verb, size + 8, size), -EFAULT,
		 "%s: a tail in no memory", verb->name);
}

static void test_sizes(void)
{
	size_t i;

	FOR_EACH(i, verbs)
		sweep_sizes(verbs[i]);
}

static void sweep_places(const struct verb *verb)
{
	static const uintptr_t nowhere[] = {
		0, 1, PAGE, 1ul << 47, (1ul << 47) - 8, 1ul << 62, 1ul << 63,
		-(uintptr_t)PAGE, -(uintptr_t)8, -(uintptr_t)1,
	};
	uint32_t room, refused = 0;
	char *page = t_ram(PAGE);
	size_t i;

	FOR_EACH(i, nowhere)
		refused += call(verb, (void *)nowhere[i]) == -EFAULT;
	t_is(refused, NR(nowhere), "%s: no address of the program's",
	     verb->name);
	refused = 0;
	for (room = 1; room < verb->size; room++) {
		void *arg = edge(verb, room);

		refused += call(verb, arg) == -EFAULT;
	}
	t_is(refused, verb->size - 1, "%s: memory that ends within it",
	     verb->name);

	verb->fill((union any_arg *)(page + 1));
	t_result(call(verb, page + 1), 0, "%s: at an odd address", verb->name);
	verb->fill((union any_arg *)page);
	mprotect(page, PAGE, PROT_READ);
	t_result(call(verb, page), verb->silent ? 0 : -EFAULT,
		 "%s: memory that cannot be written", verb->name);
	mprotect(page, PAGE, PROT_NONE);
	t_result(call(verb, page), -EFAULT, "%s: nor read", verb->name);
	munmap(page, PAGE);
}

static void test_places(void)
{
	int before = t_open_descriptors();
	size_t i;

	FOR_EACH(i, verbs)
		sweep_places(verbs[i]);
	t_is(t_open_descriptors(), before, "no descriptor came of it");
}

/* ---- flags and reserved fields -------------------------------------------- */

static void test_flags(void)
{
	size_t i;
	int bit;

	FOR_EACH(i, verbs) {
		const struct verb *verb = verbs[i];
		uint32_t refused = 0;

		for (bit = 0; bit < 32; bit++) {
			uint32_t *arg = edge(verb, verb->size);

			arg[1] = 1u << bit;
			if (call(verb, arg) == -EOPNOTSUPP)
				refused |= 1u << bit;
		}
		t_is(refused, (uint32_t)~verb->known_flags,
		     "%s: every unknown flag is refused, no other", verb->name);
	}
}

/* Rows of one table that are about a verb's struct. */
static bool is_of(const struct field *field, const struct verb *verb)
{
	return !strcmp(field->type, verb->type);
}

static uint32_t bits_refused(const struct verb *verb, size_t offset,
			     size_t size)
{
	uint32_t bit, refused = 0;

	for (bit = 0; bit < 8 * size; bit++) {
		char *arg = edge(verb, verb->size);

		arg[offset + bit / 8] |= 1 << bit % 8;
		refused += call(verb, arg) == -EOPNOTSUPP;
	}
	return refused;
}

static void test_reserved(void)
{
	size_t i, j;

	FOR_EACH(i, reserved) {
		const struct field *field = &reserved[i];
		bool known = false;

		FOR_EACH(j, verbs) {
			if (!is_of(field, verbs[j]))
				continue;
			known = true;
			t_is(bits_refused(verbs[j], field->offset, field->size),
			     8 * field->size, "%s: every bit of %s is refused",
			     verbs[j]->name, field->name);
		}
		t_ok(known, "%s has a verb", field->type);
	}
	t_is(bits_refused(&verb_PIN, offsetof(struct peerdma_pin, device), 4),
	     32, "PIN: nvidia wants no device");
	t_is(bits_refused(&verb_PIN, offsetof(struct peerdma_pin, bar), 4), 32,
	     "PIN: nor a BAR");
}

/* ---- descriptors ---------------------------------------------------------- */

static int open_nothing(void)
{
	return 1023;
}

static int open_negative(void)
{
	return -1;
}

static int open_most(void)
{
	return INT_MAX;
}

static int open_least(void)
{
	return INT_MIN;
}

static int open_closed(void)
{
	int fd = t_device_open();

	close(fd);
	return fd;
}

static int open_path_only(void)
{
	return t_open("/dev/peerdma", O_PATH);
}

static int open_directory(void)
{
	return t_open("/mnt", O_RDONLY | O_DIRECTORY);
}

static int open_file(void)
{
	return t_open("/proc/self/exe", O_RDONLY);
}

static int open_memory(void)
{
	return memfd_create("memory", MFD_CLOEXEC);
}

static int open_pipe(void)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	close(ends[1]);
	return ends[0];
}

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int open_event(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int open_epoll(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

static int open_process(void)
{
	return syscall(SYS_pidfd_open, getpid(), 0);
}

static int open_null(void)
{
	return t_open("/dev/null", O_RDWR);
}

static int open_device(void)
{
	return t_open("/dev/peerdma", O_RDWR);
}

static int open_ring(void)
{
	return dup(ring.ring_fd);
}

static int open_mapping(void)
{
	union any_arg arg;

	fill_map_device(&arg);
	return call_ioctl(&verb_MAP_DEVICE, &arg) ? -1 :
						    arg.map_device.out_fd;
}

static int open_pages(void)
{
	union any_arg arg;

	fill_pages(&arg);
	return call_ioctl(&verb_PAGES, &arg) ? -1 : arg.pages.out_fd;
}

static int open_buffer(void)
{
	return dup(any.fd);
}

/**
 * struct kind - a descriptor that is something else than it should be
 * @name: for people
 * @open: it
 * @want: what a verb says that wants another kind
 * @file: what FILE_IO says of it as a file; 0 for what differs by the kernel
 */
static const struct kind {
	const char *name;
	int (*open)(void);
	int want;
	int file;
} kinds[] = {
	{ "-1", open_negative, -EBADF, -EBADF },
	{ "1023, which is not open", open_nothing, -EBADF, -EBADF },
	{ "2^31 - 1", open_most, -EBADF, -EBADF },
	{ "-2^31", open_least, -EBADF, -EBADF },
	{ "a closed /dev/peerdma", open_closed, -EBADF, -EBADF },
	{ "an O_PATH descriptor", open_path_only, -EBADF, -EBADF },
	{ "a directory", open_directory, -EINVAL, -EISDIR },
	{ "a file", open_file, -EINVAL, -EBADFD },
	{ "a file of memory", open_memory, -EINVAL, -EBADFD },
	{ "a pipe", open_pipe, -EINVAL, -ESPIPE },
	{ "a socket", open_socket, -EINVAL, -ESPIPE },
	{ "an eventfd", open_event, -EINVAL, -ESPIPE },
	{ "an epoll", open_epoll, -EINVAL, -ESPIPE },
	{ "a pidfd", open_process, -EINVAL, 0 },
	{ "/dev/null", open_null, -EINVAL, -ESPIPE },
	{ "/dev/peerdma", open_device, -EINVAL, -ESPIPE },
	{ "a ring", open_ring, -EINVAL, -ESPIPE },
	{ "a device's mapping", open_mapping, -EINVAL, -ESPIPE },
	{ "a page map", open_pages, -EINVAL, -ESPIPE },
	{ "a buffer", open_buffer, -EINVAL, -ESPIPE },
};

static bool is_right(const struct kind *kind, const struct field *field)
{
	return (!kind->file && !strcmp(field->name, "file_fd")) ||
	       (kind->open == open_buffer &&
		!strcmp(field->name, "buffer_fd")) ||
	       (kind->open == open_event && !strcmp(field->name, "event_fd"));
}

static int call_with(const struct verb *verb, const struct field *field,
		     int fd, uint32_t flags)
{
	char *arg = edge(verb, verb->size);

	((uint32_t *)arg)[1] = flags;
	memcpy(arg + field->offset, &fd, sizeof(fd));
	return call(verb, arg);
}

/* Without flags, and with each one that is known. */
static void sweep_kind(const struct verb *verb, const struct field *field,
		       const struct kind *kind)
{
	int want = strcmp(field->name, "file_fd") ? kind->want : kind->file;
	uint32_t known = verb->known_flags;
	int fd = kind->open(), bit;

	t_result(call_with(verb, field, fd, 0), want, "%s: %s is %s",
		 verb->name, field->name, kind->name);
	for (bit = 0; bit < 32; bit++) {
		/* The file that runs is not open for writing. */
		int other = kind->open == open_file && want == -EBADFD ?
			    -EBADF : want;

		if (known & 1u << bit)
			t_result(call_with(verb, field, fd, 1u << bit), other,
				 "%s: ... with flag %d", verb->name, bit);
	}
	if (fd >= 0)
		close(fd);
}

static int foreign_dmabuf(void)
{
	struct udmabuf_create create = { .size = PAGE };
	int udmabuf = t_open("/dev/udmabuf", O_RDWR);
	int fd;

	if (udmabuf < 0)
		return udmabuf;
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

/* WATCH and REVOKE are for our own; where memory is wanted, no BAR is found. */
static void sweep_foreign(const struct verb *verb, const struct field *field,
			  int fd)
{
	int want = -EREMOTEIO;

	if (verb->nr == PEERDMA_NR_QUERY)
		want = 0;
	else if (verb->nr == PEERDMA_NR_WATCH || verb->nr == PEERDMA_NR_REVOKE)
		want = -EOPNOTSUPP;
	t_result(call_with(verb, field, fd, 0), want,
		 "%s: %s is another exporter's", verb->name, field->name);
}

static void test_descriptors(void)
{
	int before = t_open_descriptors(), foreign = foreign_dmabuf();
	size_t i, j, k;

	FOR_EACH(i, descriptors) {
		const struct field *field = &descriptors[i];
		bool known = false;

		FOR_EACH(j, verbs) {
			if (!is_of(field, verbs[j]))
				continue;
			known = true;
			FOR_EACH(k, kinds)
				if (!is_right(&kinds[k], field))
					sweep_kind(verbs[j], field, &kinds[k]);
			if (foreign >= 0 && !strcmp(field->name, "buffer_fd"))
				sweep_foreign(verbs[j], field, foreign);
		}
		t_ok(known, "%s has a verb", field->type);
	}
	if (foreign < 0)
		t_skip("another exporter's", "this kernel has no udmabuf");
	else
		close(foreign);
	t_is(t_open_descriptors(), before, "no descriptor came of it");
}

/* ---- memory that changes while it is read --------------------------------- */

/**
 * struct race - two pages; who reads the second one waits until the first one is
 *	other than it was
 * @fd: the userfaultfd
 * @pages: the two
 * @from: what of the first one changes, to its end
 * @staged: what the second one will hold
 * @faults: how often somebody had to wait
 */
static struct race {
	int fd;
	char *pages;
	char *from;
	char staged[PAGE];
	int faults;
} race;

static void *race_thread(void *unused)
{
	struct uffd_msg message;

	while (read(race.fd, &message, sizeof(message)) == sizeof(message)) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)race.pages + PAGE,
			.src = (uintptr_t)race.staged,
			.len = PAGE,
		};

		memset(race.from, 0xff, race.pages + PAGE - race.from);
		race.faults++;
		ioctl(race.fd, UFFDIO_COPY, &copy);
	}
	return unused;
}

static void race_open(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	pthread_t thread;

	race.pages = t_ram(2 * PAGE);
	range.range.start = (uintptr_t)race.pages + PAGE;
	range.range.len = PAGE;
	race.fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	t_need(race.fd >= 0 && !ioctl(race.fd, UFFDIO_API, &api) &&
	       !ioctl(race.fd, UFFDIO_REGISTER, &range) &&
	       !pthread_create(&thread, NULL, race_thread, NULL),
	       "a userfaultfd");
	pthread_detach(thread);
}

/* @len bytes, the first @split of them before the border. */
static void *race_put(const void *bytes, size_t len, size_t split)
{
	madvise(race.pages + PAGE, PAGE, MADV_DONTNEED);
	memset(race.pages, CANARY, PAGE);
	memset(race.staged, CANARY, PAGE);
	race.from = race.pages + PAGE - split;
	race.faults = 0;
	memcpy(race.from, bytes, split);
	memcpy(race.staged, (const char *)bytes + split, len - split);
	return race.from;
}

static bool all_canary(const char *from, const char *to)
{
	while (from < to)
		if (*from++ != CANARY)
			return false;
	return true;
}

/*
 * With the kernel between the two parts of the struct all of the first part
 * changes: whoever reads it once does not see it, whoever looks back does.
 */
static void sweep_race(const struct verb *verb)
{
	int want = verb->twice ? -E2BIG : 0;
	int tries = 0, good = 0, once = 0, inside = 0;
	union any_arg arg;
	size_t split;

	for (split = 8; split < verb->size; split += 8, tries++) {
		char *at;

		memset(&arg, 0, sizeof(arg));
		verb->fill(&arg);
		at = race_put(&arg, verb->size, split);
		good += call(verb, at) == want;
		once += race.faults == 1;
		inside += all_canary(race.pages, at) &&
			  all_canary(at + verb->size, race.pages + 2 * PAGE);
	}
	t_is(good, tries, "%s: what was read once counts", verb->name);
	t_is(once, tries, "%s: ... and was read while it changed", verb->name);
	t_is(inside, tries, "%s: ... and no other byte is written", verb->name);
}

/* The size is read first, and the tail looked at before the struct is copied. */
static void sweep_race_size(const struct verb *verb)
{
	struct { union any_arg arg; char tail[64]; } longer = { 0 };
	uint32_t size = verb->size + 64;
	char *at;

	verb->fill(&longer.arg);
	longer.arg.size = size;
	memset((char *)&longer + verb->size, 0, 64);
	at = race_put(&longer, size, verb->size);
	/* Of so many segments a worker takes care, which reads it again. */
	t_result(call(verb, at), verb->call == call_ring ? -E2BIG : -EOPNOTSUPP,
		 "%s: all but the size as it is when it is copied", verb->name);
	t_is(race.faults, 1, "%s: ... after its tail", verb->name);
	if (!verb->silent && verb->call == call_ioctl)
		t_is(*(uint32_t *)at, size, "%s: the size as it was checked",
		     verb->name);
	t_ok(all_canary(race.pages, at) &&
	     all_canary(at + size, race.pages + 2 * PAGE),
	     "%s: no other byte is written", verb->name);
}

static void test_race(void)
{
	int before = t_open_descriptors();
	size_t i;

	FOR_EACH(i, verbs) {
		sweep_race(verbs[i]);
		sweep_race_size(verbs[i]);
	}
	t_is(t_open_descriptors(), before, "no descriptor came of it");
}

/* The array of FILE_IO, of which the first segment goes bad. */
static void test_race_array(void)
{
	struct peerdma_file_segment segments[2] = {
		{ 0, 0, PAGE, 0 }, { PAGE, PAGE, PAGE, 0 },
	};
	unsigned char *bytes = t_ram(2 * PAGE);
	union any_arg arg;
	size_t split, i;

	t_fill(bytes, 2 * PAGE, 9);
	t_is(pwrite(drive, bytes, 2 * PAGE, 0), 2 * PAGE, "the drive's bytes");
	FOR_EACH(i, verbs) {
		const struct verb *verb = verbs[i];
		int good = 0;

		if (verb->nr != PEERDMA_NR_FILE_IO || verb->silent)
			continue;
		t_gpu_set(any.ptr, CANARY, 2 * PAGE);
		for (split = 8; split < sizeof(segments); split += 8) {
			fill_file_io(&arg);
			arg.file_io.segments = (uintptr_t)
				race_put(segments, sizeof(segments), split);
			arg.file_io.nr_segments = 2;
			good += !verb->call(verb, &arg) && race.faults == 1;
		}
		t_is(good, 7, "%s: segments that change", verb->name);
		t_gpu_same(any.ptr, bytes, 2 * PAGE,
			   "%s: ... and go where they first said", verb->name);
	}
	munmap(bytes, 2 * PAGE);
}

/* ---- main ----------------------------------------------------------------- */

static void prepare(void)
{
	struct peerdma_info info = { .size = sizeof(info) };
	struct peerdma_query got;
	struct peerdma_file_io io;
	struct peerdma_pin pin;

	t_gpu_init();
	dev = t_device_open();
	t_is(ioctl(dev, PEERDMA_INFO, &info), 0, "the module is known");
	t_is(NR(verbs), __builtin_popcountll(info.out_verbs) + 2,
	     "each of its verbs has a row, commands two");
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	event = eventfd(0, EFD_CLOEXEC);
	t_need(drive >= 0 && event >= 0, "all is opened");
	t_ring_make(&ring, 4, 0);
	race_open();
	t_buffer_make(&any, dev, GPU_PAGE);
	victim = t_pin(dev, any.ptr, any.len, 0, &pin);
	t_result(t_query(dev, any.fd, &got), 0, "the GPU is known");
	gpu_number = got.out_device;
	t_result(t_move(dev, T_READ, any.fd, drive, NULL, 0, &io), 0,
		 "the drive is known");
	drive_number = io.out_device;
}

/* Each case has used `any`; it is made anew, so that nothing hides behind it. */
static void renew(void)
{
	struct peerdma_pin pin;

	close(victim);
	t_buffer_drop(&any);
	t_nothing_left();
	any.ptr = t_gpu_alloc(any.len);
	any.fd = t_pin(dev, any.ptr, any.len, 0, &any.pin);
	victim = t_pin(dev, any.ptr, any.len, 0, &pin);
}

static const struct t_case cases[] = {
	{ "sizes", test_sizes },
	{ "places", test_places },
	{ "flags", test_flags },
	{ "reserved", test_reserved },
	{ "descriptors", test_descriptors },
	{ "races", test_race },
	{ "races of the array", test_race_array },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	prepare();
	return T_RUN(cases, renew);
}
