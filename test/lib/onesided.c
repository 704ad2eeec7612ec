/* SPDX-License-Identifier: BSD-3-Clause */
#include "test/lib/onesided.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const char *why)
{
	fprintf(stderr, "one-sided client: %s: %s\n", what, why);
	abort();
}

void os_open(struct os *o, const struct daemon *d, const char *provider)
{
	os_open_as(o, d, provider, 0);
}

static bool own_domains(const struct daemon *d)
{
	for (const char *const *s = d->opts.set; s && *s; s++)
		if (strstr(*s, "layout_domain=client"))
			return true;
	return false;
}

void os_open_as(struct os *o, const struct daemon *d, const char *provider, uint8_t who)
{
	char port[16];
	struct tp_fabric_opts opts = { .name = "test", .provider = provider, .instance = { who } };

	opts.own.ask = !strcmp(provider, "tcp") && own_domains(d);
	snprintf(port, sizeof(port), "%u", d->fabric_port);
	opts.service = strcmp(provider, "shm") ? port : d->shm;
	opts.node = !strcmp(provider, "shm") ? NULL : who == 2 ? "::1" : "127.0.0.1";
	os_open_at(o, &opts);
}

void os_open_at(struct os *o, const struct tp_fabric_opts *opts)
{
	struct tp_error why = { "" };
	int err;

	*o = (struct os){ .cred = { .flavor = AUTH_SYS } };
	for (unsigned i = 0; i < 50; i++) {
		err = tp_client_open(opts, &o->c, &why);
		while (!err && tp_client_state(o->c, &why) == TP_CLIENT_CONNECTING)
			tp_client_wait(o->c, 1000);
		if (!err && tp_client_state(o->c, &why) == TP_CLIENT_UP)
			return;
		if (!err)
			tp_client_close(o->c);
	}
	die("connecting", why.text);
}

void os_close(struct os *o)
{
	tp_client_close(o->c);
	o->c = NULL;
}

bool os_up(struct os *o)
{
	tp_client_progress(o->c);
	return tp_client_state(o->c, NULL) == TP_CLIENT_UP;
}

/* --- calls --- */

struct os_asked {
	struct tp_req req;
	bool over;
	int err;
	bool_t (*decode)(XDR *x, void *out);
	void *out;
};

static void asked(struct tp_req *req, int err)
{
	struct os_asked *a = (struct os_asked *)(void *)req;

	if (!err && req->reply.ar_stat != SUCCESS)
		err = -EREMOTEIO;
	if (!err && !a->decode(&req->results, a->out))
		err = -EPROTO;
	a->err = err;
	a->over = true;
}

static void ask(struct os *o, struct os_asked *a, uint32_t proc, xdrproc_t encode, const void *args,
                bool_t (*decode)(XDR *x, void *out), void *out)
{
	XDR *x;

	*a = (struct os_asked){ .req = { .done = asked, .max_results = 8192 }, .decode = decode, .out = out };
	x = tp_req_begin(o->c, &a->req, LAYOUT_PROGRAM, LAYOUT_VERSION, proc, &o->cred, 4096);
	a->err = x && encode(x, (void *)(uintptr_t)args) ? tp_req_send(o->c, &a->req) : -ENOTCONN;
	a->over = a->err;
}

static int end(struct os *o, struct os_asked *a)
{
	while (!a->over)
		tp_client_wait(o->c, 1000);
	return a->err;
}

static int call(struct os *o, uint32_t proc, xdrproc_t encode, const void *args,
                bool_t (*decode)(XDR *x, void *out), void *out)
{
	struct os_asked a;

	ask(o, &a, proc, encode, args, decode, out);
	return end(o, &a);
}

static nfs_fh3 wire_fh(const struct berth_fh *fh)
{
	return (nfs_fh3){ .data = { .data_len = fh->len, .data_val = (char *)(uintptr_t)fh->data } };
}

