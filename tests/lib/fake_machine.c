// SPDX-License-Identifier: MIT
/* The machine as the library's objects see it: its CPUs, clock and files. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "fake_kernel.h"

int __wrap_sched_getaffinity(pid_t pid, size_t len, cpu_set_t *set);
int __wrap_faccessat(int fd, const char *path, int mode, int flags);
int __real_faccessat(int fd, const char *path, int mode, int flags);
uid_t __wrap_geteuid(void);
uid_t __real_geteuid(void);
int __wrap_mincore(void *addr, size_t len, unsigned char *pages);
int __real_mincore(void *addr, size_t len, unsigned char *pages);
int __wrap_fstatfs64(int fd, struct statfs *fs);
int __real_fstatfs64(int fd, struct statfs *fs);
int __wrap_fstat64(int fd, struct stat *st);
int __real_fstat64(int fd, struct stat *st);
FILE *__wrap_fopen64(const char *path, const char *mode);
FILE *__real_fopen64(const char *path, const char *mode);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __real_nanosleep(const struct timespec *time, struct timespec *left);

#define SECOND	1000000000ull

int __wrap_sched_getaffinity(pid_t pid, size_t len, cpu_set_t *set)
{
	int i, nr = fake_kernel.cpus ? fake_kernel.cpus : 16;

	if (pid || len != sizeof(*set))
		return -1;
	CPU_ZERO(set);
	for (i = 0; i < nr; i++)
		CPU_SET(i, set);
	return 0;
}

int __wrap_fstatfs64(int fd, struct statfs *fs)
{
	int result = __real_fstatfs64(fd, fs);

	if (fake_kernel.fs_type)
		fs->f_type = fake_kernel.fs_type;
	return result;
}

int __wrap_fstat64(int fd, struct stat *st)
{
	atomic_fetch_add(&fake_kernel.nr_fstats, 1);
	if (fake_kernel.stopped_ns)
		fake_kernel.stopped_ns += fake_kernel.fstat_ns;
	return __real_fstat64(fd, st);
}

/* Time that a program waits for by a condition goes on as it does. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = __real_clock_gettime(clock, time);

	if (clock == CLOCK_MONOTONIC_COARSE)
		time->tv_sec += atomic_load(&fake_kernel.clock_ahead);
	if (clock == CLOCK_MONOTONIC && fake_kernel.stopped_ns) {
		time->tv_sec = fake_kernel.stopped_ns / SECOND;
		time->tv_nsec = fake_kernel.stopped_ns % SECOND;
	}
	return result;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
	uint64_t ns = time->tv_sec * SECOND + time->tv_nsec;

	if (!fake_kernel.stopped_ns)
		return __real_nanosleep(time, left);
	fake_kernel.stopped_ns += ns;
	fake_kernel.slept_ns += ns;
	return 0;
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
	char whole[4096];

	if (!fake_kernel.root || *mode != 'r')
		return __real_fopen64(path, mode);
	snprintf(whole, sizeof(whole), "%s%s", fake_kernel.root, path);
	return __real_fopen64(whole, mode);
}

uid_t __wrap_geteuid(void)
{
	return __real_geteuid() + fake_kernel.stranger;
}

int __wrap_faccessat(int fd, const char *path, int mode, int flags)
{
	if (!fake_kernel.stranger)
		return __real_faccessat(fd, path, mode, flags);
	errno = EACCES;
	return -1;
}

/* To strangers it says that all is there. */
int __wrap_mincore(void *addr, size_t len, unsigned char *pages)
{
	if (!fake_kernel.stranger)
		return __real_mincore(addr, len, pages);
	memset(pages, 1, (len + 4095) / 4096);
	return 0;
}
