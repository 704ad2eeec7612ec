/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quotas: usage is what the inodes say, at every moment and after a kill; limits are exact to the
 * block and refuse without changing anything; what gives back never fails.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define MIB    (1ull << 20)
#define OWNERS 4u
#define FILES  60u
#define ULL(x) ((unsigned long long)(x))

static const struct pm_id root = { PM_ROOT_INO, 1 };
static struct test_pool pool;

static void open_clwb(void)
{
	pool_new(&pool, "quota", 32 * MIB, PM_CLWB);
}
static void drop(void)
{
	pool_drop(&pool);
}
TestSuite(quota, .init = open_clwb, .fini = drop);

static int make(struct pm_id dir, const char *name, enum pm_type type, uint32_t uid, uint32_t gid,
                struct pm_id *id)
{
	struct pm_new nw = { .type = type, .mode = 0700, .uid = uid, .gid = gid };
	struct pm_change ch;
	int err = pm_create(pool.st, dir, name, strlen(name), &nw, &ch);

	if (!err && id)
		*id = ch.obj.id;
	return err ? err : pool_wait(pool.st, ch.lsn);
}

static int put(struct pm_id id, uint64_t block, uint32_t blocks, enum pm_stable how)
{
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int err;

	waiter_init(&w);
	err = waiter_result(
		&w, pm_map_write(pool.st, id, block * PM_BLOCK, blocks * PM_BLOCK, &m, &w.w));
	if (err)
		return err;
	waiter_init(&w);
	err = waiter_result(&w, pm_commit(&m, m.len, how, true, &c, &w.w));
	pm_unpin(&m);
	return err;
}

static void sync_file(struct pm_id id)
{
	struct pm_committed c;
	struct test_waiter w;

	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(pool.st, id, &c, &w.w)), 0);
}

static void limit(uint32_t kind, uint32_t id, uint64_t blocks, uint64_t inodes)
{
	struct pm_quota q = { .kind = kind, .id = id, .max_blocks = blocks, .max_inodes = inodes };
	pm_lsn lsn;

	cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), 0);
	cr_assert_eq(pool_wait(pool.st, lsn), 0);
}

static struct pm_quota usage(uint32_t kind, uint32_t id)
{
	struct pm_quota q;

	pm_quota_get(pool.st, kind, id, &q);
	return q;
}

static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	cr_log_error("check: %s: %s", where, what);
}

static void check(const char *path)
{
	struct pm_check_report r;
	struct pm_error why;

	cr_assert_eq(pm_check(path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
}

static int chown_to(struct pm_id id, uint32_t uid, uint32_t gid)
{
	struct pm_setattr sa = { .set = PM_SET_UID | PM_SET_GID, .uid = uid, .gid = gid };
	struct pm_change ch;
	int err = pm_setattr(pool.st, id, &sa, &ch);

	return err ? err : pool_wait(pool.st, ch.lsn);
}

static int cut_to(struct pm_id id, uint64_t size)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = size };
	struct pm_change ch;

	return pm_setattr(pool.st, id, &sa, &ch);
}

Test(quota, the_last_block_goes_in_and_the_next_is_refused)
{
	struct pm_id id;

	cr_assert_eq(make(root, "a", PM_REG, 7, 8, &id), 0);
	limit(PM_QUOTA_UID, 7, 100, 0);
	cr_assert_eq(put(id, 0, 99, PM_FILE_SYNC), 0);
	cr_assert_eq(put(id, 99, 2, PM_FILE_SYNC), -EDQUOT);
	cr_assert_eq(usage(PM_QUOTA_UID, 7).blocks, 99);
	cr_assert_eq(put(id, 99, 1, PM_FILE_SYNC), 0);
	cr_assert_eq(put(id, 100, 1, PM_FILE_SYNC), -EDQUOT);
	cr_assert_eq(usage(PM_QUOTA_UID, 7).blocks, 100);
	cr_assert_eq(usage(PM_QUOTA_GID, 8).blocks, 100);
	cr_assert_eq(put(id, 0, 100, PM_FILE_SYNC), 0); /* in place */
	cr_assert_eq(cut_to(id, 50 * PM_BLOCK), 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 7).blocks, 50);
	cr_assert_eq(put(id, 50, 50, PM_FILE_SYNC), 0);
}

