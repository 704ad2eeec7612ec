/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_store.c - what survives closing and killing: inodes, slots, free space, orphans, the write
 * verifier
 *
 * Files are made here from the parts below names: an inode of the table and an extent.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define MIB (1ull << 20)

/* One inode with @blocks blocks; its number. */
static struct pm_id make_file(struct test_pool *p, uint64_t blocks, uint32_t nlink)
{
	struct pm_store *st = p->st;
	struct pm_inode *in;
	struct blk_run run;
	struct pm_id id;
	struct pm_tx *tx;
	pm_lsn lsn;

	pthread_mutex_lock(&st->lock);
	tx = tx_begin(st);
	cr_assert_eq(ino_new(tx, PM_REG, &in), 0);
	in->nlink = nlink;
	in->size = blocks * PM_BLOCK;
	id = (struct pm_id){ in->ino, in->gen };
	for (uint64_t at = 0; at < blocks; at += run.len) {
		struct ext e = { .lblk = at };

		cr_assert_eq(tx_take(tx, 0, blocks - at, 0, &run), 0);
		e.pblk = run.start;
		e.len = run.len;
		cr_assert_eq(ext_put(st, tx, ino_at(st, id.ino), &e), 0);
	}
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	pthread_mutex_unlock(&st->lock);
	cr_assert_eq(pool_wait(st, lsn), 0);
	return id;
}

static void give_piece(void *arg, const struct ext *e)
{
	tx_give(arg, e->pblk, e->len, false);
}

static void free_file(struct test_pool *p, struct pm_id id)
{
	struct pm_store *st = p->st;
	const struct pm_inode *in;
	struct pm_tx *tx;
	pm_lsn lsn;
	int err;

	pthread_mutex_lock(&st->lock);
	in = ino_get(st, id, &err);
	cr_assert_not_null(in);
	tx = tx_begin(st);
	cr_assert_eq(ext_cut(st, tx, in, 0, 1u << 30, give_piece, tx), 0);
	ino_free(tx, ino_edit(tx, in));
	cr_assert_eq(tx_commit(tx, &lsn), 0);
	pthread_mutex_unlock(&st->lock);
	cr_assert_eq(pool_wait(st, lsn), 0);
}

static bool is_there(struct test_pool *p, struct pm_id id)
{
	int err = 0;
	const struct pm_inode *in = ino_get(p->st, id, &err);

	if (!in)
		cr_assert_eq(err, -ESTALE);
	return in;
}

static uint64_t free_blocks(struct test_pool *p)
{
	struct pm_space sp;

	pm_get_space(p->st, &sp);
	return sp.free_blocks;
}

static uint64_t inodes(struct test_pool *p)
{
	struct pm_space sp;

	pm_get_space(p->st, &sp);
	return sp.inodes;
}

static const enum pm_method methods[] = { PM_CLWB, PM_FENCE, PM_MSYNC, PM_VOLATILE };

/* --- inodes ---------------------------------------------------------------------------------- */

Test(inodes, a_freed_slot_is_used_again_under_another_generation)
{
	struct test_pool p;
	struct pm_id a, b;

	pool_new(&p, "gen", 16 * MIB, PM_CLWB);
	a = make_file(&p, 1, 1);
	cr_assert(is_there(&p, a));
	free_file(&p, a);
	cr_assert_not(is_there(&p, a));
	b = make_file(&p, 1, 1);
	cr_assert_eq(b.ino, a.ino);
	cr_assert_gt(b.gen, a.gen);
	cr_assert(is_there(&p, b));
	cr_assert_not(is_there(&p, a));
	/* and so after both kinds of end */
	pool_kill(&p);
	pool_open(&p, PM_CLWB);
	cr_assert(is_there(&p, b) && !is_there(&p, a));
	pool_close(&p);
	pool_open(&p, PM_CLWB);
	cr_assert(is_there(&p, b) && !is_there(&p, a));
	pool_drop(&p);
}

