/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_journal.c - transactions reach the media whole, in order, or not at all
 *
 * The root inode is the guinea pig: uid counts transactions, verf and rdev show whether one was
 * whole. A kill is a copy of the media while the store is open.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/medium.h"
#include "test/lib/pool.h"

#define MIB (1ull << 20)

static const struct pm_inode *root(struct test_pool *p)
{
	int err;
	const struct pm_inode *in = ino_get(p->st, (struct pm_id){ PM_ROOT_INO, 1 }, &err);

	cr_assert_not_null(in, "root is damaged");
	return in;
}

/* Transaction number @n: two places of one inode. */
static pm_lsn count_to(struct test_pool *p, uint32_t n)
{
	struct pm_inode *in;
	struct pm_tx *tx;
	pm_lsn lsn;

	pthread_mutex_lock(&p->st->lock);
	tx = tx_begin(p->st);
	in = ino_edit(tx, root(p));
	in->uid = n;
	in->rdev_major = n;
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	pthread_mutex_unlock(&p->st->lock);
	return lsn;
}

static void is_at(struct test_pool *p, uint32_t n)
{
	cr_assert_eq(root(p)->uid, n, "at %u, not %u", root(p)->uid, n);
	cr_assert_eq(root(p)->rdev_major, n, "half a transaction");
}

static uint64_t replayed(struct test_pool *p)
{
	struct pm_info i;

	pm_get_info(p->st, &i);
	return i.replayed;
}

static void with_file(const char *path, off_t at, void *buf, size_t len, bool wr)
{
	int fd = open(path, O_RDWR);
	ssize_t n = wr ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at);

	cr_assert_eq(n, (ssize_t)len);
	close(fd);
}

/* Undo what was done in place, so that only the journal can bring it back. */
static void forget_root(const char *path, uint64_t data_start)
{
	off_t at = (off_t)(data_start * PM_BLOCK + PM_INODE_SIZE);
	struct pm_inode in;

	with_file(path, at, &in, sizeof(in), false);
	in.uid = in.rdev_major = 0;
	in.crc = pm_crc(&in, sizeof(in), 0);
	with_file(path, at, &in, sizeof(in), true);
}

/* Byte of record number @n (from 0) in a lane where all are alike. */
static off_t record_at(struct pm_store *st, unsigned lane, unsigned n, struct pm_rec *rec)
{
	uint64_t at =
		(st->super.lane_start + (uint64_t)lane * st->super.lane_blocks + 1) * PM_BLOCK;

	for (unsigned i = 0;; i++) {
		memcpy(rec, st->media.base + at, sizeof(*rec));
		cr_assert_eq(rec->magic, PM_REC_MAGIC);
		if (i == n)
			return (off_t)at;
		at += rec->len;
	}
}

/* Change record @n of lane 0 in the copy @k of @p, and seal it again. */
static void forge(struct test_pool *k, struct pm_store *st, unsigned n, void (*change)(struct pm_rec *rec))
{
	struct pm_rec rec;
	off_t at = record_at(st, 0, n, &rec);
	uint64_t buf[64];
	struct pm_rec *r = (void *)buf;

	cr_assert_leq(rec.len, sizeof(buf));
	with_file(k->path, at, buf, rec.len, false);
	change(r);
	r->crc = rec_crc(rec_seed(&st->super), r);
	with_file(k->path, at, buf, rec.len, true);
}

/* One byte of record @n of lane 0. */
static void hurt(struct test_pool *k, struct pm_store *st, unsigned n, unsigned byte)
{
	struct pm_rec rec;
	off_t at = record_at(st, 0, n, &rec) + byte;
	uint8_t b;

	with_file(k->path, at, &b, 1, false);
	b ^= 0x10;
	with_file(k->path, at, &b, 1, true);
}

/* --- transactions ---------------------------------------------------------------------------- */

Test(tx, an_empty_one_has_lsn_0_and_leaves_no_record)
{
	struct test_pool p;
	struct pm_stats s;
	pm_lsn lsn = 7;
	struct pm_tx *tx;

	pool_new(&p, "empty", 16 * MIB, PM_CLWB);
	tx = tx_begin(p.st);
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	cr_assert_eq(lsn, 0);
	lsn = 7;
	tx = tx_begin(p.st);
	ino_edit(tx, root(&p));
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	cr_assert_eq(lsn, 0, "nothing differs");
	pm_get_stats(p.st, &s);
	cr_assert_eq(s.transactions, 0);
	pool_drop(&p);
}

