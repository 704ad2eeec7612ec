/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs3.c - NFS version 3 (RFC 1813): the program, handles, attributes, and the calls about one
 * object
 *
 * The calls that move data are in nfs3_io.c, those about names in nfs3_dir.c.
 */
#include <netinet/in.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "server/nfs3.h"

/* --- context --- */

/* An IPv4 client is the same one whether it arrived at an IPv6 socket or not. */
uint32_t nfs3_client(const struct tp_call *call, uint8_t addr[16])
{
	const struct sockaddr_storage *ss = tp_call_peer(call);
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)ss;

	memset(addr, 0, 16);
	if (ss->ss_family == AF_INET) {
		memcpy(addr, &in->sin_addr, 4);
		return AF_INET;
	}
	if (ss->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(addr, in6->sin6_addr.s6_addr + 12, 4);
		return AF_INET;
	}
	if (ss->ss_family == AF_INET6) {
		memcpy(addr, &in6->sin6_addr, 16);
		return AF_INET6;
	}
	tp_call_instance(call, addr);
	return AF_UNSPEC;
}

struct nfs3_ctx *nfs3_begin(struct tp_call *call)
{
	struct nfs3_ctx *cx = call->ctx;

	cx->call = call;
	cx->srv = ((struct worker *)call->worker)->srv;
	return cx;
}

static void mail_arrived(struct worker *w, struct mail *m)
{
	struct nfs3_ctx *cx = container_of(m, struct nfs3_ctx, mail);

	(void)w;
	cx->resume(cx, cx->err);
}

static void pool_done(struct pm_wait *w, int err) /* any thread */
{
	struct nfs3_ctx *cx = container_of(w, struct nfs3_ctx, wait);

	cx->err = err;
	worker_resume(cx->call->worker, &cx->mail);
}

struct pm_wait *nfs3_wait(struct nfs3_ctx *cx, void (*resume)(struct nfs3_ctx *cx, int err))
{
	cx->resume = resume;
	cx->mail.deliver = mail_arrived;
	cx->wait.done = pool_done;
	return &cx->wait;
}

void nfs3_yield(struct nfs3_ctx *cx, void (*resume)(struct nfs3_ctx *cx, int err))
{
	cx->err = 0;
	cx->resume = resume;
	cx->mail.deliver = mail_arrived;
	worker_post(cx->call->worker, &cx->mail);
}

void nfs3_when_durable(struct nfs3_ctx *cx, pm_lsn lsn,
                       void (*resume)(struct nfs3_ctx *cx, int err))
{
	int err;

	/* no change of its own: it must not confirm somebody else's that a crash could still undo */
	if (!lsn)
		lsn = PM_LSN_SEEN;
	err = pm_durable(cx->srv->store, lsn, nfs3_wait(cx, resume));
	if (err != -EINPROGRESS)
		resume(cx, err);
}

XDR *nfs3_reply_begin(struct tp_call *call)
{
	return tp_reply_begin(call, NFS3_SMALL_REPLY);
}

void nfs3_reply_end(struct tp_call *call, bool encoded)
{
	if (encoded)
		tp_reply_end(call);
	else
		tp_reply_error(call, SYSTEM_ERR); /* the client offered no place for so much */
}

/* --- status --- */

