/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric.h - what server and client share of libfabric: choice, queues, memory, completions,
 * meeting
 *
 * struct fab is one opened domain with one completion queue: FI_EP_MSG has an event queue for its
 * connections, FI_EP_RDM one endpoint and an address vector. Everything the provider was free to
 * choose is read back from it once, into the plain fields below; nothing else asks which provider
 * it is. A second domain beside it, for one connection alone, is another struct fab that shares the
 * fabric and the event queue (fab_open_beside).
 *
 * An operation is a struct fab_op inside whatever it belongs to. While it is posted it is the
 * provider's; done() gives it back, once per post, from within fab_progress(). A post that fails
 * (-EAGAIN: make progress, then try again) never calls done(). After fab_ep_close() of its endpoint
 * and a fab_progress() that found nothing more, an op that has not been given back never will be.
 *
 * One thread at a time per struct fab. Every call into the provider passes between fab_enter() and
 * fab_leave(), so that a watchdog can tell a thread that hangs inside it (shm: a killed peer may
 * leave a lock taken for ever).
 */
#ifndef TRANSPORT_FABRIC_H
#define TRANSPORT_FABRIC_H

#include "transport/transport.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>
#include <signal.h>
#include <stdatomic.h>

#ifndef container_of
#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
#endif

#define FAB_API         FI_VERSION(1, 17)
#define FAB_MAX_IOV     8   /* the most of the provider's own limit that we use */
#define FAB_ADDR_MAX    256 /* bytes of an endpoint's address */
#define FAB_DEF_CREDITS 32
#define FAB_DEF_INLINE  4096
#define FAB_DEF_READS   16

struct fab_op {
	struct fi_context2 ctx; /* the provider's while posted */
	void (*done)(struct fab_op *op, int err);
	size_t len;     /* receives: bytes that came */
	fi_addr_t from; /* receives on FI_EP_RDM: who sent it; FI_ADDR_NOTAVAIL: nobody inserted */
};

/* Set while a thread is in the provider; turn counts the visits. The watchdog's only input. */
struct fab_guard {
	volatile sig_atomic_t inside;
	volatile sig_atomic_t turn;
};

enum fab_role { FAB_SERVER, FAB_CLIENT };

struct fab {
	struct fi_info *info; /* as chosen; MSG clients: dest_addr is the server */
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_eq *eq; /* MSG only */
	struct fid_av *av; /* RDM only */
	struct fid_ep *ep; /* RDM only: enabled, bound */
	int cq_fd, eq_fd;  /* -1: none (shm) */
	bool eq_ready;     /* events may be there: fab_before_sleep() found some, or the caller's poll did */
	bool rdm, shm, tcp;
	bool beside; /* fabric, eq and info are another's */
	bool mr_local; /* local buffers want a registration and its descriptor */
	bool mr_virt;  /* remote addresses are virtual ones, else offsets from the region's start */
	bool mr_prov_key; /* the provider picks the keys */
	bool saw;         /* a send is not seen before the writes ahead of it on its endpoint */
	bool raw;         /* a read is done behind the writes ahead of it on its endpoint */
	bool pmem;        /* FI_RMA_PMEM: FI_COMMIT_COMPLETE is obeyed */
	bool deliver;     /* writes ask for FI_DELIVERY_COMPLETE */
	size_t iov_max;   /* local segments per send, read, write (1..FAB_MAX_IOV) */
	size_t msg_max;   /* bytes per operation */
	size_t tx_size, rx_size;    /* operations an endpoint can have posted */
	uint8_t addr[FAB_ADDR_MAX]; /* RDM: our own address, for the hello */
	size_t addr_len;
	struct fab_guard guard;
	/* For keys that are dying (fabric_key.c): how many there are, and then how often the queue was found empty. */
	unsigned nclosing;
	uint64_t drained;
	char shm_name[64]; /* the file in /dev/shm to remove, if one is left */
};

static inline void fab_enter(struct fab *f)
{
	f->guard.turn++;
	f->guard.inside = 1;
}

static inline void fab_leave(struct fab *f)
{
	f->guard.inside = 0;
}

/* --- fabric.c ------------------------------------------------------------------------------------
 */

/* What fi_getinfo offers for @opts, best first, restricted to what Berth can use; fi_freeinfo() it.
 */
int fab_getinfo(const struct tp_fabric_opts *opts, enum fab_role role, struct fi_info **out,
                struct tp_error *why);
/* Choose and open all of struct fab; FI_EP_RDM: with the endpoint enabled. Signal handlers that the
 * provider takes over are put back. */
int fab_open(const struct tp_fabric_opts *opts, enum fab_role role, struct fab **out,
             struct tp_error *why);
