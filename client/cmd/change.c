/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change.c - berth rm, mv, mkdir, rmdir, ln, chmod, chown, touch, truncate
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

static int each(struct cmd *c, int argc, char **argv, int from,
                int (*fn)(const struct place *p, void *arg), void *arg)
{
	struct sessions s = { 0 };
	int code = EXIT_OK;

	if (from >= argc)
		return usage_error(c, "which URL?");
	for (int i = from; i < argc; i++) {
		struct place p = { 0 };

		if (place_remote(&s, c, argv[i], &p) || fn(&p, arg))
			code = EXIT_SOME;
		place_close(&p);
	}
	sessions_close(&s);
	return code;
}

static mode_t get_umask(void)
{
	mode_t m = umask(0);

	umask(m);
	return m;
}

/* --- rm --- */

#define RM_WINDOW 64 /* removals in flight */

struct rm {
	bool recursive, force;
	unsigned out;
	int failed;
};

struct names {
	struct {
		char *name;
		bool is_dir;
		struct berth_fh fh;
	} * e;
	size_t n, room;
};

struct removal {
	struct rm *rm;
	char *shown;
};

static int take_name(void *arg, const struct berth_dirent *d)
{
	struct names *l = arg;

	if (l->n == l->room) {
		size_t room = l->room ? l->room * 2 : 128;
		void *e = realloc(l->e, room * sizeof(*l->e));

		if (!e)
			return -ENOMEM;
		l->e = e;
		l->room = room;
	}
	l->e[l->n].name = strdup(d->name);
	l->e[l->n].is_dir = !d->has_attr || !d->has_fh || d->attr.type == BERTH_DIR;
	l->e[l->n].fh = d->fh;
	return l->e[l->n].name ? (l->n++, 0) : -ENOMEM;
}

static void removed(void *arg, int err, const struct berth_reply *r)
{
	struct removal *m = arg;

	(void)r;
	m->rm->out--;
	if (err && !(err == -ENOENT && m->rm->force)) {
		complain_errno(err, "cannot remove", m->shown);
		m->rm->failed = err;
	}
	free(m->shown);
	free(m);
}

static void start_removal(struct rm *rm, struct berth *b, const struct berth_fh *dir,
                          const char *name, const char *shown)
{
	struct removal *m = malloc(sizeof(*m));
	int err = -ENOMEM;

	while (rm->out >= RM_WINDOW)
		berth_wait(b, -1);
	if (m) {
		m->rm = rm;
		m->shown = join(shown, name);
		err = m->shown ? berth_start_remove(b, dir, name, removed, m) : -ENOMEM;
	}
	if (!err) {
		rm->out++;
		return;
	}
	complain_errno(err, "cannot remove", name);
	rm->failed = err;
	if (m)
		free(m->shown);
	free(m);
}

static void rm_tree(struct rm *rm, struct berth *b, const struct berth_fh *dir, const char *shown);

static void rm_subdir(struct rm *rm, struct berth *b, const struct berth_fh *dir, const char *name,
                      const char *shown)
{
	struct berth_attr attr;
	struct berth_fh fh;
	char *sub = join(shown, name);
	int err = berth_lookup(b, dir, name, BERTH_NOFOLLOW, &fh, &attr);

	if (!err && attr.type != BERTH_DIR) { /* the listing did not say */
		err = berth_unlink(b, dir, name);
	} else if (!err && sub) {
		rm_tree(rm, b, &fh, sub);
		err = berth_rmdir(b, dir, name);
	}
	if (err) {
		complain_errno(err, "cannot remove", sub ? sub : name);
		rm->failed = err;
	}
	free(sub);
}

