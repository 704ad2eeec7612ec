/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_client.c - one connection of a client: made, driven, slept on, torn down
 *
 *   FI_EP_MSG   fi_connect, sizes in the private data (RFC 8797); the event queue tells of the
 * server's end FI_EP_RDM   a rendezvous socket: hello and answer name the endpoints; its
 * end-of-file is the server's end
 *
 * T1  What goes wrong inside a callback is only noted (client_fail); the connection goes DOWN when
 * progress has left the provider: endpoint closed, queue drained, and only then every request
 * fails, because until then the server's RMA may still reach its memory. T2  Callbacks may close
 * the client: nothing is freed below depth 0. T3  Receives posted: one per credit asked for and
 * CLIENT_SPARE more, so that the server's sends always find one (a message without a receive stops
 * the tcp provider's RMA behind it).
 *
 * Providers without a wait descriptor (shm) are looked at for SPIN_NS after the last event, then
 * the client arms its doorbell flag, looks once more, and sleeps: for ever if nothing is out, else
 * for NAP_MS at a time, because the provider may want our help to serve the server's RMA and nobody
 * rings for that.
 */
#include "transport/client.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WATCH_SIGNAL (SIGRTMIN + 7)
#define WATCH_NS     200000000
#define NAP_MS       1
#define LET_IN_MS    300
#define NAP_LONG_MS  10 /* when nothing has happened for NAP_LONG_NS */
#define NAP_LONG_NS  200000000

uint64_t client_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void client_fail(struct tp_client *c, int err, const char *what)
{
	if (c->broken || c->state == TP_CLIENT_DOWN)
		return;
	c->broken = err;
	snprintf(c->why.text, sizeof(c->why.text), "%s: %s: %s", c->name, what, strerror(-err));
}

/* --- watchdog --- *
 *
 * Over shm, every call that may wait for a lock in shared memory goes through guarded(). A timer on
 * this thread's CPU time (none is used at rest) that finds the same visit to the provider twice
 * jumps out of it; what the provider had is then left behind. Frames between the jump and guarded()
 * are the provider's and fabric.c's: callbacks that call it again have a guard of their own.
 */

static void watch_signal(int sig, siginfo_t *si, void *uc)
{
	struct tp_client *c = si->si_value.sival_ptr;
	sigjmp_buf *jump;

	(void)sig;
	(void)uc;
	if (si->si_code != SI_TIMER)
		return;
	jump = c->jump;
	if (!jump || !c->f->guard.inside) {
		c->seen = 0;
		return;
	}
	if (c->seen && c->seen_turn == c->f->guard.turn)
		siglongjmp(*jump, 1);
	c->seen = 1;
	c->seen_turn = c->f->guard.turn;
}

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* The client may be handed from thread to thread. */
static void watch_thread(struct tp_client *c)
{
	struct sigaction sa = { .sa_sigaction = watch_signal,
		                .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER };
	struct sigevent se = { .sigev_notify = SIGEV_THREAD_ID,
		               .sigev_signo = WATCH_SIGNAL,
		               .sigev_value.sival_ptr = c };
	struct itimerspec every = { .it_interval.tv_nsec = WATCH_NS, .it_value.tv_nsec = WATCH_NS };
	sigset_t set;

	if (c->has_timer && pthread_equal(c->thread, pthread_self()))
		return;
	if (c->has_timer)
		timer_delete(c->timer);
	c->has_timer = false;
	sigemptyset(&sa.sa_mask);
	sigemptyset(&set);
	sigaddset(&set, WATCH_SIGNAL);
	if (sigaction(WATCH_SIGNAL, &sa, NULL) || pthread_sigmask(SIG_UNBLOCK, &set, NULL))
		return;
	se.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &se, &c->timer))
		return;
	c->has_timer = true;
	c->thread = pthread_self();
	timer_settime(c->timer, 0, &every, NULL);
}

int client_guarded(struct tp_client *c, int (*fn)(struct tp_client *c, void *arg), void *arg)
{
	sigjmp_buf here, *volatile outer = c->jump;
	const unsigned depth = c->depth;
	int ret;

	if (!c->f->shm)
		return fn(c, arg);
	if (c->hung)
		return -ECONNRESET;
	watch_thread(c);
	if (sigsetjmp(here, 0)) {
		c->jump = NULL;
		c->hung = true;
		c->depth = depth;
		return -ECONNRESET;
	}
	c->jump = &here;
	ret = fn(c, arg);
	c->jump = c->hung ? NULL : outer;
	return ret;
}

