/* SPDX-License-Identifier: BSD-3-Clause */
/* log_fault.c - logs changed as mistakes in pmemio would have them */
#include <string.h>

#include "pmemio/core.h"
#include "test/lib/log_fault.h"

#define ANY 0xff

/* --- changing a log -------------------------------------------------------------------------- */

static bool is(const struct ev *e, unsigned kind, unsigned where, unsigned via)
{
	return e->kind == kind && (where == ANY || e->where == where) &&
	       (via == ANY || e->via == via);
}

static bool is_store(const struct ev *e)
{
	return e->kind == EV_STORE || e->kind == EV_NT || e->kind == EV_PLACE;
}

static void drop(struct medium *d, size_t from, unsigned kind, unsigned where, unsigned via)
{
	for (size_t i = from; i < d->nev; i++)
		if (is(&d->ev[i], kind, where, via))
			d->ev[i].kind = EV_NONE;
}

static void move(struct medium *d, size_t i, size_t to)
{
	struct ev e = d->ev[i];

	if (i < to) {
		to--; /* to stand before what was there */
		memmove(&d->ev[i], &d->ev[i + 1], (to - i) * sizeof(e));
	} else {
		memmove(&d->ev[to + 1], &d->ev[to], (i - to) * sizeof(e));
	}
	d->ev[to] = e;
}

/* The first event of a kind at or behind @i; nev if there is none. */
static size_t next(const struct medium *d, size_t i, unsigned kind, unsigned where)
{
	while (i < d->nev && !is(&d->ev[i], kind, where, ANY))
		i++;
	return i;
}

static bool zeros(const struct medium *d, const struct ev *e)
{
	for (uint32_t i = 0; i < e->len; i++)
		if (d->bytes[e->bytes + i])
			return false;
	return true;
}

/* Where the record that follows event @i begins, and where it is durable. */
static size_t record(const struct medium *d, size_t i, size_t *done)
{
	size_t at = next(d, i, EV_STORE, AT_RECORD);

	*done = next(d, at, EV_FENCE, ANY);
	if (*done == d->nev)
		*done = next(d, at, EV_SYNC, AT_RECORD);
	return at;
}

/* The last fence before event @i and behind whatever was stored before it. */
static void drop_fence_before(struct medium *d, size_t from, unsigned where)
{
	for (size_t i = from; i < d->nev; i++) {
		size_t k = i;

		if (!is(&d->ev[i], EV_STORE, where, ANY))
			continue;
		while (k > from && !is_store(&d->ev[k - 1]) && d->ev[k].kind != EV_FENCE)
			k--;
		if (d->ev[k].kind == EV_FENCE)
			d->ev[k].kind = EV_NONE;
	}
}

static void drop_fence_behind(struct medium *d, size_t from, unsigned where)
{
	for (size_t i = from; i < d->nev; i++) {
		size_t k = is(&d->ev[i], EV_STORE, where, ANY) ? next(d, i, EV_FENCE, ANY) : d->nev;

		if (k < d->nev)
			d->ev[k].kind = EV_NONE;
	}
}

/* --- the faults ------------------------------------------------------------------------------ */

void fault_no_record_flush(struct medium *d, size_t from)
{
	drop(d, from, EV_FLUSH, AT_RECORD, ANY);
}

/* A record calls durable what was only on its way when it was made. */
void fault_early_statement(struct medium *d, size_t from)
{
	const struct pm_super *s = (const void *)d->m.base;

	for (size_t i = from; i < d->nev; i++) {
		struct pm_rec *r = (void *)(d->bytes + d->ev[i].bytes);

		if (!is(&d->ev[i], EV_STORE, AT_RECORD, ANY) || !r->unsure)
			continue;
		r->unsure = 0;
		r->crc = rec_crc(rec_seed(s), r);
	}
}

void fault_no_record_fence(struct medium *d, size_t from)
{
	drop_fence_behind(d, from, AT_RECORD);
}

void fault_no_fence_before_record(struct medium *d, size_t from)
{
	drop_fence_before(d, from, AT_RECORD);
}

void fault_no_payload_flush(struct medium *d, size_t from)
{
	drop(d, from, EV_FLUSH, AT_POOL, EV_PLACE);
}

void fault_half_payload_flush(struct medium *d, size_t from)
{
	for (size_t i = from; i < d->nev; i++)
		if (is(&d->ev[i], EV_FLUSH, AT_POOL, EV_PLACE) && d->ev[i].len > LINE)
			d->ev[i].len -= LINE;
}

/* Flushes of payload behind the record: the extent is durable, its bytes are not. */
void fault_late_payload_flush(struct medium *d, size_t from)
{
	for (size_t i = from, done; i < d->nev; i++) {
		if (!is(&d->ev[i], EV_FLUSH, AT_POOL, EV_PLACE))
			continue;
		record(d, i, &done);
		if (done < d->nev)
			move(d, i--, done + 1);
		if (done == d->nev || ++from > d->nev)
			return;
	}
}

void fault_late_payload(struct medium *d, size_t from)
{
	size_t done, at = from;

	while (at < d->nev && d->ev[at].kind != EV_PLACE)
		at++;
	record(d, at, &done);
	if (done < d->nev)
		move(d, at, done + 1);
}

void fault_no_zeroing(struct medium *d, size_t from)
{
	for (size_t i = from; i < d->nev; i++)
		if (d->ev[i].kind == EV_NT && zeros(d, &d->ev[i]))
			d->ev[i].kind = EV_NONE;
}

