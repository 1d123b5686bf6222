#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What goes wrong with files (tests/main/faults.c), in a guest whose drive QEMU's
# blkdebug spoils; what happens to transfers in flight (faults_flight.c, with slow
# drives) and to processes that are killed (faults_kill.c). For each kernel.
#
# PEERDMA_TEST_SEED repeats a run; without it each run is another.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

seed=${PEERDMA_TEST_SEED-$((RANDOM * 32768 + RANDOM))}
# So slow that a drive is not done before the kernel has submitted.
kills=50 slow=$((8 << 20))
! on_debug || kills=10 slow=$((2 << 20))
block=4096
# Offsets in the victim of what cannot be read, or not be written.
bad_read=$(((1 << 20) + 3 * block)) bad_late=$((6 << 20)) bad_write=$((3 << 20))
image=$logs/victim.img

in_tree() {
	tests/vm/enter -- "$@"
}

# The first 512 bytes of the block that holds the victim's OFFSET.
sector_of() {
	echo $(($(in_tree debugfs -R "bmap /victim $(($1 / block))" \
		"/host$image" 2>/dev/null) * block / 512))
}

# rule read|write SECTOR
rule() {
	cat <<-RULE
	[inject-error]
	event = "none"
	iotype = "$1"
	errno = "5"
	sector = "$2"

	RULE
}

# A drive with one file, and a list of what is bad of it.
make_victim() {
	rm -rf "$logs/files" "$image"
	mkdir -p "$logs/files"
	head -c 8M /dev/urandom >"$logs/files/victim"
	truncate -s 64M "$image"
	in_tree mke2fs -q -t ext4 -b $block -d "/host$logs/files" \
		"/host$image"
	{
		rule read "$(sector_of $bad_read)"
		rule read "$(sector_of $bad_late)"
		rule write "$(sector_of $bad_write)"
	} >"$logs/rules"
}

# The victim's bytes are put where the guest finds them.
share_victim() {
	cp "$logs/files/victim" "$folder/out/"
	cp --sparse=always "$image" "$folder/nvme0.img"
}

ok "a drive with bad sectors" make_victim
echo "# PEERDMA_TEST_SEED=$seed repeats this run"
for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	share_victim
	guest "$kernel" --kernel "$kernel" --gpu-size 128M --nvme 2 \
		--nvme-size 64M --blkdebug "$logs/rules" -- \
		tests/main/faults-guest bad $bad_read $bad_late $bad_write
	forget
	new_guest "$kernel-slow"
	guest "$kernel, slow drives" --kernel "$kernel" --gpu-size 128M \
		--nvme 2 --nvme-size 64M \
		--drive-opt throttling.bps-total=$slow \
		--qemu -blockdev --qemu driver=null-co,node-name=idle,size=67108864 \
		--qemu -device --qemu virtio-blk-pci,drive=idle -- \
		tests/main/faults-guest slow "$seed" $kills
	forget
done
rm -rf "$logs/files" "$image"
done_testing