Test(tx, shadows_are_one_per_object_and_invisible_until_commit)
{
	struct test_pool p;
	struct pm_tx *tx;
	struct pm_inode *in;

	pool_new(&p, "shadow", 16 * MIB, PM_CLWB);
	tx = tx_begin(p.st);
	cr_assert_eq(tx_look(tx, root(&p)), root(&p));
	in = ino_edit(tx, root(&p));
	in->uid = in->rdev_major = 5;
	cr_assert_eq(ino_edit(tx, root(&p)), in);
	cr_assert_eq(tx_look(tx, root(&p)), in);
	is_at(&p, 0);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	is_at(&p, 5);
	pool_drop(&p);
}

Test(tx, abort_leaves_everything_as_it_was)
{
	struct test_pool p;
	struct blk_run run;
	struct pm_space a, b;
	struct pm_inode *in;
	struct pm_tx *tx;

	pool_new(&p, "abort", 16 * MIB, PM_CLWB);
	pm_get_space(p.st, &a);
	tx = tx_begin(p.st);
	ino_edit(tx, root(&p))->uid = 9;
	cr_assert_eq(tx_take(tx, 0, 10, 0, &run), 0);
	memset(tx_new_block(tx, run.start, TX_RAW), 0xee, PM_BLOCK);
	cr_assert_eq(ino_new(tx, PM_REG, &in), 0);
	tx_abort(tx);
	is_at(&p, 0);
	pm_get_space(p.st, &b);
	cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0);
	cr_assert_not(blk_marked(p.st, run.start));
	pool_drop(&p);
}

Test(tx, costs_one_drain_or_two_with_new_blocks_and_64_bytes_of_journal_per_structure)
{
	struct test_pool p;
	struct pm_stats a, b;
	struct blk_run run;
	struct pm_tx *tx;

	pool_new(&p, "cost", 16 * MIB, PM_CLWB);
	pm_get_stats(p.st, &a);
	count_to(&p, 1);
	pm_get_stats(p.st, &b);
	cr_assert_eq(b.drains - a.drains, 1);
	/* crc, uid and rdev change: 3 ranges of a word each */
	cr_assert_leq(b.journal_bytes - a.journal_bytes, 3 * 8 + 64);
	tx = tx_begin(p.st);
	cr_assert_eq(tx_take(tx, 0, 1, 0, &run), 0);
	memset(tx_new_block(tx, run.start, TX_RAW), 0xee, PM_BLOCK);
	ino_edit(tx, root(&p))->uid = 2;
	tx_after_data(tx);
	pm_get_stats(p.st, &a);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	pm_get_stats(p.st, &b);
	cr_assert_eq(b.drains - a.drains, 2);
	cr_assert_leq(b.journal_bytes - a.journal_bytes, 3 * 8 + 64,
	              "a new block went into the record");
	cr_assert_eq(*(uint8_t *)blk_ptr(p.st, run.start), 0xee);
	pool_drop(&p);
}

Test(tx, one_too_large_for_a_lane_is_refused_whole)
{
	struct test_pool p;
	struct blk_run run;
	struct pm_tx *tx;

	pool_new(&p, "big", 16 * MIB, PM_CLWB);
	tx = tx_begin(p.st);
	cr_assert_eq(tx_take(tx, 0, 64, BLK_WHOLE, &run), 0);
	ino_edit(tx, root(&p))->uid = 1;
	for (uint64_t b = 0; b < 64; b++)
		memset(tx_edit(tx, blk_ptr(p.st, run.start + b), PM_BLOCK, TX_RAW), 0x77, PM_BLOCK);
	cr_assert_eq(tx_commit(tx, NULL), -E2BIG);
	is_at(&p, 0);
	cr_assert_eq(*(uint8_t *)blk_ptr(p.st, run.start), 0);
	cr_assert_not(blk_marked(p.st, run.start));
	count_to(&p, 3);
	is_at(&p, 3);
	pool_drop(&p);
}

