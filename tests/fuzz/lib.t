#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What fuzzing of user space has found, once more, without sanitizers.
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

for target in text options; do
	ok "the corpus of $target" tests/vm/enter -- \
		build/lab/user/tests/fuzz/lib/$target \
		tests/fuzz/lib/$target.corpus
done
done_testing
