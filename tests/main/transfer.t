#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A file goes from the drive into GPU memory and from there into a new file, on
# every kernel, IOMMU and topology. The host judges: the memory behind the BAR,
# the drive's image, and where the drive's DMA went.
#
# Below a switch with an IOMMU, QEMU loses what is sent by raw bus address and
# reports success; generic pages are mapped through the IOMMU and arrive.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/transfer.sh
. tests/main/transfer.sh

# transfer KERNEL TOPOLOGY IOMMU
transfer() {
	local what="kernel $1, topology $2, IOMMU $3"

	if [ "$1 $3" = '6.1 virtio' ]; then
		skip "$what" "Debian's kernel 6.1 has no driver for it"
		return
	fi
	new_guest "$1-$2-$3"
	ok "$what: a file is moved" \
		move --kernel "$1" --topology "$2" --iommu "$3" -- || return
	ok "$what: GPU memory holds its bytes" check_memory
	ok "$what: the drive holds its copy" check_copy
	ok "$what: no byte went through host RAM" check_dma
	[ "$points_failed" -gt 0 ] || forget
}

if [ -n "$quick" ]; then
	transfer latest ports none
	done_testing
	exit
fi
if on_debug; then
	skip "every topology and IOMMU" "faults and files move more, and by more ways"
	done_testing
	exit
fi
for kernel in "${kernels[@]}"; do
	for iommu in none intel virtio; do
		transfer "$kernel" ports $iommu
	done
done
if tests_kernel latest; then
	for topology in root bridges switch; do
		transfer latest $topology none
	done
	for iommu in intel virtio; do
		transfer latest switch $iommu
	done
fi
done_testing
