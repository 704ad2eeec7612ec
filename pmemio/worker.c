/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.c - threads inside the store, and the one that is alone in it
 *
 * Entering: inside = 1, then look at `alone`. Being alone: alone = 1, then look at every `inside`. Both in
 * one total order, so at least one of two sees the other; the one inside gives way and waits on the store's mutex.
 *
 * Media of tests are told when a thread begins to wait for another one, and when that is over.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pmemio/core.h"

/* --- a lock of four bytes --- */

#define SPINS 200u /* some microseconds: longer than what is done under the locks that all share */

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

static bool lock_spin(struct pm_lock *l)
{
	for (unsigned i = 0; i < SPINS; i++) {
		if (!__atomic_load_n(&l->word, __ATOMIC_RELAXED) && lock_try(l))
			return true;
		relax();
	}
	return false;
}

void lock_wait(struct pm_lock *l)
{
	if (lock_spin(l))
		return;
	while (__atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &l->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

void lock_wake(struct pm_lock *l)
{
	syscall(SYS_futex, &l->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void blocked(struct pm_store *st, bool is)
{
	if (st->media.ops->blocked)
		st->media.ops->blocked(&st->media, is);
}

void lock_wait_told(struct pm_store *st, struct pm_lock *l)
{
	blocked(st, true);
	lock_wait(l);
	blocked(st, false);
}

bool slot_spin(struct ino_slot *s)
{
	return lock_spin(&s->lock);
}

bool inode_also(struct pm_store *st, struct pm_worker *w, uint64_t ino)
{
	struct ino_slot *s = ino_slot(st, ino);

	if (!worker_beside(st, w) || s == w->first)
		return true;
	for (unsigned i = 0; i < w->nalso; i++)
		if (w->also[i] == s)
			return true;
	if (w->nalso == ALSO || (!lock_try(&s->lock) && !lock_spin(&s->lock)))
		return false;
	w->also[w->nalso++] = s;
	return true;
}

/* --- the store's mutex --- */

/* It is held for as long as one operation takes mostly: less than sleeping and being woken. */
static bool store_spin(struct pm_store *st)
{
	for (unsigned i = 0; i < SPINS; i++) {
		if (!pthread_mutex_trylock(&st->lock))
			return true;
		relax();
	}
	return false;
}

static void store_take(struct pm_store *st)
{
	if (!pthread_mutex_trylock(&st->lock))
		return;
	blocked(st, true);
	if (!store_spin(st))
		pthread_mutex_lock(&st->lock);
	blocked(st, false);
}

/* --- threads --- */

/* A thread that has been inside ends. */
static void worker_left(void *arg)
{
	struct pm_worker *w = arg;

	__atomic_store_n(&w->taken, 0, __ATOMIC_RELEASE);
}

/* Alone. */
static struct pm_worker *worker_new(struct pm_store *st)
{
	struct pm_workers *ws = st->workers;
	struct pm_worker *w;

	for (unsigned i = 0; i < ws->n; i++)
		if (!__atomic_load_n(&ws->at[i]->taken, __ATOMIC_ACQUIRE))
			return ws->at[i];
	if (ws->n == WORKERS)
		return NULL;
	w = aligned_alloc(_Alignof(struct pm_worker), sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct pm_worker){ .st = st, .no = ws->n, .home = UINT64_MAX };
	ws->at[ws->n] = w;
	__atomic_store_n(&ws->n, ws->n + 1, __ATOMIC_RELEASE);
	return w;
}

static struct pm_worker *worker_join(struct pm_store *st)
{
	struct pm_worker *w;

	if (!st->workers->keyed)
		return NULL;
	store_lock(st);
	w = worker_new(st);
	if (w && pthread_setspecific(st->workers->key, w))
		w = NULL;
	if (w)
		__atomic_store_n(&w->taken, 1, __ATOMIC_RELEASE);
	store_unlock(st);
	return w;
}

struct pm_worker *worker_enter_slow(struct pm_store *st, struct pm_worker *w)
{
	if (!w)
		w = worker_join(st);
	while (w) {
		__atomic_store_n(&w->inside, 1, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&st->workers->alone, __ATOMIC_SEQ_CST))
			return w;
		__atomic_store_n(&w->inside, 0, __ATOMIC_RELEASE);
		store_take(st);
		pthread_mutex_unlock(&st->lock);
	}
	store_lock(st);
	return NULL;
}

struct pm_tx *worker_tx(struct pm_worker *w)
{
	if (!w->tx)
		w->tx = tx_alloc(w->st);
	return w->tx;
}

/* --- alone --- */

static void wait_out(struct pm_store *st, const struct pm_worker *w)
{
	blocked(st, true);
	for (unsigned k = 0; __atomic_load_n(&w->inside, __ATOMIC_SEQ_CST); k++)
		if (k < SPINS)
			relax();
		else
			sched_yield();
	blocked(st, false);
}

void store_lock(struct pm_store *st)
{
	struct pm_workers *ws = st->workers;

	store_take(st);
	__atomic_store_n(&ws->alone, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < ws->n; i++)
		if (__atomic_load_n(&ws->at[i]->inside, __ATOMIC_SEQ_CST))
			wait_out(st, ws->at[i]);
}

void store_unlock(struct pm_store *st)
{
	__atomic_store_n(&st->workers->alone, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&st->lock);
}

int workers_open(struct pm_store *st)
{
	struct pm_workers *ws = aligned_alloc(_Alignof(struct pm_workers), sizeof(*ws));

	if (!ws)
		return -ENOMEM;
	*ws = (struct pm_workers){
		.ino = aligned_alloc(_Alignof(struct ino_slot), INO_SLOTS * sizeof(struct ino_slot))
	};
	st->workers = ws;
	if (!ws->ino)
		return -ENOMEM;
	memset(ws->ino, 0, INO_SLOTS * sizeof(struct ino_slot));
	/* without a key everybody is alone */
	ws->keyed = !pthread_key_create(&ws->key, worker_left);
	return 0;
}

void workers_close(struct pm_store *st)
{
	struct pm_workers *ws = st->workers;

	if (!ws)
		return;
	if (ws->keyed)
		pthread_key_delete(ws->key);
	for (unsigned i = 0; i < ws->n; i++) {
		tx_destroy(ws->at[i]->tx);
		free(ws->at[i]);
	}
	free(ws->ino);
	free(ws);
	st->workers = NULL;
}
