/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.h - who is in the store: some at different inodes, or one at everything; private to pmemio
 *
 * L1  Everything may be read and changed by whoever is *alone* in the store (store_lock).
 * L2  Threads that are not alone are *inside* (inode_lock): each reads and changes what belongs to the inodes
 *     that it has locked: the inode on media, its tree and extents, its struct file. What inodes share has a lock of
 *     its own (alloc.c, journal.c, reply.c, the free slots of inode.c, words.h), is atomic, or is read only: the chunks of the
 *     inode table, the accounts of owners (their counters are atomic), the superblock.
 * L3  Whoever is inside and finds that this is not enough has changed nothing that counts, returns NEEDS_ALL
 *     through its callers, and does the whole again alone.
 * L4  Order: inode, then words of the table of checksums, then space, slots, or journal and then replies. One inode is waited
 *     for; those that a change of
 *     names or a batch needs besides (inode_also) are tried; if somebody keeps them NEEDS_ALL is the answer, or a batch goes
 *     on without. Nobody waits
 *     for the store while inside.
 * L5  A thread comes to be one of those that may be inside only when nobody is: who is inside and the only one of them
 *     has every inode.
 * L6  The store's mutex without being alone protects the flusher's queues, which nobody inside touches.
 *
 * Being inside costs a store to a line of the thread's own, and looking at a flag that changes only when somebody
 * wants to be alone; who does sets the flag, and waits for the others to come out.
 */
#ifndef PMEMIO_WORKER_H
#define PMEMIO_WORKER_H

#include "pmemio/store.h"

#define WORKERS   32u    /* threads inside at most; more of them take turns, alone */
#define INO_SLOTS 512u   /* inodes that share one stand in each other's way, no more */
#define INO_SEEN  4u     /* inodes that a thread remembers to have verified */
#define ALSO      63u    /* inodes that a thread inside may hold besides the first: a batch */
#define NEEDS_ALL (-EDEADLK)

struct pm_lock { /* 0 free, 1 held, 2 held and somebody sleeps */
	uint32_t word;
};
void lock_wait(struct pm_lock *l);
void lock_wake(struct pm_lock *l);

static inline bool lock_try(struct pm_lock *l)
{
	uint32_t is_free = 0;

	return __atomic_compare_exchange_n(&l->word, &is_free, 1, false, __ATOMIC_ACQUIRE,
	                                   __ATOMIC_RELAXED);
}

static inline void lock_take(struct pm_lock *l)
{
	if (!lock_try(l))
		lock_wait(l);
}

static inline void lock_drop(struct pm_lock *l)
{
	if (__atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE) == 2)
		lock_wake(l);
}

LIST_HEAD(file_list, file);
struct ino_slot { /* a line each: threads at different inodes share none */
	struct pm_lock lock;
	struct file_list files; /* active.c: of these inodes */
} __attribute__((aligned(64)));

struct pm_worker { /* a thread that is inside now and then */
	uint32_t inside; /* atomic */
	uint32_t taken;  /* by a live thread; atomic */
	unsigned nalso;
	struct ino_slot *first, *also[ALSO]; /* held */
	struct pm_store *st;
	struct pm_tx *tx; /* made when first needed */
	unsigned no;
	uint64_t home; /* alloc.c, under its lock: the group where it finds space; UINT64_MAX: not chosen yet */
	struct pm_stats stats;
	struct pm_inode seen[INO_SEEN]; /* inode.c: verified */
} __attribute__((aligned(128)));

struct pm_workers {
	pthread_key_t key; /* a thread's worker */
	bool keyed;
	bool writes; /* changes may go side by side, too; constant once open */
	struct pm_worker *at[WORKERS];
	unsigned n; /* grows when somebody is alone; atomic */
	struct ino_slot *ino;
	uint32_t alone __attribute__((aligned(128))); /* somebody is, or wants to be; atomic */
};

int workers_open(struct pm_store *st);
void workers_close(struct pm_store *st);

/* Alone, until store_unlock. */
void store_lock(struct pm_store *st);
void store_unlock(struct pm_store *st);

/* The calling thread's, if it has been inside before. */
static inline struct pm_worker *worker_mine(const struct pm_store *st)
{
	return st->workers->keyed ? pthread_getspecific(st->workers->key) : NULL;
}
/* The calling thread's, if it is inside now. */
static inline struct pm_worker *worker_here(const struct pm_store *st)
{
	struct pm_worker *w = worker_mine(st);

	return w && w->inside ? w : NULL;
}
/* Its transaction object; NULL: no memory, be alone. */
struct pm_tx *worker_tx(struct pm_worker *w);
/* Where the calling thread counts; one's own nobody else adds to. */
static inline struct pm_stats *stats_of(struct pm_store *st, struct pm_worker *w)
{
	return w ? &w->stats : &st->stats;
}
#define COUNT(store, to, field, n) stat_add(&(to)->field, (uint64_t)(n), (to) == &(store)->stats)

