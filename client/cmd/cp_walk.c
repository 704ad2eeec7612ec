/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cp_walk.c - berth cp: the main thread walks the source, makes directories, and puts everything else into a queue; workers
 * take it out
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/cmd/cp.h"

#define QUEUE_MAX 512

/* --- the queue --- */

void cp_job_free(struct job *j)
{
	free(j->sname);
	free(j->dname);
	free(j);
}

void *cp_work(void *arg)
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
			cp_do_job(w, j);
		pthread_mutex_lock(&cp->lock);
		if (j->attr.nlink > 1)
			STAILQ_INSERT_TAIL(&cp->kept, j, link); /* links may refer to it */
		else
			cp_job_free(j);
		cp->working--;
		pthread_cond_signal(&cp->less);
	}
	pthread_mutex_unlock(&cp->lock);
	engine_free(w->engine);
	for (unsigned i = 0; i < w->nown; i++)
		berth_disconnect(w->own[i].own);
	return NULL;
}

void cp_wait_queue(struct cp *cp, unsigned below)
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
	cp_wait_queue(cp, QUEUE_MAX);
	STAILQ_INSERT_TAIL(&cp->queue, j, link);
	cp->queued++;
	pthread_cond_signal(&cp->more);
	pthread_mutex_unlock(&cp->lock);
	progress_draw(&cp->progress, false);
}

/* --- the walk --- */

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
		cp_failure(cp, -ENOMEM, "cannot copy", dir->from, dir->src, sname);
		if (j)
			cp_job_free(j);
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
	uint32_t mode = (cp_final_mode(cp, &d->attr) & 0777) | 0700;
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
			cp_from_stat(&st, &k->attr);
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
		cp_failure(cp, err, "cannot list", d->from, d->src, "");
	for (size_t i = 0; i < l.n; i++) {
		struct child *k = &l.e[i];

		err = k->has_attr && (k->has_fh || !b) ? 0
		      : b ? berth_lookup(b, &d->sfh, k->name, BERTH_NOFOLLOW, &k->fh, &k->attr)
		          : -ENOENT;
		if (err)
			cp_failure(cp, err, "cannot stat", d->from, d->src, k->name);
		else if (!cp->dead)
			cp_visit(cp, d, k->name, k->name, &k->attr, &k->fh);
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
		cp_failure(cp, err, "cannot make directory", &cp->dst, parent->dst, dname);
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

void cp_visit(struct cp *cp, struct cdir *dir, const char *sname, const char *dname,
                  const struct berth_attr *attr, const struct berth_fh *sfh)
{
	if (attr->type != BERTH_DIR) {
		visit_leaf(cp, dir, sname, dname, attr, sfh);
	} else if (!cp->recursive) {
		char *path = cp_shown(dir->from, dir->src, sname);

		complain("%s is a directory (use -r)", path ? path : sname);
		cp_failed(cp, 0);
		free(path);
	} else if (cp->has_guard && sfh && dir->from->b && cp_same_fh(sfh, &cp->guard)) {
		complain("%s/%s: not copied into itself", dir->src, sname);
		cp->failed = true;
		cp->errors++;
	} else {
		visit_dir(cp, dir, sname, dname, attr, sfh);
	}
}
