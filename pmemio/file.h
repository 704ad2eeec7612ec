/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.h - what is in motion: pins, fresh blocks, unstable writes; private to these files
 *
 *   active.c     active files, fresh blocks, pinned blocks that the file has lost (limbo)
 *   map.c        map
 *   file.c       commit, unpin
 *   batch.c      commits that share their drains
 *   promise.c    the nodes that a commit will need
 *   dirty.c      unstable writes and what ends them
 *   truncate.c   setattr, allocate, extents, unlink, symbolic link targets
 *   sum.c        checksums of data, where the pool has them
 *   lease.c      pins that last, for one-sided access
 *
 * An *active file* exists as long as it has pins, fresh blocks, unstable writes or limbo. Its fresh
 * blocks are known in memory only:
 *
 *   hole, or unwritten on media --map--> FILLING  wholly covered by the write that took it
 *                                  `---> ZEROED   partly covered: zeroed, writers may share it
 *   FILLING, ZEROED --stable commit--> published: an extent on media
 *                   --unstable commit--> DIRTY (readable, gone after a crash) --sync--> published
 *                   --unpin without commit--> free (or unwritten) again
 *
 * P1  Reads get zeros for FILLING and ZEROED blocks.
 *
 * P2  A fresh block is published only after all of its 4096 bytes are durable.
 *
 * P3  A block never moves to another file block while a pin covers it: whoever takes it from the
 *     file puts it into limbo, to be freed with the last pin that is older than that.
 *
 * P4  While a write pin reaches beyond the end of file, bytes behind the end in its last block are
 *     zero or were placed by a live write pin: the end may move over them at any time.
 */
#ifndef PMEMIO_FILE_H
#define PMEMIO_FILE_H

#include "pmemio/store.h"

#define NO_CUT      (1ull << 62)
#define DIRTY_PAGES (64u << 20 >> 12) /* unstable blocks of a store before they are settled */
#define DIRTY_RUNS  4096u
#define TX_EXTENTS  1024u /* extents put in one transaction, unless tx_large */
#define TX_CUTS     1024u /* extents cut */

enum fresh_state { FILLING, ZEROED, DIRTY };
struct fresh {
	uint64_t lblk, pblk, len;
	struct pm_pin *pin; /* FILLING: who fills it */
	uint32_t epoch;     /* DIRTY: file.epoch when it became so */
	uint8_t state;
	bool settled : 1; /* ZEROED: the zeros are durable, and so is what else a commit has put there */
	bool owned : 1; /* the file has it on media, as unwritten */
	bool cow : 1;   /* sum_moves(): readers see a written block of the media, which this one will
	                 * replace */
	bool put : 1;   /* batch.c: is in the transaction under way */
};

struct limbo { /* blocks that the file lost while pins covered them */
	LIST_ENTRY(limbo) link;
	uint64_t lblk, pblk, len;
	uint64_t serial; /* pins below it count */
	pm_lsn lsn;      /* 0: never was on media */
};

struct runs { /* sorted, disjoint runs of pool blocks */
	struct blk_run *run;
	unsigned n, cap;
	uint64_t blocks; /* in all of them */
};

LIST_HEAD(pin_list, pm_pin);
struct file {
	LIST_ENTRY(file) link;   /* in its inode's slot */
	TAILQ_ENTRY(file) dirty; /* in pm_files.dirty iff over */
	struct pm_id id;
	struct pin_list pins;
	LIST_HEAD(, limbo) limbo;
	struct fresh *fresh; /* sorted by lblk */
	unsigned nfresh, cap;
	unsigned refs; /* sync jobs under way */
	uint64_t serial; /* of the last pin or limbo */
	struct quota *quota[2]; /* of its uid and gid */
	uint64_t pending;       /* fresh blocks that they are charged for: those not owned */
	uint64_t owed;          /* extent nodes that publishing what is DIRTY may need */
	uint64_t promised;      /* and what pins may: the sum of theirs */
	/* unstable writes */
	bool over;     /* the next four count */
	uint64_t size; /* as clients see it */
	struct pm_time mtime, ctime;
	struct runs runs; /* blocks to flush */
	uint32_t epoch;   /* goes up with every sync */
	uint32_t cuts;    /* and with every truncate */
	bool settling;    /* a background sync is under way */
};

struct pm_files {
	struct pm_lock lock; /* for whoever is inside: the next, and its links */
	TAILQ_HEAD(, file) dirty;
	uint64_t dirty_pages, dirty_runs; /* atomic */
	unsigned jobs;   /* on the flusher */
	pthread_cond_t idle;
	bool doubt; /* a file without pins may have lost its inode */
};

struct pm_pin {
	struct pm_job job; /* PM_MSYNC commit */
	LIST_ENTRY(pm_pin) link;
	struct pm_store *st;
	struct file *f;
	uint64_t off, len; /* bytes */
	uint64_t serial;
	uint64_t cut; /* bytes at and behind it have been truncated away */
	bool write;
	bool committed; /* or undone: nothing of it is left to undo */
	struct pm_wait *waiters;
	struct pm_lease *lease; /* or NULL */
	uint64_t promised;      /* nodes kept for its commit */
	bool exact;             /* and that is just what it takes, so long as the tree of the file stays */
	struct iovec *heap; /* segments, if not in the map itself */
	/* the commit under way */
	struct pm_map *map;
	uint64_t prefix; /* bytes placed */
	uint64_t end;    /* first byte that is not published */
	struct pm_committed *out;
	struct pm_wait *w;
	bool unstable;
	uint8_t lot; /* batch.c */
	int res;
	struct pm_pin *more; /* batch.c: of the same file */
};

static inline uint64_t blk_up(uint64_t bytes)
{
	return (bytes + PM_BLOCK - 1) / PM_BLOCK;
}
static inline uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}
static inline uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* --- active.c: lock held -------------------------------------------------------------------------
 */

/* The inode of a live object that clients may name; NULL and *err. */
const struct pm_inode *file_inode(struct pm_store *st, struct pm_id id, int *err);
/* The same, and a regular file. */
const struct pm_inode *file_regular(struct pm_store *st, struct pm_id id, int *err);
struct file *file_find(struct pm_store *st, struct pm_id id);
/* Made if need be; NULL: no memory, or its owners have no account yet and somebody alone has to make it. */
struct file *file_get(struct pm_store *st, struct pm_id id);
void file_rest(struct pm_store *st, struct file *f);         /* freed if nothing is left of it */
/* Forget files whose inode is gone and that nobody pins. */
void files_sweep(struct pm_store *st);
/* The inode is free or about to be: drop what is fresh and unstable. @f may be freed. */
void file_gone(struct pm_store *st, struct file *f);
uint64_t file_size(const struct file *f, const struct pm_inode *in);

/* Do the owners' limits allow @n blocks more? */
bool file_may_grow(const struct file *f, uint64_t n);
/* Another owner has it. */
void file_charge(struct file *f, struct quota *uid, struct quota *gid);
/* @len blocks of an entry have come or (negative) gone. */
void fresh_count(struct pm_store *st, struct file *f, bool owned, uint64_t len);

/* First entry that ends behind @lblk; f->nfresh if none. */
unsigned fresh_at(const struct file *f, uint64_t lblk);
int fresh_reserve(struct file *f, unsigned n); /* room for n more; -ENOMEM */
void fresh_insert(struct pm_store *st, struct file *f, struct fresh e); /* room is reserved */
void fresh_remove(struct pm_store *st, struct file *f, unsigned i);
/* Make @lblk the start of an entry if it lies inside one; room for one more is reserved. */
void fresh_split(struct file *f, uint64_t lblk);
/* What is fresh in [lblk, end) becomes DIRTY; room for two more is reserved. */
void fresh_dirty(struct file *f, uint64_t lblk, uint64_t end);
/* Does a live write pin other than @but cover this block? */
bool file_written_by(const struct file *f, const struct pm_pin *but, uint64_t lblk);
/* Does any live pin cover it? */
bool file_pinned(const struct file *f, uint64_t lblk, uint64_t len);
/* The file no longer has these blocks: free them now or with the last pin. lsn 0: never was on
 * media. */
void file_release(struct pm_store *st, struct file *f, uint64_t lblk, uint64_t pblk, uint64_t len,
                  pm_lsn lsn);
/* A pin has left the list: free what waited for it. */
void file_unlimbo(struct pm_store *st, struct file *f);
/* Zero [a, b) of the file, which lie at @at, but for what live write pins other than @but cover
 * before their cut. */
void file_zero(struct pm_store *st, struct file *f, const struct pm_pin *but, uint64_t a,
               uint64_t b, uint8_t *at);
/* Where the byte at the end of file is, if its block holds data and it is not the first byte there.
 */
int file_tail(struct pm_store *st, struct file *f, const struct pm_inode *in, uint8_t **at);
/* The media block that holds the media's end of file; 0: none, or the size is a multiple of a
 * block. */
int file_tail_block(struct pm_store *st, const struct pm_inode *in, uint64_t *blk);

int runs_reserve(struct runs *r, unsigned n); /* room for n more; -ENOMEM */
void runs_add(struct runs *r, uint64_t start, uint64_t len);

/* --- file.c --- */

struct pub {                /* what to publish */
	uint64_t lblk, end; /* fresh blocks in here: */
	const struct blk_run *span; /* and, with nspan, in one of these; entries do not reach over their ends */
	unsigned nspan;
	bool dirty_only;    /* all, or those DIRTY with epoch <= this */
	bool judged;        /* nothing has been promised: it may be refused, as a whole */
	uint32_t epoch;
	uint64_t size; /* the end of file reaches here at least */
	struct pm_time mtime, ctime;
};
/* Is this fresh block to be published? */
bool pub_has(const struct pub *p, const struct fresh *x);
/* Turn fresh blocks into extents, move size and times; on error what is fresh stays so. */
int file_publish(struct pm_store *st, struct file *f, const struct pm_inode *in,
                 const struct pub *p, pm_lsn *lsn);
void wake_all(struct pm_wait *w);  /* no lock held */
void job_end(struct pm_store *st); /* likewise: one of pm_files.jobs is over */

/* Call @fn for the places of file bytes [a, b) of the map. */
void each_place(const struct pm_pin *p, uint64_t a, uint64_t b,
                void (*fn)(void *arg, uint64_t at, uint8_t *place, uint64_t len), void *arg);

/* What pm_commit was asked, noted in the pin; -EINVAL. */
static inline int commit_ask(struct pm_map *m, uint64_t prefix, enum pm_stable stable, bool honor, struct pm_committed *out,
                             struct pm_wait *w)
{
	struct pm_pin *p = m->pin;
	enum pm_method how;

	if (!p || !p->write || p->committed)
		return -EINVAL;
	how = p->st->media.method;
	p->map = m;
	p->prefix = prefix;
	p->out = out;
	p->w = w;
	p->unstable = stable == PM_UNSTABLE && !sum_on(p->st) &&
	              (how == PM_MSYNC || (honor && how != PM_VOLATILE));
	return 0;
}
/* Then: as pm_commit. No lock held. */
int commit_now(struct pm_pin *p);
/* Flush what must be durable before all of the pin is published; the next drain makes it so. Not with PM_MSYNC. */
int commit_flush(struct pm_pin *p, const struct pm_inode *in, struct pm_worker *w);
/* file_inode() found none, for the reason @err: -ESTALE is the end of the commit, 0. */
int commit_gone(struct pm_pin *p, int err);
void pin_wake(struct pm_pin *p, struct pm_wait **waiters); /* take those that wait for its end */
static inline bool time_before(struct pm_time a, struct pm_time b)
{
	return a.sec < b.sec || (a.sec == b.sec && a.nsec < b.nsec);
}

/* --- promise.c: lock held --- */

/* What is fresh in the range of @p will be published whatever happens: may it? Then keep the nodes for it. Else -EDQUOT,
 * -ENOSPC; -EINPROGRESS: only @busy's end will tell; NEEDS_ALL. */
int promise_make(struct pm_pin *p, const struct pm_inode *in, struct pm_worker *w, struct pm_pin **busy);
/* The range, or the tree, is no longer what it was. */
void promise_loosen(struct pm_pin *p, const struct pm_inode *in);
void promise_end(struct pm_pin *p); /* it was kept, or not needed */
/* Does a write under way count on the tree as it is? Then whoever changes it asks promise_judge before. */
bool promise_exact(const struct file *f);
/* @tx has tried what somebody who is alone is about to do, and will be dropped: it takes @more blocks. May it, and does it leave
 * that write what it then needs? Then that is kept. 0; -EDQUOT, -ENOSPC: not changed. */
int promise_judge(struct pm_tx *tx, struct file *f, const struct pm_inode *in, int64_t more);
/* The tree has been changed by what was owed: that pays for what the write needs now. */
void promise_again(struct pm_store *st, struct file *f, const struct pm_inode *in);
/* As promise_make for what @pub is going to publish now; nothing is kept for it. */
int promise_try(struct pm_store *st, struct file *f, const struct pm_inode *in, const struct pub *pub);
/* What is DIRTY, and what is fresh in [lblk, end), may stay so until it is published without being judged: then owe
 * the nodes. Else -ENOSPC, -EDQUOT; NEEDS_ALL. */
int file_owe(struct pm_store *st, struct file *f, const struct pm_inode *in, struct pm_worker *w, uint64_t lblk,
             uint64_t end);
void file_unowe(struct pm_store *st, struct file *f);

/* --- lease.c: lock held, or inside with the file's inode --- */

struct lease_want {
	uint64_t off, end; /* bytes, whole blocks */
	bool write;
	unsigned most; /* pieces */
};
/* Map and pin for a lease. -EINPROGRESS: @busy is in the way. */
int map_lease(struct pm_store *st, struct pm_worker *w, struct file *f, const struct pm_inode *in,
              const struct lease_want *lw, struct pm_map *m, struct pm_pin **busy);
/* Blocks [lblk, end) have left the file: who holds a lease on them is asked for it back. */
void lease_recall(struct pm_store *st, struct file *f, uint64_t lblk, uint64_t end);
/* What leases say of blocks [lblk, end) is no longer so, but for the lease of @but. */
void lease_changed(struct file *f, const struct pm_pin *but, uint64_t lblk, uint64_t end);

/* --- dirty.c: lock held, or inside with the file's inode --- */

/* An unstable write of bytes up to @end has been accepted. */
void dirty_note(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t end,
                struct pm_time now);
/* These pool blocks have to be flushed some day; room is reserved. */
void dirty_run(struct pm_store *st, struct file *f, uint64_t start, uint64_t len);
void dirty_check(struct pm_store *st, struct file *f, const struct pm_inode *in); /* clean now? */
void dirty_drop(struct pm_store *st,
                struct file *f); /* forget everything unstable but fresh blocks */
/* Does the store hold more unstable data than it should? */
bool dirty_over(const struct pm_store *st);
/* Then settle @id, which an unstable write has made longer, and others while that does not suffice. No lock held. */
void dirty_bound(struct pm_store *st, struct pm_id id);

/* --- sum.c: lock held, sum_on() --- */

#define SUM_BLOCKS 1024u /* entries set in one transaction, about */

/* How a written block is overwritten; neither without sum_on(). */
bool sum_moves(const struct pm_store *st); /* by another block */
bool sum_stays(const struct pm_store *st); /* in place */

struct sum_old { /* what a publishing transaction replaces: for file_release, behind it */
	struct file *f;
	struct ext *held;
	unsigned n;
	int err;
};
/* Set the entries of @x, which is durable, for a file that will have @size bytes; drop what it
 * replaces. */
int sum_publish(struct sum_old *o, struct pm_tx *tx, const struct pm_inode *in,
                const struct fresh *x, uint64_t size);
void sum_published(struct pm_store *st, struct sum_old *o, int err, pm_lsn lsn);
/* Fill block @to with what the file has at @lblk. -EIO: that is bad. */
int sum_copy(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t to);
/* -EIO: the written block at @lblk, of which something has to be kept, is bad. */
int sum_keep(struct pm_store *st, const struct pm_inode *in, uint64_t lblk);
/* Copy file bytes [a, b) of one block into @to; sum_copy or sum_keep has judged them. */
void sum_restore(struct pm_store *st, const struct pm_inode *in, uint64_t to, uint64_t a,
                 uint64_t b);
/* sum_stays(): bytes [off, end) are going to be overwritten. Until sum_overwritten or sum_seal their
 * blocks have no checksum. -EIO: one of which something has to be kept is bad. */
int sum_open(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t off,
             uint64_t end);
/* Entries of the written blocks [*lblk, end) but the one with the end of file; all of it is durable. *lblk
 * moves on; -EAGAIN: to be continued in another transaction. */
int sum_overwritten(struct pm_tx *tx, const struct pm_inode *in, uint64_t *lblk, uint64_t end);
/* The block with the end of file, where @size is the end from now on. @done: what overwrites it is durable, all
 * of it. */
int sum_end(struct pm_tx *tx, const struct file *f, const struct pm_inode *in, bool done,
            uint64_t size);
/* What is left of a write that is over (@but: this one). */
void sum_seal(struct pm_store *st, const struct file *f, const struct pm_inode *in,
              const struct pm_pin *but, uint64_t lblk, uint64_t end);
/* The file is going to end at @size. */
int sum_cut(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t size);
void sum_put_link(struct pm_tx *tx, uint64_t blk, const void *target, size_t len);

/* --- truncate.c: lock held --- */

/* Cut extents that an interrupted truncate or write left behind the end of file. What has been looked at is not again,
 * but when one of them is under way: a file may have very many blocks reserved there. */
int file_trim(struct pm_store *st, struct file *f, const struct pm_inode *in);
/* Free the orphan that a last unpin left. */
void file_orphan(struct pm_store *st, struct pm_id id);

#endif
