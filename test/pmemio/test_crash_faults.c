/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_crash_faults.c - the explorer finds what it is for
 *
 * Each fault is a change of the log of a right run: a flush or a fence left out, a store made early
 * or late, as a mistake in pmemio would have it. The log as it was must pass, the changed one must
 * not.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "test/lib/explore.h"
#include "test/lib/log_fault.h"
#include "test/pmemio/crash_ops.h"

static const struct geometry small = { .blocks = 176, .lanes = 2, .lane_blocks = 9 };
static const struct geometry wide = { .blocks = 240, .lanes = 2, .lane_blocks = 33 };

static const struct geometry sums = { .blocks = 177, .lanes = 2, .lane_blocks = 9, .sums = true };

static const struct op file[] = { NEW("x"), W("x", 0, 6000), NEW("y"), { .kind = OP_END } };
static const struct op reserved[] = {
	NEW("x"), ALLOC("x", 0, 6 * B), NEW("y"), { .kind = OP_END }
};
static const struct op scattered[] = { NEW("x"),          W("x", 0, B),      W("x", 2 * B, B),
	                               W("x", 4 * B, B),  W("x", 6 * B, B),  W("x", 8 * B, B),
	                               W("x", 10 * B, B), W("x", 12 * B, B), W("x", 14 * B, B),
	                               { .kind = OP_END } };

struct fault {
	const char *name;
	void (*change)(struct medium *d, size_t from);
	const struct op *before, *ops;
	enum rules rules;
	const struct geometry *g;
	bool whole; /* the opening counts: the run before was killed */
};

static const struct op append[] = { W("x", 6000, 5000), { .kind = OP_END } };
static const struct op part[] = { W("y", 100, 50), W("y", 7000, 50), { .kind = OP_END } };
static const struct op in_reserved[] = { W("x", 0, 3 * B), { .kind = OP_END } };
static const struct op rewrite[] = { W("x", 1000, 2000), { .kind = OP_END } };
static const struct op regrow[] = { SIZE("x", 10), SIZE("x", 6000), { .kind = OP_END } };
static const struct op two[] = { NEW("a"), NEW("b"), { .kind = OP_END } };
static const struct op names[] = { MV("x", "y"), NEW("b"), { .kind = OP_END } };
static const struct op to_tree[] = { W("x", 16 * B, 10), { .kind = OP_END } };
static const struct op first_entry[] = { { .kind = OP_MKDIR, .a = "d" },
	                                 NEW("d/a"),
	                                 { .kind = OP_END } };
static const struct op checkpoints[] = {
	NEW("a"), { .kind = OP_CHECKPOINT }, NEW("b"), { .kind = OP_CHECKPOINT }, { .kind = OP_END }
};
static const struct op checkpoint_sync[] = {
	NEW("a"), { .kind = OP_CHECKPOINT }, NEW("b"), NEW("c"), { .kind = OP_END }
};
static const struct op reuse[] = { RM("x"), W("y", 0, 2 * B), { .kind = OP_END } };
static const struct op unstable[] = { { .kind = OP_UNSTABLE, .a = "x", .off = 0, .len = 50 },
	                              NEW("z"),
	                              { .kind = OP_END } };

static const struct op dirs[] = { { .kind = OP_MKDIR, .a = "d" },
	                          { .kind = OP_MKDIR, .a = "e" },
	                          NEW("d/a"),
	                          NEW("e/b"),
	                          { .kind = OP_END } };
static const struct op made[2] = { NEW("d/n"), NEW("e/n") };
static const struct op gone[2] = { RM("d/a"), NEW("e/n") };
static const struct op moved[2] = { MV("d/a", "d/n"), MV("e/b", "e/n") };
/* By a seed that cuts the two into each other as the fault needs it. */
#define BOTH(what, seed)                                                                           \
	{                                                                                          \
		.kind = OP_BOTH, .two = what, .off = seed                                          \
	}
static const struct op both_made[] = { BOTH(made, 2), { .kind = OP_END } };
static const struct op both_gone[] = { BOTH(gone, 2), { .kind = OP_CHECKPOINT }, { .kind = OP_END } };
static const struct op both_moved[] = { BOTH(moved, 2), { .kind = OP_END } };

