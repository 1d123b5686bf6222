/* SPDX-License-Identifier: MIT */
#ifndef PEERDMA_CLI_PROGRESS_H
#define PEERDMA_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *label;
	bool shown;		/* a terminal is there to see it */
	unsigned int columns;
	double start;
	double last;		/* when it was drawn */
};

double now(void);
void progress_start(struct progress *progress, const char *label);
void progress_update(struct progress *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

int progress_line(char *line, unsigned int columns, const char *label,
		  uint64_t done, uint64_t total, double seconds);

#endif /* PEERDMA_CLI_PROGRESS_H */
