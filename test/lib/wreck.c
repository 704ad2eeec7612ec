/* SPDX-License-Identifier: BSD-3-Clause */
/* wreck.c - a pool with something of everything, and ways to damage it */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/lib/wreck.h"

#define BLOCKS      520u
#define CROWD       45u
#define EXTENTS     130u /* two leaves of a tree */
#define MANY        2400u
#define MANY_BLOCKS 400u
#define U44         ((1ull << 44) - 1)

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };

static void die(const char *what, int err)
{
	fprintf(stderr, "wreck: %s: %s\n", what, strerror(-err));
	abort();
}

/* --- the pool -------------------------------------------------------------------------------- */

static struct pm_id add(struct pm_store *st, struct pm_id dir, const char *name, enum pm_type type,
                        size_t target)
{
	char text[400];
	struct pm_new nw = { .type = type,
		             .mode = 0755,
		             .uid = 1000,
		             .gid = 1000,
		             .target = memset(text, 't', sizeof(text)),
		             .target_len = target };
	struct pm_once once = { .tag = 8 };
	struct pm_change ch;
	size_t len = strlen(name);
	int err;

	memcpy(once.key, name, len < 16 ? len : 16);
	once.key[15] ^= (uint8_t)(dir.ino + len);
	err = pm_create_once(st, dir, name, len, &nw, &once, &ch);
	if (err)
		die(name, err);
	return ch.obj.id;
}

/* @n blocks, @step apart. */
static void fill(struct medium *d, struct pm_store *st, struct pm_id id, unsigned n, unsigned step)
{
	uint8_t bytes[PM_BLOCK];

	for (unsigned i = 0; i < n; i++) {
		struct pm_committed done;
		struct pm_map m;
		int err = pm_map_write(st, id, (uint64_t)i * step * PM_BLOCK, PM_BLOCK, &m, NULL);

		if (err)
			die("map", err);
		memset(bytes, (int)(id.ino * 37 + i * 11 + 1), sizeof(bytes));
		medium_place(d, m.seg[0].iov_base, bytes, sizeof(bytes));
		err = pm_commit(&m, PM_BLOCK, PM_FILE_SYNC, false, &done, NULL);
		pm_unpin(&m);
		if (err)
			die("commit", err);
	}
}

static void populate(struct wreck *w, struct medium *d, struct pm_store *st)
{
	struct pm_quota q = { .kind = PM_QUOTA_UID, .id = 1000, .max_blocks = 400 };
	struct pm_id dir = add(st, ROOT, "dir", PM_DIR, 0), sub = add(st, dir, "sub", PM_DIR, 0);
	struct pm_id crowd = add(st, ROOT, "crowd", PM_DIR, 0), f;
	char name[200];
	pm_lsn lsn;

	w->dir = dir.ino;
	w->sub = sub.ino;
	w->crowd = crowd.ino;
	f = add(st, dir, "plain", PM_REG, 0);
	fill(d, st, f, 3, 3);
	w->plain = f.ino;
	f = add(st, dir, "other", PM_REG, 0);
	fill(d, st, f, 2, 1);
	w->other = f.ino;
	f = add(st, sub, "sparse", PM_REG, 0);
	fill(d, st, f, 12, 2);
	w->sparse = f.ino;
	f = add(st, ROOT, "scattered", PM_REG, 0);
	fill(d, st, f, EXTENTS, 2);
	w->scattered = f.ino;
	w->link = add(st, dir, "link", PM_LNK, 20).ino;
	w->longlink = add(st, dir, "longlink", PM_LNK, 300).ino;
	w->fifo = add(st, sub, "fifo", PM_FIFO, 0).ino;
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "%02u-%0170u", i, i); /* few to a leaf */
		f = add(st, crowd, name, i == 7 ? PM_DIR : PM_REG, 0);
		if (i % 16 == 0)
			fill(d, st, f, 1, 1);
	}
	if (pm_quota_set(st, &q, &lsn))
		die("limits", -EIO);
	w->limits = quota_ino(st);
}

/* A block of data now and then, so that chunks do not lie side by side. Only those files stay: what is free takes no
 * time to look at. */
