/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_server.c - a listener on a fabric: its turn, its sleep, its watchdog
 *
 * Turn. Before the loop sleeps, turn() takes completions and events, lets each dirty connection
 * post what it has queued, and buries the dead, until nothing is left to do. Only here is the
 * provider called. Everything else (the program's answers, sockets, timers) marks connections dirty
 * and keeps the loop from sleeping.
 *
 * Sleep. With wait descriptors: a few more rounds of the loop if the next event is likely to be near
 * (spin.h), fi_trywait, then the loop polls them. Without (shm): keep looking
 * for SPIN_NS after the last event, within the turn for LINGER_NS at most since a round of the loop
 * costs more than a look; then raise the flag that clients ring at, look once more, and sleep until
 * a hello socket speaks; while operations are out, which may need us, naps of 1 ms and longer
 * instead.
 *
 * Watchdog (shm). A client that is killed or stopped inside the provider can leave a lock in shared memory
 * taken, and the next to want it spins for ever. Another client gives up first, and we look when one has left. A timer on this thread's CPU time, which costs
 * nothing while the thread sleeps, finds it inside one and the same call twice and jumps out of the
 * turn. The provider's objects are abandoned, the clients' sockets closed, and a new endpoint is
 * opened under another name.
 */
#include "transport/fabric_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#define ROUNDS       8   /* of a turn, before others get the loop */
#define BATCH        128 /* completions per round */
#define LINGER_NS    200000 /* of looking again and again, before others get the loop */
#define NAP_MIN      0.001
#define NAP_MAX      0.016
#define WATCH_NS     200000000
#define WATCH_SIGNAL (SIGRTMIN + 6)

/* --- turn --- */

static void work(struct flistener *l)
{
	struct fconn *conn;

	while ((conn = TAILQ_FIRST(&l->dirty))) {
		fconn_clean(conn);
		fconn_work(l, conn);
	}
	if (l->fab->rdm)
		frecvs_rdm(l);
}

static void kill_all(struct flistener *l)
{
	struct fconn *conn;

	while ((conn = TAILQ_FIRST(&l->conns)))
		fconn_kill(conn);
}

int ftake(struct fab *f, bool *full)
{
	unsigned most = f->nclosing ? BATCH : FAB_POLL;
	int n = f->nclosing ? fab_progress(f, BATCH) : fab_poll(f);

	f->drained += f->nclosing && n >= 0 && n < BATCH;
	*full |= n >= (int)most;
	return n;
}

static int take_all(struct flistener *l, bool *full)
{
	int n = ftake(l->fab, full);

	if (n < 0) {
		rpc_count(&l->base.svc->stats.provider_errors, 1);
		rpc_log(l->base.svc, LOG_ERR, "fabric %s: completion queue: %s", l->opts.name, fi_strerror(-n));
		kill_all(l);
		n = 0;
	}
	return n + fowns_take(l, full);
}

/* Returns whether anything happened. */
static bool turn(struct flistener *l)
{
	struct fconn *conn;
	bool any = false;

	while ((conn = TAILQ_FIRST(&l->stuck))) {
		fconn_clean(conn);
		fconn_dirty(conn);
	}
	l->empty = false;
	for (int i = 0; i < ROUNDS; i++) {
		bool full = false;
		int n = take_all(l, &full);
		unsigned events = l->fab->eq_ready ? fconn_events(l) : 0;
		uint64_t posts = l->posts;

		if (n > 0) /* else no call was taken */
			rpc_turn_end(l->base.svc);
		any |= n > 0 || events || !TAILQ_EMPTY(&l->dirty);
		work(l);
		fconns_reap(l);
		if (events || !TAILQ_EMPTY(&l->dirty))
			continue;
		if (!n || (!full && posts == l->posts)) {
			l->empty = true;
			break; /* what has just been posted may be done already; nothing else can */
		}
	}
	return any;
}

/* --- sleep --- */

static void nap(struct flistener *l, double len)
{
	ev_timer_stop(flistener_loop(l), &l->nap);
	ev_timer_set(&l->nap, len, 0.);
	ev_timer_start(flistener_loop(l), &l->nap);
}

/* Without wait descriptors: clients need not ring now. */
static void stay_up(struct flistener *l, uint64_t now)
{
	if (l->armed)
		rdv_disarm(rdv_page_server(l->page));
	l->armed = false;
	l->active = now;
	l->nap_len = NAP_MIN;
}

/* Turns, one after the other, while the next event is likely to be near. */
static bool linger(struct flistener *l)
{
	bool any = turn(l);
	uint64_t start = spin_now(), now = start;

	for (;;) {
		if (any)
			stay_up(l, now);
		if (now - start >= LINGER_NS || now - l->active >= SPIN_NS)
			return any;
		if (l->empty)
			sched_yield();
		any = turn(l);
		now = spin_now();
	}
}

/* Without wait descriptors. True: do not sleep. */
static bool stay_awake(struct flistener *l, bool any)
{
	if (any || spin_now() - l->active < SPIN_NS)
		return true;
	/* The flag must have been up before the look that found nothing, and be up still: a client
	 * that rang has taken it down. */
	if (l->page && !(l->armed && atomic_load(rdv_page_server(l->page)))) {
		l->armed = true;
		rdv_arm(rdv_page_server(l->page));
		return true;
	}
	if (l->nout || !TAILQ_EMPTY(&l->stuck) || !l->page) {
		nap(l, l->nap_len);
		if (l->nap_len < NAP_MAX)
			l->nap_len *= 2;
	}
	return false;
}

static void plan_sleep(struct flistener *l, bool any)
{
	bool awake;

	if (l->fab->cq_fd < 0) {
		awake = stay_awake(l, any);
	} else {
		if (any)
			spin_event(&l->spin, spin_now());
		awake = spin_yield(&l->spin) || fowns_before_sleep(l) == -EAGAIN ||
		        fab_before_sleep(l->fab) == -EAGAIN;
		if (!TAILQ_EMPTY(&l->stuck))
			nap(l, NAP_MIN);
	}
	if (awake || !TAILQ_EMPTY(&l->dirty) || !TAILQ_EMPTY(&l->dying))
		ev_idle_start(flistener_loop(l), &l->idle);
	else
		ev_idle_stop(flistener_loop(l), &l->idle);
}

/* --- watchdog --- */

static void watch_signal(int sig, siginfo_t *si, void *uc)
{
	struct flistener *l = si->si_value.sival_ptr;

	(void)sig;
	(void)uc;
	if (si->si_code != SI_TIMER || !l->may_jump || !l->fab->guard.inside) {
		if (si->si_code == SI_TIMER)
			l->seen = 0;
		return;
	}
	if (l->seen && l->seen_turn == l->fab->guard.turn)
		siglongjmp(l->jump, 1);
	l->seen = 1;
	l->seen_turn = l->fab->guard.turn;
}

/* On the thread that runs the loop, which may not be the one that made the listener. */
static int watch_start(struct flistener *l)
{
	/* SA_NODEFER: the jump out of the handler leaves the signal mask alone. */
	struct sigaction sa = { .sa_sigaction = watch_signal,
		                .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER };
	struct sigevent se = { .sigev_notify = SIGEV_THREAD_ID,
		               .sigev_signo = WATCH_SIGNAL,
		               .sigev_value.sival_ptr = l };
	struct itimerspec every = { .it_interval.tv_nsec = WATCH_NS, .it_value.tv_nsec = WATCH_NS };
	sigset_t set;

	if (l->has_timer && pthread_equal(l->thread, pthread_self()))
		return 0;
	if (l->has_timer)
		timer_delete(l->timer);
	l->has_timer = false;
	sigemptyset(&sa.sa_mask);
	if (sigaction(WATCH_SIGNAL, &sa, NULL))
		return -errno;
	sigemptyset(&set);
	sigaddset(&set, WATCH_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
	se.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &se, &l->timer))
		return -errno;
	l->has_timer = true;
	l->thread = pthread_self();
	return timer_settime(l->timer, 0, &every, NULL) ? -errno : 0;
}

