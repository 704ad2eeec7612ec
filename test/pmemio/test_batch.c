/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_batch.c - commits that end together: what they cost, what they answer, and what comes in between
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

#include "pmemio/core.h"
#include "test/pmemio/file_ops.h"

#define MANY 16u
#define B    PM_BLOCK

static struct pm_batch *batch;

struct joined {
	struct flag_wait w; /* first */
	struct pm_map m;
	struct pm_committed out;
};

static void clwb_batch(void)
{
	clwb();
	cr_assert_eq(pm_batch_make(st, &batch), 0);
}

static void finish(void)
{
	pm_batch_free(batch);
	close_clean();
}

TestSuite(batch, .init = clwb_batch, .fini = finish);

static int join(struct joined *j, enum pm_stable how)
{
	j->w = (struct flag_wait){ .w.done = flag_done };
	return pm_batch_commit(batch, &j->m, j->m.len, how, true, &j->out, &j->w.w);
}

static void join_write(struct joined *j, struct pm_id id, uint64_t off, uint32_t len, int byte)
{
	cr_assert_eq(map(id, off, len, &j->m), 0);
	place(&j->m, byte);
	cr_assert_eq(join(j, PM_FILE_SYNC), -EINPROGRESS);
	cr_assert_eq(j->w.calls, 0);
}

static void ended(struct joined *j, int err)
{
	cr_assert_eq(j->w.calls, 1);
	cr_assert_eq(j->w.err, err);
	pm_unpin(&j->m);
}

static void all_ended(struct joined *j, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ended(&j[i], 0);
}

static struct pm_id mk_nth(unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	return mk(name);
}

struct cost {
	uint64_t drains, transactions;
};
static struct cost since(const struct cost *c)
{
	struct pm_stats s;

	pm_get_stats(st, &s);
	return (struct cost){ s.drains - (c ? c->drains : 0), s.transactions - (c ? c->transactions : 0) };
}

