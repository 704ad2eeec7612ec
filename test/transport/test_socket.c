/* SPDX-License-Identifier: BSD-3-Clause */
/* Record marking over TCP: whatever the peer does to its own connection, and only to its own. */
#include "test/lib/rpcfix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HDR = 24, MIB = 1 << 20 };

static struct fix f;
static uint8_t *data;

static void setup(void)
{
	fix_service(&f, NULL);
	fix_listen(&f);
	data = malloc(MIB);
	fill(data, MIB, 1);
}

static void teardown(void)
{
	cr_expect_eq(tp_service_stats(f.svc)->payload_copied_bytes, 0);
	fix_free(&f);
	free(data);
}

TestSuite(socket, .init = setup, .fini = teardown, .timeout = 60);

/* The next reply is a SUCCESS for @xid with the word @v. */
static void expect_word(int fd, uint32_t xid, uint32_t v)
{
	struct wire r = { 0 };

	cr_assert(peer_reply(&f, fd, &r), "no reply to %u", xid);
	cr_assert_eq(r.len, HDR + 4);
	cr_assert_eq(wire_at(r.b), xid, "%u is answered, not %u", wire_at(r.b), xid);
	cr_assert_eq(wire_at(r.b + 20), SUCCESS);
	cr_assert_eq(wire_at(r.b + HDR), v);
	wire_free(&r);
}

static void expect_stat(int fd, uint32_t xid, enum accept_stat stat)
{
	struct wire r = { 0 };

	cr_assert(peer_reply(&f, fd, &r));
	cr_assert_eq(wire_at(r.b), xid);
	cr_assert_eq(wire_at(r.b + 8), MSG_ACCEPTED);
	cr_assert_eq(wire_at(r.b + 20), (uint32_t)stat);
	wire_free(&r);
}

static void null_call(struct wire *w, uint32_t xid)
{
	struct wire m = { 0 };

	wire_call(&m, xid, FIX_VERS, FIX_NULL);
	wire_record(w, &m);
	wire_free(&m);
}

/* The connection works. */
static void expect_alive(int fd)
{
	struct wire w = { 0 };

	null_call(&w, 0xa11e);
	peer_send(&f, fd, w.b, w.len);
	expect_stat(fd, 0xa11e, SUCCESS);
	wire_free(&w);
}

static void send_put(int fd, uint32_t xid, uint32_t off, uint32_t mode, uint32_t len)
{
	struct wire m = { 0 }, w = { 0 };

	wire_put(&m, xid, off, mode, data, len);
	wire_record(&w, &m);
	peer_send(&f, fd, w.b, w.len);
	wire_free(&m);
	wire_free(&w);
}

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