static void populate_more(struct medium *d, struct pm_store *st)
{
	struct pm_id dir = add(st, ROOT, "many", PM_DIR, 0), f;
	struct pm_change ch;
	char name[16];

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		f = add(st, dir, name, PM_REG, 0);
		if (i % 100 == 0)
			fill(d, st, f, 1, 1);
	}
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		if (i % 100 && pm_remove(st, dir, name, strlen(name), &ch))
			die("remove", -EIO);
	}
}

void wreck_make(struct wreck *w, unsigned lane_blocks, bool killed, bool many)
{
	struct geometry g = { .blocks = BLOCKS + 2 * lane_blocks + (many ? MANY_BLOCKS : 0),
		              .lanes = 2,
		              .lane_blocks = lane_blocks };
	uint8_t *empty = medium_image(&g);
	struct medium *d;
	struct pm_store *st;
	struct pm_error why;
	struct pm_id id;

	w->len = (size_t)g.blocks * PM_BLOCK;
	d = medium_new(empty, w->len, PM_CLWB, false);
	st = medium_open(d, &why);
	if (!st)
		die(why.text, -EIO);
	populate(w, d, st);
	if (many)
		populate_more(d, st);
	if (killed) {
		journal_checkpoint(st);
		id = add(st, ROOT, "late", PM_REG, 0);
		fill(d, st, id, 4, 2);
		add(st, ROOT, "late dir", PM_DIR, 0);
		store_drop(st);
	} else if (pm_close(st)) {
		die("close", -EIO);
	}
	w->image = malloc(w->len);
	memcpy(w->image, d->m.base, w->len);
	medium_free(d);
	free(empty);
}

void wreck_free(struct wreck *w)
{
	free(w->image);
}

/* --- places in it ---------------------------------------------------------------------------- */

static struct pm_super *super_of(uint8_t *image)
{
	struct pm_super *s = (void *)image, *t = (void *)(image + PM_BLOCK);

	return t->seq > s->seq ? t : s;
}

static struct pm_inode *inode(uint8_t *image, uint64_t ino)
{
	return (void *)(image + super_of(image)->data_start * PM_BLOCK + ino * PM_INODE_SIZE);
}

static struct pm_bnode *node(uint8_t *image, uint64_t blk)
{
	return (void *)(image + blk * PM_BLOCK);
}

static struct pm_bent *ent(struct pm_bnode *n, unsigned i)
{
	return (void *)((uint8_t *)n + n->slot[i]);
}

static struct pm_bnode *root_of(uint8_t *image, uint64_t ino)
{
	return node(image, inode(image, ino)->u.tree.root);
}

static struct pm_bnode *leaf_of(uint8_t *image, uint64_t ino, unsigned nth)
{
	struct pm_bnode *n = root_of(image, ino);
	uint64_t down;

	while (n->level) {
		memcpy(&down, ent(n, nth < n->count ? nth : n->count - 1u)->val, 8);
		n = node(image, down);
	}
	return n;
}

/* The entry of @dir that leads to @ino, and its leaf. */
static struct pm_dent *dent_of(uint8_t *image, uint64_t dir, uint64_t ino, struct pm_bnode **leaf)
{
	for (unsigned l = 0; l < 64; l++) {
		struct pm_bnode *n = *leaf = leaf_of(image, dir, l);

		for (unsigned i = 0; i < n->count; i++) {
			struct pm_dent *e = (void *)ent(n, i)->val;

			if (e->ino == ino)
				return e;
		}
	}
	die("no entry", -ENOENT);
	abort();
}

static void seal_inode(uint8_t *image, uint64_t ino)
{
	struct pm_inode *in = inode(image, ino);

	in->crc = pm_crc(in, sizeof(*in), 0);
}

static void seal_node(struct pm_bnode *n)
{
	n->crc = pm_crc(n, PM_BLOCK, 0);
}

static struct pm_dent *some_dent(struct pm_bnode *leaf)
{
	return (void *)ent(leaf, leaf->count / 2)->val;
}

/* --- damage that a checksum catches ------------------------------------------------------------ */

#define DAMAGE(fn) static void fn(const struct wreck *w, uint8_t *m)

DAMAGE(inode_of_file)
{
	inode(m, w->plain)->mode ^= 1;
}

