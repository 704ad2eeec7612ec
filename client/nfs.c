/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs.c - the procedures of NFS version 3 (RFC 1813) as asynchronous operations
 *
 * berth_start_X() encodes the arguments once; decode_X() makes a struct berth_reply of the answer.
 * The answer is a stranger's: names with '/' or NUL, counts beyond what was asked and types out of
 * range are -EPROTO. Optional attributes that are missing leave has_attr false; the layers above
 * ask again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "client/client.h"
#include "proto/nfs3.h"
#include "transport/xdr.h"

#define RESULTS_SMALL 512 /* bytes that hold the results of any procedure but READDIR, with room   \
	                   */

int nfs_errno(unsigned status)
{
	switch (status) {
	case NFS3_OK:
		return 0;
	case NFS3ERR_PERM:
		return -EPERM;
	case NFS3ERR_NOENT:
		return -ENOENT;
	case NFS3ERR_IO:
		return -EIO;
	case NFS3ERR_NXIO:
		return -ENXIO;
	case NFS3ERR_ACCES:
		return -EACCES;
	case NFS3ERR_EXIST:
		return -EEXIST;
	case NFS3ERR_XDEV:
		return -EXDEV;
	case NFS3ERR_NODEV:
		return -ENODEV;
	case NFS3ERR_NOTDIR:
		return -ENOTDIR;
	case NFS3ERR_ISDIR:
		return -EISDIR;
	case NFS3ERR_INVAL:
	case NFS3ERR_BADTYPE:
		return -EINVAL;
	case NFS3ERR_FBIG:
		return -EFBIG;
	case NFS3ERR_NOSPC:
		return -ENOSPC;
	case NFS3ERR_ROFS:
		return -EROFS;
	case NFS3ERR_MLINK:
		return -EMLINK;
	case NFS3ERR_NAMETOOLONG:
		return -ENAMETOOLONG;
	case NFS3ERR_NOTEMPTY:
		return -ENOTEMPTY;
	case NFS3ERR_DQUOT:
		return -EDQUOT;
	case NFS3ERR_STALE:
	case NFS3ERR_BADHANDLE:
		return -ESTALE;
	case NFS3ERR_REMOTE:
		return -EREMOTE;
	case NFS3ERR_NOT_SYNC:
		return -EKEYEXPIRED;
	case NFS3ERR_BAD_COOKIE:
		return -ESTALE;
	case NFS3ERR_NOTSUPP:
		return -EOPNOTSUPP;
	case NFS3ERR_TOOSMALL:
		return -EOVERFLOW;
	case NFS3ERR_SERVERFAULT:
		return -EREMOTEIO;
	case NFS3ERR_JUKEBOX:
		return OP_JUKEBOX;
	default:
		return -EPROTO;
	}
}

/* --- between our structures and the wire's --- */

static struct nfs_fh3 to_fh(const struct berth_fh *fh)
{
	return (struct nfs_fh3){ .data = { .data_len = fh->len, .data_val = (char *)fh->data } };
}

static struct diropargs3 to_dirop(const struct berth_fh *dir, const char *name)
{
	return (struct diropargs3){ .dir = to_fh(dir),
		                    .name = { .filename3_len = (u_int)strlen(name),
		                              .filename3_val = (char *)name } };
}

static struct nfstime3 to_time(const struct timespec *ts)
{
	return (struct nfstime3){ .seconds = (u_int)ts->tv_sec, .nseconds = (u_int)ts->tv_nsec };
}

static struct sattr3 to_sattr(const struct berth_set *s)
{
	struct sattr3 a = { 0 };

	if (!s)
		return a;
	a.mode.set_it = !!(s->set & BERTH_SET_MODE);
	a.mode.set_mode3_u.mode = s->mode;
	a.uid.set_it = !!(s->set & BERTH_SET_UID);
	a.uid.set_uid3_u.uid = s->uid;
	a.gid.set_it = !!(s->set & BERTH_SET_GID);
	a.gid.set_gid3_u.gid = s->gid;
	a.size.set_it = !!(s->set & BERTH_SET_SIZE);
	a.size.set_size3_u.size = s->size;
	if (s->set & BERTH_SET_ATIME) {
		a.atime.set_it =
			s->atime.tv_nsec == UTIME_NOW ? SET_TO_SERVER_TIME : SET_TO_CLIENT_TIME;
		a.atime.set_atime_u.atime = to_time(&s->atime);
	}
	if (s->set & BERTH_SET_MTIME) {
		a.mtime.set_it =
			s->mtime.tv_nsec == UTIME_NOW ? SET_TO_SERVER_TIME : SET_TO_CLIENT_TIME;
		a.mtime.set_mtime_u.mtime = to_time(&s->mtime);
	}
	return a;
}

