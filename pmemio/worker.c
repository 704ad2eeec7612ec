/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.c - threads inside the store, and the one that is alone in it
 *
 * Entering: inside = 1, then look at `alone`. Being alone: alone = 1, then look at every `inside`. Both in
 * one total order, so at least one of two sees the other; the one inside gives way and waits on the store's mutex.
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

void lock_wait(struct pm_lock *l)
{
	for (unsigned i = 0; i < SPINS; i++) {
		uint32_t is_free = 0;

		if (!__atomic_load_n(&l->word, __ATOMIC_RELAXED) &&
		    __atomic_compare_exchange_n(&l->word, &is_free, 1, false, __ATOMIC_ACQUIRE,
		                                __ATOMIC_RELAXED))
			return;
		relax();
	}
	while (__atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &l->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

void lock_wake(struct pm_lock *l)
{
	syscall(SYS_futex, &l->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* --- threads --- */

/* A thread that has been inside ends. */
static void worker_left(void *arg)
{
	struct pm_worker *w = arg;

	__atomic_store_n(&w->taken, 0, __ATOMIC_RELEASE);
}

/* st->lock held. */
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
	pthread_mutex_lock(&st->lock);
	w = worker_new(st);
	if (w && pthread_setspecific(st->workers->key, w))
		w = NULL;
	if (w)
		__atomic_store_n(&w->taken, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&st->lock);
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
		pthread_mutex_lock(&st->lock);
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

void store_lock(struct pm_store *st)
{
	struct pm_workers *ws = st->workers;

	pthread_mutex_lock(&st->lock);
	__atomic_store_n(&ws->alone, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < ws->n; i++)
		for (unsigned k = 0; __atomic_load_n(&ws->at[i]->inside, __ATOMIC_SEQ_CST); k++)
			if (k < SPINS)
				relax();
			else
				sched_yield();
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
