/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes made once: the record of a change is there if and only if the change is, after a clean
 * close, a kill and a power cut at every fence; it is found until as many others were made as the
 * pool remembers; pools without room, and damaged records, cost the memory and nothing else.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

static const struct pm_id ROOT = { PM_ROOT_INO, 1 };
static struct test_pool pool;
static struct pm_change ch;
static struct pm_reply reply;

TestSuite(reply, .timeout = 120);

static struct pm_once key(uint32_t n)
{
	struct pm_once o = { .tag = n };
	uint64_t h = (n + 1) * 0x9e3779b97f4a7c15u;

	memcpy(o.key, &h, sizeof(h));
	memcpy(o.key + 8, &n, sizeof(n));
	return o;
}

static int known(struct pm_store *st, uint32_t n)
{
	struct pm_once o = key(n);

	return pm_once_find(st, &o, &reply);
}

/* --- one of each --- */

enum {
	CREATE,
	EXCLUSIVE,
	MKDIR,
	SYMLINK,
	MKNOD,
	LINK,
	RENAME,
	SETATTR,
	CUT,
	REMOVE,
	RMDIR,
	CHANGES
};

/* What the changes below need. */
static void prepare(struct pm_store *st)
{
	struct pm_new file = { .type = PM_REG, .mode = 0644, .set = PM_SET_SIZE, .size = 9000 };
	struct pm_new dir = { .type = PM_DIR, .mode = 0755 };

	cr_assert_eq(pm_create(st, ROOT, "file", 4, &file, &ch), 0);
	cr_assert_eq(pm_create(st, ROOT, "old", 3, &file, &ch), 0);
	cr_assert_eq(pm_create(st, ROOT, "gone", 4, &file, &ch), 0);
	cr_assert_eq(pm_create(st, ROOT, "empty", 5, &dir, &ch), 0);
	cr_assert_eq(pool_wait(st, ch.lsn), 0);
}

static struct pm_id file_id(struct pm_store *st)
{
	struct pm_attr a;

	cr_assert_eq(pm_lookup(st, ROOT, "file", 4, &a), 0);
	return a.id;
}

static int make(struct pm_store *st, int what, const struct pm_once *o)
{
	struct pm_new nw = { .type = what == MKDIR     ? PM_DIR
		                     : what == SYMLINK ? PM_LNK
		                     : what == MKNOD   ? PM_FIFO
		                                       : PM_REG,
		             .mode = 0600,
		             .target = "to",
		             .target_len = what == SYMLINK ? 2 : 0,
		             .exclusive = what == EXCLUSIVE,
		             .verf = "verify" };
	char name[8];

	snprintf(name, sizeof(name), "new%d", what);
	return pm_create_once(st, ROOT, name, strlen(name), &nw, o, &ch);
}

static int change(struct pm_store *st, int what, const struct pm_once *o)
{
	struct pm_setattr mode = { .set = PM_SET_MODE, .mode = 0711 };
	struct pm_setattr size = { .set = PM_SET_SIZE, .size = 5 };

	switch (what) {
	case LINK:
		return pm_link_once(st, file_id(st), ROOT, "link", 4, o, &ch);
	case RENAME:
		return pm_rename_once(st, ROOT, "old", 3, ROOT, "young", 5, o, &ch);
	case SETATTR:
		return pm_setattr_once(st, file_id(st), &mode, o, &ch);
	case CUT:
		return pm_setattr_once(st, file_id(st), &size, o, &ch);
	case REMOVE:
		return pm_remove_once(st, ROOT, "gone", 4, o, &ch);
	case RMDIR:
		return pm_rmdir_once(st, ROOT, "empty", 5, o, &ch);
	}
	return make(st, what, o);
}

/* Is the change to be seen? */
static bool made(struct pm_store *st, int what)
{
	struct pm_attr a, b;
	char name[8];

	switch (what) {
	case LINK:
		return pm_lookup(st, ROOT, "link", 4, &a) == 0;
	case RENAME:
		cr_assert_neq(pm_lookup(st, ROOT, "old", 3, &a) == 0,
		              pm_lookup(st, ROOT, "young", 5, &b) == 0);
		return pm_lookup(st, ROOT, "young", 5, &b) == 0;
	case SETATTR:
		cr_assert_eq(pm_getattr(st, file_id(st), &a), 0);
		return a.mode == 0711;
	case CUT:
		cr_assert_eq(pm_getattr(st, file_id(st), &a), 0);
		return a.size == 5;
	case REMOVE:
		return pm_lookup(st, ROOT, "gone", 4, &a) == -ENOENT;
	case RMDIR:
		return pm_lookup(st, ROOT, "empty", 5, &a) == -ENOENT;
	}
	snprintf(name, sizeof(name), "new%d", what);
	return pm_lookup(st, ROOT, name, strlen(name), &a) == 0;
}

