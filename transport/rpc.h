/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpc.h - what a transport (socket.c, fabric_server.c) and the RPC layer (rpc.c) owe each other
 *
 * A transport gathers the head of a call (RPC header and arguments; for a procedure with a payload
 * argument up to and with its length word), takes a call object, and hands it over. From then on
 * the RPC layer calls back through tp_conn_ops, and the transport reports completions:
 *
 *   rpc_head_scan()               is the head complete? where does the payload begin?
 *   rpc_call_get(), rpc_call_run()
 *       ops->place  ............. rpc_placed(c, err)         exactly once each
 *       ops->reply_buf, then
 *       ops->reply_end or
 *       ops->drop   ............. rpc_call_done(c, err)      exactly once each: the call object is
 * gone
 *
 *   RPC_RUN --tp_place--> RPC_PLACING --rpc_placed--> RPC_RUN --tp_reply_begin--> RPC_BEGUN
 *   RPC_RUN, RPC_BEGUN --tp_reply_end, tp_reply_error, tp_drop, ...--> RPC_SENDING
 * --rpc_call_done--> gone
 *
 * A connection is kept by one reference of its transport (until rpc_conn_put()) and one of each
 * call, so that a program may end a call long after its peer died. Once rpc_conn_dead() was called,
 * ops->place, ops->reply_buf and ops->reply_end are not called any more; ops->drop still is, for
 * every call that the program ends.
 */
#ifndef TRANSPORT_RPC_H
#define TRANSPORT_RPC_H

#include "transport/transport.h"

#include <ev.h>

#include <sys/queue.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define RPC_REPLY_HDR                                                                              \
	24 /* bytes of an accepted reply in front of its results: xid .. accept_stat */
#define RPC_IOV_SMALL 8

enum rpc_stage { RPC_RUN, RPC_PLACING, RPC_BEGUN, RPC_SENDING };

struct rpc_call {
	struct tp_call pub;         /* first: what the program sees */
	TAILQ_ENTRY(rpc_call) link; /* tp_conn.calls, or the free list */
	enum rpc_stage stage;
	bool payload_pending; /* there is a payload argument, nobody has asked for it yet */
	/* tp_place: the segments, sum == pub.payload_len, a copy which the transport may advance.
	 * tp_reply_end_payload: the segments to push, sum == reply_payload. Freed with the call. */
	struct iovec *iov;
	unsigned niov;
	uint32_t reply_payload;
	/* reply_buf: the RPC reply message without its payload: @len of @cap bytes at @buf are good
	 * in reply_end. With a payload the last word is its length; the padding behind it is the
	 * transport's. */
	uint8_t *buf;
	size_t cap, len;
	void *priv; /* ops->priv_size bytes of the transport's own, the first ops->priv_zeroed of
	             * them zero, aligned for anything */

	/* rpc.c's own */
	XDR out;
	const struct tp_proc *proc;
	struct tp_proc_stats *stat;
	uint64_t begun_ns; /* 0: when it is run */
	void (*placed)(struct tp_call *call, int err);
	void (*sent)(void *arg, int err);
	void *sent_arg;
	uint8_t *own_buf; /* results of a call whose connection died: encoded, thrown away */
	int end_err;      /* what sent() hears if the transport has nothing worse to say */
	struct iovec iov_small[RPC_IOV_SMALL]; /* last: not zeroed for a new call */
};
TAILQ_HEAD(rpc_call_list, rpc_call);

