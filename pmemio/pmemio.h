/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pmemio.h - a pool of persistent memory that holds a file system made for being the target of RMA
 *
 * A pool is one file or device-DAX node, mapped whole. Names, attributes and extents are changed by
 * journal transactions; file data is never read or written by this library on the way in or out: the
 * caller asks for the place (pm_map_*), moves bytes there by whatever means it has, and publishes them.
 *
 *     pm_map_write --> caller places the payload --> pm_commit --> pm_unpin
 *     pm_map_read  --> caller pushes the payload ----------------> pm_unpin
 *
 * Between map and unpin the segments are pinned: no block under them is freed or reused, whatever
 * truncate, remove or rename do meanwhile (invariant I2).
 *
 * Threads: every function may be called from any thread unless it says otherwise. Some go on side by side if
 * they are about different inodes: getattr, lookup, readlink, readdir without attributes, map for reading, unpin;
 * and, but with PM_MSYNC, map for writing, stable commits and batches of them, setattr, and changes of names in different
 * directories. The others go one at a time. None blocks for I/O except open, close, mkfs and check: on media whose flush
 * is slow (method msync) a flusher thread does the waiting, and the caller learns the end of it through
 * a struct pm_wait.
 *
 * Errors: functions return 0 or a negative errno and then leave their outputs alone. Common causes, not
 * repeated below: -ESTALE (that inode, or that generation of it, is gone), -EIO (a structure failed
 * its checksum, or a flush failed: the store's log callback has the details).
 */
#ifndef PMEMIO_PMEMIO_H
#define PMEMIO_PMEMIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#include "pmemio/persist.h" /* enum pm_method */

#define PM_BLOCK     4096u /* bytes; the unit of allocation */
#define PM_NAME_MAX  255u
#define PM_LINK_PATH 4095u /* longest symbolic link target */
#define PM_LINK_MAX  65000u
#define PM_FILE_MAX  (1ull << 47) /* largest file, bytes */
#define PM_ROOT_INO  1ull         /* its generation is 1 for ever */

struct pm_store; /* an open pool */
struct pm_pin;   /* what keeps mapped segments in place */

/* A human-readable reason for a failed open, mkfs or check: names the thing and the cure. */
struct pm_error {
	char text[512];
};

/* --- making, opening, closing (super.c, store.c) ---------------------------------------------------- */

struct pm_mkfs_opts {
	uint64_t size;     /* bytes; 0: the size of the existing file or device */
	char label[64];    /* NUL-terminated, may be empty */
	uint8_t uuid[16];  /* all zero: random */
	unsigned lanes;    /* journal lanes; 0: 8 */
	bool data_checksum; /* keep a CRC32C of each block of file data: 1/1024 of the pool; for good */
	bool reserve;      /* a file: with all its space, so that its file system cannot run full under the pool */
	bool force;        /* overwrite something that already is a pool, or any non-empty file */
	uint32_t root_uid, root_gid, root_mode; /* owner and mode (0: 0755) of the root directory */
};

/**
 * pm_mkfs - write an empty pool
 * @path: file (created 0600 and sized, if absent) or device-DAX node
 * Return: 0; -EEXIST holds a pool or other data and !force; -EBUSY open elsewhere; -EINVAL too small
 * (16 MiB at least) or an impossible option; -ENOSPC, -EOPNOTSUPP no space to reserve, or no way to; errors of
 * open(2). @why tells which, always.
 */
int pm_mkfs(const char *path, const struct pm_mkfs_opts *opts, struct pm_error *why);

struct pm_open_opts {
	enum pm_method method;  /* PM_AUTO unless the administrator insists; a claim stronger than the
				 * mapping allows is refused with -EPERM */
	bool read_only;         /* for inspection; no recovery is written, journal replayed in memory only */
	bool verify_reads;      /* pm_map_read proves checksums of data, where the pool has them: -EIO */
	uint32_t once_age;      /* seconds after which a record of a change (pm_once) counts no more, the time not counted
				 * for which the pool is closed; 0: as long as it is kept */
	void (*log)(void *arg, int priority, const char *text); /* syslog priorities; may be NULL */
	void *log_arg;
};

/**
 * pm_open - map a pool, recover it, make it ready for use
 *
 * Replays the journal and rebuilds free space after a crash; loads the stored free space after a clean
 * close. Takes an exclusive lock (flock and OFD lock) for as long as it is open.
 *
 * Return: 0; -EBUSY another process has it; -EINVAL not a pool; -EPROTONOSUPPORT version or an unknown
 * incompatible feature, named in @why; -EUCLEAN damaged, @why names the structure and the cure.
 */
int pm_open(const char *path, const struct pm_open_opts *opts, struct pm_store **out,
	    struct pm_error *why);

/* Make everything durable, store the free space, mark clean, unmap. -EBUSY: there are pins, nothing was done. With any
 * other error the store is gone as well, but was not marked clean: the next open recovers. */
int pm_close(struct pm_store *st);

struct pm_info {
	uint8_t uuid[16];
	char label[64];
	uint64_t size;         /* bytes of the pool */
	uint32_t version;      /* of the format */
	uint64_t boot;         /* increments at every read-write open */
	enum pm_method method; /* in force */
	const char *reason;    /* why that one; static text */
	const char *not_promised; /* what may be lost all the same; static text */
	enum pm_gran gran;     /* what libpmem2 says of the mapping */
	bool map_sync;         /* see struct pm_facts */
	bool was_clean;        /* the last close was clean */
	uint64_t replayed;     /* transactions replayed at open */
	uint64_t open_usec;    /* time pm_open took */
	uint32_t reply_slots;  /* changes that are remembered (pm_once_find); 0: none */
	bool data_checksum;    /* as made */
};
void pm_get_info(struct pm_store *st, struct pm_info *out);

/* A pool's memory without opening it: no lock is taken, nothing is read or written, a server may have it open. For
 * finding out what a machine can do with it. */
struct pm_look {
	enum pm_gran gran;
	bool map_sync;
	void *base; /* the shared mapping */
	size_t len;
	int fd;
	void *map; /* the library's */
};
/* errors of open(2); -EINVAL no file or device, or too short; errors of libpmem2. @why names it, always. */
int pm_look_open(const char *path, struct pm_look *out, struct pm_error *why);
void pm_look_close(struct pm_look *k);

/* The two memory regions that segments point into: the pool, and read-only zeros for holes. A
 * transport registers both, for local access. Constant while the store is open. */
struct pm_region {
	void *base;
	size_t len;
};
void pm_get_regions(struct pm_store *st, struct pm_region *pool, struct pm_region *zero);

/* 16 secret random bytes made at mkfs: the key for file handle MACs. */
const uint8_t *pm_secret(struct pm_store *st);

/**
 * pm_write_verf - 8 bytes that change if and only if unstable data may have been lost (I5)
 *
 * New after a crash with unstable data outstanding, after a failed flush, and at every open with
 * PM_VOLATILE. The same after a clean restart.
 */
void pm_write_verf(struct pm_store *st, uint8_t verf[8]);

struct pm_stats { /* since open; read without tearing, not as one snapshot */
	uint64_t transactions, journal_bytes, flushes, flushed_bytes, drains, msyncs, checkpoints;
	uint64_t pins, fresh_blocks, dirty_inodes; /* now */
	uint64_t flush_errors, checksum_errors, media_errors; /* media_errors: pages that answered with SIGBUS */
	uint64_t replies; /* records of changes made once */
	uint64_t leases;  /* now */
	uint64_t recalls;
};
void pm_get_stats(struct pm_store *st, struct pm_stats *out);

struct pm_space {
	uint64_t blocks, free_blocks; /* of PM_BLOCK bytes; free excludes what is reserved for metadata */
	uint64_t inodes, free_inodes; /* inodes: used now; free: how many more free space could hold */
};
void pm_get_space(struct pm_store *st, struct pm_space *out);

/* --- waiting -------------------------------------------------------------------------------------- */

/* Embedded in the request that waits. done() is called exactly once for every call that returned
 * -EINPROGRESS, on any thread (the flusher, or a thread that released what was waited for), with no
 * lock held; it must not block. */
struct pm_wait {
	void (*done)(struct pm_wait *w, int err);
	struct pm_wait *next; /* the library's while waiting */
	uint64_t arg;         /* likewise */
};

/* The place of a transaction in the journal; 0 is always durable. */
typedef uint64_t pm_lsn;
/* Everything that can be seen in the store at this moment: what a reply rests on that changed nothing. */
#define PM_LSN_SEEN UINT64_MAX

/* 0: durable now. -EINPROGRESS: w->done will tell. -EIO: the flush failed. With PM_FENCE and PM_CLWB a
 * transaction is durable when the call that made it returns; PM_VOLATILE counts as durable. */
int pm_durable(struct pm_store *st, pm_lsn lsn, struct pm_wait *w);

/* --- objects ---------------------------------------------------------------------------------------- */

struct pm_id { /* what a file handle carries; never reused */
	uint64_t ino, gen;
};

enum pm_type { PM_REG = 1, PM_DIR, PM_BLK, PM_CHR, PM_LNK, PM_SOCK, PM_FIFO }; /* as ftype3 */

struct pm_attr {
	struct pm_id id;
	enum pm_type type;
	uint32_t mode; /* permission bits, 07777 */
	uint32_t nlink, uid, gid;
	uint32_t rdev_major, rdev_minor;
	uint64_t size, used; /* bytes */
	struct timespec atime, mtime, ctime;
};

/* What a change did, taken in the same instant as the change (weak cache consistency data). */
struct pm_change {
	pm_lsn lsn;                      /* reply once durable */
	struct pm_attr obj;              /* the object made, changed, linked or removed, afterwards */
	struct pm_attr dir_before, dir;  /* the directory named first */
	struct pm_attr dir2_before, dir2; /* rename: the target directory */
	struct pm_attr obj_before;       /* setattr */
};

int pm_getattr(struct pm_store *st, struct pm_id id, struct pm_attr *out);

enum { PM_SET_MODE = 1, PM_SET_UID = 2, PM_SET_GID = 4, PM_SET_SIZE = 8, PM_SET_ATIME = 16,
       PM_SET_MTIME = 32 };
struct pm_setattr {
	unsigned set; /* PM_SET_* */
	uint32_t mode, uid, gid;
	uint64_t size;
	struct timespec atime, mtime;        /* tv_nsec UTIME_NOW: the store's clock */
	const struct timespec *ctime_guard; /* not NULL: -EKEYEXPIRED if ctime differs (NFS3ERR_NOT_SYNC) */
};
/* Atomic as a whole. -EKEYEXPIRED guard; -EISDIR, -EINVAL size of a non-file; -EFBIG; -ENOSPC. */
int pm_setattr(struct pm_store *st, struct pm_id id, const struct pm_setattr *sa,
	       struct pm_change *ch);

/* Names: bytes other than '/' and NUL, 1 to PM_NAME_MAX of them, not "." or "..": -EINVAL or
 * -ENAMETOOLONG otherwise. -ENOTDIR if dir is none. pm_lookup alone also resolves "." and "..". */
int pm_lookup(struct pm_store *st, struct pm_id dir, const char *name, size_t len, struct pm_attr *out);

struct pm_new {
	enum pm_type type;
	uint32_t mode, uid, gid;
	uint32_t rdev_major, rdev_minor;
	const char *target; /* PM_LNK */
	size_t target_len;  /* -ENAMETOOLONG over PM_LINK_PATH, -EINVAL 0 or with a NUL */
	unsigned set;       /* PM_SET_SIZE, PM_SET_ATIME, PM_SET_MTIME: initial values below */
	uint64_t size;
	struct timespec atime, mtime;
	bool exclusive;     /* NFSv3 EXCLUSIVE: keep verf, and an existing file with the same verf is
			     * returned as if just made */
	uint8_t verf[8];
};
/* -EEXIST (ch->obj is then the existing object's attributes), -ENOSPC, -EMLINK (mkdir). */
int pm_create(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
	      const struct pm_new *nw, struct pm_change *ch);

/* remove: not directories (-EISDIR); rmdir: only empty ones (-ENOTDIR, -ENOTEMPTY). */
int pm_remove(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
	      struct pm_change *ch);
int pm_rmdir(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
	     struct pm_change *ch);

/* -EINVAL into its own subtree; -EEXIST or -ENOTEMPTY, -EISDIR, -ENOTDIR as RFC 1813 section 3.3.14. */
int pm_rename(struct pm_store *st, struct pm_id from, const char *fname, size_t flen,
	      struct pm_id to, const char *tname, size_t tlen, struct pm_change *ch);

/* -EISDIR for a directory, -EMLINK, -EEXIST. */
int pm_link(struct pm_store *st, struct pm_id obj, struct pm_id dir, const char *name, size_t len,
	    struct pm_change *ch);

/* Copies at most @size bytes; *len is the full length. -EINVAL: not a symbolic link. */
int pm_readlink(struct pm_store *st, struct pm_id id, char *buf, size_t size, size_t *len);

struct pm_dirent {
	const char *name; /* not NUL-terminated; valid during the callback */
	size_t len;
	uint64_t cookie;            /* pass it to go on behind this entry; stable for the entry's life */
	const struct pm_attr *attr; /* NULL unless asked for, or if the inode is damaged */
	struct pm_id id;
};
/**
 * pm_readdir - visit entries behind @cookie (0: from the start), "." and ".." first
 * @fn: returns false to stop before the entry counts as visited; called under the store's lock: it
 *      must not call back into the store
 * @eof: set true when no entry is left behind the last visited one
 * Every entry present throughout a whole scan is seen exactly once, whatever else comes and goes.
 */
int pm_readdir(struct pm_store *st, struct pm_id dir, uint64_t cookie, bool want_attr,
	       bool (*fn)(void *arg, const struct pm_dirent *de), void *arg, bool *eof);

/* --- changes made once (reply.c, and the changes above) ------------------------------------------------------ *
 *
 * A client that heard no answer asks again, and its first request may have been carried out. So a change can
 * leave a record under a key that tells this request from all others; the record is part of the change's own
 * transaction: after a crash there are both or neither. The pool keeps the last pm_info.reply_slots records; those
 * older than pm_open_opts.once_age count no more.
 */
struct pm_once {
	uint8_t key[16]; /* evenly distributed, as a keyed hash is */
	uint32_t tag;    /* the caller's; comes back */
};
struct pm_reply {
	uint32_t tag;
	struct pm_id obj; /* pm_change.obj.id of the change */
	pm_lsn lsn;       /* reply once durable */
};
/* The record of that key. -ENOENT: the change was not made, or so long ago that it is forgotten. */
int pm_once_find(struct pm_store *st, const struct pm_once *once, struct pm_reply *out);

/* As the functions without _once, which pass NULL. -EALREADY: there is a record of that key, nothing was done. A
 * change that fails, or has nothing to do, leaves no record. */
int pm_setattr_once(struct pm_store *st, struct pm_id id, const struct pm_setattr *sa,
		    const struct pm_once *once, struct pm_change *ch);
int pm_create_once(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
		   const struct pm_new *nw, const struct pm_once *once, struct pm_change *ch);
int pm_remove_once(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
		   const struct pm_once *once, struct pm_change *ch);
int pm_rmdir_once(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
		  const struct pm_once *once, struct pm_change *ch);
int pm_rename_once(struct pm_store *st, struct pm_id from, const char *fname, size_t flen,
		   struct pm_id to, const char *tname, size_t tlen, const struct pm_once *once,
		   struct pm_change *ch);
int pm_link_once(struct pm_store *st, struct pm_id obj, struct pm_id dir, const char *name, size_t len,
		 const struct pm_once *once, struct pm_change *ch);

/* --- map, commit, unpin (file.c) --------------------------------------------------------------------- */

enum pm_stable { PM_UNSTABLE, PM_DATA_SYNC, PM_FILE_SYNC }; /* as stable_how */

#define PM_MAP_INLINE 8
struct pm_map {
	struct iovec *seg; /* where the bytes are or go, in order; valid until pm_unpin */
	unsigned nseg;
	uint64_t len;        /* bytes mapped: for reading at most up to the end of file */
	bool eof;            /* reading: the range reaches the end of file */
	struct pm_attr attr; /* at map time */
	struct pm_pin *pin;
	struct iovec few[PM_MAP_INLINE]; /* seg points here when they suffice */
};

/**
 * pm_map_read - pin a range for reading
 * Holes, unwritten blocks and blocks whose first write has not committed come as zeros (I1). Reading
 * leaves the access time alone: it would cost a transaction per read.
 * Return: 0, also with len 0 at or behind the end of file; -EISDIR, -EINVAL not a regular file.
 */
int pm_map_read(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m);

/**
 * pm_map_write - pin a range for writing, allocating blocks where the file has none
 * @w: used when the range touches a new block that another write is still filling; or little is left, and what other
 *     writes to the file will need of it is not known before they are over
 *
 * Blocks allocated here belong to the file only once pm_commit() has published them; until then, and
 * after a crash, they are free space. Blocks only partly covered are zeroed first.
 *
 * Return: 0; -EINPROGRESS: call again from w->done; -ENOSPC, -EDQUOT: not one block is held back; -EFBIG;
 * -EISDIR, -EINVAL not a regular file.
 */
int pm_map_write(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m,
		 struct pm_wait *w);

struct pm_committed {
	enum pm_stable stable; /* what was really reached; at least what was asked, or an error */
	struct pm_attr before, attr;
	uint8_t verf[8];
};
/**
 * pm_commit - publish what was placed into @m (from pm_map_write)
 * @prefix: bytes placed, from the start; the rest of the range is given back unpublished
 * @stable: PM_UNSTABLE may return before anything is durable; others flush data, then commit size, times
 *          and extents in one transaction. @out->stable says what was reached: methods with a cheap flush
 *          reach PM_FILE_SYNC always unless @honor
 * @honor: do not do more than was asked for
 *
 * Return: 0; -EINPROGRESS: w->done brings the result, @out is filled by then (@m, @out and @w stay valid
 * until it is called); -EIO the flush failed, the verifier is new. Never for want of space: pm_map_write has seen to it.
 * Call once per map. A write to a file removed or cut meanwhile counts as having come before that.
 */
int pm_commit(struct pm_map *m, uint64_t prefix, enum pm_stable stable, bool honor,
	      struct pm_committed *out, struct pm_wait *w);

/* Commits that are ready together share their drains (batch.c): what would be two for each is two for 64, whichever files
 * they are of. The answers are as if they had come one after the other. A batch belongs to one store, and to one thread at a
 * time. */
struct pm_batch;
int pm_batch_make(struct pm_store *st, struct pm_batch **out); /* 0, -ENOMEM */
void pm_batch_free(struct pm_batch *b);                        /* empty; NULL allowed */
/**
 * pm_batch_commit - as pm_commit, but what it does may be put off until pm_batch_end()
 *
 * -EINPROGRESS, with every method: w->done brings the result, from pm_batch_end() or, on PM_MSYNC, from the flusher.
 * Until then the map counts as not committed yet, and is not unpinned. Everything that would gain nothing is done at once and
 * gives what pm_commit gives: unstable writes, PM_VOLATILE, checksums of data, and when the batch is full.
 * Who gets -EINPROGRESS calls pm_batch_end() before it waits for events. -EINVAL as pm_commit.
 */
int pm_batch_commit(struct pm_batch *b, struct pm_map *m, uint64_t prefix, enum pm_stable stable, bool honor,
		    struct pm_committed *out, struct pm_wait *w);
/**
 * pm_batch_end - make durable and publish all that joined, in that order for each file, and call each w->done
 *
 * done() runs on this thread with no lock held; it may unpin its own map and join commits to the batch: those are ended,
 * too, before this returns. Nothing happens when the batch is empty, or from within done().
 */
void pm_batch_end(struct pm_batch *b);

/* Release a map of either kind. A write map that was never committed is undone: its new blocks go back
 * to free space. Never while pm_commit is in progress. */
void pm_unpin(struct pm_map *m);

/**
 * pm_media_fault - for the SIGBUS handler of the process: is this address the pool's, and can things go on?
 *
 * True: the faulting access may be done again; it gets ones, and the object they belong to answers -EIO from now
 * on. Safe in a signal handler on any thread. False: the fault has nothing to do with the pool.
 */
bool pm_media_fault(struct pm_store *st, void *addr);
/* A transfer from or to @m failed (EFAULT, a device's error): find out whether the media is why. 0; -EIO: it is,
 * and maps of these pages fail from now on. */
int pm_map_probe(struct pm_map *m);

/* Make all unstable writes of a file durable (NFS COMMIT). As pm_commit. */
int pm_sync_file(struct pm_store *st, struct pm_id id, struct pm_committed *out, struct pm_wait *w);

/* Reserve unwritten blocks for a range, durably, all or none; they read as zeros and do not move the size. -ENOSPC,
 * -EDQUOT. */
int pm_allocate(struct pm_store *st, struct pm_id id, uint64_t off, uint64_t len, struct pm_change *ch);

/* Extents of a file as FIEMAP would show them; for check, tests and layouts. */
enum pm_ext_state { PM_EXT_HOLE, PM_EXT_UNWRITTEN, PM_EXT_VALID };
struct pm_extent {
	uint64_t off, len; /* bytes */
	uint64_t at;       /* bytes from the start of the pool; 0 for a hole */
	enum pm_ext_state state;
};
int pm_extents(struct pm_store *st, struct pm_id id, uint64_t off, struct pm_extent *ext, unsigned max,
	       unsigned *n);

/* --- leases (lease.c): pins that last, for one-sided access ----------------------------------------------------
 *
 * The holder moves bytes itself, for as long as it likes, and commits ranges of them, any number of times.
 *
 *   pm_lease_open --> pm_lease_zero (until 0) --> give out the places --> pm_lease_commit ... --> pm_lease_close
 *
 * A lease for writing has blocks everywhere; new ones are zeroed before anybody gets their address, so that neither
 * a commit of bytes never written nor a look at the place shows what they held before. They are the file's once
 * committed; close gives the others back. Blocks of a lease are shared with pm_map_write of anybody. Pools with
 * checksums of data give none for writing.
 */
struct pm_lease;
struct pm_lease_opts {
	const void *owner; /* leases of one owner do not conflict */
	bool write;
	unsigned max_extents; /* the lease ends behind so many; at least 1 */
	/* The lease must go soon: the file is cut or removed, or another owner waits (one of the two writes). Called once,
	 * under the store's lock, on any thread: it must not call back. */
	void (*recall)(void *arg);
	void *arg;
};
/**
 * pm_lease_open - pin the whole blocks that [off, off + len) touches, or a beginning of them
 * @min: bytes from @off on that have to be in it
 * Return: 0; -EINPROGRESS call again from w->done (leases in the way have been recalled); -ENODATA reading, the range
 * begins at or behind the end of file; -EOPNOTSUPP checksums; -ENOSPC, -EDQUOT, -EFBIG, -EISDIR, -EINVAL as pm_map_write.
 */
int pm_lease_open(struct pm_store *st, struct pm_id id, uint64_t off, uint64_t len, uint64_t min,
		  const struct pm_lease_opts *o, struct pm_lease **out, struct pm_wait *w);
/* Zero about @blocks new blocks, durably. -EAGAIN: there are more. */
int pm_lease_zero(struct pm_lease *l, unsigned blocks);
/* What it covers; for reading the last extent ends with the file. Constant; states as they were at open. Extents not
 * VALID have no place (at == 0) in a lease for reading. */
const struct pm_extent *pm_lease_extents(const struct pm_lease *l, unsigned *n);
void pm_lease_attr(const struct pm_lease *l, struct pm_attr *out); /* at open */
/* Goes up when others have turned holes or unwritten blocks of it into data. */
uint64_t pm_lease_generation(struct pm_lease *l);
bool pm_lease_recalled(struct pm_lease *l);

struct pm_range {
	uint64_t off, len;
};
#define PM_LEASE_RANGES 64u
/**
 * pm_lease_commit - publish ranges of a lease for writing
 * @durable: the bytes are durable already; else they are flushed first
 * @size: the end of file moves up to it, if not 0; else to the end of the ranges. Within the lease
 * @mtime: or NULL: now
 * All in one transaction, unless there are more extents than fit one; then size and times move with the last.
 * Return: 0; -EINPROGRESS as pm_commit (@out stays valid); -EINVAL a range outside; -ECANCELED the file has been cut
 * below a range; -ESTALE it is removed; -EIO, -ENOSPC as pm_commit.
 */
int pm_lease_commit(struct pm_lease *l, const struct pm_range *r, unsigned n, bool durable, uint64_t size,
		    const struct timespec *mtime, struct pm_committed *out, struct pm_wait *w);
/* Nobody can reach its places any more. Once. A commit in progress ends first. */
void pm_lease_close(struct pm_lease *l);

/* --- checksums of data (sum.c) ------------------------------------------------------------------------------
 *
 * On a pool made with data_checksum every write is stable, whatever was asked for; one of two that touch the same
 * block waits (-EINPROGRESS of pm_map_write). A write that would have to keep a part of a damaged block fails with
 * -EIO. A block has no checksum while it is overwritten, with PM_MSYNC it is written anew elsewhere. */

struct pm_scrub_bad {
	struct pm_id id;
	uint64_t off; /* bytes in the file, of the block */
	uint64_t at;  /* and in the pool */
};
struct pm_scrub { /* zero but found, arg to begin */
	void (*found)(void *arg, const struct pm_scrub_bad *bad); /* lock held; may be NULL */
	void *arg;
	uint64_t ino, gen, lblk;    /* where to go on */
	uint64_t inodes;            /* all there are now */
	uint64_t blocks, bad;       /* seen so far */
	uint64_t unproven; /* of these without a checksum, since the power failed while they were overwritten; it is
			    * made now, unless the pool is open read_only */
	uint64_t unreadable;        /* objects whose extents or inode are damaged: `berth check` tells more */
};
/* Prove the checksums of the next blocks of data, about @blocks; the lock is held that long. 0: that was the last;
 * -EAGAIN: go on; -EOPNOTSUPP: a pool without. What changes meanwhile is seen as it is then or not at all. */
int pm_scrub_step(struct pm_store *st, struct pm_scrub *s, unsigned blocks);

/* Copy into the pool with non-temporal stores (for payload that arrived inline in a message). */
void pm_copy_in(void *dst, const void *src, size_t len);

/* --- quotas (quota.c) -------------------------------------------------------------------------------------- */

/* Blocks and inodes that an owner uses: live inodes with that uid or gid, tree nodes included, exact at
 * every moment. Over a limit pm_create, pm_map_write, pm_allocate, pm_setattr (a new owner) and whatever
 * makes a directory grow return -EDQUOT and change nothing. So does pm_lease_commit, if its extents need a node more than is
 * left; what pm_map_write let in is never refused. Limits are kept in the pool. */
enum pm_quota_kind { PM_QUOTA_UID = 1, PM_QUOTA_GID = 2 };
struct pm_quota {
	uint32_t kind, id;
	uint64_t blocks, inodes; /* used */
	uint64_t pending;        /* blocks of writes under way or unstable: count against the limit, too */
	uint64_t max_blocks, max_inodes; /* 0: no limit */
};
/* Set the limits of want->kind, want->id; they may lie below the usage. In force at once, durable with @lsn. May
 * block with PM_MSYNC, the first time for a pool. */
int pm_quota_set(struct pm_store *st, const struct pm_quota *want, pm_lsn *lsn);
void pm_quota_get(struct pm_store *st, enum pm_quota_kind kind, uint32_t id, struct pm_quota *out);
/* Everybody who uses something or has a limit, uids first, sorted; free(*out). */
int pm_quota_list(struct pm_store *st, struct pm_quota **out, size_t *n);

/* --- check (check.c) ------------------------------------------------------------------------------------ */

struct pm_check_report {
	uint64_t files, dirs, others, blocks_used, blocks_total, extents;
	uint64_t problems; /* 0: every invariant of FORMAT.md holds */
};
/**
 * pm_check - verify every invariant of the format, offline and without changing anything
 * @problem: called for each finding with the structure ("inode 17", "directory 3 leaf 0x2f") and what
 *           is wrong with it
 * @progress: called now and then with 0..1000; may be NULL
 * Return: 0, look at out->problems; -EBUSY; or what pm_open says of a pool too damaged to walk.
 */
int pm_check(const char *path, void (*problem)(void *arg, const char *where, const char *what),
	     void (*progress)(void *arg, unsigned permille), void *arg, struct pm_check_report *out,
	     struct pm_error *why);

struct pm_repair_calls { /* each may be NULL */
	void (*found)(void *arg, const char *where, const char *what); /* before: as pm_check */
	void (*fixed)(void *arg, const char *where, const char *what); /* what was done, what was dropped */
	void (*left)(void *arg, const char *where, const char *what);  /* what pm_check finds afterwards */
	void (*progress)(void *arg, unsigned permille);
};
struct pm_repair_report {
	uint64_t found, repaired, left;
	struct pm_check_report check; /* afterwards */
};
/**
 * pm_repair - check, put right what has one right answer, check again
 *
 * Writes nothing if nothing is wrong. Damaged inodes and trees are made anew from what of them can be read, and
 * everything dropped is named; inodes without a name go to lost+found. Blocks that two files claim with equal
 * right stay with both and are left. All changes are transactions: cut off anywhere, it can be run again.
 *
 * Return: 0, look at out->left; -EBUSY; -EUCLEAN damaged beyond repair, or other errors of pm_open, see @why.
 */
int pm_repair(const char *path, const struct pm_repair_calls *calls, void *arg,
	      struct pm_repair_report *out, struct pm_error *why);

#endif
