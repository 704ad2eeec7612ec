/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount.c - from a URL's path to the root of an export
 *
 * A URL does not say where the export ends and the path in it begins. The server's list of exports
 * does: the longest one that holds the path is mounted (MOUNT version 3, on the same connection as
 * NFS).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "proto/mount3.h"

#define EXPORTS_MAX (64u << 10) /* bytes of an EXPORT answer */

struct search {
	const char *path;
	char best[MNTPATHLEN + 1];
	char seen[256];         /* for the message: "/a, /b" */
	size_t best_len, below; /* longer ones turned out not to exist */
	bool found;
};

const char *path_behind(const char *path, const char *dir)
{
	for (;;) {
		path += strspn(path, "/");
		dir += strspn(dir, "/");
		if (!*dir)
			return path;
		size_t n = strcspn(dir, "/");

		if (strncmp(path, dir, n) || (path[n] && path[n] != '/'))
			return NULL;
		path += n;
		dir += n;
	}
}

static void consider(struct search *s, const mntpath3 *dir)
{
	char text[MNTPATHLEN + 1];
	size_t at = strlen(s->seen);

	if (memchr(dir->mntpath3_val, '\0', dir->mntpath3_len))
		return;
	memcpy(text, dir->mntpath3_val, dir->mntpath3_len);
	text[dir->mntpath3_len] = '\0';
	snprintf(s->seen + at, sizeof(s->seen) - at, "%s%s", at ? ", " : "", text);
	if (!path_behind(s->path, text) || (s->found && dir->mntpath3_len < s->best_len) ||
	    dir->mntpath3_len >= s->below)
		return;
	s->found = true;
	s->best_len = dir->mntpath3_len;
	memcpy(s->best, text, dir->mntpath3_len + 1);
}

static int skip_groups(XDR *x)
{
	bool_t more;

	while (xdr_bool(x, &more)) {
		exportgroup3 g = { { 0 } };
		bool ok;

		if (!more)
			return 0;
		ok = xdr_exportgroup3(x, &g);
		xdr_free((xdrproc_t)xdr_exportgroup3, &g);
		if (!ok)
			break;
	}
	return -EPROTO;
}

static int decode_export(struct op *op, XDR *x)
{
	struct search *s = op->extra;
	bool_t more;

	while (xdr_bool(x, &more)) {
		mntpath3 dir = { 0 };
		bool ok;

		if (!more)
			return 0;
		ok = xdr_mntpath3(x, &dir);
		if (ok)
			consider(s, &dir);
		xdr_free((xdrproc_t)xdr_mntpath3, &dir);
		if (!ok || skip_groups(x))
			break;
	}
	return -EPROTO;
}

static int decode_mnt(struct op *op, XDR *x)
{
	struct mountres3 res;
	int err = -EPROTO;

	memset(&res, 0, sizeof(res));
	if (xdr_mountres3(x, &res)) {
		fhandle3 *fh = &res.mountres3_u.mountinfo.fhandle;

		err = nfs_errno((unsigned)res.status);
		if (!err && fh->fhandle3_len <= BERTH_FH_MAX) {
			op->reply.has_fh = true;
			op->reply.fh.len = fh->fhandle3_len;
			memcpy(op->reply.fh.data, fh->fhandle3_val, fh->fhandle3_len);
		}
	}
	xdr_free((xdrproc_t)xdr_mountres3, &res);
	return err;
}

static int list_exports(struct berth *b, struct search *s)
{
	struct waiting w = { 0 };
	struct op *op = op_new(b, MOUNT3_PROGRAM, MOUNTPROC3_EXPORT, NULL, NULL, decode_export,
	                       sync_done, &w);

	if (!op)
		return -ENOMEM;
	op->extra = s; /* not the operation's to free */
	op->max_results = EXPORTS_MAX;
	op_start(op);
	return sync_wait(b, &w, 0);
}

static int mnt(struct berth *b, const char *dir, struct berth_fh *root)
{
	mntpath3 args = { .mntpath3_len = (u_int)strlen(dir), .mntpath3_val = (char *)dir };
	struct waiting w = { 0 };
	struct op *op = op_new(b, MOUNT3_PROGRAM, MOUNTPROC3_MNT, (xdrproc_t)xdr_mntpath3, &args,
	                       decode_mnt, sync_done, &w);
	int err;

	if (!op)
		return -ENOMEM;
	op_start(op);
	err = sync_wait(b, &w, 0);
	if (!err && !w.reply.has_fh)
		err = -EPROTO;
	if (!err)
		*root = w.reply.fh;
	return err;
}

/* How much one READ, WRITE, READDIR may carry; sane bounds on what the server says. */
static int ask_limits(struct berth *b)
{
	struct waiting w = { 0 };
	int err = sync_wait(b, &w, berth_start_fsinfo(b, &b->root, sync_done, &w));

	if (err)
		return err;
	if (w.reply.info.rtmax < 512 || w.reply.info.wtmax < 512)
		return -EPROTO;
	b->rtmax = w.reply.info.rtmax < 1 << 20 ? w.reply.info.rtmax : 1 << 20;
	b->wtmax = w.reply.info.wtmax < 1 << 20 ? w.reply.info.wtmax : 1 << 20;
	b->dtpref = w.reply.info.dtpref < 8192      ? 8192
	            : w.reply.info.dtpref > 1 << 18 ? 1 << 18
	                                            : w.reply.info.dtpref;
	return 0;
}

int mount_export(struct berth *b, struct berth_error *why)
{
	struct search s = { .path = b->url->path, .below = SIZE_MAX };
	const char *what = "list the exports";
	int err;

again:
	err = list_exports(b, &s);

	if (!err && !s.found) {
		snprintf(why->text, sizeof(why->text),
		         "no export of the server holds %s; it exports %s", b->url->path,
		         s.seen[0] ? s.seen : "nothing");
		if (s.below != SIZE_MAX)
			snprintf(why->text, sizeof(why->text),
			         "the server exports the directory of %s, but it does not exist",
			         b->url->path);
		return -ENOENT;
	}
	if (!err) {
		what = "mount";
		err = mnt(b, s.best, &b->root);
		if (err == -ENOENT && *path_behind(s.best, "/")) { /* one above may still hold it */
			s = (struct search){ .path = b->url->path, .below = s.best_len };
			goto again;
		}
	}
	if (!err) {
		what = "ask for the limits of";
		err = ask_limits(b);
	}
	if (err) {
		snprintf(why->text, sizeof(why->text), "cannot %s %.300s: %s%s", what,
		         s.found ? s.best : "of the server", strerror(-err),
		         err == -EACCES ? " (see the server's exports file: is this client in it?)"
		                        : "");
		return err;
	}
	b->export_path = strdup(s.best);
	b->path = strdup(path_behind(b->url->path, s.best));
	return b->export_path && b->path ? 0 : -ENOMEM;
}
