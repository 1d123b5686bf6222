/* SPDX-License-Identifier: MIT */
#ifndef PEERDMA_CLI_SIZE_H
#define PEERDMA_CLI_SIZE_H

#include <stdint.h>

#define SIZE_TEXT_LEN	16

int size_parse(const char *text, uint64_t *out_bytes);
void size_format(uint64_t bytes, char text[SIZE_TEXT_LEN]);

#endif /* PEERDMA_CLI_SIZE_H */
