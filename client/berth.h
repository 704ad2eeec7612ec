/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * berth.h - libberth: files on a Berth (or any NFS version 3 over RDMA) server, through libfabric
 *
 *     struct berth *b;
 *     struct berth_file *f;
 *
 *     berth_connect("berth+tcp://store1/scratch", NULL, &b, &why);
 *     berth_open(b, NULL, "run/out.dat", O_CREAT | O_RDWR, 0644, &f);
 *     berth_pwrite(f, buf, len, 0, BERTH_FILE_SYNC);
 *     berth_close(f);
 *     berth_disconnect(b);
 *
 * Two layers. *Asynchronous*: berth_start_*() sends one NFS procedure and calls back once; wait for
 * berth_fd() in any event loop and call berth_progress(). *Synchronous*: everything else; such a
 * function sends what it needs and returns when it is answered. Both may be used on one session.
 *
 * Threads: a session with its files and registrations is used by one thread at a time (take turns
 * under a lock of yours, or open one session per thread; sessions share nothing). Callbacks come
 * out of berth_progress(), berth_wait(), berth_wait_any(), any synchronous call and
 * berth_disconnect(), on the thread that called it. A callback may start operations; it must not
 * make synchronous calls (-EDEADLK).
 *
 * Connection lost: the session reconnects by itself with growing pauses and sends every unanswered
 * operation again under its old transaction number, so that the server recognises those it has
 * carried out. Operations fail with -ETIMEDOUT once the outage has lasted berth_opts.reconnect_ms.
 * A session outlives that: the next operation tries again.
 *
 * Errors: 0, a count, or a negative errno; outputs are left alone then. Common to all that talk to
 * the server: -ETIMEDOUT       no server for reconnect_ms          -ECANCELED   berth_disconnect()
 *   -ESTALE          the object behind a handle is gone  -EACCES      the server's permission check
 *   -EREMOTEIO       the server failed internally        -EPROTO      an answer that makes no sense
 *   -EOPNOTSUPP      not offered by the server           -ENOMEM
 * berth_why() has a sentence about the connection.
 */
#ifndef BERTH_H
#define BERTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BERTH_API __attribute__((visibility("default")))

#define BERTH_FH_MAX   64   /* bytes of a file handle */
#define BERTH_GIDS_MAX 16   /* supplementary groups that AUTH_SYS carries */
#define BERTH_PATH_MAX 4096 /* longest path or link target, with its NUL */

struct berth;      /* a session: one export of one server */
struct berth_file; /* an open file */
struct berth_mr;   /* memory registered by the caller */
struct berth_map;  /* a range of a file made ready for one-sided access */

struct berth_error {
	char text[512]; /* names the thing and the cure */
};

/* --- URLs --- *
 *
 *   berth+PROVIDER://HOST[:PORT]/EXPORT[/PATH][?OPTION=VALUE[&...]]     tcp, verbs, ...; port 20049
 *   berth+shm://[NAME]/EXPORT[/PATH][?...]                              NAME of the endpoint: "berth"
 *
 * HOST may be [an IPv6 address]. %XX stands for a byte; a '%', '?' or '#' of a name must be written
 * so. Options: uid, gid (numbers); domain, fabric (as fi_info prints them); credits (calls in
 * flight); inline (bytes of one message); timeout, reconnect (seconds).
 */
struct berth_url {
	char provider[16];
	char *host, *port; /* of shm: NULL, name of the endpoint */
	char *path;        /* decoded; begins with '/' */
	char *domain, *fabric;
	bool has_uid, has_gid, has_timeout, has_reconnect;
	uint32_t uid, gid, credits, inline_size;
	unsigned timeout_ms, reconnect_ms;
};
/* Does @s look like one of ours ("berth+...://")? Says nothing about the rest. */
BERTH_API bool berth_is_url(const char *s);
/* -EINVAL: @why says what is wrong with which part. Free with berth_url_free(). */
BERTH_API int berth_url_parse(const char *s, struct berth_url **out, struct berth_error *why);
BERTH_API void berth_url_free(struct berth_url *u);
/* @path with %XX where a URL needs it. malloc'ed; NULL: no memory. */
BERTH_API char *berth_url_escape(const char *path, size_t len);

