/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dirty.c - unstable writes, and what makes them durable
 *
 * An unstable write leaves DIRTY blocks, runs of pool blocks to flush, and attributes that lie over
 * those of the inode. A sync takes the runs, flushes them, and publishes the DIRTY blocks of its
 * epoch: those that were there when it took the runs. With PM_MSYNC writes go on meanwhile; what
 * they leave belongs to the next epoch, and a truncate meanwhile has made its own size durable, so
 * the sync then leaves the size alone.
 *
 * Files are written to and settled side by side; of what they share the list has a lock, and the sums are atomic.
 *
 * Memory and possible loss are bounded: above DIRTY_PAGES or DIRTY_RUNS files are settled unasked, first of all the one
 * that has just been written to, beside others.
 */
#include <errno.h>
#include <stdlib.h>
#include <syslog.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

struct sync { /* one sync on its way through the flusher */
	struct pm_job job;
	struct pm_store *st;
	struct file *f; /* referenced */
	uint64_t size;
	uint32_t epoch, cuts;
	struct pm_committed *out; /* NULL: nobody asked */
	struct pm_wait *w;
	int res;
};

void dirty_note(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t end,
                struct pm_time now)
{
	if (!f->over) {
		f->over = true;
		f->size = in->size;
		lock_take(&st->files->lock);
		TAILQ_INSERT_TAIL(&st->files->dirty, f, dirty);
		lock_drop(&st->files->lock);
		STAT_ADD(st, dirty_inodes, 1);
	}
	f->size = max64(file_size(f, in), end);
	f->mtime = f->ctime = now;
}

/* The file's runs were @old; modulo 2^64. */
static void runs_moved(struct pm_store *st, const struct file *f, const struct runs *old)
{
	if (f->runs.blocks != old->blocks)
		__atomic_fetch_add(&st->files->dirty_pages, f->runs.blocks - old->blocks, __ATOMIC_RELAXED);
	if (f->runs.n != old->n)
		__atomic_fetch_add(&st->files->dirty_runs, (uint64_t)f->runs.n - old->n, __ATOMIC_RELAXED);
}

void dirty_run(struct pm_store *st, struct file *f, uint64_t start, uint64_t len)
{
	struct runs old = f->runs;

	runs_add(&f->runs, start, len);
	runs_moved(st, f, &old);
}

static void runs_empty(struct pm_store *st, struct file *f)
{
	struct runs old = f->runs;

	f->runs.n = 0;
	f->runs.blocks = 0;
	runs_moved(st, f, &old);
}

void dirty_drop(struct pm_store *st, struct file *f)
{
	runs_empty(st, f);
	if (!f->over)
		return;
	f->over = false;
	file_unowe(st, f);
	lock_take(&st->files->lock);
	TAILQ_REMOVE(&st->files->dirty, f, dirty);
	lock_drop(&st->files->lock);
	STAT_ADD(st, dirty_inodes, -1);
}

void dirty_check(struct pm_store *st, struct file *f, const struct pm_inode *in)
{
	if (!f->over || f->runs.n || f->size > in->size)
		return;
	for (unsigned i = 0; i < f->nfresh; i++) {
		if (f->fresh[i].state == DIRTY)
			return;
	}
	dirty_drop(st, f);
}

/* Publish what a sync that began at @epoch, @cuts and @size has flushed. */
static int publish(struct pm_store *st, struct file *f, const struct pm_inode *in, uint32_t epoch, uint32_t cuts,
                   uint64_t size, pm_lsn *lsn)
{
	struct pub p = { .end = UINT64_MAX, .dirty_only = true, .epoch = epoch };
	int err;

	*lsn = 0;
	if (!f->over)
		return 0;
	p.size = cuts == f->cuts ? size : 0;
	p.mtime = f->mtime;
	p.ctime = f->ctime;
	err = file_publish(st, f, in, &p, lsn);
	promise_again(st, f, in);
	return err;
}

/* The same, of a sync that took the runs. */
static int settle(struct pm_store *st, struct file *f, const struct pm_inode *in, uint32_t epoch,
                  uint32_t cuts, uint64_t size, pm_lsn *lsn)
{
	int err = publish(st, f, in, epoch, cuts, size, lsn);

	if (!err)
		dirty_check(st, f, in);
	return err;
}

