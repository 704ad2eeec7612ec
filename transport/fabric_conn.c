/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_conn.c - a connection on a fabric, from its request or hello to its death
 *
 * A connection is dead at the first sign (fconn_kill), its endpoint is closed in the turn, and then its calls get their
 * callbacks. The order in fconns_reap() is what makes it safe: close, drain, take back.
 */
#include "transport/fabric_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define BATCH         128 /* events taken at once, completions while draining */
#define FIRST_CREDITS 8
#define SPARE         1 /* receives beyond the credits, for a peer that oversteps */

/* --- work and death --- */

static void kick(struct flistener *l)
{
	if (!l->in_turn)
		ev_idle_start(flistener_loop(l), &l->idle);
}

void fconn_clean(struct fconn *conn)
{
	if (conn->queued == FCONN_DIRTY)
		TAILQ_REMOVE(&conn->l->dirty, conn, dlink);
	else if (conn->queued == FCONN_STUCK)
		TAILQ_REMOVE(&conn->l->stuck, conn, dlink);
	conn->queued = FCONN_CLEAN;
}

void fconn_dirty(struct fconn *conn)
{
	if (conn->state == FCONN_DYING || !conn->l)
		return;
	if (conn->queued == FCONN_CLEAN) {
		conn->queued = FCONN_DIRTY;
		TAILQ_INSERT_TAIL(&conn->l->dirty, conn, dlink);
	}
	kick(conn->l);
}

void fconn_kill(struct fconn *conn)
{
	struct flistener *l = conn->l;

	if (conn->state == FCONN_DYING)
		return;
	fconn_clean(conn);
	conn->state = FCONN_DYING;
	TAILQ_REMOVE(&l->conns, conn, link);
	TAILQ_INSERT_TAIL(&l->dying, conn, link);
	rpc_conn_dead(&conn->base);
	kick(l);
}

void fconn_out(struct fconn *conn)
{
	struct ev_loop *loop = flistener_loop(conn->l);

	if (!conn->nout++)
		conn->moved = ev_now(loop);
	conn->l->nout++;
	if (conn->own)
		fown_wake(conn->own);
	if (!ev_is_active(&conn->timer)) {
		ev_timer_set(&conn->timer, conn->base.svc->o.idle_timeout, 0.);
		ev_timer_start(loop, &conn->timer);
	}
}

void fconn_back(struct fconn *conn)
{
	conn->nout--;
	conn->l->nout--;
	conn->moved = ev_now(flistener_loop(conn->l));
}

/* An opening that takes too long, or a peer that lets our operations lie. */
static void conn_timer(struct ev_loop *loop, ev_timer *w, int events)
{
	struct fconn *conn = w->data;
	double limit = conn->base.svc->o.idle_timeout, since = ev_now(loop) - conn->moved;

	(void)events;
	if (conn->state == FCONN_OPENING || (conn->nout && since >= limit)) {
		rpc_count(&conn->base.svc->stats.timeouts, 1);
		fconn_kill(conn);
	} else if (conn->nout) {
		ev_timer_set(w, limit - since, 0.);
		ev_timer_start(loop, w);
	}
}

/* --- receives --- */

static struct fconn *conn_by_addr(const struct flistener *l, fi_addr_t from)
{
	return from < l->naddr ? l->by_addr[from] : NULL;
}

static void msg_received(struct fab_op *op, int err)
{
	struct fbuf *b = container_of(op, struct fbuf, op);
	struct fconn *conn = b->conn;

	LIST_REMOVE(b, link);
	conn->posted--;
	if (err)
		fconn_kill(conn);
	else
		fkeys_heard(conn);
	if (conn->state == FCONN_DYING || !fcall_message(conn, b, op->len))
		fbuf_put(b);
	fconn_dirty(conn);
}

