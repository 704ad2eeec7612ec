/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_own.c - connections with a domain of their own
 *
 * A key of the listener's domain is good on every connection in it, for a card looks keys up in the protection domain of
 * the queue pair, and that is all there is to it. A connection that asks for it in its request is accepted in a domain
 * where nothing is registered but its own few messages and the keys that the program gives to its peer. It has a
 * completion queue of its own too, since queues belong to domains.
 *
 * What it may do is little, so that it costs little: calls of one program, without chunks, OWN_CREDITS at a time.
 *
 *   AWAKE --the provider lets us sleep on the descriptor--> ASLEEP --the descriptor, or something is posted--> AWAKE
 *
 * Each turn looks at the queues of those that are awake: what a thousand others cost while they are silent is memory.
 */
#include "transport/fabric_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define OWN_CREDITS 8u
#define OWN_DEPTH   16u /* receives, and sends, that the endpoint holds */
#define OWN_BUFS    20u /* a receive for each credit and a spare one; answers, and a few to spare */

/* --- who may have one --- */

static const void *address(const struct sockaddr_storage *ss, size_t *len)
{
	if (ss->ss_family == AF_INET6) {
		*len = sizeof(struct in6_addr);
		return &((const struct sockaddr_in6 *)ss)->sin6_addr;
	}
	*len = sizeof(struct in_addr);
	return &((const struct sockaddr_in *)ss)->sin_addr;
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	size_t len;
	const void *at = address(a, &len);

	return a->ss_family == b->ss_family && !memcmp(at, address(b, &len), len);
}

static const char *address_text(const struct sockaddr_storage *ss, char text[INET6_ADDRSTRLEN])
{
	size_t len;
	const char *t = inet_ntop(ss->ss_family, address(ss, &len), text, INET6_ADDRSTRLEN);

	return t ? t : "?";
}

static int refuse(struct flistener *l, const struct fconn *conn, const char *whose, unsigned most)
{
	char text[INET6_ADDRSTRLEN];

	if (!l->own_refused) /* they ask again and again */
		rpc_log(l->base.svc, LOG_WARNING,
		        "fabric %s: no domain of its own for %s: %s %u already, the most allowed; others are refused without "
		        "a word until one ends",
		        l->opts.name, address_text(&conn->base.peer, text), whose, most);
	l->own_refused = true;
	return -EUSERS;
}

int fown_asked(struct flistener *l, const struct fconn *conn, const uint8_t *data, size_t len)
{
	const struct tp_own *o = &l->opts.own;
	unsigned all = 0, of_one = 0;
	const struct fconn *other;

	if (!o->prog || !rr_cm_asks_own(data, len))
		return 0;
	TAILQ_FOREACH (other, &l->conns, link) {
		all += other->own != NULL;
		of_one += other->own && same_address(&other->base.peer, &conn->base.peer);
	}
	if (of_one >= o->most_of_one)
		return refuse(l, conn, "it has", o->most_of_one);
	return all >= o->most ? refuse(l, conn, "there are", o->most) : 1;
}

/* --- open and close --- */

void fown_wake(struct fown *own)
{
	if (!own->awake)
		TAILQ_INSERT_TAIL(&own->conn->l->awake, own, link);
	own->awake = true;
}

static void woken(struct ev_loop *loop, ev_io *w, int events)
{
	(void)loop;
	(void)events;
	fown_wake(w->data);
}

int fown_open(struct flistener *l, struct fconn *conn)
{
	struct fown *own = calloc(1, sizeof(*own));
	char text[INET6_ADDRSTRLEN];
	int err;

	if (!own)
		return -ENOMEM;
	err = fab_open_beside(l->fab, OWN_DEPTH, &own->fab);
	if (err) {
		free(own);
		return err;
	}
	err = fpool_new(own->fab, l->pool->cap, OWN_BUFS, &own->pool);
	if (err) {
		fab_close(own->fab);
		free(own);
		return err;
	}
	own->conn = conn;
	conn->own = own;
	fpool_put(conn->pool);
	conn->pool = own->pool;
	conn->pool->refs++;
	conn->base.only_prog = l->opts.own.prog;
	conn->most = conn->most < OWN_CREDITS ? conn->most : OWN_CREDITS;
	ev_io_init(&own->io, woken, own->fab->cq_fd, EV_READ);
	own->io.data = own;
	ev_io_start(flistener_loop(l), &own->io);
	rpc_count(&l->base.svc->stats.domains, 1);
	fown_wake(own);
	rpc_log(l->base.svc, LOG_INFO, "fabric %s: %s has a domain of its own", l->opts.name,
	        address_text(&conn->base.peer, text));
	return 0;
}

void fown_close(struct flistener *l, struct fconn *conn)
{
	struct fown *own = conn->own;

	if (!own)
		return;
	conn->own = NULL;
	l->own_refused = false;
	ev_io_stop(flistener_loop(l), &own->io);
	if (own->awake)
		TAILQ_REMOVE(&l->awake, own, link);
	fpool_close(own->pool);
	fab_close(own->fab);
	rpc_count(&l->base.svc->stats.domains, (uint64_t)-1);
	free(own);
}

/* --- in the turn --- */

int fowns_take(struct flistener *l, bool *full)
{
	struct fown *own;
	int total = 0;

	TAILQ_FOREACH (own, &l->awake, link) {
		int n = ftake(own->fab, full);

		if (n < 0) {
			rpc_count(&l->base.svc->stats.provider_errors, 1);
			fconn_kill(own->conn);
			n = 1; /* it is to be buried */
		}
		total += n;
	}
	return total;
}

int fowns_before_sleep(struct flistener *l)
{
	struct fown *own, *next;

	for (own = TAILQ_FIRST(&l->awake); own; own = next) {
		next = TAILQ_NEXT(own, link);
		if (fab_before_sleep(own->fab) == -EAGAIN)
			return -EAGAIN;
		TAILQ_REMOVE(&l->awake, own, link);
		own->awake = false;
	}
	return 0;
}
