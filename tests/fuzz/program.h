/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer runs: for each thread a sequence of operations of eight bytes.
 * Every eight bytes mean something, so that any change of them is a program again.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS		4
#define OPS		24
#define OP_BYTES	8

/* Numbers never change: the corpus is made of them. */
enum verb {
	VERB_INFO, VERB_PIN, VERB_QUERY, VERB_FILE_IO, VERB_COMMAND,
	VERB_REAP, VERB_CANCEL, VERB_ROUTE, VERB_WATCH, VERB_REVOKE,
	VERB_MAP_DEVICE, VERB_PAGES, VERB_MMAP, VERB_TOUCH, VERB_MUNMAP,
	VERB_CLOSE, VERB_DUP, VERB_FORK, VERB_GPU_FREE, VERB_GPU_ALLOC,
	VERB_RW, VERB_RING_RW, VERB_RING_FIXED, VERB_SPLICE, VERB_MADVISE,
	VERB_MPROTECT, VERB_MREMAP, VERB_MLOCK, VERB_DMABUF, VERB_FD,
	VERB_CARD, VERB_DRIVER, VERB_EXPORT, VERB_GPU_GOES, VERB_QUOTA,
	VERB_FAIL, VERB_RAW, VERB_DEBUGFS, VERB_USER_MEMORY, VERB_RAM_RW,
	NR_VERBS,
};

/* How often each is made up; those that take milliseconds seldom are. */
static const struct {
	const char *name;
	unsigned int weight;
} verbs[NR_VERBS] = {
	[VERB_INFO] = { "info", 5 },
	[VERB_PIN] = { "pin", 120 },
	[VERB_QUERY] = { "query", 30 },
	[VERB_FILE_IO] = { "file_io", 90 },
	[VERB_COMMAND] = { "command", 60 },
	[VERB_REAP] = { "reap", 30 },
	[VERB_CANCEL] = { "cancel", 5 },
	[VERB_ROUTE] = { "route", 10 },
	[VERB_WATCH] = { "watch", 20 },
	[VERB_REVOKE] = { "revoke", 20 },
	[VERB_MAP_DEVICE] = { "map_device", 50 },
	[VERB_PAGES] = { "pages", 40 },
	[VERB_MMAP] = { "mmap", 80 },
	[VERB_TOUCH] = { "touch", 80 },
	[VERB_MUNMAP] = { "munmap", 30 },
	[VERB_CLOSE] = { "close", 60 },
	[VERB_DUP] = { "dup", 20 },
	[VERB_FORK] = { "fork", 1 },
	[VERB_GPU_FREE] = { "gpu_free", 30 },
	[VERB_GPU_ALLOC] = { "gpu_alloc", 30 },
	[VERB_RW] = { "rw", 20 },
	[VERB_RING_RW] = { "ring_rw", 15 },
	[VERB_RING_FIXED] = { "ring_fixed", 10 },
	[VERB_SPLICE] = { "splice", 10 },
	[VERB_MADVISE] = { "madvise", 15 },
	[VERB_MPROTECT] = { "mprotect", 10 },
	[VERB_MREMAP] = { "mremap", 10 },
	[VERB_MLOCK] = { "mlock", 10 },
	[VERB_DMABUF] = { "dmabuf", 15 },
	[VERB_FD] = { "fd", 20 },
	[VERB_CARD] = { "card", 20 },
	[VERB_DRIVER] = { "driver", 2 },
	[VERB_EXPORT] = { "export", 15 },
	[VERB_GPU_GOES] = { "gpu_goes", 1 },
	[VERB_QUOTA] = { "quota", 5 },
	[VERB_FAIL] = { "fail", 30 },
	[VERB_RAW] = { "raw", 10 },
	[VERB_DEBUGFS] = { "debugfs", 3 },
	[VERB_USER_MEMORY] = { "user_memory", 8 },
	[VERB_RAM_RW] = { "ram_rw", 4 },
};

/**
 * struct op - one operation
 * @verb: enum verb, modulo their number
 * @a: the descriptor
 * @b: the other one, or the place in memory
 * @c: what is odd about the argument struct, mostly nothing
 * @d: flags
 * @e: an offset, see value()
 * @f: a length
 * @g: what is left to choose
 */
struct op {
	uint8_t verb, a, b, c, d, e, f, g;
};

struct program {
	uint32_t nr[THREADS];
	struct op ops[THREADS][OPS];
};

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

static inline unsigned int below(uint64_t *state, unsigned int bound)
{
	return (random_next(state) >> 16) % bound;
}

/* Offsets and lengths: around every edge, whole sectors, whole pages. */
static inline uint64_t value(uint8_t code)
{
	static const uint64_t edges[] = {
		0, 1, 7, 8, 511, 512, 513, 1024, 4095, 4096, 4097, 8192,
		65535, 65536, 65537, 131072, 0x1ffff, 0xfffff, 0x100000,
		0x1fffff, 0x200000, 0x200001, 0x3ffffff, 0x4000000, 0x7fffffff,
		0x80000000, 0xfffff000, 0xffffffff, 0x100000000, 1ull << 47,
		INT64_MAX - 4095, INT64_MAX, 1ull << 63, -4096ull, -512ull,
		-1ull,
	};

	if (code < 80)
		return edges[code % (sizeof(edges) / sizeof(edges[0]))];
	if (code < 144)
		return (code - 79) * 512ull;
	return (code - 144) * 4096ull;
}

/* ---- making them up ------------------------------------------------------ */

