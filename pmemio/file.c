/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.c - commit and unpin; map.c has the first phase
 *
 * A write is mapped under the lock, placed by the caller without it, and committed under it again.
 * What may happen in between, and who sees to it:
 *
 *   another write to the same new block
 *       waits if one of the two covers the whole block (map.c); if none does, they share it
 *   truncate
 *       lowers pin->cut: the commit publishes nothing behind it, and zeroes what was placed behind
 *       it in the block that stays
 *   remove
 *       the commit succeeds and publishes nothing; the last unpin frees all
 *   the caller gives up
 *       unpin takes the fresh blocks back, and zeroes what may have been placed behind the end
 *
 * With PM_MSYNC a stable commit has three parts: pin_prepare here, the data ranges synced by the
 * flusher, then pin_publish on its thread. Everywhere else they run one after the other without
 * letting go of the lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

/* --- undoing --- */

/* Call @fn for the places of file bytes [a, b) of the map. */
void each_place(const struct pm_pin *p, uint64_t a, uint64_t b,
                void (*fn)(void *arg, uint64_t at, uint8_t *place, uint64_t len), void *arg)
{
	uint64_t at = p->off;

	for (unsigned i = 0; i < p->map->nseg && at < b; i++) {
		const struct iovec *v = &p->map->seg[i];
		uint64_t from = max64(a, at), to = min64(b, at + v->iov_len);

		if (from < to)
			fn(arg, from, (uint8_t *)v->iov_base + (from - at), to - from);
		at += v->iov_len;
	}
}

static void zero_place(void *arg, uint64_t at, uint8_t *place, uint64_t len)
{
	struct pm_pin *p = arg;

	file_zero(p->st, p->f, p, at, at + len, place);
}

/* Drop entry @i from block @b on. */
static void drop_fresh(struct pm_pin *p, unsigned i, uint64_t b)
{
	struct file *f = p->f;
	struct fresh x;

	if (f->fresh[i].lblk < b) {
		fresh_split(f, b);
		i++;
	}
	x = f->fresh[i];
	fresh_remove(p->st, f, i);
	if (!x.owned)
		file_release(p->st, f, x.lblk, x.pblk, x.len, 0);
}

/* Does another writer cover some of these blocks? */
static bool run_shared(const struct pm_pin *p, const struct fresh *x)
{
	for (uint64_t b = x->lblk; b < x->lblk + x->len; b++)
		if (file_written_by(p->f, p, b))
			return true;
	return false;
}

/* Make block @b, in entry @i, an entry of its own. */
static struct fresh *isolate(struct file *f, unsigned *i, uint64_t b)
{
	if (f->fresh[*i].len == 1 || fresh_reserve(f, 2))
		return &f->fresh[*i];
	fresh_split(f, b);
	fresh_split(f, b + 1);
	*i = fresh_at(f, b);
	return &f->fresh[*i];
}

/*
 * Bytes from @a on are not going to be published. New blocks go back, what may have been placed
 * behind the end of file is zeroed (P4). Blocks behind the cut are the file's no more, so they are
 * not looked at. If @a lies inside the range, room for a split has been reserved.
 */
static void pin_undo(struct pm_pin *p, const struct pm_inode *in, uint64_t a)
{
	uint64_t end = min64(p->off + p->len, blk_up(p->cut) * PM_BLOCK), eof = p->cut, to;
	bool keep = a > p->off; /* the block that holds a - 1 is published */
	struct file *f = p->f;
	uint64_t eof_old = in ? min64(eof, in->size) : 0; /* where old contents end */

	if (in)
		eof = min64(eof, max64(file_size(f, in), keep ? a : 0));
	for (; a < end; a = to, keep = false) {
		uint64_t b = a / PM_BLOCK;
		unsigned i = fresh_at(f, b);
		struct fresh *x = i < f->nfresh && f->fresh[i].lblk <= b ? &f->fresh[i] : NULL;
		bool half = keep && a % PM_BLOCK, shared = x && x->state == ZEROED && x->len > 1 &&
		                                           run_shared(p, x);

		if (shared || (half && x && x->state == ZEROED))
			x = isolate(f, &i, b);
		to = x || i == f->nfresh ? end : min64(end, f->fresh[i].lblk * PM_BLOCK);
		if (x)
			to = min64(end, (half ? b + 1 : x->lblk + x->len) * PM_BLOCK);
		if (!x || x->state == DIRTY) {
			each_place(p, max64(a, eof), to, zero_place, p);
		} else if (x->state == ZEROED && x->len > 1 && !half && !shared) {
			drop_fresh(p, i, b);
		} else if (x->state == ZEROED) {
			each_place(p, a, to, zero_place, p);
			if (half && x->cow && in)
				sum_restore(p->st, in, x->pblk, a, min64(to, eof_old));
			if (!half && !file_written_by(f, p, b) && (x->len == 1 || !shared))
				drop_fresh(p, i, b);
		} else if (x->pin == p) {
			if (half)
				each_place(p, a, to, zero_place, p);
			if (half && x->cow && in)
				sum_restore(p->st, in, x->pblk + (b - x->lblk), a,
				            min64(to, eof_old));
			if (!half)
				drop_fresh(p, i, b);
		}
	}
}

