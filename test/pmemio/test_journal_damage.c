/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_journal_damage.c - every record of a journal damaged, one at a time, every field
 *
 * The pools are those of journal.h: as a kill left them, and with nothing in place. A record that another one calls
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
#include "test/lib/journal.h"

struct subject {
	struct journal_run r;
	unsigned missed, silent; /* damages that were named, that were not */
};

/* --- judging --------------------------------------------------------------------------------- */

/* The newest that some record but @i calls durable. */
static uint64_t vouched_without(const struct subject *s, unsigned i)
{
	uint64_t most = 0;

	for (unsigned k = 0; k < s->r.n; k++)
		if (k != i && s->r.rec[k].vouched > most)
			most = s->r.rec[k].vouched;
	return most;
}

static void is_refused(const struct subject *s, const struct journal_record *r, struct pm_store *st, const char *why,
                       const char *what)
{
	char place[80];

	cr_assert_null(st, "%s, seq %llx: %s goes unseen", s->r.name, (unsigned long long)r->seq, what);
	snprintf(place, sizeof(place), "is damaged at byte %u of the pool", r->at);
	cr_assert(strstr(why, place) && strstr(why, "journal lane") && strstr(why, "`berth check --repair`"),
	          "%s, seq %llx: %s, but '%s'", s->r.name, (unsigned long long)r->seq, what, why);
}

/* Nobody says that @r was durable: what was before it and those that were on their way with it must be there. */
static void is_from_before(struct subject *s, unsigned i, struct pm_store *st, const char *why, const char *what)
{
	char last[300] = "";
	bool found = false;

	cr_assert_not_null(st, "%s, record %u of %u: %s: false alarm: %s", s->r.name, i, s->r.n, what, why);
	for (unsigned k = s->r.w->n; k >= s->r.w->n - (s->r.n - i) && !found; k--)
		found = journal_run_matches(&s->r, st, k, last);
	cr_assert(found, "%s, record %u of %u: %s: not the tree from before: %s", s->r.name, i, s->r.n, what, last);
}