static inline void op_make(struct op *op, uint64_t *state)
{
	uint64_t bytes = random_next(state);
	unsigned int at, i, sum = 0;

	memcpy(op, &bytes, sizeof(*op));
	for (i = 0; i < NR_VERBS; i++)
		sum += verbs[i].weight;
	at = below(state, sum);
	for (i = 0; at >= verbs[i].weight; i++)
		at -= verbs[i].weight;
	op->verb = i;
	/* Few slots, or one would seldom meet what another has made. */
	if (below(state, 3))
		op->a &= 1;
	if (below(state, 3))
		op->b &= 1;
}

static inline void program_make(struct program *program, uint64_t *state)
{
	unsigned int i, j;

	memset(program, 0, sizeof(*program));
	for (i = 0; i < THREADS; i++) {
		program->nr[i] = 1 + below(state, OPS);
		for (j = 0; j < program->nr[i]; j++)
			op_make(&program->ops[i][j], state);
	}
}

static inline void op_insert(struct program *program, unsigned int thread,
			     unsigned int at, const struct op *op)
{
	struct op *ops = program->ops[thread];

	if (program->nr[thread] == OPS)
		program->nr[thread]--;
	if (at > program->nr[thread])
		at = program->nr[thread];
	memmove(&ops[at + 1], &ops[at],
		(program->nr[thread] - at) * sizeof(*ops));
	ops[at] = *op;
	program->nr[thread]++;
}

static inline void op_remove(struct program *program, unsigned int thread,
			     unsigned int at)
{
	struct op *ops = program->ops[thread];

	program->nr[thread]--;
	memmove(&ops[at], &ops[at + 1],
		(program->nr[thread] - at) * sizeof(*ops));
}

static inline void op_change(struct op *op, uint64_t *state)
{
	uint8_t *bytes = (uint8_t *)op;
	uint8_t *byte = &bytes[1 + below(state, OP_BYTES - 1)];

	switch (below(state, 4)) {
	case 0:
		*byte ^= 1u << below(state, 8);
		break;
	case 1:
		*byte += below(state, 2) ? 1 : -1;
		break;
	case 2:
		*byte = below(state, 4);
		break;
	default:
		*byte = random_next(state) >> 24;
	}
}

/* @other may be the source of what is put in. */
static inline void program_mutate(struct program *program,
				  const struct program *other, uint64_t *state)
{
	unsigned int rounds = 1 + below(state, 6);
	struct op op;

	while (rounds--) {
		unsigned int thread = below(state, THREADS);
		unsigned int from = below(state, THREADS);
		unsigned int nr = program->nr[thread];
		unsigned int at = nr ? below(state, nr) : 0;

		switch (below(state, 8)) {
		case 0:
			op_make(&op, state);
			op_insert(program, thread, at, &op);
			break;
		case 1:
			if (nr)
				op_remove(program, thread, at);
			break;
		case 2:
			if (!other->nr[from])
				break;
			op_insert(program, thread, at,
				  &other->ops[from][below(state,
							  other->nr[from])]);
			break;
		case 3:
			memcpy(program->ops[thread], other->ops[from],
			       sizeof(other->ops[from]));
			program->nr[thread] = other->nr[from];
			break;
		default:
			if (nr)
				op_change(&program->ops[thread][at], state);
		}
	}
}

/* Without what takes milliseconds. */
static inline void program_hasten(struct program *program)
{
	unsigned int thread, at;

	for (thread = 0; thread < THREADS; thread++)
		for (at = program->nr[thread]; at--; ) {
			uint8_t verb = program->ops[thread][at].verb % NR_VERBS;

			if (verb == VERB_FORK || verb == VERB_DRIVER ||
			    verb == VERB_GPU_GOES)
				op_remove(program, thread, at);
		}
}

/* ---- as text: threads are separated by '/', a program is a line ----------- */

static inline size_t program_print(const struct program *program, char *text)
{
	const uint8_t *bytes;
	unsigned int i, j, k;
	char *at = text;

	for (i = 0; i < THREADS; i++) {
		for (j = 0; j < program->nr[i]; j++) {
			bytes = (const uint8_t *)&program->ops[i][j];
			for (k = 0; k < OP_BYTES; k++)
				at += sprintf(at, "%02x", bytes[k]);
		}
		*at++ = i + 1 < THREADS ? '/' : '\n';
	}
	*at = '\0';
	return at - text;
}

#define PROGRAM_TEXT	(THREADS * (OPS * OP_BYTES * 2 + 1) + 1)

/* False for a line that is no program: a comment, or damaged. */
static inline bool program_parse(struct program *program, const char *text)
{
	unsigned int thread = 0, at = 0, byte;

	memset(program, 0, sizeof(*program));
	for (; *text && *text != '\n'; text++) {
		if (*text == '/') {
			if (at % OP_BYTES || ++thread == THREADS)
				return false;
			at = 0;
			continue;
		}
		if (at == OPS * OP_BYTES || sscanf(text, "%2x", &byte) != 1)
			return false;
		((uint8_t *)program->ops[thread])[at++] = byte;
		program->nr[thread] = (at + OP_BYTES - 1) / OP_BYTES;
		text++;
	}
	return thread == THREADS - 1 && at % OP_BYTES == 0;
}

/* For people. */
static inline void program_explain(const struct program *program, FILE *to)
{
	unsigned int i, j;

	for (i = 0; i < THREADS; i++)
		for (j = 0; j < program->nr[i]; j++) {
			const struct op *op = &program->ops[i][j];

			fprintf(to, "# %u: %-11s a=%u b=%u c=%u d=%#x e=%#llx f=%#llx g=%u\n",
				i, verbs[op->verb % NR_VERBS].name, op->a, op->b,
				op->c, op->d, (unsigned long long)value(op->e),
				(unsigned long long)value(op->f), op->g);
		}
}

#endif /* PROGRAM_H */
