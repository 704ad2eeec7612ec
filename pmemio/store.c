/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store.c - open, recover, close
 *
 * Open:   superblock
 *         its next copy: next boot, not clean (the first write)
 *         replay, journal emptied
 *         inode table; free space, loaded after a clean close, else gathered from the inodes
 *         orphans freed
 * Close:  unstable writes committed, checkpoint, free space stored in free blocks, clean
 *
 * Every step of an open may be cut off and done again: what it leaves on the media is either the
 * old state or one that the same steps lead on from.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <sodium.h>

#include "pmemio/core.h"
#include "pmemio/words.h"

#define ZERO_LEN (1u << 20)

void store_log(struct pm_store *st, int priority, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!st->opts.log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	st->opts.log(st->opts.log_arg, priority, text);
}

static uint64_t now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* --- free space gathered from the inodes ----------------------------------------------------- */

struct gather {
	struct pm_store *st;
	uint64_t ino; /* being walked */
	uint64_t *orphan;
	size_t norphan, cap;
	uint64_t bad;
};

static void complain(struct gather *g, const char *what, uint64_t blk)
{
	if (g->bad++ < 16)
		store_log(g->st, 3, "inode %llu: %s (block 0x%llx); run `berth check`",
		          (unsigned long long)g->ino, what, (unsigned long long)blk);
	STAT_ADD(g->st, checksum_errors, 1);
}

static bool mark(struct gather *g, uint64_t start, uint64_t len)
{
	const struct pm_super *s = &g->st->super;
	uint64_t taken;

	if (start < s->data_start || len > s->blocks || start > s->blocks - len) {
		complain(g, "names blocks outside the pool", start);
		return false;
	}
	taken = blk_next_marked(g->st, start, len);

	if (taken < start + len)
		complain(g, "shares a block", taken);
	blk_mark(g->st, start, len);
	return true;
}

static int mark_node(void *arg, uint64_t blk, const struct pm_bnode *node)
{
	(void)node;
	return mark(arg, blk, 1) ? 0 : -EIO;
}

static int mark_extent(void *arg, const struct ext *e)
{
	mark(arg, e->pblk, e->len);
	return 0;
}

static bool has_extents(const struct pm_inode *in)
{
	return in->type == PM_REG || (in->type == PM_LNK && in->size > PM_INLINE_LINK);
}

static int gather_inode(struct gather *g, const struct pm_inode *in)
{
	if ((in->flags & PM_IF_TREE) && in->u.tree.root &&
	    bt_walk(g->st, NULL, in, false, mark_node, g))
		complain(g, "its tree is damaged", in->u.tree.root);
	if (has_extents(in) && ext_each(g->st, NULL, in, mark_extent, g))
		complain(g, "its extents are damaged", 0);
	if (in->nlink || in->ino <= PM_ROOT_INO)
		return 0;
	if (g->norphan == g->cap) {
		size_t cap = g->cap ? g->cap * 2 : 64;
		uint64_t *o = realloc(g->orphan, cap * sizeof(*o));

		if (!o)
			return -ENOMEM;
		g->orphan = o;
		g->cap = cap;
	}
	g->orphan[g->norphan++] = in->ino;
	return 0;
}

static int gather_all(struct gather *g)
{
	struct pm_store *st = g->st;
	uint64_t n = ino_count(st);
	int err = 0;

	for (uint64_t ino = 0; ino < n && !err; ino++) {
		const struct pm_inode *in = ino_at(st, ino);

		g->ino = ino;
		switch (ino_verify(in, ino)) {
		case 0:
			if (in->flags & PM_IF_DOUBT)
				complain(g, "was being repaired, and that was cut off", st->super.data_start);
			err = gather_inode(g, in);
			if (!err)
				err = quota_count(st, in);
			break;
		case -ENOENT:
			if (ino > PM_ROOT_INO)
				table_slot(st, ino, true);
			break;
		default:
			complain(g, "is damaged", st->super.data_start);
		}
	}
	return err;
}

/* Orphans lose their blocks only now: their freeing needs transactions, and those the whole of free
 * space. */
