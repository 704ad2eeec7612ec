/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * floor.c - `berth-bench floor`: Berth beside its floor
 *
 * Every line is measured in rounds: in each, Berth and the floor take turns, so that what else the machine does
 * meets both. A round gives two medians and their ratio; the line shows the median over rounds.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

struct line {
	const char *what;
	enum bench_op op;
	size_t len;
	unsigned ops; /* in a turn */
};
static const struct line lines[] = {
	{ "4 KiB durable WRITE", BENCH_WRITE, 4096, 1000 },
	{ "4 KiB READ", BENCH_READ, 4096, 1000 },
	{ "1 MiB durable WRITE", BENCH_WRITE, 1 << 20, 64 },
	{ "1 MiB READ", BENCH_READ, 1 << 20, 64 },
};

/* Median time of one exchange in microseconds; < 0: -errno. */
static double turn(struct bench_target *t, const struct line *l)
{
	double *usec = calloc(l->ops, sizeof(*usec)), m;
	int err = usec ? 0 : -ENOMEM;

	for (unsigned i = 0; !err && i < l->ops; i++) {
		uint64_t start = bench_now();

		err = t->once(t, l->op, (uint64_t)i * l->len % BENCH_SPAN, l->len);
		usec[i] = (double)(bench_now() - start) / 1e3;
	}
	m = err ? (double)err : bench_median(usec, l->ops);
	free(usec);
	return m;
}

#define MAX_ROUNDS 99
static int compare(struct bench_target *nfs, struct bench_target *flr, const struct line *l, unsigned rounds)
{
	double a[MAX_ROUNDS], b[MAX_ROUNDS], r[MAX_ROUNDS], lo, hi;

	for (unsigned i = 0; i <= rounds; i++) { /* the first round warms up */
		unsigned k = i ? i - 1 : 0;

		a[k] = turn(nfs, l);
		b[k] = turn(flr, l);
		if (a[k] < 0 || b[k] < 0) {
			fprintf(stderr, "berth-bench: %s over %s: %s\n", l->what, nfs->name,
				strerror(-(int)(a[k] < 0 ? a[k] : b[k])));
			return -1;
		}
		r[k] = a[k] / b[k];
	}
	lo = hi = r[0];
	for (unsigned i = 1; i < rounds; i++) {
		lo = r[i] < lo ? r[i] : lo;
		hi = r[i] > hi ? r[i] : hi;
	}
	printf("%-20s %-8s %9.1f us %9.1f us %8.2f   (%.2f - %.2f)", l->what, nfs->name,
	       bench_median(a, rounds), bench_median(b, rounds), bench_median(r, rounds), lo, hi);
	if (l->len >= 1 << 20)
		printf("  %7.0f MB/s", (double)l->len / bench_median(a, rounds));
	putchar('\n');
	fflush(stdout);
	return 0;
}

static int all_lines(struct bench_target *nfs, struct bench_target *flr, unsigned rounds)
{
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(lines) / sizeof(*lines); i++)
		err = compare(nfs, flr, &lines[i], rounds);
	nfs->close(nfs);
	flr->close(flr);
	return err;
}

static int failed(const char *what, int err)
{
	fprintf(stderr, "berth-bench: %s: %s\n", what, strerror(-err));
	return 1;
}

int bench_floor(int argc, char **argv)
{
	const char *tcp = NULL, *shm = NULL, *dir = "/dev/shm";
	struct bench_target *nfs, *flr;
	unsigned port = 0, rounds = 7;
	int opt, err;

	while ((opt = getopt(argc, argv, "p:t:s:d:r:")) != -1) {
		switch (opt) {
		case 'p': port = (unsigned)atoi(optarg); break;
		case 't': tcp = optarg; break;
		case 's': shm = optarg; break;
		case 'd': dir = optarg; break;
		case 'r': rounds = (unsigned)atoi(optarg); break;
		default:
			fprintf(stderr, "usage: berth-bench floor [-p PORT] [-t TCP-URL] [-s SHM-URL] [-d DIR] "
					"[-r ROUNDS]; bench/run sets up everything\n");
			return 2;
		}
	}
	if (rounds < 1 || rounds > MAX_ROUNDS)
		return failed("-r: 1 to 99 rounds", -EINVAL);
	printf("%-20s %-8s %12s %12s %8s   %s\n", "depth 1", "over", "Berth", "bare", "ratio",
	       "(lowest - highest round)");
	if (port) {
		if ((err = nfs_socket_open("127.0.0.1", port, &nfs)) ||
		    (err = floor_socket_open(dir, &flr)))
			return failed("sockets", err);
		if (all_lines(nfs, flr, rounds))
			return 1;
	}
	if (tcp) {
		if ((err = nfs_fabric_open("tcp", tcp, &nfs)) || (err = floor_fabric_open("tcp", dir, &flr)))
			return failed("fabric tcp", err);
		if (all_lines(nfs, flr, rounds))
			return 1;
	}
	if (shm) {
		if ((err = nfs_fabric_open("shm", shm, &nfs)) || (err = floor_fabric_open("shm", dir, &flr)))
			return failed("shm", err);
		if (all_lines(nfs, flr, rounds))
			return 1;
	}
	return 0;
}
