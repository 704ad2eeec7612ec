/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs3_io.c - READ, WRITE, COMMIT, READLINK: where a payload goes to its berth
 *
 *   WRITE  nfs3_write --> write_map --> tp_place --> write_placed --> pm_batch_commit --> write_committed
 *                          ^     |                                           |               ^
 *                          +-mail+ another write fills the same block        +-- turn's end -+
 *                                                                              or mail: flush on slow media
 *
 *   READ   nfs3_read --> pm_map_read --> tp_reply_end_payload ..... read_sent --> pm_unpin
 *
 * Ownership: the map lives in the call's context. A WRITE's is unpinned before the call ends, a READ's
 * when the transport has let go of the segments.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/nfs3.h"

/* --- READ --- */

static void read_sent(void *arg, int err)
{
	struct pm_map *m = arg;

	if (err && m->len) /* the connection's trouble, or the media's: then the next READ is told */
		pm_map_probe(m);
	pm_unpin(m);
}

static nfsstat3 read_map(struct nfs3_ctx *cx, const READ3args *args)
{
	uint64_t off =
		args->offset < PM_FILE_MAX ? args->offset : PM_FILE_MAX; /* no file goes further */
	uint32_t len = args->count, room = tp_reply_payload_room(cx->call);
	struct pm_attr attr;
	nfsstat3 stat;

	stat = nfs3_handle(cx, &args->file, &attr);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = attr.id;
	if (attr.type != PM_REG)
		return attr.type == PM_DIR ? NFS3ERR_ISDIR : NFS3ERR_INVAL;
	/* Who may execute a file may read it: how else would his machine run it? */
	if (access_may(&cx->who, &attr, MAY_READ | MAY_OWNER) &&
	    access_may(&cx->who, &attr, MAY_EXEC))
		return NFS3ERR_ACCES;
	if (len > SERVER_MAX_IO)
		len = SERVER_MAX_IO;
	if (len > room)
		len = room;
	return nfs3_errstat(pm_map_read(cx->srv->store, attr.id, off, len, &cx->io.map));
}

void nfs3_read(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	READ3args args = { 0 };
	READ3head head = { 0 };
	READ3head_ok *ok = &head.READ3head_u.resok;
	struct pm_map *m = &cx->io.map, pinned = { 0 };
	XDR *x;

	nfs3_preset_fh(&args.file, &fh);
	if (!xdr_READ3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	head.status = read_map(cx, &args);
	if (head.status != NFS3_OK) {
		nfs3_post_attr_now(cx, cx->dir, &head.READ3head_u.resfail.file_attributes);
		NFS3_REPLY(cx, READ3head, &head);
		return;
	}
	nfs3_post_attr(cx->srv, &m->attr, &ok->file_attributes);
	ok->count = (u_int)m->len;
	ok->eof = m->eof;
	pinned.pin = m->pin; /* without a reply there is no context any more */
	x = nfs3_reply_begin(call);
	if (x && xdr_READ3head(x, &head)) {
		tp_reply_end_payload(call, m->seg, m->nseg, (uint32_t)m->len, read_sent, m);
		return;
	}
	if (x)
		tp_reply_error(call, SYSTEM_ERR);
	pm_unpin(&pinned);
}

/* --- WRITE --- */

static void write_fail(struct nfs3_ctx *cx, nfsstat3 stat)
{
	WRITE3res res = { .status = stat };

	nfs3_wcc_now(cx, cx->dir, &res.WRITE3res_u.resfail.file_wcc);
	NFS3_REPLY(cx, WRITE3res, &res);
}

static void write_committed(struct nfs3_ctx *cx, int err)
{
	const struct pm_committed *done = &cx->io.done;
	WRITE3res res = { .status = NFS3_OK };
	WRITE3resok *ok = &res.WRITE3res_u.resok;

	pm_unpin(&cx->io.map);
	if (err) {
		write_fail(cx, nfs3_errstat(err));
		return;
	}
	nfs3_wcc(cx->srv, &done->before, &done->attr, &ok->file_wcc);
	ok->count = cx->io.count;
	ok->committed = (stable_how)done->stable;
	memcpy(ok->verf, done->verf, sizeof(ok->verf));
	NFS3_REPLY(cx, WRITE3res, &res);
}

static void write_placed(struct tp_call *call, int err)
{
	struct nfs3_ctx *cx = call->ctx;
	struct worker *w = call->worker;
	bool honor = cx->srv->conf.stability == STABILITY_HONOR;

	if (err) { /* nothing of it is published */
		pm_map_probe(&cx->io.map); /* a provider that met bad media takes the connection down with it */
		pm_unpin(&cx->io.map);
		if (err == -EFAULT) /* the kernel met it */
			write_fail(cx, NFS3ERR_IO);
		else
			tp_drop(call);
		return;
	}
	err = pm_batch_commit(w->batch, &cx->io.map, cx->io.count, cx->io.stable, honor, &cx->io.done,
	                      nfs3_wait(cx, write_committed));
	if (err == -EINPROGRESS)
		worker_hold(w, cx->io.count);
	else
		write_committed(cx, err);
}

static void write_map(struct nfs3_ctx *cx, int err)
{
	if (!err)
		err = pm_map_write(cx->srv->store, cx->fh.id, cx->io.off, cx->io.count, &cx->io.map,
		                   nfs3_wait(cx, write_map));
	if (err == -EINPROGRESS)
		return;
	if (err)
		write_fail(cx, nfs3_errstat(err));
	else
		tp_place(cx->call, cx->io.map.seg, cx->io.map.nseg, write_placed);
}

/* Nothing to place: the permission check was all. */
static void write_nothing(struct nfs3_ctx *cx)
{
	WRITE3res res = { .status = NFS3_OK };
	WRITE3resok *ok = &res.WRITE3res_u.resok;

	nfs3_wcc_now(cx, cx->fh.id, &ok->file_wcc);
	ok->committed = (stable_how)cx->io.stable;
	pm_write_verf(cx->srv->store, (uint8_t *)ok->verf);
	NFS3_REPLY(cx, WRITE3res, &res);
}

int nfs3_drop_setid(struct nfs3_ctx *cx, const struct pm_attr *attr)
{
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = access_written_mode(&cx->who, attr) };
	struct pm_change ch;

	/* The commit of the data follows this transaction, so that nobody need wait for it alone.
	 */
	return sa.mode == attr->mode ? 0 : pm_setattr(cx->srv->store, attr->id, &sa, &ch);
}

