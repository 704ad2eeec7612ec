/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * explore.h - every state that a power failure can leave of a recorded run
 *
 * The log is walked from its start. Behind each line stored, states are built of what is durable
 * and any subset of what is not (units: cache lines, or pages with PM_MSYNC), each unit at any of
 * the contents it had; the unit stored last torn at 8 bytes as well. All of them where they are
 * few, a sample where not. Each state is mounted, compared with what the model allows at that
 * moment, and checked; some are mounted with their recovery recorded, and that is explored in turn:
 * it must lead to the same tree.
 */
#ifndef TEST_LIB_EXPLORE_H
#define TEST_LIB_EXPLORE_H

#include "test/lib/model.h"

enum rules { RULES_ADR, RULES_EADR, RULES_PAGES };

struct explore {
	enum rules rules;
	unsigned exhaust; /* all subsets if there are at most so many */
	unsigned samples; /* else so many */
	unsigned points;  /* of one long store that are looked at */
	unsigned sparse;  /* one in so many events is looked at; 0, 1: every one */
	unsigned nested;  /* one in so many states has its recovery explored; 0: none */
	double until;     /* explore_now() at which to stop; 0: no limit */
	uint64_t seed;
	/* filled in */
	uint64_t states;  /* distinct ones mounted, those of recoveries included */
	uint64_t checked; /* questions asked, repeated ones included */
	struct seen *seen;
	char why[1400];
};
/* True: every state was right. False: x->why. Only what was logged from event @from on is explored.
 */
bool explore(struct explore *x, const struct world *w, size_t from);

/* What is done with each state, where no model knows what it must hold. */
struct trial {
	/* False: something is wrong with the state, and *why says what. @lot: random bits, to choose between ways. */
	bool (*judge)(void *arg, struct medium *d, uint64_t lot, char *why, size_t size);
	/* Done once more on a medium that records it; that is explored in turn, and each state judged. */
	void (*again)(void *arg, struct medium *d);
	void *arg;
};
/* As explore, of a log that is no world's. */
bool explore_trial(struct explore *x, const struct medium *log, const struct trial *t);
/* Set how closely to look: pass 0 is a glance, 7 takes long. */
void explore_deepen(struct explore *x, unsigned pass, bool sparse);
void explore_free(struct explore *x);
/* Some work, as of a server that goes on: a file made, written to and removed. */
int explore_go_on(struct medium *d, struct pm_store *st);
double explore_now(void);
/* A line for whoever runs the tests, also of a test that passes. */
void explore_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
