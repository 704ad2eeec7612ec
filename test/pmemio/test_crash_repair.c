/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_crash_repair.c - the power fails at every point of a repair
 *
 * Each damage of test/lib/wreck.c is repaired once as it should be, and once more on media that write
 * down what is done. Whatever a power failure could leave of that: repair works there, leaves no more
 * than it would have, and leads to a pool that holds the same. So it does when a server had the pool in
 * between, where that would open it.
 *
 * BERTH_CRASH_SECONDS for all tests of this file together; BERTH_CRASH_SEED repeats a run.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "test/lib/explore.h"
#include "test/lib/log_fault.h"
#include "test/lib/wreck.h"

#define TEXT (1u << 16)

struct campaign {
	const char *name;
	enum pm_method method;
	enum rules rules;
	unsigned lane_blocks;
	bool killed;
	double share;    /* of the time */
	bool table;      /* many files, and damage to the inode table */
	unsigned sparse; /* the first time one in so many stores is looked at; 0: every one */
};

struct sought {                       /* what a repair must lead to */
	const struct damage *d, *too; /* too: NULL, or another that was there before */
	char name[80];
	char holds[TEXT], got[TEXT];
	uint64_t left;
};

static double seconds(void)
{
	const char *s = getenv("BERTH_CRASH_SECONDS");

	return s ? atof(s) : 12;
}

static uint64_t first_seed(void)
{
	const char *s = getenv("BERTH_CRASH_SEED");

	return s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 1000;
}

/* --- one repair ------------------------------------------------------------------------------ */

struct said {
	char text[600];
};

static void left(void *arg, const char *where, const char *what)
{
	struct said *s = arg;

	if (!s->text[0])
		snprintf(s->text, sizeof(s->text), "%s: %s", where, what);
}

static void show(void *arg, const char *where, const char *what)
{
	fprintf(stderr, "   %s: %s: %s\n", (const char *)arg, where, what);
}

static bool repaired(struct medium *d, struct pm_repair_report *rep, char *why, size_t size)
{
	const struct pm_repair_calls calls = { .left = left };
	struct said s = { "" };
	struct pm_error e;
	int err = medium_repair(d, &calls, &s, rep, &e);

	if (err)
		snprintf(why, size, "repair: %s: %s", strerror(-err), e.text);
	else if (rep->left)
		snprintf(why, size, "left: %s", s.text);
	return !err;
}

static bool held(struct medium *d, char *text, char *why, size_t size)
{
	struct pm_error e;
	struct pm_store *st = medium_open_ro(d, &e);

	if (!st) {
		snprintf(why, size, "cannot be opened: %s", e.text);
		return false;
	}
	wreck_holds(st, text, TEXT);
	store_drop(st);
	return true;
}

/* The first lines that differ. */
static void differ(const char *a, const char *b, char *why, size_t size)
{
	const char *la = a, *lb = b;

	for (; *a && *a == *b; a++, b++)
		if (*a == '\n') {
			la = a + 1;
			lb = b + 1;
		}
	snprintf(why, size, "it holds '%.*s', not '%.*s'", (int)strcspn(lb, "\n"), lb,
	         (int)strcspn(la, "\n"), la);
}

/* --- what is done with a state ----------------------------------------------------------------- */

/* A server has the pool for a while, if it wants it: killed, stopped, or stopped after some work. */
static bool served(struct medium *d, unsigned how, char *why, size_t size)
{
	struct pm_error e;
	struct pm_store *st = medium_open(d, &e);
	int err;

	if (!st)
		return true;
	if (how == 0) {
		store_drop(st);
		return true;
	}
	err = how == 1 ? 0 : explore_go_on(d, st);
	if (err && err != -ENOSPC && err != -EIO) {
		snprintf(why, size, "a server's work: %s", strerror(-err));
		store_drop(st);
		return false;
	}
	err = pm_close(st);
	if (err)
		snprintf(why, size, "a server's stop: %s", strerror(-err));
	return !err;
}

