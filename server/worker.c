/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.c - an event loop, the thread that runs it, and a mailbox
 *
 * A worker owns its loop, its service, its listeners and their connections. Other threads reach it
 * by mail only. The loop sleeps without a timeout: an idle worker makes no wake-ups.
 *
 * Commits of calls that were ready together are held in the worker's batch until the turn ends; then they become durable
 * together, and what waited for that goes on at once:
 *
 *   write_placed --> pm_batch_commit, worker_hold .... turn_end --> pm_batch_end --> worker_resume --> reply
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "server/process.h"

/* berthd(8) has the sum. */
#define DRAIN_SECONDS 8.0 /* for clients: to send what they have begun, to take their answers */
#define LAST_SECONDS  2.0 /* for the pool: to end what it is at */

struct worker_rt {
	struct worker *w;
	pthread_t thread;
	bool threaded;
	struct worker_plan plan;
	STAILQ_HEAD(, listener_ref) listeners;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t up_cond;
	int up; /* 1: not yet known; 0 or -errno */
	struct tp_error up_why;
	STAILQ_HEAD(, mail) mail;

	ev_async wake;
	ev_prepare before_sleep;
	ev_check after_sleep;
	ev_timer drain_limit;
	struct mail stop_mail;
	atomic_bool stop_asked;
	bool stopping;

	/* its thread's own */
	pthread_t self;
	bool held;        /* the batch is not empty */
	bool ending_turn;
	STAILQ_HEAD(, mail) resumed; /* while it ends one */
};

/* --- mail --------------------------------------------------------------------------------------- */

void worker_post(struct worker *w, struct mail *m)
{
	struct worker_rt *rt = w->rt;
	bool first;

	pthread_mutex_lock(&rt->lock);
	first = STAILQ_EMPTY(&rt->mail);
	STAILQ_INSERT_TAIL(&rt->mail, m, link);
	pthread_mutex_unlock(&rt->lock);
	if (first)
		ev_async_send(w->loop, &rt->wake);
}

static void on_mail(struct ev_loop *loop, ev_async *a, int events)
{
	struct worker_rt *rt = container_of(a, struct worker_rt, wake);
	STAILQ_HEAD(, mail) got = STAILQ_HEAD_INITIALIZER(got);
	struct mail *m;

	(void)loop;
	(void)events;
	pthread_mutex_lock(&rt->lock);
	STAILQ_CONCAT(&got, &rt->mail);
	pthread_mutex_unlock(&rt->lock);
	while ((m = STAILQ_FIRST(&got))) {
		STAILQ_REMOVE_HEAD(&got, link);
		m->deliver(rt->w, m);
	}
}

/* --- the end of a turn --------------------------------------------------------------------------- */

void worker_hold(struct worker *w, uint32_t bytes)
{
	w->rt->held = true;
	if (!w->rt->ending_turn)
		tp_want_turn_end(w->svc, bytes);
}

void worker_resume(struct worker *w, struct mail *m)
{
	struct worker_rt *rt = w->rt;

	if (pthread_equal(rt->self, pthread_self()) && rt->ending_turn)
		STAILQ_INSERT_TAIL(&rt->resumed, m, link);
	else
		worker_post(w, m);
}

/* A call that goes on may join the batch again, with a commit that had to wait for one of these. */
static void turn_end(void *arg)
{
	struct worker *w = arg;
	struct worker_rt *rt = w->rt;
	struct mail *m;

	rt->ending_turn = true;
	while (rt->held) {
		rt->held = false;
		pm_batch_end(w->batch);
		while ((m = STAILQ_FIRST(&rt->resumed))) {
			STAILQ_REMOVE_HEAD(&rt->resumed, link);
			m->deliver(w, m);
		}
	}
	rt->ending_turn = false;
}

/* --- stopping --------------------------------------------------------------------------------------- */

static void on_last_limit(struct ev_loop *loop, ev_timer *t, int events)
{
	struct worker_rt *rt = container_of(t, struct worker_rt, drain_limit);

	(void)events;
	log_msg(LOG_WARNING, "worker %u: the pool has not finished %u calls after %.0f seconds; leaving them",
		rt->w->index, tp_service_calls(rt->w->svc), DRAIN_SECONDS + LAST_SECONDS);
	ev_break(loop, EVBREAK_ALL);
}

