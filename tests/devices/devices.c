// SPDX-License-Identifier: MIT
/*
 * GPU memory and another driver's card: bytes both ways, attachments that must
 * be refused, the end of a mapping, and memory taken back while the card works.
 *
 * usage: devices FOLDER BITS [CASE]...
 *   FOLDER  what the host judges by is put there
 *   BITS    the card's address lines
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "t_card.h"
#include "t_trace.h"
#include "../t_clock.h"
#include "../t_pin.h"
#include "../t_random.h"
#include "../t_record.h"

#define PAGE	4096ull
#define GPU_PAGE	65536ull
#define LEN	(5 * GPU_PAGE)
/* The pin begins in the middle of a GPU page. */
#define INSET	(3 * PAGE)
#define FILL	0xee
#define CANARY	0xc5
#define RIG_LEN	(4 * GPU_PAGE)
#define SEED	20261

static int dev;
static const char *folder;
static int bits;

static bool translated(void)
{
	return strcmp(getenv("PEERDMA_IOMMU"), "none");
}

static int kernel_major(void)
{
	struct utsname name;

	uname(&name);
	return atoi(name.release);
}

/* Before 7.x only CONFIG_DMABUF_MOVE_NOTIFY, which Debian does not set. */
static bool pins_on_map(void)
{
	return kernel_major() < 7;
}

/* Random bytes from @offset of the file that the host knows. */
static void generate(void *to, uint64_t offset, size_t len)
{
	unsigned char *bytes = to;
	size_t i;

	for (i = 0; i < len; i++, offset++)
		bytes[i] = t_random_word(SEED, offset / 8) >> offset % 8 * 8;
}

static void record_open(struct t_record *record, const char *name, int buffer)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	mkdir(path, 0755);
	t_record_open(record, path, dev, buffer);
}

/* Where in the buffer, in order; across GPU pages, and of odd lengths. */
static const struct {
	uint64_t offset;
	uint64_t len;
} pieces[] = {
	{ 0, PAGE },
	{ 2 * PAGE + 100, 5003 },
	{ GPU_PAGE - INSET - 2000, 4000 },
	{ 3 * GPU_PAGE - 8, PAGE + 16 },
	{ LEN - PAGE, PAGE },
};

static void fill_gaps(struct t_record *record)
{
	uint64_t end = 0;
	size_t i;

	for (i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		if (pieces[i].offset > end)
			t_record_fill(record, FILL, end, pieces[i].offset - end);
		end = pieces[i].offset + pieces[i].len;
	}
}

/* The card writes; the record stays true, since the memory is not given back. */
static void write_pieces(int card, int buffer, const char *name)
{
	unsigned char data[3 * PAGE];
	struct t_record record;
	uint64_t at = 0;
	size_t i;

	record_open(&record, name, buffer);
	for (i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		generate(data, at, pieces[i].len);
		t_result(t_card_write(card, data, pieces[i].len,
				      pieces[i].offset), pieces[i].len,
			 "the card writes %llu bytes at %llu",
			 (unsigned long long)pieces[i].len,
			 (unsigned long long)pieces[i].offset);
		t_record_data(&record, at, pieces[i].offset, pieces[i].len);
		at += pieces[i].len;
	}
	fill_gaps(&record);
	t_record_close(&record);
}

/* The other way, from bytes that CUDA has put there. */
static void read_pieces(int card, uint64_t ptr)
{
	unsigned char data[3 * PAGE];
	char path[128];
	uint64_t at = 0;
	FILE *back;
	size_t i;

	snprintf(path, sizeof(path), "%s/back", folder);
	back = fopen(path, "w");
	t_need(back, "the record opens");
	for (i = 0; i < 3; i++) {
		generate(data, at, pieces[i].len);
		t_gpu_write(ptr + pieces[i].offset, data, pieces[i].len);
		memset(data, 0, sizeof(data));
		t_result(t_card_read(card, data, pieces[i].len,
				     pieces[i].offset), pieces[i].len,
			 "the card reads %llu bytes",
			 (unsigned long long)pieces[i].len);
		fwrite(data, 1, pieces[i].len, back);
		at += pieces[i].len;
	}
	t_ok(!fclose(back), "they are kept for the host");
}

static uint64_t filled(uint64_t len)
{
	uint64_t ptr = t_gpu_alloc(len);

	t_gpu_set(ptr, FILL, len);
	return ptr;
}

