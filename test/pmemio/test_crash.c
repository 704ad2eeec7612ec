/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_crash.c - the power fails at every point of many short runs
 *
 * Each run is recorded and its log explored (test/lib/explore.h). Every run is explored once with
 * few samples; then again and again with more, and other seeds, as long as there is time:
 * BERTH_CRASH_SECONDS for all tests of this file together (make check-crash SECONDS=n).
 * BERTH_CRASH_SEED repeats a run.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "test/lib/explore.h"
#include "test/pmemio/crash_ops.h"

static const struct geometry small = { .blocks = 176, .lanes = 2, .lane_blocks = 9 };
static const struct geometry wide = { .blocks = 240, .lanes = 2, .lane_blocks = 33 };

/* --- runs ------------------------------------------------------------------------------------ */

struct plan {
	const char *name;
	const struct op *before; /* up to a clean close */
	const struct op *ops;
};
struct campaign {
	const char *name;
	const struct geometry *g;
	enum pm_method method;
	enum rules rules;
	double share; /* of the time */
	bool refused; /* some step must be, for lack of space */
	bool whole;   /* from the opening of the pool on */
	bool sparse;  /* long runs: look here and there first */
	bool kill;    /* between @before and @ops instead of a clean close */
	bool lost;    /* then nothing of it is in place, all hangs from its records */
	bool old;     /* and of format version 1 */
	bool shared;  /* commits must have shared a transaction */
	bool both;    /* two threads must have taken turns, and never waited for what the other holds */
	unsigned *met; /* counts how often one waited */
};

static const struct op none[] = { { .kind = OP_END } };

static double seconds(void)
{
	const char *s = getenv("BERTH_CRASH_SECONDS");

	return s ? atof(s) : 45;
}

static uint64_t first_seed(void)
{
	const char *s = getenv("BERTH_CRASH_SEED");

	return s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 1000;
}

static uint8_t *image_of(const struct campaign *c, const struct world *w)
{
	uint8_t *p;

	if (c->lost)
		return medium_not_in_place(w->d, AT_HEAD);
	p = malloc(w->d->m.len);
	memcpy(p, w->d->m.base, w->d->m.len);
	return p;
}

static struct world *prepare(const struct campaign *c, const struct plan *p, uint8_t **image)
{
	uint8_t *empty = medium_image(c->g);
	struct world *w = world_new(empty, (size_t)c->g->blocks * B, c->method, NULL);

	cr_assert(world_run(w, p->before), "%s, before: %s", p->name, w->why);
	cr_assert_eq(w->refused, 0, "%s, before: no space", p->name);
	if (c->kill)
		world_kill(w);
	else
		cr_assert(world_close(w), "%s: %s", p->name, w->why);
	*image = image_of(c, w);
	if (c->old)
		image_of_version_1(*image);
	free(empty);
	return w;
}

static void one_plan(const struct campaign *c, const struct plan *p, struct explore *x,
                     struct world *base, const uint8_t *image)
{
	struct world *w = world_new(image, (size_t)c->g->blocks * B, c->method, base);
	size_t from = c->whole ? 0 : w->d->nev;

	cr_assert(world_run(w, p->ops), "%s: %s", p->name, w->why);
	cr_assert_eq(c->refused, w->refused > 0, "%s: %u steps found no space", p->name,
	             w->refused);
	if (c->shared)
		cr_assert_gt(w->shared, 0, "%s: each commit had a transaction of its own", p->name);
	if (c->both)
		cr_assert_gt(w->switches, 1, "%s: no thread got between the other's steps", p->name);
	if (c->met)
		*c->met += w->blocks;
	if (c->both)
		cr_assert_eq(w->blocks, 0, "%s: one waited for what the other holds", p->name);
	if (c->whole)
		cr_assert(world_close(w), "%s: %s", p->name, w->why);
	else
		world_kill(w);
	cr_assert(explore(x, w, from), "%s, %s: %s", c->name, p->name, x->why);
	world_free(w);
}

/* All plans; those with the same @before stand together. */
static void run(const struct campaign *c, const struct plan *plan, unsigned n)
{
	double start = explore_now();
	struct explore x = { .rules = c->rules,
		             .until = start + seconds() * c->share,
		             .seed = first_seed() };
	uint64_t seed = x.seed + 1, had = 0;
	const struct op *before = NULL;
	struct world *base = NULL;
	uint8_t *image = NULL;
	unsigned pass, done = 0;

	for (pass = 0; pass == 0 || explore_now() < x.until; pass++) {
		explore_deepen(&x, pass, c->sparse);
		x.seed++;
		for (unsigned i = 0; i < n && (pass == 0 || explore_now() < x.until); i++) {
			const struct plan *p = &plan[(i + seed) % n];

			if (!base || p->before != before) {
				if (base)
					world_free(base);
				free(image);
				base = prepare(c, p, &image);
				before = p->before;
			}
			one_plan(c, p, &x, base, image);
			done++;
		}
		if (pass > 8 && x.states == had) /* nothing new to be had */
			break;
		had = x.states;
	}
	explore_note("crash states, %s: %llu distinct of %llu in %.1f s, %u runs (%u planned), "
	             "seed %llu\n",
	             c->name, (unsigned long long)x.states, (unsigned long long)x.checked,
	             explore_now() - start, done, n, (unsigned long long)seed);
	cr_expect_gt(x.states, 0);
	if (base)
		world_free(base);
	free(image);
	explore_free(&x);
}

/* --- names ----------------------------------------------------------------------------------- */

static const struct op tree[] = { { .kind = OP_MKDIR, .a = "d" },
	                          NEW("d/a"),
	                          W("d/a", 0, 5000),
	                          NEW("b"),
	                          W("b", 0, 3000),
	                          { .kind = OP_MKDIR, .a = "e" },
	                          { .kind = OP_SYMLINK, .a = "s" },
	                          { .kind = OP_LONGLINK, .a = "long" },
	                          LN("b", "d/b2"),
	                          NEW("f"),
	                          { .kind = OP_MKDIR, .a = "d/sub" },
	                          { .kind = OP_END } };

