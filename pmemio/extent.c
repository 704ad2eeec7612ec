/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extent.c - which blocks hold a file
 *
 * Up to PM_INLINE_EXTENTS extents stand in the inode itself, sorted; one more moves them all into a
 * B+tree whose key is the file block and whose value is the struct pm_ext. When a tree has shrunk
 * to half of what fits inline it moves back, so that a file at the border does not go to and fro.
 *
 * The five rec_ functions hide which of the two it is; find, put and cut are written on top of
 * them. A record from the media is believed only if it lies inside the pool.
 */
#include <errno.h>
#include <syslog.h>

#include "pmemio/core.h"

#define COLLAPSE (PM_INLINE_EXTENTS / 2)

static int unpack(struct pm_store *st, const struct pm_inode *in, const struct pm_ext *x,
                  struct ext *e)
{
	e->lblk = x->lblk;
	e->len = x->len_lo;
	e->pblk = x->pblk;
	e->unwritten = x->flags & PM_XF_UNWRITTEN;
	if (e->len && e->pblk >= st->super.data_start && e->pblk < st->super.blocks &&
	    e->len <= st->super.blocks - e->pblk && !(x->flags & ~PM_XF_UNWRITTEN))
		return 0;
	store_log(st, LOG_ERR, "inode %llu: extent at file block %llu points outside the data area",
	          (unsigned long long)in->ino, (unsigned long long)e->lblk);
	STAT_ADD(st, checksum_errors, 1);
	return -EIO;
}

static struct pm_ext pack(const struct ext *e)
{
	return (struct pm_ext){
		.lblk = e->lblk & ((1ull << 44) - 1),
		.len_lo = e->len & PM_EXT_MAX_LEN,
		.pblk = e->pblk & ((1ull << 44) - 1),
		.flags = e->unwritten ? PM_XF_UNWRITTEN : 0,
	};
}

static const struct pm_inode *look(struct pm_tx *tx, const struct pm_inode *in)
{
	return tx ? ino_look(tx, in) : in;
}

static bool is_tree(struct pm_tx *tx, const struct pm_inode *in)
{
	return look(tx, in)->flags & PM_IF_TREE;
}

static unsigned inline_count(const struct pm_inode *in)
{
	unsigned n = 0;

	while (n < PM_INLINE_EXTENTS && in->u.ext[n].len_lo)
		n++;
	return n;
}

static int rec_cursor(struct pm_store *st, const struct pm_inode *in, const struct bt_cursor *c,
                      struct ext *e)
{
	struct pm_ext x;

	if (c->len != sizeof(x))
		return -EIO;
	memcpy(&x, c->val, sizeof(x));
	return x.lblk == c->key ? unpack(st, in, &x, e) : -EIO;
}

/* The last record that starts at or before @lblk; -ENOENT. */
static int rec_le(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk,
                  struct ext *e)
{
	const struct pm_inode *now = look(tx, in);
	struct bt_cursor c;
	unsigned i = 0;
	int err;

	if (now->flags & PM_IF_TREE) {
		err = bt_seek_le(st, tx, in, lblk, &c);
		return err ? err : rec_cursor(st, in, &c, e);
	}
	while (i < PM_INLINE_EXTENTS && now->u.ext[i].len_lo && now->u.ext[i].lblk <= lblk)
		i++;
	return i ? unpack(st, in, &now->u.ext[i - 1], e) : -ENOENT;
}

/* The first record that starts at or behind @lblk; -ENOENT. */
static int rec_ge(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk,
                  struct ext *e)
{
	const struct pm_inode *now = look(tx, in);
	struct bt_cursor c;
	int err;

	if (now->flags & PM_IF_TREE) {
		err = bt_seek(st, tx, in, lblk, &c);
		return err ? err : rec_cursor(st, in, &c, e);
	}
	for (unsigned i = 0; i < PM_INLINE_EXTENTS && now->u.ext[i].len_lo; i++) {
		if (now->u.ext[i].lblk >= lblk)
			return unpack(st, in, &now->u.ext[i], e);
	}
	return -ENOENT;
}

static int to_tree(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in)
{
	struct pm_inode *sh = ino_edit(tx, in);
	struct pm_ext old[PM_INLINE_EXTENTS];

	memcpy(old, sh->u.ext, sizeof(old));
	memset(&sh->u, 0, sizeof(sh->u));
	sh->flags |= PM_IF_TREE;
	for (unsigned i = 0; i < PM_INLINE_EXTENTS && old[i].len_lo; i++) {
		int err = bt_insert(st, tx, in, old[i].lblk, &old[i], sizeof(old[i]));

		if (err)
			return err;
	}
	return 0;
}

static int to_inline(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in)
{
	struct pm_ext keep[PM_INLINE_EXTENTS] = { 0 };
	struct pm_inode *sh;
	uint64_t at = 0;
	struct ext e;
	unsigned n = 0;
	int err;

	while (!(err = rec_ge(st, tx, in, at, &e)) && n < PM_INLINE_EXTENTS) {
		keep[n++] = pack(&e);
		at = e.lblk + e.len;
	}
	if (err != -ENOENT)
		return err ? err : -EIO; /* more entries than the root says */
	err = bt_drop(st, tx, in);
	if (err)
		return err;
	sh = ino_edit(tx, in);
	memset(&sh->u, 0, sizeof(sh->u));
	memcpy(sh->u.ext, keep, sizeof(keep));
	sh->flags &= (uint16_t)~PM_IF_TREE;
	return 0;
}

static int rec_add(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in,
                   const struct ext *e)
{
	struct pm_ext x = pack(e);
	struct pm_inode *sh;
	unsigned n, i = 0;
	int err;

	if (!is_tree(tx, in)) {
		sh = ino_edit(tx, in);
		n = inline_count(sh);
		if (n < PM_INLINE_EXTENTS) {
			while (i < n && sh->u.ext[i].lblk < x.lblk)
				i++;
			memmove(&sh->u.ext[i + 1], &sh->u.ext[i], (n - i) * sizeof(x));
			sh->u.ext[i] = x;
			return 0;
		}
		err = to_tree(st, tx, in);
		if (err)
			return err;
	}
	return bt_insert(st, tx, in, x.lblk, &x, sizeof(x));
}

static int rec_del(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk)
{
	struct pm_inode *sh;
	unsigned n, i = 0;
	int err;

	if (is_tree(tx, in)) {
		err = bt_delete(st, tx, in, lblk);
		if (!err && look(tx, in)->u.tree.count <= COLLAPSE)
			err = to_inline(st, tx, in);
		return err;
	}
	sh = ino_edit(tx, in);
	n = inline_count(sh);
	while (i < n && sh->u.ext[i].lblk != lblk)
		i++;
	if (i == n)
		return -ENOENT;
	memmove(&sh->u.ext[i], &sh->u.ext[i + 1], (n - 1 - i) * sizeof(sh->u.ext[0]));
	memset(&sh->u.ext[n - 1], 0, sizeof(sh->u.ext[0]));
	return 0;
}

/* Change a record in place; its key stays. */
static int rec_set(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in,
                   const struct ext *e)
{
	struct pm_ext x = pack(e);
	struct pm_inode *sh;

	if (is_tree(tx, in))
		return bt_replace(st, tx, in, x.lblk, &x, sizeof(x));
	sh = ino_edit(tx, in);
	for (unsigned i = 0; i < PM_INLINE_EXTENTS && sh->u.ext[i].len_lo; i++) {
		if (sh->u.ext[i].lblk == x.lblk) {
			sh->u.ext[i] = x;
			return 0;
		}
	}
	return -ENOENT;
}

static bool adjacent(const struct ext *a, const struct ext *b)
{
	return a->lblk + a->len == b->lblk && a->pblk + a->len == b->pblk &&
	       a->unwritten == b->unwritten && a->len + b->len <= PM_EXT_MAX_LEN;
}

/* Add a record over a hole, joined with its neighbours where they go on in the pool as well. */
static int add_merged(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in,
                      struct ext e)
{
	struct ext l, r;
	bool left;
	int err;

	err = rec_ge(st, tx, in, e.lblk, &r);
	if (err && err != -ENOENT)
		return err;
	if (!err && adjacent(&e, &r)) {
		err = rec_del(st, tx, in, r.lblk);
		if (err)
			return err;
		e.len += r.len;
	}
	err = e.lblk ? rec_le(st, tx, in, e.lblk - 1, &l) : -ENOENT;
	if (err && err != -ENOENT)
		return err;
	left = !err && adjacent(&l, &e);
	if (left) {
		l.len += e.len;
		return rec_set(st, tx, in, &l);
	}
	return rec_add(st, tx, in, &e);
}

