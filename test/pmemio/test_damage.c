/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every structure of a populated pool damaged, one at a time, every field
 *
 * For each kind of damage: check names it; a server either refuses with a cure, or serves
 * everything else and answers EIO; repair leaves a clean pool or says what is left; what was not
 * damaged is all still there with its content, by its old identity, under its name or in
 * lost+found.
 *
 * A structure that exists twice may lose one copy in silence: nothing is lost with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define SIZE  (16u << 20)
#define CROWD 300u
#define LIMITS 150u /* two blocks of the quota file */

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };

struct thing { /* one object of the pool and what it holds */
	struct pm_id id, dir;
	char name[32];
	enum pm_type type;
	unsigned blocks, step; /* files: a block of content every @step blocks */
};

static struct test_pool pool;
static uint8_t *map, *pristine;
static struct thing thing[3000];
static unsigned nthings;
static struct pm_id dir, sub, crowd, plain, sparse, lnk, longlink, fifo, chr;
static char said[1 << 20];

/* --- the pool ------------------------------------------------------------------------------------
 */

static struct pm_id add(struct pm_id d, const char *name, enum pm_type type, size_t target)
{
	static char text[300];
	struct pm_new nw = { .type = type,
		             .mode = 0755,
		             .target = memset(text, 't', sizeof(text)),
		             .target_len = target,
		             .rdev_major = 7 };
	struct pm_once once = { .key = { (uint8_t)nthings, (uint8_t)(nthings >> 8), 1 }, .tag = 8 };
	struct pm_change ch;
	struct thing *t = &thing[nthings++];

	cr_assert_eq(pm_create_once(pool.st, d, name, strlen(name), &nw, &once, &ch), 0);
	*t = (struct thing){ .id = ch.obj.id, .dir = d, .type = type };
	snprintf(t->name, sizeof(t->name), "%s", name);
	return ch.obj.id;
}

static uint8_t pattern(const struct thing *t, uint64_t block)
{
	return (uint8_t)(t->id.ino * 37 + block * 11 + 1);
}

static void fill(struct pm_id id, unsigned blocks, unsigned step)
{
	struct thing *t = thing;

	while (t->id.ino != id.ino)
		t++;
	t->blocks = blocks;
	t->step = step;
	for (unsigned i = 0; i < blocks; i++) {
		struct pm_committed done;
		struct pm_map m;

		cr_assert_eq(pm_map_write(pool.st, id, (uint64_t)i * step * PM_BLOCK, PM_BLOCK, &m,
		                          NULL),
		             0);
		memset(m.seg[0].iov_base, pattern(t, i), PM_BLOCK);
		cr_assert_eq(pm_commit(&m, PM_BLOCK, PM_FILE_SYNC, false, &done, NULL), 0);
		pm_unpin(&m);
	}
}

static void set_limits(void)
{
	pm_lsn lsn;

	for (uint32_t i = 0; i < LIMITS; i++) {
		struct pm_quota q = { .kind = PM_QUOTA_UID, .id = 1000 + i, .max_blocks = 10 + i };

		cr_assert_eq(pm_quota_set(pool.st, &q, &lsn), 0);
	}
}

static void finish(void);

static void setup(void)
{
	nthings = 0;
	pool_new(&pool, "damage", SIZE, PM_CLWB);
	set_limits();
	dir = add(ROOT, "dir", PM_DIR, 0);
	sub = add(dir, "sub", PM_DIR, 0);
	crowd = add(ROOT, "crowd", PM_DIR, 0);
	plain = add(dir, "plain", PM_REG, 0);
	sparse = add(dir, "sparse", PM_REG, 0);
	lnk = add(dir, "link", PM_LNK, 20);
	longlink = add(dir, "longlink", PM_LNK, 300);
	fifo = add(dir, "fifo", PM_FIFO, 0);
	chr = add(dir, "chr", PM_CHR, 0);
	fill(plain, 3, 3);
	fill(sparse, 400, 3);
	for (unsigned i = 0; i < CROWD; i++) { /* fills more than one chunk of inodes, and leaves */
		char name[32];

		snprintf(name, sizeof(name), "a-member-of-the-crowd-%03u", i);
		add(i < CROWD - 3 ? crowd : sub, name, PM_REG, 0);
		if (i >= CROWD - 3 || i % 16 == 0)
			fill(thing[nthings - 1].id, 1, 1);
	}
	finish();
}

