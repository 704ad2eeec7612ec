/* SPDX-License-Identifier: BSD-3-Clause */
/* test_workers.c - threads in the store at the same time; test/stress/pool.c does the same under ThreadSanitizer */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "test/lib/pool.h"
#include "test/lib/stress.h"

static void stress(struct stress s)
{
	for (unsigned round = 0; round < 4; round++) {
		s.seed += 100;
		cr_assert(stress_run(&s), "seed %llu: %s", (unsigned long long)s.seed, s.why);
	}
}

Test(workers, two_threads_see_what_they_wrote)
{
	stress((struct stress){ .method = PM_CLWB, .threads = 2, .steps = 4000 });
}

Test(workers, more_threads_than_cores)
{
	stress((struct stress){ .method = PM_CLWB, .threads = 7, .steps = 1000, .seed = 1 });
}

Test(workers, stores_in_the_persistence_domain)
{
	stress((struct stress){ .method = PM_FENCE, .threads = 3, .steps = 2000, .seed = 2 });
}

Test(workers, with_checksums_of_data)
{
	stress((struct stress){ .method = PM_CLWB, .threads = 2, .steps = 4000, .seed = 3, .sums = true });
}

Test(workers, with_checksums_more_threads_than_cores)
{
	stress((struct stress){ .method = PM_FENCE, .threads = 4, .steps = 1500, .seed = 4, .sums = true });
}

/* --- a name that comes and goes --------------------------------------------------------------- */

#define TIMES 20000u

struct flicker {
	struct pm_store *st;
	struct pm_id last; /* what the name led to, or leads to */
	uint32_t over;     /* atomic */
	int err;
};

static void *come_and_go(void *arg)
{
	struct pm_id root = { PM_ROOT_INO, 1 };
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct flicker *f = arg;
	struct pm_change ch;
	int err = 0;

	for (unsigned i = 0; i < TIMES && !err; i++) {
		err = pm_create(f->st, root, "x", 1, &nw, &ch);
		if (!err)
			err = pm_remove(f->st, root, "x", 1, &ch);
	}
	f->err = err;
	__atomic_store_n(&f->over, 1, __ATOMIC_RELEASE);
	return NULL;
}

static int look(struct flicker *f)
{
	struct pm_attr at;
	int err = pm_lookup(f->st, (struct pm_id){ PM_ROOT_INO, 1 }, "x", 1, &at);

	if (!err)
		f->last = at.id;
	if (err && err != -ENOENT)
		return err;
	err = f->last.ino ? pm_getattr(f->st, f->last, &at) : 0;
	return err == -ESTALE ? 0 : err;
}

Test(workers, a_name_that_comes_and_goes_is_there_or_not)
{
	struct flicker f = { .over = 0 };
	struct test_pool pool;
	pthread_t th;
	int err = 0;

	pool_new(&pool, "flicker", PM_MIN_SIZE, PM_CLWB);
	f.st = pool.st;
	cr_assert_eq(pthread_create(&th, NULL, come_and_go, &f), 0);
	while (!err && !__atomic_load_n(&f.over, __ATOMIC_ACQUIRE))
		err = look(&f);
	pthread_join(th, NULL);
	cr_expect_eq(f.err, 0, "create or remove: %s", strerror(-f.err));
	cr_expect_eq(err, 0, "lookup: %s", strerror(-err));
	pool_drop(&pool);
}

/* --- an inode that somebody keeps while its directory is read ---------------------------------- */

#define ENTRIES 20u

static void *come_once(void *arg)
{
	struct pm_attr a;

	pm_getattr(arg, (struct pm_id){ PM_ROOT_INO, 1 }, &a);
	return NULL;
}

struct shown {
	unsigned times[ENTRIES], dots;
};

static bool note_entry(void *arg, const struct pm_dirent *de)
{
	struct shown *s = arg;

	cr_expect_not_null(de->attr, "%.*s has no attributes", (int)de->len, de->name);
	if (de->name[0] == '.')
		s->dots++;
	else
		s->times[de->name[0] - 'a']++;
	return true;
}

Test(workers, a_directory_is_read_on_alone_behind_an_inode_that_is_kept)
{
	struct pm_id root = { PM_ROOT_INO, 1 }, id[ENTRIES];
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct test_pool pool;
	struct pm_change ch;
	pthread_t th;

	pool_new(&pool, "kept", PM_MIN_SIZE, PM_CLWB);
	for (unsigned i = 0; i < ENTRIES; i++) {
		char name = (char)('a' + i);

		cr_assert_eq(pm_create(pool.st, root, &name, 1, &nw, &ch), 0);
		id[i] = ch.obj.id;
	}
	cr_assert_eq(pthread_create(&th, NULL, come_once, pool.st), 0); /* not the only one any more */
	pthread_join(th, NULL);
	for (unsigned k = 0; k < ENTRIES; k++) {
		struct pm_lock *kept = &ino_slot(pool.st, id[k].ino)->lock;
		struct shown s = { .dots = 0 };
		bool eof = false;

		cr_assert(lock_try(kept));
		cr_assert_eq(pm_readdir(pool.st, root, 0, true, note_entry, &s, &eof), 0);
		lock_drop(kept);
		cr_expect(eof);
		cr_expect_eq(s.dots, 2);
		for (unsigned i = 0; i < ENTRIES; i++)
			cr_expect_eq(s.times[i], 1, "'%c' was shown %u times", (char)('a' + i), s.times[i]);
	}
	pool_drop(&pool);
}

