#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What fuzzing has found, once more: programs that reach much of the kernel's code,
# and those that were too much for it, all of these. One guest for each kernel; the
# former are bounded, since a corpus may grow.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

seconds=20

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --iommu intel \
		--append iommu.strict=1 --gpu 2 --gpu-size 64M --edu \
		--edu-mask 0xffffffffff --nvme 2 --nvme-size 64M -- \
		tests/fuzz/guest replay $seconds tests/fuzz/crashes \
		tests/fuzz/corpus
	forget
done
done_testing
