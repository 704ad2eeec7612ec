/* SPDX-License-Identifier: BSD-3-Clause */
#include "test/lib/keysrv.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- the server --- */

static void dead(void *arg)
{
	struct keysrv *s = arg;

	s->dead++;
}

static void close_all(struct keysrv *s, bool hurry)
{
	while (s->nkeys) {
		struct tp_key *k = s->key[--s->nkeys];
		unsigned before = s->dead;

		tp_key_close(k, dead, s);
		if (hurry && s->dead == before)
			tp_key_hurry(k);
	}
}

static void gone(struct tp_conn_watch *w)
{
	struct keysrv *s = (struct keysrv *)(void *)((char *)w - offsetof(struct keysrv, watch));

	close_all(s, false);
	s->watched = false;
	s->left = w->left;
	s->gone++;
}

static void answer(struct tp_call *call, uint64_t a, uint64_t b)
{
	XDR *x = tp_reply_begin(call, 16);

	if (!x)
		return;
	xdr_uint64_t(x, &a);
	xdr_uint64_t(x, &b);
	tp_reply_end(call);
}

static void run_nothing(struct tp_call *call)
{
	answer(call, 0, 0);
}

static void run_open(struct tp_call *call)
{
	struct keysrv *s = call->worker;
	struct tp_key *k;
	bool_t writable = FALSE;

	cr_assert(xdr_bool(&call->args, &writable));
	cr_assert_eq(tp_call_rma_facts(call, &s->facts), 0);
	cr_assert_eq(tp_key_open(call, s->mem, KEY_HALF, writable, &k), 0);
	if (!s->nkeys++ && !s->watched) {
		s->watched = true;
		s->watch.gone = gone;
		tp_conn_watch(call, &s->watch);
	}
	s->key[s->nkeys - 1] = k;
	answer(call, tp_key_addr(k, s->mem), tp_key_value(k));
}

static void run_close(struct tp_call *call)
{
	struct keysrv *s = call->worker;
	bool_t hurry = FALSE;

	cr_assert(xdr_bool(&call->args, &hurry));
	close_all(s, hurry);
	answer(call, 0, 0);
}

static void run_dead(struct tp_call *call)
{
	struct keysrv *s = call->worker;

	answer(call, s->dead, 0);
}

static const struct tp_proc procs[] = {
	{ "NOTHING", run_nothing, NULL },
	{ "OPEN", run_open, NULL },
	{ "CLOSE", run_close, NULL },
	{ "DEAD", run_dead, NULL },
};
static const struct tp_program program = {
	.prog = KEY_PROG, .vers = 1, .procs = procs, .nprocs = 4, .auth_none_ok = true
};
static const struct tp_program other = {
	.prog = KEY_OTHER, .vers = 1, .procs = procs, .nprocs = 4, .auth_none_ok = true
};

