// SPDX-License-Identifier: MIT
/*
 * A second view of the caller's own page.
 *
 * The flow is that of the remap_pfn tests: allocate a page and write to it, map it
 * once more through the driver, read through one view what was written through the
 * other one. What is better here: the page is named by the caller's own address.
 * Those tests look up its physical address and give that to mmap(), and their
 * driver maps whatever it is given. Here the kernel pins the page, so that it stays
 * the one that the caller has; and a physical address is refused, which this
 * program tries, too. It needs no GPU.
 *
 * usage: alias
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <peerdma.h>

static PEERDMA_SIZED(peerdma_buffer_opts, own_memory, .provider = "user");

static void fail(const char *what, const char *remedy)
{
	fprintf(stderr, "alias: %s; %s\n", what, remedy);
	exit(1);
}

static struct peerdma *open_context(void)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .gpu = PEERDMA_GPU_NONE);
	PEERDMA_SIZED(peerdma_context_info, info);
	struct peerdma *ctx;

	if (peerdma_open(&ctx, &opts))
		fail("out of memory", "free some");
	peerdma_context_info(ctx, &info);
	if (info.module_reason)
		fail("no module", peerdma_reason_string(info.module_reason));
	return ctx;
}

/* As /proc tells it to root; to others 0. */
static uint64_t physical_address(const void *page, size_t page_len)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (pread(fd, &entry, sizeof(entry),
		  (uintptr_t)page / page_len * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	return (entry & ((1ull << 55) - 1)) * page_len;
}

static void show_views(struct peerdma_buffer *buffer, char *page)
{
	uint32_t word = 0x66616365;
	char *view;

	if (peerdma_buffer_map(buffer, NULL, (void **)&view))
		fail("the page cannot be mapped again", "free some memory");
	printf("page at %p, second view at %p\n", page, view);
	memcpy(page, "hello", sizeof("hello"));
	printf("written to the page, read through the view: %s\n", view);
	if (strcmp(view, "hello"))
		fail("the view shows other bytes", "this is a bug");
	memcpy(view, &word, sizeof(word));
	memcpy(&word, page, sizeof(word));
	printf("written through the view, read from the page: %#x\n", word);
	if (word != 0x66616365)
		fail("the page has other bytes", "this is a bug");
	peerdma_buffer_unmap(buffer, view);
}

static void try_physical(struct peerdma *ctx, struct peerdma_buffer *buffer,
			 uint64_t addr, size_t len)
{
	struct peerdma_buffer *other;
	int err;

	err = peerdma_buffer_pin(ctx, addr, len, &own_memory, &other);
	printf("pin of physical address %#llx: %s\n", (unsigned long long)addr,
	       strerror(-err));
	if (err != -EFAULT)
		fail("a physical address was not refused", "this is a bug");
	if (mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED,
		 peerdma_buffer_fd(buffer), addr) != MAP_FAILED)
		fail("a physical address was mapped", "this is a bug");
	printf("mmap of it: %s\n", strerror(errno));
}

int main(void)
{
	size_t len = sysconf(_SC_PAGESIZE);
	struct peerdma *ctx = open_context();
	struct peerdma_buffer *buffer;
	uint64_t physical;
	void *page;
	int err;

	if (posix_memalign(&page, len, len))
		fail("out of memory", "free some");
	memset(page, 0, len);
	err = peerdma_buffer_pin(ctx, (uintptr_t)page, len, &own_memory,
				 &buffer);
	if (err == -EDQUOT)
		fail("too much memory is locked", "raise it: ulimit -l");
	if (err)
		fail(strerror(-err), "is the module an old one?");
	show_views(buffer, page);
	physical = physical_address(page, len);
	if (physical)
		try_physical(ctx, buffer, physical, len);
	else
		printf("who is not root is not told the physical address\n");
	peerdma_buffer_close(buffer);
	peerdma_close(ctx);
	free(page);
	return 0;
}
