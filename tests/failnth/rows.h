/* SPDX-License-Identifier: MIT */
/*
 * The table of tests/failnth/failnth.c. uapi_list.h, made from
 * include/uapi/peerdma.h, says of which ioctls there must be rows.
 */
#ifndef ROWS_H
#define ROWS_H

#include "calls.h"

enum {
	/* It makes struct pages, which stay for a while. */
	NEW_PAGES	= 1 << 0,
	/* io_uring has answers of its own, and repeats some of its copies. */
	RING		= 1 << 1,
	/* Another task than the caller does the work. */
	WORKER		= 1 << 2,
	/* For the card without a driver of its own. */
	STUB		= 1 << 3,
	/* A device's DMA is mapped. */
	DMA		= 1 << 4,
	/* The buffer is then mapped write-combined. */
	COMBINED	= 1 << 5,
	/* It moves bytes of the drive's. */
	MOVES		= 1 << 6,
	/* It moves bytes of the file's. */
	MOVES_FILE	= 1 << 7,
};

/**
 * struct verb - something that the module does
 * @name: for people
 * @make: what it needs; nothing fails there
 * @call: it; 0 or a negative errno
 * @drop: undoes both; nothing fails there
 * @also: another errno than ENOMEM that says that memory was short
 * @flags: as above
 */
struct verb {
	const char *name;
	void (*make)(void);
	int (*call)(void);
	void (*drop)(void);
	int also;
	unsigned int flags;
};

static const struct verb rows_INFO[] = {
	{ "INFO", NULL, call_info, NULL, 0, 0 },
	{ },
};

static const struct verb rows_ROUTE[] = {
	{ "ROUTE", NULL, call_route, NULL, 0, 0 },
	{ },
};

static const struct verb rows_PIN[] = {
	/* What NVIDIA's driver has no memory for it does not tell apart. */
	{ "PIN of nvidia", NULL, call_pin_nvidia, drop_made, ENOBUFS, 0 },
	{ "PIN of nvidia, revocable", NULL, call_pin_revocable, drop_made,
	  ENOBUFS, 0 },
	{ "PIN of pci", NULL, call_pin_pci, drop_made, 0, 0 },
	{ "PIN of user", make_user, call_pin_user, drop_made, 0, 0 },
	{ "close of a buffer", make_pin, call_close, drop_pin, 0, 0 },
	{ },
};

static const struct verb rows_QUERY[] = {
	{ "QUERY", make_pin, call_query, drop_pin, 0, 0 },
	{ "QUERY of another exporter's", make_foreign, call_query, drop_pin,
	  0, 0 },
	{ },
};

static const struct verb rows_WATCH[] = {
	{ "WATCH", make_pin, call_watch, drop_pin, 0, 0 },
	{ },
};

static const struct verb rows_REVOKE[] = {
	{ "REVOKE", make_used, call_revoke, drop_mapped, 0, 0 },
	{ },
};

static const struct verb rows_MAP_DEVICE[] = {
	{ "MAP_DEVICE for the drive", make_pin, call_map_drive, drop_pin,
	  EREMOTEIO, DMA },
	{ "MAP_DEVICE for a card", make_pin, call_map_card, drop_pin,
	  EREMOTEIO, STUB },
	{ "MAP_DEVICE where it is chosen", make_pin, call_map_chosen,
	  drop_pin, EREMOTEIO, STUB },
	{ "MAP_DEVICE of another exporter's", make_foreign, call_map_drive,
	  drop_pin, EREMOTEIO, DMA },
	{ "MAP_DEVICE of another exporter's, pinned, for a card",
	  make_foreign_pinned, call_map_card, drop_pin, EREMOTEIO,
	  DMA | STUB },
	{ "close of the drive's mapping", make_map_drive, call_close_made,
	  drop_pin, 0, DMA },
	{ "close of the card's mapping", make_map_card, call_close_made,
	  drop_pin, 0, STUB },
	{ "close of the mapping of another exporter's", make_map_foreign,
	  call_close_made, drop_pin, 0, DMA },
	{ },
};

