// SPDX-License-Identifier: MIT
/*
 * What root can watch: the list of buffers in debugfs, the dma-buf's fdinfo and
 * the tracepoints. None of them may tell an address.
 *
 * Wants /dev/nvme0n1, slow, whose first 16 MiB are written over, and t_importer.ko.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/dma-buf.h>
#include <linux/perf_event.h>

#include "../devices/importer/t_importer.h"
#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_transfer.h"

#define BUFFERS	"/sys/kernel/debug/peerdma/buffers"
#define TRACING	"/sys/kernel/tracing/"
#define EVENTS	TRACING "events/peerdma/"
#define DRIVE	"/dev/nvme0n1"
#define LEN	(4ull << 20)
#define SLOW	(16ull << 20)
#define OTHER_USER	1234

static int dev;

/* A small file whole; to be freed. */
static char *file_read(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t len = 0, room = 1 << 20;
	char *text = calloc(1, room);

	if (!file || !text)
		t_need(false, "%s is read: %s", path, strerror(errno));
	len = fread(text, 1, room - 1, file);
	text[len] = '\0';
	fclose(file);
	return text;
}

static void file_write(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file))
		t_need(false, "%s is written: %s", path, strerror(errno));
}

static uint64_t number(int fd)
{
	struct stat stat;

	fstat(fd, &stat);
	return stat.st_ino;
}

/* The line of a buffer in the list; false when there is none. */
struct line {
	uint64_t number, size, pinned;
	char provider[32], mode[32], access[8], comm[64];
	unsigned int uid;
	int pid, cpu_maps, importers, device_maps, file_ios, page_maps, held;
};

static bool line_of(uint64_t number, struct line *line)
{
	char *text = file_read(BUFFERS), *at = text;
	bool found = false;

	while (!found && (at = strchr(at, '\n')) && *++at)
		found = sscanf(at, "%" SCNu64 "%" SCNu64 "%" SCNu64
			       " %31s %31s %7s %u %d %d %d %d %d %d %d %63s",
			       &line->number, &line->size, &line->pinned,
			       line->provider, line->mode, line->access,
			       &line->uid, &line->pid, &line->cpu_maps,
			       &line->importers, &line->device_maps,
			       &line->file_ios, &line->page_maps, &line->held,
			       line->comm) == 15 &&
			line->number == number;
	free(text);
	return found;
}

/* ---- the list of buffers ------------------------------------------------- */

static void list_says_what_a_buffer_is(void)
{
	uint64_t ptr = t_gpu_alloc(LEN), self;
	struct peerdma_pin pin;
	struct stat stat_of;
	struct line line;

	stat(BUFFERS, &stat_of);
	t_is(stat_of.st_mode & 07777, 0400, "root alone reads the list");
	t_need(t_pin(dev, ptr + 100, 70000, PEERDMA_PIN_READ_ONLY, &pin) >= 0,
	       "70,000 bytes are pinned");
	self = number(pin.out_fd);
	t_need(line_of(self, &line), "the buffer is listed by its number");
	t_is(line.size, 70000, "its size is what was asked for");
	t_is(line.pinned, 2 * 65536, "whole pages are pinned");
	t_ok(!strcmp(line.provider, "nvidia"), "its provider is nvidia");
	t_ok(!strcmp(line.mode, "persistent"), "it is persistent");
	t_ok(!strcmp(line.access, "ro"), "it is read-only");
	t_is(line.uid, getuid(), "its owner is this user");
	t_is(line.pid, getpid(), "its owner is this process");
	t_ok(!strcmp(line.comm, "a\\040watcher"),
	     "its owner's name is told with blanks escaped: %s", line.comm);
	close(pin.out_fd);
	t_ok(t_wait_for(!line_of(self, &line)), "once closed it is not listed");
	t_gpu_free(ptr);
}

