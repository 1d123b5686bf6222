/* SPDX-License-Identifier: MIT */
/*
 * What a measurement reads before and after.
 */
#ifndef T_CLOCK_H
#define T_CLOCK_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static inline double t_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* All CPU time of the machine that was not idle: interrupts and workers too. */
static inline double t_cpu_busy(void)
{
	unsigned long long v[8] = { 0 };
	FILE *stat = fopen("/proc/stat", "r");
	double busy = 0;
	int i;

	if (!stat || fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu",
			    &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
			    &v[7]) != 8) {
		fprintf(stderr, "\nt_clock: /proc/stat cannot be read\n");
		exit(1);
	}
	fclose(stat);
	for (i = 0; i < 8; i++)
		if (i != 3 && i != 4)
			busy += v[i];
	return busy / sysconf(_SC_CLK_TCK);
}

#endif /* T_CLOCK_H */