static const struct verb rows_PAGES[] = {
	{ "PAGES", make_pin, call_pages, drop_pin, 0, 0 },
	{ "PAGES of another exporter's", make_foreign, call_pages, drop_pin,
	  EREMOTEIO, DMA },
	{ "PAGES of another exporter's, pinned", make_foreign_pinned,
	  call_pages, drop_pin, EREMOTEIO, DMA },
	{ "mmap() of pages", make_pages, call_map_pages, drop_mapped, 0, 0 },
	{ "mmap() of another exporter's pages", make_foreign_pages,
	  call_map_pages, drop_mapped, 0, DMA },
	{ "a fault for pages", make_pages_mapped, call_touch, drop_mapped, 0,
	  0 },
	{ "a fault for another exporter's pages", make_foreign_pages_mapped,
	  call_touch, drop_mapped, 0, DMA },
	{ "munmap() of pages", make_pages_mapped, call_unmap, drop_mapped, 0,
	  0 },
	{ "close of pages", make_pages, call_close_made, drop_pin, 0, 0 },
	{ "close of another exporter's pages", make_foreign_pages,
	  call_close_made, drop_pin, 0, DMA },
	{ },
};

static const struct verb rows_FILE_IO[] = {
	{ "FILE_IO", make_pin, call_read, drop_pin, 0, MOVES | DMA },
	{ "FILE_IO, three segments", make_pin, call_read_many, drop_pin, 0,
	  MOVES | DMA },
	{ "FILE_IO, writing", make_pin, call_write, drop_pin, 0, MOVES | DMA },
	{ "FILE_IO, writing three", make_pin, call_write_many, drop_pin, 0,
	  MOVES | DMA },
	{ "FILE_IO of a file", make_pin, call_read_file, drop_pin, 0,
	  MOVES_FILE | DMA },
	{ "FILE_IO of host memory", make_user_pin, call_read, drop_pin, 0,
	  MOVES | DMA },
	{ "FILE_IO, new pages", make_new_unit, call_ask, drop_mapped, 0,
	  NEW_PAGES | COMBINED },
	{ "FILE_IO of another exporter's", make_foreign, call_read, drop_pin,
	  EREMOTEIO, MOVES | DMA },
	{ "FILE_IO of another exporter's and a file", make_foreign_pinned,
	  call_read_file, drop_pin, EREMOTEIO, MOVES_FILE | DMA },
	{ "FILE_IO by a ring", make_ring, call_ring_read, drop_ring, 0,
	  MOVES | DMA | RING },
	{ "FILE_IO by a ring, three segments", make_ring, call_ring_many,
	  drop_ring, 0, MOVES | DMA | RING },
	{ "FILE_IO by a ring's worker", make_pin, call_ring_many, drop_pin, 0,
	  MOVES | DMA | WORKER },
	{ "FILE_IO by a ring's worker, writing", make_pin, call_ring_write,
	  drop_pin, 0, MOVES | DMA | WORKER },
	{ },
};

static const struct verb rows_others[] = {
	{ "the list of buffers", make_pin, call_list, drop_pin, 0, 0 },
	{ "mmap()", make_pin, call_map, drop_mapped, 0, COMBINED },
	{ "a fault", make_mapped, call_touch, drop_mapped, 0, 0 },
	{ "a debugger's read", make_mapped, call_debugger, drop_mapped, EIO,
	  0 },
	{ "munmap()", make_mapped, call_unmap, drop_mapped, 0, 0 },
	{ "dma_buf_attach()", make_opened, call_attach, drop_attached, 0, 0 },
	{ "dma_buf_map_attachment()", make_attached, call_card, drop_attached,
	  EIO, DMA },
	{ "dma_buf_map_attachment() of host memory", make_user_attached,
	  call_card, drop_attached, EIO, DMA },
	{ "dma_buf_detach()", make_attached, call_detach, drop_attached, 0,
	  DMA },
	{ },
};

/* An ioctl without rows_ and its name does not build. */
#define VERB(name)	rows_##name,
#define RESERVED(type, field)
#define DESCRIPTOR(type, field)
static const struct verb *const tables[] = {
#include "uapi_list.h"
	rows_others,
};
#undef VERB
#undef RESERVED
#undef DESCRIPTOR

#endif /* ROWS_H */
