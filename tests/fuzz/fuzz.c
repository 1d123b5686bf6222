// SPDX-License-Identifier: MIT
/*
 * A fuzzer of /dev/peerdma and of everything that its descriptors can be used
 * for. It runs programs (program.h) with several threads at once, mutates those
 * that have reached new code, and keeps them. Between two programs everything is
 * closed. What the kernel's log complains of ends it.
 *
 * usage: fuzz run SECONDS SEED OUT [CORPUS...]
 *        fuzz replay SECONDS CRASHES [CORPUS...]
 *        fuzz explain CORPUS...
 *
 * replay   runs all CRASHES, then what SECONDS are enough for of each CORPUS
 *
 * OUT/corpus    programs that have reached code that no other had
 * OUT/last      those that were to run next, when the guest died
 * OUT/crash     the one after which the kernel complained, and some before
 *
 * Wants tests/fuzz/guest's devices and files; to see which code is reached, also
 * tests/fuzz/cover and modules that tell it. Without them programs are made at
 * random.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/klog.h>
#include <time.h>

#include "../t_clock.h"
#include "../t_counters.h"
#include "cover/t_cover.h"
#include "ops.h"

#define BATCH		16
#define CORPUS_MOST	4096
#define HISTORY		64
#define HANG_SECONDS	150
#define SYSLOG_READ_ALL	3
#define SAVE_SECONDS	20
#define TRIM_RUNS	48

/**
 * struct entry - a program worth keeping
 * @program: it
 * @reached: it has run a block that none before it had; else only one more often
 */
struct entry {
	struct program program;
	bool reached;
};

static struct {
	struct worker workers[THREADS];
	pthread_barrier_t begin, end;
	const struct program *program;
	unsigned char *cover;
	unsigned char seen[T_COVER_BLOCKS];
	struct entry *corpus;
	unsigned int nr_corpus, nr_reached;
	struct program history[HISTORY];
	unsigned long long programs, operations;
	unsigned int blocks;
	uint64_t state;
	const char *out;
	int log;
	_Atomic time_t begun;	/* the program that runs, or 0 */
} fuzz;

/* ---- running ------------------------------------------------------------- */

static void *worker_run(void *data)
{
	const struct program *program;
	unsigned int i;

	self = data;
	worker_open(self);
	for (;;) {
		pthread_barrier_wait(&fuzz.begin);
		program = fuzz.program;
		for (i = 0; i < program->nr[self->index]; i++) {
			self->at = i;
			op_run(&program->ops[self->index][i]);
		}
		self->at = i;
		ring_end();
		pthread_barrier_wait(&fuzz.end);
	}
	return NULL;
}

static FILE *out_file(const char *name)
{
	char path[256];

	if (!fuzz.out)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s", fuzz.out, name);
	return fopen(path, "w");
}

static void out_programs(const char *name, const struct program *programs,
			 unsigned int nr, unsigned int first)
{
	char text[PROGRAM_TEXT];
	FILE *file = out_file(name);
	unsigned int i;

	if (!file)
		return;
	for (i = 0; i < nr; i++) {
		program_print(&programs[(first + i) % nr], text);
		fputs(text, file);
	}
	fclose(file);
}

/* The kernel's log since the last time; a line that is a complaint, or false. */
static bool complained(char *line, size_t size)
{
	static const char *const words[] = {
		"BUG:", "WARNING:", "UBSAN:", "KASAN:", "Call Trace:",
		"possible circular", "possible recursive", "inconsistent lock",
		"DMA-API:", "ODEBUG:", "refcount_t:", "blocked for more",
		"list_add corruption", "list_del corruption", "Bad page",
		"Oops", "general protection",
	};
	ssize_t len;
	size_t i;

	for (;;) {
		len = read(fuzz.log, line, size - 1);
		if (len < 0 && errno == EPIPE)
			continue;
		if (len <= 0)
			return false;
		line[len] = '\0';
		for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			if (strstr(line, words[i]))
				return true;
	}
}

