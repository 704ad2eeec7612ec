/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_table.c - the inode table found again where inode 0 no longer leads to all of it
 *
 * Every slot of an inode says which inode it is, so a chunk of the table can be told from its own bytes wherever it
 * lies. But so can a copy of one: a file may hold an image of this pool, or something made to look like a chunk, and
 * free blocks of a device may hold chunks of a pool that was there before. A place is believed only if it must be:
 *
 *   - no block of it belongs to an inode of a chunk that is certain (chunk 0 is, by its place), nor to one of its own;
 *   - it is the only one of its chunk, and no inode of any other place that may be right has a block of it
 *     (one of an earlier pool, where names lead to this one and none to that, is not right); or
 *   - of several, the names in directories that are certain lead to its inodes, by their generations, and for each
 *     of the others either one of these names says that it is wrong, or all its inodes are older than the pool.
 *
 * Places that become certain may settle others. Where that leaves a chunk open, nothing is guessed.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"

#define ULL(x)       ((unsigned long long)(x))
#define MAX_LEVELS   12u
#define BLOCK_INODES (PM_BLOCK / PM_INODE_SIZE)
#define CHUNK_BYTES  ((uint64_t)PM_CHUNK_BLOCKS * PM_BLOCK)

enum standing { OPEN, CERTAIN, OUT };

struct place { /* blocks that say they are a chunk */
	uint64_t chunk, start;
	enum standing standing;
	bool spread;            /* what follows from its being certain is known */
	bool claimed;           /* an inode of another open place has a block of it */
	bool old;               /* its inodes are all older than the pool */
	bool live;              /* some inode in it should have a name */
	uint64_t named, denied; /* entries that lead to its inodes; that say they are others */
};

struct hunt {
	struct pm_store *st;
	struct place *at; /* by chunk, then by start */
	size_t n, cap;
	struct place **by_start;
	uint64_t most;  /* chunks there can be */
	uint64_t told;  /* chunks that there are; 0: nobody says */
	uint64_t named; /* the last chunk that a name leads to */
};

/* --- places ------------------------------------------------------------------------------------ */

static int add_place(struct hunt *h, uint64_t chunk, uint64_t start)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 64;
		struct place *p = realloc(h->at, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		h->at = p;
		h->cap = cap;
	}
	h->at[h->n++] = (struct place){ .chunk = chunk, .start = start };
	return 0;
}

/* Inode slots in the block say which chunk's they are, and so where it begins. */
static int look_at_block(struct hunt *h, uint64_t blk)
{
	const struct pm_inode *in = blk_ptr(h->st, blk);

	for (unsigned i = 0; i < BLOCK_INODES; i++) {
		uint64_t c = in[i].ino / PM_CHUNK_INODES;
		uint64_t start = blk - in[i].ino % PM_CHUNK_INODES / BLOCK_INODES;
		const struct place *last = h->n ? &h->at[h->n - 1] : NULL;

		if (c == 0 || c >= h->most || in[i].ino % BLOCK_INODES != i ||
		    in[i].type > PM_FIFO || start < h->st->super.data_start + PM_CHUNK_BLOCKS ||
		    start + PM_CHUNK_BLOCKS > h->st->super.blocks)
			continue;
		if (last && last->chunk == c && last->start == start)
			return 0;
		if (ino_verify(&in[i], in[i].ino) != -EIO)
			return add_place(h, c, start);
	}
	return 0;
}

