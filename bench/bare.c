/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bare.h"

enum { PATIENCE_MS = 10000, EVENT = 512 };

struct meeting { /* what an end tells the other */
	char name[128];
	size_t len;
	uint16_t port; /* in network order */
	uint64_t addr, key;
	int32_t err;
};

/* --- queues ------------------------------------------------------------------------------------------------- */

struct bare_op *bare_op_get(struct bare_end *e, enum bare_what what, unsigned conn, unsigned slot)
{
	struct bare_op *op = e->idle;

	if (op) {
		e->idle = op->next;
	} else {
		op = calloc(1, sizeof(*op));
		if (!op)
			abort();
		op->older = e->made;
		e->made = op;
	}
	op->what = what;
	op->conn = conn;
	op->slot = slot;
	return op;
}

void bare_op_put(struct bare_end *e, struct bare_op *op)
{
	op->next = e->idle;
	e->idle = op;
}

static int cq_error(struct bare_end *e)
{
	struct fi_cq_err_entry why = { 0 };

	return fi_cq_readerr(e->cq, &why, 0) == 1 && why.err ? -why.err : -EIO;
}

/* Completions into the ring: their number, or what broke. */
static int pump(struct bare_end *e)
{
	struct fi_cq_msg_entry ev[16];
	ssize_t n = fi_cq_read(e->cq, ev, 16);

	for (ssize_t i = 0; i < n; i++)
		e->ring[e->tail++ % e->ring_len] = ev[i].op_context;
	return n == -FI_EAVAIL ? cq_error(e) : n == -FI_EAGAIN ? 0 : (int)n;
}

struct bare_op *bare_next(struct bare_end *e, int *err)
{
	struct fid *fid = &e->cq->fid;
	struct pollfd p[2] = { { .fd = e->fd, .events = POLLIN }, { .fd = e->meet, .events = POLLIN } };

	*err = 0;
	if (e->head == e->tail) {
		int n = pump(e);

		if (!n && e->fd < 0)
			sched_yield();
		else if (!n && !fi_trywait(e->fabric, &fid, 1) && poll(p, 2, 1000) > 0 && p[1].revents)
			n = -EPIPE; /* nothing is said there any more: it was closed */
		*err = n < 0 ? n : 0;
	}
	return e->head == e->tail ? NULL : e->ring[e->head++ % e->ring_len];
}

/* Repeat a post until the provider takes it. */
#define POST(e, call)                                                       \
	({                                                                  \
		ssize_t n_;                                                 \
		int err_ = 0;                                               \
		while ((n_ = (call)) == -FI_EAGAIN && (err_ = pump(e)) >= 0) \
			;                                                   \
		err_ < 0 ? err_ : (int)n_;                                  \
	})

static char *message(struct bare_end *e, unsigned conn, unsigned slot, bool received)
{
	return e->msg + ((size_t)(received ? e->neps * e->depth : 0) + conn * e->depth + slot) * BARE_MESSAGE;
}

int bare_recv(struct bare_end *e, unsigned conn, char *msg)
{
	struct bare_op *op = bare_op_get(e, BARE_GOT, conn, 0);

	op->msg = msg;
	return POST(e, fi_recv(e->ep[conn], msg, BARE_MESSAGE, fi_mr_desc(e->msg_mr), FI_ADDR_UNSPEC, &op->ctx));
}

int bare_send(struct bare_end *e, unsigned conn, unsigned slot, const void *head, size_t head_len, size_t len)
{
	char *msg = message(e, conn, slot, false);
	struct bare_op *op = bare_op_get(e, BARE_SENT, conn, slot);

	memcpy(msg, head, head_len);
	return POST(e, fi_send(e->ep[conn], msg, len, fi_mr_desc(e->msg_mr), e->peer, &op->ctx));
}

