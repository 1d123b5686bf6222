/* SPDX-License-Identifier: MIT */
/*
 * libpeerdma: files in and out of device memory, by the shortest way there is.
 *
 * libpeerdma(7) is the introduction; every function has a page in section 3.
 * Functions return 0, a count, or a negative errno value; they print nothing,
 * and errno means nothing after them. Unless its page says otherwise a function
 * may be called from any thread at any time; only the end of an object must not
 * race with its use.
 */
#ifndef PEERDMA_H
#define PEERDMA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define PEERDMA_VERSION "0.1.0"

/**
 * PEERDMA_SIZED - declare an option or result struct of this header's size
 * @type: tag of the struct
 * @name: name of the variable
 *
 * Everything but the size is zero, which is every field's default. In C further
 * arguments are designated initialisers. A library that is newer or older than
 * this header reads @size and knows which fields the caller has.
 */
#ifdef __cplusplus
template <typename type> static inline type peerdma_sized()
{
	type sized = type();

	sized.size = sizeof(sized);
	return sized;
}

#define PEERDMA_SIZED(type, name)					\
	struct type name = peerdma_sized<struct type>()
#else
#define PEERDMA_SIZED(type, name, ...)					\
	struct type name = { .size = sizeof(struct type), __VA_ARGS__ }
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct peerdma;
struct peerdma_buffer;
struct peerdma_region;
struct peerdma_queue;

/** PEERDMA_GPU_NONE - in peerdma_open_opts.gpu: leave CUDA alone */
#define PEERDMA_GPU_NONE	(-1)

/** PEERDMA_F_READ_ONLY - the buffer or mapping is never written to */
#define PEERDMA_F_READ_ONLY	(1u << 0)
/**
 * PEERDMA_F_STAGED_OK - memory that cannot be pinned makes a buffer all the
 * same; it is reached through host memory, and its info says why
 */
#define PEERDMA_F_STAGED_OK	(1u << 1)

/** PEERDMA_STATE_PINNED - the buffer is a dma-buf of the kernel module */
#define PEERDMA_STATE_PINNED		(1u << 0)
/** PEERDMA_STATE_READ_ONLY - made with PEERDMA_F_READ_ONLY */
#define PEERDMA_STATE_READ_ONLY		(1u << 1)
/** PEERDMA_STATE_PERSISTENT - the owner's free() does not end the pin */
#define PEERDMA_STATE_PERSISTENT	(1u << 2)
/** PEERDMA_STATE_REVOKED - the memory was taken back */
#define PEERDMA_STATE_REVOKED		(1u << 3)

/**
 * enum peerdma_path - a way between a file and a buffer
 * @PEERDMA_PATH_AUTO: the best that each part of the request allows
 * @PEERDMA_PATH_DIRECT: the drive's DMA, straight into or out of the buffer
 * @PEERDMA_PATH_STAGED: through host memory
 * @PEERDMA_PATH_CACHE: out of, or into, the page cache
 */
enum peerdma_path {
	PEERDMA_PATH_AUTO	= 0,
	PEERDMA_PATH_DIRECT	= 1,
	PEERDMA_PATH_STAGED	= 2,
	PEERDMA_PATH_CACHE	= 3,
};

/*
 * Why a request took a worse path than the best. 0: nothing stands in the way;
 * below 100: enum peerdma_reason of <peerdma/uapi.h>, the kernel's reasons;
 * from 100: the library's. peerdma_reason_string() has a sentence for each.
 */
enum {
	PEERDMA_REASON_NO_MODULE		= 100,
	PEERDMA_REASON_NO_PERMISSION		= 101,
	PEERDMA_REASON_NO_VERB			= 102,
	PEERDMA_REASON_NO_CUDA			= 103,
	PEERDMA_REASON_NO_GPU			= 104,
	PEERDMA_REASON_NO_PROVIDER		= 105,
	PEERDMA_REASON_NO_APERTURE		= 106,
	PEERDMA_REASON_NOT_PINNABLE		= 107,
	PEERDMA_REASON_FOREIGN_BUFFER		= 108,
	PEERDMA_REASON_HOST_MEMORY		= 109,
	PEERDMA_REASON_MISALIGNED		= 110,
	PEERDMA_REASON_NO_REOPEN		= 111,
	PEERDMA_REASON_FILESYSTEM_COPIED	= 112,
	PEERDMA_REASON_FORCED			= 113,
	PEERDMA_REASON_REGION_STALE		= 114,
	PEERDMA_REASON_NOT_CACHED		= 115,
	PEERDMA_REASON_UNBUFFERED		= 116,
};

