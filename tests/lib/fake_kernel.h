/* SPDX-License-Identifier: MIT */
/*
 * A /dev/peerdma for unit tests of the library, in place of ioctl(2): its
 * dma-bufs are memory files, its FILE_IO is pread(2) and pwrite(2) under the
 * rules of the uAPI header. Beside it pread, pwrite and open can be made to
 * fail, and there is an io_uring that knows FILE_IO, reads and writes. The library's
 * objects see it through the linker's --wrap.
 */
#ifndef FAKE_KERNEL_H
#define FAKE_KERNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FAKE_DEVICE	"/dev/null"	/* for peerdma_open_opts.device */
#define FAKE_ALIGN	512
/* As NVMe: memory in units of four bytes. */
#define FAKE_MEMORY_ALIGN 4
/* Memory that a provider knows and CUDA does not. */
#define FAKE_ADDR	0x12340000ull
#define FAKE_LEN	((size_t)32 << 20)

struct fake_kernel {
	bool absent;		/* FAKE_DEVICE is no peerdma */
	int pin_errno;
	int pin_flags;		/* of the last PIN */
	int probe_errno;	/* of FILE_IO with no segments */
	int io_errno;		/* of FILE_IO with segments ... */
	int io_skip;		/* ... after so many */
	int io_reason;
	size_t io_limit;	/* FILE_IO moves no more at once, when not 0 */
	uint64_t io_bad_at;	/* ... or fails for the segment with that byte */
	bool io_nothing;	/* ... or nothing, and finds nothing wrong */
	uint32_t io_out_flags;
	bool io_old;		/* a module that tells no out_memory_align */
	int interrupts;		/* that many FILE_IO answer EINTR first */
	int query_errno;
	int route_errno;
	int route_reason;
	int rw_errno;		/* of pread and pwrite of the library ... */
	off_t rw_offset;	/* ... that start here or behind */
	bool rw_direct;		/* ... of those with O_DIRECT */
	bool resident;		/* all files are in the page cache ... */
	bool no_cachestat;	/* ... and mincore(2) must say so */
	bool stranger;		/* the files are somebody else's, to be read only */
	off_t nowait_offset;	/* of the last read that was not to wait */
	bool no_pagemap_scan;	/* an older kernel's /proc/self/pagemap */
	atomic_int nr_opens;	/* by the library, counted */
	atomic_int nr_fstats;	/* counted */
	int open_errno;		/* of open(2) of what starts with ... */
	const char *open_path;
	int nr_file_io;		/* counted */
	atomic_int nr_peeks;	/* reads with RWF_NOWAIT, counted */
	atomic_int nr_probes;	/* FILE_IO without segments, counted */
	int gate;		/* FILE_IO with segments waits while it is not 0 */
	bool uring;		/* the module knows io_uring commands ... */
	int uring_errno;	/* ... but io_uring_setup(2) is forbidden */
	bool uring_real;	/* ... or the machine's own, for FAKE_DEVICE */
	int nr_setups;		/* io_uring_setup(2), counted */
	int enter_errno;	/* ... or io_uring_enter(2) ... */
	int enter_skip;		/* ... after so many */
	int table_errno;	/* ... or a table of buffers */
	int register_errno;	/* ... or a buffer in it ... */
	int register_skip;	/* ... after so many */
	ssize_t uring_limit;	/* reads and writes move no more, when not 0 */
	int nr_requests;	/* reads and writes, counted */
	int nr_failed;		/* ... of those, without being told to */
	int nr_fixed;		/* ... of those, with a buffer of the table */
	int nr_commands;	/* counted, of those taken */
	int cpus;		/* for the process, 0: 16 */
	atomic_int nr_preads;	/* counted */
	uint32_t fs_type;	/* of every file, when not 0 */
	atomic_int clock_ahead;	/* seconds */
	_Atomic uint64_t stopped_ns; /* CLOCK_MONOTONIC, when not 0: it goes on ... */
	uint64_t fstat_ns;	/* ... by so much in each fstat(2) ... */
	uint64_t slept_ns;	/* ... and in nanosleep(2), counted */
	const char *root;	/* where the library's fopen() looks, or NULL */
};

extern struct fake_kernel fake_kernel;

void fake_kernel_reset(void);
unsigned char *fake_kernel_memory(void);
void fake_kernel_take_back(size_t keep);
int fake_kernel_foreign(size_t len);
int fake_kernel_count_fds(void);
void fake_kernel_open_gate(void);
int fake_kernel_in_gate(void);

#endif /* FAKE_KERNEL_H */
