/* SPDX-License-Identifier: BSD-3-Clause */
/* Names: every operation, its errors, its effect on links, sizes, times and cookies */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>

#include "test/lib/pool.h"

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };
static struct test_pool pool;
static struct pm_change ch;
static struct pm_attr at;

static void fresh(void)
{
	pool_new(&pool, "dir", 64 << 20, PM_CLWB);
}

static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	fprintf(stderr, "check: %s: %s\n", where, what);
}

static void check_clean(const char *path)
{
	struct pm_check_report rep;
	struct pm_error why;

	cr_assert_eq(pm_check(path, problem, NULL, NULL, &rep, &why), 0, "%s", why.text);
	cr_assert_eq(rep.problems, 0);
}

/* Whatever a test did, the pool must be sound: as a kill would leave it, and after a clean close.
 */
static void sound(void)
{
	struct test_pool killed;

	pool_copy(&killed, &pool, "dirk");
	check_clean(killed.path);
	pool_drop(&killed);
	pool_close(&pool);
	check_clean(pool.path);
	pool_drop(&pool);
}

static int make(struct pm_id dir, const char *name, enum pm_type type)
{
	struct pm_new nw = { .type = type,
		             .mode = 0640,
		             .uid = 7,
		             .gid = 8,
		             .target = "to",
		             .target_len = 2,
		             .rdev_major = 5,
		             .rdev_minor = 6 };

	return pm_create(pool.st, dir, name, strlen(name), &nw, &ch);
}

static struct pm_id made(struct pm_id dir, const char *name, enum pm_type type)
{
	int err = make(dir, name, type);

	cr_assert_eq(err, 0, "create %s: %d", name, err);
	return ch.obj.id;
}

static int look(struct pm_id dir, const char *name)
{
	return pm_lookup(pool.st, dir, name, strlen(name), &at);
}

static int del(struct pm_id dir, const char *name)
{
	return pm_remove(pool.st, dir, name, strlen(name), &ch);
}

static int deldir(struct pm_id dir, const char *name)
{
	return pm_rmdir(pool.st, dir, name, strlen(name), &ch);
}

static int mv(struct pm_id from, const char *f, struct pm_id to, const char *t)
{
	return pm_rename(pool.st, from, f, strlen(f), to, t, strlen(t), &ch);
}

static unsigned nlink_of(struct pm_id id)
{
	struct pm_attr a;
	int err = pm_getattr(pool.st, id, &a);

	return err ? 0 : a.nlink;
}

static bool same(struct pm_id a, struct pm_id b)
{
	return a.ino == b.ino && a.gen == b.gen;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec >= b.tv_nsec);
}

static bool count_one(void *arg, const struct pm_dirent *de)
{
	*(unsigned *)arg += de->cookie > 2;
	return true;
}

static unsigned entries(struct pm_id dir)
{
	unsigned n = 0;
	bool eof = false;

	cr_assert_eq(pm_readdir(pool.st, dir, 0, false, count_one, &n, &eof), 0);
	cr_assert(eof);
	return n;
}

TestSuite(dir, .init = fresh, .fini = sound);

Test(dir, each_type_is_made_as_asked_and_found_again)
{
	for (enum pm_type t = PM_REG; t <= PM_FIFO; t++) {
		char name[8];
		struct pm_id id;

		snprintf(name, sizeof(name), "n%d", t);
		id = made(ROOT, name, t);
		cr_assert_eq(look(ROOT, name), 0);
		cr_assert(same(id, at.id));
		cr_assert_eq(at.type, t);
		cr_assert_eq(at.mode, 0640);
		cr_assert_eq(at.uid, 7);
		cr_assert_eq(at.gid, 8);
		cr_assert_eq(at.nlink, t == PM_DIR ? 2 : 1);
		if (t != PM_DIR) /* whose size is not for us to say */
			cr_assert_eq(at.size, t == PM_LNK ? 2 : 0);
		cr_assert_eq(at.rdev_major, t == PM_BLK || t == PM_CHR ? 5 : 0);
		cr_assert_eq(at.rdev_minor, t == PM_BLK || t == PM_CHR ? 6 : 0);
		cr_assert_eq(entries(ROOT), t);
		cr_assert(later(ch.dir.mtime, ch.dir_before.mtime));
	}
	cr_assert_eq(nlink_of(ROOT), 3);
}

