/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Map, place, commit, unpin, and what may happen to a file in between. Free space of every pool is
 * soiled first, so that a byte nobody wrote shows as STALE if it ever comes out.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmemio/store.h"
#include "test/lib/pool.h"

#define STALE 0xee
#define KIB   1024u
#define MIB   (1024u * KIB)

static struct test_pool pool;
static struct pm_store *st;

static const struct pm_id root = { PM_ROOT_INO, 1 };

/* --- helpers --- */

static void wait_ok(struct pm_change *ch)
{
	cr_assert_eq(pool_wait(st, ch->lsn), 0);
}

static struct pm_id mk(const char *name)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644 };
	struct pm_change ch;

	cr_assert_eq(pm_create(st, root, name, strlen(name), &nw, &ch), 0);
	wait_ok(&ch);
	return ch.obj.id;
}

static void rm(const char *name)
{
	struct pm_change ch;

	cr_assert_eq(pm_remove(st, root, name, strlen(name), &ch), 0);
	wait_ok(&ch);
}

static int map(struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m)
{
	struct test_waiter w;
	int rc;

	do { /* after a wait the call is made again */
		waiter_init(&w);
		rc = pm_map_write(st, id, off, len, m, &w.w);
		cr_assert_eq(waiter_result(&w, rc), rc == -EINPROGRESS ? 0 : rc);
	} while (rc == -EINPROGRESS);
	return rc;
}

static void place(struct pm_map *m, int byte)
{
	for (unsigned i = 0; i < m->nseg; i++)
		memset(m->seg[i].iov_base, byte, m->seg[i].iov_len);
}

static int commit(struct pm_map *m, uint64_t prefix, enum pm_stable stable,
                  struct pm_committed *out)
{
	struct test_waiter w;

	waiter_init(&w);
	return waiter_result(&w, pm_commit(m, prefix, stable, true, out, &w.w));
}

static void put(struct pm_id id, uint64_t off, uint32_t len, int byte, enum pm_stable stable)
{
	struct pm_committed c;
	struct pm_map m;

	cr_assert_eq(map(id, off, len, &m), 0);
	cr_assert_eq(m.len, len);
	place(&m, byte);
	cr_assert_eq(commit(&m, len, stable, &c), 0);
	pm_unpin(&m);
}

static uint64_t size_of(struct pm_id id)
{
	struct pm_attr a;

	cr_assert_eq(pm_getattr(st, id, &a), 0);
	return a.size;
}

static bool map_holds(const struct pm_map *m, uint64_t from, uint64_t to, int byte)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < m->nseg; i++) {
		const uint8_t *p = m->seg[i].iov_base;

		for (size_t k = 0; k < m->seg[i].iov_len; k++, at++) {
			if (at >= from && at < to && p[k] != byte) {
				cr_log_error("byte %lu is 0x%02x, not 0x%02x", (unsigned long)at,
				             p[k], byte);
				return false;
			}
		}
	}
	return at >= to;
}

/* Do file bytes [from, to) read as @byte? */
static bool holds(struct pm_id id, uint64_t from, uint64_t to, int byte)
{
	struct pm_map m;
	bool ok;

	cr_assert_eq(pm_map_read(st, id, from, (uint32_t)(to - from), &m), 0);
	ok = m.len == to - from && map_holds(&m, 0, to - from, byte);
	pm_unpin(&m);
	return ok;
}

static void resize(struct pm_id id, uint64_t size)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = size };
	struct pm_change ch;

	cr_assert_eq(pm_setattr(st, id, &sa, &ch), 0);
	cr_assert_eq(ch.obj.size, size);
	wait_ok(&ch);
}

static uint64_t free_blocks(void)
{
	struct pm_space s;

	pm_get_space(st, &s);
	return s.free_blocks;
}

static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	cr_log_error("check: %s: %s", where, what);
}