/* --- sessions --- */

struct berth_opts {    /* NULL or zeroed: the defaults. What the URL says goes before. */
	bool set_cred; /* use the next four, not the process's effective ids and groups */
	uint32_t uid, gid;
	unsigned ngids;
	const uint32_t *gids; /* at most BERTH_GIDS_MAX are used */
	unsigned connect_ms;  /* for one attempt to connect; 0: 10 s */
	unsigned patience_ms; /* how long to try again if the first attempts fail; 0: a failure is
	                         final */
	unsigned timeout_ms; /* without an answer for so long the connection counts as dead; 0: 30 s
	                      */
	unsigned reconnect_ms; /* longest outage to bridge; 0: 60 s */
	void (*log)(void *arg, int priority,
	            const char *text); /* syslog priorities; lost, back, given up */
	void *log_arg;
};

/**
 * berth_connect - connect, find the export that holds the URL's path, mount it
 * @out: the session; end it with berth_disconnect()
 *
 * Does not check that the part of the path behind the export exists: see berth_url_path().
 * Return: 0; -EINVAL bad URL or no such provider here; -ECONNREFUSED, -EHOSTUNREACH, -ETIMEDOUT
 * nobody answers; -EPROTO something else listens there; -ENOENT no such export; -EACCES not exported
 * to us. @why (may be NULL) has the sentence for the user. After a failure it may look for its reason
 * for two seconds, by a name lookup and a connection that says nothing.
 */
BERTH_API int berth_connect(const char *url, const struct berth_opts *opts, struct berth **out,
                            struct berth_error *why);
/* Unanswered operations complete with -ECANCELED first. Files must be closed before, memory may
 * stay registered. */
BERTH_API void berth_disconnect(struct berth *b);

BERTH_API const char *berth_export_path(const struct berth *b); /* "/scratch" */
BERTH_API const char *
berth_url_path(const struct berth *b); /* the URL's path behind it: "run/out.dat", or "" */
/* Path of @url behind the export of @b, malloc'ed in *path; -EXDEV: other server or export. */
BERTH_API int berth_resolve(const struct berth *b, const char *url, char **path,
                            struct berth_error *why);
BERTH_API const char *berth_why(const struct berth *b); /* last trouble with the connection; "" */
BERTH_API size_t berth_io_max(const struct berth *b);   /* bytes of one READ or WRITE */
BERTH_API void berth_set_cred(struct berth *b, uint32_t uid, uint32_t gid, unsigned ngids,
                              const uint32_t *gids);
struct berth_counters {
	uint64_t calls, resent, reconnects, read_bytes, written_bytes, resent_unstable_bytes;
	uint64_t rma_writes, rma_reads;         /* one-sided operations */
	uint64_t rma_write_bytes, rma_read_bytes;
	uint64_t layout_maps, layout_commits;   /* MAP and COMMIT calls answered */
	uint64_t layouts_lost;                  /* recalled, expired, or gone with a connection */
	uint64_t puts_fallen_back;              /* begun one-sided, ended by WRITE */
};
BERTH_API void berth_get_counters(const struct berth *b, struct berth_counters *out);

/* --- event loop --- */

BERTH_API int berth_fd(const struct berth *b); /* readable: call berth_progress(). The same for the
                                                  session's life */
/* Call before every sleep on berth_fd(). 0: sleep at most *timeout_ms (-1: for ever); -EAGAIN: call
 * berth_progress() instead. Providers without a descriptor (shm) rely on the timeout. */
BERTH_API int berth_before_poll(struct berth *b, int *timeout_ms);
BERTH_API int
berth_progress(struct berth *b); /* number of callbacks made; -EDEADLK in a callback */
/* Sleep and progress until a callback was made (their number) or the time is over (0). */
BERTH_API int berth_wait(struct berth *b, int timeout_ms);
BERTH_API int berth_wait_any(struct berth *const *b, unsigned n, int timeout_ms);
BERTH_API unsigned
berth_in_flight(const struct berth *b); /* operations started, callback not yet made */

/* --- memory --- */

