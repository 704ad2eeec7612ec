/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transfer.c - the bytes of one file, many pieces in flight
 *
 * Each slot owns a buffer, registered with both sessions, and goes round:
 *
 *   claim a range --> read --> (skip zeros) write a run --> next run ... --> claim the next range
 *
 * A local end is read and written at once, a server's end by callback. Slots do not wait for each
 * other, so pieces arrive in any order; the size is set at the end where the last bytes were a
 * hole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

#define GRAIN 4096u /* holes are looked for in such units */

struct slot {
	struct engine *e;
	uint8_t *buf;
	uint64_t off;
	size_t want, have; /* of the range; bytes read so far */
	size_t at, run;    /* next byte to look at; bytes being written */
	bool busy;
};

struct engine {
	struct berth *sessions[2];
	struct berth_mr *mr[2];
	unsigned nsessions;
	uint8_t *mem;
	struct slot slot[SLOTS];
	/* of the file under way: */
	const struct end *src, *dst;
	uint64_t size, next, end; /* next byte to claim; where the source turned out to end */
	uint64_t written_to;      /* behind the last byte written */
	bool holes, skip_zeros, depth_guard;
	struct progress *progress;
	unsigned busy;
	int err;
};

static void run_slots(struct engine *e);

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!*p && !memcmp(p, p + 1, len - 1));
}

/* Position and length of the next bytes worth writing; false: none. */
static bool next_run(struct slot *s)
{
	size_t end;

	if (!s->e->skip_zeros) {
		s->run = s->have - s->at;
		return s->run > 0;
	}
	while (s->at < s->have) {
		size_t n = s->have - s->at < GRAIN ? s->have - s->at : GRAIN;

		if (!all_zero(s->buf + s->at, n))
			break;
		s->at += n;
	}
	for (end = s->at; end < s->have; end += GRAIN) {
		size_t n = s->have - end < GRAIN ? s->have - end : GRAIN;

		if (all_zero(s->buf + end, n))
			break;
	}
	s->run = (end < s->have ? end : s->have) - s->at;
	return s->run > 0;
}

static void slot_rest(struct slot *s, int err)
{
	if (err && !s->e->err)
		s->e->err = err;
	s->busy = false;
	s->e->busy--;
}

static void slot_written(struct slot *s, size_t n)
{
	uint64_t upto;

	s->at += n;
	s->run -= n;
	upto = s->off + s->at;
	if (upto > s->e->written_to)
		s->e->written_to = upto;
}

static void write_done(void *arg, int err, const struct berth_reply *r);

/* Write until a callback is needed or the range is done. */
static void slot_write(struct slot *s)
{
	struct engine *e = s->e;

	while (!e->err && (s->run || next_run(s))) {
		ssize_t n;

		if (e->dst->file) {
			int err =
				berth_file_start_write(e->dst->file, s->off + s->at, s->buf + s->at,
			                               s->run, BERTH_UNSTABLE, write_done, s);

			if (err)
				slot_rest(s, err);
			return;
		}
		n = pwrite(e->dst->fd, s->buf + s->at, s->run, (off_t)(s->off + s->at));
		if (n < 0 && errno != EINTR) {
			slot_rest(s, -errno);
			return;
		}
		if (n > 0)
			slot_written(s, (size_t)n);
	}
	if (e->progress && !e->err)
		e->progress->bytes += s->have;
	slot_rest(s, 0);
}

static void write_done(void *arg, int err, const struct berth_reply *r)
{
	struct slot *s = arg;

	if (err) {
		slot_rest(s, err);
	} else {
		slot_written(s, r->count);
		slot_write(s);
	}
	run_slots(s->e);
}

static void source_ends(struct engine *e, uint64_t at)
{
	if (at < e->end)
		e->end = at;
}

static void read_done(void *arg, int err, const struct berth_reply *r);