static void rdm_received(struct fab_op *op, int err)
{
	struct fbuf *b = container_of(op, struct fbuf, op);
	struct flistener *l = (struct flistener *)(void *)b->conn;
	struct fconn *conn = conn_by_addr(l, op->from);

	LIST_REMOVE(b, link);
	l->posted--;
	if (err)
		rpc_count(&l->base.svc->stats.provider_errors, 1);
	if (conn && conn->hand > conn->granted + RDM_SPARE)
		fconn_kill(conn); /* it would starve the others of receives */
	if (conn && !err)
		fkeys_heard(conn);
	if (err || !conn || conn->state != FCONN_UP || !fcall_message(conn, b, op->len))
		fbuf_put(b);
}

static int recv_post(struct flistener *l, struct fid_ep *ep, struct fconn *conn)
{
	struct fpool *pool = conn ? conn->pool : l->pool;
	struct fbuf *b = fbuf_get(pool, pool->cap);
	int err;

	if (!b)
		return -ENOMEM;
	/* RDM: whose message it is shows when it comes. */
	b->conn = conn ? conn : (struct fconn *)(void *)l;
	b->op.done = conn ? msg_received : rdm_received;
	err = fab_recv(conn ? fconn_fab(conn) : l->fab, ep, b->p, b->cap, b->desc, &b->op);
	if (err) {
		fbuf_put(b);
		return err;
	}
	LIST_INSERT_HEAD(conn ? &conn->recvs : &l->recvs, b, link);
	return 0;
}

/* One receive per credit that is not in hand, and the spare. */
static int msg_recvs(struct fconn *conn)
{
	int err = 0;

	while (!err && conn->posted + conn->hand < conn->granted + SPARE) {
		err = recv_post(conn->l, conn->ep, conn);
		conn->posted += !err;
	}
	return err;
}

int frecvs_rdm(struct flistener *l)
{
	int err = 0;

	while (!err && l->posted < l->recv_want) {
		err = recv_post(l, l->fab->ep, NULL);
		l->posted += !err;
	}
	return err;
}

/* --- connections --- */

static int conn_new(struct flistener *l, enum tp_kind kind, struct fconn **out)
{
	struct fconn *conn = calloc(1, sizeof(*conn));
	int err;

	if (!conn)
		return -ENOMEM;
	err = l->stopped ? -ESHUTDOWN : rpc_conn_init(&conn->base, l->base.svc, kind, &fcall_ops);
	if (err) {
		free(conn);
		return err;
	}
	conn->l = l;
	conn->pool = l->pool;
	conn->pool->refs++;
	conn->addr = kind == TP_FABRIC_RDM ? FI_ADDR_NOTAVAIL : FI_ADDR_UNSPEC;
	conn->rdv = RDV_NONE;
	conn->most = l->opts.credits;
	conn->granted = FIRST_CREDITS < conn->most ? FIRST_CREDITS : conn->most;
	conn->peer_max = RR_DEF_INLINE;
	LIST_INIT(&conn->recvs);
	LIST_INIT(&conn->sends);
	LIST_INIT(&conn->rmas);
	TAILQ_INIT(&conn->keys);
	TAILQ_INIT(&conn->closing);
	STAILQ_INIT(&conn->readq);
	STAILQ_INIT(&conn->writeq);
	STAILQ_INIT(&conn->sendq);
	TAILQ_INSERT_TAIL(&l->conns, conn, link);
	rpc_count(&l->base.svc->stats.credits, conn->granted);
	ev_timer_init(&conn->timer, conn_timer, l->base.svc->o.idle_timeout, 0.);
	conn->timer.data = conn;
	ev_timer_start(flistener_loop(l), &conn->timer);
	*out = conn;
	return 0;
}

/* What never came back. FI_EP_MSG: the endpoint is closed, it is ours again. FI_EP_RDM: the
 * provider may still hold it. */