static void finish(void)
{
	int fd;

	pool_close(&pool);
	fd = open(pool.path, O_RDWR);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(map, MAP_FAILED);
	close(fd);
	pristine = malloc(SIZE);
	memcpy(pristine, map, SIZE);
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1); /* for pm_repair, as pool_open does */
}

static void teardown(void)
{
	munmap(map, SIZE);
	free(pristine);
	pool_drop(&pool);
}

TestSuite(damage, .init = setup, .fini = teardown, .timeout = 300);

/* --- places in it --- */

static const struct pm_super *newest(void)
{
	const struct pm_super *s = (void *)map, *t = (void *)(map + PM_BLOCK);

	return t->seq > s->seq ? t : s;
}

static struct pm_inode *inode(uint64_t ino)
{
	cr_assert_lt(ino, PM_CHUNK_INODES);
	return (void *)(map + newest()->data_start * PM_BLOCK + ino * PM_INODE_SIZE);
}

static struct pm_bnode *node(uint64_t blk)
{
	return (void *)(map + blk * PM_BLOCK);
}

static struct pm_bent *ent(struct pm_bnode *n, unsigned i)
{
	return (void *)((uint8_t *)n + n->slot[i]);
}

static struct pm_bnode *root_of(struct pm_id id)
{
	cr_assert(inode(id.ino)->flags & PM_IF_TREE);
	return node(inode(id.ino)->u.tree.root);
}

static struct pm_bnode *leaf_of(struct pm_id id)
{
	struct pm_bnode *n = root_of(id);
	uint64_t down;

	while (n->level) {
		memcpy(&down, ent(n, n->count / 2)->val, 8);
		n = node(down);
	}
	return n;
}

static struct pm_dent *dent_of(struct pm_id d, struct pm_id to)
{
	struct pm_bnode *n = root_of(d);

	for (unsigned i = 0; i < n->count; i++) {
		struct pm_dent *e = (void *)ent(n, i)->val;

		if (e->ino == to.ino)
			return e;
	}
	cr_assert_fail("no entry");
	abort();
}

static void seal_inode(struct pm_id id)
{
	struct pm_inode *in = inode(id.ino);

	in->crc = pm_crc(in, sizeof(*in), 0);
}

static void seal_node(struct pm_bnode *n)
{
	n->crc = pm_crc(n, PM_BLOCK, 0);
}

/* --- what is there --- */

/* 0, or what reading it brings; -EILSEQ: other bytes than were written. */
static int content(struct pm_store *st, const struct thing *t)
{
	struct pm_attr a;
	int err = pm_getattr(st, t->id, &a);

	if (err)
		return err;
	if (a.type != t->type)
		return -EILSEQ;
	for (unsigned i = 0; i < t->blocks; i++) {
		struct pm_map m;
		bool same;

		err = pm_map_read(st, t->id, (uint64_t)i * t->step * PM_BLOCK, PM_BLOCK, &m);
		if (err)
			return err;
		same = m.len == PM_BLOCK && m.nseg == 1;
		for (unsigned k = 0; same && k < PM_BLOCK; k++)
			same = ((uint8_t *)m.seg[0].iov_base)[k] == pattern(t, i);
		pm_unpin(&m);
		if (!same)
			return -EILSEQ;
	}
	if (t->type == PM_LNK) {
		char buf[PM_LINK_PATH];
		size_t len;

		err = pm_readlink(st, t->id, buf, sizeof(buf), &len);
		if (err)
			return err;
		for (size_t k = 0; k < len; k++)
			if (buf[k] != 't')
				return -EILSEQ;
		return len == (t->id.ino == lnk.ino ? 20 : 300) ? 0 : -EILSEQ;
	}
	return 0;
}

static int by_name(struct pm_store *st, const struct thing *t)
{
	struct pm_attr a;
	int err = pm_lookup(st, t->dir, t->name, strlen(t->name), &a);

	return err ? err : a.id.ino == t->id.ino && a.id.gen == t->id.gen ? 0 : -EILSEQ;
}

static int in_lost_found(struct pm_store *st, const struct thing *t)
{
	struct pm_attr lf, a;
	char name[32];
	int err = pm_lookup(st, ROOT, "lost+found", 10, &lf);

	snprintf(name, sizeof(name), "#%llu", (unsigned long long)t->id.ino);
	if (!err)
		err = pm_lookup(st, lf.id, name, strlen(name), &a);
	return err ? err : a.id.ino == t->id.ino ? 0 : -EILSEQ;
}

/* --- one damage --- */

struct damage {
	char what[96];
	uint64_t victim; /* the only inode that may suffer; 0: none */
	bool spare;      /* a second copy, or nothing that counts: may go unnamed */
	bool left;       /* has no one right answer: repair may leave it */
	bool limits;     /* some limits may be lost, if they are named */
};