Test(tx, many_objects_in_one)
{
	struct test_pool p;
	struct blk_run run;
	struct pm_tx *tx;

	pool_new(&p, "many", 64 * MIB, PM_CLWB);
	for (unsigned round = 1; round < 4; round++) {
		tx = tx_begin(p.st);
		cr_assert_eq(tx_take(tx, 0, 300, BLK_WHOLE, &run), 0);
		for (uint64_t b = 0; b < 300; b++) {
			uint64_t *w = tx_edit(tx, blk_ptr(p.st, run.start + b), PM_BLOCK, TX_RAW);

			w[b] = b + round;
			w[511] = ~b;
		}
		for (uint64_t b = 0; b < 300; b++)
			cr_assert_neq(tx_look(tx, blk_ptr(p.st, run.start + b)),
			              blk_ptr(p.st, run.start + b));
		cr_assert_eq(tx_commit(tx, NULL), 0);
		for (uint64_t b = 0; b < 300; b++) {
			const uint64_t *w = blk_ptr(p.st, run.start + b);

			cr_assert(w[b] == b + round && w[511] == ~b);
		}
	}
	pool_drop(&p);
}

/* What a record needs for the words that differ, found one by one. */
static uint64_t ranges_of(const uint64_t *old, const uint64_t *now, unsigned n)
{
	uint64_t bytes = 0;
	unsigned same = 2; /* words since the last that differs */

	for (unsigned i = 0; i < n; i++, same++) {
		if (old[i] == now[i])
			continue;
		bytes += same > 1 ? sizeof(struct pm_rec_range) + 8 : 8 * (same + 1);
		same = (unsigned)-1;
	}
	return bytes;
}

/* Pieces of any place and length, few words of them changed or many: what is on the media afterwards is what was
 * edited, and the record has the words that differ and no more. */
Test(tx, whatever_is_changed_arrives_and_the_record_has_nothing_else)
{
	enum { WORDS = PM_BLOCK / 8 };
	uint64_t model[WORDS] = { 0 }, old[WORDS];
	struct pm_stats a, b;
	struct test_pool p;
	struct blk_run run;
	struct pm_tx *tx;
	const uint64_t *at;

	srand(1);
	pool_new(&p, "diff", 16 * MIB, PM_CLWB);
	tx = tx_begin(p.st);
	cr_assert_eq(tx_take(tx, 0, 1, 0, &run), 0);
	tx_new_block(tx, run.start, TX_RAW);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	at = blk_ptr(p.st, run.start);
	for (unsigned round = 0; round < 5000; round++) {
		unsigned from = (unsigned)rand() % WORDS, len = 1 + (unsigned)rand() % (WORDS - from), rare = 1 + (unsigned)rand() % 70;
		uint64_t *edit, ranges;

		if (round % 3 == 0)
			len = 1 + (unsigned)rand() % (WORDS - from < 20 ? WORDS - from : 20);
		memcpy(old, model, sizeof(old));
		tx = tx_begin(p.st);
		edit = tx_edit(tx, at + from, len * 8ull, TX_RAW);
		for (unsigned i = 0; i < len; i++)
			if ((unsigned)rand() % rare == 0)
				edit[i] = model[from + i] ^= 1ull << (unsigned)rand() % 64;
		ranges = ranges_of(old + from, model + from, len);
		pm_get_stats(p.st, &a);
		cr_assert_eq(tx_commit(tx, NULL), 0);
		pm_get_stats(p.st, &b);
		cr_assert(!memcmp(at, model, sizeof(model)), "round %u", round);
		cr_assert_eq(b.journal_bytes - a.journal_bytes, ranges ? sizeof(struct pm_rec) + ranges : 0, "round %u", round);
	}
	pool_drop(&p);
}

/* --- replay ---------------------------------------------------------------------------------- */

Test(replay, brings_back_what_was_not_yet_in_place)
{
	struct test_pool p, k;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 10; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "killed");
	forget_root(k.path, p.st->super.data_start);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 10);
	is_at(&k, 10);
	pool_drop(&k);
	pool_drop(&p);
}

static void unsure_of_3(struct pm_rec *r)
{
	r->unsure = 3;
}