const char *peerdma_version(void);
const char *peerdma_reason_name(int reason);
const char *peerdma_reason_string(int reason);

/* ---- context ------------------------------------------------------------- */

/** PEERDMA_KEEP_NONE - keep nothing that the program did not ask for */
#define PEERDMA_KEEP_NONE	UINT64_MAX

/**
 * struct peerdma_open_opts - how to open a context
 * @size: set by PEERDMA_SIZED()
 * @device: path of the device node; NULL: /dev/peerdma
 * @gpu: CUDA ordinal of the GPU to allocate on, or PEERDMA_GPU_NONE
 * @flags: must be 0
 * @keep: bytes of files that may stay pinned in the page cache, for the GPU,
 *	once they were read more than once; 0: an eighth of memory;
 *	PEERDMA_KEEP_NONE
 */
struct peerdma_open_opts {
	size_t size;
	const char *device;
	int32_t gpu;
	uint32_t flags;
	uint64_t keep;
};

/**
 * struct peerdma_context_info - what a context found
 * @size: set by PEERDMA_SIZED()
 * @verbs: bit n: the module knows ioctl number n
 * @features: the module's PEERDMA_FEATURE_* bits
 * @providers: names of the loaded providers, separated by a space
 * @max_segments: the most segments that one FILE_IO takes
 * @page_size: the unit of mappings, in bytes
 * @module_reason: 0, or why the kernel module cannot be used
 * @cuda_reason: 0, or why CUDA cannot be used
 * @gpu: ordinal of the context's GPU, or PEERDMA_GPU_NONE
 * @nr_gpus: GPUs that CUDA shows
 */
struct peerdma_context_info {
	size_t size;
	uint64_t verbs;
	uint64_t features;
	char providers[64];
	uint32_t max_segments;
	uint32_t page_size;
	int32_t module_reason;
	int32_t cuda_reason;
	int32_t gpu;
	uint32_t nr_gpus;
};

/**
 * struct peerdma_gpu_info - a GPU as CUDA shows it
 * @size: set by PEERDMA_SIZED()
 * @name: what its maker calls it
 * @device: its PCI address ("0000:01:00.0")
 */
struct peerdma_gpu_info {
	size_t size;
	char name[104];
	char device[16];
};

int peerdma_open(struct peerdma **out_ctx,
		 const struct peerdma_open_opts *opts);
void peerdma_close(struct peerdma *ctx);
int peerdma_context_info(struct peerdma *ctx,
			 struct peerdma_context_info *info);
int peerdma_gpu_info(struct peerdma *ctx, unsigned int ordinal,
		     struct peerdma_gpu_info *info);

/**
 * struct peerdma_path_stats - what went one way
 * @requests: requests that did, wholly or in part
 * @bytes_read: from files to buffers
 * @bytes_written: from buffers to files
 */
struct peerdma_path_stats {
	uint64_t requests;
	uint64_t bytes_read;
	uint64_t bytes_written;
};

/**
 * struct peerdma_stats - what went which way, as struct peerdma_io_result counts
 * @size: set by PEERDMA_SIZED()
 * @direct: by the drive's DMA
 * @staged: through host memory
 * @cached: through the page cache, where it was
 * @registered: out of regions, and what is kept
 * @errors: requests that an error ended
 * @zeroed: holes, written as zeroes
 */
struct peerdma_stats {
	size_t size;
	struct peerdma_path_stats direct;
	struct peerdma_path_stats staged;
	struct peerdma_path_stats cached;
	struct peerdma_path_stats registered;
	uint64_t errors;
	struct peerdma_path_stats zeroed;
};

int peerdma_context_stats(struct peerdma *ctx, struct peerdma_stats *stats);

/* ---- buffer -------------------------------------------------------------- */

/** PEERDMA_PROVIDER_DMA_BUF - memory of CUDA's, as the dma-buf that CUDA makes */
#define PEERDMA_PROVIDER_DMA_BUF	"dma-buf"

/**
 * struct peerdma_buffer_opts - how to make a buffer, or map one
 * @size: set by PEERDMA_SIZED()
 * @provider: who owns the memory; NULL: the library chooses: "nvidia", or where the
 *	module lacks that PEERDMA_PROVIDER_DMA_BUF
 * @flags: PEERDMA_F_*
 * @reserved: must be 0
 */