static void static_attach(bool on)
{
	t_result(t_write_text("/sys/module/edu/parameters/static_attach",
			      on ? "1" : "0"), 0, "the driver attaches %s",
		 on ? "statically" : "dynamically");
}

static void bytes_by(bool statically, const char *name)
{
	uint64_t ptr = filled(LEN + INSET);
	struct peerdma_pin pin;
	int card = t_card_open();

	static_attach(statically);
	t_need(t_pin(dev, ptr + INSET, LEN, 0, &pin) >= 0, "it is pinned");
	t_result(t_card_attach(card, pin.out_fd), 0, "the card is attached");
	write_pieces(card, pin.out_fd, name);
	t_is(t_counter("device_maps"), 1, "the memory stays mapped for it");
	t_result(t_card_write(card, "", 1, LEN), -ENXIO, "up to its end");
	close(pin.out_fd);
	t_ok(t_counter("buffers") == 1, "the attachment keeps it");
	close(card);
	static_attach(false);
}

static void bytes(void)
{
	bytes_by(false, "dynamic");
}

static void bytes_statically(void)
{
	bytes_by(true, "static");
}

static void bytes_back(void)
{
	uint64_t ptr = filled(LEN + INSET);
	struct peerdma_pin pin;
	int card = t_card_open();

	t_need(t_pin(dev, ptr + INSET, LEN, 0, &pin) >= 0, "it is pinned");
	t_result(t_card_attach(card, pin.out_fd), 0, "the card is attached");
	read_pieces(card, ptr + INSET);
	close(card);
	close(pin.out_fd);
	t_gpu_free(ptr);
}

static void refusals(void)
{
	uint64_t ptr = filled(GPU_PAGE);
	struct peerdma_pin pin;
	int card = t_card_open();
	unsigned char byte = 1;

	t_result(t_card_write(card, &byte, 1, 0), -ENOTCONN,
		 "without memory nothing is moved");
	t_result(t_card_attach(card, 99), -EBADF, "no descriptor");
	t_result(t_card_attach(card, card), -EINVAL, "no dma-buf");
	t_need(t_pin(dev, ptr, GPU_PAGE, PEERDMA_PIN_REVOCABLE, &pin) >= 0,
	       "a revocable pin");
	static_attach(true);
	t_result(t_card_attach(card, pin.out_fd), -EOPNOTSUPP,
		 "is not for those who cannot let go");
	static_attach(false);
	t_result(t_card_attach(card, pin.out_fd), 0, "others may attach");
	t_result(t_card_write(card, &byte, 1, 0),
		 pins_on_map() ? -EOPNOTSUPP : 1, "and map it%s",
		 pins_on_map() ? ", but not where the kernel pins to map" : "");
	close(pin.out_fd);
	close(card);
	t_gpu_free(ptr);
}

/* Above what the card can address, and no IOMMU to translate. */
static void out_of_reach(void)
{
	uint64_t ptr = filled(GPU_PAGE);
	struct peerdma_pin pin;
	int card = t_card_open();

	t_need(t_pin(dev, ptr, GPU_PAGE, 0, &pin) >= 0, "it is pinned");
	t_result(t_card_attach(card, pin.out_fd), -EREMOTEIO,
		 "the attachment is refused");
	static_attach(true);
	t_result(t_card_attach(card, pin.out_fd), -EREMOTEIO,
		 "a static one, too");
	static_attach(false);
	t_is(t_counter("device_maps"), 0, "nothing is mapped");
	close(pin.out_fd);
	close(card);
	t_gpu_free(ptr);
}

static void trace_maps(bool on)
{
	t_result(t_trace_maps(on), 0, "tracing goes %s", on ? "on" : "off");
}

/*
 * The card writes once more, on its own, to the address that it had when it was
 * attached. An IOMMU stops it; the host looks whether the memory is as it was.
 * Without an IOMMU it gets through, which shows that the test can fail.
 */
