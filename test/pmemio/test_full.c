/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool filled to the last block, again and again: random small and large writes (stable and not),
 * truncates, reservations, new files, directories and long symbolic links, names that make
 * directories grow, links, renames, removals.
 *
 * What frees space must succeed however full the pool is. What fails, fails with -ENOSPC and leaves
 * everything as it was: the model (size of each file, and which byte fills each of its blocks)
 * agrees with the pool, free space is exact to the block, the check finds nothing. When all has
 * been removed, all is free again, in one piece.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define SIZE   (16ull << 20)
#define SLOTS  1200u
#define BLOCKS 6000u /* of a file, as far as the model goes */
#define BIG    (1u << 20)
#define ULL(x) ((unsigned long long)(x))

static const struct pm_id root = { PM_ROOT_INO, 1 };

struct object {
	enum pm_type type; /* 0: none */
	struct pm_id id;
	unsigned dir, names; /* number of a directory; further names in it */
	uint64_t size;
	uint8_t *fill; /* files: one byte per block, 0 a hole */
};

struct world {
	struct test_pool pool;
	enum pm_method method;
	struct object obj[SLOTS];
	unsigned full, ops, freed; /* refused for want of space, all, that free space */
	unsigned refused[8];
};

static uint64_t upto(uint64_t n)
{
	return n ? (uint64_t)random() % n : 0;
}

static struct pm_id dir_of(const struct world *v, unsigned i)
{
	return v->obj[i].dir == SLOTS ? root : v->obj[v->obj[i].dir].id;
}

/* Long, so that directories take blocks. */
static size_t name_of(unsigned i, unsigned link, char name[256])
{
	return (size_t)snprintf(name, 256, "%04u-%u-%0*u", i, link, 40 + (int)(i * 7 % 150), i);
}

static void settled(struct world *v, pm_lsn lsn)
{
	cr_assert_eq(pool_wait(v->pool.st, lsn), 0);
}

/* True if the call was refused for want of space; any other failure fails the test. */
static bool refused(struct world *v, unsigned kind, int err)
{
	v->ops++;
	if (err == -ENOSPC) {
		v->full++;
		v->refused[kind]++;
	} else {
		cr_assert_eq(err, 0, "kind %u: %s", kind, strerror(-err));
	}
	return err;
}

/* --- what takes space --- */

static void make(struct world *v)
{
	static const enum pm_type types[] = { PM_REG, PM_REG, PM_REG, PM_DIR, PM_LNK };
	static char target[4096];
	unsigned i = (unsigned)upto(SLOTS), d = (unsigned)upto(SLOTS);
	struct object *o = &v->obj[i];
	struct pm_new nw = { .type = types[upto(5)], .mode = 0700, .target = target };
	struct pm_change ch;
	char name[256];
	size_t len;

	if (o->type)
		return;
	memset(target, 'x', sizeof(target));
	nw.target_len = nw.type == PM_LNK ? 1 + upto(PM_LINK_PATH) : 0;
	o->dir = d < SLOTS / 4 && v->obj[d].type == PM_DIR && d != i ? d : SLOTS;
	len = name_of(i, 0, name);
	if (refused(v, 0, pm_create(v->pool.st, dir_of(v, i), name, len, &nw, &ch)))
		return;
	settled(v, ch.lsn);
	o->type = nw.type;
	o->id = ch.obj.id;
	o->size = 0;
	o->names = 0;
	if (o->type == PM_REG)
		cr_assert(o->fill = calloc(1, BLOCKS));
}

static void place(const struct pm_map *m, int byte)
{
	for (unsigned i = 0; i < m->nseg; i++)
		memset(m->seg[i].iov_base, byte, m->seg[i].iov_len);
}

static int map_wait(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len,
                    struct pm_map *m)
{
	for (;;) {
		struct test_waiter w;
		int rc;

		waiter_init(&w);
		rc = pm_map_write(st, id, off, len, m, &w.w);
		waiter_result(&w, rc);
		if (rc != -EINPROGRESS)
			return rc;
	}
}