static bool judge(void *arg, struct medium *d, uint64_t lot, char *why, size_t size)
{
	struct sought *s = arg;
	struct pm_repair_report rep;
	unsigned way = (unsigned)(lot % 8);

	if (way < 3 && !s->d->unsafe && !(s->too && s->too->unsafe) && !served(d, way, why, size))
		return false;
	if (!repaired(d, &rep, why, size))
		return false;
	if (rep.left != s->left) {
		snprintf(why + strlen(why), size - strlen(why), " (%llu are left, not %llu)",
		         (unsigned long long)rep.left, (unsigned long long)s->left);
		return false;
	}
	if (lot / 8 % 8 == 0) {
		if (!repaired(d, &rep, why, size))
			return false;
		if (rep.found != s->left || (!s->left && rep.repaired)) {
			snprintf(why, size, "a second repair finds %llu, repairs %llu",
			         (unsigned long long)rep.found, (unsigned long long)rep.repaired);
			return false;
		}
	}
	if (!held(d, s->got, why, size))
		return false;
	if (strcmp(s->got, s->holds)) {
		differ(s->holds, s->got, why, size);
		return false;
	}
	return true;
}

static void again(void *arg, struct medium *d)
{
	struct pm_repair_report rep;
	char why[1000];

	(void)arg;
	repaired(d, &rep, why, sizeof(why)); /* that it works is judged */
}

static const struct damage *damage_of(const char *name)
{
	for (unsigned i = 0; i < wreck_ndamages; i++)
		if (!strcmp(wreck_damages[i].name, name))
			return &wreck_damages[i];
	cr_assert_fail("no damage %s", name);
	abort();
}

/* --- campaigns --------------------------------------------------------------------------------- */

/* A repair that nothing stops, on media that write it down. NULL: there is nothing to repair. */
static struct medium *record(const struct campaign *c, const struct wreck *w, struct sought *s)
{
	uint8_t *image = malloc(w->len);
	struct pm_repair_report rep;
	struct medium *d;
	char why[1000] = "";

	memcpy(image, w->image, w->len);
	if (s->too)
		s->too->hurt(w, image);
	s->d->hurt(w, image);
	d = medium_new(image, w->len, c->method, true);
	cr_assert(repaired(d, &rep, why, sizeof(why)), "%s: %s", s->name, why);
	free(image);
	if (!rep.found && c->killed && !s->d->killed) { /* replay put it right */
		medium_free(d);
		return NULL;
	}
	cr_assert_gt(rep.found, 0, "%s: nothing is found", s->name);
	cr_assert(rep.left == 0 || s->d->left || (s->too && s->too->left), "%s: %s", s->name, why);
	s->left = rep.left;
	cr_assert(held(d, s->holds, why, sizeof(why)), "%s: %s", s->name, why);
	return d;
}

static void tell(const struct campaign *c, const struct wreck *w, const struct sought *s)
{
	static const struct pm_repair_calls calls = { show, show, show, NULL };
	uint8_t *image = malloc(w->len);
	struct pm_repair_report rep;
	struct pm_error e;
	struct medium *m;

	memcpy(image, w->image, w->len);
	if (s->too)
		s->too->hurt(w, image);
	s->d->hurt(w, image);
	m = medium_new(image, w->len, c->method, true);
	medium_repair(m, &calls, (void *)(uintptr_t)s->name, &rep, &e);
	medium_free(m);
	free(image);
}

static void one(const struct campaign *c, const struct wreck *w, const struct damage *d,
                const struct damage *too, struct explore *x)
{
	struct sought *s = calloc(1, sizeof(*s));
	const struct trial t = { judge, again, s };
	struct medium *log;

	s->d = d;
	s->too = too;
	snprintf(s->name, sizeof(s->name), "%s%s%s", d->name, too ? " and " : "",
	         too ? too->name : "");
	log = !d->killed || c->killed ? record(c, w, s) : NULL;
	if (log && !explore_trial(x, log, &t)) {
		tell(c, w, s);
		cr_expect_fail("%s, %s: %s", c->name, s->name, x->why);
	}
	if (log)
		medium_free(log);
	free(s);
}

/* One that can be there before @d: in another place. */
static const struct damage *another(const struct damage *d, const struct damage *of, unsigned n,
                                    uint64_t salt)
{
	for (unsigned i = 0; i < n; i++) {
		const struct damage *e = &of[(salt * 31 + (uint64_t)(d - of) * 17 + i) % n];

		if (!(e->where & d->where) && !e->killed)
			return e;
	}
	return NULL;
}

