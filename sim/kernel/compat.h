/* SPDX-License-Identifier: GPL-2.0-only */
/* Differences between kernels and between NVIDIA's headers; nowhere else. */
#ifndef SIMGPU_COMPAT_H
#define SIMGPU_COMPAT_H

#include <linux/module.h>
#include <linux/slab.h>
#include <linux/types.h>
#include <linux/version.h>

#include "nv-p2p.h"

/* kzalloc_obj: since 7.0; drop with 7.0 */
#ifndef kzalloc_obj
#define kzalloc_obj(object, gfp)	kzalloc(sizeof(object), gfp)
#endif

/* Namespaces are strings: since 6.13, cdd30ebb1b9f; drop with 6.13 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define SIMGPU_DMA_BUF_NS	DMA_BUF
#else
#define SIMGPU_DMA_BUF_NS	"DMA_BUF"
#endif

/* nv-p2p.h: since driver 570; drop when no older header is in use */
#ifndef NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING
#define NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING	1
#endif

#endif
