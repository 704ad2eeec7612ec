/* SPDX-License-Identifier: BSD-3-Clause */
/* test_file_share.c - writers side by side: in one block, and on threads */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "test/pmemio/file_ops.h"

TestSuite(file, .init = clwb, .fini = close_clean);
TestSuite(file_msync, .init = msync_, .fini = close_clean);

/* --- writers side by side --- */

Test(file, writers_share_a_new_block)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 100, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	place(&a, 1);
	place(&b, 2);
	cr_assert_eq(commit(&b, 100, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.attr.size, 300);
	cr_assert_eq(commit(&a, 100, PM_FILE_SYNC, &c), 0);
	pm_unpin(&a);
	pm_unpin(&b);
	cr_assert(holds(id, 0, 100, 1));
	cr_assert(holds(id, 100, 200, 0));
	cr_assert(holds(id, 200, 300, 2));
	cr_assert_eq(c.attr.used, 4096);
}

Test(file, aborted_sharer_leaves_zeros_behind_the_end)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 100, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	place(&a, 1);
	place(&b, 2);
	cr_assert_eq(commit(&a, 100, PM_FILE_SYNC, &c), 0);
	pm_unpin(&b);
	pm_unpin(&a);
	resize(id, 1000);
	cr_assert(holds(id, 0, 100, 1));
	cr_assert(holds(id, 100, 1000, 0));
}

Test(file, aborted_sharer_spares_the_other)
{
	uint64_t before = free_blocks();
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 250, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	place(&b, 2);
	place(&a, 1);
	pm_unpin(&b);
	cr_assert_eq(commit(&a, 250, PM_FILE_SYNC, &c), 0);
	pm_unpin(&a);
	resize(id, 1000);
	cr_assert(holds(id, 0, 250, 1));
	cr_assert(holds(id, 250, 1000, 0));
	resize(id, 0);
	cr_assert_eq(map(id, 0, 250, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	pm_unpin(&a);
	pm_unpin(&b);
	rm("f");
	cr_assert_eq(free_blocks(), before);
}

Test(file, nobody_reads_what_is_not_committed)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_extent x;
	struct pm_map m;
	unsigned n;

	resize(id, 20000);
	cr_assert_eq(map(id, 1000, 15000, &m), 0);
	place(&m, 1);
	cr_assert(holds(id, 0, 20000, 0));
	cr_assert_eq(pm_extents(st, id, 0, &x, 1, &n), 0);
	cr_assert_eq(x.state, PM_EXT_HOLE);
	cr_assert_eq(commit(&m, 15000, PM_FILE_SYNC, &c), 0);
	cr_assert(holds(id, 1000, 16000, 1));
	cr_assert(holds(id, 16000, 20000, 0));
	pm_unpin(&m);
}

Test(file, second_writer_of_a_filling_block_waits_for_commit)
{
	struct flag_wait w = { .w.done = flag_done }, w2 = w;
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 8192, &a), 0);
	place(&a, 1);
	cr_assert_eq(pm_map_write(st, id, 5000, 100, &b, &w.w), -EINPROGRESS);
	cr_assert_eq(pm_map_write(st, id, 8000, 9000, &b, &w2.w), -EINPROGRESS);
	cr_assert_eq(w.calls + w2.calls, 0);
	cr_assert_eq(commit(&a, 8192, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(w.calls, 1);
	cr_assert_eq(w2.calls, 1);
	pm_unpin(&a);
	cr_assert_eq(w.calls, 1);
	put(id, 5000, 100, 2, PM_FILE_SYNC);
	cr_assert(holds(id, 0, 5000, 1));
	cr_assert(holds(id, 5000, 5100, 2));
	cr_assert(holds(id, 5100, 8192, 1));
}

Test(file, second_writer_of_a_filling_block_waits_for_abort)
{
	struct flag_wait w = { .w.done = flag_done };
	struct pm_id id = mk("f");
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 8192, &a), 0);
	place(&a, 1);
	cr_assert_eq(pm_map_write(st, id, 5000, 100, &b, &w.w), -EINPROGRESS);
	pm_unpin(&a);
	cr_assert_eq(w.calls, 1);
	cr_assert_eq(w.err, 0);
	put(id, 5000, 100, 2, PM_FILE_SYNC);
	cr_assert(holds(id, 0, 5000, 0));
	cr_assert(holds(id, 5000, 5100, 2));
}

/* --- threads --- */

#define STRIPE  7000u
#define THREADS 4u
#define SHARED  (STRIPE * THREADS * 8)

struct stripes {
	pthread_t thread;
	struct pm_id id;
	unsigned no;
	uint8_t byte[SHARED]; /* what this thread's stripes hold */
};

/* Random writes inside one's own stripes: blocks are shared with the neighbours. */
static void *write_stripes(void *arg)
{
	struct stripes *t = arg;
	unsigned seed = t->no;

	for (unsigned i = 0; i < 300; i++) {
		uint64_t at = ((unsigned)rand_r(&seed) % 8 * THREADS + t->no) * STRIPE;
		uint32_t from = (unsigned)rand_r(&seed) % STRIPE;
		uint32_t len = 1 + (unsigned)rand_r(&seed) % (STRIPE - from);
		enum pm_stable stable = rand_r(&seed) % 2 ? PM_UNSTABLE : PM_FILE_SYNC;
		struct pm_committed c;
		struct test_waiter w;
		struct pm_map m;

		if (i % 10 == 9) {
			waiter_init(&w);
			cr_assert_eq(waiter_result(&w, pm_sync_file(st, t->id, &c, &w.w)), 0);
		}
		cr_assert_eq(map(t->id, at + from, len, &m), 0);
		if (i % 7 == 6) {
			pm_unpin(&m);
			continue;
		}
		place(&m, (int)(i % 255 + 1));
		cr_assert_eq(commit(&m, len, stable, &c), 0);
		pm_unpin(&m);
		memset(t->byte + at + from, (int)(i % 255 + 1), len);
	}
	return NULL;
}

static void threads(enum pm_method method)
{
	struct stripes *t = calloc(THREADS, sizeof(*t));
	struct pm_id id = mk("f");
	static uint8_t got[SHARED];
	struct pm_committed c;
	struct test_waiter w;
	uint64_t size, at;
	struct pm_map m;

	for (unsigned i = 0; i < THREADS; i++) {
		t[i].id = id;
		t[i].no = i;
		cr_assert_eq(pthread_create(&t[i].thread, NULL, write_stripes, &t[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i].thread, NULL);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
	size = size_of(id);
	reopen(method);
	cr_assert_eq(size_of(id), size);
	cr_assert_eq(pm_map_read(st, id, 0, SHARED, &m), 0);
	cr_assert_eq(m.len, size);
	at = 0;
	for (unsigned i = 0; i < m.nseg; at += m.seg[i++].iov_len)
		memcpy(got + at, m.seg[i].iov_base, m.seg[i].iov_len);
	pm_unpin(&m);
	for (at = 0; at < SHARED; at++)
		cr_assert_eq(got[at], t[at / STRIPE % THREADS].byte[at], "byte %lu",
		             (unsigned long)at);
	free(t);
}

Test(file, threads_write_side_by_side)
{
	threads(PM_CLWB);
}
Test(file_msync, threads_write_side_by_side)
{
	threads(PM_MSYNC);
}
