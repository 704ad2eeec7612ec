/* SPDX-License-Identifier: BSD-3-Clause */
/* The RPC layer over a transport that only takes notes: headers, refusals byte by byte, and the
 * life of a call. */
#include "test/lib/rpcfix.h"
#include "transport/rpc.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

struct notes_conn {
	struct tp_conn conn;
	unsigned nplace, nreply, ndrop, nfree;
	bool async;          /* complete nothing by itself */
	bool no_memory;      /* reply_buf fails */
	struct rpc_call *at; /* the last one handed to the transport */
	uint8_t reply[4096]; /* the last reply, payload behind it */
	size_t reply_len;
	size_t room;
};

struct notes_call {
	uint8_t *buf;
	uint64_t mark; /* stays zero: the transport's part is cleared for each call */
};

static struct fix f;
static struct notes_conn *nc;
static unsigned freed;

static struct notes_conn *notes_of(const struct rpc_call *c)
{
	return container_of(c->pub.conn, struct notes_conn, conn);
}

static void notes_place(struct rpc_call *c)
{
	struct notes_conn *n = notes_of(c);

	n->nplace++;
	n->at = c;
	if (!n->async)
		rpc_placed(c, 0);
}

static uint8_t *notes_reply_buf(struct rpc_call *c, size_t max)
{
	struct notes_call *p = c->priv;

	cr_assert_eq(p->mark, 0);
	cr_assert_eq((uintptr_t)p % 16, 0);
	p->mark = 1;
	p->buf = notes_of(c)->no_memory ? NULL : malloc(max);
	return p->buf;
}

static void notes_done(struct rpc_call *c)
{
	struct notes_call *p = c->priv;

	free(p->buf);
	rpc_call_done(c, 0);
}

static void notes_reply_end(struct rpc_call *c)
{
	struct notes_conn *n = notes_of(c);

	n->nreply++;
	n->at = c;
	cr_assert_leq(c->len, c->cap);
	memcpy(n->reply, c->buf, c->len);
	n->reply_len = c->len;
	for (unsigned i = 0; i < c->niov; i++) {
		memcpy(n->reply + n->reply_len, c->iov[i].iov_base, c->iov[i].iov_len);
		n->reply_len += c->iov[i].iov_len;
	}
	cr_assert_eq(n->reply_len, c->len + c->reply_payload);
	if (!n->async)
		notes_done(c);
}

static void notes_drop(struct rpc_call *c)
{
	notes_of(c)->ndrop++;
	notes_done(c);
}

static size_t notes_room(const struct rpc_call *c)
{
	return notes_of(c)->room;
}

static void notes_stop(struct tp_conn *conn)
{
	(void)conn;
}

static void notes_close(struct tp_conn *conn)
{
	if (conn->dead)
		return;
	rpc_conn_dead(conn);
	rpc_conn_fail_calls(conn, -ECONNRESET);
	rpc_conn_put(conn);
}

static void notes_free(struct tp_conn *conn)
{
	freed++;
	free(container_of(conn, struct notes_conn, conn));
}

static const struct tp_conn_ops notes_ops = {
	.priv_size = sizeof(struct notes_call),
	.priv_zeroed = sizeof(struct notes_call),
	.place = notes_place,
	.reply_buf = notes_reply_buf,
	.reply_end = notes_reply_end,
	.drop = notes_drop,
	.reply_room = notes_room,
	.stop = notes_stop,
	.close = notes_close,
	.free = notes_free,
};

static void setup(void)
{
	struct tp_service_opts o = { .max_payload = 65536 };

	fix_service(&f, &o);
	nc = calloc(1, sizeof(*nc));
	nc->room = 4000;
	cr_assert_eq(rpc_conn_init(&nc->conn, f.svc, TP_FABRIC_MSG, &notes_ops), 0);
}

static void teardown(void)
{
	cr_expect_eq(tp_service_calls(f.svc), 0);
	fix_free(&f);
	cr_expect_eq(freed, 1, "the connection is freed once");
}

TestSuite(rpc, .init = setup, .fini = teardown, .timeout = 20);

