/* SPDX-License-Identifier: BSD-3-Clause */
/* When waiting awake pays it goes on, when it does not it gets rare, and beside others who compute it stops at once. */
#include "transport/spin.h"

#include <criterion/criterion.h>

enum { US = 1000 };

/* An event, then the next one @gap later: looks in between, each of @yield. */
static unsigned wait_for(struct spin *s, uint64_t *now, uint64_t gap, uint64_t yield)
{
	uint64_t next = *now + gap;
	unsigned looks = 0;

	spin_event(s, *now);
	while (*now < next && spin_more(s, *now)) {
		*now += yield;
		looks++;
		if (!spin_yielded(s, *now - yield, *now))
			break;
	}
	*now = *now > next ? *now : next;
	return looks;
}

Test(spin, events_that_follow_closely_are_waited_for_awake)
{
	struct spin s = { 0 };
	uint64_t now = 1;

	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(wait_for(&s, &now, 20 * US, 1 * US), 20);
}

Test(spin, what_does_not_pay_gets_rare)
{
	struct spin s = { 0 };
	unsigned looked = 0, n = 6400;
	uint64_t now = 1;

	for (unsigned i = 0; i < n; i++)
		looked += wait_for(&s, &now, 1000 * US, 1 * US) > 0;
	cr_assert_leq(looked, n / SPIN_HOLD + 7);
	cr_assert_geq(looked, n / SPIN_HOLD / 2); /* but it is tried */
	for (unsigned i = 0; i <= SPIN_HOLD; i++)
		wait_for(&s, &now, 20 * US, 1 * US);
	cr_assert_eq(wait_for(&s, &now, 20 * US, 1 * US), 20, "it pays again");
	cr_assert_eq(wait_for(&s, &now, 20 * US, 1 * US), 20);
}

Test(spin, beside_others_who_compute_it_stops)
{
	struct spin s = { 0 };
	unsigned looked = 0;
	uint64_t now = 1;

	for (unsigned i = 0; i < 6500; i++)
		looked += wait_for(&s, &now, 20 * US, 3000 * US);
	cr_assert_leq(looked, 6500 / SPIN_HOLD + 1);
}

Test(spin, nothing_is_waited_for_without_an_event)
{
	struct spin s = { 0 };

	cr_assert(!spin_yield(&s));
	cr_assert(!spin_more(&s, 5));
}
