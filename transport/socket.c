/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * socket.c - ONC RPC with record marking (RFC 5531 section 11) over TCP
 *
 * The point of the receiving side is that payload is never read where it does not belong. So the
 * socket is looked into (MSG_PEEK, a few KiB into a scratch area shared by all connections) before
 * anything is taken from it:
 *
 *   small calls   that are whole are run from the scratch area and then taken with MSG_TRUNC,
 *                 which copies nothing;
 *   with payload  what was looked at, up to the head's end, is *owed*: the recvmsg() that fills the
 *                 program's segments takes it first, and the mark of the next record last;
 *   what is cut   (partial records, heads across fragments) is gathered by reads of exactly the
 *                 bytes that the head still lacks, so that a payload byte is never among them.
 *
 * A read that brings less than it asked for has emptied the socket: nobody looks again before the
 * loop says that more has come.
 *
 *   RX_HEAD --head of a payload call complete, run()--> RX_HELD
 *   RX_HELD --tp_place--> RX_PLACE --all there--> RX_SKIP
 *   RX_HELD --the call is answered without tp_place--> RX_SKIP
 *   RX_SKIP --end of the record--> RX_HEAD
 *
 * A connection between two records owns no buffer. Replies that become ready in one turn of the
 * loop leave with one sendmsg(), the payload straight from the program's segments. All decisions
 * about watchers, the timer and the end of a connection are in conn_update(), which runs after
 * every event.
 */
#include "transport/socket.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	SCRATCH = 4096,        /* looked at in one go */
	PEEK_AFTER_BULK = 512, /* behind a large payload there is probably another one: look at its
	                          head only */
	INLINE_MAX = 1024,     /* payload that may be copied out of the scratch area */
	BULK_MIN = 4096,
	MAX_CALLS = 64,       /* in progress on one connection */
	MAX_UNSENT = 4 << 20, /* bytes of replies */
	MAX_EMPTY = 64,       /* empty fragments of one record */
	TURN_STEPS = 256,     /* of one connection before the others get their turn */
	TURN_CALLS = 128,
	TURN_BYTES = 2 << 20, /* of payload */
	SMALL_REPLY = 384,
	SEND_IOV = 256,
	LAST_FRAGMENT = 1u << 31,
};

struct sock_call { /* rpc_call.priv */
	struct rpc_call *call;
	STAILQ_ENTRY(sock_call) link; /* sock_conn.unsent */
	const uint8_t
		*inl; /* payload already taken from the socket: in the scratch area, or inl_own */
	uint8_t *inl_own;
	uint8_t *raw;  /* record mark, then the reply; small[] or malloc'd */
	unsigned npad; /* behind the payload */
	uint64_t left; /* bytes not yet sent, record mark to padding */
	uint8_t small[SMALL_REPLY];
};

enum rx_state { RX_HEAD, RX_HELD, RX_PLACE, RX_SKIP };

struct sock_conn {
	struct tp_conn conn;
	int fd;
	ev_io rd, wr;
	ev_timer timer;
	ev_timer again; /* its turn was over before its work was */
	bool reading;   /* inside conn_read(): it looks at the state after every step by itself */
	bool dry;       /* in this turn: the socket had less than was asked for */
	bool eof;       /* the peer sends no more */
	bool stopping;  /* nor do we listen any more */
	bool after_bulk;

	/* receiving: where we are in the record */
	enum rx_state rx;
	uint8_t mark[4]; /* of the next fragment, as far as it came */
	unsigned nmark;
	bool in_record, last;
	bool gather; /* the record did not come in one piece */
	uint32_t frag_left;
	size_t owed; /* bytes, at most SCRATCH, in front of those: looked at, not yet taken */
	unsigned nempty;
	size_t record_len; /* of all fragments so far */
	uint8_t *head;     /* gathered */
	size_t head_len, head_cap;
	struct rpc_call *rx_call; /* RX_HELD, RX_PLACE */
	unsigned place_at;        /* first segment of rx_call not full */
	size_t place_left;
	size_t turn_bytes;  /* placed in this turn */
	ev_tstamp rx_since; /* of a half-sent call; 0: none */