static struct object *any(struct world *v, enum pm_type type)
{
	unsigned at = (unsigned)upto(SLOTS);

	for (unsigned k = 0; k < SLOTS; k++) {
		struct object *o = &v->obj[(at + k) % SLOTS];

		if (o->type == type)
			return o;
	}
	return NULL;
}

static void put(struct world *v, struct object *o, uint64_t b, uint64_t n, int byte)
{
	enum pm_stable how = upto(3) ? PM_FILE_SYNC : PM_UNSTABLE;
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;

	if (refused(v, 1, map_wait(v->pool.st, o->id, b * PM_BLOCK, (uint32_t)(n * PM_BLOCK), &m)))
		return;
	place(&m, byte);
	waiter_init(&w);
	if (!refused(v, 2, waiter_result(&w, pm_commit(&m, m.len, how, true, &c, &w.w)))) {
		memset(o->fill + b, byte, n);
		if (o->size < (b + n) * PM_BLOCK)
			o->size = (b + n) * PM_BLOCK;
	}
	pm_unpin(&m);
}

static void write_some(struct world *v)
{
	struct object *o = any(v, PM_REG);
	uint64_t n = upto(4) ? 1 : 1 + upto(256), b = upto(upto(2) ? BLOCKS - n : 64);

	if (o)
		put(v, o, b, n, 1 + (int)upto(255));
}

static void reserve(struct world *v)
{
	struct object *o = any(v, PM_REG);
	struct pm_change ch;

	if (o && !refused(v, 3,
	                  pm_allocate(v->pool.st, o->id, upto(BLOCKS / 2) * PM_BLOCK,
	                              upto(64) * PM_BLOCK, &ch)))
		settled(v, ch.lsn);
}

static void link_some(struct world *v)
{
	struct object *o = any(v, PM_REG);
	struct pm_change ch;
	char name[256];
	size_t len;

	if (!o)
		return;
	len = name_of((unsigned)(o - v->obj), o->names + 1, name);
	if (refused(v, 4,
	            pm_link(v->pool.st, o->id, dir_of(v, (unsigned)(o - v->obj)), name, len, &ch)))
		return;
	settled(v, ch.lsn);
	o->names++;
}

/* To another directory, under the same name. */
static void move(struct world *v)
{
	struct object *o = any(v, PM_REG);
	unsigned i = o ? (unsigned)(o - v->obj) : 0, d = (unsigned)upto(SLOTS / 4);
	struct pm_change ch;
	char name[256];
	size_t len;

	if (!o || o->names || v->obj[d].type != PM_DIR)
		return;
	len = name_of(i, 0, name);
	if (refused(v, 5,
	            pm_rename(v->pool.st, dir_of(v, i), name, len, v->obj[d].id, name, len, &ch)))
		return;
	settled(v, ch.lsn);
	o->dir = d;
}

/* --- what gives space, and must not fail --- */

static void gone(struct object *o)
{
	free(o->fill);
	*o = (struct object){ .type = 0 };
}

static void cut(struct world *v)
{
	struct object *o = any(v, PM_REG);
	struct pm_setattr sa = { .set = PM_SET_SIZE };
	struct pm_change ch;
	int err;

	if (!o || !o->size)
		return;
	sa.size = upto(4) ? upto(o->size) / PM_BLOCK * PM_BLOCK : 0;
	err = pm_setattr(v->pool.st, o->id, &sa, &ch);
	cr_assert_eq(err, 0, "truncate: %s", strerror(-err));
	settled(v, ch.lsn);
	o->size = sa.size;
	memset(o->fill + sa.size / PM_BLOCK, 0, BLOCKS - sa.size / PM_BLOCK);
	v->freed++;
}

