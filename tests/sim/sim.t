#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The simulated GPU by itself: one guest for each kernel and one size of the GPU's
# pages.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

if on_debug; then
	skip "the simulator" "nothing of it is a part of kernel/"
	done_testing
	exit
fi
declare -A page_kb=([6.1]=4 [6.12]=128 [latest]=64)

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu-size 256M --nvme 0 -- \
		tests/sim/guest page_kb="${page_kb[$kernel]:-64}"
	forget
done
done_testing