static void check(const struct test_pool *p)
{
	struct pm_check_report r;
	struct pm_error why;

	cr_assert_eq(pm_check(p->path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
}

/* Write STALE over the free space, then give it back. */
static void soil(void)
{
	struct pm_id id = mk("soil");
	struct pm_committed c;
	struct pm_map m;
	uint64_t off = 0;

	while (map(id, off, MIB, &m) == 0) {
		place(&m, STALE);
		cr_assert_eq(commit(&m, MIB, PM_FILE_SYNC, &c), 0);
		pm_unpin(&m);
		off += MIB;
	}
	cr_assert_gt(off, 4 * MIB);
	rm("soil");
}

static void open_soiled(enum pm_method method)
{
	pool_new(&pool, "file", 24 * MIB, method);
	st = pool.st;
	mk("keep"); /* the root directory has its block from now on */
	soil();
}

/* Kill the store, and go on with what the media has. */
static void reopen(enum pm_method method)
{
	struct test_pool was = pool;

	pool_copy(&pool, &was, "again");
	check(&pool);
	pool_open(&pool, method);
	pool_drop(&was);
	st = pool.st;
}

static void close_clean(void)
{
	pool_close(&pool);
	check(&pool);
	pool_drop(&pool);
}

static void clwb(void)
{
	open_soiled(PM_CLWB);
}
static void msync_(void)
{
	open_soiled(PM_MSYNC);
}
static void volatile_(void)
{
	open_soiled(PM_VOLATILE);
}

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

/* --- writers side by side --- */

Test(file, writers_share_a_new_block)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 100, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	place(&a, 1);
	place(&b, 2);
	cr_assert_eq(commit(&b, 100, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(c.attr.size, 300);
	cr_assert_eq(commit(&a, 100, PM_FILE_SYNC, &c), 0);
	pm_unpin(&a);
	pm_unpin(&b);
	cr_assert(holds(id, 0, 100, 1));
	cr_assert(holds(id, 100, 200, 0));
	cr_assert(holds(id, 200, 300, 2));
	cr_assert_eq(c.attr.used, 4096);
}

Test(file, aborted_sharer_leaves_zeros_behind_the_end)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 100, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	place(&a, 1);
	place(&b, 2);
	cr_assert_eq(commit(&a, 100, PM_FILE_SYNC, &c), 0);
	pm_unpin(&b);
	pm_unpin(&a);
	resize(id, 1000);
	cr_assert(holds(id, 0, 100, 1));
	cr_assert(holds(id, 100, 1000, 0));
}

Test(file, aborted_sharer_spares_the_other)
{
	uint64_t before = free_blocks();
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 250, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	place(&b, 2);
	place(&a, 1);
	pm_unpin(&b);
	cr_assert_eq(commit(&a, 250, PM_FILE_SYNC, &c), 0);
	pm_unpin(&a);
	resize(id, 1000);
	cr_assert(holds(id, 0, 250, 1));
	cr_assert(holds(id, 250, 1000, 0));
	resize(id, 0);
	cr_assert_eq(map(id, 0, 250, &a), 0);
	cr_assert_eq(map(id, 200, 100, &b), 0);
	pm_unpin(&a);
	pm_unpin(&b);
	rm("f");
	cr_assert_eq(free_blocks(), before);
}

Test(file, nobody_reads_what_is_not_committed)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_extent x;
	struct pm_map m;
	unsigned n;

	resize(id, 20000);
	cr_assert_eq(map(id, 1000, 15000, &m), 0);
	place(&m, 1);
	cr_assert(holds(id, 0, 20000, 0));
	cr_assert_eq(pm_extents(st, id, 0, &x, 1, &n), 0);
	cr_assert_eq(x.state, PM_EXT_HOLE);
	cr_assert_eq(commit(&m, 15000, PM_FILE_SYNC, &c), 0);
	cr_assert(holds(id, 1000, 16000, 1));
	cr_assert(holds(id, 16000, 20000, 0));
	pm_unpin(&m);
}

struct flag_wait {
	struct pm_wait w;
	int calls, err;
};

static void flag_done(struct pm_wait *w, int err)
{
	struct flag_wait *f = (struct flag_wait *)w;

	f->calls++;
	f->err = err;
}

Test(file, second_writer_of_a_filling_block_waits_for_commit)
{
	struct flag_wait w = { .w.done = flag_done }, w2 = w;
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 8192, &a), 0);
	place(&a, 1);
	cr_assert_eq(pm_map_write(st, id, 5000, 100, &b, &w.w), -EINPROGRESS);
	cr_assert_eq(pm_map_write(st, id, 8000, 9000, &b, &w2.w), -EINPROGRESS);
	cr_assert_eq(w.calls + w2.calls, 0);
	cr_assert_eq(commit(&a, 8192, PM_FILE_SYNC, &c), 0);
	cr_assert_eq(w.calls, 1);
	cr_assert_eq(w2.calls, 1);
	pm_unpin(&a);
	cr_assert_eq(w.calls, 1);
	put(id, 5000, 100, 2, PM_FILE_SYNC);
	cr_assert(holds(id, 0, 5000, 1));
	cr_assert(holds(id, 5000, 5100, 2));
	cr_assert(holds(id, 5100, 8192, 1));
}