/* --- records ------------------------------------------------------------------------------------
 */

static void all_known(struct pm_store *st, const struct pm_id *obj)
{
	for (int w = 0; w < CHANGES; w++) {
		struct pm_once o = key((uint32_t)w);

		cr_assert(made(st, w), "change %d is gone", w);
		cr_assert_eq(known(st, (uint32_t)w), 0, "change %d is forgotten", w);
		cr_assert_eq(reply.tag, (uint32_t)w);
		cr_assert_eq(reply.obj.ino, obj[w].ino, "change %d", w);
		cr_assert_eq(reply.obj.gen, obj[w].gen, "change %d", w);
		cr_assert_eq(change(st, w, &o), -EALREADY, "change %d is made again", w);
	}
	cr_assert_eq(known(st, CHANGES), -ENOENT);
}

static void problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	fprintf(stderr, "check: %s: %s\n", where, what);
}

static uint64_t problems(const char *path)
{
	struct pm_check_report rep;
	struct pm_error why;

	cr_assert_eq(pm_check(path, problem, NULL, NULL, &rep, &why), 0, "%s", why.text);
	return rep.problems;
}

static enum pm_method methods[] = { PM_FENCE, PM_CLWB, PM_MSYNC, PM_VOLATILE };

ParameterizedTestParameters(reply, every_change_is_remembered_across_kill_and_close)
{
	return cr_make_param_array(enum pm_method, methods, sizeof(methods) / sizeof(*methods));
}

ParameterizedTest(enum pm_method *m, reply, every_change_is_remembered_across_kill_and_close)
{
	struct pm_id obj[CHANGES];
	struct test_pool killed;

	pool_new(&pool, "reply", 32 << 20, *m);
	prepare(pool.st);
	for (int w = 0; w < CHANGES; w++) {
		struct pm_once o = key((uint32_t)w);

		cr_assert_eq(change(pool.st, w, &o), 0, "change %d", w);
		obj[w] = ch.obj.id;
		if (w == RENAME) /* of a directory entry; what moved */
			cr_assert_neq(obj[w].ino, 0);
	}
	cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
	all_known(pool.st, obj);
	pool_copy(&killed, &pool, "replyk");
	pool_open(&killed, *m);
	all_known(killed.st, obj);
	pool_close(&killed);
	cr_assert_eq(problems(killed.path), 0);
	pool_drop(&killed);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0);
	pool_open(&pool, *m);
	all_known(pool.st, obj);
	pool_drop(&pool);
}

Test(reply, changes_that_fail_or_do_nothing_leave_none)
{
	struct pm_setattr late = { .set = PM_SET_MODE, .ctime_guard = &(struct timespec){ 1, 1 } };
	struct pm_once o = key(1);
	struct pm_stats s;

	pool_new(&pool, "replyf", 32 << 20, PM_CLWB);
	prepare(pool.st);
	cr_assert_eq(pm_remove_once(pool.st, ROOT, "nobody", 6, &o, &ch), -ENOENT);
	cr_assert_eq(pm_rmdir_once(pool.st, ROOT, "file", 4, &o, &ch), -ENOTDIR);
	cr_assert_eq(pm_setattr_once(pool.st, file_id(pool.st), &late, &o, &ch), -EKEYEXPIRED);
	cr_assert_eq(pm_link(pool.st, file_id(pool.st), ROOT, "same", 4, &ch), 0);
	cr_assert_eq(pm_rename_once(pool.st, ROOT, "file", 4, ROOT, "same", 4, &o, &ch), 0);
	cr_assert_eq(known(pool.st, 1), -ENOENT);
	pm_get_stats(pool.st, &s);
	cr_assert_eq(s.replies, 0);
	cr_assert_eq(pm_remove_once(pool.st, ROOT, "gone", 4, &o, &ch), 0);
	cr_assert_eq(known(pool.st, 1), 0);
	pm_get_stats(pool.st, &s);
	cr_assert_eq(s.replies, 1);
	pool_drop(&pool);
}

