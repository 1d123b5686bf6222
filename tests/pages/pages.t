#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Buffers as struct pages: what the mapping is, who may have it, and what holds its
# pages (tests/pages/pages.c); and every kind of plain I/O on it, through every
# layer that there is between a drive and a program (stacks.c), whose bytes the
# host compares. One guest for each kernel, and one in which there is no route.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

random=build/lab/user/tests/main/random
mib=$((1 << 20))
len=$((4 * mib))
copy=$((8 * mib))
seed=$((RANDOM * 32768 + RANDOM))

# What stands between the file and the drive is not for the debug kernel to judge, but
# one that copies is.
names() {
	if on_debug; then
		echo raw ext4 crypt
	else
		echo raw ext4 raid0 raid1 linear crypt xfs btrfs
	fi
}

drives() {
	if on_debug; then echo 2; else echo 4; fi
}

# One kernel's guest has an IOMMU that translates.
iommu() {
	if [ "$1" = 6.12 ]; then echo intel; else echo none; fi
}

in_tree() {
	tests/vm/enter -- "$@"
}

compare() {
	in_tree $random compare "$seed" $len
}

check_file() {
	compare <"$folder/out/$1/copy"
}

check_memory() {
	in_tree $random compare-memory \
		"/host$(realpath "$folder/gpu0.mem")" \
		"/host$folder/out/$1/memory" "$seed"
}

# check_image DRIVE PARTITION'S-START: MiB.
check_image() {
	dd if="$folder/nvme$1.img" bs=4M iflag=skip_bytes \
		skip=$(($2 * mib + copy)) count=1 status=none | compare
}

check_ext4() {
	in_tree debugfs -R 'cat /file' \
		"/host$folder/nvme1.img?offset=$mib" 2>/dev/null |
		tail -c $len | compare
}

# Of the raw partition, by the drive's trace.
check_raw_dma() {
	local start=$((641 * mib))

	cp "$folder/out/raw/bar" "$folder/out/bar"
	printf '%s\n' "source $start $len" "copy $((start + copy)) $len" \
		>"$folder/out/blocks"
	tests/main/check-dma "$folder"
}

check_stacks() {
	local name

	for name in $(names); do
		ok "$1: $name: the host finds the bytes behind the BAR" \
			check_memory "$name"
		ok "$1: $name: the file holds the copy" \
			check_file "$name"
	done
	ok "$1: the host finds the raw partition's copy" check_image 0 641
	ok "$1: ... ext4's" check_ext4
	ok "$1: ... and not dm-crypt's, which is encrypted" \
		fails_with 'should be' check_image 1 193
	if on_debug; then
		skip "$1: raid0, raid1, linear, xfs, btrfs" \
			"the stock kernels have them"
	else
		ok "$1: ... one half of the mirror's" check_image 0 65
		ok "$1: ... the other half's" check_image 1 129
		ok "$1: ... dm-linear's" check_image 0 129
	fi
	[ "$(iommu "$1")" != none ] ||
		ok "$1: no byte of the raw partition went through host RAM" \
			check_raw_dma
}

echo "# seed $seed"
for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	# shellcheck disable=SC2046 # names are words
	guest "$kernel" --kernel "$kernel" --iommu "$(iommu "$kernel")" \
		--gpu-size 128M --nvme "$(drives)" --nvme-size 1G \
		--trace pci_nvme_io_cmd --trace pci_nvme_read \
		--trace pci_nvme_write --trace pci_nvme_map_addr -- \
		tests/pages/guest all "$seed" $(names)
	check_stacks "$kernel"
	[ "$points_failed" -gt 0 ] || forget
done

if on_debug; then
	skip "no route" "the stock kernels have it"
	done_testing
	exit
fi
kernel=${kernels[-1]}
new_guest "no-route"
guest "no route" --kernel "$kernel" --cpu Skylake-Server --gpu-size 128M \
	--nvme-size 64M -- tests/pages/guest route
forget
done_testing
