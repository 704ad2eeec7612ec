/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fabric client against a server that does as a script says: well behaved, wrong, hostile,
 * dying.
 *
 * The peer is a few libfabric calls on a thread of its own: it takes a message, hands it to the
 * script, and the script pulls, pushes and answers as it likes.
 */
#include "transport/client.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 40
#define BUF   8192

struct peer;
struct msg {
	struct rr_header h;
	struct rr_seg segs[RR_MAX_SEGS];
	const uint8_t *buf;
	size_t len;
	uint8_t *call; /* the RPC call, position-zero chunk pulled */
	size_t ncall;
	uint32_t proc;
	const uint8_t *args;
};
typedef void script(struct peer *p, struct msg *m);

struct rslot {
	struct fab_op op;
	struct peer *p;
	uint8_t buf[BUF];
	struct rslot *next;
};

struct peer {
	struct fab *f;
	struct fid_pep *pep;
	struct fid_ep *ep;
	struct fab_mr mr; /* of mem */
	uint8_t *mem;     /* where pulled payload lands and pushed payload comes from */
	const char *provider;
	char port[16];
	script *script;
	unsigned credits;
	pthread_t thread;
	_Atomic bool stop, let_go;
	struct rslot *slots, *ready, **last;
	bool dead;
	fi_addr_t to; /* shm: the client */
	struct rdv rdv;
	struct rdv_page *page;
	int listener;
	_Atomic unsigned calls, most; /* seen; most outstanding at once */
	unsigned held;
	struct msg keep[SLOTS];
	uint32_t max_inline;
};

#define MEM (8u << 20)

static void got(struct fab_op *op, int err)
{
	struct rslot *s = container_of(op, struct rslot, op);

	if (err)
		return;
	s->next = NULL;
	*s->p->last = s;
	s->p->last = &s->next;
}

static void waited(struct fab_op *op, int err)
{
	(void)err;
	*(bool *)(op + 1) = true;
}

struct wait_op {
	struct fab_op op;
	bool done;
};

static void settle(struct peer *p, struct wait_op *w)
{
	for (unsigned i = 0; !w->done && !p->stop && i < 20000; i++) {
		fab_progress(p->f, 64);
		if (i > 100)
			usleep(100);
	}
}

static void peer_send(struct peer *p, const void *buf, size_t len)
{
	struct wait_op w = { .op.done = waited };

	if (fab_send(p->f, p->ep, buf, len, NULL, p->to, &w.op))
		return;
	if (p->f->rdm)
		rdv_ring(&p->rdv);
	settle(p, &w);
}

static void rma(struct peer *p, bool write, uint8_t *at, const struct rr_seg *s, size_t len)
{
	struct wait_op w = { .op.done = waited };
	struct iovec v = { at, len };
	void *desc = p->mr.desc;
	int err;

	if (!len)
		return;
	err = write ? fab_write(p->f, p->ep, &v, &desc, 1, p->to, s->offset, s->handle, &w.op)
	            : fab_read(p->f, p->ep, &v, &desc, 1, p->to, s->offset, s->handle, &w.op);
	if (!err)
		settle(p, &w);
}

static size_t pull(struct peer *p, const struct msg *m, const struct rr_chunk *c, uint8_t *at)
{
	size_t n = 0;

	for (unsigned i = 0; i < c->n; i++) {
		rma(p, false, at + n, &m->segs[c->first + i], m->segs[c->first + i].length);
		n += m->segs[c->first + i].length;
	}
	return n;
}

static void push(struct peer *p, const struct msg *m, const struct rr_chunk *c, uint8_t *from,
                 size_t n)
{
	for (unsigned i = 0; i < c->n && n; i++) {
		const struct rr_seg *s = &m->segs[c->first + i];
		size_t k = n < s->length ? n : s->length;

		rma(p, true, from, s, k);
		from += k;
		n -= k;
	}
}

