/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.c - `berth-bench load`: rounds in which a server, a second one and the bare exchange take turns
 *
 * A line (transport, operation, size, depth, connections) is measured in rounds. What else the machine does meets
 * all parties of a round; a ratio is that of one round, and what is shown are medians over rounds. Percentiles are of
 * all operations of all rounds but the first, which warms up.
 */
#include <errno.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/load.h"

enum { MAX_FILES = 20000, WARM = -1 };

struct turn { /* of one thread */
	struct bench_client *b;
	const struct load_op *op;
	const char *name;
	unsigned depth, flying;
	uint64_t until, left; /* operations that may yet begin */
	uint64_t rng, ops;
	struct hist *hist;
	atomic_int *stop;
	int err;
};

/* --- one thread --------------------------------------------------------------------------------------------- */

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
	enum load_step s = u->op->step[sl->step];
	int err;

	sl->xid = (sl->xid / LOAD_DEPTH + 1) * LOAD_DEPTH + slot; /* wraps, the slot stays */
	if (s != L_COMMIT) /* of what was just written */
		sl->off = next_random(&u->rng) % (LOAD_SPAN / (u->b->len ? u->b->len : 1)) * u->b->len;
	err = u->b->ops->send(u->b, c, slot, s);
	if (err)
		fprintf(stderr, "berth-bench: %s: %s cannot be sent: %s\n", u->name, u->op->name, strerror(-err));
	return err;
}

static int begin_op(struct turn *u, struct load_conn *c, unsigned slot)
{
	struct load_slot *sl = &c->slot[slot];
	uint64_t now = bench_now();

	if (!u->left || (u->op->takes && !sl->made) || (!u->op->takes && now >= u->until) ||
	    (u->op->makes && sl->made >= MAX_FILES / u->depth / u->b->nconns + 1))
		return 0;
	sl->step = 0;
	sl->begun = now;
	u->flying++;
	u->left--;
	return send_step(u, c, slot);
}

static int on_done(void *arg, struct load_conn *c, unsigned slot, int err)
{
	struct turn *u = arg;
	struct load_slot *sl = &c->slot[slot];
	enum load_step s = u->op->step[sl->step];

	if (err > 0 && err > EMLINK) { /* of RFC 1813; up to there they are those of errno */
		fprintf(stderr, "berth-bench: %s of %s answered status %d\n", u->op->name, u->name, err);
		return -EIO;
	}
	if (err)
		return err > 0 ? -err : err;
	sl->made += (s == L_CREATE);
	sl->made -= (s == L_REMOVE);
	if (++sl->step < u->op->nsteps)
		return send_step(u, c, slot);
	u->flying--;
	u->ops++;
	hist_add(u->hist, bench_now() - sl->begun);
	return begin_op(u, c, slot);
}

static int too_late(void *arg, struct load_conn *c, unsigned slot, int err) /* what a failed turn left in flight */
{
	(void)arg, (void)c, (void)slot, (void)err;
	return 0;
}

static void *drive(void *arg)
{
	struct turn *u = arg;

	u->b->done = on_done;
	u->b->arg = u;
	for (unsigned k = 0; !u->err && k < u->depth; k++)
		for (unsigned i = 0; !u->err && i < u->b->nconns; i++)
			u->err = begin_op(u, u->b->conn[i], k);
	while (!u->err && u->flying)
		u->err = atomic_load_explicit(u->stop, memory_order_relaxed) ? -EINTR : u->b->ops->wait(u->b);
	u->b->done = too_late;
	return NULL;
}

/* --- all threads of a party --------------------------------------------------------------------------------- */