/* Run the first @len bytes, in memory of exactly that size: a sanitizer sees any look beyond. */
static int run_bytes(const void *msg, size_t len, size_t payload)
{
	uint8_t *exact = malloc(len ? len : 1);
	struct rpc_call *c = rpc_call_get(&nc->conn);
	int r;

	if (len)
		memcpy(exact, msg, len);
	r = rpc_call_run(c, exact, len, payload);
	free(exact);
	return r;
}

static int run_wire(const struct wire *w)
{
	return run_bytes(w->b, w->len, 0);
}

/* The last reply is these words. */
static void expect_words(const uint32_t *words, unsigned n)
{
	cr_assert_eq(nc->reply_len, 4 * n, "%zu bytes, not %u", nc->reply_len, 4 * n);
	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(wire_at(nc->reply + 4 * i), words[i], "word %u is %u, not %u", i,
		             wire_at(nc->reply + 4 * i), words[i]);
}
#define EXPECT(...)                                                                                \
	do {                                                                                       \
		static const uint32_t words_[] = { __VA_ARGS__ };                                  \
		expect_words(words_, sizeof(words_) / 4);                                          \
	} while (0)

/* A call with the given credential. */
static void call_with(struct wire *w, uint32_t prog, uint32_t vers, uint32_t proc, uint32_t flavor,
                      const void *cred, uint32_t len)
{
	w->len = 0;
	wire_u32(w, 77);
	wire_u32(w, CALL);
	wire_u32(w, 2);
	wire_u32(w, prog);
	wire_u32(w, vers);
	wire_u32(w, proc);
	wire_u32(w, flavor);
	wire_u32(w, len);
	wire_bytes(w, cred, len);
	wire_pad(w);
	wire_u32(w, AUTH_NONE);
	wire_u32(w, 0);
}

Test(rpc, refusals_are_the_rfc_s_byte_by_byte)
{
	struct wire w = { 0 };

	wire_call(&w, 77, FIX_VERS, FIX_NULL);
	cr_assert_eq(run_wire(&w), 0);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, SUCCESS);

	w.b[11] = 3; /* rpcvers */
	run_wire(&w);
	EXPECT(77, REPLY, MSG_DENIED, RPC_MISMATCH, 2, 2);

	call_with(&w, FIX_PROG + 1, FIX_VERS, 0, AUTH_NONE, "", 0);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, PROG_UNAVAIL);

	call_with(&w, FIX_PROG, FIX_VERS + 1, 0, AUTH_NONE, "", 0);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, PROG_MISMATCH, FIX_VERS - 2, FIX_VERS);

	call_with(&w, FIX_PROG, FIX_VERS - 1, 0, AUTH_NONE, "",
	          0); /* between the two that there are */
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, PROG_MISMATCH, FIX_VERS - 2, FIX_VERS);

	w.len = 0;
	wire_call(&w, 77, FIX_VERS, FIX_PROCS);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, PROC_UNAVAIL);

	w.len = 0;
	wire_call(&w, 77, FIX_VERS, FIX_GAP);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, PROC_UNAVAIL);

	w.len = 0;
	wire_call(&w, 77, FIX_VERS, FIX_ECHO);
	wire_u32(&w, 0xffffffff);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, GARBAGE_ARGS);
	wire_free(&w);
}

