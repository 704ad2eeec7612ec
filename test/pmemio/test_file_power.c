/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is called stable is on the media: file data under the strictest power failure.
 *
 * The media is memory with a second copy, which gets only what was flushed and fenced, or synced.
 * The payload is placed past the library, so it gets there only if commit knows where it went.
 * After random operations the second copy is opened as a pool: bytes of stable writes must be
 * there, bytes that nobody wrote must be zero, and what free space held before must not come out.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pmemio/store.h"
#include "test/lib/pool.h"

#define SIZE   (16u << 20)
#define LIMIT  (96u * 1024)
#define FILES  3u
#define STEPS  600u
#define RANGES 65536u
#define STALE  0xee

struct sim {
	struct pm_media m;
	uint8_t *safe;
	struct iovec *pending; /* flushed since the last fence */
	unsigned npending;
};

static void sim_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	memcpy(dst, src, len);
}

static void sim_zero(struct pm_media *m, void *dst, size_t len)
{
	(void)m;
	memset(dst, 0, len);
}

static void sim_flush(struct pm_media *m, const void *at, size_t len)
{
	struct sim *s = m->priv;
	size_t from = (size_t)((const uint8_t *)at - m->base), to = (from + len + 63) & ~63ull;

	if (!s->safe)
		return;
	cr_assert_lt(s->npending, RANGES);
	s->pending[s->npending++] =
		(struct iovec){ m->base + (from & ~63ull), to - (from & ~63ull) };
}

static void sim_drain(struct pm_media *m)
{
	struct sim *s = m->priv;

	for (unsigned i = 0; i < s->npending; i++) {
		size_t at = (size_t)((uint8_t *)s->pending[i].iov_base - m->base);

		memcpy(s->safe + at, s->pending[i].iov_base, s->pending[i].iov_len);
	}
	s->npending = 0;
}

static int sim_sync(struct pm_media *m, const void *at, size_t len)
{
	struct sim *s = m->priv;
	size_t from = (size_t)((const uint8_t *)at - m->base) & ~4095ull;
	size_t to = ((size_t)((const uint8_t *)at - m->base) + len + 4095) & ~4095ull;

	if (s->safe)
		memcpy(s->safe + from, m->base + from, to - from);
	return 0;
}

static void sim_close(struct pm_media *m)
{
	struct sim *s = m->priv;

	munmap(m->base, m->len);
	if (m->view != m->base)
		munmap(m->view, m->len);
	close(m->fd);
	free(s->pending);
	free(s->safe);
	free(s);
}

static const struct pm_media_ops sim_ops = {
	.store = sim_store,
	.store_nt = sim_store,
	.zero = sim_zero,
	.flush = sim_flush,
	.drain = sim_drain,
	.sync = sim_sync,
	.close = sim_close,
};

/* @image: what the media holds; NULL: STALE all over. @strict: with a second copy. */
static struct sim *sim_new(enum pm_method method, const uint8_t *image, bool strict)
{
	struct sim *s = calloc(1, sizeof(*s));
	int fd = memfd_create("pool", 0);

	cr_assert(s && fd >= 0 && ftruncate(fd, SIZE) == 0);
	s->m = (struct pm_media){ .ops = &sim_ops,
		                  .len = SIZE,
		                  .method = method,
		                  .reason = "test",
		                  .fd = fd,
		                  .priv = s };
	s->m.base = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	s->m.view = method != PM_MSYNC
	                    ? s->m.base
	                    : mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert(s->m.base != MAP_FAILED && s->m.view != MAP_FAILED);
	if (image)
		memcpy(s->m.base, image, SIZE);
	else
		memset(s->m.base, STALE, SIZE);
	if (strict) {
		s->safe = malloc(SIZE);
		s->pending = malloc(RANGES * sizeof(*s->pending));
		cr_assert(s->safe && s->pending);
		memcpy(s->safe, s->m.base, SIZE);
	}
	return s;
}

static struct pm_store *open_sim(struct sim *s)
{
	struct pm_open_opts o = { .method = s->m.method };
	struct pm_media m = s->m;
	struct pm_error why = { "" };
	struct pm_store *st;

	cr_assert_eq(store_open_media(&m, &o, &st, &why), 0, "%s", why.text);
	return st;
}

/* --- the model --- */

struct model {
	struct pm_id id;
	uint64_t vsize, dsize; /* as seen; as promised to survive */
	uint8_t seen[LIMIT], safe[LIMIT];
	bool pending[LIMIT]; /* written, but not promised */
};

struct world {
	struct sim *sim;
	struct pm_store *st;
	struct model file[FILES];
};

static uint64_t upto(uint64_t n)
{
	return n ? (uint64_t)random() % n : 0;
}

static void wrote(struct model *f, uint64_t off, uint64_t end, int byte, bool stable)
{
	if (end <= off)
		return;
	memset(f->seen + off, byte, end - off);
	if (f->vsize < end)
		f->vsize = end;
	memset(f->pending + off, !stable, end - off);
	if (!stable)
		return;
	memset(f->safe + off, byte, end - off);
	if (f->dsize < end)
		f->dsize = end;
}