static bool_t get_device(XDR *x, void *out)
{
	LAYOUTGETUUIDres *res = out;
	bool_t ok = xdr_LAYOUTGETUUIDres(x, res);

	if (ok && res->status == LAYOUT_OK) {
		free(res->LAYOUTGETUUIDres_u.device.reason);
		free(res->LAYOUTGETUUIDres_u.device.why_text);
		res->LAYOUTGETUUIDres_u.device.reason = res->LAYOUTGETUUIDres_u.device.why_text = NULL;
	}
	return ok;
}

int os_getuuid(struct os *o, const struct berth_fh *fh, LAYOUTGETUUIDres *out)
{
	LAYOUTGETUUIDargs args = { .file = wire_fh(fh) };

	memset(out, 0, sizeof(*out));
	return call(o, LAYOUTPROC_GETUUID, (xdrproc_t)xdr_LAYOUTGETUUIDargs, &args, get_device, out);
}

static bool_t get_map(XDR *x, void *out)
{
	struct os_map *m = out;
	LAYOUTMAPres res = { 0 };
	LAYOUTMAPresok *ok = &res.LAYOUTMAPres_u.resok;

	if (!xdr_LAYOUTMAPres(x, &res))
		return FALSE;
	m->status = res.status;
	if (m->status == LAYOUT_OK) {
		m->id = ok->id;
		m->generation = ok->generation;
		m->off = ok->offset;
		m->len = ok->length;
		m->lease = ok->lease;
		m->method = ok->method;
		m->n = ok->extents.extents_len;
		memcpy(m->ext, ok->extents.extents_val, m->n * sizeof(*m->ext));
	} else {
		m->why = res.LAYOUTMAPres_u.resfail.why;
	}
	xdr_free((xdrproc_t)xdr_LAYOUTMAPres, (char *)&res);
	return TRUE;
}

static LAYOUTMAPargs map_args(const struct berth_fh *fh, uint64_t off, uint64_t len, uint64_t min, layoutiomode mode)
{
	return (LAYOUTMAPargs){
		.file = wire_fh(fh), .offset = off, .length = len, .min_length = min, .iomode = mode
	};
}

int os_map(struct os *o, const struct berth_fh *fh, uint64_t off, uint64_t len, uint64_t min, layoutiomode mode,
           struct os_map *out)
{
	LAYOUTMAPargs args = map_args(fh, off, len, min, mode);

	memset(out, 0, sizeof(*out));
	return call(o, LAYOUTPROC_MAP, (xdrproc_t)xdr_LAYOUTMAPargs, &args, get_map, out);
}

struct os_asked *os_map_begin(struct os *o, const struct berth_fh *fh, uint64_t off, uint64_t len, layoutiomode mode)
{
	LAYOUTMAPargs args = map_args(fh, off, len, len, mode);
	struct os_asked *a = calloc(1, sizeof(*a));
	struct os_map *m = calloc(1, sizeof(*m));

	if (!a || !m)
		die("MAP", "memory");
	ask(o, a, LAYOUTPROC_MAP, (xdrproc_t)xdr_LAYOUTMAPargs, &args, get_map, m);
	return a;
}

bool os_asked_over(struct os *o, struct os_asked *a)
{
	tp_client_wait(o->c, 1);
	return a->over;
}

int os_map_end(struct os *o, struct os_asked *a, struct os_map *out)
{
	int err = end(o, a);

	*out = *(struct os_map *)a->out;
	free(a->out);
	free(a);
	return err;
}

static bool_t get_commit(XDR *x, void *out)
{
	struct os_commit *c = out;
	LAYOUTCOMMITres res = { 0 };
	LAYOUTCOMMITresok *ok = &res.LAYOUTCOMMITres_u.resok;

	if (!xdr_LAYOUTCOMMITres(x, &res))
		return FALSE;
	c->status = res.status;
	if (c->status != LAYOUT_OK)
		return TRUE;
	c->generation = ok->generation;
	c->size = ok->file_wcc.after.post_op_attr_u.attributes.size;
	c->committed = ok->committed;
	c->recalled = ok->recalled;
	memcpy(c->verf, ok->verf, sizeof(c->verf));
	return TRUE;
}