static const struct op name_ops[] = {
	NEW("n1"),
	NEW("d/n2"),
	{ .kind = OP_MKDIR, .a = "n1" },
	{ .kind = OP_MKDIR, .a = "e/in" },
	{ .kind = OP_SYMLINK, .a = "d/n3" },
	{ .kind = OP_LONGLINK, .a = "n4" },
	{ .kind = OP_MKNOD, .a = "e/n5" },
	LN("d/a", "e/a2"),
	RM("b"),
	RM("d/a"),
	RM("long"),
	RM("s"),
	{ .kind = OP_RMDIR, .a = "e" },
	{ .kind = OP_RMDIR, .a = "d/sub" },
	MV("b", "moved"),
	MV("d/a", "f"),
	MV("d/b2", "d/a"),
	MV("d/sub", "e/sub"),
	MV("e", "d/sub"),
	MV("d", "e"),
	{ .kind = OP_CHMOD, .a = "b", .off = 0600 },
	SIZE("d/a", 100),
	SIZE("b", 9000),
	W("f", 100, 300),
};
#define NOPS (sizeof(name_ops) / sizeof(name_ops[0]))

/* Each alone is the first half of each pair. */
static void name_pairs(const struct campaign *c, bool nowait, unsigned stride)
{
	struct plan *plan = calloc(NOPS * NOPS, sizeof(*plan));
	struct op *ops = calloc(NOPS * NOPS, 3 * sizeof(*ops));
	char *names = calloc(NOPS * NOPS, 24);
	unsigned n = 0;

	for (unsigned i = 0; i < NOPS * NOPS; i += stride) {
		struct op *o = &ops[3 * n];

		o[0] = name_ops[i / NOPS];
		o[1] = name_ops[i % NOPS];
		o[0].nowait = nowait && o[0].kind != OP_WRITE;
		snprintf(names + (size_t)24 * n, 24, "pair %u %u", (unsigned)(i / NOPS),
		         (unsigned)(i % NOPS));
		plan[n] = (struct plan){ names + (size_t)24 * n, tree, o };
		n++;
	}
	run(c, plan, n);
	free(plan);
	free(ops);
	free(names);
}

Test(crash, names_in_pairs)
{
	struct campaign c = { "names, clwb", &small, PM_CLWB, RULES_ADR, .share = .14 };

	name_pairs(&c, false, 1);
}

Test(crash, names_in_pairs_with_caches_in_the_domain)
{
	struct campaign c = { "names, fence", &small, PM_FENCE, RULES_EADR, .share = .05 };

	name_pairs(&c, false, 5);
}

Test(crash, names_in_pairs_with_msync)
{
	struct campaign c = { "names, msync", &wide, PM_MSYNC, RULES_PAGES, .share = .06 };

	name_pairs(&c, true, 7);
}

/* --- bytes ----------------------------------------------------------------------------------- */

static const struct op file[] = { NEW("x"), W("x", 0, 6000), NEW("y"), { .kind = OP_END } };
static const struct op holes[] = { NEW("x"),           W("x", 2 * B, B), W("x", 4 * B, B + 100),
	                           W("x", 8 * B, 100), NEW("y"),         { .kind = OP_END } };
static const struct op reserved[] = {
	NEW("x"), ALLOC("x", 0, 6 * B), SIZE("x", 3 * B), NEW("y"), { .kind = OP_END }
};
static const struct op scattered[] = { NEW("x"),          W("x", 0, B),      W("x", 2 * B, B),
	                               W("x", 4 * B, B),  W("x", 6 * B, B),  W("x", 8 * B, B),
	                               W("x", 10 * B, B), W("x", 12 * B, B), W("x", 14 * B, B),
	                               NEW("y"),          { .kind = OP_END } };