/* Flush without waiting, then publish: methods other than PM_MSYNC. Inside it may be NEEDS_ALL, with all of it to do
 * again. */
static int sync_now(struct pm_store *st, struct pm_worker *w, struct file *f, const struct pm_inode *in)
{
	struct pm_stats *count = stats_of(st, w);
	uint64_t tail;
	pm_lsn lsn;
	int err = w && promise_exact(f) ? NEEDS_ALL : file_tail_block(st, in, &tail);

	if (err)
		return err;
	for (unsigned i = 0; i < f->runs.n; i++)
		med_flush_as(st, count, f->runs.run[i].start * PM_BLOCK, f->runs.run[i].len * PM_BLOCK);
	if (tail)
		med_flush_as(st, count, tail * PM_BLOCK, PM_BLOCK);
	err = publish(st, f, in, f->epoch, f->cuts, f->size, &lsn);
	if (err)
		return err;
	runs_empty(st, f);
	dirty_check(st, f, in);
	return 0;
}

static void fill(struct pm_store *st, const struct pm_inode *in, struct pm_committed *out)
{
	file_attr(st, in, &out->attr);
	out->stable = st->media.method == PM_VOLATILE ? PM_UNSTABLE : PM_FILE_SYNC;
	pm_write_verf(st, out->verf);
}

static pm_lsn sync_run(struct pm_job *job, int data_err)
{
	struct sync *s = container_of(job, struct sync, job);
	const struct pm_inode *in;
	pm_lsn lsn = 0;

	s->res = data_err;
	store_lock(s->st);
	in = data_err ? NULL : file_inode(s->st, s->f->id, &s->res);
	if (in)
		s->res = settle(s->st, s->f, in, s->epoch, s->cuts, s->size, &lsn);
	if (in && s->out)
		fill(s->st, in, s->out);
	store_unlock(s->st);
	return lsn;
}

static void sync_done(struct pm_job *job, int err)
{
	struct sync *s = container_of(job, struct sync, job);
	struct pm_store *st = s->st;
	struct pm_wait *w = s->w;

	err = s->res ? s->res : err;
	store_lock(st);
	s->f->refs--;
	if (!s->out)
		s->f->settling = false;
	file_rest(st, s->f);
	store_unlock(st);
	free(s->job.data);
	free(s);
	job_end(st);
	if (w)
		w->done(w, err);
}

/* Take the runs of @f into a job. */
static int sync_new(struct pm_store *st, struct file *f, const struct pm_inode *in,
                    struct sync **out)
{
	struct sync *s = calloc(1, sizeof(*s));
	struct iovec *v = malloc((f->runs.n + 1) * sizeof(*v));
	uint64_t tail;
	int err = file_tail_block(st, in, &tail);

	if (!s || !v || err) {
		free(s);
		free(v);
		return err ? err : -ENOMEM;
	}
	s->job = (struct pm_job){ .data = v, .fn = sync_run, .done = sync_done };
	for (unsigned i = 0; i < f->runs.n; i++)
		v[s->job.ndata++] = (struct iovec){ data_ptr(st, f->runs.run[i].start),
			                            f->runs.run[i].len * PM_BLOCK };
	if (tail)
		v[s->job.ndata++] = (struct iovec){ data_ptr(st, tail), PM_BLOCK };
	runs_empty(st, f);
	s->st = st;
	s->f = f;
	s->size = f->size;
	s->epoch = f->epoch++;
	s->cuts = f->cuts;
	f->refs++;
	st->files->jobs++;
	*out = s;
	return 0;
}

bool dirty_over(const struct pm_store *st)
{
	return __atomic_load_n(&st->files->dirty_pages, __ATOMIC_RELAXED) > DIRTY_PAGES ||
	       __atomic_load_n(&st->files->dirty_runs, __ATOMIC_RELAXED) > DIRTY_RUNS;
}

static struct file *worst(struct pm_store *st)
{
	struct pm_files *fs = st->files;
	struct file *f;

	if (!dirty_over(st))
		return NULL;
	TAILQ_FOREACH (f, &fs->dirty, dirty) {
		if (!f->settling && f->runs.n)
			return f;
	}
	return NULL;
}

