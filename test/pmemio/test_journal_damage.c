/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_journal_damage.c - every record of a journal damaged, one at a time, every field
 *
 * Some runs are recorded and killed. Of each there are two pools: as the kill left it, with everything in place; and
 * with nothing in place that records tell of, so that all hangs from the journal. A record that another one calls
 * durable is missed when it is damaged: the pool is not opened, and what it says names the place and the cure. Any
 * other is one that nobody can tell from a record that was on its way, and the tree is the one from before it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/explore.h"
#include "test/pmemio/crash_ops.h"

#define RECORDS 200u

static const struct geometry wide = { .blocks = 240, .lanes = 2, .lane_blocks = 33 };

struct record {
	uint64_t seq, vouched; /* what the record says was durable */
	uint32_t at, len;
};
struct subject {
	const char *name;
	enum pm_method method;
	struct world *base, *w;
	size_t len;
	uint8_t *killed, *unapplied, *newest; /* newest: the last record is not in place, as power may leave it */
	struct record rec[RECORDS];
	unsigned n;
	unsigned missed, silent; /* damages that were named, that were not */
};

/* --- a run and its pools --------------------------------------------------------------------- */

static const struct op before[] = { NEW("x"), W("x", 0, 6000), NEW("y"), W("y", 0, 9000), { .kind = OP_END } };
static const struct op serial[] = {
	NEW("a"),           W("a", 0, 5000),  { .kind = OP_CHECKPOINT },
	W("x", 100, 9000),  MV("y", "z"),     W("a", 4000, 3 * B),
	{ .kind = OP_MKDIR, .a = "d" },       NEW("d/b"),
	W("x", 0, 10),      SIZE("x", 5000),  LN("x", "d/x2"),
	W("d/b", 3 * B, B), RM("a"),          { .kind = OP_CHMOD, .a = "d", .off = 0700 },
	W("x", 5, 10),      W("x", 15, 10),   { .kind = OP_END }
};
/* The lane has older records behind those that count. */
static const struct op around[] = {
	W("x", 0, 5000), W("x", 0, 5001), W("x", 0, 5002), NEW("a"), NEW("b"), NEW("c"), W("a", 0, 10),
	W("b", 0, 10), W("c", 0, 10), RM("b"), W("x", 0, 5003), { .kind = OP_CHECKPOINT },
	W("x", 0, 5004), { .kind = OP_CHECKPOINT },
	W("x", 0, 5005), MV("a", "d"), RM("c"), NEW("e"), W("e", 0, 5000), W("x", 0, 5006), NEW("f"), { .kind = OP_END }
};
static const struct op together[] = { MAP(0, "x", 6000, 5000),
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

static int by_seq(const void *a, const void *b)
{
	uint64_t x = ((const struct record *)a)->seq, y = ((const struct record *)b)->seq;

	return x < y ? -1 : x > y;
}

/* The records behind the last checkpoint; two threads do not store theirs in turn. */
static void find_records(struct subject *s)
{
	const struct medium *d = s->w->d;
	struct pm_super sb;

	memcpy(&sb, d->m.base, sizeof(sb));
	for (unsigned i = 0; i < d->nev; i++) {
		const struct ev *e = &d->ev[i];
		const struct pm_rec *r = (const void *)(d->bytes + e->bytes);

		if (e->kind != EV_STORE)
			continue;
		if (e->where == AT_HEAD)
			s->n = 0;
		if (e->where != AT_RECORD)
			continue;
		cr_assert_lt(s->n, RECORDS);
		cr_assert(r->magic == PM_REC_MAGIC && r->len == e->len && r->crc == rec_crc(rec_seed(&sb), r));
		s->rec[s->n++] = (struct record){ r->seq, r->seq - 1 - r->unsure, e->at, e->len };
	}
	qsort(s->rec, s->n, sizeof(s->rec[0]), by_seq);
}

static struct subject make(const char *name, enum pm_method method, const struct op *ops)
{
	struct subject s = { .name = name, .method = method, .len = (size_t)wide.blocks * B };
	uint8_t *empty = medium_image(&wide);

	s.base = world_new(empty, s.len, method, NULL);
	cr_assert(world_run(s.base, before), "%s", s.base->why);
	cr_assert(world_close(s.base));
	s.w = world_new(s.base->d->m.base, s.len, method, s.base);
	cr_assert(world_run(s.w, ops), "%s", s.w->why);
	cr_assert(ops != together || s.w->switches > 1);
	world_kill(s.w);
	s.killed = malloc(s.len);
	memcpy(s.killed, s.w->d->m.base, s.len);
	s.unapplied = medium_not_in_place(s.w->d, AT_HEAD);
	s.newest = medium_not_in_place(s.w->d, AT_RECORD);
	cr_assert_neq(memcmp(s.killed, s.unapplied, s.len), 0);
	find_records(&s);
	cr_assert_gt(s.n, 6);
	free(empty);
	return s;
}

static void done(struct subject *s)
{
	world_free(s->w);
	world_free(s->base);
	free(s->killed);
	free(s->unapplied);
	free(s->newest);
}

/* --- judging --------------------------------------------------------------------------------- */

static bool matches(struct subject *s, struct pm_store *st, unsigned state, char why[300])
{
	uint64_t sum;

	return state_matches(st, s->w->state[state], &sum, why, 300);
}

/* The newest that some record but @i calls durable. */
static uint64_t vouched_without(const struct subject *s, unsigned i)
{
	uint64_t most = 0;

	for (unsigned k = 0; k < s->n; k++)
		if (k != i && s->rec[k].vouched > most)
			most = s->rec[k].vouched;
	return most;
}

static void is_refused(const struct subject *s, const struct record *r, struct pm_store *st, const char *why,
                       const char *what)
{
	char place[80];

	cr_assert_null(st, "%s, seq %llx: %s goes unseen", s->name, (unsigned long long)r->seq, what);
	snprintf(place, sizeof(place), "is damaged at byte %u of the pool", r->at);
	cr_assert(strstr(why, place) && strstr(why, "journal lane") && strstr(why, "`berth check --repair`"),
	          "%s, seq %llx: %s, but '%s'", s->name, (unsigned long long)r->seq, what, why);
}

/* Nobody says that @r was durable: what was before it and those that were on their way with it must be there. */
static void is_from_before(struct subject *s, unsigned i, struct pm_store *st, const char *why, const char *what)
{
	char last[300] = "";
	bool found = false;

	cr_assert_not_null(st, "%s, record %u of %u: %s: false alarm: %s", s->name, i, s->n, what, why);
	for (unsigned k = s->w->n; k >= s->w->n - (s->n - i) && !found; k--)
		found = matches(s, st, k, last);
	cr_assert(found, "%s, record %u of %u: %s: not the tree from before: %s", s->name, i, s->n, what, last);
}

/* @image has record @i damaged. */
static void judge(struct subject *s, unsigned i, const uint8_t *image, bool unapplied, const char *what)
{
	bool durable = s->rec[i].seq <= vouched_without(s, i);

	for (unsigned ro = 0; ro < 2; ro++) {
		struct medium *d = medium_new(image, s->len, s->method, false);
		struct pm_error why = { "" };
		struct pm_store *st = ro ? medium_open_ro(d, &why) : medium_open(d, &why);

		if (durable)
			is_refused(s, &s->rec[i], st, why.text, what);
		else if (unapplied)
			is_from_before(s, i, st, why.text, what);
		if (st)
			store_drop(st);
		medium_free(d);
	}
	s->missed += durable;
	s->silent += !durable;
}

/* --- repair ---------------------------------------------------------------------------------- */

struct told {
	char found[600], fixed[600];
};

static void note(char to[600], const char *where, const char *what)
{
	size_t n = strlen(to);

	snprintf(to + n, 600 - n, "%s: %s\n", where, what);
}

static void note_found(void *arg, const char *where, const char *what)
{
	note(((struct told *)arg)->found, where, what);
}

static void note_fixed(void *arg, const char *where, const char *what)
{
	note(((struct told *)arg)->fixed, where, what);
}

/* As `berth check --repair` does it. */
static void repair(const struct subject *s, const uint8_t *image, struct test_pool *p, struct told *t)
{
	static const char *const gran[] = { [PM_FENCE] = "BYTE", [PM_CLWB] = "CACHE_LINE", [PM_MSYNC] = "PAGE" };
	const struct pm_repair_calls calls = { .found = note_found, .fixed = note_fixed, .left = note_found };
	struct pm_repair_report rep;
	struct pm_error why;
	int fd;

	*t = (struct told){ .found = "" };
	pool_path(p, "journal");
	fd = open(p->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	cr_assert_eq(write(fd, image, s->len), (ssize_t)s->len);
	close(fd);
	setenv("PMEM2_FORCE_GRANULARITY", gran[s->method], 1);
	cr_assert_eq(pm_repair(p->path, &calls, t, &rep, &why), 0, "%s", why.text);
	cr_assert_eq(rep.left, 0, "%s: left: %s%s", s->name, t->found, t->fixed);
	pool_open(p, s->method);
}

/* After a kill everything is in place, what a damaged record tells of, too: nothing is lost. */
static void kill_loses_nothing(struct subject *s, unsigned i, const uint8_t *image)
{
	struct test_pool p;
	struct told t;
	char why[300], place[80];

	repair(s, image, &p, &t);
	snprintf(place, sizeof(place), "at byte %u of the pool", s->rec[i].at);
	cr_assert(strstr(t.found, place) && strstr(t.fixed, place) && strstr(t.fixed, "should be, too"), "%s%s",
	          t.found, t.fixed);
	cr_assert(!strchr(t.fixed, '\n')[1], "more was changed than the journal: %s", t.fixed);
	cr_assert(matches(s, p.st, s->w->n, why), "%s, record %u: %s", s->name, i, why);
	pool_close(&p);
	pool_drop(&p);
}

/* Nothing was in place: what the damaged record told of is lost. The pool is sound, and says so. */
static void the_rest_is_sound(struct subject *s, unsigned i, const uint8_t *image)
{
	struct test_pool p;
	struct told t;

	repair(s, image, &p, &t);
	cr_assert(strstr(t.fixed, "is lost as far as it had not reached its place"), "%s, record %u: %s", s->name, i,
	          t.fixed);
	pool_close(&p);
	pool_drop(&p);
}

/* Where what is in place shows it, that is all there is to do but for the newest. */
static bool newest_comes_back(struct subject *s, unsigned i, const uint8_t *image)
{
	struct test_pool p;
	struct told t;
	char why[300];
	bool shown;

	repair(s, image, &p, &t);
	shown = strstr(t.fixed, "should be, too");
	if (shown)
		cr_assert(matches(s, p.st, s->w->n, why), "%s, record %u: %s", s->name, i, why);
	pool_close(&p);
	pool_drop(&p);
	return shown;
}

static void mend(struct subject *s)
{
	uint8_t *image = malloc(s->len);
	unsigned shown = 0;

	for (unsigned i = 0; i < s->n; i++) {
		const struct record *r = &s->rec[i];

		if (r->seq > vouched_without(s, i))
			continue;
		memcpy(image, s->killed, s->len);
		image[r->at + 40] ^= 1;
		kill_loses_nothing(s, i, image);
		memset(image + r->at, 0, r->len);
		kill_loses_nothing(s, i, image);
		memcpy(image, s->newest, s->len);
		image[r->at + 40] ^= 1;
		shown += newest_comes_back(s, i, image);
		memcpy(image, s->unapplied, s->len);
		image[r->at + 8] ^= 0x40;
		the_rest_is_sound(s, i, image);
	}
	cr_assert_gt(shown, 2, "%s", s->name);
	free(image);
}

/* --- damage ---------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	unsigned at, len;
} field[] = { { "crc", 0, 4 },          { "magic", 4, 2 },        { "unsure", 6, 2 },       { "len", 8, 4 },
	      { "nranges", 12, 4 },     { "seq", 16, 8 },         { "boot in seq", 21, 3 }, { "place of a range", 24, 6 },
	      { "length of a range", 30, 2 }, { "first bytes", 32, 8 } };
#define NFIELDS (sizeof(field) / sizeof(field[0]))

/* One way after another to damage the record at @p; false: that was all. */
static bool damage(uint8_t *p, uint32_t len, unsigned how, char what[80])
{
	static const uint8_t bits[] = { 0x04, 0x40 };

	if (how < 3 * NFIELDS) {
		unsigned f = how / 3;

		snprintf(what, 80, "%s %s", how % 3 < 2 ? "flipped" : "zeroed", field[f].name);
		if (how % 3 < 2)
			p[field[f].at] ^= bits[how % 3];
		else
			memset(p + field[f].at, 0, field[f].len);
		return true;
	}
	how -= 3 * (unsigned)NFIELDS;
	snprintf(what, 80, "the whole, way %u", how);
	switch (how) {
	case 0:
		p[len - 1] ^= 1;
		return true;
	case 1:
		memset(p, 0, len);
		return true;
	case 2:
		memset(p, 0xff, len);
		return true;
	case 3:
		memset(p, 0, len / 16 * 8);
		return true;
	case 4:
		memset(p + len / 16 * 8, 0, len - len / 16 * 8);
		return true;
	case 5:
		memset(p + len - 8, 0x5a, 8);
		return true;
	default:
		return false;
	}
}

static void each_damage(struct subject *s)
{
	uint8_t *image = malloc(s->len);

	for (unsigned k = 0; k < 2; k++) {
		const uint8_t *sound = k ? s->unapplied : s->killed;

		memcpy(image, sound, s->len);
		for (unsigned i = 0; i < s->n; i++) {
			const struct record *r = &s->rec[i];
			char what[80];

			for (unsigned how = 0; damage(image + r->at, r->len, how, what); how++) {
				if (memcmp(image + r->at, sound + r->at, r->len))
					judge(s, i, image, k, what);
				memcpy(image + r->at, sound + r->at, r->len);
			}
		}
	}
	free(image);
}

static void sound_pools_open(struct subject *s)
{
	for (unsigned k = 0; k < 2; k++) {
		struct medium *d = medium_new(k ? s->unapplied : s->killed, s->len, s->method, false);
		struct pm_error why;
		struct pm_store *st = medium_open(d, &why);

		cr_assert_not_null(st, "%s: %s", s->name, why.text);
		cr_assert(matches(s, st, s->w->n, why.text), "%s: %s", s->name, why.text);
		store_drop(st);
		medium_free(d);
	}
}

static void all_of(const char *name, enum pm_method method, const struct op *ops, unsigned tail)
{
	struct subject s = make(name, method, ops);
	uint64_t most = 0;
	unsigned open = 0;

	for (unsigned i = 0; i < s.n; i++)
		most = s.rec[i].vouched > most ? s.rec[i].vouched : most;
	for (unsigned i = 0; i < s.n; i++)
		open += s.rec[i].seq > most;
	cr_assert(open >= 1 && open <= tail, "%s: %u of %u records are not called durable", name, open, s.n);
	sound_pools_open(&s);
	each_damage(&s);
	mend(&s);
	explore_note("journal damage, %s: %u records, %u damages named, %u of records at the end not\n", name, s.n,
	             s.missed, s.silent);
	cr_assert_gt(s.missed, s.silent);
	done(&s);
}

TestSuite(journal_damage, .timeout = 300);

Test(journal_damage, is_named_with_clwb)
{
	all_of("clwb", PM_CLWB, serial, 1);
}

Test(journal_damage, is_named_in_a_lane_used_before)
{
	all_of("used lane", PM_CLWB, around, 1);
}

Test(journal_damage, is_named_with_fence)
{
	all_of("fence", PM_FENCE, serial, 1);
}

Test(journal_damage, is_named_with_msync)
{
	all_of("msync", PM_MSYNC, serial, 2);
}

Test(journal_damage, is_named_with_two_threads)
{
	all_of("two threads, clwb", PM_CLWB, together, 2);
}

Test(journal_damage, is_named_with_two_threads_and_fence)
{
	all_of("two threads, fence", PM_FENCE, together, 2);
}
