/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * puts.c - one-sided durable puts on demand, for somebody who watches the server meanwhile
 *
 * Maps a file of bytes that exist. Then each line of standard input is a number: so many puts are made, one after the
 * other, and when all are durable their number is written as a line. End of file ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "client/berth.h"

#define FILE_BYTES (1u << 20)

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

static int on_file(struct berth *b, char *buf, size_t len)
{
	struct berth_file *f;
	struct berth_map *m;
	int err = berth_open(b, NULL, "puts", O_CREAT | O_RDWR, 0644, &f);

	if (err)
		return err;
	err = berth_pwrite(f, buf, FILE_BYTES, 0, BERTH_FILE_SYNC) == (ssize_t)FILE_BYTES ? 0 : -EIO;
	if (!err)
		err = berth_map(f, 0, FILE_BYTES, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m);
	if (!err) {
		err = on_demand(b, m, buf, len);
		berth_unmap(m);
	}
	berth_close(f);
	return err;
}

int bench_puts(int argc, char **argv)
{
	char *buf = aligned_alloc(4096, FILE_BYTES);
	bool help = bench_wants_help(argc, argv);
	unsigned len = 0;
	struct berth_error why = { "" };
	struct berth_mr *mr;
	struct berth *b;
	int err;

	if (!buf || help || argc != 3 || !bench_number(argv[2], 1, FILE_BYTES, &len) || FILE_BYTES % len) {
		fprintf(help ? stdout : stderr, "usage: berth-bench puts berth+FABRIC://.../ BYTES   a power of two, at most 1 MiB\n"
		                "each line of input: how many durable puts to make\n");
		free(buf);
		return help ? 0 : 2;
	}
	memset(buf, 'p', FILE_BYTES);
	err = berth_connect(argv[1], NULL, &b, &why);
	if (!err) {
		err = berth_register(b, buf, FILE_BYTES, &mr);
		err = err ? err : on_file(b, buf, len);
		berth_disconnect(b);
	}
	if (err)
		fprintf(stderr, "berth-bench: %s: %s\n", argv[1], why.text[0] ? why.text : strerror(-err));
	free(buf);
	return err ? 1 : 0;
}
