/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_call.c - RPC-over-RDMA version 1 on the responder's side: from a message to a call, and
 * back
 *
 * Where the parts of a call are (RFC 8166 section 3.4):
 *
 *   RDMA_MSG, no read chunk      all in the message; a payload is stored out of it
 *   RDMA_MSG, chunk where the    the payload is pulled into the program's segments
 *     payload begins
 *   RDMA_MSG, other chunks       pulled to their positions in one buffer, then run
 *   RDMA_NOMSG, chunk at 0       its first PEEK bytes are pulled; they tell where the arguments end.
 *                                A payload behind them, or in a second chunk, is pulled into the
 *                                segments
 *   chunks in shared memory      (shm) are copied, not pulled: their bytes are there at once
 *
 * and of a reply: a payload goes to the first write chunk, or travels with the message; the message
 * goes inline if the requester's receives hold it, else into its reply chunk. What fits nowhere is
 * ERR_CHUNK.
 *
 *   message --get--> [pulling] --> rpc_call_run --> place: x[0] reads --> rpc_placed
 *                                       \--> reply_end: x[0], x[1] write, then send
 *                                                                      --> rpc_call_done
 */
#include "transport/fabric_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PEEK           1024 /* bytes of a long call that are pulled to see what it is */
#define PAYLOAD_MARGIN 256 /* room for the results around a payload that travels in the message */

/* --- messages out --- */

static void release(struct rpc_call *c)
{
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);

	fbuf_put(fc->rb);
	fbuf_put(fc->head);
	fbuf_put(fc->whole);
	fbuf_put(fc->reply);
	fbuf_put(fc->send);
	fc->rb = fc->head = fc->whole = fc->reply = fc->send = NULL;
	if (fc->segs != fc->few)
		free(fc->segs);
	free(fc->reply_iov);
	fc->segs = NULL;
	fc->reply_iov = NULL;
	if (fc->in_hand) {
		fc->in_hand = false;
		conn->hand--;
		fconn_dirty(conn);
	}
}

static void reply_part_done(struct rpc_call *c)
{
	struct fcall *fc = fcall_of(c);

	if (--fc->pending)
		return;
	release(c);
	rpc_call_done(c, 0);
}

static void send_done(struct fab_op *op, int err)
{
	struct fbuf *b = container_of(op, struct fbuf, op);
	struct fconn *conn = b->conn;
	struct rpc_call *c = b->call;

	LIST_REMOVE(b, link);
	if (b->big)
		LIST_INSERT_HEAD(&b->pool->big, b, link);
	fbuf_put(b);
	if (!conn)
		return;
	fconn_back(conn);
	fkeys_sent(conn);
	if (!c && conn->hand)
		conn->hand--;
	if (err) {
		fconn_kill(conn);
		return;
	}
	if (conn->state == FCONN_DYING)
		return;
	fconn_dirty(conn);
	if (c)
		reply_part_done(c);
}

/* The buffer is the queue's from now on. The message counts as answered: its receive is posted
 * before this send goes out, because the requester uses the credit as soon as it has the reply. */
static void send_queue(struct fconn *conn, struct fbuf *b, struct rpc_call *c)
{
	struct fcall *fc = c ? fcall_of(c) : NULL;

	b->conn = conn;
	b->call = c;
	b->op.done = send_done;
	if (fc && fc->in_hand) {
		fc->in_hand = false;
		conn->hand--;
	}
	STAILQ_INSERT_TAIL(&conn->sendq, b, next);
	fconn_dirty(conn);
}

static void send_error(struct fconn *conn, uint32_t xid, enum rr_err err)
{
	struct fbuf *b = fbuf_get(conn->pool, RR_MIN);
	struct tp_stats *st = &conn->base.svc->stats;

	rpc_count(err == RR_ERR_VERS ? &st->bad_versions : &st->bad_chunks, 1);
	if (!b) {
		fconn_kill(conn);
		return;
	}
	b->len = rr_encode_error(b->p, xid, conn->granted, err);
	conn->hand++;
	send_queue(conn, b, NULL);
}

/* A call that was not run yet ends with ERR_CHUNK. */
static void refuse(struct rpc_call *c)
{
	send_error(fcall_conn(c), fcall_of(c)->h.xid, RR_ERR_CHUNK);
	tp_drop(&c->pub);
}

