/* SPDX-License-Identifier: MIT */
/* TAP for the simulator's own tests: a failed check is told and counted. */
#ifndef SIM_TAP_H
#define SIM_TAP_H

#include <stdbool.h>
#include <stdio.h>

static int tap_count;
static int tap_failed;

#define ok(condition, text)						\
	do {								\
		bool good_ = (condition);				\
		printf("%sok %d - %s\n", good_ ? "" : "not ",		\
		       ++tap_count, text);				\
		if (!good_)						\
			printf("# %s:%d: %s\n", __FILE__, __LINE__,	\
			       #condition);				\
		tap_failed += !good_;					\
		fflush(stdout);						\
	} while (0)

/* Equal, or both values in the report. */
#define is(got, want, text)						\
	do {								\
		long long got_ = (long long)(got);			\
		long long want_ = (long long)(want);			\
		ok(got_ == want_, text);				\
		if (got_ != want_)					\
			printf("# got %lld, want %lld\n", got_, want_);	\
	} while (0)

static inline int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif
