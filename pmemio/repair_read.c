/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_read.c - the readable part of trees */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/repair.h"

static void content_add(struct content *c, uint64_t key, const void *val, uint16_t len)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 64;
		struct bt_entry *e = realloc(c->e, cap * sizeof(*e));

		if (!e) {
			c->nomem = true;
			return;
		}
		c->e = e;
		c->cap = cap;
	}
	c->e[c->n++] = (struct bt_entry){ key, val, len };
}

/* @tell: name what cannot be read (once: several passes come this way). */
static void read_node(struct content *c, uint64_t blk, unsigned level, uint64_t min, uint64_t max,
                      bool tell)
{
	struct repair *r = c->r;
	const struct pm_bnode *n = blk_ptr(r->st, blk);
	const char *fault =
		inside(r, blk, 1) ? bt_fault(n, c->in->ino, blk, level) : "outside the data area";

	if (fault) {
		c->broken = true;
		c->lost_inner |= level > 0;
		if (tell)
			rep_say(r, rep_where(r, c->in->ino).text,
			    "%s 0x%llx (keys %llu to %llu) dropped: %s", level ? "node" : "leaf",
			    ULL(blk), ULL(min), ULL(max), fault);
		return;
	}
	c->nodes++;
	set_bit(r->meta, blk);
	blk_mark(r->st, blk, 1);
	for (unsigned i = 0; i < n->count; i++) {
		const struct pm_bent *e = node_ent(n, i);
		uint64_t down;

		if (e->key < min || e->key > max)
			c->broken = true;
		if (level == 0) {
			content_add(c, e->key, e->val, e->len);
			continue;
		}
		memcpy(&down, e->val, sizeof(down));
		read_node(c, down, level - 1, e->key,
		          i + 1u < n->count ? node_ent(n, i + 1)->key - 1 : max, tell);
	}
}

int rep_by_key(const void *a, const void *b)
{
	uint64_t x = ((const struct bt_entry *)a)->key, y = ((const struct bt_entry *)b)->key;

	return x < y ? -1 : x > y;
}

static void mark_extents(struct repair *r, const struct pm_bnode *leaf)
{
	for (unsigned i = 0; i < leaf->count; i++) {
		struct pm_ext x;

		if (node_ent(leaf, i)->len != sizeof(x))
			continue;
		memcpy(&x, node_ent(leaf, i)->val, sizeof(x));
		if (inside(r, x.pblk, x.len_lo))
			blk_mark(r->st, x.pblk, x.len_lo);
	}
}

/* Every good leaf whose owner has lost a node above leaves, but in no file: there a client may have written what looks
 * like one. Nothing new may land on them, nor on
 * what they lead to: that they are needed shows only when their owner's turn comes. */
int rep_leaves(struct repair *r)
{
	size_t cap = 0;

	for (uint64_t b = r->st->super.data_start; b < r->nblk; b++) {
		const struct pm_bnode *n = blk_ptr(r->st, b);

		if (bit(r->data, b) || n->magic != PM_NODE_MAGIC || n->self != b || n->level || n->owner >= r->nino ||
		    !r->obj[n->owner].lost_inner || bt_fault(n, n->owner, b, 0))
			continue;
		blk_mark(r->st, b, 1);
		if (ino_at(r->st, n->owner)->type != PM_DIR)
			mark_extents(r, n);
		if (r->nleaf == cap) {
			struct leaf *l = realloc(r->leaf, (cap = cap ? 2 * cap : 256) * sizeof(*l));

			if (!l)
				return -ENOMEM;
			r->leaf = l;
		}
		r->leaf[r->nleaf++] = (struct leaf){ n->owner, b };
	}
	return 0;
}

static bool same_entry(const struct bt_entry *a, const struct bt_entry *b)
{
	return a->key == b->key && a->len == b->len && !memcmp(a->val, b->val, a->len);
}

static uint64_t blocks_of(const struct content *c)
{
	uint64_t blocks = 0;
	struct pm_ext x;

	for (size_t i = 0; i < c->n && c->in->type != PM_DIR; i++)
		if (c->e[i].len == sizeof(x)) {
			memcpy(&x, c->e[i].val, sizeof(x));
			blocks += x.len_lo;
		}
	return blocks;
}

/* What was found again stands in a tree once more, every entry as it was: only then may any of them be changed. New
 * leaves with something else in them would be a second version, should the power fail before they have a root. */
static int stand_again(struct content *c)
{
	struct repair *r = c->r;
	int err;

	store_lock(r->st);
	err = bt_rebuild(r->st, c->in, c->e, c->n, blocks_of(c));
	store_unlock(r->st);
	c->n = 0;
	c->nodes = 0;
	c->broken = c->lost_inner = false;
	if (!err)
		rep_tree(c, false);
	return err;
}

/* Leaves that nothing leads to any more are taken back if with them, and only with all of them,
 * there are as many entries as the inode says, none of them in two versions: leaves that the tree
 * gave up earlier do not add up. Those that an interrupted repair wrote are copies and count once.
 */
int rep_regain(struct content *c)
{
	struct repair *r = c->r;
	struct content all = { .r = r, .in = c->in };
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		content_add(&all, c->e[i].key, c->e[i].val, c->e[i].len);
	for (size_t i = 0; i < r->nleaf; i++) {
		const struct pm_bnode *l = blk_ptr(r->st, r->leaf[i].blk);

		for (unsigned k = 0; k < l->count && r->leaf[i].owner == c->in->ino; k++)
			content_add(&all, node_ent(l, k)->key, node_ent(l, k)->val,
			            node_ent(l, k)->len);
	}
	if (all.n)
		qsort(all.e, all.n, sizeof(*all.e), rep_by_key);
	for (size_t i = 0; i < all.n; i++) {
		if (n && same_entry(&all.e[n - 1], &all.e[i]))
			continue;
		if (n && all.e[n - 1].key == all.e[i].key)
			break;
		all.e[n++] = all.e[i];
	}
	if (all.nomem || n == 0 || n != c->in->u.tree.count || r->obj[c->in->ino].salvaged) {
		free(all.e);
		return all.nomem ? -ENOMEM : 0;
	}
	rep_say(r, rep_where(r, c->in->ino).text, "all %zu entries found again in its leaves", n);
	free(c->e);
	c->e = all.e;
	c->n = n;
	c->cap = all.cap;
	return stand_again(c);
}

/* All that is readable of the tree that @in has. */
void rep_tree(struct content *c, bool tell)
{
	const struct pm_inode *in = c->in;

	if (!in->u.tree.height || in->u.tree.height > MAX_LEVELS) {
		c->broken = c->lost_inner = true;
		if (tell)
			rep_say(c->r, rep_where(c->r, in->ino).text,
			    "impossible tree height %u dropped", in->u.tree.height);
		return;
	}
	read_node(c, in->u.tree.root, in->u.tree.height - 1, 0, UINT64_MAX, tell);
}

void rep_inline(struct content *c)
{
	const struct pm_inode *in = c->in;

	for (unsigned i = 0; i < PM_INLINE_EXTENTS && in->u.ext[i].len_lo; i++)
		content_add(c, in->u.ext[i].lblk, &in->u.ext[i], sizeof(in->u.ext[i]));
}