Test(rpc, credentials_that_are_refused)
{
	static const uint8_t name256[20 + 256] = { 0, 0, 0, 0, 0, 0, 1, 0 };
	static const uint8_t gids17[20 + 68] = { [19] = 17 };
	static const uint8_t gids_cut[20 + 12] = { [19] = 4 };
	static const uint8_t huge_gids[20] = { [16] = 0x40 };
	static const uint8_t huge_name[20] = { 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfd };
	static const uint8_t long_cred[404];
	static const struct {
		uint32_t flavor, len;
		const uint8_t *body;
		uint32_t why;
	} bad[] = {
		{ AUTH_SYS, 0, name256, AUTH_BADCRED },
		{ AUTH_SYS, 19, gids_cut, AUTH_BADCRED },
		{ AUTH_SYS, 276, name256, AUTH_BADCRED },
		{ AUTH_SYS, 88, gids17, AUTH_BADCRED },
		{ AUTH_SYS, 32, gids_cut, AUTH_BADCRED },
		{ AUTH_SYS, 20, huge_gids, AUTH_BADCRED },
		{ AUTH_SYS, 20, huge_name, AUTH_BADCRED },
		{ AUTH_SYS, 401, long_cred, AUTH_BADCRED },
		{ AUTH_NONE, 4, long_cred, AUTH_BADCRED },
		{ AUTH_SHORT, 8, long_cred, AUTH_REJECTEDCRED },
		{ AUTH_DES, 8, long_cred, AUTH_BADCRED },
		{ 6 /* RPCSEC_GSS */, 20, long_cred, AUTH_BADCRED },
		{ 0xffffffff, 0, long_cred, AUTH_BADCRED },
		{ AUTH_NONE, 0, long_cred, AUTH_TOOWEAK },
	};
	struct wire w = { 0 };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const uint32_t words[] = { 77, REPLY, MSG_DENIED, AUTH_ERROR, bad[i].why };

		call_with(&w, FIX_PROG, FIX_VERS, FIX_HOLD, bad[i].flavor, bad[i].body, bad[i].len);
		cr_assert_eq(run_wire(&w), 0);
		expect_words(words, 5);
	}
	cr_assert_eq(f.runs, 0);
	cr_assert_eq(tp_service_stats(f.svc)->auth_errors, sizeof(bad) / sizeof(*bad));

	w.len = 0;
	wire_call(&w, 77, FIX_VERS, FIX_NULL);
	w.b[w.len - 5] = AUTH_SYS; /* a verifier where none belongs */
	run_wire(&w);
	EXPECT(77, REPLY, MSG_DENIED, AUTH_ERROR, AUTH_BADVERF);
	w.b[w.len - 5] = 0;
	memset(w.b + w.len - 4, 0xff, 4);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_DENIED, AUTH_ERROR, AUTH_BADVERF);
	wire_free(&w);
}

Test(rpc, auth_none_is_enough_for_procedure_zero_and_where_the_program_says_so)
{
	struct wire w = { 0 };

	call_with(&w, FIX_PROG, FIX_VERS, 0, AUTH_NONE, "", 0);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, SUCCESS);
	call_with(&w, FIX_PROG, FIX_VERS - 2, 0, AUTH_NONE, "", 0);
	run_wire(&w);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, SUCCESS);
	cr_assert_eq(f.runs, 2);
	wire_free(&w);
}

Test(rpc, auth_sys_is_handed_over)
{
	struct wire w = { 0 };
	const struct tp_cred *cred;

	wire_call(&w, 0xabcdef01, FIX_VERS, FIX_HOLD);
	run_wire(&w);
	cr_assert_eq(f.nheld, 1);
	cred = &f.held[0]->cred;
	cr_assert_eq(cred->flavor, AUTH_SYS);
	cr_assert(cred->uid == 7 && cred->gid == 8 && cred->ngids == 2 && cred->gids[0] == 9 &&
	          cred->gids[1] == 10);
	cr_assert_eq(f.held[0]->xid, 0xabcdef01);
	cr_assert_eq(f.held[0]->prog, FIX_PROG);
	cr_assert_eq(f.held[0]->vers, FIX_VERS);
	cr_assert_eq(f.held[0]->proc, FIX_HOLD);
	cr_assert_eq(f.held[0]->kind, TP_FABRIC_MSG);
	tp_drop(f.held[0]);
	cr_assert_eq(nc->ndrop, 1);
	wire_free(&w);
}

Test(rpc, a_call_cut_at_any_byte_is_refused_or_closes_the_connection)
{
	struct wire w = { 0 };

	wire_put(&w, 77, 0, PUT_NOW, "", 0);
	for (size_t len = 0; len < w.len; len++) {
		unsigned before = nc->nreply;
		int r = run_bytes(w.b, len, 0);

		cr_assert_eq(tp_service_calls(f.svc), 0);
		if (len < w.len - 12) { /* the header itself is cut */
			cr_assert_eq(r, -EBADMSG, "cut at %zu", len);
			cr_assert_eq(nc->nreply, before);
		} else {
			cr_assert_eq(r, 0);
			EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, GARBAGE_ARGS);
		}
	}
	cr_assert_eq(f.runs, 0);
	w.b[7] = REPLY;
	cr_assert_eq(run_wire(&w), -EBADMSG);
	wire_free(&w);
}