static void after_the_end(void)
{
	uint64_t ptr = filled(2 * GPU_PAGE), address, stale = GPU_PAGE + PAGE;
	unsigned char data[PAGE], got[PAGE], old[PAGE];
	struct t_record record;
	struct peerdma_pin pin;
	int card = t_card_open();

	generate(data, 0, PAGE);
	memset(old, FILL, PAGE);
	if (translated())
		trace_maps(true);
	t_need(t_pin(dev, ptr, 2 * GPU_PAGE, 0, &pin) >= 0, "it is pinned");
	t_result(t_card_attach(card, pin.out_fd), 0, "the card is attached");
	t_result(t_card_write(card, data, PAGE, 0), PAGE, "the card writes");
	address = t_physical(dev, pin.out_fd, stale);
	if (translated()) {
		trace_maps(false);
		address = t_traced_address(address);
		t_need(address, "the IOMMU's trace shows where");
		t_ok(address >> bits == 0, "below the card's mask");
	}
	record_open(&record, "stale", pin.out_fd);
	t_record_data(&record, 0, 0, PAGE);
	t_record_fill(&record, FILL, PAGE, 2 * GPU_PAGE - PAGE);
	t_record_close(&record);
	close(card);
	close(pin.out_fd);
	t_ok(t_wait_for(!t_counter("device_maps")), "the mapping ends");
	t_result(t_write_text(T_CARD_DRIVER "/unbind", t_card_address()), 0,
		 "the driver leaves");
	t_card_poke(address, PAGE);
	t_gpu_read(got, ptr + stale, PAGE);
	t_same(got, translated() ? old : data, PAGE, translated() ?
	       "the memory is untouched" : "nothing holds the card back");
	t_result(t_write_text(T_CARD_DRIVER "/bind", t_card_address()), 0,
		 "the driver returns");
}

/* A card that writes, and does not take no for an answer. */
struct looper {
	int card;
	volatile bool stop;
	volatile int rounds;
	volatile int refused;
	ssize_t ret;
};

static void *looper_run(void *data)
{
	static unsigned char block[PAGE];
	struct looper *looper = data;

	memset(block, FILL, sizeof(block));
	while (!looper->stop) {
		looper->ret = t_card_write(looper->card, block, sizeof(block),
					   looper->rounds % 8 * sizeof(block));
		if (looper->ret < 0)
			looper->refused++;
		looper->rounds++;
	}
	return NULL;
}

/* Memory that a card writes to in a loop. */
struct rig {
	uint64_t ptr;
	struct peerdma_pin pin;
	uint64_t phys[RIG_LEN / GPU_PAGE];
	struct looper looper;
	pthread_t thread;
	double began;
};

static void rig_start(struct rig *rig, const char *name, uint32_t flags)
{
	struct t_record record;
	size_t i;

	memset(rig, 0, sizeof(*rig));
	rig->ptr = filled(RIG_LEN);
	t_need(t_pin(dev, rig->ptr, RIG_LEN, flags, &rig->pin) >= 0,
	       "it is pinned");
	for (i = 0; i < RIG_LEN / GPU_PAGE; i++)
		rig->phys[i] = t_physical(dev, rig->pin.out_fd, i * GPU_PAGE);
	record_open(&record, name, rig->pin.out_fd);
	t_record_fill(&record, CANARY, 0, RIG_LEN);
	t_record_close(&record);

	rig->looper.card = t_card_open();
	t_need(!t_card_attach(rig->looper.card, rig->pin.out_fd),
	       "the card is attached");
	pthread_create(&rig->thread, NULL, looper_run, &rig->looper);
	t_ok(t_wait_for(rig->looper.rounds >= 2), "the card writes in a loop");
	t_is(rig->looper.refused, 0, "and may");
	rig->began = t_now();
}

/* What took so long, and that nothing is mapped when it returns. */
static void rig_ended(struct rig *rig, const char *what)
{
	double took = t_now() - rig->began;

	t_is(t_counter("device_maps"), 0, "nothing is mapped");
	t_note("%s took %.0f ms", what, took * 1000);
}

/* The card goes on for a while over memory that is somebody else's by now. */
static void rig_stop(struct rig *rig)
{
	int before = rig->looper.refused;

	t_ok(t_wait_for(rig->looper.refused >= before + 5),
	     "the card tries again and again");
	rig->looper.stop = true;
	pthread_join(rig->thread, NULL);
	t_result(rig->looper.ret, -ENODEV, "but was cut off");
	close(rig->looper.card);
	close(rig->pin.out_fd);
}

/* Never freed: the host looks at it when all is over. */
static void place_canary(void)
{
	t_gpu_set(t_gpu_alloc(RIG_LEN), CANARY, RIG_LEN);
}

