/* SPDX-License-Identifier: BSD-3-Clause */
/* sockfix.c - a TCP service for a test, and what its peers expect of it */
#include "test/lib/sockfix.h"

#include <criterion/criterion.h>
#include <stdlib.h>

struct fix f;
uint8_t *data;

void sockfix_start(void)
{
	fix_service(&f, NULL);
	fix_listen(&f);
	data = malloc(MIB);
	fill(data, MIB, 1);
}

void sockfix_stop(void)
{
	cr_expect_eq(tp_service_stats(f.svc)->payload_copied_bytes, 0);
	fix_free(&f);
	free(data);
}

void expect_word(int fd, uint32_t xid, uint32_t v)
{
	struct wire r = { 0 };

	cr_assert(peer_reply(&f, fd, &r), "no reply to %u", xid);
	cr_assert_eq(r.len, HDR + 4);
	cr_assert_eq(wire_at(r.b), xid, "%u is answered, not %u", wire_at(r.b), xid);
	cr_assert_eq(wire_at(r.b + 20), SUCCESS);
	cr_assert_eq(wire_at(r.b + HDR), v);
	wire_free(&r);
}

void expect_stat(int fd, uint32_t xid, enum accept_stat stat)
{
	struct wire r = { 0 };

	cr_assert(peer_reply(&f, fd, &r));
	cr_assert_eq(wire_at(r.b), xid);
	cr_assert_eq(wire_at(r.b + 8), MSG_ACCEPTED);
	cr_assert_eq(wire_at(r.b + 20), (uint32_t)stat);
	wire_free(&r);
}

void null_call(struct wire *w, uint32_t xid)
{
	struct wire m = { 0 };

	wire_call(&m, xid, FIX_VERS, FIX_NULL);
	wire_record(w, &m);
	wire_free(&m);
}

void expect_alive(int fd)
{
	struct wire w = { 0 };

	null_call(&w, 0xa11e);
	peer_send(&f, fd, w.b, w.len);
	expect_stat(fd, 0xa11e, SUCCESS);
	wire_free(&w);
}

void send_put(int fd, uint32_t xid, uint32_t off, uint32_t mode, uint32_t len)
{
	struct wire m = { 0 }, w = { 0 };

	wire_put(&m, xid, off, mode, data, len);
	wire_record(&w, &m);
	peer_send(&f, fd, w.b, w.len);
	wire_free(&m);
	wire_free(&w);
}

void send_holds(int fd, uint32_t n)
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

void again(const struct tp_service_opts *o)
{
	fix_free(&f);
	fix_service(&f, o);
	fix_listen(&f);
}
