/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * truncate.c - attributes, size, reserved space; and how a file's blocks go
 *
 * Cutting and removing never wait for pins: what a pin covers goes into limbo (active.c) and is
 * freed with the pin. A cut of very many extents takes several transactions, all under one hold of
 * the lock; the first moves the size. If the power goes in between, extents stay behind the end of
 * file: nobody can read them, and file_trim() takes them away before the end of file moves up
 * again.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

/* --- attributes --- */

static struct timespec to_timespec(struct pm_time t)
{
	return (struct timespec){ .tv_sec = t.sec, .tv_nsec = t.nsec };
}

static bool later(struct pm_time t, struct timespec than)
{
	return t.sec != than.tv_sec ? t.sec > than.tv_sec : t.nsec > than.tv_nsec;
}

void file_attr(struct pm_store *st, const struct pm_inode *in, struct pm_attr *out)
{
	struct file *f;

	ino_attr(in, out);
	if (in->type != PM_REG)
		return;
	f = file_find(st, out->id);
	if (!f || !f->over)
		return;
	out->size = file_size(f, in);
	out->mtime = to_timespec(f->mtime);
	if (later(f->ctime, out->ctime))
		out->ctime = to_timespec(f->ctime);
	for (unsigned i = 0; i < f->nfresh; i++) {
		if (f->fresh[i].state == DIRTY && !f->fresh[i].owned)
			out->used += f->fresh[i].len * PM_BLOCK;
	}
}

int pm_getattr(struct pm_store *st, struct pm_id id, struct pm_attr *out)
{
	struct pm_worker *w = inode_lock(st, id.ino);
	const struct pm_inode *in;
	int err;

	in = file_inode(st, id, &err);
	if (in) {
		file_attr(st, in, out);
		err = 0;
	}
	inode_unlock(st, w, id.ino);
	return err;
}

/* --- cutting --- */

struct cutter {
	struct pm_store *st;
	struct file *f; /* may be NULL */
	struct pm_tx *tx;
	bool meta;
	struct ext *held; /* pieces that pins cover */
	unsigned nheld, cap;
	int err;
};

static void cut_piece(void *arg, const struct ext *e)
{
	struct cutter *c = arg;

	if (!c->f || !file_pinned(c->f, e->lblk, e->len)) {
		tx_give(c->tx, e->pblk, e->len, c->meta);
		return;
	}
	if (c->nheld == c->cap) {
		unsigned cap = c->cap ? 2 * c->cap : 16;
		struct ext *held = realloc(c->held, cap * sizeof(*held));

		if (!held) {
			c->err = -ENOMEM;
			return;
		}
		c->held = held;
		c->cap = cap;
	}
	c->held[c->nheld++] = *e;
}

/* Cut at most TX_CUTS extents from @lblk on. *more: something is left. */
static int cut_some(struct cutter *c, const struct pm_inode *in, uint64_t lblk, bool *more)
{
	uint64_t end = lblk;
	unsigned n = 0;
	struct ext e;
	int err = 0;

	while (n < TX_CUTS && end < UINT64_MAX) {
		err = ext_find(c->st, c->tx, in, end, &e);
		if (err && err != -ENOENT)
			return err;
		n += !err;
		end = e.len > UINT64_MAX - e.lblk ? UINT64_MAX : e.lblk + e.len;
	}
	*more = end != UINT64_MAX;
	if (!n)
		return 0;
	err = ext_cut(c->st, c->tx, in, lblk, end - lblk, cut_piece, c);
	return err ? err : c->err;
}

static int cut_commit(struct cutter *c, int err, pm_lsn *lsn)
{
	if (err)
		tx_abort(c->tx);
	else
		err = tx_commit(c->tx, lsn);
	for (unsigned i = 0; !err && i < c->nheld; i++)
		file_release(c->st, c->f, c->held[i].lblk, c->held[i].pblk, c->held[i].len, *lsn);
	free(c->held);
	c->held = NULL;
	c->nheld = c->cap = 0;
	return err;
}

/* Cut the rest in transactions of their own. */
static int cut_rest(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t lblk,
                    pm_lsn *lsn)
{
	bool more = true;
	int err = 0;

	while (!err && more) {
		struct cutter c = { .st = st, .f = f, .tx = tx_begin(st) };

		err = cut_commit(&c, cut_some(&c, in, lblk, &more), lsn);
	}
	return err;
}

