/* SPDX-License-Identifier: BSD-3-Clause */
/* test_file.c - map, place, commit, unpin: what is written is read, to the byte, also after a kill */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "test/pmemio/file_ops.h"

TestSuite(file, .init = clwb, .fini = close_clean);
TestSuite(file_msync, .init = msync_, .fini = close_clean);
TestSuite(file_volatile, .init = volatile_, .fini = close_clean);

/* --- writing and reading --- */

static void unaligned(enum pm_method method)
{
	struct pm_id id = mk("f");
	struct pm_map m;

	put(id, 5000, 10000, 1, PM_FILE_SYNC);
	put(id, 14000, 3000, 2, PM_FILE_SYNC);
	put(id, 7000, 100, 3, PM_FILE_SYNC);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(size_of(id), 17000);
		cr_assert(holds(id, 0, 5000, 0));
		cr_assert(holds(id, 5000, 7000, 1));
		cr_assert(holds(id, 7000, 7100, 3));
		cr_assert(holds(id, 7100, 14000, 1));
		cr_assert(holds(id, 14000, 17000, 2));
		if (!i)
			reopen(method);
	}
	cr_assert_eq(pm_map_read(st, id, 16990, 4096, &m), 0);
	cr_assert_eq(m.len, 10);
	cr_assert(m.eof);
	pm_unpin(&m);
	cr_assert_eq(pm_map_read(st, id, 17001, 4096, &m), 0);
	cr_assert_eq(m.len, 0);
	pm_unpin(&m);
}

Test(file, unaligned_writes_read_back_also_after_a_kill)
{
	unaligned(PM_CLWB);
}
Test(file_msync, unaligned_writes_read_back_also_after_a_kill)
{
	unaligned(PM_MSYNC);
}
Test(file_volatile, unaligned_writes_read_back)
{
	unaligned(PM_VOLATILE);
}

Test(file_volatile, is_never_called_stable)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map m;

	cr_assert_eq(map(id, 0, 100, &m), 0);
	place(&m, 1);
	cr_assert_eq(commit(&m, 100, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.stable, PM_UNSTABLE);
	pm_unpin(&m);
}

Test(file, empty_write_changes_nothing)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map m;

	cr_assert_eq(map(id, 5000, 0, &m), 0);
	cr_assert_eq(commit(&m, 0, PM_FILE_SYNC, &c), 0);
	pm_unpin(&m);
	cr_assert_eq(size_of(id), 0);
}

Test(file, sparse_file_has_holes)
{
	struct pm_id id = mk("f");
	struct pm_extent x[8];
	struct pm_attr a;
	unsigned n;

	put(id, 10ull << 30, 4096, 1, PM_FILE_SYNC);
	put(id, 8192, 4096, 2, PM_FILE_SYNC);
	cr_assert_eq(pm_getattr(st, id, &a), 0);
	cr_assert_eq(a.size, (10ull << 30) + 4096);
	cr_assert_eq(a.used, 8192);
	cr_assert(holds(id, 12288, 12288 + 3 * MIB, 0));
	cr_assert_eq(pm_extents(st, id, 0, x, 8, &n), 0);
	cr_assert_eq(n, 4);
	cr_assert_eq(x[0].state, PM_EXT_HOLE);
	cr_assert_eq(x[0].len, 8192);
	cr_assert_eq(x[1].state, PM_EXT_VALID);
	cr_assert_eq(x[2].state, PM_EXT_HOLE);
	cr_assert_eq(x[2].off + x[2].len, 10ull << 30);
	cr_assert_eq(x[3].state, PM_EXT_VALID);
}

Test(file, type_and_limits_are_judged)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = PM_FILE_MAX + 1 };
	struct pm_id id = mk("f"), gone = { id.ino, id.gen + 1 };
	struct timespec guard = { .tv_sec = 1 };
	struct pm_change ch;
	struct pm_map m;

	cr_assert_eq(map(root, 0, 1, &m), -EISDIR);
	cr_assert_eq(map(gone, 0, 1, &m), -ESTALE);
	cr_assert_eq(map(id, PM_FILE_MAX, 1, &m), -EFBIG);
	cr_assert_eq(map(id, UINT64_MAX, 1, &m), -EFBIG);
	cr_assert_eq(pm_map_read(st, root, 0, 1, &m), -EISDIR);
	cr_assert_eq(pm_setattr(st, id, &sa, &ch), -EFBIG);
	sa.size = 0;
	cr_assert_eq(pm_setattr(st, root, &sa, &ch), -EISDIR);
	sa.ctime_guard = &guard;
	cr_assert_eq(pm_setattr(st, id, &sa, &ch), -EKEYEXPIRED);
	cr_assert_eq(map((struct pm_id){ 0, 0 }, 0, 1, &m), -ESTALE);
}

Test(file, setattr_sets_what_it_names)
{
	struct pm_setattr sa = { .set = PM_SET_MODE | PM_SET_UID | PM_SET_ATIME | PM_SET_MTIME,
		                 .mode = 04711,
		                 .uid = 77,
		                 .atime = { 5, 6 },
		                 .mtime = { 0, UTIME_NOW } };
	struct pm_id id = mk("f");
	struct pm_change ch;

	cr_assert_eq(pm_setattr(st, id, &sa, &ch), 0);
	cr_assert_eq(ch.obj_before.mode, 0644);
	cr_assert_eq(ch.obj.mode, 04711);
	cr_assert_eq(ch.obj.uid, 77);
	cr_assert_eq(ch.obj.gid, 0);
	cr_assert_eq(ch.obj.atime.tv_sec, 5);
	cr_assert_eq(ch.obj.atime.tv_nsec, 6);
	cr_assert_gt(ch.obj.mtime.tv_sec, 1000);
}

