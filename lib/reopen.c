// SPDX-License-Identifier: MIT
/*
 * A caller's file opened a second time, and how that ends. close(2) drops every
 * POSIX lock that the process has on a file, whichever descriptor is closed. So
 * before one of ours is closed the kernel is asked whether the file has locks, in
 * the name of our own description, for which those of this process are somebody
 * else's. If it has any, the descriptor is parked instead: it serves the next
 * request for the same file, and is closed once the locks are gone. Whose they
 * are the kernel tells of one of them only, and another may lie behind it; so
 * all count.
 *
 * A lock that another thread takes between the question and close(2) is lost.
 *
 * POSIX locks are the process's, and so is the list: a context that ends while
 * the program holds a lock must not drop it either.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

/* With so many no other file that has locks is opened around its page cache. */
#define PARKED_MAX	64

#define KEPT_FLAGS	(O_SYNC | O_DSYNC | O_NOATIME)

/* Owner: the list, but for who has taken it out. Guarded by parked_lock. */
struct parked {
	struct parked *next;
	dev_t dev;
	ino_t ino;
	int flags;			/* as it was opened */
	int fd;
};

static pthread_mutex_t parked_lock = PTHREAD_MUTEX_INITIALIZER;
static struct parked *all_parked;
static atomic_uint nr_parked;		/* read without the lock, too */

/* Where nobody can be asked nobody can lock either. */
static bool has_locks(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

static int flags_of(const struct peerdma_file *file, int direct)
{
	return (file->write ? O_WRONLY : O_RDONLY) |
	       (file->flags & KEPT_FLAGS) | direct;
}

static int take_parked(const struct peerdma_file *file, int flags)
{
	struct parked **link, *parked;
	int fd = -1;

	if (!atomic_load(&nr_parked))
		return -1;
	pthread_mutex_lock(&parked_lock);
	for (link = &all_parked; (parked = *link); link = &parked->next)
		if (parked->ino == file->ino && parked->dev == file->dev &&
		    parked->flags == flags)
			break;
	if (parked) {
		*link = parked->next;
		atomic_fetch_sub(&nr_parked, 1);
		fd = parked->fd;
	}
	pthread_mutex_unlock(&parked_lock);
	free(parked);
	return fd;
}

/**
 * peerdma_reopen() - open a caller's file a second time
 * @file: the file
 * @direct: O_DIRECT or 0
 *
 * Return: a descriptor, for peerdma_reopened_close(); -EBUSY: too many files have
 * locks; another negative errno.
 */
int peerdma_reopen(const struct peerdma_file *file, int direct)
{
	int flags = flags_of(file, direct), fd = take_parked(file, flags);
	char path[40];

	if (fd >= 0)
		return fd;
	/* Not asked in the name of ours, so the caller's OFD lock is not seen. */
	if (direct && atomic_load(&nr_parked) >= PARKED_MAX &&
	    has_locks(file->fd))
		return -EBUSY;
	/* thread-self: /proc/self is empty once the main thread has ended. */
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", file->fd);
	fd = open(path, flags | O_CLOEXEC);
	return fd >= 0 ? fd : -errno;
}

/* At the end: the others were looked at longer ago. */
static void park(const struct peerdma_file *file, int direct, int fd)
{
	struct parked *parked = malloc(sizeof(*parked)), **link;

	/* Open for good: that is less than a lock lost. */
	if (!parked)
		return;
	*parked = (struct parked){
		.dev = file->dev,
		.ino = file->ino,
		.flags = flags_of(file, direct),
		.fd = fd,
	};
	pthread_mutex_lock(&parked_lock);
	for (link = &all_parked; *link; link = &(*link)->next)
		;
	*link = parked;
	atomic_fetch_add(&nr_parked, 1);
	pthread_mutex_unlock(&parked_lock);
}

/* Close what has no locks any more, of the @nr first ones; the others go last. */
static void look_at(unsigned int nr)
{
	struct parked *parked, **end, *kept = NULL, **last = &kept;

	if (!atomic_load(&nr_parked))
		return;
	pthread_mutex_lock(&parked_lock);
	for (; nr && (parked = all_parked); nr--) {
		all_parked = parked->next;
		if (!has_locks(parked->fd)) {
			close(parked->fd);
			free(parked);
			atomic_fetch_sub(&nr_parked, 1);
			continue;
		}
		parked->next = NULL;
		*last = parked;
		last = &parked->next;
	}
	for (end = &all_parked; *end; end = &(*end)->next)
		;
	*end = kept;
	pthread_mutex_unlock(&parked_lock);
}

/**
 * peerdma_reopened_close() - a descriptor of ours is not needed any more
 * @file: the file
 * @direct: as it was opened
 * @fd: the descriptor
 */
void peerdma_reopened_close(const struct peerdma_file *file, int direct, int fd)
{
	/* Each call looks at one of the others, so that none stays for long. */
	look_at(1);
	if (has_locks(fd))
		park(file, direct, fd);
	else
		close(fd);
}

/**
 * peerdma_reopened_sweep() - close what was parked, as far as locks allow
 */
void peerdma_reopened_sweep(void)
{
	look_at(UINT_MAX);
}