DAMAGE(inode_that_names_others_blocks)
{
	inode(m, w->plain)->u.ext[0].pblk = inode(m, w->other)->u.ext[0].pblk;
}

DAMAGE(inode_that_names_blocks_of_a_later_one)
{
	inode(m, w->other)->u.ext[0].pblk = inode(m, w->longlink)->u.ext[0].pblk;
}

DAMAGE(size_of_file)
{
	inode(m, w->plain)->size = 0;
}

DAMAGE(size_of_file_with_tree)
{
	inode(m, w->scattered)->size = 5;
}

DAMAGE(inode_of_file_without_name)
{
	struct pm_bnode *n;

	inode(m, w->plain)->size = 100;
	dent_of(m, w->dir, w->plain, &n);
	n->dead++;
}

DAMAGE(inode_of_dir)
{
	inode(m, w->dir)->uid ^= 4;
}

DAMAGE(inode_of_dir_gone)
{
	memset(inode(m, w->dir), 0, PM_INODE_SIZE);
}

DAMAGE(inode_of_crowd)
{
	inode(m, w->crowd)->u.tree.height = 0;
}

DAMAGE(inode_of_root)
{
	(void)w;
	inode(m, PM_ROOT_INO)->nlink += 7;
}

DAMAGE(inode_of_link)
{
	inode(m, w->link)->size = 3;
}

DAMAGE(inode_of_link_gone)
{
	memset(inode(m, w->link), 0, PM_INODE_SIZE);
}

DAMAGE(inode_of_longlink)
{
	inode(m, w->longlink)->atime.nsec = ~0u;
}

DAMAGE(inode_of_fifo)
{
	inode(m, w->fifo)->type = 0;
}

DAMAGE(inode_of_table)
{
	(void)w;
	inode(m, 0)->gen ^= 0x40;
}

DAMAGE(inode_of_limits)
{
	inode(m, w->limits)->nlink = 0;
}

DAMAGE(block_of_limits)
{
	m[inode(m, w->limits)->u.ext[0].pblk * PM_BLOCK + 100] ^= 1;
}

DAMAGE(way_to_limits)
{
	(void)w;
	inode(m, 0)->parent = 0;
	seal_inode(m, 0);
}

DAMAGE(node_of_crowd)
{
	root_of(m, w->crowd)->dead++;
}

DAMAGE(leaf_of_crowd)
{
	leaf_of(m, w->crowd, 1)->dead++;
}

DAMAGE(leaf_of_dir)
{
	leaf_of(m, w->dir, 0)->dead++;
}

DAMAGE(leaf_of_root)
{
	(void)w;
	leaf_of(m, PM_ROOT_INO, 0)->dead++;
}

DAMAGE(node_of_scattered)
{
	root_of(m, w->scattered)->dead++;
}

DAMAGE(leaf_of_scattered)
{
	leaf_of(m, w->scattered, 0)->dead++;
}

DAMAGE(leaf_of_sparse)
{
	leaf_of(m, w->sparse, 0)->dead++;
}

DAMAGE(superblock_and_file) /* the older copy alone is no finding: a crash may have left it so */
{
	inode_of_file(w, m);
	super_of(m)->crc ^= 1;
}

DAMAGE(lane_heads)
{
	(void)w;
	memset(m + super_of(m)->lane_start * PM_BLOCK, 0x5a, 128);
}

DAMAGE(reply_record)
{
	(void)w;
	m[super_of(m)->reply_start * PM_BLOCK + 3 * 64 + 20] ^= 4;
}

/* The @nth record from the newest. */
static struct pm_rec *record(uint8_t *m, unsigned nth)
{
	const struct pm_super *s = super_of(m);
	uint64_t below = UINT64_MAX;
	struct pm_rec *best = NULL;

	do {
		best = NULL;
		for (unsigned l = 0; l < s->lanes; l++) {
			uint8_t *p =
				m + (s->lane_start + (uint64_t)l * s->lane_blocks + 1) * PM_BLOCK;
			struct pm_rec *r = (void *)p;

			for (; r->magic == PM_REC_MAGIC && r->len;
			     r = (void *)((uint8_t *)r + r->len))
				if (r->seq < below && (!best || r->seq > best->seq))
					best = r;
		}
		if (!best)
			die("so many records", -ENOENT);
		below = best->seq;
	} while (nth--);
	return best;
}

