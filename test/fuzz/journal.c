/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * journal.c - whatever the lanes hold, opening, checking and repairing end well
 *
 * An input names a recorded run and an image of it, then changes to its journal, eight bytes each:
 *
 *   0 kind, 0x80: the record gets the checksum that it should have, with the pool's secret
 *   1 record (or lane)   2, 3 place in it   4 - 7 value
 *
 * Nothing may crash, read outside the pool, or go on for ever. What repair says is sound must be. Where no checksum was
 * made good the changes are damage, and then more is known: a record that is no longer whole, and that one which is
 * calls durable, must be missed; without such a one the pool opens, and holds what the records up to the first damage
 * made of it (where no later write has put its data over other, which no record can undo).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/fuzz/journal.h"
#include "test/lib/journal.h"

#define SEALED 0x80u
#define CHANGES 32u

enum { FLIP, STORE, ZERO, COPY, FIELD, ADD, HEAD, RANGE, KINDS };

struct change {
	uint8_t kind, rec;
	uint16_t at;
	uint32_t val;
};
struct subject {
	const struct journal_run *r;
	struct pm_super sb;
	uint8_t *image;
	const uint8_t *sound;
	bool in_place; /* what the records tell of */
	bool honest, heads;
};

#define RUNS 4u
static struct journal_run runs[RUNS]; /* made once: libFuzzer calls again and again */
static struct journal_fuzz_seen seen;

const struct journal_fuzz_seen *journal_fuzz_seen(void)
{
	return &seen;
}

static void fail(const struct subject *s, const char *what, const char *more)
{
	fprintf(stderr, "%s: %s: %s\n", s->r->name, what, more);
	abort();
}

/* --- changing ---------------------------------------------------------------------------------- */

static uint8_t *lane_of(const struct subject *s, unsigned lane)
{
	return s->image + (s->sb.lane_start + (uint64_t)lane * s->sb.lane_blocks) * PM_BLOCK;
}

/* Bytes from @p to the end of its lane. */
static size_t left_at(const struct subject *s, const uint8_t *p)
{
	size_t lane = (size_t)s->sb.lane_blocks * PM_BLOCK;

	return lane - (size_t)(p - lane_of(s, 0)) % lane;
}

static void seal(const struct subject *s, uint8_t *p)
{
	struct pm_rec *r = (void *)p;

	if (r->len >= sizeof(*r) && r->len <= left_at(s, p) && r->len <= 1u << 20)
		r->crc = rec_crc(rec_seed(&s->sb), r);
}

/* One of the words of a record's header. */
static uint32_t *field_of(uint8_t *p, unsigned which)
{
	return (uint32_t *)(void *)p + which % (sizeof(struct pm_rec) / 4);
}

static void change_range(const struct subject *s, uint8_t *p, const struct change *c)
{
	const struct pm_rec *r = (const void *)p;
	size_t at = sizeof(*r), end = r->len < left_at(s, p) ? r->len : left_at(s, p);
	struct pm_rec_range rr;

	for (unsigned i = 0; at + sizeof(rr) <= end; i++) {
		memcpy(&rr, p + at, sizeof(rr));
		if (i == c->at % 8 || at + sizeof(rr) + rr.len + sizeof(rr) > end)
			break;
		at += sizeof(rr) + rr.len;
	}
	if (at + sizeof(rr) > end)
		return;
	if (c->at & 0x100)
		rr.len = c->val & 0xffff;
	else
		rr.at = c->at & 0x200 ? (uint64_t)c->val << 16 : c->val;
	memcpy(p + at, &rr, sizeof(rr));
}

static void change_head(struct subject *s, const struct change *c)
{
	struct pm_lane_head *h = (void *)(lane_of(s, c->rec % s->sb.lanes) + (c->at & 1) * sizeof(*h));

	if (c->at & 2)
		h->ckpt_seq += (c->val & 0xff) - 0x80ull;
	else
		h->ckpt_seq ^= (uint64_t)c->val << (c->at >> 2 & 31);
	if (c->kind & SEALED)
		h->crc = pm_crc(h, sizeof(*h), offsetof(struct pm_lane_head, crc));
	s->heads = true;
}

static void copy_record(struct subject *s, uint8_t *to, unsigned from)
{
	const struct journal_record *r = &s->r->rec[from % s->r->n];

	memmove(to, s->image + r->at, r->len < left_at(s, to) ? r->len : left_at(s, to));
	s->honest = false; /* a whole record in another place */
}

static void change(struct subject *s, const struct change *c)
{
	const struct journal_record *r = &s->r->rec[c->rec % s->r->n];
	uint8_t *p = s->image + r->at;
	uint32_t at = c->at % r->len, n = c->val % (r->len - at) + 1;

	s->honest &= !(c->kind & SEALED);
	switch (c->kind % SEALED % KINDS) {
	case FLIP:
		p[at] ^= (uint8_t)c->val;
		break;
	case STORE:
		memcpy(p + at / 4 * 4, &c->val, sizeof(c->val));
		break;
	case ZERO:
		memset(p + at, 0, n);
		break;
	case COPY:
		copy_record(s, p, c->val);
		break;
	case FIELD:
		*field_of(p, c->at) = c->val;
		break;
	case ADD:
		*field_of(p, c->at) += (c->val & 0xff) - 0x80;
		break;
	case HEAD:
		change_head(s, c);
		return;
	default:
		change_range(s, p, c);
	}
	if (c->kind & SEALED)
		seal(s, p);
}