static void touch(struct pm_store *st, uint32_t n)
{
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = n & 07777 };
	struct pm_once o = key(n);

	cr_assert_eq(pm_setattr_once(st, ROOT, &sa, &o, &ch), 0);
}

static void last_known(struct pm_store *st, uint32_t made_so_far, uint32_t slots)
{
	for (uint32_t i = 0; i < made_so_far; i++)
		cr_assert_eq(known(st, i), i + slots >= made_so_far ? 0 : -ENOENT, "%u of %u", i,
		             made_so_far);
}

Test(reply, exactly_the_last_n_are_remembered)
{
	struct test_pool killed;
	struct pm_info in;
	uint32_t n;

	pool_new(&pool, "replyn", 32 << 20, PM_CLWB);
	pm_get_info(pool.st, &in);
	n = in.reply_slots;
	cr_assert_eq(n, 2048);
	for (uint32_t i = 0; i < n + 700; i++)
		touch(pool.st, i);
	last_known(pool.st, n + 700, n);
	pool_copy(&killed, &pool, "replynk");
	cr_assert_eq(problems(killed.path), 0);
	pool_drop(&killed);
	pool_close(&pool);
	pool_open(&pool, PM_CLWB);
	last_known(pool.st, n + 700, n);
	for (uint32_t i = n + 700; i < 3 * n; i++)
		touch(pool.st, i);
	last_known(pool.st, 3 * n, n);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0);
	pool_drop(&pool);
}

/* --- age ---------------------------------------------------------------------------------------- */

static void open_with_age(uint32_t seconds)
{
	struct pm_open_opts o = { .once_age = seconds };
	struct pm_error why = { "" };

	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	cr_assert_eq(pm_open(pool.path, &o, &pool.st, &why), 0, "%s", why.text);
}

static void pass(uint64_t seconds) /* as if it had been open for so much longer */
{
	pool.st->up_zero += seconds;
}

Test(reply, a_record_counts_as_long_as_it_is_young)
{
	pool_mkfs(&pool, "replya", 32 << 20);
	open_with_age(1000);
	touch(pool.st, 1);
	pass(900);
	cr_assert_eq(known(pool.st, 1), 0);
	touch(pool.st, 2);
	pass(200);
	cr_assert_eq(known(pool.st, 1), -ENOENT);
	cr_assert_eq(known(pool.st, 2), 0);
	touch(pool.st, 1); /* asked for anew, it is made anew */
	cr_assert_eq(known(pool.st, 1), 0);
	pass(900);
	cr_assert_eq(known(pool.st, 1), 0, "the younger one counts");
	cr_assert_eq(known(pool.st, 2), -ENOENT);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0);
	open_with_age(1000);
	cr_assert_eq(known(pool.st, 1), 0);
	cr_assert_eq(known(pool.st, 2), -ENOENT);
	pool_close(&pool);
	open_with_age(0);
	cr_assert_eq(known(pool.st, 1), 0);
	cr_assert_eq(known(pool.st, 2), 0, "no bound, so it counts again");
	pool_drop(&pool);
}

Test(reply, age_grows_across_clean_closes)
{
	pool_mkfs(&pool, "replya", 32 << 20);
	open_with_age(1000);
	touch(pool.st, 1);
	for (int i = 0; i < 3; i++) {
		pass(300);
		pool_close(&pool);
		open_with_age(1000);
		cr_assert_eq(known(pool.st, 1), 0);
	}
	pass(200);
	cr_assert_eq(known(pool.st, 1), -ENOENT);
	pool_drop(&pool);
}

/* After a kill the pool's time goes on from the newest record: it never runs ahead. */
Test(reply, a_kill_makes_no_record_older)
{
	pool_mkfs(&pool, "replya", 32 << 20);
	open_with_age(1000);
	touch(pool.st, 1);
	pass(900);
	pool_kill(&pool);
	open_with_age(1000);
	pass(900);
	cr_assert_eq(known(pool.st, 1), 0, "nothing tells of the first 900 seconds");
	touch(pool.st, 2);
	pool_kill(&pool);
	open_with_age(1000);
	cr_assert_eq(known(pool.st, 1), 0);
	pass(200);
	cr_assert_eq(known(pool.st, 1), -ENOENT, "but of these");
	cr_assert_eq(known(pool.st, 2), 0);
	pool_drop(&pool);
}

/* --- other pools --------------------------------------------------------------------------------
 */

static void edit(const char *path, uint64_t at, void *p, size_t len, bool put)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	cr_assert(fd >= 0);
	cr_assert_eq(put ? pwrite(fd, p, len, (off_t)at) : pread(fd, p, len, (off_t)at),
	             (ssize_t)len);
	close(fd);
}

