/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lease.c - pins that last: somebody else's RMA goes to the blocks under them
 *
 * A lease for writing is a write pin whose new blocks are ZEROED from the start, and so shared with any other
 * writer, and which commits again and again. So what file.h says of pins holds for leases:
 *
 *   another write to its blocks    goes to the same places; nothing is zeroed a second time
 *   its end                        pin_undo: blocks that nobody committed are free again, what lies behind
 *                                  the end of file is zeroed
 *   truncate, remove               limbo, until the pin is gone; the holder is asked to go
 *
 * L1  Nobody gets the place of a new block before zeros are durable in it: FILLING until then, ZEROED and settled
 *     behind.
 * L2  A commit publishes whole blocks: what it does not flush are zeros of L1, or bytes of writers that have
 *     not committed, torn or not.
 * L3  The pin goes only when the last commit is over.
 *
 * What is in motion in a lease belongs to its file: whoever has the inode (worker.h), or is alone, may change it.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

struct pm_lease {
	struct pm_store *st;
	struct pm_map map; /* its pin is the lease's */
	struct pm_lease_opts o;
	struct pm_extent *ext;
	unsigned next;
	uint64_t generation;
	unsigned commits; /* in progress */
	bool recalled, closing;
};

static uint64_t ino_of(const struct pm_lease *l)
{
	return l->map.pin->f->id.ino;
}

static struct pm_worker *lease_lock(const struct pm_lease *l)
{
	return inode_lock_write(l->st, ino_of(l));
}

/* --- telling the holder --- */

static bool touches(const struct pm_pin *p, uint64_t lblk, uint64_t end)
{
	return p->off / PM_BLOCK < end && blk_up(p->off + p->len) > lblk;
}

static void recall(struct pm_lease *l)
{
	if (l->recalled)
		return;
	l->recalled = true;
	STAT_ADD(l->st, recalls, 1);
	if (l->o.recall)
		l->o.recall(l->o.arg);
}

void lease_recall(struct pm_store *st, struct file *f, uint64_t lblk, uint64_t end)
{
	struct pm_pin *p;

	(void)st;
	LIST_FOREACH (p, &f->pins, link)
		if (p->lease && touches(p, lblk, end))
			recall(p->lease);
}

void lease_changed(struct file *f, const struct pm_pin *but, uint64_t lblk, uint64_t end)
{
	unsigned i = fresh_at(f, lblk);
	struct pm_pin *p;

	if (i == f->nfresh || f->fresh[i].lblk >= end)
		return; /* only data where there was data */
	LIST_FOREACH (p, &f->pins, link)
		if (p->lease && p != but && touches(p, lblk, end))
			p->lease->generation++;
}

/* --- open --- */

/* A lease of another owner that must go first. */
static struct pm_pin *rival(struct file *f, const struct pm_lease_opts *o, uint64_t lblk, uint64_t end)
{
	struct pm_pin *p, *found = NULL;

	LIST_FOREACH (p, &f->pins, link) {
		if (!p->lease || p->lease->o.owner == o->owner || !(o->write || p->write) ||
		    !touches(p, lblk, end))
			continue;
		recall(p->lease);
		found = p;
	}
	return found;
}

static int extent_at(struct pm_lease *l, const struct pm_inode *in, uint64_t b, uint64_t end, struct pm_extent *out)
{
	struct file *f = l->map.pin->f;
	unsigned i = fresh_at(f, b);
	const struct fresh *x = i < f->nfresh ? &f->fresh[i] : NULL;
	uint64_t n, pblk = 0;
	struct ext e;
	int err = 0;

	if (x && x->lblk <= b && x->cow)
		x = NULL;
	if (x && x->lblk <= b) {
		n = x->lblk + x->len - b;
		pblk = x->pblk + (b - x->lblk);
		out->state = x->state == DIRTY ? PM_EXT_VALID : PM_EXT_UNWRITTEN;
	} else {
		err = ext_find(l->st, NULL, in, b, &e);
		if (err && err != -ENOENT)
			return err;
		n = e.len - (b - e.lblk);
		if (x)
			n = min64(n, x->lblk - b);
		pblk = err ? 0 : e.pblk + (b - e.lblk);
		out->state = err ? PM_EXT_HOLE : e.unwritten ? PM_EXT_UNWRITTEN : PM_EXT_VALID;
	}
	n = min64(n, end - b);
	if (!l->o.write && out->state != PM_EXT_VALID)
		pblk = 0;
	out->off = b * PM_BLOCK;
	out->len = n * PM_BLOCK;
	out->at = pblk * PM_BLOCK;
	return 0;
}