	/* sending */
	STAILQ_HEAD(, sock_call) unsent;
	uint64_t unsent_bytes;
	ev_tstamp tx_since; /* how long the first unsent reply waits; 0: none */
};

static void conn_update(struct sock_conn *sc);

static struct sock_conn *sock_of(const struct rpc_call *c)
{
	return container_of(c->pub.conn, struct sock_conn, conn);
}

static bool blocked(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* --- the end of a connection --- */

static void call_release(struct sock_call *p)
{
	if (p->raw != p->small)
		free(p->raw);
	free(p->inl_own);
	p->raw = p->inl_own = NULL;
}

static void head_free(struct sock_conn *sc)
{
	free(sc->head);
	sc->head = NULL;
	sc->head_len = sc->head_cap = 0;
}

static void conn_close(struct tp_conn *conn)
{
	struct sock_conn *sc = container_of(conn, struct sock_conn, conn);
	struct sock_call *p;

	if (conn->dead)
		return;
	rpc_conn_dead(conn);
	ev_io_stop(conn->svc->loop, &sc->rd);
	ev_io_stop(conn->svc->loop, &sc->wr);
	ev_timer_stop(conn->svc->loop, &sc->timer);
	ev_timer_stop(conn->svc->loop, &sc->again);
	close(sc->fd);
	sc->fd = -1;
	head_free(sc);
	sc->rx_call = NULL;
	while ((p = STAILQ_FIRST(&sc->unsent))) {
		STAILQ_REMOVE_HEAD(&sc->unsent, link);
		call_release(p);
		rpc_call_done(p->call, -ECONNRESET);
	}
	rpc_conn_fail_calls(conn, -ECONNRESET);
	rpc_conn_put(conn);
}

static void conn_free(struct tp_conn *conn)
{
	free(container_of(conn, struct sock_conn, conn));
}

/* The peer broke the rules or vanished. */
static void conn_fail(struct sock_conn *sc, uint64_t *counter)
{
	rpc_count(counter, 1);
	conn_close(&sc->conn);
}

static void conn_stop(struct tp_conn *conn)
{
	struct sock_conn *sc = container_of(conn, struct sock_conn, conn);

	sc->stopping = true;
	if (!sc->reading)
		conn_update(sc);
}

/* Something changed outside conn_read(): let it look. */
static void conn_kick(struct sock_conn *sc)
{
	if (!sc->conn.dead && !sc->reading)
		ev_feed_event(sc->conn.svc->loop, &sc->rd, EV_READ);
}

/* --- sending --- */

/* The payload of @c, pending or refused, is not wanted: what is left of its record goes nowhere. */
static void payload_forget(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);

	if (sc->rx_call != c)
		return;
	sc->rx_call = NULL;
	sc->rx = RX_SKIP;
	conn_kick(sc);
}

static uint8_t *op_reply_buf(struct rpc_call *c, size_t max)
{
	struct sock_call *p = c->priv;

	payload_forget(c);
	p->raw = max + 4 <= sizeof(p->small) ? p->small : malloc(max + 4);
	return p->raw ? p->raw + 4 : NULL;
}

static void op_drop(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);

	payload_forget(c);
	call_release(c->priv);
	conn_kick(sc); /* it may have been the last thing that a closing connection waited for */
	rpc_call_done(c, 0);
}

static void op_reply_end(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);
	struct sock_call *p = c->priv;
	uint64_t len;
	uint32_t mark;

	p->call = c;
	p->npad = -c->reply_payload & 3;
	len = c->len + (uint64_t)c->reply_payload + p->npad;
	mark = htonl(LAST_FRAGMENT | (uint32_t)len);
	memcpy(p->raw, &mark, 4);
	p->left = len + 4;
	sc->unsent_bytes += p->left;
	/* Replies that follow within this turn join the first one. */
	if (STAILQ_EMPTY(&sc->unsent))
		ev_feed_event(sc->conn.svc->loop, &sc->wr, EV_WRITE);
	STAILQ_INSERT_TAIL(&sc->unsent, p, link);
}

