/* SPDX-License-Identifier: MIT */
/*
 * Touching memory that may not be there.
 */
#ifndef T_TOUCH_H
#define T_TOUCH_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

static sigjmp_buf t_fault;

static inline void t_on_fault(int signal)
{
	siglongjmp(t_fault, signal);
}

/* The signal that reading @at, or writing it back too, raises, or 0. */
static inline int t_touch(volatile unsigned char *at, bool write)
{
	struct sigaction action = { .sa_handler = t_on_fault }, segv, bus;
	int got;

	sigaction(SIGSEGV, &action, &segv);
	sigaction(SIGBUS, &action, &bus);
	got = sigsetjmp(t_fault, 1);
	if (!got) {
		if (write)
			*at = *at;
		else
			(void)*at;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return got;
}

/* As a debugger reads or writes @at: 0 or a negative errno. */
static inline int t_debug(unsigned char *at, bool write)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC), ret;
	unsigned char byte = 1;

	ret = write ? pwrite(mem, &byte, 1, (uintptr_t)at) :
		      pread(mem, &byte, 1, (uintptr_t)at);
	ret = ret == 1 ? 0 : -errno;
	close(mem);
	return ret;
}

#endif /* T_TOUCH_H */
