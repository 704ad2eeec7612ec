/* SPDX-License-Identifier: BSD-3-Clause */
/* test_file_extent.c - extents: reserved, fragmented, very many, left behind by a crash; and the block of a long link */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "test/pmemio/file_ops.h"

TestSuite(file, .init = clwb, .fini = close_clean);
TestSuite(file_msync, .init = msync_, .fini = close_clean);

static void reserved(enum pm_method method)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_extent x[8];
	struct pm_change ch;
	struct pm_map m;
	uint64_t before;
	unsigned n;

	cr_assert_eq(pm_allocate(st, id, 0, 100000, &ch), 0);
	wait_ok(&ch);
	cr_assert_eq(ch.obj.size, 0);
	before = free_blocks();
	resize(id, 100000);
	cr_assert(holds(id, 0, 100000, 0));
	put(id, 10000, 20000, 1, PM_FILE_SYNC);
	cr_assert_eq(map(id, 50000, 20000, &m), 0);
	place(&m, 9);
	cr_assert(holds(id, 30000, 100000, 0));
	pm_unpin(&m);
	cr_assert_eq(map(id, 50000, 20000, &m), 0);
	place(&m, 2);
	cr_assert_eq(commit(&m, 5000, PM_FILE_SYNC, &c), 0);
	pm_unpin(&m);
	cr_assert_eq(free_blocks(), before, "reserved blocks were not used");
	for (int i = 0; i < 2; i++) {
		cr_assert(holds(id, 0, 10000, 0));
		cr_assert(holds(id, 10000, 30000, 1));
		cr_assert(holds(id, 30000, 50000, 0));
		cr_assert(holds(id, 50000, 55000, 2));
		cr_assert(holds(id, 55000, 100000, 0));
		cr_assert_eq(pm_extents(st, id, 0, x, 8, &n), 0);
		cr_assert_eq(n, 5);
		cr_assert_eq(x[0].state, PM_EXT_UNWRITTEN);
		cr_assert_eq(x[1].state, PM_EXT_VALID);
		if (!i)
			reopen(method);
	}
	resize(id, 0);
	cr_assert_eq(pm_extents(st, id, 0, x, 8, &n), 0);
	cr_assert_eq(n, 0);
}

Test(file, reserved_blocks_read_as_zeros_until_written)
{
	reserved(PM_CLWB);
}
Test(file_msync, reserved_blocks_read_as_zeros_until_written)
{
	reserved(PM_MSYNC);
}

Test(file, fragmented_file_is_written_in_one_map)
{
	struct pm_id id = mk("f");
	uint64_t before = free_blocks();
	struct pm_committed c;
	struct pm_map m;

	for (unsigned i = 0; i < 700; i += 2) /* holes of one block each */
		put(id, i * 4096ull, 4096, 1, PM_FILE_SYNC);
	cr_assert_eq(map(id, 0, 700 * 4096, &m), 0);
	place(&m, 2);
	cr_assert_eq(commit(&m, 700 * 4096, PM_FILE_SYNC, &c), 0);
	pm_unpin(&m);
	cr_assert(holds(id, 0, 700 * 4096, 2));
	reopen(PM_CLWB);
	cr_assert(holds(id, 0, 700 * 4096, 2));
	rm("f");
	pool_close(&pool); /* tree nodes come free with the next checkpoint */
	pool_open(&pool, PM_CLWB);
	st = pool.st;
	cr_assert_eq(free_blocks(), before);
}

/* So many extents that cutting them takes several transactions. */
Test(file_big, truncate_and_remove_of_many_extents)
{
	enum { N = 5000 };
	struct pm_extent x[2];
	struct pm_attr a;
	uint64_t before;
	struct pm_id id;
	unsigned n;

	pool_new(&pool, "many", 64 * MIB, PM_CLWB);
	st = pool.st;
	mk("keep");
	id = mk("f");
	before = free_blocks();
	for (unsigned i = N; i-- > 0;)
		put(id, i * 8192ull, 4096, (int)(i % 255 + 1), PM_FILE_SYNC);
	resize(id, 3 * 8192 + 100);
	cr_assert_eq(pm_getattr(st, id, &a), 0);
	cr_assert_eq(a.used, 4 * 4096);
	cr_assert_eq(pm_extents(st, id, a.size + 4096, x, 2, &n), 0);
	cr_assert_eq(n, 0);
	resize(id, N * 8192ull);
	cr_assert(holds(id, 3 * 8192 + 100, 8 * MIB, 0));
	for (unsigned i = N; i-- > 0;)
		put(id, i * 8192ull, 4096, (int)(i % 255 + 1), PM_FILE_SYNC);
	reopen(PM_CLWB);
	cr_assert(holds(id, 4999 * 8192ull, 4999 * 8192ull + 4096, 4999 % 255 + 1));
	rm("f");
	pool_close(&pool);
	check(&pool);
	pool_open(&pool, PM_CLWB);
	st = pool.st;
	cr_assert_eq(free_blocks(), before);
	pool_close(&pool);
	pool_drop(&pool);
}

/* What a crash in the middle of a long truncate leaves. */
static void leave_behind(struct pm_id id, uint64_t lblk)
{
	struct ext e = { .lblk = lblk, .len = 1 };
	const struct pm_inode *in;
	struct blk_run run;
	struct pm_tx *tx;
	int err;

	pthread_mutex_lock(&st->lock);
	in = ino_get(st, id, &err);
	tx = tx_begin(st);
	cr_assert_eq(tx_take(tx, 0, 1, 0, &run), 0);
	e.pblk = run.start;
	memset(data_ptr(st, run.start), STALE, PM_BLOCK);
	cr_assert_eq(ext_put(st, tx, in, &e), 0);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	pthread_mutex_unlock(&st->lock);
}

Test(file, extents_left_behind_the_end_never_come_back)
{
	struct pm_id id = mk("f"), g = mk("g");
	uint64_t before = free_blocks();

	leave_behind(id, 5);
	leave_behind(g, 1);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(id), 0);
	resize(id, 40960);
	cr_assert(holds(id, 0, 40960, 0));
	put(g, 30000, 100, 1, PM_FILE_SYNC);
	cr_assert(holds(g, 0, 30000, 0));
	rm("f");
	rm("g");
	cr_assert_eq(free_blocks(), before);
}

static void long_link(enum pm_method method)
{
	char target[PM_LINK_PATH], got[PM_LINK_PATH];
	struct pm_new nw = { .type = PM_LNK, .target = target, .target_len = sizeof(target) };
	struct pm_change ch;
	size_t len;

	memset(target, 'x', sizeof(target));
	cr_assert_eq(pm_create(st, root, "link", 4, &nw, &ch), 0);
	wait_ok(&ch);
	cr_assert_eq(ch.obj.used, PM_BLOCK);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(pm_readlink(st, ch.obj.id, got, sizeof(got), &len), 0);
		cr_assert_eq(len, sizeof(target));
		cr_assert_arr_eq(got, target, sizeof(target));
		if (!i)
			reopen(method);
	}
	rm("link");
}

Test(file, long_link_target_has_a_block)
{
	long_link(PM_CLWB);
}
Test(file_msync, long_link_target_has_a_block)
{
	long_link(PM_MSYNC);
}