DAMAGE(journal_record)
{
	(void)w;
	record(m, 3)->nranges ^= 1;
}

DAMAGE(journal_records)
{
	(void)w;
	memset(record(m, 2), 0x5a, 64);
	record(m, 4)->seq++;
}

/* Loss of power has kept what came behind from its place, so that all has to be applied again. */
DAMAGE(record_and_places)
{
	(void)w;
	record(m, 3)->crc ^= 1;
	for (unsigned i = 1; i <= 2; i++) {
		struct pm_rec_range rr;

		memcpy(&rr, record(m, i) + 1, sizeof(rr));
		memset(m + rr.at, 0, rr.len);
	}
}

/* --- lies under a good checksum ---------------------------------------------------------------- */

#define LIE(fn, who, change)                                                                       \
	DAMAGE(fn)                                                                                 \
	{                                                                                          \
		struct pm_inode *in = inode(m, who);                                               \
		in->change;                                                                        \
		(void)w;                                                                           \
		seal_inode(m, who);                                                                \
	}

LIE(links_of_file, w->plain, nlink += 3)
LIE(links_of_dir, w->dir, nlink += 3)
LIE(no_links, w->plain, nlink = 0)
LIE(blocks_of_file, w->sparse, blocks += 5)
LIE(mode_of_dir, w->dir, mode |= 0170000)
LIE(type_of_file, w->plain, type = 9)
LIE(type_of_dir, w->crowd, type = 9)
LIE(entries_of_dir, w->dir, size++)
LIE(count_of_tree, w->sparse, u.tree.count++)
LIE(count_of_crowd, w->crowd, u.tree.count--)
LIE(height_of_tree, w->scattered, u.tree.height++)
LIE(height_of_crowd, w->crowd, u.tree.height = 0)
LIE(root_of_crowd, w->crowd, u.tree.root = 3)
LIE(parent_of_dir, w->sub, parent = 1)
LIE(parent_of_root, PM_ROOT_INO, parent = 5)
LIE(size_beyond, w->plain, size = PM_FILE_MAX + 1)
LIE(extent_outside, w->plain, u.ext[1].pblk = U44)
LIE(extent_in_superblock, w->plain, u.ext[1].pblk = 1)
LIE(extent_twice, w->plain, u.ext[1].lblk = 0)
LIE(extent_over_table, w->plain, u.ext[2].pblk = super_of(m)->data_start & U44)
LIE(extent_over_node, w->plain, u.ext[2].pblk = inode(m, w->crowd)->u.tree.root & U44)
LIE(extent_of_two, w->plain, u.ext[2].pblk = inode(m, w->other)->u.ext[0].pblk)
LIE(generation, w->plain, gen++)

#define DENT_LIE(fn, dir, ino, change)                                                             \
	DAMAGE(fn)                                                                                 \
	{                                                                                          \
		struct pm_bnode *n;                                                                \
		dent_of(m, dir, ino, &n)->change;                                                  \
		seal_node(n);                                                                      \
	}

DENT_LIE(entry_generation, w->dir, w->plain, gen++)
DENT_LIE(entry_type, w->dir, w->plain, type = PM_FIFO)
DENT_LIE(entry_nowhere, w->dir, w->plain, ino = 1ull << 40)
DENT_LIE(entry_to_root, w->dir, w->plain, ino = 1)
DENT_LIE(entry_name, w->dir, w->plain, name[0] = '/')
DENT_LIE(entry_cookie, w->dir, w->plain, name[0] = 'g')
DENT_LIE(two_names_of_dir, w->dir, w->plain, ino = w->crowd)

DAMAGE(entry_of_crowd)
{
	struct pm_bnode *n = leaf_of(m, w->crowd, 1);

	some_dent(n)->type = PM_SOCK;
	seal_node(n);
}

DAMAGE(cookie_of_crowd)
{
	struct pm_bnode *n = leaf_of(m, w->crowd, 1);

	some_dent(n)->name[0] = 'x';
	seal_node(n);
}

