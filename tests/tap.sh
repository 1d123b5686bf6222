# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# The Test Anything Protocol for the .t scripts, which source this file and end
# with done_testing. They run on the host, in the project's root.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The kernels to test with; tests/run narrows them.
read -ra kernels <<<"${PEERDMA_TEST_KERNELS:-6.1 6.12 latest}"
# Set for `make quick`: one guest, the essentials.
# shellcheck disable=SC2034 # for the script
quick=${PEERDMA_TEST_QUICK-}
# A folder of this script's own for whatever is worth keeping.
logs=$PWD/build/lab/log/$(basename "$(dirname "$0")")/$(basename "$0" .t)
mkdir -p "$logs"

points=0
points_failed=0

# tests_kernel NAME: is it one of those asked for?
tests_kernel() {
	[[ " ${kernels[*]} " == *" $1 "* ]]
}

# on_debug: is it the debug kernel? It sees what stock kernels let pass and is many
# times slower: what only repeats, or says nothing of kernel/, is left to them.
on_debug() {
	tests_kernel debug
}

# For whoever looks on, and below its point in the log.
diag() {
	awk '{ print "# " $0; print "# " $0 >"/dev/stderr" }'
}

# ok WHAT COMMAND...: the command's success is the point; its output is shown
# when it fails.
ok() {
	local output

	points=$((points + 1))
	if output=$("${@:2}" 2>&1); then
		echo "ok $points - $1"
		return 0
	fi
	points_failed=$((points_failed + 1))
	echo "not ok $points - $1"
	printf '%s\n' "$output" | tail -n 40 | diag
	return 1
}

# fails_with TEXT COMMAND...: the opposite of its success, and for this reason.
fails_with() {
	local output

	if output=$("${@:2}" 2>&1); then
		echo "it succeeded"
		return 1
	fi
	echo "$output"
	[[ $output == *"$1"* ]]
}

# skip WHAT WHY
skip() {
	points=$((points + 1))
	echo "ok $points - $1 # SKIP $2"
}

done_testing() {
	echo "1..$points"
}