static uint32_t word(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

static size_t put(uint8_t *b, size_t at, uint32_t v)
{
	v = htonl(v);
	memcpy(b + at, &v, 4);
	return at + 4;
}

/* --- a well-behaved server ---
 * 0: nothing. 1 STORE: (tag, opaque<>) -> (tag, length, sum). 2 FETCH: (tag, n) -> (tag, opaque<>
 * of n bytes). 3 WORDS: (n, w...) -> (n, w...), long both ways. */
static size_t reply_head(const struct msg *m, uint8_t *b)
{
	size_t n = put(b, 0, m->h.xid);

	n = put(b, n, 1);
	for (unsigned i = 0; i < 4; i++)
		n = put(b, n, 0);
	return n;
}

static void answer(struct peer *p, struct msg *m, const uint8_t *rpc, size_t n, size_t pushed)
{
	struct rr_header h = { .xid = m->h.xid, .credits = p->credits, .proc = RR_MSG };
	uint8_t out[BUF];
	size_t at;

	h.nwrites = m->h.nwrites;
	memcpy(h.write, m->h.write, sizeof(h.write));
	for (unsigned i = 0; i < h.nwrites; i++)
		rr_chunk_used(&h.write[i], m->segs, i ? 0 : pushed);
	if (rr_size(&h) + n > p->max_inline) {
		h.proc = RR_NOMSG;
		h.has_reply = m->h.has_reply;
		h.reply = m->h.reply;
		memcpy(p->mem + MEM / 2, rpc, n);
		push(p, m, &m->h.reply, p->mem + MEM / 2, n);
		rr_chunk_used(&h.reply, m->segs, n);
		n = 0;
	}
	at = rr_encode(&h, m->segs, out, sizeof(out));
	memcpy(out + at, rpc, n);
	peer_send(p, out, at + n);
}

static void serve(struct peer *p, struct msg *m)
{
	static uint8_t rpc[1 << 20];
	size_t n = reply_head(m, rpc), pushed = 0;

	if (m->proc == 1) {
		uint32_t len = word(m->args + 4), sum = 0;
		const uint8_t *data = m->args + 8;
		const struct rr_chunk *c = m->h.nreads ? &m->h.read[m->h.nreads - 1] : NULL;

		if (c && c->position) {
			cr_assert_eq(c->position, (size_t)(data - m->call));
			cr_assert_eq(pull(p, m, c, p->mem), len);
			data = p->mem;
		}
		for (uint32_t i = 0; i < len; i++)
			sum = sum * 31 + data[i];
		n = put(rpc, n, word(m->args));
		n = put(rpc, n, len);
		n = put(rpc, n, sum);
	} else if (m->proc == 2) {
		uint32_t len = word(m->args + 4);

		for (uint32_t i = 0; i < len; i++)
			p->mem[i] = (uint8_t)(word(m->args) + i * 7);
		push(p, m, &m->h.write[0], p->mem, len);
		pushed = len;
		n = put(rpc, n, word(m->args));
		n = put(rpc, n, len);
	} else if (m->proc == 3) {
		uint32_t k = word(m->args);

		memcpy(rpc + n, m->args, 4 + 4 * (size_t)k);
		n += 4 + 4 * (size_t)k;
	}
	answer(p, m, rpc, n, pushed);
}

static void hold(struct peer *p, struct msg *m);
static void release(struct peer *p);

/* --- its machinery --- */

static void take(struct peer *p, struct rslot *s)
{
	struct msg *m = calloc(1, sizeof(*m));
	uint8_t *long_call = NULL;

	m->buf = s->buf;
	m->len = s->op.len;
	if (!rr_decode(s->buf, s->op.len, &m->h, m->segs, RR_MAX_SEGS)) {
		m->call = s->buf + m->h.size;
		m->ncall = s->op.len - m->h.size;
		if (m->h.proc == RR_NOMSG && m->h.nreads) {
			m->ncall = pull(p, m, &m->h.read[0], p->mem + MEM / 2);
			long_call = malloc(m->ncall);
			memcpy(long_call, p->mem + MEM / 2, m->ncall);
			m->call = long_call;
		}
		if (m->ncall >= 40) {
			m->proc = word(m->call + 20);
			m->args = m->call + 40 + word(m->call + 28);
		}
		p->calls++;
		p->script(p, m);
	}
	fab_recv(p->f, p->ep, s->buf, BUF, NULL, &s->op);
	free(long_call);
	free(m);
}

static void events_msg(struct peer *p)
{
	struct fab_event ev;

	while (fab_eq_read(p->f, &ev) > 0) {
		if (ev.event == FI_CONNREQ && !p->ep) {
			uint8_t data[RR_CM_SIZE];

			cr_assert_eq(fab_ep_open(p->f, ev.info, NULL, &p->ep), 0);
			for (unsigned i = 0; i < SLOTS; i++)
				fab_recv(p->f, p->ep, p->slots[i].buf, BUF, NULL, &p->slots[i].op);
			rr_cm_encode(data, p->max_inline, p->max_inline);
			fi_accept(p->ep, data, sizeof(data));
			fi_freeinfo(ev.info);
		} else if (ev.event == FI_CONNREQ) {
			fi_reject(p->pep, ev.info->handle, NULL, 0);
			fi_freeinfo(ev.info);
		}
	}
}

/* The client's hello, our answer; afterwards its doorbell, which is no use to one that never
 * sleeps. */
static void events_rdm(struct peer *p)
{
	struct rdv_hello h;

	if (p->dead || p->stop)
		return;
	if (p->rdv.fd < 0 && rdv_accept(p->f, p->listener, &p->rdv)) {
		p->rdv.fd = -1;
		return;
	}
	if (p->ep) {
		rdv_drain(&p->rdv);
		return;
	}
	if (rdv_recv_hello(&p->rdv, &h))
		return;
	cr_assert_eq(fi_av_insert(p->f->av, h.addr, 1, &p->to, 0, NULL), 1);
	p->ep = p->f->ep;
	for (unsigned i = 0; i < SLOTS; i++)
		fab_recv(p->f, p->ep, p->slots[i].buf, BUF, NULL, &p->slots[i].op);
	h = (struct rdv_hello){ .addr_len = (uint32_t)p->f->addr_len,
		                .inline_size = p->max_inline,
		                .credits = 1,
		                .ring = true };
	memcpy(h.addr, p->f->addr, p->f->addr_len);
	cr_assert_eq(rdv_answer(&p->rdv, p->page, &h), 0);
}

static void events(struct peer *p)
{
	if (p->f->rdm)
		events_rdm(p);
	else
		events_msg(p);
}

static void hang_up(struct peer *p)
{
	if (!p->ep)
		return;
	if (p->f->rdm) {
		rdv_page_put(p->page, &p->rdv);
		rdv_close(&p->rdv);
	} else {
		fab_ep_close(p->f, p->ep);
	}
	p->ep = NULL;
}

static void *peer_main(void *arg)
{
	struct peer *p = arg;

	while (!p->stop) {
		struct rslot *s;

		events(p);
		if (fab_progress(p->f, 64) <= 0)
			usleep(200);
		while ((s = p->ready) && !p->dead) {
			p->ready = s->next;
			if (!p->ready)
				p->last = &p->ready;
			take(p, s);
		}
		if (p->dead)
			hang_up(p);
		if (p->let_go && p->held)
			release(p);
	}
	return NULL;
}

static void peer_listen(struct peer *p, const struct tp_fabric_opts *o)
{
	struct sockaddr_in sin;
	size_t len = sizeof(sin);
	struct tp_error why;

	p->to = FI_ADDR_UNSPEC;
	p->rdv.fd = -1;
	if (p->f->rdm) {
		cr_assert_eq(rdv_listen(p->f, o, &p->listener, &why), 0, "%s", why.text);
		cr_assert_eq(rdv_page_new(&p->page), 0);
		return;
	}
	cr_assert_eq(fi_passive_ep(p->f->fabric, p->f->info, &p->pep, NULL), 0);
	cr_assert_eq(fi_pep_bind(p->pep, &p->f->eq->fid, 0), 0);
	cr_assert_eq(fi_listen(p->pep), 0);
	cr_assert_eq(fi_getname(&p->pep->fid, &sin, &len), 0);
	snprintf(p->port, sizeof(p->port), "%u", ntohs(sin.sin_port));
}

static struct peer *peer_start_on(const char *provider, script *fn)
{
	struct peer *p = calloc(1, sizeof(*p));
	bool shm = !strcmp(provider, "shm");
	struct tp_fabric_opts o = { .provider = provider,
		                    .node = shm ? NULL : "127.0.0.1",
		                    .service = "0" };
	struct tp_error why;

	if (shm)
		o.service = p->port;
	snprintf(p->port, sizeof(p->port), "t-%d", getpid());
	p->provider = provider;
	p->script = fn;
	p->credits = 8;
	p->max_inline = 4096;
	p->last = &p->ready;
	cr_assert_eq(fab_open(&o, FAB_SERVER, &p->f, &why), 0, "%s", why.text);
	p->slots = calloc(SLOTS, sizeof(*p->slots));
	for (unsigned i = 0; i < SLOTS; i++) {
		p->slots[i].p = p;
		p->slots[i].op.done = got;
	}
	p->mem = malloc(MEM);
	cr_assert_eq(fab_mr_open(p->f, p->mem, MEM, FI_READ | FI_WRITE, &p->mr), 0);
	peer_listen(p, &o);
	cr_assert_eq(pthread_create(&p->thread, NULL, peer_main, p), 0);
	return p;
}

static void peer_stop(struct peer *p)
{
	p->stop = true;
	pthread_join(p->thread, NULL);
	hang_up(p);
	if (p->f->rdm) {
		rdv_page_free(p->page);
		close(p->listener);
		fab_ep_close(p->f, p->f->ep);
		p->f->ep = NULL;
	} else {
		fi_close(&p->pep->fid);
	}
	while (fab_progress(p->f, 64) > 0)
		;
	fab_mr_close(p->f, &p->mr);
	fab_close(p->f);
	free(p->slots);
	free(p->mem);
	free(p);
}

/* --- the client's side --- */

static struct tp_client *dial_with(const struct peer *p, unsigned credits, int want_state)
{
	bool shm = p->provider && !strcmp(p->provider, "shm");
	struct tp_fabric_opts o = { .provider = shm ? "shm" : "tcp",
		                    .node = shm ? NULL : "127.0.0.1",
		                    .service = p->port,
		                    .credits = credits };
	struct tp_client *c;
	struct tp_error why;

	cr_assert_eq(tp_client_open(&o, &c, &why), 0, "%s", why.text);
	for (unsigned i = 0; i < 100 && tp_client_state(c, NULL) == TP_CLIENT_CONNECTING; i++)
		tp_client_wait(c, 100);
	cr_assert_eq(tp_client_state(c, &why), want_state, "%s", why.text);
	return c;
}

static struct tp_client *dial(const struct peer *p)
{
	return dial_with(p, 0, TP_CLIENT_UP);
}

struct ask {
	struct tp_req req;
	int err, times;
	uint32_t got[4];
	struct iovec v[4];
	uint32_t *list;
};

static void told(struct tp_req *req, int err)
{
	struct ask *a = container_of(req, struct ask, req);

	a->err = err;
	a->times++;
	if (err)
		return;
	for (unsigned i = 0; i < 4; i++)
		if (!xdr_u_int32_t(&req->results, &a->got[i]))
			break;
}

static int begin(struct tp_client *c, struct ask *a, uint32_t proc, unsigned n, const uint32_t *w)
{
	struct tp_cred cred = {
		.flavor = AUTH_SYS, .uid = 1, .gid = 2, .ngids = 2, .gids = { 3, 4 }
	};
	XDR *x = tp_req_begin(c, &a->req, 99, 1, proc, &cred, 4 * n);

	if (!a->req.done)
		a->req.done = told;
	a->err = 1;
	cr_assert(x);
	for (unsigned i = 0; i < n; i++) {
		uint32_t v = w[i];

		cr_assert(xdr_u_int32_t(x, &v));
	}
	return tp_req_send(c, &a->req);
}

static void until(struct tp_client *c, const int *times, int want)
{
	for (unsigned i = 0; i < 100 && *times < want && tp_client_state(c, NULL) != TP_CLIENT_DOWN;
	     i++)
		tp_client_wait(c, 100);
	cr_assert_geq(*times, want);
}

static uint32_t sum_of(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;

	while (n--)
		sum = sum * 31 + *p++;
	return sum;
}

static void store(struct tp_client *c, uint8_t *data, size_t len, unsigned pieces)
{
	struct ask a = { 0 };
	size_t at = 0;

	for (unsigned i = 0; i < pieces; i++) {
		size_t n = i + 1 == pieces ? len - at : len / pieces;

		a.v[i] = (struct iovec){ data + at, n };
		at += n;
	}
	a.req.out = a.v;
	a.req.nout = pieces;
	a.req.max_results = 12;
	cr_assert_eq(begin(c, &a, 1, 1, (uint32_t[]){ 77 }), 0);
	until(c, &a.times, 1);
	cr_assert_eq(a.err, 0, "%zu bytes: %d", len, a.err);
	cr_assert_eq(a.got[0], 77);
	cr_assert_eq(a.got[1], len);
	cr_assert_eq(a.got[2], sum_of(data, len), "%zu bytes in %u pieces", len, pieces);
}

static void fetch(struct tp_client *c, uint8_t *into, size_t len, size_t room, unsigned pieces)
{
	struct ask a = { 0 };
	size_t at = 0;

	memset(into, 0xee, room);
	for (unsigned i = 0; i < pieces; i++) {
		size_t n = i + 1 == pieces ? room - at : room / pieces;

		a.v[i] = (struct iovec){ into + at, n };
		at += n;
	}
	a.req.in = a.v;
	a.req.nin = pieces;
	a.req.max_results = 8;
	cr_assert_eq(begin(c, &a, 2, 2, (uint32_t[]){ 5, (uint32_t)len }), 0);
	until(c, &a.times, 1);
	cr_assert_eq(a.err, 0, "%zu bytes: %d", len, a.err);
	cr_assert_eq(a.req.in_len, len);
	cr_assert_eq(a.got[1], len);
	for (size_t i = 0; i < room; i++)
		cr_assert_eq(into[i], i < len ? (uint8_t)(5 + i * 7) : 0xee, "byte %zu of %zu", i,
		             len);
}

TestSuite(client_tcp, .timeout = 60);
TestSuite(client_shm, .timeout = 60);

/* What follows is true of FI_EP_MSG and of FI_EP_RDM. */
#define ON_BOTH(name)                                                                              \
	static void name(const char *fabric);                                                      \
	Test(client_tcp, name)                                                                     \
	{                                                                                          \
		name("tcp");                                                                       \
	}                                                                                          \
	Test(client_shm, name)                                                                     \
	{                                                                                          \
		name("shm");                                                                       \
	}                                                                                          \
	static void name(const char *fabric)

ON_BOTH(payload_goes_out_whole_inline_and_by_chunk)
{
	static const size_t lens[] = { 0, 1, 3, 4, 1000, 3900, 3990, 4000, 4097, 65536, 1000001 };
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);
	uint8_t *data = malloc(1 << 20);

	for (size_t i = 0; i < 1 << 20; i++)
		data[i] = (uint8_t)(i * i + i / 251);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		for (unsigned pieces = 1; pieces <= 4; pieces += 3)
			store(c, data + i, lens[i], pieces);
	tp_client_close(c);
	peer_stop(p);
	free(data);
}

