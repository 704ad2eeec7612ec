/* SPDX-License-Identifier: BSD-3-Clause */
/* test_alloc.c - free space: random use against a shadow map, goals, alignment, the reserve, the
 * waiting queues */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define MIB (1ull << 20)

static uint32_t rnd(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	return *s ^= *s << 5;
}

static uint64_t free_blocks(struct test_pool *p)
{
	struct pm_space sp;

	pm_get_space(p->st, &sp);
	return sp.free_blocks;
}

/* What a brute look at every bit says. */
static uint64_t count_free(struct test_pool *p)
{
	uint64_t n = 0;

	for (uint64_t b = 0; b < p->st->super.blocks; b++)
		n += !blk_marked(p->st, b);
	return n;
}

static uint64_t reserve(struct test_pool *p)
{
	return count_free(p) - free_blocks(p);
}

struct shadow {
	uint8_t *used;
	struct blk_run *run;
	size_t n;
};

static void shadow_take(struct shadow *s, struct test_pool *p, struct blk_run run)
{
	cr_assert(run.len > 0 && run.start >= p->st->super.data_start &&
	          run.start + run.len <= p->st->super.blocks);
	for (uint64_t b = run.start; b < run.start + run.len; b++) {
		cr_assert_not(s->used[b], "block %llu was given twice", (unsigned long long)b);
		s->used[b] = 1;
	}
	s->run[s->n++] = run;
}

/* Give back all or a part of a run; the middle leaves two. */
static void shadow_give(struct shadow *s, struct test_pool *p, uint32_t *seed)
{
	size_t i = rnd(seed) % s->n;
	struct blk_run r = s->run[i];
	uint64_t from = rnd(seed) % 3 ? 0 : rnd(seed) % r.len;
	uint64_t len = rnd(seed) % 3 ? r.len - from : 1 + rnd(seed) % (r.len - from);

	blk_give(p->st, r.start + from, len);
	memset(s->used + r.start + from, 0, len);
	s->run[i] = s->run[--s->n];
	if (from)
		s->run[s->n++] = (struct blk_run){ r.start, from };
	if (from + len < r.len)
		s->run[s->n++] = (struct blk_run){ r.start + from + len, r.len - from - len };
}

static void shadow_agrees(struct shadow *s, struct test_pool *p)
{
	for (uint64_t b = 0; b < p->st->super.blocks; b++)
		cr_assert_eq(s->used[b] != 0, blk_marked(p->st, b), "block %llu",
		             (unsigned long long)b);
}

Test(alloc, agrees_with_a_shadow_map_over_random_use)
{
	struct test_pool p;
	struct shadow s = { .n = 0 };
	uint64_t blocks, res;
	uint32_t seed = 20240607;

	pool_new(&p, "shadow", 320 * MIB, PM_CLWB); /* three groups, the last one short */
	blocks = p.st->super.blocks;
	res = reserve(&p);
	s.used = calloc(1, blocks);
	s.run = calloc(blocks, sizeof(*s.run));
	for (uint64_t b = 0; b < blocks; b++)
		s.used[b] = blk_marked(p.st, b);
	for (unsigned i = 0; i < 30000; i++) {
		struct blk_run run = { 0, 0 };
		uint64_t want = rnd(&seed) % 8 ? 1 + rnd(&seed) % 64 : 1 + rnd(&seed) % 40000;
		uint64_t goal = rnd(&seed) % 2 ? 0 : rnd(&seed) % blocks;
		unsigned flags = rnd(&seed) & (BLK_ALIGN_2M | BLK_META | BLK_WHOLE);
		int err;

		/* now filling up, now emptying */
		if (s.n && rnd(&seed) % 100 < (i / 5000 % 2 ? 60 : 45)) {
			shadow_give(&s, &p, &seed);
			continue;
		}
		err = blk_take(p.st, goal, want, rnd(&seed), flags, &run);
		if (err) {
			cr_assert_eq(err, -ENOSPC);
			cr_assert((flags & BLK_WHOLE) || count_free(&p) <= res,
			          "-ENOSPC with free blocks");
			continue;
		}
		cr_assert(run.len <= want && (!(flags & BLK_WHOLE) || run.len == want));
		shadow_take(&s, &p, run);
	}
	shadow_agrees(&s, &p);
	while (s.n)
		shadow_give(&s, &p, &seed);
	shadow_agrees(&s, &p);
	free(s.used);
	free(s.run);
	pool_drop(&p);
}

