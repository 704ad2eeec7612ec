/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies behind the end of file costs nothing each time something is done there: steps into a file's tree are
 * counted (the linker leads the calls through here) while a file grows, and the second half may cost little more
 * than the first. What an interrupted change left there is nevertheless found.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define B     PM_BLOCK
#define STEPS 600u

static const struct pm_id root = { PM_ROOT_INO, 1 };
static struct test_pool pool;
static uint64_t steps;

int __real_ext_find(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk, struct ext *e);
int __wrap_ext_find(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk, struct ext *e);
int __wrap_ext_find(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk, struct ext *e)
{
	steps++;
	return __real_ext_find(st, tx, in, lblk, e);
}

int __real_bt_next(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, struct bt_cursor *c);
int __wrap_bt_next(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, struct bt_cursor *c);
int __wrap_bt_next(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, struct bt_cursor *c)
{
	steps++;
	return __real_bt_next(st, tx, in, c);
}

int __real_bt_walk(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, bool leaves,
                   int (*fn)(void *arg, uint64_t blk, const struct pm_bnode *node), void *arg);
int __wrap_bt_walk(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, bool leaves,
                   int (*fn)(void *arg, uint64_t blk, const struct pm_bnode *node), void *arg);
int __wrap_bt_walk(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, bool leaves,
                   int (*fn)(void *arg, uint64_t blk, const struct pm_bnode *node), void *arg)
{
	steps += in->u.tree.count;
	return __real_bt_walk(st, tx, in, leaves, fn, arg);
}

static void setup(void)
{
	pool_new(&pool, "trim", 64ull << 20, PM_CLWB);
}
static void teardown(void)
{
	struct pm_check_report r;
	struct pm_error why;

	pool_close(&pool);
	cr_assert_eq(pm_check(pool.path, NULL, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
	pool_drop(&pool);
}
TestSuite(trim, .init = setup, .fini = teardown);

static struct pm_id make(void)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_change ch;

	cr_assert_eq(pm_create(pool.st, root, "file", 4, &nw, &ch), 0);
	return ch.obj.id;
}

static void reserve(struct pm_id id, unsigned i) /* every other block: none joins the one before */
{
	struct pm_change ch;

	cr_assert_eq(pm_allocate(pool.st, id, (uint64_t)i * 2 * B, B, &ch), 0);
}

static void append(struct pm_id id, unsigned i)
{
	struct test_waiter w;
	struct pm_committed c;
	struct pm_map m;

	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_map_write(pool.st, id, (uint64_t)i * B, B, &m, &w.w)), 0);
	for (unsigned k = 0; k < m.nseg; k++)
		memset(m.seg[k].iov_base, 'w', m.seg[k].iov_len);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_commit(&m, B, PM_FILE_SYNC, true, &c, &w.w)), 0);
	pm_unpin(&m);
}

static void grow(struct pm_id id, unsigned i)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = (uint64_t)i * 2 + 1 };
	struct pm_change ch;

	cr_assert_eq(pm_setattr(pool.st, id, &sa, &ch), 0);
}

/* The steps that STEPS calls take; the @second half of them. */
static uint64_t cost(struct pm_id id, void (*act)(struct pm_id id, unsigned i), uint64_t *second)
{
	uint64_t from = steps, half = 0;

	for (unsigned i = 0; i < STEPS; i++) {
		if (i == STEPS / 2)
			half = steps;
		act(id, i);
	}
	*second = steps - half;
	return steps - from;
}

static void is_linear(struct pm_id id, void (*act)(struct pm_id id, unsigned i), uint64_t at_once)
{
	uint64_t second = 0, all = cost(id, act, &second), first = all - second;

	cr_assert_leq(second, first + first / 4, "%llu steps, then %llu", (unsigned long long)first,
	              (unsigned long long)second);
	cr_assert_leq(all, 12 * STEPS + at_once, "%llu steps for %u calls", (unsigned long long)all, STEPS);
}

