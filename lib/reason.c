// SPDX-License-Identifier: MIT
#include "internal.h"

static const struct reason {
	int number;
	const char *name;
	const char *sentence;
} reasons[] = {
	{ PEERDMA_REASON_NONE, "none",
	  "nothing stands in the way" },
	{ PEERDMA_REASON_NO_BLOCK_DEVICE, "no-block-device",
	  "the file lives on no block device of its own (tmpfs, a network filesystem, btrfs)" },
	{ PEERDMA_REASON_NO_DIRECT_IO, "no-direct-io",
	  "the filesystem does no unbuffered I/O on this file (inline, compressed, encrypted or journalled data)" },
	{ PEERDMA_REASON_STACKED, "stacked",
	  "the block device is made of others, and the kernel does not tell of which" },
	{ PEERDMA_REASON_NOT_PCI, "not-pci",
	  "the block device is no PCI device that does DMA itself" },
	{ PEERDMA_REASON_HOST_BRIDGE, "host-bridge",
	  "the way leads through a host bridge that is not known to route between its ports; put drive and GPU under one PCIe switch" },
	{ PEERDMA_REASON_HOST_BRIDGES, "host-bridges",
	  "the way leads from one host bridge to another, which these are not known to route; put drive and GPU under one of them" },
	{ PEERDMA_REASON_SWIOTLB, "swiotlb",
	  "the kernel copies all DMA of the drive through bounce buffers in host memory (swiotlb=force, a confidential guest)" },
	{ PEERDMA_REASON_UNTRUSTED, "untrusted",
	  "the drive sits on an external port, and the kernel may bounce its DMA" },
	{ PEERDMA_REASON_DMA_MASK, "dma-mask",
	  "the drive or device cannot produce addresses as high as the memory's, and no IOMMU translates for it; turn the IOMMU on" },
	{ PEERDMA_REASON_BUS_OFFSET, "bus-offset",
	  "the memory has other addresses on the bus than for the CPU" },
	{ PEERDMA_REASON_KERNEL, "kernel",
	  "the kernel's own peer-to-peer check refuses the pair" },
	{ PEERDMA_REASON_BAR_GRANULE, "bar-granule",
	  "the device's BAR is too small or too oddly placed for the kernel to describe it with struct pages" },
	{ PEERDMA_REASON_BAR_CACHING, "bar-caching",
	  "the device's driver has mapped neighbouring parts of its BAR with different caching" },
	{ PEERDMA_REASON_ARCH, "arch",
	  "the kernel cannot describe BAR memory with struct pages on this architecture" },
	{ PEERDMA_REASON_DMA_DEBUG, "dma-debug",
	  "the kernel was built with CONFIG_DMA_API_DEBUG and lets no drive map the memory; use another kernel" },
	{ PEERDMA_REASON_NO_IOMMU, "no-iommu",
	  "no IOMMU translates for the device; turn the IOMMU on" },
	{ PEERDMA_REASON_DMA_API, "dma-api",
	  "the kernel does not map the memory for the device (no address free below its DMA mask, or the IOMMU's driver refuses)" },
	{ PEERDMA_REASON_REVOCABLE, "revocable",
	  "the memory may be taken back at any time, and a page that somebody holds cannot" },
	{ PEERDMA_REASON_BORROWED_PAGES, "borrowed-pages",
	  "the memory's struct pages are its owner's, who alone knows when nobody holds them" },
	{ PEERDMA_REASON_NOT_PREFETCHABLE, "not-prefetchable",
	  "reads of the device's BAR may have side effects, so the kernel is given no mapping of it" },
	{ PEERDMA_REASON_FOREIGN_MEMORY, "foreign-memory",
	  "the dma-buf's memory is not, or not wholly, that of one PCI device" },
	{ PEERDMA_REASON_FOREIGN_REFUSED, "foreign-refused",
	  "the dma-buf's exporter lets nobody who asks at its memory" },
	{ PEERDMA_REASON_FOREIGN_ADDRESSES, "foreign-addresses",
	  "the dma-buf's exporter gives addresses that make no sense" },
	{ PEERDMA_REASON_FOREIGN_REVOCABLE, "foreign-revocable",
	  "the dma-buf's exporter may take the memory back at any moment, and what is asked for cannot let go of it; a block device can" },
	{ PEERDMA_REASON_NO_MODULE, "no-module",
	  "the kernel module is not loaded; run: modprobe peerdma_nvidia" },
	{ PEERDMA_REASON_NO_PERMISSION, "no-permission",
	  "the device node /dev/peerdma may not be opened; join the group that owns it" },
	{ PEERDMA_REASON_NO_VERB, "no-verb",
	  "the loaded kernel module does not know this request; install a newer one" },
	{ PEERDMA_REASON_NO_CUDA, "no-cuda",
	  "the library libcuda.so.1 cannot be used; install the GPU's driver" },
	{ PEERDMA_REASON_NO_GPU, "no-gpu",
	  "CUDA shows no GPU, or the context was opened without one" },
	{ PEERDMA_REASON_NO_PROVIDER, "no-provider",
	  "the kernel module for this kind of memory is not loaded; run: modprobe peerdma_nvidia" },
	{ PEERDMA_REASON_NO_APERTURE, "no-aperture",
	  "the device's BAR has no room left for another pin; close buffers, or turn on resizable BAR" },
	{ PEERDMA_REASON_NOT_PINNABLE, "not-pinnable",
	  "the GPU's driver refuses to pin this memory" },
	{ PEERDMA_REASON_FOREIGN_BUFFER, "foreign-buffer",
	  "the kernel module cannot move files to or from this kind of dma-buf" },
	{ PEERDMA_REASON_HOST_MEMORY, "host-memory",
	  "the buffer is host memory, and the file is not open with O_DIRECT" },
	{ PEERDMA_REASON_MISALIGNED, "misaligned",
	  "part of the request is not whole blocks of the file, or lies askew in the buffer" },
	{ PEERDMA_REASON_NO_REOPEN, "no-reopen",
	  "the file is not open with O_DIRECT and cannot be opened again through /proc; open it with O_DIRECT" },
	{ PEERDMA_REASON_FILESYSTEM_COPIED, "filesystem-copied",
	  "the filesystem took part of the request through its page cache, although the file is open with O_DIRECT" },
	{ PEERDMA_REASON_FORCED, "forced",
	  "the caller asked for the staged path" },
	{ PEERDMA_REASON_REGION_STALE, "region-stale",
	  "part of the registered range was cut off or replaced since; close the region and open it again" },
	{ PEERDMA_REASON_NOT_CACHED, "not-cached",
	  "the page cache does not hold the file, or not all of it, or the kernel does not tell" },
	{ PEERDMA_REASON_UNBUFFERED, "unbuffered",
	  "the file is open with O_DIRECT, so the page cache is left alone" },
};

static const struct reason *find(int number)
{
	size_t i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].number == number)
			return &reasons[i];
	return NULL;
}

/**
 * peerdma_reason_name() - a word for a reason, for programs
 * @reason: from a result, info or the kernel
 *
 * Return: a constant such as "host-bridge"; "unknown" for no known reason.
 */
const char *peerdma_reason_name(int reason)
{
	const struct reason *found = find(reason);

	return found ? found->name : "unknown";
}

/**
 * peerdma_reason_string() - a sentence for a reason, for people
 * @reason: from a result, info or the kernel
 *
 * Return: a constant: the cause and, where there is one, the remedy.
 */
const char *peerdma_reason_string(int reason)
{
	const struct reason *found = find(reason);

	return found ? found->sentence :
		       "a reason that this version of libpeerdma does not know";
}
