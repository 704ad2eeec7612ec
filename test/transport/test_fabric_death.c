/* SPDX-License-Identifier: BSD-3-Clause */
/* test_fabric_death.c - clients killed amid transfers, idle servers, and a provider that does not return */
#include <criterion/criterion.h>
#include <ev.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/lib/fabsrv.h"

/* --- the dead --- */

static bool wait_stat(const uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < 8000; i++) {
		if (__atomic_load_n(counter, __ATOMIC_RELAXED) == value)
			return true;
		poll(NULL, 0, 1);
	}
	return false;
}

static void send_write(struct fpeer *p, uint32_t xid, size_t n, uint32_t key_off)
{
	struct rr_seg rs = seg_of(p, 0, n);
	struct rr_header h = { .xid = xid, .nreads = 1 };
	uint8_t b[64];
	size_t at = put_call(b, xid, P_WRITE);

	rs.handle += key_off;
	at = put_word(b, at, 0);
	at = put_word(b, at, (uint32_t)n);
	h.read[0] = (struct rr_chunk){ .position = (uint32_t)at, .n = 1 };
	send_msg(p, &h, &rs, b, at);
}

/* Gone without a word, with calls in every stage: held by the program, being pulled, being pushed.
 */
static void die_amid(const char *provider)
{
	struct fabsrv s;
	struct fpeer p, q;
	const struct tp_stats *st;

	fabsrv_start(&s, provider, 0);
	st = tp_service_stats(s.svc);
	cr_assert_eq(peer_open(&q, provider), 0);
	for (uint32_t round = 0; round < 4; round++) {
		int go[2], status;
		char c;
		pid_t pid;

		cr_assert_eq(pipe(go), 0);
		pid = fork();
		if (!pid) {
			struct rr_header h = { .xid = 1 };
			struct rr_seg ws;
			uint8_t b[64];
			size_t at;

			if (peer_open(&p, provider))
				_exit(1);
			send_msg(&p, &h, NULL, b, put_call(b, 1, P_HOLD));
			for (uint32_t i = 0; i < 3; i++)
				send_write(&p, 2 + i, MIB, 0);
			ws = seg_of(&p, 0, MIB);
			h = (struct rr_header){ .xid = 9, .nwrites = 1, .write = { { .n = 1 } } };
			at = put_call(b, 9, P_READ);
			at = put_word(b, at, 0);
			at = put_word(b, at, (uint32_t)MIB);
			send_msg(&p, &h, &ws, b, at);
			if (write(go[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		close(go[1]);
		cr_assert_eq(read(go[0], &c, 1), 1);
		close(go[0]);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		cr_assert(WIFSIGNALED(status));
		cr_assert(wait_stat(&st->conns, 1), "%s: %lu connections left", provider,
		          (unsigned long)st->conns);
		ping(&q, round);
	}
	ev_async_send(s.loop, &s.poke); /* the program ends calls of the dead */
	cr_assert(wait_stat(&st->calls_now, 0), "%s: calls left", provider);
	cr_assert_eq(st->provider_resets, 0);
	ping(&q, 99);
	fpeer_close(&q);
	fabsrv_stop(&s);
}

Test(fabric_server, survives_killed_clients_over_tcp)
{
	die_amid("tcp");
}

Test(fabric_server, survives_killed_clients_over_shm)
{
	die_amid("shm");
}

/* A key that is none ends the connection that named it, and no other. */
Test(fabric_server, a_bad_key_costs_its_own_connection)
{
	struct fabsrv s;
	struct fpeer p, q;

	fabsrv_start(&s, "tcp", 0);
	cr_assert_eq(peer_open(&p, "tcp"), 0);
	cr_assert_eq(peer_open(&q, "tcp"), 0);
	send_write(&p, 1, MIB, 1);
	cr_assert(fpeer_soon(&p, fpeer_is_down));
	cr_assert(wait_stat(&tp_service_stats(s.svc)->conns, 1));
	cr_assert(wait_stat(&tp_service_stats(s.svc)->calls_now, 0));
	ping(&q, 2);
	fpeer_close(&p);
	fpeer_close(&q);
	fabsrv_stop(&s);
}

/* The listener goes while the program holds calls: they end later, into the void. */
Test(fabric_server, closes_with_calls_out)
{
	static const char *const names[] = { "tcp", "shm" };

	for (size_t i = 0; i < 2; i++) {
		struct fabsrv s;
		struct fpeer p;
		struct rr_header h = { .xid = 1 };
		uint8_t b[64];

		fabsrv_start(&s, names[i], 0);
		cr_assert_eq(peer_open(&p, names[i]), 0);
		for (uint32_t k = 0; k < 5; k++)
			send_msg(&p, &h, NULL, b, put_call(b, k, P_HOLD));
		for (int k = 0; k < 5000 && __atomic_load_n(&s.nheld, __ATOMIC_ACQUIRE) < 5; k++) {
			fpeer_progress(&p);
			poll(NULL, 0, 1);
		}
		cr_assert_eq(s.nheld, 5);
		fabsrv_stop(&s); /* asserts that nothing is left */
		cr_assert(fpeer_soon(&p, fpeer_is_down));
		fpeer_close(&p);
	}
}

/* --- sleep --- */

static void t_idle(struct fabsrv *s, struct fpeer *p)
{
	struct rr_header h = { .xid = 1 };
	struct rr_seg segs[4];
	const uint8_t *msg;
	uint8_t b[64];
	unsigned before, after;
	size_t len;

	ping(p, 1);
	/* With a call at the program nobody needs the provider either. */
	send_msg(p, &h, NULL, b, put_call(b, 1, P_HOLD));
	for (int k = 0; k < 5000 && !__atomic_load_n(&s->nheld, __ATOMIC_ACQUIRE); k++) {
		fpeer_progress(p);
		poll(NULL, 0, 1);
	}
	poll(NULL, 0, 50);
	before = ev_iteration(s->loop);
	poll(NULL, 0, 300);
	after = ev_iteration(s->loop);
	cr_assert_leq(after - before, 5, "%u turns in a sleep", after - before);
	ev_async_send(s->loop, &s->poke);
	expect_reply(p, 1, RR_MSG, segs, &msg, &len);
	poll(NULL, 0, 50);
	for (uint32_t i = 0; i < 20; i++) { /* and a message wakes it each time */
		ping(p, i);
		poll(NULL, 0, 2);
	}
}

Test(fabric_server, sleeps_when_idle_and_wakes_for_messages)
{
	with_both(t_idle);
}

/* --- the watchdog --- */

static ssize_t hang(struct fid_cq *cq, void *buf, size_t count, fi_addr_t *from)
{
	(void)cq;
	(void)buf;
	(void)count;
	(void)from;
	for (volatile bool ever = true; ever;)
		;
	return 0;
}

Test(fabric_server, leaves_a_provider_that_hangs)
{
	static struct fab
		*volatile lost; /* on purpose: leak checkers find all of it by this pointer */
	struct fabsrv s;
	struct fpeer p, q;
	struct flistener *l;
	struct fi_ops_cq ops;
	struct rr_header h = { .xid = 1 };
	const struct tp_stats *st;
	uint8_t b[64];

	fabsrv_start(&s, "shm", 0);
	st = tp_service_stats(s.svc);
	l = container_of(s.listener, struct flistener, base);
	cr_assert_eq(peer_open(&p, "shm"), 0);
	send_msg(&p, &h, NULL, b, put_call(b, 1, P_HOLD));
	for (int k = 0; k < 5000 && !__atomic_load_n(&s.nheld, __ATOMIC_ACQUIRE); k++) {
		fpeer_progress(&p);
		poll(NULL, 0, 1);
	}
	lost = l->fab;
	ops = *lost->cq->ops;
	ops.readfrom = hang;
	lost->cq->ops = &ops;
	ev_async_send(s.loop, &s.poke);
	cr_assert(wait_stat(&st->provider_resets, 1), "still hanging");
	cr_assert(fpeer_soon(&p, fpeer_is_down));
	fpeer_close(&p);
	cr_assert_eq(peer_open(&q, "shm"), 0);
	for (uint32_t i = 0; i < 50; i++)
		ping(&q, i);
	cr_assert(wait_stat(&st->calls_now, 0));
	fpeer_close(&q);
	fabsrv_stop(&s);
}

/* Clients that die at any moment of their transfers. Whatever that does to the provider, the next
 * one is served. */
Test(fabric_server, outlives_shm_clients_killed_amid_transfers, .timeout = 100)
{
	const char *env = getenv("TEST_SOAK");
	unsigned rounds = env ? (unsigned)atoi(env) : 12;
	struct fabsrv s;
	struct fpeer p;

	fabsrv_start(&s, "shm", 0);
	for (unsigned i = 0; i < rounds; i++) {
		int go[2], status, err = 0;
		pid_t pid;
		char c;

		cr_assert_eq(pipe(go), 0);
		pid = fork();
		if (!pid) {
			err = peer_open(&p, "shm");
			if (err || write(go[1], "x", 1) != 1)
				_exit(1);
			for (uint32_t xid = 0; !p.down; xid++) {
				send_write(&p, xid, MIB, 0);
				while (xid > p.ngot + 6 && !p.down)
					fpeer_progress(&p);
				while (p.next != p.ngot)
					fpeer_receive(&p);
			}
			_exit(0);
		}
		close(go[1]);
		cr_assert_eq(read(go[0], &c, 1), 1, "round %u: no service", i);
		close(go[0]);
		poll(NULL, 0, 3 + (int)(i * 7 % 13));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		for (int k = 0; k < 4; k++) { /* a reset in between closes the door once */
			err = peer_open(&p, "shm");
			if (!err)
				break;
			poll(NULL, 0, 500);
		}
		cr_assert_eq(err, 0, "round %u: %d", i, err);
		struct rr_header h = { .xid = i };
		uint8_t b[64];

		send_msg(&p, &h, NULL, b, put_call(b, i, P_NULL));
		if (!fpeer_receive(&p))
			i--; /* it was reset under us: the same again */
		fpeer_close(&p);
	}
	if (env)
		fprintf(stderr, "%lu resets\n",
		        (unsigned long)tp_service_stats(s.svc)->provider_resets);
	fabsrv_stop(&s);
}
