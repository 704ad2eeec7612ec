/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_xfer.c - the payload of a call: between chunks of the peer and segments of the program
 *
 * A transfer is cut where either side has a seam, and where the provider takes no more at once. What is not registered is
 * staged. How many operations are out at a time is bound: reads by what the peer has said, writes by MAX_WRITES.
 * A chunk in memory that is shared with the peer (rdv.shared) needs none of that: its bytes are copied at once.
 */
#include "transport/fabric_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WRITES 64
#define STAGE_MAX  ((size_t)256 << 10)

enum { PAGE = 4096, TCP_HEAD = 16, READ_FIRST = 64, READ_LONG = 32 << 10 };

/* --- local memory and operations --- */

static bool within(const struct fbuf *b, const void *p, size_t *len)
{
	size_t at;

	if (!b || (uintptr_t)p < (uintptr_t)b->p)
		return false;
	at = (uintptr_t)p - (uintptr_t)b->p;
	if (at >= b->cap)
		return false;
	if (*len > b->cap - at)
		*len = b->cap - at;
	return true;
}

/* Local memory of a transfer is the pool's, or a buffer of the call itself. */
static bool local_desc(struct fconn *conn, const struct fcall *fc, const void *p, size_t *len,
                       void **desc)
{
	const struct fbuf *own[] = { fc->reply, fc->head, fc->whole };

	if (fregions_desc(conn->l, p, len, desc))
		return true;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (within(own[i], p, len)) {
			*desc = own[i]->desc;
			return true;
		}
	return false;
}

static void rma_free(struct frma *r)
{
	fbuf_put(r->stage);
	free(r);
}

static void count_payload(struct fconn *conn, const struct frma *r)
{
	struct tp_stats *st = &conn->base.svc->stats;

	rpc_count(r->stage ? &st->payload_staged_bytes : &st->payload_placed_bytes, r->len);
}

static void rma_done(struct fab_op *op, int err)
{
	struct frma *r = container_of(op, struct frma, op);
	struct fconn *conn = r->conn;
	struct fxfer *x = r->x;

	LIST_REMOVE(r, link);
	if (!conn) { /* orphaned: nobody waits for it */
		rma_free(r);
		return;
	}
	x->out--;
	conn->nreads -= x->write ? 0 : 1;
	fconn_back(conn);
	if (err) {
		rpc_count(&conn->base.svc->stats.provider_errors, 1);
		fconn_kill(conn);
	}
	if (err || conn->state == FCONN_DYING) {
		rma_free(r);
		return;
	}
	if (r->stage && !x->write)
		rpc_copy_in(conn->base.svc, r->iov, r->n, 0, r->stage->p, r->len);
	if (x->counted)
		count_payload(conn, r);
	LIST_INSERT_HEAD(&conn->l->free_rma, r, link);
	fbuf_put(r->stage);
	r->stage = NULL;
	if (x->left)
		fconn_dirty(conn);
	else if (!x->out)
		x->done(x);
}

static struct frma *rma_get(struct fconn *conn)
{
	struct frma *r = LIST_FIRST(&conn->l->free_rma);

	if (r)
		LIST_REMOVE(r, link);
	else
		r = malloc(sizeof(*r));
	if (r)
		*r = (struct frma){ .op.done = rma_done, .conn = conn };
	return r;
}

/* The next piece of a transfer: one remote segment, as many local ones as the provider takes at a
 * time. */
struct piece {
	struct frma *r;
	void *desc[FAB_MAX_IOV];
	struct iovec wire[1]; /* what is staged */
	const struct iovec *iov;
	unsigned niov;
	size_t off;
};

static int piece_stage(struct fconn *conn, struct piece *p, const struct fxfer *x, size_t len)
{
	struct frma *r = p->r;

	len = len < STAGE_MAX ? len : STAGE_MAX;
	r->stage = fbuf_get(conn->pool, len);
	if (!r->stage)
		return -ENOMEM;
	r->iov[0].iov_len = len;
	r->n = 1;
	r->len = len;
	if (x->write)
		memcpy(r->stage->p, r->iov[0].iov_base, len);
	p->wire[0] = (struct iovec){ r->stage->p, len };
	p->desc[0] = r->stage->desc;
	return 0;
}

/* Fill p->r from the transfer's local side, at most @limit bytes. Leaves the transfer as it is. */
static int piece_cut(struct fconn *conn, struct piece *p, const struct fxfer *x, size_t limit)
{
	const struct fcall *fc = fcall_of(x->call);
	struct frma *r = p->r;

	p->iov = x->iov;
	p->niov = x->niov;
	p->off = x->off;
	while (r->len < limit && p->niov && r->n < conn->l->fab->iov_max) {
		size_t len = p->iov->iov_len - p->off;
		uint8_t *at = (uint8_t *)p->iov->iov_base + p->off;
		bool known;

		if (!len) {
			p->iov++;
			p->niov--;
			p->off = 0;
			continue;
		}
		if (len > limit - r->len)
			len = limit - r->len;
		known = local_desc(conn, fc, at, &len, &p->desc[r->n]);
		if (!known && r->n)
			break;
		r->iov[r->n] = (struct iovec){ at, len };
		if (!known) {
			int err = piece_stage(conn, p, x, len);

			p->off += r->len;
			return err;
		}
		r->n++;
		r->len += len;
		p->off += len;
	}
	return r->n ? 0 : -EINVAL;
}

/* The provider tcp sends what is read behind a head of its own of 16 bytes, both copied to the beginning of a page or right
 * behind what was sent before. Where the destination is 1 to 31 bytes further into its page than the source, processors
 * with fast short "rep movsb" may copy very slowly (AMD's). So of much that begins with a page little is read first, if
 * nothing else is on its way, which would have it elsewhere. */
