# SPDX-License-Identifier: MIT
# What include/uapi/peerdma.h has, for tests/main/uapi_sweep.c: every ioctl, and
# the reserved fields and descriptors of every argument. Each is counted by what
# else the header says of it, too, so that another layout loses none in silence.

function row(kind, type, field) {
	printf field ? "%s(%s, %s)\n" : "%s(%s)\n", kind, type, field
	rows[kind]++
}

/^#define PEERDMA_[A-Z_]*[\t ].*_IO[WR]*\(/ { wanted["VERB"]++ }
/^ \* @reserved[0-9]*:/ { wanted["RESERVED"]++ }
/^ \* @[a-z_]*_fd:/ && !/@out_/ { wanted["DESCRIPTOR"]++ }

/^\tPEERDMA_NR_[A-Z_]*[\t ]*=/ { row("VERB", substr($1, 12)) }
/^struct peerdma_[a-z_]* {/ { type = $2 }
/^};/ { type = "" }
type && /^\t__[us][0-9]* / || type && /^\t__aligned_u64 / {
	field = $2
	sub(/;.*/, "", field)
	if (field ~ /^reserved/)
		row("RESERVED", type, field)
	else if (field ~ /_fd$/ && field !~ /^out_/)
		row("DESCRIPTOR", type, field)
}
END {
	split("VERB RESERVED DESCRIPTOR", kinds)
	for (i in kinds)
		if (!rows[kinds[i]] || rows[kinds[i]] != wanted[kinds[i]]) {
			printf "uapi_list.awk: %d rows of %s, not %d\n",
				rows[kinds[i]], kinds[i], wanted[kinds[i]] \
				>"/dev/stderr"
			bad = 1
		}
	exit bad
}
