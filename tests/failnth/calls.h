/* SPDX-License-Identifier: MIT */
/*
 * What the module does for a program: each thing with what it needs before and
 * what undoes it, for tests/failnth/failnth.c.
 */
#ifndef CALLS_H
#define CALLS_H

#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "../../examples/edu/edu.h"
#include "../foreign/exporter/t_exporter.h"
#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_touch.h"
#include "../t_uring.h"
#include "fail.h"

#define PAGE		4096u
#define GPU_PAGE	65536u
#define LEN		(4u * GPU_PAGE)
#define OWN		(4 * PAGE)
#define UNIT		(128u << 20)
#define IOVA		0x20000000ull
/* Where nothing else is, so that a mapping has page tables of its own. */
#define FAR		((void *)0x200000000000)
#define DRIVE		"/dev/disk/by-serial/peerdma0"
#define SEGMENTS	16
/* The parts of a buffer and of a file that transfers reach. */
#define REACH		(GPU_PAGE + PAGE)

static int dev, drive, file, event, exporter, memory_fd;
static uint32_t gpu, spare, card, drive_number;
static int own_count;
static unsigned char *own;

/* What a try works with, made before and undone after it. */
static struct t_buffer buffer;
static int made = -1, other = -1;
/* Where the CPU finds the buffer's bytes, if not by CUDA. */
static unsigned char *memory;
static size_t memory_len;
static unsigned char *at = MAP_FAILED;
static struct io_uring ring;

/* As t_need(), and silent otherwise: tries are many. */
#define NEED(ok, ...) do {						\
	if (!(ok))							\
		t_need(false, __VA_ARGS__);				\
} while (0)

static void forget(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void drop_made(void)
{
	forget(&made);
}

static int result(int ret)
{
	return ret < 0 ? -errno : 0;
}

/* ---- verbs without a buffer ---------------------------------------------- */

static int call_info(void)
{
	struct peerdma_info info = { .size = sizeof(info) };

	return result(ioctl(dev, PEERDMA_INFO, &info));
}

static int call_route(void)
{
	struct peerdma_route route = {
		.size = sizeof(route),
		.from_device = drive_number,
		.to_device = gpu,
	};

	return result(ioctl(dev, PEERDMA_ROUTE, &route));
}

/* The list of buffers and the counters, in debugfs. */
static int call_list(void)
{
	char text[4096];
	ssize_t ret;

	other = open("/sys/kernel/debug/peerdma/buffers", O_RDONLY);
	if (other < 0)
		return -errno;
	ret = read(other, text, sizeof(text));
	return ret < 0 ? -errno : 0;
}

/* ---- PIN ----------------------------------------------------------------- */

static int pin(struct peerdma_pin *arg)
{
	int ret = t_pin_range(dev, arg);

	made = ret;
	return ret < 0 ? ret : 0;
}

static uint64_t allocated;

static int pin_nvidia(uint32_t flags)
{
	return pin(&(struct peerdma_pin){
		.provider = "nvidia", .addr = allocated, .len = LEN,
		.flags = flags,
	});
}

static int call_pin_nvidia(void)
{
	return pin_nvidia(0);
}

static int call_pin_revocable(void)
{
	return pin_nvidia(PEERDMA_PIN_REVOCABLE);
}

static int pin_pci(uint64_t addr)
{
	return pin(&(struct peerdma_pin){
		.provider = "pci", .addr = addr, .len = LEN, .device = spare,
		.bar = 2,
	});
}

static int call_pin_pci(void)
{
	return pin_pci(PAGE);
}

/* Memory that is not there yet. */
static void make_user(void)
{
	madvise(own, OWN, MADV_DONTNEED);
}

static int call_pin_user(void)
{
	return pin(&(struct peerdma_pin){
		.provider = "user", .addr = (uintptr_t)own, .len = OWN,
	});
}

/* ---- a pinned buffer ----------------------------------------------------- */

static void make_pin(void)
{
	struct peerdma_pin arg;

	buffer.fd = t_pin(dev, allocated, LEN, 0, &arg);
	if (buffer.fd < 0)
		t_need(false, "a pin: %s", t_errno_name(buffer.fd));
}

static void make_part(uint64_t addr)
{
	NEED(!pin_pci(addr), "a part of a BAR");
	buffer.fd = made;
	made = -1;
}

static void make_user_pin(void)
{
	NEED(!call_pin_user(), "a pin of host memory");
	buffer.fd = made;
	made = -1;
	memory = own;
	memory_len = OWN;
}

/* What was made of a buffer goes before it. */
static void drop_pin(void)
{
	forget(&made);
	forget(&other);
	forget(&buffer.fd);
	memory = NULL;
}

static int call_query(void)
{
	struct peerdma_segment segments[SEGMENTS];
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = buffer.fd,
		.segments = (uintptr_t)segments,
		.nr_segments = SEGMENTS,
	};

	return result(ioctl(dev, PEERDMA_QUERY, &query));
}

