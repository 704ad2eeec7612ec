/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_content.c - who owns which block; extents and entries that cannot stay, from what is readable */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/repair.h"

/* --- who owns what --- */

static void own_extent(struct repair *r, uint64_t ino, const struct pm_ext *x)
{
	if (!inside(r, x->pblk, x->len_lo))
		return;
	blk_mark(r->st, x->pblk, x->len_lo);
	for (uint64_t b = x->pblk; b < x->pblk + x->len_lo; b++)
		set_bit(ino == 0 ? r->meta : r->data, b);
}

/* Inode 0 does not lead to them yet. */
static void own_chunks(struct repair *r)
{
	for (uint64_t c = 0; c < r->nino / PM_CHUNK_INODES; c++)
		for (uint64_t b = 0; b < PM_CHUNK_BLOCKS; b++)
			set_bit(r->meta, table_chunk(r->st, c) + b);
}

/* Nodes of all trees, and the extents of inodes that were never in doubt. */
int rep_own(struct repair *r)
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
		if (ino == 0 && table_found(r->st))
			own_chunks(r);
		else if (in->flags & PM_IF_TREE)
			rep_tree(&c, false);
		else if (has_extents(in))
			rep_inline(&c);
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
	return lost ? rep_leaves(r) : 0;
}

/* --- files --- */