static void reap_orphans(struct gather *g)
{
	for (size_t i = 0; i < g->norphan; i++) {
		int err = file_reap(g->st, g->orphan[i]);

		if (err)
			store_log(g->st, 4, "orphan inode %llu could not be freed: %s",
			          (unsigned long long)g->orphan[i], strerror(-err));
	}
}

/* --- stored free space ----------------------------------------------------------------------- */

static bool load_space(struct pm_store *st, const struct pm_super *old)
{
	const uint8_t *run = st->media.view + old->saved_start * PM_BLOCK;
	size_t used, at, slots = table_save_size(st);

	if (!(old->state & PM_STATE_CLEAN) || !old->saved_bytes)
		return false;
	if (pm_crc(run, old->saved_bytes, 0) != old->saved_crc ||
	    alloc_load(st, run + 8, old->saved_bytes - 8, &used) ||
	    (at = 8 + used + slots) > old->saved_bytes ||
	    table_load(st, run + 8 + used, slots) ||
	    quota_load(st, run + at, old->saved_bytes - at)) {
		store_log(st, 4, "the stored free space is damaged; gathering it from the inodes");
		return false;
	}
	return true;
}

/* The run is free space itself: it need not outlive the next open. Failing costs the next open a
 * walk, no more. */
static void save_space(struct pm_store *st)
{
	struct pm_super *s = &st->super;
	size_t most = 16 + alloc_save_size(st) + 2 * PM_BLOCK * 8 + table_save_size(st) +
	              quota_save_size(st),
	       n = 8;
	uint64_t want = (most + PM_BLOCK - 1) / PM_BLOCK;
	struct blk_run run;
	uint8_t *buf;
	uint32_t crc;

	s->saved_start = s->saved_blocks = s->saved_bytes = 0;
	if (most > PM_SAVED_MAX || blk_take(st, 0, want, 0, BLK_META | BLK_WHOLE, &run))
		return;
	blk_give(st, run.start, run.len);
	buf = calloc(1, most + 8);
	if (!buf)
		return;
	n += alloc_save(st, buf + n);
	n += table_save(st, buf + n);
	n += quota_save(st, buf + n);
	n = (n + 7) & ~(size_t)7;
	crc = pm_crc(buf, n, 0);
	med_store(st, run.start * PM_BLOCK, buf, n);
	free(buf);
	if (med_settle(st, run.start * PM_BLOCK, n))
		return;
	s->saved_start = run.start;
	s->saved_blocks = run.len;
	s->saved_bytes = n;
	s->saved_crc = crc;
}

/* --- the pool's clock ------------------------------------------------------------------------ */

static uint64_t monotonic_sec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec;
}

uint64_t store_uptime(const struct pm_store *st)
{
	return st->up_zero + monotonic_sec();
}

void store_up_since(struct pm_store *st, uint64_t uptime)
{
	uint64_t zero = uptime - monotonic_sec();

	if ((int64_t)(zero - st->up_zero) > 0)
		st->up_zero = zero;
}

/* --- opening --------------------------------------------------------------------------------- */

static int reset_space(struct pm_store *st, struct pm_error *why)
{
	int err;

	alloc_close(st);
	table_close(st);
	quota_close(st);
	err = alloc_open(st);
	if (!err && sum_on(st))
		blk_mark(st, st->super.sum_start, st->super.sum_blocks);
	if (!err)
		err = table_open(st, why);
	return err ? err : quota_open(st);
}

static int find_space(struct pm_store *st, const struct pm_super *old, struct gather *g,
                      struct pm_error *why)
{
	int err = reset_space(st, why);

	if (err || (!st->repair && load_space(st, old)))
		return err;
	err = reset_space(st, why);
	for (uint64_t c = 0; !err && table_found(st) && c < ino_count(st) / PM_CHUNK_INODES; c++)
		blk_mark(st, table_chunk(st, c), PM_CHUNK_BLOCKS);
	if (!err && (st->super.incompat & PM_INCOMPAT_REPLIES))
		blk_mark(st, st->super.reply_start, st->super.reply_blocks);
	if (!err)
		err = gather_all(g);
	st->doubt = g->bad && !st->repair;
	if (st->doubt)
		store_log(st, 3, "what damaged structures own is not known, so no block is handed out: "
		                 "stop, and run `berth check --repair`");
	if (g->bad > 16)
		store_log(st, 3, "%llu more damaged structures", (unsigned long long)(g->bad - 16));
	return err;
}

