/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_cost.c - what an operation costs in fences and journal, counted
 *
 * The pool is copied before an operation and compared with itself afterwards. What differs is the
 * change: words of 8 bytes in inodes and tree nodes that were there before. A structure is one
 * inode or one node. At most two drains, and a record of at most the words that changed and 64
 * bytes for each structure. A node that was packed has changed as a whole. Blocks that the
 * operation took are stored past the record; a checkpoint, once in megabytes of journal, is not the
 * operation's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define SIZE  (16ull << 20)
#define FILES 3000u

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };

struct meter {
	struct test_pool pool;
	struct pm_id dir, other, id[FILES];
	uint8_t *before, *was_used;
	struct pm_stats from;
	uint64_t records; /* seen, all operations together */
};

static void setup(struct meter *m)
{
	*m = (struct meter){ .records = 0 };
	pool_new(&m->pool, "cost", SIZE, PM_CLWB);
	m->before = malloc(SIZE);
	m->was_used = malloc(SIZE / PM_BLOCK);
	cr_assert(m->before && m->was_used);
}

static void start(struct meter *m)
{
	struct pm_store *st = m->pool.st;

	memcpy(m->before, st->media.base, SIZE);
	for (uint64_t b = 0; b < SIZE / PM_BLOCK; b++)
		m->was_used[b] = blk_marked(st, b);
	pm_get_stats(st, &m->from);
}

/* Entries moved together to make room: whatever else a node loses, dead bytes only grow. */
static bool was_packed(const struct meter *m, uint64_t at)
{
	const struct pm_bnode *old = (const void *)(m->before + at);
	const struct pm_bnode *now = (const void *)(m->pool.st->media.base + at);

	return old->magic == PM_NODE_MAGIC && now->magic == PM_NODE_MAGIC && now->dead < old->dead;
}

/* Words that changed in [at, at + len), counted as one structure if there are any. */
static void compare(const struct meter *m, uint64_t at, uint64_t len, uint64_t *bytes,
                    uint64_t *structures)
{
	uint64_t words = 0;

	for (uint64_t i = at; i < at + len; i += 8)
		words += !!memcmp(m->before + i, m->pool.st->media.base + i, 8);
	*bytes += len == PM_BLOCK && was_packed(m, at) ? len : words * 8;
	*structures += !!words;
}

static bool holds_inodes(struct pm_store *st, uint64_t blk)
{
	for (uint64_t i = 0; i < ino_count(st); i += PM_CHUNK_INODES) {
		uint64_t at =
			(uint64_t)((const uint8_t *)ino_at(st, i) - st->media.base) / PM_BLOCK;

		if (blk >= at && blk < at + PM_CHUNK_BLOCKS)
			return true;
	}
	return false;
}

static void done(struct meter *m, const char *what)
{
	struct pm_store *st = m->pool.st;
	uint64_t bytes = 0, structures = 0, journal;
	struct pm_stats to;

	pm_get_stats(st, &to);
	if (to.checkpoints != m->from.checkpoints)
		return;
	for (uint64_t b = st->super.data_start; b < SIZE / PM_BLOCK; b++) {
		uint64_t part = holds_inodes(st, b) ? PM_INODE_SIZE : PM_BLOCK;

		if (!m->was_used[b] ||
		    !memcmp(m->before + b * PM_BLOCK, st->media.base + b * PM_BLOCK, PM_BLOCK))
			continue;
		for (uint64_t at = 0; at < PM_BLOCK; at += part)
			compare(m, b * PM_BLOCK + at, part, &bytes, &structures);
	}
	journal = to.journal_bytes - m->from.journal_bytes;
	cr_assert_leq(to.drains - m->from.drains, 2, "%s: %llu drains", what,
	              (unsigned long long)(to.drains - m->from.drains));
	cr_assert_eq(to.transactions - m->from.transactions, 1, "%s", what);
	cr_assert_leq(journal, bytes + 64 * structures,
	              "%s: %llu bytes of journal for %llu that changed in %llu structures", what,
	              (unsigned long long)journal, (unsigned long long)bytes,
	              (unsigned long long)structures);
	m->records++;
}

static size_t name_of(char buf[32], const char *word, unsigned i)
{
	return (size_t)snprintf(buf, 32, "%s-%u", word, i);
}

static struct pm_id create(struct meter *m, struct pm_id dir, const char *word, unsigned i,
                           enum pm_type type)
{
	struct pm_new nw = { .type = type, .mode = 0755, .uid = 7, .gid = 8 };
	struct pm_change ch;
	char name[32];

	cr_assert_eq(pm_create(m->pool.st, dir, name, name_of(name, word, i), &nw, &ch), 0);
	return ch.obj.id;
}

static void rename_to(struct meter *m, unsigned i, struct pm_id to, const char *word)
{
	struct pm_change ch;
	char from[32], name[32];
	size_t len = name_of(from, "file", i);

	cr_assert_eq(
		pm_rename(m->pool.st, m->dir, from, len, to, name, name_of(name, word, i), &ch), 0);
}

static void write_block(struct meter *m, struct pm_id id, uint64_t off)
{
	struct pm_wait w = { .done = NULL };
	struct pm_committed out;
	struct pm_map map;

	cr_assert_eq(pm_map_write(m->pool.st, id, off, PM_BLOCK, &map, &w), 0);
	cr_assert_eq(pm_commit(&map, PM_BLOCK, PM_FILE_SYNC, false, &out, &w), 0);
	pm_unpin(&map);
}

static void finish(struct meter *m, uint64_t at_least)
{
	cr_assert_geq(m->records, at_least);
	pool_drop(&m->pool);
	free(m->before);
	free(m->was_used);
}

