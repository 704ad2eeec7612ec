/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair.c - put right what has one right answer, say what has none
 *
 * The pool is opened read-write with everything that open can work around, then:
 *
 *   journal     replayed by the opening; around damaged records, see replay.c
 *   census      which inode slots are good, which damaged
 *   claims      what readable entries say of the inodes they lead to
 *   salvage     damaged inodes made anew from their claims and what is left of them, else set free
 *   own         every block in use marked, so that nothing new lands on it
 *   table       inode 0's own tree, if its chunks had to be looked for (repair_table.c, at open)
 *   rebuild     trees and extent lists with unreadable or impossible parts, from what is readable
 *   count       link counts, parents, sizes of directories, blocks
 *   limits      the quota file
 *   adopt       inodes without a name go to lost+found
 *
 * Every change is a transaction after which the pool is no more damaged than before, so a repair
 * that is cut off is simply run again. Blocks are never given back: with two owners of one block
 * about, only a fresh look at what is in use can tell what is free, and the next open takes that
 * look. Whatever is dropped is named. The last word has pm_check: what it still finds is what could
 * not be repaired.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmemio/repair.h"

void rep_say(struct repair *r, const char *where, const char *fmt, ...)
{
	char what[600];
	va_list ap;

	r->n++;
	if (!r->fixed)
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	for (char *p = what; *p; p++) /* names may hold any byte */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	r->fixed(r->arg, where, what);
}

struct where rep_where(const struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	struct where w;

	snprintf(w.text, sizeof(w.text), "%s %llu",
	         ino == 0                                          ? "inode table"
	         : r->obj[ino].state == LIVE && in->type == PM_DIR ? "directory"
	                                                           : "inode",
	         ULL(ino));
	return w;
}

int rep_commit(struct repair *r, struct pm_tx *tx)
{
	int err = tx_commit(tx, NULL);

	store_unlock(r->st);
	return err;
}

struct pm_tx *rep_begin(struct repair *r)
{
	store_lock(r->st);
	return tx_begin(r->st);
}

/* --- journal --- */

/* Opening has done it. */
static void journal(struct repair *r)
{
	const struct pm_lost *l = &r->st->lost;
	char where[32];

	if (!l->n)
		return;
	snprintf(where, sizeof(where), "journal lane %u", l->lane);
	rep_say(r, where, "went on without %llu damaged record%s at byte %llu of the pool; %s", ULL(l->n),
	        l->n > 1 ? "s" : "", ULL(l->at),
	        l->in_place ? "all later changes are in place, so what was changed there should be, too"
	                    : "what was changed there is lost as far as it had not reached its place");
}

/* --- reply records --- */

/* A record that cannot be read is forgotten; an empty one takes its place in the order of the ring.
 */
static int fix_slot(struct repair *r, const struct pm_slot *slot, uint64_t i, uint64_t n)
{
	const struct pm_slot *prev = &slot[(i + n - 1) % n], *next = &slot[(i + 1) % n];
	uint64_t boot = r->st->super.boot;
	struct pm_tx *tx;
	struct pm_slot *s;
	char where[40];

	tx = rep_begin(r);
	s = tx_edit(tx, &slot[i], sizeof(*s), TX_SLOT);
	*s = (struct pm_slot){ .seq = 0 };
	if (prev->seq && !slot_fault(prev, boot))
		s->seq = prev->seq + 1;
	else if (next->seq && !slot_fault(next, boot))
		s->seq = next->seq - 1;
	else
		s->seq = 1;
	snprintf(where, sizeof(where), "reply record %llu", ULL(i));
	rep_say(r, where, "dropped: a repetition of that request would be carried out");
	return rep_commit(r, tx);
}

static int replies(struct repair *r)
{
	const struct pm_super *sb = &r->st->super;
	const struct pm_slot *slot = blk_ptr(r->st, sb->reply_start);
	uint64_t n = sb->reply_blocks * PM_BLOCK_SLOTS;
	int err = 0;

	if (!(sb->incompat & PM_INCOMPAT_REPLIES))
		return 0;
	for (uint64_t i = 0; i < n && !err; i++)
		if (slot_fault(&slot[i], sb->boot) ||
		    (i && !slot[i].seq && slot[i - 1].seq && slot[(i + 1) % n].seq))
			err = fix_slot(r, slot, i, n);
	return err;
}

/* --- limits ---------------------------------------------------------------------------------- */

static void say_quota(void *arg, const char *what)
{
	rep_say(arg, "quota file", "%s", what);
}

static bool may_be_quota(const struct repair *r, uint64_t ino)
{
	return ino > PM_ROOT_INO && ino < r->nino && r->obj[ino].state == LIVE &&
	       !r->obj[ino].claims && ino_at(r->st, ino)->type == PM_REG;
}

