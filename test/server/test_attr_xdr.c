/* SPDX-License-Identifier: BSD-3-Clause */
/* proto/nfs3_attr.c puts and gets what libtirpc does field by field, over any stream, and ends where it ends. */
#include "proto/nfs3.h"
#include "transport/xdr.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { ROOM = 128 };

/* As RFC 1813 lists them. */
static bool_t time_by_fields(XDR *x, nfstime3 *t)
{
	return xdr_u_int(x, &t->seconds) && xdr_u_int(x, &t->nseconds);
}

static bool_t fattr_by_fields(XDR *x, void *attr)
{
	fattr3 *a = attr;

	return xdr_enum(x, (enum_t *)&a->type) && xdr_u_int(x, &a->mode) && xdr_u_int(x, &a->nlink) && xdr_u_int(x, &a->uid) &&
	       xdr_u_int(x, &a->gid) && xdr_u_quad_t(x, &a->size) && xdr_u_quad_t(x, &a->used) &&
	       xdr_u_int(x, &a->rdev.specdata1) && xdr_u_int(x, &a->rdev.specdata2) && xdr_u_quad_t(x, &a->fsid) &&
	       xdr_u_quad_t(x, &a->fileid) && time_by_fields(x, &a->atime) && time_by_fields(x, &a->mtime) &&
	       time_by_fields(x, &a->ctime);
}

static bool_t wcc_by_fields(XDR *x, void *attr)
{
	wcc_attr *a = attr;

	return xdr_u_quad_t(x, &a->size) && time_by_fields(x, &a->mtime) && time_by_fields(x, &a->ctime);
}

static bool_t fattr_whole(XDR *x, void *attr)
{
	return xdr_fattr3(x, attr);
}

static bool_t wcc_whole(XDR *x, void *attr)
{
	return xdr_wcc_attr(x, attr);
}

static const struct kind {
	bool_t (*by_fields)(XDR *x, void *attr), (*whole)(XDR *x, void *attr);
	size_t size;
} kinds[] = { { fattr_by_fields, fattr_whole, sizeof(fattr3) }, { wcc_by_fields, wcc_whole, sizeof(wcc_attr) } };

static void random_bytes(void *at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)at)[i] = (uint8_t)rand();
}

static void any_stream(XDR *x, bool ours, char *buf, u_int len, enum xdr_op op)
{
	if (ours)
		tp_xdr_open(x, buf, len, op);
	else
		xdrmem_create(x, buf, len, op);
}

/* Into any room, at any alignment: what does not fit is refused, and nothing is written behind the end. */
Test(attr_xdr, is_put_as_field_by_field)
{
	srand(1);
	for (unsigned round = 0; round < 20000; round++) {
		const struct kind *k = &kinds[round % 2];
		char theirs[ROOM], space[ROOM + 4], *ours = space + round / 4 % 4;
		u_int len = (u_int)rand() % (ROOM - 1);
		uint64_t attr[sizeof(fattr3) / 8 + 1];
		bool_t fits;
		XDR a, b;

		random_bytes(attr, sizeof(attr));
		memset(theirs, 0x55, sizeof(theirs));
		memset(space, 0x55, sizeof(space));
		xdrmem_create(&a, theirs, len, XDR_ENCODE);
		any_stream(&b, round / 2 % 2, ours, len, XDR_ENCODE);
		fits = k->by_fields(&a, attr);
		cr_assert_eq(k->whole(&b, attr), fits, "round %u, room for %u", round, len);
		cr_assert_eq(ours[len], 0x55);
		cr_assert(!fits || (xdr_getpos(&b) == xdr_getpos(&a) && !memcmp(theirs, ours, xdr_getpos(&a))), "round %u", round);
	}
}

Test(attr_xdr, is_got_as_field_by_field)
{
	srand(2);
	for (unsigned round = 0; round < 20000; round++) {
		const struct kind *k = &kinds[round % 2];
		uint64_t theirs[sizeof(fattr3) / 8 + 1] = { 0 }, ours[sizeof(fattr3) / 8 + 1] = { 0 };
		char bytes[ROOM + 4], *at = bytes + round / 4 % 4;
		u_int len = (u_int)rand() % ROOM;
		bool_t there;
		XDR a, b;

		random_bytes(bytes, sizeof(bytes));
		xdrmem_create(&a, at, len, XDR_DECODE);
		any_stream(&b, round / 2 % 2, at, len, XDR_DECODE);
		there = k->by_fields(&a, theirs);
		cr_assert_eq(k->whole(&b, ours), there, "round %u, %u bytes", round, len);
		cr_assert(!there || (xdr_getpos(&b) == xdr_getpos(&a) && !memcmp(theirs, ours, k->size)), "round %u", round);
	}
}

Test(attr_xdr, has_nothing_to_free)
{
	XDR x = { .x_op = XDR_FREE };

	cr_assert(xdr_fattr3(&x, NULL) && xdr_wcc_attr(&x, NULL));
}