static const struct plan byte_plans[] = {
	{ "append", file, OPS(W("x", 6000, 5000), W("x", 11000, 100)) },
	{ "overwrite", file, OPS(W("x", 100, 200), W("x", 1001, 4099)) },
	{ "overwrite and grow", file, OPS(W("x", 4000, 6000)) },
	{ "behind a gap", file, OPS(W("x", 3 * B + 5, 100), W("x", 7000, 300)) },
	{ "grow and shrink", file, OPS(SIZE("x", 20000), SIZE("x", 5000), SIZE("x", 7000)) },
	{ "shrink, then write", file, OPS(SIZE("x", 10), W("x", 2000, 100), SIZE("x", 6000)) },
	{ "to nothing and anew", file, OPS(SIZE("x", 0), W("x", 0, 9000), SIZE("x", 1)) },
	{ "into a hole", holes, OPS(W("x", 0, B), W("x", 3 * B, B)) },
	{ "into part of a hole", holes, OPS(W("x", 100, 50), W("x", 3 * B + 4000, 200)) },
	{ "over holes and blocks", holes, OPS(W("x", 1 * B + 7, 5 * B)) },
	{ "shrink over holes", holes, OPS(SIZE("x", 4 * B + 50), W("x", 4 * B + 60, 10)) },
	{ "into reserved", reserved, OPS(W("x", 0, B), W("x", B + 10, 10)) },
	{ "over reserved and behind", reserved, OPS(W("x", 2 * B + 100, 6 * B)) },
	{ "reserve, write", file, OPS(ALLOC("x", 0, 5 * B), W("x", 3 * B, 2 * B)) },
	{ "reserve, cut", file, OPS(ALLOC("y", 0, 3 * B), SIZE("y", 5000), SIZE("y", 4000)) },
	{ "to a tree of extents", scattered, OPS(W("x", 16 * B, 10), W("x", 20 * B, B)) },
	{ "fill the gaps", scattered, OPS(W("x", B, B), W("x", 3 * B, 100), W("x", 0, 9 * B)) },
	{ "cut scattered", scattered,
	  OPS(W("x", 18 * B, B), SIZE("x", 7 * B), SIZE("x", 0), W("y", 0, 5 * B)) },
	{ "remove, reuse", scattered, OPS(RM("x"), W("y", 0, 12 * B)) },
	{ "remove a tree, reuse", scattered,
	  OPS(W("x", 18 * B, B), RM("x"), W("y", 0, 12 * B), NEW("z"), W("z", 0, 3 * B)) },
	{ "remove, checkpoint, reuse", scattered,
	  OPS(W("x", 18 * B, B), RM("x"), { .kind = OP_CHECKPOINT }, W("y", 0, 12 * B), NEW("z")) },
	{ "checkpoints", file,
	  OPS({ .kind = OP_CHECKPOINT }, W("x", 0, 10), { .kind = OP_CHECKPOINT }, NEW("z"),
	      { .kind = OP_CHECKPOINT }) },
	{ "two writes at once", file,
	  OPS(MAP(0, "x", 0, 100), MAP(1, "x", 1000, 100), COMMIT(1), COMMIT(0)) },
	{ "two writes of a new block", file,
	  OPS(MAP(0, "y", 0, 1000), MAP(1, "y", 1000, 1000), COMMIT(1), COMMIT(0)) },
	{ "given up", file,
	  OPS(MAP(0, "x", 0, 9000), GIVEUP(0), W("x", 6000, 10), SIZE("x", 20000)) },
	{ "cut while pinned", file,
	  OPS(MAP(0, "x", 1000, 9000), SIZE("x", 3000), COMMIT(0), SIZE("x", 9000)) },
	{ "cut behind a pin", file,
	  OPS(MAP(0, "x", 0, 2000), SIZE("x", 3000), COMMIT(0), SIZE("x", 6000)) },
	{ "grown under a pin", file, OPS(MAP(0, "x", 5000, 2500), SIZE("x", 7000), COMMIT(0)) },
	{ "cut while read", file,
	  OPS({ .kind = OP_READPIN, .a = "x", .len = 6000 }, SIZE("x", 0), W("y", 0, 3 * B),
	      { .kind = OP_READOFF }, W("y", 3 * B, 3 * B)) },
	{ "removed while read", file,
	  OPS({ .kind = OP_READPIN, .a = "x", .len = 6000 }, RM("x"), W("y", 0, 3 * B), NEW("z"),
	      { .kind = OP_READOFF }, W("y", 3 * B, 3 * B)) },
	{ "removed while written", file,
	  OPS(MAP(0, "x", 1000, 9000), RM("x"), NEW("x"), COMMIT(0), W("x", 0, B)) },
	{ "replaced while written", file, OPS(MAP(0, "x", 0, 9000), MV("y", "x"), COMMIT(0)) },
	{ "unstable, then stable", file,
	  OPS({ .kind = OP_UNSTABLE, .a = "x", .off = 5000, .len = 5000 },
	      { .kind = OP_UNSTABLE, .a = "x", .off = 0, .len = 50 }, { .kind = OP_SYNC, .a = "x" },
	      W("y", 0, 10)) },
	{ "unstable and removed", file,
	  OPS({ .kind = OP_UNSTABLE, .a = "x", .off = 5000, .len = 5000 }, RM("x"),
	      W("y", 0, 4 * B)) },
	{ "unstable, clean stop", file,
	  OPS({ .kind = OP_UNSTABLE, .a = "y", .off = 10, .len = 50 },
	      { .kind = OP_SYNC, .a = "y" }, { .kind = OP_REOPEN }, W("y", 0, 10)) },
	{ "clean stops", file,
	  OPS(NEW("z"), { .kind = OP_REOPEN }, RM("z"), { .kind = OP_REOPEN }) },
};
#define NBYTES (sizeof(byte_plans) / sizeof(byte_plans[0]))

Test(crash, bytes)
{
	struct campaign c = { "bytes, clwb", &small, PM_CLWB, RULES_ADR, .share = .1 };

	run(&c, byte_plans, NBYTES);
}

Test(crash, bytes_with_caches_in_the_domain)
{
	struct campaign c = { "bytes, fence", &small, PM_FENCE, RULES_EADR, .share = .04 };

	run(&c, byte_plans, NBYTES);
}

Test(crash, bytes_with_msync)
{
	struct campaign c = { "bytes, msync", &wide, PM_MSYNC, RULES_PAGES, .share = .07 };

	run(&c, byte_plans, NBYTES);
}

/* --- commits that end together --------------------------------------------------------------- */

static const struct op three[] = { NEW("x"), W("x", 0, 6000), NEW("y"), W("y", 0, 2 * B), NEW("z"), { .kind = OP_END } };

static const struct plan batch_plans[] = {
	{ "batch, one file grows", file,
	  OPS(MAP(0, "x", 6000, 5000), MAP(1, "x", 11000, 100), MAP(2, "x", 11100, 9000), BATCH(3), W("y", 0, B)) },
	{ "batch, three files", three,
	  OPS(MAP(0, "x", 100, 200), MAP(1, "y", 2 * B, B + 10), MAP(2, "z", 0, 3000), BATCH(3), W("z", 3000, 10)) },
	{ "batch, overwritten in place", three,
	  OPS(MAP(0, "x", 100, 200), MAP(1, "y", 1000, B), MAP(2, "x", 4200, 100), BATCH(3)) },
	{ "batch, parts of a new block", file,
	  OPS(MAP(0, "y", 0, 300), MAP(1, "y", 300, 300), MAP(2, "y", 2000, 5000), BATCH(3), SIZE("y", 9000)) },
	{ "batch, holes", holes,
	  OPS(MAP(0, "x", 0, B), MAP(1, "x", 3 * B + 10, 500), MAP(2, "x", 8 * B + 100, 100), MAP(3, "y", 0, 10), BATCH(4)) },
	{ "batch, reserved blocks", reserved,
	  OPS(MAP(0, "x", 3 * B, 2 * B), MAP(1, "x", B + 10, 10), MAP(2, "y", 0, B), BATCH(3), SIZE("x", 6 * B)) },
	{ "batch, a tree of extents", scattered,
	  OPS(MAP(0, "x", 16 * B, B), MAP(1, "x", 20 * B, 100), MAP(2, "y", 0, B), MAP(3, "x", B, B), BATCH(4)) },
	{ "batch, cut before its end", three,
	  OPS(MAP(0, "x", 1000, 9000), MAP(1, "y", 2 * B, B), MAP(2, "x", 2 * B + 3000, 100), SIZE("x", 3000), BATCH(3),
	      SIZE("x", 9000)) },
	{ "batch, removed before its end", three,
	  OPS(MAP(0, "x", 1000, 9000), MAP(1, "y", 0, B), MAP(2, "z", 0, 100), RM("x"), NEW("x"), BATCH(3), W("x", 0, 4 * B)) },
	{ "batch, given up beside it", file,
	  OPS(MAP(0, "y", 0, 100), MAP(1, "x", 6000, B), MAP(2, "y", 200, B), GIVEUP(2), BATCH(2), SIZE("y", 2 * B)) },
	{ "batch after batch", three,
	  OPS(MAP(0, "x", 6000, B), MAP(1, "y", 2 * B, 10), BATCH(2), MAP(0, "x", 12000, B), MAP(1, "y", 2 * B + 10, B), BATCH(2),
	      RM("x"), W("z", 0, 4 * B)) },
	{ "batch, checkpoints", three,
	  OPS(MAP(0, "x", 0, 10), MAP(1, "z", 0, B), BATCH(2), { .kind = OP_CHECKPOINT }, MAP(0, "x", 10, 10),
	      MAP(1, "y", 100, 10), BATCH(2), { .kind = OP_CHECKPOINT }) },
};
#define NBATCH (sizeof(batch_plans) / sizeof(batch_plans[0]))