Test(dir, initial_size_and_times_are_kept)
{
	struct pm_new nw = { .type = PM_REG,
		             .set = PM_SET_SIZE | PM_SET_ATIME | PM_SET_MTIME,
		             .size = 12345,
		             .atime = { 11, 22 },
		             .mtime = { -33, 44 } };

	cr_assert_eq(pm_create(pool.st, ROOT, "f", 1, &nw, &ch), 0);
	cr_assert_eq(look(ROOT, "f"), 0);
	cr_assert_eq(at.size, 12345);
	cr_assert_eq(at.used, 0);
	cr_assert_eq(at.atime.tv_sec, 11);
	cr_assert_eq(at.atime.tv_nsec, 22);
	cr_assert_eq(at.mtime.tv_sec, -33);
	cr_assert_eq(at.mtime.tv_nsec, 44);
	nw.size = PM_FILE_MAX + 1;
	cr_assert_eq(pm_create(pool.st, ROOT, "g", 1, &nw, &ch), -EFBIG);
}

Test(dir, bad_names_are_refused_everywhere)
{
	static const struct {
		const char *s;
		size_t len;
		int err;
	} bad[] = { { "", 0, -EINVAL },
		    { ".", 1, -EINVAL },
		    { "..", 2, -EINVAL },
		    { "a/b", 3, -EINVAL },
		    { "a\0b", 3, -EINVAL },
		    { NULL, 256, -ENAMETOOLONG },
		    { NULL, 70000, -ENAMETOOLONG } };
	struct pm_new nw = { .type = PM_REG };
	char *big = malloc(70000);
	struct pm_id f = made(ROOT, "f", PM_REG);

	memset(big, 'x', 70000);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *s = bad[i].s ? bad[i].s : big;
		size_t n = bad[i].len;

		cr_assert_eq(pm_create(pool.st, ROOT, s, n, &nw, &ch), bad[i].err);
		cr_assert_eq(pm_remove(pool.st, ROOT, s, n, &ch), bad[i].err);
		cr_assert_eq(pm_rmdir(pool.st, ROOT, s, n, &ch), bad[i].err);
		cr_assert_eq(pm_link(pool.st, f, ROOT, s, n, &ch), bad[i].err);
		cr_assert_eq(pm_rename(pool.st, ROOT, "f", 1, ROOT, s, n, &ch), bad[i].err);
		cr_assert_eq(pm_rename(pool.st, ROOT, s, n, ROOT, "f", 1, &ch), bad[i].err);
		if (s[0] != '.')
			cr_assert_eq(pm_lookup(pool.st, ROOT, s, n, &at), bad[i].err);
	}
	free(big);
}

Test(dir, names_of_any_byte_and_full_length_work)
{
	char name[PM_NAME_MAX];

	for (unsigned b = 1; b < 256; b++) {
		struct pm_new nw = { .type = PM_REG };
		size_t len = b % 3 == 0 ? PM_NAME_MAX : b % 3;

		if (b == '/' || b == '.')
			continue;
		memset(name, (int)b, sizeof(name));
		cr_assert_eq(pm_create(pool.st, ROOT, name, len, &nw, &ch), 0);
		cr_assert_eq(pm_lookup(pool.st, ROOT, name, len, &at), 0);
		cr_assert(same(at.id, ch.obj.id));
		cr_assert_eq(pm_lookup(pool.st, ROOT, name, len == 1 ? 2 : len - 1, &at), -ENOENT);
	}
	cr_assert_eq(look(ROOT, "..."), -ENOENT);
	made(ROOT, "...", PM_REG);
	made(ROOT, ".a", PM_REG);
}

Test(dir, dot_and_dotdot_resolve)
{
	struct pm_id a = made(ROOT, "a", PM_DIR), b = made(a, "b", PM_DIR);

	cr_assert_eq(look(b, "."), 0);
	cr_assert(same(at.id, b));
	cr_assert_eq(look(b, ".."), 0);
	cr_assert(same(at.id, a));
	cr_assert_eq(look(ROOT, ".."), 0);
	cr_assert(same(at.id, ROOT));
}

