/* SPDX-License-Identifier: BSD-3-Clause */
/* hist.c - a log-linear histogram of times */
#include "bench/hist.h"

static unsigned place_of(uint64_t ns)
{
	unsigned shift = 0, i;

	while (ns >> shift >= 2 * HIST_PARTS)
		shift++;
	i = shift * HIST_PARTS + (unsigned)(ns >> shift);
	return i < HIST_COUNTERS ? i : HIST_COUNTERS - 1;
}

static uint64_t last_of(unsigned i) /* the longest time that is counted there */
{
	unsigned shift = i < HIST_PARTS ? 0 : i / HIST_PARTS - 1;

	return (((uint64_t)i - shift * HIST_PARTS + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t ns)
{
	h->n++;
	h->max = ns > h->max ? ns : h->max;
	h->count[place_of(ns)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->n += from->n;
	into->max = from->max > into->max ? from->max : into->max;
	for (unsigned i = 0; i < HIST_COUNTERS; i++)
		into->count[i] += from->count[i];
}

uint64_t hist_at(const struct hist *h, double q)
{
	uint64_t seen = 0, last;

	for (unsigned i = 0; i < HIST_COUNTERS && h->n; i++) {
		seen += h->count[i];
		last = last_of(i);
		if (h->count[i] && (double)seen >= q * (double)h->n)
			return last < h->max && i < HIST_COUNTERS - 1 ? last : h->max;
	}
	return h->max;
}