nfsstat3 nfs3_errstat(int err)
{
	static const struct {
		int err;
		nfsstat3 stat;
	} map[] = {
		{ 0, NFS3_OK },
		{ EPERM, NFS3ERR_PERM },
		{ ENOENT, NFS3ERR_NOENT },
		{ EIO, NFS3ERR_IO },
		{ EUCLEAN, NFS3ERR_IO },
		{ ENXIO, NFS3ERR_NXIO },
		{ EACCES, NFS3ERR_ACCES },
		{ EEXIST, NFS3ERR_EXIST },
		{ EXDEV, NFS3ERR_XDEV },
		{ ENODEV, NFS3ERR_NODEV },
		{ ENOTDIR, NFS3ERR_NOTDIR },
		{ EISDIR, NFS3ERR_ISDIR },
		{ EINVAL, NFS3ERR_INVAL },
		{ EFBIG, NFS3ERR_FBIG },
		{ EOVERFLOW, NFS3ERR_FBIG },
		{ ENOSPC, NFS3ERR_NOSPC },
		{ EROFS, NFS3ERR_ROFS },
		{ EMLINK, NFS3ERR_MLINK },
		{ ENAMETOOLONG, NFS3ERR_NAMETOOLONG },
		{ ENOTEMPTY, NFS3ERR_NOTEMPTY },
		{ EDQUOT, NFS3ERR_DQUOT },
		{ ESTALE, NFS3ERR_STALE },
		{ EBADF, NFS3ERR_BADHANDLE },
		{ EKEYEXPIRED, NFS3ERR_NOT_SYNC },
		{ EOPNOTSUPP, NFS3ERR_NOTSUPP },
		{ ENOMEM, NFS3ERR_JUKEBOX }, /* passes: the client tries again */
		{ EAGAIN, NFS3ERR_JUKEBOX },
		{ EBUSY, NFS3ERR_JUKEBOX },
	};

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (map[i].err == -err)
			return map[i].stat;
	return NFS3ERR_SERVERFAULT;
}

/* --- handles --- */

nfsstat3 nfs3_may_use(struct nfs3_ctx *cx, const nfs_fh3 *wire)
{
	const struct worker *w = cx->call->worker;
	const struct sockaddr_storage *peer = tp_call_peer(cx->call);
	int err;

	err = fh_parse(cx->call->worker, (const uint8_t *)wire->data.data_val, wire->data.data_len, &cx->fh);
	if (err)
		return nfs3_errstat(err);
	err = exports_by_key(w->exports, cx->fh.export_key, peer, &cx->opts, &cx->path);
	if (err)
		return err == -EACCES ? NFS3ERR_ACCES : NFS3ERR_STALE;
	if (!access_port_ok(&cx->opts, cx->call->kind, peer))
		return NFS3ERR_ACCES;
	access_who(&cx->call->cred, &cx->opts, &cx->who);
	return NFS3_OK;
}

nfsstat3 nfs3_handle(struct nfs3_ctx *cx, const nfs_fh3 *wire, struct pm_attr *attr)
{
	nfsstat3 stat = nfs3_may_use(cx, wire);

	return stat == NFS3_OK ? nfs3_errstat(pm_getattr(cx->srv->store, cx->fh.id, attr)) : stat;
}

nfsstat3 nfs3_handle2(struct nfs3_ctx *cx, const nfs_fh3 *wire, struct pm_attr *attr)
{
	struct fh fh;
	int err;

	err = fh_parse(cx->call->worker, (const uint8_t *)wire->data.data_val, wire->data.data_len, &fh);
	if (err)
		return nfs3_errstat(err);
	if (fh.export_key != cx->fh.export_key)
		return NFS3ERR_XDEV;
	return nfs3_errstat(pm_getattr(cx->srv->store, fh.id, attr));
}

/* --- attributes --- */

/* 32 bits of seconds, unsigned, are all there is on the wire. */
static nfstime3 wire_time(struct timespec t)
{
	if (t.tv_sec < 0)
		return (nfstime3){ 0, 0 };
	if (t.tv_sec > UINT32_MAX)
		return (nfstime3){ UINT32_MAX, 999999999 };
	return (nfstime3){ (u_int)t.tv_sec, (u_int)t.tv_nsec };
}

void nfs3_fattr(const struct server *srv, const struct pm_attr *a, fattr3 *out)
{
	*out = (fattr3){
		.type = (ftype3)a->type, /* pm_type is numbered like ftype3 */
		.mode = a->mode & 07777,
		.nlink = a->nlink,
		.uid = a->uid,
		.gid = a->gid,
		.size = a->size,
		.used = a->used,
		.rdev = { a->rdev_major, a->rdev_minor },
		.fsid = srv->fsid,
		.fileid = a->id.ino,
		.atime = wire_time(a->atime),
		.mtime = wire_time(a->mtime),
		.ctime = wire_time(a->ctime),
	};
}

void nfs3_post_attr(const struct server *srv, const struct pm_attr *a, post_op_attr *out)
{
	out->attributes_follow = a != NULL;
	if (a)
		nfs3_fattr(srv, a, &out->post_op_attr_u.attributes);
}