/* What of @p is not sent yet, as at most @room iovecs. */
static unsigned reply_iov(const struct sock_call *p, struct iovec *iov, unsigned room)
{
	static const uint8_t zeros[4];
	const struct rpc_call *c = p->call;
	uint64_t done = c->len + 4 + (uint64_t)c->reply_payload + p->npad - p->left;
	unsigned n = 0;

	for (unsigned i = 0; i < c->niov + 2 && n < room; i++) {
		struct iovec v;

		if (!i)
			v = (struct iovec){ p->raw, c->len + 4 };
		else if (i <= c->niov)
			v = c->iov[i - 1];
		else
			v = (struct iovec){ (void *)(uintptr_t)zeros, p->npad };
		if (done >= v.iov_len) {
			done -= v.iov_len;
			continue;
		}
		iov[n].iov_base = (char *)v.iov_base + done;
		iov[n++].iov_len = v.iov_len - done;
		done = 0;
	}
	return n;
}

static ssize_t send_some(struct sock_conn *sc)
{
	struct iovec iov[SEND_IOV];
	struct msghdr msg = { .msg_iov = iov };
	struct sock_call *p;

	STAILQ_FOREACH (p, &sc->unsent, link) {
		unsigned n =
			reply_iov(p, iov + msg.msg_iovlen, SEND_IOV - (unsigned)msg.msg_iovlen);

		msg.msg_iovlen += n;
		if (msg.msg_iovlen == SEND_IOV)
			break;
	}
	return sendmsg(sc->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* @n bytes left: end the calls whose replies went with them. */
static void sent_bytes(struct sock_conn *sc, uint64_t n)
{
	sc->unsent_bytes -= n;
	while (n && !sc->conn.dead) {
		struct sock_call *p = STAILQ_FIRST(&sc->unsent);
		struct rpc_call *c = p->call;

		if (n < p->left) {
			p->left -= n;
			return;
		}
		n -= p->left;
		STAILQ_REMOVE_HEAD(&sc->unsent, link);
		sc->tx_since = 0; /* the next one has its own time */
		rpc_count(&sc->conn.svc->stats.payload_placed_bytes, c->reply_payload);
		call_release(p);
		rpc_call_done(c, 0);
	}
}

static void conn_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct sock_conn *sc = container_of(w, struct sock_conn, wr);

	(void)loop;
	(void)revents;
	rpc_conn_get(&sc->conn);
	while (!sc->conn.dead && !STAILQ_EMPTY(&sc->unsent)) {
		ssize_t n = send_some(sc);

		if (n >= 0)
			sent_bytes(sc, (uint64_t)n);
		else if (!blocked())
			conn_fail(sc, &sc->conn.svc->stats.resets);
		else if (errno != EINTR)
			break;
	}
	conn_update(sc);
	rpc_conn_put(&sc->conn);
}

/* --- receiving: fragments --- */

enum step { STEP_ON, STEP_WAIT }; /* look at the state again; nothing more to do now */

/* The socket said @n: no bytes. Half a call that will never be whole ends the connection at once.
 */
static enum step rx_nothing(struct sock_conn *sc, ssize_t n)
{
	if (n < 0 && errno == EINTR)
		return STEP_ON;
	if (n < 0 && blocked())
		return STEP_WAIT;
	if (n < 0 || sc->rx == RX_PLACE)
		conn_fail(sc, &sc->conn.svc->stats.resets);
	else if (sc->in_record || sc->nmark)
		rpc_count(&sc->conn.svc->stats.bad_records, 1);
	sc->eof = true;
	return STEP_WAIT;
}

/* A fragment's mark is complete. */
static bool frag_open(struct sock_conn *sc, const uint8_t *mark)
{
	const struct tp_service_opts *o = &sc->conn.svc->o;
	uint32_t m = rpc_be32(mark);

	if (!sc->in_record)
		sc->record_len = sc->nempty = 0;
	sc->nmark = 0;
	sc->in_record = true;
	sc->last = m & LAST_FRAGMENT;
	sc->frag_left = m & ~(uint32_t)LAST_FRAGMENT;
	sc->record_len += sc->frag_left;
	if (!sc->frag_left)
		sc->nempty++;
	return sc->record_len <= (size_t)o->max_call + o->max_payload + 3 &&
	       sc->nempty <= MAX_EMPTY;
}

/* @n more bytes of the mark are there. */
static enum step mark_got(struct sock_conn *sc, size_t n)
{
	sc->nmark += (unsigned)n;
	if (sc->nmark == sizeof(sc->mark) && !frag_open(sc, sc->mark)) {
		conn_fail(sc, &sc->conn.svc->stats.bad_records);
		return STEP_WAIT;
	}
	return STEP_ON;
}

static enum step mark_read(struct sock_conn *sc)
{
	size_t want = sizeof(sc->mark) - sc->nmark;
	ssize_t n;

	if (sc->dry)
		return STEP_WAIT;
	n = recv(sc->fd, sc->mark + sc->nmark, want, MSG_DONTWAIT);
	if (n <= 0)
		return rx_nothing(sc, n);
	sc->dry = (size_t)n < want;
	return mark_got(sc, (size_t)n);
}

/* Take @n bytes that are known to be there and were looked at already. */
static bool take(struct sock_conn *sc, size_t n)
{
	while (n) {
		ssize_t k = recv(sc->fd, NULL, n, MSG_TRUNC | MSG_DONTWAIT);

		if (k <= 0) {
			if (k < 0 && errno == EINTR)
				continue;
			conn_fail(sc, &sc->conn.svc->stats.resets);
			return false;
		}
		n -= (size_t)k;
	}
	return true;
}

/* --- receiving: the payload, and what is not wanted --- */

static bool owed_take(struct sock_conn *sc)
{
	size_t n = sc->owed;

	sc->owed = 0;
	return take(sc, n);
}

static void record_end(struct sock_conn *sc)
{
	sc->in_record = sc->last = sc->gather = false;
	sc->rx_since = 0;
	sc->rx = RX_HEAD;
}

static void placed(struct sock_conn *sc, int err)
{
	struct rpc_call *c = sc->rx_call;

	sc->rx_call = NULL;
	sc->rx = RX_SKIP;
	rpc_placed(c, err);
}

static enum step step_skip(struct sock_conn *sc)
{
	ssize_t n;

	if (sc->owed && !owed_take(sc))
		return STEP_WAIT;
	if (!sc->frag_left) {
		if (!sc->last)
			return mark_read(sc);
		record_end(sc);
		return sc->nmark ? mark_got(sc, 0) : STEP_ON; /* step_place() may have read it */
	}
	if (sc->dry)
		return STEP_WAIT;
	n = recv(sc->fd, NULL, sc->frag_left, MSG_TRUNC | MSG_DONTWAIT);
	if (n <= 0)
		return rx_nothing(sc, n);
	sc->dry = (size_t)n < sc->frag_left;
	sc->frag_left -= (uint32_t)n;
	return STEP_ON;
}

/* What one recvmsg() of step_place() asks for: owed bytes, payload of this fragment, and if the record ends
 * there its padding and the mark of the next one. */
struct place_want {
	struct iovec iov[SEND_IOV];
	unsigned niov;
	size_t payload, all;
};

static void want_add(struct place_want *w, void *at, size_t len)
{
	if (!len)
		return;
	w->iov[w->niov++] = (struct iovec){ at, len };
	w->all += len;
}

static void place_want(struct sock_conn *sc, struct place_want *w)
{
	const struct rpc_call *c = sc->rx_call;
	size_t left = sc->frag_left < sc->place_left ? sc->frag_left : sc->place_left, pad;

	w->niov = 0;
	w->payload = w->all = 0;
	want_add(w, sc->conn.svc->scratch, sc->owed);
	for (unsigned i = sc->place_at; i < c->niov && left && w->niov < SEND_IOV - 2; i++) {
		size_t k = c->iov[i].iov_len < left ? c->iov[i].iov_len : left;

		want_add(w, c->iov[i].iov_base, k);
		w->payload += k;
		left -= k;
	}
	pad = sc->frag_left - w->payload;
	if (w->payload == sc->place_left && sc->last && pad < 4) {
		want_add(w, sc->conn.svc->scratch, pad);
		want_add(w, sc->mark, sizeof(sc->mark));
	}
}

static void place_advance(struct sock_conn *sc, size_t n)
{
	struct iovec *iov = sc->rx_call->iov;

	rpc_count(&sc->conn.svc->stats.payload_placed_bytes, n);
	sc->turn_bytes += n;
	sc->frag_left -= (uint32_t)n;
	sc->place_left -= n;
	while (n) {
		struct iovec *v = &iov[sc->place_at];
		size_t k = v->iov_len < n ? v->iov_len : n;

		v->iov_base = (char *)v->iov_base + k;
		v->iov_len -= k;
		n -= k;
		if (!v->iov_len)
			sc->place_at++;
	}
}

static size_t less(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* @n bytes of @w came. */
static void place_got(struct sock_conn *sc, const struct place_want *w, size_t n)
{
	size_t owed = less(n, sc->owed), payload = less(n - owed, w->payload), pad;

	sc->owed -= owed;
	place_advance(sc, payload);
	n -= owed + payload;
	pad = less(n, sc->frag_left);
	sc->frag_left -= (uint32_t)pad;
	sc->nmark = (unsigned)(n - pad);
}

static enum step step_place(struct sock_conn *sc)
{
	struct place_want want;
	struct msghdr msg = { .msg_iov = want.iov };
	ssize_t n;

	if (!sc->place_left) {
		placed(sc, 0);
		return STEP_ON;
	}
	if (!sc->frag_left) {
		if (!sc->last)
			return sc->owed && !owed_take(sc) ? STEP_WAIT : mark_read(sc);
		conn_fail(
			sc,
			&sc->conn.svc->stats.bad_records); /* the record ends before its payload */
		return STEP_WAIT;
	}
	if (sc->dry)
		return STEP_WAIT;
	place_want(sc, &want);
	msg.msg_iovlen = want.niov;
	n = recvmsg(sc->fd, &msg, MSG_DONTWAIT);
	if (n < 0 && errno == EFAULT) { /* its place is gone; the rest is skipped, the call answered */
		placed(sc, -EFAULT);
		return STEP_ON;
	}
	if (n <= 0)
		return rx_nothing(sc, n);
	sc->dry = (size_t)n < want.all;
	place_got(sc, &want, (size_t)n);
	if (!sc->place_left)
		placed(sc, 0);
	return STEP_ON;
}

static void op_place(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);
	struct sock_call *p = c->priv;

	assert(sc->rx_call == c && sc->rx == RX_HELD);
	if (p->inl) {
		rpc_copy_in(sc->conn.svc, c->iov, c->niov, 0, p->inl, c->pub.payload_len);
		rpc_count(&sc->conn.svc->stats.payload_inline_bytes, c->pub.payload_len);
		conn_kick(sc);
		placed(sc, 0);
		return;
	}
	sc->rx = RX_PLACE;
	sc->place_at = 0;
	sc->place_left = c->pub.payload_len;
	sc->rx_since = 0; /* what the program took is not on the peer's account */
	sc->after_bulk = c->pub.payload_len >= BULK_MIN;
	conn_kick(sc);
}

/* --- receiving: heads --- */

/* Run a call whose message up to the payload is msg[0..len). False: the connection is gone. */
static bool run_plain(struct sock_conn *sc, const uint8_t *msg, size_t len)
{
	struct rpc_call *c = rpc_call_get(&sc->conn);

	if (!c || rpc_call_run(c, msg, len, 0)) {
		conn_fail(sc, &sc->conn.svc->stats.bad_records);
		return false;
	}
	return !sc->conn.dead;
}

/* The head and the bytes before it are taken from the socket. @inl: the payload, taken too, or
 * NULL. */
static bool run_payload(struct sock_conn *sc, const uint8_t *msg, size_t len, const uint8_t *inl,
                        uint32_t inl_len)
{
	struct rpc_call *c = rpc_call_get(&sc->conn);
	struct sock_call *p;

	if (!c) {
		conn_fail(sc, &sc->conn.svc->stats.resets);
		return false;
	}
	p = c->priv;
	p->inl = inl;
	sc->rx_call = c;
	sc->rx = RX_HELD;
	if (rpc_call_run(c, msg, len, inl ? inl_len : sc->last ? sc->frag_left : SIZE_MAX)) {
		conn_fail(sc, &sc->conn.svc->stats.bad_records);
		return false;
	}
	if (sc->conn.dead)
		return false;
	if (sc->rx == RX_HELD && sc->rx_call == c &&
	    inl) { /* placed later: the scratch area is others' by then */
		p->inl = p->inl_own = malloc(inl_len + 1u);
		if (!p->inl_own) {
			conn_fail(sc, &sc->conn.svc->stats.resets);
			return false;
		}
		memcpy(p->inl_own, inl, inl_len);
	}
	return true;
}

static bool may_read_heads(const struct sock_conn *sc)
{
	return !sc->eof && !sc->stopping && sc->conn.ncalls < MAX_CALLS &&
	       sc->unsent_bytes < MAX_UNSENT;
}

/* The head that was gathered is complete. */
static enum step gather_run(struct sock_conn *sc, bool payload)
{
	uint8_t *head = sc->head;
	size_t len = sc->head_len;

	sc->head = NULL;
	sc->head_len = sc->head_cap = 0;
	if (payload) {
		run_payload(sc, head, len, NULL, 0);
	} else {
		record_end(sc);
		run_plain(sc, head, len);
	}
	free(head);
	return sc->conn.dead ? STEP_WAIT : STEP_ON;
}

static bool head_reserve(struct sock_conn *sc, size_t len)
{
	uint8_t *p;
	size_t cap = len < 256 ? 256 : len;

	if (len <= sc->head_cap)
		return true;
	p = realloc(sc->head, cap);
	if (!p)
		return false;
	sc->head = p;
	sc->head_cap = cap;
	return true;
}

/* One read of a head that did not come in one piece: never beyond what the head is known to need.
 */
static enum step step_gather(struct sock_conn *sc)
{
	struct rpc_head h;
	size_t want;
	ssize_t n;

	if (!sc->in_record)
		return mark_read(sc);
	rpc_head_scan(sc->conn.svc, sc->head, sc->head_len, &h);
	if (h.kind == RPC_HEAD_PAYLOAD)
		return gather_run(sc, true);
	if (!sc->frag_left && !sc->last)
		return mark_read(sc);
	if (!sc->frag_left)
		return gather_run(sc,
		                  false); /* cut short, if it is: rpc_call_run() knows the answer */
	want = sc->frag_left;
	if (h.kind == RPC_HEAD_MORE && h.len - sc->head_len < want)
		want = h.len - sc->head_len;
	if (h.kind == RPC_HEAD_BAD || sc->head_len + want > sc->conn.svc->o.max_call ||
	    !head_reserve(sc, sc->head_len + want)) {
		conn_fail(sc, &sc->conn.svc->stats.bad_records);
		return STEP_WAIT;
	}
	if (sc->dry)
		return STEP_WAIT;
	n = recv(sc->fd, sc->head + sc->head_len, want, MSG_DONTWAIT);
	if (n <= 0)
		return rx_nothing(sc, n);
	sc->dry = (size_t)n < want;
	sc->head_len += (size_t)n;
	sc->frag_left -= (uint32_t)n;
	return STEP_ON;
}

/* A payload call whose head is whole at msg, in the scratch area, with @have bytes of the record. */
static enum step peeked_payload(struct sock_conn *sc, const uint8_t *msg, size_t have,
                                const struct rpc_head *h)
{
	bool inl = h->payload_len <= INLINE_MAX && h->payload_len <= have - h->len && sc->last;
	size_t used = h->len + (inl ? h->payload_len : 0);

	sc->owed = (size_t)(msg - sc->conn.svc->scratch) + used;
	if (inl && !owed_take(sc))
		return STEP_WAIT;
	sc->frag_left -= (uint32_t)used;
	return run_payload(sc, msg, h->len, inl ? msg + h->len : NULL, h->payload_len) ? STEP_ON
	                                                                               : STEP_WAIT;
}

/* Of what was looked at, @at bytes are done with. */
static enum step peek_end(struct sock_conn *sc, size_t at, size_t got, size_t room)
{
	enum step s = STEP_ON;

	if (!at)
		s = mark_read(sc); /* not even a whole mark with something behind it */
	else if (!take(sc, at))
		return STEP_WAIT;
	sc->dry = sc->dry || (at == got && got < room);
	return s;
}

/* Look at what is there from the start of a record on, or from behind its mark, and run what is whole. */
static enum step step_peek(struct sock_conn *sc, unsigned *ncalls)
{
	struct tp_service *svc = sc->conn.svc;
	size_t at = 0, room = sc->after_bulk ? PEEK_AFTER_BULK : SCRATCH;
	size_t mark = sc->in_record ? 0 : sizeof(sc->mark); /* of this record, not yet taken */
	ssize_t got;

	if (sc->dry)
		return STEP_WAIT;
	got = recv(sc->fd, svc->scratch, room, MSG_PEEK | MSG_DONTWAIT);
	if (got <= 0)
		return rx_nothing(sc, got);
	sc->after_bulk = false;
	for (; (size_t)got - at > mark && *ncalls < TURN_CALLS && may_read_heads(sc);
	     mark = sizeof(sc->mark)) {
		const uint8_t *msg = svc->scratch + at + mark;
		size_t have = (size_t)got - at - mark;
		struct rpc_head h;

		if (mark && !frag_open(sc, svc->scratch + at)) {
			conn_fail(sc, &svc->stats.bad_records);
			return STEP_WAIT;
		}
		if (have > sc->frag_left)
			have = sc->frag_left;
		rpc_head_scan(svc, msg, have, &h);
		if (h.kind == RPC_HEAD_BAD) {
			conn_fail(sc, &svc->stats.bad_headers);
			return STEP_WAIT;
		}
		if (h.kind == RPC_HEAD_PAYLOAD) {
			++*ncalls;
			return peeked_payload(sc, msg, have, &h);
		}
		if (have < sc->frag_left || !sc->last) {
			sc->gather = !at;
			if (!at)
				return take(sc, mark) ? STEP_ON : STEP_WAIT;
			sc->in_record = false; /* look again from here */
			break;
		}
		at += mark + have;
		sc->frag_left = 0;
		record_end(sc);
		++*ncalls;
		if (!run_plain(sc, msg, have))
			return STEP_WAIT;
	}
	return peek_end(sc, at, (size_t)got, room);
}

/* False: its turn is over, though there may be more to do without any further byte from the peer.
 */
static bool conn_read(struct sock_conn *sc)
{
	enum step s = STEP_ON;
	unsigned ncalls = 0;

	sc->turn_bytes = 0;
	sc->dry = false;
	for (unsigned i = 0; i < TURN_STEPS && sc->turn_bytes < TURN_BYTES; i++) {
		if (s == STEP_WAIT || sc->conn.dead)
			return true;
		switch (sc->rx) {
		case RX_HEAD:
			if (!may_read_heads(sc))
				return true;
			if (ncalls >= TURN_CALLS)
				return false;
			s = sc->gather || sc->nmark ? step_gather(sc) : step_peek(sc, &ncalls);
			break;
		case RX_HELD:
			return true;
		case RX_PLACE:
			s = step_place(sc);
			break;
		case RX_SKIP:
			s = step_skip(sc);
			break;
		}
	}
	return false;
}

static void conn_turn(struct sock_conn *sc)
{
	bool over;

	rpc_conn_get(&sc->conn);
	sc->reading = true;
	over = !conn_read(sc);
	sc->reading = false;
	if (over && !sc->conn.dead && !ev_is_active(&sc->again)) {
		ev_timer_set(&sc->again, 0., 0.);
		ev_timer_start(sc->conn.svc->loop, &sc->again);
	}
	conn_update(sc);
	rpc_conn_put(&sc->conn);
}

static void conn_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	(void)loop;
	(void)revents;
	conn_turn(container_of(w, struct sock_conn, rd));
}

