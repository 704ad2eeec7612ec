/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * put.c - transfers through a mapping: which way they go, and the way out when it fails
 *
 *   put:  held by the file (F3) --> by RMA --pieces over, COMMIT answered--> done
 *                              \        \ error, layout lost
 *                               \--------+--> by WRITE --answered--> done
 *
 *   P1  Whatever goes wrong on the way by RMA, the whole put is written again from the application's buffer: its bytes
 *       are the same, so doing it twice does no harm. Only what WRITE then says is an error.
 *   P2  Where a call stays behind the writes before it, the COMMIT is sent without waiting for the completions;
 *       the put is done when both are there. Else the COMMIT follows the completions.
 *   P3  Where a read behind the writes makes them durable (read-after-write), it is asked for behind them if the provider
 *       keeps that order, else behind their completions; the put is done with it. Puts share such reads (push.c).
 *   P4  A put over the border of two layouts is two puts.
 *   P5  A get reads zeros where nothing was written, and lays over what it read whatever this file has put and
 *       not yet committed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/map.h"
#include "client/way.h"

#define BY (BERTH_BY_RMA | BERTH_BY_SERVER)

struct piece {
	struct tp_rma rma;
	struct put *p;
	struct op *op;
	uint64_t epoch, layout; /* by RMA */
	uint64_t off;           /* by the server */
	uint8_t *buf;
	size_t len;
};

static void settle(struct put *p);
static void by_server(struct put *p);
static void get_go(struct put *p);

/* --- endings --- */

static void tell(void *arg, int err, const struct berth_reply *r)
{
	struct put *p = arg;
	struct berth_map *m = p->m;
	struct berth_reply none = { 0 };

	(void)r;
	m->busy--;
	p->done(p->arg, err, &none);
	free(p);
	map_idle(m);
}

/* Callbacks come out of the session's round, and only there. */
static void over(struct put *p, int err)
{
	struct berth *b = p->m->f->b;
	struct op *op = b->in_callback ? NULL : op_hold(b, tell, p);

	if (op)
		op_finish(op, err);
	else
		tell(p, err, NULL);
}

static void put_over(struct put *p, int err)
{
	file_put_end(p->m->f);
	over(p, err);
}

static void commit_over(void *arg, int err, const struct berth_reply *r)
{
	(void)r;
	over(arg, err);
}

/* A server that promises less than it is asked for. */
static void commit_written(struct put *p)
{
	int err;

	file_put_end(p->m->f);
	err = file_start_commit(p->m->f, p->off, p->off + p->len, commit_over, p);
	if (err)
		over(p, err);
}

static void fall_back(struct put *p)
{
	p->m->f->b->count.puts_fallen_back++;
	p->err = 0;
	p->by_rma = p->queued = p->answered = p->wants_commit = false;
	p->wants_push = p->pushing = false;
	p->by_server = true;
	by_server(p);
}

/* The bytes are placed, and durable if that was asked for. */
static void placed(struct put *p)
{
	struct berth_file *f = p->m->f;
	int err = file_newer(f, p->off, p->len);

	if (!err && !(p->flags & BERTH_DURABLE))
		err = file_keep_put(f, p->m, p->epoch, p->layout, p->off, p->buf, p->len, p->flags & BERTH_COPY);
	else if (!err && !p->queued)
		p->m->touched = true;
	if (err)
		fall_back(p);
	else
		put_over(p, 0);
}

static void settle_put(struct put *p)
{
	if (!p->by_rma && !p->err && p->unstable && (p->flags & BERTH_DURABLE))
		commit_written(p);
	else if (!p->by_rma)
		put_over(p, p->err);
	else if (p->err)
		fall_back(p); /* P1 */
	else if (p->wants_push)
		push_queue(p);
	else if (p->wants_commit && !p->queued)
		map_queue_commit(p);
	else
		placed(p);
}

static void settle_get(struct put *p)
{
	if (p->err && !p->by_server) {
		p->by_server = true;
		get_go(p);
		return;
	}
	if (!p->err)
		file_overlay(p->m->f, p->off, p->buf, p->len); /* P5 */
	over(p, p->err);
}

