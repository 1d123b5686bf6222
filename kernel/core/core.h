/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Private declarations of peerdma.ko.
 *
 * Lock order, outermost first:
 *
 *	device_lock (held by the driver core around bind and unbind, and while
 *	another exporter's memory is attached to the device)
 *	mmap_lock (held by mm around mmap and fault; exporters' faults go on)
 *	  dma_resv (held by dma-buf's core around map and unmap, and by exporters
 *	  that take memory back, for which foreign.c waits for what is in flight)
 *	    peerdma_buffer::alive
 *	    peerdma_buffer::pages_lock
 *	      peerdma_core::bars_lock
 *	    peerdma_core::mappings_lock
 *	peerdma_core::page_maps_lock
 *	  peerdma_buffer::alive (for reading)
 *	peerdma_core::buffers_lock (a leaf)
 *	peerdma_core::accounts_lock (a leaf)
 *	peerdma_core::providers_lock (a leaf; never held across a provider's op)
 *	file_io::lock (a leaf, taken in interrupts)
 *
 * None of them is held across a provider's pin or unpin: a vendor's lock is held
 * around its call of peerdma_pinned_revoke().
 */
#ifndef PEERDMA_CORE_H
#define PEERDMA_CORE_H

#include <linux/atomic.h>
#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/dma-buf.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/workqueue.h>

#include "../include/peerdma_provider.h"
#include <peerdma.h>

struct peerdma_account;
struct peerdma_bar;
struct peerdma_domain;
struct peerdma_pages;

/**
 * enum peerdma_counter - what debugfs counts; all but PAGE_BYTES return to zero
 *	when the last descriptor is closed, the last transfer has ended and nobody
 *	holds a page
 * @PEERDMA_COUNT_BUFFERS: pins alive
 * @PEERDMA_COUNT_PINNED_BYTES: bytes that they hold, in whole provider pages
 * @PEERDMA_COUNT_CPU_MAPS: user mappings of buffers
 * @PEERDMA_COUNT_IMPORTERS: devices attached to buffers
 * @PEERDMA_COUNT_DEVICE_MAPS: mappings for importing devices, and MAP_DEVICE's
 * @PEERDMA_COUNT_FILE_IOS: FILE_IO calls and commands under way
 * @PEERDMA_COUNT_IMPORTS: other exporters' dma-bufs that are attached to a function
 * @PEERDMA_COUNT_PAGE_BYTES: BAR bytes that have struct pages of ours; freed
 *	some seconds after the last use
 * @PEERDMA_COUNT_PAGE_MAPS: page maps, with those that are closed and held
 * @PEERDMA_COUNT_HELD_PAGE_MAPS: those that keep memory only because somebody
 *	holds a page: closed, or of a revoked buffer
 * @PEERDMA_NR_COUNTERS: how many counters there are
 */
enum peerdma_counter {
	PEERDMA_COUNT_BUFFERS,
	PEERDMA_COUNT_PINNED_BYTES,
	PEERDMA_COUNT_CPU_MAPS,
	PEERDMA_COUNT_IMPORTERS,
	PEERDMA_COUNT_DEVICE_MAPS,
	PEERDMA_COUNT_FILE_IOS,
	PEERDMA_COUNT_IMPORTS,
	PEERDMA_COUNT_PAGE_BYTES,
	PEERDMA_COUNT_PAGE_MAPS,
	PEERDMA_COUNT_HELD_PAGE_MAPS,
	PEERDMA_NR_COUNTERS,
};

/**
 * struct peerdma_core - all state that is not an object's
 * @misc: /dev/peerdma
 * @providers: list of struct peerdma_provider, under @providers_lock
 * @providers_lock: guards @providers
 * @buffers: list of struct peerdma_buffer, under @buffers_lock
 * @imports: list of struct peerdma_import, under @buffers_lock
 * @departures: how many drivers and devices have gone, under @buffers_lock
 * @buffers_lock: guards @buffers, @imports and @departures
 * @accounts: list of struct peerdma_account, under @accounts_lock
 * @accounts_lock: guards @accounts and what is in them
 * @mappings: list of what MAP_DEVICE made, under @mappings_lock
 * @domains: list of struct peerdma_domain, under @mappings_lock
 * @mappings_lock: guards @mappings, @domains and what is in them, and
 *	peerdma_buffer::mappings
 * @bars: list of struct peerdma_bar, under @bars_lock
 * @bars_lock: guards @bars and what is in them
 * @bars_reap: frees struct pages that have been idle for a while
 * @page_maps: list of struct page_map, under @page_maps_lock
 * @page_maps_lock: guards @page_maps and what is in them
 * @page_maps_poll: waits for pages that somebody holds
 * @revocations: those that REVOKE has begun
 * @counters: by enum peerdma_counter
 * @debugfs: the folder
 *
 * One instance, for the life of the module.
 */
struct peerdma_core {
	struct miscdevice misc;
	struct list_head providers;
	struct mutex providers_lock; /* guards providers */
	struct list_head buffers;
	struct list_head imports;
	u64 departures;
	struct mutex buffers_lock; /* guards buffers, imports, departures */
	struct list_head accounts;
	struct mutex accounts_lock; /* guards accounts */
	struct list_head mappings;
	struct list_head domains;
	struct mutex mappings_lock; /* guards mappings and domains */
	struct list_head bars;
	struct mutex bars_lock; /* guards bars */
	struct delayed_work bars_reap;
	struct list_head page_maps;
	struct mutex page_maps_lock; /* guards page_maps */
	struct delayed_work page_maps_poll;
	struct workqueue_struct *revocations;
	atomic64_t counters[PEERDMA_NR_COUNTERS];
	struct dentry *debugfs;
};

extern struct peerdma_core peerdma;

static inline void peerdma_count(enum peerdma_counter counter, s64 n)
{
	atomic64_add(n, &peerdma.counters[counter]);
}

/**
 * union peerdma_arg - an ioctl's argument, copied in and zero-extended
 */
union peerdma_arg {
	struct peerdma_info info;
	struct peerdma_pin pin;
	struct peerdma_query query;
	struct peerdma_file_io file_io;
	struct peerdma_route route;
	struct peerdma_watch watch;
	struct peerdma_revoke revoke;
	struct peerdma_map_device map_device;
	struct peerdma_page_map pages;
};

/**
 * struct peerdma_call - one ioctl under way
 * @arg: the argument; what the handler leaves in it is the reply
 * @file: a file that the handler made for the caller, or NULL. The dispatcher
 *	installs it as @fd once the reply has been copied, and drops both when
 *	that fails, so no handler has to undo it.
 * @fd: the number reserved for @file
 */
struct peerdma_call {
	union peerdma_arg arg;
	struct file *file;
	int fd;
};

/**
 * struct peerdma_extent - a physically contiguous part of a buffer
 * @offset: bytes from the start of the dma-buf
 * @phys: CPU physical address
 * @len: bytes, at most PEERDMA_EXTENT_MAX (a bio_vec counts in 32 bits)
 */
struct peerdma_extent {
	u64 offset;
	phys_addr_t phys;
	u64 len;
};

#define PEERDMA_EXTENT_MAX	SZ_1G

/**
 * struct peerdma_extents - extents being found, in the order of the memory
 * @extents: to be filled, or NULL to count
 * @room: how many fit
 * @nr: how many there are
 * @len: bytes so far
 * @next: one past the last physical address
 * @left: bytes that the last extent may still grow by
 *
 * Starts as zeroes. Walked twice: once to count, once to fill.
 */
struct peerdma_extents {
	struct peerdma_extent *extents;
	u32 room;
	u32 nr;
	u64 len;
	phys_addr_t next;
	u64 left;
};

/**
 * enum peerdma_end - who ends a buffer's pin
 * @PEERDMA_END_OPEN: nobody yet
 * @PEERDMA_END_RELEASE: the last reference went
 * @PEERDMA_END_REVOKE: a revocation
 *
 * Left once, by cmpxchg, so that the memory is given back once.
 */
enum peerdma_end {
	PEERDMA_END_OPEN,
	PEERDMA_END_RELEASE,
	PEERDMA_END_REVOKE,
};

/**
 * struct peerdma_buffer - a pinned range; the private part of its dma-buf, or
 *	what foreign.c has found another exporter's dma-buf to be
 * @dmabuf: the dma-buf that owns us; not counted, since its release ends us. NULL
 *	for another exporter's.
 * @ref: of the struct; the dma-buf has one, and so has who revokes it by @list
 * @inode: of the dma-buf's file; counted, so that CPU mappings can be zapped
 *	while the file goes away. Of another exporter's one with the same number,
 *	so that nothing but page maps is zapped.
 * @list: in peerdma_core::buffers
 * @provider: who pinned; its module is held
 * @pinned: the provider's answer; not to be looked into once @dead
 * @account: of the user who pinned, charged with the pinned bytes
 * @pdev: the function whose BAR it is; counted. NULL for ordinary memory.
 * @extents: sorted, without gaps, covering the dma-buf; constant once published
 * @nr_extents: how many
 * @offset: where the range that the caller asked for starts in the dma-buf
 * @len: bytes that the caller asked for
 * @end: one past the highest physical address
 * @read_only: may be read by CPU and files only
 * @caching: how the CPU's mappings are asked for; the provider's @pinned.caching,
 *	or uncached where the caller wants that
 * @wc_reserved: the extents are reserved as write-combining, under @alive
 * @caching_seen: PEERDMA_CACHING_* that the CPU's mappings got
 * @alive: held for reading while the CPU's page tables are filled, for writing
 *	while the buffer is made and while @dead is set
 * @dead: revoked; set once, under @alive
 * @users: transfers, importers' mappings and page maps, and one for not being
 *	revoked; the last one to go completes @drained
 * @drained: none of these is left, and none can begin
 * @ended: enum peerdma_end
 * @shut: nothing of ours reaches the memory any more, nor will
 * @revoked: the revocation, or the release that came first, is through: the
 *	provider has its memory back
 * @revoke_work: a revocation that REVOKE has begun; holds the dma-buf
 * @mappings: MAP_DEVICE's that reach the memory, under
 *	peerdma_core::mappings_lock
 * @watchers: list of struct watcher, under @watchers_lock
 * @nr_watchers: how many, under @watchers_lock
 * @signalled: a revocation was through and has told them, under @watchers_lock
 * @watchers_lock: guards @watchers, @nr_watchers and @signalled; a leaf
 * @pages_lock: serialises the making of @pages
 * @pages: struct pages for the extents, made by the first FILE_IO; read without
 *	the lock by smp_load_acquire(), freed when the pin ends
 * @reachable: a drive that is known to reach @pdev, so that the walk is not made
 *	again for each transfer; counted, replaced by xchg(). It is only ever
 *	compared with the address of a device that the reader holds.
 * @owner: the process that pinned; counted
 * @owner_uid: its user then
 * @owner_comm: its name then
 * @uses: by enum peerdma_counter: this buffer's part of what counts uses
 *
 * Owner: the dma-buf. Born in PIN, published by installing its descriptor. The
 * pin dies in dma_buf_ops.release, when no descriptor, mapping, attachment or
 * transfer is left (each of them holds the dma-buf's file), or earlier in
 * peerdma_buffer_revoke(); the struct with its last reference.
 */
struct peerdma_buffer {
	struct dma_buf *dmabuf;
	struct kref ref;
	struct inode *inode;
	struct list_head list;
	struct peerdma_provider *provider;
	struct peerdma_pinned pinned;
	struct peerdma_account *account;
	struct pci_dev *pdev;
	struct peerdma_extent *extents;
	u32 nr_extents;
	u64 offset;
	u64 len;
	phys_addr_t end;
	bool read_only;
	enum peerdma_caching caching;
	bool wc_reserved;
	atomic_t caching_seen;
	struct rw_semaphore alive;
	bool dead;
	refcount_t users;
	struct completion drained;
	atomic_t ended;
	struct completion shut;
	struct completion revoked;
	struct work_struct revoke_work;
	struct list_head mappings;
	struct list_head watchers;
	unsigned int nr_watchers;
	bool signalled;
	struct mutex watchers_lock; /* guards watchers */
	struct mutex pages_lock; /* serialises the making of pages */
	struct peerdma_pages *pages;
	struct pci_dev *reachable;
	struct pid *owner;
	kuid_t owner_uid;
	char owner_comm[TASK_COMM_LEN];
	atomic_t uses[PEERDMA_NR_COUNTERS];
};

/* Count a use of a buffer, for it and for all. */
static inline void peerdma_buffer_count(struct peerdma_buffer *buffer,
					enum peerdma_counter counter, int n)
{
	atomic_add(n, &buffer->uses[counter]);
	peerdma_count(counter, n);
}

/* What users know a buffer by: its dma-buf's inode number. */
static inline u64 peerdma_buffer_number(const struct peerdma_buffer *buffer)
{
	return buffer->inode ? buffer->inode->i_ino : 0;
}

/* Ordinary memory, with struct pages of its own and no device to be reached. */
static inline bool peerdma_buffer_is_ram(const struct peerdma_buffer *buffer)
{
	return buffer->pinned.pages;
}

/* buffer.c */
int peerdma_pin_ioctl(struct peerdma_call *call);
int peerdma_query_ioctl(struct peerdma_call *call);
void peerdma_buffer_init(struct peerdma_buffer *buffer,
			 struct peerdma_provider *provider,
			 const struct peerdma_pin *pin);
int peerdma_buffer_place(struct peerdma_buffer *buffer);
int peerdma_extents_add(struct peerdma_extents *extents, phys_addr_t phys,
			u64 len);
bool peerdma_is_bar(phys_addr_t phys);
struct peerdma_buffer *peerdma_buffer_of(struct dma_buf *dmabuf);
struct peerdma_buffer *peerdma_buffer_get(int fd);
void peerdma_buffer_put(struct peerdma_buffer *buffer);
u64 peerdma_buffer_window(const struct peerdma_buffer *buffer);
u32 peerdma_buffer_extent_at(const struct peerdma_buffer *buffer, u64 offset);
u64 peerdma_buffer_part(const struct peerdma_buffer *buffer, u32 index,
			u64 start, u64 end, phys_addr_t *phys);
void peerdma_buffer_forget_pages(struct peerdma_buffer *buffer);
void peerdma_buffer_end_pin(struct peerdma_buffer *buffer);
void peerdma_buffer_free(struct kref *ref);

/* quota.c */
struct peerdma_account *peerdma_account_charge(u64 bytes);
void peerdma_account_uncharge(struct peerdma_account *account, u64 bytes);

/* caching.c */
int peerdma_caching_prot(struct peerdma_buffer *buffer, pgprot_t *prot);
void peerdma_caching_free(struct peerdma_buffer *buffer);
void peerdma_caching_note(struct peerdma_buffer *buffer,
			  struct vm_area_struct *vma, unsigned long addr);

/* foreign.c */
struct peerdma_buffer *peerdma_foreign_get(struct dma_buf *dmabuf,
					   struct pci_dev *importer,
					   bool lasting,
					   enum peerdma_reason *reason);
struct peerdma_buffer *peerdma_foreign_buffer(int fd, bool lasting,
					      enum peerdma_reason *reason);
void peerdma_foreign_put(struct peerdma_buffer *buffer);
void peerdma_foreign_forget(struct pci_dev *pdev, bool importer);

/* revoke.c */
u64 peerdma_departures(void);
bool peerdma_buffer_list(struct peerdma_buffer *buffer, u64 departures);
bool peerdma_buffer_use(struct peerdma_buffer *buffer);
void peerdma_buffer_unuse(struct peerdma_buffer *buffer);
void peerdma_buffer_shut(struct peerdma_buffer *buffer);
void peerdma_buffer_revoke(struct peerdma_buffer *buffer, bool unpin);
void peerdma_buffer_revoke_work(struct work_struct *work);
void peerdma_buffer_forget_watchers(struct peerdma_buffer *buffer);
int peerdma_watch_ioctl(struct peerdma_call *call);
int peerdma_revoke_ioctl(struct peerdma_call *call);
int peerdma_revoke_init(void);
void peerdma_revoke_exit(void);

/* cpu_map.c */
extern const struct vm_operations_struct peerdma_cpu_map_ops;
int peerdma_cpu_map(struct dma_buf *dmabuf, struct vm_area_struct *vma);

/* device_map.c */
dma_addr_t peerdma_dma_map(struct device *dev, phys_addr_t phys, u64 len,
			   enum dma_data_direction dir);
void peerdma_device_flush(struct device *dev);
int peerdma_device_attach(struct dma_buf *dmabuf,
			  struct dma_buf_attachment *attachment);
void peerdma_device_detach(struct dma_buf *dmabuf,
			   struct dma_buf_attachment *attachment);
int peerdma_device_pin(struct dma_buf_attachment *attachment);
void peerdma_device_unpin(struct dma_buf_attachment *attachment);
struct sg_table *peerdma_device_map(struct dma_buf_attachment *attachment,
				    enum dma_data_direction dir);
void peerdma_device_unmap(struct dma_buf_attachment *attachment,
			  struct sg_table *sgt, enum dma_data_direction dir);

/* domain.c */

/**
 * struct peerdma_iova - a range of addresses in a domain of ours
 * @list: in struct peerdma_domain, while it is mapped
 * @start: the first address, on a CPU page
 * @len: bytes, whole CPU pages
 */
struct peerdma_iova {
	struct list_head list;
	u64 start;
	u64 len;
};

struct peerdma_domain *peerdma_domain_get(struct pci_dev *pdev);
void peerdma_domain_put(struct peerdma_domain *domain);
int peerdma_domain_place(struct peerdma_domain *domain, struct pci_dev *pdev,
			 struct peerdma_iova *iova, bool chosen);
int peerdma_domain_map(struct peerdma_domain *domain, struct peerdma_iova *iova,
		       const struct peerdma_buffer *buffer, u64 start,
		       bool read_only);
void peerdma_domain_unmap(struct peerdma_domain *domain,
			  struct peerdma_iova *iova);
bool peerdma_device_is_stub(struct pci_dev *pdev);
bool peerdma_device_is_free(struct pci_dev *pdev);
int peerdma_stub_init(void);
void peerdma_stub_exit(void);

/* mapping.c */
int peerdma_map_device_ioctl(struct peerdma_call *call);
void peerdma_mappings_revoke(struct peerdma_buffer *buffer);
int peerdma_mappings_init(void);
void peerdma_mappings_exit(void);

/* pages.c */

/* With at most so many units, taking a whole BAR back stays in seconds. */
#define PEERDMA_UNITS_MAX	64

/**
 * struct peerdma_pages - struct pages for the whole of a buffer
 * @bar: the BAR whose units are held
 * @held: which of them, by index; a BAR is aligned to its size, one that is not
 *	may touch one unit more
 * @bvecs: the extents as the block layer wants them, one each
 */
struct peerdma_pages {
	struct peerdma_bar *bar;
	DECLARE_BITMAP(held, PEERDMA_UNITS_MAX + 1);
	struct bio_vec bvecs[];
};

struct peerdma_pages *peerdma_pages_get(struct peerdma_buffer *buffer,
					enum peerdma_reason *reason);
enum peerdma_reason peerdma_pages_lendable(const struct peerdma_pages *pages,
					   bool *write_combined);
void peerdma_pages_free(struct peerdma_pages *pages);
void peerdma_pages_reap(struct work_struct *work);
void peerdma_pages_forget(struct pci_dev *pdev);
void peerdma_pages_exit(void);

/* pages_map.c */
int peerdma_pages_ioctl(struct peerdma_call *call);
void peerdma_page_maps_poll(struct work_struct *work);
void peerdma_page_maps_revoked(void);
void peerdma_page_maps_exit(void);

/* file_io.c, file_io_uring.c */

/**
 * struct peerdma_transfer - the two ends of a FILE_IO, checked
 * @dmabuf: counted
 * @buffer: the private part of @dmabuf, or the import of another exporter's
 * @file: counted
 * @pages: of @buffer; there while the buffer is in use
 * @write: from the buffer to the file
 * @offset_align: what file offsets and lengths must be multiples of
 * @memory_align: what buffer offsets must be multiples of
 */
struct peerdma_transfer {
	struct dma_buf *dmabuf;
	struct peerdma_buffer *buffer;
	struct file *file;
	struct peerdma_pages *pages;
	bool write;
	u32 offset_align;
	u32 memory_align;
};

/**
 * struct peerdma_request - one kiocb over a part of a buffer
 * @kiocb: what the file's driver completes
 * @transfer: the ends; outlive the request
 * @done: called once with @result set, in any context, interrupts included
 * @next: for @done's list
 * @segment: index of the segment that it is a part of
 * @start: bytes from the start of that segment
 * @offset: bytes from the start of the pinned range; for those who watch
 * @len: bytes asked for
 * @result: bytes moved or -errno
 * @buffered: the filesystem turned to its page cache
 */
struct peerdma_request {
	struct kiocb kiocb;
	const struct peerdma_transfer *transfer;
	void (*done)(struct peerdma_request *request);
	struct peerdma_request *next;
	u32 segment;
	u64 start;
	u64 offset;
	u32 len;
	long result;
	bool buffered;
};

/* The most that one request moves; the block layer splits it further. */
#define PEERDMA_REQUEST_MAX	SZ_4M

int peerdma_transfer_get(struct peerdma_transfer *transfer,
			 struct peerdma_file_io *arg);
void peerdma_transfer_put(struct peerdma_transfer *transfer);
int peerdma_segment_check(const struct peerdma_transfer *transfer,
			  const struct peerdma_file_segment *segment);
void peerdma_request_submit(struct peerdma_request *request,
			    const struct peerdma_file_segment *segment);
int peerdma_file_io_ioctl(struct peerdma_call *call);
int peerdma_file_io_run(struct peerdma_file_io *arg);
int peerdma_file_io_uring(struct io_uring_cmd *cmd, unsigned int issue_flags);

/* topology.c */

/**
 * struct peerdma_path - how one function reaches another one's BARs
 * @reason: PEERDMA_REASON_NONE when it does
 * @via: the bridge that decided, as PEERDMA_DEVICE()
 * @translated: an IOMMU translates for the function that does the DMA
 * @distance: bridges on the way
 */
struct peerdma_path {
	enum peerdma_reason reason;
	u32 via;
	bool translated;
	u32 distance;
};

void peerdma_path_find(struct pci_dev *from, struct pci_dev *to,
		       phys_addr_t end, struct peerdma_path *path);
u32 peerdma_device_number(struct pci_dev *pdev);
struct pci_dev *peerdma_device_get(u32 number);
bool peerdma_device_translated(struct device *dev);
int peerdma_route_ioctl(struct peerdma_call *call);

/* drive.c */
struct pci_dev *peerdma_drive_get(struct file *file, enum peerdma_reason *reason);

/* provider.c */
struct peerdma_provider *peerdma_provider_get(const char *name);
void peerdma_provider_put(struct peerdma_provider *provider);
void peerdma_provider_names(char *names, size_t size);

/* watch.c */
void peerdma_watch_init(void);

/* main.c */
int peerdma_copy_in(void *arg, size_t size, size_t min_size,
		    const void __user *uarg);
int peerdma_copy_out(const void *arg, size_t size, void __user *uarg,
		     u32 usize);

#endif /* PEERDMA_CORE_H */
