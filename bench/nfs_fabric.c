/* SPDX-License-Identifier: BSD-3-Clause */
/* nfs_fabric.c - READ and WRITE through libberth, with registered memory */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "client/berth.h"

struct nfs_fabric {
	struct bench_target t;
	struct berth *b;
	struct berth_file *f;
	char *buf;
};

static int once(struct bench_target *t, enum bench_op op, uint64_t at, size_t len)
{
	struct nfs_fabric *n = (struct nfs_fabric *)t;
	ssize_t got = op == BENCH_WRITE ? berth_pwrite(n->f, n->buf, len, at, BERTH_FILE_SYNC) :
					  berth_pread(n->f, n->buf, len, at);

	return got == (ssize_t)len ? 0 : got < 0 ? (int)got : -EIO;
}

static void close_it(struct bench_target *t)
{
	struct nfs_fabric *n = (struct nfs_fabric *)t;

	berth_close(n->f);
	berth_disconnect(n->b);
	free(n->buf);
	free(n);
}

int nfs_fabric_open(const char *name, const char *url, struct bench_target **out)
{
	struct nfs_fabric *n = calloc(1, sizeof(*n));
	struct berth_error why = { "" };
	struct berth_mr *mr;
	int err;

	if (!n || !(n->buf = aligned_alloc(4096, BENCH_MAX)))
		return -ENOMEM;
	n->t = (struct bench_target){ name, once, close_it };
	memset(n->buf, 'b', BENCH_MAX);
	err = berth_connect(url, NULL, &n->b, &why);
	if (err) {
		fprintf(stderr, "berth-bench: %s\n", why.text);
		return err;
	}
	err = berth_register(n->b, n->buf, BENCH_MAX, &mr);
	if (!err)
		err = berth_open(n->b, NULL, "bench", O_CREAT | O_RDWR, 0644, &n->f);
	for (uint64_t at = 0; !err && at < BENCH_SPAN; at += BENCH_MAX)
		err = once(&n->t, BENCH_WRITE, at, BENCH_MAX);
	*out = &n->t;
	return err;
}