int file_trim(struct pm_store *st, struct file *f, const struct pm_inode *in)
{
	uint64_t lblk = blk_up(file_size(f, in)), at = lblk;
	struct ext e;
	pm_lsn lsn;
	int err;

	if (ino_trimmed(st, in->ino))
		return 0;
	do {
		err = ext_find(st, NULL, in, at, &e);
		if (err && err != -ENOENT)
			return err;
		if (!err && !e.unwritten) {
			if (worker_here(st))
				return NEEDS_ALL;
			err = cut_rest(st, f, in, lblk, &lsn);
			if (err)
				return err;
			break;
		}
		at = e.lblk + e.len;
	} while (at != UINT64_MAX); /* behind the last extent */
	ino_set_trimmed(st, in->ino, true);
	return 0;
}

/* --- dropping --- */

static bool has_extents(const struct pm_inode *in)
{
	return in->type == PM_REG || (in->type == PM_LNK && in->size > PM_INLINE_LINK);
}

struct giver {
	struct pm_tx *tx;
	bool meta; /* a link target may be in a record */
};

static int give_one(void *arg, const struct ext *e)
{
	struct giver *g = arg;

	tx_give(g->tx, e->pblk, e->len, g->meta);
	return 0;
}

/* Give all blocks of an object that nobody pins; without editing a tree that goes as a whole. */
static int drop_all(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in)
{
	struct giver g = { .tx = tx, .meta = in->type == PM_LNK };
	struct pm_inode *sh;
	int err = has_extents(in) ? ext_each(st, tx, in, give_one, &g) : 0;

	if (!err && ino_look(tx, in)->flags & PM_IF_TREE)
		err = bt_drop(st, tx, in);
	if (err)
		return err;
	sh = ino_edit(tx, in);
	memset(&sh->u, 0, sizeof(sh->u));
	sh->flags &= (uint16_t)~PM_IF_TREE;
	sh->blocks = 0;
	return 0;
}

/* --- setattr --- */

static struct pm_time time_of(const struct timespec *ts, struct pm_time now)
{
	if (ts->tv_nsec == UTIME_NOW)
		return now;
	return (struct pm_time){ .sec = ts->tv_sec, .nsec = (uint32_t)ts->tv_nsec };
}

static int setattr_judge(const struct pm_inode *in, const struct pm_setattr *sa,
                         const struct pm_attr *old)
{
	const struct timespec *g = sa->ctime_guard;

	if (g && (g->tv_sec != old->ctime.tv_sec || g->tv_nsec != old->ctime.tv_nsec))
		return -EKEYEXPIRED;
	if (!(sa->set & PM_SET_SIZE))
		return 0;
	if (in->type != PM_REG)
		return in->type == PM_DIR ? -EISDIR : -EINVAL;
	return sa->size > PM_FILE_MAX ? -EFBIG : 0;
}

/* The end of file moves up: what lies behind it in its block must be zero, and durably so on the
 * media. */
static int extend(struct pm_store *st, struct pm_tx *tx, struct file *f, const struct pm_inode *in,
                  uint64_t size)
{
	uint64_t old = file_size(f, in), blk;
	uint8_t *at = NULL;
	int err = size > old ? file_tail(st, f, in, &at) : 0;

	if (!err && at)
		file_zero(st, f, NULL, old, blk_up(old) * PM_BLOCK, at);
	if (!err)
		err = file_tail_block(st, in, &blk);
	if (!err && blk && sum_on(st))
		err = sum_end(tx, f, in, false, size);
	if (err || !blk)
		return err;
	if (media_slow(st))
		return journal_sync_first(st, blk * PM_BLOCK, PM_BLOCK);
	med_flush(st, blk * PM_BLOCK, PM_BLOCK);
	tx_after_data(tx);
	return 0;
}

/* A copy of the last block must not bring back what was cut off. */
static void zero_copy(struct pm_store *st, struct file *f, uint64_t size)
{
	unsigned i = fresh_at(f, size / PM_BLOCK);
	const struct fresh *x = &f->fresh[i];

	if (i < f->nfresh && x->lblk == size / PM_BLOCK && x->state == ZEROED && x->cow &&
	    size % PM_BLOCK)
		st->media.ops->zero(&st->media,
		                    (uint8_t *)data_ptr(st, x->pblk) + size % PM_BLOCK,
		                    PM_BLOCK - size % PM_BLOCK);
}

