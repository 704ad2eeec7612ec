/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_powercut.c - the power fails at every fence of a run, and at every fence of the recovery
 * behind it
 *
 * The media is memory with a second copy, what would survive. A flush snapshots cache lines, a
 * fence lets the snapshots survive. At the cut every 8 bytes stored since then survive or not, by
 * the toss of a coin, as stored or as flushed. Each step of the run makes a file of one metadata
 * block and one data block and frees the file made 5 steps before, so that both kinds of blocks are
 * used again and again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pmemio/core.h"

#define SIZE  (16u << 20)
#define LINES (SIZE / 64)
#define STEPS 30u
#define LIVE  5u

struct sim {
	struct pm_media m;
	uint8_t *safe;  /* survives */
	uint8_t *snap;  /* lines as they were flushed */
	uint8_t *state; /* per line: bit 0 stored since, bit 1 flushed since the last fence */
	uint32_t *hot;  /* lines with a state */
	unsigned nhot;
	unsigned fences, cut; /* the power fails at fence number @cut; 0: never */
	bool dead;
	bool most; /* at the cut nearly every line survives, whole; else every word by itself */
	uint32_t seed;
};

static uint32_t rnd(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	return *s ^= *s << 5;
}

static void touch(struct sim *s, size_t line, uint8_t bit)
{
	if (!s->state[line])
		s->hot[s->nhot++] = (uint32_t)line;
	s->state[line] |= bit;
}

static struct sim *sim_of(struct pm_media *m)
{
	return m->priv;
}

static size_t off(const struct pm_media *m, const void *at)
{
	return (size_t)((const uint8_t *)at - m->base);
}

static void sim_stored(struct pm_media *m, const void *dst, size_t len)
{
	for (size_t l = off(m, dst) / 64; l <= (off(m, dst) + len - 1) / 64; l++)
		touch(sim_of(m), l, 1);
}

static void sim_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	sim_stored(m, dst, len);
}

static void sim_zero(struct pm_media *m, void *dst, size_t len)
{
	memset(dst, 0, len);
	sim_stored(m, dst, len);
}

static void sim_flush(struct pm_media *m, const void *at, size_t len)
{
	struct sim *s = sim_of(m);

	for (size_t l = off(m, at) / 64; l <= (off(m, at) + len - 1) / 64; l++) {
		memcpy(s->snap + l * 64, m->base + l * 64, 64);
		touch(s, l, 2);
	}
}

/* Any mixture of old, flushed and stored words; or, since a record of many words would hardly ever
 * survive that whole, nearly all lines as stored. */
static void power_fails(struct sim *s)
{
	s->dead = true;
	for (unsigned i = 0; i < s->nhot; i++) {
		size_t at = (size_t)s->hot[i] * 64;
		uint8_t st = s->state[s->hot[i]];

		if (s->most) {
			if (rnd(&s->seed) % 16)
				memcpy(s->safe + at, s->m.base + at, 64);
			continue;
		}
		for (unsigned w = 0; w < 64; w += 8) {
			uint32_t coin = rnd(&s->seed) % 3;

			if (coin == 1 && (st & 2))
				memcpy(s->safe + at + w, s->snap + at + w, 8);
			else if (coin == 2)
				memcpy(s->safe + at + w, s->m.base + at + w, 8);
		}
	}
}

static void sim_drain(struct pm_media *m)
{
	struct sim *s = sim_of(m);
	unsigned kept = 0;

	if (s->dead)
		return;
	if (++s->fences == s->cut) {
		power_fails(s);
		return;
	}
	for (unsigned i = 0; i < s->nhot; i++) {
		size_t l = s->hot[i];

		if (s->state[l] & 2)
			memcpy(s->safe + l * 64, s->snap + l * 64, 64);
		/* stored again behind the flush: still only in the cache */
		s->state[l] = (s->state[l] & 1) && memcmp(s->safe + l * 64, m->base + l * 64, 64);
		if (s->state[l])
			s->hot[kept++] = (uint32_t)l;
	}
	s->nhot = kept;
}

static int sim_sync(struct pm_media *m, const void *at, size_t len)
{
	sim_flush(m, at, len);
	sim_drain(m);
	return 0;
}

static void sim_close(struct pm_media *m)
{
	(void)m;
}

static const struct pm_media_ops sim_ops = { .store = sim_store,
	                                     .store_nt = sim_store,
	                                     .zero = sim_zero,
	                                     .flush = sim_flush,
	                                     .drain = sim_drain,
	                                     .sync = sim_sync,
	                                     .close = sim_close };

static void *pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	return p;
}

