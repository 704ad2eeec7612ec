/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_rpc.c - calls out, replies in: RPC-over-RDMA version 1 from the requester's side
 *
 * How a call travels is decided when there is credit for it, from what fits a message (send_max,
 * recv_max). On a connection with a domain of its own there are no chunks: all is inline, or -EMSGSIZE, and
 * an answer that would not fit is the server's to avoid.
 *
 *   payload argument   inline behind the arguments, else a read chunk at the position where it belongs
 *   payload result     always a write chunk: only so its length is known without knowing the results
 *   arguments          inline, else RDMA_NOMSG: the call itself is a read chunk at position zero
 *   results            inline, or a reply chunk beside it if max_results might not fit
 *
 * A chunk of a payload is in memory that the server has mapped too, where there is such memory and room in it
 * (client_share.c); else it is the caller's memory, for the server's RMA.
 *
 * Credits: one call until the first reply tells what the server grants; then as many as the last
 * reply said, never more than were asked for, never less than one. A server that is wrong about its
 * own reply (lists that we did not offer, lengths beyond ours) loses the connection: its idea of
 * our memory is wrong.
 */
#include "transport/client.h"
#include "transport/xdr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALL_FIXED  24 /* xid, CALL, 2, program, version, procedure */
#define REPLY_FIXED 24 /* xid, REPLY, accepted, empty verifier, status */
#define AUTH_MAX    (2 * (8 + MAX_AUTH_BYTES))

struct wire { /* a header being put together */
	struct rr_header h;
	struct rr_seg segs[RR_MAX_SEGS];
	unsigned n;
};