static int provider_open(struct flistener *l, struct tp_error *why)
{
	int err = fab_open(&l->opts, FAB_SERVER, &l->fab, why);

	if (err)
		return err;
	err = fpool_new(l->fab, l->opts.inline_size, 0, &l->pool);
	if (err) {
		fab_error(why, &l->opts, "memory", err);
		goto close_fab;
	}
	err = fregions_open(l, why, &l->opts);
	if (err)
		goto close_pool;
	if (l->fab->rdm) {
		l->recv_want = RDM_SPARE < l->fab->rx_size ? RDM_SPARE : 1;
		if (getrandom(&l->nonce, sizeof(l->nonce), 0) != sizeof(l->nonce))
			l->nonce++;
		err = frecvs_rdm(l);
		if (err) {
			fab_error(why, &l->opts, "registering or posting receives", err);
			goto close_regions;
		}
	}
	err = l->fab->shm ? fconns_know_self(l) : 0;
	if (err) {
		fab_error(why, &l->opts, "its own address", err);
		goto close_regions;
	}
	return 0;
close_regions:
	fregions_close(l);
close_pool:
	LIST_INIT(&l->recvs);
	l->posted = 0;
	fpool_close(l->pool);
	l->pool = NULL;
close_fab:
	fab_close(l->fab);
	l->fab = NULL;
	return err;
}