Test(crash, batches)
{
	struct campaign c = { "batches, clwb", &small, PM_CLWB, RULES_ADR, .share = .08, .shared = true };

	run(&c, batch_plans, NBATCH);
}

Test(crash, batches_with_caches_in_the_domain)
{
	struct campaign c = { "batches, fence", &small, PM_FENCE, RULES_EADR, .share = .03, .shared = true };

	run(&c, batch_plans, NBATCH);
}

/* --- two threads at once --------------------------------------------------------------------- */

static const struct op two_files[] = { NEW("x"),         W("x", 0, 6000),  NEW("y"),        W("y", 0, 9000),
	                               NEW("z"),         W("z", 0, B),     W("z", 2 * B, B), W("z", 4 * B, B),
	                               W("z", 6 * B, B), W("z", 8 * B, B), W("z", 10 * B, B), W("z", 12 * B, B),
	                               W("z", 14 * B, B), { .kind = OP_END } };

/* What the two write, and where. */
static const struct {
	const char *name, *a, *b;
	unsigned a_off, a_len, b_off, b_len;
} both[] = {
	{ "both overwrite", "x", "y", 100, 200, 1000, 4099 },
	{ "both append", "x", "y", 6000, 5000, 9000, 300 },
	{ "one appends", "x", "y", 6000, 2 * B, 10, 20 },
	{ "one behind a gap", "x", "y", 5 * B + 5, 100, 8999, 2 },
	{ "one makes a tree", "z", "y", 16 * B, B, 9000, 5000 },
	{ "one fills gaps", "z", "x", B, 5 * B, 0, 6000 },
};
#define NBOTH (sizeof(both) / sizeof(both[0]))

/* Twice, with a single step and a checkpoint between and one behind. */
static void both_ops(struct op *o, unsigned i, unsigned seed)
{
	const struct op of[] = {
		MAP(0, both[i].a, both[i].a_off, both[i].a_len),
		MAP(1, both[i].b, both[i].b_off, both[i].b_len),
		{ .kind = OP_BOTH, .off = seed },
		{ .kind = seed % 3 ? OP_CHMOD : OP_CHECKPOINT, .a = seed % 3 ? "y" : NULL, .off = 0600 },
		MAP(0, both[i].b, both[i].b_off + 50, both[i].b_len),
		MAP(1, both[i].a, both[i].a_off + 70, both[i].a_len),
		{ .kind = OP_BOTH, .off = seed + 1000 },
		SIZE("y", 4000),
		{ .kind = OP_END },
	};

	memcpy(o, of, sizeof(of));
}

#define SEEDS 8u

static void in_pairs(const struct campaign *c)
{
	struct plan plan[NBOTH * SEEDS];
	struct op ops[NBOTH * SEEDS][9];
	uint64_t from = first_seed();

	for (unsigned i = 0; i < NBOTH * SEEDS; i++) {
		both_ops(ops[i], i / SEEDS, (unsigned)(from % 100000) + i);
		plan[i] = (struct plan){ both[i / SEEDS].name, two_files, ops[i] };
	}
	run(c, plan, NBOTH * SEEDS);
}

Test(crash, two_threads)
{
	struct campaign c = { "two threads, clwb", &wide, PM_CLWB, RULES_ADR, .share = .14, .both = true };

	in_pairs(&c);
}

/* Unstable writes, and COMMITs of two files, or of one beside a stable write to another. */
#define U(file, at, n)                                                                             \
	{                                                                                          \
		.kind = OP_UNSTABLE, .pin = 1, .a = file, .off = at, .len = n                      \
	}
#define SYNC(file)                                                                                 \
	{                                                                                          \
		.kind = OP_SYNC, .a = file                                                         \
	}
static const struct op sync_both[] = { SYNC("x"), SYNC("y") };
static const struct op sync_and_commit[] = { SYNC("z"), COMMIT(0) };

static const struct {
	const char *name;
	struct op before[5];
} unstables[] = {
	{ "over blocks and behind the end", { U("x", 100, 200), U("y", 9000, 5000), U("z", 10, 20), U("x", 6000, 100) } },
	{ "new files of some pieces", { U("x", 3 * B, B), U("y", 5 * B, B), U("z", 16 * B, 2 * B), U("x", 5 * B, 10) } },
	{ "gaps", { U("z", B, B), U("x", 5000, 5000), U("z", 5 * B, 100), U("y", 0, 50) } },
};
#define NUNSTABLE (sizeof(unstables) / sizeof(unstables[0]))

static void unstable_ops(struct op *o, unsigned i, unsigned seed)
{
	const struct op behind[] = {
		{ .kind = OP_BOTH, .off = seed, .two = sync_both },
		{ .kind = seed % 3 ? OP_CHMOD : OP_CHECKPOINT, .a = seed % 3 ? "y" : NULL, .off = 0600 },
		MAP(0, "y", 8000, 3000),
		U("z", 12 * B, 10),
		{ .kind = OP_BOTH, .off = seed + 1000, .two = sync_and_commit },
		SIZE("y", 4000),
		{ .kind = OP_END },
	};

	for (const struct op *b = unstables[i].before; b->kind != OP_END; b++)
		*o++ = *b;
	memcpy(o, behind, sizeof(behind));
}

