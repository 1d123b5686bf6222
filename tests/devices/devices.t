#!/bin/bash
# SPDX-License-Identifier: MIT
#
# GPU memory and a card with a DMA engine of few address lines: QEMU's edu with
# the driver of examples/edu. The host judges, by the memory behind the BAR.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

random=build/lab/user/tests/main/random
seed=20261

read_back() {
	tests/vm/enter -- sh -c "$random compare $seed $(stat -c %s \
		"$folder/out/back") <'/host$folder/out/back'"
}

faulted() {
	grep -E -m 1 'DMAR: .*fault addr|page fault from EP' "$folder/console.log"
}

above_4g() {
	local start length

	read -r start length <"$folder/out/dynamic/bar"
	echo "the BAR is at $start, $length bytes"
	[ "$start" -ge $((1 << 32)) ]
}

# Memory that was taken back, and is another's now.
canaries=(revoked killed waited unbound removed gpu)

# card KERNEL IOMMU BITS
card() {
	local what="$1, IOMMU $2, $3 bits" name

	if [ "$1 $2" = '6.1 virtio' ]; then
		skip "$what" "Debian's kernel 6.1 has no driver for it"
		return
	fi
	new_guest "$1-$2-$3"
	guest "$what" --kernel "$1" --iommu "$2" --nvme 0 \
		--edu-mask "$(printf '%#x' $(((1 << $3) - 1)))" \
		-- tests/devices/guest "$3"
	if [ "$2" != none ] || [ "$3" -gt 32 ]; then
		ok "$what: the memory lies above 4 GiB" above_4g
		ok "$what: it holds the card's bytes" memory_is dynamic
		ok "$what: and so when attached statically" memory_is static
		ok "$what: the card has read the GPU's bytes" read_back
		for name in "${canaries[@]}"; do
			ok "$what: what is another's now ($name) is untouched" \
				memory_is "$name"
		done
		[ ! -e "$folder/out/freed" ] ||
			ok "$what: what is another's now (freed) is untouched" \
				memory_is freed
	fi
	if [ "$2" != none ]; then
		ok "$what: what is no longer mapped is untouched" memory_is stale
		ok "$what: the IOMMU has complained" faulted
	fi
	forget
}

for kernel in "${kernels[@]}"; do
	card "$kernel" none 28
	for iommu in none intel virtio; do
		if on_debug && [ $iommu != intel ]; then
			skip "debug, IOMMU $iommu" "the stock kernels have it"
			continue
		fi
		card "$kernel" "$iommu" 32
	done
done
if tests_kernel latest; then
	card latest intel 28
	card latest virtio 28
	card latest intel 40
	card latest none 40
fi
done_testing
