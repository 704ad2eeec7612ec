/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * batch.c - commits that are ready together share their drains
 *
 * What joins is noted, no more: its map stays what it was, a write under way, and whatever comes in between (truncate,
 * remove, another write to the same block) finds what it would have found. At the end of the batch, under the locks of all
 * its inodes,
 *
 *   data of all, flushed
 *   one transaction: extents, sizes and times of all files
 *     drain: the data is durable (P2)
 *     drain: so is the record; then it is applied, and all are answered
 *
 * so two drains, however many files there are. One transaction is more than anybody may rely on: what is not plain, or fits
 * into none, is committed by itself behind it, as pm_commit does; so is one that is alone in its batch.
 *
 * B1  Of one file the answers follow each other: `before` of one is `attr` of the one before, and its times are later.
 *     Whoever looks at the file meanwhile sees none of it, or all.
 * B2  The inode of the first pin is waited for, those of the others are tried (L4). What somebody keeps is left to the next
 *     round, and of one file nothing overtakes what is left.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

#define BATCH_PINS 256u       /* what else comes is committed at once */
#define ROUND_PINS (ALSO + 1u) /* a transaction of so many, of as many inodes at most */

struct pm_batch {
	struct pm_store *st;
	unsigned n, most; /* most 0: a store where nothing is gained */
	bool ending;
	struct pm_pin *pin[BATCH_PINS]; /* as they joined */
};

