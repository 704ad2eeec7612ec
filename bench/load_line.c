/* SPDX-License-Identifier: BSD-3-Clause */
/* load_line.c - what was measured for one line: as JSON, and as text */
#include <stdio.h>
#include <string.h>

#include "bench/load.h"

static const char *const party_name[PARTIES] = { "server", "against", "floor" };

static double median_of(const double *v, unsigned n, double *lo, double *hi)
{
	double copy[LOAD_ROUNDS], m;

	memcpy(copy, v, n * sizeof(*v));
	m = bench_median(copy, n);
	*lo = copy[0];
	*hi = copy[n - 1];
	return m;
}

/* [median, lowest, highest] of the rounds. */
static json_t *spread(const double *v, unsigned n)
{
	double lo, hi, m = median_of(v, n, &lo, &hi);

	return json_pack("[f,f,f]", m, lo, hi);
}

static json_t *ratio(const double *a, const double *b, unsigned n)
{
	double r[LOAD_ROUNDS];

	for (unsigned i = 0; i < n; i++)
		r[i] = b[i] > 0 ? a[i] / b[i] : 0;
	return spread(r, n);
}

/* The server's rate beside that of a floor which would also persist what it moved, by the same processor. */
static json_t *durable_ratio(const struct plan *pl, const struct party *me, const struct party *floor)
{
	double r[LOAD_ROUNDS];

	for (unsigned i = 0; i < pl->rounds; i++)
		r[i] = floor->rate[i] > 0 ? me->rate[i] * (1 / floor->rate[i] + pl->persist_ns[i] / 1e9) : 0;
	return spread(r, pl->rounds);
}

static json_t *party_json(const struct plan *pl, const struct party *p, unsigned size)
{
	static const struct { const char *key; double q; } q[] = { { "p50_us", .5 }, { "p90_us", .9 }, { "p99_us", .99 },
								   { "p99.9_us", .999 }, { "max_us", 1 } };
	json_t *o = json_object();
	double n = p->ops ? (double)p->ops : 1, lo, hi, rate = median_of(p->rate, pl->rounds, &lo, &hi);

	json_object_set_new(o, "operations", json_integer((json_int_t)p->ops));
	json_object_set_new(o, "ops_per_second", json_real(rate));
	json_object_set_new(o, "ops_per_second_spread", spread(p->rate, pl->rounds));
	json_object_set_new(o, "mb_per_second", json_real(rate * size / 1e6));
	for (size_t i = 0; i < sizeof(q) / sizeof(*q); i++)
		json_object_set_new(o, q[i].key, json_real((double)hist_at(p->all, q[i].q) / 1e3));
	json_object_set_new(o, "p50_us_spread", spread(p->p50, pl->rounds));
	json_object_set_new(o, "client_cpu_us", json_real(median_of(p->client_cpu, pl->rounds, &lo, &hi)));
	if (p->pid[0])
		json_object_set_new(o, "server_cpu_us", json_real(median_of(p->cpu, pl->rounds, &lo, &hi)));
	if (p->control) {
		json_object_set_new(o, "drains_per_op", json_real((double)p->drains / n));
		json_object_set_new(o, "copied_bytes", json_integer((json_int_t)p->copied));
	}
	if (p->idle_known && p->idle)
		json_object_set_new(o, "idle_connection_kib", json_real(p->idle_kib));
	return o;
}

json_t *load_line_json(struct plan *pl, const struct load_op *op, unsigned size)
{
	struct party *me = &pl->party[SERVER];
	char transport[32];
	json_t *o;
	double lo, hi;

	load_transport(&me->spec, transport);
	o = json_pack("{s:s,s:s,s:i,s:i,s:i,s:i,s:i}", "transport", transport, "op", op->name, "size", size, "depth", me->depth,
		      "connections", me->conns, "idle", me->idle, "threads", pl->threads);
	json_object_set_new(o, "persist_us", json_real(median_of(pl->persist_ns, pl->rounds, &lo, &hi) / 1e3));
	for (unsigned i = 0; i < PARTIES; i++) {
		struct party *p = &pl->party[i];
		json_t *j;

		if (!p->there)
			continue;
		j = party_json(pl, p, size);
		if (i != SERVER) { /* the server against this one */
			json_object_set_new(j, "rate_ratio", ratio(me->rate, p->rate, pl->rounds));
			json_object_set_new(j, "p50_ratio", ratio(me->p50, p->p50, pl->rounds));
			if (me->pid[0] && p->pid[0])
				json_object_set_new(j, "server_cpu_ratio", ratio(me->cpu, p->cpu, pl->rounds));
		}
		if (i == FLOOR && pl->persist && load_persists(op))
			json_object_set_new(j, "durable_rate_ratio", durable_ratio(pl, me, p));
		json_object_set_new(o, party_name[i], j);
	}
	return o;
}

void load_line_head(bool against)
{
	printf("%-7s %-8s %7s %5s %5s %10s %8s %8s %8s %8s %8s %9s %6s %6s %5s %7s  %s\n", "over", "op", "size", "depth", "conns",
	       "rate/s", "MB/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "client", "server", "drain", "persist",
	       against ? "against: rate ratio (lo-hi) p50 ratio   floor: the same, ratio with persist" :
					  "floor: rate, ratio (lo-hi), p50 ratio, ratio with persist");
}

static double at(const json_t *o, const char *party, const char *key, unsigned i)
{
	const json_t *v = json_object_get(json_object_get(o, party), key);

	return json_number_value(json_is_array(v) ? json_array_get(v, i) : v);
}

static int integer(const json_t *o, const char *key)
{
	return (int)json_integer_value(json_object_get(o, key));
}

void load_line_print(const json_t *o)
{
	printf("%-7s %-8s %7d %5d %5d %10.0f %8.1f %8.1f %8.1f %8.1f %8.1f %9.1f %6.1f %6.1f %5.2f %7.2f",
	       json_string_value(json_object_get(o, "transport")), json_string_value(json_object_get(o, "op")),
	       integer(o, "size"), integer(o, "depth"), integer(o, "connections"), at(o, "server", "ops_per_second", 0),
	       at(o, "server", "mb_per_second", 0), at(o, "server", "p50_us", 0), at(o, "server", "p90_us", 0),
	       at(o, "server", "p99_us", 0), at(o, "server", "p99.9_us", 0), at(o, "server", "max_us", 0),
	       at(o, "server", "client_cpu_us", 0), at(o, "server", "server_cpu_us", 0), at(o, "server", "drains_per_op", 0),
	       json_number_value(json_object_get(o, "persist_us")));
	for (unsigned i = AGAINST; i < PARTIES; i++)
		if (json_object_get(o, party_name[i]))
			printf("  %9.0f/s %5.2f (%.2f-%.2f) %5.2f", at(o, party_name[i], "ops_per_second", 0),
			       at(o, party_name[i], "rate_ratio", 0), at(o, party_name[i], "rate_ratio", 1),
			       at(o, party_name[i], "rate_ratio", 2), at(o, party_name[i], "p50_ratio", 0));
	if (json_object_get(json_object_get(o, "floor"), "durable_rate_ratio"))
		printf(" %5.2f", at(o, "floor", "durable_rate_ratio", 0));
	putchar('\n');
	if (json_object_get(json_object_get(o, "server"), "idle_connection_kib"))
		printf("        %d idle connections: %.1f KiB resident each\n", integer(o, "idle"),
		       at(o, "server", "idle_connection_kib", 0));
	fflush(stdout);
}
