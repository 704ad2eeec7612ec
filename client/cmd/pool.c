/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool.c - berth mkfs, berth check
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cmd.h"
#include "pmemio/pmemio.h"

/* As fsck(8). */
enum {
	FSCK_CLEAN = 0,
	FSCK_REPAIRED = 1,
	FSCK_PROBLEMS = 4,
	FSCK_OPERATIONAL = 8,
	FSCK_USAGE = 16
};

/* The media, met while nobody serves it: nothing to answer an error to but the person who asked. */
static void tell_media(void)
{
	static const char text[] = "berth: the pool cannot be read or written (bus error): media that failed, or a file that is "
				   "sparse in a file system without room, or cut short\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		return;
}

static void check_met_bad_media(int sig)
{
	(void)sig;
	tell_media();
	_exit(FSCK_OPERATIONAL);
}

static void mkfs_met_bad_media(int sig)
{
	(void)sig;
	tell_media();
	_exit(EXIT_SOME);
}

/* Options into @o; -1: go on, otherwise the exit code. */
static int mkfs_options(struct cmd *c, int argc, char **argv, struct pm_mkfs_opts *o)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 's' }, { "label", required_argument, NULL, 'L' },
		{ "uuid", required_argument, NULL, 'U' }, { "lanes", required_argument, NULL, 'l' },
		{ "force", no_argument, NULL, 'f' }, { "sparse", no_argument, NULL, 'p' },
		{ "checksum", required_argument, NULL, 'c' },
		{ 0 }
	};
	int opt;

	while ((opt = next_option(c, argc, argv, "s:L:U:f", longs)) != -1) {
		char *end;

		switch (opt) {
		case 's':
			if (!parse_size(optarg, &o->size))
				return usage_error(c, "'%s' is no size: bytes, or with K, M, G, T",
				                   optarg);
			break;
		case 'L':
			if (strlen(optarg) >= sizeof(o->label))
				return usage_error(c, "the label is longer than %zu bytes",
				                   sizeof(o->label) - 1);
			strcpy(o->label, optarg);
			break;
		case 'U':
			if (!parse_uuid(optarg, o->uuid))
				return usage_error(c, "'%s' is no UUID: 8-4-4-4-12 hex digits",
				                   optarg);
			break;
		case 'l':
			o->lanes = (unsigned)strtoul(optarg, &end, 10);
			if (*end || !o->lanes || o->lanes > 1024)
				return usage_error(c, "'%s' is no number of lanes (1 to 1024)",
				                   optarg);
			break;
		case 'f':
			o->force = true;
			break;
		case 'p':
			o->reserve = false;
			break;
		case 'c':
			if (strcmp(optarg, "crc32c") && strcmp(optarg, "none"))
				return usage_error(c, "'%s' is no checksum: crc32c or none",
				                   optarg);
			o->data_checksum = !strcmp(optarg, "crc32c");
			break;
		case 'H':
			return EXIT_OK;
		default:
			return EXIT_USAGE;
		}
	}
	return -1;
}

int cmd_mkfs(struct cmd *c, int argc, char **argv)
{
	struct pm_mkfs_opts o = { .root_uid = geteuid(), .root_gid = getegid(), .reserve = true };
	struct pm_error why = { { 0 } };
	int code = mkfs_options(c, argc, argv, &o), err;

	if (code >= 0)
		return code;
	if (optind + 1 != argc)
		return usage_error(c, "%s",
		                   optind == argc ? "which file or device?"
		                                  : "one file or device at a time");
	signal(SIGBUS, mkfs_met_bad_media);
	err = pm_mkfs(argv[optind], &o, &why);
	if (!err)
		return EXIT_OK;
	complain("%s", why.text[0] ? why.text : strerror(-err));
	return EXIT_SOME;
}

struct findings {
	json_t *list;  /* NULL: print as they come */
	json_t *fixed; /* with --repair and list */
	json_t *left;  /* likewise */
	bool bar, repair;
};

static void tell(struct findings *f, json_t *list, const char *kind, const char *where,
                 const char *what)
{
	if (list)
		json_array_append_new(list, json_pack("{s:s, s:s}", "where", where, "what", what));
	else
		printf("%s%s%s: %s\n", f->bar ? "\r\033[K" : "", kind, where, what);
}

