/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fabric_server.c - the responder's side of RPC-over-RDMA against a requester that says what
 * it likes
 *
 * The requester below is a few calls of libfabric: it encodes headers with the codec or word by
 * word, and looks at the messages that come back. Each test runs against a server on a thread of
 * its own, mostly once over tcp (FI_EP_MSG) and once over shm (FI_EP_RDM).
 */
#include "transport/fabric_server.h"

#include "test/lib/fabpeer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROG   0x20000099
#define REGION ((size_t)8 << 20)
#define MIB    ((size_t)1 << 20)

enum { P_NULL, P_ECHO, P_WRITE, P_READ, P_HOLD, P_BIG, P_FREE };

/* --- the server --- */

struct server {
	struct ev_loop *loop;
	ev_async stop, poke;
	pthread_t thread;
	struct tp_service *svc;
	struct tp_listener *listener;
	uint8_t *region;
	struct tp_call *held[256];
	unsigned nheld, sent;
	int sent_err;
};

struct rw_ctx {
	uint32_t len;
};

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
	struct server *s = call->worker;
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
	struct server *s = arg;

	s->sent_err = err;
	__atomic_fetch_add(&s->sent, 1, __ATOMIC_RELEASE);
}

static void run_read(struct tp_call *call)
{
	struct server *s = call->worker;
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
	struct server *s = call->worker;

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
	struct server *s = w->data;
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

static void stop_loop(struct ev_loop *loop, ev_async *w, int events)
{
	(void)w;
	(void)events;
	ev_break(loop, EVBREAK_ALL);
}

static void *server_main(void *arg)
{
	ev_run(((struct server *)arg)->loop, 0);
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

static struct tp_fabric_opts fabric_opts(const char *provider)
{
	struct tp_fabric_opts o = { .name = "test", .provider = provider };

	o.service = service_name;
	if (strcmp(provider, "shm"))
		o.node = "127.0.0.1";
	return o;
}

static void server_make(struct server *s, const char *provider, unsigned credits)
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

static void server_start(struct server *s, const char *provider, unsigned credits)
{
	server_make(s, provider, credits);
	pthread_create(&s->thread, NULL, server_main, s);
}

static void server_stop(struct server *s)
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

static int peer_open(struct fpeer *p, const char *provider)
{
	struct tp_fabric_opts o = fabric_opts(provider);
	uint8_t cm[RR_CM_SIZE];

	rr_cm_encode(cm, 4096, 4096);
	return fpeer_open(p, &o, cm, sizeof(cm));
}

static size_t put_word(uint8_t *p, size_t at, uint32_t v)
{
	p[at] = (uint8_t)(v >> 24);
	p[at + 1] = (uint8_t)(v >> 16);
	p[at + 2] = (uint8_t)(v >> 8);
	p[at + 3] = (uint8_t)v;
	return at + 4;
}

static size_t put_call(uint8_t *b, uint32_t xid, uint32_t proc)
{
	uint32_t w[] = { xid, 0, 2, PROG, 1, proc, 0, 0, 0, 0 };
	size_t at = 0;

	for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		at = put_word(b, at, w[i]);
	return at;
}

/* Header and message; the chunk lists are those of @h. */
static void send_msg(struct fpeer *p, struct rr_header *h, const struct rr_seg *segs,
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

static struct rr_seg seg_of(struct fpeer *p, size_t off, size_t len)
{
	return (struct rr_seg){ fab_mr_addr(p->f, &p->mr, p->mem + off), p->mr.key, (uint32_t)len };
}

/* A reply that must be RDMA_MSG or NOMSG: its header, and the RPC message in *msg. */
static struct rr_header expect_reply(struct fpeer *p, uint32_t xid, uint32_t proc,
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

static void expect_success(const uint8_t *msg, size_t len, uint32_t xid)
{
	cr_assert_geq(len, 24);
	cr_assert_eq(rpc_be32(msg), xid);
	cr_assert_eq(rpc_be32(msg + 4), 1);
	cr_assert_eq(rpc_be32(msg + 8), 0);
	cr_assert_eq(rpc_be32(msg + 20), 0, "accept_stat %u", rpc_be32(msg + 20));
}

static void expect_error(struct fpeer *p, uint32_t xid, uint32_t err)
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

static void ping(struct fpeer *p, uint32_t xid)
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

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

static void with_both(void (*test)(struct server *s, struct fpeer *p))
{
	static const char *const names[] = { "tcp", "shm" };

	for (size_t i = 0; i < 2; i++) {
		struct server s;
		struct fpeer p;

		server_start(&s, names[i], 0);
		cr_assert_eq(peer_open(&p, names[i]), 0, "%s", names[i]);
		test(&s, &p);
		fpeer_close(&p);
		server_stop(&s);
	}
}

/* --- calls --- */

static void t_null(struct server *s, struct fpeer *p)
{
	(void)s;
	for (uint32_t i = 0; i < 200; i++)
		ping(p, 1000 + i);
}

Test(fabric_server, answers_null_calls)
{
	with_both(t_null);
}

static void t_write(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	/* One segment, several, lengths that XDR pads, with and without the padding in the chunk.
	 */
	for (uint32_t i = 0; i < 24; i++) {
		struct rr_seg rs[5];
		size_t n = i < 12 ? MIB / 5 * (i % 5) + i : 3000 + i, parts = 1 + i % 5, done = 0;
		struct rr_header h = { .xid = 50 + i, .nreads = 1 };

		fill(p->mem, n + 4, i);
		memset(s->region, 0xee, n + 8);
		for (size_t k = 0; k < parts; k++) {
			size_t end =
				k + 1 == parts ? n + (i & 1 ? -n & 3 : 0) : n / parts * (k + 1);

			rs[k] = seg_of(p, done, end - done);
			done = end;
		}
		at = put_call(b, h.xid, P_WRITE);
		at = put_word(b, at, 0);
		at = put_word(b, at, (uint32_t)n);
		h.read[0] = (struct rr_chunk){ .position = (uint32_t)at, .n = (uint16_t)parts };
		send_msg(p, &h, rs, b, at);
		expect_reply(p, h.xid, RR_MSG, segs, &msg, &len);
		expect_success(msg, len, h.xid);
		cr_assert_eq(rpc_be32(msg + 24), n);
		cr_assert_eq(memcmp(s->region, p->mem, n), 0, "write %u of %zu", i, n);
		cr_assert_eq(s->region[n], 0xee, "write %u went beyond its end", i);
	}
	cr_assert_gt(tp_service_stats(s->svc)->payload_placed_bytes, 2 * MIB);
}

Test(fabric_server, pulls_payload_into_place)
{
	with_both(t_write);
}

static void t_inline_write(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[4];
	struct rr_header h = { .xid = 7 };
	const uint8_t *msg;
	uint8_t b[1200];
	size_t len, at = put_call(b, 7, P_WRITE);

	at = put_word(b, at, 5);
	at = put_word(b, at, 1001);
	fill(b + at, 1001, 3);
	send_msg(p, &h, NULL, b, at + 1004);
	expect_reply(p, 7, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 7);
	cr_assert_eq(memcmp(s->region + 5, b + at, 1001), 0);
	cr_assert_eq(tp_service_stats(s->svc)->payload_inline_bytes, 1001);
}

Test(fabric_server, stores_inline_payload)
{
	with_both(t_inline_write);
}

/* The whole call in a chunk at position zero; payload behind it or in a chunk of its own. */
static void t_long_write(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *msg;
	size_t len, at, n = 300001;

	for (uint32_t i = 0; i < 4; i++) {
		struct rr_header h = { .xid = 90 + i, .proc = RR_NOMSG, .nreads = 1 + (i & 1) };
		struct rr_seg rs[4];

		at = put_call(p->mem, h.xid, P_WRITE);
		at = put_word(p->mem, at, 100);
		at = put_word(p->mem, at, (uint32_t)n);
		if (h.nreads == 2) {
			rs[0] = seg_of(p, 0, 20);
			rs[1] = seg_of(p, 20, at - 20);
			rs[2] = seg_of(p, MIB, n);
			fill(p->mem + MIB, n, i);
			h.read[0] = (struct rr_chunk){ .n = 2 };
			h.read[1] =
				(struct rr_chunk){ .position = (uint32_t)at, .first = 2, .n = 1 };
		} else {
			rs[0] = seg_of(p, 0, 70);
			rs[1] = seg_of(p, 70, 100000);
			rs[2] = seg_of(p, 100070, at + n + 3 - 100070);
			fill(p->mem + at, n, i);
			h.read[0] = (struct rr_chunk){ .n = 3 };
		}
		send_msg(p, &h, rs, NULL, 0);
		expect_reply(p, h.xid, RR_MSG, segs, &msg, &len);
		expect_success(msg, len, h.xid);
		cr_assert_eq(memcmp(s->region + 100, h.nreads == 2 ? p->mem + MIB : p->mem + at, n),
		             0);
	}
}

Test(fabric_server, takes_long_calls)
{
	with_both(t_long_write);
}

/* Arguments that are not payload, in chunks at their positions. */
static void t_insert(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS], rs[2], reply;
	struct rr_header h = { .xid = 31, .nreads = 1, .has_reply = true };
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at, n = 10001;

	(void)s;
	fill(p->mem, n, 9);
	reply = seg_of(p, MIB, 64 << 10);
	for (int long_call = 0; long_call < 2; long_call++) {
		at = put_call(b, 31, P_ECHO);
		at = put_word(b, at, (uint32_t)n);
		h.proc = long_call ? RR_NOMSG : RR_MSG;
		h.nreads = 1 + (unsigned)long_call;
		rs[long_call] = seg_of(p, 0, n);
		h.read[long_call] = (struct rr_chunk){ .position = (uint32_t)at,
			                               .first = (uint16_t)long_call,
			                               .n = 1 };
		if (long_call) {
			memcpy(p->mem + 2 * MIB, b, at);
			rs[0] = seg_of(p, 2 * MIB, at);
			h.read[0] = (struct rr_chunk){ .n = 1 };
		}
		memcpy(segs, rs, sizeof(rs));
		segs[h.nreads] = reply;
		h.reply = (struct rr_chunk){ .first = (uint16_t)h.nreads, .n = 1 };
		memset(p->mem + MIB, 0, 64 << 10);
		send_msg(p, &h, segs, b, long_call ? 0 : at);
		struct rr_header r = expect_reply(p, 31, RR_NOMSG, segs, &msg, &len);

		cr_assert(r.has_reply);
		cr_assert_eq(rr_chunk_length(&r.reply, segs), 24 + 4 + n + 3);
		expect_success(p->mem + MIB, 28 + n, 31);
		cr_assert_eq(memcmp(p->mem + MIB + 28, p->mem, n), 0);
	}
}

Test(fabric_server, inserts_chunks_and_replies_in_the_reply_chunk)
{
	with_both(t_insert);
}

static void t_read(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	fill(s->region, 2 * MIB, 77);
	for (uint32_t i = 0; i < 20; i++) {
		size_t n = i < 10 ? MIB - i : 4097 * i, parts = 1 + i % 4;
		struct rr_header h = { .xid = 300 + i, .nwrites = 2 }, r;
		struct rr_seg ws[6];

		memset(p->mem, 0, 2 * MIB);
		for (size_t k = 0; k < parts; k++)
			ws[k] = seg_of(p, MIB / parts * k, MIB / parts);
		ws[parts] = seg_of(p, MIB, 4096);
		h.write[0] = (struct rr_chunk){ .n = (uint16_t)parts };
		h.write[1] = (struct rr_chunk){ .first = (uint16_t)parts, .n = 1 };
		n = n > MIB / parts * parts ? MIB / parts * parts : n;
		at = put_call(b, h.xid, P_READ);
		at = put_word(b, at, i);
		at = put_word(b, at, (uint32_t)n);
		send_msg(p, &h, ws, b, at);
		r = expect_reply(p, h.xid, RR_MSG, segs, &msg, &len);
		expect_success(msg, len, h.xid);
		cr_assert_eq(len, 32);
		cr_assert_eq(rpc_be32(msg + 24), n);
		cr_assert_eq(rpc_be32(msg + 28), n);
		cr_assert_eq(r.nwrites, 2);
		cr_assert_eq(rr_chunk_length(&r.write[0], segs), n);
		cr_assert_eq(rr_chunk_length(&r.write[1], segs), 0);
		/* The segments lie side by side, so the data does too; and it is here with the
		 * reply. */
		cr_assert_eq(memcmp(p->mem, s->region + i, n), 0, "read %u", i);
		cr_assert_eq(p->mem[n], 0);
	}
	/* The pins are let go when both send and writes are back: the last may still be under way.
	 */
	for (int i = 0; i < 2000 && __atomic_load_n(&s->sent, __ATOMIC_ACQUIRE) < 20; i++) {
		fpeer_progress(p);
		poll(NULL, 0, 1);
	}
	cr_assert_eq(s->sent, 20);
	cr_assert_eq(s->sent_err, 0);
}

Test(fabric_server, pushes_payload_before_the_reply)
{
	with_both(t_read);
}

static void t_read_elsewhere(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS], ws[2];
	struct rr_header h = { .xid = 11 };
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	fill(s->region, MIB, 5);
	/* No chunk at all: what fits goes inline, and the program is told how much that is. */
	at = put_call(b, 11, P_READ);
	at = put_word(b, at, 0);
	at = put_word(b, at, 9999);
	send_msg(p, &h, NULL, b, at);
	expect_reply(p, 11, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 11);
	cr_assert_gt(rpc_be32(msg + 24), 3000);
	cr_assert_lt(rpc_be32(msg + 24), 4096);
	cr_assert_eq(memcmp(msg + 32, s->region, rpc_be32(msg + 24)), 0);
	/* Only a reply chunk: message, payload and padding go there. */
	h = (struct rr_header){ .xid = 12, .has_reply = true, .reply = { .n = 2 } };
	ws[0] = seg_of(p, 0, 50);
	ws[1] = seg_of(p, 50, 20000);
	at = put_call(b, 12, P_READ);
	at = put_word(b, at, 0);
	at = put_word(b, at, 9999);
	send_msg(p, &h, ws, b, at);
	h = expect_reply(p, 12, RR_NOMSG, segs, &msg, &len);
	cr_assert_eq(rr_chunk_length(&h.reply, segs), 32 + 10000);
	expect_success(p->mem, 32, 12);
	cr_assert_eq(memcmp(p->mem + 32, s->region, 9999), 0);
	cr_assert_eq(p->mem[32 + 9999], 0);
}

Test(fabric_server, pushes_payload_where_there_is_room)
{
	with_both(t_read_elsewhere);
}

static void t_too_long(struct server *s, struct fpeer *p)
{
	struct rr_header h = { .xid = 21 };
	struct rr_seg segs[4], reply;
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	(void)s;
	at = put_call(b, 21, P_BIG);
	at = put_word(b, at, 50000);
	/* The program asks, and is told that there is no room. */
	send_msg(p, &h, NULL, b, at);
	expect_reply(p, 21, RR_MSG, segs, &msg, &len);
	cr_assert_eq(rpc_be32(msg + 20), SYSTEM_ERR);
	reply = seg_of(p, 0, 64 << 10);
	h = (struct rr_header){ .xid = 21, .has_reply = true, .reply = { .n = 1 } };
	send_msg(p, &h, &reply, b, at);
	h = expect_reply(p, 21, RR_NOMSG, segs, &msg, &len);
	cr_assert_eq(rr_chunk_length(&h.reply, segs), 50024);
	cr_assert_eq(rpc_be32(p->mem + 24 + 49996), 12499);
}

Test(fabric_server, long_results_take_the_reply_chunk)
{
	with_both(t_too_long);
}

/* The client lets the server's reads lie: as many are out as allowed, and no more; then all are made. */
Test(fabric_server, reads_in_flight_are_bounded)
{
	enum { SEGS = 32, LEN = 8 << 10, DEPTH = 3 };
	struct rr_header h = { .xid = 1, .nreads = 1 };
	struct rr_seg segs[SEGS];
	struct flistener *l;
	struct fconn *conn;
	const uint8_t *msg;
	struct server s;
	struct fpeer p;
	uint8_t b[64];
	size_t len, at;

	server_make(&s, "tcp", 0);
	l = container_of(s.listener, struct flistener, base);
	cr_assert_eq(l->opts.read_depth, FAB_DEF_READS);
	l->opts.read_depth = DEPTH;
	pthread_create(&s.thread, NULL, server_main, &s);
	cr_assert_eq(peer_open(&p, "tcp"), 0);
	fill(p.mem, SEGS * LEN, 5);
	for (unsigned i = 0; i < SEGS; i++)
		segs[i] = seg_of(&p, i * LEN, LEN);
	at = put_call(b, 1, P_WRITE);
	at = put_word(b, at, 0);
	at = put_word(b, at, SEGS * LEN);
	h.read[0] = (struct rr_chunk){ .position = (uint32_t)at, .n = SEGS };
	send_msg(&p, &h, segs, b, at);
	conn = TAILQ_FIRST(&l->conns);
	while (!__atomic_load_n(&conn->nreads, __ATOMIC_RELAXED))
		;
	ev_async_send(s.loop, &s.stop); /* it ends its turn */
	pthread_join(s.thread, NULL);
	cr_assert_eq(conn->nreads, DEPTH);
	pthread_create(&s.thread, NULL, server_main, &s);
	expect_reply(&p, 1, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 1);
	cr_assert_eq(memcmp(s.region, p.mem, SEGS * LEN), 0);
	fpeer_close(&p);
	server_stop(&s);
}

/* What the Linux kernel's private data look like behind libfabric: it says 4096, and receives 1024. */
Test(fabric_server, a_peer_that_cannot_read_our_sizes_gets_the_default)
{
	static const uint8_t deaf[] = { 0xab, 0x0e, 0x18, 1, 1, 3, 3, 0, 0, 0 };
	struct rr_header h = { .xid = 21, .has_reply = true, .reply = { .n = 1 } };
	struct rr_seg segs[4], reply;
	struct tp_fabric_opts o;
	const uint8_t *msg;
	struct server s;
	struct fpeer p;
	uint8_t b[64];
	size_t len, at;

	server_start(&s, "tcp", 0);
	o = fabric_opts("tcp");
	cr_assert_eq(fpeer_open(&p, &o, deaf, sizeof(deaf)), 0);
	reply = seg_of(&p, 0, 64 << 10);
	at = put_call(b, 21, P_BIG);
	at = put_word(b, at, 2000);
	send_msg(&p, &h, &reply, b, at);
	h = expect_reply(&p, 21, RR_NOMSG, segs, &msg, &len);
	cr_assert_eq(rr_chunk_length(&h.reply, segs), 2024);
	/* And what fits goes inline. */
	at = put_call(b, 22, P_BIG);
	at = put_word(b, at, 900);
	h = (struct rr_header){ .xid = 22, .has_reply = true, .reply = { .n = 1 } };
	send_msg(&p, &h, &reply, b, at);
	expect_reply(&p, 22, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 22);
	fpeer_close(&p);
	server_stop(&s);
}

/* As if the provider had been stricter than tcp is: the server is told before it starts. */
static void with_strict(bool local, bool unordered, void (*test)(struct server *s, struct fpeer *p))
{
	struct server s;
	struct fpeer p;
	struct flistener *l;

	server_make(&s, "tcp", 0);
	l = container_of(s.listener, struct flistener, base);
	l->fab->mr_local = local;
	l->fab->saw = !unordered;
	l->fab->deliver = unordered;
	pthread_create(&s.thread, NULL, server_main, &s);
	cr_assert_eq(peer_open(&p, "tcp"), 0);
	test(&s, &p);
	if (local) {
		ping(&p, 99); /* its own writes complete, and count, behind the reply that they went ahead of */
		cr_assert_gt(tp_service_stats(s.svc)->payload_staged_bytes, MIB);
		cr_assert_eq(tp_service_stats(s.svc)->payload_placed_bytes, 0);
	}
	fpeer_close(&p);
	server_stop(&s);
}

static void t_staged(struct server *s, struct fpeer *p)
{
	struct rr_seg segs[4], rs = seg_of(p, 0, MIB), ws = seg_of(p, 2 * MIB, MIB);
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	struct rr_header h = { .xid = 1, .nreads = 1 };

	fill(p->mem, MIB, 1);
	at = put_call(b, 1, P_WRITE);
	at = put_word(b, at, 3);
	at = put_word(b, at, (uint32_t)MIB);
	h.read[0] = (struct rr_chunk){ .position = (uint32_t)at, .n = 1 };
	send_msg(p, &h, &rs, b, at);
	expect_reply(p, 1, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 1);
	cr_assert_eq(memcmp(s->region + 3, p->mem, MIB), 0);
	h = (struct rr_header){ .xid = 2, .nwrites = 1 };
	h.write[0] = (struct rr_chunk){ .n = 1 };
	at = put_call(b, 2, P_READ);
	at = put_word(b, at, 3);
	at = put_word(b, at, (uint32_t)MIB);
	send_msg(p, &h, &ws, b, at);
	expect_reply(p, 2, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 2);
	cr_assert_eq(memcmp(p->mem + 2 * MIB, p->mem, MIB), 0);
}

Test(fabric_server, stages_what_cannot_be_registered)
{
	with_strict(true, false, t_staged);
}

Test(fabric_server, waits_for_writes_where_sends_may_pass_them)
{
	with_strict(false, true, t_read);
	with_strict(false, true, t_insert);
	with_strict(false, true, t_read_elsewhere);
}

/* --- headers that are wrong --- */

static void t_versions(struct server *s, struct fpeer *p)
{
	uint8_t b[128] = { 0 };
	struct fmessage *m;

	for (uint32_t v = 0; v < 4; v++) {
		if (v == 1)
			continue;
		put_word(b, 0, 77);
		put_word(b, 4, v);
		put_word(b, 8, 10);
		put_word(b, 12, 0);
		fpeer_send(p, b, 60);
		m = fpeer_receive(p);
		cr_assert(m);
		cr_assert_eq(m->len, 28);
		cr_assert_eq(rpc_be32(m->buf), 77);
		cr_assert_eq(rpc_be32(m->buf + 4), 1);
		cr_assert_eq(rpc_be32(m->buf + 12), RR_ERROR);
		cr_assert_eq(rpc_be32(m->buf + 16), RR_ERR_VERS);
		cr_assert_eq(rpc_be32(m->buf + 20), 1);
		cr_assert_eq(rpc_be32(m->buf + 24), 1);
	}
	cr_assert_eq(tp_service_stats(s->svc)->bad_versions, 3);
	ping(p, 1);
}

Test(fabric_server, refuses_other_versions)
{
	with_both(t_versions);
}

static void t_bad_chunks(struct server *s, struct fpeer *p)
{
	struct rr_seg rs[2] = { seg_of(p, 0, 1000), seg_of(p, 2000, 1000) }, many[150];
	uint32_t pos[] = { 0, 4, 44, 47, 49, 52, 4096, 0xfffffffc };
	struct rr_header h;
	uint8_t b[4096], args[64];
	size_t at = put_call(args, 5, P_WRITE);

	at = put_word(args, at, 0);
	at = put_word(args, at, 1000);
	for (size_t i = 0; i < sizeof(pos) / sizeof(pos[0]); i++) { /* positions */
		h = (struct rr_header){ .xid = 5, .nreads = 1 };
		h.read[0] = (struct rr_chunk){ .position = pos[i], .n = 1 };
		send_msg(p, &h, rs, args, at);
		expect_error(p, 5, RR_ERR_CHUNK);
	}
	/* The chunk and a second one; the chunk and inline payload; far longer than the payload. */
	h = (struct rr_header){ .xid = 5, .nreads = 2 };
	h.read[0] = (struct rr_chunk){ .position = 48, .n = 1 };
	h.read[1] = (struct rr_chunk){ .position = 200, .first = 1, .n = 1 };
	send_msg(p, &h, rs, args, at);
	expect_error(p, 5, RR_ERR_CHUNK);
	h.nreads = 1;
	memcpy(b, args, at);
	send_msg(p, &h, rs, b, at + 1000);
	expect_error(p, 5, RR_ERR_CHUNK);
	rs[0].length = 1004;
	send_msg(p, &h, rs, args, at);
	expect_error(p, 5, RR_ERR_CHUNK);
	/* A message in chunks without one at zero, empty, or without end. */
	h.proc = RR_NOMSG;
	send_msg(p, &h, rs, NULL, 0);
	expect_error(p, 5, RR_ERR_CHUNK);
	h.nreads = 0;
	send_msg(p, &h, rs, NULL, 0);
	expect_error(p, 5, RR_ERR_CHUNK);
	h.nreads = 1;
	h.read[0].position = 0;
	rs[0].length = 0;
	send_msg(p, &h, rs, NULL, 0);
	expect_error(p, 5, RR_ERR_CHUNK);
	rs[0].length = 0xffffffff;
	send_msg(p, &h, rs, NULL, 0);
	expect_error(p, 5, RR_ERR_CHUNK);
	/* Chunks that overlap in a call without payload, and too much of it. */
	at = put_call(args, 5, P_ECHO);
	at = put_word(args, at, 2000);
	h = (struct rr_header){ .xid = 5, .nreads = 2 };
	rs[0].length = 1000;
	h.read[0] = (struct rr_chunk){ .position = 44, .n = 1 };
	h.read[1] = (struct rr_chunk){ .position = 444, .first = 1, .n = 1 };
	send_msg(p, &h, rs, args, at);
	expect_error(p, 5, RR_ERR_CHUNK);
	h.nreads = 1;
	rs[0].length = 1 << 20;
	send_msg(p, &h, rs, args, at);
	expect_error(p, 5, RR_ERR_CHUNK);
	/* More chunks than anyone needs. */
	for (size_t i = 0; i < 150; i++)
		many[i] = seg_of(p, i, 1);
	at = put_word(b, 0, 5);
	at = put_word(b, at, 1);
	at = put_word(b, at, 8);
	at = put_word(b, at, RR_MSG);
	for (uint32_t i = 0; i < 150; i++) {
		at = put_word(b, at, 1);
		at = put_word(b, at, 44 + 4 * i);
		at = put_word(b, at, many[i].handle);
		at = put_word(b, at, 1);
		at = put_word(b, at, 0);
		at = put_word(b, at, i);
	}
	fpeer_send(p, b, at + 12);
	expect_error(p, 5, RR_ERR_CHUNK);
	/* RDMA_MSGP, an unknown procedure, a list that is cut. */
	for (uint32_t proc = 0; proc < 8; proc++) {
		if (proc >= 3 && proc < 5)
			continue;
		put_word(b, 12, proc);
		fpeer_send(p, b, proc < 2 ? 30 : 60);
		expect_error(p, 5, RR_ERR_CHUNK);
	}
	cr_assert_gt(tp_service_stats(s->svc)->bad_chunks, 20);
	ping(p, 2);
}

Test(fabric_server, refuses_bad_chunks)
{
	with_both(t_bad_chunks);
}

static void t_ignored(struct server *s, struct fpeer *p)
{
	uint8_t b[64] = { 0 };

	(void)s;
	put_word(b, 4, 1);
	put_word(b, 12, RR_DONE);
	fpeer_send(p, b, 16);
	put_word(b, 12, RR_ERROR);
	put_word(b, 16, RR_ERR_CHUNK);
	fpeer_send(p, b, 20);
	ping(p, 3);
}

Test(fabric_server, ignores_done_and_error)
{
	with_both(t_ignored);
}

static void t_garbage(struct server *s, struct fpeer *p)
{
	struct rr_header h = { .xid = 4 };
	struct rr_seg segs[4], rs = seg_of(p, 0, 10);
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at = put_call(b, 4, P_WRITE);

	at = put_word(b, at, 0);
	at = put_word(b, at, 2000);
	send_msg(p, &h, NULL, b, at); /* inline payload that is not there */
	expect_reply(p, 4, RR_MSG, segs, &msg, &len);
	cr_assert_eq(rpc_be32(msg + 20), GARBAGE_ARGS);
	h.nreads = 1;
	h.read[0] = (struct rr_chunk){ .position = 48, .n = 1 };
	send_msg(p, &h, &rs, b, at); /* a chunk shorter than the payload */
	expect_reply(p, 4, RR_MSG, segs, &msg, &len);
	cr_assert_eq(rpc_be32(msg + 20), GARBAGE_ARGS);
	put_word(b, 44, 0x7fffffff);
	send_msg(p, &h, &rs, b, at);
	expect_reply(p, 4, RR_MSG, segs, &msg, &len);
	cr_assert_eq(rpc_be32(msg + 20), GARBAGE_ARGS);
	/* What is no call at all ends the connection. */
	put_word(b, 4, 1);
	h.nreads = 0;
	send_msg(p, &h, NULL, b, at);
	cr_assert(fpeer_soon(p, fpeer_is_down));
	cr_assert_eq(tp_service_stats(s->svc)->bad_headers, 1);
}

Test(fabric_server, answers_garbage_by_its_kind)
{
	with_both(t_garbage);
}

static void t_short(struct server *s, struct fpeer *p)
{
	uint8_t b[16] = { 0 };

	(void)s;
	fpeer_send(p, b, 12);
	cr_assert(fpeer_soon(p, fpeer_is_down));
}

Test(fabric_server, closes_on_messages_without_header)
{
	with_both(t_short);
}

/* --- credits --- */

static void t_credits(struct server *s, struct fpeer *p)
{
	static const uint32_t asked[] = { 0, 1, 32, 100000, 0xffffffff };
	struct rr_seg segs[4];
	const uint8_t *msg;
	uint8_t b[64], all[128];
	uint32_t most = 0;
	size_t len;

	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
		struct rr_header h = { .xid = 60 }, r;
		size_t at;

		h.vers = 1;
		h.credits = asked[i];
		at = rr_encode(&h, NULL, all, sizeof(all));
		fpeer_send(p, all, at + put_call(all + at, 60, P_NULL));
		r = expect_reply(p, 60, RR_MSG, segs, &msg, &len);
		cr_assert_geq(r.credits, 1);
		cr_assert_leq(r.credits, 32);
	}
	/* A client that uses what it has gets more, up to what the server was told. */
	for (uint32_t round = 0; round < 4; round++) {
		uint32_t n = most ? most : 8;
		unsigned before = tp_service_calls(s->svc) * 0;

		for (uint32_t i = 0; i < n; i++) {
			struct rr_header h = { .xid = 100 + i, .credits = 4096 };

			send_msg(p, &h, NULL, b, put_call(b, 100 + i, P_HOLD));
		}
		for (int i = 0; i < 5000 && __atomic_load_n(&s->nheld, __ATOMIC_ACQUIRE) < n; i++) {
			fpeer_progress(p);
			poll(NULL, 0, 1);
		}
		cr_assert_eq(s->nheld, n + before);
		ev_async_send(s->loop, &s->poke);
		for (uint32_t i = 0; i < n; i++) {
			struct fmessage *m = fpeer_receive(p);

			cr_assert(m);
			most = rpc_be32(m->buf + 8);
		}
	}
	cr_assert_eq(most, 32);
}

Test(fabric_server, grants_credits_in_measure)
{
	with_both(t_credits);
}

/* --- the dead --- */

static bool wait_stat(const uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < 8000; i++) {
		if (__atomic_load_n(counter, __ATOMIC_RELAXED) == value)
			return true;
		poll(NULL, 0, 1);
	}
	return false;
}

