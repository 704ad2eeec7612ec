/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An rpcgen client, unchanged, over fabric tcp and over shm: its stubs call through
 * clnt_fabric_create(), a server made of tp_service and tp_listen_fabric answers on a thread of its
 * own.
 */
#include "test/transport/sample.h"
#include "transport/transport.h"

#include <criterion/criterion.h>
#include <ev.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the program's server side --- */

static void reply(struct tp_call *call, xdrproc_t xres, void *res)
{
	XDR *x = tp_reply_begin(call, xdr_sizeof(xres, res));

	cr_assert(x);
	cr_assert(xres(x, res));
	tp_reply_end(call);
}

static bool args(struct tp_call *call, xdrproc_t xargs, void *into)
{
	if (xargs(&call->args, into))
		return true;
	tp_reply_error(call, GARBAGE_ARGS);
	return false;
}

static void run_null(struct tp_call *call)
{
	reply(call, (xdrproc_t)(void (*)(void))xdr_void, NULL);
}

static void run_add(struct tp_call *call)
{
	pair p;

	if (args(call, (xdrproc_t)xdr_pair, &p)) {
		p.a += p.b;
		reply(call, (xdrproc_t)xdr_int, &p.a);
	}
}

static void run_reverse(struct tp_call *call)
{
	word w = NULL;

	if (!args(call, (xdrproc_t)xdr_word, &w))
		return;
	for (size_t i = 0, n = strlen(w); i < n / 2; i++) {
		char c = w[i];

		w[i] = w[n - 1 - i];
		w[n - 1 - i] = c;
	}
	reply(call, (xdrproc_t)xdr_word, &w);
	xdr_free((xdrproc_t)xdr_word, (char *)&w);
}

static void run_squares(struct tp_call *call)
{
	numbers n = { 0 };

	if (!args(call, (xdrproc_t)xdr_numbers, &n))
		return;
	for (u_int i = 0; i < n.numbers_len; i++)
		n.numbers_val[i] *= n.numbers_val[i];
	reply(call, (xdrproc_t)xdr_numbers, &n);
	xdr_free((xdrproc_t)xdr_numbers, (char *)&n);
}

/* A list as long as was asked for. */
static void run_count(struct tp_call *call)
{
	entry *list = NULL;
	int n;

	if (!args(call, (xdrproc_t)xdr_int, &n))
		return;
	for (int i = n; i > 0; i--) {
		entry *e = calloc(1, sizeof(*e));
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		e->name = strdup(name);
		e->next = list;
		list = e;
	}
	reply(call, (xdrproc_t)xdr_entry, list);
	xdr_free((xdrproc_t)xdr_entry, (char *)list);
	free(list);
}

static void run_whoami(struct tp_call *call)
{
	int uid = call->cred.flavor == AUTH_SYS ? (int)call->cred.uid : -1;

	reply(call, (xdrproc_t)xdr_int, &uid);
}

static void run_never(struct tp_call *call)
{
	tp_drop(call);
}

static const struct tp_proc procs[] = {
	{ "NULL", run_null, NULL },       { "ADD", run_add, NULL },
	{ "REVERSE", run_reverse, NULL }, { "SQUARES", run_squares, NULL },
	{ "COUNT", run_count, NULL },     { "WHOAMI", run_whoami, NULL },
	{ "NEVER", run_never, NULL },
};
static const struct tp_program sample = {
	.prog = SAMPLE, .vers = SAMPLE_V1, .procs = procs, .nprocs = 7, .auth_none_ok = true
};

struct server {
	pthread_t thread;
	struct ev_loop *loop;
	ev_async quit;
	struct tp_service *svc;
	struct tp_listener *l;
	struct tp_fabric_opts o;
	char service[32];
};