/* The batch ends, for so much. */
static void end_costs(uint64_t drains, uint64_t transactions)
{
	struct cost before = since(NULL), c;

	pm_batch_end(batch);
	c = since(&before);
	cr_assert_eq(c.drains, drains, "%lu drains", (unsigned long)c.drains);
	cr_assert_eq(c.transactions, transactions, "%lu transactions", (unsigned long)c.transactions);
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static bool same_attr(const struct pm_attr *a, const struct pm_attr *b)
{
	return a->id.ino == b->id.ino && a->size == b->size && a->used == b->used && same_time(a->mtime, b->mtime) &&
	       same_time(a->ctime, b->ctime);
}

/* --- what it costs --- */

Test(batch, commits_of_one_file_share_their_drains)
{
	struct pm_id id = mk("f");
	struct joined j[MANY];

	for (unsigned i = 0; i < MANY; i++)
		join_write(&j[i], id, i * B, B, 'a' + (int)i);
	cr_assert_eq(size_of(id), 0);
	end_costs(2, 1);
	all_ended(j, MANY);
	reopen(PM_CLWB);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(holds(id, i * B, (i + 1) * B, 'a' + (int)i));
	cr_assert_eq(size_of(id), MANY * B);
}

Test(batch, commits_of_many_files_share_their_drains)
{
	struct joined j[MANY];
	struct pm_id id[MANY];

	for (unsigned i = 0; i < MANY; i++) {
		id[i] = mk_nth(i);
		join_write(&j[i], id[i], 100, 5000, 'a' + (int)i);
	}
	end_costs(2, 1);
	all_ended(j, MANY);
	reopen(PM_CLWB);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(holds(id[i], 0, 100, 0) && holds(id[i], 100, 5100, 'a' + (int)i));
}

Test(batch, what_lies_side_by_side_is_one_extent)
{
	struct pm_id id = mk("f");
	struct joined j[MANY];
	struct pm_extent e[4];
	unsigned n;

	for (unsigned i = 0; i < MANY; i++)
		join_write(&j[i], id, i * B, B, 'a');
	pm_batch_end(batch);
	all_ended(j, MANY);
	cr_assert_eq(pm_extents(st, id, 0, e, 4, &n), 0);
	cr_assert_eq(n, 1);
	cr_assert_eq(e[0].len, MANY * B);
}

Test(batch, of_one_is_a_commit)
{
	struct pm_id id = mk("f");
	struct joined j;
	struct pm_attr a;

	join_write(&j, id, 0, B, 'a');
	end_costs(2, 1);
	ended(&j, 0);
	cr_assert_eq(pm_getattr(st, id, &a), 0);
	cr_assert(same_attr(&a, &j.out.attr));
	cr_assert_eq(j.out.before.size, 0);
	cr_assert_eq(j.out.stable, PM_FILE_SYNC);
}

Test(batch, that_is_empty_costs_nothing)
{
	end_costs(0, 0);
}

/* More than one transaction takes. */
Test(batch, takes_more_than_a_round)
{
	enum { N = 100 };
	static struct joined j[N];
	struct pm_id id = mk("f"), other = mk("g");

	for (unsigned i = 0; i < N; i++)
		join_write(&j[i], i % 3 ? id : other, i * B, B, 'a' + (int)(i % 26));
	end_costs(4, 2);
	all_ended(j, N);
	for (unsigned i = 0; i < N; i++)
		cr_assert(holds(i % 3 ? id : other, i * B, (i + 1) * B, 'a' + (int)(i % 26)));
}

Test(batch, that_is_full_commits_at_once)
{
	enum { N = 257 };
	static struct joined j[N];
	struct pm_id id = mk("f");

	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(map(id, i * B, B, &j[i].m), 0);
		place(&j[i].m, 'a');
		cr_assert_eq(join(&j[i], PM_FILE_SYNC), i < N - 1 ? -EINPROGRESS : 0);
	}
	cr_assert_eq(j[N - 1].w.calls, 0);
	pm_unpin(&j[N - 1].m);
	pm_batch_end(batch);
	all_ended(j, N - 1);
	cr_assert(holds(id, 0, N * B, 'a'));
}

/* Records of batches fill the lanes as others do. */
Test(batch, goes_on_in_the_next_lane)
{
	struct joined j[MANY];
	struct pm_id id[MANY];
	struct pm_stats s;
	unsigned k = 0;

	for (unsigned i = 0; i < MANY; i++)
		id[i] = mk_nth(i);
	do {
		for (unsigned i = 0; i < MANY; i++)
			join_write(&j[i], id[i], k % 7, 10, 'a' + (int)(k % 26));
		pm_batch_end(batch);
		all_ended(j, MANY);
		pm_get_stats(st, &s);
		cr_assert_lt(++k, 100000);
	} while (s.checkpoints < 4);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(holds(id[i], (k - 1) % 7, (k - 1) % 7 + 10, 'a' + (int)((k - 1) % 26)));
}

/* --- what it answers --- */

Test(batch, answers_of_a_file_follow_each_other)
{
	struct pm_id id = mk("f"), other = mk("g");
	struct joined j[MANY], o;
	struct pm_attr start, now;

	put(id, 0, 10, 'x', PM_FILE_SYNC);
	cr_assert_eq(pm_getattr(st, id, &start), 0);
	for (unsigned i = 0; i < MANY; i++) {
		join_write(&j[i], id, (i ^ 1) * B, 100, 'a');
		if (i == 5)
			join_write(&o, other, 0, 100, 'o');
	}
	pm_batch_end(batch);
	cr_assert_eq(pm_getattr(st, id, &now), 0);
	cr_assert(same_attr(&j[0].out.before, &start));
	cr_assert(same_attr(&j[MANY - 1].out.attr, &now));
	for (unsigned i = 0; i < MANY; i++) {
		cr_assert_geq(j[i].out.attr.size, (i ^ 1) * B + 100);
		cr_assert(later(j[i].out.attr.mtime, j[i].out.before.mtime));
		cr_assert(later(j[i].out.attr.ctime, j[i].out.before.ctime));
		cr_assert(i == 0 || same_attr(&j[i].out.before, &j[i - 1].out.attr));
		cr_assert_eq(j[i].out.stable, PM_FILE_SYNC);
	}
	cr_assert_eq(o.out.before.size, 0);
	cr_assert_eq(o.out.attr.size, 100);
	all_ended(j, MANY);
	ended(&o, 0);
}

