/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wreck.h - a small pool with something of everything, damaged in one way of many
 *
 * For whoever repairs it: what it holds is written down as text, so that two repairs can be compared.
 */
#ifndef TEST_LIB_WRECK_H
#define TEST_LIB_WRECK_H

#include "test/lib/medium.h"

struct wreck {
	uint8_t *image; /* closed clean, or killed */
	size_t len;
	/* inodes */
	uint64_t dir, sub, crowd, plain, other, sparse, scattered, link, longlink, fifo, limits;
};
/* @killed: the journal is not empty and no free space is stored. @many: so many files that the inode table has a tree. */
void wreck_make(struct wreck *w, unsigned lane_blocks, bool killed, bool many);
void wreck_free(struct wreck *w);

struct damage {
	const char *name;
	void (*hurt)(const struct wreck *w, uint8_t *image);
	unsigned where; /* two go together only if they have no bit in common */
	bool left;    /* has no one right answer: something is left */
	bool unsafe;  /* a mount would make it worse: it is there under a good checksum */
	bool killed;  /* only of a pool that was killed */
};
extern const struct damage wreck_damages[];
extern const unsigned wreck_ndamages;
extern const struct damage wreck_table_damages[]; /* of one with many */
extern const unsigned wreck_table_ndamages;

/* All that the pool holds, but times, and what tells one repair from another (numbers of boots). @buf ends with NUL. */
void wreck_holds(struct pm_store *st, char *buf, size_t size);

#endif
