/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extent.h - what a layout says of a range of a file: pieces in order, without gaps, each with a state and,
 * where there is memory, its RMA address and key. Pure; private to libberth.
 */
#ifndef CLIENT_EXTENT_H
#define CLIENT_EXTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum extent_state {
	EXTENT_VALID,     /* data */
	EXTENT_UNWRITTEN, /* zeros to all until COMMIT */
	EXTENT_HOLE,      /* zeros, no memory */
	EXTENT_UNKNOWN,   /* was unwritten or a hole, until somebody else wrote: ask the server */
};
struct extent {
	uint64_t off, len; /* bytes of the file */
	enum extent_state state;
	uint64_t addr, key; /* of the first byte; not of a hole */
};
struct extents {
	uint64_t off, end; /* covered */
	struct extent *e;
	unsigned n, cap;
	bool addressed; /* unwritten extents have memory (read-write) */
};

/* Take over @n extents that a server sent for [off, end). -EPROTO: not in order, a gap, an overlap, empty, or not
 * covering just that. */
int extents_set(struct extents *x, uint64_t off, uint64_t end, bool addressed, const struct extent *e,
                unsigned n);
void extents_free(struct extents *x);
/* The piece of [off, end) that begins at @off: at most as far as the state and the memory are the same. False:
 * @off is outside. */
bool extents_at(const struct extents *x, uint64_t off, uint64_t end, struct extent *piece);
/* All of [off, end) is covered and has memory. *valid: and holds data. */
bool extents_have_memory(const struct extents *x, uint64_t off, uint64_t end, bool *valid);
/* A COMMIT (or WRITE) of [off, end) was answered: whole blocks of @block bytes under it are data now; without memory
 * nothing is known of them. -ENOMEM: nothing has changed. */
int extents_committed(struct extents *x, uint64_t off, uint64_t end, uint64_t block);
/* Others have written: nothing is zeros for certain. */
void extents_doubt(struct extents *x);

#endif