/* -errno. Operations and times into @ops and @hist. */
static int drive_all(struct plan *pl, struct party *p, const struct load_op *op, unsigned size, double seconds, uint64_t seed,
		     uint64_t *ops, struct hist *hist)
{
	struct turn u[LOAD_THREADS] = { 0 };
	pthread_t th[LOAD_THREADS];
	unsigned n = pl->threads;
	int err = 0;

	for (unsigned i = 0; i < n; i++) {
		u[i] = (struct turn){ .b = p->client[i], .op = op, .depth = p->depth, .rng = seed * 2654435761u + i + 1,
				      .name = p->client[i]->ops->name, .hist = calloc(1, sizeof(struct hist)), .stop = &pl->stop };
		u[i].b->len = size;
		u[i].left = pl->count ? pl->count / n + (i < pl->count % n) : UINT64_MAX;
		u[i].until = pl->count ? UINT64_MAX : bench_now() + (uint64_t)(seconds * 1e9);
	}
	for (unsigned i = 1; i < n; i++)
		if (pthread_create(&th[i], NULL, drive, &u[i]))
			abort();
	drive(&u[0]);
	for (unsigned i = 1; i < n; i++)
		pthread_join(th[i], NULL);
	for (unsigned i = 0; i < n; i++) {
		err = err ? err : u[i].err;
		*ops += u[i].ops;
		hist_merge(hist, u[i].hist);
		free(u[i].hist);
	}
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

static double cpu_of_party(const struct party *p)
{
	double us = 0;

	for (unsigned i = 0; i < LOAD_THREADS && p->pid[i]; i++)
		us += cpu_of(p->pid[i]);
	return us;
}

json_t *load_counters(const char *path)
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

/* Ask berthd for its counters. */
static void count(struct party *p, int sign)
{
	json_t *o = p->control ? load_counters(p->control) : NULL;

	if (!o)
		return;
	p->drains += counter_in(o, "drains") * (uint64_t)sign;
	p->copied += counter_in(o, "payload_copied_bytes") * (uint64_t)sign;
	json_decref(o);
}

static int take_turn(struct plan *pl, struct party *p, const struct load_op *op, unsigned size, int round)
{
	struct hist *hist = calloc(2, sizeof(*hist));
	double seconds = round == WARM ? pl->warm : pl->seconds, cpu, own;
	uint64_t seed = (uint64_t)pl->seed * 1000 + (uint64_t)(round + 1), ops = 0, other = 0, start;
	int err = hist ? 0 : -ENOMEM;

	if (!err && op->takes) /* not measured: files for it */
		err = drive_all(pl, p, load_op("create"), size, seconds, seed, &other, &hist[1]);
	if (round != WARM)
		count(p, -1);
	cpu = cpu_of_party(p);
	own = cpu_of(0);
	start = bench_now();
	err = err ? err : drive_all(pl, p, op, size, seconds, seed, &ops, hist);
	if (!err && round != WARM) {
		double n = ops ? (double)ops : 1;

		p->rate[round] = (double)ops / ((double)(bench_now() - start) / 1e9);
		p->cpu[round] = (cpu_of_party(p) - cpu) / n;
		p->client_cpu[round] = (cpu_of(0) - own) / n;
		count(p, 1);
		p->ops += ops;
		p->p50[round] = (double)hist_at(hist, 0.5) / 1e3;
		hist_merge(p->all, hist);
	}
	if (!err && op->makes) /* away with what it left */
		err = drive_all(pl, p, load_op("remove"), size, 0, seed, &other, &hist[1]);
	free(hist);
	return err;
}

/* --- lines --------------------------------------------------------------------------------------------------- */

/* Whose turn it is: each order, so that nobody has the first turn, or the one behind another, more often than the others. */
static enum who whose_turn(int round, unsigned i)
{
	static const enum who order[6][PARTIES] = { { SERVER, AGAINST, FLOOR }, { FLOOR, AGAINST, SERVER },
						    { AGAINST, SERVER, FLOOR }, { FLOOR, SERVER, AGAINST },
						    { SERVER, FLOOR, AGAINST }, { AGAINST, FLOOR, SERVER } };

	return order[round == WARM ? 0 : round % 6][i];
}

static int measure(struct plan *pl, const struct load_op *op, unsigned size, json_t *lines)
{
	json_t *o;
	int err = 0;

	for (unsigned i = 0; i < PARTIES; i++) {
		struct party *p = &pl->party[i];

		p->drains = p->copied = p->ops = 0;
		memset(p->all, 0, sizeof(*p->all));
	}
	for (int r = WARM; !err && r < (int)pl->rounds; r++) { /* in the first, whose floor is last, it learns what it must send */
		for (unsigned i = 0; !err && i < PARTIES; i++) {
			struct party *p = &pl->party[whose_turn(r, i)];

			err = p->there ? take_turn(pl, p, op, size, r) : 0;
			if (err && err != -EINTR)
				fprintf(stderr, "berth-bench: %s, %s: %s\n", p->client[0]->ops->name, op->name, strerror(-err));
		}
		if (r != WARM)
			pl->persist_ns[r] = size && pl->persist ? load_persist_once(pl->persist, size, pl->seed + (unsigned)r) : 0;
	}
	if (err)
		return err;
	o = load_line_json(pl, op, size);
	if (!json_array_size(lines))
		load_line_head(pl->party[AGAINST].there);
	load_line_print(o);
	json_array_append_new(lines, o);
	return 0;
}

static long resident_kib(pid_t pid) /* without the pool; < 0: unknown */
{
	char path[64], line[128];
	long kib = 0, v;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = pid > 0 ? fopen(path, "r") : NULL;
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %ld", &v) == 1 || sscanf(line, "RssFile: %ld", &v) == 1)
			kib += v;
	fclose(f);
	return kib;
}

static int open_server(struct plan *pl, struct party *p)
{
	struct load_spec s = p->spec;
	long before;
	int err = 0;

	s.share = LOAD_SPAN / p->conns & ~(LOAD_DATA - 1);
	for (unsigned i = 0; !err && i < pl->threads; i++) {
		s.conns = p->conns / pl->threads + (i < p->conns % pl->threads);
		s.depth = p->depth;
		err = s.url ? load_fabric_open(&s, &p->client[i]) : load_socket_open(&s, &p->client[i]);
		s.first_id += s.conns;
	}
	p->idle_known = false;
	if (err || !p->idle)
		return err;
	before = resident_kib(p->pid[0]);
	s.conns = p->idle;
	s.bare = true;
	err = s.url ? load_fabric_open(&s, &p->sleeping) : load_socket_open(&s, &p->sleeping);
	if (!err && before >= 0) {
		usleep(300000); /* the server has accepted what the kernel has; no correctness hangs on it */
		p->idle_kib = (double)(resident_kib(p->pid[0]) - before) / p->idle;
		p->idle_known = true;
	}
	return err;
}

static int open_floor(struct plan *pl, struct party *p)
{
	struct load_spec s = pl->party[SERVER].spec;
	char provider[32], node[64];
	unsigned port;
	int err = 0;

	load_transport(&s, provider);
	p->depth = s.depth = pl->party[SERVER].depth;
	s.conns = pl->party[SERVER].conns;
	if (!s.url)
		err = load_echo_start(&s, &p->floor, node, &port);
	p->pid[0] = p->floor.pid;
	for (unsigned i = 0; !err && i < pl->threads; i++) {
		s.conns = pl->party[SERVER].conns / pl->threads + (i < pl->party[SERVER].conns % pl->threads);
		err = s.url ? load_exchange_open(provider, &s, &p->pid[i], &p->client[i]) :
			      load_echo_open(node, port, &s, &p->client[i]);
	}
	return err;
}

static void close_party(struct plan *pl, unsigned which)
{
	struct party *p = &pl->party[which];

	for (unsigned i = 0; i < pl->threads; i++)
		if (p->client[i])
			p->client[i]->ops->close(p->client[i]);
	if (p->sleeping)
		p->sleeping->ops->close(p->sleeping);
	memset(p->client, 0, sizeof(p->client));
	p->sleeping = NULL;
	if (which == FLOOR) {
		floor_end(&p->floor, "");
		memset(p->pid, 0, sizeof(p->pid));
	}
}

/* Connections of one number and depth, and all lines that go over them. */
static int with_conns(struct plan *pl, unsigned conns, unsigned idle, unsigned depth, json_t *lines)
{
	static const unsigned none[1];
	struct load_wire wire[2][LOAD_THREADS][L_NSTEPS] = { { { { 0 } } } };
	struct party *me = &pl->party[SERVER], *peer = &pl->party[AGAINST];
	int err;

	me->conns = conns;
	me->idle = idle;
	me->depth = depth;
	peer->conns = pl->against_conns ? pl->against_conns : conns;
	peer->idle = pl->against_idle != UINT32_MAX ? pl->against_idle : idle;
	peer->depth = pl->against_depth ? pl->against_depth : depth;
	err = pl->stop ? -EINTR : open_server(pl, me);
	err = err || !peer->there ? err : open_server(pl, peer);
	err = err ? err : open_floor(pl, &pl->party[FLOOR]);
	for (unsigned i = 0; !err && i < PARTIES; i++)
		for (unsigned k = 0; pl->party[i].there && k < pl->threads; k++)
			pl->party[i].client[k]->wire = wire[i == AGAINST][k];
	for (unsigned i = 0; !err && i < pl->nops; i++) {
		bool data = load_has_data(pl->op[i]);

		if (pl->op[i]->one_sided && !me->spec.one_sided)
			continue;
		for (unsigned s = 0; !err && s < (data ? pl->nsizes : 1); s++)
			err = measure(pl, pl->op[i], data ? pl->size[s] : none[0], lines);
	}
	for (unsigned i = 0; i < PARTIES; i++)
		close_party(pl, i);
	return err;
}

static int all_lines(struct plan *pl, json_t *lines)
{
	int err = 0;

	for (unsigned v = 0; !err && v < pl->nservers; v++) {
		pl->party[SERVER].spec = pl->server[v];
		for (unsigned c = 0; !err && c < pl->nconns; c++)
			for (unsigned i = 0; !err && i < pl->nidle; i++)
				for (unsigned d = 0; !err && d < pl->ndepths; d++)
					err = with_conns(pl, pl->conns[c], pl->idle[i], pl->depth[d], lines);
	}
	return err;
}

static int hand_over(const struct plan *pl, json_t *doc)
{
	int err = 0;

	if (pl->json && json_dump_file(doc, pl->json, JSON_INDENT(1))) {
		fprintf(stderr, "berth-bench: --json %s: cannot be written\n", pl->json);
		err = -EIO;
	}
	if (!err && pl->svg)
		err = report_svg(&doc, 1, pl->svg);
	if (!err && pl->html)
		err = report_html(&doc, 1, pl->html);
	return !err && pl->compare ? report_compare(doc, pl->compare) : err;
}

/* The first line that @path has for @format; else @out stays. */
static void scan_file(const char *path, const char *format, char *out)
{
	char line[256];
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f) && sscanf(line, format, out) != 1)
		;
	if (f)
		fclose(f);
}