static void conn_take_back(struct flistener *l, struct fconn *conn)
{
	bool orphan = l->fab && l->fab->rdm;
	struct frma *r;
	struct fbuf *b;

	while ((b = LIST_FIRST(&conn->recvs))) {
		LIST_REMOVE(b, link);
		fbuf_put(b);
	}
	while ((b = LIST_FIRST(&conn->sends))) {
		LIST_REMOVE(b, link);
		b->conn = NULL;
		if (orphan) {
			LIST_INSERT_HEAD(&l->orphan_sends, b, link);
			continue;
		}
		if (b->big)
			LIST_INSERT_HEAD(&b->pool->big, b, link);
		fbuf_put(b);
	}
	while ((r = LIST_FIRST(&conn->rmas))) {
		LIST_REMOVE(r, link);
		r->conn = NULL;
		if (orphan) {
			LIST_INSERT_HEAD(&l->orphans, r, link);
			continue;
		}
		fbuf_put(r->stage);
		free(r);
	}
	while ((b = STAILQ_FIRST(&conn->sendq))) {
		STAILQ_REMOVE_HEAD(&conn->sendq, next);
		fbuf_put(b);
	}
	l->nout -= conn->nout;
	conn->nout = 0;
}

void fconn_drain(struct fab *f)
{
	while (f && fab_progress(f, BATCH) >= BATCH)
		;
}

static void rdm_leave(struct flistener *l, struct fconn *conn)
{
	fi_addr_t addr = conn->addr;

	fconn_drain(l->fab);
	conn->addr = FI_ADDR_NOTAVAIL;
	if (l->fab && addr != FI_ADDR_NOTAVAIL) {
		l->by_addr[addr] = NULL;
		l->recv_want -= conn->granted + SPARE;
		fab_enter(l->fab);
		fi_av_remove(l->fab->av, &addr, 1, 0);
		fab_leave(l->fab);
	}
	if (l->page)
		rdv_page_put(l->page, &conn->rdv);
	ev_io_stop(flistener_loop(l), &conn->rdv_io);
	rdv_close(&conn->rdv);
	if (conn->shm_name[0])
		fab_unlink_shm(conn->shm_name);
	l->suspect = l->fab && l->fab->shm;
}

static void touched(struct fab_op *op, int err)
{
	(void)err;
	free(container_of(op, struct frma, op));
}

/* An operation of no bytes, which is not wanted itself. */
static void shm_touch(struct flistener *l, fi_addr_t addr)
{
	struct frma *r = calloc(1, sizeof(*r));
	struct iovec none = { .iov_base = l, .iov_len = 0 };
	void *desc = NULL;

	if (!r)
		return;
	r->op.done = touched;
	if (fab_write(l->fab, l->fab->ep, &none, &desc, 1, addr, 0, 0, &r->op))
		free(r);
}

/* A killed client may have left the lock of our region taken. We would not notice, because the provider takes it for us only
 * after somebody has signalled, which takes the lock: clients would spin in vain, one after the other. What is sent
 * to ourselves needs it as theirs does, and if it hangs the watchdog does the rest. */
static void look_for_lock(struct flistener *l)
{
	if (!l->suspect || !l->fab)
		return;
	l->suspect = false;
	shm_touch(l, l->self);
}

void fconns_reap(struct flistener *l)
{
	struct fconn *conn;

	while ((conn = TAILQ_FIRST(&l->dying))) {
		struct fid_ep *ep = conn->ep;

		ev_timer_stop(flistener_loop(l), &conn->timer);
		fkeys_close(conn);
		conn->ep = NULL;
		if (conn->base.kind == TP_FABRIC_RDM) {
			rdm_leave(l, conn);
		} else if (ep && l->fab) {
			fab_ep_close(fconn_fab(conn), ep);
			fconn_drain(fconn_fab(conn));
		}
		TAILQ_REMOVE(&l->dying, conn, link);
		conn_take_back(l, conn);
		rpc_count(&l->base.svc->stats.credits, -(uint64_t)conn->granted);
		fcall_fail_all(conn, -ECONNRESET);
		conn->l = NULL;
		fkeys_dead(conn);
		fown_close(l, conn);
		rpc_conn_over(&conn->base);
		rpc_conn_put(&conn->base);
	}
	look_for_lock(l);
}

