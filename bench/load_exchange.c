/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_exchange.c - the floor of fabrics: the same bytes in the same pattern by bare libfabric calls
 *
 *   no data      fi_send of the request                     fi_send of the reply
 *   READ         fi_send of the request      fi_write       fi_send of the reply
 *   WRITE        fi_send of the request      fi_read        fi_send of the reply
 *   put, get     fi_writemsg (over tcp with FI_COMMIT_COMPLETE), fi_read: by the client alone
 *
 * The server process does nothing else: no RPC, no file, no persistence; its memory lies on tmpfs. FI_EP_MSG waits on
 * its queue's descriptor. FI_EP_RDM (shm) has none and polls; there all connections share one pair of endpoints.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/load.h"
#include "bench/media.h"

enum { REQUEST = 200, REPLY = 144, MESSAGE = 256 }; /* bytes: about those of a WRITE call and its reply */

struct wire_msg { /* the first bytes of a request, and of a reply */
	uint32_t way, len, conn, slot;
	uint64_t at, addr, key;
};
enum what { GOT, SENT, MOVED };
struct job { /* one posted operation; free again at its completion */
	struct fi_context2 ctx; /* first */
	enum what what;
	unsigned conn, slot;
	char *msg;   /* GOT: where */
	struct job *next;
};
struct end { /* one of the two processes */
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_ep **ep; /* FI_EP_RDM: one */
	unsigned neps, depth;
	struct fid_mr *msg_mr, *data_mr;
	char *msg, *data; /* messages: one to send from for each connection and slot, then those received */
	size_t msg_len;
	fi_addr_t peer;
	int fd; /* of the queue; -1: poll */
	bool msg_ep, server;
	struct job *idle;
	struct job **ring; /* completions read, not yet looked at */
	unsigned head, tail, ring_len;
};
struct exchange {
	struct bench_client b;
	struct end e;
	uint64_t addr, key; /* of the server's memory */
	pid_t pid;
	char name[128]; /* of its endpoint, shm */
	bool commit; /* a put may ask for FI_COMMIT_COMPLETE */
};

/* --- both ends ---------------------------------------------------------------------------------------------- */

static int find(struct end *e, const char *provider, const char *service, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	e->msg_ep = !strcmp(provider, "tcp") || !strcmp(provider, "verbs");
	e->fd = -1;
	hints->ep_attr->type = e->msg_ep ? FI_EP_MSG : FI_EP_RDM;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(provider);
	err = fi_getinfo(FI_VERSION(1, 17), e->msg_ep ? "127.0.0.1" : NULL, service, flags, hints, &e->info);
	fi_freeinfo(hints);
	return err;
}

static int open_domain(struct end *e, size_t data_len)
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
	e->msg_len = ((size_t)e->neps * e->depth * 2 * MESSAGE + 4095) & ~(size_t)4095;
	e->msg = aligned_alloc(4096, e->msg_len);
	e->ring_len = e->neps * e->depth * 8 + 64;
	e->ring = calloc(e->ring_len, sizeof(*e->ring));
	e->ep = calloc(e->neps, sizeof(*e->ep));
	if (!e->msg || !e->ring || !e->ep || !e->data)
		return -ENOMEM;
	memset(e->msg, 0, e->msg_len);
	err = err ? err : fi_mr_reg(e->domain, e->msg, e->msg_len, FI_SEND | FI_RECV, 0, 1, 0, &e->msg_mr, NULL);
	return err ? err : fi_mr_reg(e->domain, e->data, data_len,
				     FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE, 0, e->server ? 2 : 3, 0,
				     &e->data_mr, NULL);
}

static int open_ep(struct end *e, unsigned conn, struct fi_info *info)
{
	int err;

	info->tx_attr->size = info->tx_attr->size < e->depth * 2 && !e->msg_ep ? e->depth * 2 : info->tx_attr->size;
	err = fi_endpoint(e->domain, info, &e->ep[conn], NULL);
	err = err ? err : fi_ep_bind(e->ep[conn], &e->cq->fid, FI_SEND | FI_RECV);
	err = err ? err : fi_ep_bind(e->ep[conn], e->msg_ep ? &e->eq->fid : &e->av->fid, 0);
	return err ? err : fi_enable(e->ep[conn]);
}

static struct job *job_get(struct end *e, enum what what, unsigned conn, unsigned slot)
{
	struct job *j = e->idle;

	if (j)
		e->idle = j->next;
	else if (!(j = calloc(1, sizeof(*j))))
		abort();
	j->what = what;
	j->conn = conn;
	j->slot = slot;
	return j;
}

static void job_put(struct end *e, struct job *j)
{
	j->next = e->idle;
	e->idle = j;
}