Test(rpc, scanning_asks_for_exactly_what_a_head_needs)
{
	struct wire w = { 0 };
	struct rpc_head h;
	size_t head;

	wire_put(&w, 77, 1, PUT_NOW, "0123456789", 10);
	head = w.len - 12;
	for (size_t have = 0; have <= w.len; have++) {
		uint8_t *exact = malloc(have ? have : 1);

		memcpy(exact, w.b, have);
		rpc_head_scan(f.svc, exact, have, &h);
		free(exact);
		if (have < head) {
			cr_assert_eq(h.kind, RPC_HEAD_MORE, "%zu", have);
			cr_assert(h.len > have && h.len <= head, "at %zu wants %zu of %zu", have,
			          h.len, head);
		} else {
			cr_assert_eq(h.kind, RPC_HEAD_PAYLOAD);
			cr_assert_eq(h.len, head);
			cr_assert_eq(h.payload_len, 10);
		}
	}
	w.b[7] = 2;
	rpc_head_scan(f.svc, w.b, w.len, &h);
	cr_assert_eq(h.kind, RPC_HEAD_BAD);
	w.len = 0;
	wire_call(&w, 77, FIX_VERS, FIX_NULL);
	rpc_head_scan(f.svc, w.b, w.len, &h);
	cr_assert_eq(h.kind, RPC_HEAD_WHOLE);
	memset(w.b + 28, 0xff, 4); /* a credential of 4 GiB is not waited for */
	rpc_head_scan(f.svc, w.b, 40, &h);
	cr_assert_eq(h.kind, RPC_HEAD_WHOLE);
	wire_free(&w);
}

Test(rpc, payload_is_bounded_by_the_service_and_by_what_came)
{
	static const struct {
		uint32_t len;
		size_t have;
		bool good;
	} t[] = {
		{ 65536, 65536, true },     { 65536, SIZE_MAX, true },
		{ 65537, SIZE_MAX, false }, { 0xffffffff, SIZE_MAX, false },
		{ 100, 99, false },         { 0, 0, true },
	};

	for (unsigned i = 0; i < 6; i++) {
		struct wire w = { 0 };
		unsigned placed = f.placed;

		wire_put(&w, 77, 0, PUT_NOW, "", 0);
		memcpy(w.b + w.len - 4, &(uint32_t){ htonl(t[i].len) }, 4);
		cr_assert_eq(run_bytes(w.b, w.len, t[i].have), 0);
		cr_assert_eq(wire_at(nc->reply + 20), t[i].good ? SUCCESS : GARBAGE_ARGS, "case %u",
		             i);
		cr_assert_eq(f.placed - placed, t[i].good);
		wire_free(&w);
	}
}

static struct tp_call *held_put(uint32_t len)
{
	struct wire w = { 0 };

	wire_put(&w, 77, 0, PUT_HOLD, "", 0);
	memcpy(w.b + w.len - 4, &(uint32_t){ htonl(len) }, 4);
	cr_assert_eq(run_bytes(w.b, w.len, SIZE_MAX), 0);
	wire_free(&w);
	return f.held[f.nheld - 1];
}

Test(rpc, a_connection_that_dies_while_placing_tells_once)
{
	struct tp_call *call;

	nc->async = true;
	call = held_put(20000);
	fix_place(&f, call);
	cr_assert_eq(nc->nplace, 1);
	cr_assert_eq(f.placed, 0);
	cr_assert_eq(nc->at->niov, 5, "20000 bytes in pieces of 4093");
	nc->conn.refs++; /* to look at it afterwards */
	notes_close(&nc->conn);
	cr_assert_eq(f.placed, 1);
	cr_assert_eq(f.place_err, -ECONNRESET);
	cr_assert_eq(nc->nreply, 0);
	cr_assert_eq(nc->ndrop, 1);
	rpc_conn_put(&nc->conn);
}

