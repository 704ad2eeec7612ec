/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cp.c - berth cp: trees to, from and between servers
 *
 * The main thread walks the source, makes directories and puts everything else into a queue. A few
 * workers, each with sessions of its own, take it out; each keeps many pieces of its file in flight
 * (transfer.c). When the queue is empty and all are done, hard links are made to the first copy of
 * their file, and directories get their final mode and times, the deepest first.
 *
 * An object is named by (directory, name): on a server by handle and name, here by path. The
 * directory of an operand is the start ("" and the export's root), its name then is a whole path.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <uthash.h>

#include "client/cmd/cmd.h"

#define QUEUE_MAX   512
#define WORKERS_MAX 32
#define PATIENCE    60000 /* ms; the server was there just now */

struct cdir {                   /* a directory on its two sides; lives until the end */
	SLIST_ENTRY(cdir) link; /* newest first: children before their parents */
	const struct place *from;
	char *src, *dst; /* paths as shown; local ones are used */
	struct berth_fh sfh, dfh;
	struct berth_attr attr;
	bool fresh; /* made by us */
};

struct job {
	STAILQ_ENTRY(job) link;
	struct cdir *dir;
	char *sname, *dname;
	struct berth_attr attr;
	struct berth_fh sfh; /* remote source */
	struct job *first;   /* of a hard link: the copy to link to */
};
STAILQ_HEAD(job_list, job);

struct seen { /* a source with several names */
	struct {
		const void *from;
		uint64_t fsid, fileid;
	} key;
	struct job *job; /* keeps it alive: see kept */
	UT_hash_handle hh;
};

struct cp {
	struct cmd *c;
	bool recursive, preserve, verbose, quiet, json;
	enum sparse sparse;
	unsigned nworkers;
	mode_t umask;
	bool root;
	struct sessions sessions; /* of the main thread */
	struct place *src, dst;
	struct berth_fh guard; /* top directory of the copy: not to be copied into itself */
	bool has_guard;
	SLIST_HEAD(, cdir) dirs;
	struct seen *seen;
	struct job_list links, kept;
	struct progress progress;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t more, less;
	struct job_list queue;
	unsigned queued, working;
	bool no_more;
	_Atomic bool failed, dead; /* dead: the server is gone, stop everything */
	_Atomic uint64_t errors;
};

struct worker {
	struct cp *cp;
	pthread_t thread;
	bool started;
	struct {
		const struct berth *main; /* session of the main thread that this one doubles */
		struct berth *own;
	} own[16];
	unsigned nown;
	struct engine *engine;
	struct berth *engine_src, *engine_dst;
};

/* @name of @dir, both below @p, as the user named that; NULL: no memory. */
static char *shown(const struct place *p, const char *dir, const char *name)
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

static void failed(struct cp *cp, int err)
{
	cp->failed = true;
	cp->errors++;
	if (err == -ETIMEDOUT)
		cp->dead = true;
}

static void failure(struct cp *cp, int err, const char *what, const struct place *p, const char *dir, const char *name)
{
	char *path = shown(p, dir, name);

	if (!cp->dead)
		complain_errno(err, what, path ? path : name);
	failed(cp, err);
	free(path);
}

static void copy_failure(struct cp *cp, int err, const struct job *j)
{
	char *from = shown(j->dir->from, j->dir->src, j->sname), *to = shown(&cp->dst, j->dir->dst, j->dname);

	if (!cp->dead)
		complain("cannot copy %s to %s: %s", from ? from : j->sname, to ? to : j->dname, strerror(-err));
	failed(cp, err);
	free(from);
	free(to);
}

static void from_stat(const struct stat *st, struct berth_attr *a)
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

static bool same_fh(const struct berth_fh *a, const struct berth_fh *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* --- attributes of the copy --- */

static uint32_t final_mode(const struct cp *cp, const struct berth_attr *a)
{
	return cp->preserve ? a->mode : a->mode & 0777 & ~cp->umask;
}

/* Owner first (it clears set-id bits), then mode and times. @mode false: symbolic links have none.
 */
static int dress_remote(const struct cp *cp, struct berth *b, const struct berth_fh *fh,
                        const struct berth_attr *a, bool mode)
{
	struct berth_set own = { .set = BERTH_SET_UID | BERTH_SET_GID,
		                 .uid = a->uid,
		                 .gid = a->gid };
	struct berth_set set = { .set = mode ? BERTH_SET_MODE : 0, .mode = final_mode(cp, a) };
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

static int dress_local(const struct cp *cp, const char *path, const struct berth_attr *a, bool mode)
{
	struct timespec times[2] = { a->atime, a->mtime };

	if (cp->preserve && cp->root &&
	    fchownat(AT_FDCWD, path, a->uid, a->gid, AT_SYMLINK_NOFOLLOW) && errno != EPERM)
		return -errno;
	if (mode && chmod(path, final_mode(cp, a)))
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
	    session_open(p->text, PATIENCE, &w->cp->sessions.outage, &b))
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
	uint32_t mode = (final_mode(cp, &j->attr) & 0777) | 0600;
	struct berth_fh fh;
	char *path;

	if (b) {
		if (j->dir->from->b && !berth_lookup(b, &j->dir->dfh, j->dname, 0, &fh, NULL) &&
		    same_fh(&fh, &j->sfh))
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
	bool dress = cp->preserve || (final_mode(cp, &j->attr) & 0600) != 0600;
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
			err = dress_remote(cp, b, &fh, &j->attr, true);
		closed = berth_close(e->file);
	} else {
		char *path = join(j->dir->dst, j->dname);

		if (close(e->fd))
			closed = -errno;
		if (!err && dress)
			err = path ? dress_local(cp, path, &j->attr, true) : -ENOMEM;
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
	uint32_t mode = final_mode(cp, &j->attr) & 0777;
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
		return err ? err : dress_remote(cp, dst, &fh, &j->attr, has_mode && cp->preserve);
	}
	path = join(j->dir->dst, j->dname);
	if (!path)
		return -ENOMEM;
	err = make_local(j, path, target, mode);
	if (err == -EEXIST && !(err = unlink(path) ? -errno : 0))
		err = make_local(j, path, target, mode);
	if (!err)
		err = dress_local(cp, path, &j->attr, has_mode && cp->preserve);
	free(path);
	return err;
}

static void do_job(struct worker *w, struct job *j)
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

/* --- the queue --- */

static void job_free(struct job *j)
{
	free(j->sname);
	free(j->dname);
	free(j);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct cp *cp = w->cp;
	struct job *j;

	pthread_mutex_lock(&cp->lock);
	for (;;) {
		while (!(j = STAILQ_FIRST(&cp->queue)) && !cp->no_more)
			pthread_cond_wait(&cp->more, &cp->lock);
		if (!j)
			break;
		STAILQ_REMOVE_HEAD(&cp->queue, link);
		cp->queued--;
		cp->working++;
		pthread_cond_signal(&cp->less);
		pthread_mutex_unlock(&cp->lock);
		if (!cp->dead)
			do_job(w, j);
		pthread_mutex_lock(&cp->lock);
		if (j->attr.nlink > 1)
			STAILQ_INSERT_TAIL(&cp->kept, j, link); /* links may refer to it */
		else
			job_free(j);
		cp->working--;
		pthread_cond_signal(&cp->less);
	}
	pthread_mutex_unlock(&cp->lock);
	engine_free(w->engine);
	for (unsigned i = 0; i < w->nown; i++)
		berth_disconnect(w->own[i].own);
	return NULL;
}

/* Wait until less than @below jobs wait (0: until all are done), drawing the bar. Lock held. */
static void wait_queue(struct cp *cp, unsigned below)
{
	while (below ? cp->queued >= below : cp->queued || cp->working) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 200000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&cp->less, &cp->lock, &until);
		progress_draw(&cp->progress, false);
	}
}