/* Memory of READ and WRITE is registered with the NIC when first used and remembered (64 ranges,
 * the least recently used leaves first). Register it here to pay that once; it stays registered
 * across reconnects until berth_unregister(), to be called with no operation on it in flight.
 * Errors of fi_mr_reg. */
BERTH_API int berth_register(struct berth *b, void *base, size_t len, struct berth_mr **out);
BERTH_API void berth_unregister(struct berth *b, struct berth_mr *mr);

/* --- objects --- */

struct berth_fh { /* names an object for ever; a value to copy and compare up to len */
	uint32_t len;
	uint8_t data[BERTH_FH_MAX];
};
enum berth_type {
	BERTH_REG = 1,
	BERTH_DIR,
	BERTH_BLK,
	BERTH_CHR,
	BERTH_LNK,
	BERTH_SOCK,
	BERTH_FIFO
};
struct berth_attr {
	enum berth_type type;
	uint32_t mode; /* permission bits, 07777 */
	uint32_t nlink, uid, gid;
	uint32_t rdev_major, rdev_minor;
	uint64_t size, used; /* bytes */
	uint64_t fsid, fileid;
	struct timespec atime, mtime, ctime;
};
enum {
	BERTH_SET_MODE = 1,
	BERTH_SET_UID = 2,
	BERTH_SET_GID = 4,
	BERTH_SET_SIZE = 8,
	BERTH_SET_ATIME = 16,
	BERTH_SET_MTIME = 32
};
struct berth_set {
	unsigned set; /* BERTH_SET_* */
	uint32_t mode, uid, gid;
	uint64_t size;
	struct timespec atime,
		mtime; /* tv_nsec UTIME_NOW: the server's clock; seconds of 32 bits, unsigned */
};
enum berth_stable { BERTH_UNSTABLE, BERTH_DATA_SYNC, BERTH_FILE_SYNC }; /* RFC 1813 stable_how */
enum berth_how { BERTH_UNCHECKED, BERTH_GUARDED, BERTH_EXCLUSIVE };     /* RFC 1813 createmode3 */
struct berth_statfs {
	uint64_t total_bytes, free_bytes, avail_bytes;
	uint64_t total_files, free_files, avail_files;
};
struct berth_dirent {
	const char *name; /* NUL-terminated, and no NUL or '/' inside */
	size_t len;
	uint64_t fileid, cookie;
	bool has_attr, has_fh;
	struct berth_attr attr;
	struct berth_fh fh;
};

/* --- asynchronous: one NFS procedure each --- */

struct berth_reply { /* what the procedure has of it is set; lives until the callback returns */
	bool has_attr, has_fh;
	struct berth_attr attr;   /* of the object, afterwards */
	struct berth_fh fh;       /* looked up or made */
	uint32_t count;           /* READ, WRITE, READLINK: bytes */
	bool eof;                 /* READ, READDIR */
	enum berth_stable stable; /* WRITE: reached */
	uint8_t verf[8]; /* WRITE, COMMIT: the server's instance; READDIR: cookie verifier */
	struct berth_map *map; /* berth_file_start_map() */
	uint32_t access;
	const struct berth_dirent *entry;
	unsigned nentries;
	struct berth_statfs fs;
	struct { /* FSINFO */
		uint32_t rtmax, wtmax, dtpref;
		uint64_t maxfilesize;
	} info;
	struct { /* PATHCONF */
		uint32_t linkmax, name_max;
	} conf;
};
typedef void berth_done(void *arg, int err, const struct berth_reply *r);

/* All return 0 (the callback will come, once, never before the function returns) or a negative
 * errno (it will not): -EINVAL a name that is empty, holds '/' or is longer than the wire allows,
 * or more bytes than berth_io_max(). Names and handles are copied; @buf stays the library's until
 * the callback. */
BERTH_API int berth_start_null(struct berth *b, berth_done *done, void *arg);
BERTH_API int berth_start_getattr(struct berth *b, const struct berth_fh *fh, berth_done *done,
                                  void *arg);
BERTH_API int berth_start_setattr(struct berth *b, const struct berth_fh *fh,
                                  const struct berth_set *set, berth_done *done, void *arg);
