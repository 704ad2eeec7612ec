/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extents of one file against a shadow array with one entry per block: whatever is put and cut, the
 * file says where each block is, counts them, keeps neighbours joined, and goes from inline to tree
 * and back.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "pmemio/store.h"
#include "test/lib/pool.h"

#define SPAN 3000u

static struct test_pool pool;
static struct pm_store *st;
static const struct pm_inode *in;

struct slot {
	uint64_t pblk;
	bool unwritten;
};
static struct slot shadow[SPAN];

static void setup(void)
{
	struct pm_inode *sh;
	struct pm_tx *tx;
	pm_lsn lsn;

	pool_new(&pool, "extent", 64u << 20, PM_CLWB);
	st = pool.st;
	pthread_mutex_lock(&st->lock);
	tx = tx_begin(st);
	cr_assert_eq(ino_new(tx, PM_REG, &sh), 0);
	sh->nlink = 1;
	in = ino_at(st, sh->ino);
	cr_assert_eq(tx_commit(tx, &lsn), 0);
}

static void teardown(void)
{
	pthread_mutex_unlock(&st->lock);
	pool_drop(&pool);
}

static void put(uint64_t lblk, uint64_t pblk, uint64_t len, bool unwritten)
{
	struct ext e = { lblk, pblk, len, unwritten };
	struct pm_tx *tx = tx_begin(st);
	pm_lsn lsn;

	cr_assert_eq(ext_put(st, tx, in, &e), 0);
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	for (uint64_t i = 0; i < len; i++)
		shadow[lblk + i] = (struct slot){ pblk + i, unwritten };
}

static void seen(void *arg, const struct ext *e)
{
	uint64_t *n = arg;

	for (uint64_t i = 0; i < e->len; i++) {
		cr_assert_eq(shadow[e->lblk + i].pblk, e->pblk + i);
		cr_assert_eq(shadow[e->lblk + i].unwritten, e->unwritten);
	}
	*n += e->len;
}

static void cut(uint64_t lblk, uint64_t len)
{
	struct pm_tx *tx = tx_begin(st);
	uint64_t n = 0, want = 0;
	pm_lsn lsn;

	cr_assert_eq(ext_cut(st, tx, in, lblk, len, seen, &n), 0);
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	for (uint64_t i = lblk; i < SPAN && i - lblk < len; i++) {
		want += shadow[i].pblk != 0;
		shadow[i] = (struct slot){ 0, false };
	}
	cr_assert_eq(n, want);
}

static int count_node(void *arg, uint64_t blk, const struct pm_bnode *node)
{
	(void)blk, (void)node;
	++*(uint64_t *)arg;
	return 0;
}

/* Returns the number of extents. */
static unsigned verify(void)
{
	struct ext e, before = { .len = 0 };
	uint64_t at = 0, blocks = 0, nodes = 0;
	unsigned n = 0;

	while (at < SPAN) {
		int err = ext_find(st, NULL, in, at, &e);

		cr_assert(err == 0 || err == -ENOENT);
		cr_assert_eq(e.lblk, at);
		for (uint64_t i = at; i < e.lblk + e.len && i < SPAN; i++) {
			cr_assert_eq(shadow[i].pblk, err ? 0 : e.pblk + (i - at), "block %lu",
			             (unsigned long)i);
			cr_assert_eq(shadow[i].unwritten, !err && e.unwritten);
		}
		if (!err) {
			cr_assert(!before.len || before.lblk + before.len != e.lblk ||
			                  before.pblk + before.len != e.pblk ||
			                  before.unwritten != e.unwritten,
			          "neighbours at %lu are not joined", (unsigned long)e.lblk);
			before = e;
			blocks += e.len;
			n++;
		}
		at = e.len > SPAN ? SPAN : e.lblk + e.len;
	}
	if (in->flags & PM_IF_TREE) {
		cr_assert_eq(in->u.tree.count, n);
		cr_assert_eq(bt_walk(st, NULL, in, true, count_node, &nodes), 0);
	}
	cr_assert_eq(in->blocks, blocks + nodes);
	return n;
}

