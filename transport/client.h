/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.h - the parts of a fabric client: connection, requests, registrations
 *
 *   fabric_client.c  connects, makes progress, sleeps, notices the server's end, tears down
 *   client_rpc.c     builds calls, chooses inline or chunks, spends credits, reads replies
 *   client_mr.c      registrations: the caller's, the cache's, and whose turn it is to leave
 *   client_share.c   small payloads through memory that both have mapped (shm)
 *   client_rma.c     the caller's own reads and writes of memory of the server's
 *
 * A request's life. Its memory is offered to the server's RMA from transmit to reply, so it is
 * given back to the caller only when the reply is there or the endpoint is closed and its queue
 * drained:
 *
 *   BEGUN --tp_req_send--> QUEUED --credit, send slot--> SENT --reply--> done(0)
 *                          QUEUED, SENT --client_fail, endpoint closed--> done(err)
 */
#ifndef TRANSPORT_CLIENT_H
#define TRANSPORT_CLIENT_H

#include "transport/fabric.h"
#include "transport/rpcrdma.h"
#include "transport/spin.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/queue.h>
#include <time.h>

#define CLIENT_CACHE 64 /* ranges registered on the caller's behalf and kept */
#define CLIENT_SPARE                                                                               \
	2 /* receives beyond the credits: one in done(), one for a server that oversteps */
#define CLIENT_REPLIES 4 /* idle buffers for long replies that are kept */

struct tp_mr {
	TAILQ_ENTRY(tp_mr) link; /* most recently used first */
	struct fab_mr mr;
	uint64_t access;
	unsigned users; /* requests that were sent with it */
	bool callers;   /* from tp_client_register: leaves only by tp_client_unregister */
	bool orphan;    /* unregistered while in use: leaves with its last user */
};
TAILQ_HEAD(client_mrs, tp_mr);

struct client_slot { /* one message buffer, ours to receive into or to send from */
	struct fab_op op;
	struct tp_client *c;
	uint8_t *buf;
	SLIST_ENTRY(client_slot) link; /* free to send, or waiting to be posted again */
};
SLIST_HEAD(client_slots, client_slot);

struct client_reply { /* where a long reply goes */
	SLIST_ENTRY(client_reply) link;
	uint8_t *buf;
	size_t size;
	struct fab_mr mr;
};

struct client_req {
	TAILQ_ENTRY(client_req) link; /* queued or sent */
	struct tp_req *req;
	struct tp_client *c;
	XDR xdr;
	size_t cap, len;    /* of the RPC message in buf, payload left out */
	struct tp_mr **mrs, *few_mrs[4]; /* used by this request's payload segments */
	unsigned nmrs;
	unsigned nin; /* segments of the write chunk */
	uint8_t *place; /* in shared memory: its payload, instead of segments; NULL: none */
	struct fab_mr
		call_mr; /* call longer than a message: buf itself is the position-zero chunk */
	struct client_reply *reply;
	uint8_t buf[];
};
TAILQ_HEAD(client_reqs, client_req);

struct tp_client_rma { /* one operation of the caller's, a piece of at most msg_max at a time */
	TAILQ_ENTRY(tp_client_rma) link;
	struct fab_op op;
	struct tp_client *c;
	struct tp_rma *rma;
	struct tp_mr *mr; /* NULL: TP_RMA_PUSH, whose bytes nobody looks at */
	size_t done, piece; /* bytes completed; bytes of the piece that is posted */
};
TAILQ_HEAD(client_rmas, tp_client_rma);

struct client_share { /* places in shared memory that no request has */
	uint8_t **place;
	unsigned nfree;
	uint32_t size; /* bytes of a place; 0: there is no such memory */
};

struct tp_client {
	struct fab *f;
	struct fid_ep *ep; /* MSG: ours; RDM: f->ep */
	fi_addr_t peer;
	struct rdv rdv; /* RDM */
	enum { DIAL_NONE, DIAL_CONNECT, DIAL_HELLO, DIAL_DONE } dial;
	int epfd;
	int state, err; /* err: why it is DOWN */
	int broken;     /* found inside a callback: go DOWN once it has returned */
	int flushed;    /* receives came back while connecting: there should be an event that tells why */
	struct tp_error why;
	struct tp_fabric_opts opts; /* strings are not kept */
	char name[64];
	unsigned depth; /* callbacks may run; nothing is freed below this */
	bool closing;
	unsigned events; /* what this progress has done for the caller */

