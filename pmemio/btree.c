/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * btree.c - B+trees of variable-size values: directory entries, and extents of files that have many
 *
 * One node is one block (format.h). What holds between any two transactions:
 *
 *   T1  Keys in a node grow; all keys below interior slot i lie in [key i, key i + 1).
 *   T2  No node is empty. A tree without entries has no node, and its inode no PM_IF_TREE.
 *   T3  All leaves are at level 0, the root at level height - 1.
 *   T4  low - end of slots is the free gap; every byte between low and the end of the block belongs
 *       to an entry, or is counted in dead.
 *
 * Removal leaves dead bytes behind and moves nothing, so that the journal sees few words; a node is
 * packed when an insertion needs what is dead. A node that is full splits in the middle by bytes,
 * except at the right edge of the tree, where keys that only grow leave full nodes behind. Nodes
 * under 40 % join a neighbour.
 *
 * A node from the view is verified, CRC and every offset, when a call first comes to it, and again
 * only when its block has been given to something else meanwhile or its page has failed: code behind
 * node_get() may trust what it reads. Shadows were verified before they were made.
 *
 * A descent is bound by memory that is not in the caches, so it asks for few lines and for those at
 * once: the slots, then the entries around the place where the key would be if keys were spread
 * evenly between what the parent says the node holds. Hashed names are.
 */
#include <errno.h>
#include <stdlib.h>
#include <syslog.h>

#include "pmemio/core.h"

#define HEAD       ((unsigned)sizeof(struct pm_bnode))
#define ENT_HEAD   ((unsigned)offsetof(struct pm_bent, val))
#define CAPACITY   (PM_BLOCK - HEAD)
#define SPARSE     (CAPACITY * 2 / 5)
#define MAX_HEIGHT 12u
#define MAX_VAL    1000u /* three entries fit in a node, so that a split always makes room */
#define NO_KEY     UINT64_MAX

/* A descent from the root (at height - 1) to a leaf (at 0): which slot was followed in each node.
 */
struct path {
	unsigned height;
	uint64_t blk[MAX_HEIGHT];
	unsigned slot[MAX_HEIGHT];
};

struct tree {
	struct pm_store *st;
	struct pm_tx *tx;
	const struct pm_inode *in;
};

/* --- one node --- */

static const struct pm_bent *ent(const struct pm_bnode *n, unsigned i)
{
	return (const struct pm_bent *)(const void *)((const uint8_t *)n + n->slot[i]);
}

static unsigned ent_size(unsigned len)
{
	return (ENT_HEAD + len + 7) & ~7u;
}

static uint64_t child(const struct pm_bnode *n, unsigned i)
{
	uint64_t blk;

	memcpy(&blk, ent(n, i)->val, sizeof(blk));
	return blk;
}

static unsigned gap(const struct pm_bnode *n)
{
	return n->low - HEAD - n->count * 2u;
}

static unsigned used(const struct pm_bnode *n)
{
	return CAPACITY - gap(n) - n->dead;
}

#define AROUND 3u /* entries on either side of a guess; half of all guesses are nearer */

/* What the node's parent says about its keys. */
struct bounds {
	uint64_t from, below;
};

static unsigned guess(const struct pm_bnode *n, uint64_t key, const struct bounds *b)
{
	unsigned i = 0, last = n->count - 1u;

	if (key >= b->below)
		i = last;
	else if (key > b->from)
		i = (unsigned)((unsigned __int128)(key - b->from) * n->count / (b->below - b->from));
	for (unsigned k = i > AROUND ? i - AROUND : 0; k <= i + AROUND && k <= last; k++)
		__builtin_prefetch(ent(n, k));
	return i;
}