static size_t iov_sum(const struct iovec *iov, unsigned n)
{
	size_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* --- chunks --- */

static void put_mrs(struct client_req *q)
{
	while (q->nmrs)
		client_mr_put(q->c, q->mrs[--q->nmrs]);
	if (q->mrs != q->few_mrs)
		free(q->mrs);
	q->mrs = NULL;
}

/* The server may not reach this request's memory any more, or no longer has reason to. */
static void withdraw(struct client_req *q)
{
	put_mrs(q);
	client_share_put(q);
	if (q->call_mr.mr && !q->c->hung)
		fab_mr_close(q->c->f, &q->call_mr);
	q->call_mr.mr = NULL;
}

/* @len: of all @iov. */
static int offer(struct client_req *q, struct wire *w, struct rr_chunk *chunk, const struct iovec *iov, unsigned n, size_t len,
                 uint64_t access)
{
	*chunk = (struct rr_chunk){ .first = (uint16_t)w->n };
	if (w->n < RR_MAX_SEGS && client_share_take(q, len, &w->segs[w->n])) {
		w->n++;
		chunk->n = 1;
		if (access == FI_REMOTE_READ)
			client_share_in(q, iov, n);
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		struct tp_mr *mr;
		int err;

		if (!iov[i].iov_len)
			continue;
		if (w->n == RR_MAX_SEGS)
			return -E2BIG;
		err = client_mr_get(q->c, iov[i].iov_base, iov[i].iov_len, access, &mr);
		if (err)
			return err;
		q->mrs[q->nmrs++] = mr;
		w->segs[w->n++] = (struct rr_seg){
			.handle = mr->mr.key,
			.length = (uint32_t)iov[i].iov_len,
			.offset = fab_mr_addr(q->c->f, &mr->mr, iov[i].iov_base),
		};
		chunk->n++;
	}
	return 0;
}

static int offer_call(struct client_req *q, struct wire *w)
{
	int err = fab_mr_open(q->c->f, q->buf, q->len, FI_REMOTE_READ, &q->call_mr);

	if (err)
		return err;
	if (w->n == RR_MAX_SEGS)
		return -E2BIG;
	memmove(&w->h.read[1], &w->h.read[0], w->h.nreads * sizeof(w->h.read[0]));
	w->h.read[0] = (struct rr_chunk){ .position = 0, .first = (uint16_t)w->n, .n = 1 };
	w->h.nreads++;
	w->h.proc = RR_NOMSG;
	w->segs[w->n++] = (struct rr_seg){
		.handle = q->call_mr.key,
		.length = (uint32_t)q->len,
		.offset = fab_mr_addr(q->c->f, &q->call_mr, q->buf),
	};
	return 0;
}

static int offer_results(struct client_req *q, struct wire *w)
{
	struct tp_client *c = q->c;
	struct tp_req *req = q->req;
	size_t room, in = iov_sum(req->in, req->nin);
	int err;

	if (in) {
		err = offer(q, w, &w->h.write[0], req->in, req->nin, in, FI_REMOTE_WRITE);
		if (err)
			return err;
		w->h.nwrites = 1;
		q->nin = w->h.write[0].n;
	}
	room = rr_size(&w->h) + REPLY_FIXED;
	if (c->opts.own.ask || (room <= c->recv_max && req->max_results <= c->recv_max - room))
		return 0;
	if (!q->reply)
		q->reply = client_reply_get(c, REPLY_FIXED + MAX_AUTH_BYTES + req->max_results);
	if (!q->reply)
		return -ENOMEM;
	if (w->n == RR_MAX_SEGS)
		return -E2BIG;
	w->h.has_reply = true;
	w->h.reply = (struct rr_chunk){ .first = (uint16_t)w->n, .n = 1 };
	w->segs[w->n++] = (struct rr_seg){
		.handle = q->reply->mr.key,
		.length = (uint32_t)q->reply->size,
		.offset = fab_mr_addr(c->f, &q->reply->mr, q->reply->buf),
	};
	return 0;
}

/* Set *payload_inline if the payload argument travels in the message itself. */
static int build(struct client_req *q, struct wire *w, bool *payload_inline)
{
	const struct tp_req *req = q->req;
	size_t out = iov_sum(req->out, req->nout), max = q->c->send_max, size;
	int err;

	w->n = 0;
	w->h = (struct rr_header){ .xid = req->xid, .credits = q->c->want, .proc = RR_MSG };
	q->mrs = q->few_mrs;
	if (req->nin + req->nout > sizeof(q->few_mrs) / sizeof(*q->few_mrs))
		q->mrs = calloc(req->nin + req->nout, sizeof(*q->mrs));
	if (!q->mrs)
		return -ENOMEM;
	err = offer_results(q, w);
	if (err)
		return err;
	size = rr_size(&w->h) + q->len + ((out + 3) & ~(size_t)3);
	*payload_inline = out && size <= max;
	if (q->c->opts.own.ask && (w->h.nwrites || size > max))
		return -EMSGSIZE;
	if (out && !*payload_inline) {
		err = offer(q, w, &w->h.read[0], req->out, req->nout, out, FI_REMOTE_READ);
		if (err)
			return err;
		w->h.read[0].position = (uint32_t)q->len;
		w->h.nreads = 1;
	}
	if (!*payload_inline && rr_size(&w->h) + q->len > max) {
		err = offer_call(q, w);
		if (err)
			return err;
	}
	return rr_size(&w->h) > max ? -EMSGSIZE : 0;
}

static size_t fill(const struct client_req *q, const struct wire *w, bool payload_inline,
                   struct client_slot *s)
{
	size_t at = rr_encode(&w->h, w->segs, s->buf, q->c->send_max);

	if (w->h.proc == RR_NOMSG)
		return at;
	memcpy(s->buf + at, q->buf, q->len);
	at += q->len;
	if (!payload_inline)
		return at;
	for (unsigned i = 0; i < q->req->nout; i++) {
		const struct iovec *v = &q->req->out[i];

		if (v->iov_len)
			memcpy(s->buf + at, v->iov_base, v->iov_len);
		at += v->iov_len;
	}
	for (; at & 3; at++)
		s->buf[at] = 0;
	return at;
}

static int transmit(struct client_req *q)
{
	struct tp_client *c = q->c;
	struct client_slot *s = SLIST_FIRST(&c->idle);
	bool payload_inline;
	struct wire w;
	int err;

	if (!s)
		return -EAGAIN;
	err = build(q, &w, &payload_inline);
	if (!err)
		err = client_post_send(c, s, fill(q, &w, payload_inline, s));
	if (err) {
		withdraw(q);
		return err;
	}
	c->inflight++;
	TAILQ_INSERT_TAIL(&c->sent, q, link);
	return 0;
}

/* --- endings --- */

static void req_free(struct client_req *q)
{
	withdraw(q);
	if (q->reply)
		client_reply_put(q->c, q->reply);
	free(q);
}

/* q is on no list. The caller may free its request, or close the client, in done(). */
static void finish(struct client_req *q, int err)
{
	struct tp_client *c = q->c;
	struct tp_req *req = q->req;

	withdraw(q);
	req->priv = NULL;
	c->events++;
	c->depth++;
	req->done(req, err);
	c->depth--;
	req_free(q);
}

void client_fail_all(struct tp_client *c, int err)
{
	struct client_reqs all = TAILQ_HEAD_INITIALIZER(all);
	struct client_req *q;

	TAILQ_CONCAT(&all, &c->sent, link);
	TAILQ_CONCAT(&all, &c->queued, link);
	c->inflight = 0;
	while ((q = TAILQ_FIRST(&all))) {
		TAILQ_REMOVE(&all, q, link);
		finish(q, err);
	}
}

void client_flush(struct tp_client *c)
{
	struct client_req *q;

	if (!client_rma_flush(c))
		return; /* a call behind RMA must not overtake it */
	while (c->state == TP_CLIENT_UP && !c->broken && c->inflight < c->credits &&
	       (q = TAILQ_FIRST(&c->queued))) {
		TAILQ_REMOVE(&c->queued, q, link);
		int err = transmit(q);

		if (err == -EAGAIN) {
			TAILQ_INSERT_HEAD(&c->queued, q, link);
			break;
		}
		if (err)
			finish(q, err);
	}
}

/* --- replies --- */

#define REPLY_PLAIN 24

/* The header of an answer as most are: accepted, nothing to verify, SUCCESS. */
static bool plain_success(const struct tp_req *req, const uint8_t *msg, size_t len)
{
	const uint32_t hdr[REPLY_PLAIN / 4] = { htonl(req->xid),  htonl(REPLY), htonl(MSG_ACCEPTED),
		                 htonl(AUTH_NONE), 0 /* bytes */, htonl(SUCCESS) };

	return len >= sizeof(hdr) && !memcmp(msg, hdr, sizeof(hdr));
}

static int read_rpc(struct tp_req *req, const uint8_t *msg, size_t len, char *verf)
{
	struct rpc_msg m = { 0 };

	if (plain_success(req, msg, len)) {
		req->reply = (struct accepted_reply){ .ar_stat = SUCCESS };
		tp_xdr_open(&req->results, (void *)(uintptr_t)(msg + REPLY_PLAIN), len - REPLY_PLAIN, XDR_DECODE);
		return 0;
	}
	m.acpted_rply.ar_verf.oa_base = verf;
	m.acpted_rply.ar_results.proc = (xdrproc_t)(void (*)(void))xdr_void;
	tp_xdr_open(&req->results, (void *)(uintptr_t)msg, len, XDR_DECODE);
	if (!xdr_replymsg(&req->results, &m) || m.rm_xid != req->xid || m.rm_direction != REPLY)
		return -EBADMSG;
	if (m.rm_reply.rp_stat == MSG_ACCEPTED) {
		req->reply = m.acpted_rply;
		return 0;
	}
	if (m.rm_reply.rp_stat != MSG_DENIED)
		return -EBADMSG;
	if (m.rjcted_rply.rj_stat == RPC_MISMATCH)
		return -EPROTONOSUPPORT;
	req->auth_why = m.rjcted_rply.rj_why;
	return -EACCES;
}

static int read_shared(struct client_req *q, uint32_t used)
{
	struct tp_req *req = q->req;

	if (used > iov_sum(req->in, req->nin))
		return -EBADMSG;
	client_share_out(q, req->in, req->nin, used);
	req->in_len = used;
	return 0;
}

/* How much of the write chunk was used: bytes fill it from the front, in no segment more than we
 * gave. */
static int read_write_list(struct client_req *q, const struct rr_header *h,
                           const struct rr_seg *segs)
{
	const struct tp_req *req = q->req;
	bool partial = false;
	uint32_t sum = 0;
	unsigned k = 0;

	if (h->nwrites > 1 || (h->nwrites && h->write[0].n != q->nin))
		return -EBADMSG;
	if (h->nwrites && q->place)
		return read_shared(q, segs[h->write[0].first].length);
	for (unsigned i = 0; h->nwrites && i < req->nin; i++) {
		uint32_t used;

		if (!req->in[i].iov_len)
			continue;
		used = segs[h->write[0].first + k++].length;
		if (used > req->in[i].iov_len || (partial && used))
			return -EBADMSG;
		partial = used < req->in[i].iov_len;
		sum += used;
	}
	q->req->in_len = sum;
	return 0;
}

/* Find the RPC message of a reply and read it. -EBADMSG: the server is wrong about itself. */
static int read_reply(struct client_req *q, const struct rr_header *h, const struct rr_seg *segs,
                      const uint8_t *buf, size_t len, char *verf)
{
	const uint8_t *msg = buf + h->size;
	size_t n = len - h->size;

	if (h->nreads || read_write_list(q, h, segs))
		return -EBADMSG;
	if (h->proc == RR_NOMSG) {
		if (!q->reply || !h->has_reply || h->reply.n != 1)
			return -EBADMSG;
		msg = q->reply->buf;
		n = segs[h->reply.first].length;
		if (n > q->reply->size)
			return -EBADMSG;
	}
	return read_rpc(q->req, msg, n, verf);
}

static struct client_req *find(struct tp_client *c, uint32_t xid)
{
	struct client_req *q;

	TAILQ_FOREACH (q, &c->sent, link)
		if (q->req->xid == xid)
			return q;
	return NULL;
}

/* A message came. Its buffer is posted again after the return, so results are read in place. */
void client_message(struct tp_client *c, const uint8_t *buf, size_t len)
{
	struct rr_seg segs[RR_MAX_SEGS];
	char verf[MAX_AUTH_BYTES];
	struct client_req *q;
	struct rr_header h;
	int err = rr_decode(buf, len, &h, segs, RR_MAX_SEGS);

	if (err) {
		client_fail(c, err == -EPROTONOSUPPORT ? err : -EPROTO,
		            err == -EPROTONOSUPPORT ? "the server speaks another version of "
		                                      "RPC-over-RDMA"
		                                    : "unreadable message from the server");
		return;
	}
	q = h.proc == RR_DONE ? NULL : find(c, h.xid);
	if (!q) /* nobody waits for it */
		return;
	c->credits = h.credits < 1 ? 1 : h.credits > c->want ? c->want : h.credits;
	if (h.proc == RR_ERROR)
		err = h.err == RR_ERR_VERS ? -EPROTONOSUPPORT : -EPROTO;
	else
		err = read_reply(q, &h, segs, buf, len, verf);
	if (err == -EBADMSG) { /* the request fails with the connection */
		client_fail(c, -EPROTO, "a reply that does not fit its call");
		return;
	}
	TAILQ_REMOVE(&c->sent, q, link);
	c->inflight--;
	finish(q, err);
}

/* --- the caller's side --- */

static bool xid_in_use(struct tp_client *c, uint32_t xid)
{
	struct client_req *q;

	TAILQ_FOREACH (q, &c->queued, link)
		if (q->req->xid == xid)
			return true;
	return find(c, xid) != NULL;
}

XDR *client_req_begin(struct tp_client *c, struct tp_req *req, uint32_t prog, uint32_t vers,
                      uint32_t proc, bool (*put)(XDR *x, const void *arg), const void *arg,
                      size_t max)
{
	size_t cap = CALL_FIXED + AUTH_MAX + ((max + 3) & ~(size_t)3) + 4;
	uint32_t call[5] = { CALL, RPC_MSG_VERSION, prog, vers, proc };
	struct client_req *q;

	if (max > UINT32_MAX / 2)
		return NULL;
	q = malloc(sizeof(*q) + cap);
	if (!q)
		return NULL;
	memset(q, 0, sizeof(*q));
	q->c = c;
	q->req = req;
	q->cap = cap;
	if (!req->set_xid) {
		while (xid_in_use(c, ++c->next_xid))
			;
		req->xid = c->next_xid;
	}
	tp_xdr_open(&q->xdr, q->buf, cap, XDR_ENCODE);
	tp_xdr_u_int(&q->xdr, &req->xid);
	for (unsigned i = 0; i < 5; i++)
		tp_xdr_u_int(&q->xdr, &call[i]);
	if (!put(&q->xdr, arg)) {
		free(q);
		return NULL;
	}
	/* The arguments get what was asked for, not what a short credential leaves over. */
	q->cap = xdr_getpos(&q->xdr) + (max & ~(size_t)3) + (max & 3 ? 4 : 0);
	q->xdr.x_handy = (u_int)(q->cap - xdr_getpos(&q->xdr));
	req->priv = q;
	return &q->xdr;
}

/* RFC 5531 section 8.2 and appendix A, then an empty verifier. */
static bool put_cred(XDR *x, const void *arg)
{
	const struct tp_cred *cred = arg;
	uint32_t w[10] = { AUTH_NONE, 0, AUTH_NONE, 0 }, n = 0;

	if (!cred || cred->flavor != AUTH_SYS) {
		n = 4;
	} else {
		uint32_t ngids = cred->ngids < 16 ? cred->ngids : 16;
		uint32_t head[] = { AUTH_SYS,  20 + 4 * ngids, 0 /* stamp */, 0 /* no name */,
			            cred->uid, cred->gid,      ngids };

		for (unsigned i = 0; i < sizeof(head) / sizeof(head[0]); i++)
			if (!tp_xdr_u_int(x, &head[i]))
				return false;
		for (unsigned i = 0; i < ngids; i++) {
			uint32_t gid = cred->gids[i];

			if (!tp_xdr_u_int(x, &gid))
				return false;
		}
		n = 2;
	}
	for (unsigned i = 0; i < n; i++)
		if (!tp_xdr_u_int(x, &w[i]))
			return false;
	return true;
}

TP_API XDR *tp_req_begin(struct tp_client *c, struct tp_req *req, uint32_t prog, uint32_t vers,
                         uint32_t proc, const struct tp_cred *cred, size_t max)
{
	return client_req_begin(c, req, prog, vers, proc, put_cred, cred, max);
}

TP_API void tp_req_abandon(struct tp_client *c, struct tp_req *req)
{
	struct client_req *q = req->priv;

	(void)c;
	req->priv = NULL;
	if (q)
		req_free(q);
}

/* The length word of the payload argument ends the arguments. */
static int end_arguments(struct client_req *q)
{
	const struct tp_req *req = q->req;
	size_t out = iov_sum(req->out, req->nout), in = iov_sum(req->in, req->nin);
	uint32_t word = (uint32_t)out;

	q->len = xdr_getpos(&q->xdr);
	if (out > UINT32_MAX || in > UINT32_MAX || req->max_results > UINT32_MAX / 2)
		return -EMSGSIZE;
	if (!req->out)
		return 0;
	word = htonl(word);
	memcpy(q->buf + q->len, &word, 4);
	q->len += 4;
	return 0;
}

TP_API int tp_req_send(struct tp_client *c, struct tp_req *req)
{
	struct client_req *q = req->priv;
	int err = end_arguments(q);

	req->in_len = 0;
	req->auth_why = AUTH_OK;
	memset(&req->reply, 0, sizeof(req->reply));
	if (!err && (c->state == TP_CLIENT_DOWN || c->broken))
		err = -ENOTCONN;
	if (!err && c->state == TP_CLIENT_UP && c->inflight < c->credits &&
	    TAILQ_EMPTY(&c->queued) && client_rma_flush(c)) {
		err = transmit(q);
		if (!err)
			return 0;
	} else if (!err) {
		err = -EAGAIN;
	}
	if (err == -EAGAIN) {
		TAILQ_INSERT_TAIL(&c->queued, q, link);
		return 0;
	}
	req->priv = NULL;
	req_free(q);
	return err;
}
