/* SPDX-License-Identifier: BSD-3-Clause */
/* fabpeer.c - libfabric as a requester uses it */
#include "test/lib/fabpeer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <rdma/fi_errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static void on_recv(struct fab_op *op, int err)
{
	struct fmessage *m = container_of(op, struct fmessage, op);

	m->len = op->len;
	if (err)
		m->peer->down = true;
	else
		m->peer->got[m->peer->ngot++ % FPEER_RECVS] = m;
}

static void on_sent(struct fab_op *op, int err)
{
	struct fpeer *p = container_of(op, struct fpeer, send);

	p->sending--;
	if (err)
		p->down = true;
}

void fpeer_progress(struct fpeer *p)
{
	struct fab_event ev;

	if (fab_progress(p->f, 64) < 0)
		p->down = true;
	while (p->f->eq && fab_eq_read(p->f, &ev) == 1) {
		if (!ev.err && ev.event == FI_CONNECTED)
			p->up = true;
		else
			p->down = true;
	}
	if (p->f->rdm && p->up && rdv_drain(&p->rdv))
		p->down = true;
}

bool fpeer_soon(struct fpeer *p, bool (*what)(struct fpeer *))
{
	struct timespec t0, t;

	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (unsigned i = 0;; i++) {
		struct pollfd fd[2] = { { p->f->cq_fd, POLLIN, 0 }, { p->f->eq_fd, POLLIN, 0 } };

		fpeer_progress(p);
		if (what(p))
			return true;
		clock_gettime(CLOCK_MONOTONIC, &t);
		if (t.tv_sec - t0.tv_sec > 8)
			return false;
		if (p->f->cq_fd < 0)
			poll(NULL, 0, i > 2000);
		else if (!fab_before_sleep(p->f))
			poll(fd, 2, 100);
	}
}

bool fpeer_is_up_or_down(struct fpeer *p)
{
	return p->up || p->down;
}

bool fpeer_is_down(struct fpeer *p)
{
	return p->down;
}

bool fpeer_has_message(struct fpeer *p)
{
	return p->down || p->next != p->ngot;
}

bool fpeer_is_sent(struct fpeer *p)
{
	return p->down || !p->sending;
}

static int peer_meet_rdm(struct fpeer *p, const struct tp_fabric_opts *o)
{
	struct rdv_hello h = { .inline_size = 4096, .credits = 32, .ring = true, .share = true };
	struct tp_error why;
	int err = rdv_dial(p->f, o, &p->rdv, &why);

	if (err)
		return err;
	memcpy(h.addr, p->f->addr, p->f->addr_len);
	h.addr_len = (uint32_t)p->f->addr_len;
	for (int i = 0; (err = rdv_dialed(&p->rdv)) == -EAGAIN && i < 1000; i++)
		poll(NULL, 0, 1);
	if (!err)
		err = rdv_send_hello(&p->rdv, &h);
	for (int i = 0; !err && i < 5000; i++) {
		err = rdv_recv_hello(&p->rdv, &h);
		if (err != -EAGAIN)
			break;
		err = 0;
		poll(NULL, 0, 1);
	}
	if (err)
		return err;
	if (fi_av_insert(p->f->av, h.addr, 1, &p->addr, 0, NULL) != 1)
		return -EIO;
	p->ep = p->f->ep;
	p->up = true;
	return 0;
}

int fpeer_open(struct fpeer *p, const struct tp_fabric_opts *o, const void *cm, size_t cm_len)
{
	struct tp_error why = { "" };
	int err;

	memset(p, 0, sizeof(*p));
	err = fab_open(o, FAB_CLIENT, &p->f, &why);
	if (err)
		return err;
	p->addr = FI_ADDR_UNSPEC;
	p->send.done = on_sent;
	p->mem = mmap(NULL, FPEER_MEM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	p->in = calloc(FPEER_RECVS, sizeof(*p->in));
	err = fab_mr_open(p->f, p->mem, FPEER_MEM, FI_REMOTE_READ | FI_REMOTE_WRITE, &p->mr);
	if (err)
		return err;
	p->ep = p->f->ep;
	if (!p->f->rdm)
		err = fab_ep_open(p->f, p->f->info, p, &p->ep);
	for (int i = 0; i < FPEER_RECVS && !err; i++) {
		p->in[i].peer = p;
		p->in[i].op.done = on_recv;
		err = fab_recv(p->f, p->ep, p->in[i].buf, 4096, NULL, &p->in[i].op);
	}
	if (err)
		return err;
	if (p->f->rdm)
		return peer_meet_rdm(p, o);
	err = fi_connect(p->ep, p->f->info->dest_addr, cm, cm_len);
	if (err)
		return err;
	fpeer_soon(p, fpeer_is_up_or_down);
	return p->up ? 0 : -ECONNREFUSED;
}

void fpeer_close(struct fpeer *p)
{
	if (p->f->rdm)
		rdv_close(&p->rdv);
	else
		fab_ep_close(p->f, p->ep);
	fab_mr_close(p->f, &p->mr);
	fab_close(p->f);
	munmap(p->mem, FPEER_MEM);
	free(p->in);
}

void fpeer_send(struct fpeer *p, const void *msg, size_t len)
{
	int err, tries = 0;

	cr_assert(fpeer_soon(p, fpeer_is_sent));
	memcpy(p->out, msg, len);
	while ((err = fab_send(p->f, p->ep, p->out, len, NULL, p->addr, &p->send)) == -EAGAIN) {
		if (p->f->rdm) /* the server may have to wake up to make us known */
			rdv_ring(&p->rdv);
		fpeer_progress(p);
		cr_assert_lt(tries++, 20000, "the server takes nothing");
		if (tries > 1000)
			poll(NULL, 0, 1);
	}
	if (err) {
		p->down = true;
		return;
	}
	p->sending++;
	if (p->f->rdm)
		rdv_ring(&p->rdv);
}

struct fmessage *fpeer_receive(struct fpeer *p)
{
	static struct fmessage copy;
	struct fmessage *m;

	cr_assert(fpeer_soon(p, fpeer_has_message), "no answer");
	if (p->next == p->ngot)
		return NULL;
	m = p->got[p->next++ % FPEER_RECVS];
	memcpy(copy.buf, m->buf, m->len);
	copy.len = m->len;
	fab_recv(p->f, p->ep, m->buf, 4096, NULL, &m->op);
	return &copy;
}
