// SPDX-License-Identifier: MIT
/* The progress line says the right thing and fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "../../cli/progress.h"

static void half_way(void **state)
{
	char line[81];

	(void)state;
	progress_line(line, 79, "read", 500000000, 1000000000, 2);
	assert_int_equal(strlen(line), 79);
	assert_int_equal(strncmp(line, "read   50% [=====", 17), 0);
	assert_non_null(strstr(line, " 250.0 MB/s  ETA 00:02"));
	/* As much bar as blank, but for an odd column. */
	assert_in_range(strrchr(line, '=') - strchr(line, '[') + 1 -
				(strchr(line, ']') - strrchr(line, '=')), 0, 2);
}

static void the_ends(void **state)
{
	char line[81];

	(void)state;
	progress_line(line, 79, "write", 0, 1000, 0);
	assert_non_null(strstr(line, "write   0% ["));
	assert_null(strchr(line, '='));
	assert_non_null(strstr(line, " 0.0 MB/s  ETA --:--"));
	progress_line(line, 79, "write", 1000, 1000, 1);
	assert_non_null(strstr(line, "100% [="));
	assert_null(strstr(line, "= "));
	progress_line(line, 79, "read", 0, 0, 0);
	assert_non_null(strstr(line, "100%"));
}

static void a_long_way_to_go(void **state)
{
	char line[81];

	(void)state;
	progress_line(line, 79, "read", 1000000, 3724000000, 1);
	assert_non_null(strstr(line, "ETA 1:02:03"));
	progress_line(line, 79, "read", 1, UINT64_MAX, 100);
	assert_non_null(strstr(line, "ETA --:--"));
}

static void every_width(void **state)
{
	char line[81];
	unsigned int columns;

	(void)state;
	for (columns = 20; columns < 80; columns++) {
		memset(line, 'x', sizeof(line));
		progress_line(line, columns, "a rather long label", 123456789012,
			      987654321098, 3.5);
		assert_in_range(strlen(line), 1, columns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(half_way),
		cmocka_unit_test(the_ends),
		cmocka_unit_test(a_long_way_to_go),
		cmocka_unit_test(every_width),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
