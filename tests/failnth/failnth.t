#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every verb, mapping, fault, attachment and close with each of its allocations
# and user copies failing, one after the other. Only the debug kernel can let them;
# what it reports, at the guest's end also of leaks, fails the guest.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

count_reports() {
	sed '1,/peerdma-run: begin/d' "$folder/console.log" |
		grep -cE -f tests/vm/splat-patterns
}

if tests_kernel debug; then
	new_guest debug
	guest debug --kernel debug --iommu intel --edu-mask 0xffffffff \
		--gpu 2 --gpu-size 512M --nvme 2 --nvme-size 256M \
		-- tests/failnth/guest
	echo "# in all: $(sed -n 's/^# in all: //p' "$folder.guest")," \
		"reports $(count_reports)"
	forget
else
	skip "failing allocations" "Debian's kernels let none fail, see --kernel debug"
fi
done_testing
