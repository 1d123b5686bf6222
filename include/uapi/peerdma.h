/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * peerdma: memory behind a PCI BAR as an ordinary citizen of Linux.
 *
 * This header is the whole interface of /dev/peerdma and its manual; peerdma(4)
 * repeats it. One idea carries everything: a pinned range of device memory *is*
 * a dma-buf, and its handle is a file descriptor. close(), exit and SCM_RIGHTS
 * do to it what they do to any descriptor; when the last one is closed and
 * nobody maps or moves the memory any more, the pin ends.
 *
 *      PIN ──► dma-buf fd ──┬── mmap()      the CPU's view
 *                           ├── FILE_IO     files, without a bounce in RAM
 *                           ├── MAP_DEVICE  addresses for another PCI device
 *                           ├── PAGES       struct pages: plain I/O on it
 *                           ├── QUERY       what it is
 *                           └── dma_buf_attach() in any driver
 */
#ifndef _UAPI_PEERDMA_H
#define _UAPI_PEERDMA_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: General ioctl rules
 *
 * Every argument is a struct that starts with @size (bytes of the struct as the
 * caller knows it) and @flags. A newer kernel module takes an older, shorter
 * struct; an older module takes a newer, longer one as long as the part that it
 * does not know is zero. Ioctl numbers do not encode the size and never change.
 * Fields named out_* are written by the kernel, the others are only read.
 * Reserved fields must be zero.
 *
 * Each errno has one meaning:
 *
 * ============  =============================================================
 * ENOTTY        no such ioctl
 * E2BIG         the struct's tail holds non-zero bytes that this module does
 *               not know
 * EOPNOTSUPP    a flag or a reserved field that this module does not know; for
 *               WATCH and REVOKE also: a dma-buf of another exporter
 * EINVAL        a wrong value: a struct that is too short, a length of zero, an
 *               offset, length or place in memory that the file cannot do
 *               unbuffered, a descriptor that is no dma-buf
 * EOVERFLOW     offset or address plus length passes the end of its type
 * EFAULT        an argument cannot be read or written; for PIN also: the range
 *               is not (or not wholly) memory of that provider that the calling
 *               process owns
 * EBADF         a descriptor is not open, or the file is not open for the
 *               direction asked for
 * EACCES        the dma-buf's descriptor is read-only and would be written to
 * EPERM         the caller lacks the capability that the description names
 * ENOENT        no such provider, no such PCI device
 * ERANGE        a range leaves the buffer
 * EMSGSIZE      an array is too small; its count says how much is needed
 * EISDIR        the file is a directory
 * ESPIPE        the file has no offsets (a pipe, a socket, a terminal)
 * EBADFD        the file was opened without O_DIRECT
 * EMEDIUMTYPE   the file cannot be moved by a PCI drive's DMA at all;
 *               @out_reason says why
 * EREMOTEIO     the drive or device cannot reach the buffer's memory, or it cannot
 *               be had as pages; @out_reason says why
 * EBUSY         the kernel or a driver uses that part of the BAR already, or works
 *               with the PCI device or another one of its IOMMU group
 * EDQUOT        the user may pin no more bytes: the module's quota, or for their
 *               own memory RLIMIT_MEMLOCK
 * EUSERS        1024 watch the buffer already
 * EDOM          device addresses beyond what the device or its IOMMU can
 *               produce, or no room left below
 * EADDRNOTAVAIL device addresses that are reserved: for interrupts, by firmware,
 *               or because a bridge above the device forwards them
 * EADDRINUSE    device addresses that are mapped already
 * ENOBUFS       the provider's device has no BAR aperture left for the pin
 * ENODEV        the provider's device is gone or switched off, or the buffer was
 *               revoked; of another exporter's dma-buf: its memory was moved or
 *               taken back, and asking again tells which
 * EINTR         the caller is being killed; of FILE_IO, @out_bytes were moved
 * ENOMEM        the kernel is out of memory
 * ============  =============================================================
 *
 * What a file's own driver or filesystem answers to FILE_IO (EIO, ENOSPC, EFBIG,
 * EROFS, EDQUOT, ...) is passed on as read(2) and write(2) would.
 */

#define PEERDMA_IOCTL_TYPE	0xbd

enum {
	PEERDMA_NR_INFO		= 0x00,
	PEERDMA_NR_PIN		= 0x01,
	PEERDMA_NR_QUERY	= 0x02,
	PEERDMA_NR_FILE_IO	= 0x03,
	PEERDMA_NR_ROUTE	= 0x04,
	PEERDMA_NR_WATCH	= 0x05,
	PEERDMA_NR_REVOKE	= 0x06,
	PEERDMA_NR_MAP_DEVICE	= 0x07,
	PEERDMA_NR_PAGES	= 0x08,
};