static int call_watch(void)
{
	struct peerdma_watch watch = {
		.size = sizeof(watch),
		.buffer_fd = buffer.fd,
		.event_fd = event,
	};

	return result(ioctl(dev, PEERDMA_WATCH, &watch));
}

static int call_revoke(void)
{
	return t_revoke(dev, buffer.fd);
}

static int call_close(void)
{
	int ret = result(close(buffer.fd));

	buffer.fd = -1;
	return ret;
}

static int call_close_made(void)
{
	int ret = result(close(made));

	made = -1;
	return ret;
}

/* ---- another exporter's dma-buf ------------------------------------------ */

static unsigned char *spare_bar;

static void spare_map(void)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2_wc",
		 getenv("T_SPARE"));
	fd = t_open(path, O_RDWR);
	spare_bar = mmap(NULL, 4 * LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			 0);
	t_need(spare_bar != MAP_FAILED, "its memory is mapped");
	close(fd);
}

static void export(uint32_t flags)
{
	struct t_export arg = {
		.device = spare, .bar = 2, .offset = 2 * LEN, .len = LEN,
		.flags = flags,
	};

	NEED(!ioctl(exporter, T_EXPORT, &arg), "somebody else's dma-buf");
	buffer.fd = arg.out_fd;
	memory = spare_bar + arg.offset;
	memory_len = REACH;
}

static void make_foreign(void)
{
	export(0);
}

static void make_foreign_pinned(void)
{
	export(T_EXPORT_DYNAMIC);
}

/* ---- MAP_DEVICE ---------------------------------------------------------- */

static int map_device(uint32_t device, uint32_t flags, uint64_t iova)
{
	struct peerdma_device_segment segments[SEGMENTS];
	struct peerdma_map_device arg = {
		.size = sizeof(arg),
		.flags = flags,
		.buffer_fd = buffer.fd,
		.device = device,
		.len = LEN,
		.iova = iova,
		.segments = (uintptr_t)segments,
		.nr_segments = SEGMENTS,
		.out_fd = -1,
	};

	if (ioctl(dev, PEERDMA_MAP_DEVICE, &arg))
		return -errno;
	made = arg.out_fd;
	return 0;
}

static int call_map_drive(void)
{
	return map_device(drive_number, 0, 0);
}

static int call_map_card(void)
{
	return map_device(card, 0, 0);
}

static int call_map_chosen(void)
{
	return map_device(card, PEERDMA_MAP_DEVICE_IOVA, IOVA);
}

static void make_map_drive(void)
{
	make_pin();
	NEED(!call_map_drive(), "the drive's mapping");
}

static void make_map_foreign(void)
{
	make_foreign();
	NEED(!call_map_drive(), "the drive's mapping");
}

/* Of the card's domain, in which a second mapping stays. */
static void make_map_card(void)
{
	make_pin();
	if (call_map_card())
		t_need(false, "the card's mapping");
	other = made;
	if (call_map_chosen())
		t_need(false, "a second one: %s", strerror(errno));
}

/* ---- PAGES and the CPU's mappings ---------------------------------------- */

static int call_pages(void)
{
	struct peerdma_page_map arg;

	made = t_pages(dev, buffer.fd, PEERDMA_PAGES_ANY_ROUTE, &arg);
	return made < 0 ? made : 0;
}

static void make_pages(void)
{
	make_pin();
	if (call_pages())
		t_need(false, "pages: %s", t_errno_name(made));
}

static void make_foreign_pages(void)
{
	make_foreign();
	if (call_pages())
		t_need(false, "pages: %s", t_errno_name(made));
}

