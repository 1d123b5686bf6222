// SPDX-License-Identifier: MIT
/*
 * Buffers of ours in the hands of a program that drives a card through VFIO: what
 * its IOMMU back end takes of a mapping, where the card's bytes go, and until when.
 *
 * usage: type1 FOLDER CARD type1|iommufd [CASE]..., as root, on a machine with an
 * IOMMU. CARD is the PCI address of an edu card that vfio-pci drives; what the host
 * judges by is put into FOLDER.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "../mapdev/edu.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_record.h"

#define PAGE	4096u
#define LEN	(4u << 20)
#define IOVA	(256ull << 20)
#define CANARY	0xc5
#define NR_CANARIES	8

#define READ	1u
#define WRITE	2u

/* Since 6.6; the debug kernel has what these need, Debian's have not. */
struct bind_iommufd {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};

struct attach_iommufd {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
	uint32_t pasid;
};

#define BIND_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 19)

static const char *folder;
static bool iommufd;
static int dev, back_end, card;
static uint32_t ioas;
static struct edu edu;

/* ---- the card ------------------------------------------------------------ */

static void open_by_group(void)
{
	char path[PATH_MAX], link[PATH_MAX];
	ssize_t len;
	int group;

	pci_path(path, sizeof(path), edu.name, "iommu_group");
	len = readlink(path, link, sizeof(link) - 1);
	t_need(len > 0, "the card has a group");
	link[len] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(link, '/') + 1);
	back_end = t_open("/dev/vfio/vfio", O_RDWR);
	group = t_open(path, O_RDWR);
	t_need(back_end >= 0 && group >= 0 &&
	       !ioctl(group, VFIO_GROUP_SET_CONTAINER, &back_end) &&
	       !ioctl(back_end, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU),
	       "its group is opened");
	card = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, edu.name);
}

static void open_by_iommufd(void)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	struct attach_iommufd attach = { .argsz = sizeof(attach) };
	struct bind_iommufd bind = { .argsz = sizeof(bind) };
	char pattern[PATH_MAX];
	glob_t found;

	snprintf(pattern, sizeof(pattern),
		 "/sys/bus/pci/devices/%s/vfio-dev/vfio*", edu.name);
	t_need(!glob(pattern, 0, NULL, &found), "the card has a file");
	snprintf(pattern, sizeof(pattern), "/dev/vfio/devices/%s",
		 strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	card = t_open(pattern, O_RDWR);
	back_end = t_open("/dev/iommu", O_RDWR);
	bind.iommufd = back_end;
	t_need(card >= 0 && !ioctl(card, BIND_IOMMUFD, &bind) &&
	       !ioctl(back_end, IOMMU_IOAS_ALLOC, &alloc), "it is bound");
	ioas = alloc.out_ioas_id;
	attach.pt_id = ioas;
	t_need(!ioctl(card, ATTACH_IOMMUFD, &attach),
	       "it has an address space");
}

static void open_card(const char *name)
{
	const uint16_t memory_and_master = PCI_COMMAND_MEMORY_MASTER;
	struct vfio_region_info info = { .argsz = sizeof(info) };

	snprintf(edu.name, sizeof(edu.name), "%s", name);
	if (iommufd)
		open_by_iommufd();
	else
		open_by_group();
	t_need(card >= 0, "the card is opened");
	info.index = VFIO_PCI_CONFIG_REGION_INDEX;
	t_need(!ioctl(card, VFIO_DEVICE_GET_REGION_INFO, &info) &&
	       pwrite(card, &memory_and_master, 2, info.offset + 4) == 2,
	       "it is made bus master");
	info.index = VFIO_PCI_BAR0_REGION_INDEX;
	t_need(!ioctl(card, VFIO_DEVICE_GET_REGION_INFO, &info),
	       "it has registers");
	edu.bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, card,
		       info.offset);
	t_need(edu.bar != MAP_FAILED, "they are mapped");
}

/* ---- its addresses ------------------------------------------------------- */

static int map_type1(const void *at, uint32_t rights)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.vaddr = (uintptr_t)at,
		.iova = IOVA,
		.size = LEN,
	};

	if (rights & READ)
		map.flags |= VFIO_DMA_MAP_FLAG_READ;
	if (rights & WRITE)
		map.flags |= VFIO_DMA_MAP_FLAG_WRITE;
	return ioctl(back_end, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int map_iommufd(const void *at, uint32_t rights)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA,
		.ioas_id = ioas,
		.user_va = (uintptr_t)at,
		.length = LEN,
		.iova = IOVA,
	};

	if (rights & READ)
		map.flags |= IOMMU_IOAS_MAP_READABLE;
	if (rights & WRITE)
		map.flags |= IOMMU_IOAS_MAP_WRITEABLE;
	return ioctl(back_end, IOMMU_IOAS_MAP, &map) ? -errno : 0;
}