struct tp_conn_ops {
	size_t priv_size, priv_zeroed; /* the same for all connections of one kind */
	/* Move the payload into c->iov[0..c->niov), then rpc_placed(), maybe at once. */
	void (*place)(struct rpc_call *c);
	/* Memory for a reply of at most @max bytes (RPC header in it). NULL: none. Stays until
	 * reply_end or drop. A payload still pending (c->payload_pending) is not wanted any more:
	 * skip it. */
	uint8_t *(*reply_buf)(struct rpc_call *c, size_t max);
	/* Send c->buf, c->len, and behind it c->iov if c->reply_payload or c->niov; then
	 * rpc_call_done(). */
	void (*reply_end)(struct rpc_call *c);
	/* Release what the call holds and skip a pending payload; then rpc_call_done(c, 0). */
	void (*drop)(struct rpc_call *c);
	/* Most bytes of an RPC reply (header in it, payload not) and of a reply's payload. NULL:
	 * the service's. */
	size_t (*reply_room)(const struct rpc_call *c);
	uint32_t (*payload_room)(const struct rpc_call *c);
	/* Read no more calls; close once the calls in progress are answered. */
	void (*stop)(struct tp_conn *conn);
	/* Close now: rpc_conn_dead(), complete what is out, rpc_conn_put(). */
	void (*close)(struct tp_conn *conn);
	/* NULL: not on this transport. */
	int (*rma_facts)(const struct tp_conn *conn, struct tp_rma_facts *out);
	int (*key_open)(struct tp_conn *conn, void *base, size_t len, bool writable, struct tp_key **out);
	/* The last reference is gone. */
	void (*free)(struct tp_conn *conn);
};

struct tp_conn { /* embedded in the transport's own struct */
	const struct tp_conn_ops *ops;
	struct tp_service *svc;
	LIST_ENTRY(tp_conn) link;   /* tp_service.conns until rpc_conn_dead() */
	struct rpc_call_list calls; /* all of them, in any stage */
	unsigned ncalls, refs;
	double heard; /* loop time of its last call */
	enum tp_kind kind;
	bool dead;
	bool left; /* the peer ended it */
	uint32_t only_prog; /* others are unavailable on it; 0: none is */
	struct sockaddr_storage peer; /* AF_UNSPEC: none, then peer_uid */
	uint32_t peer_uid;
	uint8_t peer_instance[16]; /* without an address: which client, as it says; zero if it says nothing */
	struct tp_conn_watch *watches; /* told by rpc_conn_over() */
};

struct tp_listener_ops {
	void (*stop)(struct tp_listener *l); /* accept no more */
	void (*describe)(const struct tp_listener *l, char *buf, size_t len);
	void (*close)(struct tp_listener *l); /* and free; its connections are closed too if they
	                                         cannot live without it */
};

struct tp_listener { /* embedded likewise */
	const struct tp_listener_ops *ops;
	struct tp_service *svc;
	LIST_ENTRY(tp_listener) link;
};

struct tp_service {
	struct ev_loop *loop;
	struct tp_service_opts o; /* zeros replaced by the defaults; regions copied */
	LIST_HEAD(, tp_listener) listeners;
	LIST_HEAD(, tp_conn) conns;
	struct rpc_call_list free_calls[TP_KINDS];
	unsigned nfree[TP_KINDS];
	unsigned nconns, ncalls;
	bool stopped;
	ev_timer silence; /* while there are connections that fall silent without a sign of death */
	ev_prepare turn;  /* pending, never started: turn_end() is wanted */
	uint64_t held;    /* of how much: bytes of payload, and RPC_HELD_CALL for each time */
	struct tp_stats stats;
	/* rpc.c's own */
	double log_since; /* lines of the present minute, and those that were too many for it */
	unsigned log_lines, log_left_out;
	unsigned nprocs;
	size_t ctx_size; /* the largest of all programs */
	/* socket_recv.c's: one scratch area for all sockets, as nothing stays in it between two wake-ups
	 */
	uint8_t *scratch;
	uint64_t ended_ns; /* when the call that was run last ended; 0, once set so: it has not */
};

/* --- heads of calls --- */

