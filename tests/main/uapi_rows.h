/* SPDX-License-Identifier: MIT */
/*
 * A row for each ioctl and for the io_uring command: an argument that is
 * accepted, and the call. For tests/main/uapi_sweep.c.
 *
 * uapi_list.h is made from include/uapi/peerdma.h: a verb of the header without
 * a row here does not compile, and its reserved fields and descriptors are found
 * by themselves.
 */
#ifndef UAPI_ROWS_H
#define UAPI_ROWS_H

#include "../t_uring.h"

#define PAGE	4096u

static int dev;
static int drive;
static int event;
static struct io_uring ring;
static struct t_buffer any;
/* Is revoked again and again. */
static int victim;
static uint32_t drive_number, gpu_number;

union any_arg {
	uint32_t size;
	struct peerdma_info info;
	struct peerdma_pin pin;
	struct peerdma_query query;
	struct peerdma_file_io file_io;
	struct peerdma_route route;
	struct peerdma_watch watch;
	struct peerdma_revoke revoke;
	struct peerdma_page_map pages;
	struct peerdma_map_device map_device;
};

/**
 * struct verb - an ioctl or command, and an argument that it accepts
 * @name: for people
 * @type: the struct's name
 * @nr: its number
 * @size: of its struct
 * @min_size: of that of its first version
 * @known_flags: those that are no error
 * @made: where in the struct the descriptor is that it makes, or 0
 * @silent: it writes nothing to the argument
 * @twice: the argument is read once more, by a worker; only that counts
 * @fill: makes the argument
 * @call: 0 or a negative errno
 */
struct verb {
	const char *name;
	const char *type;
	unsigned int nr;
	uint32_t size;
	uint32_t min_size;
	uint32_t known_flags;
	uint32_t made;
	bool silent;
	bool twice;
	void (*fill)(union any_arg *arg);
	int (*call)(const struct verb *verb, void *arg);
};

/* @last: the last field of the struct's first version. */
#define STRUCT(type_, last)						\
	.type = #type_,							\
	.size = sizeof(struct type_),					\
	.min_size = offsetof(struct type_, last) +			\
		    sizeof(((struct type_ *)0)->last)

static int call_ioctl(const struct verb *verb, void *arg)
{
	return t_ioctl(dev, verb->nr, arg);
}

static int call_ring(const struct verb *verb, void *arg)
{
	long long moved;

	(void)verb;
	t_ring_put(&ring, dev, arg, 1);
	io_uring_submit(&ring);
	moved = t_ring_take(&ring, NULL);
	return moved < 0 ? moved : 0;
}

/* ---- one row for each verb ------------------------------------------------ */

static void fill_info(union any_arg *arg)
{
	arg->size = sizeof(struct peerdma_info);
}

static const struct verb verb_INFO = {
	"INFO", STRUCT(peerdma_info, out_page_size), .nr = PEERDMA_NR_INFO,
	.fill = fill_info, .call = call_ioctl,
};

static void fill_pin(union any_arg *arg)
{
	arg->pin = (struct peerdma_pin){
		.size = sizeof(arg->pin),
		.provider = "nvidia",
		.addr = any.ptr,
		.len = PAGE,
		.out_fd = -1,
	};
}

static const struct verb verb_PIN = {
	"PIN", STRUCT(peerdma_pin, out_offset), .nr = PEERDMA_NR_PIN,
	.known_flags = PEERDMA_PIN_READ_ONLY | PEERDMA_PIN_REVOCABLE |
		       PEERDMA_PIN_UNCACHED,
	.made = offsetof(struct peerdma_pin, out_fd),
	.fill = fill_pin, .call = call_ioctl,
};

static void fill_query(union any_arg *arg)
{
	arg->query = (struct peerdma_query){
		.size = sizeof(arg->query),
		.buffer_fd = any.fd,
	};
}

static const struct verb verb_QUERY = {
	"QUERY", STRUCT(peerdma_query, reserved), .nr = PEERDMA_NR_QUERY,
	.fill = fill_query, .call = call_ioctl,
};

static void fill_file_io(union any_arg *arg)
{
	arg->file_io = (struct peerdma_file_io){
		.size = sizeof(arg->file_io),
		.buffer_fd = any.fd,
		.file_fd = drive,
	};
}

static const struct verb verb_FILE_IO = {
	"FILE_IO", STRUCT(peerdma_file_io, reserved), .nr = PEERDMA_NR_FILE_IO,
	.known_flags = PEERDMA_FILE_IO_WRITE,
	.fill = fill_file_io, .call = call_ioctl,
};

/* By a worker of the ring's, which may block. */
static const struct verb verb_ring = {
	"FILE_IO by a ring", STRUCT(peerdma_file_io, reserved),
	.nr = PEERDMA_NR_FILE_IO, .known_flags = PEERDMA_FILE_IO_WRITE,
	.twice = true, .fill = fill_file_io, .call = call_ring,
};

