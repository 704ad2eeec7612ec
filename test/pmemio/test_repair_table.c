/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inode table found again by what stands in its chunks, where inode 0 or its tree is damaged
 *
 * Everything comes back, whatever else in the pool looks like a chunk; or, where two places have an equal right to be
 * one, repair says which and changes nothing of them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <criterion/criterion.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"
#include "test/lib/wreck.h"

#define TEXT (1u << 16)

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };

static struct wreck wreck;
static struct medium *d;
static char whole[TEXT], now[TEXT], said[1 << 16];
static uint64_t chunk[64], nchunks, room; /* blocks; room: so many free ones for a chunk */
static uint64_t created;

/* --- the pool -------------------------------------------------------------------------------- */

static void look(char *text)
{
	struct pm_error why;
	struct pm_store *st = medium_open_ro(d, &why);

	cr_assert(st, "%s", why.text);
	wreck_holds(st, text, TEXT);
	nchunks = ino_count(st) / PM_CHUNK_INODES;
	for (uint64_t c = 0; c < nchunks; c++)
		chunk[c] = table_chunk(st, c);
	for (room = st->super.blocks - 40;
	     blk_next_marked(st, room, PM_CHUNK_BLOCKS) < room + PM_CHUNK_BLOCKS; room--)
		;
	created = st->super.created;
	store_drop(st);
}

/* The pool as it is on @d now, without a store. */
static void begin(void)
{
	look(whole);
	cr_assert_gt(nchunks, PM_INLINE_EXTENTS);
}

static void setup(void)
{
	wreck_make(&wreck, 9, false, true);
	d = medium_new(wreck.image, wreck.len, PM_CLWB, false);
	begin();
}

static void teardown(void)
{
	medium_free(d);
	wreck_free(&wreck);
}

TestSuite(repair_table, .init = setup, .fini = teardown, .timeout = 120);

static void *blk(uint64_t b)
{
	return d->m.base + b * PM_BLOCK;
}

static struct pm_inode *slots(uint64_t start)
{
	return blk(start);
}

static void seal(struct pm_inode *in)
{
	in->crc = pm_crc(in, sizeof(*in), 0);
}

static void forget_table(void)
{
	memset(slots(chunk[0]), 0, PM_INODE_SIZE);
}

static void copy_chunk(uint64_t to, uint64_t c)
{
	memcpy(blk(to), blk(chunk[c]), PM_CHUNK_BLOCKS * PM_BLOCK);
}

/* --- repairing ------------------------------------------------------------------------------- */

static void note(void *arg, const char *where, const char *what)
{
	size_t n = strlen(said);

	(void)arg;
	snprintf(said + n, sizeof(said) - n, "%s: %s\n", where, what);
}

static int repair(struct pm_repair_report *rep, struct pm_error *why)
{
	const struct pm_repair_calls calls = { .fixed = note, .left = note };

	said[0] = '\0';
	return medium_repair(d, &calls, NULL, rep, why);
}

static void all_comes_back(void)
{
	struct pm_repair_report rep;
	uint64_t was[64];
	struct pm_error why;

	memcpy(was, chunk, sizeof(was));
	cr_assert_eq(repair(&rep, &why), 0, "%s", why.text);
	cr_assert_gt(rep.found, 0);
	cr_assert_eq(rep.left, 0, "%s", said);
	look(now);
	cr_assert_eq(memcmp(was, chunk, sizeof(was)), 0, "other chunks: %s", said);
	cr_assert_str_eq(now, whole, "%s", said);
}

/* It says @what, and none of the chunks was touched. */
static void is_beyond(const char *what)
{
	uint8_t *before = malloc(nchunks * PM_CHUNK_BLOCKS * PM_BLOCK);
	struct pm_repair_report rep;
	struct pm_error why;

	for (uint64_t c = 0; c < nchunks; c++)
		memcpy(before + c * PM_CHUNK_BLOCKS * PM_BLOCK, blk(chunk[c]),
		       PM_CHUNK_BLOCKS * PM_BLOCK);
	cr_assert_eq(repair(&rep, &why), -EUCLEAN, "%s", said);
	cr_assert(strstr(why.text, what) && strstr(why.text, "restore"), "'%s' instead of '%s'",
	          why.text, what);
	for (uint64_t c = 0; c < nchunks; c++)
		cr_assert_eq(memcmp(before + c * PM_CHUNK_BLOCKS * PM_BLOCK, blk(chunk[c]),
		                    PM_CHUNK_BLOCKS * PM_BLOCK),
		             0);
	free(before);
}

