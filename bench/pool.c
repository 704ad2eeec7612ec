/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool.c - `berth-bench pool`: what an operation, a mount and a file cost as a pool grows
 *
 * Pools of every size are open at once, and each operation visits all of them in every round, so
 * that what else the machine does meets all sizes alike. Before a turn the caches are given what a
 * busy pool of that size would keep there: ten thousand random names, or all if there are fewer.
 * Files are picked at random over the whole pool, among those for that kind of operation:
 *
 *   number mod 4 == 0   removed and created again, renamed to and fro
 *   number mod 4 == 1   SAMPLE of them have one block of data: mapped, committed
 *
 * A figure is the median over batches of BATCH operations. Drains and journal bytes are counted
 * over all operations of the rounds, checkpoints included.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "pmemio/core.h"

#define SIZES      4u /* of each kind at most */
#define SETS       (3 * 6u)
#define TURN       1024u /* operations */
#define BATCH      16u
#define WARM       10000u
#define SAMPLE     1024u
#define PER_DIR    100u
#define MAX_ROUNDS 49u

enum kind { ONE_DIR, MANY_DIRS, EXTENTS };
static const char *const kind_name[] = { "files in one directory", "files, 100 to a directory",
	                                 "extents in one file" };

struct set { /* one size */
	enum kind kind;
	unsigned n; /* files or extents */
	char path[256];
	struct pm_store *st;
	struct pm_id *dir; /* of file i: dir[i / PER_DIR] or dir[0] */
	unsigned ndirs;
	struct pm_id *id;
	uint8_t *moved;
	struct pm_id file; /* EXTENTS */
	uint64_t size;     /* of it */
	unsigned zero;     /* always: makes one read wait for the other */
	uint64_t used;     /* blocks, by files without data or by extents as metadata */
	struct pm_batch *batch; /* of the operations under way */
	struct joined *joined;
};

struct joined { /* a commit in a batch */
	struct pm_wait w; /* first */
	struct pm_map m;
	struct pm_committed out;
	struct joined *next;
	int err;
};

/* What one operation is told. All of a turn are made before the clock starts, side by side: the
 * memory of the one who asks is not what is measured. */
struct call {
	unsigned who; /* file or extent */
	unsigned len, to_len;
	struct pm_id dir, id;
	uint64_t random;
	char name[24], to[24];
	struct joined joined;
};
struct op {
	const char *name;
	bool extents;
	unsigned (*pick)(const struct set *s, unsigned i,
	                 uint64_t random); /* for the i-th operation */
	int (*run)(struct set *s, struct call *c);
	int (*end)(struct set *s); /* of BATCH of them; may be NULL */
	void (*after)(struct set *s, const struct call *c); /* the bench's own notes */
};

struct result {
	double ns[MAX_ROUNDS * TURN / BATCH];
	unsigned n;
	uint64_t ops, drains, journal, tx, checkpoints;
	double median;
};

/* --- helpers --------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static unsigned file_name(const struct set *s, unsigned i, char buf[24])
{
	return (unsigned)snprintf(buf, 24, "%s-%07u.dat", s->moved[i] ? "moved" : "file", i);
}

static struct pm_id dir_of(const struct set *s, unsigned i)
{
	return s->dir[s->kind == MANY_DIRS ? i / PER_DIR : 0];
}

static unsigned steps(const struct set *s, unsigned i, unsigned class)
{
	uint64_t n = s->n / 4;

	/* 0.618... of n, odd and no multiple of 5: scattered, and none twice before all were seen
	 */
	uint64_t step = (n * 6180339 / 10000000) | 1;

	while (step % 5 == 0)
		step += 2;
	return (unsigned)(i % n * step % n * 4 + class);
}

/* --- operations on files --------------------------------------------------------------------- */

static unsigned pick_any(const struct set *s, unsigned i, uint64_t random)
{
	(void)i;
	return (unsigned)(random % s->n);
}

static unsigned pick_change(const struct set *s, unsigned i, uint64_t random)
{
	(void)random;
	return steps(s, i, 0);
}

static unsigned pick_data(const struct set *s, unsigned i, uint64_t random)
{
	(void)random;
	return steps(s, i % SAMPLE, 1);
}

