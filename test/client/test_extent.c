/* SPDX-License-Identifier: BSD-3-Clause */
/* test_extent.c - what a layout says, before and after COMMITs, against a table of blocks */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/extent.h"

#define BLOCK  4096u
#define BLOCKS 64u

static struct extents three(bool rw)
{
	struct extent e[] = { { 0, 4 * BLOCK, EXTENT_VALID, 0x1000, 7 },
		              { 4 * BLOCK, 8 * BLOCK, EXTENT_UNWRITTEN, 0x9000, 8 },
		              { 12 * BLOCK, 4 * BLOCK, rw ? EXTENT_VALID : EXTENT_HOLE, 0x50000, 9 } };
	struct extents x = { 0 };

	cr_assert_eq(extents_set(&x, 0, 16 * BLOCK, rw, e, 3), 0);
	return x;
}

Test(extent, what_a_server_sends_is_checked)
{
	static const struct {
		const char *what;
		struct extent e[2];
	} bad[] = {
		{ "a gap", { { 0, 4096, 0, 1, 1 }, { 8192, 4096, 0, 1, 1 } } },
		{ "an overlap", { { 0, 8192, 0, 1, 1 }, { 4096, 8192, 0, 1, 1 } } },
		{ "too far", { { 0, 4096, 0, 1, 1 }, { 4096, 12288, 0, 1, 1 } } },
		{ "too short", { { 0, 4096, 0, 1, 1 }, { 4096, 4096, 0, 1, 1 } } },
		{ "begins late", { { 4096, 4096, 0, 1, 1 }, { 8192, 4096, 0, 1, 1 } } },
		{ "nothing", { { 0, 0, 0, 1, 1 }, { 0, 12288, 0, 1, 1 } } },
		{ "wraps", { { 0, 4096, 0, 1, 1 }, { 4096, UINT64_MAX - 100, 0, 1, 1 } } },
		{ "a strange state", { { 0, 4096, 9, 1, 1 }, { 4096, 8192, 0, 1, 1 } } },
	};
	struct extents x = { 0 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		cr_expect_eq(extents_set(&x, 0, 12288, true, bad[i].e, 2), -EPROTO, "%s", bad[i].what);
	cr_expect_eq(extents_set(&x, 0, 0, true, NULL, 0), -EPROTO);
	cr_expect_null(x.e);
}

Test(extent, pieces_end_with_their_memory)
{
	struct extents x = three(true);
	struct extent p;

	cr_assert(extents_at(&x, 100, 200, &p));
	cr_expect(p.off == 100 && p.len == 100 && p.addr == 0x1000 + 100 && p.key == 7);
	cr_assert(extents_at(&x, 4 * BLOCK - 1, 20 * BLOCK, &p));
	cr_expect(p.len == 1 && p.addr == 0x1000 + 4 * BLOCK - 1);
	cr_assert(extents_at(&x, 4 * BLOCK, 20 * BLOCK, &p));
	cr_expect(p.len == 8 * BLOCK && p.addr == 0x9000 && p.state == EXTENT_UNWRITTEN);
	cr_expect_not(extents_at(&x, 16 * BLOCK, 17 * BLOCK, &p));
	extents_free(&x);
	cr_expect_not(extents_at(&x, 0, 1, &p));
}

Test(extent, memory_is_said_of_the_whole_range)
{
	struct extents rw = three(true), r = three(false);
	bool valid;

	cr_expect(extents_have_memory(&rw, 0, 4 * BLOCK, &valid) && valid);
	cr_expect(extents_have_memory(&rw, 0, 4 * BLOCK + 1, &valid) && !valid);
	cr_expect_not(extents_have_memory(&rw, 0, 16 * BLOCK + 1, &valid));
	cr_expect(extents_have_memory(&r, 0, 4 * BLOCK, &valid));
	cr_expect_not(extents_have_memory(&r, 4 * BLOCK, 5 * BLOCK, &valid), "no address in a read layout");
	cr_expect_not(extents_have_memory(&r, 12 * BLOCK, 13 * BLOCK, &valid), "a hole");
	extents_free(&rw);
	extents_free(&r);
}

/* A log, record by record: written blocks grow, and two extents say it. */
Test(extent, a_log_stays_two_extents)
{
	struct extent e = { 0, BLOCKS * BLOCK, EXTENT_UNWRITTEN, 0x100000, 3 }, p;
	struct extents x = { 0 };
	uint64_t at = 0;

	cr_assert_eq(extents_set(&x, 0, BLOCKS * BLOCK, true, &e, 1), 0);
	for (; at + 1000 < BLOCKS * BLOCK; at += 1000) {
		cr_assert_eq(extents_committed(&x, at, at + 1000, BLOCK), 0);
		cr_assert_leq(x.n, 2);
		cr_assert(extents_at(&x, at + 999, at + 1000, &p));
		cr_assert_eq(p.state, EXTENT_VALID);
		cr_assert_eq(p.addr, 0x100000 + at + 999);
	}
	extents_free(&x);
}

Test(extent, commits_anywhere_as_a_table_of_blocks_says)
{
	for (unsigned seed = 1; seed < 40; seed++) {
		struct extent e[BLOCKS / 4], p;
		enum extent_state want[BLOCKS];
		struct extents x = { 0 };

		srand(seed);
		for (unsigned i = 0; i < BLOCKS / 4; i++) {
			e[i] = (struct extent){ i * 4 * BLOCK, 4 * BLOCK,
				                rand() % 2 ? EXTENT_VALID : EXTENT_UNWRITTEN,
				                (uint64_t)i << 32, i };
			for (unsigned k = 0; k < 4; k++)
				want[i * 4 + k] = e[i].state;
		}
		cr_assert_eq(extents_set(&x, 0, BLOCKS * BLOCK, true, e, BLOCKS / 4), 0);
		for (unsigned round = 0; round < 30; round++) {
			uint64_t off = (uint64_t)rand() % (BLOCKS * BLOCK),
				 end = off + 1 + (uint64_t)rand() % (9 * BLOCK);

			cr_assert_eq(extents_committed(&x, off, end, BLOCK), 0);
			for (uint64_t b = off / BLOCK; b < BLOCKS && b * BLOCK < end; b++)
				want[b] = EXTENT_VALID;
			for (unsigned b = 0; b < BLOCKS; b++) {
				uint64_t at = b * BLOCK + (unsigned)rand() % BLOCK;

				cr_assert(extents_at(&x, at, at + 1, &p));
				cr_assert_eq(p.state, want[b], "seed %u block %u", seed, b);
				cr_assert_eq(p.addr, ((uint64_t)(b / 4) << 32) + at - b / 4 * 4 * BLOCK);
				cr_assert_eq(p.key, b / 4);
			}
		}
		extents_free(&x);
	}
}

Test(extent, a_hole_that_was_written_is_no_hole)
{
	struct extents x = three(false);
	struct extent p;

	cr_assert_eq(extents_committed(&x, 13 * BLOCK + 5, 13 * BLOCK + 6, BLOCK), 0);
	cr_assert(extents_at(&x, 13 * BLOCK, 16 * BLOCK, &p));
	cr_expect_eq(p.state, EXTENT_UNKNOWN);
	cr_expect_eq(p.len, BLOCK);
	cr_assert(extents_at(&x, 14 * BLOCK, 16 * BLOCK, &p));
	cr_expect_eq(p.state, EXTENT_HOLE);
	extents_free(&x);
}

Test(extent, doubt_leaves_data_data)
{
	struct extents x = three(false);
	struct extent p;

	extents_doubt(&x);
	cr_assert(extents_at(&x, 0, 1, &p));
	cr_expect_eq(p.state, EXTENT_VALID);
	cr_assert(extents_at(&x, 5 * BLOCK, 16 * BLOCK, &p));
	cr_expect_eq(p.state, EXTENT_UNKNOWN);
	cr_expect_eq(p.len, 11 * BLOCK, "unwritten and hole say the same now");
	extents_free(&x);
}