Test(alloc, a_free_goal_is_taken_and_the_run_goes_on_to_the_next_used_block)
{
	struct test_pool p;
	struct blk_run a, b;

	pool_new(&p, "goal", 64 * MIB, PM_CLWB);
	cr_assert_eq(blk_take(p.st, 5000, 10, 0, 0, &a), 0);
	cr_assert(a.start == 5000 && a.len == 10);
	cr_assert_eq(blk_take(p.st, 4990, 100, 0, 0, &b), 0);
	cr_assert(b.start == 4990 && b.len == 10, "got %llu+%llu", (unsigned long long)b.start,
	          (unsigned long long)b.len);
	cr_assert_eq(blk_take(p.st, 4980, 100, 0, BLK_WHOLE, &b), 0);
	cr_assert(b.len == 100);
	cr_assert_eq(blk_take(p.st, 5010, 100, 0, BLK_WHOLE, &b), 0);
	cr_assert_eq(b.start, 5010, "a file does not go on where it ended");
	pool_drop(&p);
}

Test(alloc, alignment_is_kept_while_it_can_be)
{
	struct test_pool p;
	struct blk_run run;

	pool_new(&p, "align", 64 * MIB, PM_CLWB);
	for (uint64_t phase = 0; phase < 512; phase += 100) {
		cr_assert_eq(blk_take(p.st, 0, 600, phase, BLK_ALIGN_2M, &run), 0);
		cr_assert_eq(run.start % 512, phase);
		cr_assert_geq(run.len, 512);
	}
	pool_drop(&p);
}

Test(alloc, one_run_may_span_groups)
{
	struct test_pool p;
	struct blk_run run;

	pool_new(&p, "span", 512 * MIB, PM_CLWB);
	cr_assert_eq(blk_take(p.st, 0, 100000, 0, BLK_WHOLE, &run), 0);
	cr_assert_eq(run.len, 100000);
	blk_give(p.st, run.start, run.len);
	cr_assert_eq(blk_take(p.st, 32768 * 2 - 8, 16, 0, BLK_WHOLE, &run), 0);
	cr_assert_eq(run.start, 32768 * 2 - 8);
	pool_drop(&p);
}

Test(alloc, only_metadata_may_use_the_reserve)
{
	struct test_pool p;
	struct blk_run run;
	uint64_t res, n = 0;

	pool_new(&p, "reserve", 16 * MIB, PM_CLWB);
	res = reserve(&p);
	cr_assert_geq(res, 64);
	while (!blk_take(p.st, 0, 100, 0, 0, &run))
		n += run.len;
	cr_assert_eq(count_free(&p), res);
	cr_assert_eq(free_blocks(&p), 0);
	cr_assert_eq(blk_take(p.st, 0, 1, 0, 0, &run), -ENOSPC);
	for (uint64_t i = 0; i < res; i++)
		cr_assert_eq(blk_take(p.st, 0, 1, 0, BLK_META, &run), 0);
	cr_assert_eq(blk_take(p.st, 0, 1, 0, BLK_META, &run), -ENOSPC);
	cr_assert_gt(n, 3000);
	pool_drop(&p);
}