Test(dir, operations_in_what_is_no_directory_fail)
{
	struct pm_id f = made(ROOT, "f", PM_REG), gone = made(ROOT, "g", PM_DIR);
	bool eof = false;

	cr_assert_eq(deldir(ROOT, "g"), 0);
	cr_assert_eq(look(f, "x"), -ENOTDIR);
	cr_assert_eq(make(f, "x", PM_REG), -ENOTDIR);
	cr_assert_eq(del(f, "x"), -ENOTDIR);
	cr_assert_eq(mv(f, "x", ROOT, "y"), -ENOTDIR);
	cr_assert_eq(mv(ROOT, "f", f, "y"), -ENOTDIR);
	cr_assert_eq(pm_link(pool.st, f, f, "x", 1, &ch), -ENOTDIR);
	cr_assert_eq(pm_readdir(pool.st, f, 0, false, NULL, NULL, &eof), -ENOTDIR);
	cr_assert_eq(look(gone, "x"), -ESTALE);
	cr_assert_eq(make(gone, "x", PM_REG), -ESTALE);
	cr_assert_eq(look(ROOT, "none"), -ENOENT);
	cr_assert_eq(del(ROOT, "none"), -ENOENT);
	cr_assert_eq(deldir(ROOT, "none"), -ENOENT);
	cr_assert_eq(mv(ROOT, "none", ROOT, "y"), -ENOENT);
}

Test(dir, an_existing_name_is_reported_with_its_object)
{
	struct pm_id f = made(ROOT, "f", PM_REG);

	memset(&ch, 0, sizeof(ch));
	cr_assert_eq(make(ROOT, "f", PM_DIR), -EEXIST);
	cr_assert(same(ch.obj.id, f));
	cr_assert_eq(ch.dir.id.ino, 0); /* nothing else was filled in */
}

Test(dir, exclusive_create_repeats_only_with_its_own_verifier)
{
	struct pm_new nw = { .type = PM_REG, .exclusive = true, .verf = "abcdefg" };
	struct pm_id id;

	cr_assert_eq(pm_create(pool.st, ROOT, "x", 1, &nw, &ch), 0);
	id = ch.obj.id;
	cr_assert_eq(pm_create(pool.st, ROOT, "x", 1, &nw, &ch), 0);
	cr_assert(same(ch.obj.id, id));
	cr_assert_neq(ch.lsn, 0);
	cr_assert_eq(entries(ROOT), 1);
	nw.verf[7] ^= 1;
	cr_assert_eq(pm_create(pool.st, ROOT, "x", 1, &nw, &ch), -EEXIST);
	made(ROOT, "plain", PM_REG);
	cr_assert_eq(pm_create(pool.st, ROOT, "plain", 5, &nw, &ch), -EEXIST);
}

Test(dir, remove_and_rmdir_keep_to_their_kinds)
{
	struct pm_id d = made(ROOT, "d", PM_DIR), f = made(d, "f", PM_REG);

	cr_assert_eq(del(ROOT, "d"), -EISDIR);
	cr_assert_eq(deldir(d, "f"), -ENOTDIR);
	cr_assert_eq(deldir(ROOT, "d"), -ENOTEMPTY);
	cr_assert_eq(nlink_of(ROOT), 3);
	cr_assert_eq(del(d, "f"), 0);
	cr_assert_eq(ch.obj.nlink, 0);
	cr_assert(same(ch.obj.id, f));
	cr_assert(same(ch.dir_before.id, d));
	cr_assert(same(ch.dir.id, d));
	cr_assert(later(ch.dir.mtime, ch.dir_before.mtime));
	cr_assert_eq(entries(d), 0);
	cr_assert_eq(pm_getattr(pool.st, f, &at), -ESTALE);
	cr_assert_eq(deldir(ROOT, "d"), 0);
	cr_assert_eq(ch.dir.nlink, 2);
	cr_assert_eq(pm_getattr(pool.st, d, &at), -ESTALE);
}

static uint64_t free_blocks(void)
{
	struct pm_space sp;

	pm_get_space(pool.st, &sp);
	return sp.free_blocks;
}

