/* SPDX-License-Identifier: MIT */
/*
 * A record, for the host, of where a buffer's bytes are behind the BAR.
 *
 * OUT/bar     the BAR: first address and length
 * OUT/memory  what lies where in it, as tests/main/random.c reads it
 * OUT/look    is there when the host is to compare while the guest runs
 * OUT/looked  is there when it has
 *
 * Needs CAP_SYS_RAWIO. As in t_gpu.h, a call that fails ends the program.
 */
#ifndef T_RECORD_H
#define T_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "../include/uapi/peerdma.h"

/**
 * struct t_record - a record being written
 * @memory: OUT/memory
 * @bar: the BAR's first address
 * @query: of the buffer, with its segments
 */
struct t_record {
	FILE *memory;
	uint64_t bar;
	struct peerdma_query query;
};

void t_record_open(struct t_record *record, const char *out, int dev,
		   int buffer_fd);
void t_record_data(struct t_record *record, uint64_t file_offset,
		   uint64_t buffer_offset, uint64_t len);
void t_record_fill(struct t_record *record, unsigned char byte,
		   uint64_t buffer_offset, uint64_t len);
void t_record_close(struct t_record *record);
bool t_record_look(const char *out);

#endif /* T_RECORD_H */
