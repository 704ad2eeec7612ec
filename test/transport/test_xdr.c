/* SPDX-License-Identifier: BSD-3-Clause */
/* The stream of transport/xdr.h says what libtirpc's xdrmem says, in place and through its ops, and ends where it ends. */
#include "transport/xdr.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { ROOM = 64, KINDS = 6 };

struct item {
	unsigned kind;
	uint64_t num;
	char bytes[12];
	u_int len;
};

/* The library's way: whatever stream it is, through its ops. */
static bool_t by_ops(XDR *x, struct item *it)
{
	char *p = it->bytes;
	u_int u = (u_int)it->num;
	enum_t e = (enum_t)it->num;
	bool_t b = it->num & 1, ok = FALSE;

	switch (it->kind) {
	case 0: ok = xdr_u_int(x, &u); it->num = u; break;
	case 1: ok = xdr_enum(x, &e); it->num = (uint64_t)(int64_t)e; break;
	case 2: ok = xdr_bool(x, &b); it->num = b != 0; break;
	case 3: ok = xdr_u_quad_t(x, &it->num); break;
	case 4: ok = xdr_opaque(x, p, it->len); break;
	case 5: ok = xdr_bytes(x, &p, &it->len, 10); break;
	}
	return ok;
}

static bool_t in_place(XDR *x, struct item *it)
{
	char *p = it->bytes;
	u_int u = (u_int)it->num;
	enum_t e = (enum_t)it->num;
	bool_t b = it->num & 1, ok = FALSE;

	switch (it->kind) {
	case 0: ok = tp_xdr_u_int(x, &u); it->num = u; break;
	case 1: ok = tp_xdr_enum(x, &e); it->num = (uint64_t)(int64_t)e; break;
	case 2: ok = tp_xdr_bool(x, &b); it->num = b != 0; break;
	case 3: ok = tp_xdr_u_quad(x, &it->num); break;
	case 4: ok = tp_xdr_opaque(x, p, it->len); break;
	case 5: ok = tp_xdr_bytes(x, &p, &it->len, 10); break;
	}
	return ok;
}

static struct item random_item(void)
{
	struct item it = { .kind = (unsigned)rand() % KINDS, .len = (u_int)rand() % 12 };

	it.num = (uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand();
	for (unsigned i = 0; i < sizeof(it.bytes); i++)
		it.bytes[i] = (char)rand();
	return it;
}

static bool same(const struct item *a, const struct item *b)
{
	if (a->kind == 4 || a->kind == 5)
		return a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
	return a->num == b->num;
}

static bool_t (*const ways[])(XDR *, struct item *) = { by_ops, in_place };

/* Items until one does not fit, encoded and read back by both ways, at any alignment and any end. */
Test(xdr, both_ways_say_what_xdrmem_says)
{
	srand(1);
	for (unsigned round = 0; round < 20000; round++) {
		char theirs[ROOM], space[ROOM + 3], *ours = space + round % 4;
		u_int len = (u_int)rand() % ROOM;
		XDR a, b;

		memset(theirs, 0x55, ROOM);
		memset(ours, 0x55, ROOM - 1);
		xdrmem_create(&a, theirs, len, XDR_ENCODE);
		tp_xdr_open(&b, ours, len, XDR_ENCODE);
		for (bool_t more = TRUE; more;) {
			struct item it = random_item(), copy = it;
			u_int at = xdr_getpos(&b);

			more = by_ops(&a, &it);
			cr_assert_eq(ways[round & 1](&b, &copy), more, "kind %u, %u left", it.kind, len - at);
			cr_assert(!more || xdr_getpos(&a) == xdr_getpos(&b));
		}
		len = xdr_getpos(&b) < xdr_getpos(&a) ? xdr_getpos(&b) : xdr_getpos(&a);
		cr_assert(!memcmp(theirs, ours, len));
	}
}

Test(xdr, what_is_read_is_what_xdrmem_reads)
{
	srand(2);
	for (unsigned round = 0; round < 20000; round++) {
		char bytes[ROOM];
		u_int len = (u_int)rand() % ROOM;
		bool_t more = TRUE;
		XDR a, b;

		for (unsigned i = 0; i < ROOM; i++)
			bytes[i] = (char)(rand() % 3 ? 0 : rand() % 16); /* lengths that fit, mostly */
		xdrmem_create(&a, bytes, len, XDR_DECODE);
		tp_xdr_open(&b, bytes, len, XDR_DECODE);
		while (more) {
			struct item it = random_item(), copy = it;

			if (it.kind == 1)
				continue; /* any int is an enum; a bool is 0 or not */
			more = by_ops(&a, &it);
			cr_assert_eq(ways[round & 1](&b, &copy), more, "kind %u", it.kind);
			cr_assert(!more || (same(&it, &copy) && xdr_getpos(&a) == xdr_getpos(&b)), "kind %u", it.kind);
		}
	}
}

Test(xdr, lengths_that_wrap_do_not_fit)
{
	char bytes[16] = { 0 }, to[16];
	XDR x;

	for (uint32_t n = UINT32_MAX; n > UINT32_MAX - 8; n--) {
		tp_xdr_open(&x, bytes, sizeof(bytes), XDR_DECODE);
		cr_assert(!tp_xdr_opaque(&x, to, n));
		cr_assert_eq(xdr_getpos(&x), 0);
	}
}

Test(xdr, positions_are_those_of_the_stream)
{
	char bytes[16];
	u_int v = 7;
	XDR x;

	tp_xdr_open(&x, bytes, sizeof(bytes), XDR_ENCODE);
	cr_assert(xdr_setpos(&x, 12));
	cr_assert(tp_xdr_u_int(&x, &v));
	cr_assert(!tp_xdr_u_int(&x, &v));
	cr_assert(!xdr_setpos(&x, 17));
	cr_assert(xdr_setpos(&x, 0));
	cr_assert_not_null(XDR_INLINE(&x, 16));
	cr_assert_null(XDR_INLINE(&x, 4));
	cr_assert_eq(xdr_getpos(&x), 16);
}
