/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.h - what the parts of libberth share; private to this directory
 *
 *   url.c      URLs                                session.c  connection, reconnect, event loop
 *   nfs.c      encoding and decoding of calls      mount.c    finding and mounting the export
 *   file.c     open files, unstable data           path.c     names, synchronously
 *   map.c      mappings: layouts held and lost     put.c      one-sided transfers and their way out
 *   way.c      which of the two it is              push.c     the read behind the writes
 *   layout.c   calls of the LAYOUT program         extent.c   what a layout says of a range
 *   reach.c    why a server is not there
 *   lane.c     a connection of their own for layouts, and for RMA
 *
 * An operation (struct op) is in exactly one list of its session:
 *
 *   pending --send--> sent --answer--> finished --callback--> freed
 *      ^                |
 *      +---- connection lost, or NFS3ERR_JUKEBOX
 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include <sys/queue.h>

#include "client/berth.h"
#include "transport/transport.h"

#ifndef container_of
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#endif

struct op {
	struct tp_req req;
	struct berth *b;
	TAILQ_ENTRY(op) link;
	uint32_t prog, proc;
	bool once; /* means something on this connection only: fails with it (-ECONNRESET) */
	bool lane; /* it goes over the lane, and is in the lane's lists */
	uint8_t *args; /* encoded once, sent as often as needed */
	size_t args_len;
	struct iovec out, in; /* payload; iov_base NULL: none */
	size_t max_results;
	int (*decode)(struct op *op, XDR *x); /* into reply; 0 or negative errno; JUKEBOX below */
	berth_done *done;
	void *arg;
	struct berth_reply reply;
	void *extra; /* of decode: freed with the op by drop_extra */
	void (*drop_extra)(struct op *op);
	uint32_t xid;
	bool numbered; /* xid is set: this one was sent before */
	unsigned tries, delays;
	uint64_t not_before, sent_at; /* ms */
	int err;
};
TAILQ_HEAD(op_list, op);

#define OP_JUKEBOX (-4095) /* what decode() says to "try again later" */

struct berth_mr {
	LIST_ENTRY(berth_mr) link;
	void *base;
	size_t len;
	struct tp_mr *mr, *lane_mr; /* of the connections that stand; NULL between connections */
};

struct lane {
	struct tp_client *c; /* NULL: none */
	bool up, tearing;
	int watched;
	uint64_t connect_by; /* ms */
	struct op_list pending, sent;
};

struct put;
TAILQ_HEAD(put_list, put);

struct berth {
	struct berth_url *url;
	struct tp_fabric_opts fab;
	struct tp_client *c; /* NULL: none, and next_try says when to make one */
	bool up;             /* c stands and pending operations were handed to it */
	bool first;          /* never was up: failure is told at once, not bridged */
	bool tearing, closing, in_progress, in_callback;
	int epfd, watched; /* berth_fd(), and the transport's descriptor in it or -1 */
	uint64_t next_try, connect_by, outage_since; /* ms of the monotonic clock; 0: none */
	unsigned backoff_ms, connect_ms, timeout_ms, reconnect_ms;
	uint32_t next_xid;
	struct tp_cred cred;
	struct op_list pending, sent, finished;
	unsigned nops;
	LIST_HEAD(, berth_mr) regs;
	struct lane lane;
	bool own_lane;  /* layouts belong to the lane, as the server wants it; else to c */
	uint64_t epoch; /* number of the connection that layouts belong to; moves when one ends */
	LIST_HEAD(, berth_map) maps;
	struct put_list unpushed; /* written, and a read behind the writes is to come */
	size_t unpushed_bytes;
	unsigned pushes_out; /* such reads */
	uint64_t next_renew; /* ms; 0: no layout is held */
	bool renewing;
	bool know_layouts; /* of this epoch: the next two are set */
	bool no_layouts;
	unsigned renew_ms;
	char no_layouts_why[256];
	struct berth_fh root;
	char *export_path, *path;
	uint32_t rtmax, wtmax, dtpref;
	struct berth_counters count;
	void (*log)(void *arg, int priority, const char *text);
	void *log_arg;
	struct tp_error why;
};

/* --- session.c ----------------------------------------------------------------------------------
 */
uint64_t now_ms(void);
/* Take @op (filled from prog to arg) into the session; never fails. */
void op_start(struct op *op);
void op_free(struct op *op);
/* An operation that is not a call: counted like one, ended by op_finish() from anywhere, @done called as any (S3). */
struct op *op_hold(struct berth *b, berth_done *done, void *arg);
void op_finish(struct op *op, int err);
void op_drop(struct op *op); /* held, and nothing came of it */

/* Send it over @c; its list is the caller's. */
int op_send(struct op *op, struct tp_client *c, uint64_t now);
/* It is answered, or failed for good (@err): decode the answer while it is there. On no list. */
void op_conclude(struct op *op, int err);
void sooner(int *timeout_ms, uint64_t at, uint64_t now);

/* --- lane.c --------------------------------------------------------------------------------------
 */
/* The connection that layouts belong to: RMA goes over it; is it up? */
static inline struct tp_client *layouts_client(const struct berth *b)
{
	return b->own_lane ? b->lane.c : b->c;
}
static inline bool layouts_up(const struct berth *b)
{
	return b->own_lane ? b->lane.up : b->up;
}
void lane_flush(struct berth *b); /* open it if something waits, send what waits */
void lane_advance(struct berth *b);
int lane_before_poll(struct berth *b, int *timeout_ms, uint64_t now); /* -EAGAIN: not yet */
void lane_answered(struct op *op, int err);
void lane_close(struct berth *b);

struct waiting { /* a synchronous call's stay */
	bool answered;
	int err;
	struct berth_reply reply; /* entries left out */
};
void sync_done(void *arg, int err, const struct berth_reply *r); /* arg: struct waiting */
/* Wait for what @started (the start function's return value) started. */
int sync_wait(struct berth *b, struct waiting *w, int started);

/* --- nfs.c ---------------------------------------------------------------------------------------
 */
/* A new operation with @args encoded by @enc; NULL: no memory. */
struct op *op_new(struct berth *b, uint32_t prog, uint32_t proc, xdrproc_t enc, void *args,
                  int (*decode)(struct op *op, XDR *x), berth_done *done, void *arg);
int nfs_errno(unsigned status);

/* --- reach.c ----------------------------------------------------------------------------------- */
/* The first connection failed with @err and the transport's sentence in @why: a better errno, and a sentence that says what
 * to do, if more can be found out. May block for two seconds. */
int reach_why(const struct berth_url *u, int err, struct tp_error *why);

/* --- mount.c -------------------------------------------------------------------------------------
 */
int mount_export(struct berth *b, struct berth_error *why);
/* @path behind @dir ("/a" holds "/a" and "/a/b"): the rest without slashes in front, or NULL. */
const char *path_behind(const char *path, const char *dir);

#endif
