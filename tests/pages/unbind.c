// SPDX-License-Identifier: MIT
/*
 * The GPU's driver goes while somebody holds pages of a buffer.
 *
 * usage: unbind "held" | "held, revoked"
 *   leaves the GPU without its driver; held.h says what it wants
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/eventfd.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"
#include "../t_touch.h"
#include "held.h"

#define LEN	(4u << 20)

static int dev;
static struct t_buffer buffer;

static int watch(int event)
{
	struct peerdma_watch watch = {
		.size = sizeof(watch),
		.buffer_fd = buffer.fd,
		.event_fd = event,
	};

	return ioctl(dev, PEERDMA_WATCH, &watch) ? -errno : 0;
}

/* What an eventfd has counted since it was asked last. */
static long long events(int event)
{
	uint64_t count;

	return read(event, &count, sizeof(count)) == sizeof(count) ?
		       (long long)count : 0;
}

static bool is_revoked(void)
{
	struct peerdma_query query = {
		.size = sizeof(query), .buffer_fd = buffer.fd,
	};

	return !ioctl(dev, PEERDMA_QUERY, &query) &&
	       query.out_state & PEERDMA_BUFFER_REVOKED;
}

/* A REVOKE that goes on without who asked for it. */
static void begin_revocation(void)
{
	pid_t child = fork();

	if (!child)
		_exit(t_revoke(dev, buffer.fd) != 0);
	t_need(t_wait_for(is_revoked()), "a revocation has begun");
	kill(child, SIGKILL);
	t_is(waitpid(child, NULL, 0), child, "who asked for it is killed");
}

/* A child that takes the driver from the device of @query's buffer. */
static pid_t begin_unbinding(const struct peerdma_query *query)
{
	char name[16];
	pid_t child;
	int fd;

	snprintf(name, sizeof(name), "%04x:%02x:%02x.%x",
		 query->out_device >> 16, query->out_device >> 8 & 0xff,
		 query->out_device >> 3 & 0x1f, query->out_device & 7);
	child = fork();
	if (child)
		return child;
	fd = open("/sys/bus/pci/drivers/simgpu/unbind", O_WRONLY);
	_exit(write(fd, name, strlen(name)) < 0);
}

/*
 * The GPU's driver goes while pages are held: its unbinding waits for them, also
 * where a revocation waits already.
 */
static void unbind(bool revoked)
{
	int early = eventfd(0, EFD_NONBLOCK), late = eventfd(0, EFD_NONBLOCK);
	struct peerdma_query query = { .size = sizeof(query) };
	struct io_uring ring;
	unsigned char *at;
	pid_t child;
	int status;

	query.buffer_fd = buffer.fd;
	t_need(!ioctl(dev, PEERDMA_QUERY, &query), "QUERY answers");
	at = t_pages_map(dev, buffer.fd, LEN);
	hold(&ring, at, LEN);
	t_result(watch(early), 0, "it is watched");
	if (revoked)
		begin_revocation();
	t_result(watch(late), 0, "by two");
	child = begin_unbinding(&query);
	t_ok(t_wait_for(t_touch(at, true) == SIGBUS), "the mapping is gone");
	t_ok(t_wait_for(t_counter("held_page_maps") == 1), "but it is held");
	t_sleep_ms(300);
	t_is(waitpid(child, &status, WNOHANG), 0,
	     "the unbinding waits for who holds pages");
	t_ok(!events(early) && !events(late), "nobody is told yet");
	t_is(t_counter("pinned_bytes"), LEN, "they are not given back");
	t_result(let_go(&ring), LEN, "the read ends");
	t_is(waitpid(child, &status, 0), child, "it is unbound");
	t_is(status, 0, "... well");
	t_is(events(early), 1, "who watches is told, once");
	t_is(events(late), 1, "and so is who came during the revocation");
	t_is(t_counter("pinned_bytes"), 0, "nothing is pinned");
	t_is(t_counter("page_bytes"), 0, "no struct pages are left");
	munmap(at, LEN);
	close(buffer.fd);
}

static void test_held(void)
{
	unbind(false);
}

static void test_revoked(void)
{
	unbind(true);
}

/* Two pins of one memory: neither waits for the other one's mapping. */
static void test_twins(void)
{
	struct peerdma_query query;
	unsigned char *at, *other;
	struct peerdma_pin pin;
	int twin, status = -1;
	pid_t child;

	t_need(!t_query(dev, buffer.fd, &query), "QUERY answers");
	twin = t_pin(dev, buffer.ptr, LEN, 0, &pin);
	t_need(twin >= 0, "the memory is pinned once more");
	at = t_pages_map(dev, buffer.fd, LEN);
	other = t_pages_map(dev, twin, LEN);
	t_ok(!t_touch(at, true) && !t_touch(other, true), "both are mapped");
	child = begin_unbinding(&query);
	t_ok(t_wait_for(waitpid(child, &status, WNOHANG) == child),
	     "the driver is unbound");
	t_is(status, 0, "... well");
	t_is(t_touch(at, true), SIGBUS, "the mapping is gone");
	t_is(t_touch(other, true), SIGBUS, "the other one, too");
	t_is(t_counter("pinned_bytes"), 0, "nothing is pinned");
	munmap(at, LEN);
	munmap(other, LEN);
	close(twin);
	close(buffer.fd);
}

static const struct t_case cases[] = {
	{ "held", test_held },
	{ "held, revoked", test_revoked },
	{ "twins", test_twins },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "prepare";
	if (argc != 2)
		return 2;
	t_gpu_init();
	dev = t_device_open();
	held_prepare();
	t_buffer_make(&buffer, dev, LEN);
	return T_RUN(cases, NULL);
}