/* Where a thread is, as far as the kernel tells; of one that runs it does not. */
static void show_stack(pid_t tid)
{
	char path[64], text[2048];
	FILE *file;
	size_t len;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stack", tid);
	file = fopen(path, "r");
	if (!file) {
		t_note("its stack: %s", strerror(errno));
		return;
	}
	len = fread(text, 1, sizeof(text) - 1, file);
	text[len] = '\0';
	fclose(file);
	printf("%s", text);
}

static void explain_hang(void)
{
	unsigned int i;

	for (i = 0; i < THREADS; i++) {
		struct worker *worker = &fuzz.workers[i];

		t_note("thread %u: operation %u of %u, %s", i, worker->at,
		       fuzz.program->nr[i], verbs[worker->verb].name);
		show_stack(worker->tid);
	}
	t_note("the thread that begins them");
	show_stack(getpid());
}

/*
 * Who runs has no stack to read: the kernel looks at its CPUs by interrupt. Its
 * console must be silent then, or it is what they are found to do.
 */
static void show_cpus(void)
{
	static char text[16384];
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC), len;

	if (fd < 0)
		return;
	if (write(fd, "0", 1) == 1 && write(fd, "l", 1) == 1)
		sleep(2);
	close(fd);
	len = klogctl(SYSLOG_READ_ALL, text, sizeof(text));
	if (len > 0)
		printf("%.*s", len, text);
}

static void *watch_main(void *unused)
{
	time_t begun;

	(void)unused;
	do {
		sleep(1);
		begun = atomic_load(&fuzz.begun);
	} while (!begun || time(NULL) - begun < HANG_SECONDS);
	out_programs("crash", fuzz.history, HISTORY, fuzz.programs % HISTORY);
	t_note("a program has not ended after %d s", HANG_SECONDS);
	explain_hang();
	show_cpus();
	_exit(3);
}

static void program_run(const struct program *program)
{
	char line[1024];

	fuzz.history[fuzz.programs++ % HISTORY] = *program;
	fuzz.program = program;
	atomic_store(&fuzz.begun, time(NULL));
	rig_fill();
	pthread_barrier_wait(&fuzz.begin);
	pthread_barrier_wait(&fuzz.end);
	rig_clean();
	atomic_store(&fuzz.begun, 0);
	fuzz.operations += program->nr[0] + program->nr[1] + program->nr[2] +
			   program->nr[3];
	if (!complained(line, sizeof(line)))
		return;
	out_programs("crash", fuzz.history, HISTORY, fuzz.programs % HISTORY);
	t_note("the kernel complained: %s", line);
	program_explain(program, stdout);
	fflush(stdout);
	exit(2);
}

/* ---- what was reached ---------------------------------------------------- */

static unsigned char count_class(unsigned char count)
{
	return count < 2 ? 1 : count < 4 ? 2 : count < 16 ? 4 : 8;
}

/*
 * What the last program has run that none had; then the counts start anew.
 * @blocks gets up to @room of them.
 * Return: how many blocks are new, or -1 when one only ran more often than ever.
 */
static int cover_take(unsigned int *blocks, unsigned int room)
{
	uint64_t *words = (uint64_t *)fuzz.cover;
	unsigned int i, j, nr = 0;
	bool more = false;

	for (i = 0; i < T_COVER_BLOCKS / 8; i++) {
		unsigned char *counts = (unsigned char *)&words[i];

		if (!words[i])
			continue;
		for (j = 0; j < 8; j++) {
			unsigned char *seen = &fuzz.seen[i * 8 + j];
			unsigned char class;

			if (!counts[j])
				continue;
			class = count_class(counts[j]);
			more |= class & ~*seen;
			if (!*seen && nr++ < room)
				blocks[nr - 1] = i * 8 + j;
			*seen |= class;
		}
		words[i] = 0;
	}
	fuzz.blocks += nr;
	return nr || !more ? (int)nr : -1;
}

/* Has the last program run all of them? */
static bool cover_has(const unsigned int *blocks, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!fuzz.cover[blocks[i]])
			return false;
	return true;
}

static void corpus_add(const struct program *program, bool reached)
{
	if (fuzz.nr_corpus == CORPUS_MOST)
		return;
	fuzz.corpus[fuzz.nr_corpus++] = (struct entry){ *program, reached };
	fuzz.nr_reached += reached;
}

