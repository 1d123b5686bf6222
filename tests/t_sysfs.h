/* SPDX-License-Identifier: MIT */
/*
 * Attributes of sysfs and the like, as text.
 */
#ifndef T_SYSFS_H
#define T_SYSFS_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first line of a file in sysfs or so, or "". */
static inline char *t_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "r");

	if (!file || !fgets(line, size, file))
		*line = '\0';
	if (file)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
	return line;
}

static inline int t_write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	int ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;

	close(fd);
	return ret;
}

#endif /* T_SYSFS_H */
