/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * floor_fabric.c - the same exchange by bare libfabric calls
 *
 * request: fi_send; WRITE: the server's fi_read of the client's memory; READ: its fi_write into it; reply: fi_send.
 * The server process does nothing else: no RPC, no file, no persistence. FI_EP_MSG waits on its queue's
 * descriptor; FI_EP_RDM (shm) has none and polls.
 */
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
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/media.h"

struct side { /* one end */
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_pep *pep;
	struct fid_ep *ep;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_mr *msg_mr, *data_mr;
	char *msg, *data; /* msg: send buffer, then receive buffer */
	fi_addr_t peer;
	int fd; /* of the queue; -1: poll */
	bool msg_ep;
	unsigned sent, got; /* completions */
	struct fi_context2 ctx[3];
};
struct request {
	uint32_t op, len;
	uint64_t at, addr, key;
};
struct floor_fabric {
	struct bench_target t;
	struct side s;
	pid_t pid;
	int pipe;
};

#define MSG_SPACE 1024

/* --- both ends ------------------------------------------------------------------------------------------ */

static int find(struct side *s, const char *provider, const char *service, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo();
	bool msg = !strcmp(provider, "tcp") || !strcmp(provider, "verbs");
	int err;

	hints->ep_attr->type = msg ? FI_EP_MSG : FI_EP_RDM;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(provider);
	err = fi_getinfo(FI_VERSION(1, 17), msg ? "127.0.0.1" : NULL, service, flags, hints, &s->info);
	fi_freeinfo(hints);
	s->msg_ep = msg;
	s->fd = -1;
	return err;
}

static int open_domain(struct side *s)
{
	int err = fi_fabric(s->info->fabric_attr, &s->fabric, NULL);

	if (!err)
		err = fi_domain(s->fabric, s->info, &s->domain, NULL);
	if (!err && s->msg_ep)
		err = fi_eq_open(s->fabric, &(struct fi_eq_attr){ .wait_obj = FI_WAIT_UNSPEC }, &s->eq, NULL);
	return err;
}

static int open_ep(struct side *s, struct fi_info *info)
{
	struct fi_cq_attr ca = { .format = FI_CQ_FORMAT_MSG, .size = 64,
				 .wait_obj = s->msg_ep ? FI_WAIT_FD : FI_WAIT_NONE };
	int err = fi_cq_open(s->domain, &ca, &s->cq, NULL);

	if (!err && s->msg_ep)
		err = fi_control(&s->cq->fid, FI_GETWAIT, &s->fd);
	if (!err)
		err = fi_endpoint(s->domain, info, &s->ep, NULL);
	if (!err)
		err = fi_ep_bind(s->ep, &s->cq->fid, FI_SEND | FI_RECV);
	if (!err && s->msg_ep)
		err = fi_ep_bind(s->ep, &s->eq->fid, 0);
	if (!err && !s->msg_ep)
		err = fi_av_open(s->domain, &(struct fi_av_attr){ .type = FI_AV_TABLE }, &s->av, NULL);
	if (!err && !s->msg_ep)
		err = fi_ep_bind(s->ep, &s->av->fid, 0);
	if (!err)
		err = fi_enable(s->ep);
	s->msg = aligned_alloc(4096, 4096);
	if (!err)
		err = fi_mr_reg(s->domain, s->msg, 4096, FI_SEND | FI_RECV, 0, 1, 0, &s->msg_mr, NULL);
	return err;
}

static int post_recv(struct side *s)
{
	return (int)fi_recv(s->ep, s->msg + MSG_SPACE, MSG_SPACE, fi_mr_desc(s->msg_mr), FI_ADDR_UNSPEC,
			    &s->ctx[0]);
}

static int progress(struct side *s)
{
	struct fi_cq_msg_entry ev[8];
	ssize_t n = fi_cq_read(s->cq, ev, 8);

	for (ssize_t i = 0; i < n; i++) {
		if (ev[i].flags & FI_RECV)
			s->got++;
		else
			s->sent++;
	}
	if (n == -FI_EAGAIN) {
		struct fid *fid = &s->cq->fid;
		struct pollfd p = { .fd = s->fd, .events = POLLIN };

		if (s->fd < 0)
			sched_yield();
		else if (fi_trywait(s->fabric, &fid, 1) == 0)
			poll(&p, 1, 1000);
		return 0;
	}
	return n < 0 ? (int)n : 0;
}