DAMAGE(extent_of_scattered)
{
	struct pm_bnode *n = leaf_of(m, w->scattered, 0);
	struct pm_ext x;

	memcpy(&x, ent(n, 5)->val, sizeof(x));
	x.pblk = super_of(m)->data_start & U44;
	memcpy(ent(n, 5)->val, &x, sizeof(x));
	seal_node(n);
}

/* The one directory is in the other, and the other in it. */
DAMAGE(loop)
{
	struct pm_bnode *rn, *sn;
	struct pm_dent *top = dent_of(m, PM_ROOT_INO, w->dir, &rn),
		       *low = dent_of(m, w->sub, w->fifo, &sn), was = *top;

	top->ino = low->ino;
	top->gen = low->gen;
	top->type = low->type;
	low->ino = was.ino;
	low->gen = was.gen;
	low->type = was.type;
	seal_node(rn);
	seal_node(sn);
}

/* --- several at once --------------------------------------------------------------------------- */

#define BOTH(fn, a, b)                                                                             \
	DAMAGE(fn)                                                                                 \
	{                                                                                          \
		b(w, m);                                                                           \
		a(w, m);                                                                           \
	}

BOTH(node_and_entry, node_of_crowd, entry_of_crowd)
BOTH(node_and_cookie, node_of_crowd, cookie_of_crowd)
BOTH(node_and_extent, node_of_scattered, extent_of_scattered)
BOTH(node_and_inode, node_of_scattered, size_of_file_with_tree)
BOTH(crowd_twice, node_of_crowd, inode_of_crowd)
BOTH(two_inodes, inode_that_names_others_blocks, inode_of_longlink)
BOTH(dir_and_file, inode_of_dir_gone, inode_of_file)
BOTH(root_and_crowd, leaf_of_root, node_of_crowd)
BOTH(dir_and_loop, loop, inode_of_crowd)
BOTH(table_and_file, inode_of_table, size_of_file)
BOTH(limits_twice, inode_of_limits, block_of_limits)
BOTH(record_and_inode, journal_record, size_of_file)

/* Where a damage is: two in one place may not go together. */
enum {
	IN_PLAIN = 1 << 0,
	IN_OTHER = 1 << 1,
	IN_DIR = 1 << 2,
	IN_SUB = 1 << 3,
	IN_CROWD = 1 << 4,
	IN_SCATTERED = 1 << 5,
	IN_SPARSE = 1 << 6,
	IN_ROOTDIR = 1 << 7,
	IN_TABLE = 1 << 8,
	IN_LIMITS = 1 << 9,
	IN_SPECIAL = 1 << 10,
	IN_JOURNAL = 1 << 11,
	IN_REPLIES = 1 << 12,
};

#define D(fn, at, ...)                                                                             \
	{                                                                                          \
		.name = #fn, .hurt = fn, .where = at, __VA_ARGS__                                  \
	}
