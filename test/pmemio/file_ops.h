/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_ops.h - map, place, commit, unpin as one step each, on a soiled pool
 *
 * Free space of every pool is soiled first, so that a byte nobody wrote shows as STALE if it ever comes out. A step that
 * fails where it must not stops the test. Included by one file of each program.
 */
#ifndef TEST_PMEMIO_FILE_OPS_H
#define TEST_PMEMIO_FILE_OPS_H

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "pmemio/store.h"
#include "test/lib/pool.h"

#define STALE 0xee
#define KIB   1024u
#define MIB   (1024u * KIB)

static struct test_pool pool;
static struct pm_store *st;

static const struct pm_id root = { PM_ROOT_INO, 1 };

static inline void wait_ok(struct pm_change *ch)
{
	cr_assert_eq(pool_wait(st, ch->lsn), 0);
}

static inline struct pm_id mk(const char *name)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644 };
	struct pm_change ch;

	cr_assert_eq(pm_create(st, root, name, strlen(name), &nw, &ch), 0);
	wait_ok(&ch);
	return ch.obj.id;
}

static inline void rm(const char *name)
{
	struct pm_change ch;

	cr_assert_eq(pm_remove(st, root, name, strlen(name), &ch), 0);
	wait_ok(&ch);
}

static inline int map(struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m)
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

static inline void place(struct pm_map *m, int byte)
{
	for (unsigned i = 0; i < m->nseg; i++)
		memset(m->seg[i].iov_base, byte, m->seg[i].iov_len);
}

static inline int commit(struct pm_map *m, uint64_t prefix, enum pm_stable stable,
                  struct pm_committed *out)
{
	struct test_waiter w;

	waiter_init(&w);
	return waiter_result(&w, pm_commit(m, prefix, stable, true, out, &w.w));
}

static inline void put(struct pm_id id, uint64_t off, uint32_t len, int byte, enum pm_stable stable)
{
	struct pm_committed c;
	struct pm_map m;

	cr_assert_eq(map(id, off, len, &m), 0);
	cr_assert_eq(m.len, len);
	place(&m, byte);
	cr_assert_eq(commit(&m, len, stable, &c), 0);
	pm_unpin(&m);
}

static inline uint64_t size_of(struct pm_id id)
{
	struct pm_attr a;

	cr_assert_eq(pm_getattr(st, id, &a), 0);
	return a.size;
}

static inline bool map_holds(const struct pm_map *m, uint64_t from, uint64_t to, int byte)
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
static inline bool holds(struct pm_id id, uint64_t from, uint64_t to, int byte)
{
	struct pm_map m;
	bool ok;

	cr_assert_eq(pm_map_read(st, id, from, (uint32_t)(to - from), &m), 0);
	ok = m.len == to - from && map_holds(&m, 0, to - from, byte);
	pm_unpin(&m);
	return ok;
}

static inline void resize(struct pm_id id, uint64_t size)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = size };
	struct pm_change ch;

	cr_assert_eq(pm_setattr(st, id, &sa, &ch), 0);
	cr_assert_eq(ch.obj.size, size);
	wait_ok(&ch);
}

static inline uint64_t free_blocks(void)
{
	struct pm_space s;

	pm_get_space(st, &s);
	return s.free_blocks;
}

/* A wait that counts. */
struct flag_wait {
	struct pm_wait w;
	int calls, err;
};

static inline void flag_done(struct pm_wait *w, int err)
{
	struct flag_wait *f = (struct flag_wait *)w;

	f->calls++;
	f->err = err;
}

static inline void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	cr_log_error("check: %s: %s", where, what);
}

static inline void check(const struct test_pool *p)
{
	struct pm_check_report r;
	struct pm_error why;

	cr_assert_eq(pm_check(p->path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
}

/* Write STALE over the free space, then give it back. */
static inline void soil(void)
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

static inline void open_soiled(enum pm_method method)
{
	pool_new(&pool, "file", 24 * MIB, method);
	st = pool.st;
	mk("keep"); /* the root directory has its block from now on */
	soil();
}

/* Kill the store, and go on with what the media has. */
static inline void reopen(enum pm_method method)
{
	struct test_pool was = pool;

	pool_copy(&pool, &was, "again");
	check(&pool);
	pool_open(&pool, method);
	pool_drop(&was);
	st = pool.st;
}

static inline void close_clean(void)
{
	pool_close(&pool);
	check(&pool);
	pool_drop(&pool);
}

static inline void clwb(void)
{
	open_soiled(PM_CLWB);
}
static inline void msync_(void)
{
	open_soiled(PM_MSYNC);
}
static inline void volatile_(void)
{
	open_soiled(PM_VOLATILE);
}

#endif
