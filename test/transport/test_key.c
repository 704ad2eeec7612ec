/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keys that a program gives to the peer of one connection, and the peer's RMA with them: while they are open,
 * after they are closed, beyond what they cover, guessed, and when the connection ends.
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
#include <unistd.h>

#define PROG 0x20000097
#define MEM  (4u << 20)
#define HALF (MEM / 2) /* what keys cover; the rest must stay as it is */

/* --- the server: OPEN (writable) -> addr, key; CLOSE (hurry) -> nothing; DEAD -> how many keys are dead --- */

enum { NOTHING, OPEN, CLOSE, DEAD };

struct server {
	pthread_t thread;
	struct ev_loop *loop;
	ev_async quit;
	struct tp_service *svc;
	struct tp_listener *l;
	struct tp_fabric_opts o;
	char service[32];
	uint8_t *mem;
	struct tp_key *key[16];
	unsigned nkeys;
	bool close_at_end; /* what is open when the connection ends */
	struct tp_conn_watch watch;
	_Atomic unsigned dead, gone;
	struct tp_rma_facts facts;
};

static void dead(void *arg)
{
	struct server *s = arg;

	s->dead++;
}

static void close_all(struct server *s, bool hurry)
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
	struct server *s = (struct server *)(void *)((char *)w - offsetof(struct server, watch));

	close_all(s, false);
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
	struct server *s = call->worker;
	struct tp_key *k;
	bool_t writable = FALSE;

	cr_assert(xdr_bool(&call->args, &writable));
	cr_assert_eq(tp_call_rma_facts(call, &s->facts), 0);
	cr_assert_eq(tp_key_open(call, s->mem, HALF, writable, &k), 0);
	if (!s->nkeys++ && !s->gone) {
		s->watch.gone = gone;
		tp_conn_watch(call, &s->watch);
	}
	s->key[s->nkeys - 1] = k;
	answer(call, tp_key_addr(k, s->mem), tp_key_value(k));
}

static void run_close(struct tp_call *call)
{
	struct server *s = call->worker;
	bool_t hurry = FALSE;

	cr_assert(xdr_bool(&call->args, &hurry));
	close_all(s, hurry);
	answer(call, 0, 0);
}

static void run_dead(struct tp_call *call)
{
	struct server *s = call->worker;

	answer(call, s->dead, 0);
}

static const struct tp_proc procs[] = {
	{ "NOTHING", run_nothing, NULL },
	{ "OPEN", run_open, NULL },
	{ "CLOSE", run_close, NULL },
	{ "DEAD", run_dead, NULL },
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

static void *serve(void *arg)
{
	struct server *s = arg;

	ev_run(s->loop, 0);
	return NULL;
}

static struct server *start(const char *provider)
{
	static const struct tp_program *const programs[] = { &program, NULL };
	struct server *s = calloc(1, sizeof(*s));
	struct tp_service_opts so = { .programs = programs, .worker = s, .nregions = 1 };
	struct tp_region region = { .len = MEM };
	struct tp_error why = { "" };
	int err = -1;

	s->mem = region.base = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < MEM; i++)
		s->mem[i] = (uint8_t)(i * 7);
	so.regions = &region;
	s->loop = ev_loop_new(EVFLAG_AUTO);
	ev_async_init(&s->quit, quit);
	ev_async_start(s->loop, &s->quit);
	cr_assert_eq(tp_service_new(s->loop, &so, &s->svc), 0);
	s->o = (struct tp_fabric_opts){ .name = "key", .provider = provider, .service = s->service };
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

static void stop(struct server *s)
{
	ev_async_send(s->loop, &s->quit);
	pthread_join(s->thread, NULL);
	tp_listener_close(s->l);
	tp_service_free(s->svc);
	cr_assert_eq(s->nkeys, 0, "the end of the connection was not told");
	ev_loop_destroy(s->loop);
	munmap(s->mem, MEM);
	free(s);
}

/* --- the client --- */

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

struct ask {
	struct tp_req req;
	bool over;
	int err;
	uint64_t a, b;
};

static void asked(struct tp_req *req, int err)
{
	struct ask *k = (struct ask *)(void *)req;

	k->over = true;
	k->err = err;
	if (!err)
		cr_assert(xdr_uint64_t(&req->results, &k->a) && xdr_uint64_t(&req->results, &k->b));
}

static void send_ask(struct tp_client *c, struct ask *k, uint32_t proc, bool_t arg)
{
	XDR *x;

	*k = (struct ask){ .req = { .done = asked, .max_results = 16 } };
	x = tp_req_begin(c, &k->req, PROG, 1, proc, NULL, 4);
	k->err = x && xdr_bool(x, &arg) ? tp_req_send(c, &k->req) : -ENOTCONN;
	k->over = k->err;
}

static struct ask ask(struct tp_client *c, uint32_t proc, bool_t arg)
{
	struct ask k;

	send_ask(c, &k, proc, arg);
	while (!k.over)
		tp_client_wait(c, 1000);
	return k;
}

struct rma {
	struct tp_rma rma;
	bool over;
	int err;
};

static void moved(struct tp_rma *op, int err)
{
	struct rma *r = (struct rma *)(void *)op;

	r->over = true;
	r->err = err;
}

static int move(struct tp_client *c, enum tp_rma_how how, void *buf, size_t len, uint64_t addr, uint64_t key)
{
	struct rma r = { .rma = { .how = how, .buf = buf, .len = len, .addr = addr, .key = key, .done = moved } };
	int err = tp_client_rma(c, &r.rma);

	if (err)
		return err;
	while (!r.over)
		tp_client_wait(c, 1000);
	return r.err;
}

static void rest_untouched(const struct server *s)
{
	for (size_t i = HALF; i < MEM; i++)
		cr_assert_eq(s->mem[i], (uint8_t)(i * 7), "byte %zu", i);
}

/* --- what keys are for --- */

static void put_and_get(const char *provider)
{
	static const size_t lens[] = { 1, 63, 64, 4096, 70001, HALF };
	struct server *s = start(provider);
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);
	uint8_t *buf = malloc(HALF), *back = malloc(HALF);

	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		size_t len = lens[i], off = HALF - len;

		memset(buf, (int)i + 1, len);
		memset(back, 0, len);
		cr_assert_eq(move(c, TP_RMA_WRITE, buf, len, k.a + off, k.b), 0);
		cr_assert_eq(move(c, TP_RMA_READ, back, len, k.a + off, k.b), 0);
		cr_assert_eq(memcmp(buf, back, len), 0, "%zu bytes", len);
		ask(c, NOTHING, FALSE);
		cr_assert_eq(memcmp(s->mem + off, buf, len), 0, "%zu bytes", len);
	}
	rest_untouched(s);
	tp_client_close(c);
	stop(s);
	free(buf);
	free(back);
}