/* Record 6 is torn; the three behind it were on their way at the same time, so nothing says that it was durable. */
Test(replay, stops_at_a_torn_record_and_at_the_gap_behind_it)
{
	struct test_pool p, k;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 10; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "torn");
	forget_root(k.path, p.st->super.data_start);
	for (unsigned n = 7; n < 10; n++)
		forge(&k, p.st, n, unsure_of_3);
	hurt(&k, p.st, 6, 30);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 6);
	is_at(&k, 6);
	/* what lay behind the gap stays dead, also when new records follow */
	count_to(&k, 100);
	pool_kill(&k);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 1);
	is_at(&k, 100);
	pool_drop(&k);
	pool_drop(&p);
}

static void later(struct pm_rec *r)
{
	r->seq += 7;
	r->unsure = 7;
}

Test(replay, stops_at_a_gap_in_the_sequence_of_whole_records)
{
	struct test_pool p, k;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 4; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "gap");
	forget_root(k.path, p.st->super.data_start);
	forge(&k, p.st, 3, later);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 3);
	is_at(&k, 3);
	pool_drop(&k);
	pool_drop(&p);
}

Test(replay, does_not_believe_a_record_that_points_outside_the_data)
{
	struct test_pool p, k;
	struct pm_rec rec;
	uint8_t buf[512] __attribute__((aligned(8)));
	struct pm_rec_range rr;
	off_t at;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	count_to(&p, 1);
	count_to(&p, 2);
	at = record_at(p.st, 0, 1, &rec);
	for (unsigned i = 0; i < 3; i++) {
		pool_copy(&k, &p, "outside");
		with_file(k.path, at, buf, rec.len, false);
		memcpy(&rr, buf + sizeof(rec), sizeof(rr));
		if (i == 0)
			rr.at = 0; /* a superblock */
		else if (i == 1)
			rr.at = 16 * MIB - 4;
		else
			rr.len = 0x7ff8;
		memcpy(buf + sizeof(rec), &rr, sizeof(rr));
		((struct pm_rec *)(void *)buf)->crc = rec_crc(rec_seed(&p.st->super), (void *)buf);
		with_file(k.path, at, buf, rec.len, true);
		pool_open(&k, PM_CLWB);
		cr_assert_eq(replayed(&k), 1, "case %u", i);
		pool_drop(&k);
	}
	pool_drop(&p);
}

Test(replay, is_the_same_when_done_twice_and_when_only_looking)
{
	struct pm_open_opts ro = { .read_only = true };
	struct test_pool p, k, k2;
	struct pm_error why;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 4; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "once");
	forget_root(k.path, p.st->super.data_start);
	for (unsigned i = 0; i < 2; i++) { /* reading only changes nothing */
		cr_assert_eq(pm_open(k.path, &ro, &k.st, &why), 0, "%s", why.text);
		cr_assert_eq(replayed(&k), 4);
		is_at(&k, 4);
		cr_assert_eq(pm_close(k.st), 0);
	}
	k.st = NULL;
	/* a recovery cut off between its first write, the next boot, and its checkpoint */
	pool_copy(&k2, &k, "again");
	for (unsigned i = 0; i < 2; i++) {
		struct pm_super s;

		with_file(k2.path, i * PM_BLOCK, &s, sizeof(s), false);
		s.boot += 3;
		s.crc = pm_crc(&s, sizeof(s), offsetof(struct pm_super, crc));
		with_file(k2.path, i * PM_BLOCK, &s, sizeof(s), true);
	}
	pool_open(&k2, PM_CLWB);
	cr_assert_eq(replayed(&k2), 4);
	is_at(&k2, 4);
	pool_drop(&k2);
	pool_drop(&k);
	pool_drop(&p);
}

/* With PM_VOLATILE nothing is known to be durable, and behind a lost record nothing is. */
Test(replay, takes_no_record_for_lost_that_nobody_calls_durable)
{
	struct pm_rec rec = { .magic = PM_REC_MAGIC, .len = sizeof(rec) }, got;
	struct test_pool p, k;
	pm_lsn lsn;

	pool_new(&p, "live", 16 * MIB, PM_VOLATILE);
	for (uint32_t n = 1; n <= 5; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "torn");
	hurt(&k, p.st, 2, 30);
	pool_open(&k, PM_VOLATILE);
	cr_assert_eq(replayed(&k), 2);
	pool_drop(&k);
	pool_drop(&p);
	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	count_to(&p, 1);
	record_at(p.st, 0, 0, &got);
	cr_assert_eq(got.unsure, 0);
	journal_fail(p.st);
	cr_assert_eq(journal_append(p.st, &rec, NULL, NULL, &lsn), -EIO);
	record_at(p.st, 0, 1, &got);
	cr_assert_eq(got.unsure, PM_REC_MUTE);
	pool_drop(&p);
}

