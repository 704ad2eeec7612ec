/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount3.c - MOUNT version 3 (RFC 1813 appendix I): a path becomes the first handle
 *
 * The list of mounts that DUMP shows is what clients said; nothing depends on it. It is shared
 * between the workers under its own lock and holds at most MOUNTS_MAX entries: the oldest leaves
 * first, so that nobody fills memory with it. A client may take off the list only what it put
 * there, which its address tells.
 *
 * Paths are taken literally: no symbolic link is followed and ".." is refused, for an export that
 * holds a path by its text must hold the directory that the path leads to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mount3.h"
#include "server/nfs3.h"

#define MOUNTS_MAX 1024

struct mount {
	TAILQ_ENTRY(mount) link;
	char host[INET6_ADDRSTRLEN];
	size_t len;
	char path[]; /* len bytes */
};

struct mount_list {
	pthread_mutex_t lock;
	unsigned n;
	TAILQ_HEAD(mount_head, mount) mounts; /* oldest first */
};

struct mount_list *mount_list_new(void)
{
	struct mount_list *ml = calloc(1, sizeof(*ml));

	if (!ml)
		return NULL;
	pthread_mutex_init(&ml->lock, NULL);
	TAILQ_INIT(&ml->mounts);
	return ml;
}

static void list_drop(struct mount_list *ml, struct mount *m)
{
	TAILQ_REMOVE(&ml->mounts, m, link);
	ml->n--;
	free(m);
}

void mount_list_free(struct mount_list *ml)
{
	if (!ml)
		return;
	while (!TAILQ_EMPTY(&ml->mounts))
		list_drop(ml, TAILQ_FIRST(&ml->mounts));
	pthread_mutex_destroy(&ml->lock);
	free(ml);
}

/* Take off what @host mounted: @path, or all if NULL. Lock held. */
static void list_remove(struct mount_list *ml, const char *host, const char *path, size_t len)
{
	struct mount *m, *next;

	for (m = TAILQ_FIRST(&ml->mounts); m; m = next) {
		next = TAILQ_NEXT(m, link);
		if (strcmp(m->host, host) != 0)
			continue;
		if (!path || (m->len == len && memcmp(m->path, path, len) == 0))
			list_drop(ml, m);
	}
}

static void list_add(struct mount_list *ml, const char *host, const char *path, size_t len)
{
	struct mount *m = malloc(sizeof(*m) + len);

	if (!m)
		return; /* one line less in showmount's list */
	strcpy(m->host, host);
	m->len = len;
	memcpy(m->path, path, len);
	pthread_mutex_lock(&ml->lock);
	list_remove(ml, host, path, len);
	if (ml->n == MOUNTS_MAX)
		list_drop(ml, TAILQ_FIRST(&ml->mounts));
	TAILQ_INSERT_TAIL(&ml->mounts, m, link);
	ml->n++;
	pthread_mutex_unlock(&ml->lock);
}

static struct server *server_of(const struct tp_call *call)
{
	return ((struct worker *)call->worker)->srv;
}

static void peer_name(const struct sockaddr_storage *ss, char out[INET6_ADDRSTRLEN])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)ss;

	strcpy(out, "localhost");
	if (ss->ss_family == AF_INET)
		inet_ntop(AF_INET, &v4->sin_addr, out, INET6_ADDRSTRLEN);
	else if (ss->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], out, INET6_ADDRSTRLEN);
	else if (ss->ss_family == AF_INET6)
		inet_ntop(AF_INET6, &v6->sin6_addr, out, INET6_ADDRSTRLEN);
}

/* --- paths --- */

int mount3_walk(struct pm_store *st, const char *path, size_t len, struct pm_attr *out)
{
	struct pm_attr at;
	size_t i = 0;
	int err;

	err = pm_getattr(st, (struct pm_id){ PM_ROOT_INO, 1 }, &at);
	while (!err) {
		size_t from;

		while (i < len && path[i] == '/')
			i++;
		if (i == len)
			break;
		from = i;
		while (i < len && path[i] != '/')
			i++;
		if (i - from == 2 && path[from] == '.' && path[from + 1] == '.')
			return -EACCES;
		if (at.type != PM_DIR)
			return -ENOTDIR;
		err = pm_lookup(st, at.id, path + from, i - from, &at);
	}
	if (!err)
		*out = at;
	return err;
}

