// SPDX-License-Identifier: MIT
/* Numbers of bytes as people write them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../cli/size.h"

static void expect(const char *text, uint64_t bytes)
{
	uint64_t got = ~bytes;

	assert_int_equal(size_parse(text, &got), 0);
	assert_int_equal(got, bytes);
}

static void expect_error(const char *text, int err)
{
	uint64_t got;

	assert_int_equal(size_parse(text, &got), err);
}

static void numbers(void **state)
{
	(void)state;
	expect("0", 0);
	expect("4096", 4096);
	expect("18446744073709551615", UINT64_MAX);
}

static void units(void **state)
{
	(void)state;
	expect("1K", 1024);
	expect("64k", 65536);
	expect("64KiB", 65536);
	expect("1KB", 1000);
	expect("3M", 3u << 20);
	expect("2MB", 2000000);
	expect("1G", 1u << 30);
	expect("5T", 5ull << 40);
	expect("7PiB", 7ull << 50);
	expect("1PB", 1000000000000000);
}

static void nonsense(void **state)
{
	(void)state;
	expect_error("", -EINVAL);
	expect_error("-1", -EINVAL);
	expect_error(" 1", -EINVAL);
	expect_error("K", -EINVAL);
	expect_error("1X", -EINVAL);
	expect_error("1KX", -EINVAL);
	expect_error("1KiBs", -EINVAL);
	expect_error("1.5G", -EINVAL);
	expect_error("0x10", -EINVAL);
}

static void too_large(void **state)
{
	(void)state;
	expect_error("18446744073709551616", -ERANGE);
	expect_error("16384P", -ERANGE);
	expect("16383P", 16383ull << 50);
}

static void for_people(void **state)
{
	char text[SIZE_TEXT_LEN];

	(void)state;
	size_format(0, text);
	assert_string_equal(text, "0 B");
	size_format(1023, text);
	assert_string_equal(text, "1023 B");
	size_format(1536, text);
	assert_string_equal(text, "1.50 KiB");
	size_format(1ull << 30, text);
	assert_string_equal(text, "1.00 GiB");
	size_format(UINT64_MAX, text);
	assert_string_equal(text, "16384.00 PiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(units),
		cmocka_unit_test(nonsense),
		cmocka_unit_test(too_large),
		cmocka_unit_test(for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
