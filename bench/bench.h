/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.h - berth-bench: what is run many times, each timed
 *
 *   main.c          the command, clock, medians     pool.c          pmemio at many sizes, without a network
 *   floor.c         rounds, medians, table          nfs_socket.c    NFS over a plain socket
 *   nfs_fabric.c    NFS through libberth            floor_socket.c  the same bytes over a bare socket
 *   workers.c       pmemio by several threads
 *   onesided.c      puts and gets, READ and WRITE    floor_fabric.c  the same bytes by bare libfabric calls
 *   puts.c          puts on demand                    raw.c           RMA by bare libfabric calls
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t bench_now(void); /* nanoseconds */
double bench_median(double *v, unsigned n); /* sorts @v */
int bench_floor(int argc, char **argv);
int bench_pool(int argc, char **argv);
/* @each: operations of a thread in a turn; 0: 20000 */
int bench_workers(const char *dir, unsigned threads, unsigned rounds, unsigned each);
int bench_load(int argc, char **argv);
int bench_onesided(int argc, char **argv);
int bench_puts(int argc, char **argv);

/* --- floor ------------------------------------------------------------------------------------- */

enum bench_op { BENCH_WRITE, BENCH_READ }; /* WRITE is durable: FILE_SYNC */

#define BENCH_REQUEST 200 /* bytes of a bare request, about those of a WRITE call without its data */
#define BENCH_REPLY   144
#define BENCH_MAX     (1u << 20)

/* Something that exchanges @len bytes once; depth 1. */
struct bench_target {
	const char *name;
	/* Returns 0 or -errno. @at: where in a file of BENCH_SPAN bytes. */
	int (*once)(struct bench_target *t, enum bench_op op, uint64_t at, size_t len);
	void (*close)(struct bench_target *t);
};
#define BENCH_SPAN (64u << 20)

int nfs_socket_open(const char *host, unsigned port, struct bench_target **out);
int nfs_fabric_open(const char *name, const char *url, struct bench_target **out);
/* Each starts a server process of its own that does nothing else. @dir: where its memory lies (tmpfs). */
int floor_socket_open(const char *dir, struct bench_target **out);
int floor_fabric_open(const char *provider, const char *dir, struct bench_target **out);

/* --- bare RMA: @ops writes or reads of @len bytes, @depth in flight, to a process of its own ---- */

struct raw;
/* @node: an address of this machine that @provider (FI_EP_MSG) has. 0 or -errno. */
int raw_open(const char *provider, const char *node, const char *dir, struct raw **out);
int raw_run(struct raw *r, bool write, size_t len, unsigned depth, unsigned ops);
void raw_close(struct raw *r);

#endif
