#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Races, written down and forced, in both orders. One guest for each kernel.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

rounds=60
! on_debug || rounds=20

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --iommu intel --gpu-size 64M \
		--nvme-size 64M --edu -- tests/races/guest $rounds
	forget
done
done_testing
