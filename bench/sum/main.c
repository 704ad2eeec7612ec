/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - what checksums of data cost
 *
 *   bench-sum DIR
 *
 * Pools with checksums and without, by turns in one run: durable writes over a file (map,
 * place by memcpy, commit, unpin) and reads from it (map, copy out, unpin), the latter
 * with verify_reads as well.
 * Each figure is the median of the rounds, in microseconds for one operation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pmemio/pmemio.h"

#define ROUNDS 5
#define TURNS  20
#define SPAN   (64u << 20)
#define MOST   (1u << 20)

enum { OFF, ON, VERIFY, KINDS };
enum op { APPEND, OVERWRITE, READ };
static const char *const op_name[] = { "append", "overwrite at random", "read at random" };

struct bed {
	struct pm_store *st;
	struct pm_id file;
	char path[256];
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench-sum: %s: %s\n", what, why);
	exit(1);
}

static double now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void once(struct bed *b, bool write, uint64_t off, uint32_t len, uint8_t *buf)
{
	struct pm_committed c;
	struct pm_map m;
	int err = write ? pm_map_write(b->st, b->file, off, len, &m, NULL)
	                : pm_map_read(b->st, b->file, off, len, &m);
	uint32_t at = 0;

	for (unsigned i = 0; !err && i < m.nseg; at += (uint32_t)m.seg[i++].iov_len) {
		if (write)
			pm_copy_in(m.seg[i].iov_base, buf + at, m.seg[i].iov_len);
		else
			memcpy(buf + at, m.seg[i].iov_base, m.seg[i].iov_len);
	}
	if (!err && write)
		err = pm_commit(&m, len, PM_FILE_SYNC, false, &c, NULL);
	if (err)
		die("operation", strerror(-err));
	pm_unpin(&m);
}

static void make(struct bed *b, const char *dir, unsigned kind, uint8_t *buf)
{
	struct pm_mkfs_opts mk = { .size = 512u << 20,
		                   .data_checksum = kind != OFF,
		                   .force = true };
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_open_opts o = { .method = PM_AUTO, .verify_reads = kind == VERIFY };
	struct pm_error why = { "" };
	struct pm_change ch;

	snprintf(b->path, sizeof(b->path), "%s/bench-sum-%u", dir, kind);
	if (pm_mkfs(b->path, &mk, &why) || pm_open(b->path, &o, &b->st, &why))
		die(b->path, why.text);
	if (pm_create(b->st, (struct pm_id){ PM_ROOT_INO, 1 }, "f", 1, &nw, &ch))
		die(b->path, "create");
	b->file = ch.obj.id;
	for (uint64_t at = 0; at < 2 * SPAN;
	     at += MOST) /* touch the memory that copies will use too */
		once(b, true, at % SPAN, MOST, buf);
}

static void cut(struct bed *b)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = SPAN };
	struct pm_change ch;

	if (pm_setattr(b->st, b->file, &sa, &ch))
		die("operation", "truncate");
}

static double turn(struct bed *b, enum op op, uint32_t len, uint8_t *buf)
{
	unsigned n = len >= MOST ? 20 : 500;
	double t0;

	if (op == APPEND)
		cut(b);
	t0 = now_usec();
	for (unsigned i = 0; i < n; i++)
		once(b, op != READ,
		     op == APPEND ? SPAN + (uint64_t)i * len
		                  : (uint64_t)(random() % (SPAN / len)) * len,
		     len, buf);
	return (now_usec() - t0) / n;
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

static void measure(struct bed *bed, enum op op, uint32_t len, uint8_t *buf)
{
	double v[KINDS][ROUNDS], t[KINDS][TURNS];

	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; i < TURNS; i++)
			for (unsigned k = 0; k < KINDS; k++)
				t[k][i] = turn(&bed[k], op, len, buf);
		for (unsigned k = 0; k < KINDS; k++)
			v[k][r] = median(t[k], TURNS);
	}
	for (unsigned k = 0; k < KINDS; k++)
		median(v[k], ROUNDS);
	printf("%-20s %8u bytes: without %8.2f us, with %8.2f us (%.2f)", op_name[op], len,
	       v[OFF][ROUNDS / 2], v[ON][ROUNDS / 2], v[ON][ROUNDS / 2] / v[OFF][ROUNDS / 2]);
	if (op == READ)
		printf(", verified %8.2f us (%.2f)", v[VERIFY][ROUNDS / 2],
		       v[VERIFY][ROUNDS / 2] / v[OFF][ROUNDS / 2]);
	putchar('\n');
}

int main(int argc, char **argv)
{
	struct bed bed[KINDS] = { 0 };
	uint8_t *buf = aligned_alloc(4096, MOST);

	if (argc != 2 || !buf)
		die("usage", "bench-sum DIR");
	memset(buf, 7, MOST);
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	for (unsigned k = 0; k < KINDS; k++)
		make(&bed[k], argv[1], k, buf);
	for (enum op op = APPEND; op <= READ; op++) {
		measure(bed, op, 4096, buf);
		measure(bed, op, MOST, buf);
	}
	for (unsigned k = 0; k < KINDS; k++) {
		pm_close(bed[k].st);
		unlink(bed[k].path);
	}
	return 0;
}
