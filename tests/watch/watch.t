#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Watching: debugfs, fdinfo and tracepoints. One guest for each kernel.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	# perf counts by CPU, so there is one.
	guest "$kernel" --kernel "$kernel" --smp 1 --gpu-size 128M \
		--nvme-size 64M --drive-opt throttling.bps-total=$((16 << 20)) \
		-- tests/watch/guest
	forget
done
done_testing
