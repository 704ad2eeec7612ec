/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpc.c - ONC RPC version 2 (RFC 5531) between the transports and the programs
 *
 * The header of a call is read once, here, with every length measured against what arrived; a call
 * that cannot be run gets the error reply that the RFC names. Error replies are encoded by libtirpc's
 * xdr_replymsg() into memory of the transport. Call objects come from a free list per kind of
 * transport: struct rpc_call, then the program's ctx, then the transport's priv, in one piece.
 *
 * Whatever happens to a connection, each call walks the stages of rpc.h to its end: the program's
 * ending (finish()) hands it to ops->reply_end or ops->drop, the transport's rpc_call_done() frees
 * it.
 */
#include "transport/rpc.h"
#include "transport/xdr.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

enum {
	DEFAULT_PAYLOAD = 1 << 20,
	DEFAULT_CALL = 32 << 10,
	DEFAULT_REPLY = 1 << 20,
	DEFAULT_CONNS = 4096,
	DEFAULT_IDLE = 60,
	DEFAULT_CLIENT = 180,
	FREE_CALLS = 1024,  /* kept per kind */
	ERROR_ROOM = 64,    /* the longest error reply has 32 bytes */
	CALL_FIXED = 24,    /* xid, CALL, rpcvers, prog, vers, proc */
	CALL_MIN = 40,      /* and two empty auth fields */
	MACHINE_NAME = 255, /* of AUTH_SYS */
	ALIGN = 16,
	LOG_LINES = 60, /* in LOG_PERIOD seconds */
	LOG_PERIOD = 60,
};

/* --- the header of a call --- */

struct opaque_at {
	uint32_t flavor, len;
	const uint8_t *body;
};

struct call_hdr {
	uint32_t xid, rpcvers, prog, vers, proc;
	struct opaque_at cred, verf;
	enum auth_stat why; /* AUTH_OK, or a length beyond the RFC's bound was found */
	size_t end;         /* where the arguments begin; 0 if rpcvers or why stopped the reading */
};

/* One auth field at @at. Returns 0 and moves *at, the number of bytes that must be there, or
 * -EMSGSIZE. */
static int auth_read(const uint8_t *msg, size_t have, size_t *at, struct opaque_at *o)
{
	size_t need;

	if (have < *at + 8)
		return (int)(*at + 8);
	o->flavor = rpc_be32(msg + *at);
	o->len = rpc_be32(msg + *at + 4);
	o->body = msg + *at + 8;
	if (o->len > MAX_AUTH_BYTES)
		return -EMSGSIZE;
	need = *at + 8 + RNDUP(o->len);
	if (have < need)
		return (int)need;
	*at = need;
	return 0;
}

/* Both: 0: good. > 0: so many bytes are needed. */

/* Up to the procedure. Of another version of RPC no more than that is known. -EBADMSG: this is not a call. */
static int hdr_fixed(const uint8_t *msg, size_t have, struct call_hdr *h)
{
	h->why = AUTH_OK;
	h->end = 0;
	if (have >= 8 && rpc_be32(msg + 4) != CALL)
		return -EBADMSG;
	if (have < 12)
		return CALL_MIN;
	h->xid = rpc_be32(msg);
	h->rpcvers = rpc_be32(msg + 8);
	if (h->rpcvers != RPC_MSG_VERSION)
		return 0;
	if (have < CALL_MIN)
		return CALL_MIN;
	h->prog = rpc_be32(msg + 12);
	h->vers = rpc_be32(msg + 16);
	h->proc = rpc_be32(msg + 20);
	return 0;
}

/* And the auth fields. */
static int hdr_read(const uint8_t *msg, size_t have, struct call_hdr *h)
{
	size_t at = CALL_FIXED;
	int r = hdr_fixed(msg, have, h);

	if (r || h->rpcvers != RPC_MSG_VERSION)
		return r;
	r = auth_read(msg, have, &at, &h->cred);
	if (r == -EMSGSIZE)
		h->why = AUTH_BADCRED;
	if (r)
		return r == -EMSGSIZE ? 0 : r;
	r = auth_read(msg, have, &at, &h->verf);
	if (r == -EMSGSIZE)
		h->why = AUTH_BADVERF;
	if (r)
		return r == -EMSGSIZE ? 0 : r;
	h->end = at;
	return 0;
}