ON_BOTH(payload_comes_in_where_it_belongs)
{
	static const size_t lens[] = { 0, 1, 4, 511, 4096, 70000, 1000001 };
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);
	uint8_t *into = malloc(1 << 20);

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		fetch(c, into, lens[i], lens[i] + 5, 1);
		fetch(c, into + 1, lens[i], lens[i] + 5, 4);
	}
	tp_client_close(c);
	peer_stop(p);
	free(into);
}

static void listed(struct tp_req *req, int err)
{
	struct ask *a = container_of(req, struct ask, req);
	uint32_t n = 0;

	a->err = err;
	a->times++;
	if (err)
		return;
	cr_assert(xdr_u_int32_t(&req->results, &n));
	cr_assert_eq(n, a->list[0]);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t w;

		cr_assert(xdr_u_int32_t(&req->results, &w));
		cr_assert_eq(w, a->list[1 + i]);
	}
}

ON_BOTH(long_arguments_and_long_results_travel_by_chunks)
{
	static const uint32_t counts[] = { 0, 10, 900, 990, 1000, 1024, 5000, 100000 };
	uint32_t *w = malloc(4 * 100001);
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct ask a = { .req.done = listed,
			         .list = w,
			         .req.max_results = 4 + 4 * counts[i] };

		w[0] = counts[i];
		for (uint32_t k = 1; k <= counts[i]; k++)
			w[k] = k * 2654435761u;
		cr_assert_eq(begin(c, &a, 3, 1 + counts[i], w), 0);
		until(c, &a.times, 1);
		cr_assert_eq(a.err, 0, "%u words: %d", counts[i], a.err);
	}
	tp_client_close(c);
	peer_stop(p);
	free(w);
}