Test(file, second_writer_of_a_filling_block_waits_for_abort)
{
	struct flag_wait w = { .w.done = flag_done };
	struct pm_id id = mk("f");
	struct pm_map a, b;

	cr_assert_eq(map(id, 0, 8192, &a), 0);
	place(&a, 1);
	cr_assert_eq(pm_map_write(st, id, 5000, 100, &b, &w.w), -EINPROGRESS);
	pm_unpin(&a);
	cr_assert_eq(w.calls, 1);
	cr_assert_eq(w.err, 0);
	put(id, 5000, 100, 2, PM_FILE_SYNC);
	cr_assert(holds(id, 0, 5000, 0));
	cr_assert(holds(id, 5000, 5100, 2));
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

/* --- unstable --- */

Test(file, unstable_data_is_readable_at_once_and_durable_after_sync)
{
	struct pm_id id = mk("f"), lost = mk("lost");
	uint8_t verf[8], now[8];
	struct pm_committed c;
	struct test_waiter w;
	struct pm_stats stats;

	pm_write_verf(st, verf);
	put(id, 0, 10000, 1, PM_UNSTABLE);
	put(id, 3000, 10000, 2, PM_UNSTABLE);
	put(lost, 0, 10000, 3, PM_UNSTABLE);
	cr_assert_eq(size_of(id), 13000);
	cr_assert(holds(id, 0, 3000, 1));
	cr_assert(holds(id, 3000, 13000, 2));
	pm_get_stats(st, &stats);
	cr_assert_eq(stats.dirty_inodes, 2);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
	cr_assert_eq(c.attr.size, 13000);
	cr_assert_eq(c.stable, PM_FILE_SYNC);
	cr_assert_arr_eq(c.verf, verf, 8);
	pm_get_stats(st, &stats);
	cr_assert_eq(stats.dirty_inodes, 1);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(id), 13000);
	cr_assert(holds(id, 0, 3000, 1));
	cr_assert(holds(id, 3000, 13000, 2));
	cr_assert_eq(size_of(lost), 0);
	pm_write_verf(st, now);
	cr_assert(memcmp(now, verf, 8));
}

Test(file, unstable_data_survives_a_clean_close)
{
	struct pm_id id = mk("f");
	uint8_t verf[8], now[8];

	pm_write_verf(st, verf);
	put(id, 100, 10000, 1, PM_UNSTABLE);
	pool_close(&pool);
	pool_open(&pool, PM_CLWB);
	st = pool.st;
	cr_assert(holds(id, 0, 100, 0));
	cr_assert(holds(id, 100, 10100, 1));
	pm_write_verf(st, now);
	cr_assert_arr_eq(now, verf, 8);
}

