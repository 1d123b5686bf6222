// SPDX-License-Identifier: MIT
/*
 * PAGES of other exporters' dma-bufs.
 *
 * usage: paged DEVICE CASE..., as root: DEVICE is the PCI address of an ivshmem
 * card that no driver has. Wants two drives, and writes over 8 MiB of drive 0.
 */
#define _GNU_SOURCE
#include <sys/uio.h>
#include <sys/wait.h>

#include "../mapdev/edu.h"
#include "../t_pages.h"
#include "../t_touch.h"

#define DRIVE	"/dev/disk/by-serial/peerdma0"
#define LEN	(4ull << 20)
#define PAGE	4096u
#define CANARY	0xc5
/* For the host. */
#define THIRD	(96ull << 20)

#include "export.h"

static int dev, drive;
static unsigned char *ram;

/* ---- contents ------------------------------------------------------------ */

static void drive_fill(uint64_t seed)
{
	t_fill(ram, LEN, seed);
	t_need(pwrite(drive, ram, LEN, 0) == (ssize_t)LEN,
	       "the drive is filled");
}

static void paged(uint32_t kind, const char *what)
{
	int fd = export_at(kind, PLACE);
	static uint64_t seed = 60;
	unsigned char *at;

	memset(bar + PLACE - PIECE, CANARY, LEN + 2 * PIECE);
	at = t_pages_map(dev, fd, LEN);
	/* The mapping holds what it is of. */
	close(fd);
	t_is(t_counter("imports"), 1, "%s: it is attached once", what);
	t_is(t_counter("page_maps"), 1, "%s: one map", what);
	drive_fill(++seed);
	t_is(pread(drive, at, LEN, 0), LEN, "%s: read into", what);
	t_same(lying(kind, PLACE), ram, LEN, "%s: ... is in the BAR", what);
	t_ok(bar[PLACE - 1] == CANARY && bar[PLACE + LEN] == CANARY,
	     "%s: ... and nothing around it is touched", what);
	t_same(at, ram, LEN, "%s: the CPU sees it", what);
	t_fill(ram, LEN, ++seed);
	memcpy(at, ram, LEN);
	t_same(lying(kind, PLACE), ram, LEN, "%s: and writes it", what);
	t_is(pwrite(drive, at, LEN, LEN), LEN, "%s: written from", what);
	t_need(pread(drive, ram + LEN, LEN, LEN) == (ssize_t)LEN,
	       "it is read back");
	t_same(ram + LEN, ram, LEN, "%s: ... is on the drive", what);
	munmap(at, LEN);
	t_ok(t_wait_for(!t_counter("imports")), "%s: it is let go", what);
}

static void test_contents(void)
{
	paged(0, "without pins");
	paged(T_EXPORT_DYNAMIC | T_EXPORT_SCATTERED, "with pins, scattered");
	paged(T_EXPORT_RAW | T_EXPORT_SCATTERED, "raw and scattered");
}

static void test_read_only(void)
{
	int fd = export_at(T_EXPORT_READ_ONLY, PLACE), pages;
	struct peerdma_page_map arg;
	void *at;

	pages = t_pages(dev, fd, 0, &arg);
	t_need(pages >= 0, "pages of a read-only dma-buf");
	at = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, pages, 0);
	t_ok(at == MAP_FAILED && errno == EACCES, "are not for writing");
	at = mmap(NULL, LEN, PROT_READ, MAP_SHARED, pages, 0);
	t_need(at != MAP_FAILED, "but for reading");
	t_is(pread(drive, at, LEN, 0), -1, "nothing is read into them");
	t_result(mprotect(at, LEN, PROT_READ | PROT_WRITE) ? -errno : 0,
		 -EACCES, "and they stay so");
	munmap(at, LEN);
	close(pages);
	let_go(fd, "read-only");
	close(fd);
}

/* ---- what is refused ------------------------------------------------------- */

