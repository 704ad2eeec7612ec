/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections with a domain of their own: what a key of theirs is good for, what they may say, how many there may be, and
 * that nothing of them stays.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/fabpeer.h"
#include "test/lib/keysrv.h"

static const struct tp_own some = { .prog = KEY_PROG, .most = 8, .most_of_one = 8 };

/* --- keys --- */

/* RMA with a key that is not one here: it fails, or the connection does, and memory is as it was. */
static void keeps_out(struct keysrv *s, struct tp_client *c, const struct key_ask *k, enum tp_rma_how how)
{
	uint8_t buf[4096], was[4096];

	memset(buf, 0xee, sizeof(buf));
	memcpy(was, s->mem, sizeof(was));
	if (!key_move(c, how, buf, sizeof(buf), k->a, k->b))
		cr_assert_neq(keysrv_ask(c, KEY_NOTHING, FALSE).err, 0);
	cr_assert_eq(memcmp(s->mem, was, sizeof(was)), 0, "written to");
	for (size_t i = 0; i < sizeof(buf); i++)
		cr_assert_eq(buf[i], 0xee, "read from");
	cr_assert_eq(tp_client_state(c, NULL), TP_CLIENT_DOWN);
	tp_client_close(c);
}

static void works(struct keysrv *s, struct tp_client *c, const struct key_ask *k, int with)
{
	uint8_t buf[4096];

	memset(buf, with, sizeof(buf));
	cr_assert_eq(key_move(c, TP_RMA_WRITE, buf, sizeof(buf), k->a, k->b), 0);
	cr_assert_eq(keysrv_ask(c, KEY_NOTHING, FALSE).err, 0);
	cr_assert_eq(memcmp(s->mem, buf, sizeof(buf)), 0);
	memset(buf, 0, sizeof(buf));
	cr_assert_eq(key_move(c, TP_RMA_READ, buf, sizeof(buf), k->a, k->b), 0);
	cr_assert_eq(buf[4095], (uint8_t)with);
}

Test(fabric_own, a_key_is_good_on_its_own_connection_only)
{
	struct keysrv *s = keysrv_start_own("tcp", &some);
	struct tp_client *a = keysrv_dial_own(s);
	struct key_ask k = keysrv_ask(a, KEY_OPEN, TRUE);

	cr_assert(s->facts.own && s->facts.own_offered);
	works(s, a, &k, 1);
	keeps_out(s, keysrv_dial_own(s), &k, TP_RMA_WRITE);
	keeps_out(s, keysrv_dial_own(s), &k, TP_RMA_READ);
	keeps_out(s, keysrv_dial(s), &k, TP_RMA_WRITE);
	keeps_out(s, keysrv_dial(s), &k, TP_RMA_READ);
	works(s, a, &k, 2);
	tp_client_close(a);
	keysrv_stop(s);
}

Test(fabric_own, a_key_of_the_shared_domain_is_none_in_it)
{
	struct keysrv *s = keysrv_start_own("tcp", &some);
	struct tp_client *a = keysrv_dial(s);
	struct key_ask k = keysrv_ask(a, KEY_OPEN, TRUE);

	cr_assert(!s->facts.own && s->facts.own_offered);
	works(s, a, &k, 1);
	keeps_out(s, keysrv_dial_own(s), &k, TP_RMA_WRITE);
	works(s, a, &k, 2);
	tp_client_close(a);
	keysrv_stop(s);
}

static void expect_dead(struct tp_client *c, uint64_t n)
{
	while (keysrv_ask(c, KEY_DEAD, FALSE).a < n)
		;
}

/* The queue that is found empty must be the connection's own. */
Test(fabric_own, keys_die_as_elsewhere)
{
	struct keysrv *s = keysrv_start_own("tcp", &some);
	struct tp_client *c = keysrv_dial_own(s), *other = keysrv_dial(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE), ask;

	keysrv_ask(c, KEY_OPEN, TRUE);
	keysrv_ask(c, KEY_CLOSE, FALSE);
	for (unsigned i = 0; i < 20; i++)
		ask = keysrv_ask(other, KEY_DEAD, FALSE);
	cr_assert_eq(ask.a, 0, "what others say tells nothing of this one");
	expect_dead(c, 2);
	keeps_out(s, c, &k, TP_RMA_WRITE);
	tp_client_close(other);
	keysrv_stop(s);
}

Test(fabric_own, hurry_ends_it)
{
	struct keysrv *s = keysrv_start_own("tcp", &some);
	struct tp_client *c = keysrv_dial_own(s), *other = keysrv_dial_own(s);

	keysrv_ask(c, KEY_OPEN, TRUE);
	cr_assert_neq(keysrv_ask(c, KEY_CLOSE, TRUE).err, 0);
	expect_dead(other, 1);
	cr_assert_eq(s->gone, 1);
	tp_client_close(c);
	tp_client_close(other);
	keysrv_stop(s);
}

/* --- what may be said --- */

static size_t word(uint8_t *p, size_t at, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[at + i] = (uint8_t)(v >> (24 - 8 * i));
	return at + 4;
}

static size_t call(uint8_t *b, const struct rr_header *h, const struct rr_seg *segs, uint32_t prog)
{
	const uint32_t msg[] = { h->xid, CALL, RPC_MSG_VERSION, prog, 1, KEY_NOTHING, AUTH_NONE, 0, AUTH_NONE, 0 };
	size_t at = rr_encode(h, segs, b, 4096);

	for (size_t i = 0; i < sizeof(msg) / sizeof(msg[0]); i++)
		at = word(b, at, msg[i]);
	return at;
}

