// SPDX-License-Identifier: MIT
/*
 * A corpus as a unit test: each line of a file is one input in hexadecimal digits,
 * '#' begins a comment. Inputs lie at the end of their memory, as sanitizers and
 * valgrind like it.
 *
 * usage: TARGET CORPUS
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int run_line(const char *line)
{
	size_t len = strcspn(line, "#\n") / 2, i;
	uint8_t *data = malloc(len ? len : 1);
	unsigned int byte;
	int ret = 1;

	for (i = 0; data && i < len; i++) {
		if (sscanf(line + 2 * i, "%2x", &byte) != 1)
			goto free_data;
		data[i] = byte;
	}
	if (data)
		ret = LLVMFuzzerTestOneInput(data, len);
free_data:
	free(data);
	return ret;
}

int main(int argc, char **argv)
{
	static char line[1 << 16];
	FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
	int nr = 0;

	if (!file) {
		fprintf(stderr, "usage: TARGET CORPUS\n");
		return 2;
	}
	while (fgets(line, sizeof(line), file)) {
		if (*line == '#')
			continue;
		if (run_line(line)) {
			fprintf(stderr, "not an input: %s", line);
			return 1;
		}
		nr++;
	}
	fclose(file);
	printf("%d inputs\n", nr);
	return nr ? 0 : 1;
}
