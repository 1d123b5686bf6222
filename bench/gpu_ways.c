// SPDX-License-Identifier: MIT
/* The ways that bench-gpu compares. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "gpu.h"

#define STREAM_NON_BLOCKING	1

struct cuda cuda;
void *cuda_context;
unsigned long long gpu_memory;
struct caller callers[CALLERS_MAX];
char refusal[160];

static const struct {
	const char *name;
	size_t offset;
} calls[] = {
#define CALL(field, symbol) { symbol, offsetof(struct cuda, field) }
	CALL(cuInit, "cuInit"),
	CALL(cuDeviceGet, "cuDeviceGet"),
	CALL(cuDeviceGetName, "cuDeviceGetName"),
	CALL(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain"),
	CALL(cuCtxSetCurrent, "cuCtxSetCurrent"),
	CALL(cuMemAlloc, "cuMemAlloc_v2"),
	CALL(cuMemAllocHost, "cuMemAllocHost_v2"),
	CALL(cuMemcpyHtoD, "cuMemcpyHtoD_v2"),
	CALL(cuMemcpyDtoH, "cuMemcpyDtoH_v2"),
	CALL(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2"),
	CALL(cuStreamCreate, "cuStreamCreate"),
	CALL(cuStreamSynchronize, "cuStreamSynchronize"),
#undef CALL
};

static int load(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW), *symbol;
	size_t i;

	if (!library)
		return -ENOENT;
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		symbol = dlsym(library, calls[i].name);
		if (!symbol)
			return -ENOSYS;
		memcpy((char *)&cuda + calls[i].offset, &symbol,
		       sizeof(symbol));
	}
	return 0;
}

static int start_caller(struct caller *caller, size_t at)
{
	int result;

	caller->at = at;
	caller->addr = gpu_memory + at;
	caller->pageable = aligned_alloc(4096, WINDOW);
	if (!caller->pageable)
		return -ENOMEM;
	memset(caller->pageable, 1, WINDOW);
	result = cuda.cuMemAllocHost((void **)&caller->pinned, WINDOW);
	if (!result)
		result = cuda.cuStreamCreate(&caller->stream,
					     STREAM_NON_BLOCKING);
	return result ? -EIO : 0;
}

double gpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Of all threads, in seconds. */
double gpu_cpu_time(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return use.ru_utime.tv_sec + use.ru_stime.tv_sec +
	       (use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
}

/* Return: 0 or a negative errno. */
int gpu_start(void)
{
	int device, err, i;

	err = load();
	if (err)
		return err;
	if (cuda.cuInit(0) || cuda.cuDeviceGet(&device, 0) ||
	    cuda.cuDevicePrimaryCtxRetain(&cuda_context, device) ||
	    cuda.cuCtxSetCurrent(cuda_context) ||
	    cuda.cuMemAlloc(&gpu_memory, CALLERS_MAX * WINDOW))
		return -EIO;
	for (i = 0; !err && i < CALLERS_MAX; i++)
		err = start_caller(&callers[i], i * WINDOW);
	return err;
}

/* ---- the limit of reads: a copy out of memory that is pinned already ------- */

static int limit_open(const struct target *target)
{
	(void)target;
	return 0;
}

static ssize_t limit_move(struct caller *caller, const struct target *target,
			  size_t len, uint64_t file_offset, size_t at)
{
	int result;

	(void)target;
	(void)file_offset;
	result = cuda.cuMemcpyHtoDAsync(caller->addr + at, caller->pinned + at,
					len, caller->stream);
	if (!result)
		result = cuda.cuStreamSynchronize(caller->stream);
	return result ? -EIO : (ssize_t)len;
}

static void nothing_to_close(void)
{
}

const struct way way_limit = {
	"limit", limit_open, limit_move, nothing_to_close
};

/* ---- the limit at a disk, and of writes: what the file does alone ---------- */

static ssize_t host_move(struct caller *caller, const struct target *target,
			 size_t len, uint64_t file_offset, size_t at)
{
	ssize_t n;

	if (target->write)
		n = pwrite(target->fd, caller->pinned + at, len, file_offset);
	else
		n = pread(target->fd, caller->pinned + at, len, file_offset);
	return n < 0 ? -errno : n;
}

const struct way way_host = {
	"limit", limit_open, host_move, nothing_to_close
};

/* ---- what a program does by itself ---------------------------------------- */

static ssize_t plain_move(struct caller *caller, const struct target *target,
			  size_t len, uint64_t file_offset, size_t at)
{
	char *bytes = caller->pageable + at;
	ssize_t n;

	if (target->write) {
		if (cuda.cuMemcpyDtoH(bytes, caller->addr + at, len))
			return -EIO;
		n = pwrite(target->fd, bytes, len, file_offset);
		return n < 0 ? -errno : n;
	}
	n = pread(target->fd, bytes, len, file_offset);
	if (n < 0)
		return -errno;
	return cuda.cuMemcpyHtoD(caller->addr + at, bytes, n) ? -EIO : n;
}

const struct way way_plain = {
	"plain", limit_open, plain_move, nothing_to_close
};

/* ---- cuFile, by its ABI ----------------------------------------------------- */

#define CUFILE_HANDLE_FD	1

struct cufile_error {
	int error;
	int cuda;
};

struct cufile_description {
	int type;
	union {
		int fd;
		void *handle;
	} handle;
	const void *ops;
};

static struct {
	bool tried;
	bool usable;
	void *handle;
	struct cufile_error (*driver_open)(void);
	struct cufile_error (*handle_register)(void **handle,
					       struct cufile_description *desc);
	void (*handle_deregister)(void *handle);
	ssize_t (*read)(void *handle, void *base, size_t len, off_t offset,
			off_t base_offset);
	ssize_t (*write)(void *handle, const void *base, size_t len,
			 off_t offset, off_t base_offset);
} cufile;

static void *find(void *library, const char *name)
{
	void *symbol = dlsym(library, name);

	if (!symbol)
		cufile.usable = false;
	return symbol;
}

static void cufile_load(void)
{
	struct cufile_error status;
	const char *name;
	void *library;

	cufile.tried = true;
	setenv("CUFILE_FORCE_COMPAT_MODE", "true", 0);
	name = getenv("PEERDMA_BENCH_CUFILE");
	library = dlopen(name ? name : "libcufile.so.0", RTLD_NOW);
	if (!library) {
		snprintf(refusal, sizeof(refusal), "not installed");
		return;
	}
	cufile.usable = true;
	*(void **)&cufile.driver_open = find(library, "cuFileDriverOpen");
	*(void **)&cufile.handle_register =
		find(library, "cuFileHandleRegister");
	*(void **)&cufile.handle_deregister =
		find(library, "cuFileHandleDeregister");
	*(void **)&cufile.read = find(library, "cuFileRead");
	*(void **)&cufile.write = find(library, "cuFileWrite");
	if (!cufile.usable)
		return;
	status = cufile.driver_open();
	if (!status.error)
		return;
	cufile.usable = false;
	snprintf(refusal, sizeof(refusal), "cuFileDriverOpen: error %d",
		 status.error);
}

static int cufile_open(const struct target *target)
{
	struct cufile_description desc = { .type = CUFILE_HANDLE_FD };
	struct cufile_error status;

	if (!cufile.tried)
		cufile_load();
	if (!cufile.usable)
		return -ENOSYS;
	desc.handle.fd = target->fd;
	status = cufile.handle_register(&cufile.handle, &desc);
	if (!status.error)
		return 0;
	snprintf(refusal, sizeof(refusal),
		 "cuFileHandleRegister(%s): error %d", target->path,
		 status.error);
	return -EOPNOTSUPP;
}

static ssize_t cufile_move(struct caller *caller, const struct target *target,
			   size_t len, uint64_t file_offset, size_t at)
{
	void *base = (void *)(uintptr_t)caller->addr;

	if (target->write)
		return cufile.write(cufile.handle, base, len, file_offset, at);
	return cufile.read(cufile.handle, base, len, file_offset, at);
}

static void cufile_close(void)
{
	cufile.handle_deregister(cufile.handle);
}

const struct way way_cufile = {
	"cufile", cufile_open, cufile_move, cufile_close
};

/* ---- peerdma ----------------------------------------------------------------- */

/* A context for each way: what one keeps, or has registered, is not another's. */
enum { AGAIN, FIRST, REGISTERED, NR_CONTEXTS };

#define PASS_BLOCK	((size_t)16 << 20)
#define PASSES		6

static struct peerdma *ctx[NR_CONTEXTS];
static struct peerdma_buffer *buf[NR_CONTEXTS];
static struct peerdma_region *region;

static int open_buffer(int n)
{
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_open_opts, open_opts,
		.keep = n == AGAIN ? 0 : PEERDMA_KEEP_NONE);
	int err;

	if (buf[n])
		return 0;
	err = peerdma_open(&ctx[n], &open_opts);
	if (err)
		return err;
	return peerdma_buffer_pin(ctx[n], gpu_memory, CALLERS_MAX * WINDOW,
				  &opts, &buf[n]);
}