Test(file, stable_write_publishes_the_unstable_blocks_it_touches)
{
	struct pm_id id = mk("f");

	put(id, 0, 16384, 1, PM_UNSTABLE);
	put(id, 5000, 100, 2, PM_FILE_SYNC);
	reopen(PM_CLWB);
	cr_assert_eq(size_of(id), 5100);
	cr_assert(holds(id, 0, 4096, 0)); /* never synced: a hole, not stale bytes */
	cr_assert(holds(id, 4096, 5000, 1));
	cr_assert(holds(id, 5000, 5100, 2));
}

Test(file, truncate_of_unstable_data)
{
	struct pm_id id = mk("f");
	uint64_t before = free_blocks();
	struct pm_committed c;
	struct test_waiter w;

	put(id, 0, 40000, 1, PM_UNSTABLE);
	resize(id, 6000);
	cr_assert_eq(free_blocks(), before - 2);
	cr_assert(holds(id, 0, 6000, 1));
	resize(id, 20000);
	cr_assert(holds(id, 6000, 20000, 0));
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
	reopen(PM_CLWB);
	cr_assert(holds(id, 0, 6000, 1));
	cr_assert(holds(id, 6000, 20000, 0));
}

/* 80 MiB in a pool that allows itself 64 of unstable data. */
static void bounded(enum pm_method method)
{
	struct pm_stats s;
	struct pm_id id;
	unsigned tries = 0;

	pool_new(&pool, "bounded", 128 * MIB, method);
	st = pool.st;
	id = mk("f");
	for (unsigned i = 0; i < 80; i++)
		put(id, i * (uint64_t)MIB, MIB, (int)i, PM_UNSTABLE);
	do { /* the flusher may be at it yet */
		pm_get_stats(st, &s);
		usleep(1000);
	} while (s.fresh_blocks > 64 * 256 && ++tries < 10000);
	cr_assert_leq(s.fresh_blocks, 64 * 256);
	for (unsigned i = 0; i < 80; i++)
		cr_assert(holds(id, i * (uint64_t)MIB, (i + 1) * (uint64_t)MIB, (int)i));
	rm("f");
	close_clean();
}

Test(file_big, much_unstable_data_is_settled_unasked)
{
	bounded(PM_CLWB);
}
Test(file_big, much_unstable_data_is_settled_unasked_with_msync)
{
	bounded(PM_MSYNC);
}

/* --- msync --- */

Test(file_msync, stable_commit_waits_for_the_flusher)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int rc;

	cr_assert_eq(map(id, 0, 8192, &m), 0);
	place(&m, 1);
	waiter_init(&w);
	rc = pm_commit(&m, 8192, PM_FILE_SYNC, false, &c, &w.w);
	cr_assert_eq(rc, -EINPROGRESS);
	cr_assert_eq(waiter_result(&w, rc), 0);
	cr_assert_eq(c.stable, PM_FILE_SYNC);
	cr_assert_eq(c.attr.size, 8192);
	pm_unpin(&m);
}

Test(file_msync, unstable_commit_and_sync)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int rc;

	put(id, 0, 100, 1, PM_UNSTABLE); /* the first one notes that there is unstable data */
	cr_assert_eq(map(id, 100, 9000, &m), 0);
	place(&m, 2);
	waiter_init(&w);
	rc = pm_commit(&m, 9000, PM_UNSTABLE, false, &c, &w.w);
	cr_assert_eq(rc, 0);
	cr_assert_eq(waiter_result(&w, rc), 0);
	cr_assert_eq(c.stable, PM_UNSTABLE);
	pm_unpin(&m);
	waiter_init(&w);
	rc = pm_sync_file(st, id, &c, &w.w);
	cr_assert_eq(rc, -EINPROGRESS);
	cr_assert_eq(waiter_result(&w, rc), 0);
	cr_assert_eq(c.attr.size, 9100);
	reopen(PM_MSYNC);
	cr_assert(holds(id, 0, 100, 1));
	cr_assert(holds(id, 100, 9100, 2));
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
}