/* The path without doubled and trailing slashes, and without "." components; NUL-terminated. */
static int path_clean(const mntpath3 *in, char out[MNTPATHLEN + 2])
{
	const char *p = in->mntpath3_val;
	size_t len = in->mntpath3_len, n = 0, i = 0;

	if (len == 0 || p[0] != '/' || memchr(p, 0, len))
		return -EINVAL;
	while (i < len) {
		size_t from;

		while (i < len && p[i] == '/')
			i++;
		from = i;
		while (i < len && p[i] != '/')
			i++;
		if (i == from || (i - from == 1 && p[from] == '.'))
			continue;
		if (i - from == 2 && p[from] == '.' && p[from + 1] == '.')
			return -EACCES;
		if (i - from > PM_NAME_MAX)
			return -ENAMETOOLONG;
		out[n++] = '/';
		memcpy(out + n, p + from, i - from);
		n += i - from;
	}
	if (n == 0)
		out[n++] = '/';
	out[n] = 0;
	return 0;
}

static mountstat3 mount_stat(int err)
{
	switch (err) {
	case 0:
		return MNT3_OK;
	case -EPERM:
		return MNT3ERR_PERM;
	case -ENOENT:
	case -ESTALE:
		return MNT3ERR_NOENT;
	case -EACCES:
		return MNT3ERR_ACCES;
	case -ENOTDIR:
		return MNT3ERR_NOTDIR;
	case -EINVAL:
		return MNT3ERR_INVAL;
	case -ENAMETOOLONG:
		return MNT3ERR_NAMETOOLONG;
	case -EIO:
	case -EUCLEAN:
		return MNT3ERR_IO;
	default:
		return MNT3ERR_SERVERFAULT;
	}
}

/* --- procedures --- */

static void reply_void(struct tp_call *call)
{
	if (nfs3_reply_begin(call))
		tp_reply_end(call);
}

static int mnt_try(struct tp_call *call, const char *path, const struct sockaddr_storage *peer,
                   struct fh *fh)
{
	struct worker *w = call->worker;
	struct export_opts opts;
	const char *export;
	struct pm_attr dir;
	int err;

	err = exports_find(w->exports, path, peer, &fh->export_key, &export, &opts);
	if (err)
		return err;
	if (!access_port_ok(&opts, call->kind, peer))
		return -EACCES;
	err = mount3_walk(w->srv->store, path, strlen(path), &dir);
	if (err)
		return err;
	fh->id = dir.id;
	return dir.type == PM_DIR ? 0 : -ENOTDIR;
}