/* --- credits --- */

/* Holds calls until told to answer; remembers how many came at once. */
static void hold(struct peer *p, struct msg *m)
{
	p->keep[p->held++] = *m;
	if (p->held > p->most)
		p->most = p->held;
}

static void release(struct peer *p)
{
	while (p->held) {
		p->keep[--p->held].args = NULL;
		p->keep[p->held].proc = 0;
		serve(p, &p->keep[p->held]);
	}
}

/* The first argument says what to do: 0 hold, 1 answer all. */
static void hold_or_release(struct peer *p, struct msg *m)
{
	uint32_t what = word(m->args);

	m->proc = 0;
	hold(p, m);
	if (what)
		release(p);
}

ON_BOTH(one_call_until_the_first_reply_then_as_granted)
{
	static const struct {
		unsigned want, grant, most;
	} cases[] = { { 16, 8, 8 }, { 4, 8, 4 }, { 16, 0, 1 }, { 16, ~0u, 16 }, { 1, 1, 1 } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct peer *p = peer_start_on(fabric, hold_or_release);
		struct tp_client *c = dial_with(p, cases[i].want, TP_CLIENT_UP);
		unsigned most = cases[i].most, n = 1 + 2 * most;
		struct ask *a = calloc(n, sizeof(*a));

		p->credits = cases[i].grant;
		/* The first is answered at once; of the others the last of each batch lets the
		 * batch go. */
		for (unsigned k = 0; k < n; k++)
			cr_assert_eq(begin(c, &a[k], 0, 1, (uint32_t[]){ k % most == 0 }), 0);
		for (unsigned k = 0; k < n; k++) {
			until(c, &a[k].times, 1);
			cr_assert_eq(a[k].err, 0);
		}
		cr_assert_eq(p->most, most, "case %zu: %u at once", i, p->most);
		tp_client_close(c);
		peer_stop(p);
		free(a);
	}
}