/* The size is @size now: what pins and fresh blocks have behind it is out of the file. */
static void adopt_cut(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t size)
{
	uint64_t lblk = blk_up(size);
	struct pm_pin *p;

	f->size = size;
	f->cuts++;
	lease_recall(st, f, size / PM_BLOCK, UINT64_MAX);
	LIST_FOREACH (p, &f->pins, link) {
		if (!p->write || p->committed)
			continue;
		p->cut = min64(p->cut, size);
		promise_loosen(p, in);
	}
	zero_copy(st, f, size);
	while (f->nfresh) {
		struct fresh *last = &f->fresh[f->nfresh - 1], x = *last;

		if (x.lblk + x.len <= lblk)
			break;
		if (x.lblk < lblk) {
			last->len = lblk - x.lblk;
			fresh_count(st, f, x.owned || x.cow, last->len - x.len);
			x.pblk += last->len;
			x.len -= last->len;
			x.lblk = lblk;
		} else {
			fresh_remove(st, f, f->nfresh - 1);
		}
		if (!x.owned)
			file_release(st, f, x.lblk, x.pblk, x.len, 0);
	}
}

static void set_fields(struct pm_inode *sh, struct file *f, const struct pm_setattr *sa,
                       struct pm_time now)
{
	if (f && f->over) /* the times of unstable writes come true; what is set now goes on top */
		sh->mtime = f->mtime;
	if (sa->set & PM_SET_MODE)
		sh->mode = sa->mode & 07777;
	if (sa->set & PM_SET_UID)
		sh->uid = sa->uid;
	if (sa->set & PM_SET_GID)
		sh->gid = sa->gid;
	if (sa->set & PM_SET_SIZE) {
		sh->size = sa->size;
		sh->mtime = now;
	}
	if (sa->set & PM_SET_ATIME)
		sh->atime = time_of(&sa->atime, now);
	if (sa->set & PM_SET_MTIME)
		sh->mtime = time_of(&sa->mtime, now);
	sh->ctime = now;
}

/* Who is charged for the fresh blocks of the file from now on, and may he have them? */
static int new_owner(struct pm_store *st, const struct file *f, const struct pm_inode *in,
                     const struct pm_setattr *sa, struct quota *to[2])
{
	to[0] = sa->set & PM_SET_UID ? quota_of(st, PM_QUOTA_UID, sa->uid) : f->quota[0];
	to[1] = sa->set & PM_SET_GID ? quota_of(st, PM_QUOTA_GID, sa->gid) : f->quota[1];
	for (unsigned k = 0; k < 2; k++) {
		if (!to[k])
			return worker_here(st) ? NEEDS_ALL : -ENOMEM;
		if (to[k] != f->quota[k] && f->pending + f->owed + f->promised &&
		    !quota_allows(to[k], in->blocks + f->pending + f->owed + f->promised))
			return -EDQUOT;
	}
	return 0;
}

static int setattr_locked(struct pm_store *st, const struct pm_inode *in, struct file *f,
                          const struct pm_setattr *sa, const struct pm_once *once,
                          struct pm_change *ch)
{
	struct cutter c = { .st = st, .f = f };
	uint64_t old = file_size(f, in), size = sa->set & PM_SET_SIZE ? sa->size : old;
	struct quota *to[2];
	pm_lsn lsn = 0;
	bool more = false;
	int err = size > old ? file_trim(st, f, in) : 0;

	if (!err && f)
		err = new_owner(st, f, in, sa, to);
	if (err)
		return err;
	c.tx = tx_begin(st);
	if (sa->set & PM_SET_SIZE && size > in->size)
		err = extend(st, c.tx, f, in, size);
	if (!err && size < old && !size && LIST_EMPTY(&f->pins))
		err = drop_all(st, c.tx, in);
	else if (!err && size < old)
		err = cut_some(&c, in, blk_up(size), &more);
	if (!err && more && worker_here(st)) /* the rest takes further transactions */
		err = NEEDS_ALL;
	if (!err && sum_on(st) && size < old)
		err = sum_cut(st, c.tx, in, size);
	set_fields(ino_edit(c.tx, in), f, sa, store_now());
	reply_note(c.tx, once, (struct pm_id){ in->ino, in->gen });
	err = cut_commit(&c, err, &lsn);
	if (err)
		return err;
	if (f)
		file_charge(f, to[0], to[1]);
	if (f && f->over) {
		f->mtime = in->mtime;
		f->ctime = in->ctime;
	}
	if (size < old) {
		ino_set_trimmed(st, in->ino, false);
		adopt_cut(st, f, in, size);
	}
	if (more && cut_rest(st, f, in, blk_up(size), &lsn))
		store_log(st, LOG_WARNING,
		          "inode %llu: blocks behind its end could not be freed yet",
		          (unsigned long long)in->ino);
	if (f)
		dirty_check(st, f, in);
	ch->lsn = lsn;
	return 0;
}

