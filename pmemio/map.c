/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * map.c - where the bytes of a file are, or will be
 *
 * A map for reading takes what readers may see and zeros for the rest. A map for writing takes new
 * blocks where the file has none, as long runs near the block before them; it takes all it needs or
 * nothing. Both pin: see file.h for what that keeps in place. Only what is cheap happens under the
 * lock: at most the two ends of the range and the old end of file are zeroed, a block each.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

/* --- building a map --- */

struct mapper {
	struct pm_store *st;
	struct file *f;
	struct pm_pin *pin;
	const struct pm_inode *in;
	struct pm_map *m;
	unsigned cap;
	uint64_t off, end; /* bytes */
	uint64_t goal;     /* block behind the one mapped last */
	unsigned flags;    /* BLK_ALIGN_2M */
	unsigned pieces, most; /* leases: end behind so many, not 0 */
	struct pm_worker *w;   /* NULL: alone */
	struct pm_pin *busy;   /* -EINPROGRESS: who is in the way */
};

/* The piece that ends before block @b was the last: the range ends there. */
static bool enough(struct mapper *k, uint64_t *b, uint64_t n)
{
	*b += n;
	if (!k->most || ++k->pieces < k->most || *b * PM_BLOCK >= k->end)
		return false;
	k->end = *b * PM_BLOCK;
	return true;
}

static int seg_add(struct mapper *k, uint8_t *at, uint64_t len)
{
	struct pm_map *m = k->m;
	struct iovec *last = m->nseg ? &m->seg[m->nseg - 1] : NULL, *heap;

	if (last && (uint8_t *)last->iov_base + last->iov_len == at) {
		last->iov_len += len;
		return 0;
	}
	if (m->nseg == k->cap) {
		heap = realloc(k->pin->heap, 2 * k->cap * sizeof(*heap));
		if (!heap)
			return -ENOMEM;
		if (!k->pin->heap)
			memcpy(heap, m->few, m->nseg * sizeof(*heap));
		m->seg = k->pin->heap = heap;
		k->cap *= 2;
	}
	m->seg[m->nseg++] = (struct iovec){ at, len };
	return 0;
}

/* Blocks [b, b + n) of the file are at @pblk, or zeros (0). */
static int seg_blocks(struct mapper *k, uint64_t b, uint64_t n, uint64_t pblk)
{
	uint64_t from = max64(b * PM_BLOCK, k->off), to = min64((b + n) * PM_BLOCK, k->end);
	int err = 0;

	if (pblk)
		return seg_add(k, (uint8_t *)data_ptr(k->st, pblk) + (from - b * PM_BLOCK),
		               to - from);
	while (!err && from < to) {
		uint64_t part = min64(to - from, k->st->zero.len);

		err = seg_add(k, k->st->zero.base, part);
		from += part;
	}
	return err;
}

static struct pm_pin *pin_new(struct mapper *k, bool write)
{
	struct pm_pin *p = malloc(sizeof(*p)); /* calloc() passes by the thread's own free memory */

	if (!p)
		return NULL;
	*p = (struct pm_pin){ .st = k->st,
		              .f = k->f,
		              .off = k->off,
		              .len = k->end - k->off,
		              .cut = NO_CUT,
		              .write = write,
		              .map = k->m };
	k->pin = p;
	k->m->pin = p;
	k->m->seg = k->m->few;
	k->m->nseg = 0;
	k->cap = PM_MAP_INLINE;
	return p;
}

static void pin_link(struct mapper *k)
{
	struct pm_pin *p = k->pin;

	p->serial = ++p->f->serial;
	LIST_INSERT_HEAD(&p->f->pins, p, link);
	COUNT(k->st, stats_of(k->st, k->w), pins, 1);
}

/* --- reading --- */

