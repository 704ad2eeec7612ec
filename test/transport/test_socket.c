/* SPDX-License-Identifier: BSD-3-Clause */
/* Record marking over TCP: calls, payloads and replies, in whatever pieces they come. */
#include "test/lib/sockfix.h"

#include <criterion/criterion.h>
#include <ev.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(socket, .init = sockfix_start, .fini = sockfix_stop, .timeout = 60);

Test(socket, a_call_is_answered)
{
	int fd = peer_connect(&f);

	expect_alive(fd);
	close(fd);
}

Test(socket, payload_lands_at_any_offset_and_length_without_a_copy)
{
	static const uint32_t len[] = { 0,    1,    2,    3,    4,     1023,    1024,
		                        1025, 4095, 4096, 4097, 65537, MIB - 1, MIB };
	static const uint32_t seg[] = { 1 << 20, 4093, 4096, 700 };
	const struct tp_stats *st = tp_service_stats(f.svc);
	int fd = peer_connect(&f);
	uint64_t sum = 0;

	for (unsigned s = 0; s < 4; s++) {
		f.seg = seg[s];
		for (unsigned i = 0; i < sizeof(len) / sizeof(*len); i++) {
			uint32_t off = 4096 * i + i + s;

			memset(f.mem, 0xee, FIX_MEM);
			send_put(fd, 100 + i, off, PUT_NOW, len[i]);
			expect_word(fd, 100 + i, len[i]);
			cr_assert(!memcmp(f.mem + off, data, len[i]), "length %u", len[i]);
			cr_assert_eq(f.mem[off + len[i]], 0xee);
			cr_assert(!off || f.mem[off - 1] == 0xee);
			sum += len[i];
		}
	}
	cr_assert_eq(st->payload_placed_bytes + st->payload_inline_bytes, sum);
	cr_assert_leq(st->payload_inline_bytes, 4 * (1 + 2 + 3 + 4 + 1023 + 1024));
	cr_assert_eq(st->payload_staged_bytes, 0);
	close(fd);
}

Test(socket, payload_results_come_from_the_segments)
{
	static const uint32_t len[] = { 0, 1, 2, 3, 4, 5000, MIB - 3, MIB };
	int fd = peer_connect(&f);

	fill(f.mem, FIX_MEM, 7);
	for (unsigned i = 0; i < sizeof(len) / sizeof(*len); i++) {
		struct wire m = { 0 }, w = { 0 }, r = { 0 };
		uint32_t off = 3 * i + 1, padded = (len[i] + 3) & ~3u;

		wire_get(&m, i, off, len[i]);
		wire_record(&w, &m);
		peer_send(&f, fd, w.b, w.len);
		cr_assert(peer_reply(&f, fd, &r));
		cr_assert_eq(r.len, HDR + 8 + padded);
		cr_assert_eq(wire_at(r.b + HDR), off);
		cr_assert_eq(wire_at(r.b + HDR + 4), len[i]);
		cr_assert(!memcmp(r.b + HDR + 8, f.mem + off, len[i]));
		cr_assert(!memcmp(r.b + HDR + 8 + len[i], "\0\0\0", padded - len[i]));
		cr_assert_eq(f.sent, i + 1);
		cr_assert_eq(f.sent_err, 0);
		wire_free(&m);
		wire_free(&w);
		wire_free(&r);
	}
	close(fd);
}

/* Send @m as two fragments that meet at @border, each in a segment of its own if @apart. */
static void send_split(int fd, const struct wire *m, size_t border, bool apart)
{
	struct wire w = { 0 };

	wire_u32(&w, (uint32_t)border);
	wire_bytes(&w, m->b, border);
	if (apart) {
		peer_send(&f, fd, w.b, w.len);
		w.len = 0;
	}
	wire_u32(&w, 0x80000000u | (uint32_t)(m->len - border));
	wire_bytes(&w, m->b + border, m->len - border);
	peer_send(&f, fd, w.b, w.len);
	wire_free(&w);
}

Test(socket, a_fragment_border_may_be_anywhere)
{
	int fd = peer_connect(&f);

	for (uint32_t len = 30; len <= 1500;
	     len += 1470) { /* one that may be inline, one that may not */
		struct wire m = { 0 };

		wire_put(&m, 5, 0, PUT_NOW, data, len);
		for (size_t border = 0; border <= m.len;
		     border += border < 180 || border > m.len - 40 ? 1 : 97) {
			memset(f.mem, 0, len + 8);
			send_split(fd, &m, border, border & 1);
			expect_word(fd, 5, len);
			cr_assert(!memcmp(f.mem, data, len), "border at %zu", border);
			cr_assert_eq(f.mem[len], 0);
		}
		wire_free(&m);
	}
	expect_alive(fd);
	close(fd);
}