BERTH_API int berth_start_lookup(struct berth *b, const struct berth_fh *dir, const char *name,
                                 berth_done *done, void *arg);
BERTH_API int berth_start_access(struct berth *b, const struct berth_fh *fh, uint32_t access,
                                 berth_done *done, void *arg);
BERTH_API int berth_start_readlink(struct berth *b, const struct berth_fh *fh, char *buf,
                                   size_t size, berth_done *done, void *arg); /* no NUL is added */
BERTH_API int berth_start_read(struct berth *b, const struct berth_fh *fh, uint64_t off, void *buf,
                               size_t len, berth_done *done, void *arg);
BERTH_API int berth_start_write(struct berth *b, const struct berth_fh *fh, uint64_t off,
                                const void *buf, size_t len, enum berth_stable stable,
                                berth_done *done, void *arg);
BERTH_API int berth_start_commit(struct berth *b, const struct berth_fh *fh, berth_done *done,
                                 void *arg);
BERTH_API int berth_start_create(struct berth *b, const struct berth_fh *dir, const char *name,
                                 enum berth_how how, const struct berth_set *set,
                                 const uint8_t verf[8], berth_done *done, void *arg);
BERTH_API int berth_start_mkdir(struct berth *b, const struct berth_fh *dir, const char *name,
                                const struct berth_set *set, berth_done *done, void *arg);
BERTH_API int berth_start_symlink(struct berth *b, const struct berth_fh *dir, const char *name,
                                  const char *target, const struct berth_set *set, berth_done *done,
                                  void *arg);
BERTH_API int berth_start_mknod(struct berth *b, const struct berth_fh *dir, const char *name,
                                enum berth_type type, uint32_t major, uint32_t minor,
                                const struct berth_set *set, berth_done *done, void *arg);
BERTH_API int berth_start_remove(struct berth *b, const struct berth_fh *dir, const char *name,
                                 berth_done *done, void *arg);
BERTH_API int berth_start_rmdir(struct berth *b, const struct berth_fh *dir, const char *name,
                                berth_done *done, void *arg);
BERTH_API int berth_start_rename(struct berth *b, const struct berth_fh *from, const char *fname,
                                 const struct berth_fh *to, const char *tname, berth_done *done,
                                 void *arg);
BERTH_API int berth_start_link(struct berth *b, const struct berth_fh *fh,
                               const struct berth_fh *dir, const char *name, berth_done *done,
                               void *arg);
BERTH_API int berth_start_readdir(struct berth *b, const struct berth_fh *dir, uint64_t cookie,
                                  const uint8_t verf[8], bool plus, uint32_t count,
                                  berth_done *done, void *arg);
BERTH_API int berth_start_fsstat(struct berth *b, const struct berth_fh *fh, berth_done *done,
                                 void *arg);
BERTH_API int berth_start_fsinfo(struct berth *b, const struct berth_fh *fh, berth_done *done,
                                 void *arg);
BERTH_API int berth_start_pathconf(struct berth *b, const struct berth_fh *fh, berth_done *done,
                                   void *arg);

/* --- synchronous: names --- *
 *
 * @at: directory that @path starts from, NULL: the export's root. Slashes in front change nothing;
 * ".." stops at the start. Symbolic links on the way are followed, at most 40; an absolute target
 * is taken if it leads into this export, else -EXDEV. The last component is followed where said.
 * -ELOOP, -ENOTDIR, -ENAMETOOLONG.
 */
enum { BERTH_NOFOLLOW = 1 };

BERTH_API int berth_ping(struct berth *b, uint64_t *nsec); /* NULL procedure; round trip */
BERTH_API void berth_root(const struct berth *b, struct berth_fh *out);
BERTH_API int berth_lookup(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                           struct berth_fh *fh, struct berth_attr *attr);
BERTH_API int berth_stat(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                         struct berth_attr *attr);
BERTH_API int berth_setattr(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                            const struct berth_set *set);
BERTH_API int berth_truncate(struct berth *b, const struct berth_fh *at, const char *path,
                             uint64_t size);