static int turn(struct tp_client *c, void *arg)
{
	(void)arg;
	return fab_poll(c->f);
}

/* --- messages --- */

static void post_recv(struct client_slot *s)
{
	struct tp_client *c = s->c;
	int err = fab_recv(c->f, c->ep, s->buf, c->buf_size, c->slab_mr.desc, &s->op);

	if (err == -EAGAIN)
		SLIST_INSERT_HEAD(&c->repost, s, link);
	else if (err)
		client_fail(c, err, "cannot post a receive");
}

static void received(struct fab_op *op, int err)
{
	struct client_slot *s = container_of(op, struct client_slot, op);
	struct tp_client *c = s->c;

	if (c->state == TP_CLIENT_DOWN)
		return;
	if (err && c->state == TP_CLIENT_CONNECTING) {
		c->flushed = err;
		return;
	}
	if (err) {
		client_fail(c, err == -ECANCELED ? -ECONNRESET : err, "the connection broke");
		return;
	}
	/* Anyone may write to an FI_EP_RDM endpoint; we listen to our server. */
	if (!c->broken && c->state == TP_CLIENT_UP &&
	    (!(c->f->info->caps & FI_SOURCE) || !c->f->rdm || op->from == c->peer))
		client_message(c, s->buf, op->len);
	if (!c->broken)
		post_recv(s);
}

static void sent(struct fab_op *op, int err)
{
	struct client_slot *s = container_of(op, struct client_slot, op);
	struct tp_client *c = s->c;

	c->sending--;
	SLIST_INSERT_HEAD(&c->idle, s, link);
	if (err)
		client_fail(c, err == -ECANCELED ? -ECONNRESET : err, "the connection broke");
}

struct sending {
	struct client_slot *s;
	size_t len;
};

static int do_send(struct tp_client *c, void *arg)
{
	const struct sending *m = arg;

	return fab_send(c->f, c->ep, m->s->buf, m->len, c->slab_mr.desc, c->peer, &m->s->op);
}

int client_post_send(struct tp_client *c, struct client_slot *s, size_t len)
{
	struct sending m = { s, len };
	int err = client_guarded(c, do_send, &m);

	c->tried = true;
	if (err) {
		c->stuck = err == -EAGAIN;
		if (c->stuck && c->f->rdm) /* shm: the server has to make room, or to let us in */
			rdv_ring(&c->rdv);
		return err;
	}
	c->heard = true;
	SLIST_REMOVE(&c->idle, s, client_slot, link);
	c->sending++;
	c->last_ns = client_now();
	if (c->f->rdm)
		rdv_ring(&c->rdv);
	return 0;
}

static void retry_posts(struct tp_client *c)
{
	struct client_slots again = c->repost;
	struct client_slot *s;

	c->stuck = false;
	SLIST_INIT(&c->repost);
	while ((s = SLIST_FIRST(&again))) {
		SLIST_REMOVE_HEAD(&again, link);
		post_recv(s);
	}
	client_flush(c);
	c->stuck |= !SLIST_EMPTY(&c->repost);
}

/* --- connecting --- */

static void up(struct tp_client *c, uint32_t peer_send, uint32_t peer_recv, unsigned credits)
{
	c->send_max = peer_recv < c->buf_size ? peer_recv : c->buf_size;
	c->recv_max = peer_send < c->buf_size ? peer_send : c->buf_size;
	c->credits = credits < 1 ? 1 : credits > c->want ? c->want : credits;
	c->state = TP_CLIENT_UP;
	c->events++;
}

static int watch(struct tp_client *c, int fd, uint32_t events, int how)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	if (fd < 0)
		return 0;
	return epoll_ctl(c->epfd, how, fd, &ev) ? -errno : 0;
}