/* What is under way in the file takes part, and others with it. */
static bool involved(const struct file *f, const struct pm_setattr *sa)
{
	if (!f)
		return false;
	return f->over || ((sa->set & (PM_SET_SIZE | PM_SET_UID | PM_SET_GID)) &&
	                   (f->nfresh || !LIST_EMPTY(&f->pins) || !LIST_EMPTY(&f->limbo)));
}

static int setattr_at(struct pm_store *st, struct pm_worker *w, struct pm_id id, const struct pm_setattr *sa,
                      const struct pm_once *once, struct pm_change *ch)
{
	const struct pm_inode *in;
	struct pm_attr before;
	struct file *f = NULL;
	int err = reply_known(st, once);

	if (err)
		return err;
	files_sweep(st);
	in = file_inode(st, id, &err);
	if (!in)
		return err;
	file_attr(st, in, &before);
	err = setattr_judge(in, sa, &before);
	if (err)
		return err;
	if (in->type == PM_REG) {
		f = sa->set & PM_SET_SIZE ? file_get(st, id) : file_find(st, id);
		if (!f && (sa->set & PM_SET_SIZE))
			return w ? NEEDS_ALL : -ENOMEM;
	}
	if (w && involved(f, sa))
		err = NEEDS_ALL;
	if (!err)
		err = setattr_locked(st, in, f, sa, once, ch);
	if (!err) {
		ch->obj_before = before;
		file_attr(st, in, &ch->obj);
	}
	if (f)
		file_rest(st, f);
	return err;
}

int pm_setattr_once(struct pm_store *st, struct pm_id id, const struct pm_setattr *sa,
                    const struct pm_once *once, struct pm_change *ch)
{
	struct pm_worker *w;
	int err;

	if (st->read_only)
		return -EROFS;
	w = inode_lock_write(st, id.ino);
	err = setattr_at(st, w, id, sa, once, ch);
	if (w && err == NEEDS_ALL) {
		inode_alone(st, &w, id.ino);
		err = setattr_at(st, NULL, id, sa, once, ch);
	}
	inode_unlock(st, w, id.ino);
	return err;
}

int pm_setattr(struct pm_store *st, struct pm_id id, const struct pm_setattr *sa,
               struct pm_change *ch)
{
	return pm_setattr_once(st, id, sa, NULL, ch);
}

/* --- reserving --- */

struct reserving {
	struct pm_store *st;
	struct file *f;
	const struct pm_inode *in;
	struct ext *e; /* unwritten ones, on blocks taken for them */
	size_t n, cap;
	size_t put; /* so many are the file's */
};

static int reserve_piece(struct reserving *r, uint64_t lblk, uint64_t *goal, uint64_t *len)
{
	struct blk_run run;
	int err;

	if (r->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 16;
		struct ext *e = realloc(r->e, cap * sizeof(*e));

		if (!e)
			return -ENOMEM;
		r->e = e;
		r->cap = cap;
	}
	err = blk_take(r->st, *goal, *len, lblk % 512, *len >= 512 ? BLK_ALIGN_2M : 0, &run);
	if (err)
		return err;
	r->e[r->n++] = (struct ext){ .lblk = lblk, .pblk = run.start, .len = run.len, .unwritten = true };
	*goal = run.start + run.len;
	*len = run.len;
	return 0;
}

/* Take blocks for what is a hole in [b, end). */
static int reserve_all(struct reserving *r, uint64_t b, uint64_t end)
{
	uint64_t goal = 0, n;
	struct ext e;
	int err = 0;

	if (b && !ext_find(r->st, NULL, r->in, b - 1, &e))
		goal = e.pblk + (b - e.lblk);
	for (; !err && b < end; b += n) {
		unsigned i = fresh_at(r->f, b);
		const struct fresh *x = i < r->f->nfresh ? &r->f->fresh[i] : NULL;

		if (x && x->lblk <= b) { /* has blocks that are not on the media yet */
			n = min64(end, x->lblk + x->len) - b;
			continue;
		}
		err = ext_find(r->st, NULL, r->in, b, &e);
		n = min64(end - b, e.len - (b - e.lblk));
		if (x)
			n = min64(n, x->lblk - b);
		if (err == -ENOENT)
			err = reserve_piece(r, b, &goal, &n);
		else if (!err)
			goal = e.pblk + (b - e.lblk) + n;
	}
	return err;
}