static void conn_again(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	conn_turn(container_of(w, struct sock_conn, again));
}

/* --- watchers, time, the end --- */

static void io_want(struct ev_loop *loop, ev_io *w, bool want)
{
	if (want && !ev_is_active(w))
		ev_io_start(loop, w);
	else if (!want && ev_is_active(w))
		ev_io_stop(loop, w);
}

/* Does the peer owe us the rest of a call? */
static bool half_sent(const struct sock_conn *sc)
{
	if (sc->eof || sc->rx == RX_HELD || (sc->rx == RX_HEAD && !may_read_heads(sc)))
		return false;
	return sc->rx == RX_PLACE || sc->in_record || sc->nmark;
}

/* The timer runs only while the peer owes us something. */
static void timer_update(struct sock_conn *sc)
{
	struct ev_loop *loop = sc->conn.svc->loop;
	ev_tstamp since;

	if (!half_sent(sc))
		sc->rx_since = 0;
	else if (sc->rx_since == 0)
		sc->rx_since = ev_now(loop);
	if (STAILQ_EMPTY(&sc->unsent))
		sc->tx_since = 0;
	else if (sc->tx_since == 0)
		sc->tx_since = ev_now(loop);
	since = sc->rx_since;
	if (sc->tx_since != 0 && (since == 0 || sc->tx_since < since))
		since = sc->tx_since;
	if (since == 0) {
		ev_timer_stop(loop, &sc->timer);
	} else if (!ev_is_active(&sc->timer)) {
		ev_timer_set(&sc->timer, since + sc->conn.svc->o.idle_timeout - ev_now(loop), 0.);
		ev_timer_start(loop, &sc->timer);
	}
}