static int unload(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? -errno : 0;
}

static void revoke_in_loop(void)
{
	struct rig rig;

	rig_start(&rig, "revoked", 0);
	t_result(unload("edu"), -EWOULDBLOCK, "the card's driver stays");
	t_result(unload("peerdma_nvidia"), -EWOULDBLOCK, "the provider stays");
	t_result(unload("peerdma"), -EWOULDBLOCK, "peerdma stays");
	rig.began = t_now();
	t_result(t_revoke(dev, rig.pin.out_fd), 0, "the memory is taken back");
	rig_ended(&rig, "REVOKE");
	t_gpu_free(rig.ptr);
	place_canary();
	rig_stop(&rig);
}

static void free_in_loop(void)
{
	struct rig rig;

	if (pins_on_map()) {
		t_skip("free under a revocable pin",
		       "this kernel pins to map, and such a pin is refused");
		return;
	}
	rig_start(&rig, "freed", PEERDMA_PIN_REVOCABLE);
	t_gpu_free(rig.ptr);
	rig_ended(&rig, "cuMemFree");
	place_canary();
	rig_stop(&rig);
}

/* A process killed at work lets go of everything. */
static int write_for_ever(void *data)
{
	static unsigned char block[PAGE];

	memset(block, FILL, sizeof(block));
	for (;;)
		t_card_write(*(int *)data, block, sizeof(block), 0);
	return 0;
}

static unsigned char first_byte(uint64_t ptr)
{
	unsigned char byte;

	t_gpu_read(&byte, ptr, 1);
	return byte;
}

static void killed_in_loop(void)
{
	uint64_t ptr = t_gpu_alloc(RIG_LEN);
	struct peerdma_pin pin;
	struct t_record record;
	int card = t_card_open(), status;
	pid_t child;

	t_gpu_set(ptr, 0, RIG_LEN);
	t_need(t_pin(dev, ptr, RIG_LEN, 0, &pin) >= 0, "it is pinned");
	record_open(&record, "killed", pin.out_fd);
	t_record_fill(&record, CANARY, 0, RIG_LEN);
	t_record_close(&record);
	t_result(t_card_attach(card, pin.out_fd), 0, "the card is attached");
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(write_for_ever(&card));
	close(card);
	close(pin.out_fd);
	t_ok(t_wait_for(first_byte(ptr) == FILL), "the card writes");
	t_ok(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child &&
	     WIFSIGNALED(status), "its process is killed");
	t_ok(t_wait_for(!t_counter("buffers")), "the pin ends");
	t_gpu_free(ptr);
	place_canary();
}

static void *take_back_run(void *data)
{
	struct rig *rig = data;

	return (void *)(long)t_revoke(dev, rig->pin.out_fd);
}

static int child_revokes(void *data)
{
	return t_revoke(dev, *(int *)data) == 0 ? 0 : 1;
}

static bool revoked(int buffer)
{
	struct peerdma_query query = {
		.size = sizeof(query),
		.buffer_fd = buffer,
	};

	return !ioctl(dev, PEERDMA_QUERY, &query) &&
	       query.out_state & PEERDMA_BUFFER_REVOKED;
}

/* An importer that cannot let go is waited for: its mapping is its own to end. */
static void static_importer(void)
{
	pthread_t thread;
	struct rig rig;
	pid_t child;
	void *ret;
	int status;

	static_attach(true);
	rig_start(&rig, "waited", 0);
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(child_revokes(&rig.pin.out_fd));
	t_ok(t_wait_for(revoked(rig.pin.out_fd)), "REVOKE has begun");
	t_is(waitpid(child, &status, WNOHANG), 0, "and waits");
	kill(child, SIGKILL);
	t_is(waitpid(child, &status, 0), child, "until it is killed");
	pthread_create(&thread, NULL, take_back_run, &rig);
	t_is(t_counter("device_maps"), 1, "the importer has its mapping");
	t_ok(t_gpu_counter("pinned") > 0, "and the memory is still there");
	rig.looper.stop = true;
	pthread_join(rig.thread, NULL);
	close(rig.looper.card);
	pthread_join(thread, &ret);
	t_result((long)ret, 0, "it ends when the importer does");
	t_is(t_counter("device_maps"), 0, "nothing is mapped");
	close(rig.pin.out_fd);
	t_gpu_free(rig.ptr);
	place_canary();
	static_attach(false);
}

