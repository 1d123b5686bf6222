# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# One transfer in one guest and the checks that the host makes of it. For
# transfer.t and the demo, where they must be green, and controls.t, where they
# must not.

# Not a multiple of a block, nor of a sector.
bytes=25170177
random=build/lab/user/tests/main/random

# Set by new_guest: its folder, and its file's seed.
folder='' seed=''

# new_guest NAME
new_guest() {
	# shellcheck disable=SC2154 # set by tests/tap.sh
	folder=$logs/$1
	seed=$(($(cksum <<<"$1" | cut -d ' ' -f 1) % 10000 + 1))
	forget
	rm -rf "$folder"
}

# move [RUN-OPTION...] -- [--staged]
move() {
	local options=()

	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	tests/vm/run --quiet --gpu-size 64M --nvme-size 256M --dir "$folder" \
		--trace pci_nvme_io_cmd --trace pci_nvme_read \
		--trace pci_nvme_write --trace pci_nvme_map_addr \
		"${options[@]}" -- tests/main/move "${@:2}" "$seed" "$bytes"
}

# What is big goes when it is no longer needed; what may tell why is kept.
forget() {
	local memory

	if memory=$(readlink "$folder/gpu0.mem"); then
		rm -rf "$(dirname "$memory")"
	fi
	rm -f "$folder"/{gpu0.mem,nvme0.img}
}

check_memory() {
	tests/vm/enter -- $random compare-memory \
		"/host$(realpath "$folder/gpu0.mem")" \
		"/host$folder/out/memory" "$seed"
}

check_copy() {
	# shellcheck disable=SC2016 # expanded in the tree
	tests/vm/enter -- sh -c 'e2fsck -fn "$1" &&
		debugfs -R "cat /copy" "$1" | "$2" compare "$3" "$4"' \
		sh "/host$folder/nvme0.img" $random "$seed" "$bytes"
}

check_dma() {
	tests/main/check-dma "$@" "$folder"
}