static int map_existing(struct mapper *k)
{
	uint64_t b = k->off / PM_BLOCK, end = blk_up(k->end);

	while (b < end) {
		unsigned i = fresh_at(k->f, b);
		const struct fresh *x = i < k->f->nfresh ? &k->f->fresh[i] : NULL;
		uint64_t n, pblk = 0;
		struct ext e;
		int err;

		if (x && x->lblk <= b && x->cow)
			x = NULL;
		if (x && x->lblk <= b) {
			n = min64(x->lblk + x->len, end) - b;
			if (x->state == DIRTY)
				pblk = x->pblk + (b - x->lblk);
		} else {
			err = ext_find(k->st, NULL, k->in, b, &e);
			if (err && err != -ENOENT)
				return err;
			n = min64(e.len - (b - e.lblk), end - b);
			if (x)
				n = min64(n, x->lblk - b);
			if (!err && !e.unwritten)
				pblk = e.pblk + (b - e.lblk);
			if (pblk && k->st->opts.verify_reads && sum_on(k->st)) {
				err = sum_verify(k->st, k->in, b, pblk, n);
				if (err)
					return err;
			}
		}
		err = seg_blocks(k, b, n, pblk);
		if (err)
			return err;
		if (enough(k, &b, n))
			break;
	}
	return 0;
}

static void map_done(struct mapper *k, uint64_t size)
{
	k->pin->len = k->m->len = k->end - k->off;
	k->m->eof = k->end >= size;
	file_attr(k->st, k->in, &k->m->attr);
	pin_link(k);
}

/* The file to be mapped. */
static int map_file(struct mapper *k, struct pm_id id)
{
	int err = 0;

	k->in = file_regular(k->st, id, &err);
	if (!k->in)
		return err;
	k->f = file_get(k->st, id);
	return k->f ? 0 : k->w ? NEEDS_ALL : -ENOMEM;
}

static int map_read(struct mapper *k, struct pm_id id, uint64_t off, uint32_t len)
{
	struct pm_store *st = k->st;
	uint64_t size;
	int err = map_file(k, id);

	if (err)
		return err;
	size = file_size(k->f, k->in);
	k->off = min64(off, size);
	k->end = k->off + min64(len, size - k->off);
	err = -ENOMEM;
	if (pin_new(k, false)) {
		err = map_existing(k);
		if (!err)
			err = faults_probe(st, k->m->seg, k->m->nseg, false);
		if (!err) {
			map_done(k, size);
			return 0;
		}
		free(k->pin->heap);
		free(k->pin);
	}
	file_rest(st, k->f);
	return err;
}

int pm_map_read(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m)
{
	struct mapper k = { .st = st, .m = m, .w = inode_lock(st, id.ino) };
	int err = map_read(&k, id, off, len);

	if (err == NEEDS_ALL) {
		inode_alone(st, &k.w, id.ino);
		err = map_read(&k, id, off, len);
	}
	inode_unlock(st, k.w, id.ino);
	return err;
}

/* --- writing --- */

/* The write that has to end before this range can be mapped, if any. */
static struct pm_pin *conflict(const struct mapper *k)
{
	uint64_t b = k->off / PM_BLOCK, end = blk_up(k->end);
	struct pm_pin *p;

	for (unsigned i = fresh_at(k->f, b); i < k->f->nfresh && k->f->fresh[i].lblk < end; i++) {
		if (k->f->fresh[i].state == FILLING)
			return k->f->fresh[i].pin;
	}
	LIST_FOREACH (p, &k->f->pins, link) { /* S3 */
		if (sum_on(k->st) && p->write && !p->committed && p->off / PM_BLOCK < end &&
		    blk_up(p->off + p->len) > b)
			return p;
	}
	LIST_FOREACH (p, &k->f->pins, link) { /* one that counts on the tree as it is */
		if (p->exact && !p->committed)
			return p;
	}
	LIST_FOREACH (p, &k->f->pins, link) { /* one that will zero what it placed behind its cut */
		uint64_t at = p->cut / PM_BLOCK;

		if (p->write && !p->committed && p->cut % PM_BLOCK && p->off + p->len > p->cut &&
		    p->off < (at + 1) * PM_BLOCK && at >= b && at < end)
			return p;
	}
	return NULL;
}

static bool partly(const struct mapper *k, uint64_t b)
{
	return b * PM_BLOCK < k->off || (b + 1) * PM_BLOCK > k->end;
}

/* [b, b + n) is at @pblk and new to readers: one entry for what is wholly covered, one for each
 * end. */