static void conn_timeout(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct sock_conn *sc = container_of(w, struct sock_conn, timer);
	ev_tstamp limit = ev_now(loop) - sc->conn.svc->o.idle_timeout;

	(void)revents;
	/* It may have been started for an earlier debt that was paid meanwhile. */
	if ((sc->rx_since != 0 && sc->rx_since <= limit) ||
	    (sc->tx_since != 0 && sc->tx_since <= limit)) {
		conn_fail(sc, &sc->conn.svc->stats.timeouts);
		return;
	}
	timer_update(sc);
}

static void conn_update(struct sock_conn *sc)
{
	struct ev_loop *loop = sc->conn.svc->loop;
	bool done = sc->eof || (sc->stopping && (sc->rx == RX_HEAD || sc->rx == RX_SKIP));

	if (sc->conn.dead)
		return;
	if (done && !sc->conn.ncalls) {
		conn_close(&sc->conn);
		return;
	}
	switch (sc->rx) {
	case RX_HEAD:
		io_want(loop, &sc->rd, may_read_heads(sc));
		break;
	case RX_HELD:
		io_want(loop, &sc->rd, false);
		break;
	case RX_PLACE:
	case RX_SKIP:
		io_want(loop, &sc->rd, !sc->eof);
		break;
	}
	io_want(loop, &sc->wr, !STAILQ_EMPTY(&sc->unsent));
	timer_update(sc);
}