/* Take [from, to) out of the record @e that overlaps it. */
static int cut_one(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, struct ext e,
                   uint64_t from, uint64_t to)
{
	struct ext rest = e;
	int err;

	rest.len = to < e.lblk + e.len ? e.lblk + e.len - to : 0;
	rest.lblk = to;
	rest.pblk = e.pblk + (to - e.lblk);
	if (from > e.lblk) {
		e.len = from - e.lblk;
		err = rec_set(st, tx, in, &e);
	} else {
		err = rec_del(st, tx, in, e.lblk);
	}
	if (!err && rest.len)
		err = rec_add(st, tx, in, &rest);
	return err;
}

/* The record that holds @lblk, else the first one behind it. */
static int rec_at(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk,
                  struct ext *e)
{
	int err = rec_le(st, tx, in, lblk, e);

	if (!err && e->lblk + e->len > lblk)
		return 0;
	if (err && err != -ENOENT)
		return err;
	return rec_ge(st, tx, in, lblk, e);
}

int ext_cut(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk,
            uint64_t len, void (*fn)(void *arg, const struct ext *e), void *arg)
{
	uint64_t end = len > UINT64_MAX - lblk ? UINT64_MAX : lblk + len;
	struct ext e, piece;
	int err;

	while (lblk < end) {
		err = rec_at(st, tx, in, lblk, &e);
		if (err == -ENOENT || (!err && e.lblk >= end))
			return 0;
		if (err)
			return err;
		piece = e;
		piece.lblk = e.lblk > lblk ? e.lblk : lblk;
		piece.len = (e.lblk + e.len < end ? e.lblk + e.len : end) - piece.lblk;
		piece.pblk = e.pblk + (piece.lblk - e.lblk);
		err = cut_one(st, tx, in, e, piece.lblk, piece.lblk + piece.len);
		if (err)
			return err;
		ino_edit(tx, in)->blocks -= piece.len;
		if (fn)
			fn(arg, &piece);
		lblk = piece.lblk + piece.len;
	}
	return 0;
}

int ext_put(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, const struct ext *e)
{
	uint64_t done = 0;
	int err = ext_cut(st, tx, in, e->lblk, e->len, NULL, NULL);

	while (!err && done < e->len) {
		struct ext x = { .lblk = e->lblk + done,
			         .pblk = e->pblk + done,
			         .len = e->len - done,
			         .unwritten = e->unwritten };

		if (x.len > PM_EXT_MAX_LEN)
			x.len = PM_EXT_MAX_LEN;
		err = add_merged(st, tx, in, x);
		done += x.len;
	}
	if (!err)
		ino_edit(tx, in)->blocks += e->len;
	return err;
}

int ext_find(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk,
             struct ext *e)
{
	int err = rec_at(st, tx, in, lblk, e);

	if (err && err != -ENOENT)
		return err;
	if (!err && e->lblk <= lblk)
		return 0;
	*e = (struct ext){ .lblk = lblk, .len = (err ? UINT64_MAX : e->lblk) - lblk };
	return -ENOENT;
}

struct each {
	struct pm_store *st;
	const struct pm_inode *in;
	int (*fn)(void *arg, const struct ext *e);
	void *arg;
};

static int each_one(const struct each *a, const struct pm_ext *x)
{
	struct ext e;
	int err = unpack(a->st, a->in, x, &e);

	return err ? err : a->fn(a->arg, &e);
}

static int each_leaf(void *arg, uint64_t blk, const struct pm_bnode *node)
{
	int err = 0;

	(void)blk;
	for (unsigned i = 0; !node->level && !err && i < node->count; i++) {
		const uint8_t *at = (const uint8_t *)node + node->slot[i];
		struct pm_ext x;
		uint16_t len;

		memcpy(&len, at + offsetof(struct pm_bent, len), sizeof(len));
		if (len != sizeof(x))
			return -EIO;
		memcpy(&x, at + offsetof(struct pm_bent, val), sizeof(x));
		err = each_one(arg, &x);
	}
	return err;
}

int ext_each(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in,
             int (*fn)(void *arg, const struct ext *e), void *arg)
{
	const struct pm_inode *now = look(tx, in);
	struct each a = { .st = st, .in = in, .fn = fn, .arg = arg };
	int err = 0;

	if (now->flags & PM_IF_TREE)
		return bt_walk(st, tx, in, true, each_leaf, &a);
	for (unsigned i = 0; !err && i < PM_INLINE_EXTENTS && now->u.ext[i].len_lo; i++)
		err = each_one(&a, &now->u.ext[i]);
	return err;
}
