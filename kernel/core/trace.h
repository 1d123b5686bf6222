/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What can be watched, as peerdma:NAME, by perf, bpftrace and tracefs.
 *
 * A buffer is known by the inode number of its dma-buf, which fstat(2), fdinfo
 * and debugfs tell too. No event holds an address, be it the kernel's, the
 * CPU's or a device's. Whoever may trace sees the buffers of all users.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM peerdma

#if !defined(PEERDMA_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define PEERDMA_TRACE_H

#include <linux/tracepoint.h>

#include "core.h"

TRACE_EVENT(pin,
	TP_PROTO(const struct peerdma_pin *pin,
		 const struct peerdma_buffer *buffer, int ret),
	TP_ARGS(pin, buffer, ret),

	TP_STRUCT__entry(
		__field(u64, ino)
		__field(u64, len)
		__field(u64, pinned)
		__field(u32, flags)
		__field(int, ret)
		__array(char, provider, PEERDMA_PROVIDER_LEN)
	),
	TP_fast_assign(
		__entry->ino = ret ? 0 : peerdma_buffer_number(buffer);
		__entry->len = pin->len;
		__entry->pinned = ret ? 0 : buffer->pinned.len;
		__entry->flags = pin->flags;
		__entry->ret = ret;
		strscpy_pad(__entry->provider, pin->provider,
			    PEERDMA_PROVIDER_LEN);
	),
	TP_printk("buffer=%llu provider=%s len=%llu pinned=%llu mode=%s ret=%d",
		  __entry->ino, __entry->provider, __entry->len,
		  __entry->pinned,
		  __print_flags(__entry->flags, "|",
				{ PEERDMA_PIN_READ_ONLY, "read-only" },
				{ PEERDMA_PIN_REVOCABLE, "revocable" },
				{ PEERDMA_PIN_UNCACHED, "uncached" }),
		  __entry->ret)
);

DECLARE_EVENT_CLASS(buffer_event,
	TP_PROTO(const struct peerdma_buffer *buffer),
	TP_ARGS(buffer),

	TP_STRUCT__entry(
		__field(u64, ino)
		__field(u64, pinned)
	),
	TP_fast_assign(
		__entry->ino = peerdma_buffer_number(buffer);
		__entry->pinned = buffer->pinned.len;
	),
	TP_printk("buffer=%llu pinned=%llu", __entry->ino, __entry->pinned)
);

/* The pin has ended; after a revocation too, which this is the end of. */
DEFINE_EVENT(buffer_event, unpin,
	TP_PROTO(const struct peerdma_buffer *buffer),
	TP_ARGS(buffer)
);

/* A revocation begins. */
DEFINE_EVENT(buffer_event, revoke,
	TP_PROTO(const struct peerdma_buffer *buffer),
	TP_ARGS(buffer)
);

/* @dev: who gets the mapping; NULL for the CPU */
DECLARE_EVENT_CLASS(map_event,
	TP_PROTO(const struct peerdma_buffer *buffer, const struct device *dev,
		 u64 offset, u64 len),
	TP_ARGS(buffer, dev, offset, len),

	TP_STRUCT__entry(
		__field(u64, ino)
		__field(u64, offset)
		__field(u64, len)
		__array(char, by, 32)
	),
	TP_fast_assign(
		__entry->ino = peerdma_buffer_number(buffer);
		__entry->offset = offset;
		__entry->len = len;
		strscpy_pad(__entry->by, dev ? dev_name(dev) : "cpu", 32);
	),
	TP_printk("buffer=%llu by=%s offset=%llu len=%llu", __entry->ino,
		  __entry->by, __entry->offset, __entry->len)
);

DEFINE_EVENT(map_event, map,
	TP_PROTO(const struct peerdma_buffer *buffer, const struct device *dev,
		 u64 offset, u64 len),
	TP_ARGS(buffer, dev, offset, len)
);

DEFINE_EVENT(map_event, unmap,
	TP_PROTO(const struct peerdma_buffer *buffer, const struct device *dev,
		 u64 offset, u64 len),
	TP_ARGS(buffer, dev, offset, len)
);

TRACE_EVENT(io_start,
	TP_PROTO(const struct peerdma_request *request, u64 file_offset),
	TP_ARGS(request, file_offset),

	TP_STRUCT__entry(
		__field(u64, ino)
		__field(u64, offset)
		__field(u64, file_offset)
		__field(u64, file_ino)
		__field(u32, file_dev)
		__field(u32, len)
		__field(bool, write)
	),
	TP_fast_assign(
		const struct inode *inode =
			file_inode(request->transfer->file);

		__entry->ino = peerdma_buffer_number(request->transfer->buffer);
		__entry->offset = request->offset;
		__entry->file_offset = file_offset;
		__entry->file_ino = inode->i_ino;
		__entry->file_dev = inode->i_sb->s_dev;
		__entry->len = request->len;
		__entry->write = request->transfer->write;
	),
	TP_printk("buffer=%llu offset=%llu %s dev=%u:%u ino=%llu file_offset=%llu len=%u",
		  __entry->ino, __entry->offset,
		  __entry->write ? "write" : "read", MAJOR(__entry->file_dev),
		  MINOR(__entry->file_dev), __entry->file_ino,
		  __entry->file_offset, __entry->len)
);

/* Of those in flight, buffer and offset say which one it was. */
TRACE_EVENT(io_done,
	TP_PROTO(const struct peerdma_request *request),
	TP_ARGS(request),

	TP_STRUCT__entry(
		__field(u64, ino)
		__field(u64, offset)
		__field(u32, len)
		__field(bool, write)
		__field(long, result)
	),
	TP_fast_assign(
		__entry->ino = peerdma_buffer_number(request->transfer->buffer);
		__entry->offset = request->offset;
		__entry->len = request->len;
		__entry->write = request->transfer->write;
		__entry->result = request->result;
	),
	TP_printk("buffer=%llu offset=%llu %s len=%u result=%ld",
		  __entry->ino, __entry->offset,
		  __entry->write ? "write" : "read", __entry->len,
		  __entry->result)
);

#endif /* PEERDMA_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