static void write_some(struct world *v, struct model *f)
{
	uint64_t off = upto(3) ? upto(LIMIT) : f->vsize, len = 1 + upto(upto(2) ? 3000 : 20000),
		 prefix;
	bool stable = upto(2), give_up = upto(6) == 0;
	struct pm_committed c;
	struct test_waiter w;
	struct pm_map m;
	int byte = 1 + (int)upto(200);

	if (off >= LIMIT)
		off = upto(LIMIT);
	len = len > LIMIT - off ? LIMIT - off : len;
	prefix = upto(4) ? len : upto(len);
	cr_assert_eq(pm_map_write(v->st, f->id, off, (uint32_t)len, &m, NULL), 0);
	if (!give_up || off >= f->vsize)
		for (unsigned i = 0, left = (unsigned)prefix; i < m.nseg && left; i++) {
			size_t n = m.seg[i].iov_len < left ? m.seg[i].iov_len : left;

			memset(m.seg[i].iov_base, byte, n);
			left -= (unsigned)n;
		}
	if (!give_up) {
		waiter_init(&w);
		cr_assert_eq(
			waiter_result(&w, pm_commit(&m, prefix, stable ? PM_FILE_SYNC : PM_UNSTABLE,
		                                    true, &c, &w.w)),
			0);
		cr_assert_eq(c.stable, stable ? PM_FILE_SYNC : PM_UNSTABLE);
		wrote(f, off, off + prefix, byte, stable);
	}
	pm_unpin(&m);
}

static void resize(struct world *v, struct model *f)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = upto(LIMIT) };
	struct pm_change ch;

	cr_assert_eq(pm_setattr(v->st, f->id, &sa, &ch), 0);
	cr_assert_eq(pool_wait(v->st, ch.lsn), 0);
	if (sa.size < f->vsize) {
		memset(f->seen + sa.size, 0, LIMIT - sa.size);
		memset(f->safe + sa.size, 0, LIMIT - sa.size);
		memset(f->pending + sa.size, 0, LIMIT - sa.size);
	}
	f->vsize = f->dsize = sa.size;
}

static void sync_file(struct world *v, struct model *f)
{
	struct pm_committed c;
	struct test_waiter w;

	waiter_init(&w);
	cr_assert_eq(waiter_result(&w, pm_sync_file(v->st, f->id, &c, &w.w)), 0);
	memcpy(f->safe, f->seen, LIMIT);
	memset(f->pending, 0, LIMIT);
	f->dsize = f->vsize;
}

/* The power fails now. */
static void compare(struct world *v)
{
	struct sim *s = sim_new(v->sim->m.method, v->sim->safe, false);
	struct pm_store *st = open_sim(s);

	for (unsigned k = 0; k < FILES; k++) {
		const struct model *f = &v->file[k];
		struct pm_map m;
		uint64_t at = 0;

		cr_assert_eq(pm_map_read(st, f->id, 0, LIMIT, &m), 0);
		cr_assert_eq(m.attr.size, f->dsize);
		for (unsigned i = 0; i < m.nseg; i++) {
			const uint8_t *p = m.seg[i].iov_base;

			for (size_t n = 0; n < m.seg[i].iov_len; n++, at++)
				cr_assert(f->pending[at] ? p[n] != STALE : p[n] == f->safe[at],
				          "file %u byte %lu is %02x, not %02x%s", k,
				          (unsigned long)at, p[n], f->safe[at],
				          f->pending[at] ? " (pending)" : "");
		}
		pm_unpin(&m);
	}
	cr_assert_eq(pm_close(st), 0);
}

static void run(enum pm_method method, unsigned seed)
{
	struct world *v = calloc(1, sizeof(*v));
	struct pm_mkfs_opts mk = { .size = SIZE };
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_error why = { "" };
	struct pm_change ch;

	srandom(seed);
	cr_assert(v != NULL);
	v->sim = sim_new(method, NULL, true);
	cr_assert_eq(mkfs_media(&v->sim->m, &mk, &why), 0, "%s", why.text);
	v->st = open_sim(v->sim);
	for (unsigned i = 0; i < FILES; i++) {
		char name = (char)('a' + i);

		cr_assert_eq(pm_create(v->st, (struct pm_id){ PM_ROOT_INO, 1 }, &name, 1, &nw, &ch),
		             0);
		cr_assert_eq(pool_wait(v->st, ch.lsn), 0);
		v->file[i].id = ch.obj.id;
	}
	for (unsigned i = 0; i < STEPS; i++) {
		struct model *f = &v->file[upto(FILES)];
		uint64_t k = upto(10);

		if (k < 7)
			write_some(v, f);
		else if (k < 9)
			resize(v, f);
		else
			sync_file(v, f);
		if (i % 6 == 5)
			compare(v);
	}
	cr_assert_eq(pm_close(v->st), 0);
	free(v);
}

Test(file_power, stable_is_stable_with_clwb)
{
	run(PM_CLWB, 1);
}
Test(file_power, stable_is_stable_with_msync)
{
	run(PM_MSYNC, 2);
}