Test(file_msync, many_commits_at_once)
{
	enum { N = 64 };
	static struct pm_map m[N];
	static struct pm_committed c[N];
	static struct test_waiter w[N];
	struct pm_id id = mk("f");
	int rc[N];

	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(map(id, i * 6000ull, 100, &m[i]), 0);
		place(&m[i], (int)i + 1);
	}
	for (unsigned i = 0; i < N; i++) {
		waiter_init(&w[i]);
		rc[i] = pm_commit(&m[i], 100, PM_FILE_SYNC, true, &c[i], &w[i].w);
	}
	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(waiter_result(&w[i], rc[i]), 0);
		pm_unpin(&m[i]);
	}
	reopen(PM_MSYNC);
	for (unsigned i = 0; i < N; i++) {
		cr_assert(holds(id, i * 6000ull, i * 6000ull + 100, (int)i + 1));
		if (i)
			cr_assert(holds(id, (i - 1) * 6000ull + 100, i * 6000ull, 0));
	}
}

Test(file_msync, removed_file_lives_until_the_last_unpin)
{
	removed();
}

/* --- threads --- */

#define STRIPE  7000u
#define THREADS 4u
#define SHARED  (STRIPE * THREADS * 8)

struct stripes {
	pthread_t thread;
	struct pm_id id;
	unsigned no;
	uint8_t byte[SHARED]; /* what this thread's stripes hold */
};

/* Random writes inside one's own stripes: blocks are shared with the neighbours. */
static void *write_stripes(void *arg)
{
	struct stripes *t = arg;
	unsigned seed = t->no;

	for (unsigned i = 0; i < 300; i++) {
		uint64_t at = ((unsigned)rand_r(&seed) % 8 * THREADS + t->no) * STRIPE;
		uint32_t from = (unsigned)rand_r(&seed) % STRIPE;
		uint32_t len = 1 + (unsigned)rand_r(&seed) % (STRIPE - from);
		enum pm_stable stable = rand_r(&seed) % 2 ? PM_UNSTABLE : PM_FILE_SYNC;
		struct pm_committed c;
		struct test_waiter w;
		struct pm_map m;

		if (i % 10 == 9) {
			waiter_init(&w);
			cr_assert_eq(waiter_result(&w, pm_sync_file(st, t->id, &c, &w.w)), 0);
		}
		cr_assert_eq(map(t->id, at + from, len, &m), 0);
		if (i % 7 == 6) {
			pm_unpin(&m);
			continue;
		}
		place(&m, (int)(i % 255 + 1));
		cr_assert_eq(commit(&m, len, stable, &c), 0);
		pm_unpin(&m);
		memset(t->byte + at + from, (int)(i % 255 + 1), len);
	}
	return NULL;
}

static void threads(enum pm_method method)
{
	struct stripes *t = calloc(THREADS, sizeof(*t));
	struct pm_id id = mk("f");
	static uint8_t got[SHARED];
	struct pm_committed c;
	struct test_waiter w;
	uint64_t size, at;
	struct pm_map m;

	for (unsigned i = 0; i < THREADS; i++) {
		t[i].id = id;
		t[i].no = i;
		cr_assert_eq(pthread_create(&t[i].thread, NULL, write_stripes, &t[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i].thread, NULL);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(st, id, &c, &w.w)), 0);
	size = size_of(id);
	reopen(method);
	cr_assert_eq(size_of(id), size);
	cr_assert_eq(pm_map_read(st, id, 0, SHARED, &m), 0);
	cr_assert_eq(m.len, size);
	at = 0;
	for (unsigned i = 0; i < m.nseg; at += m.seg[i++].iov_len)
		memcpy(got + at, m.seg[i].iov_base, m.seg[i].iov_len);
	pm_unpin(&m);
	for (at = 0; at < SHARED; at++)
		cr_assert_eq(got[at], t[at / STRIPE % THREADS].byte[at], "byte %lu",
		             (unsigned long)at);
	free(t);
}