static ssize_t move_by(int n, struct caller *caller,
		       const struct target *target, size_t len,
		       uint64_t file_offset, size_t at)
{
	if (target->write)
		return peerdma_write(buf[n], target->fd, len, file_offset,
				     caller->at + at);
	return peerdma_read(buf[n], target->fd, len, file_offset,
			    caller->at + at);
}

/* Return: 1: all of it came out of what was pinned; 0; a negative errno. */
static int read_through(const struct target *target)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	uint64_t at;
	int pinned = 1;
	ssize_t n;

	for (at = 0; at < target->len; at += n) {
		n = peerdma_read_opts(buf[AGAIN], target->fd, PASS_BLOCK, at, 0,
				      NULL, &result);
		if (n <= 0)
			return n < 0 ? n : -EIO;
		if (result.bytes_registered != (uint64_t)n)
			pinned = 0;
	}
	return pinned;
}

/*
 * What is read again is pinned meanwhile; what it costs until then "first" tells. More
 * than may be pinned never is.
 */
static int peerdma_way_open(const struct target *target)
{
	int err, pass;

	err = open_buffer(AGAIN);
	for (pass = 0; target->cached && pass < PASSES && !err; pass++)
		err = read_through(target);
	return err < 0 ? err : 0;
}

static ssize_t peerdma_way_move(struct caller *caller,
				const struct target *target, size_t len,
				uint64_t file_offset, size_t at)
{
	return move_by(AGAIN, caller, target, len, file_offset, at);
}

