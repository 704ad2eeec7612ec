/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair.h - one repair: what it knows of the pool; private to these files
 *
 *   repair.c          the stages in order, reply records, limits
 *   repair_read.c     the readable entries of a tree, leaves that nothing leads to any more
 *   repair_inode.c    census, claims, damaged inodes, inode 0
 *   repair_table.c    the chunks of the inode table, found when the pool is opened (core.h)
 *   repair_content.c  who owns which block; extents of files and entries of directories written anew
 *   repair_name.c     link counts, parents, loops, lost+found
 *
 * One thread; the lock of the store is taken for each transaction, by rep_begin().
 */
#ifndef PMEMIO_REPAIR_H
#define PMEMIO_REPAIR_H

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

/* --- repair.c -------------------------------------------------------------------------------- */

/* One repair more: tell of it. */
void rep_say(struct repair *r, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

struct where {
	char text[80];
};

struct where rep_where(const struct repair *r, uint64_t ino);
struct pm_tx *rep_begin(struct repair *r);
int rep_commit(struct repair *r, struct pm_tx *tx);

static inline bool bit(const uint64_t *map, uint64_t b)
{
	return map[b / 64] >> (b % 64) & 1;
}

static inline void set_bit(uint64_t *map, uint64_t b)
{
	map[b / 64] |= 1ull << (b % 64);
}

static inline bool inside(const struct repair *r, uint64_t start, uint64_t len)
{
	return len && start >= r->st->super.data_start && start < r->nblk && len <= r->nblk - start;
}

/* --- repair_read.c --------------------------------------------------------------------------- */

static inline const struct pm_bent *node_ent(const struct pm_bnode *n, unsigned i)
{
	return (const struct pm_bent *)(const void *)((const uint8_t *)n + n->slot[i]);
}

/* All that is readable of the tree that c->in has. @tell: name what cannot be read (once: several
 * passes come this way). */
void rep_tree(struct content *c, bool tell);
void rep_inline(struct content *c);
/* Every good leaf whose owner has lost a node above leaves: 0, -ENOMEM. */
int rep_leaves(struct repair *r);
/* Take leaves back that nothing leads to any more, if they add up. 0, -ENOMEM, -ENOSPC, -EIO. */
int rep_regain(struct content *c);
int rep_by_key(const void *a, const void *b); /* of struct bt_entry, for qsort */

static inline bool has_extents(const struct pm_inode *in)
{
	return in->type == PM_REG || (in->type == PM_LNK && in->size > PM_INLINE_LINK);
}

/* --- repair_inode.c -------------------------------------------------------------------------- */

/* A name and an inode that may be. */
bool rep_dent_ok(const struct repair *r, uint64_t dir, const struct bt_entry *e, struct pm_dent *d);
void rep_census(struct repair *r);
void rep_claims(struct repair *r);
int rep_bad_inodes(struct repair *r);
/* Inode 0 leads to the chunks again that were found without it. */
int rep_table(struct repair *r);

/* --- repair_content.c ------------------------------------------------------------------------ */

int rep_own(struct repair *r);
int rep_contents(struct repair *r);

/* --- repair_name.c --------------------------------------------------------------------------- */

int rep_links(struct repair *r);
int rep_adopt(struct repair *r);

#endif