int os_commit_args(struct os *o, const LAYOUTCOMMITargs *args, struct os_commit *out)
{
	memset(out, 0, sizeof(*out));
	return call(o, LAYOUTPROC_COMMIT, (xdrproc_t)xdr_LAYOUTCOMMITargs, args, get_commit, out);
}

int os_commit(struct os *o, uint64_t id, uint64_t off, uint64_t len, struct os_commit *out)
{
	layoutrange r = { .offset = off, .length = len };
	LAYOUTCOMMITargs args = { .id = id, .ranges = { .ranges_len = len > 0, .ranges_val = &r } };

	return os_commit_args(o, &args, out);
}

static bool_t get_return(XDR *x, void *out)
{
	LAYOUTRETURNres res;

	if (!xdr_LAYOUTRETURNres(x, &res))
		return FALSE;
	*(layoutstat *)out = res.status;
	return TRUE;
}

int os_return(struct os *o, uint64_t id, layoutstat *out)
{
	LAYOUTRETURNargs args = { .id = id };

	return call(o, LAYOUTPROC_RETURN, (xdrproc_t)xdr_LAYOUTRETURNargs, &args, get_return, out);
}

static void forget(struct tp_req *req, int err)
{
	(void)err;
	free(req);
}

void os_return_begin(struct os *o, uint64_t id)
{
	struct tp_req *req = calloc(1, sizeof(*req));
	LAYOUTRETURNargs args = { .id = id };
	XDR *x;

	if (!req)
		die("RETURN", "memory");
	req->done = forget;
	req->max_results = 64;
	x = tp_req_begin(o->c, req, LAYOUT_PROGRAM, LAYOUT_VERSION, LAYOUTPROC_RETURN, &o->cred, 64);
	if (!x || !xdr_LAYOUTRETURNargs(x, &args) || tp_req_send(o->c, req))
		free(req);
}

void os_ignore(struct tp_rma *op, int err)
{
	(void)op;
	(void)err;
}

static bool_t get_renew(XDR *x, void *out)
{
	LAYOUTRENEWres res = { 0 };

	if (!xdr_LAYOUTRENEWres(x, &res) || res.status != LAYOUT_OK)
		return FALSE;
	memset(out, 0, sizeof(layoutnews));
	if (res.LAYOUTRENEWres_u.resok.news.news_len)
		*(layoutnews *)out = res.LAYOUTRENEWres_u.resok.news.news_val[0];
	xdr_free((xdrproc_t)xdr_LAYOUTRENEWres, (char *)&res);
	return TRUE;
}

int os_renew(struct os *o, uint64_t id, layoutnews *out)
{
	LAYOUTRENEWargs args = { .ids = { .ids_len = id > 0, .ids_val = (void *)&id } };

	return call(o, LAYOUTPROC_RENEW, (xdrproc_t)xdr_LAYOUTRENEWargs, &args, get_renew, out);
}

static bool_t get_nothing(XDR *x, void *out)
{
	(void)x;
	(void)out;
	return TRUE;
}

static bool_t put_nothing(XDR *x, ...)
{
	(void)x;
	return TRUE;
}

int os_null(struct os *o)
{
	return call(o, LAYOUTPROC_NULL, (xdrproc_t)put_nothing, NULL, get_nothing, NULL);
}

void os_spoil(struct os *o)
{
	struct tp_req *req = calloc(1, sizeof(*req));
	uint32_t reply = 1; /* msg_type of RFC 5531 */
	XDR *x;
	u_int end;

	if (!req)
		die("a spoilt call", "memory");
	req->done = forget;
	x = tp_req_begin(o->c, req, LAYOUT_PROGRAM, LAYOUT_VERSION, LAYOUTPROC_NULL, &o->cred, 4);
	end = x ? xdr_getpos(x) : 0;
	if (!x || !xdr_setpos(x, 4) || !xdr_uint32_t(x, &reply) || !xdr_setpos(x, end) || tp_req_send(o->c, req))
		die("a spoilt call", "cannot be sent");
	while (tp_client_state(o->c, NULL) == TP_CLIENT_UP)
		tp_client_wait(o->c, 1000);
}

