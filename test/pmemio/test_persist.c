/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_persist.c - the choice of the persistence method, over every combination of its inputs
 *
 * The rules below say who may claim what, in the order in which they count; each input that a rule does not name may
 * be anything. They are written from what fences, flushes and RMA do, and the function has to agree with them
 * everywhere. What must hold whatever the rules say is tested beside them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pmemio/persist.h"

#define BAD ((enum pm_method)(PM_METHODS + 3))

/* --- every combination ------------------------------------------------------------------------ */

static const enum pm_method methods[] = { PM_AUTO,     PM_FENCE,           PM_CLWB,
	                                  PM_MSYNC,    PM_VOLATILE,        PM_COMMIT_COMPLETE,
	                                  PM_READ_AFTER_WRITE, BAD };
#define NMETHODS (sizeof(methods) / sizeof(*methods))
#define COMBINATIONS (2u * 3 * 2 * 2 * 2 * 3 * 2 * 2 * 3 * NMETHODS * NMETHODS)

static unsigned digit(unsigned *n, unsigned base)
{
	unsigned d = *n % base;

	*n /= base;
	return d;
}

static struct pm_facts combination(unsigned n)
{
	struct pm_facts f;

	memset(&f, 0, sizeof(f));
	f.purpose = digit(&n, 2);
	f.gran = digit(&n, 3);
	f.map_sync = digit(&n, 2);
	f.line_flush = digit(&n, 2);
	f.rma_pmem = digit(&n, 2);
	f.commit_test = digit(&n, 3);
	f.verbs_like = digit(&n, 2);
	f.placement = digit(&n, 2);
	f.ddio = digit(&n, 3);
	f.pool_method = methods[digit(&n, NMETHODS)];
	f.want = methods[digit(&n, NMETHODS)];
	return f;
}

static const char *text(const struct pm_facts *f)
{
	static char s[400];

	snprintf(s, sizeof(s), "%s gran %s map_sync %d line_flush %d rma_pmem %d test %d verbs %d %s ddio %d pool %s want %s",
	         f->purpose ? "layout" : "server", pm_gran_name(f->gran), f->map_sync, f->line_flush, f->rma_pmem,
	         f->commit_test, f->verbs_like, f->placement ? "staged" : "direct", f->ddio,
	         pm_method_name(f->pool_method), pm_method_name(f->want));
	return s;
}

/* --- the rules -------------------------------------------------------------------------------- */

enum who { ANYONE, SERVER, LAYOUT };
enum gran { ANY_GRAN, BYTE, LINE, PAGE, NOT_BYTE, NOT_PAGE };
enum commit { ANY_COMMIT, NO_PMEM, TEST_FAILED, UNTESTED, NO_FLUSH, COMMIT_OK, NO_COMMIT };
enum reading { ANY_READ, NOT_VERBS, CACHED, READ_OK, NO_READ };
#define ANY 0xffu
#define M(m) (1u << (m))
#define SERVERS_OWN (M(PM_FENCE) | M(PM_CLWB) | M(PM_MSYNC) | M(PM_VOLATILE))