Test(trim, reserving_in_small_steps_is_linear)
{
	is_linear(make(), reserve, 0);
}

Test(trim, reserving_after_a_reopen_looks_once)
{
	struct pm_id id = make();
	uint64_t second;

	cost(id, reserve, &second);
	pool_close(&pool);
	pool_open(&pool, PM_CLWB);
	cost(id, reserve, &second); /* what is there already; some look at all of it once */
	is_linear(id, reserve, STEPS);
}

Test(trim, appending_into_reserved_blocks_is_linear)
{
	struct pm_id id = make();
	uint64_t second;

	cost(id, reserve, &second);
	is_linear(id, append, STEPS);
}

Test(trim, growing_in_front_of_reserved_blocks_is_linear)
{
	struct pm_id id = make();
	uint64_t second;

	cost(id, reserve, &second);
	is_linear(id, grow, STEPS);
}

/* --- what an interrupted change left --- */

#define WIDE 3000u /* blocks, of which every other one is reserved: extents for two transactions */

/* The last leaf of a file's tree, by its place in the view. */
static int note_leaf(void *arg, uint64_t blk, const struct pm_bnode *node)
{
	(void)node;
	*(uint64_t *)arg = blk;
	return 0;
}

static struct pm_bnode *last_leaf(struct pm_id id)
{
	uint64_t blk = 0;

	cr_assert_eq(bt_walk(pool.st, NULL, ino_at(pool.st, id.ino), true, note_leaf, &blk), 0);
	return blk_ptr(pool.st, blk);
}

static int set_size(struct pm_id id, uint64_t size)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = size };
	struct pm_change ch;

	return pm_setattr(pool.st, id, &sa, &ch);
}

static struct pm_id comb(void)
{
	struct pm_id id = make();

	for (unsigned i = 0; i < WIDE / 2; i++)
		reserve(id, i);
	return id;
}

static int write_wide(struct pm_id id, struct pm_bnode *broken)
{
	struct test_waiter w;
	struct pm_committed c;
	struct pm_map m;
	int err;

	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_map_write(pool.st, id, 0, WIDE * B, &m, &w.w)), 0);
	for (unsigned k = 0; k < m.nseg; k++)
		memset(m.seg[k].iov_base, 'w', m.seg[k].iov_len);
	if (broken)
		broken->owner++;
	waiter_init(&w);
	err = waiter_result(&w, pm_commit(&m, m.len, PM_FILE_SYNC, true, &c, &w.w));
	pm_unpin(&m);
	if (broken)
		broken->owner--;
	return err;
}

static unsigned written(struct pm_id id)
{
	static struct pm_extent ext[WIDE];
	unsigned n, valid = 0;

	cr_assert_eq(pm_extents(pool.st, id, 0, ext, WIDE, &n), 0);
	for (unsigned i = 0; i < n; i++)
		valid += ext[i].state == PM_EXT_VALID;
	return valid;
}

Test(trim, what_a_write_that_failed_half_way_left_is_cut_off)
{
	struct pm_id id = comb(); /* looked at, and nothing found */

	cr_assert_eq(write_wide(id, last_leaf(id)), -EIO);
	cr_assert_gt(written(id), 0, "nothing is left there: this proves nothing");
	cr_assert_eq(set_size(id, WIDE * B), 0);
	cr_assert_eq(written(id), 0);
}

Test(trim, what_a_truncate_that_failed_half_way_left_is_cut_off)
{
	struct pm_id id = comb();
	struct pm_bnode *leaf;

	cr_assert_eq(set_size(id, WIDE * B), 0);
	for (unsigned i = 0; i < WIDE; i += 2)
		append(id, i);
	leaf = last_leaf(id);
	leaf->owner++;
	cr_assert_eq(set_size(id, 1), 0, "the first transaction moves the size");
	leaf->owner--;
	cr_assert_gt(written(id), 1, "nothing is left there: this proves nothing");
	cr_assert_eq(set_size(id, WIDE * B), 0);
	cr_assert_eq(written(id), 1);
}