int bare_read(struct bare_end *e, unsigned conn, char *at, size_t len, uint64_t addr, uint64_t key, struct bare_op *op)
{
	return POST(e, fi_read(e->ep[conn], at, len, fi_mr_desc(e->data_mr), e->peer, addr, key, &op->ctx));
}

int bare_write(struct bare_end *e, unsigned conn, char *at, size_t len, uint64_t addr, uint64_t key, struct bare_op *op)
{
	return POST(e, fi_write(e->ep[conn], at, len, fi_mr_desc(e->data_mr), e->peer, addr, key, &op->ctx));
}

int bare_write_durable(struct bare_end *e, unsigned conn, char *at, size_t len, uint64_t addr, uint64_t key,
		       struct bare_op *op)
{
	void *desc = fi_mr_desc(e->data_mr);
	struct iovec iov = { at, len };
	struct fi_rma_iov rma = { addr, len, key };
	struct fi_msg_rma m = { .msg_iov = &iov, .desc = &desc, .iov_count = 1, .addr = e->peer, .rma_iov = &rma,
				.rma_iov_count = 1, .context = &op->ctx };

	return POST(e, fi_writemsg(e->ep[conn], &m, FI_COMPLETION | (e->commit ? FI_COMMIT_COMPLETE : 0)));
}

uint64_t bare_base(const struct bare_end *e)
{
	return e->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)e->data : 0;
}

/* --- opening ------------------------------------------------------------------------------------------------ */

static int find(struct bare_end *e, const struct bare_shape *s, const char *service, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	if (!hints)
		return -ENOMEM;
	hints->ep_attr->type = e->msg_ep ? FI_EP_MSG : FI_EP_RDM;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(s->provider);
	err = fi_getinfo(FI_VERSION(1, 17), e->msg_ep ? s->node : NULL, service, flags, hints, &e->info);
	fi_freeinfo(hints);
	return err;
}

static int open_domain(struct bare_end *e)
{
	struct fi_cq_attr ca = { .format = FI_CQ_FORMAT_MSG, .size = (size_t)e->neps * e->depth * 4 + 64,
				 .wait_obj = e->msg_ep ? FI_WAIT_FD : FI_WAIT_NONE };
	int err = fi_fabric(e->info->fabric_attr, &e->fabric, NULL);

	err = err ? err : fi_domain(e->fabric, e->info, &e->domain, NULL);
	err = err ? err : fi_cq_open(e->domain, &ca, &e->cq, NULL);
	if (!err && e->msg_ep) {
		err = fi_eq_open(e->fabric, &(struct fi_eq_attr){ .wait_obj = FI_WAIT_UNSPEC }, &e->eq, NULL);
		err = err ? err : fi_control(&e->cq->fid, FI_GETWAIT, &e->fd);
	} else if (!err) {
		err = fi_av_open(e->domain, &(struct fi_av_attr){ .type = FI_AV_TABLE }, &e->av, NULL);
	}
	return err;
}

static int open_memory(struct bare_end *e, size_t len, uint64_t key)
{
	int err;

	e->msg_len = ((size_t)e->neps * e->depth * 2 * BARE_MESSAGE + 4095) & ~(size_t)4095;
	e->msg = aligned_alloc(4096, e->msg_len);
	e->ring_len = e->neps * e->depth * 8 + 64;
	e->ring = calloc(e->ring_len, sizeof(*e->ring));
	e->ep = calloc(e->neps, sizeof(*e->ep));
	if (!e->msg || !e->ring || !e->ep)
		return -ENOMEM;
	memset(e->msg, 0, e->msg_len);
	err = fi_mr_reg(e->domain, e->msg, e->msg_len, FI_SEND | FI_RECV, 0, key, 0, &e->msg_mr, NULL);
	return err ? err : fi_mr_reg(e->domain, e->data, len, FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE, 0,
				     key + 1, 0, &e->data_mr, NULL);
}