/* --- what is damaged ------------------------------------------------------------------------- */

Test(repair_table, without_inode_0)
{
	forget_table();
	all_comes_back();
}

Test(repair_table, with_a_root_that_leads_elsewhere)
{
	struct pm_inode *in0 = slots(chunk[0]);

	in0->u.tree.root = chunk[3]; /* under a good checksum */
	seal(in0);
	all_comes_back();
}

/* Chunk @c is damaged too, in less than half of its slots: those inodes are made anew. */
Test(repair_table, with_slots_damaged_as_well)
{
	struct pm_repair_report rep;
	struct pm_error why;

	for (unsigned i = 0; i < 100; i++)
		slots(chunk[5])[i].rdev_major ^= 1;
	forget_table();
	cr_assert_eq(repair(&rep, &why), 0, "%s", why.text);
	cr_assert_eq(rep.left, 0, "%s", said);
	look(now);
	cr_assert_eq(nchunks, 10);
}

Test(repair_table, without_one_of_its_chunks)
{
	memset(blk(chunk[4]), 0x5a, PM_CHUNK_BLOCKS * PM_BLOCK);
	forget_table();
	is_beyond("inode chunk 4 is nowhere to be found");
}

Test(repair_table, without_its_last_chunk_which_names_lead_to)
{
	memset(blk(chunk[nchunks - 1]), 0, PM_CHUNK_BLOCKS * PM_BLOCK);
	forget_table();
	is_beyond("inode chunk 9 is nowhere to be found");
}

Test(repair_table, without_its_first_chunk)
{
	memset(blk(chunk[0]), 0x5a, PM_CHUNK_BLOCKS * PM_BLOCK);
	is_beyond("its first chunk is");
}

/* --- what only looks like it ----------------------------------------------------------------- */

/* A file whose blocks hold the chunk; made before everything else is looked at. */
static void file_of_chunk(const char *name, uint64_t c, uint64_t as)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644, .uid = 1001 };
	struct pm_committed done;
	struct pm_change ch;
	struct pm_error why;
	struct pm_map m;
	struct pm_store *st = medium_open(d, &why);
	uint8_t *copy = malloc(PM_CHUNK_BLOCKS * PM_BLOCK), *p = copy;
	struct pm_inode *in = (void *)copy;

	cr_assert(st, "%s", why.text);
	memcpy(copy, blk(chunk[c]), PM_CHUNK_BLOCKS * PM_BLOCK);
	for (unsigned i = 0; i < PM_CHUNK_INODES && as != c; i++) {
		in[i].ino = as * PM_CHUNK_INODES + i;
		seal(&in[i]);
	}
	cr_assert_eq(pm_create(st, ROOT, name, strlen(name), &nw, &ch), 0);
	cr_assert_eq(pm_map_write(st, ch.obj.id, 0, PM_CHUNK_BLOCKS * PM_BLOCK, &m, NULL), 0);
	for (unsigned i = 0; i < m.nseg; p += m.seg[i++].iov_len)
		medium_place(d, m.seg[i].iov_base, p, m.seg[i].iov_len);
	cr_assert_eq(m.nseg, 1, "the copy is in pieces");
	cr_assert_eq(pm_commit(&m, m.len, PM_FILE_SYNC, false, &done, NULL), 0);
	pm_unpin(&m);
	cr_assert_eq(pm_close(st), 0);
	free(copy);
	begin();
}

Test(repair_table, while_a_file_holds_a_copy_of_a_chunk)
{
	file_of_chunk("copy", 3, 3);
	forget_table();
	all_comes_back();
}

Test(repair_table, while_a_file_holds_what_would_be_the_next_chunk)
{
	file_of_chunk("forged", 3, nchunks);
	forget_table();
	all_comes_back();
}

