#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Memory taken back under use, in one guest for each kernel.
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"