static void provider_reopen(struct flistener *l)
{
	struct tp_error why;

	if (provider_open(l, &why)) {
		rpc_log(l->base.svc, LOG_ERR, "%s", why.text);
		nap(l, REOPEN_NAP);
		return;
	}
	ev_io_start(flistener_loop(l), &l->hello_io);
	rpc_log(l->base.svc, LOG_NOTICE, "fabric %s: a new endpoint is up", l->opts.name);
	ev_idle_start(flistener_loop(l), &l->idle);
}

/* 'R', 'S', 'T', ... of /proc; 0: it is not there. @name: what it calls itself. */
static char process_state(pid_t pid, char name[64])
{
	char path[64], line[256], *open, *close, state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f) && (open = strchr(line, '(')) && (close = strrchr(open, ')'))) {
		snprintf(name, 64, "%.*s", (int)(close - open - 1), open + 1);
		state = close[1] == ' ' ? close[2] : 0;
	}
	if (f)
		fclose(f);
	return state;
}

/* Who may have the lock and is not going to let go of it. */
static void name_stopped(const struct flistener *l)
{
	const struct fconn *conn;
	char name[64], state;

	TAILQ_FOREACH (conn, &l->conns, link) {
		state = conn->rdv.pid > 0 ? process_state(conn->rdv.pid, name) : 0;
		if (state == 'T' || state == 't')
			rpc_log(l->base.svc, LOG_WARNING,
			        "fabric %s: client pid %d (%s) is stopped, by a signal or a debugger, maybe with that lock; it "
			        "connects again when it is continued (kill -CONT %d)",
			        l->opts.name, (int)conn->rdv.pid, name, (int)conn->rdv.pid);
	}
}

/* The provider never returned. All that it had is lost to us, and our memory that it may still hold
 * to the slabs. */
