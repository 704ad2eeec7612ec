/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout_table.c - layouts of each connection, from MAP to the last key's death
 */
#include "server/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define LEASE           30
#define LEASE_UNFENCED  2   /* others wait for all of it if a client does not answer a recall */
#define TURN            1.0 /* seconds that a client's turn lasts at least (layout_exclusive) */
#define PROMISE         3.0 /* seconds within which the next one has to ask again; more than TURN */
#define UNFENCED_MARGIN 1.0 /* seconds behind a lease that nobody enforces */

/* --- clients --- */

static void client_gone(struct tp_conn_watch *w);

struct layout_client *layout_client_find(struct tp_call *call)
{
	struct worker *w = call->worker;
	struct layout_client *cl;

	HASH_FIND_PTR(w->layout_clients, &call->conn, cl);
	return cl;
}

unsigned layout_lease(const struct fabric_conf *conf, bool fenced)
{
	return conf->lease ? conf->lease : fenced ? LEASE : LEASE_UNFENCED;
}

struct layout_client *layout_client_of(struct tp_call *call, const struct fabric_conf *conf, bool fenced)
{
	struct layout_client *cl = layout_client_find(call);

	if (cl)
		return cl;
	cl = calloc(1, sizeof(*cl));
	if (!cl)
		return NULL;
	cl->conn = call->conn;
	cl->w = call->worker;
	cl->conf = conf;
	nfs3_client(call, cl->peer);
	cl->fenced = fenced;
	cl->lease = layout_lease(conf, fenced);
	cl->next_id = 1;
	TAILQ_INIT(&cl->live);
	TAILQ_INIT(&cl->ended);
	cl->watch.gone = client_gone;
	tp_conn_watch(call, &cl->watch);
	HASH_ADD_PTR(cl->w->layout_clients, conn, cl);
	return cl;
}

static void client_rest(struct layout_client *cl)
{
	if (cl->gone && !cl->n)
		free(cl);
}

/* The endpoint is closed: keys are dead as soon as they are closed. */
static void client_gone(struct tp_conn_watch *w)
{
	struct layout_client *cl = container_of(w, struct layout_client, watch);
	bool unaware = !cl->fenced && !w->left && !cl->w->ending;
	struct layout *l;

	HASH_DEL(cl->w->layout_clients, cl);
	cl->n++; /* so that it outlives the loop */
	cl->gone = true;
	while ((l = TAILQ_FIRST(&cl->live))) {
		l->unaware = unaware;
		layout_end(l);
	}
	cl->n--;
	client_rest(cl);
}

bool layout_reserve(struct layout_client *cl, uint64_t bytes)
{
	if (cl->n >= cl->conf->layout_count || bytes > ((uint64_t)cl->conf->layout_mib << 20) - cl->mapped)
		return false;
	cl->n++;
	cl->mapped += bytes;
	return true;
}

void layout_unreserve(struct layout_client *cl, uint64_t bytes)
{
	cl->n--;
	cl->mapped -= bytes;
	client_rest(cl);
}

/* --- the end --- */

static void layout_gone(struct layout *l)
{
	struct layout_client *cl = l->cl;
	uint64_t bytes = l->bytes;

	free(l->key);
	free(l);
	layout_unreserve(cl, bytes);
}

/* Keys are dead and no commit is under way: the blocks may go. A recall that is still in the mail keeps the object. */
static void layout_rest(struct layout *l)
{
	if (l->live || l->nalive || l->commits || l->unaware || l->closed)
		return;
	ev_timer_stop(l->cl->w->loop, &l->timer);
	TAILQ_REMOVE(&l->cl->ended, l, link);
	pm_lease_close(l->lease);
	l->closed = true; /* and from here on there will be no recall */
	if (!l->recall_sent || l->recall_here)
		layout_gone(l);
}

static void key_dead(void *arg)
{
	struct layout_key *k = arg;

	k->k = NULL;
	k->l->nalive--;
	layout_rest(k->l);
}

void layout_end(struct layout *l)
{
	if (!l->live)
		return;
	l->live = false;
	TAILQ_REMOVE(&l->cl->live, l, link);
	TAILQ_INSERT_TAIL(l->unaware ? &l->cl->w->unaware_layouts : &l->cl->ended, l, link);
	l->commits++; /* not gone before the loop is over */
	for (unsigned i = 0; i < l->nkeys; i++)
		tp_key_close(l->key[i].k, key_dead, &l->key[i]);
	l->commits--;
	layout_rest(l);
}

/* Somebody waits for the blocks, and the peer may be in the middle of a write. */
static void hurry(struct layout *l)
{
	for (unsigned i = 0; i < l->nkeys && !l->cl->gone; i++) {
		if (l->key[i].k) {
			tp_key_hurry(l->key[i].k);
			return; /* it is one connection */
		}
	}
}

/* --- lease and recall --- */

static double clock_of(const struct layout *l)
{
	return ev_now(l->cl->w->loop);
}

static double deadline(const struct layout *l)
{
	double margin = l->cl->fenced ? 0 : UNFENCED_MARGIN, end = l->expires + margin;

	/* Where no key is checked only the lease itself tells that the client has stopped. */
	return l->dies > 0 && l->cl->fenced && l->dies < end ? l->dies : end;
}

static void arm(struct layout *l)
{
	double left = deadline(l) - clock_of(l);

	ev_timer_stop(l->cl->w->loop, &l->timer);
	ev_timer_set(&l->timer, left > 0 ? left : 0, 0.);
	ev_timer_start(l->cl->w->loop, &l->timer);
}

