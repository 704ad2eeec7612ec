/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * quota.c - who uses how much, and how much he may
 *
 * Usage is what the inodes say: an owner has one inode, and the blocks of it, for each live inode
 * with his number. It is kept in memory only, like free space: tx_commit adds what the inodes of
 * the transaction change, open gathers it from the inodes or loads what a clean close stored.
 * Blocks that are fresh (file.h) are pending: they count against the limit from the moment they are
 * taken. Inode 0 and the quota file are nobody's.
 *
 * Limits are records in the quota file, a regular file without a name that inode 0 leads to.
 *
 * Q1  Nothing that would raise usage and pending over a limit is let through: map for writing,
 *     allocate, create, chown, growth of a directory.
 *
 * Q2  What lowers usage never fails, nor does the publishing of a write: the nodes that its extents need are
 *     owed from the moment it is mapped, and count against the limit (promise.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

#include "pmemio/core.h"

#define PER_BLOCK PM_QUOTA_RECORDS
#define ULL(x)    ((unsigned long long)(x))

struct quota {
	struct quota *next;    /* hash chain */
	struct quota *touched; /* by the transaction that commits; itself: the last one */
	uint32_t kind, id;
	uint64_t blocks, inodes, pending; /* the first two: atomic for whoever is inside; pending: see quota_pend */
	uint64_t owed; /* nodes that writes under way or unstable may need: see quota_pend as well */
	uint64_t max_blocks, max_inodes; /* 0: no limit */
	uint64_t slot;                   /* record in the quota file + 1; 0: has none */
	int64_t more_blocks, more_inodes;
};

struct pm_quotas {
	struct quota **bucket;
	size_t nbuckets, n;
	struct quota *touched;
	uint64_t ino;       /* the quota file; 0: there is none */
	bool damaged;       /* and so are some limits */
	uint8_t *slot_used; /* one byte for each record */
	uint64_t nslots;
};

/* --- entries --------------------------------------------------------------------------------- */

static size_t bucket_of(const struct pm_quotas *qs, uint32_t kind, uint32_t id)
{
	uint64_t h = ((uint64_t)kind << 32 | id) * 0x9e3779b97f4a7c15ull;

	return (size_t)(h >> 32) & (qs->nbuckets - 1);
}

static struct quota *find(const struct pm_quotas *qs, uint32_t kind, uint32_t id)
{
	struct quota *q = qs->nbuckets ? qs->bucket[bucket_of(qs, kind, id)] : NULL;

	while (q && (q->id != id || q->kind != kind))
		q = q->next;
	return q;
}

static int more_buckets(struct pm_quotas *qs)
{
	struct pm_quotas old = *qs;

	qs->nbuckets = old.nbuckets ? old.nbuckets * 2 : 64;
	qs->bucket = calloc(qs->nbuckets, sizeof(struct quota *));
	if (!qs->bucket) {
		*qs = old;
		return -ENOMEM;
	}
	for (size_t i = 0; i < old.nbuckets; i++) {
		for (struct quota *q = old.bucket[i], *next; q; q = next) {
			struct quota **at = &qs->bucket[bucket_of(qs, q->kind, q->id)];

			next = q->next;
			q->next = *at;
			*at = q;
		}
	}
	free(old.bucket);
	return 0;
}

struct quota *quota_of(struct pm_store *st, uint32_t kind, uint32_t id)
{
	struct pm_quotas *qs = st->quotas;
	struct quota *q = find(qs, kind, id), **at;

	if (q || worker_here(st)) /* others may be looking something up */
		return q;
	if (qs->n == qs->nbuckets && more_buckets(qs))
		return NULL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->kind = kind;
	q->id = id;
	at = &qs->bucket[bucket_of(qs, kind, id)];
	q->next = *at;
	*at = q;
	qs->n++;
	return q;
}

static bool counts(const struct pm_store *st, const struct pm_inode *in)
{
	return in->type && in->ino && in->ino != st->quotas->ino;
}

uint64_t quota_ino(const struct pm_store *st)
{
	return st->quotas->ino;
}

/* --- counting -------------------------------------------------------------------------------- */

int quota_count(struct pm_store *st, const struct pm_inode *in)
{
	struct quota *u, *g;

	if (!counts(st, in))
		return 0;
	u = quota_of(st, PM_QUOTA_UID, in->uid);
	g = quota_of(st, PM_QUOTA_GID, in->gid);
	if (!u || !g)
		return -ENOMEM;
	u->blocks += in->blocks;
	g->blocks += in->blocks;
	u->inodes++;
	g->inodes++;
	return 0;
}

static int touch(struct pm_store *st, uint32_t kind, uint32_t id, int64_t blocks, int64_t inodes)
{
	struct pm_quotas *qs = st->quotas;
	struct quota *q = quota_of(st, kind, id);

	if (!q)
		return -ENOMEM;
	if (!q->touched) {
		q->touched = qs->touched ? qs->touched : q;
		qs->touched = q;
	}
	q->more_blocks += blocks;
	q->more_inodes += inodes;
	return 0;
}

static int touch_both(struct pm_store *st, const struct pm_inode *in, int sign)
{
	int64_t blocks = sign * (int64_t)in->blocks;
	int err = touch(st, PM_QUOTA_UID, in->uid, blocks, sign);

	return err ? err : touch(st, PM_QUOTA_GID, in->gid, blocks, sign);
}

int quota_note(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now)
{
	bool was = counts(st, old), is = counts(st, now);
	int err = 0;

	if (was == is &&
	    (!is || (old->uid == now->uid && old->gid == now->gid && old->blocks == now->blocks)))
		return 0;
	if (was)
		err = touch_both(st, old, -1);
	if (!err && is)
		err = touch_both(st, now, 1);
	return err;
}

static bool same_owners(const struct pm_inode *old, const struct pm_inode *now)
{
	return old->uid == now->uid && old->gid == now->gid;
}

static bool same_size(const struct pm_inode *old, const struct pm_inode *now)
{
	return old->blocks == now->blocks && !old->type == !now->type;
}

/* Is there a limit of what gets more? */
static bool limited(const struct quota *q, bool blocks, bool inodes)
{
	return (blocks && q->max_blocks) || (inodes && q->max_inodes);
}

/* More or less, of the same owners; a change of these, and more where there is a limit, has to be judged by
 * somebody alone. */
static int judge_plain(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now)
{
	bool was = counts(st, old), is = counts(st, now);
	const struct pm_inode *whose = is ? now : old;
	uint64_t had = was ? old->blocks : 0, has = is ? now->blocks : 0;
	struct quota *u, *g;

	if (was && is && !same_owners(old, now))
		return NEEDS_ALL;
	if (was == is && had == has)
		return 0;
	u = find(st->quotas, PM_QUOTA_UID, whose->uid);
	g = find(st->quotas, PM_QUOTA_GID, whose->gid);
	if (!u || !g)
		return NEEDS_ALL;
	return limited(u, has > had, is > was) || limited(g, has > had, is > was) ? NEEDS_ALL : 0;
}

int quota_plain(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now)
{
	if (same_size(old, now) && same_owners(old, now))
		return 0;
	return judge_plain(st, old, now);
}

static void move(struct quota *q, uint64_t blocks, uint64_t inodes)
{
	if (blocks)
		__atomic_fetch_add(&q->blocks, blocks, __ATOMIC_RELAXED);
	if (inodes)
		__atomic_fetch_add(&q->inodes, inodes, __ATOMIC_RELAXED);
}

void quota_moved(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now)
{
	bool was, is;
	const struct pm_inode *whose;
	uint64_t blocks, inodes;

	if (same_size(old, now))
		return;
	was = counts(st, old);
	is = counts(st, now);
	if (!was && !is)
		return;
	whose = is ? now : old;
	blocks = (is ? now->blocks : 0) - (was ? old->blocks : 0);
	inodes = (uint64_t)is - was;
	move(find(st->quotas, PM_QUOTA_UID, whose->uid), blocks, inodes);
	move(find(st->quotas, PM_QUOTA_GID, whose->gid), blocks, inodes);
}

static bool over(const struct quota *q, int64_t blocks, int64_t inodes)
{
	return (blocks > 0 && q->max_blocks &&
	        q->blocks + q->pending + q->owed + (uint64_t)blocks > q->max_blocks) ||
	       (inodes > 0 && q->max_inodes && q->inodes + (uint64_t)inodes > q->max_inodes);
}

int quota_judge(struct pm_store *st)
{
	struct quota *q = st->repair ? NULL : st->quotas->touched; /* what is there is there */

	for (; q; q = q->touched == q ? NULL : q->touched)
		if (over(q, q->more_blocks, q->more_inodes))
			return -EDQUOT;
	return 0;
}

void quota_settle(struct pm_store *st, bool keep)
{
	struct quota *q = st->quotas->touched, *next;

	for (; q; q = next) {
		next = q->touched == q ? NULL : q->touched;
		if (keep) {
			q->blocks += (uint64_t)q->more_blocks;
			q->inodes += (uint64_t)q->more_inodes;
		}
		q->more_blocks = q->more_inodes = 0;
		q->touched = NULL;
	}
	st->quotas->touched = NULL;
}

bool quota_allows(const struct quota *q, uint64_t blocks)
{
	return !over(q, (int64_t)blocks, 0);
}

void quota_pend(struct quota *q, uint64_t blocks)
{
	if (q->max_blocks)
		__atomic_fetch_add(&q->pending, blocks, __ATOMIC_RELAXED);
}

void quota_pending(struct quota *q, uint64_t blocks, uint64_t owed)
{
	q->pending += blocks;
	q->owed += q->max_blocks ? owed : 0;
}

/* Where there is no limit nobody counts what is pending, all the time. */
static void count_pending(struct pm_store *st)
{
	struct pm_quotas *qs = st->quotas;

	for (size_t i = 0; i < qs->nbuckets; i++)
		for (struct quota *q = qs->bucket[i]; q; q = q->next)
			q->pending = q->owed = 0;
	files_pending(st);
}

bool quota_limits(const struct quota *q)
{
	return q->max_blocks;
}

void quota_owe(struct quota *q, uint64_t blocks)
{
	if (q->max_blocks)
		__atomic_fetch_add(&q->owed, blocks, __ATOMIC_RELAXED);
}

/* --- limits on the media --------------------------------------------------------------------- */

static int slots_for(struct pm_quotas *qs, uint64_t n)
{
	uint8_t *p;

	if (n <= qs->nslots)
		return 0;
	p = realloc(qs->slot_used, n);
	if (!p)
		return -ENOMEM;
	memset(p + qs->nslots, 0, n - qs->nslots);
	qs->slot_used = p;
	qs->nslots = n;
	return 0;
}

static bool block_ok(const struct pm_quota_block *b, uint64_t lblk)
{
	return b->crc == pm_crc(b, PM_BLOCK, 0) && b->magic == PM_QUOTA_MAGIC && b->lblk == lblk;
}

/* The quota file's block @lblk; NULL: not there or damaged. */
static const struct pm_quota_block *block_at(struct pm_store *st, uint64_t lblk, uint64_t *blk)
{
	const struct pm_inode *in = ino_at(st, st->quotas->ino);
	const struct pm_quota_block *b;
	struct ext e;

	if (!in || ext_find(st, NULL, in, lblk, &e))
		return NULL;
	*blk = e.pblk + (lblk - e.lblk);
	b = blk_ptr(st, *blk);
	return block_ok(b, lblk) ? b : NULL;
}

static int read_block(struct pm_store *st, const struct pm_quota_block *b)
{
	struct pm_quotas *qs = st->quotas;
	int err = slots_for(qs, (b->lblk + 1) * PER_BLOCK);

	for (uint64_t i = 0; !err && i < PER_BLOCK; i++) {
		const struct pm_quota_rec *r = &b->rec[i];
		struct quota *q;

		if (r->kind != PM_QUOTA_UID && r->kind != PM_QUOTA_GID)
			continue;
		q = quota_of(st, r->kind, r->id);
		if (!q)
			return -ENOMEM;
		q->max_blocks = r->max_blocks;
		q->max_inodes = r->max_inodes;
		q->slot = b->lblk * PER_BLOCK + i + 1;
		qs->slot_used[q->slot - 1] = 1;
	}
	return err;
}

/* Damage costs the limits that it hit, not the pool. */
static int read_limits(struct pm_store *st)
{
	struct pm_quotas *qs = st->quotas;
	const struct pm_inode *in;
	int err = 0;

	qs->ino = ino_at(st, 0)->parent;
	if (!qs->ino)
		return 0;
	in = ino_at(st, qs->ino);
	if (!in || ino_verify(in, qs->ino) || in->type != PM_REG) {
		qs->damaged = true;
		store_log(st, LOG_ERR,
		          "the quota file (inode %llu) is damaged: no limits are in force",
		          ULL(qs->ino));
		return 0;
	}
	if (in->size > in->blocks * PM_BLOCK) { /* it has no holes */
		qs->damaged = true;
		store_log(st, LOG_ERR, "the quota file says that it has %llu bytes: no limits are in force", ULL(in->size));
		return 0;
	}
	for (uint64_t lblk = 0; !err && lblk < in->size / PM_BLOCK; lblk++) {
		uint64_t blk = 0;
		const struct pm_quota_block *b = block_at(st, lblk, &blk);

		if (b) {
			err = read_block(st, b);
			continue;
		}
		qs->damaged = true;
		store_log(st, LOG_ERR,
		          "block %llu of the quota file is damaged: its limits are not in force",
		          ULL(lblk));
	}
	return err;
}

static uint64_t free_slot(const struct pm_quotas *qs)
{
	const uint8_t *p = qs->nslots ? memchr(qs->slot_used, 0, qs->nslots) : NULL;

	return p ? (uint64_t)(p - qs->slot_used) : qs->nslots;
}

/* The inode of the quota file, made if there is none. */
static int file_edit(struct pm_tx *tx, const struct pm_inode **in)
{
	struct pm_store *st = tx_store(tx);
	struct pm_inode *sh;
	int err;

	if (st->quotas->ino) {
		*in = ino_at(st, st->quotas->ino);
		return 0;
	}
	err = ino_new(tx, PM_REG, &sh);
	if (err)
		return err;
	sh->nlink = 1;
	sh->mode = 0600;
	st->quotas->ino = sh->ino; /* taken back if this fails */
	ino_edit(tx, ino_at(st, 0))->parent = sh->ino;
	*in = ino_at(st, sh->ino);
	return 0;
}

static int block_edit(struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk,
                      struct pm_quota_block **out)
{
	struct pm_store *st = tx_store(tx);
	struct blk_run run;
	struct ext e;
	int err;

	if (lblk < ino_look(tx, in)->size / PM_BLOCK) {
		err = ext_find(st, tx, in, lblk, &e);
		if (!err)
			*out = tx_edit(tx, blk_ptr(st, e.pblk + (lblk - e.lblk)), PM_BLOCK,
			               TX_NODE);
		return err == -ENOENT ? -EIO : err;
	}
	err = tx_take(tx, 0, 1, BLK_META, &run);
	if (err)
		return err;
	*out = tx_new_block(tx, run.start, TX_NODE);
	(*out)->magic = PM_QUOTA_MAGIC;
	(*out)->lblk = lblk;
	e = (struct ext){ .lblk = lblk, .pblk = run.start, .len = 1 };
	err = ext_put(st, tx, in, &e);
	if (!err)
		ino_edit(tx, in)->size = (lblk + 1) * PM_BLOCK;
	return err;
}

static int write_limit(struct pm_store *st, struct quota *q, const struct pm_quota *want,
                       pm_lsn *lsn)
{
	struct pm_quotas *qs = st->quotas;
	bool none = !want->max_blocks && !want->max_inodes;
	uint64_t slot = q->slot ? q->slot - 1 : free_slot(qs), had = qs->ino;
	struct pm_quota_block *b = NULL;
	const struct pm_inode *in;
	struct pm_tx *tx;
	int err = slots_for(qs, (slot / PER_BLOCK + 1) * PER_BLOCK);

	*lsn = 0;
	if (err || (none && !q->slot))
		return err;
	tx = tx_begin(st);
	err = file_edit(tx, &in);
	if (!err)
		err = block_edit(tx, in, slot / PER_BLOCK, &b);
	if (!err) {
		b->rec[slot % PER_BLOCK] = (struct pm_quota_rec){ .kind = none ? 0 : q->kind,
			                                          .id = none ? 0 : q->id,
			                                          .max_blocks = want->max_blocks,
			                                          .max_inodes = want->max_inodes };
		err = tx_commit(tx, lsn);
	} else {
		tx_abort(tx);
	}
	if (err) {
		qs->ino = had;
		return err;
	}
	qs->slot_used[slot] = !none;
	q->slot = none ? 0 : slot + 1;
	return 0;
}

static void show(const struct quota *q, struct pm_quota *out)
{
	*out = (struct pm_quota){ .kind = q->kind,
		                  .id = q->id,
		                  .blocks = q->blocks,
		                  .pending = q->pending,
		                  .inodes = q->inodes,
		                  .max_blocks = q->max_blocks,
		                  .max_inodes = q->max_inodes };
}

int pm_quota_set(struct pm_store *st, const struct pm_quota *want, pm_lsn *lsn)
{
	struct quota *q;
	int err;

	if (want->kind != PM_QUOTA_UID && want->kind != PM_QUOTA_GID)
		return -EINVAL;
	if (st->read_only)
		return -EROFS;
	/* an older program would let anybody pass the limits: it must not write to this pool */
	err = super_note_feature(st, PM_ROCOMPAT_QUOTA);
	if (err)
		return err;
	store_lock(st);
	q = quota_of(st, want->kind, want->id);
	err = st->quotas->damaged ? -EIO : q ? write_limit(st, q, want, lsn) : -ENOMEM;
	if (!err) {
		q->max_blocks = want->max_blocks;
		q->max_inodes = want->max_inodes;
		count_pending(st);
	}
	store_unlock(st);
	return err;
}

void pm_quota_get(struct pm_store *st, enum pm_quota_kind kind, uint32_t id, struct pm_quota *out)
{
	const struct quota *q;

	*out = (struct pm_quota){ .kind = kind, .id = id };
	store_lock(st);
	count_pending(st);
	q = find(st->quotas, kind, id);
	if (q)
		show(q, out);
	store_unlock(st);
}

static int by_id(const void *a, const void *b)
{
	const struct pm_quota *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static bool idle(const struct quota *q)
{
	return !q->blocks && !q->inodes && !q->pending && !q->max_blocks && !q->max_inodes;
}

int pm_quota_list(struct pm_store *st, struct pm_quota **out, size_t *n)
{
	struct pm_quotas *qs = st->quotas;
	struct pm_quota *list;
	size_t k = 0;

	store_lock(st);
	count_pending(st);
	list = malloc((qs->n + 1) * sizeof(*list));
	for (size_t i = 0; list && i < qs->nbuckets; i++)
		for (const struct quota *q = qs->bucket[i]; q; q = q->next)
			if (!idle(q))
				show(q, &list[k++]);
	store_unlock(st);
	if (!list)
		return -ENOMEM;
	qsort(list, k, sizeof(*list), by_id);
	*out = list;
	*n = k;
	return 0;
}

/* --- opening, closing ------------------------------------------------------------------------ */

static void forget(struct pm_quotas *qs)
{
	for (size_t i = 0; i < qs->nbuckets; i++) {
		for (struct quota *q = qs->bucket[i], *next; q; q = next) {
			next = q->next;
			free(q);
		}
	}
	free(qs->bucket);
	free(qs->slot_used);
	free(qs);
}

int quota_open(struct pm_store *st)
{
	st->quotas = calloc(1, sizeof(*st->quotas));
	return st->quotas ? read_limits(st) : -ENOMEM;
}

void quota_close(struct pm_store *st)
{
	if (st->quotas)
		forget(st->quotas);
	st->quotas = NULL;
}

/* --- stored usage: 8 bytes how many, then 24 bytes each -------------------------------------- */

struct saved {
	uint32_t kind, id;
	uint64_t blocks, inodes;
};

size_t quota_save_size(struct pm_store *st)
{
	return 8 + st->quotas->n * sizeof(struct saved);
}

size_t quota_save(struct pm_store *st, uint8_t *buf)
{
	const struct pm_quotas *qs = st->quotas;
	uint64_t n = 0;

	for (size_t i = 0; i < qs->nbuckets; i++) {
		for (const struct quota *q = qs->bucket[i]; q; q = q->next) {
			struct saved s = { q->kind, q->id, q->blocks, q->inodes };

			if (q->blocks || q->inodes)
				memcpy(buf + 8 + n++ * sizeof(s), &s, sizeof(s));
		}
	}
	memcpy(buf, &n, 8);
	return 8 + n * sizeof(struct saved);
}

int quota_load(struct pm_store *st, const uint8_t *buf, size_t len)
{
	uint64_t n;

	if (len < 8)
		return -EUCLEAN;
	memcpy(&n, buf, 8);
	if (n != (len - 8) / sizeof(struct saved) || (len - 8) % sizeof(struct saved))
		return -EUCLEAN;
	for (uint64_t i = 0; i < n; i++) {
		struct saved s;
		struct quota *q;

		memcpy(&s, buf + 8 + i * sizeof(s), sizeof(s));
		q = quota_of(st, s.kind, s.id);
		if (!q)
			return -ENOMEM;
		q->blocks = s.blocks;
		q->inodes = s.inodes;
	}
	return 0;
}

/* --- for repair.c ---------------------------------------------------------------------------- */

bool quota_is_file(struct pm_store *st, const struct pm_inode *in)
{
	struct ext e;

	return in->type == PM_REG && !ext_find(st, NULL, in, 0, &e) &&
	       block_ok(blk_ptr(st, e.pblk), 0);
}

/* One bit of the block is wrong, and it may be in any of them: whoever set the limits has to say. */
static void name_lost(const struct pm_quota_block *b, void (*say)(void *arg, const char *what),
                      void *arg)
{
	char what[200];

	for (unsigned i = 0; i < PER_BLOCK; i++) {
		const struct pm_quota_rec *r = &b->rec[i];

		if (r->kind != PM_QUOTA_UID && r->kind != PM_QUOTA_GID)
			continue;
		snprintf(what, sizeof(what),
		         "limits of %s %u dropped (%llu blocks, %llu inodes, not certain): set "
		         "them again",
		         r->kind == PM_QUOTA_UID ? "uid" : "gid", r->id, ULL(r->max_blocks),
		         ULL(r->max_inodes));
		say(arg, what);
	}
}

static int mend_block(struct pm_store *st, const struct pm_inode *in, uint64_t lblk,
                      void (*say)(void *arg, const char *what), void *arg)
{
	const struct pm_quota_block *old;
	struct pm_quota_block *b;
	struct pm_tx *tx;
	struct ext e;
	int err = ext_find(st, NULL, in, lblk, &e);

	if (err)
		return err;
	old = blk_ptr(st, e.pblk + (lblk - e.lblk));
	if (block_ok(old, lblk))
		return 0;
	say(arg, "a block of it is damaged: made anew, empty");
	name_lost(old, say, arg);
	tx = tx_begin(st);
	b = tx_edit(tx, old, PM_BLOCK, TX_NODE);
	memset(b, 0, PM_BLOCK);
	b->magic = PM_QUOTA_MAGIC;
	b->lblk = lblk;
	return tx_commit(tx, NULL);
}

struct places { /* pool blocks of the file, in the order of its extents */
	uint64_t *blk;
	size_t n, cap;
	bool dense; /* they are file blocks 0, 1, ... */
};

static int add_places(void *arg, const struct ext *e)
{
	struct places *p = arg;
	uint64_t *more;

	p->dense &= e->lblk == p->n && !e->unwritten;
	if (p->n + e->len > p->cap) {
		p->cap = 2 * (p->n + e->len);
		more = realloc(p->blk, p->cap * sizeof(*more));
		if (!more)
			return -ENOMEM;
		p->blk = more;
	}
	for (uint64_t i = 0; i < e->len; i++)
		p->blk[p->n++] = e->pblk + i;
	return 0;
}

/* Each good block says where it belongs; the others take what places are left. */
static void put_in_order(struct pm_store *st, struct places *p, uint64_t *blk)
{
	size_t hole = 0;

	for (size_t i = 0; i < p->n; i++) {
		const struct pm_quota_block *b = blk_ptr(st, p->blk[i]);

		if (b->lblk >= p->n || blk[b->lblk] || !block_ok(b, b->lblk))
			continue;
		blk[b->lblk] = p->blk[i];
		p->blk[i] = 0;
	}
	for (size_t i = 0; i < p->n; i++) {
		while (hole < p->n && blk[hole])
			hole++;
		if (p->blk[i])
			blk[hole] = p->blk[i];
	}
}

/* Extents with gaps, which this file never had. */
static int close_gaps(struct pm_store *st, const struct pm_inode *in, struct places *p)
{
	uint64_t *blk = calloc(p->n + 1, sizeof(*blk));
	struct pm_tx *tx;
	int err;

	if (!blk)
		return -ENOMEM;
	put_in_order(st, p, blk);
	tx = tx_begin(st);
	err = ext_cut(st, tx, in, 0, UINT64_MAX, NULL, NULL);
	for (size_t i = 0; i < p->n && !err; i++)
		err = ext_put(st, tx, in, &(struct ext){ .lblk = i, .pblk = blk[i], .len = 1 });
	free(blk);
	if (err) {
		tx_abort(tx);
		return err;
	}
	return tx_commit(tx, NULL);
}

int quota_mend(struct pm_store *st, uint64_t ino, void (*say)(void *arg, const char *what), void *arg)
{
	const struct pm_inode *in = ino_at(st, ino);
	struct places p = { .dense = true };
	struct pm_inode *sh;
	struct pm_tx *tx;
	uint64_t n;
	int err = ext_each(st, NULL, in, add_places, &p);

	if (!err && !p.dense) {
		say(arg, "its blocks put in order");
		err = close_gaps(st, in, &p);
	}
	n = p.n;
	free(p.blk);
	if (!err && (in->size != n * PM_BLOCK || in->nlink != 1)) {
		say(arg, "its size and link count set as its blocks have it");
		tx = tx_begin(st);
		sh = ino_edit(tx, in);
		sh->size = n * PM_BLOCK;
		sh->nlink = 1;
		err = tx_commit(tx, NULL);
	}
	for (uint64_t lblk = 0; lblk < n && !err; lblk++)
		err = mend_block(st, in, lblk, say, arg);
	return err;
}

/* --- for check.c ----------------------------------------------------------------------------- */

/* @a is right; what does @b say? */
static void compare(const struct pm_quotas *a, const struct pm_quotas *b,
                    void (*bad)(void *arg, const char *what), void *arg)
{
	for (size_t i = 0; i < a->nbuckets; i++) {
		for (const struct quota *q = a->bucket[i]; q; q = q->next) {
			const struct quota *o = find(b, q->kind, q->id);
			uint64_t blocks = o ? o->blocks : 0, inodes = o ? o->inodes : 0;
			char what[160];

			if (q->blocks == blocks && q->inodes == inodes)
				continue;
			snprintf(what, sizeof(what),
			         "%s %u has %llu blocks and %llu inodes, but %llu and %llu are "
			         "counted",
			         q->kind == PM_QUOTA_UID ? "uid" : "gid", q->id, ULL(q->blocks),
			         ULL(q->inodes), ULL(blocks), ULL(inodes));
			bad(arg, what);
		}
	}
}

int quota_audit(struct pm_store *st, void (*bad)(void *arg, const char *what), void *arg)
{
	struct pm_quotas *kept = st->quotas, *now = calloc(1, sizeof(*now));
	uint64_t n = ino_count(st);
	int err = 0;

	if (!now)
		return -ENOMEM;
	if (kept->damaged)
		bad(arg, "the quota file is damaged: set the limits again after a repair");
	now->ino = kept->ino;
	st->quotas = now;
	for (uint64_t ino = 0; ino < n && !err; ino++) {
		const struct pm_inode *in = ino_at(st, ino);

		if (!ino_verify(in, ino))
			err = quota_count(st, in);
	}
	st->quotas = kept;
	if (!err) {
		compare(now, kept, bad, arg);
		for (size_t i = 0; i < kept->nbuckets; i++) /* what nobody has */
			for (const struct quota *q = kept->bucket[i]; q; q = q->next)
				if (!find(now, q->kind, q->id) && (q->blocks || q->inodes))
					bad(arg, "usage of an owner that owns nothing");
	}
	forget(now);
	return err;
}