static int fill_info(struct pm_store *st, bool was_clean)
{
	struct pm_info *i = &st->info;

	memcpy(i->uuid, st->super.uuid, sizeof(i->uuid));
	memcpy(i->label, st->super.label, sizeof(i->label));
	i->label[sizeof(i->label) - 1] = '\0';
	i->size = st->super.blocks * PM_BLOCK;
	i->version = st->super.version;
	i->boot = st->super.boot;
	i->method = st->media.method;
	i->reason = st->media.reason;
	i->not_promised = st->media.not_promised;
	i->gran = st->media.gran;
	i->map_sync = st->media.map_sync;
	i->was_clean = was_clean;
	i->data_checksum = sum_on(st);
	return 0;
}

/* All memory that the store holds, in any state of being built. */
static void store_free(struct pm_store *st)
{
	tx_destroy(st->tx);
	workers_close(st);
	faults_close(st);
	words_close(st);
	reply_close(st);
	quota_close(st);
	table_close(st);
	alloc_close(st);
	journal_free(st);
	if (st->zero.base)
		munmap(st->zero.base, st->zero.len);
	pthread_mutex_destroy(&st->lock);
	pthread_mutex_destroy(&st->super_lock);
	free(st);
}

/* The newest superblock may have been damaged, and the one before it says what was true before. The
 * journal knows of every boot. */
static void judge_stale(struct pm_store *st)
{
	struct pm_super *s = &st->super;
	uint64_t boot = journal_boot(st);

	if (boot <= s->boot)
		return;
	store_log(st, 4, "the newest superblock is damaged; going on from the one before it");
	s->boot = boot;
	s->state = PM_STATE_UNSTABLE; /* for all that is known */
	s->saved_start = s->saved_blocks = s->saved_bytes = 0;
}

static int recover(struct pm_store *st, struct pm_error *why)
{
	struct gather g = { .st = st };
	struct pm_super old;
	int err = super_read(&st->media, st->read_only, &st->super, why);

	if (err)
		return err;
	judge_stale(st);
	st->up_zero = st->super.uptime - monotonic_sec();
	old = st->super;
	if (!st->read_only)
		err = super_begin(st);
	if (err) {
		why_set(why, "superblock cannot be written: %s", strerror(-err));
		return err;
	}
	fill_info(st, old.state & PM_STATE_CLEAN);
	err = journal_open(st, why);
	if (!err && !st->read_only)
		err = super_convert(st);
	if (err)
		return err;
	st->info.version = st->super.version;
	st->tx = tx_alloc(st);
	err = st->tx ? 0 : -ENOMEM;
	if (!err && sum_on(st))
		err = words_open(st);
	if (!err)
		err = find_space(st, &old, &g, why);
	if (!err && !st->read_only && !st->repair)
		err = reply_make(st);
	if (!err)
		err = reply_open(st);
	if (!err)
		err = files_init(st);
	if (!err)
		err = journal_start(st);
	if (!err && !st->read_only && !st->repair)
		reap_orphans(&g);
	else if (err && st->files)
		files_fini(st);
	free(g.orphan);
	return err;
}