/* --- commit --- */

/* Every range that must be durable before [off, p->end) is published. */
static int each_flush(struct pm_pin *p, const struct pm_inode *in,
                      void (*fn)(void *arg, uint64_t at, uint8_t *place, uint64_t len), void *arg)
{
	uint64_t end = blk_up(p->end), tail = 0;
	struct file *f = p->f;
	int err = 0;

	/* what else has been placed in the last block counts in its checksum */
	each_place(p, p->off, sum_stays(p->st) ? end * PM_BLOCK : p->end, fn, arg);
	for (unsigned i = fresh_at(f, p->off / PM_BLOCK); i < f->nfresh && f->fresh[i].lblk < end;
	     i++) {
		const struct fresh *x = &f->fresh[i];
		uint64_t from = max64(x->lblk, p->off / PM_BLOCK),
			 to = min64(x->lblk + x->len, end);

		if (x->state == FILLING) {
			if (to < end || p->end % PM_BLOCK == 0)
				continue;
			from = end - 1;
		}
		fn(arg, from * PM_BLOCK, data_ptr(p->st, x->pblk + (from - x->lblk)),
		   (to - from) * PM_BLOCK);
	}
	if (p->end > in->size)
		err = file_tail_block(p->st, in, &tail);
	if (tail)
		fn(arg, in->size, data_ptr(p->st, tail), PM_BLOCK);
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

int commit_flush(struct pm_pin *p, const struct pm_inode *in, struct pm_worker *w)
{
	struct flushing to = { p->st, stats_of(p->st, w) };

	return each_flush(p, in, flush_place, &to);
}

static void job_place(void *arg, uint64_t at, uint8_t *place, uint64_t len)
{
	struct pm_job *job = arg;

	(void)at;
	job->data[job->ndata++] = (struct iovec){ place, len };
}

static bool in_spans(const struct pub *p, uint64_t lblk)
{
	for (unsigned i = 0; i < p->nspan; i++)
		if (lblk - p->span[i].start < p->span[i].len)
			return true;
	return !p->nspan;
}

bool pub_has(const struct pub *p, const struct fresh *x)
{
	if (!in_spans(p, x->lblk))
		return false;
	return x->lblk >= p->lblk && x->lblk < p->end &&
	       (!p->dirty_only || (x->state == DIRTY && x->epoch <= p->epoch));
}

/* Take what has been published out of the list, entries up to the one that starts at @upto. */
static void drop_published(struct pm_store *st, struct file *f, const struct pub *p, uint64_t upto)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->nfresh; i++) {
		if (pub_has(p, &f->fresh[i]) && f->fresh[i].lblk <= upto)
			fresh_count(st, f, f->fresh[i].owned || f->fresh[i].cow, -f->fresh[i].len);
		else
			f->fresh[n++] = f->fresh[i];
	}
	f->nfresh = n;
}

/* @p is published by one or more of these. */
static struct pm_tx *data_tx(struct pm_store *st, const struct pub *p)
{
	struct pm_tx *tx = tx_begin(st);

	if (!p->judged)
		tx_admitted(tx);
	if (sum_stays(st) && st->media.method != PM_VOLATILE)
		tx_with_data(tx);
	else if (st->media.method != PM_MSYNC)
		tx_after_data(tx);
	return tx;
}

