/* SPDX-License-Identifier: BSD-3-Clause */
#include "test/lib/fabsrv.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROG   0x20000099
#define REGION ((size_t)8 << 20)

struct rw_ctx {
	uint32_t len;
};

/* --- the program --- */

static void run_null(struct tp_call *call)
{
	if (tp_reply_begin(call, 0))
		tp_reply_end(call);
}

static void run_echo(struct tp_call *call)
{
	char *data = NULL;
	u_int len = 0;
	XDR *out;

	if (!xdr_bytes(&call->args, &data, &len, 1 << 20)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	out = tp_reply_begin(call, len + 8);
	if (out) {
		if (xdr_bytes(out, &data, &len, 1 << 20))
			tp_reply_end(call);
		else
			tp_reply_error(call, SYSTEM_ERR);
	}
	free(data);
}

static void written(struct tp_call *call, int err)
{
	XDR *out;

	if (err) {
		tp_drop(call);
		return;
	}
	out = tp_reply_begin(call, 4);
	if (out && xdr_u_int(out, &call->payload_len))
		tp_reply_end(call);
}

static void run_write(struct tp_call *call)
{
	struct fabsrv *s = call->worker;
	struct iovec iov[3];
	u_int off;
	size_t len = call->payload_len, a = len / 3, b = len / 2;

	if (!xdr_u_int(&call->args, &off) || off > REGION || len > REGION - off) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	/* Segments as a fragmented file would have them, side by side only for the test's sake. */
	iov[0] = (struct iovec){ s->region + off, a };
	iov[1] = (struct iovec){ s->region + off + a, b - a };
	iov[2] = (struct iovec){ s->region + off + b, len - b };
	tp_place(call, iov, 3, written);
}

static size_t write_at(const uint8_t *args, size_t have)
{
	(void)args;
	(void)have;
	return 8;
}

static void sent(void *arg, int err)
{
	struct fabsrv *s = arg;

	s->sent_err = err;
	__atomic_fetch_add(&s->sent, 1, __ATOMIC_RELEASE);
}

static void run_read(struct tp_call *call)
{
	struct fabsrv *s = call->worker;
	u_int off, len;
	struct iovec iov[2];
	uint32_t room = tp_reply_payload_room(call);
	XDR *out;

	if (!xdr_u_int(&call->args, &off) || !xdr_u_int(&call->args, &len) || off > REGION ||
	    len > REGION - off) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	len = len < room ? len : room;
	out = tp_reply_begin(call, 8);
	if (!out)
		return;
	xdr_u_int(out, &len);
	iov[0] = (struct iovec){ s->region + off, len / 3 };
	iov[1] = (struct iovec){ s->region + off + len / 3, len - len / 3 };
	tp_reply_end_payload(call, iov, 2, len, sent, s);
}

static void run_hold(struct tp_call *call)
{
	struct fabsrv *s = call->worker;

	s->held[__atomic_fetch_add(&s->nheld, 1, __ATOMIC_RELEASE)] = call;
}

/* Results longer than what the call says: @len bytes. */
static void run_big(struct tp_call *call)
{
	u_int len;
	XDR *out;

	if (!xdr_u_int(&call->args, &len) || len > tp_reply_room(call)) {
		tp_reply_error(call, SYSTEM_ERR);
		return;
	}
	out = tp_reply_begin(call, len);
	if (!out)
		return;
	for (u_int i = 0; i < len / 4; i++)
		xdr_u_int(out, &i);
	tp_reply_end(call);
}

static void free_held(struct ev_loop *loop, ev_async *w, int events)
{
	struct fabsrv *s = w->data;
	unsigned n = s->nheld;

	(void)loop;
	(void)events;
	__atomic_store_n(&s->nheld, 0, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < n; i++)
		run_null(s->held[i]);
}

static const struct tp_proc procs[] = {
	{ "NULL", run_null, NULL }, { "ECHO", run_echo, NULL }, { "WRITE", run_write, write_at },
	{ "READ", run_read, NULL }, { "HOLD", run_hold, NULL }, { "BIG", run_big, NULL },
};
static const struct tp_program program = { .prog = PROG,
	                                   .vers = 1,
	                                   .procs = procs,
	                                   .nprocs = 6,
	                                   .ctx_size = sizeof(struct rw_ctx),
	                                   .auth_none_ok = true };
static const struct tp_program *const programs[] = { &program, NULL };

/* --- the server --- */

static void stop_loop(struct ev_loop *loop, ev_async *w, int events)
{
	(void)w;
	(void)events;
	ev_break(loop, EVBREAK_ALL);
}

void *fabsrv_main(void *arg)
{
	ev_run(((struct fabsrv *)arg)->loop, 0);
	return NULL;
}

static void log_line(void *arg, int priority, const char *text)
{
	(void)arg;
	(void)priority;
	if (getenv("TEST_LOG"))
		fprintf(stderr, "%s\n", text);
}

static char service_name[32];

struct tp_fabric_opts fabric_opts(const char *provider)
{
	struct tp_fabric_opts o = { .name = "test", .provider = provider };

	o.service = service_name;
	if (strcmp(provider, "shm"))
		o.node = "127.0.0.1";
	return o;
}

void fabsrv_make(struct fabsrv *s, const char *provider, unsigned credits)
{
	struct tp_region reg;
	struct tp_service_opts so = { .programs = programs, .nregions = 1, .log = log_line };
	struct tp_fabric_opts fo;
	struct tp_error why = { "" };

	memset(s, 0, sizeof(*s));
	snprintf(service_name, sizeof(service_name), "%d", 20000 + getpid() % 40000);
	fo = fabric_opts(provider);
	fo.credits = credits;
	s->region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	reg = (struct tp_region){ .base = s->region, .len = REGION };
	so.regions = &reg;
	so.worker = s;
	s->loop = ev_loop_new(EVFLAG_AUTO);
	cr_assert_eq(tp_service_new(s->loop, &so, &s->svc), 0);
	cr_assert_eq(tp_listen_fabric(s->svc, &fo, &s->listener, &why), 0, "%s", why.text);
	ev_async_init(&s->stop, stop_loop);
	ev_async_init(&s->poke, free_held);
	s->poke.data = s;
	ev_async_start(s->loop, &s->stop);
	ev_async_start(s->loop, &s->poke);
}

void fabsrv_start(struct fabsrv *s, const char *provider, unsigned credits)
{
	fabsrv_make(s, provider, credits);
	pthread_create(&s->thread, NULL, fabsrv_main, s);
}

void fabsrv_stop(struct fabsrv *s)
{
	ev_async_send(s->loop, &s->stop);
	pthread_join(s->thread, NULL);
	cr_expect_eq(tp_service_stats(s->svc)->payload_copied_bytes, 0);
	tp_listener_close(s->listener);
	free_held(s->loop, &s->poke, 0);
	cr_expect_eq(tp_service_calls(s->svc), 0);
	tp_service_free(s->svc);
	ev_loop_destroy(s->loop);
	munmap(s->region, REGION);
}

/* --- the requester --- */

int peer_open(struct fpeer *p, const char *provider)
{
	struct tp_fabric_opts o = fabric_opts(provider);
	uint8_t cm[RR_CM_SIZE];

	rr_cm_encode(cm, 4096, 4096);
	return fpeer_open(p, &o, cm, sizeof(cm));
}

size_t put_word(uint8_t *p, size_t at, uint32_t v)
{
	p[at] = (uint8_t)(v >> 24);
	p[at + 1] = (uint8_t)(v >> 16);
	p[at + 2] = (uint8_t)(v >> 8);
	p[at + 3] = (uint8_t)v;
	return at + 4;
}

size_t put_call(uint8_t *b, uint32_t xid, uint32_t proc)
{
	uint32_t w[] = { xid, 0, 2, PROG, 1, proc, 0, 0, 0, 0 };
	size_t at = 0;

	for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		at = put_word(b, at, w[i]);
	return at;
}

/* Header and message; the chunk lists are those of @h. */
void send_msg(struct fpeer *p, struct rr_header *h, const struct rr_seg *segs,
                     const uint8_t *msg, size_t len)
{
	uint8_t b[4096];
	size_t at;

	h->vers = 1;
	if (!h->credits)
		h->credits = 32;
	at = rr_encode(h, segs, b, sizeof(b));
	cr_assert(at && at + len <= sizeof(b));
	if (len)
		memcpy(b + at, msg, len);
	fpeer_send(p, b, at + len);
}

struct rr_seg seg_of(struct fpeer *p, size_t off, size_t len)
{
	return (struct rr_seg){ fab_mr_addr(p->f, &p->mr, p->mem + off), p->mr.key, (uint32_t)len };
}

/* A reply that must be RDMA_MSG or NOMSG: its header, and the RPC message in *msg. */
struct rr_header expect_reply(struct fpeer *p, uint32_t xid, uint32_t proc,
                                     struct rr_seg *segs, const uint8_t **msg, size_t *len)
{
	struct fmessage *m = fpeer_receive(p);
	struct rr_header h;

	cr_assert(m, "connection down");
	cr_assert_eq(rr_decode(m->buf, m->len, &h, segs, RR_MAX_SEGS), 0);
	cr_assert_eq(h.xid, xid);
	cr_assert_eq(h.proc, proc, "proc %u err %u", h.proc, h.err);
	cr_assert_gt(h.credits, 0);
	*msg = m->buf + h.size;
	*len = m->len - h.size;
	return h;
}

void expect_success(const uint8_t *msg, size_t len, uint32_t xid)
{
	cr_assert_geq(len, 24);
	cr_assert_eq(rpc_be32(msg), xid);
	cr_assert_eq(rpc_be32(msg + 4), 1);
	cr_assert_eq(rpc_be32(msg + 8), 0);
	cr_assert_eq(rpc_be32(msg + 20), 0, "accept_stat %u", rpc_be32(msg + 20));
}

void expect_error(struct fpeer *p, uint32_t xid, uint32_t err)
{
	struct rr_seg segs[4];
	struct rr_header h;
	struct fmessage *m = fpeer_receive(p);

	cr_assert(m, "connection down");
	cr_assert_eq(rr_decode(m->buf, m->len, &h, segs, 4), 0);
	cr_assert_eq(h.xid, xid);
	cr_assert_eq(h.proc, RR_ERROR, "proc %u", h.proc);
	cr_assert_eq(h.err, err);
}

void ping(struct fpeer *p, uint32_t xid)
{
	struct rr_header h = { .xid = xid };
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *msg;
	uint8_t b[64];
	size_t len;

	send_msg(p, &h, NULL, b, put_call(b, xid, P_NULL));
	expect_reply(p, xid, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, xid);
}

void fabsrv_fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

void with_both(void (*test)(struct fabsrv *s, struct fpeer *p))
{
	static const char *const names[] = { "tcp", "shm" };

	for (size_t i = 0; i < 2; i++) {
		struct fabsrv s;
		struct fpeer p;

		fabsrv_start(&s, names[i], 0);
		cr_assert_eq(peer_open(&p, names[i]), 0, "%s", names[i]);
		test(&s, &p);
		fpeer_close(&p);
		fabsrv_stop(&s);
	}
}