const struct damage wreck_damages[] = {
	D(inode_of_file, IN_PLAIN),
	D(inode_that_names_others_blocks, IN_PLAIN | IN_OTHER),
	D(inode_that_names_blocks_of_a_later_one, IN_OTHER | IN_SPECIAL),
	D(size_of_file, IN_PLAIN),
	D(size_of_file_with_tree, IN_SCATTERED),
	D(inode_of_file_without_name, IN_PLAIN | IN_DIR),
	D(inode_of_dir, IN_DIR),
	D(inode_of_dir_gone, IN_DIR),
	D(inode_of_crowd, IN_CROWD),
	D(inode_of_root, IN_ROOTDIR),
	D(inode_of_link, IN_SPECIAL),
	D(inode_of_link_gone, IN_SPECIAL),
	D(inode_of_longlink, IN_SPECIAL),
	D(inode_of_fifo, IN_SPECIAL),
	D(inode_of_table, IN_TABLE),
	D(inode_of_limits, IN_LIMITS),
	D(block_of_limits, IN_LIMITS),
	D(way_to_limits, IN_LIMITS | IN_TABLE),
	D(node_of_crowd, IN_CROWD),
	D(leaf_of_crowd, IN_CROWD),
	D(leaf_of_dir, IN_DIR),
	D(leaf_of_root, IN_ROOTDIR),
	D(node_of_scattered, IN_SCATTERED),
	D(leaf_of_scattered, IN_SCATTERED),
	D(leaf_of_sparse, IN_SPARSE),
	D(superblock_and_file, IN_PLAIN | IN_JOURNAL),
	D(lane_heads, IN_JOURNAL),
	D(reply_record, IN_REPLIES),
	D(links_of_file, IN_PLAIN),
	D(links_of_dir, IN_DIR),
	D(no_links, IN_PLAIN, .unsafe = true),
	D(blocks_of_file, IN_SPARSE),
	D(mode_of_dir, IN_DIR),
	D(type_of_file, IN_PLAIN),
	D(type_of_dir, IN_CROWD),
	D(entries_of_dir, IN_DIR),
	D(count_of_tree, IN_SPARSE),
	D(count_of_crowd, IN_CROWD),
	D(height_of_tree, IN_SCATTERED),
	D(height_of_crowd, IN_CROWD),
	D(root_of_crowd, IN_CROWD),
	D(parent_of_dir, IN_SUB),
	D(parent_of_root, IN_ROOTDIR),
	D(size_beyond, IN_PLAIN),
	D(extent_outside, IN_PLAIN),
	D(extent_in_superblock, IN_PLAIN),
	D(extent_twice, IN_PLAIN),
	D(extent_over_table, IN_PLAIN),
	D(extent_over_node, IN_PLAIN | IN_CROWD),
	D(extent_of_two, IN_PLAIN | IN_OTHER, .left = true),
	D(generation, IN_PLAIN),
	D(entry_generation, IN_PLAIN | IN_DIR),
	D(entry_type, IN_PLAIN | IN_DIR),
	D(entry_nowhere, IN_PLAIN | IN_DIR),
	D(entry_to_root, IN_PLAIN | IN_DIR),
	D(entry_name, IN_PLAIN | IN_DIR),
	D(entry_cookie, IN_PLAIN | IN_DIR),
	D(two_names_of_dir, IN_PLAIN | IN_DIR | IN_CROWD),
	D(entry_of_crowd, IN_CROWD),
	D(cookie_of_crowd, IN_CROWD),
	D(extent_of_scattered, IN_SCATTERED),
	D(loop, IN_DIR | IN_SUB | IN_ROOTDIR | IN_SPECIAL),
	D(node_and_entry, IN_CROWD),
	D(node_and_cookie, IN_CROWD),
	D(node_and_extent, IN_SCATTERED),
	D(node_and_inode, IN_SCATTERED),
	D(crowd_twice, IN_CROWD),
	D(two_inodes, IN_PLAIN | IN_OTHER | IN_SPECIAL),
	D(dir_and_file, IN_DIR | IN_PLAIN),
	D(root_and_crowd, IN_ROOTDIR | IN_CROWD),
	D(dir_and_loop, IN_DIR | IN_SUB | IN_ROOTDIR | IN_SPECIAL | IN_CROWD),
	D(table_and_file, IN_TABLE | IN_PLAIN),
	D(limits_twice, IN_LIMITS),
	D(journal_record, IN_JOURNAL, .killed = true),
	D(journal_records, IN_JOURNAL, .killed = true),
	D(record_and_places, IN_JOURNAL | IN_ROOTDIR, .killed = true),
	D(record_and_inode, IN_JOURNAL | IN_PLAIN, .killed = true),
};
const unsigned wreck_ndamages = sizeof(wreck_damages) / sizeof(wreck_damages[0]);

DAMAGE(table_inode_gone)
{
	(void)w;
	memset(inode(m, 0), 0, PM_INODE_SIZE);
}

DAMAGE(table_root)
{
	(void)w;
	root_of(m, 0)->dead++;
}

DAMAGE(table_way)
{
	(void)w;
	inode(m, 0)->u.tree.root ^= 0x40;
}

BOTH(table_and_crowd, table_root, node_of_crowd)
BOTH(table_and_size, table_inode_gone, size_of_file)

const struct damage wreck_table_damages[] = { D(table_inode_gone, IN_TABLE),
	                                      D(table_root, IN_TABLE), D(table_way, IN_TABLE),
	                                      D(table_and_crowd, IN_TABLE | IN_CROWD),
	                                      D(table_and_size, IN_TABLE | IN_PLAIN) };