Test(socket, every_byte_in_a_fragment_of_its_own)
{
	struct wire m = { 0 }, w = { 0 };
	int fd = peer_connect(&f);

	wire_put(&m, 5, 0, PUT_NOW, data, 2001);
	for (size_t i = 0; i < m.len; i++) {
		if (i % 50 == 0)
			wire_u32(&w, 0);
		wire_u32(&w, i + 1 == m.len ? 0x80000001u : 1);
		wire_bytes(&w, m.b + i, 1);
	}
	peer_send(&f, fd, w.b, w.len);
	expect_word(fd, 5, 2001);
	cr_assert(!memcmp(f.mem, data, 2001));
	expect_alive(fd);
	wire_free(&m);
	wire_free(&w);
	close(fd);
}

Test(socket, the_last_fragment_may_be_empty)
{
	struct wire m = { 0 };
	int fd = peer_connect(&f);

	wire_put(&m, 5, 0, PUT_NOW, data, 3000);
	send_split(fd, &m, m.len, false);
	expect_word(fd, 5, 3000);
	m.len = 0;
	wire_call(&m, 6, FIX_VERS, FIX_NULL);
	send_split(fd, &m, m.len, true);
	expect_stat(fd, 6, SUCCESS);
	wire_free(&m);
	close(fd);
}

Test(socket, calls_come_in_any_pieces)
{
	struct wire m = { 0 }, w = { 0 };
	int fd = peer_connect(&f);

	wire_put(&m, 5, 16, PUT_NOW, data, 1100);
	wire_record(&w, &m);
	null_call(&w, 6);
	for (size_t cut = 1; cut < w.len; cut++) {
		peer_send(&f, fd, w.b, cut);
		peer_send(&f, fd, w.b + cut, w.len - cut);
		expect_word(fd, 5, 1100);
		expect_stat(fd, 6, SUCCESS);
		cr_assert(!memcmp(f.mem + 16, data, 1100));
	}
	for (size_t i = 0; i < w.len; i++)
		peer_send(&f, fd, w.b + i, 1);
	expect_word(fd, 5, 1100);
	expect_stat(fd, 6, SUCCESS);
	wire_free(&m);
	wire_free(&w);
	close(fd);
}

/* The padding of a payload and the mark behind it are taken with the payload, as far as they are there. */
Test(socket, payloads_one_behind_the_other_come_in_any_pieces)
{
	int fd = peer_connect(&f);

	for (uint32_t len = 1100; len < 1104; len++) {
		struct wire m = { 0 }, w = { 0 };

		for (uint32_t i = 0; i < 3; i++) {
			m.len = 0;
			wire_put(&m, i, i * 4096, PUT_NOW, data + i, len);
			wire_record(&w, &m);
		}
		null_call(&w, 3);
		for (size_t cut = 1; cut < w.len; cut += cut < 1000 || cut > 1500 ? 7 : 1) {
			memset(f.mem, 0, 3 * 4096);
			peer_send(&f, fd, w.b, cut);
			peer_send(&f, fd, w.b + cut, w.len - cut);
			for (uint32_t i = 0; i < 3; i++) {
				expect_word(fd, i, len);
				cr_assert(!memcmp(f.mem + i * 4096, data + i, len), "cut at %zu", cut);
				cr_assert_eq(f.mem[i * 4096 + len], 0);
			}
			expect_stat(fd, 3, SUCCESS);
		}
		wire_free(&m);
		wire_free(&w);
	}
	close(fd);
}

/* However much work one connection brings, its turn ends; what is left is done without another byte
 * from the peer. */
Test(socket, the_turn_of_a_connection_may_end_anywhere)
{
	int fd = peer_connect(&f);

	for (uint32_t i = 0; i < 80; i++) {
		struct wire m = { 0 }, w = { 0 };
		uint32_t n = 100 + i / 2;

		wire_put(&m, n, 0, PUT_NOW, data, n);
		wire_u32(&w, (uint32_t)(m.len - (n + (-n & 3))));
		wire_bytes(&w, m.b, m.len - (n + (-n & 3)));
		if (i & 1)
			wire_u32(&w, 0); /* one step more */
		for (uint32_t at = 0; at < n; at++) {
			wire_u32(&w, at + 1 == n ? 0x80000001u : 1);
			wire_bytes(&w, data + at, 1);
		}
		peer_send(&f, fd, w.b, w.len);
		expect_word(fd, n, n);
		cr_assert(!memcmp(f.mem, data, n));
		expect_alive(fd); /* so that the next turn starts between two records */
		wire_free(&m);
		wire_free(&w);
	}
	close(fd);
}