static struct call call_for(struct set *s, unsigned who)
{
	struct call c = { .who = who };

	if (s->kind == EXTENTS)
		return c;
	c.dir = dir_of(s, who);
	c.id = s->id[who];
	c.len = file_name(s, who, c.name);
	s->moved[who] ^= 1;
	c.to_len = file_name(s, who, c.to);
	s->moved[who] ^= 1;
	return c;
}

/* The floor of whatever goes to a file at random: one cache line of its inode, and the next one's place is known only
 * when that has come. */
static int op_line(struct set *s, struct call *c)
{
	const volatile struct pm_inode *in = ino_at(s->st, s->id[c->who ^ s->zero].ino);

	s->zero = in->rdev_major; /* 0, in a file */
	return 0;
}

static int op_lookup(struct set *s, struct call *c)
{
	struct pm_attr a;

	return pm_lookup(s->st, c->dir, c->name, c->len, &a);
}

static int op_create(struct set *s, struct call *c)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644, .uid = 1000, .gid = 1000 };
	struct pm_change ch;
	int err = pm_create(s->st, c->dir, c->name, c->len, &nw, &ch);

	if (!err)
		c->id = ch.obj.id;
	return err;
}

static void after_create(struct set *s, const struct call *c)
{
	s->id[c->who] = c->id;
}

static int op_remove(struct set *s, struct call *c)
{
	struct pm_change ch;

	return pm_remove(s->st, c->dir, c->name, c->len, &ch);
}

static int op_rename(struct set *s, struct call *c)
{
	struct pm_change ch;

	return pm_rename(s->st, c->dir, c->name, c->len, c->dir, c->to, c->to_len, &ch);
}

static void after_rename(struct set *s, const struct call *c)
{
	s->moved[c->who] ^= 1;
}

static bool count_entry(void *arg, const struct pm_dirent *de)
{
	unsigned *left = arg;

	(void)de;
	return *left && (*left)--;
}

/* A READDIRPLUS: 100 entries with their attributes. */
static int op_readdir(struct set *s, struct call *c)
{
	uint64_t cookie = s->kind == ONE_DIR ? c->random >> 1 : 0;
	unsigned left = 100;
	bool eof;

	return pm_readdir(s->st, c->dir, cookie, true, count_entry, &left, &eof);
}

static int read_block(struct pm_store *st, struct pm_id id, uint64_t off)
{
	struct pm_map m;
	int err = pm_map_read(st, id, off, PM_BLOCK, &m);

	if (!err)
		pm_unpin(&m);
	return err;
}

static int write_block(struct pm_store *st, struct pm_id id, uint64_t off)
{
	struct pm_wait w = { .done = NULL };
	struct pm_committed out;
	struct pm_map m;
	int err = pm_map_write(st, id, off, PM_BLOCK, &m, &w);

	if (err)
		return err;
	err = pm_commit(&m, PM_BLOCK, PM_FILE_SYNC, false, &out, &w);
	pm_unpin(&m);
	return err;
}

static void joined_done(struct pm_wait *w, int err)
{
	struct joined *j = (struct joined *)w;

	j->err = err;
	pm_unpin(&j->m);
}

static int join_block(struct set *s, struct call *c, struct pm_id id, uint64_t off)
{
	struct joined *j = &c->joined;
	int err = s->joined ? 0 : pm_batch_make(s->st, &s->batch);

	if (!err)
		err = pm_map_write(s->st, id, off, PM_BLOCK, &j->m, &j->w);
	if (err)
		return err;
	j->w.done = joined_done;
	j->next = s->joined;
	s->joined = j;
	err = pm_batch_commit(s->batch, &j->m, PM_BLOCK, PM_FILE_SYNC, false, &j->out, &j->w);
	if (err != -EINPROGRESS)
		joined_done(&j->w, err);
	return 0;
}

static int end_joined(struct set *s)
{
	int err = 0;

	pm_batch_end(s->batch);
	for (; s->joined; s->joined = s->joined->next)
		err = err ? err : s->joined->err;
	pm_batch_free(s->batch);
	return err;
}

static int op_join(struct set *s, struct call *c)
{
	return join_block(s, c, c->id, 0);
}

