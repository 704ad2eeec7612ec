/* SPDX-License-Identifier: BSD-3-Clause */
/* The fixture of rpcfix.h: program, service, and the raw peer. */
#include "test/lib/rpcfix.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct put_ctx {
	uint32_t off;
};

static struct fix *fix_of(struct tp_call *call)
{
	return call->worker;
}

static unsigned cut(struct fix *f, uint32_t off, uint32_t len, struct iovec **out)
{
	uint32_t seg = f->seg ? f->seg : 4093;
	unsigned n = len / seg + (len % seg ? 1 : 0);
	struct iovec *iov = calloc(n + 1u, sizeof(*iov));

	for (unsigned i = 0; i < n; i++) {
		iov[i].iov_base = f->mem + off + (size_t)i * seg;
		iov[i].iov_len = i + 1 < n ? seg : len - (n - 1) * seg;
	}
	*out = iov;
	return n;
}

void fix_answer(struct tp_call *call, uint32_t word)
{
	XDR *x = tp_reply_begin(call, 4);

	if (!x)
		return;
	xdr_u_int32_t(x, &word);
	tp_reply_end(call);
}

static void run_null(struct tp_call *call)
{
	fix_of(call)->runs++;
	if (tp_reply_begin(call, 0))
		tp_reply_end(call);
}