Test(socket, endless_empty_fragments_end_the_connection)
{
	static const uint8_t zeros[4096];
	int fd = peer_connect(&f);

	peer_send(&f, fd, zeros, sizeof(zeros));
	cr_assert(peer_closed(&f, fd));
	cr_assert_eq(tp_service_stats(f.svc)->bad_records, 1);
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

Test(socket, a_peer_that_dies_at_any_byte_costs_nobody_else)
{
	struct wire m = { 0 }, w = { 0 };
	int other = peer_connect(&f);

	wire_put(&m, 5, 0, PUT_NOW, data, 1100);
	wire_record(&w, &m);
	for (size_t cut = 0; cut < w.len; cut++) {
		struct linger reset = { 1, 0 };
		int fd = peer_connect(&f);

		peer_send(&f, fd, w.b, cut);
		if (cut & 1)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
		fix_turn(&f);
		fix_turn(&f);
		cr_assert_eq(tp_service_calls(f.svc), 0, "cut at %zu", cut);
		cr_assert_eq(tp_service_stats(f.svc)->conns, 1, "cut at %zu", cut);
	}
	cr_assert_eq(f.place_err, -ECONNRESET);
	expect_alive(other);
	wire_free(&m);
	wire_free(&w);
	close(other);
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

static void send_holds(int fd, uint32_t n)
{
	struct wire w = { 0 }, m = { 0 };

	for (uint32_t i = 0; i < n; i++) {
		m.len = 0;
		wire_call(&m, i, FIX_VERS, FIX_HOLD);
		wire_record(&w, &m);
	}
	peer_send(&f, fd, w.b, w.len);
	wire_free(&w);
	wire_free(&m);
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

Test(socket, a_peer_with_too_many_calls_waits_and_loses_none)
{
	int fd = peer_connect(&f);
	uint32_t answered = 0;

	send_holds(fd, 200);
	cr_assert_eq(f.nheld, 64);
	while (answered < 200) {
		unsigned n = f.nheld;

		cr_assert_lt(answered, n);
		for (; answered < n; answered++)
			fix_answer(f.held[answered], answered);
		fix_turn(&f);
		cr_assert_leq(f.nheld - answered, 64);
	}
	for (uint32_t i = 0; i < 200; i++)
		expect_word(fd, i, i);
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

Test(socket, a_stalled_peer_holds_up_nobody)
{
	struct wire m = { 0 }, w = { 0 };
	int slow[4], fd = peer_connect(&f);
	static const size_t stop[4] = { 2, 50, 132, 100000 };

	wire_put(&m, 5, 0, PUT_NOW, data, 200000);
	wire_record(&w, &m);
	for (unsigned i = 0; i < 4; i++) {
		slow[i] = peer_connect(&f);
		peer_send(&f, slow[i], w.b, stop[i]);
	}
	for (unsigned i = 0; i < 20; i++)
		expect_alive(fd);
	for (unsigned i = 0; i < 4; i++) {
		peer_send(&f, slow[i], w.b + stop[i], w.len - stop[i]);
		expect_word(slow[i], 5, 200000);
		close(slow[i]);
	}
	wire_free(&m);
	wire_free(&w);
	close(fd);
}

Test(socket, a_peer_that_takes_no_replies_is_not_read_any_more)
{
	int fd = peer_connect(&f), other = peer_connect(&f);
	struct wire m = { 0 }, w = { 0 }, r = { 0 };

	fill(f.mem, MIB, 3);
	for (uint32_t i = 0; i < 60; i++) {
		m.len = 0;
		wire_get(&m, i, 0, MIB);
		wire_record(&w, &m);
	}
	peer_send(&f, fd, w.b, w.len);
	cr_assert_lt(f.runs, 30, "%u calls were begun for a peer that takes no replies", f.runs);
	expect_alive(other);
	for (uint32_t i = 0; i < 60; i++) {
		cr_assert(peer_reply(&f, fd, &r));
		cr_assert_eq(wire_at(r.b), i);
		cr_assert(!memcmp(r.b + HDR + 8, f.mem, MIB));
	}
	cr_assert_eq(f.sent, 60);
	wire_free(&m);
	wire_free(&w);
	wire_free(&r);
	close(fd);
	close(other);
}

Test(socket, half_closed_peers_get_their_answers)
{
	int fd = peer_connect(&f);

	send_holds(fd, 3);
	send_put(fd, 3, 0, PUT_NOW, 5000);
	shutdown(fd, SHUT_WR);
	fix_turn(&f);
	expect_word(fd, 3, 5000);
	cr_assert(peer_quiet(&f, fd));
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert(tp_call_alive(f.held[i]));
		fix_answer(f.held[i], i);
		expect_word(fd, i, i);
	}
	cr_assert(peer_closed(&f, fd));
	cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
	close(fd);
}

static void kill_peer(int fd)
{
	struct linger reset = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	fix_turn(&f);
}

Test(socket, the_peer_dies_while_its_payload_is_placed)
{
	for (unsigned reset = 0; reset < 2; reset++) {
		struct wire m = { 0 }, w = { 0 };
		int fd = peer_connect(&f);

		wire_put(&m, 5, 0, PUT_NOW, data, 100000);
		wire_record(&w, &m);
		f.placed = 0;
		f.place_err = 0;
		peer_send(&f, fd, w.b, 50000);
		cr_assert_eq(f.placed, 0);
		if (reset)
			kill_peer(fd);
		else
			close(fd);
		fix_turn(&f);
		cr_assert_eq(f.placed, 1);
		cr_assert_eq(f.place_err, -ECONNRESET);
		cr_assert_eq(tp_service_calls(f.svc), 0);
		cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
		wire_free(&m);
		wire_free(&w);
	}
}

Test(socket, the_peer_dies_while_the_program_holds_its_calls)
{
	int fd = peer_connect(&f), other = peer_connect(&f);

	send_holds(fd, 5);
	cr_assert(tp_call_alive(f.held[0]));
	kill_peer(fd);
	cr_assert(!tp_call_alive(f.held[0]));
	cr_assert_eq(tp_service_stats(f.svc)->conns, 1);
	cr_assert_eq(tp_service_calls(f.svc), 5);
	for (unsigned i = 0; i < 3; i++)
		fix_answer(f.held[i], i);
	tp_drop(f.held[3]);
	tp_reply_error(f.held[4], SYSTEM_ERR);
	cr_assert_eq(tp_service_calls(f.svc), 0);
	expect_alive(other);
	close(other);
}

Test(socket, the_peer_dies_before_its_held_payload_is_placed)
{
	static const uint32_t len[] = { 100, 2000, 100000 };

	for (unsigned i = 0; i < 3; i++) {
		int fd = peer_connect(&f);

		send_put(fd, 1, 0, PUT_HOLD, len[i]);
		kill_peer(fd);
		f.placed = 0;
		fix_place(&f, f.held[i]);
		fix_turn(&f);
		cr_assert_eq(f.placed, 1);
		cr_assert_eq(tp_service_calls(f.svc), 0);
		cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
	}
}

Test(socket, the_peer_dies_with_replies_unsent)
{
	int fd = peer_connect(&f);
	struct wire m = { 0 }, w = { 0 };

	for (uint32_t i = 0; i < 10; i++) {
		m.len = 0;
		wire_get(&m, i, 0, MIB);
		wire_record(&w, &m);
	}
	peer_send(&f, fd, w.b, w.len);
	kill_peer(fd);
	fix_turn(&f);
	cr_assert_eq(f.sent, f.runs, "segments are given back once each");
	cr_assert_eq(f.sent_err, -ECONNRESET);
	cr_assert_eq(tp_service_calls(f.svc), 0);
	wire_free(&m);
	wire_free(&w);
}

Test(socket, hostile_lengths)
{
	static const uint32_t marks[] = { 0xffffffff, 0x7fffffff, 0x80000000,
		                          0x80000001, 0x80200000, 0x40000000 };
	int other = peer_connect(&f);

	for (unsigned i = 0; i < 6; i++) {
		int fd = peer_connect(&f);
		struct wire w = { 0 };

		wire_u32(&w, marks[i]);
		wire_u32(&w, 1);
		wire_u32(&w, 2);
		peer_send(&f, fd, w.b, w.len);
		cr_assert(peer_closed(&f, fd), "mark %08x", marks[i]);
		expect_alive(other);
		wire_free(&w);
		close(fd);
	}
	cr_assert_eq(tp_service_calls(f.svc), 0);
	close(other);
}

Test(socket, a_record_that_is_too_long_ends_the_connection_before_its_call_runs)
{
	static const uint32_t marks[] = { 0x80000000u + MIB + 32768 + 4, 0xffffffff, 0x7fffffff };

	for (unsigned i = 0; i < 3; i++) {
		struct wire m = { 0 }, w = { 0 };
		int fd = peer_connect(&f);

		wire_put(&m, 5, 0, PUT_NOW, data, 2000);
		wire_u32(&w, marks[i]);
		wire_bytes(&w, m.b, m.len);
		peer_send(&f, fd, w.b, w.len);
		cr_assert(peer_closed(&f, fd));
		cr_assert_eq(f.runs, 0);
		cr_assert_eq(tp_service_stats(f.svc)->bad_records, i + 1);
		wire_free(&m);
		wire_free(&w);
		close(fd);
	}
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

Test(socket, every_word_of_a_call_may_be_all_ones)
{
	struct wire m = { 0 }, w = { 0 };
	int other = peer_connect(&f);

	wire_put(&m, 5, 0, PUT_NOW, data, 1200);
	wire_record(&w, &m);
	for (size_t at = 0; at < 140; at += 4) {
		uint8_t keep[4];
		int fd = peer_connect(&f);

		memcpy(keep, w.b + at, 4);
		memset(w.b + at, 0xff, 4);
		if (at == 92) /* PUT's offset: the test program itself believes it */
			memset(w.b + at, 0, 4);
		peer_send(&f, fd, w.b, w.len);
		close(fd);
		fix_turn(&f);
		memcpy(w.b + at, keep, 4);
		expect_alive(other);
		cr_assert_eq(tp_service_calls(f.svc), 0);
	}
	wire_free(&m);
	wire_free(&w);
	close(other);
}

Test(socket, payload_longer_than_its_record_is_garbage)
{
	static const uint32_t claim[] = { 1201, 65536, MIB, MIB + 1, 0xffffffff, 0x80000000 };
	int fd = peer_connect(&f);

	for (unsigned i = 0; i < 6; i++) {
		struct wire m = { 0 }, w = { 0 };
		uint32_t be = htonl(claim[i]);

		wire_put(&m, i, 0, PUT_NOW, data, 1200);
		memcpy(m.b + m.len - 1204, &be, 4);
		wire_record(&w, &m);
		peer_send(&f, fd, w.b, w.len);
		expect_stat(fd, i, GARBAGE_ARGS);
		expect_alive(fd);
		wire_free(&m);
		wire_free(&w);
	}
	cr_assert_eq(f.placed, 0);
	close(fd);
}

Test(socket, a_record_that_ends_inside_its_payload_ends_the_connection)
{
	struct wire m = { 0 }, w = { 0 };
	int fd = peer_connect(&f);

	wire_put(&m, 5, 0, PUT_NOW, data, 4000);
	wire_u32(&w, 2000); /* more is to come, says the first fragment */
	wire_bytes(&w, m.b, 2000);
	wire_u32(&w, 0x80000000u | 10);
	wire_bytes(&w, m.b, 10);
	peer_send(&f, fd, w.b, w.len);
	cr_assert(peer_closed(&f, fd));
	cr_assert_eq(f.placed, 1);
	cr_assert_eq(f.place_err, -ECONNRESET);
	wire_free(&m);
	wire_free(&w);
	close(fd);
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

Test(socket, a_call_without_payload_is_bounded)
{
	struct wire m = { 0 }, w = { 0 };
	int fd = peer_connect(&f);

	wire_call(&m, 1, FIX_VERS, FIX_ECHO);
	wire_u32(&m, 40000);
	wire_bytes(&m, data, 40000);
	wire_record(&w, &m);
	peer_send(&f, fd, w.b, w.len);
	cr_assert(peer_closed(&f, fd));
	cr_assert_eq(f.runs, 0);
	cr_assert_eq(tp_service_stats(f.svc)->bad_records, 1);
	wire_free(&m);
	wire_free(&w);
	close(fd);
}

Test(socket, idle_connections_wake_nobody)
{
	unsigned before, after;
	int fd[8];
	ev_timer end;

	for (unsigned i = 0; i < 8; i++) {
		fd[i] = peer_connect(&f);
		expect_alive(fd[i]);
		send_put(fd[i], 1, 0, PUT_NOW, 100000);
		expect_word(fd[i], 1, 100000);
	}
	fix_turn(&f);
	/* With nothing pending the loop sleeps until the timer of the test itself. */
	ev_timer_init(&end, (void (*)(struct ev_loop *, ev_timer *, int))(void *)ev_break, 0.3, 0.);
	ev_timer_start(f.loop, &end);
	ev_now_update(f.loop);
	before = ev_iteration(f.loop);
	ev_run(f.loop, EVRUN_ONCE);
	after = ev_iteration(f.loop);
	cr_assert(!ev_is_active(&end), "something else woke the loop");
	cr_assert_eq(after - before, 1);
	for (unsigned i = 0; i < 8; i++)
		close(fd[i]);
}

Test(socket, a_peer_that_resets_amid_held_calls_does_not_spin)
{
	int fd = peer_connect(&f), full = peer_connect(&f), half = peer_connect(&f);
	ev_timer end;

	send_holds(full, 64); /* not read any more */
	send_holds(half, 1);
	shutdown(half, SHUT_WR);
	send_put(fd, 1, 0, PUT_HOLD, 100000);
	kill_peer(fd);
	kill_peer(full);
	fix_turn(&f);
	ev_timer_init(&end, (void (*)(struct ev_loop *, ev_timer *, int))(void *)ev_break, 0.2, 0.);
	ev_now_update(f.loop);
	ev_timer_start(f.loop, &end);
	ev_run(f.loop, EVRUN_ONCE);
	cr_assert(!ev_is_active(&end), "a dead connection woke the loop");
	for (unsigned i = 0; i < f.nheld; i++)
		tp_drop(f.held[i]);
	fix_turn(&f);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
	close(half);
}

Test(socket, no_descriptor_left_does_not_spin_and_passes)
{
	struct rlimit was, low;
	int spare = dup(0), fd, null;
	ev_timer end;

	getrlimit(RLIMIT_NOFILE, &was);
	low = was;
	low.rlim_cur = (rlim_t)spare + 2;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	setrlimit(RLIMIT_NOFILE, &low);
	while ((null = dup(0)) >= 0)
		;
	struct sockaddr_in sin = { .sin_family = AF_INET,
		                   .sin_port = htons((uint16_t)atoi(f.port)) };
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	fix_turn(&f);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
	ev_timer_init(&end, (void (*)(struct ev_loop *, ev_timer *, int))(void *)ev_break, 0.2, 0.);
	ev_now_update(f.loop);
	ev_timer_start(f.loop, &end);
	ev_run(f.loop, EVRUN_ONCE);
	cr_assert(!ev_is_active(&end), "the listener spins");
	setrlimit(RLIMIT_NOFILE, &was);
	ev_run(f.loop, EVRUN_ONCE); /* the listener's own retry */
	fix_turn(&f);
	expect_alive(fd);
	close(fd);
}

Test(socket, the_last_descriptor_goes_to_who_comes)
{
	int silent = peer_connect(&f), spare = dup(0), fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in sin = { .sin_family = AF_INET,
		                   .sin_port = htons((uint16_t)atoi(f.port)) };
	struct rlimit low = { (rlim_t)spare + 2, (rlim_t)spare + 2 };

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setrlimit(RLIMIT_NOFILE, &low);
	while (dup(0) >= 0)
		;
	cr_assert_eq(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	cr_assert(peer_closed(&f, silent));
	expect_alive(fd);
	cr_assert_eq(tp_service_stats(f.svc)->displaced, 1);
	close(fd);
	close(silent);
}

Test(socket, stop_answers_what_is_in_progress_and_reads_no_more)
{
	int fd = peer_connect(&f), idle = peer_connect(&f), half = peer_connect(&f);
	struct wire m = { 0 }, w = { 0 };

	send_holds(fd, 2);
	wire_put(&m, 5, 0, PUT_NOW, data, 5000);
	wire_record(&w, &m);
	peer_send(&f, half, w.b, 3000); /* being placed: it may be finished */
	tp_service_stop(f.svc);
	fix_turn(&f);
	cr_assert(peer_closed(&f, idle));
	cr_assert_eq(tp_service_calls(f.svc), 3);
	peer_send(&f, half, w.b + 3000, w.len - 3000);
	expect_word(half, 5, 5000);
	cr_assert(peer_closed(&f, half));
	fix_answer(f.held[0], 1);
	fix_answer(f.held[1], 2);
	expect_word(fd, 0, 1);
	expect_word(fd, 1, 2);
	cr_assert(peer_closed(&f, fd));
	cr_assert_eq(tp_service_calls(f.svc), 0);
	wire_free(&m);
	wire_free(&w);
	close(fd);
	close(idle);
	close(half);
}

/* A service of its own, where the default limits are not the ones to test. */
static void again(const struct tp_service_opts *o)
{
	fix_free(&f);
	fix_service(&f, o);
	fix_listen(&f);
}

Test(socket, half_sent_calls_and_untaken_replies_have_an_end)
{
	struct tp_service_opts o = { .idle_timeout = 1 };
	struct wire m = { 0 }, w = { 0 };
	int half, stuck, idle, held;

	again(&o);
	half = peer_connect(&f);
	stuck = peer_connect(&f);
	idle = peer_connect(&f);
	held = peer_connect(&f);
	send_put(held, 1, 0, PUT_HOLD, 100000); /* the program's time, not the peer's */
	wire_put(&m, 5, 0, PUT_NOW, data, 5000);
	wire_record(&w, &m);
	peer_send(&f, half, w.b, 3000);
	for (unsigned i = 0; i < 20; i++) {
		m.len = w.len = 0;
		wire_get(&m, i, 0, MIB);
		wire_record(&w, &m);
		peer_send(&f, stuck, w.b, w.len);
	}
	while (tp_service_stats(f.svc)->timeouts < 2)
		ev_run(f.loop, EVRUN_ONCE);
	cr_assert_eq(f.place_err, -ECONNRESET);
	cr_assert_eq(f.sent, f.runs - 2);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 2);
	expect_alive(idle);
	fix_place(&f, f.held[0]);
	expect_word(held, 1, 100000);
	wire_free(&m);
	wire_free(&w);
	close(half);
	close(stuck);
	close(idle);
	close(held);
}

Test(socket, connections_are_bounded)
{
	struct tp_service_opts o = { .max_conns = 2 };
	int a, b, c;

	again(&o);
	a = peer_connect(&f);
	send_holds(a, 1);
	b = peer_connect(&f);
	send_holds(b, 1);
	c = peer_connect(&f);
	cr_assert(peer_closed(&f, c), "who waits for his answer gives way to nobody");
	fix_answer(f.held[0], 1);
	fix_answer(f.held[1], 2);
	expect_word(a, 0, 1);
	expect_word(b, 0, 2);
	close(a);
	close(c);
	fix_turn(&f);
	c = peer_connect(&f);
	expect_alive(c);
	expect_alive(b);
	cr_assert_eq(tp_service_stats(f.svc)->displaced, 0);
	close(b);
	close(c);
}

Test(socket, connections_that_are_only_held_take_nobody_s_place)
{
	struct tp_service_opts o = { .max_conns = 3 };
	int used, silent, half, more[2];

	again(&o);
	used = peer_connect(&f);
	silent = peer_connect(&f);
	half = peer_connect(&f);
	peer_send(&f, half, "\x80\0\0", 3);
	expect_alive(used);
	more[0] = peer_connect(&f);
	cr_assert(peer_closed(&f, silent));
	expect_alive(more[0]);
	more[1] = peer_connect(&f);
	cr_assert(peer_closed(&f, half));
	expect_alive(more[1]);
	expect_alive(used);
	cr_assert_eq(tp_service_stats(f.svc)->displaced, 2);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 3);
	close(used);
	close(silent);
	close(half);
	close(more[0]);
	close(more[1]);
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

Test(socket, binding_names_the_thing_and_the_cure)
{
	struct tp_error why = { "" };
	int fds[4];
	unsigned n;
	char text[128];

	cr_assert_eq(tp_socket_bind("127.0.0.1", f.port, false, fds, 4, &n, &why), -EADDRINUSE);
	cr_assert(strstr(why.text, f.port) && strstr(why.text, "another"), "%s", why.text);
	cr_assert_lt(tp_socket_bind("127.0.0.1", "no such port", false, fds, 4, &n, &why), 0);
	cr_assert_lt(tp_socket_bind("192.0.2.1", "0", false, fds, 4, &n, &why), 0);
	cr_assert(strstr(why.text, "192.0.2.1"));
	tp_listener_describe(f.listener, text, sizeof(text));
	cr_assert(strstr(text, f.port) && strstr(text, "127.0.0.1"), "%s", text);
	cr_assert_eq(tp_socket_bind("127.0.0.1", "0", true, fds, 4, &n, &why), 0);
	cr_assert_eq(n, 1);
	close(fds[0]);
}