static void slot_read(struct slot *s)
{
	struct engine *e = s->e;
	int err;

	if (e->src->file) {
		err = berth_file_start_read(e->src->file, s->off + s->have, s->buf + s->have,
		                            s->want - s->have, read_done, s);
		if (err)
			slot_rest(s, err);
		return;
	}
	while (s->have < s->want) {
		ssize_t n = pread(e->src->fd, s->buf + s->have, s->want - s->have,
		                  (off_t)(s->off + s->have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			slot_rest(s, -errno);
			return;
		}
		if (!n) {
			source_ends(e, s->off + s->have);
			break;
		}
		s->have += (size_t)n;
	}
	slot_write(s);
}

static void read_done(void *arg, int err, const struct berth_reply *r)
{
	struct slot *s = arg;

	if (err) {
		slot_rest(s, err);
	} else {
		s->have += r->count;
		if (s->have < s->want && !r->eof && r->count) {
			slot_read(s);
			return;
		}
		if (s->have < s->want)
			source_ends(s->e, s->off + s->have);
		slot_write(s);
	}
	run_slots(s->e);
}

/* The next data of a local source behind @off, by SEEK_DATA; sets the end of that extent. */
static uint64_t skip_hole(struct engine *e, uint64_t off, uint64_t *upto)
{
	off_t data, hole;

	*upto = e->size;
	if (e->src->file || !e->holes)
		return off;
	data = lseek(e->src->fd, (off_t)off, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? e->size : off;
	hole = lseek(e->src->fd, data, SEEK_HOLE);
	if (hole > data && (uint64_t)hole < e->size)
		*upto = (uint64_t)hole;
	return (uint64_t)data;
}

static bool claim(struct engine *e, struct slot *s)
{
	uint64_t upto, from;
	size_t max = SLOT_BYTES;

	if (e->err || e->next >= e->end)
		return false;
	from = skip_hole(e, e->next, &upto);
	if (e->progress && from > e->next)
		e->progress->bytes += from - e->next;
	e->next = from;
	if (e->next >= e->end)
		return false;
	for (unsigned i = 0; i < e->nsessions; i++)
		if (berth_io_max(e->sessions[i]) < max)
			max = berth_io_max(e->sessions[i]);
	s->off = e->next;
	s->want = upto - e->next < max ? (size_t)(upto - e->next) : max;
	s->have = s->at = s->run = 0;
	s->busy = true;
	e->next += s->want;
	e->busy++;
	return true;
}

/* Give idle slots work. Local ends finish at once inside slot_read(), so a slot may be claimed
 * again and again. */
static void run_slots(struct engine *e)
{
	if (e->depth_guard)
		return;
	e->depth_guard = true;
	for (unsigned i = 0; i < SLOTS; i++)
		while (!e->slot[i].busy && claim(e, &e->slot[i]))
			slot_read(&e->slot[i]);
	e->depth_guard = false;
}

int transfer_file(struct engine *e, const struct end *src, const struct end *dst, uint64_t size,
                  bool holes, bool skip_zeros, struct progress *p, uint64_t *copied)
{
	e->src = src;
	e->dst = dst;
	e->size = e->end = size;
	e->next = e->written_to = 0;
	e->holes = holes;
	e->skip_zeros = skip_zeros;
	e->progress = p;
	e->err = 0;
	run_slots(e);
	while (e->busy) {
		berth_wait_any(e->sessions, e->nsessions, -1);
		run_slots(e);
	}
	if (e->err)
		return e->err;
	*copied = e->end;
	return e->written_to < e->end; /* 1: the size is still to be set */
}

int engine_new(struct berth *src, struct berth *dst, struct engine **out)
{
	struct engine *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->mem = aligned_alloc(4096, (size_t)SLOTS * SLOT_BYTES);
	if (!e->mem) {
		free(e);
		return -ENOMEM;
	}
	if (src)
		e->sessions[e->nsessions++] = src;
	if (dst && dst != src)
		e->sessions[e->nsessions++] = dst;
	for (unsigned i = 0; i < e->nsessions; i++) /* only speed depends on it */
		berth_register(e->sessions[i], e->mem, (size_t)SLOTS * SLOT_BYTES, &e->mr[i]);
	for (unsigned i = 0; i < SLOTS; i++) {
		e->slot[i].e = e;
		e->slot[i].buf = e->mem + (size_t)i * SLOT_BYTES;
	}
	*out = e;
	return 0;
}

void engine_free(struct engine *e)
{
	if (!e)
		return;
	for (unsigned i = 0; i < e->nsessions; i++)
		berth_unregister(e->sessions[i], e->mr[i]);
	free(e->mem);
	free(e);
}
