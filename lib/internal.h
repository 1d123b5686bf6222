/* SPDX-License-Identifier: MIT */
/*
 * What the files of libpeerdma share. Nothing here is exported: the symbol map
 * ends in "local: *".
 *
 * Lock order: no two locks of the library are held together, but for three cases: a
 * queue's own lock is taken before the pool's and before a context's streams_lock,
 * and that of its events before its own.
 */
#ifndef PEERDMA_INTERNAL_H
#define PEERDMA_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../include/uapi/peerdma.h"
#include "peerdma.h"

/* ---- cuda.c: the driver API, found at run time --------------------------- */

typedef void *peerdma_cuda_context;
typedef void *peerdma_cuda_stream;
typedef void *peerdma_cuda_event;

/* Two of its results that are no plain failure. */
#define PEERDMA_CUDA_NO_MEMORY	2
#define PEERDMA_CUDA_NOT_READY	600

/* CUmemcpyAttributes: where the ends of copies are, 0: let the driver look. */
struct peerdma_cuda_copy_hint {
	int order;
	int src_type, src_id;
	int dst_type, dst_id;
	unsigned int flags;
};

/* In the order of the stream, as cuMemcpyHtoDAsync() does. */
#define PEERDMA_COPY_ORDER_STREAM	1
/* Before the call returns. */
#define PEERDMA_COPY_ORDER_CALL		2

/* The calls in use, by NVIDIA's names and with NVIDIA's prototypes. */
struct peerdma_cuda {
	void *library;
	int reason;		/* 0, NO_CUDA or NO_GPU */
	int nr_gpus;
	int (*cuInit)(unsigned int flags);
	int (*cuDeviceGetCount)(int *count);
	int (*cuDeviceGet)(int *device, int ordinal);
	int (*cuDeviceGetName)(char *name, int len, int device);
	int (*cuDeviceGetAttribute)(int *value, int attribute, int device);
	int (*cuDevicePrimaryCtxRetain)(peerdma_cuda_context *out, int device);
	int (*cuDevicePrimaryCtxRelease)(int device);
	int (*cuCtxPushCurrent)(peerdma_cuda_context context);
	int (*cuCtxPopCurrent)(peerdma_cuda_context *out);
	int (*cuMemAlloc)(unsigned long long *out, size_t len);
	int (*cuMemFree)(unsigned long long addr);
	/* NULL: not in this driver. */
	int (*cuMemGetAddressRange)(unsigned long long *base, size_t *size,
				    unsigned long long addr);
	int (*cuMemGetHandleForAddressRange)(void *handle,
					     unsigned long long addr,
					     size_t len, int type,
					     unsigned long long flags);
	int (*cuMemAllocHost)(void **out, size_t len);
	int (*cuMemFreeHost)(void *addr);
	int (*cuMemcpyHtoDAsync)(unsigned long long dst, const void *src,
				 size_t len, peerdma_cuda_stream stream);
	/* NULL: not in this driver. */
	int (*cuMemsetD8Async)(unsigned long long dst, unsigned char value,
			       size_t len, peerdma_cuda_stream stream);
	int (*cuMemcpyDtoHAsync)(void *dst, unsigned long long src, size_t len,
				 peerdma_cuda_stream stream);
	int (*cuStreamCreate)(peerdma_cuda_stream *out, unsigned int flags);
	int (*cuStreamDestroy)(peerdma_cuda_stream stream);
	/* NULL: not in this driver. */
	int (*cuStreamWriteValue32)(peerdma_cuda_stream stream,
				    unsigned long long addr, uint32_t value,
				    unsigned int flags);
	int (*cuStreamSynchronize)(peerdma_cuda_stream stream);
	int (*cuEventCreate)(peerdma_cuda_event *out, unsigned int flags);
	int (*cuEventDestroy)(peerdma_cuda_event event);
	int (*cuEventRecord)(peerdma_cuda_event event,
			     peerdma_cuda_stream stream);
	int (*cuEventQuery)(peerdma_cuda_event event);
	int (*cuEventSynchronize)(peerdma_cuda_event event);
	int (*cuMemHostRegister)(void *addr, size_t len, unsigned int flags);
	int (*cuMemHostUnregister)(void *addr);
	int (*cuPointerGetAttribute)(void *value, int attribute,
				     unsigned long long addr);
	int (*cuPointerSetAttribute)(const void *value, int attribute,
				     unsigned long long addr);
	/* Since CUDA 10, and since 12; NULL before. */
	int (*cuLaunchHostFunc)(peerdma_cuda_stream stream,
				void (*fn)(void *data), void *data);
	int (*cuStreamWaitValue32)(peerdma_cuda_stream stream,
				   unsigned long long addr, uint32_t value,
				   unsigned int flags);
	/* Since CUDA 12.8; NULL before. */
	int (*cuMemcpyBatchAsync)(unsigned long long *dsts,
				  unsigned long long *srcs, size_t *lens,
				  size_t nr, struct peerdma_cuda_copy_hint *hints,
				  size_t *hint_starts, size_t nr_hints,
				  size_t *out_failed,
				  peerdma_cuda_stream stream);
	/* Since CUDA 10.1; NULL before. */
	int (*cuThreadExchangeStreamCaptureMode)(int *mode);
	/* Since CUDA 10; NULL before. */
	int (*cuStreamIsCapturing)(peerdma_cuda_stream stream, int *out_status);
	/* Since CUDA 11.3; NULL before. */
	int (*cuFlushGPUDirectRDMAWrites)(int target, int scope);
};