/** PEERDMA_PROVIDER_LEN - bytes of a provider's name with its terminating NUL */
#define PEERDMA_PROVIDER_LEN	16

/**
 * enum peerdma_reason - why something is not possible, or only less directly
 * @PEERDMA_REASON_NONE: nothing stands in the way
 * @PEERDMA_REASON_NO_BLOCK_DEVICE: the file lives on no block device (tmpfs, a
 *	network filesystem, btrfs with its own device layer)
 * @PEERDMA_REASON_NO_DIRECT_IO: the filesystem does no unbuffered I/O on this
 *	file (inline, compressed, encrypted or journalled data)
 * @PEERDMA_REASON_STACKED: the block device is made of others (dm, md, loop) and
 *	the kernel does not tell of which
 * @PEERDMA_REASON_NOT_PCI: the block device has no PCI function that does DMA
 * @PEERDMA_REASON_HOST_BRIDGE: the way leads through a host bridge that is not
 *	known to route between its ports; @out_via names its root port
 * @PEERDMA_REASON_HOST_BRIDGES: the way leads from one host bridge to another,
 *	and at least one of them is known to route only within itself
 * @PEERDMA_REASON_SWIOTLB: the kernel copies all DMA of the drive through bounce
 *	buffers in host RAM (swiotlb=force, a confidential guest)
 * @PEERDMA_REASON_UNTRUSTED: the drive sits on an external port; the kernel may
 *	bounce its DMA
 * @PEERDMA_REASON_DMA_MASK: no IOMMU translates for the drive or device, and the
 *	memory lies above the highest address that it can produce
 * @PEERDMA_REASON_BUS_OFFSET: bus and CPU addresses of the memory differ
 * @PEERDMA_REASON_KERNEL: the kernel's own peer-to-peer check refuses the pair
 * @PEERDMA_REASON_BAR_GRANULE: the BAR is too small or too oddly placed for the
 *	kernel to describe it with struct pages (2 MiB granules)
 * @PEERDMA_REASON_BAR_CACHING: the device's driver has mapped parts of the same
 *	128 MiB of its BAR with different caching
 * @PEERDMA_REASON_ARCH: the kernel cannot describe BAR memory with struct pages
 *	on this architecture
 * @PEERDMA_REASON_DMA_DEBUG: the kernel was built with CONFIG_DMA_API_DEBUG and
 *	lets no drive map BAR memory
 * @PEERDMA_REASON_NO_IOMMU: no IOMMU translates for the device, and what is asked
 *	for needs one
 * @PEERDMA_REASON_DMA_API: the kernel's DMA or IOMMU interface does not map the
 *	memory for the device: no room below its mask, or the IOMMU's driver refuses
 * @PEERDMA_REASON_REVOCABLE: the pin is PEERDMA_PIN_REVOCABLE, and a page that
 *	somebody holds cannot be taken back
 * @PEERDMA_REASON_BORROWED_PAGES: the struct pages are those of the device's own
 *	driver, or of ordinary memory; nobody else knows when none is held any more
 * @PEERDMA_REASON_NOT_PREFETCHABLE: reads of the BAR may have side effects, so
 *	the kernel is given no mapping of it
 * @PEERDMA_REASON_FOREIGN_MEMORY: another exporter's dma-buf, and its memory is
 *	not, or not wholly, that of one PCI device's BAR: host RAM, as udmabuf's
 * @PEERDMA_REASON_FOREIGN_REFUSED: another exporter's dma-buf, and the exporter
 *	does not let the drive, or any function that could stand in for a device,
 *	at its memory
 * @PEERDMA_REASON_FOREIGN_ADDRESSES: another exporter's dma-buf, and the exporter
 *	gives addresses that make no sense: no whole pages, too few of them, or
 *	such that could mean two places
 * @PEERDMA_REASON_FOREIGN_REVOCABLE: another exporter's dma-buf, the exporter
 *	may take its memory back at any moment, and what is asked for cannot let go:
 *	pages, which somebody may hold; a mapping for a device with a driver that
 *	no IOMMU can cut off; a transfer of a regular file, which can wait for the
 *	file's lock for longer than the exporter may be kept waiting, where a block
 *	device will do
 */
