/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a turn: what a program has held back of calls that were ready together it does then, once, and the
 * replies leave in the same round of the loop.
 */
#include "test/lib/sockfix.h"

#include <criterion/criterion.h>
#include <ev.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REPLY_BYTES = 4 + HDR + 4, CONNS = 8 };

static unsigned ends, most; /* of turns, and the calls of the fullest one */
static bool stop_at_end;

static void answer_held(void *arg)
{
	struct fix *x = arg;
	unsigned n = x->nheld;

	ends++;
	most = n > most ? n : most;
	x->nheld = 0;
	if (stop_at_end)
		tp_service_stop(x->svc);
	for (unsigned i = 0; i < n; i++)
		fix_answer(x->held[i], 0x600d);
}

static void start(void)
{
	sockfix_start();
	fix_free(&f);
	fix_service(&f, &(struct tp_service_opts){ .turn_end = answer_held });
	fix_listen(&f);
	f.hold_turn = true;
}

TestSuite(turn, .init = start, .fini = sockfix_stop, .timeout = 60);

/* @n calls of @proc in one send. */
static void add_calls(struct wire *w, uint32_t proc, unsigned n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct wire m = { 0 };

		wire_call(&m, i, FIX_VERS, proc);
		wire_record(w, &m);
		wire_free(&m);
	}
}

static void send_wire(int fd, struct wire *w)
{
	cr_assert_eq(send(fd, w->b, w->len, MSG_NOSIGNAL), (ssize_t)w->len);
	wire_free(w);
}

static void hold(int fd, unsigned n)
{
	struct wire w = { 0 };

	add_calls(&w, FIX_HOLD, n);
	send_wire(fd, &w);
}

/* What has arrived, without a further turn. */
static size_t arrived(int fd)
{
	char buf[1 << 16];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	return n > 0 ? (size_t)n : 0;
}

/* How many segments have arrived: a small send is one. */
static unsigned segments(int fd)
{
	struct tcp_info i = { 0 };
	socklen_t len = sizeof(i);

	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len), 0);
	return i.tcpi_data_segs_in;
}

static void one_round(void)
{
	ev_run(f.loop, EVRUN_NOWAIT);
}

Test(turn, one_call_is_answered_in_the_round_it_came_in)
{
	int fd = peer_connect(&f);

	for (unsigned i = 1; i < 4; i++) {
		hold(fd, 1);
		one_round();
		cr_assert_eq(ends, i);
		cr_assert_eq(arrived(fd), REPLY_BYTES);
	}
	close(fd);
}

Test(turn, calls_of_one_connection_share_it)
{
	int fd = peer_connect(&f);

	hold(fd, 16);
	one_round();
	cr_assert_eq(ends, 1);
	cr_assert_eq(most, 16);
	cr_assert_eq(arrived(fd), 16 * REPLY_BYTES);
	cr_assert_eq(segments(fd), 1, "not in one send");
	close(fd);
}

Test(turn, connections_that_are_ready_together_share_it)
{
	int fd[CONNS];

	for (unsigned i = 0; i < CONNS; i++)
		fd[i] = peer_connect(&f);
	for (unsigned i = 0; i < CONNS; i++)
		hold(fd[i], 2);
	one_round();
	cr_assert_eq(ends, 1);
	cr_assert_eq(most, 2 * CONNS);
	for (unsigned i = 0; i < CONNS; i++) {
		cr_assert_eq(arrived(fd[i]), 2 * REPLY_BYTES);
		close(fd[i]);
	}
}

Test(turn, it_ends_when_enough_is_held)
{
	int fd[CONNS];

	f.hold_bytes = 200 << 10; /* two of them */
	for (unsigned i = 0; i < CONNS; i++)
		fd[i] = peer_connect(&f);
	for (unsigned i = 0; i < CONNS; i++)
		hold(fd[i], 1);
	one_round();
	cr_assert_eq(most, 2);
	cr_assert_eq(ends, CONNS / 2);
	for (unsigned i = 0; i < CONNS; i++) {
		cr_assert_eq(arrived(fd[i]), REPLY_BYTES);
		close(fd[i]);
	}
}

/* Of all connections but the last one read the turn goes on behind their own. */
Test(turn, replies_to_other_calls_leave_with_those_held)
{
	int fd[2] = { peer_connect(&f), peer_connect(&f) };

	for (unsigned i = 0; i < 2; i++) {
		struct wire w = { 0 };

		add_calls(&w, FIX_NULL, 1);
		add_calls(&w, FIX_HOLD, 2);
		add_calls(&w, FIX_NULL, 1);
		send_wire(fd[i], &w);
	}
	one_round();
	cr_assert_eq(ends, 1);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(arrived(fd[i]), 2 * REPLY_BYTES + 2 * (4 + HDR));
		cr_assert_eq(segments(fd[i]), 1, "not in one send");
		close(fd[i]);
	}
}

Test(turn, a_service_without_calls_held_does_not_end_turns)
{
	int fd = peer_connect(&f);

	expect_alive(fd);
	cr_assert_eq(ends, 0);
	close(fd);
}

/* As by mail: no transport has a turn then. */
Test(turn, it_ends_in_the_same_round_when_something_is_held_outside_of_one)
{
	tp_want_turn_end(f.svc, 0);
	one_round();
	cr_assert_eq(ends, 1);
	one_round();
	cr_assert_eq(ends, 1);
}

Test(turn, a_connection_breaks_with_calls_held)
{
	int fd[2] = { peer_connect(&f), peer_connect(&f) };
	struct wire w = { 0 };

	for (unsigned i = 0; i < 2; i++) { /* whichever is read first */
		add_calls(&w, FIX_HOLD, 5);
		wire_u32(&w, 0x7fffffff); /* the mark of a record that nobody takes */
		wire_u32(&w, 0);
		send_wire(fd[i], &w);
	}
	one_round();
	cr_assert_eq(most, 10);
	cr_assert_eq(tp_service_calls(f.svc), 0);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
	cr_assert_eq(tp_service_stats(f.svc)->bad_records, 2);
	for (unsigned i = 0; i < 2; i++)
		close(fd[i]);
}

Test(turn, a_peer_that_sends_no_more_gets_its_replies)
{
	int fd = peer_connect(&f), other = peer_connect(&f);

	hold(fd, 3);
	shutdown(fd, SHUT_WR);
	hold(other, 1);
	fix_turn(&f);
	cr_assert_eq(arrived(fd), 3 * REPLY_BYTES);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 1);
	close(fd);
	close(other);
}

Test(turn, a_service_that_stops_answers_what_is_held)
{
	int fd = peer_connect(&f), other = peer_connect(&f);

	stop_at_end = true;
	hold(fd, 3);
	hold(other, 2);
	one_round();
	cr_assert_eq(arrived(fd), 3 * REPLY_BYTES);
	cr_assert_eq(arrived(other), 2 * REPLY_BYTES);
	cr_assert_eq(tp_service_calls(f.svc), 0);
	cr_assert_eq(tp_service_stats(f.svc)->conns, 0);
	close(fd);
	close(other);
}
