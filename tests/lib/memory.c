// SPDX-License-Identifier: MIT
/* How much memory a process has, by the machine and by its cgroups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake_kernel.h"
#include "internal.h"

#define MIB	(UINT64_C(1) << 20)

static char root[] = "/tmp/peerdma-XXXXXX";

static uint64_t machine(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

/* A file of the root that the library is to find, with the folders on the way. */
static void put(const char *path, const char *text)
{
	char whole[256], *at;
	FILE *file;

	snprintf(whole, sizeof(whole), "%s%s", root, path);
	for (at = whole + strlen(root) + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		mkdir(whole, 0700);
		*at = '/';
	}
	file = fopen(whole, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static int set_up(void **state)
{
	(void)state;
	fake_kernel_reset();
	strcpy(root + sizeof(root) - 7, "XXXXXX");
	if (!mkdtemp(root))
		return -1;
	fake_kernel.root = root;
	return 0;
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

static void the_machines(void **state)
{
	(void)state;
	assert_int_equal(peerdma_memory_limit(), machine());
	put("/proc/self/cgroup", "0::/user\n");
	assert_int_equal(peerdma_memory_limit(), machine());
	put("/sys/fs/cgroup/user/memory.max", "max\n");
	assert_int_equal(peerdma_memory_limit(), machine());
	put("/sys/fs/cgroup/user/memory.max", "99999999999999999\n");
	assert_int_equal(peerdma_memory_limit(), machine());
}

static void the_groups(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "0::/pod/box\n");
	put("/sys/fs/cgroup/pod/box/memory.max", "67108864\n");
	assert_int_equal(peerdma_memory_limit(), 64 * MIB);
}

static void a_group_around_it(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "0::/pod/box\n");
	put("/sys/fs/cgroup/pod/box/memory.max", "max\n");
	put("/sys/fs/cgroup/pod/memory.max", "33554432\n");
	put("/sys/fs/cgroup/memory.max", "67108864\n");
	assert_int_equal(peerdma_memory_limit(), 32 * MIB);
}

/* In a cgroup namespace the container's own group is the root. */
static void a_container(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "0::/\n");
	put("/sys/fs/cgroup/memory.max", "50331648\n");
	assert_int_equal(peerdma_memory_limit(), 48 * MIB);
}

static void the_first_version(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "4:cpu,cpuacct:/box\n3:memory:/box\n0::/\n");
	put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "16777216\n");
	put("/sys/fs/cgroup/box/memory.max", "1048576\n");
	assert_int_equal(peerdma_memory_limit(), 16 * MIB);
}

static void nonsense(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "\nno colon\n0:\n0::\n:::::\n");
	assert_int_equal(peerdma_memory_limit(), machine());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(the_machines),
		TEST(the_groups),
		TEST(a_group_around_it),
		TEST(a_container),
		TEST(the_first_version),
		TEST(nonsense),
#undef TEST
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