/* Settle one file; false: none needs it. */
static bool bound_one(struct pm_store *st)
{
	const struct pm_inode *in;
	struct sync *s = NULL;
	struct file *f;
	int err = 0;

	store_lock(st);
	files_sweep(st);
	f = worst(st);
	in = f ? file_inode(st, f->id, &err) : NULL;
	if (in && media_slow(st)) {
		err = sync_new(st, f, in, &s);
		if (!err)
			f->settling = true;
	} else if (in) {
		err = sync_now(st, NULL, f, in);
		if (!err)
			file_rest(st, f);
	}
	if (err == -ESTALE) { /* removed, still pinned: nobody can ask for it any more */
		runs_empty(st, f);
		err = 0;
	}
	store_unlock(st);
	if (s)
		flusher_add(st, &s->job);
	if (err)
		store_log(st, LOG_WARNING, "unstable writes could not be settled: %s",
		          strerror(-err));
	return f && !err;
}

/* @s: the job, with PM_MSYNC. */
static int sync_at(struct pm_store *st, struct pm_worker *who, struct pm_id id, struct pm_committed *out,
                   struct sync **s)
{
	const struct pm_inode *in;
	struct file *f;
	int err;

	files_sweep(st);
	in = file_regular(st, id, &err);
	if (!in)
		return err;
	err = 0;
	file_attr(st, in, &out->before);
	f = file_find(st, id);
	if (f && media_slow(st) && (f->over || f->refs))
		err = sync_new(st, f, in, s);
	else if (f && f->over)
		err = sync_now(st, who, f, in);
	if (err || *s)
		return err;
	fill(st, in, out);
	if (f)
		file_rest(st, f);
	return 0;
}

int pm_sync_file(struct pm_store *st, struct pm_id id, struct pm_committed *out, struct pm_wait *w)
{
	struct pm_worker *who = inode_lock_write(st, id.ino);
	struct sync *s = NULL;
	int err = sync_at(st, who, id, out, &s);

	if (err == NEEDS_ALL) {
		inode_alone(st, &who, id.ino);
		err = sync_at(st, NULL, id, out, &s);
	}
	if (s) {
		s->out = out;
		s->w = w;
	}
	inode_unlock(st, who, id.ino);
	if (!s)
		return err;
	flusher_add(st, &s->job);
	return -EINPROGRESS;
}

void dirty_bound(struct pm_store *st, struct pm_id id)
{
	struct pm_committed out;

	if (!media_slow(st))
		pm_sync_file(st, id, &out, NULL);
	while (bound_one(st))
		;
}

/* Closing: the caller may block, and the flusher has nothing of ours left. */
static int settle_file(struct pm_store *st, struct file *f)
{
	const struct pm_inode *in;
	int err;

	in = file_inode(st, f->id, &err);
	if (!in)
		return err;
	for (unsigned i = 0; media_slow(st) && i < f->runs.n; i++) {
		err = med_sync(st, f->runs.run[i].start * PM_BLOCK, f->runs.run[i].len * PM_BLOCK);
		if (err)
			return err;
	}
	if (media_slow(st)) {
		uint64_t tail;
		pm_lsn lsn;

		err = file_tail_block(st, in, &tail);
		if (!err && tail)
			err = med_sync(st, tail * PM_BLOCK, PM_BLOCK);
		if (err)
			return err;
		runs_empty(st, f);
		return settle(st, f, in, f->epoch, f->cuts, f->size, &lsn);
	}
	return sync_now(st, NULL, f, in);
}

int files_settle(struct pm_store *st)
{
	struct file *f;
	int err = 0, e;

	if (!st->files)
		return 0;
	pthread_mutex_lock(&st->lock);
	while (st->files->jobs)
		pthread_cond_wait(&st->files->idle, &st->lock);
	pthread_mutex_unlock(&st->lock);
	store_lock(st);
	files_sweep(st);
	while ((f = TAILQ_FIRST(&st->files->dirty))) {
		e = settle_file(st, f);
		if (e)
			dirty_drop(st, f); /* lost, and the caller told so */
		if (e && !err)
			err = e;
		file_rest(st, f);
	}
	store_unlock(st);
	return err;
}
