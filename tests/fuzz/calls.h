/* SPDX-License-Identifier: MIT */
/*
 * The verbs that are /dev/peerdma's own, by ioctl(2) and by io_uring.
 */
#ifndef CALLS_H
#define CALLS_H

#include "rig.h"

/* ---- arguments ----------------------------------------------------------- */

/* Where the struct is put: mostly where it can be, sometimes across an edge. */
static unsigned char *arg_place(const struct op *op, size_t size)
{
	unsigned char *scratch = self->scratch;

	switch (op->c) {
	case 224:
		return NULL;
	case 225:
		return (unsigned char *)0xffff888000000000ul;
	case 226:
		return scratch + 2 * 4096;
	case 227:
		return scratch + 3 * 4096;
	case 228:
		return scratch + 2 * 4096 - size;
	case 229:
		return scratch + 2 * 4096 - 8;
	case 230:
		return scratch + 1;
	case 231:
		return map_at(op->g);
	default:
		return scratch;
	}
}

/* The struct's size as the caller says, which @bytes has room for. */
static void arg_spoil(const struct op *op, unsigned char *bytes, size_t size)
{
	static const int sizes[] = {
		-8, -4, -1, 1, 4, 8, 16, 4096, 4097, -10000, 100,
	};
	uint32_t usize = size;

	if (op->c >= 200 && op->c < 222)
		usize = size + sizes[op->c / 2 % 11];
	if (op->c >= 232 && op->c < 236)
		bytes[size + op->g % 16] = op->g;
	if (op->c >= 240)
		bytes[4 + op->g % (size - 4)] ^= 1u << op->c % 8;
	memcpy(bytes, &usize, sizeof(usize));
}