static nfsstat3 write_check(struct nfs3_ctx *cx, const WRITE3head *head)
{
	struct pm_attr attr;
	nfsstat3 stat;

	stat = nfs3_handle(cx, &head->file, &attr);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = attr.id;
	if (!cx->opts.rw)
		return NFS3ERR_ROFS;
	if (attr.type != PM_REG)
		return attr.type == PM_DIR ? NFS3ERR_ISDIR : NFS3ERR_INVAL;
	if (access_may(&cx->who, &attr, MAY_WRITE | MAY_OWNER))
		return NFS3ERR_ACCES;
	if (head->count != cx->call->payload_len)
		return NFS3ERR_INVAL; /* which of the two would be meant? */
	if (head->offset > PM_FILE_MAX || head->count > PM_FILE_MAX - head->offset)
		return NFS3ERR_FBIG;
	return head->count ? nfs3_errstat(nfs3_drop_setid(cx, &attr)) : NFS3_OK;
}

void nfs3_write(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	WRITE3head head = { 0 };
	nfsstat3 stat;

	nfs3_preset_fh(&head.file, &fh);
	if (!xdr_WRITE3head(&call->args, &head) || head.stable > FILE_SYNC) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	stat = write_check(cx, &head);
	if (stat != NFS3_OK) {
		write_fail(cx, stat);
		return;
	}
	cx->io.off = head.offset;
	cx->io.count = head.count;
	cx->io.stable = (enum pm_stable)head.stable; /* numbered like stable_how */
	if (head.count)
		write_map(cx, 0);
	else
		write_nothing(cx);
}

/* Handle, offset, count, stable, then the length word of the data. */
size_t nfs3_write_payload_at(const uint8_t *args, size_t have)
{
	uint32_t fh_len;

	if (have < 4)
		return 4;
	fh_len = (uint32_t)args[0] << 24 | (uint32_t)args[1] << 16 | (uint32_t)args[2] << 8 |
	         args[3];
	if (fh_len > NFS3_FHSIZE)
		return 0;
	return 4 + ((fh_len + 3) & ~3u) + 8 + 4 + 4 + 4;
}

/* --- COMMIT --- */

