/* SPDX-License-Identifier: BSD-3-Clause */
/* B+trees held against a shadow: an array of what each key should lead to */
#include <errno.h>
#include <stdlib.h>
#include <criterion/criterion.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define KEYS 4096u

struct shadow {
	struct test_pool pool;
	const struct pm_inode *in;
	uint16_t len[KEYS]; /* 0: absent; else length of the value + 1 */
	uint8_t salt[KEYS];
	unsigned count;
	uint64_t rnd;
};

static uint64_t rnd(struct shadow *s)
{
	s->rnd ^= s->rnd << 13;
	s->rnd ^= s->rnd >> 7;
	s->rnd ^= s->rnd << 17;
	return s->rnd;
}

static uint64_t key_of(unsigned k)
{
	return (uint64_t)k * 0x100000001ull + 5;
}

static void value(const struct shadow *s, unsigned k, uint8_t *buf)
{
	for (unsigned i = 0; i + 1 < s->len[k]; i++)
		buf[i] = (uint8_t)(s->salt[k] + i * 7 + k);
}

/* A file without extents lends its inode. */
static struct shadow *start(const char *tag, enum pm_method method)
{
	struct shadow *s = calloc(1, sizeof(*s));
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_change ch;

	s->rnd = 88172645463325252ull;
	pool_new(&s->pool, tag, 32 << 20, method);
	cr_assert_eq(pm_create(s->pool.st, (struct pm_id){ 1, 1 }, "t", 1, &nw, &ch), 0);
	s->in = ino_at(s->pool.st, ch.obj.id.ino);
	return s;
}

static struct pm_tx *begin(struct shadow *s)
{
	pthread_mutex_lock(&s->pool.st->lock);
	return tx_begin(s->pool.st);
}

static int commit(struct shadow *s, struct pm_tx *tx)
{
	int err = tx_commit(tx, NULL);

	pthread_mutex_unlock(&s->pool.st->lock);
	return err;
}

static int insert(struct shadow *s, struct pm_tx *tx, unsigned k, unsigned len)
{
	uint8_t buf[1024];
	uint16_t old = s->len[k];
	int err;

	if (!old) {
		s->len[k] = (uint16_t)(len + 1);
		s->salt[k] = (uint8_t)rnd(s);
	}
	value(s, k, buf);
	err = bt_insert(s->pool.st, tx, s->in, key_of(k), buf, (uint16_t)(s->len[k] - 1));
	cr_assert_eq(err, old ? -EEXIST : 0, "insert of %u: %d", k, err);
	s->count += !old;
	return err;
}

static int delete (struct shadow *s, struct pm_tx *tx, unsigned k)
{
	int err = bt_delete(s->pool.st, tx, s->in, key_of(k));

	cr_assert_eq(err, s->len[k] ? 0 : -ENOENT, "removal of %u: %d", k, err);
	s->count -= s->len[k] != 0;
	s->len[k] = 0;
	return err;
}

static int count_node(void *arg, uint64_t blk, const struct pm_bnode *n)
{
	(void)blk;
	cr_assert_gt(n->count, 0);
	++*(uint64_t *)arg;
	return 0;
}

static void expect(const struct shadow *s, struct pm_tx *tx, const struct bt_cursor *c, unsigned k)
{
	uint8_t buf[1024];

	(void)tx;
	value(s, k, buf);
	cr_assert_eq(c->key, key_of(k));
	cr_assert_eq(c->len + 1, s->len[k]);
	cr_assert_arr_eq(c->val, buf, c->len);
}