/*
 * One try to do without @part operations of a thread, from @at on.
 * Return: whether all of @blocks are still reached; then @program is the shorter.
 */
static bool program_shorten(struct program *program, unsigned int thread,
			    unsigned int at, unsigned int part,
			    const unsigned int *blocks, unsigned int nr)
{
	struct program less = *program;
	bool same;

	while (part-- && at < less.nr[thread])
		op_remove(&less, thread, at);
	program_run(&less);
	same = cover_has(blocks, nr);
	cover_take(NULL, 0);
	if (same)
		*program = less;
	return same;
}

/* Without what it does not need to reach @blocks: whole threads, then less. */
static void program_trim(struct program *program, const unsigned int *blocks,
			 unsigned int nr)
{
	unsigned int thread = 0, at = 0, part = OPS, runs;

	for (runs = 0; part && runs < TRIM_RUNS; ) {
		if (at < program->nr[thread]) {
			runs++;
			if (!program_shorten(program, thread, at, part, blocks,
					     nr))
				at += part;
			continue;
		}
		at = 0;
		thread = (thread + 1) % THREADS;
		if (!thread)
			part /= 4;
	}
}

static void program_judge(const struct program *program, bool trim)
{
	unsigned int blocks[64];
	struct program less = *program;
	int nr = cover_take(blocks, 64);

	if (nr > 0 && trim)
		program_trim(&less, blocks, nr < 64 ? nr : 64);
	if (nr)
		corpus_add(&less, nr > 0);
}

/* ---- the corpus ---------------------------------------------------------- */

static void corpus_save(void)
{
	char text[PROGRAM_TEXT];
	FILE *file = out_file("corpus");
	unsigned int i;

	for (i = 0; file && i < fuzz.nr_corpus; i++) {
		if (!fuzz.corpus[i].reached)
			continue;
		program_print(&fuzz.corpus[i].program, text);
		fputs(text, file);
	}
	if (file)
		fclose(file);
}

/* Calls @use for each program of a file; its number, or -1. */
static int corpus_read(const char *path,
		       bool (*use)(const struct program *program))
{
	char line[PROGRAM_TEXT + 256];
	struct program program;
	FILE *file = fopen(path, "r");
	bool more = true;
	int nr = 0;

	if (!file)
		return -1;
	while (more && fgets(line, sizeof(line), file))
		if (program_parse(&program, line)) {
			more = use(&program);
			nr++;
		}
	fclose(file);
	return nr;
}

static double deadline;	/* 0: none */
static unsigned int nr_replayed, nr_known;

static bool corpus_take(const struct program *program)
{
	program_run(program);
	program_judge(program, false);
	return t_now() < deadline;
}

static bool corpus_replay(const struct program *program)
{
	nr_known++;
	if (!deadline || t_now() < deadline) {
		program_run(program);
		nr_replayed++;
	}
	return true;
}

static void replay(const char *path, double seconds)
{
	deadline = seconds ? t_now() + seconds : 0;
	nr_replayed = nr_known = 0;
	corpus_read(path, corpus_replay);
	t_note("%s: %u of %u replayed", path, nr_replayed, nr_known);
	t_ok(nr_replayed > 0, "%s", path);
}

static bool corpus_explain(const struct program *program)
{
	char text[PROGRAM_TEXT];

	program_print(program, text);
	program_explain(program, stdout);
	fputs(text, stdout);
	return true;
}

/* ---- three things to do -------------------------------------------------- */

static const struct program *corpus_any(void)
{
	unsigned int nr = fuzz.nr_corpus, recent = nr < 64 ? nr : 64;

	if (below(&fuzz.state, 2))
		return &fuzz.corpus[nr - 1 - below(&fuzz.state, recent)].program;
	return &fuzz.corpus[below(&fuzz.state, nr)].program;
}

static void program_next(struct program *program)
{
	if (!fuzz.nr_corpus || !below(&fuzz.state, 6)) {
		program_make(program, &fuzz.state);
	} else {
		*program = *corpus_any();
		program_mutate(program, corpus_any(), &fuzz.state);
	}
	/* What takes long is much too frequent in what has reached much. */
	if (below(&fuzz.state, 32))
		program_hasten(program);
}