/* --- servers that are wrong --- */

static void say_err_vers(struct peer *p, struct msg *m)
{
	uint8_t b[RR_MIN];

	if (m->proc != 9) {
		serve(p, m);
		return;
	}
	peer_send(p, b, rr_encode_error(b, m->h.xid, 8, word(m->args)));
}

ON_BOTH(an_rdma_error_fails_its_call_only)
{
	struct peer *p = peer_start_on(fabric, say_err_vers);
	struct tp_client *c = dial(p);
	struct ask a[3] = { 0 };

	begin(c, &a[0], 9, 1, (uint32_t[]){ RR_ERR_VERS });
	begin(c, &a[1], 9, 1, (uint32_t[]){ RR_ERR_CHUNK });
	begin(c, &a[2], 0, 0, NULL);
	until(c, &a[2].times, 1);
	cr_assert_eq(a[0].err, -EPROTONOSUPPORT);
	cr_assert_eq(a[1].err, -EPROTO);
	cr_assert_eq(a[2].err, 0);
	tp_client_close(c);
	peer_stop(p);
}

static void say_rpc(struct peer *p, struct msg *m)
{
	static const uint32_t replies[][8] = {
		{ 1, 0, 0, 0, 1 },       /* PROG_UNAVAIL */
		{ 1, 0, 0, 0, 2, 3, 4 }, /* PROG_MISMATCH 3..4 */
		{ 1, 0, 0, 0, 4 },       /* GARBAGE_ARGS */
		{ 1, 1, 1, 5 },          /* denied: AUTH_TOOWEAK */
		{ 1, 1, 0, 2, 2 },       /* denied: RPC_MISMATCH */
	};
	const uint32_t *r = replies[word(m->args)];
	uint8_t rpc[64];
	size_t n = put(rpc, 0, m->h.xid);

	for (unsigned i = 0; i < 8; i++)
		n = put(rpc, n, r[i]);
	answer(p, m, rpc, n, 0);
}