/* --- judging ----------------------------------------------------------------------------------- */

static bool intact(const struct subject *s, unsigned k)
{
	const struct journal_record *r = &s->r->rec[k];

	return !memcmp(s->image + r->at, s->sound + r->at, r->len);
}

/* Is a record damaged that a whole one calls durable? *first: of those damaged. */
static bool is_missed(const struct subject *s, unsigned *first)
{
	uint64_t vouched = 0;

	*first = s->r->n;
	for (unsigned k = 0; k < s->r->n; k++)
		if (intact(s, k) && s->r->rec[k].vouched > vouched)
			vouched = s->r->rec[k].vouched;
	for (unsigned k = s->r->n; k-- > 0;)
		*first = intact(s, k) ? *first : k;
	return *first < s->r->n && s->r->rec[*first].seq <= vouched;
}

static void judge(const struct subject *s, struct pm_store *st, const char *why)
{
	char last[300] = "";
	unsigned first, upto, n = s->r->w->n;

	seen.honest++;
	if (is_missed(s, &first)) {
		seen.missed++;
		if (st)
			fail(s, "damage goes unseen", "a later record calls it durable");
		return;
	}
	if (!st && !s->heads)
		fail(s, "false alarm", why);
	if (!st || s->in_place || s->r->ops != journal_apart)
		return;
	upto = first < s->r->n ? s->r->rec[first].begun : n;
	for (unsigned k = first < s->r->n ? s->r->rec[first].answered : n; k <= upto; k++)
		if (journal_run_matches(s->r, st, k, last))
			return;
	fail(s, "not the tree that the whole records lead to", last);
}

struct problems {
	unsigned n;
	char first[200];
};

static void problem(void *arg, const char *where, const char *what)
{
	struct problems *p = arg;

	if (!p->n++)
		snprintf(p->first, sizeof(p->first), "%s: %s", where, what);
}

static void check_open(const struct subject *s, struct pm_store *st, bool sound, const char *after)
{
	struct problems p = { .n = 0 };
	struct pm_check_report rep;

	store_check(st, problem, NULL, &p, &rep);
	if (sound && p.n)
		fail(s, after, p.first);
}

static void try_open(const struct subject *s, bool ro)
{
	struct medium *d = medium_new(s->image, s->r->len, s->r->method, false);
	struct pm_error why = { "" };
	struct pm_store *st = ro ? medium_open_ro(d, &why) : medium_open(d, &why);

	seen.opened += !!st;
	seen.refused += !st;
	if (!st && !why.text[0])
		fail(s, "refused", "without a reason");
	if (s->honest)
		judge(s, st, why.text);
	if (st) {
		/* over what is in place already the last records may be missing: only repair of a kill tells */
		check_open(s, st, s->honest && !s->in_place, "opened, but not sound");
		store_drop(st);
	}
	medium_free(d);
}

static void nothing(void *arg, const char *where, const char *what)
{
	(void)arg;
	(void)where;
	(void)what;
}

static void try_repair(const struct subject *s)
{
	const struct pm_repair_calls calls = { .found = nothing, .fixed = nothing, .left = problem };
	struct medium *d = medium_new(s->image, s->r->len, s->r->method, false);
	struct pm_repair_report rep = { 0 };
	struct pm_error why = { "" };
	struct problems p = { .n = 0 };
	struct pm_store *st;
	unsigned first;
	int err = medium_repair(d, &calls, &p, &rep, &why);

	/* what a record that is lost had given up may have two owners now */
	if (s->honest && (err || (rep.left && (s->in_place || !is_missed(s, &first)))))
		fail(s, "repair", err ? why.text : p.first);
	if (!err && !rep.left) {
		seen.repaired++;
		st = medium_open(d, &why);
		if (!st)
			fail(s, "repaired, but not opened", why.text);
		check_open(s, st, true, "repaired, but not sound");
		store_drop(st);
	}
	medium_free(d);
}

/* --- entry ------------------------------------------------------------------------------------- */

static void make_runs(void)
{
	runs[0] = journal_run("apart, clwb", PM_CLWB, journal_apart);
	runs[1] = journal_run("used lane, clwb", PM_CLWB, journal_around);
	runs[2] = journal_run("together, fence", PM_FENCE, journal_together);
	runs[3] = journal_run("apart, msync", PM_MSYNC, journal_apart);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct subject s = { .honest = true };

	if (!size)
		return 0;
	if (!runs[0].n)
		make_runs();
	s.r = &runs[data[0] % RUNS];
	s.in_place = data[0] & 0x10;
	s.sound = s.in_place ? s.r->killed : s.r->unapplied;
	s.image = malloc(s.r->len);
	if (!s.image)
		return 0;
	memcpy(s.image, s.sound, s.r->len);
	memcpy(&s.sb, s.image, sizeof(s.sb));
	for (size_t at = 1; at + 8 <= size && at < 1 + 8 * CHANGES; at += 8) {
		struct change c = { .kind = data[at], .rec = data[at + 1] };

		memcpy(&c.at, data + at + 2, sizeof(c.at));
		memcpy(&c.val, data + at + 4, sizeof(c.val));
		change(&s, &c);
	}
	try_open(&s, true);
	try_open(&s, false);
	try_repair(&s);
	free(s.image);
	return 0;
}