static void note_err(void *arg, int err)
{
	*(int *)arg = err;
}

Test(rpc, calls_outlive_their_connection)
{
	struct iovec seg = { f.mem, 8 };
	struct tp_call *call[6];
	int heard = 0;

	for (unsigned i = 0; i < 6; i++)
		call[i] = held_put(100);
	cr_assert(tp_call_alive(call[0]));
	notes_close(&nc->conn);
	cr_assert_eq(freed, 0, "its calls hold it");
	cr_assert(!tp_call_alive(call[0]));
	fix_place(&f, call[0]);
	cr_assert_eq(f.placed, 1);
	cr_assert_eq(f.place_err, -ECONNRESET);
	fix_answer(call[1], 3);
	tp_drop(call[2]);
	tp_reply_auth_error(call[3], AUTH_TOOWEAK);
	cr_assert_eq(freed, 0);
	cr_assert_gt(tp_reply_room(call[4]), 0);
	tp_reply_error(call[4], SYSTEM_ERR);
	cr_assert_not_null(tp_reply_begin(call[5], 8));
	tp_reply_end_payload(call[5], &seg, 1, 8, note_err, &heard);
	cr_assert_eq(heard, -ECONNRESET);
	cr_assert_eq(freed, 1);
}

Test(rpc, segments_of_an_unsent_reply_come_back_with_an_error)
{
	struct wire w = { 0 };

	nc->async = true;
	wire_get(&w, 77, 5, 1000);
	run_wire(&w);
	cr_assert_eq(nc->nreply, 1);
	cr_assert_eq(f.sent, 0);
	free(((struct notes_call *)nc->at->priv)->buf);
	notes_close(&nc->conn);
	cr_assert_eq(f.sent, 1);
	cr_assert_eq(f.sent_err, -ECONNRESET);
	wire_free(&w);
}

Test(rpc, payload_results_carry_their_length_word)
{
	struct wire w = { 0 };

	fill(f.mem, 100, 4);
	wire_get(&w, 77, 5, 7);
	run_wire(&w);
	cr_assert_eq(nc->reply_len, 24 + 4 + 4 + 7);
	cr_assert_eq(wire_at(nc->reply + 24), 5);
	cr_assert_eq(wire_at(nc->reply + 28), 7);
	cr_assert(!memcmp(nc->reply + 32, f.mem + 5, 7));
	cr_assert_eq(f.sent, 1);
	wire_free(&w);
}

Test(rpc, an_error_may_replace_results_that_were_begun)
{
	struct tp_call *call = held_put(0);
	XDR *x = tp_reply_begin(call, 100);
	uint32_t junk = 0xdeadbeef;

	for (unsigned i = 0; i < 20; i++)
		xdr_u_int32_t(x, &junk);
	tp_reply_error(call, SYSTEM_ERR);
	EXPECT(77, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, SYSTEM_ERR);
}

Test(rpc, results_end_where_the_client_s_room_ends)
{
	struct tp_call *call = held_put(0);
	uint32_t word = 1;
	unsigned n = 0;
	XDR *x;

	nc->room = 24 + 4 + 100;
	cr_assert_eq(tp_reply_room(call), 100);
	x = tp_reply_begin(call, 100000);
	while (xdr_u_int32_t(x, &word))
		n++;
	cr_assert(n == 25 || n == 26, "%u words", n); /* and the length word of a payload */
	tp_reply_end(call);
	nc->room = 3;
	call = held_put(0);
	cr_assert_eq(tp_reply_room(call), 0);
	tp_reply_error(call, SYSTEM_ERR);
}

Test(rpc, no_memory_for_a_reply_drops_the_call)
{
	struct tp_call *call = held_put(0);

	nc->no_memory = true;
	cr_assert_null(tp_reply_begin(call, 8));
	cr_assert_eq(nc->ndrop, 1);
	cr_assert_eq(tp_service_calls(f.svc), 0);
	call = held_put(0);
	tp_reply_error(call, SYSTEM_ERR);
	cr_assert_eq(nc->ndrop, 2);
}

