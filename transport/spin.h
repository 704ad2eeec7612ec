/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spin.h - whether to look once more instead of going to sleep
 *
 * Going to sleep and being woken costs more than the next message is away, while messages follow each other closely.
 * So after each event the queue is looked at for SPIN_NS more, with a yield between two looks. When that brought nothing
 * it is left out behind the next event, then behind the next 2, 4, ... SPIN_HOLD; when it pays it goes on. When a yield took
 * long somebody else wanted the processor: then it is left out SPIN_HOLD times at once. A machine with all its processors
 * busy thus sees a yield in SPIN_HOLD events, and an idle one nothing at all.
 *
 * Pure but for spin_yield(): times are handed in.
 */
#ifndef TRANSPORT_SPIN_H
#define TRANSPORT_SPIN_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define SPIN_NS   50000
#define SPIN_BUSY 250000 /* ns: a peer's turn on the same processor is much shorter, a stranger's time slice longer */
#define SPIN_HOLD 64u

struct spin {
	uint64_t since;      /* ns: of the last event; 0: no spinning until the next one */
	unsigned looks;      /* since then */
	unsigned hold, skip; /* how many events are passed over; how many are left of them */
};

static inline uint64_t spin_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Something came. */
static inline void spin_event(struct spin *s, uint64_t now)
{
	if (s->looks)
		s->hold = 0;
	else if (s->skip)
		s->skip--;
	s->looks = 0;
	s->since = s->skip ? 0 : now;
}

static inline void spin_leave(struct spin *s, unsigned hold)
{
	s->hold = s->skip = hold < SPIN_HOLD ? hold : SPIN_HOLD;
	s->since = 0;
	s->looks = 0;
}

/* Nothing has come: true, look again. */
static inline bool spin_more(struct spin *s, uint64_t now)
{
	if (!s->since)
		return false;
	if (now - s->since < SPIN_NS)
		return true;
	spin_leave(s, s->hold ? 2 * s->hold : 1);
	return false;
}

/* A yield between two looks lasted from @before to @after: false, sleep instead. */
static inline bool spin_yielded(struct spin *s, uint64_t before, uint64_t after)
{
	s->looks++;
	if (after - before < SPIN_BUSY)
		return true;
	spin_leave(s, SPIN_HOLD);
	return false;
}

/* All of it: false, sleep. */
static inline bool spin_yield(struct spin *s)
{
	uint64_t now;

	if (!s->since)
		return false;
	now = spin_now();
	if (!spin_more(s, now))
		return false;
	sched_yield();
	return spin_yielded(s, now, spin_now());
}

#endif
