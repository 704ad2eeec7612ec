/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extent.c - the pieces of a layout
 *
 *   E1  Extents lie in order without gaps from off to end; none is empty.
 *   E2  Neighbours that say the same and lie in one piece of memory are one extent: a log that is committed record
 *       by record has two.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/extent.h"

static bool has_memory(const struct extents *x, const struct extent *e)
{
	return e->state == EXTENT_VALID || (x->addressed && e->state != EXTENT_HOLE);
}

static uint64_t end_of(const struct extent *e)
{
	return e->off + e->len;
}

int extents_set(struct extents *x, uint64_t off, uint64_t end, bool addressed, const struct extent *e,
                unsigned n)
{
	struct extent *copy;
	uint64_t at = off;

	for (unsigned i = 0; i < n; i++) {
		if (e[i].off != at || !e[i].len || e[i].len > end - at || e[i].state > EXTENT_HOLE)
			return -EPROTO;
		at += e[i].len;
	}
	if (at != end || off >= end)
		return -EPROTO;
	copy = malloc(n * sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, e, n * sizeof(*copy));
	*x = (struct extents){ .off = off, .end = end, .e = copy, .n = n, .cap = n, .addressed = addressed };
	return 0;
}

void extents_free(struct extents *x)
{
	free(x->e);
	memset(x, 0, sizeof(*x));
}

/* The extent that holds @off, which is covered. */
static unsigned find(const struct extents *x, uint64_t off)
{
	unsigned lo = 0, hi = x->n - 1;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (end_of(&x->e[mid]) <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool extents_at(const struct extents *x, uint64_t off, uint64_t end, struct extent *piece)
{
	const struct extent *e;
	uint64_t in;

	if (!x->n || off < x->off || off >= x->end || end <= off)
		return false;
	e = &x->e[find(x, off)];
	in = off - e->off;
	*piece = *e;
	piece->off = off;
	piece->len = (end < end_of(e) ? end : end_of(e)) - off;
	if (has_memory(x, e))
		piece->addr += in;
	return true;
}

bool extents_have_memory(const struct extents *x, uint64_t off, uint64_t end, bool *valid)
{
	struct extent p;

	*valid = true;
	for (; off < end; off += p.len) {
		if (!extents_at(x, off, end, &p) || !has_memory(x, &p))
			return false;
		*valid &= p.state == EXTENT_VALID;
	}
	return true;
}

static bool same(const struct extents *x, const struct extent *a, const struct extent *b)
{
	if (a->state != b->state)
		return false;
	return !has_memory(x, a) || (a->key == b->key && a->addr + a->len == b->addr);
}

static void merge(struct extents *x)
{
	unsigned to = 0;

	for (unsigned i = 1; i < x->n; i++) {
		if (same(x, &x->e[to], &x->e[i]))
			x->e[to].len += x->e[i].len;
		else
			x->e[++to] = x->e[i];
	}
	x->n = x->n ? to + 1 : 0;
}

/* Let an extent begin at @at, which is covered. There is room. */
static void split(struct extents *x, uint64_t at)
{
	unsigned i = find(x, at);
	struct extent *e = &x->e[i];

	if (e->off == at)
		return;
	memmove(e + 2, e + 1, (x->n - i - 1) * sizeof(*e));
	e[1] = e[0];
	e[1].off = at;
	e[1].len = end_of(&e[0]) - at;
	if (has_memory(x, e))
		e[1].addr += at - e[0].off;
	e[0].len = at - e[0].off;
	x->n++;
}

static int make_room(struct extents *x, unsigned more)
{
	struct extent *e;

	if (x->n + more <= x->cap)
		return 0;
	e = realloc(x->e, (x->n + more) * 2 * sizeof(*e));
	if (!e)
		return -ENOMEM;
	x->e = e;
	x->cap = (x->n + more) * 2;
	return 0;
}

int extents_committed(struct extents *x, uint64_t off, uint64_t end, uint64_t block)
{
	bool valid;
	int err;

	off -= off % block;
	end += (block - end % block) % block;
	off = off < x->off ? x->off : off;
	end = end > x->end ? x->end : end;
	if (off >= end || (extents_have_memory(x, off, end, &valid) && valid))
		return 0;
	err = make_room(x, 2);
	if (err)
		return err;
	split(x, off);
	if (end < x->end)
		split(x, end);
	for (unsigned i = find(x, off); i < x->n && x->e[i].off < end; i++)
		x->e[i].state = has_memory(x, &x->e[i]) ? EXTENT_VALID : EXTENT_UNKNOWN;
	merge(x);
	return 0;
}

void extents_doubt(struct extents *x)
{
	for (unsigned i = 0; i < x->n; i++)
		if (x->e[i].state != EXTENT_VALID)
			x->e[i].state = EXTENT_UNKNOWN;
	merge(x);
}
