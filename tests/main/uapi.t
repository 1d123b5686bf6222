#!/bin/bash
# SPDX-License-Identifier: MIT
#
# include/uapi/peerdma.h, sentence by sentence: all ioctls, FILE_IO by both ways
# (the buffer as memory: tests/cpu-map). One guest for each kernel.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu-size 256M --nvme 2 \
		--nvme-size 256M -- tests/main/uapi-guest
	forget
done
done_testing