static bool goes_on(const struct pm_extent *a, const struct pm_extent *b)
{
	return a->state == b->state && (a->at ? a->at + a->len == b->at : !b->at);
}

/* Pieces were counted when they were mapped: there is room for as many. */
static int list_extents(struct pm_lease *l, const struct pm_inode *in)
{
	uint64_t b = l->map.pin->off / PM_BLOCK, end = b + l->map.len / PM_BLOCK, size;
	struct pm_extent x;

	while (b < end) {
		int err = extent_at(l, in, b, end, &x);

		if (err)
			return err;
		if (l->next && goes_on(&l->ext[l->next - 1], &x))
			l->ext[l->next - 1].len += x.len;
		else if (l->next == l->o.max_extents)
			break; /* cow entries count as what they hide */
		else
			l->ext[l->next++] = x;
		b += x.len / PM_BLOCK;
	}
	size = file_size(l->map.pin->f, in);
	x = l->ext[l->next - 1];
	if (!l->o.write && x.off + x.len > size)
		l->ext[l->next - 1].len = size - x.off;
	return 0;
}

struct opening {
	uint64_t off, end, need; /* bytes, in whole blocks; need: the shortest */
};

static int open_locked(struct pm_lease *l, struct pm_worker *who, struct pm_id id, const struct opening *g,
                       struct pm_wait *w)
{
	struct lease_want lw = { .off = g->off, .write = l->o.write, .most = l->o.max_extents };
	struct pm_store *st = l->st;
	const struct pm_inode *in;
	struct pm_pin *busy;
	struct file *f;
	int err;

	files_sweep(st);
	in = file_regular(st, id, &err);
	if (!in)
		return err;
	f = file_get(st, id);
	if (!f)
		return who ? NEEDS_ALL : -ENOMEM;
	lw.end = l->o.write ? g->end : min64(g->end, blk_up(file_size(f, in)) * PM_BLOCK);
	err = lw.off >= lw.end ? -ENODATA : 0;
	busy = err ? NULL : rival(f, &l->o, lw.off / PM_BLOCK, lw.end / PM_BLOCK);
	if (busy)
		err = -EINPROGRESS;
	if (!err)
		err = map_lease(st, who, f, in, &lw, &l->map, &busy);
	if ((err == -ENOSPC || err == -EDQUOT) && g->need < lw.end) {
		lw.end = g->need;
		err = map_lease(st, who, f, in, &lw, &l->map, &busy);
	}
	if (err == -EINPROGRESS) {
		w->next = busy->waiters;
		busy->waiters = w;
	} else if (err == -ENOSPC && journal_want_space(st, w)) {
		err = -EINPROGRESS;
	} else if (!err) {
		l->map.pin->lease = l;
		err = list_extents(l, in);
	}
	if (err && !l->map.pin)
		file_rest(st, f);
	return err;
}

int pm_lease_open(struct pm_store *st, struct pm_id id, uint64_t off, uint64_t len, uint64_t min,
                  const struct pm_lease_opts *o, struct pm_lease **out, struct pm_wait *w)
{
	struct pm_worker *who;
	struct opening g;
	struct pm_lease *l;
	int err;

	if (!len || min > len)
		return -EINVAL;
	if (off > PM_FILE_MAX || len > PM_FILE_MAX - off)
		return -EFBIG;
	if (o->write && (st->read_only || sum_on(st)))
		return st->read_only ? -EROFS : -EOPNOTSUPP;
	g.off = off / PM_BLOCK * PM_BLOCK;
	g.end = blk_up(off + len) * PM_BLOCK;
	g.need = blk_up(off + (min ? min : 1)) * PM_BLOCK;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->st = st;
	l->o = *o;
	l->ext = calloc(o->max_extents, sizeof(*l->ext));
	err = l->ext ? 0 : -ENOMEM;
	if (!err) {
		who = inode_lock_write(st, id.ino);
		err = open_locked(l, who, id, &g, w);
		if (err == NEEDS_ALL) {
			inode_alone(st, &who, id.ino);
			err = open_locked(l, NULL, id, &g, w);
		}
		if (!err)
			STAT_ADD(st, leases, 1);
		inode_unlock(st, who, id.ino);
	}
	if (!err) {
		*out = l;
		return 0;
	}
	pm_unpin(&l->map); /* if it came so far */
	free(l->ext);
	free(l);
	return err;
}