static void put_job(struct cp *cp, struct job *j)
{
	cp->progress.total_files++;
	if (j->attr.type == BERTH_REG)
		cp->progress.total += j->attr.size;
	pthread_mutex_lock(&cp->lock);
	wait_queue(cp, QUEUE_MAX);
	STAILQ_INSERT_TAIL(&cp->queue, j, link);
	cp->queued++;
	pthread_cond_signal(&cp->more);
	pthread_mutex_unlock(&cp->lock);
	progress_draw(&cp->progress, false);
}

/* --- the walk --- */

static void visit(struct cp *cp, struct cdir *dir, const char *sname, const char *dname,
                  const struct berth_attr *attr, const struct berth_fh *sfh);

/* A further name of a source already taken becomes a link at the end. */
static bool seen_before(struct cp *cp, struct job *j)
{
	struct seen *s, *found;

	if (!cp->recursive || j->attr.nlink < 2)
		return false;
	s = calloc(1, sizeof(*s));
	if (!s)
		return false;
	s->key.from = j->dir->from->b ? (const void *)j->dir->from->b : (const void *)cp;
	s->key.fsid = j->attr.fsid;
	s->key.fileid = j->attr.fileid;
	HASH_FIND(hh, cp->seen, &s->key, sizeof(s->key), found);
	if (found) {
		free(s);
		j->first = found->job;
		STAILQ_INSERT_TAIL(&cp->links, j, link);
		return true;
	}
	s->job = j;
	HASH_ADD(hh, cp->seen, key, sizeof(s->key), s);
	return false;
}