/* As a pool was made before there were records; or with a ring of @blocks. */
static void set_ring(const char *path, uint64_t blocks)
{
	for (unsigned i = 0; i < 2; i++) {
		struct pm_super s;

		edit(path, i * PM_BLOCK, &s, sizeof(s), false);
		s.reply_blocks = blocks;
		if (!blocks) {
			s.incompat &= ~PM_INCOMPAT_REPLIES;
			s.reply_start = 0;
		}
		s.saved_start = s.saved_blocks = s.saved_bytes = 0;
		s.crc = pm_crc(&s, sizeof(s), offsetof(struct pm_super, crc));
		edit(path, i * PM_BLOCK, &s, sizeof(s), true);
	}
}

ParameterizedTestParameters(reply, an_older_pool_gets_room)
{
	return cr_make_param_array(enum pm_method, methods, sizeof(methods) / sizeof(*methods));
}

ParameterizedTest(enum pm_method *m, reply, an_older_pool_gets_room)
{
	struct pm_info in;

	pool_new(&pool, "replyo", 32 << 20, *m);
	prepare(pool.st);
	for (uint32_t i = 0; i < 100; i++) /* bytes that must not come back as records */
		touch(pool.st, i);
	cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
	pool_close(&pool);
	set_ring(pool.path, 0);
	cr_assert_eq(problems(pool.path), 0);
	pool_open(&pool, *m);
	pm_get_info(pool.st, &in);
	cr_assert_eq(in.reply_slots, 2048);
	cr_assert_eq(known(pool.st, 5), -ENOENT);
	touch(pool.st, 5);
	cr_assert_eq(known(pool.st, 5), 0);
	cr_assert_eq(pool_wait(pool.st, ch.lsn), 0);
	pool_kill(&pool);
	cr_assert_eq(problems(pool.path), 0);
	pool_open(&pool, *m);
	cr_assert_eq(known(pool.st, 5), 0);
	cr_assert_eq(known(pool.st, 6), -ENOENT);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0);
	pool_drop(&pool);
}

static void fill_up(struct pm_store *st)
{
	struct pm_id id = file_id(st);
	struct test_waiter w;
	struct pm_committed done;
	struct pm_map m;

	for (uint64_t off = 1 << 20;; off += PM_BLOCK) {
		int err;

		waiter_init(&w);
		err = waiter_result(&w, pm_map_write(st, id, off, PM_BLOCK, &m, &w.w));
		if (err == -ENOSPC)
			return;
		cr_assert_eq(err, 0);
		waiter_init(&w);
		err = waiter_result(&w, pm_commit(&m, PM_BLOCK, PM_FILE_SYNC, false, &done, &w.w));
		cr_assert_eq(err, 0);
		pm_unpin(&m);
	}
}

Test(reply, a_pool_without_room_works_without_memory)
{
	struct pm_once o = key(1);
	struct pm_info in;

	pool_mkfs(&pool, "replyr", 16 << 20);
	set_ring(pool.path, 4);
	pool_open(&pool, PM_CLWB);
	pm_get_info(pool.st, &in);
	cr_assert_eq(in.reply_slots, 4 * PM_BLOCK_SLOTS);
	prepare(pool.st);
	fill_up(pool.st);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0);
	set_ring(pool.path, 0);
	pool_open(&pool, PM_CLWB);
	pm_get_info(pool.st, &in);
	cr_assert_eq(in.reply_slots, 0);
	cr_assert_eq(pm_remove_once(pool.st, ROOT, "gone", 4, &o, &ch), 0);
	cr_assert_eq(known(pool.st, 1), -ENOENT);
	cr_assert_eq(pm_remove_once(pool.st, ROOT, "gone", 4, &o, &ch), -ENOENT);
	cr_assert_eq(pm_remove(pool.st, ROOT, "file", 4, &ch), 0);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0);
	pool_open(&pool, PM_CLWB); /* there is room now */
	pm_get_info(pool.st, &in);
	cr_assert_eq(in.reply_slots, 2048);
	pool_drop(&pool);
}

/* --- damage -------------------------------------------------------------------------------------
 */

static char last_where[64];

static void note_problem(void *arg, const char *where, const char *what)
{
	(void)arg;
	(void)what;
	snprintf(last_where, sizeof(last_where), "%s", where);
}