const unsigned wreck_table_ndamages = sizeof(wreck_table_damages) / sizeof(wreck_table_damages[0]);

/* --- what it holds ----------------------------------------------------------------------------- */

struct text {
	char *p, *end;
	struct pm_store *st;
	uint64_t hash, blocks;
	uint64_t
		lost_found; /* made by the repair: in which generation of its slot does not matter */
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->p, (size_t)(t->end - t->p), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= t->end - t->p)
		die("too much to write down", -ENOSPC);
	t->p += n;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9fb21c651e98df25ull;
	return h ^ h >> 29;
}

/* However the blocks are put together to extents. */
static int hash_extent(void *arg, const struct ext *e)
{
	struct text *t = arg;
	uint64_t v;

	for (uint64_t b = 0; b < e->len; b++) {
		const uint8_t *p = data_ptr(t->st, e->pblk + b);

		t->blocks++;
		t->hash = mix(t->hash, e->lblk + b + (e->unwritten ? 1ull << 50 : 0));
		for (unsigned i = 0; i < PM_BLOCK && !e->unwritten;
		     i += 128) { /* a block is all the same */
			memcpy(&v, p + i, 8);
			t->hash = mix(t->hash, v);
		}
	}
	return 0;
}

static bool put_entry(void *arg, const struct pm_dirent *de)
{
	if (de->name[0] != '.')
		put(arg, "  %.*s: %llu\n", (int)de->len, de->name, (unsigned long long)de->id.ino);
	return true;
}

static void put_inode(struct text *t, const struct pm_inode *in)
{
	struct pm_id id = { in->ino, in->gen };
	char target[PM_LINK_PATH];
	size_t len = 0;
	bool eof;

	put(t, "%llu.%u: type %u flags %x mode %o links %u owner %u:%u size %llu parent %llu",
	    (unsigned long long)in->ino, in->ino == t->lost_found ? 0 : (uint32_t)in->gen, in->type,
	    in->flags & ~(unsigned)PM_IF_TREE, in->mode, in->nlink, in->uid, in->gid,
	    (unsigned long long)in->size, (unsigned long long)in->parent);
	t->hash = t->blocks = 0;
	if (in->type == PM_REG && in->ino && ext_each(t->st, NULL, in, hash_extent, t))
		put(t, " DAMAGED");
	if (in->type == PM_LNK && pm_readlink(t->st, id, target, sizeof(target), &len))
		put(t, " DAMAGED");
	put(t, " %llu blocks %llx link %zu\n", (unsigned long long)t->blocks,
	    (unsigned long long)t->hash, len);
	if (in->type == PM_DIR && pm_readdir(t->st, id, 0, false, put_entry, t, &eof))
		put(t, " DAMAGED\n");
}

static void put_replies(struct text *t)
{
	const struct pm_super *s = &t->st->super;
	const struct pm_slot *slot = blk_ptr(t->st, s->reply_start);
	unsigned n = 0;

	for (uint64_t i = 0; i < s->reply_blocks * PM_BLOCK_SLOTS; i++)
		n += !slot_fault(&slot[i], s->boot) && slot[i].ino;
	put(t, "%u reply records\n", n);
}

void wreck_holds(struct pm_store *st, char *buf, size_t size)
{
	struct text t = { .p = buf, .end = buf + size, .st = st };
	struct pm_quota *q = NULL;
	struct pm_attr lf;
	size_t n = 0;

	t.lost_found = pm_lookup(st, ROOT, "lost+found", 10, &lf) ? ino_count(st) : lf.id.ino;
	for (uint64_t ino = 0; ino < ino_count(st); ino++) {
		const struct pm_inode *in = ino_at(st, ino);
		int err = ino_verify(in, ino);

		if (!err)
			put_inode(&t, in);
		else if (err != -ENOENT)
			put(&t, "%llu: DAMAGED\n", (unsigned long long)ino);
	}
	put_replies(&t);
	if (!pm_quota_list(st, &q, &n))
		for (size_t i = 0; i < n; i++)
			put(&t, "limit of %u %u: %llu blocks, used %llu inodes\n", q[i].kind,
			    q[i].id, (unsigned long long)q[i].max_blocks,
			    (unsigned long long)q[i].inodes);
	free(q);
}
