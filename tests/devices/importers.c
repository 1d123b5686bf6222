// SPDX-License-Identifier: MIT
/*
 * Which drivers may attach to a buffer and which may not, and the caller's own memory
 * in their hands: by DMA, and by its struct pages.
 *
 * usage: importers BITS [CASE]..., BITS being the card's address lines
 */
#define _GNU_SOURCE
#include "importer/t_importer.h"
#include "t_card.h"
#include "../t_pin.h"

#define PAGE	4096u
#define GPU_PAGE	65536u
#define LEN	(5u * GPU_PAGE)
#define FILL	0xee

static int dev;

static int importer_open(void)
{
	int fd = open("/dev/t_importer", O_RDWR | O_CLOEXEC);

	t_need(fd >= 0, "the importer opens");
	return fd;
}

static int attach(int importer, int buffer, uint32_t flags, uint32_t device)
{
	struct t_import arg = {
		.fd = buffer, .flags = flags, .device = device,
	};

	return ioctl(importer, T_IMPORT, &arg) ? -errno : 0;
}

/* As attach(), of the card; nothing stays. */
static int tried(int buffer, uint32_t flags, uint32_t device)
{
	int importer = importer_open();
	int ret = attach(importer, buffer, flags, device);

	close(importer);
	return ret;
}

static int map_attached(int importer)
{
	return ioctl(importer, T_IMPORT_MAP) ? -errno : 0;
}

static bool copied(int importer, struct t_copy *copy)
{
	int ret = ioctl(importer, T_IMPORT_COPY, copy) ? -errno : 0;

	if (ret != -EOPNOTSUPP)
		return t_result(ret, 0, "it looks for pages");
	t_skip("pages", "this kernel shows importers none");
	return false;
}

static int own_memory(void *at, size_t len)
{
	struct peerdma_pin pin = {
		.provider = "user", .addr = (uintptr_t)at, .len = len,
	};
	int fd = t_pin_range(dev, &pin);

	if (fd < 0)
		t_need(false, "own memory is pinned: %s", t_errno_name(fd));
	return fd;
}

static void importers(void)
{
	uint64_t ptr = t_gpu_alloc(GPU_PAGE);
	uint32_t card = t_card_number(), none = PEERDMA_DEVICE_NONE;
	struct peerdma_pin pin, revocable;
	void *ram = t_ram(LEN);
	int own = own_memory(ram, LEN), importer = importer_open();
	struct t_copy copy = { .to = (uintptr_t)ram, .len = PAGE };

	t_need(t_pin(dev, ptr, GPU_PAGE, 0, &pin) >= 0 &&
	       t_pin(dev, ptr, GPU_PAGE, PEERDMA_PIN_REVOCABLE, &revocable) >= 0,
	       "GPU memory is pinned, for good and revocably");
	t_result(tried(pin.out_fd, 0, card), 0, "one that can let go");
	t_result(tried(pin.out_fd, T_IMPORT_STATIC, card), 0,
		 "one that cannot");
	t_result(tried(pin.out_fd, T_IMPORT_RAM, card), -EOPNOTSUPP,
		 "one that takes no memory of devices");
	t_result(tried(pin.out_fd, 0, none), -EREMOTEIO,
		 "a device that is no PCI function");
	t_result(tried(revocable.out_fd, 0, card), 0,
		 "revocable: one that can let go");
	t_result(tried(revocable.out_fd, T_IMPORT_STATIC, card), -EOPNOTSUPP,
		 "revocable: one that cannot");
	t_result(tried(revocable.out_fd, T_IMPORT_RAM, card), -EOPNOTSUPP,
		 "revocable: one that takes no memory of devices");
	t_result(tried(own, 0, card), 0, "own memory: one that can let go");
	t_result(tried(own, T_IMPORT_STATIC, card), 0,
		 "own memory: one that cannot");
	t_result(tried(own, T_IMPORT_RAM, card), 0,
		 "own memory: one that takes no memory of devices");
	t_result(tried(own, T_IMPORT_RAM, none), 0,
		 "own memory: a device that is no PCI function");
	t_result(attach(importer, pin.out_fd, 0, card), 0, "again");
	t_result(map_attached(importer), 0, "it maps");
	if (copied(importer, &copy))
		t_is(copy.out_pages, 0, "and finds no pages");
	close(importer);
	close(own);
	close(revocable.out_fd);
	close(pin.out_fd);
	munmap(ram, LEN);
	t_gpu_free(ptr);
}