static void visit_leaf(struct cp *cp, struct cdir *dir, const char *sname, const char *dname,
                       const struct berth_attr *attr, const struct berth_fh *sfh)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j) {
		j->sname = strdup(sname);
		j->dname = strdup(dname);
	}
	if (!j || !j->sname || !j->dname) {
		failure(cp, -ENOMEM, "cannot copy", dir->from, dir->src, sname);
		if (j)
			job_free(j);
		return;
	}
	j->dir = dir;
	j->attr = *attr;
	if (sfh)
		j->sfh = *sfh;
	if (!seen_before(cp, j))
		put_job(cp, j);
}

/* Make or find the directory's copy. */
static int make_dir(struct cp *cp, struct cdir *parent, const char *dname, struct cdir *d)
{
	uint32_t mode = (final_mode(cp, &d->attr) & 0777) | 0700;
	struct berth *b = cp->dst.b;
	struct berth_attr a;
	struct stat st;
	int err;

	if (b) {
		err = berth_mkdir(b, &parent->dfh, dname, mode, &d->dfh);
		d->fresh = !err;
		if (err == -EEXIST) {
			err = berth_lookup(b, &parent->dfh, dname, 0, &d->dfh, &a);
			if (!err && a.type != BERTH_DIR)
				err = -EEXIST;
		}
		return err;
	}
	err = mkdir(d->dst, mode) ? -errno : 0;
	d->fresh = !err;
	if (err == -EEXIST && !stat(d->dst, &st) && S_ISDIR(st.st_mode))
		err = 0;
	return err;
}

struct child {
	char *name;
	bool has_attr, has_fh;
	struct berth_attr attr;
	struct berth_fh fh;
};
struct children {
	struct child *e;
	size_t n, room;
};

static struct child *child_add(struct children *l, const char *name)
{
	if (l->n == l->room) {
		size_t room = l->room ? l->room * 2 : 64;
		struct child *e = realloc(l->e, room * sizeof(*e));

		if (!e)
			return NULL;
		l->e = e;
		l->room = room;
	}
	l->e[l->n] = (struct child){ .name = strdup(name) };
	return l->e[l->n].name ? &l->e[l->n++] : NULL;
}

static int take_child(void *arg, const struct berth_dirent *d)
{
	struct child *k = child_add(arg, d->name);

	if (!k)
		return -ENOMEM;
	k->has_attr = d->has_attr;
	k->has_fh = d->has_fh;
	k->attr = d->attr;
	k->fh = d->fh;
	return 0;
}

static int list_local(const char *path, struct children *l)
{
	DIR *dir = opendir(path);
	struct dirent *de;
	int err = 0;

	if (!dir)
		return -errno;
	while (!err && (errno = 0, de = readdir(dir))) {
		struct stat st;
		struct child *k;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		k = child_add(l, de->d_name);
		if (!k)
			err = -ENOMEM;
		else if (!fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW)) {
			from_stat(&st, &k->attr);
			k->has_attr = true;
		}
	}
	if (!err && errno)
		err = -errno;
	closedir(dir);
	return err;
}