struct peerdma_buffer_opts {
	size_t size;
	const char *provider;
	uint32_t flags;
	uint32_t reserved;
};

/**
 * struct peerdma_buffer_info - what a buffer is
 * @size: set by PEERDMA_SIZED()
 * @len: bytes
 * @device_addr: the device address that it was made from, or 0
 * @host_addr: for host memory: its address, else NULL
 * @page_size: the provider's page size in bytes, 0 when not pinned
 * @state: PEERDMA_STATE_*
 * @fd: its dma-buf, owned by the buffer, or -1
 * @reason: 0, or why it is not pinned
 * @provider: who owns the memory, "" when not pinned
 * @device: PCI address of the device whose memory it is, "" when not known
 */
struct peerdma_buffer_info {
	size_t size;
	uint64_t len;
	uint64_t device_addr;
	void *host_addr;
	uint32_t page_size;
	uint32_t state;
	int32_t fd;
	int32_t reason;
	char provider[16];
	char device[16];
};

int peerdma_buffer_pin(struct peerdma *ctx, uint64_t addr, uint64_t len,
		       const struct peerdma_buffer_opts *opts,
		       struct peerdma_buffer **out_buf);
int peerdma_buffer_alloc(struct peerdma *ctx, uint64_t len,
			 const struct peerdma_buffer_opts *opts,
			 struct peerdma_buffer **out_buf);
int peerdma_buffer_import(struct peerdma *ctx, int fd,
			  const struct peerdma_buffer_opts *opts,
			  struct peerdma_buffer **out_buf);
int peerdma_buffer_host(struct peerdma *ctx, void *addr, uint64_t len,
			const struct peerdma_buffer_opts *opts,
			struct peerdma_buffer **out_buf);
void peerdma_buffer_close(struct peerdma_buffer *buf);
int peerdma_buffer_fd(const struct peerdma_buffer *buf);
int peerdma_buffer_info(struct peerdma_buffer *buf,
			struct peerdma_buffer_info *info);
int peerdma_buffer_map(struct peerdma_buffer *buf,
		       const struct peerdma_buffer_opts *opts, void **out_addr);
int peerdma_buffer_unmap(struct peerdma_buffer *buf, void *addr);
int peerdma_buffer_copy_in(struct peerdma_buffer *buf, uint64_t offset,
			   const void *src, size_t len);
int peerdma_buffer_copy_out(struct peerdma_buffer *buf, uint64_t offset,
			    void *dst, size_t len);

/* ---- files --------------------------------------------------------------- */

/** PEERDMA_IO_STREAM - in order with the work of a CUDA stream */
#define PEERDMA_IO_STREAM	(1u << 1)

/**
 * struct peerdma_io_opts - how to move
 * @size: set by PEERDMA_SIZED()
 * @progress: called on the caller's thread as the transfer goes on; anything
 *	but 0 ends it. NULL: not called
 * @arg: for @progress
 * @path: enum peerdma_path
 * @depth: at most this many requests in flight on the direct path; 0: the
 *	kernel's choice
 * @flags: 0 or PEERDMA_IO_STREAM
 * @reserved: must be 0
 * @stream: with PEERDMA_IO_STREAM: a CUstream or cudaStream_t, NULL is CUDA's
 *	default one. What is read may arrive after the call has returned, but
 *	before what is put into the stream then
 */
struct peerdma_io_opts {
	size_t size;
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	uint32_t path;
	uint32_t depth;
	uint32_t flags;
	uint32_t reserved;
	void *stream;
};

/**
 * struct peerdma_io_result - what was moved, which way, and why not better
 * @size: set by PEERDMA_SIZED()
 * @bytes_direct: bytes that the drive's DMA moved, straight
 * @bytes_staged: bytes that went through host memory
 * @reason: 0, or why not all bytes went directly or out of the page cache
 * @error: 0 when all was moved or the file ended, else the negative errno that
 *	ended the transfer early
 * @bytes_cached: bytes that went through the page cache, where they were
 * @bytes_registered: bytes that the GPU took by itself, out of a region or out of
 *	what is kept
 * @bytes_zeroed: bytes of holes, which were written as zeroes and not read
 */