static void recover(struct flistener *l)
{
	struct fab *f = l->fab;

	rpc_count(&l->base.svc->stats.provider_resets, 1);
	rpc_log(l->base.svc, LOG_ERR,
	        "fabric %s: the provider hangs in a lock that a client has, killed or stopped in it; opening a new "
	        "endpoint",
	        l->opts.name);
	name_stopped(l);
	ev_io_stop(flistener_loop(l), &l->hello_io);
	l->in_turn = true;
	l->fab = NULL;
	l->pool->fab = NULL;
	free(l->regions.mr);
	l->regions = (struct fregions){ 0 };
	kill_all(l);
	fconns_reap(l);
	LIST_INIT(&l->recvs);
	LIST_INIT(&l->orphans);
	LIST_INIT(&l->orphan_sends);
	l->posted = l->recv_want = 0;
	if (l->naddr)
		memset(l->by_addr, 0, l->naddr * sizeof(*l->by_addr));
	fpool_close(l->pool);
	l->pool = NULL;
	fab_abandon(f);
	l->in_turn = false;
	provider_reopen(l);
}

static void turn_guarded(struct flistener *l)
{
	bool any;

	if (!l->fab) {
		provider_reopen(l);
		return;
	}
	l->seen = 0;
	if (l->fab->shm && !watch_start(l)) {
		if (sigsetjmp(l->jump, 0)) {
			l->may_jump = 0;
			recover(l);
			return;
		}
		l->may_jump = 1;
	}
	l->in_turn = true;
	any = l->fab->cq_fd < 0 ? linger(l) : turn(l);
	l->may_jump = 0;
	l->in_turn = false;
	plan_sleep(l, any);
}

static void prepare(struct ev_loop *loop, ev_prepare *w, int events)
{
	(void)loop;
	(void)events;
	turn_guarded(w->data);
}

/* The loop woke up: that is all that these are for. */
static void woken_io(struct ev_loop *loop, ev_io *w, int events)
{
	(void)loop;
	(void)w;
	(void)events;
}

static void woken_eq(struct ev_loop *loop, ev_io *w, int events)
{
	struct flistener *l = w->data;

	(void)loop;
	(void)events;
	if (l->fab)
		l->fab->eq_ready = true;
}

static void woken_idle(struct ev_loop *loop, ev_idle *w, int events)
{
	(void)loop;
	(void)w;
	(void)events;
}

static void woken_nap(struct ev_loop *loop, ev_timer *w, int events)
{
	struct flistener *l = w->data;

	(void)events;
	if (l->fab && l->hello_fd >= 0 && !l->stopped && !ev_is_active(&l->hello_io))
		ev_io_start(loop, &l->hello_io);
}

void fconn_close(struct tp_conn *tc)
{
	struct fconn *conn = container_of(tc, struct fconn, base);
	struct flistener *l = conn->l;

	if (!l)
		return;
	fconn_kill(conn);
	if (!l->in_turn)
		turn_guarded(l);
}

/* --- listener --- */

static void listener_stop(struct tp_listener *tl)
{
	struct flistener *l = container_of(tl, struct flistener, base);

	l->stopped = true;
	if (l->hello_fd >= 0)
		ev_io_stop(flistener_loop(l), &l->hello_io);
}

static void listener_describe(const struct tp_listener *tl, char *buf, size_t len)
{
	const struct flistener *l =
		container_of((struct tp_listener *)(uintptr_t)tl, struct flistener, base);
	const struct fi_info *i = l->fab ? l->fab->info : NULL;
	char at[128];

	if (!i) {
		snprintf(buf, len, "%s (being reopened)",
		         l->opts.provider ? l->opts.provider : "-");
		return;
	}
	if (l->fab->shm)
		snprintf(at, sizeof(at), "%s", l->opts.service ? l->opts.service : "berth");
	else
		snprintf(at, sizeof(at), "%s:%s",
		         l->opts.node                             ? l->opts.node
		         : strcmp(i->fabric_attr->prov_name, "verbs") ? "127.0.0.1"
		                                                  : "*",
		         l->opts.service ? l->opts.service : "20049");
	snprintf(buf, len, "%s %s fabric %s domain %s at %s, placement %s (%s)%s",
	         i->fabric_attr->prov_name, l->fab->rdm ? "FI_EP_RDM" : "FI_EP_MSG",
	         i->fabric_attr->name, i->domain_attr->name, at, l->regions.staged ? "staged" : "direct", l->regions.why,
	         l->opts.own.prog ? ", a domain for each client's keys" : "");
}

