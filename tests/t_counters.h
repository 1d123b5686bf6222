/* SPDX-License-Identifier: MIT */
/*
 * What the kernel modules say that they hold.
 */
#ifndef T_COUNTERS_H
#define T_COUNTERS_H

#include <fcntl.h>
#include <glob.h>
#include <time.h>

#include "t_tap.h"

#define T_COUNTERS	"/sys/kernel/debug/peerdma/counters"

/* How long a release that the kernel puts off may take until it is a leak. */
#define T_PATIENCE_MS	20000

/* A counter of peerdma.ko, -1 when it cannot be read. */
static inline long long t_counter(const char *name)
{
	FILE *file = fopen(T_COUNTERS, "r");
	long long value, found = -1;
	char word[32];

	if (!file)
		return -1;
	while (fscanf(file, "%31s %lld", word, &value) == 2)
		if (!strcmp(word, name))
			found = value;
	fclose(file);
	return found;
}

/* A counter of simgpu.ko, over all GPUs; 0 when it is not even loaded. */
static inline long long t_gpu_counter(const char *name)
{
	long long value, sum = 0;
	char pattern[128];
	glob_t found;
	size_t i;

	if (access("/sys/module/simgpu", F_OK))
		return 0;
	snprintf(pattern, sizeof(pattern), "/sys/kernel/debug/simgpu/*:*/%s",
		 name);
	if (glob(pattern, 0, NULL, &found))
		return -1;
	for (i = 0; i < found.gl_pathc; i++) {
		FILE *file = fopen(found.gl_pathv[i], "r");

		if (!file || fscanf(file, "%lld", &value) != 1)
			sum = -1;
		else
			sum += value;
		if (file)
			fclose(file);
	}
	globfree(&found);
	return sum;
}

static inline void t_sleep_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/* Wait so many milliseconds or more for a condition; false: it did not come true. */
#define t_wait_ms_for(ms, condition) ({					\
	int t_waited = 0;						\
									\
	while (!(condition) && t_waited++ < (ms) / 10)			\
		t_sleep_ms(10);						\
	t_waited <= (ms) / 10;						\
})
#define t_wait_for(condition)	t_wait_ms_for(T_PATIENCE_MS, condition)
/* For what takes seconds where nothing is slow. */
#define t_wait_long_for(condition)					\
	t_wait_ms_for(6 * T_PATIENCE_MS, condition)

/* Descriptors that this process has. */
static inline int t_open_descriptors(void)
{
	int fd, nr = 0;

	for (fd = 0; fd < 1024; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

/* What of the modules' is in use, in one number: 0 when nothing is. */
static inline long long t_in_use(void)
{
	return t_counter("buffers") | t_counter("pinned_bytes") |
	       t_counter("cpu_maps") | t_counter("device_maps") |
	       t_counter("importers") | t_counter("file_ios") |
	       t_counter("imports") |
	       t_counter("page_maps") | t_counter("held_page_maps") |
	       t_gpu_counter("pinned") | t_gpu_counter("page_tables") |
	       t_gpu_counter("dma_mappings");
}

/* To be run after each case: whatever it did, nothing stays. */
static inline void t_nothing_left(void)
{
	if (t_ok(t_wait_for(!t_in_use()), "nothing is left behind"))
		return;
	t_note("buffers %lld, pinned_bytes %lld, cpu_maps %lld, file_ios %lld",
	       t_counter("buffers"), t_counter("pinned_bytes"),
	       t_counter("cpu_maps"), t_counter("file_ios"));
	t_note("importers %lld, imports %lld, device_maps %lld",
	       t_counter("importers"), t_counter("imports"),
	       t_counter("device_maps"));
	t_note("page_maps %lld, held_page_maps %lld", t_counter("page_maps"),
	       t_counter("held_page_maps"));
	t_note("simgpu: pinned %lld, page_tables %lld, dma_mappings %lld",
	       t_gpu_counter("pinned"), t_gpu_counter("page_tables"),
	       t_gpu_counter("dma_mappings"));
}

#endif /* T_COUNTERS_H */
