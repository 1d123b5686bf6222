/* SPDX-License-Identifier: MIT */
/*
 * One transfer of the file's first bytes, and what became of it.
 */
#ifndef ONE_TRANSFER_H
#define ONE_TRANSFER_H

#include "io_fixture.h"

static struct peerdma_io_result result = { .size = sizeof(result) };

static inline ssize_t read_by(uint32_t way, int fd, size_t len)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = way);

	return peerdma_read_opts(buf, fd, len, 0, 0, &opts, &result);
}

static inline ssize_t write_by(uint32_t way, int fd, size_t len)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .path = way);

	return peerdma_write_opts(buf, fd, len, 0, 0, &opts, &result);
}

static inline void expect(size_t direct, size_t staged, int reason, int error)
{
	assert_int_equal(result.bytes_direct, direct);
	assert_int_equal(result.bytes_staged, staged);
	assert_int_equal(result.reason, reason);
	assert_int_equal(result.error, error);
}

#endif /* ONE_TRANSFER_H */