/* An inode in @start has blocks of chunk 5. */
static void claim_a_chunk(uint64_t start)
{
	struct pm_inode *in = slots(start);

	while (in->type != PM_REG || !in->u.ext[0].len_lo)
		in++;
	cr_assert_lt(in - slots(start), PM_CHUNK_INODES);
	in->u.ext[0].pblk = (chunk[5] + 3) & ((1ull << 44) - 1);
	seal(in);
}

/* With a sound inode 0 there is no next chunk. */
Test(repair_table, while_free_blocks_hold_what_would_be_the_next_chunk)
{
	struct pm_inode *in0 = slots(chunk[0]);

	copy_chunk(room, 3);
	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		slots(room)[i].ino = nchunks * PM_CHUNK_INODES + i;
		seal(&slots(room)[i]);
	}
	claim_a_chunk(room);
	((struct pm_bnode *)blk(in0->u.tree.root))->dead++;
	all_comes_back();
}

Test(repair_table, unless_nothing_tells_whether_there_is_a_next_chunk)
{
	copy_chunk(room, 3);
	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		slots(room)[i].ino = nchunks * PM_CHUNK_INODES + i;
		seal(&slots(room)[i]);
	}
	forget_table();
	is_beyond("nothing tells whether inode chunk 10");
}

Test(repair_table, unless_a_copy_in_free_blocks_is_as_good)
{
	copy_chunk(room, 3);
	forget_table();
	is_beyond("both say they are inode chunk 3");
}

static bool live(const struct pm_inode *in)
{
	return in->type != 0;
}

/* A device had a pool before. */
Test(repair_table, while_free_blocks_hold_chunks_of_an_earlier_pool)
{
	copy_chunk(room, 3);
	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		struct pm_inode *in = &slots(room)[i];

		if (!live(in))
			continue;
		in->ctime.sec = (int64_t)created - 1000;
		seal(in);
	}
	forget_table();
	all_comes_back();
}

static struct pm_id make(struct pm_store *st, const char *name, enum pm_type type)
{
	struct pm_new nw = { .type = type, .mode = 0755 };
	struct pm_change ch;

	cr_assert_eq(pm_create(st, ROOT, name, strlen(name), &nw, &ch), 0);
	return ch.obj.id;
}

/* What names lead to chunk @c stand in a directory whose own inode is not in chunk 0. */
static void move_names_of(uint64_t c)
{
	struct pm_error why;
	struct pm_store *st = medium_open(d, &why);
	struct pm_attr many, a;
	struct pm_change ch;
	struct pm_id far;
	char name[16];

	cr_assert(st, "%s", why.text);
	cr_assert_eq(pm_lookup(st, ROOT, "many", 4, &many), 0);
	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		snprintf(name, sizeof(name), "fill%u", i);
		make(st, name, PM_REG);
	}
	far = make(st, "far", PM_DIR);
	cr_assert(far.ino / PM_CHUNK_INODES && far.ino / PM_CHUNK_INODES != c);
	for (unsigned i = 0; i < 2400; i += 100) {
		snprintf(name, sizeof(name), "m%u", i);
		cr_assert_eq(pm_lookup(st, many.id, name, strlen(name), &a), 0);
		if (a.id.ino / PM_CHUNK_INODES == c)
			cr_assert_eq(pm_rename(st, many.id, name, strlen(name), far, name,
			                       strlen(name), &ch),
			             0);
	}
	cr_assert_eq(pm_close(st), 0);
	begin();
}

Test(repair_table, while_free_blocks_hold_a_next_chunk_of_an_earlier_pool)
{
	move_names_of(5);
	copy_chunk(room, 3);
	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		struct pm_inode *in = &slots(room)[i];

		if (live(in))
			in->ctime.sec = (int64_t)created - 1000;
		in->ino = (nchunks + 1) * PM_CHUNK_INODES + i;
		seal(in);
	}
	claim_a_chunk(room);
	forget_table();
	all_comes_back();
}