/* Entry @i shall have no more than @n blocks. */
static int part_of(struct file *f, unsigned i, uint64_t n)
{
	if (f->fresh[i].len <= n)
		return 0;
	if (fresh_reserve(f, 1))
		return -ENOMEM;
	fresh_split(f, f->fresh[i].lblk + n);
	return 0;
}

/* @charged blocks of the transaction are pending still, and about to be used. */
static int data_end(struct pm_tx *tx, int err, struct file *f, uint64_t charged, pm_lsn *lsn)
{
	if (err) {
		tx_abort(tx);
		return err;
	}
	quota_pend(f->quota[0], -charged);
	quota_pend(f->quota[1], -charged);
	err = tx_commit(tx, lsn);
	quota_pend(f->quota[0], charged);
	quota_pend(f->quota[1], charged);
	return err;
}

static bool holds_end(const struct pm_inode *in, const struct pub *p)
{
	return in->size / PM_BLOCK >= p->lblk && in->size / PM_BLOCK < p->end;
}

/* Checksums of blocks that the file had already; *tx may become another. On error it is aborted. */
static int publish_in_place(struct pm_tx **tx, const struct pm_inode *in, const struct pub *p,
                            pm_lsn *lsn)
{
	struct pm_store *st = tx_store(*tx);
	uint64_t lblk = p->lblk;
	int err = sum_stays(st) ? sum_overwritten(*tx, in, &lblk, p->end) : 0;

	if (err == -EAGAIN && worker_here(st)) /* the rest might be refused */
		err = NEEDS_ALL;
	while (err == -EAGAIN) {
		err = tx_commit(*tx, lsn);
		if (err)
			return err;
		*tx = data_tx(st, p);
		err = sum_overwritten(*tx, in, &lblk, p->end);
	}
	if (err)
		tx_abort(*tx);
	return err;
}

int file_publish(struct pm_store *st, struct file *f, const struct pm_inode *in,
                 const struct pub *p, pm_lsn *lsn)
{
	struct pm_inode *sh;
	struct pm_tx *tx;
	unsigned puts = 0, i;
	uint64_t last = 0, last_end = 0, charged = 0;
	struct sum_old old = { .f = f };
	uint64_t sums = 0, size = max64(in->size, p->size);
	int err = fresh_reserve(f, 2);

	if (err)
		return err;
	fresh_split(f, p->lblk);
	fresh_split(f, p->end);
	err = p->judged ? promise_try(st, f, in, p) : 0;
	if (err)
		return err;
	tx = data_tx(st, p);
	err = publish_in_place(&tx, in, p, lsn);
	if (err)
		return err;
	for (i = fresh_at(f, p->lblk); i < f->nfresh && f->fresh[i].lblk < p->end; i++) {
		struct fresh x = f->fresh[i];
		struct ext e;

		if (!pub_has(p, &x))
			continue;
		if (puts == TX_EXTENTS || sums >= SUM_BLOCKS || (puts && tx_large(tx))) {
			if ((p->judged || sum_on(st)) && worker_here(st)) { /* beside others the rest might be refused */
				tx_abort(tx);
				sum_published(st, &old, NEEDS_ALL, 0);
				return NEEDS_ALL;
			}
			if (sum_on(st)) { /* entries are for a file that ends there */
				sh = ino_edit(tx, in);
				sh->size = max64(sh->size, min64(p->size, last_end * PM_BLOCK));
				err = sum_end(tx, f, in, false, sh->size);
			}
			/* extents behind the end of file, until the last part moves it */
			ino_set_trimmed(st, in->ino, false);
			err = data_end(tx, err, f, charged, lsn);
			sum_published(st, &old, err, *lsn);
			if (err)
				return err;
			drop_published(st, f, p, last);
			i = fresh_at(f, x.lblk);
			tx = data_tx(st, p);
			charged = 0;
			puts = 0;
			sums = 0;
		}
		if (sum_on(st)) {
			err = part_of(f, i, SUM_BLOCKS - sums);
			x = f->fresh[i];
			sums += x.len;
			if (!err)
				err = sum_publish(&old, tx, in, &x, size);
		}
		e = (struct ext){ .lblk = x.lblk, .pblk = x.pblk, .len = x.len };
		if (!err)
			err = ext_put(st, tx, in, &e);
		if (err) {
			tx_abort(tx);
			sum_published(st, &old, err, 0);
			return err;
		}
		charged += x.owned || x.cow ? 0 : x.len;
		last = x.lblk;
		last_end = x.lblk + x.len;
		puts++;
	}
	if (sum_on(st))
		err = sum_end(tx, f, in, holds_end(in, p), size);
	sh = ino_edit(tx, in);
	sh->size = max64(sh->size, p->size);
	sh->mtime = p->mtime;
	if (time_before(sh->ctime, p->ctime))
		sh->ctime = p->ctime;
	err = data_end(tx, err, f, charged, lsn);
	sum_published(st, &old, err, *lsn);
	if (!err)
		drop_published(st, f, p, UINT64_MAX);
	return err;
}

