/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cp.c - berth cp: trees to, from and between servers. Options, operands, and the end; see cp.h for the rest
 *
 * The main thread walks the source, makes directories and puts everything else into a queue. A few
 * workers, each with sessions of its own, take it out; each keeps many pieces of its file in flight
 * (transfer.c). When the queue is empty and all are done, hard links are made to the first copy of
 * their file, and directories get their final mode and times, the deepest first.
 *
 * An object is named by (directory, name): on a server by handle and name, here by path. The
 * directory of an operand is the start ("" and the export's root), its name then is a whole path.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cp.h"

#define WORKERS_MAX 32

/* --- operands --- */

static int stat_place(const struct place *p, bool follow, struct berth_attr *a, struct berth_fh *fh)
{
	struct stat st;

	if (p->b)
		return berth_lookup(p->b, NULL, p->path, follow ? 0 : BERTH_NOFOLLOW, fh, a);
	if (fstatat(AT_FDCWD, p->path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW))
		return -errno;
	cp_from_stat(&st, a);
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
		cp_failure(cp, err, "cannot stat", p, p->path, "");
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
		cp_failure(cp, -ENOMEM, "cannot copy", p, p->path, "");
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
	cp_visit(cp, start, p->path, dname, &attr, &sfh);
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
	if (!err && cp_same_fh(&first, &there))
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
			cp_failure(cp, err, "cannot link the copy of", j->dir->from, j->dir->src, j->sname);
	}
	SLIST_FOREACH (d, &cp->dirs, link) {
		bool mode = cp->preserve || (d->fresh && (cp_final_mode(cp, &d->attr) & 0700) != 0700);

		if (cp->dead || !*d->dst || (!d->fresh && !cp->preserve) ||
		    (!mode && !cp->preserve))
			continue;
		err = cp->dst.b ? cp_dress_remote(cp, cp->dst.b, &d->dfh, &d->attr, mode)
		                : cp_dress_local(cp, d->dst, &d->attr, mode);
		if (err)
			cp_failure(cp, err, "cannot set the attributes of", &cp->dst, d->dst, "");
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
		cp_job_free(j);
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
		w[i].started = !pthread_create(&w[i].thread, NULL, cp_work, &w[i]);
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
	cp_wait_queue(cp, 0);
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
