/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * onesided.c - durable writes and reads by libberth's puts and gets, by WRITE and READ, and by bare libfabric, in one run
 *
 *   raw       a write, durable where the provider can say so (raw.c); a read
 *   put       BERTH_DURABLE | BERTH_BY_RMA over bytes that exist
 *   append    the same into new blocks: RMA write and COMMIT behind it
 *   WRITE     FILE_SYNC over bytes that exist
 *   get       BERTH_BY_RMA                READ
 *
 * Each cell: operations of one size, so many in flight; microseconds of one. Rounds go through all cells in turn, so
 * that a slow minute of the machine meets them all; the medians of the rounds are shown.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "client/berth.h"

#define DEPTH_MAX  16u
#define ROUNDS_MAX 31u
#define NSIZES     5
#define NDEPTHS    2
enum way { RAW_WRITE, PUT, APPEND, WRITE, RAW_READ, GET, READ, WAYS };
static const size_t sizes[NSIZES] = { 64, 512, 4096, 65536, 1 << 20 };
static const unsigned depths[NDEPTHS] = { 1, DEPTH_MAX };
static const unsigned ops_of[NSIZES] = { 2000, 2000, 1000, 300, 48 };

/* --- Berth --- */

struct run {
	struct berth *b;
	struct berth_file *f;
	struct berth_map *m;
	char *buf;
	enum way way;
	size_t len;
	unsigned next, done, ops;
	int err;
};

static void op_done(void *arg, int err, const struct berth_reply *r);

static void op_next(struct run *r)
{
	uint64_t at = r->next * r->len % BENCH_SPAN;
	char *buf = r->buf + at;
	int err = -EINVAL;

	if (r->next == r->ops || r->err)
		return;
	switch (r->way) {
	case PUT:
	case APPEND:
		err = berth_map_start_put(r->m, at, buf, r->len, BERTH_DURABLE | BERTH_BY_RMA, op_done, r);
		break;
	case GET:
		err = berth_map_start_get(r->m, at, buf, r->len, BERTH_BY_RMA, op_done, r);
		break;
	case WRITE:
		err = berth_file_start_write(r->f, at, buf, r->len, BERTH_FILE_SYNC, op_done, r);
		break;
	case READ:
		err = berth_file_start_read(r->f, at, buf, r->len, op_done, r);
		break;
	case RAW_WRITE:
	case RAW_READ:
	case WAYS:
		break;
	}
	if (err)
		r->err = err;
	else
		r->next++;
}

static void op_done(void *arg, int err, const struct berth_reply *reply)
{
	struct run *r = arg;

	(void)reply;
	r->done++;
	if (err)
		r->err = err;
	op_next(r);
}

static int berth_run(struct run *r, unsigned depth, uint64_t *nsec)
{
	uint64_t start = bench_now();

	for (unsigned i = 0; i < depth; i++)
		op_next(r);
	while (!r->err && r->done < r->ops)
		if (berth_wait(r->b, 10000) <= 0)
			r->err = -ETIMEDOUT;
	*nsec = bench_now() - start;
	return r->err;
}

/* A file for each way: what exists, or nothing. */
static int berth_cell(struct berth *b, char *buf, enum way way, size_t len, unsigned depth, unsigned ops,
                      uint64_t *nsec)
{
	struct run r = { .b = b, .buf = buf, .way = way, .len = len, .ops = ops };
	int flags = O_CREAT | O_RDWR | (way == APPEND ? O_TRUNC : 0);
	int err = berth_open(b, NULL, way == APPEND ? "new" : "old", flags, 0644, &r.f);

	if (err)
		return err;
	if (way != WRITE && way != READ)
		err = berth_map(r.f, 0, BENCH_SPAN, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &r.m);
	if (!err)
		err = berth_run(&r, depth, nsec);
	if (r.m)
		berth_unmap(r.m);
	berth_close(r.f);
	return err;
}

static int prepare(struct berth *b, const char *buf)
{
	struct berth_file *f;
	int err = berth_open(b, NULL, "old", O_CREAT | O_RDWR, 0644, &f);

	if (err)
		return err;
	err = berth_pwrite(f, buf, BENCH_SPAN, 0, BERTH_FILE_SYNC) == (ssize_t)BENCH_SPAN ? 0 : -EIO;
	berth_close(f);
	return err;
}

/* --- the table --- */