static int add_fresh(struct mapper *k, uint64_t b, uint64_t n, uint64_t pblk, bool owned, bool cow)
{
	uint64_t end = b + n;

	if (fresh_reserve(k->f, 3)) {
		if (!owned)
			blk_give(k->st, pblk, n);
		return -ENOMEM;
	}
	while (b < end) {
		struct fresh x = { .lblk = b,
			           .pblk = pblk,
			           .len = 1,
			           .pin = k->pin,
			           .owned = owned,
			           .cow = cow,
			           .state = ZEROED };

		if (!partly(k, b)) {
			x.state = FILLING;
			x.len = end - b;
			if (x.len > 1 && partly(k, end - 1))
				x.len--;
		}
		fresh_insert(k->st, k->f, x);
		b += x.len;
		pblk += x.len;
	}
	return 0;
}

/* Map the next piece of [b, end), all of one kind; *n blocks. */
static int map_piece(struct mapper *k, uint64_t b, uint64_t end, uint64_t *n)
{
	unsigned i = fresh_at(k->f, b);
	const struct fresh *x = i < k->f->nfresh ? &k->f->fresh[i] : NULL;
	struct blk_run run;
	struct ext e;
	uint64_t pblk;
	int err;

	if (x && x->lblk <= b) {
		*n = min64(x->lblk + x->len, end) - b;
		pblk = x->pblk + (b - x->lblk);
		k->goal = pblk + *n;
		return seg_blocks(k, b, *n, pblk);
	}
	err = ext_find(k->st, NULL, k->in, b, &e);
	if (err && err != -ENOENT)
		return err;
	*n = min64(e.len - (b - e.lblk), end - b);
	if (x)
		*n = min64(*n, x->lblk - b);
	if (err || (sum_moves(k->st) && !e.unwritten)) {
		bool cow = !err;

		if (k->w && (quota_limits(k->f->quota[0]) || quota_limits(k->f->quota[1])))
			return NEEDS_ALL;
		if (!cow && !file_may_grow(k->f, *n))
			return -EDQUOT;
		err = blk_take(k->st, k->goal, *n, b % 512, k->flags, &run);
		if (err)
			return err;
		pblk = run.start;
		*n = run.len;
		err = add_fresh(k, b, *n, pblk, false, cow);
	} else {
		pblk = e.pblk + (b - e.lblk);
		if (e.unwritten)
			err = add_fresh(k, b, *n, pblk, true, false);
	}
	k->goal = pblk + *n;
	return err ? err : seg_blocks(k, b, *n, pblk);
}

/* Where the block before the first one is: new ones should follow it. */
static void find_goal(struct mapper *k)
{
	uint64_t b = k->off / PM_BLOCK;
	struct ext e;
	unsigned i;

	if (!b--)
		return;
	i = fresh_at(k->f, b);
	if (i < k->f->nfresh && k->f->fresh[i].lblk <= b)
		k->goal = k->f->fresh[i].pblk + (b - k->f->fresh[i].lblk) + 1;
	else if (!ext_find(k->st, NULL, k->in, b, &e))
		k->goal = e.pblk + (b - e.lblk) + 1;
}

static void unmap(struct mapper *k)
{
	for (unsigned i = k->f->nfresh; i-- > 0;) {
		struct fresh x = k->f->fresh[i];

		if (x.pin != k->pin)
			continue;
		fresh_remove(k->st, k->f, i);
		if (!x.owned)
			blk_give(k->st, x.pblk, x.len);
	}
}

/* Zero the blocks that this map made ZEROED, or copy there what they will replace. */
static int fill_ends(struct mapper *k)
{
	uint64_t end = blk_up(k->end);
	int err = 0;

	for (unsigned i = fresh_at(k->f, k->off / PM_BLOCK);
	     !err && i < k->f->nfresh && k->f->fresh[i].lblk < end; i++) {
		struct fresh *x = &k->f->fresh[i];

		if (x->state != ZEROED || x->pin != k->pin)
			continue;
		if (x->cow)
			err = sum_copy(k->st, k->in, x->lblk, x->pblk);
		else
			k->st->media.ops->zero(&k->st->media, data_ptr(k->st, x->pblk),
			                       PM_BLOCK);
	}
	return err;
}

/* What is ZEROED belongs to whoever writes there from now on. */
static void share_ends(struct mapper *k)
{
	uint64_t end = blk_up(k->end);

	for (unsigned i = fresh_at(k->f, k->off / PM_BLOCK);
	     i < k->f->nfresh && k->f->fresh[i].lblk < end; i++) {
		struct fresh *x = &k->f->fresh[i];

		if (x->state == ZEROED && x->pin == k->pin)
			x->pin = NULL;
	}
}