static int send_post(struct fconn *conn, struct fbuf *b)
{
	struct fab *f = fconn_fab(conn);
	int err;

	err = fab_send(f, conn->ep, b->p, b->len, b->desc, conn->addr, &b->op);
	if (err)
		return err;
	STAILQ_REMOVE_HEAD(&conn->sendq, next);
	if (b->big)
		LIST_REMOVE(b, link);
	LIST_INSERT_HEAD(&conn->sends, b, link);
	conn->sends_posted++;
	fconn_out(conn);
	conn->l->posts += f->cq_fd >= 0; /* without a descriptor the next look is near anyhow */
	if (f->rdm)
		rdv_ring(&conn->rdv);
	return 0;
}

/* --- posting --- */

int fcall_pump(struct fconn *conn)
{
	int err = fxfers_post(conn, &conn->readq, false), e2;
	struct fbuf *b;

	if (err && err != -EAGAIN)
		return err;
	e2 = fxfers_post(conn, &conn->writeq, true);
	if (e2)
		return e2;
	/* Where sends keep behind writes, they must also be posted behind them. */
	if (!STAILQ_EMPTY(&conn->writeq))
		return err;
	while ((b = STAILQ_FIRST(&conn->sendq))) {
		e2 = send_post(conn, b);
		if (e2)
			return e2;
	}
	return err;
}

/* --- calls in --- */

static void run(struct rpc_call *c, const uint8_t *msg, size_t len, size_t payload_have)
{
	struct fconn *conn = fcall_conn(c);

	fcall_of(c)->pulling = false;
	if (rpc_call_run(c, msg, len, payload_have) == -EBADMSG)
		fconn_kill(conn);
}

/* @len bytes at @msg are the call, @ch is where its payload lies: run it if the lengths agree. */
static void run_chunk(struct rpc_call *c, const uint8_t *msg, const struct rpc_head *hd,
                      unsigned chunk, uint64_t off)
{
	struct fcall *fc = fcall_of(c);
	uint64_t have = fc->h.read[chunk].length - off;

	fc->pay_chunk = chunk;
	fc->pay_off = off;
	/* The padding may be there or not (RFC 8166 section 3.4.6); more than that is a lie. */
	if (have > (uint64_t)hd->payload_len + rr_pad(hd->payload_len))
		refuse(c);
	else
		run(c, msg, hd->len, (size_t)have);
}

static void insert_next(struct fxfer *x);

/* Pull the chunks from fc->pull on to their places in fc->whole; then run. */
static void insert_step(struct rpc_call *c)
{
	struct fcall *fc = fcall_of(c);

	for (; fc->pull < fc->h.nreads; fc->pull++) {
		struct rr_chunk *ch = &fc->h.read[fc->pull];

		if (!ch->length)
			continue;
		fc->head_iov = (struct iovec){ fc->whole->p + ch->position, (size_t)ch->length };
		fc->x[0].write = fc->x[0].counted = false;
		fxfer_start(c, &fc->x[0], ch, 0, &fc->head_iov, 1, ch->length, insert_next);
		return;
	}
	run(c, fc->whole->p, fc->whole_len, 0);
}

static void insert_next(struct fxfer *x)
{
	fcall_of(x->call)->pull++;
	insert_step(x->call);
}

/* The message @msg lacks the chunks from @first on: each belongs at its position of the whole. */
static void insert_chunks(struct rpc_call *c, const uint8_t *msg, size_t have, unsigned first)
{
	struct fcall *fc = fcall_of(c);
	size_t max = c->pub.conn->svc->o.max_call, pos = 0, in = 0;
	uint64_t total = have;

	for (unsigned i = first; i < fc->h.nreads; i++)
		total += fc->h.read[i].length + rr_pad(fc->h.read[i].length);
	if (total > max) {
		refuse(c);
		return;
	}
	fc->whole = fbuf_get(fcall_conn(c)->pool, (size_t)total);
	if (!fc->whole) {
		tp_drop(&c->pub);
		return;
	}
	for (unsigned i = first; i < fc->h.nreads; i++) {
		const struct rr_chunk *ch = &fc->h.read[i];

		if (ch->position < pos || ch->position - pos > have - in) {
			refuse(c);
			return;
		}
		memcpy(fc->whole->p + pos, msg + in, ch->position - pos);
		in += ch->position - pos;
		pos = ch->position + (size_t)ch->length;
		memset(fc->whole->p + pos, 0, rr_pad(ch->length));
		pos += rr_pad(ch->length);
	}
	memcpy(fc->whole->p + pos, msg + in, have - in);
	fc->whole_len = (size_t)total;
	fc->pull = first;
	fc->pulling = true;
	insert_step(c);
}

