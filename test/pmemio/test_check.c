/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Damage in each kind of structure is found and named
 *
 * A pool with something of everything is closed clean, changed through a plain mapping, and
 * checked. Changes that are meant to pass the checksums get good ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <criterion/criterion.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define SIZE (32u << 20)

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };

static struct test_pool pool;
static uint8_t *map;
static struct pm_id dir, sub, file, sparse, orphan, lnk;
static char found[16384]; /* "where: what\n" ... */

/* --- what the damage is done to --- */

static struct pm_id make(struct pm_id d, const char *name, enum pm_type type)
{
	static char target[300];
	struct pm_new nw = {
		.type = type, .mode = 0755, .target = memset(target, 't', 300), .target_len = 300
	};
	struct pm_change ch;

	cr_assert_eq(pm_create(pool.st, d, name, strlen(name), &nw, &ch), 0);
	return ch.obj.id;
}

static void allocate(struct pm_id id, unsigned pieces)
{
	struct pm_change ch;

	for (unsigned i = 0; i < pieces; i++)
		cr_assert_eq(pm_allocate(pool.st, id, (uint64_t)i * 3 * PM_BLOCK, PM_BLOCK, &ch),
		             0);
}

static const struct pm_super *super(void)
{
	const struct pm_super *s = (void *)map, *t = (void *)(map + PM_BLOCK);

	return t->seq > s->seq ? t : s;
}

static struct pm_inode *inode(uint64_t ino)
{
	cr_assert_lt(ino, PM_CHUNK_INODES);
	return (void *)(map + super()->data_start * PM_BLOCK + ino * PM_INODE_SIZE);
}

static struct pm_bnode *node(uint64_t blk)
{
	return (void *)(map + blk * PM_BLOCK);
}

static struct pm_bent *ent(struct pm_bnode *n, unsigned i)
{
	return (void *)((uint8_t *)n + n->slot[i]);
}

static void seal_inode(struct pm_inode *in)
{
	in->crc = pm_crc(in, sizeof(*in), 0);
}

static void seal_node(struct pm_bnode *n)
{
	n->crc = pm_crc(n, PM_BLOCK, 0);
}

static struct pm_bnode *root_of(struct pm_id id)
{
	cr_assert(inode(id.ino)->flags & PM_IF_TREE);
	return node(inode(id.ino)->u.tree.root);
}

/* The entry of @d that leads to @to. */
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

static void setup(void)
{
	int fd;

	pool_new(&pool, "check", SIZE, PM_CLWB);
	dir = make(ROOT, "dir", PM_DIR);
	sub = make(dir, "sub", PM_DIR);
	file = make(dir, "file", PM_REG);
	sparse = make(dir, "sparse", PM_REG);
	orphan = make(sub, "left", PM_REG);
	lnk = make(ROOT, "link", PM_LNK);
	make(ROOT, "fifo", PM_FIFO);
	allocate(file, 3);
	allocate(sparse, 300);
	pool_close(&pool);
	fd = open(pool.path, O_RDWR);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(map, MAP_FAILED);
	close(fd);
}

static void teardown(void)
{
	munmap(map, SIZE);
	pool_drop(&pool);
}

static void note(void *arg, const char *where, const char *what)
{
	size_t n = strlen(found);

	(void)arg;
	snprintf(found + n, sizeof(found) - n, "%s: %s\n", where, what);
}

static struct pm_check_report check(void)
{
	struct pm_check_report rep;
	struct pm_error why;

	found[0] = 0;
	cr_assert_eq(pm_check(pool.path, note, NULL, NULL, &rep, &why), 0, "%s", why.text);
	cr_assert_eq(rep.problems == 0, found[0] == 0);
	return rep;
}

/* Damage is found, and a line says @where and @what. */
static void expect(const char *where, const char *what)
{
	struct pm_check_report rep = check();
	char *save, *line;

	cr_assert_gt(rep.problems, 0, "nothing found, but expected '%s: %s'", where, what);
	fprintf(stderr, "%s", getenv("BERTH_TEST_LOG") ? found : "");
	for (line = strtok_r(found, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, where, strlen(where)) && strstr(line, what))
			return;
	cr_assert_fail("no line says '%s ... %s'", where, what);
}

static const char *at(const char *fmt, uint64_t a, uint64_t b)
{
	static char text[128];

	snprintf(text, sizeof(text), fmt, (unsigned long long)a, (unsigned long long)b);
	return text;
}