/* --- FI_EP_MSG: connection requests and their end --- */

static void reject(struct flistener *l, struct fi_info *info)
{
	fab_enter(l->fab);
	fi_reject(l->pep, info->handle, NULL, 0);
	fab_leave(l->fab);
}

/* Whose connection it is. The address says what it is; addr_format does not: with verbs it stays that of the listener (FI_SOCKADDR_IB).
 * Nobody is let in without one: a peer that has none counts as on this machine. */
static int take_address(struct fconn *conn, const struct fi_info *info)
{
	const struct sockaddr *sa = info->dest_addr;
	size_t len = info->dest_addrlen;

	if (!sa || len < sizeof(struct sockaddr_in) || len > sizeof(conn->base.peer))
		return -EADDRNOTAVAIL;
	if (sa->sa_family != AF_INET && (sa->sa_family != AF_INET6 || len < sizeof(struct sockaddr_in6)))
		return -EAFNOSUPPORT;
	memcpy(&conn->base.peer, sa, len);
	return 0;
}

static int msg_open(struct flistener *l, struct fconn *conn, struct fab_event *ev)
{
	uint32_t send_size, recv_size, cap = (uint32_t)l->pool->cap;
	uint8_t cm[RR_CM_SIZE];
	int err = take_address(conn, ev->info);

	if (!err)
		err = fown_asked(l, conn, ev->data, ev->len);
	if (err > 0)
		err = fown_open(l, conn);
	if (!err)
		err = fab_ep_open(fconn_fab(conn), ev->info, conn, &conn->ep);
	if (err)
		return err;
	rr_cm_decode(ev->data, ev->len, &send_size, &recv_size);
	conn->peer_max = recv_size < cap ? recv_size : cap;
	err = msg_recvs(conn);
	if (err && err != -EAGAIN)
		return err;
	rr_cm_encode(cm, cap, cap);
	fab_enter(l->fab);
	err = fi_accept(conn->ep, cm, sizeof(cm));
	fab_leave(l->fab);
	return err;
}

static void msg_request(struct flistener *l, struct fab_event *ev)
{
	struct fconn *conn;
	int err = conn_new(l, TP_FABRIC_MSG, &conn);

	if (err) {
		reject(l, ev->info);
	} else {
		err = msg_open(l, conn, ev);
		if (err) {
			if (!conn->ep)
				reject(l, ev->info);
			fconn_kill(conn);
		}
	}
	if (err && err != -EUSERS)
		rpc_log(l->base.svc, LOG_NOTICE, "fabric %s: connection refused: %s", l->opts.name,
		        fi_strerror(-err));
	fi_freeinfo(ev->info);
}

static struct fconn *conn_by_fid(struct flistener *l, fid_t fid)
{
	struct fconn *conn;

	/* An event may be about an endpoint that is closed by now: its context is not to be
	 * trusted. */
	TAILQ_FOREACH (conn, &l->conns, link)
		if (conn->ep && &conn->ep->fid == fid)
			return conn;
	return NULL;
}

static void msg_event(struct flistener *l, struct fab_event *ev)
{
	struct fconn *conn;

	if (!ev->err && ev->event == FI_CONNREQ) {
		msg_request(l, ev);
		return;
	}
	conn = conn_by_fid(l, ev->fid);
	if (!conn)
		return;
	if (!ev->err && ev->event == FI_CONNECTED) {
		conn->state = FCONN_UP;
		fconn_dirty(conn);
	} else {
		fconn_kill(conn);
	}
}

