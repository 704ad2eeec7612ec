/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * alloc.c - free space: a bitmap in memory, one bit per block, 1 in use
 *
 * Groups of 32768 blocks carry what keeps searches short: free blocks, a lower bound of the first
 * free one, and an upper bound of the longest run that starts there (UINT32_MAX: unknown). The
 * bitmap is anonymous memory that the kernel gives page by page: a terabyte takes 32 MiB at most.
 *
 * A freed block waits in one of two queues until the rule in store.h lets it go: data until its
 * transaction is durable, metadata until a checkpoint has passed it. A reserve is kept back for
 * BLK_META, so that operations which free space never fail for want of a tree node. What is promised to
 * writes under way (promise.c) only they may take.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "pmemio/core.h"

#define GROUP   32768ull
#define HOMES   8u /* workers that begin in different parts of the pool */
#define UNKNOWN UINT32_MAX
#define WORTH   64u /* blocks of metadata, waiting: a checkpoint to get longer runs */

struct group {
	uint32_t free, longest;
	uint32_t first; /* within the group; no free block lies before it */
};
struct waiting {
	pm_lsn lsn;
	uint64_t start, len;
};
struct queue { /* ring */
	struct waiting *at;
	size_t cap, head, n;
	uint64_t blocks;
};
struct pm_space_map {
	struct pm_lock lock; /* for whoever is inside: all but proved, which is atomic */
	uint64_t *bits;
	uint64_t *proved; /* 1: a tree node that passed its check since it was given */
	size_t map_len; /* of each of the two */
	struct group *group;
	uint64_t ngroups, start, end; /* blocks [start, end) are ours to give */
	uint64_t free, reserve;
	uint64_t promised; /* of what is free, to nodes of writes under way */
	uint64_t rotor[2]; /* groups where data and metadata were found last */
	struct queue data, meta;
};

/* --- bits ------------------------------------------------------------------------------------ */

static uint64_t next_bit(const uint64_t *bits, uint64_t from, uint64_t end, uint64_t flip)
{
	uint64_t w;

	if (from >= end)
		return end;
	w = (bits[from / 64] ^ flip) & (~0ull << (from % 64));
	while (!w) {
		from = (from / 64 + 1) * 64;
		if (from >= end)
			return end;
		w = bits[from / 64] ^ flip;
	}
	from = (from & ~63ull) + (unsigned)__builtin_ctzll(w);
	return from < end ? from : end;
}

static uint64_t next_used(const struct pm_space_map *a, uint64_t from, uint64_t end)
{
	return next_bit(a->bits, from, end, 0);
}

static uint64_t next_free(const struct pm_space_map *a, uint64_t from, uint64_t end)
{
	return next_bit(a->bits, from, end, ~0ull);
}

static void set_bits(uint64_t *bits, uint64_t from, uint64_t end, bool on)
{
	while (from < end) {
		uint64_t lo = from % 64, n = end - from < 64 - lo ? end - from : 64 - lo;
		uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << lo;

		if (on)
			bits[from / 64] |= mask;
		else if (bits[from / 64] & mask) /* pages never written cost nothing */
			bits[from / 64] &= ~mask;
		from += n;
	}
}

static uint64_t group_end(const struct pm_space_map *a, uint64_t g)
{
	return (g + 1) * GROUP < a->end ? (g + 1) * GROUP : a->end;
}

/* Whoever proves a node writes to the same words. */
static void unprove(struct pm_space_map *a, uint64_t from, uint64_t end)
{
	while (from < end) {
		uint64_t lo = from % 64, n = end - from < 64 - lo ? end - from : 64 - lo;
		uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << lo, *word = &a->proved[from / 64];

		if (__atomic_load_n(word, __ATOMIC_RELAXED) & mask)
			__atomic_fetch_and(word, ~mask, __ATOMIC_RELAXED);
		from += n;
	}
}

/* Every block of the run was free. */
static void take_run(struct pm_space_map *a, uint64_t start, uint64_t len)
{
	uint64_t end = start + len;

	set_bits(a->bits, start, end, true);
	unprove(a, start, end);
	a->free -= len;
	while (start < end) {
		uint64_t g = start / GROUP, stop = group_end(a, g) < end ? group_end(a, g) : end;

		a->group[g].free -= (uint32_t)(stop - start);
		if (a->group[g].first == start % GROUP)
			a->group[g].first = (uint32_t)(stop - g * GROUP);
		start = stop;
	}
}

