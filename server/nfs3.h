/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs3.h - what the NFS and MOUNT programs share among fh, access, nfs3, nfs3_io, nfs3_dir, drc and
 * mount3
 *
 * A procedure is a straight story: decode the arguments into memory of its own, resolve the handle
 * (nfs3_handle), ask access.c, call the pool, reply. Where the pool answers -EINPROGRESS the story
 * goes on in a second function: nfs3_wait() names it, the pool's done() mails the context back to
 * the worker, and the worker calls it. Nothing but struct nfs3_ctx lives across that gap; what the
 * peer sent is gone by then.
 */
#ifndef SERVER_NFS3_H
#define SERVER_NFS3_H

#include "proto/nfs3.h"
#include "server/server.h"

/* --- fh.c --- */

/* As fh_make(), for places that must not enter the store: @secret from pm_secret(). */
void fh_seal(const uint8_t *secret, const struct fh *fh, uint8_t out[FH_SIZE]);

/* --- access.c --- */

/* The caller, after the export's squashing. */
struct access_who {
	uint32_t uid, gid, ngids;
	uint32_t gids[16];
};

enum {
	MAY_EXEC = 1, /* search a directory */
	MAY_WRITE = 2,
	MAY_READ = 4,
	MAY_OWNER = 8, /* the owner may, whatever the mode says: NFS has no open() to remember a
	                  permission by */
};

void access_who(const struct tp_cred *cred, const struct export_opts *opts, struct access_who *out);
/* "secure": reserved ports only. Fabrics have no such ports, and no need of them. */
bool access_port_ok(const struct export_opts *opts, enum tp_kind kind,
                    const struct sockaddr_storage *peer);
bool access_in_group(const struct access_who *who, uint32_t gid);
/* 0 or -EACCES. */
int access_may(const struct access_who *who, const struct pm_attr *attr, unsigned want);
/* May this entry be removed from @dir, as far as the sticky bit goes? 0 or -EACCES. */
int access_sticky(const struct access_who *who, const struct pm_attr *dir,
                  const struct pm_attr *obj);
/* The rules of chmod, chown, truncate and utimes. @sa is completed: set-id bits are cleared as
 * POSIX says. 0, -EPERM, -EACCES. */
int access_setattr(const struct access_who *who, const struct pm_attr *attr, struct pm_setattr *sa);
/* Owner, group and mode of a new object in @dir; in: what the client asked for, @set: PM_SET_MODE,
 * _UID, _GID. */
void access_new(const struct access_who *who, const struct pm_attr *dir, unsigned set,
                struct pm_new *nw);
/* The mode that a write by @who leaves: without set-id bits, unless root wrote. */
uint32_t access_written_mode(const struct access_who *who, const struct pm_attr *attr);
/* The answer to ACCESS: which of the @asked bits are granted. */
uint32_t access_bits(const struct access_who *who, const struct pm_attr *attr, bool rw,
                     uint32_t asked);

/* --- nfs3.c --- */

struct nfs3_ctx { /* tp_call.ctx */
	struct tp_call *call;
	struct server *srv;
	struct fh fh;            /* the first handle of the arguments */
	struct export_opts opts; /* of its export, for this client */
	const char
		*path; /* of the export; belongs to a table that may be gone once run() returned */
	struct access_who who;

	struct pm_wait wait;
	struct mail mail;
	int err; /* what wait brought */
	void (*resume)(struct nfs3_ctx *cx, int err);

	struct pm_id dir, dir2; /* for the weak cache consistency data of a failure */
	struct pm_once once;    /* drc.c: what tells this call from others, if keyed */
	bool keyed, replay;     /* replay: ch has no more than obj.id; attributes are the present ones */
	union {
		struct pm_change ch;
		struct { /* WRITE, COMMIT */
			struct pm_map map;
			struct pm_committed done;
			uint64_t off;
			uint32_t count;
			enum pm_stable stable;
		} io;
	};
};

struct nfs3_ctx *nfs3_begin(struct tp_call *call);
/* Which client it comes from, the same over all its connections: address family and address; AF_UNSPEC: what it says it is. */
uint32_t nfs3_client(const struct tp_call *call, uint8_t addr[16]);
nfsstat3 nfs3_errstat(int err); /* the one place where an errno becomes a status */
/* First handle of a call: is it ours, may this client use its export? Sets cx->fh, opts, who. */
nfsstat3 nfs3_may_use(struct nfs3_ctx *cx, const nfs_fh3 *wire);
/* And what is behind it. */
nfsstat3 nfs3_handle(struct nfs3_ctx *cx, const nfs_fh3 *wire, struct pm_attr *attr);
/* Second handle: of the same export, or NFS3ERR_XDEV. */
nfsstat3 nfs3_handle2(struct nfs3_ctx *cx, const nfs_fh3 *wire, struct pm_attr *attr);