enum rpc_head_kind {
	RPC_HEAD_MORE,    /* look again when there are @len bytes (> have) */
	RPC_HEAD_WHOLE,   /* no payload argument (or a call that gets an error): the arguments end
	                     where the message ends */
	RPC_HEAD_PAYLOAD, /* the head has @len bytes (<= have), its last word is payload_len,
	                     payload follows */
	RPC_HEAD_BAD,     /* not a call: close the connection */
};
struct rpc_head {
	enum rpc_head_kind kind;
	size_t len;
	uint32_t payload_len; /* as the peer says; not yet bounded */
};
/* Pure. @have bytes of an RPC message at @msg. */
void rpc_head_scan(const struct tp_service *svc, const uint8_t *msg, size_t have,
                   struct rpc_head *h);

/* --- calls --- */

/* A call object on @conn, counted and referenced. NULL: no memory. */
struct rpc_call *rpc_call_get(struct tp_conn *conn);
/* Decode the header in msg[0..len) and run the procedure, or answer with the error that RFC 5531
 * wants. For RPC_HEAD_PAYLOAD @len is the head's and @payload_have how many bytes can follow
 * (record or chunk; SIZE_MAX: not known yet); less than payload_len is GARBAGE_ARGS. msg is not
 * used after the return. By then the call may be gone: the transport touches it again only in its
 * ops. -EBADMSG: no header; the call object is gone (ops->drop was called): close the connection.
 */
int rpc_call_run(struct rpc_call *c, const uint8_t *msg, size_t len, size_t payload_have);
void rpc_placed(struct rpc_call *c, int err);
void rpc_call_done(struct rpc_call *c, int err);

/* --- turns --- */

enum {
	RPC_TURN_PRI = -1, /* behind what the loop has found ready, before replies leave (EV_MINPRI) */
	RPC_HELD_CALL = 4096,
	RPC_HELD_MAX = 256 << 10, /* or the first of many would wait too long for the last */
};

/* The calls that were ready are taken: end the turn now, if the program wants to know. */
void rpc_turn_end(struct tp_service *svc);
/* Likewise, but where others are ready as well in this round of the loop it ends behind them. True: it will. */
bool rpc_turn_over(struct tp_service *svc);

/* --- connections --- */

/* Close the TCP connection that has been silent longest, of those without a call in progress, to make room: whoever lives
 * connects again with his next call, so that connections which are only held take nobody's place. False: there is none. */
bool rpc_conn_displace(struct tp_service *svc);
/* -EMFILE: max_conns reached, each with a call in progress or on a fabric; -ESHUTDOWN: the service is stopped. */
int rpc_conn_init(struct tp_conn *conn, struct tp_service *svc, enum tp_kind kind,
                  const struct tp_conn_ops *ops);
/* The peer is gone: tp_call_alive() turns false. Idempotent. */
void rpc_conn_dead(struct tp_conn *conn);
/* Complete all that the transport has in hand (RPC_PLACING, RPC_SENDING) with @err, once nothing of
 * it is in flight. */
void rpc_conn_fail_calls(struct tp_conn *conn, int err);
/* Nothing of the peer is under way any more: tell who watches. Behind rpc_conn_dead(), before the last put. */
void rpc_conn_over(struct tp_conn *conn);
/* References; rpc_conn_init() gives the transport one, to be put after rpc_conn_dead(). The last
 * put calls ops->free. */
void rpc_conn_get(struct tp_conn *conn);
void rpc_conn_put(struct tp_conn *conn);

/* --- helpers --- */

void rpc_listener_init(struct tp_listener *l, struct tp_service *svc,
                       const struct tp_listener_ops *ops);
void rpc_listener_gone(struct tp_listener *l); /* in ops->close, before freeing */
/* Lines less urgent than LOG_ERR are bounded in number: peers cause them. */
void rpc_log(struct tp_service *svc, int priority, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Statistics have one writer and many readers. */
static inline void rpc_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

/* Scatter @len bytes at @src into @iov from byte @at on with the service's copy_in. Counts nothing.
 */
void rpc_copy_in(const struct tp_service *svc, const struct iovec *iov, unsigned n, size_t at,
                 const void *src, size_t len);

static inline uint32_t rpc_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

#endif