Test(quota, groups_are_limited_too)
{
	struct pm_id a, b;

	cr_assert_eq(make(root, "a", PM_REG, 1, 9, &a), 0);
	cr_assert_eq(make(root, "b", PM_REG, 2, 9, &b), 0);
	limit(PM_QUOTA_GID, 9, 10, 0);
	cr_assert_eq(put(a, 0, 6, PM_FILE_SYNC), 0);
	cr_assert_eq(put(b, 0, 5, PM_FILE_SYNC), -EDQUOT);
	cr_assert_eq(put(b, 0, 4, PM_FILE_SYNC), 0);
}

Test(quota, inodes_are_limited)
{
	struct pm_change ch;

	limit(PM_QUOTA_UID, 5, 0, 3);
	cr_assert_eq(make(root, "a", PM_REG, 5, 5, NULL), 0);
	cr_assert_eq(make(root, "b", PM_DIR, 5, 5, NULL), 0);
	cr_assert_eq(make(root, "c", PM_LNK, 5, 5, NULL), -EINVAL);
	cr_assert_eq(make(root, "c", PM_FIFO, 5, 5, NULL), 0);
	cr_assert_eq(make(root, "d", PM_REG, 5, 5, NULL), -EDQUOT);
	cr_assert_eq(make(root, "d", PM_REG, 6, 5, NULL), 0);
	cr_assert_eq(pm_remove(pool.st, root, "a", 1, &ch), 0);
	cr_assert_eq(make(root, "e", PM_REG, 5, 5, NULL), 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 5).inodes, 3);
}

Test(quota, a_new_owner_must_have_room)
{
	struct pm_id id;

	cr_assert_eq(make(root, "a", PM_REG, 1, 1, &id), 0);
	cr_assert_eq(put(id, 0, 20, PM_FILE_SYNC), 0);
	limit(PM_QUOTA_UID, 2, 19, 0);
	cr_assert_eq(chown_to(id, 2, 1), -EDQUOT);
	cr_assert_eq(usage(PM_QUOTA_UID, 1).blocks, 20);
	cr_assert_eq(usage(PM_QUOTA_UID, 2).blocks, 0);
	limit(PM_QUOTA_UID, 2, 20, 0);
	cr_assert_eq(chown_to(id, 2, 1), 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 1).blocks, 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 1).inodes, 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 2).blocks, 20);
	cr_assert_eq(usage(PM_QUOTA_UID, 2).inodes, 1);
}

Test(quota, unstable_writes_and_writes_under_way_count)
{
	struct test_waiter w;
	struct pm_map m;
	struct pm_id id;

	cr_assert_eq(make(root, "a", PM_REG, 3, 3, &id), 0);
	limit(PM_QUOTA_UID, 3, 10, 0);
	cr_assert_eq(put(id, 0, 4, PM_UNSTABLE), 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 3).pending, 4);
	waiter_init(&w);
	cr_assert_eq(
		waiter_result(&w, pm_map_write(pool.st, id, 4 * PM_BLOCK, 4 * PM_BLOCK, &m, &w.w)),
		0);
	cr_assert_eq(put(id, 8, 3, PM_UNSTABLE), -EDQUOT);
	cr_assert_eq(put(id, 8, 2, PM_UNSTABLE), 0);
	pm_unpin(&m); /* given up */
	cr_assert_eq(usage(PM_QUOTA_UID, 3).pending, 6);
	limit(PM_QUOTA_UID, 4, 5, 0);
	cr_assert_eq(chown_to(id, 4, 3), -EDQUOT);
	limit(PM_QUOTA_UID, 4, 6, 0);
	cr_assert_eq(chown_to(id, 4, 3), 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 3).pending, 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 4).pending, 6);
	sync_file(id);
	cr_assert_eq(usage(PM_QUOTA_UID, 4).pending, 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 4).blocks, 6);
	cr_assert_eq(usage(PM_QUOTA_GID, 3).blocks, 6);
}