Test(file, threads_write_side_by_side)
{
	threads(PM_CLWB);
}
Test(file_msync, threads_write_side_by_side)
{
	threads(PM_MSYNC);
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

/* --- reserving --- */

static void reserved(enum pm_method method)
{
	struct pm_id id = mk("f");
	struct pm_committed c;
	struct pm_extent x[8];
	struct pm_change ch;
	struct pm_map m;
	uint64_t before;
	unsigned n;

	cr_assert_eq(pm_allocate(st, id, 0, 100000, &ch), 0);
	wait_ok(&ch);
	cr_assert_eq(ch.obj.size, 0);
	before = free_blocks();
	resize(id, 100000);
	cr_assert(holds(id, 0, 100000, 0));
	put(id, 10000, 20000, 1, PM_FILE_SYNC);
	cr_assert_eq(map(id, 50000, 20000, &m), 0);
	place(&m, 9);
	cr_assert(holds(id, 30000, 100000, 0));
	pm_unpin(&m);
	cr_assert_eq(map(id, 50000, 20000, &m), 0);
	place(&m, 2);
	cr_assert_eq(commit(&m, 5000, PM_FILE_SYNC, &c), 0);
	pm_unpin(&m);
	cr_assert_eq(free_blocks(), before, "reserved blocks were not used");
	for (int i = 0; i < 2; i++) {
		cr_assert(holds(id, 0, 10000, 0));
		cr_assert(holds(id, 10000, 30000, 1));
		cr_assert(holds(id, 30000, 50000, 0));
		cr_assert(holds(id, 50000, 55000, 2));
		cr_assert(holds(id, 55000, 100000, 0));
		cr_assert_eq(pm_extents(st, id, 0, x, 8, &n), 0);
		cr_assert_eq(n, 5);
		cr_assert_eq(x[0].state, PM_EXT_UNWRITTEN);
		cr_assert_eq(x[1].state, PM_EXT_VALID);
		if (!i)
			reopen(method);
	}
	resize(id, 0);
	cr_assert_eq(pm_extents(st, id, 0, x, 8, &n), 0);
	cr_assert_eq(n, 0);
}

Test(file, reserved_blocks_read_as_zeros_until_written)
{
	reserved(PM_CLWB);
}
Test(file_msync, reserved_blocks_read_as_zeros_until_written)
{
	reserved(PM_MSYNC);
}

Test(file, fragmented_file_is_written_in_one_map)
{
	struct pm_id id = mk("f");
	uint64_t before = free_blocks();
	struct pm_committed c;
	struct pm_map m;

	for (unsigned i = 0; i < 700; i += 2) /* holes of one block each */
		put(id, i * 4096ull, 4096, 1, PM_FILE_SYNC);
	cr_assert_eq(map(id, 0, 700 * 4096, &m), 0);
	place(&m, 2);
	cr_assert_eq(commit(&m, 700 * 4096, PM_FILE_SYNC, &c), 0);
	pm_unpin(&m);
	cr_assert(holds(id, 0, 700 * 4096, 2));
	reopen(PM_CLWB);
	cr_assert(holds(id, 0, 700 * 4096, 2));
	rm("f");
	pool_close(&pool); /* tree nodes come free with the next checkpoint */
	pool_open(&pool, PM_CLWB);
	st = pool.st;
	cr_assert_eq(free_blocks(), before);
}

/* So many extents that cutting them takes several transactions. */
Test(file_big, truncate_and_remove_of_many_extents)
{
	enum { N = 5000 };
	struct pm_extent x[2];
	struct pm_attr a;
	uint64_t before;
	struct pm_id id;
	unsigned n;

	pool_new(&pool, "many", 64 * MIB, PM_CLWB);
	st = pool.st;
	mk("keep");
	id = mk("f");
	before = free_blocks();
	for (unsigned i = N; i-- > 0;)
		put(id, i * 8192ull, 4096, (int)(i % 255 + 1), PM_FILE_SYNC);
	resize(id, 3 * 8192 + 100);
	cr_assert_eq(pm_getattr(st, id, &a), 0);
	cr_assert_eq(a.used, 4 * 4096);
	cr_assert_eq(pm_extents(st, id, a.size + 4096, x, 2, &n), 0);
	cr_assert_eq(n, 0);
	resize(id, N * 8192ull);
	cr_assert(holds(id, 3 * 8192 + 100, 8 * MIB, 0));
	for (unsigned i = N; i-- > 0;)
		put(id, i * 8192ull, 4096, (int)(i % 255 + 1), PM_FILE_SYNC);
	reopen(PM_CLWB);
	cr_assert(holds(id, 4999 * 8192ull, 4999 * 8192ull + 4096, 4999 % 255 + 1));
	rm("f");
	pool_close(&pool);
	check(&pool);
	pool_open(&pool, PM_CLWB);
	st = pool.st;
	cr_assert_eq(free_blocks(), before);
	pool_close(&pool);
	pool_drop(&pool);
}

/* What a crash in the middle of a long truncate leaves. */
static void leave_behind(struct pm_id id, uint64_t lblk)
{
	struct ext e = { .lblk = lblk, .len = 1 };
	const struct pm_inode *in;
	struct blk_run run;
	struct pm_tx *tx;
	int err;

	pthread_mutex_lock(&st->lock);
	in = ino_get(st, id, &err);
	tx = tx_begin(st);
	cr_assert_eq(tx_take(tx, 0, 1, 0, &run), 0);
	e.pblk = run.start;
	memset(data_ptr(st, run.start), STALE, PM_BLOCK);
	cr_assert_eq(ext_put(st, tx, in, &e), 0);
	cr_assert_eq(tx_commit(tx, NULL), 0);
	pthread_mutex_unlock(&st->lock);
}

Test(file, extents_left_behind_the_end_never_come_back)
{
	struct pm_id id = mk("f"), g = mk("g");
	uint64_t before = free_blocks();

	leave_behind(id, 5);
	cr_assert_eq(size_of(id), 0);
	resize(id, 40960);
	cr_assert(holds(id, 0, 40960, 0));
	leave_behind(g, 1);
	put(g, 30000, 100, 1, PM_FILE_SYNC);
	cr_assert(holds(g, 0, 30000, 0));
	rm("f");
	rm("g");
	cr_assert_eq(free_blocks(), before);
}

static void long_link(enum pm_method method)
{
	char target[PM_LINK_PATH], got[PM_LINK_PATH];
	struct pm_new nw = { .type = PM_LNK, .target = target, .target_len = sizeof(target) };
	struct pm_change ch;
	size_t len;

	memset(target, 'x', sizeof(target));
	cr_assert_eq(pm_create(st, root, "link", 4, &nw, &ch), 0);
	wait_ok(&ch);
	cr_assert_eq(ch.obj.used, PM_BLOCK);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(pm_readlink(st, ch.obj.id, got, sizeof(got), &len), 0);
		cr_assert_eq(len, sizeof(target));
		cr_assert_arr_eq(got, target, sizeof(target));
		if (!i)
			reopen(method);
	}
	rm("link");
}

Test(file, long_link_target_has_a_block)
{
	long_link(PM_CLWB);
}
Test(file_msync, long_link_target_has_a_block)
{
	long_link(PM_MSYNC);
}