/* For the call that may be in progress: @resume is called on the worker's thread. */
struct pm_wait *nfs3_wait(struct nfs3_ctx *cx, void (*resume)(struct nfs3_ctx *cx, int err));
/* Others first; then @resume, with 0. */
void nfs3_yield(struct nfs3_ctx *cx, void (*resume)(struct nfs3_ctx *cx, int err));
void nfs3_when_durable(struct nfs3_ctx *cx, pm_lsn lsn,
                       void (*resume)(struct nfs3_ctx *cx, int err));

void nfs3_fattr(const struct server *srv, const struct pm_attr *a, fattr3 *out);
void nfs3_post_attr(const struct server *srv, const struct pm_attr *a,
                    post_op_attr *out); /* NULL: none */
void nfs3_post_attr_now(struct nfs3_ctx *cx, struct pm_id id, post_op_attr *out);
void nfs3_wcc(const struct server *srv, const struct pm_attr *before, const struct pm_attr *after,
              wcc_data *out);
/* Of an object that this call did not change: before equals after. Nothing, if it cannot be read.
 */
void nfs3_wcc_now(struct nfs3_ctx *cx, struct pm_id id, wcc_data *out);

/* What a change did to @id; in an answer given again, what is there now. */
void nfs3_change_wcc(struct nfs3_ctx *cx, const struct pm_attr *before, const struct pm_attr *after,
                     struct pm_id id, wcc_data *out);
void nfs3_change_attr(struct nfs3_ctx *cx, post_op_attr *out); /* of cx->ch.obj, likewise */

/* sattr3 with times checked; NFS3ERR_INVAL. The guard is the caller's. */
nfsstat3 nfs3_sattr(const sattr3 *in, struct pm_setattr *out);

/* Every reply without payload, but of the directory listings, fits in this. */
#define NFS3_SMALL_REPLY 256
XDR *nfs3_reply_begin(struct tp_call *call);
void nfs3_reply_end(struct tp_call *call, bool encoded);
#define NFS3_REPLY(cx, type, res)                                                                  \
	do {                                                                                       \
		struct tp_call *call_ = (cx)->call;                                                \
		XDR *xdr_ = nfs3_reply_begin(call_);                                               \
                                                                                                   \
		if (xdr_)                                                                          \
			nfs3_reply_end(call_, xdr_##type(xdr_, res));                              \
	} while (0)

/* Arguments decode into memory of the caller: a preset pointer keeps xdr_bytes() from allocating.
 */
struct nfs3_fh_buf {
	char b[NFS3_FHSIZE];
};
struct nfs3_name_buf {
	char b[NFS3_WIRE_NAME_MAX];
};
static inline void nfs3_preset_fh(nfs_fh3 *fh, struct nfs3_fh_buf *buf)
{
	fh->data.data_val = buf->b;
}
static inline void nfs3_preset_dirop(diropargs3 *d, struct nfs3_fh_buf *fh,
                                     struct nfs3_name_buf *name)
{
	d->dir.data.data_val = fh->b;
	d->name.filename3_val = name->b;
}

static inline bool pm_id_eq(struct pm_id a, struct pm_id b)
{
	return a.ino == b.ino && a.gen == b.gen;
}

/* --- nfs3_io.c --- */

/* A write by another than root takes the privilege out of a program. */
int nfs3_drop_setid(struct nfs3_ctx *cx, const struct pm_attr *attr);
void nfs3_read(struct tp_call *call);
void nfs3_write(struct tp_call *call);
size_t nfs3_write_payload_at(const uint8_t *args, size_t have);
void nfs3_commit(struct tp_call *call);
void nfs3_readlink(struct tp_call *call);

/* --- nfs3_dir.c --- */

void nfs3_lookup(struct tp_call *call);
void nfs3_create(struct tp_call *call);
void nfs3_mkdir(struct tp_call *call);
void nfs3_symlink(struct tp_call *call);
void nfs3_mknod(struct tp_call *call);
void nfs3_remove(struct tp_call *call);
void nfs3_rmdir(struct tp_call *call);
void nfs3_rename(struct tp_call *call);
void nfs3_link(struct tp_call *call);
void nfs3_readdir(struct tp_call *call);
void nfs3_readdirplus(struct tp_call *call);

/* --- drc.c --- */

/* Was this call carried out before? Then @answer gives its first answer (cx->replay is set, dir and
 * dir2 are what the handles name) and true is returned. To be asked before a change, and again when
 * it failed; while the arguments are there. @second may be NULL. */
bool drc_answered(struct nfs3_ctx *cx, const nfs_fh3 *first, const nfs_fh3 *second,
                  void (*answer)(struct nfs3_ctx *cx, int err));
/* For the change itself. */
const struct pm_once *drc_once(const struct nfs3_ctx *cx);

/* --- mount3.c --- */

/* Walk an absolute path of the pool; symbolic links are not followed, ".." is -EACCES. */
int mount3_walk(struct pm_store *st, const char *path, size_t len, struct pm_attr *out);

#endif
