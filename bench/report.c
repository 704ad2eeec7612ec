/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * report.c - `berth-bench report`: what load wrote as JSON, compared with an earlier run, plotted, and as one page
 *
 * Plots are drawn by gnuplot: for each operation and each of size, depth and connections that has more than one value,
 * throughput and median latency against it, one curve for each transport and one, dashed, for its floor.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/load.h"

enum { MAX_DOCS = 16 };
static const char *const axes[] = { "size", "depth", "connections" };
static const char *const keys[] = { "transport", "op", "size", "depth", "connections", "idle", "threads" };
#define NAXES (sizeof(axes) / sizeof(*axes))
#define NKEYS (sizeof(keys) / sizeof(*keys))

static json_t *lines_of(const json_t *doc)
{
	return json_object_get(doc, "lines");
}

/* Do two lines agree in what they are about, but for @but? */
static bool same(const json_t *a, const json_t *b, const char *but)
{
	for (size_t i = 0; i < NKEYS; i++)
		if (!(but && !strcmp(but, keys[i])) && !json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])))
			return false;
	return true;
}

static const char *text(const json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s ? s : "?";
}

static double figure(const json_t *line, const char *party, const char *key, unsigned i)
{
	const json_t *v = json_object_get(party ? json_object_get(line, party) : line, key);

	return json_number_value(json_is_array(v) ? json_array_get(v, i) : v);
}

static json_t *load_doc(const char *file)
{
	json_error_t e;
	json_t *doc = json_load_file(file, 0, &e);

	if (!doc) {
		fprintf(stderr, "berth-bench: %s: %s (line %d); it should be a file that --json wrote\n", file, e.text, e.line);
	} else if (!json_is_array(lines_of(doc)) || json_integer_value(json_object_get(doc, "version")) != 2) {
		fprintf(stderr, "berth-bench: %s: no lines of version 2 in it; it should be a file that --json of this berth-bench "
				"wrote\n", file);
		json_decref(doc);
		doc = NULL;
	}
	return doc;
}

/* --- compare ------------------------------------------------------------------------------------------------ */

/* now/then, with a star if neither median lies in the spread of the other run's rounds. */
static void print_ratio(const json_t *now, const json_t *then, const char *party, const char *key)
{
	double a = figure(now, party, key, 0), b = figure(then, party, key, 0);
	bool outside = (a < figure(then, party, key, 1) || a > figure(then, party, key, 2)) &&
		       (b < figure(now, party, key, 1) || b > figure(now, party, key, 2));

	printf(" %9.2f%c", b > 0 ? a / b : 0, outside ? '*' : ' ');
}

static const json_t *find_line(const json_t *lines, const json_t *like)
{
	size_t i;
	json_t *l;

	json_array_foreach (lines, i, l)
		if (same(l, like, NULL))
			return l;
	return NULL;
}

int report_compare(json_t *now, const char *file)
{
	json_t *then = load_doc(file), *l;
	size_t i;

	if (!then)
		return -EINVAL;
	printf("\nbeside %s: this run / that one; * outside of the spread of both\n%-8s %-8s %8s %5s %5s %10s %10s %18s\n", file,
	       "over", "op", "size", "depth", "conns", "rate", "p50", "rate against floor");
	json_array_foreach (lines_of(now), i, l) {
		const json_t *old = find_line(lines_of(then), l);

		printf("%-8s %-8s %8.0f %5.0f %5.0f", text(l, "transport"), text(l, "op"), figure(l, NULL, "size", 0),
		       figure(l, NULL, "depth", 0), figure(l, NULL, "connections", 0));
		if (old) {
			print_ratio(l, old, "server", "ops_per_second_spread");
			print_ratio(l, old, "server", "p50_us_spread");
			print_ratio(l, old, "floor", "rate_ratio");
			putchar('\n');
		} else {
			printf("  not there\n");
		}
	}
	json_decref(then);
	return 0;
}

/* --- plots --------------------------------------------------------------------------------------------------- */

struct curve {
	const json_t *first; /* the line that it begins with */
	const json_t *doc;
};

/* Is there another line that differs from @l in @axis alone? And is @l the first of them? */
static bool begins_curve(const json_t *doc, const json_t *l, const char *axis)
{
	json_t *m;
	size_t i;
	bool seen = false;

	json_array_foreach (lines_of(doc), i, m) {
		if (m == l)
			seen = true;
		else if (same(l, m, axis))
			return seen;
	}
	return false;
}

static void plot_data(FILE *gp, const struct curve *c, const char *axis, const char *party)
{
	json_t *l;
	size_t i;

	json_array_foreach (lines_of(c->doc), i, l)
		if (same(l, c->first, axis))
			fprintf(gp, "%g %g %g\n", figure(l, NULL, axis, 0), figure(l, party, "ops_per_second", 0),
				figure(l, party, "p50_us", 0));
	fprintf(gp, "e\n");
}

