/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Client and server of this library together, over fabric tcp and over shm: many calls out at once,
 * every length around a message's, payload cut where nobody expects it, clients that come and go.
 */
#include "transport/transport.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROG  0x20000098
#define LANES 16u
#define LANE  (512u << 10)
#define MEM   (LANES * LANE)

enum { NOTHING, STORE, FETCH, HOLD };

/* --- the server: STORE (off, head<>, data<>) -> len; FETCH (off, len, n) -> (head of n words,
 * data<>) --- */

struct server {
	pthread_t thread;
	struct ev_loop *loop;
	ev_async quit, shut;
	struct tp_service *svc;
	struct tp_listener *l;
	struct tp_fabric_opts o;
	char service[32];
	uint8_t *mem;
	struct tp_call *held[256];
	unsigned nheld;
	_Atomic unsigned holds, sent;
};

/* Segments of odd lengths, as a pool's extents might be. */
static unsigned cut(struct server *s, uint32_t off, uint32_t len, struct iovec *iov)
{
	unsigned n = 0;

	for (uint32_t at = 0; at < len; n++) {
		uint32_t k = n % 3 ? 4096 : 70001;

		if (k > len - at)
			k = len - at;
		iov[n] = (struct iovec){ s->mem + off + at, k };
		at += k;
	}
	return n;
}

static void run_nothing(struct tp_call *call)
{
	if (tp_reply_begin(call, 0))
		tp_reply_end(call);
}

static void stored(struct tp_call *call, int err)
{
	uint32_t len = call->payload_len;
	XDR *x;

	if (err) {
		tp_reply_error(call, SYSTEM_ERR);
		return;
	}
	x = tp_reply_begin(call, 4);
	if (x) {
		xdr_u_int32_t(x, &len);
		tp_reply_end(call);
	}
}

static void run_store(struct tp_call *call)
{
	struct server *s = call->worker;
	struct iovec iov[64];
	uint32_t off = 0;
	char *head = NULL;
	u_int nhead = 0;

	if (!xdr_u_int32_t(&call->args, &off) || !xdr_bytes(&call->args, &head, &nhead, 65536) ||
	    off > MEM || call->payload_len > MEM - off) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	for (u_int i = 0; i < nhead; i++)
		cr_assert_eq(head[i], 'h');
	free(head);
	tp_place(call, iov, cut(s, off, call->payload_len, iov), stored);
}

static size_t store_at(const uint8_t *args, size_t have)
{
	size_t head;

	if (have < 8)
		return 8;
	head = (size_t)args[4] << 24 | (size_t)args[5] << 16 | (size_t)args[6] << 8 | args[7];
	return head > 65536 ? 0 : 8 + ((head + 3) & ~(size_t)3) + 4;
}

static void sent(void *arg, int err)
{
	struct server *s = arg;

	(void)err;
	s->sent++;
}

static void run_fetch(struct tp_call *call)
{
	struct server *s = call->worker;
	uint32_t off = 0, len = 0, n = 0;
	struct iovec iov[64];
	XDR *x;

	if (!xdr_u_int32_t(&call->args, &off) || !xdr_u_int32_t(&call->args, &len) ||
	    !xdr_u_int32_t(&call->args, &n) || off > MEM || len > MEM - off || n > 10000) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (len > tp_reply_payload_room(call))
		len = tp_reply_payload_room(call);
	x = tp_reply_begin(call, 4 + 4 * n);
	if (!x)
		return;
	xdr_u_int32_t(x, &n);
	for (uint32_t i = 0; i < n; i++)
		xdr_u_int32_t(x, &i);
	tp_reply_end_payload(call, iov, cut(s, off, len, iov), len, sent, s);
}

static void run_hold(struct tp_call *call)
{
	struct server *s = call->worker;

	s->held[s->nheld++] = call;
	s->holds++;
}

static const struct tp_proc procs[] = {
	{ "NOTHING", run_nothing, NULL },
	{ "STORE", run_store, store_at },
	{ "FETCH", run_fetch, NULL },
	{ "HOLD", run_hold, NULL },
};
static const struct tp_program program = {
	.prog = PROG, .vers = 1, .procs = procs, .nprocs = 4, .auth_none_ok = true
};

