/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bare.h - two ends of a fabric by libfabric calls alone: what Berth's own use of it is measured against
 *
 * One end listens (bare_serve), the other comes (bare_connect); they meet through a socket between the two, tell each
 * other what they need, and then exchange messages and move bytes between their memories. Each end is one thread's.
 * FI_EP_MSG (tcp, verbs): an endpoint for each connection, and the queue's descriptor to wait on. FI_EP_RDM (shm and
 * others): all connections share one endpoint, and where there is no descriptor it is polled.
 */
#ifndef BENCH_BARE_H
#define BENCH_BARE_H

#include <rdma/fabric.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BARE_MESSAGE 256u /* bytes of a message at most */

struct bare_shape { /* the same at both ends */
	char provider[16];
	char node[64];  /* FI_EP_MSG: numeric address that the first end listens on */
	uint32_t conns, depth; /* depth: messages in flight on each connection */
};

enum bare_what { BARE_GOT, BARE_SENT, BARE_MOVED };
struct bare_op { /* one posted operation: yours from bare_op_get, or from bare_next, until bare_op_put */
	struct fi_context2 ctx; /* first */
	enum bare_what what;
	unsigned conn, slot;
	char *msg; /* BARE_GOT: where */
	struct bare_op *next;
	struct bare_op *older; /* of all that were made */
};

struct bare_end {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_pep *pep;
	struct fid_ep **ep; /* FI_EP_RDM: one */
	unsigned neps, depth; /* depth: of an endpoint */
	struct fid_mr *msg_mr, *data_mr;
	char *msg, *data; /* messages: one to send from for each endpoint and slot, then those received */
	size_t msg_len;
	fi_addr_t peer;
	uint64_t addr, key; /* of the other end's memory */
	int fd;   /* of the queue; -1: poll */
	int meet; /* the socket */
	bool msg_ep, ordered; /* ordered: a message does not overtake a write before it */
	bool commit; /* a write may ask to be durable at the target (FI_COMMIT_COMPLETE) */
	char left[128]; /* name of the other end's endpoint: what it leaves behind if it is killed */
	struct bare_op *idle, *made;
	struct bare_op **ring; /* completions read, not yet looked at */
	unsigned head, tail, ring_len;
};

/*
 * Make an end around @len bytes at @data, which stay yours, and meet the other through the socket @meet, which stays
 * yours too and must outlive the end. When they return 0 all connections stand and all receives are posted; -errno
 * otherwise, the other end's too. Close @e in any case.
 */
int bare_serve(struct bare_end *e, const struct bare_shape *s, char *data, size_t len, int meet);
int bare_connect(struct bare_end *e, const struct bare_shape *s, char *data, size_t len, int meet);
/* Instead of bare_serve: tell who came why not. Returns @err. */
int bare_refuse(int meet, int err);
void bare_close(struct bare_end *e);

/* The next completion; NULL: none yet, after at most a second. *err: what broke; -EPIPE: the other end is gone. */
struct bare_op *bare_next(struct bare_end *e, int *err);
struct bare_op *bare_op_get(struct bare_end *e, enum bare_what what, unsigned conn, unsigned slot);
void bare_op_put(struct bare_end *e, struct bare_op *op);

/* These post, however long the provider wants to be asked again; 0 or -errno. @conn: of an endpoint. */
int bare_recv(struct bare_end *e, unsigned conn, char *msg);
int bare_send(struct bare_end *e, unsigned conn, unsigned slot, const void *head, size_t head_len, size_t len);
/* @len bytes at @at of our memory, from or to the other's @addr with @key. */
int bare_read(struct bare_end *e, unsigned conn, char *at, size_t len, uint64_t addr, uint64_t key, struct bare_op *op);
int bare_write(struct bare_end *e, unsigned conn, char *at, size_t len, uint64_t addr, uint64_t key, struct bare_op *op);
/* The same, complete when it is durable, where e->commit. */
int bare_write_durable(struct bare_end *e, unsigned conn, char *at, size_t len, uint64_t addr, uint64_t key,
		       struct bare_op *op);
uint64_t bare_base(const struct bare_end *e); /* of our memory, as the other must name it */

#endif
