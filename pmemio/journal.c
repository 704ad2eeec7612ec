/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * journal.c - lanes of redo records, checkpoints, and the flusher thread of PM_MSYNC; replay.c reads them again
 *
 * Records go to one lane until it is full; then a checkpoint makes everything in place durable,
 * says so in that lane's header, and the next lane is filled from its start. So a lane never wraps,
 * the wear spreads, and what a lane holds behind its newest record is older than the checkpoint and
 * is told apart by its seq.
 *
 * seq = boot << 40 | counter. Each read-write open ends recovery with a checkpoint of boot << 40:
 * the next record is that plus one, and no record of an earlier boot can ever follow it without a
 * gap.
 *
 * J1  A record is durable before any byte it describes changes in place.
 * J2  What a checkpoint names is durable in place before the lane header says so.
 * J3  A lane is reused from its start only after a checkpoint behind its records is durable.
 *
 * Threads commit side by side: each claims a seq and the bytes behind the last record, a few instructions under
 * a lock, then stores, flushes and drains its record by itself. Replay stops at a record that is not whole, so
 *
 * J5  A transaction is durable, is applied in place and is answered only when all of lower seq are durable.
 * J6  What a record says was durable before it was so before the record's first store.
 *
 * Checkpoints are for whoever is alone: nobody is between claiming and applying.
 *
 * PM_MSYNC: the kernel may write any page of the shared mapping at any time, so records wait in
 * DRAM and the flusher alone touches lanes and metadata:
 *
 *   data of jobs synced
 *   fn of jobs: they commit
 *   ranges to sync first (new inode chunks)
 *   records to the lane, synced: durable
 *   changes in place
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "pmemio/core.h"

struct pending { /* a record on its way to the lane */
	STAILQ_ENTRY(pending) link;
	struct pm_rec rec; /* ranges follow */
};
STAILQ_HEAD(pendings, pending);
STAILQ_HEAD(jobs, pm_job);

struct first { /* ranges to sync before the next records */
	uint64_t at;
	size_t len;
};

struct pm_journal {
	unsigned lane; /* being filled */
	size_t area;   /* bytes of a record area */
	pm_lsn ckpt;
	uint8_t copy[PM_MAX_LANES]; /* header copy to write next */
	int err; /* atomic */
	bool mute; /* records do not say what was durable: nothing is, or something was not; atomic */
	uint32_t seed; /* of their checksums */

	/* written by everybody who commits */
	struct pm_lock claim __attribute__((aligned(64))); /* the next four */
	size_t head;                                        /* byte in the lane's record area; atomic */
	pm_lsn last;
	const struct pm_worker *who; /* of it */
	unsigned shared;             /* records to come until it counts as one worker's again; atomic */
	pm_lsn durable __attribute__((aligned(64))); /* atomic */

	/* PM_MSYNC, under the store's lock */
	pthread_t thread;
	bool running, stop, want_ckpt;
	pthread_cond_t work;
	struct pendings pending;
	struct pending *reserved;
	struct jobs jobs;
	struct pm_wait *waiters;
	struct pm_wait *short_of; /* wait for space that a checkpoint behind arg gives */
	struct first *first;
	size_t nfirst, cap_first;
	bool view_dirty; /* the view has private pages */
};

size_t journal_max_rec(const struct pm_store *st)
{
	return lane_area(st) / 4;
}

pm_lsn journal_last(const struct pm_store *st)
{
	return __atomic_load_n(&st->journal->last, __ATOMIC_ACQUIRE);
}

pm_lsn journal_durable(const struct pm_store *st)
{
	return __atomic_load_n(&st->journal->durable, __ATOMIC_ACQUIRE);
}

pm_lsn journal_ckpt(const struct pm_store *st)
{
	return st->journal->ckpt;
}

int journal_error(struct pm_store *st)
{
	return __atomic_load_n(&st->journal->err, __ATOMIC_ACQUIRE);
}

void journal_fail(struct pm_store *st)
{
	if (!journal_error(st))
		store_log(st, 2, "metadata met a media error: the pool takes no more changes; "
		                 "restart, and run `berth check`");
	__atomic_store_n(&st->journal->mute, true, __ATOMIC_RELAXED);
	__atomic_store_n(&st->journal->err, -EIO, __ATOMIC_RELEASE);
}

