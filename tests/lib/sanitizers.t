#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The unit tests of the library again, under the address, undefined behaviour and
# thread sanitizers: not one report.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

if on_debug; then
	skip "sanitizers" "the library is the same on every kernel"
	done_testing
	exit
fi

declare -A flags=(
	[asan]='-fsanitize=address,undefined -fno-sanitize-recover=all'
	[tsan]='-fsanitize=thread'
)
export ASAN_OPTIONS=detect_leaks=1 TSAN_OPTIONS=halt_on_error=1
# Ten times slower: fewer random cases than without.
export PEERDMA_CASES=${PEERDMA_CASES:-500}

programs=()
for source in tests/lib/[!f]*.c; do
	programs+=("${source%.c}")
done

build() {
	local out=build/lab/$1

	tests/vm/enter -- make -s -j "$(nproc)" "O=$out" CC=gcc-14 \
		CFLAGS="-g -O1 -fno-omit-frame-pointer ${flags[$1]}" \
		"${programs[@]/#/$out/}"
}

# Without randomized addresses: a thread sanitizer may not find room else.
run() {
	tests/vm/enter -- timeout 900 setarch -R "build/lab/$1/$2"
}

for sanitizer in asan tsan; do
	ok "$sanitizer: builds" build "$sanitizer"
	for program in "${programs[@]}"; do
		ok "$sanitizer: $program" run "$sanitizer" "$program"
	done
done
done_testing