/* --- a call that comes twice at the same time ------------------------------------------------- */

#define REPEATS 4000u

struct caller {
	struct pm_store *st;
	unsigned *round, *done; /* shared; atomic: callers that have come to a round, and calls carried out */
	int err;
};

/* Every call as soon as the other one is there, too. */
static void *call_again(void *arg)
{
	struct pm_id root = { PM_ROOT_INO, 1 };
	struct pm_new nw = { .type = PM_FIFO, .mode = 0600 };
	struct caller *c = arg;
	struct pm_change ch;

	for (unsigned i = 0; i < REPEATS; i++) {
		struct pm_once once = { .tag = 1 };
		char name[16];
		int len = snprintf(name, sizeof(name), "%u", i), err;

		memcpy(once.key, &i, sizeof(i));
		__atomic_fetch_add(c->round, 1, __ATOMIC_ACQ_REL);
		for (unsigned k = 0; __atomic_load_n(c->round, __ATOMIC_ACQUIRE) < 2 * (i + 1); k++)
			if (k > 1000)
				sched_yield();
		err = pm_create_once(c->st, root, name, (size_t)len, &nw, &once, &ch);
		if (!err)
			__atomic_fetch_add(c->done, 1, __ATOMIC_RELAXED);
		else if (err != -EALREADY && !c->err)
			c->err = err;
	}
	return NULL;
}

Test(workers, a_call_made_by_two_is_carried_out_once)
{
	unsigned round = 0, done = 0;
	struct test_pool pool;
	struct caller c[2];
	pthread_t th[2];

	pool_new(&pool, "twice", PM_MIN_SIZE, PM_CLWB);
	for (unsigned k = 0; k < 2; k++) {
		c[k] = (struct caller){ .st = pool.st, .round = &round, .done = &done };
		cr_assert_eq(pthread_create(&th[k], NULL, call_again, &c[k]), 0);
	}
	for (unsigned k = 0; k < 2; k++) {
		pthread_join(th[k], NULL);
		cr_expect_eq(c[k].err, 0, "thread %u: %s", k, strerror(-c[k].err));
	}
	cr_expect_eq(done, REPEATS);
	pool_drop(&pool);
}

/* --- files that grow at the same time -------------------------------------------------------- */

#define BLOCKS 60u

struct grower {
	struct pm_store *st;
	struct pm_id id;
	pthread_barrier_t *step;
	unsigned no;
	int err;
};

/* Block by block, in turns. */
static void *grow(void *arg)
{
	struct grower *g = arg;

	for (unsigned i = 0; i < 2 * BLOCKS; i++) {
		struct pm_wait w = { .done = NULL };
		struct pm_committed out;
		struct pm_map m;

		pthread_barrier_wait(g->step);
		if (i % 2 != g->no || g->err)
			continue;
		g->err = pm_map_write(g->st, g->id, (uint64_t)i / 2 * PM_BLOCK, PM_BLOCK, &m, &w);
		if (g->err)
			continue;
		g->err = pm_commit(&m, PM_BLOCK, PM_FILE_SYNC, false, &out, &w);
		pm_unpin(&m);
	}
	return NULL;
}

Test(workers, files_that_grow_together_stay_in_one_piece)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct grower g[2] = { { .no = 0 }, { .no = 1 } };
	pthread_barrier_t step;
	struct test_pool pool;
	pthread_t th[2];

	pool_new(&pool, "grow", 1ull << 30, PM_CLWB); /* several groups of blocks */
	pthread_barrier_init(&step, NULL, 2);
	for (unsigned k = 0; k < 2; k++) {
		struct pm_change ch;

		cr_assert_eq(pm_create(pool.st, (struct pm_id){ PM_ROOT_INO, 1 }, k ? "b" : "a", 1, &nw, &ch), 0);
		g[k].st = pool.st;
		g[k].id = ch.obj.id;
		g[k].step = &step;
	}
	for (unsigned k = 0; k < 2; k++)
		cr_assert_eq(pthread_create(&th[k], NULL, grow, &g[k]), 0);
	for (unsigned k = 0; k < 2; k++)
		pthread_join(th[k], NULL);
	for (unsigned k = 0; k < 2; k++) {
		struct pm_extent e[BLOCKS];
		unsigned n = 0;

		cr_assert_eq(g[k].err, 0);
		cr_assert_eq(pm_extents(pool.st, g[k].id, 0, e, BLOCKS, &n), 0);
		cr_expect_leq(n, 2, "file %u is in %u pieces", k, n);
	}
	pthread_barrier_destroy(&step);
	pool_drop(&pool);
}
