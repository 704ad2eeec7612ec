/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keys that a program gives to the peer of one connection, and the peer's RMA with them: while they are open,
 * after they are closed, beyond what they cover, guessed, and when the connection ends.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/keysrv.h"

static void rest_untouched(const struct keysrv *s)
{
	for (size_t i = KEY_HALF; i < KEY_MEM; i++)
		cr_assert_eq(s->mem[i], (uint8_t)(i * 7), "byte %zu", i);
}

/* --- what keys are for --- */

static void put_and_get(const char *provider)
{
	static const size_t lens[] = { 1, 63, 64, 4096, 70001, KEY_HALF };
	struct keysrv *s = keysrv_start(provider);
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);
	uint8_t *buf = malloc(KEY_HALF), *back = malloc(KEY_HALF);

	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		size_t len = lens[i], off = KEY_HALF - len;

		memset(buf, (int)i + 1, len);
		memset(back, 0, len);
		cr_assert_eq(key_move(c, TP_RMA_WRITE, buf, len, k.a + off, k.b), 0);
		cr_assert_eq(key_move(c, TP_RMA_READ, back, len, k.a + off, k.b), 0);
		cr_assert_eq(memcmp(buf, back, len), 0, "%zu bytes", len);
		keysrv_ask(c, KEY_NOTHING, FALSE);
		cr_assert_eq(memcmp(s->mem + off, buf, len), 0, "%zu bytes", len);
	}
	rest_untouched(s);
	tp_client_close(c);
	keysrv_stop(s);
	free(buf);
	free(back);
}

Test(key_tcp, put_and_get)
{
	put_and_get("tcp");
}

Test(key_shm, put_and_get)
{
	put_and_get("shm");
}

/* A call that is sent behind writes is answered when they are placed, though nobody waited for them. */
Test(key_tcp, a_call_does_not_overtake_writes)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE), last;
	struct tp_client_rma_info info;
	struct key_rma r[100];
	uint8_t *buf = malloc(KEY_HALF);

	tp_client_get_rma_info(c, &info);
	cr_assert(info.write_before_send);
	memset(buf, 0x5a, KEY_HALF);
	for (unsigned i = 0; i < 100; i++) {
		size_t len = KEY_HALF / 100;

		r[i] = (struct key_rma){ .rma = { .how = TP_RMA_WRITE, .buf = buf + i * len, .len = len,
			                      .addr = k.a + i * len, .key = k.b, .done = key_moved } };
		cr_assert_eq(tp_client_rma(c, &r[i].rma), 0);
	}
	keysrv_send(c, &last, KEY_NOTHING, FALSE);
	while (!last.over)
		tp_client_wait(c, 1000);
	cr_assert_eq(last.err, 0);
	cr_assert_eq(memcmp(s->mem, buf, KEY_HALF / 100 * 100), 0);
	for (unsigned i = 0; i < 100; i++)
		while (!r[i].over)
			tp_client_wait(c, 1000);
	tp_client_close(c);
	keysrv_stop(s);
	free(buf);
}

Test(key_tcp, commit_complete)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);
	uint8_t buf[300];

	memset(buf, 9, sizeof(buf));
	cr_assert(s->facts.commit_complete);
	cr_assert_eq(key_move(c, TP_RMA_WRITE_COMMIT, buf, sizeof(buf), k.a + 5, k.b), 0);
	cr_assert_eq(memcmp(s->mem + 5, buf, sizeof(buf)), 0);
	tp_client_close(c);
	keysrv_stop(s);
}

Test(key_shm, commit_complete_is_not_offered)
{
	struct keysrv *s = keysrv_start("shm");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);
	uint8_t buf[8] = { 0 };

	cr_assert_not(s->facts.commit_complete);
	cr_assert_eq(key_move(c, TP_RMA_WRITE_COMMIT, buf, sizeof(buf), k.a, k.b), -EOPNOTSUPP);
	tp_client_close(c);
	keysrv_stop(s);
}

/* --- what they keep out (tcp) --- */

/* The operation fails, and what it was aimed at is as before. */
static void refused(struct keysrv *s, struct tp_client *c, enum tp_rma_how how, uint64_t addr, uint64_t key)
{
	uint8_t *before = malloc(KEY_MEM), buf[512];

	memcpy(before, s->mem, KEY_MEM);
	memset(buf, 0xee, sizeof(buf));
	/* A write of tcp is complete when it has left; what became of it shows in the call behind it. */
	if (!key_move(c, how, buf, sizeof(buf), addr, key)) {
		cr_assert_eq(how, TP_RMA_WRITE);
		cr_assert_lt(keysrv_ask(c, KEY_NOTHING, FALSE).err, 0);
	}
	tp_client_close(c);
	c = keysrv_dial(s); /* whatever it did is done by the time another is served */
	keysrv_ask(c, KEY_NOTHING, FALSE);
	cr_assert_eq(memcmp(before, s->mem, KEY_MEM), 0);
	for (size_t i = 0; how == TP_RMA_READ && i < sizeof(buf); i++)
		cr_assert_eq(buf[i], 0xee, "byte %zu was read", i);
	tp_client_close(c);
	keysrv_stop(s);
	free(before);
}

Test(key_tcp, a_closed_key_writes_nothing)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);

	keysrv_ask(c, KEY_CLOSE, FALSE);
	refused(s, c, TP_RMA_WRITE, k.a, k.b);
}