static void fill_one(union any_arg *arg)
{
	static struct peerdma_file_segment segment;

	segment = (struct peerdma_file_segment){ .len = PAGE };
	fill_file_io(arg);
	arg->file_io.segments = (uintptr_t)&segment;
	arg->file_io.nr_segments = 1;
}

/* At once, by the task that submits; its result is the completion's. */
static const struct verb verb_ring_one = {
	"FILE_IO by a ring, one segment", STRUCT(peerdma_file_io, reserved),
	.nr = PEERDMA_NR_FILE_IO, .known_flags = PEERDMA_FILE_IO_WRITE,
	.silent = true, .fill = fill_one, .call = call_ring,
};

static void fill_route(union any_arg *arg)
{
	arg->route = (struct peerdma_route){
		.size = sizeof(arg->route),
		.from_device = drive_number,
		.to_device = gpu_number,
	};
}

static const struct verb verb_ROUTE = {
	"ROUTE", STRUCT(peerdma_route, out_distance), .nr = PEERDMA_NR_ROUTE,
	.fill = fill_route, .call = call_ioctl,
};

static void fill_watch(union any_arg *arg)
{
	arg->watch = (struct peerdma_watch){
		.size = sizeof(arg->watch),
		.buffer_fd = any.fd,
		.event_fd = event,
	};
}

static const struct verb verb_WATCH = {
	"WATCH", STRUCT(peerdma_watch, event_fd), .nr = PEERDMA_NR_WATCH,
	.fill = fill_watch, .call = call_ioctl,
};

static void fill_revoke(union any_arg *arg)
{
	arg->revoke = (struct peerdma_revoke){
		.size = sizeof(arg->revoke),
		.buffer_fd = victim,
	};
}

static const struct verb verb_REVOKE = {
	"REVOKE", STRUCT(peerdma_revoke, reserved), .nr = PEERDMA_NR_REVOKE,
	.fill = fill_revoke, .call = call_ioctl,
};

static void fill_map_device(union any_arg *arg)
{
	static struct peerdma_device_segment segments[4];

	arg->map_device = (struct peerdma_map_device){
		.size = sizeof(arg->map_device),
		.buffer_fd = any.fd,
		.device = drive_number,
		.len = PAGE,
		.segments = (uintptr_t)segments,
		.nr_segments = 4,
		.out_fd = -1,
	};
}

static const struct verb verb_MAP_DEVICE = {
	"MAP_DEVICE", STRUCT(peerdma_map_device, reserved),
	.nr = PEERDMA_NR_MAP_DEVICE,
	.known_flags = PEERDMA_MAP_DEVICE_IOVA | PEERDMA_MAP_DEVICE_READ_ONLY,
	.made = offsetof(struct peerdma_map_device, out_fd),
	.fill = fill_map_device, .call = call_ioctl,
};

static void fill_pages(union any_arg *arg)
{
	arg->pages = (struct peerdma_page_map){
		.size = sizeof(arg->pages),
		.buffer_fd = any.fd,
		.out_fd = -1,
	};
}

static const struct verb verb_PAGES = {
	"PAGES", STRUCT(peerdma_page_map, out_device),
	.nr = PEERDMA_NR_PAGES, .known_flags = PEERDMA_PAGES_ANY_ROUTE,
	.made = offsetof(struct peerdma_page_map, out_fd),
	.fill = fill_pages, .call = call_ioctl,
};

/* ---- the tables ----------------------------------------------------------- */

#define VERB(name)	[PEERDMA_NR_##name] = &verb_##name,
#define RESERVED(type, field)
#define DESCRIPTOR(type, field)
static const struct verb *const verbs[] = {
#include "uapi_list.h"
	&verb_ring,
	&verb_ring_one,
};
#undef VERB
#undef RESERVED
#undef DESCRIPTOR

/**
 * struct field - a field of an argument
 * @type: the struct's name
 * @name: the field's
 * @offset: bytes from the struct's start
 * @size: bytes
 */
struct field {
	const char *type;
	const char *name;
	size_t offset;
	size_t size;
};

#define FIELD(type, field)						\
	{ #type, #field, offsetof(struct type, field),			\
	  sizeof(((struct type *)0)->field) },

#define VERB(name)
#define RESERVED(type, field)	FIELD(type, field)
#define DESCRIPTOR(type, field)
static const struct field reserved[] = {
#include "uapi_list.h"
};
#undef RESERVED
#undef DESCRIPTOR

#define RESERVED(type, field)
#define DESCRIPTOR(type, field)	FIELD(type, field)
static const struct field descriptors[] = {
#include "uapi_list.h"
};

#endif /* UAPI_ROWS_H */