/* A CUDA pointer as its driver knows it. */
struct peerdma_cuda_pointer {
	peerdma_cuda_context context;	/* NULL: of no context (VMM) */
	int ordinal;			/* -1: not known */
	bool flush;	/* a kernel sees peers' writes only after a flush */
};

void peerdma_cuda_load(struct peerdma_cuda *cuda);
int peerdma_cuda_errno(int result);
int peerdma_cuda_gpu_device(const struct peerdma_cuda *cuda, int ordinal,
			    uint32_t *out_device);
bool peerdma_cuda_pointer(const struct peerdma_cuda *cuda, uint64_t addr,
			  struct peerdma_cuda_pointer *out);
int peerdma_cuda_export(const struct peerdma_cuda *cuda,
			peerdma_cuda_context context, uint64_t addr,
			uint64_t len);
bool peerdma_cuda_range(const struct peerdma_cuda *cuda,
			peerdma_cuda_context context, uint64_t addr,
			uint64_t len);
void peerdma_cuda_sync_memops(const struct peerdma_cuda *cuda, uint64_t addr);
int peerdma_cuda_flush(const struct peerdma_cuda *cuda,
		       peerdma_cuda_context context);
int peerdma_cuda_enter(const struct peerdma_cuda *cuda,
		       peerdma_cuda_context context, int *out_mode);
void peerdma_cuda_leave(const struct peerdma_cuda *cuda, int mode);
int peerdma_cuda_retain(const struct peerdma_cuda *cuda, int ordinal,
			peerdma_cuda_context *out);
void peerdma_cuda_release(const struct peerdma_cuda *cuda, int ordinal);

/* ---- context.c ----------------------------------------------------------- */

struct peerdma_bounce;
struct peerdma_drive;
struct peerdma_keep;
struct peerdma_lane;
struct peerdma_pool;
struct peerdma_slot;

/* For struct peerdma_stats. */
struct peerdma_counters {
	struct peerdma_path_counters {
		_Atomic uint64_t requests;	/* that took it, wholly or not */
		_Atomic uint64_t read;		/* bytes */
		_Atomic uint64_t written;
	} direct, staged, cached, registered, zeroed;
	_Atomic uint64_t errors;
};

/*
 * One reference is the caller's, one more is each buffer's: the order in which
 * a context and its buffers are closed does not matter.
 */
