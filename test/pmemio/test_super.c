/* SPDX-License-Identifier: BSD-3-Clause */
/* test_super.c - making and opening pools: every refusal and its text, locks, damage, versions,
 * methods */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define MIB (1ull << 20)

static void says(const struct pm_error *why, const char *path, const char *what)
{
	cr_assert(strstr(why->text, path), "\"%s\" does not name %s", why->text, path);
	cr_assert(strstr(why->text, what), "\"%s\" does not say \"%s\"", why->text, what);
}

static void poke(const char *path, off_t at, const void *p, size_t len)
{
	int fd = open(path, O_RDWR);

	cr_assert(fd >= 0 && pwrite(fd, p, len, at) == (ssize_t)len);
	close(fd);
}

static void peek(const char *path, off_t at, void *p, size_t len)
{
	int fd = open(path, O_RDONLY);

	cr_assert(fd >= 0 && pread(fd, p, len, at) == (ssize_t)len);
	close(fd);
}

/* Change both superblocks and seal them again. */
static void edit_supers(const char *path, void (*fn)(struct pm_super *s))
{
	for (unsigned i = 0; i < 2; i++) {
		struct pm_super s;

		peek(path, i * PM_BLOCK, &s, sizeof(s));
		fn(&s);
		s.crc = pm_crc(&s, sizeof(s), offsetof(struct pm_super, crc));
		poke(path, i * PM_BLOCK, &s, sizeof(s));
	}
}

static void cannot_open(struct test_pool *p, int err, const char *what)
{
	struct pm_error why;
	int rc = pool_try_open(p, PM_AUTO, &why);

	cr_assert_eq(rc, err, "open returned %d, not %d", rc, err);
	cr_assert_null(p->st);
	says(&why, p->path, what);
	pool_drop(p);
}

/* FORMAT.md names these; pools are exchanged by them. */
Test(format, fields_are_where_the_documentation_says)
{
#define AT(type, field, want) cr_assert_eq(offsetof(struct type, field), (size_t)(want))
	AT(pm_super, crc, 8);
	AT(pm_super, seq, 16);
	AT(pm_super, incompat, 40);
	AT(pm_super, secret, 128);
	AT(pm_super, blocks, 152);
	AT(pm_super, lanes, 176);
	AT(pm_super, boot, 184);
	AT(pm_super, write_verf, 192);
	AT(pm_super, state, 200);
	AT(pm_super, saved_start, 208);
	AT(pm_super, saved_crc, 232);
	AT(pm_lane_head, ckpt_seq, 8);
	AT(pm_rec, unsure, 6);
	AT(pm_rec, nranges, 12);
	AT(pm_rec, seq, 16);
	AT(pm_inode, gen, 16);
	AT(pm_inode, size, 40);
	AT(pm_inode, verf, 72);
	AT(pm_inode, atime, 80);
	AT(pm_inode, u, 128);
	AT(pm_bnode, owner, 8);
	AT(pm_bnode, count, 24);
	AT(pm_bnode, slot, 32);
#undef AT
}

/* Bit by bit, with the Castagnoli polynomial reflected. */
Test(format, checksums_are_crc32c_with_their_own_field_as_zero)
{
	uint8_t field[13] = { 1, 2, 3, 4, '1', '2', '3', '4', '5', '6', '7', '8', '9' };
	uint32_t c = ~0u;

	for (size_t i = 0; i < sizeof(field); i++) {
		c ^= i < 4 ? 0 : field[i];
		for (unsigned k = 0; k < 8; k++)
			c = (c >> 1) ^ (c & 1 ? 0x82f63b78u : 0);
	}
	cr_assert_eq(pm_crc(field, sizeof(field), 0), ~c);
}

/* --- mkfs ------------------------------------------------------------------------------------ */

static void cannot_make(const char *path, const struct pm_mkfs_opts *o, int err, const char *what)
{
	struct pm_error why;
	int rc = pm_mkfs(path, o, &why);

	cr_assert_eq(rc, err, "mkfs returned %d, not %d", rc, err);
	says(&why, path, what);
}