static int by_chunk(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

static int by_start(const void *a, const void *b)
{
	const struct place *x = *(struct place *const *)a, *y = *(struct place *const *)b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* The slots of a place, other than that of inode 0, which leads to all chunks. */
static const struct pm_inode *slot(const struct hunt *h, const struct place *p, unsigned i)
{
	const struct pm_inode *in = (const struct pm_inode *)blk_ptr(h->st, p->start) + i;

	return ino_verify(in, p->chunk * PM_CHUNK_INODES + i) || in->ino == 0 ? NULL : in;
}

static void look_inside(const struct hunt *h, struct place *p)
{
	bool any = false, later = false;

	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		const struct pm_inode *in = slot(h, p, i);

		if (!in)
			continue;
		any = true;
		later |= in->ctime.sec >= 0 && (uint64_t)in->ctime.sec >= h->st->super.created;
		p->live |= in->nlink > 0;
	}
	p->old = any && !later;
}

static int find_places(struct hunt *h)
{
	struct pm_store *st = h->st;
	size_t n = 1;
	int err = add_place(h, 0, st->super.data_start);

	for (uint64_t b = st->super.data_start + PM_CHUNK_BLOCKS; b < st->super.blocks && !err; b++)
		err = look_at_block(h, b);
	if (err)
		return err;
	qsort(h->at, h->n, sizeof(*h->at), by_chunk);
	for (size_t i = 1; i < h->n; i++)
		if (by_chunk(&h->at[i], &h->at[n - 1]) &&
		    table_chunk_proves(st, h->at[i].start, h->at[i].chunk))
			h->at[n++] = h->at[i];
	h->n = n;
	h->by_start = calloc(n, sizeof(*h->by_start));
	if (!h->by_start)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		h->by_start[i] = &h->at[i];
		look_inside(h, &h->at[i]);
	}
	qsort(h->by_start, n, sizeof(*h->by_start), by_start);
	h->at[0].standing = CERTAIN;
	return 0;
}

/* The places of a chunk are [*from, return value). */
static size_t places_of(const struct hunt *h, uint64_t chunk, size_t *from)
{
	size_t lo = 0, hi = h->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (h->at[mid].chunk < chunk)
			lo = mid + 1;
		else
			hi = mid;
	}
	*from = lo;
	while (lo < h->n && h->at[lo].chunk == chunk)
		lo++;
	return lo;
}

/* --- what the inodes of a place have ------------------------------------------------------------- */

struct reader {
	struct hunt *h;
	const struct place *of;
	const struct pm_inode *in;
};

/* Blocks of an inode: no chunk has them if that inode is one. */
static void has_run(const struct reader *r, uint64_t start, uint64_t len)
{
	struct hunt *h = r->h;
	size_t lo = 0, hi = h->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (h->by_start[mid]->start + PM_CHUNK_BLOCKS <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < h->n && h->by_start[lo]->start < start + len; lo++) {
		struct place *p = h->by_start[lo];

		if (p->standing != OPEN)
			continue;
		if (p == r->of || r->of->standing == CERTAIN)
			p->standing = OUT;
		else
			p->claimed |= !r->of->old || r->of->named || !p->named;
	}
}

static void has_extent(const struct reader *r, const struct pm_ext *x)
{
	if (x->len_lo && x->pblk >= r->h->st->super.data_start && x->pblk < r->h->st->super.blocks)
		has_run(r, x->pblk, x->len_lo);
}

static void has_name(const struct reader *r, const struct pm_bent *e)
{
	struct hunt *h = r->h;
	struct pm_dent d;
	size_t i, end;

	if (e->len <= sizeof(d))
		return;
	memcpy(&d, e->val, sizeof(d));
	if (d.ino / PM_CHUNK_INODES >= h->most)
		return;
	if (d.ino / PM_CHUNK_INODES > h->named)
		h->named = d.ino / PM_CHUNK_INODES;
	end = places_of(h, d.ino / PM_CHUNK_INODES, &i);
	for (; i < end; i++) {
		const struct pm_inode *in =
			(const struct pm_inode *)blk_ptr(h->st, h->at[i].start) +
			d.ino % PM_CHUNK_INODES;
		int err = ino_verify(in, d.ino);

		if (err == -EIO)
			continue; /* damaged: says nothing */
		if (err || in->gen != d.gen || in->type != d.type)
			h->at[i].denied++;
		else
			h->at[i].named++;
	}
}

