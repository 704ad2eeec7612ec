/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * puts.c - one-sided durable puts on demand, for somebody who watches the server meanwhile
 *
 * Maps a file of bytes that exist. Then each line of standard input is a number: so many puts are made, one after the
 * other, and when all are durable their number is written as a line. End of file ends it. Others may be asked for, each a
 * session with a mapping that does nothing: what they cost the server can be seen there, and the time it took is said.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "client/berth.h"

#define FILE_BYTES (1u << 20)
#define OTHERS_MAX 1000u

/* --- others --- */

struct other {
	struct berth *b;
	struct berth_file *f;
	struct berth_map *m;
	double connect_us, map_us;
};

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int other_open(struct other *o, const char *url, struct berth_error *why)
{
	double start = now_us(), up;
	int err = berth_connect(url, NULL, &o->b, why);

	up = now_us();
	o->connect_us = up - start;
	if (!err)
		err = berth_open(o->b, NULL, "others", O_CREAT | O_RDWR, 0644, &o->f);
	start = now_us();
	if (!err)
		err = berth_map(o->f, 0, FILE_BYTES, BERTH_MAP_READ | BERTH_MAP_ONE_SIDED, &o->m);
	o->map_us = now_us() - start;
	return err;
}

static int by_map(const void *a, const void *b)
{
	const struct other *x = a, *y = b;

	return (x->map_us > y->map_us) - (x->map_us < y->map_us);
}

static int by_connect(const void *a, const void *b)
{
	const struct other *x = a, *y = b;

	return (x->connect_us > y->connect_us) - (x->connect_us < y->connect_us);
}

static int others_open(struct other *o, unsigned n, const char *url, struct berth_error *why)
{
	double connect_us;
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++)
		err = other_open(&o[i], url, why);
	if (err || !n)
		return err;
	qsort(o, n, sizeof(*o), by_connect);
	connect_us = o[n / 2].connect_us;
	qsort(o, n, sizeof(*o), by_map);
	fprintf(stderr, "%u others: connected in %.0f us, first mapping in %.0f us (medians)\n", n, connect_us,
	        o[n / 2].map_us);
	return 0;
}

static void others_close(struct other *o, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (o[i].m)
			berth_unmap(o[i].m);
		if (o[i].f)
			berth_close(o[i].f);
		berth_disconnect(o[i].b);
	}
}

/* --- puts --- */

static int put_some(struct berth_map *m, const char *buf, size_t len, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++)
		err = berth_put(m, buf, len, i * len % FILE_BYTES, BERTH_DURABLE | BERTH_BY_RMA);
	return err;
}

static int on_demand(struct berth *b, struct berth_map *m, const char *buf, size_t len)
{
	struct berth_counters before, after;
	unsigned n;
	int err = 0;

	puts("ready");
	fflush(stdout);
	while (!err && scanf("%u", &n) == 1) {
		berth_get_counters(b, &before);
		err = put_some(m, buf, len, n);
		berth_get_counters(b, &after);
		if (!err && after.rma_writes - before.rma_writes != n)
			err = -EPROTO; /* not all went by RMA alone */
		if (!err)
			printf("%u\n", n);
		fflush(stdout);
	}
	return err;
}

static int on_file(struct berth *b, char *buf, size_t len, const char *url, unsigned nothers, struct berth_error *why)
{
	struct other *others = calloc(nothers + 1, sizeof(*others));
	struct berth_file *f;
	struct berth_map *m;
	int err = others ? berth_open(b, NULL, "others", O_CREAT | O_RDWR, 0644, &f) : -ENOMEM;

	if (!err) {
		err = berth_pwrite(f, buf, FILE_BYTES, 0, BERTH_FILE_SYNC) == (ssize_t)FILE_BYTES ? 0 : -EIO;
		berth_close(f);
	}
	if (!err)
		err = berth_open(b, NULL, "puts", O_CREAT | O_RDWR, 0644, &f);
	if (err) {
		free(others);
		return err;
	}
	err = berth_pwrite(f, buf, FILE_BYTES, 0, BERTH_FILE_SYNC) == (ssize_t)FILE_BYTES ? 0 : -EIO;
	if (!err)
		err = others_open(others, nothers, url, why);
	if (!err)
		err = berth_map(f, 0, FILE_BYTES, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m);
	if (!err) {
		err = on_demand(b, m, buf, len);
		berth_unmap(m);
	}
	others_close(others, nothers);
	free(others);
	berth_close(f);
	return err;
}

int bench_puts(int argc, char **argv)
{
	char *buf = aligned_alloc(4096, FILE_BYTES);
	bool help = bench_wants_help(argc, argv);
	unsigned len = 0, others = 0;
	struct berth_error why = { "" };
	struct berth_mr *mr;
	struct berth *b;
	int err;

	if (!buf || help || argc < 3 || argc > 4 || !bench_number(argv[2], 1, FILE_BYTES, &len) || FILE_BYTES % len ||
	    (argc == 4 && !bench_number(argv[3], 0, OTHERS_MAX, &others))) {
		fprintf(help ? stdout : stderr, "usage: berth-bench puts berth+FABRIC://.../ BYTES [OTHERS]   a power of two, at most 1 MiB\n"
		                "each line of input: how many durable puts to make\n");
		free(buf);
		return help ? 0 : 2;
	}
	memset(buf, 'p', FILE_BYTES);
	err = berth_connect(argv[1], NULL, &b, &why);
	if (!err) {
		err = berth_register(b, buf, FILE_BYTES, &mr);
		err = err ? err : on_file(b, buf, len, argv[1], others, &why);
		berth_disconnect(b);
	}
	if (err)
		fprintf(stderr, "berth-bench: %s: %s\n", argv[1], why.text[0] ? why.text : strerror(-err));
	free(buf);
	return err ? 1 : 0;
}