/* --- zeroing --- */

/* The next new blocks of the lease, at most @blocks: a copy of their entry, cut to that. */
static bool next_new(const struct pm_lease *l, unsigned blocks, struct fresh *x)
{
	const struct file *f = l->map.pin->f;
	uint64_t b = l->map.pin->off / PM_BLOCK, end = b + l->map.len / PM_BLOCK;

	for (unsigned i = fresh_at(f, b); i < f->nfresh && f->fresh[i].lblk < end; i++) {
		if (f->fresh[i].state != FILLING || f->fresh[i].pin != l->map.pin)
			continue;
		*x = f->fresh[i];
		x->len = min64(x->len, blocks);
		return true;
	}
	return false;
}

/* They hold zeros now: ready to be shared. A truncate may have taken them meanwhile. */
static int settle(struct pm_lease *l, const struct fresh *x)
{
	struct file *f = l->map.pin->f;
	unsigned i;

	if (fresh_reserve(f, 1))
		return -ENOMEM;
	i = fresh_at(f, x->lblk);
	if (i == f->nfresh || f->fresh[i].lblk != x->lblk || f->fresh[i].pin != l->map.pin)
		return 0;
	fresh_split(f, x->lblk + x->len);
	f->fresh[i].state = ZEROED;
	f->fresh[i].pin = NULL;
	f->fresh[i].settled = l->st->media.method != PM_MSYNC;
	return 0;
}

int pm_lease_zero(struct pm_lease *l, unsigned blocks)
{
	struct pm_store *st = l->st;
	struct pm_worker *w = lease_lock(l);
	struct pm_wait *waiters = NULL;
	struct fresh x;
	bool more = next_new(l, blocks, &x);
	int err = 0;

	if (more) {
		inode_unlock(st, w, ino_of(l));
		st->media.ops->zero(&st->media, data_ptr(st, x.pblk), x.len * PM_BLOCK);
		if (!media_slow(st) && st->media.method != PM_VOLATILE) {
			med_flush(st, x.pblk * PM_BLOCK, x.len * PM_BLOCK);
			med_drain(st);
		}
		w = lease_lock(l);
		err = settle(l, &x);
		more = !err && next_new(l, 1, &x);
	}
	if (!more) {
		waiters = l->map.pin->waiters;
		l->map.pin->waiters = NULL;
	}
	inode_unlock(st, w, ino_of(l));
	wake_all(waiters);
	return err ? err : more ? -EAGAIN : 0;
}

/* --- looking --- */

const struct pm_extent *pm_lease_extents(const struct pm_lease *l, unsigned *n)
{
	*n = l->next;
	return l->ext;
}

void pm_lease_attr(const struct pm_lease *l, struct pm_attr *out)
{
	*out = l->map.attr;
}

uint64_t pm_lease_generation(struct pm_lease *l)
{
	struct pm_worker *w = inode_lock(l->st, ino_of(l));
	uint64_t g = l->generation;

	inode_unlock(l->st, w, ino_of(l));
	return g;
}

bool pm_lease_recalled(struct pm_lease *l)
{
	struct pm_worker *w = inode_lock(l->st, ino_of(l));
	bool yes = l->recalled;

	inode_unlock(l->st, w, ino_of(l));
	return yes;
}

/* --- commit --- */

struct committing {
	struct pm_job job;
	struct pm_lease *l;
	struct blk_run span[PM_LEASE_RANGES];
	struct pm_range range[PM_LEASE_RANGES];
	unsigned n;
	bool durable, timed;
	uint64_t size;
	struct pm_time mtime;
	struct pm_committed *out;
	struct pm_wait *w;
	int res;
};