TestSuite(check, .init = setup, .fini = teardown);

/* --- a sound pool --- */

static void progressed(void *arg, unsigned permille)
{
	unsigned *last = arg;

	cr_assert_geq(permille, *last);
	*last = permille;
}

Test(check, a_sound_pool_is_counted_right)
{
	struct pm_check_report rep = check();
	struct pm_error why;
	unsigned last = 0;

	cr_assert_eq(rep.problems, 0, "%s", found);
	cr_assert_eq(rep.files, 3);
	cr_assert_eq(rep.dirs, 3);
	cr_assert_eq(rep.others, 2);
	cr_assert_eq(rep.blocks_total, SIZE / PM_BLOCK);
	cr_assert_geq(rep.extents, 300);
	cr_assert_gt(rep.blocks_used, 300 + super()->data_start);
	cr_assert_eq(pm_check(pool.path, NULL, progressed, &last, &rep, &why), 0);
	cr_assert_eq(last, 1000);
}

Test(check, checking_changes_no_byte)
{
	uint8_t *copy = malloc(SIZE);

	memcpy(copy, map, SIZE);
	check();
	cr_assert_eq(memcmp(copy, map, SIZE), 0);
	free(copy);
}

Test(check, an_open_pool_is_busy)
{
	struct pm_check_report rep;
	struct pm_error why = { "" };

	pool_open(&pool, PM_CLWB);
	cr_assert_eq(pm_check(pool.path, note, NULL, NULL, &rep, &why), -EBUSY);
	cr_assert_neq(why.text[0], 0);
	pool_close(&pool);
}

/* --- superblocks, journal, stored free space --- */

Test(check, a_damaged_superblock_is_named)
{
	unsigned other = super() == (void *)map ? 1 : 0;

	map[other * PM_BLOCK] ^= 1;
	expect(other ? "superblock 1" : "superblock 0", "damaged");
}

Test(check, a_half_written_superblock_is_what_a_crash_may_leave)
{
	struct pm_super *s = (void *)(super() == (void *)map ? map + PM_BLOCK : map);

	s->boot ^= 1;
	cr_assert_eq(check().problems, 0, "%s", found);
}

Test(check, two_damaged_superblocks_cannot_be_walked)
{
	struct pm_check_report rep;
	struct pm_error why = { "" };

	map[32] ^= 1;
	map[PM_BLOCK + 32] ^= 1;
	cr_assert_lt(pm_check(pool.path, note, NULL, NULL, &rep, &why), 0);
	cr_assert(strstr(why.text, "superblock"), "%s", why.text);
}

Test(check, damaged_stored_free_space_is_named)
{
	map[super()->saved_start * PM_BLOCK + 64] ^= 1;
	expect("stored free space", "checksum");
}

Test(check, stored_free_space_that_is_wrong_is_named)
{
	struct pm_inode *in = inode(file.ino); /* takes a block that the saved bitmap has as free */

	in->u.ext[2].pblk = SIZE / PM_BLOCK - 3;
	seal_inode(in);
	expect("free space", "counted as free");
	expect("free space", "counted as in use");
}

/* --- inodes --- */

Test(check, a_damaged_inode_is_named)
{
	inode(file.ino)->uid ^= 1;
	expect(at("inode %llu", file.ino, 0), "checksum");
}

Test(check, a_damaged_free_inode_is_named)
{
	((uint8_t *)inode(200))[100] = 1;
	expect("inode 200", "checksum");
}

Test(check, an_impossible_type_is_named)
{
	inode(file.ino)->type = 9;
	seal_inode(inode(file.ino));
	expect(at("inode %llu", file.ino, 0), "type");
}

Test(check, wrong_link_counts_are_named)
{
	inode(file.ino)->nlink = 2;
	seal_inode(inode(file.ino));
	expect(at("inode %llu", file.ino, 0), "link count 2, but 1 names");
	inode(dir.ino)->nlink = 2;
	seal_inode(inode(dir.ino));
	expect(at("directory %llu", dir.ino, 0), "1 subdirectories");
}

Test(check, a_wrong_count_of_blocks_is_named)
{
	inode(file.ino)->blocks++;
	seal_inode(inode(file.ino));
	expect(at("inode %llu", file.ino, 0), "owns 3");
}