Test(crash, two_threads_with_unstable_data)
{
	struct campaign c = {
		"unstable data of two threads, clwb", &wide, PM_CLWB, RULES_ADR, .share = .08, .both = true
	};
	struct plan plan[NUNSTABLE * SEEDS];
	struct op ops[NUNSTABLE * SEEDS][12];
	uint64_t from = first_seed();

	for (unsigned i = 0; i < NUNSTABLE * SEEDS; i++) {
		unstable_ops(ops[i], i / SEEDS, (unsigned)(from % 100000) + i);
		plan[i] = (struct plan){ unstables[i / SEEDS].name, two_files, ops[i] };
	}
	run(&c, plan, NUNSTABLE * SEEDS);
}

/* Names: two changes in directories of their own, or that meet in one, or of which one makes the other impossible. */
static const struct op two_dirs[] = { { .kind = OP_MKDIR, .a = "d" },
	                              { .kind = OP_MKDIR, .a = "e" },
	                              NEW("d/a"),
	                              W("d/a", 0, 5000),
	                              NEW("e/b"),
	                              W("e/b", 0, 3000),
	                              NEW("d/c"),
	                              NEW("e/c"),
	                              { .kind = OP_MKDIR, .a = "d/sub" },
	                              { .kind = OP_END } };

struct two {
	const char *name;
	struct op op[2];
	bool apart; /* neither needs what the other holds */
};
static const struct two twos[] = {
	{ "create, create", { NEW("d/n"), NEW("e/n") }, true },
	{ "create, remove", { NEW("d/n"), RM("e/b") }, true },
	{ "remove, remove", { RM("d/a"), RM("e/b") }, true },
	{ "mkdir, rmdir", { { .kind = OP_MKDIR, .a = "e/n" }, { .kind = OP_RMDIR, .a = "d/sub" } }, true },
	{ "link, symlink", { LN("d/a", "d/a2"), { .kind = OP_SYMLINK, .a = "e/s" } }, true },
	{ "longlink, mknod", { { .kind = OP_LONGLINK, .a = "d/l" }, { .kind = OP_MKNOD, .a = "e/f" } }, true },
	{ "rename, rename", { MV("d/a", "d/z"), MV("e/b", "e/z") }, true },
	{ "rename over, create", { MV("d/a", "d/c"), NEW("e/n") }, true },
	{ "rename over, rename over", { MV("d/a", "d/c"), MV("e/b", "e/c") }, true },
	{ "create, chmod", { NEW("d/n"), { .kind = OP_CHMOD, .a = "e/b", .off = 0600 } }, true },
	{ "create, cut", { NEW("d/n"), SIZE("e/b", 100) }, true },
	{ "two in one directory", { NEW("d/n"), NEW("d/m") }, false },
	{ "in one directory, gone and made", { RM("d/a"), NEW("d/m") }, false },
	{ "the same name", { NEW("d/n"), NEW("d/n") }, false },
	{ "the same file", { RM("d/a"), RM("d/a") }, false },
	{ "away, and removed", { MV("d/a", "d/n"), RM("d/a") }, false },
	{ "into a directory that goes", { NEW("d/sub/n"), { .kind = OP_RMDIR, .a = "d/sub" } }, false },
	{ "to each other's directory", { MV("d/a", "e/a"), MV("e/b", "d/b") }, false },
	{ "a directory moves, a file comes", { MV("d/sub", "e/sub"), NEW("d/n") }, false },
	{ "a link, and its file goes", { LN("d/a", "e/a"), RM("d/a") }, false },
	{ "mode, and its file goes", { { .kind = OP_CHMOD, .a = "d/a", .off = 0600 }, RM("d/a") }, false },
	{ "cut, and removed", { SIZE("d/a", 0), RM("d/a") }, false },
};
#define NTWOS (sizeof(twos) / sizeof(twos[0]))
#define TWO_SEEDS 4u

/* With a single step or a checkpoint between, and something behind. */
static void two_ops(struct op *o, const struct two *t, unsigned seed)
{
	const struct op of[] = {
		{ .kind = OP_BOTH, .off = seed, .two = t->op },
		{ .kind = seed % 3 ? OP_CREATE : OP_CHECKPOINT, .a = seed % 3 ? "e/q" : NULL },
		NEW("d/x"),
		{ .kind = OP_END },
	};

	memcpy(o, of, sizeof(of));
}

static void names_at_once(struct campaign c, bool apart)
{
	struct plan plan[NTWOS * TWO_SEEDS];
	struct op ops[NTWOS * TWO_SEEDS][4];
	uint64_t from = first_seed();
	unsigned n = 0;

	c.both = apart;
	for (unsigned i = 0; i < NTWOS * TWO_SEEDS; i++) {
		if (twos[i / TWO_SEEDS].apart != apart)
			continue;
		two_ops(ops[n], &twos[i / TWO_SEEDS], (unsigned)(from % 100000) + i);
		plan[n] = (struct plan){ twos[i / TWO_SEEDS].name, two_dirs, ops[n] };
		n++;
	}
	run(&c, plan, n);
}

Test(crash, names_by_two_threads)
{
	struct campaign c = { "names by two threads, clwb", &wide, PM_CLWB, RULES_ADR, .share = .1 };

	names_at_once(c, true);
}

Test(crash, names_by_two_threads_that_meet)
{
	struct campaign c = { "names by two threads that meet, clwb", &wide, PM_CLWB, RULES_ADR, .share = .08 };

	unsigned met = 0;

	c.met = &met;
	names_at_once(c, false);
	cr_expect_gt(met, 0, "no thread ever waited for the other");
}

/* --- leases: bytes placed by others, committed in parts ---------------------------------------- */

