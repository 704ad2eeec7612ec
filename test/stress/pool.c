/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c - stress.h without Criterion, which cannot run under ThreadSanitizer: THREADS STEPS SEED [sums] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/stress.h"

int main(int argc, char **argv)
{
	struct stress s = { .method = PM_CLWB };

	if (argc != 4 && (argc != 5 || strcmp(argv[4], "sums"))) {
		fprintf(stderr, "usage: stress-pool THREADS STEPS SEED [sums]\n");
		return 2;
	}
	s.threads = (unsigned)atoi(argv[1]);
	s.steps = (unsigned)atoi(argv[2]);
	s.seed = strtoull(argv[3], NULL, 0);
	s.sums = argc == 5;
	if (s.threads < 1 || s.threads > 16) {
		fprintf(stderr, "stress-pool: 1 to 16 threads\n");
		return 2;
	}
	if (stress_run(&s))
		return 0;
	fprintf(stderr, "stress-pool: seed %llu: %s\n", (unsigned long long)s.seed, s.why);
	return 1;
}