Test(mkfs, makes_a_sparse_file_that_opens_with_what_was_asked_for)
{
	struct pm_mkfs_opts o = {
		.size = 64 * MIB, .label = "harbour", .uuid = { 1, 2, 3 }, .lanes = 2
	};
	struct test_pool p;
	struct pm_error why;
	struct pm_info i;
	struct stat sb;

	pool_path(&p, "new");
	cr_assert_eq(pm_mkfs(p.path, &o, &why), 0, "%s", why.text);
	cr_assert_eq(stat(p.path, &sb), 0);
	cr_assert_eq(sb.st_mode & 0777, 0600);
	cr_assert_eq(sb.st_size, (off_t)o.size);
	cr_assert_lt(sb.st_blocks * 512, 1 << 20, "not sparse");
	pool_open(&p, PM_CLWB);
	pm_get_info(p.st, &i);
	cr_assert_str_eq(i.label, "harbour");
	cr_assert_arr_eq(i.uuid, o.uuid, 16);
	cr_assert_eq(i.size, o.size);
	cr_assert_eq(i.version, PM_VERSION);
	cr_assert_eq(i.boot, 1);
	cr_assert(i.was_clean);
	cr_assert_eq(p.st->super.lanes, 2);
	pool_close(&p);
	pool_drop(&p);
}

Test(mkfs, a_random_uuid_and_secret_differ_between_pools)
{
	struct test_pool a, b;

	pool_new(&a, "a", 16 * MIB, PM_CLWB);
	pool_new(&b, "b", 16 * MIB, PM_CLWB);
	cr_assert_arr_neq(a.st->super.uuid, b.st->super.uuid, 16);
	cr_assert_arr_neq(pm_secret(a.st), pm_secret(b.st), 16);
	pool_drop(&a);
	pool_drop(&b);
}

Test(mkfs, root_gets_owner_and_mode)
{
	struct pm_mkfs_opts o = {
		.size = 16 * MIB, .root_uid = 7, .root_gid = 8, .root_mode = 01777
	};
	struct test_pool p;
	const struct pm_inode *in;
	int err;

	pool_path(&p, "root");
	cr_assert_eq(pm_mkfs(p.path, &o, NULL), 0);
	pool_open(&p, PM_CLWB);
	in = ino_get(p.st, (struct pm_id){ PM_ROOT_INO, 1 }, &err);
	cr_assert_not_null(in);
	cr_assert(in->uid == 7 && in->gid == 8 && in->mode == 01777 && in->nlink == 2 &&
	          in->type == PM_DIR && in->parent == PM_ROOT_INO);
	pool_drop(&p);
}

Test(mkfs, refuses_a_pool_unless_forced)
{
	struct pm_mkfs_opts o = { .size = 16 * MIB };
	struct test_pool p;
	struct pm_error why;

	pool_mkfs(&p, "twice", 16 * MIB);
	cannot_make(p.path, &o, -EEXIST, "already is a berth pool");
	o.force = true;
	cr_assert_eq(pm_mkfs(p.path, &o, &why), 0, "%s", why.text);
	pool_drop(&p);
}

Test(mkfs, refuses_other_data_unless_forced_and_takes_an_empty_sparse_file)
{
	struct pm_mkfs_opts o = { .size = 0 };
	struct test_pool p;
	struct pm_error why;

	pool_path(&p, "data");
	close(open(p.path, O_CREAT | O_RDWR, 0600));
	cannot_make(p.path, &o, -EINVAL, "has no size");
	cr_assert_eq(truncate(p.path, 32 << 20), 0);
	poke(p.path, 5 << 20, "precious", 8);
	cannot_make(p.path, &o, -EEXIST, "holds data");
	o.force = true;
	cr_assert_eq(pm_mkfs(p.path, &o, &why), 0, "%s", why.text);
	unlink(p.path);
	close(open(p.path, O_CREAT | O_RDWR, 0600));
	cr_assert_eq(truncate(p.path, 32 << 20), 0);
	o.force = false;
	cr_assert_eq(pm_mkfs(p.path, &o, &why), 0, "%s", why.text);
	pool_drop(&p);
}

Test(mkfs, refuses_impossible_options_and_leaves_no_file)
{
	struct pm_mkfs_opts small = { .size = 15 * MIB }, lanes = { .size = 16 * MIB, .lanes = 65 };
	struct pm_mkfs_opts label = { .size = 16 * MIB };
	struct test_pool p;

	pool_path(&p, "bad");
	memset(label.label, 'x', sizeof(label.label));
	cannot_make(p.path, &small, -EINVAL, "16 MiB");
	cr_assert_eq(access(p.path, F_OK), -1, "left a file behind");
	cannot_make(p.path, &lanes, -EINVAL, "lanes");
	cannot_make(p.path, &label, -EINVAL, "label");
	cannot_make("/dev/shm", &small, -EISDIR, "cannot be opened");
	cannot_make("/dev/null", &small, -EINVAL, "");
	pool_drop(&p);
}