/* Put as many as a transaction takes, or @all of them. */
static int reserve_put(struct reserving *r, struct pm_tx *tx, size_t *to, bool all)
{
	int err = 0;

	while (!err && *to < r->n && (all || (*to - r->put < TX_EXTENTS && !tx_large(tx)))) {
		err = ext_put(r->st, tx, r->in, &r->e[*to]);
		++*to;
	}
	if (!err)
		ino_edit(tx, r->in)->ctime = store_now();
	return err;
}

/* May the file have all of it? Nothing is changed. */
static int reserve_judge(struct reserving *r)
{
	struct pm_tx *tx = tx_begin(r->st);
	size_t to = 0;
	int err = reserve_put(r, tx, &to, true);

	if (!err)
		err = promise_judge(tx, r->f, r->in, (int64_t)(ino_look(tx, r->in)->blocks - r->in->blocks));
	tx_abort(tx);
	return err;
}

/* The first transaction does it all, or shows that several are needed; then they are judged first, as one. So is one that
 * a write under way depends on. */
static int reserve_commit(struct reserving *r, pm_lsn *lsn)
{
	bool judged = r->n && promise_exact(r->f);
	int err = judged ? reserve_judge(r) : 0;

	if (err)
		return err;
	do {
		struct pm_tx *tx = tx_begin(r->st);
		size_t to = r->put;

		if (judged)
			tx_admitted(tx);
		err = reserve_put(r, tx, &to, false);
		if (err || (to < r->n && !judged)) {
			tx_abort(tx);
			err = err ? err : reserve_judge(r);
			judged = true;
			continue;
		}
		err = tx_commit(tx, lsn);
		r->put = err ? r->put : to;
	} while (!err && r->put < r->n);
	return err;
}

static int reserve(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t b, uint64_t end,
                   pm_lsn *lsn)
{
	struct reserving r = { .st = st, .f = f, .in = in };
	int err = file_trim(st, f, in);

	if (!err)
		err = reserve_all(&r, b, end);
	if (!err)
		err = reserve_commit(&r, lsn);
	for (size_t i = r.put; i < r.n; i++)
		blk_give(st, r.e[i].pblk, r.e[i].len);
	free(r.e);
	return err;
}

int pm_allocate(struct pm_store *st, struct pm_id id, uint64_t off, uint64_t len,
                struct pm_change *ch)
{
	const struct pm_inode *in;
	struct pm_attr before;
	struct file *f;
	pm_lsn lsn = 0;
	int err;

	if (off > PM_FILE_MAX || len > PM_FILE_MAX - off)
		return -EFBIG;
	if (st->read_only)
		return -EROFS;
	store_lock(st);
	files_sweep(st);
	in = file_regular(st, id, &err);
	if (!in)
		goto out;
	file_attr(st, in, &before);
	f = file_get(st, id);
	err = f ? 0 : -ENOMEM;
	if (!err && len)
		err = reserve(st, f, in, off / PM_BLOCK, blk_up(off + len), &lsn);
	if (!err) {
		ch->lsn = lsn;
		ch->obj_before = before;
		file_attr(st, in, &ch->obj);
	}
	if (f)
		file_rest(st, f);
out:
	store_unlock(st);
	return err;
}

/* --- listing --- */

/* What is at block @b, as readers see it, and how far. */
static int extent_at(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t b,
                     struct pm_extent *out)
{
	unsigned i = f ? fresh_at(f, b) : 0;
	const struct fresh *x = f && i < f->nfresh ? &f->fresh[i] : NULL;
	uint64_t n, pblk = 0;
	struct ext e;
	int err;

	out->state = PM_EXT_HOLE;
	if (x && x->lblk <= b && x->cow)
		x = NULL;
	if (x && x->lblk <= b) {
		n = x->lblk + x->len - b;
		if (x->state == DIRTY || x->owned) {
			out->state = x->state == DIRTY ? PM_EXT_VALID : PM_EXT_UNWRITTEN;
			pblk = x->pblk + (b - x->lblk);
		}
	} else {
		err = ext_find(st, NULL, in, b, &e);
		if (err && err != -ENOENT)
			return err;
		n = e.len - (b - e.lblk);
		if (!err) {
			out->state = e.unwritten ? PM_EXT_UNWRITTEN : PM_EXT_VALID;
			pblk = e.pblk + (b - e.lblk);
		}
		if (x)
			n = min64(n, x->lblk - b);
	}
	out->off = b * PM_BLOCK;
	out->len = n > PM_FILE_MAX / PM_BLOCK ? UINT64_MAX : n * PM_BLOCK;
	out->at = pblk * PM_BLOCK;
	return 0;
}

