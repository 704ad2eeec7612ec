/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_server.h - the inside of a fabric listener: buffers, calls, connections
 *
 * The provider is called from one place only, the listener's turn (fabric_server.c), which runs
 * before the loop sleeps. Completions and the program's answers only queue work and mark a
 * connection dirty: so no frame of a program is ever below a call of the provider, and a provider
 * that hangs can be left behind by jumping out of the turn.
 *
 * A connection is in the listener's domain, or has one of its own (fabric_own.c); the event queue is the listener's.
 *
 * Who owns what
 *   struct fbuf   a piece of memory that the provider may read or write, and the operation on it.
 *                 On the free list, on a connection's (RDM: the listener's) list of posted
 *                 receives, held by a call, or on its way out.
 *   struct frma   one RDMA read or write; on its connection's list while posted.
 *   struct fxfer  bytes between chunks of the peer and local segments, cut into frmas as the
 *                 provider takes them.
 * When a connection ends, its endpoint is closed first; what has not come back by then never will,
 * and is taken back from these lists. FI_EP_RDM has no endpoint to close: what is out for a dead
 * peer is orphaned, its memory stays with the provider until it completes or the listener goes.
 */
#ifndef TRANSPORT_FABRIC_SERVER_H
#define TRANSPORT_FABRIC_SERVER_H

#include "transport/rpc.h"

#include "transport/fabric.h"
#include "transport/rpcrdma.h"
#include "transport/spin.h"

#include <ev.h>
#include <pthread.h>
#include <setjmp.h>
#include <time.h>

struct flistener;
struct fconn;

/* --- fabric_buf.c: memory --- */

struct fbuf {
	struct fab_op op;
	LIST_ENTRY(fbuf) link;   /* free, posted receives, posted sends */
	STAILQ_ENTRY(fbuf) next; /* fconn.sendq */
	struct fconn *conn;      /* NULL on a send: the peer is gone */
	struct rpc_call *call;   /* sends: whose reply this is; NULL: an error of ours */
	uint8_t *p;
	size_t cap, len;
	struct fab_mr mr; /* of a big one */
	void *desc;
	bool big; /* its own memory, freed when put */
	struct fpool *pool;
};
LIST_HEAD(fbuf_list, fbuf);

struct fslab;

/* Outlives its listener while calls of the dead still hold buffers. */
struct fpool {
	struct fab *fab; /* NULL: closed, nothing is registered any more */
	unsigned refs;
	size_t cap; /* of the usual buffer: one message */
	unsigned at_once; /* buffers of a slab */
	struct fbuf_list free, big;
	LIST_HEAD(, fslab) slabs;
};
/* @at_once: messages that memory is taken for at a time; 0: many. */
int fpool_new(struct fab *f, size_t cap, unsigned at_once, struct fpool **out);
void fpool_close(struct fpool *pool); /* registrations go, and the listener's reference */
void fpool_put(struct fpool *pool);
struct fbuf *fbuf_get(struct fpool *pool,
                      size_t len); /* len <= cap: from a slab; NULL: no memory */
void fbuf_put(struct fbuf *b);     /* NULL: nothing */

/* The service's regions, registered for local access where the provider wants that. */
struct fregions {
	struct fab_mr *mr;
	unsigned n;
	bool staged;   /* some of it is not registered */
	char why[120]; /* why placement is as it is, for people */
};
int fregions_open(struct flistener *l, struct tp_error *why, const struct tp_fabric_opts *opts);
void fregions_close(struct flistener *l);
/* The descriptor for local memory at @p, and how many of @*len bytes it covers. False: not
 * registered, stage it. */
bool fregions_desc(const struct flistener *l, const void *p, size_t *len, void **desc);

/* --- fabric_key.c: keys that a program has given to the peer --- */

TAILQ_HEAD(tp_key_list, tp_key);
int fkey_open(struct tp_conn *conn, void *base, size_t len, bool writable, struct tp_key **out);
int fkey_facts(const struct tp_conn *conn, struct tp_rma_facts *out);
void fkeys_heard(struct fconn *conn); /* a message came */
void fkeys_sent(struct fconn *conn);  /* a send has completed */
/* The connection ends. First, before its endpoint is closed: */
void fkeys_close(struct fconn *conn);
/* and then: what was closed is dead. Others are the program's to close, which it is about to hear. */
void fkeys_dead(struct fconn *conn);

/* --- fabric_xfer.c: payloads --- */

struct fxfer {
	STAILQ_ENTRY(fxfer) next; /* fconn.readq, writeq */
	struct rpc_call *call;
	const struct rr_seg *seg; /* of the peer */
	unsigned nseg;
	uint64_t at; /* into the first of them */
	const struct iovec *iov;
	unsigned niov;
	size_t off;    /* likewise */
	uint64_t left; /* bytes not posted yet */
	unsigned out;  /* operations posted */
	bool write;
	bool counted;                  /* payload: its bytes go into the statistics */
	void (*done)(struct fxfer *x); /* all of it came back well */
};
STAILQ_HEAD(fxfer_queue, fxfer);

