/* SPDX-License-Identifier: BSD-3-Clause */
/* Record marking over TCP: what a peer that lies, stalls or wants too much costs, and whom: its own connection, and only that. */
#include "test/lib/sockfix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(socket_hostile, .init = sockfix_start, .fini = sockfix_stop, .timeout = 60);

Test(socket_hostile, endless_empty_fragments_end_the_connection)
{
	static const uint8_t zeros[4096];
	int fd = peer_connect(&f);

	peer_send(&f, fd, zeros, sizeof(zeros));
	cr_assert(peer_closed(&f, fd));
	cr_assert_eq(tp_service_stats(f.svc)->bad_records, 1);
	close(fd);
}

Test(socket_hostile, hostile_lengths)
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

Test(socket_hostile, a_record_that_is_too_long_ends_the_connection_before_its_call_runs)
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

Test(socket_hostile, every_word_of_a_call_may_be_all_ones)
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

Test(socket_hostile, payload_longer_than_its_record_is_garbage)
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

Test(socket_hostile, a_record_that_ends_inside_its_payload_ends_the_connection)
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

Test(socket_hostile, a_call_without_payload_is_bounded)
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

Test(socket_hostile, a_peer_with_too_many_calls_waits_and_loses_none)
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

Test(socket_hostile, a_stalled_peer_holds_up_nobody)
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

Test(socket_hostile, a_peer_that_takes_no_replies_is_not_read_any_more)
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

Test(socket_hostile, half_sent_calls_and_untaken_replies_have_an_end)
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

Test(socket_hostile, connections_are_bounded)
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

Test(socket_hostile, connections_that_are_only_held_take_nobody_s_place)
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

Test(socket_hostile, no_descriptor_left_does_not_spin_and_passes)
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

Test(socket_hostile, the_last_descriptor_goes_to_who_comes)
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