/* Whoever can have bytes of his choice in a record, as the target of a link, could have others found there. */
Test(replay, believes_nobody_who_does_not_know_the_secret)
{
	struct pm_inode in;
	struct test_pool p, k;
	uint64_t at, forged[8] = { 0 };
	struct pm_rec *r = (void *)forged;
	struct pm_rec_range rr;

	for (unsigned known = 0; known < 2; known++) {
		pool_new(&p, "live", 16 * MIB, PM_CLWB);
		at = p.st->super.data_start * PM_BLOCK + PM_INODE_SIZE;
		count_to(&p, 1);
		pool_copy(&k, &p, "forged");
		*r = (struct pm_rec){ .magic = PM_REC_MAGIC,
			              .len = 24 + 8 + 8,
			              .nranges = 1,
			              .seq = journal_last(p.st) + 1 };
		rr = (struct pm_rec_range){ .len = 8 };
		rr.at = (at + offsetof(struct pm_inode, rdev_major)) & ((1ull << 48) - 1);
		memcpy(&forged[3], &rr, sizeof(rr));
		forged[4] = 99;
		r->crc = known ? rec_crc(rec_seed(&p.st->super), r) : ~crc32_iscsi((uint8_t *)forged + 4, 36, ~0u);
		with_file(k.path, (off_t)(lane_at(p.st, 0) + PM_BLOCK + lane_area(p.st) / 2), forged, 40, true);
		pool_open(&k, PM_CLWB);
		cr_assert_eq(replayed(&k), 1 + known);
		with_file(k.path, (off_t)at, &in, sizeof(in), false);
		cr_assert_eq(in.rdev_major, known ? 99 : 1);
		pool_drop(&k);
		pool_drop(&p);
	}
}

/* --- format version 1 ------------------------------------------------------------------------ */

static void of_version_1(struct test_pool *k)
{
	uint8_t *image = malloc(16 * MIB);

	with_file(k->path, 0, image, 16 * MIB, false);
	image_of_version_1(image);
	with_file(k->path, 0, image, 16 * MIB, true);
	free(image);
}

static void both_supers(const char *path, struct pm_super s[2])
{
	for (unsigned i = 0; i < 2; i++)
		with_file(path, i * PM_BLOCK, &s[i], sizeof(s[i]), false);
}

Test(version_1, becomes_version_2_when_its_records_are_replayed)
{
	struct pm_open_opts ro = { .read_only = true };
	struct test_pool p, k;
	struct pm_super s[2];
	struct pm_error why;
	struct pm_info i;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 5; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "old");
	of_version_1(&k);
	forget_root(k.path, p.st->super.data_start);
	cr_assert_eq(pm_open(k.path, &ro, &k.st, &why), 0, "%s", why.text);
	is_at(&k, 5);
	cr_assert_eq(pm_close(k.st), 0);
	both_supers(k.path, s);
	cr_assert(s[0].version == 1 && s[1].version == 1, "a look changes nothing");
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 5);
	is_at(&k, 5);
	pm_get_info(k.st, &i);
	cr_assert_eq(i.version, 2);
	both_supers(k.path, s);
	cr_assert(s[0].version == 2 && s[1].version == 2);
	count_to(&k, 6);
	count_to(&k, 7);
	pool_kill(&k);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 2);
	is_at(&k, 7);
	pool_drop(&k);
	pool_drop(&p);
}

/* As ever: what follows a record that is not whole was not acknowledged, for all that its records say. */
Test(version_1, ends_at_the_first_record_that_is_not_whole)
{
	struct test_pool p, k;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 5; n++)
		count_to(&p, n);
	pool_copy(&k, &p, "old");
	of_version_1(&k);
	forget_root(k.path, p.st->super.data_start);
	hurt(&k, p.st, 3, 30);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 3);
	is_at(&k, 3);
	pool_drop(&k);
	pool_drop(&p);
}