struct peerdma {
	atomic_uint refs;
	pid_t pid;			/* that opened it; a child has less */
	int device_fd;			/* or a negative errno */
	int reason;			/* why device_fd is none */
	struct peerdma_info info;
	struct peerdma_cuda cuda;
	int gpu;
	pthread_mutex_t lock;		/* guards what follows */
	peerdma_cuda_context *contexts;	/* of each GPU, once it was needed */
	struct peerdma_bounce *bounces;	/* idle ones */
	unsigned int nr_bounces[2];	/* in all: pageable, pinned */
	pthread_cond_t bounce_idle;
	struct peerdma_lane *lanes;	/* idle ones */
	struct peerdma_slot *slots;	/* of each CUDA context that needed one */
	struct peerdma_drive *drives;	/* idle ones */
	_Atomic(struct peerdma_region *) regions; /* read without it, too */
	pthread_cond_t region_idle;
	int pagemap_fd;			/* this process's, or below 0 */
	pthread_mutex_t streams_lock;	/* guards what follows */
	pthread_cond_t streams_idle;
	unsigned int nr_streams;	/* requests that streams wait for */
	/* Not guarded. */
	uint64_t keep_limit;		/* as the program set it */
	_Atomic(struct peerdma_keep *) keep;
	struct peerdma_pool *pool;
	atomic_uint busy_lanes;		/* in the hands of calls */
	atomic_bool no_drives;		/* io_uring is forbidden */
	_Atomic uint64_t link_rate;	/* best seen, in bytes per microsecond */
	struct peerdma_counters counters;
};

struct peerdma *peerdma_context_get(struct peerdma *ctx);
void peerdma_context_put(struct peerdma *ctx);
int peerdma_context_cuda(struct peerdma *ctx, peerdma_cuda_context *out);
int peerdma_context_cuda_of(struct peerdma *ctx, int gpu,
			    peerdma_cuda_context *out);
void peerdma_streams_begin(struct peerdma *ctx);
void peerdma_streams_end(struct peerdma *ctx);
void peerdma_streams_hold(struct peerdma *ctx);
void peerdma_streams_unhold(struct peerdma *ctx);

/* ---- bounce.c: host memory to stage through ------------------------------ */

#define PEERDMA_BOUNCE_LEN	((size_t)4 << 20)
/* As many as one call uses at most. */
#define PEERDMA_BOUNCES		8

struct peerdma_bounce {
	struct peerdma_bounce *next;	/* in peerdma.bounces */
	void *addr;			/* page-aligned */
	bool wanted_cuda;
	bool cuda;			/* pinned by CUDA, a fast source of DMA */
};

struct peerdma_bounce *peerdma_bounce_get(struct peerdma *ctx, bool cuda,
					  bool wait);
void peerdma_bounce_put(struct peerdma *ctx, struct peerdma_bounce *bounce);
void peerdma_bounce_warm(struct peerdma *ctx);
void peerdma_bounce_drain(struct peerdma *ctx);

/* ---- drive.c: bounces and a drive, by io_uring ----------------------------- */

/* Requests in flight at most. */
#define PEERDMA_DRIVE_DEPTH	8

struct peerdma_drive_io {
	const struct peerdma_bounce *bounce; /* or NULL */
	void *addr;			/* within it, whole blocks */
	size_t len;
	int fd;				/* with O_DIRECT */
	uint64_t offset;
	uint64_t tag;			/* the caller's name for it */
	bool write;
};

bool peerdma_drive_one(struct peerdma *ctx, const struct peerdma_drive_io *io,
		       int32_t *out_result);
struct peerdma_drive *peerdma_drive_get(struct peerdma *ctx);
void peerdma_drive_put(struct peerdma *ctx, struct peerdma_drive *drive);
void peerdma_drive_drain(struct peerdma *ctx);
bool peerdma_drive_works(const struct peerdma_drive *drive);
void peerdma_drive_add(struct peerdma_drive *drive,
		       const struct peerdma_drive_io *io);
bool peerdma_drive_submit(struct peerdma_drive *drive);
bool peerdma_drive_refused(struct peerdma_drive *drive, uint64_t *out_tag);
bool peerdma_drive_next(struct peerdma_drive *drive, bool wait,
			uint64_t *out_tag, int32_t *out_result);
void peerdma_drive_doze(const struct peerdma_drive *drive, uint64_t len);

/* ---- spin.c: waiting awake ------------------------------------------------ */

struct peerdma_spin {
	unsigned int looks;
	uint64_t ns;
	uint64_t end;			/* 0: the clock was not looked at yet */
};

uint64_t peerdma_nanoseconds(void);
void peerdma_spin_start(struct peerdma_spin *spin, uint64_t ns);
bool peerdma_spin_on(struct peerdma_spin *spin);
void peerdma_spin_pause(unsigned int times);
void peerdma_spin_mutex(pthread_mutex_t *lock);

/* ---- pool.c: threads ------------------------------------------------------ */