static void note(void *arg, const char *where, const char *what)
{
	size_t n = strlen(said);

	(void)arg;
	snprintf(said + n, sizeof(said) - n, "%s: %s\n", where, what);
}

/* Is there a line about this inode? */
static bool told(uint64_t ino)
{
	char text[64];

	for (unsigned i = 0; i < 2; i++) {
		char *at;

		snprintf(text, sizeof(text), "%s %llu", i ? "inode" : "directory",
		         (unsigned long long)ino);
		for (at = said; (at = strstr(at, text)); at++)
			if (at[strlen(text)] < '0' || at[strlen(text)] > '9')
				return true;
	}
	return false;
}

static void is_named(const struct damage *d)
{
	struct pm_check_report rep;
	struct pm_error why = { "" };
	int err;

	said[0] = 0;
	err = pm_check(pool.path, note, NULL, NULL, &rep, &why);
	if (err) {
		cr_assert(err == -EUCLEAN || err == -EINVAL || err == -EPROTONOSUPPORT,
		          "%s: check: %d %s", d->what, err, why.text);
		cr_assert(strstr(why.text, "restore") || strstr(why.text, "repair") ||
		                  strstr(why.text, "use a newer") || strstr(why.text, "mkfs"),
		          "%s: no cure in '%s'", d->what, why.text);
		return;
	}
	cr_assert(rep.problems || d->spare, "%s: check finds nothing", d->what);
}

static void is_served(const struct damage *d)
{
	struct pm_error why = { "" };

	if (pool_try_open(&pool, PM_CLWB, &why)) {
		cr_assert(strstr(why.text, "restore") || strstr(why.text, "repair") ||
		                  strstr(why.text, "use a newer") || strstr(why.text, "mkfs"),
		          "%s: no cure in '%s'", d->what, why.text);
		return;
	}
	for (unsigned i = 0; i < nthings; i++) {
		const struct thing *t = &thing[i];
		int name = by_name(pool.st, t), body = content(pool.st, t);
		bool hurt = t->id.ino == d->victim;

		/* an inode that became zeros looks free to old handles, and to its name like damage
		 */
		cr_assert(!body || (hurt && (body == -EIO || body == -ESTALE)), "%s: %s reads %d",
		          d->what, t->name, body);
		hurt |= t->dir.ino == d->victim;
		cr_assert(!name || (hurt && (name == -EIO || name == -ESTALE)),
		          "%s: %s is looked up %d", d->what, t->name, name);
	}
	pool_kill(&pool); /* as it is: no reason to trust a clean close of this */
}

static void limits_are_there(const struct damage *d, bool whole)
{
	char text[64];

	for (uint32_t i = 0; i < LIMITS; i++) {
		struct pm_quota q;

		pm_quota_get(pool.st, PM_QUOTA_UID, 1000 + i, &q);
		if (q.max_blocks == 10 + i)
			continue;
		snprintf(text, sizeof(text), "limits of uid %u dropped", 1000 + i);
		cr_assert_eq(q.max_blocks, 0, "%s: limit of %u is %llu", d->what, 1000 + i,
		             (unsigned long long)q.max_blocks);
		cr_assert(!whole && (strstr(said, text) || strstr(said, "quota file") ||
		                     strstr(said, "inode table")),
		          "%s: limit of %u is lost:\n%s", d->what, 1000 + i, said);
	}
}

static void is_repaired(const struct damage *d)
{
	const struct pm_repair_calls calls = { .fixed = note, .left = note };
	struct pm_repair_report rep;
	struct pm_check_report again;
	struct pm_error why = { "" };
	int err;

	said[0] = 0;
	err = pm_repair(pool.path, &calls, NULL, &rep, &why);
	if (err) {
		cr_assert(d->left && (err == -EUCLEAN || err == -EINVAL || err == -EPROTONOSUPPORT),
		          "%s: repair: %d %s", d->what, err, why.text);
		cr_assert_neq(why.text[0], 0);
		return;
	}
	cr_assert(rep.left == 0 || d->left, "%s: left:\n%s", d->what, said);
	cr_assert_eq(pm_check(pool.path, NULL, NULL, NULL, &again, &why), 0);
	cr_assert_eq(again.problems, rep.left, "%s", d->what);
	cr_assert_eq(pool_try_open(&pool, PM_CLWB, &why), 0, "%s: %s", d->what, why.text);
	for (unsigned i = 0; i < nthings; i++) {
		const struct thing *t = &thing[i];
		int body = content(pool.st, t);

		cr_assert(!body || (t->id.ino == d->victim && (rep.left || told(t->id.ino))),
		          "%s: after repair %s reads %d:\n%s", d->what, t->name, body, said);
		cr_assert(!by_name(pool.st, t) || !in_lost_found(pool.st, t) ||
		                  (t->id.ino == d->victim && told(t->id.ino)),
		          "%s: after repair %s (%llu) is nowhere:\n%s", d->what, t->name,
		          (unsigned long long)t->id.ino, said);
	}
	limits_are_there(d, !d->limits && !d->left);
	pool_close(&pool);
	cr_assert_eq(pm_check(pool.path, NULL, NULL, NULL, &again, &why), 0);
	cr_assert_eq(again.problems, rep.left, "%s: after use", d->what);
}

