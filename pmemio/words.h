/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * words.h - words of the table of checksums, which blocks of two files may share; private to pmemio
 *
 * An entry of the table has 4 bytes and is looked at and changed by whoever has its block (worker.h, L2). In place
 * nothing else is stored with it. A range of a record has words of 8 bytes, so where it says one entry of a word it
 * also says the other one, of the block beside, which may be somebody else's:
 *
 * W1  What a record says of an entry that is not its own is what the entry is in front of it, in the order of seq. So who
 *     changes one entry of a word alone keeps the lock of the word from looking at the other one until its own is in
 *     place; the seq is claimed in between.
 * W2  A transaction takes all its locks at once, in their order, before it claims a seq, and nobody who has claimed one
 *     waits for such a lock. So they are waited for.
 *
 * Whoever is alone, or the only one that may be inside (L5), takes none.
 */
#ifndef PMEMIO_WORDS_H
#define PMEMIO_WORDS_H

#include "pmemio/worker.h"

#define SUM_LINE   256u /* bytes of the table that are edited as one: a bit for each of 64 entries */
#define WORD_LOCKS 128u

struct words { /* a set of locks */
	uint64_t lock[WORD_LOCKS / 64];
};

int words_open(struct pm_store *st);
void words_close(struct pm_store *st);
void words_take(struct pm_store *st, const struct words *w);
void words_drop(struct pm_store *st, struct words *w); /* and it is empty */

#define LOW_ENTRIES 0x5555555555555555ull

/* Whole words: these entries, and the other ones of their words. */
static inline uint64_t words_of(uint64_t entries)
{
	return ((entries | entries >> 1) & LOW_ENTRIES) * 3;
}

/* The next run of bits from *to on: [*from, *to). False: there is none. */
static inline bool bits_run(uint64_t bits, unsigned *from, unsigned *to)
{
	uint64_t left = *to < 64 ? bits >> *to : 0;

	if (!left)
		return false;
	*from = *to + (unsigned)__builtin_ctzll(left);
	left = ~(bits >> *from);
	*to = left ? *from + (unsigned)__builtin_ctzll(left) : 64;
	return true;
}

/* To @w: the words of the line at @line of which only one entry is among @entries. */
static inline void words_note(struct words *w, const uint8_t *line, uint64_t entries)
{
	uint64_t others = words_of(entries) & ~entries;

	for (; others; others &= others - 1) {
		uintptr_t word = (uintptr_t)line / 8 + (unsigned)__builtin_ctzll(others) / 2;

		w->lock[word % WORD_LOCKS / 64] |= 1ull << word % 64;
	}
}

#endif