/* Guarded by the pool's lock but for @run and @awake, which are constant. */
struct peerdma_job {
	void (*run)(struct peerdma_job *job);
	struct peerdma_job *next;	/* in the pool */
	bool awake;			/* the next one may come at once */
	unsigned int wanted;		/* helpers at most */
	unsigned int running;		/* helpers at present */
};

/* With fewer a CPU is better left to others than kept awake, or copying twice. */
#define PEERDMA_CPUS_MANY	4

int peerdma_pool_create(struct peerdma *ctx);
void peerdma_pool_destroy(struct peerdma *ctx);
unsigned int peerdma_pool_cpus(const struct peerdma *ctx);
bool peerdma_pool_post(struct peerdma *ctx, struct peerdma_job *job,
		       unsigned int wanted);
void peerdma_pool_retract(struct peerdma *ctx, struct peerdma_job *job);

/* ---- lane.c: a stream and its marks --------------------------------------- */

#define PEERDMA_LANE_EVENTS	16
#define PEERDMA_STREAM_NON_BLOCKING	1
#define PEERDMA_EVENT_DISABLE_TIMING	2
/* Up to that much goes in one piece, without bounces and threads. */
#define PEERDMA_SMALL_LEN	((size_t)64 << 10)

/* Used by one call at a time; idle ones are kept by the context. */
struct peerdma_lane {
	struct peerdma_lane *next;	/* in peerdma.lanes */
	peerdma_cuda_context context;
	peerdma_cuda_stream stream;
	char *small;			/* PEERDMA_SMALL_LEN bytes, pinned */
	_Atomic uint32_t *flag;		/* pinned; NULL: none */
	uint32_t flag_value;		/* last one asked for */
	peerdma_cuda_event events[PEERDMA_LANE_EVENTS];
	uint64_t values[PEERDMA_LANE_EVENTS];
	unsigned int head;		/* marks made */
	unsigned int tail;		/* marks passed */
	bool is_signed;			/* that one will be written */
	int mode;			/* the thread's, for leaving CUDA */
};

#define PEERDMA_COPIES_MAX	256

/* Out of pinned memory to the GPU; each of one piece. */
struct peerdma_copies {
	unsigned int nr;
	unsigned long long to[PEERDMA_COPIES_MAX];
	unsigned long long from[PEERDMA_COPIES_MAX];
	size_t len[PEERDMA_COPIES_MAX];
};

int peerdma_lane_get(struct peerdma *ctx, peerdma_cuda_context context,
		     struct peerdma_lane **out);
void peerdma_lane_put(struct peerdma *ctx, struct peerdma_lane *lane);
void peerdma_lane_drain(struct peerdma *ctx);
int peerdma_lane_copy(struct peerdma *ctx, struct peerdma_lane *lane,
		      uint64_t device, void *host, size_t len, bool out);
int peerdma_lane_copies(struct peerdma *ctx, struct peerdma_lane *lane,
			struct peerdma_copies *copies);
int peerdma_lane_mark(struct peerdma *ctx, struct peerdma_lane *lane,
		      uint64_t value);
int peerdma_lane_passed(struct peerdma *ctx, struct peerdma_lane *lane,
			bool wait, uint64_t *out_value);
void peerdma_lane_sign(struct peerdma *ctx, struct peerdma_lane *lane);
int peerdma_lane_finish(struct peerdma *ctx, struct peerdma_lane *lane);
int peerdma_lane_finish_large(struct peerdma *ctx, struct peerdma_lane *lane,
			      size_t len, uint64_t since);

/* ---- stats.c --------------------------------------------------------------- */

void peerdma_stats_add(struct peerdma *ctx,
		       const struct peerdma_io_result *result, bool write);

/* ---- buffer.c, copy.c ---------------------------------------------------- */

/* Whether a file can be moved directly, and between what. */
struct peerdma_probe {
	int reason;
	uint32_t align;			/* of offset and length in the file */
	uint32_t memory_align;		/* of the place in the dma-buf */
	uint32_t drive;			/* PEERDMA_DEVICE() */
	bool by_pages;			/* an ordinary read into struct pages */
};

/* A request through a caller's descriptor that the drive did by itself. */
struct peerdma_way {
	struct peerdma_probe probe;	/* its @align 0: there was none */
	int fd;
	int flags;			/* of fd, from F_GETFL */
	bool write;
	uint64_t end;			/* of the file, where it was read */
};