/* Pages of zeros stay untouched: most of the media is. */
static void copy_sparse(uint8_t *to, const uint8_t *from)
{
	static const uint8_t zero[PM_BLOCK];

	for (size_t at = 0; at < SIZE; at += PM_BLOCK)
		if (memcmp(from + at, zero, PM_BLOCK))
			memcpy(to + at, from + at, PM_BLOCK);
}

/* A machine that starts with @image on its media. */
static struct sim *power_on(const uint8_t *image, unsigned cut, uint32_t seed)
{
	struct sim *s = calloc(1, sizeof(*s));

	*s = (struct sim){ .cut = cut, .seed = seed };
	s->m = (struct pm_media){
		.ops = &sim_ops, .len = SIZE, .method = PM_CLWB, .fd = -1, .priv = s
	};
	s->m.base = s->m.view = pages(SIZE);
	s->safe = pages(SIZE);
	s->snap = pages(SIZE);
	s->state = pages(LINES);
	s->hot = pages(LINES * sizeof(*s->hot));
	if (image) {
		copy_sparse(s->m.base, image);
		copy_sparse(s->safe, image);
	}
	return s;
}

static void power_off(struct sim *s)
{
	munmap(s->m.base, SIZE);
	munmap(s->safe, SIZE);
	munmap(s->snap, SIZE);
	munmap(s->state, LINES);
	munmap(s->hot, LINES * sizeof(*s->hot));
	free(s);
}

static struct pm_store *open_sim(struct sim *s)
{
	struct pm_open_opts o = { .method = PM_CLWB };
	struct pm_error why = { "" };
	struct pm_store *st = NULL;
	int err = store_open_media(&s->m, &o, &st, &why);

	cr_assert_eq(err, 0, "open: %s", why.text);
	s->m.priv = st->media.priv = s;
	return st;
}

/* --- the run --------------------------------------------------------------------------------- */

static void give_data(void *arg, const struct ext *e)
{
	tx_give(arg, e->pblk, e->len, false);
}

/* The file of step n: uid n, a metadata block named by its size field, a data block; both filled
 * with n. */
static const struct pm_inode *file_of(struct pm_store *st, uint32_t n)
{
	for (uint64_t ino = 2; ino < ino_count(st); ino++) {
		const struct pm_inode *in = ino_at(st, ino);
		int rc = ino_verify(in, ino);

		cr_assert_neq(rc, -EIO, "inode %llu is torn", (unsigned long long)ino);
		if (!rc && in->uid == n)
			return in;
	}
	return NULL;
}

static void drop_old(struct pm_store *st, struct pm_tx *tx, uint32_t n)
{
	const struct pm_inode *in = file_of(st, n);

	cr_assert_not_null(in);
	cr_assert_eq(ext_cut(st, tx, in, 0, 10, give_data, tx), 0);
	tx_give(tx, in->size, 1, true);
	ino_free(tx, ino_edit(tx, in));
}

static void step(struct pm_store *st, uint32_t n)
{
	struct pm_tx *tx = tx_begin(st);
	struct pm_inode *in;
	struct blk_run meta, data;
	struct ext e = { .len = 1 };

	cr_assert_eq(ino_new(tx, PM_REG, &in), 0);
	cr_assert_eq(tx_take(tx, 0, 1, BLK_META, &meta), 0);
	cr_assert_eq(tx_take(tx, 0, 1, BLK_META, &data), 0);
	in->nlink = 1;
	in->uid = n;
	in->size = meta.start;
	memset(tx_new_block(tx, meta.start, TX_RAW), (int)n, PM_BLOCK);
	st->media.ops->zero(&st->media, data_ptr(st, data.start), PM_BLOCK);
	for (unsigned i = 0; i < PM_BLOCK; i += 64) {
		uint8_t fill[64];

		memset(fill, (int)n, sizeof(fill));
		st->media.ops->store(&st->media, (uint8_t *)data_ptr(st, data.start) + i, fill, 64);
	}
	st->media.ops->flush(&st->media, data_ptr(st, data.start), PM_BLOCK);
	tx_after_data(tx);
	e.pblk = data.start;
	cr_assert_eq(ext_put(st, tx, ino_at(st, in->ino), &e), 0);
	/* an old metadata block changes in place as well */
	if (n > 1) {
		const struct pm_inode *prev = file_of(st, n - 1);
		uint8_t *b = tx_edit(tx, blk_ptr(st, prev->size), PM_BLOCK, TX_RAW);

		b[8 * (n % 512)] ^= 0xff;
		b[2048] ^= 0x80;
	}
	if (n > LIVE)
		drop_old(st, tx, n - LIVE);
	ino_edit(tx, ino_at(st, PM_ROOT_INO))->uid = n;
	cr_assert_eq(tx_commit(tx, NULL), 0);
	if (n % 7 == 0)
		cr_assert(journal_checkpoint(st));
}

