/* SPDX-License-Identifier: MIT */
/*
 * The n-th allocation, or copy between kernel and user space, of a task fails
 * (Documentation/fault-injection of the kernel). Root's, in a guest of its own.
 */
#ifndef FAIL_H
#define FAIL_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "../t_sysfs.h"
#include "../t_tap.h"

#define FAIL_FOLDER	"/sys/kernel/debug"

/* What fails; one kind at a time, since a task has one count for all. */
enum fail_kind {
	FAIL_ALLOCATIONS,
	FAIL_COPIES,
	FAIL_KINDS,
};

static inline void fail_set(const char *name, const char *attribute,
			    const char *value)
{
	char path[96];
	int ret;

	snprintf(path, sizeof(path), FAIL_FOLDER "/%s/%s", name, attribute);
	ret = t_write_text(path, value);
	if (ret)
		t_need(false, "%s becomes %s: %s", path, value,
		       t_errno_name(ret));
}

static inline bool fail_is_there(void)
{
	return !access("/proc/self/fail-nth", W_OK) &&
	       !access(FAIL_FOLDER "/failslab/stacktrace-depth", W_OK) &&
	       !access(FAIL_FOLDER "/fail_page_alloc/min-order", W_OK) &&
	       !access(FAIL_FOLDER "/fail_usercopy/require-start", W_OK);
}

/* A range of code that is on no stack is required where nothing is to fail. */
static inline void fail_enable(const char *name, bool enable)
{
	fail_set(name, "require-start", enable ? "0" : "1");
	fail_set(name, "stacktrace-depth", enable ? "32" : "0");
}

static inline void fail_choose(enum fail_kind kind)
{
	fail_enable("failslab", kind == FAIL_ALLOCATIONS);
	fail_enable("fail_page_alloc", kind == FAIL_ALLOCATIONS);
	fail_enable("fail_usercopy", kind == FAIL_COPIES);
}

/* Allocations of every kind: also those that may wait, and single pages. */
static inline void fail_prepare(void)
{
	fail_set("failslab", "ignore-gfp-wait", "N");
	fail_set("fail_page_alloc", "ignore-gfp-wait", "N");
	fail_set("fail_page_alloc", "ignore-gfp-highmem", "N");
	fail_set("fail_page_alloc", "min-order", "0");
}

/* First and last but one address of a function; false when it has no symbol. */
static inline bool fail_find(const char *function, uint64_t range[2])
{
	FILE *file = fopen("/proc/kallsyms", "r");
	char name[128];
	uint64_t addr;

	range[0] = 0;
	range[1] = UINT64_MAX;
	while (file && fscanf(file, "%" SCNx64 " %*c %127s%*[^\n]", &addr,
			      name) == 2)
		if (!range[0] && !strcmp(name, function))
			range[0] = addr;
	if (file)
		fseek(file, 0, SEEK_SET);
	while (file && fscanf(file, "%" SCNx64 " %*c %127s%*[^\n]", &addr,
			      name) == 2)
		if (addr > range[0] && addr < range[1])
			range[1] = addr;
	if (file)
		fclose(file);
	return range[0];
}

static inline void fail_range(const char *which, const uint64_t range[2])
{
	static const char *const names[] = { "failslab", "fail_page_alloc" };
	char attribute[32], value[32];
	int i, end;

	for (i = 0; i < 2; i++) {
		for (end = 0; end < 2; end++) {
			snprintf(attribute, sizeof(attribute), "%s-%s", which,
				 end ? "end" : "start");
			snprintf(value, sizeof(value), "%" PRIu64, range[end]);
			fail_set(names[i], attribute, value);
		}
	}
}

/* What is called by @function does not fail. */
static inline void fail_spare(const char *function)
{
	uint64_t range[2];

	if (!fail_find(function, range))
		t_need(false, "the kernel has %s()", function);
	fail_range("reject", range);
}

/* A task's count: /proc/.../fail-nth. */
static inline int fail_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		t_need(false, "%s is opened: %s", path, strerror(errno));
	return fd;
}

/* From the return on; nothing of this function's is counted. */
static inline void fail_arm(int fail, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	if (pwrite(fail, text, len, 0) != len)
		t_need(false, "fail-nth is written: %s", strerror(errno));
}

/*
 * Has something failed? The reading is itself a copy to user space: where that
 * one fails, nothing did before.
 */
static inline bool fail_disarm(int fail)
{
	char text[16] = "";
	bool failed;

	failed = pread(fail, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
	while (pwrite(fail, "0", 1, 0) < 0 && errno == EFAULT)
		;
	return failed;
}

#endif /* FAIL_H */
