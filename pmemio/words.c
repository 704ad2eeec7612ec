/* SPDX-License-Identifier: BSD-3-Clause */
/* words.c - locks of words of the table of checksums */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/words.h"

struct word_lock { /* a line each: threads at different words share none */
	struct pm_lock lock;
} __attribute__((aligned(64)));

int words_open(struct pm_store *st)
{
	struct word_lock *l;

	l = aligned_alloc(_Alignof(struct word_lock), WORD_LOCKS * sizeof(*l));
	if (!l)
		return -ENOMEM;
	memset(l, 0, WORD_LOCKS * sizeof(*l));
	st->words = l;
	return 0;
}

void words_close(struct pm_store *st)
{
	free(st->words);
	st->words = NULL;
}

void words_take(struct pm_store *st, const struct words *w)
{
	for (unsigned i = 0; i < WORD_LOCKS / 64; i++)
		for (uint64_t b = w->lock[i]; b; b &= b - 1)
			lock_await(st, &st->words[64 * i + (unsigned)__builtin_ctzll(b)].lock);
}

void words_drop(struct pm_store *st, struct words *w)
{
	for (unsigned i = 0; i < WORD_LOCKS / 64; i++) {
		for (uint64_t b = w->lock[i]; b; b &= b - 1)
			lock_drop(&st->words[64 * i + (unsigned)__builtin_ctzll(b)].lock);
		w->lock[i] = 0;
	}
}
