/* SPDX-License-Identifier: BSD-3-Clause */
/* layout.c - the LAYOUT program's calls, encoded and decoded. The server's numbers are checked where they are used. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/layout.h"

#define RESULTS_SMALL 1024
#define RESULTS_MAP   (LAYOUT_MAX_EXTENTS * 40 + 1024)
#define RESULTS_RENEW (LAYOUT_MAX_IDS * 24 + 256)

static int layout_errno(layoutstat status)
{
	switch (status) {
	case LAYOUTERR_JUKEBOX:
	case LAYOUTERR_TOOMANY:
		return -EAGAIN; /* there is another way than to wait */
	case LAYOUTERR_UNAVAILABLE:
		return -EOPNOTSUPP;
	case LAYOUTERR_BADLAYOUT:
		return -EKEYEXPIRED;
	case LAYOUTERR_RECALLED:
		return -EKEYREVOKED;
	default:
		return nfs_errno((unsigned)status);
	}
}

const char *layout_method_name(layoutmethod m)
{
	static const char *const name[] = { "",         "fence",           "clwb",            "msync",
		                            "volatile", "commit-complete", "read-after-write" };

	return (unsigned)m < sizeof(name) / sizeof(*name) ? name[m] : "unknown";
}

static struct nfs_fh3 to_fh(const struct berth_fh *fh)
{
	return (struct nfs_fh3){ .data = { .data_len = fh->len, .data_val = (char *)fh->data } };
}

static void take_text(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text ? text : "");
	for (; *to; to++) /* a stranger's words for our terminal */
		if ((unsigned char)*to < 32 || *to == 127)
			*to = '?';
}

static unsigned lease_ms(unsigned seconds)
{
	return seconds < 86400 ? seconds * 1000 : 86400000;
}

static int decode_facts(struct op *op, XDR *x)
{
	struct layout_facts *out = op->extra;
	struct LAYOUTGETUUIDres res;
	int err = -EPROTO;

	memset(&res, 0, sizeof(res));
	if (xdr_LAYOUTGETUUIDres(x, &res)) {
		const struct layoutdevice *d = &res.LAYOUTGETUUIDres_u.device;

		err = layout_errno(res.status);
		if (!err) {
			out->recall_ms = d->recall_msec;
			out->lease_ms = lease_ms(d->lease);
			out->none = d->why != LAYOUT_WHY_NONE;
			out->elsewhere = d->why == LAYOUT_WHY_CONNECTION;
			out->none_rw = out->none || d->why_rw != LAYOUT_WHY_NONE;
			take_text(out->why, sizeof(out->why), d->why_text);
		}
	}
	xdr_free((xdrproc_t)xdr_LAYOUTGETUUIDres, &res);
	return err;
}

static enum extent_state to_state(layoutstate s)
{
	return s == LAYOUT_VALID     ? EXTENT_VALID :
	       s == LAYOUT_UNWRITTEN ? EXTENT_UNWRITTEN :
	       s == LAYOUT_HOLE      ? EXTENT_HOLE :
	                               EXTENT_UNKNOWN; /* refused by extents_set() */
}

static int take_map(struct layout_mapped *out, const struct LAYOUTMAPresok *ok)
{
	*out = (struct layout_mapped){ .id = ok->id,
		                       .generation = ok->generation,
		                       .off = ok->offset,
		                       .len = ok->length,
		                       .lease_ms = lease_ms(ok->lease),
		                       .method = ok->method,
		                       .n = ok->extents.extents_len };
	if (!out->n || !out->id)
		return -EPROTO;
	out->e = calloc(out->n, sizeof(*out->e));
	if (!out->e)
		return -ENOMEM;
	for (unsigned i = 0; i < out->n; i++) {
		const struct layoutextent *e = &ok->extents.extents_val[i];

		out->e[i] = (struct extent){ e->offset, e->length, to_state(e->state), e->addr, e->key };
	}
	out->has_size = ok->attributes.attributes_follow;
	if (out->has_size)
		out->size = ok->attributes.post_op_attr_u.attributes.size;
	return 0;
}

static int decode_map(struct op *op, XDR *x)
{
	struct layout_mapped *out = op->extra;
	struct LAYOUTMAPres res;
	int err = -EPROTO;

	memset(&res, 0, sizeof(res));
	if (xdr_LAYOUTMAPres(x, &res)) {
		err = layout_errno(res.status);
		if (!err)
			err = take_map(out, &res.LAYOUTMAPres_u.resok);
		else
			take_text(out->why, sizeof(out->why), res.LAYOUTMAPres_u.resfail.text);
	}
	xdr_free((xdrproc_t)xdr_LAYOUTMAPres, &res);
	return err;
}

