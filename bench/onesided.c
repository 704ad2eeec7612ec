/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * onesided.c - durable writes and reads by libberth's puts and gets, by WRITE and READ, and by bare libfabric, in one run
 *
 *   raw       a write, durable where the provider can say so (load_exchange.c); a read
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
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"
#include "client/berth.h"

#define DEPTH_MAX  16u
#define ROUNDS_MAX 31u
#define NSIZES     5
#define NDEPTHS    2
enum way { RAW_WRITE, PUT, APPEND, WRITE, RAW_READ, GET, READ, WAYS };
static const size_t sizes[NSIZES] = { 64, 512, 4096, 65536, 1 << 20 };
static const unsigned depths[NDEPTHS] = { 1, DEPTH_MAX };
static const unsigned most_ops[NSIZES] = { 2000, 2000, 1000, 300, 48 };

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

/* --- the bare exchange: one connection, offsets in order --- */

struct bare_run {
	struct bench_client *x;
	enum load_step step;
	unsigned next, done, ops;
};

static int bare_next_op(struct bare_run *r, struct load_conn *c, unsigned slot)
{
	if (r->next == r->ops)
		return 0;
	c->slot[slot].off = (uint64_t)r->next++ * r->x->len % BENCH_SPAN;
	return r->x->ops->send(r->x, c, slot, r->step);
}

static int bare_done(void *arg, struct load_conn *c, unsigned slot, int err)
{
	struct bare_run *r = arg;

	r->done++;
	return err ? err : bare_next_op(r, c, slot);
}

static int bare_cell(struct bench_client *x, enum load_step step, size_t len, unsigned depth, unsigned ops)
{
	struct bare_run r = { .x = x, .step = step, .ops = ops };
	int err = 0;

	x->len = (uint32_t)len;
	x->done = bare_done;
	x->arg = &r;
	for (unsigned i = 0; !err && i < depth; i++)
		err = bare_next_op(&r, x->conn[0], i);
	while (!err && r.done < r.ops)
		err = x->ops->wait(x);
	return err;
}

/* --- the table --- */

struct table {
	unsigned ops[NSIZES]; /* of each cell */
	double us[WAYS][NDEPTHS][NSIZES][ROUNDS_MAX];
};

static int cell(struct table *t, struct bench_client *raw, struct berth *b, char *buf, enum way w, unsigned s, unsigned d,
		uint64_t *nsec)
{
	uint64_t start = bench_now();
	int err;

	if (w != RAW_WRITE && w != RAW_READ)
		return berth_cell(b, buf, w, sizes[s], depths[d], t->ops[s], nsec);
	err = bare_cell(raw, w == RAW_WRITE ? L_PUT : L_GET, sizes[s], depths[d], t->ops[s]);
	*nsec = bench_now() - start;
	return err;
}

static int one_round(struct table *t, struct bench_client *raw, struct berth *b, char *buf, unsigned round)
{
	for (unsigned s = 0; s < NSIZES; s++)
		for (unsigned d = 0; d < NDEPTHS; d++)
			for (enum way w = RAW_WRITE; w < WAYS; w++) {
				uint64_t nsec = 0;
				int err = cell(t, raw, b, buf, w, s, d, &nsec);

				if (err)
					return err;
				t->us[w][d][s][round] = (double)nsec / 1000 / t->ops[s];
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

static int measure(struct table *t, const char *url, unsigned rounds, char *buf, struct bench_client *raw)
{
	struct berth_error why = { "" };
	struct berth_mr *mr;
	struct berth *b;
	int err = berth_connect(url, NULL, &b, &why);

	if (err) {
		fprintf(stderr, "berth-bench: %s\n", why.text);
		return err;
	}
	err = berth_register(b, buf, BENCH_SPAN, &mr);
	err = err ? err : prepare(b, buf);
	for (unsigned i = 0; !err && i < rounds; i++)
		err = one_round(t, raw, b, buf, i);
	if (err)
		fprintf(stderr, "berth-bench: %s: %s%s\n", url, strerror(-err),
			err == -EOPNOTSUPP ? " (layouts = on in the server's [fabric]?)" : "");
	berth_disconnect(b);
	return err;
}

static int usage(FILE *f)
{
	fprintf(f, "usage: berth-bench onesided berth+PROVIDER://HOST:PORT/ [ROUNDS [COUNT]]   layouts on\n"
			"ROUNDS: 1 to %u (5); COUNT: operations of a cell, at most and not given: 2000 of 64 bytes to 48 of 1 MiB\n",
	        ROUNDS_MAX);
	return f == stdout ? 0 : 2;
}

int bench_onesided(int argc, char **argv)
{
	struct load_spec s = { .conns = 1, .depth = DEPTH_MAX, .wide = true };
	struct bench_client *raw = NULL;
	struct berth_error why;
	struct berth_url *u;
	struct table *t;
	unsigned rounds = 5, count = UINT_MAX;
	char *buf;
	pid_t pid;
	int err;

	if (bench_wants_help(argc, argv))
		return usage(stdout);
	if (argc < 2 || argc > 4 || (argc > 2 && !bench_number(argv[2], 1, ROUNDS_MAX, &rounds)) ||
	    (argc > 3 && !bench_number(argv[3], 1, most_ops[0], &count)))
		return usage(stderr);
	if (berth_url_parse(argv[1], &u, &why)) {
		fprintf(stderr, "berth-bench: %s: %s\n", argv[1], why.text);
		return usage(stderr);
	}
	s.host = u->host;
	t = calloc(1, sizeof(*t));
	buf = aligned_alloc(4096, BENCH_SPAN);
	if (!t || !buf)
		return 1;
	memset(buf, 'b', BENCH_SPAN);
	for (unsigned i = 0; i < NSIZES; i++)
		t->ops[i] = count < most_ops[i] ? count : most_ops[i];
	err = load_exchange_open(u->provider, &s, &pid, &raw);
	if (!err) {
		err = measure(t, argv[1], rounds, buf, raw);
		raw->ops->close(raw);
	}
	if (!err)
		print(t, rounds, u->provider);
	berth_url_free(u);
	free(buf);
	free(t);
	return err ? 1 : 0;
}