static void list_counts_what_uses_a_buffer(void)
{
	uint64_t ptr = t_gpu_alloc(LEN), self;
	struct peerdma_pin pin;
	struct line line;
	char *map, *part;

	t_need(t_pin(dev, ptr, LEN, PEERDMA_PIN_REVOCABLE, &pin) >= 0,
	       "a revocable pin is made");
	self = number(pin.out_fd);
	map = mmap(NULL, LEN, PROT_READ, MAP_SHARED, pin.out_fd, 0);
	part = mmap(NULL, 4096, PROT_READ, MAP_SHARED, pin.out_fd, 4096);
	t_need(map != MAP_FAILED && part != MAP_FAILED, "it is mapped twice");
	t_need(line_of(self, &line), "it is listed");
	t_is(line.cpu_maps, 2, "two mappings of the CPU's are counted");
	t_is(line.importers + line.device_maps + line.file_ios +
	     line.page_maps + line.held, 0, "and nothing else");
	t_ok(!strcmp(line.mode, "revocable"), "it is revocable");
	munmap(part, 4096);
	close(pin.out_fd);
	t_need(line_of(self, &line), "a mapping keeps it in the list");
	t_is(line.cpu_maps, 1, "one mapping is left");
	t_gpu_free(ptr);
	t_need(line_of(self, &line), "so it is when its memory is gone");
	t_ok(!strcmp(line.mode, "revoked"), "and it says so");
	munmap(map, LEN);
}

struct slow {
	int buffer;
	int file;
	long long moved;
	volatile bool seen;
};

/* Again until it was seen under way. */
static void *move_slowly(void *arg)
{
	struct slow *slow = arg;

	do {
		slow->moved = t_move_one(dev, T_READ, slow->buffer, slow->file,
					 0, 0, SLOW);
	} while (slow->moved == SLOW && !slow->seen);
	return NULL;
}

static void list_counts_transfers(void)
{
	struct t_buffer buffer, other;
	struct line line, idle;
	struct slow slow = { 0 };
	pthread_t mover;

	t_buffer_make(&buffer, dev, SLOW);
	t_buffer_make(&other, dev, LEN);
	slow.buffer = buffer.fd;
	slow.file = t_open(DRIVE, O_RDONLY | O_DIRECT);
	pthread_create(&mover, NULL, move_slowly, &slow);
	t_ok(t_wait_for(line_of(number(buffer.fd), &line) &&
			line.file_ios == 1), "a transfer under way is counted");
	t_ok(line_of(number(other.fd), &idle) && !idle.file_ios,
	     "at its buffer alone");
	slow.seen = true;
	pthread_join(mover, NULL);
	t_is(slow.moved, SLOW, "it ends as it should");
	t_ok(line_of(number(buffer.fd), &line) && !line.file_ios,
	     "then none is counted");
	close(slow.file);
	t_buffer_drop(&other);
	t_buffer_drop(&buffer);
}

/* The drive's function as one that imports, twice, and by MAP_DEVICE. */
static void list_counts_devices(void)
{
	int drive = t_open(DRIVE, O_RDONLY | O_DIRECT), importers[2], i;
	struct peerdma_device_segment segments[64];
	struct peerdma_map_device map = {
		.size = sizeof(map), .len = LEN, .nr_segments = 64,
		.segments = (uintptr_t)segments,
	};
	struct t_import import = { .flags = T_IMPORT_STATIC };
	struct t_buffer buffer, other;
	struct line line, idle, before;
	struct peerdma_file_io io;

	t_buffer_make(&buffer, dev, LEN);
	t_buffer_make(&other, dev, LEN);
	t_need(!t_move(dev, T_READ, buffer.fd, drive, NULL, 0, &io),
	       "the drive's function is known");
	import.fd = map.buffer_fd = buffer.fd;
	import.device = map.device = io.out_device;
	for (i = 0; i < 2; i++) {
		importers[i] = t_open("/dev/t_importer", O_RDWR);
		t_need(!ioctl(importers[i], T_IMPORT, &import),
		       "a driver attaches");
	}
	/* Older kernels map for a driver that cannot let go when it attaches. */
	t_need(line_of(number(buffer.fd), &before), "it is listed");
	t_need(!ioctl(dev, PEERDMA_MAP_DEVICE, &map), "MAP_DEVICE");
	t_need(line_of(number(buffer.fd), &line), "it is listed still");
	t_is(line.importers, 2, "two importers are counted");
	t_is(line.device_maps, before.device_maps + 1,
	     "and one mapping more for a device");
	t_is(line.cpu_maps + line.file_ios + line.page_maps + line.held, 0,
	     "and nothing else");
	t_ok(line_of(number(other.fd), &idle) && !idle.importers &&
	     !idle.device_maps, "at their buffer alone");
	close(importers[0]);
	t_ok(line_of(number(buffer.fd), &line) && line.importers == 1,
	     "one importer is left");
	close(map.out_fd);
	t_ok(line_of(number(buffer.fd), &line) && line.importers == 1 &&
	     line.device_maps == before.device_maps / 2,
	     "and no mapping of MAP_DEVICE's");
	close(importers[1]);
	t_ok(line_of(number(buffer.fd), &line) && !line.importers, "then none");
	close(drive);
	t_buffer_drop(&other);
	t_buffer_drop(&buffer);
}

