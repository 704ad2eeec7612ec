/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random operations on a few files against a model in memory, with many pins open at a time.
 * Payload is placed right before its commit, so the model changes at commits: in the order of
 * commits, and without what a truncate has cut off since the map. In the end, and now and then,
 * everything is synced, the pool is copied as a kill would leave it, checked, and the copy must
 * hold the same bytes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmemio/pmemio.h"
#include "test/lib/pool.h"

#define FILES  5u
#define PINS   12u
#define LIMIT  (200u * 1024)
#define ROUNDS 6000u

static const struct pm_id root = { PM_ROOT_INO, 1 };

struct model {
	struct pm_id id;
	uint64_t size;
	uint8_t byte[LIMIT]; /* zero behind size */
};

struct writer {
	bool live;
	unsigned file;
	uint64_t off, len, cut;
	struct pm_map m;
};

struct reader { /* what it mapped of a file that is removed or cut must stay readable */
	bool live;
	struct pm_map m;
};

struct flag_wait {
	struct pm_wait w;
	bool used, over;
};

struct world {
	struct test_pool pool;
	struct pm_store *st;
	enum pm_method method;
	struct model file[FILES];
	struct writer wr[PINS];
	struct reader rd[PINS];
	struct flag_wait *waits;
	unsigned nwaits, conflicts, commits, copies;
};

static uint64_t upto(uint64_t n)
{
	return n ? (uint64_t)random() % n : 0;
}

static void flag_done(struct pm_wait *w, int err)
{
	struct flag_wait *f = (struct flag_wait *)w;

	(void)err;
	__atomic_store_n(&f->over, true, __ATOMIC_RELEASE);
}

static void name_of(unsigned i, char name[8])
{
	snprintf(name, 8, "f%u", i);
}

static void make_file(struct world *v, unsigned i)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_change ch;
	char name[8];

	name_of(i, name);
	cr_assert_eq(pm_create(v->st, root, name, strlen(name), &nw, &ch), 0);
	v->file[i].id = ch.obj.id;
	v->file[i].size = 0;
	memset(v->file[i].byte, 0, LIMIT);
}

static void gather(const struct pm_map *m, uint8_t *buf)
{
	for (unsigned i = 0; i < m->nseg; i++) {
		memcpy(buf, m->seg[i].iov_base, m->seg[i].iov_len);
		buf += m->seg[i].iov_len;
	}
}

/* Does the file in @st equal the model? */
static void compare(struct pm_store *st, const struct model *f, uint64_t off, uint32_t len,
                    const char *when)
{
	static uint8_t buf[LIMIT];
	struct pm_attr a;
	struct pm_map m;

	cr_assert_eq(pm_getattr(st, f->id, &a), 0);
	cr_assert_eq(a.size, f->size, "%s: size %lu, not %lu", when, (unsigned long)a.size,
	             (unsigned long)f->size);
	cr_assert_eq(pm_map_read(st, f->id, off, len, &m), 0);
	cr_assert_eq(m.len, off >= f->size ? 0 : f->size - off < len ? f->size - off : len);
	gather(&m, buf);
	for (uint64_t i = 0; i < m.len; i++)
		cr_assert_eq(buf[i], f->byte[off + i], "%s: ino %lu byte %lu is %02x, not %02x",
		             when, (unsigned long)f->id.ino, (unsigned long)(off + i), buf[i],
		             f->byte[off + i]);
	pm_unpin(&m);
}

/* --- operations --- */

static bool overlaps(const struct world *v, const struct writer *w)
{
	for (unsigned i = 0; i < PINS; i++) {
		const struct writer *o = &v->wr[i];

		if (o != w && o->live && o->file == w->file && o->off < w->off + w->len &&
		    w->off < o->off + o->len)
			return true;
	}
	return false;
}

static void begin_write(struct world *v)
{
	unsigned i = (unsigned)upto(PINS);
	struct writer *w = &v->wr[i];
	struct flag_wait *f;
	int err;

	if (w->live)
		return;
	w->file = (unsigned)upto(FILES);
	w->off = upto(LIMIT);
	w->len = 1 + upto(upto(3) ? 6000 : 60000);
	if (random() % 4 == 0)
		w->off &= ~4095ull;
	if (random() % 4 == 0)
		w->len = (w->len + 4095) & ~4095ull;
	if (random() % 3 == 0 && v->file[w->file].size < LIMIT)
		w->off = v->file[w->file].size;
	if (w->len > LIMIT - w->off)
		w->len = LIMIT - w->off;
	w->cut = UINT64_MAX;
	cr_assert_lt(v->nwaits, ROUNDS);
	f = &v->waits[v->nwaits++];
	f->w.done = flag_done;
	err = pm_map_write(v->st, v->file[w->file].id, w->off, (uint32_t)w->len, &w->m, &f->w);
	cr_assert(err == 0 || err == -EINPROGRESS, "map: %d", err);
	f->used = err == -EINPROGRESS;
	v->conflicts += f->used;
	w->live = !err;
}