static void send_write(struct fpeer *p, uint32_t xid, size_t n, uint32_t key_off)
{
	struct rr_seg rs = seg_of(p, 0, n);
	struct rr_header h = { .xid = xid, .nreads = 1 };
	uint8_t b[64];
	size_t at = put_call(b, xid, P_WRITE);

	rs.handle += key_off;
	at = put_word(b, at, 0);
	at = put_word(b, at, (uint32_t)n);
	h.read[0] = (struct rr_chunk){ .position = (uint32_t)at, .n = 1 };
	send_msg(p, &h, &rs, b, at);
}

/* Gone without a word, with calls in every stage: held by the program, being pulled, being pushed.
 */
static void die_amid(const char *provider)
{
	struct server s;
	struct fpeer p, q;
	const struct tp_stats *st;

	server_start(&s, provider, 0);
	st = tp_service_stats(s.svc);
	cr_assert_eq(peer_open(&q, provider), 0);
	for (uint32_t round = 0; round < 4; round++) {
		int go[2], status;
		char c;
		pid_t pid;

		cr_assert_eq(pipe(go), 0);
		pid = fork();
		if (!pid) {
			struct rr_header h = { .xid = 1 };
			struct rr_seg ws;
			uint8_t b[64];
			size_t at;

			if (peer_open(&p, provider))
				_exit(1);
			send_msg(&p, &h, NULL, b, put_call(b, 1, P_HOLD));
			for (uint32_t i = 0; i < 3; i++)
				send_write(&p, 2 + i, MIB, 0);
			ws = seg_of(&p, 0, MIB);
			h = (struct rr_header){ .xid = 9, .nwrites = 1, .write = { { .n = 1 } } };
			at = put_call(b, 9, P_READ);
			at = put_word(b, at, 0);
			at = put_word(b, at, (uint32_t)MIB);
			send_msg(&p, &h, &ws, b, at);
			if (write(go[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		close(go[1]);
		cr_assert_eq(read(go[0], &c, 1), 1);
		close(go[0]);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		cr_assert(WIFSIGNALED(status));
		cr_assert(wait_stat(&st->conns, 1), "%s: %lu connections left", provider,
		          (unsigned long)st->conns);
		ping(&q, round);
	}
	ev_async_send(s.loop, &s.poke); /* the program ends calls of the dead */
	cr_assert(wait_stat(&st->calls_now, 0), "%s: calls left", provider);
	cr_assert_eq(st->provider_resets, 0);
	ping(&q, 99);
	fpeer_close(&q);
	server_stop(&s);
}

Test(fabric_server, survives_killed_clients_over_tcp)
{
	die_amid("tcp");
}

Test(fabric_server, survives_killed_clients_over_shm)
{
	die_amid("shm");
}

/* A key that is none ends the connection that named it, and no other. */
Test(fabric_server, a_bad_key_costs_its_own_connection)
{
	struct server s;
	struct fpeer p, q;

	server_start(&s, "tcp", 0);
	cr_assert_eq(peer_open(&p, "tcp"), 0);
	cr_assert_eq(peer_open(&q, "tcp"), 0);
	send_write(&p, 1, MIB, 1);
	cr_assert(fpeer_soon(&p, fpeer_is_down));
	cr_assert(wait_stat(&tp_service_stats(s.svc)->conns, 1));
	cr_assert(wait_stat(&tp_service_stats(s.svc)->calls_now, 0));
	ping(&q, 2);
	fpeer_close(&p);
	fpeer_close(&q);
	server_stop(&s);
}

/* The listener goes while the program holds calls: they end later, into the void. */
Test(fabric_server, closes_with_calls_out)
{
	static const char *const names[] = { "tcp", "shm" };

	for (size_t i = 0; i < 2; i++) {
		struct server s;
		struct fpeer p;
		struct rr_header h = { .xid = 1 };
		uint8_t b[64];

		server_start(&s, names[i], 0);
		cr_assert_eq(peer_open(&p, names[i]), 0);
		for (uint32_t k = 0; k < 5; k++)
			send_msg(&p, &h, NULL, b, put_call(b, k, P_HOLD));
		for (int k = 0; k < 5000 && __atomic_load_n(&s.nheld, __ATOMIC_ACQUIRE) < 5; k++) {
			fpeer_progress(&p);
			poll(NULL, 0, 1);
		}
		cr_assert_eq(s.nheld, 5);
		server_stop(&s); /* asserts that nothing is left */
		cr_assert(fpeer_soon(&p, fpeer_is_down));
		fpeer_close(&p);
	}
}

/* --- sleep --- */

static void t_idle(struct server *s, struct fpeer *p)
{
	struct rr_header h = { .xid = 1 };
	struct rr_seg segs[4];
	const uint8_t *msg;
	uint8_t b[64];
	unsigned before, after;
	size_t len;

	ping(p, 1);
	/* With a call at the program nobody needs the provider either. */
	send_msg(p, &h, NULL, b, put_call(b, 1, P_HOLD));
	for (int k = 0; k < 5000 && !__atomic_load_n(&s->nheld, __ATOMIC_ACQUIRE); k++) {
		fpeer_progress(p);
		poll(NULL, 0, 1);
	}
	poll(NULL, 0, 50);
	before = ev_iteration(s->loop);
	poll(NULL, 0, 300);
	after = ev_iteration(s->loop);
	cr_assert_leq(after - before, 5, "%u turns in a sleep", after - before);
	ev_async_send(s->loop, &s->poke);
	expect_reply(p, 1, RR_MSG, segs, &msg, &len);
	poll(NULL, 0, 50);
	for (uint32_t i = 0; i < 20; i++) { /* and a message wakes it each time */
		ping(p, i);
		poll(NULL, 0, 2);
	}
}

Test(fabric_server, sleeps_when_idle_and_wakes_for_messages)
{
	with_both(t_idle);
}

/* --- the watchdog --- */

static ssize_t hang(struct fid_cq *cq, void *buf, size_t count, fi_addr_t *from)
{
	(void)cq;
	(void)buf;
	(void)count;
	(void)from;
	for (volatile bool ever = true; ever;)
		;
	return 0;
}

Test(fabric_server, leaves_a_provider_that_hangs)
{
	static struct fab
		*volatile lost; /* on purpose: leak checkers find all of it by this pointer */
	struct server s;
	struct fpeer p, q;
	struct flistener *l;
	struct fi_ops_cq ops;
	struct rr_header h = { .xid = 1 };
	const struct tp_stats *st;
	uint8_t b[64];

	server_start(&s, "shm", 0);
	st = tp_service_stats(s.svc);
	l = container_of(s.listener, struct flistener, base);
	cr_assert_eq(peer_open(&p, "shm"), 0);
	send_msg(&p, &h, NULL, b, put_call(b, 1, P_HOLD));
	for (int k = 0; k < 5000 && !__atomic_load_n(&s.nheld, __ATOMIC_ACQUIRE); k++) {
		fpeer_progress(&p);
		poll(NULL, 0, 1);
	}
	lost = l->fab;
	ops = *lost->cq->ops;
	ops.readfrom = hang;
	lost->cq->ops = &ops;
	ev_async_send(s.loop, &s.poke);
	cr_assert(wait_stat(&st->provider_resets, 1), "still hanging");
	cr_assert(fpeer_soon(&p, fpeer_is_down));
	fpeer_close(&p);
	cr_assert_eq(peer_open(&q, "shm"), 0);
	for (uint32_t i = 0; i < 50; i++)
		ping(&q, i);
	cr_assert(wait_stat(&st->calls_now, 0));
	fpeer_close(&q);
	server_stop(&s);
}

/* Clients that die at any moment of their transfers. Whatever that does to the provider, the next
 * one is served. */
Test(fabric_server, outlives_shm_clients_killed_amid_transfers, .timeout = 100)
{
	const char *env = getenv("TEST_SOAK");
	unsigned rounds = env ? (unsigned)atoi(env) : 12;
	struct server s;
	struct fpeer p;

	server_start(&s, "shm", 0);
	for (unsigned i = 0; i < rounds; i++) {
		int go[2], status, err = 0;
		pid_t pid;
		char c;

		cr_assert_eq(pipe(go), 0);
		pid = fork();
		if (!pid) {
			err = peer_open(&p, "shm");
			if (err || write(go[1], "x", 1) != 1)
				_exit(1);
			for (uint32_t xid = 0; !p.down; xid++) {
				send_write(&p, xid, MIB, 0);
				while (xid > p.ngot + 6 && !p.down)
					fpeer_progress(&p);
				while (p.next != p.ngot)
					fpeer_receive(&p);
			}
			_exit(0);
		}
		close(go[1]);
		cr_assert_eq(read(go[0], &c, 1), 1, "round %u: no service", i);
		close(go[0]);
		poll(NULL, 0, 3 + (int)(i * 7 % 13));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		for (int k = 0; k < 4; k++) { /* a reset in between closes the door once */
			err = peer_open(&p, "shm");
			if (!err)
				break;
			poll(NULL, 0, 500);
		}
		cr_assert_eq(err, 0, "round %u: %d", i, err);
		struct rr_header h = { .xid = i };
		uint8_t b[64];

		send_msg(&p, &h, NULL, b, put_call(b, i, P_NULL));
		if (!fpeer_receive(&p))
			i--; /* it was reset under us: the same again */
		fpeer_close(&p);
	}
	if (env)
		fprintf(stderr, "%lu resets\n",
		        (unsigned long)tp_service_stats(s.svc)->provider_resets);
	server_stop(&s);
}
