/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reply.c - records of changes that must not be made twice
 *
 * A ring of slots of one cache line each. A change fills the next slot in its own transaction, so
 * the slot and the change survive a crash together or not at all. The oldest record is overwritten:
 * the pool remembers exactly the last n changes, whoever made them. What is older than once_age is found no
 * more; age is measured in seconds for which the pool has been open (pm_super.uptime).
 *
 * An index in memory finds a record by its key; it is made at open from the slots, and follows each
 * commit. A search that finds nothing, which is what nearly every request brings, reads no slot
 * unless 32 bits of another key are the same.
 *
 * A slot is claimed together with the seq of its transaction in the journal, so that both go the same
 * way: if the power fails, those that are missing are the last ones (F7 of FORMAT.md). From then until the change is made it belongs
 * to its transaction, and the index, which has a lock, leads nobody there.
 */
#include <errno.h>
#include <stdlib.h>
#include <syslog.h>

#include "pmemio/core.h"

#define BLOCKS_MIN 32u   /* 2048 records */
#define BLOCKS_MAX 1024u /* 65536 */

struct link {
	uint32_t next; /* in the chain: index + 1 */
	uint32_t hash;
	bool in_use;
};

struct pm_replies {
	struct pm_lock lock; /* all but the slots themselves, n and mask */
	uint32_t n, next;    /* slots; the one to fill next */
	uint64_t seq;        /* of the newest */
	uint32_t mask;
	uint32_t *bucket; /* index + 1 of the first of the chain */
	struct link link[];
};

/* One in a thousand blocks. */
uint64_t reply_blocks(uint64_t blocks)
{
	uint64_t n = blocks / 1024;

	return n < BLOCKS_MIN ? BLOCKS_MIN : n > BLOCKS_MAX ? BLOCKS_MAX : n;
}

const char *slot_fault(const struct pm_slot *s, uint64_t boot)
{
	static const struct pm_slot none;

	if (!memcmp(s, &none, sizeof(none)))
		return NULL;
	if (s->crc != pm_crc(s, sizeof(*s), offsetof(struct pm_slot, crc)))
		return "bad checksum";
	if (s->seq == 0 || s->seq >> 40 > boot)
		return "a number that was never given";
	return s->reserved ? "bytes that must be zero are not" : NULL;
}

static const struct pm_slot *slot_at(struct pm_store *st, uint32_t i)
{
	return (const struct pm_slot *)blk_ptr(st, st->super.reply_start) + i;
}

/* --- index ----------------------------------------------------------------------------------- */

static uint32_t hash_of(const uint8_t key[16])
{
	uint32_t h;

	memcpy(&h, key, sizeof(h));
	return h;
}

static uint32_t *chain(struct pm_replies *r, uint32_t hash)
{
	return &r->bucket[hash & r->mask];
}

static void index_put(struct pm_replies *r, uint32_t i, uint32_t hash)
{
	uint32_t *at = chain(r, hash);

	r->link[i] = (struct link){ .next = *at, .hash = hash, .in_use = true };
	*at = i + 1;
}

static void index_cut(struct pm_replies *r, uint32_t i)
{
	uint32_t *at = chain(r, r->link[i].hash);

	if (!r->link[i].in_use)
		return;
	while (*at != i + 1)
		at = &r->link[*at - 1].next;
	*at = r->link[i].next;
	r->link[i].in_use = false;
}

static bool too_old(const struct pm_store *st, const struct pm_slot *s)
{
	uint64_t now = store_uptime(st);

	return st->opts.once_age && now > s->when && now - s->when > st->opts.once_age;
}

/* Lock held: the newest of that key, unless it is too old to count. */
static const struct pm_slot *find(struct pm_store *st, const struct pm_once *once)
{
	struct pm_replies *r = st->replies;
	const struct pm_slot *newest = NULL;
	uint32_t hash;

	hash = hash_of(once->key);
	for (uint32_t i = *chain(r, hash); i; i = r->link[i - 1].next) {
		const struct pm_slot *s = slot_at(st, i - 1);

		if (r->link[i - 1].hash == hash && !memcmp(s->key, once->key, sizeof(s->key)) &&
		    (!newest || s->seq > newest->seq))
			newest = s;
	}
	return newest && !too_old(st, newest) ? newest : NULL;
}

/* --- recording ------------------------------------------------------------------------------- */

int reply_known(struct pm_store *st, const struct pm_once *once)
{
	struct pm_replies *r = st->replies;
	bool known;

	if (!r || !once)
		return 0;
	lock_take(&r->lock);
	known = find(st, once);
	lock_drop(&r->lock);
	return known ? -EALREADY : 0;
}

