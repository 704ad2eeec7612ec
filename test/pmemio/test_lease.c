/* SPDX-License-Identifier: BSD-3-Clause */
/* Leases: whose blocks they hold, whom they keep out, what is left when they end. Crashes: test_crash.c. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/pool.h"

#define B PM_BLOCK

static struct test_pool p;

static void start(void)
{
	pool_new(&p, "lease", 64 << 20, PM_CLWB);
}

static void finish(void)
{
	pool_close(&p); /* nothing is pinned any more */
	pool_drop(&p);
}

static struct pm_id make(const char *name)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_change ch;

	cr_assert_eq(pm_create(p.st, (struct pm_id){ PM_ROOT_INO, 1 }, name, strlen(name), &nw, &ch), 0);
	return ch.obj.id;
}

static void count(void *arg)
{
	++*(unsigned *)arg;
}

static struct pm_lease *leased(struct pm_id id, uint64_t off, uint64_t len, const void *owner, bool write,
                               unsigned *recalls)
{
	struct pm_lease_opts o = { .owner = owner, .write = write, .max_extents = 64, .recall = count, .arg = recalls };
	struct test_waiter w = { .sync = NULL };
	struct pm_lease *l;
	int err;

	cr_assert_eq(pm_lease_open(p.st, id, off, len, write ? len : 0, &o, &l, &w.w), 0);
	while ((err = pm_lease_zero(l, 3)) == -EAGAIN)
		;
	cr_assert_eq(err, 0);
	return l;
}

/* Where byte @off of the file is, by the lease. */
static uint8_t *at(struct pm_lease *l, uint64_t off)
{
	struct pm_region pool, zero;
	const struct pm_extent *e;
	unsigned n;

	pm_get_regions(p.st, &pool, &zero);
	e = pm_lease_extents(l, &n);
	for (unsigned i = 0; i < n; i++)
		if (off >= e[i].off && off < e[i].off + e[i].len && e[i].at)
			return (uint8_t *)pool.base + e[i].at + (off - e[i].off);
	return NULL;
}

static void put(struct pm_lease *l, uint64_t off, int byte, size_t len)
{
	for (size_t i = 0; i < len; i++)
		*at(l, off + i) = (uint8_t)byte;
}

static int commit(struct pm_lease *l, uint64_t off, uint64_t len)
{
	struct pm_range r = { off, len };
	struct pm_committed out;
	struct test_waiter w;

	waiter_init(&w);
	return waiter_result(&w, pm_lease_commit(l, &r, 1, false, 0, NULL, &out, &w.w));
}

static void nfs_write(struct pm_id id, uint64_t off, int byte, uint32_t len)
{
	struct test_waiter w;
	struct pm_committed out;
	struct pm_map m;

	waiter_init(&w);
	cr_assert_eq(pm_map_write(p.st, id, off, len, &m, &w.w), 0);
	for (unsigned i = 0; i < m.nseg; i++)
		memset(m.seg[i].iov_base, byte, m.seg[i].iov_len);
	cr_assert_eq(waiter_result(&w, pm_commit(&m, len, PM_FILE_SYNC, false, &out, &w.w)), 0);
	pm_unpin(&m);
}

static void expect(struct pm_id id, uint64_t off, int byte, size_t len)
{
	struct pm_map m;

	cr_assert_eq(pm_map_read(p.st, id, off, (uint32_t)len, &m), 0);
	cr_assert_eq(m.len, len);
	for (unsigned i = 0; i < m.nseg; i++)
		for (size_t k = 0; k < m.seg[i].iov_len; k++)
			cr_assert_eq(((uint8_t *)m.seg[i].iov_base)[k], byte);
	pm_unpin(&m);
}

static uint64_t free_blocks(void)
{
	struct pm_space sp;

	pm_get_space(p.st, &sp);
	return sp.free_blocks;
}

static void truncate_to(struct pm_id id, uint64_t size)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = size };
	struct pm_change ch;

	cr_assert_eq(pm_setattr(p.st, id, &sa, &ch), 0);
}

Test(lease, what_is_not_committed_goes_back, .init = start, .fini = finish)
{
	struct pm_id id = make("f");
	uint64_t before = free_blocks();
	unsigned recalls = 0;
	struct pm_lease *l = leased(id, 100, 64 * B, NULL, true, &recalls);

	cr_assert_eq(free_blocks(), before - 65, "whole blocks, both ends");
	put(l, 100, 7, 64 * B);
	cr_assert_eq(commit(l, 10 * B, 2 * B + 1), 0);
	pm_lease_close(l);
	cr_assert_eq(free_blocks(), before - 3);
	expect(id, 0, 0, 10 * B);
	expect(id, 10 * B, 7, 2 * B + 1);
	cr_assert_eq(recalls, 0);
}

