// SPDX-License-Identifier: MIT
/*
 * Random bytes (t_random.h) that the guest writes and the host knows.
 *
 *   random write FILE SEED BYTES           a file, unbuffered
 *   random compare SEED BYTES              standard input with them
 *   random compare-memory MEMORY MAP SEED  a GPU's memory with them
 *
 * MAP tells where the bytes lie: lines "data OFFSET PLACE LENGTH", from OFFSET
 * of the file on they are at PLACE of MEMORY, and "fill BYTE PLACE LENGTH", where
 * nothing else than BYTE may be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../t_random.h"

#define CHUNK		(4u << 20)
#define DOTS		20
#define DIRECT_ALIGN	4096

static uint64_t seed;

static void die(const char *what)
{
	fprintf(stderr, "random: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* @len random bytes from @offset of the file, both multiples of 8. */
static void generate(void *to, uint64_t offset, size_t len)
{
	uint64_t *words = to;
	size_t i;

	for (i = 0; i < len / 8; i++)
		words[i] = t_random_word(seed, offset / 8 + i);
}

static void *chunk_alloc(void)
{
	void *chunk;

	errno = posix_memalign(&chunk, DIRECT_ALIGN, CHUNK);
	if (errno)
		die("memory");
	return chunk;
}

/*
 * The file's last block is written whole and then cut. What takes a while shows
 * that it goes on.
 */
static int write_file(const char *path, uint64_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT, 0644);
	bool dots = bytes >= DOTS * 4 * CHUNK;
	char *chunk = chunk_alloc();
	uint64_t at;

	if (fd < 0)
		die(path);
	for (at = 0; at < bytes; at += CHUNK) {
		size_t len = bytes - at < CHUNK ? bytes - at : CHUNK;

		len = (len + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
		generate(chunk, at, len);
		if (pwrite(fd, chunk, len, at) != (ssize_t)len)
			die(path);
		if (dots && (at + CHUNK) % (bytes / DOTS) < CHUNK) {
			putchar('.');
			fflush(stdout);
		}
	}
	if (ftruncate(fd, bytes) || fsync(fd) || close(fd))
		die(path);
	return 0;
}

/* Complain of the first byte that differs; there is one. */
static int differ(const char *is, const char *should, uint64_t offset)
{
	size_t i = 0;

	while (is[i] == should[i])
		i++;
	printf("byte %" PRIu64 " is 0x%02x and should be 0x%02x\n", offset + i,
	       (unsigned char)is[i], (unsigned char)should[i]);
	return 1;
}

static int compare_stdin(uint64_t bytes)
{
	char *should = chunk_alloc(), *is = chunk_alloc();
	uint64_t at = 0;
	size_t len;

	for (; (len = fread(is, 1, CHUNK, stdin)); at += len) {
		generate(should, at, CHUNK);
		if (at + len > bytes)
			break;
		if (memcmp(is, should, len))
			return differ(is, should, at);
	}
	if (ferror(stdin))
		die("standard input");
	if (at + len == bytes)
		return 0;
	printf("%s than %" PRIu64 " bytes\n", len ? "more" : "fewer", bytes);
	return 1;
}

/* @offset may stand in the middle of a word. */
static int compare_part(const char *is, uint64_t offset, uint64_t len)
{
	static uint64_t words[CHUNK / 8 + 1];
	const char *should = (char *)words + offset % 8;

	while (len) {
		size_t n = len < CHUNK ? len : CHUNK;

		generate(words, offset - offset % 8, (n + 15) / 8 * 8);
		if (memcmp(is, should, n))
			return differ(is, should, offset);
		is += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int compare_fill(const char *is, char byte, uint64_t place, uint64_t len)
{
	uint64_t i;

	for (i = 0; i < len && is[i] == byte; i++)
		;
	if (i == len)
		return 0;
	printf("byte %" PRIu64 " of the memory should not have been written\n",
	       place + i);
	return 1;
}

static int compare_memory(const char *memory_path, const char *map_path)
{
	int fd = open(memory_path, O_RDONLY);
	FILE *map = fopen(map_path, "r");
	uint64_t value, place, len, bytes = 0;
	struct stat stat;
	char *memory;
	char kind[8];
	int ret = 0;

	if (fd < 0 || fstat(fd, &stat))
		die(memory_path);
	if (!map)
		die(map_path);
	memory = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		die(memory_path);
	while (!ret && fscanf(map, "%7s %" SCNu64 " %" SCNu64 " %" SCNu64,
			      kind, &value, &place, &len) == 4) {
		if (place + len > (uint64_t)stat.st_size) {
			printf("%s leaves the memory\n", map_path);
			return 1;
		}
		bytes += len;
		if (!strcmp(kind, "fill")) {
			ret = compare_fill(memory + place, value, place, len);
			continue;
		}
		ret = compare_part(memory + place, value, len);
	}
	if (!ret && (!bytes || !feof(map))) {
		printf("%s is damaged\n", map_path);
		return 1;
	}
	if (!ret)
		printf("%" PRIu64 " bytes are equal\n", bytes);
	return ret;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*end || end == text) {
		fprintf(stderr, "random: '%s' is not a number\n", text);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (!strcmp(verb, "write") && argc == 5) {
		seed = number(argv[3]);
		return write_file(argv[2], number(argv[4]));
	}
	if (!strcmp(verb, "compare") && argc == 4) {
		seed = number(argv[2]);
		return compare_stdin(number(argv[3]));
	}
	if (!strcmp(verb, "compare-memory") && argc == 5) {
		seed = number(argv[4]);
		return compare_memory(argv[2], argv[3]);
	}
	fprintf(stderr, "usage: random write FILE SEED BYTES\n"
			"       random compare SEED BYTES <FILE\n"
			"       random compare-memory MEMORY MAP SEED\n");
	return 2;
}