/* Pin 0 is that of W. */
static const struct plan lease_plans[] = {
	{ "lease, commit", file, OPS(LEASE("y", 0, 3 * B), PUT(1, 0, 2 * B + 100), LCOMMIT(1), LDONE) },
	{ "lease, never committed", file,
	  OPS(LEASE("y", 0, 3 * B), PUT(1, 0, 2 * B), LDONE, W("x", 6000, 5 * B)) },
	{ "lease, append", file, OPS(LEASE("x", 6000, 9000), PUT(1, 6000, 3000), LCOMMIT(1), PUT(1, 9000, 5000), LCOMMIT(1)) },
	{ "lease, in place", file, OPS(LEASE("x", 0, 6000), PUT(1, 50, 5000), LCOMMIT(1)) },
	{ "lease, ranges in one", holes,
	  OPS(LEASE("x", 0, 12 * B), PUT(1, B, 100), PUT(2, 3 * B, B), PUT(3, 10 * B - 20, 40), LCOMMIT_ALL) },
	{ "lease, parts of a block", file,
	  OPS(LEASE("y", 0, B), PUT(1, 0, 300), PUT(2, 2000, 300), LCOMMIT(2), LCOMMIT(1), LDONE) },
	{ "lease, a write beside it", file,
	  OPS(LEASE("y", 0, 2 * B), PUT(1, 0, 300), W("y", 1000, 100), W("y", B, B), LCOMMIT(1), LDONE) },
	{ "lease, a write given up beside it", file,
	  OPS(LEASE("y", 0, 2 * B), PUT(1, 0, 300), MAP(0, "y", B, B), LCOMMIT(1), GIVEUP(0), LDONE, W("x", 0, B)) },
	{ "lease, reserved blocks", reserved,
	  OPS(LEASE("x", 0, 6 * B), PUT(1, B, 2 * B), LCOMMIT(1), LDONE, W("x", 4 * B, 10)) },
	{ "lease, cut", file,
	  OPS(LEASE("x", 0, 5 * B), PUT(1, 6000, 2 * B), LCOMMIT(1), SIZE("x", B + 10), W("y", 0, 4 * B), LDONE,
	      SIZE("x", 3 * B), W("y", 4 * B, 3 * B)) },
	{ "lease, removed", file,
	  OPS(LEASE("x", 0, 5 * B), PUT(1, 0, 3 * B), RM("x"), W("y", 0, 4 * B), LDONE, W("y", 4 * B, 5 * B)) },
	{ "lease, scattered", scattered,
	  OPS(LEASE("x", 0, 17 * B), PUT(1, B, B), PUT(2, 5 * B, B), PUT(3, 16 * B, B), LCOMMIT_ALL, LDONE) },
};
#define NLEASES (sizeof(lease_plans) / sizeof(lease_plans[0]))

Test(crash, leases)
{
	struct campaign c = { "leases, clwb", &small, PM_CLWB, RULES_ADR, .share = .06 };

	run(&c, lease_plans, NLEASES);
}

Test(crash, leases_with_caches_in_the_domain)
{
	struct campaign c = { "leases, fence", &small, PM_FENCE, RULES_EADR, .share = .02 };

	run(&c, lease_plans, NLEASES);
}

Test(crash, leases_with_msync)
{
	struct campaign c = { "leases, msync", &wide, PM_MSYNC, RULES_PAGES, .share = .04 };

	run(&c, lease_plans, NLEASES);
}

/* What a client has put, committed beside a write to another file. */
static const struct op lease_and_commit[2][2] = { { LCOMMIT(1), COMMIT(0) }, { LCOMMIT(2), COMMIT(0) } };

static void lease_ops(struct op *o, unsigned seed)
{
	const struct op of[] = {
		LEASE("x", 0, 5 * B),
		PUT(1, 100, 2 * B),
		MAP(0, "y", 8000, 3000),
		{ .kind = OP_BOTH, .off = seed, .two = lease_and_commit[0] },
		{ .kind = seed % 3 ? OP_CHMOD : OP_CHECKPOINT, .a = seed % 3 ? "y" : NULL, .off = 0600 },
		PUT(2, 3 * B, B + 50),
		MAP(0, "z", 16 * B, B),
		{ .kind = OP_BOTH, .off = seed + 1000, .two = lease_and_commit[1] },
		LDONE,
		W("y", 0, 10),
		{ .kind = OP_END },
	};

	memcpy(o, of, sizeof(of));
}

Test(crash, two_threads_with_a_lease)
{
	struct campaign c = { "a lease beside writes, clwb", &wide, PM_CLWB, RULES_ADR, .share = .04, .both = true };
	struct plan plan[SEEDS];
	struct op ops[SEEDS][11];
	uint64_t from = first_seed();

	for (unsigned i = 0; i < SEEDS; i++) {
		lease_ops(ops[i], (unsigned)(from % 100000) + i);
		plan[i] = (struct plan){ "lease and write", two_files, ops[i] };
	}
	run(&c, plan, SEEDS);
}

/* --- bytes with checksums -------------------------------------------------------------------- */

static const struct geometry small_sums = {
	.blocks = 177, .lanes = 2, .lane_blocks = 9, .sums = true
};
static const struct geometry wide_sums = {
	.blocks = 241, .lanes = 2, .lane_blocks = 33, .sums = true
};

/* Those of byte_plans with no unstable writes, and some that only checksums care about. One write at
 * a time has a block. */
