// SPDX-License-Identifier: MIT
/*
 * Structs that carry their size, so that a program and a library of different
 * age understand each other. The rules are those of /dev/peerdma.
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

/**
 * peerdma_sized_in() - take a caller's options
 * @dst: the struct as this library knows it
 * @dst_size: its size
 * @src: the caller's struct, which starts with its size; NULL: defaults
 *
 * Return: 0; -EINVAL: no size; -E2BIG: an option that this library lacks.
 */
int peerdma_sized_in(void *dst, size_t dst_size, const void *src)
{
	const unsigned char *tail = src;
	size_t size, i;

	memset(dst, 0, dst_size);
	if (!src)
		return 0;
	memcpy(&size, src, sizeof(size));
	if (size < sizeof(size))
		return -EINVAL;
	for (i = dst_size; i < size; i++)
		if (tail[i])
			return -E2BIG;
	memcpy(dst, src, size < dst_size ? size : dst_size);
	return 0;
}

/**
 * peerdma_sized_check() - may peerdma_sized_out() fill a caller's struct?
 * @dst: the struct, which starts with its size; NULL: not wanted
 *
 * To be asked before anything is done that the struct would tell of.
 *
 * Return: 0; -EINVAL: no size.
 */
int peerdma_sized_check(const void *dst)
{
	size_t size = sizeof(size);

	if (dst)
		memcpy(&size, dst, sizeof(size));
	return size < sizeof(size) ? -EINVAL : 0;
}

/**
 * peerdma_sized_out() - give a caller results
 * @dst: the caller's struct, which starts with its size; NULL: not wanted
 * @src: the struct as this library knows it
 * @src_size: its size
 *
 * What the caller knows and this library does not becomes zero.
 *
 * Return: 0; -EINVAL: no size.
 */
int peerdma_sized_out(void *dst, const void *src, size_t src_size)
{
	size_t size, skip = sizeof(size);

	if (!dst)
		return 0;
	memcpy(&size, dst, sizeof(size));
	if (size < skip)
		return -EINVAL;
	memset((char *)dst + skip, 0, size - skip);
	if (src_size > size)
		src_size = size;
	memcpy((char *)dst + skip, (const char *)src + skip, src_size - skip);
	return 0;
}