void wake_all(struct pm_wait *w)
{
	struct pm_wait *next;

	for (; w; w = next) {
		next = w->next;
		w->done(w, 0);
	}
}

/* Decide what is published; give the rest back. */
static int pin_prepare(struct pm_pin *p, const struct pm_inode *in)
{
	int err = fresh_reserve(p->f, 4);

	if (err)
		return err;
	p->end = max64(min64(p->off + min64(p->prefix, p->len), p->cut), p->off);
	if (sum_moves(p->st) && p->end > p->off && p->end < p->off + p->len && p->end % PM_BLOCK)
		err = sum_keep(p->st, in, p->end / PM_BLOCK);
	if (err)
		return err;
	if (p->end < p->off + p->len)
		promise_loosen(p, in);
	pin_undo(p, in, p->end);
	return 0;
}

static void fill_out(struct pm_pin *p, const struct pm_inode *in, enum pm_stable stable)
{
	file_attr(p->st, in, &p->out->attr);
	p->out->stable = stable;
	pm_write_verf(p->st, p->out->verf);
}

/* The file has been removed: the write came before that. */
int commit_gone(struct pm_pin *p, int err)
{
	if (err != -ESTALE)
		return err;
	pin_undo(p, NULL, p->off);
	promise_end(p);
	p->committed = true;
	p->out->before = p->out->attr = p->map->attr;
	p->out->stable = p->st->media.method == PM_VOLATILE ? PM_UNSTABLE : PM_FILE_SYNC;
	pm_write_verf(p->st, p->out->verf);
	return 0;
}

/* With checksums: a truncate since the data was synced may have zeroed a part of the first or the last
 * block. */
static int sync_ends(struct pm_pin *p)
{
	uint64_t b[2] = { p->off / PM_BLOCK, (p->end - 1) / PM_BLOCK };
	int err = 0;

	for (unsigned k = 0; !err && k < 2; k++) {
		unsigned i = fresh_at(p->f, b[k]);
		const struct fresh *x = &p->f->fresh[i];

		if (i < p->f->nfresh && x->lblk <= b[k])
			err = journal_sync_first(p->st, (x->pblk + (b[k] - x->lblk)) * PM_BLOCK,
			                         PM_BLOCK);
	}
	return err;
}

/* The write is over; nothing from byte @a on has been published. */
static void pin_seal(const struct pm_pin *p, const struct pm_inode *in, uint64_t a)
{
	uint64_t lblk = a > p->off ? blk_up(a) : a / PM_BLOCK, end = blk_up(p->off + p->len);

	if (in && p->len && lblk < end && sum_stays(p->st))
		sum_seal(p->st, p->f, in, p, lblk, end);
}

static int pin_publish(struct pm_pin *p, const struct pm_inode *in, pm_lsn *lsn)
{
	struct pub pub = { .lblk = p->off / PM_BLOCK, .mtime = store_now() };
	int err = 0;

	*lsn = 0;
	if (p->end > p->cut) { /* truncated while the data was being synced */
		p->end = max64(p->cut, p->off);
		err = fresh_reserve(p->f, 2);
		if (err)
			return err;
		pin_undo(p, in, p->end);
	}
	file_attr(p->st, in, &p->out->before);
	pub.ctime = pub.mtime;
	pub.end = blk_up(p->end);
	pub.size = p->end;
	if (p->end > p->off && p->cut != NO_CUT && sum_on(p->st) && media_slow(p->st)) {
		err = sync_ends(p);
		if (err)
			return err;
	}
	if (p->end > p->off) {
		lease_changed(p->f, p, pub.lblk, pub.end);
		err = file_publish(p->st, p->f, in, &pub, lsn);
		if (err)
			return err;
		if (p->f->over) {
			p->f->mtime = p->f->ctime = pub.mtime;
			dirty_check(p->st, p->f, in);
		}
	}
	promise_end(p);
	p->committed = true;
	pin_seal(p, in, p->end);
	fill_out(p, in, p->st->media.method == PM_VOLATILE ? PM_UNSTABLE : PM_FILE_SYNC);
	return 0;
}