/* MSG: a domain and a queue of its own on the fabric of @with, for one endpoint that may have @depth receives and as many
 * other operations posted. Closed before @with; its events come out of the event queue of @with. */
int fab_open_beside(struct fab *with, size_t depth, struct fab **out);
void fab_close(struct fab *f); /* endpoints of connections are closed before */
/* Forget a provider that hangs: nothing of it is called again, what it holds is lost. */
void fab_abandon(struct fab *f);
/* Remove what a dead shm endpoint of ours has left in /dev/shm. */
void fab_unlink_shm(const char *name);
/* Fill @why with "fabric NAME (PROVIDER): WHAT: reason". Returns @err. */
int fab_error(struct tp_error *why, const struct tp_fabric_opts *opts, const char *what, int err);

/* MSG: an endpoint bound to CQ and EQ and enabled, so that receives can be posted before
 * fi_connect/fi_accept.
 * @info: f->info, or the one that came with the connection request (its sizes are set to those of @f). */
int fab_ep_open(struct fab *f, struct fi_info *info, void *context, struct fid_ep **out);
/* fi_shutdown (MSG), then fi_close. */
void fab_ep_close(struct fab *f, struct fid_ep *ep);

struct fab_event {
	uint32_t event; /* FI_CONNREQ, FI_CONNECTED, FI_SHUTDOWN; 0 with err != 0: the fid's
	                   connection failed */
	int err;        /* negative errno */
	fid_t fid;
	struct fi_info *info; /* FI_CONNREQ: the receiver frees it */
	uint8_t data[256];    /* private data of the peer */
	size_t len;           /* may be longer than what the peer sent, and garbage: check magic */
};
int fab_eq_read(struct fab *f, struct fab_event *ev); /* 1: an event; 0: none, clears eq_ready; or -errno */

/* Hand completions to their ops: at most about @max. Returns how many, or -errno when the queue is
 * broken. */
int fab_progress(struct fab *f, unsigned max);
/* The same from one look into the queue: at most FAB_POLL. Fewer than that do not mean that it is empty. */
#define FAB_POLL 16
int fab_poll(struct fab *f);
/* Before sleeping on cq_fd and eq_fd: 0 may sleep, -EAGAIN must call fab_progress/fab_eq_read
 * first. */
int fab_before_sleep(struct fab *f);

/* Posting. @addr is ignored by MSG endpoints (pass FI_ADDR_UNSPEC). @desc per segment: fab_mr.desc
 * or NULL. A send or receive of more than f->msg_max, or more than f->iov_max segments, is the
 * caller's mistake. Return 0 or -errno. */
int fab_recv(struct fab *f, struct fid_ep *ep, void *buf, size_t len, void *desc,
             struct fab_op *op);
int fab_send(struct fab *f, struct fid_ep *ep, const void *buf, size_t len, void *desc,
             fi_addr_t addr, struct fab_op *op);
int fab_read(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n,
             fi_addr_t addr, uint64_t raddr, uint64_t key, struct fab_op *op);
int fab_write(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n,
              fi_addr_t addr, uint64_t raddr, uint64_t key, struct fab_op *op);

/* fab_write that completes when the bytes are durable at the peer (FI_COMMIT_COMPLETE). Means something where
 * f->pmem. One local segment. */
int fab_write_commit(struct fab *f, struct fid_ep *ep, void *buf, size_t len, void *desc, fi_addr_t addr,
                     uint64_t raddr, uint64_t key, struct fab_op *op);

struct fab_mr {
	struct fid_mr *mr; /* NULL: not registered, because nobody needs it */
	void *base;
	size_t len;
	void *desc;
	uint32_t key; /* RFC 8166 handles have 32 bits */
	uint64_t long_key; /* of fab_key_open */
};
/* Registers if @access has FI_REMOTE_READ or FI_REMOTE_WRITE, or local registrations are wanted.
 * -EOPNOTSUPP: this kind of memory cannot be registered (fsdax); -EPERM or -ENOMEM: fab_error names
 * the memlock limit. */
int fab_mr_open(struct fab *f, void *base, size_t len, uint64_t access, struct fab_mr *out);
/* For the peers' own RMA: always registered, the key in long_key is as long as the provider's are, and random where
 * the choice is ours. */
int fab_key_open(struct fab *f, void *base, size_t len, uint64_t access, struct fab_mr *out);
void fab_mr_close(struct fab *f, struct fab_mr *mr);
/* The address under which the peer's RMA reaches @p of that region. */
static inline uint64_t fab_mr_addr(const struct fab *f, const struct fab_mr *mr, const void *p)
{
	return f->mr_virt ? (uint64_t)(uintptr_t)p
	                  : (uint64_t)((const char *)p - (const char *)mr->base);
}

