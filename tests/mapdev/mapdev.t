#!/bin/bash
# SPDX-License-Identifier: MIT
#
# MAP_DEVICE: a card with a DMA engine, driven from user space, reaches scattered
# GPU memory above 4 GiB through every IOMMU, and nothing once it is taken away.
# Without an IOMMU a card of 32 bits is refused, one of 64 is not.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# The card's bytes, and no others, where the guest says they are.
check_memory() {
	tests/vm/enter -- build/lab/user/tests/main/random compare-memory \
		"/host$(realpath "$folder/gpu0.mem")" \
		"/host$folder/out/memory" 7
}

# The drive is slow, so that something is in flight when a buffer is revoked.
for kernel in "${kernels[@]}"; do
	for iommu in none intel virtio; do
		[ "$kernel $iommu" != "6.1 virtio" ] || continue
		if on_debug && [ $iommu != intel ]; then
			skip "debug $iommu" "the stock kernels have it"
			continue
		fi
		mask=0xffffffff
		[ $iommu != none ] || mask=0xffffffffffffffff
		new_guest "$kernel-$iommu"
		guest "$kernel $iommu" --kernel "$kernel" --iommu $iommu \
			--nvme-size 64M --drive-opt throttling.iops-total=40 \
			--qemu -device --qemu "edu,dma_mask=$mask" -- tests/mapdev/guest
		ok "$kernel $iommu: the host finds the card's bytes" check_memory
		forget
	done
	if on_debug; then
		skip "debug neighbour" "the debug kernel has no driver for it"
		continue
	fi
	new_guest "$kernel-neighbour"
	guest "$kernel neighbour" --kernel "$kernel" --iommu intel \
		--nvme-size 64M --qemu -device --qemu pcie-pci-bridge,id=pci0 \
		--qemu -device --qemu edu,dma_mask=0xffffffff,bus=pci0,addr=1 \
		--qemu -device --qemu pci-testdev,bus=pci0,addr=2 \
		-- tests/mapdev/guest neighbour
	forget
done
done_testing