static void take_away(struct world *v, unsigned i)
{
	struct object *o = &v->obj[i];
	struct pm_change ch;
	char name[256];
	size_t len;
	int err;

	if (o->type == PM_DIR) {
		len = name_of(i, 0, name);
		err = pm_rmdir(v->pool.st, dir_of(v, i), name, len, &ch);
		if (err == -ENOTEMPTY)
			return;
		cr_assert_eq(err, 0, "rmdir: %s", strerror(-err));
		settled(v, ch.lsn);
		gone(o);
		return;
	}
	for (unsigned k = 0; k <= o->names; k++) {
		len = name_of(i, k, name);
		err = pm_remove(v->pool.st, dir_of(v, i), name, len, &ch);
		cr_assert_eq(err, 0, "remove: %s", strerror(-err));
		settled(v, ch.lsn);
	}
	gone(o);
	v->freed++;
}

static void remove_some(struct world *v)
{
	unsigned i = (unsigned)upto(SLOTS);

	if (v->obj[i].type)
		take_away(v, i);
}

/* One file over another. */
static void replace(struct world *v)
{
	struct object *from = any(v, PM_REG), *to = any(v, PM_REG);
	unsigned f, t;
	struct pm_change ch;
	char a[256], b[256];
	size_t n, m;
	int err;

	if (!from || from == to || from->names || to->names)
		return;
	f = (unsigned)(from - v->obj);
	t = (unsigned)(to - v->obj);
	n = name_of(f, 0, a);
	m = name_of(t, 0, b);
	err = pm_rename(v->pool.st, dir_of(v, f), a, n, dir_of(v, t), b, m, &ch);
	cr_assert_eq(err, 0, "rename over: %s", strerror(-err));
	settled(v, ch.lsn);
	free(to->fill);
	to->id = from->id;
	to->size = from->size;
	to->fill = from->fill;
	from->fill = NULL;
	gone(from);
	v->freed++;
}

static void sync_all(struct world *v)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct pm_committed c;
		struct test_waiter w;

		if (v->obj[i].type != PM_REG)
			continue;
		waiter_init(&w);
		cr_assert_eq(waiter_result(&w, pm_sync_file(v->pool.st, v->obj[i].id, &c, &w.w)),
		             0);
	}
}

/* --- looking --- */

static void compare_file(struct pm_store *st, const struct object *o)
{
	struct pm_attr a;
	struct pm_map m;

	cr_assert_eq(pm_getattr(st, o->id, &a), 0);
	cr_assert_eq(a.size, o->size, "inode %llu: size %llu, not %llu", ULL(o->id.ino),
	             ULL(a.size), ULL(o->size));
	for (uint64_t off = 0; off < o->size; off += BIG) {
		uint64_t at = off;

		cr_assert_eq(pm_map_read(st, o->id, off, BIG, &m), 0);
		for (unsigned i = 0; i < m.nseg; i++) {
			const uint8_t *p = m.seg[i].iov_base;

			for (size_t k = 0; k < m.seg[i].iov_len; k += 1024, at += 1024)
				cr_assert_eq(p[k], o->fill[at / PM_BLOCK], "inode %llu: byte %llu",
				             ULL(o->id.ino), ULL(at));
		}
		pm_unpin(&m);
	}
}

static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	cr_log_error("check: %s: %s", where, what);
}