BERTH_API int berth_access(struct berth *b, const struct berth_fh *at, const char *path,
                           uint32_t access, uint32_t *granted); /* ACCESS3_* bits of RFC 1813 */
/* The new object is in *fh (may be NULL). -EEXIST. */
BERTH_API int berth_mkdir(struct berth *b, const struct berth_fh *at, const char *path,
                          uint32_t mode, struct berth_fh *fh);
BERTH_API int berth_symlink(struct berth *b, const struct berth_fh *at, const char *path,
                            const char *target, struct berth_fh *fh);
BERTH_API int berth_mknod(struct berth *b, const struct berth_fh *at, const char *path,
                          enum berth_type type, uint32_t mode, uint32_t major, uint32_t minor,
                          struct berth_fh *fh);
BERTH_API int berth_link(struct berth *b, const struct berth_fh *obj, const struct berth_fh *at,
                         const char *path);
/* Target and NUL into @buf; its length is returned. -ENAMETOOLONG does not fit; -EINVAL no symbolic
 * link. */
BERTH_API ssize_t berth_readlink(struct berth *b, const struct berth_fh *at, const char *path,
                                 char *buf, size_t size);
BERTH_API int berth_unlink(struct berth *b, const struct berth_fh *at,
                           const char *path); /* -EISDIR */
BERTH_API int berth_rmdir(struct berth *b, const struct berth_fh *at,
                          const char *path); /* -ENOTEMPTY */
BERTH_API int berth_rename(struct berth *b, const struct berth_fh *at, const char *path,
                           const struct berth_fh *to_at, const char *to);
BERTH_API int berth_statfs(struct berth *b, const struct berth_fh *at, const char *path,
                           struct berth_statfs *out);
/* Visit every entry but "." and "..", with attributes and handle as far as the server gives them
 * (@plus).
 * @fn must not use the session, returns 0 to go on, anything else ends the listing and is returned.
 */
BERTH_API int berth_readdir(struct berth *b, const struct berth_fh *dir, bool plus,
                            int (*fn)(void *arg, const struct berth_dirent *e), void *arg);

/* --- files --- *
 *
 * Unstable data. What a server answered less than FILE_SYNC to is kept (a copy) until a COMMIT
 * confirms the same server instance; if the server restarted in between, it is written again. At
 * most 32 MiB are kept per file: a COMMIT starts by itself at half of that, and writes beyond it
 * are sent FILE_SYNC. A failed resend is told by berth_commit() and berth_close().
 */

/**
 * berth_open - open a regular file, maybe making it
 * @flags: O_RDONLY, O_WRONLY or O_RDWR; O_CREAT, O_EXCL (an EXCLUSIVE create: exactly one of many
 * wins, also over a lost connection), O_TRUNC, O_NOFOLLOW Return: 0; -EEXIST, -ENOENT, -EISDIR;
 * -EINVAL not a regular file; -ELOOP O_NOFOLLOW met a link
 */
BERTH_API int berth_open(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                         uint32_t mode, struct berth_file **out);
/* The same for a handle in hand; nothing is asked of the server. */
BERTH_API int berth_open_fh(struct berth *b, const struct berth_fh *fh, struct berth_file **out);
/* Commits, then frees in any case. No operation of the file may be in flight. -EBUSY: nothing is done, it is mapped. */
BERTH_API int berth_close(struct berth_file *f);
BERTH_API void berth_file_fh(const struct berth_file *f, struct berth_fh *out);

/* Any length; cut into pieces of berth_io_max(), several in flight. Reading returns less than @len
 * only at the end of the file. Writing returns @len or the error; BERTH_UNSTABLE needs
 * berth_commit() to be durable. */
BERTH_API ssize_t berth_pread(struct berth_file *f, void *buf, size_t len, uint64_t off);
BERTH_API ssize_t berth_pwrite(struct berth_file *f, const void *buf, size_t len, uint64_t off,
                               enum berth_stable stable);
BERTH_API int
berth_commit(struct berth_file *f); /* everything written before is durable, or the error */
BERTH_API int berth_ftruncate(struct berth_file *f, uint64_t size); /* commits first */
BERTH_API int berth_fstat(struct berth_file *f, struct berth_attr *attr);

