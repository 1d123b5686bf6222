/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * simgpu: a GPU made of a PCI BAR that is plain memory (QEMU's ivshmem-plain),
 * for the people on the other side of NVIDIA's nvidia_p2p_* interface.
 *
 * Objects:
 *
 *	gpu      one PCI function; its BAR 2 is the whole memory
 *	client   one open file of /dev/simgpuN: a process and its address space
 *	mem      physical pages, scattered
 *	range    virtual addresses of a client that show (a part of) a mem
 *	pin      an nvidia_p2p_page_table over (a part of) a range
 *	dma      an nvidia_p2p_dma_mapping of a pin
 *	export   a dma-buf of (parts of) mems
 *
 * A range holds its mem, and so do a pin and an export: that is all that makes a
 * persistent pin persistent. A revocable pin hangs on its range, whose end runs the pin's
 * callback.
 *
 * Locks, outermost first:
 *
 *	simgpu_lock      one mutex for all look-ups and links, as the resource
 *	                 manager of the real driver has one. Never held while a
 *	                 callback runs or while bytes are copied.
 *	gpu->vram.lock   the free pages
 *
 * simgpu_bar_srcu is held while the BAR is touched; a GPU that goes away waits
 * for it.
 */
#ifndef SIMGPU_H
#define SIMGPU_H

#include <linux/completion.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/maple_tree.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/pid.h>
#include <linux/srcu.h>
#include <linux/wait.h>
#include <linux/xarray.h>

/**
 * struct simgpu_vram - the free pages of a GPU
 * @lock: over all of it
 * @nr_pages: how many there are
 * @nr_free: how many nobody has
 * @stack: the free ones, shuffled, last freed first reused; NULL if pages are to
 *	be contiguous
 * @used: bitmap of all pages if they are to be contiguous, else NULL
 */
struct simgpu_vram {
	struct mutex lock; /* innermost: over all of the struct */
	u32 nr_pages;
	u32 nr_free;
	u32 *stack;
	unsigned long *used;
};

/**
 * struct simgpu_count - what debugfs shows, all under simgpu_lock
 * @allocated: bytes of mems that have pages
 * @pinned: bytes behind page tables
 * @page_tables: pins that exist, dead persistent ones included
 * @dma_mappings: dmas that exist, mappings of exports included
 * @dma_bufs: exports that exist
 * @callbacks: free callbacks run, ever
 * @unfreed_tables: of these, that left their table to the driver, ever
 */
struct simgpu_count {
	u64 allocated;
	u64 pinned;
	u64 page_tables;
	u64 dma_mappings;
	u64 dma_bufs;
	u64 callbacks;
	u64 unfreed_tables;
};

/**
 * struct simgpu - one GPU
 * @ref: held by the driver binding, every client and every mem
 * @link: in simgpu_gpus; under simgpu_lock
 * @index: N of /dev/simgpuN
 * @bar_phys: CPU physical address of BAR 2
 * @bar: the BAR, write-combined; NULL once unbound; read in simgpu_bar_srcu
 * @dead: unbound: nothing new begins; under simgpu_lock
 * @revocable: pins whose callback could still run; under simgpu_lock
 * @quiet: woken when @revocable or @count.dma_bufs becomes 0
 * @clients: open files; under simgpu_lock
 * @pins: all pins; under simgpu_lock
 * @vram: free pages
 * @count: for debugfs
 * @misc: /dev/simgpuN
 * @name: "simgpuN"
 * @domain: PCI address, valid after the PCI device is gone
 * @bus: PCI address
 * @devfn: PCI address
 * @uuid: made from the PCI address
 * @debugfs: folder of this GPU
 */
struct simgpu {
	struct kref ref;
	struct list_head link;
	int index;
	phys_addr_t bar_phys;
	void __iomem *bar;
	bool dead;
	u32 revocable;
	wait_queue_head_t quiet;
	struct list_head clients;
	struct list_head pins;
	struct simgpu_vram vram;
	struct simgpu_count count;
	struct miscdevice misc;
	char name[16];
	u16 domain;
	u8 bus;
	u8 devfn;
	u8 uuid[NVIDIA_P2P_GPU_UUID_LEN];
	struct dentry *debugfs;
};

/**
 * struct simgpu_client - one open file
 * @ref: held by the file, and by the GPU's removal while it clears the client
 * @link: in gpu->clients; under simgpu_lock
 * @gpu: referenced
 * @tgid: the process that opened the file, referenced
 * @ranges: by virtual address; under simgpu_lock
 * @handles: mems without an address, by number; under simgpu_lock
 */
struct simgpu_client {
	struct kref ref;
	struct list_head link;
	struct simgpu *gpu;
	struct pid *tgid;
	struct maple_tree ranges;
	struct xarray handles;
};

/**
 * struct simgpu_mem - physical memory
 * @ref: held by ranges, handles, pins and copies in progress
 * @gpu: referenced
 * @nr_pages: length of @pages
 * @pages: page numbers within the BAR; constant
 */
struct simgpu_mem {
	struct kref ref;
	struct simgpu *gpu;
	u32 nr_pages;
	u32 pages[];
};

/**
 * struct simgpu_range - virtual addresses of a client
 * @start: first address, a multiple of simgpu_granule()
 * @len: bytes, a multiple of simgpu_granule()
 * @offset: where in @mem it starts, a multiple of simgpu_granule()
 * @mem: referenced
 * @pins: revocable pins; under simgpu_lock
 */
struct simgpu_range {
	u64 start;
	u64 len;
	u64 offset;
	struct simgpu_mem *mem;
	struct list_head pins;
};

/**
 * struct simgpu_pin - what stands around a page table that was handed out
 * @table: what the caller sees
 * @ref: held as long as the pin can be found, and by who waits for or maps it
 * @hash: in simgpu_pins, by the address of @table; under simgpu_lock
 * @gpu_link: in gpu->pins; under simgpu_lock
 * @range_link: in range->pins if revocable; under simgpu_lock
 * @dmas: DMA mappings; under simgpu_lock
 * @mem: referenced while the pin can be found
 * @va: as the caller gave it
 * @bytes: aperture taken
 * @persistent: no callback, and no end but the caller's put
 * @force_bar1: NVIDIA_P2P_FLAGS_FORCE_BAR1_MAPPING was given
 * @callback: runs before a revocable pin's memory goes
 * @data: its argument
 * @table_freed: the driver was asked to free @table
 * @revoker: the task that runs @callback, NULL before; under simgpu_lock
 * @revoking_link: in simgpu_revoking meanwhile; under simgpu_lock
 * @revoked: completed when the callback has returned and the pin is dismantled
 */
struct simgpu_pin {
	struct nvidia_p2p_page_table table;
	struct kref ref;
	struct hlist_node hash;
	struct list_head gpu_link;
	struct list_head range_link;
	struct list_head dmas;
	struct simgpu_mem *mem;
	u64 va;
	u64 bytes;
	bool persistent;
	bool force_bar1;
	void (*callback)(void *data);
	void *data;
	bool table_freed;
	struct task_struct *revoker;
	struct list_head revoking_link;
	struct completion revoked;
};

/* ENOTSUPP, which is what the interface returns. */
#define P2P_ENOTSUPP	524

/* Places where a test may ask for a failure, see debug.c. */
enum simgpu_fail {
	SIMGPU_FAIL_ALLOC,
	SIMGPU_FAIL_COPY,
	SIMGPU_FAIL_GET_PAGES,
	SIMGPU_FAIL_GET_PAGES_PERSISTENT,
	SIMGPU_FAIL_DMA_MAP_PAGES,
	SIMGPU_FAIL_DMA_BUF,
	SIMGPU_FAIL_DMA_BUF_MAP,
	SIMGPU_FAIL_COUNT,
};

/* main.c */
extern struct mutex simgpu_lock;
extern struct srcu_struct simgpu_bar_srcu;
extern struct list_head simgpu_gpus;
extern bool simgpu_raw_dma;
u32 simgpu_page_shift(void);
u64 simgpu_granule(void);
u64 simgpu_aperture(void);
void simgpu_get(struct simgpu *gpu);
void simgpu_put(struct simgpu *gpu);

/* vram.c */
int simgpu_vram_init(struct simgpu *gpu, u64 bytes, u32 seed);
void simgpu_vram_destroy(struct simgpu *gpu);
u64 simgpu_vram_free_bytes(struct simgpu *gpu);
struct simgpu_mem *simgpu_mem_create(struct simgpu *gpu, u64 len);
void simgpu_mem_get(struct simgpu_mem *mem);
void simgpu_mem_put(struct simgpu_mem *mem);

/* client.c */
extern const struct file_operations simgpu_client_fops;
struct simgpu_range *simgpu_range_find(struct pid *tgid, u64 va);
void simgpu_clients_clear(struct simgpu *gpu);

/* copy.c */
long simgpu_copy_ioctl(void __user *arg);
long simgpu_memset_ioctl(void __user *arg);

/* p2p.c */
void simgpu_pins_revoke(struct simgpu_range *range);
struct simgpu_pin *simgpu_pin_find(struct nvidia_p2p_page_table *table);
void simgpu_pin_put(struct simgpu_pin *pin);

/* dma.c */
bool simgpu_dma_reaches(struct device *dev, phys_addr_t phys, size_t len);
void simgpu_dma_destroy_all(struct simgpu_pin *pin);

/* dmabuf.c */
long simgpu_export_ioctl(void __user *arg);

/* debug.c */
void simgpu_debug_init(void);
void simgpu_debug_exit(void);
void simgpu_debug_add(struct simgpu *gpu);
void simgpu_debug_remove(struct simgpu *gpu);
int simgpu_fail(enum simgpu_fail place);
void simgpu_callback_delay(void);

#endif
