#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The right bytes, in both directions, whatever the file's shape, the file system's
# block size and the GPU's pages: tests/main/files.c and files_random.c, in one
# guest for each kernel. What the last random run left is compared by the host.
#
# PEERDMA_TEST_SEED repeats a run; without it each run is another.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

seed=${PEERDMA_TEST_SEED-$((RANDOM * 32768 + RANDOM))}
operations=120
drives=4
sizes=()
if on_debug; then
	operations=24
	drives=3
	sizes=(64)
	skip "debug: pages of 4 and 128 KiB, XFS" "the stock kernels have them"
fi

# The buffer's bytes, collected from where the record says they lie behind the BAR.
check_memory() {
	# shellcheck disable=SC2016 # a Perl program
	perl -e 'open my $memory, "<", shift or die "memory: $!";
		binmode STDOUT;
		while (<STDIN>) {
			my (undef, undef, $place, $len) = split;
			seek $memory, $place, 0;
			read($memory, my $bytes, $len) == $len or die "short";
			print $bytes;
		}' "$(realpath "$folder/gpu0.mem")" <"$folder/out/memory" |
		cmp - "$folder/out/buffer"
}

# The ext4 of 4 KiB blocks is the drive's third partition.
check_file() {
	local start

	start=$(od -An -tu4 -j $((446 + 2 * 16 + 8)) -N 4 "$folder/nvme0.img")
	# shellcheck disable=SC2016 # expanded in the tree
	tests/vm/enter -- sh -c 'e2fsck -fn "$1" &&
		debugfs -R "cat /random" "$1" | cmp - "$2"' sh \
		"/host$folder/nvme0.img?offset=$((start * 512))" \
		"/host$folder/out/file"
}

echo "# PEERDMA_TEST_SEED=$seed repeats this run"
for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	guest "$kernel" --kernel "$kernel" --gpu-size 128M \
		--nvme $drives --nvme-size 640M -- \
		tests/main/files-guest "$seed" "$operations" /out \
		"${sizes[@]}"
	ok "$kernel: the host finds the buffer's bytes behind the BAR" \
		check_memory
	ok "$kernel: the host finds the file's on the drive" check_file
	forget
done
done_testing