static bool goes_on(const struct pm_extent *a, const struct pm_extent *b)
{
	return a->state == b->state && a->off + a->len == b->off &&
	       (a->state == PM_EXT_HOLE || a->at + a->len == b->at);
}

int pm_extents(struct pm_store *st, struct pm_id id, uint64_t off, struct pm_extent *ext,
               unsigned max, unsigned *n)
{
	const struct pm_inode *in;
	uint64_t b = off / PM_BLOCK, end;
	struct pm_extent x;
	struct file *f;
	unsigned k = 0;
	int err;

	store_lock(st);
	files_sweep(st);
	in = file_regular(st, id, &err);
	f = in ? file_find(st, id) : NULL;
	end = in ? blk_up(file_size(f, in)) : 0;
	for (err = in ? 0 : err; in;) {
		err = extent_at(st, f, in, b, &x);
		if (err)
			break;
		if (x.state == PM_EXT_HOLE && x.len == UINT64_MAX) { /* behind the last extent */
			if (b >= end)
				break;
			x.len = (end - b) * PM_BLOCK;
		}
		if (k && goes_on(&ext[k - 1], &x))
			ext[k - 1].len += x.len;
		else if (k < max)
			ext[k++] = x;
		else
			break;
		b += x.len / PM_BLOCK;
	}
	if (!err)
		*n = k;
	store_unlock(st);
	return err;
}

/* --- removing --- */

int file_unlinked(struct pm_tx *tx, const struct pm_inode *in)
{
	struct pm_store *st = tx_store(tx);
	struct file *f = file_find(st, (struct pm_id){ in->ino, in->gen });
	int err;

	if (f && worker_here(st))
		return NEEDS_ALL;
	if (f && !LIST_EMPTY(&f->pins)) {
		lease_recall(st, f, 0, UINT64_MAX);
		return 0;
	}
	err = drop_all(st, tx, in);
	if (err)
		return err;
	ino_free(tx, ino_edit(tx, in));
	if (f) /* what is unstable goes once the transaction has committed */
		st->files->doubt = true;
	return 0;
}

static int reap(struct pm_store *st, uint64_t ino)
{
	const struct pm_inode *in = ino_at(st, ino);
	struct pm_tx *tx;
	pm_lsn lsn;
	int err;

	if (!in || !in->type || in->nlink)
		return -ESTALE;
	tx = tx_begin(st);
	err = drop_all(st, tx, in);
	if (err) {
		tx_abort(tx);
		return err;
	}
	ino_free(tx, ino_edit(tx, in));
	return tx_commit(tx, &lsn);
}

int file_reap(struct pm_store *st, uint64_t ino)
{
	return reap(st, ino);
}

void file_orphan(struct pm_store *st, struct pm_id id)
{
	int err = reap(st, id.ino);

	if (err)
		store_log(st, LOG_WARNING,
		          "inode %llu: removed, but its blocks come free only at the next open: %s",
		          (unsigned long long)id.ino, strerror(-err));
}

/* --- symbolic link targets --- */

int file_link_put(struct pm_tx *tx, const struct pm_inode *in, const char *target, size_t len)
{
	struct pm_store *st = tx_store(tx);
	struct ext e = { .len = 1 };
	struct blk_run run;
	char *shadow;
	int err;

	if (len > PM_LINK_PATH)
		return -ENAMETOOLONG;
	err = tx_take(tx, 0, 1, 0, &run);
	if (err)
		return err;
	shadow = tx_new_block(tx, run.start, TX_RAW);
	if (shadow)
		memcpy(shadow, target, len);
	sum_put_link(tx, run.start, target, len);
	e.pblk = run.start;
	return ext_put(st, tx, in, &e);
}

int file_link_get(struct pm_store *st, const struct pm_inode *in, char *buf, size_t size,
                  size_t *len)
{
	struct ext e;
	int err = in->size <= PM_LINK_PATH ? ext_find(st, NULL, in, 0, &e) : -EIO;

	if (err)
		return err == -ENOENT ? -EIO : err;
	if (st->opts.verify_reads && sum_on(st)) {
		err = sum_verify(st, in, 0, e.pblk, 1);
		if (err)
			return err;
	}
	memcpy(buf, blk_ptr(st, e.pblk), min64(size, in->size));
	*len = in->size;
	return 0;
}