static void settle(struct put *p)
{
	if (p->out || p->pushing || (p->queued && !p->answered))
		return;
	if (p->get)
		settle_get(p);
	else
		settle_put(p);
}

void put_committed(struct put *p, bool durable)
{
	p->answered = true;
	if (!durable)
		p->err = -EKEYEXPIRED;
	settle(p);
}

void put_pushed(struct put *p, int err)
{
	p->pushing = false;
	if (err && !p->err)
		p->err = err;
	settle(p);
}

static void piece_over(struct piece *pc, int err)
{
	struct put *p = pc->p;

	free(pc);
	if (err && !p->err)
		p->err = err;
	p->out--;
	settle(p);
}

static struct piece *piece_new(struct put *p, uint64_t off, size_t len)
{
	struct piece *pc = malloc(sizeof(*pc));

	if (!pc)
		return NULL;
	*pc = (struct piece){ .p = p, .off = off, .buf = p->buf + (off - p->off), .len = len };
	return pc;
}

/* --- by RMA --- */

static void rma_over(void *arg, int err, const struct berth_reply *r)
{
	struct piece *pc = arg;

	(void)r;
	layout_rma_over(pc->p->m, pc->epoch, pc->layout);
	piece_over(pc, err);
}

/* The transport's callback. */
static void rma_done(struct tp_rma *rma, int err)
{
	op_finish(container_of(rma, struct piece, rma)->op, err);
}

static void count(struct berth *b, const struct tp_rma *rma)
{
	if (rma->how == TP_RMA_READ) {
		b->count.rma_reads++;
		b->count.rma_read_bytes += rma->len;
	} else {
		b->count.rma_writes++;
		b->count.rma_write_bytes += rma->len;
	}
}

static int rma_start(struct put *p, struct layout *l, const struct extent *e, enum tp_rma_how how)
{
	struct berth *b = p->m->f->b;
	struct piece *pc = piece_new(p, e->off, (size_t)e->len);
	int err;

	if (!pc)
		return -ENOMEM;
	pc->epoch = l->epoch;
	pc->layout = l->id;
	pc->rma = (struct tp_rma){
		.how = how, .buf = pc->buf, .len = pc->len, .addr = e->addr, .key = e->key, .done = rma_done
	};
	pc->op = op_hold(b, rma_over, pc);
	err = pc->op ? tp_client_rma(layouts_client(b), &pc->rma) : -ENOMEM;
	if (err) {
		if (pc->op)
			op_drop(pc->op);
		free(pc);
		return err;
	}
	count(b, &pc->rma);
	layout_rma_begun(l);
	p->out++;
	return 0;
}

/* How the bytes become durable: *how, p->wants_push or p->wants_commit. */
static void choose_method(struct put *p, const struct layout *l, bool valid, enum tp_rma_how *how,
                          const struct tp_client_rma_info *info)
{
	enum way_durable way =
		way_durable(l->method, info->commit_complete, valid && p->off + p->len <= l->size);

	*how = TP_RMA_WRITE;
	if (!(p->flags & BERTH_DURABLE))
		return;
	p->wants_commit = way == WAY_BY_COMMIT;
	p->wants_push = way == WAY_BY_READ_AFTER_WRITE;
	if (way == WAY_BY_COMPLETION)
		*how = TP_RMA_WRITE_COMMIT;
}

/* Is the way by RMA open, and the one to take? */
static struct layout *choose(struct put *p, enum tp_rma_how *how, struct tp_client_rma_info *info)
{
	struct berth_map *m = p->m;
	struct layout *l = p->flags & BERTH_BY_SERVER ? NULL : map_layout_at(m, p->off);
	bool valid;

	if (!l || !l->rw || !extents_have_memory(&l->x, p->off, p->off + p->len, &valid))
		return NULL;
	tp_client_get_rma_info(layouts_client(m->f->b), info);
	choose_method(p, l, valid, how, info);
	if (p->flags & BERTH_BY_RMA || way_put_one_sided(info->provider, p->len, p->wants_commit, m->busy))
		return l;
	return NULL;
}