static const struct op given_up[] = { MAP(0, "x", 0, 3000), GIVEUP(0), { .kind = OP_END } };
static const struct op two_files[] = { NEW("x"), W("x", 0, 6000), NEW("y"), W("y", 0, 9000), { .kind = OP_END } };
static const struct op together[] = { MAP(0, "x", 100, 200),
	                              MAP(1, "y", 1000, 4099),
	                              { .kind = OP_BOTH, .off = 1 }, /* the later record is stored first */
	                              MAP(0, "x", 6000, 5000),
	                              MAP(1, "y", 9000, 300),
	                              { .kind = OP_BOTH, .off = 5 },
	                              { .kind = OP_END } };

static const struct op batch[] = { MAP(0, "x", 6000, 5000), MAP(1, "y", 9000, 300), MAP(2, "x", 100, 200), BATCH(3), { .kind = OP_END } };

#define FAULT(n, c, b, o, r, geo)                                                                  \
	.name = n, .change = c, .before = b, .ops = o, .rules = r, .g = &geo
static const struct fault faults[] = {
	{ FAULT("records are not flushed", fault_no_record_flush, file, two, RULES_ADR, small) },
	{ FAULT("no fence behind a record", fault_no_record_fence, file, two, RULES_ADR, small) },
	{ FAULT("a record calls durable what is on its way", fault_early_statement, two_files, together, RULES_ADR,
	        wide) },
	{ FAULT("no fence between payload and record", fault_no_fence_before_record, file, append,
	        RULES_ADR, small) },
	{ FAULT("no fence between new nodes and record", fault_no_fence_before_record, scattered, to_tree,
	        RULES_ADR, small) },
	{ FAULT("payload is not flushed", fault_no_payload_flush, file, append, RULES_ADR, small) },
	{ FAULT("payload over old bytes is not flushed", fault_no_payload_flush, file, rewrite, RULES_ADR,
	        small) },
	{ FAULT("the last line of payload is not flushed", fault_half_payload_flush, reserved,
	        in_reserved, RULES_ADR, small) },
	{ FAULT("an extent is written before its payload is flushed", fault_late_payload_flush, reserved,
	        in_reserved, RULES_ADR, small) },
	{ FAULT("payload arrives behind the record", fault_late_payload, file, append, RULES_ADR,
	        small) },
	{ FAULT("blocks written in part are not zeroed", fault_no_zeroing, file, part, RULES_ADR,
	        small) },
	{ FAULT("the end of file moves over old bytes", fault_no_zeroing, file, regrow, RULES_ADR,
	        small) },
	{ FAULT("new nodes are not flushed", fault_no_node_flush, file, first_entry, RULES_ADR, small) },
	{ FAULT("new nodes are stored behind the record", fault_late_nodes, scattered, to_tree, RULES_ADR,
	        small) },
	{ FAULT("changes in place before their record", fault_early_in_place, file, names, RULES_ADR,
	        small) },
	{ FAULT("changes in place are not flushed", fault_no_in_place_flush, file, checkpoints, RULES_ADR,
	        small) },
	{ FAULT("no fence before the journal head", fault_no_fence_before_head, file, checkpoints,
	        RULES_ADR, small) },
	{ FAULT("the journal head moves early", fault_early_head, file, checkpoints, RULES_ADR, small) },
	{ FAULT("the superblock is not flushed", fault_no_super_flush, file, unstable, RULES_ADR,
	        small) },
	{ FAULT("unstable data is not announced", fault_no_super_store, file, unstable, RULES_ADR,
	        small) },
	{ FAULT("blocks are used again before they are free", fault_early_reuse, file, reuse, RULES_ADR,
	        small) },
	{ FAULT("a replay is not flushed", fault_no_in_place_flush, file, two, RULES_ADR, small),
	  .whole = true },
	{ FAULT("the journal is emptied before its replay is durable", fault_no_fence_before_head, file,
	        two, RULES_ADR, small),
	  .whole = true },
	{ FAULT("two threads: records are not flushed", fault_no_record_flush, dirs, both_moved, RULES_ADR, wide) },
	{ FAULT("two threads: no fence behind a record", fault_no_record_fence, dirs, both_made, RULES_ADR, wide) },
	{ FAULT("two threads: changes in place before their record", fault_early_in_place, dirs, both_made,
	        RULES_ADR, wide) },
	{ FAULT("two threads: applied before what has the lower seq", fault_no_turn, dirs, both_made, RULES_ADR, wide) },
	{ FAULT("two threads: changes in place are not flushed", fault_no_in_place_flush, dirs, both_gone, RULES_ADR,
	        wide) },
	{ FAULT("a batch: no fence between payload and record", fault_no_fence_before_record, two_files, batch, RULES_ADR,
	        wide) },
	{ FAULT("a batch: payload is not flushed", fault_no_payload_flush, two_files, batch, RULES_ADR, wide) },
	{ FAULT("a batch: answered before its record is durable", fault_no_record_fence, two_files, batch, RULES_ADR, wide) },
	{ FAULT("a batch: changes in place before its record", fault_early_in_place, two_files, batch, RULES_ADR, wide) },
	{ FAULT("eADR: a batch: no fence between payload and record", fault_no_fence_before_record, two_files, batch,
	        RULES_EADR, wide) },
	{ FAULT("eADR: no fence behind a record", fault_no_record_fence, file, two, RULES_EADR, small) },
	{ FAULT("eADR: no fence between payload and record", fault_no_fence_before_record, file, append,
	        RULES_EADR, small) },
	{ FAULT("eADR: changes in place before their record", fault_early_in_place, file, names,
	        RULES_EADR, small) },
	{ FAULT("sums: no fence between taking a checksum back and payload", fault_no_first_fence, file,
	        rewrite, RULES_ADR, sums) },
	{ FAULT("sums: payload arrives before the checksum is taken back", fault_early_payload, file,
	        rewrite, RULES_EADR, sums) },
	{ FAULT("sums: payload is not flushed before its checksum", fault_no_payload_flush, file,
	        rewrite, RULES_ADR, sums) },
	{ FAULT("sums: a record counts without its data, over old bytes", fault_untied_data, file, rewrite,
	        RULES_ADR, sums) },
	{ FAULT("sums: a record counts without its data, in new blocks", fault_untied_data, file, append,
	        RULES_ADR, sums) },
	{ FAULT("eADR: sums: a record counts without its data", fault_untied_data, file, rewrite,
	        RULES_EADR, sums) },
	{ FAULT("sums: a write given up gets a checksum before its bytes are durable",
	        fault_no_payload_flush, file, given_up, RULES_ADR, sums) },
	{ FAULT("msync: payload is not synced", fault_no_data_sync, file, append, RULES_PAGES, wide) },
	{ FAULT("msync: records are not synced", fault_no_record_sync, file, two, RULES_PAGES, wide) },
	{ FAULT("msync: changes in place before their record", fault_early_in_place, file, names,
	        RULES_PAGES, wide) },
	{ FAULT("msync: nothing synced before the journal head", fault_no_whole_sync, file,
	        checkpoint_sync, RULES_PAGES, wide) },
	{ FAULT("msync: a replay is not synced", fault_no_whole_sync, file, two, RULES_PAGES, wide),
	  .whole = true },
};
#define NFAULTS (sizeof(faults) / sizeof(faults[0]))

