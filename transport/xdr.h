/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xdr.h - a stream of XDR (RFC 4506) in memory, whose primitives the compiler can see into
 *
 * libtirpc's xdrmem reads and writes each word behind two calls, the second through a pointer; of a small call that was
 * a third of the work. The streams of calls and replies are these instead. To code that knows nothing of them they are
 * XDR streams like any other; code compiled with this header included first (what rpcgen makes, see the Makefile) finds
 * them by their ops and does the work in place. Any other stream goes to libtirpc as ever.
 *
 * x_private is the next byte, x_handy how many there are, x_base the first. No allocation, nothing to destroy.
 */
#ifndef TRANSPORT_XDR_H
#define TRANSPORT_XDR_H

#include <arpa/inet.h>
#include <endian.h>
#include <rpc/rpc.h>
#include <stdint.h>
#include <string.h>

extern const struct xdr_ops tp_xdr_ops;

/* @len bytes at @buf, any alignment; they outlive the stream. */
void tp_xdr_open(XDR *x, void *buf, size_t len, enum xdr_op op);

/* The next @n bytes, or NULL: there are not so many. */
static inline char *tp_xdr_take(XDR *x, u_int n)
{
	char *at = x->x_private;

	if (n > x->x_handy)
		return NULL;
	x->x_private = at + n;
	x->x_handy -= n;
	return at;
}

static inline bool_t tp_xdr_is(const XDR *x)
{
	return x->x_ops == &tp_xdr_ops && x->x_op != XDR_FREE;
}

static inline bool_t tp_xdr_word(XDR *x, void *v)
{
	char *at = tp_xdr_take(x, 4);
	uint32_t w;

	if (!at)
		return FALSE;
	memcpy(&w, x->x_op == XDR_ENCODE ? (char *)v : at, 4);
	w = htonl(w);
	memcpy(x->x_op == XDR_ENCODE ? at : (char *)v, &w, 4);
	return TRUE;
}

static inline bool_t tp_xdr_u_int(XDR *x, u_int *v)
{
	return tp_xdr_is(x) ? tp_xdr_word(x, v) : xdr_u_int(x, v);
}

static inline bool_t tp_xdr_enum(XDR *x, enum_t *v)
{
	return tp_xdr_is(x) ? tp_xdr_word(x, v) : xdr_enum(x, v);
}

static inline bool_t tp_xdr_bool(XDR *x, bool_t *v)
{
	if (!tp_xdr_is(x))
		return xdr_bool(x, v);
	if (x->x_op == XDR_ENCODE)
		return tp_xdr_word(x, &(bool_t){ *v ? TRUE : FALSE });
	if (!tp_xdr_word(x, v))
		return FALSE;
	*v = *v ? TRUE : FALSE;
	return TRUE;
}

static inline bool_t tp_xdr_u_quad(XDR *x, u_quad_t *v)
{
	char *at;
	uint64_t w;

	if (!tp_xdr_is(x))
		return xdr_u_quad_t(x, v);
	at = tp_xdr_take(x, 8);
	if (!at)
		return FALSE;
	memcpy(&w, x->x_op == XDR_ENCODE ? (char *)v : at, 8);
	w = htobe64(w);
	memcpy(x->x_op == XDR_ENCODE ? at : (char *)v, &w, 8);
	return TRUE;
}

static inline bool_t tp_xdr_opaque(XDR *x, char *p, u_int n)
{
	u_int pad = -n & 3;
	char *at;

	if (!tp_xdr_is(x))
		return xdr_opaque(x, p, n);
	if (n > x->x_handy || pad > x->x_handy - n) /* n + pad may wrap */
		return FALSE;
	at = tp_xdr_take(x, n + pad);
	if (!n)
		return TRUE;
	memcpy(x->x_op == XDR_ENCODE ? at : p, x->x_op == XDR_ENCODE ? p : at, n);
	if (x->x_op == XDR_ENCODE && pad)
		memset(at + n, 0, pad);
	return TRUE;
}

/* Where memory would have to be found the library does it. */
static inline bool_t tp_xdr_bytes(XDR *x, char **p, u_int *n, u_int max)
{
	if (!tp_xdr_is(x) || !*p)
		return xdr_bytes(x, p, n, max);
	return tp_xdr_word(x, n) && *n <= max && tp_xdr_opaque(x, *p, *n);
}

#ifdef TP_XDR_INLINE
#define xdr_u_int(x, v)          tp_xdr_u_int(x, v)
#define xdr_enum(x, v)           tp_xdr_enum(x, v)
#define xdr_bool(x, v)           tp_xdr_bool(x, v)
#define xdr_u_quad_t(x, v)       tp_xdr_u_quad(x, v)
#define xdr_opaque(x, p, n)      tp_xdr_opaque(x, p, n)
#define xdr_bytes(x, p, n, max)  tp_xdr_bytes(x, p, n, max)
#endif

#endif