static void pull_next(struct fxfer *x);

/* Make fc->head hold @want bytes of the chunk at position zero. */
static void pull_head(struct rpc_call *c, size_t want)
{
	struct fcall *fc = fcall_of(c);

	if (!fc->head || fc->head->cap < want) {
		struct fbuf *b = fbuf_get(fcall_conn(c)->pool, want);

		if (!b) {
			tp_drop(&c->pub);
			return;
		}
		if (fc->head_len)
			memcpy(b->p, fc->head->p, fc->head_len);
		fbuf_put(fc->head);
		fc->head = b;
	}
	fc->pulling = true;
	fc->head_iov = (struct iovec){ fc->head->p + fc->head_len, want - fc->head_len };
	fc->head_len = want;
	fc->x[0].write = fc->x[0].counted = false;
	fxfer_start(c, &fc->x[0], &fc->h.read[0], want - fc->head_iov.iov_len, &fc->head_iov, 1,
	           fc->head_iov.iov_len, pull_next);
}

/* All of a long call that is not payload is here. */
static void head_whole(struct rpc_call *c)
{
	struct fcall *fc = fcall_of(c);

	if (fc->h.nreads > 1)
		insert_chunks(c, fc->head->p, fc->head_len, 1);
	else
		run(c, fc->head->p, fc->head_len, 0);
}

static void head_payload(struct rpc_call *c, const struct rpc_head *hd)
{
	struct fcall *fc = fcall_of(c);

	if (fc->h.nreads == 1)
		run_chunk(c, fc->head->p, hd, 0, hd->len);
	else if (fc->h.nreads == 2 && fc->h.read[1].position == hd->len &&
	         fc->h.read[0].length - hd->len < 4)
		run_chunk(c, fc->head->p, hd, 1, 0);
	else
		refuse(c);
}

static void pull_next(struct fxfer *x)
{
	struct rpc_call *c = x->call;
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);
	uint64_t len = fc->h.read[0].length;
	size_t max = conn->base.svc->o.max_call, want;
	struct rpc_head hd;

	rpc_head_scan(conn->base.svc, fc->head->p, fc->head_len, &hd);
	if (hd.kind == RPC_HEAD_PAYLOAD) {
		head_payload(c, &hd);
		return;
	}
	if (hd.kind == RPC_HEAD_BAD || fc->head_len == len) {
		head_whole(c);
		return;
	}
	want = hd.kind == RPC_HEAD_MORE && hd.len < len ? hd.len : (size_t)len;
	if (want > max)
		refuse(c);
	else
		pull_head(c, want);
}

/* The RPC message is (in part) in chunks. */
static void take_chunks(struct rpc_call *c, const uint8_t *msg, size_t have)
{
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);
	const struct tp_service_opts *o = &conn->base.svc->o;
	uint64_t first = fc->h.read[0].length;
	struct rpc_head hd;

	if (fc->h.proc == RR_NOMSG) {
		if (fc->h.read[0].position || !first ||
		    first > (uint64_t)o->max_call + o->max_payload + 4)
			refuse(c);
		else
			pull_head(c, first < PEEK ? (size_t)first : PEEK);
		return;
	}
	if (!fc->h.read[0].position) {
		refuse(c);
		return;
	}
	rpc_head_scan(conn->base.svc, msg, have, &hd);
	if (hd.kind != RPC_HEAD_PAYLOAD)
		insert_chunks(c, msg, have, 0);
	else if (fc->h.nreads == 1 && fc->h.read[0].position == hd.len && have - hd.len < 4)
		run_chunk(c, msg, &hd, 0, 0);
	else
		refuse(c);
}