Test(reply, a_damaged_record_is_named_and_forgotten)
{
	struct pm_check_report rep;
	struct pm_error why;
	struct pm_super s;
	struct pm_slot slot;
	uint64_t at;

	pool_new(&pool, "replyd", 32 << 20, PM_CLWB);
	for (uint32_t i = 0; i < 10; i++)
		touch(pool.st, i);
	pool_close(&pool);
	edit(pool.path, PM_BLOCK, &s, sizeof(s), false);
	at = s.reply_start * PM_BLOCK + 7 * sizeof(slot);
	for (size_t byte = 0; byte < sizeof(slot); byte++) {
		uint8_t b;

		edit(pool.path, at + byte, &b, 1, false);
		b ^= 0x10;
		edit(pool.path, at + byte, &b, 1, true);
		last_where[0] = '\0';
		cr_assert_eq(pm_check(pool.path, note_problem, NULL, NULL, &rep, &why), 0);
		cr_assert_eq(rep.problems, 1, "byte %zu", byte);
		cr_assert_str_eq(last_where, "reply record 7");
		b ^= 0x10;
		edit(pool.path, at + byte, &b, 1, true);
	}
	cr_assert_eq(problems(pool.path), 0);
	edit(pool.path, at, &slot, sizeof(slot), false);
	slot.ino ^= 1;
	edit(pool.path, at, &slot, sizeof(slot), true);
	pool_open(&pool, PM_CLWB);
	for (uint32_t i = 0; i < 10; i++)
		cr_assert_eq(known(pool.st, i), i == 7 ? -ENOENT : 0);
	for (uint32_t i = 10; i < 3000; i++)
		touch(pool.st, i);
	cr_assert_eq(known(pool.st, 2999), 0);
	pool_close(&pool);
	cr_assert_eq(problems(pool.path), 0); /* written over */
	pool_drop(&pool);
}

/* --- power cuts ---------------------------------------------------------------------------------
 * *
 *
 * The media is memory beside what would survive. The power fails at the n-th fence; nothing that no
 * fence covered survives, or all of it does. What lies between these two is for the crash tests. */

#define SIZE (16u << 20)

struct sim {
	struct pm_media m;
	uint8_t *safe;
	uint8_t *flushed; /* per line */
	unsigned fences, cut;
	bool all, dead;
};

static struct sim *sim_of(struct pm_media *m)
{
	return m->priv;
}

static void sim_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	memcpy(dst, src, len);
}

static void sim_zero(struct pm_media *m, void *dst, size_t len)
{
	(void)m;
	memset(dst, 0, len);
}

static void sim_flush(struct pm_media *m, const void *at, size_t len)
{
	size_t from = (size_t)((const uint8_t *)at - m->base);

	memset(sim_of(m)->flushed + from / 64, 1, (from + len - 1) / 64 - from / 64 + 1);
}

static void sim_drain(struct pm_media *m)
{
	struct sim *s = sim_of(m);

	if (s->dead)
		return;
	if (++s->fences == s->cut) {
		s->dead = true;
		if (s->all)
			memcpy(s->safe, m->base, SIZE);
		return;
	}
	for (size_t l = 0; l < SIZE / 64; l++) {
		if (s->flushed[l])
			memcpy(s->safe + l * 64, m->base + l * 64, 64);
		s->flushed[l] = 0;
	}
}

static int sim_sync(struct pm_media *m, const void *at, size_t len)
{
	sim_flush(m, at, len);
	sim_drain(m);
	return 0;
}

static void sim_close(struct pm_media *m)
{
	(void)m;
}

static const struct pm_media_ops sim_ops = { .store = sim_store,
	                                     .store_nt = sim_store,
	                                     .zero = sim_zero,
	                                     .flush = sim_flush,
	                                     .drain = sim_drain,
	                                     .sync = sim_sync,
	                                     .close = sim_close };

/* With @cut the power fails at that fence of the opening. */
static struct pm_store *power_on(struct sim *s, const uint8_t *image, unsigned cut, bool all)
{
	struct pm_open_opts o = { .method = PM_CLWB };
	struct pm_error why = { "" };
	struct pm_store *st = NULL;