static struct timespec from_time(const struct nfstime3 *t)
{
	return (struct timespec){ .tv_sec = t->seconds, .tv_nsec = (long)t->nseconds };
}

static bool from_attr(const struct fattr3 *a, struct berth_attr *out)
{
	if (a->type < NF3REG || a->type > NF3FIFO)
		return false;
	*out = (struct berth_attr){ .type = (enum berth_type)a->type,
		                    .mode = a->mode & 07777,
		                    .nlink = a->nlink,
		                    .uid = a->uid,
		                    .gid = a->gid,
		                    .rdev_major = a->rdev.specdata1,
		                    .rdev_minor = a->rdev.specdata2,
		                    .size = a->size,
		                    .used = a->used,
		                    .fsid = a->fsid,
		                    .fileid = a->fileid,
		                    .atime = from_time(&a->atime),
		                    .mtime = from_time(&a->mtime),
		                    .ctime = from_time(&a->ctime) };
	return true;
}

static void take_attr(struct op *op, const struct post_op_attr *a)
{
	if (a->attributes_follow)
		op->reply.has_attr = from_attr(&a->post_op_attr_u.attributes, &op->reply.attr);
}

static bool from_fh(const struct nfs_fh3 *fh, struct berth_fh *out)
{
	if (fh->data.data_len > BERTH_FH_MAX)
		return false;
	out->len = fh->data.data_len;
	memset(out->data, 0, sizeof(out->data));
	if (out->len)
		memcpy(out->data, fh->data.data_val, out->len);
	return true;
}

/* --- making operations --- */

struct op *op_new(struct berth *b, uint32_t prog, uint32_t proc, xdrproc_t enc, void *args,
                  int (*decode)(struct op *op, XDR *x), berth_done *done, void *arg)
{
	struct op *op = malloc(sizeof(*op));
	uint8_t few[512]; /* most arguments */
	bool whole;
	XDR x;

	if (!op)
		return NULL;
	*op = (struct op){ .b = b,
		           .prog = prog,
		           .proc = proc,
		           .decode = decode,
		           .done = done,
		           .arg = arg,
		           .max_results = RESULTS_SMALL };
	if (!enc)
		return op;
	tp_xdr_open(&x, few, sizeof(few), XDR_ENCODE);
	whole = enc(&x, args);
	op->args_len = whole ? xdr_getpos(&x) : xdr_sizeof(enc, args);
	op->args = malloc(op->args_len + 1);
	if (!op->args)
		goto fail;
	if (whole) {
		memcpy(op->args, few, op->args_len);
		return op;
	}
	tp_xdr_open(&x, op->args, op->args_len, XDR_ENCODE);
	if (!enc(&x, args))
		goto fail;
	return op;
fail:
	op_free(op);
	return NULL;
}

static struct op *nfs_op(struct berth *b, uint32_t proc, xdrproc_t enc, void *args,
                         int (*decode)(struct op *op, XDR *x), berth_done *done, void *arg)
{
	return op_new(b, NFS3_PROGRAM, proc, enc, args, decode, done, arg);
}

static int begin(struct op *op)
{
	if (!op)
		return -ENOMEM;
	op_start(op);
	return 0;
}

static int check_name(const char *name)
{
	size_t len = strlen(name);

	if (len > 255)
		return -ENAMETOOLONG;
	return !len || memchr(name, '/', len) ? -EINVAL : 0;
}

/* Decode a whole generated structure (res) with @fn, look at it with the statements given, @release it. */
#define DECODE_AND(release, fn, type, ...)                                                         \
	do {                                                                                       \
		struct type res;                                                                   \
		int err_ = -EPROTO;                                                                \
                                                                                                   \
		memset(&res, 0, sizeof(res));                                                      \
		if (fn(x, &res)) {                                                                 \
			err_ = nfs_errno((unsigned)res.status);                                    \
			__VA_ARGS__                                                                \
		}                                                                                  \
		release;                                                                           \
		return err_;                                                                       \
	} while (0)
