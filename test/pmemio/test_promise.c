/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All or nothing: what needs several transactions is refused before the first of them, to the block; what has been
 * mapped can be committed, whatever becomes of limits, space and the file meanwhile.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmemio/core.h"
#include "pmemio/file.h"
#include "test/lib/pool.h"

#define MIB (1ull << 20)
#define B   PM_BLOCK
#define WIDE                                                                                       \
	2200u /* blocks of the write: every other one is a hole, more than a transaction takes */
#define ULL(x) ((unsigned long long)(x))

static const struct pm_id root = { PM_ROOT_INO, 1 };
static struct test_pool pool;

static void open_small(enum pm_method method)
{
	struct pm_mkfs_opts o = { .size = 32 * MIB, .root_mode = 0755 };
	struct pm_error why;

	pool_path(&pool, "promise");
	cr_assert_eq(pm_mkfs(pool.path, &o, &why), 0, "%s", why.text);
	pool_open(&pool, method);
}
static void open_clwb(void)
{
	open_small(PM_CLWB);
}
static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	cr_log_error("check: %s: %s", where, what);
}
static void finish(void)
{
	struct pm_check_report r;
	struct pm_error why;

	pool_close(&pool);
	cr_assert_eq(pm_check(pool.path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
	pool_drop(&pool);
}
TestSuite(promise, .init = open_clwb, .fini = finish);

static struct pm_id make(const char *name, uint32_t uid)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0700, .uid = uid, .gid = uid };
	struct pm_change ch;

	cr_assert_eq(pm_create(pool.st, root, name, strlen(name), &nw, &ch), 0);
	cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
	return ch.obj.id;
}

static void fill(const struct pm_map *m, int byte)
{
	for (unsigned i = 0; i < m->nseg; i++)
		memset(m->seg[i].iov_base, byte, m->seg[i].iov_len);
}

/* As a server does: a payload arrives in what was mapped. */
static int put(struct pm_id id, uint64_t block, uint32_t blocks, int byte)
{
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int err;

	do {
		waiter_init(&w);
		err = pm_map_write(pool.st, id, block * B, blocks * B, &m, &w.w);
		waiter_result(&w, err);
	} while (err == -EINPROGRESS);
	if (err)
		return err;
	fill(&m, byte);
	waiter_init(&w);
	err = waiter_result(&w, pm_commit(&m, m.len, PM_FILE_SYNC, true, &c, &w.w));
	cr_assert_eq(err, 0, "refused once the payload was there: %s", strerror(-err));
	pm_unpin(&m);
	return 0;
}

static void limit(uint32_t uid, uint64_t blocks)
{
	struct pm_quota q = { .kind = PM_QUOTA_UID, .id = uid, .max_blocks = blocks };
	pm_lsn lsn;

	cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), 0);
	cr_assert_eq(pool_wait(pool.st, lsn), 0);
}

static struct pm_quota usage(uint32_t uid)
{
	struct pm_quota q;

	pm_quota_get(pool.st, PM_QUOTA_UID, uid, &q);
	return q;
}

/* --- what can be seen of a file ---------------------------------------------------------------- */

struct sight {
	struct pm_attr a;
	struct pm_extent ext[2 * WIDE];
	unsigned n;
	uint32_t sum; /* of its bytes */
};

static void look(struct pm_id id, struct sight *s)
{
	struct pm_map m;

	memset(s, 0, sizeof(*s));
	cr_assert_eq(pm_getattr(pool.st, id, &s->a), 0);
	cr_assert_eq(pm_extents(pool.st, id, 0, s->ext, 2 * WIDE, &s->n), 0);
	cr_assert_eq(pm_map_read(pool.st, id, 0, 2 * WIDE * B, &m), 0);
	for (unsigned i = 0; i < m.nseg; i++)
		for (size_t k = 0; k < m.seg[i].iov_len; k += 64)
			s->sum = s->sum * 31 + ((const uint8_t *)m.seg[i].iov_base)[k];
	pm_unpin(&m);
}