/* AUTH_SYS parameters (RFC 5531 appendix A): stamp, machine name, uid, gid, gids. */
static bool authsys_read(const struct opaque_at *o, struct tp_cred *cred)
{
	size_t left = o->len, name;
	const uint8_t *p = o->body;

	if (left < 8)
		return false;
	name = rpc_be32(p + 4);
	if (name > MACHINE_NAME)
		return false;
	p += 8;
	left -= 8;
	if (left < RNDUP(name) + 12)
		return false;
	p += RNDUP(name);
	left -= RNDUP(name) + 12;
	cred->uid = rpc_be32(p);
	cred->gid = rpc_be32(p + 4);
	cred->ngids = rpc_be32(p + 8);
	if (cred->ngids > NGRPS || left < 4 * (size_t)cred->ngids)
		return false;
	for (unsigned i = 0; i < cred->ngids; i++)
		cred->gids[i] = rpc_be32(p + 12 + 4 * i);
	return true;
}

static enum auth_stat cred_read(const struct call_hdr *h, struct tp_cred *cred)
{
	if (h->why != AUTH_OK)
		return h->why;
	cred->flavor = h->cred.flavor;
	switch (h->cred.flavor) {
	case AUTH_NONE:
		if (h->cred.len)
			return AUTH_BADCRED;
		break;
	case AUTH_SYS:
		if (!authsys_read(&h->cred, cred))
			return AUTH_BADCRED;
		break;
	case AUTH_SHORT:
		return AUTH_REJECTEDCRED; /* we never gave one out */
	default:
		return AUTH_BADCRED;
	}
	if (h->verf.flavor != AUTH_NONE || h->verf.len)
		return AUTH_BADVERF;
	return AUTH_OK;
}

/* --- programs --- */

struct target {
	const struct tp_program *program; /* NULL: none of this number and version */
	const struct tp_proc *proc;       /* NULL: none */
	unsigned index;                   /* of the program's first procedure in the statistics */
};

static struct target target_find(const struct tp_service *svc, uint32_t prog, uint32_t vers, uint32_t proc)
{
	unsigned index = 0;

	for (const struct tp_program *const *p = svc->o.programs; *p; index += (*p++)->nprocs)
		if ((*p)->prog == prog && (*p)->vers == vers)
			return (struct target){ *p, proc < (*p)->nprocs ? &(*p)->procs[proc] : NULL, index };
	return (struct target){ 0 };
}

unsigned tp_stats_index(const struct tp_service *svc, uint32_t prog, uint32_t vers, uint32_t proc)
{
	return prog ? target_find(svc, prog, vers, proc).index + proc : svc->nprocs;
}

/* Length of the arguments up to the payload: 0 malformed or too long; > have: look again. */
static size_t args_len(const struct tp_service *svc, const struct tp_proc *proc,
                       const uint8_t *args, size_t have)
{
	size_t n = proc->payload_at(args, have);

	return n < 4 || n > svc->o.max_call ? 0 : n;
}

void rpc_head_scan(const struct tp_service *svc, const uint8_t *msg, size_t have,
                   struct rpc_head *h)
{
	struct target t = { 0 };
	struct call_hdr hdr;
	int r = hdr_fixed(msg, have, &hdr);
	size_t n;

	*h = (struct rpc_head){ .kind = RPC_HEAD_WHOLE };
	if (!r && hdr.rpcvers == RPC_MSG_VERSION) {
		t = target_find(svc, hdr.prog, hdr.vers, hdr.proc);
		if (!t.proc || !t.proc->run || !t.proc->payload_at)
			return;
		r = hdr_read(msg, have, &hdr);
	}
	if (r) {
		h->kind = r < 0 ? RPC_HEAD_BAD : RPC_HEAD_MORE;
		h->len = r < 0 ? 0 : (size_t)r;
		return;
	}
	if (!hdr.end)
		return;
	n = args_len(svc, t.proc, msg + hdr.end, have - hdr.end);
	if (!n)
		return;
	h->len = hdr.end + n;
	h->kind = h->len > have ? RPC_HEAD_MORE : RPC_HEAD_PAYLOAD;
	if (h->kind == RPC_HEAD_PAYLOAD)
		h->payload_len = rpc_be32(msg + h->len - 4);
}

/* --- call objects --- */

