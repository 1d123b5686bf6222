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

seed=7

# with_host NAME KERNEL RUN-OPTION...: a guest, and the host that looks when its
# GPU has gone under a card that writes, for the record NAME.
with_host() {
	local looker

	new_guest "${2// /-}"
	look_when_asked "$1" &
	looker=$!
	guest "${@:2}"
	touch "$folder/over"
	wait "$looker"
}

found_nothing() {
	ok "$1: $2: the host finds no byte of the card's" looked_well "$2"
}

# The drive is slow, so that something is in flight when a buffer is revoked. A GPU
# that was removed gets its place again only where that is not in what firmware keeps
# of 40 bits of addresses.
for kernel in "${kernels[@]}"; do
	for iommu in none intel virtio; do
		[ "$kernel $iommu" != "6.1 virtio" ] || continue
		if on_debug && [ $iommu != intel ]; then
			skip "debug $iommu" "the stock kernels have it"
			continue
		fi
		mask=0xffffffff
		[ $iommu != none ] || mask=0xffffffffffffffff
		with_host gpu-goes "$kernel $iommu" --kernel "$kernel" \
			--iommu $iommu --nvme-size 64M \
			--drive-opt throttling.iops-total=40 \
			--qemu -device --qemu "edu,dma_mask=$mask" -- tests/mapdev/guest
		# The card's bytes, and no others, where the guest says they are.
		ok "$kernel $iommu: the host finds the card's bytes" memory_is .
		[ $iommu = none ] || found_nothing "$kernel $iommu" gpu-goes
		forget
	done
	if on_debug; then
		skip "debug neighbour" "the debug kernel has no driver for it"
		continue
	fi
	with_host gpu-removed "$kernel neighbour" --kernel "$kernel" \
		--iommu intel --cpu EPYC,phys-bits=39 --nvme-size 64M \
		--qemu -device --qemu pcie-pci-bridge,id=pci0 \
		--qemu -device --qemu edu,dma_mask=0xffffffff,bus=pci0,addr=1 \
		--qemu -device --qemu pci-testdev,bus=pci0,addr=2 \
		-- tests/mapdev/guest neighbour
	if [ "$kernel" = latest ]; then
		found_nothing "$kernel neighbour" gpu-removed
	else
		skip "$kernel neighbour: a GPU that is removed" \
			"this kernel finds no place for its BAR when it comes back"
	fi
	forget
done
done_testing