static void refused(int fd, uint32_t reason, const char *what)
{
	struct peerdma_page_map arg;

	t_result(t_pages(dev, fd, 0, &arg), -EREMOTEIO, "%s", what);
	t_is(arg.out_reason, reason, "%s: ... the reason", what);
	t_is(t_counter("imports"), 0, "%s: ... nothing is attached", what);
	close(fd);
}

/* Another card's registers, which are not for reading ahead. */
static void test_registers(void)
{
	struct t_export export = { .len = 16 * PIECE };
	struct peerdma_file_io io;
	char card[16];

	t_need(pci_find("device", 0x11e8, card, &export.device),
	       "there is another card");
	t_need(!ioctl(exporter, T_EXPORT, &export), "it is exported");
	t_result(t_move(dev, T_READ, export.out_fd, drive, NULL, 0, &io),
		 -EREMOTEIO, "no file is read into registers");
	t_is(io.out_reason, PEERDMA_REASON_NOT_PREFETCHABLE, "... says why");
	refused(export.out_fd, PEERDMA_REASON_NOT_PREFETCHABLE, "registers");
}

static void test_refused(void)
{
	refused(export_at(T_EXPORT_NO_ATTACH, PLACE),
		PEERDMA_REASON_FOREIGN_REFUSED, "no attachment");
	refused(export_at(T_EXPORT_SHORT, PLACE),
		PEERDMA_REASON_FOREIGN_ADDRESSES, "a page less");
	refused(export_at(T_EXPORT_HOST_TAIL, PLACE),
		PEERDMA_REASON_FOREIGN_MEMORY, "a piece of host RAM");
	refused(export_at(T_EXPORT_DYNAMIC | T_EXPORT_NO_PROMISE, PLACE),
		PEERDMA_REASON_FOREIGN_REVOCABLE, "what may move");
	if (!maps_when_attached())
		refused(export_at(T_EXPORT_REVOCABLE, PLACE),
			PEERDMA_REASON_FOREIGN_REVOCABLE,
			"what may be taken back");
}

/* ---- the function that is attached goes -------------------------------------- */

/* Pages in a pipe are held, and so is the memory until they are read. */
static void test_held(void)
{
	int fd = export_at(T_EXPORT_DRIVES, PLACE), ends[2];
	unsigned char *at = t_pages_map(dev, fd, LEN);
	struct iovec part = { at, 4 * PAGE };

	t_fill(bar + PLACE, LEN, 9);
	t_fill(ram, LEN, 9);
	t_need(!pipe(ends), "a pipe");
	t_is(vmsplice(ends[1], &part, 1, 0), 4 * PAGE, "a pipe has pages");
	munmap(at, LEN);
	t_is(t_counter("page_maps"), 1, "and holds the closed map");
	t_is(t_counter("imports"), 1, "and the import");
	t_is(ask(fd).out_mappings, 1, "and the exporter's mapping");
	close(fd);
	t_is(read(ends[0], ram + LEN, 4 * PAGE), 4 * PAGE, "the pipe is read");
	t_same(ram + LEN, ram, 4 * PAGE, "... right");
	close(ends[0]);
	close(ends[1]);
	t_ok(t_wait_for(!t_counter("imports")), "then it is let go");
}

