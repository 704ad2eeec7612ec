/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - what it costs to make a change once
 *
 *   bench-drc POOL [PORT-WITH PORT-WITHOUT]
 *
 * CREATE and REMOVE of small files with a record of each and without, in turns, in one run: first
 * in the pool itself, hashing and searching included, then, if ports are given, over sockets to two
 * servers, one with drc = on and one with drc = off. Each line is the median of the rounds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pmemio/pmemio.h"
#include "proto/mount3.h"
#include "proto/nfs3.h"

#define ROUNDS 5
#define TURNS  30   /* of each kind in a round, by turns: what else the machine does meets both */
#define FILES  400u /* made and removed in a turn */

static void die(const char *what, int err)
{
	fprintf(stderr, "bench-drc: %s: %s\n", what, strerror(-err));
	exit(1);
}

static double now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_size);
	return v[n / 2];
}

/* Times of one turn, per operation. */
struct turn {
	double create, del;
};
typedef void turn_fn(void *arg, bool with, struct turn *t);

/* A round: the median turn of each kind, with and without. */
static void one_round(turn_fn *fn, void *arg, struct turn out[2])
{
	double create[2][TURNS], del[2][TURNS];

	for (int i = 0; i < 2 * TURNS; i++) {
		bool with = (i ^ i / 2) & 1; /* who comes first changes */
		struct turn t;

		fn(arg, with, &t);
		create[with][i / 2] = t.create;
		del[with][i / 2] = t.del;
	}
	for (int with = 0; with < 2; with++)
		out[with] = (struct turn){ median(create[with], TURNS), median(del[with], TURNS) };
}

static void compare(const char *where, turn_fn *fn, void *arg)
{
	static const char *const what[] = { "CREATE", "REMOVE" };
	double v[2][2][ROUNDS], ratio[2][ROUNDS];
	struct turn t[2];

	one_round(fn, arg, t); /* warms up */
	for (int i = 0; i < ROUNDS; i++) {
		one_round(fn, arg, t);
		for (int with = 0; with < 2; with++) {
			v[0][with][i] = t[with].create;
			v[1][with][i] = t[with].del;
		}
		for (int k = 0; k < 2; k++)
			ratio[k][i] = v[k][1][i] / v[k][0][i];
	}
	for (int k = 0; k < 2; k++) {
		double r = median(ratio[k], ROUNDS);

		printf("%-12s %-8s %9.2f us %9.2f us %8.3f   (%.3f - %.3f)\n", where, what[k],
		       median(v[k][1], ROUNDS), median(v[k][0], ROUNDS), r, ratio[k][0],
		       ratio[k][ROUNDS - 1]);
	}
}

/* --- in the pool ----------------------------------------------------------------------------- */

struct in_pool {
	struct pm_store *st;
	uint64_t n;
};

/* As server/drc.c does: a hash of the arguments, and one of everything. */
static const struct pm_once *once_for(struct in_pool *p, struct pm_once *o)
{
	uint8_t args[100] = { 0 }, all[64] = { 0 };
	struct pm_reply r;

	memcpy(args, &p->n, sizeof(p->n));
	p->n++;
	crypto_shorthash_siphashx24(all + 16, args, sizeof(args), pm_secret(p->st));
	crypto_shorthash_siphashx24(o->key, all, sizeof(all), pm_secret(p->st));
	if (!pm_once_find(p->st, o, &r))
		die("a key came twice", -EEXIST);
	return o;
}

static void pool_turn(void *arg, bool with, struct turn *t)
{
	struct pm_id root = { PM_ROOT_INO, 1 };
	struct pm_new nw = { .type = PM_REG, .mode = 0644 };
	struct in_pool *p = arg;
	struct pm_change ch;
	struct pm_once o;
	char name[16];
	double t0 = now_usec();
	int err = 0;

	for (unsigned i = 0; !err && i < FILES; i++) {
		int len = sprintf(name, "file%u", i);

		err = pm_create_once(p->st, root, name, (size_t)len, &nw,
		                     with ? once_for(p, &o) : NULL, &ch);
	}
	t->create = (now_usec() - t0) / FILES;
	t0 = now_usec();
	for (unsigned i = 0; !err && i < FILES; i++) {
		int len = sprintf(name, "file%u", i);

		err = pm_remove_once(p->st, root, name, (size_t)len, with ? once_for(p, &o) : NULL,
		                     &ch);
	}
	t->del = (now_usec() - t0) / FILES;
	if (err)
		die("pool", err);
}

/* What is counted does not depend on the machine. */
static void count(struct in_pool *p)
{
	struct pm_stats s[3];
	struct turn t;

	pm_get_stats(p->st, &s[0]);
	pool_turn(p, false, &t);
	pm_get_stats(p->st, &s[1]);
	pool_turn(p, true, &t);
	pm_get_stats(p->st, &s[2]);
#define PER(i, field) ((double)(s[i].field - s[(i)-1].field) / (2.0 * FILES))
	printf("\neach change: journal %.0f bytes with, %.0f without; flushed %.0f and %.0f bytes; "
	       "drains %.2f and %.2f\n",
	       PER(2, journal_bytes), PER(1, journal_bytes), PER(2, flushed_bytes),
	       PER(1, flushed_bytes), PER(2, drains), PER(1, drains));
}