Test(quota, a_directory_that_would_grow_over_the_limit_takes_no_name)
{
	struct pm_attr before, after;
	struct pm_id dir;
	char name[64];
	unsigned n = 0;
	int err;

	cr_assert_eq(make(root, "d", PM_DIR, 4, 4, &dir), 0);
	limit(PM_QUOTA_UID, 4, 3, 0);
	do {
		snprintf(name, sizeof(name), "a-name-of-some-length-%u", n++);
		cr_assert_eq(pm_getattr(pool.st, dir, &before), 0);
		err = make(dir, name, PM_REG, 0, 0, NULL);
	} while (!err && n < 1000);
	cr_assert_eq(err, -EDQUOT);
	cr_assert_eq(pm_getattr(pool.st, dir, &after), 0);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	cr_assert_leq(usage(PM_QUOTA_UID, 4).blocks, 3);
	cr_assert_gt(usage(PM_QUOTA_UID, 4).blocks, 0);
}

Test(quota, what_frees_works_far_over_the_limit)
{
	struct pm_change ch;
	struct pm_id id;

	cr_assert_eq(make(root, "a", PM_REG, 1, 1, &id), 0);
	for (unsigned i = 0; i < 400; i++)
		cr_assert_eq(put(id, 2 * i, 1, PM_FILE_SYNC), 0);
	limit(PM_QUOTA_UID, 1, 1, 1);
	cr_assert_eq(put(id, 1, 1, PM_FILE_SYNC), -EDQUOT);
	cr_assert_eq(cut_to(id, 301 * PM_BLOCK), 0);
	cr_assert_eq(put(id, 300, 1, PM_FILE_SYNC), 0); /* there already */
	cr_assert_eq(pm_remove(pool.st, root, "a", 1, &ch), 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 1).blocks, 0);
	cr_assert_eq(usage(PM_QUOTA_UID, 1).inodes, 0);
}

/* --- nodes of extent trees -------------------------------------------------------------------- */

static void within(uint32_t uid, uint64_t max)
{
	struct pm_quota q = usage(PM_QUOTA_UID, uid);

	cr_assert_leq(q.blocks + q.pending, max, "%llu + %llu blocks", ULL(q.blocks),
	              ULL(q.pending));
}

static uint64_t used_by(struct pm_id id)
{
	struct pm_attr a;

	cr_assert_eq(pm_getattr(pool.st, id, &a), 0);
	return a.used / PM_BLOCK;
}

/* Every limit in turn: the write that needs one block more than is left, be it for a node, is refused, leaves
 * nothing, and goes in when there is one more. */
Test(quota, nodes_of_extent_trees_are_refused_to_the_block)
{
	uint64_t max = 5, nodes = 0;
	struct pm_attr before, after;
	struct pm_id id;

	cr_assert_eq(make(root, "a", PM_REG, 7, 8, &id), 0);
	limit(PM_QUOTA_UID, 7, max, 0);
	for (unsigned i = 0; i < 600;) {
		uint64_t had = usage(PM_QUOTA_UID, 7).blocks;
		int err;

		cr_assert_eq(pm_getattr(pool.st, id, &before), 0);
		err = put(id, 2 * i, 1, PM_FILE_SYNC);
		within(7, max);
		if (!err) {
			cr_assert_eq(used_by(id), usage(PM_QUOTA_UID, 7).blocks);
			nodes += used_by(id) - had - 1;
			i++;
			continue;
		}
		cr_assert_eq(err, -EDQUOT);
		cr_assert(max - had < 4, "%llu blocks are left", ULL(max - had));
		cr_assert_eq(pm_getattr(pool.st, id, &after), 0);
		cr_assert_eq(before.size, after.size);
		cr_assert_eq(before.used, after.used);
		cr_assert_eq(before.mtime.tv_nsec, after.mtime.tv_nsec);
		cr_assert_eq(before.ctime.tv_nsec, after.ctime.tv_nsec);
		cr_assert_eq(usage(PM_QUOTA_UID, 7).pending, 0);
		limit(PM_QUOTA_UID, 7, ++max, 0);
	}
	cr_assert_gt(nodes, 5);
	cr_assert_eq(max, 600 + nodes, "no limit was higher than what was used");
	cr_assert_eq(cut_to(id, 700 * PM_BLOCK + 1), 0);
	within(7, max);
	pool_close(&pool);
	check(pool.path);
	pool_open(&pool, PM_CLWB);
	within(7, max);
}

