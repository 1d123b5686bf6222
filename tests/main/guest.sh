# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Guests whose programs speak TAP themselves (tests/t_tap.h): what they say becomes
# points of the .t script that sources this file.

# new_guest NAME: leaves an empty folder for it in $folder.
new_guest() {
	# shellcheck disable=SC2154 # set by tests/tap.sh
	folder=$logs/$1
	rm -rf "$folder"
	mkdir -p "$folder/out"
}

# guest NAME RUN-OPTION... -- COMMAND...: run the command in a guest; NAME stands
# before what its programs say.
guest() {
	local name=$1

	{
		run_programs "$@" 3>&1 >&4 | tee "$folder.said" >&2
	} 4>&1
	points=$((points + $(grep -cE '^(not )?ok ' "$folder.guest")))
	ok "$name: the guest ends well" ended_well "$(<"$folder.status")"
}

# What the runner complains of, and the command, goes to descriptor 3.
run_programs() {
	tests/vm/run --quiet --dir "$folder" "${@:2}" 2>&3 |
		tee "$folder.guest" | pass_on "$1"
	echo "${PIPESTATUS[0]}" >"$folder.status"
}

# Renumber the points as they come. The programs' plans are not this script's:
# whether one was kept is told by the guest's status.
pass_on() {
	awk -v name="$1" -v nr="$points" '
		match($0, /^(not )?ok [0-9]+ - /) {
			verdict = /^not/ ? "not ok" : "ok"
			print verdict, ++nr, "- " name ": " substr($0, RLENGTH + 1)
			fflush()
		}
		/^#/ || /^Bail out!/ {
			sub(/^Bail out!/, "# gave up:")
			print
			print >"/dev/stderr"
		}'
}

ended_well() {
	echo "tests/vm/run: status $1; see $folder/console.log"
	sed -n '/^run: /,$p' "$folder.said" | grep . || tail -n 8 "$folder.said"
	[ "$1" = 0 ]
}

# memory_is NAME: where the guest's record out/NAME says, the memory behind the BAR
# has the file's bytes of $seed, or the record's own.
memory_is() {
	# shellcheck disable=SC2154 # set by who asks
	tests/vm/enter -- build/lab/user/tests/main/random compare-memory \
		"/host$(realpath "$folder/gpu0.mem")" \
		"/host$folder/out/$1/memory" "$seed"
}

# look_when_asked NAME...: to be run beside the guest: what memory_is says of each,
# in this order, when the guest asks for it (tests/t_record.h), or until there is
# $folder/over; looked_well tells.
look_when_asked() {
	local name

	for name in "$@"; do
		until [ -e "$folder/out/$name/look" ]; do
			[ ! -e "$folder/over" ] || return 0
			sleep 0.2
		done
		if memory_is "$name" >"$folder/$name.look" 2>&1; then
			touch "$folder/$name.well"
		fi
		touch "$folder/out/$name/looked"
	done
}

looked_well() {
	cat "$folder/$1.look"
	[ -e "$folder/$1.well" ]
}

# What is big goes when it is no longer needed; the logs stay.
forget() {
	local memory

	if memory=$(readlink "$folder/gpu0.mem"); then
		rm -rf "$(dirname "$memory")"
	fi
	rm -f "$folder"/{gpu0.mem,nvme?.img}
}