/* --- checkpoint ------------------------------------------------------------------------------ */

/* Everything up to @seq is durable in place. May block with PM_MSYNC. */
static int write_head(struct pm_store *st, unsigned lane, uint64_t seq)
{
	struct pm_lane_head h = { .ckpt_seq = seq };
	uint64_t at = lane_at(st, lane) + st->journal->copy[lane] * sizeof(h);

	h.crc = pm_crc(&h, sizeof(h), offsetof(struct pm_lane_head, crc));
	st->journal->copy[lane] ^= 1;
	med_store(st, at, &h, sizeof(h));
	STAT_ADD(st, checkpoints, 1);
	return med_settle(st, at, sizeof(h));
}

static void next_lane(struct pm_store *st)
{
	st->journal->lane = (st->journal->lane + 1) % st->super.lanes;
	st->journal->head = 0;
}

/* With a cheap flush: everything applied was flushed, one drain makes it durable. */
static void checkpoint_now(struct pm_store *st)
{
	struct pm_journal *j = st->journal;

	med_drain(st);
	write_head(st, j->lane, j->last);
	next_lane(st);
	j->ckpt = j->last;
	alloc_release(st);
}

bool journal_checkpoint(struct pm_store *st)
{
	struct pm_journal *j = st->journal;

	if (st->read_only || j->err)
		return false;
	if (!media_slow(st)) {
		checkpoint_now(st);
		return true;
	}
	j->want_ckpt = true;
	pthread_cond_signal(&j->work);
	return false;
}

bool journal_want_space(struct pm_store *st, struct pm_wait *w)
{
	struct pm_journal *j = st->journal;

	if (!media_slow(st) || !j->running || j->err || !alloc_waiting(st))
		return false;
	w->arg = j->last;
	w->next = j->short_of;
	j->short_of = w;
	j->want_ckpt = true;
	pthread_cond_signal(&j->work);
	return true;
}

/* --- appending ------------------------------------------------------------------------------- */

/* Nothing of @rec is stored yet. mute is looked at last: whoever fails sets it before durable moves on. */
static void seal(struct pm_journal *j, struct pm_rec *rec)
{
	uint64_t unsure = rec->seq - 1 - __atomic_load_n(&j->durable, __ATOMIC_ACQUIRE);
	bool mute = __atomic_load_n(&j->mute, __ATOMIC_RELAXED) || unsure > PM_REC_MUTE;

	rec->unsure = mute ? PM_REC_MUTE : (uint16_t)unsure;
	rec->crc = rec_crc(j->seed, rec);
}

/* The flusher's. */
static uint64_t put_record(struct pm_store *st, struct pm_rec *rec)
{
	struct pm_journal *j = st->journal;
	uint64_t at = lane_at(st, j->lane) + PM_BLOCK + j->head;

	seal(j, rec);
	med_store(st, at, rec, rec->len);
	j->head += rec->len;
	return at;
}

/* A record for the flusher is made here, filled by journal_append. */
int journal_reserve(struct pm_store *st, size_t len)
{
	struct pm_journal *j = st->journal;
	struct pending *p;

	if (!media_slow(st)) {
		if (__atomic_load_n(&j->head, __ATOMIC_RELAXED) + len <= j->area)
			return 0;
		if (worker_here(st))
			return NEEDS_ALL;
		checkpoint_now(st);
		return 0;
	}
	p = malloc(offsetof(struct pending, rec) + len);
	if (!p)
		return -ENOMEM;
	free(j->reserved);
	j->reserved = p;
	return 0;
}

bool journal_shared(struct pm_store *st)
{
	return __atomic_load_n(&st->journal->shared, __ATOMIC_RELAXED);
}

static void note_worker(struct pm_journal *j, const struct pm_worker *w)
{
	if (!w)
		return; /* alone: nobody is in its way */
	if (j->who && w != j->who)
		__atomic_store_n(&j->shared, 64, __ATOMIC_RELAXED);
	else if (j->shared)
		__atomic_store_n(&j->shared, j->shared - 1, __ATOMIC_RELAXED);
	j->who = w;
}

