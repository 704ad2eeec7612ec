/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * workers.c - `berth-bench pool --threads N`: do operations of different workers get in each other's way?
 *
 * One thread, then N of them, each on a core of its own, do the same operations on files and a directory of
 * their own. The figure is what N get done against what one does in the same time; the two take turns, and the
 * median over the rounds counts, so that what else the machine does meets both alike.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "pmemio/core.h"

#define MAX_THREADS 16u
#define MAX_ROUNDS  49u
#define FILES       64u  /* of a thread */
#define BLOCKS      16u  /* of a file */
#define TURN        20000u /* operations of a thread in a turn */

struct party { /* a thread's own things */
	struct pm_store *st;
	struct pm_id dir, id[FILES], log;
	uint64_t end; /* of the file that grows */
	unsigned cpu;
	int (*run)(struct party *p, unsigned i);
	unsigned ops;
	pthread_barrier_t *start;
	uint64_t ns;
	int err;
};

/* --- operations --- */

static unsigned name_of(unsigned i, char buf[24])
{
	return (unsigned)snprintf(buf, 24, "file-%07u", i);
}

static int op_getattr(struct party *p, unsigned i)
{
	struct pm_attr a;

	return pm_getattr(p->st, p->id[i % FILES], &a);
}

static int op_lookup(struct party *p, unsigned i)
{
	struct pm_attr a;
	char name[24];
	unsigned len = name_of(i % FILES, name);

	return pm_lookup(p->st, p->dir, name, len, &a);
}

static int op_read(struct party *p, unsigned i)
{
	struct pm_map m;
	int err = pm_map_read(p->st, p->id[i % FILES], (uint64_t)(i % BLOCKS) * PM_BLOCK, PM_BLOCK, &m);

	if (!err)
		pm_unpin(&m);
	return err;
}

static int write_as(struct party *p, struct pm_id id, uint64_t off, enum pm_stable how)
{
	struct pm_wait w = { .done = NULL };
	struct pm_committed out;
	struct pm_map m;
	int err = pm_map_write(p->st, id, off, PM_BLOCK, &m, &w);

	if (err)
		return err;
	err = pm_commit(&m, PM_BLOCK, how, how == PM_UNSTABLE, &out, &w);
	pm_unpin(&m);
	return err;
}

static int write_at(struct party *p, struct pm_id id, uint64_t off)
{
	return write_as(p, id, off, PM_FILE_SYNC);
}

static int op_overwrite(struct party *p, unsigned i)
{
	return write_at(p, p->id[i % FILES], (uint64_t)(i % BLOCKS) * PM_BLOCK);
}

/* As a mounted client writes: a file's blocks, then its COMMIT. */
static int op_unstable(struct party *p, unsigned i)
{
	struct pm_id id = p->id[i / BLOCKS % FILES];
	struct pm_wait w = { .done = NULL };
	struct pm_committed out;
	int err = write_as(p, id, (uint64_t)(i % BLOCKS) * PM_BLOCK, PM_UNSTABLE);

	return err || (i + 1) % BLOCKS ? err : pm_sync_file(p->st, id, &out, &w);
}

/* One-sided: a lease on a block, its commit, and back with it. */
static int op_lease(struct party *p, unsigned i)
{
	struct pm_lease_opts o = { .owner = p, .write = true, .max_extents = 4 };
	struct pm_range r = { (uint64_t)(i % BLOCKS) * PM_BLOCK, PM_BLOCK };
	struct pm_wait w = { .done = NULL };
	struct pm_committed out;
	struct pm_lease *l;
	int err = pm_lease_open(p->st, p->id[i % FILES], r.off, r.len, r.len, &o, &l, &w);

	if (err)
		return err;
	err = pm_lease_commit(l, &r, 1, false, 0, NULL, &out, &w);
	pm_lease_close(l);
	return err;
}

static int op_append(struct party *p, unsigned i)
{
	int err = write_at(p, p->log, p->end);

	(void)i;
	p->end += PM_BLOCK;
	return err;
}

static bool count_entry(void *arg, const struct pm_dirent *de)
{
	(void)de;
	++*(unsigned *)arg;
	return true;
}

static int op_readdir(struct party *p, unsigned i)
{
	unsigned n = 0;
	bool eof;

	(void)i;
	return pm_readdir(p->st, p->dir, 0, true, count_entry, &n, &eof);
}

static int make(struct party *p, struct pm_id dir, const char *name, enum pm_type type, struct pm_id *id)
{
	struct pm_new nw = { .type = type, .mode = 0755, .uid = 1000, .gid = 1000 };
	struct pm_change ch;
	int err = pm_create(p->st, dir, name, strlen(name), &nw, &ch);

	if (!err)
		*id = ch.obj.id;
	return err;
}

static int op_create(struct party *p, unsigned i)
{
	struct pm_change ch;
	struct pm_id id;
	char name[24];
	int err;

	snprintf(name, sizeof(name), "new-%07u", i);
	err = make(p, p->dir, name, PM_REG, &id);
	return err ? err : pm_remove(p->st, p->dir, name, strlen(name), &ch);
}

static int after_append(struct party *p)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE };
	struct pm_change ch;

	p->end = 0;
	return pm_setattr(p->st, p->log, &sa, &ch);
}

