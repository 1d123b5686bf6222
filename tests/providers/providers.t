#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The providers that need no vendor, and the quota. One guest for each kernel;
# what files brought into a BAR, and the CPU from there to a drive, is looked at
# from the host.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# same_at FILE MIB: are the bytes there those that the guest expects?
same_at() {
	cmp -n "$(stat -c %s "$folder/out/expected")" -i "0:$(($2 << 20))" \
		"$folder/out/expected" "$folder/$1"
}

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu 2 --gpu-size 256M --edu \
		--nvme 2 --nvme-size 256M -- tests/providers/guest
	ok "$kernel: the host finds the file in the BAR" same_at gpu1.mem 16
	ok "$kernel: ... and what the CPU put there" same_at gpu1.mem 48
	ok "$kernel: the drive has what came from the BAR" same_at nvme0.img 48
	forget
done
done_testing
