/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * socket_recv.c - calls over TCP: from bytes of a socket to a head that is run and a payload that is placed
 *
 * The point of the receiving side is that payload is never read where it does not belong. So the
 * socket is looked into (MSG_PEEK, a few KiB into a scratch area shared by all connections) before
 * anything is taken from it:
 *
 *   small calls   that are whole are run from the scratch area, answered, and then taken with
 *                 MSG_TRUNC, which copies nothing: the replies carry TCP's acknowledgement;
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
 */
#include "transport/socket.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
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
	PLACE_IOV = 256,
	LAST_FRAGMENT = 1u << 31,
};

/* --- fragments --- */

enum step { STEP_ON, STEP_WAIT }; /* look at the state again; nothing more to do now */

/* The socket said @n: no bytes. Half a call that will never be whole ends the connection at once.
 */
static enum step rx_nothing(struct sock_conn *sc, ssize_t n)
{
	if (n < 0 && errno == EINTR)
		return STEP_ON;
	if (n < 0 && sock_blocked())
		return STEP_WAIT;
	if (n < 0 || sc->rx == RX_PLACE)
		sock_fail(sc, &sc->conn.svc->stats.resets);
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
		sock_fail(sc, &sc->conn.svc->stats.bad_records);
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
			sock_fail(sc, &sc->conn.svc->stats.resets);
			return false;
		}
		n -= (size_t)k;
	}
	return true;
}

/* --- the payload, and what is not wanted --- */

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
	struct iovec iov[PLACE_IOV];
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
	for (unsigned i = sc->place_at; i < c->niov && left && w->niov < PLACE_IOV - 2; i++) {
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
		sock_fail(
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

void sock_place(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);
	struct sock_call *p = c->priv;

	assert(sc->rx_call == c && sc->rx == RX_HELD);
	if (p->inl) {
		rpc_copy_in(sc->conn.svc, c->iov, c->niov, 0, p->inl, c->pub.payload_len);
		rpc_count(&sc->conn.svc->stats.payload_inline_bytes, c->pub.payload_len);
		sock_kick(sc);
		placed(sc, 0);
		return;
	}
	sc->rx = RX_PLACE;
	sc->place_at = 0;
	sc->place_left = c->pub.payload_len;
	sc->rx_since = 0; /* what the program took is not on the peer's account */
	sc->after_bulk = c->pub.payload_len >= BULK_MIN;
	sock_kick(sc);
}

/* The payload of @c, pending or refused, is not wanted: what is left of its record goes nowhere. */
void sock_forget(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);

	if (sc->rx_call != c)
		return;
	sc->rx_call = NULL;
	sc->rx = RX_SKIP;
	sock_kick(sc);
}

/* --- heads --- */

/* Run a call whose message up to the payload is msg[0..len). False: the connection is gone. *@since: when that in front of
 * it ended, and this one begins; then the same for the next; 0: it has not ended yet. */
static bool run_plain(struct sock_conn *sc, const uint8_t *msg, size_t len, uint64_t *since)
{
	struct tp_service *svc = sc->conn.svc;
	struct rpc_call *c = rpc_call_get(&sc->conn);

	svc->ended_ns = 0;
	if (c)
		c->begun_ns = *since;
	if (!c || rpc_call_run(c, msg, len, 0)) {
		sock_fail(sc, &svc->stats.bad_records);
		return false;
	}
	*since = svc->ended_ns;
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
		sock_fail(sc, &sc->conn.svc->stats.resets);
		return false;
	}
	p = c->priv;
	p->inl = inl;
	sc->rx_call = c;
	sc->rx = RX_HELD;
	if (rpc_call_run(c, msg, len, inl ? inl_len : sc->last ? sc->frag_left : SIZE_MAX)) {
		sock_fail(sc, &sc->conn.svc->stats.bad_records);
		return false;
	}
	if (sc->conn.dead)
		return false;
	if (sc->rx == RX_HELD && sc->rx_call == c &&
	    inl) { /* placed later: the scratch area is others' by then */
		p->inl = p->inl_own = malloc(inl_len + 1u);
		if (!p->inl_own) {
			sock_fail(sc, &sc->conn.svc->stats.resets);
			return false;
		}
		memcpy(p->inl_own, inl, inl_len);
	}
	return true;
}

