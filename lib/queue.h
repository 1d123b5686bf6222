/* SPDX-License-Identifier: MIT */
/* What the files of the queue share; see queue.c for how it works. */
#ifndef PEERDMA_QUEUE_H
#define PEERDMA_QUEUE_H

#include "internal.h"

#define PEERDMA_QUEUE_THREADS	8
/* CUDA contexts that are remembered; with more some are prepared again. */
#define PEERDMA_QUEUE_CONTEXTS	16
/* Small reads that a thread takes together, where there are enough for all. */
#define PEERDMA_QUEUE_GATHER	64

enum peerdma_entry_state {
	PEERDMA_ENTRY_FREE = 0,		/* in queue.free */
	PEERDMA_ENTRY_ARMED,		/* a stream has not come to it yet */
	PEERDMA_ENTRY_PENDING,		/* in queue.pending */
	PEERDMA_ENTRY_RUNNING,		/* in a thread's hands, or the ring's */
	PEERDMA_ENTRY_DONE,		/* in queue.done */
};

/* What a request in a stream's order waits for. */
#define PEERDMA_HOLD_STREAM	1	/* to come to it */
#define PEERDMA_HOLD_ARMING	2	/* whoever puts it into the stream */

/*
 * A request from submit to reap. Owner: its queue, in whose array it lives. The
 * queue's lock guards @next, @state and @cancel's setting; what else there is
 * belongs to whoever has taken it out of a list.
 */
struct peerdma_entry {
	struct peerdma_entry *next;
	struct peerdma_queue *queue;
	enum peerdma_entry_state state;
	atomic_bool cancel;
	bool gather;			/* small, perhaps in the page cache */
	bool no_ring;			/* what is left goes by a thread */
	bool opened;			/* @transfer was begun */
	/* Of a request in a stream's order; see queue_stream.c. */
	bool in_stream;
	int stream_err;			/* the stream does not wait for it */
	atomic_int holds;		/* PEERDMA_HOLD_*, 0: it may begin */
	uint32_t ticket;		/* of this use of the entry */
	peerdma_cuda_event event;	/* past the last use, or NULL */
	peerdma_cuda_context event_context;
	struct peerdma_io_request request;
	struct peerdma_transfer transfer;
	struct peerdma_completion completion;
	/* For the ring, which the kernel reads and writes. */
	struct peerdma_file_io io;
	struct peerdma_file_segment segments[2];
};

/* Entries in the order of submission. */
struct peerdma_entry_list {
	struct peerdma_entry *first;
	struct peerdma_entry **last;
	unsigned int nr;
};

struct peerdma_queue {
	struct peerdma *ctx;		/* holds a reference */
	struct peerdma_ring *ring;	/* NULL: none; constant */
	pid_t pid;			/* of the process with the threads */
	unsigned int depth;
	unsigned int threads_max;
	/*
	 * Guards the ends of entries' events; taken before @lock, never by a
	 * stream's host function.
	 */
	pthread_mutex_t events;
	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t work;		/* for threads */
	pthread_cond_t reapable;	/* for those who reap */
	pthread_cond_t room;		/* for who submits, and for the end */
	struct peerdma_entry *entries;
	struct peerdma_entry *free;
	unsigned int nr_free;
	struct peerdma_entry_list pending;
	struct peerdma_entry_list done;
	/* For requests in a stream's order. */
	unsigned int nr_armed;
	unsigned int nr_looking;	/* threads that will look for dead ones */
	uint64_t next_look;		/* not before, in nanoseconds */
	uint32_t *words;		/* an entry's last ticket that is done */
	bool may_wait;			/* streams can wait for a word */
	unsigned int nr_warm;		/* of these: what is needed is pinned */
	peerdma_cuda_context warm[PEERDMA_QUEUE_CONTEXTS];
	pthread_cond_t released;	/* a word has changed */
	unsigned int wake_at;		/* this many done are waited for */
	unsigned int nr_idle;
	unsigned int nr_called;		/* of the idle ones, to wake up */
	unsigned int nr_threads;
	int event_fd;			/* -1: nobody has asked for it */
	bool stop;
	pthread_t threads[PEERDMA_QUEUE_THREADS];
};

/* queue.c */
void peerdma_queue_add_done(struct peerdma_queue *queue,
			    struct peerdma_entry *entry);
void peerdma_queue_finish(struct peerdma_queue *queue,
			  struct peerdma_entry *first);
void peerdma_queue_pend(struct peerdma_queue *queue,
			struct peerdma_entry *entry, bool front);
void peerdma_queue_look(struct peerdma_queue *queue);
void peerdma_queue_await_work(struct peerdma_queue *queue);

/* queue_work.c */
int peerdma_queue_start_thread(struct peerdma_queue *queue);
void peerdma_queue_end(struct peerdma_entry *entry, int err);

/* queue_stream.c */
int peerdma_queue_arm(struct peerdma_queue *queue, struct peerdma_entry *entry);
void peerdma_queue_release(struct peerdma_queue *queue,
			   struct peerdma_entry *entry);
void peerdma_queue_sweep(struct peerdma_queue *queue);
void peerdma_queue_disarm(struct peerdma_queue *queue);

/* queue_ring.c */
int peerdma_ring_create(struct peerdma_queue *queue);
void peerdma_ring_destroy(struct peerdma_queue *queue);
bool peerdma_ring_take(struct peerdma_queue *queue,
		       struct peerdma_entry *entry);

#endif /* PEERDMA_QUEUE_H */