Test(dir, removal_gives_back_what_was_written_and_never_committed)
{
	struct pm_id keep = made(ROOT, "keep", PM_REG), id;
	struct pm_committed done;
	struct test_waiter w;
	struct pm_map m;
	uint64_t before = free_blocks();

	for (int over = 0; over < 2; over++) {
		id = made(ROOT, "f", PM_REG);
		waiter_init(&w);
		cr_assert_eq(pm_map_write(pool.st, id, 0, 1 << 20, &m, &w.w), 0);
		for (unsigned i = 0; i < m.nseg; i++)
			memset(m.seg[i].iov_base, 1, m.seg[i].iov_len);
		cr_assert_eq(
			waiter_result(&w, pm_commit(&m, m.len, PM_UNSTABLE, true, &done, &w.w)), 0);
		pm_unpin(&m);
		cr_assert_leq(free_blocks() + 256, before);
		cr_assert_eq(over ? mv(ROOT, "keep", ROOT, "f") : del(ROOT, "f"), 0);
		cr_assert_eq(free_blocks(), before);
	}
	cr_assert_eq(nlink_of(keep), 1);
}

Test(dir, a_pinned_file_outlives_its_name)
{
	struct pm_id id = made(ROOT, "f", PM_REG), other = made(ROOT, "g", PM_REG);
	struct pm_map m;
	struct pm_change c;

	cr_assert_eq(pm_allocate(pool.st, id, 0, 8 * PM_BLOCK, &c), 0);
	cr_assert_eq(pm_map_read(pool.st, id, 0, 100, &m), 0);
	cr_assert_eq(del(ROOT, "f"), 0);
	cr_assert_eq(pm_link(pool.st, id, ROOT, "again", 5, &ch), -ESTALE);
	cr_assert_eq(look(ROOT, "f"), -ENOENT);
	pm_unpin(&m);
	cr_assert_eq(pm_getattr(pool.st, id, &at), -ESTALE);
	cr_assert_eq(nlink_of(other), 1);
}

Test(dir, a_slot_used_again_has_another_generation)
{
	struct pm_id a = made(ROOT, "a", PM_REG), b;

	for (int i = 0; i < 600; i++) {
		cr_assert_eq(del(ROOT, "a"), 0);
		b = made(ROOT, "a", PM_REG);
		cr_assert(!same(a, b));
		cr_assert_eq(pm_getattr(pool.st, a, &at), -ESTALE);
		a = b;
	}
}

Test(dir, hard_links_share_one_object)
{
	struct pm_id f = made(ROOT, "f", PM_REG), d = made(ROOT, "d", PM_DIR);

	cr_assert_eq(pm_link(pool.st, f, d, "g", 1, &ch), 0);
	cr_assert_eq(ch.obj.nlink, 2);
	cr_assert_eq(entries(d), 1);
	cr_assert_eq(pm_link(pool.st, f, d, "g", 1, &ch), -EEXIST);
	cr_assert_eq(pm_link(pool.st, d, ROOT, "dd", 2, &ch), -EISDIR);
	cr_assert_eq(del(ROOT, "f"), 0);
	cr_assert_eq(ch.obj.nlink, 1);
	cr_assert_eq(look(d, "g"), 0);
	cr_assert(same(at.id, f));
	cr_assert_eq(del(d, "g"), 0);
	cr_assert_eq(pm_link(pool.st, f, d, "h", 1, &ch), -ESTALE);
}