bool sock_may_read(const struct sock_conn *sc)
{
	return !sc->eof && !sc->stopping && sc->conn.ncalls < MAX_CALLS &&
	       sc->unsent_bytes < MAX_UNSENT;
}

/* The head that was gathered is complete. */
static enum step gather_run(struct sock_conn *sc, bool payload)
{
	uint8_t *head = sc->head;
	size_t len = sc->head_len;
	uint64_t now = 0;

	sc->head = NULL;
	sc->head_len = sc->head_cap = 0;
	if (payload) {
		run_payload(sc, head, len, NULL, 0);
	} else {
		record_end(sc);
		run_plain(sc, head, len, &now);
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
		sock_fail(sc, &sc->conn.svc->stats.bad_records);
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

/* Of what was looked at, @at bytes are done with. If that is all there was, they are taken at the end of the turn: what is
 * taken before its replies leave, TCP acknowledges with a segment of its own. */
static enum step peek_end(struct sock_conn *sc, size_t at, size_t got, size_t room)
{
	if (!at)
		return mark_read(sc); /* not even a whole mark with something behind it */
	sc->owed = at;
	sc->dry = at == got && got < room;
	return sc->dry || owed_take(sc) ? STEP_ON : STEP_WAIT;
}

/* Look at what is there from the start of a record on, or from behind its mark, and run what is whole. */
static enum step step_peek(struct sock_conn *sc, unsigned *ncalls)
{
	struct tp_service *svc = sc->conn.svc;
	size_t at = 0, room = sc->after_bulk ? PEEK_AFTER_BULK : SOCK_SCRATCH;
	size_t mark = sc->in_record ? 0 : sizeof(sc->mark); /* of this record, not yet taken */
	uint64_t since = 0;
	ssize_t got;

	if (sc->dry)
		return STEP_WAIT;
	got = recv(sc->fd, svc->scratch, room, MSG_PEEK | MSG_DONTWAIT);
	if (got <= 0)
		return rx_nothing(sc, got);
	sc->after_bulk = false;
	for (; (size_t)got - at > mark && *ncalls < TURN_CALLS && sock_may_read(sc);
	     mark = sizeof(sc->mark)) {
		const uint8_t *msg = svc->scratch + at + mark;
		size_t have = (size_t)got - at - mark;
		struct rpc_head h;

		if (mark && !frag_open(sc, svc->scratch + at)) {
			sock_fail(sc, &svc->stats.bad_records);
			return STEP_WAIT;
		}
		if (have > sc->frag_left)
			have = sc->frag_left;
		rpc_head_scan(svc, msg, have, &h);
		if (h.kind == RPC_HEAD_BAD) {
			sock_fail(sc, &svc->stats.bad_headers);
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
		if (!run_plain(sc, msg, have, &since))
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
			if (!sock_may_read(sc))
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

void sock_take(struct sock_conn *sc)
{
	if (sc->rx == RX_HEAD && sc->owed && !sc->conn.dead)
		owed_take(sc);
}

/* What was read in this turn may share its end with what others read in this round of the loop. */
static void turn_send(struct sock_conn *sc)
{
	bool later = rpc_turn_over(sc->conn.svc);

	sc->turning = false;
	if (later) {
		if (!STAILQ_EMPTY(&sc->unsent))
			ev_feed_event(sc->conn.svc->loop, &sc->wr, EV_WRITE);
		return;
	}
	if (!ev_is_active(&sc->wr)) /* else it is full, and the loop tells when it is not */
		sock_send(sc);
	sock_take(sc);
}

static void conn_turn(struct sock_conn *sc)
{
	bool over;

	rpc_conn_get(&sc->conn);
	sock_take(sc); /* another turn, and the replies of the last one are still to leave */
	sc->reading = sc->turning = true;
	over = !conn_read(sc);
	sc->reading = false;
	turn_send(sc);
	if (over && !sc->conn.dead && !ev_is_active(&sc->again)) {
		ev_timer_set(&sc->again, 0., 0.);
		ev_timer_start(sc->conn.svc->loop, &sc->again);
	}
	if (!ev_is_pending(&sc->wr)) /* else behind its replies */
		sock_update(sc);
	rpc_conn_put(&sc->conn);
}

void sock_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	(void)loop;
	(void)revents;
	conn_turn(container_of(w, struct sock_conn, rd));
}

void sock_again(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	conn_turn(container_of(w, struct sock_conn, again));
}