/* One piece, asynchronously; the unstable data is looked after as above. A write may answer a short
 * count. */
BERTH_API int berth_file_start_read(struct berth_file *f, uint64_t off, void *buf, size_t len,
                                    berth_done *done, void *arg);
BERTH_API int berth_file_start_write(struct berth_file *f, uint64_t off, const void *buf,
                                     size_t len, enum berth_stable stable, berth_done *done,
                                     void *arg);
BERTH_API int berth_file_start_commit(struct berth_file *f, berth_done *done, void *arg);

/* --- one-sided: map, put, commit --- *
 *
 *     berth_map(f, 0, 64 << 20, BERTH_MAP_WRITE, &m);
 *     berth_put(m, buf, len, off, BERTH_DURABLE);
 *     berth_unmap(m);
 *
 * A mapping lets the client place bytes into the blocks of a file, and fetch them, by its own RMA: the
 * server's processor has no part in that. What the server is told is a COMMIT, and that only where it is
 * needed. Where the server, the fabric or the export offers no layouts (doc/layout.md), where one is taken
 * back or lost, and where READ and WRITE are quicker, the same calls work by READ and WRITE; all that the
 * caller may notice is a delay. Offsets are those of the file, in bytes, and lie inside the mapping.
 *
 * Durable. Three degrees:
 *   put has completed              The bytes are on their way or there. A berth_get() of this mapping has
 *                                  them; berth_pread() and other clients may see them or not.
 *   BERTH_DURABLE put completed,   They survive power failure, as far as the server's persistence method
 *   or berth_persist()             promises ("berth probe"); size and times are right. All readers see them.
 *   berth_commit(), berth_unmap()  The same for everything put and written to the file; and the time of
 *                                  the last change is right also where no COMMIT was needed before.
 *
 * Whose buffer. The buffer of a put is the library's, and must not change, until its bytes are durable: for
 * a BERTH_DURABLE put until it completes; for another one until a berth_persist() that covers it,
 * berth_commit() or berth_unmap() has succeeded, or berth_unmap() has failed. From there the bytes are sent
 * again when the server restarts or the layout is lost, so nothing acknowledged as durable is missing and
 * nothing is copied. With BERTH_COPY the library keeps a copy instead (of at most 32 MiB per file, beyond
 * that the put is made durable), and the buffer is yours when the put completes.
 *
 * Order. Operations in flight together complete in any order; those that overlap leave either's bytes, or
 * parts of both. One begun after the completion of another prevails over it. There is no rollback: an
 * overwrite that fails may have changed some of its bytes.
 *
 * Others' writes. Bytes that existed when the range was mapped are read where they are. What others write
 * into holes is seen within the time the server gives for recalls (1 to 2 s); truncating, removing, or
 * another client's mapping of the same blocks takes the layout away, which costs the time to notice.
 * The mapping needs berth_progress() (or any call) more often than that to notice without losing the
 * connection. Leases are renewed by it too; one that ran out is asked for again by the next operation.
 * Sessions of one thread do not look after each other: a synchronous call that waits for a layout of another
 * one waits until the server takes it (berth_map(3)); berth_file_start_map() and berth_wait_any() do not.
 *
 * Cost. Where the provider writes durably (tcp with a pool of byte or cache line granularity), a durable
 * put over bytes that exist is one RMA write, and no call; where a read behind it makes it so (verbs, method
 * read-after-write), the write and a read of one byte. Else, on providers that keep a call behind the
 * writes before it (FI_ORDER_SAW: tcp, verbs), the COMMIT goes out right behind the data: one round trip.
 * Durable puts in flight together share a COMMIT. A get of holes asks nobody.
 *
 * Memory is registered as for READ and WRITE: use berth_register().
 */
enum {
	BERTH_MAP_READ = 1,      /* for berth_get() */
	BERTH_MAP_WRITE = 2,     /* for both; blocks are allocated now, so a put cannot fail with -ENOSPC
	                            while the layout lasts */
	BERTH_MAP_ONE_SIDED = 4, /* fail where only READ and WRITE would be possible */
};
enum {
	BERTH_DURABLE = 1,   /* complete when durable */
	BERTH_COPY = 2,      /* keep a copy: the buffer is the caller's at completion */
	BERTH_BY_RMA = 4,    /* one-sided if the range is mapped, whatever its size */
	BERTH_BY_SERVER = 8, /* READ and WRITE */
};