#define DECODE(fn, type, ...) DECODE_AND(xdr_free((xdrproc_t)fn, &res), fn, type, __VA_ARGS__)
/* One that holds all of itself: the walk through it that frees nothing costs as much as decoding it. */
#define DECODE_FLAT(fn, type, ...) DECODE_AND((void)0, fn, type, __VA_ARGS__)

static int decode_null(struct op *op, XDR *x)
{
	(void)op;
	(void)x;
	return 0;
}

static int decode_getattr(struct op *op, XDR *x)
{
	DECODE_FLAT(xdr_GETATTR3res, GETATTR3res, {
		if (!err_) {
			op->reply.has_attr =
				from_attr(&res.GETATTR3res_u.obj_attributes, &op->reply.attr);
			if (!op->reply.has_attr)
				err_ = -EPROTO;
		}
	});
}

static int decode_setattr(struct op *op, XDR *x)
{
	DECODE(xdr_SETATTR3res, SETATTR3res, { take_attr(op, &res.obj_wcc.after); });
}

static int decode_lookup(struct op *op, XDR *x)
{
	DECODE(xdr_LOOKUP3res, LOOKUP3res, {
		if (!err_) {
			op->reply.has_fh = from_fh(&res.LOOKUP3res_u.resok.object, &op->reply.fh);
			if (!op->reply.has_fh)
				err_ = -EPROTO;
			take_attr(op, &res.LOOKUP3res_u.resok.obj_attributes);
		}
	});
}

static int decode_access(struct op *op, XDR *x)
{
	DECODE(xdr_ACCESS3res, ACCESS3res, {
		if (!err_) {
			op->reply.access = res.ACCESS3res_u.resok.access;
			take_attr(op, &res.ACCESS3res_u.resok.obj_attributes);
		}
	});
}

/* The opaque behind the decoded results: its length word, against what the transport placed. */
static int payload_came(struct op *op, XDR *x, uint32_t *len)
{
	u_int n;

	if (!xdr_u_int(x, &n) || n > op->in.iov_len || n != op->req.in_len)
		return -EPROTO;
	*len = n;
	return 0;
}

static int decode_readlink(struct op *op, XDR *x)
{
	DECODE(xdr_READLINK3head, READLINK3head, {
		take_attr(op, &res.symlink_attributes);
		if (!err_)
			err_ = payload_came(op, x, &op->reply.count);
	});
}

static int decode_read(struct op *op, XDR *x)
{
	DECODE_FLAT(xdr_READ3head, READ3head, {
		if (!err_) {
			take_attr(op, &res.READ3head_u.resok.file_attributes);
			op->reply.eof = res.READ3head_u.resok.eof;
			err_ = payload_came(op, x, &op->reply.count);
			if (!err_ && op->reply.count != res.READ3head_u.resok.count)
				err_ = -EPROTO;
			if (!err_)
				op->b->count.read_bytes += op->reply.count;
		}
	});
}

static int decode_write(struct op *op, XDR *x)
{
	DECODE_FLAT(xdr_WRITE3res, WRITE3res, {
		if (!err_) {
			struct WRITE3resok *ok = &res.WRITE3res_u.resok;

			take_attr(op, &ok->file_wcc.after);
			op->reply.count = ok->count;
			op->reply.stable = (enum berth_stable)ok->committed;
			memcpy(op->reply.verf, ok->verf, sizeof(op->reply.verf));
			if (ok->count > op->out.iov_len || (!ok->count && op->out.iov_len) ||
			    (unsigned)ok->committed > FILE_SYNC)
				err_ = -EPROTO;
			else
				op->b->count.written_bytes += ok->count;
		}
	});
}

static int decode_commit(struct op *op, XDR *x)
{
	DECODE_FLAT(xdr_COMMIT3res, COMMIT3res, {
		if (!err_) {
			take_attr(op, &res.COMMIT3res_u.resok.file_wcc.after);
			memcpy(op->reply.verf, res.COMMIT3res_u.resok.verf, sizeof(op->reply.verf));
		}
	});
}