static size_t read_limit(const struct fconn *conn, const struct fxfer *x, size_t limit)
{
	uint64_t into = (x->seg->offset + x->at) % PAGE;

	if (!conn->l->fab->tcp || conn->nreads || limit < READ_LONG || (into >= TCP_HEAD && into <= PAGE - TCP_HEAD))
		return limit;
	return READ_FIRST;
}

static int xfer_post(struct fconn *conn, struct fxfer *x)
{
	struct fab *f = conn->l->fab;
	struct piece p = { .r = rma_get(conn) };
	size_t limit = f->msg_max;
	const struct iovec *iov;
	int err;

	if (!p.r)
		return -EAGAIN;
	while (x->nseg && x->at == x->seg->length) {
		x->seg++;
		x->nseg--;
		x->at = 0;
	}
	if (!x->nseg) {
		rma_free(p.r);
		return -EINVAL; /* checked when the transfer was made */
	}
	if (limit > x->seg->length - x->at)
		limit = (size_t)(x->seg->length - x->at);
	if (limit > x->left)
		limit = (size_t)x->left;
	if (!x->write)
		limit = read_limit(conn, x, limit);
	p.r->x = x;
	LIST_INSERT_HEAD(&conn->rmas, p.r, link);
	err = piece_cut(conn, &p, x, limit);
	if (!err) {
		iov = p.r->stage ? p.wire : p.r->iov;
		err = (x->write ? fab_write : fab_read)(f, conn->ep, iov, p.desc, p.r->n,
		                                        conn->addr, x->seg->offset + x->at,
		                                        x->seg->handle, &p.r->op);
	}
	if (err) {
		LIST_REMOVE(p.r, link);
		rma_free(p.r);
		return err == -ENOMEM ? -EAGAIN : err;
	}
	x->at += p.r->len;
	x->iov = p.iov;
	x->niov = p.niov;
	x->off = p.off;
	x->left -= p.r->len;
	x->out++;
	conn->nreads += x->write ? 0 : 1;
	fconn_out(conn);
	conn->l->posts++;
	return 0;
}

/* Where the chunk's byte @skip is, if all @len from there on are in shared memory; else NULL. */
static uint8_t *shared_at(const struct fconn *conn, const struct rr_seg *seg, unsigned n, uint64_t skip, uint64_t len)
{
	const struct rdv *r = &conn->rdv;

	if (n != 1 || seg->handle != RDV_SHARED || !r->shared || seg->offset > r->shared_len)
		return NULL;
	if (skip > r->shared_len - seg->offset || len > r->shared_len - seg->offset - skip)
		return NULL;
	return r->shared + seg->offset + skip;
}

bool fxfer_shared(struct rpc_call *c, const struct fxfer *x, const struct rr_chunk *ch, uint64_t skip,
                  const struct iovec *iov, unsigned niov, uint64_t len)
{
	struct fconn *conn = fcall_conn(c);
	uint8_t *at = shared_at(conn, fcall_of(c)->segs + ch->first, ch->n, skip, len);

	if (!at)
		return false;
	if (x->counted)
		rpc_count(&conn->base.svc->stats.payload_inline_bytes, len);
	if (!x->write) {
		rpc_copy_in(conn->base.svc, iov, niov, 0, at, (size_t)len);
		return true;
	}
	for (unsigned i = 0; i < niov && len; i++) {
		size_t k = iov[i].iov_len < len ? iov[i].iov_len : (size_t)len;

		memcpy(at, iov[i].iov_base, k);
		at += k;
		len -= k;
	}
	return true;
}

static bool says_shared(const struct fconn *conn, const struct rr_seg *seg, unsigned n)
{
	for (unsigned i = 0; conn->rdv.shared && i < n; i++)
		if (seg[i].handle == RDV_SHARED)
			return true;
	return false;
}

/* @len bytes between the chunk's segments from @skip on and @iov. len > 0, and the chunk holds
 * them. */
void fxfer_start(struct rpc_call *c, struct fxfer *x, const struct rr_chunk *ch,
                       uint64_t skip, const struct iovec *iov, unsigned niov, uint64_t len,
                       void (*done)(struct fxfer *))
{
	struct fconn *conn = fcall_conn(c);
	bool write = x->write, counted = x->counted;

	x->call = c;
	if (says_shared(conn, fcall_of(c)->segs + ch->first, ch->n)) {
		if (fxfer_shared(c, x, ch, skip, iov, niov, len))
			done(x);
		else
			fconn_kill(conn);
		return;
	}
	*x = (struct fxfer){ .call = c,
		             .seg = fcall_of(c)->segs + ch->first,
		             .nseg = ch->n,
		             .iov = iov,
		             .niov = niov,
		             .left = len,
		             .write = write,
		             .counted = counted,
		             .done = done };
	while (x->nseg && skip >= x->seg->length) {
		skip -= x->seg->length;
		x->seg++;
		x->nseg--;
	}
	x->at = skip;
	STAILQ_INSERT_TAIL(write ? &conn->writeq : &conn->readq, x, next);
	fconn_dirty(conn);
}

/* --- posting --- */

int fxfers_post(struct fconn *conn, struct fxfer_queue *q, bool write)
{
	struct fxfer *x;
	int err = 0;

	while (!err && (x = STAILQ_FIRST(q))) {
		unsigned busy = write ? conn->nout : conn->nreads;

		if (busy >= (write ? MAX_WRITES : conn->l->opts.read_depth))
			return 0; /* a completion makes the connection dirty again */
		err = xfer_post(conn, x);
		if (!x->left)
			STAILQ_REMOVE_HEAD(q, next);
	}
	return err;
}
