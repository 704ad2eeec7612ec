/* SPDX-License-Identifier: BSD-3-Clause */
/* xdr.c - the stream of xdr.h for those who reach it through its ops */
#include "transport/xdr.h"

static bool_t get_long(XDR *x, long *v)
{
	char *at = tp_xdr_take(x, 4);
	uint32_t w;

	if (!at)
		return FALSE;
	memcpy(&w, at, 4);
	*v = (int32_t)ntohl(w);
	return TRUE;
}

static bool_t put_long(XDR *x, const long *v)
{
	char *at = tp_xdr_take(x, 4);
	uint32_t w = htonl((uint32_t)*v);

	if (at)
		memcpy(at, &w, 4);
	return at != NULL;
}

static bool_t get_bytes(XDR *x, char *p, u_int n)
{
	const char *at = tp_xdr_take(x, n);

	if (at && n)
		memcpy(p, at, n);
	return at != NULL;
}

static bool_t put_bytes(XDR *x, const char *p, u_int n)
{
	char *at = tp_xdr_take(x, n);

	if (at && n)
		memcpy(at, p, n);
	return at != NULL;
}

static u_int get_pos(XDR *x)
{
	return (u_int)((char *)x->x_private - x->x_base);
}

static bool_t set_pos(XDR *x, u_int pos)
{
	u_int all = get_pos(x) + x->x_handy;

	if (pos > all)
		return FALSE;
	x->x_private = x->x_base + pos;
	x->x_handy = all - pos;
	return TRUE;
}

/* Whole words where the caller may treat them as such. */
static int32_t *in_line(XDR *x, u_int n)
{
	if ((uintptr_t)x->x_private % sizeof(int32_t))
		return NULL;
	return (int32_t *)(void *)tp_xdr_take(x, n);
}

static void destroy(XDR *x)
{
	(void)x;
}

static bool_t control(XDR *x, int request, void *info)
{
	(void)x;
	(void)request;
	(void)info;
	return FALSE;
}

const struct xdr_ops tp_xdr_ops = {
	.x_getlong = get_long,
	.x_putlong = put_long,
	.x_getbytes = get_bytes,
	.x_putbytes = put_bytes,
	.x_getpostn = get_pos,
	.x_setpostn = set_pos,
	.x_inline = in_line,
	.x_destroy = destroy,
	.x_control = control,
};

void tp_xdr_open(XDR *x, void *buf, size_t len, enum xdr_op op)
{
	*x = (XDR){ .x_op = op, .x_ops = &tp_xdr_ops, .x_private = buf, .x_base = buf, .x_handy = (u_int)len };
}
