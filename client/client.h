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
	struct tp_mr *mr; /* of the connection that stands; NULL between connections */
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
	uint64_t epoch; /* number of the connection; moves when one ends */
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