/* An ioctl of /dev/peerdma; the reply is copied back when it can be. */
static long call(const struct op *op, unsigned long request, void *arg,
		 size_t size)
{
	unsigned char bytes[512] = { 0 };
	unsigned char *at = arg_place(op, size);
	bool usual = at == self->scratch;
	long ret;

	memcpy(bytes, arg, size);
	arg_spoil(op, bytes, size);
	if (at >= self->scratch && at <= self->scratch + 2 * 4096 - 8) {
		size_t room = self->scratch + 2 * 4096 - at;

		memcpy(at, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
	}
	ret = ioctl(rig.dev, request, at);
	if (usual && !ret)
		memcpy(arg, at, size);
	return ret;
}

static uint32_t flag_bits(uint8_t code)
{
	return code < 224 ? code & 7 : 1u << (code & 31);
}

static uint32_t device_at(uint8_t code)
{
	return code < 240 ? rig.devices[code % 6] : code * 0x01010101u;
}

/* ---- the verbs of /dev/peerdma ------------------------------------------- */

static long do_info(const struct op *op)
{
	struct peerdma_info arg = { .flags = op->d >= 250 };

	return call(op, PEERDMA_INFO, &arg, sizeof(arg));
}

static void pin_source(const struct op *op, struct peerdma_pin *pin)
{
	static const char *const others[] = {
		"", "Nvidia", "nvidiaa", "fifteen-letters", "sixteen-letters!",
	};
	const char *name = "nvidia";

	pin->addr = range_at(op->b);
	pin->len = op->g & 8 ? value(op->f) : range_bytes[op->b % RANGES];
	if (op->g >= 250) {
		name = others[op->g % 5];
	} else if (op->g >= 200) {
		name = "pci";
		pin->addr = 0;
		pin->device = device_at(op->b);
		pin->bar = op->g & 1 ? 2 : op->g & 7;
		pin->len = (value(op->f) & 0xffffff) + 1;
	} else if (op->g >= 150) {
		name = "user";
		pin->addr = op->g & 15 ? USER_ARENA : (uintptr_t)map_at(op->b);
		pin->len = value(op->f);
	}
	if (op->g & 4)
		pin->addr += value(op->e);
	strncpy(pin->provider, name, sizeof(pin->provider));
}

static long do_pin(const struct op *op)
{
	struct peerdma_pin pin = { .flags = flag_bits(op->d) };

	/* What cannot be pinned for its size alone is seldom worth it. */
	pin_source(op, &pin);
	if (op->d & 0x40)
		pin.flags = 0;
	if (call(op, PEERDMA_PIN, &pin, sizeof(pin)))
		return -1;
	if (pin.out_fd > 0)
		slot_put(op->a % BUFFERS, pin.out_fd);
	return 0;
}

static long do_query(const struct op *op)
{
	struct peerdma_query arg = {
		.flags = op->d >= 240 ? flag_bits(op->d) : 0,
		.buffer_fd = slot_fd(op->a, 0, BUFFERS),
		.nr_segments = op->e < 128 ? op->e : value(op->e),
		.segments = (uintptr_t)arg_place(&(struct op){ .c = op->f },
						 4096),
	};

	if (op->f < 200)
		arg.segments = (uintptr_t)self->ram;
	return call(op, PEERDMA_QUERY, &arg, sizeof(arg));
}

/* Segments side by side; their number and their length come from one byte. */
static void io_fill(const struct op *op, struct peerdma_file_io *arg,
		    struct peerdma_file_segment *segments)
{
	unsigned int i, nr = op->g % (SEGMENTS + 1);
	uint64_t len = value(op->f);

	*arg = (struct peerdma_file_io){
		.size = sizeof(*arg),
		.flags = flag_bits(op->d) & 1,
		.buffer_fd = slot_fd(op->a, 0, BUFFERS),
		.file_fd = slot_fd(op->b, FIRST_FILE, FILES),
		.segments = (uintptr_t)segments,
		.nr_segments = nr,
		.depth = op->g >> 5,
	};
	if (op->d >= 250)
		arg->flags = 1u << op->d % 32;
	if (op->g >= 250)
		arg->nr_segments = value(op->g - 250);
	for (i = 0; i < nr; i++)
		segments[i] = (struct peerdma_file_segment){
			.file_offset = value(op->e) + i * len,
			.buffer_offset = value(op->d & 0x60 ? op->e : 0) +
					 i * len,
			.len = len,
		};
	if (op->d >= 240 && op->d < 250)
		arg->segments = (uintptr_t)map_at(op->d);
}

static long do_file_io(const struct op *op)
{
	struct peerdma_file_io arg;

	io_fill(op, &arg, self->segments);
	return call(op, PEERDMA_FILE_IO, &arg, sizeof(arg));
}

static long do_route(const struct op *op)
{
	struct peerdma_route arg = {
		.from_device = device_at(op->a),
		.to_device = device_at(op->b),
	};

	return call(op, PEERDMA_ROUTE, &arg, sizeof(arg));
}

static long do_watch(const struct op *op)
{
	struct peerdma_watch arg = {
		.buffer_fd = slot_fd(op->a, 0, BUFFERS),
		.event_fd = slot_fd(op->b, FIRST_EVENT, EVENTS),
	};

	return call(op, PEERDMA_WATCH, &arg, sizeof(arg));
}

static long do_revoke(const struct op *op)
{
	struct peerdma_revoke arg = {
		.buffer_fd = slot_fd(op->a, 0, BUFFERS),
	};

	return call(op, PEERDMA_REVOKE, &arg, sizeof(arg));
}

static long do_map_device(const struct op *op)
{
	struct peerdma_map_device arg = {
		.flags = flag_bits(op->d) & (op->d < 224 ? 3 : ~0u),
		.buffer_fd = slot_fd(op->a, 0, BUFFERS),
		.device = op->b & 1 ? rig.devices[1] : device_at(op->b),
		.offset = op->d & 0x20 ? value(op->e) : 0,
		.len = op->f & 1 ? value(op->f) : 65536,
		.segments = (uintptr_t)self->ram,
		.nr_segments = op->d & 0x40 ? 1 : 64,
		.address_bits = op->g & 0x80 ? 24 + op->g % 44 : 0,
	};

	if (arg.flags & PEERDMA_MAP_DEVICE_IOVA)
		arg.iova = 0x10000000 + value(op->g) * 16;
	if (call(op, PEERDMA_MAP_DEVICE, &arg, sizeof(arg)))
		return -1;
	if (arg.out_fd > 0)
		slot_put(FIRST_DEVICE + op->g % DEVICE_MAPS, arg.out_fd);
	return 0;
}

static long do_pages(const struct op *op)
{
	struct peerdma_page_map arg = {
		.flags = op->d < 224 ? op->d & 1 : 1u << op->d % 32,
		.buffer_fd = slot_fd(op->a, 0, BUFFERS),
	};

	if (call(op, PEERDMA_PAGES, &arg, sizeof(arg)))
		return -1;
	if (arg.out_fd > 0)
		slot_put(FIRST_PAGE_FD + op->b % PAGE_FDS, arg.out_fd);
	return 0;
}

static long do_raw(const struct op *op)
{
	uint32_t cmd = PEERDMA_IOCTL_TYPE << 8 | op->e % 12;
	unsigned char bytes[128];
	unsigned int i;

	if (op->d & 1)
		cmd |= (uint32_t)op->d << 24;
	if (op->d & 2)
		cmd ^= 1u << op->f % 32;
	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (i * op->g) >> 3;
	memset(bytes + 4, 0, 4);
	return call(op, cmd, bytes, 32 + op->a % 96);
}

/* ---- the ring ------------------------------------------------------------ */

static void ring_reap(bool wait)
{
	struct __kernel_timespec time = { .tv_nsec = 1000000 };
	struct io_uring_cqe *cqe;

	while (self->in_ring) {
		int ret = io_uring_peek_cqe(&self->ring, &cqe);

		if (ret && wait)
			ret = io_uring_wait_cqe_timeout(&self->ring, &cqe,
							&time);
		if (ret && !wait)
			return;
		if (ret)
			continue;
		if (cqe->user_data < COMMANDS)
			self->commands[cqe->user_data].busy = false;
		io_uring_cqe_seen(&self->ring, cqe);
		self->in_ring--;
	}
}

/* Looks for completions for at least so many milliseconds while any are missing. */
static void ring_reap_for(unsigned int ms)
{
	struct __kernel_timespec time = { .tv_nsec = 1000000 };
	struct io_uring_cqe *cqe;

	for (; self->in_ring && ms; ms--) {
		ring_reap(false);
		if (self->in_ring)
			io_uring_wait_cqe_timeout(&self->ring, &cqe, &time);
	}
}

static long ring_submit(void)
{
	int ret = io_uring_submit(&self->ring);

	if (ret > 0)
		self->in_ring += ret;
	return ret == 1 ? 0 : -1;
}

static struct io_uring_sqe *ring_sqe(uint64_t user_data)
{
	struct io_uring_sqe *sqe;

	/* Completions are fewer than the ring has room for. */
	if (self->in_ring >= COMMANDS)
		ring_reap_for(1000);
	if (self->in_ring >= COMMANDS)
		return NULL;
	sqe = io_uring_get_sqe(&self->ring);
	if (sqe) {
		io_uring_prep_nop(sqe);
		sqe->user_data = user_data;
	}
	return sqe;
}

static long do_command(const struct op *op)
{
	uint64_t command[2] = { 0, op->c >= 250 ? op->c : 0 };
	struct io_uring_sqe *sqe;
	struct command *slot;
	unsigned int i;

	ring_reap(false);
	for (i = 0; i < COMMANDS && self->commands[i].busy; i++)
		;
	if (i == COMMANDS)
		return -1;
	sqe = ring_sqe(i);
	if (!sqe)
		return -1;
	slot = &self->commands[i];
	slot->busy = true;
	io_fill(op, &slot->arg, self->segments + (i + 1) * SEGMENTS_ROOM);
	arg_spoil(op, (unsigned char *)&slot->arg,
		  op->c < 232 || op->c >= 236 ? sizeof(slot->arg) : 64);
	command[0] = (uintptr_t)&slot->arg;
	if (op->c >= 224 && op->c < 232)
		command[0] = (uintptr_t)arg_place(op, sizeof(slot->arg));
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, rig.dev, NULL, 0, 0);
	sqe->cmd_op = op->c == 249 ? PEERDMA_PIN : PEERDMA_FILE_IO;
	if (op->c == 248)
		sqe->flags |= IOSQE_ASYNC;
	memcpy(sqe->cmd, command, sizeof(command));
	sqe->user_data = i;
	return ring_submit();
}

