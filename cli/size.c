// SPDX-License-Identifier: MIT
/* Numbers of bytes as people write them: 4096, 64K, 64KiB, 1MB. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "size.h"

static const char units[] = "KMGTP";

/* "" 1, "K" and "KiB" 1024, "KB" 1000, and so on. 0: no unit. */
static uint64_t factor_of(const char *unit)
{
	const char *place;
	uint64_t factor = 1, base = 1024;

	if (!*unit)
		return 1;
	place = strchr(units, toupper((unsigned char)*unit));
	if (!place)
		return 0;
	if (!strcmp(unit + 1, "B"))
		base = 1000;
	else if (unit[1] && strcmp(unit + 1, "iB"))
		return 0;
	for (; place >= units; place--)
		factor *= base;
	return factor;
}

/**
 * size_parse() - read a number of bytes
 * @text: digits, then perhaps K, M, G, T or P (powers of 1024), with iB (the
 *	same) or B (powers of 1000)
 * @out_bytes: the number
 *
 * Return: 0; -EINVAL: no number of bytes; -ERANGE: more than 64 bits.
 */
int size_parse(const char *text, uint64_t *out_bytes)
{
	uint64_t number, factor;
	char *end;

	/* strtoull() would take blanks and a minus sign. */
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	factor = factor_of(end);
	if (!factor)
		return -EINVAL;
	if (__builtin_mul_overflow(number, factor, out_bytes))
		return -ERANGE;
	return 0;
}

/**
 * size_format() - write a number of bytes for people
 * @bytes: the number
 * @text: where to
 */
void size_format(uint64_t bytes, char text[SIZE_TEXT_LEN])
{
	double number = bytes;
	int unit = -1;

	while (number >= 1024 && units[unit + 1]) {
		number /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(text, SIZE_TEXT_LEN, "%u B", (unsigned int)bytes);
	else
		snprintf(text, SIZE_TEXT_LEN, "%.2f %ciB", number, units[unit]);
}