Test(key_tcp, put_and_get)
{
	put_and_get("tcp");
}

Test(key_shm, put_and_get)
{
	put_and_get("shm");
}

/* A call that is sent behind writes is answered when they are placed, though nobody waited for them. */
Test(key_tcp, a_call_does_not_overtake_writes)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE), last;
	struct tp_client_rma_info info;
	struct rma r[100];
	uint8_t *buf = malloc(HALF);

	tp_client_get_rma_info(c, &info);
	cr_assert(info.write_before_send);
	memset(buf, 0x5a, HALF);
	for (unsigned i = 0; i < 100; i++) {
		size_t len = HALF / 100;

		r[i] = (struct rma){ .rma = { .how = TP_RMA_WRITE, .buf = buf + i * len, .len = len,
			                      .addr = k.a + i * len, .key = k.b, .done = moved } };
		cr_assert_eq(tp_client_rma(c, &r[i].rma), 0);
	}
	send_ask(c, &last, NOTHING, FALSE);
	while (!last.over)
		tp_client_wait(c, 1000);
	cr_assert_eq(last.err, 0);
	cr_assert_eq(memcmp(s->mem, buf, HALF / 100 * 100), 0);
	for (unsigned i = 0; i < 100; i++)
		while (!r[i].over)
			tp_client_wait(c, 1000);
	tp_client_close(c);
	stop(s);
	free(buf);
}

Test(key_tcp, commit_complete)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);
	uint8_t buf[300];

	memset(buf, 9, sizeof(buf));
	cr_assert(s->facts.commit_complete);
	cr_assert_eq(move(c, TP_RMA_WRITE_COMMIT, buf, sizeof(buf), k.a + 5, k.b), 0);
	cr_assert_eq(memcmp(s->mem + 5, buf, sizeof(buf)), 0);
	tp_client_close(c);
	stop(s);
}

Test(key_shm, commit_complete_is_not_offered)
{
	struct server *s = start("shm");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);
	uint8_t buf[8] = { 0 };

	cr_assert_not(s->facts.commit_complete);
	cr_assert_eq(move(c, TP_RMA_WRITE_COMMIT, buf, sizeof(buf), k.a, k.b), -EOPNOTSUPP);
	tp_client_close(c);
	stop(s);
}

/* --- what they keep out (tcp) --- */

/* The operation fails, and what it was aimed at is as before. */
static void refused(struct server *s, struct tp_client *c, enum tp_rma_how how, uint64_t addr, uint64_t key)
{
	uint8_t *before = malloc(MEM), buf[512];

	memcpy(before, s->mem, MEM);
	memset(buf, 0xee, sizeof(buf));
	/* A write of tcp is complete when it has left; what became of it shows in the call behind it. */
	if (!move(c, how, buf, sizeof(buf), addr, key)) {
		cr_assert_eq(how, TP_RMA_WRITE);
		cr_assert_lt(ask(c, NOTHING, FALSE).err, 0);
	}
	tp_client_close(c);
	c = dial(s); /* whatever it did is done by the time another is served */
	ask(c, NOTHING, FALSE);
	cr_assert_eq(memcmp(before, s->mem, MEM), 0);
	for (size_t i = 0; how == TP_RMA_READ && i < sizeof(buf); i++)
		cr_assert_eq(buf[i], 0xee, "byte %zu was read", i);
	tp_client_close(c);
	stop(s);
	free(before);
}