static void same(const struct sight *a, const struct sight *b, const char *what)
{
	cr_assert_eq(a->n, b->n, "%s: %u extents, %u now", what, a->n, b->n);
	cr_assert_eq(memcmp(a->ext, b->ext, a->n * sizeof(a->ext[0])), 0, "%s: extents", what);
	cr_assert_eq(a->sum, b->sum, "%s: contents", what);
	cr_assert_eq(a->a.size, b->a.size, "%s: size", what);
	cr_assert_eq(a->a.used, b->a.used, "%s: blocks", what);
	cr_assert_eq(a->a.mtime.tv_nsec, b->a.mtime.tv_nsec, "%s: mtime", what);
	cr_assert_eq(a->a.ctime.tv_nsec, b->a.ctime.tv_nsec, "%s: ctime", what);
}

/* --- refused before the first transaction -------------------------------------------------------- */

/* Every other block is there. */
static struct pm_id comb(const char *name, uint32_t uid)
{
	struct pm_id id = make(name, uid);

	for (unsigned b = 0; b < WIDE; b += 2)
		cr_assert_eq(put(id, b, 1, 'a'), 0);
	return id;
}

static int write_all(struct pm_id id)
{
	return put(id, 0, WIDE, 'b');
}

static int allocate_all(struct pm_id id)
{
	struct pm_change ch;
	int err = pm_allocate(pool.st, id, 0, (uint64_t)WIDE * B, &ch);

	return err ? err : pool_wait(pool.st, ch.lsn);
}

static void no_recall(void *arg)
{
	(void)arg;
}

static int commit_lease(struct pm_id id)
{
	struct pm_lease_opts o = {
		.owner = &pool, .write = true, .max_extents = 2 * WIDE, .recall = no_recall
	};
	struct pm_range all = { 0, (uint64_t)WIDE * B };
	struct pm_committed c;
	struct test_waiter w;
	struct pm_lease *l;
	int err;

	waiter_init(&w);
	cr_assert_eq(
		waiter_result(&w, pm_lease_open(pool.st, id, 0, all.len, all.len, &o, &l, &w.w)),
		0);
	while (pm_lease_zero(l, 64) == -EAGAIN)
		;
	waiter_init(&w);
	err = waiter_result(&w, pm_lease_commit(l, &all, 1, false, 0, NULL, &c, &w.w));
	pm_lease_close(l);
	return err;
}

/* Every limit from what is used up to what is needed, which a twin shows: each but the last is refused. */
static void at_every_limit(int (*act)(struct pm_id id), uint64_t first, unsigned transactions)
{
	struct pm_id twin = comb("twin", 7), id = comb("file", 9);
	uint64_t used = usage(9).blocks, need;
	static struct sight before, after;
	struct pm_stats s0, s1;

	pm_get_stats(pool.st, &s0);
	cr_assert_eq(usage(7).blocks, used);
	cr_assert_eq(act(twin), 0);
	pm_get_stats(pool.st, &s1);
	cr_assert_geq(s1.transactions - s0.transactions, transactions, "too few to prove anything");
	need = usage(7).blocks - used;
	cr_assert_gt(need, first);
	look(id, &before);
	for (uint64_t max = used + first; max < used + need; max++) {
		limit(9, max);
		cr_assert_eq(act(id), -EDQUOT, "%llu of %llu blocks", ULL(max - used), ULL(need));
		look(id, &after);
		same(&before, &after, "a refused one");
		cr_assert_eq(usage(9).blocks, used);
		cr_assert_eq(usage(9).pending, 0);
	}
	limit(9, used + need);
	cr_assert_eq(act(id), 0, "%llu blocks are there and needed", ULL(need));
	cr_assert_eq(usage(9).blocks, used + need);
}