/* All of the RPC message is in @b. True: the buffer was kept for the payload in it. */
static bool take_inline(struct rpc_call *c, struct fbuf *b, const uint8_t *msg, size_t have)
{
	struct fcall *fc = fcall_of(c);
	struct rpc_head hd;

	rpc_head_scan(c->pub.conn->svc, msg, have, &hd);
	if (hd.kind != RPC_HEAD_PAYLOAD) {
		run(c, msg, have, 0);
		return false;
	}
	fc->rb = b;
	fc->inline_at = (size_t)(msg - b->p) + hd.len;
	run(c, msg, hd.len, have - hd.len);
	return true;
}

static int keep_header(struct rpc_call *c, const struct rr_header *h, const struct rr_seg *segs)
{
	struct fcall *fc = fcall_of(c);
	size_t n = 0;

	fc->h = *h;
	fc->segs = fc->few;
	for (unsigned i = 0; i < h->nreads; i++)
		n += h->read[i].n;
	for (unsigned i = 0; i < h->nwrites; i++)
		n += h->write[i].n;
	n += h->has_reply ? h->reply.n : 0;
	if (n > FCALL_SEGS) {
		fc->segs = malloc(n * sizeof(*segs));
		if (!fc->segs) {
			fc->segs = fc->few;
			return -ENOMEM;
		}
	}
	memcpy(fc->segs, segs, n * sizeof(*segs));
	return 0;
}

/* Credits double, up to what the client asks for, when it uses most of those it has. */
static void credits(struct fconn *conn, uint32_t asked)
{
	unsigned more = conn->granted;
	struct flistener *l = conn->l;

	conn->wanted = asked < 1 ? 1 : asked < conn->most ? asked : conn->most;
	if (conn->hand + 1 < conn->granted - conn->granted / 4 || conn->granted >= conn->wanted)
		return;
	if (more > conn->wanted - conn->granted)
		more = conn->wanted - conn->granted;
	if (l->fab->rdm) {
		if (l->recv_want + more > l->fab->rx_size)
			return;
		l->recv_want += more;
	}
	conn->granted += more;
	rpc_count(&conn->base.svc->stats.credits, more);
}

bool fcall_message(struct fconn *conn, struct fbuf *b, size_t len)
{
	struct flistener *l = conn->l;
	struct rr_header h;
	struct rpc_call *c;
	int err = rr_decode(b->p, len, &h, l->segs, RR_MAX_SEGS);

	if (err == -EBADMSG) {
		rpc_count(&conn->base.svc->stats.bad_headers, 1);
		fconn_kill(conn);
		return false;
	}
	credits(conn, h.credits);
	if (err) {
		send_error(conn, h.xid, err == -EPROTONOSUPPORT ? RR_ERR_VERS : RR_ERR_CHUNK);
		return false;
	}
	if (h.proc == RR_DONE || h.proc == RR_ERROR || conn->stopping)
		return false;
	if ((h.proc == RR_NOMSG && !h.nreads) || (conn->own && (h.nreads || h.nwrites || h.has_reply))) {
		send_error(conn, h.xid, RR_ERR_CHUNK);
		return false;
	}
	c = rpc_call_get(&conn->base);
	if (!c) {
		fconn_kill(conn);
		return false;
	}
	fcall_of(c)->in_hand = true;
	conn->hand++;
	if (keep_header(c, &h, l->segs)) {
		tp_drop(&c->pub);
		return false;
	}
	if (!h.nreads)
		return take_inline(c, b, b->p + h.size, len - h.size);
	take_chunks(c, b->p + h.size, len - h.size);
	return false;
}

/* --- the RPC layer's side --- */

static void payload_pulled(struct fxfer *x)
{
	rpc_placed(x->call, 0);
}

static void place(struct rpc_call *c)
{
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);

	if (!c->pub.payload_len) {
		rpc_placed(c, 0);
	} else if (fc->rb) {
		rpc_copy_in(conn->base.svc, c->iov, c->niov, 0, fc->rb->p + fc->inline_at,
		            c->pub.payload_len);
		rpc_count(&conn->base.svc->stats.payload_inline_bytes, c->pub.payload_len);
		fbuf_put(fc->rb);
		fc->rb = NULL;
		rpc_placed(c, 0);
	} else {
		fc->x[0].write = false;
		fc->x[0].counted = true;
		fxfer_start(c, &fc->x[0], &fc->h.read[fc->pay_chunk], fc->pay_off, c->iov, c->niov,
		           c->pub.payload_len, payload_pulled);
	}
}