static uint32_t status(struct fpeer *p, uint32_t xid)
{
	struct fmessage *m = fpeer_receive(p);
	struct rr_header h;
	struct rr_seg segs[RR_MAX_SEGS];

	cr_assert(m);
	cr_assert_eq(rr_decode(m->buf, m->len, &h, segs, RR_MAX_SEGS), 0);
	cr_assert(h.xid == xid && h.proc == RR_MSG && h.credits <= 8);
	return (uint32_t)m->buf[h.size + 20] << 24 | m->buf[h.size + 23];
}

static void chunk_error(struct fpeer *p, uint32_t xid)
{
	struct fmessage *m = fpeer_receive(p);
	struct rr_header h;

	cr_assert(m);
	cr_assert_eq(rr_decode(m->buf, m->len, &h, NULL, 0), 0);
	cr_assert(h.xid == xid && h.proc == RR_ERROR && h.err == RR_ERR_CHUNK);
}

Test(fabric_own, one_program_without_chunks)
{
	struct keysrv *s = keysrv_start_own("tcp", &some);
	struct rr_header h = { .xid = 7, .credits = 32 };
	uint8_t cm[RR_CM_OWN_SIZE], b[4096];
	struct fpeer p;
	struct rr_seg seg;

	rr_cm_encode(cm, 4096, 4096);
	rr_cm_ask_own(cm);
	cr_assert_eq(fpeer_open(&p, &s->o, cm, sizeof(cm)), 0);
	seg = (struct rr_seg){ fab_mr_addr(p.f, &p.mr, p.mem), p.mr.key, 400 };
	fpeer_send(&p, b, call(b, &h, NULL, KEY_PROG));
	cr_assert_eq(status(&p, 7), SUCCESS);
	fpeer_send(&p, b, call(b, &h, NULL, KEY_OTHER));
	cr_assert_eq(status(&p, 7), PROG_UNAVAIL);

	h.nreads = 1;
	h.read[0] = (struct rr_chunk){ .position = 40, .n = 1 };
	fpeer_send(&p, b, call(b, &h, &seg, KEY_PROG));
	chunk_error(&p, 7);
	h.read[0].position = 0;
	h.proc = RR_NOMSG;
	fpeer_send(&p, b, rr_encode(&h, &seg, b, sizeof(b)));
	chunk_error(&p, 7);
	h.nreads = 0;
	h.proc = RR_MSG;
	h.nwrites = 1;
	h.write[0] = (struct rr_chunk){ .n = 1 };
	fpeer_send(&p, b, call(b, &h, &seg, KEY_PROG));
	chunk_error(&p, 7);
	h.nwrites = 0;
	h.has_reply = true;
	h.reply = (struct rr_chunk){ .n = 1 };
	fpeer_send(&p, b, call(b, &h, &seg, KEY_PROG));
	chunk_error(&p, 7);

	h.has_reply = false;
	fpeer_send(&p, b, call(b, &h, NULL, KEY_PROG));
	cr_assert_eq(status(&p, 7), SUCCESS, "none of that costs the connection");
	cr_assert_eq(tp_service_stats(s->svc)->bad_chunks, 4);
	fpeer_close(&p);
	keysrv_stop(s);
}

/* One that does not know of it, asked by one that does: a connection like any other. */
Test(fabric_own, asked_of_a_server_that_gives_none)
{
	struct keysrv *s = keysrv_start("tcp");
	struct tp_client *c = keysrv_dial_own(s);
	struct key_ask k = keysrv_ask(c, KEY_OPEN, TRUE);

	cr_assert(!s->facts.own && !s->facts.own_offered);
	works(s, c, &k, 1);
	tp_client_close(c);
	keysrv_stop(s);
}

/* --- how many --- */

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void conns_are(struct keysrv *s, uint64_t n)
{
	while (__atomic_load_n(&tp_service_stats(s->svc)->conns, __ATOMIC_RELAXED) != n)
		;
}

static void limited(const struct tp_own *own, unsigned n)
{
	struct keysrv *s = keysrv_start_own("tcp", own);
	struct tp_client *c[8];

	for (unsigned i = 0; i < n; i++)
		cr_assert((c[i] = keysrv_dial_own(s)));
	cr_assert_null(keysrv_dial_own(s));
	tp_client_close(keysrv_dial(s)); /* others may come */
	tp_client_close(c[0]);
	conns_are(s, n - 1);
	cr_assert((c[0] = keysrv_dial_own(s)), "one has left");
	for (unsigned i = 0; i < n; i++)
		tp_client_close(c[i]);
	keysrv_stop(s);
}

Test(fabric_own, no_more_than_allowed)
{
	limited(&(struct tp_own){ .prog = KEY_PROG, .most = 3, .most_of_one = 8 }, 3);
	limited(&(struct tp_own){ .prog = KEY_PROG, .most = 8, .most_of_one = 2 }, 2);
}

Test(fabric_own, nothing_stays_of_those_that_were)
{
	struct keysrv *s = keysrv_start_own("tcp", &some);
	unsigned before = open_fds();

	for (unsigned i = 0; i < 110; i++) {
		struct tp_client *c[3];

		for (unsigned j = 0; j < 3; j++)
			c[j] = keysrv_dial_own(s);
		keysrv_ask(c[0], KEY_OPEN, TRUE);
		for (unsigned j = 0; j < 3; j++)
			tp_client_close(c[j]);
		conns_are(s, 0);
	}
	for (unsigned i = 0; i < 5000 && open_fds() != before; i++) /* the last of them is being buried */
		;
	cr_assert_eq(open_fds(), before);
	keysrv_stop(s);
}