struct peerdma_buffer {
	struct peerdma *ctx;		/* holds a reference */
	uint64_t len;
	uint64_t addr;			/* on the device, 0: not known */
	void *host;			/* host memory: where, else NULL */
	bool read_only;
	bool owned;			/* addr is ours to free */
	bool cuda;			/* CUDA reaches addr */
	struct peerdma_cuda_pointer pointer;
	peerdma_cuda_stream stream;	/* for copies of ours only */
	int fd;				/* dma-buf or -1 */
	int reason;			/* why fd is none, or no good */
	uint64_t fd_offset;		/* of byte 0 within the dma-buf */
	pthread_mutex_t lock;		/* guards what follows */
	void *window;			/* byte 0, for copies without CUDA */
	char *pages;			/* byte 0 as struct pages; set once */
	struct peerdma_probe known;	/* for the file that is @dev and @ino */
	dev_t dev;
	ino_t ino;
	struct peerdma_way last;	/* how a request went directly */
	struct {			/* a file's range that has no holes */
		dev_t dev;
		ino_t ino;
		uint64_t from;
		uint64_t to;
	} data;
};

int peerdma_buffer_range(const struct peerdma_buffer *buf, uint64_t offset,
			 uint64_t len);
size_t peerdma_buffer_skew(const struct peerdma_buffer *buf);
int peerdma_copy_in(struct peerdma_buffer *buf, uint64_t offset,
		    const void *src, size_t len);
int peerdma_copy_out(struct peerdma_buffer *buf, uint64_t offset, void *dst,
		     size_t len);

/* ---- file.c: a caller's descriptor, buffered and unbuffered -------------- */

/* The caller's descriptor and its flags are never changed. */
struct peerdma_file {
	int fd;				/* the caller's */
	int flags;			/* of fd, from F_GETFL */
	bool write;
	bool unbuffered;		/* which of the two comes next */
	int direct_fd;			/* O_DIRECT: fd, our own, or -1 */
	int cached_fd;			/* without: fd, our own, or -1 */
	pthread_mutex_t lock;		/* guards the opening of cached_fd */
	dev_t dev;
	ino_t ino;
	uint32_t align;			/* 0: ask peerdma_file_align() */
	uint64_t end;			/* where reading ended at first sight */
	bool sparse;			/* to be read, and may have holes */
	bool block;			/* a block device, no file on one */
};

int peerdma_file_open(struct peerdma_file *file, int fd, bool write);
void peerdma_file_close(struct peerdma_file *file);
int peerdma_file_direct(struct peerdma_file *file);
uint32_t peerdma_file_align(struct peerdma_file *file);
int peerdma_file_cached(struct peerdma_file *file);
int peerdma_file_load(struct peerdma_file *file, char *dst, uint64_t offset,
		      size_t len, size_t *out_moved);
int peerdma_file_peek(struct peerdma_file *file, void *dst, uint64_t offset,
		      size_t len, size_t *out_moved);
int peerdma_file_store(struct peerdma_file *file, const char *src,
		       uint64_t offset, size_t len, size_t *out_moved);

/* ---- reopen.c: descriptors of our own --------------------------------------- */

int peerdma_reopen(const struct peerdma_file *file, int direct);
void peerdma_reopened_close(const struct peerdma_file *file, int direct,
			    int fd);
void peerdma_reopened_sweep(void);

/* ---- stream.c: past the caches ------------------------------------------- */

/* Elsewhere it would be one more copy. */
#ifdef __x86_64__
#define PEERDMA_STREAMS		true
#else
#define PEERDMA_STREAMS		false
#endif
#define PEERDMA_STREAM_LEN	((size_t)64 << 10)

int peerdma_stream_load(struct peerdma_file *file, char *dst, uint64_t offset,
			size_t len, char *scratch, size_t *out_moved);

/* ---- residency.c: what the page cache holds ------------------------------- */

uint64_t peerdma_residency_run(struct peerdma_file *file, uint64_t offset,
			       uint64_t len, bool *out_resident);
uint64_t peerdma_residency_count(int fd, uint64_t len);

/* ---- holes.c: what a file does not hold ------------------------------------ */

struct peerdma_transfer;

