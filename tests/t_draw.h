/* SPDX-License-Identifier: MIT */
/*
 * What random tests of files draw: numbers, bytes, lengths and offsets. They come
 * in one sequence, which t_draw_begin() starts again.
 */
#ifndef T_DRAW_H
#define T_DRAW_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint64_t t_draw_state;

/* Seeds may follow each other: they are spread, and 0 would stay 0 for ever. */
static inline void t_draw_begin(uint64_t seed)
{
	t_draw_state = seed * 0x9e3779b97f4a7c15ull ?: 1;
}

/* xorshift64 (Marsaglia). Return: less than @below; 0 where that is 0. */
static inline uint64_t t_draw(uint64_t below)
{
	t_draw_state ^= t_draw_state << 13;
	t_draw_state ^= t_draw_state >> 7;
	t_draw_state ^= t_draw_state << 17;
	return below ? (t_draw_state >> 11) % below : 0;
}

static inline void t_draw_bytes(unsigned char *bytes, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += 8) {
		t_draw(1);
		memcpy(bytes + i, &t_draw_state, len - i < 8 ? len - i : 8);
	}
}

/* Mostly small, mostly odd, sometimes round, now and then up to @most. */
static inline uint64_t t_draw_len(uint64_t most)
{
	switch (t_draw(8)) {
	case 0:
		return t_draw(600);
	case 1:
		return t_draw(40) * 512;
	case 2:
		return t_draw(16) * 4096;
	case 3:
		return t_draw(16) ? t_draw(200000) : t_draw(most);
	default:
		return t_draw(40000);
	}
}

static inline uint64_t t_draw_offset(void)
{
	switch (t_draw(4)) {
	case 0:
		return t_draw(5000);
	case 1:
		return t_draw(20) * 4096;
	case 2:
		return t_draw(30) * 512;
	default:
		return 0;
	}
}

#endif /* T_DRAW_H */