/* Everything in @dir; the directory itself is the caller's. */
static void rm_tree(struct rm *rm, struct berth *b, const struct berth_fh *dir, const char *shown)
{
	struct names l = { 0 };
	int err = berth_readdir(b, dir, true, take_name, &l);

	if (err) {
		complain_errno(err, "cannot list", shown);
		rm->failed = err;
	}
	for (size_t i = 0; i < l.n; i++) {
		if (l.e[i].is_dir)
			rm_subdir(rm, b, dir, l.e[i].name, shown);
		else
			start_removal(rm, b, dir, l.e[i].name, shown);
		free(l.e[i].name);
	}
	while (rm->out)
		berth_wait(b, -1);
	free(l.e);
}

static int rm_one(const struct place *p, void *arg)
{
	struct rm *rm = arg;
	struct berth_attr attr;
	struct berth_fh fh;
	int err = berth_lookup(p->b, NULL, p->path, BERTH_NOFOLLOW, &fh, &attr);

	if (err == -ENOENT && rm->force)
		return 0;
	rm->failed = 0;
	if (!err && attr.type == BERTH_DIR && !rm->recursive) {
		complain("cannot remove %s: it is a directory (use -r)", p->text);
		return -EISDIR;
	}
	if (!err && attr.type == BERTH_DIR) {
		if (!*p->path) {
			complain("cannot remove %s: it is the root of the export", p->text);
			return -EBUSY;
		}
		rm_tree(rm, p->b, &fh, p->text);
		err = berth_rmdir(p->b, NULL, p->path);
	} else if (!err) {
		err = berth_unlink(p->b, NULL, p->path);
	}
	if (err)
		complain_errno(err, "cannot remove", p->text);
	return err ? err : rm->failed;
}

int cmd_rm(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "recursive", no_argument, NULL, 'r' },
		                               { "force", no_argument, NULL, 'f' },
		                               { 0 } };
	struct rm rm = { 0 };
	int opt;

	while ((opt = next_option(c, argc, argv, "rRf", longs)) != -1) {
		rm.recursive |= opt == 'r' || opt == 'R';
		rm.force |= opt == 'f';
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	return each(c, argc, argv, optind, rm_one, &rm);
}

/* --- mkdir, rmdir --- */

struct mkdir_opts {
	bool parents;
	uint32_t mode;
};

static int make_parents(struct berth *b, char *path, uint32_t mode)
{
	struct berth_attr attr;
	int err;

	for (char *p = path; (p = strchr(p, '/')); p++) {
		*p = '\0';
		err = *path ? berth_mkdir(b, NULL, path, 0777 & ~get_umask(), NULL) : 0;
		*p = '/';
		if (err && err != -EEXIST)
			return err;
	}
	if (!*base_name(path))
		return 0;
	err = berth_mkdir(b, NULL, path, mode, NULL);
	if (err == -EEXIST && !berth_stat(b, NULL, path, 0, &attr) && attr.type == BERTH_DIR)
		err = 0;
	return err;
}

static int mkdir_one(const struct place *p, void *arg)
{
	const struct mkdir_opts *o = arg;
	int err = o->parents ? make_parents(p->b, p->path, o->mode)
	                     : berth_mkdir(p->b, NULL, p->path, o->mode, NULL);

	if (err)
		complain_errno(err, "cannot make directory", p->text);
	return err;
}

int cmd_mkdir(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "parents", no_argument, NULL, 'p' },
		                               { "mode", required_argument, NULL, 'm' },
		                               { 0 } };
	struct mkdir_opts o = { .mode = 0777 & ~get_umask() };
	int opt;

	while ((opt = next_option(c, argc, argv, "pm:", longs)) != -1) {
		o.parents |= opt == 'p';
		if (opt == 'm' && !parse_mode(optarg, 0777, true, &o.mode))
			return usage_error(c, "'%s' is no mode: 755 or u=rwx,go=rx", optarg);
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	return each(c, argc, argv, optind, mkdir_one, &o);
}

static int rmdir_one(const struct place *p, void *arg)
{
	int err = berth_rmdir(p->b, NULL, p->path);

	(void)arg;
	if (err)
		complain_errno(err, "cannot remove directory", p->text);
	return err;
}