Test(promise, a_write_of_many_extents_is_refused_as_a_whole)
{
	at_every_limit(write_all, WIDE / 2 - 3, 2);
}

Test(promise, a_reservation_of_many_extents_is_refused_as_a_whole)
{
	at_every_limit(allocate_all, WIDE / 2 - 3, 2);
}

Test(promise, a_commit_of_a_lease_is_refused_as_a_whole)
{
	at_every_limit(commit_lease, WIDE / 2, 2);
}

/* --- no space for nodes --------------------------------------------------------------------------- */

/* Blocks are reserved, and data has filled the rest: nodes are all that writes need, until there is none left. */
static void out_of_nodes(void)
{
	struct pm_id id = make("reserved", 7), rest = make("rest", 7);
	static struct sight before, after;
	unsigned refused = 0, written = 0;
	struct pm_change ch;
	struct pm_space sp;
	uint64_t b;

	cr_assert_eq(pm_allocate(pool.st, id, 0, 24 * MIB, &ch), 0);
	for (b = 0; !put(rest, b, 1, 'r'); b++)
		;
	pm_get_space(pool.st, &sp);
	cr_assert_eq(sp.free_blocks, 0);
	for (b = 1; b < 24 * MIB / B && refused < 20; b += 2) {
		int err;

		if (refused)
			look(id, &before);
		err = put(id, b, 1, 'b');
		if (!err) {
			written++;
			continue;
		}
		cr_assert_eq(err, -ENOSPC, "%s", strerror(-err));
		if (refused++) {
			look(id, &after);
			same(&before, &after, "refused for want of a node");
		}
	}
	cr_assert_gt(written, 100);
	cr_assert_gt(refused, 0, "%u written", written);
	cr_assert_eq(pm_remove(pool.st, root, "reserved", 8, &ch), 0);
	cr_assert_eq(put(rest, 1 << 20, 1, 'r'), 0);
}

/* --- near a limit ------------------------------------------------------------------------------- */

static int map_one(struct pm_id id, uint64_t block, struct pm_map *m, struct test_waiter *w)
{
	waiter_init(w);
	return pm_map_write(pool.st, id, block * B, B, m, &w->w);
}

static void commit_it(struct pm_map *m)
{
	struct pm_committed c;
	struct test_waiter w;

	fill(m, 'c');
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_commit(m, m->len, PM_FILE_SYNC, true, &c, &w.w)), 0);
	pm_unpin(m);
}

Test(promise, near_a_limit_a_write_waits_for_the_one_before)
{
	struct pm_id id = comb("file", 9);
	struct pm_map first, second;
	struct test_waiter w, no;

	limit(9, usage(9).blocks + 20);
	cr_assert_eq(map_one(id, 1, &first, &no), 0);
	cr_assert_eq(map_one(id, 801, &second, &w), -EINPROGRESS,
	             "both count on the tree as it is");
	commit_it(&first);
	cr_assert_eq(waiter_result(&w, -EINPROGRESS), 0);
	cr_assert_eq(map_one(id, 801, &second, &no), 0);
	commit_it(&second);
}

Test(promise, a_write_far_from_any_limit_waits_for_one_that_was_tried_near_it)
{
	struct pm_id id = comb("file", 9);
	struct pm_map first, second;
	struct test_waiter w, no;

	limit(9, usage(9).blocks + 20);
	cr_assert_eq(map_one(id, 1, &first, &no), 0);
	limit(9, 0);
	cr_assert_eq(map_one(id, 801, &second, &w), -EINPROGRESS,
	             "the first counts on the tree as it is");
	commit_it(&first);
	cr_assert_eq(waiter_result(&w, -EINPROGRESS), 0);
	cr_assert_eq(map_one(id, 801, &second, &no), 0);
	commit_it(&second);
}