static void run_echo(struct tp_call *call)
{
	char *p = NULL;
	u_int len = 0;
	XDR *x;

	fix_of(call)->runs++;
	if (!xdr_bytes(&call->args, &p, &len, 60000)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	x = tp_reply_begin(call, len + 8);
	if (x) {
		xdr_bytes(x, &p, &len, 60000);
		tp_reply_end(call);
	}
	free(p);
}

static void put_placed(struct tp_call *call, int err)
{
	struct fix *f = fix_of(call);

	f->placed++;
	if (err) {
		f->place_err = err;
		tp_reply_error(call, SYSTEM_ERR);
		return;
	}
	fix_answer(call, call->payload_len);
}

void fix_place(struct fix *f, struct tp_call *call)
{
	struct put_ctx *ctx = call->ctx;
	struct iovec *iov;
	unsigned n = cut(f, ctx->off, call->payload_len, &iov);

	tp_place(call, iov, n, put_placed);
	free(iov);
}

static void run_put(struct tp_call *call)
{
	struct fix *f = fix_of(call);
	struct put_ctx *ctx = call->ctx;
	uint32_t mode, len;

	f->runs++;
	cr_assert_eq(ctx->off, 0, "ctx is zeroed");
	if (!xdr_u_int32_t(&call->args, &ctx->off) || !xdr_u_int32_t(&call->args, &mode) ||
	    !xdr_u_int32_t(&call->args, &len) || len != call->payload_len ||
	    xdr_u_int32_t(&call->args, &len)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (mode == PUT_NOW)
		fix_place(f, call);
	else if (mode == PUT_HOLD)
		f->held[f->nheld++] = call;
	else if (mode == PUT_REFUSE)
		fix_answer(call, 0xbad);
	else
		tp_drop(call);
}

static size_t put_at(const uint8_t *args, size_t have)
{
	(void)args;
	(void)have;
	return 12;
}

static void get_sent(void *arg, int err)
{
	struct fix *f = arg;

	f->sent++;
	if (err)
		f->sent_err = err;
}

static void run_get(struct tp_call *call)
{
	struct fix *f = fix_of(call);
	uint32_t off = 0, len = 0;
	struct iovec *iov;
	unsigned n;
	XDR *x;

	f->runs++;
	if (!xdr_u_int32_t(&call->args, &off) || !xdr_u_int32_t(&call->args, &len) ||
	    off + len > FIX_MEM) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	x = tp_reply_begin(call, 4);
	if (!x)
		return;
	xdr_u_int32_t(x, &off);
	n = cut(f, off, len, &iov);
	tp_reply_end_payload(call, iov, n, len, get_sent, f);
	free(iov);
}

static void run_hold(struct tp_call *call)
{
	struct fix *f = fix_of(call);

	f->runs++;
	f->held[f->nheld++] = call;
	if (f->hold_turn)
		tp_want_turn_end(f->svc, f->hold_bytes);
}

static const struct tp_proc procs[FIX_PROCS] = {
	[FIX_NULL] = { "null", run_null, NULL }, [FIX_ECHO] = { "echo", run_echo, NULL },
	[FIX_PUT] = { "put", run_put, put_at },  [FIX_GET] = { "get", run_get, NULL },
	[FIX_HOLD] = { "hold", run_hold, NULL },
};
static const struct tp_proc old_procs[1] = { { "null", run_null, NULL } };
static const struct tp_program program = {
	FIX_PROG, FIX_VERS, procs, FIX_PROCS, sizeof(struct put_ctx), false
};
static const struct tp_program old_program = { FIX_PROG, FIX_VERS - 2, old_procs, 1, 0, true };
const struct tp_program *const fix_programs[] = { &program, &old_program, NULL };

void fix_service(struct fix *f, const struct tp_service_opts *more)
{
	struct tp_service_opts o = more ? *more : (struct tp_service_opts){ 0 };

	memset(f, 0, sizeof(*f));
	f->loop = ev_loop_new(EVFLAG_AUTO);
	f->mem = calloc(1, FIX_MEM);
	o.programs = fix_programs;
	o.worker = f;
	cr_assert_eq(tp_service_new(f->loop, &o, &f->svc), 0);
}

void fix_listen(struct fix *f)
{
	struct sockaddr_in sin = { 0 };
	socklen_t len = sizeof(sin);
	struct tp_error why;
	unsigned n = 0;
	int fd;

	cr_assert_eq(tp_socket_bind("127.0.0.1", "0", false, &fd, 1, &n, &why), 0, "%s", why.text);
	cr_assert_eq(n, 1);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	snprintf(f->port, sizeof(f->port), "%u", ntohs(sin.sin_port));
	cr_assert_eq(tp_listen_socket(f->svc, fd, &f->listener), 0);
}

void fix_free(struct fix *f)
{
	tp_service_free(f->svc);
	ev_loop_destroy(f->loop);
	free(f->mem);
}

void fix_turn(struct fix *f)
{
	for (unsigned i = 0; i < 4; i++)
		ev_run(f->loop, EVRUN_NOWAIT);
}

/* --- bytes --- */

void wire_bytes(struct wire *w, const void *p, size_t n)
{
	if (w->len + n > w->cap) {
		w->cap = 2 * (w->len + n) + 64;
		w->b = realloc(w->b, w->cap);
		cr_assert(w->b);
	}
	if (n)
		memcpy(w->b + w->len, p, n);
	w->len += n;
}

void wire_u32(struct wire *w, uint32_t v)
{
	v = htonl(v);
	wire_bytes(w, &v, 4);
}

void wire_pad(struct wire *w)
{
	wire_bytes(w, "\0\0\0", -w->len & 3);
}

void wire_call(struct wire *w, uint32_t xid, uint32_t vers, uint32_t proc)
{
	static const uint32_t words[] = { AUTH_SYS, 32, 0x5eed, 4 };

	wire_u32(w, xid);
	wire_u32(w, CALL);
	wire_u32(w, 2);
	wire_u32(w, FIX_PROG);
	wire_u32(w, vers);
	wire_u32(w, proc);
	for (unsigned i = 0; i < 4; i++)
		wire_u32(w, words[i]);
	wire_bytes(w, "host", 4);
	for (uint32_t v = 7; v < 9; v++)
		wire_u32(w, v);
	wire_u32(w, 2);
	wire_u32(w, 9);
	wire_u32(w, 10);
	wire_u32(w, AUTH_NONE);
	wire_u32(w, 0);
}

void wire_put(struct wire *w, uint32_t xid, uint32_t off, uint32_t mode, const void *data,
              uint32_t len)
{
	wire_call(w, xid, FIX_VERS, FIX_PUT);
	wire_u32(w, off);
	wire_u32(w, mode);
	wire_u32(w, len);
	wire_bytes(w, data, len);
	wire_pad(w);
}

void wire_get(struct wire *w, uint32_t xid, uint32_t off, uint32_t len)
{
	wire_call(w, xid, FIX_VERS, FIX_GET);
	wire_u32(w, off);
	wire_u32(w, len);
}

void wire_record(struct wire *to, const struct wire *msg)
{
	wire_u32(to, 0x80000000u | (uint32_t)msg->len);
	wire_bytes(to, msg->b, msg->len);
}

void wire_free(struct wire *w)
{
	free(w->b);
	*w = (struct wire){ 0 };
}

uint32_t wire_at(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void fill(uint8_t *p, size_t n, unsigned seed)
{
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = (uint8_t)(x >> 24);
	}
}

/* --- the peer --- */

int peer_connect(struct fix *f)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		                   .sin_port = htons((uint16_t)atoi(f->port)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
	fix_turn(f);
	return fd;
}

void peer_send(struct fix *f, int fd, const void *p, size_t n)
{
	const char *at = p;

	for (unsigned idle = 0; n && idle < 2000;) {
		ssize_t k = send(fd, at, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (k > 0) {
			at += k;
			n -= (size_t)k;
			idle = 0;
		} else if (k < 0 && errno != EAGAIN) {
			return; /* closed: the test will see it */
		} else {
			struct pollfd pfd = { fd, POLLOUT, 0 };

			poll(&pfd, 1, 1);
			idle++;
		}
		fix_turn(f);
	}
	fix_turn(f);
}

bool peer_recv(struct fix *f, int fd, void *p, size_t n)
{
	char *at = p;

	for (unsigned idle = 0; n && idle < 2000;) {
		ssize_t k = recv(fd, at, n, MSG_DONTWAIT);

		if (k > 0) {
			at += k;
			n -= (size_t)k;
			idle = 0;
		} else if (k == 0 || errno != EAGAIN) {
			return false;
		} else {
			struct pollfd pfd = { fd, POLLIN, 0 };

			fix_turn(f);
			poll(&pfd, 1, 1);
			idle++;
		}
	}
	return !n;
}

bool peer_reply(struct fix *f, int fd, struct wire *w)
{
	uint8_t mark[4];
	size_t len;

	wire_free(w);
	if (!peer_recv(f, fd, mark, 4))
		return false;
	len = wire_at(mark);
	cr_assert(len & 0x80000000u, "replies come in one fragment");
	len &= 0x7fffffff;
	cr_assert_leq(len, 4 << 20);
	w->b = malloc(len + 1);
	w->cap = w->len = len;
	return peer_recv(f, fd, w->b, len);
}

bool peer_closed(struct fix *f, int fd)
{
	for (unsigned i = 0; i < 2000; i++) {
		struct pollfd pfd = { fd, POLLIN, 0 };
		ssize_t k;
		char c;

		fix_turn(f);
		k = recv(fd, &c, 1, MSG_DONTWAIT);
		if (k > 0)
			return false;
		if (!k || errno == ECONNRESET)
			return true;
		poll(&pfd, 1, 1);
	}
	return false;
}

bool peer_quiet(struct fix *f, int fd)
{
	char c;

	for (unsigned i = 0; i < 5; i++)
		fix_turn(f);
	return recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}