/* A locked instruction would wait for the flushes before it. */
static inline void stat_add(uint64_t *at, uint64_t n, bool shared)
{
	if (shared)
		__atomic_fetch_add(at, n, __ATOMIC_RELAXED);
	else
		__atomic_store_n(at, __atomic_load_n(at, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

struct pm_worker *worker_enter_slow(struct pm_store *st, struct pm_worker *w);
void lock_wait_told(struct pm_store *st, struct pm_lock *l); /* a medium of tests hears of it */

/* For locks that are held over drains. */
static inline void lock_await(struct pm_store *st, struct pm_lock *l)
{
	if (!lock_try(l))
		lock_wait_told(st, l);
}

static inline struct ino_slot *ino_slot(struct pm_store *st, uint64_t ino)
{
	return &st->workers->ino[(unsigned)(ino * 0x9e3779b97f4a7c15ull >> 32) % INO_SLOTS];
}

static inline void slot_take(struct pm_store *st, struct pm_worker *w, struct ino_slot *s)
{
	w->first = s;
	lock_await(st, &s->lock);
}

/* Inside with that inode; or NULL: alone, there is no other way. */
static inline struct pm_worker *inode_lock(struct pm_store *st, uint64_t ino)
{
	struct pm_worker *w = worker_mine(st);

	if (w)
		__atomic_store_n(&w->inside, 1, __ATOMIC_SEQ_CST);
	if (!w || __atomic_load_n(&st->workers->alone, __ATOMIC_SEQ_CST))
		w = worker_enter_slow(st, w);
	if (w)
		slot_take(st, w, ino_slot(st, ino));
	return w;
}

/* Inside, and not the only one that may be (L5)? */
static inline bool worker_beside(const struct pm_store *st, const struct pm_worker *w)
{
	return w && __atomic_load_n(&st->workers->n, __ATOMIC_RELAXED) > 1;
}

bool slot_spin(struct ino_slot *s);

/* Inside: lock @ino, too, for a moment, until inode_seen(*held). False: somebody keeps it, so NEEDS_ALL. */
static inline bool inode_see(struct pm_store *st, const struct pm_worker *w, uint64_t ino, struct ino_slot **held)
{
	struct ino_slot *s = ino_slot(st, ino);

	*held = NULL;
	if (s == w->first)
		return true;
	if (!lock_try(&s->lock) && !slot_spin(s))
		return false;
	*held = s;
	return true;
}

static inline void inode_seen(struct ino_slot *held)
{
	if (held)
		lock_drop(&held->lock);
}

/* Inside: lock @ino, too, until inode_unlock. False: somebody keeps it, so NEEDS_ALL. Alone (@w NULL): true. */
bool inode_also(struct pm_store *st, struct pm_worker *w, uint64_t ino);

static inline void inode_unlock(struct pm_store *st, struct pm_worker *w, uint64_t ino)
{
	if (!w) {
		store_unlock(st);
		return;
	}
	while (w->nalso)
		lock_drop(&w->also[--w->nalso]->lock);
	lock_drop(&ino_slot(st, ino)->lock);
	__atomic_store_n(&w->inside, 0, __ATOMIC_RELEASE);
}

/* Inside: from one inode to another. */
static inline void inode_next(struct pm_store *st, struct pm_worker *w, uint64_t from, uint64_t to)
{
	struct ino_slot *a = ino_slot(st, from), *b = ino_slot(st, to);

	if (a == b)
		return;
	lock_drop(&a->lock);
	slot_take(st, w, b);
}

/* From inside to alone. What was seen before may be so no longer. */
static inline void inode_alone(struct pm_store *st, struct pm_worker **w, uint64_t ino)
{
	inode_unlock(st, *w, ino);
	*w = NULL;
	store_lock(st);
}

/* As inode_lock, for a transaction: alone where a pool's changes have to go one by one, or memory is short. */
static inline struct pm_worker *inode_lock_write(struct pm_store *st, uint64_t ino)
{
	struct pm_worker *w;

	if (!st->workers->writes) {
		store_lock(st);
		return NULL;
	}
	w = inode_lock(st, ino);
	if (w && !w->tx && !worker_tx(w))
		inode_alone(st, &w, ino);
	return w;
}

#endif