static void quit(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

static void *serve(void *arg)
{
	struct keysrv *s = arg;

	ev_run(s->loop, 0);
	return NULL;
}

struct keysrv *keysrv_start(const char *provider)
{
	return keysrv_start_own(provider, &(struct tp_own){ 0 });
}

struct keysrv *keysrv_start_own(const char *provider, const struct tp_own *own)
{
	static const struct tp_program *const programs[] = { &program, &other, NULL };
	struct keysrv *s = calloc(1, sizeof(*s));
	struct tp_service_opts so = { .programs = programs, .worker = s, .nregions = 1 };
	struct tp_region region = { .len = KEY_MEM };
	struct tp_error why = { "" };
	int err = -1;

	s->mem = region.base = mmap(NULL, KEY_MEM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < KEY_MEM; i++)
		s->mem[i] = (uint8_t)(i * 7);
	so.regions = &region;
	s->loop = ev_loop_new(EVFLAG_AUTO);
	ev_async_init(&s->quit, quit);
	ev_async_start(s->loop, &s->quit);
	cr_assert_eq(tp_service_new(s->loop, &so, &s->svc), 0);
	s->o = (struct tp_fabric_opts){ .name = "key", .provider = provider, .service = s->service, .own = *own };
	for (unsigned i = 0; i < 50 && err; i++) {
		if (!strcmp(provider, "shm"))
			snprintf(s->service, sizeof(s->service), "key-%d", getpid());
		else
			snprintf(s->service, sizeof(s->service), "%u",
			         20000 + ((unsigned)getpid() * 7 + i * 131) % 12000);
		err = tp_listen_fabric(s->svc, &s->o, &s->l, &why);
	}
	cr_assert_eq(err, 0, "%s", why.text);
	cr_assert_eq(pthread_create(&s->thread, NULL, serve, s), 0);
	return s;
}

void keysrv_stop(struct keysrv *s)
{
	ev_async_send(s->loop, &s->quit);
	pthread_join(s->thread, NULL);
	tp_listener_close(s->l);
	tp_service_free(s->svc);
	cr_assert_eq(s->nkeys, 0, "the end of the connection was not told");
	ev_loop_destroy(s->loop);
	munmap(s->mem, KEY_MEM);
	free(s);
}

/* --- the client --- */

static struct tp_client *dial(const struct tp_fabric_opts *o)
{
	struct tp_client *c;
	struct tp_error why = { "" };

	cr_assert_eq(tp_client_open(o, &c, &why), 0, "%s", why.text);
	for (unsigned i = 0; i < 100 && tp_client_state(c, NULL) == TP_CLIENT_CONNECTING; i++)
		tp_client_wait(c, 100);
	return c;
}

struct tp_client *keysrv_dial(struct keysrv *s)
{
	struct tp_client *c = dial(&s->o);
	struct tp_error why = { "" };

	cr_assert_eq(tp_client_state(c, &why), TP_CLIENT_UP, "%s", why.text);
	return c;
}

struct tp_client *keysrv_dial_own(struct keysrv *s)
{
	struct tp_fabric_opts o = s->o;
	struct tp_client *c;

	o.own.ask = true;
	o.credits = 8;
	c = dial(&o);
	if (tp_client_state(c, NULL) == TP_CLIENT_UP)
		return c;
	tp_client_close(c);
	return NULL;
}

static void asked(struct tp_req *req, int err)
{
	struct key_ask *k = (struct key_ask *)(void *)req;

	k->over = true;
	k->err = err;
	if (!err)
		cr_assert(xdr_uint64_t(&req->results, &k->a) && xdr_uint64_t(&req->results, &k->b));
}

void keysrv_send(struct tp_client *c, struct key_ask *k, uint32_t proc, bool_t arg)
{
	XDR *x;

	*k = (struct key_ask){ .req = { .done = asked, .max_results = 16 } };
	x = tp_req_begin(c, &k->req, KEY_PROG, 1, proc, NULL, 4);
	k->err = x && xdr_bool(x, &arg) ? tp_req_send(c, &k->req) : -ENOTCONN;
	k->over = k->err;
}

struct key_ask keysrv_ask(struct tp_client *c, uint32_t proc, bool_t arg)
{
	struct key_ask k;

	keysrv_send(c, &k, proc, arg);
	while (!k.over)
		tp_client_wait(c, 1000);
	return k;
}

void key_moved(struct tp_rma *op, int err)
{
	struct key_rma *r = (struct key_rma *)(void *)op;

	r->over = true;
	r->err = err;
}

int key_move(struct tp_client *c, enum tp_rma_how how, void *buf, size_t len, uint64_t addr, uint64_t key)
{
	struct key_rma r = { .rma = { .how = how, .buf = buf, .len = len, .addr = addr, .key = key, .done = key_moved } };
	int err = tp_client_rma(c, &r.rma);

	if (err)
		return err;
	while (!r.over)
		tp_client_wait(c, 1000);
	return r.err;
}
