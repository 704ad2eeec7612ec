/* SPDX-License-Identifier: BSD-3-Clause */
/* socket.h - what socket.c (connections and replies), socket_recv.c (calls) and socket_listen.c (where connections come from)
 * owe each other */
#ifndef TRANSPORT_SOCKET_H
#define TRANSPORT_SOCKET_H

#include "transport/rpc.h"

#include <errno.h>
#include <ev.h>

enum {
	SOCK_SCRATCH = 4096, /* looked at in one go */
	SOCK_REPLY = 384,    /* of a small one */
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
	uint8_t small[SOCK_REPLY];
};

enum rx_state { RX_HEAD, RX_HELD, RX_PLACE, RX_SKIP };

struct sock_conn {
	struct tp_conn conn;
	int fd;
	ev_io rd, wr;
	ev_timer timer;
	ev_timer again; /* its turn was over before its work was */
	bool reading;   /* inside conn_read(): it looks at the state after every step by itself */
	bool turning;   /* inside conn_turn(): replies leave at its end, or behind it */
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
	size_t owed; /* bytes, at most SOCK_SCRATCH, in front of those: looked at, not yet taken */
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

static inline struct sock_conn *sock_of(const struct rpc_call *c)
{
	return container_of(c->pub.conn, struct sock_conn, conn);
}

static inline bool sock_blocked(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* --- socket.c --- */

/* A connection of @svc on @fd (connected, non-blocking), which it owns from then on. -ENOMEM, and what rpc_conn_init()
 * says: @fd is still the caller's. */
int sock_conn_new(struct tp_service *svc, int fd, const struct sockaddr_storage *peer);
/* The peer broke the rules or vanished; @counter of the service's statistics goes up. */
void sock_fail(struct sock_conn *sc, uint64_t *counter);
/* Something changed outside a read: it is looked at in this round of the loop. */
void sock_kick(struct sock_conn *sc);
/* As many of the replies that are ready as the socket takes. The caller has a reference, and sock_update() follows. */
void sock_send(struct sock_conn *sc);
/* Watchers, timer and end by the state it is in; after every event. */
void sock_update(struct sock_conn *sc);

/* --- socket_recv.c --- */

void sock_readable(struct ev_loop *loop, ev_io *w, int revents); /* sock_conn.rd */
void sock_again(struct ev_loop *loop, ev_timer *w, int revents); /* sock_conn.again */
bool sock_may_read(const struct sock_conn *sc); /* another call, or enough of them are under way */
void sock_place(struct rpc_call *c);            /* tp_conn_ops.place */
void sock_take(struct sock_conn *sc);           /* calls that were answered: from the socket, behind the replies */
void sock_forget(struct rpc_call *c); /* its payload, pending or refused, is not wanted: goes nowhere */

#endif