static void found(void *arg, const char *where, const char *what)
{
	struct findings *f = arg;

	tell(f, f->list, f->repair ? "found: " : "", where, what);
}

static void fixed(void *arg, const char *where, const char *what)
{
	struct findings *f = arg;

	tell(f, f->fixed, "repaired: ", where, what);
}

static void left(void *arg, const char *where, const char *what)
{
	struct findings *f = arg;

	tell(f, f->left, "left: ", where, what);
}

static void checked(void *arg, unsigned permille)
{
	struct findings *f = arg;

	if (f->bar)
		fprintf(stderr, "\rchecking %3u%%", permille / 10);
}

static int check_json(struct findings *f, int err, const struct pm_repair_report *rep,
                      const char *why)
{
	const struct pm_check_report *r = &rep->check;
	json_t *o = json_object();

	json_object_set_new(o, "clean", json_boolean(!err && !r->problems));
	json_object_set_new(o, "error", err ? json_string(why) : json_null());
	json_object_set_new(o, "problems", f->list);
	json_object_set_new(o, "problem_count", json_integer((json_int_t)rep->found));
	if (f->repair) {
		json_object_set_new(o, "repaired", f->fixed);
		json_object_set_new(o, "left", f->left);
		json_object_set_new(o, "left_count", json_integer((json_int_t)rep->left));
	}
	json_object_set_new(o, "files", json_integer((json_int_t)r->files));
	json_object_set_new(o, "directories", json_integer((json_int_t)r->dirs));
	json_object_set_new(o, "others", json_integer((json_int_t)r->others));
	json_object_set_new(o, "extents", json_integer((json_int_t)r->extents));
	json_object_set_new(o, "blocks_used", json_integer((json_int_t)r->blocks_used));
	json_object_set_new(o, "blocks_total", json_integer((json_int_t)r->blocks_total));
	return json_print(o);
}

static int run_check(const char *path, struct findings *f, struct pm_repair_report *r,
                     struct pm_error *why)
{
	const struct pm_repair_calls calls = { found, fixed, left, checked };
	int err;

	if (f->repair)
		return pm_repair(path, &calls, f, r, why);
	err = pm_check(path, found, checked, f, &r->check, why);
	r->found = r->left = r->check.problems;
	return err;
}

static void summary(const char *path, const struct pm_repair_report *r)
{
	printf("%s: %s, %llu files, %llu directories, %llu others, %llu of %llu blocks\n", path,
	       r->left    ? "PROBLEMS"
	       : r->found ? "repaired"
	                  : "clean",
	       (unsigned long long)r->check.files, (unsigned long long)r->check.dirs,
	       (unsigned long long)r->check.others, (unsigned long long)r->check.blocks_used,
	       (unsigned long long)r->check.blocks_total);
}

int cmd_check(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
		                               { "repair", no_argument, NULL, 'r' },
		                               { 0 } };
	struct pm_repair_report r = { 0 };
	struct pm_error why = { { 0 } };
	struct findings f = { 0 };
	int opt, err;

	while ((opt = next_option(c, argc, argv, "", longs)) != -1) {
		if (opt == 'H')
			return EXIT_OK;
		if (opt == '?')
			return FSCK_USAGE;
		if (opt == 'r')
			f.repair = true;
		else if (!f.list)
			f.list = json_array();
	}
	if (optind + 1 != argc) {
		usage_error(c, "%s", optind == argc ? "which pool?" : "one pool at a time");
		return FSCK_USAGE;
	}
	if (f.list && f.repair) {
		f.fixed = json_array();
		f.left = json_array();
	}
	f.bar = isatty(2) && !f.list;
	signal(SIGBUS, check_met_bad_media);
	err = run_check(argv[optind], &f, &r, &why);
	if (f.bar)
		fprintf(stderr, "\r\033[K");
	if (err && !why.text[0])
		snprintf(why.text, sizeof(why.text), "%s: %s", argv[optind], strerror(-err));
	if (f.list)
		check_json(&f, err, &r, why.text);
	else if (!err)
		summary(argv[optind], &r);
	if (err) {
		if (!f.list)
			complain("%s", why.text);
		return err == -EUCLEAN ? FSCK_PROBLEMS : FSCK_OPERATIONAL;
	}
	return r.left ? FSCK_PROBLEMS : r.found ? FSCK_REPAIRED : FSCK_CLEAN;
}
