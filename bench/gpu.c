// SPDX-License-Identifier: MIT
/*
 * make bench-gpu: files into a real GPU's memory and back, without the kernel
 * module. The ways take turns in one run; each figure is the median of the
 * rounds. What was moved last is compared with the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu.h"

#define KIB		((size_t)1 << 10)
#define MIB		((size_t)1 << 20)
#define ROUNDS_MAX	15
#define NR_WAYS		6

enum place { CACHED, TMPFS, DISK };

struct test_case {
	enum place place;
	bool write;
	bool random;
	size_t block;
	int nr_callers;
};

static const struct test_case cases[] = {
	{ CACHED, false, false, 4 * KIB, 1 },
	{ CACHED, false, true, 4 * KIB, 1 },
	{ CACHED, false, false, 64 * KIB, 1 },
	{ CACHED, false, false, 256 * KIB, 1 },
	{ CACHED, false, false, 1 * MIB, 1 },
	{ CACHED, false, false, 4 * MIB, 1 },
	{ CACHED, false, false, 16 * MIB, 1 },
	{ CACHED, false, false, 64 * MIB, 1 },
	{ CACHED, false, false, 64 * KIB, 4 },
	{ CACHED, false, false, 1 * MIB, 4 },
	{ CACHED, false, false, 16 * MIB, 4 },
	{ TMPFS, false, false, 64 * KIB, 1 },
	{ TMPFS, false, false, 1 * MIB, 1 },
	{ TMPFS, false, false, 16 * MIB, 1 },
	{ TMPFS, false, false, 16 * MIB, 4 },
	{ DISK, false, false, 4 * KIB, 1 },
	{ DISK, false, false, 1 * MIB, 1 },
	{ DISK, false, false, 16 * MIB, 1 },
	{ DISK, false, false, 16 * MIB, 4 },
	{ CACHED, true, false, 64 * KIB, 1 },
	{ CACHED, true, false, 1 * MIB, 1 },
	{ CACHED, true, false, 16 * MIB, 1 },
	{ DISK, true, false, 1 * MIB, 1 },
	{ DISK, true, false, 16 * MIB, 1 },
};

static const char *const place_names[] = { "cached", "tmpfs", "disk" };

/* Into, or out of, host memory: what the disk, or the page cache, does alone. */
static ssize_t host_move(struct caller *caller, const struct target *target,
			 size_t len, uint64_t file_offset, size_t at)
{
	ssize_t n;

	if (target->write)
		n = pwrite(target->fd, caller->pinned + at, len, file_offset);
	else
		n = pread(target->fd, caller->pinned + at, len, file_offset);
	return n < 0 ? -errno : n;
}

struct figure {
	double gb_per_s;
	double us;		/* a request */
	double cpu;		/* seconds per GiB */
};

/* What one thread of one round did. */
struct work {
	const struct test_case *c;
	const struct way *way;
	const struct target *target;
	struct caller *caller;
	int n;
	uint64_t seed;
	uint64_t moved;
	uint64_t requests;
	uint64_t last_offset;
	size_t last_at;
	int err;
};

static pthread_barrier_t barrier;
static double deadline;
static double seconds = 0.2;
static int rounds = 5;

static uint64_t next_offset(struct work *w)
{
	uint64_t blocks = w->target->len / w->c->block;
	uint64_t first = blocks / w->c->nr_callers * w->n;

	if (!w->c->random)
		return (first + w->requests) % blocks * w->c->block;
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return w->seed % blocks * w->c->block;
}

static void *run_caller(void *arg)
{
	struct work *w = arg;
	size_t block = w->c->block;
	ssize_t n;

	cuda.cuCtxSetCurrent(cuda_context);
	pthread_barrier_wait(&barrier);
	do {
		w->last_offset = next_offset(w);
		w->last_at = w->requests % (WINDOW / block) * block;
		n = w->way->move(w->caller, w->target, block, w->last_offset,
				 w->last_at);
		if (n != (ssize_t)block) {
			w->err = n < 0 ? -n : EIO;
			break;
		}
		w->moved += n;
		w->requests++;
	} while (gpu_now() < deadline);
	return NULL;
}

/* The last block of every caller, on the GPU and in the file. */
static int compare(const struct work *w)
{
	char *gpu = malloc(w->c->block);
	int err = 0;

	if (cuda.cuMemcpyDtoH(gpu, w->caller->addr + w->last_at, w->c->block))
		err = EIO;
	if (pread(w->target->fd, w->caller->pageable, w->c->block,
		  w->last_offset) != (ssize_t)w->c->block)
		err = EIO;
	if (!err && memcmp(gpu, w->caller->pageable, w->c->block))
		err = EILSEQ;
	free(gpu);
	return err;
}

/*
 * CPU seconds in a second in which nobody calls: cuFile's threads take some as soon
 * as it is loaded, which are not the others' expense.
 */
static double idle;