ON_BOTH(rpc_errors_reach_the_caller)
{
	struct peer *p = peer_start_on(fabric, say_rpc);
	struct tp_client *c = dial(p);
	struct ask a[5] = { 0 };

	for (uint32_t i = 0; i < 5; i++) {
		begin(c, &a[i], 9, 1, &i);
		until(c, &a[i].times, 1);
	}
	cr_assert(a[0].err == 0 && a[0].req.reply.ar_stat == PROG_UNAVAIL);
	cr_assert(a[1].err == 0 && a[1].req.reply.ar_stat == PROG_MISMATCH);
	cr_assert(a[1].req.reply.ar_vers.low == 3 && a[1].req.reply.ar_vers.high == 4);
	cr_assert(a[2].err == 0 && a[2].req.reply.ar_stat == GARBAGE_ARGS);
	cr_assert(a[3].err == -EACCES && a[3].req.auth_why == AUTH_TOOWEAK);
	cr_assert(a[4].err == -EPROTONOSUPPORT);
	tp_client_close(c);
	peer_stop(p);
}

enum {
	LIE_JUNK,
	LIE_SHORT,
	LIE_VERS,
	LIE_NOMSG,
	LIE_MORE_WRITES,
	LIE_MORE_SEGS,
	LIE_LONGER,
	LIE_HOLES,
	LIE_READS,
	LIE_RPC_XID,
	LIE_RPC_CUT,
	LIE_RPC_CALL,
	LIE_REPLY_LONGER,
	LIES
};

static void lie(struct peer *p, struct msg *m)
{
	struct rr_header h = { .xid = m->h.xid, .credits = 8, .proc = RR_MSG };
	struct rr_seg s[8] = { { 0 } };
	uint8_t b[BUF] = { 0 }, rpc[64];
	size_t n = reply_head(m, rpc), at;

	h.nwrites = 1;
	h.write[0] = (struct rr_chunk){ .n = m->h.write[0].n };
	switch (word(m->args)) {
	case LIE_JUNK:
		memset(b, 0x5a, 100);
		peer_send(p, b, 100);
		return;
	case LIE_SHORT:
		peer_send(p, b, 12);
		return;
	case LIE_NOMSG:
		h.proc = RR_NOMSG;
		break;
	case LIE_MORE_WRITES:
		h.nwrites = 2;
		h.write[1] = (struct rr_chunk){ .n = 1 };
		break;
	case LIE_MORE_SEGS:
		h.write[0].n++;
		break;
	case LIE_LONGER:
		s[0].length = 1001;
		break;
	case LIE_HOLES:
		s[1].length = 5;
		break;
	case LIE_READS:
		h.nreads = 1;
		h.read[0] = (struct rr_chunk){ .n = 1 };
		break;
	case LIE_RPC_XID:
		put(rpc, 0, m->h.xid + 1);
		break;
	case LIE_RPC_CUT:
		n = 16;
		break;
	case LIE_RPC_CALL:
		put(rpc, 4, 0);
		break;
	case LIE_REPLY_LONGER:
		h.proc = RR_NOMSG;
		h.has_reply = true;
		h.reply = (struct rr_chunk){ .first = 4, .n = 1 };
		s[4].length = ~0u;
		break;
	}
	at = rr_encode(&h, s, b, sizeof(b));
	if (word(m->args) == LIE_VERS)
		put(b, 4, 2);
	memcpy(b + at, rpc, n);
	peer_send(p, b, at + n);
}

ON_BOTH(a_server_that_lies_loses_the_connection_and_every_call_ends_once)
{
	for (uint32_t what = 0; what < LIES; what++) {
		struct peer *p = peer_start_on(fabric, lie);
		struct tp_client *c = dial(p);
		uint8_t room[2][1000];
		struct ask a = { 0 }, b = { 0 };
		struct tp_error why = { "" };

		a.v[0] = (struct iovec){ room[0], 1000 };
		a.v[1] = (struct iovec){ room[1], 1000 };
		a.req.in = a.v;
		a.req.nin = 2;
		a.req.max_results = what == LIE_REPLY_LONGER ? 100000 : 8;
		cr_assert_eq(begin(c, &a, 9, 1, &what), 0);
		cr_assert_eq(begin(c, &b, 0, 0, NULL), 0); /* queued behind it */
		for (unsigned i = 0; i < 100 && tp_client_state(c, &why) != TP_CLIENT_DOWN; i++)
			tp_client_wait(c, 100);
		cr_assert_eq(tp_client_state(c, &why), TP_CLIENT_DOWN, "lie %u was believed", what);
		cr_assert(a.times == 1 && b.times == 1 && a.err < 0 && b.err < 0);
		cr_assert(strstr(why.text, fabric), "%s", why.text);
		cr_assert_eq(begin(c, &b, 0, 0, NULL), -ENOTCONN);
		tp_client_close(c);
		cr_assert(a.times == 1 && b.times == 1);
		peer_stop(p);
	}
}

static void mumble(struct peer *p, struct msg *m)
{
	uint8_t b[RR_MIN];

	peer_send(p, b, rr_encode_error(b, m->h.xid + 1, 8, RR_ERR_CHUNK)); /* nobody's */
	serve(p, m);
	serve(p, m); /* and once more */
}

