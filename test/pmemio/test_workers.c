/* SPDX-License-Identifier: BSD-3-Clause */
/* test_workers.c - threads in the store at the same time; test/stress/pool.c does the same under ThreadSanitizer */
#include <criterion/criterion.h>

#include "test/lib/stress.h"

static void stress(struct stress s)
{
	for (unsigned round = 0; round < 4; round++) {
		s.seed += 100;
		cr_assert(stress_run(&s), "seed %llu: %s", (unsigned long long)s.seed, s.why);
	}
}

Test(workers, two_threads_see_what_they_wrote)
{
	stress((struct stress){ .method = PM_CLWB, .threads = 2, .steps = 4000 });
}

Test(workers, more_threads_than_cores)
{
	stress((struct stress){ .method = PM_CLWB, .threads = 7, .steps = 1000, .seed = 1 });
}

Test(workers, stores_in_the_persistence_domain)
{
	stress((struct stress){ .method = PM_FENCE, .threads = 3, .steps = 2000, .seed = 2 });
}
