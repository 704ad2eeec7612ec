/* SPDX-License-Identifier: BSD-3-Clause */
/* load_opt.c - the command line of `berth-bench load`: one grammar for all operations and transports */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/load.h"
#include "client/berth.h"

static int bad(const char *what, const char *value, const char *cure)
{
	fprintf(stderr, "berth-bench: %s %s: %s\n", what, value, cure);
	return -EINVAL;
}

/* Numbers with k or m behind, separated by commas. */
static int numbers(const char *what, const char *text, unsigned least, unsigned most, unsigned *out, unsigned *n)
{
	const char *whole = text;

	for (*n = 0; *text; ) {
		char *end;
		unsigned long v = strtoul(text, &end, 10);
		int suffix = toupper((unsigned char)*end);

		v <<= suffix == 'K' ? 10 : suffix == 'M' ? 20 : 0;
		end += suffix == 'K' || suffix == 'M';
		if (!isdigit((unsigned char)*text) || (*end && *end != ',') || v < least || v > most || *n == LOAD_LIST) {
			char cure[80];

			snprintf(cure, sizeof(cure), "at most %u numbers from %u to %u, separated by commas", LOAD_LIST, least, most);
			return bad(what, whole, cure);
		}
		out[(*n)++] = (unsigned)v;
		if (*end == ',' && !end[1])
			return bad(what, whole, "a number is missing behind the comma");
		text = *end ? end + 1 : end;
	}
	return *n ? 0 : bad(what, whole, "needs a number");
}

static int number(const char *what, const char *text, unsigned least, unsigned most, unsigned *out)
{
	char cure[64];

	if (bench_number(text, least, most, out))
		return 0;
	snprintf(cure, sizeof(cure), "a number from %u to %u", least, most);
	return bad(what, text, cure);
}

static int seconds(const char *what, const char *text, double *out)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v > 0 && v <= 3600))
		return bad(what, text, "seconds: more than 0, at most 3600");
	*out = v;
	return 0;
}

static int op_list(const char *text, struct plan *pl)
{
	char copy[256], cure[160], *save, *name;

	snprintf(cure, sizeof(cure), "at most %u of: %s", LOAD_LIST, load_op_names);
	if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
		return bad("--ops", text, cure);
	pl->nops = 0;
	for (name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save))
		if (pl->nops == LOAD_LIST || !(pl->op[pl->nops++] = load_op(name)))
			return bad("--ops", name, cure);
	return pl->nops ? 0 : bad("--ops", text, cure);
}

static int url_at(const char *what, char *url, char *host, struct load_spec *s)
{
	struct berth_error why;
	struct berth_url *u;

	if (berth_url_parse(url, &u, &why))
		return bad(what, url, why.text);
	s->url = url;
	if (u->host) {
		snprintf(host, LOAD_HOST, "%s", u->host);
		s->host = host;
	}
	berth_url_free(u);
	return 0;
}

static bool port_in(const char *text, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*out = (unsigned)v;
	return isdigit((unsigned char)*text) && !*end && v && v <= 65535;
}

/* HOST:PORT[:MOUNTPORT[:EXPORT]]; an IPv6 HOST in brackets. */
static bool socket_at(char *text, struct load_spec *s)
{
	char *save, *port, *mount, *export, *after = *text == '[' ? strchr(text, ']') : NULL;

	s->host = text;
	if (after) {
		*after++ = 0;
		s->host++;
		text = *after == ':' ? after + 1 : NULL;
	} else if ((text = strchr(text, ':'))) {
		*text++ = 0;
	}
	port = text ? strtok_r(text, ":", &save) : NULL;
	mount = port ? strtok_r(NULL, ":", &save) : NULL;
	export = mount ? strtok_r(NULL, "", &save) : NULL;
	s->export = export ? export : "/";
	return *s->host && port && port_in(port, &s->port) && port_in(mount ? mount : port, &s->mountport) &&
	       s->export[0] == '/';
}

/* @text copied to @room. */
static int server_at(const char *what, const char *text, const char *transport, char *room, char *host, struct load_spec *s)
{
	bool fabric = !berth_is_url(text) && transport && strcmp(transport, "sockets");
	int n = fabric ? snprintf(room, LOAD_TEXT, "berth+%s://%s/", transport, text) : snprintf(room, LOAD_TEXT, "%s", text);

	if (n >= LOAD_TEXT)
		return bad(what, text, "too long");
	if (berth_is_url(room))
		return url_at(what, room, host, s);
	return socket_at(room, s) ? 0 : bad(what, text, "HOST:PORT[:MOUNTPORT[:EXPORT]] ([HOST] if it is of IPv6), or "
							"berth+PROVIDER://HOST:PORT/EXPORT");
}

void load_transport(const struct load_spec *s, char out[32])
{
	struct berth_url *u;

	snprintf(out, 32, "sockets");
	if (s->url && !berth_url_parse(s->url, &u, NULL)) {
		snprintf(out, 32, "%s", u->provider);
		berth_url_free(u);
	}
}

