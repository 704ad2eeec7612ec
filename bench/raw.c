/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * raw.c - RMA by bare libfabric calls, into and out of a process that does nothing but progress
 *
 * A write completes when its bytes are durable where the provider has FI_RMA_PMEM (tcp: FI_COMMIT_COMPLETE), else as
 * the provider completes a plain one. FI_EP_MSG waits on its queue's descriptor; FI_EP_RDM (shm) has none and polls.
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

#include "bench/bench.h"
#include "bench/media.h"

#define DEPTH_MAX 64u

struct raw {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_ep *ep;
	struct fid_mr *mr;
	char *data;
	bool msg_ep;
	fi_addr_t peer;
	uint64_t addr, key; /* the other side's */
	int fd;
	pid_t pid;
	char name[128]; /* of the other side's endpoint, shm */
	struct fi_context2 ctx[DEPTH_MAX];
};
struct hello {
	char name[128]; /* FI_EP_MSG: a struct sockaddr_in */
	size_t len;
	uint64_t addr, key;
};

/* --- both ends ---------------------------------------------------------------------------------- */

static int open_domain(struct raw *r, const char *provider, const char *node, const char *port, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	r->msg_ep = strcmp(provider, "shm") != 0;
	hints->ep_attr->type = r->msg_ep ? FI_EP_MSG : FI_EP_RDM;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(provider);
	err = fi_getinfo(FI_VERSION(1, 17), r->msg_ep ? node : NULL, r->msg_ep ? port : NULL, r->msg_ep ? flags : 0,
	                 hints, &r->info);
	fi_freeinfo(hints);
	if (!err)
		err = fi_fabric(r->info->fabric_attr, &r->fabric, NULL);
	if (!err)
		err = fi_domain(r->fabric, r->info, &r->domain, NULL);
	if (!err && r->msg_ep)
		err = fi_eq_open(r->fabric, &(struct fi_eq_attr){ .wait_obj = FI_WAIT_UNSPEC }, &r->eq, NULL);
	if (!err)
		err = fi_mr_reg(r->domain, r->data, BENCH_SPAN, FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE, 0,
		                7, 0, &r->mr, NULL);
	return err;
}

static int open_ep(struct raw *r, struct fi_info *info)
{
	struct fi_cq_attr ca = { .format = FI_CQ_FORMAT_CONTEXT, .size = 256,
		                 .wait_obj = r->msg_ep ? FI_WAIT_FD : FI_WAIT_NONE };
	int err = fi_cq_open(r->domain, &ca, &r->cq, NULL);

	if (!err && r->msg_ep)
		err = fi_control(&r->cq->fid, FI_GETWAIT, &r->fd);
	if (!err)
		err = fi_endpoint(r->domain, info, &r->ep, NULL);
	if (!err)
		err = fi_ep_bind(r->ep, &r->cq->fid, FI_SEND | FI_RECV);
	if (!err && !r->msg_ep)
		err = fi_av_open(r->domain, &(struct fi_av_attr){ .type = FI_AV_TABLE }, &r->av, NULL);
	if (!err)
		err = fi_ep_bind(r->ep, r->msg_ep ? &r->eq->fid : &r->av->fid, 0);
	return err ? err : fi_enable(r->ep);
}

/* Completions, at least one if @wait and nothing breaks. */
static int progress(struct raw *r, bool wait)
{
	struct fid *fid = &r->cq->fid;
	struct fi_cq_entry ev[16];
	ssize_t n;

	while ((n = fi_cq_read(r->cq, ev, 16)) == -FI_EAGAIN && wait) {
		struct pollfd p = { .fd = r->fd, .events = POLLIN };

		if (!r->msg_ep)
			sched_yield();
		else if (!fi_trywait(r->fabric, &fid, 1))
			poll(&p, 1, 1000);
	}
	return n == -FI_EAGAIN ? 0 : (int)n;
}

/* --- the target --------------------------------------------------------------------------------- */

static int accept_one(struct raw *r)
{
	struct fi_eq_cm_entry *e = calloc(1, sizeof(*e) + 256);
	uint32_t event;

	if (fi_eq_sread(r->eq, &event, e, sizeof(*e) + 256, 10000, 0) < 0 || open_ep(r, e->info) ||
	    fi_accept(r->ep, NULL, 0) || fi_eq_sread(r->eq, &event, e, sizeof(*e) + 256, 10000, 0) < 0)
		return -EIO;
	return 0;
}

/* shm's target is needed for the first meeting only: writes and reads are copies by the other process. */
static _Noreturn void serve(struct raw *r)
{
	for (;;) {
		progress(r, r->msg_ep);
		if (!r->msg_ep)
			usleep(1000);
	}
}