static bool by_rma(struct put *p)
{
	struct tp_client_rma_info info;
	enum tp_rma_how how;
	struct layout *l = choose(p, &how, &info);
	uint64_t at = p->off, end = p->off + p->len;
	struct extent e;

	if (!l)
		return false;
	p->by_rma = true;
	p->epoch = l->epoch;
	p->layout = l->id;
	p->out = 1;
	push_before(p->m->f->b, p->len);
	for (; at < end && !p->err; at += e.len) {
		extents_at(&l->x, at, end, &e);
		p->err = rma_start(p, l, &e, how);
		p->push_addr = e.addr + e.len - 1;
		p->push_key = e.key;
	}
	if (!p->err && p->wants_push && info.read_after_write) /* P3 */
		push_queue(p);
	if (!p->err && p->wants_commit && info.write_before_send) /* P2 */
		map_queue_commit(p);
	p->out--;
	settle(p);
	return true;
}

/* --- by the server --- */

static void write_over(void *arg, int err, const struct berth_reply *r);
static void read_over(void *arg, int err, const struct berth_reply *r);

static int server_piece(struct piece *pc)
{
	struct put *p = pc->p;
	struct berth_file *f = p->m->f;
	bool sync = p->flags & BERTH_DURABLE || p->by_server;

	if (p->get)
		return berth_start_read(f->b, &f->fh, pc->off, pc->buf, pc->len, read_over, pc);
	return file_put_write(f, pc->off, pc->buf, pc->len, sync ? BERTH_FILE_SYNC : BERTH_UNSTABLE, write_over,
	                      pc);
}

/* Answered for @n bytes: the rest, or the end. */
static void go_on(struct piece *pc, size_t n)
{
	int err = 0;

	pc->off += n;
	pc->buf += n;
	pc->len -= n;
	if (pc->len)
		err = server_piece(pc);
	if (err || !pc->len)
		piece_over(pc, err);
}

static void write_over(void *arg, int err, const struct berth_reply *r)
{
	struct piece *pc = arg;

	if (err) {
		piece_over(pc, err);
		return;
	}
	pc->p->unstable |= r->stable < BERTH_FILE_SYNC;
	go_on(pc, r->count);
}

static void read_over(void *arg, int err, const struct berth_reply *r)
{
	struct piece *pc = arg;

	if (err) {
		piece_over(pc, err);
	} else if (r->count < pc->len && (r->eof || !r->count)) {
		memset(pc->buf + r->count, 0, pc->len - r->count);
		piece_over(pc, 0);
	} else {
		go_on(pc, r->count);
	}
}

/* [off, off + len) in pieces that READ and WRITE take. */
static int server_range(struct put *p, uint64_t off, uint64_t len)
{
	size_t max = p->get ? p->m->f->b->rtmax : p->m->f->b->wtmax;

	for (uint64_t at = 0; at < len; at += max) {
		struct piece *pc = piece_new(p, off + at, len - at < max ? (size_t)(len - at) : max);
		int err = pc ? server_piece(pc) : -ENOMEM;

		if (err) {
			free(pc);
			return err;
		}
		p->out++;
	}
	return 0;
}

static void by_server(struct put *p)
{
	p->out = 1;
	p->err = server_range(p, p->off, p->len);
	p->out--;
	settle(p);
}

/* --- both --- */

static void part_over(void *arg, int err, const struct berth_reply *r)
{
	struct put *p = arg;

	(void)r;
	if (err && !p->err)
		p->err = err;
	if (!--p->out)
		put_over(p, p->err);
}

static struct put *part(struct put *p, uint64_t off, uint64_t end)
{
	struct put *q = calloc(1, sizeof(*q));

	if (q)
		*q = (struct put){ .m = p->m, .off = off, .buf = p->buf + (off - p->off), .len = (size_t)(end - off),
			           .flags = p->flags, .done = part_over, .arg = p };
	return q;
}

