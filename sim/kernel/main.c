// SPDX-License-Identifier: GPL-2.0-only
/* Module, parameters, and the PCI function that is a GPU. */
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "simgpu.h"

#define SIMGPU_BAR	2
#define SIMGPU_GRANULE	0x10000ull

static unsigned int page_kb = 64;
module_param(page_kb, uint, 0444);
MODULE_PARM_DESC(page_kb, "physical page size in KiB: 4, 64 (default) or 128");

static unsigned int seed = 1;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "order in which pages are handed out; 0: contiguous");

static unsigned int aperture_mb;
module_param(aperture_mb, uint, 0444);
MODULE_PARM_DESC(aperture_mb,
		 "MiB of a GPU that may be pinned at once; 0 (default): all");

bool simgpu_raw_dma = true;
module_param_named(raw_dma, simgpu_raw_dma, bool, 0644);
MODULE_PARM_DESC(raw_dma,
		 "raw BAR addresses for devices even if an IOMMU translates (default), as NVIDIA's driver gives since Linux 6.12");

/* See simgpu.h. */
DEFINE_MUTEX(simgpu_lock);
DEFINE_SRCU(simgpu_bar_srcu);

/* Bound GPUs; under simgpu_lock. */
LIST_HEAD(simgpu_gpus);

static DEFINE_IDA(simgpu_indices);

u32 simgpu_page_shift(void)
{
	return ilog2(page_kb) + 10;
}

u64 simgpu_granule(void)
{
	return max(SIMGPU_GRANULE, 1ull << simgpu_page_shift());
}

u64 simgpu_aperture(void)
{
	return (u64)aperture_mb << 20;
}

void simgpu_get(struct simgpu *gpu)
{
	kref_get(&gpu->ref);
}

static void gpu_release(struct kref *ref)
{
	struct simgpu *gpu = container_of(ref, struct simgpu, ref);

	simgpu_vram_destroy(gpu);
	ida_free(&simgpu_indices, gpu->index);
	kfree(gpu);
}

void simgpu_put(struct simgpu *gpu)
{
	kref_put(&gpu->ref, gpu_release);
}

static struct simgpu *gpu_create(struct pci_dev *pdev)
{
	struct simgpu *gpu = kzalloc_obj(*gpu, GFP_KERNEL);
	int err;

	if (!gpu)
		return ERR_PTR(-ENOMEM);
	kref_init(&gpu->ref);
	init_waitqueue_head(&gpu->quiet);
	INIT_LIST_HEAD(&gpu->clients);
	INIT_LIST_HEAD(&gpu->pins);
	gpu->domain = pci_domain_nr(pdev->bus);
	gpu->bus = pdev->bus->number;
	gpu->devfn = pdev->devfn;
	gpu->bar_phys = pci_resource_start(pdev, SIMGPU_BAR);
	snprintf(gpu->uuid, sizeof(gpu->uuid), "SIMGPU-%04x%02x%02x",
		 gpu->domain, gpu->bus, gpu->devfn);
	gpu->index = ida_alloc(&simgpu_indices, GFP_KERNEL);
	if (gpu->index < 0) {
		err = gpu->index;
		goto free;
	}
	err = simgpu_vram_init(gpu, pci_resource_len(pdev, SIMGPU_BAR),
			       seed ? seed + gpu->index : 0);
	if (err)
		goto free_index;
	return gpu;

free_index:
	ida_free(&simgpu_indices, gpu->index);
free:
	kfree(gpu);
	return ERR_PTR(err);
}

static int gpu_claim_bar(struct pci_dev *pdev, struct simgpu *gpu)
{
	resource_size_t len = pci_resource_len(pdev, SIMGPU_BAR);

	if (!request_mem_region(gpu->bar_phys, len, "simgpu"))
		return -EBUSY;
	gpu->bar = ioremap_wc(gpu->bar_phys, len);
	if (gpu->bar)
		return 0;
	release_mem_region(gpu->bar_phys, len);
	return -ENOMEM;
}

/* Copies in progress touch the BAR until they see that it is gone. */
static void gpu_release_bar(struct pci_dev *pdev, struct simgpu *gpu)
{
	void __iomem *bar = gpu->bar;

	WRITE_ONCE(gpu->bar, NULL);
	synchronize_srcu(&simgpu_bar_srcu);
	iounmap(bar);
	release_mem_region(gpu->bar_phys, pci_resource_len(pdev, SIMGPU_BAR));
}