static int make_zero(struct pm_store *st)
{
	void *p = mmap(NULL, ZERO_LEN, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	st->zero = (struct pm_region){ p, ZERO_LEN };
	return 0;
}

static int open_media(struct pm_media *m, const struct pm_open_opts *o, bool repair,
                      struct pm_store **out, struct pm_error *why)
{
	uint64_t t0 = now_usec();
	struct pm_store *st = aligned_alloc(_Alignof(struct pm_store), sizeof(*st));
	int err;

	if (!st)
		return -ENOMEM;
	*st = (struct pm_store){ .media = *m };
	st->opts = *o;
	st->read_only = o->read_only;
	st->repair = repair;
	pthread_mutex_init(&st->lock, NULL);
	pthread_mutex_init(&st->super_lock, NULL);
	err = sodium_init() < 0 ? -EIO : make_zero(st);
	if (!err)
		err = workers_open(st);
	if (!err)
		err = faults_open(st);
	if (!err)
		err = recover(st, why);
	if (err) {
		if (why && !why->text[0])
			why_set(why, "cannot be opened: %s", strerror(-err));
		store_free(st);
		return err;
	}
	st->workers->writes = !media_slow(st) && !st->repair && !st->doubt;
	st->info.open_usec = now_usec() - t0;
	*out = st;
	return 0;
}

int store_open_media(struct pm_media *m, const struct pm_open_opts *o, struct pm_store **out,
                     struct pm_error *why)
{
	return open_media(m, o, false, out, why);
}

int store_open_repair_media(struct pm_media *m, const struct pm_open_opts *o, struct pm_store **out,
                            struct pm_error *why)
{
	return open_media(m, o, true, out, why);
}

static int open_path(const char *path, const struct pm_open_opts *opts, bool repair,
                     struct pm_store **out, struct pm_error *why)
{
	struct pm_error plain = { .text = "" };
	struct pm_media m;
	int err = media_open(path, opts, &m, &plain);

	if (!err) {
		err = open_media(&m, opts, repair, out, &plain);
		if (err)
			m.ops->close(&m);
	}
	if (err && why) {
		if (!plain.text[0])
			why_set(&plain, "%s", strerror(-err));
		snprintf(why->text, sizeof(why->text), "pool %.180s: %.300s", path, plain.text);
	}
	return err;
}

int pm_open(const char *path, const struct pm_open_opts *opts, struct pm_store **out,
            struct pm_error *why)
{
	return open_path(path, opts, false, out, why);
}

int store_open_repair(const char *path, const struct pm_open_opts *o, struct pm_store **out,
                      struct pm_error *why)
{
	return open_path(path, o, true, out, why);
}

/* --- closing --------------------------------------------------------------------------------- */

static int close_clean(struct pm_store *st)
{
	int err = files_settle(st), rc = journal_stop(st);

	if (err || rc)
		return err ? err : rc;
	if (!st->repair && !st->doubt) {
		store_lock(st);
		save_space(st);
		store_unlock(st);
	}
	st->super.state = PM_STATE_CLEAN;
	return super_write(st);
}

int pm_close(struct pm_store *st)
{
	struct pm_media m = st->media;
	struct pm_stats now;
	int err;

	pm_get_stats(st, &now);
	if (now.pins)
		return -EBUSY;
	err = st->read_only ? 0 : close_clean(st);
	if (err)
		store_log(st, 3, "closed, but not clean: %s", strerror(-err));
	files_fini(st);
	store_free(st);
	m.ops->close(&m);
	return err;
}

int store_close_repair(struct pm_store *st)
{
	return pm_close(st);
}

void store_drop(struct pm_store *st)
{
	struct pm_media m = st->media;

	journal_drop(st);
	files_fini(st);
	store_free(st);
	m.ops->close(&m);
}

/* --- questions ------------------------------------------------------------------------------- */

void pm_get_info(struct pm_store *st, struct pm_info *out)
{
	*out = st->info;
}

void pm_get_regions(struct pm_store *st, struct pm_region *pool, struct pm_region *zero)
{
	*pool = (struct pm_region){ st->media.base, st->media.len };
	*zero = st->zero;
}

static void stats_add(struct pm_stats *sum, const struct pm_stats *s)
{
	const uint64_t *from = (const uint64_t *)s;
	uint64_t *to = (uint64_t *)sum;

	static_assert(sizeof(*s) % sizeof(*to) == 0, "nothing but counters");
	for (size_t i = 0; i < sizeof(*s) / sizeof(*to); i++)
		to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void pm_get_stats(struct pm_store *st, struct pm_stats *out)
{
	struct pm_workers *ws = st->workers;
	unsigned n = __atomic_load_n(&ws->n, __ATOMIC_ACQUIRE);

	*out = (struct pm_stats){ .transactions = 0 };
	stats_add(out, &st->stats);
	for (unsigned i = 0; i < n; i++)
		stats_add(out, &ws->at[i]->stats);
}

void pm_get_space(struct pm_store *st, struct pm_space *out)
{
	uint64_t used, nfree;

	store_lock(st);
	alloc_count(st, out);
	table_count(st, &used, &nfree);
	store_unlock(st);
	out->inodes = used;
	out->free_inodes = nfree + out->free_blocks / PM_CHUNK_BLOCKS * PM_CHUNK_INODES;
}