struct peerdma_io_result {
	size_t size;
	uint64_t bytes_direct;
	uint64_t bytes_staged;
	int32_t reason;
	int32_t error;
	uint64_t bytes_cached;
	uint64_t bytes_registered;
	uint64_t bytes_zeroed;
};

ssize_t peerdma_read(struct peerdma_buffer *buf, int fd, size_t len,
		     uint64_t file_offset, uint64_t buffer_offset);
ssize_t peerdma_write(struct peerdma_buffer *buf, int fd, size_t len,
		      uint64_t file_offset, uint64_t buffer_offset);
ssize_t peerdma_read_opts(struct peerdma_buffer *buf, int fd, size_t len,
			  uint64_t file_offset, uint64_t buffer_offset,
			  const struct peerdma_io_opts *opts,
			  struct peerdma_io_result *result);
ssize_t peerdma_write_opts(struct peerdma_buffer *buf, int fd, size_t len,
			   uint64_t file_offset, uint64_t buffer_offset,
			   const struct peerdma_io_opts *opts,
			   struct peerdma_io_result *result);

/**
 * struct peerdma_io_vec - one part of a request
 * @file_offset: where in the file, as pread(2) counts
 * @buffer_offset: where in the buffer
 * @len: bytes
 * @result: written: bytes moved, fewer than @len where the file ends or an error
 *	came; or a negative errno when none was
 */
struct peerdma_io_vec {
	uint64_t file_offset;
	uint64_t buffer_offset;
	uint64_t len;
	int64_t result;
};

ssize_t peerdma_readv(struct peerdma_buffer *buf, int fd,
		      struct peerdma_io_vec *vecs, size_t nr,
		      const struct peerdma_io_opts *opts,
		      struct peerdma_io_result *result);
ssize_t peerdma_writev(struct peerdma_buffer *buf, int fd,
		       struct peerdma_io_vec *vecs, size_t nr,
		       const struct peerdma_io_opts *opts,
		       struct peerdma_io_result *result);

/**
 * struct peerdma_region_opts - how to keep a file range in memory
 * @size: set by PEERDMA_SIZED()
 * @flags: must be 0
 * @reserved: must be 0
 */
struct peerdma_region_opts {
	size_t size;
	uint32_t flags;
	uint32_t reserved;
};

int peerdma_region_open(struct peerdma *ctx, int fd, uint64_t offset,
			uint64_t len, const struct peerdma_region_opts *opts,
			struct peerdma_region **out_region);
void peerdma_region_close(struct peerdma_region *region);

/* ---- queue --------------------------------------------------------------- */

/** PEERDMA_QUEUE_DEPTH_MAX - the most requests that a queue can hold */
#define PEERDMA_QUEUE_DEPTH_MAX	32768

/** PEERDMA_QUEUE_NO_URING - direct requests by threads, not by an io_uring */
#define PEERDMA_QUEUE_NO_URING	(1u << 0)

/**
 * struct peerdma_queue_opts - how to make a queue
 * @size: set by PEERDMA_SIZED()
 * @flags: PEERDMA_QUEUE_*
 * @threads: at most so many threads of its own; 0: as many as are of use
 */
struct peerdma_queue_opts {
	size_t size;
	uint32_t flags;
	uint32_t threads;
};

/**
 * struct peerdma_queue_info - what a queue is and has
 * @size: set by PEERDMA_SIZED()
 * @depth: requests that it can hold
 * @held: requests that it holds: submitted, and not reaped
 * @done: those of them that can be reaped
 * @uring: 1 when direct requests go by an io_uring
 */
struct peerdma_queue_info {
	size_t size;
	uint32_t depth;
	uint32_t held;
	uint32_t done;
	uint32_t uring;
};

/** PEERDMA_IO_WRITE - from the buffer to the file; else the other way */
#define PEERDMA_IO_WRITE	(1u << 0)

/**
 * struct peerdma_io_request - a read or write for a queue
 * @size: sizeof(struct peerdma_io_request), the same in all of an array
 * @user_data: for the caller, who finds it in the completion
 * @buf: the buffer
 * @fd: the file
 * @flags: PEERDMA_IO_*
 * @file_offset: where in the file, as pread(2) counts
 * @buffer_offset: where in the buffer
 * @len: bytes, any number
 * @vecs: the parts of a request of several, or NULL; then the three before are 0
 * @nr_vecs: how many
 * @path: enum peerdma_path
 * @stream: with PEERDMA_IO_STREAM: a CUstream or cudaStream_t, NULL is CUDA's
 *	default one
 *
 * @buf and @fd stay open, and @vecs stay where they are, until the request has
 * been reaped.
 */