static int gpu_register_node(struct simgpu *gpu)
{
	snprintf(gpu->name, sizeof(gpu->name), "simgpu%d", gpu->index);
	gpu->misc.minor = MISC_DYNAMIC_MINOR;
	gpu->misc.name = gpu->name;
	gpu->misc.fops = &simgpu_client_fops;
	gpu->misc.mode = 0666;
	return misc_register(&gpu->misc);
}

static int gpu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct simgpu *gpu;
	int err;

	err = pci_enable_device_mem(pdev);
	if (err)
		return err;
	pci_set_master(pdev);
	gpu = gpu_create(pdev);
	err = PTR_ERR_OR_ZERO(gpu);
	if (err)
		goto disable;
	err = gpu_claim_bar(pdev, gpu);
	if (err)
		goto put;
	simgpu_debug_add(gpu);
	mutex_lock(&simgpu_lock);
	list_add_tail(&gpu->link, &simgpu_gpus);
	mutex_unlock(&simgpu_lock);
	err = gpu_register_node(gpu);
	if (err)
		goto unlink;
	pci_set_drvdata(pdev, gpu);
	return 0;

unlink:
	mutex_lock(&simgpu_lock);
	list_del(&gpu->link);
	mutex_unlock(&simgpu_lock);
	simgpu_debug_remove(gpu);
	gpu_release_bar(pdev, gpu);
put:
	simgpu_put(gpu);
disable:
	pci_disable_device(pdev);
	return err;
}

static struct simgpu_pin *gpu_get_mapped_pin(struct simgpu *gpu)
{
	struct simgpu_pin *pin, *found = NULL;

	mutex_lock(&simgpu_lock);
	list_for_each_entry(pin, &gpu->pins, gpu_link) {
		if (list_empty(&pin->dmas))
			continue;
		kref_get(&pin->ref);
		found = pin;
		break;
	}
	mutex_unlock(&simgpu_lock);
	return found;
}

/* Persistent pins stay as they are, but lead nowhere: no device may use them. */
static void gpu_unmap_pins(struct simgpu *gpu)
{
	struct simgpu_pin *pin;

	while ((pin = gpu_get_mapped_pin(gpu))) {
		simgpu_dma_destroy_all(pin);
		simgpu_pin_put(pin);
	}
}

/*
 * A client that closes right now may still run callbacks. For the last dma-buf
 * the real driver waits, too, however long that takes.
 */
static bool gpu_is_quiet(const struct simgpu *gpu)
{
	return !READ_ONCE(gpu->revocable) && !READ_ONCE(gpu->count.dma_bufs);
}

static void gpu_remove(struct pci_dev *pdev)
{
	struct simgpu *gpu = pci_get_drvdata(pdev);

	misc_deregister(&gpu->misc);
	mutex_lock(&simgpu_lock);
	gpu->dead = true;
	list_del(&gpu->link);
	mutex_unlock(&simgpu_lock);
	simgpu_clients_clear(gpu);
	wait_event(gpu->quiet, gpu_is_quiet(gpu));
	gpu_unmap_pins(gpu);
	gpu_release_bar(pdev, gpu);
	simgpu_debug_remove(gpu);
	simgpu_put(gpu);
	pci_disable_device(pdev);
}

static const struct pci_device_id simgpu_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110) },
	{ }
};
MODULE_DEVICE_TABLE(pci, simgpu_ids);

static struct pci_driver simgpu_driver = {
	.name = "simgpu",
	.id_table = simgpu_ids,
	.probe = gpu_probe,
	.remove = gpu_remove,
};

static int __init simgpu_init(void)
{
	int err;

	if (page_kb != 4 && page_kb != 64 && page_kb != 128)
		return -EINVAL;
	simgpu_debug_init();
	err = pci_register_driver(&simgpu_driver);
	if (err)
		simgpu_debug_exit();
	return err;
}

static void __exit simgpu_exit(void)
{
	pci_unregister_driver(&simgpu_driver);
	simgpu_debug_exit();
}

module_init(simgpu_init);
module_exit(simgpu_exit);

MODULE_DESCRIPTION("A GPU made of QEMU's ivshmem, with NVIDIA's P2P interface");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(SIMGPU_DMA_BUF_NS);