Test(socket, pipelined_calls_are_all_answered)
{
	enum { N = 300 };
	struct wire w = { 0 };
	int fd = peer_connect(&f);

	for (uint32_t i = 0; i < N; i++) {
		struct wire m = { 0 };

		if (i % 3 == 0)
			null_call(&w, i);
		else
			wire_put(&m, i, i * 8192, PUT_NOW, data + i, i % 3 == 1 ? 300 : 6001);
		if (m.len)
			wire_record(&w, &m);
		wire_free(&m);
	}
	peer_send(&f, fd, w.b, w.len);
	for (uint32_t i = 0; i < N; i++) {
		if (i % 3 == 0)
			expect_stat(fd, i, SUCCESS);
		else
			expect_word(fd, i, i % 3 == 1 ? 300 : 6001);
		cr_assert(i % 3 != 1 || !memcmp(f.mem + i * 8192, data + i, 300));
		cr_assert(i % 3 != 2 || !memcmp(f.mem + i * 8192, data + i, 6001));
	}
	wire_free(&w);
	close(fd);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The times of calls that are run one behind the other are one behind the other, too. */
Test(socket, no_time_is_two_calls_time)
{
	enum { N = 40 };
	const struct tp_stats *st = tp_service_stats(f.svc);
	const struct tp_proc_stats *null = &st->proc[TP_TCP][tp_stats_index(f.svc, FIX_PROG, FIX_VERS, 0)];
	struct wire w = { 0 };
	int fd = peer_connect(&f);
	uint64_t start, ended;

	for (uint32_t i = 0; i < N; i++)
		null_call(&w, i);
	start = now_ns();
	peer_send(&f, fd, w.b, w.len);
	ended = now_ns();
	for (uint32_t i = 0; i < N; i++)
		expect_stat(fd, i, SUCCESS);
	cr_assert_eq(null->calls, N);
	cr_assert_gt(null->nsec, 0);
	cr_assert_leq(null->nsec, ended - start);
	wire_free(&w);
	close(fd);
}

/* Segments that @fd has got with nothing in them. */
static unsigned bare_acks(int fd)
{
	struct tcp_info t = { 0 };
	socklen_t len = sizeof(t);

	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &len), 0);
	return t.tcpi_segs_in - t.tcpi_data_segs_in;
}

/* In the beginning TCP acknowledges everything at once, and when replies are late; mostly it need not. */
Test(socket, replies_carry_the_acknowledgement_of_their_calls)
{
	enum { TIMES = 200, WARM = 50 };
	int fd = peer_connect(&f);
	unsigned acks = 0;

	for (uint32_t i = 0; i < TIMES; i++) {
		if (i == WARM)
			acks = bare_acks(fd);
		for (uint32_t k = 0; k < 4; k++) { /* segments of their own, all there before the first is read */
			struct wire w = { 0 };

			null_call(&w, 4 * i + k);
			cr_assert_eq(send(fd, w.b, w.len, 0), (ssize_t)w.len);
			wire_free(&w);
		}
		for (uint32_t k = 0; k < 4; k++)
			expect_stat(fd, 4 * i + k, SUCCESS);
	}
	cr_assert_lt(bare_acks(fd) - acks, (TIMES - WARM) / 2);
	close(fd);
}

Test(socket, replies_leave_in_the_order_they_are_given)
{
	int fd = peer_connect(&f);

	send_holds(fd, 8);
	cr_assert_eq(f.nheld, 8);
	for (uint32_t i = 8; i-- > 0;)
		fix_answer(f.held[i], 1000 + i);
	for (uint32_t i = 8; i-- > 0;)
		expect_word(fd, i, 1000 + i);
	close(fd);
}

Test(socket, a_payload_that_nobody_wants_is_skipped)
{
	static const uint32_t len[] = { 0, 5, 1024, 1025, 300001 };
	int fd = peer_connect(&f);

	for (unsigned i = 0; i < 5; i++) {
		send_put(fd, i, 0, PUT_REFUSE, len[i]);
		expect_word(fd, i, 0xbad);
		send_put(fd, i, 0, PUT_DROP, len[i]);
		expect_alive(fd);
	}
	for (unsigned i = 0; i < 5; i++) {
		send_put(fd, i, 0, PUT_HOLD, len[i]); /* answered later, never placed */
		fix_answer(f.held[i], 77);
		expect_word(fd, i, 77);
		expect_alive(fd);
	}
	cr_assert_eq(f.placed, 0);
	cr_assert_eq(f.mem[0], 0);
	close(fd);
}

Test(socket, a_payload_may_be_placed_later)
{
	static const uint32_t len[] = { 0, 5, 1024, 1025, 300001 };
	int fd = peer_connect(&f), other = peer_connect(&f);

	for (unsigned i = 0; i < 5; i++) {
		send_put(fd, i, 11, PUT_HOLD, len[i]);
		cr_assert_eq(f.nheld, i + 1);
		expect_alive(other);
		fix_place(&f, f.held[i]);
		expect_word(fd, i, len[i]);
		cr_assert(!memcmp(f.mem + 11, data, len[i]));
		expect_alive(fd);
	}
	close(fd);
	close(other);
}