void reply_note(struct pm_tx *tx, const struct pm_once *once, struct pm_id obj)
{
	struct pm_store *st = tx_store(tx);
	struct pm_slot s = { .ino = obj.ino, .gen = obj.gen };

	if (!st->replies || !once)
		return;
	s.tag = once->tag;
	s.when = store_uptime(st);
	memcpy(s.key, once->key, sizeof(s.key));
	tx_note_reply(tx, &s);
}

uint64_t reply_claim(struct pm_store *st, uint64_t *seq)
{
	struct pm_replies *r = st->replies;
	uint32_t i;

	lock_take(&r->lock);
	i = r->next;
	r->next = (i + 1) % r->n;
	*seq = ++r->seq;
	index_cut(r, i);
	lock_drop(&r->lock);
	return (uint64_t)((const uint8_t *)slot_at(st, i) - st->media.view);
}

void reply_made(struct pm_store *st, uint64_t at, const struct pm_slot *s)
{
	struct pm_replies *r = st->replies;

	lock_take(&r->lock);
	index_put(r, (uint32_t)((at - st->super.reply_start * PM_BLOCK) / sizeof(*s)), hash_of(s->key));
	lock_drop(&r->lock);
}

/* On media that are slow a change counts before it is durable, for whoever waits for journal_last. */
int pm_once_find(struct pm_store *st, const struct pm_once *once, struct pm_reply *out)
{
	struct pm_replies *r = st->replies;
	bool slow = media_slow(st);
	const struct pm_slot *s;

	if (!r)
		return -ENOENT;
	if (slow)
		store_lock(st);
	lock_take(&r->lock);
	s = find(st, once);
	if (s) /* what it is part of is no newer than the last transaction */
		*out = (struct pm_reply){ .tag = s->tag,
			                  .obj = { s->ino, s->gen },
			                  .lsn = journal_last(st) };
	lock_drop(&r->lock);
	if (slow)
		store_unlock(st);
	return s ? 0 : -ENOENT;
}

/* --- opening --------------------------------------------------------------------------------- */

/* A pool made before there was a ring, or that had no room for it. The blocks are free until the
 * superblock says otherwise, and all zero before it does. */
int reply_make(struct pm_store *st)
{
	struct pm_super *s = &st->super;
	struct blk_run run;
	int err;

	if (s->incompat & PM_INCOMPAT_REPLIES)
		return 0;
	if (blk_take(st, 0, reply_blocks(s->blocks), 0, BLK_WHOLE, &run)) {
		store_log(st, LOG_WARNING,
		          "no room for reply records: a request repeated after its answer was lost "
		          "is "
		          "carried out twice; free some space and open the pool again");
		return 0;
	}
	st->media.ops->zero(&st->media, data_ptr(st, run.start), run.len * PM_BLOCK);
	err = med_settle(st, run.start * PM_BLOCK, run.len * PM_BLOCK);
	if (!err) {
		s->incompat |= PM_INCOMPAT_REPLIES;
		s->reply_start = run.start;
		s->reply_blocks = run.len;
		err = super_write(st);
	}
	if (!err)
		store_log(st, LOG_NOTICE, "made room for %llu reply records",
		          (unsigned long long)run.len * PM_BLOCK_SLOTS);
	return err;
}

static void scan(struct pm_store *st, struct pm_replies *r)
{
	uint32_t bad = 0;
	uint64_t newest = 0;

	for (uint32_t i = 0; i < r->n; i++) {
		const struct pm_slot *s = slot_at(st, i);

		if (s->seq == 0 && s->crc == 0)
			continue;
		if (slot_fault(s, st->super.boot)) {
			bad++;
			continue;
		}
		index_put(r, i, hash_of(s->key));
		store_up_since(st, s->when);
		if (s->seq > newest) {
			newest = s->seq;
			r->next = (i + 1) % r->n;
		}
	}
	if (bad) {
		STAT_ADD(st, checksum_errors, bad);
		store_log(st, LOG_ERR,
		          "%u reply records are damaged and forgotten; run `berth check`", bad);
	}
}

int reply_open(struct pm_store *st)
{
	uint32_t n = (uint32_t)(st->super.reply_blocks * PM_BLOCK_SLOTS), size = 1;
	struct pm_replies *r;

	if (!(st->super.incompat & PM_INCOMPAT_REPLIES))
		return 0;
	while (size < n)
		size *= 2;
	r = calloc(1, sizeof(*r) + n * sizeof(r->link[0]));
	if (!r)
		return -ENOMEM;
	r->bucket = calloc(size, sizeof(*r->bucket));
	if (!r->bucket) {
		free(r);
		return -ENOMEM;
	}
	r->n = n;
	r->mask = size - 1;
	r->seq = st->super.boot << 40;
	st->replies = r;
	st->info.reply_slots = n;
	scan(st, r);
	return 0;
}

void reply_close(struct pm_store *st)
{
	if (st->replies)
		free(st->replies->bucket);
	free(st->replies);
	st->replies = NULL;
}