static int usage(FILE *f)
{
	fprintf(f,
		"usage: berth-bench load --server HOST:PORT[:MOUNTPORT[:EXPORT]] | --server berth+PROVIDER://HOST:PORT/\n"
		"       [--server ...] [--transport sockets|tcp|shm|verbs] [--against SERVER] [--pid PID] [--against-pid PID]\n"
		"       [--control SOCKET] [--ops LIST] [--sizes LIST] [--depths LIST] [--connections LIST] [--idle LIST]\n"
		"       [--against-connections N] [--against-idle N] [--against-depth N] [--threads N] [--rounds N]\n"
		"       [--seconds S | --count N] [--warm-up S] [--seed N] [--floor HOST:PORT]\n"
		"       [--json FILE] [--svg DIR] [--html FILE] [--compare FILE]\n"
		"       LIST: one or more, separated by commas; operations: %s\n", load_op_names);
	return -EINVAL;
}

struct words { /* what has to wait for --transport */
	char *server[LOAD_SERVERS], *against;
	const char *transport, *floor;
};

static int text_option(int opt, char *arg, struct plan *pl, struct words *w)
{
	switch (opt) {
	case 's':
		if (pl->nservers == LOAD_SERVERS)
			return bad("--server", arg, "at most four");
		w->server[pl->nservers++] = arg;
		return 0;
	case 'a': w->against = arg; return 0;
	case 'T': w->transport = arg; return 0;
	case 'f': w->floor = arg; return 0;
	case 'c': pl->party[SERVER].control = arg; return 0;
	case 'o': return op_list(arg, pl);
	case 'j': pl->json = arg; return 0;
	case 'v': pl->svg = arg; return 0;
	case 'h': pl->html = arg; return 0;
	case 'C': pl->compare = arg; return 0;
	case 'H': usage(stdout); exit(0);
	default: return usage(stderr);
	}
}

static int option(int opt, char *arg, struct plan *pl, struct words *w)
{
	unsigned pid = 0;
	int err;

	switch (opt) {
	case 'p':
	case 'P':
		err = number(opt == 'p' ? "--pid" : "--against-pid", arg, 1, INT32_MAX, &pid);
		pl->party[opt == 'p' ? SERVER : AGAINST].pid[0] = (pid_t)pid;
		return err;
	case 'z': return numbers("--sizes", arg, 1, LOAD_DATA, pl->size, &pl->nsizes);
	case 'd': return numbers("--depths", arg, 1, LOAD_DEPTH, pl->depth, &pl->ndepths);
	case 'n': return numbers("--connections", arg, 1, LOAD_CONNS, pl->conns, &pl->nconns);
	case 'i': return numbers("--idle", arg, 0, LOAD_CONNS, pl->idle, &pl->nidle);
	case 'N': return number("--against-connections", arg, 1, LOAD_CONNS, &pl->against_conns);
	case 'I': return number("--against-idle", arg, 0, LOAD_CONNS, &pl->against_idle);
	case 'D': return number("--against-depth", arg, 1, LOAD_DEPTH, &pl->against_depth);
	case 'e': return number("--threads", arg, 1, LOAD_THREADS, &pl->threads);
	case 'r': return number("--rounds", arg, 1, LOAD_ROUNDS, &pl->rounds);
	case 'x': return number("--seed", arg, 1, UINT32_MAX, &pl->seed);
	case 'k': return number("--count", arg, 1, 1u << 30, &pl->count);
	case 't': return seconds("--seconds", arg, &pl->seconds);
	case 'w': return seconds("--warm-up", arg, &pl->warm);
	default: return text_option(opt, arg, pl, w);
	}
}

/* What would only be noticed when all is measured. */
static int check_files(const struct plan *pl)
{
	const char *file[] = { pl->json, pl->html };
	json_t *earlier;

	for (size_t i = 0; i < 2; i++) {
		FILE *f = file[i] ? fopen(file[i], "a") : NULL;

		if (file[i] && !f)
			return bad(i ? "--html" : "--json", file[i], strerror(errno));
		if (f)
			fclose(f);
	}
	if (pl->svg && mkdir(pl->svg, 0777) && errno != EEXIST)
		return bad("--svg", pl->svg, strerror(errno));
	earlier = pl->compare ? json_load_file(pl->compare, 0, NULL) : NULL;
	if (pl->compare && !earlier)
		return bad("--compare", pl->compare, "should be a file that --json wrote");
	json_decref(earlier);
	return 0;
}