/* The pool as a kill would leave it: whole, equal to the model, and as much is free. */
static void look(struct world *v)
{
	struct pm_check_report r;
	struct pm_space a, b;
	struct pm_error why;
	struct test_pool copy;
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = 0755 };
	struct pm_change ch;

	sync_all(v);
	cr_assert_eq(pm_setattr(v->pool.st, root, &sa, &ch), 0);
	settled(v, ch.lsn); /* and what came before */
	pool_copy(&copy, &v->pool, "full-copy");
	cr_assert_eq(pm_check(copy.path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
	pool_open(&copy, v->method);
	for (unsigned i = 0; i < SLOTS; i++)
		if (v->obj[i].type == PM_REG) {
			compare_file(v->pool.st, &v->obj[i]);
			compare_file(copy.st, &v->obj[i]);
		}
	pm_get_space(v->pool.st, &a);
	pm_get_space(copy.st, &b);
	cr_assert_eq(a.free_blocks, b.free_blocks, "free: %llu, after a kill %llu",
	             ULL(a.free_blocks), ULL(b.free_blocks));
	pool_drop(&copy);
}

/* Fill what is left, in pieces of any size, so that not a block is to be had. */
static void fill_up(struct world *v)
{
	struct pm_space sp;

	for (uint64_t n = 256; n; n /= 2) {
		for (unsigned was = v->refused[1] + 2, tries = 0;
		     v->refused[1] < was && tries < 2000; tries++) {
			struct object *o = any(v, PM_REG);

			cr_assert_not_null(o);
			put(v, o, upto(BLOCKS - n), n, 1 + (int)upto(255));
		}
		sync_all(v);
	}
	pm_get_space(v->pool.st, &sp);
	cr_assert_leq(sp.free_blocks, 1);
}

static void remove_all(struct world *v)
{
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = SLOTS; i-- > 0;)
			if (v->obj[i].type)
				take_away(v, i);
	for (unsigned i = 0; i < SLOTS; i++)
		cr_assert_eq(v->obj[i].type, 0);
}

/* All that is free, as one file. Inode chunks lie in between, and the last few dozen metadata
 * blocks that were freed, until a checkpoint: some extents, where thousands of pieces had been. */
static void one_piece(struct world *v, uint64_t was_free)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_extent e[64];
	struct pm_space sp;
	struct pm_change ch;
	struct object o = { .size = 0 };
	uint64_t most, chunks;
	unsigned n;

	pm_get_space(v->pool.st, &sp);
	chunks = (sp.inodes + sp.free_inodes - sp.free_blocks / PM_CHUNK_BLOCKS * PM_CHUNK_INODES) /
	         PM_CHUNK_INODES;
	/* the inode table keeps what it grew to */
	cr_assert_eq(sp.free_blocks + chunks * PM_CHUNK_BLOCKS, was_free + PM_CHUNK_BLOCKS);
	cr_assert_eq(pm_create(v->pool.st, root, "one", 3, &nw, &ch), 0);
	settled(v, ch.lsn);
	o.id = ch.obj.id;
	cr_assert(o.fill = calloc(1, BLOCKS));
	pm_get_space(v->pool.st, &sp);
	most = sp.free_blocks;
	for (uint64_t b = 0; b + 256 <= most; b += 256) {
		struct pm_committed c;
		struct test_waiter w;
		struct pm_map m;

		cr_assert_eq(map_wait(v->pool.st, o.id, b * PM_BLOCK, BIG, &m), 0);
		waiter_init(&w);
		cr_assert_eq(waiter_result(&w, pm_commit(&m, m.len, PM_FILE_SYNC, false, &c, &w.w)),
		             0);
		pm_unpin(&m);
	}
	cr_assert_eq(pm_extents(v->pool.st, o.id, 0, e, 64, &n), 0);
	cr_assert_leq(n, 72 + 2 * chunks, "%u extents", n);
	free(o.fill);
	cr_assert_eq(pm_remove(v->pool.st, root, "one", 3, &ch), 0);
	settled(v, ch.lsn);
}

static void step(struct world *v)
{
	uint64_t k = upto(100);

	if (k < 18)
		make(v);
	else if (k < 62)
		write_some(v);
	else if (k < 66)
		reserve(v);
	else if (k < 72)
		link_some(v);
	else if (k < 76)
		move(v);
	else if (k < 84)
		cut(v);
	else if (k < 94)
		remove_some(v);
	else
		replace(v);
}

