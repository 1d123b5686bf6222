#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The library's queue on real kernels, and the library against read(2) and write(2)
# in random cases (tests/queue/queue.c, random.c): one guest for each kernel.
#
# PEERDMA_TEST_SEED repeats a run, PEERDMA_TEST_CASES sets its length.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=tests/main/guest.sh
. tests/main/guest.sh

seed=${PEERDMA_TEST_SEED-$((RANDOM * 32768 + RANDOM))}
# More than ten thousand on the three kernels.
cases=3400
! on_debug || cases=60
cases=${PEERDMA_TEST_CASES-$cases}
block=4096 bad=$(((1 << 20) + 3 * 4096))
image=$logs/victim.img

# A drive with one file, and the first sector of its block that is bad.
make_victim() {
	local at

	rm -rf "$logs/files" "$image"
	mkdir -p "$logs/files"
	head -c 8M /dev/urandom >"$logs/files/victim"
	truncate -s 64M "$image"
	tests/vm/enter -- mke2fs -q -t ext4 -b $block -d "/host$logs/files" \
		"/host$image"
	at=$(tests/vm/enter -- debugfs -R "bmap /victim $((bad / block))" \
		"/host$image" 2>/dev/null)
	cat >"$logs/rules" <<-RULE
	[inject-error]
	event = "none"
	iotype = "read"
	errno = "5"
	sector = "$((at * block / 512))"
	RULE
}

ok "a drive with a bad sector" make_victim
echo "# PEERDMA_TEST_SEED=$seed repeats this run"
for kernel in "${kernels[@]}"; do
	new_guest "$kernel"
	cp "$logs/files/victim" "$folder/out/"
	cp --sparse=always "$image" "$folder/nvme0.img"
	guest "$kernel" --kernel "$kernel" --gpu-size 128M --nvme 2 \
		--nvme-size 64M --blkdebug "$logs/rules" -- \
		tests/queue/guest $bad "$seed" "$cases"
	forget
done
rm -rf "$logs/files" "$image"
done_testing