struct frma {
	struct fab_op op;
	LIST_ENTRY(frma) link;
	struct fconn *conn; /* NULL: orphaned */
	struct fxfer *x;
	struct fbuf *stage; /* staged: where the bytes rest between the peer and iov */
	struct iovec iov[FAB_MAX_IOV];
	unsigned n;
	size_t len;
};
LIST_HEAD(frma_list, frma);

/* @len bytes between the segments of @ch from @skip on and @iov; x->write and ->counted are set. len > 0, and the chunk
 * holds them. @done may be called before this returns. A chunk that says it is in shared memory and is not, or only in
 * part, ends the connection. */
void fxfer_start(struct rpc_call *c, struct fxfer *x, const struct rr_chunk *ch, uint64_t skip,
                 const struct iovec *iov, unsigned niov, uint64_t len,
                 void (*done)(struct fxfer *));
/* The same, all of it now, if the chunk is in memory that is shared with the peer. Else false: nothing was done. */
bool fxfer_shared(struct rpc_call *c, const struct fxfer *x, const struct rr_chunk *ch, uint64_t skip,
                  const struct iovec *iov, unsigned niov, uint64_t len);
/* Post what is queued on @q (fconn.readq or, @write, .writeq). -EAGAIN: the provider takes no more now. Other errors: the
 * connection is to end. */
int fxfers_post(struct fconn *conn, struct fxfer_queue *q, bool write);

/* --- fabric_call.c: messages and calls --- */

#define FCALL_SEGS 8

struct fcall { /* rpc_call.priv */
	struct rr_seg *segs; /* few, or on the heap */
	bool in_hand;    /* counts against the connection's receives */
	bool pulling;    /* the program has not seen it yet */
	struct fbuf *rb; /* the message, while payload lies in it */
	size_t inline_at;
	struct fbuf *head; /* what was pulled of the call */
	size_t head_len;
	unsigned pull;      /* chunk being pulled into its place */
	struct fbuf *whole; /* message with chunks inserted */
	size_t whole_len;
	unsigned pay_chunk; /* where the payload argument is: read chunk, and offset in it */
	uint64_t pay_off;
	struct fbuf *reply; /* header, then message as the program encodes it */
	size_t reply_hdr;
	struct fbuf *send; /* the message to send when the writes are done */
	struct fxfer x[2];
	struct iovec head_iov, *reply_iov;
	unsigned pending; /* transfers and send of the reply that are not done */
	struct rr_header h; /* of the call, then of its reply; from here on not zeroed */
	struct rr_seg few[FCALL_SEGS];
};

extern const struct tp_conn_ops fcall_ops;

/* A message of @len bytes came into @b. Returns true if the buffer was kept. */
bool fcall_message(struct fconn *conn, struct fbuf *b, size_t len);
/* Post what is queued. -EAGAIN: the provider takes no more now. Other errors: the connection is to
 * end. */
int fcall_pump(struct fconn *conn);
/* Release everything of the calls of a dead connection whose operations are all back or orphaned.
 */
void fcall_fail_all(struct fconn *conn, int err);

/* --- fabric_conn.c: connections --- */

enum fconn_state { FCONN_OPENING, FCONN_UP, FCONN_DYING };

struct fconn {
	struct tp_conn base;
	struct flistener *l; /* NULL once reaped */
	struct fpool *pool;
	TAILQ_ENTRY(fconn) link;  /* flistener.conns or .dying */
	TAILQ_ENTRY(fconn) dlink; /* .dirty or .stuck */
	enum { FCONN_CLEAN, FCONN_DIRTY, FCONN_STUCK } queued;
	enum fconn_state state;
	bool stopping;     /* close when nothing is in hand */
	struct fown *own;  /* NULL: it is in the listener's domain */
	struct fid_ep *ep; /* RDM: the listener's */
	fi_addr_t addr;    /* RDM */
	struct rdv rdv;    /* RDM */
	ev_io rdv_io;
	bool rdv_ready;                 /* its socket spoke */
	char shm_name[64];              /* the peer's file, removed when it is dead */
	size_t peer_max;                /* bytes of a message that it receives */
	unsigned granted, wanted, most; /* credits */
	unsigned posted;                /* receives (MSG) */
	unsigned hand;                  /* messages taken and not answered */
	struct fbuf_list recvs, sends;
	struct frma_list rmas;
	unsigned nreads; /* posted */
	unsigned nout;   /* sends and rmas posted */
	struct fxfer_queue readq, writeq;
	STAILQ_HEAD(, fbuf) sendq;
	struct tp_key_list keys;    /* open */
	struct tp_key_list closing; /* closed, not yet dead */
	uint64_t sends_posted, sends_back, heard; /* heard: fab.drained at the last message */
	ev_timer timer; /* opening, or operations out for too long */
	double moved;   /* when something last completed */
};
TAILQ_HEAD(fconn_list, fconn);

