/* SPDX-License-Identifier: BSD-3-Clause */
/* test_file_pin.c - a file cut or removed while somebody has it pinned */
#include <criterion/criterion.h>
#include <errno.h>

#include "test/pmemio/file_ops.h"

TestSuite(file, .init = clwb, .fini = close_clean);
TestSuite(file_msync, .init = msync_, .fini = close_clean);

/* --- truncate under pins --- */

static void truncated(enum pm_method method)
{
	struct pm_id id = mk("f"), other;
	struct pm_committed c;
	struct pm_map w, r;
	uint64_t before;

	put(id, 0, 40960, 1, PM_FILE_SYNC);
	before = free_blocks();
	cr_assert_eq(map(id, 0, 45056, &w), 0); /* nine old blocks, one new */
	cr_assert_eq(pm_map_read(st, id, 0, 40960, &r), 0);
	resize(id, 5000);
	place(&w, 2);
	cr_assert_eq(free_blocks(), before - 1, "a pinned block was freed");
	cr_assert_eq(commit(&w, 45056, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.attr.size, 5000);
	pm_unpin(&w);
	cr_assert_eq(free_blocks(), before, "still pinned for reading");
	other = mk("other");
	put(other, 0, MIB, 3, PM_FILE_SYNC);
	cr_assert(map_holds(&r, 8192, 40960, 2), "a pinned block was used again");
	rm("other");
	pm_unpin(&r);
	cr_assert_eq(free_blocks(), before + 8);
	resize(id, 40960);
	for (int i = 0; i < 2; i++) {
		cr_assert(holds(id, 0, 5000, 2));
		cr_assert(holds(id, 5000, 40960, 0));
		if (!i)
			reopen(method);
	}
}

Test(file, truncate_waits_for_no_pin_and_frees_nothing_under_it)
{
	truncated(PM_CLWB);
}
Test(file_msync, truncate_waits_for_no_pin_and_frees_nothing_under_it)
{
	truncated(PM_MSYNC);
}

Test(file, truncate_drops_fresh_blocks_of_a_write_under_way)
{
	uint64_t before = free_blocks();
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	resize(id, 16384);
	cr_assert_eq(map(id, 0, 16384, &a), 0);
	place(&a, 1);
	resize(id, 0);
	cr_assert_eq(map(id, 0, 8192, &b), 0); /* new blocks: the first write is out of the file */
	place(&b, 2);
	place(&a, 1);
	cr_assert_eq(commit(&a, 16384, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.attr.size, 0);
	cr_assert_eq(commit(&b, 8192, PM_FILE_SYNC, &c), 0);
	pm_unpin(&a);
	pm_unpin(&b);
	cr_assert_eq(size_of(id), 8192);
	cr_assert(holds(id, 0, 8192, 2));
	rm("f");
	cr_assert_eq(free_blocks(), before);
}

Test(file, writer_behind_a_cut_waits_until_the_cut_write_is_over)
{
	struct flag_wait w = { .w.done = flag_done };
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	put(id, 0, 4096, 1, PM_FILE_SYNC);
	cr_assert_eq(map(id, 0, 4096, &a), 0);
	resize(id, 1000);
	cr_assert_eq(pm_map_write(st, id, 2000, 100, &b, &w.w), -EINPROGRESS);
	place(&a, 2);
	cr_assert_eq(commit(&a, 4096, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(w.calls, 1);
	pm_unpin(&a);
	put(id, 2000, 100, 3, PM_FILE_SYNC);
	cr_assert(holds(id, 0, 1000, 2));
	cr_assert(holds(id, 1000, 2000, 0));
	cr_assert(holds(id, 2000, 2100, 3));
}

/* --- remove under pins --- */

static void removed(void)
{
	struct pm_id id = mk("f"), other;
	uint64_t before = free_blocks();
	struct pm_committed c;
	struct pm_map r, w;
	struct pm_attr a;

	put(id, 0, 65536, 1, PM_FILE_SYNC);
	cr_assert_eq(pm_map_read(st, id, 0, 65536, &r), 0);
	cr_assert_eq(map(id, 65536, 65536, &w), 0);
	rm("f");
	cr_assert_eq(pm_getattr(st, id, &a), -ESTALE);
	cr_assert_eq(free_blocks(), before - 32);
	other = mk("other");
	put(other, 0, MIB, 3, PM_FILE_SYNC);
	cr_assert(map_holds(&r, 0, 65536, 1));
	place(&w, 2);
	cr_assert_eq(commit(&w, 65536, PM_FILE_SYNC, &c), 0);
	pm_unpin(&w);
	pm_unpin(&r);
	rm("other");
	cr_assert_eq(free_blocks(), before);
}

Test(file, removed_file_lives_until_the_last_unpin)
{
	removed();
}
Test(file_msync, removed_file_lives_until_the_last_unpin)
{
	removed();
}

Test(file, removed_file_under_a_pin_is_freed_by_the_next_open)
{
	uint64_t before = free_blocks();
	struct pm_id id = mk("f");
	struct pm_map r;
	struct pm_attr a;

	put(id, 0, 65536, 1, PM_FILE_SYNC);
	cr_assert_eq(pm_map_read(st, id, 0, 65536, &r), 0);
	rm("f");
	reopen(PM_CLWB);
	cr_assert_eq(pm_getattr(st, id, &a), -ESTALE);
	cr_assert_eq(free_blocks(), before);
}

Test(file, removing_an_unstable_file_forgets_its_data)
{
	uint64_t before = free_blocks();
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct test_waiter w;

	put(id, 0, 65536, 1, PM_UNSTABLE);
	rm("f");
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), -ESTALE);
	cr_assert_eq(free_blocks(), before);
}