/* As those drivers see it who take it for RAM: its pages are its bytes. */
static void own_pages(unsigned char *ram, int own)
{
	unsigned char *got = t_ram(LEN);
	struct t_copy copy = { .to = (uintptr_t)got, .len = LEN };
	int importer = importer_open();

	t_result(attach(importer, own, T_IMPORT_STATIC, PEERDMA_DEVICE_NONE),
		 0, "a driver attaches");
	t_result(map_attached(importer), 0, "it maps");
	t_is(t_counter("device_maps"), 1, "which is counted");
	if (copied(importer, &copy)) {
		t_is(copy.out_pages, copy.out_entries, "there are pages");
		t_is(copy.len, LEN, "of all of it");
		t_same(got, ram, LEN, "and it has the bytes");
	}
	close(importer);
	munmap(got, LEN);
}

/* The caller's own memory, by DMA and by its pages. */
static void own_memory_both_ways(void)
{
	unsigned char *ram = t_ram(LEN), block[PAGE];
	int own, card = t_card_open();

	t_fill(ram, LEN, 1);
	own = own_memory(ram, LEN);
	own_pages(ram, own);
	t_result(t_card_attach(card, own), 0, "the card is attached");
	t_result(t_card_read(card, block, PAGE, 3 * PAGE), PAGE, "it reads");
	t_same(block, ram + 3 * PAGE, PAGE, "and has the bytes");
	t_fill(block, PAGE, 2);
	t_result(t_card_write(card, block, PAGE, LEN - PAGE), PAGE,
		 "it writes");
	t_same(ram + LEN - PAGE, block, PAGE, "and they are there");
	close(own);
	memset(block, 0, PAGE);
	t_result(t_card_read(card, block, PAGE, 0), PAGE,
		 "the attachment keeps the memory");
	t_same(block, ram, PAGE, "which is the same");
	close(card);
	munmap(ram, LEN);
}

/* A page of @ram that a card of @bits cannot address. */
static unsigned char *page_above(unsigned char *ram, size_t len, int bits)
{
	int fd = t_open("/proc/self/pagemap", O_RDONLY);
	unsigned char *found = NULL;
	uint64_t entry;
	size_t i;

	memset(ram, FILL, len);
	for (i = 0; i < len && !found; i += PAGE)
		if (pread(fd, &entry, sizeof(entry),
			  (uintptr_t)(ram + i) / PAGE * sizeof(entry)) ==
		    sizeof(entry) && entry << 9 >> 9 >= 1ull << (bits - 12))
			found = ram + i;
	close(fd);
	t_need(found, "the card does not reach all memory");
	return found;
}

/* Memory that the card does not reach would be copied, and never be right. */
static void own_memory_bounced(void)
{
	const size_t len = 512 << 20;
	unsigned char *ram = t_ram(len), byte = 1;
	int own = own_memory(page_above(ram, len, 28), PAGE);
	int card = t_card_open();

	t_result(t_card_attach(card, own), 0, "the card is attached");
	t_result(t_card_write(card, &byte, 1, 0), -EIO, "and does not map");
	t_is(t_counter("device_maps"), 0, "nothing is mapped");
	close(card);
	close(own);
	munmap(ram, len);
}

/*
 * A driver that cannot let go keeps a revocation waiting; after half a minute the
 * kernel's log says so, of memory that is no device's too.
 */
static void in_use_for_long(void)
{
	int own = own_memory(t_ram(LEN), LEN), importer = importer_open();
	int status = -1;
	pid_t child;

	t_result(attach(importer, own, T_IMPORT_STATIC, t_card_number()), 0,
		 "one that cannot let go");
	t_result(map_attached(importer), 0, "it maps");
	child = fork();
	if (!child) {
		close(importer);
		_exit(t_revoke(dev, own) != 0);
	}
	t_sleep_ms(32000);
	t_is(waitpid(child, &status, WNOHANG), 0, "the revocation waits");
	close(importer);
	t_is(waitpid(child, &status, 0), child, "until it lets go");
	t_is(status, 0, "... and is through");
	close(own);
}

static const struct t_case reachable[] = {
	{ "importers", importers },
	{ "own memory", own_memory_both_ways },
};

static const struct t_case patient[] = {
	{ "own memory in use for long", in_use_for_long },
};

static const struct t_case unreachable[] = {
	{ "own memory", own_memory_both_ways },
};

static const struct t_case narrow[] = {
	{ "own memory, bounced", own_memory_bounced },
};

int main(int argc, char **argv)
{
	bool translated = strcmp(getenv("PEERDMA_IOMMU"), "none");
	int bits;

	if (argc < 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	bits = atoi(argv[1]);
	t_gpu_init();
	dev = t_device_open();
	argc--;
	argv++;
	/* By name, in one guest only. */
	if (argc == 2 && !strcmp(argv[1], patient[0].name))
		return T_RUN(patient, t_nothing_left);
	if (!translated && bits < 32)
		return T_RUN(narrow, t_nothing_left);
	if (!translated && bits == 32)
		return T_RUN(unreachable, t_nothing_left);
	return T_RUN(reachable, t_nothing_left);
}