/* What was accepted as unstable becomes durable, whatever it needs; and no limit is passed. */
static void unstable_to_the_limit(enum pm_method method)
{
	unsigned n = 0, unstable = 0;
	struct pm_change ch;
	struct pm_id id;
	int err;

	pool_drop(&pool);
	pool_new(&pool, "quota-unstable", 32 * MIB, method);
	cr_assert_eq(make(root, "a", PM_REG, 7, 8, &id), 0);
	limit(PM_QUOTA_GID, 8, 400, 0);
	while (!(err = put(id, 2 * n, 1, PM_UNSTABLE))) {
		n++;
		unstable += usage(PM_QUOTA_GID, 8).pending > 0;
		within(7, 400);
		if (n % 30 == 0)
			sync_file(id);
		within(7, 400);
	}
	cr_assert_eq(err, -EDQUOT);
	cr_assert_gt(unstable, 100);
	sync_file(id);
	within(7, 400);
	while (!put(id, 2 * n, 1, PM_FILE_SYNC))
		n++;
	cr_assert_geq(usage(PM_QUOTA_GID, 8).blocks, 398, "the end of it is for stable writes");
	within(7, 400);
	cr_assert_eq(put(id, 0, 1, PM_UNSTABLE), 0, "there already");
	cr_assert_eq(pm_remove(pool.st, root, "a", 1, &ch), 0);
	cr_assert_eq(usage(PM_QUOTA_GID, 8).blocks, 0);
	cr_assert_eq(make(root, "b", PM_REG, 7, 8, &id), 0);
	cr_assert_eq(put(id, 0, 400, PM_FILE_SYNC), 0, "nothing is owed any more");
}

Test(quota, unstable_writes_pass_no_limit_with_clwb)
{
	unstable_to_the_limit(PM_CLWB);
}
Test(quota, unstable_writes_pass_no_limit_with_msync)
{
	unstable_to_the_limit(PM_MSYNC);
}

Test(quota, many_limits_survive_closing_and_killing)
{
	struct test_pool copy;
	struct pm_quota *list;
	size_t n;

	for (uint32_t i = 0; i < 300; i++)
		limit(i % 2 ? PM_QUOTA_UID : PM_QUOTA_GID, 1000 + i, i + 1, 10 * i);
	for (uint32_t i = 0; i < 300; i += 3)
		limit(i % 2 ? PM_QUOTA_UID : PM_QUOTA_GID, 1000 + i, 0, 0);
	limit(PM_QUOTA_UID, 5, 55, 0); /* takes a place that came free */
	for (int round = 0; round < 3; round++) {
		if (round == 1) {
			pool_close(&pool);
			check(pool.path);
			pool_open(&pool, PM_CLWB);
		} else if (round == 2) {
			pool_copy(&copy, &pool, "quota-copy");
			pool_drop(&pool);
			pool = copy;
			check(pool.path);
			pool_open(&pool, PM_CLWB);
		}
		cr_assert_eq(pm_quota_list(pool.st, &list, &n), 0);
		cr_assert_eq(n, 203); /* and uid 0, gid 0 */
		free(list);
		for (uint32_t i = 0; i < 300; i++) {
			struct pm_quota q = usage(i % 2 ? PM_QUOTA_UID : PM_QUOTA_GID, 1000 + i);

			cr_assert_eq(q.max_blocks, i % 3 ? i + 1 : 0);
			cr_assert_eq(q.max_inodes, i % 3 ? 10 * i : 0);
		}
		cr_assert_eq(usage(PM_QUOTA_UID, 5).max_blocks, 55);
	}
}

Test(quota, an_impossible_kind_is_refused)
{
	struct pm_quota q = { .kind = 3 };
	pm_lsn lsn;

	cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), -EINVAL);
}

/* --- random work against a recount of the tree ------------------------------------------------ */

struct tally {
	uint64_t blocks, inodes;
};

static void recount(struct pm_store *st, const struct pm_id *id, struct tally t[2][OWNERS])
{
	memset(t, 0, 2 * OWNERS * sizeof(t[0][0]));
	for (unsigned i = 0; i < FILES + 1; i++) {
		struct pm_attr a;

		if (!id[i].ino || pm_getattr(st, id[i], &a))
			continue;
		t[0][a.uid].blocks += a.used / PM_BLOCK;
		t[0][a.uid].inodes++;
		t[1][a.gid].blocks += a.used / PM_BLOCK;
		t[1][a.gid].inodes++;
	}
}

