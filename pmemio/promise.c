/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * promise.c - extents that are still to come need tree nodes: those are seen to before the payload arrives
 *
 * A payload is placed over blocks that the file has as well as into new ones, so that a write cannot be refused
 * any more once it has begun. What its commit needs besides the blocks that are mapped are nodes of the
 * extent tree. pm_map_write promises them: of the reserve that alloc.c keeps, and under the limits of the owners.
 *
 * N1  The commit of a promised write takes its nodes without being judged; nobody else may take them.
 * N2  The promise is the most that so many extents can need, where that is to be had; near a limit it is
 *     what trying shows, in a transaction that is then dropped. Then it is right as long as nobody
 *     else changes the tree: so another write to the file waits, and a truncate makes the promise a
 *     generous one, which its own nodes, set free, pay for. A reservation and the commit of a lease are let
 *     through if what the write needs then is to be had besides; for unstable writes that are settled it is
 *     part of what they owed.
 * N3  A lease is promised nothing, since nobody knows what of it will be committed. Its commit is judged by trying
 *     before the first of its transactions: it is refused as a whole.
 */
#include <errno.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

#define LEAF 100u /* extents that fill a leaf, at least; a split leaves half of them */
#define FAR  4096u /* blocks: a limit that is not near */

/* The most nodes that @n more puts need, each of which may leave two extents more: every full leaf may
 * split, and those that follow each other as one has filled up again. Inner nodes likewise. @apart: they may lie
 * anywhere in the file; else side by side. */
static uint64_t most_nodes(const struct pm_inode *in, uint64_t n, bool apart)
{
	uint64_t have = 0, full = 2, splits;

	if (!n)
		return 0;
	if (in->flags & PM_IF_TREE) {
		full += apart ? in->u.tree.count / LEAF : 0;
		splits = min64(2 * n, 4 * n / LEAF + full);
		return splits + splits / 8 + full / LEAF + in->u.tree.height + 2;
	}
	while (have < PM_INLINE_EXTENTS && in->u.ext[have].len_lo)
		have++;
	return have + 2 * n <= PM_INLINE_EXTENTS ? 0 : 2 * (have + 2 * n) / LEAF + 3;
}

static uint64_t count_fresh(const struct file *f, uint64_t lblk, uint64_t end, bool and_dirty)
{
	uint64_t n = 0;

	for (unsigned i = and_dirty ? 0 : fresh_at(f, lblk);
	     i < f->nfresh && (and_dirty || f->fresh[i].lblk < end); i++)
		n += (and_dirty && f->fresh[i].state == DIRTY) ||
		     (f->fresh[i].lblk < end && f->fresh[i].lblk + f->fresh[i].len > lblk);
	return n;
}

static bool limited(const struct file *f)
{
	return quota_limits(f->quota[0]) || quota_limits(f->quota[1]);
}

static void owe(struct pm_store *st, struct file *f, uint64_t *what, uint64_t n)
{
	if (n == *what)
		return;
	blk_owe(st, n - *what);
	quota_owe(f->quota[0], n - *what);
	quota_owe(f->quota[1], n - *what);
	*what = n;
}

/* --- trying --- */

/* Put into the tree what @pub is going to publish, in a transaction that is dropped. *data: blocks of it that are
 * pending. */
static int try_put(struct pm_tx *tx, const struct file *f, const struct pm_inode *in, const struct pub *pub,
                   uint64_t *data)
{
	struct pm_store *st = tx_store(tx);
	int err = 0;

	*data = 0;

	for (unsigned i = fresh_at(f, pub->lblk); !err && i < f->nfresh && f->fresh[i].lblk < pub->end; i++) {
		const struct fresh *x = &f->fresh[i];
		struct ext e = { .lblk = x->lblk, .pblk = x->pblk, .len = x->len };

		if (!pub_has(pub, x))
			continue;
		err = ext_put(st, tx, in, &e);
		*data += x->owned || x->cow ? 0 : x->len;
	}
	return err;
}

static void promise(struct pm_pin *p, uint64_t n)
{
	p->f->promised -= p->promised;
	owe(p->st, p->f, &p->promised, n);
	p->f->promised += p->promised;
}

/* The write that counts on the tree as it is: others wait, so there is one at most. */
static struct pm_pin *exact_of(const struct file *f)
{
	struct pm_pin *p;

	LIST_FOREACH (p, &f->pins, link) {
		if (p->exact && !p->committed)
			return p;
	}
	return NULL;
}

bool promise_exact(const struct file *f)
{
	return exact_of(f);
}

