/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport.h - ONC RPC (RFC 5531) over sockets and libfabric fabrics, with the payload placed, not copied
 *
 * Server side. A transport hands a *call* to a *program* and asks it for the place of the payload:
 *
 *   socket:  record marking, readv/writev         fabric: RPC-over-RDMA v1 (RFC 8166), fi_read/fi_write
 *
 *   proc->run(call)      arguments decoded from call->args. If the procedure has a payload argument
 *                        (WRITE's data), args end before it and call->payload_len says its length:
 *                        the program maps that many bytes and calls
 *     tp_place()         the transport moves the payload there, then calls back
 *   tp_reply_begin()     gives the XDR stream for the results; then one of
 *     tp_reply_end()             results only
 *     tp_reply_end_payload()     results, then an opaque whose bytes are pushed from the given segments
 *     tp_reply_error(), tp_reply_auth_error(), tp_drop()
 *
 * Every call gets exactly one of these endings, also when its connection is long gone (the transport then
 * throws the reply away). After the ending the call belongs to the transport again.
 *
 * Turns. What a transport finds ready it takes in one turn, and sends the replies to it at the end. A program may hold back
 * what is cheaper done once for several calls, asks for the end of the turn (tp_want_turn_end()), and does it when it is told.
 *
 * Threads: a service's listeners, connections and calls live on the thread of the event loop they were made
 * with; every function on a call or listener is called on that thread. Nothing here blocks.
 *
 * Errors: 0 or negative errno; listeners and clients explain themselves in struct tp_error.
 * The transport knows nothing of NFS or of pools.
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include <rpc/rpc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "transport/clnt_fabric.h" /* struct tp_error, struct tp_fabric_opts, TP_API */

struct ev_loop;
struct tp_service;
struct tp_listener;
struct tp_conn;

/* --- programs ----------------------------------------------------------------------------------------- */

struct tp_cred { /* RFC 5531 section 8.2, appendix A */
	uint32_t flavor; /* AUTH_NONE, AUTH_SYS; others are refused by the transport (AUTH_BADCRED...) */
	uint32_t uid, gid;
	uint32_t ngids;
	uint32_t gids[16];
};

enum tp_kind { TP_TCP, TP_FABRIC_MSG, TP_FABRIC_RDM, TP_KINDS };

struct tp_call {
	uint32_t xid, prog, vers, proc;
	struct tp_cred cred;
	XDR args;             /* decodes the arguments; valid until run() returns */
	const uint8_t *arg_bytes; /* the same arguments as they came, payload left out; valid as long */
	uint32_t arg_len;
	uint32_t payload_len; /* of the payload argument, already bounded by the service's max_payload */
	enum tp_kind kind;
	void *ctx;            /* program->ctx_size bytes, zeroed before run(), for the program's own state */
	void *worker;         /* tp_service_opts.worker of the service */
	struct tp_conn *conn;
};

struct tp_proc {
	const char *name;
	void (*run)(struct tp_call *call);
	/* For a procedure whose last argument is an opaque<> payload: given the first @have bytes of the
	 * arguments, return how many bytes of arguments there are up to and with the payload's length
	 * word, as far as can be told from them: a number > @have means "look again when there are that
	 * many"; 0: malformed. NULL: no payload argument. */
	size_t (*payload_at)(const uint8_t *args, size_t have);
};

struct tp_program {
	uint32_t prog, vers;
	const struct tp_proc *procs;
	uint32_t nprocs;   /* procs[i].run == NULL: PROC_UNAVAIL */
	size_t ctx_size;
	bool auth_none_ok; /* false: all but procedure 0 need AUTH_SYS, else AUTH_TOOWEAK */
};

/* --- statistics: one struct per service, written by its thread, read by any ----------------------------------- */

#define TP_HIST 40 /* latency buckets: [2^i, 2^(i+1)) ns */
struct tp_proc_stats {
	uint64_t calls, errors; /* errors: not a SUCCESS accept_stat */
	uint64_t nsec;
	uint64_t hist[TP_HIST]; /* from header decoded to reply handed over */
};
struct tp_stats {
	struct tp_proc_stats *proc[TP_KINDS]; /* indexed by the order of programs, then procedure:
					       * tp_stats_index() */
	uint64_t domains; /* connections that have one of their own, now */
	uint64_t conns, conns_total, credits, calls_now;
	uint64_t displaced; /* connections closed for others, see max_conns */
	uint64_t payload_placed_bytes; /* by readv, writev, fi_read, fi_write: directly */
	uint64_t payload_inline_bytes; /* at most the inline threshold: stored once, out of the message or (shm) out of
					* memory shared with the client; or copied once into them */
	uint64_t payload_staged_bytes; /* through a staging buffer because memory could not be registered */
	uint64_t payload_copied_bytes; /* above the inline threshold and yet copied by the CPU: stays 0 */
	uint64_t bad_records, bad_headers, bad_chunks, bad_versions, auth_errors, timeouts, resets,
		provider_errors, provider_resets;
};

/* --- service: what all listeners of one loop share -------------------------------------------------------------- */

struct tp_region {
	void *base;
	size_t len;
	bool read_only; /* never written: payload only goes out of it */
};

struct tp_service_opts {
	const struct tp_program *const *programs; /* NULL-terminated; must outlive the service */
	const struct tp_region *regions;          /* memory that payload segments point into */
	unsigned nregions;
	void (*copy_in)(void *dst, const void *src, size_t len); /* for inline payload; NULL: memcpy */
	uint32_t max_payload;     /* bytes of one payload; 0: 1 MiB. Longer ones: GARBAGE_ARGS */
	uint32_t max_call;        /* bytes of a call without its payload; 0: 32 KiB */
	uint32_t max_reply;       /* results of one reply without payload; 0: 1 MiB */
	unsigned max_conns;       /* 0: 4096. One more closes the TCP connection that was silent longest */
	unsigned idle_timeout;    /* seconds a connection may hold a half-sent call or not take its reply; 0: 60 */
	unsigned client_timeout;  /* seconds after which a client that is gone without a word has lost its connection;
				   * 0: 180. Sockets ask the peer's kernel (keepalive). FI_EP_MSG fabrics cannot ask:
				   * there a connection without a call for so long is closed, and a client that
				   * lives connects again with its next call */
	void (*log)(void *arg, int priority, const char *text);
	void *log_arg;
	/* Called with @worker once after tp_want_turn_end(): when no more is ready, or enough was held back; always before the
	 * loop sleeps. Replies made in it leave with those of the turn. */
	void (*turn_end)(void *worker);
	void *worker;
};
int tp_service_new(struct ev_loop *loop, const struct tp_service_opts *opts, struct tp_service **out);
/* Listeners first. Connections are closed; calls still with the program are forgotten by the transport when
 * they end. Free only when tp_service_calls() is 0. */
void tp_service_stop(struct tp_service *svc); /* accept and read nothing more; calls in progress go on */
/* For after that: close the connections, whatever is under way. Calls end as when their peers die, some of them in later turns
 * of the loop; those that are with the program when it ends them. */
void tp_service_hangup(struct tp_service *svc);
/* Something is held back, which the end of this turn is for: for @bytes of payload, or 0. The service has a turn_end. */
void tp_want_turn_end(struct tp_service *svc, uint32_t bytes);
unsigned tp_service_calls(const struct tp_service *svc); /* calls that the program has not ended yet, replies unsent */
void tp_service_free(struct tp_service *svc);
const struct tp_stats *tp_service_stats(const struct tp_service *svc);
/* Position of a procedure in tp_stats.proc[kind]; total number with prog == 0. */
unsigned tp_stats_index(const struct tp_service *svc, uint32_t prog, uint32_t vers, uint32_t proc);

/* --- listeners ------------------------------------------------------------------------------------------------------- */

/* Accept TCP on @fd (bound, listening, non-blocking; the listener owns it). Several workers may each have one
 * on the same port with SO_REUSEPORT. */
int tp_listen_socket(struct tp_service *svc, int fd, struct tp_listener **out);
/* Open such sockets for host (NULL: any, IPv4 and IPv6) and port; fills at most @max fds. */
int tp_socket_bind(const char *host, const char *port, bool reuseport, int *fds, unsigned max, unsigned *n,
		   struct tp_error *why);

int tp_listen_fabric(struct tp_service *svc, const struct tp_fabric_opts *opts, struct tp_listener **out,
		     struct tp_error *why);
/* What was chosen: "tcp FI_EP_MSG fabric 127.0.0.0/8 domain lo at 127.0.0.1:20049, placement direct ..." */
void tp_listener_describe(const struct tp_listener *l, char *buf, size_t len);
void tp_listener_close(struct tp_listener *l);

/* --- calls -------------------------------------------------------------------------------------------------------------- */

/* The peer's address, as long as the call is; AF_UNSPEC for one on this machine without an address (shm: same user). */
const struct sockaddr_storage *tp_call_peer(const struct tp_call *call);
/* Of a peer without an address: which client it says it is (struct tp_fabric_opts), also after a reconnect; else zero. */
void tp_call_instance(const struct tp_call *call, uint8_t out[16]);
bool tp_call_alive(const struct tp_call *call); /* the connection still stands */

/* Move the payload argument into @iov (sum of lengths == call->payload_len). @placed: err 0, or negative
 * when the peer died, -EFAULT when memory in @iov could not be written; always called exactly once, maybe before tp_place returns. iov is copied. */
void tp_place(struct tp_call *call, const struct iovec *iov, unsigned n, void (*placed)(struct tp_call *call, int err));

/* Largest results (bytes of XDR, payload not counted) this client can take for this call. */
size_t tp_reply_room(const struct tp_call *call);
/* Begin the results, at most @max bytes and tp_reply_room. NULL: no memory, the call is already dropped. A payload
 * not placed is skipped. */
XDR *tp_reply_begin(struct tp_call *call, size_t max);
void tp_reply_end(struct tp_call *call);
/* The results so far, an opaque length word of @len (encoded by this function), then @len bytes from @iov. @sent(arg, err)
 * is called exactly once when the segments are no longer in use; of the call only its ctx is left then, until sent()
 * returns. */
void tp_reply_end_payload(struct tp_call *call, const struct iovec *iov, unsigned n, uint32_t len,
			  void (*sent)(void *arg, int err), void *arg);
/* Most payload bytes that a reply to this call can carry (write or reply chunk the client gave; max_payload on sockets). */
uint32_t tp_reply_payload_room(const struct tp_call *call);
void tp_reply_error(struct tp_call *call, enum accept_stat stat); /* GARBAGE_ARGS, SYSTEM_ERR, PROC_UNAVAIL */
void tp_reply_auth_error(struct tp_call *call, enum auth_stat stat);
void tp_drop(struct tp_call *call); /* no reply at all */

/* --- keys: memory of a region that the peer of one connection may read or write by itself ------------------------ *
 *
 * A key is made for the connection of a call. Providers look keys up in the connection's domain, which is the listener's:
 * against other connections in it a key is protected by being 64 random bits (tcp, shm); where the provider chooses
 * (verbs), they are one trust group. A connection that asks for it, and whose listener gives it (tp_fabric_opts.own), has a
 * domain of its own: its keys are good on no other connection, nor are others' on it. It carries calls of one program,
 * without chunks.
 *
 * Closing. After tp_key_close() no new access begins. What had begun may still be under way: providers in software
 * (tcp) hold raw pointers into the memory. dead() says that this is over too: at once where closing waits for it
 * (verbs); else once the connection has sent and received something newer, or is closed. Until then the memory
 * must not serve another purpose. tp_key_hurry() closes the connection, if that is what it takes.
 */
struct tp_key;
struct tp_rma_facts {
	const char *fabric;   /* tp_fabric_opts.name of the listener */
	const char *provider;
	unsigned key_size;    /* bytes */
	bool virt;            /* addresses are virtual ones, else they count from the base of the key */
	bool fenced;          /* a closed key keeps the peer out; false (shm with virtual addresses): nobody checks */
	bool commit_complete; /* FI_RMA_PMEM */
	bool staged;          /* the regions cannot be registered at all */
	bool own;             /* the keys of this connection are good on no other: its domain is its own */
	bool own_offered;     /* the listener gives such domains (tp_fabric_opts.own) */
};
/* -EOPNOTSUPP: a socket. */
int tp_call_rma_facts(const struct tp_call *call, struct tp_rma_facts *out);
/* [@base, + @len) of a region. -ECONNRESET the peer is gone; -EOPNOTSUPP this memory cannot be registered; -ENOMEM, -EPERM,
 * ... of fi_mr_reg. */
int tp_key_open(struct tp_call *call, void *base, size_t len, bool writable, struct tp_key **out);
uint64_t tp_key_value(const struct tp_key *k);
uint64_t tp_key_addr(const struct tp_key *k, const void *p); /* for the peer, of a byte in the range */
/* @dead is called once, maybe before this returns; the key object is gone then. */
void tp_key_close(struct tp_key *k, void (*dead)(void *arg), void *arg);
void tp_key_hurry(struct tp_key *k);

/* Told once when the connection of a call is over: its endpoint is closed, nothing of the peer is under way. */
struct tp_conn_watch {
	void (*gone)(struct tp_conn_watch *w);
	bool left; /* set by then: the peer ended it, or died. Else it may not know yet, which matters where tp_rma_facts.fenced is false */
	struct tp_conn_watch *next; /* the transport's */
};
void tp_conn_watch(struct tp_call *call, struct tp_conn_watch *w); /* the call is alive */

/* --- what libfabric offers here (offer.c) --------------------------------------------------------------------------- */

struct tp_offer { /* one entry of fi_getinfo */
	char provider[64], fabric[64], domain[64], ep_type[32];
	char address[64]; /* IP address, or empty */
	bool rma, rma_pmem;
};
/* Every entry that @provider (NULL: any) offers without being asked for anything. May block for long: some providers
 * search the system for their devices, and some print. */
int tp_offers(const char *provider, void (*offer)(void *arg, const struct tp_offer *o), void *arg);
/* The providers that this libfabric has, layered ones ("tcp;ofi_rxm") too. */
int tp_provider_names(void (*name)(void *arg, const char *provider), void *arg);
void tp_fabric_version(unsigned *major, unsigned *minor);

enum tp_selftest { TP_TEST_NOT_RUN, TP_TEST_PASSED, TP_TEST_FAILED };
struct tp_provider_facts { /* of a provider as a listener opens it */
	char provider[64], fabric[64], domain[64], ep_type[16];
	char mr_mode[128];    /* of what Berth can do, what the provider wants; empty: nothing */
	char msg_order[256];
	unsigned key_size;    /* bytes */
	bool virt;            /* RMA addresses are virtual ones */
	bool prov_key;        /* the provider chooses the keys */
	bool registers;       /* memory of local transfers wants a registration */
	bool send_after_write; /* a send is not seen before the writes ahead of it */
	bool wait_fd;         /* false: polled */
	bool fenced;          /* keys are looked at */
	bool rma_pmem;        /* FI_RMA_PMEM */
	bool verbs_like;      /* a card places writes, and a read behind them on the endpoint pushes them out */
	size_t iov_limit, rma_iov_limit, max_msg_size, inject_size;
	enum tp_selftest commit_test; /* of a write with FI_COMMIT_COMPLETE */
	int commit_err;       /* why it failed: -ETIMEDOUT, -EBADMSG (completed before its bytes were there), ... */
	bool memory_tried, staged; /* of the memory given: can it be registered? */
	int memory_err;
};
/* Open what @opts names as a listener would, on a port of its own, and try it. @mem: also whether this memory can be
 * registered, or NULL. @timeout_ms: bound of the self-test of FI_COMMIT_COMPLETE, made where FI_RMA_PMEM is claimed;
 * 0: none. Blocks as long as that and opening take: not for an event loop. The caller's own endpoints are not needed. */
int tp_provider_try(const struct tp_fabric_opts *opts, const struct tp_region *mem, unsigned timeout_ms,
		    struct tp_provider_facts *out, struct tp_error *why);

/* --- client over a fabric ---------------------------------------------------------------------------------------------------- *
 *
 * One connection, any number of requests within the credits granted; more are queued. All functions of a client
 * are called on one thread at a time. Progress is made by tp_client_progress(): call it when tp_client_fd() is readable
 * and tp_client_before_poll() before every poll: while a call is out, the server's RMA may need it.
 */
struct tp_client;
struct tp_mr; /* a registered range */

enum { TP_CLIENT_CONNECTING, TP_CLIENT_UP, TP_CLIENT_DOWN };

/* Starts connecting (address resolution may block briefly). The state tells how it went. */
TP_API int tp_client_open(const struct tp_fabric_opts *opts, struct tp_client **out, struct tp_error *why);
TP_API void tp_client_close(struct tp_client *c); /* requests still out complete with -ECANCELED */
TP_API int tp_client_state(const struct tp_client *c, struct tp_error *why);
TP_API int tp_client_fd(const struct tp_client *c);
/* 0: may sleep in poll for at most *timeout_ms (-1: for ever) on the fd; -EAGAIN: call progress now. */
TP_API int tp_client_before_poll(struct tp_client *c, int *timeout_ms);
TP_API int tp_client_progress(struct tp_client *c); /* completions handled, or -errno with state DOWN */
/* All of it: poll and progress until something happened or the time is over. */
TP_API int tp_client_wait(struct tp_client *c, int timeout_ms);

/* Register memory that payloads come from or go to. Without it tp_client_send registers ranges by itself and keeps
 * them in a cache (64 ranges, least recently used leaves first). */
TP_API int tp_client_register(struct tp_client *c, void *base, size_t len, struct tp_mr **out);
TP_API void tp_client_unregister(struct tp_client *c, struct tp_mr *mr);

struct tp_req {
	uint32_t xid;                /* set by tp_req_begin, or kept if set_xid (a retry after reconnecting) */
	bool set_xid;
	const struct iovec *out;     /* payload argument (the last one), NULL without; its length word is
				      * encoded by the transport */
	unsigned nout;
	const struct iovec *in;      /* place of the payload result (the last one) */
	unsigned nin;
	size_t max_results;          /* largest results expected without payload: a reply chunk is offered if
				      * they might not fit inline */
	void (*done)(struct tp_req *req, int err); /* err: 0, or -ECONNRESET, -ECANCELED, -EPROTO, ... */
	/* for done(): */
	XDR results;                 /* decodes the results, payload left out; its length word included; valid in done() */
	struct accepted_reply reply; /* ar_stat; with err -EACCES: auth_why */
	enum auth_stat auth_why;
	uint32_t in_len;             /* payload bytes that arrived */
	void *priv;                  /* the transport's */
};
/* The stream for the arguments (payload left out): at most @max bytes. Cred: AUTH_SYS with these, or NULL: AUTH_NONE. */
TP_API XDR *tp_req_begin(struct tp_client *c, struct tp_req *req, uint32_t prog, uint32_t vers, uint32_t proc,
		  const struct tp_cred *cred, size_t max);
/* Send, or queue until there is credit. done() is called from tp_client_progress() or tp_client_close(), never before
 * this returns; a negative return means that it is not called and the request is as if abandoned. done() may begin and
 * send other requests (this one too), and may close the client. */
TP_API int tp_req_send(struct tp_client *c, struct tp_req *req);
TP_API void tp_req_abandon(struct tp_client *c, struct tp_req *req); /* begun, not to be sent */

/* One-sided access to memory that the server has given a key for (doc/layout.md). */
enum tp_rma_how {
	TP_RMA_READ,
	TP_RMA_WRITE,
	TP_RMA_WRITE_COMMIT, /* FI_COMMIT_COMPLETE: done() means durable, where tp_client_rma_info.commit_complete */
	TP_RMA_PUSH, /* read at most TP_PUSH_MAX bytes and throw them away; buf is not used. On cards done() says that what was
	              * written before has left them: put it behind the writes where tp_client_rma_info.read_after_write,
	              * else behind their completions */
};
#define TP_PUSH_MAX 8
struct tp_rma { /* yours, untouched until done() */
	enum tp_rma_how how;
	void *buf; /* local bytes; registered as payloads are */
	size_t len; /* at least 1 */
	uint64_t addr, key; /* of the peer */
	/* err: 0; -ECONNRESET, -ECANCELED, ... the connection is over; a dead or wrong key ends here as well, by provider
	 * with an error of this operation or of the whole connection. Not for shm: keys are not looked at. */
	void (*done)(struct tp_rma *op, int err);
	struct tp_client_rma *priv; /* the transport's */
};
/* Start, or queue until the provider takes it; operations start in the order of these calls, and a tp_req_send() behind
 * them goes out behind them. done() as that of tp_req_send(). -ENOTCONN: not UP; -EOPNOTSUPP: no commit_complete. */
TP_API int tp_client_rma(struct tp_client *c, struct tp_rma *op);

struct tp_client_rma_info {
	bool commit_complete; /* the provider has FI_RMA_PMEM */
	bool write_before_send; /* a call sent behind RMA writes is not seen by the server before they are placed */
	bool read_after_write; /* a read sent behind writes is done behind them (FI_ORDER_RAW) */
	bool virt;            /* addresses are virtual (FI_MR_VIRT_ADDR) */
	bool keys_checked;    /* RMA with a dead key fails: all but shm */
	bool polled;          /* no wait descriptor */
	char provider[32];
};
TP_API void tp_client_get_rma_info(const struct tp_client *c, struct tp_client_rma_info *out);

#endif