Test(extent, find_names_the_hole_and_its_length, .init = setup, .fini = teardown)
{
	uint64_t base = st->super.data_start + 100;
	struct ext e;

	cr_assert_eq(ext_find(st, NULL, in, 7, &e), -ENOENT);
	cr_assert_eq(e.len, UINT64_MAX - 7);
	put(10, base, 5, false);
	cr_assert_eq(ext_find(st, NULL, in, 7, &e), -ENOENT);
	cr_assert_eq(e.lblk, 7);
	cr_assert_eq(e.len, 3);
	cr_assert_eq(ext_find(st, NULL, in, 12, &e), 0);
	cr_assert_eq(e.lblk, 10);
	cr_assert_eq(e.len, 5);
}

Test(extent, appended_runs_are_one_extent, .init = setup, .fini = teardown)
{
	uint64_t base = st->super.data_start + 100;

	for (unsigned i = 0; i < 100; i++)
		put(i, base + i, 1, false);
	cr_assert_eq(verify(), 1);
	put(50, base + 50, 1, true);
	cr_assert_eq(verify(), 3);
	put(50, base + 50, 1, false);
	cr_assert_eq(verify(), 1);
	cut(20, 10);
	cr_assert_eq(verify(), 2);
}

Test(extent, longer_than_one_record, .init = setup, .fini = teardown)
{
	struct ext e = { .lblk = 0, .pblk = 0, .len = 0 };
	struct pm_super was = st->super;
	struct pm_tx *tx = tx_begin(st);

	st->super.blocks = 1ull << 40; /* no block is touched */
	e.pblk = st->super.data_start;
	e.len = 3ull * PM_EXT_MAX_LEN + 5;
	cr_assert_eq(ext_put(st, tx, in, &e), 0);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	cr_assert_eq(in->blocks, e.len);
	cr_assert_eq(ext_find(st, NULL, in, e.len - 1, &e), 0);
	cr_assert_eq(e.len, 5);
	cr_assert_eq(e.pblk, st->super.data_start + 3ull * PM_EXT_MAX_LEN);
	st->super = was;
}

Test(extent, outside_the_pool_is_damage, .init = setup, .fini = teardown)
{
	struct pm_tx *tx = tx_begin(st);
	struct pm_inode *sh = ino_edit(tx, in);
	struct ext e;

	sh->u.ext[0].lblk = 0;
	sh->u.ext[0].len_lo = 10;
	sh->u.ext[0].pblk = (st->super.blocks - 5) & ((1ull << 44) - 1);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	cr_assert_eq(ext_find(st, NULL, in, 3, &e), -EIO);
}

Test(extent, inline_to_tree_and_back, .init = setup, .fini = teardown)
{
	uint64_t base = st->super.data_start + 100;

	for (unsigned i = 0; i < 200; i++) {
		put(i * 2, base + i * 3, 1, i & 1);
		cr_assert_eq(verify(), i + 1);
		cr_assert_eq(!!(in->flags & PM_IF_TREE), i >= PM_INLINE_EXTENTS);
	}
	for (unsigned i = 200; i-- > 3;)
		cut(i * 2, 2);
	cr_assert_eq(verify(), 3);
	cr_assert_eq(in->flags & PM_IF_TREE, 0);
	cut(0, UINT64_MAX);
	cr_assert_eq(verify(), 0);
	cr_assert_eq(in->blocks, 0);
}

Test(extent, random_puts_and_cuts, .init = setup, .fini = teardown)
{
	uint64_t base = st->super.data_start + 100, span = st->super.blocks - base - 100;
	bool was_tree = false, was_back = false;

	srandom(4711);
	for (unsigned i = 0; i < 6000; i++) {
		uint64_t lblk = (uint64_t)random() % (SPAN - 60), len = 1 + (uint64_t)random() % 50;
		long kind = random() % 100, calm = i / 1000 % 2 ? 60 : 20;

		if (kind < calm)
			cut(lblk, random() % 300 ? len * 4 : UINT64_MAX);
		else if (kind % 3 == 0 && lblk && shadow[lblk - 1].pblk &&
		         shadow[lblk - 1].pblk + 60 < st->super.blocks)
			put(lblk, shadow[lblk - 1].pblk + 1, len, shadow[lblk - 1].unwritten);
		else
			put(lblk, base + (uint64_t)random() % span, len, random() % 3 == 0);
		if (i % 8 == 0)
			verify();
		if (in->flags & PM_IF_TREE)
			was_tree = true;
		else if (was_tree)
			was_back = true;
	}
	verify();
	cr_assert(was_tree && was_back);
}