Test(lease, new_blocks_hold_zeros, .init = start, .fini = finish)
{
	struct pm_id id = make("f");
	unsigned recalls = 0;
	struct pm_lease *l;

	for (unsigned i = 0; i < 10; i++) { /* dirty what is free */
		nfs_write(id, 0, 0xaa, 4 << 20);
		truncate_to(id, 0);
	}
	l = leased(id, 0, 4 << 20, NULL, true, &recalls);
	for (uint64_t i = 0; i < 4 << 20; i++)
		cr_assert_eq(*at(l, i), 0, "byte %llu", (unsigned long long)i);
	pm_lease_close(l);
}

Test(lease, readers_share_writers_do_not, .init = start, .fini = finish)
{
	struct pm_lease_opts o = { .owner = "c", .max_extents = 8 };
	struct pm_id id = make("f");
	unsigned ra = 0, rb = 0;
	struct pm_lease *a, *b, *c;
	struct test_waiter w;

	nfs_write(id, 0, 1, 8 * B);
	a = leased(id, 0, 8 * B, "a", false, &ra);
	b = leased(id, 0, 8 * B, "b", false, &rb);
	cr_assert_eq(ra + rb, 0);
	o.write = true;
	waiter_init(&w);
	cr_assert_eq(pm_lease_open(p.st, id, 0, B, B, &o, &c, &w.w), -EINPROGRESS);
	cr_assert(ra == 1 && rb == 1 && pm_lease_recalled(a) && pm_lease_recalled(b));
	pm_lease_close(a);
	pm_lease_close(b);
	cr_assert_eq(waiter_result(&w, -EINPROGRESS), 0);
	cr_assert_eq(pm_lease_open(p.st, id, 0, B, B, &o, &c, &w.w), 0);
	pm_lease_close(c);
}

Test(lease, one_owner_has_as_many_as_it_likes, .init = start, .fini = finish)
{
	struct pm_id id = make("f");
	unsigned recalls = 0;
	struct pm_lease *a = leased(id, 0, 8 * B, "a", true, &recalls), *b = leased(id, 4 * B, 8 * B, "a", true, &recalls);

	cr_assert_eq(at(a, 5 * B), at(b, 5 * B), "the same block");
	put(a, 5 * B, 3, B);
	pm_lease_close(a);
	cr_assert_eq(commit(b, 5 * B, B), 0);
	expect(id, 5 * B, 3, B);
	pm_lease_close(b);
	expect(id, 5 * B, 3, B);
	cr_assert_eq(recalls, 0);
}

Test(lease, apart_they_do_not_meet, .init = start, .fini = finish)
{
	struct pm_id id = make("f");
	unsigned recalls = 0;
	struct pm_lease *a = leased(id, 0, 4 * B, "a", true, &recalls), *b = leased(id, 4 * B, 4 * B, "b", true, &recalls);

	cr_assert_eq(recalls, 0);
	pm_lease_close(a);
	pm_lease_close(b);
}

/* I2: what is cut off under a lease serves nobody else before it is closed. */
Test(lease, cut_blocks_wait, .init = start, .fini = finish)
{
	struct pm_id id = make("f"), other = make("other");
	unsigned recalls = 0;
	struct pm_lease *l = leased(id, 0, 2 << 20, NULL, true, &recalls);
	uint64_t left;

	put(l, 0, 1, 2 << 20);
	cr_assert_eq(commit(l, 0, 2 << 20), 0);
	left = free_blocks();
	truncate_to(id, 0);
	cr_assert_eq(recalls, 1);
	cr_assert_eq(free_blocks(), left);
	nfs_write(other, 0, 9, 8 << 20);
	put(l, 0, 2, 2 << 20); /* a client that has not heard yet */
	expect(other, 0, 9, 8 << 20);
	cr_assert_eq(commit(l, B, B), -ECANCELED);
	pm_lease_close(l);
	cr_assert_geq(free_blocks(), left - (8 << 20) / B);
}

Test(lease, a_removed_file_waits, .init = start, .fini = finish)
{
	struct pm_id id = make("f"), keep = make("keep"); /* the directory stays as large */
	uint64_t before = free_blocks();
	unsigned recalls = 0;
	struct pm_lease *l = leased(id, 0, 16 * B, NULL, true, &recalls);
	struct pm_change ch;
	uint64_t left;

	cr_assert_eq(commit(l, 0, 4 * B), 0);
	(void)keep;
	left = free_blocks();
	cr_assert_eq(pm_remove(p.st, (struct pm_id){ PM_ROOT_INO, 1 }, "f", 1, &ch), 0);
	cr_assert_eq(recalls, 1);
	cr_assert_eq(free_blocks(), left);
	cr_assert_eq(commit(l, 4 * B, B), -ESTALE);
	pm_lease_close(l);
	cr_assert_eq(free_blocks(), before);
}

