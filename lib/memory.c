// SPDX-License-Identifier: MIT
/* How much memory there is for this process: the machine's, or its cgroup's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define CGROUPS		"/sys/fs/cgroup"

static uint64_t number_in(const char *path)
{
	unsigned long long value = UINT64_MAX;
	FILE *file = fopen(path, "re");

	if (!file)
		return UINT64_MAX;
	/* "max" is no number. */
	if (fscanf(file, "%llu", &value) != 1)
		value = UINT64_MAX;
	fclose(file);
	return value;
}

/* The least of a group's limits and those of all that it lies in. */
static uint64_t limit_of(const char *root, const char *group, const char *name)
{
	char path[4096], *end;
	uint64_t least = UINT64_MAX, value;
	int len = snprintf(path, sizeof(path), "%s%s", root, group);
	size_t root_len = strlen(root);

	if (len < 0 || (size_t)len + strlen(name) + 2 > sizeof(path))
		return UINT64_MAX;
	end = path + len;
	while (1) {
		sprintf(end, "/%s", name);
		value = number_in(path);
		if (value < least)
			least = value;
		if ((size_t)(end - path) <= root_len)
			return least;
		*end = '\0';
		end = strrchr(path, '/');
	}
}

/* A line of /proc/self/cgroup: NUMBER:CONTROLLERS:GROUP. */
static uint64_t limit_by(char *line)
{
	char *controllers = strchr(line, ':'), *group;

	if (!controllers)
		return UINT64_MAX;
	group = strchr(++controllers, ':');
	if (!group)
		return UINT64_MAX;
	*group++ = '\0';
	group[strcspn(group, "\n")] = '\0';
	if (!*controllers)
		return limit_of(CGROUPS, group, "memory.max");
	if (strcmp(controllers, "memory"))
		return UINT64_MAX;
	return limit_of(CGROUPS "/memory", group, "memory.limit_in_bytes");
}

/**
 * peerdma_memory_limit() - memory that this process may use at most
 *
 * Return: bytes: what the machine has, or less where a cgroup says so.
 */
uint64_t peerdma_memory_limit(void)
{
	uint64_t least = (uint64_t)sysconf(_SC_PHYS_PAGES) *
			 sysconf(_SC_PAGESIZE), value;
	FILE *file = fopen("/proc/self/cgroup", "re");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return least;
	while (getline(&line, &size, file) > 0) {
		value = limit_by(line);
		if (value < least)
			least = value;
	}
	free(line);
	fclose(file);
	return least;
}