static void quit(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

static void *serve(void *arg)
{
	struct server *s = arg;

	ev_run(s->loop, 0);
	return NULL;
}

/* Listens before it returns, so that no client comes too early. */
static struct server *start(const char *provider)
{
	static const struct tp_program *const programs[] = { &sample, NULL };
	struct tp_service_opts so = { .programs = programs,
		                      .max_call = 2 << 20,
		                      .max_reply = 2 << 20 };
	struct server *s = calloc(1, sizeof(*s));
	struct tp_error why = { "" };
	int err = -1;

	s->loop = ev_loop_new(EVFLAG_AUTO);
	ev_async_init(&s->quit, quit);
	ev_async_start(s->loop, &s->quit);
	cr_assert_eq(tp_service_new(s->loop, &so, &s->svc), 0);
	s->o = (struct tp_fabric_opts){
		.name = "test", .provider = provider, .node = "127.0.0.1", .service = s->service
	};
	if (!strcmp(provider, "shm"))
		s->o.node = NULL;
	for (unsigned i = 0; i < 50 && err;
	     i++) { /* a port that happens to be taken is no failure */
		if (s->o.node)
			snprintf(s->service, sizeof(s->service), "%u",
			         20000 + ((unsigned)getpid() * 7 + i * 131) % 12000);
		else
			snprintf(s->service, sizeof(s->service), "test-%d", getpid());
		err = tp_listen_fabric(s->svc, &s->o, &s->l, &why);
	}
	cr_assert_eq(err, 0, "%s", why.text);
	cr_assert_eq(pthread_create(&s->thread, NULL, serve, s), 0);
	return s;
}

static void stop(struct server *s)
{
	ev_async_send(s->loop, &s->quit);
	pthread_join(s->thread, NULL);
	tp_listener_close(s->l);
	tp_service_stop(s->svc);
	cr_assert_eq(tp_service_stats(s->svc)->payload_copied_bytes, 0);
	cr_assert_eq(tp_service_calls(s->svc), 0);
	tp_service_free(s->svc);
	ev_loop_destroy(s->loop);
	free(s);
}

/* --- the client, as rpcgen's users write it --- */

static void use(CLIENT *cl)
{
	pair p = { 40, 2 };
	void *nothing = sample_null_1(NULL, cl);

	cr_assert(nothing, "%s", clnt_sperror(cl, "null"));
	cr_assert_eq(*sample_add_1(&p, cl), 42);

	/* Around the length of one message, and far beyond it, both ways. */
	for (size_t n = 0; n < 400000;
	     n = n < 3 || (n > 3800 && n < 4200) ? n + 1 : n * 2 - n / 5) {
		word w = malloc(n + 1), *r;

		for (size_t i = 0; i < n; i++)
			w[i] = (char)('a' + i % 26);
		w[n] = 0;
		r = sample_reverse_1(&w, cl);
		cr_assert(r, "%zu: %s", n, clnt_sperror(cl, "reverse"));
		cr_assert_eq(strlen(*r), n);
		for (size_t i = 0; i < n; i++)
			cr_assert_eq((*r)[i], w[n - 1 - i]);
		cr_assert(clnt_freeres(cl, (xdrproc_t)xdr_word, (char *)r));
		free(w);
	}

	numbers sq = { 10000, calloc(10000, sizeof(quad_t)) }, *rs;

	for (u_int i = 0; i < 10000; i++)
		sq.numbers_val[i] = (quad_t)i - 5000;
	rs = sample_squares_1(&sq, cl);
	cr_assert(rs, "%s", clnt_sperror(cl, "squares"));
	cr_assert_eq(rs->numbers_len, 10000);
	for (u_int i = 0; i < 10000; i++)
		cr_assert_eq(rs->numbers_val[i], sq.numbers_val[i] * sq.numbers_val[i]);
	clnt_freeres(cl, (xdrproc_t)xdr_numbers, (char *)rs);
	free(sq.numbers_val);

	int n = 5000, k = 0;
	entry *list = sample_count_1(&n, cl);

	cr_assert(list, "%s", clnt_sperror(cl, "count"));
	for (entry *e = list; e; e = e->next)
		cr_assert_eq(atoi(e->name), ++k);
	cr_assert_eq(k, n);
	clnt_freeres(cl, (xdrproc_t)xdr_entry, (char *)list);

	cr_assert_eq(*sample_whoami_1(NULL, cl), -1);
	auth_destroy(cl->cl_auth);
	cl->cl_auth = authunix_create((char *)"host", 1234, 5, 0, NULL);
	cr_assert_eq(*sample_whoami_1(NULL, cl), 1234);
}

static void errors(CLIENT *cl)
{
	struct timeval soon = { 0, 50000 }, later = { 25, 0 };
	u_int32_t vers = 7;
	struct rpc_err e;
	pair p = { 1, 2 };

	cr_assert_eq(clnt_call(cl, 77, (xdrproc_t)(void (*)(void))xdr_void, NULL,
	                       (xdrproc_t)(void (*)(void))xdr_void, NULL, later),
	             RPC_PROCUNAVAIL);
	cr_assert_eq(clnt_call(cl, SAMPLE_ADD, (xdrproc_t)(void (*)(void))xdr_void, NULL,
	                       (xdrproc_t)(void (*)(void))xdr_void, NULL, later),
	             RPC_CANTDECODEARGS);
	cr_assert(clnt_control(cl, CLSET_VERS, (char *)&vers));
	cr_assert_null(sample_add_1(&p, cl));
	clnt_geterr(cl, &e);
	cr_assert(e.re_status == RPC_PROGVERSMISMATCH && e.re_vers.low == 1 && e.re_vers.high == 1);
	vers = SAMPLE_V1;
	clnt_control(cl, CLSET_VERS, (char *)&vers);

	/* A call without an answer times out; the next ones do not notice. */
	clnt_control(cl, CLSET_TIMEOUT, (char *)&soon);
	cr_assert_null(sample_never_1(NULL, cl));
	clnt_geterr(cl, &e);
	cr_assert_eq(e.re_status, RPC_TIMEDOUT);
	clnt_control(cl, CLSET_TIMEOUT, (char *)&later);
	cr_assert_eq(*sample_add_1(&p, cl), 3);
}

static void over(const char *provider, void (*what)(CLIENT *cl))
{
	struct timeval timeout = { 20, 0 };
	struct server *s = start(provider);
	struct tp_error why = { "" };
	CLIENT *cl = clnt_fabric_create(&s->o, SAMPLE, SAMPLE_V1, timeout, &why);

	cr_assert(cl, "%s", why.text);
	what(cl);
	auth_destroy(cl->cl_auth);
	clnt_destroy(cl);
	stop(s);
}

TestSuite(clnt, .timeout = 60);

Test(clnt, rpcgen_client_runs_over_tcp)
{
	over("tcp", use);
}

Test(clnt, rpcgen_client_runs_over_shm)
{
	over("shm", use);
}

Test(clnt, errors_and_timeouts_over_tcp)
{
	over("tcp", errors);
}

Test(clnt, errors_and_timeouts_over_shm)
{
	over("shm", errors);
}

Test(clnt, no_server_is_a_creation_error)
{
	struct tp_fabric_opts o = { .name = "none",
		                    .provider = "shm",
		                    .service = "nobody-is-here" };
	struct tp_error why = { "" };
	struct timeval timeout = { 5, 0 };

	cr_assert_null(clnt_fabric_create(&o, SAMPLE, SAMPLE_V1, timeout, &why));
	cr_assert_neq(rpc_createerr.cf_stat, RPC_SUCCESS);
	cr_assert(strlen(why.text) > 0);
}
