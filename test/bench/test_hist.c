/* SPDX-License-Identifier: BSD-3-Clause */
/* test_hist.c - percentiles of the histogram against a sorted array */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "bench/hist.h"

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t next(uint64_t *x)
{
	*x = *x * 6364136223846793005u + 1442695040888963407u;
	return *x >> 20;
}

/* Times of all magnitudes: as many short as long ones. */
static void fill(uint64_t *v, unsigned n, uint64_t seed)
{
	for (unsigned i = 0; i < n; i++)
		v[i] = next(&seed) & ((1ull << (next(&seed) % 40)) - 1);
}

static uint64_t sorted_at(const uint64_t *v, unsigned n, double q)
{
	unsigned k = (unsigned)ceil(q * n);

	return v[k ? k - 1 : 0];
}

Test(hist, percentiles_are_those_of_a_sorted_array)
{
	static const double q[] = { 0, .01, .1, .25, .5, .9, .99, .999, .9999, 1 };

	for (unsigned n = 1; n < 20000; n = n * 3 + 1) {
		uint64_t *v = calloc(n, sizeof(*v));
		struct hist *h = calloc(1, sizeof(*h));

		fill(v, n, n);
		for (unsigned i = 0; i < n; i++)
			hist_add(h, v[i]);
		qsort(v, n, sizeof(*v), by_value);
		for (unsigned i = 0; i < sizeof(q) / sizeof(*q); i++) {
			uint64_t is = hist_at(h, q[i]), want = sorted_at(v, n, q[i]);

			cr_assert(is >= want && is <= want + want / 256, "%u times, %g: %lu, not %lu", n, q[i], (unsigned long)is,
				  (unsigned long)want);
		}
		cr_assert_eq(hist_at(h, 1), v[n - 1], "the longest is exact");
		free(h);
		free(v);
	}
}

Test(hist, short_times_are_exact)
{
	struct hist *h = calloc(1, sizeof(*h));

	for (uint64_t i = 1; i <= 500; i++)
		hist_add(h, i);
	for (uint64_t i = 1; i <= 500; i++)
		cr_assert_eq(hist_at(h, (double)i / 500 - 1e-9), i);
	free(h);
}

Test(hist, merged_is_as_if_counted_together)
{
	struct hist *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b)), *both = calloc(1, sizeof(*both));
	uint64_t v[1000];

	fill(v, 1000, 7);
	for (unsigned i = 0; i < 1000; i++) {
		hist_add(i % 3 ? a : b, v[i]);
		hist_add(both, v[i]);
	}
	hist_merge(a, b);
	cr_assert_arr_eq(a, both, sizeof(*a));
	free(a);
	free(b);
	free(both);
}

Test(hist, nothing_and_the_endless)
{
	struct hist *h = calloc(1, sizeof(*h));

	cr_assert_eq(hist_at(h, .5), 0);
	hist_add(h, UINT64_MAX - 1);
	cr_assert_eq(hist_at(h, .5), UINT64_MAX - 1, "what is beyond the last counter counts as the longest");
	free(h);
}