static void put_amount(FILE *f, double v) /* 512, 4K, 1M */
{
	bool mib = v >= 1 << 20, kib = v >= 1 << 10;

	fprintf(f, "%g%s", mib ? v / (1 << 20) : kib ? v / (1 << 10) : v, mib ? "M" : kib ? "K" : "");
}

/* Of the lines that curves go through. */
static void plot_ticks(FILE *gp, const struct curve *c, unsigned n, const char *axis)
{
	json_t *l;
	size_t i;

	fprintf(gp, "set xtics (");
	for (unsigned k = 0; k < n; k++)
		json_array_foreach (lines_of(c[k].doc), i, l)
			if (same(l, c[k].first, axis)) {
				fprintf(gp, "%s'", k || l != c[k].first ? ", " : "");
				put_amount(gp, figure(l, NULL, axis, 0));
				fprintf(gp, "' %g", figure(l, NULL, axis, 0));
			}
	fprintf(gp, ")\n");
}

static bool all_have(const struct curve *c, unsigned n, const char *key)
{
	for (unsigned i = 1; i < n; i++)
		if (!json_equal(json_object_get(c[i].first, key), json_object_get(c[0].first, key)))
			return false;
	return true;
}

/* What a curve, or (@common) all of them, are of besides @axis. */
static void put_rest(FILE *gp, const struct curve *c, unsigned n, unsigned k, const char *axis, bool common)
{
	for (size_t a = 0; a < NAXES; a++)
		if (strcmp(axes[a], axis) && figure(c[k].first, NULL, axes[a], 0) > 0 && all_have(c, n, axes[a]) == common) {
			fprintf(gp, ", %s ", axes[a]);
			put_amount(gp, figure(c[k].first, NULL, axes[a], 0));
		}
}

static void plot_panel(FILE *gp, const struct curve *c, unsigned n, const char *axis, unsigned column)
{
	fprintf(gp, "set xlabel '%s'; set title '%s'; plot ", axis, column == 2 ? "operations in a second" : "p50, microseconds");
	for (unsigned i = 0; i < 2 * n; i++) {
		fprintf(gp, "%s'-' using 1:%u with linespoints lc %u pt %u lw %s dt %u title '%s%s", i ? ", " : "", column, i / 2 + 1,
			i % 2 ? 6 : 7, i % 2 ? "1" : "2", i % 2 + 1, text(c[i / 2].first, "transport"), i % 2 ? ", bare" : "");
		put_rest(gp, c, n, i / 2, axis, false);
		fprintf(gp, "'");
	}
	fprintf(gp, "\n");
	for (unsigned i = 0; i < 2 * n; i++)
		plot_data(gp, &c[i / 2], axis, i % 2 ? "floor" : "server");
}

static int plot(const struct curve *c, unsigned n, const char *op, const char *axis, const char *file)
{
	FILE *gp = popen("gnuplot", "w");

	if (!gp)
		return -errno;
	fprintf(gp, "set terminal svg size 1100,380 dynamic name '%s_%s'\nset output '%s'\n"
		    "set multiplot title '%s against %s", op, axis, file, op, axis);
	put_rest(gp, c, n, 0, axis, true);
	fprintf(gp, "'\nset grid; set logscale xy; set format y '%%.0s%%c'; set tmargin at screen 0.82; set bmargin at screen 0.16\n");
	plot_ticks(gp, c, n, axis);
	fprintf(gp, "unset key; set lmargin at screen 0.06; set rmargin at screen 0.38\n");
	plot_panel(gp, c, n, axis, 2);
	fprintf(gp, "set key outside right top; set lmargin at screen 0.45; set rmargin at screen 0.77\n");
	plot_panel(gp, c, n, axis, 3);
	fprintf(gp, "unset multiplot\n");
	if (pclose(gp)) {
		fprintf(stderr, "berth-bench: gnuplot failed to draw %s (is it there? Debian: gnuplot-nox)\n", file);
		return -EIO;
	}
	return 0;
}

/* @op against @axis over all documents; *drawn: there was something to draw. */
static int plot_one(json_t *const *docs, unsigned n, const char *op, const char *axis, const char *file, bool *drawn)
{
	enum { CURVES = 12 };
	struct curve c[CURVES];
	unsigned have = 0;
	json_t *l;
	size_t i;

	for (unsigned d = 0; d < n; d++)
		json_array_foreach (lines_of(docs[d]), i, l)
			if (have < CURVES && !strcmp(text(l, "op"), op) && begins_curve(docs[d], l, axis))
				c[have++] = (struct curve){ l, docs[d] };
	*drawn = have;
	return have ? plot(c, have, op, axis, file) : 0;
}

