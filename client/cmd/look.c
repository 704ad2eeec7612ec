/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * look.c - berth stat, cat, df, ping, readlink: commands that change nothing
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

#define CAT_BYTES (8u << 20)

/* Open every operand in turn and let @fn work on it. Exit code. */
static int each(struct cmd *c, int argc, char **argv, int (*fn)(const struct place *p, void *arg),
                void *arg)
{
	struct sessions s = { 0 };
	int code = EXIT_OK;

	if (optind == argc)
		return usage_error(c, "which URL?");
	for (int i = optind; i < argc; i++) {
		struct place p = { 0 };

		if (place_remote(&s, c, argv[i], &p) || fn(&p, arg))
			code = EXIT_SOME;
		place_close(&p);
	}
	sessions_close(&s);
	return code;
}

/* --- stat ---------------------------------------------------------------------------------------
 */

struct stat_opts {
	bool follow;
	json_t *out;
};

static void print_times(const struct berth_attr *a)
{
	char t[40];

	format_time(&a->atime, t);
	printf("Access: %s\n", t);
	format_time(&a->mtime, t);
	printf("Modify: %s\n", t);
	format_time(&a->ctime, t);
	printf("Change: %s\n", t);
}

static int stat_one(const struct place *p, void *arg)
{
	struct stat_opts *o = arg;
	struct berth_attr a;
	char mode[11];
	int err = berth_stat(p->b, NULL, p->path, o->follow ? 0 : BERTH_NOFOLLOW, &a);

	if (err) {
		complain_errno(err, "cannot stat", p->text);
		return err;
	}
	if (o->out) {
		json_t *j = json_attr(&a);

		json_set_name(j, "name", p->path, strlen(p->path));
		json_object_set_new(j, "url", json_string(p->text));
		json_array_append_new(o->out, j);
		return 0;
	}
	format_mode(a.type, a.mode, mode);
	printf("  File: %s\n", p->text);
	printf("  Size: %-14llu Used: %-14llu %s\n", (unsigned long long)a.size,
	       (unsigned long long)a.used, type_name(a.type));
	printf(" Inode: %-14llu Links: %-6u", (unsigned long long)a.fileid, a.nlink);
	if (a.type == BERTH_BLK || a.type == BERTH_CHR)
		printf(" Device: %u,%u", a.rdev_major, a.rdev_minor);
	printf("\nAccess: (%04o/%s)  Uid: %u  Gid: %u\n", a.mode, mode, a.uid, a.gid);
	print_times(&a);
	return 0;
}

int cmd_stat(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
		                               { "dereference", no_argument, NULL, 'L' },
		                               { "socket", required_argument, NULL, 's' },
		                               { 0 } };
	struct stat_opts o = { 0 };
	bool json = false;
	int opt, code;

	while ((opt = next_option(c, argc, argv, "Ls:", longs)) != -1) {
		json |= opt == 'j';
		o.follow |= opt == 'L';
		if (opt == 's')
			c->socket = optarg;
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	if (optind == argc)
		return server_stat(c, json);
	o.out = json ? json_array() : NULL;
	code = each(c, argc, argv, stat_one, &o);
	return json && json_print(o.out) ? EXIT_SOME : code;
}

/* --- cat --- */