static void fuzz_run(void)
{
	struct program programs[BATCH];
	double saved = t_now();
	unsigned int i;

	while (t_now() < deadline) {
		for (i = 0; i < BATCH; i++)
			program_next(&programs[i]);
		out_programs("last", programs, BATCH, 0);
		for (i = 0; i < BATCH; i++) {
			program_run(&programs[i]);
			if (fuzz.cover)
				program_judge(&programs[i], true);
		}
		if (t_now() - saved < SAVE_SECONDS)
			continue;
		saved = t_now();
		corpus_save();
		t_note("%llu operations, corpus %u, blocks %u", fuzz.operations,
		       fuzz.nr_corpus, fuzz.blocks);
	}
	corpus_save();
}

static void report(double began)
{
	double took = t_now() - began;
	unsigned int i, j;

	for (i = 0; i < NR_VERBS; i++) {
		unsigned long long calls = 0, good = 0;

		for (j = 0; j < THREADS; j++) {
			calls += fuzz.workers[j].calls[i];
			good += fuzz.workers[j].good[i];
		}
		t_note("%-12s %9llu calls, %9llu succeeded", verbs[i].name,
		       calls, good);
	}
	t_note("%llu programs, %llu operations in %.0f s (%.0f per second)",
	       fuzz.programs, fuzz.operations, took, fuzz.operations / took);
	if (fuzz.cover)
		t_note("corpus %u, of which %u reached new blocks; blocks %u",
		       fuzz.nr_corpus, fuzz.nr_reached, fuzz.blocks);
}

static void fuzz_open(void)
{
	struct sigaction action = { .sa_handler = on_fault,
				    .sa_flags = SA_NODEFER };
	pthread_t watcher;
	unsigned int i;
	int fd;

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	rig_open();
	fuzz.log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(fuzz.log, 0, SEEK_END);
	fd = open("/dev/t_cover", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		fuzz.cover = mmap(NULL, T_COVER_BLOCKS, PROT_READ | PROT_WRITE,
				  MAP_SHARED, fd, 0);
		memset(fuzz.cover, 0, T_COVER_BLOCKS);
	}
	fuzz.corpus = calloc(CORPUS_MOST, sizeof(*fuzz.corpus));
	pthread_barrier_init(&fuzz.begin, NULL, THREADS + 1);
	pthread_barrier_init(&fuzz.end, NULL, THREADS + 1);
	for (i = 0; i < THREADS; i++) {
		fuzz.workers[i].index = i;
		pthread_create(&fuzz.workers[i].thread, NULL, worker_run,
			       &fuzz.workers[i]);
	}
	pthread_create(&watcher, NULL, watch_main, NULL);
}

static int usage(void)
{
	fprintf(stderr, "usage: fuzz run SECONDS SEED OUT [CORPUS...]\n"
			"       fuzz replay SECONDS CRASHES [CORPUS...]\n"
			"       fuzz explain CORPUS...\n");
	return 2;
}

int main(int argc, char **argv)
{
	bool again = argc > 3 && !strcmp(argv[1], "replay");
	double began = t_now();
	int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "fuzz";
	if (argc > 2 && !strcmp(argv[1], "explain")) {
		for (i = 2; i < argc; i++)
			corpus_read(argv[i], corpus_explain);
		return 0;
	}
	if (!again && (argc < 5 || strcmp(argv[1], "run")))
		return usage();
	deadline = began + atof(argv[2]);
	fuzz_open();
	if (again) {
		for (i = 3; i < argc; i++)
			replay(argv[i], i == 3 ? 0 : atof(argv[2]));
	} else {
		fuzz.state = strtoull(argv[3], NULL, 0) * 2 + 1;
		fuzz.out = argv[4];
		t_note("seed %s", argv[3]);
		for (i = 5; i < argc && fuzz.cover; i++)
			corpus_read(argv[i], corpus_take);
		fuzz_run();
	}
	report(began);
	t_ok(fuzz.operations, "operations were run");
	printf("1..%d\n", t_tap.run);
	fflush(stdout);
	/* The threads' rings and all else go with the process. */
	_exit(t_tap.failed != 0);
}
