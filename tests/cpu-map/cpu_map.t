#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A buffer mapped by the CPU: wholly, in parts, several times, by children, threads,
# debuggers and other users, with GPU pages of 4, 64 and 128 KiB; and what such a
# mapping keeps alive.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu-size 128M --nvme 2 \
		--nvme-size 64M -- tests/cpu-map/guest
	forget
done
done_testing