static int write_all(const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = write(1, buf, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int cat_one(const struct place *p, void *arg)
{
	struct berth_file *f;
	uint8_t *buf = arg;
	struct berth_mr *mr = NULL;
	uint64_t off = 0;
	ssize_t n;
	int err = berth_open(p->b, NULL, p->path, O_RDONLY, 0, &f), out = 0;

	if (err) {
		complain_errno(err, "cannot open", p->text);
		return err;
	}
	berth_register(p->b, buf, CAT_BYTES, &mr); /* only speed depends on it */
	do {
		n = berth_pread(f, buf, CAT_BYTES, off);
		if (n > 0)
			out = write_all(buf, (size_t)n);
		off += n > 0 ? (uint64_t)n : 0;
	} while (n == CAT_BYTES && !out);
	if (n < 0)
		complain_errno((int)n, "cannot read", p->text);
	if (out)
		complain_errno(out, "cannot write to", "standard output");
	berth_unregister(p->b, mr);
	berth_close(f);
	return n < 0 ? (int)n : out;
}

int cmd_cat(struct cmd *c, int argc, char **argv)
{
	uint8_t *buf;
	int opt, code;

	while ((opt = next_option(c, argc, argv, "", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	buf = aligned_alloc(4096, CAT_BYTES);
	if (!buf)
		return EXIT_SOME;
	code = each(c, argc, argv, cat_one, buf);
	free(buf);
	return code;
}

/* --- df --- */

struct df_opts {
	bool human;
	json_t *out;
};

static void df_cell(uint64_t bytes, bool human)
{
	char text[16];

	format_size(bytes, text);
	if (human)
		printf(" %10s", text);
	else
		printf(" %14llu", (unsigned long long)(bytes / 1024));
}

static int df_one(const struct place *p, void *arg)
{
	struct df_opts *o = arg;
	struct berth_statfs fs;
	uint64_t used;
	int err = berth_statfs(p->b, NULL, p->path, &fs);

	if (err) {
		complain_errno(err, "cannot ask for the space of", p->text);
		return err;
	}
	used = fs.total_bytes - fs.free_bytes;
	if (o->out) {
		json_array_append_new(
			o->out, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "url",
		                          p->text, "export", berth_export_path(p->b), "total_bytes",
		                          (json_int_t)fs.total_bytes, "used_bytes",
		                          (json_int_t)used, "free_bytes", (json_int_t)fs.free_bytes,
		                          "available_bytes", (json_int_t)fs.avail_bytes,
		                          "total_files", (json_int_t)fs.total_files, "free_files",
		                          (json_int_t)fs.free_files));
		return 0;
	}
	df_cell(fs.total_bytes, o->human);
	df_cell(used, o->human);
	df_cell(fs.avail_bytes, o->human);
	printf(" %4.0f%% %s\n",
	       fs.total_bytes ? ceil((double)used * 100 / (double)fs.total_bytes) : 0.0, p->text);
	return 0;
}

int cmd_df(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	struct df_opts o = { 0 };
	bool json = false;
	int opt, code;

	while ((opt = next_option(c, argc, argv, "h", longs)) != -1) {
		o.human |= opt == 'h';
		json |= opt == 'j';
		if (opt == 'H' || opt == '?')
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	o.out = json ? json_array() : NULL;
	if (!json && optind < argc)
		printf(o.human ? " %10s %10s %10s %5s %s\n" : " %14s %14s %14s %5s %s\n",
		       o.human ? "Size" : "1K-blocks", "Used", "Available", "Use%", "Export");
	code = each(c, argc, argv, df_one, &o);
	return json && json_print(o.out) ? EXIT_SOME : code;
}

/* --- ping --- */

struct ping_opts {
	unsigned long count;
	double interval;
	bool json;
};

static int ping_one(const struct place *p, void *arg)
{
	const struct ping_opts *o = arg;
	double min = HUGE_VAL, max = 0, sum = 0, us;
	uint64_t ns;
	int err = 0;
	unsigned long n;

	for (n = 0; n < o->count && !err; n++) {
		if (n && o->interval > 0)
			usleep((useconds_t)(o->interval * 1e6));
		err = berth_ping(p->b, &ns);
		if (err)
			break;
		us = (double)ns / 1000;
		min = us < min ? us : min;
		max = us > max ? us : max;
		sum += us;
		if (!o->json)
			printf("answer %lu: %.1f us\n", n + 1, us);
	}
	if (err)
		complain_errno(err, "no answer from", p->text);
	if (o->json)
		return json_print(json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "url", p->text,
		                            "sent", (json_int_t)(n + (err != 0)), "answered",
		                            (json_int_t)n, "min_us", n ? min : 0, "avg_us",
		                            n ? sum / (double)n : 0, "max_us", max))
		               ? -EIO
		               : err;
	if (n)
		printf("%lu answers: min %.1f, average %.1f, max %.1f us\n", n, min,
		       sum / (double)n, max);
	return err;
}

int cmd_ping(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	struct ping_opts o = { .count = 4, .interval = 0.2 };
	char *end;
	int opt;

	while ((opt = next_option(c, argc, argv, "c:i:", longs)) != -1) {
		switch (opt) {
		case 'c':
			o.count = strtoul(optarg, &end, 10);
			if (*end || !o.count || *optarg == '-')
				return usage_error(c, "'%s' is no count", optarg);
			break;
		case 'i':
			o.interval = strtod(optarg, &end);
			if (*end || !(o.interval >= 0 && o.interval <= 3600))
				return usage_error(c, "'%s' is no number of seconds", optarg);
			break;
		case 'j':
			o.json = true;
			break;
		default:
			return opt == 'H' ? EXIT_OK : EXIT_USAGE;
		}
	}
	return each(c, argc, argv, ping_one, &o);
}

/* --- readlink --- */

static int readlink_one(const struct place *p, void *arg)
{
	char target[BERTH_PATH_MAX];
	ssize_t n = berth_readlink(p->b, NULL, p->path, target, sizeof(target));

	(void)arg;
	if (n < 0) {
		complain_errno((int)n, "cannot read the link", p->text);
		return (int)n;
	}
	print_name(stdout, target, (size_t)n);
	putchar('\n');
	return 0;
}

int cmd_readlink(struct cmd *c, int argc, char **argv)
{
	int opt;

	while ((opt = next_option(c, argc, argv, "", NULL)) != -1)
		return opt == 'H' ? EXIT_OK : EXIT_USAGE;
	return each(c, argc, argv, readlink_one, NULL);
}