/* A drive stands in, and loses its driver while somebody holds a page. */
static void test_unbind(void)
{
	int fd = export_at(T_EXPORT_DRIVES, PLACE), ends[2], status = -1;
	unsigned char *at = t_pages_map(dev, fd, LEN);
	struct iovec part = { at, PAGE };
	char function[16], bytes[PAGE];
	pid_t child;

	close(drive);
	stand_in(function);
	t_is(t_touch(at, false), 0, "the mapping is used");
	t_need(!pipe(ends), "a pipe");
	t_is(vmsplice(ends[1], &part, 1, 0), PAGE, "a page is held");
	child = fork();
	if (!child)
		_exit(!!t_write_text("/sys/bus/pci/drivers/nvme/unbind",
				     function));
	t_ok(t_wait_for(t_touch(at, false) == SIGBUS), "%s: the CPU is cut off",
	     function);
	t_is(ask(fd).out_mappings, 1, "while the page is held it waits");
	t_ok(t_wait_for(t_counter("held_page_maps") == 1), "... and says so");
	t_is(read(ends[0], bytes, PAGE), PAGE, "the page is let go");
	waitpid(child, &status, 0);
	t_is(status, 0, "then the driver goes");
	t_is(ask(fd).out_attachments, 0, "and nothing is attached to it");
	t_is(t_touch(at, false), SIGBUS, "the mapping stays what it is");
	munmap(at, LEN);
	close(ends[0]);
	close(ends[1]);
	t_write_text("/sys/bus/pci/drivers/nvme/bind", function);
	t_ok(t_wait_for((drive = t_open(DRIVE, O_RDWR | O_DIRECT)) >= 0),
	     "the drive is back");
	at = t_pages_map(dev, fd, LEN);
	t_is(t_touch(at, false), 0, "and can stand in again");
	munmap(at, LEN);
	close(fd);
}

/* ---- the simulated GPU's own exporter --------------------------------------- */

static void gpu_paged(const char *raw, const char *what)
{
	uint64_t ptr = t_gpu_alloc(LEN);
	int fd = t_gpu_export(ptr, LEN);
	unsigned char *at;

	t_need(!t_write_text("/sys/module/simgpu/parameters/raw_dma", raw),
	       "raw_dma is set");
	at = t_pages_map(dev, fd, LEN);
	close(fd);
	drive_fill(81);
	t_is(pread(drive, at, LEN, 0), LEN, "%s: read into", what);
	t_gpu_same(ptr, ram, LEN, "%s: ... is in the GPU's memory", what);
	t_gpu_set(ptr, 0x44, LEN);
	t_is(pwrite(drive, at, LEN, LEN), LEN, "%s: written from", what);
	t_need(pread(drive, ram + LEN, LEN, LEN) == (ssize_t)LEN,
	       "it is read back");
	t_same(ram + LEN, at, LEN, "%s: ... is on the drive", what);
	t_is(at[LEN - 1], 0x44, "%s: ... as the GPU has left it", what);
	munmap(at, LEN);
	t_ok(t_wait_for(!t_gpu_counter("dma_mappings")), "%s: it is let go",
	     what);
	t_gpu_free(ptr);
	t_write_text("/sys/module/simgpu/parameters/raw_dma", "1");
}

static void test_gpu(void)
{
	gpu_paged("1", "raw");
	gpu_paged("0", "mapped");
}

/* ---- for the host ------------------------------------------------------------ */

/* The first LEN bytes of the drive, by the drive into pages. */
static void test_host(void)
{
	int fd = export_at(T_EXPORT_DYNAMIC, THIRD);
	unsigned char *at = t_pages_map(dev, fd, LEN);

	memset(bar + THIRD, CANARY, LEN);
	t_is(pread(drive, at, LEN, 0), LEN, "the drive's bytes are read");
	munmap(at, LEN);
	close(fd);
}

static const struct t_case cases[] = {
	{ "contents", test_contents },
	{ "read-only", test_read_only },
	{ "refused", test_refused },
	{ "registers", test_registers },
	{ "held", test_held },
	{ "unbind", test_unbind },
	{ "gpu", test_gpu },
	{ "host", test_host },
};

int main(int argc, char **argv)
{
	t_tap.name = "prepare";
	if (argc < 3)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_gpu_init();
	dev = t_device_open();
	drive = t_open(DRIVE, O_RDWR | O_DIRECT);
	t_need(drive >= 0, "the drive is opened");
	exporter_open(argv[1]);
	ram = t_ram(2 * LEN);
	argc--;
	argv++;
	return T_RUN(cases, t_nothing_left);
}