static void claim_slot(struct pm_store *st, struct rec_reply *reply)
{
	uint64_t seq, at;

	if (!reply)
		return;
	at = reply_claim(st, &seq);
	reply->where.at = at & ((1ull << 48) - 1);
	reply->slot.seq = seq;
}

static void seal_slot(struct rec_reply *reply)
{
	if (reply)
		reply->slot.crc = pm_crc(&reply->slot, sizeof(reply->slot), offsetof(struct pm_slot, crc));
}

/* Take the next seq, and the places that go with it. */
static int claim(struct pm_store *st, struct pm_rec *rec, struct rec_reply *reply, const struct pm_worker *w,
                 uint64_t *at)
{
	struct pm_journal *j = st->journal;
	int err = 0;

	lock_take(&j->claim);
	if (j->head + rec->len > j->area) { /* whoever is alone has made room */
		err = NEEDS_ALL;
	} else {
		*at = lane_at(st, j->lane) + PM_BLOCK + j->head;
		__atomic_store_n(&j->head, j->head + rec->len, __ATOMIC_RELAXED);
		rec->seq = j->last + 1;
		__atomic_store_n(&j->last, rec->seq, __ATOMIC_RELEASE);
		claim_slot(st, reply);
		note_worker(j, w);
	}
	lock_drop(&j->claim);
	return err;
}

/* Records of several threads are on their way to the lane: one counts when those before it do. */
static void in_turn(struct pm_journal *j, uint64_t seq)
{
	for (unsigned k = 0; __atomic_load_n(&j->durable, __ATOMIC_ACQUIRE) != seq - 1; k++)
		if (k >= 256)
			sched_yield();
	__atomic_store_n(&j->durable, seq, __ATOMIC_RELEASE);
}

static int append_now(struct pm_store *st, struct pm_rec *rec, struct rec_reply *reply, struct pm_worker *w)
{
	struct pm_stats *count = stats_of(st, w);
	uint64_t at;
	int err = claim(st, rec, reply, w, &at);

	if (err)
		return err;
	seal_slot(reply);
	seal(st->journal, rec);
	med_store(st, at, rec, rec->len);
	med_flush_as(st, count, at, rec->len);
	med_drain_as(st, count);
	if (faults_in(st, at, rec->len))
		journal_fail(st);
	in_turn(st->journal, rec->seq);
	return journal_error(st); /* of this record, or of one before it: replay would end there */
}

int journal_append(struct pm_store *st, struct pm_rec *rec, struct rec_reply *reply, struct pm_worker *w,
                   pm_lsn *lsn)
{
	struct pm_journal *j = st->journal;
	struct pending *p;
	int err = 0;

	if (!media_slow(st)) {
		err = append_now(st, rec, reply, w);
	} else {
		claim_slot(st, reply);
		seal_slot(reply);
		rec->seq = ++j->last; /* sealed by the flusher, who knows what is durable by then */
		p = j->reserved;
		j->reserved = NULL;
		memcpy(&p->rec, rec, rec->len);
		STAILQ_INSERT_TAIL(&j->pending, p, link);
		j->view_dirty = true;
		pthread_cond_signal(&j->work);
	}
	*lsn = rec->seq;
	return err;
}

int journal_sync_first(struct pm_store *st, uint64_t at, size_t len)
{
	struct pm_journal *j = st->journal;

	if (j->nfirst == j->cap_first) {
		size_t cap = j->cap_first ? j->cap_first * 2 : 16;
		struct first *f = realloc(j->first, cap * sizeof(*f));

		if (!f)
			return -ENOMEM;
		j->first = f;
		j->cap_first = cap;
	}
	j->first[j->nfirst++] = (struct first){ at, len };
	/* no record is on its way to these blocks: let the view show the zeros */
	if (madvise(st->media.view + at, len, MADV_DONTNEED))
		memset(st->media.view + at, 0, len); /* pages larger than blocks */
	return 0;
}

/* --- opening --------------------------------------------------------------------------------- */

