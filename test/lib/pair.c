/* SPDX-License-Identifier: BSD-3-Clause */
/* pair.c - whose turn it is */
#include <stdlib.h>

#include "test/lib/pair.h"

static uint64_t roll(struct pair *p)
{
	p->seed ^= p->seed << 13;
	p->seed ^= p->seed >> 7;
	p->seed ^= p->seed << 17;
	return p->seed >> 20;
}

static int side_of(const struct pair *p)
{
	for (int k = 0; k < 2; k++)
		if (pthread_equal(pthread_self(), p->side[k].th))
			return k;
	return -1;
}

/* Lock held: give the turn to @k. */
static void hand_to(struct pair *p, unsigned k)
{
	p->switches += p->turn != k;
	p->turn = k;
	pthread_cond_broadcast(&p->moved);
}

static void await_turn(struct pair *p, unsigned k)
{
	while (p->turn != k)
		pthread_cond_wait(&p->moved, &p->lock);
	p->d->by = (uint8_t)(k + 1);
}

/* Side @k has got beyond where the other waited for its record: let that come to its next step. */
static void let_come(struct pair *p, unsigned k)
{
	if (p->side[k].fenced)
		while (p->side[!k].waits)
			pthread_cond_wait(&p->moved, &p->lock);
}

/* Side @k goes on from waiting for the other's record, or may. */
static void go_on(struct pair *p, unsigned k, const char *wrong)
{
	if (!p->side[k].waits) {
		let_come(p, k);
		return;
	}
	if (!p->side[!k].fenced)
		p->why = wrong;
	p->side[k].waits = false;
	pthread_cond_broadcast(&p->moved);
	await_turn(p, k);
}

static void blocked(void *arg, bool is)
{
	struct pair *p = arg;
	int k = side_of(p);

	if (k < 0)
		return;
	pthread_mutex_lock(&p->lock);
	if (is)
		go_on(p, (unsigned)k, "a transaction went on while one of lower seq was not durable");
	p->side[k].blocked = is;
	p->blocks += is;
	if (!is)
		await_turn(p, (unsigned)k);
	else if (p->side[!k].live)
		hand_to(p, (unsigned)!k);
	pthread_mutex_unlock(&p->lock);
}

/* Somebody is about to do something to the media. */
static void before(void *arg, uint8_t kind, uint32_t at, const void *src)
{
	struct pair *p = arg;
	int k = side_of(p);
	struct pair_side *me, *other;

	if (k < 0)
		return;
	me = &p->side[k];
	other = &p->side[!k];
	pthread_mutex_lock(&p->lock);
	go_on(p, (unsigned)k, "a transaction went on while one of lower seq was not durable");
	if (kind == EV_STORE && medium_where(p->d, at) == AT_RECORD) {
		const struct pm_rec *rec = src;

		me->seq = rec->seq;
		me->stored = true;
	}
	if (other->live && !other->waits && !other->blocked && roll(p) % 2) {
		hand_to(p, (unsigned)!k);
		await_turn(p, (unsigned)k);
	}
	pthread_mutex_unlock(&p->lock);
}

/* A fence is done. */
static void fenced(void *arg)
{
	struct pair *p = arg;
	int k = side_of(p);
	struct pair_side *me, *other;

	if (k < 0)
		return;
	me = &p->side[k];
	other = &p->side[!k];
	pthread_mutex_lock(&p->lock);
	if (me->stored && !me->fenced) {
		me->fenced = true;
		if (other->live && other->stored && !other->fenced && other->seq < me->seq) {
			me->waits = true;
			hand_to(p, (unsigned)!k);
		}
	}
	pthread_mutex_unlock(&p->lock);
}

static void *side_main(void *arg)
{
	struct pair *p = arg;
	struct pair_side *me, *other;
	unsigned k, rank;

	pthread_mutex_lock(&p->lock); /* side[].th are set */
	pthread_mutex_unlock(&p->lock);
	k = (unsigned)side_of(p);
	me = &p->side[k];
	other = &p->side[!k];
	me->come(me->arg);
	pthread_barrier_wait(&p->step);
	pthread_barrier_wait(&p->step); /* somebody looks at what they do from here on */
	pthread_mutex_lock(&p->lock);
	await_turn(p, k);
	pthread_mutex_unlock(&p->lock);
	me->run(me->arg);
	pthread_mutex_lock(&p->lock);
	go_on(p, k, "a transaction was answered while one of lower seq was not durable");
	rank = other->stored && other->seq < me->seq ? 2 : 1;
	medium_released(p->d);
	medium_window(p->d, p->answered + (other->live ? rank : 2), p->answered + 2);
	me->live = false;
	if (other->live)
		hand_to(p, !k);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

unsigned pair_run(struct pair *p)
{
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->moved, NULL);
	p->seed = p->seed * 0x9e3779b97f4a7c15ull | 1;
	p->turn = (unsigned)(roll(p) % 2);
	medium_window(p->d, p->answered, p->answered + 2);
	pthread_barrier_init(&p->step, NULL, 3);
	pthread_mutex_lock(&p->lock);
	for (unsigned k = 0; k < 2; k++) {
		p->side[k].live = true;
		if (pthread_create(&p->side[k].th, NULL, side_main, p))
			abort();
	}
	pthread_mutex_unlock(&p->lock);
	pthread_barrier_wait(&p->step);
	p->d->before = before;
	p->d->fenced = fenced;
	p->d->blocked = blocked;
	p->d->hook_arg = p;
	pthread_barrier_wait(&p->step);
	for (unsigned k = 0; k < 2; k++)
		pthread_join(p->side[k].th, NULL);
	p->d->before = NULL;
	p->d->fenced = NULL;
	p->d->blocked = NULL;
	p->d->by = 0;
	pthread_barrier_destroy(&p->step);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->moved);
	return p->side[1].seq && (!p->side[0].seq || p->side[1].seq < p->side[0].seq);
}