/* LEN bytes at IOVA; 0 or a negative errno. */
static int map_for_card(const void *at, uint32_t rights)
{
	return iommufd ? map_iommufd(at, rights) : map_type1(at, rights);
}

static int unmap_for_card(void)
{
	struct vfio_iommu_type1_dma_unmap type1 = {
		.argsz = sizeof(type1), .iova = IOVA, .size = LEN,
	};
	struct iommu_ioas_unmap other = {
		.size = sizeof(other), .ioas_id = ioas, .iova = IOVA,
		.length = LEN,
	};
	int ret = iommufd ? ioctl(back_end, IOMMU_IOAS_UNMAP, &other) :
		  ioctl(back_end, VFIO_IOMMU_UNMAP_DMA, &type1);

	return ret ? -errno : 0;
}

/* ---- what has no pages --------------------------------------------------- */

static void refused(int fd, int prot, uint32_t rights, const char *what)
{
	volatile unsigned char *at = t_map(fd, LEN, prot);
	size_t i;

	t_need(at != MAP_FAILED, "%s is mapped", what);
	t_result(map_for_card((void *)at, rights), -EFAULT, "%s", what);
	for (i = 0; i < LEN; i += PAGE)
		(void)at[i];
	t_result(map_for_card((void *)at, rights), -EFAULT, "%s, touched",
		 what);
	munmap((void *)at, LEN);
}

static void test_mapping(void)
{
	struct peerdma_page_map arg;
	struct t_buffer buffer;
	struct peerdma_pin pin;
	int fd;

	t_buffer_make(&buffer, dev, LEN);
	/* What was run before may have left some, for seconds. */
	t_ok(t_wait_for(!t_counter("page_bytes")),
	     "the memory has no struct pages");
	refused(buffer.fd, PROT_READ | PROT_WRITE, READ | WRITE, "a mapping");
	refused(buffer.fd, PROT_READ, READ, "one for reading");
	fd = t_pin(dev, buffer.ptr, LEN, PEERDMA_PIN_UNCACHED, &pin);
	refused(fd, PROT_READ | PROT_WRITE, READ | WRITE, "an uncached one");
	close(fd);
	fd = t_pin(dev, buffer.ptr, LEN, PEERDMA_PIN_REVOCABLE, &pin);
	refused(fd, PROT_READ | PROT_WRITE, READ | WRITE, "a revocable one");
	close(fd);
	fd = t_pages(dev, buffer.fd, 0, &arg);
	t_ok(fd >= 0 && t_counter("page_bytes"), "it has struct pages now");
	refused(buffer.fd, PROT_READ | PROT_WRITE, READ | WRITE,
		"a mapping of what has pages");
	close(fd);
	t_buffer_drop(&buffer);
}

static void test_own_memory(void)
{
	unsigned char *ram = t_ram(LEN);
	struct peerdma_pin pin = {
		.provider = "user", .addr = (uintptr_t)ram, .len = LEN,
	};
	int fd = t_pin_range(dev, &pin);

	t_need(fd >= 0, "own memory is pinned");
	refused(fd, PROT_READ | PROT_WRITE, READ | WRITE, "own memory's buffer");
	t_result(map_for_card(ram, READ | WRITE), 0, "the memory itself");
	t_result(unmap_for_card(), 0, "... is unmapped");
	close(fd);
	munmap(ram, LEN);
}

/* ---- what has ------------------------------------------------------------ */

/* The card takes a page from @from and puts it to @to. */
static void card_moves(uint64_t from, uint64_t to)
{
	edu_read(&edu, IOVA + from, PAGE);
	edu_write(&edu, IOVA + to, PAGE);
}