static int decode_create(struct op *op, XDR *x)
{
	DECODE(xdr_CREATE3res, CREATE3res, {
		if (!err_) {
			struct CREATE3resok *ok = &res.CREATE3res_u.resok;

			take_attr(op, &ok->obj_attributes);
			if (ok->obj.handle_follows)
				op->reply.has_fh =
					from_fh(&ok->obj.post_op_fh3_u.handle, &op->reply.fh);
		}
	});
}

static int decode_remove(struct op *op, XDR *x)
{
	(void)op;
	DECODE(xdr_REMOVE3res, REMOVE3res, {});
}

static int decode_rename(struct op *op, XDR *x)
{
	(void)op;
	DECODE(xdr_RENAME3res, RENAME3res, {});
}

static int decode_link(struct op *op, XDR *x)
{
	DECODE(xdr_LINK3res, LINK3res, { take_attr(op, &res.file_attributes); });
}

static int decode_fsstat(struct op *op, XDR *x)
{
	DECODE(xdr_FSSTAT3res, FSSTAT3res, {
		if (!err_) {
			struct FSSTAT3resok *ok = &res.FSSTAT3res_u.resok;

			take_attr(op, &ok->obj_attributes);
			op->reply.fs = (struct berth_statfs){ ok->tbytes, ok->fbytes, ok->abytes,
				                              ok->tfiles, ok->ffiles, ok->afiles };
		}
	});
}

static int decode_fsinfo(struct op *op, XDR *x)
{
	DECODE(xdr_FSINFO3res, FSINFO3res, {
		if (!err_) {
			struct FSINFO3resok *ok = &res.FSINFO3res_u.resok;

			take_attr(op, &ok->obj_attributes);
			op->reply.info.rtmax = ok->rtmax;
			op->reply.info.wtmax = ok->wtmax;
			op->reply.info.dtpref = ok->dtpref;
			op->reply.info.maxfilesize = ok->maxfilesize;
		}
	});
}

static int decode_pathconf(struct op *op, XDR *x)
{
	DECODE(xdr_PATHCONF3res, PATHCONF3res, {
		if (!err_) {
			take_attr(op, &res.PATHCONF3res_u.resok.obj_attributes);
			op->reply.conf.linkmax = res.PATHCONF3res_u.resok.linkmax;
			op->reply.conf.name_max = res.PATHCONF3res_u.resok.name_max;
		}
	});
}

/* --- directories: a list of unknown length, kept as an array until the callback is over --- */

struct listing {
	struct berth_dirent *e;
	unsigned n, room;
};

static void drop_listing(struct op *op)
{
	struct listing *l = op->extra;

	if (!l)
		return;
	for (unsigned i = 0; i < l->n; i++)
		free((char *)l->e[i].name);
	free(l->e);
	free(l);
	op->extra = NULL;
}

static struct berth_dirent *listing_add(struct listing *l, const filename3 *name)
{
	struct berth_dirent *e;
	char *copy;

	if (l->n == l->room) {
		unsigned room = l->room ? l->room * 2 : 64;

		e = realloc(l->e, room * sizeof(*e));
		if (!e)
			return NULL;
		l->e = e;
		l->room = room;
	}
	copy = malloc(name->filename3_len + 1);
	if (!copy)
		return NULL;
	memcpy(copy, name->filename3_val, name->filename3_len);
	copy[name->filename3_len] = '\0';
	e = &l->e[l->n++];
	memset(e, 0, sizeof(*e));
	e->name = copy;
	e->len = name->filename3_len;
	return e;
}

static bool name_ok(const filename3 *name)
{
	return name->filename3_len && !memchr(name->filename3_val, '/', name->filename3_len) &&
	       !memchr(name->filename3_val, '\0', name->filename3_len);
}

static int one_entry(struct listing *l, XDR *x)
{
	struct entry3 in = { 0 };
	struct berth_dirent *e;
	int err = -EPROTO;

	if (xdr_entry3(x, &in) && name_ok(&in.name)) {
		e = listing_add(l, &in.name);
		err = e ? 0 : -ENOMEM;
		if (e) {
			e->fileid = in.fileid;
			e->cookie = in.cookie;
		}
	}
	xdr_free((xdrproc_t)xdr_entry3, &in);
	return err;
}

