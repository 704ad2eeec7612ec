/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store.h - what the parts of pmemio share; private to this directory
 *
 *   media.c    mapping, flush, fence, sync behind struct pm_media_ops (tests put a recorder there)
 *   super.c    superblocks, mkfs                       journal.c  lanes, checkpoint, flusher; replay.c: what they hold
 *   tx.c       transactions over shadow copies         alloc.c    free space in memory
 *   inode.c    the inode table                         store.c    open, close, recovery, statistics
 *   btree.c    B+tree of variable-size values          dir.c      names: lookup, create, rename, readdir
 *   extent.c   a file's extents, inline or in a tree   file.c     map, commit, unpin, truncate, setattr; batch.c
 *   reply.c    the ring of reply records               quota.c    usage and limits of owners
 *   check.c    every invariant, offline                repair*.c  put right what has one right answer
 *   fault.c    pages that answer with SIGBUS           sum.c      checksums of file data; words.c: what they share
 *
 * Metadata is read through the view and changed through transactions only:
 *
 *   tx_begin                                    store mutex held
 *     p = tx_edit(tx, view pointer, len, kind)  a shadow in DRAM to write to; reads of that object
 *                                               within the transaction go to the shadow (tx_look)
 *   tx_commit                                   shadow and view are compared, what differs goes into one
 *                                               journal record; then it is applied
 *
 * view == media for PM_FENCE, PM_CLWB, PM_VOLATILE: commit writes the record, drains, applies in place,
 * flushes without waiting. With PM_MSYNC the kernel may write back any page at any time, so nothing may be
 * stored in place before its record is durable: the view is then a second, private mapping (MAP_PRIVATE)
 * that gets the change at once; the flusher thread makes the record durable, applies it to the shared
 * mapping, and a checkpoint drops the private pages again. File data is always in the shared mapping.
 *
 * A block freed by transaction s may be used again for new contents only when no record up to s can be replayed
 * over it. Data blocks never are the target of a record, so they are free once s is durable; metadata blocks
 * wait for the checkpoint to pass s (alloc.c keeps both queues; running out of space forces a checkpoint).
 *
 * lease.c: pins that last, for one-sided access. worker.c: who may be in the store at the same time.
 */
#ifndef PMEMIO_STORE_H
#define PMEMIO_STORE_H

#include <pthread.h>
#include <string.h>
#include <sys/queue.h>

#include "pmemio/format.h"
#include "pmemio/pmemio.h"

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* --- media.c ------------------------------------------------------------------------------------------ */

struct pm_media;
struct pm_media_ops {
	/* every store to the media goes through one of the first two */
	void (*store)(struct pm_media *m, void *dst, const void *src, size_t len);    /* cached */
	void (*store_nt)(struct pm_media *m, void *dst, const void *src, size_t len); /* may bypass caches */
	void (*zero)(struct pm_media *m, void *dst, size_t len);
	void (*flush)(struct pm_media *m, const void *at, size_t len); /* starts write back */
	void (*drain)(struct pm_media *m);                             /* all flushes so far are durable */
	int (*sync)(struct pm_media *m, const void *at, size_t len);   /* PM_MSYNC: blocks */
	void (*close)(struct pm_media *m);
	/* A thread is about to wait for what another one does in the store, or has waited. NULL but in tests. */
	void (*blocked)(struct pm_media *m, bool is);
};
struct pm_media {
	const struct pm_media_ops *ops;
	uint8_t *base; /* shared mapping: what clients' bytes go to */
	uint8_t *view; /* where metadata is read; == base unless PM_MSYNC */
	size_t len;
	enum pm_method method;
	const char *reason, *not_promised; /* of struct pm_verdict */
	enum pm_gran gran;
	bool map_sync;
	int fd;
	bool regular; /* a file, which somebody may cut short */
	bool fixed;  /* read-only and without a private copy: nothing can be replayed */
	bool zeroed; /* mkfs: every byte is known to be zero */
	void *priv;
};
/* Map @path with libpmem2, lock it, choose the method. */
int media_open(const char *path, const struct pm_open_opts *o, struct pm_media *m, struct pm_error *why);
/* As pm_open, on media that the caller made (crash tests). Takes over @m on success. */
int store_open_media(struct pm_media *m, const struct pm_open_opts *o, struct pm_store **out,
		     struct pm_error *why);
/* Write an empty pool to media. */
int mkfs_media(struct pm_media *m, const struct pm_mkfs_opts *o, struct pm_error *why);