static size_t round_up(size_t n)
{
	return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct rpc_call *rpc_call_get(struct tp_conn *conn)
{
	struct tp_service *svc = conn->svc;
	size_t base = round_up(sizeof(struct rpc_call)), ctx = round_up(svc->ctx_size);
	size_t size = base + ctx + round_up(conn->ops->priv_size);
	struct rpc_call *c = TAILQ_FIRST(&svc->free_calls[conn->kind]);

	if (c) {
		TAILQ_REMOVE(&svc->free_calls[conn->kind], c, link);
		svc->nfree[conn->kind]--;
	} else {
		c = aligned_alloc(ALIGN, size);
		if (!c)
			return NULL;
	}
	memset(c, 0, offsetof(struct rpc_call, iov_small));
	memset((char *)c + base + ctx, 0, conn->ops->priv_zeroed);
	c->pub.ctx = (char *)c + base;
	c->priv = (char *)c + base + ctx;
	c->pub.kind = conn->kind;
	c->pub.worker = svc->o.worker;
	c->pub.conn = conn;
	TAILQ_INSERT_TAIL(&conn->calls, c, link);
	conn->ncalls++;
	svc->ncalls++;
	rpc_count(&svc->stats.calls_now, 1);
	rpc_conn_get(conn);
	conn->heard = ev_now(svc->loop);
	return c;
}

static int iov_set(struct rpc_call *c, const struct iovec *iov, unsigned n)
{
	struct iovec *copy = c->iov_small;

	if (n > RPC_IOV_SMALL) {
		copy = calloc(n, sizeof(*copy));
		if (!copy)
			return -ENOMEM;
	}
	if (c->iov != c->iov_small)
		free(c->iov);
	if (n)
		memcpy(copy, iov, n * sizeof(*iov));
	c->iov = copy;
	c->niov = n;
	return 0;
}

void rpc_call_done(struct rpc_call *c, int err)
{
	struct tp_conn *conn = c->pub.conn;
	struct tp_service *svc = conn->svc;

	assert(c->stage == RPC_SENDING);
	if (c->iov != c->iov_small)
		free(c->iov);
	free(c->own_buf);
	TAILQ_REMOVE(&conn->calls, c, link);
	conn->ncalls--;
	svc->ncalls--;
	rpc_count(&svc->stats.calls_now, (uint64_t)-1);
	if (c->sent)
		c->sent(c->sent_arg, err ? err : c->end_err);
	if (svc->nfree[conn->kind] < FREE_CALLS) {
		TAILQ_INSERT_HEAD(&svc->free_calls[conn->kind], c, link);
		svc->nfree[conn->kind]++;
	} else {
		free(c);
	}
	rpc_conn_put(conn);
}

/* --- running a call --- */

/* The program, or an error reply, is done with @c. */
static void finish(struct rpc_call *c, bool reply, bool success)
{
	struct tp_conn *conn = c->pub.conn;

	assert(c->stage == RPC_RUN || c->stage == RPC_BEGUN);
	if (c->stat) {
		uint64_t now = now_ns(), ns = now - c->begun_ns;
		unsigned bucket = 63 - (unsigned)__builtin_clzll(ns | 1);

		conn->svc->ended_ns = now;
		rpc_count(&c->stat->calls, 1);
		rpc_count(&c->stat->errors, success ? 0 : 1);
		rpc_count(&c->stat->nsec, ns);
		rpc_count(&c->stat->hist[bucket < TP_HIST ? bucket : TP_HIST - 1], 1);
	}
	c->stage = RPC_SENDING;
	if (conn->dead)
		c->end_err = -ECONNRESET;
	if (reply && !conn->dead)
		conn->ops->reply_end(c);
	else
		conn->ops->drop(c);
}

/* An empty reply stream of at least @max bytes at the start of the message. */
static bool stream_open(struct rpc_call *c, size_t max)
{
	struct tp_conn *conn = c->pub.conn;

	assert(c->stage == RPC_RUN || c->stage == RPC_BEGUN);
	if (c->stage == RPC_RUN) {
		if (conn->dead)
			c->buf = c->own_buf = malloc(max);
		else
			c->buf = conn->ops->reply_buf(c, max);
		if (!c->buf)
			return false;
		c->payload_pending = c->payload_pending &&
		                     conn->dead; /* a live transport skips it from now on */
		c->cap = max;
		c->stage = RPC_BEGUN;
	}
	tp_xdr_open(&c->out, c->buf, c->cap, XDR_ENCODE);
	return true;
}

static void send_error(struct rpc_call *c, struct rpc_msg *m)
{
	m->rm_xid = c->pub.xid;
	m->rm_direction = REPLY;
	if (c->pub.conn->dead || !stream_open(c, ERROR_ROOM) || !xdr_replymsg(&c->out, m)) {
		finish(c, false, false);
		return;
	}
	c->len = xdr_getpos(&c->out);
	c->niov = c->reply_payload = 0;
	finish(c, true, false);
}

static void send_accept_error(struct rpc_call *c, enum accept_stat stat, rpcvers_t low,
                              rpcvers_t high)
{
	struct rpc_msg m = { .rm_reply.rp_stat = MSG_ACCEPTED };

	m.acpted_rply.ar_verf = _null_auth;
	m.acpted_rply.ar_stat = stat;
	m.acpted_rply.ar_vers.low = low;
	m.acpted_rply.ar_vers.high = high;
	send_error(c, &m);
}

static bool is_open(const struct tp_conn *conn, uint32_t prog)
{
	return !conn->only_prog || conn->only_prog == prog;
}

/* None of this number and version: say which versions there are. */
static void send_no_program(struct rpc_call *c)
{
	const struct tp_conn *conn = c->pub.conn;
	rpcvers_t low = UINT32_MAX, high = 0;

	for (const struct tp_program *const *p = conn->svc->o.programs; *p; p++) {
		if ((*p)->prog != c->pub.prog || !is_open(conn, c->pub.prog))
			continue;
		low = (*p)->vers < low ? (*p)->vers : low;
		high = (*p)->vers > high ? (*p)->vers : high;
	}
	send_accept_error(c, low > high ? PROG_UNAVAIL : PROG_MISMATCH, low, high);
}

static void send_rpc_mismatch(struct rpc_call *c)
{
	struct rpc_msg m = { .rm_reply.rp_stat = MSG_DENIED };

	m.rjcted_rply.rj_stat = RPC_MISMATCH;
	m.rjcted_rply.rj_vers.low = RPC_MSG_VERSION;
	m.rjcted_rply.rj_vers.high = RPC_MSG_VERSION;
	send_error(c, &m);
}

void tp_reply_error(struct tp_call *call, enum accept_stat stat)
{
	send_accept_error(container_of(call, struct rpc_call, pub), stat, 0, 0);
}

void tp_reply_auth_error(struct tp_call *call, enum auth_stat stat)
{
	struct rpc_msg m = { .rm_reply.rp_stat = MSG_DENIED };

	m.rjcted_rply.rj_stat = AUTH_ERROR;
	m.rjcted_rply.rj_why = stat;
	rpc_count(&call->conn->svc->stats.auth_errors, 1);
	send_error(container_of(call, struct rpc_call, pub), &m);
}

void tp_drop(struct tp_call *call)
{
	finish(container_of(call, struct rpc_call, pub), false, false);
}

/* Where the arguments are good and the payload can follow: true, and c->pub.args decodes what is
 * before it. */
static bool args_open(struct rpc_call *c, const struct tp_proc *proc, const uint8_t *args,
                      size_t len, size_t payload_have)
{
	const struct tp_service *svc = c->pub.conn->svc;

	if (proc->payload_at) {
		size_t n = args_len(svc, proc, args, len);

		if (!n || n != len)
			return false;
		c->pub.payload_len = rpc_be32(args + n - 4);
		if (c->pub.payload_len > svc->o.max_payload || c->pub.payload_len > payload_have)
			return false;
		c->payload_pending = true;
	}
	c->pub.arg_bytes = args;
	c->pub.arg_len = (uint32_t)len;
	tp_xdr_open(&c->pub.args, (void *)(uintptr_t)args, len, XDR_DECODE);
	return true;
}

int rpc_call_run(struct rpc_call *c, const uint8_t *msg, size_t len, size_t payload_have)
{
	const struct tp_conn *conn = c->pub.conn;
	struct tp_service *svc = conn->svc;
	struct target t = { 0 };
	enum auth_stat why;
	struct call_hdr h;

	if (hdr_read(msg, len, &h)) {
		rpc_count(&svc->stats.bad_headers, 1);
		tp_drop(&c->pub);
		return -EBADMSG;
	}
	c->begun_ns = c->begun_ns ? c->begun_ns : now_ns();
	c->pub.xid = h.xid;
	if (h.rpcvers != RPC_MSG_VERSION) {
		rpc_count(&svc->stats.bad_headers, 1);
		send_rpc_mismatch(c);
		return 0;
	}
	c->pub.prog = h.prog;
	c->pub.vers = h.vers;
	c->pub.proc = h.proc;
	if (is_open(conn, h.prog))
		t = target_find(svc, h.prog, h.vers, h.proc);
	if (t.proc)
		c->stat = &svc->stats.proc[c->pub.kind][t.index + h.proc];
	why = cred_read(&h, &c->pub.cred);
	if (why == AUTH_OK && t.program && !t.program->auth_none_ok && h.proc &&
	    h.cred.flavor == AUTH_NONE)
		why = AUTH_TOOWEAK;
	if (why != AUTH_OK) {
		tp_reply_auth_error(&c->pub, why);
	} else if (!t.program) {
		send_no_program(c);
	} else if (!t.proc || !t.proc->run) {
		tp_reply_error(&c->pub, PROC_UNAVAIL);
	} else if (!args_open(c, t.proc, msg + h.end, len - h.end, payload_have)) {
		tp_reply_error(&c->pub, GARBAGE_ARGS);
	} else {
		c->proc = t.proc;
		memset(c->pub.ctx, 0, t.program->ctx_size);
		t.proc->run(&c->pub);
	}
	return 0;
}

/* --- what programs call --- */

const struct sockaddr_storage *tp_call_peer(const struct tp_call *call)
{
	return &call->conn->peer;
}

void tp_call_instance(const struct tp_call *call, uint8_t out[16])
{
	memcpy(out, call->conn->peer_instance, sizeof(call->conn->peer_instance));
}

bool tp_call_alive(const struct tp_call *call)
{
	return !call->conn->dead;
}

void tp_place(struct tp_call *call, const struct iovec *iov, unsigned n,
              void (*placed)(struct tp_call *, int))
{
	struct rpc_call *c = container_of(call, struct rpc_call, pub);

	assert(c->stage == RPC_RUN && c->payload_pending);
	c->stage = RPC_PLACING;
	c->placed = placed;
	if (call->conn->dead) {
		rpc_placed(c, -ECONNRESET);
	} else if (iov_set(c, iov, n)) {
		rpc_placed(c, -ENOMEM); /* still pending: it is skipped with the reply */
	} else {
		c->payload_pending = false;
		call->conn->ops->place(c);
	}
}

void rpc_placed(struct rpc_call *c, int err)
{
	assert(c->stage == RPC_PLACING);
	c->stage = RPC_RUN;
	c->placed(&c->pub, err);
}

/* Room for the RPC header, and for the length word that a payload result adds, is kept aside. */
size_t tp_reply_room(const struct tp_call *call)
{
	const struct rpc_call *c =
		container_of((struct tp_call *)(uintptr_t)call, struct rpc_call, pub);
	const struct tp_conn *conn = call->conn;
	size_t room = conn->svc->o.max_reply, most;

	if (!conn->ops->reply_room || conn->dead)
		return room;
	most = conn->ops->reply_room(c);
	most = most > RPC_REPLY_HDR + 4 ? most - RPC_REPLY_HDR - 4 : 0;
	return most < room ? most : room;
}

uint32_t tp_reply_payload_room(const struct tp_call *call)
{
	const struct rpc_call *c =
		container_of((struct tp_call *)(uintptr_t)call, struct rpc_call, pub);
	const struct tp_conn *conn = call->conn;
	uint32_t room = conn->svc->o.max_payload, most;

	if (!conn->ops->payload_room || conn->dead)
		return room;
	most = conn->ops->payload_room(c);
	return most < room ? most : room;
}

XDR *tp_reply_begin(struct tp_call *call, size_t max)
{
	struct rpc_call *c = container_of(call, struct rpc_call, pub);
	const uint32_t hdr[RPC_REPLY_HDR / 4] = { htonl(call->xid), htonl(REPLY), htonl(MSG_ACCEPTED),
		                                  htonl(AUTH_NONE), 0 /* bytes */, htonl(SUCCESS) };
	size_t room = tp_reply_room(call);

	if (!stream_open(c, RPC_REPLY_HDR + (max < room ? max : room) + 4)) {
		finish(c, false, false);
		return NULL;
	}
	memcpy(c->buf, hdr, sizeof(hdr));
	xdr_setpos(&c->out, sizeof(hdr));
	return &c->out;
}

void tp_reply_end(struct tp_call *call)
{
	struct rpc_call *c = container_of(call, struct rpc_call, pub);

	assert(c->stage == RPC_BEGUN);
	c->len = xdr_getpos(&c->out);
	c->niov = c->reply_payload = 0;
	finish(c, true, true);
}

void tp_reply_end_payload(struct tp_call *call, const struct iovec *iov, unsigned n, uint32_t len,
                          void (*sent)(void *arg, int err), void *arg)
{
	struct rpc_call *c = container_of(call, struct rpc_call, pub);

	assert(c->stage == RPC_BEGUN);
	c->sent = sent;
	c->sent_arg = arg;
	if (iov_set(c, iov, n) || !tp_xdr_u_int(&c->out, &len)) {
		c->end_err = -ENOMEM;
		finish(c, false, false);
		return;
	}
	c->len = xdr_getpos(&c->out);
	c->reply_payload = len;
	finish(c, true, true);
}

/* --- connections, listeners --- */

/* Peers of FI_EP_MSG that vanish while nothing is on its way to them: no provider tells of that. */
static bool dies_unseen(const struct tp_conn *conn)
{
	return conn->kind == TP_FABRIC_MSG;
}

static struct tp_conn *silent_conn(struct tp_service *svc)
{
	double since = ev_now(svc->loop) - svc->o.client_timeout;
	struct tp_conn *conn;

	LIST_FOREACH (conn, &svc->conns, link)
		if (dies_unseen(conn) && !conn->ncalls && conn->heard <= since)
			break;
	return conn;
}

static void look_for_silence(struct ev_loop *loop, ev_timer *w, int events)
{
	struct tp_service *svc = container_of(w, struct tp_service, silence);
	struct tp_conn *conn;

	(void)events;
	while ((conn = silent_conn(svc))) { /* closing one may close others */
		rpc_count(&svc->stats.timeouts, 1);
		conn->ops->close(conn);
	}
	LIST_FOREACH (conn, &svc->conns, link)
		if (dies_unseen(conn))
			return;
	ev_timer_stop(loop, w);
}

static void watch_silence(struct tp_service *svc)
{
	if (ev_is_active(&svc->silence))
		return;
	svc->silence.repeat = svc->o.client_timeout / 4.;
	ev_timer_again(svc->loop, &svc->silence);
}

/* Nothing of it is under way, and nothing but its next call is lost with it. */
static struct tp_conn *longest_silent(const struct tp_service *svc)
{
	struct tp_conn *conn, *best = NULL;

	LIST_FOREACH (conn, &svc->conns, link) /* the oldest last */
		if (conn->kind == TP_TCP && !conn->ncalls && (!best || conn->heard <= best->heard))
			best = conn;
	return best;
}

bool rpc_conn_displace(struct tp_service *svc)
{
	struct tp_conn *conn = longest_silent(svc);

	if (!conn)
		return false;
	if (!svc->stats.displaced)
		rpc_log(svc, LOG_WARNING,
		        "no room for another connection of %u: the one that was silent longest is closed for it, from now on "
		        "without a word; connections_displaced counts them (max_connections, LimitNOFILE=)",
		        svc->nconns);
	rpc_count(&svc->stats.displaced, 1);
	conn->ops->close(conn);
	return true;
}

int rpc_conn_init(struct tp_conn *conn, struct tp_service *svc, enum tp_kind kind,
                  const struct tp_conn_ops *ops)
{
	if (svc->stopped)
		return -ESHUTDOWN;
	if (svc->nconns >= svc->o.max_conns && !rpc_conn_displace(svc))
		return -EMFILE;
	conn->ops = ops;
	conn->svc = svc;
	conn->kind = kind;
	conn->refs = 1;
	conn->ncalls = 0;
	conn->dead = false;
	conn->watches = NULL;
	conn->heard = ev_now(svc->loop);
	TAILQ_INIT(&conn->calls);
	LIST_INSERT_HEAD(&svc->conns, conn, link);
	svc->nconns++;
	rpc_count(&svc->stats.conns, 1);
	rpc_count(&svc->stats.conns_total, 1);
	if (dies_unseen(conn))
		watch_silence(svc);
	return 0;
}

void rpc_conn_dead(struct tp_conn *conn)
{
	if (conn->dead)
		return;
	conn->dead = true;
	LIST_REMOVE(conn, link);
	conn->svc->nconns--;
	rpc_count(&conn->svc->stats.conns, (uint64_t)-1);
}

void rpc_conn_fail_calls(struct tp_conn *conn, int err)
{
	struct rpc_call *c;

	rpc_conn_get(conn);
	do { /* from the start each time: a callback may end other calls */
		TAILQ_FOREACH (c, &conn->calls, link)
			if (c->stage == RPC_PLACING || c->stage == RPC_SENDING)
				break;
		if (c && c->stage == RPC_PLACING)
			rpc_placed(c, err);
		else if (c)
			rpc_call_done(c, err);
	} while (c);
	rpc_conn_put(conn);
}

void rpc_conn_over(struct tp_conn *conn)
{
	struct tp_conn_watch *w;

	while ((w = conn->watches)) {
		conn->watches = w->next;
		w->left = conn->left;
		w->gone(w);
	}
}

void tp_conn_watch(struct tp_call *call, struct tp_conn_watch *w)
{
	w->next = call->conn->watches;
	call->conn->watches = w;
}

int tp_call_rma_facts(const struct tp_call *call, struct tp_rma_facts *out)
{
	const struct tp_conn *conn = call->conn;

	return conn->ops->rma_facts && !conn->dead ? conn->ops->rma_facts(conn, out) : -EOPNOTSUPP;
}

int tp_key_open(struct tp_call *call, void *base, size_t len, bool writable, struct tp_key **out)
{
	struct tp_conn *conn = call->conn;

	if (!conn->ops->key_open)
		return -EOPNOTSUPP;
	return conn->dead ? -ECONNRESET : conn->ops->key_open(conn, base, len, writable, out);
}

void rpc_conn_get(struct tp_conn *conn)
{
	conn->refs++;
}

void rpc_conn_put(struct tp_conn *conn)
{
	if (!--conn->refs) {
		rpc_conn_over(conn);
		conn->ops->free(conn);
	}
}

void rpc_listener_init(struct tp_listener *l, struct tp_service *svc,
                       const struct tp_listener_ops *ops)
{
	l->ops = ops;
	l->svc = svc;
	LIST_INSERT_HEAD(&svc->listeners, l, link);
}

void rpc_listener_gone(struct tp_listener *l)
{
	LIST_REMOVE(l, link);
}

void tp_listener_describe(const struct tp_listener *l, char *buf, size_t len)
{
	l->ops->describe(l, buf, len);
}

void tp_listener_close(struct tp_listener *l)
{
	l->ops->close(l);
}

/* Room for one line more? What peers do is told as often as they do it, so not all of it. */
static bool log_room(struct tp_service *svc)
{
	unsigned left_out = svc->log_left_out;
	double now = ev_now(svc->loop);
	char text[128];

	if (now - svc->log_since >= LOG_PERIOD) {
		svc->log_since = now;
		svc->log_lines = svc->log_left_out = 0;
		snprintf(text, sizeof(text), "%u more lines about connections were left out of the log", left_out);
		if (left_out)
			svc->o.log(svc->o.log_arg, LOG_WARNING, text);
	}
	if (svc->log_lines < LOG_LINES)
		svc->log_lines++;
	else
		svc->log_left_out++;
	return !svc->log_left_out;
}

void rpc_log(struct tp_service *svc, int priority, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!svc->o.log || (priority > LOG_ERR && !log_room(svc)))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	svc->o.log(svc->o.log_arg, priority, text);
}