/* Every block of the run was in use. */
static void free_run(struct pm_space_map *a, uint64_t start, uint64_t len)
{
	uint64_t end = start + len;

	set_bits(a->bits, start, end, false);
	a->free += len;
	if (start / GROUP > 0)
		a->group[start / GROUP - 1].longest = UNKNOWN; /* its last run may go on here */
	while (start < end) {
		uint64_t g = start / GROUP, stop = group_end(a, g) < end ? group_end(a, g) : end;
		struct group *gr = &a->group[g];

		gr->free += (uint32_t)(stop - start);
		gr->longest = UNKNOWN;
		if (start % GROUP < gr->first)
			gr->first = (uint32_t)(start % GROUP);
		/* blocks used lately are warm: come back to a group once it has room */
		for (unsigned k = 0; k < 2; k++)
			if (g < a->rotor[k] && gr->free >= GROUP / 8)
				a->rotor[k] = g;
		start = stop;
	}
}

/* --- searching ------------------------------------------------------------------------------- */

/* A start congruent to @phase modulo 512 with @need free blocks. */
static bool find_aligned(struct pm_space_map *a, uint64_t g0, uint64_t phase, uint64_t need,
                         struct blk_run *out)
{
	for (uint64_t k = 0; k < a->ngroups; k++) {
		uint64_t g = (g0 + k) % a->ngroups, end = group_end(a, g);
		const struct group *gr = &a->group[g];
		uint64_t at = g * GROUP + (phase & 511);

		if (gr->free == 0 || gr->longest < need)
			continue;
		for (; at < end; at += 512) {
			if (at < a->start || at + need > a->end || at % GROUP < gr->first)
				continue;
			if (next_used(a, at, at + need) == at + need) {
				*out = (struct blk_run){ at, need };
				return true;
			}
		}
	}
	return false;
}

/* The first run of @want blocks in the group, or else a longer one than *best. */
static bool scan_group(struct pm_space_map *a, uint64_t g, uint64_t want, struct blk_run *best)
{
	struct group *gr = &a->group[g];
	uint64_t end = group_end(a, g), at = g * GROUP + gr->first, longest = 0;
	bool first = true;

	while ((at = next_free(a, at, end)) < end) {
		uint64_t limit = want > a->end - at ? a->end : at + want;
		uint64_t stop = next_used(a, at, limit), len = stop - at;

		if (first)
			gr->first = (uint32_t)(at - g * GROUP);
		first = false;
		if (len > longest)
			longest = len;
		if (len > best->len)
			*best = (struct blk_run){ at, len };
		if (len == want)
			return true;
		at = stop;
	}
	gr->longest = longest > UNKNOWN - 1 ? UNKNOWN - 1 : (uint32_t)longest;
	return false;
}

static bool find_run(struct pm_space_map *a, uint64_t g0, uint64_t want, struct blk_run *best)
{
	*best = (struct blk_run){ 0, 0 };
	for (uint64_t k = 0; k < a->ngroups; k++) {
		uint64_t g = (g0 + k) % a->ngroups;

		if (a->group[g].free == 0 || a->group[g].longest <= best->len)
			continue;
		if (scan_group(a, g, want, best))
			return true;
	}
	return false;
}

static bool at_goal(struct pm_space_map *a, uint64_t goal, uint64_t want, unsigned flags,
                    struct blk_run *out)
{
	uint64_t stop;

	if (goal < a->start || goal >= a->end)
		return false;
	stop = next_used(a, goal, want > a->end - goal ? a->end : goal + want);
	if (stop == goal || ((flags & BLK_WHOLE) && stop - goal < want))
		return false;
	*out = (struct blk_run){ goal, stop - goal };
	return true;
}

static uint64_t allowed(const struct pm_space_map *a, unsigned flags)
{
	uint64_t keep = flags & BLK_PROMISED ? 0 : a->promised;

	if (!(flags & BLK_META) && keep < a->reserve)
		keep = a->reserve;
	return a->free > keep ? a->free - keep : 0;
}

/* Where @w looks for data when it is one of several: far from the others, so that files which grow at the same
 * time do not take each other's next block. */
static uint64_t *home_of(struct pm_space_map *a, struct pm_worker *w)
{
	if (w->home == UINT64_MAX)
		w->home = (a->rotor[0] + w->no * a->ngroups / HOMES) % a->ngroups;
	return &w->home;
}

