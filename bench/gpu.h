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

enum place { CACHED, TMPFS, DISK };

struct test_case {
	enum place place;
	bool write;
	bool random;
	size_t block;
	int nr_callers;
};

struct figure {
	double gb_per_s;
	double us;		/* a request */
	double cpu;		/* seconds per GiB */
};

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
	bool cached;			/* it will be read, and lies in memory */
};

/* A way is opened for a target, used by several threads, and closed. */
struct way {
	const char *name;
	int (*open)(const struct target *target);
	ssize_t (*move)(struct caller *caller, const struct target *target,
			size_t len, uint64_t file_offset, size_t at);
	void (*close)(void);
};

/* A process that moves files one way. */
struct worker {
	pid_t pid;
	int channel;
};

enum order_kind { ORDER_OPEN, ORDER_ROUND, ORDER_CLOSE };

struct order {
	enum order_kind what;
	const struct test_case *c;
	const char *path;
	double seconds;
	bool check;			/* compare what was moved with the file */
};

struct answer {
	int err;			/* 0, or an errno */
	struct figure figure;
	char refusal[160];		/* why cuFile does not take the file */
};

extern struct cuda cuda;
extern void *cuda_context;
extern unsigned long long gpu_memory;
extern struct caller callers[CALLERS_MAX];
extern char refusal[160];

extern const struct way way_limit, way_host, way_plain, way_cufile, way_first,
	way_peerdma, way_stream, way_registered;

int gpu_start(void);
double gpu_now(void);
double gpu_cpu_time(void);

void worker_start(struct worker *worker, const struct way *way,
		  const struct worker *others, int nr_others);
struct answer worker_answer(const struct worker *worker);
struct answer worker_ask(const struct worker *worker,
			 const struct order *order);
void worker_end(const struct worker *worker);

#endif /* BENCH_GPU_H */