Test(dir, symbolic_links_of_every_length_read_back)
{
	static const size_t lens[] = { 1, 127, 128, 129, 1000, PM_LINK_PATH };
	char target[PM_LINK_PATH + 1], buf[PM_LINK_PATH];
	struct pm_new nw = { .type = PM_LNK, .target = target };
	struct pm_id id = ROOT;
	size_t len;

	for (size_t i = 0; i < sizeof(target); i++)
		target[i] = (char)('a' + i % 23);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		char name = (char)('a' + i);

		nw.target_len = lens[i];
		cr_assert_eq(pm_create(pool.st, ROOT, &name, 1, &nw, &ch), 0);
		id = ch.obj.id;
		cr_assert_eq(ch.obj.size, lens[i]);
		cr_assert_eq(pm_readlink(pool.st, id, buf, sizeof(buf), &len), 0);
		cr_assert_eq(len, lens[i]);
		cr_assert_arr_eq(buf, target, len);
		memset(buf, '#', sizeof(buf));
		cr_assert_eq(pm_readlink(pool.st, id, buf, 1, &len), 0);
		cr_assert_eq(len, lens[i]);
		cr_assert(buf[0] == 'a' && buf[1] == '#');
		if (i % 2)
			cr_assert_eq(pm_remove(pool.st, ROOT, &name, 1, &ch), 0);
	}
	nw.target_len = PM_LINK_PATH + 1;
	cr_assert_eq(pm_create(pool.st, ROOT, "z", 1, &nw, &ch), -ENAMETOOLONG);
	nw.target_len = 0;
	cr_assert_eq(pm_create(pool.st, ROOT, "z", 1, &nw, &ch), -EINVAL);
	nw.target = "a\0b";
	nw.target_len = 3;
	cr_assert_eq(pm_create(pool.st, ROOT, "z", 1, &nw, &ch), -EINVAL);
	cr_assert_eq(pm_readlink(pool.st, ROOT, buf, 1, &len), -EINVAL);
}

Test(dir, rename_moves_a_file_within_and_between_directories)
{
	struct pm_id d = made(ROOT, "d", PM_DIR), f = made(ROOT, "f", PM_REG);

	cr_assert_eq(mv(ROOT, "f", ROOT, "g"), 0);
	cr_assert_eq(look(ROOT, "f"), -ENOENT);
	cr_assert_eq(mv(ROOT, "g", d, "h"), 0);
	cr_assert(same(ch.dir_before.id, ROOT) && same(ch.dir.id, ROOT));
	cr_assert(same(ch.dir2_before.id, d) && same(ch.dir2.id, d));
	cr_assert_eq(ch.dir2_before.used, 0);
	cr_assert_eq(ch.dir2.used, PM_BLOCK);
	cr_assert_eq(entries(ROOT), 1);
	cr_assert_eq(entries(d), 1);
	cr_assert(same(ch.obj.id, f));
	cr_assert_eq(look(d, "h"), 0);
	cr_assert(same(at.id, f));
}

static bool note_b(void *arg, const struct pm_dirent *de)
{
	if (de->len == 1 && de->name[0] == 'b')
		*(uint64_t *)arg = de->cookie;
	return true;
}

Test(dir, rename_over_a_file_removes_it_and_keeps_the_cookie)
{
	struct pm_id a = made(ROOT, "a", PM_REG), b = made(ROOT, "b", PM_REG), c;
	uint64_t before = 0, after = 0;
	bool eof;

	cr_assert_eq(pm_readdir(pool.st, ROOT, 0, false, note_b, &before, &eof), 0);
	cr_assert_eq(mv(ROOT, "a", ROOT, "b"), 0);
	cr_assert_eq(pm_readdir(pool.st, ROOT, 0, false, note_b, &after, &eof), 0);
	cr_assert_neq(before, 0);
	cr_assert_eq(before, after);
	cr_assert_eq(pm_getattr(pool.st, b, &at), -ESTALE);
	cr_assert_eq(look(ROOT, "b"), 0);
	cr_assert(same(at.id, a));
	cr_assert_eq(entries(ROOT), 1);
	c = made(ROOT, "c", PM_REG);
	cr_assert_eq(pm_link(pool.st, c, ROOT, "c2", 2, &ch), 0);
	cr_assert_eq(mv(ROOT, "b", ROOT, "c2"), 0);
	cr_assert_eq(nlink_of(c), 1);
}

Test(dir, rename_between_names_of_one_object_does_nothing)
{
	struct pm_id f = made(ROOT, "f", PM_REG);

	cr_assert_eq(pm_link(pool.st, f, ROOT, "g", 1, &ch), 0);
	cr_assert_eq(mv(ROOT, "f", ROOT, "g"), 0);
	cr_assert_eq(look(ROOT, "f"), 0);
	cr_assert_eq(look(ROOT, "g"), 0);
	cr_assert_eq(mv(ROOT, "f", ROOT, "f"), 0);
	cr_assert_eq(nlink_of(f), 2);
}