bool peerdma_holes_wanted(struct peerdma_transfer *transfer, uint64_t len);
uint64_t peerdma_holes_run(struct peerdma_transfer *transfer, uint64_t len,
			   bool *out_hole);
int peerdma_holes_zero(struct peerdma_transfer *transfer, uint64_t len);

/* ---- region.c, keep.c: ranges of files that stay pinned -------------------- */

/*
 * NVIDIA's driver 580 reads up to 16 KiB with the CPU, through the mapping, and a
 * file that shrinks meanwhile would be a SIGBUS. So nothing near that.
 */
#define PEERDMA_REGION_MIN	((uint64_t)64 << 10)

/* The program's, or made by keep.c for what is read again. */
struct peerdma_region {
	struct peerdma_region *next;	/* in peerdma.regions */
	struct peerdma *ctx;		/* the program's region holds a reference */
	peerdma_cuda_context context;
	dev_t dev;			/* the mapping holds the inode */
	ino_t ino;
	uint64_t offset;		/* in the file, whole pages */
	uint64_t len;
	char *addr;			/* registered, once @pinned */
	char *watch;			/* the same pages, without rights */
	bool pinned;
	bool kept;			/* keep.c's; constant */
	atomic_uint users;
};

int peerdma_region_map(struct peerdma *ctx, const struct peerdma_file *file,
		       uint64_t offset, uint64_t len,
		       struct peerdma_region **out_region);
int peerdma_region_pin(struct peerdma_region *region);
void peerdma_region_free(struct peerdma_region *region);
int peerdma_region_move(struct peerdma_transfer *transfer, uint64_t *run);

void peerdma_keep_note(struct peerdma_transfer *transfer, uint64_t from,
		       uint64_t len);
struct peerdma_region *peerdma_keep_get(struct peerdma *ctx,
					const struct peerdma_file *file,
					uint64_t offset, uint64_t *len);
bool peerdma_keep_stale(struct peerdma_region *region);
void peerdma_keep_end(struct peerdma *ctx);

/* ---- memory.c -------------------------------------------------------------- */

uint64_t peerdma_memory_limit(void);

/* ---- io.c, direct.c, staged.c, pump.c, small.c, slot.c: a transfer -------- */

/* What a part of a transfer answers beside a negative errno. */
enum peerdma_part {
	PEERDMA_PART_DONE = 0,		/* all of it was moved */
	PEERDMA_PART_SHORT = 1,		/* the file ended */
	PEERDMA_PART_REFUSED = 2,	/* the rest will not go this way */
};

struct peerdma_transfer {
	struct peerdma_buffer *buf;
	struct peerdma_file file;
	struct peerdma_io_opts opts;
	struct peerdma_io_result result;
	uint64_t file_offset;
	uint64_t buffer_offset;
	uint64_t len;
	uint64_t done;			/* from the start, without a gap */
	uint64_t before;		/* moved of parts that went before, */
	uint64_t after;			/* and the length of those to come */
	bool probed;
	struct peerdma_probe probe;	/* once probed */
	bool cancelled;			/* by opts.progress, or by @cancel */
	const atomic_bool *cancel;	/* a queue's, or NULL */
};

int peerdma_transfer_check(const struct peerdma_buffer *buf, size_t len,
			   uint64_t file_offset, uint64_t buffer_offset);
int peerdma_transfer_begin(struct peerdma_transfer *transfer, int fd,
			   bool write);
int peerdma_transfer_move(struct peerdma_transfer *transfer);
void peerdma_transfer_end(struct peerdma_transfer *transfer, int err);
int peerdma_transfer_probe(struct peerdma_transfer *transfer);
bool peerdma_transfer_is_direct(struct peerdma_transfer *transfer);
int peerdma_transfer_take(struct peerdma_transfer *transfer,
			  const struct peerdma_io_opts *opts);
int peerdma_transfer_advance(struct peerdma_transfer *transfer, size_t len,
			     uint64_t *counter);
int peerdma_transfer_peek(struct peerdma_transfer *transfer, void *dst,
			  size_t len, size_t *out_moved);
void peerdma_transfer_blame(struct peerdma_transfer *transfer, int reason);

/* Where in GPU memory its next byte is. */
static inline uint64_t
peerdma_transfer_addr(const struct peerdma_transfer *transfer)
{
	return transfer->buf->addr + transfer->buffer_offset + transfer->done;
}

