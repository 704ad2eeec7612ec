/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pair.h - two threads in a store on recording media, one moving at a time
 *
 * At every store, flush and fence it is decided anew, by a seed, which of the two goes on; so transactions of
 * both are cut into each other in every way, and the same way each time. A thread whose record is fenced while
 * one of lower seq is not has to wait for that inside the store; the pair sees to it that it does. A thread that
 * meets a lock of the other's gives its turn away until it has it.
 */
#ifndef TEST_LIB_PAIR_H
#define TEST_LIB_PAIR_H

#include "test/lib/medium.h"

struct pair_side {
	void (*come)(void *arg); /* first, beside the other's: no store, flush or fence */
	void (*run)(void *arg);
	void *arg;
	/* filled in */
	pthread_t th;
	bool live, waits; /* in the store, for the other's record */
	bool blocked;     /* by what the other holds */
	bool stored, fenced; /* its record */
	uint64_t seq;        /* of that; 0: none */
};
struct pair {
	struct medium *d;
	struct pair_side side[2];
	uint64_t seed;
	/* Logged when a side is through: medium_window(d, answered + its rank, answered + 2). */
	unsigned answered;
	/* filled in */
	unsigned switches, blocks; /* how often one met a lock of the other's */
	const char *why; /* of a failure; NULL */
	pthread_mutex_t lock;
	pthread_cond_t moved;
	pthread_barrier_t step;
	unsigned turn;
};
/* Both sides, to their ends. The first in the journal's order: 0 or 1. p->why: it went wrong. */
unsigned pair_run(struct pair *p);

#endif