Test(promise, what_is_tried_near_a_limit_waits_for_what_was_promised_far_from_it)
{
	struct pm_id id = comb("file", 9);
	struct pm_map first, second;
	struct test_waiter w, no;

	cr_assert_eq(map_one(id, 1, &first, &no), 0);
	limit(9, usage(9).blocks + 20);
	cr_assert_eq(map_one(id, 801, &second, &w), -EINPROGRESS,
	             "the first will change what is tried");
	commit_it(&first);
	cr_assert_eq(waiter_result(&w, -EINPROGRESS), 0);
	cr_assert_eq(map_one(id, 801, &second, &no), 0);
	commit_it(&second);
}

/* Blocks that are promised to writes of @uid: the least room in which a block for the empty @other is to be had. */
static uint64_t promised(uint32_t uid, struct pm_id other)
{
	struct pm_quota q = usage(uid);
	struct test_waiter no;
	struct pm_map m;

	for (uint64_t k = 0; k < 1000; k++) {
		limit(uid, q.blocks + q.pending + k + 1);
		if (!map_one(other, 0, &m, &no)) {
			pm_unpin(&m);
			return k;
		}
	}
	cr_assert_fail("no room at all");
	return 0;
}

Test(promise, a_truncate_makes_an_exact_promise_a_generous_one)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = 1000 * B };
	struct pm_id id = comb("file", 9), other = make("other", 9);
	struct pm_change ch;
	struct test_waiter no;
	uint64_t exact;
	struct pm_map m;

	limit(9, usage(9).blocks + 20);
	cr_assert_eq(map_one(id, 1, &m, &no), 0);
	exact = promised(9, other);
	cr_assert_eq(pm_setattr(pool.st, id, &sa, &ch), 0);
	cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
	cr_assert_gt(promised(9, other), exact, "the tree is another one now");
	commit_it(&m);
	cr_assert_eq(promised(9, other), 0);
}

Test(promise, a_write_that_finds_no_node_changes_nothing)
{
	out_of_nodes();
}

/* --- others change the tree that a promise near a limit counts on --------------------------------------- */

struct beside { /* what somebody else does */
	void (*before)(struct pm_id id, uint64_t block);
	int (*act)(struct pm_id id, uint64_t block);
	void (*after)(void);
};

static int reserve_island(struct pm_id id, uint64_t block)
{
	struct pm_change ch;

	return pm_allocate(pool.st, id, block * B, B, &ch);
}

static struct pm_lease *lease;

static void open_island(struct pm_id id, uint64_t block)
{
	struct pm_lease_opts o = { .owner = &pool, .write = true, .max_extents = 1, .recall = no_recall };
	struct test_waiter w;
	int err;

	waiter_init(&w);
	err = pm_lease_open(pool.st, id, block * B, B, B, &o, &lease, &w.w);
	cr_assert_eq(err, 0, "%s", strerror(-err));
	while (pm_lease_zero(lease, 64) == -EAGAIN)
		;
}

static int commit_island(struct pm_id id, uint64_t block)
{
	struct pm_range all = { block * B, B };
	struct pm_committed c;
	struct test_waiter w;

	(void)id;
	waiter_init(&w);
	return waiter_result(&w, pm_lease_commit(lease, &all, 1, false, 0, NULL, &c, &w.w));
}

static void close_island(void)
{
	pm_lease_close(lease);
}

/* A file of @n extents gets one more by a write, and while that is under way one by @b; there is room for the blocks of
 * both, and @nodes. Is @b let through? */
