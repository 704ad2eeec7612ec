/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair.c - put right what has one right answer, say what has none
 *
 * The pool is opened read-write with everything that open can work around, then:
 *
 *   census      which inode slots are good, which damaged
 *   claims      what readable entries say of the inodes they lead to
 *   salvage     damaged inodes made anew from their claims and what is left of them, else set free
 *   own         every block in use marked, so that nothing new lands on it
 *   rebuild     trees and extent lists with unreadable or impossible parts, from what is readable
 *   count       link counts, parents, sizes of directories, blocks
 *   limits      the quota file
 *   adopt       inodes without a name go to lost+found
 *
 * Every change is a transaction after which the pool is no more damaged than before, so a repair
 * that is cut off is simply run again. Blocks are never given back: with two owners of one block
 * about, only a fresh look at what is in use can tell what is free, and the next open takes that
 * look. Whatever is dropped is named. The last word has pm_check: what it still finds is what could
 * not be repaired.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "pmemio/core.h"

#define MAX_LEVELS 12u
#define ULL(x)     ((unsigned long long)(x))

enum state { FREE, LIVE, BAD };

struct object {
	uint8_t state;
	bool salvaged, lost_inner;
	uint8_t claim_type;
	uint32_t claims; /* readable entries that lead to it */
	uint64_t claim_gen;
	bool claim_parent; /* one of them stands in the directory that it says is its parent */
	uint32_t names, subdirs;
	uint64_t in_dir;
};

struct leaf { /* a good leaf that may or may not belong to its owner's tree any more */
	uint64_t owner, blk;
};

struct repair {
	struct pm_store *st;
	void (*fixed)(void *arg, const char *where, const char *what);
	void *arg;
	uint64_t nino, nblk, n; /* n: repairs made */
	uint64_t quota;         /* the file of limits; 0: none */
	struct object *obj;
	uint64_t *meta, *data; /* bitmaps of blocks: inode chunks and proved nodes; extents */
	struct leaf *leaf;
	size_t nleaf;
};

/* The readable entries of one inode's tree or inline extents. */
struct content {
	struct repair *r;
	const struct pm_inode *in;
	struct bt_entry *e;
	size_t n, cap;
	uint64_t nodes;
	bool broken;     /* what is there is not the whole, or not in order */
	bool lost_inner; /* leaves may be left that nothing leads to */
	bool nomem;
};