/* The header of a reply returns the call's write list. */
static size_t inline_room(const struct rpc_call *c)
{
	size_t size = rr_size_writes(&fcall_of(c)->h), max = fcall_conn(c)->peer_max;

	return size < max ? max - size : 0;
}

static size_t reply_room(const struct rpc_call *c)
{
	const struct fcall *fc = fcall_of(c);
	size_t room = inline_room(c);

	return fc->h.has_reply && fc->h.reply.length > room ? (size_t)fc->h.reply.length : room;
}

static uint32_t payload_room(const struct rpc_call *c)
{
	const struct fcall *fc = fcall_of(c);
	uint64_t room;

	if (fc->h.nwrites) {
		room = fc->h.write[0].length;
	} else {
		room = reply_room(c);
		room = room > PAYLOAD_MARGIN ? (room - PAYLOAD_MARGIN) & ~(uint64_t)3 : 0;
	}
	return room < UINT32_MAX ? (uint32_t)room : UINT32_MAX;
}

static uint8_t *reply_buf(struct rpc_call *c, size_t max)
{
	struct fcall *fc = fcall_of(c);

	fbuf_put(fc->rb); /* a payload still in it is not wanted any more */
	fc->rb = NULL;
	fc->reply_hdr = rr_size_writes(&fc->h);
	fc->reply = fbuf_get(fcall_conn(c)->pool, fc->reply_hdr + max + 3);
	return fc->reply ? fc->reply->p + fc->reply_hdr : NULL;
}

static void reply_written(struct fxfer *x)
{
	struct rpc_call *c = x->call;
	struct fcall *fc = fcall_of(c);

	/* Where sends may pass writes, ours waits for the last of them. */
	if (fc->send && fc->pending == 2) {
		struct fbuf *b = fc->send;

		fc->send = NULL;
		send_queue(fcall_conn(c), b, c);
	}
	reply_part_done(c);
}

static void reply_send(struct rpc_call *c, struct fbuf *b)
{
	struct fcall *fc = fcall_of(c);

	fc->pending++;
	if (fc->pending == 1 || fconn_fab(fcall_conn(c))->saw)
		send_queue(fcall_conn(c), b, c);
	else
		fc->send = b;
}

static void reply_write(struct rpc_call *c, struct fxfer *x, const struct rr_chunk *ch,
                        const struct iovec *iov, unsigned niov, uint64_t len, bool counted)
{
	x->write = true;
	x->counted = counted;
	if (fxfer_shared(c, x, ch, 0, iov, niov, len))
		return; /* there before the reply is */
	fcall_of(c)->pending++;
	fxfer_start(c, x, ch, 0, iov, niov, len, reply_written);
}

/* The message, and a payload that is too small for a chunk or has none, in one send. */
static int reply_inline(struct rpc_call *c, uint32_t payload)
{
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);
	struct fbuf *b = fc->reply;
	size_t at = fc->reply_hdr + c->len;

	if (payload) {
		b = fbuf_get(conn->pool, at + payload + rr_pad(payload));
		if (!b)
			return -ENOMEM;
		memcpy(b->p + fc->reply_hdr, c->buf, c->len);
		for (unsigned i = 0; i < c->niov; i++) {
			memcpy(b->p + at, c->iov[i].iov_base, c->iov[i].iov_len);
			at += c->iov[i].iov_len;
		}
		memset(b->p + at, 0, rr_pad(payload));
		at += rr_pad(payload);
		rpc_count(&conn->base.svc->stats.payload_inline_bytes, payload);
	} else {
		fc->reply = NULL;
	}
	fc->h.has_reply = false;
	rr_encode(&fc->h, fc->segs, b->p, fc->reply_hdr);
	b->len = at;
	reply_send(c, b);
	return 0;
}

/* The message, and a payload without a chunk of its own, into the reply chunk; its header in a
 * send. */
