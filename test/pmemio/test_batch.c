/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_batch.c - commits that end together
 */
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

Test(batch, answers_come_from_its_end)
{
	struct pm_id id = mk("f");
	struct joined j[2];

	join_write(&j[0], id, 0, B, 'a');
	join_write(&j[1], id, B, B, 'b');
	cr_assert_eq(size_of(id), 0);
	pm_batch_end(batch);
	ended(&j[0], 0);
	ended(&j[1], 0);
	cr_assert(holds(id, 0, B, 'a') && holds(id, B, 2 * B, 'b'));
	pm_batch_end(batch); /* empty */
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