/* First slot whose key is >= @key: by steps that double, away from a guess. */
static unsigned lower(const struct pm_bnode *n, uint64_t key, const struct bounds *b)
{
	unsigned at = guess(n, key, b), lo = 0, hi = n->count, step = 1;

	if (ent(n, at)->key < key) {
		lo = at + 1;
		while (lo + step <= hi && ent(n, lo + step - 1)->key < key) {
			lo += step;
			step *= 2;
		}
		hi = lo + step <= hi ? lo + step - 1 : hi;
	} else {
		hi = at;
		while (hi >= step && ent(n, hi - step)->key >= key) {
			hi -= step;
			step *= 2;
		}
		lo = hi >= step ? hi - step + 1 : 0;
	}
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (ent(n, mid)->key < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The slot to follow for @key: the last with a key <= @key, else the first. Narrows @b to its child. */
static unsigned follow_down(const struct pm_bnode *n, uint64_t key, struct bounds *b)
{
	unsigned i = lower(n, key, b);

	if (i == n->count || ent(n, i)->key != key)
		i -= i ? 1 : 0;
	b->from = ent(n, i)->key;
	if (i + 1u < n->count)
		b->below = ent(n, i + 1)->key;
	return i;
}

/* The caller has made sure of ent_size(len) + 2 bytes of gap. */
static void node_put(struct pm_bnode *n, unsigned at, uint64_t key, const void *val, unsigned len)
{
	unsigned low = n->low - ent_size(len);
	struct pm_bent *e = (struct pm_bent *)(void *)((uint8_t *)n + low);

	memset(e, 0, ent_size(len));
	e->key = key;
	e->len = (uint16_t)len;
	memcpy(e->val, val, len);
	memmove(&n->slot[at + 1], &n->slot[at], (n->count - at) * sizeof(n->slot[0]));
	n->slot[at] = (uint16_t)low;
	n->low = (uint16_t)low;
	n->count++;
}

static void node_cut(struct pm_bnode *n, unsigned at)
{
	unsigned size = ent_size(ent(n, at)->len);

	if (n->slot[at] == n->low)
		n->low = (uint16_t)(n->low + size);
	else
		n->dead = (uint16_t)(n->dead + size);
	n->count--;
	memmove(&n->slot[at], &n->slot[at + 1], (n->count - at) * sizeof(n->slot[0]));
	n->slot[n->count] = 0;
	if (n->count == 0) {
		n->low = PM_BLOCK;
		n->dead = 0;
	}
}

static void node_pack(struct pm_bnode *n)
{
	uint64_t copy[PM_BLOCK / 8];
	const struct pm_bnode *old = (const struct pm_bnode *)(const void *)copy;

	memcpy(copy, n, PM_BLOCK);
	memset((uint8_t *)n + HEAD, 0, CAPACITY);
	n->count = n->dead = 0;
	n->low = PM_BLOCK;
	for (unsigned i = 0; i < old->count; i++)
		node_put(n, i, ent(old, i)->key, ent(old, i)->val, ent(old, i)->len);
}

/* Room for one more value of @len bytes, packing if that gives it. */
static bool node_room(struct pm_bnode *n, unsigned len)
{
	unsigned need = ent_size(len) + 2;

	if (need <= gap(n))
		return true;
	if (need > gap(n) + n->dead)
		return false;
	node_pack(n);
	return true;
}

static const char *slots_fault(const struct pm_bnode *n)
{
	unsigned bytes = 0;
	uint64_t last = 0;

	for (unsigned i = 0; i < n->count; i++) {
		const struct pm_bent *e = ent(n, i);

		if (n->slot[i] % 8 || n->slot[i] < n->low || n->slot[i] > PM_BLOCK - 16)
			return "a slot points outside the entries";
		if (e->len > MAX_VAL || n->slot[i] + ENT_HEAD + e->len > PM_BLOCK ||
		    (n->level && e->len != 8))
			return "an entry has an impossible length";
		if (i && e->key <= last)
			return "keys out of order";
		last = e->key;
		bytes += ent_size(e->len);
	}
	return bytes + n->dead == PM_BLOCK - n->low ? NULL : "entries and free bytes do not add up";
}

const char *bt_fault(const struct pm_bnode *n, uint64_t ino, uint64_t blk, unsigned level)
{
	if (n->magic != PM_NODE_MAGIC)
		return "not a tree node (bad magic)";
	if (n->crc != pm_crc(n, PM_BLOCK, 0))
		return "bad checksum";
	if (n->owner != ino)
		return "belongs to another inode";
	if (n->self != blk)
		return "is the copy of another block";
	if (n->level != level)
		return "at the wrong level";
	if (n->count == 0 || n->low > PM_BLOCK || n->low < HEAD + n->count * 2u || n->low % 8)
		return "impossible counts";
	return slots_fault(n);
}

/* --- nodes of a tree --- */

static const struct pm_inode *inode(const struct tree *t)
{
	return t->tx ? ino_look(t->tx, t->in) : t->in;
}

static bool empty(const struct pm_inode *in)
{
	return !(in->flags & PM_IF_TREE) || in->u.tree.root == 0;
}

static int damaged(const struct tree *t, uint64_t blk, const char *what)
{
	if (blk < t->st->super.blocks && faults_in(t->st, blk * PM_BLOCK, PM_BLOCK))
		what = "media error: its memory cannot be read";
	STAT_ADD(t->st, checksum_errors, 1);
	if (__atomic_exchange_n(&t->st->damaged_node, blk, __ATOMIC_RELAXED) != blk)
		store_log(t->st, LOG_ERR, "inode %llu: tree node 0x%llx: %s; run `berth check`",
		          (unsigned long long)t->in->ino, (unsigned long long)blk, what);
	return -EIO;
}

#define SLOT_LINES 256u /* bytes at the start of a node that hold its slots, as a rule */

/* Ask for all of it at once, not line by line. */
static void fetch(const void *node, unsigned len)
{
	for (unsigned at = 0; at < len; at += 64)
		__builtin_prefetch((const uint8_t *)node + at);
}

/* A node as it lies in the view. A checksum reads the whole block. */
static const char *view_fault(const struct tree *t, const struct pm_bnode *n, uint64_t blk, unsigned level)
{
	struct pm_store *st = t->st;
	const char *what;

	if (blk_proved(st, blk) && !faults_in(st, blk * PM_BLOCK, PM_BLOCK)) {
		fetch(n, SLOT_LINES);
		return n->owner != t->in->ino ? "belongs to another inode" :
		       n->level != level      ? "at the wrong level" :
		                                NULL;
	}
	fetch(n, PM_BLOCK);
	what = bt_fault(n, t->in->ino, blk, level);
	if (!what && !st->repair)
		blk_prove(st, blk);
	return what;
}

static int node_get(const struct tree *t, uint64_t blk, unsigned level, const struct pm_bnode **out)
{
	const struct pm_super *s = &t->st->super;
	const struct pm_bnode *view, *n;
	const char *what;

	if (blk < s->data_start || blk >= s->blocks)
		return damaged(t, blk, "outside the data area");
	view = blk_ptr(t->st, blk);
	n = t->tx ? tx_look(t->tx, view) : view;
	if (n == view) {
		what = view_fault(t, n, blk, level);
		if (what)
			return damaged(t, blk, what);
	} else if (n->self != blk || n->level != level) {
		return -EIO; /* the tree names a block twice */
	}
	*out = n;
	return 0;
}

/* NULL when the transaction is out of memory: its scratch is no node to work on. */
static struct pm_bnode *node_edit(const struct tree *t, uint64_t blk)
{
	struct pm_bnode *n = tx_edit(t->tx, blk_ptr(t->st, blk), PM_BLOCK, TX_NODE);

	return tx_look(t->tx, blk_ptr(t->st, blk)) == n ? n : NULL;
}

static struct pm_bnode *node_new(const struct tree *t, uint64_t goal, unsigned level, int *err)
{
	/* names may be refused for want of space; extents are needed to free it */
	unsigned flags = inode(t)->type == PM_DIR ? 0 : BLK_META;
	struct blk_run run;
	struct pm_bnode *n;

	*err = tx_take(t->tx, goal, 1, flags, &run);
	if (*err)
		return NULL;
	n = tx_new_block(t->tx, run.start, TX_NODE);
	if (tx_look(t->tx, blk_ptr(t->st, run.start)) != n) {
		*err = -ENOMEM;
		return NULL;
	}
	n->magic = PM_NODE_MAGIC;
	n->level = (uint8_t)level;
	n->owner = t->in->ino;
	n->self = run.start;
	n->low = PM_BLOCK;
	ino_edit(t->tx, t->in)->blocks++;
	return n;
}

static void node_free(const struct tree *t, uint64_t blk)
{
	tx_give(t->tx, blk, 1, true);
	ino_edit(t->tx, t->in)->blocks--;
}

/* Root first, down to the leaf where @key is or would be. -ENOENT: no tree. */
static int descend(const struct tree *t, uint64_t key, struct path *p, const struct pm_bnode **leaf)
{
	const struct pm_inode *in = inode(t);
	uint64_t blk = in->u.tree.root;
	struct bounds b = { 0, UINT64_MAX };
	int err;

	if (empty(in))
		return -ENOENT;
	p->height = in->u.tree.height;
	if (p->height == 0 || p->height > MAX_HEIGHT)
		return damaged(t, blk, "impossible height");
	for (unsigned l = p->height; l-- > 0;) {
		p->blk[l] = blk;
		err = node_get(t, blk, l, leaf);
		if (err)
			return err;
		if (l == 0)
			break;
		p->slot[l] = follow_down(*leaf, key, &b);
		blk = child(*leaf, p->slot[l]);
	}
	p->slot[0] = lower(*leaf, key, &b);
	return 0;
}

/* Move @p to the next or previous leaf, at its first or behind its last slot. -ENOENT: there is
 * none. */
static int step(const struct tree *t, struct path *p, bool forward, const struct pm_bnode **leaf)
{
	unsigned l = 1;
	int err = 0;

	for (; l < p->height; l++) {
		err = node_get(t, p->blk[l], l, leaf);
		if (err)
			return err;
		if (forward ? p->slot[l] + 1 < (*leaf)->count : p->slot[l] > 0)
			break;
	}
	if (l >= p->height)
		return -ENOENT;
	p->slot[l] = forward ? p->slot[l] + 1 : p->slot[l] - 1;
	while (l > 0) {
		uint64_t blk = child(*leaf, p->slot[l]);

		err = node_get(t, blk, --l, leaf);
		if (err)
			return err;
		p->blk[l] = blk;
		p->slot[l] = forward ? 0 : (*leaf)->count - (l ? 1u : 0u);
	}
	return 0;
}

/* --- reading --- */

static void cursor(const struct path *p, const struct pm_bnode *leaf, unsigned slot,
                   struct bt_cursor *c)
{
	const struct pm_bent *e = ent(leaf, slot);

	*c = (struct bt_cursor){
		.key = e->key, .val = e->val, .len = e->len, .leaf = p->blk[0], .slot = slot
	};
}

int bt_seek(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key,
            struct bt_cursor *c)
{
	struct tree t = { st, tx, in };
	const struct pm_bnode *leaf;
	struct path p;
	int err = descend(&t, key, &p, &leaf);

	if (!err && p.slot[0] == leaf->count)
		err = step(&t, &p, true, &leaf);
	if (!err)
		cursor(&p, leaf, p.slot[0], c);
	return err;
}

int bt_seek_le(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key,
               struct bt_cursor *c)
{
	struct tree t = { st, tx, in };
	const struct pm_bnode *leaf;
	struct path p;
	int err = descend(&t, key, &p, &leaf);

	if (err)
		return err;
	if (p.slot[0] < leaf->count && ent(leaf, p.slot[0])->key == key) {
		cursor(&p, leaf, p.slot[0], c);
		return 0;
	}
	if (p.slot[0] == 0)
		err = step(&t, &p, false, &leaf);
	if (!err)
		cursor(&p, leaf, p.slot[0] - 1, c);
	return err;
}

int bt_next(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, struct bt_cursor *c)
{
	const struct pm_bnode *leaf = blk_ptr(st, c->leaf);
	struct path p = { .height = 1, .blk[0] = c->leaf };

	if (tx)
		leaf = tx_look(tx, leaf);
	if (c->slot + 1 < leaf->count) {
		cursor(&p, leaf, c->slot + 1, c);
		return 0;
	}
	return c->key == NO_KEY ? -ENOENT : bt_seek(st, tx, in, c->key + 1, c);
}

/* --- insertion --- */

static int new_root(const struct tree *t, unsigned level, uint64_t left)
{
	struct pm_inode *in;
	struct pm_bnode *root;
	int err;

	if (level >= MAX_HEIGHT)
		return -EFBIG;
	root = node_new(t, left, level, &err);
	if (!root)
		return err;
	if (level)
		node_put(root, 0, 0, &left, sizeof(left)); /* 0: a lower bound for ever */
	in = ino_edit(t->tx, t->in);
	if (level == 0)
		memset(&in->u, 0, sizeof(in->u));
	in->flags |= PM_IF_TREE;
	in->u.tree.root = root->self;
	in->u.tree.height = level + 1;
	return 0;
}

/* Where to cut @n so that both sides take about as many bytes, counting a new entry of @need bytes
 * at @at: the number of old entries that stay. */
static unsigned split_point(const struct pm_bnode *n, unsigned at, unsigned need)
{
	unsigned half = (used(n) + need) / 2, sum = 0, i = 0;

	for (; i < n->count; i++) {
		if (i == at)
			sum += need;
		if (sum >= half)
			break;
		sum += ent_size(ent(n, i)->len) + 2;
	}
	return i ? i : 1;
}

/* Move the entries from @from on to the new node @right. */
static void move_tail(struct pm_bnode *n, unsigned from, struct pm_bnode *right)
{
	for (unsigned i = from; i < n->count; i++)
		node_put(right, i - from, ent(n, i)->key, ent(n, i)->val, ent(n, i)->len);
	while (n->count > from)
		node_cut(n, n->count - 1u);
}

static bool right_edge(const struct tree *t, const struct path *p, unsigned level)
{
	const struct pm_bnode *n;

	for (unsigned l = level + 1; l < p->height; l++)
		if (node_get(t, p->blk[l], l, &n) || p->slot[l] + 1u != n->count)
			return false;
	return true;
}

static int put_at(const struct tree *t, struct path *p, unsigned level, unsigned at, uint64_t key,
                  const void *val, unsigned len);

/* Split the full node at @level for the entry that goes to @at, and tell the parent. */
static int split(const struct tree *t, struct path *p, unsigned level, unsigned at, uint64_t key,
                 const void *val, unsigned len)
{
	struct pm_bnode *n = node_edit(t, p->blk[level]), *right, *into;
	unsigned from;
	uint64_t blk, sep;
	int err;

	if (!n)
		return -ENOMEM;
	if (at == n->count && right_edge(t, p, level))
		from = n->count;
	else
		from = split_point(n, at, ent_size(len) + 2);
	right = node_new(t, n->self, level, &err);
	if (!right)
		return err;
	move_tail(n, from, right);
	into = at < from ? n : right;
	if (!node_room(into, len))
		return -EIO; /* MAX_VAL makes this impossible */
	node_put(into, into == n ? at : at - from, key, val, len);
	blk = right->self;
	sep = ent(right, 0)->key;
	if (level + 1 == p->height) {
		err = new_root(t, level + 1, n->self);
		if (err)
			return err;
		p->height++;
		p->blk[level + 1] = inode(t)->u.tree.root;
		p->slot[level + 1] = 0;
	}
	return put_at(t, p, level + 1, p->slot[level + 1] + 1, sep, &blk, sizeof(blk));
}

static int put_at(const struct tree *t, struct path *p, unsigned level, unsigned at, uint64_t key,
                  const void *val, unsigned len)
{
	struct pm_bnode *n = node_edit(t, p->blk[level]);

	if (!n)
		return -ENOMEM;
	if (!node_room(n, len))
		return split(t, p, level, at, key, val, len);
	node_put(n, at, key, val, len);
	return 0;
}

/* Interior keys on the way that lie above @key come down to it (T1). */
static int lower_bounds(const struct tree *t, const struct path *p, uint64_t key)
{
	for (unsigned l = 1; l < p->height; l++) {
		const struct pm_bnode *n;
		struct pm_bnode *e;
		int err = node_get(t, p->blk[l], l, &n);

		if (err)
			return err;
		if (ent(n, p->slot[l])->key <= key)
			continue;
		e = node_edit(t, p->blk[l]);
		if (!e)
			return -ENOMEM;
		((struct pm_bent *)(void *)((uint8_t *)e + e->slot[p->slot[l]]))->key = key;
	}
	return 0;
}

int bt_insert(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key,
              const void *val, uint16_t len)
{
	struct tree t = { st, tx, in };
	const struct pm_bnode *leaf;
	struct path p;
	int err;

	if (len > MAX_VAL)
		return -EINVAL;
	err = descend(&t, key, &p, &leaf);
	if (err == -ENOENT) {
		err = new_root(&t, 0, 0);
		if (err)
			return err;
		p.height = 1;
		p.blk[0] = inode(&t)->u.tree.root;
		p.slot[0] = 0;
	} else if (err) {
		return err;
	} else if (p.slot[0] < leaf->count && ent(leaf, p.slot[0])->key == key) {
		return -EEXIST;
	}
	err = lower_bounds(&t, &p, key);
	if (!err)
		err = put_at(&t, &p, 0, p.slot[0], key, val, len);
	if (!err)
		ino_edit(tx, in)->u.tree.count++;
	return err;
}

int bt_replace(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key,
               const void *val, uint16_t len)
{
	struct tree t = { st, tx, in };
	const struct pm_bnode *leaf;
	struct pm_bnode *n;
	struct path p;
	int err = descend(&t, key, &p, &leaf);

	if (err)
		return err;
	if (p.slot[0] == leaf->count || ent(leaf, p.slot[0])->key != key)
		return -ENOENT;
	if (ent(leaf, p.slot[0])->len != len)
		return -EINVAL;
	n = node_edit(&t, p.blk[0]);
	if (!n)
		return -ENOMEM;
	memcpy(((struct pm_bent *)(void *)((uint8_t *)n + n->slot[p.slot[0]]))->val, val, len);
	return 0;
}

/* --- removal --- */

static void no_root(const struct tree *t)
{
	struct pm_inode *in = ino_edit(t->tx, t->in);

	in->flags &= (uint16_t)~PM_IF_TREE;
	memset(&in->u, 0, sizeof(in->u));
}

/* The node at @level of @p is the root and has lost an entry. */
static int shrink_root(const struct tree *t, const struct path *p, unsigned level)
{
	uint64_t blk = p->blk[level];
	const struct pm_bnode *n;
	struct pm_inode *in;
	int err = 0;

	while (!err) {
		n = tx_look(t->tx, blk_ptr(t->st, blk));
		if (n->count == 0) {
			node_free(t, blk);
			no_root(t);
			return 0;
		}
		if (level == 0 || n->count > 1)
			return 0;
		in = ino_edit(t->tx, t->in);
		in->u.tree.root = child(n, 0);
		in->u.tree.height = level;
		node_free(t, blk);
		blk = in->u.tree.root;
		err = node_get(t, blk, --level, &n);
	}
	return err;
}

/* Everything in @right fits into @left and goes there. */
static int join(const struct tree *t, uint64_t left, uint64_t right)
{
	struct pm_bnode *l = node_edit(t, left);
	const struct pm_bnode *r = tx_look(t->tx, blk_ptr(t->st, right));

	if (!l)
		return -ENOMEM;
	if (gap(l) < used(r))
		node_pack(l);
	for (unsigned i = 0; i < r->count; i++)
		node_put(l, l->count, ent(r, i)->key, ent(r, i)->val, ent(r, i)->len);
	node_free(t, right);
	return 0;
}

/* Which slot of the parent names a node that is no more; -ENOENT: none, all is well as it is. */
static int find_partner(const struct tree *t, const struct path *p, unsigned level, unsigned *gone)
{
	const struct pm_bnode *n = tx_look(t->tx, blk_ptr(t->st, p->blk[level])), *up, *peer;
	unsigned at = p->slot[level + 1];
	int err;

	if (n->count == 0) {
		node_free(t, p->blk[level]);
		*gone = at;
		return 0;
	}
	if (used(n) >= SPARSE)
		return -ENOENT;
	err = node_get(t, p->blk[level + 1], level + 1, &up);
	for (int side = 0; !err && side < 2; side++) {
		unsigned left = at - (unsigned)side;

		if (side ? at == 0 : at + 1u >= up->count)
			continue;
		err = node_get(t, child(up, side ? left : left + 1), level, &peer);
		if (err || used(peer) + used(n) > CAPACITY - CAPACITY / 8)
			continue;
		*gone = left + 1;
		return join(t, child(up, left), child(up, left + 1));
	}
	return err ? err : -ENOENT;
}

/* Take slot p->slot[level] out of the node at @level, then set right what that leaves too small. */
static int cut_at(const struct tree *t, struct path *p, unsigned level)
{
	for (;; level++) {
		struct pm_bnode *n = node_edit(t, p->blk[level]);
		unsigned gone;
		int err;

		if (!n)
			return -ENOMEM;
		node_cut(n, p->slot[level]);
		if (level + 1 == p->height)
			return shrink_root(t, p, level);
		err = find_partner(t, p, level, &gone);
		if (err)
			return err == -ENOENT ? 0 : err;
		p->slot[level + 1] = gone;
	}
}

int bt_delete(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key)
{
	struct tree t = { st, tx, in };
	const struct pm_bnode *leaf;
	struct path p;
	int err = descend(&t, key, &p, &leaf);

	if (err)
		return err;
	if (p.slot[0] == leaf->count || ent(leaf, p.slot[0])->key != key)
		return -ENOENT;
	ino_edit(tx, in)->u.tree.count--;
	return cut_at(&t, &p, 0);
}

/* --- whole trees --- */

struct walk {
	struct tree t;
	bool leaves;
	int (*fn)(void *arg, uint64_t blk, const struct pm_bnode *node);
	void *arg;
	uint64_t left; /* nodes that may still come: each has a block of its own */
};

static int walk_node(struct walk *w, uint64_t blk, unsigned level)
{
	const struct pm_bnode *n = NULL;
	int err;

	if (!w->left--)
		return damaged(&w->t, blk, "in a tree of more nodes than the pool has blocks");
	if (level || w->leaves) {
		err = node_get(&w->t, blk, level, &n);
		if (err)
			return err;
	}
	err = w->fn(w->arg, blk, n);
	for (unsigned i = 0; level && !err && i < n->count; i++)
		err = walk_node(w, child(n, i), level - 1);
	return err;
}

int bt_walk(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, bool leaves,
            int (*fn)(void *arg, uint64_t blk, const struct pm_bnode *node), void *arg)
{
	struct walk w = { { st, tx, in }, leaves, fn, arg, st->super.blocks };
	const struct pm_inode *now = inode(&w.t);

	if (empty(now))
		return 0;
	if (now->u.tree.height == 0 || now->u.tree.height > MAX_HEIGHT)
		return damaged(&w.t, now->u.tree.root, "impossible height");
	return walk_node(&w, now->u.tree.root, now->u.tree.height - 1);
}

static int drop_node(void *arg, uint64_t blk, const struct pm_bnode *node)
{
	const struct tree *t = arg;

	(void)node;
	if (blk < t->st->super.data_start || blk >= t->st->super.blocks)
		return damaged(t, blk, "outside the data area");
	node_free(t, blk);
	return 0;
}

int bt_drop(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in)
{
	struct tree t = { st, tx, in };
	int err = bt_walk(st, tx, in, false, drop_node, &t);

	if (!err && (inode(&t)->flags & PM_IF_TREE))
		no_root(&t);
	return err;
}

/* --- building anew --- */

#define BUILD_TX 8u /* nodes in one transaction: with PM_MSYNC they travel in its record */

struct build {
	struct pm_store *st;
	const struct pm_inode *in;
	struct pm_tx *tx;
	unsigned in_tx;
	uint64_t goal, nodes;
};

static int build_commit(struct build *b)
{
	int err = b->tx ? tx_commit(b->tx, NULL) : 0;

	b->tx = NULL;
	b->in_tx = 0;
	return err;
}

static struct pm_bnode *build_node(struct build *b, unsigned level, int *err)
{
	struct blk_run run;
	struct pm_bnode *n;

	*err = b->in_tx == BUILD_TX ? build_commit(b) : 0;
	if (*err)
		return NULL;
	if (!b->tx)
		b->tx = tx_begin(b->st);
	*err = tx_take(b->tx, b->goal, 1, BLK_META, &run);
	if (*err) {
		tx_abort(b->tx);
		b->tx = NULL;
		return NULL;
	}
	n = tx_new_block(b->tx, run.start, TX_NODE);
	n->magic = PM_NODE_MAGIC;
	n->level = (uint8_t)level;
	n->owner = b->in->ino;
	n->self = run.start;
	n->low = PM_BLOCK;
	b->goal = run.start + 1;
	b->in_tx++;
	b->nodes++;
	return n;
}

/* One level of nodes over @e; who leads to them goes to @up, *nup of them. */
static int build_level(struct build *b, unsigned level, const struct bt_entry *e, size_t n,
                       struct bt_entry *up, uint64_t *blk, size_t *nup)
{
	struct pm_bnode *node = NULL;
	int err;

	*nup = 0;
	for (size_t i = 0; i < n; i++) {
		if (e[i].len > MAX_VAL)
			return -EINVAL;
		if (!node || gap(node) < ent_size(e[i].len) + 2 + CAPACITY / 10) {
			node = build_node(b, level, &err);
			if (!node)
				return err;
			blk[*nup] = node->self;
			up[*nup] = (struct bt_entry){ .key = e[i].key, .len = 8 };
			++*nup;
		}
		node_put(node, node->count, e[i].key, e[i].val, e[i].len);
	}
	for (size_t i = 0; i < *nup; i++)
		up[i].val = &blk[i];
	return 0;
}

static int build_switch(struct build *b, uint64_t root, unsigned height, size_t n, uint64_t others)
{
	struct pm_tx *tx = tx_begin(b->st);
	struct pm_inode *in = ino_edit(tx, b->in);

	memset(&in->u, 0, sizeof(in->u));
	in->flags &= (uint16_t)~PM_IF_TREE;
	if (n) {
		in->flags |= PM_IF_TREE;
		in->u.tree.root = root;
		in->u.tree.height = height;
		in->u.tree.count = n;
	}
	in->blocks = others + b->nodes;
	if (in->type == PM_DIR)
		in->size = n;
	return tx_commit(tx, NULL);
}

int bt_rebuild(struct pm_store *st, const struct pm_inode *in, const struct bt_entry *e, size_t n,
               uint64_t others)
{
	struct build b = { .st = st, .in = in };
	struct bt_entry *level[2] = { NULL, NULL };
	uint64_t *blk[2] = { NULL, NULL };
	const struct bt_entry *from = e;
	size_t left = n;
	unsigned h = 0;
	int err = 0;

	for (unsigned i = 0; i < 2; i++) {
		level[i] = calloc(n + 1, sizeof(*level[i]));
		blk[i] = calloc(n + 1, sizeof(*blk[i]));
		if (!level[i] || !blk[i])
			err = -ENOMEM;
	}
	while (!err && n && (h == 0 || left > 1)) {
		if (h == MAX_HEIGHT)
			err = -EFBIG;
		else
			err = build_level(&b, h, from, left, level[h & 1], blk[h & 1], &left);
		from = level[h & 1];
		h++;
	}
	if (b.tx && err)
		tx_abort(b.tx);
	else if (!err)
		err = build_commit(&b);
	if (!err)
		err = build_switch(&b, n ? blk[(h - 1) & 1][0] : 0, h, n, others);
	for (unsigned i = 0; i < 2; i++) {
		free(level[i]);
		free(blk[i]);
	}
	return err;
}