/* Everything that was replayed durable; then all lanes are empty. */
static int begin_anew(struct pm_store *st, const struct replay *r)
{
	struct pm_journal *j = st->journal;
	int err = 0;

	memcpy(j->copy, r->copy, sizeof(j->copy));
	j->ckpt = j->durable = j->last = st->super.boot << 40;
	if (media_slow(st) && st->info.replayed)
		err = med_sync(st, 0, st->media.len);
	else if (!media_slow(st))
		med_drain(st);
	if (!err)
		err = write_head(st, 0, j->ckpt);
	for (unsigned i = 1; i < st->super.lanes && !err; i++)
		if (r->bad[i])
			err = write_head(st, i, j->ckpt);
	return err;
}

/*
 * All pages of the lanes mapped, and there in a sparse pool: else the first record in each page waits until it is, for longer
 * than all the rest of its call takes. A kernel that cannot (before Linux 5.14) leaves it at that.
 */
static void lanes_populate(struct pm_store *st)
{
	size_t at = lane_at(st, 0), len = lane_at(st, st->super.lanes) - at;

	if (!media_slow(st)) /* there pages that nobody changed would be written back */
		madvise(st->media.base + at, len, MADV_POPULATE_WRITE);
}

static int recover(struct pm_store *st, struct pm_error *why)
{
	struct replay r;
	int err = replay_lanes(st, &r, why);

	if (err || st->read_only)
		return err;
	err = begin_anew(st, &r);
	if (err)
		why_set(why, "recovery could not be made durable: %s", strerror(-err));
	else
		lanes_populate(st);
	return err;
}

int journal_open(struct pm_store *st, struct pm_error *why)
{
	struct pm_journal *j = aligned_alloc(_Alignof(struct pm_journal), sizeof(*j));
	int err;

	if (!j)
		return -ENOMEM;
	*j = (struct pm_journal){ .err = 0 };
	j->area = lane_area(st);
	j->mute = st->media.method == PM_VOLATILE;
	j->seed = rec_seed(&st->super);
	STAILQ_INIT(&j->pending);
	STAILQ_INIT(&j->jobs);
	pthread_cond_init(&j->work, NULL);
	st->journal = j;
	err = recover(st, why);
	if (err)
		journal_free(st);
	return err;
}

/* --- the flusher ----------------------------------------------------------------------------- */

/* Flusher, no lock: in place is durable up to what was written so far. */
static int flusher_checkpoint(struct pm_store *st)
{
	struct pm_journal *j = st->journal;
	pm_lsn upto = j->durable; /* only this thread moves it */
	int err = med_sync(st, 0, st->media.len);

	if (!err)
		err = write_head(st, j->lane, upto);
	if (err)
		return err;
	next_lane(st);
	store_lock(st);
	j->ckpt = upto;
	j->want_ckpt = false;
	alloc_release(st);
	if (j->view_dirty && STAILQ_EMPTY(&j->pending) && j->last == j->durable) {
		madvise(st->media.view, st->media.len, MADV_DONTNEED);
		j->view_dirty = false;
	}
	store_unlock(st);
	return 0;
}

/* Flusher, no lock: as many of @batch as the lane holds, synced and applied. */
static int flush_some(struct pm_store *st, struct pendings *batch)
{
	struct pm_journal *j = st->journal;
	struct pending *p, *stop = NULL;
	uint64_t from = lane_at(st, j->lane) + PM_BLOCK + j->head;
	uint64_t to = from, seq = j->durable;
	int err;

	STAILQ_FOREACH (p, batch, link) {
		if (j->head + p->rec.len > j->area) {
			stop = p;
			break;
		}
		to = put_record(st, &p->rec) + p->rec.len;
		seq = p->rec.seq;
	}
	if (to == from)
		return flusher_checkpoint(st); /* full: go on in the next lane */
	err = med_sync(st, from, to - from);
	if (!err && faults_in(st, from, to - from))
		err = -EIO;
	if (err)
		return err;
	while ((p = STAILQ_FIRST(batch)) != stop) {
		rec_apply(st, &p->rec);
		STAILQ_REMOVE_HEAD(batch, link);
		free(p);
	}
	pthread_mutex_lock(&st->lock);
	j->durable = seq;
	alloc_release(st);
	pthread_mutex_unlock(&st->lock);
	return 0;
}

