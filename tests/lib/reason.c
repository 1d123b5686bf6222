// SPDX-License-Identifier: MIT
/*
 * Every reason of both headers has a name and a sentence of its own. The headers
 * are read as text, so that a new reason cannot be forgotten.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <peerdma.h>

#define NR_MAX	128

static int reasons[NR_MAX];
static size_t nr_reasons;

/* The name is the constant's: NO_MODULE is "no-module". */
static void check_name(const char *constant, int number)
{
	const char *name = peerdma_reason_name(number);
	size_t i;

	assert_int_equal(strlen(constant), strlen(name));
	for (i = 0; constant[i]; i++)
		assert_int_equal(constant[i] == '_' ? '-' :
						      tolower(constant[i]),
				 name[i]);
}

static size_t read_header(const char *path)
{
	FILE *header = fopen(path, "r");
	char line[256], constant[64];
	size_t found = 0;
	int number;

	assert_non_null(header);
	while (fgets(line, sizeof(line), header)) {
		if (sscanf(line, " PEERDMA_REASON_%63[A-Z_] = %d,", constant,
			   &number) != 2)
			continue;
		assert_true(nr_reasons < NR_MAX);
		reasons[nr_reasons++] = number;
		check_name(constant, number);
		found++;
	}
	fclose(header);
	return found;
}

static void all_have_names(void **state)
{
	(void)state;
	assert_true(read_header("include/uapi/peerdma.h") >= 15);
	assert_true(read_header("lib/peerdma.h") >= 14);
}

static void all_have_sentences(void **state)
{
	const char *unknown = peerdma_reason_string(-1);
	size_t i, k;

	(void)state;
	assert_int_equal(strcmp(peerdma_reason_name(-1), "unknown"), 0);
	for (i = 0; i < nr_reasons; i++) {
		const char *sentence = peerdma_reason_string(reasons[i]);

		assert_string_not_equal(sentence, unknown);
		assert_null(strchr(sentence, '\n'));
		assert_true(strlen(sentence) > 15);
		assert_int_not_equal(sentence[strlen(sentence) - 1], '.');
		for (k = 0; k < i; k++)
			assert_string_not_equal(
				sentence, peerdma_reason_string(reasons[k]));
	}
}

static void the_version_is_one(void **state)
{
	char line[64] = "";
	FILE *file = fopen("VERSION", "r");

	(void)state;
	assert_non_null(file);
	assert_non_null(fgets(line, sizeof(line), file));
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	assert_string_equal(line, PEERDMA_VERSION);
	assert_string_equal(line, peerdma_version());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_have_names),
		cmocka_unit_test(all_have_sentences),
		cmocka_unit_test(the_version_is_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
