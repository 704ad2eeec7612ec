/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs3_dir.c - names: LOOKUP, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME, LINK, READDIR,
 * READDIRPLUS
 *
 * A change replies once its transaction is durable; its weak cache consistency data was taken by
 * the pool in the instant of the change. A failure reports its directory as it is now, before and
 * after alike. Every change asks drc.c first whether it was made already.
 *
 * An export ends at its root: ".." of the root is the root, and ".." of a directory that was moved
 * out of the export while a client kept its handle is NFS3ERR_STALE, not the way into the rest of
 * the pool.
 */
#include <errno.h>
#include <string.h>

#include "server/nfs3.h"

/* --- names --- */

static bool is_dot(const filename3 *n)
{
	return n->filename3_len == 1 && n->filename3_val[0] == '.';
}

static bool is_dotdot(const filename3 *n)
{
	return n->filename3_len == 2 && n->filename3_val[0] == '.' && n->filename3_val[1] == '.';
}

/* A name to look up. */
static nfsstat3 name_ok(const filename3 *n)
{
	if (n->filename3_len == 0)
		return NFS3ERR_ACCES;
	if (n->filename3_len > PM_NAME_MAX)
		return NFS3ERR_NAMETOOLONG;
	if (memchr(n->filename3_val, '/', n->filename3_len) ||
	    memchr(n->filename3_val, 0, n->filename3_len))
		return NFS3ERR_INVAL;
	return NFS3_OK;
}

/* A name to make or remove: the RFC has an error of its own for "." and ".." in each procedure. */
static nfsstat3 name_for(const filename3 *n, nfsstat3 dot, nfsstat3 dotdot)
{
	if (is_dot(n))
		return dot;
	return is_dotdot(n) ? dotdot : name_ok(n);
}

/* Resolve the directory of a change: it must be one, writable by the caller, in a writable export.
 */
static nfsstat3 change_dir(struct nfs3_ctx *cx, const nfs_fh3 *wire, struct pm_attr *dir)
{
	nfsstat3 stat = nfs3_handle(cx, wire, dir);

	if (stat != NFS3_OK)
		return stat;
	cx->dir = dir->id;
	if (!cx->opts.rw)
		return NFS3ERR_ROFS;
	return dir->type == PM_DIR ? NFS3_OK : NFS3ERR_NOTDIR;
}

static int may_change(struct nfs3_ctx *cx, const struct pm_attr *dir)
{
	return access_may(&cx->who, dir, MAY_WRITE | MAY_EXEC);
}

/* --- LOOKUP --- */

static int export_root(struct nfs3_ctx *cx, struct pm_id *root)
{
	struct pm_attr a;
	int err = mount3_walk(cx->srv->store, cx->path, strlen(cx->path), &a);

	if (!err)
		*root = a.id;
	return err;
}

/* The parent of @dir as seen within the export. */
static int lookup_parent(struct nfs3_ctx *cx, const struct pm_attr *dir, struct pm_attr *out)
{
	struct pm_id root;
	struct pm_attr at;

	if (export_root(cx, &root))
		return -ESTALE; /* the exported directory itself is gone */
	if (pm_id_eq(dir->id, root)) {
		*out = *dir;
		return 0;
	}
	if (pm_lookup(cx->srv->store, dir->id, "..", 2, out))
		return -ESTALE;
	if (root.ino == PM_ROOT_INO)
		return 0; /* there is no outside */
	at = *out;
	while (!pm_id_eq(at.id, root)) {
		struct pm_id below = at.id;

		if (pm_lookup(cx->srv->store, below, "..", 2, &at) || pm_id_eq(at.id, below))
			return -ESTALE; /* arrived at the pool's root, past the export's */
	}
	return 0;
}

static nfsstat3 lookup_try(struct nfs3_ctx *cx, const diropargs3 *what, struct pm_attr *dir,
                           struct pm_attr *obj)
{
	const filename3 *n = &what->name;
	nfsstat3 stat;
	int err;