/* A checksum without the secret counts there only. */
Test(version_1, has_no_records_in_a_pool_of_version_2)
{
	struct pm_super s;
	struct test_pool p, k;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	count_to(&p, 1);
	pool_copy(&k, &p, "mixed");
	of_version_1(&k);
	for (unsigned i = 0; i < 2; i++) {
		with_file(k.path, i * PM_BLOCK, &s, sizeof(s), false);
		s.version = 2;
		s.crc = pm_crc(&s, sizeof(s), offsetof(struct pm_super, crc));
		with_file(k.path, i * PM_BLOCK, &s, sizeof(s), true);
	}
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 0);
	pool_drop(&k);
	pool_drop(&p);
}

/* --- checkpoints ----------------------------------------------------------------------------- */

/* Thousands of transactions go through every lane several times; a kill loses none of them. */
Test(checkpoint, full_lanes_are_left_behind_and_a_kill_at_any_time_loses_nothing)
{
	struct pm_mkfs_opts o = { .size = 64 * MIB, .lanes = 3 };
	struct test_pool p, k;
	struct pm_stats s;
	uint32_t n = 0;

	pool_path(&p, "lanes");
	cr_assert_eq(pm_mkfs(p.path, &o, NULL), 0);
	pool_open(&p, PM_CLWB);
	cr_assert_eq(p.st->super.lanes, 3);
	do {
		for (unsigned i = 0; i < 5003; i++)
			count_to(&p, ++n);
		pm_get_stats(p.st, &s);
		pool_copy(&k, &p, "kill");
		forget_root(k.path, p.st->super.data_start);
		pool_open(&k, PM_CLWB);
		if (replayed(&k))
			is_at(&k, n);
		cr_assert_lt(replayed(&k), n == 5003 ? n + 1 : n);
		pool_drop(&k);
	} while (s.checkpoints < 8);
	pool_kill(&p);
	pool_open(&p, PM_CLWB);
	is_at(&p, n);
	pool_drop(&p);
}

/* Pages of the @len bytes at @at that this process need not ask the kernel for: bit 63 of proc_pid_pagemap(5). */
static size_t pages_present(const uint8_t *at, size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry;

	cr_assert_geq(fd, 0);
	for (size_t done = 0; done < len; done += page) {
		off_t where = (off_t)((uintptr_t)(at + done) / page * sizeof(entry));

		cr_assert_eq(pread(fd, &entry, sizeof(entry), where), sizeof(entry));
		n += entry >> 63;
	}
	close(fd);
	return n;
}

Test(checkpoint, no_record_waits_for_a_page_of_its_lane)
{
	struct pm_mkfs_opts o = { .size = 64 * MIB, .lanes = 2 };
	struct test_pool p;
	size_t len;

	pool_path(&p, "mapped");
	cr_assert_eq(pm_mkfs(p.path, &o, NULL), 0);
	pool_open(&p, PM_CLWB);
	len = lane_at(p.st, 2) - lane_at(p.st, 0);
	cr_assert_eq(pages_present(p.st->media.base + lane_at(p.st, 0), len), len / (size_t)sysconf(_SC_PAGESIZE));
	pool_drop(&p);
}

/* It was being written when the power failed: what it would have checkpointed is still in the
 * lanes. */
Test(checkpoint, a_torn_lane_header_leaves_the_older_one)
{
	struct test_pool p, k;
	uint8_t junk = 0xa5;

	pool_new(&p, "live", 16 * MIB, PM_CLWB);
	for (uint32_t n = 1; n <= 3; n++)
		count_to(&p, n);
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t newest = journal_last(p.st);
		struct pm_lane_head h[2];
		off_t at = 2 * PM_BLOCK;

		cr_assert(journal_checkpoint(p.st));
		pool_copy(&k, &p, "head");
		with_file(k.path, at, h, sizeof(h), false);
		cr_assert_neq(h[0].ckpt_seq, h[1].ckpt_seq);
		at += h[1].ckpt_seq > h[0].ckpt_seq ? 64 + 12 : 12;
		cr_assert_eq(h[h[1].ckpt_seq > h[0].ckpt_seq].ckpt_seq, newest);
		with_file(k.path, at, &junk, 1, true);
		forget_root(k.path, p.st->super.data_start);
		pool_open(&k, PM_CLWB);
		cr_assert_eq(replayed(&k), copy ? 1 : 3);
		is_at(&k, 3 + copy);
		pool_drop(&k);
		count_to(&p, 4);
	}
	pool_drop(&p);
}

