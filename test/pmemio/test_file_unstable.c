/* SPDX-License-Identifier: BSD-3-Clause */
/* test_file_unstable.c - UNSTABLE data: readable at once, durable after a sync, bounded; and commits that wait for msync */
#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>

#include "test/pmemio/file_ops.h"

TestSuite(file, .init = clwb, .fini = close_clean);
TestSuite(file_msync, .init = msync_, .fini = close_clean);

/* --- unstable --- */

Test(file, unstable_data_is_readable_at_once_and_durable_after_sync)
{
	struct pm_id id = mk("f"), lost = mk("lost");
	uint8_t verf[8], now[8];
	struct pm_committed c;
	struct test_waiter w;
	struct pm_stats stats;

	pm_write_verf(st, verf);
	put(id, 0, 10000, 1, PM_UNSTABLE);
	put(id, 3000, 10000, 2, PM_UNSTABLE);
	put(lost, 0, 10000, 3, PM_UNSTABLE);
	cr_assert_eq(size_of(id), 13000);
	cr_assert(holds(id, 0, 3000, 1));
	cr_assert(holds(id, 3000, 13000, 2));
	pm_get_stats(st, &stats);
	cr_assert_eq(stats.dirty_inodes, 2);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
	cr_assert_eq(c.attr.size, 13000);
	cr_assert_eq(c.stable, PM_FILE_SYNC);
	cr_assert_arr_eq(c.verf, verf, 8);
	pm_get_stats(st, &stats);
	cr_assert_eq(stats.dirty_inodes, 1);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(id), 13000);
	cr_assert(holds(id, 0, 3000, 1));
	cr_assert(holds(id, 3000, 13000, 2));
	cr_assert_eq(size_of(lost), 0);
	pm_write_verf(st, now);
	cr_assert(memcmp(now, verf, 8));
}

Test(file, unstable_data_survives_a_clean_close)
{
	struct pm_id id = mk("f");
	uint8_t verf[8], now[8];

	pm_write_verf(st, verf);
	put(id, 100, 10000, 1, PM_UNSTABLE);
	pool_close(&pool);
	pool_open(&pool, PM_CLWB);
	st = pool.st;
	cr_assert(holds(id, 0, 100, 0));
	cr_assert(holds(id, 100, 10100, 1));
	pm_write_verf(st, now);
	cr_assert_arr_eq(now, verf, 8);
}

Test(file, stable_write_publishes_the_unstable_blocks_it_touches)
{
	struct pm_id id = mk("f");

	put(id, 0, 16384, 1, PM_UNSTABLE);
	put(id, 5000, 100, 2, PM_FILE_SYNC);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(id), 5100);
	cr_assert(holds(id, 0, 4096, 0)); /* never synced: a hole, not stale bytes */
	cr_assert(holds(id, 4096, 5000, 1));
	cr_assert(holds(id, 5000, 5100, 2));
}

Test(file, truncate_of_unstable_data)
{
	struct pm_id id = mk("f");
	uint64_t before = free_blocks();
	struct pm_committed c;
	struct test_waiter w;

	put(id, 0, 40000, 1, PM_UNSTABLE);
	resize(id, 6000);
	cr_assert_eq(free_blocks(), before - 2);
	cr_assert(holds(id, 0, 6000, 1));
	resize(id, 20000);
	cr_assert(holds(id, 6000, 20000, 0));
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
	reopen(PM_CLWB);
	cr_assert(holds(id, 0, 6000, 1));
	cr_assert(holds(id, 6000, 20000, 0));
}

/* 80 MiB in a pool that allows itself 64 of unstable data. */
static void bounded(enum pm_method method)
{
	struct pm_stats s;
	struct pm_id id;
	unsigned tries = 0;

	pool_new(&pool, "bounded", 128 * MIB, method);
	st = pool.st;
	id = mk("f");
	for (unsigned i = 0; i < 80; i++)
		put(id, i * (uint64_t)MIB, MIB, (int)i, PM_UNSTABLE);
	do { /* the flusher may be at it yet */
		pm_get_stats(st, &s);
		usleep(1000);
	} while (s.fresh_blocks > 64 * 256 && ++tries < 10000);
	cr_assert_leq(s.fresh_blocks, 64 * 256);
	for (unsigned i = 0; i < 80; i++)
		cr_assert(holds(id, i * (uint64_t)MIB, (i + 1) * (uint64_t)MIB, (int)i));
	rm("f");
	close_clean();
}

Test(file_big, much_unstable_data_is_settled_unasked)
{
	bounded(PM_CLWB);
}
Test(file_big, much_unstable_data_is_settled_unasked_with_msync)
{
	bounded(PM_MSYNC);
}

/* --- msync --- */

Test(file_msync, stable_commit_waits_for_the_flusher)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int rc;

	cr_assert_eq(map(id, 0, 8192, &m), 0);
	place(&m, 1);
	waiter_init(&w);
	rc = pm_commit(&m, 8192, PM_FILE_SYNC, false, &c, &w.w);
	cr_assert_eq(rc, -EINPROGRESS);
	cr_assert_eq(waiter_result(&w, rc), 0);
	cr_assert_eq(c.stable, PM_FILE_SYNC);
	cr_assert_eq(c.attr.size, 8192);
	pm_unpin(&m);
}

Test(file_msync, unstable_commit_and_sync)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int rc;

	put(id, 0, 100, 1, PM_UNSTABLE); /* the first one notes that there is unstable data */
	cr_assert_eq(map(id, 100, 9000, &m), 0);
	place(&m, 2);
	waiter_init(&w);
	rc = pm_commit(&m, 9000, PM_UNSTABLE, false, &c, &w.w);
	cr_assert_eq(rc, 0);
	cr_assert_eq(waiter_result(&w, rc), 0);
	cr_assert_eq(c.stable, PM_UNSTABLE);
	pm_unpin(&m);
	waiter_init(&w);
	rc = pm_sync_file(st, id, &c, &w.w);
	cr_assert_eq(rc, -EINPROGRESS);
	cr_assert_eq(waiter_result(&w, rc), 0);
	cr_assert_eq(c.attr.size, 9100);
	reopen(PM_MSYNC);
	cr_assert(holds(id, 0, 100, 1));
	cr_assert(holds(id, 100, 9100, 2));
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
}

Test(file_msync, many_commits_at_once)
{
	enum { N = 64 };
	static struct pm_map m[N];
	static struct pm_committed c[N];
	static struct test_waiter w[N];
	struct pm_id id = mk("f");
	int rc[N];

	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(map(id, i * 6000ull, 100, &m[i]), 0);
		place(&m[i], (int)i + 1);
	}
	for (unsigned i = 0; i < N; i++) {
		waiter_init(&w[i]);
		rc[i] = pm_commit(&m[i], 100, PM_FILE_SYNC, true, &c[i], &w[i].w);
	}
	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(waiter_result(&w[i], rc[i]), 0);
		pm_unpin(&m[i]);
	}
	reopen(PM_MSYNC);
	for (unsigned i = 0; i < N; i++) {
		cr_assert(holds(id, i * 6000ull, i * 6000ull + 100, (int)i + 1));
		if (i)
			cr_assert(holds(id, (i - 1) * 6000ull + 100, i * 6000ull, 0));
	}
}