static void has_tree(const struct reader *r, uint64_t blk, unsigned level)
{
	struct pm_store *st = r->h->st;
	bool dir = r->in->type == PM_DIR;
	const struct pm_bnode *n;

	if (blk < st->super.data_start || blk >= st->super.blocks)
		return;
	n = blk_ptr(st, blk);
	if (bt_fault(n, r->in->ino, blk, level))
		return;
	has_run(r, blk, 1);
	for (unsigned i = 0; i < n->count; i++) {
		const struct pm_bent *e = (const void *)((const uint8_t *)n + n->slot[i]);
		struct pm_ext x;
		uint64_t down;

		if (level) {
			memcpy(&down, e->val, sizeof(down));
			has_tree(r, down, level - 1);
		} else if (dir && r->of->standing == CERTAIN) {
			has_name(r, e);
		} else if (!dir && e->len == sizeof(x)) {
			memcpy(&x, e->val, sizeof(x));
			has_extent(r, &x);
		}
	}
}

static void spread(struct hunt *h, const struct place *p)
{
	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		const struct pm_inode *in = slot(h, p, i);
		const struct reader r = { h, p, in };

		if (!in)
			continue;
		if (in->flags & PM_IF_TREE) {
			if (in->u.tree.height && in->u.tree.height <= MAX_LEVELS)
				has_tree(&r, in->u.tree.root, in->u.tree.height - 1);
		} else if (in->type == PM_REG ||
		           (in->type == PM_LNK && in->size > PM_INLINE_LINK)) {
			for (unsigned k = 0; k < PM_INLINE_EXTENTS && in->u.ext[k].len_lo; k++)
				has_extent(&r, &in->u.ext[k]);
		}
	}
}

/* --- deciding ------------------------------------------------------------------------------------ */

static bool wrong(const struct place *p)
{
	return p->standing == OUT || p->denied || p->old;
}

/* The one of [@i, @end) that must be right, or NULL. @old: also if nothing but its age is against it. */
static struct place *the_one(struct hunt *h, size_t i, size_t end, bool old)
{
	struct place *one = NULL, *good = NULL;
	unsigned open = 0, right = 0;

	for (; i < end; i++) {
		struct place *p = &h->at[i];

		if (p->standing == CERTAIN)
			return NULL;
		if (p->standing == OUT)
			continue;
		open++;
		one = p;
		if (!wrong(p)) {
			right++;
			good = p;
		}
	}
	if (open == 1)
		return !one->claimed && one->denied <= one->named &&
		                       (!one->old || one->named || old)
		               ? one
		               : NULL;
	return right == 1 && good->named && !good->claimed ? good : NULL;
}

static bool settle(struct hunt *h, bool old)
{
	bool more = false;

	for (size_t i = 0, end; i < h->n; i = end) {
		struct place *one;

		end = places_of(h, h->at[i].chunk, &i);
		one = the_one(h, i, end, old && h->at[i].chunk < h->told);
		if (!one)
			continue;
		for (size_t k = i; k < end; k++)
			h->at[k].standing = OUT;
		one->standing = CERTAIN;
		more = true;
	}
	return more;
}

static void decide(struct hunt *h)
{
	do {
		for (size_t i = 0; i < h->n; i++)
			h->at[i].claimed = false;
		for (size_t i = 0; i < h->n; i++) {
			if (h->at[i].standing == CERTAIN && !h->at[i].spread) {
				h->at[i].spread = true;
				spread(h, &h->at[i]);
			}
		}
		for (size_t i = 0; i < h->n; i++)
			if (h->at[i].standing == OPEN)
				spread(h, &h->at[i]);
	} while (settle(h, false) || settle(h, true));
}

/* --- the table ----------------------------------------------------------------------------------- */

static const struct place *certain(const struct hunt *h, uint64_t chunk)
{
	size_t i, end = places_of(h, chunk, &i);

	for (; i < end; i++)
		if (h->at[i].standing == CERTAIN)
			return &h->at[i];
	return NULL;
}