static bool both_keep_the_limit(const struct beside *b, unsigned n, unsigned nodes)
{
	struct pm_id id = make("file", 9);
	struct test_waiter no;
	struct pm_change ch;
	struct pm_quota q;
	struct pm_map m;
	int err = 0;

	for (unsigned k = 0; k < n; k++)
		cr_assert_eq(reserve_island(id, 2 * k), 0);
	limit(9, usage(9).blocks + 2 + nodes);
	if (b->before)
		b->before(id, 2 * n + 2);
	if (!map_one(id, 2 * n, &m, &no)) {
		err = b->act(id, 2 * n + 2);
		cr_assert(!err || err == -EDQUOT, "%s", strerror(-err));
		commit_it(&m);
	} else {
		cr_assert_eq(nodes, 0);
	}
	q = usage(9);
	cr_assert_leq(q.blocks + q.pending, q.max_blocks, "%u extents: %llu blocks of %llu", n,
	              ULL(q.blocks + q.pending), ULL(q.max_blocks));
	if (b->after)
		b->after();
	limit(9, 0);
	cr_assert_eq(pm_remove(pool.st, root, "file", 4, &ch), 0);
	return !err;
}

static void at_every_fill(const struct beside *b)
{
	unsigned passed = 0, refused = 0;

	for (unsigned n = PM_INLINE_EXTENTS + 1; n < 180; n++) { /* more than a leaf holds */
		bool ok = both_keep_the_limit(b, n, 0);

		passed += ok;
		refused += !ok;
		cr_assert(ok || both_keep_the_limit(b, n, 3), "%u extents: refused although there is room", n);
	}
	cr_assert_gt(passed, 150);
	cr_assert_gt(refused, 0, "no node was ever needed: this proves nothing");
}

Test(promise, a_reservation_beside_a_write_does_not_pass_the_limit)
{
	at_every_fill(&(struct beside){ .act = reserve_island });
}

Test(promise, a_commit_of_a_lease_beside_a_write_does_not_pass_the_limit)
{
	at_every_fill(&(struct beside){ open_island, commit_island, close_island });
}

static void write_unstable(struct pm_id id, uint64_t block)
{
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;

	cr_assert_eq(map_one(id, block, &m, &w), 0);
	fill(&m, 'u');
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_commit(&m, m.len, PM_UNSTABLE, true, &c, &w.w)), 0);
	cr_assert_eq(c.stable, PM_UNSTABLE);
	pm_unpin(&m);
}

static int settle_and_use_up(struct pm_id id, uint64_t block)
{
	struct pm_id other = make("other", 9);
	struct pm_committed c;
	struct test_waiter w;

	(void)block;
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(pool.st, id, &c, &w.w)), 0);
	for (unsigned b = 0; !put(other, b, 1, 'o'); b++)
		;
	return 0;
}

static void remove_other(void)
{
	struct pm_change ch;

	cr_assert_eq(pm_remove(pool.st, root, "other", 5, &ch), 0);
}

Test(promise, unstable_writes_settled_beside_a_write_leave_it_its_nodes)
{
	for (unsigned n = PM_INLINE_EXTENTS + 1; n < 180; n++)
		both_keep_the_limit(&(struct beside){ write_unstable, settle_and_use_up, remove_other }, n, 12);
}

/* --- promised nodes are for those to whom they are promised ------------------------------------------ */

#define SPLITS 20u /* writes that are promised all nodes there are */

/* So many extents that a write into one of them makes a tree: it needs nodes, and no other block. */
static struct pm_id nearly_a_tree(unsigned i)
{
	struct pm_change ch;
	struct pm_id id;
	char name[16];

	snprintf(name, sizeof(name), "split%u", i);
	id = make(name, 7);
	for (uint64_t k = 0; k < PM_INLINE_EXTENTS; k++)
		cr_assert_eq(pm_allocate(pool.st, id, k * 4 * B, 3 * B, &ch), 0);
	return id;
}

static struct blk_run taken[32 * MIB / B];
static unsigned ntaken;

static void take_all_blocks(void)
{
	store_lock(pool.st);
	for (ntaken = 0; !blk_take(pool.st, 0, 1, 0, BLK_META, &taken[ntaken]); ntaken++)
		;
	store_unlock(pool.st);
}

static void give_blocks(uint64_t n)
{
	store_lock(pool.st);
	for (; n-- > 0; ntaken--)
		blk_give(pool.st, taken[ntaken - 1].start, 1);
	store_unlock(pool.st);
}

