#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Negative controls: would the checks of transfer.t notice? Copies through host
# RAM, damaged bytes, and ways that hardware would not route, which must be
# refused before anything is tried.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/transfer.sh
. tests/main/transfer.sh

# reason NAME: its number.
reason() {
	awk -v name="PEERDMA_REASON_$1" '$1 == name && $2 == "=" {
		print $3 + 0 }' include/uapi/peerdma.h
}

# flip_bit FILE BYTE
flip_bit() {
	local byte

	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	# shellcheck disable=SC2059 # the byte is the format
	printf "\\x$(printf %02x $((byte ^ 4)))" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# staged IOMMU: the bytes are right, and yet a check is red.
staged() {
	local what="staged, IOMMU $1"

	new_guest "staged-$1"
	ok "$what: a file is moved" move --kernel "${kernels[-1]}" --iommu "$1" -- \
		--staged || return
	ok "$what: GPU memory holds its bytes" check_memory
	ok "$what: the drive holds its copy" check_copy
	ok "$what: host RAM is noticed" \
		fails_with 'is not GPU memory' check_dma
}

# damaged: what the last guest left is no longer right.
damaged() {
	flip_bit "$(realpath "$folder/gpu0.mem")" \
		"$(awk '$1 == "data" { print $3; exit }' "$folder/out/memory")"
	ok "a bit flipped in GPU memory is noticed" \
		fails_with 'and should be' check_memory
	flip_bit "$folder/nvme0.img" \
		"$(awk '$1 == "copy" { print $2; exit }' "$folder/out/blocks")"
	ok "a bit flipped in the copy is noticed" \
		fails_with 'and should be' check_copy
}

is_refused() {
	local expected=$1 status=0 output

	output=$(move "${@:2}" --) || status=$?
	echo "status $status, $output"
	[ $status = 1 ] && [ "$output" = "FILE_IO: EREMOTEIO, reason $expected" ]
}

# refused WHAT REASON RUN-OPTION...
refused() {
	new_guest "${1//[ ,]/-}"
	ok "$1: refused, $2" is_refused "$(reason "$2")" "${@:3}" || return
	ok "$1: GPU memory was left alone" check_dma --untouched
	forget
}

# A switch routes by itself, whatever the host bridge can do.
direct_below_switch() {
	local what="unknown host bridge, switch"

	new_guest switch
	ok "$what: a file is moved" \
		move --topology switch --cpu Skylake-Server -- || return
	ok "$what: GPU memory holds its bytes" check_memory
	ok "$what: the drive holds its copy" check_copy
	ok "$what: no byte went through host RAM" check_dma
	ok "$what: a visit to GPU memory is noticed" \
		fails_with 'in GPU memory' check_dma --untouched
	forget
}

if on_debug; then
	skip "the checks of transfer.t" "they are the host's, whatever the kernel"
	done_testing
	exit
fi
staged none && damaged
forget
staged intel
forget
for kernel in "${kernels[@]}"; do
	refused "kernel $kernel, swiotlb" SWIOTLB --kernel "$kernel" \
		--append swiotlb=force
	refused "kernel $kernel, unknown host bridge" HOST_BRIDGE \
		--kernel "$kernel" --cpu Skylake-Server
done
if tests_kernel latest; then
	refused "unknown host bridges" HOST_BRIDGES --topology bridges \
		--cpu Skylake-Server
	refused "unknown host bridge, switch, IOMMU" HOST_BRIDGE \
		--topology switch --iommu intel --cpu Skylake-Server
	direct_below_switch
fi
done_testing
