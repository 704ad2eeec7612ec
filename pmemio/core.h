/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * core.h - what opening, committing and closing share among media, super, tx, journal, alloc,
 * inode, store
 *
 * Other parts of pmemio need store.h only. Lock held unless a line says otherwise.
 */
#ifndef PMEMIO_CORE_H
#define PMEMIO_CORE_H

#include <isa-l/crc.h>

#include "pmemio/store.h"

#define STAT_ADD(st, field, n) COUNT(st, &(st)->stats, field, n)

/* --- media.c: the calls that count ----------------------------------------------------------- */

static inline bool media_slow(const struct pm_store *st)
{
	return st->media.method == PM_MSYNC;
}
void med_store(struct pm_store *st, uint64_t at, const void *src, size_t len);
void med_flush(struct pm_store *st, uint64_t at, size_t len);
void med_drain(struct pm_store *st);
/* The same, counted there. */
void med_flush_as(struct pm_store *st, struct pm_stats *s, uint64_t at, size_t len);
void med_drain_as(struct pm_store *st, struct pm_stats *s);
int med_sync(struct pm_store *st, uint64_t at, size_t len);
/* What the write left, durable when this returns, whatever the method. May block with PM_MSYNC. */
int med_settle(struct pm_store *st, uint64_t at, size_t len);
/* Map for mkfs: created and sized if need be. */
int media_create(const char *path, const struct pm_mkfs_opts *o, struct pm_media *m,
                 struct pm_error *why);

/* --- super.c --------------------------------------------------------------------------------- */

/* Choose and judge the superblock; @out is left alone on error. */
int super_read(const struct pm_media *m, bool read_only, struct pm_super *out,
               struct pm_error *why);
/* Write st->super durably as the next in turn. No lock needed; may block with PM_MSYNC. */
int super_write(struct pm_store *st);
/* The first write of a read-write open: next boot, not clean, the verifier by rule I5. */
int super_begin(struct pm_store *st);
/* With an empty journal: a pool of an older version becomes one of this. */
/* The pool has this feature from now on, durable when it returns 0, for whoever else asks as well. */
int super_note_feature(struct pm_store *st, uint64_t ro_compat);
int super_convert(struct pm_store *st);

/* --- replay.c -------------------------------------------------------------------------------- */

static inline uint64_t lane_at(const struct pm_store *st, unsigned lane) /* byte in the pool */
{
	return (st->super.lane_start + (uint64_t)lane * st->super.lane_blocks) * PM_BLOCK;
}
static inline size_t lane_area(const struct pm_store *st) /* bytes of its records, behind a block of header */
{
	return (size_t)(st->super.lane_blocks - 1) * PM_BLOCK;
}

/* The latest boot that the journal tells of: a superblock of an earlier one is stale. */
uint64_t journal_boot(const struct pm_store *st);

struct replay {
	uint64_t ckpt;              /* everything up to here was in place before */
	uint8_t copy[PM_MAX_LANES]; /* of the header: the one to write next */
	bool bad[PM_MAX_LANES];     /* neither copy was good (repair only) */
	uint64_t head[PM_MAX_LANES], first[PM_MAX_LANES]; /* seqs: of the checkpoint it tells of, of the first record; or 0 */
};
/* Apply what the lanes hold and what counts. Nothing of it is durable when this returns. -EUCLEAN: @why names the
 * damage and the cure. */
int replay_lanes(struct pm_store *st, struct replay *out, struct pm_error *why);
/* Of a record with everything else in it. @seed: rec_seed() of the pool. */
uint32_t rec_seed(const struct pm_super *s);
static inline uint32_t rec_crc(uint32_t seed, const struct pm_rec *r)
{
	const size_t skip = sizeof(r->crc);

	static_assert(offsetof(struct pm_rec, crc) == 0, "the rest is in one piece");
	return ~crc32_iscsi((uint8_t *)(uintptr_t)r + skip, (int)(r->len - skip), seed);
}
static inline bool rec_has_data(const struct pm_rec *r)
{
	return r->magic == PM_REC_MAGIC_DATA;
}
/* The first range of a whole record. */
static inline const uint8_t *rec_ranges(const struct pm_rec *r)
{
	const uint8_t *p = (const uint8_t *)(r + 1);
	struct pm_rec_data d;

	if (!rec_has_data(r))
		return p;
	memcpy(&d, p, sizeof(d));
	return p + sizeof(d) + d.n * sizeof(struct pm_rec_run);
}
void rec_apply(struct pm_store *st, const struct pm_rec *rec); /* no lock; stored and flushed */

/* --- journal.c ------------------------------------------------------------------------------- */

/* Replay; on a read-write store end with a checkpoint that leaves every lane empty. */
int journal_open(struct pm_store *st, struct pm_error *why);
int journal_start(struct pm_store *st); /* the flusher thread, if the method needs one */
/* No lock. Flush what is pending, checkpoint, end the thread. -EIO: not everything is durable. */
int journal_stop(struct pm_store *st);
void journal_drop(
	struct pm_store *st); /* no lock; end the thread, write nothing more than it was about to */