static void visit_children(struct cp *cp, struct cdir *d)
{
	struct berth *b = d->from->b;
	struct children l = { 0 };
	int err = b ? berth_readdir(b, &d->sfh, true, take_child, &l) : list_local(d->src, &l);

	if (err)
		failure(cp, err, "cannot list", d->from, d->src, "");
	for (size_t i = 0; i < l.n; i++) {
		struct child *k = &l.e[i];

		err = k->has_attr && (k->has_fh || !b) ? 0
		      : b ? berth_lookup(b, &d->sfh, k->name, BERTH_NOFOLLOW, &k->fh, &k->attr)
		          : -ENOENT;
		if (err)
			failure(cp, err, "cannot stat", d->from, d->src, k->name);
		else if (!cp->dead)
			visit(cp, d, k->name, k->name, &k->attr, &k->fh);
		free(k->name);
	}
	free(l.e);
}

static void visit_dir(struct cp *cp, struct cdir *parent, const char *sname, const char *dname,
                      const struct berth_attr *attr, const struct berth_fh *sfh)
{
	struct cdir *d = calloc(1, sizeof(*d));
	int err = -ENOMEM;

	if (d) {
		*d = (struct cdir){ .from = parent->from, .attr = *attr };
		d->src = *sname ? join(parent->src, sname) : strdup(parent->src);
		d->dst = *dname ? join(parent->dst, dname) : strdup(parent->dst);
		if (sfh)
			d->sfh = *sfh;
		SLIST_INSERT_HEAD(&cp->dirs, d, link);
		if (d->src && d->dst)
			err = make_dir(cp, parent, dname, d);
	}
	if (err) {
		failure(cp, err, "cannot make directory", &cp->dst, parent->dst, dname);
		if (d && d->dst)
			*d->dst = '\0'; /* finish() passes it over */
		return;
	}
	if (!cp->has_guard && cp->dst.b && d->fresh) {
		cp->guard = d->dfh;
		cp->has_guard = true;
	}
	if (cp->verbose)
		complain("%s -> %s", d->src, d->dst);
	visit_children(cp, d);
}

static void visit(struct cp *cp, struct cdir *dir, const char *sname, const char *dname,
                  const struct berth_attr *attr, const struct berth_fh *sfh)
{
	if (attr->type != BERTH_DIR) {
		visit_leaf(cp, dir, sname, dname, attr, sfh);
	} else if (!cp->recursive) {
		char *path = shown(dir->from, dir->src, sname);

		complain("%s is a directory (use -r)", path ? path : sname);
		failed(cp, 0);
		free(path);
	} else if (cp->has_guard && sfh && dir->from->b && same_fh(sfh, &cp->guard)) {
		complain("%s/%s: not copied into itself", dir->src, sname);
		cp->failed = true;
		cp->errors++;
	} else {
		visit_dir(cp, dir, sname, dname, attr, sfh);
	}
}

/* --- operands --- */

static int stat_place(const struct place *p, bool follow, struct berth_attr *a, struct berth_fh *fh)
{
	struct stat st;

	if (p->b)
		return berth_lookup(p->b, NULL, p->path, follow ? 0 : BERTH_NOFOLLOW, fh, a);
	if (fstatat(AT_FDCWD, p->path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW))
		return -errno;
	from_stat(&st, a);
	return 0;
}

/* "dir/.", "..", and the root of an export have no name of their own: their contents are copied. */
static char *own_name(const char *path)
{
	char *name = strdup(base_name(path));
	size_t n = name ? strlen(name) : 0;

	while (n && name[n - 1] == '/')
		name[--n] = '\0';
	if (name && (!strcmp(name, ".") || !strcmp(name, "..")))
		*name = '\0';
	return name;
}

static void copy_operand(struct cp *cp, const struct place *p, bool into)
{
	struct cdir *start = calloc(1, sizeof(*start));
	struct berth_fh sfh = { 0 };
	struct berth_attr attr;
	char *name = own_name(p->path), *dname = NULL;
	int err = stat_place(p, !cp->recursive, &attr, &sfh);

	if (err) {
		failure(cp, err, "cannot stat", p, p->path, "");
		goto out;
	}
	if (!p->b && !cp->dst.b) {
		complain("%s and %s are both local: use cp(1)", p->path, cp->dst.path);
		cp->failed = true;
		cp->errors++;
		goto out;
	}
	dname = into && name && *name ? join(cp->dst.path, name) : strdup(cp->dst.path);
	if (!start || !name || !dname) {
		failure(cp, -ENOMEM, "cannot copy", p, p->path, "");
		goto out;
	}
	start->from = p;
	start->src = strdup("");
	start->dst = strdup("");
	if (p->b)
		berth_root(p->b, &start->sfh);
	if (cp->dst.b)
		berth_root(cp->dst.b, &start->dfh);
	start->attr.type = BERTH_DIR;
	SLIST_INSERT_HEAD(&cp->dirs, start, link);
	visit(cp, start, p->path, dname, &attr, &sfh);
	start = NULL;
out:
	free(start);
	free(name);
	free(dname);
}