Test(inodes, nonsense_ids_are_stale)
{
	static const struct pm_id id[] = {
		{ 0, 1 }, { 1, 2 }, { 255, 1 }, { 256, 1 }, { ~0ull, 1 }
	};
	struct test_pool p;

	pool_new(&p, "stale", 16 * MIB, PM_CLWB);
	for (size_t i = 0; i < sizeof(id) / sizeof(id[0]); i++)
		cr_assert_not(is_there(&p, id[i]));
	pool_drop(&p);
}

Test(inodes, the_table_grows_by_chunks_that_outlive_a_kill)
{
	for (unsigned m = 0; m < 4; m++) {
		struct test_pool p;
		struct pm_id id[1000];

		pool_new(&p, "grow", 32 * MIB, methods[m]);
		for (unsigned i = 0; i < 1000; i++)
			id[i] = make_file(&p, 0, 1);
		cr_assert_eq(ino_count(p.st), 1024);
		pool_kill(&p);
		pool_open(&p, methods[m]);
		cr_assert_eq(ino_count(p.st), 1024);
		for (unsigned i = 0; i < 1000; i++)
			cr_assert(is_there(&p, id[i]), "inode %u of %s", i,
			          pm_method_name(methods[m]));
		cr_assert_eq(inodes(&p), 1002);
		pool_drop(&p);
	}
}

Test(inodes, an_aborted_growth_leaves_no_chunk)
{
	struct test_pool p;
	struct pm_inode *in;
	struct pm_space a, b;
	struct pm_tx *tx;

	pool_new(&p, "nogrow", 16 * MIB, PM_CLWB);
	for (unsigned i = 0; i < 254; i++)
		make_file(&p, 0, 1);
	pm_get_space(p.st, &a);
	tx = tx_begin(p.st);
	cr_assert_eq(ino_new(tx, PM_REG, &in), 0);
	cr_assert_eq(in->ino, 256);
	tx_abort(tx);
	cr_assert_eq(ino_count(p.st), 256);
	pm_get_space(p.st, &b);
	cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0);
	cr_assert_eq(make_file(&p, 0, 1).ino, 256);
	pool_drop(&p);
}

/* The damaged one is -EIO, its slot is not handed out again, the others live on. */
Test(inodes, damage_costs_that_inode_alone)
{
	struct test_pool p;
	struct pm_id id[10];
	uint64_t at;
	int fd, err;

	pool_new(&p, "damage", 16 * MIB, PM_CLWB);
	for (unsigned i = 0; i < 10; i++)
		id[i] = make_file(&p, 2, 1);
	at = p.st->super.data_start * PM_BLOCK + id[4].ino * PM_INODE_SIZE + 40;
	pool_kill(&p);
	/* the kill left records that would repair it: a clean close first */
	pool_open(&p, PM_CLWB);
	pool_close(&p);
	fd = open(p.path, O_RDWR);
	cr_assert_eq(pwrite(fd, "damage", 6, (off_t)at), 6);
	close(fd);
	for (unsigned kill = 0; kill < 2; kill++) {
		pool_open(&p, PM_CLWB);
		cr_assert_null(ino_get(p.st, id[4], &err));
		cr_assert_eq(err, -EIO);
		cr_assert_gt(p.st->stats.checksum_errors, 0);
		cr_assert(is_there(&p, id[3]) && is_there(&p, id[5]));
		for (unsigned i = 0; i < 20; i++)
			cr_assert_neq(make_file(&p, 0, 1).ino, id[4].ino);
		pool_kill(&p);
	}
	pool_drop(&p);
}

/* --- free space ------------------------------------------------------------------------------ */