void journal_free(struct pm_store *st);
size_t journal_max_rec(const struct pm_store *st);
/* 0, or why no transaction may commit. */
int journal_error(struct pm_store *st);
/* What was stored cannot be trusted to be there: none may from now on. Lock held. */
void journal_fail(struct pm_store *st);
/* Room for a record of @len bytes. Inside that is only known by journal_append. */
int journal_reserve(struct pm_store *st, size_t len);
/* The range of a record that fills a slot of the ring: which one is known when the record gets its seq. */
struct rec_reply {
	struct pm_rec_range where;
	struct pm_slot slot;
};
/* Give @rec its seq and CRC and make it durable (at once, or by the flusher). After
 * journal_reserve. NEEDS_ALL, and nothing is done: inside, and the lane is full. @reply: in @rec, or NULL;
 * gets its place, too. */
int journal_append(struct pm_store *st, struct pm_rec *rec, struct rec_reply *reply, struct pm_worker *w,
		   pm_lsn *lsn);
/* Did several workers append lately? */
bool journal_shared(struct pm_store *st);
/* PM_MSYNC: the range was stored to the shared mapping and must be durable before any record that
 * follows. */
int journal_sync_first(struct pm_store *st, uint64_t at, size_t len);
/* Release what waits for a checkpoint. True if that was done now; PM_MSYNC: asks the flusher,
 * false. */
bool journal_checkpoint(struct pm_store *st);
/* PM_MSYNC: freed blocks wait for the flusher. True: @w is called when those of now are free. */
bool journal_want_space(struct pm_store *st, struct pm_wait *w);
pm_lsn journal_last(const struct pm_store *st);
pm_lsn journal_durable(const struct pm_store *st);
pm_lsn journal_ckpt(const struct pm_store *st);

/* --- tx.c ------------------------------------------------------------------------------------ */

struct pm_tx *tx_alloc(struct pm_store *st);
void tx_destroy(struct pm_tx *tx);
/* Zero free blocks that the transaction will make metadata, past the record. */
int tx_zero_run(struct pm_tx *tx, uint64_t start, uint64_t len);
/* Inode slots the transaction took or set free: made true in memory by commit, undone by abort. */
int tx_note_slot(struct pm_tx *tx, uint64_t ino, bool freed);
void tx_note_chunk(struct pm_tx *tx);
/* This slot of the ring, which has no seq yet, is part of the transaction. */
void tx_note_reply(struct pm_tx *tx, const struct pm_slot *s);

/* --- alloc.c --------------------------------------------------------------------------------- */

int alloc_open(struct pm_store *st); /* all of [data_start, blocks) free */
/* The first block in use of the run, else its end. The run lies inside the pool. */
uint64_t blk_next_marked(struct pm_store *st, uint64_t start, uint64_t len);
void alloc_close(struct pm_store *st);
/* Room in the queues, so that @n following blk_give_queue calls cannot fail. */
int alloc_reserve(struct pm_store *st, size_t n);
void alloc_give(struct pm_store *st, pm_lsn lsn, uint64_t start, uint64_t len, bool meta);
void alloc_release(struct pm_store *st); /* durable or checkpointed lsn went up */
void alloc_count(struct pm_store *st, struct pm_space *out);
bool alloc_waiting(const struct pm_store *st); /* something freed is not free yet */
bool alloc_low(struct pm_store *st); /* space waits for a checkpoint and little else is left */
size_t alloc_save_size(struct pm_store *st);
size_t alloc_save(struct pm_store *st, uint8_t *buf);
int alloc_load(struct pm_store *st, const uint8_t *buf, size_t len, size_t *used);

/* --- inode.c --------------------------------------------------------------------------------- */

int table_open(struct pm_store *st,
               struct pm_error *why); /* the chunks; slots are all in use yet */
void table_close(struct pm_store *st);
void table_slot(struct pm_store *st, uint64_t ino, bool is_free);
void table_pop_chunk(struct pm_store *st);
/* 0 live, -ENOENT free, -EIO damaged. */
int ino_verify(const struct pm_inode *in, uint64_t ino);
/* These bytes, checksum and all, are good: @w (NULL: whoever is alone) need not verify them when it meets them. */
void ino_saw(struct pm_store *st, struct pm_worker *w, const struct pm_inode *good);
/* Inode 0 failed its checksum, but everything it leads to proves it (repair only). */
bool table_proved(const struct pm_store *st);
/* Inode 0 did not lead to all chunks: they were found by themselves (repair only). */
bool table_found(const struct pm_store *st);
uint64_t table_chunk(const struct pm_store *st, uint64_t c); /* its first block */
/* Do the slots there say of themselves that they are chunk @c? Some may be damaged. */
bool table_chunk_proves(struct pm_store *st, uint64_t start, uint64_t c);
void table_count(struct pm_store *st, uint64_t *used, uint64_t *nfree);
size_t table_save_size(struct pm_store *st);
size_t table_save(struct pm_store *st, uint8_t *buf);
int table_load(struct pm_store *st, const uint8_t *buf, size_t len); /* @len: table_save_size */

