#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The command in guests: with all that it needs, and on a machine whose host
# bridge is not known to route.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

# in_guest KERNEL PART OPTION...: its points are ours
in_guest() {
	local kernel=$1 part=$2 folder=$logs/$1-$2 status name

	rm -rf "$folder"
	ok "kernel $kernel, $part: a guest ran it" tests/vm/run \
		--kernel "$kernel" --dir "$folder" "${@:3}" -- \
		tests/cli/in_guest "$part"
	while read -r status name; do
		ok "kernel $kernel, $part: $name" \
			report "$status" "$folder/out/said"
	done <"$folder/out/points"
	[ "$points_failed" -gt 0 ] || rm -rf "$folder"
}

report() {
	[ "$1" = 0 ] || cat "$2"
	return "$1"
}

if on_debug; then
	skip "the command" "the library's requests are those of other areas"
	done_testing
	exit
fi
for kernel in "${kernels[@]}"; do
	in_guest "$kernel" all --nvme 2 --nvme-size 1G \
		--drive-opt throttling.bps-total=60000000
	in_guest "$kernel" stacked --nvme 2 --nvme-size 512M
	[ "$kernel" != 6.1 ] ||
		skip "6.1, stacked: without io_uring" "this kernel cannot forbid it"
done
if tests_kernel latest; then
	in_guest latest refused --cpu Skylake-Server
fi
done_testing