/* Every key both ways, the order, and what the inode says of nodes and entries. */
static void compare(struct shadow *s, struct pm_tx *tx)
{
	const struct pm_inode *in = tx ? ino_look(tx, s->in) : s->in;
	struct pm_store *st = s->pool.st;
	struct bt_cursor c, on = { .key = 0 };
	uint64_t nodes = 0;
	unsigned seen = 0;
	int last = -1, err;

	for (unsigned k = 0; k < KEYS; k++) {
		if (!s->len[k])
			continue;
		cr_assert_eq(bt_seek(st, tx, s->in, last < 0 ? 0 : key_of((unsigned)last) + 1, &c),
		             0);
		expect(s, tx, &c, k);
		err = seen ? bt_next(st, tx, s->in, &on) : bt_seek(st, tx, s->in, 0, &on);
		cr_assert_eq(err, 0);
		expect(s, tx, &on, k);
		if (last >= 0) {
			cr_assert_eq(bt_seek_le(st, tx, s->in, key_of(k) - 1, &c), 0);
			expect(s, tx, &c, (unsigned)last);
		} else {
			cr_assert_eq(bt_seek_le(st, tx, s->in, key_of(k) - 1, &c), -ENOENT);
		}
		cr_assert_eq(bt_seek_le(st, tx, s->in, key_of(k), &c), 0);
		expect(s, tx, &c, k);
		last = (int)k;
		seen++;
	}
	cr_assert_eq(seen, s->count);
	cr_assert_eq(bt_seek(st, tx, s->in, last < 0 ? 0 : key_of((unsigned)last) + 1, &c),
	             -ENOENT);
	cr_assert_eq(bt_walk(st, tx, s->in, true, count_node, &nodes), 0);
	cr_assert_eq(in->blocks, nodes);
	cr_assert_eq(!!(in->flags & PM_IF_TREE), s->count > 0);
	if (s->count)
		cr_assert_eq(in->u.tree.count, s->count);
}

static uint64_t free_blocks(struct shadow *s)
{
	struct pm_space sp;

	pm_get_space(s->pool.st, &sp);
	return sp.free_blocks;
}

static void reopen(struct shadow *s)
{
	uint64_t ino = s->in->ino;

	pool_close(&s->pool);
	pool_open(&s->pool, PM_CLWB);
	s->in = ino_at(s->pool.st, ino);
}

static void finish(struct shadow *s)
{
	pool_close(&s->pool);
	pool_drop(&s->pool);
	free(s);
}

static void churn(struct shadow *s, unsigned steps, unsigned span, unsigned grow, unsigned maxlen)
{
	while (steps) {
		struct pm_tx *tx = begin(s);
		unsigned n = 1 + (unsigned)(rnd(s) % 6);

		for (; n && steps; n--, steps--) {
			unsigned k = (unsigned)(rnd(s) % span);

			if (rnd(s) % 100 < grow) {
				if (insert(s, tx, k, (unsigned)(rnd(s) % (maxlen + 1))) &&
				    !s->len[k])
					cr_assert_fail("inconsistent shadow");
			} else {
				delete (s, tx, k);
			}
		}
		if (steps % 97 == 0)
			compare(s, tx);
		cr_assert_eq(commit(s, tx), 0);
		if (steps % 31 == 0)
			cr_assert_eq(s->in->u.tree.count, s->count);
	}
	compare(s, NULL);
}

static void random_life(const char *tag, enum pm_method method, unsigned maxlen)
{
	struct shadow *s = start(tag, method);

	churn(s, 6000, KEYS, 80, maxlen);
	churn(s, 4000, KEYS, 50, maxlen);
	churn(s, 9000, KEYS, 15, maxlen);
	churn(s, 2000, 300, 50, maxlen);
	finish(s);
}

Test(btree, random_changes_with_small_values_match_the_shadow)
{
	random_life("bt1", PM_CLWB, 16);
}

Test(btree, random_changes_with_names_match_the_shadow)
{
	random_life("bt2", PM_CLWB, 272);
}

Test(btree, random_changes_with_the_largest_values_match_the_shadow)
{
	random_life("bt3", PM_CLWB, 1000);
}

Test(btree, random_changes_on_slow_media_match_the_shadow)
{
	random_life("bt4", PM_MSYNC, 60);
}

Test(btree, growing_keys_fill_their_nodes)
{
	struct shadow *s = start("bt5", PM_CLWB);
	uint64_t per_leaf = (PM_BLOCK - sizeof(struct pm_bnode)) / (8 + 2 + 14 + 2 + 8 - 2 + 2);

	for (unsigned k = 0; k < KEYS; k++) {
		struct pm_tx *tx = begin(s);

		insert(s, tx, k, 16);
		cr_assert_eq(commit(s, tx), 0);
	}
	compare(s, NULL);
	cr_assert_leq(s->in->blocks, KEYS / per_leaf + 4, "%lu nodes",
	              (unsigned long)s->in->blocks);
	finish(s);
}