void rpc_copy_in(const struct tp_service *svc, const struct iovec *iov, unsigned n, size_t at,
                 const void *src, size_t len)
{
	const uint8_t *from = src;

	for (unsigned i = 0; i < n && len; i++) {
		size_t k;

		if (at >= iov[i].iov_len) {
			at -= iov[i].iov_len;
			continue;
		}
		k = iov[i].iov_len - at < len ? iov[i].iov_len - at : len;
		svc->o.copy_in((char *)iov[i].iov_base + at, from, k);
		from += k;
		len -= k;
		at = 0;
	}
}

/* --- turns --- */

static void turn_pending(struct ev_loop *loop, ev_prepare *w, int events)
{
	struct tp_service *svc = container_of(w, struct tp_service, turn);

	(void)loop;
	(void)events;
	svc->held = 0;
	svc->o.turn_end(svc->o.worker);
}

void tp_want_turn_end(struct tp_service *svc, uint32_t bytes)
{
	svc->held += bytes + RPC_HELD_CALL;
	if (!ev_is_pending(&svc->turn))
		ev_feed_event(svc->loop, &svc->turn, EV_CUSTOM);
}

void rpc_turn_end(struct tp_service *svc)
{
	if (!ev_is_pending(&svc->turn))
		return;
	ev_clear_pending(svc->loop, &svc->turn);
	turn_pending(svc->loop, &svc->turn, EV_CUSTOM);
}