static const struct rule {
	enum who who;
	enum gran gran;
	unsigned pool, want; /* sets of methods; bit 7 stands for one that is none */
	int staged;          /* 0 anything, 1 staged */
	enum commit commit;
	enum reading reading;
	int err;
	enum pm_method method;
	const char *says;
} rules[] = {
	/* the pool's own method, which comes first for layouts as well */
	{ ANYONE, ANY_GRAN, M(7), ANY, 0, 0, 0, -EINVAL, PM_AUTO, "no such persistence method" },
	{ ANYONE, ANY_GRAN, M(PM_COMMIT_COMPLETE) | M(PM_READ_AFTER_WRITE), ANY, 0, 0, 0, -EINVAL, PM_AUTO, "[fabric NAME]" },
	{ ANYONE, NOT_BYTE, M(PM_FENCE), ANY, 0, 0, 0, -EPERM, PM_AUTO, "fence claims more" },
	{ ANYONE, PAGE, M(PM_CLWB), ANY, 0, 0, 0, -EPERM, PM_AUTO, "clwb claims more" },
	{ SERVER, BYTE, M(PM_AUTO), ANY, 0, 0, 0, 0, PM_FENCE, "eADR" },
	{ SERVER, LINE, M(PM_AUTO), ANY, 0, 0, 0, 0, PM_CLWB, "by cache line" },
	{ SERVER, PAGE, M(PM_AUTO), ANY, 0, 0, 0, 0, PM_MSYNC, "page cache" },
	{ SERVER, ANY_GRAN, M(PM_FENCE), ANY, 0, 0, 0, 0, PM_FENCE, "administrator" },
	{ SERVER, ANY_GRAN, M(PM_CLWB), ANY, 0, 0, 0, 0, PM_CLWB, "administrator" },
	{ SERVER, ANY_GRAN, M(PM_MSYNC), ANY, 0, 0, 0, 0, PM_MSYNC, "administrator" },
	{ SERVER, ANY_GRAN, M(PM_VOLATILE), ANY, 0, 0, 0, 0, PM_VOLATILE, "administrator" },
	/* layouts: reachable at all? */
	{ LAYOUT, ANY_GRAN, ANY, ANY, 1, 0, 0, -EOPNOTSUPP, PM_AUTO, "staging buffer" },
	/* what the pool cannot keep, no provider can */
	{ LAYOUT, ANY_GRAN, M(PM_VOLATILE), M(PM_AUTO) | M(PM_VOLATILE), 0, 0, 0, 0, PM_VOLATILE, "pool is volatile" },
	{ LAYOUT, ANY_GRAN, M(PM_VOLATILE), M(PM_COMMIT_COMPLETE) | M(PM_READ_AFTER_WRITE), 0, 0, 0, -EPERM, PM_AUTO,
	  "is volatile" },
	{ LAYOUT, PAGE, M(PM_AUTO) | M(PM_MSYNC), M(PM_AUTO) | M(PM_MSYNC), 0, 0, 0, 0, PM_MSYNC, "only msync" },
	{ LAYOUT, NOT_PAGE, M(PM_MSYNC), M(PM_AUTO) | M(PM_MSYNC), 0, 0, 0, 0, PM_MSYNC, "administrator" },
	{ LAYOUT, PAGE, M(PM_AUTO) | M(PM_MSYNC), M(PM_COMMIT_COMPLETE) | M(PM_READ_AFTER_WRITE), 0, 0, 0, -EPERM,
	  PM_AUTO, "needs msync" },
	{ LAYOUT, NOT_PAGE, M(PM_MSYNC), M(PM_COMMIT_COMPLETE) | M(PM_READ_AFTER_WRITE), 0, 0, 0, -EPERM, PM_AUTO,
	  "needs msync" },
	/* from here on the pool is BYTE or CACHE_LINE and its method fence or clwb */
	{ LAYOUT, ANY_GRAN, ANY, M(PM_AUTO), 0, COMMIT_OK, 0, 0, PM_COMMIT_COMPLETE, "FI_COMMIT_COMPLETE" },
	{ LAYOUT, BYTE, ANY, M(PM_AUTO), 0, NO_COMMIT, READ_OK, 0, PM_READ_AFTER_WRITE, "eADR" },
	{ LAYOUT, LINE, ANY, M(PM_AUTO), 0, NO_COMMIT, READ_OK, 0, PM_READ_AFTER_WRITE, "ddio = off" },
	{ LAYOUT, BYTE, M(PM_AUTO) | M(PM_FENCE), M(PM_AUTO), 0, NO_COMMIT, NO_READ, 0, PM_FENCE, "fences at COMMIT" },
	{ LAYOUT, LINE, M(PM_AUTO) | M(PM_CLWB), M(PM_AUTO), 0, NO_COMMIT, NO_READ, 0, PM_CLWB, "at COMMIT" },
	{ LAYOUT, BYTE, M(PM_CLWB), M(PM_AUTO), 0, NO_COMMIT, NO_READ, 0, PM_CLWB, "at COMMIT" },
	{ LAYOUT, NOT_PAGE, ANY, M(PM_COMMIT_COMPLETE), 0, COMMIT_OK, 0, 0, PM_COMMIT_COMPLETE, "FI_COMMIT_COMPLETE" },
	{ LAYOUT, NOT_PAGE, ANY, M(PM_COMMIT_COMPLETE), 0, NO_PMEM, 0, -EPERM, PM_AUTO, "no FI_RMA_PMEM" },
	{ LAYOUT, NOT_PAGE, ANY, M(PM_COMMIT_COMPLETE), 0, TEST_FAILED, 0, -EPERM, PM_AUTO, "failed in the self-test" },
	{ LAYOUT, NOT_PAGE, ANY, M(PM_COMMIT_COMPLETE), 0, UNTESTED, 0, -EPERM, PM_AUTO, "no self-test" },
	{ LAYOUT, LINE, ANY, M(PM_COMMIT_COMPLETE), 0, NO_FLUSH, 0, -EPERM, PM_AUTO, "this CPU" },
	{ LAYOUT, BYTE, ANY, M(PM_READ_AFTER_WRITE), 0, 0, READ_OK, 0, PM_READ_AFTER_WRITE, "eADR" },
	{ LAYOUT, LINE, ANY, M(PM_READ_AFTER_WRITE), 0, 0, READ_OK, 0, PM_READ_AFTER_WRITE, "ddio = off" },
	{ LAYOUT, NOT_PAGE, ANY, M(PM_READ_AFTER_WRITE), 0, 0, NOT_VERBS, -EPERM, PM_AUTO, "cards that place" },
	{ LAYOUT, LINE, ANY, M(PM_READ_AFTER_WRITE), 0, 0, CACHED, -EPERM, PM_AUTO, "CPU caches" },
	{ LAYOUT, BYTE, M(PM_AUTO) | M(PM_FENCE), M(PM_FENCE), 0, 0, 0, 0, PM_FENCE, "fences at COMMIT" },
	{ LAYOUT, LINE, M(PM_AUTO) | M(PM_CLWB), M(PM_CLWB), 0, 0, 0, 0, PM_CLWB, "at COMMIT" },
	{ LAYOUT, BYTE, M(PM_CLWB), M(PM_CLWB), 0, 0, 0, 0, PM_CLWB, "at COMMIT" },
	{ LAYOUT, ANY_GRAN, ANY, SERVERS_OWN | M(7), 0, 0, 0, -EINVAL, PM_AUTO, "not the method of the pool" },
};
#define NRULES (sizeof(rules) / sizeof(*rules))

