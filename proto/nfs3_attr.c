/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs3_attr.c - attributes as they are on the wire (RFC 1813, section 2.5): fattr3 and wcc_attr
 *
 * They have no parts of variable length. So room for all of one is asked for once, and its words are stored in a
 * row; field by field, as rpcgen does it, was a fifth of what a GETATTR takes.
 */
#include <stdbool.h>

#include "transport/xdr.h"
#include "proto/nfs3.h"

enum { FATTR3_BYTES = 84, WCC_ATTR_BYTES = 24 };

/* One word, @v <-> @at; returns what is behind it. */
static inline char *word(bool put, char *at, void *v)
{
	uint32_t w;

	memcpy(&w, put ? v : at, sizeof(w));
	w = htonl(w);
	memcpy(put ? at : v, &w, sizeof(w));
	return at + sizeof(w);
}

static inline char *hyper(bool put, char *at, u_quad_t *v)
{
	uint64_t w;

	memcpy(&w, put ? (char *)v : at, sizeof(w));
	w = htobe64(w);
	memcpy(put ? at : (char *)v, &w, sizeof(w));
	return at + sizeof(w);
}

static inline char *nfstime(bool put, char *at, nfstime3 *t)
{
	at = word(put, at, &t->seconds);
	return word(put, at, &t->nseconds);
}

static inline __attribute__((always_inline)) void fattr(bool put, char *at, fattr3 *a)
{
	at = word(put, at, &a->type);
	at = word(put, at, &a->mode);
	at = word(put, at, &a->nlink);
	at = word(put, at, &a->uid);
	at = word(put, at, &a->gid);
	at = hyper(put, at, &a->size);
	at = hyper(put, at, &a->used);
	at = word(put, at, &a->rdev.specdata1);
	at = word(put, at, &a->rdev.specdata2);
	at = hyper(put, at, &a->fsid);
	at = hyper(put, at, &a->fileid);
	at = nfstime(put, at, &a->atime);
	at = nfstime(put, at, &a->mtime);
	nfstime(put, at, &a->ctime);
}

static inline __attribute__((always_inline)) void wcc(bool put, char *at, wcc_attr *a)
{
	at = hyper(put, at, &a->size);
	at = nfstime(put, at, &a->mtime);
	nfstime(put, at, &a->ctime);
}

/* The next @n bytes of the stream, a multiple of 4; of one that is not ours by way of @buf, read here, to be
 * written by ended(). NULL: there are not so many. */
static char *begun(XDR *x, char *buf, u_int n)
{
	if (tp_xdr_is(x))
		return tp_xdr_take(x, n);
	return x->x_op == XDR_ENCODE || xdr_opaque(x, buf, n) ? buf : NULL;
}

static bool_t ended(XDR *x, char *buf, u_int n)
{
	return tp_xdr_is(x) || x->x_op == XDR_DECODE || xdr_opaque(x, buf, n);
}

bool_t xdr_fattr3(XDR *x, fattr3 *a)
{
	char buf[FATTR3_BYTES], *at;

	if (x->x_op == XDR_FREE)
		return TRUE;
	at = begun(x, buf, sizeof(buf));
	if (!at)
		return FALSE;
	if (x->x_op == XDR_ENCODE)
		fattr(true, at, a);
	else
		fattr(false, at, a);
	return ended(x, buf, sizeof(buf));
}

bool_t xdr_wcc_attr(XDR *x, wcc_attr *a)
{
	char buf[WCC_ATTR_BYTES], *at;

	if (x->x_op == XDR_FREE)
		return TRUE;
	at = begun(x, buf, sizeof(buf));
	if (!at)
		return FALSE;
	if (x->x_op == XDR_ENCODE)
		wcc(true, at, a);
	else
		wcc(false, at, a);
	return ended(x, buf, sizeof(buf));
}