uint32_t pm_crc(const void *p, size_t len, size_t crc_at); /* the 4 bytes at crc_at count as zero */
void why_set(struct pm_error *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- the store ------------------------------------------------------------------------------------------ */

struct pm_lane;    /* journal.c */
struct pm_space_map; /* alloc.c */
struct pm_table;   /* inode.c */
struct pm_faults;  /* fault.c */
struct pm_files;   /* file.c: what is pinned, fresh or dirty now */
struct pm_replies; /* reply.c */
struct pm_quotas;  /* quota.c */
struct pm_workers; /* worker.c */
struct word_lock;  /* words.c */

struct pm_lost { /* records of the journal that were durable and are not there */
	uint64_t n;
	uint64_t at;   /* byte in the pool: the first one */
	size_t before; /* good ones in front of it in its lane */
	unsigned lane;
	bool in_place; /* what came later shows that what they changed is in its place */
};

struct pm_store {
	struct pm_media media;
	/* Held by whoever is alone in the store (worker.h); never over I/O or a callback but readdir's. */
	pthread_mutex_t lock;
	struct pm_workers *workers;
	struct pm_super super; /* the current one */
	bool read_only;
	bool doubt;  /* damage was met while gathering free space: some of it may be in use */
	bool repair; /* opened by repair.c: goes on where others must give up, frees nothing */
	struct pm_lost lost; /* with repair only */
	struct pm_open_opts opts;
	struct pm_lane *lanes;
	struct pm_journal *journal;
	struct pm_space_map *space;
	struct pm_table *table;
	struct pm_files *files;
	struct pm_faults *faults;
	struct pm_replies *replies; /* NULL: the pool has no room for them */
	struct pm_quotas *quotas;
	struct word_lock *words; /* NULL: no checksums of data */
	struct pm_tx *tx; /* of whoever is alone, reused */
	struct pm_region zero;
	struct pm_info info;
	pthread_mutex_t super_lock; /* inside lock: orders the writers of the superblocks */
	uint64_t up_zero;           /* store_uptime(): pm_super.uptime when the monotonic clock was 0 */
	uint64_t bad_sum;           /* sum.c: likewise */
	uint64_t damaged_node;      /* btree.c: the block last named in the log, so that it is named once; atomic */
	struct pm_stats stats __attribute__((aligned(128))); /* what is not counted by a worker */
};
void store_log(struct pm_store *st, int priority, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
struct pm_time store_now(void);
/* pm_super.uptime now. No step of the system's time moves it. */
uint64_t store_uptime(const struct pm_store *st);
void store_up_since(struct pm_store *st, uint64_t uptime); /* it is that now, if it was less */

static inline void *blk_ptr(struct pm_store *st, uint64_t blk) /* metadata */
{
	return st->media.view + blk * PM_BLOCK;
}
static inline void *data_ptr(struct pm_store *st, uint64_t blk) /* file data */
{
	return st->media.base + blk * PM_BLOCK;
}

/* --- tx.c: alone, or inside with the inodes that are edited (worker.h) ------------------------------------------------------------------------- */

enum tx_kind { TX_RAW, TX_INODE, TX_NODE, TX_SLOT, TX_SUMS }; /* who gets a CRC at commit */
struct pm_tx;
struct pm_tx *tx_begin(struct pm_store *st);
struct pm_store *tx_store(const struct pm_tx *tx);
/* A shadow of the @len (<= 4096) bytes at view pointer @at; the same one for the same @at. Memory is kept in the
 * transaction; running out of it is remembered and fails the commit with -ENOMEM (the shadow is then scratch). */
void *tx_edit(struct pm_tx *tx, const void *at, size_t len, enum tx_kind kind);
/* The checksum of block @blk becomes @crc: as tx_edit, but nothing beside it belongs to the transaction (words.h). */
void tx_sum(struct pm_tx *tx, uint64_t blk, uint32_t crc);
/* Bytes that have no checksum of their own in the record: an inode that whoever has begun @tx has locked. */
void tx_pad_from(struct pm_tx *tx, const struct pm_inode *in);
/* The shadow of @at if there is one, else @at. */
const void *tx_look(struct pm_tx *tx, const void *at);
/* Shadow of a block that this transaction allocated: starts zeroed; written to the media before the record. */
void *tx_new_block(struct pm_tx *tx, uint64_t blk, enum tx_kind kind);
/* File data was flushed and must be durable before this transaction's record. */
void tx_after_data(struct pm_tx *tx);
/* Before anything is edited: file data was flushed, and tx_vouch will tell of all of it that counts; it may become durable
 * together with the record. */
void tx_with_data(struct pm_tx *tx);
/* The next block of it, @len bytes of it, has this checksum. */
void tx_vouch(struct pm_tx *tx, uint64_t blk, uint64_t len, uint32_t crc);
/* The blocks that this transaction adds to files have been judged by quota_allows, and its nodes promised. */
void tx_admitted(struct pm_tx *tx);
uint64_t tx_taken(const struct pm_tx *tx); /* blocks, so far */
/* The record has grown to half of what one may be: time to commit, and go on in another transaction. */
bool tx_large(struct pm_tx *tx);
/* Commit: CRCs, record, apply, hand freed blocks to alloc.c. An empty transaction gets *lsn 0. On error
 * everything is as before tx_begin. */
int tx_commit(struct pm_tx *tx, pm_lsn *lsn);
void tx_abort(struct pm_tx *tx); /* allocations of the transaction go back */

/* --- alloc.c --------------------------------------------------------------------------------------------------- */

struct blk_run {
	uint64_t start, len; /* blocks */
};
enum { BLK_ALIGN_2M = 1, /* prefer a start congruent to @phase modulo 512 */
       BLK_META = 2,     /* may use the reserve that keeps operations which free space from failing */
       BLK_WHOLE = 4,    /* all of @want or -ENOSPC; else any shorter run will do */
       BLK_PROMISED = 8 }; /* what blk_promise keeps back is for this */
/* Take a free run, near @goal (0: anywhere) if that is free; -ENOSPC. Not tied to a transaction. */
int blk_take(struct pm_store *st, uint64_t goal, uint64_t want, uint64_t phase, unsigned flags,
	     struct blk_run *out);
void blk_give(struct pm_store *st, uint64_t start, uint64_t len); /* free at once: was never on media */
/* Keep @n blocks for nodes, as long as no more than 1/@part of the reserve is promised; false: they are not there. */
bool blk_promise(struct pm_store *st, uint64_t n, uint64_t part);
void blk_owe(struct pm_store *st, uint64_t n); /* modulo 2^64: negative too; the promise grows by that, unasked */
/* Within a transaction: taken now, given back by tx_abort. */
int tx_take(struct pm_tx *tx, uint64_t goal, uint64_t want, unsigned flags, struct blk_run *out);
/* Freed when the transaction commits; reusable as the rule above says. */
void tx_give(struct pm_tx *tx, uint64_t start, uint64_t len, bool meta);
/* The blocks stay in use although the transaction drops them: file.c gives them back with blk_give_after when the
 * last pin is gone. */
void blk_give_after(struct pm_store *st, pm_lsn lsn, uint64_t start, uint64_t len);
void blk_mark(struct pm_store *st, uint64_t start, uint64_t len); /* recovery: in use */
bool blk_marked(struct pm_store *st, uint64_t blk);
/* btree.c: a node that was verified need not be again until its block is given to something else. Below super.blocks. */
bool blk_proved(struct pm_store *st, uint64_t blk);
void blk_prove(struct pm_store *st, uint64_t blk);

/* --- inode.c -------------------------------------------------------------------------------------------------------- */

/* The view of a live inode; NULL and *err: -ESTALE, -EIO. */
const struct pm_inode *ino_get(struct pm_store *st, struct pm_id id, int *err);
const struct pm_inode *ino_at(struct pm_store *st, uint64_t ino); /* any slot, live or not; NULL: no such slot */
void ino_fetch(struct pm_store *st, uint64_t ino); /* start loading the slot, if there is one */
struct pm_inode *ino_edit(struct pm_tx *tx, const struct pm_inode *in); /* tx_edit with the right kind */
const struct pm_inode *ino_look(struct pm_tx *tx, const struct pm_inode *in);
/* A free slot: shadow with ino, gen (one more than before), type, times set and nlink 0, the rest zero; locked, if
 * inside. -ENOSPC. */
int ino_new(struct pm_tx *tx, enum pm_type type, struct pm_inode **shadow);
/* Mark the slot free (keeps gen). Its blocks must have been given already. */
void ino_free(struct pm_tx *tx, struct pm_inode *shadow);
uint64_t ino_count(struct pm_store *st); /* slots that exist */
/* Of a slot that exists: this file is known to have nothing written behind its end, since it was said so. Nothing is
 * known when the pool opens; a file that comes has no extents, so what was said of the one before does no harm. */
bool ino_trimmed(struct pm_store *st, uint64_t ino);
void ino_set_trimmed(struct pm_store *st, uint64_t ino, bool trimmed);
void ino_attr(const struct pm_inode *in, struct pm_attr *out); /* media's attributes only: see file_attr */

/* --- btree.c ---------------------------------------------------------------------------------------------------------
 * The tree hangs from u.tree of the owner's inode; @in is the owner's view pointer, edits go through @tx (NULL for
 * the reading calls: outside a transaction). Node blocks come from tx_take and are counted in inode.blocks. */
struct bt_cursor {
	uint64_t key;
	const void *val;
	uint16_t len;
	uint64_t leaf; /* block */
	unsigned slot;
};
/* First entry with key >= @key: 0, -ENOENT. A damaged node: -EIO. */
int bt_seek(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key, struct bt_cursor *c);
/* Last entry with key <= @key: 0, -ENOENT. */
int bt_seek_le(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key, struct bt_cursor *c);
/* The entry behind the one that @c found; nothing may have changed in between. 0, -ENOENT, -EIO. */
int bt_next(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, struct bt_cursor *c);
/* -EEXIST, -ENOSPC, -EIO. On error the transaction must be aborted. */
int bt_insert(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key, const void *val,
	      uint16_t len);
int bt_delete(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key);
int bt_replace(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t key, const void *val,
	       uint16_t len); /* same length as before */
/* Visit every node block (recovery, check, drop). @leaves false: leaf nodes are named but not read. */
int bt_walk(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, bool leaves,
	    int (*fn)(void *arg, uint64_t blk, const struct pm_bnode *node), void *arg);
/* What is wrong with a node from the view, or NULL. */
const char *bt_fault(const struct pm_bnode *n, uint64_t ino, uint64_t blk, unsigned level);
/* Give all node blocks and clear the root. */
int bt_drop(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in);

struct bt_entry {
	uint64_t key;
	const void *val;
	uint16_t len;
};
/* A new tree of @n entries in the order of their keys instead of what @in has (repair): built in free blocks, made
 * @in's by the last of several transactions. The old nodes are not given. @others: blocks that @in owns besides. */
int bt_rebuild(struct pm_store *st, const struct pm_inode *in, const struct bt_entry *e, size_t n,
	       uint64_t others);

/* --- dir.c, for check.c ---------------------------------------------------------------------------------------- */

/* What an entry's key must have above its 16 bits of sequence number. @len <= PM_NAME_MAX. */
uint64_t dir_hash(const struct pm_store *st, uint64_t ino, const void *name, size_t len);
/* repair.c: give an object that has no name this one, which must be new. Takes the lock. */
int dir_adopt(struct pm_store *st, uint64_t dir, const char *name, uint64_t ino);
/* repair.c: take out the entry of @dir that leads to the directory @ino. Takes the lock. */
int dir_disown(struct pm_store *st, uint64_t dir, uint64_t ino);

/* --- extent.c ------------------------------------------------------------------------------------------------------------ */

struct ext { /* unpacked */
	uint64_t lblk, pblk, len;
	bool unwritten;
};
/* The extent that holds @lblk (0), or the hole there: -ENOENT and e->lblk, e->len say where the hole is up to the next
 * extent (len UINT64_MAX - lblk behind the last). */
int ext_find(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk, struct ext *e);
/* Put @e there, over a hole or over (part of) what is there, merging with neighbours; blocks that it replaces are not
 * given. inode.blocks is kept. */
int ext_put(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, const struct ext *e);
/* Take out [lblk, lblk + len); @fn sees every piece taken. */
int ext_cut(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk, uint64_t len,
	    void (*fn)(void *arg, const struct ext *e), void *arg);
/* Visit all extents, in order; stops at the first error. Quicker than finding one after the other. */
int ext_each(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in,
	     int (*fn)(void *arg, const struct ext *e), void *arg);

/* --- quota.c: lock held --------------------------------------------------------------------------------- */

struct quota;
/* The account of an owner, stays until close; made if need be by whoever is alone. NULL: no memory, or not there. */
struct quota *quota_of(struct pm_store *st, uint32_t kind, uint32_t id);
bool quota_allows(const struct quota *q, uint64_t blocks);
void quota_pend(struct quota *q, uint64_t blocks); /* modulo 2^64: negative too; counted if there is a limit of blocks */
void quota_pending(struct quota *q, uint64_t blocks, uint64_t owed); /* for files_pending */
bool quota_limits(const struct quota *q);         /* is there a limit of blocks? */
void quota_owe(struct quota *q, uint64_t blocks);  /* likewise: extent nodes that may be needed */
uint64_t quota_ino(const struct pm_store *st);     /* the quota file, which has no name; 0: none */
/* repair.c: is this inode's first block one of a quota file? */
bool quota_is_file(struct pm_store *st, const struct pm_inode *in);
/* repair.c: make the quota file @ino whole: what cannot be read becomes empty, and @say names it. Lock held. */
int quota_mend(struct pm_store *st, uint64_t ino, void (*say)(void *arg, const char *what), void *arg);
/* Compare usage with what the inodes say. */
int quota_audit(struct pm_store *st, void (*bad)(void *arg, const char *what), void *arg);

/* --- sum.c, all but sum_on only if it says so; the rest is in file.h ------------------------------------------- */

/* Does this pool have checksums of file data? Constant while open. */
static inline bool sum_on(const struct pm_store *st)
{
	return __atomic_load_n(&st->super.ro_compat, __ATOMIC_RELAXED) & PM_ROCOMPAT_SUMS;
}
/* The checksum of several blocks, by the checksums of each: of those before, or ~0u, and of the next. */
uint32_t sum_fold(uint32_t before, uint32_t crc);
static inline uint64_t sum_table_blocks(uint64_t blocks)
{
	return (blocks * 4 + PM_BLOCK - 1) / PM_BLOCK;
}
/* -EIO, counted and logged: one of [@lblk, + @n), which lie at @blk, differs from its checksum. Blocks behind
 * the end of file do not count. */
int sum_verify(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t blk, uint64_t n);

/* --- file.c, for dir.c, store.c ---------------------------------------------------------------------------------------------- */

/* Attributes as clients see them: the media's with what unstable writes changed. */
void file_attr(struct pm_store *st, const struct pm_inode *in, struct pm_attr *out);
/* The last name is gone (shadow->nlink == 0): free extents and inode now, or leave an orphan for the last unpin. */
int file_unlinked(struct pm_tx *tx, const struct pm_inode *in);
/* New symbolic link longer than PM_INLINE_LINK, or reading one. */
int file_link_put(struct pm_tx *tx, const struct pm_inode *in, const char *target, size_t len);
int file_link_get(struct pm_store *st, const struct pm_inode *in, char *buf, size_t size, size_t *len);
/* Alone: tell quota_pending what all files have pending. */
void files_pending(struct pm_store *st);
int files_init(struct pm_store *st);
int files_settle(struct pm_store *st); /* close: commit all unstable writes, may block */
void files_fini(struct pm_store *st);
/* Recovery: free an orphan found at open. */
int file_reap(struct pm_store *st, uint64_t ino);

/* --- reply.c, for whatever changes something. Lock held. ---------------------------------------------------- */

/* -EALREADY: the pool has a record of @once (NULL: never). */
int reply_known(struct pm_store *st, const struct pm_once *once);
/* The transaction remembers @once (NULL: nothing). */
void reply_note(struct pm_tx *tx, const struct pm_once *once, struct pm_id obj);

/* --- journal.c, store.c internals that file.c uses ----------------------------------------------------------------------------- */

/* Run @fn on the flusher thread (PM_MSYNC): all jobs queued together share one round: first the data ranges of all jobs are
 * synced, then each fn runs (takes the lock, commits transactions, says which lsn), then one journal sync, then
 * each done. With other methods file.c does not come here. */
struct pm_job {
	struct iovec *data; /* ranges to sync first */
	unsigned ndata;
	pm_lsn (*fn)(struct pm_job *job, int data_err); /* no lock held; returns what must be durable */
	void (*done)(struct pm_job *job, int err);      /* no lock held */
	STAILQ_ENTRY(pm_job) link;
	pm_lsn lsn;
	int err;
};
void flusher_add(struct pm_store *st, struct pm_job *job);
/* An unstable write was accepted: set PM_STATE_UNSTABLE durably, once per open. May sync: call without the lock, on a
 * thread that may block, or with a method whose flush does not. */
int super_note_unstable(struct pm_store *st);
void super_new_verf(struct pm_store *st); /* after a failed flush */

#include "pmemio/worker.h"

#endif
