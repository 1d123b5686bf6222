# SPDX-License-Identifier: MIT
# What include/uapi/peerdma.h has, for tests/main/uapi_sweep.c: every ioctl, and
# the reserved fields and descriptors of every argument.

/^\tPEERDMA_NR_[A-Z_]*[\t ]*=/ { printf "VERB(%s)\n", substr($1, 12) }
/^struct peerdma_[a-z_]* {/ { type = $2 }
/^};/ { type = "" }
type && /^\t__[us][0-9]* / || type && /^\t__aligned_u64 / {
	field = $2
	sub(/;.*/, "", field)
	if (field ~ /^reserved/)
		printf "RESERVED(%s, %s)\n", type, field
	else if (field ~ /_fd$/ && field !~ /^out_/)
		printf "DESCRIPTOR(%s, %s)\n", type, field
}