/* --- over sockets ---------------------------------------------------------------------------- */

struct over_net {
	int fd[2]; /* without, with */
	char root[2][32];
	uint32_t xid;
};

/* One call; the words of its results go to @res. */
static void call(struct over_net *n, bool with, uint32_t prog, uint32_t proc, xdrproc_t enc,
                 void *args, uint32_t res[64])
{
	uint32_t h[] = { ++n->xid, CALL, 2, prog, 3, proc, AUTH_SYS, 20, 0, 0, 0, 0, 0, 0, 0 };
	char buf[1024];
	uint32_t in[256], mark;
	size_t len;
	XDR x;

	xdrmem_create(&x, buf + 4, sizeof(buf) - 4, XDR_ENCODE);
	for (size_t i = 0; i < sizeof(h) / sizeof(*h); i++)
		xdr_uint32_t(&x, &h[i]);
	if (!enc(&x, args))
		die("encoding", -EMSGSIZE);
	len = xdr_getpos(&x);
	mark = htonl(0x80000000u | (uint32_t)len);
	memcpy(buf, &mark, 4);
	if (write(n->fd[with], buf, len + 4) != (ssize_t)len + 4 ||
	    recv(n->fd[with], &mark, 4, MSG_WAITALL) != 4)
		die("connection", -EPIPE);
	len = ntohl(mark) & 0x7fffffff;
	if (len < 28 || len > sizeof(in) || recv(n->fd[with], in, len, MSG_WAITALL) != (ssize_t)len)
		die("connection", -EPROTO);
	for (size_t i = 6; i < len / 4 && i < 70; i++)
		res[i - 6] = ntohl(in[i]);
	if (in[5] || res[0])
		die("call", -EREMOTEIO);
}

static diropargs3 at(struct over_net *n, bool with, char *name)
{
	return (diropargs3){ { { 32, n->root[with] } }, { (u_int)strlen(name), name } };
}

static void net_turn(void *arg, bool with, struct turn *t)
{
	struct over_net *n = arg;
	CREATE3args c = { .how.mode = GUARDED };
	uint32_t res[64];
	char name[16];
	double t0 = now_usec();

	for (unsigned i = 0; i < FILES; i++) {
		sprintf(name, "file%u", i);
		c.where = at(n, with, name);
		call(n, with, NFS3_PROGRAM, NFSPROC3_CREATE, (xdrproc_t)xdr_CREATE3args, &c, res);
	}
	t->create = (now_usec() - t0) / FILES;
	t0 = now_usec();
	for (unsigned i = 0; i < FILES; i++) {
		REMOVE3args r;

		sprintf(name, "file%u", i);
		r.object = at(n, with, name);
		call(n, with, NFS3_PROGRAM, NFSPROC3_REMOVE, (xdrproc_t)xdr_REMOVE3args, &r, res);
	}
	t->del = (now_usec() - t0) / FILES;
}

static void dial(struct over_net *n, bool with, const char *port)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		                  .sin_port = htons((uint16_t)atoi(port)),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	mntpath3 path = { 1, (char *)(uintptr_t) "/" };
	uint32_t res[64];
	int one = 1;

	n->fd[with] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(n->fd[with], (struct sockaddr *)&in, sizeof(in)))
		die(port, -errno);
	setsockopt(n->fd[with], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	call(n, with, MOUNT3_PROGRAM, MOUNTPROC3_MNT, (xdrproc_t)xdr_mntpath3, &path, res);
	for (int i = 0; i < 8; i++) {
		uint32_t v = htonl(res[2 + i]);

		memcpy(n->root[with] + 4 * i, &v, 4);
	}
}

int main(int argc, char **argv)
{
	struct pm_open_opts o = { .method = PM_AUTO };
	struct over_net net = { .xid = (uint32_t)getpid() << 16 };
	struct in_pool p = { .n = 1 };
	struct pm_error why;

	if (argc != 2 && argc != 4) {
		fprintf(stderr, "usage: bench-drc POOL [PORT-WITH PORT-WITHOUT]; bench/drc/run "
		                "sets up everything\n");
		return 2;
	}
	if (sodium_init() < 0 || pm_open(argv[1], &o, &p.st, &why)) {
		fprintf(stderr, "bench-drc: %s\n", why.text);
		return 1;
	}
	printf("%-12s %-8s %12s %12s %8s   %s\n", "where", "", "drc on", "drc off", "ratio",
	       "(lowest - highest round)");
	compare("in the pool", pool_turn, &p);
	if (argc == 4) {
		dial(&net, true, argv[2]);
		dial(&net, false, argv[3]);
		compare("over sockets", net_turn, &net);
	}
	count(&p);
	pm_close(p.st);
	return 0;
}
