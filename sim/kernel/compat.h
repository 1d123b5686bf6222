/* SPDX-License-Identifier: GPL-2.0-only */
/* Differences between kernels and between NVIDIA's headers; nowhere else. */
#ifndef SIMGPU_COMPAT_H
#define SIMGPU_COMPAT_H

#include <linux/slab.h>
#include <linux/types.h>

#include "nv-p2p.h"

/* kzalloc_obj: since 7.0; drop with 7.0 */
#ifndef kzalloc_obj
#define kzalloc_obj(object, gfp)	kzalloc(sizeof(object), gfp)
#endif

/* nv-p2p.h: since driver 570; drop when no older header is in use */
#ifndef NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING
#define NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING	1
#endif

#endif