static void run(enum pm_method method, unsigned seed, unsigned ops)
{
	struct world *v = calloc(1, sizeof(*v));
	struct pm_space sp;

	cr_assert_not_null(v);
	v->method = method;
	srandom(getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : seed);
	pool_new(&v->pool, "full", SIZE, method);
	pm_get_space(v->pool.st, &sp);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < ops; i++) {
			step(v);
			if (i == ops / 2)
				look(v);
		}
		fill_up(v);
		look(v);
		for (unsigned i = 0; i < ops / 2; i++) /* on the brink */
			step(v);
		look(v);
		pool_close(&v->pool);
		pool_open(&v->pool, method);
		look(v);
		fill_up(v);
		remove_all(v);
		look(v);
		one_piece(v, sp.free_blocks);
	}
	cr_log_info("%u operations, %u refused (create %u, map %u, commit %u, reserve %u, link %u, "
	            "rename %u), %u freed space",
	            v->ops, v->full, v->refused[0], v->refused[1], v->refused[2], v->refused[3],
	            v->refused[4], v->refused[5], v->freed);
	cr_assert_gt(v->full, 100);
	cr_assert_gt(v->refused[0], 0);
	cr_assert_gt(v->refused[1], 0);
	cr_assert_gt(v->freed, 100);
	pool_drop(&v->pool);
	free(v);
}

/* --- trees of thousands of extents ------------------------------------------------------------ */

static struct object new_file(struct world *v, const char *name)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct object o = { .type = PM_REG };
	struct pm_change ch;

	cr_assert_eq(pm_create(v->pool.st, root, name, strlen(name), &nw, &ch), 0);
	settled(v, ch.lsn);
	o.id = ch.obj.id;
	cr_assert(o.fill = calloc(1, 65536));
	return o;
}

static void unstable(struct world *v, struct object *o, uint64_t b, uint64_t n, int byte)
{
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;

	cr_assert_eq(map_wait(v->pool.st, o->id, b * PM_BLOCK, (uint32_t)(n * PM_BLOCK), &m), 0);
	place(&m, byte);
	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_commit(&m, m.len, PM_UNSTABLE, true, &c, &w.w)), 0);
	memset(o->fill + b, byte, n);
	if (o->size < (b + n) * PM_BLOCK)
		o->size = (b + n) * PM_BLOCK;
	pm_unpin(&m);
}

static void sync_one(struct world *v, const struct object *o)
{
	struct pm_committed c;
	struct test_waiter w;
	int err;

	waiter_init(&w);
	err = waiter_result(&w, pm_sync_file(v->pool.st, o->id, &c, &w.w));
	cr_assert_eq(err, 0, "sync: %s", strerror(-err));
}

