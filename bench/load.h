/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.h - `berth-bench load`: many calls in flight over TCP, against any NFS version 3 server, beside a bare echo
 *
 *   load.c         turns, percentiles, table, JSON       load_nfs.c   the calls of an operation as RFC 5531 records
 *   load_peer.c    connections; records out and in       load_echo.c  a server that answers with as many bytes
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LOAD_FH     64
#define LOAD_STEPS  4
#define LOAD_DEPTH  256 /* most calls in flight on one connection */
#define LOAD_DATA   (1u << 20)
#define LOAD_SPAN   (64u << 20)
#define LOAD_RECORD (LOAD_DATA + 8192)

enum load_step { L_NULL, L_GETATTR, L_LOOKUP, L_READ, L_WRITE, L_WRITE_UNSTABLE, L_COMMIT, L_CREATE, L_REMOVE,
		 L_WRITE_NEW, L_READ_NEW, L_NSTEPS };
struct load_op {
	const char *name;
	unsigned nsteps;
	enum load_step step[LOAD_STEPS]; /* one after the other; together they are one operation */
	bool makes, takes;               /* leaves a file behind; removes one that create left */
};
const struct load_op *load_op(const char *name); /* NULL: unknown */
const char *load_op_names(void);

struct load_fh {
	uint32_t len;
	uint8_t data[LOAD_FH];
};
struct load_slot { /* one call in flight */
	unsigned step;
	uint64_t begun, off;
	uint32_t xid;
	uint64_t made;    /* files of this slot that are there: names 0 .. made-1 */
	struct load_fh fh; /* of the file just made */
};
struct load_conn {
	int fd;
	unsigned id;
	uint8_t *in;
	size_t have;
	struct load_slot slot[LOAD_DEPTH];
};
struct load_target {
	bool echo;             /* bare: as many bytes, no meaning */
	unsigned nconns;
	struct load_conn *conn;
	int epoll;
	pid_t pid;             /* of the echo */
	struct load_fh root, file;
	uint32_t len;          /* of READ and WRITE */
	uint8_t *data;
};
struct load_wire { /* bytes of a call and of its reply, record mark included: learned from the server, kept by the echo */
	uint32_t out, in;
};

/* Connects @n times; -errno. */
int load_connect(struct load_target *t, const char *host, unsigned port, unsigned n);
void load_close(struct load_target *t);
/* Mount @export, make the file "bench" and fill it. -errno, or -NFS status. */
int load_nfs_prepare(struct load_target *t, unsigned mountport, const char *host, const char *export);
/* Send step @s of @slot; the wire sizes are noted or, by the echo, obeyed. */
int load_send(struct load_target *t, struct load_conn *c, unsigned slot, enum load_step s, struct load_wire *w);
/* Wait for replies on any connection; done(arg, c, slot, status, bytes) for each. */
typedef int load_done(void *arg, struct load_conn *c, unsigned slot, const uint8_t *rec, uint32_t len);
int load_wait(struct load_target *t, load_done *done, void *arg);
int load_nfs_status(enum load_step s, const uint8_t *rec, uint32_t len, struct load_fh *fh); /* of a reply */
int load_raw_call(struct load_conn *c, const uint8_t *rec, size_t len, uint32_t *got); /* reply in c->in */
size_t load_nfs_encode(struct load_target *t, struct load_conn *c, unsigned slot, enum load_step s, uint8_t *buf,
		       uint32_t *payload);
/* Start the echo server; its port. */
int load_echo_start(pid_t *pid, unsigned *port);

#endif