Test(space, is_the_same_after_a_clean_close_and_after_a_kill)
{
	for (unsigned m = 0; m < 4; m++) {
		struct test_pool p;
		struct pm_id id[40];
		uint64_t before, used;

		pool_new(&p, "same", 64 * MIB, methods[m]);
		before = free_blocks(&p);
		for (unsigned i = 0; i < 40; i++)
			id[i] = make_file(&p, 1 + i * 3, 1);
		for (unsigned i = 0; i < 40; i += 2)
			free_file(&p, id[i]);
		used = before - free_blocks(&p);
		cr_assert_eq(used, 20 * (1 + 3 * 20), "%s: %llu", pm_method_name(methods[m]),
		             (unsigned long long)used);
		for (unsigned round = 0; round < 3; round++) {
			if (round == 1)
				pool_close(&p);
			else
				pool_kill(&p);
			pool_open(&p, methods[m]);
			cr_assert_eq(p.st->info.was_clean, round == 1);
			cr_assert_eq(before - free_blocks(&p), used, "%s, round %u",
			             pm_method_name(methods[m]), round);
			cr_assert_eq(inodes(&p), 22);
		}
		pool_drop(&p);
	}
}

Test(space, a_clean_close_stores_it_and_damage_to_that_is_no_loss)
{
	struct test_pool p;
	struct pm_super s;
	uint64_t used;
	int fd;

	pool_new(&p, "saved", 64 * MIB, PM_CLWB);
	for (unsigned i = 0; i < 20; i++)
		make_file(&p, 7, 1);
	used = free_blocks(&p);
	pool_close(&p);
	fd = open(p.path, O_RDWR);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(pread(fd, &s, sizeof(s), i * PM_BLOCK), (ssize_t)sizeof(s));
		if (s.saved_bytes)
			break;
	}
	cr_assert_gt(s.saved_bytes, 0);
	cr_assert_eq(pwrite(fd, "junk", 4, (off_t)(s.saved_start * PM_BLOCK + 20)), 4);
	close(fd);
	pool_open(&p, PM_CLWB);
	cr_assert(p.st->info.was_clean);
	cr_assert_eq(free_blocks(&p), used);
	pool_drop(&p);
}

Test(space, a_file_without_a_name_is_freed_at_open)
{
	for (unsigned m = 0; m < 4; m++) {
		struct test_pool p;
		struct pm_id kept, orphan;
		uint64_t with_one;

		pool_new(&p, "orphan", 64 * MIB, methods[m]);
		kept = make_file(&p, 10, 1);
		with_one = free_blocks(&p);
		orphan = make_file(&p, 1000, 0);
		pool_kill(&p);
		pool_open(&p, methods[m]);
		cr_assert(is_there(&p, kept));
		cr_assert_not(is_there(&p, orphan));
		cr_assert_eq(free_blocks(&p), with_one);
		pool_close(&p);
		pool_open(&p, methods[m]);
		cr_assert(is_there(&p, kept) && !is_there(&p, orphan));
		cr_assert_eq(free_blocks(&p), with_one);
		pool_drop(&p);
	}
}

Test(space, blocks_taken_but_never_published_are_free_after_a_kill)
{
	struct test_pool p;
	struct blk_run run;
	uint64_t before;

	pool_new(&p, "taken", 64 * MIB, PM_CLWB);
	before = free_blocks(&p);
	cr_assert_eq(blk_take(p.st, 0, 500, 0, 0, &run), 0);
	cr_assert_eq(free_blocks(&p), before - 500);
	pool_kill(&p);
	pool_open(&p, PM_CLWB);
	cr_assert_eq(free_blocks(&p), before);
	pool_drop(&p);
}

/* --- the verifier (I5) ----------------------------------------------------------------------- */

static bool verf_changed(struct test_pool *p, uint8_t verf[8])
{
	uint8_t now[8];
	bool changed;

	pm_write_verf(p->st, now);
	changed = memcmp(now, verf, 8) != 0;
	memcpy(verf, now, 8);
	return changed;
}