static void apply(struct world *v, const struct writer *w, uint64_t prefix, int byte)
{
	struct model *f = &v->file[w->file];
	uint64_t end = w->off + prefix;

	if (end > w->cut)
		end = w->cut;
	if (end <= w->off)
		return;
	memset(f->byte + w->off, byte, end - w->off);
	if (f->size < end)
		f->size = end;
}

static void place(struct pm_map *m, uint64_t len, int byte)
{
	for (unsigned i = 0; i < m->nseg && len; i++) {
		uint64_t n = m->seg[i].iov_len < len ? m->seg[i].iov_len : len;

		memset(m->seg[i].iov_base, byte, n);
		len -= n;
	}
}

static void end_write(struct world *v)
{
	struct writer *w = &v->wr[upto(PINS)];
	struct pm_committed c;
	struct test_waiter tw;
	int byte = 1 + (int)upto(255);
	uint64_t prefix;
	bool clash;

	if (!w->live)
		return;
	w->live = false;
	clash = overlaps(v, w);
	prefix = random() % 3 ? w->len : upto(w->len + 1);
	if (random() % 4 == 0) { /* give up; garbage only where nobody else has anything to lose */
		if (!clash && w->off >= v->file[w->file].size && w->off < w->cut)
			place(&w->m, prefix, byte);
		pm_unpin(&w->m);
		return;
	}
	place(&w->m, prefix, byte);
	waiter_init(&tw);
	cr_assert_eq(
		waiter_result(&tw, pm_commit(&w->m, prefix, upto(2) ? PM_UNSTABLE : PM_FILE_SYNC,
	                                     random() % 2, &c, &tw.w)),
		0);
	apply(v, w, prefix, byte);
	cr_assert_eq(c.attr.size, v->file[w->file].size);
	pm_unpin(&w->m);
	v->commits++;
}

static void resize(struct world *v)
{
	unsigned i = (unsigned)upto(FILES);
	struct model *f = &v->file[i];
	struct pm_setattr sa = { .set = PM_SET_SIZE,
		                 .size = upto(random() % 3 ? LIMIT : f->size + 1) };
	struct pm_change ch;

	if (random() % 8 == 0)
		sa.size = 0;
	cr_assert_eq(pm_setattr(v->st, f->id, &sa, &ch), 0);
	if (sa.size < f->size) {
		memset(f->byte + sa.size, 0, LIMIT - sa.size);
		for (unsigned k = 0; k < PINS; k++) {
			struct writer *w = &v->wr[k];

			if (w->live && w->file == i && sa.size < w->cut)
				w->cut = sa.size;
		}
	}
	f->size = sa.size;
}

static void recreate(struct world *v)
{
	unsigned i = (unsigned)upto(FILES);
	struct pm_change ch;
	struct pm_attr a;
	char name[8];

	name_of(i, name);
	for (unsigned k = 0; k < PINS; k++) { /* its writers finish in vain, some of them */
		struct writer *w = &v->wr[k];

		if (w->live && w->file == i && random() % 2) {
			pm_unpin(&w->m);
			w->live = false;
		}
	}
	cr_assert_eq(pm_remove(v->st, root, name, strlen(name), &ch), 0);
	cr_assert_eq(pm_getattr(v->st, v->file[i].id, &a), -ESTALE);
	for (unsigned k = 0; k < PINS; k++) {
		struct writer *w = &v->wr[k];
		struct pm_committed c;
		struct test_waiter tw;

		if (!w->live || w->file != i)
			continue;
		place(&w->m, w->len, 255);
		waiter_init(&tw);
		cr_assert_eq(waiter_result(
				     &tw, pm_commit(&w->m, w->len, PM_FILE_SYNC, false, &c, &tw.w)),
		             0);
		pm_unpin(&w->m);
		w->live = false;
	}
	make_file(v, i);
}

static void read_some(struct world *v)
{
	struct reader *r = &v->rd[upto(PINS)];
	struct model *f = &v->file[upto(FILES)];

	if (r->live) {
		pm_unpin(&r->m);
		r->live = false;
		return;
	}
	compare(v->st, f, upto(LIMIT), 1 + (uint32_t)upto(20000), "read");
	cr_assert_eq(pm_map_read(v->st, f->id, upto(LIMIT), 1 + (uint32_t)upto(50000), &r->m), 0);
	r->live = true;
}