static void test_pages(void)
{
	unsigned char *bytes = t_ram(LEN), *at;
	struct t_record record;
	struct t_buffer buffer;

	t_buffer_make(&buffer, dev, LEN);
	t_fill(bytes, LEN, 1);
	t_gpu_write(buffer.ptr, bytes, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	t_result(map_for_card(at, READ | WRITE), 0, "pages are mapped");
	card_moves(0, LEN - PAGE);
	card_moves(17 * PAGE, 300 * PAGE);
	memcpy(bytes + LEN - PAGE, bytes, PAGE);
	memcpy(bytes + 300 * PAGE, bytes + 17 * PAGE, PAGE);
	t_gpu_same(buffer.ptr, bytes, LEN, "the card has moved two of them");
	/* The host knows this byte; nobody writes there any more. */
	t_gpu_set(buffer.ptr, CANARY, PAGE);
	card_moves(0, 5 * PAGE);
	t_record_open(&record, folder, dev, buffer.fd);
	t_record_fill(&record, CANARY, 5 * PAGE, PAGE);
	t_record_close(&record);
	t_result(unmap_for_card(), 0, "they are unmapped");
	edu_write(&edu, IOVA, PAGE);
	munmap(at, LEN);
	close(buffer.fd);
	t_ok(t_wait_for(!t_counter("page_maps") && !t_counter("buffers")),
	     "and held by nobody");
	/* Not freed, for the host's sake. */
	munmap(bytes, LEN);
}

/* The next memory that the GPU has to give becomes somebody else's. */
static void canaries_place(uint64_t *canaries)
{
	size_t i;

	for (i = 0; i < NR_CANARIES; i++) {
		canaries[i] = t_gpu_alloc(LEN);
		t_gpu_set(canaries[i], CANARY, LEN);
	}
}

static void canaries_check(uint64_t *canaries)
{
	unsigned char *want = t_ram(LEN), *got = t_ram(LEN);
	size_t i, bad = 0;

	memset(want, CANARY, LEN);
	for (i = 0; i < NR_CANARIES; i++) {
		t_gpu_read(got, canaries[i], LEN);
		bad += memcmp(got, want, LEN) != 0;
		t_gpu_free(canaries[i]);
	}
	munmap(want, LEN);
	munmap(got, LEN);
	t_is(bad, 0, "nobody else's memory has changed");
}

/* All that we gave is closed, the memory is freed, and the card goes on. */
static void test_closed(void)
{
	unsigned char *page = t_ram(PAGE), *at;
	uint64_t canaries[NR_CANARIES];
	struct t_buffer buffer;

	t_buffer_make(&buffer, dev, LEN);
	t_gpu_set(buffer.ptr, 0x11, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	t_result(map_for_card(at, READ | WRITE), 0, "pages are mapped");
	munmap(at, LEN);
	close(buffer.fd);
	t_ok(t_wait_for(t_counter("held_page_maps") == 1),
	     "all is closed, and the card's mapping holds them");
	t_is(t_counter("buffers"), 1, "... and the pin");
	memset(page, 0x22, PAGE);
	t_gpu_write(buffer.ptr, page, PAGE);
	card_moves(0, 9 * PAGE);
	t_gpu_same(buffer.ptr + 9 * PAGE, page, PAGE, "the card works on");
	t_gpu_free(buffer.ptr);
	canaries_place(canaries);
	edu_write(&edu, IOVA, PAGE);
	edu_write(&edu, IOVA + LEN - PAGE, PAGE);
	t_is(t_counter("pinned_bytes"), LEN, "freed, the memory stays pinned");
	t_result(unmap_for_card(), 0, "they are unmapped");
	t_ok(t_wait_for(!t_counter("page_maps") && !t_counter("buffers")),
	     "and so the pin ends");
	canaries_check(canaries);
	munmap(page, PAGE);
}

static bool is_revoked(int buffer)
{
	struct peerdma_query query;

	return !t_query(dev, buffer, &query) &&
	       query.out_state & PEERDMA_BUFFER_REVOKED;
}

static void *revoker(void *data)
{
	return (void *)(intptr_t)t_revoke(dev, *(int *)data);
}

static void test_revoked(void)
{
	uint64_t canaries[NR_CANARIES];
	struct t_buffer buffer;
	unsigned char *at;
	pthread_t thread;
	pid_t child;
	void *ret;
	int status;

	t_buffer_make(&buffer, dev, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	t_result(map_for_card(at, READ | WRITE), 0, "pages are mapped");
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(t_revoke(dev, buffer.fd) != 0);
	t_ok(t_wait_for(is_revoked(buffer.fd) &&
			t_counter("held_page_maps") == 1),
	     "taken back, they are held by the card's mapping");
	t_is(waitpid(child, &status, WNOHANG), 0, "REVOKE waits");
	kill(child, SIGKILL);
	t_is(waitpid(child, &status, 0), child, "... until it is killed");
	pthread_create(&thread, NULL, revoker, &buffer.fd);
	t_gpu_free(buffer.ptr);
	canaries_place(canaries);
	edu_write(&edu, IOVA, PAGE);
	t_is(t_counter("pinned_bytes"), LEN, "the memory is not given back");
	t_result(unmap_for_card(), 0, "they are unmapped");
	pthread_join(thread, &ret);
	t_result((intptr_t)ret, 0, "the revocation is through");
	t_is(t_counter("pinned_bytes"), 0, "the memory is given back");
	edu_write(&edu, IOVA, PAGE);
	canaries_check(canaries);
	munmap(at, LEN);
	close(buffer.fd);
}

static const struct t_case cases[] = {
	{ "a mapping", test_mapping },
	{ "own memory", test_own_memory },
	{ "closed", test_closed },
	{ "revoked", test_revoked },
	{ "pages", test_pages },
};

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "prepare";
	folder = argv[1];
	iommufd = !strcmp(argv[3], "iommufd");
	t_gpu_init();
	dev = t_device_open();
	open_card(argv[2]);
	argc -= 3;
	argv += 3;
	return T_RUN(cases, t_nothing_left);
}