/* As one of them was before: the names tell. */
Test(repair_table, while_free_blocks_hold_a_chunk_that_names_deny)
{
	unsigned changed = 0;

	copy_chunk(room, 3);
	for (unsigned i = 0; i < PM_CHUNK_INODES && !changed; i++) {
		struct pm_inode *in = &slots(room)[i];

		if (!live(in))
			continue;
		in->gen--;
		seal(in);
		changed++;
	}
	cr_assert_eq(changed, 1);
	forget_table();
	all_comes_back();
}

/* --- a table whose tree has leaves of its own -------------------------------------------------- */

#define SIZE  (64u << 20)
#define CROWD 33000u /* extents of more than 118 chunks */

static void fill_large(struct test_pool *p)
{
	struct pm_id dir;
	char name[32];

	for (unsigned i = 0; i < CROWD; i++) {
		struct pm_new nw = { .type = i % 1000 ? PM_REG : PM_DIR, .mode = 0755 };
		struct pm_committed done;
		struct pm_change ch;
		struct pm_map m;

		snprintf(name, sizeof(name), "f%u", i);
		cr_assert_eq(pm_create(p->st, i % 1000 ? dir : ROOT, name, strlen(name), &nw, &ch),
		             0);
		if (i % 1000 == 0)
			dir = ch.obj.id;
		if (i % 200 != 199)
			continue;
		cr_assert_eq(pm_map_write(p->st, ch.obj.id, 0, PM_BLOCK, &m, NULL), 0);
		memset(m.seg[0].iov_base, (int)i / 200, PM_BLOCK);
		cr_assert_eq(pm_commit(&m, PM_BLOCK, PM_FILE_SYNC, false, &done, NULL), 0);
		pm_unpin(&m);
	}
}

static void large_is_whole(struct test_pool *p)
{
	struct pm_attr dir = { .nlink = 0 }, a;
	char name[32];

	pool_open(p, PM_CLWB);
	for (unsigned i = 0; i < CROWD; i++) {
		struct pm_map m;

		snprintf(name, sizeof(name), "f%u", i);
		cr_assert_eq(pm_lookup(p->st, i % 1000 ? dir.id : ROOT, name, strlen(name), &a), 0,
		             "%s", name);
		if (i % 1000 == 0)
			dir = a;
		if (i % 200 != 199)
			continue;
		cr_assert_eq(pm_map_read(p->st, a.id, 0, PM_BLOCK, &m), 0, "%s", name);
		cr_assert_eq(((uint8_t *)m.seg[0].iov_base)[77], (uint8_t)(i / 200), "%s", name);
		pm_unpin(&m);
	}
	pool_close(p);
}

Test(repair_table, with_leaves_of_its_own)
{
	const struct pm_repair_calls calls = { .fixed = note, .left = note };
	struct test_pool p;
	struct pm_repair_report rep;
	struct pm_error why;
	struct pm_inode *in0;
	struct pm_bnode *root;
	uint64_t down;
	uint8_t *map;
	int fd;

	pool_new(&p, "table", SIZE, PM_CLWB);
	fill_large(&p);
	pool_close(&p);
	fd = open(p.path, O_RDWR);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(map, MAP_FAILED);
	close(fd);
	in0 = (void *)(map + ((struct pm_super *)(void *)map)->data_start * PM_BLOCK);
	for (unsigned kind = 0; kind < 4; kind++) {
		root = (void *)(map + in0->u.tree.root * PM_BLOCK);
		cr_assert_gt(root->level, 0);
		memcpy(&down,
		       map + in0->u.tree.root * PM_BLOCK + root->slot[root->count - 1] +
		               offsetof(struct pm_bent, val),
		       sizeof(down));
		if (kind == 0)
			memset(map + down * PM_BLOCK, 0, PM_BLOCK);
		else if (kind == 1)
			memset(root, 0, PM_BLOCK / 2);
		else if (kind == 2)
			memset(in0, 0, sizeof(*in0));
		else
			memset(in0, 0x5a, sizeof(*in0) / 2);
		said[0] = '\0';
		cr_assert_eq(pm_repair(p.path, &calls, NULL, &rep, &why), 0, "%u: %s", kind,
		             why.text);
		cr_assert_gt(rep.found, 0);
		cr_assert_eq(rep.left, 0, "%u: %s", kind, said);
		large_is_whole(&p);
	}
	munmap(map, SIZE);
	pool_drop(&p);
}