/**
 * berth_map - make bytes [@off, @off + @len) of @f ready
 * @len:   at least 1; the file may be shorter
 * @flags: BERTH_MAP_*
 * @out:   the mapping; berth_unmap() it before berth_close()
 *
 * Return: 0, also if all will go by READ and WRITE (berth_map_get_info() tells). -EINVAL @len 0, end
 * beyond 2^63 - 1, no or unknown flags. -EOPNOTSUPP with BERTH_MAP_ONE_SIDED: no layout; the info of a
 * mapping without that flag says why. -EACCES, -EROFS, -EFBIG, -ENOSPC, -EDQUOT, -ESTALE as WRITE.
 */
BERTH_API int berth_map(struct berth_file *f, uint64_t off, uint64_t len, int flags,
                        struct berth_map **out);
/* Commits, gives the layout back, frees @m in any case (but -EBUSY: puts or gets in flight; -EDEADLK in
 * a callback). An error means that something put is not durable: as berth_commit(). */
BERTH_API int berth_unmap(struct berth_map *m);

/**
 * berth_put - place @len bytes at @off of the file
 * @flags: BERTH_DURABLE, BERTH_COPY, and one of BERTH_BY_* to overrule the choice that the library makes
 *         by size and durability (berth_map(3))
 *
 * Return: 0; -EINVAL outside of the mapping, @len 0, unknown or contradicting flags; -EBADF not mapped for
 * writing; -ENOSPC, -EDQUOT, -EIO, ... of WRITE, if it came to that; -ENOMEM: nothing was put.
 */
BERTH_API int berth_put(struct berth_map *m, const void *buf, size_t len, uint64_t off, int flags);
/* Fetch @len bytes; what lies in holes or behind the end of the file reads as zeros. @flags: one of
 * BERTH_BY_* or 0. 0, or as berth_put() and berth_pread(). */
BERTH_API int berth_get(struct berth_map *m, void *buf, size_t len, uint64_t off, int flags);
/* What was put into [@off, @off + @len) (@len 0: to the end of the mapping) by completed puts is durable,
 * or the error; then it is kept for the next try. */
BERTH_API int berth_persist(struct berth_map *m, uint64_t off, uint64_t len);
/* berth_commit(f), above, is for all mappings of the file as well as for what was written. */

/* Asynchronous. Return values and callbacks as of berth_start_*(); @r->map of a map, nothing else is set.
 * Errors as above; of wrong arguments at once. @buf as above. berth_map_start_unmap(): @m is gone in the
 * callback. berth_map_start_persist() is about puts that completed before it was called. */
BERTH_API int berth_file_start_map(struct berth_file *f, uint64_t off, uint64_t len, int flags,
                                   berth_done *done, void *arg);
BERTH_API int berth_map_start_put(struct berth_map *m, uint64_t off, const void *buf, size_t len,
                                  int flags, berth_done *done, void *arg);
BERTH_API int berth_map_start_get(struct berth_map *m, uint64_t off, void *buf, size_t len, int flags,
                                  berth_done *done, void *arg);
BERTH_API int berth_map_start_persist(struct berth_map *m, uint64_t off, uint64_t len,
                                      berth_done *done, void *arg);
BERTH_API int berth_map_start_unmap(struct berth_map *m, berth_done *done, void *arg);

struct berth_map_info {
	uint64_t mapped_bytes;  /* of the mapping, one-sided just now */
	unsigned layouts;
	bool needs_commit;      /* the server makes puts durable, at COMMIT; else the RMA write itself does */
	const char *method;     /* "clwb", "commit-complete", ... doc/layout.md; "" without a layout */
	char why[256];          /* there is no layout because; "" */
};
BERTH_API void berth_map_get_info(const struct berth_map *m, struct berth_map_info *out);

#ifdef __cplusplus
}
#endif
#endif
