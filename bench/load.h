/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.h - `berth-bench load`: many operations in flight, over sockets or a fabric, beside the bare exchange
 *
 *   load_opt.c     the command line                load_socket.c   client: RFC 5531 records over TCP
 *   load.c         rounds, turns, counters         load_nfs.c      ... the calls of NFS version 3 in them
 *   load_op.c      the table of operations         load_fabric.c   client: libberth, calls and one-sided
 *   load_line.c    a line as JSON and as text      load_echo.c     floor of sockets: as many bytes back
 *   report.c       compare, plots, page            load_exchange.c floor of fabrics: bare libfabric calls
 *   hist.c         percentiles                     load_persist.c  floor of persistence: flush and fence alone
 *   floor.c        the process of a floor          bare.c          two ends of a fabric, and what they post
 *
 * A client is one thread's connections to a server, or to a floor. It begins a step, and tells when it is over.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench/bench.h"
#include "bench/floor.h"
#include "bench/hist.h"

#define LOAD_FH      64
#define LOAD_STEPS   4
#define LOAD_DEPTH   256u /* most operations in flight on one connection */
#define LOAD_CONNS   4000u
#define LOAD_THREADS 16u
#define LOAD_ROUNDS  99u
#define LOAD_LIST    16u
#define LOAD_SERVERS 4u
#define LOAD_TEXT    512
#define LOAD_HOST    256
#define LOAD_DATA    (1u << 20) /* most bytes of one READ or WRITE */
#define LOAD_SPAN    BENCH_SPAN
#define LOAD_RECORD  (LOAD_DATA + 8192)

/* --- operations ------------------------------------------------------------------------------------------- */

enum load_step { L_NULL, L_GETATTR, L_LOOKUP, L_READ, L_WRITE, L_WRITE_UNSTABLE, L_COMMIT, L_CREATE, L_REMOVE,
		 L_WRITE_NEW, L_READ_NEW, L_PUT, L_GET, L_NSTEPS };
enum load_way { WAY_NONE, WAY_OUT, WAY_IN }; /* of the bytes of a step, seen from the client */
struct load_op {
	const char *name;
	unsigned nsteps;
	enum load_step step[LOAD_STEPS]; /* one after the other; together they are one operation */
	bool makes, takes;               /* leaves a file behind; removes one that create left */
	bool one_sided;                  /* needs a fabric with layouts */
};
extern const char load_op_names[];
const struct load_op *load_op(const char *name); /* NULL: unknown */
enum load_way load_way(enum load_step s);
bool load_has_data(const struct load_op *op);
bool load_persists(const struct load_op *op); /* its data, once; the floor of a put does so itself where it can */

/* --- clients ---------------------------------------------------------------------------------------------- */

struct load_fh {
	uint32_t len;
	uint8_t data[LOAD_FH];
};
struct load_slot { /* one operation in flight */
	unsigned step;
	uint64_t begun, off;
	uint32_t xid;
	uint64_t made;     /* files of this slot that are there: names 0 .. made-1 */
	struct load_fh fh; /* of the file just made */
};
struct load_conn { /* a back end's own connection begins with it */
	unsigned id;
	struct load_slot slot[LOAD_DEPTH];
};
struct load_wire { /* bytes of a call and of its reply: learned from the server, kept by its echo */
	uint32_t out, in;
};
struct bench_client {
	const struct bench_client_ops *ops;
	unsigned nconns;
	struct load_conn **conn;
	uint32_t len;                /* of READ and WRITE: set before a turn */
	struct load_wire *wire;      /* L_NSTEPS, the same */
	/* A step is over: @err as of send. From wait() only. May send; an error of its own ends the turn. */
	int (*done)(void *arg, struct load_conn *c, unsigned slot, int err);
	void *arg;
};
struct bench_client_ops {
	const char *name; /* in messages */
	/* 0, or -errno; a status of NFS version 3 is positive. CREATE's handle goes into the slot. */
	int (*send)(struct bench_client *b, struct load_conn *c, unsigned slot, enum load_step s);
	int (*wait)(struct bench_client *b); /* until something was told; -ETIMEDOUT after 10 s */
	void (*close)(struct bench_client *b);
};