enum peerdma_reason {
	PEERDMA_REASON_NONE		= 0,
	PEERDMA_REASON_NO_BLOCK_DEVICE	= 1,
	PEERDMA_REASON_NO_DIRECT_IO	= 2,
	PEERDMA_REASON_STACKED		= 3,
	PEERDMA_REASON_NOT_PCI		= 4,
	PEERDMA_REASON_HOST_BRIDGE	= 5,
	PEERDMA_REASON_HOST_BRIDGES	= 6,
	PEERDMA_REASON_SWIOTLB		= 7,
	PEERDMA_REASON_UNTRUSTED	= 8,
	PEERDMA_REASON_DMA_MASK		= 9,
	PEERDMA_REASON_BUS_OFFSET	= 10,
	PEERDMA_REASON_KERNEL		= 11,
	PEERDMA_REASON_BAR_GRANULE	= 12,
	PEERDMA_REASON_BAR_CACHING	= 13,
	PEERDMA_REASON_ARCH		= 14,
	PEERDMA_REASON_DMA_DEBUG	= 15,
	PEERDMA_REASON_FOREIGN_MEMORY	= 16,
	PEERDMA_REASON_FOREIGN_REFUSED	= 17,
	PEERDMA_REASON_FOREIGN_ADDRESSES = 18,
	PEERDMA_REASON_FOREIGN_REVOCABLE = 19,
	PEERDMA_REASON_NO_IOMMU		= 20,
	PEERDMA_REASON_DMA_API		= 21,
	PEERDMA_REASON_REVOCABLE	= 24,
	PEERDMA_REASON_BORROWED_PAGES	= 25,
	PEERDMA_REASON_NOT_PREFETCHABLE	= 26,
};

/**
 * PEERDMA_DEVICE - a PCI function as one number
 * @domain: 16 bits (domains above that, as some virtual ones are, cannot be
 *	named)
 * @bus: 8 bits
 * @dev: 5 bits
 * @fn: 3 bits
 */
#define PEERDMA_DEVICE(domain, bus, dev, fn)				\
	(((__u32)(domain) << 16) | ((__u32)(bus) << 8) |		\
	 ((__u32)(dev) << 3) | (__u32)(fn))

/** PEERDMA_DEVICE_NONE - in an output: no device, or none to speak of */
#define PEERDMA_DEVICE_NONE	0xffffffffu

/* ---- INFO ---------------------------------------------------------------- */

/** PEERDMA_FEATURE_URING - FILE_IO may be given as an io_uring command */
#define PEERDMA_FEATURE_URING		(1ULL << 0)
/** PEERDMA_FEATURE_KERNEL_ROUTE - the kernel's own topology check is asked too */
#define PEERDMA_FEATURE_KERNEL_ROUTE	(1ULL << 1)

/**
 * struct peerdma_info - what this module can do; ask this, never versions
 * @size: sizeof(struct peerdma_info)
 * @flags: must be 0
 * @out_verbs: bit n is set when the ioctl number n (PEERDMA_NR_*) exists
 * @out_features: PEERDMA_FEATURE_*
 * @out_providers: names of the loaded providers, separated by one space
 * @out_max_segments: the most segments that one FILE_IO takes
 * @out_page_size: the CPU's page size in bytes, the unit of mmap()
 */
struct peerdma_info {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_verbs;
	__aligned_u64 out_features;
	char out_providers[64];
	__u32 out_max_segments;
	__u32 out_page_size;
};

#define PEERDMA_INFO	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_INFO)

/* ---- PIN ----------------------------------------------------------------- */

/**
 * PEERDMA_PIN_READ_ONLY - the descriptor may not be mapped for writing, nor be
 * what a file is read into
 */
#define PEERDMA_PIN_READ_ONLY	(1u << 0)
/**
 * PEERDMA_PIN_REVOCABLE - the memory's owner may free it: the pin then ends, and
 * with it every mapping and transfer, before the memory becomes somebody else's.
 * Such a buffer cannot be attached by drivers that cannot let go.
 */
#define PEERDMA_PIN_REVOCABLE	(1u << 1)
/**
 * PEERDMA_PIN_UNCACHED - mmap() of the dma-buf is uncached instead of
 * write-combined; QUERY says what was obtained. Not for the caller's own memory,
 * which is cached as the rest of the kernel has it.
 */
#define PEERDMA_PIN_UNCACHED	(1u << 2)

