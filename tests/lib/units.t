#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The unit tests of the library, in cmocka: no module, no GPU, no guest. They run
# in the lab tree, where they were built.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

if on_debug; then
	skip "unit tests" "the library is the same on every kernel"
	done_testing
	exit
fi

for source in tests/lib/[!f]*.c tests/cli/*.c; do
	program=build/lab/user/${source%.c}
	ok "$source" tests/vm/enter -- timeout 900 "$program"
done
done_testing