static int link_remote(struct berth *b, const struct job *j)
{
	struct berth_fh first, there;
	int err =
		berth_lookup(b, &j->first->dir->dfh, j->first->dname, BERTH_NOFOLLOW, &first, NULL);

	if (!err)
		err = berth_link(b, &first, &j->dir->dfh, j->dname);
	if (err != -EEXIST)
		return err;
	err = berth_lookup(b, &j->dir->dfh, j->dname, BERTH_NOFOLLOW, &there, NULL);
	if (!err && same_fh(&first, &there))
		return 0;
	if (!err)
		err = berth_unlink(b, &j->dir->dfh, j->dname);
	return err ? err : berth_link(b, &first, &j->dir->dfh, j->dname);
}

static int link_local(const struct job *j)
{
	char *first = join(j->first->dir->dst, j->first->dname),
	     *path = join(j->dir->dst, j->dname);
	int err = !first || !path ? -ENOMEM : link(first, path) ? -errno : 0;

	if (err == -EEXIST && !unlink(path))
		err = link(first, path) ? -errno : 0;
	free(first);
	free(path);
	return err;
}

/* What has to wait for everything else: links, then directories' times. */
static void finish(struct cp *cp)
{
	struct cdir *d;
	struct job *j;
	int err;

	STAILQ_FOREACH (j, &cp->links, link) {
		err = cp->dead ? 0 : cp->dst.b ? link_remote(cp->dst.b, j) : link_local(j);
		if (err)
			failure(cp, err, "cannot link the copy of", j->dir->from, j->dir->src, j->sname);
	}
	SLIST_FOREACH (d, &cp->dirs, link) {
		bool mode = cp->preserve || (d->fresh && (final_mode(cp, &d->attr) & 0700) != 0700);

		if (cp->dead || !*d->dst || (!d->fresh && !cp->preserve) ||
		    (!mode && !cp->preserve))
			continue;
		err = cp->dst.b ? dress_remote(cp, cp->dst.b, &d->dfh, &d->attr, mode)
		                : dress_local(cp, d->dst, &d->attr, mode);
		if (err)
			failure(cp, err, "cannot set the attributes of", &cp->dst, d->dst, "");
	}
}

static void release(struct cp *cp)
{
	struct seen *s, *next;
	struct cdir *d;
	struct job *j;

	HASH_ITER (hh, cp->seen, s, next) {
		HASH_DEL(cp->seen, s);
		free(s);
	}
	STAILQ_CONCAT(&cp->kept, &cp->links);
	while ((j = STAILQ_FIRST(&cp->kept))) {
		STAILQ_REMOVE_HEAD(&cp->kept, link);
		job_free(j);
	}
	while ((d = SLIST_FIRST(&cp->dirs))) {
		SLIST_REMOVE_HEAD(&cp->dirs, link);
		free(d->src);
		free(d->dst);
		free(d);
	}
}

static void copy_all(struct cp *cp, unsigned n, bool into)
{
	struct worker w[WORKERS_MAX] = { { 0 } };
	unsigned running = 0;

	for (unsigned i = 0; i < cp->nworkers; i++) {
		w[i].cp = cp;
		w[i].started = !pthread_create(&w[i].thread, NULL, work, &w[i]);
		running += w[i].started;
	}
	if (!running) {
		complain("cannot start a thread: %s", strerror(EAGAIN));
		cp->failed = true;
		return;
	}
	for (unsigned i = 0; i < n && !cp->dead; i++)
		copy_operand(cp, &cp->src[i], into);
	cp->progress.complete = true;
	pthread_mutex_lock(&cp->lock);
	cp->no_more = true;
	pthread_cond_broadcast(&cp->more);
	wait_queue(cp, 0);
	pthread_mutex_unlock(&cp->lock);
	for (unsigned i = 0; i < cp->nworkers; i++)
		if (w[i].started)
			pthread_join(w[i].thread, NULL);
	finish(cp);
}