/**
 * struct peerdma_pin - pin a range of memory and get a dma-buf for it
 * @size: sizeof(struct peerdma_pin)
 * @flags: PEERDMA_PIN_*
 * @provider: who owns the memory, NUL-terminated: "nvidia" for a CUDA pointer,
 *	"pci" for a part of a BAR, "user" for the caller's own host memory
 * @addr: where the range starts, as the provider counts: a CUDA virtual address,
 *	bytes from the start of the BAR, an address of the calling process
 * @len: bytes of the range, any number above 0
 * @out_fd: the dma-buf; always close-on-exec
 * @out_page_size: the provider's page size in bytes (65536 for NVIDIA)
 * @out_offset: where, in bytes, the range starts within the dma-buf
 * @device: for "pci" the function, as PEERDMA_DEVICE(); else 0
 * @bar: for "pci" the number of its BAR, 0 to 5; else 0
 *
 * The pin covers whole provider pages, the dma-buf whole CPU pages, and @addr
 * stands at @out_offset of the dma-buf; a range that starts on a CPU page has
 * @out_offset 0. FILE_IO reaches only the bytes that were asked for.
 *
 * The memory stays where it is until the last descriptor, mapping, attachment
 * and transfer of the dma-buf is gone, even when its owner frees it earlier,
 * unless the pin is PEERDMA_PIN_REVOCABLE, its device is removed or that one's
 * driver unbound, or a privileged caller takes it back with REVOKE.
 *
 * "pci" pins any memory BAR's whole pages and needs CAP_SYS_RAWIO, and a kernel
 * that is not locked down. What the kernel or a driver has claimed of the BAR is
 * refused with EBUSY; what is pinned is claimed, so no driver and no other pin
 * gets it meanwhile. A device that does not decode memory or sleeps is ENODEV;
 * one with a driver is kept awake. A BAR that is not prefetchable is mapped
 * uncached, and takes no part in FILE_IO.
 *
 * "user" pins pages that the caller can write, of anonymous or shared memory (a
 * mapped file or device is EFAULT), and counts them against RLIMIT_MEMLOCK, which
 * does not bound a caller with CAP_IPC_LOCK. They stay pinned, and the same memory
 * is seen through the dma-buf, when the caller unmaps them. They cannot be
 * PEERDMA_PIN_REVOCABLE.
 *
 * The module's parameter quota_bytes bounds what all pins of one user (real uid)
 * hold together; 0 is no bound, and CAP_SYS_RESOURCE is not bound by it.
 *
 * Sleeps. Errors: E2BIG, EOPNOTSUPP, EINVAL (@len 0, no such BAR number),
 * EOVERFLOW, ENOENT, EPERM, EFAULT, EBUSY, EDQUOT, ENOBUFS, ENODEV, EINTR,
 * ENOMEM, EMFILE and ENFILE.
 */
struct peerdma_pin {
	__u32 size;
	__u32 flags;
	char provider[PEERDMA_PROVIDER_LEN];
	__aligned_u64 addr;
	__aligned_u64 len;
	__s32 out_fd;
	__u32 out_page_size;
	__aligned_u64 out_offset;
	__u32 device;
	__u32 bar;
};

#define PEERDMA_PIN	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_PIN)

/* ---- QUERY --------------------------------------------------------------- */

/** PEERDMA_BUFFER_PERSISTENT - the owner's free() does not end the pin */
#define PEERDMA_BUFFER_PERSISTENT	(1u << 0)
/** PEERDMA_BUFFER_READ_ONLY - pinned with PEERDMA_PIN_READ_ONLY */
#define PEERDMA_BUFFER_READ_ONLY	(1u << 1)
/** PEERDMA_BUFFER_REVOKED - the memory was taken back; all verbs answer ENODEV */
#define PEERDMA_BUFFER_REVOKED		(1u << 2)
/**
 * PEERDMA_BUFFER_FOREIGN - another exporter's dma-buf: @out_provider is the
 * exporter's name, cut off where it is too long, and where the memory lies is not
 * told
 */
#define PEERDMA_BUFFER_FOREIGN		(1u << 3)

/** PEERDMA_CACHING_WRITE_COMBINED - stores are collected, loads are uncached */
#define PEERDMA_CACHING_WRITE_COMBINED	(1u << 0)
/** PEERDMA_CACHING_UNCACHED - every load and store goes to the memory */
#define PEERDMA_CACHING_UNCACHED	(1u << 1)
/** PEERDMA_CACHING_CACHED - as ordinary memory */
#define PEERDMA_CACHING_CACHED		(1u << 2)

/**
 * struct peerdma_segment - one physically contiguous part of a buffer
 * @offset: bytes from the start of the dma-buf
 * @addr: the CPU's physical address
 * @len: bytes
 */
