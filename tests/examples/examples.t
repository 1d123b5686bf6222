#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The examples, each in the flow of the system that it follows. One guest for each
# kernel; the host compares what they moved with what there was.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

# Nine chunks of ssd2gpu and less than a block.
bytes=$((9 << 20 | 777)) seed=2718

# get NAME: a file of the guest's, into the folder
get() {
	tests/vm/enter -- debugfs -R "dump /$1 /host$folder/$1" \
		"/host$folder/nvme0.img" && [ -s "$folder/$1" ]
}

# same_as_source NAME: has it the bytes that were written to the drive?
same_as_source() {
	# shellcheck disable=SC2016 # expanded in the tree
	get "$1" && tests/vm/enter -- sh -c '"$1" compare "$2" "$3" <"$4"' sh \
		build/lab/user/tests/main/random $seed $bytes \
		"/host$folder/$1"
}

# What the guest's dd did to the file, done to what was there before.
same_as_changed() {
	get dirty && cp "$folder/sync" "$folder/changed" &&
		dd if="$folder/sync" of="$folder/changed" bs=1M seek=5 \
			count=1 conv=notrunc status=none &&
		dd if="$folder/sync" of="$folder/changed" bs=64K seek=117 \
			count=1 conv=notrunc status=none &&
		cmp "$folder/changed" "$folder/dirty"
}

# The words of pinpool's last round, each GPU page of them somewhere in the BAR.
in_gpu_memory() {
	perl -e 'use strict;
		open(my $memory, "<:raw", $ARGV[0]) or die "$ARGV[0]: $!\n";
		my ($page, %pages);
		my $found = 0;
		$pages{pack("Q<*", $_ << 13 .. ($_ + 1 << 13) - 1)} = 1
			for 9 << 4 .. (13 << 4) - 1;
		while (read($memory, $page, 1 << 16)) {
			$found++ if delete $pages{$page};
		}
		print "$found GPU pages found, ", scalar keys %pages,
			" not\n";
		exit(%pages ? 1 : 0);' "$folder/gpu0.mem"
}

if on_debug; then
	skip "the examples" "their calls are those of other areas"
	done_testing
	exit
fi
for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --iommu intel --gpu-size 256M \
		--nvme-size 256M --qemu -device \
		--qemu edu,dma_mask=0xffffffff \
		-- tests/examples/guest $seed $bytes
	for name in sync async cached; do
		ok "$kernel: GPU memory got the file, $name" same_as_source $name
	done
	ok "$kernel: ... and what was not on the drive yet" same_as_changed
	ok "$kernel: the other process's words are behind the BAR" in_gpu_memory
	forget
	rm -f "$folder"/{sync,async,cached,changed,dirty}
done
done_testing