Test(mkfs, refuses_a_pool_in_use)
{
	struct pm_mkfs_opts o = { .size = 16 * MIB, .force = true };
	struct test_pool p;

	pool_new(&p, "busy", 16 * MIB, PM_CLWB);
	cannot_make(p.path, &o, -EBUSY, "in use");
	pool_drop(&p);
}

Test(mkfs, a_forced_one_forgets_the_journal_of_the_old_pool)
{
	struct pm_mkfs_opts o = { .size = 16 * MIB, .force = true };
	struct test_pool p;
	struct pm_info i;

	pool_new(&p, "old", 16 * MIB, PM_CLWB);
	for (unsigned k = 0; k < 3; k++) {
		struct pm_tx *tx = tx_begin(p.st);
		struct pm_inode *in = ino_edit(tx, ino_at(p.st, PM_ROOT_INO));

		in->uid = 100 + k;
		cr_assert_eq(tx_commit(tx, NULL), 0);
	}
	pool_kill(&p);
	cr_assert_eq(pm_mkfs(p.path, &o, NULL), 0);
	pool_open(&p, PM_CLWB);
	pm_get_info(p.st, &i);
	cr_assert_eq(i.replayed, 0);
	cr_assert_eq(ino_at(p.st, PM_ROOT_INO)->uid, 0);
	pool_drop(&p);
}

/* --- open ------------------------------------------------------------------------------------ */

Test(open, of_nothing_says_so)
{
	struct test_pool p;

	pool_path(&p, "absent");
	cannot_open(&p, -ENOENT, "No such file");
}

Test(open, of_another_file_says_how_to_make_a_pool)
{
	struct test_pool p;

	pool_path(&p, "zeros");
	close(open(p.path, O_CREAT | O_RDWR, 0600));
	cr_assert_eq(truncate(p.path, 16 << 20), 0);
	cannot_open(&p, -EINVAL, "berth mkfs");
	pool_path(&p, "short");
	close(open(p.path, O_CREAT | O_RDWR, 0600));
	cannot_open(&p, -EINVAL, "too short");
}

Test(open, twice_says_who_has_it)
{
	struct test_pool p, q;
	struct pm_error why;
	char pid[32];

	pool_new(&p, "lock", 16 * MIB, PM_CLWB);
	q = p;
	q.st = NULL;
	cr_assert_eq(pool_try_open(&q, PM_CLWB, &why), -EBUSY);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	says(&why, p.path, "in use by another process");
	says(&why, p.path, pid);
	pool_close(&p);
	pool_open(&q, PM_CLWB);
	pool_drop(&q);
}

Test(open, survives_one_bad_superblock_of_two)
{
	for (unsigned i = 0; i < 2; i++) {
		struct test_pool p;

		pool_mkfs(&p, "half", 16 * MIB);
		poke(p.path, i * PM_BLOCK + 100, "damage", 6);
		pool_open(&p, PM_CLWB);
		pool_close(&p);
		pool_drop(&p);
	}
}

Test(open, refuses_two_bad_superblocks)
{
	struct test_pool p;

	pool_mkfs(&p, "both", 16 * MIB);
	poke(p.path, 100, "damage", 6);
	poke(p.path, PM_BLOCK + 100, "damage", 6);
	cannot_open(&p, -EUCLEAN, "superblocks 0 and 1 have bad checksums");
}

static void newer(struct pm_super *s)
{
	s->version = PM_VERSION + 1;
}

static void incompat(struct pm_super *s)
{
	s->incompat = 1ull << 41;
}

static void ro_compat(struct pm_super *s)
{
	s->ro_compat = 4;
}

static void compat(struct pm_super *s)
{
	s->compat = 16;
}

static void silly(struct pm_super *s)
{
	s->lane_blocks = 1u << 30;
}