static void compare(struct pm_store *st, const struct pm_id *id, const char *when)
{
	struct tally t[2][OWNERS];

	recount(st, id, t);
	for (uint32_t k = 0; k < 2; k++) {
		for (uint32_t o = 0; o < OWNERS; o++) {
			struct pm_quota q;

			pm_quota_get(st, k ? PM_QUOTA_GID : PM_QUOTA_UID, o, &q);
			cr_assert_eq(q.blocks + q.pending, t[k][o].blocks,
			             "%s: %s %u: %llu + %llu blocks, not %llu", when,
			             k ? "gid" : "uid", o, ULL(q.blocks), ULL(q.pending),
			             ULL(t[k][o].blocks));
			cr_assert_eq(q.inodes, t[k][o].inodes, "%s", when);
			cr_assert(!q.max_inodes || q.inodes <= q.max_inodes);
			cr_assert(!q.max_blocks || q.blocks + q.pending <= q.max_blocks);
		}
	}
}

static void allowed(int err)
{
	cr_assert(!err || err == -EDQUOT || err == -ENOSPC, "%s", strerror(-err));
}

static void step(struct pm_id *id, unsigned *over)
{
	unsigned i = 1 + (unsigned)random() % FILES;
	uint32_t u = (uint32_t)random() % OWNERS, g = (uint32_t)random() % OWNERS;
	struct pm_change ch;
	char name[200];
	int err = 0;

	snprintf(name, sizeof(name), "%0150u", i);
	if (!id[i].ino) {
		err = make(root, name, PM_REG, u, g, &id[i]);
	} else if (random() % 3) {
		err = put(id[i], (uint64_t)random() % 300, 1 + (uint32_t)random() % 6,
		          random() % 2 ? PM_UNSTABLE : PM_FILE_SYNC);
	} else if (random() % 4 == 0) {
		err = pm_allocate(pool.st, id[i], (uint64_t)random() % 300 * PM_BLOCK, 40000, &ch);
	} else if (random() % 3 == 0) {
		err = chown_to(id[i], u, g);
	} else if (random() % 3 == 0) {
		cr_assert_eq(cut_to(id[i], (uint64_t)random() % 300 * PM_BLOCK), 0);
	} else if (random() % 3 == 0) {
		cr_assert_eq(pm_remove(pool.st, root, name, strlen(name), &ch), 0);
		id[i].ino = 0;
	} else {
		sync_file(id[i]);
	}
	allowed(err);
	*over += err == -EDQUOT;
}

static void random_work(enum pm_method method, unsigned seed)
{
	struct pm_id id[FILES + 1] = { root };
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = 0755 };
	struct pm_change ch;
	unsigned over = 0;

	pool_drop(&pool);
	pool_new(&pool, "quota-random", 32 * MIB, method);
	srandom(seed);
	limit(PM_QUOTA_UID, 1, 600, 0);
	limit(PM_QUOTA_UID, 2, 0, 12);
	limit(PM_QUOTA_GID, 3, 700, 0);
	for (unsigned i = 0; i < 6000; i++) {
		step(id, &over);
		if (i % 50 == 0)
			compare(pool.st, id, "at work");
		if (i % 2000 == 1999) {
			struct test_pool copy;

			for (unsigned f = 1; f <= FILES; f++)
				if (id[f].ino)
					sync_file(id[f]);
			cr_assert_eq(pm_setattr(pool.st, root, &sa, &ch), 0);
			cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
			pool_copy(&copy, &pool, "quota-copy");
			check(copy.path);
			pool_open(&copy, method);
			compare(copy.st, id, "after a kill");
			pool_close(&copy);
			check(copy.path);
			pool_open(&copy, method);
			compare(copy.st, id, "after closing");
			pool_drop(&copy);
		}
	}
	cr_assert_gt(over, 50);
}

Test(quota, usage_is_what_the_inodes_say_with_clwb)
{
	random_work(PM_CLWB, 1);
}
Test(quota, usage_is_what_the_inodes_say_with_msync)
{
	random_work(PM_MSYNC, 2);
}

/* --- what cannot be believed ------------------------------------------------------------------ */