static int connect_msg(struct tp_client *c, struct tp_error *why)
{
	size_t len = c->opts.own.ask ? RR_CM_OWN_SIZE : RR_CM_SIZE;
	uint8_t data[RR_CM_OWN_SIZE];
	int err = fab_ep_open(c->f, c->f->info, c, &c->ep);

	if (err)
		return fab_error(why, &c->opts, "fi_endpoint", err);
	for (unsigned i = 0; i < c->want + CLIENT_SPARE; i++)
		post_recv(&c->slots[i]);
	rr_cm_encode(data, c->buf_size, c->buf_size);
	if (c->opts.own.ask)
		rr_cm_ask_own(data);
	fab_enter(c->f);
	err = fi_connect(c->ep, c->f->info->dest_addr, data, len);
	fab_leave(c->f);
	if (err)
		return fab_error(why, &c->opts, "fi_connect", err);
	return 0;
}

static int connect_rdm(struct tp_client *c, struct tp_error *why)
{
	int err;

	c->ep = c->f->ep;
	for (unsigned i = 0; i < c->want + CLIENT_SPARE; i++)
		post_recv(&c->slots[i]);
	err = rdv_dial(c->f, &c->opts, &c->rdv, why);
	if (err)
		return err;
	c->dial = DIAL_CONNECT;
	return watch(c, c->rdv.fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

/* Told from every other one since this machine was started, and other pid namespaces: when it began. */
static void this_process(uint8_t instance[16])
{
	uint64_t began = 0;
	uint32_t pid = (uint32_t)getpid();
	struct stat ns = { 0 };
	char line[1024], *p;
	FILE *f = fopen("/proc/self/stat", "re");

	if (f && fgets(line, sizeof(line), f) && (p = strrchr(line, ')')))
		sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
		              "%" SCNu64, &began);
	if (f)
		fclose(f);
	stat("/proc/self/ns/pid", &ns);
	memcpy(instance, &began, 8);
	memcpy(instance + 8, &pid, 4);
	memcpy(instance + 12, &(uint32_t){ (uint32_t)ns.st_ino }, 4);
}

static int say_hello(struct tp_client *c)
{
	static const uint8_t none[16];
	struct rdv_hello h = {
		.addr_len = (uint32_t)c->f->addr_len,
		.inline_size = c->buf_size,
		.credits = c->want,
		.ring = c->f->cq_fd < 0,
		.share = c->f->shm,
	};
	int err;

	if (getrandom(&h.nonce, sizeof(h.nonce), 0) != sizeof(h.nonce))
		return -EIO;
	memcpy(h.addr, c->f->addr, c->f->addr_len);
	memcpy(h.instance, c->opts.instance, sizeof(h.instance));
	if (!memcmp(h.instance, none, sizeof(none)))
		this_process(h.instance);
	err = rdv_send_hello(&c->rdv, &h);
	if (!err)
		err = watch(c, c->rdv.fd, EPOLLIN, EPOLL_CTL_MOD);
	return err;
}

static int hear_answer(struct tp_client *c)
{
	struct rdv_hello h;
	int err = rdv_recv_hello(&c->rdv, &h);
	ssize_t n;

	if (err)
		return err;
	if (h.inline_size < RR_DEF_INLINE)
		return -EPROTO;
	fab_enter(c->f);
	n = fi_av_insert(c->f->av, h.addr, 1, &c->peer, 0, NULL);
	fab_leave(c->f);
	if (n != 1)
		return n < 0 ? (int)n : -EADDRNOTAVAIL;
	c->dial = DIAL_DONE;
	up(c, h.inline_size, h.inline_size, h.credits);
	return client_share_open(c);
}

static void dial(struct tp_client *c)
{
	int err = 0;

	if (c->dial == DIAL_CONNECT) {
		err = rdv_dialed(&c->rdv);
		if (!err)
			err = say_hello(c);
		if (!err)
			c->dial = DIAL_HELLO;
	}
	if (!err && c->dial == DIAL_HELLO)
		err = hear_answer(c);
	if (err && err != -EAGAIN)
		client_fail(c, err, "cannot meet the server");
}

static void read_events(struct tp_client *c)
{
	struct fab_event ev;
	uint32_t send, recv;
	int n;

	while ((n = fab_eq_read(c->f, &ev)) > 0) {
		if (ev.info)
			fi_freeinfo(ev.info);
		if (ev.fid != &c->ep->fid)
			continue;
		if (ev.event == FI_CONNECTED && c->state == TP_CLIENT_CONNECTING) {
			rr_cm_decode(ev.data, ev.len, &send, &recv);
			up(c, send, recv, 1);
		} else if (ev.event == FI_SHUTDOWN) {
			client_fail(c, -ECONNRESET, "the server closed the connection");
		} else if (ev.err) {
			client_fail(c, ev.err, "cannot connect");
		}
	}
	if (n < 0)
		client_fail(c, n, "the event queue broke");
}

/* --- the end --- */

/*
 * The first send of an shm endpoint asks the server to map our memory and is refused until it has.
 * Were that memory gone by then, the server would fall over it (libfabric 1.17), so an impatient
 * caller waits for a live server to get there. RDMA_DONE is a message that every server ignores.
 */
static void let_server_in(struct tp_client *c)
{
	struct rr_header h = { .credits = 1, .proc = RR_DONE };
	struct client_slot *s = SLIST_FIRST(&c->idle);

	if (!c->f->shm || !c->tried || c->heard || !s)
		return;
	rr_encode(&h, NULL, s->buf, c->buf_size);
	for (unsigned ms = 0; ms < LET_IN_MS && client_post_send(c, s, RR_FIXED) == -EAGAIN; ms++) {
		struct pollfd p = { .fd = c->rdv.fd, .events = POLLIN };

		if (poll(&p, 1, 1) > 0 && rdv_drain(&c->rdv))
			break;
		client_guarded(c, turn, NULL);
	}
}

static int close_ep(struct tp_client *c, void *arg)
{
	(void)arg;
	if (c->f->rdm)
		c->f->ep = NULL;
	fab_ep_close(c->f, c->ep);
	return 0;
}

/* T1: on the first return from the provider after the fault. */
static void down(struct tp_client *c, int err)
{
	if (c->state == TP_CLIENT_DOWN)
		return;
	c->state = TP_CLIENT_DOWN;
	c->err = err;
	c->depth++;
	watch(c, c->f->cq_fd, 0, EPOLL_CTL_DEL);
	watch(c, c->f->eq_fd, 0, EPOLL_CTL_DEL);
	if (c->rdv.fd >= 0) {
		if (err == -ECANCELED)
			let_server_in(c);
		if (c->rdv.mine)
			rdv_disarm(c->rdv.mine);
		watch(c, c->rdv.fd, 0, EPOLL_CTL_DEL);
		rdv_close(&c->rdv);
		c->rdv.fd = -1;
	}
	if (c->ep)
		client_guarded(c, close_ep, NULL);
	c->ep = NULL;
	while (client_guarded(c, turn, NULL) > 0)
		;
	client_rma_fail_all(c, err);
	client_fail_all(c, err);
	c->depth--;
}

static void client_free(struct tp_client *c)
{
	if (c->has_timer)
		timer_delete(c->timer);
	client_mr_free_all(c);
	client_share_close(c);
	if (c->hung) { /* the message buffers may be in the provider's hands for ever */
		fab_abandon(c->f);
		close(c->epfd);
		free(c);
		return;
	}
	if (c->slab_mr.mr)
		fab_mr_close(c->f, &c->slab_mr);
	fab_close(c->f);
	close(c->epfd);
	free(c->slab);
	free(c->slots);
	free(c);
}

TP_API void tp_client_close(struct tp_client *c)
{
	if (!c)
		return;
	c->closing = true;
	if (c->depth) {
		client_fail(c, -ECANCELED, "closed");
		return;
	}
	c->depth++;
	down(c, -ECANCELED);
	c->depth--;
	client_free(c);
}

/* --- progress and sleep --- */

/* Only while FI_EP_RDM peers meet, or after a sleep: the socket carries news of nothing else. */
static void read_rendezvous(struct tp_client *c)
{
	int err;

	if (c->dial != DIAL_DONE) {
		dial(c);
		return;
	}
	if (!c->slept && c->f->cq_fd < 0)
		return;
	c->slept = false;
	err = rdv_drain(&c->rdv);
	if (err)
		client_fail(c, -ECONNRESET, "the server is gone");
}

static void disarm(struct tp_client *c)
{
	if (c->armed && c->rdv.mine)
		rdv_disarm(c->rdv.mine);
	c->armed = c->looked = false;
}

TP_API int tp_client_progress(struct tp_client *c)
{
	int n, ret;

	if (c->state == TP_CLIENT_DOWN)
		return c->err;
	c->events = 0;
	c->depth++;
	n = client_guarded(c, turn, NULL);
	if (n < 0)
		client_fail(c, n,
		            c->hung ? "the provider hangs in a lock that somebody has, killed or stopped in it"
		                    : "the completion queue broke");
	if (n) {
		c->last_ns = client_now();
		spin_event(&c->spin, c->last_ns);
		disarm(c);
	} else {
		c->looked = c->armed;
	}
	/* Behind the completions: the tcp provider tells of the end while it looks for them. What woke us without a
	 * completion may be an event. */
	if (c->f->eq && (n <= 0 || c->f->eq_ready || c->state == TP_CLIENT_CONNECTING))
		read_events(c);
	if (c->flushed && c->state == TP_CLIENT_CONNECTING)
		client_fail(c, -ECONNREFUSED, "cannot connect");
	if (c->f->rdm)
		read_rendezvous(c);
	if (!c->broken)
		retry_posts(c);
	if (c->broken)
		down(c, c->closing ? -ECANCELED : c->broken);
	c->depth--;
	ret = c->state == TP_CLIENT_DOWN ? c->err : n > 0 ? n : (int)c->events;
	if (c->closing && !c->depth) {
		client_free(c);
		return -ECANCELED;
	}
	return ret;
}

/* Without a wait descriptor: turn, arm, look once more, sleep. */
static int before_nap(struct tp_client *c, int *timeout_ms)
{
	bool out = c->inflight || c->sending || c->rma_out || c->stuck;
	uint64_t idle = out ? client_now() - c->last_ns : 0;

	if (out && !c->armed && idle < SPIN_NS) {
		sched_yield();
		return -EAGAIN;
	}
	if (!c->armed) {
		c->armed = true;
		c->looked = false;
		if (c->rdv.mine)
			rdv_arm(c->rdv.mine);
	}
	if (c->rma_out) /* it may need the server: shm where one process may not copy into the other */
		rdv_ring(&c->rdv);
	if (!c->looked)
		return -EAGAIN;
	c->slept = true;
	*timeout_ms = !out ? -1 : idle < NAP_LONG_NS ? NAP_MS : NAP_LONG_MS;
	return 0;
}

TP_API int tp_client_before_poll(struct tp_client *c, int *timeout_ms)
{
	*timeout_ms = -1;
	if (c->state == TP_CLIENT_DOWN)
		return 0;
	if (c->broken)
		return -EAGAIN;
	if (c->stuck)
		*timeout_ms = NAP_MS;
	if (c->f->rdm && c->dial != DIAL_DONE)
		return 0;
	if (c->f->cq_fd >= 0 && (c->inflight || c->rma_out) && spin_yield(&c->spin))
		return -EAGAIN;
	if (c->f->cq_fd >= 0)
		return fab_before_sleep(c->f);
	return before_nap(c, timeout_ms);
}

TP_API int tp_client_wait(struct tp_client *c, int timeout_ms)
{
	uint64_t end = timeout_ms < 0 ? UINT64_MAX : client_now() + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		int nap, n = tp_client_before_poll(c, &nap);
		uint64_t now = client_now();

		if (!n && c->state != TP_CLIENT_DOWN && now < end) {
			struct pollfd p = { .fd = c->epfd, .events = POLLIN };
			uint64_t left = (end - now + 999999) / 1000000;

			if (timeout_ms >= 0 && (nap < 0 || left < (uint64_t)nap))
				nap = (int)left;
			if (poll(&p, 1, nap) < 0 && errno != EINTR)
				return -errno;
		}
		n = tp_client_progress(c);
		if (n || client_now() >= end)
			return n;
	}
}