/* @first: it listens. */
static int open_all(struct bare_end *e, const struct bare_shape *s, const char *port, bool first, size_t len)
{
	int err = find(e, s, e->msg_ep ? port : NULL, e->msg_ep && first ? FI_SOURCE : 0);

	err = err ? err : open_domain(e);
	err = err ? err : open_memory(e, len, first ? 1 : 3);
	if (err)
		return err;
	e->ordered = e->info->tx_attr->msg_order & FI_ORDER_SAW;
	e->commit = e->info->caps & FI_RMA_PMEM;
	return 0;
}

/* Its queues, and receives for as many messages as may come. */
static int open_ep(struct bare_end *e, unsigned conn, struct fi_info *info)
{
	int err;

	info->tx_attr->size = info->tx_attr->size < e->depth * 2 && !e->msg_ep ? e->depth * 2 : info->tx_attr->size;
	err = fi_endpoint(e->domain, info, &e->ep[conn], NULL);
	err = err ? err : fi_ep_bind(e->ep[conn], &e->cq->fid, FI_SEND | FI_RECV);
	err = err ? err : fi_ep_bind(e->ep[conn], e->msg_ep ? &e->eq->fid : &e->av->fid, 0);
	err = err ? err : fi_enable(e->ep[conn]);
	for (unsigned i = 0; !err && i < e->depth; i++)
		err = bare_recv(e, conn, message(e, conn, i, true));
	return err;
}

/* --- meeting ------------------------------------------------------------------------------------------------ */

static int tell(const struct bare_end *e, struct meeting *m, int err)
{
	m->err = err;
	return send(e->meet, m, sizeof(*m), MSG_NOSIGNAL) == sizeof(*m) ? err : err ? err : -EPIPE;
}

int bare_refuse(int meet, int err)
{
	struct bare_end none = { .meet = meet };

	return tell(&none, &(struct meeting){ .len = 0 }, err);
}

static int hear(const struct bare_end *e, struct meeting *m)
{
	return recv(e->meet, m, sizeof(*m), MSG_WAITALL) == sizeof(*m) ? m->err : -EPIPE;
}

/* The next event of a connection, which must be @want; of a request its fi_info, yours to free. */
static int event(struct bare_end *e, uint32_t want, struct fi_info **info)
{
	union {
		struct fi_eq_cm_entry cm;
		uint8_t room[EVENT];
	} ev;
	struct fi_eq_err_entry why = { 0 };
	uint32_t what = 0;
	ssize_t n = fi_eq_sread(e->eq, &what, &ev, sizeof(ev), PATIENCE_MS, 0);

	if (n == -FI_EAVAIL)
		return fi_eq_readerr(e->eq, &why, 0) > 0 && why.err ? -why.err : -EIO;
	if (n < 0)
		return n == -FI_EAGAIN ? -ETIMEDOUT : (int)n;
	if (what != want)
		return -ECONNREFUSED;
	if (info)
		*info = ev.cm.info;
	return 0;
}

static void begin(struct bare_end *e, const struct bare_shape *s, char *data, int meet)
{
	memset(e, 0, sizeof(*e));
	e->msg_ep = !strcmp(s->provider, "tcp") || !strcmp(s->provider, "verbs");
	e->neps = e->msg_ep ? s->conns : 1;
	e->depth = e->msg_ep ? s->depth : s->depth * s->conns;
	e->fd = -1;
	e->meet = meet;
	e->data = data;
}

static int listen_at(struct bare_end *e, struct meeting *me)
{
	struct sockaddr_in6 at = { 0 }; /* a port is at the same place in both families */
	size_t len = sizeof(at);
	int err = fi_passive_ep(e->fabric, e->info, &e->pep, NULL);

	err = err ? err : fi_pep_bind(e->pep, &e->eq->fid, 0);
	err = err ? err : fi_listen(e->pep);
	err = err ? err : fi_getname(&e->pep->fid, &at, &len);
	me->port = at.sin6_port;
	return err;
}