/* Completions into the ring: their number, or what broke. */
static int pump(struct end *e)
{
	struct fi_cq_msg_entry ev[16];
	ssize_t n = fi_cq_read(e->cq, ev, 16);

	for (ssize_t i = 0; i < n; i++)
		e->ring[e->tail++ % e->ring_len] = ev[i].op_context;
	return n == -FI_EAGAIN ? 0 : (int)n;
}

/* The next completion, NULL: none yet. */
static struct job *next_job(struct end *e, int *err)
{
	struct fid *fid = &e->cq->fid;
	struct pollfd p = { .fd = e->fd, .events = POLLIN };

	*err = 0;
	if (e->head == e->tail) {
		int n = pump(e);

		*err = n < 0 ? n : 0;
		if (!n && e->fd < 0)
			sched_yield();
		else if (!n && !fi_trywait(e->fabric, &fid, 1))
			poll(&p, 1, 1000);
	}
	return e->head == e->tail ? NULL : e->ring[e->head++ % e->ring_len];
}

static char *message(struct end *e, unsigned conn, unsigned slot, bool received)
{
	return e->msg + ((size_t)(received ? e->neps * e->depth : 0) + conn * e->depth + slot) * MESSAGE;
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

static int post_recv(struct end *e, unsigned conn, char *msg)
{
	struct job *j = job_get(e, GOT, conn, 0);

	j->msg = msg;
	return POST(e, fi_recv(e->ep[conn], msg, MESSAGE, fi_mr_desc(e->msg_mr), FI_ADDR_UNSPEC, &j->ctx));
}

static int post_recvs(struct end *e, unsigned conn)
{
	int err = 0;

	for (unsigned i = 0; !err && i < e->depth; i++)
		err = post_recv(e, conn, message(e, conn, i, true));
	return err;
}

static int post_send(struct end *e, unsigned conn, unsigned slot, const struct wire_msg *m, size_t len)
{
	char *msg = message(e, conn, slot, false);
	struct job *j = job_get(e, SENT, conn, slot);

	memcpy(msg, m, sizeof(*m));
	return POST(e, fi_send(e->ep[conn], msg, len, fi_mr_desc(e->msg_mr), e->peer, &j->ctx));
}

/* --- server ------------------------------------------------------------------------------------------------- */

static int reply_to(struct end *e, unsigned conn, unsigned slot)
{
	struct wire_msg m = { .conn = conn, .slot = slot };

	return post_send(e, conn, slot, &m, REPLY);
}

static int answer(struct end *e, struct job *got)
{
	bool ordered = e->info->tx_attr->msg_order & FI_ORDER_SAW;
	void *desc = fi_mr_desc(e->data_mr);
	unsigned conn = got->conn;
	struct wire_msg m;
	struct job *j;
	int err;

	memcpy(&m, got->msg, sizeof(m));
	err = post_recv(e, conn, got->msg);
	if (err || m.way == WAY_NONE || m.slot >= e->depth || m.at + m.len > LOAD_SPAN)
		return err ? err : reply_to(e, conn, m.slot);
	j = job_get(e, MOVED, conn, m.slot);
	if (m.way == WAY_OUT)
		return POST(e, fi_read(e->ep[conn], e->data + m.at, m.len, desc, e->peer, m.addr, m.key, &j->ctx));
	j->what = ordered ? SENT : MOVED; /* a reply may go out right behind a write that it cannot overtake */
	err = POST(e, fi_write(e->ep[conn], e->data + m.at, m.len, desc, e->peer, m.addr, m.key, &j->ctx));
	return err || !ordered ? err : reply_to(e, conn, m.slot);
}

static _Noreturn void serve(struct end *e)
{
	for (;;) {
		int err;
		struct job *j = next_job(e, &err);

		if (j && j->what == GOT)
			err = answer(e, j);
		else if (j && j->what == MOVED)
			err = reply_to(e, j->conn, j->slot);
		if (j)
			job_put(e, j);
		if (err)
			_exit(1);
	}
}

static int accept_one(struct end *e, unsigned conn)
{
	struct fi_eq_cm_entry *ev = calloc(1, sizeof(*ev) + 256);
	uint32_t event;
	int err = fi_eq_sread(e->eq, &event, ev, sizeof(*ev) + 256, 10000, 0) < 0 ? -EIO : 0;

	err = err ? err : open_ep(e, conn, ev->info);
	err = err ? err : post_recvs(e, conn);
	err = err ? err : fi_accept(e->ep[conn], NULL, 0);
	if (!err && fi_eq_sread(e->eq, &event, ev, sizeof(*ev) + 256, 10000, 0) < 0)
		err = -EIO;
	free(ev);
	return err;
}

struct meeting { /* what the two processes tell each other through a pair of sockets */
	char name[128];
	size_t len;
	uint16_t port;
	uint64_t addr, key;
};

static uint64_t base_of(const struct end *e)
{
	return e->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)e->data : 0;
}

