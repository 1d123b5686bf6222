/* SPDX-License-Identifier: MIT */
/*
 * GPU memory and pins for tests and benchmarks: CUDA by dlopen, the uAPI by hand.
 * Each call prints one sentence and exits with 99 when it fails, since a test
 * without memory has nothing to say.
 */
#ifndef T_GPU_H
#define T_GPU_H

#include <stddef.h>
#include <stdint.h>

#include "../include/uapi/peerdma.h"

void t_gpu_init(void);
uint64_t t_gpu_alloc(size_t len);
void t_gpu_free(uint64_t ptr);
void t_gpu_set(uint64_t dst, unsigned char byte, size_t len);
void t_gpu_write(uint64_t dst, const void *src, size_t len);
void t_gpu_read(void *dst, uint64_t src, size_t len);
int t_gpu_export(uint64_t ptr, size_t len);

int t_device_open(void);
int t_ioctl(int dev, unsigned int nr, void *arg);
int t_pin(int dev, uint64_t ptr, uint64_t len, uint32_t flags,
	  struct peerdma_pin *pin);
int t_file_io(int dev, struct peerdma_file_io *arg);

#endif /* T_GPU_H */