Test(check, an_inode_without_a_name_is_named)
{
	struct pm_inode *in = inode(210);

	*in = (struct pm_inode){ .type = PM_FIFO, .ino = 210, .gen = 1, .nlink = 1 };
	seal_inode(in);
	expect("inode 210", "no name leads to it");
	in->nlink = 0;
	seal_inode(in);
	expect("inode 210", "orphan");
}

/* --- extents --- */

Test(check, extents_outside_the_pool_are_named)
{
	inode(file.ino)->u.ext[1].pblk = SIZE / PM_BLOCK;
	seal_inode(inode(file.ino));
	expect(at("inode %llu", file.ino, 0), "outside the data area");
}

Test(check, blocks_with_two_owners_are_named)
{
	inode(file.ino)->u.ext[1].pblk = inode(lnk.ino)->u.ext[0].pblk;
	seal_inode(inode(file.ino));
	expect("inode", "shares 1 blocks");
}

Test(check, overlapping_extents_are_named)
{
	inode(file.ino)->u.ext[1].lblk = 0;
	seal_inode(inode(file.ino));
	expect(at("inode %llu", file.ino, 0), "overlap");
}

Test(check, unknown_extent_flags_are_named)
{
	inode(file.ino)->u.ext[1].flags = 4;
	seal_inode(inode(file.ino));
	expect(at("inode %llu", file.ino, 0), "impossible extent at file block 3");
}

/* --- trees --- */

Test(check, a_damaged_root_node_is_named)
{
	uint64_t blk = inode(sparse.ino)->u.tree.root;

	node(blk)->dead++;
	expect(at("inode %llu node 0x%llx", sparse.ino, blk), "checksum");
}

Test(check, a_damaged_leaf_is_named)
{
	uint64_t leaf;

	memcpy(&leaf, ent(root_of(sparse), 1)->val, 8);
	((uint8_t *)node(leaf))[PM_BLOCK - 1] ^= 0x10;
	expect(at("inode %llu leaf 0x%llx", sparse.ino, leaf), "checksum");
}

Test(check, a_misplaced_node_is_named)
{
	uint64_t a, b;

	memcpy(&a, ent(root_of(sparse), 0)->val, 8);
	memcpy(&b, ent(root_of(sparse), 1)->val, 8);
	memcpy(node(b), node(a), PM_BLOCK);
	expect(at("inode %llu leaf 0x%llx", sparse.ino, b), "copy of another block");
	node(b)->self = b;
	seal_node(node(b));
	expect(at("inode %llu leaf 0x%llx", sparse.ino, b), "belong elsewhere");
	node(b)->owner = 77;
	seal_node(node(b));
	expect(at("inode %llu leaf 0x%llx", sparse.ino, b), "another inode");
}

Test(check, keys_out_of_order_are_named)
{
	struct pm_bnode *n = root_of(dir);
	uint16_t s = n->slot[0];

	n->slot[0] = n->slot[1];
	n->slot[1] = s;
	seal_node(n);
	expect(at("directory %llu leaf", dir.ino, 0), "out of order");
}

Test(check, slots_outside_the_node_are_named)
{
	struct pm_bnode *n = root_of(dir);

	n->slot[0] = 8;
	seal_node(n);
	expect(at("directory %llu leaf", dir.ino, 0), "slot");
}

Test(check, a_wrong_count_of_entries_is_named)
{
	inode(dir.ino)->u.tree.count++;
	inode(dir.ino)->size++;
	seal_inode(inode(dir.ino));
	expect(at("directory %llu", dir.ino, 0), "says its tree has 4 entries");
	expect(at("directory %llu", dir.ino, 0), "says it has 4 entries");
}

/* --- names --- */

Test(check, an_entry_under_the_wrong_cookie_is_named)
{
	dent_of(dir, file)->name[0] = 'g';
	seal_node(root_of(dir));
	expect(at("directory %llu leaf", dir.ino, 0), "'gile' stands under the wrong cookie");
}

Test(check, an_impossible_name_is_named)
{
	dent_of(dir, file)->name[0] = '/';
	seal_node(root_of(dir));
	expect(at("directory %llu leaf", dir.ino, 0), "impossible name");
}