static void run(const struct campaign *c)
{
	double start = explore_now();
	struct explore x = { .rules = c->rules,
		             .until = start + seconds() * c->share,
		             .seed = first_seed() };
	uint64_t seed = x.seed + 1, had = 0;
	const struct damage *damage = c->table ? wreck_table_damages : wreck_damages;
	unsigned done = 0, n = c->table ? wreck_table_ndamages : wreck_ndamages;
	struct wreck w;

	wreck_make(&w, c->lane_blocks, c->killed, c->table);
	for (unsigned pass = 0; pass == 0 || explore_now() < x.until; pass++) {
		bool pairs = pass % 2; /* more of them, and not so close */

		explore_deepen(&x, pass / 2, false);
		x.sparse = pairs ? 8 : pass ? 1 : c->sparse;
		x.seed++;
		for (unsigned i = 0; i < n && (pass == 0 || explore_now() < x.until); i++, done++)
			one(c, &w, &damage[(i + seed) % n],
			    pairs ? another(&damage[(i + seed) % n], damage, n, seed + pass) : NULL,
			    &x);
		if (pass > 16 && x.states == had)
			break;
		had = x.states;
	}
	explore_note("crash states of repair, %s: %llu distinct of %llu in %.1f s, %u repairs (%u "
	             "kinds of damage), "
	             "seed %llu\n",
	             c->name, (unsigned long long)x.states, (unsigned long long)x.checked,
	             explore_now() - start, done, n, (unsigned long long)seed);
	cr_expect_gt(x.states, 0);
	wreck_free(&w);
	explore_free(&x);
}

Test(crash_repair, clwb)
{
	run(&(struct campaign){ .name = "clwb",
	                        .method = PM_CLWB,
	                        .rules = RULES_ADR,
	                        .lane_blocks = 9,
	                        .share = .3 });
}

Test(crash_repair, clwb_after_a_kill)
{
	run(&(struct campaign){ .name = "clwb, after a kill",
	                        .method = PM_CLWB,
	                        .rules = RULES_ADR,
	                        .lane_blocks = 9,
	                        .killed = true,
	                        .share = .15,
	                        .sparse = 3 });
}

Test(crash_repair, caches_in_the_domain)
{
	run(&(struct campaign){ .name = "fence",
	                        .method = PM_FENCE,
	                        .rules = RULES_EADR,
	                        .lane_blocks = 9,
	                        .share = .1,
	                        .sparse = 2 });
}

Test(crash_repair, msync)
{
	run(&(struct campaign){ .name = "msync",
	                        .method = PM_MSYNC,
	                        .rules = RULES_PAGES,
	                        .lane_blocks = 33,
	                        .share = .15,
	                        .sparse = 2 });
}

Test(crash_repair, inode_table)
{
	run(&(struct campaign){ .name = "inode table, clwb",
	                        .method = PM_CLWB,
	                        .rules = RULES_ADR,
	                        .lane_blocks = 9,
	                        .share = .1,
	                        .table = true,
	                        .sparse = 2 });
}

Test(crash_repair, inode_table_with_msync)
{
	run(&(struct campaign){ .name = "inode table, msync",
	                        .method = PM_MSYNC,
	                        .rules = RULES_PAGES,
	                        .lane_blocks = 33,
	                        .share = .1,
	                        .table = true,
	                        .sparse = 2 });
}

Test(crash_repair, msync_after_a_kill)
{
	run(&(struct campaign){ .name = "msync, after a kill",
	                        .method = PM_MSYNC,
	                        .rules = RULES_PAGES,
	                        .lane_blocks = 33,
	                        .killed = true,
	                        .share = .1,
	                        .sparse = 3 });
}

/* What the explorer found first, each time and whatever the time: states that lost what the repair would have kept. */
Test(crash_repair, what_was_lost_once)
{
	static const char *const kinds[] = { "inode_that_names_others_blocks",
		                             "size_of_file",
		                             "two_inodes",
		                             "type_of_file",
		                             "node_and_entry",
		                             "node_and_cookie" };
	const struct campaign c = {
		.name = "lost once", .method = PM_CLWB, .rules = RULES_ADR, .lane_blocks = 9
	};
	struct explore x = { .rules = c.rules, .seed = 1 };
	struct wreck w;

	wreck_make(&w, c.lane_blocks, false, false);
	explore_deepen(&x, 0, false);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		one(&c, &w, damage_of(kinds[i]), NULL, &x);
	explore_note("crash states of repair, lost once: %llu are right\n",
	             (unsigned long long)x.states);
	wreck_free(&w);
	explore_free(&x);
}

/* --- mistakes that must be found --------------------------------------------------------------- */