const struct way way_peerdma = {
	"peerdma", peerdma_way_open, peerdma_way_move, nothing_to_close
};

/*
 * In CUDA's default stream, as plain: what is there when the call returns has been
 * put into the stream, and need not have arrived.
 */
static ssize_t stream_move(struct caller *caller, const struct target *target,
			   size_t len, uint64_t file_offset, size_t at)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .flags = PEERDMA_IO_STREAM);

	return peerdma_read_opts(buf[AGAIN], target->fd, len, file_offset,
				 caller->at + at, &opts, NULL);
}

const struct way way_stream = {
	"stream", peerdma_way_open, stream_move, nothing_to_close
};

static int first_open(const struct target *target)
{
	(void)target;
	return open_buffer(FIRST);
}

static ssize_t first_move(struct caller *caller, const struct target *target,
			  size_t len, uint64_t file_offset, size_t at)
{
	return move_by(FIRST, caller, target, len, file_offset, at);
}

const struct way way_first = {
	"first", first_open, first_move, nothing_to_close
};

static int registered_open(const struct target *target)
{
	int err;

	err = open_buffer(REGISTERED);
	if (err)
		return err;
	return peerdma_region_open(ctx[REGISTERED], target->fd, 0, target->len, NULL,
				   &region);
}

static ssize_t registered_move(struct caller *caller,
			       const struct target *target, size_t len,
			       uint64_t file_offset, size_t at)
{
	PEERDMA_SIZED(peerdma_io_result, result);
	ssize_t n;

	n = peerdma_read_opts(buf[REGISTERED], target->fd, len, file_offset,
			      caller->at + at, NULL, &result);
	/* Another way would be another figure. */
	if (n > 0 && result.bytes_registered != (uint64_t)n)
		return -ESTALE;
	return n;
}

static void registered_close(void)
{
	peerdma_region_close(region);
	region = NULL;
}

const struct way way_registered = {
	"registered", registered_open, registered_move, registered_close
};