static int check_servers(const struct plan *pl)
{
	json_t *counters;

	for (unsigned i = 0; i < FLOOR; i++) {
		pid_t pid = pl->party[i].pid[0];
		char text[16];

		snprintf(text, sizeof(text), "%d", (int)pid);
		if (pid && kill(pid, 0) && errno == ESRCH)
			return bad(i ? "--against-pid" : "--pid", text, "no process of this machine");
	}
	counters = pl->party[SERVER].control ? load_counters(pl->party[SERVER].control) : NULL;
	if (pl->party[SERVER].control && !counters)
		return bad("--control", pl->party[SERVER].control, "no berthd answers there (its socket: `control` in berth.conf)");
	json_decref(counters);
	return 0;
}

/* What only shows when all options are known. */
static int settle(struct plan *pl, struct words *w)
{
	static const char *const known[] = { "sockets", "tcp", "shm", "verbs" };
	bool one_sided = false, fine = !w->transport;
	int err = 0;

	for (size_t i = 0; w->transport && i < sizeof(known) / sizeof(*known); i++)
		fine |= !strcmp(w->transport, known[i]);
	if (!fine)
		return bad("--transport", w->transport, "sockets, tcp, shm or verbs; other providers by a URL as --server");
	for (unsigned i = 0; i < pl->nops; i++)
		one_sided |= pl->op[i]->one_sided;
	for (unsigned i = 0; !err && i < pl->nservers; i++) {
		err = server_at("--server", w->server[i], w->transport, pl->text[i], pl->host[i], &pl->server[i]);
		pl->server[i].floor = w->floor;
		pl->server[i].one_sided = one_sided && pl->server[i].url;
	}
	if (!err && w->against)
		err = server_at("--against", w->against, w->transport, pl->text[LOAD_SERVERS], pl->host[LOAD_SERVERS],
				&pl->party[AGAINST].spec);
	pl->party[AGAINST].spec.one_sided = one_sided && pl->party[AGAINST].spec.url;
	pl->party[SERVER].there = pl->party[FLOOR].there = true;
	pl->party[AGAINST].there = w->against;
	for (unsigned i = 0; !err && one_sided && i < pl->nservers; i++)
		if (!pl->server[i].url && pl->nservers == 1)
			err = bad("--ops", "put, get", "one-sided: name a fabric as --server, berth+tcp://HOST:PORT/");
	for (unsigned i = 0; !err && i < pl->nconns; i++)
		if (pl->conns[i] < pl->threads)
			err = bad("--threads", "", "not more than --connections: each thread needs one of its own");
	for (unsigned i = 0; !err && one_sided && i < pl->nconns; i++)
		if (pl->conns[i] > LOAD_SPAN / LOAD_DATA)
			err = bad("--connections", "", "at most 64 with put and get: each maps its own part of a file of 64 MiB");
	err = err ? err : check_servers(pl);
	return err ? err : check_files(pl);
}

int load_parse(int argc, char **argv, struct plan *pl)
{
	static const struct option longs[] = {
		{ "server", 1, NULL, 's' }, { "against", 1, NULL, 'a' }, { "transport", 1, NULL, 'T' },
		{ "pid", 1, NULL, 'p' }, { "against-pid", 1, NULL, 'P' }, { "control", 1, NULL, 'c' },
		{ "ops", 1, NULL, 'o' }, { "sizes", 1, NULL, 'z' }, { "depths", 1, NULL, 'd' },
		{ "connections", 1, NULL, 'n' }, { "idle", 1, NULL, 'i' }, { "against-connections", 1, NULL, 'N' },
		{ "against-idle", 1, NULL, 'I' }, { "against-depth", 1, NULL, 'D' }, { "threads", 1, NULL, 'e' },
		{ "rounds", 1, NULL, 'r' }, { "seconds", 1, NULL, 't' }, { "count", 1, NULL, 'k' },
		{ "warm-up", 1, NULL, 'w' }, { "seed", 1, NULL, 'x' }, { "json", 1, NULL, 'j' },
		{ "svg", 1, NULL, 'v' }, { "html", 1, NULL, 'h' }, { "compare", 1, NULL, 'C' }, { "floor", 1, NULL, 'f' }, { "help", 0, NULL, 'H' }, { NULL, 0, NULL, 0 },
	};
	struct words w = { .transport = NULL };
	int opt, err = 0;

	*pl = (struct plan){ .rounds = 5, .seed = 1, .seconds = 0.3, .threads = 1, .size = { 4096 }, .nsizes = 1,
			     .depth = { 1, 16 }, .ndepths = 2, .conns = { 1 }, .nconns = 1, .nidle = 1,
			     .against_idle = UINT32_MAX };
	while (!err && (opt = getopt_long(argc, argv, "", longs, NULL)) != -1)
		err = option(opt, optarg, pl, &w);
	if (!err && (optind < argc || !pl->nservers))
		err = usage(stderr);
	if (!err && !pl->nops)
		err = op_list("null,getattr,lookup,read,write,create,remove,small", pl);
	pl->warm = pl->warm > 0 ? pl->warm : pl->seconds;
	return err || settle(pl, &w) ? 2 : 0;
}