struct peerdma_segment {
	__aligned_u64 offset;
	__aligned_u64 addr;
	__aligned_u64 len;
};

/**
 * struct peerdma_query - what a buffer is
 * @size: sizeof(struct peerdma_query)
 * @flags: must be 0
 * @buffer_fd: the dma-buf, anybody's
 * @nr_segments: room in @segments on entry, parts that there are on return;
 *	asking for any needs CAP_SYS_RAWIO, without it 0 is returned
 * @segments: user pointer to an array of struct peerdma_segment, or 0
 * @out_provider: who owns the memory
 * @out_offset: where the pinned range starts within the dma-buf, in bytes
 * @out_len: bytes of the pinned range
 * @out_page_size: the provider's page size in bytes
 * @out_state: PEERDMA_BUFFER_*
 * @out_device: the PCI function whose BAR it is, as PEERDMA_DEVICE(), or
 *	PEERDMA_DEVICE_NONE for host memory
 * @reserved: must be 0
 * @out_caching: PEERDMA_CACHING_* of the pages of the CPU's mappings so far, as
 *	read back from the page tables when they were first touched; 0 before.
 *	What the device's driver has chosen for the same memory overrides what
 *	was asked for.
 * @out_page_maps: descriptors of PAGES that keep the memory: open, or closed while
 *	somebody holds a page
 *
 * Errors: E2BIG, EOPNOTSUPP, EBADF, EINVAL (not a dma-buf), EPERM, EMSGSIZE,
 * EFAULT, ENODEV.
 */
struct peerdma_query {
	__u32 size;
	__u32 flags;
	__s32 buffer_fd;
	__u32 nr_segments;
	__aligned_u64 segments;
	char out_provider[PEERDMA_PROVIDER_LEN];
	__aligned_u64 out_offset;
	__aligned_u64 out_len;
	__u32 out_page_size;
	__u32 out_state;
	__u32 out_device;
	__u32 reserved;
	__u32 out_caching;
	__u32 out_page_maps;
};

#define PEERDMA_QUERY	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_QUERY)

/* ---- FILE_IO ------------------------------------------------------------- */

/** PEERDMA_FILE_IO_WRITE - from the buffer to the file; else the other way */
#define PEERDMA_FILE_IO_WRITE		(1u << 0)

/**
 * PEERDMA_FILE_IO_OUT_BUFFERED - the filesystem took part of the transfer
 * through its page cache although the file is open with O_DIRECT: the bytes are
 * right, but the CPU copied them. Not every filesystem lets on (ext4 does not
 * when it fills a hole of a file without extents).
 */
#define PEERDMA_FILE_IO_OUT_BUFFERED	(1u << 0)

/** PEERDMA_FILE_IO_MAX_SEGMENTS - upper bound of peerdma_file_io.nr_segments */
#define PEERDMA_FILE_IO_MAX_SEGMENTS	65536

/**
 * struct peerdma_file_segment - one contiguous part of a transfer
 * @file_offset: bytes from the start of the file, as pread(2) counts
 * @buffer_offset: bytes from the start of the pinned range: byte 0 is the one
 *	that peerdma_pin.addr named
 * @len: bytes
 * @out_result: bytes moved, or a negative errno when none was. Less than @len
 *	is what read(2) would have returned at the end of the file, or what was
 *	moved before an error or a full disk.
 */
struct peerdma_file_segment {
	__aligned_u64 file_offset;
	__aligned_u64 buffer_offset;
	__aligned_u64 len;
	__s64 out_result;
};