static int op_map(struct set *s, struct call *c)
{
	return read_block(s->st, c->id, 0);
}

static int op_commit(struct set *s, struct call *c)
{
	return write_block(s->st, c->id, 0);
}

/* --- operations on extents: number i is file block 2i ---------------------------------------- */

static unsigned pick_sample(const struct set *s, unsigned i, uint64_t random)
{
	(void)random;
	return (unsigned)((uint64_t)(i % SAMPLE) * 6180339 % s->n);
}

static int op_xmap(struct set *s, struct call *c)
{
	return read_block(s->st, s->file, (uint64_t)c->who * 2 * PM_BLOCK);
}

static int write_extent(struct set *s, unsigned i)
{
	return write_block(s->st, s->file, (uint64_t)i * 2 * PM_BLOCK);
}

static int op_overwrite(struct set *s, struct call *c)
{
	return write_extent(s, c->who);
}

static int op_overjoin(struct set *s, struct call *c)
{
	return join_block(s, c, s->file, (uint64_t)c->who * 2 * PM_BLOCK);
}

static int op_append(struct set *s, struct call *c)
{
	int err = write_block(s->st, s->file, s->size);

	(void)c;
	s->size += 2 * PM_BLOCK; /* a hole between any two: each is one more extent */
	return err;
}

static const struct op op_table[] = {
	{ "floor: one line", false, pick_any, op_line, NULL, NULL },
	{ "lookup", false, pick_any, op_lookup, NULL, NULL },
	{ "remove", false, pick_change, op_remove, NULL, NULL },
	{ "map", false, pick_data, op_map, NULL, NULL },
	{ "readdir, 100 entries", false, pick_any, op_readdir, NULL, NULL },
	{ "create", false, pick_change, op_create, NULL, after_create },
	{ "commit", false, pick_data, op_commit, NULL, NULL },
	{ "commit, batches of 16", false, pick_data, op_join, end_joined, NULL },
	{ "rename", false, pick_change, op_rename, NULL, after_rename },
	{ "random map", true, pick_any, op_xmap, NULL, NULL },
	{ "overwrite", true, pick_sample, op_overwrite, NULL, NULL },
	{ "overwrite, batches of 16", true, pick_sample, op_overjoin, end_joined, NULL },
	{ "append", true, pick_any, op_append, NULL, NULL },
};
#define OPS (sizeof(op_table) / sizeof(*op_table))

/* --- making pools ---------------------------------------------------------------------------- */

static int open_set(struct set *s)
{
	struct pm_open_opts o = { .method = PM_AUTO };
	struct pm_error why;
	int err = pm_open(s->path, &o, &s->st, &why);

	if (err)
		fprintf(stderr, "berth-bench: %s\n", why.text);
	return err;
}

static uint64_t free_blocks(struct set *s)
{
	struct pm_space sp;

	pm_get_space(s->st, &sp);
	return sp.free_blocks;
}

static int make_dirs(struct set *s)
{
	struct pm_new nw = { .type = PM_DIR, .mode = 0755 };
	struct pm_change ch;
	char name[32];

	s->ndirs = s->kind == MANY_DIRS ? (s->n + PER_DIR - 1) / PER_DIR : 1;
	s->dir = calloc(s->ndirs, sizeof(*s->dir));
	if (!s->dir)
		return -ENOMEM;
	for (unsigned i = 0; i < s->ndirs; i++) {
		int len = snprintf(name, sizeof(name), "dir-%05u", i);
		int err = pm_create(s->st, (struct pm_id){ PM_ROOT_INO, 1 }, name, (size_t)len, &nw,
		                    &ch);

		if (err)
			return err;
		s->dir[i] = ch.obj.id;
	}
	return 0;
}

static int make_files(struct set *s)
{
	int err;

	s->used = free_blocks(s);
	s->id = calloc(s->n, sizeof(*s->id));
	s->moved = calloc(s->n, 1);
	err = s->id && s->moved ? make_dirs(s) : -ENOMEM;
	for (unsigned i = 0; i < s->n && !err; i++) {
		struct call c = call_for(s, i);

		err = op_create(s, &c);
		after_create(s, &c);
	}
	s->used -= free_blocks(s);
	for (unsigned i = 0; i < SAMPLE && i < s->n / 4 && !err; i++)
		err = write_block(s->st, s->id[pick_data(s, i, 0)], 0);
	return err;
}