bool rpc_turn_over(struct tp_service *svc)
{
	if (!ev_is_pending(&svc->turn))
		return false;
	if (svc->held < RPC_HELD_MAX && ev_pending_count(svc->loop) > 1) /* itself is one */
		return true;
	rpc_turn_end(svc);
	return false;
}

/* --- services --- */

static void copy_plain(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}

static void opts_default(struct tp_service_opts *o)
{
	o->copy_in = o->copy_in ? o->copy_in : copy_plain;
	o->max_payload = o->max_payload ? o->max_payload : DEFAULT_PAYLOAD;
	o->max_call = o->max_call ? o->max_call : DEFAULT_CALL;
	o->max_reply = o->max_reply ? o->max_reply : DEFAULT_REPLY;
	o->max_conns = o->max_conns ? o->max_conns : DEFAULT_CONNS;
	o->idle_timeout = o->idle_timeout ? o->idle_timeout : DEFAULT_IDLE;
	o->client_timeout = o->client_timeout ? o->client_timeout : DEFAULT_CLIENT;
}

static void service_release(struct tp_service *svc)
{
	for (unsigned k = 0; k < TP_KINDS; k++) {
		struct rpc_call *c;

		while ((c = TAILQ_FIRST(&svc->free_calls[k]))) {
			TAILQ_REMOVE(&svc->free_calls[k], c, link);
			free(c);
		}
		free(svc->stats.proc[k]);
	}
	free((void *)(uintptr_t)svc->o.regions);
	free(svc->scratch);
	free(svc);
}