Test(alloc, freed_metadata_waits_for_a_checkpoint_and_shortage_forces_one)
{
	struct test_pool p;
	struct pm_stats a, b;
	struct blk_run run, rest;
	struct pm_tx *tx;

	pool_new(&p, "wait", 16 * MIB, PM_CLWB);
	tx = tx_begin(p.st);
	cr_assert_eq(tx_take(tx, 0, 50, BLK_WHOLE, &run), 0);
	ino_edit(tx, ino_at(p.st, PM_ROOT_INO))->uid = 1;
	cr_assert_eq(tx_commit(tx, NULL), 0);
	while (!blk_take(p.st, 0, 1000, 0, BLK_META, &rest))
		;
	tx = tx_begin(p.st);
	tx_give(tx, run.start, 30, true);
	tx_give(tx, run.start + 30, 20, false);
	ino_edit(tx, ino_at(p.st, PM_ROOT_INO))->uid = 2;
	cr_assert_eq(tx_commit(tx, NULL), 0);
	cr_assert(blk_marked(p.st, run.start + 29), "metadata is free before a checkpoint");
	cr_assert_not(blk_marked(p.st, run.start + 30), "durably freed data is not free");
	pm_get_stats(p.st, &a);
	cr_assert_eq(blk_take(p.st, 0, 20, 0, BLK_META | BLK_WHOLE, &rest), 0);
	pm_get_stats(p.st, &b);
	cr_assert_eq(a.checkpoints, b.checkpoints);
	cr_assert_eq(blk_take(p.st, 0, 30, 0, BLK_META | BLK_WHOLE, &rest), 0);
	pm_get_stats(p.st, &b);
	cr_assert_eq(a.checkpoints + 1, b.checkpoints);
	cr_assert_eq(rest.start, run.start);
	pool_drop(&p);
}

/* With a slow flush even data waits: until its freeing is durable an old record of the file leads
 * to it. */
Test(alloc, freed_data_waits_until_durable_on_slow_media)
{
	struct test_pool p;
	struct blk_run run;
	struct pm_tx *tx;
	pm_lsn lsn;

	pool_new(&p, "slow", 16 * MIB, PM_MSYNC);
	pthread_mutex_lock(&p.st->lock);
	cr_assert_eq(blk_take(p.st, 0, 50, 0, 0, &run), 0);
	tx = tx_begin(p.st);
	tx_give(tx, run.start, 25, false);
	ino_edit(tx, ino_at(p.st, PM_ROOT_INO))->uid = 1;
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	blk_give_after(p.st, lsn, run.start + 25, 25);
	cr_assert(blk_marked(p.st, run.start) && blk_marked(p.st, run.start + 25));
	pthread_mutex_unlock(&p.st->lock);
	cr_assert_eq(pool_wait(p.st, lsn), 0);
	cr_assert_not(blk_marked(p.st, run.start) || blk_marked(p.st, run.start + 25));
	pool_drop(&p);
}

Test(alloc, stored_and_loaded_it_is_the_same)
{
	struct test_pool p;
	uint32_t seed = 99;
	uint64_t n, *copy;
	uint8_t *buf;
	size_t len, used;

	pool_new(&p, "save", 512 * MIB, PM_CLWB);
	n = p.st->super.blocks;
	for (unsigned i = 0; i < 300; i++)
		blk_mark(p.st, 20000 + rnd(&seed) % 60000, 1 + rnd(&seed) % 90);
	buf = malloc(alloc_save_size(p.st));
	copy = calloc(n, sizeof(*copy));
	for (uint64_t b = 0; b < n; b++)
		copy[b] = blk_marked(p.st, b);
	len = alloc_save(p.st, buf);
	cr_assert_eq(len, alloc_save_size(p.st));
	alloc_close(p.st);
	cr_assert_eq(alloc_open(p.st), 0);
	cr_assert_eq(alloc_load(p.st, buf, len, &used), 0);
	cr_assert_eq(used, len);
	for (uint64_t b = 0; b < n; b++)
		cr_assert_eq(copy[b], blk_marked(p.st, b));
	cr_assert_eq(alloc_load(p.st, buf, len - 1, &used), -EUCLEAN);
	buf[0] ^= 1;
	cr_assert_eq(alloc_load(p.st, buf, len, &used), -EUCLEAN);
	free(buf);
	free(copy);
	pool_drop(&p);
}