static int make_extents(struct set *s)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644, .set = PM_SET_SIZE };
	struct pm_change ch;
	int err;

	nw.size = s->size = (uint64_t)s->n * 2 * PM_BLOCK;
	err = pm_create(s->st, (struct pm_id){ PM_ROOT_INO, 1 }, "file", 4, &nw, &ch);

	s->file = ch.obj.id;
	s->used = free_blocks(s);
	for (unsigned i = 0; i < s->n && !err;
	     i++) /* reserved only: memory for a sample of them will do */
		err = pm_allocate(s->st, s->file, (uint64_t)i * 2 * PM_BLOCK, PM_BLOCK, &ch);
	s->used -= free_blocks(s) + s->n;
	for (unsigned i = 0; i < SAMPLE && !err; i++)
		err = write_extent(s, pick_sample(s, i, 0));
	return err;
}

static int make_set(struct set *s)
{
	struct pm_mkfs_opts o = { .size = 16ull << 30, .label = "bench" };
	struct pm_error why;
	int err = pm_mkfs(s->path, &o, &why);

	if (err)
		fprintf(stderr, "berth-bench: %s\n", why.text);
	else
		err = open_set(s);
	if (err)
		return err;
	return s->kind == EXTENTS ? make_extents(s) : make_files(s);
}

static void drop_set(struct set *s)
{
	if (s->st)
		store_drop(s->st);
	if (s->path[0])
		unlink(s->path);
	free(s->dir);
	free(s->id);
	free(s->moved);
}

/* --- turns ----------------------------------------------------------------------------------- */

static int warm_up(struct set *s, uint64_t *rnd)
{
	unsigned n = s->n < WARM ? s->n : WARM;
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		struct call c = call_for(s, n < s->n ? pick_any(s, 0, next_random(rnd)) : i);

		err = s->kind == EXTENTS ? op_xmap(s, &c) : op_lookup(s, &c);
		if (err == -ENOENT)
			err = 0; /* one of the removed */
	}
	return err;
}

/* Files that are removed for the time being are none for a lookup to find. */
static bool is_there(struct set *s, unsigned i)
{
	struct pm_attr a;

	return s->kind == EXTENTS || !pm_getattr(s->st, s->id[i], &a);
}

static unsigned prepare(const struct op *op, struct set *s, unsigned round, uint64_t *rnd,
                        struct call *call)
{
	unsigned n = s->kind != EXTENTS && s->n / 4 < TURN ? s->n / 4 / BATCH * BATCH : TURN;

	for (unsigned i = 0; i < n; i++) {
		unsigned who;

		do
			who = op->pick(s, round * n + i, next_random(rnd));
		while (op->pick == pick_any && !is_there(s, who));
		call[i] = call_for(s, who);
		call[i].random = next_random(rnd);
	}
	return n;
}

static int run_turn(const struct op *op, struct set *s, unsigned round, struct result *r)
{
	uint64_t rnd = 88172645463325252ull + round;
	struct call call[TURN];
	struct pm_stats a, b;
	unsigned n = prepare(op, s, round, &rnd, call);
	int err = warm_up(s, &rnd);

	pm_get_stats(s->st, &a);
	for (unsigned i = 0; i < n && !err; i += BATCH) {
		uint64_t start = bench_now();

		for (unsigned k = 0; k < BATCH && !err; k++)
			err = op->run(s, &call[i + k]);
		if (op->end && !err)
			err = op->end(s);
		r->ns[r->n++] = (double)(bench_now() - start) / BATCH;
		for (unsigned k = 0; k < BATCH && op->after; k++)
			op->after(s, &call[i + k]);
	}
	pm_get_stats(s->st, &b);
	r->ops += n;
	r->drains += b.drains - a.drains;
	r->journal += b.journal_bytes - a.journal_bytes;
	r->tx += b.transactions - a.transactions;
	r->checkpoints += b.checkpoints - a.checkpoints;
	if (err)
		fprintf(stderr, "berth-bench: %s at %u %s: %s\n", op->name, s->n,
		        kind_name[s->kind], strerror(-err));
	return err;
}

