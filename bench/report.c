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

static void plot_panel(FILE *gp, const struct curve *c, unsigned n, const char *axis, unsigned column)
{
	fprintf(gp, "set xlabel '%s'; set ylabel '%s'; plot ", axis, column == 2 ? "operations/s" : "p50, microseconds");
	for (unsigned i = 0; i < 2 * n; i++) {
		const json_t *l = c[i / 2].first;

		fprintf(gp, "%s'-' using 1:%u with linespoints lc %u dt %u title '%s%s", i ? ", " : "", column, i / 2 + 1, i % 2 + 1,
			text(l, "transport"), i % 2 ? ", bare" : "");
		for (size_t k = 0; !(i % 2) && k < NAXES; k++)
			if (strcmp(axes[k], axis) && figure(l, NULL, axes[k], 0) > 0)
				fprintf(gp, ", %s %g", axes[k], figure(l, NULL, axes[k], 0));
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
	fprintf(gp, "set terminal svg size 1000,380 dynamic name '%s_%s'\nset output '%s'\n"
		    "set multiplot layout 1,2 title '%s against %s'\n"
		    "set grid; set logscale x 2; set key below; set yrange [0:*]; set xtics rotate by -45\n",
		op, axis, file, op, axis);
	plot_panel(gp, c, n, axis, 2);
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

static void put_row(FILE *f, const json_t *l)
{
	static const char *const of_server[] = { "ops_per_second", "mb_per_second", "p50_us", "p90_us", "p99_us", "p99.9_us",
						 "max_us", "client_cpu_us", "server_cpu_us", "drains_per_op", "copied_bytes" };

	fprintf(f, "<tr><td>");
	put_text(f, text(l, "transport"));
	fprintf(f, "</td><td>");
	put_text(f, text(l, "op"));
	fprintf(f, "</td><td>%.0f</td><td>%.0f</td><td>%.0f</td>", figure(l, NULL, "size", 0), figure(l, NULL, "depth", 0),
		figure(l, NULL, "connections", 0));
	for (size_t i = 0; i < sizeof(of_server) / sizeof(*of_server); i++)
		fprintf(f, "<td>%.*f</td>", i ? 1 : 0, figure(l, "server", of_server[i], 0));
	fprintf(f, "<td>%.2f</td>", figure(l, NULL, "persist_us", 0));
	fprintf(f, "<td>%.0f</td><td>%.1f</td><td><b>%.2f</b> (%.2f - %.2f)</td><td><b>%.2f</b> (%.2f - %.2f)</td></tr>\n",
		figure(l, "floor", "ops_per_second", 0), figure(l, "floor", "p50_us", 0), figure(l, "floor", "rate_ratio", 0),
		figure(l, "floor", "rate_ratio", 1), figure(l, "floor", "rate_ratio", 2), figure(l, "floor", "p50_ratio", 0),
		figure(l, "floor", "p50_ratio", 1), figure(l, "floor", "p50_ratio", 2));
}

static void put_table(FILE *f, const json_t *doc)
{
	json_t *l;
	size_t i;

	fprintf(f, "<p>%.0f rounds, medians; ratios of one round: median (lowest - highest)</p>\n<table>\n<tr><th>over</th><th>op</th>"
		   "<th>bytes</th><th>depth</th><th>connections</th><th>operations/s</th><th>MB/s</th><th>p50 us</th><th>p90</th>"
		   "<th>p99</th><th>p99.9</th><th>max</th><th>client us/op</th><th>server us/op</th><th>drains/op</th>"
		   "<th>bytes copied</th><th>persist alone us</th><th>bare: operations/s</th><th>bare: p50 us</th>"
		   "<th>rate / bare</th><th>p50 / bare</th></tr>\n", figure(doc, NULL, "rounds", 0));
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
	fprintf(f, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Berth beside its floor</title>\n<style>body "
		   "{ font: 14px sans-serif; margin: 2em } table { border-collapse: collapse } td, th { border: 1px solid #ccc; "
		   "padding: 2px 6px; text-align: right } td:nth-child(-n+2) { text-align: left } svg { max-width: 100%% }</style></head>\n"
		   "<body><h1>Berth beside its floor</h1>\n");
	for (unsigned i = 0; i < n; i++)
		put_table(f, docs[i]);
	fprintf(f, "<p>Full lines: Berth. Dashed: the bare exchange of the same bytes.</p>\n");
	snprintf(dir, sizeof(dir), "%s.plots", file);
	err = plots(docs, n, dir, put_svg, f);
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
		err = (docs[n] = load_doc(argv[optind])) ? (int)(n++, 0) : -EINVAL;
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
