// SPDX-License-Identifier: MIT
/*
 * Buffers of ours as memory of an RDMA device: registered as a library of verbs
 * does it, by the kernel's own commands. The pages are pinned for the long term.
 *
 * usage: rdma DEVICE [CASE]..., as root: DEVICE is a file in /dev/infiniband.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <signal.h>

#include "../t_counters.h"
#include "../t_pages.h"
#include "../t_pin.h"

#define LEN	(4u << 20)
#define ACCESS	7u	/* local write, remote write, remote read */

static const char *path;
static int dev, verbs;
static uint32_t domain;

/* A command with its reply; @command starts with the reply's address. */
static int verb(int fd, uint32_t number, void *command, size_t len, void *reply,
		size_t room)
{
	unsigned char bytes[128];
	struct ib_uverbs_cmd_hdr header = {
		.command = number,
		.in_words = (sizeof(header) + len) / 4,
		.out_words = room / 4,
	};
	uint64_t response = (uintptr_t)reply;

	if (room)
		memcpy(command, &response, sizeof(response));
	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), command, len);
	len += sizeof(header);
	return write(fd, bytes, len) == (ssize_t)len ? 0 : -errno;
}

static int context_open(uint32_t *domain)
{
	struct ib_uverbs_get_context context = { 0 };
	struct ib_uverbs_get_context_resp opened = { 0 };
	struct ib_uverbs_alloc_pd pd = { 0 };
	struct ib_uverbs_alloc_pd_resp made = { 0 };
	int fd = t_open(path, O_RDWR | O_CLOEXEC);

	t_need(fd >= 0, "the device opens");
	t_need(!verb(fd, IB_USER_VERBS_CMD_GET_CONTEXT, &context,
		     sizeof(context), &opened, sizeof(opened)), "a context");
	t_need(!verb(fd, IB_USER_VERBS_CMD_ALLOC_PD, &pd, sizeof(pd), &made,
		     sizeof(made)), "a protection domain");
	*domain = made.pd_handle;
	close(opened.async_fd);
	return fd;
}

static int memory_register(int fd, uint32_t domain, void *at, uint32_t *region)
{
	struct ib_uverbs_reg_mr memory = {
		.start = (uintptr_t)at,
		.length = LEN,
		.hca_va = (uintptr_t)at,
		.pd_handle = domain,
		.access_flags = ACCESS,
	};
	struct ib_uverbs_reg_mr_resp made = { 0 };
	int ret = verb(fd, IB_USER_VERBS_CMD_REG_MR, &memory, sizeof(memory),
		       &made, sizeof(made));

	*region = made.mr_handle;
	return ret;
}

static int memory_deregister(uint32_t region)
{
	struct ib_uverbs_dereg_mr memory = { .mr_handle = region };

	return verb(verbs, IB_USER_VERBS_CMD_DEREG_MR, &memory, sizeof(memory),
		    NULL, 0);
}

static void test_mapping(void)
{
	struct t_buffer buffer;
	uint32_t region;
	void *at;

	t_buffer_make(&buffer, dev, LEN);
	at = t_map(buffer.fd, LEN, PROT_READ | PROT_WRITE);
	t_need(at != MAP_FAILED, "a buffer is mapped");
	t_result(memory_register(verbs, domain, at, &region), -EFAULT,
		 "it is no memory for others");
	munmap(at, LEN);
	t_buffer_drop(&buffer);
}

static void test_pages(void)
{
	struct t_buffer buffer;
	uint32_t region;
	void *at;

	t_buffer_make(&buffer, dev, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	t_result(memory_register(verbs, domain, at, &region), 0,
		 "its pages are registered");
	munmap(at, LEN);
	close(buffer.fd);
	t_ok(t_wait_for(t_counter("held_page_maps") == 1),
	     "all is closed, and the registration holds them");
	t_gpu_free(buffer.ptr);
	t_is(t_counter("pinned_bytes"), LEN, "freed, the memory stays pinned");
	t_sleep_ms(300);
	t_is(t_counter("held_page_maps"), 1, "for as long as it lasts");
	t_result(memory_deregister(region), 0, "it is deregistered");
	t_ok(t_wait_for(!t_counter("buffers")), "the pin ends");
}

static void test_revoked(void)
{
	struct t_buffer buffer;
	uint32_t region;
	pid_t child;
	void *at;
	int status;

	t_buffer_make(&buffer, dev, LEN);
	at = t_pages_map(dev, buffer.fd, LEN);
	t_result(memory_register(verbs, domain, at, &region), 0,
		 "its pages are registered");
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(t_revoke(dev, buffer.fd) != 0);
	t_ok(t_wait_for(t_counter("held_page_maps") == 1),
	     "taken back, they are held");
	t_is(waitpid(child, &status, WNOHANG), 0, "REVOKE waits");
	t_is(t_counter("pinned_bytes"), LEN, "the memory is not given back");
	t_result(memory_deregister(region), 0, "it is deregistered");
	t_ok(waitpid(child, &status, 0) == child && !status,
	     "the revocation is through");
	t_is(t_counter("pinned_bytes"), 0, "the memory is given back");
	munmap(at, LEN);
	t_buffer_drop(&buffer);
}

/* A context of its own, that nobody closes. */
static int child_registers(void *at)
{
	uint32_t own, region;
	int fd = context_open(&own);

	if (memory_register(fd, own, at, &region))
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

/* Children inherit no mapping, so the child makes its own. */
static int child_maps_and_registers(void *buffer)
{
	fclose(stdout);
	return child_registers(t_pages_map(dev, *(int *)buffer, LEN));
}

static void test_killed(void)
{
	struct t_buffer buffer;

	t_buffer_make(&buffer, dev, LEN);
	fflush(stdout);
	t_is(t_child(child_maps_and_registers, &buffer.fd), 256 + SIGKILL,
	     "a process dies with its pages registered");
	t_ok(t_wait_for(!t_counter("page_maps")), "nobody holds them");
	t_buffer_drop(&buffer);
}

static const struct t_case cases[] = {
	{ "a mapping", test_mapping },
	{ "pages", test_pages },
	{ "revoked", test_revoked },
	{ "killed", test_killed },
};

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	t_tap.name = "prepare";
	path = argv[1];
	t_gpu_init();
	dev = t_device_open();
	verbs = context_open(&domain);
	argc--;
	argv++;
	return T_RUN(cases, t_nothing_left);
}