/* Take back what appends added. */
static int cut_back(struct set *s)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = (uint64_t)s->n * 2 * PM_BLOCK };
	struct pm_change ch;

	s->size = sa.size;
	return pm_setattr(s->st, s->file, &sa, &ch);
}

static int run_ops(struct set *set, unsigned nsets, unsigned rounds, struct result *res)
{
	int err = 0;

	for (unsigned round = 0; round < rounds && !err; round++) {
		for (unsigned o = 0; o < OPS && !err; o++) {
			for (unsigned i = 0; i < nsets && !err; i++) {
				if (op_table[o].extents != (set[i].kind == EXTENTS))
					continue;
				err = run_turn(&op_table[o], &set[i], round, &res[o * SETS + i]);
				if (!err && op_table[o].run == op_append)
					err = cut_back(&set[i]);
			}
		}
		fprintf(stderr, "\rround %u of %u", round + 1, rounds);
	}
	fputs("\r                    \r", stderr);
	for (unsigned i = 0; i < OPS * SETS; i++)
		if (res[i].n)
			res[i].median = bench_median(res[i].ns, res[i].n);
	return err;
}

/* --- mounts and memory ----------------------------------------------------------------------- */

struct mount {
	double clean, kill; /* ms */
	double dram, media; /* bytes for each file or extent */
};

static double anon_bytes(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long kb = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %lu", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return (double)kb * 1024;
}

static int timed_open(struct set *s, double *ms)
{
	uint64_t start = bench_now();
	int err = open_set(s);

	*ms = (double)(bench_now() - start) / 1e6;
	return err;
}

static int mount_once(struct set *s, unsigned round, double *clean, double *kill, double *dram)
{
	double before;
	int err = pm_close(s->st);

	s->st = NULL;
	if (!err)
		err = timed_open(s, clean);
	for (unsigned i = 0; i < 100 && !err; i++) /* something to replay */
		err = s->kind == EXTENTS ? write_extent(s, pick_sample(s, i + round * 100, 0))
		                         : write_block(s->st, s->id[pick_data(s, i, 0)], 0);
	if (err)
		return err;
	store_drop(s->st);
	s->st = NULL;
	before = anon_bytes();
	err = timed_open(s, kill);
	*dram = anon_bytes() - before;
	return err;
}

static int mount_set(struct set *s, unsigned rounds, struct mount *m)
{
	double clean[MAX_ROUNDS], kill[MAX_ROUNDS], dram[MAX_ROUNDS];
	int err = 0;

	for (unsigned i = 0; i < rounds && !err; i++)
		err = mount_once(s, i, &clean[i], &kill[i], &dram[i]);
	if (err)
		return err;
	m->clean = bench_median(clean, rounds);
	m->kill = bench_median(kill, rounds);
	m->dram = bench_median(dram, rounds) / s->n;
	m->media = (double)s->used * PM_BLOCK / s->n;
	return 0;
}

static int time_mkfs(const char *dir, unsigned rounds, double *ms)
{
	struct pm_mkfs_opts o = { .size = 1ull << 40, .label = "bench" };
	double v[MAX_ROUNDS];
	struct pm_error why;
	char path[256];
	int err = 0;

	snprintf(path, sizeof(path), "%s/berth-bench-mkfs.%d", dir, (int)getpid());
	for (unsigned i = 0; i < rounds && !err; i++) {
		uint64_t start = bench_now();

		err = pm_mkfs(path, &o, &why);
		v[i] = (double)(bench_now() - start) / 1e6;
		unlink(path);
	}
	if (err)
		fprintf(stderr, "berth-bench: %s\n", why.text);
	else
		*ms = bench_median(v, rounds);
	return err;
}

/* --- tables ---------------------------------------------------------------------------------- */

static double growth(const struct set *set, unsigned nsets, const struct result *res,
                     enum kind kind)
{
	double from = 0, to = 0;

	for (unsigned i = 0; i < nsets; i++) {
		if (set[i].kind == kind && set[i].n == 10000)
			from = res[i].median;
		if (set[i].kind == kind && set[i].n == 1000000)
			to = res[i].median;
	}
	return from > 0 ? to / from : 0;
}