static void judge(const struct damage *d)
{
	uint8_t *hurt = malloc(SIZE);

	memcpy(hurt, map, SIZE);
	is_named(d);
	is_served(d);
	memcpy(map, hurt, SIZE);
	is_repaired(d);
	memcpy(map, pristine, SIZE);
	free(hurt);
}

/* --- flip, zero, tear: checksums catch it --- */

struct field {
	const char *name;
	size_t at, len;
};
#define F(type, field)                                                                             \
	{                                                                                          \
#field, offsetof(struct type, field), sizeof(((struct type *)0)->field)            \
	}

static const struct field super_fields[] = {
	F(pm_super, magic),        F(pm_super, crc),         F(pm_super, version),
	F(pm_super, seq),          F(pm_super, compat),      F(pm_super, ro_compat),
	F(pm_super, incompat),     F(pm_super, uuid),        F(pm_super, label),
	F(pm_super, secret),       F(pm_super, created),     F(pm_super, blocks),
	F(pm_super, lane_start),   F(pm_super, data_start),  F(pm_super, lanes),
	F(pm_super, lane_blocks),  F(pm_super, boot),        F(pm_super, write_verf),
	F(pm_super, state),        F(pm_super, saved_start), F(pm_super, saved_blocks),
	F(pm_super, saved_bytes),  F(pm_super, saved_crc),   F(pm_super, reply_start),
	F(pm_super, reply_blocks), F(pm_super, reserved2),
};
static const struct field head_fields[] = { F(pm_lane_head, crc), F(pm_lane_head, ckpt_seq),
	                                    F(pm_lane_head, pad) };
static const struct field inode_fields[] = {
	F(pm_inode, crc),           F(pm_inode, type),         F(pm_inode, flags),
	F(pm_inode, ino),           F(pm_inode, gen),          F(pm_inode, mode),
	F(pm_inode, nlink),         F(pm_inode, uid),          F(pm_inode, gid),
	F(pm_inode, size),          F(pm_inode, blocks),       F(pm_inode, parent),
	F(pm_inode, rdev_major),    F(pm_inode, rdev_minor),   F(pm_inode, verf),
	F(pm_inode, atime),         F(pm_inode, mtime),        F(pm_inode, ctime),
	F(pm_inode, u.ext[0]),      F(pm_inode, u.ext[2]),     F(pm_inode, u.tree.root),
	F(pm_inode, u.tree.height), F(pm_inode, u.tree.count),
};
static const struct field node_fields[] = {
	F(pm_bnode, crc),  F(pm_bnode, magic),         F(pm_bnode, level), F(pm_bnode, owner),
	F(pm_bnode, self), F(pm_bnode, count),         F(pm_bnode, low),   F(pm_bnode, dead),
	{ "slot", 32, 2 }, { "last entry", 4072, 24 },
};

static unsigned cases;

static void say_what(struct damage *d, const char *how, const char *where, const char *field)
{
	snprintf(d->what, sizeof(d->what), "%s %s %s", how, where, field);
	cases++;
}

/* Each field with one bit flipped and zeroed, then the whole zeroed and cut in two. */
static void hurt(uint8_t *at, size_t len, const struct field *f, size_t n, const char *where,
                 struct damage d)
{
	for (size_t i = 0; i < n; i++) {
		at[f[i].at + f[i].len / 2] ^= 0x04;
		say_what(&d, "flip", where, f[i].name);
		judge(&d);
		memset(at + f[i].at, 0, f[i].len);
		if (!memcmp(map, pristine, SIZE))
			continue;
		say_what(&d, "zero", where, f[i].name);
		judge(&d);
	}
	memset(at, 0, len);
	say_what(&d, "zero", where, "all of it");
	d.spare |= !strcmp(where, "reply record"); /* as one that was never used */
	judge(&d);
	memset(at + len / 2, 0, len / 2);
	if (memcmp(map, pristine, SIZE)) {
		say_what(&d, "tear", where, "second half");
		judge(&d);
	}
	memset(at, 0x5a, len / 2);
	say_what(&d, "tear", where, "first half");
	judge(&d);
}
#define N(a) (sizeof(a) / sizeof(*(a)))

