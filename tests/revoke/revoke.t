#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Memory taken back under use: freed, revoked by hand, its process killed, its
# driver unbound, its device removed. One guest for each kernel.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu-size 256M --nvme-size 256M \
		--drive-opt throttling.bps-total=200000000 -- tests/revoke/guest
	forget
done
done_testing
