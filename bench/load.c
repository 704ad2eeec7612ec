/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.c - `berth-bench load`: operations of NFS version 3 over TCP with many calls in flight
 *
 * A line (operation, size, depth, connections) is measured in rounds. In each round the server, a second server if
 * one is named, and the bare echo take turns, so that what else the machine does meets all; the ratio is that of one
 * round, and what is shown are medians over rounds. Percentiles are of all operations of all rounds but the first.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/load.h"

enum { MAX_ROUNDS = 99, MAX_LIST = 16, MAX_SAMPLES = 1 << 21, MAX_FILES = 20000 };

static const struct load_op ops[] = {
	{ "null", 1, { L_NULL }, false, false },
	{ "getattr", 1, { L_GETATTR }, false, false },
	{ "lookup", 1, { L_LOOKUP }, false, false },
	{ "read", 1, { L_READ }, false, false },
	{ "write", 1, { L_WRITE }, false, false },
	{ "commit", 2, { L_WRITE_UNSTABLE, L_COMMIT }, false, false },
	{ "create", 1, { L_CREATE }, true, false },
	{ "remove", 1, { L_REMOVE }, false, true },
	{ "mixed", 4, { L_READ, L_READ, L_WRITE, L_GETATTR }, false, false },
	{ "small", 4, { L_CREATE, L_WRITE_NEW, L_READ_NEW, L_REMOVE }, false, false },
};
#define NOPS (sizeof(ops) / sizeof(*ops))

const struct load_op *load_op(const char *name)
{
	for (size_t i = 0; i < NOPS; i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	return NULL;
}

const char *load_op_names(void)
{
	return "null getattr lookup read write commit create remove mixed small";
}

struct samples {
	uint32_t *ns;
	size_t n;
};
struct party { /* one that takes turns */
	const char *name;
	struct load_target t;
	char *host, *export;
	unsigned port, mountport;
	pid_t pid;           /* whose processor time counts; 0: unknown */
	const char *control; /* of berthd; NULL: no counters */
	/* of the line at hand */
	double rate[MAX_ROUNDS], p50[MAX_ROUNDS], cpu[MAX_ROUNDS], client_cpu[MAX_ROUNDS];
	uint64_t drains, copied, ops_counted;
	struct samples all;
};
struct plan {
	const struct load_op *op[MAX_LIST];
	unsigned nops, size[MAX_LIST], nsizes, depth[MAX_LIST], ndepths, conns[MAX_LIST], nconns;
	unsigned rounds, seed;
	double seconds;
	const char *json;
	struct party party[3]; /* the server, a second one or none, the echo */
	unsigned nparties;
};
struct turn {
	struct party *p;
	const struct load_op *op;
	struct load_wire *wire; /* of each step */
	unsigned depth, flying;
	uint64_t until, rng, ops;
	struct samples s;
};

/* --- a turn ---------------------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *x) /* xorshift64* */
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 2685821657736338717u;
}

static int send_step(struct turn *u, struct load_conn *c, unsigned slot)
{
	struct load_slot *sl = &c->slot[slot];

	sl->xid = (sl->xid / LOAD_DEPTH + 1) * LOAD_DEPTH + slot; /* wraps, the slot stays */
	sl->off = next_random(&u->rng) % (LOAD_SPAN / (u->p->t.len ? u->p->t.len : 1)) * u->p->t.len;
	return load_send(&u->p->t, c, slot, u->op->step[sl->step], &u->wire[u->op->step[sl->step]]);
}

static int begin_op(struct turn *u, struct load_conn *c, unsigned slot)
{
	struct load_slot *sl = &c->slot[slot];
	uint64_t now = bench_now();

	if ((now >= u->until && !u->op->takes) || (u->op->takes && !sl->made) ||
	    (u->op->makes && sl->made >= MAX_FILES / u->depth / u->p->t.nconns))
		return 0;
	sl->step = 0;
	sl->begun = now;
	u->flying++;
	return send_step(u, c, slot);
}

