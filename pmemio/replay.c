/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay.c - what the lanes hold when a pool is opened, and what is made of it
 *
 * Records behind the last checkpoint are applied in the order of their seqs. Where one is missing there are two
 * reasons. The power failed while it was on its way: then nobody was told that it is durable, and those behind it do
 * not count either (J5). Or the medium has lost it since. Each record says which of those in front of it were durable
 * before its first byte was stored (J6), so a gap that a later record vouches for is damage, and any other is not:
 *
 *   1 2 3 . 5 6 .      6 says that 5 was durable: 4 is damaged. 7 may have been on its way.
 *   1 2 3 . 5 .        5 says that 3 was: 4 and 5 were on their way together.
 *
 * What follows the newest record that is left cannot be told from what was on its way.
 *
 * A pool with damage is opened for repair only. There is no way back to the time before the damage: blocks that were freed
 * later may have new contents. So the damaged records are passed over and the later ones applied. Those in front of
 * the damage are applied first, unless what came later is in place, as a kill leaves it: then they are in place as well,
 * and so is what the damaged ones changed, which the older ones would undo.
 *
 * Behind a damaged record the next one is looked for at every 8 bytes. What is found there is believed because of its
 * checksum: that covers the pool's secret, so nobody can make a name or the target of a link that passes for a
 * record.
 */
#include <errno.h>
#include <isa-l/crc.h>
#include <stdlib.h>

#include "pmemio/core.h"

struct found {
	uint64_t seq, at; /* at: byte in the pool */
	const struct pm_rec *rec;
};
struct founds {
	struct found *at; /* in the order of seq */
	size_t n, cap;
	uint64_t vouched; /* up to here all were durable */
	struct pm_lost lost;
	size_t behind; /* the first one behind the last gap */
};

/* --- headers --------------------------------------------------------------------------------- */

/* The header of a lane; false: neither copy is whole. @copy: the one to write next. */
static bool read_head(const struct pm_store *st, unsigned lane, uint64_t *seq, uint8_t *copy)
{
	bool ok = false;

	for (unsigned i = 0; i < 2; i++) {
		struct pm_lane_head h;

		memcpy(&h, st->media.view + lane_at(st, lane) + i * sizeof(h), sizeof(h));
		if (h.crc != pm_crc(&h, sizeof(h), offsetof(struct pm_lane_head, crc)))
			continue;
		if (!ok || h.ckpt_seq > *seq) {
			*seq = h.ckpt_seq;
			*copy = (uint8_t)!i;
		}
		ok = true;
	}
	return ok;
}

/* --- records --------------------------------------------------------------------------------- */

uint32_t rec_seed(const struct pm_super *s)
{
	return crc32_iscsi((uint8_t *)(uintptr_t)s->secret, sizeof(s->secret), ~0u);
}

/* Pools of version 1 have records without a statement, and without the secret. */
static bool sealed(const struct pm_store *st, const struct pm_rec *r)
{
	if (r->magic != PM_REC_MAGIC_1)
		return r->crc == rec_crc(rec_seed(&st->super), r);
	return r->crc == pm_crc(r, r->len, offsetof(struct pm_rec, crc));
}

static bool is_rec(const struct pm_store *st, const struct pm_rec *r)
{
	return r->magic == PM_REC_MAGIC || rec_has_data(r) ||
	       (st->super.version == 1 && r->magic == PM_REC_MAGIC_1 && r->unsure == PM_REC_TYPE_1);
}

/* The part of a record that tells of data lies inside it, and its runs where data may be. *at: behind it. */
static bool data_ok(const struct pm_store *st, const struct pm_rec *r, size_t *at)
{
	struct pm_rec_data d;
	struct pm_rec_run run;

	if (r->len - *at < sizeof(d))
		return false;
	memcpy(&d, (const uint8_t *)r + *at, sizeof(d));
	*at += sizeof(d);
	if (d.n > (r->len - *at) / sizeof(run))
		return false;
	for (uint32_t i = 0; i < d.n; i++, *at += sizeof(run)) {
		memcpy(&run, (const uint8_t *)r + *at, sizeof(run));
		if (run.at < st->super.data_start * PM_BLOCK || run.at >= st->super.blocks * PM_BLOCK ||
		    run.len > st->super.blocks * PM_BLOCK - run.at)
			return false;
	}
	return true;
}

/* A whole record at @p, @left bytes from the end of the area. Its ranges are inside it and inside
 * what the journal may change. */