unsigned fconn_events(struct flistener *l)
{
	struct fab_event ev;
	unsigned n = 0;

	while (n < BATCH && fab_eq_read(l->fab, &ev) == 1) {
		msg_event(l, &ev);
		n++;
	}
	return n;
}

/* --- FI_EP_RDM: hellos --- */

/* Watchers only mark: the hello is taken in the turn, because it calls the provider. */
static void rdv_ready(struct ev_loop *loop, ev_io *w, int events)
{
	struct fconn *conn = w->data;

	(void)loop;
	(void)events;
	conn->rdv_ready = true;
	fconn_dirty(conn);
}

void fconn_hello(struct ev_loop *loop, ev_io *w, int events)
{
	struct flistener *l = w->data;
	struct fconn *conn;
	struct rdv r;
	int err = rdv_accept(l->fab, w->fd, &r);

	(void)events;
	if (err) {
		if (err == -EMFILE || err == -ENFILE || err == -ENOMEM) { /* look again later */
			ev_io_stop(loop, w);
			ev_timer_set(&l->nap, REOPEN_NAP, 0.);
			ev_timer_start(loop, &l->nap);
		}
		return;
	}
	err = conn_new(l, TP_FABRIC_RDM, &conn);
	if (err) {
		rdv_close(&r);
		return;
	}
	conn->rdv = r;
	conn->base.peer_uid = l->fab->shm ? (uint32_t)geteuid() : 0;
	if (!l->fab->shm) {
		socklen_t len = sizeof(conn->base.peer);

		if (getpeername(r.fd, (struct sockaddr *)&conn->base.peer, &len))
			conn->base.peer.ss_family = AF_UNSPEC;
	}
	ev_io_init(&conn->rdv_io, rdv_ready, r.fd, EV_READ);
	conn->rdv_io.data = conn;
	ev_io_start(loop, &conn->rdv_io);
}

/* The receives that a newcomer's credits need must fit what the endpoint can post. */
static int rdm_room(struct flistener *l, struct fconn *conn)
{
	size_t left = l->fab->rx_size - l->recv_want;

	if (l->fab->rx_size < l->recv_want || left < 1 + SPARE)
		return -ENOSPC;
	if (conn->granted + SPARE > left) {
		rpc_count(&l->base.svc->stats.credits, -(uint64_t)(conn->granted - (left - SPARE)));
		conn->granted = (unsigned)left - SPARE;
	}
	return 0;
}

static int addr_room(struct flistener *l, fi_addr_t addr)
{
	struct fconn **grown;
	size_t n = l->naddr ? l->naddr : 64;

	if (addr < l->naddr)
		return 0;
	if (addr > 1 << 20)
		return -ENOSPC;
	while (n <= addr)
		n *= 2;
	grown = realloc(l->by_addr, n * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + l->naddr, 0, (n - l->naddr) * sizeof(*grown));
	l->by_addr = grown;
	l->naddr = n;
	return 0;
}

int fconns_know_self(struct flistener *l)
{
	int n;

	fab_enter(l->fab);
	n = fi_av_insert(l->fab->av, l->fab->addr, 1, &l->self, 0, NULL);
	fab_leave(l->fab);
	if (n == 1)
		return addr_room(l, l->self);
	return n < 0 ? n : -EIO;
}

/* Before the endpoint is closed: a provider that removes it later reads its memory. */
void fconns_forget_self(struct flistener *l)
{
	fab_enter(l->fab);
	fi_av_remove(l->fab->av, &l->self, 1, 0);
	fab_leave(l->fab);
}