static void reserve(struct world *v)
{
	struct pm_change ch;
	uint64_t off = upto(LIMIT);

	cr_assert_eq(pm_allocate(v->st, v->file[upto(FILES)].id, off, upto(LIMIT - off), &ch), 0);
}

static void sync_file(struct world *v, unsigned i)
{
	struct pm_committed c;
	struct test_waiter tw;

	waiter_init(&tw);
	cr_assert_eq(waiter_result(&tw, pm_sync_file(v->st, v->file[i].id, &c, &tw.w)), 0);
	cr_assert_eq(c.attr.size, v->file[i].size);
}

static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	cr_log_error("check: %s: %s", where, what);
}

static void check(const char *path)
{
	struct pm_check_report r;
	struct pm_error why;

	cr_assert_eq(pm_check(path, problem, NULL, NULL, &r, &why), 0, "%s", why.text);
	cr_assert_eq(r.problems, 0);
}

/* The pool as a kill would leave it now. */
static void kill_and_compare(struct world *v)
{
	struct test_pool copy;
	struct pm_change ch;
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = 0640 };

	for (unsigned i = 0; i < FILES; i++)
		sync_file(v, i);
	cr_assert_eq(pm_setattr(v->st, root, &sa, &ch), 0);
	cr_assert_eq(pool_wait(v->st, ch.lsn), 0); /* and with it everything before */
	pool_copy(&copy, &v->pool, "copy");
	check(copy.path);
	pool_open(&copy, v->method);
	for (unsigned i = 0; i < FILES; i++)
		compare(copy.st, &v->file[i], 0, LIMIT, "after a kill");
	pool_drop(&copy);
	v->copies++;
}

static void step(struct world *v)
{
	uint64_t k = upto(100);

	if (k < 35)
		begin_write(v);
	else if (k < 70)
		end_write(v);
	else if (k < 78)
		resize(v);
	else if (k < 80)
		recreate(v);
	else if (k < 93)
		read_some(v);
	else if (k < 95)
		reserve(v);
	else
		sync_file(v, (unsigned)upto(FILES));
}

static void finish(struct world *v)
{
	struct pm_space before, after;

	for (unsigned i = 0; i < PINS; i++) {
		if (v->wr[i].live)
			pm_unpin(&v->wr[i].m);
		if (v->rd[i].live)
			pm_unpin(&v->rd[i].m);
		v->wr[i].live = v->rd[i].live = false;
	}
	for (unsigned i = 0; i < v->nwaits; i++)
		cr_assert(!v->waits[i].used || __atomic_load_n(&v->waits[i].over, __ATOMIC_ACQUIRE),
		          "waiter %u was forgotten", i);
	kill_and_compare(v);
	pm_get_space(v->st, &before);
	pool_close(&v->pool);
	check(v->pool.path);
	pool_open(&v->pool, v->method);
	v->st = v->pool.st;
	for (unsigned i = 0; i < FILES; i++)
		compare(v->st, &v->file[i], 0, LIMIT, "after a clean close");
	pm_get_space(v->st, &after);
	cr_assert_eq(after.free_blocks, before.free_blocks);
	cr_assert_gt(v->commits, ROUNDS / 20);
	cr_assert_gt(v->conflicts, 0);
	pool_drop(&v->pool);
	free(v->waits);
	free(v);
}

static void run(enum pm_method method, unsigned seed)
{
	struct world *v = calloc(1, sizeof(*v));

	cr_assert(v && (v->waits = calloc(ROUNDS, sizeof(*v->waits))));
	v->method = method;
	srandom(getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : seed);
	pool_new(&v->pool, "random", 32u << 20, method);
	v->st = v->pool.st;
	for (unsigned i = 0; i < FILES; i++)
		make_file(v, i);
	for (unsigned i = 0; i < ROUNDS; i++) {
		step(v);
		if (i % 1500 == 1499)
			kill_and_compare(v);
	}
	finish(v);
}

Test(file_random, with_clwb)
{
	run(PM_CLWB, 1);
}
Test(file_random, with_clwb_again)
{
	run(PM_CLWB, 2);
}
Test(file_random, with_fence)
{
	run(PM_FENCE, 11);
}
Test(file_random, with_msync)
{
	run(PM_MSYNC, 21);
}
Test(file_random, with_volatile)
{
	run(PM_VOLATILE, 31);
}