	stat = nfs3_handle(cx, &what->dir, dir);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = dir->id;
	if (dir->type != PM_DIR)
		return NFS3ERR_NOTDIR;
	stat = name_ok(n);
	if (stat != NFS3_OK)
		return stat;
	err = access_may(&cx->who, dir, MAY_EXEC);
	if (err)
		return nfs3_errstat(err);
	if (is_dot(n))
		*obj = *dir;
	else if (is_dotdot(n))
		err = lookup_parent(cx, dir, obj);
	else
		err = pm_lookup(cx->srv->store, dir->id, n->filename3_val, n->filename3_len, obj);
	return nfs3_errstat(err);
}

void nfs3_lookup(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	struct nfs3_name_buf name;
	uint8_t handle[FH_SIZE];
	LOOKUP3args args = { 0 };
	LOOKUP3res res = { 0 };
	LOOKUP3resok *ok = &res.LOOKUP3res_u.resok;
	struct pm_attr dir, obj;

	nfs3_preset_dirop(&args.what, &fh, &name);
	if (!xdr_LOOKUP3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = lookup_try(cx, &args.what, &dir, &obj);
	if (res.status == NFS3_OK) {
		fh_make(cx->call->worker, &(struct fh){ cx->fh.export_key, obj.id }, handle);
		ok->object.data.data_val = (char *)handle;
		ok->object.data.data_len = FH_SIZE;
		nfs3_post_attr(cx->srv, &obj, &ok->obj_attributes);
		nfs3_post_attr(cx->srv, &dir, &ok->dir_attributes);
	} else {
		nfs3_post_attr_now(cx, cx->dir, &res.LOOKUP3res_u.resfail.dir_attributes);
	}
	NFS3_REPLY(cx, LOOKUP3res, &res);
}

/* --- CREATE, MKDIR, SYMLINK, MKNOD --- */

static void create_fail(struct nfs3_ctx *cx, nfsstat3 stat)
{
	CREATE3res res = { .status = stat };

	nfs3_wcc_now(cx, cx->dir, &res.CREATE3res_u.resfail.dir_wcc);
	NFS3_REPLY(cx, CREATE3res, &res);
}

static void create_durable(struct nfs3_ctx *cx, int err)
{
	const struct pm_change *ch = &cx->ch;
	CREATE3res res = { .status = nfs3_errstat(err) };
	CREATE3resok *ok = &res.CREATE3res_u.resok;
	uint8_t handle[FH_SIZE];

	if (err) {
		create_fail(cx, res.status);
		return;
	}
	fh_make(cx->call->worker, &(struct fh){ cx->fh.export_key, ch->obj.id }, handle);
	ok->obj.handle_follows = TRUE;
	ok->obj.post_op_fh3_u.handle.data.data_val = (char *)handle;
	ok->obj.post_op_fh3_u.handle.data.data_len = FH_SIZE;
	nfs3_change_attr(cx, &ok->obj_attributes);
	nfs3_change_wcc(cx, &ch->dir_before, &ch->dir, cx->dir, &ok->dir_wcc);
	NFS3_REPLY(cx, CREATE3res, &res);
}

/* Every making begins and ends here. */
static bool create_again(struct nfs3_ctx *cx, const diropargs3 *where)
{
	return drc_answered(cx, &where->dir, NULL, create_durable);
}

static void create_end(struct nfs3_ctx *cx, const diropargs3 *where, nfsstat3 stat)
{
	if (stat == NFS3_OK)
		nfs3_when_durable(cx, cx->ch.lsn, create_durable);
	else if (!create_again(cx, where))
		create_fail(cx, stat);
}

/* What @sattr (NULL: nothing) and the rules of access_new() make of a new object. */
static nfsstat3 new_object(struct nfs3_ctx *cx, const struct pm_attr *dir, const sattr3 *sattr,
                           struct pm_new *nw)
{
	struct pm_setattr sa = { 0 };
	nfsstat3 stat;

	if (sattr) {
		stat = nfs3_sattr(sattr, &sa);
		if (stat != NFS3_OK)
			return stat;
	}
	nw->mode = sa.mode;
	nw->uid = sa.uid;
	nw->gid = sa.gid;
	nw->set = sa.set & (PM_SET_ATIME | PM_SET_MTIME);
	if (nw->type == PM_REG)
		nw->set |= sa.set & PM_SET_SIZE;
	nw->size = sa.size;
	nw->atime = sa.atime;
	nw->mtime = sa.mtime;
	access_new(&cx->who, dir, sa.set, nw);
	return NFS3_OK;
}

/* What forbids to make a name, the directory's mode for one, does not change that it is there, for who may look: programs
 * that make a path ask for each part of it, and go on with those that exist. It is put in cx->ch.obj. */
static nfsstat3 there_already(struct nfs3_ctx *cx, const struct pm_attr *dir, const filename3 *n, nfsstat3 stat)
{
	if (stat == NFS3_OK || stat == NFS3ERR_EXIST || access_may(&cx->who, dir, MAY_EXEC) ||
	    pm_lookup(cx->srv->store, dir->id, n->filename3_val, n->filename3_len, &cx->ch.obj))
		return stat;
	return NFS3ERR_EXIST;
}

/* MKDIR, SYMLINK, MKNOD, once the type is known; CREATE of what is not there. */
static nfsstat3 make_new(struct nfs3_ctx *cx, const struct pm_attr *dir, const filename3 *name,
                         const sattr3 *sattr, struct pm_new *nw)
{
	nfsstat3 stat;
	int err;

	err = may_change(cx, dir);
	if (err)
		return nfs3_errstat(err);
	stat = new_object(cx, dir, sattr, nw);
	if (stat != NFS3_OK)
		return stat;
	err = pm_create_once(cx->srv->store, dir->id, name->filename3_val, name->filename3_len, nw,
	                     drc_once(cx), &cx->ch);
	return nfs3_errstat(err);
}

static nfsstat3 make(struct nfs3_ctx *cx, const struct pm_attr *dir, const filename3 *name,
                     const sattr3 *sattr, struct pm_new *nw)
{
	return there_already(cx, dir, name, make_new(cx, dir, name, sattr, nw));
}

/* UNCHECKED CREATE of an existing file is open() with O_TRUNC if it names a size: of the attributes
 * only that. */
static nfsstat3 create_existing(struct nfs3_ctx *cx, const struct pm_attr *dir, struct pm_attr *obj,
                                const sattr3 *sattr)
{
	struct pm_setattr sa;
	nfsstat3 stat;
	int err = 0;

	if (obj->type != PM_REG)
		return NFS3ERR_EXIST;
	stat = nfs3_sattr(sattr, &sa);
	if (stat != NFS3_OK)
		return stat;
	cx->ch = (struct pm_change){ .obj = *obj };
	sa.set &= PM_SET_SIZE;
	if (sa.set)
		err = access_setattr(&cx->who, obj, &sa);
	if (sa.set && !err)
		err = pm_setattr_once(cx->srv->store, obj->id, &sa, drc_once(cx), &cx->ch);
	cx->ch.dir_before = cx->ch.dir = *dir;
	return nfs3_errstat(err);
}

static nfsstat3 create_try(struct nfs3_ctx *cx, const CREATE3args *args)
{
	const filename3 *n = &args->where.name;
	const sattr3 *sattr = &args->how.createhow3_u.obj_attributes;
	struct pm_new nw = { .type = PM_REG };
	struct pm_attr dir, obj;
	nfsstat3 stat;
	int err;

	stat = change_dir(cx, &args->where.dir, &dir);
	if (stat == NFS3_OK)
		stat = name_for(n, NFS3ERR_EXIST, NFS3ERR_EXIST);
	if (stat != NFS3_OK)
		return stat;
	if (args->how.mode == EXCLUSIVE) {
		nw.exclusive = true;
		memcpy(nw.verf, args->how.createhow3_u.verf, sizeof(nw.verf));
		return make(cx, &dir, n, NULL, &nw);
	}
	err = access_may(&cx->who, &dir, MAY_EXEC);
	if (err)
		return nfs3_errstat(err);
	stat = make(cx, &dir, n, sattr, &nw);
	if (stat != NFS3ERR_EXIST || args->how.mode == GUARDED)
		return stat;
	obj = cx->ch.obj;
	return create_existing(cx, &dir, &obj, sattr);
}

void nfs3_create(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	struct nfs3_name_buf name;
	CREATE3args args = { 0 };

	nfs3_preset_dirop(&args.where, &fh, &name);
	if (!xdr_CREATE3args(&call->args, &args))
		tp_reply_error(call, GARBAGE_ARGS);
	else if (!create_again(cx, &args.where))
		create_end(cx, &args.where, create_try(cx, &args));
}

void nfs3_mkdir(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	struct nfs3_name_buf name;
	MKDIR3args args = { 0 };
	struct pm_new nw = { .type = PM_DIR };
	struct pm_attr dir;
	nfsstat3 stat;

	nfs3_preset_dirop(&args.where, &fh, &name);
	if (!xdr_MKDIR3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (create_again(cx, &args.where))
		return;
	stat = change_dir(cx, &args.where.dir, &dir);
	if (stat == NFS3_OK)
		stat = name_for(&args.where.name, NFS3ERR_EXIST, NFS3ERR_EXIST);
	if (stat == NFS3_OK)
		stat = make(cx, &dir, &args.where.name, &args.attributes, &nw);
	create_end(cx, &args.where, stat);
}

void nfs3_symlink(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	struct nfs3_name_buf name, target;
	SYMLINK3args args = { 0 };
	nfspath3 *path = &args.symlink.symlink_data;
	struct pm_new nw = { .type = PM_LNK };
	struct pm_attr dir;
	nfsstat3 stat;

	nfs3_preset_dirop(&args.where, &fh, &name);
	path->nfspath3_val = target.b;
	if (!xdr_SYMLINK3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	args.symlink.symlink_attributes.mode.set_it =
		FALSE; /* links have no permissions of their own */
	nw.target = path->nfspath3_val;
	nw.target_len = path->nfspath3_len;
	if (create_again(cx, &args.where))
		return;
	stat = change_dir(cx, &args.where.dir, &dir);
	if (stat == NFS3_OK)
		stat = name_for(&args.where.name, NFS3ERR_EXIST, NFS3ERR_EXIST);
	if (stat == NFS3_OK)
		stat = make(cx, &dir, &args.where.name, &args.symlink.symlink_attributes, &nw);
	create_end(cx, &args.where, stat);
}

/* Type, device numbers and attributes of a MKNOD. */
static nfsstat3 mknod_what(const struct nfs3_ctx *cx, const mknoddata3 *what, struct pm_new *nw,
                           const sattr3 **sattr)
{
	const devicedata3 *dev = &what->mknoddata3_u.device;

	switch (what->type) {
	case NF3CHR:
	case NF3BLK:
		if (cx->who.uid != 0)
			return NFS3ERR_PERM;
		nw->rdev_major = dev->spec.specdata1;
		nw->rdev_minor = dev->spec.specdata2;
		*sattr = &dev->dev_attributes;
		break;
	case NF3SOCK:
	case NF3FIFO:
		*sattr = &what->mknoddata3_u.pipe_attributes;
		break;
	default:
		return NFS3ERR_BADTYPE;
	}
	nw->type = (enum pm_type)what->type;
	return NFS3_OK;
}

void nfs3_mknod(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	struct nfs3_name_buf name;
	MKNOD3args args = { 0 };
	const sattr3 *sattr = NULL;
	struct pm_new nw = { 0 };
	struct pm_attr dir;
	nfsstat3 stat;

	nfs3_preset_dirop(&args.where, &fh, &name);
	if (!xdr_MKNOD3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (create_again(cx, &args.where))
		return;
	stat = change_dir(cx, &args.where.dir, &dir);
	if (stat == NFS3_OK)
		stat = name_for(&args.where.name, NFS3ERR_EXIST, NFS3ERR_EXIST);
	if (stat == NFS3_OK)
		stat = mknod_what(cx, &args.what, &nw, &sattr);
	if (stat == NFS3_OK)
		stat = make(cx, &dir, &args.where.name, sattr, &nw);
	create_end(cx, &args.where, stat);
}

/* --- REMOVE, RMDIR --- */

static void remove_durable(struct nfs3_ctx *cx, int err)
{
	REMOVE3res res = { .status = nfs3_errstat(err) };

	nfs3_change_wcc(cx, &cx->ch.dir_before, &cx->ch.dir, cx->dir, &res.dir_wcc);
	NFS3_REPLY(cx, REMOVE3res, &res);
}

static nfsstat3 remove_try(struct nfs3_ctx *cx, const diropargs3 *what, bool is_dir)
{
	struct pm_store *st = cx->srv->store;
	const filename3 *n = &what->name;
	struct pm_attr dir, obj;
	nfsstat3 stat;
	int err;

	stat = change_dir(cx, &what->dir, &dir);
	if (stat == NFS3_OK)
		stat = is_dir ? name_for(n, NFS3ERR_INVAL, NFS3ERR_EXIST)
		              : name_for(n, NFS3ERR_ACCES, NFS3ERR_ACCES);
	if (stat != NFS3_OK)
		return stat;
	err = may_change(cx, &dir);
	if (!err)
		err = pm_lookup(st, dir.id, n->filename3_val, n->filename3_len, &obj);
	if (!err)
		err = access_sticky(&cx->who, &dir, &obj);
	if (err)
		return nfs3_errstat(err);
	err = is_dir ? pm_rmdir_once(st, dir.id, n->filename3_val, n->filename3_len, drc_once(cx),
	                             &cx->ch)
	             : pm_remove_once(st, dir.id, n->filename3_val, n->filename3_len, drc_once(cx),
	                              &cx->ch);
	return nfs3_errstat(err);
}

static void remove_either(struct tp_call *call, bool is_dir)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	struct nfs3_name_buf name;
	REMOVE3args args = { 0 };
	REMOVE3res res = { 0 };

	nfs3_preset_dirop(&args.object, &fh, &name);
	if (!xdr_REMOVE3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (drc_answered(cx, &args.object.dir, NULL, remove_durable))
		return;
	res.status = remove_try(cx, &args.object, is_dir);
	if (res.status == NFS3_OK) {
		nfs3_when_durable(cx, cx->ch.lsn, remove_durable);
		return;
	}
	if (drc_answered(cx, &args.object.dir, NULL, remove_durable))
		return;
	nfs3_wcc_now(cx, cx->dir, &res.dir_wcc);
	NFS3_REPLY(cx, REMOVE3res, &res);
}

void nfs3_remove(struct tp_call *call)
{
	remove_either(call, false);
}

void nfs3_rmdir(struct tp_call *call)
{
	remove_either(call, true);
}

/* --- RENAME, LINK --- */

static void rename_durable(struct nfs3_ctx *cx, int err)
{
	RENAME3res res = { .status = nfs3_errstat(err) };

	nfs3_change_wcc(cx, &cx->ch.dir_before, &cx->ch.dir, cx->dir, &res.fromdir_wcc);
	nfs3_change_wcc(cx, &cx->ch.dir2_before, &cx->ch.dir2, cx->dir2, &res.todir_wcc);
	NFS3_REPLY(cx, RENAME3res, &res);
}

static int rename_may(struct nfs3_ctx *cx, const struct pm_attr *from, const filename3 *fname,
                      const struct pm_attr *to, const filename3 *tname)
{
	struct pm_store *st = cx->srv->store;
	struct pm_attr obj, target;
	int err;

	err = may_change(cx, from);
	if (!err)
		err = may_change(cx, to);
	if (!err)
		err = pm_lookup(st, from->id, fname->filename3_val, fname->filename3_len, &obj);
	if (!err)
		err = access_sticky(&cx->who, from, &obj);
	/* Moving a directory rewrites its "..". */
	if (!err && obj.type == PM_DIR && !pm_id_eq(from->id, to->id))
		err = access_may(&cx->who, &obj, MAY_WRITE);
	if (err)
		return err;
	err = pm_lookup(st, to->id, tname->filename3_val, tname->filename3_len, &target);
	if (err)
		return err == -ENOENT ? 0 : err;
	return access_sticky(&cx->who, to, &target);
}

static nfsstat3 rename_try(struct nfs3_ctx *cx, const RENAME3args *args)
{
	const filename3 *f = &args->from.name, *t = &args->to.name;
	struct pm_attr from, to;
	nfsstat3 stat;
	int err;

	stat = change_dir(cx, &args->from.dir, &from);
	if (stat == NFS3_OK)
		stat = nfs3_handle2(cx, &args->to.dir, &to);
	if (stat != NFS3_OK)
		return stat;
	cx->dir2 = to.id;
	if (to.type != PM_DIR)
		return NFS3ERR_NOTDIR;
	stat = name_for(f, NFS3ERR_INVAL, NFS3ERR_INVAL);
	if (stat == NFS3_OK)
		stat = name_for(t, NFS3ERR_INVAL, NFS3ERR_INVAL);
	if (stat != NFS3_OK)
		return stat;
	err = rename_may(cx, &from, f, &to, t);
	if (!err)
		err = pm_rename_once(cx->srv->store, from.id, f->filename3_val, f->filename3_len,
		                     to.id, t->filename3_val, t->filename3_len, drc_once(cx),
		                     &cx->ch);
	return nfs3_errstat(err);
}

void nfs3_rename(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh, fh2;
	struct nfs3_name_buf name, name2;
	RENAME3args args = { 0 };
	RENAME3res res = { 0 };

	nfs3_preset_dirop(&args.from, &fh, &name);
	nfs3_preset_dirop(&args.to, &fh2, &name2);
	if (!xdr_RENAME3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (drc_answered(cx, &args.from.dir, &args.to.dir, rename_durable))
		return;
	res.status = rename_try(cx, &args);
	if (res.status == NFS3_OK) {
		nfs3_when_durable(cx, cx->ch.lsn, rename_durable);
		return;
	}
	if (drc_answered(cx, &args.from.dir, &args.to.dir, rename_durable))
		return;
	nfs3_wcc_now(cx, cx->dir, &res.fromdir_wcc);
	nfs3_wcc_now(cx, cx->dir2, &res.todir_wcc);
	NFS3_REPLY(cx, RENAME3res, &res);
}

static void link_durable(struct nfs3_ctx *cx, int err)
{
	LINK3res res = { .status = nfs3_errstat(err) };

	nfs3_change_attr(cx, &res.file_attributes);
	/* the directory is the second handle */
	nfs3_change_wcc(cx, &cx->ch.dir_before, &cx->ch.dir, cx->dir2, &res.linkdir_wcc);
	NFS3_REPLY(cx, LINK3res, &res);
}

static nfsstat3 link_try(struct nfs3_ctx *cx, const LINK3args *args)
{
	const filename3 *n = &args->link.name;
	struct pm_attr file, dir;
	nfsstat3 stat;
	int err;

	stat = nfs3_handle(cx, &args->file, &file);
	if (stat != NFS3_OK)
		return stat;
	cx->dir2 = file.id;
	stat = nfs3_handle2(cx, &args->link.dir, &dir);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = dir.id;
	if (!cx->opts.rw)
		return NFS3ERR_ROFS;
	if (dir.type != PM_DIR)
		return NFS3ERR_NOTDIR;
	stat = name_for(n, NFS3ERR_EXIST, NFS3ERR_EXIST);
	if (stat != NFS3_OK)
		return stat;
	err = may_change(cx, &dir);
	if (!err)
		err = pm_link_once(cx->srv->store, file.id, dir.id, n->filename3_val,
		                   n->filename3_len, drc_once(cx), &cx->ch);
	return there_already(cx, &dir, n, nfs3_errstat(err));
}

void nfs3_link(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh, fh2;
	struct nfs3_name_buf name;
	LINK3args args = { 0 };
	LINK3res res = { 0 };

	nfs3_preset_fh(&args.file, &fh);
	nfs3_preset_dirop(&args.link, &fh2, &name);
	if (!xdr_LINK3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (drc_answered(cx, &args.file, &args.link.dir, link_durable))
		return;
	res.status = link_try(cx, &args);
	if (res.status == NFS3_OK) {
		nfs3_when_durable(cx, cx->ch.lsn, link_durable);
		return;
	}
	if (drc_answered(cx, &args.file, &args.link.dir, link_durable))
		return;
	nfs3_post_attr_now(cx, cx->dir2, &res.file_attributes);
	nfs3_wcc_now(cx, cx->dir, &res.linkdir_wcc);
	NFS3_REPLY(cx, LINK3res, &res);
}

/* --- READDIR, READDIRPLUS --- */

/* Bytes on the wire. */
enum {
	ATTR_WIRE = 84,
	HEAD_WIRE = 4 + 4 + ATTR_WIRE + NFS3_COOKIEVERFSIZE, /* status, attributes, verifier */
	TAIL_WIRE = 4 + 4,                                   /* no more entries; eof */
	ENTRY_WIRE = 4 + 8 + 4 + 8, /* follows; fileid, length of the name, cookie */
	PLUS_WIRE = 4 + ATTR_WIRE + 4 + 4 + FH_SIZE, /* attributes, handle */
};

/* A listing being encoded straight into the reply, under the store's lock. The head goes out with
 * the first entry: only then is it certain that the status will be NFS3_OK. */
struct listing {
	struct nfs3_ctx *cx;
	XDR *x;
	const uint8_t *secret;
	READDIR3head head;
	struct pm_attr dir, parent; /* for "." and "..", as the export shows them */
	bool has_parent;
	bool plus, bare; /* bare: without attributes and handles */
	size_t left;     /* bytes of the reply, the tail set aside */
	size_t dir_left; /* dircount: bytes of names and cookies */
	bool begun, too_small, broken;
};

static void entry_plus(const struct listing *l, const struct pm_attr *attr, uint8_t handle[FH_SIZE],
                       entryplus3 *e)
{
	nfs3_post_attr(l->cx->srv, attr, &e->name_attributes);
	e->name_handle.handle_follows = attr != NULL;
	if (!attr)
		return;
	fh_seal(l->secret, &(struct fh){ l->cx->fh.export_key, attr->id }, handle);
	e->name_handle.post_op_fh3_u.handle.data.data_val = (char *)handle;
	e->name_handle.post_op_fh3_u.handle.data.data_len = FH_SIZE;
}

static bool encode_entry(struct listing *l, const struct pm_dirent *de)
{
	bool dotdot = de->len == 2 && de->name[0] == '.' && de->name[1] == '.';
	const struct pm_attr *attr = dotdot ? (l->has_parent ? &l->parent : NULL) : de->attr;
	entryplus3 e = { .fileid = dotdot && l->has_parent ? l->parent.id.ino : de->id.ino,
		         .name = { (u_int)de->len, (char *)(uintptr_t)de->name },
		         .cookie = de->cookie };
	uint8_t handle[FH_SIZE];
	bool_t follows = TRUE;

	if (!xdr_bool(l->x, &follows))
		return false;
	if (l->plus) {
		entry_plus(l, l->bare ? NULL : attr, handle, &e);
		return xdr_entryplus3(l->x, &e);
	}
	return xdr_entry3(l->x, &(entry3){ e.fileid, e.name, e.cookie });
}

static bool list_entry(void *arg, const struct pm_dirent *de)
{
	struct listing *l = arg;
	size_t name = (de->len + 3) & ~(size_t)3;
	size_t wire = ENTRY_WIRE + name + (l->plus ? PLUS_WIRE : 0);

	if (wire > l->left || (l->begun && ENTRY_WIRE - 4 + name > l->dir_left)) {
		l->too_small = !l->begun;
		return false;
	}
	if (!l->begun && !xdr_READDIR3head(l->x, &l->head)) {
		l->broken = true;
		return false;
	}
	l->begun = true;
	if (!encode_entry(l, de)) {
		l->broken = true;
		return false;
	}
	l->left -= wire;
	l->dir_left -= ENTRY_WIRE - 4 + name < l->dir_left ? ENTRY_WIRE - 4 + name : l->dir_left;
	return true;
}

/* Cookies are good for the life of their entry, so the verifier need only tell one directory from
 * another. */
static void cookie_verf(struct pm_id dir, cookieverf3 out)
{
	uint64_t v = dir.ino * 0x9e3779b97f4a7c15u ^ dir.gen;

	memcpy(out, &v, sizeof(v));
}

static nfsstat3 list_check(struct nfs3_ctx *cx, const READDIRPLUS3args *args, struct listing *l)
{
	READDIR3head_ok *ok = &l->head.READDIR3head_u.resok;
	nfsstat3 stat;

	stat = nfs3_handle(cx, &args->dir, &l->dir);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = l->dir.id;
	if (l->dir.type != PM_DIR)
		return NFS3ERR_NOTDIR;
	if (access_may(&cx->who, &l->dir, MAY_READ))
		return NFS3ERR_ACCES;
	/* Attributes and handles are what a LOOKUP would give, and take its permission; the names do not. */
	l->bare = access_may(&cx->who, &l->dir, MAY_EXEC) != 0;
	cookie_verf(l->dir.id, ok->cookieverf);
	if (args->cookie && memcmp(args->cookieverf, ok->cookieverf, sizeof(ok->cookieverf)) != 0)
		return NFS3ERR_BAD_COOKIE;
	nfs3_post_attr(cx->srv, &l->dir, &ok->dir_attributes);
	l->has_parent = lookup_parent(cx, &l->dir, &l->parent) == 0;
	return l->left < HEAD_WIRE + TAIL_WIRE ? NFS3ERR_TOOSMALL : NFS3_OK;
}

static void list_fail(struct listing *l, nfsstat3 stat)
{
	l->head.status = stat;
	nfs3_post_attr_now(l->cx, l->cx->dir, &l->head.READDIR3head_u.resfail.dir_attributes);
	nfs3_reply_end(l->cx->call, xdr_READDIR3head(l->x, &l->head));
}

static void list_run(struct listing *l, uint64_t cookie)
{
	struct nfs3_ctx *cx = l->cx;
	bool eof = false;
	bool_t more = FALSE, end;
	int err;

	l->secret = pm_secret(cx->srv->store);
	l->left -= HEAD_WIRE + TAIL_WIRE;
	err = pm_readdir(cx->srv->store, cx->dir, cookie, l->plus && !l->bare, list_entry, l, &eof);
	end = eof;
	if (l->broken || (err && l->begun))
		tp_reply_error(cx->call, SYSTEM_ERR);
	else if (err)
		list_fail(l, err == -EINVAL ? NFS3ERR_BAD_COOKIE : nfs3_errstat(err));
	else if (l->too_small)
		list_fail(l, NFS3ERR_TOOSMALL);
	else
		nfs3_reply_end(cx->call, (l->begun || xdr_READDIR3head(l->x, &l->head)) &&
		                                 xdr_bool(l->x, &more) && xdr_bool(l->x, &end));
}

/* READDIR is READDIRPLUS with less in it. */
static void list(struct nfs3_ctx *cx, const READDIRPLUS3args *args, bool plus)
{
	struct listing l = { .cx = cx, .plus = plus, .dir_left = args->dircount };
	size_t room = tp_reply_room(cx->call);
	nfsstat3 stat;

	/* The client counts the bytes of the ok-structure: the status word comes on top. */
	l.left = args->maxcount < SERVER_MAX_IO ? args->maxcount + 4 : SERVER_MAX_IO;
	if (l.left > room)
		l.left = room;
	stat = list_check(cx, args, &l);
	l.x = stat == NFS3_OK ? tp_reply_begin(cx->call, l.left) : nfs3_reply_begin(cx->call);
	if (!l.x)
		return;
	if (stat == NFS3_OK)
		list_run(&l, args->cookie);
	else
		list_fail(&l, stat);
}

void nfs3_readdir(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	READDIR3args args = { 0 };
	READDIRPLUS3args plus;

	nfs3_preset_fh(&args.dir, &fh);
	if (!xdr_READDIR3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	plus = (READDIRPLUS3args){ .dir = args.dir,
		                   .cookie = args.cookie,
		                   .dircount = UINT32_MAX,
		                   .maxcount = args.count };
	memcpy(plus.cookieverf, args.cookieverf, sizeof(plus.cookieverf));
	list(cx, &plus, false);
}

void nfs3_readdirplus(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	READDIRPLUS3args args = { 0 };

	nfs3_preset_fh(&args.dir, &fh);
	if (!xdr_READDIRPLUS3args(&call->args, &args))
		tp_reply_error(call, GARBAGE_ARGS);
	else
		list(cx, &args, true);
}