static void on_drain_limit(struct ev_loop *loop, ev_timer *t, int events)
{
	struct worker_rt *rt = container_of(t, struct worker_rt, drain_limit);

	(void)events;
	log_msg(LOG_WARNING, "worker %u: %u calls are not finished after %.0f seconds; closing the connections",
		rt->w->index, tp_service_calls(rt->w->svc), DRAIN_SECONDS);
	ev_set_cb(t, on_last_limit);
	ev_timer_set(t, LAST_SECONDS, 0.);
	ev_timer_start(loop, t);
	tp_service_hangup(rt->w->svc);
}

static void deliver_stop(struct worker *w, struct mail *m)
{
	struct worker_rt *rt = w->rt;

	(void)m;
	if (rt->stopping)
		return;
	rt->stopping = true;
	tp_service_stop(w->svc);
	ev_timer_set(&rt->drain_limit, DRAIN_SECONDS, 0.);
	ev_timer_start(w->loop, &rt->drain_limit);
}

void worker_stop(struct worker *w)
{
	struct worker_rt *rt = w->rt;

	if (atomic_exchange(&rt->stop_asked, true))
		return; /* a mail is in the box once */
	rt->stop_mail.deliver = deliver_stop;
	worker_post(w, &rt->stop_mail);
}

static void on_before_sleep(struct ev_loop *loop, ev_prepare *p, int events)
{
	struct worker_rt *rt = container_of(p, struct worker_rt, before_sleep);

	(void)events;
	assert(!rt->held); /* or nobody would answer before the next event */
	if (rt->stopping && tp_service_calls(rt->w->svc) == 0)
		ev_break(loop, EVBREAK_ALL);
	if (rt->w->srv->hb)
		heartbeat_idle(rt->w->srv->hb, rt->w->index);
}

static void on_after_sleep(struct ev_loop *loop, ev_check *c, int events)
{
	struct worker_rt *rt = container_of(c, struct worker_rt, after_sleep);

	(void)loop;
	(void)events;
	if (rt->w->srv->hb)
		heartbeat_busy(rt->w->srv->hb, rt->w->index);
}

/* --- life ------------------------------------------------------------------------------------------------ */

int worker_init(struct worker *w, struct server *srv, unsigned index, const struct worker_plan *plan)
{
	struct worker_rt *rt = calloc(1, sizeof(*rt));

	if (!rt)
		return -ENOMEM;
	w->loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!w->loop) {
		free(rt);
		return -ENOMEM;
	}
	w->srv = srv;
	w->index = index;
	w->exports = srv->exports;
	TAILQ_INIT(&w->unaware_layouts);
	w->rt = rt;
	rt->w = w;
	rt->plan = *plan;
	rt->up = 1;
	STAILQ_INIT(&rt->listeners);
	STAILQ_INIT(&rt->mail);
	STAILQ_INIT(&rt->resumed);
	pthread_mutex_init(&rt->lock, NULL);
	pthread_cond_init(&rt->up_cond, NULL);
	ev_async_init(&rt->wake, on_mail);
	ev_async_start(w->loop, &rt->wake);
	ev_prepare_init(&rt->before_sleep, on_before_sleep);
	ev_set_priority(&rt->before_sleep, EV_MINPRI); /* the last thing before sleeping */
	ev_prepare_start(w->loop, &rt->before_sleep);
	ev_check_init(&rt->after_sleep, on_after_sleep);
	ev_set_priority(&rt->after_sleep, EV_MAXPRI);
	ev_check_start(w->loop, &rt->after_sleep);
	ev_timer_init(&rt->drain_limit, on_drain_limit, 0., 0.);
	return 0;
}

static int add_listener(struct worker *w, struct tp_listener *l)
{
	struct listener_ref *ref = calloc(1, sizeof(*ref));

	if (!ref) {
		tp_listener_close(l);
		return -ENOMEM;
	}
	ref->l = l;
	tp_listener_describe(l, ref->what, sizeof(ref->what));
	STAILQ_INSERT_TAIL(&w->rt->listeners, ref, link);
	log_msg(LOG_INFO, "listening: %s", ref->what);
	return 0;
}