Test(dir, rename_of_directories_keeps_parents_and_link_counts)
{
	struct pm_id a = made(ROOT, "a", PM_DIR), b = made(ROOT, "b", PM_DIR),
		     s = made(a, "s", PM_DIR);
	struct pm_id e = made(b, "e", PM_DIR);

	cr_assert_eq(mv(a, "s", b, "t"), 0);
	cr_assert_eq(nlink_of(a), 2);
	cr_assert_eq(nlink_of(b), 4);
	cr_assert_eq(look(s, ".."), 0);
	cr_assert(same(at.id, b));
	cr_assert_eq(mv(b, "t", b, "e"), 0); /* over an empty one, same parent */
	cr_assert_eq(nlink_of(b), 3);
	cr_assert_eq(pm_getattr(pool.st, e, &at), -ESTALE);
	made(a, "x", PM_DIR);
	cr_assert_eq(mv(b, "e", a, "x"), 0); /* and between parents */
	cr_assert_eq(nlink_of(a), 3);
	cr_assert_eq(nlink_of(b), 2);
}

Test(dir, rename_refuses_what_cannot_be)
{
	struct pm_id a = made(ROOT, "a", PM_DIR), b = made(a, "b", PM_DIR),
		     c = made(b, "c", PM_DIR);

	made(ROOT, "f", PM_REG);
	cr_assert_eq(mv(ROOT, "a", a, "x"), -EINVAL);
	cr_assert_eq(mv(ROOT, "a", c, "x"), -EINVAL);
	cr_assert_eq(mv(ROOT, "a", ROOT, "f"), -ENOTDIR);
	cr_assert_eq(mv(ROOT, "f", ROOT, "a"), -EISDIR);
	made(ROOT, "d", PM_DIR);
	cr_assert_eq(mv(ROOT, "d", ROOT, "a"), -ENOTEMPTY);
	cr_assert_eq(look(ROOT, "d"), 0);
}

/* --- readdir --- */

struct scan {
	unsigned room; /* entries taken per call */
	uint64_t cookie;
	unsigned *seen; /* by number in the name */
	unsigned dots, total;
	bool attrs;
};

static bool take(void *arg, const struct pm_dirent *de)
{
	struct scan *s = arg;
	char num[16] = "";

	if (s->room == 0)
		return false;
	s->room--;
	cr_assert_gt(de->cookie, s->cookie);
	cr_assert_eq(de->cookie >> 63, 0);
	s->cookie = de->cookie;
	if (s->attrs)
		cr_assert(de->attr && same(de->attr->id, de->id));
	s->total++;
	if (de->name[0] == '.') {
		s->dots++;
		return true;
	}
	memcpy(num, de->name + 1, de->len - 1);
	s->seen[atoi(num)]++;
	return true;
}

Test(dir, readdir_of_an_empty_directory_shows_the_dots)
{
	struct pm_id d = made(ROOT, "d", PM_DIR);
	struct scan s = { .room = 10, .attrs = true };
	bool eof = false;

	cr_assert_eq(pm_readdir(pool.st, d, 0, true, take, &s, &eof), 0);
	cr_assert(eof);
	cr_assert_eq(s.total, 2);
	s = (struct scan){ .room = 1 };
	cr_assert_eq(pm_readdir(pool.st, d, 0, false, take, &s, &eof), 0);
	cr_assert(!eof);
	cr_assert_eq(s.cookie, 1);
	s = (struct scan){ .room = 1, .cookie = 1 };
	cr_assert_eq(pm_readdir(pool.st, d, 1, false, take, &s, &eof), 0);
	cr_assert(eof);
	cr_assert_eq(s.cookie, 2);
	cr_assert_eq(pm_readdir(pool.st, d, UINT64_MAX, false, take, &s, &eof), 0);
	cr_assert(eof);
}

