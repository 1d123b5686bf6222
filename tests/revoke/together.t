#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Memory that everything uses at once, and every way in which it ends. One guest
# for each kernel; the host looks at the memory after each end, while its next owner
# has it and the old users still try.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# No file was read: the records have canaries only.
seed=1
ends=(taken-back freed killed unbind remove)
# So slow that its queue fills and stays full.
speed=16000000
! on_debug || speed=2000000

# Whenever the guest asks, in its order.
look() {
	local name

	for name in "${ends[@]}"; do
		until [ -e "$folder/out/$name/look" ]; do
			[ ! -e "$folder/over" ] || return
			sleep 0.2
		done
		if memory_is "$name" >"$folder/$name.look" 2>&1; then
			touch "$folder/$name.well"
		fi
		touch "$folder/out/$name/looked"
	done
}

looked_well() {
	cat "$folder/$1.look"
	[ -e "$folder/$1.well" ]
}

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	look &
	looker=$!
	guest "$kernel" --kernel "$kernel" --iommu intel --gpu-size 64M \
		--nvme 2 --nvme-size 64M --drive-opt throttling.bps-total=$speed \
		--edu-mask 0xffffffffff \
		--append iommu.strict=1 -- tests/revoke/together-guest
	touch "$folder/over"
	wait "$looker"
	for name in "${ends[@]}"; do
		ok "$kernel: the host finds what was $name another's, whole" \
			looked_well "$name"
	done
	forget
done
done_testing