Test(batch, answers_bear_the_verifier)
{
	struct pm_id id = mk("f");
	struct joined j[2];
	uint8_t verf[8];

	join_write(&j[0], id, 0, B, 'a');
	join_write(&j[1], id, B, B, 'a');
	pm_batch_end(batch);
	pm_write_verf(st, verf);
	cr_assert_eq(memcmp(verf, j[0].out.verf, 8), 0);
	cr_assert_eq(memcmp(verf, j[1].out.verf, 8), 0);
	all_ended(j, 2);
}

Test(batch, what_gains_nothing_is_done_at_once)
{
	struct pm_id id = mk("f");
	struct joined j;

	cr_assert_eq(map(id, 0, B, &j.m), 0);
	place(&j.m, 'u');
	cr_assert_eq(join(&j, PM_UNSTABLE), 0);
	cr_assert_eq(j.out.stable, PM_UNSTABLE);
	cr_assert_eq(join(&j, PM_UNSTABLE), -EINVAL, "committed already");
	pm_unpin(&j.m);
	cr_assert(holds(id, 0, B, 'u'));
}

struct chain {
	struct joined j; /* first */
	struct joined *next;
	struct pm_id id;
};

static void chain_done(struct pm_wait *w, int err)
{
	struct chain *c = (struct chain *)w;

	flag_done(w, err);
	pm_batch_end(batch); /* is under way already */
	cr_assert_eq(c->next->w.calls, 0);
	pm_unpin(&c->j.m);
	join_write(c->next, c->id, B, B, 'b');
}

Test(batch, done_may_join_the_next)
{
	struct pm_id id = mk("f");
	struct joined next = { .w.calls = 0 }, other;
	struct chain c = { .next = &next, .id = id };

	join_write(&c.j, id, 0, B, 'a');
	c.j.w.w.done = chain_done;
	join_write(&other, id, 2 * B, B, 'c');
	pm_batch_end(batch);
	cr_assert_eq(c.j.w.calls, 1);
	ended(&next, 0);
	ended(&other, 0);
	cr_assert(holds(id, 0, B, 'a') && holds(id, B, 2 * B, 'b') && holds(id, 2 * B, 3 * B, 'c'));
}

/* --- what comes in between --- */

Test(batch, a_truncate_in_between_cuts_what_has_joined)
{
	struct pm_id id = mk("f"), other = mk("g"), cut = mk("h");
	struct joined j[5];

	put(id, 0, 100, 'x', PM_FILE_SYNC);
	join_write(&j[4], cut, 0, 2 * B, 'h');
	resize(cut, 50);
	resize(cut, 40);
	join_write(&j[0], id, 0, 2 * B, 'a');
	join_write(&j[1], id, 2 * B, B, 'b');
	join_write(&j[2], other, 0, B, 'o');
	resize(id, 50);
	resize(id, 3 * B);
	join_write(&j[3], id, B + 10, 20, 'd');
	pm_batch_end(batch);
	cr_assert(same_attr(&j[1].out.before, &j[0].out.attr));
	cr_assert(same_attr(&j[3].out.before, &j[1].out.attr));
	all_ended(j, 5);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(cut), 40);
	cr_assert(holds(id, 0, 50, 'a') && holds(id, 50, B + 10, 0));
	cr_assert(holds(id, B + 10, B + 30, 'd') && holds(id, B + 30, 3 * B, 0));
	cr_assert(holds(other, 0, B, 'o'));
}