static void say(struct repair *r, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void say(struct repair *r, const char *where, const char *fmt, ...)
{
	char what[600];
	va_list ap;

	r->n++;
	if (!r->fixed)
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	for (char *p = what; *p; p++) /* names may hold any byte */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	r->fixed(r->arg, where, what);
}

struct where {
	char text[80];
};

static struct where where_ino(const struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct where w;

	snprintf(w.text, sizeof(w.text), "%s %llu",
	         ino == 0                                          ? "inode table"
	         : r->obj[ino].state == LIVE && in->type == PM_DIR ? "directory"
	                                                           : "inode",
	         ULL(ino));
	return w;
}

static bool bit(const uint64_t *map, uint64_t b)
{
	return map[b / 64] >> (b % 64) & 1;
}

static void set_bit(uint64_t *map, uint64_t b)
{
	map[b / 64] |= 1ull << (b % 64);
}

static bool inside(const struct repair *r, uint64_t start, uint64_t len)
{
	return len && start >= r->st->super.data_start && start < r->nblk && len <= r->nblk - start;
}

static int commit(struct repair *r, struct pm_tx *tx)
{
	int err = tx_commit(tx, NULL);

	store_unlock(r->st);
	return err;
}

static struct pm_tx *begin(struct repair *r)
{
	store_lock(r->st);
	return tx_begin(r->st);
}

/* --- reading what can be read ----------------------------------------------------------------- */

static const struct pm_bent *node_ent(const struct pm_bnode *n, unsigned i)
{
	return (const struct pm_bent *)(const void *)((const uint8_t *)n + n->slot[i]);
}

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
			say(r, where_ino(r, c->in->ino).text,
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

static int by_key(const void *a, const void *b)
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

/* Every good leaf whose owner has lost a node above leaves. Nothing new may land on them, nor on
 * what they lead to: that they are needed shows only when their owner's turn comes. */
static int scan_leaves(struct repair *r)
{
	size_t cap = 0;

	for (uint64_t b = r->st->super.data_start; b < r->nblk; b++) {
		const struct pm_bnode *n = blk_ptr(r->st, b);

		if (n->magic != PM_NODE_MAGIC || n->self != b || n->level || n->owner >= r->nino ||
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

/* Leaves that nothing leads to any more are taken back if with them, and only with all of them,
 * there are as many entries as the inode says, none of them in two versions: leaves that the tree
 * gave up earlier do not add up. Those that an interrupted repair wrote are copies and count once.
 */
static void regain(struct content *c)
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
		qsort(all.e, all.n, sizeof(*all.e), by_key);
	for (size_t i = 0; i < all.n; i++) {
		if (n && same_entry(&all.e[n - 1], &all.e[i]))
			continue;
		if (n && all.e[n - 1].key == all.e[i].key)
			break;
		all.e[n++] = all.e[i];
	}
	if (all.nomem || n == 0 || n != c->in->u.tree.count || r->obj[c->in->ino].salvaged) {
		free(all.e);
		return;
	}
	say(r, where_ino(r, c->in->ino).text, "all %zu entries found again in its leaves", n);
	free(c->e);
	c->e = all.e;
	c->n = n;
	c->cap = all.cap;
}

/* All that is readable of the tree that @in has. */
static void read_tree(struct content *c, bool tell)
{
	const struct pm_inode *in = c->in;

	if (!in->u.tree.height || in->u.tree.height > MAX_LEVELS) {
		c->broken = c->lost_inner = true;
		if (tell)
			say(c->r, where_ino(c->r, in->ino).text,
			    "impossible tree height %u dropped", in->u.tree.height);
		return;
	}
	read_node(c, in->u.tree.root, in->u.tree.height - 1, 0, UINT64_MAX, tell);
}

static bool has_extents(const struct pm_inode *in)
{
	return in->type == PM_REG || (in->type == PM_LNK && in->size > PM_INLINE_LINK);
}

static void read_inline(struct content *c)
{
	const struct pm_inode *in = c->in;

	for (unsigned i = 0; i < PM_INLINE_EXTENTS && in->u.ext[i].len_lo; i++)
		content_add(c, in->u.ext[i].lblk, &in->u.ext[i], sizeof(in->u.ext[i]));
}

/* --- census, claims -----------------------------------------------------------------------------
 */

static void census(struct repair *r)
{
	for (uint64_t ino = 0; ino < r->nino; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);
		int err = ino_verify(in, ino);

		r->obj[ino].state = err == -ENOENT && ino > PM_ROOT_INO        ? FREE
		                    : err || in->type > PM_FIFO                ? BAD
		                    : ino == 0 && in->type != PM_REG           ? BAD
		                    : ino == PM_ROOT_INO && in->type != PM_DIR ? BAD
		                                                               : LIVE;
	}
}

static bool dent_ok(const struct repair *r, uint64_t dir, const struct bt_entry *e,
                    struct pm_dent *d)
{
	const char *name = (const char *)e->val + sizeof(*d);
	size_t len = e->len - sizeof(*d);

	if (e->len <= sizeof(*d) || len > PM_NAME_MAX || memchr(name, '/', len) ||
	    memchr(name, 0, len) || (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return false;
	(void)dir;
	memcpy(d, e->val, sizeof(*d));
	return d->ino > PM_ROOT_INO && d->ino < r->nino;
}

/* A tree that proves itself, whatever its inode's checksum says: its root names the inode. */
static bool tree_proves(const struct repair *r, const struct pm_inode *in, uint64_t ino)
{
	const struct pm_bnode *n;

	if (!(in->flags & PM_IF_TREE) || !inside(r, in->u.tree.root, 1))
		return false;
	n = blk_ptr(r->st, in->u.tree.root);
	return n->level < MAX_LEVELS && !bt_fault(n, ino, in->u.tree.root, n->level);
}

static void claims_of(struct repair *r, uint64_t ino)
{
	struct pm_inode copy = *ino_at(r->st, ino); /* its numbers may be damaged */
	struct content c = { .r = r, .in = &copy };

	if (!(copy.flags & PM_IF_TREE))
		return;
	copy.ino = ino;
	if (r->obj[ino].state == BAD) {
		if (!tree_proves(r, &copy, ino))
			return;
		copy.u.tree.height =
			((const struct pm_bnode *)blk_ptr(r->st, copy.u.tree.root))->level + 1u;
	}
	read_tree(&c, false);
	for (size_t i = 0; i < c.n; i++) {
		struct object *o;
		struct pm_dent d;

		if (!dent_ok(r, ino, &c.e[i], &d) || d.type < PM_REG || d.type > PM_FIFO)
			continue;
		o = &r->obj[d.ino];
		o->claims++;
		o->claim_gen = d.gen;
		o->claim_type = d.type;
		o->claim_parent |= ino_at(r->st, d.ino)->parent == ino;
	}
	free(c.e);
}

static void claims(struct repair *r)
{
	for (uint64_t ino = 1; ino < r->nino; ino++)
		if (r->obj[ino].state != FREE &&
		    (ino == PM_ROOT_INO || ino_at(r->st, ino)->type == PM_DIR))
			claims_of(r, ino);
}

/* --- damaged inodes --- */

/* How long the target of a symbolic link is, by its bytes: it has no NUL, and zeros follow it. 0:
 * it is lost. */
static uint64_t target_len(const struct repair *r, const struct pm_inode *in)
{
	const struct pm_ext *x = &in->u.ext[0];
	size_t n = strnlen(in->u.link, PM_INLINE_LINK);

	for (size_t i = n; n && i < PM_INLINE_LINK; i++)
		if (in->u.link[i])
			return 0;
	if (n)
		return n;
	if (x->lblk || x->len_lo != 1 || !inside(r, x->pblk, 1))
		return 0;
	n = strnlen(blk_ptr(r->st, x->pblk), PM_BLOCK);
	return n > PM_INLINE_LINK && n <= PM_LINK_PATH ? n : 0;
}

/* What a damaged inode was: as its name has it, else as it says itself. 0: nobody knows. */
static unsigned kind_of(const struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	const struct object *o = &r->obj[ino];

	if (ino == PM_ROOT_INO)
		return PM_DIR;
	if (ino == quota_ino(r->st) && !o->claims)
		return PM_REG;
	if (o->claims)
		return o->claim_type;
	if (in->ino == ino && in->type >= PM_REG && in->type <= PM_FIFO && in->nlink &&
	    in->nlink <= PM_LINK_MAX)
		return in->type;
	return 0;
}

static void keep_content(const struct repair *r, const struct pm_inode *old, struct pm_inode *new)
{
	bool tree = tree_proves(r, old, new->ino);

	if (new->type == PM_DIR || new->type == PM_REG) {
		if (tree) {
			new->flags = PM_IF_TREE;
			new->u = old->u;
			new->u.tree.height =
				((const struct pm_bnode *)blk_ptr(r->st, old->u.tree.root))->level +
				1u;
		} else if (new->type != PM_DIR && !(old->flags & PM_IF_TREE)) {
			new->u = old->u; /* each extent is judged later */
		}
	}
	if (new->type == PM_REG)
		new->size = old->size <= PM_FILE_MAX ? old->size : 0;
	if (new->type == PM_LNK) {
		new->size = target_len(r, old);
		new->u = old->u;
		if (new->size > PM_INLINE_LINK)
			memset(&new->u.ext[1], 0, sizeof(new->u) - sizeof(new->u.ext[0]));
	}
	if (new->type == PM_BLK || new->type == PM_CHR) {
		new->rdev_major = old->rdev_major;
		new->rdev_minor = old->rdev_minor;
	}
}

static struct pm_time time_or_now(struct pm_time t)
{
	return t.nsec < 1000000000u && t.sec > 0 ? (struct pm_time){ t.sec, t.nsec, 0 }
	                                         : store_now();
}

/* Its bytes cannot all be believed; who may do what least of all: it becomes root's alone. */
static void make_anew(const struct repair *r, struct pm_inode *sh, uint64_t ino, unsigned type)
{
	const struct object *o = &r->obj[ino];
	struct pm_inode old = *sh;

	*sh = (struct pm_inode){ .type = (uint16_t)type, .ino = ino };
	sh->gen = ino == PM_ROOT_INO ? 1 : o->claims ? o->claim_gen : old.gen;
	sh->mode = ino == PM_ROOT_INO ? 0755 : type == PM_DIR ? 0700 : 0600;
	sh->nlink = type == PM_DIR ? 2 : 1;
	sh->parent = type != PM_DIR ? 0 : ino == PM_ROOT_INO ? ino : old.parent;
	sh->atime = time_or_now(old.atime);
	sh->mtime = time_or_now(old.mtime);
	sh->ctime = time_or_now(old.ctime);
	keep_content(r, &old, sh);
}

static int salvage(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct object *o = &r->obj[ino];
	unsigned type = kind_of(r, ino);
	struct where w = where_ino(r, ino);
	struct pm_inode *sh;
	struct pm_tx *tx;

	if (type == PM_LNK && !target_len(r, in))
		type = 0;
	tx = begin(r);
	sh = ino_edit(tx, in);
	if (type) {
		make_anew(r, sh, ino, type);
		say(r, w.text,
		    "damaged; made anew from what is left of it: owner 0:0, mode 0%o, size %llu "
		    "not "
		    "certain, content not certain",
		    sh->mode, ULL(sh->size));
		o->state = LIVE;
		o->salvaged = true;
	} else {
		/* a generation that this slot never had: old handles stay stale */
		*sh = (struct pm_inode){ .ino = ino, .gen = r->st->super.boot << 32 };
		say(r, w.text,
		    o->claims ? "damaged beyond use; set free, its names go"
		              : "damaged and without a name; set free");
		o->state = FREE;
	}
	return commit(r, tx);
}

static int fix_table(struct repair *r)
{
	const struct pm_inode *in = ino_at(r->st, 0);
	struct pm_tx *tx = begin(r);
	struct pm_inode *sh = ino_edit(tx, in);
	struct pm_inode new = { .type = PM_REG, .gen = 1, .mode = 0600, .nlink = 1 };

	new.flags = sh->flags &PM_IF_TREE;
	if (sh->parent > PM_ROOT_INO && sh->parent < r->nino && r->obj[sh->parent].state == LIVE &&
	    !r->obj[sh->parent].claims)
		new.parent = sh->parent; /* the quota file */
	new.size = r->nino / PM_CHUNK_INODES *PM_CHUNK_BLOCKS *PM_BLOCK;
	new.blocks = sh->blocks;
	new.atime = time_or_now(sh->atime);
	new.mtime = time_or_now(sh->mtime);
	new.ctime = time_or_now(sh->ctime);
	new.u = sh->u;
	*sh = new;
	r->obj[0].state = LIVE;
	say(r, "inode table 0", "inode made anew: the chunks it leads to prove it");
	return commit(r, tx);
}

static int bad_inodes(struct repair *r)
{
	int err = 0;

	if (r->obj[0].state == BAD && table_proved(r->st))
		err = fix_table(r);
	for (uint64_t ino = 1; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == BAD)
			err = salvage(r, ino);
	return err;
}

/* --- who owns what --- */

static void own_extent(struct repair *r, uint64_t ino, const struct pm_ext *x)
{
	if (!inside(r, x->pblk, x->len_lo))
		return;
	blk_mark(r->st, x->pblk, x->len_lo);
	for (uint64_t b = x->pblk; b < x->pblk + x->len_lo; b++)
		set_bit(ino == 0 ? r->meta : r->data, b);
}

/* Nodes of all trees, and the extents of inodes that were never in doubt. */
static int own(struct repair *r)
{
	const struct pm_super *sb = &r->st->super;
	bool lost = false;

	for (uint64_t b = 0; (sb->incompat & PM_INCOMPAT_REPLIES) && b < sb->reply_blocks; b++)
		set_bit(r->meta, sb->reply_start + b);
	for (uint64_t ino = 0; ino < r->nino; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);
		struct content c = { .r = r, .in = in };

		if (r->obj[ino].state != LIVE)
			continue;
		if (in->flags & PM_IF_TREE)
			read_tree(&c, false);
		else if (has_extents(in))
			read_inline(&c);
		for (size_t i = 0; i < c.n && has_extents(in); i++) {
			struct pm_ext x;

			if (c.e[i].len != sizeof(x))
				continue;
			memcpy(&x, c.e[i].val, sizeof(x));
			if (!r->obj[ino].salvaged)
				own_extent(r, ino, &x);
			else if (inside(r, x.pblk, x.len_lo))
				blk_mark(r->st, x.pblk, x.len_lo);
		}
		r->obj[ino].lost_inner = c.lost_inner;
		lost |= c.lost_inner;
		free(c.e);
	}
	return lost ? scan_leaves(r) : 0;
}

/* --- files --- */

static int put_inline(struct repair *r, const struct pm_inode *in, const struct pm_ext *x, size_t n,
                      uint64_t blocks)
{
	struct pm_tx *tx = begin(r);
	struct pm_inode *sh = ino_edit(tx, in);

	sh->flags &= (uint16_t)~PM_IF_TREE;
	memset(&sh->u, 0, sizeof(sh->u));
	if (n)
		memcpy(sh->u.ext, x, n * sizeof(*x));
	sh->blocks = blocks;
	return commit(r, tx);
}

/* Does certain knowledge speak against this block of @in's? */
static bool not_his(const struct repair *r, const struct object *o, uint64_t blk)
{
	return bit(r->meta, blk) || (o->salvaged && bit(r->data, blk));
}

/* What is good of @x, as one or more extents, behind the @n in @out. Says what is dropped. */
static size_t good_parts(struct repair *r, const struct pm_inode *in, struct pm_ext x,
                         uint64_t *end, struct pm_ext **out, size_t n, size_t *cap, bool *broken)
{
	const struct object *o = &r->obj[in->ino];
	struct where w = where_ino(r, in->ino);
	uint64_t from = 0, len = x.len_lo;

	if (!inside(r, x.pblk, len) || (x.flags & ~PM_XF_UNWRITTEN) ||
	    x.lblk + len > PM_FILE_MAX / PM_BLOCK) {
		*broken = true;
		say(r, w.text, "impossible extent dropped: file blocks %llu+%llu read as zeros now",
		    ULL(x.lblk), ULL(len));
		return n;
	}
	if (x.lblk < *end) { /* the one before it has these */
		from = *end - x.lblk < len ? *end - x.lblk : len;
		*broken = true;
		say(r, w.text, "file blocks %llu+%llu stood twice: the second place dropped",
		    ULL(x.lblk), ULL(from));
	}
	while (from < len) {
		uint64_t to = from;
		bool bad = not_his(r, o, x.pblk + from);

		while (to < len && not_his(r, o, x.pblk + to) == bad)
			to++;
		if (bad) {
			*broken = true;
			say(r, w.text,
			    "blocks 0x%llx+%llu are others': file blocks %llu+%llu read as zeros "
			    "now",
			    ULL(x.pblk + from), ULL(to - from), ULL(x.lblk + from), ULL(to - from));
		} else {
			if (n == *cap) {
				size_t more = *cap ? 2 * *cap : 16;
				struct pm_ext *p = realloc(*out, more * sizeof(*p));

				if (!p) {
					*cap = SIZE_MAX;
					return n;
				}
				*out = p;
				*cap = more;
			}
			(*out)[n] = x;
			(*out)[n].lblk = (x.lblk + from) & ((1ull << 44) - 1);
			(*out)[n].pblk = (x.pblk + from) & ((1ull << 44) - 1);
			(*out)[n].len_lo = (to - from) & PM_EXT_MAX_LEN;
			n++;
			*end = x.lblk + to;
		}
		from = to;
	}
	return n;
}

/* Put the good extents in place of what is there. */
static int file_put(struct repair *r, const struct pm_inode *in, const struct pm_ext *x, size_t n,
                    uint64_t blocks)
{
	struct bt_entry *e;
	int err;

	if (n <= PM_INLINE_EXTENTS)
		return put_inline(r, in, x, n, blocks);
	e = calloc(n, sizeof(*e));
	if (!e)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		e[i] = (struct bt_entry){ x[i].lblk, &x[i], sizeof(x[i]) };
	store_lock(r->st);
	err = bt_rebuild(r->st, in, e, n, blocks);
	store_unlock(r->st);
	free(e);
	return err;
}

static int set_fields(struct repair *r, const struct pm_inode *in, uint64_t count, uint64_t blocks,
                      uint64_t end)
{
	struct where w = where_ino(r, in->ino);
	struct pm_tx *tx = begin(r);
	struct pm_inode *sh = ino_edit(tx, in);

	if ((in->flags & PM_IF_TREE) && in->u.tree.count != count) {
		sh->u.tree.count = count;
		say(r, w.text, "count of its tree set from %llu to %llu", ULL(in->u.tree.count),
		    ULL(count));
	}
	if (in->type == PM_DIR && in->size != count) {
		sh->size = count;
		say(r, w.text, "count of entries set from %llu to %llu", ULL(in->size), ULL(count));
	}
	if (in->type == PM_REG &&
	    (in->size > PM_FILE_MAX ||
	     (r->obj[in->ino].salvaged && in->size < (end ? end - 1 : 0) * PM_BLOCK))) {
		sh->size = end * PM_BLOCK;
		say(r, w.text, "size set from %llu to the end of its blocks, %llu", ULL(in->size),
		    ULL(sh->size));
	}
	if (in->blocks != blocks) {
		sh->blocks = blocks;
		if (!r->obj[in->ino].salvaged)
			say(r, w.text, "count of blocks set from %llu to %llu", ULL(in->blocks),
			    ULL(blocks));
	}
	if (in->mode & ~07777u) {
		sh->mode &= 07777u;
		say(r, w.text, "mode set from 0%o to 0%o", in->mode, sh->mode);
	}
	return commit(r, tx);
}

static int file(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct content c = { .r = r, .in = in };
	struct pm_ext *x = NULL, last = { 0 };
	size_t n = 0, cap = 0;
	uint64_t end = 0, blocks = 0;
	bool tree = in->flags & PM_IF_TREE;
	int err;

	if (tree)
		read_tree(&c, true);
	else
		read_inline(&c);
	if (c.lost_inner)
		regain(&c);
	for (size_t i = 1; i < c.n; i++)
		c.broken |= c.e[i].key <= c.e[i - 1].key;
	if (c.n)
		qsort(c.e, c.n, sizeof(*c.e), by_key);
	for (size_t i = 0; i < c.n; i++) {
		memset(&last, 0, sizeof(last));
		if (c.e[i].len == sizeof(last))
			memcpy(&last, c.e[i].val, sizeof(last));
		if (c.e[i].len != sizeof(last) || last.lblk != c.e[i].key) {
			c.broken = true;
			say(r, where_ino(r, ino).text,
			    "extent under key %llu is of another place: dropped", ULL(c.e[i].key));
			continue;
		}
		n = good_parts(r, in, last, &end, &x, n, &cap, &c.broken);
	}
	for (size_t i = 0; i < n; i++)
		blocks += x[i].len_lo;
	err = c.nomem || cap == SIZE_MAX ? -ENOMEM : 0;
	if (!err && c.broken) {
		say(r, where_ino(r, ino).text, "extents written anew: %zu, %llu blocks", n,
		    ULL(blocks));
		err = file_put(r, in, x, n, blocks);
		if (!err)
			err = set_fields(r, in, n, in->blocks, end);
	} else if (!err) {
		err = set_fields(r, in, c.n, blocks + c.nodes, end);
	}
	free(c.e);
	free(x);
	return err;
}

/* --- directories --- */

struct entries { /* what a directory shall have */
	struct bt_entry *e;
	size_t n;
	struct pm_dent **fixed; /* copies with another type */
	size_t nfixed;
};

/* Why this entry cannot stay, or NULL. */
static const char *dent_fault(struct repair *r, uint64_t dir, const struct bt_entry *e,
                              struct pm_dent *d)
{
	const struct object *o;
	const struct pm_inode *to;

	if (!dent_ok(r, dir, e, d))
		return "an impossible name or inode";
	o = &r->obj[d->ino];
	to = ino_at(r->st, d->ino);
	if (o->state != LIVE)
		return "its inode is lost or free";
	if (to->gen != d->gen)
		return "it is of another generation of its inode";
	if (to->type == PM_DIR && o->names)
		return "a directory has one name, and has it elsewhere";
	if (to->type == PM_DIR && o->claims > 1 && o->claim_parent && to->parent != dir)
		return "the directory has its name in its parent";
	return NULL;
}

static bool same_name(const struct bt_entry *a, const struct bt_entry *b)
{
	size_t h = sizeof(struct pm_dent);

	return a->len == b->len &&
	       !memcmp((const char *)a->val + h, (const char *)b->val + h, a->len - h);
}

/* Entry @i of the sorted list gets a key that fits its name; false: it has one. */
static bool rekey(struct repair *r, uint64_t dir, struct bt_entry *e)
{
	size_t h = sizeof(struct pm_dent);
	uint64_t hash = dir_hash(r->st, dir, (const char *)e->val + h, e->len - h);

	if (e->key >> 16 == hash)
		return false;
	e->key = hash << 16;
	return true;
}

/* Sorted; keys that meet are told apart, of two equal names the second goes. */
static void settle_keys(struct repair *r, uint64_t dir, struct content *c)
{
	struct where w = where_ino(r, dir);
	size_t out = 0;

	if (c->n)
		qsort(c->e, c->n, sizeof(*c->e), by_key);
	for (size_t i = 0; i < c->n; i++) {
		bool twice = false;

		for (size_t k = out; k-- > 0 && c->e[k].key >> 16 == c->e[i].key >> 16;)
			twice |= same_name(&c->e[k], &c->e[i]);
		if (twice) {
			struct pm_dent d;

			memcpy(&d, c->e[i].val, sizeof(d));
			c->broken = true;
			r->obj[d.ino].names--;
			say(r, w.text, "second entry of the same name dropped (inode %llu)",
			    ULL(d.ino));
			continue;
		}
		if (out && c->e[i].key <= c->e[out - 1].key) {
			c->e[i].key = c->e[out - 1].key + 1;
			c->broken = true;
		}
		c->e[out++] = c->e[i];
	}
	c->n = out;
}

static void count_name(struct repair *r, uint64_t dir, const struct pm_dent *d)
{
	struct object *o = &r->obj[d->ino];

	o->names++;
	if (ino_at(r->st, d->ino)->type == PM_DIR) {
		o->in_dir = dir;
		r->obj[dir].subdirs++;
	}
}

static int directory(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct content c = { .r = r, .in = in };
	struct where w = where_ino(r, ino);
	uint8_t **copy = NULL;
	size_t ncopy = 0, out = 0;
	int err = 0;

	if (in->flags & PM_IF_TREE)
		read_tree(&c, true);
	if (c.lost_inner)
		regain(&c);
	copy = calloc(c.n + 1, sizeof(*copy));
	if (!copy)
		c.nomem = true;
	for (size_t i = 0; i < c.n && !c.nomem; i++) {
		struct bt_entry e = c.e[i];
		struct pm_dent d = { 0 };
		const char *fault = dent_fault(r, ino, &e, &d);
		int len = e.len > sizeof(d) ? (int)(e.len - sizeof(d)) : 0;
		const char *name = (const char *)e.val + sizeof(d);

		if (fault) {
			c.broken = true;
			say(r, w.text, "entry '%.*s' (inode %llu) dropped: %s", len, name,
			    ULL(d.ino), fault);
			continue;
		}
		if (d.type != ino_at(r->st, d.ino)->type) {
			uint8_t *p = copy[ncopy] = malloc(e.len);

			c.nomem |= !p;
			if (!p)
				break;
			ncopy++;
			memcpy(p, e.val, e.len);
			p[offsetof(struct pm_dent, type)] = (uint8_t)ino_at(r->st, d.ino)->type;
			e.val = p;
			c.broken = true;
			say(r, w.text, "type of entry '%.*s' set as inode %llu has it", len, name,
			    ULL(d.ino));
		}
		if (rekey(r, ino, &e)) {
			c.broken = true;
			say(r, w.text, "cookie of entry '%.*s' (inode %llu) set right", len, name,
			    ULL(d.ino));
		}
		count_name(r, ino, &d);
		c.e[out++] = e;
	}
	c.n = out;
	settle_keys(r, ino, &c);
	if (c.nomem) {
		err = -ENOMEM;
	} else if (c.broken) {
		say(r, w.text, "entries written anew: %zu", c.n);
		store_lock(r->st);
		err = bt_rebuild(r->st, in, c.e, c.n, 0);
		store_unlock(r->st);
		if (!err)
			err = set_fields(r, in, c.n, in->blocks, 0);
	} else {
		err = set_fields(r, in, c.n, c.nodes, 0);
	}
	for (size_t i = 0; i < ncopy; i++)
		free(copy[i]);
	free(copy);
	free(c.e);
	return err;
}

static int contents(struct repair *r)
{
	int err = 0;

	/* directories first: what they read must not have been written over, and files take blocks
	 */
	for (uint64_t ino = 1; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == LIVE && ino_at(r->st, ino)->type == PM_DIR)
			err = directory(r, ino);
	for (uint64_t ino = 1; ino < r->nino && !err; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);

		if (r->obj[ino].state != LIVE || in->type == PM_DIR)
			continue;
		if (has_extents(in))
			err = file(r, ino);
		else
			err = set_fields(r, in, 0, 0, 0);
	}
	if (!err && r->obj[0].state == LIVE) {
		const struct pm_inode *in = ino_at(r->st, 0);
		struct content c = { .r = r, .in = in };
		uint64_t n = r->nino / PM_CHUNK_INODES * PM_CHUNK_BLOCKS;

		if (in->flags & PM_IF_TREE)
			read_tree(&c, false);
		if (!c.broken)
			err = set_fields(r, in, c.n, n + c.nodes, 0);
		free(c.e);
	}
	return err;
}

/* --- reply records --- */

/* A record that cannot be read is forgotten; an empty one takes its place in the order of the ring.
 */
static int fix_slot(struct repair *r, const struct pm_slot *slot, uint64_t i, uint64_t n)
{
	const struct pm_slot *prev = &slot[(i + n - 1) % n], *next = &slot[(i + 1) % n];
	uint64_t boot = r->st->super.boot;
	struct pm_tx *tx;
	struct pm_slot *s;
	char where[40];

	tx = begin(r);
	s = tx_edit(tx, &slot[i], sizeof(*s), TX_SLOT);
	*s = (struct pm_slot){ .seq = 0 };
	if (prev->seq && !slot_fault(prev, boot))
		s->seq = prev->seq + 1;
	else if (next->seq && !slot_fault(next, boot))
		s->seq = next->seq - 1;
	else
		s->seq = 1;
	snprintf(where, sizeof(where), "reply record %llu", ULL(i));
	say(r, where, "dropped: a repetition of that request would be carried out");
	return commit(r, tx);
}

static int replies(struct repair *r)
{
	const struct pm_super *sb = &r->st->super;
	const struct pm_slot *slot = blk_ptr(r->st, sb->reply_start);
	uint64_t n = sb->reply_blocks * PM_BLOCK_SLOTS;
	int err = 0;

	if (!(sb->incompat & PM_INCOMPAT_REPLIES))
		return 0;
	for (uint64_t i = 0; i < n && !err; i++)
		if (slot_fault(&slot[i], sb->boot) ||
		    (i && !slot[i].seq && slot[i - 1].seq && slot[(i + 1) % n].seq))
			err = fix_slot(r, slot, i, n);
	return err;
}

/* --- limits ---------------------------------------------------------------------------------- */

static void say_quota(void *arg, const char *what)
{
	say(arg, "quota file", "%s", what);
}

static bool may_be_quota(const struct repair *r, uint64_t ino)
{
	return ino > PM_ROOT_INO && ino < r->nino && r->obj[ino].state == LIVE &&
	       !r->obj[ino].claims && ino_at(r->st, ino)->type == PM_REG;
}

/* The file of limits has no name; inode 0 leads to it, and if that is wrong its first block shows it. */
static uint64_t find_quota(const struct repair *r)
{
	uint64_t ino = ino_at(r->st, 0)->parent;

	if (may_be_quota(r, ino) && quota_is_file(r->st, ino_at(r->st, ino)))
		return ino;
	for (uint64_t i = PM_ROOT_INO + 1; i < r->nino; i++)
		if (may_be_quota(r, i) && quota_is_file(r->st, ino_at(r->st, i)))
			return i;
	return may_be_quota(r, ino) ? ino : 0;
}

static int limits(struct repair *r)
{
	const struct pm_inode *table = ino_at(r->st, 0);
	uint64_t ino = r->obj[0].state == LIVE ? find_quota(r) : 0;
	struct pm_tx *tx;
	int err = 0;

	if (r->obj[0].state != LIVE)
		return 0;
	if (table->parent != ino) {
		say(r, "quota file", ino ? "found again" : "lost: no limits are in force, set them again");
		tx = begin(r);
		ino_edit(tx, table)->parent = ino;
		err = commit(r, tx);
	}
	r->quota = ino;
	if (!err && ino) {
		store_lock(r->st);
		err = quota_mend(r->st, ino, say_quota, r);
		store_unlock(r->st);
	}
	return err;
}

/* --- links --- */

static int fix_links(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	const struct object *o = &r->obj[ino];
	struct where w = where_ino(r, ino);
	bool dir = in->type == PM_DIR;
	uint32_t nlink = dir ? 2 + o->subdirs : o->names;
	uint64_t parent = ino == PM_ROOT_INO ? ino : o->names ? o->in_dir : in->parent;
	struct pm_inode *sh;
	struct pm_tx *tx;

	if (!dir && !o->names) /* an orphan, or for lost+found */
		nlink = in->nlink;
	if (in->nlink == nlink && (!dir || in->parent == parent))
		return 0;
	tx = begin(r);
	sh = ino_edit(tx, in);
	if (in->nlink != nlink && !o->salvaged)
		say(r, w.text, "link count set from %u to %u", in->nlink, nlink);
	if (dir && in->parent != parent && !o->salvaged)
		say(r, w.text, "parent set from %llu to %llu", ULL(in->parent), ULL(parent));
	sh->nlink = nlink;
	if (dir)
		sh->parent = parent;
	return commit(r, tx);
}

/* Directories that do not hang from the root hang from themselves, or from one without a name. A
 * loop is cut where it is met. */
static int cut_loop(struct repair *r, uint64_t ino)
{
	uint64_t slow = ino, fast = ino, steps = 0;
	int err;

	while (fast != PM_ROOT_INO && r->obj[fast].names && steps++ < 2 * r->nino) {
		fast = r->obj[fast].in_dir;
		if (steps % 2 == 0)
			slow = r->obj[slow].in_dir;
		if (fast == slow && fast != PM_ROOT_INO && r->obj[fast].names && steps > 1)
			break;
	}
	if (fast == PM_ROOT_INO || !r->obj[fast].names)
		return 0;
	say(r, where_ino(r, fast).text, "was inside itself: its name in directory %llu dropped",
	    ULL(r->obj[fast].in_dir));
	err = dir_disown(r->st, r->obj[fast].in_dir, fast);
	r->obj[r->obj[fast].in_dir].subdirs--;
	r->obj[fast].names = 0;
	return err;
}

static int links(struct repair *r)
{
	int err = 0;

	for (uint64_t ino = PM_ROOT_INO; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == LIVE)
			err = fix_links(r, ino);
	for (uint64_t ino = PM_ROOT_INO + 1; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == LIVE && ino_at(r->st, ino)->type == PM_DIR)
			err = cut_loop(r, ino);
	return err;
}

/* --- lost+found --- */

static int free_orphan(struct repair *r, uint64_t ino)
{
	struct pm_tx *tx = begin(r);

	ino_free(tx, ino_edit(tx, ino_at(r->st, ino)));
	r->obj[ino].state = FREE;
	return commit(r, tx);
}

/* A directory of this name, made if need be; another one's name is left alone. */
static int lost_found(struct repair *r, uint64_t *dir)
{
	static const char *const names[] = { "lost+found", "lost+found.berth",
		                             "lost+found.berth.1" };
	const struct pm_id root = { PM_ROOT_INO, 1 };
	int err = -ENOSPC;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct pm_new nw = { .type = PM_DIR, .mode = 0700 };
		struct pm_change ch;
		struct pm_attr a;

		err = pm_lookup(r->st, root, names[i], strlen(names[i]), &a);
		if (!err && a.type == PM_DIR) {
			*dir = a.id.ino;
			return 0;
		}
		if (err != -ENOENT)
			continue;
		err = pm_create(r->st, root, names[i], strlen(names[i]), &nw, &ch);
		if (!err) {
			*dir = ch.obj.id.ino;
			return 0;
		}
	}
	return err ? err : -EEXIST;
}

static int adopt(struct repair *r)
{
	uint64_t dir = 0;
	int err = 0;

	for (uint64_t ino = PM_ROOT_INO + 1; ino < r->nino && !err; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);
		struct where w;
		char name[32];

		if (r->obj[ino].state != LIVE || r->obj[ino].names || ino == dir ||
		    ino == r->quota)
			continue;
		if (in->type != PM_DIR && !in->nlink) {
			err = free_orphan(r, ino); /* as every open does */
			continue;
		}
		if (!dir)
			err = lost_found(r, &dir);
		snprintf(name, sizeof(name), "#%llu", ULL(ino));
		if (!err)
			err = dir_adopt(r->st, dir, name, ino);
		w = where_ino(r, ino);
		if (!err)
			say(r, w.text, "no name led to it: now '%s' in lost+found (directory %llu)",
			    name, ULL(dir));
	}
	return err;
}

/* --- entry --- */

static int repair_store(struct repair *r)
{
	struct pm_store *st = r->st;
	int err;

	r->nino = ino_count(st);
	r->nblk = st->super.blocks;
	r->obj = calloc(r->nino, sizeof(*r->obj));
	r->meta = calloc(r->nblk / 64 + 1, 8);
	r->data = calloc(r->nblk / 64 + 1, 8);
	if (!r->obj || !r->meta || !r->data)
		return -ENOMEM;
	census(r);
	claims(r);
	memset(r->meta, 0, (r->nblk / 64 + 1) * 8); /* of damaged inodes too, so far */
	err = bad_inodes(r);
	if (!err)
		err = own(r);
	if (!err)
		err = replies(r);
	if (!err)
		err = contents(r);
	if (!err)
		err = limits(r);
	if (!err)
		err = links(r);
	if (!err)
		err = adopt(r);
	free(r->obj);
	free(r->meta);
	free(r->data);
	free(r->leaf);
	return err;
}

static int repair_path(const char *path, struct repair *r, struct pm_error *why)
{
	struct pm_open_opts o = { .method = PM_AUTO };
	int err = store_open_repair(path, &o, &r->st, why), rc;

	if (err)
		return err;
	err = repair_store(r);
	rc = store_close_repair(r->st);
	if (!err)
		err = rc;
	if (err && why)
		why_set(why, "pool %.200s: repair stopped: %s; nothing is lost by running it again",
		        path, strerror(-err));
	return err;
}

int pm_repair(const char *path, const struct pm_repair_calls *calls, void *arg,
              struct pm_repair_report *out, struct pm_error *why)
{
	struct pm_repair_report rep = { .found = 0 };
	struct repair r = { .fixed = calls->fixed, .arg = arg };
	struct pm_error first = { .text = "" };
	int err = pm_check(path, calls->found, calls->progress, arg, &rep.check, &first);

	if (err && err != -EUCLEAN) {
		if (why)
			*why = first;
		return err;
	}
	if (err && calls->found)
		calls->found(arg, "pool", first.text);
	rep.found = err ? 1 : rep.check.problems;
	if (!rep.found) {
		*out = rep;
		return 0;
	}
	err = repair_path(path, &r, why);
	rep.repaired = r.n;
	if (!err)
		err = pm_check(path, calls->left, calls->progress, arg, &rep.check, why);
	if (err)
		return err;
	rep.left = rep.check.problems;
	*out = rep;
	return 0;
}
