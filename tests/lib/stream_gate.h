/* SPDX-License-Identifier: MIT */
/* A gate in the program's stream: what is behind it comes when it opens. */
#ifndef STREAM_GATE_H
#define STREAM_GATE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake_cuda.h"

static atomic_int gate;		/* 2: the stream is held in it; 0: open */

static inline void wait_at_gate(void *arg)
{
	(void)arg;
	atomic_store(&gate, 2);
	while (atomic_load(&gate))
		usleep(100);
}

static inline void launch(void (*fn)(void *arg), void *arg)
{
	assert_int_equal(cuLaunchHostFunc(fake_cuda_stream(), fn, arg), 0);
}

static inline void hold_stream(void)
{
	launch(wait_at_gate, NULL);
	while (atomic_load(&gate) != 2)
		usleep(100);
}

/* What it still does is done, and touches nothing that goes or begins after. */
static inline void drain_stream(void)
{
	atomic_store(&gate, 0);
	assert_int_equal(cuStreamSynchronize(fake_cuda_stream()), 0);
}

static inline void *open_gate_later(void *arg)
{
	(void)arg;
	usleep(20000);
	atomic_store(&gate, 0);
	return NULL;
}

#endif /* STREAM_GATE_H */
