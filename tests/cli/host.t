#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The command on a machine without the module: what it says, and its exit status.
# Without CUDA, and with the unit tests' fake of it, where copies are staged.
set -uo pipefail

# It runs in the lab tree, where it was built.
if [ -z "${PEERDMA_IN_TREE-}" ]; then
	exec tests/vm/enter -- env PEERDMA_IN_TREE=1 bash "$0"
fi
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

user=build/lab/user
folder=$(mktemp -d "$logs/XXXXXX")
trap 'rm -rf "$folder"' EXIT
export LD_LIBRARY_PATH=$user/lib

peerdma() {
	$user/cli/peerdma "$@" >"$folder/out" 2>"$folder/err"
}

with_gpu() {
	LD_LIBRARY_PATH=$user/lib:$user/tests/lib peerdma "$@"
}

# says out|err PATTERN
says() {
	cat "$folder/out" "$folder/err"
	grep -qE -- "$2" "$folder/$1"
}

says_nothing_of() {
	cat "$folder/out"
	[ -s "$folder/out" ] && ! grep -q -- "$1" "$folder/out"
}

# is STATUS COMMAND...
is() {
	local status=0

	"${@:2}" || status=$?
	cat "$folder/out" "$folder/err"
	echo "status $status, expected $1"
	[ $status = "$1" ]
}

# complains STATUS PATTERN COMMAND...: one line on stderr, nothing on stdout
complains() {
	is "$1" "${@:3}" && says err "$2" &&
		[ "$(wc -l <"$folder/err")" = 1 ] && [ ! -s "$folder/out" ]
}

# usage_error PATTERN ARGUMENT...: argp adds a hint
usage_error() {
	is 2 peerdma "${@:2}" && says err "$1" && [ ! -s "$folder/out" ]
}

helps() {
	is 0 peerdma "${@:2}" --help && says out "$1" && [ ! -s "$folder/err" ]
}

prints_version() {
	is 0 peerdma --version && says out "^peerdma $(cat VERSION)$"
}

test_help() {
	local verb

	ok 'help lists the verbs' helps '^  copy  '
	for verb in copy check info; do
		ok "$verb has help" helps "^Usage: peerdma $verb" $verb
	done
	ok 'the version is that of VERSION' prints_version
	ok 'no verb' usage_error '^Usage: peerdma'
	ok 'a verb that there is not' complains 2 '^peerdma: fly: no such verb' peerdma fly
}

test_arguments() {
	ok 'copy: no operands' usage_error 'say FILE gpu:N' copy
	ok 'copy: two files' usage_error 'say FILE gpu:N' copy a b
	ok 'copy: two GPUs' usage_error 'say FILE gpu:N' copy gpu:0 gpu:1
	ok 'copy: a GPU at the end of three' usage_error 'say FILE gpu:N' \
		copy a b gpu:0
	ok 'copy: four operands' usage_error 'Too many arguments' \
		copy a gpu:0 b c
	ok 'copy: a path that there is not' usage_error 'no path' \
		copy a gpu:0 --path fast
	ok 'copy: a size that is none' usage_error 'no number' \
		copy a gpu:0 --size 1.5G
	ok 'copy: a size that is too large' usage_error 'too large' \
		copy a gpu:0 --size 99999999P
	ok 'copy: from a GPU without a size' usage_error '--size is needed' \
		copy gpu:0 a
	ok 'copy: a seed for a file' usage_error '--seed is for' \
		copy a gpu:0 --seed 1
	ok 'copy: an option that there is not' usage_error 'unrecognized' \
		copy a gpu:0 --size 1 --frob
}

json_of_info() {
	is 0 peerdma info --json && jq -e '.module == "no-module" and
		.cuda == "no-cuda" and .gpus == []' "$folder/out"
}

test_bare_machine() {
	ok 'copy without a file' complains 2 \
		'^peerdma: /nowhere: No such file' peerdma copy /nowhere gpu:0
	ok 'copy without CUDA' complains 2 \
		'^peerdma: gpu:0: the library libcuda.so.1 .*; install' \
		peerdma copy VERSION gpu:0
	ok 'check without a GPU' is 1 peerdma check
	ok 'check says what is missing' says out 'modprobe peerdma_nvidia'
	ok 'check of a GPU that there is not' complains 2 \
		'^peerdma: gpu:7: no such GPU' peerdma check gpu:7
	ok 'info without anything' is 0 peerdma info
	ok 'info says why there is no module' says out '^module .*modprobe'
	ok 'info says why there is no CUDA' says out '^cuda .*libcuda'
	ok 'info for programs' json_of_info
}

json_of_check() {
	is 1 with_gpu check --json VERSION gpu:0 &&
		jq -e '.pairs == [.pairs[0]] and (.pairs[0] | .gpu == "gpu:0" and
			.path == "staged" and .reason == "no-module" and
			.file == "VERSION" and (.why | test("modprobe")))' \
			"$folder/out"
}