static int map_new(struct mapper *k)
{
	uint64_t b = k->off / PM_BLOCK, end = blk_up(k->end), size, n = 0;
	uint8_t *tail = NULL;
	int err = 0;

	if (k->off == k->end)
		end = b;
	size = file_size(k->f, k->in);
	if (k->end > size) {
		err = file_trim(k->st, k->f, k->in);
		if (!err)
			err = file_tail(k->st, k->f, k->in, &tail);
		if (err)
			return err;
	}
	if (size >= 1u << 20 || k->end - k->off >= 1u << 20)
		k->flags = BLK_ALIGN_2M;
	find_goal(k);
	while (!err && b < end) {
		err = map_piece(k, b, end, &n);
		if (!err && enough(k, &b, n))
			break;
	}
	if (!err)
		err = faults_probe(k->st, k->m->seg, k->m->nseg, false);
	if (!err)
		err = fill_ends(k);
	if (!err && !k->most)
		err = promise_make(k->pin, k->in, k->w, &k->busy);
	if (!err && sum_stays(k->st))
		err = sum_open(k->st, k->f, k->in, k->off, k->end);
	if (err) {
		promise_end(k->pin);
		unmap(k);
		return err;
	}
	share_ends(k);
	map_done(k, size);
	if (tail)
		file_zero(k->st, k->f, k->pin, size, blk_up(size) * PM_BLOCK, tail);
	return 0;
}

/* @w is called when @p is over. */
static int wait_for(struct pm_pin *p, struct pm_wait *w)
{
	w->next = p->waiters;
	p->waiters = w;
	return -EINPROGRESS;
}

static int map_write(struct mapper *k, struct pm_id id, struct pm_wait *w)
{
	struct pm_store *st = k->st;
	struct pm_pin *p;
	int err = journal_error(st); /* it could not be committed, and what a failed transaction took stays its own */

	if (err)
		return err;
	files_sweep(st);
	err = map_file(k, id);
	if (err)
		return err;
	p = conflict(k);
	if (p)
		return wait_for(p, w);
	err = -ENOMEM;
	if (pin_new(k, true)) {
		err = map_new(k);
		if (!err)
			return 0;
		if (err == -EINPROGRESS)
			wait_for(k->busy, w);
		else if (err == -ENOSPC && journal_want_space(st, w))
			err = -EINPROGRESS;
		free(k->pin->heap);
		free(k->pin);
	}
	file_rest(st, k->f);
	return err;
}

int pm_map_write(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m,
                 struct pm_wait *w)
{
	struct mapper k = { .st = st, .m = m, .off = off, .end = off + len };
	int err;

	if (off > PM_FILE_MAX || len > PM_FILE_MAX - off)
		return -EFBIG;
	if (st->read_only)
		return -EROFS;
	k.w = inode_lock_write(st, id.ino);
	err = map_write(&k, id, w);
	if (err == NEEDS_ALL) {
		struct mapper again = { .st = st, .m = m, .off = off, .end = off + len };

		inode_alone(st, &k.w, id.ino);
		err = map_write(&again, id, w);
	}
	inode_unlock(st, k.w, id.ino);
	return err;
}

/* --- leases --- */

int map_lease(struct pm_store *st, struct pm_worker *w, struct file *f, const struct pm_inode *in,
              const struct lease_want *lw, struct pm_map *m, struct pm_pin **busy)
{
	struct mapper k = {
		.st = st, .w = w, .f = f, .in = in, .m = m, .off = lw->off, .end = lw->end, .most = lw->most
	};
	int err;

	*busy = lw->write ? conflict(&k) : NULL;
	if (*busy)
		return -EINPROGRESS;
	if (!pin_new(&k, lw->write))
		return -ENOMEM;
	err = lw->write ? map_new(&k) : map_existing(&k);
	if (!err && !lw->write) {
		err = faults_probe(st, m->seg, m->nseg, false);
		if (!err)
			map_done(&k, file_size(f, in));
	}
	if (err) {
		free(k.pin->heap);
		free(k.pin);
		m->pin = NULL;
	}
	return err;
}
