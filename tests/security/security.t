#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What users who are not root can do and learn. One guest for each kernel.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu-size 128M --nvme-size 64M \
		-- tests/security/guest
	forget
done
done_testing