struct peerdma_io_request {
	size_t size;
	uint64_t user_data;
	struct peerdma_buffer *buf;
	int32_t fd;
	uint32_t flags;
	uint64_t file_offset;
	uint64_t buffer_offset;
	uint64_t len;
	struct peerdma_io_vec *vecs;
	uint32_t nr_vecs;
	uint32_t path;
	void *stream;
};

/**
 * struct peerdma_completion - what became of a request
 * @user_data: of the request
 * @result: bytes moved, as peerdma_read() or peerdma_readv() would return, or a
 *	negative errno when none was
 * @error: 0 when all was moved or the file ended, else the negative errno that
 *	ended the request early
 * @reason: 0, or why not all bytes went directly or out of the page cache
 * @bytes_direct: as in struct peerdma_io_result, and so on
 * @bytes_staged: through host memory
 * @bytes_cached: through the page cache, where they were
 * @bytes_registered: out of a region
 * @bytes_zeroed: of holes
 * @reserved: 0
 */
struct peerdma_completion {
	uint64_t user_data;
	int64_t result;
	int32_t error;
	int32_t reason;
	uint64_t bytes_direct;
	uint64_t bytes_staged;
	uint64_t bytes_cached;
	uint64_t bytes_registered;
	uint64_t bytes_zeroed;
	uint64_t reserved[3];
};

/** PEERDMA_SUBMIT_WAIT - wait for room in the queue instead of -EAGAIN */
#define PEERDMA_SUBMIT_WAIT	(1u << 0)
/** PEERDMA_CANCEL_ALL - every request, whatever its user_data */
#define PEERDMA_CANCEL_ALL	(1u << 0)

int peerdma_queue_create(struct peerdma *ctx, unsigned int depth,
			 const struct peerdma_queue_opts *opts,
			 struct peerdma_queue **out_queue);
void peerdma_queue_destroy(struct peerdma_queue *queue);
int peerdma_queue_info(struct peerdma_queue *queue,
		       struct peerdma_queue_info *info);
int peerdma_queue_submit(struct peerdma_queue *queue,
			 const struct peerdma_io_request *requests,
			 unsigned int nr, uint32_t flags);
int peerdma_queue_reap(struct peerdma_queue *queue,
		       struct peerdma_completion *completions, unsigned int min,
		       unsigned int max, const struct timespec *timeout);
int peerdma_queue_cancel(struct peerdma_queue *queue, uint64_t user_data,
			 uint32_t flags);
int peerdma_queue_eventfd(struct peerdma_queue *queue);

/**
 * struct peerdma_check_result - the path of a file or of a pair of devices
 * @size: set by PEERDMA_SIZED()
 * @path: the best that there is: PEERDMA_PATH_DIRECT or PEERDMA_PATH_STAGED
 * @reason: 0, or why not directly
 * @align: what offset and length in the file must be multiples of to go
 *	directly, in bytes, or 0
 * @memory_align: the same for the place in the buffer's dma-buf, or 0
 * @translated: 1 when an IOMMU translates for the drive
 * @distance: PCI bridges on the way
 * @drive: PCI address of the drive, "" when there is none to speak of
 * @device: PCI address of the device with the memory, "" when not known
 * @via: PCI address of the bridge that decided, "" when there is none
 * @file_len: bytes of the file
 * @resident: bytes of it that the page cache holds, whole pages
 * @cache_reason: 0, or why a read would not come out of the page cache, or not
 *	all of it
 * @reserved: 0
 */
struct peerdma_check_result {
	size_t size;
	uint32_t path;
	int32_t reason;
	uint32_t align;
	uint32_t memory_align;
	uint32_t translated;
	uint32_t distance;
	char drive[16];
	char device[16];
	char via[16];
	uint64_t file_len;
	uint64_t resident;
	int32_t cache_reason;
	uint32_t reserved;
};

int peerdma_check(struct peerdma *ctx, int fd, struct peerdma_buffer *buf,
		  struct peerdma_check_result *result);
int peerdma_check_route(struct peerdma *ctx, const char *from, const char *to,
			struct peerdma_check_result *result);

#ifdef __cplusplus
}
#endif

#endif /* PEERDMA_H */