	/* sleeping without a wait descriptor */
	bool armed, looked, slept;
	struct spin spin; /* with a wait descriptor */
	uint64_t last_ns; /* of the last event or send */

	uint32_t buf_size, send_max, recv_max; /* bytes of a message */
	unsigned want, credits, inflight, sending;
	bool stuck;        /* a post was refused for now */
	bool tried, heard; /* shm: a send was tried; one went through, so the server knows us */
	unsigned nslots;
	struct client_slot *slots;
	uint8_t *slab;
	struct fab_mr slab_mr;
	struct client_slots idle, repost;
	struct client_share share;

	/* shm: a server killed inside the provider leaves a lock taken, for which we would spin for
	 * ever */
	bool hung, has_timer;
	timer_t timer;
	pthread_t thread;
	sigjmp_buf *volatile jump;
	volatile sig_atomic_t seen, seen_turn;

	uint32_t next_xid;
	struct client_reqs queued, sent;

	uint8_t *pushed; /* TP_PUSH_MAX bytes at the end of the slab */
	struct client_rmas rma_queued, rma_posted;
	unsigned rma_out;     /* of rma_posted */
	unsigned rma_partial; /* of these, more pieces are to come */

	struct client_mrs mrs;
	unsigned ncached;
	bool pinned; /* registrations hold pages: a cache would outlive what is mapped there */
	SLIST_HEAD(, client_reply) replies;
	unsigned nreplies;
};

uint64_t client_now(void);

/* --- client_mr.c: all with users counted; put may close --- */
int client_mr_get(struct tp_client *c, void *base, size_t len, uint64_t access, struct tp_mr **out);
void client_mr_put(struct tp_client *c, struct tp_mr *mr);
struct client_reply *client_reply_get(struct tp_client *c, size_t size);
void client_reply_put(struct tp_client *c, struct client_reply *r);
void client_mr_free_all(struct tp_client *c); /* endpoint closed */

/* --- client_share.c --- */
int client_share_open(struct tp_client *c); /* the hello brought the memory, or none */
void client_share_close(struct tp_client *c);
/* A place for @len bytes of payload, said as @seg; false: it is too much, there is none, or the request has one. */
bool client_share_take(struct client_req *q, size_t len, struct rr_seg *seg);
void client_share_put(struct client_req *q); /* none: nothing */
void client_share_in(const struct client_req *q, const struct iovec *iov, unsigned n);
void client_share_out(const struct client_req *q, const struct iovec *iov, unsigned n, size_t len); /* the first @len bytes */

/* --- client_rpc.c --- */
/* As tp_req_begin, credential and verifier by @put. */
XDR *client_req_begin(struct tp_client *c, struct tp_req *req, uint32_t prog, uint32_t vers,
                      uint32_t proc, bool (*put)(XDR *x, const void *arg), const void *arg,
                      size_t max);
void client_message(struct tp_client *c, const uint8_t *buf, size_t len);
void client_flush(struct tp_client *c); /* send what credits and slots allow */
void client_fail_all(struct tp_client *c, int err);

/* --- client_rma.c --- */
bool client_rma_flush(struct tp_client *c); /* post what the provider takes; true: nothing is left */
void client_rma_fail_all(struct tp_client *c, int err); /* endpoint closed and drained */

/* --- fabric_client.c --- */
int client_guarded(struct tp_client *c, int (*fn)(struct tp_client *c, void *arg), void *arg);
/* Remember that the connection is over; it goes DOWN when no callback of it runs any more. */
void client_fail(struct tp_client *c, int err, const char *what);
/* Send @len bytes of @s. -EAGAIN: later. */
int client_post_send(struct tp_client *c, struct client_slot *s, size_t len);

#endif
