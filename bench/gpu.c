// SPDX-License-Identifier: MIT
/*
 * make bench-gpu: files into a real GPU's memory and back, without the kernel
 * module. Each way is a process of its own (gpu_worker.c); they take turns in one
 * run, and each figure is the median of the rounds. What was moved last is compared
 * with the file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu.h"

#define KIB		((size_t)1 << 10)
#define MIB		((size_t)1 << 20)
#define ROUNDS_MAX	15
#define NR_WAYS		7

/*
 * The disk first: what the library keeps of the files that it has read out of the page
 * cache it lets go some seconds later, which takes CPU time.
 */
static const struct test_case cases[] = {
	{ DISK, false, false, 4 * KIB, 1 },
	{ DISK, false, false, 1 * MIB, 1 },
	{ DISK, false, false, 16 * MIB, 1 },
	{ DISK, false, false, 16 * MIB, 4 },
	{ DISK, true, false, 1 * MIB, 1 },
	{ DISK, true, false, 16 * MIB, 1 },
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
	{ CACHED, true, false, 64 * KIB, 1 },
	{ CACHED, true, false, 1 * MIB, 1 },
	{ CACHED, true, false, 16 * MIB, 1 },
};

#define NR_CASES	(sizeof(cases) / sizeof(cases[0]))

static const char *const place_names[] = { "cached", "tmpfs", "disk" };

static const struct way *const ways[NR_WAYS] = {
	&way_limit, &way_plain, &way_cufile, &way_first, &way_peerdma,
	&way_stream, &way_registered,
};

static double seconds = 0.2;
static int rounds = 5;

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

static bool way_fits(const struct test_case *c, const struct way *way)
{
	/* Less than 64 KiB never comes out of a region. */
	if (way == &way_registered || way == &way_first)
		return !c->write && c->place != DISK && c->block >= 64 * KIB;
	/* More than that is waited for. */
	if (way == &way_stream)
		return !c->write && c->place != DISK && c->block < 64 * KIB;
	return true;
}

struct outcome {
	struct figure all[ROUNDS_MAX];
	struct figure figure;
	bool done;
	int err;
};

static void run_turns(struct order *order, const struct worker *workers,
		      struct outcome *outcomes)
{
	struct answer answer;
	int r, i;

	order->what = ORDER_ROUND;
	/* The first round warms up. */
	for (r = -1; r < rounds; r++) {
		for (i = 0; i < NR_WAYS; i++) {
			if (!outcomes[i].done || outcomes[i].err)
				continue;
			order->check = i > 0 && r == rounds - 1;
			answer = worker_ask(&workers[i], order);
			outcomes[i].err = answer.err;
			outcomes[i].all[r < 0 ? 0 : r] = answer.figure;
		}
	}
}

static void run_case(struct order *order, const struct worker *workers,
		     struct outcome *outcomes)
{
	struct answer answer;
	int i;

	order->what = ORDER_OPEN;
	for (i = 0; i < NR_WAYS; i++) {
		if (!outcomes[i].done)
			continue;
		answer = worker_ask(&workers[i], order);
		outcomes[i].done = !answer.err;
		if (answer.err && answer.refusal[0])
			memcpy(refusal, answer.refusal, sizeof(refusal));
	}
	run_turns(order, workers, outcomes);
	order->what = ORDER_CLOSE;
	for (i = 0; i < NR_WAYS; i++) {
		outcomes[i].figure = middle(outcomes[i].all, rounds);
		if (outcomes[i].done)
			worker_ask(&workers[i], order);
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
		"\"rounds\":[", first ? "" : ",\n", place_names[c->place],
		c->write ? "write" : "read",
		c->random ? "random" : "sequential", c->block, c->nr_callers,
		way, outcome->err, outcome->figure.gb_per_s,
		outcome->figure.us, outcome->figure.cpu);
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
		printf(" %7s", "-");
	else if (outcome->err)
		printf(" %7s", "FAILED");
	else
		printf(" %7.*f", what == 2 ? 3 : value < 100 ? 2 : 0, value);
}