/* --- rendezvous.c: how FI_EP_RDM peers meet, notice each other's end, and wake each other --- *
 *
 * A stream socket beside the fabric: for shm an abstract Unix socket named after uid and service,
 * where only the same user is let in; for other providers TCP on node and service. The client says
 * hello, the server answers; from then on end-of-file means that the peer is dead, and a byte means
 * "look at your completion queue".
 *
 * Over shm the server's answer also brings memory that both have mapped (rdv.shared), if the client has asked for it: a chunk
 * of one segment whose handle is RDV_SHARED lies there, at an offset, and is copied by either end. One process reading
 * another's memory is a system call that costs more than copying a small payload twice.
 *
 * Sleeping (providers without a wait descriptor): a page that both map (sent with the server's
 * answer, Unix sockets only) holds one flag per side. Sleep:  rdv_arm(); look at the CQ once more;
 * poll(); rdv_disarm().  Send: post, then rdv_ring(). Without a page rdv_ring() always writes its
 * byte if the peer has asked for that in its hello.
 */
struct rdv_hello {
	uint8_t addr[FAB_ADDR_MAX];
	uint32_t addr_len;
	uint32_t inline_size; /* bytes of the largest message its sender receives */
	uint32_t credits;     /* client: wanted; server: granted to begin with */
	uint64_t nonce;       /* which instance of the endpoint this is */
	uint8_t instance[16]; /* client: see struct tp_fabric_opts */
	bool ring;            /* its sender has no wait descriptor */
	bool share;           /* client: it makes use of shared memory */
	uint32_t slot;        /* server's answer: the client's flag in the page */
};

#define RDV_SHARED 0x42534852u /* handle of what lies in shared memory; no registration has it for its key */

struct rdv_page; /* server: the flags of one listener */

struct rdv {
	int fd;
	size_t have; /* bytes of the peer's hello that came */
	uint8_t buf[512];
	int page_fd;             /* came with the answer, -1 */
	int shared_fd;           /* likewise; server: until it has answered */
	uint8_t *shared;         /* NULL: there is none */
	size_t shared_len;
	void *map;               /* client: the page mapped */
	size_t map_len;
	_Atomic uint32_t *mine;  /* set: this side sleeps; NULL: no page */
	_Atomic uint32_t *their; /* set: the peer sleeps */
	bool ring;               /* no page: ring always */
	pid_t pid;               /* server, shm: of the client's process; 0: not known */
};

#define RDV_NONE (struct rdv){ .fd = -1, .page_fd = -1, .shared_fd = -1 }

/* Client: start connecting (name resolution may block). The socket is non-blocking; wait for
 * POLLOUT, then rdv_dialed(). */
int rdv_dial(const struct fab *f, const struct tp_fabric_opts *opts, struct rdv *r,
             struct tp_error *why);
int rdv_dialed(struct rdv *r); /* 0 connected; -EAGAIN not yet; -errno */
int rdv_send_hello(struct rdv *r, const struct rdv_hello *h); /* once, on a fresh connection */
/* 0: @h is set (client: and the page mapped); -EAGAIN: more to come; -EPROTO, -ECONNRESET, ... */
int rdv_recv_hello(struct rdv *r, struct rdv_hello *h);
/* After the hello, when fd is readable: takes the bytes away. 0, or -ECONNRESET: the peer is gone.
 */
int rdv_drain(struct rdv *r);
void rdv_close(struct rdv *r);

/* After a message was posted: wake the peer if it sleeps. */
void rdv_ring(struct rdv *r);
/* Say that we are about to sleep; a full fence lies behind. Look at the CQ once more before poll().
 */
void rdv_arm(_Atomic uint32_t *mine);
void rdv_disarm(_Atomic uint32_t *mine);

/* Server. */
int rdv_listen(const struct fab *f, const struct tp_fabric_opts *opts, int *fd,
               struct tp_error *why);
int rdv_accept(const struct fab *f, int listen_fd,
               struct rdv *r); /* -EAGAIN; -EACCES: another user, refused */
int rdv_page_new(struct rdv_page **out);
void rdv_page_free(struct rdv_page *pg);
_Atomic uint32_t *rdv_page_server(struct rdv_page *pg); /* the server's flag, for rdv_arm */
/* Before the answer: @len bytes of shared memory, which go with it. No error: without memory or descriptors there is none. */
void rdv_share(struct rdv *r, size_t len);
/* Give @r a slot and send the answer with the page. -ENOSPC: no slot. */
int rdv_answer(struct rdv *r, struct rdv_page *pg, struct rdv_hello *h);
void rdv_page_put(struct rdv_page *pg, struct rdv *r); /* the connection ended: its slot is free */

#endif