json_of_copy() {
	is 0 with_gpu copy --json --repeat 2 "$folder/a" gpu:0 "$folder/b" \
		--verify &&
		jq -e '.verified and (.runs | length == 4 and
			([.[].verb] == ["read", "write", "read", "write"]) and
			all(.path == "staged" and .bytes == 9000001 and
				.bytes_staged == 9000001 and .bytes_direct == 0
				and .reason == "no-module" and .seconds > 0))' \
			"$folder/out"
}

test_staged() {
	head -c 9000001 /dev/urandom >"$folder/a"
	ok 'check with a GPU and no module' is 1 with_gpu check VERSION
	ok 'check says so' says out 'VERSION +[0-9]+% +gpu:0 .*staged .*not loaded'
	ok 'check for programs' json_of_check
	ok 'a file goes through GPU memory' is 0 with_gpu copy "$folder/a" \
		gpu:0 "$folder/b" --verify --gpu-offset 3
	ok 'it is the same file' cmp "$folder/a" "$folder/b"
	ok 'the reason for staging is told' says out 'staged: .*modprobe'
	ok 'no progress bar without a terminal' is_empty err
	ok 'copy for programs' json_of_copy
	ok 'a wrong byte is found' finds_difference
	ok 'directly or not at all' complains 2 'not directly: .*modprobe' \
		with_gpu copy "$folder/a" gpu:0 --path direct
	ok 'no such GPU' complains 2 'gpu:1: no such GPU' \
		with_gpu copy "$folder/a" gpu:1
	ok 'a folder' complains 2 'neither a file nor' with_gpu copy / gpu:0
}

has_size() {
	[ "$(stat -c %s "$folder/$1")" = "$2" ]
}

is_empty() {
	has_size "$1" 0
}

is_zeroes() {
	has_size "$1" 4097 && cmp "$folder/$1" <(head -c 4097 /dev/zero)
}

is_random() {
	has_size "$1" 4097 &&
		[ "$(tr -d '\0' <"$folder/$1" | wc -c)" -gt 4000 ]
}

finds_difference() {
	FAKE_CUDA_FLIP=77 is 1 with_gpu copy "$folder/a" gpu:0 --verify \
		--offset 1000 && says err "^peerdma: $folder/a: differs .* 1077$"
}

odd_part() {
	cmp <(tail -c +1000 "$folder/a" | head -c 5000) "$folder/c"
}

kept_rest() {
	cmp <(head -c 7 "$folder/a"; tail -c +1000 "$folder/a" | head -c 50
		tail -c +58 "$folder/a") "$folder/d"
}

test_parts() {
	ok 'part of a file' is 0 with_gpu copy "$folder/a" gpu:0 "$folder/c" \
		--offset 999 --size 5000 --path staged
	ok 'asked-for staging needs no reason' says_nothing_of 'staged:'
	ok 'it is that part' odd_part
	cp "$folder/a" "$folder/d"
	ok 'into part of a file' is 0 with_gpu copy "$folder/a" gpu:0 \
		"$folder/d" --offset 999 --size 50 --dest-offset 7
	ok 'keeps the rest' kept_rest
	ok 'more than the file has' complains 2 'ended after 9000001 of' \
		with_gpu copy "$folder/a" gpu:0 --size 9000002
	ok 'a file onto itself' is 2 with_gpu copy "$folder/a" gpu:0 \
		"$folder/a"
	ok 'leaves it alone' has_size a 9000001
	: >"$folder/empty"
	ok 'an empty file' is 0 with_gpu copy "$folder/empty" gpu:0 \
		"$folder/c" --verify
	ok 'makes an empty file' is_empty c
	ok 'from a GPU' is 0 with_gpu copy gpu:0 "$folder/c" --size 4097
	ok 'its memory is zeroes at first' is_zeroes c
	ok 'after a seed' is 0 with_gpu copy gpu:0 "$folder/c" --size 4097 \
		--seed 1 --verify
	ok 'it is not' is_random c
}

# catches_int PID
catches_int() {
	local mask

	mask=$(awk '/^Name:/ { name = $2 }
		/^SigCgt:/ && name == "peerdma" { print $2 }' "/proc/$1/status")
	(((0x${mask:-0} >> 1) & 1))
}

# It goes on for hours, whatever the machine, and is told once: a second signal kills.
interrupt() {
	local pid status=0

	# A shell's background jobs ignore SIGINT, and so do those of this one then.
	LD_LIBRARY_PATH=$user/lib:$user/tests/lib env --default-signal=INT \
		$user/cli/peerdma copy "$folder/a" gpu:0 --repeat 1000000 \
		>/dev/null 2>"$folder/err" &
	pid=$!
	until catches_int $pid; do
		kill -0 $pid || break
		sleep 0.1
	done
	kill -INT $pid
	wait $pid || status=$?
	cat "$folder/err"
	echo "status $status"
	[ $status = 130 ] &&
		grep -qE '^peerdma: copy: interrupted: read .* of 8.58 MiB$' \
			"$folder/err"
}

test_help
test_arguments
test_bare_machine
test_staged
test_parts
ok 'Ctrl-C ends it with a word of how far it got' interrupt
done_testing