Test(damage, of_superblocks)
{
	for (unsigned i = 0; i < 2; i++)
		hurt(map + i * PM_BLOCK, 512, super_fields, N(super_fields),
		     i ? "superblock 1" : "superblock 0", (struct damage){ .spare = true });
	for (size_t k = 0; k < N(super_fields); k++) {
		struct damage d = { .left = true };

		for (unsigned i = 0; i < 2; i++)
			map[i * PM_BLOCK + super_fields[k].at] ^= 1;
		say_what(&d, "flip", "both superblocks", super_fields[k].name);
		judge(&d);
	}
}

Test(damage, of_lane_headers)
{
	uint8_t *lane = map + newest()->lane_start * PM_BLOCK;
	struct damage d = { .spare = true };

	for (unsigned i = 0; i < 2; i++)
		hurt(lane + i * 64, 64, head_fields, N(head_fields), "lane header copy", d);
	d.spare = false;
	for (size_t k = 0; k < N(head_fields); k++) {
		lane[head_fields[k].at] ^= 1;
		lane[64 + head_fields[k].at] ^= 1;
		say_what(&d, "flip", "both lane headers", head_fields[k].name);
		judge(&d);
	}
	memset(lane, 0, 128);
	say_what(&d, "zero", "both lane headers", "");
	judge(&d);
}

Test(damage, of_inodes)
{
	const struct {
		const char *name;
		struct pm_id id;
	} in[] = { { "inode of the root", ROOT },
		   { "inode of a directory", dir },
		   { "inode of a large directory", crowd },
		   { "inode of a file", plain },
		   { "inode of a file with a tree", sparse },
		   { "inode of a link", lnk },
		   { "inode of a long link", longlink },
		   { "inode of a fifo", fifo },
		   { "inode of a device", chr } };

	for (size_t i = 0; i < N(in); i++)
		hurt((uint8_t *)inode(in[i].id.ino), PM_INODE_SIZE, inode_fields, N(inode_fields),
		     in[i].name, (struct damage){ .victim = in[i].id.ino });
}

/* That it was good a moment ago is no reason to trust it. */
Test(damage, of_an_inode_in_use)
{
	struct pm_error why = { "" };
	struct pm_attr a;

	cr_assert_eq(pool_try_open(&pool, PM_CLWB, &why), 0, "%s", why.text);
	for (size_t i = 0; i < PM_INODE_SIZE; i++) {
		uint8_t *byte = (uint8_t *)inode(plain.ino) + i;

		for (unsigned bit = 0; bit < 8; bit += 7) {
			*byte ^= (uint8_t)(1u << bit);
			cr_assert_eq(pm_getattr(pool.st, plain, &a), -EIO, "byte %zu", i);
			*byte ^= (uint8_t)(1u << bit);
			cr_assert_eq(pm_getattr(pool.st, plain, &a), 0, "byte %zu", i);
		}
	}
	pool_kill(&pool);
	memcpy(map, pristine, SIZE);
}

Test(damage, of_the_inode_table)
{
	hurt((uint8_t *)inode(0), PM_INODE_SIZE, inode_fields, N(inode_fields), "inode 0",
	     (struct damage){ .victim = 0 });
}

/* Nothing but limits may suffer. */
Test(damage, of_the_quota_file)
{
	static const struct field f[] = { F(pm_quota_block, crc),       F(pm_quota_block, magic),
		                          F(pm_quota_block, lblk),      F(pm_quota_block, reserved1),
		                          F(pm_quota_block, rec[0]),    F(pm_quota_block, rec[20].id),
		                          F(pm_quota_block, rec[126]) };
	uint64_t ino = inode(0)->parent;
	const struct pm_ext *x = inode(ino)->u.ext;
	struct damage d = { .limits = true };

	cr_assert_eq(inode(ino)->size, 2 * PM_BLOCK);
	hurt((uint8_t *)inode(ino), PM_INODE_SIZE, inode_fields, N(inode_fields),
	     "inode of the quota file", d);
	hurt(map + x[0].pblk * PM_BLOCK, PM_BLOCK, f, N(f), "block 0 of the quota file", d);
	hurt(map + (x[0].len_lo > 1 ? x[0].pblk + 1 : x[1].pblk) * PM_BLOCK, PM_BLOCK, f, N(f),
	     "block 1 of the quota file", d);
}