/* --- looking for them ------------------------------------------------------------------------ */

static enum pm_method method_of(enum rules r)
{
	return r == RULES_PAGES ? PM_MSYNC : r == RULES_EADR ? PM_FENCE : PM_CLWB;
}

static struct world *record_run(const struct fault *f, struct world **base, size_t *from)
{
	size_t len = (size_t)f->g->blocks * B;
	uint8_t *image = medium_image(f->g);
	struct world *w;

	*base = world_new(image, len, method_of(f->rules), NULL);
	cr_assert(world_run(*base, f->before), "%s: %s", f->name, (*base)->why);
	if (f->whole)
		world_kill(*base);
	else
		cr_assert(world_close(*base), "%s: %s", f->name, (*base)->why);
	w = world_new((*base)->d->m.base, len, method_of(f->rules), *base);
	*from = f->whole ? 0 : w->d->nev;
	cr_assert(world_run(w, f->ops), "%s: %s", f->name, w->why);
	world_kill(w);
	free(image);
	return w;
}

/* How many states it took to find; 0: not found. */
static uint64_t hunt(const struct fault *f)
{
	struct explore x = { .rules = f->rules, .seed = 1 };
	struct world *base, *w;
	uint64_t states = 0;
	size_t from;

	w = record_run(f, &base, &from);
	explore_deepen(&x, 1, false);
	cr_assert(explore(&x, w, from), "%s: without the fault: %s", f->name, x.why);
	explore_free(&x);
	x.states = 0;
	f->change(w->d, from);
	for (unsigned pass = 0; pass < 6 && !states; pass++) {
		explore_deepen(&x, pass, false);
		x.seed++;
		if (!explore(&x, w, from))
			states = x.states;
	}
	if (getenv("BERTH_TEST_LOG"))
		explore_note("fault: %s: %llu states: %s\n", f->name, (unsigned long long)states,
		             x.why);
	explore_free(&x);
	world_free(w);
	world_free(base);
	return states;
}