static const struct {
	const char *name;
	int (*run)(struct party *p, unsigned i);
	int (*after)(struct party *p);
	bool bare; /* only without checksums of data */
} ops[] = {
	{ .name = "getattr", .run = op_getattr },
	{ .name = "lookup", .run = op_lookup },
	{ .name = "readdirplus, 65 files", .run = op_readdir },
	{ .name = "map for reading", .run = op_read },
	{ .name = "overwrite 4 KiB", .run = op_overwrite },
	{ .name = "unstable 4 KiB, COMMIT of 16", .run = op_unstable, .bare = true }, /* stable with them */
	{ .name = "layout: map, commit, return 4 KiB", .run = op_lease, .bare = true }, /* refused */
	{ .name = "append 4 KiB", .run = op_append, .after = after_append },
	{ .name = "create, remove", .run = op_create },
};
#define OPS (sizeof(ops) / sizeof(*ops))

/* --- threads --- */

static void stay_on(unsigned nth)
{
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all))
		return;
	nth %= (unsigned)CPU_COUNT(&all);
	for (unsigned c = 0; c < CPU_SETSIZE; c++) {
		if (!CPU_ISSET(c, &all) || nth--)
			continue;
		CPU_ZERO(&one);
		CPU_SET(c, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static void *party_main(void *arg)
{
	struct party *p = arg;
	uint64_t from;

	stay_on(p->cpu);
	pthread_barrier_wait(p->start);
	from = bench_now();
	for (unsigned i = 0; i < p->ops && !p->err; i++)
		p->err = p->run(p, i);
	p->ns = bench_now() - from;
	return NULL;
}

/* Operations in a second that @n of them do together. */
static int turn(struct party *p, unsigned n, unsigned op, unsigned each, double *rate)
{
	pthread_barrier_t start;
	pthread_t th[MAX_THREADS];
	unsigned made = 0;
	int err = 0;

	pthread_barrier_init(&start, NULL, n);
	*rate = 0;
	for (; made < n; made++) {
		p[made].run = ops[op].run;
		p[made].ops = each;
		p[made].start = &start;
		p[made].cpu = made;
		if (pthread_create(&th[made], NULL, party_main, &p[made])) {
			fprintf(stderr, "berth-bench: no more threads\n");
			exit(1); /* the others wait for this one */
		}
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(th[i], NULL);
		*rate += (double)each * 1e9 / (double)p[i].ns;
		err = p[i].err ? p[i].err : err;
	}
	pthread_barrier_destroy(&start);
	for (unsigned i = 0; i < n && !err && ops[op].after; i++)
		err = ops[op].after(&p[i]);
	return err;
}

static int prepare(struct party *p, struct pm_store *st, unsigned no)
{
	struct pm_id root = { PM_ROOT_INO, 1 };
	char name[24];
	int err;

	p->st = st;
	snprintf(name, sizeof(name), "dir-%u", no);
	err = make(p, root, name, PM_DIR, &p->dir);
	if (!err)
		err = make(p, p->dir, "log", PM_REG, &p->log);
	for (unsigned i = 0; i < FILES && !err; i++) {
		name_of(i, name);
		err = make(p, p->dir, name, PM_REG, &p->id[i]);
		for (unsigned b = 0; b < BLOCKS && !err; b++)
			err = write_at(p, p->id[i], (uint64_t)b * PM_BLOCK);
	}
	return err;
}

static bool is_left_out(const struct party *p, unsigned op)
{
	return ops[op].bare && sum_on(p->st);
}

static int measure(struct party *p, unsigned threads, unsigned rounds, unsigned each)
{
	double one[OPS][MAX_ROUNDS], all[OPS][MAX_ROUNDS], ratio[OPS][MAX_ROUNDS];
	int err = 0;

	for (unsigned r = 0; r < rounds && !err; r++) {
		for (unsigned o = 0; o < OPS && !err; o++) {
			if (is_left_out(p, o))
				continue;
			err = turn(p, 1, o, each, &one[o][r]);
			if (!err)
				err = turn(p, threads, o, each, &all[o][r]);
			ratio[o][r] = all[o][r] / one[o][r];
		}
	}
	if (err)
		return err;
	printf("| operation | 1 thread (us each) | %u threads against 1 | lowest, highest |\n|---|---|---|---|\n",
	       threads);
	for (unsigned o = 0; o < OPS; o++) {
		double us, mid;

		if (is_left_out(p, o))
			continue;
		us = 1e6 / bench_median(one[o], rounds);
		mid = bench_median(ratio[o], rounds);
		printf("| %s | %.3f | %.2f | %.2f, %.2f |\n", ops[o].name, us, mid, ratio[o][0],
		       ratio[o][rounds - 1]);
	}
	return 0;
}

int bench_workers(const char *dir, unsigned threads, unsigned rounds, unsigned each, bool checksums)
{
	struct pm_mkfs_opts mo = { .size = 1ull << 30, .label = "bench", .data_checksum = checksums };
	struct pm_open_opts oo = { .method = PM_AUTO };
	struct party p[MAX_THREADS] = { 0 };
	struct pm_error why = { "" };
	struct pm_store *st = NULL;
	char path[256];
	int err;

	if (threads < 1 || threads > MAX_THREADS || rounds < 1 || rounds > MAX_ROUNDS) {
		fprintf(stderr, "berth-bench: 1 to %u threads, 1 to %u rounds\n", MAX_THREADS, MAX_ROUNDS);
		return -EINVAL;
	}
	snprintf(path, sizeof(path), "%s/berth-bench-workers.%d", dir, (int)getpid());
	err = pm_mkfs(path, &mo, &why);
	if (!err)
		err = pm_open(path, &oo, &st, &why);
	for (unsigned i = 0; i < threads && !err; i++)
		err = prepare(&p[i], st, i);
	if (!err)
		err = measure(p, threads, rounds, each ? each : TURN);
	if (err)
		fprintf(stderr, "berth-bench: %s\n", why.text[0] ? why.text : strerror(-err));
	if (st)
		store_drop(st);
	unlink(path);
	return err;
}