struct table {
	double us[WAYS][NDEPTHS][NSIZES][ROUNDS_MAX];
};

static int cell(struct raw *raw, struct berth *b, char *buf, enum way w, unsigned s, unsigned d, uint64_t *nsec)
{
	uint64_t start = bench_now();
	int err;

	if (w != RAW_WRITE && w != RAW_READ)
		return berth_cell(b, buf, w, sizes[s], depths[d], ops_of[s], nsec);
	err = raw_run(raw, w == RAW_WRITE, sizes[s], depths[d], ops_of[s]);
	*nsec = bench_now() - start;
	return err;
}

static int one_round(struct table *t, struct raw *raw, struct berth *b, char *buf, unsigned round)
{
	for (unsigned s = 0; s < NSIZES; s++)
		for (unsigned d = 0; d < NDEPTHS; d++)
			for (enum way w = RAW_WRITE; w < WAYS; w++) {
				uint64_t nsec = 0;
				int err = cell(raw, b, buf, w, s, d, &nsec);

				if (err)
					return err;
				t->us[w][d][s][round] = (double)nsec / 1000 / ops_of[s];
			}
	return 0;
}

static void print(struct table *t, unsigned rounds, const char *provider)
{
	printf("%s, us of one operation, medians of %u rounds; x: times raw. Writes are durable\n"
	       "%8s %5s %8s %8s %5s %8s %5s %8s %5s %9s | %8s %8s %5s %8s %5s %8s\n",
	       provider, rounds, "bytes", "depth", "raw", "put", "x", "append", "x", "WRITE", "x", "WRITE/put", "raw", "get",
	       "x", "READ", "x", "READ/get");
	for (unsigned d = 0; d < NDEPTHS; d++)
		for (unsigned s = 0; s < NSIZES; s++) {
			double v[WAYS];

			for (enum way w = RAW_WRITE; w < WAYS; w++)
				v[w] = bench_median(t->us[w][d][s], rounds);
			printf("%8zu %5u %8.1f %8.1f %5.2f %8.1f %5.2f %8.1f %5.2f %9.2f | %8.1f %8.1f %5.2f %8.1f %5.2f %8.2f\n",
			       sizes[s], depths[d], v[RAW_WRITE], v[PUT], v[PUT] / v[RAW_WRITE], v[APPEND],
			       v[APPEND] / v[RAW_WRITE], v[WRITE], v[WRITE] / v[RAW_WRITE], v[WRITE] / v[PUT],
			       v[RAW_READ], v[GET], v[GET] / v[RAW_READ], v[READ], v[READ] / v[RAW_READ],
			       v[READ] / v[GET]);
		}
}

/* "berth+PROVIDER://HOST:PORT/": who is to do the bare RMA, and where. */
static void parts_of(const char *url, char provider[16], char node[64])
{
	if (sscanf(url, "berth+%15[a-z]://%63[0-9.]", provider, node) < 2)
		strcpy(node, "127.0.0.1");
}

int bench_onesided(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 5;
	char *buf = aligned_alloc(4096, BENCH_SPAN), provider[16] = "", node[64] = "";
	struct table *t = calloc(1, sizeof(*t));
	struct berth_error why = { "" };
	struct raw *raw = NULL;
	struct berth_mr *mr;
	struct berth *b;
	int err;

	if (argc < 2 || argc > 3 || rounds < 1 || rounds > ROUNDS_MAX || !buf || !t) {
		fprintf(stderr, "usage: berth-bench onesided berth+PROVIDER://HOST:PORT/ [ROUNDS]   layouts on; up to %u rounds\n",
		        ROUNDS_MAX);
		return 2;
	}
	memset(buf, 'b', BENCH_SPAN);
	parts_of(argv[1], provider, node);
	err = raw_open(provider, node, "/dev/shm", &raw);
	if (!err)
		err = berth_connect(argv[1], NULL, &b, &why);
	if (!err)
		err = berth_register(b, buf, BENCH_SPAN, &mr);
	if (!err)
		err = prepare(b, buf);
	for (unsigned i = 0; !err && i < rounds; i++)
		err = one_round(t, raw, b, buf, i);
	if (err)
		fprintf(stderr, "berth-bench: %s%s%s\n", strerror(-err), why.text[0] ? ": " : "", why.text);
	else
		print(t, rounds, provider);
	if (raw)
		raw_close(raw);
	return err ? 1 : 0;
}
