/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hist.h - a log-linear histogram of times
 *
 * Below 512 ns every nanosecond has its counter; above, each power of two is cut into 256 equal parts, so a time read
 * back is at most 0.4 % too long. Our own because HdrHistogram's C library is not in every Debian that Berth builds on.
 */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

enum { HIST_PARTS = 256, HIST_COUNTERS = HIST_PARTS * 34 }; /* up to 2^41 ns: 36 minutes; longer ones count as that */
struct hist {
	uint64_t n, max; /* max is exact */
	uint64_t count[HIST_COUNTERS];
};

void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *into, const struct hist *from);
/* The shortest time that at least the share @q of all did not exceed, rounded up to the end of its counter; 0: empty. */
uint64_t hist_at(const struct hist *h, double q);

#endif