static const struct tp_conn_ops sock_ops = {
	.priv_size = sizeof(struct sock_call),
	.priv_zeroed = offsetof(struct sock_call, small),
	.place = op_place,
	.reply_buf = op_reply_buf,
	.reply_end = op_reply_end,
	.drop = op_drop,
	.stop = conn_stop,
	.close = conn_close,
	.free = conn_free,
};

/* --- a new connection --- */

/* A peer that is gone without a word: asked after half of @timeout seconds, given up after all of it. */
static void tune(int fd, unsigned timeout)
{
	int on = 1, count = 4, idle = (int)(timeout + 1) / 2;
	int interval = (int)(timeout + 7) / 8;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

int sock_conn_new(struct tp_service *svc, int fd, const struct sockaddr_storage *peer)
{
	struct sock_conn *sc = calloc(1, sizeof(*sc));
	int err;

	if (!svc->scratch)
		svc->scratch = malloc(SCRATCH);
	if (!sc || !svc->scratch) {
		free(sc);
		return -ENOMEM;
	}
	err = rpc_conn_init(&sc->conn, svc, TP_TCP, &sock_ops);
	if (err) {
		free(sc);
		return err;
	}
	tune(fd, svc->o.client_timeout);
	sc->fd = fd;
	sc->conn.peer = *peer;
	STAILQ_INIT(&sc->unsent);
	ev_io_init(&sc->rd, conn_readable, fd, EV_READ);
	ev_io_init(&sc->wr, conn_writable, fd, EV_WRITE);
	ev_timer_init(&sc->timer, conn_timeout, 0., 0.);
	ev_timer_init(&sc->again, conn_again, 0., 0.);
	ev_io_start(svc->loop, &sc->rd);
	return 0;
}