/* The header that told of the last checkpoint is lost, and so is the record that would have told. */
Test(checkpoint, nobody_tells_of_is_missed)
{
	struct pm_mkfs_opts o = { .size = 64 * MIB, .lanes = 3 };
	struct test_pool p, k;
	struct pm_lane_head h[2];
	struct pm_error why;
	struct pm_rec rec;
	off_t at;

	pool_path(&p, "lanes");
	cr_assert_eq(pm_mkfs(p.path, &o, NULL), 0);
	pool_open(&p, PM_CLWB);
	for (uint32_t n = 1; n <= 8; n++) {
		count_to(&p, n);
		if (n == 3 || n == 5)
			cr_assert(journal_checkpoint(p.st));
	}
	pool_copy(&k, &p, "head");
	at = (off_t)lane_at(p.st, 1);
	with_file(k.path, at, h, sizeof(h), false);
	h[h[1].ckpt_seq > h[0].ckpt_seq].pad[3] ^= 1;
	with_file(k.path, at, h, sizeof(h), true);
	pool_open(&k, PM_CLWB);
	cr_assert_eq(replayed(&k), 3, "the first record of lane 2 tells");
	pool_drop(&k);
	pool_copy(&k, &p, "both");
	with_file(k.path, at, h, sizeof(h), true);
	at = record_at(p.st, 2, 0, &rec);
	rec.nranges++;
	with_file(k.path, at, &rec, sizeof(rec), true);
	cr_assert_eq(pool_try_open(&k, PM_CLWB, &why), -EUCLEAN);
	cr_assert(strstr(why.text, "journal lane 2 is damaged"), "%s", why.text);
	pool_drop(&k);
	pool_drop(&p);
}

Test(checkpoint, a_clean_close_leaves_nothing_to_replay)
{
	struct test_pool p;

	pool_new(&p, "clean", 16 * MIB, PM_CLWB);
	count_to(&p, 4);
	pool_close(&p);
	pool_open(&p, PM_CLWB);
	cr_assert_eq(replayed(&p), 0);
	is_at(&p, 4);
	pool_drop(&p);
}

/* --- msync ----------------------------------------------------------------------------------- */

Test(msync, is_visible_at_once_and_durable_when_the_wait_ends)
{
	struct test_pool p, k;
	struct pm_stats s;
	pm_lsn lsn = 0;

	pool_new(&p, "slow", 16 * MIB, PM_MSYNC);
	for (uint32_t n = 1; n <= 20; n++) {
		lsn = count_to(&p, n);
		is_at(&p, n);
	}
	cr_assert_neq(lsn, 0);
	cr_assert_eq(pool_wait(p.st, lsn), 0);
	cr_assert_eq(pm_durable(p.st, lsn, NULL), 0);
	cr_assert_eq(pm_durable(p.st, 0, NULL), 0);
	pm_get_stats(p.st, &s);
	cr_assert_gt(s.msyncs, 0);
	pool_copy(&k, &p, "killed");
	pool_open(&k, PM_MSYNC);
	is_at(&k, 20);
	pool_drop(&k);
	pool_drop(&p);
}

/* A reply that made no change still shows the changes of others: they must outlive a crash as well. */
Test(msync, what_is_seen_is_durable_when_a_wait_for_it_ends)
{
	struct test_pool p, k;

	pool_new(&p, "seen", 16 * MIB, PM_MSYNC);
	for (uint32_t n = 1; n <= 20; n++) {
		count_to(&p, n); /* nobody waits for these */
		if (n % 5)
			continue;
		cr_assert_eq(pool_wait(p.st, PM_LSN_SEEN), 0);
		pool_copy(&k, &p, "killed");
		pool_open(&k, PM_MSYNC);
		is_at(&k, n);
		pool_drop(&k);
	}
	pool_drop(&p);
}