static void fill(struct meter *m)
{
	m->dir = create(m, ROOT, "dir", 1, PM_DIR);
	m->other = create(m, ROOT, "dir", 2, PM_DIR);
	for (unsigned i = 0; i < FILES; i++)
		m->id[i] = create(m, m->dir, "file", i, PM_REG);
}

Test(cost, names)
{
	static struct meter m;
	struct pm_change ch;
	char name[32];

	setup(&m);
	fill(&m);
	for (unsigned i = 0; i < 60; i++) {
		start(&m);
		create(&m, m.dir, "new", i, i % 3 ? PM_REG : PM_DIR);
		done(&m, "create");
		start(&m);
		rename_to(&m, i, m.dir, "moved");
		done(&m, "rename");
		start(&m);
		rename_to(&m, i + 100, m.other, "file");
		done(&m, "rename to another directory");
		start(&m);
		cr_assert_eq(
			pm_link(m.pool.st, m.id[i], m.other, name, name_of(name, "link", i), &ch),
			0);
		done(&m, "link");
		start(&m);
		cr_assert_eq(pm_remove(m.pool.st, m.dir, name, name_of(name, "file", i + 200), &ch),
		             0);
		done(&m, "remove");
	}
	finish(&m, 290);
}

Test(cost, attributes)
{
	static struct meter m;
	struct pm_setattr sa = { .set = PM_SET_MODE | PM_SET_UID, .mode = 0600, .uid = 5 };
	struct pm_change ch;
	struct pm_id id;

	setup(&m);
	id = create(&m, ROOT, "file", 1, PM_REG);
	start(&m);
	cr_assert_eq(pm_setattr(m.pool.st, id, &sa, &ch), 0);
	done(&m, "setattr");
	finish(&m, 1);
}

/* New blocks, blocks that are there, a truncate; with extents in the inode and in a tree. */
Test(cost, writes)
{
	static struct meter m;
	struct pm_setattr sa = { .set = PM_SET_SIZE };
	struct pm_change ch;
	struct pm_id id;

	setup(&m);
	id = create(&m, ROOT, "file", 1, PM_REG);
	for (unsigned i = 0; i < 300; i++) {
		start(&m);
		write_block(&m, id, (uint64_t)i * 2 * PM_BLOCK); /* each an extent of its own */
		if (i != PM_INLINE_EXTENTS)
			done(&m, "write of a new block");
	}
	for (unsigned i = 0; i < 50; i++) {
		start(&m);
		write_block(&m, id, (uint64_t)i * 6 * PM_BLOCK);
		done(&m, "overwrite");
	}
	sa.size = 596ull *
	          PM_BLOCK; /* two extents; what a long cut moves together is not one change */
	start(&m);
	cr_assert_eq(pm_setattr(m.pool.st, id, &sa, &ch), 0);
	done(&m, "truncate");
	finish(&m, 349);
}

/* A pool with checksums of data: journal beyond the words that changed names the data that came with a record; drains
 * are two at most all the same. Random ranges: old blocks, holes, extents that split, nodes that do. */
Test(cost, writes_with_checksums)
{
	struct pm_mkfs_opts o = { .size = SIZE, .root_mode = 0755, .data_checksum = true };
	struct test_pool pool;
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_wait w = { .done = NULL };
	unsigned once = 0, twice = 0, trees = 0;
	struct pm_error why;
	struct pm_change ch;

	pool_path(&pool, "cost-sums");
	cr_assert_eq(pm_mkfs(pool.path, &o, &why), 0, "%s", why.text);
	pool_open(&pool, PM_CLWB);
	srandom(1);
	cr_assert_eq(pm_create(pool.st, ROOT, "file", 4, &nw, &ch), 0);
	for (unsigned i = 0; i < 3000; i++) {
		uint64_t off = (uint64_t)random() % 1000 * 2 * PM_BLOCK + (random() % 3 ? 0 : 100), n;
		uint32_t len = random() % 4 ? 1 + (uint32_t)random() % PM_BLOCK
		                            : (uint32_t)random() % (12 * PM_BLOCK);
		struct pm_committed out;
		struct pm_stats a, b;
		struct pm_map map;

		pm_get_stats(pool.st, &a);
		cr_assert_eq(pm_map_write(pool.st, ch.obj.id, off, len, &map, &w), 0);
		cr_assert_eq(pm_commit(&map, len, PM_FILE_SYNC, false, &out, &w), 0);
		pm_unpin(&map);
		pm_get_stats(pool.st, &b);
		n = b.drains - a.drains - 2 * (b.checkpoints - a.checkpoints);
		cr_assert_leq(n, 2, "write %u of %u bytes at %llu: %llu drains", i, len, (unsigned long long)off,
		              (unsigned long long)n);
		once += n == 1;
		twice += n == 2;
		trees += out.attr.used / PM_BLOCK > 20;
	}
	cr_assert(once > 100 && twice > 100 && trees > 1000);
	pool_close(&pool);
	pool_drop(&pool);
}

/* The checkpoint that a full lane asks for: two drains more, for one operation in many. */
Test(cost, checkpoints)
{
	static struct meter m;
	uint64_t most = 0, n = 0;

	setup(&m);
	fill(&m);
	for (unsigned i = 0; i < 4000; i++) {
		struct pm_stats a, b;

		pm_get_stats(m.pool.st, &a);
		write_block(&m, m.id[i % 8], 0);
		pm_get_stats(m.pool.st, &b);
		most = b.drains - a.drains > most ? b.drains - a.drains : most;
		n += b.checkpoints - a.checkpoints;
	}
	cr_assert_leq(most, 4);
	cr_assert(n > 0 && n < 10, "%llu checkpoints", (unsigned long long)n);
	finish(&m, 0);
}
