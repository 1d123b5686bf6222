/* SPDX-License-Identifier: MIT */
/* What the ways of bench-gpu share: a GPU, a file, and callers that move it. */
#ifndef BENCH_GPU_H
#define BENCH_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <peerdma.h>

#define CALLERS_MAX	4
/* Each caller's part of GPU memory, and of pinned and pageable host memory. */
#define WINDOW		((size_t)64 << 20)

/* The driver API, as far as it is used here, by NVIDIA's names. */
struct cuda {
	int (*cuInit)(unsigned int flags);
	int (*cuDeviceGet)(int *device, int ordinal);
	int (*cuDeviceGetName)(char *name, int len, int device);
	int (*cuDevicePrimaryCtxRetain)(void **out, int device);
	int (*cuCtxSetCurrent)(void *context);
	int (*cuMemAlloc)(unsigned long long *out, size_t len);
	int (*cuMemAllocHost)(void **out, size_t len);
	int (*cuMemcpyHtoD)(unsigned long long dst, const void *src,
			    size_t len);
	int (*cuMemcpyDtoH)(void *dst, unsigned long long src, size_t len);
	int (*cuMemcpyHtoDAsync)(unsigned long long dst, const void *src,
				 size_t len, void *stream);
	int (*cuStreamCreate)(void **out, unsigned int flags);
	int (*cuStreamSynchronize)(void *stream);
};

/* What one thread moves with. */
struct caller {
	unsigned long long addr;	/* its window on the GPU */
	size_t at;			/* of the window in all callers' memory */
	char *pinned;
	char *pageable;
	void *stream;
};

/* A file as a case opens it. */
struct target {
	const char *path;
	int fd;
	uint64_t len;
	bool write;
	bool memory;			/* it lives in memory alone (tmpfs) */
};

/* A way is opened for a target, used by several threads, and closed. */
struct way {
	const char *name;
	int (*open)(const struct target *target);
	ssize_t (*move)(struct caller *caller, const struct target *target,
			size_t len, uint64_t file_offset, size_t at);
	void (*close)(void);
};

extern struct cuda cuda;
extern void *cuda_context;
extern unsigned long long gpu_memory;
extern struct caller callers[CALLERS_MAX];
extern char refusal[160];

extern const struct way way_limit, way_plain, way_cufile, way_first,
	way_peerdma, way_registered;

int gpu_start(void);
double gpu_now(void);
double gpu_cpu_time(void);

#endif /* BENCH_GPU_H */