/* @w: inside, beside others; or NULL. */
static int try_take(struct pm_space_map *a, struct pm_worker *w, uint64_t goal, uint64_t want,
                    uint64_t phase, unsigned flags, struct blk_run *out)
{
	uint64_t most = allowed(a, flags), need;
	bool home = w && !(flags & BLK_META);
	uint64_t *rotor = home ? home_of(a, w) : &a->rotor[!!(flags & BLK_META)];
	uint64_t g0 = !home && goal >= a->start && goal < a->end ? goal / GROUP : *rotor;
	struct blk_run run;

	if (most == 0 || want == 0 || ((flags & BLK_WHOLE) && most < want))
		return -ENOSPC;
	if (want > most)
		want = most;
	need = want < 512 ? want : 512;
	if (at_goal(a, goal, want, flags, &run))
		goto found;
	if ((flags & BLK_ALIGN_2M) && find_aligned(a, g0, phase, need, &run)) {
		uint64_t limit = want > a->end - run.start ? a->end : run.start + want;
		uint64_t stop = next_used(a, run.start, limit);

		if (!(flags & BLK_WHOLE) || stop - run.start == want) {
			run.len = stop - run.start;
			goto found;
		}
	}
	if (!find_run(a, g0, want, &run) && (run.len == 0 || (flags & BLK_WHOLE)))
		return -ENOSPC;
	if (goal == 0 || home)
		*rotor = run.start / GROUP;
found:
	take_run(a, run.start, run.len);
	*out = run;
	return 0;
}

int blk_take(struct pm_store *st, uint64_t goal, uint64_t want, uint64_t phase, unsigned flags,
             struct blk_run *out)
{
	struct pm_space_map *a = st->space;
	struct pm_worker *w = worker_here(st), *beside = NULL;
	bool fits, inside = w;
	int err;

	if (w && __atomic_load_n(&st->workers->n, __ATOMIC_RELAXED) > 1)
		beside = w;
	lock_take(&a->lock);
	err = st->doubt ? -ENOSPC : try_take(a, beside, goal, want, phase, flags, out);
	/* what waits may lie between short runs; a checkpoint for each of few would cost too much */
	fits = !err && (out->len >= want || a->meta.blocks < WORTH);
	if (!err && !fits && inside)
		free_run(a, out->start, out->len);
	lock_drop(&a->lock);
	if (fits)
		return 0;
	if (inside)
		return NEEDS_ALL;
	if (st->doubt || (err && err != -ENOSPC) || !a->meta.n || !journal_checkpoint(st))
		return err;
	if (!err)
		free_run(a, out->start, out->len);
	return try_take(a, NULL, goal, want, phase, flags, out);
}

bool blk_promise(struct pm_store *st, uint64_t n, uint64_t part)
{
	struct pm_space_map *a = st->space;
	uint64_t most = a->reserve / part;
	bool ok;

	lock_take(&a->lock);
	ok = !st->doubt && a->promised + n <= (most < a->free ? most : a->free);
	a->promised += ok ? n : 0;
	lock_drop(&a->lock);
	return ok;
}

void blk_owe(struct pm_store *st, uint64_t n)
{
	lock_take(&st->space->lock);
	st->space->promised += n;
	lock_drop(&st->space->lock);
}

/* --- giving back ----------------------------------------------------------------------------- */

void blk_give(struct pm_store *st, uint64_t start, uint64_t len)
{
	if (!len)
		return;
	lock_take(&st->space->lock);
	free_run(st->space, start, len);
	lock_drop(&st->space->lock);
}

static int queue_room(struct queue *q, size_t n)
{
	struct waiting *at;
	size_t cap = q->cap ? q->cap : 64;

	if (q->n + n <= q->cap)
		return 0;
	while (cap < q->n + n)
		cap *= 2;
	at = malloc(cap * sizeof(*at));
	if (!at)
		return -ENOMEM;
	for (size_t i = 0; i < q->n; i++)
		at[i] = q->at[(q->head + i) % q->cap];
	free(q->at);
	q->at = at;
	q->cap = cap;
	q->head = 0;
	return 0;
}

int alloc_reserve(struct pm_store *st, size_t n)
{
	int err;

	if (!n)
		return 0;
	lock_take(&st->space->lock);
	err = queue_room(&st->space->data, n);
	if (!err)
		err = queue_room(&st->space->meta, n);
	lock_drop(&st->space->lock);
	return err;
}