static void print_kind(const struct set *set, unsigned nsets, const struct result *res,
                       enum kind kind)
{
	printf("\n| us, %s |", kind_name[kind]);
	for (unsigned i = 0; i < nsets; i++)
		if (set[i].kind == kind)
			printf(" %u |", set[i].n);
	printf(" 10^6 / 10^4 | drains | journal bytes |\n|---|");
	for (unsigned i = 0; i < nsets; i++)
		if (set[i].kind == kind)
			printf("---|");
	printf("---|---|---|\n");
	for (unsigned o = 0; o < OPS; o++) {
		const struct result *r = &res[o * SETS], *last = NULL;

		if (op_table[o].extents != (kind == EXTENTS))
			continue;
		printf("| %s |", op_table[o].name);
		for (unsigned i = 0; i < nsets; i++) {
			if (set[i].kind != kind)
				continue;
			last = &r[i];
			printf(" %.2f |", last->median / 1e3);
		}
		if (!last)
			continue;
		printf(" %.2f | %.2f | %.0f |\n", growth(set, nsets, r, kind),
		       (double)last->drains / (double)last->ops,
		       (double)last->journal / (double)last->ops);
	}
}

static void print_mounts(const struct set *set, unsigned nsets, const struct mount *m, double mkfs)
{
	printf("\n| | number | mount, clean (ms) | mount, killed (ms) | DRAM bytes each | pool "
	       "bytes each "
	       "|\n|---|---|---|---|---|---|\n");
	for (unsigned i = 0; i < nsets; i++)
		printf("| %s | %u | %.1f | %.1f | %.1f | %.0f |\n", kind_name[set[i].kind],
		       set[i].n, m[i].clean, m[i].kill, m[i].dram, m[i].media);
	printf("\nmkfs of a sparse pool of 1 TiB: %.1f ms\n", mkfs);
}