Test(verifier, changes_only_when_unstable_data_may_be_lost)
{
	for (unsigned m = 0; m < 3; m++) {
		struct test_pool p;
		uint8_t verf[8] = { 0 };

		pool_new(&p, "verf", 16 * MIB, methods[m]);
		cr_assert(verf_changed(&p, verf), "all zero");
		pool_close(&p);
		pool_open(&p, methods[m]);
		cr_assert_not(verf_changed(&p, verf), "clean restart");
		make_file(&p, 1, 1);
		pool_kill(&p);
		pool_open(&p, methods[m]);
		cr_assert_not(verf_changed(&p, verf), "killed, but nothing was unstable");
		cr_assert_eq(super_note_unstable(p.st), 0);
		cr_assert_eq(super_note_unstable(p.st), 0);
		cr_assert_not(verf_changed(&p, verf));
		pool_close(&p);
		pool_open(&p, methods[m]);
		cr_assert_not(verf_changed(&p, verf), "clean restart after unstable data");
		cr_assert_eq(super_note_unstable(p.st), 0);
		pool_kill(&p);
		pool_open(&p, methods[m]);
		cr_assert(verf_changed(&p, verf), "killed with unstable data");
		pool_kill(&p);
		pool_open(&p, methods[m]);
		cr_assert_not(verf_changed(&p, verf), "that loss was told already");
		super_new_verf(p.st);
		cr_assert(verf_changed(&p, verf));
		pool_drop(&p);
	}
}

Test(verifier, changes_at_every_open_of_a_volatile_pool)
{
	struct test_pool p;
	uint8_t verf[8] = { 0 };

	pool_new(&p, "volatile", 16 * MIB, PM_VOLATILE);
	verf_changed(&p, verf);
	for (unsigned i = 0; i < 3; i++) {
		pool_close(&p);
		pool_open(&p, PM_VOLATILE);
		cr_assert(verf_changed(&p, verf));
	}
	pool_drop(&p);
}

/* --- the rest -------------------------------------------------------------------------------- */

Test(store, boot_counts_opens_that_may_write)
{
	struct pm_open_opts ro = { .read_only = true };
	struct test_pool p;
	struct pm_error why;

	pool_new(&p, "boot", 16 * MIB, PM_CLWB);
	cr_assert_eq(p.st->info.boot, 1);
	pool_close(&p);
	cr_assert_eq(pm_open(p.path, &ro, &p.st, &why), 0, "%s", why.text);
	cr_assert_eq(p.st->info.boot, 1);
	cr_assert_eq(pm_close(p.st), 0);
	pool_open(&p, PM_CLWB);
	cr_assert_eq(p.st->info.boot, 2);
	pool_drop(&p);
}

Test(store, opened_for_reading_it_takes_no_changes)
{
	struct pm_open_opts ro = { .read_only = true };
	struct test_pool p;
	struct pm_error why;
	struct pm_tx *tx;

	pool_mkfs(&p, "ro", 16 * MIB);
	cr_assert_eq(pm_open(p.path, &ro, &p.st, &why), 0, "%s", why.text);
	tx = tx_begin(p.st);
	ino_edit(tx, ino_at(p.st, PM_ROOT_INO))->uid = 1;
	cr_assert_eq(tx_commit(tx, NULL), -EROFS);
	cr_assert_eq(pm_close(p.st), 0);
	p.st = NULL;
	pool_drop(&p);
}

Test(store, the_zero_region_is_zero_and_the_pool_region_is_the_media)
{
	struct test_pool p;
	struct pm_region pool, zero;

	pool_new(&p, "region", 16 * MIB, PM_MSYNC);
	pm_get_regions(p.st, &pool, &zero);
	cr_assert(pool.base == p.st->media.base && pool.len == 16 * MIB);
	cr_assert_geq(zero.len, 1 << 20);
	for (size_t i = 0; i < zero.len; i++)
		cr_assert_eq(((uint8_t *)zero.base)[i], 0);
	pool_drop(&p);
}

Test(store, copy_in_moves_every_length_and_alignment)
{
	static uint8_t from[600], to[700], want[700];

	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)(i * 7 + 1);
	for (size_t off = 0; off < 70; off += 3) {
		for (size_t len = 0; len < 300; len += 1 + len / 9) {
			memset(to, 0xcc, sizeof(to));
			memcpy(want, to, sizeof(to));
			memcpy(want + off, from + off / 2, len);
			pm_copy_in(to + off, from + off / 2, len);
			cr_assert_arr_eq(to, want, sizeof(to), "offset %zu length %zu", off, len);
		}
	}
}
