/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * socket.c - a connection of ONC RPC with record marking (RFC 5531 section 11) over TCP: its replies, its watchers and its end;
 * socket_recv.c has the calls
 *
 * A connection between two records owns no buffer. Replies that become ready in one turn of the
 * loop leave with one sendmsg(), the payload straight from the program's segments. All decisions
 * about watchers, the timer and the end of a connection are in sock_update(), which runs after
 * every event.
 */
#include "transport/socket.h"

#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	SEND_IOV = 256,
	LAST_FRAGMENT = 1u << 31,
};

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
void sock_fail(struct sock_conn *sc, uint64_t *counter)
{
	rpc_count(counter, 1);
	conn_close(&sc->conn);
}

static void conn_stop(struct tp_conn *conn)
{
	struct sock_conn *sc = container_of(conn, struct sock_conn, conn);

	sc->stopping = true;
	if (!sc->reading)
		sock_update(sc);
}

/* Something changed outside conn_read(): let it look. */
void sock_kick(struct sock_conn *sc)
{
	if (!sc->conn.dead && !sc->reading)
		ev_feed_event(sc->conn.svc->loop, &sc->rd, EV_READ);
}

/* --- sending --- */

static uint8_t *op_reply_buf(struct rpc_call *c, size_t max)
{
	struct sock_call *p = c->priv;

	sock_forget(c);
	p->raw = max + 4 <= sizeof(p->small) ? p->small : malloc(max + 4);
	return p->raw ? p->raw + 4 : NULL;
}

static void op_drop(struct rpc_call *c)
{
	struct sock_conn *sc = sock_of(c);

	sock_forget(c);
	call_release(c->priv);
	sock_kick(sc); /* it may have been the last thing that a closing connection waited for */
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
	if (STAILQ_EMPTY(&sc->unsent) && !sc->turning)
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

void sock_send(struct sock_conn *sc)
{
	while (!sc->conn.dead && !STAILQ_EMPTY(&sc->unsent)) {
		ssize_t n = send_some(sc);

		if (n >= 0)
			sent_bytes(sc, (uint64_t)n);
		else if (!sock_blocked())
			sock_fail(sc, &sc->conn.svc->stats.resets);
		else if (errno != EINTR)
			break;
	}
}

static void conn_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct sock_conn *sc = container_of(w, struct sock_conn, wr);

	(void)loop;
	(void)revents;
	rpc_conn_get(&sc->conn);
	sock_send(sc);
	sock_take(sc);
	sock_update(sc);
	rpc_conn_put(&sc->conn);
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
	if (sc->eof || sc->rx == RX_HELD || (sc->rx == RX_HEAD && !sock_may_read(sc)))
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
		sock_fail(sc, &sc->conn.svc->stats.timeouts);
		return;
	}
	timer_update(sc);
}

void sock_update(struct sock_conn *sc)
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
		io_want(loop, &sc->rd, sock_may_read(sc));
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
	.place = sock_place,
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

	if (!svc->scratch) /* at the beginning of a page, where the kernel's copies of what is first in one are fast */
		svc->scratch = aligned_alloc(SOCK_SCRATCH, SOCK_SCRATCH);
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
	ev_io_init(&sc->rd, sock_readable, fd, EV_READ);
	ev_io_init(&sc->wr, conn_writable, fd, EV_WRITE);
	ev_set_priority(&sc->wr, EV_MINPRI); /* behind the end of the turn */
	ev_timer_init(&sc->timer, conn_timeout, 0., 0.);
	ev_timer_init(&sc->again, sock_again, 0., 0.);
	ev_io_start(svc->loop, &sc->rd);
	return 0;
}
