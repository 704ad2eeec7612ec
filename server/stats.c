/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stats.c - what the workers counted, added up and written as JSON
 *
 * A worker's counters are plain numbers that only its thread touches. A request travels from worker to
 * worker as mail and adds each one's up on that one's own thread.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/process.h"

static const char *const kind_name[TP_KINDS] = { "tcp", "fabric", "rdm" };

/* The members of tp_stats that are simple sums, with their names outside. */
static const struct {
	const char *name;
	size_t at;
} sums[] = {
#define S(field) { #field, offsetof(struct tp_stats, field) }
	S(payload_placed_bytes), S(payload_inline_bytes), S(payload_staged_bytes),
	S(payload_copied_bytes), { "connections", offsetof(struct tp_stats, conns) },
	{ "connections_total", offsetof(struct tp_stats, conns_total) },
	{ "connections_displaced", offsetof(struct tp_stats, displaced) }, S(credits), S(calls_now), S(domains),
	S(bad_records), S(bad_headers), S(bad_chunks), S(bad_versions), S(auth_errors), S(timeouts),
	S(resets), S(provider_errors), S(provider_resets),
#undef S
};
#define NSUMS (sizeof(sums) / sizeof(*sums))

static uint64_t *member(const struct tp_stats *s, unsigned i)
{
	return (uint64_t *)((char *)(uintptr_t)s + sums[i].at);
}

static void add_up(struct stats_request *rq, const struct tp_stats *s)
{
	for (unsigned i = 0; i < NSUMS; i++)
		*member(&rq->sum, i) += *member(s, i);
	for (unsigned k = 0; k < TP_KINDS; k++) {
		for (unsigned p = 0; p < rq->nprocs; p++) {
			struct tp_proc_stats *to = &rq->sum.proc[k][p];
			const struct tp_proc_stats *from = &s->proc[k][p];

			to->calls += from->calls;
			to->errors += from->errors;
			to->nsec += from->nsec;
			for (unsigned h = 0; h < TP_HIST; h++)
				to->hist[h] += from->hist[h];
		}
	}
}

static void deliver_stats(struct worker *w, struct mail *m)
{
	struct stats_request *rq = container_of(m, struct stats_request, mail);
	struct server *srv = rq->srv;

	if (rq->next == srv->nworkers) {
		rq->done(rq);
		return;
	}
	if (w->svc)
		add_up(rq, tp_service_stats(w->svc));
	rq->next++;
	worker_post(&srv->workers[rq->next % srv->nworkers], m);
}

int stats_begin(struct stats_request *rq, struct server *srv, void (*done)(struct stats_request *))
{
	memset(rq, 0, sizeof(*rq));
	rq->srv = srv;
	rq->done = done;
	rq->mail.deliver = deliver_stats;
	rq->nprocs = tp_stats_index(srv->workers[0].svc, 0, 0, 0);
	for (unsigned k = 0; k < TP_KINDS; k++) {
		rq->sum.proc[k] = calloc(rq->nprocs, sizeof(struct tp_proc_stats));
		if (!rq->sum.proc[k]) {
			stats_end(rq);
			return -ENOMEM;
		}
	}
	worker_post(&srv->workers[0], &rq->mail);
	return 0;
}

void stats_end(struct stats_request *rq)
{
	for (unsigned k = 0; k < TP_KINDS; k++)
		free(rq->sum.proc[k]);
}

/* --- JSON ---------------------------------------------------------------------------------------- */

static json_t *counters(const struct stats_request *rq)
{
	json_t *o = json_object();
	struct pm_stats pm;

	for (unsigned i = 0; i < NSUMS; i++)
		json_object_set_new(o, sums[i].name, json_integer((json_int_t)*member(&rq->sum, i)));
	pm_get_stats(rq->srv->store, &pm);
#define P(field) json_object_set_new(o, #field, json_integer((json_int_t)pm.field))
	P(transactions);
	P(journal_bytes);
	P(flushes);
	P(flushed_bytes);
	P(drains);
	P(msyncs);
	P(checkpoints);
	P(pins);
	P(fresh_blocks);
	P(dirty_inodes);
	P(flush_errors);
	P(checksum_errors);
	P(media_errors);
	P(replies);
#undef P
	json_object_set_new(o, "layouts", json_integer((json_int_t)pm.leases));
	json_object_set_new(o, "layouts_recalled", json_integer((json_int_t)pm.recalls));
	json_object_set_new(o, "layouts_expired",
			    json_integer((json_int_t)atomic_load(&rq->srv->layouts_expired)));
	json_object_set_new(o, "layouts_revoked",
			    json_integer((json_int_t)atomic_load(&rq->srv->layouts_revoked)));
	json_object_set_new(o, "drc_hits", json_integer((json_int_t)atomic_load(&rq->srv->drc_hits)));
	json_object_set_new(o, "drc_in_progress",
			    json_integer((json_int_t)atomic_load(&rq->srv->drc_in_progress)));
	return o;
}