static int rdm_insert(struct flistener *l, struct fconn *conn, struct rdv_hello *h)
{
	fi_addr_t addr = FI_ADDR_NOTAVAIL;
	int n, err;

	if (l->fab->shm) {
		const char *name = (char *)h->addr;

		if (h->addr[h->addr_len - 1] || strncmp(name, "fi_shm://", 9))
			return -EPROTO;
		snprintf(conn->shm_name, sizeof(conn->shm_name), "%.63s", name + 9);
	}
	fab_enter(l->fab);
	n = fi_av_insert(l->fab->av, h->addr, 1, &addr, 0, NULL);
	fab_leave(l->fab);
	if (n != 1 || addr == FI_ADDR_NOTAVAIL)
		return n < 0 ? n : -ECONNREFUSED;
	err = addr_room(l, addr);
	if (!err && l->by_addr[addr])
		return -EADDRINUSE; /* another connection of the same endpoint */
	if (err) {
		fab_enter(l->fab);
		fi_av_remove(l->fab->av, &addr, 1, 0);
		fab_leave(l->fab);
		return err;
	}
	conn->addr = addr;
	l->by_addr[addr] = conn;
	l->recv_want += conn->granted + SPARE;
	return 0;
}

static int rdm_hello(struct flistener *l, struct fconn *conn)
{
	struct rdv_hello h, mine = { .inline_size = (uint32_t)l->pool->cap,
		                     .nonce = l->nonce,
		                     .ring = l->fab->cq_fd < 0,
		                     .addr_len = (uint32_t)l->fab->addr_len };
	int err = rdv_recv_hello(&conn->rdv, &h);

	if (err)
		return err;
	err = rdm_room(l, conn);
	if (!err)
		err = rdm_insert(l, conn, &h);
	if (!err)
		err = frecvs_rdm(l);
	if (err)
		return err == -EAGAIN ? -EIO : err;
	if (conn->base.peer.ss_family == AF_UNSPEC)
		memcpy(conn->base.peer_instance, h.instance, sizeof(h.instance));
	conn->peer_max = h.inline_size < l->pool->cap ? h.inline_size : l->pool->cap;
	conn->ep = l->fab->ep;
	conn->state = FCONN_UP;
	/* shm maps a peer's region when the first operation names it, and does not survive a message of a peer whose
	 * region is gone by then. So it is made to map it now, while the client waits for our answer; the operation is
	 * mostly refused until the client has answered in turn. */
	if (l->fab->shm)
		shm_touch(l, conn->addr);
	if (h.share && l->page)
		rdv_share(&conn->rdv, l->pool->cap * (h.credits < conn->most ? h.credits : conn->most));
	mine.credits = conn->granted;
	memcpy(mine.addr, l->fab->addr, l->fab->addr_len);
	return rdv_answer(&conn->rdv, l->page, &mine);
}

static void rdm_speak(struct flistener *l, struct fconn *conn)
{
	int err = conn->state == FCONN_OPENING ? rdm_hello(l, conn) : rdv_drain(&conn->rdv);

	conn->rdv_ready = false;
	conn->base.left |= err == -ECONNRESET;
	if (err && err != -EAGAIN)
		fconn_kill(conn);
}

/* --- its part of a turn --- */

void fconn_work(struct flistener *l, struct fconn *conn)
{
	int err = 0;

	if (conn->rdv_ready)
		rdm_speak(l, conn);
	if (conn->state == FCONN_DYING || !conn->ep)
		return;
	if (conn->stopping && !conn->base.ncalls && !conn->hand && !conn->nout) {
		fconn_kill(conn);
		return;
	}
	if (conn->base.kind == TP_FABRIC_MSG)
		err = msg_recvs(conn);
	if (!err || err == -EAGAIN) {
		int e2 = fcall_pump(conn);

		err = e2 ? e2 : err;
	}
	if (err == -EAGAIN) {
		if (l->fab->rdm) /* it may be asleep and have to make room, or to make us known */
			rdv_ring(&conn->rdv);
		fconn_clean(conn);
		conn->queued = FCONN_STUCK;
		TAILQ_INSERT_TAIL(&l->stuck, conn, dlink);
	} else if (err) {
		rpc_count(&l->base.svc->stats.provider_errors, 1);
		fconn_kill(conn);
	}
}