/* A range as the direct path sees it: only @middle is whole blocks. */
struct peerdma_split {
	uint64_t head;
	uint64_t middle;
	uint64_t tail;
};

struct peerdma_split peerdma_split_range(uint64_t offset, uint64_t len,
					 uint32_t align);
int peerdma_direct_probe(struct peerdma_buffer *buf, struct peerdma_file *file,
			 struct peerdma_probe *probe);
bool peerdma_direct_known(struct peerdma_buffer *buf, struct peerdma_file *file,
			  struct peerdma_probe *probe);
bool peerdma_direct_fits(const struct peerdma_transfer *transfer,
			 const struct peerdma_probe *probe, uint64_t end);
void peerdma_direct_note(const struct peerdma_transfer *transfer);
bool peerdma_direct_again(struct peerdma_transfer *transfer, int fd,
			  bool write);
bool peerdma_direct_may(const struct peerdma_buffer *buf);
bool peerdma_direct_first(const struct peerdma_buffer *buf,
			  struct peerdma_file *file, uint64_t offset,
			  uint64_t len);
uint64_t peerdma_direct_step(const struct peerdma_transfer *transfer);
uint64_t peerdma_direct_segments(struct peerdma_transfer *transfer,
				 struct peerdma_file_segment *segments,
				 uint32_t nr);
int peerdma_direct_move(struct peerdma_transfer *transfer, uint64_t len);
int peerdma_staged_move(struct peerdma_transfer *transfer, uint64_t len,
			uint64_t *counter);
int peerdma_pump_move(struct peerdma_transfer *transfer, uint64_t len,
		      uint64_t *counter);
int peerdma_slot_move(struct peerdma_transfer *transfer, size_t len,
		      uint64_t *counter);
int peerdma_slot_reach(struct peerdma_transfer *transfer);
void peerdma_slot_drain(struct peerdma *ctx);
int peerdma_small_move(struct peerdma_transfer *transfer, size_t len,
		       uint64_t *counter);
int peerdma_small_stage(struct peerdma_transfer *transfer, uint64_t len,
			uint64_t *counter);

/* ---- pages.c: a buffer that drives take as RAM ----------------------------- */

bool peerdma_pages_suit(const struct peerdma_file *file);
int peerdma_pages_get(struct peerdma_buffer *buf, int *out_reason);
void peerdma_pages_put(struct peerdma_buffer *buf);

/* ---- vector.c: requests of several parts, and small ones together -------- */

/* Small reads out of the page cache that become few copies. */
struct peerdma_gather {
	struct peerdma *ctx;
	struct peerdma_lane *lane;
	struct peerdma_bounce *bounce;
	size_t used;			/* of the bounce */
	struct peerdma_copies copies;	/* to come; the last one may grow */
	int err;			/* of a copy: nothing of it counts */
};

int peerdma_gather_begin(struct peerdma_gather *gather,
			 struct peerdma_buffer *buf);
bool peerdma_gather_read(struct peerdma_gather *gather,
			 struct peerdma_buffer *buf, struct peerdma_file *file,
			 const struct peerdma_io_vec *vec, size_t *out_moved);
int peerdma_gather_end(struct peerdma_gather *gather);
bool peerdma_gather_wants(const struct peerdma_buffer *buf, bool write,
			  uint64_t len, uint32_t path);
void peerdma_vector_fail(struct peerdma_io_vec *vecs, size_t nr, int err);
int peerdma_vector_move(struct peerdma_transfer *transfer,
			struct peerdma_io_vec *vecs, size_t nr);

/* ---- pci.c, sized.c ------------------------------------------------------ */

#define PEERDMA_PCI_LEN	16

int peerdma_pci_parse(const char *text, uint32_t *out_device);
void peerdma_pci_format(uint32_t device, char text[PEERDMA_PCI_LEN]);
uint32_t peerdma_pci_of_disk(dev_t disk);
int peerdma_pci_node(uint32_t device);

int peerdma_sized_in(void *dst, size_t dst_size, const void *src);
int peerdma_sized_check(const void *dst);
int peerdma_sized_out(void *dst, const void *src, size_t src_size);

#endif /* PEERDMA_INTERNAL_H */