static void commit_fail(struct nfs3_ctx *cx, nfsstat3 stat)
{
	COMMIT3res res = { .status = stat };

	nfs3_wcc_now(cx, cx->dir, &res.COMMIT3res_u.resfail.file_wcc);
	NFS3_REPLY(cx, COMMIT3res, &res);
}

static void commit_done(struct nfs3_ctx *cx, int err)
{
	const struct pm_committed *done = &cx->io.done;
	COMMIT3res res = { .status = NFS3_OK };

	if (err) {
		commit_fail(cx, nfs3_errstat(err));
		return;
	}
	nfs3_wcc(cx->srv, &done->before, &done->attr, &res.COMMIT3res_u.resok.file_wcc);
	memcpy(res.COMMIT3res_u.resok.verf, done->verf, sizeof(done->verf));
	NFS3_REPLY(cx, COMMIT3res, &res);
}

static nfsstat3 commit_check(struct nfs3_ctx *cx, const COMMIT3args *args)
{
	struct pm_attr attr;
	nfsstat3 stat;

	stat = nfs3_handle(cx, &args->file, &attr);
	if (stat != NFS3_OK)
		return stat;
	cx->dir = attr.id;
	if (!cx->opts.rw)
		return NFS3ERR_ROFS;
	if (attr.type != PM_REG)
		return attr.type == PM_DIR ? NFS3ERR_ISDIR : NFS3ERR_INVAL;
	if (access_may(&cx->who, &attr, MAY_WRITE | MAY_OWNER))
		return NFS3ERR_ACCES;
	return args->offset > UINT64_MAX - args->count ? NFS3ERR_INVAL : NFS3_OK;
}

void nfs3_commit(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	COMMIT3args args = { 0 };
	nfsstat3 stat;
	int err;

	nfs3_preset_fh(&args.file, &fh);
	if (!xdr_COMMIT3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	stat = commit_check(cx, &args);
	if (stat != NFS3_OK) {
		commit_fail(cx, stat);
		return;
	}
	/* The whole file, whatever the range: more than asked for, never less. */
	err = pm_sync_file(cx->srv->store, cx->fh.id, &cx->io.done, nfs3_wait(cx, commit_done));
	if (err != -EINPROGRESS)
		commit_done(cx, err);
}

/* --- READLINK --- */

static void readlink_sent(void *arg, int err)
{
	(void)err;
	free(arg);
}

static nfsstat3 readlink_get(struct nfs3_ctx *cx, const nfs_fh3 *wire, struct pm_attr *attr,
                             char **path, size_t *len)
{
	nfsstat3 stat = nfs3_handle(cx, wire, attr);
	char *buf;
	int err;

	if (stat != NFS3_OK)
		return stat;
	cx->dir = attr->id;
	if (attr->type != PM_LNK)
		return NFS3ERR_INVAL;
	buf = malloc(PM_LINK_PATH);
	if (!buf)
		return NFS3ERR_JUKEBOX;
	err = pm_readlink(cx->srv->store, attr->id, buf, PM_LINK_PATH, len);
	if (!err && (*len > PM_LINK_PATH || *len > tp_reply_payload_room(cx->call)))
		err = -ENOBUFS; /* SERVERFAULT: half a path would lead somewhere else */
	if (err)
		free(buf);
	else
		*path = buf;
	return nfs3_errstat(err);
}

void nfs3_readlink(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);
	struct nfs3_fh_buf fh;
	READLINK3args args = { 0 };
	READLINK3head head = { 0 };
	struct pm_attr attr;
	struct iovec iov = { 0 };
	char *path = NULL;
	XDR *x;

	nfs3_preset_fh(&args.symlink, &fh);
	if (!xdr_READLINK3args(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	head.status = readlink_get(cx, &args.symlink, &attr, &path, &iov.iov_len);
	if (head.status != NFS3_OK) {
		nfs3_post_attr_now(cx, cx->dir, &head.symlink_attributes);
		NFS3_REPLY(cx, READLINK3head, &head);
		return;
	}
	iov.iov_base = path;
	nfs3_post_attr(cx->srv, &attr, &head.symlink_attributes);
	x = nfs3_reply_begin(call);
	if (x && xdr_READLINK3head(x, &head)) {
		tp_reply_end_payload(call, &iov, 1, (uint32_t)iov.iov_len, readlink_sent, path);
		return;
	}
	if (x)
		tp_reply_error(call, SYSTEM_ERR);
	free(path);
}
