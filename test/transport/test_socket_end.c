/* SPDX-License-Identifier: BSD-3-Clause */
/* How TCP connections end and rest: peers that die at any moment, that say nothing, a service that stops; and how they begin. */
#include "test/lib/sockfix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(socket_end, .init = sockfix_start, .fini = sockfix_stop, .timeout = 60);

Test(socket_end, a_peer_that_dies_at_any_byte_costs_nobody_else)
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

Test(socket_end, half_closed_peers_get_their_answers)
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

Test(socket_end, the_peer_dies_while_its_payload_is_placed)
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

Test(socket_end, the_peer_dies_while_the_program_holds_its_calls)
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

Test(socket_end, the_peer_dies_before_its_held_payload_is_placed)
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

Test(socket_end, the_peer_dies_with_replies_unsent)
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

Test(socket_end, a_peer_that_resets_amid_held_calls_does_not_spin)
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

Test(socket_end, idle_connections_wake_nobody)
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

Test(socket_end, stop_answers_what_is_in_progress_and_reads_no_more)
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

Test(socket_end, binding_names_the_thing_and_the_cure)
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
