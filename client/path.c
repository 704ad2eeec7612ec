/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * path.c - synchronous operations on names
 *
 * NFS knows one name in one directory at a time; walk() makes a path of it. The way walked is kept
 * as a stack of handles, so that ".." goes back where we came from and never above the start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/client.h"

#define DEPTH_MAX 256
#define LINKS_MAX 40

struct walk {
	struct berth *b;
	struct berth_fh stack[DEPTH_MAX]; /* stack[0]: the start */
	unsigned top;
	char todo[2 * BERTH_PATH_MAX]; /* of the path, not walked yet */
	char last[256];                /* with want_parent: the last component */
	unsigned links;
	struct berth_attr attr; /* of the top */
	bool has_attr;
};

static const struct berth_fh *start_of(const struct berth *b, const struct berth_fh *at)
{
	return at ? at : &b->root;
}

static int get_attr(struct berth *b, const struct berth_fh *fh, struct berth_attr *attr)
{
	struct waiting w = { 0 };
	int err = sync_wait(b, &w, berth_start_getattr(b, fh, sync_done, &w));

	if (!err)
		*attr = w.reply.attr;
	return err;
}

static int read_target(struct berth *b, const struct berth_fh *fh, char *buf, size_t size)
{
	struct waiting w = { 0 };
	int err = sync_wait(b, &w, berth_start_readlink(b, fh, buf, size - 1, sync_done, &w));

	if (err)
		return err;
	if (!w.reply.count || memchr(buf, '\0', w.reply.count))
		return -EPROTO;
	buf[w.reply.count] = '\0';
	return (int)w.reply.count;
}

/* The symbolic link @fh stands before the rest of the path: put its target there. */
static int splice_link(struct walk *w, const struct berth_fh *fh)
{
	char target[BERTH_PATH_MAX + 1];
	const char *rest = target;
	size_t len, todo = strlen(w->todo);
	int n;

	if (++w->links > LINKS_MAX)
		return -ELOOP;
	n = read_target(w->b, fh, target, sizeof(target));
	if (n < 0)
		return n;
	if (*target == '/') { /* as URLs see it */
		rest = path_behind(target, w->b->export_path);
		if (!rest)
			return -EXDEV;
		w->top = 0;
		w->stack[0] = w->b->root;
		w->has_attr = false;
	}
	len = strlen(rest);
	if (len + 1 + todo >= sizeof(w->todo))
		return -ENAMETOOLONG;
	memmove(w->todo + len + 1, w->todo, todo + 1);
	memcpy(w->todo, rest, len);
	w->todo[len] = '/';
	if (!todo)
		w->todo[len] = '\0';
	return 0;
}

static int step(struct walk *w, const char *name, bool last, bool follow)
{
	struct waiting wait = { 0 };
	struct berth_attr attr;
	int err;

	if (!strcmp(name, "."))
		return 0;
	if (!strcmp(name, "..")) {
		w->top -= w->top > 0;
		w->has_attr = false;
		return 0;
	}
	err = sync_wait(w->b, &wait,
	                berth_start_lookup(w->b, &w->stack[w->top], name, sync_done, &wait));
	if (err)
		return err;
	attr = wait.reply.attr;
	if (!wait.reply.has_attr)
		err = get_attr(w->b, &wait.reply.fh, &attr);
	if (err)
		return err;
	if (attr.type == BERTH_LNK && (!last || follow))
		return splice_link(w, &wait.reply.fh);
	if (w->top + 1 == DEPTH_MAX)
		return -ENAMETOOLONG;
	w->stack[++w->top] = wait.reply.fh;
	w->attr = attr;
	w->has_attr = true;
	return 0;
}

/* Cut the first component off todo. False: nothing but slashes was left. *last: nothing but slashes
 * follows. */
static bool next_name(struct walk *w, char name[256], bool *last, int *err)
{
	const char *p = w->todo + strspn(w->todo, "/"), *rest;
	size_t n = strcspn(p, "/");

	if (!n)
		return false;
	if (n > 255) {
		*err = -ENAMETOOLONG;
		return false;
	}
	memcpy(name, p, n);
	name[n] = '\0';
	rest = p + n;
	*last = !rest[strspn(rest, "/")];
	if (*last && *rest && strcmp(name, ".") && strcmp(name, ".."))
		rest = "/."; /* "link/" means the directory behind it */
	memmove(w->todo, rest, strlen(rest) + 1);
	if (!strcmp(w->todo, "/."))
		*last = false;
	return true;
}