static void print_row(const struct test_case *c,
		      const struct outcome *outcomes, int what)
{
	int i;

	printf("%-6s %-5s%6zuK x%d", place_names[c->place],
	       c->write ? "write" : c->random ? "rand" : "read",
	       c->block / KIB, c->nr_callers);
	for (i = 0; i < NR_WAYS; i++)
		print_cell(&outcomes[i], what);
	printf("\n");
	fflush(stdout);
}

static void print_head(int what)
{
	static const char *const names[NR_WAYS] = { "limit", "plain", "cuFile",
		"first", "peerdma", "stream", "region" };
	static const char *const whats[] = { "GB/s", "us per request",
		"CPU seconds per GiB" };
	int i;

	printf("%-22s", whats[what]);
	for (i = 0; i < NR_WAYS; i++)
		printf(" %7s", names[i]);
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

/* Return: 0, or the errno of a way. */
static int note_case(FILE *json, const struct test_case *c,
		     const struct outcome *outcomes)
{
	int i, err = 0;

	for (i = 0; i < NR_WAYS; i++) {
		if (outcomes[i].done)
			print_json(json, c, ways[i]->name, &outcomes[i]);
		err |= outcomes[i].err;
	}
	return err;
}

/* The first table as it comes, the others of the same cases behind it. */
static int run_cases(const struct options *options,
		     const struct worker *workers, FILE *json)
{
	static struct outcome outcomes[NR_CASES][NR_WAYS];
	bool ran[NR_CASES] = { false };
	int i, what, err = 0;
	size_t n;

	print_head(0);
	for (n = 0; n < NR_CASES; n++) {
		const struct test_case *c = &cases[n];
		struct order order = { .c = c, .seconds = seconds,
			.path = c->place == TMPFS ? options->tmpfs :
						    options->file };

		if (!is_wanted(options->places, place_names[c->place]) ||
		    access(order.path, R_OK | W_OK))
			continue;
		for (i = 0; i < NR_WAYS; i++)
			outcomes[n][i].done = way_fits(c, ways[i]) &&
				is_wanted(options->ways, ways[i]->name);
		run_case(&order, workers, outcomes[n]);
		print_row(c, outcomes[n], 0);
		err |= note_case(json, c, outcomes[n]);
		ran[n] = true;
	}
	for (what = 1; what < 3; what++) {
		printf("\n");
		print_head(what);
		for (n = 0; n < NR_CASES; n++)
			if (ran[n])
				print_row(&cases[n], outcomes[n], what);
	}
	return err;
}

/* Return: 0, or an errno of the worst. */
static int start_workers(struct worker *workers)
{
	int i, err = 0;

	for (i = 0; i < NR_WAYS; i++)
		worker_start(&workers[i], ways[i], workers, i);
	for (i = 0; i < NR_WAYS; i++)
		err = err ? err : worker_answer(&workers[i]).err;
	return err;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: gpu --file FILE --json FILE [--tmpfs FILE]\n"
		"           [--rounds N] [--milliseconds N]\n"
		"           [--places cached,tmpfs,disk]\n"
		"           [--ways limit,plain,cufile,first,peerdma,stream,\n"
		"           registered]\n");
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
	struct worker workers[NR_WAYS];
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
	err = start_workers(workers);
	if (err) {
		fprintf(stderr, "gpu: no GPU to measure: %s\n", strerror(err));
		fclose(json);
		return 1;
	}
	fprintf(json, "[\n");
	err = run_cases(&options, workers, json);
	fprintf(json, "\n]\n");
	fclose(json);
	for (i = 0; i < NR_WAYS; i++)
		worker_end(&workers[i]);
	if (refusal[0])
		printf("cuFile: %s\n", refusal);
	return err ? 1 : 0;
}