/* P4. Until both are over the file counts @p as well. */
static bool in_parts(struct put *p)
{
	uint64_t end = p->off + p->len, border = p->flags & BERTH_BY_SERVER ? end : map_border(p->m, p->off, end);
	struct put *a = border < end ? part(p, p->off, border) : NULL;
	struct put *b = a ? part(p, border, end) : NULL;

	if (!b) {
		free(a);
		return false;
	}
	file_put_begin(p->m->f);
	p->m->busy += 2;
	p->out = 2;
	put_go(a);
	put_go(b);
	return true;
}

void put_go(struct put *p)
{
	if (in_parts(p))
		return;
	if (p->flags & BERTH_COPY && !file_may_copy(p->m->f, p->len))
		p->flags |= BERTH_DURABLE;
	file_put_begin(p->m->f);
	if (!by_rma(p))
		by_server(p);
}

static bool get_by_rma(const struct put *p, const struct extent *e)
{
	struct tp_client_rma_info info;

	if (e->state != EXTENT_VALID || p->flags & BERTH_BY_RMA)
		return e->state == EXTENT_VALID;
	tp_client_get_rma_info(layouts_client(p->m->f->b), &info);
	return way_get_one_sided(info.provider, (size_t)e->len);
}

/* The piece at @at, its way, and where the next one begins. */
static int get_piece(struct put *p, uint64_t *at)
{
	struct layout *l = p->by_server || p->flags & BERTH_BY_SERVER ? NULL : map_layout_at(p->m, *at);
	uint64_t end = p->off + p->len, off = *at;
	struct extent e;

	if (!l || !extents_at(&l->x, off, end, &e)) {
		uint64_t max = p->m->f->b->rtmax;

		e.len = l || end - off < max ? end - off : max;
		*at += e.len;
		return server_range(p, off, e.len);
	}
	*at += e.len;
	if (get_by_rma(p, &e))
		return rma_start(p, l, &e, TP_RMA_READ);
	if (e.state == EXTENT_VALID || e.state == EXTENT_UNKNOWN)
		return server_range(p, off, e.len);
	memset(p->buf + (off - p->off), 0, (size_t)e.len);
	return 0;
}

static void get_go(struct put *p)
{
	uint64_t at = p->off;

	p->out = 1;
	p->err = 0;
	while (at < p->off + p->len && !p->err)
		p->err = get_piece(p, &at);
	p->out--;
	settle(p);
}

static int start(struct berth_map *m, bool get, uint64_t off, void *buf, size_t len, int flags, berth_done *done,
                 void *arg)
{
	int known = get ? BY : BY | BERTH_DURABLE | BERTH_COPY;
	struct put *p;

	if (!len || off < m->off || off >= m->end || len > m->end - off || flags & ~known || (flags & BY) == BY)
		return -EINVAL;
	if (!get && !(m->flags & BERTH_MAP_WRITE))
		return -EBADF;
	if (m->unmapped)
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct put){
		.m = m, .get = get, .off = off, .buf = buf, .len = len, .flags = flags, .done = done, .arg = arg
	};
	m->busy++;
	if (get)
		get_go(p);
	else if (file_holds(m->f))
		TAILQ_INSERT_TAIL(&m->f->held_puts, p, link);
	else
		put_go(p);
	return 0;
}

int berth_map_start_put(struct berth_map *m, uint64_t off, const void *buf, size_t len, int flags,
                        berth_done *done, void *arg)
{
	return start(m, false, off, (void *)(uintptr_t)buf, len, flags, done, arg);
}

int berth_map_start_get(struct berth_map *m, uint64_t off, void *buf, size_t len, int flags, berth_done *done,
                        void *arg)
{
	return start(m, true, off, buf, len, flags, done, arg);
}

int berth_put(struct berth_map *m, const void *buf, size_t len, uint64_t off, int flags)
{
	struct waiting w = { 0 };

	if (m->f->b->in_progress)
		return -EDEADLK;
	return sync_wait(m->f->b, &w, berth_map_start_put(m, off, buf, len, flags, sync_done, &w));
}

int berth_get(struct berth_map *m, void *buf, size_t len, uint64_t off, int flags)
{
	struct waiting w = { 0 };

	if (m->f->b->in_progress)
		return -EDEADLK;
	return sync_wait(m->f->b, &w, berth_map_start_get(m, off, buf, len, flags, sync_done, &w));
}