Test(rpc, statistics_count_each_procedure)
{
	const struct tp_stats *st = tp_service_stats(f.svc);
	unsigned null = tp_stats_index(f.svc, FIX_PROG, FIX_VERS, FIX_NULL);
	unsigned gap = tp_stats_index(f.svc, FIX_PROG, FIX_VERS, FIX_GAP);
	unsigned old = tp_stats_index(f.svc, FIX_PROG, FIX_VERS - 2, 0);
	struct wire w = { 0 };
	uint64_t hist = 0;

	cr_assert_eq(tp_stats_index(f.svc, 0, 0, 0), FIX_PROCS + 1);
	cr_assert(null == 0 && gap == FIX_GAP && old == FIX_PROCS);
	wire_call(&w, 1, FIX_VERS, FIX_NULL);
	for (unsigned i = 0; i < 3; i++)
		run_wire(&w);
	w.len = 0;
	wire_call(&w, 1, FIX_VERS, FIX_GAP);
	run_wire(&w);
	cr_assert_eq(st->proc[TP_FABRIC_MSG][null].calls, 3);
	cr_assert_eq(st->proc[TP_FABRIC_MSG][null].errors, 0);
	cr_assert_eq(st->proc[TP_FABRIC_MSG][gap].errors, 1);
	cr_assert_eq(st->proc[TP_TCP][null].calls, 0);
	for (unsigned i = 0; i < TP_HIST; i++)
		hist += st->proc[TP_FABRIC_MSG][null].hist[i];
	cr_assert_eq(hist, 3);
	cr_assert_eq(st->conns, 1);
	cr_assert_eq(st->calls_now, 0);
	wire_free(&w);
}

static void count_line(void *lines, int priority, const char *text)
{
	unsigned *n = lines;

	n[0]++;
	n[1] += priority == LOG_ERR;
	n[2] += strstr(text, "100 more lines") != NULL;
}

Test(rpc, peers_do_not_fill_the_log)
{
	unsigned n[3] = { 0 };
	struct fix own;

	fix_service(&own, &(struct tp_service_opts){ .log = count_line, .log_arg = n });
	for (unsigned i = 0; i < 160; i++)
		rpc_log(own.svc, LOG_NOTICE, "connection %u refused", i);
	cr_assert_eq(n[0], 60);
	rpc_log(own.svc, LOG_ERR, "the queue is gone");
	cr_assert_eq(n[1], 1, "errors are told");
	own.svc->log_since -= 60;
	for (unsigned i = 0; i < 160; i++)
		rpc_log(own.svc, LOG_NOTICE, "connection %u refused", i);
	cr_assert(n[0] == 60 + 1 + 1 + 60 && n[2] == 1, "%u, %u", n[0], n[2]);
	fix_free(&own);
}

Test(rpc, copying_in_crosses_segments)
{
	uint8_t to[3][8] = { { 0 } }, from[20];
	struct iovec iov[] = { { to[0], 3 }, { to[1], 0 }, { to[1], 8 }, { to[2], 5 } };

	fill(from, sizeof(from), 9);
	for (size_t at = 0; at <= 16; at++) {
		uint8_t flat[16];

		memset(to, 0, sizeof(to));
		rpc_copy_in(f.svc, iov, 4, at, from, 16 - at);
		memcpy(flat, to[0], 3);
		memcpy(flat + 3, to[1], 8);
		memcpy(flat + 11, to[2], 5);
		cr_assert(!memcmp(flat + at, from, 16 - at), "from %zu", at);
		cr_assert_eq(to[0][3], 0);
	}
}

Test(rpc, thousands_of_calls_reuse_cleared_objects)
{
	struct wire w = { 0 };

	wire_put(&w, 77, 0, PUT_NOW, "", 0);
	wire_bytes(&w, "", 0);
	for (unsigned i = 0; i < 5000; i++)
		cr_assert_eq(run_bytes(w.b, w.len, 0),
		             0); /* the program and the transport look at their parts */
	for (unsigned i = 0; i < FIX_HELD; i++)
		held_put(i);
	for (unsigned i = FIX_HELD; i-- > 0;)
		tp_drop(f.held[i]);
	cr_assert_eq(f.placed, 5000);
	wire_free(&w);
}