static _Noreturn void target(const char *provider, const char *node, const char *dir, int fd)
{
	struct raw r = { .data = bench_media(dir) };
	struct hello h = { .len = sizeof(h.name) }, you;
	struct fid_pep *pep;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	err = r.data ? open_domain(&r, provider, node, "0", FI_SOURCE) : -ENOMEM;
	if (!err && r.msg_ep) {
		err = fi_passive_ep(r.fabric, r.info, &pep, NULL);
		err = err ? err : fi_pep_bind(pep, &r.eq->fid, 0);
		err = err ? err : fi_listen(pep);
		err = err ? err : fi_getname(&pep->fid, h.name, &h.len);
	} else if (!err) {
		err = open_ep(&r, r.info);
		err = err ? err : fi_getname(&r.ep->fid, h.name, &h.len);
	}
	h.addr = !err && r.info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)r.data : 0;
	h.key = err ? 0 : fi_mr_key(r.mr);
	if (err || write(fd, &h, sizeof(h)) != sizeof(h) || (r.msg_ep && accept_one(&r)))
		_exit(1);
	if (!r.msg_ep && (read(fd, &you, sizeof(you)) != sizeof(you) ||
	                  fi_av_insert(r.av, you.name, 1, &r.peer, 0, NULL) != 1))
		_exit(1);
	serve(&r);
}

/* --- the initiator ------------------------------------------------------------------------------ */

static int meet(struct raw *r, const char *node, int fd)
{
	struct hello h, me = { .len = sizeof(me.name) };
	struct sockaddr_in in;
	uint8_t space[512];
	uint32_t event;
	int err = open_ep(r, r->info);

	if (err || read(fd, &h, sizeof(h)) != sizeof(h))
		return err ? err : -EPIPE;
	r->addr = h.addr;
	r->key = h.key;
	if (!r->msg_ep) {
		err = fi_getname(&r->ep->fid, me.name, &me.len);
		if (err || write(fd, &me, sizeof(me)) != sizeof(me))
			return -EPIPE;
		memcpy(r->name, h.name, sizeof(r->name));
		return fi_av_insert(r->av, h.name, 1, &r->peer, 0, NULL) == 1 ? 0 : -EIO;
	}
	memcpy(&in, h.name, sizeof(in));
	inet_pton(AF_INET, node, &in.sin_addr);
	err = fi_connect(r->ep, &in, NULL, 0);
	return !err && fi_eq_sread(r->eq, &event, space, sizeof(space), 10000, 0) < 0 ? -EIO : err;
}

int raw_open(const char *provider, const char *node, const char *dir, struct raw **out)
{
	struct raw *r = calloc(1, sizeof(*r));
	int sv[2], err;

	if (!r || socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		return -ENOMEM;
	r->pid = fork();
	if (!r->pid)
		target(provider, node, dir, sv[1]);
	close(sv[1]);
	r->data = aligned_alloc(4096, BENCH_SPAN);
	if (!r->data)
		return -ENOMEM;
	memset(r->data, 'b', BENCH_SPAN);
	err = open_domain(r, provider, node, "1", 0);
	if (!err)
		err = meet(r, node, sv[0]);
	*out = r;
	return err;
}

void raw_close(struct raw *r)
{
	bench_end(r->pid, r->name);
	if (r->ep)
		fi_close(&r->ep->fid); /* shm: its file in /dev/shm goes with it */
}

static ssize_t post(struct raw *r, bool write, uint64_t at, size_t len, unsigned slot)
{
	struct iovec iov = { r->data + at, len };
	struct fi_rma_iov rma = { r->addr + at, len, r->key };
	void *desc = fi_mr_desc(r->mr);
	struct fi_msg_rma msg = { .msg_iov = &iov,
		                  .desc = &desc,
		                  .iov_count = 1,
		                  .addr = r->peer,
		                  .rma_iov = &rma,
		                  .rma_iov_count = 1,
		                  .context = &r->ctx[slot] };

	if (!write)
		return fi_readmsg(r->ep, &msg, FI_COMPLETION);
	return fi_writemsg(r->ep, &msg, FI_COMPLETION | (r->info->caps & FI_RMA_PMEM ? FI_COMMIT_COMPLETE : 0));
}

int raw_run(struct raw *r, bool write, size_t len, unsigned depth, unsigned ops)
{
	unsigned sent = 0, done = 0;

	while (done < ops) {
		ssize_t n = 0;

		for (; !n && sent < ops && sent - done < depth; sent += !n)
			n = post(r, write, sent * len % BENCH_SPAN, len, sent % DEPTH_MAX);
		if (n && n != -FI_EAGAIN)
			return (int)n;
		n = progress(r, sent > done);
		if (n < 0)
			return (int)n;
		done += (unsigned)n;
	}
	return 0;
}