Test(check, an_entry_that_leads_nowhere_is_named)
{
	dent_of(dir, file)->ino = 222;
	seal_node(root_of(dir));
	expect(at("directory %llu leaf", dir.ino, 0), "free or damaged");
	expect(at("inode %llu", file.ino, 0), "no name");
	dent_of(dir, (struct pm_id){ 222, 0 })->ino = 1ull << 40;
	seal_node(root_of(dir));
	expect(at("directory %llu leaf", dir.ino, 0), "no name may have");
}

Test(check, an_entry_of_the_wrong_generation_or_type_is_named)
{
	dent_of(dir, file)->gen++;
	seal_node(root_of(dir));
	expect(at("directory %llu leaf", dir.ino, 0), "generation or type");
	dent_of(dir, file)->gen--;
	dent_of(dir, file)->type = PM_FIFO;
	seal_node(root_of(dir));
	expect(at("directory %llu leaf", dir.ino, 0), "generation or type");
}

Test(check, a_wrong_parent_is_named)
{
	inode(sub.ino)->parent = 1;
	seal_inode(inode(sub.ino));
	expect(at("directory %llu", sub.ino, 0), "says its parent is 1");
}

Test(check, a_loop_of_directories_is_named)
{
	struct pm_dent *top = dent_of(ROOT, dir), *low = dent_of(sub, orphan);

	/* the root loses dir; sub, below it, names dir instead of its file */
	top->ino = orphan.ino;
	top->gen = orphan.gen;
	top->type = PM_REG;
	low->ino = dir.ino;
	low->gen = dir.gen;
	low->type = PM_DIR;
	inode(1)->nlink--;
	inode(sub.ino)->nlink++;
	inode(dir.ino)->parent = sub.ino;
	seal_node(root_of(ROOT));
	seal_node(root_of(sub));
	seal_inode(inode(1));
	seal_inode(inode(sub.ino));
	seal_inode(inode(dir.ino));
	expect("directory", "inside itself");
	cr_assert_eq(check().problems, 1, "%s", found);
}

/* --- any byte --- */

Test(check, every_flipped_bit_of_live_metadata_is_found)
{
	const struct pm_id live[] = { ROOT, dir, sub, file, sparse, orphan, lnk };
	unsigned rnd = 12345;

	for (unsigned i = 0; i < 150; i++) {
		uint64_t leaf = 0;
		uint8_t *p;

		rnd = rnd * 1103515245 + 12345;
		memcpy(&leaf, ent(root_of(sparse), 1)->val, 8);
		if (i % 3 == 0)
			p = (uint8_t *)inode(live[rnd >> 8 & 3].ino) + (rnd >> 16) % PM_INODE_SIZE;
		else
			p = (uint8_t *)(i % 3 == 1 ? root_of(dir) : node(leaf)) +
			    (rnd >> 16) % PM_BLOCK;
		*p ^= (uint8_t)(1 << i % 8);
		cr_assert_gt(check().problems, 0, "round %u", i);
		*p ^= (uint8_t)(1 << i % 8);
	}
	cr_assert_eq(check().problems, 0, "%s", found);
}

Test(check, nonsense_under_good_checksums_never_breaks_check)
{
	const struct pm_id live[] = { ROOT, dir, sub, file, sparse, orphan, lnk };
	unsigned rnd = 54321;
	uint8_t *copy = malloc(SIZE);

	memcpy(copy, map, SIZE);
	for (unsigned i = 0; i < 150; i++) {
		struct pm_bnode *n = root_of(i % 2 ? dir : sparse);

		for (unsigned k = 0; k < 4; k++) {
			rnd = rnd * 1103515245 + 12345;
			if (i % 3 == 0)
				((uint8_t *)n)[32 + (rnd >> 16) % (PM_BLOCK - 32)] ^= 0x41;
			else if (i % 3 == 1)
				((uint8_t *)n)[32 + (rnd >> 16) % 64] ^= (uint8_t)(rnd >> 10);
			else
				((uint8_t *)inode(live[i / 3 % 7].ino))[32 + (rnd >> 16) % 224] ^=
					(uint8_t)(rnd >> 10);
		}
		seal_node(n);
		for (unsigned k = 0; k < 7; k++)
			seal_inode(inode(live[k].ino));
		check();
		memcpy(map + super()->data_start * PM_BLOCK, copy + super()->data_start * PM_BLOCK,
		       SIZE - super()->data_start * PM_BLOCK);
	}
	free(copy);
}