int tp_service_new(struct ev_loop *loop, const struct tp_service_opts *opts,
                   struct tp_service **out)
{
	struct tp_service *svc = calloc(1, sizeof(*svc));
	struct tp_region *regions;

	if (!svc)
		return -ENOMEM;
	svc->loop = loop;
	svc->o = *opts;
	svc->o.regions = NULL;
	opts_default(&svc->o);
	LIST_INIT(&svc->listeners);
	LIST_INIT(&svc->conns);
	ev_init(&svc->silence, look_for_silence);
	ev_prepare_init(&svc->turn, turn_pending);
	ev_set_priority(&svc->turn, RPC_TURN_PRI);
	for (const struct tp_program *const *p = opts->programs; *p; p++) {
		svc->nprocs += (*p)->nprocs;
		svc->ctx_size = (*p)->ctx_size > svc->ctx_size ? (*p)->ctx_size : svc->ctx_size;
	}
	for (unsigned k = 0; k < TP_KINDS; k++)
		TAILQ_INIT(&svc->free_calls[k]);
	for (unsigned k = 0; k < TP_KINDS; k++) {
		svc->stats.proc[k] = calloc(svc->nprocs + 1, sizeof(*svc->stats.proc[k]));
		if (!svc->stats.proc[k])
			goto nomem;
	}
	regions = calloc(opts->nregions + 1, sizeof(*regions));
	if (!regions)
		goto nomem;
	if (opts->nregions)
		memcpy(regions, opts->regions, opts->nregions * sizeof(*regions));
	svc->o.regions = regions;
	*out = svc;
	return 0;
nomem:
	service_release(svc);
	return -ENOMEM;
}