static void dirty_place(void *arg, uint64_t at, uint8_t *place, uint64_t len)
{
	struct pm_pin *p = arg;
	uint64_t from = (uint64_t)(place - p->st->media.base);

	(void)at;
	dirty_run(p->st, p->f, from / PM_BLOCK, blk_up(from + len) - from / PM_BLOCK);
}

/* Readable from now on, durable later. */
static int pin_unstable(struct pm_pin *p, const struct pm_inode *in)
{
	int err = runs_reserve(&p->f->runs, p->map->nseg);

	if (err)
		return err;
	file_attr(p->st, in, &p->out->before);
	if (p->end > p->off) {
		lease_changed(p->f, p, p->off / PM_BLOCK, blk_up(p->end));
		dirty_note(p->st, p->f, in, p->end, store_now());
		each_place(p, p->off, p->end, dirty_place, p);
		fresh_dirty(p->f, p->off / PM_BLOCK, blk_up(p->end));
	}
	promise_end(p);
	p->committed = true;
	fill_out(p, in, PM_UNSTABLE);
	return 0;
}

void pin_wake(struct pm_pin *p, struct pm_wait **waiters)
{
	*waiters = p->waiters;
	p->waiters = NULL;
}

/* The part behind the data; on the flusher thread with PM_MSYNC. */
static int commit_finish(struct pm_pin *p, pm_lsn *lsn)
{
	const struct pm_inode *in;
	int err;

	*lsn = 0;
	in = file_inode(p->st, p->f->id, &err);
	if (!in)
		return commit_gone(p, err);
	return p->unstable ? pin_unstable(p, in) : pin_publish(p, in, lsn);
}

static pm_lsn commit_run(struct pm_job *job, int data_err)
{
	struct pm_pin *p = container_of(job, struct pm_pin, job);
	struct pm_wait *waiters;
	pm_lsn lsn = 0;

	p->res = data_err;
	if (!p->res && p->unstable)
		p->res = super_note_unstable(p->st);
	store_lock(p->st);
	if (!p->res)
		p->res = commit_finish(p, &lsn);
	pin_wake(p, &waiters);
	store_unlock(p->st);
	wake_all(waiters);
	return lsn;
}

void job_end(struct pm_store *st)
{
	pthread_mutex_lock(&st->lock);
	if (!--st->files->jobs)
		pthread_cond_broadcast(&st->files->idle);
	pthread_mutex_unlock(&st->lock);
}

static void commit_done(struct pm_job *job, int err)
{
	struct pm_pin *p = container_of(job, struct pm_pin, job);
	struct pm_wait *w = p->w;

	free(job->data);
	job->data = NULL;
	err = p->res ? p->res : err;
	job_end(p->st);
	w->done(w, err);
}

/* Hand the pin to the flusher: @prepared, with its data ranges. */
static int commit_later(struct pm_pin *p, const struct pm_inode *in)
{
	unsigned n = p->map->nseg + p->f->nfresh + 1;
	int err;

	p->job = (struct pm_job){ .fn = commit_run, .done = commit_done };
	if (!p->unstable) {
		p->job.data = malloc(n * sizeof(struct iovec));
		if (!p->job.data)
			return -ENOMEM;
		err = each_flush(p, in, job_place, &p->job);
		if (err) {
			free(p->job.data);
			return err;
		}
	}
	p->st->files->jobs++;
	return -EINPROGRESS;
}

/* With checksums: what is not published has to be summed anew, in transactions that might be refused beside others. */
static bool leaves_to_seal(const struct pm_pin *p)
{
	return sum_on(p->st) && (p->prefix < p->len || p->cut < p->off + p->len);
}

