/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the compiler calls.
 */
#ifndef COVER_H
#define COVER_H

void __sanitizer_cov_trace_pc(void);

#endif /* COVER_H */
