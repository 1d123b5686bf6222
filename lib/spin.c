// SPDX-License-Identifier: MIT
/* Waiting awake, for as long as going to sleep and being woken would take. */
#include <time.h>

#include "internal.h"

/* Looks at what is waited for between two looks at the clock. */
#define LOOKS	32

/**
 * peerdma_nanoseconds() - the time that passes, whatever is done to the clock
 *
 * Return: nanoseconds since some moment before the program began.
 */
uint64_t peerdma_nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

/**
 * peerdma_spin_start() - begin to wait awake
 * @spin: filled in
 * @ns: at most so long, in nanoseconds
 */
void peerdma_spin_start(struct peerdma_spin *spin, uint64_t ns)
{
	spin->looks = 0;
	spin->ns = ns;
	spin->end = 0;
}

/**
 * peerdma_spin_on() - wait a little more
 * @spin: started
 *
 * Return: false: it has been long enough.
 */
bool peerdma_spin_on(struct peerdma_spin *spin)
{
	relax();
	if (++spin->looks % LOOKS)
		return true;
	if (!spin->end)
		spin->end = peerdma_nanoseconds() + spin->ns;
	return peerdma_nanoseconds() < spin->end;
}

/**
 * peerdma_spin_pause() - leave what is waited for alone for a moment
 * @times: of some 50 ns
 */
void peerdma_spin_pause(unsigned int times)
{
	while (times--)
		relax();
}

/**
 * peerdma_spin_mutex() - set up a lock that is held for a moment at most
 * @lock: whoever finds it taken tries again before going to sleep
 */
void peerdma_spin_mutex(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}