/* @image has record @i damaged. */
static void judge(struct subject *s, unsigned i, const uint8_t *image, bool unapplied, const char *what)
{
	bool durable = s->r.rec[i].seq <= vouched_without(s, i);

	for (unsigned ro = 0; ro < 2; ro++) {
		struct medium *d = medium_new(image, s->r.len, s->r.method, false);
		struct pm_error why = { "" };
		struct pm_store *st = ro ? medium_open_ro(d, &why) : medium_open(d, &why);

		if (durable)
			is_refused(s, &s->r.rec[i], st, why.text, what);
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
	cr_assert_eq(write(fd, image, s->r.len), (ssize_t)s->r.len);
	close(fd);
	setenv("PMEM2_FORCE_GRANULARITY", gran[s->r.method], 1);
	cr_assert_eq(pm_repair(p->path, &calls, t, &rep, &why), 0, "%s", why.text);
	cr_assert_eq(rep.left, 0, "%s: left: %s%s", s->r.name, t->found, t->fixed);
	pool_open(p, s->r.method);
}

/* After a kill everything is in place, what a damaged record tells of, too: nothing is lost. */
static void kill_loses_nothing(struct subject *s, unsigned i, const uint8_t *image)
{
	struct test_pool p;
	struct told t;
	char why[300], place[80];

	repair(s, image, &p, &t);
	snprintf(place, sizeof(place), "at byte %u of the pool", s->r.rec[i].at);
	cr_assert(strstr(t.found, place) && strstr(t.fixed, place) && strstr(t.fixed, "should be, too"), "%s%s",
	          t.found, t.fixed);
	cr_assert(!strchr(t.fixed, '\n')[1], "more was changed than the journal: %s", t.fixed);
	cr_assert(journal_run_matches(&s->r, p.st, s->r.w->n, why), "%s, record %u: %s", s->r.name, i, why);
	pool_close(&p);
	pool_drop(&p);
}

/* Nothing was in place: what the damaged record told of is lost. The pool is sound, and says so. */
static void the_rest_is_sound(struct subject *s, unsigned i, const uint8_t *image)
{
	struct test_pool p;
	struct told t;

	repair(s, image, &p, &t);
	cr_assert(strstr(t.fixed, "is lost as far as it had not reached its place"), "%s, record %u: %s", s->r.name, i,
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
		cr_assert(journal_run_matches(&s->r, p.st, s->r.w->n, why), "%s, record %u: %s", s->r.name, i, why);
	pool_close(&p);
	pool_drop(&p);
	return shown;
}

static void mend(struct subject *s)
{
	uint8_t *image = malloc(s->r.len);
	unsigned shown = 0;

	for (unsigned i = 0; i < s->r.n; i++) {
		const struct journal_record *r = &s->r.rec[i];

		if (r->seq > vouched_without(s, i))
			continue;
		memcpy(image, s->r.killed, s->r.len);
		image[r->at + 40] ^= 1;
		kill_loses_nothing(s, i, image);
		memset(image + r->at, 0, r->len);
		kill_loses_nothing(s, i, image);
		memcpy(image, s->r.newest, s->r.len);
		image[r->at + 40] ^= 1;
		shown += newest_comes_back(s, i, image);
		memcpy(image, s->r.unapplied, s->r.len);
		image[r->at + 8] ^= 0x40;
		the_rest_is_sound(s, i, image);
	}
	cr_assert_gt(shown, 2, "%s", s->r.name);
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
	uint8_t *image = malloc(s->r.len);

	for (unsigned k = 0; k < 2; k++) {
		const uint8_t *sound = k ? s->r.unapplied : s->r.killed;

		memcpy(image, sound, s->r.len);
		for (unsigned i = 0; i < s->r.n; i++) {
			const struct journal_record *r = &s->r.rec[i];
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
		struct medium *d = medium_new(k ? s->r.unapplied : s->r.killed, s->r.len, s->r.method, false);
		struct pm_error why;
		struct pm_store *st = medium_open(d, &why);

		cr_assert_not_null(st, "%s: %s", s->r.name, why.text);
		cr_assert(journal_run_matches(&s->r, st, s->r.w->n, why.text), "%s: %s", s->r.name, why.text);
		store_drop(st);
		medium_free(d);
	}
}

static void all_of(const char *name, enum pm_method method, const struct op *ops, unsigned tail)
{
	struct subject s = { .r = journal_run(name, method, ops) };
	uint64_t most = 0;
	unsigned open = 0;

	for (unsigned i = 0; i < s.r.n; i++)
		most = s.r.rec[i].vouched > most ? s.r.rec[i].vouched : most;
	for (unsigned i = 0; i < s.r.n; i++)
		open += s.r.rec[i].seq > most;
	cr_assert(open >= 1 && open <= tail, "%s: %u of %u records are not called durable", name, open, s.r.n);
	sound_pools_open(&s);
	each_damage(&s);
	mend(&s);
	explore_note("journal damage, %s: %u records, %u damages named, %u of records at the end not\n", name, s.r.n,
	             s.missed, s.silent);
	cr_assert_gt(s.missed, s.silent);
	journal_run_free(&s.r);
}

TestSuite(journal_damage, .timeout = 300);

Test(journal_damage, is_named_with_clwb)
{
	all_of("clwb", PM_CLWB, journal_serial, 1);
}

Test(journal_damage, is_named_in_a_lane_used_before)
{
	all_of("used lane", PM_CLWB, journal_around, 1);
}

Test(journal_damage, is_named_with_fence)
{
	all_of("fence", PM_FENCE, journal_serial, 1);
}

Test(journal_damage, is_named_with_msync)
{
	all_of("msync", PM_MSYNC, journal_serial, 2);
}

Test(journal_damage, is_named_with_two_threads)
{
	all_of("two threads, clwb", PM_CLWB, journal_together, 2);
}

Test(journal_damage, is_named_with_two_threads_and_fence)
{
	all_of("two threads, fence", PM_FENCE, journal_together, 2);
}