static int one_entryplus(struct listing *l, XDR *x)
{
	struct entryplus3 in;
	struct berth_dirent *e;
	int err = -EPROTO;

	memset(&in, 0, sizeof(in));
	if (xdr_entryplus3(x, &in) && name_ok(&in.name)) {
		e = listing_add(l, &in.name);
		err = e ? 0 : -ENOMEM;
		if (e) {
			e->fileid = in.fileid;
			e->cookie = in.cookie;
			if (in.name_attributes.attributes_follow)
				e->has_attr = from_attr(
					&in.name_attributes.post_op_attr_u.attributes, &e->attr);
			if (in.name_handle.handle_follows)
				e->has_fh = from_fh(&in.name_handle.post_op_fh3_u.handle, &e->fh);
		}
	}
	xdr_free((xdrproc_t)xdr_entryplus3, &in);
	return err;
}

static int decode_entries(struct op *op, XDR *x)
{
	struct listing *l;
	bool_t more = FALSE, eof = FALSE;
	int err;

	drop_listing(op); /* of an earlier try */
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	op->extra = l;
	op->drop_extra = drop_listing;
	while (xdr_bool(x, &more)) {
		if (!more) {
			if (!xdr_bool(x, &eof))
				break;
			op->reply.entry = l->e;
			op->reply.nentries = l->n;
			op->reply.eof = eof;
			return 0;
		}
		err = op->proc == NFSPROC3_READDIRPLUS ? one_entryplus(l, x) : one_entry(l, x);
		if (err)
			return err;
	}
	return -EPROTO;
}

static int decode_readdir(struct op *op, XDR *x)
{
	DECODE(xdr_READDIR3head, READDIR3head, {
		if (!err_) {
			struct READDIR3head_ok *ok = &res.READDIR3head_u.resok;

			take_attr(op, &ok->dir_attributes);
			memcpy(op->reply.verf, ok->cookieverf, sizeof(op->reply.verf));
			err_ = decode_entries(op, x);
		}
	});
}

/* --- the calls --- */

int berth_start_null(struct berth *b, berth_done *done, void *arg)
{
	return begin(nfs_op(b, NFSPROC3_NULL, NULL, NULL, decode_null, done, arg));
}

int berth_start_getattr(struct berth *b, const struct berth_fh *fh, berth_done *done, void *arg)
{
	struct GETATTR3args a = { to_fh(fh) };

	return begin(nfs_op(b, NFSPROC3_GETATTR, (xdrproc_t)xdr_GETATTR3args, &a, decode_getattr,
	                    done, arg));
}

int berth_start_setattr(struct berth *b, const struct berth_fh *fh, const struct berth_set *set,
                        berth_done *done, void *arg)
{
	struct SETATTR3args a = { .object = to_fh(fh), .new_attributes = to_sattr(set) };

	return begin(nfs_op(b, NFSPROC3_SETATTR, (xdrproc_t)xdr_SETATTR3args, &a, decode_setattr,
	                    done, arg));
}

int berth_start_lookup(struct berth *b, const struct berth_fh *dir, const char *name,
                       berth_done *done, void *arg)
{
	struct LOOKUP3args a = { to_dirop(dir, name) };
	int err = check_name(name);

	return err ? err
	           : begin(nfs_op(b, NFSPROC3_LOOKUP, (xdrproc_t)xdr_LOOKUP3args, &a, decode_lookup,
	                          done, arg));
}

int berth_start_access(struct berth *b, const struct berth_fh *fh, uint32_t access,
                       berth_done *done, void *arg)
{
	struct ACCESS3args a = { to_fh(fh), access };

	return begin(nfs_op(b, NFSPROC3_ACCESS, (xdrproc_t)xdr_ACCESS3args, &a, decode_access, done,
	                    arg));
}

int berth_start_readlink(struct berth *b, const struct berth_fh *fh, char *buf, size_t size,
                         berth_done *done, void *arg)
{
	struct READLINK3args a = { to_fh(fh) };
	struct op *op = nfs_op(b, NFSPROC3_READLINK, (xdrproc_t)xdr_READLINK3args, &a,
	                       decode_readlink, done, arg);

	if (op)
		op->in = (struct iovec){ buf, size };
	return begin(op);
}