int cmd_rmdir(struct cmd *c, int argc, char **argv)
{
	int opt;

	while ((opt = next_option(c, argc, argv, "", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	return each(c, argc, argv, optind, rmdir_one, NULL);
}

/* --- mv --- */

static bool is_dir(const struct place *p)
{
	struct berth_attr a;

	return !berth_stat(p->b, NULL, p->path, 0, &a) && a.type == BERTH_DIR;
}

static int mv_one(struct sessions *s, const struct cmd *c, const char *operand,
                  const struct place *to, bool into)
{
	struct place from = { 0 };
	char *target = NULL;
	int err = place_remote(s, c, operand, &from);

	if (err)
		return err;
	if (from.b != to->b) {
		complain("%s and %s are in different exports: berth cp -rp, then berth rm -r",
		         operand, to->text);
		place_close(&from);
		return -EXDEV;
	}
	target = into ? join(to->path, base_name(from.path)) : strdup(to->path);
	err = target ? berth_rename(from.b, NULL, from.path, NULL, target) : -ENOMEM;
	if (err)
		complain_errno(err, "cannot rename", operand);
	free(target);
	place_close(&from);
	return err;
}

int cmd_mv(struct cmd *c, int argc, char **argv)
{
	struct sessions s = { 0 };
	struct place to = { 0 };
	int opt, code = EXIT_OK;
	bool into;

	while ((opt = next_option(c, argc, argv, "", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	if (argc - optind < 2)
		return usage_error(c, "what is to be renamed to what?");
	if (place_remote(&s, c, argv[argc - 1], &to)) {
		sessions_close(&s);
		return EXIT_SOME;
	}
	into = is_dir(&to);
	if (argc - optind > 2 && !into) {
		complain("%s is no directory", to.text);
		code = EXIT_SOME;
	}
	for (int i = optind; i < argc - 1 && (into || argc - optind == 2); i++)
		if (mv_one(&s, c, argv[i], &to, into))
			code = EXIT_SOME;
	place_close(&to);
	sessions_close(&s);
	return code;
}

/* --- ln --- */

static int link_one(struct sessions *s, const struct cmd *c, const char *target, bool symbolic,
                    const struct place *at)
{
	struct place obj = { 0 };
	struct berth_fh fh;
	char *path = is_dir(at) ? join(at->path, base_name(target)) : strdup(at->path);
	int err = path ? 0 : -ENOMEM;

	if (!err && symbolic) {
		err = berth_symlink(at->b, NULL, path, target, NULL);
	} else if (!err) {
		err = place_remote(s, c, target, &obj);
		if (err)
			goto out;
		if (obj.b != at->b)
			err = -EXDEV;
		if (!err)
			err = berth_lookup(obj.b, NULL, obj.path, BERTH_NOFOLLOW, &fh, NULL);
		if (!err)
			err = berth_link(at->b, &fh, NULL, path);
	}
	if (err)
		complain_errno(err, "cannot make link", at->text);
out:
	place_close(&obj);
	free(path);
	return err;
}

int cmd_ln(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "symbolic", no_argument, NULL, 's' }, { 0 } };
	struct sessions s = { 0 };
	struct place at = { 0 };
	bool symbolic = false;
	int opt, err;

	while ((opt = next_option(c, argc, argv, "s", longs)) != -1) {
		symbolic |= opt == 's';
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	if (argc - optind != 2)
		return usage_error(c, "a target and the URL of the link are wanted");
	err = place_remote(&s, c, argv[optind + 1], &at);
	if (!err)
		err = link_one(&s, c, argv[optind], symbolic, &at);
	place_close(&at);
	sessions_close(&s);
	return err ? EXIT_SOME : EXIT_OK;
}

/* --- attributes --- */

static int chmod_one(const struct place *p, void *arg)
{
	struct berth_set set = { .set = BERTH_SET_MODE };
	struct berth_attr a;
	struct berth_fh fh;
	int err = berth_lookup(p->b, NULL, p->path, 0, &fh, &a);

	if (!err) {
		parse_mode(arg, a.mode, a.type == BERTH_DIR, &set.mode);
		err = berth_setattr(p->b, &fh, "", 0, &set);
	}
	if (err)
		complain_errno(err, "cannot change the mode of", p->text);
	return err;
}

int cmd_chmod(struct cmd *c, int argc, char **argv)
{
	uint32_t mode;
	int opt;

	while (optind < argc && (opt = next_option(c, argc, argv, "+", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	if (optind >= argc)
		return usage_error(c, "which mode?");
	if (!parse_mode(argv[optind], 0, false, &mode))
		return usage_error(c, "'%s' is no mode: 644 or u=rw,go=r", argv[optind]);
	return each(c, argc, argv, optind + 1, chmod_one, argv[optind]);
}

static bool parse_id(const char *text, size_t len, uint32_t *out)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' || v > UINT32_MAX)
			return false;
		v = v * 10 + (uint64_t)(text[i] - '0');
	}
	*out = (uint32_t)v;
	return v < UINT32_MAX;
}

static int setattr_one(const struct place *p, void *arg)
{
	int err = berth_setattr(p->b, NULL, p->path, 0, arg);

	if (err)
		complain_errno(err, "cannot change", p->text);
	return err;
}

int cmd_chown(struct cmd *c, int argc, char **argv)
{
	struct berth_set set = { 0 };
	const char *text, *colon;
	size_t n;
	int opt;

	while ((opt = next_option(c, argc, argv, "", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	if (optind >= argc)
		return usage_error(c, "which owner?");
	text = argv[optind];
	colon = strchr(text, ':');
	n = colon ? (size_t)(colon - text) : strlen(text);
	if (n)
		set.set |= BERTH_SET_UID;
	if (colon && colon[1])
		set.set |= BERTH_SET_GID;
	if (!set.set || !parse_id(text, n, &set.uid) ||
	    (colon && !parse_id(colon + 1, strlen(colon + 1), &set.gid)))
		return usage_error(c, "'%s' is no owner: UID, UID:GID or :GID, as numbers", text);
	return each(c, argc, argv, optind + 1, setattr_one, &set);
}

static int touch_one(const struct place *p, void *arg)
{
	struct timespec now = { .tv_nsec = UTIME_NOW };
	struct berth_set set = { .set = BERTH_SET_ATIME | BERTH_SET_MTIME,
		                 .atime = now,
		                 .mtime = now };
	struct berth_file *f;
	int err = berth_setattr(p->b, NULL, p->path, 0, &set);

	(void)arg;
	if (err == -ENOENT) {
		err = berth_open(p->b, NULL, p->path, O_CREAT | O_WRONLY, 0666 & ~get_umask(), &f);
		if (!err)
			err = berth_close(f);
	}
	if (err)
		complain_errno(err, "cannot touch", p->text);
	return err;
}

int cmd_touch(struct cmd *c, int argc, char **argv)
{
	int opt;

	while ((opt = next_option(c, argc, argv, "", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	return each(c, argc, argv, optind, touch_one, NULL);
}

int cmd_truncate(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "size", required_argument, NULL, 's' }, { 0 } };
	struct berth_set set = { 0 };
	int opt;

	while ((opt = next_option(c, argc, argv, "s:", longs)) != -1) {
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
		if (!parse_size(optarg, &set.size))
			return usage_error(c, "'%s' is no size: bytes, or with K, M, G, T", optarg);
		set.set = BERTH_SET_SIZE;
	}
	if (!set.set)
		return usage_error(c, "-s SIZE is missing");
	return each(c, argc, argv, optind, setattr_one, &set);
}