static const struct plan sum_plans[] = {
	{ "append", file, OPS(W("x", 6000, 5000), W("x", 11000, 100)) },
	{ "overwrite", file, OPS(W("x", 100, 200), W("x", 1001, 4099)) },
	{ "overwrite whole blocks", holes, OPS(W("x", 2 * B, B), W("x", 4 * B, 4 * B)) },
	{ "overwrite and grow", file, OPS(W("x", 4000, 6000)) },
	{ "behind a gap", file, OPS(W("x", 3 * B + 5, 100), W("x", 7000, 300)) },
	{ "grow and shrink", file, OPS(SIZE("x", 20000), SIZE("x", 5000), SIZE("x", 7000)) },
	{ "shrink, then write", file, OPS(SIZE("x", 10), W("x", 2000, 100), SIZE("x", 6000)) },
	{ "to nothing and anew", file, OPS(SIZE("x", 0), W("x", 0, 9000), SIZE("x", 1)) },
	{ "into a hole", holes, OPS(W("x", 0, B), W("x", 3 * B, B)) },
	{ "into part of a hole", holes, OPS(W("x", 100, 50), W("x", 3 * B + 4000, 200)) },
	{ "over holes and blocks", holes, OPS(W("x", 1 * B + 7, 5 * B)) },
	{ "shrink over holes", holes, OPS(SIZE("x", 4 * B + 50), W("x", 4 * B + 60, 10)) },
	{ "into reserved", reserved, OPS(W("x", 0, B), W("x", B + 10, 10)) },
	{ "over reserved and behind", reserved, OPS(W("x", 2 * B + 100, 6 * B)) },
	{ "fill the gaps", scattered, OPS(W("x", B, B), W("x", 3 * B, 100), W("x", 0, 9 * B)) },
	{ "overwrite in a tree", scattered,
	  OPS(W("x", 18 * B, B), W("x", 4 * B + 10, 100), W("x", 6 * B, 3 * B)) },
	{ "cut scattered", scattered,
	  OPS(W("x", 18 * B, B), SIZE("x", 7 * B), SIZE("x", 0), W("y", 0, 5 * B)) },
	{ "remove, reuse", scattered, OPS(RM("x"), W("y", 0, 12 * B)) },
	{ "long links", file,
	  OPS({ .kind = OP_LONGLINK, .a = "l" }, RM("x"), RM("l"), W("y", 0, 2 * B)) },
	{ "two writes at once", holes,
	  OPS(MAP(0, "x", 2 * B, B), MAP(1, "x", 4 * B, 100), COMMIT(1), COMMIT(0)) },
	{ "given up", file, OPS(MAP(0, "x", 0, 9000), GIVEUP(0), W("y", 0, 10), SIZE("x", 20000)) },
	{ "given up in a block", file, OPS(MAP(0, "x", 100, 500), GIVEUP(0), W("y", 0, 10)) },
	{ "cut while pinned", file,
	  OPS(MAP(0, "x", 1000, 9000), SIZE("x", 3000), COMMIT(0), SIZE("x", 9000)) },
	{ "cut and grown under a pin", file,
	  OPS(MAP(0, "x", 5000, 3000), SIZE("x", 4500), SIZE("x", 7500), COMMIT(0)) },
	{ "cut behind a pin", file,
	  OPS(MAP(0, "x", 0, 2000), SIZE("x", 3000), COMMIT(0), SIZE("x", 6000)) },
	{ "grown under a pin", file, OPS(MAP(0, "x", 5000, 2500), SIZE("x", 7000), COMMIT(0)) },
	{ "grown over an append", file, OPS(MAP(0, "x", 6000, 1500), SIZE("x", 9000), COMMIT(0)) },
	{ "grown over an append by a write", file,
	  OPS(MAP(1, "x", 6000, 1500), W("x", 3 * B, 100), COMMIT(1)) },
	{ "grown over an append given up", file,
	  OPS(MAP(1, "x", 6000, 1500), W("x", 3 * B, 100), GIVEUP(1), W("y", 0, 10)) },
	{ "cut while read", file,
	  OPS({ .kind = OP_READPIN, .a = "x", .len = 6000 }, SIZE("x", 0), W("y", 0, 3 * B),
	      { .kind = OP_READOFF }, W("y", 3 * B, 3 * B)) },
	{ "overwritten while read", file,
	  OPS({ .kind = OP_READPIN, .a = "x", .len = 6000 }, W("x", 0, 2 * B), W("y", 0, 3 * B),
	      { .kind = OP_READOFF }, W("y", 3 * B, 3 * B)) },
	{ "removed while written", file,
	  OPS(MAP(0, "x", 1000, 9000), RM("x"), NEW("x"), COMMIT(0), W("x", 0, B)) },
	{ "clean stops", file, OPS(W("x", 0, 10), { .kind = OP_REOPEN }, W("x", 5000, 100)) },
};
#define NSUMS (sizeof(sum_plans) / sizeof(sum_plans[0]))

Test(crash, checksums)
{
	struct campaign c = { "checksums, clwb", &small_sums, PM_CLWB, RULES_ADR, .share = .15 };

	run(&c, sum_plans, NSUMS);
}

Test(crash, checksums_with_caches_in_the_domain)
{
	struct campaign c = { "checksums, fence", &small_sums, PM_FENCE, RULES_EADR, .share = .05 };

	run(&c, sum_plans, NSUMS);
}

Test(crash, checksums_with_msync)
{
	struct campaign c = { "checksums, msync", &wide_sums, PM_MSYNC, RULES_PAGES, .share = .1 };

	run(&c, sum_plans, NSUMS);
}

/* The run before was killed in a write. */
static const struct op half[] = {
	NEW("x"), W("x", 0, 6000), NEW("y"), MAP(0, "x", 100, 5000), { .kind = OP_END }
};

static const struct plan sum_recovery_plans[] = {
	{ "overwritten", file, OPS(W("x", 10, 10)) },
	{ "half overwritten", half, OPS(W("x", 10, 10)) },
	{ "half overwritten, then cut", half, OPS(SIZE("x", 5000), SIZE("x", 6000)) },
};

Test(crash, checksums_in_recovery)
{
	struct campaign c = { "checksums, recovery", &small_sums,   PM_CLWB,     RULES_ADR,
		              .share = .02,          .whole = true, .kill = true };

	run(&c, sum_recovery_plans, 3);
}

/* Blocks of two files that alternate, so that each word of the table of checksums belongs to both. */
static const struct op sums_of_two[] = { NEW("x"),         NEW("y"),         W("x", 0, B),     W("y", 0, B),
	                                 W("x", B, B),     W("y", B, B),     W("x", 2 * B, B), W("y", 2 * B, B),
	                                 W("x", 3 * B, B), W("y", 3 * B, B), { .kind = OP_END } };

static const struct {
	const char *name;
	unsigned a_off, a_len, b_off, b_len;
} summed[] = {
	{ "overwrite the same word", B, B, B, B },
	{ "overwrite parts of some words", 100, 2 * B, B + 10, 2 * B },
	{ "one overwrites, one appends", 2 * B, B + 500, 4 * B, B },
	{ "both append", 4 * B, 5000, 4 * B, 3000 },
};
#define NSUMMED (sizeof(summed) / sizeof(summed[0]))