/**
 * struct peerdma_file_io - move data between a file and a buffer
 * @size: sizeof(struct peerdma_file_io)
 * @flags: PEERDMA_FILE_IO_WRITE
 * @buffer_fd: the dma-buf, anybody's: another exporter's will do when its memory
 *	lies in one BAR. A call or command attaches it to the drive and maps the
 *	whole of it, unless another one under way has, so few large ones are
 *	better than many small ones.
 * @file_fd: a regular file or block device, open with O_DIRECT and for reading
 *	or writing as the direction asks
 * @segments: user pointer to an array of struct peerdma_file_segment
 * @nr_segments: how many, at most PEERDMA_FILE_IO_MAX_SEGMENTS; 0 moves nothing
 *	and answers whether this file could be moved to and from this buffer
 * @depth: at most this many requests of the transfer in flight at once; 0 lets
 *	the kernel choose. A segment may become several requests.
 * @out_bytes: the sum of what the segments' @out_result say was moved
 * @out_flags: PEERDMA_FILE_IO_OUT_*
 * @out_reason: enum peerdma_reason with EMEDIUMTYPE and EREMOTEIO, else 0
 * @out_align: what @file_offset and @len must be multiples of, in bytes
 * @out_device: the PCI function of the drive, as PEERDMA_DEVICE()
 * @out_memory_align: what the place in the dma-buf (peerdma_pin.out_offset plus
 *	@buffer_offset) must be a multiple of, in bytes
 * @reserved: must be 0
 *
 * Segments are in flight together and end in any order; that they do not overlap
 * is the caller's business, as with io_uring.
 *
 * As an ioctl it returns when all is done: 0 when every segment was moved as
 * read(2) or write(2) would have, else the errno of the first segment, in the
 * order of the array, that was not. The out_ fields are written in either case.
 * Each segment's @out_result is written once the two ends have been found good;
 * when a segment itself is bad (EINVAL, EOVERFLOW, ERANGE) none is begun, it says
 * so, and the others say 0.
 *
 * As an io_uring command: opcode IORING_OP_URING_CMD, fd /dev/peerdma, cmd_op
 * PEERDMA_FILE_IO, and the struct's address in the first eight bytes of cmd[],
 * the next eight zero. The completion's res holds the bytes moved (all segments
 * together at most 2^31 - 1) or a negative errno. The struct and the array must
 * stay until then. @out_result and the out_ fields are written when there is
 * more than one segment.
 *
 * As with pread(2) on a file, a signal that does not kill does not interrupt. A
 * fatal one ends the call with what was moved so far; what is in flight is waited
 * for, since the drive cannot be called back.
 *
 * The file's own rules hold as for pread(2) and pwrite(2): permission and
 * security modules, RLIMIT_FSIZE, immutable and append-only files, frozen
 * filesystems. Dirty page-cache pages are written out before they are read
 * around, and written ranges are dropped from the cache.
 *
 * Errors: E2BIG, EOPNOTSUPP, EINVAL, EOVERFLOW, EFAULT, EBADF, EACCES, ERANGE,
 * EISDIR, ESPIPE, EBADFD, EMEDIUMTYPE, EREMOTEIO, ENODEV, EINTR, ENOMEM, and the
 * file's own.
 */
struct peerdma_file_io {
	__u32 size;
	__u32 flags;
	__s32 buffer_fd;
	__s32 file_fd;
	__aligned_u64 segments;
	__u32 nr_segments;
	__u32 depth;
	__aligned_u64 out_bytes;
	__u32 out_flags;
	__u32 out_reason;
	__u32 out_align;
	__u32 out_device;
	__u32 out_memory_align;
	__u32 reserved;
};

#define PEERDMA_FILE_IO	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_FILE_IO)

/* ---- ROUTE --------------------------------------------------------------- */

/**
 * struct peerdma_route - can one PCI function reach another one's BARs
 * @size: sizeof(struct peerdma_route)
 * @flags: must be 0
 * @from_device: the function that would do the DMA, as PEERDMA_DEVICE()
 * @to_device: the function whose BAR would be read or written
 * @out_reason: PEERDMA_REASON_NONE when the way is known to work
 * @out_via: the bridge that decided: the switch port that both hang on, or the
 *	root port on the way; PEERDMA_DEVICE_NONE when there is none
 * @out_translated: 1 when an IOMMU translates for @from_device
 * @out_distance: PCI bridges on the way
 *
 * Errors: E2BIG, EOPNOTSUPP, ENOENT, EFAULT.
 */
struct peerdma_route {
	__u32 size;
	__u32 flags;
	__u32 from_device;
	__u32 to_device;
	__u32 out_reason;
	__u32 out_via;
	__u32 out_translated;
	__u32 out_distance;
};

#define PEERDMA_ROUTE	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_ROUTE)

/* ---- WATCH and REVOKE ---------------------------------------------------- */

/**
 * struct peerdma_watch - be told when a buffer is revoked
 * @size: sizeof(struct peerdma_watch)
 * @flags: must be 0
 * @buffer_fd: the dma-buf
 * @event_fd: an eventfd(2); its count goes up by one when a revocation is through,
 *	at once when it already is. The buffer holds it until it is closed; there
 *	may be up to 1024.
 *
 * Errors: E2BIG, EOPNOTSUPP, EBADF, EINVAL (no dma-buf, no eventfd), EUSERS,
 * ENOMEM.
 */