static void print_json(const struct set *set, unsigned nsets, const struct result *res,
                       const struct mount *m, double mkfs, unsigned rounds)
{
	json_t *top =
		json_pack("{s:i, s:f, s:[]}", "rounds", (int)rounds, "mkfs_1tib_ms", mkfs, "sizes");

	for (unsigned i = 0; i < nsets; i++) {
		json_t *ops = json_object();

		for (unsigned o = 0; o < OPS; o++) {
			const struct result *r = &res[o * SETS + i];

			if (r->ops)
				json_object_set_new(
					ops, op_table[o].name,
					json_pack("{s:f, s:f, s:f, s:I}", "us", r->median / 1e3,
				                  "drains", (double)r->drains / (double)r->ops,
				                  "journal_bytes",
				                  (double)r->journal / (double)r->ops,
				                  "checkpoints", (json_int_t)r->checkpoints));
		}
		json_array_append_new(json_object_get(top, "sizes"),
		                      json_pack("{s:s, s:i, s:o, s:f, s:f, s:f, s:f}", "kind",
		                                kind_name[set[i].kind], "number", (int)set[i].n,
		                                "ops", ops, "mount_clean_ms", m[i].clean,
		                                "mount_killed_ms", m[i].kill, "dram_bytes_each",
		                                m[i].dram, "pool_bytes_each", m[i].media));
	}
	json_dumpf(top, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(top);
}

/* --- the command ----------------------------------------------------------------------------- */

static void plan(struct set *set, unsigned *nsets, const char *dir, unsigned most, const char *only)
{
	static const char *const tag[] = { "one", "many", "extents" };

	for (unsigned k = 0; k < 3; k++) {
		if (only && strcmp(only, tag[k]))
			continue;
		for (unsigned n = k == EXTENTS ? 10 : 1000; n <= most; n *= 10) {
			struct set *s = &set[*nsets];

			s->kind = (enum kind)k;
			s->n = n;
			snprintf(s->path, sizeof(s->path), "%s/berth-bench-%s-%u.%d", dir, tag[k],
			         n, (int)getpid());
			++*nsets;
		}
	}
}

static int measure(struct set *set, unsigned nsets, const char *dir, unsigned rounds, bool json)
{
	struct result *res = calloc(OPS * SETS, sizeof(*res));
	struct mount m[SETS] = { { 0 } };
	double mkfs = 0;
	int err = res ? 0 : -ENOMEM;

	for (unsigned i = 0; i < nsets && !err; i++)
		err = make_set(&set[i]);
	if (!err)
		err = run_ops(set, nsets, rounds, res);
	for (unsigned i = 0; i < nsets && !err; i++)
		err = mount_set(&set[i], rounds < 5 ? rounds : 5, &m[i]);
	if (!err)
		err = time_mkfs(dir, 3, &mkfs);
	if (!err && json) {
		print_json(set, nsets, res, m, mkfs, rounds);
	} else if (!err) {
		for (unsigned k = 0; k < 3; k++)
			print_kind(set, nsets, res, (enum kind)k);
		print_mounts(set, nsets, m, mkfs);
	}
	free(res);
	return err;
}

static int usage(FILE *f)
{
	fprintf(f, "usage: berth-bench pool [-d DIR] [-r ROUNDS] [-n MOST] [-k one|many|extents] [--json]\n"
		   "       berth-bench pool --threads N [--checksum] [-d DIR] [-r ROUNDS] [-n OPS]\n"
		   "ROUNDS: 1 to %u; MOST: files or extents, 1000 to 1000000; N: at most 16; OPS: of a thread in a round\n",
		MAX_ROUNDS);
	return f == stdout ? 0 : 2;
}

static int refuse(const char *what, const char *value)
{
	fprintf(stderr, "berth-bench: pool %s %s:\n", what, value);
	return usage(stderr);
}

struct pool_opts {
	const char *dir, *only;
	unsigned rounds, most, threads;
	bool json, checksums;
};

/* 0; else the exit status, and has said why. */
static int parse(int argc, char **argv, struct pool_opts *o)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' },
					       { "threads", required_argument, NULL, 't' },
					       { "checksum", no_argument, NULL, 'c' }, { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "d:r:n:k:t:cjh", longs, NULL)) != -1) {
		switch (opt) {
		case 'd': o->dir = optarg; break;
		case 'j': o->json = true; break;
		case 'c': o->checksums = true; break;
		case 'k':
			o->only = optarg;
			if (strcmp(optarg, "one") && strcmp(optarg, "many") && strcmp(optarg, "extents"))
				return refuse("-k", optarg);
			break;
		case 'r':
			if (!bench_number(optarg, 1, MAX_ROUNDS, &o->rounds))
				return refuse("-r", optarg);
			break;
		case 'n':
			if (!bench_number(optarg, 1000, 1000000, &o->most))
				return refuse("-n", optarg);
			break;
		case 't':
			if (!bench_number(optarg, 1, 16, &o->threads))
				return refuse("--threads", optarg);
			break;
		case 'h': exit(usage(stdout));
		default: return usage(stderr);
		}
	}
	if (o->checksums && !o->threads)
		return refuse("--checksum", "without --threads");
	return optind < argc ? refuse("", argv[optind]) : 0;
}

/* What a run that is broken off would leave: pools of up to gigabytes. */
static void drop_all(void *arg, int sig)
{
	const struct pool_opts *o = arg;
	char pattern[512];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/berth-bench-*.%d", o->dir, (int)getpid());
	if (!glob(pattern, 0, NULL, &g))
		for (size_t i = 0; i < g.gl_pathc; i++)
			unlink(g.gl_pathv[i]);
	_exit(128 + sig);
}

int bench_pool(int argc, char **argv)
{
	struct pool_opts o = { .dir = "/dev/shm", .rounds = 9, .most = 1000000 };
	struct set set[SETS] = { { 0 } };
	unsigned nsets = 0;
	int err = parse(argc, argv, &o);

	if (err)
		return err;
	/* tmpfs stands for persistent memory: real cache line flushes */
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 0);
	bench_on_signal(drop_all, &o);
	if (o.threads)
		return bench_workers(o.dir, o.threads, o.rounds, o.most < 1000000 ? o.most : 0, o.checksums) ? 1 : 0;
	plan(set, &nsets, o.dir, o.most, o.only);
	err = measure(set, nsets, o.dir, o.rounds, o.json);
	for (unsigned i = 0; i < nsets; i++)
		drop_set(&set[i]);
	return err ? 1 : 0;
}