Test(msync, the_place_itself_changes_only_after_the_record)
{
	struct test_pool p;
	const struct pm_inode *in;
	pm_lsn lsn;

	pool_new(&p, "place", 16 * MIB, PM_MSYNC);
	cr_assert_neq(p.st->media.view, p.st->media.base);
	in = (const void *)(p.st->media.base + ((const uint8_t *)root(&p) - p.st->media.view));
	pthread_mutex_lock(&p.st->lock);
	{
		struct pm_tx *tx = tx_begin(p.st);

		ino_edit(tx, root(&p))->uid = 77;
		cr_assert_eq(tx_commit(tx, &lsn), 0);
	}
	cr_assert_eq(root(&p)->uid, 77);
	cr_assert_eq(in->uid, 0, "stored in place under the lock, before any sync");
	pthread_mutex_unlock(&p.st->lock);
	cr_assert_eq(pool_wait(p.st, lsn), 0);
	cr_assert_eq(in->uid, 77);
	pool_drop(&p);
}

Test(msync, new_blocks_and_lanes_many_times_round)
{
	struct test_pool p;
	struct blk_run run = { 0, 0 };
	struct pm_stats s;
	pm_lsn lsn = 0;
	uint32_t n = 0;

	pool_new(&p, "round", 16 * MIB, PM_MSYNC);
	do {
		for (unsigned i = 0; i < 100; i++) {
			struct pm_tx *tx;

			pthread_mutex_lock(&p.st->lock);
			tx = tx_begin(p.st);
			if (run.len)
				tx_give(tx, run.start, run.len, true);
			cr_assert_eq(tx_take(tx, 0, 2, BLK_WHOLE, &run), 0,
			             "blocks do not come back");
			for (unsigned b = 0; b < 2; b++)
				memset(tx_new_block(tx, run.start + b, TX_RAW), (int)n & 0xff,
				       PM_BLOCK);
			ino_edit(tx, root(&p))->uid = ++n;
			cr_assert_eq(tx_commit(tx, &lsn), 0);
			pthread_mutex_unlock(&p.st->lock);
		}
		cr_assert_eq(pool_wait(p.st, lsn), 0);
		pm_get_stats(p.st, &s);
	} while (s.checkpoints < 12);
	pool_kill(&p);
	pool_open(&p, PM_MSYNC);
	cr_assert_eq(root(&p)->uid, n);
	for (unsigned b = 0; b < 2 * PM_BLOCK; b++)
		cr_assert_eq(((uint8_t *)blk_ptr(p.st, run.start))[b], (uint8_t)(n - 1));
	pool_close(&p);
	pool_open(&p, PM_MSYNC);
	cr_assert_eq(root(&p)->uid, n);
	pool_close(&p);
	pool_drop(&p);
}

/* A medium whose syncs begin to fail. */
static bool broken;
static int (*real_sync)(struct pm_media *m, const void *at, size_t len);
static int maybe_sync(struct pm_media *m, const void *at, size_t len)
{
	return __atomic_load_n(&broken, __ATOMIC_SEQ_CST) ? -EIO : real_sync(m, at, len);
}

Test(msync, a_failed_flush_reaches_every_waiter_changes_the_verifier_and_ends_changes)
{
	struct pm_media_ops ops;
	struct test_pool p;
	struct pm_stats s;
	uint8_t before[8], after[8];
	struct pm_tx *tx;
	pm_lsn lsn;

	pool_new(&p, "broken", 16 * MIB, PM_MSYNC);
	ops = *p.st->media.ops;
	real_sync = ops.sync;
	ops.sync = maybe_sync;
	p.st->media.ops = &ops;
	lsn = count_to(&p, 1);
	cr_assert_eq(pool_wait(p.st, lsn), 0);
	pm_write_verf(p.st, before);
	__atomic_store_n(&broken, true, __ATOMIC_SEQ_CST);
	lsn = count_to(&p, 2);
	cr_assert_eq(pool_wait(p.st, lsn), -EIO);
	pm_write_verf(p.st, after);
	cr_assert_arr_neq(before, after, 8);
	pthread_mutex_lock(&p.st->lock);
	tx = tx_begin(p.st);
	ino_edit(tx, root(&p))->uid = 3;
	cr_assert_eq(tx_commit(tx, &lsn), -EIO);
	pthread_mutex_unlock(&p.st->lock);
	pm_get_stats(p.st, &s);
	cr_assert_gt(s.flush_errors, 0);
	__atomic_store_n(&broken, false, __ATOMIC_SEQ_CST);
	cr_assert_eq(pm_close(p.st), -EIO, "closed clean after a lost flush");
	pool_open(&p, PM_MSYNC);
	cr_assert_not(p.st->info.was_clean);
	pool_close(&p);
	pool_drop(&p);
}