Test(quota, a_file_of_limits_longer_than_its_blocks_is_damaged, .timeout = 30)
{
	const struct pm_inode *in;
	struct pm_error why;
	struct pm_tx *tx;
	struct pm_quota q = { .kind = PM_QUOTA_UID, .id = 7, .max_blocks = 9 };
	pm_lsn lsn;

	limit(PM_QUOTA_UID, 7, 100, 0);
	store_lock(pool.st);
	in = ino_at(pool.st, quota_ino(pool.st));
	tx = tx_begin(pool.st);
	ino_edit(tx, in)->size = 1ull << 60;
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	store_unlock(pool.st);
	pool_close(&pool);
	cr_assert_eq(pool_try_open(&pool, PM_CLWB, &why), 0, "%s", why.text);
	cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), -EIO, "who knows which limits there were");
}

static int no_sync(struct pm_media *m, const void *at, size_t len)
{
	(void)m;
	(void)at;
	(void)len;
	return -EIO;
}

/* What keeps older programs from writing past the limits is durable before the first limit is. */
Test(quota, a_superblock_that_could_not_be_written_is_tried_again)
{
	struct pm_quota q = { .kind = PM_QUOTA_UID, .id = 7, .max_blocks = 9 };
	const struct pm_media_ops *real;
	struct pm_media_ops broken;
	struct pm_super s[2];
	pm_lsn lsn;

	pool_drop(&pool);
	pool_new(&pool, "quota", 32 * MIB, PM_MSYNC);
	real = pool.st->media.ops;
	broken = *real;
	broken.sync = no_sync;
	pool.st->media.ops = &broken;
	cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), -EIO);
	pool.st->media.ops = real;
	memset(pool.st->media.base, 0, sizeof(s[0])); /* nothing of what failed has come there */
	memset(pool.st->media.base + PM_BLOCK, 0, sizeof(s[0]));
	cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), 0);
	memcpy(&s[0], pool.st->media.base, sizeof(s[0]));
	memcpy(&s[1], pool.st->media.base + PM_BLOCK, sizeof(s[1]));
	cr_assert((s[0].ro_compat | s[1].ro_compat) & PM_ROCOMPAT_QUOTA);
}

/* Two at once: neither limit goes to the media before the feature is there. */
struct second {
	const struct pm_media_ops *real;
	pthread_t thread;
	pid_t tid;          /* atomic; 0: not yet known */
	bool asked, over;   /* atomic */
	bool over_too_soon; /* while the first one's superblock was on its way */
};
static struct second second;

static void *set_another(void *arg)
{
	struct pm_quota q = { .kind = PM_QUOTA_GID, .id = 8, .max_blocks = 10 };
	pm_lsn lsn;
	int err;

	(void)arg;
	__atomic_store_n(&second.tid, gettid(), __ATOMIC_RELEASE);
	err = pm_quota_set(pool.st, &q, &lsn);
	__atomic_store_n(&second.over, true, __ATOMIC_RELEASE);
	return (void *)(intptr_t)err;
}

static bool sleeps(pid_t tid)
{
	char path[64], line[512] = "";
	const char *state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	f = fopen(path, "r");
	state = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	if (f)
		fclose(f);
	return state && state[2] == 'S';
}

/* The first sync is that of the superblock: start the other one, and wait until it is over or waits for us. */
static int slow_sync(struct pm_media *m, const void *at, size_t len)
{
	pid_t tid;

	if (!__atomic_exchange_n(&second.asked, true, __ATOMIC_ACQ_REL)) {
		cr_assert_eq(pthread_create(&second.thread, NULL, set_another, NULL), 0);
		while (!__atomic_load_n(&second.over, __ATOMIC_ACQUIRE)) {
			tid = __atomic_load_n(&second.tid, __ATOMIC_ACQUIRE);
			if (tid && sleeps(tid))
				break;
			sched_yield();
		}
		second.over_too_soon = __atomic_load_n(&second.over, __ATOMIC_ACQUIRE);
	}
	return second.real->sync(m, at, len);
}

Test(quota, nobody_goes_on_before_the_feature_is_durable)
{
	struct pm_media_ops slow;
	void *err;

	pool_drop(&pool);
	pool_new(&pool, "quota", 32 * MIB, PM_MSYNC);
	second.real = pool.st->media.ops;
	slow = *second.real;
	slow.sync = slow_sync;
	pool.st->media.ops = &slow;
	limit(PM_QUOTA_UID, 7, 9, 0);
	cr_assert_eq(pthread_join(second.thread, &err), 0);
	pool.st->media.ops = second.real;
	cr_assert_eq((intptr_t)err, 0);
	cr_assert_not(second.over_too_soon, "a limit was set before the superblock told of limits");
}