static void end_op(struct turn *u, struct load_slot *sl)
{
	uint64_t ns = bench_now() - sl->begun;

	if (u->s.n < MAX_SAMPLES)
		u->s.ns[u->s.n++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
	u->ops++;
}

static int on_reply(void *arg, struct load_conn *c, unsigned slot, const uint8_t *rec, uint32_t len)
{
	struct turn *u = arg;
	struct load_slot *sl = &c->slot[slot];
	enum load_step s = u->op->step[sl->step];
	int st;

	if (!u->p->t.echo) {
		u->wire[s].in = len;
		st = load_nfs_status(s, rec, len, &sl->fh);
		if (st) {
			fprintf(stderr, "berth-bench: %s of %s answered status %d\n", u->op->name, u->p->name, st);
			return st > 0 ? -EIO : st;
		}
	}
	sl->made += (s == L_CREATE);
	sl->made -= (s == L_REMOVE);
	if (++sl->step < u->op->nsteps)
		return send_step(u, c, slot);
	u->flying--;
	end_op(u, sl);
	return begin_op(u, c, slot);
}

static int drive(struct turn *u)
{
	int err = 0;

	for (unsigned i = 0; !err && i < u->p->t.nconns; i++)
		for (unsigned k = 0; !err && k < u->depth; k++)
			err = begin_op(u, &u->p->t.conn[i], k);
	while (!err && u->flying)
		err = load_wait(&u->p->t, on_reply, u);
	return err;
}

static double cpu_of(pid_t pid) /* microseconds; own: 0 */
{
	struct timespec ts = { 0 };
	clockid_t id = CLOCK_PROCESS_CPUTIME_ID;

	if (pid && clock_getcpuclockid(pid, &id))
		return 0;
	clock_gettime(id, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* Ask berthd for one of its counters; 0 if it cannot say. */
static json_t *counters(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	json_t *o = NULL;

	strncpy(un.sun_path, path, sizeof(un.sun_path) - 1);
	if (!connect(fd, (struct sockaddr *)&un, sizeof(un)) && write(fd, "stat\n", 5) == 5)
		o = json_loadfd(fd, 0, NULL);
	close(fd);
	return o;
}

static uint64_t counter_in(json_t *o, const char *name)
{
	const char *key;
	json_t *v, *found = json_object_get(o, name);

	if (json_is_integer(found))
		return (uint64_t)json_integer_value(found);
	json_object_foreach (o, key, v) {
		found = json_is_object(v) ? json_object_get(v, name) : NULL;
		if (json_is_integer(found))
			return (uint64_t)json_integer_value(found);
	}
	return 0;
}

static void count(struct party *p, int sign)
{
	json_t *o = p->control ? counters(p->control) : NULL;

	if (!o)
		return;
	p->drains += counter_in(o, "drains") * (uint64_t)sign;
	p->copied += counter_in(o, "payload_copied_bytes") * (uint64_t)sign;
	json_decref(o);
}

static int by_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile(struct samples *s, double q) /* microseconds; @s is sorted */
{
	size_t i = (size_t)(q * (double)s->n);

	return s->n ? s->ns[i < s->n ? i : s->n - 1] / 1e3 : 0;
}

/* Files for a turn of remove; or those that create left are taken away. Not measured. */
static int aside(struct turn *u, const char *op, double seconds)
{
	struct turn v = *u;

	v.op = load_op(op);
	v.s.n = 0;
	v.until = bench_now() + (uint64_t)(seconds * 1e9);
	v.flying = 0;
	return drive(&v);
}

static int take_turn(struct plan *pl, struct party *p, const struct load_op *op, struct load_wire *wire, unsigned depth,
		     int round)
{
	struct turn u = { .p = p, .op = op, .wire = wire, .depth = depth, .s.ns = malloc(MAX_SAMPLES * 4u) };
	double cpu, own;
	uint64_t start;
	int err = u.s.ns ? 0 : -ENOMEM;

	u.rng = (uint64_t)pl->seed * 2654435761u + (uint64_t)round + 1;
	if (!err && op->takes)
		err = aside(&u, "create", pl->seconds);
	if (round >= 0)
		count(p, -1);
	cpu = cpu_of(p->pid);
	own = cpu_of(0);
	start = bench_now();
	u.until = start + (uint64_t)(pl->seconds * 1e9);
	err = err ? err : drive(&u);
	if (!err && round >= 0) {
		double n = u.ops ? (double)u.ops : 1;

		p->rate[round] = n / ((double)(bench_now() - start) / 1e9);
		p->cpu[round] = (cpu_of(p->pid) - cpu) / n;
		p->client_cpu[round] = (cpu_of(0) - own) / n;
		count(p, 1);
		p->ops_counted += u.ops;
		qsort(u.s.ns, u.s.n, 4, by_u32);
		p->p50[round] = percentile(&u.s, 0.5);
		for (size_t i = 0; i < u.s.n && p->all.n < MAX_SAMPLES; i++)
			p->all.ns[p->all.n++] = u.s.ns[i];
	}
	if (!err && op->makes)
		err = aside(&u, "remove", 0);
	free(u.s.ns);
	return err;
}

/* --- a line ---------------------------------------------------------------------------------------------- */

static double median_of(const double *v, unsigned n)
{
	double copy[MAX_ROUNDS];

	memcpy(copy, v, n * sizeof(*v));
	return bench_median(copy, n);
}

static double ratio(const double *a, const double *b, unsigned n, double *lo, double *hi)
{
	double r[MAX_ROUNDS], m;

	for (unsigned i = 0; i < n; i++)
		r[i] = b[i] > 0 ? a[i] / b[i] : 0;
	m = bench_median(r, n);
	*lo = r[0];
	*hi = r[n - 1];
	return m;
}

static json_t *party_json(const struct plan *pl, struct party *p)
{
	static const struct { const char *key; double q; } q[] = { { "p50_us", .5 }, { "p90_us", .9 }, { "p99_us", .99 },
								   { "p99.9_us", .999 }, { "max_us", 1 } };
	json_t *o = json_object();
	double n = p->ops_counted ? (double)p->ops_counted : 1;

	qsort(p->all.ns, p->all.n, 4, by_u32);
	json_object_set_new(o, "ops_per_second", json_real(median_of(p->rate, pl->rounds)));
	for (size_t i = 0; i < sizeof(q) / sizeof(*q); i++)
		json_object_set_new(o, q[i].key, json_real(percentile(&p->all, q[i].q)));
	json_object_set_new(o, "client_cpu_us", json_real(median_of(p->client_cpu, pl->rounds)));
	if (p->pid)
		json_object_set_new(o, "server_cpu_us", json_real(median_of(p->cpu, pl->rounds)));
	if (p->control) {
		json_object_set_new(o, "drains_per_op", json_real((double)p->drains / n));
		json_object_set_new(o, "copied_bytes", json_integer((json_int_t)p->copied));
	}
	return o;
}

static json_t *line_json(struct plan *pl, const struct load_op *op, unsigned size, unsigned depth, unsigned conns)
{
	json_t *o = json_object();

	json_object_set_new(o, "op", json_string(op->name));
	json_object_set_new(o, "size", json_integer(size));
	json_object_set_new(o, "depth", json_integer(depth));
	json_object_set_new(o, "connections", json_integer(conns));
	for (unsigned i = 0; i < pl->nparties; i++) {
		struct party *p = &pl->party[i];
		json_t *r, *j = party_json(pl, p);
		double lo, hi, m;

		if (i) { /* the first against this one */
			m = ratio(pl->party[0].rate, p->rate, pl->rounds, &lo, &hi);
			r = json_pack("[f,f,f]", m, lo, hi);
			json_object_set_new(j, "rate_ratio", r);
			m = ratio(pl->party[0].p50, p->p50, pl->rounds, &lo, &hi);
			json_object_set_new(j, "p50_ratio", json_pack("[f,f,f]", m, lo, hi));
		}
		json_object_set_new(o, p->name, j);
	}
	return o;
}

static double at(json_t *o, const char *party, const char *key, unsigned i)
{
	json_t *v = json_object_get(json_object_get(o, party), key);

	return json_number_value(json_is_array(v) ? json_array_get(v, i) : v);
}

static void print_line(const struct plan *pl, json_t *o, unsigned size)
{
	const char *me = pl->party[0].name;

	printf("%-8s %8u %5lld %5lld %9.0f/s %7.1f %7.1f %8.1f %6.1f %6.1f %5.2f",
	       json_string_value(json_object_get(o, "op")), size,
	       json_integer_value(json_object_get(o, "depth")), json_integer_value(json_object_get(o, "connections")),
	       at(o, me, "ops_per_second", 0), at(o, me, "p50_us", 0), at(o, me, "p99_us", 0), at(o, me, "max_us", 0),
	       at(o, me, "client_cpu_us", 0), at(o, me, "server_cpu_us", 0), at(o, me, "drains_per_op", 0));
	for (unsigned i = 1; i < pl->nparties; i++)
		printf("  %9.0f/s %5.2f (%.2f-%.2f)", at(o, pl->party[i].name, "ops_per_second", 0),
		       at(o, pl->party[i].name, "rate_ratio", 0), at(o, pl->party[i].name, "rate_ratio", 1),
		       at(o, pl->party[i].name, "rate_ratio", 2));
	putchar('\n');
	fflush(stdout);
}

static int measure(struct plan *pl, const struct load_op *op, unsigned size, unsigned depth, json_t *lines)
{
	struct load_wire wire[L_NSTEPS] = { 0 };
	json_t *o;
	int err = 0;

	for (unsigned i = 0; i < pl->nparties; i++) {
		pl->party[i].t.len = size;
		pl->party[i].drains = pl->party[i].copied = pl->party[i].ops_counted = pl->party[i].all.n = 0;
	}
	for (int r = -1; !err && r < (int)pl->rounds; r++) /* the first warms up, and learns what the echo must send */
		for (unsigned i = 0; !err && i < pl->nparties; i++) {
			struct load_wire own[L_NSTEPS] = { 0 };

			err = take_turn(pl, &pl->party[i], op, i && !pl->party[i].t.echo ? own : wire, depth, r);
			if (err)
				fprintf(stderr, "berth-bench: %s, %s: %s\n", pl->party[i].name, op->name, strerror(-err));
		}
	if (err)
		return err;
	o = line_json(pl, op, size, depth, pl->party[0].t.nconns);
	print_line(pl, o, size);
	json_array_append_new(lines, o);
	return 0;
}

static bool has_data(const struct load_op *op)
{
	for (unsigned i = 0; i < op->nsteps; i++)
		if (op->step[i] == L_READ || op->step[i] == L_WRITE || op->step[i] == L_WRITE_UNSTABLE ||
		    op->step[i] == L_WRITE_NEW)
			return true;
	return false;
}

static int open_party(struct party *p, unsigned conns)
{
	int err;

	p->t = (struct load_target){ .echo = !p->host, .len = 4096 };
	if (!p->host) {
		err = load_echo_start(&p->pid, &p->port);
		return err ? err : load_connect(&p->t, "127.0.0.1", p->port, conns);
	}
	err = load_connect(&p->t, p->host, p->port, conns);
	if (err)
		fprintf(stderr, "berth-bench: %s port %u: %s (is a server there?)\n", p->host, p->port, strerror(-err));
	else if ((err = load_nfs_prepare(&p->t, p->mountport, p->host, p->export)))
		fprintf(stderr, "berth-bench: %s: cannot mount %s and write the file \"bench\": %s (export, rights, space?)\n",
			p->name, p->export, strerror(-err));
	return err;
}

static int with_conns(struct plan *pl, unsigned conns, json_t *lines)
{
	int err = 0;

	for (unsigned i = 0; !err && i < pl->nparties; i++)
		err = open_party(&pl->party[i], conns);
	for (unsigned i = 0; !err && i < pl->nops; i++)
		for (unsigned s = 0; !err && s < (has_data(pl->op[i]) ? pl->nsizes : 1); s++)
			for (unsigned d = 0; !err && d < pl->ndepths; d++)
				err = measure(pl, pl->op[i], has_data(pl->op[i]) ? pl->size[s] : 0, pl->depth[d], lines);
	for (unsigned i = 0; i < pl->nparties; i++) {
		struct party *p = &pl->party[i];

		if (p->t.conn)
			load_close(&p->t);
		if (!p->host && p->pid > 0) {
			kill(p->pid, SIGKILL);
			waitpid(p->pid, NULL, 0);
		}
	}
	return err;
}

/* --- the command line ------------------------------------------------------------------------------------ */

static int bad(const char *what, const char *value, const char *cure)
{
	fprintf(stderr, "berth-bench: %s %s: %s\n", what, value, cure);
	return -EINVAL;
}

/* Numbers with K or M behind, separated by commas. */
static int numbers(const char *what, const char *text, unsigned most, unsigned *out, unsigned *n)
{
	for (*n = 0; *text; ) {
		char *end;
		unsigned long v = strtoul(text, &end, 10);

		v <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 0;
		end += *end == 'K' || *end == 'M';
		if (end == text || (*end && *end != ',') || !v || v > most || *n == MAX_LIST) {
			char cure[80];

			snprintf(cure, sizeof(cure), "at most %d numbers from 1 to %u, separated by commas", MAX_LIST, most);
			return bad(what, text, cure);
		}
		out[(*n)++] = (unsigned)v;
		text = *end ? end + 1 : end;
	}
	return *n ? 0 : bad(what, "", "needs a number");
}

static int op_list(char *text, struct plan *pl)
{
	char *save, *name;

	for (name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		if (pl->nops == MAX_LIST || !(pl->op[pl->nops++] = load_op(name)))
			return bad("--ops", name, load_op_names());
	}
	return pl->nops ? 0 : bad("--ops", "", load_op_names());
}

/* HOST:PORT[:MOUNTPORT[:EXPORT]] */
static int server_at(char *text, struct party *p)
{
	char *save, *port, *mount, *end = NULL;

	p->host = strtok_r(text, ":", &save);
	port = strtok_r(NULL, ":", &save);
	mount = strtok_r(NULL, ":", &save);
	p->export = strtok_r(NULL, ":", &save);
	p->port = port ? (unsigned)strtoul(port, &end, 10) : 0;
	if (!p->host || !p->port || p->port > 65535 || *end)
		return bad("--server, --against", text, "HOST:PORT[:MOUNTPORT[:EXPORT]]");
	p->mountport = mount ? (unsigned)strtoul(mount, NULL, 10) : p->port;
	p->export = p->export ? p->export : (char *)(uintptr_t)"/";
	return 0;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: berth-bench load --server HOST:PORT[:MOUNTPORT[:EXPORT]] [--against ...]\n"
		"       [--pid PID] [--against-pid PID] [--control SOCKET] [--ops LIST] [--sizes LIST] [--depths LIST]\n"
		"       [--connections LIST] [--rounds N] [--seconds S] [--seed N] [--json FILE]\n"
		"       operations: %s\n", load_op_names());
	return 2;
}

static int parse(int argc, char **argv, struct plan *pl)
{
	static const struct option longs[] = {
		{ "server", 1, NULL, 's' }, { "against", 1, NULL, 'a' }, { "pid", 1, NULL, 'p' },
		{ "against-pid", 1, NULL, 'P' }, { "control", 1, NULL, 'c' }, { "ops", 1, NULL, 'o' },
		{ "sizes", 1, NULL, 'z' }, { "depths", 1, NULL, 'd' }, { "connections", 1, NULL, 'n' },
		{ "rounds", 1, NULL, 'r' }, { "seconds", 1, NULL, 't' }, { "seed", 1, NULL, 'x' },
		{ "json", 1, NULL, 'j' }, { NULL, 0, NULL, 0 },
	};
	struct party *me = &pl->party[0], *peer = &pl->party[1];
	unsigned one;
	int opt, err = 0;

	while (!err && (opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (opt) {
		case 's': err = server_at(optarg, me); break;
		case 'a': err = server_at(optarg, peer); break;
		case 'p': me->pid = (pid_t)atoi(optarg); break;
		case 'P': peer->pid = (pid_t)atoi(optarg); break;
		case 'c': me->control = optarg; break;
		case 'o': err = op_list(optarg, pl); break;
		case 'z': err = numbers("--sizes", optarg, LOAD_DATA, pl->size, &pl->nsizes); break;
		case 'd': err = numbers("--depths", optarg, LOAD_DEPTH, pl->depth, &pl->ndepths); break;
		case 'n': err = numbers("--connections", optarg, 4000, pl->conns, &pl->nconns); break;
		case 'r': err = numbers("--rounds", optarg, MAX_ROUNDS, &pl->rounds, &one); break;
		case 'x': err = numbers("--seed", optarg, UINT32_MAX, &pl->seed, &one); break;
		case 'j': pl->json = optarg; break;
		case 't':
			pl->seconds = strtod(optarg, NULL);
			if (!(pl->seconds > 0 && pl->seconds <= 3600))
				err = bad("--seconds", optarg, "more than 0, at most 3600");
			break;
		default: return usage();
		}
	}
	if (!err && (optind < argc || !me->host))
		return usage();
	return err ? 2 : 0;
}

int bench_load(int argc, char **argv)
{
	struct plan pl = { .rounds = 5, .seed = 1, .seconds = 0.3, .size = { 4096 }, .nsizes = 1, .depth = { 1, 16 },
			   .ndepths = 2, .conns = { 1 }, .nconns = 1 };
	char standard[] = "null,getattr,lookup,read,write,create,remove,small";
	json_t *lines = json_array(), *doc;
	int err = parse(argc, argv, &pl);

	if (!err && !pl.nops)
		err = op_list(standard, &pl);
	if (err)
		return err;
	pl.party[0].name = "server";
	pl.nparties = pl.party[1].host ? 3 : 2;
	pl.party[1].name = pl.party[1].host ? "against" : "floor";
	if (pl.nparties == 3)
		pl.party[2].name = "floor";
	for (unsigned i = 0; i < pl.nparties; i++)
		if (!(pl.party[i].all.ns = malloc(MAX_SAMPLES * 4u)))
			return 1;
	printf("%-8s %8s %5s %5s %11s %7s %7s %8s %6s %6s %5s  %s\n", "op", "size", "depth", "conns", "rate", "p50 us",
	       "p99 us", "max us", "client", "server", "drain",
	       pl.nparties == 3 ? "against: rate, ratio (lo-hi)   floor: the same" : "floor: rate, ratio (lo-hi)");
	for (unsigned i = 0; !err && i < pl.nconns; i++)
		err = with_conns(&pl, pl.conns[i], lines);
	doc = json_pack("{s:i,s:i,s:f,s:i,s:o}", "version", 1, "rounds", pl.rounds, "seconds", pl.seconds, "seed", pl.seed,
			"lines", lines);
	if (!err && pl.json && json_dump_file(doc, pl.json, JSON_INDENT(1))) {
		fprintf(stderr, "berth-bench: --json %s: cannot be written\n", pl.json);
		err = -EIO;
	}
	json_decref(doc);
	for (unsigned i = 0; i < pl.nparties; i++)
		free(pl.party[i].all.ns);
	return err ? 1 : 0;
}