/* Its client has stopped, or the server is about to. */
static void let_go(struct layout *l)
{
	if (!l->unaware)
		return;
	l->unaware = false;
	TAILQ_REMOVE(&l->cl->w->unaware_layouts, l, link);
	TAILQ_INSERT_TAIL(&l->cl->ended, l, link);
	layout_rest(l);
}

void layouts_let_go(struct worker *w)
{
	struct layout *l;

	while ((l = TAILQ_FIRST(&w->unaware_layouts)))
		let_go(l);
}

static void on_timer(struct ev_loop *loop, ev_timer *t, int events)
{
	struct layout *l = container_of(t, struct layout, timer);
	bool told = l->told;

	(void)loop;
	(void)events;
	if (deadline(l) > clock_of(l)) {
		arm(l);
		return;
	}
	if (l->unaware) {
		let_go(l);
		return;
	}
	if (l->live)
		atomic_fetch_add(told ? &l->cl->w->srv->layouts_revoked : &l->cl->w->srv->layouts_expired, 1);
	l->commits++;
	layout_end(l);
	if (told)
		hurry(l);
	l->commits--;
	layout_rest(l);
}

/* Ended already: so that what its keys still wait for is hurried when the time is over. */
static void ask_back(struct layout *l)
{
	if (l->told)
		return;
	l->told = true;
	l->dies = clock_of(l) + l->cl->conf->recall_ms / 1000.0;
	arm(l);
}

static void deliver_recall(struct worker *w, struct mail *m)
{
	struct layout *l = container_of(m, struct layout, recall);

	(void)w;
	l->recall_here = true;
	if (l->closed) {
		layout_gone(l);
		return;
	}
	ask_back(l);
	if (!l->live) /* returned or expired, but the peer may be in the middle of something */
		hurry(l);
}

void layout_recall(void *arg)
{
	struct layout *l = arg;

	l->recall_sent = true;
	l->recall.deliver = deliver_recall;
	worker_post(l->cl->w, &l->recall);
}

void layout_renew(struct layout *l)
{
	if (!l->told) /* the timer looks at it when it goes off */
		l->expires = clock_of(l) + l->cl->lease;
}

bool layout_recalled(const struct layout *l)
{
	return l->told || pm_lease_recalled(l->lease);
}

/* --- layout_exclusive --- */

static bool same_client(const struct layout_client *a, const struct layout_client *b)
{
	return !memcmp(a->peer, b->peer, sizeof(a->peer));
}

static void ask_all_back(struct layout_client *cl)
{
	struct layout *l;

	TAILQ_FOREACH (l, &cl->live, link)
		ask_back(l);
	TAILQ_FOREACH (l, &cl->ended, link)
		ask_back(l);
}

struct turns { /* as one client sees them */
	bool mine;     /* it has layouts, */
	bool in_turn;  /* and its turn lasts */
	bool taken;    /* another has some, */
	bool lasting;  /* and its turn lasts */
	bool promised; /* another is to be the next */
};

/* A fabric is served by one worker: all its clients are here. One that is gone has no open key. */
static struct turns turns_now(const struct layout_client *cl, double now)
{
	const struct layout_client *other, *next;
	const struct layout *l;
	struct turns t = { 0 };

	TAILQ_FOREACH (l, &cl->w->unaware_layouts, link)
		t.taken |= l->cl->conf == cl->conf && !same_client(l->cl, cl);
	HASH_ITER (hh, cl->w->layout_clients, other, next) {
		bool lasts = other->n && other->turn_until > now;

		if (other->conf != cl->conf)
			continue;
		if (same_client(other, cl)) {
			t.mine |= other->n > 0;
			t.in_turn |= lasts;
			continue;
		}
		t.taken |= other->n > 0;
		t.lasting |= lasts;
		t.promised |= other->next_until > now;
	}
	return t;
}

bool layout_turn(struct layout_client *cl)
{
	double now = ev_now(cl->w->loop);
	struct layout_client *other, *next;
	struct turns t;

	if (!cl->conf->layout_exclusive)
		return true;
	t = turns_now(cl, now);
	if (t.promised && !t.in_turn)
		return false;
	cl->next_until = t.taken ? now + PROMISE : 0;
	if (!t.taken && !t.mine)
		cl->turn_until = now + TURN;
	HASH_ITER (hh, cl->w->layout_clients, other, next)
		if (t.taken && !t.lasting && other->conf == cl->conf && !same_client(other, cl))
			ask_all_back(other);
	return !t.taken;
}

/* --- life --- */

struct layout *layout_new(struct layout_client *cl, uint64_t bytes, bool rw)
{
	struct layout *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->cl = cl;
	l->bytes = bytes;
	l->rw = rw;
	ev_init(&l->timer, on_timer);
	return l;
}

/* MAP failed; its keys, if any, were never told. */
void layout_free_new(struct layout *l)
{
	if (!l->lease) {
		layout_gone(l);
		return;
	}
	l->live = true;
	TAILQ_INSERT_TAIL(&l->cl->live, l, link);
	layout_end(l);
}

void layout_start(struct layout *l, double sent)
{
	l->id = l->cl->next_id++;
	l->live = true;
	l->expires = sent + l->cl->lease;
	TAILQ_INSERT_TAIL(&l->cl->live, l, link);
	if (l->told)
		l->dies = clock_of(l) + l->cl->conf->recall_ms / 1000.0;
	arm(l);
}

/* At most layout_count are there. */
struct layout *layout_find(struct layout_client *cl, uint64_t id)
{
	struct layout *l;

	if (!cl)
		return NULL;
	TAILQ_FOREACH (l, &cl->live, link)
		if (l->id == id)
			return l;
	return NULL;
}

void layout_commit_begin(struct layout *l)
{
	l->commits++;
}

void layout_commit_end(struct layout *l)
{
	l->commits--;
	layout_rest(l);
}