static long do_reap(const struct op *op)
{
	if (op->a & 1)
		ring_reap_for(1000);
	else
		ring_reap(false);
	return 0;
}

static long do_cancel(const struct op *op)
{
	struct io_uring_sqe *sqe = ring_sqe(COMMANDS);

	if (!sqe)
		return -1;
	io_uring_prep_cancel64(sqe, op->a % COMMANDS, 0);
	sqe->user_data = COMMANDS;
	return ring_submit();
}

/*
 * At the end of a program. What reads an eventfd that nobody signals would never
 * end; what goes to a drive does, or it is a find.
 */
static void ring_end(void)
{
	struct io_uring_sqe *sqe;

	ring_reap_for(1000);
	if (!self->in_ring)
		return;
	sqe = io_uring_get_sqe(&self->ring);
	if (sqe) {
		io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY |
						       IORING_ASYNC_CANCEL_ALL);
		sqe->user_data = COMMANDS;
		ring_submit();
	}
	ring_reap(true);
}

static size_t map_part(const struct op *op, unsigned char **at)
{
	uint64_t offset = value(op->e) % MAP_ROOM;
	uint64_t len = value(op->f) % (MAP_ROOM - offset + 1);

	*at = map_at(op->b) + offset;
	return len;
}

static long do_ring_rw(const struct op *op)
{
	struct io_uring_sqe *sqe = ring_sqe(COMMANDS);
	unsigned char *at;
	size_t len = map_part(op, &at);

	if (!sqe)
		return -1;
	io_uring_prep_rw(op->d & 1 ? IORING_OP_WRITE : IORING_OP_READ, sqe,
			 slot_fd(op->a, FIRST_FILE, 3), at, len,
			 value(op->g) & ~511ull);
	sqe->user_data = COMMANDS;
	return ring_submit();
}

/* The mapping's pages are held only while this lasts. */
static long do_ring_fixed(const struct op *op)
{
	struct io_uring_sqe *sqe;
	unsigned char *at;
	struct iovec vec;

	vec.iov_len = map_part(op, &at);
	vec.iov_base = at;
	if (io_uring_register_buffers(&self->ring, &vec, 1))
		return -1;
	sqe = ring_sqe(COMMANDS);
	if (sqe) {
		io_uring_prep_read_fixed(sqe, slot_fd(op->a, FIRST_FILE, 3),
					 at, vec.iov_len, 0, 0);
		sqe->user_data = COMMANDS;
		ring_submit();
	}
	ring_reap_for(1000);
	return io_uring_unregister_buffers(&self->ring);
}

#endif /* CALLS_H */