static void strings_free(struct flistener *l)
{
	for (size_t i = 0; i < sizeof(l->strings) / sizeof(l->strings[0]); i++)
		free(l->strings[i]);
}

static void listener_free(struct flistener *l)
{
	struct frma *r;

	while ((r = LIST_FIRST(&l->free_rma))) {
		LIST_REMOVE(r, link);
		free(r);
	}
	if (l->page)
		rdv_page_free(l->page);
	if (l->hello_fd >= 0)
		close(l->hello_fd);
	free(l->by_addr);
	strings_free(l);
	free(l);
}

static void provider_close(struct flistener *l)
{
	struct frma *r;
	struct fbuf *b;

	if (!l->fab)
		return;
	if (l->fab->shm)
		fconns_forget_self(l);
	fab_enter(l->fab);
	if (l->pep)
		fi_close(&l->pep->fid);
	if (l->fab->ep)
		fi_close(&l->fab->ep->fid);
	l->fab->ep = NULL;
	fab_leave(l->fab);
	while ((r = LIST_FIRST(&l->orphans))) {
		LIST_REMOVE(r, link);
		fbuf_put(r->stage);
		free(r);
	}
	while ((b = LIST_FIRST(&l->orphan_sends))) {
		LIST_REMOVE(b, link);
		if (b->big)
			LIST_INSERT_HEAD(&b->pool->big, b, link);
		fbuf_put(b);
	}
	fregions_close(l);
	fpool_close(l->pool);
	fab_close(l->fab);
}

static void listener_close(struct tp_listener *tl)
{
	struct flistener *l = container_of(tl, struct flistener, base);
	struct ev_loop *loop = flistener_loop(l);

	listener_stop(tl);
	kill_all(l);
	if (l->fab)
		turn_guarded(l);
	ev_prepare_stop(loop, &l->prepare);
	ev_idle_stop(loop, &l->idle);
	ev_io_stop(loop, &l->cq_io);
	ev_io_stop(loop, &l->eq_io);
	if (l->hello_fd >= 0)
		ev_io_stop(loop, &l->hello_io);
	ev_timer_stop(loop, &l->nap);
	if (l->has_timer)
		timer_delete(l->timer);
	provider_close(l);
	rpc_listener_gone(tl);
	listener_free(l);
}

static const struct tp_listener_ops listener_ops = {
	.stop = listener_stop,
	.describe = listener_describe,
	.close = listener_close,
};

static int opts_copy(struct flistener *l, const struct tp_fabric_opts *o)
{
	const char *from[] = { o->name, o->provider, o->fabric, o->domain,
		               o->node, o->service,  o->ep_type };

	l->opts = *o;
	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		l->strings[i] = from[i] ? strdup(from[i]) : NULL;
		if (from[i] && !l->strings[i])
			return -ENOMEM;
	}
	l->opts.name = l->strings[0] ? l->strings[0] : "-";
	l->opts.provider = l->strings[1];
	l->opts.fabric = l->strings[2];
	l->opts.domain = l->strings[3];
	l->opts.node = l->strings[4];
	l->opts.service = l->strings[5];
	l->opts.ep_type = l->strings[6];
	l->opts.read_depth = o->read_depth ? o->read_depth : FAB_DEF_READS;
	l->opts.credits = o->credits ? o->credits : FAB_DEF_CREDITS;
	/* Sizes travel in units of 1024 (RFC 8797). */
	l->opts.inline_size = o->inline_size ? (o->inline_size + 1023) & ~1023u : FAB_DEF_INLINE;
	if (l->opts.inline_size > 256 << 10)
		l->opts.inline_size = 256 << 10;
	return 0;
}