/* The card's end: @how takes it away and @back brings it back. */
static void card_ends(const char *name, const char *how, const char *back,
		      const char *text)
{
	struct rig rig;
	int again;

	rig_start(&rig, name, 0);
	t_result(t_write_text(how, text), 0, "the card goes");
	rig_ended(&rig, "its end");
	t_gpu_set(rig.ptr, CANARY, RIG_LEN);
	t_result(t_card_attach(rig.looper.card, rig.pin.out_fd), -ENODEV,
		 "its file is good for nothing");
	t_result(t_write_text(back, text), 0, "the card comes back");
	t_need(t_wait_for((again = open("/dev/edu", O_RDWR)) >= 0),
	       "and opens");
	close(again);
	rig_stop(&rig);
}

static void card_unbound(void)
{
	card_ends("unbound", T_CARD_DRIVER "/unbind", T_CARD_DRIVER "/bind",
		  t_card_address());
}

static void card_removed(void)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove",
		 t_card_address());
	card_ends("removed", path, "/sys/bus/pci/rescan", "1");
}

/* Nobody drives the GPU any more: its next user is whoever maps its BAR. */
static void place_canary_by_hand(const struct rig *rig, const char *gpu)
{
	uint64_t start;
	char path[96];
	FILE *file;
	size_t i;
	void *map;
	int bar;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource", gpu);
	file = fopen(path, "r");
	t_need(file && fscanf(file, "%*x %*x %*x %*x %*x %*x %" SCNx64,
			      &start) == 1, "the GPU has its BAR");
	fclose(file);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", gpu);
	bar = open(path, O_RDWR);
	for (i = 0; i < RIG_LEN / GPU_PAGE; i++) {
		map = mmap(NULL, GPU_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   bar, rig->phys[i] - start);
		t_need(map != MAP_FAILED, "its BAR is mapped");
		memset(map, CANARY, GPU_PAGE);
		munmap(map, GPU_PAGE);
	}
	close(bar);
}

/* Last: CUDA has no memory any more. */
static void gpu_leaves(void)
{
	struct peerdma_query query = { .size = sizeof(query) };
	struct rig rig;
	char gpu[16];

	rig_start(&rig, "gpu", 0);
	query.buffer_fd = rig.pin.out_fd;
	t_need(!ioctl(dev, PEERDMA_QUERY, &query), "QUERY answers");
	snprintf(gpu, sizeof(gpu), "%04x:%02x:%02x.%x",
		 query.out_device >> 16, query.out_device >> 8 & 0xff,
		 query.out_device >> 3 & 0x1f, query.out_device & 7);
	rig.began = t_now();
	t_result(t_write_text("/sys/bus/pci/drivers/simgpu/unbind", gpu), 0,
		 "the GPU's driver leaves");
	rig_ended(&rig, "unbinding the GPU");
	place_canary_by_hand(&rig, gpu);
	rig_stop(&rig);
}

/* The last case takes the GPU away, and its counters with it. */
static void nothing_left(void)
{
	if (t_gpu_counter("pinned") >= 0) {
		t_nothing_left();
		return;
	}
	t_ok(t_wait_for(!(t_counter("buffers") | t_counter("pinned_bytes") |
			  t_counter("importers") | t_counter("device_maps"))),
	     "nothing of peerdma's is left behind");
}

static const struct t_case reachable[] = {
	{ "bytes", bytes },
	{ "bytes, attached statically", bytes_statically },
	{ "bytes back", bytes_back },
	{ "refusals", refusals },
	{ "after the end", after_the_end },
	{ "taken back in a loop", revoke_in_loop },
	{ "freed in a loop", free_in_loop },
	{ "killed in a loop", killed_in_loop },
	{ "a static importer", static_importer },
	{ "the card is unbound", card_unbound },
	{ "the card is removed", card_removed },
	{ "the GPU leaves", gpu_leaves },
};

static const struct t_case unreachable[] = {
	{ "out of reach", out_of_reach },
};

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	folder = argv[1];
	bits = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_gpu_init();
	dev = t_device_open();
	/* What is left on the command line are names of cases. */
	argc -= 2;
	argv += 2;
	if (!translated() && bits <= 32)
		return T_RUN(unreachable, t_nothing_left);
	return T_RUN(reachable, nothing_left);
}