/* Until @what counts more than @old. */
static int await(struct side *s, const unsigned *what, unsigned old)
{
	int err = 0;

	while (!err && *what == old)
		err = progress(s);
	return err;
}

static int post(struct side *s, const struct request *rq, size_t reply_len)
{
	ssize_t n;

	do {
		if (!rq)
			n = fi_send(s->ep, s->msg, reply_len, fi_mr_desc(s->msg_mr), s->peer, &s->ctx[1]);
		else if (rq->op == BENCH_WRITE)
			n = fi_read(s->ep, s->data + rq->at, rq->len, fi_mr_desc(s->data_mr), s->peer,
				    rq->addr, rq->key, &s->ctx[2]);
		else
			n = fi_write(s->ep, s->data + rq->at, rq->len, fi_mr_desc(s->data_mr), s->peer,
				     rq->addr, rq->key, &s->ctx[2]);
		if (n == -FI_EAGAIN && progress(s))
			return -EIO;
	} while (n == -FI_EAGAIN);
	return (int)n;
}

/* --- server ---------------------------------------------------------------------------------------------------- */

static int answer(struct side *s)
{
	struct request rq;
	unsigned sent = s->sent;
	int err;

	memcpy(&rq, s->msg + MSG_SPACE, sizeof(rq));
	err = post_recv(s);
	if (!err)
		err = post(s, &rq, 0);
	/* data must be there before the reply says so: a read always, a write where order does not say it */
	if (!err && (rq.op == BENCH_WRITE || !(s->info->tx_attr->msg_order & FI_ORDER_SAW)))
		err = await(s, &s->sent, sent);
	if (!err)
		err = post(s, NULL, BENCH_REPLY);
	return err;
}

static void serve(struct side *s)
{
	unsigned got = 0;

	for (;;) {
		if (await(s, &s->got, got))
			_exit(1);
		got++;
		if (answer(s))
			_exit(1);
	}
}

static int accept_one(struct side *s)
{
	struct fi_eq_cm_entry *e = calloc(1, sizeof(*e) + 256);
	uint32_t event;
	ssize_t n = fi_eq_sread(s->eq, &event, e, sizeof(*e) + 256, 10000, 0);
	int err = n < 0 ? (int)n : open_ep(s, e->info);

	if (!err)
		err = post_recv(s);
	if (!err)
		err = fi_accept(s->ep, NULL, 0);
	if (!err)
		err = fi_eq_sread(s->eq, &event, e, sizeof(*e) + 256, 10000, 0) < 0 ? -EIO : 0;
	return err;
}

struct meeting { /* what the two processes tell each other by pipe */
	char name[128];
	size_t len;
	uint16_t port;
};

static void server(const char *provider, const char *dir, int fd)
{
	struct side s = { 0 };
	struct meeting me = { .len = sizeof(me.name) }, you;
	struct sockaddr_in in;
	size_t len = sizeof(in);
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	s.data = bench_media(dir);
	if (!strcmp(provider, "shm"))
		err = s.data ? find(&s, provider, NULL, 0) : -ENOMEM;
	else
		err = s.data ? find(&s, provider, "0", FI_SOURCE) : -ENOMEM;
	if (!err)
		err = open_domain(&s);
	if (!err)
		err = fi_mr_reg(s.domain, s.data, BENCH_SPAN, FI_READ | FI_WRITE, 0, 2, 0, &s.data_mr, NULL);
	if (!err && s.msg_ep) {
		err = fi_passive_ep(s.fabric, s.info, &s.pep, NULL);
		err = err ? err : fi_pep_bind(s.pep, &s.eq->fid, 0);
		err = err ? err : fi_listen(s.pep);
		err = err ? err : fi_getname(&s.pep->fid, &in, &len);
		me.port = in.sin_port;
	} else if (!err) {
		err = open_ep(&s, s.info);
		err = err ? err : fi_getname(&s.ep->fid, me.name, &me.len);
		err = err ? err : post_recv(&s);
	}
	if (err || write(fd, &me, sizeof(me)) != sizeof(me) || read(fd, &you, sizeof(you)) != sizeof(you))
		_exit(1);
	if (s.msg_ep)
		err = accept_one(&s);
	else
		err = fi_av_insert(s.av, you.name, 1, &s.peer, 0, NULL) == 1 ? 0 : -EIO;
	if (err || write(fd, &me, sizeof(me)) != sizeof(me))
		_exit(1);
	serve(&s);
}