void nfs3_post_attr_now(struct nfs3_ctx *cx, struct pm_id id, post_op_attr *out)
{
	struct pm_attr a;
	bool there = id.ino && pm_getattr(cx->srv->store, id, &a) == 0;

	nfs3_post_attr(cx->srv, there ? &a : NULL, out);
}

void nfs3_wcc(const struct server *srv, const struct pm_attr *before, const struct pm_attr *after,
              wcc_data *out)
{
	wcc_attr *pre = &out->before.pre_op_attr_u.attributes;

	out->before.attributes_follow = before != NULL;
	if (before) {
		pre->size = before->size;
		pre->mtime = wire_time(before->mtime);
		pre->ctime = wire_time(before->ctime);
	}
	nfs3_post_attr(srv, after, &out->after);
}

void nfs3_wcc_now(struct nfs3_ctx *cx, struct pm_id id, wcc_data *out)
{
	struct pm_attr a;
	bool there = id.ino && pm_getattr(cx->srv->store, id, &a) == 0;

	nfs3_wcc(cx->srv, there ? &a : NULL, there ? &a : NULL, out);
}

void nfs3_change_wcc(struct nfs3_ctx *cx, const struct pm_attr *before, const struct pm_attr *after,
                     struct pm_id id, wcc_data *out)
{
	nfs3_wcc(cx->srv, cx->replay ? NULL : before, after, out);
	if (cx->replay)
		nfs3_post_attr_now(cx, id, &out->after);
}

void nfs3_change_attr(struct nfs3_ctx *cx, post_op_attr *out)
{
	if (cx->replay)
		nfs3_post_attr_now(cx, cx->ch.obj.id, out);
	else
		nfs3_post_attr(cx->srv, &cx->ch.obj, out);
}

static bool sattr_time(time_how how, const nfstime3 *in, unsigned bit, unsigned *set,
                       struct timespec *out)
{
	if (how == DONT_CHANGE)
		return true;
	*set |= bit;
	if (how == SET_TO_SERVER_TIME) {
		*out = (struct timespec){ .tv_nsec = UTIME_NOW };
		return true;
	}
	/* Checked, or a client could say UTIME_NOW with its nanoseconds. */
	if (how != SET_TO_CLIENT_TIME || in->nseconds >= 1000000000)
		return false;
	*out = (struct timespec){ .tv_sec = in->seconds, .tv_nsec = in->nseconds };
	return true;
}

nfsstat3 nfs3_sattr(const sattr3 *in, struct pm_setattr *out)
{
	*out = (struct pm_setattr){ 0 };
	if (in->mode.set_it) {
		out->set |= PM_SET_MODE;
		out->mode = in->mode.set_mode3_u.mode & 07777;
	}
	if (in->uid.set_it) {
		out->set |= PM_SET_UID;
		out->uid = in->uid.set_uid3_u.uid;
	}
	if (in->gid.set_it) {
		out->set |= PM_SET_GID;
		out->gid = in->gid.set_gid3_u.gid;
	}
	if (in->size.set_it) {
		out->set |= PM_SET_SIZE;
		out->size = in->size.set_size3_u.size;
		if (out->size > PM_FILE_MAX)
			return NFS3ERR_FBIG;
	}
	if (!sattr_time(in->atime.set_it, &in->atime.set_atime_u.atime, PM_SET_ATIME, &out->set,
	                &out->atime) ||
	    !sattr_time(in->mtime.set_it, &in->mtime.set_mtime_u.mtime, PM_SET_MTIME, &out->set,
	                &out->mtime))
		return NFS3ERR_INVAL;
	return NFS3_OK;
}

/* --- NULL, GETATTR, SETATTR --- */

static void null(struct tp_call *call)
{
	if (nfs3_reply_begin(call))
		tp_reply_end(call);
}