/* --- what most tests begin with --- */

const char *const os_layouts_on[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric shm.layout_lease=30", NULL };

struct berth *os_session(const char *url)
{
	char root[160];
	struct berth_opts o = { .patience_ms = 20000 };
	struct berth_error why = { "" };
	struct berth *b = NULL;

	snprintf(root, sizeof(root), "%s/", url);
	cr_assert_eq(berth_connect(root, &o, &b, &why), 0, "%s: %s", root, why.text);
	return b;
}

struct berth_fh os_make(struct berth *b, const char *name, const void *buf, size_t len)
{
	struct berth_file *f;
	struct berth_fh fh;

	cr_assert_eq(berth_open(b, NULL, name, O_CREAT | O_RDWR, 0644, &f), 0);
	if (len)
		cr_assert_eq(berth_pwrite(f, buf, len, 0, BERTH_FILE_SYNC), (ssize_t)len);
	berth_file_fh(f, &fh);
	cr_assert_eq(berth_close(f), 0);
	return fh;
}

struct os_map os_mapped(struct os *o, const struct berth_fh *fh, uint64_t off, uint64_t len, layoutiomode mode)
{
	struct os_map m;

	cr_assert_eq(os_map(o, fh, off, len, mode == LAYOUT_RW ? len : 0, mode, &m), 0);
	cr_assert_eq(m.status, LAYOUT_OK);
	cr_assert(m.off <= off && m.off + m.len >= off + (mode == LAYOUT_RW ? len : 1));
	return m;
}

layoutstat os_news(struct os *o, uint64_t id)
{
	layoutnews news;

	cr_assert_eq(os_renew(o, id, &news), 0);
	return news.status;
}

layoutstat os_returned(struct os *o, uint64_t id)
{
	layoutstat stat = LAYOUT_OK;

	cr_assert_eq(os_return(o, id, &stat), 0);
	return stat;
}

/* --- RMA --- */

struct moving {
	struct tp_rma rma;
	bool over;
	int err;
};

static void moved(struct tp_rma *op, int err)
{
	struct moving *m = (struct moving *)(void *)op;

	m->over = true;
	m->err = err;
}

int os_rma(struct os *o, enum tp_rma_how how, void *buf, size_t len, uint64_t addr, uint64_t key)
{
	struct moving m = {
		.rma = { .how = how, .buf = buf, .len = len, .addr = addr, .key = key, .done = moved }
	};
	int err = tp_client_rma(o->c, &m.rma);

	while (!err && !m.over)
		tp_client_wait(o->c, 1000);
	return err ? err : m.err;
}

static int through(struct os *o, const struct os_map *m, enum tp_rma_how how, uint64_t off, uint8_t *buf, size_t len)
{
	while (len) {
		const layoutextent *e = NULL;
		uint64_t at, part;
		int err;

		for (unsigned i = 0; i < m->n; i++)
			if (off >= m->ext[i].offset && off < m->ext[i].offset + m->ext[i].length)
				e = &m->ext[i];
		if (!e || (!e->addr && !e->key))
			return -ENXIO;
		at = off - e->offset;
		part = e->length - at < len ? e->length - at : len;
		err = os_rma(o, how, buf, part, e->addr + at, e->key);
		if (err)
			return err;
		off += part;
		buf += part;
		len -= part;
	}
	return 0;
}

int os_put(struct os *o, const struct os_map *m, uint64_t off, const void *buf, size_t len)
{
	return through(o, m, TP_RMA_WRITE, off, (uint8_t *)(uintptr_t)buf, len);
}

int os_get(struct os *o, const struct os_map *m, uint64_t off, void *buf, size_t len)
{
	return through(o, m, TP_RMA_READ, off, buf, len);
}