/* --- client ------------------------------------------------------------------------------------------------------- */

static int once(struct bench_target *t, enum bench_op op, uint64_t at, size_t len)
{
	struct side *s = &((struct floor_fabric *)t)->s;
	struct request rq = { op, (uint32_t)len, at, 0, fi_mr_key(s->data_mr) };
	unsigned got = s->got;
	int err;

	rq.addr = s->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)s->data : 0;
	memcpy(s->msg, &rq, sizeof(rq));
	err = post(s, NULL, BENCH_REQUEST);
	if (!err)
		err = await(s, &s->got, got);
	return err ? err : post_recv(s);
}

static int meet(struct side *s, int fd)
{
	struct meeting me = { .len = sizeof(me.name) }, you;
	uint8_t space[512];
	uint32_t event;
	int err;

	if (!s->msg_ep && (err = fi_getname(&s->ep->fid, me.name, &me.len)))
		return err;
	if (read(fd, &you, sizeof(you)) != sizeof(you) || write(fd, &me, sizeof(me)) != sizeof(me))
		return -EPIPE;
	if (s->msg_ep) {
		struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = you.port,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

		err = fi_connect(s->ep, &in, NULL, 0);
		if (!err && fi_eq_sread(s->eq, &event, space, sizeof(space), 10000, 0) < 0)
			err = -EIO;
	} else {
		err = fi_av_insert(s->av, you.name, 1, &s->peer, 0, NULL) == 1 ? 0 : -EIO;
	}
	if (!err && read(fd, &you, sizeof(you)) != sizeof(you))
		err = -EPIPE;
	return err;
}

static void close_it(struct bench_target *t)
{
	struct floor_fabric *f = (struct floor_fabric *)t;

	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, 0);
	fi_close(&f->s.ep->fid);
	fi_close(&f->s.data_mr->fid);
	fi_close(&f->s.msg_mr->fid);
	fi_close(&f->s.cq->fid);
	if (f->s.av)
		fi_close(&f->s.av->fid);
	fi_close(&f->s.domain->fid);
	if (f->s.eq)
		fi_close(&f->s.eq->fid);
	fi_close(&f->s.fabric->fid);
	fi_freeinfo(f->s.info);
	free(f);
}

int floor_fabric_open(const char *provider, const char *dir, struct bench_target **out)
{
	struct floor_fabric *f = calloc(1, sizeof(*f));
	struct side *s;
	int sv[2], err;

	if (!f || socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		return -ENOMEM;
	s = &f->s;
	f->t = (struct bench_target){ provider, once, close_it };
	f->pid = fork();
	if (f->pid == 0)
		server(provider, dir, sv[1]);
	close(sv[1]);
	s->data = aligned_alloc(4096, BENCH_MAX);
	memset(s->data, 'b', BENCH_MAX);
	err = find(s, provider, !strcmp(provider, "shm") ? NULL : "1", 0);
	if (!err)
		err = open_domain(s);
	if (!err)
		err = open_ep(s, s->info);
	if (!err)
		err = fi_mr_reg(s->domain, s->data, BENCH_MAX, FI_REMOTE_READ | FI_REMOTE_WRITE, 0, 3, 0,
				&s->data_mr, NULL);
	if (!err)
		err = post_recv(s);
	if (!err)
		err = meet(s, sv[0]);
	*out = &f->t;
	return err;
}