/* What ran it, in words. */
static json_t *machine(void)
{
	char cpu[128] = "unknown processor", tcp[32] = "unknown";
	uint32_t v = fi_version();
	struct utsname u;
	cpu_set_t set;

	scan_file("/proc/cpuinfo", "model name : %127[^\n]", cpu);
	scan_file("/proc/sys/net/ipv4/tcp_congestion_control", "%31s", tcp);
	uname(&u);
	CPU_ZERO(&set);
	sched_getaffinity(0, sizeof(set), &set);
	return json_sprintf("%s, %ld processors, client on %d of them, Linux %s, TCP %s, libfabric %u.%u", cpu,
			    sysconf(_SC_NPROCESSORS_ONLN), CPU_COUNT(&set), u.release, tcp, FI_MAJOR(v), FI_MINOR(v));
}

static void stop(void *arg, int sig)
{
	atomic_store(&((struct plan *)arg)->stop, sig);
}

int bench_load(int argc, char **argv)
{
	struct plan *pl = calloc(1, sizeof(*pl));
	json_t *lines = json_array(), *doc;
	int err = pl ? load_parse(argc, argv, pl) : 1;

	if (err)
		return err;
	for (unsigned i = 0; i < PARTIES; i++)
		if (!(pl->party[i].all = calloc(1, sizeof(struct hist))))
			return 1;
	pl->party[FLOOR].floor.meet = -1;
	bench_on_signal(stop, pl);
	if (load_persist_open(&pl->persist))
		fprintf(stderr, "berth-bench: no memory for the persist alone: /dev/shm wants 64 MiB\n");
	err = all_lines(pl, lines);
	doc = json_pack("{s:i,s:o,s:i,s:f,s:i,s:o}", "version", 2, "machine", machine(), "rounds", pl->rounds, "seconds", pl->seconds, "seed", pl->seed,
			"lines", lines);
	if (err == -EINTR)
		fprintf(stderr, "berth-bench: interrupted: %zu lines are whole\n", json_array_size(lines));
	if (!err || err == -EINTR)
		err = hand_over(pl, doc) ? -EIO : err;
	json_decref(doc);
	for (unsigned i = 0; i < PARTIES; i++)
		free(pl->party[i].all);
	if (pl->persist)
		load_persist_close(pl->persist);
	err = err == -EINTR ? 128 + pl->stop : err ? 1 : 0;
	free(pl);
	return err;
}