TP_API int tp_client_state(const struct tp_client *c, struct tp_error *why)
{
	if (why)
		*why = c->why;
	return c->state;
}

TP_API int tp_client_fd(const struct tp_client *c)
{
	return c->epfd;
}

/* --- open --- */

static int make_slots(struct tp_client *c)
{
	unsigned nrecv = c->want + CLIENT_SPARE, nsend = c->want;
	size_t len;
	int err;

	if (nsend > c->f->tx_size)
		nsend = (unsigned)c->f->tx_size;
	c->nslots = nrecv + nsend;
	len = (size_t)c->nslots * c->buf_size + TP_PUSH_MAX;
	c->slots = calloc(c->nslots, sizeof(*c->slots));
	c->slab = aligned_alloc(4096, (len + 4095) & ~(size_t)4095);
	if (!c->slots || !c->slab)
		return -ENOMEM;
	err = fab_mr_open(c->f, c->slab, len, FI_SEND | FI_RECV | FI_READ, &c->slab_mr);
	if (err)
		return err;
	c->pushed = c->slab + len - TP_PUSH_MAX;
	for (unsigned i = 0; i < c->nslots; i++) {
		struct client_slot *s = &c->slots[i];

		s->c = c;
		s->buf = c->slab + (size_t)i * c->buf_size;
		s->op.done = i < nrecv ? received : sent;
		if (i >= nrecv)
			SLIST_INSERT_HEAD(&c->idle, s, link);
	}
	return 0;
}

