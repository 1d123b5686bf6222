/* SPDX-License-Identifier: MIT */
/* What the fake CUDA's memory and its streams have of each other. */
#ifndef FAKE_STREAM_H
#define FAKE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201,
       NOT_READY = 600, ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801,
       CAPTURE_UNSUPPORTED = 900, CAPTURE_IMPLICIT = 906 };

/* Is a thread recording a graph, and this call one that gets in its way? */
bool fake_cuda_breaks_capture(void);
bool fake_cuda_has_context(void);
/*
 * @now: the source is read before this returns, else when its turn comes.
 * Return: false: it is not the program's stream, nothing was done.
 */
bool fake_stream_copy(void *stream, unsigned char *dst, const void *src,
		      size_t len, bool now);

#endif /* FAKE_STREAM_H */
