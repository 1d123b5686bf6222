// SPDX-License-Identifier: MIT
/*
 * What a pin costs: PIN and close() of ranges from 64 KiB to 16 GiB, while there
 * are 0 to 10,000 other buffers; and the kernel's memory for it. One JSON object a
 * line.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../tests/t_clock.h"
#include "../tests/t_gpu.h"

#define ROUNDS		9
#define SMALL		(64ull << 10)
#define OTHERS_MAX	10000

static int dev;

static void die(const char *what)
{
	fprintf(stderr, "pin: %s\n", what);
	exit(1);
}

static int pin(uint64_t ptr, uint64_t len)
{
	struct peerdma_pin arg;
	int fd = t_pin(dev, ptr, len, 0, &arg);

	if (fd < 0)
		die(strerror(-fd));
	return fd;
}

/* Bytes of the kernel's own memory, the simulated driver's included. */
static uint64_t kernel_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	uint64_t value, sum = 0;
	char name[64];

	if (!file)
		die("/proc/meminfo");
	while (fscanf(file, "%63s %" SCNu64 " %*[^\n]", name, &value) >= 2)
		if (!strcmp(name, "Slab:") || !strcmp(name, "VmallocUsed:"))
			sum += value << 10;
	fclose(file);
	return sum;
}

static int compare(const void *a, const void *b)
{
	const double *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

struct cost {
	double pin_us;
	double close_us;
};

/* Medians of rounds of @times calls each. */
static struct cost cost_of(uint64_t ptr, uint64_t len, int times)
{
	double pins[ROUNDS], closes[ROUNDS];
	int fds[64], i, round;

	for (round = 0; round < ROUNDS; round++) {
		double begin = t_now(), middle;

		for (i = 0; i < times; i++)
			fds[i] = pin(ptr, len);
		middle = t_now();
		for (i = 0; i < times; i++)
			close(fds[i]);
		pins[round] = (middle - begin) * 1e6 / times;
		closes[round] = (t_now() - middle) * 1e6 / times;
	}
	qsort(pins, ROUNDS, sizeof(*pins), compare);
	qsort(closes, ROUNDS, sizeof(*closes), compare);
	return (struct cost){ pins[ROUNDS / 2], closes[ROUNDS / 2] };
}

static void measure(uint64_t ptr, uint64_t len, int others)
{
	int times = len > (1ull << 30) ? 1 : len > SMALL ? 8 : 64;
	struct cost cost = cost_of(ptr, len, times);
	uint64_t before, after;
	int fds[64], i;

	before = kernel_memory();
	for (i = 0; i < times; i++)
		fds[i] = pin(ptr, len);
	after = kernel_memory();
	for (i = 0; i < times; i++)
		close(fds[i]);
	printf("{\"bytes\": %" PRIu64 ", \"others\": %d, \"pin_us\": %.1f, "
	       "\"close_us\": %.1f, \"kernel_bytes\": %" PRIu64 "}\n",
	       len, others, cost.pin_us, cost.close_us,
	       (after > before ? after - before : 0) / times);
	fflush(stdout);
}

int main(void)
{
	static const uint64_t sizes[] = { SMALL, 2ull << 20, 1ull << 30,
					  16ull << 30 };
	static const int steps[] = { 0, 100, 1000, OTHERS_MAX };
	struct rlimit files = { OTHERS_MAX + 200, OTHERS_MAX + 200 };
	static int others[OTHERS_MAX];
	uint64_t large, small;
	size_t i, j;
	int nr = 0;

	if (setrlimit(RLIMIT_NOFILE, &files))
		die("10,000 descriptors are not allowed");
	t_gpu_init();
	dev = t_device_open();
	large = t_gpu_alloc(16ull << 30);
	small = t_gpu_alloc(SMALL);
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		while (nr < steps[i])
			others[nr++] = pin(small, SMALL);
		for (j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++)
			measure(large, sizes[j], nr);
	}
	while (nr)
		close(others[--nr]);
	return 0;
}
