/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cp_object.c - berth cp: one object copied, with its bytes, its attributes, and what is said when that fails
 *
 * Runs on a worker, with sessions of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client/cmd/cp.h"

char *cp_shown(const struct place *p, const char *dir, const char *name)
{
	char *path = *name ? join(dir, name) : strdup(dir), *out = NULL;
	size_t base = strlen(p->path), n = p->b ? strcspn(p->text, "?") : strlen(p->text);
	const char *rest = path && !strncmp(path, p->path, base) ? path + base : NULL;

	rest += rest && *rest == '/';
	while (n && rest && *rest && p->text[n - 1] == '/')
		n--;
	if (rest && asprintf(&out, "%.*s%s%s", (int)n, p->text, *rest ? "/" : "", rest) < 0)
		out = NULL;
	if (rest || !path)
		free(path);
	else
		out = path;
	return out;
}

void cp_failed(struct cp *cp, int err)
{
	cp->failed = true;
	cp->errors++;
	if (err == -ETIMEDOUT)
		cp->dead = true;
}

void cp_failure(struct cp *cp, int err, const char *what, const struct place *p, const char *dir, const char *name)
{
	char *path = cp_shown(p, dir, name);

	if (!cp->dead)
		complain_errno(err, what, path ? path : name);
	cp_failed(cp, err);
	free(path);
}

static void copy_failure(struct cp *cp, int err, const struct job *j)
{
	char *from = cp_shown(j->dir->from, j->dir->src, j->sname), *to = cp_shown(&cp->dst, j->dir->dst, j->dname);

	if (!cp->dead)
		complain("cannot copy %s to %s: %s", from ? from : j->sname, to ? to : j->dname, strerror(-err));
	cp_failed(cp, err);
	free(from);
	free(to);
}

void cp_from_stat(const struct stat *st, struct berth_attr *a)
{
	*a = (struct berth_attr){ .type = S_ISREG(st->st_mode)    ? BERTH_REG
		                          : S_ISDIR(st->st_mode)  ? BERTH_DIR
		                          : S_ISLNK(st->st_mode)  ? BERTH_LNK
		                          : S_ISBLK(st->st_mode)  ? BERTH_BLK
		                          : S_ISCHR(st->st_mode)  ? BERTH_CHR
		                          : S_ISFIFO(st->st_mode) ? BERTH_FIFO
		                                                  : BERTH_SOCK,
		                  .mode = st->st_mode & 07777,
		                  .nlink = (uint32_t)st->st_nlink,
		                  .uid = st->st_uid,
		                  .gid = st->st_gid,
		                  .rdev_major = major(st->st_rdev),
		                  .rdev_minor = minor(st->st_rdev),
		                  .size = (uint64_t)st->st_size,
		                  .used = (uint64_t)st->st_blocks * 512,
		                  .fsid = st->st_dev,
		                  .fileid = st->st_ino,
		                  .atime = st->st_atim,
		                  .mtime = st->st_mtim,
		                  .ctime = st->st_ctim };
}

bool cp_same_fh(const struct berth_fh *a, const struct berth_fh *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* --- attributes of the copy --- */

uint32_t cp_final_mode(const struct cp *cp, const struct berth_attr *a)
{
	return cp->preserve ? a->mode : a->mode & 0777 & ~cp->umask;
}

/* Owner first (it clears set-id bits), then mode and times. @mode false: symbolic links have none.
 */
int cp_dress_remote(const struct cp *cp, struct berth *b, const struct berth_fh *fh,
                        const struct berth_attr *a, bool mode)
{
	struct berth_set own = { .set = BERTH_SET_UID | BERTH_SET_GID,
		                 .uid = a->uid,
		                 .gid = a->gid };
	struct berth_set set = { .set = mode ? BERTH_SET_MODE : 0, .mode = cp_final_mode(cp, a) };
	int err = 0;

	if (cp->preserve && cp->root) {
		err = berth_setattr(b, fh, "", BERTH_NOFOLLOW, &own);
		if (err == -EPERM || err == -EACCES) /* root is squashed there */
			err = 0;
	}
	if (cp->preserve) {
		set.set |= BERTH_SET_ATIME | BERTH_SET_MTIME;
		set.atime = a->atime;
		set.mtime = a->mtime;
	}
	return err || !set.set ? err : berth_setattr(b, fh, "", BERTH_NOFOLLOW, &set);
}

int cp_dress_local(const struct cp *cp, const char *path, const struct berth_attr *a, bool mode)
{
	struct timespec times[2] = { a->atime, a->mtime };

	if (cp->preserve && cp->root &&
	    fchownat(AT_FDCWD, path, a->uid, a->gid, AT_SYMLINK_NOFOLLOW) && errno != EPERM)
		return -errno;
	if (mode && chmod(path, cp_final_mode(cp, a)))
		return -errno;
	if (cp->preserve && utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW))
		return -errno;
	return 0;
}