Test(batch, a_file_removed_in_between_gives_its_blocks_back)
{
	struct pm_id id = mk("f"), other = mk("g");
	uint64_t had = free_blocks();
	struct joined j[3];

	join_write(&j[0], id, 0, 4 * B, 'a');
	join_write(&j[1], id, 4 * B, 4 * B, 'a');
	join_write(&j[2], other, 0, B, 'o');
	rm("f");
	pm_batch_end(batch);
	cr_assert_eq(j[0].out.stable, PM_FILE_SYNC);
	all_ended(j, 3);
	cr_assert_eq(free_blocks(), had - 1);
	cr_assert(holds(other, 0, B, 'o'));
}

Test(batch, writes_that_overlap_may_both_join)
{
	struct pm_id id = mk("f"), fresh = mk("g");
	struct joined j[5];

	put(id, 0, 2 * B, 'x', PM_FILE_SYNC);
	join_write(&j[0], id, 0, B + 100, 'a');
	join_write(&j[1], id, B, B, 'b');
	join_write(&j[2], fresh, 0, 100, 'c'); /* all in one new block */
	join_write(&j[3], fresh, 50, 100, 'd');
	join_write(&j[4], fresh, 1000, 10, 'e');
	end_costs(2, 1);
	all_ended(j, 5);
	reopen(PM_CLWB);
	cr_assert(holds(id, 0, B, 'a') && holds(id, B, 2 * B, 'b'));
	cr_assert(holds(fresh, 0, 50, 'c') && holds(fresh, 50, 150, 'd') && holds(fresh, 150, 1000, 0));
	cr_assert(holds(fresh, 1000, 1010, 'e'));
	cr_assert_eq(size_of(fresh), 1010);
}

Test(batch, a_write_given_up_in_between_takes_back_its_own)
{
	struct pm_id id = mk("f");
	struct joined j[2];
	struct pm_map gone;

	cr_assert_eq(map(id, 200, B, &gone), 0); /* shares the first block, and has one of its own */
	place(&gone, 'g');
	join_write(&j[0], id, 0, 100, 'a');
	join_write(&j[1], id, 100, 100, 'b');
	pm_unpin(&gone);
	pm_batch_end(batch);
	all_ended(j, 2);
	cr_assert_eq(size_of(id), 200);
	resize(id, 2 * B);
	cr_assert(holds(id, 0, 100, 'a') && holds(id, 100, 200, 'b') && holds(id, 200, 2 * B, 0));
}

Test(batch, a_write_placed_in_part_publishes_that)
{
	struct pm_id id = mk("f");
	struct joined j[2];

	put(id, 0, B, 'x', PM_FILE_SYNC);
	join_write(&j[0], id, B, B, 'a');
	cr_assert_eq(map(id, 2 * B, 2 * B, &j[1].m), 0);
	place(&j[1].m, 'b');
	j[1].w = (struct flag_wait){ .w.done = flag_done };
	cr_assert_eq(pm_batch_commit(batch, &j[1].m, 100, PM_FILE_SYNC, false, &j[1].out, &j[1].w.w), -EINPROGRESS);
	pm_batch_end(batch);
	all_ended(j, 2);
	cr_assert_eq(size_of(id), 2 * B + 100);
	resize(id, 4 * B);
	cr_assert(holds(id, 2 * B, 2 * B + 100, 'b') && holds(id, 2 * B + 100, 4 * B, 0));
}