struct peerdma_watch {
	__u32 size;
	__u32 flags;
	__s32 buffer_fd;
	__s32 event_fd;
};

#define PEERDMA_WATCH	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_WATCH)

/**
 * struct peerdma_revoke - take a buffer's memory back
 * @size: sizeof(struct peerdma_revoke)
 * @flags: must be 0
 * @buffer_fd: the dma-buf
 * @reserved: must be 0
 *
 * Needs CAP_SYS_ADMIN. Returns when nothing reaches the memory any more: devices
 * and transfers have ended, and the CPU's mappings answer SIGBUS. What is in
 * flight is waited for, and so is whoever holds a page of a PAGES mapping, for
 * ever if need be. A fatal signal ends the waiting, not the revocation.
 *
 * Errors: E2BIG, EOPNOTSUPP, EBADF, EINVAL, EPERM, EINTR.
 */
struct peerdma_revoke {
	__u32 size;
	__u32 flags;
	__s32 buffer_fd;
	__u32 reserved;
};

#define PEERDMA_REVOKE	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_REVOKE)

/* ---- MAP_DEVICE ---------------------------------------------------------- */

/** PEERDMA_MAP_DEVICE_IOVA - at @iova, and nowhere else */
#define PEERDMA_MAP_DEVICE_IOVA		(1u << 0)
/**
 * PEERDMA_MAP_DEVICE_READ_ONLY - the device reads only; an IOMMU sees to it, and
 * where none translates it is the caller's word
 */
#define PEERDMA_MAP_DEVICE_READ_ONLY	(1u << 1)

/**
 * struct peerdma_device_segment - one contiguous part of a mapping
 * @addr: for the device's DMA
 * @len: bytes
 */
struct peerdma_device_segment {
	__aligned_u64 addr;
	__aligned_u64 len;
};

/**
 * struct peerdma_map_device - addresses by which a PCI device reaches a buffer
 * @size: sizeof(struct peerdma_map_device)
 * @flags: PEERDMA_MAP_DEVICE_*
 * @buffer_fd: the dma-buf, anybody's
 * @device: the function that will do the DMA, as PEERDMA_DEVICE()
 * @offset: where to begin, in bytes from the start of the pinned range
 * @len: bytes, any number above 0
 * @iova: with PEERDMA_MAP_DEVICE_IOVA, the device's address of the byte at
 *	@offset; it must lie in a CPU page as that byte does in the dma-buf
 *	(peerdma_pin.out_offset plus @offset). Else 0.
 * @segments: user pointer to an array of struct peerdma_device_segment: the bytes
 *	asked for, in order, what is contiguous for the device merged, however long.
 *	How much one DMA may move is between the device and the caller.
 * @nr_segments: room in @segments on entry, parts that there are on return
 * @address_bits: how many bits of address the device drives, 24 to 64; only for one
 *	that is bound to peerdma-stub, and remembered until it is no longer. 0: as
 *	before, which is 32 at first
 * @out_fd: the mapping; always close-on-exec. Closing it ends the mapping.
 * @out_reason: enum peerdma_reason with EREMOTEIO, else 0
 * @out_via: the bridge that decided, as for ROUTE
 * @out_translated: 1 when an IOMMU translates the addresses
 * @reserved: must be 0
 *
 * Needs CAP_SYS_RAWIO. Whole CPU pages become reachable, not only the bytes asked
 * for. Not for the provider "user": EOPNOTSUPP. Another exporter's dma-buf will do
 * when its memory lies in one BAR; to learn where, and to hold it, it is attached
 * to a function of the machine that a driver works with, the memory's own device
 * where that will do, and stays so until the mapping's descriptor is closed.
 *
 * A device that is bound to a driver gets addresses from the kernel's DMA API,
 * below the mask that its driver has set: a segment for each physically contiguous
 * part of the buffer, or fewer where these happen to be neighbours for the device,
 * which may differ from one call to the next. A device without a driver, or bound to
 * peerdma-stub, is put into an IOMMU domain that holds nothing but its mappings
 * (those of its whole IOMMU group), and gets one segment: at @iova, or where room
 * is. Where no IOMMU translates for it the addresses are those of the bus.
 *
 * peerdma-stub is a driver that does nothing; it binds by the device's
 * driver_override in sysfs only. It keeps other drivers off.
 *
 * A mapping ends when its descriptor is closed; when the buffer is revoked, or
 * another exporter moves the memory or takes it back; when a driver is bound to the
 * device or unbound from it; when the device is removed; when the driver of the
 * function that another exporter's dma-buf is attached to goes. From then on an
 * IOMMU blocks the device. Where none translates, a device without a driver of its
 * own is no longer a bus master then; one with a driver cannot be stopped, and is
 * not given a PEERDMA_PIN_REVOCABLE buffer, nor what its exporter may take back.
 * Closing the last
 * mapping of a device without a driver of its own ends its bus mastering, too.
 *
 * Sleeps. Errors: E2BIG, EOPNOTSUPP, EPERM, EINVAL, EOVERFLOW, EBADF, ERANGE,
 * EACCES (a read-only dma-buf without PEERDMA_MAP_DEVICE_READ_ONLY), ENOENT,
 * EBUSY, EREMOTEIO, EDOM, EADDRNOTAVAIL, EADDRINUSE, ENODEV, EINTR, EMSGSIZE,
 * EFAULT, ENOMEM, EMFILE and ENFILE.
 */
