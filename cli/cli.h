/* SPDX-License-Identifier: MIT */
/* What the verbs of the command peerdma share. */
#ifndef PEERDMA_CLI_H
#define PEERDMA_CLI_H

#include <peerdma.h>

/* Exit statuses; a signal's are 128 and its number. */
enum {
	STATUS_YES = 0,		/* done; or: all that was asked for is so */
	STATUS_NO = 1,		/* compared unequal; or: not all of it is so */
	STATUS_ERROR = 2,
};

int copy_run(int argc, char **argv);
int check_run(int argc, char **argv);
int info_run(int argc, char **argv);

void complain(const char *what, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
const char *cause_of(int err);
int gpu_of(const char *operand);

#endif /* PEERDMA_CLI_H */