/* What is unstable in the file has its own end of file and times. */
Test(batch, of_a_file_with_unstable_data)
{
	struct pm_id id = mk("f");
	struct joined j[3];

	put(id, 5 * B, 100, 'u', PM_UNSTABLE);
	join_write(&j[0], id, 0, B, 'a');
	join_write(&j[1], id, B, B, 'b');
	put(id, 6 * B, 100, 'v', PM_UNSTABLE);
	join_write(&j[2], id, 5 * B, 50, 'c');
	pm_batch_end(batch);
	cr_assert_eq(j[0].out.before.size, 6 * B + 100);
	cr_assert(same_attr(&j[1].out.before, &j[0].out.attr));
	cr_assert(same_attr(&j[2].out.before, &j[1].out.attr));
	all_ended(j, 3);
	cr_assert(holds(id, 0, B, 'a') && holds(id, B, 2 * B, 'b') && holds(id, 5 * B, 5 * B + 50, 'c'));
	cr_assert(holds(id, 5 * B + 50, 5 * B + 100, 'u') && holds(id, 6 * B, 6 * B + 100, 'v'));
}

Test(batch, leases_hear_of_new_data)
{
	struct pm_lease_opts o = { .owner = &o, .max_extents = 8 };
	struct pm_id id = mk("f"), other = mk("g");
	struct test_waiter w;
	struct pm_lease *l;
	struct joined j[2];
	uint64_t was;

	resize(id, 8 * B);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_lease_open(st, id, 0, 8 * B, B, &o, &l, &w.w)), 0);
	was = pm_lease_generation(l);
	join_write(&j[0], id, 2 * B, B, 'a');
	join_write(&j[1], other, 0, B, 'b');
	cr_assert_eq(pm_lease_generation(l), was);
	pm_batch_end(batch);
	cr_assert_gt(pm_lease_generation(l), was);
	all_ended(j, 2);
	pm_lease_close(l);
}

/* Another write to a new block waits for one that has joined, and is called. */
Test(batch, who_waits_for_a_joined_write_is_woken)
{
	struct flag_wait waits = { .w.done = flag_done };
	struct pm_id id = mk("f");
	struct joined j[2];
	struct pm_map m;

	join_write(&j[0], id, 0, B, 'a');
	join_write(&j[1], id, B, B, 'b');
	cr_assert_eq(pm_map_write(st, id, B + 10, 10, &m, &waits.w), -EINPROGRESS);
	pm_batch_end(batch);
	cr_assert_eq(waits.calls, 1);
	all_ended(j, 2);
	put(id, B + 10, 10, 'c', PM_FILE_SYNC);
	cr_assert(holds(id, B, B + 10, 'b') && holds(id, B + 10, B + 20, 'c') && holds(id, B + 20, 2 * B, 'b'));
}

Test(batch, of_an_owner_with_a_limit)
{
	struct pm_quota q = { .kind = PM_QUOTA_UID, .id = 0, .max_blocks = 2000 }, is;
	struct pm_id id = mk("f"), other = mk("g");
	struct joined j[4];
	uint64_t had;
	pm_lsn lsn;

	cr_assert_eq(pm_quota_set(st, &q, &lsn), 0);
	pm_quota_get(st, PM_QUOTA_UID, 0, &is);
	had = is.blocks;
	for (unsigned i = 0; i < 4; i++)
		join_write(&j[i], i % 2 ? id : other, i * B, B, 'a');
	pm_quota_get(st, PM_QUOTA_UID, 0, &is);
	cr_assert_eq(is.pending, 4);
	end_costs(2, 1);
	pm_quota_get(st, PM_QUOTA_UID, 0, &is);
	cr_assert_eq(is.pending, 0);
	cr_assert_eq(is.blocks, had + 4);
	all_ended(j, 4);
}

TestSuite(batch_fails, .init = clwb_batch);

