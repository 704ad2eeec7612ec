/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * journal.h - runs that were recorded and killed, and what their journal holds
 *
 * Of each there are images: as the kill left it, with everything in place; and with nothing in place that records tell of,
 * so that all hangs from the journal. A failure here is not what a test is about: it prints why and aborts.
 */
#ifndef TEST_LIB_JOURNAL_H
#define TEST_LIB_JOURNAL_H

#include "test/lib/model.h"

#define JOURNAL_RECORDS 200u

struct journal_record {
	uint64_t seq, vouched; /* what the record says was durable */
	uint32_t at, len;
	uint32_t answered, begun; /* steps, when it was stored */
};
struct journal_run {
	const char *name;
	const struct op *ops;
	enum pm_method method;
	struct world *base, *w;
	size_t len;
	uint8_t *killed, *unapplied, *newest; /* newest: the last record is not in place, as power may leave it */
	struct journal_record rec[JOURNAL_RECORDS]; /* behind the last checkpoint, in the order of seq */
	unsigned n;
};
/* Of one thread; with older records behind those that count; of two threads; of one that stores no data over other. */
extern const struct op journal_serial[], journal_around[], journal_together[], journal_apart[];
extern const struct geometry journal_pool;

struct journal_run journal_run(const char *name, enum pm_method method, const struct op *ops);
void journal_run_free(struct journal_run *r);
bool journal_run_matches(const struct journal_run *r, struct pm_store *st, unsigned state, char why[300]);

#endif