/* --- a regular file --- */

static struct berth *own_session(struct worker *w, const struct place *p)
{
	struct berth *b;

	for (unsigned i = 0; i < w->nown; i++)
		if (w->own[i].main == p->b)
			return w->own[i].own;
	if (w->nown == sizeof(w->own) / sizeof(*w->own) ||
	    session_open(p->text, CP_PATIENCE, &w->cp->sessions.outage, &b))
		return NULL;
	w->own[w->nown].main = p->b;
	w->own[w->nown++].own = b;
	return b;
}

/* The worker's sessions for a job, NULL where local; and buffers registered with them. */
static int make_ready(struct worker *w, const struct job *j, struct berth **src, struct berth **dst)
{
	const struct place *from = j->dir->from, *to = &w->cp->dst;
	int err;

	*src = from->b ? own_session(w, from) : NULL;
	*dst = to->b ? own_session(w, to) : NULL;
	if ((from->b && !*src) || (to->b && !*dst))
		return -ECONNREFUSED;
	if (w->engine && w->engine_src == *src && w->engine_dst == *dst)
		return 0;
	engine_free(w->engine);
	w->engine = NULL;
	err = engine_new(*src, *dst, &w->engine);
	w->engine_src = *src;
	w->engine_dst = *dst;
	return err;
}

static int open_source(struct berth *b, const struct job *j, struct end *e)
{
	char *path;

	if (b)
		return berth_open_fh(b, &j->sfh, &e->file);
	path = join(j->dir->src, j->sname);
	if (!path)
		return -ENOMEM;
	e->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	free(path);
	return e->fd < 0 ? -errno : 0;
}

static int open_dest(struct cp *cp, struct berth *b, const struct job *j, struct end *e)
{
	uint32_t mode = (cp_final_mode(cp, &j->attr) & 0777) | 0600;
	struct berth_fh fh;
	char *path;

	if (b) {
		if (j->dir->from->b && !berth_lookup(b, &j->dir->dfh, j->dname, 0, &fh, NULL) &&
		    cp_same_fh(&fh, &j->sfh))
			return -EEXIST; /* source and destination are the same file */
		return berth_open(b, &j->dir->dfh, j->dname, O_CREAT | O_TRUNC | O_WRONLY, mode,
		                  &e->file);
	}
	path = join(j->dir->dst, j->dname);
	if (!path)
		return -ENOMEM;
	e->fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOCTTY, mode);
	free(path);
	return e->fd < 0 ? -errno : 0;
}

static int close_dest(struct cp *cp, struct berth *b, const struct job *j, struct end *e, int err,
                      uint64_t size, bool set_size)
{
	bool dress = cp->preserve || (cp_final_mode(cp, &j->attr) & 0600) != 0600;
	int closed = 0;

	if (!err && set_size)
		err = b                               ? berth_ftruncate(e->file, size)
		      : ftruncate(e->fd, (off_t)size) ? -errno
		                                      : 0;
	if (b) {
		struct berth_fh fh;

		if (!err)
			err = berth_commit(e->file);
		berth_file_fh(e->file, &fh);
		if (!err && dress)
			err = cp_dress_remote(cp, b, &fh, &j->attr, true);
		closed = berth_close(e->file);
	} else {
		char *path = join(j->dir->dst, j->dname);

		if (close(e->fd))
			closed = -errno;
		if (!err && dress)
			err = path ? cp_dress_local(cp, path, &j->attr, true) : -ENOMEM;
		free(path);
	}
	return err ? err : closed;
}