static int commit_locked(struct pm_pin *p, struct pm_worker *who)
{
	struct pm_store *st = p->st;
	bool slow = st->media.method == PM_MSYNC;
	const struct pm_inode *in;
	pm_lsn lsn;
	int err;

	if (who && leaves_to_seal(p))
		return NEEDS_ALL;
	files_sweep(st);
	in = file_inode(st, p->f->id, &err);
	if (!in)
		return commit_gone(p, err);
	err = pin_prepare(p, in);
	if (err)
		return err;
	if (p->unstable) {
		err = file_owe(st, p->f, in, who, p->off / PM_BLOCK, blk_up(p->end));
		if (err == NEEDS_ALL)
			return err;
		p->unstable = !err;
	}
	if (slow && (!p->unstable || !(__atomic_load_n(&st->super.state, __ATOMIC_ACQUIRE) & PM_STATE_UNSTABLE)))
		return commit_later(p, in);
	if (!p->unstable && st->media.method != PM_VOLATILE) {
		err = commit_flush(p, in, who);
		if (err)
			return err;
	}
	return commit_finish(p, &lsn);
}

int commit_now(struct pm_pin *p)
{
	struct pm_wait *waiters = NULL;
	struct pm_store *st = p->st;
	uint64_t ino = p->f->id.ino;
	struct pm_worker *who;
	bool bound = false;
	int err = 0;

	if (p->unstable && !media_slow(st))
		err = super_note_unstable(st);
	if (err)
		return err;
	who = inode_lock_write(st, ino);
	err = faults_probe(st, p->map->seg, p->map->nseg, false);
	if (!err)
		err = commit_locked(p, who);
	if (err == NEEDS_ALL) {
		inode_alone(st, &who, ino);
		err = commit_locked(p, who);
	}
	if (err != -EINPROGRESS) {
		pin_wake(p, &waiters);
		bound = p->unstable && dirty_over(st);
	}
	inode_unlock(st, who, ino);
	if (err == -EINPROGRESS)
		flusher_add(st, &p->job); /* may be over before this returns */
	wake_all(waiters);
	if (bound)
		dirty_bound(st, p->f->id);
	return err;
}

int pm_commit(struct pm_map *m, uint64_t prefix, enum pm_stable stable, bool honor,
              struct pm_committed *out, struct pm_wait *w)
{
	int err = commit_ask(m, prefix, stable, honor, out, w);

	return err ? err : commit_now(m->pin);
}

/* --- unpin --- */

/* The last pin is gone: so is the file, if it lost its last name meanwhile. */
static void last_unpin(struct pm_store *st, struct file *f)
{
	const struct pm_inode *in = ino_at(st, f->id.ino);
	struct pm_id id = f->id;

	if (in && in->type && in->gen == id.gen && in->nlink) {
		file_rest(st, f);
		return;
	}
	file_gone(st, f);
	if (in && in->type && in->gen == id.gen)
		file_orphan(st, id);
}

/* Nothing but the file itself is concerned: no blocks that it has lost, no removal, nothing left half done. */
static bool unpin_is_plain(const struct pm_pin *p)
{
	const struct pm_inode *in = ino_at(p->st, p->f->id.ino);

	return (!p->write || p->committed || (p->st->workers->writes && !sum_on(p->st))) && LIST_EMPTY(&p->f->limbo) && in && in->type &&
	       in->gen == p->f->id.gen && in->nlink;
}

void pm_unpin(struct pm_map *m)
{
	struct pm_pin *p = m->pin;
	struct pm_wait *waiters;
	struct pm_worker *w;
	struct pm_store *st;
	struct file *f;
	uint64_t ino;
	int err;

	if (!p)
		return;
	st = p->st;
	f = p->f;
	ino = f->id.ino;
	p->map = m;
	w = inode_lock(st, ino);
	if (w && !unpin_is_plain(p))
		inode_alone(st, &w, ino);
	if (p->write && !p->committed) {
		const struct pm_inode *in = file_inode(st, f->id, &err);

		pin_undo(p, in, p->off);
		pin_seal(p, in, p->off);
	}
	promise_end(p);
	LIST_REMOVE(p, link);
	COUNT(st, stats_of(st, w), pins, -1);
	pin_wake(p, &waiters);
	file_unlimbo(st, f);
	if (LIST_EMPTY(&f->pins))
		last_unpin(st, f);
	inode_unlock(st, w, ino);
	wake_all(waiters);
	free(p->heap);
	free(p);
	m->pin = NULL;
	m->seg = NULL;
	m->nseg = 0;
}