struct load_spec { /* what to open */
	const char *url;                    /* fabric; NULL: sockets */
	const char *host, *export; /* host: of a URL too; NULL: it has none */
	unsigned port, mountport;
	unsigned conns, depth, first_id;    /* depth: most that will be in flight on a connection */
	unsigned share;                     /* one-sided: bytes of "bench" that each connection maps for itself */
	bool one_sided, bare;               /* bare: connections only, that stay idle */
	const char *floor;                  /* HOST:PORT of a `berth-bench floor`; NULL: here */
	bool wide;                          /* of an exchange: the client's memory is as large as the server's */
};
/* Each makes the file "bench" of LOAD_SPAN bytes in the export's root; -errno, and has said why. */
int load_socket_open(const struct load_spec *s, struct bench_client **out);
int load_fabric_open(const struct load_spec *s, struct bench_client **out);
/* Floors: a server in a process of its own (floor.h), whose part is ..._serve: until @meet is closed, or -errno. */
int load_echo_serve(const char *node, int meet);
int load_echo_start(const struct load_spec *s, struct floor_process *f, char node[64], unsigned *port);
int load_echo_open(const char *node, unsigned port, const struct load_spec *s, struct bench_client **out);
int load_exchange_serve(const struct bare_shape *s, int meet);
int load_exchange_open(const char *provider, const struct load_spec *s, pid_t *pid, struct bench_client **out);
/* Nanoseconds of one flush and fence of @len bytes just written, median of some; 0: not available. */
struct load_persist;
int load_persist_open(struct load_persist **out);
double load_persist_once(struct load_persist *p, size_t len, uint64_t seed);
void load_persist_close(struct load_persist *p);

/* --- load_nfs.c ------------------------------------------------------------------------------------------- */

struct load_names { /* what a connection's calls are about */
	struct load_fh root, file;
};
/* A step as a record at @buf, room for its mark in front; *payload: bytes of data that follow. Returns its length. */
size_t load_nfs_encode(const struct load_names *n, uint32_t len, const struct load_conn *c, unsigned slot, enum load_step s,
		       uint8_t *buf, uint32_t *payload);
size_t load_nfs_create(const struct load_fh *dir, const char *name, uint8_t *buf);
size_t load_nfs_mount(const char *export, uint8_t *buf);
/* Of a record that is a reply: 0; a status of RFC 1813; -EPROTO. CREATE's handle goes to @fh. */
int load_nfs_status(enum load_step s, const uint8_t *rec, uint32_t len, struct load_fh *fh);
int load_nfs_mounted(const uint8_t *rec, uint32_t len, struct load_fh *root);
void load_name(const struct load_conn *c, unsigned slot, uint64_t n, char out[32]);

/* --- a run ------------------------------------------------------------------------------------------------ */

enum who { SERVER, AGAINST, FLOOR, PARTIES }; /* who takes turns */
struct party {
	bool there;
	struct load_spec spec;
	char url[512];
	pid_t pid[LOAD_THREADS]; /* whose processor time counts; 0: unknown */
	struct floor_process floor; /* of an echo */
	const char *control; /* of berthd; NULL: no counters */
	unsigned conns, idle, depth; /* of this line */
	struct bench_client *client[LOAD_THREADS], *sleeping;
	bool idle_known;
	double idle_kib;     /* resident memory of the server for each idle connection */
	/* of the line at hand, by round */
	double rate[LOAD_ROUNDS], p50[LOAD_ROUNDS], cpu[LOAD_ROUNDS], client_cpu[LOAD_ROUNDS];
	uint64_t drains, copied, ops;
	struct hist *all;
};
struct plan {
	const struct load_op *op[LOAD_LIST];
	unsigned nops, size[LOAD_LIST], nsizes, depth[LOAD_LIST], ndepths, conns[LOAD_LIST], nconns, idle[LOAD_LIST], nidle;
	unsigned rounds, seed, threads, count; /* count: operations of a turn; 0: seconds */
	unsigned against_conns, against_idle, against_depth; /* 0, UINT32_MAX, 0: as the first */
	double seconds, warm;
	const char *json, *svg, *html, *compare;
	struct load_spec server[LOAD_SERVERS];
	char text[LOAD_SERVERS + 1][LOAD_TEXT], host[LOAD_SERVERS + 1][LOAD_HOST];
	unsigned nservers;
	struct party party[PARTIES];
	struct load_persist *persist;
	atomic_int stop; /* the signal that said so; 0: go on */
	double persist_ns[LOAD_ROUNDS];
};
/* What berthd counts, asked at its control socket; NULL: nobody there. */
json_t *load_counters(const char *path);
/* 0, 1: failed, 2: bad command line; has said what. */
int load_parse(int argc, char **argv, struct plan *pl);
/* "tcp", "shm", "sockets", ... */
void load_transport(const struct load_spec *s, char out[32]);
json_t *load_line_json(struct plan *pl, const struct load_op *op, unsigned size);
void load_line_head(bool against);
void load_line_print(const json_t *line);

/* --- report.c --------------------------------------------------------------------------------------------- */

/* -errno, and has said why. */
int report_compare(json_t *now, const char *file);
int report_svg(json_t *const *docs, unsigned n, const char *dir);
int report_html(json_t *const *docs, unsigned n, const char *file);

#endif
