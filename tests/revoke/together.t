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
speed=8000000
! on_debug || speed=2000000

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	look_when_asked "${ends[@]}" &
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
