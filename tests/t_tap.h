/* SPDX-License-Identifier: MIT */
/*
 * TAP for programs that run in a guest: one line a check, and the values that
 * were wrong below it. A program is a table of cases; names on its command line
 * choose among them.
 */
#ifndef T_TAP_H
#define T_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_gpu.h"

struct t_case {
	const char *name;
	void (*run)(void);
};

static struct {
	const char *name;
	int run;
	int failed;
} t_tap;

/* Always true, for what a check that failed adds below its line. */
__attribute__((format(printf, 1, 2)))
static inline bool t_note(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("# ");
	vprintf(fmt, args);
	printf("\n");
	va_end(args);
	return true;
}

/* What tells one run of a program from another stands before all it says. */
static inline const char *t_label(void)
{
	const char *label = getenv("T_LABEL");

	return label ? label : "";
}

__attribute__((format(printf, 4, 5)))
static inline bool t_report(bool ok, const char *file, int line,
			    const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("%sok %d - %s%s: ", ok ? "" : "not ", ++t_tap.run, t_label(),
	       t_tap.name);
	vprintf(fmt, args);
	printf("\n");
	va_end(args);
	if (!ok) {
		t_tap.failed++;
		t_note("%s:%d", file, line);
	}
	return ok;
}

/* t_ok(condition, format, ...): the format says what should be so. */
#define t_ok(ok, ...)	t_report(ok, __FILE__, __LINE__, __VA_ARGS__)

#define t_is(got, want, ...) ({						\
	long long t_got = (got), t_want = (want);			\
									\
	t_ok(t_got == t_want, __VA_ARGS__) ||				\
		!t_note("got %lld (%#llx), wanted %lld (%#llx)",	\
			t_got, t_got, t_want, t_want);			\
})

/* 0, an errno's name, or a positive number as it is. */
static inline const char *t_errno_name(long long result)
{
	static char text[2][32];
	static int which;

	which ^= 1;
	if (result < 0 && result > -4096)
		return strerrorname_np(-result);
	snprintf(text[which], sizeof(text[which]), "%lld", result);
	return text[which];
}

/* As t_is(), for what is 0, bytes, or a negative errno. */
#define t_result(got, want, ...) ({					\
	long long t_got = (got), t_want = (want);			\
									\
	t_ok(t_got == t_want, __VA_ARGS__) ||				\
		!t_note("got %s, wanted %s", t_errno_name(t_got),	\
			t_errno_name(t_want));				\
})

static inline size_t t_first_difference(const void *a, const void *b,
					size_t len)
{
	const unsigned char *left = a, *right = b;
	size_t i;

	if (!memcmp(a, b, len))
		return len;
	for (i = 0; left[i] == right[i]; i++)
		;
	return i;
}

#define t_same(got, want, len, ...) ({					\
	const unsigned char *t_got = (const void *)(got);		\
	const unsigned char *t_want = (const void *)(want);		\
	size_t t_len = (len);						\
	size_t t_at = t_first_difference(t_got, t_want, t_len);		\
									\
	t_ok(t_at == t_len, __VA_ARGS__) ||				\
		!t_note("byte %zu of %zu: got %#x, wanted %#x", t_at,	\
			t_len, t_got[t_at], t_want[t_at]);		\
})

static inline void t_skip(const char *what, const char *why)
{
	printf("ok %d - %s%s: %s # SKIP %s\n", ++t_tap.run, t_label(),
	       t_tap.name, what, why);
}

/* What cannot be tested without: end the program, which is then a failure. */
#define t_need(ok, ...) do {						\
	if (!t_ok(ok, __VA_ARGS__)) {					\
		printf("Bail out! %s\n", t_tap.name);			\
		exit(1);						\
	}								\
} while (0)

/* Run @body in a child; its exit status, or 256 plus the signal. */
static inline int t_child(int (*body)(void *data), void *data)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(body(data));
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) :
				   256 + WTERMSIG(status);
}

static inline bool t_chosen(const char *name, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		if (!strcmp(name, argv[i]))
			return true;
	return argc <= 1;
}

/* The program's main(): @after runs after each case. */
static inline int t_run(const struct t_case *cases, size_t nr,
			void (*after)(void), int argc, char **argv)
{
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < nr; i++) {
		if (!t_chosen(cases[i].name, argc, argv))
			continue;
		t_tap.name = cases[i].name;
		cases[i].run();
		if (after)
			after();
	}
	printf("1..%d\n", t_tap.run);
	return t_tap.failed ? 1 : 0;
}

#define T_RUN(cases, after)						\
	t_run(cases, sizeof(cases) / sizeof((cases)[0]), after, argc, argv)

#endif /* T_TAP_H */