/* Pins memory of its own as another user, tells its number and waits. */
static int pin_as_another(const int *to, const int *from)
{
	struct peerdma_pin pin = {
		.provider = "user", .addr = (uintptr_t)t_ram(4096), .len = 4096,
	};
	uint64_t self;
	char byte;

	close(from[1]);
	if (setresuid(OTHER_USER, OTHER_USER, OTHER_USER) ||
	    t_pin_range(dev, &pin) < 0)
		return 1;
	self = number(pin.out_fd);
	return write(to[1], &self, sizeof(self)) != sizeof(self) ||
	       read(from[0], &byte, 1) < 0;
}

static void list_tells_owners(void)
{
	int to[2], from[2], status = -1;
	struct line line;
	uint64_t self = 0;
	pid_t child;

	t_need(!pipe(to) && !pipe(from), "pipes");
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(pin_as_another(to, from));
	close(to[1]);
	t_is(read(to[0], &self, sizeof(self)), sizeof(self),
	     "another user pins memory");
	t_need(line_of(self, &line), "it is listed");
	t_is(line.uid, OTHER_USER, "its owner is that user");
	t_is(line.pid, child, "its owner is that process");
	t_ok(!strcmp(line.provider, "user"), "its provider is user");
	close(from[1]);
	waitpid(child, &status, 0);
	t_is(status, 0, "the user is done");
	t_ok(t_wait_for(!line_of(self, &line)), "and it is not listed");
	close(to[0]);
	close(from[0]);
}

static uint32_t queried_page_maps(int buffer)
{
	struct peerdma_query query;

	t_need(!t_query(dev, buffer, &query), "QUERY answers");
	return query.out_page_maps;
}

/* Page maps, and those that keep memory only since somebody holds a page. */
static void list_counts_page_maps(void)
{
	struct t_buffer buffer, other;
	struct peerdma_page_map arg;
	struct line line, idle;
	struct iovec page;
	int pages, ends[2];
	char *at;

	t_buffer_make(&buffer, dev, LEN);
	t_buffer_make(&other, dev, LEN);
	pages = t_pages(dev, buffer.fd, 0, &arg);
	t_need(pages >= 0, "it is had as pages");
	at = (char *)t_pages_map(dev, buffer.fd, LEN);
	t_ok(line_of(number(buffer.fd), &line) && line.page_maps == 2,
	     "two page maps are counted");
	t_is(line.held, 0, "held by nobody else");
	t_is(line.cpu_maps, 1, "one of them is mapped");
	t_ok(line_of(number(other.fd), &idle) && !idle.page_maps,
	     "at their buffer alone");
	t_is(queried_page_maps(buffer.fd), 2, "QUERY counts them, too");
	t_is(queried_page_maps(other.fd), 0, "likewise");
	page = (struct iovec){ at, 4096 };
	t_need(!pipe(ends) && vmsplice(ends[1], &page, 1, 0) == 4096,
	       "a page is in a pipe");
	munmap(at, LEN);
	t_ok(t_wait_for(line_of(number(buffer.fd), &line) && line.held == 1),
	     "the one that was mapped is held by the pipe alone");
	t_is(line.page_maps, 2, "and still counts");
	t_is(queried_page_maps(buffer.fd), 2, "in QUERY, too");
	close(ends[0]);
	close(ends[1]);
	t_ok(t_wait_for(line_of(number(buffer.fd), &line) && !line.held),
	     "when it lets go none is held");
	t_ok(t_wait_for(line_of(number(buffer.fd), &line) &&
			line.page_maps == 1), "and then one is left");
	close(pages);
	t_ok(t_wait_for(!queried_page_maps(buffer.fd)), "then none");
	t_buffer_drop(&other);
	t_buffer_drop(&buffer);
}

#define MANY	300

/* More than a page of text: what is listed is neither doubled nor lost. */
static void list_of_many(void)
{
	uint64_t ptr = t_gpu_alloc(LEN);
	struct peerdma_pin pin[MANY];
	struct line line;
	int i, found = 0;
	char *text, *at;

	for (i = 0; i < MANY; i++)
		t_pin(dev, ptr, 4096, 0, &pin[i]);
	for (i = 0; i < MANY; i++)
		found += line_of(number(pin[i].out_fd), &line);
	t_is(found, MANY, "each of %d buffers is listed", MANY);
	text = file_read(BUFFERS);
	for (found = 0, at = text; (at = strchr(at, '\n')); at++)
		found++;
	t_is(found, MANY + 1, "and once, below a line of names");
	free(text);
	for (i = 0; i < MANY; i++)
		close(pin[i].out_fd);
	t_gpu_free(ptr);
}

/* ---- fdinfo -------------------------------------------------------------- */

static void fdinfo_names_the_exporter(void)
{
	uint64_t ptr = t_gpu_alloc(LEN);
	struct peerdma_pin pin;
	char path[64], *text;

	t_need(t_pin(dev, ptr, LEN, 0, &pin) >= 0, "memory is pinned");
	t_is(ioctl(pin.out_fd, DMA_BUF_SET_NAME_B, (uintptr_t)"weights"), 0,
	     "the user may name it");
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pin.out_fd);
	text = file_read(path);
	t_ok(strstr(text, "exp_name:\tpeerdma\n"), "fdinfo tells who exports");
	t_ok(strstr(text, "size:\t4194304\n"), "and the size");
	t_ok(strstr(text, "name:\tweights\n"), "and the name");
	free(text);
	close(pin.out_fd);
	t_gpu_free(ptr);
}

/* ---- tracepoints --------------------------------------------------------- */

/* Does the trace hold a line with both? @fmt is of the second. */
__attribute__((format(printf, 3, 4)))
static bool traced(const char *trace, const char *event, const char *fmt, ...)
{
	char want[256], name[64];
	const char *line, *end;
	va_list args;

	va_start(args, fmt);
	vsnprintf(want, sizeof(want), fmt, args);
	va_end(args);
	snprintf(name, sizeof(name), " %s: ", event);
	for (line = trace; (end = strchr(line, '\n')); line = end + 1) {
		char *event_at = memmem(line, end - line, name, strlen(name));

		if (event_at && memmem(event_at, end - event_at, want,
				       strlen(want)))
			return true;
	}
	t_note("no '%s' with '%s'", event, want);
	return false;
}