Test(crash_faults, are_all_found)
{
	uint64_t all = 0;
	unsigned found = 0;

	for (unsigned i = 0; i < NFAULTS; i++) {
		uint64_t n = hunt(&faults[i]);

		found += n > 0;
		all += n;
		cr_expect_gt(n, 0, "not found: %s", faults[i].name);
	}
	explore_note("crash faults: %u of %u found, in %llu states\n", found, (unsigned)NFAULTS,
	             (unsigned long long)all);
}

/* --- what is no fault ------------------------------------------------------------------------ */

/*
 * The header of a lane says what has been made durable in place; so does the first record of the lane
 * filled after it, for a lane is begun behind a checkpoint only (J3). A header that was never written, or
 * is the older one again, costs nothing therefore: while no record follows, replaying the lanes once more
 * makes the changes that are there already (what their blocks have been used for since, no record tells
 * of); and a record that follows tells. All lanes are gone round here, so that the oldest records are
 * overwritten and replay cannot begin with them.
 */
static void headless(enum rules rules, const struct geometry *g)
{
	static const struct op round[] = {
		NEW("a"),
		W("a", 0, 5000),
		{ .kind = OP_CHECKPOINT },
		NEW("b"),
		RM("y"),
		{ .kind = OP_CHECKPOINT },
		W("a", 100, 9000),
		NEW("c"),
		{ .kind = OP_CHECKPOINT },
		MV("c", "d"),
		RM("a"),
		W("b", 0, 3 * B),
		{ .kind = OP_END },
	};
	const struct fault f = { .before = file, .ops = round, .rules = rules, .g = g };
	struct explore x = { .rules = rules, .seed = 1 };
	unsigned heads = 0;
	struct world *base, *w;
	size_t from;

	w = record_run(&f, &base, &from);
	for (size_t i = from; i < w->d->nev; i++)
		heads += w->d->ev[i].kind == EV_STORE && w->d->ev[i].where == AT_HEAD;
	cr_assert_geq(heads, g->lanes + 1, "only %u checkpoints", heads);
	fault_no_head(w->d, from);
	for (unsigned pass = 0; pass < 3; pass++) {
		explore_deepen(&x, pass, false);
		x.seed++;
		cr_assert(explore(&x, w, from), "%s", x.why);
	}
	explore_note("no journal heads: %llu states are right\n", (unsigned long long)x.states);
	cr_assert_gt(x.states, 100);
	explore_free(&x);
	world_free(w);
	world_free(base);
}

Test(crash_faults, a_journal_head_that_does_not_move_is_none)
{
	headless(RULES_ADR, &small);
}

Test(crash_faults, a_journal_head_that_does_not_move_is_none_with_msync)
{
	headless(RULES_PAGES, &wide);
}