static int listen_msg(struct flistener *l, struct tp_error *why)
{
	struct fab *f = l->fab;
	int err = fi_passive_ep(f->fabric, f->info, &l->pep, l);

	if (err)
		return fab_error(why, &l->opts, "passive endpoint", err);
	err = fi_pep_bind(l->pep, &f->eq->fid, 0);
	if (!err)
		err = fi_listen(l->pep);
	return err ? fab_error(why, &l->opts, "listening", err) : 0;
}

static int listen_rdm(struct flistener *l, struct tp_error *why)
{
	int err = rdv_listen(l->fab, &l->opts, &l->hello_fd, why);

	if (!err && l->fab->shm) {
		err = rdv_page_new(&l->page);
		if (err)
			fab_error(why, &l->opts, "memory", err);
	}
	return err;
}

static void warn_open_tcp(struct flistener *l)
{
	const struct fi_info *i = l->fab->info;
	const struct sockaddr_in *in = i->src_addr;
	const struct sockaddr_in6 *in6 = i->src_addr;

	if (strcmp(i->fabric_attr->prov_name, "tcp") || !in)
		return;
	if (in->sin_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127)
		return;
	if (in->sin_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr))
		return;
	rpc_log(l->base.svc, LOG_WARNING,
	        "fabric %s: libfabric's tcp provider does not withstand hostile peers: only for "
	        "trusted networks",
	        l->opts.name);
}

static void watchers_start(struct flistener *l)
{
	struct ev_loop *loop = flistener_loop(l);

	ev_prepare_init(&l->prepare, prepare);
	ev_idle_init(&l->idle, woken_idle);
	ev_timer_init(&l->nap, woken_nap, NAP_MIN, 0.);
	ev_io_init(&l->cq_io, woken_io, l->fab->cq_fd, EV_READ);
	ev_io_init(&l->eq_io, woken_eq, l->fab->eq_fd, EV_READ);
	l->prepare.data = l->nap.data = l->eq_io.data = l;
	ev_prepare_start(loop, &l->prepare);
	if (l->fab->cq_fd >= 0)
		ev_io_start(loop, &l->cq_io);
	if (l->fab->eq_fd >= 0)
		ev_io_start(loop, &l->eq_io);
	if (l->hello_fd >= 0) {
		ev_io_init(&l->hello_io, fconn_hello, l->hello_fd, EV_READ);
		l->hello_io.data = l;
		ev_io_start(loop, &l->hello_io);
	}
	ev_idle_start(loop, &l->idle);
}

int tp_listen_fabric(struct tp_service *svc, const struct tp_fabric_opts *opts,
                     struct tp_listener **out, struct tp_error *why)
{
	struct flistener *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return fab_error(why, opts, "memory", -ENOMEM);
	TAILQ_INIT(&l->conns);
	TAILQ_INIT(&l->dying);
	TAILQ_INIT(&l->dirty);
	TAILQ_INIT(&l->stuck);
	TAILQ_INIT(&l->awake);
	l->base.svc = svc;
	l->hello_fd = -1;
	l->nap_len = NAP_MIN;
	err = opts_copy(l, opts);
	if (err)
		goto free_l;
	err = provider_open(l, why);
	if (err)
		goto free_l;
	if (l->fab->rdm && l->opts.own.prog)
		err = fab_error(why, opts, "domains of their own for connections: this provider has but one for all (FI_EP_RDM)",
		                -EOPNOTSUPP);
	else
		err = l->fab->rdm ? listen_rdm(l, why) : listen_msg(l, why);
	if (err)
		goto close_provider;
	warn_open_tcp(l);
	rpc_listener_init(&l->base, svc, &listener_ops);
	watchers_start(l);
	*out = &l->base;
	return 0;
close_provider:
	provider_close(l);
free_l:
	listener_free(l);
	return err;
}