Test(socket, padding_may_be_missing_and_more_than_it_is_skipped)
{
	int fd = peer_connect(&f);

	for (int extra = -3; extra < 9000; extra += extra < 8 ? 1 : 8000) {
		struct wire m = { 0 }, w = { 0 };

		wire_put(&m, 5, 0, PUT_NOW, data, 2001);
		if (extra < 0)
			m.len -= (size_t)-extra;
		else
			wire_bytes(&m, data, (size_t)extra);
		wire_record(&w, &m);
		peer_send(&f, fd, w.b, w.len);
		expect_word(fd, 5, 2001);
		expect_alive(fd);
		wire_free(&m);
		wire_free(&w);
	}
	close(fd);
}

Test(socket, calls_larger_than_the_scratch_area_are_gathered)
{
	int fd = peer_connect(&f);

	for (uint32_t len = 3000; len < 32000; len += 1111) {
		struct wire m = { 0 }, w = { 0 }, r = { 0 };

		wire_call(&m, len, FIX_VERS, FIX_ECHO);
		wire_u32(&m, len);
		wire_bytes(&m, data, len);
		wire_pad(&m);
		null_call(&w, 1);
		wire_record(&w, &m);
		null_call(&w, 2);
		peer_send(&f, fd, w.b, w.len);
		expect_stat(fd, 1, SUCCESS);
		cr_assert(peer_reply(&f, fd, &r));
		cr_assert_eq(wire_at(r.b + HDR), len);
		cr_assert(!memcmp(r.b + HDR + 4, data, len));
		expect_stat(fd, 2, SUCCESS);
		wire_free(&m);
		wire_free(&w);
		wire_free(&r);
	}
	close(fd);
}

static void *run_loop(void *arg)
{
	(void)arg;
	ev_run(f.loop, 0);
	return NULL;
}

static void end_loop(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

struct opaque {
	char *p;
	u_int len;
};

static bool_t xdr_opaque_arg(XDR *x, ...)
{
	va_list ap;
	struct opaque *o;

	va_start(ap, x);
	o = va_arg(ap, struct opaque *);
	va_end(ap);
	return xdr_bytes(x, &o->p, &o->len, MIB);
}

static bool_t xdr_put_arg(XDR *x, ...)
{
	uint32_t off = 3, mode = PUT_NOW;
	va_list ap;
	struct opaque *o;

	va_start(ap, x);
	o = va_arg(ap, struct opaque *);
	va_end(ap);
	return xdr_u_int32_t(x, &off) && xdr_u_int32_t(x, &mode) &&
	       xdr_bytes(x, &o->p, &o->len, MIB);
}

static bool_t xdr_word(XDR *x, ...)
{
	va_list ap;
	uint32_t *v;

	va_start(ap, x);
	v = va_arg(ap, uint32_t *);
	va_end(ap);
	return xdr_u_int32_t(x, v);
}

Test(socket, libtirpc_s_client_is_served)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		                   .sin_port = htons((uint16_t)atoi(f.port)) };
	struct opaque out = { (char *)data, 20000 }, in = { NULL, 0 }, put = { (char *)data, MIB };
	struct timeval tv = { 20, 0 };
	int fd = RPC_ANYSOCK;
	uint32_t word = 0;
	pthread_t thread;
	ev_async end;
	CLIENT *c;

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ev_async_init(&end, end_loop);
	ev_async_start(f.loop, &end);
	cr_assert_eq(pthread_create(&thread, NULL, run_loop, NULL), 0);
	c = clnttcp_create(&sin, FIX_PROG, FIX_VERS, &fd, 0, 0);
	cr_assert_not_null(c);
	auth_destroy(c->cl_auth);
	c->cl_auth = authunix_create_default();
	cr_assert_eq(clnt_call(c, FIX_ECHO, xdr_opaque_arg, (void *)&out, xdr_opaque_arg,
	                       (void *)&in, tv),
	             RPC_SUCCESS);
	cr_assert_eq(in.len, out.len);
	cr_assert(!memcmp(in.p, data, in.len));
	cr_assert_eq(clnt_call(c, FIX_PUT, xdr_put_arg, (void *)&put, xdr_word, (void *)&word, tv),
	             RPC_SUCCESS);
	cr_assert_eq(word, MIB);
	cr_assert(!memcmp(f.mem + 3, data, MIB));
	cr_assert_eq(clnt_call(c, FIX_GAP, xdr_word, (void *)&word, xdr_word, (void *)&word, tv),
	             RPC_PROCUNAVAIL);
	auth_destroy(c->cl_auth);
	clnt_destroy(c);
	free(in.p);
	ev_async_send(f.loop, &end);
	pthread_join(thread, NULL);
	ev_async_stop(f.loop, &end);
}