/* Walk @path; with @parent stop before the last component and leave it in w->last. */
static int walk(struct walk *w, struct berth *b, const struct berth_fh *at, const char *path,
                bool follow, bool parent)
{
	char name[256];
	bool last;
	int err = 0;

	if (strlen(path) >= BERTH_PATH_MAX)
		return -ENAMETOOLONG;
	w->b = b;
	w->stack[0] = *start_of(b, at);
	w->top = w->links = 0;
	w->has_attr = false;
	w->last[0] = '\0';
	strcpy(w->todo, path);
	if (parent) { /* "dir/" names dir */
		size_t n = strlen(w->todo);

		while (n && w->todo[n - 1] == '/')
			w->todo[--n] = '\0';
	}
	while (!err && next_name(w, name, &last, &err)) {
		if (parent && last) {
			if (!strcmp(name, ".") || !strcmp(name, ".."))
				return -EINVAL;
			strcpy(w->last, name);
			return 0;
		}
		err = step(w, name, last, follow);
	}
	if (!err && parent)
		err = -EEXIST; /* the root itself */
	return err;
}

/* Work on the directory and last name of @path; struct walk is large, so it is on the heap. */
static int walk_parent(struct berth *b, const struct berth_fh *at, const char *path,
                       struct berth_fh *dir, char name[256])
{
	struct walk *w = malloc(sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	err = walk(w, b, at, path, false, true);
	if (!err) {
		*dir = w->stack[w->top];
		strcpy(name, w->last);
	}
	free(w);
	return err;
}

/* --- looking --- */

void berth_root(const struct berth *b, struct berth_fh *out)
{
	*out = b->root;
}

int berth_lookup(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                 struct berth_fh *fh, struct berth_attr *attr)
{
	struct walk *w = malloc(sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	err = walk(w, b, at, path, !(flags & BERTH_NOFOLLOW), false);
	if (!err && attr && !w->has_attr)
		err = get_attr(b, &w->stack[w->top], &w->attr);
	if (!err && fh)
		*fh = w->stack[w->top];
	if (!err && attr)
		*attr = w->attr;
	free(w);
	return err;
}

int berth_stat(struct berth *b, const struct berth_fh *at, const char *path, int flags,
               struct berth_attr *attr)
{
	return berth_lookup(b, at, path, flags, NULL, attr);
}

ssize_t berth_readlink(struct berth *b, const struct berth_fh *at, const char *path, char *buf,
                       size_t size)
{
	char target[BERTH_PATH_MAX + 1];
	struct berth_attr attr;
	struct berth_fh fh;
	int n, err = berth_lookup(b, at, path, BERTH_NOFOLLOW, &fh, &attr);

	if (err)
		return err;
	if (attr.type != BERTH_LNK)
		return -EINVAL;
	n = read_target(b, &fh, target, sizeof(target));
	if (n < 0)
		return n;
	if ((size_t)n >= size)
		return -ENAMETOOLONG;
	memcpy(buf, target, (size_t)n + 1);
	return n;
}

int berth_access(struct berth *b, const struct berth_fh *at, const char *path, uint32_t access,
                 uint32_t *granted)
{
	struct waiting w = { 0 };
	struct berth_fh fh;
	int err = berth_lookup(b, at, path, 0, &fh, NULL);

	if (!err)
		err = sync_wait(b, &w, berth_start_access(b, &fh, access, sync_done, &w));
	if (!err)
		*granted = w.reply.access;
	return err;
}

int berth_statfs(struct berth *b, const struct berth_fh *at, const char *path,
                 struct berth_statfs *out)
{
	struct waiting w = { 0 };
	struct berth_fh fh;
	int err = berth_lookup(b, at, path, 0, &fh, NULL);

	if (!err)
		err = sync_wait(b, &w, berth_start_fsstat(b, &fh, sync_done, &w));
	if (!err)
		*out = w.reply.fs;
	return err;
}

int berth_ping(struct berth *b, uint64_t *nsec)
{
	struct waiting w = { 0 };
	struct timespec from, to;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &from);
	err = sync_wait(b, &w, berth_start_null(b, sync_done, &w));
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (!err && nsec)
		*nsec = (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec -
		                   from.tv_nsec);
	return err;
}

/* One answer's worth of entries; copied out of the callback by visiting right there. */
struct visit {
	int (*fn)(void *arg, const struct berth_dirent *e);
	void *arg;
	bool answered, eof;
	int err, stop;
	unsigned n;
	uint64_t cookie;
	uint8_t verf[8];
};

static void visit_entries(void *arg, int err, const struct berth_reply *r)
{
	struct visit *v = arg;

	v->answered = true;
	v->err = err;
	if (err)
		return;
	memcpy(v->verf, r->verf, sizeof(v->verf));
	v->eof = r->eof;
	v->n = r->nentries;
	for (unsigned i = 0; i < r->nentries && !v->stop; i++) {
		const struct berth_dirent *e = &r->entry[i];

		v->cookie = e->cookie;
		if (strcmp(e->name, ".") && strcmp(e->name, ".."))
			v->stop = v->fn(v->arg, e);
	}
}

int berth_readdir(struct berth *b, const struct berth_fh *dir, bool plus,
                  int (*fn)(void *arg, const struct berth_dirent *e), void *arg)
{
	struct visit v = { .fn = fn, .arg = arg };

	while (!v.eof && !v.stop) {
		int err;

		v.answered = false;
		err = berth_start_readdir(b, dir, v.cookie, v.verf, plus, b->dtpref, visit_entries,
		                          &v);
		while (!err && !v.answered) {
			int n = berth_wait(b, -1);

			err = n < 0 ? n : 0;
		}
		if (err || v.err)
			return err ? err : v.err;
		if (!v.n && !v.eof)
			return -EPROTO; /* would go round for ever */
	}
	return v.stop;
}

/* --- changing --- */

int berth_setattr(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                  const struct berth_set *set)
{
	struct waiting w = { 0 };
	struct berth_fh fh;
	int err = berth_lookup(b, at, path, flags, &fh, NULL);

	return err ? err : sync_wait(b, &w, berth_start_setattr(b, &fh, set, sync_done, &w));
}

int berth_truncate(struct berth *b, const struct berth_fh *at, const char *path, uint64_t size)
{
	struct berth_set set = { .set = BERTH_SET_SIZE, .size = size };

	return berth_setattr(b, at, path, 0, &set);
}

/* What CREATE and its kin answered: the handle is optional there. */
static int made(struct berth *b, const struct waiting *w, const struct berth_fh *dir,
                const char *name, struct berth_fh *fh)
{
	struct waiting l = { 0 };
	int err;

	if (!fh)
		return 0;
	if (w->reply.has_fh) {
		*fh = w->reply.fh;
		return 0;
	}
	err = sync_wait(b, &l, berth_start_lookup(b, dir, name, sync_done, &l));
	if (!err)
		*fh = l.reply.fh;
	return err;
}

int berth_mkdir(struct berth *b, const struct berth_fh *at, const char *path, uint32_t mode,
                struct berth_fh *fh)
{
	struct berth_set set = { .set = BERTH_SET_MODE, .mode = mode };
	struct waiting w = { 0 };
	struct berth_fh dir;
	char name[256];
	int err = walk_parent(b, at, path, &dir, name);