static int summary(struct cp *cp)
{
	struct timespec ts;
	uint64_t ms;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000 - cp->progress.began;
	return json_print(json_pack("{s:I, s:I, s:I, s:f}", "files", (json_int_t)cp->progress.files,
	                            "bytes", (json_int_t)cp->progress.bytes, "errors",
	                            (json_int_t)cp->errors, "seconds", (double)ms / 1000));
}

/* Open source and destination, look at what the destination is. */
static int run(struct cp *cp, unsigned n, char **operand)
{
	struct berth_attr a;
	struct berth_fh fh;
	bool into;
	unsigned opened = 0;
	int code = EXIT_SOME;

	cp->src = calloc(n, sizeof(*cp->src));
	if (!cp->src || place_open(&cp->sessions, operand[n], &cp->dst))
		goto out;
	for (; opened < n; opened++)
		if (place_open(&cp->sessions, operand[opened], &cp->src[opened]))
			goto out;
	into = !stat_place(&cp->dst, true, &a, &fh) && a.type == BERTH_DIR;
	if (n > 1 && !into) {
		complain("%s is no directory", cp->dst.text);
		goto out;
	}
	progress_begin(&cp->progress, !cp->quiet && !cp->json);
	copy_all(cp, n, into);
	progress_end(&cp->progress);
	code = cp->failed ? EXIT_SOME : EXIT_OK;
	if (cp->json && summary(cp))
		code = EXIT_SOME;
	release(cp);
out:
	while (opened)
		place_close(&cp->src[--opened]);
	place_close(&cp->dst);
	free(cp->src);
	sessions_close(&cp->sessions);
	return code;
}

/* -1: go on; otherwise the exit code. */
static int options(struct cp *cp, int argc, char **argv)
{
	static const struct option longs[] = { { "recursive", no_argument, NULL, 'r' },
		                               { "preserve", no_argument, NULL, 'p' },
		                               { "sparse", required_argument, NULL, 'S' },
		                               { "jobs", required_argument, NULL, 'j' },
		                               { "quiet", no_argument, NULL, 'q' },
		                               { "verbose", no_argument, NULL, 'v' },
		                               { "json", no_argument, NULL, 'J' },
		                               { 0 } };
	int opt;

	while ((opt = next_option(cp->c, argc, argv, "rRpS:j:qv", longs)) != -1) {
		cp->recursive |= opt == 'r' || opt == 'R';
		cp->preserve |= opt == 'p';
		cp->quiet |= opt == 'q';
		cp->verbose |= opt == 'v';
		cp->json |= opt == 'J';
		if (opt == 'S') {
			if (strcmp(optarg, "auto") && strcmp(optarg, "always") &&
			    strcmp(optarg, "never"))
				return usage_error(cp->c, "-S is auto, always or never, not '%s'",
				                   optarg);
			cp->sparse = *optarg == 'n'     ? SPARSE_NEVER
			             : optarg[1] == 'l' ? SPARSE_ALWAYS
			                                : SPARSE_AUTO;
		}
		if (opt == 'j') {
			cp->nworkers = (unsigned)strtoul(optarg, NULL, 10);
			if (!cp->nworkers || cp->nworkers > WORKERS_MAX)
				return usage_error(cp->c, "-j is a number from 1 to %d, not '%s'",
				                   WORKERS_MAX, optarg);
		}
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	return -1;
}

int cmd_cp(struct cmd *c, int argc, char **argv)
{
	struct cp *cp = calloc(1, sizeof(*cp));
	int code;

	if (!cp)
		return EXIT_SOME;
	cp->c = c;
	cp->nworkers = 4;
	cp->root = geteuid() == 0;
	cp->umask = umask(0);
	umask(cp->umask);
	SLIST_INIT(&cp->dirs);
	STAILQ_INIT(&cp->links);
	STAILQ_INIT(&cp->kept);
	STAILQ_INIT(&cp->queue);
	pthread_mutex_init(&cp->lock, NULL);
	pthread_cond_init(&cp->more, NULL);
	pthread_cond_init(&cp->less, NULL);
	code = options(cp, argc, argv);
	if (code < 0)
		code = argc - optind < 2 ? usage_error(c, "a source and a destination are wanted")
		                         : run(cp, (unsigned)(argc - optind - 1), argv + optind);
	free(cp);
	return code;
}