	*s = (struct sim){ .cut = cut, .all = all };
	s->m = (struct pm_media){
		.ops = &sim_ops, .len = SIZE, .method = PM_CLWB, .fd = -1, .priv = s
	};
	s->m.base = s->m.view = calloc(1, SIZE);
	s->safe = calloc(1, SIZE);
	s->flushed = calloc(1, SIZE / 64);
	if (image) {
		memcpy(s->m.base, image, SIZE);
		memcpy(s->safe, image, SIZE);
	} else {
		cr_assert_eq(mkfs_media(&s->m, &(struct pm_mkfs_opts){ .label = "x" }, &why), 0);
	}
	cr_assert_eq(store_open_media(&s->m, &o, &st, &why), 0, "%s", why.text);
	return st;
}

static void power_off(struct sim *s)
{
	free(s->m.base);
	free(s->safe);
	free(s->flushed);
}

/* Cut the power at fence @cut of change @what; what was answered must have survived. Returns false
 * once the change needs fewer fences. */
static bool cut_once(const uint8_t *image, int what, unsigned cut, bool all)
{
	struct pm_once o = key(1);
	struct sim s, after;
	struct pm_store *st = power_on(&s, image, 0, all);
	bool is_made, is_known, cut_off;

	s.cut = s.fences + cut;
	cr_assert_eq(change(st, what, &o), 0);
	cut_off = s.dead;
	sim_drain(&s.m); /* the next fence covers what is stored in place */
	store_drop(st);
	st = power_on(&after, s.safe, 0, false);
	is_made = made(st, what);
	is_known = known(st, 1) == 0;
	cr_assert_eq(is_made, is_known, "change %d, fence %u: made %d, remembered %d", what, cut,
	             is_made, is_known);
	if (!cut_off)
		cr_assert(is_made, "change %d was answered", what);
	cr_assert_eq(change(st, what, &o), is_made ? -EALREADY : 0);
	cr_assert(made(st, what));
	store_drop(st);
	power_off(&after);
	power_off(&s);
	return cut_off;
}

Test(reply, change_and_record_survive_a_power_cut_together_or_not_at_all)
{
	uint8_t *image = malloc(SIZE);
	struct pm_store *st;
	struct sim s;

	st = power_on(&s, NULL, 0, false);
	prepare(st);
	cr_assert_eq(pm_close(st), 0);
	memcpy(image, s.safe, SIZE);
	power_off(&s);
	for (int what = 0; what < CHANGES; what++) {
		unsigned cut = 1;

		while (cut_once(image, what, cut, false))
			cut++;
		cr_assert_gt(cut, 1, "change %d without a fence", what);
		for (unsigned c = 1; c < cut; c++)
			cut_once(image, what, c, true);
	}
	free(image);
}

/* --- the opening that gives an older pool its ring --- */

static void strip(uint8_t *image)
{
	for (unsigned i = 0; i < 2; i++) {
		struct pm_super *s = (struct pm_super *)(void *)(image + i * PM_BLOCK);

		/* what was there is old bytes now */
		memset(image + s->reply_start * PM_BLOCK, 0xee, s->reply_blocks * PM_BLOCK);
		s->incompat &= ~PM_INCOMPAT_REPLIES;
		s->reply_start = s->reply_blocks = 0;
		s->saved_start = s->saved_blocks = s->saved_bytes = 0;
		s->crc = pm_crc(s, sizeof(*s), offsetof(struct pm_super, crc));
	}
}

static bool cut_opening(const uint8_t *image, unsigned cut, bool all)
{
	struct pm_check_report rep = { 0 };
	struct pm_once o = key(1);
	struct sim s, after;
	struct pm_store *st = power_on(&s, image, cut, all);
	bool cut_off = s.dead;

	store_drop(st);
	st = power_on(&after, s.safe, 0, false);
	cr_assert_eq(st->info.reply_slots, 2048);
	cr_assert_eq(store_check(st, problem, NULL, NULL, &rep), 0);
	cr_assert_eq(rep.problems, 0, "fence %u", cut);
	cr_assert_eq(change(st, REMOVE, &o), 0);
	cr_assert_eq(known(st, 1), 0);
	store_drop(st);
	power_off(&after);
	power_off(&s);
	return cut_off;
}

Test(reply, an_older_pool_gets_room_whenever_the_power_fails)
{
	uint8_t *image = malloc(SIZE);
	unsigned cut = 1;
	struct pm_store *st;
	struct sim s;

	st = power_on(&s, NULL, 0, false);
	prepare(st);
	cr_assert_eq(pm_close(st), 0);
	memcpy(image, s.safe, SIZE);
	power_off(&s);
	strip(image);
	for (; cut_opening(image, cut, false); cut++)
		cut_opening(image, cut, true);
	cr_assert_gt(cut, 3);
	free(image);
}
