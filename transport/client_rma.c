/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_rma.c - a client's own RMA: into and out of memory that the server has given it a key for
 *
 *   QUEUED --the provider takes it--> POSTED --completion--> (next piece: QUEUED in front, or) done()
 *   QUEUED, POSTED --connection DOWN, endpoint closed--> done(err)
 *
 * R1  Operations are posted in the order in which they were started, pieces of a long one likewise, and calls that
 *     were sent behind them wait until all of them are posted (client_flush).
 *     So does TP_RMA_PUSH.
 * R2  At most half of what the endpoint can hold is posted: calls go on.
 */
#include "transport/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST_POSTED 64

static unsigned most(const struct tp_client *c)
{
	size_t half = c->f->tx_size / 2;

	return half < 1 ? 1 : half > MOST_POSTED ? MOST_POSTED : (unsigned)half;
}

static void finish(struct tp_client_rma *r, int err)
{
	struct tp_rma *rma = r->rma;

	if (r->mr)
		client_mr_put(r->c, r->mr);
	free(r);
	rma->priv = NULL;
	rma->done(rma, err);
}

static void completed(struct fab_op *op, int err)
{
	struct tp_client_rma *r = container_of(op, struct tp_client_rma, op);
	struct tp_client *c = r->c;

	if (c->state == TP_CLIENT_DOWN)
		return; /* fails with the others, when the provider has let go of all */
	TAILQ_REMOVE(&c->rma_posted, r, link);
	c->rma_out--;
	c->rma_partial -= r->done + r->piece < r->rma->len;
	c->events++;
	r->done += r->piece;
	if (!err && r->done < r->rma->len) {
		TAILQ_INSERT_HEAD(&c->rma_queued, r, link);
		c->stuck = true; /* until this turn's client_flush */
		return;
	}
	if (err && c->f->cq_fd >= 0)
		client_fail(c, err == -ECANCELED ? -ECONNRESET : err, "one-sided access failed");
	finish(r, err == -ECANCELED ? -ECONNRESET : err);
}

static int post(struct tp_client *c, void *arg)
{
	struct tp_client_rma *r = arg;
	const struct tp_rma *rma = r->rma;
	bool push = rma->how == TP_RMA_PUSH;
	struct iovec iov = { .iov_base = push ? c->pushed : (uint8_t *)rma->buf + r->done, .iov_len = r->piece };
	void *desc = push ? c->slab_mr.desc : r->mr->mr.desc;
	uint64_t at = rma->addr + r->done;

	switch (rma->how) {
	case TP_RMA_READ:
	case TP_RMA_PUSH:
		return fab_read(c->f, c->ep, &iov, &desc, 1, c->peer, at, rma->key, &r->op);
	case TP_RMA_WRITE:
		return fab_write(c->f, c->ep, &iov, &desc, 1, c->peer, at, rma->key, &r->op);
	case TP_RMA_WRITE_COMMIT:
		return fab_write_commit(c->f, c->ep, iov.iov_base, iov.iov_len, desc, c->peer, at, rma->key,
		                        &r->op);
	}
	return -EINVAL;
}

bool client_rma_flush(struct tp_client *c)
{
	struct tp_client_rma *r;

	while (c->state == TP_CLIENT_UP && !c->broken && c->rma_out < most(c) &&
	       (r = TAILQ_FIRST(&c->rma_queued))) {
		size_t left = r->rma->len - r->done;
		int err;

		if (r->rma->how == TP_RMA_PUSH && c->rma_partial)
			break; /* R1: a completion goes on with it */
		r->piece = left < c->f->msg_max ? left : c->f->msg_max;
		err = client_guarded(c, post, r);
		if (err == -EAGAIN) {
			c->stuck = true;
			if (c->f->rdm) /* shm: each copy leaves a note in the server's queue, which has to make room */
				rdv_ring(&c->rdv);
			break;
		}
		if (err) {
			client_fail(c, err, "cannot post one-sided access");
			break;
		}
		TAILQ_REMOVE(&c->rma_queued, r, link);
		TAILQ_INSERT_TAIL(&c->rma_posted, r, link);
		c->rma_out++;
		c->rma_partial += r->piece < left;
		c->last_ns = client_now();
	}
	return TAILQ_EMPTY(&c->rma_queued) && !c->rma_partial;
}

void client_rma_fail_all(struct tp_client *c, int err)
{
	struct client_rmas all = TAILQ_HEAD_INITIALIZER(all);
	struct tp_client_rma *r;

	TAILQ_CONCAT(&all, &c->rma_posted, link);
	TAILQ_CONCAT(&all, &c->rma_queued, link);
	c->rma_out = c->rma_partial = 0;
	while ((r = TAILQ_FIRST(&all))) {
		TAILQ_REMOVE(&all, r, link);
		finish(r, err);
	}
}

TP_API int tp_client_rma(struct tp_client *c, struct tp_rma *op)
{
	struct tp_client_rma *r;
	int err;

	if (c->state != TP_CLIENT_UP || c->broken)
		return -ENOTCONN;
	if (!op->len)
		return -EINVAL;
	if (op->how == TP_RMA_PUSH && op->len > TP_PUSH_MAX)
		return -EINVAL;
	if (op->how == TP_RMA_WRITE_COMMIT && !c->f->pmem)
		return -EOPNOTSUPP;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	err = op->how == TP_RMA_PUSH ? 0 : client_mr_get(c, op->buf, op->len, op->how == TP_RMA_READ ? FI_READ : FI_WRITE, &r->mr);
	if (err) {
		free(r);
		return err;
	}
	r->c = c;
	r->rma = op;
	r->op.done = completed;
	op->priv = r;
	TAILQ_INSERT_TAIL(&c->rma_queued, r, link);
	client_rma_flush(c);
	return 0;
}

TP_API void tp_client_get_rma_info(const struct tp_client *c, struct tp_client_rma_info *out)
{
	*out = (struct tp_client_rma_info){ .commit_complete = c->f->pmem,
		                            .write_before_send = c->f->saw,
		                            .read_after_write = c->f->raw,
		                            .virt = c->f->mr_virt,
		                            .keys_checked = !c->f->shm,
		                            .polled = c->f->cq_fd < 0 };
	snprintf(out->provider, sizeof(out->provider), "%.31s", c->f->info->fabric_attr->prov_name);
}
