/* SPDX-License-Identifier: BSD-3-Clause */
/* test_fabric_header.c - headers that are wrong, and credits, from a requester that says what it likes */
#include <criterion/criterion.h>
#include <string.h>

#include "test/lib/fabsrv.h"

static void t_versions(struct fabsrv *s, struct fpeer *p)
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

static void t_bad_chunks(struct fabsrv *s, struct fpeer *p)
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

static void t_ignored(struct fabsrv *s, struct fpeer *p)
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

static void t_garbage(struct fabsrv *s, struct fpeer *p)
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

static void t_short(struct fabsrv *s, struct fpeer *p)
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

static void t_credits(struct fabsrv *s, struct fpeer *p)
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