static int reply_chunk(struct rpc_call *c, uint32_t payload)
{
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);
	uint64_t total = c->len + (payload ? payload + rr_pad(payload) : 0);
	unsigned n = 0;
	struct fbuf *b;

	if (!fc->h.has_reply || fc->h.reply.length < total)
		return -EMSGSIZE;
	fc->h.proc = RR_NOMSG;
	rr_chunk_used(&fc->h.reply, fc->segs, total);
	b = fbuf_get(conn->pool, conn->pool->cap);
	fc->reply_iov = calloc(c->niov + 2, sizeof(*fc->reply_iov));
	if (!b || !fc->reply_iov || rr_size(&fc->h) > conn->peer_max) {
		fbuf_put(b);
		return -EMSGSIZE;
	}
	b->len = rr_encode(&fc->h, fc->segs, b->p, b->cap);
	fc->reply_iov[n++] = (struct iovec){ c->buf, c->len };
	if (payload) {
		memset(c->buf + c->len, 0, rr_pad(payload)); /* reply_buf() left room */
		for (unsigned i = 0; i < c->niov; i++)
			fc->reply_iov[n++] = c->iov[i];
		fc->reply_iov[n++] = (struct iovec){ c->buf + c->len, rr_pad(payload) };
		rpc_count(&conn->base.svc->stats.payload_placed_bytes, payload);
	}
	reply_write(c, &fc->x[1], &fc->h.reply, fc->reply_iov, n, total, false);
	reply_send(c, b);
	return 0;
}

static void reply_end(struct rpc_call *c)
{
	struct fconn *conn = fcall_conn(c);
	struct fcall *fc = fcall_of(c);
	uint32_t payload = c->reply_payload;
	int err = 0;

	/* The call's header becomes the reply's, which returns the write list. */
	fc->h.credits = conn->granted;
	fc->h.proc = RR_MSG;
	fc->h.nreads = 0;
	for (unsigned i = 0; i < fc->h.nwrites; i++) {
		uint64_t used = i ? 0 : payload;

		if (used > fc->h.write[i].length)
			err = -EMSGSIZE;
		rr_chunk_used(&fc->h.write[i], fc->segs, used);
	}
	if (!err) {
		bool chunked = payload && fc->h.nwrites;
		uint32_t along = chunked ? 0 : payload;
		size_t total = c->len + along + rr_pad(along);

		if (chunked)
			reply_write(c, &fc->x[0], &fc->h.write[0], c->iov, c->niov, payload, true);
		if (fc->reply_hdr + total <= conn->peer_max)
			err = reply_inline(c, along);
		else
			err = reply_chunk(c, along);
		if (err && fc->pending) {
			STAILQ_REMOVE(&conn->writeq, &fc->x[0], fxfer, next);
			fc->pending = 0;
		}
	}
	if (err) {
		send_error(conn, fc->h.xid, RR_ERR_CHUNK);
		release(c);
		rpc_call_done(c, err);
	}
}

static void drop(struct rpc_call *c)
{
	release(c);
	rpc_call_done(c, 0);
}

static void conn_stop(struct tp_conn *conn)
{
	struct fconn *fconn = container_of(conn, struct fconn, base);

	fconn->stopping = true;
	fconn_dirty(fconn);
}

static void conn_free(struct tp_conn *conn)
{
	struct fconn *fconn = container_of(conn, struct fconn, base);

	fpool_put(fconn->pool);
	free(fconn);
}

const struct tp_conn_ops fcall_ops = {
	.priv_size = sizeof(struct fcall),
	.priv_zeroed = offsetof(struct fcall, h),
	.place = place,
	.reply_buf = reply_buf,
	.reply_end = reply_end,
	.drop = drop,
	.reply_room = reply_room,
	.payload_room = payload_room,
	.stop = conn_stop,
	.rma_facts = fkey_facts,
	.key_open = fkey_open,
	.close = fconn_close,
	.free = conn_free,
};

/* --- the end --- */

void fcall_fail_all(struct fconn *conn, int err)
{
	struct rpc_call *c;

	STAILQ_INIT(&conn->readq);
	STAILQ_INIT(&conn->writeq);
	do { /* calls that no program knows of */
		TAILQ_FOREACH (c, &conn->base.calls, link)
			if (fcall_of(c)->pulling)
				break;
		if (c) {
			fcall_of(c)->pulling = false;
			tp_drop(&c->pub);
		}
	} while (c);
	TAILQ_FOREACH (c, &conn->base.calls, link) {
		struct fcall *fc = fcall_of(c);
		struct fbuf *reply = fc->reply;

		/* The program may be encoding into it. */
		if (c->stage == RPC_BEGUN)
			fc->reply = NULL;
		release(c);
		if (c->stage == RPC_BEGUN)
			fc->reply = reply;
	}
	rpc_conn_fail_calls(&conn->base, err);
}
