/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * /dev/t_cover: how often each block of code ran. A block's place is a hash of its
 * address, so it is the same until the modules are loaded again.
 */
#ifndef T_COVER_H
#define T_COVER_H

#define T_COVER_BITS	16
#define T_COVER_BLOCKS	(1u << T_COVER_BITS)

#endif /* T_COVER_H */