static json_t *one_proc(const struct tp_proc_stats *p)
{
	json_t *o = json_object(), *h = json_array();
	unsigned last = TP_HIST;

	while (last && !p->hist[last - 1])
		last--;
	for (unsigned i = 0; i < last; i++)
		json_array_append_new(h, json_integer((json_int_t)p->hist[i]));
	json_object_set_new(o, "count", json_integer((json_int_t)p->calls));
	json_object_set_new(o, "errors", json_integer((json_int_t)p->errors));
	json_object_set_new(o, "mean_ns", json_integer(p->calls ? (json_int_t)(p->nsec / p->calls) : 0));
	json_object_set_new(o, "latency_log2_ns", h);
	return o;
}

static json_t *calls(const struct stats_request *rq)
{
	static const struct tp_program *const programs[] = { &nfs3_program, &mount3_program,
							    &layout_program };
	static const char *const names[] = { "nfs3", "mount3", "layout" };
	struct tp_service *svc = rq->srv->workers[0].svc;
	json_t *o = json_object();

	for (unsigned k = 0; k < TP_KINDS; k++) {
		json_t *kind = json_object();

		for (unsigned g = 0; g < 3; g++) {
			const struct tp_program *pg = programs[g];

			for (uint32_t p = 0; p < pg->nprocs; p++) {
				unsigned at = tp_stats_index(svc, pg->prog, pg->vers, p);
				char name[64];

				if (!pg->procs[p].name || !rq->sum.proc[k][at].calls)
					continue;
				snprintf(name, sizeof(name), "%s.%s", names[g], pg->procs[p].name);
				json_object_set_new(kind, name, one_proc(&rq->sum.proc[k][at]));
			}
		}
		json_object_set_new(o, kind_name[k], kind);
	}
	return o;
}

static json_t *pool(struct server *srv)
{
	const struct pm_info *in = &srv->info;
	json_t *o = json_object();
	struct pm_space sp;
	char uuid[40];

	pm_get_space(srv->store, &sp);
	for (int i = 0, n = 0; i < 16; i++)
		n += snprintf(uuid + n, sizeof(uuid) - (size_t)n, "%s%02x",
			      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", in->uuid[i]);
	json_object_set_new(o, "path", json_string(srv->conf.pool));
	json_object_set_new(o, "uuid", json_string(uuid));
	json_object_set_new(o, "label", json_stringn_nocheck(in->label, strnlen(in->label, 64)));
	json_object_set_new(o, "size", json_integer((json_int_t)in->size));
	json_object_set_new(o, "free", json_integer((json_int_t)(sp.free_blocks * PM_BLOCK)));
	json_object_set_new(o, "inodes", json_integer((json_int_t)sp.inodes));
	json_object_set_new(o, "boot", json_integer((json_int_t)in->boot));
	json_object_set_new(o, "persistence", json_string(pm_method_name(in->method)));
	json_object_set_new(o, "persistence_reason", json_string(in->reason));
	json_object_set_new(o, "persistence_not_promised", json_string(in->not_promised));
	json_object_set_new(o, "granularity", json_string(pm_gran_name(in->gran)));
	json_object_set_new(o, "data_checksum", json_string(in->data_checksum ? "crc32c" : "none"));
	json_object_set_new(o, "verify_reads",
			    json_boolean(in->data_checksum && srv->conf.verify_reads));
	json_object_set_new(o, "was_clean", json_boolean(in->was_clean));
	json_object_set_new(o, "replayed", json_integer((json_int_t)in->replayed));
	return o;
}

/* What makes durable what clients write by themselves. */
static json_t *fabrics(const struct server *srv)
{
	const struct fabric_conf *f;
	json_t *list = json_array();

	STAILQ_FOREACH (f, &srv->conf.fabrics, link) {
		bool none = f->verdict.method == PM_AUTO;
		json_t *o = json_object();

		json_object_set_new(o, "name", json_string(f->opts.name));
		json_object_set_new(o, "provider", json_string(f->opts.provider));
		json_object_set_new(o, "layout_persistence", none ? json_null() : json_string(pm_method_name(f->verdict.method)));
		json_object_set_new(o, "layout_persistence_reason", json_string(f->verdict.reason));
		json_object_set_new(o, "layout_persistence_not_promised",
				    none ? json_null() : json_string(f->verdict.not_promised));
		json_array_append_new(list, o);
	}
	return list;
}

static void add_listener(void *list, const char *what)
{
	json_array_append_new(list, json_string(what));
}

char *stats_json(struct stats_request *rq)
{
	struct server *srv = rq->srv;
	json_t *o = json_object(), *list = json_array();
	struct timespec now;
	char *text;

	clock_gettime(CLOCK_MONOTONIC, &now);
	for (unsigned i = 0; i < srv->nworkers; i++)
		worker_listeners(&srv->workers[i], add_listener, list);
	json_object_set_new(o, "version", json_string(BERTH_VERSION));
	json_object_set_new(o, "pid", json_integer(getpid()));
	json_object_set_new(o, "uptime", json_integer(now.tv_sec - srv->started.tv_sec));
	json_object_set_new(o, "workers", json_integer(srv->nworkers));
	json_object_set_new(o, "pool", pool(srv));
	json_object_set_new(o, "listeners", list);
	json_object_set_new(o, "fabrics", fabrics(srv));
	json_object_set_new(o, "counters", counters(rq));
	json_object_set_new(o, "calls", calls(rq));
	text = json_dumps(o, JSON_INDENT(1));
	json_decref(o);
	return text;
}