static void quit(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

/* The listener goes while calls are with the program, which ends them later. */
static void shut(struct ev_loop *loop, ev_async *w, int revents)
{
	struct server *s = w->data;

	(void)loop;
	(void)revents;
	tp_listener_close(s->l);
	s->l = NULL;
	while (s->nheld)
		run_nothing(s->held[--s->nheld]);
}

static void *serve(void *arg)
{
	struct server *s = arg;

	ev_run(s->loop, 0);
	return NULL;
}

static struct server *start_with(const char *provider, unsigned client_timeout)
{
	static const struct tp_program *const programs[] = { &program, NULL };
	struct server *s = calloc(1, sizeof(*s));
	struct tp_service_opts so = {
		.programs = programs, .max_call = 128 << 10, .worker = s, .nregions = 1,
		.client_timeout = client_timeout
	};
	struct tp_region region = { .len = MEM };
	struct tp_error why = { "" };
	int err = -1;

	s->mem = region.base =
		mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	so.regions = &region;
	s->loop = ev_loop_new(EVFLAG_AUTO);
	ev_async_init(&s->quit, quit);
	ev_async_start(s->loop, &s->quit);
	ev_async_init(&s->shut, shut);
	s->shut.data = s;
	ev_async_start(s->loop, &s->shut);
	cr_assert_eq(tp_service_new(s->loop, &so, &s->svc), 0);
	s->o = (struct tp_fabric_opts){ .name = "pair",
		                        .provider = provider,
		                        .service = s->service };
	for (unsigned i = 0; i < 50 && err; i++) {
		if (!strcmp(provider, "shm"))
			snprintf(s->service, sizeof(s->service), "pair-%d", getpid());
		else
			snprintf(s->service, sizeof(s->service), "%u",
			         20000 + ((unsigned)getpid() * 7 + i * 131) % 12000);
		err = tp_listen_fabric(s->svc, &s->o, &s->l, &why);
	}
	cr_assert_eq(err, 0, "%s", why.text);
	cr_assert_eq(pthread_create(&s->thread, NULL, serve, s), 0);
	return s;
}

static struct server *start(const char *provider)
{
	return start_with(provider, 0);
}

static void stop(struct server *s)
{
	ev_async_send(s->loop, &s->quit);
	pthread_join(s->thread, NULL);
	if (s->l)
		tp_listener_close(s->l);
	tp_service_stop(s->svc);
	cr_assert_eq(tp_service_calls(s->svc), 0);
	cr_assert_eq(tp_service_stats(s->svc)->payload_copied_bytes, 0);
	cr_assert_eq(tp_service_stats(s->svc)->conns, 0);
	tp_service_free(s->svc);
	ev_loop_destroy(s->loop);
	munmap(s->mem, MEM);
	free(s);
}

static struct tp_client *dial(struct server *s)
{
	struct tp_client *c;
	struct tp_error why = { "" };

	cr_assert_eq(tp_client_open(&s->o, &c, &why), 0, "%s", why.text);
	for (unsigned i = 0; i < 100 && tp_client_state(c, NULL) == TP_CLIENT_CONNECTING; i++)
		tp_client_wait(c, 100);
	cr_assert_eq(tp_client_state(c, &why), TP_CLIENT_UP, "%s", why.text);
	return c;
}

/* --- many calls at once against a shadow copy --- */

struct lane { /* one piece of the server's memory and the one call that is at it */
	struct tp_req req;
	struct run *run;
	unsigned left;
	uint32_t seed, base, off, len, head;
	bool fetching;
	struct iovec iov[3];
	uint8_t shadow[LANE], buf[LANE];
};

struct run {
	struct tp_client *c;
	unsigned live;
	uint64_t bytes;
	struct lane *lanes;
};

static uint32_t next(struct lane *l)
{
	l->seed = l->seed * 1664525 + 1013904223;
	return l->seed >> 8;
}

static uint32_t length(struct lane *l)
{
	static const uint32_t max[] = { 8, 200, 1024, 4200, 4200, 20000, 70000, LANE };

	return next(l) % max[next(l) % 8];
}

static void step(struct lane *l);

static void stepped(struct tp_req *req, int err)
{
	struct lane *l =
		req->priv ? NULL
			  : (struct lane *)(void *)((char *)req - offsetof(struct lane, req));
	uint32_t n = 0, w = 0;

	cr_assert(l);
	cr_assert_eq(err, 0, "%s of %u+%u: %d", l->fetching ? "fetch" : "store", l->off, l->len,
	             err);
	cr_assert_eq(req->reply.ar_stat, SUCCESS);
	cr_assert(xdr_u_int32_t(&req->results, &n));
	if (l->fetching) {
		cr_assert_eq(n, l->head);
		for (uint32_t i = 0; i < n; i++)
			cr_assert(xdr_u_int32_t(&req->results, &w) && w == i);
		cr_assert(xdr_u_int32_t(&req->results, &w));
		cr_assert(w == l->len && req->in_len == l->len, "%u, %u of %u", w, req->in_len,
		          l->len);
		cr_assert_eq(memcmp(l->buf + 1, l->shadow + l->off, l->len), 0, "%u+%u", l->off,
		             l->len);
		cr_assert_eq(l->buf[1 + l->len], 0xa5);
	} else {
		cr_assert_eq(n, l->len);
	}
	l->run->bytes += l->len;
	if (l->left--)
		step(l);
	else
		l->run->live--;
}

/* Unaligned, in up to three pieces. */
static unsigned scatter(struct lane *l, uint8_t *at)
{
	uint32_t a = l->len ? next(l) % l->len : 0;

	l->iov[0] = (struct iovec){ at, a };
	l->iov[1] = (struct iovec){ at + a, 0 };
	l->iov[2] = (struct iovec){ at + a, l->len - a };
	return 3;
}

static void step_store(struct lane *l)
{
	static char head[65536];
	char *h = memset(head, 'h', sizeof(head));
	XDR *x = tp_req_begin(l->run->c, &l->req, PROG, 1, STORE, NULL, 8 + l->head + 3);
	uint32_t off = l->base + l->off;
	u_int n = l->head;

	for (uint32_t i = 0; i < l->len; i++)
		l->shadow[l->off + i] = (uint8_t)(next(l) >> 3);
	memcpy(l->buf + 1, l->shadow + l->off, l->len);
	cr_assert(x && xdr_u_int32_t(x, &off) && xdr_bytes(x, &h, &n, 65536));
	l->req.nout = scatter(l, l->buf + 1);
	l->req.out = l->iov;
	l->req.max_results = 4;
}

static void step_fetch(struct lane *l)
{
	XDR *x = tp_req_begin(l->run->c, &l->req, PROG, 1, FETCH, NULL, 12);
	uint32_t off = l->base + l->off;

	cr_assert(x && xdr_u_int32_t(x, &off) && xdr_u_int32_t(x, &l->len) &&
	          xdr_u_int32_t(x, &l->head));
	memset(l->buf, 0xa5, l->len + 2);
	l->req.nin = scatter(l, l->buf + 1);
	l->req.in = l->iov;
	l->req.max_results = 8 + 4 * l->head;
}

static void step(struct lane *l)
{
	memset(&l->req, 0, sizeof(l->req));
	l->req.done = stepped;
	l->len = length(l);
	if (l->len > LANE - 2)
		l->len = LANE - 2;
	l->off = next(l) % (LANE - l->len);
	l->head = next(l) % 4 ? next(l) % 20 : next(l) % 3000;
	l->fetching = next(l) & 1;
	if (l->fetching)
		step_fetch(l);
	else
		step_store(l);
	cr_assert_eq(tp_req_send(l->run->c, &l->req), 0);
}

static void run_begin(struct run *r, struct server *s, unsigned first, unsigned n, unsigned steps)
{
	r->c = dial(s);
	r->bytes = 0;
	r->live = n;
	r->lanes = calloc(n, sizeof(*r->lanes));
	for (unsigned i = 0; i < n; i++) {
		r->lanes[i].run = r;
		r->lanes[i].seed = first + i + 1;
		r->lanes[i].base = (first + i) * LANE;
		r->lanes[i].left = steps;
		step(&r->lanes[i]);
	}
}

static void run_end(struct run *r)
{
	tp_client_close(r->c);
	free(r->lanes);
}

TestSuite(pair_tcp, .timeout = 120);
TestSuite(pair_shm, .timeout = 120);
#define ON_BOTH(name)                                                                              \
	static void name(const char *fabric);                                                      \
	Test(pair_tcp, name)                                                                       \
	{                                                                                          \
		name("tcp");                                                                       \
	}                                                                                          \
	Test(pair_shm, name)                                                                       \
	{                                                                                          \
		name("shm");                                                                       \
	}                                                                                          \
	static void name(const char *fabric)

/* @n calls of a length at once, each storing at its own place, then @n that fetch it. */
static void store_and_fetch(struct server *s, uint32_t len, unsigned n)
{
	struct run r = { .c = dial(s), .live = n, .lanes = calloc(n, sizeof(*r.lanes)) };

	for (unsigned k = 0; k < 2; k++) {
		r.live = n;
		for (unsigned i = 0; i < n; i++) {
			struct lane *l = &r.lanes[i];

			l->run = &r;
			l->left = 0;
			l->req = (struct tp_req){ .done = stepped };
			l->base = i % LANES * LANE;
			l->len = len;
			l->off = i / LANES * 8192;
			l->fetching = k;
			(k ? step_fetch : step_store)(l);
			cr_assert_eq(tp_req_send(r.c, &l->req), 0);
		}
		while (r.live)
			cr_assert_geq(tp_client_wait(r.c, 10000), 1);
	}
	run_end(&r);
}

/* More calls than there are credits, then one byte more than a message has. */
Test(pair_shm, small_payloads_need_no_rma)
{
	struct server *s = start("shm");
	const struct tp_stats *st = tp_service_stats(s->svc);
	uint64_t placed;

	store_and_fetch(s, 4096, 1);
	cr_assert_eq(st->payload_placed_bytes, 0);
	cr_assert_eq(st->payload_inline_bytes, 2 * 4096);
	store_and_fetch(s, 1, 1);
	cr_assert_eq(st->payload_placed_bytes, 0);
	store_and_fetch(s, 4000, 3 * LANES);
	cr_assert_eq(st->payload_placed_bytes, 0);
	store_and_fetch(s, 4097, 1);
	placed = st->payload_placed_bytes;
	stop(s);
	cr_assert_eq(placed, 2 * 4097);
}

ON_BOTH(what_was_stored_is_fetched_by_many_calls_at_once)
{
	struct server *s = start(fabric);
	struct run r;

	run_begin(&r, s, 0, LANES, 100);
	while (r.live)
		cr_assert_geq(tp_client_wait(r.c, 20000), 0);
	for (unsigned i = 0; i < LANES; i++) /* and nothing else was touched */
		cr_assert_eq(memcmp(s->mem + i * LANE, r.lanes[i].shadow, LANE), 0, "lane %u", i);
	run_end(&r);
	stop(s);
}

ON_BOTH(clients_beside_each_other_do_not_mix)
{
	struct server *s = start(fabric);
	struct run r[8];
	unsigned live = 8;

	for (unsigned i = 0; i < 8; i++)
		run_begin(&r[i], s, 2 * i, 2, 40);
	for (unsigned turn = 0; live; turn++) {
		live = 0;
		for (unsigned i = 0; i < 8; i++) {
			if (r[i].live)
				tp_client_wait(r[i].c, 1);
			live += !!r[i].live;
		}
	}
	for (unsigned i = 0; i < 8; i++)
		run_end(&r[i]);
	stop(s);
}

static void count(struct tp_req *req, int err)
{
	int *n = (int *)(void *)(req + 1);

	n[0]++;
	n[1] = err;
}

struct counted {
	struct tp_req req;
	int times, err;
};

static void call(struct tp_client *c, struct counted *k, uint32_t proc)
{
	*k = (struct counted){ .req.done = count };
	cr_assert(tp_req_begin(c, &k->req, PROG, 1, proc, NULL, 0));
	cr_assert_eq(tp_req_send(c, &k->req), 0);
}

/* The server may read the beginning of a payload by itself, where the rest then goes faster. */
ON_BOTH(a_payload_from_any_place_in_a_page_arrives)
{
	static const uint32_t into[] = { 0, 1, 8, 15, 16, 63, 4080, 4081, 4095 };
	static const uint32_t lens[] = { 32767, 32768, 32769, 100001, LANE - 8192 };
	struct server *s = start(fabric);
	struct tp_client *c = dial(s);
	uint8_t *buf = aligned_alloc(4096, LANE);

	for (unsigned i = 0; i < LANE; i++)
		buf[i] = (uint8_t)(i * 2654435761u >> 24);
	for (unsigned i = 0; i < sizeof(into) / sizeof(*into); i++) {
		for (unsigned j = 0; j < sizeof(lens) / sizeof(*lens); j++) {
			struct iovec iov = { buf + into[i], lens[j] };
			struct counted k = { .req = { .done = count, .out = &iov, .nout = 1, .max_results = 4 } };
			uint32_t off = 0;
			char *head = NULL;
			u_int nhead = 0;
			XDR *x = tp_req_begin(c, &k.req, PROG, 1, STORE, NULL, 8);

			cr_assert(x && xdr_u_int32_t(x, &off) && xdr_bytes(x, &head, &nhead, 0));
			cr_assert_eq(tp_req_send(c, &k.req), 0);
			while (!k.times)
				cr_assert_geq(tp_client_wait(c, 20000), 0);
			cr_assert_eq(k.err, 0, "%u bytes from %u", lens[j], into[i]);
			cr_assert_eq(memcmp(s->mem, buf + into[i], lens[j]), 0, "%u bytes from %u", lens[j], into[i]);
			memset(s->mem, 0, lens[j]);
		}
	}
	tp_client_close(c);
	free(buf);
	stop(s);
}

ON_BOTH(clients_that_come_and_go_disturb_nobody)
{
	struct server *s = start(fabric);
	struct run r;

	run_begin(&r, s, 0, 4, 150);
	for (unsigned i = 0; i < 20; i++) {
		struct tp_client *c = dial(s);
		struct counted k[3];

		/* At once, with a call out, with an answer. */
		if (i % 3)
			call(c, &k[0], NOTHING);
		if (i % 3 == 2) {
			call(c, &k[1], NOTHING);
			while (!k[1].times)
				tp_client_wait(c, 20000);
			cr_assert_eq(k[1].err, 0);
		}
		tp_client_close(c);
		cr_assert(!(i % 3) || k[0].times == 1);
		for (unsigned turn = 0; turn < 20 && r.live; turn++)
			tp_client_wait(r.c, 1);
	}
	while (r.live)
		cr_assert_geq(tp_client_wait(r.c, 20000), 0);
	run_end(&r);
	stop(s);
}

/* Nothing tells of a host that is gone while nothing is on its way to it, so silence must do. */
Test(pair_tcp, a_silent_client_loses_its_connection_and_no_other_does)
{
	struct server *s = start_with("tcp", 2);
	struct tp_client *silent = dial(s), *talks = dial(s), *waits = dial(s);
	struct counted k, held;

	call(waits, &held, HOLD);
	while (!s->holds)
		tp_client_wait(waits, 1);
	while (tp_client_state(silent, NULL) != TP_CLIENT_DOWN) {
		call(talks, &k, NOTHING);
		while (!k.times)
			tp_client_wait(talks, 100);
		cr_assert_eq(k.err, 0);
		tp_client_wait(silent, 100);
	}
	cr_assert_eq(tp_client_state(talks, NULL), TP_CLIENT_UP);
	tp_client_wait(waits, 0);
	cr_assert_eq(tp_client_state(waits, NULL), TP_CLIENT_UP);
	cr_assert_eq(tp_service_stats(s->svc)->timeouts, 1);
	tp_client_close(silent);
	tp_client_close(talks);
	ev_async_send(s->loop, &s->shut);
	while (!held.times)
		tp_client_wait(waits, 100);
	tp_client_close(waits);
	stop(s);
}

ON_BOTH(a_server_that_closes_ends_every_call_once)
{
	struct server *s = start(fabric);
	struct tp_client *c = dial(s);
	struct counted k[10];

	for (unsigned i = 0; i < 10; i++)
		call(c, &k[i], HOLD);
	while (!s->holds)
		tp_client_wait(c, 1);
	ev_async_send(s->loop, &s->shut);
	while (tp_client_state(c, NULL) != TP_CLIENT_DOWN)
		tp_client_wait(c, 100);
	for (unsigned i = 0; i < 10; i++)
		cr_assert(k[i].times == 1 && k[i].err < 0, "call %u: %d times, %d", i, k[i].times,
		          k[i].err);
	tp_client_close(c);
	stop(s);
}

ON_BOTH(a_client_dies_with_calls_out_and_another_goes_on)
{
	struct server *s = start(fabric);
	struct tp_client *c = dial(s), *d = dial(s);
	struct counted k[10], l;

	for (unsigned i = 0; i < 10; i++)
		call(c, &k[i], HOLD);
	while (!s->holds)
		tp_client_wait(c, 1);
	tp_client_close(c);
	for (unsigned i = 0; i < 10; i++)
		cr_assert(k[i].times == 1 && k[i].err == -ECANCELED);
	for (unsigned i = 0; i < 100; i++) {
		call(d, &l, NOTHING);
		while (!l.times)
			tp_client_wait(d, 20000);
		cr_assert_eq(l.err, 0);
	}
	ev_async_send(s->loop, &s->shut);
	while (tp_client_state(d, NULL) != TP_CLIENT_DOWN)
		tp_client_wait(d, 100);
	tp_client_close(d);
	stop(s);
}

/* --- a server killed in the middle --- */

static pid_t start_apart(const char *fabric, struct server *s)
{
	int fd[2];
	pid_t pid;

	cr_assert_eq(pipe(fd), 0);
	pid = fork();
	if (!pid) {
		struct server *own = start(fabric);

		if (write(fd[1], own->service, sizeof(own->service)) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	close(fd[1]);
	*s = (struct server){ 0 };
	cr_assert_eq(read(fd[0], s->service, sizeof(s->service)), sizeof(s->service));
	close(fd[0]);
	s->o = (struct tp_fabric_opts){ .name = "pair", .provider = fabric, .service = s->service };
	return pid;
}

struct pull {
	struct tp_req req;
	struct tp_client *c;
	struct iovec v;
	uint8_t *buf;
	unsigned done;
	int err;
};
static void pull(struct pull *l);

static void fetch_more(struct tp_req *req, int err)
{
	struct pull *l = (struct pull *)(void *)req;

	l->done++;
	l->err = err;
	if (!err)
		pull(l);
}

static void pull(struct pull *l)
{
	uint32_t off = 0, len = 1 << 20, n = 0;
	XDR *x;

	memset(&l->req, 0, sizeof(l->req));
	l->req.done = fetch_more;
	x = tp_req_begin(l->c, &l->req, PROG, 1, FETCH, NULL, 12);
	cr_assert(x && xdr_u_int32_t(x, &off) && xdr_u_int32_t(x, &len) && xdr_u_int32_t(x, &n));
	l->v = (struct iovec){ l->buf, len };
	l->req.in = &l->v;
	l->req.nin = 1;
	l->req.max_results = 8;
	l->err = tp_req_send(l->c, &l->req);
}

ON_BOTH(the_death_of_a_server_is_noticed_in_the_middle_of_transfers)
{
	for (unsigned round = 0; round < 8; round++) {
		struct server s;
		pid_t pid = start_apart(fabric, &s);
		struct tp_client *c = dial(&s);
		struct pull *l = calloc(4, sizeof(*l));
		unsigned more = 1 + round * 5 % 13, n = 0;

		for (unsigned i = 0; i < 4; i++) {
			l[i].c = c;
			l[i].buf = malloc(1 << 20);
			pull(&l[i]);
		}
		while (n < more) {
			tp_client_wait(c, 1000);
			n = l[0].done + l[1].done + l[2].done + l[3].done;
		}
		kill(pid, SIGKILL);
		while (tp_client_state(c, NULL) != TP_CLIENT_DOWN)
			tp_client_wait(c, 1000);
		for (unsigned i = 0; i < 4; i++) {
			cr_assert(l[i].err < 0, "%d", l[i].err);
			free(l[i].buf);
		}
		tp_client_close(c);
		waitpid(pid, NULL, 0);
		free(l);
	}
}
