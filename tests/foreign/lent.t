#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Our buffers in the hands of others that take user space's mappings: VFIO's type 1
# and iommufd for a card that does DMA, RDMA for a registered region. An ordinary
# mapping has no pages and is refused; that of PAGES is taken, and keeps the memory
# until it is let go. The host finds the card's bytes.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# shellcheck disable=SC2034 # for memory_is
seed=0
for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --iommu intel --nvme 0 \
		--gpu-size 256M --edu-mask 0xffffffff -- tests/foreign/lent-guest
	ok "$kernel: the host finds what the card wrote" memory_is lent
	forget
done
done_testing