Test(damage, of_nodes)
{
	hurt((uint8_t *)root_of(dir), PM_BLOCK, node_fields, N(node_fields),
	     "root leaf of a directory", (struct damage){ .victim = dir.ino });
	hurt((uint8_t *)root_of(crowd), PM_BLOCK, node_fields, N(node_fields),
	     "root of a directory", (struct damage){ .victim = crowd.ino });
	hurt((uint8_t *)leaf_of(crowd), PM_BLOCK, node_fields, N(node_fields),
	     "leaf of a directory", (struct damage){ .victim = crowd.ino });
	hurt((uint8_t *)root_of(sparse), PM_BLOCK, node_fields, N(node_fields), "root of a file",
	     (struct damage){ .victim = sparse.ino });
	hurt((uint8_t *)leaf_of(sparse), PM_BLOCK, node_fields, N(node_fields), "leaf of a file",
	     (struct damage){ .victim = sparse.ino });
	hurt((uint8_t *)root_of(ROOT), PM_BLOCK, node_fields, N(node_fields), "leaf of the root",
	     (struct damage){ .victim = 1 });
}

/* So many inodes, with data in between, that their table has a tree. */
static void setup_many(void)
{
	nthings = 0;
	pool_new(&pool, "damage", SIZE, PM_CLWB);
	set_limits();
	for (unsigned i = 0; i < 2400; i++) {
		char name[32];

		snprintf(name, sizeof(name), "one-of-many-%04u", i);
		add(ROOT, name, PM_REG, 0);
		fill(thing[nthings - 1].id, 1, 1);
	}
	finish();
}

Test(damage, of_nodes_of_the_inode_table)
{
	struct pm_id table = { 0, 1 };

	teardown();
	setup_many();
	hurt((uint8_t *)root_of(table), PM_BLOCK, node_fields, N(node_fields),
	     "root of the inode table", (struct damage){ .victim = 0 });
	hurt((uint8_t *)inode(0), PM_INODE_SIZE, inode_fields, N(inode_fields), "inode 0 with a tree",
	     (struct damage){ .victim = 0 });
}

Test(damage, of_reply_records)
{
	static const struct field f[] = { F(pm_slot, crc),     F(pm_slot, tag), F(pm_slot, key),
		                          F(pm_slot, seq),     F(pm_slot, ino), F(pm_slot, gen),
		                          F(pm_slot, reserved) };
	const unsigned at[] = { 0, 100, CROWD + 8 }; /* first, one in between, newest */

	for (size_t i = 0; i < N(at); i++)
		hurt(map + newest()->reply_start * PM_BLOCK + at[i] * sizeof(struct pm_slot),
		     sizeof(struct pm_slot), f, N(f), "reply record",
		     (struct damage){ .spare = false });
}

Test(damage, of_stored_free_space)
{
	const struct pm_super *s = newest();
	uint8_t *run = map + s->saved_start * PM_BLOCK;
	const struct field f[] = { { "crc", 0, 4 },
		                   { "free count", 8, 4 },
		                   { "kind", 12, 4 },
		                   { "bitmap", 16, 64 },
		                   { "slots", s->saved_bytes - 32, 32 } };

	/* its first 8 bytes are zero and mean nothing; the sum is in the superblock */
	hurt(run, s->saved_bytes, f + 1, N(f) - 1, "stored free space",
	     (struct damage){ .spare = false });
}

/* --- what is wrong under a good checksum --- */

static void lies(struct damage d, const char *what)
{
	snprintf(d.what, sizeof(d.what), "%s", what);
	cases++;
	cr_assert_neq(memcmp(map, pristine, SIZE), 0, "%s: changes nothing", what);
	is_named(&d);
	is_repaired(&d);
	memcpy(map, pristine, SIZE);
}