/* Stored free space of which nothing can be, and which lies nowhere. */
static void saves_little(struct pm_super *s)
{
	s->saved_start = s->data_start;
	s->saved_blocks = 1;
	s->saved_bytes = 3;
}
static void saves_nowhere(struct pm_super *s)
{
	s->saved_start = 1ull << 50;
	s->saved_bytes = 64;
}

Test(open, refuses_stored_free_space_that_cannot_be)
{
	struct test_pool p;

	pool_mkfs(&p, "little", 16 * MIB);
	edit_supers(p.path, saves_little);
	cannot_open(&p, -EUCLEAN, "impossible layout");
	pool_mkfs(&p, "nowhere", 16 * MIB);
	edit_supers(p.path, saves_nowhere);
	cannot_open(&p, -EUCLEAN, "impossible layout");
}

Test(open, refuses_a_newer_version_and_unknown_features_by_name)
{
	struct test_pool p;

	pool_mkfs(&p, "version", 16 * MIB);
	edit_supers(p.path, newer);
	cannot_open(&p, -EPROTONOSUPPORT, "format version 3");
	pool_mkfs(&p, "incompat", 16 * MIB);
	edit_supers(p.path, incompat);
	cannot_open(&p, -EPROTONOSUPPORT, "0x20000000000");
	pool_mkfs(&p, "silly", 16 * MIB);
	edit_supers(p.path, silly);
	cannot_open(&p, -EUCLEAN, "impossible layout");
}

Test(open, unknown_ro_compat_features_allow_reading_and_compat_ones_everything)
{
	struct pm_open_opts ro = { .read_only = true };
	struct test_pool p;
	struct pm_error why;

	pool_mkfs(&p, "ro", 16 * MIB);
	edit_supers(p.path, ro_compat);
	cr_assert_eq(pm_open(p.path, &ro, &p.st, &why), 0, "%s", why.text);
	cr_assert_eq(pm_close(p.st), 0);
	p.st = NULL;
	cannot_open(&p, -EPROTONOSUPPORT, "0x4");
	pool_mkfs(&p, "compat", 16 * MIB);
	edit_supers(p.path, compat);
	pool_open(&p, PM_CLWB);
	pool_drop(&p);
}

Test(open, refuses_a_pool_cut_short)
{
	struct test_pool p;

	pool_mkfs(&p, "cut", 32 * MIB);
	cr_assert_eq(truncate(p.path, 24 << 20), 0);
	cannot_open(&p, -EUCLEAN, "cut short");
}

Test(open, refuses_damaged_lane_headers_and_inode_table)
{
	struct test_pool p;
	uint8_t junk[128];
	struct pm_super s;

	memset(junk, 0x5a, sizeof(junk));
	pool_mkfs(&p, "lane", 16 * MIB);
	poke(p.path, 2 * PM_BLOCK, junk, sizeof(junk));
	cannot_open(&p, -EUCLEAN, "journal lane 0");
	pool_mkfs(&p, "table", 16 * MIB);
	peek(p.path, 0, &s, sizeof(s));
	poke(p.path, (off_t)(s.data_start * PM_BLOCK + 8), junk, 16);
	cannot_open(&p, -EUCLEAN, "inode 0");
}

/* --- methods --------------------------------------------------------------------------------- */

Test(method, open_reports_the_one_in_force)
{
	static const enum pm_method all[] = { PM_FENCE, PM_CLWB, PM_MSYNC, PM_VOLATILE };

	for (size_t i = 0; i < 4; i++) {
		struct test_pool p;
		struct pm_info info;

		pool_new(&p, "method", 16 * MIB, all[i]);
		pm_get_info(p.st, &info);
		cr_assert_eq(info.method, all[i]);
		cr_assert_not_null(info.reason);
		cr_assert_not_null(info.not_promised);
		cr_assert(!info.map_sync, "tmpfs is no persistent memory");
		pool_close(&p);
		pool_drop(&p);
	}
}

Test(method, a_claim_that_the_mapping_does_not_bear_is_refused_with_the_reason)
{
	struct pm_open_opts o = { .method = PM_CLWB };
	struct test_pool p;
	struct pm_error why;

	pool_mkfs(&p, "claim", 16 * MIB);
	setenv("PMEM2_FORCE_GRANULARITY", "PAGE", 1);
	cr_assert_eq(pm_open(p.path, &o, &p.st, &why), -EPERM);
	says(&why, p.path, "clwb");
	says(&why, p.path, "granularity: page");
	pool_drop(&p);
}