static int accept_one(struct bare_end *e, unsigned conn)
{
	struct fi_info *info = NULL;
	int err = event(e, FI_CONNREQ, &info);

	err = err ? err : open_ep(e, conn, info);
	err = err ? err : fi_accept(e->ep[conn], NULL, 0);
	if (info)
		fi_freeinfo(info);
	return err ? err : event(e, FI_CONNECTED, NULL);
}

static int address_of(struct bare_end *e, struct meeting *me)
{
	int err = open_ep(e, 0, e->info);

	me->len = sizeof(me->name);
	return err ? err : fi_getname(&e->ep[0]->fid, me->name, &me->len);
}

static int insert(struct bare_end *e, const struct meeting *you)
{
	memcpy(e->left, you->name, sizeof(e->left));
	return fi_av_insert(e->av, you->name, 1, &e->peer, 0, NULL) == 1 ? 0 : -EIO;
}

int bare_serve(struct bare_end *e, const struct bare_shape *s, char *data, size_t len, int meet)
{
	struct meeting me = { .len = 0 }, you;
	int err;

	begin(e, s, data, meet);
	err = open_all(e, s, "0", true, len);
	err = err ? err : e->msg_ep ? listen_at(e, &me) : address_of(e, &me);
	me.addr = err ? 0 : bare_base(e);
	me.key = err ? 0 : fi_mr_key(e->data_mr);
	err = tell(e, &me, err);
	err = err ? err : hear(e, &you);
	for (unsigned i = 0; !err && e->msg_ep && i < e->neps; i++)
		err = accept_one(e, i);
	if (!err && !e->msg_ep)
		err = insert(e, &you);
	return tell(e, &me, err);
}

static int connect_one(struct bare_end *e, unsigned conn)
{
	int err = open_ep(e, conn, e->info);

	err = err ? err : fi_connect(e->ep[conn], e->info->dest_addr, NULL, 0);
	return err ? err : event(e, FI_CONNECTED, NULL);
}

int bare_connect(struct bare_end *e, const struct bare_shape *s, char *data, size_t len, int meet)
{
	struct meeting me = { .len = 0 }, you = { .len = 0 };
	char port[8];
	int err;

	begin(e, s, data, meet);
	err = hear(e, &you);
	snprintf(port, sizeof(port), "%u", (unsigned)ntohs(you.port));
	err = err ? err : open_all(e, s, port, false, len);
	if (!err && !e->msg_ep)
		err = address_of(e, &me);
	e->addr = you.addr;
	e->key = you.key;
	err = tell(e, &me, err);
	for (unsigned i = 0; !err && e->msg_ep && i < e->neps; i++)
		err = connect_one(e, i);
	if (!err && !e->msg_ep)
		err = insert(e, &you);
	return err ? err : hear(e, &you);
}

void bare_close(struct bare_end *e)
{
	for (unsigned i = 0; e->ep && i < e->neps; i++)
		if (e->ep[i])
			fi_close(&e->ep[i]->fid);
	struct fid *rest[] = { e->pep ? &e->pep->fid : NULL, e->data_mr ? &e->data_mr->fid : NULL,
			       e->msg_mr ? &e->msg_mr->fid : NULL, e->cq ? &e->cq->fid : NULL, e->av ? &e->av->fid : NULL,
			       e->eq ? &e->eq->fid : NULL, e->domain ? &e->domain->fid : NULL,
			       e->fabric ? &e->fabric->fid : NULL };
	for (unsigned i = 0; i < sizeof(rest) / sizeof(*rest); i++)
		if (rest[i])
			fi_close(rest[i]);
	if (e->info)
		fi_freeinfo(e->info);
	while (e->made) { /* also what was posted and never came back */
		struct bare_op *op = e->made;

		e->made = op->older;
		free(op);
	}
	free(e->ring);
	free(e->ep);
	free(e->msg);
	memset(e, 0, sizeof(*e));
}