static int decode_commit(struct op *op, XDR *x)
{
	struct layout_committed *out = op->extra;
	struct LAYOUTCOMMITres res;
	int err = -EPROTO;

	memset(&res, 0, sizeof(res));
	if (xdr_LAYOUTCOMMITres(x, &res)) {
		const struct LAYOUTCOMMITresok *ok = &res.LAYOUTCOMMITres_u.resok;

		err = layout_errno(res.status);
		if (!err) {
			out->generation = ok->generation;
			out->lease_ms = lease_ms(ok->lease);
			out->recalled = ok->recalled;
			out->stable = ok->committed == FILE_SYNC;
			memcpy(out->verf, ok->verf, sizeof(out->verf));
			op->b->count.layout_commits++;
		}
	}
	xdr_free((xdrproc_t)xdr_LAYOUTCOMMITres, &res);
	return err;
}

static int decode_return(struct op *op, XDR *x)
{
	struct LAYOUTRETURNres res;

	(void)op;
	return xdr_LAYOUTRETURNres(x, &res) ? layout_errno(res.status) : -EPROTO;
}

static int decode_nothing(struct op *op, XDR *x)
{
	(void)op;
	(void)x;
	return 0;
}

static int decode_renew(struct op *op, XDR *x)
{
	struct layout_renewed *out = op->extra;
	struct LAYOUTRENEWres res;
	int err = -EPROTO;

	memset(&res, 0, sizeof(res));
	if (xdr_LAYOUTRENEWres(x, &res)) {
		const struct LAYOUTRENEWresok *ok = &res.LAYOUTRENEWres_u.resok;

		err = layout_errno(res.status);
		if (!err) {
			out->lease_ms = lease_ms(ok->lease);
			out->n = ok->news.news_len;
			for (unsigned i = 0; i < out->n; i++)
				out->news[i] = ok->news.news_val[i];
		}
	}
	xdr_free((xdrproc_t)xdr_LAYOUTRENEWres, &res);
	return err;
}

static int begin(struct berth *b, uint32_t proc, xdrproc_t enc, void *args,
                 int (*decode)(struct op *op, XDR *x), void *out, size_t max_results, berth_done *done,
                 void *arg)
{
	struct op *op = op_new(b, LAYOUT_PROGRAM, proc, enc, args, decode, done, arg);

	if (!op)
		return -ENOMEM;
	op->extra = out; /* not the operation's to free */
	op->max_results = max_results;
	op->once = true;
	op_start(op);
	return 0;
}

int layout_start_facts(struct berth *b, const struct berth_fh *fh, struct layout_facts *out, berth_done *done,
                       void *arg)
{
	struct LAYOUTGETUUIDargs a = { .file = to_fh(fh) };

	return begin(b, LAYOUTPROC_GETUUID, (xdrproc_t)xdr_LAYOUTGETUUIDargs, &a, decode_facts, out, RESULTS_SMALL,
	             done, arg);
}

int layout_start_map(struct berth *b, const struct berth_fh *fh, uint64_t off, uint64_t len, bool rw,
                     struct layout_mapped *out, berth_done *done, void *arg)
{
	struct LAYOUTMAPargs a = { .file = to_fh(fh),
		                   .offset = off,
		                   .length = len,
		                   .min_length = 1,
		                   .iomode = rw ? LAYOUT_RW : LAYOUT_READ };

	return begin(b, LAYOUTPROC_MAP, (xdrproc_t)xdr_LAYOUTMAPargs, &a, decode_map, out, RESULTS_MAP, done, arg);
}

int layout_start_commit(struct berth *b, uint64_t id, const struct layoutrange *r, unsigned n,
                        struct layout_committed *out, berth_done *done, void *arg)
{
	struct LAYOUTCOMMITargs a = { .id = id, .ranges = { .ranges_len = n, .ranges_val = (void *)r } };

	return begin(b, LAYOUTPROC_COMMIT, (xdrproc_t)xdr_LAYOUTCOMMITargs, &a, decode_commit, out, RESULTS_SMALL,
	             done, arg);
}

int layout_start_return(struct berth *b, uint64_t id, berth_done *done, void *arg)
{
	struct LAYOUTRETURNargs a = { .id = id };

	return begin(b, LAYOUTPROC_RETURN, (xdrproc_t)xdr_LAYOUTRETURNargs, &a, decode_return, NULL, RESULTS_SMALL,
	             done, arg);
}

int layout_start_null(struct berth *b, berth_done *done, void *arg)
{
	return begin(b, LAYOUTPROC_NULL, NULL, NULL, decode_nothing, NULL, RESULTS_SMALL, done, arg);
}

int layout_start_renew(struct berth *b, struct layout_renewed *out, berth_done *done, void *arg)
{
	struct LAYOUTRENEWargs a = { { 0 } };

	return begin(b, LAYOUTPROC_RENEW, (xdrproc_t)xdr_LAYOUTRENEWargs, &a, decode_renew, out, RESULTS_RENEW,
	             done, arg);
}
