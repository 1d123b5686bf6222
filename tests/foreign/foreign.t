#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Other exporters' dma-bufs: what is refused and why, contents, memory that moves
# or is taken back under use, what stays and for how long. The host compares the
# last transfer's bytes.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# As `foreign --keep` leaves them: the drive's start, 16 MiB into the BAR.
same_bytes() {
	cmp -n $((4 << 20)) -i "0:$((16 << 20))" "$folder/nvme0.img" \
		"$folder/gpu1.mem"
}

# As `mapped host` has the card copy them.
card_bytes() {
	cmp -n 16384 -i "0:$((64 << 20))" "$folder/nvme0.img" \
		"$folder/gpu1.mem"
}

# As `paged host` has the drive read them into pages.
paged_bytes() {
	cmp -n $((4 << 20)) -i "0:$((96 << 20))" "$folder/nvme0.img" \
		"$folder/gpu1.mem"
}

# foreign KERNEL IOMMU
foreign() {
	local what="$1, IOMMU $2" mask=0xffffffff

	if [ "$1 $2" = '6.1 virtio' ]; then
		skip "$what" "Debian's kernel 6.1 has no driver for it"
		return
	fi
	[ "$2" != none ] || mask=0xffffffffffffffff
	new_guest "$1-$2"
	guest "$what" --kernel "$1" --iommu "$2" --gpu 2 --gpu-size 256M \
		--nvme 2 --nvme-size 256M --edu-mask $mask \
		--drive-opt throttling.bps-total=100000000 -- tests/foreign/guest
	ok "$what: the host finds the bytes in the BAR" same_bytes
	ok "$what: ... and those that the card has copied" card_bytes
	ok "$what: ... and those that the drive has read into pages" paged_bytes
	forget
}

for kernel in "${kernels[@]}"; do
	for iommu in none intel virtio; do
		if on_debug && [ $iommu != intel ]; then
			skip "debug, IOMMU $iommu" "the stock kernels have it"
			continue
		fi
		foreign "$kernel" $iommu
	done
done
done_testing