/* Say why @chunk is not there. */
static int not_found(const struct hunt *h, uint64_t chunk, struct pm_error *why)
{
	size_t i, end = places_of(h, chunk, &i), open = 0;
	uint64_t at[2] = { 0, 0 };

	for (; i < end; i++) {
		if (h->at[i].standing != OPEN)
			continue;
		if (open < 2)
			at[open] = h->at[i].start;
		open++;
	}
	if (open == 0)
		why_set(why,
		        "the inode table is damaged beyond repair: inode chunk %llu is nowhere to "
		        "be found; restore "
		        "from a copy",
		        ULL(chunk));
	else if (open == 1)
		why_set(why,
		        "the inode table is damaged beyond repair: blocks 0x%llx+%u say they are "
		        "inode chunk %llu, but "
		        "something speaks against it; restore from a copy",
		        ULL(at[0]), PM_CHUNK_BLOCKS, ULL(chunk));
	else
		why_set(why,
		        "the inode table is damaged beyond repair: blocks 0x%llx+%u and 0x%llx+%u "
		        "both say they are inode "
		        "chunk %llu; restore from a copy",
		        ULL(at[0]), PM_CHUNK_BLOCKS, ULL(at[1]), PM_CHUNK_BLOCKS, ULL(chunk));
	return -EUCLEAN;
}

/* Nobody says how many chunks there are: up to the last one that is needed. What is not named, holds nothing that
 * should have a name, or is of an earlier pool, may be missing. */
static uint64_t count_places(const struct hunt *h)
{
	uint64_t n = h->named + 1;

	for (size_t i = 0; i < h->n; i++)
		if (h->at[i].standing != OUT && h->at[i].chunk >= n &&
		    !(h->at[i].old && !h->at[i].named))
			n = h->at[i].chunk + 1;
	return n;
}

/* A chunk at the end that no name leads to may be one that never was. */
static int judge_end(const struct hunt *h, uint64_t n, struct pm_error *why)
{
	for (uint64_t c = h->named + 1; c < n; c++) {
		const struct place *p = certain(h, c);

		if (!p->live || p->named)
			continue;
		why_set(why,
		        "the inode table is damaged beyond repair: nothing tells whether inode "
		        "chunk %llu, at blocks "
		        "0x%llx+%u, is part of it; restore from a copy",
		        ULL(c), ULL(p->start), PM_CHUNK_BLOCKS);
		return -EUCLEAN;
	}
	return 0;
}

static int make_table(const struct hunt *h, const struct pm_inode *in0, uint64_t **start,
                      uint64_t *n, struct pm_error *why)
{
	uint64_t chunks = h->told ? h->told : count_places(h), *at;
	bool agrees = h->told || in0->size == chunks * CHUNK_BYTES;
	int err;

	for (uint64_t c = 1; c < chunks; c++)
		if (!certain(h, c))
			return not_found(h, c, why);
	err = agrees ? 0 : judge_end(h, chunks, why);
	if (err)
		return err;
	at = calloc(chunks, sizeof(*at));
	if (!at)
		return -ENOMEM;
	for (uint64_t c = 0; c < chunks; c++)
		at[c] = certain(h, c)->start;
	*start = at;
	*n = chunks;
	return 0;
}

int table_find(struct pm_store *st, const struct pm_inode *in0, bool sound, uint64_t **start,
               uint64_t *n, struct pm_error *why)
{
	struct hunt h = { .st = st, .most = st->super.blocks / PM_CHUNK_BLOCKS };
	int err;

	if (sound && in0->size / CHUNK_BYTES < h.most)
		h.most = in0->size / CHUNK_BYTES;
	if (sound)
		h.told = h.most;
	if (!table_chunk_proves(st, st->super.data_start, 0) || (sound && !h.told)) {
		why_set(why, "the inode table is damaged beyond repair: its first chunk is; "
		             "restore from a copy");
		return -EUCLEAN;
	}
	err = find_places(&h);
	if (!err) {
		decide(&h);
		err = make_table(&h, in0, start, n, why);
	}
	free(h.by_start);
	free(h.at);
	return err;
}