/* Nothing of what cannot be made durable is shown or answered. */
Test(batch_fails, as_a_whole_when_the_journal_does)
{
	struct pm_id id = mk("f"), other = mk("g");
	uint64_t had = free_blocks();
	struct joined j[3];

	join_write(&j[0], id, 0, B, 'a');
	join_write(&j[1], id, B, B, 'b');
	join_write(&j[2], other, 0, B, 'o');
	store_lock(st);
	journal_fail(st);
	store_unlock(st);
	pm_batch_end(batch);
	cr_assert_eq(size_of(id), 0);
	for (unsigned i = 0; i < 3; i++)
		ended(&j[i], -EIO);
	cr_assert_eq(free_blocks(), had);
	pm_batch_free(batch);
	pool_drop(&pool);
}

/* --- beside others --- */

struct keeper {
	struct pm_id id;
	sem_t has, let_go;
};

/* Keeps an inode. */
static void *keep(void *arg)
{
	struct keeper *k = arg;
	struct pm_worker *w = inode_lock(st, k->id.ino);

	cr_assert_not_null(w);
	sem_post(&k->has);
	sem_wait(&k->let_go);
	inode_unlock(st, w, k->id.ino);
	return NULL;
}

struct freeing {
	struct joined j; /* first */
	struct keeper *k;
};

static void free_done(struct pm_wait *w, int err)
{
	flag_done(w, err);
	sem_post(&((struct freeing *)w)->k->let_go);
}

/* The other files do not wait for one that somebody keeps; of that file nothing is overtaken. */
Test(batch, leaves_what_somebody_keeps_to_the_next_round)
{
	struct pm_id id = mk("f"), kept = mk("g");
	struct keeper k = { .id = kept };
	struct freeing a = { .k = &k };
	struct joined j[4];
	struct cost before, c;
	pthread_t th;

	cr_assert_neq(ino_slot(st, id.ino), ino_slot(st, kept.ino));
	sem_init(&k.has, 0, 0);
	sem_init(&k.let_go, 0, 0);
	join_write(&a.j, id, 0, B, 'a');
	a.j.w.w.done = free_done;
	join_write(&j[0], kept, 0, B, 'b');
	join_write(&j[1], id, B, B, 'c');
	join_write(&j[2], kept, B, B, 'd');
	cr_assert_eq(pthread_create(&th, NULL, keep, &k), 0);
	sem_wait(&k.has);
	before = since(NULL);
	pm_batch_end(batch);
	c = since(&before);
	cr_assert_eq(c.transactions, 2);
	cr_assert_eq(pthread_join(th, NULL), 0);
	ended(&a.j, 0);
	all_ended(j, 3);
	cr_assert(same_attr(&j[2].out.before, &j[0].out.attr));
	cr_assert(holds(id, 0, B, 'a') && holds(id, B, 2 * B, 'c'));
	cr_assert(holds(kept, 0, B, 'b') && holds(kept, B, 2 * B, 'd'));
}

/* --- other methods --- */

static void with(enum pm_method method)
{
	struct pm_id id;
	struct test_waiter w[2];
	struct joined j[2];
	int err[2];

	open_soiled(method);
	cr_assert_eq(pm_batch_make(st, &batch), 0);
	id = mk("f");
	for (unsigned i = 0; i < 2; i++) {
		waiter_init(&w[i]);
		cr_assert_eq(map(id, i * B, B, &j[i].m), 0);
		place(&j[i].m, 'a');
		err[i] = pm_batch_commit(batch, &j[i].m, B, PM_FILE_SYNC, false, &j[i].out, &w[i].w);
	}
	pm_batch_end(batch);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(waiter_result(&w[i], err[i]), 0);
		cr_assert_eq(j[i].out.stable, method == PM_VOLATILE ? PM_UNSTABLE : PM_FILE_SYNC);
		pm_unpin(&j[i].m);
	}
	cr_assert(holds(id, 0, 2 * B, 'a'));
	finish();
}

Test(batch_methods, fence)
{
	with(PM_FENCE);
}

Test(batch_methods, msync)
{
	with(PM_MSYNC);
}

Test(batch_methods, volatile_)
{
	with(PM_VOLATILE);
}