void alloc_give(struct pm_store *st, pm_lsn lsn, uint64_t start, uint64_t len, bool meta)
{
	struct queue *q = meta ? &st->space->meta : &st->space->data;
	pm_lsn safe = meta ? journal_ckpt(st) : journal_durable(st);
	bool lost = false;

	if (len == 0)
		return;
	lock_take(&st->space->lock);
	if (lsn <= safe) {
		free_run(st->space, start, len);
	} else if (queue_room(q, 1)) {
		lost = true;
	} else {
		q->at[(q->head + q->n++) % q->cap] = (struct waiting){ lsn, start, len };
		q->blocks += len;
	}
	lock_drop(&st->space->lock);
	if (lost)
		store_log(st, 4, "no memory: %llu freed blocks come back at the next open only",
		          (unsigned long long)len);
}

void blk_give_after(struct pm_store *st, pm_lsn lsn, uint64_t start, uint64_t len)
{
	alloc_give(st, lsn, start, len, false);
}

static void queue_release(struct pm_space_map *a, struct queue *q, pm_lsn safe)
{
	while (q->n && q->at[q->head].lsn <= safe) {
		struct waiting *w = &q->at[q->head];

		free_run(a, w->start, w->len);
		q->blocks -= w->len;
		q->head = (q->head + 1) % q->cap;
		q->n--;
	}
}

void alloc_release(struct pm_store *st)
{
	queue_release(st->space, &st->space->data, journal_durable(st));
	queue_release(st->space, &st->space->meta, journal_ckpt(st));
}

bool alloc_waiting(const struct pm_store *st)
{
	return st->space->meta.n || st->space->data.n;
}

bool alloc_low(struct pm_store *st)
{
	const struct pm_space_map *a = st->space;

	return a->meta.blocks && (a->meta.blocks > a->free / 2 || a->free < 2 * a->reserve);
}

void alloc_count(struct pm_store *st, struct pm_space *out)
{
	const struct pm_space_map *a = st->space;
	uint64_t avail = a->free + a->data.blocks + a->meta.blocks;

	out->blocks = a->end - a->start;
	out->free_blocks = avail > a->reserve ? avail - a->reserve : 0;
}

/* --- recovery -------------------------------------------------------------------------------- */

void blk_mark(struct pm_store *st, uint64_t start, uint64_t len)
{
	struct pm_space_map *a = st->space;
	uint64_t end = start + len;

	if (start < a->start || end > a->end || end < start)
		return;
	while ((start = next_free(a, start, end)) < end) {
		uint64_t stop = next_used(a, start, end);

		take_run(a, start, stop - start);
		start = stop;
	}
}

uint64_t blk_next_marked(struct pm_store *st, uint64_t start, uint64_t len)
{
	return next_used(st->space, start, start + len);
}

bool blk_proved(struct pm_store *st, uint64_t blk)
{
	return __atomic_load_n(&st->space->proved[blk / 64], __ATOMIC_RELAXED) >> (blk % 64) & 1;
}

void blk_prove(struct pm_store *st, uint64_t blk)
{
	__atomic_fetch_or(&st->space->proved[blk / 64], 1ull << (blk % 64), __ATOMIC_RELAXED);
}

bool blk_marked(struct pm_store *st, uint64_t blk)
{
	const struct pm_space_map *a = st->space;

	return blk >= a->end || (a->bits[blk / 64] >> (blk % 64) & 1);
}

int alloc_open(struct pm_store *st)
{
	struct pm_space_map *a = calloc(1, sizeof(*a));
	uint64_t blocks = st->super.blocks;

	if (!a)
		return -ENOMEM;
	a->start = st->super.data_start;
	a->end = blocks;
	a->ngroups = (blocks + GROUP - 1) / GROUP;
	a->map_len = a->ngroups * (GROUP / 8);
	a->group = calloc(a->ngroups, sizeof(*a->group));
	a->bits = mmap(NULL, 2 * a->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	               -1, 0);
	if (a->bits == MAP_FAILED || !a->group) {
		if (a->bits != MAP_FAILED)
			munmap(a->bits, 2 * a->map_len);
		free(a->group);
		free(a);
		return -ENOMEM;
	}
	a->proved = a->bits + a->map_len / sizeof(*a->bits);
	set_bits(a->bits, 0, a->start, true);
	set_bits(a->bits, blocks, a->ngroups * GROUP, true);
	for (uint64_t g = 0; g < a->ngroups; g++) {
		uint64_t lo = g * GROUP > a->start ? g * GROUP : a->start, hi = group_end(a, g);

		a->group[g] = (struct group){ .free = hi > lo ? (uint32_t)(hi - lo) : 0,
			                      .longest = UNKNOWN };
		a->free += a->group[g].free;
	}
	a->rotor[1] = a->start / GROUP;
	a->rotor[0] = a->rotor[1] + 1 < a->ngroups ? a->rotor[1] + 1 : a->rotor[1];
	a->reserve = (a->end - a->start) / 512;
	if (a->reserve < 64)
		a->reserve = 64;
	if (a->reserve > 4096)
		a->reserve = 4096;
	st->space = a;
	return 0;
}

