// SPDX-License-Identifier: MIT
/*
 * A worker of make bench-gpu: a process that moves files one way, when it is told
 * to. A library's threads, its pinned memory and its CPU time are its own there:
 * cuFile's take a few per cent of a CPU as soon as it is loaded, and make each wait
 * for the GPU dearer for whoever shares the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"

/* What one thread of one round did. */
struct work {
	const struct test_case *c;
	const struct way *way;
	const struct target *target;
	struct caller *caller;
	int n;
	uint64_t seed;
	uint64_t moved;
	uint64_t requests;
	uint64_t last_offset;
	size_t last_at;
	int err;
};

static pthread_barrier_t barrier;
static double deadline;

static uint64_t next_offset(struct work *w)
{
	uint64_t blocks = w->target->len / w->c->block;
	uint64_t first = blocks / w->c->nr_callers * w->n;

	if (!w->c->random)
		return (first + w->requests) % blocks * w->c->block;
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return w->seed % blocks * w->c->block;
}

static void *run_caller(void *arg)
{
	struct work *w = arg;
	size_t block = w->c->block;
	ssize_t n;

	cuda.cuCtxSetCurrent(cuda_context);
	pthread_barrier_wait(&barrier);
	do {
		w->last_offset = next_offset(w);
		w->last_at = w->requests % (WINDOW / block) * block;
		n = w->way->move(w->caller, w->target, block, w->last_offset,
				 w->last_at);
		if (n != (ssize_t)block) {
			w->err = n < 0 ? -n : EIO;
			break;
		}
		w->moved += n;
		w->requests++;
	} while (gpu_now() < deadline);
	return NULL;
}

/* The last block of every caller, on the GPU and in the file. */
static int compare(const struct work *w)
{
	char *gpu = malloc(w->c->block);
	int err = 0;

	if (cuda.cuMemcpyDtoH(gpu, w->caller->addr + w->last_at, w->c->block))
		err = EIO;
	if (pread(w->target->fd, w->caller->pageable, w->c->block,
		  w->last_offset) != (ssize_t)w->c->block)
		err = EIO;
	if (!err && memcmp(gpu, w->caller->pageable, w->c->block))
		err = EILSEQ;
	free(gpu);
	return err;
}

static int run_round(const struct test_case *c, const struct way *way,
		     const struct target *target, double seconds, bool check,
		     struct figure *figure)
{
	struct work works[CALLERS_MAX] = { 0 };
	uint64_t moved = 0, requests = 0;
	pthread_t threads[CALLERS_MAX];
	double start, cpu, took;
	int i, err = 0;

	pthread_barrier_init(&barrier, NULL, c->nr_callers + 1);
	for (i = 0; i < c->nr_callers; i++) {
		works[i] = (struct work){ .c = c, .way = way, .n = i,
			.target = target, .caller = &callers[i],
			.seed = 88172645463325252u + i * 7919 };
		pthread_create(&threads[i], NULL, run_caller, &works[i]);
	}
	start = gpu_now();
	deadline = start + seconds;
	cpu = gpu_cpu_time();
	pthread_barrier_wait(&barrier);
	for (i = 0; i < c->nr_callers; i++) {
		pthread_join(threads[i], NULL);
		moved += works[i].moved;
		requests += works[i].requests;
		err = works[i].err ? works[i].err : err;
	}
	took = gpu_now() - start;
	cpu = gpu_cpu_time() - cpu;
	figure->gb_per_s = moved / took / 1e9;
	figure->us = requests ? took * c->nr_callers * 1e6 / requests : 0;
	figure->cpu = moved ? cpu / (moved / 1073741824.0) : 0;
	pthread_barrier_destroy(&barrier);
	for (i = 0; check && !err && i < c->nr_callers; i++)
		err = compare(&works[i]);
	return err;
}

static int open_target(const struct test_case *c, const char *path,
		       struct target *target)
{
	struct stat st;

	target->path = path;
	target->write = c->write;
	target->cached = !c->write && c->place != DISK;
	target->fd = open(path, O_RDWR | (c->place == DISK ? O_DIRECT : 0));
	if (target->fd < 0)
		return errno;
	if (fstat(target->fd, &st))
		return errno;
	target->len = st.st_size;
	return 0;
}

/* The limit of reads is the GPU's, of writes and at a disk the file's. */
static const struct way *way_of(const struct way *way,
				const struct test_case *c)
{
	return way == &way_limit && (c->write || c->place == DISK) ? &way_host :
								     way;
}

static int open_case(const struct order *order, const struct way *way,
		     struct target *target)
{
	int err = open_target(order->c, order->path, target);

	if (err)
		return err;
	if (!way->open(target))
		return 0;
	close(target->fd);
	return EOPNOTSUPP;
}

static void obey(const struct order *order, const struct way *way,
		 struct answer *answer)
{
	static struct target target;

	way = way_of(way, order->c);
	switch (order->what) {
	case ORDER_OPEN:
		answer->err = open_case(order, way, &target);
		memcpy(answer->refusal, refusal, sizeof(refusal));
		break;
	case ORDER_ROUND:
		answer->err = run_round(order->c, way, &target, order->seconds,
					order->check, &answer->figure);
		break;
	case ORDER_CLOSE:
		way->close();
		close(target.fd);
		break;
	}
}

/* Does not return. */
static void work(int channel, const struct way *way)
{
	struct answer answer = { .err = -gpu_start() };
	struct order order;

	while (write(channel, &answer, sizeof(answer)) == sizeof(answer) &&
	       read(channel, &order, sizeof(order)) == sizeof(order)) {
		answer = (struct answer){ .err = 0 };
		obey(&order, way, &answer);
	}
	_exit(0);
}

/**
 * worker_start() - start one
 * @worker: filled in
 * @way: what it does
 * @others: started before it, which it shall not keep alive
 * @nr_others: how many
 *
 * It sees the memory of this process as it is now: what orders point to, too.
 * Its first answer says whether there is a GPU.
 */
void worker_start(struct worker *worker, const struct way *way,
		  const struct worker *others, int nr_others)
{
	int ends[2], i;

	worker->channel = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
		return;
	worker->pid = fork();
	if (!worker->pid) {
		for (i = 0; i < nr_others; i++)
			close(others[i].channel);
		close(ends[0]);
		work(ends[1], way);
	}
	close(ends[1]);
	worker->channel = ends[0];
}

/**
 * worker_answer() - what a worker says to its start, or to the last order
 * @worker: the worker
 *
 * Return: its answer; with EPIPE for one that has died.
 */
struct answer worker_answer(const struct worker *worker)
{
	struct answer answer = { .err = EPIPE };

	if (read(worker->channel, &answer, sizeof(answer)) != sizeof(answer))
		answer.err = EPIPE;
	return answer;
}

/**
 * worker_ask() - let a worker do something, and wait
 * @worker: the worker
 * @order: what
 *
 * Return: as worker_answer().
 */
struct answer worker_ask(const struct worker *worker, const struct order *order)
{
	if (send(worker->channel, order, sizeof(*order), MSG_NOSIGNAL) !=
	    sizeof(*order))
		return (struct answer){ .err = EPIPE };
	return worker_answer(worker);
}

/**
 * worker_end() - let a worker go
 * @worker: started
 */
void worker_end(const struct worker *worker)
{
	close(worker->channel);
	if (worker->pid > 0)
		waitpid(worker->pid, NULL, 0);
}