/* The file of limits has no name; inode 0 leads to it, and if that is wrong its first block shows it. */
static uint64_t find_quota(const struct repair *r)
{
	uint64_t ino = ino_at(r->st, 0)->parent;

	if (may_be_quota(r, ino) && quota_is_file(r->st, ino_at(r->st, ino)))
		return ino;
	for (uint64_t i = PM_ROOT_INO + 1; i < r->nino; i++)
		if (may_be_quota(r, i) && quota_is_file(r->st, ino_at(r->st, i)))
			return i;
	return may_be_quota(r, ino) ? ino : 0;
}

static int limits(struct repair *r)
{
	const struct pm_inode *table = ino_at(r->st, 0);
	uint64_t ino = r->obj[0].state == LIVE ? find_quota(r) : 0;
	struct pm_tx *tx;
	int err = 0;

	if (r->obj[0].state != LIVE)
		return 0;
	if (table->parent != ino) {
		rep_say(r, "quota file", ino ? "found again" : "lost: no limits are in force, set them again");
		tx = rep_begin(r);
		ino_edit(tx, table)->parent = ino;
		err = rep_commit(r, tx);
	}
	r->quota = ino;
	if (!err && ino) {
		store_lock(r->st);
		err = quota_mend(r->st, ino, say_quota, r);
		store_unlock(r->st);
	}
	return err;
}

/* --- entry --- */

static int repair_store(struct repair *r)
{
	struct pm_store *st = r->st;
	int err;

	r->nino = ino_count(st);
	r->nblk = st->super.blocks;
	journal(r);
	r->obj = calloc(r->nino, sizeof(*r->obj));
	r->meta = calloc(r->nblk / 64 + 1, 8);
	r->data = calloc(r->nblk / 64 + 1, 8);
	if (!r->obj || !r->meta || !r->data)
		return -ENOMEM;
	rep_census(r);
	rep_claims(r);
	memset(r->meta, 0, (r->nblk / 64 + 1) * 8); /* of damaged inodes too, so far */
	err = rep_bad_inodes(r);
	if (!err)
		err = rep_own(r);
	if (!err)
		err = rep_table(r);
	if (!err)
		err = replies(r);
	if (!err)
		err = rep_contents(r);
	if (!err)
		err = limits(r);
	if (!err)
		err = rep_links(r);
	if (!err)
		err = rep_adopt(r);
	free(r->obj);
	free(r->meta);
	free(r->data);
	free(r->leaf);
	return err;
}

/* As pm_check, and all that repairs. Whoever opens the pool for us says what it is called. */
static int look(const struct repair_pool *pool, void (*tell)(void *, const char *, const char *),
                const struct pm_repair_calls *calls, void *arg, struct pm_check_report *out,
                struct pm_error *why)
{
	struct pm_store *st;
	int err = pool->open(pool->arg, false, &st, why);

	if (err)
		return err;
	err = store_check(st, tell, calls->progress, arg, out);
	pm_close(st);
	if (err)
		why_set(why, "pool %.200s: not enough memory to check it", pool->name);
	return err;
}

static int mend(const struct repair_pool *pool, struct repair *r, struct pm_error *why)
{
	int err = pool->open(pool->arg, true, &r->st, why), rc;

	if (err)
		return err;
	err = repair_store(r);
	rc = store_close_repair(r->st);
	if (!err)
		err = rc;
	if (err)
		why_set(why, "pool %.200s: repair stopped: %s; nothing is lost by running it again",
		        pool->name, strerror(-err));
	return err;
}

int store_repair(const struct repair_pool *pool, const struct pm_repair_calls *calls, void *arg,
                 struct pm_repair_report *out, struct pm_error *why)
{
	struct pm_repair_report rep = { .found = 0 };
	struct repair r = { .fixed = calls->fixed, .arg = arg };
	struct pm_error first = { .text = "" };
	int err = look(pool, calls->found, calls, arg, &rep.check, &first);

	if (err && err != -EUCLEAN) {
		*why = first;
		return err;
	}
	if (err && calls->found)
		calls->found(arg, "pool", first.text);
	rep.found = err ? 1 : rep.check.problems;
	if (!rep.found) {
		*out = rep;
		return 0;
	}
	err = mend(pool, &r, why);
	rep.repaired = r.n;
	if (!err)
		err = look(pool, calls->left, calls, arg, &rep.check, why);
	if (err)
		return err;
	rep.left = rep.check.problems;
	*out = rep;
	return 0;
}

static int open_path(void *arg, bool write, struct pm_store **out, struct pm_error *why)
{
	struct pm_open_opts o = { .method = PM_AUTO, .read_only = !write };

	return write ? store_open_repair(arg, &o, out, why) : pm_open(arg, &o, out, why);
}

int pm_repair(const char *path, const struct pm_repair_calls *calls, void *arg,
              struct pm_repair_report *out, struct pm_error *why)
{
	char *name = strdup(path);
	struct repair_pool pool = { .name = name, .open = open_path, .arg = name };
	struct pm_error plain = { .text = "" };
	int err = name ? store_repair(&pool, calls, arg, out, &plain) : -ENOMEM;

	free(name);
	if (err && why)
		*why = plain;
	return err;
}