void alloc_close(struct pm_store *st)
{
	struct pm_space_map *a = st->space;

	if (!a)
		return;
	munmap(a->bits, 2 * a->map_len);
	free(a->group);
	free(a->data.at);
	free(a->meta.at);
	free(a);
	st->space = NULL;
}

/* --- stored free space: per group 8 bytes (free blocks, kind), then its bitmap if mixed ------ */

enum { SAVED_FREE, SAVED_FULL, SAVED_MIXED };

static unsigned group_kind(const struct pm_space_map *a, uint64_t g)
{
	if (a->group[g].free == 0)
		return SAVED_FULL;
	if (a->group[g].free == GROUP)
		return SAVED_FREE;
	return SAVED_MIXED;
}

size_t alloc_save_size(struct pm_store *st)
{
	const struct pm_space_map *a = st->space;
	size_t n = 0;

	for (uint64_t g = 0; g < a->ngroups; g++)
		n += 8 + (group_kind(a, g) == SAVED_MIXED ? GROUP / 8 : 0);
	return n;
}

size_t alloc_save(struct pm_store *st, uint8_t *buf)
{
	const struct pm_space_map *a = st->space;
	uint8_t *p = buf;

	for (uint64_t g = 0; g < a->ngroups; g++) {
		uint32_t head[2] = { a->group[g].free, group_kind(a, g) };

		memcpy(p, head, sizeof(head));
		p += sizeof(head);
		if (head[1] != SAVED_MIXED)
			continue;
		memcpy(p, a->bits + g * (GROUP / 64), GROUP / 8);
		p += GROUP / 8;
	}
	return (size_t)(p - buf);
}

static uint64_t count_zeros(const uint64_t *bits)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < GROUP / 64; i++)
		n += (unsigned)__builtin_popcountll(~bits[i]);
	return n;
}

int alloc_load(struct pm_store *st, const uint8_t *buf, size_t len, size_t *used)
{
	struct pm_space_map *a = st->space;
	const uint8_t *p = buf, *end = buf + len;

	for (uint64_t g = 0; g < a->ngroups; g++) {
		uint64_t *bits = a->bits + g * (GROUP / 64), n = 0;
		uint32_t head[2];

		if ((size_t)(end - p) < sizeof(head))
			return -EUCLEAN;
		memcpy(head, p, sizeof(head));
		p += sizeof(head);
		if (head[1] == SAVED_FULL) {
			set_bits(a->bits, g * GROUP, (g + 1) * GROUP, true);
		} else if (head[1] == SAVED_MIXED) {
			if ((size_t)(end - p) < GROUP / 8)
				return -EUCLEAN;
			memcpy(bits, p, GROUP / 8);
			p += GROUP / 8;
		}
		/* what is not ours stays in use, whatever the run says */
		if (g * GROUP < a->start)
			set_bits(a->bits, g * GROUP,
			         a->start < (g + 1) * GROUP ? a->start : (g + 1) * GROUP, true);
		if ((g + 1) * GROUP > a->end)
			set_bits(a->bits, a->end, (g + 1) * GROUP, true);
		/* a group all free is not looked at: a terabyte has thousands */
		n = head[1] == SAVED_FREE && g * GROUP >= a->start && (g + 1) * GROUP <= a->end
		            ? GROUP
		            : count_zeros(bits);
		if (n != head[0])
			return -EUCLEAN;
		a->free += n - a->group[g].free;
		a->group[g] = (struct group){ .free = (uint32_t)n, .longest = UNKNOWN };
	}
	*used = (size_t)(p - buf);
	return 0;
}