static bool node_to_be_had(void)
{
	struct blk_run run;
	int err;

	store_lock(pool.st);
	err = blk_take(pool.st, 0, 1, 0, BLK_META, &run);
	if (!err)
		blk_give(pool.st, run.start, 1);
	store_unlock(pool.st);
	return !err;
}

Test(promise, a_commit_takes_the_nodes_promised_to_it_and_nobody_else_does)
{
	struct pm_map m[SPLITS], more;
	struct pm_id id[SPLITS], other;
	struct test_waiter no;
	uint64_t n;

	for (unsigned i = 0; i < SPLITS; i++)
		id[i] = nearly_a_tree(i);
	other = nearly_a_tree(SPLITS);
	cr_assert_eq(map_one(id[0], 1, &m[0], &no), 0);
	n = m[0].pin->promised;
	take_all_blocks(); /* but those */
	give_blocks(n * (SPLITS - 1));
	for (unsigned i = 1; i < SPLITS; i++) {
		cr_assert(node_to_be_had());
		cr_assert_eq(map_one(id[i], 1, &m[i], &no), 0);
	}
	cr_assert_not(node_to_be_had(), "all are promised");
	cr_assert_eq(map_one(other, 1, &more, &no), -ENOSPC);
	for (unsigned i = 0; i < SPLITS; i++)
		commit_it(&m[i]);
	cr_assert_eq(map_one(other, 1, &more, &no), 0);
	commit_it(&more);
	give_blocks(ntaken);
}

/* --- many under way at once ------------------------------------------------------------------------ */

#define FILES  3u
#define OPEN   6u
#define SPREAD 500u /* blocks of a file, every other one counted */

struct later { /* what a refused caller would wait with; lives until called */
	struct pm_wait w;
};
static void called(struct pm_wait *w, int err)
{
	(void)err;
	free(container_of(w, struct later, w));
}

struct under_way {
	struct pm_map map[OPEN];
	bool live[OPEN];
	unsigned refused, waited, committed;
	struct pm_id rest; /* takes what comes free, or there is a limit */
	uint64_t next;
};

static void begin(struct under_way *u, unsigned k, struct pm_id id)
{
	struct later *l = calloc(1, sizeof(*l));
	bool island = random() % 8;
	uint64_t off = (uint64_t)random() % SPREAD * 2 * B;
	uint32_t len = island ? B : 1 + (uint32_t)random() % (24 * B);
	int err;

	l->w.done = called;
	err = pm_map_write(pool.st, id, island ? off : off + 1, len, &u->map[k], &l->w);
	u->live[k] = !err;
	if (err == -EINPROGRESS) {
		u->waited++;
		return;
	}
	free(l);
	cr_assert(!err || err == -EDQUOT || err == -ENOSPC, "%s", strerror(-err));
	u->refused += !!err;
}

static void end(struct under_way *u, unsigned k)
{
	enum pm_stable how = random() % 2 ? PM_UNSTABLE : PM_FILE_SYNC;
	struct pm_committed c;
	struct test_waiter w;
	int err;

	if (random() % 4) {
		waiter_init(&w);
		err = waiter_result(&w, pm_commit(&u->map[k], u->map[k].len, how, true, &c, &w.w));
		cr_assert_eq(err, 0, "a write that was mapped: %s", strerror(-err));
		u->committed++;
	}
	pm_unpin(&u->map[k]);
	u->live[k] = false;
}