/* The files are mapped one after the other, which takes back old checksums; the commits meet. */
static void summed_ops(struct op *o, unsigned i, unsigned seed)
{
	const struct op of[] = {
		MAP(0, "x", summed[i].a_off, summed[i].a_len),
		MAP(1, "y", summed[i].b_off, summed[i].b_len),
		{ .kind = OP_BOTH, .off = seed },
		{ .kind = seed % 3 ? OP_CHMOD : OP_CHECKPOINT, .a = seed % 3 ? "y" : NULL, .off = 0600 },
		MAP(0, "y", summed[i].b_off, summed[i].b_len),
		MAP(1, "x", summed[i].a_off, summed[i].a_len),
		{ .kind = OP_BOTH, .off = seed + 1000 },
		{ .kind = OP_END },
	};

	memcpy(o, of, sizeof(of));
}

Test(crash, checksums_of_two_threads)
{
	unsigned met = 0;
	struct campaign c = { "checksums of two threads, clwb", &wide_sums, PM_CLWB, RULES_ADR, .share = .1, .met = &met };
	struct plan plan[NSUMMED * SEEDS];
	struct op ops[NSUMMED * SEEDS][8];
	uint64_t from = first_seed();

	for (unsigned i = 0; i < NSUMMED * SEEDS; i++) {
		summed_ops(ops[i], i / SEEDS, (unsigned)(from % 100000) + i);
		plan[i] = (struct plan){ summed[i / SEEDS].name, sums_of_two, ops[i] };
	}
	run(&c, plan, NSUMMED * SEEDS);
	cr_expect_gt(met, 0, "nobody waited for a word of the table");
}

/* --- opening, closing, recovering ------------------------------------------------------------ */

static const struct plan open_plans[] = {
	{ "nothing", none, none },
	{ "one file", none, OPS(NEW("x"), W("x", 0, 100)) },
	{ "a tree", tree, OPS(RM("d/a"), { .kind = OP_REOPEN }, NEW("n")) },
	{ "an orphan", file,
	  OPS({ .kind = OP_READPIN, .a = "x", .len = 6000 }, RM("x"), { .kind = OP_READOFF }) },
};

Test(crash, open_and_close)
{
	struct campaign c = {
		"open, close", &small, PM_CLWB, RULES_ADR, .share = .04, .whole = true
	};

	run(&c, open_plans, 4);
}

Test(crash, open_and_close_with_msync)
{
	struct campaign c = { "open, close, msync", &wide,        PM_MSYNC,
		              RULES_PAGES,          .share = .03, .whole = true };

	run(&c, open_plans, 4);
}

/* The run before ended with a kill: opening replays it all and frees orphans. */
static const struct op orphaned[] = { NEW("x"),
	                              W("x", 0, 9 * B),
	                              NEW("y"),
	                              W("y", 0, B),
	                              { .kind = OP_READPIN, .a = "x", .len = 6000 },
	                              RM("x"),
	                              { .kind = OP_END } };

static const struct plan recovery_plans[] = { { "replay", tree, OPS(NEW("n")) },
	                                      { "orphan", orphaned, OPS(NEW("n")) },
	                                      { "extents", scattered, OPS(RM("x")) } };

Test(crash, recovery)
{
	struct campaign c = { "recovery",   &small,        PM_CLWB,     RULES_ADR,
		              .share = .04, .whole = true, .kill = true };

	run(&c, recovery_plans, 3);
}

Test(crash, recovery_of_all)
{
	struct campaign c = { "recovery of all", &small,      PM_CLWB,      RULES_ADR,
		              .share = .02,     .whole = true, .kill = true, .lost = true };

	run(&c, recovery_plans, 3);
}

/* The first open makes it one of version 2, cut off anywhere. */
Test(crash, recovery_of_version_1)
{
	struct campaign c = { "recovery of version 1", &small,      PM_CLWB,      RULES_ADR,
		              .share = .02,           .whole = true, .kill = true, .lost = true,
		              .old = true };

	run(&c, recovery_plans, 3);
}

/* --- a journal that goes round, a pool that is full ------------------------------------------ */

static const struct op *many(bool full)
{
	struct op *ops = calloc(200, sizeof(*ops));
	char *names = calloc(64, 256);
	unsigned n = 0;

	for (unsigned i = 0; i < 28; i++) {
		char *name = names + (size_t)256 * i;

		snprintf(name, 256, "%02u-%0200u", i, i); /* leaves of the directory split early */
		ops[n++] = (struct op)NEW(name);
		if (i % 3 == 0)
			ops[n++] = (struct op)W(name, 100 * i, full ? 6 * B : B);
		if (i % 4 == 3)
			ops[n++] = (struct op)RM(names + (size_t)256 * (i - 2));
		if (full && i % 9 == 8)
			ops[n++] = (struct op)SIZE(names + (size_t)256 * (i - 8), 10);
	}
	return ops;
}

Test(crash, journal_goes_round)
{
	static const struct geometry g = { .blocks = 190, .lanes = 2, .lane_blocks = 4 };
	struct campaign c = { "lanes", &g, PM_CLWB, RULES_ADR, .share = .04, .sparse = true };
	struct plan p = { "many files", none, many(false) };

	run(&c, &p, 1);
}

Test(crash, no_space)
{
	static const struct geometry g = { .blocks = 116, .lanes = 1, .lane_blocks = 9 };
	struct campaign c = { "full",         &g, PM_CLWB, RULES_ADR, .share = .04, .sparse = true,
		              .refused = true };
	struct plan p = { "full", none, many(true) };

	run(&c, &p, 1);
}

/* --- one more chunk of inodes ---------------------------------------------------------------- */

static const struct op *crowd(void)
{
	struct op *ops = calloc(260, sizeof(*ops));
	char *names = calloc(254, 8);

	for (unsigned i = 0; i < 253; i++) { /* 255 slots of 256 are taken then */
		snprintf(names + (size_t)8 * i, 8, "%u", i);
		ops[i] = (struct op)NEW(names + (size_t)8 * i);
	}
	return ops;
}

static void grow_table(const struct campaign *c)
{
	struct plan p = { "two more files", crowd(), OPS(NEW("a"), NEW("b"), RM("17"), NEW("c")) };

	run(c, &p, 1);
}

Test(crash, inode_table_grows)
{
	struct campaign c = { "inode table", &small, PM_CLWB, RULES_ADR, .share = .03 };

	grow_table(&c);
}

Test(crash, inode_table_grows_with_msync)
{
	struct campaign c = { "inode table, msync", &wide, PM_MSYNC, RULES_PAGES, .share = .02 };

	grow_table(&c);
}