static _Noreturn void server(const char *provider, struct end *e, int fd)
{
	struct meeting me = { .len = sizeof(me.name) }, you;
	struct fid_pep *pep;
	struct sockaddr_in in;
	size_t len = sizeof(in);
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	e->server = true;
	e->data = bench_media("/dev/shm");
	err = !strcmp(provider, "shm") ? find(e, provider, NULL, 0) : find(e, provider, "0", FI_SOURCE);
	err = err ? err : open_domain(e, LOAD_SPAN);
	if (!err && e->msg_ep) {
		err = fi_passive_ep(e->fabric, e->info, &pep, NULL);
		err = err ? err : fi_pep_bind(pep, &e->eq->fid, 0);
		err = err ? err : fi_listen(pep);
		err = err ? err : fi_getname(&pep->fid, &in, &len);
		me.port = err ? 0 : in.sin_port;
	} else if (!err) {
		err = open_ep(e, 0, e->info);
		err = err ? err : fi_getname(&e->ep[0]->fid, me.name, &me.len);
		err = err ? err : post_recvs(e, 0);
	}
	me.addr = err ? 0 : base_of(e);
	me.key = err ? 0 : fi_mr_key(e->data_mr);
	if (err || write(fd, &me, sizeof(me)) != sizeof(me) || read(fd, &you, sizeof(you)) != sizeof(you))
		_exit(1);
	for (unsigned i = 0; !err && e->msg_ep && i < e->neps; i++)
		err = accept_one(e, i);
	if (!e->msg_ep)
		err = fi_av_insert(e->av, you.name, 1, &e->peer, 0, NULL) == 1 ? 0 : -EIO;
	if (err || write(fd, &me, sizeof(me)) != sizeof(me))
		_exit(1);
	serve(e);
}

/* --- client ------------------------------------------------------------------------------------------------- */

static int one_sided(struct exchange *x, unsigned conn, struct job *j, uint64_t at, size_t len, bool out)
{
	struct end *e = &x->e;
	void *desc = fi_mr_desc(e->data_mr);
	struct iovec iov = { e->data, len };
	struct fi_rma_iov rma = { x->addr + at, len, x->key };
	struct fi_msg_rma m = { .msg_iov = &iov, .desc = &desc, .iov_count = 1, .addr = e->peer, .rma_iov = &rma,
				.rma_iov_count = 1, .context = &j->ctx };
	uint64_t how = x->commit ? FI_COMMIT_COMPLETE : 0;

	if (!out)
		return POST(e, fi_read(e->ep[conn], e->data, len, desc, e->peer, rma.addr, rma.key, &j->ctx));
	return POST(e, fi_writemsg(e->ep[conn], &m, how | FI_COMPLETION));
}

static int send_step(struct bench_client *b, struct load_conn *c, unsigned slot, enum load_step s)
{
	struct exchange *x = (struct exchange *)b;
	struct end *e = &x->e;
	unsigned i = c->id, conn = e->msg_ep ? i : 0;
	struct wire_msg m = { load_way(s), b->len, i, slot, c->slot[slot].off, base_of(e), fi_mr_key(e->data_mr) };
	unsigned at = e->msg_ep ? slot : i * (e->depth / b->nconns) + slot;

	if (s == L_PUT || s == L_GET)
		return one_sided(x, conn, job_get(e, MOVED, i, slot), m.at, m.len, s == L_PUT);
	m.slot = at;
	return post_send(e, conn, at, &m, REQUEST);
}

static int take(struct exchange *x, struct job *j)
{
	struct end *e = &x->e;
	enum what what = j->what;
	unsigned conn = j->conn, slot = j->slot;
	int err = 0;

	if (what == GOT) {
		struct wire_msg m;
		unsigned per = e->depth / x->b.nconns;

		memcpy(&m, j->msg, sizeof(m));
		err = post_recv(e, conn, j->msg);
		slot = e->msg_ep ? m.slot : m.slot % per;
		conn = e->msg_ep ? conn : m.slot / per;
	}
	job_put(e, j);
	if (what == SENT)
		return 0;
	return err ? err : x->b.done(x->b.arg, x->b.conn[conn], slot, 0);
}

static int wait_done(struct bench_client *b)
{
	struct exchange *x = (struct exchange *)b;
	uint64_t late = bench_now() + 10000000000u;
	int err;

	for (;;) {
		struct job *j = next_job(&x->e, &err);

		if (err || j)
			return err ? err : take(x, j);
		if (bench_now() > late)
			return -ETIMEDOUT;
	}
}

