/* SPDX-License-Identifier: BSD-3-Clause */
/* fh.c: a handle is ours to the last bit, or it is none */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "server/nfs3.h"
#include "test/lib/pool.h"

static struct test_pool pool, other;
static struct server srv;

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

	fh_make(&srv, &some, h);
	cr_assert_eq(fh_parse(&srv, h, sizeof(h), &got), 0);
	cr_assert_eq(got.export_key, some.export_key);
	cr_assert_eq(got.id.ino, some.id.ino);
	cr_assert_eq(got.id.gen, some.id.gen);
}

Test(fh, any_flipped_bit_is_noticed)
{
	uint8_t h[FH_SIZE];
	struct fh got = { .export_key = 7 };

	fh_make(&srv, &some, h);
	for (unsigned bit = 0; bit < 8 * FH_SIZE; bit++) {
		h[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(fh_parse(&srv, h, sizeof(h), &got), -EBADF, "bit %u", bit);
		h[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	cr_assert_eq(got.export_key, 7, "a failed parse leaves its output alone");
}

Test(fh, has_one_length)
{
	uint8_t h[FH_SIZE + 32] = { 0 };
	struct fh got;

	fh_make(&srv, &some, h);
	for (size_t len = 0; len <= sizeof(h); len++)
		cr_assert_eq(fh_parse(&srv, h, len, &got), len == FH_SIZE ? 0 : -EBADF, "%zu", len);
}

Test(fh, of_another_pool_is_a_forgery)
{
	struct server stranger = { .store = other.st };
	uint8_t h[FH_SIZE];
	struct fh got;

	fh_make(&stranger, &some, h);
	cr_assert_eq(fh_parse(&stranger, h, sizeof(h), &got), 0);
	cr_assert_eq(fh_parse(&srv, h, sizeof(h), &got), -EBADF);
}

Test(fh, stays_good_when_the_pool_is_opened_again)
{
	uint8_t h[FH_SIZE];
	struct fh got;

	fh_make(&srv, &some, h);
	pool_close(&pool);
	pool_open(&pool, PM_CLWB);
	srv.store = pool.st;
	cr_assert_eq(fh_parse(&srv, h, sizeof(h), &got), 0);
}