void fault_no_node_flush(struct medium *d, size_t from)
{
	drop(d, from, EV_FLUSH, AT_POOL, EV_NT);
}

void fault_late_nodes(struct medium *d, size_t from)
{
	for (size_t i = from, n = d->nev, done; i < n; i++) {
		if (d->ev[i].kind != EV_NT || zeros(d, &d->ev[i]))
			continue;
		record(d, i, &done);
		if (done == d->nev)
			return;
		move(d, i, done + 1);
		return;
	}
}

/* What belongs behind the record is stored before it. */
void fault_early_in_place(struct medium *d, size_t from)
{
	size_t done, at = record(d, from, &done);

	for (size_t i = done + 1; i < d->nev && d->ev[i].kind != EV_WINDOW; i++)
		if (is(&d->ev[i], EV_STORE, AT_POOL, ANY))
			move(d, i, at++);
}

/* What each of two threads changes in place comes as soon as its own record is fenced, wait or not for that of lower seq. */
void fault_no_turn(struct medium *d, size_t from)
{
	size_t rec[2] = { 0, 0 }, done[2] = { 0, 0 };
	unsigned late; /* whose record is durable later, and has the lower seq */

	for (size_t i = from; i < d->nev; i++) {
		unsigned k = d->ev[i].by - 1u;

		if (k < 2 && !rec[k] && is(&d->ev[i], EV_STORE, AT_RECORD, ANY))
			rec[k] = i;
		else if (k < 2 && rec[k] && !done[k] && d->ev[i].kind == EV_FENCE)
			done[k] = i;
	}
	late = done[1] > done[0];
	if (!rec[0] || !rec[1] || d->ev[rec[late]].at > d->ev[rec[!late]].at)
		return;
	for (size_t i = done[late] + 1, to = done[!late] + 1; i < d->nev; i++)
		if (d->ev[i].by == !late + 1 && is(&d->ev[i], EV_STORE, AT_POOL, ANY))
			move(d, i, to++);
}

void fault_no_in_place_flush(struct medium *d, size_t from)
{
	drop(d, from, EV_FLUSH, AT_POOL, EV_STORE);
}

void fault_no_fence_before_head(struct medium *d, size_t from)
{
	drop_fence_before(d, from, AT_HEAD);
}

/* The checkpoint is announced before the changes that it names are made. */
void fault_early_head(struct medium *d, size_t from)
{
	size_t done, at = record(d, from, &done), head = next(d, from, EV_STORE, AT_HEAD);

	if (at == d->nev || head == d->nev || done > head)
		return;
	for (unsigned n = 0; n < 3; n++) /* store, flush, fence */
		move(d, head + n, done + 1 + n);
}

void fault_no_super_flush(struct medium *d, size_t from)
{
	drop(d, from, EV_FLUSH, AT_SUPER, ANY);
}

void fault_no_super_store(struct medium *d, size_t from)
{
	drop(d, from, EV_STORE, AT_SUPER, ANY);
}

/* A block gets new bytes while the record that frees it may still be lost. */
void fault_early_reuse(struct medium *d, size_t from)
{
	size_t done, at = record(d, from, &done);

	for (size_t i = done + 1; i < d->nev; i++)
		if (d->ev[i].kind == EV_PLACE || (d->ev[i].kind == EV_NT && zeros(d, &d->ev[i])))
			move(d, i, at++);
}

void fault_no_data_sync(struct medium *d, size_t from)
{
	drop(d, from, EV_SYNC, AT_POOL, EV_PLACE);
}

void fault_no_record_sync(struct medium *d, size_t from)
{
	drop(d, from, EV_SYNC, AT_RECORD, ANY);
}

void fault_no_whole_sync(struct medium *d, size_t from)
{
	for (size_t i = from; i < d->nev; i++)
		if (d->ev[i].kind == EV_SYNC && d->ev[i].len == d->m.len)
			d->ev[i].kind = EV_NONE;
}

/* The first record, which takes checksums back, is durable only with the next. */
void fault_no_first_fence(struct medium *d, size_t from)
{
	size_t done;

	record(d, from, &done);
	if (done < d->nev)
		d->ev[done].kind = EV_NONE;
}

void fault_early_payload(struct medium *d, size_t from)
{
	size_t done, at = record(d, from, &done);

	for (size_t i = done + 1; i < d->nev; i++)
		if (d->ev[i].kind == EV_PLACE)
			move(d, i, at++);
}

/* Records tell of no data: they count whether it has arrived or not. */
void fault_untied_data(struct medium *d, size_t from)
{
	const struct pm_super *sb = (const void *)d->image;

	for (size_t i = from; i < d->nev; i++) {
		struct pm_rec *r = (void *)(d->bytes + d->ev[i].bytes);
		struct pm_rec_data data;

		if (!is(&d->ev[i], EV_STORE, AT_RECORD, ANY) || r->magic != PM_REC_MAGIC_DATA)
			continue;
		memcpy(&data, r + 1, sizeof(data));
		data.crc = 0; /* that of nothing */
		memcpy(r + 1, &data, sizeof(data));
		for (uint32_t k = 0; k < data.n; k++)
			memset((uint8_t *)(r + 1) + sizeof(data) + k * sizeof(struct pm_rec_run) +
			               offsetof(struct pm_rec_run, len),
			       0, sizeof(uint64_t));
		r->crc = rec_crc(rec_seed(sb), r);
	}
}

void fault_no_head(struct medium *d, size_t from)
{
	drop(d, from, EV_STORE, AT_HEAD, ANY);
}
