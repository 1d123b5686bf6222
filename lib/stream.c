// SPDX-License-Identifier: MIT
/*
 * Out of the page cache into host memory that a GPU reads next, past this CPU's
 * caches. A copy engine reads lines that lie modified in a core's own cache at a
 * third of the link's speed, and pushing them out afterwards costs more than not
 * leaving them there. The kernel has no such read(2). So a little at a time is
 * read into memory that stays in the cache, and stored from there.
 */
#include <string.h>
#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "internal.h"

#ifdef __x86_64__

#define LINE	64

static void store_lines(char *dst, const char *src, size_t len)
{
	const __m128i *from = (const __m128i *)src;
	__m128i *to = (__m128i *)dst, a, b, c, d;
	size_t i;

	for (i = 0; i < len / sizeof(*to); i += LINE / sizeof(*to)) {
		a = _mm_loadu_si128(from + i);
		b = _mm_loadu_si128(from + i + 1);
		c = _mm_loadu_si128(from + i + 2);
		d = _mm_loadu_si128(from + i + 3);
		_mm_stream_si128(to + i, a);
		_mm_stream_si128(to + i + 1, b);
		_mm_stream_si128(to + i + 2, c);
		_mm_stream_si128(to + i + 3, d);
	}
}

static void store(char *dst, const char *src, size_t len)
{
	size_t head = -(uintptr_t)dst % LINE, lines;

	if (head > len)
		head = len;
	lines = (len - head) & -(size_t)LINE;
	memcpy(dst, src, head);
	store_lines(dst + head, src + head, lines);
	memcpy(dst + head + lines, src + head + lines, len - head - lines);
}

/* Such stores are not in order with others, and somebody else is told of them. */
static void finish(void)
{
	_mm_sfence();
}

#else

static void store(char *dst, const char *src, size_t len)
{
	memcpy(dst, src, len);
}

static void finish(void)
{
}

#endif

/**
 * peerdma_stream_load() - from the page cache to host memory, past the caches
 * @file: the file, to be read through the page cache
 * @dst: where to
 * @offset: within the file
 * @len: bytes
 * @scratch: PEERDMA_STREAM_LEN bytes that this thread alone uses
 * @out_moved: bytes that arrived, less than @len where the file ends
 *
 * Return: 0 or a negative errno.
 */
int peerdma_stream_load(struct peerdma_file *file, char *dst, uint64_t offset,
			size_t len, char *scratch, size_t *out_moved)
{
	size_t want, moved;
	int err = 0;

	*out_moved = 0;
	while (!err && *out_moved < len) {
		want = len - *out_moved;
		if (want > PEERDMA_STREAM_LEN)
			want = PEERDMA_STREAM_LEN;
		err = peerdma_file_load(file, scratch, offset + *out_moved,
					want, &moved);
		store(dst + *out_moved, scratch, moved);
		*out_moved += moved;
		if (moved < want)
			break;
	}
	finish();
	return err;
}