void tp_service_stop(struct tp_service *svc)
{
	struct tp_listener *l;
	struct tp_conn *conn, *next;

	if (svc->stopped)
		return;
	svc->stopped = true;
	LIST_FOREACH (l, &svc->listeners, link)
		l->ops->stop(l);
	for (conn = LIST_FIRST(&svc->conns); conn; conn = next) {
		next = LIST_NEXT(conn, link);
		conn->ops->stop(conn);
	}
}

void tp_service_hangup(struct tp_service *svc)
{
	tp_service_stop(svc);
	while (!LIST_EMPTY(&svc->conns)) {
		struct tp_conn *conn = LIST_FIRST(&svc->conns);

		conn->ops->close(conn);
	}
}

unsigned tp_service_calls(const struct tp_service *svc)
{
	return svc->ncalls;
}

void tp_service_free(struct tp_service *svc)
{
	tp_service_hangup(svc);
	while (!LIST_EMPTY(&svc->listeners))
		tp_listener_close(LIST_FIRST(&svc->listeners));
	ev_timer_stop(svc->loop, &svc->silence);
	ev_clear_pending(svc->loop, &svc->turn);
	assert(!svc->ncalls); /* or a program would end a call of freed memory */
	service_release(svc);
}

const struct tp_stats *tp_service_stats(const struct tp_service *svc)
{
	return &svc->stats;
}
