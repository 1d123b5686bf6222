// SPDX-License-Identifier: MIT
/* A bar on standard error, for a person who waits at a terminal. */
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "progress.h"

#define COLUMNS_MIN	20
#define COLUMNS_MAX	80
#define PERIOD		0.1
#define BAR_MIN		10

/**
 * now() - seconds on a clock that only goes forward
 *
 * Return: seconds since some point in the past.
 */
double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void format_eta(char *text, size_t len, double seconds)
{
	unsigned int s;

	if (!(seconds < 360000)) {
		snprintf(text, len, "--:--");
		return;
	}
	s = seconds + 0.5;
	if (s >= 3600)
		snprintf(text, len, "%u:%02u:%02u", s / 3600, s / 60 % 60,
			 s % 60);
	else
		snprintf(text, len, "%02u:%02u", s / 60, s % 60);
}

/**
 * progress_line() - what stands on the screen
 * @line: at least @columns + 1 bytes
 * @columns: at most so long
 * @label: what goes on
 * @done: bytes moved
 * @total: bytes to move
 * @seconds: since the start
 *
 * Return: length of the line.
 */
int progress_line(char *line, unsigned int columns, const char *label,
		  uint64_t done, uint64_t total, double seconds)
{
	double share = total ? (double)done / total : 1;
	double rate = seconds > 0 ? done / seconds : 0;
	char head[64], bar[COLUMNS_MAX + 1], tail[64], eta[24];
	int room, full;

	format_eta(eta, sizeof(eta), rate > 0 ? (total - done) / rate : 1e9);
	snprintf(head, sizeof(head), "%-5.16s %3d%%", label, (int)(share * 100));
	snprintf(tail, sizeof(tail), " %.1f MB/s  ETA %s", rate / 1e6, eta);
	room = (int)columns - (int)strlen(head) - (int)strlen(tail) - 3;
	bar[0] = '\0';
	if (room >= BAR_MIN) {
		full = share * room;
		memset(bar, '=', full);
		memset(bar + full, ' ', room - full);
		bar[room] = '\0';
	}
	return snprintf(line, columns + 1, bar[0] ? "%s [%s]%s" : "%s%s%s",
			head, bar, tail);
}

static unsigned int terminal_columns(void)
{
	struct libscols_table *table = scols_new_table();
	unsigned int columns = COLUMNS_MAX;

	if (table && scols_table_get_termwidth(table) < COLUMNS_MAX)
		columns = scols_table_get_termwidth(table);
	scols_unref_table(table);
	return columns > COLUMNS_MIN ? columns : COLUMNS_MIN;
}

/**
 * progress_start() - begin to show progress, if anybody looks
 * @progress: the bar
 * @label: what goes on
 */
void progress_start(struct progress *progress, const char *label)
{
	progress->label = label;
	progress->shown = isatty(STDERR_FILENO);
	/* A terminal wraps when its last column is written. */
	progress->columns = terminal_columns() - 1;
	progress->start = now();
	progress->last = 0;
}

/**
 * progress_update() - show how far it got, now and then
 * @progress: the bar
 * @done: bytes moved
 * @total: bytes to move
 */
void progress_update(struct progress *progress, uint64_t done, uint64_t total)
{
	char line[COLUMNS_MAX + 1];
	double time = now();

	if (!progress->shown || time - progress->last < PERIOD)
		return;
	progress->last = time;
	progress_line(line, progress->columns, progress->label, done, total,
		      time - progress->start);
	fprintf(stderr, "\r%-*s", (int)progress->columns, line);
	fflush(stderr);
}

/**
 * progress_end() - leave a clean line
 * @progress: the bar
 */
void progress_end(struct progress *progress)
{
	if (progress->shown && progress->last)
		fprintf(stderr, "\r%*s\r", (int)progress->columns, "");
}