static void set_sizes(struct tp_client *c, const struct tp_fabric_opts *opts)
{
	uint32_t size = opts->inline_size ? opts->inline_size : FAB_DEF_INLINE;

	c->want = opts->credits ? opts->credits : FAB_DEF_CREDITS;
	if (c->want + CLIENT_SPARE > c->f->rx_size && c->f->rx_size > CLIENT_SPARE)
		c->want = (unsigned)(c->f->rx_size - CLIENT_SPARE);
	size = size < RR_DEF_INLINE ? RR_DEF_INLINE : size > 256 * 1024 ? 256 * 1024 : size;
	if (size > c->f->msg_max)
		size = (uint32_t)c->f->msg_max;
	c->buf_size = size & ~(uint32_t)1023; /* what the private data can say */
	c->pinned = c->f->info->domain_attr->mr_mode & FI_MR_ALLOCATED;
}

static int client_start(struct tp_client *c, const struct tp_fabric_opts *opts,
                        struct tp_error *why)
{
	int err = fab_open(opts, FAB_CLIENT, &c->f, why);

	if (err)
		return err;
	set_sizes(c, opts);
	snprintf(c->name, sizeof(c->name), "fabric %s (%s)", opts->name ? opts->name : "client",
	         c->f->info->fabric_attr->prov_name);
	err = make_slots(c);
	if (err)
		return fab_error(why, opts, "message buffers", err);
	c->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (c->epfd < 0)
		return fab_error(why, opts, "epoll_create1", -errno);
	err = watch(c, c->f->cq_fd, EPOLLIN, EPOLL_CTL_ADD);
	if (!err)
		err = watch(c, c->f->eq_fd, EPOLLIN, EPOLL_CTL_ADD);
	if (err)
		return fab_error(why, opts, "epoll_ctl", err);
	err = c->f->rdm ? connect_rdm(c, why) : connect_msg(c, why);
	if (!err && c->broken) {
		*why = c->why;
		err = c->broken;
	}
	return err;
}

TP_API int tp_client_open(const struct tp_fabric_opts *opts, struct tp_client **out,
                          struct tp_error *why)
{
	struct tp_client *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return fab_error(why, opts, "client", -ENOMEM);
	c->epfd = -1;
	c->rdv = RDV_NONE;
	c->peer = FI_ADDR_UNSPEC;
	c->state = TP_CLIENT_CONNECTING;
	c->opts = *opts;
	TAILQ_INIT(&c->queued);
	TAILQ_INIT(&c->sent);
	TAILQ_INIT(&c->rma_queued);
	TAILQ_INIT(&c->rma_posted);
	TAILQ_INIT(&c->mrs);
	SLIST_INIT(&c->idle);
	SLIST_INIT(&c->repost);
	SLIST_INIT(&c->replies);
	getrandom(&c->next_xid, sizeof(c->next_xid), 0);
	err = client_start(c, opts, why);
	if (!err) {
		*out = c;
		return 0;
	}
	if (c->f) {
		down(c, err);
		client_free(c);
	} else {
		free(c);
	}
	return err;
}