typedef int each_plot(void *arg, const char *file);

static int plots(json_t *const *docs, unsigned n, const char *dir, each_plot *each, void *arg)
{
	char names[sizeof("null getattr lookup read write commit create remove mixed small put get")], *save, file[4096];
	int err = 0;

	if (mkdir(dir, 0777) && errno != EEXIST) {
		fprintf(stderr, "berth-bench: %s: %s\n", dir, strerror(errno));
		return -errno;
	}
	snprintf(names, sizeof(names), "%s", load_op_names);
	for (char *op = strtok_r(names, " ", &save); !err && op; op = strtok_r(NULL, " ", &save))
		for (size_t a = 0; !err && a < NAXES; a++) {
			bool drawn;

			snprintf(file, sizeof(file), "%s/%s-%s.svg", dir, op, axes[a]);
			err = plot_one(docs, n, op, axes[a], file, &drawn);
			if (!err && drawn && each)
				err = each(arg, file);
		}
	return err;
}

int report_svg(json_t *const *docs, unsigned n, const char *dir)
{
	return plots(docs, n, dir, NULL, NULL);
}

/* --- page ---------------------------------------------------------------------------------------------------- */

static void put_text(FILE *f, const char *s) /* as HTML */
{
	for (; *s; s++) {
		if (*s == '<' || *s == '>' || *s == '&' || *s == '"')
			fprintf(f, "&#%d;", *s);
		else
			fputc(*s, f);
	}
}

static void put_ratio(FILE *f, const json_t *l, const char *key)
{
	fprintf(f, "<td class=r><b>%.2f</b> (%.2f - %.2f)</td>", figure(l, "floor", key, 0), figure(l, "floor", key, 1),
		figure(l, "floor", key, 2));
}

static void put_row(FILE *f, const json_t *l)
{
	static const struct { const char *key; int digits; } rest[] = {
		{ "p90_us", 1 }, { "p99_us", 1 }, { "p99.9_us", 1 }, { "max_us", 1 }, { "mb_per_second", 1 }, { "client_cpu_us", 1 },
		{ "server_cpu_us", 1 }, { "drains_per_op", 1 }, { "copied_bytes", 0 } };
	const char *op = text(l, "op");

	fprintf(f, "<tr><td>");
	put_text(f, text(l, "transport"));
	fprintf(f, "</td><td>");
	put_text(f, op);
	fprintf(f, "</td><td>");
	if (figure(l, NULL, "size", 0) > 0)
		put_amount(f, figure(l, NULL, "size", 0));
	fprintf(f, "</td><td>%.0f</td><td>%.0f</td>", figure(l, NULL, "depth", 0), figure(l, NULL, "connections", 0));
	fprintf(f, "<td>%.0f</td><td>%.0f</td>", figure(l, "server", "ops_per_second", 0), figure(l, "floor", "ops_per_second", 0));
	put_ratio(f, l, "rate_ratio");
	fprintf(f, "<td>%.1f</td><td>%.1f</td>", figure(l, "server", "p50_us", 0), figure(l, "floor", "p50_us", 0));
	put_ratio(f, l, "p50_ratio");
	for (size_t i = 0; i < sizeof(rest) / sizeof(*rest); i++)
		fprintf(f, "<td>%.*f</td>", rest[i].digits, figure(l, "server", rest[i].key, 0));
	fprintf(f, "<td>%.2f</td></tr>\n", figure(l, NULL, "persist_us", 0));
}

static void put_table(FILE *f, const json_t *doc)
{
	json_t *l;
	size_t i;

	fprintf(f, "<h2>");
	put_text(f, json_object_get(doc, "name") ? text(doc, "name") : "All lines");
	fprintf(f, "</h2>\n<p>");
	put_text(f, text(doc, "machine"));
	fprintf(f, "; %.0f rounds</p>\n<table>\n<tr><th>over</th><th>op</th><th>bytes</th><th>depth</th><th>connections</th>"
		   "<th>op/s</th><th>bare op/s</th><th>rate / bare</th><th>p50 &micro;s</th><th>bare p50</th><th>p50 / bare</th>"
		   "<th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>MB/s</th><th>client CPU &micro;s/op</th>"
		   "<th>server CPU &micro;s/op</th><th>drains/op</th><th>bytes copied</th><th>persist alone &micro;s</th></tr>\n",
		figure(doc, NULL, "rounds", 0));
	json_array_foreach (lines_of(doc), i, l)
		put_row(f, l);
	fprintf(f, "</table>\n");
}