static int flush_batch(struct pm_store *st, struct pendings *batch, const struct first *first,
                       size_t nfirst)
{
	int err = 0;

	for (size_t i = 0; i < nfirst && !err; i++)
		err = med_sync(st, first[i].at, first[i].len);
	while (!err && !STAILQ_EMPTY(batch))
		err = flush_some(st, batch);
	return err;
}

static void drop_all(struct pendings *batch)
{
	struct pending *p;

	while ((p = STAILQ_FIRST(batch))) {
		STAILQ_REMOVE_HEAD(batch, link);
		free(p);
	}
}

/* No record can follow one that was lost: the store refuses changes from here on. */
static void fail(struct pm_store *st, int err)
{
	pthread_mutex_lock(&st->lock);
	if (!st->journal->err)
		st->journal->err = -EIO;
	st->journal->want_ckpt = false;
	drop_all(&st->journal->pending);
	pthread_mutex_unlock(&st->lock);
	super_new_verf(st);
	store_log(st, 2,
	          "the journal could not be flushed (%s): no more changes until the pool is opened "
	          "again",
	          strerror(-err));
}

static void sync_data(struct pm_store *st, struct pm_job *job)
{
	job->err = st->journal->err;
	for (unsigned i = 0; i < job->ndata && !job->err; i++) {
		uint64_t at = (uint64_t)((uint8_t *)job->data[i].iov_base - st->media.base);

		if (med_sync(st, at, job->data[i].iov_len))
			job->err = -EIO;
	}
	if (job->err)
		super_new_verf(st);
}

static void run_jobs(struct pm_store *st, struct jobs *jobs)
{
	struct pm_job *job;

	STAILQ_FOREACH (job, jobs, link)
		sync_data(st, job);
	STAILQ_FOREACH (job, jobs, link)
		job->lsn = job->fn(job, job->err);
}

/* Waiters whose fate is known once @upto is reached, oldest first is not promised. */
static struct pm_wait *ripe(struct pm_journal *j, struct pm_wait **pw, pm_lsn upto)
{
	struct pm_wait *out = NULL;

	while (*pw) {
		struct pm_wait *w = *pw;

		if (w->arg > upto && !j->err) {
			pw = &w->next;
			continue;
		}
		*pw = w->next;
		w->next = out;
		out = w;
	}
	return out;
}

static void wake(struct pm_store *st, struct jobs *jobs)
{
	struct pm_journal *j = st->journal;
	struct pm_wait *w, *space;
	struct pm_job *job;
	pm_lsn durable;
	int err;

	pthread_mutex_lock(&st->lock);
	w = ripe(j, &j->waiters, j->durable);
	space = ripe(j, &j->short_of, j->ckpt);
	if (j->short_of) /* what they wait for came after this round began */
		j->want_ckpt = true;
	durable = j->durable;
	err = j->err;
	pthread_mutex_unlock(&st->lock);
	while (w) {
		struct pm_wait *next = w->next;

		w->done(w, w->arg <= durable ? 0 : err);
		w = next;
	}
	while (space) { /* they find out by themselves what has become of it */
		struct pm_wait *next = space->next;

		space->done(space, 0);
		space = next;
	}
	while ((job = STAILQ_FIRST(jobs))) {
		STAILQ_REMOVE_HEAD(jobs, link); /* done may free it */
		if (!job->err && job->lsn > durable)
			job->err = err ? err : -EIO;
		job->done(job, job->err);
	}
}

static bool checkpoint_due(struct pm_store *st)
{
	struct pm_journal *j = st->journal;
	bool due;

	pthread_mutex_lock(&st->lock);
	due = !j->err && (j->want_ckpt || j->head > j->area / 2 || alloc_low(st));
	pthread_mutex_unlock(&st->lock);
	return due;
}