static int judge(struct committing *c, const struct pm_range *r, unsigned n)
{
	const struct pm_pin *p = c->l->map.pin;
	uint64_t end = p->off + p->len;

	if (!p->write || n > PM_LEASE_RANGES)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		if (!r[i].len || r[i].off < p->off || r[i].off >= end || r[i].len > end - r[i].off)
			return -EINVAL;
		c->range[i] = r[i];
		c->span[i].start = r[i].off / PM_BLOCK;
		c->span[i].len = blk_up(r[i].off + r[i].len) - c->span[i].start;
		c->size = max64(c->size, r[i].off + r[i].len);
	}
	c->n = n;
	return c->size > end ? -EINVAL : 0;
}

static bool cut_below(const struct committing *c)
{
	const struct pm_pin *p = c->l->map.pin;

	for (unsigned i = 0; i < c->n; i++)
		if (c->range[i].off + c->range[i].len > p->cut)
			return true;
	return c->size > p->cut;
}

/* Every range that must be durable first. */
static int each_range(struct committing *c, const struct pm_inode *in,
                      void (*fn)(void *arg, uint64_t at, uint8_t *place, uint64_t len), void *arg)
{
	struct pm_lease *l = c->l;
	struct file *f = l->map.pin->f;
	uint64_t tail = 0;
	int err = 0;

	for (unsigned k = 0; k < c->n; k++) {
		uint64_t b = c->span[k].start, end = b + c->span[k].len;

		if (!c->durable)
			each_place(l->map.pin, c->range[k].off, c->range[k].off + c->range[k].len, fn, arg);
		for (unsigned i = fresh_at(f, b); i < f->nfresh && f->fresh[i].lblk < end; i++) {
			const struct fresh *x = &f->fresh[i];
			uint64_t from = max64(x->lblk, b), to = min64(x->lblk + x->len, end);

			if (!x->settled && !x->cow)
				fn(arg, from * PM_BLOCK, data_ptr(l->st, x->pblk + (from - x->lblk)),
				   (to - from) * PM_BLOCK);
		}
	}
	if (c->size > in->size)
		err = file_tail_block(l->st, in, &tail);
	if (tail)
		fn(arg, in->size, data_ptr(l->st, tail), PM_BLOCK);
	return err;
}

struct flushing {
	struct pm_store *st;
	struct pm_stats *count;
};

static void flush_place(void *arg, uint64_t at, uint8_t *place, uint64_t len)
{
	const struct flushing *to = arg;

	(void)at;
	med_flush_as(to->st, to->count, (uint64_t)(place - to->st->media.base), len);
}

static void count_place(void *arg, uint64_t at, uint8_t *place, uint64_t len)
{
	(void)at;
	(void)place;
	(void)len;
	++*(unsigned *)arg;
}

static void job_place(void *arg, uint64_t at, uint8_t *place, uint64_t len)
{
	struct pm_job *job = arg;

	(void)at;
	job->data[job->ndata++] = (struct iovec){ place, len };
}

static int publish(struct committing *c, const struct pm_inode *in, pm_lsn *lsn)
{
	struct pm_store *st = c->l->st;
	struct file *f = c->l->map.pin->f;
	struct pub pub = {
		.lblk = UINT64_MAX, .span = c->span, .nspan = c->n, .size = c->size, .judged = true
	};
	int err = fresh_reserve(f, 2 * c->n + 2);

	if (err)
		return err;
	pub.ctime = store_now();
	pub.mtime = c->timed ? c->mtime : pub.ctime;
	for (unsigned i = 0; i < c->n; i++) {
		uint64_t end = c->span[i].start + c->span[i].len;

		fresh_split(f, c->span[i].start);
		fresh_split(f, end);
		lease_changed(f, c->l->map.pin, c->span[i].start, end);
		pub.lblk = min64(pub.lblk, c->span[i].start);
		pub.end = max64(pub.end, end);
	}
	if (!c->n)
		pub.lblk = pub.end = 0;
	file_attr(st, in, &c->out->before);
	err = file_publish(st, f, in, &pub, lsn);
	if (!err && f->over) {
		f->mtime = pub.mtime;
		f->ctime = pub.ctime;
		dirty_check(st, f, in);
	}
	return err;
}