static void mnt(struct tp_call *call)
{
	struct server *srv = server_of(call);
	int flavor = AUTH_SYS;
	char wire[MNTPATHLEN], path[MNTPATHLEN + 2], host[INET6_ADDRSTRLEN];
	mntpath3 args = { .mntpath3_val = wire };
	mountres3 res = { 0 };
	mountres3_ok *ok = &res.mountres3_u.mountinfo;
	const struct sockaddr_storage *peer = tp_call_peer(call);
	uint8_t handle[FH_SIZE];
	struct fh fh;
	XDR *x;
	int err;

	if (!xdr_mntpath3(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	err = path_clean(&args, path);
	if (!err)
		err = mnt_try(call, path, peer, &fh);
	res.status = mount_stat(err);
	if (!err) {
		fh_make(call->worker, &fh, handle);
		ok->fhandle = (fhandle3){ FH_SIZE, (char *)handle };
		ok->auth_flavors.auth_flavors_len = 1;
		ok->auth_flavors.auth_flavors_val = &flavor;
		peer_name(peer, host);
		list_add(srv->mounts, host, path, strlen(path));
	}
	x = nfs3_reply_begin(call);
	if (x)
		nfs3_reply_end(call, xdr_mountres3(x, &res));
}

static void umnt(struct tp_call *call)
{
	struct mount_list *ml = server_of(call)->mounts;
	char wire[MNTPATHLEN], path[MNTPATHLEN + 2], host[INET6_ADDRSTRLEN];
	mntpath3 args = { .mntpath3_val = wire };

	if (!xdr_mntpath3(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	peer_name(tp_call_peer(call), host);
	if (path_clean(&args, path) == 0) {
		pthread_mutex_lock(&ml->lock);
		list_remove(ml, host, path, strlen(path));
		pthread_mutex_unlock(&ml->lock);
	}
	reply_void(call);
}

static void umntall(struct tp_call *call)
{
	struct mount_list *ml = server_of(call)->mounts;
	char host[INET6_ADDRSTRLEN];

	peer_name(tp_call_peer(call), host);
	pthread_mutex_lock(&ml->lock);
	list_remove(ml, host, NULL, 0);
	pthread_mutex_unlock(&ml->lock);
	reply_void(call);
}

static size_t opaque_wire(size_t len)
{
	return 4 + ((len + 3) & ~(size_t)3);
}

/* Lists end where the reply is full: what is left out of so long a list, nobody reads. */
static bool encode_mounts(struct mount_list *ml, XDR *x, size_t left)
{
	bool_t more = TRUE, end = FALSE;
	struct mount *m;

	TAILQ_FOREACH (m, &ml->mounts, link) {
		mountentry3 e = { { (u_int)strlen(m->host), m->host }, { (u_int)m->len, m->path } };
		size_t wire = 4 + opaque_wire(strlen(m->host)) + opaque_wire(m->len);

		if (wire + 4 > left)
			break;
		left -= wire;
		if (!xdr_bool(x, &more) || !xdr_mountentry3(x, &e))
			return false;
	}
	return xdr_bool(x, &end);
}

static void dump(struct tp_call *call)
{
	struct mount_list *ml = server_of(call)->mounts;
	size_t need = 4, room = tp_reply_room(call);
	struct mount *m;
	bool ok = false;
	XDR *x;

	pthread_mutex_lock(&ml->lock);
	TAILQ_FOREACH (m, &ml->mounts, link)
		need += 4 + opaque_wire(strlen(m->host)) + opaque_wire(m->len);
	if (need > room)
		need = room;
	x = tp_reply_begin(call, need);
	if (x)
		ok = encode_mounts(ml, x, need);
	pthread_mutex_unlock(&ml->lock);
	if (x)
		nfs3_reply_end(call, ok);
}

static size_t export_wire(const char *path, const char *const *specs, unsigned n)
{
	size_t wire = 4 + opaque_wire(strnlen(path, MNTPATHLEN)) + 4;

	for (unsigned i = 0; i < n; i++)
		wire += 4 + opaque_wire(strnlen(specs[i], MNTNAMLEN));
	return wire;
}

static bool encode_export(XDR *x, const char *path, const char *const *specs, unsigned n)
{
	mntpath3 dir = { (u_int)strnlen(path, MNTPATHLEN), (char *)(uintptr_t)path };
	bool_t more = TRUE, end = FALSE;

	if (!xdr_bool(x, &more) || !xdr_mntpath3(x, &dir))
		return false;
	for (unsigned i = 0; i < n; i++) {
		exportgroup3 g = { { (u_int)strnlen(specs[i], MNTNAMLEN),
			             (char *)(uintptr_t)specs[i] } };

		if (!xdr_bool(x, &more) || !xdr_exportgroup3(x, &g))
			return false;
	}
	return xdr_bool(x, &end);
}

static void export(struct tp_call *call)
{
	const struct exports *ex = ((struct worker *)call->worker)->exports;
	size_t need = 4, left, room = tp_reply_room(call);
	const char *const *specs;
	const char *path;
	bool_t end = FALSE;
	bool ok = true;
	unsigned n;
	XDR *x;

	for (unsigned i = 0; exports_entry(ex, i, &path, &specs, &n); i++)
		need += export_wire(path, specs, n);
	if (need > room)
		need = room;
	x = tp_reply_begin(call, need);
	if (!x)
		return;
	left = need;
	for (unsigned i = 0; ok && exports_entry(ex, i, &path, &specs, &n); i++) {
		size_t wire = export_wire(path, specs, n);

		if (wire + 4 > left)
			break;
		left -= wire;
		ok = encode_export(x, path, specs, n);
	}
	nfs3_reply_end(call, ok && xdr_bool(x, &end));
}

static const struct tp_proc procs[] = {
	[MOUNTPROC3_NULL] = { "NULL", reply_void, NULL },
	[MOUNTPROC3_MNT] = { "MNT", mnt, NULL },
	[MOUNTPROC3_DUMP] = { "DUMP", dump, NULL },
	[MOUNTPROC3_UMNT] = { "UMNT", umnt, NULL },
	[MOUNTPROC3_UMNTALL] = { "UMNTALL", umntall, NULL },
	[MOUNTPROC3_EXPORT] = { "EXPORT", export, NULL },
};

const struct tp_program mount3_program = {
	.prog = MOUNT3_PROGRAM,
	.vers = MOUNT3_VERSION,
	.procs = procs,
	.nprocs = sizeof(procs) / sizeof(procs[0]),
	.auth_none_ok =
		true, /* RFC 2623: a client mounts before it knows what to say of its users */
};