ON_BOTH(replies_nobody_waits_for_are_ignored)
{
	struct peer *p = peer_start_on(fabric, mumble);
	struct tp_client *c = dial(p);

	for (unsigned i = 0; i < 200; i++) {
		struct ask a = { 0 };

		begin(c, &a, 0, 0, NULL);
		until(c, &a.times, 1);
		cr_assert(a.err == 0 && a.times == 1);
	}
	tp_client_close(c);
	peer_stop(p);
}

/* --- endings --- */

static void die(struct peer *p, struct msg *m)
{
	(void)m;
	p->dead = true;
}

ON_BOTH(the_servers_end_is_noticed_and_all_calls_fail_once)
{
	struct peer *p = peer_start_on(fabric, die);
	struct tp_client *c = dial(p);
	uint8_t *data = calloc(1, 1 << 20);
	struct ask a[40] = { 0 };

	for (unsigned i = 0; i < 40; i++) {
		a[i].v[0] = (struct iovec){ data, 1 << 20 };
		a[i].req.out = a[i].v;
		a[i].req.nout = 1;
		cr_assert_eq(begin(c, &a[i], 1, 1, (uint32_t[]){ 1 }), 0);
	}
	for (unsigned i = 0; i < 100 && tp_client_state(c, NULL) != TP_CLIENT_DOWN; i++)
		tp_client_wait(c, 100);
	for (unsigned i = 0; i < 40; i++)
		cr_assert(a[i].times == 1 && a[i].err == -ECONNRESET, "call %u: %d", i, a[i].err);
	cr_assert_lt(tp_client_progress(c), 0);
	tp_client_close(c);
	peer_stop(p);
	free(data);
}

ON_BOTH(closing_cancels_what_is_out)
{
	struct peer *p = peer_start_on(fabric, hold);
	struct tp_client *c = dial(p);
	struct ask a[10] = { 0 };

	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(begin(c, &a[i], 0, 0, NULL), 0);
	tp_client_close(c);
	for (unsigned i = 0; i < 10; i++)
		cr_assert(a[i].times == 1 && a[i].err == -ECANCELED);
	peer_stop(p);
}

struct closer {
	struct ask a;
	struct tp_client *c;
};

static void close_it(struct tp_req *req, int err)
{
	struct closer *k = container_of(req, struct closer, a.req);

	k->a.err = err;
	k->a.times++;
	tp_client_close(k->c);
}

ON_BOTH(a_callback_may_close_the_client)
{
	struct peer *p = peer_start_on(fabric, serve);
	struct closer k = { .a.req.done = close_it };
	struct ask other = { 0 };

	k.c = dial(p);
	begin(k.c, &k.a, 0, 0, NULL);
	begin(k.c, &other, 0, 0, NULL);
	while (!k.a.times)
		tp_client_wait(k.c, 100);
	cr_assert_eq(k.a.err, 0);
	cr_assert(other.times == 1 && other.err == -ECANCELED);
	peer_stop(p);
}

Test(client_tcp, nobody_there_is_an_error_with_a_text)
{
	struct peer *p = peer_start_on("tcp", serve);
	struct peer gone = { 0 };
	struct tp_error why;

	memcpy(gone.port, p->port, sizeof(gone.port));
	peer_stop(p);
	for (int i = 0; i < 20; i++) { /* whatever comes first: receives flushed, or the event */
		struct tp_client *c = dial_with(&gone, 0, TP_CLIENT_DOWN);
		struct ask a = { 0 };

		tp_client_state(c, &why);
		cr_assert(strstr(why.text, "cannot connect: Connection refused"), "%s", why.text);
		cr_assert_eq(tp_client_progress(c), -ECONNREFUSED);
		cr_assert_eq(begin(c, &a, 0, 0, NULL), -ENOTCONN);
		cr_assert_eq(a.times, 0);
		tp_client_close(c);
	}
}

/* --- registrations --- */

static unsigned kept(struct tp_client *c)
{
	struct tp_mr *mr;
	unsigned n = 0;

	TAILQ_FOREACH (mr, &c->mrs, link)
		n += !mr->callers;
	return n;
}

ON_BOTH(the_cache_keeps_64_ranges_and_lets_the_oldest_go)
{
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);
	uint8_t *data = calloc(100, 8192);

	for (unsigned i = 0; i < 100; i++)
		store(c, data + 8192 * i, 8192, 1);
	cr_assert_eq(kept(c), CLIENT_CACHE);
	struct tp_mr *first = TAILQ_FIRST(&c->mrs), *last = TAILQ_LAST(&c->mrs, client_mrs);

	cr_assert_eq(first->mr.base, data + 8192 * 99);
	cr_assert_eq(last->mr.base, data + 8192 * 36);
	store(c, data + 8192 * 36 + 100, 5000,
	      1); /* lies in the oldest: used again, now the newest */
	cr_assert_eq(TAILQ_FIRST(&c->mrs), last);
	cr_assert_eq(kept(c), CLIENT_CACHE);
	tp_client_close(c);
	peer_stop(p);
	free(data);
}