/* --- fabric_server.c --- */

struct flistener {
	struct tp_listener base;
	struct fab *fab; /* NULL: being replaced */
	struct tp_fabric_opts opts;
	char *strings[7]; /* copies for opts */
	struct fid_pep *pep;
	struct fpool *pool;
	struct fregions regions;
	struct rr_seg segs[RR_MAX_SEGS]; /* where messages are decoded */
	struct fconn_list conns, dying, dirty, stuck;
	TAILQ_HEAD(, fown) awake; /* their queues are looked at in each turn */
	bool own_refused;         /* one was, and the log was told */
	struct frma_list free_rma, orphans;
	struct fbuf_list orphan_sends;
	bool in_turn, stopped;
	struct spin spin; /* with wait descriptors */
	unsigned nout; /* operations out on all connections */
	uint64_t posts; /* of them, ever; those whose completions are worth a look at once */
	bool empty;     /* the last turn has left nothing to take */
	ev_prepare prepare;
	ev_idle idle;
	ev_io cq_io, eq_io, hello_io;
	ev_timer nap; /* looks again while the provider may need it */
	double nap_len;
	/* RDM */
	int hello_fd;
	struct rdv_page *page;
	bool armed;
	uint64_t active; /* ns: when something last happened */
	struct fconn **by_addr;
	size_t naddr;
	fi_addr_t self; /* shm: our own address */
	bool suspect;   /* shm: a client has gone, and may have left the lock of our region taken */
	struct fbuf_list recvs;
	unsigned posted, recv_want;
	uint64_t nonce;
	/* watchdog */
	bool has_timer;
	timer_t timer;
	pthread_t thread;
	sigjmp_buf jump;
	volatile sig_atomic_t may_jump, seen, seen_turn;
};

static inline struct ev_loop *flistener_loop(const struct flistener *l)
{
	return l->base.svc->loop;
}

/* --- fabric_own.c: connections with a domain of their own --- */

struct fown {
	TAILQ_ENTRY(fown) link; /* flistener.awake */
	struct fab *fab;
	struct fpool *pool;
	struct fconn *conn;
	ev_io io;
	bool awake;
};

/* The domain that a connection is in; NULL: being replaced. */
static inline struct fab *fconn_fab(const struct fconn *conn)
{
	return conn->own ? conn->own->fab : conn->l->fab;
}

/* Does the connection request @data ask for one, and does this listener give one? 1: yes; 0: no; -EUSERS: as many as may be
 * are there, and the log was told. */
int fown_asked(struct flistener *l, const struct fconn *conn, const uint8_t *data, size_t len);
int fown_open(struct flistener *l, struct fconn *conn); /* its endpoint, its buffers and its keys are to be opened in it */
void fown_close(struct flistener *l, struct fconn *conn); /* the endpoint is closed, the calls are failed; no own: nothing */
void fown_wake(struct fown *own); /* something was posted */
/* What those that are awake have to say, as ftake(). */
int fowns_take(struct flistener *l, bool *full);
int fowns_before_sleep(struct flistener *l); /* -EAGAIN: not yet */

static inline struct fconn *fcall_conn(const struct rpc_call *c)
{
	return container_of(c->pub.conn, struct fconn, base);
}

static inline struct fcall *fcall_of(const struct rpc_call *c)
{
	return c->priv;
}

/* --- fabric_conn.c again --- */

#define RDM_SPARE  16
#define REOPEN_NAP 0.1 /* s: until what lacked memory or descriptors is tried again */

/* Take what a queue has to say: how much, or -errno. *full: there may be more. While a key is dying, to the end: emptiness is
 * what its death is counted by. In fabric_server.c. */
int ftake(struct fab *f, bool *full);
void fconn_drain(struct fab *f); /* to the end, so that what is silent from now on is silent for ever */
void fconn_dirty(struct fconn *conn);   /* has work for the next turn */
void fconn_kill(struct fconn *conn);    /* ends in the next turn; idempotent */
void fconn_out(struct fconn *conn);     /* an operation was posted */
void fconn_back(struct fconn *conn);    /* and came back */
void fconn_close(struct tp_conn *conn); /* tp_conn_ops.close; in fabric_server.c */
/* In the turn: */
void fconn_clean(struct fconn *conn); /* takes it off the list of the dirty or the stuck */
void fconn_work(struct flistener *l, struct fconn *conn); /* post what is queued; clean before */
unsigned fconn_events(struct flistener *l); /* MSG: take what the event queue has; how many */
int frecvs_rdm(struct flistener *l);        /* one receive per credit of all that are not in hand */
void fconns_reap(struct flistener *l);      /* close and release the dying */
int fconns_know_self(struct flistener *l);  /* shm: before the first of them */
void fconns_forget_self(struct flistener *l);
void fconn_hello(struct ev_loop *loop, ev_io *w, int events); /* RDM: watcher of hello_fd */

#endif