int pm_batch_make(struct pm_store *st, struct pm_batch **out)
{
	bool gains = (st->media.method == PM_CLWB || st->media.method == PM_FENCE) && !sum_on(st);
	struct pm_batch *b = malloc(sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->st = st;
	b->n = 0;
	b->most = gains ? BATCH_PINS : 0;
	b->ending = false;
	*out = b;
	return 0;
}

void pm_batch_free(struct pm_batch *b)
{
	assert(!b || (!b->n && !b->ending));
	free(b);
}

int pm_batch_commit(struct pm_batch *b, struct pm_map *m, uint64_t prefix, enum pm_stable stable, bool honor,
                    struct pm_committed *out, struct pm_wait *w)
{
	int err = commit_ask(m, prefix, stable, honor, out, w);

	if (err)
		return err;
	if (m->pin->unstable || b->n == b->most)
		return commit_now(m->pin);
	b->pin[b->n++] = m->pin;
	return -EINPROGRESS;
}

/* --- a round: one transaction ---------------------------------------------------------------- */

enum lot {
	LATER,  /* for the next round */
	SINGLE, /* by itself, behind this one */
	JOINED,
	OVER,   /* pin->res is the answer */
};
struct group { /* pins of one file, as they joined */
	struct file *f;
	const struct pm_inode *in; /* NULL: err; or LATER */
	struct pm_pin *first, *last; /* JOINED */
	enum lot lot; /* of the next pin */
	int err;
};
struct round {
	struct pm_store *st;
	struct pm_worker *w; /* NULL: alone */
	struct pm_pin **pin;
	unsigned n, ngroup;
	unsigned puts; /* extents in the transaction */
	struct group group[ROUND_PINS];
};

static struct group *group_of(struct round *r, struct file *f)
{
	struct group *g;

	for (unsigned i = r->ngroup; i-- > 0;)
		if (r->group[i].f == f)
			return &r->group[i];
	g = &r->group[r->ngroup++];
	*g = (struct group){ .f = f, .lot = LATER };
	if (!inode_also(r->st, r->w, f->id.ino))
		return g;
	g->in = file_inode(r->st, f->id, &g->err);
	/* with unstable data there are two ends of file to be told apart */
	g->lot = !g->in ? OVER : f->over ? SINGLE : JOINED;
	return g;
}

/* Neither placed in part nor cut: nothing of it has to be taken back. */
static bool is_whole(const struct pm_pin *p)
{
	return p->prefix >= p->len && p->cut >= p->off + p->len;
}

static void join(struct round *r, struct group *g, struct pm_pin *p)
{
	p->end = p->off + p->len;
	p->res = faults_probe(r->st, p->map->seg, p->map->nseg, false);
	if (!p->res)
		p->res = commit_flush(p, g->in, r->w);
	if (p->res) {
		p->lot = OVER;
		return;
	}
	p->more = NULL;
	if (g->first)
		g->last->more = p;
	else
		g->first = p;
	g->last = p;
}

static void take(struct round *r, struct pm_pin *p)
{
	struct group *g = group_of(r, p->f);

	if (g->lot == JOINED && !is_whole(p))
		g->lot = SINGLE;
	p->lot = (uint8_t)g->lot;
	if (g->lot == OVER)
		p->res = commit_gone(p, g->err);
	else if (g->lot == JOINED)
		join(r, g, p);
}

/* --- the transaction --- */

/* What is fresh under the pin will be published. */
static int mark(struct pm_pin *p)
{
	uint64_t lblk = p->off / PM_BLOCK, end = blk_up(p->end);
	struct file *f = p->f;
	int err = fresh_reserve(f, 2);

	if (err || !p->len)
		return err;
	fresh_split(f, lblk);
	fresh_split(f, end);
	lease_changed(f, p, lblk, end);
	for (unsigned i = fresh_at(f, lblk); i < f->nfresh && f->fresh[i].lblk < end; i++)
		f->fresh[i].put = true;
	return 0;
}

static bool goes_on(const struct ext *e, const struct fresh *x)
{
	return x->put && e->lblk + e->len == x->lblk && e->pblk + e->len == x->pblk;
}

/* What lies side by side is one extent. */
static int put_marked(struct round *r, struct pm_tx *tx, const struct group *g)
{
	const struct file *f = g->f;
	int err = 0;

	for (unsigned i = 0; i < f->nfresh && !err;) {
		const struct fresh *x = &f->fresh[i++];
		struct ext e = { .lblk = x->lblk, .pblk = x->pblk, .len = x->len };

		if (!x->put)
			continue;
		for (; i < f->nfresh && goes_on(&e, &f->fresh[i]); i++)
			e.len += f->fresh[i].len;
		err = ++r->puts > TX_EXTENTS || tx_large(tx) ? -E2BIG : ext_put(r->st, tx, g->in, &e);
	}
	return err;
}

static struct pm_time next_instant(struct pm_time t)
{
	t.nsec++;
	if (t.nsec == 1000000000) {
		t.sec++;
		t.nsec = 0;
	}
	return t;
}

/* Size and times, and the answers (B1). */
static void stamp(struct pm_tx *tx, const struct group *g, struct pm_time now)
{
	struct pm_inode *sh = ino_edit(tx, g->in);
	struct pm_attr attr;

	ino_attr(g->in, &attr);
	for (struct pm_pin *p = g->first; p; p = p->more) {
		p->out->before = attr;
		if (p->len) {
			sh->size = max64(sh->size, p->end);
			sh->mtime = now;
			if (time_before(sh->ctime, now))
				sh->ctime = now;
			now = next_instant(now);
			ino_attr(sh, &attr);
		}
		p->out->attr = attr;
	}
}

static int put_group(struct round *r, struct pm_tx *tx, const struct group *g, struct pm_time now)
{
	int err = 0;

	for (struct pm_pin *p = g->first; p && !err; p = p->more)
		err = mark(p);
	if (!err)
		err = put_marked(r, tx, g);
	if (!err)
		stamp(tx, g, now);
	return err;
}

/* Published: no longer fresh. Else it stays so. */
static void drop_marked(struct pm_store *st, struct file *f, bool published)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->nfresh; i++) {
		struct fresh *x = &f->fresh[i];

		if (x->put && published) {
			fresh_count(st, f, x->owned, -x->len);
			continue;
		}
		x->put = false;
		f->fresh[n++] = *x;
	}
	f->nfresh = n;
}

static void answer(struct pm_store *st, const struct group *g)
{
	for (struct pm_pin *p = g->first; p; p = p->more) {
		promise_end(p);
		p->committed = true;
		p->out->stable = PM_FILE_SYNC;
		pm_write_verf(st, p->out->verf);
		p->lot = OVER;
	}
}