static bool gran_is(enum gran want, enum pm_gran g)
{
	switch (want) {
	case ANY_GRAN: return true;
	case BYTE: return g == PM_GRAN_BYTE;
	case LINE: return g == PM_GRAN_CACHE_LINE;
	case PAGE: return g == PM_GRAN_PAGE;
	case NOT_BYTE: return g != PM_GRAN_BYTE;
	case NOT_PAGE: return g != PM_GRAN_PAGE;
	}
	return false;
}

/* A card's own commit needs no CPU; caches that are durable need no flush. */
static bool commit_is(enum commit want, const struct pm_facts *f)
{
	bool flushes = f->line_flush || f->verbs_like || f->gran == PM_GRAN_BYTE;

	switch (want) {
	case ANY_COMMIT: return true;
	case NO_PMEM: return !f->rma_pmem;
	case TEST_FAILED: return f->rma_pmem && f->commit_test == PM_TEST_FAILED;
	case UNTESTED: return f->rma_pmem && f->commit_test == PM_TEST_NOT_RUN;
	case NO_FLUSH: return f->rma_pmem && f->commit_test == PM_TEST_PASSED && !flushes;
	case COMMIT_OK: return f->rma_pmem && f->commit_test == PM_TEST_PASSED && flushes;
	case NO_COMMIT: return !(f->rma_pmem && f->commit_test == PM_TEST_PASSED && flushes);
	}
	return false;
}

static bool reading_is(enum reading want, const struct pm_facts *f)
{
	bool past_caches = f->gran == PM_GRAN_BYTE || f->ddio == PM_DDIO_OFF;

	switch (want) {
	case ANY_READ: return true;
	case NOT_VERBS: return !f->verbs_like;
	case CACHED: return f->verbs_like && !past_caches;
	case READ_OK: return f->verbs_like && past_caches;
	case NO_READ: return !f->verbs_like || !past_caches;
	}
	return false;
}

static bool in_set(unsigned set, enum pm_method m)
{
	return set >> (m == BAD ? 7u : (unsigned)m) & 1;
}

static const struct rule *rule_for(const struct pm_facts *f)
{
	for (size_t i = 0; i < NRULES; i++) {
		const struct rule *r = &rules[i];

		if ((r->who == ANYONE || (r->who == LAYOUT) == (f->purpose == PM_FOR_LAYOUT)) &&
		    gran_is(r->gran, f->gran) && in_set(r->pool, f->pool_method) && in_set(r->want, f->want) &&
		    (!r->staged || f->placement == PM_PLACE_STAGED) && commit_is(r->commit, f) &&
		    reading_is(r->reading, f))
			return r;
	}
	return NULL;
}

Test(persist, every_combination_is_judged_as_the_rules_say)
{
	unsigned used[NRULES] = { 0 };

	for (unsigned n = 0; n < COMBINATIONS; n++) {
		struct pm_facts f = combination(n);
		const struct rule *r = rule_for(&f);
		struct pm_verdict v;
		int err = pm_persist(&f, &v);

		cr_assert_not_null(r, "no rule for %s", text(&f));
		used[r - rules]++;
		cr_assert_eq(err, r->err, "%s: %d, not %d", text(&f), err, r->err);
		cr_assert_eq(v.method, r->method, "%s: %s, not %s", text(&f), pm_method_name(v.method),
		             pm_method_name(r->method));
		cr_assert_not_null(strstr(v.reason, r->says), "%s: '%s' does not say '%s'", text(&f), v.reason, r->says);
	}
	for (size_t i = 0; i < NRULES; i++)
		cr_assert(used[i], "rule %zu ('%s') never counts", i, rules[i].says);
}