Test(dir, readdir_survives_the_removal_of_a_third_of_20000_entries)
{
	enum { N = 20000 };
	struct pm_id d = made(ROOT, "big", PM_DIR);
	struct scan s = { .seen = calloc(N, sizeof(unsigned)), .attrs = true };
	unsigned gone = 0, added = 0;
	bool eof = false;
	char name[16];

	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		made(d, name, PM_REG);
	}
	while (!eof) {
		s.room = 100;
		cr_assert_eq(pm_readdir(pool.st, d, s.cookie, true, take, &s, &eof), 0);
		for (unsigned i = 0; i < 40 && gone < N; i++, gone += 3) {
			snprintf(name, sizeof(name), "f%u", gone);
			cr_assert_eq(del(d, name), 0);
			snprintf(name, sizeof(name), ".new%u", added++);
			if (added % 4 == 0)
				made(d, name, PM_REG);
		}
	}
	cr_assert_geq(gone, N);
	for (unsigned i = 0; i < N; i++)
		cr_assert(s.seen[i] == 1 || (i % 3 == 0 && s.seen[i] == 0), "f%u seen %u times", i,
		          s.seen[i]);
	free(s.seen);
}

Test(dir, everything_is_there_after_a_kill)
{
	struct pm_id d = made(ROOT, "d", PM_DIR), l;
	struct test_pool after;
	struct pm_new nw = { .type = PM_LNK, .target = pool.path, .target_len = strlen(pool.path) };
	char name[16], buf[200];
	size_t len;

	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		made(d, name, i % 5 ? PM_REG : PM_DIR);
		if (i % 3 == 0)
			cr_assert_eq(i % 5 ? del(d, name) : deldir(d, name), 0);
	}
	cr_assert_eq(pm_create(pool.st, ROOT, "l", 1, &nw, &ch), 0);
	l = ch.obj.id;
	pool_copy(&after, &pool, "dira");
	pool_drop(&pool);
	pool = after;
	pool_open(&pool, PM_CLWB);
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		cr_assert_eq(look(d, name), i % 3 ? 0 : -ENOENT);
	}
	cr_assert_eq(entries(d), 2000);
	cr_assert_eq(pm_readlink(pool.st, l, buf, sizeof(buf), &len), 0);
	cr_assert_eq(len, nw.target_len);
}

Test(dir, names_on_slow_media_become_durable)
{
	struct test_pool after;

	pool_close(&pool);
	pool_open(&pool, PM_MSYNC);
	for (unsigned i = 0; i < 500; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%u", i);
		made(ROOT, name, PM_REG);
	}
	cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
	pool_copy(&after, &pool, "dirm");
	pool_drop(&pool);
	pool = after;
	pool_open(&pool, PM_MSYNC);
	cr_assert_eq(look(ROOT, "f499"), 0);
	cr_assert_eq(entries(ROOT), 500);
}

Test(dir, a_full_pool_refuses_names_and_removal_makes_room)
{
	char name[PM_NAME_MAX + 1];
	unsigned n = 0, i;
	struct pm_id f;

	pool_drop(&pool);
	pool_new(&pool, "dirf", 16 << 20, PM_CLWB);
	f = made(ROOT, "f", PM_REG);
	for (;; n++) {
		int err;

		snprintf(name, sizeof(name), "%0255u", n);
		err = make(ROOT, name, PM_REG);
		if (err) {
			cr_assert_eq(err, -ENOSPC, "%d", err);
			break;
		}
	}
	cr_assert_gt(n, 1000);
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%0255u", i);
		cr_assert_eq(del(ROOT, name), 0);
	}
	cr_assert_eq(entries(ROOT), 1);
	for (i = 0; i < n / 2; i++) {
		snprintf(name, sizeof(name), "%0255u", i);
		made(ROOT, name, PM_REG);
	}
	cr_assert_eq(look(ROOT, "f"), 0);
	cr_assert(same(at.id, f));
}

Test(dir, a_read_only_store_refuses_changes)
{
	struct pm_open_opts o = { .read_only = true };
	struct pm_error why;

	made(ROOT, "f", PM_REG);
	pool_close(&pool);
	cr_assert_eq(pm_open(pool.path, &o, &pool.st, &why), 0, "%s", why.text);
	cr_assert_eq(look(ROOT, "f"), 0);
	cr_assert_eq(make(ROOT, "g", PM_REG), -EROFS);
	cr_assert_eq(del(ROOT, "f"), -EROFS);
	cr_assert_eq(mv(ROOT, "f", ROOT, "g"), -EROFS);
	cr_assert_eq(pm_link(pool.st, at.id, ROOT, "g", 1, &ch), -EROFS);
}