/* All that joined. On error nothing has happened. */
static int publish(struct round *r)
{
	struct pm_time now = store_now();
	struct pm_tx *tx = tx_begin(r->st);
	int err = 0;

	tx_admitted(tx);
	tx_after_data(tx);
	r->puts = 0;
	for (unsigned i = 0; i < r->ngroup && !err; i++)
		if (r->group[i].first)
			err = put_group(r, tx, &r->group[i], now);
	if (err)
		tx_abort(tx);
	else
		err = tx_commit(tx, NULL);
	for (unsigned i = 0; i < r->ngroup; i++) {
		if (!r->group[i].first)
			continue;
		drop_marked(r->st, r->group[i].f, !err);
		if (!err)
			answer(r->st, &r->group[i]);
	}
	return err;
}

static int attempt(struct round *r)
{
	bool any = false;

	files_sweep(r->st);
	r->ngroup = 0;
	for (unsigned i = 0; i < r->n; i++) {
		if (r->pin[i]->lot != OVER)
			take(r, r->pin[i]);
		any |= r->pin[i]->lot == JOINED;
	}
	return any ? publish(r) : 0;
}

/* Every pin has got its lot; who waited for those that are over. */
static struct pm_wait *run_round(struct pm_store *st, struct pm_pin **pin, unsigned n)
{
	struct round r = { .st = st, .pin = pin, .n = n };
	struct pm_wait *waiters = NULL, **end = &waiters;
	uint64_t ino = pin[0]->f->id.ino;
	int err;

	for (unsigned i = 0; i < n; i++)
		pin[i]->lot = LATER;
	r.w = inode_lock_write(st, ino);
	err = attempt(&r);
	if (err == NEEDS_ALL) {
		inode_alone(st, &r.w, ino);
		err = attempt(&r);
	}
	for (unsigned i = 0; i < n; i++) {
		if (pin[i]->lot == JOINED)
			pin[i]->lot = SINGLE;
		if (pin[i]->lot != OVER)
			continue;
		for (pin_wake(pin[i], end); *end; end = &(*end)->next)
			;
	}
	inode_unlock(st, r.w, ino);
	return waiters;
}

/* --- the end --------------------------------------------------------------------------------- */

static void tell(struct pm_pin *p, int err)
{
	struct pm_wait *w = p->w;

	w->done(w, err); /* the pin may be gone */
}

/* Returns how many are left, at the end of @pin. */
static unsigned end_round(struct pm_store *st, struct pm_pin **pin, unsigned n)
{
	struct pm_pin *single[ROUND_PINS], *later[ROUND_PINS];
	unsigned nsingle = 0, nlater = 0;

	wake_all(run_round(st, pin, n));
	for (unsigned i = 0; i < n; i++) {
		struct pm_pin *p = pin[i];

		if (p->lot == OVER)
			tell(p, p->res);
		else if (p->lot == SINGLE)
			single[nsingle++] = p;
		else
			later[nlater++] = p;
	}
	for (unsigned i = 0; i < nsingle; i++)
		tell(single[i], commit_now(single[i]));
	memcpy(pin + n - nlater, later, nlater * sizeof(later[0]));
	return nlater;
}

/* Those that joined until now. */
static __attribute__((noinline)) void end_some(struct pm_batch *b)
{
	struct pm_pin *pin[BATCH_PINS], **p = pin;
	unsigned n = b->n, k;

	memcpy(pin, b->pin, n * sizeof(pin[0]));
	b->n = 0;
	for (; n > 1; p += k, n -= k) {
		k = n < ROUND_PINS ? n : ROUND_PINS;
		k -= end_round(b->st, p, k);
	}
	if (n)
		tell(*p, commit_now(*p));
}

void pm_batch_end(struct pm_batch *b)
{
	if (!b->n || b->ending)
		return;
	b->ending = true;
	do {
		if (b->n > 1) {
			end_some(b);
		} else {
			b->n = 0;
			tell(b->pin[0], commit_now(b->pin[0]));
		}
	} while (b->n);
	b->ending = false;
}