Test(btree, shrinking_keys_from_the_top_leave_a_sound_tree)
{
	struct shadow *s = start("bt6", PM_CLWB);

	for (unsigned k = KEYS; k-- > 0;) {
		struct pm_tx *tx = begin(s);

		insert(s, tx, k, 16);
		cr_assert_eq(commit(s, tx), 0);
	}
	compare(s, NULL);
	finish(s);
}

Test(btree, removal_gives_every_block_back)
{
	struct shadow *s = start("bt7", PM_CLWB);
	uint64_t before = free_blocks(s);

	for (int round = 0; round < 3; round++) {
		struct pm_tx *tx = begin(s);

		for (unsigned k = 0; k < KEYS; k++) {
			if (k % 64 == 0) {
				cr_assert_eq(commit(s, tx), 0);
				tx = begin(s);
			}
			insert(s, tx, k, (unsigned)(rnd(s) % 200));
		}
		cr_assert_eq(commit(s, tx), 0);
		for (unsigned i = 0; i < KEYS; i++) {
			unsigned k = round == 0 ? i : round == 1 ? KEYS - 1 - i : i * 1237 % KEYS;

			tx = begin(s);
			delete (s, tx, k);
			cr_assert_eq(commit(s, tx), 0);
		}
		compare(s, NULL);
		cr_assert_eq(s->in->blocks, 0);
	}
	pool_close(&s->pool);
	pool_open(&s->pool, PM_CLWB);
	cr_assert_eq(free_blocks(s), before);
	finish(s);
}

Test(btree, replace_changes_the_value_and_nothing_else)
{
	struct shadow *s = start("bt8", PM_CLWB);
	uint8_t buf[40];
	struct pm_tx *tx = begin(s);

	for (unsigned k = 0; k < 300; k++)
		insert(s, tx, k, 40);
	s->salt[77] = (uint8_t)(s->salt[77] + 1);
	value(s, 77, buf);
	cr_assert_eq(bt_replace(s->pool.st, tx, s->in, key_of(77), buf, 40), 0);
	cr_assert_eq(bt_replace(s->pool.st, tx, s->in, key_of(77), buf, 39), -EINVAL);
	cr_assert_eq(bt_replace(s->pool.st, tx, s->in, key_of(500), buf, 40), -ENOENT);
	cr_assert_eq(commit(s, tx), 0);
	compare(s, NULL);
	finish(s);
}

Test(btree, an_aborted_change_leaves_the_tree_as_it_was)
{
	struct shadow *s = start("bt9", PM_CLWB), copy;
	struct pm_tx *tx;
	uint64_t before;

	churn(s, 2000, KEYS, 80, 100);
	copy = *s;
	before = free_blocks(s);
	tx = begin(s);
	for (unsigned i = 0; i < 400; i++)
		insert(s, tx, (unsigned)(rnd(s) % KEYS), 100);
	tx_abort(tx);
	pthread_mutex_unlock(&s->pool.st->lock);
	*s = copy;
	compare(s, NULL);
	cr_assert_eq(free_blocks(s), before);
	finish(s);
}

Test(btree, drop_gives_all_nodes_back)
{
	struct shadow *s = start("bt10", PM_CLWB);
	struct pm_tx *tx;

	churn(s, 3000, KEYS, 90, 100);
	tx = begin(s);
	cr_assert_eq(bt_drop(s->pool.st, tx, s->in), 0);
	cr_assert_eq(commit(s, tx), 0);
	memset(s->len, 0, sizeof(s->len));
	s->count = 0;
	compare(s, NULL);
	cr_assert_eq(s->in->blocks, 0);
	finish(s);
}

