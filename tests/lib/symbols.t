#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What the library exports is what its header declares and its pages document;
# what the uAPI header defines stands in peerdma(4).
set -uo pipefail

# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

library=build/lab/user/lib/libpeerdma.so.1

of_map() {
	sed -n 's/^[ \t]*\(peerdma_[a-z_]*\);/\1/p' lib/libpeerdma.map | sort
}

of_library() {
	tests/vm/enter -- nm -D --defined-only $library |
		sed -n 's/.* T \([^@]*\)@@PEERDMA_1\.0$/\1/p' | sort
}

of_header() {
	grep -o '\bpeerdma_[a-z_]*(' lib/peerdma.h | tr -d '(' |
		grep -v '^peerdma_sized$' | sort -u
}

# The names that a page documents stand before its one-line description.
of_pages() {
	local page

	for page in docs/man/peerdma_*.3; do
		sed -n '/^\.Nd/q;s/^\.Nm \([^ ]*\).*/\1/p' "$page"
	done | sort
}

# Types, constants and errnos of the uAPI header, but for its include guard.
of_uapi() {
	grep -o '\bPEERDMA_[A-Z_]*\b' include/uapi/peerdma.h |
		grep -vE '^PEERDMA_(IOCTL_TYPE|NR_[A-Z_]*|[A-Z_]*_)$'
	grep -o '^struct peerdma_[a-z_]*' include/uapi/peerdma.h
	grep -oE '^ \* E[A-Z0-9]+  ' include/uapi/peerdma.h | tr -d ' *'
}

same() {
	diff <($1) <($2)
}

not_in_page() {
	local word

	of_uapi | sort -u | while read -r word; do
		grep -qE -- "$word\b" docs/man/peerdma.4 || echo "$word"
	done
}

page_tells_all() {
	local missing

	missing=$(not_in_page)
	printf '%s\n' "$missing"
	[ -z "$missing" ]
}

# Each struct stands in the page as in the header.
structs_agree() {
	local name status=0

	for name in info pin query segment file_io file_segment route watch \
		revoke page_map map_device device_segment; do
		diff <(sed -n "/^struct peerdma_$name {/,/^};/p" \
			include/uapi/peerdma.h) \
			<(sed -n "/^struct peerdma_$name {/,/^};/p" \
				docs/man/peerdma.4) || status=1
	done
	return $status
}

needs_nothing_but_libc() {
	local needed

	needed=$(tests/vm/enter -- readelf -d $library |
		sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
	echo "$needed"
	[ "$needed" = libc.so.6 ]
}

ok 'the library exports what its map names' same of_map of_library
ok 'the header declares what the map names' same of_map of_header
ok 'every function has a page' same of_map of_pages
ok 'peerdma(4) names all that the uAPI header defines' page_tells_all
ok 'peerdma(4) shows the structs of the uAPI header' structs_agree
ok 'the library is linked to the C library alone' needs_nothing_but_libc
done_testing