	if (!err)
		err = sync_wait(b, &w, berth_start_mkdir(b, &dir, name, &set, sync_done, &w));
	return err ? err : made(b, &w, &dir, name, fh);
}

int berth_symlink(struct berth *b, const struct berth_fh *at, const char *path, const char *target,
                  struct berth_fh *fh)
{
	struct berth_set set = { .set = BERTH_SET_MODE, .mode = 0777 };
	struct waiting w = { 0 };
	struct berth_fh dir;
	char name[256];
	int err = walk_parent(b, at, path, &dir, name);

	if (!err)
		err = sync_wait(b, &w,
		                berth_start_symlink(b, &dir, name, target, &set, sync_done, &w));
	return err ? err : made(b, &w, &dir, name, fh);
}

int berth_mknod(struct berth *b, const struct berth_fh *at, const char *path, enum berth_type type,
                uint32_t mode, uint32_t major, uint32_t minor, struct berth_fh *fh)
{
	struct berth_set set = { .set = BERTH_SET_MODE, .mode = mode };
	struct waiting w = { 0 };
	struct berth_fh dir;
	char name[256];
	int err = walk_parent(b, at, path, &dir, name);

	if (!err)
		err = sync_wait(
			b, &w,
			berth_start_mknod(b, &dir, name, type, major, minor, &set, sync_done, &w));
	return err ? err : made(b, &w, &dir, name, fh);
}

int berth_link(struct berth *b, const struct berth_fh *obj, const struct berth_fh *at,
               const char *path)
{
	struct waiting w = { 0 };
	struct berth_fh dir;
	char name[256];
	int err = walk_parent(b, at, path, &dir, name);

	return err ? err : sync_wait(b, &w, berth_start_link(b, obj, &dir, name, sync_done, &w));
}

int berth_unlink(struct berth *b, const struct berth_fh *at, const char *path)
{
	struct waiting w = { 0 };
	struct berth_fh dir;
	char name[256];
	int err = walk_parent(b, at, path, &dir, name);

	return err ? err : sync_wait(b, &w, berth_start_remove(b, &dir, name, sync_done, &w));
}

int berth_rmdir(struct berth *b, const struct berth_fh *at, const char *path)
{
	struct waiting w = { 0 };
	struct berth_fh dir;
	char name[256];
	int err = walk_parent(b, at, path, &dir, name);

	return err ? err : sync_wait(b, &w, berth_start_rmdir(b, &dir, name, sync_done, &w));
}

int berth_rename(struct berth *b, const struct berth_fh *at, const char *path,
                 const struct berth_fh *to_at, const char *to)
{
	struct berth_fh from_dir, to_dir;
	char from_name[256], to_name[256];
	struct waiting w = { 0 };
	int err = walk_parent(b, at, path, &from_dir, from_name);

	if (!err)
		err = walk_parent(b, to_at, to, &to_dir, to_name);
	return err ? err
	           : sync_wait(b, &w,
	                       berth_start_rename(b, &from_dir, from_name, &to_dir, to_name,
	                                          sync_done, &w));
}

/* --- open --- */

/* O_EXCL: a verifier of ours makes the create safe to repeat; attributes follow in a second call,
 * because the server keeps the verifier in their place (RFC 1813, 3.3.8). */
static int create_exclusive(struct berth *b, const struct berth_fh *dir, const char *name,
                            uint32_t mode, struct berth_fh *fh)
{
	struct timespec now = { .tv_nsec = UTIME_NOW };
	struct berth_set set = { .set = BERTH_SET_MODE | BERTH_SET_ATIME | BERTH_SET_MTIME,
		                 .mode = mode,
		                 .atime = now,
		                 .mtime = now };
	struct waiting w = { 0 }, s = { 0 };
	uint64_t verf[1];
	int err;

	if (getentropy(verf, sizeof(verf)))
		return -errno;
	err = sync_wait(b, &w,
	                berth_start_create(b, dir, name, BERTH_EXCLUSIVE, NULL,
	                                   (const uint8_t *)verf, sync_done, &w));
	if (!err)
		err = made(b, &w, dir, name, fh);
	return err ? err : sync_wait(b, &s, berth_start_setattr(b, fh, &set, sync_done, &s));
}

static int create_plain(struct berth *b, const struct berth_fh *dir, const char *name,
                        uint32_t mode, struct berth_fh *fh, struct berth_attr *attr)
{
	struct berth_set set = { .set = BERTH_SET_MODE, .mode = mode };
	struct waiting w = { 0 };
	int err = sync_wait(
		b, &w, berth_start_create(b, dir, name, BERTH_GUARDED, &set, NULL, sync_done, &w));

	if (!err)
		err = made(b, &w, dir, name, fh);
	if (!err && w.reply.has_attr)
		*attr = w.reply.attr;
	else if (!err)
		err = get_attr(b, fh, attr);
	return err;
}

/* Find or make what O_CREAT names. An existing file keeps its mode, so it is looked for first;
 * somebody else may make it in between: then look again. */
static int find_or_create(struct berth *b, const struct berth_fh *at, const char *path, int flags,
                          uint32_t mode, struct berth_fh *fh, struct berth_attr *attr)
{
	int lookup = flags & O_NOFOLLOW ? BERTH_NOFOLLOW : 0;
	struct berth_fh dir;
	char name[256];
	int err;

	for (int i = 0; i < 4; i++) {
		err = berth_lookup(b, at, path, lookup, fh, attr);
		if (err != -ENOENT)
			return err;
		err = walk_parent(b, at, path, &dir, name);
		if (!err)
			err = create_plain(b, &dir, name, mode, fh, attr);
		if (err != -EEXIST)
			return err;
	}
	return -ENOENT; /* a link to nowhere */
}

int berth_open(struct berth *b, const struct berth_fh *at, const char *path, int flags,
               uint32_t mode, struct berth_file **out)
{
	struct berth_set cut = { .set = BERTH_SET_SIZE };
	struct berth_attr attr = { .type = BERTH_REG };
	struct berth_fh fh, dir;
	char name[256];
	int err;

	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
		err = walk_parent(b, at, path, &dir, name);
		if (!err)
			err = create_exclusive(b, &dir, name, mode, &fh);
	} else if (flags & O_CREAT) {
		err = find_or_create(b, at, path, flags, mode, &fh, &attr);
	} else {
		err = berth_lookup(b, at, path, flags & O_NOFOLLOW ? BERTH_NOFOLLOW : 0, &fh,
		                   &attr);
	}
	if (err)
		return err;
	if (attr.type != BERTH_REG)
		return attr.type == BERTH_DIR ? -EISDIR : attr.type == BERTH_LNK ? -ELOOP : -EINVAL;
	if ((flags & O_TRUNC) && attr.size) {
		struct waiting w = { 0 };

		err = sync_wait(b, &w, berth_start_setattr(b, &fh, &cut, sync_done, &w));
		if (err)
			return err;
	}
	return berth_open_fh(b, &fh, out);
}