static void close_client(struct bench_client *b)
{
	struct exchange *x = (struct exchange *)b;
	struct end *e = &x->e;

	if (x->pid > 0)
		bench_end(x->pid, x->name);
	for (unsigned i = 0; e->ep && i < e->neps; i++)
		if (e->ep[i])
			fi_close(&e->ep[i]->fid);
	struct fid *rest[] = { e->data_mr ? &e->data_mr->fid : NULL, e->msg_mr ? &e->msg_mr->fid : NULL,
			       e->cq ? &e->cq->fid : NULL, e->av ? &e->av->fid : NULL, e->eq ? &e->eq->fid : NULL,
			       e->domain ? &e->domain->fid : NULL, e->fabric ? &e->fabric->fid : NULL };
	for (unsigned i = 0; i < sizeof(rest) / sizeof(*rest); i++)
		if (rest[i])
			fi_close(rest[i]);
	if (e->info)
		fi_freeinfo(e->info);
	while (e->idle) {
		struct job *j = e->idle;

		e->idle = j->next;
		free(j);
	}
	for (unsigned i = 0; i < b->nconns; i++)
		free(b->conn[i]);
	free(b->conn);
	free(e->ring);
	free(e->ep);
	free(e->msg);
	free(e->data);
	free(x);
}

static int meet(struct exchange *x, int fd)
{
	struct end *e = &x->e;
	struct meeting me = { .len = sizeof(me.name) }, you;
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint8_t space[512];
	uint32_t event;
	int err = e->msg_ep ? 0 : fi_getname(&e->ep[0]->fid, me.name, &me.len);

	if (err || read(fd, &you, sizeof(you)) != sizeof(you) || write(fd, &me, sizeof(me)) != sizeof(me))
		return err ? err : -EPIPE;
	x->addr = you.addr;
	x->key = you.key;
	in.sin_port = you.port;
	for (unsigned i = 0; !err && e->msg_ep && i < e->neps; i++) {
		err = open_ep(e, i, e->info);
		err = err ? err : post_recvs(e, i);
		err = err ? err : fi_connect(e->ep[i], &in, NULL, 0);
		if (!err && fi_eq_sread(e->eq, &event, space, sizeof(space), 10000, 0) < 0)
			err = -EIO;
	}
	if (!e->msg_ep) {
		memcpy(x->name, you.name, sizeof(x->name));
		err = fi_av_insert(e->av, you.name, 1, &e->peer, 0, NULL) == 1 ? 0 : -EIO;
	}
	if (!err && read(fd, &you, sizeof(you)) != sizeof(you))
		err = -EPIPE;
	return err;
}

static int start(struct exchange *x, const char *provider, const struct load_spec *s)
{
	struct end *e = &x->e;
	int sv[2], err;

	x->b.conn = calloc(s->conns, sizeof(*x->b.conn));
	for (unsigned i = 0; x->b.conn && i < s->conns; i++, x->b.nconns++) {
		if (!(x->b.conn[i] = calloc(1, sizeof(*x->b.conn[i]))))
			return -ENOMEM;
		x->b.conn[i]->id = i;
	}
	e->msg_ep = !strcmp(provider, "tcp") || !strcmp(provider, "verbs");
	e->neps = e->msg_ep ? s->conns : 1;
	e->depth = e->msg_ep ? s->depth : s->depth * s->conns;
	x->commit = !strcmp(provider, "tcp");
	if (!x->b.conn || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return -ENOMEM;
	x->pid = fork();
	if (!x->pid) {
		close(sv[0]);
		server(provider, e, sv[1]);
	}
	close(sv[1]);
	e->data = aligned_alloc(4096, LOAD_DATA);
	if (e->data)
		memset(e->data, 'b', LOAD_DATA);
	err = x->pid < 0 ? -errno : find(e, provider, e->msg_ep ? "1" : NULL, 0);
	err = err ? err : open_domain(e, LOAD_DATA);
	if (!err && !e->msg_ep) {
		err = open_ep(e, 0, e->info);
		err = err ? err : post_recvs(e, 0);
	}
	err = err ? err : meet(x, sv[0]);
	close(sv[0]);
	return err;
}

int load_exchange_open(const char *provider, const struct load_spec *s, pid_t *pid, struct bench_client **out)
{
	static const struct bench_client_ops ops = { "exchange", send_step, wait_done, close_client };
	struct exchange *x = calloc(1, sizeof(*x));
	int err;

	if (!x)
		return -ENOMEM;
	x->b.ops = &ops;
	err = start(x, provider, s);
	if (err) {
		fprintf(stderr, "berth-bench: the bare exchange over %s: %s (is the provider here? `fi_info -p %s`)\n", provider,
			strerror(-err), provider);
		close_client(&x->b);
		return err;
	}
	*pid = x->pid;
	*out = &x->b;
	return 0;
}