static void checked(struct world *v, const struct object *o)
{
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = 0755 };
	struct pm_check_report r;
	struct test_pool copy;
	struct pm_change ch;
	struct pm_error why;

	cr_assert_eq(pm_setattr(v->pool.st, root, &sa, &ch), 0);
	settled(v, ch.lsn);
	pool_copy(&copy, &v->pool, "full-copy");
	cr_assert_eq(pm_check(copy.path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
	pool_open(&copy, v->method);
	compare_file(copy.st, o);
	compare_file(v->pool.st, o);
	pool_drop(&copy);
}

/* In full leaves, a few new extents each: most split, and all are published by one sync. Then
 * nothing is left, and the file goes in two steps. The journal lane is as small as one can be. */
static void pieces(enum pm_method method)
{
	struct world *v = calloc(1, sizeof(*v));
	struct pm_setattr sa = { .set = PM_SET_SIZE };
	struct pm_space before, sp;
	struct pm_change ch;
	struct object o, rest;
	struct pm_map m;

	cr_assert_not_null(v);
	v->method = method;
	pool_new(&v->pool, "pieces", 64ull << 20, method);
	o = new_file(v, "pieces");
	rest = new_file(v, "rest");
	pm_get_space(v->pool.st, &before);
	for (uint64_t b = 0; b < 7000; b++)
		unstable(v, &o, 2 * b, 1, 1 + (int)(b % 255));
	sync_one(v, &o);
	for (uint64_t first = 1; first < 41; first += 2) {
		for (uint64_t b = first; b < 14000; b += 58)
			unstable(v, &o, b, 1, 77);
		sync_one(v, &o);
	}
	checked(v, &o);
	for (uint64_t n = 1024, at = 0; n; n /= 2) /* the rest of the pool */
		while (!map_wait(v->pool.st, rest.id, at * PM_BLOCK, (uint32_t)(n * PM_BLOCK),
		                 &m)) {
			pm_unpin(&m);
			unstable(v, &rest, at, n, 9);
			at += n;
		}
	sync_one(v, &rest);
	pm_get_space(v->pool.st, &sp);
	cr_assert_leq(sp.free_blocks, 1);
	sa.size = 4001 * PM_BLOCK + 100;
	cr_assert_eq(pm_setattr(v->pool.st, o.id, &sa, &ch), 0);
	settled(v, ch.lsn);
	cr_assert_eq(ch.obj.size, sa.size);
	o.size = 4000 * PM_BLOCK; /* as far as whole blocks go */
	sa.size = o.size;
	cr_assert_eq(pm_setattr(v->pool.st, o.id, &sa, &ch), 0);
	settled(v, ch.lsn);
	checked(v, &o);
	cr_assert_eq(pm_remove(v->pool.st, root, "pieces", 6, &ch), 0);
	cr_assert_eq(pm_remove(v->pool.st, root, "rest", 4, &ch), 0);
	settled(v, ch.lsn);
	pm_get_space(v->pool.st, &sp);
	/* the directory gives its block back with the last name */
	cr_assert_eq(sp.free_blocks, before.free_blocks + 1);
	free(o.fill);
	free(rest.fill);
	pool_drop(&v->pool);
	free(v);
}

Test(full, trees_of_thousands_of_extents_with_clwb)
{
	pieces(PM_CLWB);
}
Test(full, trees_of_thousands_of_extents_with_msync)
{
	pieces(PM_MSYNC);
}

/* Blocks of removed links wait for the flusher's checkpoint; a write that needs them waits as well.
 */
Test(full, a_write_waits_for_space_on_its_way_back)
{
	static char target[PM_LINK_PATH];
	struct world *v = calloc(1, sizeof(*v));
	struct pm_new nw = { .type = PM_LNK, .target = target, .target_len = sizeof(target) };
	struct pm_change ch;
	struct pm_space sp;
	struct object o;
	char name[16];

	cr_assert_not_null(v);
	v->method = PM_MSYNC;
	memset(target, 'x', sizeof(target));
	pool_new(&v->pool, "waits", SIZE, PM_MSYNC);
	o = new_file(v, "o");
	for (int i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "link%d", i);
		cr_assert_eq(pm_create(v->pool.st, root, name, strlen(name), &nw, &ch), 0);
	}
	settled(v, ch.lsn);
	pm_get_space(v->pool.st, &sp);
	unstable(v, &o, 10000, sp.free_blocks - 1000, 1);
	sync_one(v, &o);
	for (int i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "link%d", i);
		cr_assert_eq(pm_remove(v->pool.st, root, name, strlen(name), &ch), 0);
	}
	settled(v, ch.lsn);
	pm_get_space(v->pool.st, &sp);
	cr_assert_geq(sp.free_blocks, 1350);
	unstable(v, &o, 0, 1350, 2);
	free(o.fill);
	pool_drop(&v->pool);
	free(v);
}

Test(full, with_clwb)
{
	run(PM_CLWB, 1, 6000);
}
Test(full, with_clwb_again)
{
	run(PM_CLWB, 2, 6000);
}
Test(full, with_msync)
{
	run(PM_MSYNC, 3, 4000);
}