/* One of everything; the number that the buffer had. */
static uint64_t use_all(uint64_t ptr, int file, struct peerdma_segment *where)
{
	struct peerdma_query query = {
		.size = sizeof(query),
		.nr_segments = 64,
		.segments = (uintptr_t)where,
	};
	struct peerdma_pin pin, bad;
	uint64_t self;
	char *map;

	t_result(t_pin(dev, 4096, LEN, 0, &bad), -EFAULT,
		 "what is no GPU memory is not pinned");
	t_need(t_pin(dev, ptr, LEN, PEERDMA_PIN_REVOCABLE, &pin) >= 0,
	       "memory is pinned");
	self = number(pin.out_fd);
	query.buffer_fd = pin.out_fd;
	t_is(ioctl(dev, PEERDMA_QUERY, &query), 0, "its segments are known");
	map = mmap(NULL, 8192, PROT_READ, MAP_SHARED, pin.out_fd, 4096);
	munmap(map, 8192);
	t_is(t_move_one(dev, T_WRITE, pin.out_fd, file, 4096, 8192, 65536),
	     65536, "bytes are written");
	t_is(t_move_one(dev, T_READ, pin.out_fd, file, 8192, 4096, 4096), 4096,
	     "bytes are read");
	t_result(t_revoke(dev, pin.out_fd), 0, "the memory is taken back");
	close(pin.out_fd);
	return self;
}

/* Kernel addresses, and where the buffer lies, in any notation. */
static bool tells_address(const char *text, const struct peerdma_segment *where)
{
	char hex[32], decimal[32];
	int i;

	if (strstr(text, "ffff8") || strstr(text, "ffffc") ||
	    strstr(text, "ffffff"))
		return true;
	for (i = 0; i < 64 && where[i].len; i++) {
		snprintf(hex, sizeof(hex), "%" PRIx64, (uint64_t)where[i].addr);
		snprintf(decimal, sizeof(decimal), "%" PRIu64,
			 (uint64_t)where[i].addr);
		if (strstr(text, hex) || strstr(text, decimal))
			return true;
	}
	return false;
}

static void trace_tells_what_happens(void)
{
	int file = t_open(DRIVE, O_RDWR | O_DIRECT);
	struct peerdma_segment where[64] = { 0 };
	uint64_t ptr = t_gpu_alloc(LEN), self;
	char *trace;

	file_write(TRACING "trace", "");
	file_write(EVENTS "enable", "1");
	self = use_all(ptr, file, where);
	file_write(EVENTS "enable", "0");
	trace = file_read(TRACING "trace");

#define TRACED(event, fmt, ...) traced(trace, event, "buffer=%" PRIu64 fmt,\
				       self, ##__VA_ARGS__)
	t_ok(traced(trace, "pin", "buffer=0 provider=nvidia len=4194304 pinned=0 mode= ret=-14"),
	     "a pin that fails is traced");
	t_ok(TRACED("pin", " provider=nvidia len=4194304 pinned=4194304 mode=revocable ret=0"),
	     "a pin is traced");
	t_ok(TRACED("map", " by=cpu offset=4096 len=8192"),
	     "a mapping is traced");
	t_ok(TRACED("unmap", " by=cpu offset=4096 len=8192"),
	     "its end is traced");
	t_ok(TRACED("io_start", " offset=8192 write dev="),
	     "a write's begin is traced");
	t_ok(TRACED("io_done", " offset=8192 write len=65536 result=65536"),
	     "a write's end is traced");
	t_ok(TRACED("io_start", " offset=4096 read dev="),
	     "a read's begin is traced");
	t_ok(TRACED("io_done", " offset=4096 read len=4096 result=4096"),
	     "a read's end is traced");
	t_ok(TRACED("revoke", " pinned=4194304"), "a revocation is traced");
	t_ok(TRACED("unpin", " pinned=4194304"), "the pin's end is traced");
	t_ok(!tells_address(trace, where), "no address is told");
	t_ok(where[0].len, "as there is one that could be");
	free(trace);

	file_write(TRACING "trace", "");
	use_all(ptr, file, where);
	trace = file_read(TRACING "trace");
	t_ok(!strstr(trace, "buffer="), "what is off tells nothing");
	free(trace);
	close(file);
	t_gpu_free(ptr);
}