static int finish(struct committing *c, pm_lsn *lsn)
{
	struct pm_lease *l = c->l;
	const struct pm_inode *in;
	int err;

	*lsn = 0;
	in = file_inode(l->st, l->map.pin->f->id, &err);
	if (!in)
		return err;
	err = cut_below(c) ? -ECANCELED : publish(c, in, lsn);
	if (err)
		return err;
	file_attr(l->st, in, &c->out->attr);
	c->out->stable = l->st->media.method == PM_VOLATILE ? PM_UNSTABLE : PM_FILE_SYNC;
	pm_write_verf(l->st, c->out->verf);
	return 0;
}

static void lease_free(struct pm_lease *l)
{
	STAT_ADD(l->st, leases, -1);
	pm_unpin(&l->map);
	free(l->ext);
	free(l);
}

/* A commit is over, or never began. */
static void commit_end(struct committing *c)
{
	struct pm_lease *l = c->l;
	struct pm_worker *w = lease_lock(l);
	bool last = !--l->commits && l->closing;

	inode_unlock(l->st, w, ino_of(l));
	if (last)
		lease_free(l);
	free(c->job.data);
	free(c);
}

static pm_lsn commit_run(struct pm_job *job, int data_err)
{
	struct committing *c = container_of(job, struct committing, job);
	pm_lsn lsn = 0;

	c->res = data_err;
	store_lock(c->l->st);
	if (!c->res)
		c->res = finish(c, &lsn);
	store_unlock(c->l->st);
	return lsn;
}

static void commit_done(struct pm_job *job, int err)
{
	struct committing *c = container_of(job, struct committing, job);
	struct pm_store *st = c->l->st;
	struct pm_wait *w = c->w;

	err = c->res ? c->res : err;
	commit_end(c);
	job_end(st);
	w->done(w, err);
}

static int commit_later(struct committing *c, const struct pm_inode *in)
{
	unsigned n = 0;
	int err = each_range(c, in, count_place, &n);

	if (err)
		return err;
	c->job.fn = commit_run;
	c->job.done = commit_done;
	c->job.data = malloc((n + 1) * sizeof(struct iovec));
	if (!c->job.data)
		return -ENOMEM;
	each_range(c, in, job_place, &c->job);
	c->l->st->files->jobs++;
	return -EINPROGRESS;
}

static int commit_locked(struct committing *c, struct pm_worker *who)
{
	struct pm_lease *l = c->l;
	struct pm_store *st = l->st;
	struct flushing to = { st, stats_of(st, who) };
	const struct pm_inode *in;
	pm_lsn lsn;
	int err;

	files_sweep(st);
	in = file_inode(st, l->map.pin->f->id, &err);
	if (!in)
		return err;
	if (cut_below(c))
		return -ECANCELED;
	err = faults_probe(st, l->map.seg, l->map.nseg, false);
	if (err)
		return err;
	if (media_slow(st))
		return commit_later(c, in);
	if (st->media.method != PM_VOLATILE)
		err = each_range(c, in, flush_place, &to);
	return err ? err : finish(c, &lsn);
}

int pm_lease_commit(struct pm_lease *l, const struct pm_range *r, unsigned n, bool durable, uint64_t size,
                    const struct timespec *mtime, struct pm_committed *out, struct pm_wait *w)
{
	struct committing *c = calloc(1, sizeof(*c));
	struct pm_worker *who;
	int err;

	if (!c)
		return -ENOMEM;
	c->l = l;
	c->size = size;
	c->durable = durable && !media_slow(l->st); /* the page cache is no persistence domain */
	c->out = out;
	c->w = w;
	if (mtime) {
		c->timed = true;
		c->mtime = (struct pm_time){ .sec = mtime->tv_sec, .nsec = (uint32_t)mtime->tv_nsec };
	}
	who = lease_lock(l);
	l->commits++;
	err = judge(c, r, n);
	if (!err)
		err = commit_locked(c, who);
	if (err == NEEDS_ALL) {
		inode_alone(l->st, &who, ino_of(l));
		err = commit_locked(c, NULL);
	}
	inode_unlock(l->st, who, ino_of(l));
	if (err == -EINPROGRESS)
		flusher_add(l->st, &c->job);
	else
		commit_end(c);
	return err;
}

/* --- the end --- */

void pm_lease_close(struct pm_lease *l)
{
	struct pm_worker *w = lease_lock(l);
	bool busy;

	l->closing = true;
	busy = l->commits;
	inode_unlock(l->st, w, ino_of(l));
	if (!busy)
		lease_free(l);
}
