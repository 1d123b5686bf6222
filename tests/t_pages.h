/* SPDX-License-Identifier: MIT */
/*
 * Buffers as struct pages.
 */
#ifndef T_PAGES_H
#define T_PAGES_H

#include <sys/ioctl.h>

#include "t_transfer.h"

/* PAGES with the reply in @arg; the descriptor or a negative errno. */
static inline int t_pages(int dev, int buffer, uint32_t flags,
			  struct peerdma_page_map *arg)
{
	*arg = (struct peerdma_page_map){
		.size = sizeof(*arg),
		.flags = flags,
		.buffer_fd = buffer,
		.out_fd = -1,
	};
	return ioctl(dev, PEERDMA_PAGES, arg) ? -errno : arg->out_fd;
}

/* The whole of a buffer as pages, with no descriptor left of it. */
static inline unsigned char *t_pages_map(int dev, int buffer, size_t len)
{
	struct peerdma_page_map arg;
	int fd = t_pages(dev, buffer, 0, &arg);
	void *at;

	if (fd < 0)
		t_need(false, "the buffer as pages: %s, reason %u",
		       t_errno_name(fd), arg.out_reason);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		t_need(false, "pages are mapped: %s", strerror(errno));
	close(fd);
	return at;
}

#endif /* T_PAGES_H */