/* What perf(1) and bpftrace(8) stand on: an event's number and its counter. */
static int event_open(const char *name)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = PERF_TYPE_TRACEPOINT,
		.sample_period = 1,
	};
	char path[128], *text;

	snprintf(path, sizeof(path), EVENTS "%s/id", name);
	text = file_read(path);
	attr.config = strtoull(text, NULL, 10);
	free(text);
	return syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);
}

static void perf_counts(void)
{
	static const char *const events[] = {
		"pin", "unpin", "map", "unmap", "io_start", "io_done", "revoke",
	};
	uint64_t ptr = t_gpu_alloc(LEN);
	struct peerdma_segment where[64] = { 0 };
	int file = t_open(DRIVE, O_RDWR | O_DIRECT);
	int fds[7];
	size_t i;

	/* Events are counted on the CPU where they happen. */
	for (i = 0; i < 7; i++)
		fds[i] = event_open(events[i]);
	use_all(ptr, file, where);
	for (i = 0; i < 7; i++) {
		uint64_t count = 0;

		t_ok(fds[i] >= 0 && read(fds[i], &count, sizeof(count)) == 8 &&
		     count, "perf counts %s", events[i]);
		close(fds[i]);
	}
	close(file);
	t_gpu_free(ptr);
}

/* bpftrace(8) over another run of this program's. */
static void bpftrace_sums(void)
{
	static const char *const wants[] = {
		"@seen[pin]: 2\n", "@seen[unpin]: 1\n", "@seen[revoke]: 1\n",
		"@mapped[cpu]: 8192\n", "@unmapped[cpu]: 8192\n",
		"@started[0]: 4096\n", "@started[1]: 65536\n",
		"@moved[0]: 4096\n", "@moved[1]: 65536\n",
	};
	char *command, *said = NULL;
	size_t i, size = 0;
	FILE *from;

	if (access("/sys/kernel/btf/vmlinux", R_OK)) {
		t_skip("bpftrace", "this kernel does not describe its types");
		return;
	}
	t_need(asprintf(&command,
			"bpftrace -c '%s perf' -e '"
			"t:peerdma:pin { @seen[\"pin\"] = count(); }"
			"t:peerdma:unpin { @seen[\"unpin\"] = count(); }"
			"t:peerdma:revoke { @seen[\"revoke\"] = count(); }"
			"t:peerdma:map { @mapped[args.by] = sum(args.len); }"
			"t:peerdma:unmap { @unmapped[args.by] = sum(args.len); }"
			"t:peerdma:io_start"
			" { @started[args.write] = sum(args.len); }"
			"t:peerdma:io_done"
			" { @moved[args.write] = sum(args.result); }' 2>&1",
			program_invocation_name) > 0, "the command");
	from = popen(command, "r");
	t_need(from && getdelim(&said, &size, '\0', from) > 0,
	       "bpftrace says something");
	t_is(pclose(from), 0, "bpftrace ends well");
	for (i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
		if (!t_ok(strstr(said, wants[i]), "bpftrace tells %.*s",
			  (int)strlen(wants[i]) - 1, wants[i]))
			t_note("%s", said);
	free(command);
	free(said);
}

static const struct t_case cases[] = {
	{ "list", list_says_what_a_buffer_is },
	{ "list, uses", list_counts_what_uses_a_buffer },
	{ "list, transfers", list_counts_transfers },
	{ "list, devices", list_counts_devices },
	{ "list, owners", list_tells_owners },
	{ "list, pages", list_counts_page_maps },
	{ "list, many", list_of_many },
	{ "fdinfo", fdinfo_names_the_exporter },
	{ "trace", trace_tells_what_happens },
	{ "perf", perf_counts },
	{ "bpftrace", bpftrace_sums },
};

int main(int argc, char **argv)
{
	FILE *comm = fopen("/proc/self/comm", "w");

	if (!comm)
		return 2;
	fputs("a watcher", comm);
	fclose(comm);
	t_gpu_init();
	dev = t_device_open();
	return T_RUN(cases, t_nothing_left);
}