/* The nodes that @p needs behind what is in the transaction: those kept for it may be taken. */
static int try_exact(struct pm_tx *tx, struct pm_pin *p, const struct pm_inode *in, uint64_t *n)
{
	struct pub pub = { .lblk = p->off / PM_BLOCK, .end = blk_up(p->off + p->len) };
	uint64_t had = p->promised, before = tx_taken(tx), data;
	int err;

	promise(p, 0);
	err = try_put(tx, p->f, in, &pub, &data);
	*n = max64(had, tx_taken(tx) - before);
	promise(p, had);
	return err;
}

int promise_judge(struct pm_tx *tx, struct file *f, const struct pm_inode *in, int64_t more)
{
	struct pm_pin *p = exact_of(f);
	uint64_t n = 0;
	int err = 0;

	if (p) {
		err = try_exact(tx, p, in, &n);
		more += (int64_t)(n - p->promised);
	}
	if (!err && more > 0 && !file_may_grow(f, (uint64_t)more))
		err = -EDQUOT;
	if (!err && p)
		promise(p, n);
	return err;
}

static int try_and_judge(struct pm_store *st, struct file *f, const struct pm_inode *in,
                         const struct pub *pub, uint64_t *taken)
{
	struct pm_tx *tx = tx_begin(st);
	uint64_t data;
	int err = try_put(tx, f, in, pub, &data);

	*taken = tx_taken(tx);
	if (!err)
		err = promise_judge(tx, f, in, (int64_t)(ino_look(tx, in)->blocks - in->blocks - data));
	tx_abort(tx);
	return err;
}

int promise_try(struct pm_store *st, struct file *f, const struct pm_inode *in, const struct pub *pub)
{
	uint64_t n = count_fresh(f, pub->lblk, pub->end, false), taken;
	bool many = n > 1 && most_nodes(in, n, true); /* one transaction judges itself */
	bool exact = n && exact_of(f);

	if (!many && !exact)
		return 0;
	if (worker_here(st) && (exact || limited(f)))
		return NEEDS_ALL;
	return try_and_judge(st, f, in, pub, &taken);
}

void promise_again(struct pm_store *st, struct file *f, const struct pm_inode *in)
{
	struct pm_pin *p = exact_of(f);
	struct pm_tx *tx;
	uint64_t n;

	if (!p)
		return;
	tx = tx_begin(st);
	if (try_exact(tx, p, in, &n))
		promise_loosen(p, in);
	else
		promise(p, n);
	tx_abort(tx);
}

/* --- writes under way --- */

/* Who else is writing to the file, and will soon be over? */
static struct pm_pin *another(const struct pm_pin *p)
{
	struct pm_pin *o;

	LIST_FOREACH (o, &p->f->pins, link) {
		if (o != p && o->write && !o->committed && !o->lease)
			return o;
	}
	return NULL;
}

int promise_make(struct pm_pin *p, const struct pm_inode *in, struct pm_worker *w, struct pm_pin **busy)
{
	struct pub pub = { .lblk = p->off / PM_BLOCK, .end = blk_up(p->off + p->len) };
	uint64_t n = most_nodes(in, count_fresh(p->f, pub.lblk, pub.end, false), false);
	int err;

	if (!n)
		return 0;
	if (w && limited(p->f))
		return NEEDS_ALL;
	if (file_may_grow(p->f, n + FAR) && blk_promise(p->st, n, 1)) {
		blk_owe(p->st, -n); /* promise() counts it */
		promise(p, n);
		return 0;
	}
	if (w)
		return NEEDS_ALL;
	*busy = another(p);
	if (*busy)
		return -EINPROGRESS;
	err = try_and_judge(p->st, p->f, in, &pub, &n);
	if (err)
		return err;
	promise(p, n);
	p->exact = true;
	return 0;
}

void promise_loosen(struct pm_pin *p, const struct pm_inode *in)
{
	uint64_t n;

	if (!p->exact)
		return;
	n = count_fresh(p->f, p->off / PM_BLOCK, blk_up(p->off + p->len), false);
	promise(p, max64(p->promised, most_nodes(in, n + 1, false)));
}

void promise_end(struct pm_pin *p)
{
	promise(p, 0);
	p->exact = false;
}

/* --- unstable writes --- */

int file_owe(struct pm_store *st, struct file *f, const struct pm_inode *in, struct pm_worker *w, uint64_t lblk,
             uint64_t end)
{
	uint64_t n = most_nodes(in, limited(f) ? count_fresh(f, lblk, end, true) : f->nfresh, true);

	if (n > f->owed) {
		if (w && limited(f))
			return NEEDS_ALL;
		if (!file_may_grow(f, n - f->owed))
			return -EDQUOT;
		if (!blk_promise(st, n - f->owed, 2))
			return -ENOSPC;
		blk_owe(st, f->owed - n);
	}
	owe(st, f, &f->owed, n);
	return 0;
}

void file_unowe(struct pm_store *st, struct file *f)
{
	owe(st, f, &f->owed, 0);
}
