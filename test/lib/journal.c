/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/journal.h"
#include "test/pmemio/crash_ops.h"

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "recorded journal: %s\n", what);
	abort();
}

const struct geometry journal_pool = { .blocks = 240, .lanes = 2, .lane_blocks = 33 };

static const struct op before[] = { NEW("x"), W("x", 0, 6000), NEW("y"), W("y", 0, 9000), { .kind = OP_END } };
const struct op journal_serial[] = {
	NEW("a"),           W("a", 0, 5000),  { .kind = OP_CHECKPOINT },
	W("x", 100, 9000),  MV("y", "z"),     W("a", 4000, 3 * B),
	{ .kind = OP_MKDIR, .a = "d" },       NEW("d/b"),
	W("x", 0, 10),      SIZE("x", 5000),  LN("x", "d/x2"),
	W("d/b", 3 * B, B), RM("a"),          { .kind = OP_CHMOD, .a = "d", .off = 0700 },
	W("x", 5, 10),      W("x", 15, 10),   { .kind = OP_END }
};
/* The lane has older records behind those that count. */
const struct op journal_around[] = {
	W("x", 0, 5000), W("x", 0, 5001), W("x", 0, 5002), NEW("a"), NEW("b"), NEW("c"), W("a", 0, 10),
	W("b", 0, 10), W("c", 0, 10), RM("b"), W("x", 0, 5003), { .kind = OP_CHECKPOINT },
	W("x", 0, 5004), { .kind = OP_CHECKPOINT },
	W("x", 0, 5005), MV("a", "d"), RM("c"), NEW("e"), W("e", 0, 5000), W("x", 0, 5006), NEW("f"), { .kind = OP_END }
};
const struct op journal_together[] = { MAP(0, "x", 6000, 5000),
	                              MAP(1, "y", 9000, 300),
	                              { .kind = OP_BOTH, .off = 1 },
	                              MAP(0, "x", 100, 200),
	                              MAP(1, "y", 5, 20),
	                              { .kind = OP_BOTH, .off = 2 },
	                              { .kind = OP_CHMOD, .a = "y", .off = 0600 },
	                              MAP(0, "x", 5 * B + 5, 100),
	                              MAP(1, "y", 20000, 9000),
	                              { .kind = OP_BOTH, .off = 5 },
	                              MAP(0, "x", 10, 20),
	                              MAP(1, "y", 30, 20),
	                              { .kind = OP_BOTH, .off = 6 },
	                              { .kind = OP_END } };

const struct op journal_apart[] = { NEW("a"),
	                            W("a", 0, 5000),
	                            { .kind = OP_CHECKPOINT },
	                            NEW("b"),
	                            W("b", 0, 5000),
	                            MV("y", "z"),
	                            { .kind = OP_MKDIR, .a = "d" },
	                            NEW("d/b"),
	                            W("d/b", 3 * B, B),
	                            LN("x", "d/x2"),
	                            SIZE("x", 9000),
	                            { .kind = OP_CHMOD, .a = "d", .off = 0700 },
	                            W("a", 2 * B, B),
	                            NEW("e"),
	                            RM("e"),
	                            W("b", 3 * B, 100),
	                            MV("b", "d/c"),
	                            { .kind = OP_END } };

static int by_seq(const void *a, const void *b)
{
	uint64_t x = ((const struct journal_record *)a)->seq, y = ((const struct journal_record *)b)->seq;

	return x < y ? -1 : x > y;
}

/* Two threads do not store theirs in turn. */
static void find_records(struct journal_run *s)
{
	const struct medium *d = s->w->d;
	uint32_t answered = 0, begun = 0;
	struct pm_super sb;

	memcpy(&sb, d->m.base, sizeof(sb));
	for (unsigned i = 0; i < d->nev; i++) {
		const struct ev *e = &d->ev[i];
		struct pm_rec *r; /* a copy: the log aligns nothing */

		if (e->kind == EV_WINDOW) {
			answered = e->at;
			begun = e->len;
		}
		if (e->kind != EV_STORE)
			continue;
		if (e->where == AT_HEAD)
			s->n = 0;
		if (e->where != AT_RECORD)
			continue;
		must(s->n < JOURNAL_RECORDS, "too many records");
		r = malloc(e->len);
		must(r, "no memory");
		memcpy(r, d->bytes + e->bytes, e->len);
		must(r->magic == PM_REC_MAGIC && r->len == e->len && r->crc == rec_crc(rec_seed(&sb), r),
		     "a record is none");
		s->rec[s->n++] = (struct journal_record){ r->seq, r->seq - 1 - r->unsure, e->at, e->len, answered, begun };
		free(r);
	}
	qsort(s->rec, s->n, sizeof(s->rec[0]), by_seq);
}

struct journal_run journal_run(const char *name, enum pm_method method, const struct op *ops)
{
	struct journal_run s = { .name = name, .ops = ops, .method = method, .len = (size_t)journal_pool.blocks * B };
	uint8_t *empty = medium_image(&journal_pool);

	s.base = world_new(empty, s.len, method, NULL);
	must(world_run(s.base, before), s.base->why);
	must(world_close(s.base), s.base->why);
	s.w = world_new(s.base->d->m.base, s.len, method, s.base);
	must(world_run(s.w, ops), s.w->why);
	must(ops != journal_together || s.w->switches > 1, "the threads did not take turns");
	world_kill(s.w);
	s.killed = malloc(s.len);
	must(s.killed, "no memory");
	memcpy(s.killed, s.w->d->m.base, s.len);
	s.unapplied = medium_not_in_place(s.w->d, AT_HEAD);
	s.newest = medium_not_in_place(s.w->d, AT_RECORD);
	must(memcmp(s.killed, s.unapplied, s.len), "everything is in place");
	find_records(&s);
	must(s.n > 6, "few records");
	free(empty);
	return s;
}

void journal_run_free(struct journal_run *s)
{
	world_free(s->w);
	world_free(s->base);
	free(s->killed);
	free(s->unapplied);
	free(s->newest);
}

bool journal_run_matches(const struct journal_run *s, struct pm_store *st, unsigned state, char why[300])
{
	uint64_t sum;

	return state_matches(st, s->w->state[state], &sum, why, 300);
}
