#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The edu card is unplugged from the running machine while it writes to GPU memory,
# and plugged in again. The guest speaks to QEMU's monitor through a virtio port.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# No file was read: the records have canaries only.
seed=1
card=edu,id=card,bus=socket,dma_mask=0xffffffff
# The monitor's other end, which QEMU opens too.
path=/tmp/monitor
qemu=(-device "pcie-root-port,id=socket,bus=pcie.0,chassis=60,slot=60"
	-device "$card"
	-chardev "socket,id=monitor,path=$path,server=on,wait=off"
	-mon "chardev=monitor,mode=readline"
	-chardev "socket,id=teller,path=$path"
	-device "virtserialport,chardev=teller,name=peerdma.monitor")

options=()
for option in "${qemu[@]}"; do
	options+=(--qemu "$option")
done

for kernel in "${kernels[@]}"; do
	if on_debug; then
		skip "debug" "it has no ACPI hotplug, by which QEMU takes cards out"
		continue
	fi
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --iommu intel --nvme 0 \
		--gpu-size 64M --append iommu.strict=1 \
		"${options[@]}" -- tests/devices/unplug-guest "$card"
	for name in imported mapped; do
		ok "$kernel: what the card was $name is untouched" \
			memory_is "$name"
	done
	forget
done
done_testing