Test(key_tcp, a_closed_key_writes_nothing)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);

	ask(c, CLOSE, FALSE);
	refused(s, c, TP_RMA_WRITE, k.a, k.b);
}

Test(key_tcp, a_closed_key_reads_nothing)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);

	ask(c, CLOSE, FALSE);
	refused(s, c, TP_RMA_READ, k.a, k.b);
}

Test(key_tcp, a_key_for_reading_writes_nothing)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, FALSE);
	uint8_t buf[64];

	cr_assert_eq(move(c, TP_RMA_READ, buf, sizeof(buf), k.a, k.b), 0);
	refused(s, c, TP_RMA_WRITE, k.a, k.b);
}

Test(key_tcp, nothing_beyond_the_range)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);

	refused(s, c, TP_RMA_WRITE, k.a + HALF - 511, k.b);
}

Test(key_tcp, nothing_below_the_range)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);

	refused(s, c, TP_RMA_WRITE, k.a - 512, k.b);
}

Test(key_tcp, a_guess_is_no_key)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);

	refused(s, c, TP_RMA_WRITE, k.a, k.b + 1);
}

Test(key_tcp, keys_are_long_and_differ)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	uint64_t key[16], all = 0;

	for (unsigned i = 0; i < 16; i++) {
		key[i] = ask(c, OPEN, TRUE).b;
		all |= key[i];
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(key[i], key[j]);
	}
	cr_assert_eq(s->facts.key_size, 8);
	cr_assert_gt(all >> 48, 0xff);
	tp_client_close(c);
	stop(s);
}

/* --- when a closed key is dead --- */

Test(key_tcp, dead_only_when_nothing_can_be_under_way)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);

	ask(c, OPEN, TRUE);
	ask(c, OPEN, TRUE);
	ask(c, CLOSE, FALSE);
	cr_assert_eq(s->dead, 0, "the peer may be in the middle of a write");
	/* The answer's send completes some time; every call brings another message. */
	for (unsigned i = 0; s->dead < 2 && i < 1000; i++)
		ask(c, DEAD, FALSE);
	cr_assert_eq(s->dead, 2);
	cr_assert_eq(tp_client_state(c, NULL), TP_CLIENT_UP);
	tp_client_close(c);
	stop(s);
}

Test(key_tcp, hurry_closes_the_connection)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);

	ask(c, OPEN, TRUE);
	cr_assert_lt(ask(c, CLOSE, TRUE).err, 0);
	tp_client_close(c);
	c = dial(s);
	while (s->dead < 1)
		ask(c, DEAD, FALSE);
	tp_client_close(c);
	stop(s);
}

static void the_end_is_told(const char *provider)
{
	struct server *s = start(provider);
	struct tp_client *c = dial(s);

	ask(c, OPEN, TRUE);
	ask(c, OPEN, FALSE);
	tp_client_close(c);
	c = dial(s);
	while (!s->gone)
		ask(c, DEAD, FALSE);
	cr_assert_eq(s->dead, 2);
	tp_client_close(c);
	stop(s);
}

Test(key_tcp, the_end_is_told)
{
	the_end_is_told("tcp");
}

Test(key_shm, the_end_is_told)
{
	the_end_is_told("shm");
}

/* What providers.md says of shm: the peer's own copying looks at no key. If this fails, say so there, and set
 * tp_rma_facts.fenced. */
Test(key_shm, nobody_checks_keys_of_shm)
{
	struct server *s = start("shm");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);
	uint8_t buf[64];

	memset(buf, 0x77, sizeof(buf));
	cr_assert_not(s->facts.fenced);
	cr_assert_eq(move(c, TP_RMA_WRITE, buf, sizeof(buf), k.a, k.b + 1), 0);
	cr_assert_eq(memcmp(s->mem, buf, sizeof(buf)), 0);
	tp_client_close(c);
	stop(s);
}

/* Operations that are out when the connection ends come back as errors. */
Test(key_tcp, the_end_fails_what_is_out)
{
	struct server *s = start("tcp");
	struct tp_client *c = dial(s);
	struct ask k = ask(c, OPEN, TRUE);
	static uint8_t buf[HALF];
	struct rma r[200];

	for (unsigned i = 0; i < 200; i++) {
		r[i] = (struct rma){ .rma = { .how = TP_RMA_WRITE, .buf = buf, .len = HALF, .addr = k.a,
			                      .key = k.b, .done = moved } };
		cr_assert_eq(tp_client_rma(c, &r[i].rma), 0);
	}
	tp_client_close(c);
	for (unsigned i = 0; i < 200; i++)
		cr_assert(r[i].over);
	cr_assert_eq(r[199].err, -ECANCELED);
	stop(s);
}

TestSuite(key_tcp, .timeout = 60);
TestSuite(key_shm, .timeout = 60);
