/* SPDX-License-Identifier: BSD-3-Clause */
/* fh.c: a handle is ours to the last bit, or it is none */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/nfs3.h"
#include "test/lib/pool.h"

static struct test_pool pool, other;
static struct server srv;
static struct worker worker = { .srv = &srv };

static void open_pools(void)
{
	pool_new(&pool, "fh", 16 << 20, PM_CLWB);
	pool_new(&other, "fh2", 16 << 20, PM_CLWB);
	srv.store = pool.st;
}

static void drop_pools(void)
{
	pool_drop(&pool);
	pool_drop(&other);
}

TestSuite(fh, .init = open_pools, .fini = drop_pools);

static const struct fh some = { .export_key = 0xfedcba98,
	                        .id = { 0x123456789abcdef0, 0x0fedcba987654321 } };

Test(fh, comes_back_as_it_was_made)
{
	uint8_t h[FH_SIZE];
	struct fh got;

	fh_make(&worker, &some, h);
	cr_assert_eq(fh_parse(&worker, h, sizeof(h), &got), 0);
	cr_assert_eq(got.export_key, some.export_key);
	cr_assert_eq(got.id.ino, some.id.ino);
	cr_assert_eq(got.id.gen, some.id.gen);
}

Test(fh, any_flipped_bit_is_noticed)
{
	uint8_t h[FH_SIZE];
	struct fh got = { .export_key = 7 };

	fh_make(&worker, &some, h);
	for (unsigned bit = 0; bit < 8 * FH_SIZE; bit++) {
		h[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(fh_parse(&worker, h, sizeof(h), &got), -EBADF, "bit %u", bit);
		h[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	cr_assert_eq(got.export_key, 7, "a failed parse leaves its output alone");
}

Test(fh, has_one_length)
{
	uint8_t h[FH_SIZE + 32] = { 0 };
	struct fh got;

	fh_make(&worker, &some, h);
	for (size_t len = 0; len <= sizeof(h); len++)
		cr_assert_eq(fh_parse(&worker, h, len, &got), len == FH_SIZE ? 0 : -EBADF, "%zu", len);
}

Test(fh, of_another_pool_is_a_forgery)
{
	struct server there = { .store = other.st };
	static struct worker stranger;
	uint8_t h[FH_SIZE];
	struct fh got;

	stranger.srv = &there;
	fh_make(&stranger, &some, h);
	cr_assert_eq(fh_parse(&stranger, h, sizeof(h), &got), 0);
	cr_assert_eq(fh_parse(&worker, h, sizeof(h), &got), -EBADF);
}

Test(fh, stays_good_when_the_pool_is_opened_again)
{
	uint8_t h[FH_SIZE];
	struct fh got;

	fh_make(&worker, &some, h);
	pool_close(&pool);
	pool_open(&pool, PM_CLWB);
	srv.store = pool.st;
	cr_assert_eq(fh_parse(&worker, h, sizeof(h), &got), 0);
}

/* More handles than MACs are kept, each met again and again, genuine and forged, by a worker that made it and by one that
 * did not: what is kept changes no answer. */
Test(fh, is_the_same_whatever_the_worker_met_before)
{
	enum { HANDLES = 3 * FH_MACS, CALLS = 20 * HANDLES };
	static struct worker reader = { .srv = &srv };

	srand(1);
	for (unsigned i = 0; i < CALLS; i++) {
		unsigned n = (unsigned)rand() % HANDLES, bit = (unsigned)rand() % (8 * FH_SIZE);
		struct fh fh = { .export_key = n % 3, .id = { .ino = n / 3 + 1, .gen = n % 7 } }, got;
		struct worker *w = rand() % 2 ? &worker : &reader;
		uint8_t made[FH_SIZE], sealed[FH_SIZE];

		fh_seal(pm_secret(pool.st), &fh, sealed);
		fh_make(&worker, &fh, made);
		cr_assert(!memcmp(made, sealed, FH_SIZE));
		cr_assert_eq(fh_parse(w, made, FH_SIZE, &got), 0);
		cr_assert(got.export_key == fh.export_key && got.id.ino == fh.id.ino && got.id.gen == fh.id.gen);
		made[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(fh_parse(w, made, FH_SIZE, &got), -EBADF, "bit %u", bit);
	}
}