static int map(int fd)
{
	at = mmap(FAR, LEN, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	return at == MAP_FAILED ? -errno : 0;
}

/* What a mapping, if need be a new one, is when nothing is in its way. */
static bool is_combined(void)
{
	if (at == MAP_FAILED && map(buffer.fd))
		return false;
	return !t_touch(at, true) &&
	       t_caching(dev, buffer.fd) == PEERDMA_CACHING_WRITE_COMBINED;
}

static int call_map(void)
{
	return map(buffer.fd);
}

static int call_map_pages(void)
{
	return map(made);
}

static void make_mapped(void)
{
	make_pin();
	NEED(!call_map(), "a mapping");
}

static void make_used(void)
{
	make_mapped();
	NEED(!t_touch(at, true), "a mapping in use");
	NEED(!call_watch(), "somebody watches");
}

static void make_pages_mapped(void)
{
	make_pages();
	NEED(!call_map_pages(), "a mapping of pages");
}

static void make_foreign_pages_mapped(void)
{
	make_foreign_pages();
	NEED(!call_map_pages(), "a mapping of pages");
}

static void drop_mapped(void)
{
	if (at != MAP_FAILED)
		munmap(at, LEN);
	at = MAP_FAILED;
	drop_pin();
}

/*
 * Amid what one fault maps; a fault that finds no memory comes again. No system
 * call may stand beside it.
 */
static int call_touch(void)
{
	if (sigsetjmp(t_fault, 0))
		return -EIO;
	*(volatile unsigned char *)(at + LEN / 2) = 1;
	return 0;
}

static int call_debugger(void)
{
	char word[16];

	return pread(memory_fd, word, sizeof(word), (uintptr_t)at + LEN / 2) ==
	       sizeof(word) ? 0 : -errno;
}

static int call_unmap(void)
{
	int ret = result(munmap(at, LEN));

	if (!ret)
		at = MAP_FAILED;
	return ret;
}

/* ---- FILE_IO ------------------------------------------------------------- */

/* The last transfer. */
static struct peerdma_file_segment moved[3];
static uint32_t moved_nr, moved_flags;
/* What the file had before it, and what the buffer. */
static unsigned char *moved_from, *moved_to;

static int move(uint32_t flags, int with, uint32_t nr)
{
	struct peerdma_file_io io;

	moved[0] = (struct peerdma_file_segment){ 0, 0, PAGE, 0 };
	moved[1] = (struct peerdma_file_segment){
		4 * PAGE, PAGE, 3 * PAGE, 0,
	};
	moved[2] = (struct peerdma_file_segment){
		2 * PAGE, GPU_PAGE - PAGE, 2 * PAGE, 0,
	};
	moved_nr = nr;
	moved_flags = flags;
	return t_move(dev, flags, buffer.fd, with, moved, nr, &io);
}

/* Bytes that neither the buffer has had nor the file @with. */
static void moved_prepare(int with, uint64_t seed)
{
	t_fill(moved_from, REACH, 2 * seed);
	t_fill(moved_to, REACH, 2 * seed + 1);
	NEED(pwrite(with, moved_from, REACH, 0) == REACH, "bytes in a file");
	if (memory)
		memcpy(memory, moved_to, memory_len);
	else
		t_gpu_write(allocated, moved_to, REACH);
}

/* Buffer and file have the source's bytes. */
static bool moved_right(int with)
{
	unsigned char *in_file = t_ram(REACH), *in_buffer = t_ram(REACH);
	bool write = moved_flags == T_WRITE, right;
	uint32_t i;

	right = pread(with, in_file, REACH, 0) == REACH;
	if (memory)
		memcpy(in_buffer, memory, memory_len);
	else
		t_gpu_read(in_buffer, allocated, REACH);
	for (i = 0; i < moved_nr; i++) {
		const struct peerdma_file_segment *one = &moved[i];
		const unsigned char *want = write ?
			moved_to + one->buffer_offset :
			moved_from + one->file_offset;

		right &= !memcmp(in_buffer + one->buffer_offset, want,
				 one->len) &&
			 !memcmp(in_file + one->file_offset, want, one->len);
	}
	munmap(in_buffer, REACH);
	munmap(in_file, REACH);
	return right;
}

static int call_read(void)
{
	return move(T_READ, drive, 1);
}

static int call_read_many(void)
{
	return move(T_READ, drive, 3);
}

static int call_write(void)
{
	return move(T_WRITE, drive, 1);
}

static int call_write_many(void)
{
	return move(T_WRITE, drive, 3);
}

static int call_ask(void)
{
	return move(T_READ, drive, 0);
}

static int call_read_file(void)
{
	return move(T_READ, file, 3);
}

/* A part of the BAR that has no struct pages yet: another one for each kind. */
static enum fail_kind kind;

static void make_new_unit(void)
{
	make_part((1ull + kind) * UNIT);
}


/* ---- io_uring ------------------------------------------------------------ */

static void make_ring(void)
{
	make_pin();
	t_ring_make(&ring, 4, 0);
}

static void drop_ring(void)
{
	io_uring_queue_exit(&ring);
	drop_pin();
}

/* What io_uring_enter() itself answers is an errno of the command's, too. */
static int ring_move(uint32_t flags, uint32_t nr)
{
	static struct peerdma_file_io io;
	struct io_uring_cqe *cqe;
	int ret;

	moved[0] = (struct peerdma_file_segment){ 0, 0, PAGE, 0 };
	moved[1] = (struct peerdma_file_segment){ PAGE, PAGE, PAGE, 0 };
	moved[2] = (struct peerdma_file_segment){ 8 * PAGE, 3 * PAGE, PAGE, 0 };
	moved_nr = nr;
	moved_flags = flags;
	io = (struct peerdma_file_io){
		.size = sizeof(io), .flags = flags, .buffer_fd = buffer.fd,
		.file_fd = drive, .segments = (uintptr_t)moved,
		.nr_segments = nr,
	};
	t_ring_put(&ring, dev, &io, 1);
	ret = io_uring_submit(&ring);
	if (ret != 1)
		return ret < 0 ? ret : -EAGAIN;
	do
		ret = io_uring_wait_cqe(&ring, &cqe);
	while (ret == -EINTR || ret == -ENOMEM || ret == -EFAULT);
	if (ret)
		return ret;
	ret = cqe->res < 0 ? cqe->res : 0;
	io_uring_cqe_seen(&ring, cqe);
	return ret;
}

static int call_ring_read(void)
{
	return ring_move(T_READ, 1);
}

static int call_ring_many(void)
{
	return ring_move(T_READ, 3);
}

static int call_ring_write(void)
{
	return ring_move(T_WRITE, 1);
}

/* The one worker of the task's rings: it moves what may block. */
static int open_worker(void)
{
	char path[300], name[32] = "";
	struct dirent *entry;
	DIR *tasks;
	int found = -1;

	make_pin();
	NEED(!call_ring_many(), "a worker works");
	drop_pin();
	tasks = opendir("/proc/self/task");
	while (found < 0 && (entry = readdir(tasks))) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm",
			 entry->d_name);
		if (strncmp(t_line(path, name, sizeof(name)), "iou-wrk", 7))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/fail-nth",
			 entry->d_name);
		found = fail_open(path);
	}
	closedir(tasks);
	NEED(found >= 0, "it is found");
	return found;
}

/* ---- drivers that attach ------------------------------------------------- */

static int edu_fd = -1;

static void drop_attached(void)
{
	forget(&edu_fd);
	drop_pin();
}

static void make_opened(void)
{
	make_pin();
	edu_fd = open("/dev/edu", O_RDWR | O_CLOEXEC);
	NEED(edu_fd >= 0, "/dev/edu is opened");
}

static int call_attach(void)
{
	return result(ioctl(edu_fd, EDU_ATTACH, buffer.fd));
}

static void make_attached(void)
{
	make_opened();
	NEED(!call_attach(), "the card's driver attaches");
}

static void make_user_attached(void)
{
	make_user_pin();
	edu_fd = open("/dev/edu", O_RDWR | O_CLOEXEC);
	NEED(edu_fd >= 0 && !call_attach(), "... to host memory");
}

static int call_card(void)
{
	char word[64];

	return result(pread(edu_fd, word, sizeof(word), PAGE));
}

static int call_detach(void)
{
	int ret = result(close(edu_fd));

	edu_fd = -1;
	return ret;
}

#endif /* CALLS_H */