struct peerdma_map_device {
	__u32 size;
	__u32 flags;
	__s32 buffer_fd;
	__u32 device;
	__aligned_u64 offset;
	__aligned_u64 len;
	__aligned_u64 iova;
	__aligned_u64 segments;
	__u32 nr_segments;
	__u32 address_bits;
	__s32 out_fd;
	__u32 out_reason;
	__u32 out_via;
	__u32 out_translated;
	__aligned_u64 reserved;
};

#define PEERDMA_MAP_DEVICE	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_MAP_DEVICE)
/* ---- PAGES --------------------------------------------------------------- */

/**
 * PEERDMA_PAGES_ANY_ROUTE - do not ask whether the machine's devices reach the
 * memory; needs CAP_SYS_RAWIO. I/O of a device that does not reach it is lost, or
 * lands elsewhere, without an error.
 */
#define PEERDMA_PAGES_ANY_ROUTE		(1u << 0)

/**
 * struct peerdma_page_map - a descriptor whose mmap() is made of struct pages
 * @size: sizeof(struct peerdma_page_map)
 * @flags: PEERDMA_PAGES_*
 * @buffer_fd: the dma-buf of a pin that is not PEERDMA_PIN_REVOCABLE, or another
 *	exporter's that is not taken back at any moment
 * @out_fd: the descriptor, always close-on-exec; for reading only where the dma-buf
 *	is
 * @out_reason: enum peerdma_reason with EREMOTEIO, else 0
 * @out_device: the PCI function that does not reach the memory, as
 *	PEERDMA_DEVICE(); PEERDMA_DEVICE_NONE when it is not about one
 *
 * mmap() of @out_fd, MAP_SHARED only, has the offsets of the dma-buf. The mapping
 * is used as RAM is: by the CPU, write-combined, and as the memory of read(2) and
 * write(2) with O_DIRECT, readv(2), libaio, io_uring, its registered buffers
 * (where the kernel takes mappings of files for them), vmsplice(2), VFIO, RDMA. A
 * device then moves the data itself. A child does not inherit the mapping, unless
 * its parent asks for that, where the kernel lets it (MADV_DOFORK), and it does not
 * grow.
 *
 * Whoever holds a page (a request in flight, a registered buffer) holds the pin,
 * also when all descriptors and mappings are closed and when the memory's owner
 * has freed it: nobody else gets the memory before. Not even REVOKE, the GPU
 * driver's unbinding or the device's removal ends that: they make mappings answer
 * SIGBUS and wait for who holds pages.
 *
 * Another exporter's dma-buf is attached as for MAP_DEVICE, for as long as there is a
 * descriptor, a mapping or somebody who holds a page. The unbinding of the driver
 * of the function that it is attached to does, and waits, as that of the GPU's.
 *
 * Nobody can tell beforehand which device's DMA the pages will meet. So each
 * function of the machine that does DMA must be known to reach the memory, as by
 * ROUTE, or there are no pages. A function that is plugged in later is not asked.
 *
 * Sleeps. Errors: E2BIG, EOPNOTSUPP, EPERM, EBADF, EINVAL (not a dma-buf),
 * EREMOTEIO, ENODEV, EINTR, ENOMEM, EMFILE, ENFILE.
 */
struct peerdma_page_map {
	__u32 size;
	__u32 flags;
	__s32 buffer_fd;
	__s32 out_fd;
	__u32 out_reason;
	__u32 out_device;
};

#define PEERDMA_PAGES	_IO(PEERDMA_IOCTL_TYPE, PEERDMA_NR_PAGES)

#endif /* _UAPI_PEERDMA_H */