Test(lease, generation_tells_of_new_data, .init = start, .fini = finish)
{
	struct pm_id id = make("f");
	unsigned recalls = 0;
	struct pm_lease *w, *r;
	uint64_t g;

	nfs_write(id, 9 * B, 1, B);
	r = leased(id, 0, 10 * B, "r", false, &recalls);
	g = pm_lease_generation(r);
	nfs_write(id, 9 * B, 2, B); /* data over data */
	cr_assert_eq(pm_lease_generation(r), g);
	nfs_write(id, 3 * B, 2, B); /* into the hole */
	cr_assert_neq(pm_lease_generation(r), g);
	pm_lease_close(r);
	w = leased(id, 0, 10 * B, "w", true, &recalls);
	g = pm_lease_generation(w);
	cr_assert_eq(commit(w, 0, B), 0);
	cr_assert_eq(pm_lease_generation(w), g, "its own");
	pm_lease_close(w);
}

Test(lease, for_reading, .init = start, .fini = finish)
{
	struct pm_lease_opts o = { .max_extents = 64 };
	struct pm_id id = make("f");
	const struct pm_extent *e;
	unsigned recalls = 0, n;
	struct pm_lease *l;

	cr_assert_eq(pm_lease_open(p.st, id, 0, B, 0, &o, &l, NULL), -ENODATA);
	nfs_write(id, 2 * B, 5, 100);
	l = leased(id, 0, 64 * B, NULL, false, &recalls);
	e = pm_lease_extents(l, &n);
	cr_assert_eq(n, 2);
	cr_assert(e[0].state == PM_EXT_HOLE && !e[0].at && e[0].len == 2 * B);
	cr_assert(e[1].state == PM_EXT_VALID && e[1].len == 100 && *at(l, 2 * B) == 5);
	cr_assert_eq(commit(l, 2 * B, 1), -EINVAL);
	pm_lease_close(l);
}

/* Short of space: as much as there is, if that is enough; else nothing is held back. */
Test(lease, when_space_runs_out, .init = start, .fini = finish)
{
	struct pm_lease_opts o = { .write = true, .max_extents = 64 };
	struct pm_id id = make("f");
	uint64_t before = free_blocks();
	const struct pm_extent *e;
	struct pm_lease *l;
	struct test_waiter w;
	unsigned n;

	waiter_init(&w);
	cr_assert_eq(pm_lease_open(p.st, id, 0, 1 << 30, 1 << 30, &o, &l, &w.w), -ENOSPC);
	cr_assert_eq(free_blocks(), before);
	cr_assert_eq(pm_lease_open(p.st, id, 0, 1 << 30, 3 * B, &o, &l, &w.w), 0);
	e = pm_lease_extents(l, &n);
	cr_assert_geq(e[n - 1].off + e[n - 1].len, 3 * B);
	pm_lease_close(l);
	cr_assert_eq(free_blocks(), before);
}

Test(lease, ends_behind_so_many_extents, .init = start, .fini = finish)
{
	struct pm_lease_opts o = { .max_extents = 5 };
	struct pm_id id = make("f");
	const struct pm_extent *e;
	struct pm_lease *l;
	struct test_waiter w;
	unsigned n;

	for (unsigned i = 0; i < 20; i++)
		nfs_write(id, (2 * i + 1) * B, 1, B);
	waiter_init(&w);
	for (unsigned write = 0; write < 2; write++) {
		o.write = write;
		cr_assert_eq(pm_lease_open(p.st, id, 0, 40 * B, B, &o, &l, &w.w), 0);
		e = pm_lease_extents(l, &n);
		cr_assert(n >= 1 && n <= 5);
		cr_assert_lt(e[n - 1].off + e[n - 1].len, 40 * B);
		pm_lease_close(l);
	}
}

Test(lease, none_for_writing_with_checksums)
{
	struct pm_lease_opts o = { .write = true, .max_extents = 5 };
	struct pm_mkfs_opts mk = { .size = 64 << 20, .data_checksum = true };
	struct pm_lease *l;
	struct pm_error why;
	struct pm_id id;

	pool_path(&p, "lease-sum");
	cr_assert_eq(pm_mkfs(p.path, &mk, &why), 0);
	pool_open(&p, PM_CLWB);
	id = make("f");
	cr_assert_eq(pm_lease_open(p.st, id, 0, B, B, &o, &l, NULL), -EOPNOTSUPP);
	finish();
}

/* Appending by leases costs each the same, however many there were: what is committed leaves no trace in memory. */
Test(lease, thousands_in_a_row, .init = start, .fini = finish)
{
	struct pm_id id = make("f");
	unsigned recalls = 0;

	for (unsigned i = 0; i < 5000; i++) {
		struct pm_lease *l = leased(id, i * B, B, NULL, true, &recalls);

		put(l, i * B, (int)(1 + i % 200), 64);
		cr_assert_eq(commit(l, i * B, 64), 0);
		pm_lease_close(l);
	}
	expect(id, 4999 * (uint64_t)B, 1 + 4999 % 200, 64);
}

TestSuite(lease, .timeout = 60);