/* The drawing without what stands before it in a file of its own. */
static int put_svg(void *arg, const char *file)
{
	FILE *f = arg, *in = fopen(file, "r");
	char line[65536];
	bool begun = false;

	if (!in)
		return -errno;
	while (fgets(line, sizeof(line), in)) {
		begun = begun || strstr(line, "<svg");
		if (begun)
			fputs(line, f);
	}
	fclose(in);
	return 0;
}

int report_html(json_t *const *docs, unsigned n, const char *file)
{
	char dir[4096];
	FILE *f = fopen(file, "w");
	int err;

	if (!f) {
		fprintf(stderr, "berth-bench: %s: %s\n", file, strerror(errno));
		return -errno;
	}
	fprintf(f, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Berth beside its floor</title>\n<style>"
		   "body { font: 14px sans-serif; margin: 2em } p { max-width: 60em } table { border-collapse: collapse } "
		   "td, th { border: 1px solid #ccc; padding: 2px 6px; text-align: right } th { background: #eee; position: sticky; top: 0 } "
		   "td:nth-child(-n+2) { text-align: left } .r { background: #eef4ff; white-space: nowrap } "
		   "tr:hover td { background: #ffd } svg { max-width: 100%% }</style></head>\n<body><h1>Berth beside its floor</h1>\n"
		   "<p>Each line is one operation over one transport. Beside it, in turns within every round, stands its floor: the same bytes "
		   "moved in the same pattern without RPC, file or persistence, by bare libfabric calls (fabrics) or by a socket that echoes "
		   "(sockets). A ratio is that of one round; shown is the median (lowest - highest) of the rounds. rate / bare: higher is better, "
		   "1 is the floor; p50 / bare: lower is better. Ratios carry over to other machines better than microseconds do.</p>\n"
		   "<p>write is FILE_SYNC, commit an UNSTABLE write and its COMMIT, put and get are one-sided; mixed: two reads, a write, a "
		   "getattr; small: create, write, read, remove. Percentiles are of all operations, not of rounds. persist alone: flush and "
		   "fence of as many bytes just written. Full curves: Berth. Dashed: bare.</p>\n");
	snprintf(dir, sizeof(dir), "%s.plots", file);
	err = plots(docs, n, dir, put_svg, f);
	for (unsigned i = 0; i < n; i++)
		put_table(f, docs[i]);
	fprintf(f, "</body></html>\n");
	if (fclose(f) && !err)
		err = -EIO;
	return err;
}

/* --- the command line ---------------------------------------------------------------------------------------- */

static void show(const json_t *doc)
{
	json_t *l;
	size_t i;

	load_line_head(json_object_get(json_array_get(lines_of(doc), 0), "against"));
	json_array_foreach (lines_of(doc), i, l)
		load_line_print(l);
}

static int usage(FILE *f)
{
	fprintf(f, "usage: berth-bench report [--svg DIR] [--html FILE] [--compare EARLIER] FILE...\n"
		   "FILE, EARLIER: what load --json wrote; without an option its lines are shown\n");
	return f == stdout ? 0 : 2;
}

/* With the file's name as its own. */
static json_t *named_doc(const char *file)
{
	json_t *doc = load_doc(file);
	const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;

	if (doc)
		json_object_set_new(doc, "name", json_stringn(name, strcspn(name, ".")));
	return doc;
}

int bench_report(int argc, char **argv)
{
	static const struct option longs[] = { { "svg", 1, NULL, 'v' }, { "html", 1, NULL, 'h' }, { "compare", 1, NULL, 'C' },
					       { "help", 0, NULL, 'H' }, { NULL, 0, NULL, 0 } };
	const char *svg = NULL, *html = NULL, *compare = NULL;
	json_t *docs[MAX_DOCS];
	unsigned n = 0;
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (opt) {
		case 'v': svg = optarg; break;
		case 'h': html = optarg; break;
		case 'C': compare = optarg; break;
		case 'H': return usage(stdout);
		default: return usage(stderr);
		}
	}
	if (optind == argc || argc - optind > MAX_DOCS)
		return usage(stderr);
	for (; !err && optind < argc; optind++)
		err = (docs[n] = named_doc(argv[optind])) ? (int)(n++, 0) : -EINVAL;
	for (unsigned i = 0; !err && !svg && !html && !compare && i < n; i++)
		show(docs[i]);
	for (unsigned i = 0; !err && compare && i < n; i++)
		err = report_compare(docs[i], compare);
	err = err || !svg ? err : report_svg(docs, n, svg);
	err = err || !html ? err : report_html(docs, n, html);
	while (n)
		json_decref(docs[--n]);
	return err ? 1 : 0;
}