struct fault {
	const char *name;
	void (*change)(struct medium *d, size_t from);
	const char *damage;
	enum rules rules;
};

/* With caches in the domain a missing fence behind a record does no harm here: nobody is answered. */
static const struct fault faults[] = {
	{ "records are not flushed", fault_no_record_flush, "links_of_file", RULES_ADR },
	{ "no fence behind a record", fault_no_record_fence, "links_of_file", RULES_ADR },
	{ "changes in place before their record", fault_early_in_place, "links_of_file",
	  RULES_ADR },
	{ "changes in place are not flushed", fault_no_in_place_flush, "links_of_file", RULES_ADR },
	{ "no fence before the journal head", fault_no_fence_before_head, "links_of_file",
	  RULES_ADR },
	{ "the journal head moves early", fault_early_head, "links_of_file", RULES_ADR },
	{ "no fence between new nodes and record", fault_no_fence_before_record, "entry_type",
	  RULES_ADR },
	{ "new nodes are not flushed", fault_no_node_flush, "leaf_of_crowd", RULES_ADR },
	{ "new nodes are stored behind the record", fault_late_nodes, "leaf_of_crowd", RULES_ADR },
	{ "eADR: changes in place before their record", fault_early_in_place, "links_of_file",
	  RULES_EADR },
	{ "eADR: no fence between new nodes and record", fault_no_fence_before_record, "entry_type",
	  RULES_EADR },
	{ "msync: records are not synced", fault_no_record_sync, "links_of_file", RULES_PAGES },
	{ "msync: changes in place before their record", fault_early_in_place, "leaf_of_dir",
	  RULES_PAGES },
	{ "msync: nothing synced before the journal head", fault_no_whole_sync, "leaf_of_dir",
	  RULES_PAGES },
};
#define NFAULTS (sizeof(faults) / sizeof(faults[0]))

/* Behind the opening, which ends with a lane's header. */
static size_t opened(const struct medium *log)
{
	size_t i = 0;

	while (i < log->nev && (log->ev[i].kind != EV_STORE || log->ev[i].where != AT_HEAD))
		i++;
	return i + 1;
}

/* How many states it took to find; 0: not found. */
static uint64_t hunt(const struct fault *f)
{
	static const struct campaign of[] = { [RULES_ADR] = { .name = "",
		                                              .method = PM_CLWB,
		                                              .rules = RULES_ADR,
		                                              .lane_blocks = 9 },
		                              [RULES_EADR] = { .name = "",
		                                               .method = PM_FENCE,
		                                               .rules = RULES_EADR,
		                                               .lane_blocks = 9 },
		                              [RULES_PAGES] = { .name = "",
		                                                .method = PM_MSYNC,
		                                                .rules = RULES_PAGES,
		                                                .lane_blocks = 33 } };
	const struct campaign *c = &of[f->rules];
	struct sought *s = calloc(1, sizeof(*s));
	const struct trial t = { judge, again, s };
	struct explore x = { .rules = f->rules, .seed = 1 };
	struct medium *log;
	uint64_t states = 0;
	struct wreck w;

	wreck_make(&w, c->lane_blocks, c->killed, false);
	s->d = damage_of(f->damage);
	log = record(c, &w, s);
	explore_deepen(&x, 0, false);
	x.sparse = 4; /* the other tests look closer */
	cr_assert(explore_trial(&x, log, &t), "%s: without the fault: %s", f->name, x.why);
	explore_free(&x);
	x.states = 0;
	f->change(log, opened(log));
	for (unsigned pass = 0; pass < 4 && !states; pass++) {
		explore_deepen(&x, pass, false);
		x.seed++;
		if (!explore_trial(&x, log, &t))
			states = x.states;
	}
	if (getenv("BERTH_TEST_LOG"))
		explore_note("fault: %s: %llu states: %s\n", f->name, (unsigned long long)states,
		             x.why);
	explore_free(&x);
	medium_free(log);
	wreck_free(&w);
	free(s);
	return states;
}

Test(crash_repair, mistakes_are_found)
{
	uint64_t all = 0;
	unsigned found = 0;

	for (unsigned i = 0; i < NFAULTS; i++) {
		uint64_t n = hunt(&faults[i]);

		found += n > 0;
		all += n;
		cr_expect_gt(n, 0, "not found: %s", faults[i].name);
	}
	explore_note("crash faults of repair: %u of %u found, in %llu states\n", found,
	             (unsigned)NFAULTS, (unsigned long long)all);
}
