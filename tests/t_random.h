/* SPDX-License-Identifier: MIT */
/*
 * Random bytes that the guest writes and the host knows: each 64-bit word is a
 * function of the seed and of its place, so that any part can be had alone.
 */
#ifndef T_RANDOM_H
#define T_RANDOM_H

#include <stdint.h>

/* splitmix64 (Vigna), which is good enough to have no repeated block. */
static inline uint64_t t_random_word(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

#endif /* T_RANDOM_H */