/* --- prefix --- */

static void prefix(enum pm_method method)
{
	struct pm_id id = mk("f");
	uint64_t before = free_blocks();
	struct pm_committed c;
	struct pm_map m;

	cr_assert_eq(map(id, 0, 20000, &m), 0);
	place(&m, 1);
	cr_assert_eq(commit(&m, 5000, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.attr.size, 5000);
	cr_assert_eq(c.attr.used, 8192);
	pm_unpin(&m);
	cr_assert_eq(free_blocks(), before - 2);
	cr_assert_eq(map(id, 8192, 20000, &m), 0);
	cr_assert_eq(commit(&m, 0, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.attr.size, 5000);
	pm_unpin(&m);
	cr_assert_eq(free_blocks(), before - 2);
	resize(id, 30000);
	for (int i = 0; i < 2; i++) {
		cr_assert(holds(id, 0, 5000, 1));
		cr_assert(holds(id, 5000, 30000, 0));
		if (!i)
			reopen(method);
	}
}

Test(file, only_the_prefix_is_published)
{
	prefix(PM_CLWB);
}
Test(file_msync, only_the_prefix_is_published)
{
	prefix(PM_MSYNC);
}

/* --- end of file --- */

static void gaps(enum pm_method method)
{
	struct pm_id id = mk("f"), g = mk("g"), h = mk("h");
	struct pm_map m;

	put(id, 0, 4000, 1, PM_FILE_SYNC);
	resize(id, 100);
	put(id, 3000, 10, 2, PM_FILE_SYNC); /* a write behind the end */
	put(g, 0, 4000, 1, PM_FILE_SYNC);
	resize(g, 100);
	resize(g, 3500); /* the end itself moves */
	put(h, 0, 4000, 1, PM_FILE_SYNC);
	cr_assert_eq(map(h, 4000, 50, &m), 0); /* placed behind the end, never committed */
	place(&m, 9);
	pm_unpin(&m);
	put(h, 9000, 1, 2, PM_FILE_SYNC);
	for (int i = 0; i < 2; i++) {
		cr_assert(holds(id, 0, 100, 1));
		cr_assert(holds(id, 100, 3000, 0));
		cr_assert(holds(id, 3000, 3010, 2));
		cr_assert(holds(g, 0, 100, 1));
		cr_assert(holds(g, 100, 3500, 0));
		cr_assert(holds(h, 0, 4000, 1));
		cr_assert(holds(h, 4000, 9000, 0));
		if (!i)
			reopen(method);
	}
}

Test(file, gaps_behind_the_old_end_are_zero)
{
	gaps(PM_CLWB);
}
Test(file_msync, gaps_behind_the_old_end_are_zero)
{
	gaps(PM_MSYNC);
}

Test(file, end_of_file_after_a_kill_hides_what_was_placed)
{
	struct pm_id id = mk("f");
	struct pm_map m, n;

	put(id, 0, 100, 1, PM_FILE_SYNC);
	cr_assert_eq(map(id, 100, 50, &m), 0);
	place(&m, 9);
	cr_assert_eq(map(id, 8192, 8192, &n), 0);
	place(&n, 9);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(id), 100);
	resize(id, 30000);
	cr_assert(holds(id, 100, 30000, 0));
}

/* --- full pool --- */

Test(file, full_pool_refuses_whole_writes_and_leaks_nothing)
{
	uint64_t before = free_blocks(), left, off = 0;
	struct pm_id id = mk("f"), g = mk("g");
	struct pm_committed c;
	struct pm_map m;
	int err;

	put(g, 0, 10000, 7, PM_FILE_SYNC);
	while (!(err = map(id, off, 100 * KIB, &m))) {
		place(&m, (int)(off / (100 * KIB) % 100));
		cr_assert_eq(commit(&m, 100 * KIB, PM_FILE_SYNC, &c), 0);
		pm_unpin(&m);
		off += 100 * KIB;
	}
	cr_assert_eq(err, -ENOSPC);
	left = free_blocks();
	cr_assert_lt(left, 25);
	cr_assert_eq(map(id, off, 100 * KIB, &m), -ENOSPC);
	cr_assert_eq(free_blocks(), left);
	if (left)
		put(id, off, (uint32_t)left * 4096, 101, PM_FILE_SYNC); /* to the last block */
	cr_assert_eq(free_blocks(), 0);
	cr_assert_eq(map(id, off + left * 4096, 1, &m), -ENOSPC);
	put(g, 100, 500, 8, PM_FILE_SYNC); /* in place still works */
	for (uint64_t at = 0; at < off; at += 100 * KIB)
		cr_assert(holds(id, at, at + 100 * KIB, (int)(at / (100 * KIB) % 100)));
	cr_assert(holds(g, 600, 10000, 7));
	rm("f");
	rm("g");
	cr_assert_eq(free_blocks(), before);
}

/* --- crash --- */

Test(file, a_kill_gives_uncommitted_blocks_back)
{
	struct pm_id id = mk("f");
	uint64_t before;
	struct pm_map m;

	put(id, 0, 6000, 1, PM_FILE_SYNC);
	before = free_blocks();
	cr_assert_eq(map(id, 4096, MIB, &m), 0);
	place(&m, 9);
	reopen(PM_CLWB);
	cr_assert_eq(free_blocks(), before);
	cr_assert_eq(size_of(id), 6000);
	resize(id, MIB);
	cr_assert(holds(id, 6000, MIB, 0));
}