int berth_start_read(struct berth *b, const struct berth_fh *fh, uint64_t off, void *buf,
                     size_t len, berth_done *done, void *arg)
{
	struct READ3args a = { to_fh(fh), off, (u_int)len };
	struct op *op;

	if (!len || len > b->rtmax)
		return -EINVAL;
	op = nfs_op(b, NFSPROC3_READ, (xdrproc_t)xdr_READ3args, &a, decode_read, done, arg);
	if (op)
		op->in = (struct iovec){ buf, len };
	return begin(op);
}

int berth_start_write(struct berth *b, const struct berth_fh *fh, uint64_t off, const void *buf,
                      size_t len, enum berth_stable stable, berth_done *done, void *arg)
{
	struct WRITE3head a = { to_fh(fh), off, (u_int)len, (enum stable_how)stable };
	struct op *op;

	if (!len || len > b->wtmax)
		return -EINVAL;
	op = nfs_op(b, NFSPROC3_WRITE, (xdrproc_t)xdr_WRITE3head, &a, decode_write, done, arg);
	if (op)
		op->out = (struct iovec){ (void *)buf, len };
	return begin(op);
}

int berth_start_commit(struct berth *b, const struct berth_fh *fh, berth_done *done, void *arg)
{
	struct COMMIT3args a = { to_fh(fh), 0, 0 }; /* the whole file */

	return begin(nfs_op(b, NFSPROC3_COMMIT, (xdrproc_t)xdr_COMMIT3args, &a, decode_commit, done,
	                    arg));
}

int berth_start_create(struct berth *b, const struct berth_fh *dir, const char *name,
                       enum berth_how how, const struct berth_set *set, const uint8_t verf[8],
                       berth_done *done, void *arg)
{
	struct CREATE3args a = { .where = to_dirop(dir, name),
		                 .how = { .mode = (createmode3)how } };
	int err = check_name(name);

	if (err)
		return err;
	if (how == BERTH_EXCLUSIVE)
		memcpy(a.how.createhow3_u.verf, verf, sizeof(a.how.createhow3_u.verf));
	else
		a.how.createhow3_u.obj_attributes = to_sattr(set);
	return begin(nfs_op(b, NFSPROC3_CREATE, (xdrproc_t)xdr_CREATE3args, &a, decode_create, done,
	                    arg));
}

int berth_start_mkdir(struct berth *b, const struct berth_fh *dir, const char *name,
                      const struct berth_set *set, berth_done *done, void *arg)
{
	struct MKDIR3args a = { to_dirop(dir, name), to_sattr(set) };
	int err = check_name(name);

	return err ? err
	           : begin(nfs_op(b, NFSPROC3_MKDIR, (xdrproc_t)xdr_MKDIR3args, &a, decode_create,
	                          done, arg));
}

int berth_start_symlink(struct berth *b, const struct berth_fh *dir, const char *name,
                        const char *target, const struct berth_set *set, berth_done *done,
                        void *arg)
{
	struct SYMLINK3args a = { to_dirop(dir, name),
		                  { to_sattr(set), { (u_int)strlen(target), (char *)target } } };
	int err = check_name(name);

	if (!err && strlen(target) >= BERTH_PATH_MAX)
		err = -ENAMETOOLONG;
	return err ? err
	           : begin(nfs_op(b, NFSPROC3_SYMLINK, (xdrproc_t)xdr_SYMLINK3args, &a,
	                          decode_create, done, arg));
}

int berth_start_mknod(struct berth *b, const struct berth_fh *dir, const char *name,
                      enum berth_type type, uint32_t major, uint32_t minor,
                      const struct berth_set *set, berth_done *done, void *arg)
{
	struct MKNOD3args a = { .where = to_dirop(dir, name), .what = { .type = (ftype3)type } };
	int err = check_name(name);

	if (err)
		return err;
	if (type == BERTH_BLK || type == BERTH_CHR)
		a.what.mknoddata3_u.device =
			(struct devicedata3){ to_sattr(set), { major, minor } };
	else if (type == BERTH_SOCK || type == BERTH_FIFO)
		a.what.mknoddata3_u.pipe_attributes = to_sattr(set);
	else
		return -EINVAL;
	return begin(
		nfs_op(b, NFSPROC3_MKNOD, (xdrproc_t)xdr_MKNOD3args, &a, decode_create, done, arg));
}