static int copy_file(struct worker *w, const struct job *j, struct berth *src, struct berth *dst)
{
	struct cp *cp = w->cp;
	struct end from = { .fd = -1 }, to = { .fd = -1 };
	bool sparse = j->attr.used < j->attr.size;
	uint64_t size = 0;
	int err = open_source(src, j, &from), got = 0;

	if (err)
		return err;
	err = open_dest(cp, dst, j, &to);
	if (!err) {
		got = transfer_file(w->engine, &from, &to, j->attr.size, cp->sparse != SPARSE_NEVER,
		                    cp->sparse == SPARSE_ALWAYS ||
		                            (src && cp->sparse == SPARSE_AUTO && sparse),
		                    &cp->progress, &size);
		err = close_dest(cp, dst, j, &to, got < 0 ? got : 0, size, got > 0);
	}
	if (src)
		berth_close(from.file);
	else
		close(from.fd);
	return err;
}

/* --- everything else --- */

static int read_link(struct berth *b, const struct job *j, char *buf, size_t size)
{
	char *path;
	ssize_t n;

	if (b)
		n = berth_readlink(b, &j->sfh, "", buf, size);
	else {
		path = join(j->dir->src, j->sname);
		n = path ? readlink(path, buf, size - 1) : -1;
		if (n < 0)
			n = -errno;
		else
			buf[n] = '\0';
		free(path);
	}
	return n < 0 ? (int)n : 0;
}

static int make_remote(struct berth *b, const struct job *j, const char *target, uint32_t mode,
                       struct berth_fh *fh)
{
	if (j->attr.type == BERTH_LNK)
		return berth_symlink(b, &j->dir->dfh, j->dname, target, fh);
	return berth_mknod(b, &j->dir->dfh, j->dname, j->attr.type, mode, j->attr.rdev_major,
	                   j->attr.rdev_minor, fh);
}

static int make_local(const struct job *j, const char *path, const char *target, uint32_t mode)
{
	static const mode_t kinds[] = { [BERTH_BLK] = S_IFBLK,
		                        [BERTH_CHR] = S_IFCHR,
		                        [BERTH_SOCK] = S_IFSOCK,
		                        [BERTH_FIFO] = S_IFIFO };
	int got;

	if (j->attr.type == BERTH_LNK)
		got = symlink(target, path);
	else
		got = mknod(path, kinds[j->attr.type] | mode,
		            makedev(j->attr.rdev_major, j->attr.rdev_minor));
	return got ? -errno : 0;
}

/* Links and special files. One that stands in the way is replaced, a directory is not. */
static int copy_special(struct cp *cp, const struct job *j, struct berth *src, struct berth *dst)
{
	char target[BERTH_PATH_MAX + 1], *path = NULL;
	uint32_t mode = cp_final_mode(cp, &j->attr) & 0777;
	bool has_mode = j->attr.type != BERTH_LNK;
	struct berth_fh fh;
	int err = 0;

	if (j->attr.type == BERTH_LNK)
		err = read_link(src, j, target, sizeof(target));
	if (err)
		return err;
	if (dst) {
		err = make_remote(dst, j, target, mode, &fh);
		if (err == -EEXIST && !(err = berth_unlink(dst, &j->dir->dfh, j->dname)))
			err = make_remote(dst, j, target, mode, &fh);
		return err ? err : cp_dress_remote(cp, dst, &fh, &j->attr, has_mode && cp->preserve);
	}
	path = join(j->dir->dst, j->dname);
	if (!path)
		return -ENOMEM;
	err = make_local(j, path, target, mode);
	if (err == -EEXIST && !(err = unlink(path) ? -errno : 0))
		err = make_local(j, path, target, mode);
	if (!err)
		err = cp_dress_local(cp, path, &j->attr, has_mode && cp->preserve);
	free(path);
	return err;
}

void cp_do_job(struct worker *w, struct job *j)
{
	struct cp *cp = w->cp;
	struct berth *src, *dst;
	int err = make_ready(w, j, &src, &dst);

	if (!err)
		err = j->attr.type == BERTH_REG ? copy_file(w, j, src, dst)
		                                : copy_special(cp, j, src, dst);
	if (err == -ECONNREFUSED) { /* told already */
		cp->failed = cp->dead = true;
		cp->errors++;
	} else if (err) {
		copy_failure(cp, err, j);
	}
	cp->progress.files++;
}