ON_BOTH(registered_memory_is_used_in_place)
{
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);
	uint8_t *data = calloc(1, 1 << 20);
	struct tp_mr *mr;

	cr_assert_eq(tp_client_register(c, data, 1 << 20, &mr), 0);
	store(c, data + 3, 500000, 2);
	fetch(c, data + 7, 300000, 300001, 3);
	cr_assert_eq(kept(c), 0);
	tp_client_unregister(c, mr);
	store(c, data, 500000, 1);
	cr_assert_eq(kept(c), 1);
	tp_client_close(c);
	peer_stop(p);
	free(data);
}

ON_BOTH(memory_unregistered_while_a_call_uses_it_stays_until_the_reply)
{
	struct peer *p = peer_start_on(fabric, hold_or_release);
	struct tp_client *c = dial(p);
	uint8_t *data = calloc(1, 1 << 16);
	struct ask first = { 0 }, a = { 0 }, b = { 0 };
	struct tp_mr *mr;

	begin(c, &first, 0, 1, (uint32_t[]){ 1 });
	until(c, &first.times, 1);
	cr_assert_eq(tp_client_register(c, data, 1 << 16, &mr), 0);
	a.v[0] = (struct iovec){ data, 1 << 16 };
	a.req.out = a.v;
	a.req.nout = 1;
	begin(c, &a, 0, 1, (uint32_t[]){ 0 });
	tp_client_unregister(c, mr);
	cr_assert_eq(TAILQ_FIRST(&c->mrs), mr);
	begin(c, &b, 0, 1, (uint32_t[]){ 1 });
	until(c, &a.times, 1);
	cr_assert(TAILQ_EMPTY(&c->mrs));
	until(c, &b.times, 1);
	tp_client_close(c);
	peer_stop(p);
	free(data);
}

ON_BOTH(a_request_too_scattered_for_a_message_is_refused)
{
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);
	struct iovec *v = calloc(1000, sizeof(*v));
	uint8_t *data = calloc(1000, 64);
	struct ask a = { 0 };

	for (unsigned i = 0; i < 1000; i++)
		v[i] = (struct iovec){ data + 64 * i, 60 };
	a.req.in = v;
	a.req.nin = 300;
	cr_assert_eq(begin(c, &a, 2, 0, NULL), -EMSGSIZE);
	a.req.nin = 1000;
	cr_assert_eq(begin(c, &a, 2, 0, NULL), -E2BIG);
	cr_assert_eq(a.times, 0);
	store(c, data, 5000, 1); /* and nothing is hurt */
	tp_client_close(c);
	peer_stop(p);
	free(v);
	free(data);
}

static void again(struct tp_req *req, int err)
{
	struct ask *a = container_of(req, struct ask, req);

	a->err = err;
	if (++a->times < 500 && !err) {
		struct tp_client *c = (struct tp_client *)(void *)a->list;
		XDR *x = tp_req_begin(c, req, 99, 1, 0, NULL, 0);

		cr_assert(x);
		cr_assert_eq(tp_req_send(c, req), 0);
	}
}

ON_BOTH(a_callback_may_send_the_next_call)
{
	struct peer *p = peer_start_on(fabric, serve);
	struct tp_client *c = dial(p);
	struct ask a[20] = { 0 };

	for (unsigned i = 0; i < 20; i++) {
		a[i].req.done = again;
		a[i].list = (uint32_t *)(void *)c;
		cr_assert_eq(begin(c, &a[i], 0, 0, NULL), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		while (a[i].times < 500)
			tp_client_wait(c, 100);
		cr_assert_eq(a[i].err, 0);
	}
	tp_client_close(c);
	peer_stop(p);
}

/* --- sleep --- */

/* Whatever is to be done before it may sleep; returns for how long it may. */
static int to_bed(struct tp_client *c)
{
	int ms = 0, n;

	for (unsigned i = 0; i < 1000000; i++) {
		n = tp_client_before_poll(c, &ms);
		if (!n)
			return ms;
		cr_assert_eq(n, -EAGAIN);
		cr_assert_geq(tp_client_progress(c), 0);
	}
	cr_assert_fail("never goes to sleep");
	return 0;
}

ON_BOTH(a_client_at_rest_sleeps_until_a_message_wakes_it)
{
	struct peer *p = peer_start_on(fabric, hold);
	struct tp_client *c = dial(p);
	struct ask a = { 0 };

	cr_assert_eq(to_bed(c), -1, "nothing is out, and yet it wants to wake up");
	cr_assert_eq(begin(c, &a, 0, 0, NULL), 0);
	while (!p->most) /* the first send of an shm client takes a few turns */
		tp_client_wait(c, 1);
	to_bed(c);
	p->let_go = true;

	struct pollfd fd = { .fd = tp_client_fd(c), .events = POLLIN };

	cr_assert_eq(poll(&fd, 1, 20000), 1, "the reply did not wake it");
	until(c, &a.times, 1);
	cr_assert_eq(a.err, 0);
	cr_assert_eq(to_bed(c), -1);
	tp_client_close(c);
	peer_stop(p);
}