static int start_removal(struct berth *b, uint32_t proc, const struct berth_fh *dir,
                         const char *name, berth_done *done, void *arg)
{
	struct REMOVE3args a = { to_dirop(dir, name) };
	int err = check_name(name);

	return err ? err
	           : begin(nfs_op(b, proc, (xdrproc_t)xdr_REMOVE3args, &a, decode_remove, done,
	                          arg));
}

int berth_start_remove(struct berth *b, const struct berth_fh *dir, const char *name,
                       berth_done *done, void *arg)
{
	return start_removal(b, NFSPROC3_REMOVE, dir, name, done, arg);
}

int berth_start_rmdir(struct berth *b, const struct berth_fh *dir, const char *name,
                      berth_done *done, void *arg)
{
	return start_removal(b, NFSPROC3_RMDIR, dir, name, done, arg);
}

int berth_start_rename(struct berth *b, const struct berth_fh *from, const char *fname,
                       const struct berth_fh *to, const char *tname, berth_done *done, void *arg)
{
	struct RENAME3args a = { to_dirop(from, fname), to_dirop(to, tname) };
	int err = check_name(fname);

	if (!err)
		err = check_name(tname);
	return err ? err
	           : begin(nfs_op(b, NFSPROC3_RENAME, (xdrproc_t)xdr_RENAME3args, &a, decode_rename,
	                          done, arg));
}

int berth_start_link(struct berth *b, const struct berth_fh *fh, const struct berth_fh *dir,
                     const char *name, berth_done *done, void *arg)
{
	struct LINK3args a = { to_fh(fh), to_dirop(dir, name) };
	int err = check_name(name);

	return err ? err
	           : begin(nfs_op(b, NFSPROC3_LINK, (xdrproc_t)xdr_LINK3args, &a, decode_link, done,
	                          arg));
}

int berth_start_readdir(struct berth *b, const struct berth_fh *dir, uint64_t cookie,
                        const uint8_t verf[8], bool plus, uint32_t count, berth_done *done,
                        void *arg)
{
	struct READDIR3args a = { .dir = to_fh(dir), .cookie = cookie, .count = count };
	struct READDIRPLUS3args p = {
		.dir = to_fh(dir), .cookie = cookie, .dircount = count, .maxcount = count
	};
	struct op *op;

	memcpy(a.cookieverf, verf, sizeof(a.cookieverf));
	memcpy(p.cookieverf, verf, sizeof(p.cookieverf));
	op = plus ? nfs_op(b, NFSPROC3_READDIRPLUS, (xdrproc_t)xdr_READDIRPLUS3args, &p,
	                   decode_readdir, done, arg)
	          : nfs_op(b, NFSPROC3_READDIR, (xdrproc_t)xdr_READDIR3args, &a, decode_readdir,
	                   done, arg);
	if (op)
		op->max_results = count + RESULTS_SMALL;
	return begin(op);
}

int berth_start_fsstat(struct berth *b, const struct berth_fh *fh, berth_done *done, void *arg)
{
	struct FSSTAT3args a = { to_fh(fh) };

	return begin(nfs_op(b, NFSPROC3_FSSTAT, (xdrproc_t)xdr_FSSTAT3args, &a, decode_fsstat, done,
	                    arg));
}

int berth_start_fsinfo(struct berth *b, const struct berth_fh *fh, berth_done *done, void *arg)
{
	struct FSINFO3args a = { to_fh(fh) };

	return begin(nfs_op(b, NFSPROC3_FSINFO, (xdrproc_t)xdr_FSINFO3args, &a, decode_fsinfo, done,
	                    arg));
}

int berth_start_pathconf(struct berth *b, const struct berth_fh *fh, berth_done *done, void *arg)
{
	struct PATHCONF3args a = { to_fh(fh) };

	return begin(nfs_op(b, NFSPROC3_PATHCONF, (xdrproc_t)xdr_PATHCONF3args, &a, decode_pathconf,
	                    done, arg));
}
