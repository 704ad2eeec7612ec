/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_inode.c - which inodes are good, what names say of them, and damaged ones made anew */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/repair.h"

/* --- census, claims -----------------------------------------------------------------------------
 */

void rep_census(struct repair *r)
{
	for (uint64_t ino = 0; ino < r->nino; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);
		int err = ino_verify(in, ino);

		r->obj[ino].state = err == -ENOENT && ino > PM_ROOT_INO        ? FREE
		                    : err                                      ? BAD
		                    : ino == 0 && in->type != PM_REG           ? BAD
		                    : ino == PM_ROOT_INO && in->type != PM_DIR ? BAD
		                                                               : LIVE;
		/* made anew by a repair that was cut off */
		r->obj[ino].salvaged = r->obj[ino].state == LIVE && in->flags & PM_IF_DOUBT;
	}
}

bool rep_dent_ok(const struct repair *r, uint64_t dir, const struct bt_entry *e,
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
	rep_tree(&c, false);
	for (size_t i = 0; i < c.n; i++) {
		struct object *o;
		struct pm_dent d;

		if (!rep_dent_ok(r, ino, &c.e[i], &d) || d.type < PM_REG || d.type > PM_FIFO)
			continue;
		o = &r->obj[d.ino];
		o->claims++;
		o->claim_gen = d.gen;
		o->claim_type = d.type;
		o->claim_parent |= ino_at(r->st, d.ino)->parent == ino;
	}
	free(c.e);
}

void rep_claims(struct repair *r)
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
	sh->flags |= PM_IF_DOUBT;
}

static int salvage(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct object *o = &r->obj[ino];
	unsigned type = kind_of(r, ino);
	struct where w = rep_where(r, ino);
	struct pm_inode *sh;
	struct pm_tx *tx;

	if (type == PM_LNK && !target_len(r, in))
		type = 0;
	tx = rep_begin(r);
	sh = ino_edit(tx, in);
	if (type) {
		make_anew(r, sh, ino, type);
		rep_say(r, w.text,
		    "damaged; made anew from what is left of it: owner 0:0, mode 0%o, size %llu "
		    "not "
		    "certain, content not certain",
		    sh->mode, ULL(sh->size));
		o->state = LIVE;
		o->salvaged = true;
	} else {
		/* a generation that this slot never had: old handles stay stale */
		*sh = (struct pm_inode){ .ino = ino, .gen = r->st->super.boot << 32 };
		rep_say(r, w.text,
		    o->claims ? "damaged beyond use; set free, its names go"
		              : "damaged and without a name; set free");
		o->state = FREE;
	}
	return rep_commit(r, tx);
}

/* --- inode 0 --- */

/* Where the chunks lie, as extents of inode 0; free(*out). */
static int table_extents(const struct repair *r, struct pm_ext **out, size_t *n)
{
	uint64_t chunks = r->nino / PM_CHUNK_INODES, next = 0;
	struct pm_ext *x = calloc(chunks, sizeof(*x));

	if (!x)
		return -ENOMEM;
	*n = 0;
	for (uint64_t c = 0; c < chunks; c++) {
		uint64_t at = table_chunk(r->st, c);
		struct pm_ext *last = *n ? &x[*n - 1] : NULL;

		if (last && at == next && last->len_lo + PM_CHUNK_BLOCKS <= PM_EXT_MAX_LEN) {
			last->len_lo = (last->len_lo + PM_CHUNK_BLOCKS) & PM_EXT_MAX_LEN;
		} else {
			x[*n].lblk = c * PM_CHUNK_BLOCKS & ((1ull << 44) - 1);
			x[*n].len_lo = PM_CHUNK_BLOCKS;
			x[*n].pblk = at & ((1ull << 44) - 1);
			++*n;
		}
		next = at + PM_CHUNK_BLOCKS;
	}
	*out = x;
	return 0;
}

/* More than fit into inode 0 itself: until they have a tree, and nothing is built before all blocks in use are marked,
 * it says how many chunks there are and leads to the first only, so that nobody takes a wrong one for right. */
static int chunks_inline(const struct repair *r, struct pm_inode *in)
{
	struct pm_ext *x;
	size_t n;
	int err = table_extents(r, &x, &n);

	if (err)
		return err;
	in->flags = 0;
	memset(&in->u, 0, sizeof(in->u));
	memcpy(in->u.ext, x, (n <= PM_INLINE_EXTENTS ? n : 1) * sizeof(*x));
	if (n > PM_INLINE_EXTENTS)
		in->u.ext[0].len_lo = PM_CHUNK_BLOCKS;
	in->blocks = r->nino / PM_CHUNK_INODES * PM_CHUNK_BLOCKS;
	free(x);
	return 0;
}

int rep_table(struct repair *r)
{
	const struct pm_inode *in = ino_at(r->st, 0);
	struct bt_entry *e;
	struct pm_ext *x;
	size_t n;
	int err;

	if (!table_found(r->st))
		return 0;
	err = table_extents(r, &x, &n);
	if (err)
		return err;
	e = calloc(n, sizeof(*e));
	for (size_t i = 0; e && i < n; i++)
		e[i] = (struct bt_entry){ x[i].lblk, &x[i], sizeof(x[i]) };
	if (!e)
		err = -ENOMEM;
	else if (n > PM_INLINE_EXTENTS) {
		store_lock(r->st);
		err = bt_rebuild(r->st, in, e, n, r->nino / PM_CHUNK_INODES * PM_CHUNK_BLOCKS);
		store_unlock(r->st);
	}
	free(e);
	free(x);
	return err;
}

static int fix_table(struct repair *r)
{
	const struct pm_inode *in = ino_at(r->st, 0);
	struct pm_tx *tx = rep_begin(r);
	struct pm_inode *sh = ino_edit(tx, in);
	struct pm_inode new = { .type = PM_REG, .gen = 1, .mode = 0600, .nlink = 1 };
	int err = 0;

	new.flags = sh->flags & PM_IF_TREE;
	if (sh->parent > PM_ROOT_INO && sh->parent < r->nino && r->obj[sh->parent].state == LIVE &&
	    !r->obj[sh->parent].claims)
		new.parent = sh->parent; /* the quota file */
	new.size = r->nino / PM_CHUNK_INODES *PM_CHUNK_BLOCKS *PM_BLOCK;
	new.blocks = sh->blocks;
	new.atime = time_or_now(sh->atime);
	new.mtime = time_or_now(sh->mtime);
	new.ctime = time_or_now(sh->ctime);
	new.u = sh->u;
	if (table_found(r->st))
		err = chunks_inline(r, &new);
	if (err) {
		tx_abort(tx);
		store_unlock(r->st);
		return err;
	}
	*sh = new;
	r->obj[0].state = LIVE;
	if (table_found(r->st))
		rep_say(r, "inode table 0", "made anew: its %llu chunks were found by the numbers of their inodes",
		        ULL(r->nino / PM_CHUNK_INODES));
	else
		rep_say(r, "inode table 0", "inode made anew: the chunks it leads to prove it");
	return rep_commit(r, tx);
}

int rep_bad_inodes(struct repair *r)
{
	int err = 0;

	if (table_found(r->st) || (r->obj[0].state == BAD && table_proved(r->st)))
		err = fix_table(r);
	for (uint64_t ino = 1; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == BAD)
			err = salvage(r, ino);
	return err;
}
