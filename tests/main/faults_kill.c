// SPDX-License-Identifier: MIT
/*
 * Processes that are killed at random moments of pins and transfers. Each time all
 * that they held comes back, whoever gets their GPU memory next has it for himself,
 * and nothing that is not theirs changes.
 *
 * usage: faults_kill SEED KILLS, with a slow drive mounted at /mnt
 *        faults_kill --victim KIND SEED
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>

#include "../t_counters.h"
#include "../t_transfer.h"
#include "../t_uring.h"

#define LEN		(4u << 20)
#define PIECE		(64u << 10)
#define NR		16
#define CANARY		(8u << 20)
#define LONGEST_MS	60
#define SOURCE		"/mnt/source"
#define TARGET		"/mnt/target"
#define BYSTANDER	"/mnt/bystander"

static uint64_t state;

static uint64_t below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static void seed_with(const char *text)
{
	state = strtoull(text, NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
}

/* ---- the victim ---------------------------------------------------------- */

/* How the victim moves its data. */
enum kind { READS, WRITES, RING_READS, RING_WRITES, PINS, NR_KINDS };

static void scatter(struct peerdma_file_segment *segments)
{
	int i;

	for (i = 0; i < NR; i++)
		segments[i] = (struct peerdma_file_segment){
			below(LEN / PIECE) * PIECE, i * PIECE, PIECE, 0,
		};
}

static void move_by_ring(struct io_uring *ring, int dev, uint32_t flags,
			 const struct peerdma_file_io *arg)
{
	struct peerdma_file_segment *segments =
		(void *)(uintptr_t)arg->segments;
	struct peerdma_file_io ios[NR];
	int i;

	for (i = 0; i < NR; i++) {
		ios[i] = *arg;
		ios[i].size = sizeof(ios[i]);
		ios[i].flags = flags;
		ios[i].segments = (uintptr_t)&segments[i];
		ios[i].nr_segments = 1;
		t_ring_put(ring, dev, &ios[i], i);
	}
	io_uring_submit(ring);
	for (i = 0; i < NR; i++)
		t_ring_take(ring, NULL);
}

/* Moves until it is killed. */
static int victim(enum kind kind, const char *seed)
{
	struct peerdma_file_segment segments[NR];
	struct peerdma_file_io io = {
		.segments = (uintptr_t)segments, .nr_segments = NR,
	};
	struct io_uring ring;
	struct t_buffer buffer;
	uint32_t flags = kind == WRITES || kind == RING_WRITES ? T_WRITE : 0;
	int dev;

	seed_with(seed);
	t_gpu_init();
	dev = t_device_open();
	t_ring_make(&ring, NR, 0);
	t_buffer_make(&buffer, dev, LEN);
	io.flags = flags;
	io.file_fd = t_open(flags ? TARGET : SOURCE, O_RDWR | O_DIRECT);
	if (write(STDOUT_FILENO, "!", 1) != 1)
		return 1;
	for (;;) {
		io.buffer_fd = buffer.fd;
		scatter(segments);
		if (kind == RING_READS || kind == RING_WRITES)
			move_by_ring(&ring, dev, flags, &io);
		else if (t_file_io(dev, &io))
			return 1;
		if (kind != PINS)
			continue;
		close(buffer.fd);
		buffer.fd = t_pin(dev, buffer.ptr + below(LEN / 1024) * 512,
				  LEN / 2, 0, &buffer.pin);
		io.nr_segments = 1 + below(NR / 2);
	}
}

/* ---- the murderer -------------------------------------------------------- */

static void run_victim(int ready, enum kind kind)
{
	char kind_text[16], seed[32];

	snprintf(kind_text, sizeof(kind_text), "%d", kind);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)state);
	dup2(ready, STDOUT_FILENO);
	execl("/proc/self/exe", "faults_kill", "--victim", kind_text, seed,
	      NULL);
	_exit(1);
}

/* False when it died of something else, or never got going. */
static bool kill_one(enum kind kind, int signal)
{
	int ends[2], status;
	pid_t child;
	char byte;
	bool ready;

	if (pipe(ends))
		return false;
	child = fork();
	if (!child)
		run_victim(ends[1], kind);
	close(ends[1]);
	ready = read(ends[0], &byte, 1) == 1;
	close(ends[0]);
	t_sleep_ms(below(LONGEST_MS));
	kill(child, signal);
	return waitpid(child, &status, 0) == child && ready &&
	       WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

/*
 * A new owner of what may be the victim's memory; false when it is written to.
 * @kept: a struct page was there when nothing was in use any more.
 */
static bool inherit(const unsigned char *want, bool *kept)
{
	uint64_t ptr = t_gpu_alloc(LEN);
	unsigned char *got;
	bool same;

	t_gpu_write(ptr, want, LEN);
	same = t_wait_for(!t_in_use());
	if (!same)
		t_note("something of the victim's stays in use");
	*kept |= t_counter("page_bytes") > 0;
	got = t_gpu_copy(ptr, LEN);
	same &= !memcmp(got, want, LEN);
	munmap(got, LEN);
	t_gpu_free(ptr);
	return same;
}

static void check_file(const char *path, const unsigned char *want)
{
	unsigned char *got = t_ram(LEN);
	int fd = t_open(path, O_RDONLY | O_DIRECT);

	t_is(pread(fd, got, LEN, 0), LEN, "%s", path);
	t_same(got, want, LEN, "... is as it was");
	close(fd);
	munmap(got, LEN);
}

static void murder(int kills, const unsigned char *want)
{
	int i, odd = 0, touched = 0;
	bool kept = false;

	for (i = 0; i < kills && odd + touched < 3; i++) {
		enum kind kind = i % NR_KINDS;
		int signal = i / NR_KINDS % 2 ? SIGINT : SIGKILL;

		if (!kill_one(kind, signal)) {
			t_note("kill %d: the victim was not killed", i);
			odd++;
		}
		if (!inherit(want, &kept)) {
			t_note("kill %d, of kind %d by %s", i, kind,
			       strsignal(signal));
			touched++;
		}
	}
	t_is(odd, 0, "%d were killed", i);
	t_is(touched, 0, "their heirs' memory is their own");
	t_ok(kept, "struct pages are kept for a while");
}

int main(int argc, char **argv)
{
	unsigned char *want = t_ram(CANARY);
	uint64_t canary;

	if (argc == 4 && !strcmp(argv[1], "--victim"))
		return victim(atoi(argv[2]), argv[3]);
	if (argc != 3) {
		fprintf(stderr, "usage: faults_kill SEED KILLS\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "killed";
	seed_with(argv[1]);
	t_fill(want, CANARY, 9);
	close(t_file_make(SOURCE, want, LEN));
	close(t_file_make(TARGET, want, LEN));
	close(t_file_make(BYSTANDER, want, LEN));
	t_gpu_init();
	canary = t_gpu_alloc(CANARY);
	t_gpu_write(canary, want, CANARY);
	murder(atoi(argv[2]), want);
	t_gpu_same(canary, want, CANARY, "another process's memory is untouched");
	check_file(SOURCE, want);
	check_file(BYSTANDER, want);
	t_nothing_left();
	t_ok(t_wait_for(!t_counter("page_bytes")), "no struct pages either");
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}
