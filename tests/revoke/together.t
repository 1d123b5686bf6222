#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Memory that everything uses at once, and every way in which it ends. One guest
# for each kernel; the host looks at the memory when all is over.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# No file was read: the records have canaries only.
seed=1
# All of it is written again and again.
size=256M
! on_debug || size=64M

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --iommu intel --gpu-size $size \
		--nvme-size 64M --edu-mask 0xffffffffff \
		--append iommu.strict=1 -- tests/revoke/together-guest
	for name in taken-back freed killed unbind remove; do
		ok "$kernel: what was $name is another's, whole" memory_is $name
	done
	forget
done
done_testing
