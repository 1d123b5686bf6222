/* SPDX-License-Identifier: GPL-2.0-only */
/* Reached only where the kernel has no such header (before 6.8). */
#include <linux/io_uring.h>
