/* SPDX-License-Identifier: MIT */
#ifndef PEERDMA_CLI_DEVICES_H
#define PEERDMA_CLI_DEVICES_H

#include "cli.h"

/* A device with memory to reach. */
struct gpu {
	char label[16];		/* "gpu:0"; its PCI address without CUDA */
	char device[16];
	char name[128];
	int ordinal;		/* -1: CUDA does not know it */
};

/* A drive that could reach it. */
struct drive {
	char name[32];		/* "nvme0n1" */
	char device[16];
};

int devices_gpus(struct peerdma *ctx, struct gpu **out);
int devices_drives(struct drive **out);

#endif /* PEERDMA_CLI_DEVICES_H */