static bool record_ok(const struct pm_store *st, const uint8_t *p, size_t left)
{
	const struct pm_rec *r = (const void *)p;
	size_t at = sizeof(*r);

	if (left < sizeof(*r) || !is_rec(st, r) || r->len < sizeof(*r) || r->len > left ||
	    r->len % 8 || r->len > journal_max_rec(st) || !sealed(st, r))
		return false;
	if (rec_has_data(r) && !data_ok(st, r, &at))
		return false;
	for (uint32_t i = 0; i < r->nranges; i++) {
		struct pm_rec_range rr;

		if (r->len - at < sizeof(rr))
			return false;
		memcpy(&rr, p + at, sizeof(rr));
		at += sizeof(rr);
		if (rr.len == 0 || rr.len % 8 || rr.len > r->len - at ||
		    rr.at < st->super.data_start * PM_BLOCK ||
		    rr.at + rr.len > st->super.blocks * PM_BLOCK)
			return false;
		at += rr.len;
	}
	return at == r->len;
}

/* All up to here were durable when @r was written. */
static uint64_t vouches(const struct pm_rec *r)
{
	return r->magic != PM_REC_MAGIC_1 && r->unsure != PM_REC_MUTE ? r->seq - 1 - r->unsure : 0;
}

static int add_found(struct founds *f, const struct pm_rec *r, uint64_t at)
{
	if (f->n == f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 256;
		struct found *more = realloc(f->at, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		f->at = more;
		f->cap = cap;
	}
	f->at[f->n++] = (struct found){ r->seq, at, r };
	if (vouches(r) > f->vouched)
		f->vouched = vouches(r);
	return 0;
}

/* The records of a lane that are younger than @ckpt. @search: behind what is none, too. */
static int collect(struct pm_store *st, unsigned lane, uint64_t ckpt, bool search, struct founds *f)
{
	uint64_t from = lane_at(st, lane) + PM_BLOCK;
	size_t area = lane_area(st), at = 0;
	int err = 0;

	while (!err && at + sizeof(struct pm_rec) <= area) {
		const uint8_t *p = st->media.view + from + at;
		const struct pm_rec *r = (const void *)p;

		if (r->seq > ckpt && record_ok(st, p, area - at)) {
			err = add_found(f, r, from + at);
			at += r->len;
		} else if (search) {
			at += 8;
		} else {
			break;
		}
	}
	return err;
}

static int by_seq(const void *a, const void *b)
{
	uint64_t x = ((const struct found *)a)->seq, y = ((const struct found *)b)->seq;

	return x < y ? -1 : x > y;
}

/* All from the last checkpoint on are in one lane, begun behind that. Where it is says its first record, or the header of the lane
 * before; the lane behind is for a checkpoint that neither tells of any more. */
static void where_to_search(const struct pm_store *st, const struct replay *r, bool search[PM_MAX_LANES])
{
	for (unsigned i = 0; i < st->super.lanes; i++) {
		unsigned next = (i + 1) % st->super.lanes;
		bool begun = r->first[i] > r->ckpt;

		search[i] |= begun || (i == 0 && r->ckpt << 24 == 0); /* lane 0 is the first of a boot */
		search[next] |= begun || r->bad[i] || r->head[i] == r->ckpt;
	}
}

/* A pool that was closed has nothing to replay but what is in place already, wherever its records are. */
static int collect_all(struct pm_store *st, const struct replay *r, struct founds *f)
{
	bool search[PM_MAX_LANES] = { false };
	int err = 0;

	if (!st->info.was_clean && st->super.version > 1)
		where_to_search(st, r, search);
	for (unsigned i = 0; i < st->super.lanes && !err; i++)
		err = collect(st, i, r->ckpt, search[i], f);
	if (f->n)
		qsort(f->at, f->n, sizeof(*f->at), by_seq);
	return err;
}

/* --- gaps ------------------------------------------------------------------------------------ */

/* Records are missing in front of the @i-th: where they were. */
static void note_gap(const struct pm_store *st, struct founds *f, size_t i, uint64_t n)
{
	const struct found *next = &f->at[i], *prev = i ? next - 1 : NULL;
	unsigned lane = (unsigned)((next->at / PM_BLOCK - st->super.lane_start) / st->super.lane_blocks);
	uint64_t from = lane_at(st, lane) + PM_BLOCK;
	bool same = prev && prev->at >= from && prev->at < next->at;

	f->behind = i;
	if (!f->lost.n)
		f->lost = (struct pm_lost){ .lane = lane,
			                .at = same ? prev->at + prev->rec->len : from,
			                .before = same ? i : 0 };
	f->lost.n += n;
}

/* Which records count: an unbroken run, but for those that were durable and are lost. */
static void judge(struct pm_store *st, uint64_t ckpt, struct founds *f)
{
	uint64_t want = ckpt + 1;
	size_t i;

	for (i = 0; i < f->n; i++) {
		uint64_t seq = f->at[i].seq, upto = seq - 1 < f->vouched ? seq - 1 : f->vouched;

		if (seq > want && want <= f->vouched)
			note_gap(st, f, i, upto + 1 - want);
		if (seq > want && upto < seq - 1)
			break;
		want = seq + 1;
	}
	if (i < f->n)
		store_log(st, 6,
		          "%zu records behind a gap in the journal were not acknowledged: dropped",
		          f->n - i);
	f->n = i;
}

/* Changes in place come behind the drain that makes a record and its data durable. */
static bool was_applied(const struct pm_store *st, const struct pm_rec *rec)
{
	const uint8_t *p = rec_ranges(rec);

	for (uint32_t i = 0; i < rec->nranges; i++) {
		struct pm_rec_range rr;

		memcpy(&rr, p, sizeof(rr));
		p += sizeof(rr);
		if (memcmp(st->media.view + rr.at, p, rr.len))
			return false;
		p += rr.len;
	}
	return true;
}

/* A record that nobody calls durable may have come without its data; then neither it nor what follows was
 * acknowledged. The data of the others may have been overwritten since. */
static void drop_unfilled(struct pm_store *st, struct founds *f)
{
	for (size_t i = 0; i < f->n; i++) {
		if (f->at[i].seq <= f->vouched || !rec_has_data(f->at[i].rec) ||
		    sum_arrived(st, f->at[i].rec) || was_applied(st, f->at[i].rec))
			continue;
		store_log(st, 6, "a write whose data had not arrived was not acknowledged: dropped");
		f->n = i;
	}
}

/* --- replay ---------------------------------------------------------------------------------- */

void rec_apply(struct pm_store *st, const struct pm_rec *rec)
{
	const uint8_t *p = rec_ranges(rec);

	for (uint32_t i = 0; i < rec->nranges; i++) {
		struct pm_rec_range rr;

		memcpy(&rr, p, sizeof(rr));
		p += sizeof(rr);
		med_store(st, rr.at, p, rr.len);
		med_flush(st, rr.at, rr.len);
		p += rr.len;
	}
}

static int refuse(struct pm_store *st, const struct pm_lost *g, struct pm_error *why)
{
	bool many = g->n > 1;

	STAT_ADD(st, checksum_errors, 1);
	why_set(why,
	        "journal lane %u is damaged at byte %llu of the pool, behind %zu good records: %llu record%s %s missing that "
	        "later ones call durable; `berth check --repair` goes on without, and what changed by %s may be lost",
	        g->lane, (unsigned long long)g->at, g->before, (unsigned long long)g->n, many ? "s" : "",
	        many ? "are" : "is", many ? "them" : "it");
	return -EUCLEAN;
}

static int apply_all(struct pm_store *st, const struct founds *f, struct pm_error *why)
{
	if (f->n && st->media.fixed) {
		why_set(why, "has a journal to replay; open it read-write once");
		return -EROFS;
	}
	for (size_t i = 0; i < f->n; i++)
		rec_apply(st, f->at[i].rec);
	st->info.replayed = f->n;
	return 0;
}

/* --- replay of a damaged journal, for repair ------------------------------------------------- */

struct word { /* what a record makes of it */
	uint64_t at, val;
	size_t by; /* which record */
};
struct words {
	struct word *at;
	size_t n;
};

static int by_place(const void *a, const void *b)
{
	const struct word *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->by > y->by ? -1 : x->by < y->by;
}

static void add_words(struct words *w, const struct found *f, size_t by)
{
	const uint8_t *p = rec_ranges(f->rec);

	for (uint32_t i = 0; i < f->rec->nranges; i++) {
		struct pm_rec_range rr;

		memcpy(&rr, p, sizeof(rr));
		p += sizeof(rr);
		for (uint64_t k = 0; k < rr.len; k += 8, p += 8) {
			struct word *new = &w->at[w->n++];

			*new = (struct word){ .at = rr.at + k, .by = by };
			memcpy(&new->val, p, 8);
		}
	}
}

/* What the records behind the damage make of each word in the end. */
static int last_words(const struct founds *f, struct words *w)
{
	size_t most = 1, n = 0;

	for (size_t i = f->behind; i < f->n; i++)
		most += f->at[i].rec->len / 8;
	*w = (struct words){ .at = malloc(most * sizeof(*w->at)) };
	if (!w->at)
		return -ENOMEM;
	for (size_t i = f->behind; i < f->n; i++)
		add_words(w, &f->at[i], i);
	qsort(w->at, w->n, sizeof(*w->at), by_place);
	for (size_t i = 0; i < w->n; i++)
		if (!n || w->at[n - 1].at != w->at[i].at)
			w->at[n++] = w->at[i];
	w->n = n;
	return 0;
}

static bool in_place(const struct pm_store *st, const struct word *w)
{
	return !memcmp(st->media.view + w->at, &w->val, 8);
}

/* Did everything reach its place before the journal was damaged? A loss of power may have kept the newest records from it:
 * they are asked only if all that others changed was changed again. */
static bool all_in_place(const struct pm_store *st, const struct founds *f, const struct words *w)
{
	size_t seen = 0;
	bool newest = true;

	for (size_t i = 0; i < w->n; i++) {
		bool is = in_place(st, &w->at[i]);

		if (f->at[w->at[i].by].seq >= f->vouched && w->at[i].by != f->behind) {
			newest &= is;
			continue;
		}
		if (!is)
			return false;
		seen++;
	}
	return seen || (w->n && newest);
}

/* Cut off and begun again either way comes to the same: what is made true here is what is asked for above, and a replay in
 * order ends with it. */
static int apply_around(struct pm_store *st, struct founds *f, struct pm_error *why)
{
	struct words w;
	int err = last_words(f, &w);

	if (err)
		return err;
	f->lost.in_place = all_in_place(st, f, &w);
	if (!f->lost.in_place)
		err = apply_all(st, f, why);
	for (size_t i = 0; i < w.n && f->lost.in_place; i++) {
		if (in_place(st, &w.at[i]))
			continue;
		med_store(st, w.at[i].at, &w.at[i].val, 8);
		med_flush(st, w.at[i].at, 8);
	}
	st->info.replayed = f->n;
	st->lost = f->lost;
	free(w.at);
	return err;
}

/* --- entry ----------------------------------------------------------------------------------- */

static int replay(struct pm_store *st, const struct replay *r, struct pm_error *why)
{
	struct founds f = { .vouched = r->ckpt };
	int err = collect_all(st, r, &f);

	if (!err) {
		judge(st, r->ckpt, &f);
		drop_unfilled(st, &f);
		err = !f.lost.n    ? apply_all(st, &f, why)
		      : st->repair ? apply_around(st, &f, why)
		                   : refuse(st, &f.lost, why);
	}
	free(f.at);
	return err;
}

/* The first record of a lane, or 0. A lane is filled from its start only after a checkpoint behind everything older is durable
 * (J3), so it tells of one, even if the header that said so has been damaged since. */
static uint64_t first_record(const struct pm_store *st, unsigned lane)
{
	const uint8_t *p = st->media.view + lane_at(st, lane) + PM_BLOCK;

	return record_ok(st, p, lane_area(st)) ? ((const struct pm_rec *)(const void *)p)->seq : 0;
}

static void read_lanes(const struct pm_store *st, struct replay *r)
{
	*r = (struct replay){ .ckpt = 0 };
	for (unsigned i = 0; i < st->super.lanes; i++) {
		r->bad[i] = !read_head(st, i, &r->head[i], &r->copy[i]);
		r->first[i] = first_record(st, i);
		if (r->head[i] > r->ckpt)
			r->ckpt = r->head[i];
		if (r->first[i] && r->first[i] - 1 > r->ckpt)
			r->ckpt = r->first[i] - 1;
	}
}

uint64_t journal_boot(const struct pm_store *st)
{
	struct replay r;

	read_lanes(st, &r);
	return r.ckpt >> 40;
}

int replay_lanes(struct pm_store *st, struct replay *out, struct pm_error *why)
{
	read_lanes(st, out);
	for (unsigned i = 0; i < st->super.lanes && !st->repair; i++) {
		if (!out->bad[i])
			continue;
		why_set(why,
		        "journal lane %u has a bad header; `berth check --repair` makes it "
		        "anew",
		        i);
		STAT_ADD(st, checksum_errors, 1);
		return -EUCLEAN;
	}
	return replay(st, out, why);
}