/* One round: everything queued when it starts. False: stopped, and nothing was left. */
static bool flusher_round(struct pm_store *st)
{
	struct pm_journal *j = st->journal;
	struct jobs jobs = STAILQ_HEAD_INITIALIZER(jobs);
	struct pendings batch = STAILQ_HEAD_INITIALIZER(batch);
	struct first *first;
	size_t nfirst;
	int err;

	pthread_mutex_lock(&st->lock);
	while (STAILQ_EMPTY(&j->pending) && STAILQ_EMPTY(&j->jobs) && !j->stop && !j->want_ckpt)
		pthread_cond_wait(&j->work, &st->lock);
	if (j->stop && STAILQ_EMPTY(&j->pending) && STAILQ_EMPTY(&j->jobs)) {
		pthread_mutex_unlock(&st->lock);
		return false;
	}
	STAILQ_CONCAT(&jobs, &j->jobs);
	pthread_mutex_unlock(&st->lock);

	run_jobs(st, &jobs);

	pthread_mutex_lock(&st->lock);
	STAILQ_CONCAT(&batch, &j->pending);
	first = j->first;
	nfirst = j->nfirst;
	j->first = NULL;
	j->nfirst = j->cap_first = 0;
	pthread_mutex_unlock(&st->lock);

	err = j->err ? 0 : flush_batch(st, &batch, first, nfirst);
	free(first);
	drop_all(&batch);
	/* before the waiters hear: what their calls freed is free then */
	if (!err && checkpoint_due(st))
		err = flusher_checkpoint(st);
	if (err)
		fail(st, err);
	wake(st, &jobs);
	return true;
}

static void *flusher_main(void *arg)
{
	struct pm_store *st = arg;

	while (flusher_round(st))
		;
	return NULL;
}

void flusher_add(struct pm_store *st, struct pm_job *job)
{
	pthread_mutex_lock(&st->lock);
	STAILQ_INSERT_TAIL(&st->journal->jobs, job, link);
	pthread_cond_signal(&st->journal->work);
	pthread_mutex_unlock(&st->lock);
}

int pm_durable(struct pm_store *st, pm_lsn lsn, struct pm_wait *w)
{
	struct pm_journal *j = st->journal;
	int err = 0;

	if (!media_slow(st)) /* durable before anybody sees it */
		return 0;
	pthread_mutex_lock(&st->lock);
	if (lsn == PM_LSN_SEEN)
		lsn = j->last;
	if (lsn > j->durable) {
		err = j->err;
		if (!err) {
			w->arg = lsn;
			w->next = j->waiters;
			j->waiters = w;
			err = -EINPROGRESS;
		}
	}
	pthread_mutex_unlock(&st->lock);
	return err;
}

int journal_start(struct pm_store *st)
{
	struct pm_journal *j = st->journal;
	int err;

	if (!media_slow(st) || st->read_only)
		return 0;
	err = pthread_create(&j->thread, NULL, flusher_main, st);
	j->running = !err;
	return -err;
}

static void end_thread(struct pm_store *st, bool drop)
{
	struct pm_journal *j = st->journal;

	if (!j->running)
		return;
	pthread_mutex_lock(&st->lock);
	if (drop)
		drop_all(&j->pending);
	j->stop = true;
	pthread_cond_signal(&j->work);
	pthread_mutex_unlock(&st->lock);
	pthread_join(j->thread, NULL);
	j->running = false;
}

void journal_drop(struct pm_store *st)
{
	end_thread(st, true);
}

int journal_stop(struct pm_store *st)
{
	struct pm_journal *j = st->journal;
	int err;

	if (st->read_only)
		return 0;
	end_thread(st, false);
	if (j->err)
		return j->err;
	if (media_slow(st)) {
		err = flusher_checkpoint(st);
		if (err) {
			j->err = -EIO;
			return -EIO;
		}
		return 0;
	}
	store_lock(st);
	checkpoint_now(st);
	store_unlock(st);
	return 0;
}

void journal_free(struct pm_store *st)
{
	struct pm_journal *j = st->journal;

	if (!j)
		return;
	drop_all(&j->pending);
	free(j->reserved);
	pthread_cond_destroy(&j->work);
	free(j->first);
	free(j);
	st->journal = NULL;
}
