// SPDX-License-Identifier: GPL-2.0-only
/*
 * For those who watch: the list of buffers in debugfs, and the tracepoints.
 */
#include <linux/cred.h>
#include <linux/debugfs.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/seq_file.h>

#define CREATE_TRACE_POINTS
#include "trace.h"

static void *buffers_start(struct seq_file *seq, loff_t *pos)
{
	mutex_lock(&peerdma.buffers_lock);
	return seq_list_start_head(&peerdma.buffers, *pos);
}

static void *buffers_next(struct seq_file *seq, void *at, loff_t *pos)
{
	return seq_list_next(at, &peerdma.buffers, pos);
}

static void buffers_stop(struct seq_file *seq, void *at)
{
	mutex_unlock(&peerdma.buffers_lock);
}

static const char *mode_name(const struct peerdma_buffer *buffer)
{
	if (READ_ONCE(buffer->dead))
		return "revoked";
	return buffer->pinned.revocable ? "revocable" : "persistent";
}

static const enum peerdma_counter uses[] = {
	PEERDMA_COUNT_CPU_MAPS,
	PEERDMA_COUNT_IMPORTERS,
	PEERDMA_COUNT_DEVICE_MAPS,
	PEERDMA_COUNT_FILE_IOS,
	PEERDMA_COUNT_PAGE_MAPS,
	PEERDMA_COUNT_HELD_PAGE_MAPS,
};

/* A line a buffer; what is in use may change while it is written. */
static int buffers_show(struct seq_file *seq, void *at)
{
	const struct peerdma_buffer *buffer;
	int i;

	if (at == &peerdma.buffers) {
		seq_puts(seq, "buffer size pinned provider mode access uid pid cpu_maps importers device_maps file_ios page_maps held_page_maps comm\n");
		return 0;
	}

	/* In the list, so its release has not begun: the dma-buf is there. */
	buffer = list_entry(at, struct peerdma_buffer, list);
	seq_printf(seq, "%llu %llu %llu %s %s %s %u %d",
		   peerdma_buffer_number(buffer), buffer->len,
		   buffer->pinned.len, buffer->provider->name,
		   mode_name(buffer), buffer->read_only ? "ro" : "rw",
		   from_kuid_munged(seq_user_ns(seq), buffer->owner_uid),
		   pid_nr_ns(buffer->owner, task_active_pid_ns(current)));
	for (i = 0; i < ARRAY_SIZE(uses); i++)
		seq_printf(seq, " %d", atomic_read(&buffer->uses[uses[i]]));
	seq_putc(seq, ' ');
	seq_escape(seq, buffer->owner_comm, " \t\n\\");
	seq_putc(seq, '\n');
	return 0;
}

static const struct seq_operations buffers_sops = {
	.start = buffers_start,
	.next = buffers_next,
	.stop = buffers_stop,
	.show = buffers_show,
};

DEFINE_SEQ_ATTRIBUTE(buffers);

/**
 * peerdma_watch_init - the list of buffers in debugfs, for root
 */
void peerdma_watch_init(void)
{
	debugfs_create_file("buffers", 0400, peerdma.debugfs, NULL,
			    &buffers_fops);
}
