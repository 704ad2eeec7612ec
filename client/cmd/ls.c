/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ls.c - berth ls
 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/cmd.h"

struct entry {
	char *name;
	size_t len;
	bool has_attr;
	struct berth_attr attr;
	struct berth_fh fh;
	bool has_fh;
};

struct list {
	struct entry *e;
	size_t n, room;
	bool all;
};

struct ls {
	bool lng, all, recursive, itself, human, numeric, json;
	bool failed, titles, printed;
	json_t *out;
};

static void list_free(struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->e[i].name);
	free(l->e);
}

static int list_add(void *arg, const struct berth_dirent *d)
{
	struct list *l = arg;
	struct entry *e;

	if (d->name[0] == '.' && !l->all)
		return 0;
	if (l->n == l->room) {
		size_t room = l->room ? l->room * 2 : 128;

		e = realloc(l->e, room * sizeof(*e));
		if (!e)
			return -ENOMEM;
		l->e = e;
		l->room = room;
	}
	e = &l->e[l->n];
	*e = (struct entry){ .name = strdup(d->name),
		             .len = d->len,
		             .has_attr = d->has_attr,
		             .attr = d->attr,
		             .fh = d->fh,
		             .has_fh = d->has_fh };
	if (!e->name)
		return -ENOMEM;
	l->n++;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static const char *owner(const struct ls *ls, uint32_t id, bool group, char buf[64])
{
	struct passwd *pw = ls->numeric || group ? NULL : getpwuid(id);
	struct group *gr = ls->numeric || !group ? NULL : getgrgid(id);

	snprintf(buf, 64, "%u", id);
	if (pw)
		snprintf(buf, 64, "%s", pw->pw_name);
	if (gr)
		snprintf(buf, 64, "%s", gr->gr_name);
	return buf;
}

static void print_long(const struct ls *ls, const struct berth_attr *a)
{
	char mode[11], size[32], uid[64], gid[64], when[32] = "?";
	struct tm tm;

	format_mode(a->type, a->mode, mode);
	if (a->type == BERTH_BLK || a->type == BERTH_CHR)
		snprintf(size, sizeof(size), "%u,%u", a->rdev_major, a->rdev_minor);
	else if (ls->human)
		format_size(a->size, size);
	else
		snprintf(size, sizeof(size), "%llu", (unsigned long long)a->size);
	if (localtime_r(&a->mtime.tv_sec, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
	printf("%s %3u %-8s %-8s %*s %s ", mode, a->nlink, owner(ls, a->uid, false, uid),
	       owner(ls, a->gid, true, gid), ls->human ? 6 : 11, size, when);
}

static void show(struct ls *ls, struct berth *b, const char *dir, const struct berth_fh *dirfh,
                 const struct entry *e)
{
	char target[BERTH_PATH_MAX];
	ssize_t n = -1;

	if (e->has_attr && e->attr.type == BERTH_LNK && (ls->lng || ls->json))
		n = berth_readlink(b, e->has_fh ? &e->fh : dirfh, e->has_fh ? "" : e->name, target,
		                   sizeof(target));
	if (ls->json) {
		json_t *o = e->has_attr ? json_attr(&e->attr) : json_object();

		if (dir)
			json_set_name(o, "directory", dir, strlen(dir));
		json_set_name(o, "name", e->name, e->len);
		if (n >= 0)
			json_set_name(o, "target", target, (size_t)n);
		json_array_append_new(ls->out, o);
		return;
	}
	if (ls->lng && e->has_attr)
		print_long(ls, &e->attr);
	print_name(stdout, e->name, e->len);
	if (ls->lng && n >= 0) {
		printf(" -> ");
		print_name(stdout, target, (size_t)n);
	}
	putchar('\n');
}

/* Servers may leave attributes out of a listing. */
static void complete(struct berth *b, const struct berth_fh *dir, struct entry *e)
{
	int err = 0;

	if (!e->has_attr || !e->has_fh)
		err = berth_lookup(b, dir, e->name, BERTH_NOFOLLOW, &e->fh, &e->attr);
	if (!err)
		e->has_attr = e->has_fh = true;
}

static void ls_dir(struct ls *ls, struct berth *b, const struct berth_fh *fh, const char *title)
{
	bool attrs = ls->lng || ls->recursive || ls->json;
	struct list l = { .all = ls->all };
	int err = berth_readdir(b, fh, attrs, list_add, &l);

	if (err) {
		complain_errno(err, "cannot list", title);
		ls->failed = true;
	}
	if (l.n)
		qsort(l.e, l.n, sizeof(*l.e), by_name);
	if (ls->titles && !ls->json) {
		if (ls->printed)
			putchar('\n');
		print_name(stdout, title, strlen(title));
		printf(":\n");
	}
	ls->printed = true;
	for (size_t i = 0; i < l.n; i++) {
		if (attrs)
			complete(b, fh, &l.e[i]);
		show(ls, b, title, fh, &l.e[i]);
	}
	for (size_t i = 0; i < l.n && ls->recursive; i++) {
		char *sub;

		if (!l.e[i].has_attr || l.e[i].attr.type != BERTH_DIR)
			continue;
		sub = join(title, l.e[i].name);
		if (sub)
			ls_dir(ls, b, &l.e[i].fh, sub);
		free(sub);
	}
	list_free(&l);
}

static void ls_one(struct ls *ls, const struct place *p)
{
	struct entry e = { 0 };
	char *shown = strdup(p->text);
	int err;

	if (shown && strchr(shown, '?'))
		*strchr(shown, '?') = '\0';
	err = berth_lookup(p->b, NULL, p->path, ls->itself || ls->lng ? BERTH_NOFOLLOW : 0, &e.fh,
	                   &e.attr);
	if (err || !shown) {
		complain_errno(err ? err : -ENOMEM, "cannot find", p->text);
		ls->failed = true;
	} else if (e.attr.type == BERTH_DIR && !ls->itself) {
		ls_dir(ls, p->b, &e.fh, shown);
	} else {
		e.has_attr = e.has_fh = true;
		e.name = shown;
		e.len = strlen(shown);
		show(ls, p->b, NULL, NULL, &e);
		ls->printed = true;
	}
	free(shown);
}

int cmd_ls(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
		                               { "all", no_argument, NULL, 'a' },
		                               { "recursive", no_argument, NULL, 'R' },
		                               { "directory", no_argument, NULL, 'd' },
		                               { 0 } };
	struct sessions s = { 0 };
	struct ls ls = { 0 };
	int opt;

	while ((opt = next_option(c, argc, argv, "laRdhn1", longs)) != -1) {
		ls.lng |= opt == 'l' || opt == 'n';
		ls.all |= opt == 'a';
		ls.recursive |= opt == 'R';
		ls.itself |= opt == 'd';
		ls.human |= opt == 'h';
		ls.numeric |= opt == 'n';
		ls.json |= opt == 'j';
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	if (optind == argc)
		return usage_error(c, "which directory? berth ls berth+tcp://HOST/EXPORT");
	ls.titles = argc - optind > 1 || ls.recursive;
	ls.out = ls.json ? json_array() : NULL;
	for (int i = optind; i < argc; i++) {
		struct place p = { 0 };

		if (place_remote(&s, c, argv[i], &p))
			ls.failed = true;
		else
			ls_one(&ls, &p);
		place_close(&p);
	}
	sessions_close(&s);
	if (ls.json && json_print(ls.out))
		return EXIT_SOME;
	return ls.failed || fflush(stdout) ? EXIT_SOME : EXIT_OK;
}