static void measure_idle(void)
{
	const struct timespec pause = { .tv_nsec = 200000000 };
	double start, cpu;

	/* The library's own thread may still look ahead, at its own expense. */
	nanosleep(&pause, NULL);
	start = gpu_now();
	cpu = gpu_cpu_time();
	nanosleep(&pause, NULL);
	idle = (gpu_cpu_time() - cpu) / (gpu_now() - start);
}

static int run_round(const struct test_case *c, const struct way *way,
		     const struct target *target, bool check,
		     struct figure *figure)
{
	struct work works[CALLERS_MAX] = { 0 };
	uint64_t moved = 0, requests = 0;
	pthread_t threads[CALLERS_MAX];
	double start, cpu, took;
	int i, err = 0;

	pthread_barrier_init(&barrier, NULL, c->nr_callers + 1);
	for (i = 0; i < c->nr_callers; i++) {
		works[i] = (struct work){ .c = c, .way = way, .n = i,
			.target = target, .caller = &callers[i],
			.seed = 88172645463325252u + i * 7919 };
		pthread_create(&threads[i], NULL, run_caller, &works[i]);
	}
	start = gpu_now();
	deadline = start + seconds;
	cpu = gpu_cpu_time();
	pthread_barrier_wait(&barrier);
	for (i = 0; i < c->nr_callers; i++) {
		pthread_join(threads[i], NULL);
		moved += works[i].moved;
		requests += works[i].requests;
		err = works[i].err ? works[i].err : err;
	}
	took = gpu_now() - start;
	cpu = gpu_cpu_time() - cpu;
	if (way != &way_cufile)
		cpu = cpu > idle * took ? cpu - idle * took : 0;
	figure->gb_per_s = moved / took / 1e9;
	figure->us = requests ? took * c->nr_callers * 1e6 / requests : 0;
	figure->cpu = moved ? cpu / (moved / 1073741824.0) : 0;
	pthread_barrier_destroy(&barrier);
	for (i = 0; check && !err && i < c->nr_callers; i++)
		err = compare(&works[i]);
	return err;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, int n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2] + values[n / 2 - 1]) / 2;
}

static struct figure middle(struct figure *figures, int n)
{
	double values[3][ROUNDS_MAX];
	struct figure figure;
	int i;

	for (i = 0; i < n; i++) {
		values[0][i] = figures[i].gb_per_s;
		values[1][i] = figures[i].us;
		values[2][i] = figures[i].cpu;
	}
	figure.gb_per_s = median(values[0], n);
	figure.us = median(values[1], n);
	figure.cpu = median(values[2], n);
	return figure;
}

static int open_target(const struct test_case *c, const char *path,
		       struct target *target)
{
	struct stat st;

	target->path = path;
	target->write = c->write;
	target->memory = c->place == TMPFS;
	target->fd = open(path, O_RDWR | (c->place == DISK ? O_DIRECT : 0));
	if (target->fd < 0)
		return errno;
	if (fstat(target->fd, &st))
		return errno;
	target->len = st.st_size;
	return 0;
}

static bool way_fits(const struct test_case *c, const struct way *way)
{
	/* Less than 64 KiB never comes out of a region. */
	if (way == &way_registered || way == &way_first)
		return !c->write && c->place != DISK && c->block >= 64 * KIB;
	return true;
}

struct outcome {
	struct figure all[ROUNDS_MAX];
	struct figure figure;
	bool done;
	int err;
};

static void run_case(const struct test_case *c, const struct target *target,
		     const struct way *const *ways, struct outcome *outcomes)
{
	bool check;
	int r, i;

	for (i = 0; i < NR_WAYS; i++)
		if (outcomes[i].done && ways[i]->open(target))
			outcomes[i].done = false;
	/* The first round warms up. */
	for (r = -1; r < rounds; r++) {
		if (!r)
			measure_idle();
		for (i = 0; i < NR_WAYS; i++) {
			if (!outcomes[i].done || outcomes[i].err)
				continue;
			check = i > 0 && r == rounds - 1;
			outcomes[i].err = run_round(c, ways[i], target, check,
						    &outcomes[i].all[r < 0 ? 0 :
								     r]);
		}
	}
	for (i = 0; i < NR_WAYS; i++) {
		outcomes[i].figure = middle(outcomes[i].all, rounds);
		if (outcomes[i].done)
			ways[i]->close();
	}
}

static void print_json(FILE *json, const struct test_case *c,
		       const char *way, const struct outcome *outcome)
{
	static bool first = true;
	int r;

	fprintf(json, "%s{\"file\":\"%s\",\"verb\":\"%s\",\"order\":\"%s\","
		"\"block\":%zu,\"callers\":%d,\"way\":\"%s\",\"error\":%d,"
		"\"gb_per_s\":%.3f,\"us\":%.2f,\"cpu_s_per_gib\":%.4f,"
		"\"idle_cpu_s_per_s\":%.4f,\"rounds\":[", first ? "" : ",\n", place_names[c->place],
		c->write ? "write" : "read",
		c->random ? "random" : "sequential", c->block, c->nr_callers,
		way, outcome->err, outcome->figure.gb_per_s,
		outcome->figure.us, outcome->figure.cpu, idle);
	first = false;
	for (r = 0; r < rounds; r++)
		fprintf(json, "%s%.3f", r ? "," : "", outcome->all[r].gb_per_s);
	fprintf(json, "]}");
}