#define LIE_INODE(who, change, ...)                                                                \
	do {                                                                                       \
		struct pm_inode *in = inode((who).ino);                                            \
		in->change;                                                                        \
		seal_inode(who);                                                                   \
		lies((struct damage){ .victim = (who).ino, __VA_ARGS__ }, #who " " #change);       \
	} while (0)

Test(damage, inodes_that_lie)
{
	const struct pm_id all[] = { ROOT, dir, crowd, plain, sparse, lnk, fifo };

	for (size_t i = 0; i < N(all); i++) {
		LIE_INODE(all[i], nlink += 3);
		LIE_INODE(all[i], blocks += 5);
		LIE_INODE(all[i], mode |= 0170000);
		LIE_INODE(all[i], type = 9);
	}
	LIE_INODE(plain, nlink = 0);
	LIE_INODE(dir, size++);
	LIE_INODE(crowd, u.tree.count--);
	LIE_INODE(sparse, u.tree.count++);
	LIE_INODE(sparse, u.tree.height++);
	LIE_INODE(crowd, u.tree.height = 0);
	LIE_INODE(crowd, u.tree.root = 3);
	LIE_INODE(sub, parent = 1);
	LIE_INODE(ROOT, parent = 5);
	LIE_INODE(plain, size = PM_FILE_MAX + 1);
	LIE_INODE(plain, u.ext[1].pblk = SIZE / PM_BLOCK);
	LIE_INODE(plain, u.ext[1].pblk = 5);
	LIE_INODE(plain, u.ext[1].flags = 4);
	LIE_INODE(plain, u.ext[1].lblk = 0);
	LIE_INODE(plain, u.ext[0].len_lo = 20, .left = true);
	LIE_INODE(plain, u.ext[2].pblk = inode(longlink.ino)->u.ext[0].pblk, .left = true);
	LIE_INODE(plain, u.ext[2].pblk = newest()->data_start & 0xffffffffu);
	LIE_INODE(plain, u.ext[2].pblk = inode(crowd.ino)->u.tree.root & 0xffffffffu);
	LIE_INODE(plain, gen++);
}

Test(damage, entries_that_lie)
{
	struct damage d = { .victim = plain.ino };
	struct pm_bnode *n = root_of(dir);

	dent_of(dir, plain)->gen++;
	seal_node(n);
	lies(d, "generation in an entry");
	dent_of(dir, plain)->type = PM_FIFO;
	seal_node(n);
	lies(d, "type in an entry");
	dent_of(dir, plain)->ino = 1ull << 40;
	seal_node(n);
	lies(d, "an entry that leads nowhere");
	dent_of(dir, plain)->ino = 1;
	seal_node(n);
	lies(d, "an entry that leads to the root");
	dent_of(dir, plain)->name[0] = '/';
	seal_node(n);
	lies(d, "an impossible name");
	dent_of(dir, plain)->name[0] = 'g';
	seal_node(n);
	lies(d, "a wrong cookie");
	d.victim = sub.ino; /* the loop: dir is in sub, the root leads to a file of sub's instead */
	{
		struct thing *t = &thing[nthings - 1];
		struct pm_dent *top = dent_of(ROOT, dir), *low = dent_of(sub, t->id);

		top->ino = t->id.ino;
		top->gen = t->id.gen;
		top->type = PM_REG;
		low->ino = dir.ino;
		low->gen = dir.gen;
		low->type = PM_DIR;
		seal_node(root_of(ROOT));
		seal_node(root_of(sub));
		n = root_of(sub);
		is_named(&(struct damage){ .what = "loop" });
		{
			const struct pm_repair_calls calls = { .fixed = note, .left = note };
			struct pm_repair_report rep;
			struct pm_error why;

			said[0] = 0;
			cr_assert_eq(pm_repair(pool.path, &calls, NULL, &rep, &why), 0);
			cr_assert_eq(rep.left, 0, "%s", said);
			pool_open(&pool, PM_CLWB);
			for (unsigned i = 0; i < nthings; i++)
				cr_assert_eq(content(pool.st, &thing[i]), 0, "%s", thing[i].name);
			pool_close(&pool);
		}
	}
}

/* Made anew, but what it says it has was not judged: nobody uses it, and nothing is given out that it may have. */
Test(damage, an_inode_whose_repair_was_cut_off)
{
	struct damage d = { .what = "an inode in doubt", .victim = plain.ino };
	struct pm_attr a;
	struct pm_map m;

	pool_open(&pool, PM_CLWB);
	pool_kill(&pool); /* free space is gathered by the next open */
	inode(plain.ino)->flags |= PM_IF_DOUBT;
	seal_inode(plain);
	is_named(&d);
	pool_open(&pool, PM_CLWB);
	cr_assert_eq(pm_getattr(pool.st, plain, &a), -EIO);
	cr_assert_eq(pm_map_write(pool.st, sparse, 1 << 24, PM_BLOCK, &m, NULL), -ENOSPC);
	pool_kill(&pool);
	is_repaired(&d);
	cr_assert_eq(inode(plain.ino)->flags & PM_IF_DOUBT, 0);
}

/* What an inode of no type has is not known: a server that gathers free space must not give it away. */
Test(damage, an_inode_of_impossible_type)
{
	struct damage d = { .what = "an impossible type", .victim = plain.ino };
	struct pm_attr a;
	struct pm_map m;

	pool_open(&pool, PM_CLWB);
	pool_kill(&pool);
	inode(plain.ino)->type = PM_FIFO + 1;
	seal_inode(plain);
	pool_open(&pool, PM_CLWB);
	cr_assert_eq(pm_getattr(pool.st, plain, &a), -EIO);
	cr_assert_eq(pm_map_write(pool.st, sparse, 1 << 24, PM_BLOCK, &m, NULL), -ENOSPC);
	pool_kill(&pool);
	is_repaired(&d);
}

/* A client may write what looks like a leaf of somebody's directory. */
Test(damage, a_leaf_in_a_file_is_none)
{
	struct damage d = { .what = "root of a directory, a file holds a leaf of it" };
	uint64_t blk = inode(plain.ino)->u.ext[0].pblk;
	struct pm_bnode *forged = node(blk);
	struct pm_dent *e;

	memcpy(forged, leaf_of(crowd), PM_BLOCK);
	e = (void *)ent(forged, 0)->val;
	e->name[0] ^= 1;
	forged->self = blk;
	seal_node(forged);
	for (unsigned i = 0; i < nthings; i++)
		if (thing[i].id.ino == plain.ino)
			thing[i].blocks = 0; /* what it holds now is as it should be */
	root_of(crowd)->dead++;
	is_repaired(&d);
	cr_assert(strstr(said, "found again in its leaves"), "%s", said);
	cr_assert(!strstr(said, "lost+found"), "%s", said);
}

/* --- repair itself --- */

static void die_at(void *arg, const char *where, const char *what)
{
	unsigned *left = arg;

	(void)where;
	(void)what;
	if (!--*left)
		_exit(7);
}

Test(damage, a_repair_that_is_killed_can_be_run_again)
{
	uint8_t *broken = malloc(SIZE);
	unsigned cut = 1;
	int status;

	root_of(crowd)->dead++;
	root_of(sparse)->dead++;
	leaf_of(dir)->dead++;
	inode(plain.ino)->mode ^= 1;
	memcpy(broken, map, SIZE);
	do {
		struct damage d = { .victim = plain.ino };
		pid_t pid;

		memcpy(map, broken, SIZE);
		pid = fork();
		if (pid == 0) {
			const struct pm_repair_calls calls = { .fixed = die_at };
			struct pm_repair_report rep;
			struct pm_error why;

			_exit(pm_repair(pool.path, &calls, &(unsigned){ cut }, &rep, &why) ? 1 : 0);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 1, "status %x", status);
		snprintf(d.what, sizeof(d.what), "killed before change %u", cut);
		is_repaired(&d);
		cut += cut < 20 ? 1 : 23;
	} while (WEXITSTATUS(status) == 7);
	cr_assert_gt(cut, 10);
	free(broken);
}

Test(damage, a_sound_pool_is_not_written_to)
{
	const struct pm_repair_calls calls = { .fixed = note };
	struct pm_repair_report rep;
	struct pm_error why;

	cr_assert_eq(pm_repair(pool.path, &calls, NULL, &rep, &why), 0);
	cr_assert_eq(rep.found + rep.repaired + rep.left, 0);
	cr_assert_eq(memcmp(map, pristine, SIZE), 0);
}

/* The newest superblock tells that unstable data may be lost, and of the boot; without it the
 * journal has to. */
Test(damage, a_stale_superblock_is_not_believed)
{
	struct pm_error why;
	uint8_t before[8], after[8];
	struct pm_super *s;

	pool_open(&pool, PM_CLWB);
	pm_write_verf(pool.st, before);
	fill(plain, 3, 3);
	pool_kill(&pool);
	s = (void *)(uintptr_t)newest();
	s->crc ^= 1;
	cr_assert_eq(pool_try_open(&pool, PM_CLWB, &why), 0, "%s", why.text);
	for (unsigned i = 0; i < nthings; i++)
		cr_assert_eq(content(pool.st, &thing[i]), 0, "%s", thing[i].name);
	pm_write_verf(pool.st, after);
	cr_assert_neq(memcmp(before, after, 8), 0);
	pool_close(&pool);
	is_repaired(&(struct damage){ .what = "stale superblock" });
}