static int put_inline(struct repair *r, const struct pm_inode *in, const struct pm_ext *x, size_t n,
                      uint64_t blocks)
{
	struct pm_tx *tx = rep_begin(r);
	struct pm_inode *sh = ino_edit(tx, in);

	sh->flags &= (uint16_t)~PM_IF_TREE;
	memset(&sh->u, 0, sizeof(sh->u));
	if (n)
		memcpy(sh->u.ext, x, n * sizeof(*x));
	sh->blocks = blocks;
	return rep_commit(r, tx);
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
	struct where w = rep_where(r, in->ino);
	uint64_t from = 0, len = x.len_lo;

	if (!inside(r, x.pblk, len) || (x.flags & ~PM_XF_UNWRITTEN) ||
	    x.lblk + len > PM_FILE_MAX / PM_BLOCK) {
		*broken = true;
		rep_say(r, w.text, "impossible extent dropped: file blocks %llu+%llu read as zeros now",
		    ULL(x.lblk), ULL(len));
		return n;
	}
	if (x.lblk < *end) { /* the one before it has these */
		from = *end - x.lblk < len ? *end - x.lblk : len;
		*broken = true;
		rep_say(r, w.text, "file blocks %llu+%llu stood twice: the second place dropped",
		    ULL(x.lblk), ULL(from));
	}
	while (from < len) {
		uint64_t to = from;
		bool bad = not_his(r, o, x.pblk + from);

		while (to < len && not_his(r, o, x.pblk + to) == bad)
			to++;
		if (bad) {
			*broken = true;
			rep_say(r, w.text,
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
	struct where w = rep_where(r, in->ino);
	struct pm_tx *tx = rep_begin(r);
	struct pm_inode *sh = ino_edit(tx, in);

	if ((in->flags & PM_IF_TREE) && in->u.tree.count != count) {
		sh->u.tree.count = count;
		rep_say(r, w.text, "count of its tree set from %llu to %llu", ULL(in->u.tree.count),
		    ULL(count));
	}
	if (in->type == PM_DIR && in->size != count) {
		sh->size = count;
		rep_say(r, w.text, "count of entries set from %llu to %llu", ULL(in->size), ULL(count));
	}
	if (in->type == PM_REG &&
	    (in->size > PM_FILE_MAX ||
	     (r->obj[in->ino].salvaged && in->size < (end ? end - 1 : 0) * PM_BLOCK))) {
		sh->size = end * PM_BLOCK;
		rep_say(r, w.text, "size set from %llu to the end of its blocks, %llu", ULL(in->size),
		    ULL(sh->size));
	}
	if (in->blocks != blocks) {
		sh->blocks = blocks;
		if (!r->obj[in->ino].salvaged)
			rep_say(r, w.text, "count of blocks set from %llu to %llu", ULL(in->blocks),
			    ULL(blocks));
	}
	if (in->mode & ~07777u) {
		sh->mode &= 07777u;
		rep_say(r, w.text, "mode set from 0%o to 0%o", in->mode, sh->mode);
	}
	return rep_commit(r, tx);
}

static int file(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct content c = { .r = r, .in = in };
	struct pm_ext *x = NULL, last = { 0 };
	size_t n = 0, cap = 0;
	uint64_t end = 0, blocks = 0;
	bool tree = in->flags & PM_IF_TREE;
	int err = 0;

	if (tree)
		rep_tree(&c, true);
	else
		rep_inline(&c);
	if (c.lost_inner)
		err = rep_regain(&c);
	for (size_t i = 1; i < c.n; i++)
		c.broken |= c.e[i].key <= c.e[i - 1].key;
	if (c.n)
		qsort(c.e, c.n, sizeof(*c.e), rep_by_key);
	for (size_t i = 0; i < c.n; i++) {
		memset(&last, 0, sizeof(last));
		if (c.e[i].len == sizeof(last))
			memcpy(&last, c.e[i].val, sizeof(last));
		if (c.e[i].len != sizeof(last) || last.lblk != c.e[i].key) {
			c.broken = true;
			rep_say(r, rep_where(r, ino).text,
			    "extent under key %llu is of another place: dropped", ULL(c.e[i].key));
			continue;
		}
		n = good_parts(r, in, last, &end, &x, n, &cap, &c.broken);
	}
	for (size_t i = 0; i < n; i++)
		blocks += x[i].len_lo;
	if (c.nomem || cap == SIZE_MAX)
		err = -ENOMEM;
	if (!err && c.broken) {
		rep_say(r, rep_where(r, ino).text, "extents written anew: %zu, %llu blocks", n,
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

	if (!rep_dent_ok(r, dir, e, d))
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
	struct where w = rep_where(r, dir);
	size_t out = 0;

	if (c->n)
		qsort(c->e, c->n, sizeof(*c->e), rep_by_key);
	for (size_t i = 0; i < c->n; i++) {
		bool twice = false;

		for (size_t k = out; k-- > 0 && c->e[k].key >> 16 == c->e[i].key >> 16;)
			twice |= same_name(&c->e[k], &c->e[i]);
		if (twice) {
			struct pm_dent d;

			memcpy(&d, c->e[i].val, sizeof(d));
			c->broken = true;
			r->obj[d.ino].names--;
			rep_say(r, w.text, "second entry of the same name dropped (inode %llu)",
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

static int directory_put(struct repair *r, const struct pm_inode *in, const struct content *c)
{
	int err;

	if (!c->broken)
		return set_fields(r, in, c->n, c->nodes, 0);
	rep_say(r, rep_where(r, in->ino).text, "entries written anew: %zu", c->n);
	store_lock(r->st);
	err = bt_rebuild(r->st, in, c->e, c->n, 0);
	store_unlock(r->st);
	return err ? err : set_fields(r, in, c->n, in->blocks, 0);
}

static int directory(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct content c = { .r = r, .in = in };
	struct where w = rep_where(r, ino);
	uint8_t **copy = NULL;
	size_t ncopy = 0, out = 0;
	int err = 0;

	if (in->flags & PM_IF_TREE)
		rep_tree(&c, true);
	if (c.lost_inner)
		err = rep_regain(&c);
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
			rep_say(r, w.text, "entry '%.*s' (inode %llu) dropped: %s", len, name,
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
			rep_say(r, w.text, "type of entry '%.*s' set as inode %llu has it", len, name,
			    ULL(d.ino));
		}
		if (rekey(r, ino, &e)) {
			c.broken = true;
			rep_say(r, w.text, "cookie of entry '%.*s' (inode %llu) set right", len, name,
			    ULL(d.ino));
		}
		count_name(r, ino, &d);
		c.e[out++] = e;
	}
	c.n = out;
	settle_keys(r, ino, &c);
	if (c.nomem)
		err = -ENOMEM;
	if (!err)
		err = directory_put(r, in, &c);
	for (size_t i = 0; i < ncopy; i++)
		free(copy[i]);
	free(copy);
	free(c.e);
	return err;
}

/* Each was judged against those that were never in doubt, so none leaves the doubt before all were: who is cut off
 * and begins again must judge in the same way. */
static int no_doubt(struct repair *r)
{
	struct pm_tx *tx = rep_begin(r);
	int err = 0;

	for (uint64_t ino = 1; ino < r->nino && !err; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);

		if (r->obj[ino].state != LIVE || !(in->flags & PM_IF_DOUBT))
			continue;
		ino_edit(tx, in)->flags &= (uint16_t)~PM_IF_DOUBT;
		if (!tx_large(tx))
			continue;
		err = tx_commit(tx, NULL);
		tx = tx_begin(r->st);
	}
	if (err) {
		tx_abort(tx);
		store_unlock(r->st);
		return err;
	}
	return rep_commit(r, tx);
}

int rep_contents(struct repair *r)
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
	if (!err)
		err = no_doubt(r);
	if (!err && r->obj[0].state == LIVE) {
		const struct pm_inode *in = ino_at(r->st, 0);
		struct content c = { .r = r, .in = in };
		uint64_t n = r->nino / PM_CHUNK_INODES * PM_CHUNK_BLOCKS;

		if (in->flags & PM_IF_TREE)
			rep_tree(&c, false);
		if (!c.broken)
			err = set_fields(r, in, c.n, n + c.nodes, 0);
		free(c.e);
	}
	return err;
}