static void getattr(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	GETATTR3args args = { 0 };
	GETATTR3res res = { 0 };
	struct pm_attr attr;

	nfs3_preset_fh(&args.object, &fh);
	if (!xdr_GETATTR3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = nfs3_handle(cx, &args.object, &attr);
	if (res.status == NFS3_OK)
		nfs3_fattr(cx->srv, &attr, &res.GETATTR3res_u.obj_attributes);
	NFS3_REPLY(cx, GETATTR3res, &res);
}

static void setattr_durable(struct nfs3_ctx *cx, int err)
{
	SETATTR3res res = { .status = nfs3_errstat(err) };

	nfs3_change_wcc(cx, &cx->ch.obj_before, &cx->ch.obj, cx->dir, &res.obj_wcc);
	NFS3_REPLY(cx, SETATTR3res, &res);
}

static nfsstat3 setattr_try(struct nfs3_ctx *cx, const SETATTR3args *args)
{
	struct timespec guard = { .tv_sec = args->guard.sattrguard3_u.obj_ctime.seconds,
		                  .tv_nsec = args->guard.sattrguard3_u.obj_ctime.nseconds };
	struct pm_attr attr;
	struct pm_setattr sa;
	nfsstat3 stat;
	int err;

	stat = nfs3_handle(cx, &args->object, &attr);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = attr.id;
	if (!cx->opts.rw)
		return NFS3ERR_ROFS;
	stat = nfs3_sattr(&args->new_attributes, &sa);
	if (stat != NFS3_OK)
		return stat;
	if (args->guard.check)
		sa.ctime_guard = &guard;
	err = access_setattr(&cx->who, &attr, &sa);
	if (!err)
		err = pm_setattr_once(cx->srv->store, attr.id, &sa, drc_once(cx), &cx->ch);
	return nfs3_errstat(err);
}

static void setattr(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	SETATTR3args args = { 0 };
	SETATTR3res res = { 0 };

	nfs3_preset_fh(&args.object, &fh);
	if (!xdr_SETATTR3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (drc_answered(cx, &args.object, NULL, setattr_durable))
		return;
	res.status = setattr_try(cx, &args);
	if (res.status == NFS3_OK) {
		nfs3_when_durable(cx, cx->ch.lsn, setattr_durable);
		return;
	}
	if (drc_answered(cx, &args.object, NULL, setattr_durable))
		return;
	nfs3_wcc_now(cx, cx->dir, &res.obj_wcc);
	NFS3_REPLY(cx, SETATTR3res, &res);
}

/* --- ACCESS, FSSTAT, FSINFO, PATHCONF --- */

static void access3(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	ACCESS3args args = { 0 };
	ACCESS3res res = { 0 };
	struct pm_attr attr;

	nfs3_preset_fh(&args.object, &fh);
	if (!xdr_ACCESS3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = nfs3_handle(cx, &args.object, &attr);
	if (res.status == NFS3_OK) {
		nfs3_post_attr(cx->srv, &attr, &res.ACCESS3res_u.resok.obj_attributes);
		res.ACCESS3res_u.resok.access =
			access_bits(&cx->who, &attr, cx->opts.rw, args.access);
	}
	NFS3_REPLY(cx, ACCESS3res, &res);
}

static void fsstat(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	FSSTAT3args args = { 0 };
	FSSTAT3res res = { 0 };
	FSSTAT3resok *ok = &res.FSSTAT3res_u.resok;
	struct pm_space sp;
	struct pm_attr attr;

	nfs3_preset_fh(&args.fsroot, &fh);
	if (!xdr_FSSTAT3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = nfs3_handle(cx, &args.fsroot, &attr);
	if (res.status == NFS3_OK) {
		pm_get_space(cx->srv->store, &sp);
		nfs3_post_attr(cx->srv, &attr, &ok->obj_attributes);
		ok->tbytes = sp.blocks * PM_BLOCK;
		ok->fbytes = ok->abytes = sp.free_blocks * PM_BLOCK;
		ok->tfiles = sp.inodes + sp.free_inodes;
		ok->ffiles = ok->afiles = sp.free_inodes;
	}
	NFS3_REPLY(cx, FSSTAT3res, &res);
}

static void fsinfo(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	FSINFO3args args = { 0 };
	FSINFO3res res = { 0 };
	struct pm_attr attr;

	nfs3_preset_fh(&args.fsroot, &fh);
	if (!xdr_FSINFO3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = nfs3_handle(cx, &args.fsroot, &attr);
	if (res.status == NFS3_OK) {
		res.FSINFO3res_u.resok = (FSINFO3resok){
			.rtmax = SERVER_MAX_IO,
			.rtpref = SERVER_MAX_IO,
			.rtmult = PM_BLOCK,
			.wtmax = SERVER_MAX_IO,
			.wtpref = SERVER_MAX_IO,
			.wtmult = PM_BLOCK,
			.dtpref = 65536,
			.maxfilesize = PM_FILE_MAX,
			.time_delta = { 0, 1 },
			.properties = FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME,
		};
		nfs3_post_attr(cx->srv, &attr, &res.FSINFO3res_u.resok.obj_attributes);
	}
	NFS3_REPLY(cx, FSINFO3res, &res);
}

static void pathconf3(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	PATHCONF3args args = { 0 };
	PATHCONF3res res = { 0 };
	struct pm_attr attr;

	nfs3_preset_fh(&args.object, &fh);
	if (!xdr_PATHCONF3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = nfs3_handle(cx, &args.object, &attr);
	if (res.status == NFS3_OK) {
		res.PATHCONF3res_u.resok = (PATHCONF3resok){
			.linkmax = PM_LINK_MAX,
			.name_max = PM_NAME_MAX,
			.no_trunc = TRUE,
			.chown_restricted = TRUE,
			.case_insensitive = FALSE,
			.case_preserving = TRUE,
		};
		nfs3_post_attr(cx->srv, &attr, &res.PATHCONF3res_u.resok.obj_attributes);
	}
	NFS3_REPLY(cx, PATHCONF3res, &res);
}

/* --- the program --- */

static const struct tp_proc procs[NFSPROC3_COUNT] = {
	[NFSPROC3_NULL] = { "NULL", null, NULL },
	[NFSPROC3_GETATTR] = { "GETATTR", getattr, NULL },
	[NFSPROC3_SETATTR] = { "SETATTR", setattr, NULL },
	[NFSPROC3_LOOKUP] = { "LOOKUP", nfs3_lookup, NULL },
	[NFSPROC3_ACCESS] = { "ACCESS", access3, NULL },
	[NFSPROC3_READLINK] = { "READLINK", nfs3_readlink, NULL },
	[NFSPROC3_READ] = { "READ", nfs3_read, NULL },
	[NFSPROC3_WRITE] = { "WRITE", nfs3_write, nfs3_write_payload_at },
	[NFSPROC3_CREATE] = { "CREATE", nfs3_create, NULL },
	[NFSPROC3_MKDIR] = { "MKDIR", nfs3_mkdir, NULL },
	[NFSPROC3_SYMLINK] = { "SYMLINK", nfs3_symlink, NULL },
	[NFSPROC3_MKNOD] = { "MKNOD", nfs3_mknod, NULL },
	[NFSPROC3_REMOVE] = { "REMOVE", nfs3_remove, NULL },
	[NFSPROC3_RMDIR] = { "RMDIR", nfs3_rmdir, NULL },
	[NFSPROC3_RENAME] = { "RENAME", nfs3_rename, NULL },
	[NFSPROC3_LINK] = { "LINK", nfs3_link, NULL },
	[NFSPROC3_READDIR] = { "READDIR", nfs3_readdir, NULL },
	[NFSPROC3_READDIRPLUS] = { "READDIRPLUS", nfs3_readdirplus, NULL },
	[NFSPROC3_FSSTAT] = { "FSSTAT", fsstat, NULL },
	[NFSPROC3_FSINFO] = { "FSINFO", fsinfo, NULL },
	[NFSPROC3_PATHCONF] = { "PATHCONF", pathconf3, NULL },
	[NFSPROC3_COMMIT] = { "COMMIT", nfs3_commit, NULL },
};

const struct tp_program nfs3_program = {
	.prog = NFS3_PROGRAM,
	.vers = NFS3_VERSION,
	.procs = procs,
	.nprocs = NFSPROC3_COUNT,
	.ctx_size = sizeof(struct nfs3_ctx),
};