Test(btree, a_damaged_node_is_an_error_and_counted)
{
	struct shadow *s = start("bt11", PM_CLWB);
	struct bt_cursor c;
	struct pm_stats stats;

	churn(s, 3000, KEYS, 90, 100);
	cr_assert_eq(bt_seek(s->pool.st, NULL, s->in, key_of(2000), &c), 0);
	reopen(s); /* nothing is proved yet */
	((uint8_t *)blk_ptr(s->pool.st, c.leaf))[PM_BLOCK - 3] ^= 1;
	cr_assert_eq(bt_seek(s->pool.st, NULL, s->in, key_of(2000), &c), -EIO);
	pm_get_stats(s->pool.st, &stats);
	cr_assert_eq(stats.checksum_errors, 1);
	((uint8_t *)blk_ptr(s->pool.st, c.leaf))[PM_BLOCK - 3] ^= 1;
	cr_assert_eq(bt_seek(s->pool.st, NULL, s->in, key_of(2000), &c), 0);
	finish(s);
}

/* Proved once, a block is believed only as long as it is the node that was proved. */
Test(btree, a_block_given_to_something_else_must_prove_itself_again)
{
	struct shadow *s = start("bt12", PM_CLWB);
	struct bt_cursor c;
	struct blk_run run;
	struct pm_tx *tx;

	churn(s, 3000, KEYS, 90, 100);
	cr_assert_eq(bt_seek(s->pool.st, NULL, s->in, key_of(2000), &c), 0);
	cr_assert(blk_proved(s->pool.st, c.leaf));
	tx = begin(s);
	cr_assert_eq(bt_drop(s->pool.st, tx, s->in), 0);
	cr_assert_eq(commit(s, tx), 0);
	pthread_mutex_lock(&s->pool.st->lock);
	journal_checkpoint(s->pool.st); /* lets go of blocks of metadata */
	while (!blk_take(s->pool.st, 0, UINT32_MAX, 0, 0, &run)) /* all there is */
		;
	pthread_mutex_unlock(&s->pool.st->lock);
	cr_assert(blk_marked(s->pool.st, c.leaf));
	cr_assert(!blk_proved(s->pool.st, c.leaf));
	pool_drop(&s->pool);
	free(s);
}

/* --- a tree that no transaction made ------------------------------------------------------------- */

#define LEVELS 8u
#define FAN    100u

/* A node that names the one below it again and again. */
static void many_times(struct pm_store *st, uint64_t ino, uint64_t blk, unsigned level, uint64_t below)
{
	struct pm_bnode *n = blk_ptr(st, blk);

	memset(n, 0, PM_BLOCK);
	n->magic = PM_NODE_MAGIC;
	n->level = (uint8_t)level;
	n->owner = ino;
	n->self = blk;
	n->count = FAN;
	n->low = PM_BLOCK;
	for (unsigned i = 0; i < FAN; i++) {
		struct pm_bent e = { .key = i, .len = sizeof(below) };

		n->low = (uint16_t)(n->low - 24);
		memcpy((uint8_t *)n + n->low, &e, sizeof(e));
		memcpy((uint8_t *)n + n->low + offsetof(struct pm_bent, val), &below, sizeof(below));
		n->slot[i] = n->low;
	}
	n->crc = pm_crc(n, PM_BLOCK, 0);
}

/* 100^8 ways lead through eight nodes: a walk gives up where more come than there are blocks. */
Test(btree, a_walk_through_nodes_named_many_times_ends, .timeout = 30)
{
	struct shadow *s = start("ways", PM_CLWB);
	struct pm_store *st = s->pool.st;
	struct pm_tx *tx = begin(s);
	struct pm_inode *in;
	struct blk_run run;
	uint64_t n = 0;

	cr_assert_eq(tx_take(tx, 0, LEVELS, BLK_WHOLE, &run), 0);
	for (unsigned l = 0; l < LEVELS; l++)
		many_times(st, s->in->ino, run.start + l, l, run.start + l - 1);
	in = ino_edit(tx, s->in);
	in->flags |= PM_IF_TREE;
	in->u.tree.root = run.start + LEVELS - 1;
	in->u.tree.height = LEVELS;
	cr_assert_eq(commit(s, tx), 0);
	cr_assert_eq(bt_walk(st, NULL, s->in, true, count_node, &n), -EIO);
	cr_assert_eq(n, st->super.blocks);
	pool_drop(&s->pool);
	free(s);
}
