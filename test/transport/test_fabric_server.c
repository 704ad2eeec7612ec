/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fabric_server.c - the responder's side of RPC-over-RDMA: where payload, long calls and long replies go
 *
 * The requester is a few calls of libfabric: it encodes headers with the codec or word by word, and looks at the
 * messages that come back. Each test runs against a server on a thread of its own, mostly once over tcp (FI_EP_MSG) and
 * once over shm (FI_EP_RDM).
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "test/lib/fabsrv.h"

static void t_null(struct fabsrv *s, struct fpeer *p)
{
	(void)s;
	for (uint32_t i = 0; i < 200; i++)
		ping(p, 1000 + i);
}

Test(fabric_server, answers_null_calls)
{
	with_both(t_null);
}

static void t_write(struct fabsrv *s, struct fpeer *p)
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

		fabsrv_fill(p->mem, n + 4, i);
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

static void t_inline_write(struct fabsrv *s, struct fpeer *p)
{
	struct rr_seg segs[4];
	struct rr_header h = { .xid = 7 };
	const uint8_t *msg;
	uint8_t b[1200];
	size_t len, at = put_call(b, 7, P_WRITE);

	at = put_word(b, at, 5);
	at = put_word(b, at, 1001);
	fabsrv_fill(b + at, 1001, 3);
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
static void t_long_write(struct fabsrv *s, struct fpeer *p)
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
			fabsrv_fill(p->mem + MIB, n, i);
			h.read[0] = (struct rr_chunk){ .n = 2 };
			h.read[1] =
				(struct rr_chunk){ .position = (uint32_t)at, .first = 2, .n = 1 };
		} else {
			rs[0] = seg_of(p, 0, 70);
			rs[1] = seg_of(p, 70, 100000);
			rs[2] = seg_of(p, 100070, at + n + 3 - 100070);
			fabsrv_fill(p->mem + at, n, i);
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
static void t_insert(struct fabsrv *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS], rs[2], reply;
	struct rr_header h = { .xid = 31, .nreads = 1, .has_reply = true };
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at, n = 10001;

	(void)s;
	fabsrv_fill(p->mem, n, 9);
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

static void t_read(struct fabsrv *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	fabsrv_fill(s->region, 2 * MIB, 77);
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

static void t_read_elsewhere(struct fabsrv *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS], ws[2];
	struct rr_header h = { .xid = 11 };
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	fabsrv_fill(s->region, MIB, 5);
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

static void t_too_long(struct fabsrv *s, struct fpeer *p)
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
	struct fabsrv s;
	struct fpeer p;
	uint8_t b[64];
	size_t len, at;

	fabsrv_make(&s, "tcp", 0);
	l = container_of(s.listener, struct flistener, base);
	cr_assert_eq(l->opts.read_depth, FAB_DEF_READS);
	l->opts.read_depth = DEPTH;
	pthread_create(&s.thread, NULL, fabsrv_main, &s);
	cr_assert_eq(peer_open(&p, "tcp"), 0);
	fabsrv_fill(p.mem, SEGS * LEN, 5);
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
	pthread_create(&s.thread, NULL, fabsrv_main, &s);
	expect_reply(&p, 1, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 1);
	cr_assert_eq(memcmp(s.region, p.mem, SEGS * LEN), 0);
	fpeer_close(&p);
	fabsrv_stop(&s);
}

/* What the Linux kernel's private data look like behind libfabric: it says 4096, and receives 1024. */
Test(fabric_server, a_peer_that_cannot_read_our_sizes_gets_the_default)
{
	static const uint8_t deaf[] = { 0xab, 0x0e, 0x18, 1, 1, 3, 3, 0, 0, 0 };
	struct rr_header h = { .xid = 21, .has_reply = true, .reply = { .n = 1 } };
	struct rr_seg segs[4], reply;
	struct tp_fabric_opts o;
	const uint8_t *msg;
	struct fabsrv s;
	struct fpeer p;
	uint8_t b[64];
	size_t len, at;

	fabsrv_start(&s, "tcp", 0);
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
	fabsrv_stop(&s);
}

/* As if the provider had been stricter than tcp is: the server is told before it starts. */
static void with_strict(bool local, bool unordered, void (*test)(struct fabsrv *s, struct fpeer *p))
{
	struct fabsrv s;
	struct fpeer p;
	struct flistener *l;

	fabsrv_make(&s, "tcp", 0);
	l = container_of(s.listener, struct flistener, base);
	l->fab->mr_local = local;
	l->fab->saw = !unordered;
	l->fab->deliver = unordered;
	pthread_create(&s.thread, NULL, fabsrv_main, &s);
	cr_assert_eq(peer_open(&p, "tcp"), 0);
	test(&s, &p);
	if (local) {
		ping(&p, 99); /* its own writes complete, and count, behind the reply that they went ahead of */
		cr_assert_gt(tp_service_stats(s.svc)->payload_staged_bytes, MIB);
		cr_assert_eq(tp_service_stats(s.svc)->payload_placed_bytes, 0);
	}
	fpeer_close(&p);
	fabsrv_stop(&s);
}

static void t_staged(struct fabsrv *s, struct fpeer *p)
{
	struct rr_seg segs[4], rs = seg_of(p, 0, MIB), ws = seg_of(p, 2 * MIB, MIB);
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at;

	struct rr_header h = { .xid = 1, .nreads = 1 };

	fabsrv_fill(p->mem, MIB, 1);
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