static void file_is_whole(struct pm_store *st, uint32_t n, uint32_t last)
{
	const struct pm_inode *in = file_of(st, n);
	const uint8_t *meta, *data;
	struct ext e;

	cr_assert_not_null(in, "file %u is lost", n);
	cr_assert_eq(ext_find(st, NULL, in, 0, &e), 0);
	cr_assert(blk_marked(st, e.pblk));
	meta = blk_ptr(st, in->size);
	data = data_ptr(st, e.pblk);
	for (unsigned i = 0; i < PM_BLOCK; i++) {
		uint8_t want = (uint8_t)n;

		if (n < last && i == 8 * ((n + 1) % 512))
			want ^= 0xff;
		if (n < last && i == 2048)
			want ^= 0x80;
		cr_assert_eq(data[i], (uint8_t)n, "file %u, data byte %u: %u", n, i, data[i]);
		cr_assert_eq(meta[i], want, "file %u, metadata byte %u: %u", n, i, meta[i]);
	}
}

/* The state is that of @acked steps or one more. */
static uint32_t verify(struct pm_store *st, uint32_t acked)
{
	uint32_t n = ino_at(st, PM_ROOT_INO)->uid, live = 0;

	cr_assert(n == acked || n == acked + 1, "%u steps survived of %u acknowledged", n, acked);
	for (uint32_t i = n > LIVE ? n - LIVE + 1 : 1; i <= n; i++)
		file_is_whole(st, i, n);
	for (uint64_t ino = 2; ino < ino_count(st); ino++)
		live += ino_verify(ino_at(st, ino), ino) == 0;
	cr_assert_eq(live, n < LIVE ? n : LIVE, "%u files live after step %u", live, n);
	return n;
}

/* The metadata blocks of this run hang from no tree: recovery is told of them here. */
static void mark_meta(struct pm_store *st)
{
	for (uint64_t ino = 2; ino < ino_count(st); ino++) {
		const struct pm_inode *in = ino_at(st, ino);

		if (ino_verify(in, ino) == 0)
			blk_mark(st, in->size, 1);
	}
}

static uint8_t *fresh_image(void)
{
	struct pm_mkfs_opts o = { .label = "sim" };
	struct sim *s = power_on(NULL, 0, 1);
	uint8_t *image = pages(SIZE);

	s->m.zeroed = true;
	cr_assert_eq(mkfs_media(&s->m, &o, NULL), 0);
	copy_sparse(image, s->safe);
	power_off(s);
	return image;
}

/* Run until the power fails; how many steps were acknowledged. */
static uint32_t run_until_cut(struct sim *s)
{
	struct pm_store *st = open_sim(s);
	uint32_t acked = 0;

	for (uint32_t n = 1; n <= STEPS && !s->dead; n++) {
		step(st, n);
		if (!s->dead)
			acked = n;
	}
	store_drop(st);
	return acked;
}

Test(powercut, at_every_fence_leaves_all_acknowledged_steps_and_at_most_one_more)
{
	uint8_t *image = fresh_image();
	bool done = false;

	for (unsigned i = 2; !done; i++) {
		struct sim *s = power_on(image, i / 2, 7919 * i + 1), *r;
		uint32_t acked, n;
		struct pm_store *st;

		s->most = i & 1;
		acked = run_until_cut(s);
		done = !s->dead;
		r = power_on(s->safe, 0, 1);
		st = open_sim(r);
		mark_meta(st);
		n = verify(st, acked);
		for (uint32_t k = 1; k <= 3; k++) /* and life goes on */
			step(st, n + k);
		verify(st, n + 3);
		store_drop(st);
		power_off(r);
		power_off(s);
		cr_assert_lt(i, 1000);
	}
}

Test(powercut, during_recovery_changes_nothing)
{
	uint8_t *image = fresh_image();

	for (unsigned cut = 20; cut < 90; cut += 9) {
		struct sim *s = power_on(image, cut, cut);
		uint32_t acked = run_until_cut(s);
		uint8_t *left = pages(SIZE);

		copy_sparse(left, s->safe);
		power_off(s);
		for (unsigned again = 1, done = 0; !done; again++) {
			struct sim *r = power_on(left, again, again + cut), *q;
			struct pm_store *st = open_sim(r);

			store_drop(st);
			done = !r->dead;
			q = power_on(r->safe, 0, 1);
			st = open_sim(q);
			verify(st, acked);
			store_drop(st);
			power_off(q);
			power_off(r);
		}
		munmap(left, SIZE);
	}
}
