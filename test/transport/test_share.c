/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_share.c - chunks in memory that an shm client and the server have both mapped: payload, long calls and long replies
 * pass through it without RMA, and what is not quite in it costs the connection
 */
#include <criterion/criterion.h>
#include <string.h>

#include "test/lib/fabsrv.h"

static void with_shm(void (*test)(struct fabsrv *s, struct fpeer *p))
{
	struct fabsrv s;
	struct fpeer p;

	fabsrv_start(&s, "shm", 0);
	cr_assert_eq(peer_open(&p, "shm"), 0);
	cr_assert(p.rdv.shared && p.rdv.shared_len >= 4096, "the server shares nothing");
	test(&s, &p);
	fpeer_close(&p);
	fabsrv_stop(&s);
}

static struct rr_seg shared(uint64_t off, size_t len)
{
	return (struct rr_seg){ .handle = RDV_SHARED, .offset = off, .length = (uint32_t)len };
}

/* A call of WRITE whose payload is in the @n segments @rs. */
static void send_write(struct fpeer *p, uint32_t xid, size_t len, const struct rr_seg *rs, unsigned n)
{
	struct rr_header h = { .xid = xid, .nreads = 1 };
	uint8_t b[64];
	size_t at = put_word(b, put_word(b, put_call(b, xid, P_WRITE), 0), (uint32_t)len);

	h.read[0] = (struct rr_chunk){ .position = (uint32_t)at, .n = (uint16_t)n };
	send_msg(p, &h, rs, b, at);
}

static void expect_written(struct fpeer *p, uint32_t xid, size_t n)
{
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *msg;
	size_t len;

	expect_reply(p, xid, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, xid);
	cr_assert_eq(rpc_be32(msg + 24), n);
}

static void t_write(struct fabsrv *s, struct fpeer *p)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < 8; i++) {
		size_t n = i % 2 ? 1 + 211 * i : 4096, off = i < 4 ? 77 * i : p->rdv.shared_len - n;
		struct rr_seg rs = shared(off, n);

		fabsrv_fill(p->rdv.shared + off, n, i);
		memset(s->region, 0xee, n + 8);
		send_write(p, 50 + i, n, &rs, 1);
		expect_written(p, 50 + i, n);
		cr_assert_eq(memcmp(s->region, p->rdv.shared + off, n), 0, "write %u of %zu", i, n);
		cr_assert_eq(s->region[n], 0xee, "write %u went beyond its end", i);
		sum += n;
	}
	cr_assert_eq(tp_service_stats(s->svc)->payload_inline_bytes, sum);
	cr_assert_eq(tp_service_stats(s->svc)->payload_placed_bytes, 0);
}

Test(share, payload_is_stored_out_of_shared_memory)
{
	with_shm(t_write);
}

static void t_read(struct fabsrv *s, struct fpeer *p)
{
	struct rr_seg segs[RR_MAX_SEGS], rs = shared(p->rdv.shared_len - 4096, 4096);
	struct rr_header h = { .xid = 9, .nwrites = 1, .write[0].n = 1 };
	const uint8_t *msg;
	uint8_t b[64];
	size_t len, at = put_call(b, 9, P_READ), n = 4001;

	fabsrv_fill(s->region, 8192, 5);
	memset(p->rdv.shared, 0xee, p->rdv.shared_len);
	at = put_word(b, at, 100);
	at = put_word(b, at, (uint32_t)n);
	send_msg(p, &h, &rs, b, at);
	h = expect_reply(p, 9, RR_MSG, segs, &msg, &len);
	expect_success(msg, len, 9);
	cr_assert_eq(h.nwrites, 1);
	cr_assert_eq(segs[h.write[0].first].length, n);
	cr_assert_eq(memcmp(p->rdv.shared + rs.offset, s->region + 100, n), 0);
	cr_assert_eq(p->rdv.shared[rs.offset - 1], 0xee);
	cr_assert_eq(p->rdv.shared[rs.offset + n], 0xee);
	cr_assert_eq(tp_service_stats(s->svc)->payload_placed_bytes, 0);
}

Test(share, payload_is_copied_into_shared_memory)
{
	with_shm(t_read);
}

/* The whole call there, longer than what the server pulls at first to see what it is. */
static void t_long(struct fabsrv *s, struct fpeer *p)
{
	struct rr_header h = { .xid = 33, .proc = RR_NOMSG, .nreads = 1 };
	uint8_t *m = p->rdv.shared + 40;
	size_t n = 3001, at = put_word(m, put_word(m, put_call(m, 33, P_WRITE), 10), (uint32_t)n);
	struct rr_seg rs = shared(40, at + n);

	fabsrv_fill(m + at, n, 8);
	h.read[0] = (struct rr_chunk){ .n = 1 };
	send_msg(p, &h, &rs, NULL, 0);
	expect_written(p, 33, n);
	cr_assert_eq(memcmp(s->region + 10, m + at, n), 0);
}

Test(share, a_long_call_is_taken_out_of_shared_memory)
{
	with_shm(t_long);
}

static void lost(struct fabsrv *s, struct fpeer *p, const struct rr_seg *rs, unsigned n)
{
	struct fpeer q;

	memset(s->region, 0xee, 8192);
	cr_assert_eq(peer_open(&q, "shm"), 0);
	send_write(&q, 70, 4096, rs, n);
	cr_assert(fpeer_soon(&q, fpeer_is_down), "the connection lives");
	fpeer_close(&q);
	for (unsigned i = 0; i < 8192; i++)
		cr_assert_eq(s->region[i], 0xee);
	ping(p, 71);
}

static void t_outside(struct fabsrv *s, struct fpeer *p)
{
	size_t end = p->rdv.shared_len;
	const struct rr_seg bad[] = { shared(end - 4095, 4096), shared(end, 4096), shared(end + 4096, 4096),
				      shared(UINT64_MAX - 4096, 4096) };
	const struct rr_seg two[] = { shared(0, 2048), shared(2048, 2048) };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		lost(s, p, &bad[i], 1);
	lost(s, p, two, 2);
}

Test(share, what_is_outside_costs_the_connection)
{
	with_shm(t_outside);
}