static int make_service(struct worker *w)
{
	static const struct tp_program *const programs[] = { &nfs3_program, &mount3_program,
							    &layout_program, NULL };
	const struct config *conf = &w->srv->conf;
	struct pm_region pool, zero;
	struct tp_region regions[2];

	pm_get_regions(w->srv->store, &pool, &zero);
	regions[0] = (struct tp_region){ .base = pool.base, .len = pool.len };
	regions[1] = (struct tp_region){ .base = zero.base, .len = zero.len, .read_only = true };
	return tp_service_new(w->loop,
			      &(struct tp_service_opts){ .programs = programs,
							 .regions = regions,
							 .nregions = 2,
							 .copy_in = pm_copy_in,
							 .max_payload = SERVER_MAX_IO,
							 .max_conns = conf->max_conns,
							 .idle_timeout = conf->idle_timeout,
							 .client_timeout = conf->client_timeout,
							 .log = log_text,
							 .turn_end = turn_end,
							 .worker = w },
			      &w->svc);
}

int worker_setup(struct worker *w, struct tp_error *why)
{
	struct worker_plan *plan = &w->rt->plan;
	struct tp_listener *l;
	int err = pm_batch_make(w->srv->store, &w->batch);

	w->rt->self = pthread_self();
	if (!err)
		err = make_service(w);
	strcpy(why->text, "out of memory");
	for (unsigned i = 0; !err && i < plan->nfds; i++) {
		err = tp_listen_socket(w->svc, plan->fds[i], &l);
		if (!err)
			err = add_listener(w, l);
	}
	for (unsigned i = 0; !err && i < plan->nfabrics; i++) {
		err = tp_listen_fabric(w->svc, plan->fabrics[i], &l, why);
		if (!err)
			err = add_listener(w, l);
	}
	return err;
}

static void teardown(struct worker *w)
{
	struct listener_ref *ref;

	w->ending = true;
	while ((ref = STAILQ_FIRST(&w->rt->listeners))) {
		STAILQ_REMOVE_HEAD(&w->rt->listeners, link);
		tp_listener_close(ref->l);
		free(ref);
	}
	turn_end(w); /* closing a fabric takes what is ready there */
	layouts_let_go(w);
	if (w->svc && tp_service_calls(w->svc) == 0)
		tp_service_free(w->svc); /* else its calls still lie with the pool: left to exit */
	w->svc = NULL;
	pm_batch_free(w->batch);
	w->batch = NULL;
}

void worker_main(struct worker *w)
{
	ev_run(w->loop, 0);
	teardown(w);
	if (w->srv->hb)
		heartbeat_idle(w->srv->hb, w->index);
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	struct worker_rt *rt = w->rt;
	struct tp_error why;
	int err = worker_setup(w, &why);

	pthread_mutex_lock(&rt->lock);
	rt->up = err;
	rt->up_why = why;
	pthread_cond_signal(&rt->up_cond);
	pthread_mutex_unlock(&rt->lock);
	if (err)
		teardown(w);
	else
		worker_main(w);
	return NULL;
}

int worker_start(struct worker *w)
{
	/* what a thread does to itself: blocked, it would end the process whatever the handler is for */
	static const int own[] = { SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGABRT };
	sigset_t all, old;
	int err;

	sigfillset(&all);
	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		sigdelset(&all, own[i]);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are worker 0's */
	err = -pthread_create(&w->rt->thread, NULL, thread_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->rt->threaded = !err;
	return err;
}

int worker_wait_up(struct worker *w, struct tp_error *why)
{
	struct worker_rt *rt = w->rt;
	int err;

	pthread_mutex_lock(&rt->lock);
	while (rt->up == 1)
		pthread_cond_wait(&rt->up_cond, &rt->lock);
	err = rt->up;
	*why = rt->up_why;
	pthread_mutex_unlock(&rt->lock);
	return err;
}

void worker_listeners(const struct worker *w, void (*fn)(void *arg, const char *what), void *arg)
{
	struct listener_ref *ref;

	STAILQ_FOREACH (ref, &w->rt->listeners, link)
		fn(arg, ref->what);
}

void worker_join(struct worker *w)
{
	if (!w->rt)
		return;
	if (w->rt->threaded)
		pthread_join(w->rt->thread, NULL);
	else
		teardown(w);
}

void worker_fini(struct worker *w)
{
	if (!w->rt)
		return;
	ev_loop_destroy(w->loop);
	pthread_mutex_destroy(&w->rt->lock);
	pthread_cond_destroy(&w->rt->up_cond);
	free(w->rt);
	w->rt = NULL;
}
