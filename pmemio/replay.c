/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay.c - what the lanes hold when a pool is opened, and what is made of it
 *
 * Read journal.c first.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"

struct found {
	uint64_t seq;
	const struct pm_rec *rec;
};
struct founds {
	struct found *at;
	size_t n, cap;
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

/* A whole record at @p, @left bytes from the end of the area. Its ranges are inside it and inside
 * what the journal may change. */
static bool record_ok(const struct pm_store *st, const uint8_t *p, size_t left)
{
	const struct pm_rec *r = (const void *)p;
	size_t at = sizeof(*r);

	if (left < sizeof(*r) || r->magic != PM_REC_MAGIC || r->type != PM_REC_TX ||
	    r->len < sizeof(*r) || r->len > left || r->len % 8 || r->len > journal_max_rec(st) ||
	    r->crc != pm_crc(r, r->len, offsetof(struct pm_rec, crc)))
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

static int collect(struct pm_store *st, unsigned lane, uint64_t ckpt, struct founds *f)
{
	const uint8_t *p = st->media.view + lane_at(st, lane) + PM_BLOCK;
	const uint8_t *end = p + lane_area(st);
	uint64_t prev = ckpt;

	while (record_ok(st, p, (size_t)(end - p))) {
		const struct pm_rec *r = (const void *)p;

		if (r->seq <= prev)
			break;
		if (f->n == f->cap) {
			size_t cap = f->cap ? f->cap * 2 : 256;
			struct found *at = realloc(f->at, cap * sizeof(*at));

			if (!at)
				return -ENOMEM;
			f->at = at;
			f->cap = cap;
		}
		f->at[f->n++] = (struct found){ r->seq, r };
		prev = r->seq;
		p += r->len;
	}
	return 0;
}

static int by_seq(const void *a, const void *b)
{
	uint64_t x = ((const struct found *)a)->seq, y = ((const struct found *)b)->seq;

	return x < y ? -1 : x > y;
}

void rec_apply(struct pm_store *st, const struct pm_rec *rec)
{
	const uint8_t *p = (const uint8_t *)(rec + 1);

	for (uint32_t i = 0; i < rec->nranges; i++) {
		struct pm_rec_range rr;

		memcpy(&rr, p, sizeof(rr));
		p += sizeof(rr);
		med_store(st, rr.at, p, rr.len);
		med_flush(st, rr.at, rr.len);
		p += rr.len;
	}
}

/* Apply the unbroken run behind @ckpt; what lies behind a gap was never acknowledged. */
static int replay(struct pm_store *st, uint64_t ckpt, struct pm_error *why)
{
	struct founds f = { 0 };
	int err = 0;

	for (unsigned i = 0; i < st->super.lanes && !err; i++)
		err = collect(st, i, ckpt, &f);
	if (err) {
		free(f.at);
		return err;
	}
	if (f.n)
		qsort(f.at, f.n, sizeof(*f.at), by_seq);
	for (size_t i = 0; i < f.n && f.at[i].seq == ckpt + 1 + i; i++) {
		if (st->media.fixed) {
			why_set(why, "has a journal to replay; open it read-write once");
			err = -EROFS;
			break;
		}
		rec_apply(st, f.at[i].rec);
		st->info.replayed++;
	}
	if (!err && f.n > st->info.replayed)
		store_log(st, 6,
		          "%llu records behind a gap in the journal were not acknowledged: dropped",
		          (unsigned long long)(f.n - st->info.replayed));
	free(f.at);
	return err;
}

/* A lane is filled from its start only after a checkpoint behind everything older is durable (J3), so its first
 * record tells of one, even if the header that said so has been damaged since. */
static uint64_t told_by_record(const struct pm_store *st, unsigned lane)
{
	const uint8_t *p = st->media.view + lane_at(st, lane) + PM_BLOCK;

	return record_ok(st, p, lane_area(st)) ? ((const struct pm_rec *)(const void *)p)->seq - 1
	                                       : 0;
}

uint64_t journal_boot(const struct pm_store *st)
{
	uint64_t most = 0, seq = 0;
	uint8_t copy;

	for (unsigned i = 0; i < st->super.lanes; i++) {
		if (read_head(st, i, &seq, &copy) && seq > most)
			most = seq;
		seq = told_by_record(st, i);
		if (seq > most)
			most = seq;
	}
	return most >> 40;
}

int replay_lanes(struct pm_store *st, struct replay *out, struct pm_error *why)
{
	uint64_t seq;

	*out = (struct replay){ .ckpt = 0 };
	for (unsigned i = 0; i < st->super.lanes; i++) {
		seq = told_by_record(st, i);
		if (seq > out->ckpt)
			out->ckpt = seq;
		out->bad[i] = !read_head(st, i, &seq, &out->copy[i]);
		if (out->bad[i] && st->repair)
			continue;
		if (out->bad[i]) {
			why_set(why,
			        "journal lane %u has a bad header; `berth check --repair` makes it "
			        "anew",
			        i);
			STAT_ADD(st, checksum_errors, 1);
			return -EUCLEAN;
		}
		if (seq > out->ckpt)
			out->ckpt = seq;
	}
	return replay(st, out->ckpt, why);
}