/* --- quota.c --------------------------------------------------------------------------------- */

int quota_open(struct pm_store *st); /* limits; nobody uses anything yet */
void quota_close(struct pm_store *st);
int quota_count(struct pm_store *st, const struct pm_inode *in); /* open: a live inode */
/* Inside: is this change of an inode one that needs no judging? 0, NEEDS_ALL. */
int quota_plain(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now);
/* It is durable. */
void quota_moved(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now);
/* Alone: a transaction changes this inode; then judge (-EDQUOT), then settle: keep or forget the changes. */
int quota_note(struct pm_store *st, const struct pm_inode *old, const struct pm_inode *now);
int quota_judge(struct pm_store *st);
void quota_settle(struct pm_store *st, bool keep);
size_t quota_save_size(struct pm_store *st);
size_t quota_save(struct pm_store *st, uint8_t *buf);
int quota_load(struct pm_store *st, const uint8_t *buf, size_t len);

/* --- reply.c --------------------------------------------------------------------------------- */

/* How many blocks a pool of @blocks keeps for them. */
uint64_t reply_blocks(uint64_t blocks);
/* Give a pool that has none a ring. Not having the room for it is no error. */
int reply_make(struct pm_store *st);
int reply_open(struct pm_store *st); /* find the newest and make the index; after replay */
void reply_close(struct pm_store *st);
/* Where the next slot is, and its seq: whoever asks fills it, and nobody finds what it held any more. */
uint64_t reply_claim(struct pm_store *st, uint64_t *seq);
void reply_made(struct pm_store *st, uint64_t at, const struct pm_slot *s); /* it is filled: may be found */
/* What is wrong with a slot, or NULL. */
const char *slot_fault(const struct pm_slot *s, uint64_t boot);

/* --- sum.c ----------------------------------------------------------------------------------- */

/* Is the data there that came with this record? */
bool sum_arrived(struct pm_store *st, const struct pm_rec *rec);

/* --- fault.c --------------------------------------------------------------------------------- */

struct pm_faults {
	uint64_t *bad; /* bit per block */
	uint64_t n;    /* bits set; atomic, as are the words */
	bool shrunk;   /* atomic, too */
};
int faults_open(struct pm_store *st);
void faults_close(struct pm_store *st);
bool faults_among(const struct pm_faults *f, uint64_t at, uint64_t len);
/* Is a page in these bytes of the pool known to be bad? Asked at every step, and nearly always there is none at all. */
static inline bool faults_in(const struct pm_store *st, uint64_t at, uint64_t len)
{
	const struct pm_faults *f = st->faults;

	return f && __atomic_load_n(&f->n, __ATOMIC_ACQUIRE) && faults_among(f, at, len);
}
/* Find out, if there is reason to or @always: 0, -EIO. */
int faults_probe(struct pm_store *st, const struct iovec *seg, unsigned n, bool always);

/* --- store.c --------------------------------------------------------------------------------- */

/* As pm_check, on a store that nobody else uses: nothing is pinned, fresh or waiting for a
 * checkpoint. */
int store_check(struct pm_store *st,
                void (*problem)(void *arg, const char *where, const char *what),
                void (*progress)(void *arg, unsigned permille), void *arg,
                struct pm_check_report *out);
/* As pm_open and pm_close, for repair.c: what is damaged beyond what a server may go on with is worked
 * around, nothing is freed, and the close leaves it to the next open to gather the free space. */
int store_open_repair(const char *path, const struct pm_open_opts *o, struct pm_store **out,
                      struct pm_error *why);
int store_open_repair_media(struct pm_media *m, const struct pm_open_opts *o, struct pm_store **out,
                            struct pm_error *why);
int store_close_repair(struct pm_store *st);
/* Let go of a store without writing anything, as a kill would. */
void store_drop(struct pm_store *st);

/* --- repair_table.c, for inode.c -------------------------------------------------------------- */

/* Where all chunks of the inode table lie, from what stands in them. @sound: inode 0 passes its checksum, so that
 * its size can be believed. free(*start). -EUCLEAN: some chunk cannot be told for certain, see @why. */
int table_find(struct pm_store *st, const struct pm_inode *in0, bool sound, uint64_t **start, uint64_t *n,
               struct pm_error *why);

/* --- repair.c -------------------------------------------------------------------------------- */

/* What is to be repaired: opened three times, to look, to write and to look again. */
struct repair_pool {
	const char *name;
	/* @write: as store_open_repair, else as pm_open does read-only. */
	int (*open)(void *arg, bool write, struct pm_store **out, struct pm_error *why);
	void *arg;
};
/* As pm_repair. @why is not NULL. */
int store_repair(const struct repair_pool *pool, const struct pm_repair_calls *calls, void *arg,
                 struct pm_repair_report *out, struct pm_error *why);

#endif