Test(key_tcp, a_closed_key_reads_nothing)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);

	keysrv_ask(c, KEY_CLOSE, FALSE);
	refused(s, c, TP_RMA_READ, k.a, k.b);
}

Test(key_tcp, a_key_for_reading_writes_nothing)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, FALSE);
	uint8_t buf[64];

	cr_assert_eq(key_move(c, TP_RMA_READ, buf, sizeof(buf), k.a, k.b), 0);
	refused(s, c, TP_RMA_WRITE, k.a, k.b);
}

Test(key_tcp, nothing_beyond_the_range)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);

	refused(s, c, TP_RMA_WRITE, k.a + KEY_HALF - 511, k.b);
}

Test(key_tcp, nothing_below_the_range)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);

	refused(s, c, TP_RMA_WRITE, k.a - 512, k.b);
}

Test(key_tcp, a_guess_is_no_key)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);

	refused(s, c, TP_RMA_WRITE, k.a, k.b + 1);
}

Test(key_tcp, keys_are_long_and_differ)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	uint64_t key[16], all = 0;

	for (unsigned i = 0; i < 16; i++) {
		key[i] = keysrv_ask(c, KEY_OPEN, TRUE).b;
		all |= key[i];
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(key[i], key[j]);
	}
	cr_assert_eq(s->facts.key_size, 8);
	cr_assert_gt(all >> 48, 0xff);
	tp_client_close(c);
	keysrv_stop(s);
}

/* --- when a closed key is dead --- */

Test(key_tcp, dead_only_when_nothing_can_be_under_way)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);

	keysrv_ask(c, KEY_OPEN, TRUE);
	keysrv_ask(c, KEY_OPEN, TRUE);
	keysrv_ask(c, KEY_CLOSE, FALSE);
	cr_assert_eq(s->dead, 0, "the peer may be in the middle of a write");
	/* The answer's send completes some time; every call brings another message. */
	for (unsigned i = 0; s->dead < 2 && i < 1000; i++)
		keysrv_ask(c, KEY_DEAD, FALSE);
	cr_assert_eq(s->dead, 2);
	cr_assert_eq(tp_client_state(c, NULL), TP_CLIENT_UP);
	tp_client_close(c);
	keysrv_stop(s);
}

Test(key_tcp, hurry_closes_the_connection)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);

	keysrv_ask(c, KEY_OPEN, TRUE);
	cr_assert_lt(keysrv_ask(c, KEY_CLOSE, TRUE).err, 0);
	tp_client_close(c);
	c = keysrv_dial(s);
	while (s->dead < 1)
		keysrv_ask(c, KEY_DEAD, FALSE);
	tp_client_close(c);
	keysrv_stop(s);
}

static void the_end_is_told(const char *provider)
{
	struct keysrv *s = keysrv_start(provider);
	struct tp_client *c = keysrv_dial(s);

	keysrv_ask(c, KEY_OPEN, TRUE);
	keysrv_ask(c, KEY_OPEN, FALSE);
	tp_client_close(c);
	c = keysrv_dial(s);
	while (!s->gone)
		keysrv_ask(c, KEY_DEAD, FALSE);
	cr_assert_eq(s->dead, 2);
	tp_client_close(c);
	keysrv_stop(s);
}

Test(key_tcp, the_end_is_told)
{
	the_end_is_told("tcp");
}

Test(key_shm, the_end_is_told)
{
	the_end_is_told("shm");
}

/* One that did not end it itself may not know yet. */
Test(key_shm, the_peer_ended_it)
{
	struct keysrv *s = keysrv_start("shm");
	struct tp_client *c = keysrv_dial(s);

	keysrv_ask(c, KEY_OPEN, TRUE);
	tp_client_close(c);
	while (!s->gone)
		;
	cr_assert(s->left);
	keysrv_stop(s);
}

/* What providers.md says of shm: the peer's own copying looks at no key. If this fails, say so there, and set
 * tp_rma_facts.fenced. */
Test(key_shm, nobody_checks_keys_of_shm)
{
	struct keysrv *s = keysrv_start("shm");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);
	uint8_t buf[64];

	memset(buf, 0x77, sizeof(buf));
	cr_assert_not(s->facts.fenced);
	cr_assert_eq(key_move(c, TP_RMA_WRITE, buf, sizeof(buf), k.a, k.b + 1), 0);
	cr_assert_eq(memcmp(s->mem, buf, sizeof(buf)), 0);
	tp_client_close(c);
	keysrv_stop(s);
}

/* Operations that are out when the connection ends come back as errors. */
Test(key_tcp, the_end_fails_what_is_out)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);
	static uint8_t buf[KEY_HALF];
	struct key_rma r[200];

	for (unsigned i = 0; i < 200; i++) {
		r[i] = (struct key_rma){ .rma = { .how = TP_RMA_WRITE, .buf = buf, .len = KEY_HALF, .addr = k.a,
			                      .key = k.b, .done = key_moved } };
		cr_assert_eq(tp_client_rma(c, &r[i].rma), 0);
	}
	tp_client_close(c);
	for (unsigned i = 0; i < 200; i++)
		cr_assert(r[i].over);
	cr_assert_eq(r[199].err, -ECANCELED);
	keysrv_stop(s);
}

TestSuite(key_tcp, .timeout = 60);
TestSuite(key_shm, .timeout = 60);
