// SPDX-License-Identifier: MIT
/*
 * A context's own threads: at most eight, started when they are first of use,
 * shared by all calls on the context. Nobody depends on them: whoever posts a
 * job does it alone where no thread comes, so that a program at its limit of
 * threads, or a forked child, which has none, gets the same result.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define THREADS_MAX	8
/*
 * A thread that has just helped is likely to be needed again at once, and waking
 * one costs more than many a request: so long it waits awake, in nanoseconds.
 */
#define AWAKE_NS	50000

struct peerdma_pool {
	atomic_uint posts;		/* ever; changed under the lock */
	unsigned int nr_cpus;		/* this process may run on; constant */
	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t posted;
	pthread_cond_t left;
	struct peerdma_job *jobs;	/* that take more helpers */
	unsigned int nr_threads;
	unsigned int nr_asleep;
	unsigned int nr_awake;		/* waiting without sleeping */
	bool stop;
	pid_t pid;			/* of the process that has the threads */
	pthread_t threads[THREADS_MAX];
};

/* The job with the fewest helpers: several callers get the same share. */
static struct peerdma_job *choose(struct peerdma_pool *pool)
{
	struct peerdma_job *job, *best = NULL;

	for (job = pool->jobs; job; job = job->next)
		if (job->running < job->wanted &&
		    (!best || job->running < best->running))
			best = job;
	return best;
}

/* Wait for a post, with the lock held: awake for a moment, then asleep. */
static void await_post(struct peerdma_pool *pool, bool awake)
{
	unsigned int seen = atomic_load(&pool->posts);
	struct peerdma_spin spin;

	if (awake && pool->nr_cpus >= PEERDMA_CPUS_MANY) {
		pool->nr_awake++;
		pthread_mutex_unlock(&pool->lock);
		peerdma_spin_start(&spin, AWAKE_NS);
		while (atomic_load(&pool->posts) == seen &&
		       peerdma_spin_on(&spin))
			;
		pthread_mutex_lock(&pool->lock);
		pool->nr_awake--;
	}
	if (pool->stop || atomic_load(&pool->posts) != seen)
		return;
	pool->nr_asleep++;
	pthread_cond_wait(&pool->posted, &pool->lock);
	pool->nr_asleep--;
}

static void *thread_main(void *arg)
{
	struct peerdma_pool *pool = arg;
	struct peerdma_job *job;
	bool awake = false;

	pthread_mutex_lock(&pool->lock);
	while (!pool->stop) {
		job = choose(pool);
		if (!job) {
			await_post(pool, awake);
			awake = false;
			continue;
		}
		job->running++;
		awake = job->awake;
		pthread_mutex_unlock(&pool->lock);
		job->run(job);
		pthread_mutex_lock(&pool->lock);
		/* It returns when there is nothing left to help with. */
		job->wanted = 0;
		job->running--;
		pthread_cond_broadcast(&pool->left);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are the program's: its handlers run on its own threads. */
static bool start_thread(struct peerdma_pool *pool)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&pool->threads[pool->nr_threads], NULL,
			     thread_main, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		pool->nr_threads++;
	return !err;
}

static bool call_helpers(struct peerdma_pool *pool, unsigned int wanted)
{
	unsigned int coming = pool->nr_awake, i;

	atomic_fetch_add(&pool->posts, 1);
	wanted -= coming < wanted ? coming : wanted;
	for (i = pool->nr_asleep; i < wanted && pool->nr_threads < THREADS_MAX;
	     i++)
		if (!start_thread(pool))
			break;
	for (i = 0; i < wanted && i < pool->nr_asleep; i++)
		pthread_cond_signal(&pool->posted);
	return pool->nr_threads;
}

/**
 * peerdma_pool_post() - ask for help
 * @ctx: the context
 * @job: its run() is called by every helper that comes, and returns when there
 *	is nothing left to do; @job stays the caller's
 * @wanted: helpers at most
 *
 * Return: true: peerdma_pool_retract() must follow; false: no help will come.
 */
bool peerdma_pool_post(struct peerdma *ctx, struct peerdma_job *job,
		       unsigned int wanted)
{
	struct peerdma_pool *pool = ctx->pool;
	bool posted;

	if (!wanted || pool->pid != getpid())
		return false;
	pthread_mutex_lock(&pool->lock);
	job->wanted = wanted;
	job->running = 0;
	posted = call_helpers(pool, wanted);
	if (posted) {
		job->next = pool->jobs;
		pool->jobs = job;
	}
	pthread_mutex_unlock(&pool->lock);
	return posted;
}

/**
 * peerdma_pool_retract() - ask for no more help, and wait for who is helping
 * @ctx: the context
 * @job: that was posted; afterwards nobody knows it
 */
void peerdma_pool_retract(struct peerdma *ctx, struct peerdma_job *job)
{
	struct peerdma_pool *pool = ctx->pool;
	struct peerdma_job **link;

	pthread_mutex_lock(&pool->lock);
	for (link = &pool->jobs; *link != job; link = &(*link)->next)
		;
	*link = job->next;
	while (job->running)
		pthread_cond_wait(&pool->left, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
}

static unsigned int count_cpus(void)
{
	cpu_set_t set;

	/* More of them than the set has places for. */
	if (sched_getaffinity(0, sizeof(set), &set))
		return CPU_SETSIZE;
	return CPU_COUNT(&set);
}

/**
 * peerdma_pool_cpus() - how many threads have a CPU each
 * @ctx: the context
 *
 * Return: CPUs that the process could run on when it opened the context.
 */
unsigned int peerdma_pool_cpus(const struct peerdma *ctx)
{
	return ctx->pool->nr_cpus;
}

/**
 * peerdma_pool_create() - a pool with no threads yet
 * @ctx: gets it
 *
 * Return: 0 or -ENOMEM.
 */
int peerdma_pool_create(struct peerdma *ctx)
{
	struct peerdma_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	atomic_init(&pool->posts, 0);
	pool->nr_cpus = count_cpus();
	peerdma_spin_mutex(&pool->lock);
	pthread_cond_init(&pool->posted, NULL);
	pthread_cond_init(&pool->left, NULL);
	pool->pid = getpid();
	ctx->pool = pool;
	return 0;
}

/**
 * peerdma_pool_destroy() - end the threads
 * @ctx: a context that nobody uses any more
 */
void peerdma_pool_destroy(struct peerdma *ctx)
{
	struct peerdma_pool *pool = ctx->pool;
	unsigned int i;

	if (pool->pid == getpid()) {
		pthread_mutex_lock(&pool->lock);
		pool->stop = true;
		atomic_fetch_add(&pool->posts, 1);
		pthread_cond_broadcast(&pool->posted);
		pthread_mutex_unlock(&pool->lock);
		for (i = 0; i < pool->nr_threads; i++)
			pthread_join(pool->threads[i], NULL);
		pthread_cond_destroy(&pool->left);
		pthread_cond_destroy(&pool->posted);
		pthread_mutex_destroy(&pool->lock);
	}
	free(pool);
}