/* --- what holds whatever the rules say --------------------------------------------------------- */

Test(persist, nothing_claims_more_than_the_platform_gives)
{
	for (unsigned n = 0; n < COMBINATIONS; n++) {
		struct pm_facts f = combination(n);
		struct pm_verdict v;

		if (pm_persist(&f, &v))
			continue;
		if (v.method == PM_FENCE)
			cr_assert_eq(f.gran, PM_GRAN_BYTE, "%s", text(&f));
		if (f.gran == PM_GRAN_PAGE)
			cr_assert(v.method == PM_MSYNC || v.method == PM_VOLATILE, "%s", text(&f));
		if (v.method == PM_VOLATILE)
			cr_assert_eq(f.pool_method, PM_VOLATILE, "nobody asked for volatile: %s", text(&f));
		if (f.pool_method == PM_VOLATILE)
			cr_assert_eq(v.method, PM_VOLATILE, "%s", text(&f));
		if (v.method == PM_COMMIT_COMPLETE)
			cr_assert(f.purpose == PM_FOR_LAYOUT && f.rma_pmem && f.commit_test == PM_TEST_PASSED,
			          "%s", text(&f));
		if (v.method == PM_READ_AFTER_WRITE)
			cr_assert(f.purpose == PM_FOR_LAYOUT && f.verbs_like &&
			          (f.gran == PM_GRAN_BYTE || f.ddio == PM_DDIO_OFF), "%s", text(&f));
	}
}

Test(persist, a_verdict_says_what_it_does_not_promise_and_a_refusal_names_the_cure)
{
	for (unsigned n = 0; n < COMBINATIONS; n++) {
		struct pm_facts f = combination(n);
		struct pm_verdict v;

		if (!pm_persist(&f, &v)) {
			cr_assert_neq(v.method, PM_AUTO, "%s", text(&f));
			cr_assert(v.reason[0] && v.not_promised && v.not_promised[0], "%s", text(&f));
			continue;
		}
		cr_assert_eq(v.method, PM_AUTO, "%s", text(&f));
		cr_assert_null(v.not_promised, "%s", text(&f));
		cr_assert(strstr(v.reason, "use ") || strstr(v.reason, "set "), "no cure in '%s': %s", v.reason, text(&f));
	}
}

/* Granularity can be forced from outside, for tests: then the method stands, and the warning with it. */
Test(persist, a_mapping_that_the_kernel_did_not_confirm_is_told)
{
	for (unsigned n = 0; n < COMBINATIONS; n++) {
		struct pm_facts f = combination(n), sure;
		struct pm_verdict v, w;

		if (f.map_sync)
			continue;
		sure = f;
		sure.map_sync = true;
		cr_assert_eq(pm_persist(&f, &v), pm_persist(&sure, &w), "%s", text(&f));
		cr_assert_eq(v.method, w.method, "%s", text(&f));
		if (v.method != PM_AUTO && v.method != PM_VOLATILE)
			cr_assert_eq(strstr(v.not_promised, "did not confirm") != NULL, f.gran != PM_GRAN_PAGE, "%s",
			             text(&f));
	}
}

Test(persist, what_layouts_may_rest_on_the_server_does_not_look_at)
{
	for (unsigned n = 0; n < COMBINATIONS; n++) {
		struct pm_facts f = combination(n), bare;
		struct pm_verdict v, w;

		if (f.purpose != PM_FOR_SERVER)
			continue;
		memset(&bare, 0, sizeof(bare));
		bare.gran = f.gran;
		bare.map_sync = f.map_sync;
		bare.pool_method = f.pool_method;
		cr_assert_eq(pm_persist(&f, &v), pm_persist(&bare, &w), "%s", text(&f));
		cr_assert_eq(v.method, w.method, "%s", text(&f));
		cr_assert_eq(v.reason, w.reason, "%s", text(&f));
	}
}

Test(persist, names_are_read_back)
{
	for (int m = PM_AUTO; m < PM_METHODS; m++)
		cr_assert_eq(pm_method_parse(pm_method_name((enum pm_method)m)), m);
	cr_assert_eq(pm_method_parse("unknown"), -1);
	cr_assert_eq(pm_method_parse(""), -1);
	cr_assert_str_eq(pm_method_name(BAD), "unknown");
}