static void print_cell(const struct outcome *outcome, int what)
{
	const struct figure *f = &outcome->figure;
	double value = what == 0 ? f->gb_per_s : what == 1 ? f->us : f->cpu;

	if (!outcome->done)
		printf(" %8s", "-");
	else if (outcome->err)
		printf(" %8s", "FAILED");
	else
		printf(" %8.*f", what == 2 ? 3 : value < 100 ? 2 : 0, value);
}

static void print_row(const struct test_case *c,
		      const struct outcome *outcomes)
{
	int what, i;

	printf("%-6s %-5s %4s %6zuK x%d", place_names[c->place],
	       c->write ? "write" : "read", c->random ? "rand" : "",
	       c->block / KIB, c->nr_callers);
	for (what = 0; what < 3; what++) {
		printf(what ? "  |" : "");
		for (i = 0; i < NR_WAYS; i++)
			print_cell(&outcomes[i], what);
	}
	printf("\n");
	fflush(stdout);
}

static void print_names(void)
{
	static const char *const names[NR_WAYS] = { "limit", "plain", "cuFile",
		"first", "peerdma", "register" };
	int i;

	for (i = 0; i < NR_WAYS; i++)
		printf(" %8s", names[i]);
}

static void print_head(void)
{
	printf("%27s %-53s  | %-53s  | %s\n%-27s", "", "GB/s",
	       "us per request", "CPU seconds per GiB", "");
	print_names();
	printf("  |");
	print_names();
	printf("  |");
	print_names();
	printf("\n");
}

struct options {
	const char *file;
	const char *tmpfs;
	const char *json;
	const char *places;	/* NULL: all */
	const char *ways;	/* NULL: all */
};

static bool is_wanted(const char *list, const char *name)
{
	return !list || strstr(list, name);
}

static int run_cases(const struct options *options, FILE *json)
{
	const struct way host = { "limit", way_limit.open, host_move,
				  way_limit.close };
	const struct way *ways[NR_WAYS] = { &way_limit, &way_plain,
		&way_cufile, &way_first, &way_peerdma, &way_registered };
	struct target target;
	int i, err = 0;
	size_t n;

	for (n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		const struct test_case *c = &cases[n];
		struct outcome outcomes[NR_WAYS] = { 0 };

		if (!is_wanted(options->places, place_names[c->place]))
			continue;
		if (open_target(c, c->place == TMPFS ? options->tmpfs :
						       options->file, &target))
			continue;
		ways[0] = c->place == DISK || c->write ? &host : &way_limit;
		for (i = 0; i < NR_WAYS; i++)
			outcomes[i].done = way_fits(c, ways[i]) &&
				is_wanted(options->ways, ways[i]->name);
		run_case(c, &target, ways, outcomes);
		close(target.fd);
		print_row(c, outcomes);
		for (i = 0; i < NR_WAYS; i++) {
			if (outcomes[i].done)
				print_json(json, c, ways[i]->name,
					   &outcomes[i]);
			err |= outcomes[i].err;
		}
	}
	return err;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: gpu --file FILE --json FILE [--tmpfs FILE]\n"
		"           [--rounds N] [--milliseconds N]\n"
		"           [--places cached,tmpfs,disk]\n"
		"           [--ways limit,plain,cufile,first,peerdma,registered]\n");
	exit(2);
}

static void take_option(struct options *options, const char *name,
			const char *value)
{
	if (!strcmp(name, "--file"))
		options->file = value;
	else if (!strcmp(name, "--tmpfs"))
		options->tmpfs = value;
	else if (!strcmp(name, "--json"))
		options->json = value;
	else if (!strcmp(name, "--places"))
		options->places = value;
	else if (!strcmp(name, "--ways"))
		options->ways = value;
	else if (!strcmp(name, "--rounds"))
		rounds = atoi(value);
	else if (!strcmp(name, "--milliseconds"))
		seconds = atoi(value) * 1e-3;
	else
		usage();
}

int main(int argc, char **argv)
{
	struct options options = { .tmpfs = "" };
	FILE *json;
	int err, i;

	for (i = 1; i + 1 < argc; i += 2)
		take_option(&options, argv[i], argv[i + 1]);
	if (i < argc || !options.file || !options.json || rounds < 1 ||
	    rounds > ROUNDS_MAX || seconds <= 0)
		usage();
	json = fopen(options.json, "w");
	if (!json) {
		perror(options.json);
		return 1;
	}
	err = gpu_start();
	if (err) {
		fprintf(stderr, "gpu: no GPU to measure: %s\n",
			strerror(-err));
		fclose(json);
		return 1;
	}
	print_head();
	fprintf(json, "[\n");
	err = run_cases(&options, json);
	fprintf(json, "\n]\n");
	fclose(json);
	if (refusal[0])
		printf("cuFile: %s\n", refusal);
	return err ? 1 : 0;
}