static void disturb(struct under_way *u, const struct pm_id *id, unsigned f)
{
	struct pm_setattr cut = { .set = PM_SET_SIZE,
		                  .size = SPREAD * B + (uint64_t)random() % (SPREAD * B) };
	struct pm_setattr owner = { .set = PM_SET_UID, .uid = 7 + (uint32_t)random() % 2 };
	struct pm_committed c;
	struct pm_change ch;
	struct test_waiter w;
	int err = 0;

	switch (random() % 3) {
	case 0:
		cr_assert_eq(pm_setattr(pool.st, id[f], &cut, &ch), 0);
		if (u->rest.ino)
			pm_allocate(pool.st, id[f], 0, 2 * SPREAD * B, &ch); /* if there is room */
		break;
	case 1:
		err = pm_setattr(pool.st, id[f], &owner, &ch);
		cr_assert(!err || err == -EDQUOT);
		break;
	default:
		waiter_init(&w);
		cr_assert_eq(waiter_result(&w, pm_sync_file(pool.st, id[f], &c, &w.w)), 0);
	}
}

static void use_up_data(struct under_way *u)
{
	while (u->rest.ino && !put(u->rest, u->next, 1, 'r'))
		u->next++;
}

/* All of the files is reserved, and few blocks are left even for nodes. */
static void use_up_nodes(struct under_way *u, const struct pm_id *id)
{
	struct pm_id rest = make("rest", 1), spare = make("spare", 1);
	struct pm_change ch;

	for (unsigned f = 0; f < FILES; f++)
		cr_assert_eq(pm_allocate(pool.st, id[f], 0, 2 * SPREAD * B, &ch), 0);
	cr_assert_eq(put(spare, 0, 12, 's'), 0);
	cr_assert_eq(pm_allocate(pool.st, rest, 0, 4200 * B, &ch), 0);
	u->rest = rest;
	u->next = 4200;
	use_up_data(u);
	for (uint64_t b = 0; !put(rest, 2 * b, 1, 'r'); b++)
		;
	cr_assert_eq(pm_remove(pool.st, root, "spare", 5, &ch), 0);
}

/* @max: the limit, or 0: the pool is full instead. */
static void under_way(enum pm_method method, uint64_t max, unsigned seed)
{
	struct under_way u = { .refused = 0 };
	struct pm_id id[FILES];
	char name[8];

	pool_drop(&pool);
	open_small(method);
	srandom(seed);
	for (unsigned f = 0; f < FILES; f++) {
		snprintf(name, sizeof(name), "f%u", f);
		id[f] = make(name, 7 + f % 2);
	}
	if (max) {
		limit(7, max);
		limit(8, max + 3);
	} else {
		use_up_nodes(&u, id);
	}
	for (unsigned i = 0; i < 12000; i++) {
		unsigned k = (unsigned)random() % OPEN, f = (unsigned)random() % FILES;

		if (random() % 40 == 0) {
			disturb(&u, id, f);
			use_up_data(&u);
		} else if (u.live[k]) {
			end(&u, k);
		} else {
			begin(&u, k, id[f]);
		}
		for (uint32_t o = 7; o < 9; o++) {
			struct pm_quota q = usage(o);

			cr_assert(!q.max_blocks || q.blocks + q.pending <= q.max_blocks,
			          "step %u: %llu + %llu blocks", i, ULL(q.blocks), ULL(q.pending));
		}
	}
	for (unsigned k = 0; k < OPEN; k++)
		if (u.live[k])
			end(&u, k);
	cr_assert_gt(u.refused, 30);
	cr_assert_gt(u.committed, 500);
	cr_log_info("%u refused, %u waited, %u committed", u.refused, u.waited, u.committed);
}

Test(promise, what_is_mapped_is_committed_under_a_limit_with_clwb)
{
	under_way(PM_CLWB, 500, 1);
}
Test(promise, what_is_mapped_is_committed_under_a_limit_with_msync)
{
	under_way(PM_MSYNC, 500, 2);
}
Test(promise, what_is_mapped_is_committed_in_a_full_pool_with_clwb)
{
	under_way(PM_CLWB, 0, 3);
}
Test(promise, what_is_mapped_is_committed_in_a_full_pool_with_msync)
{
	under_way(PM_MSYNC, 0, 4);
}
