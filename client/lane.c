/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lane.c - the connection of their own that layouts have where the server wants it so (LAYOUT_WHY_CONNECTION)
 *
 *   NONE --an operation of the LAYOUT program, b->own_lane--> CONNECTING --> UP --lost, or the session is--> NONE
 *
 * The server accepts it in a domain where only this client's keys are. RMA goes over it, and the calls about layouts, so
 * that they stay in order; everything else goes over the session's connection. They come and go each by itself. A lost lane
 * is not bridged: operations end (-ECONNRESET; -ECONNREFUSED: it never came up), and whoever wants a layout asks the server
 * again from the beginning, over the session's connection, whether there are any and where.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "client/client.h"

#define CREDITS 8 /* what the server gives at most (transport/fabric_own.c) */

static void lane_watch(struct berth *b, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (b->lane.watched >= 0)
		epoll_ctl(b->epfd, EPOLL_CTL_DEL, b->lane.watched, NULL);
	b->lane.watched = -1;
	if (fd >= 0 && !epoll_ctl(b->epfd, EPOLL_CTL_ADD, fd, &ev))
		b->lane.watched = fd;
}

static int why_ended(const struct berth *b)
{
	return b->closing ? -ECANCELED : b->lane.up ? -ECONNRESET : -ECONNREFUSED;
}

void lane_close(struct berth *b)
{
	struct lane *ln = &b->lane;
	int err = why_ended(b);
	struct berth_mr *mr;
	struct op *op;

	if (ln->c) {
		lane_watch(b, -1);
		LIST_FOREACH (mr, &b->regs, link)
			mr->lane_mr = NULL; /* they go with the connection */
		b->epoch++;
		b->know_layouts = b->own_lane = false;
		ln->tearing = true; /* sent operations come back through lane_answered() */
		tp_client_close(ln->c);
		ln->tearing = ln->up = false;
		ln->c = NULL;
	}
	while ((op = TAILQ_FIRST(&ln->pending))) {
		TAILQ_REMOVE(&ln->pending, op, link);
		op_finish(op, err);
	}
}

void lane_answered(struct op *op, int err)
{
	struct lane *ln = &op->b->lane;

	TAILQ_REMOVE(&ln->sent, op, link);
	if (err && (ln->tearing || tp_client_state(ln->c, NULL) == TP_CLIENT_DOWN))
		op_finish(op, why_ended(op->b));
	else
		op_conclude(op, err);
}

static void lane_open(struct berth *b, uint64_t now)
{
	struct tp_fabric_opts o = b->fab;
	struct lane *ln = &b->lane;
	struct tp_error why;

	o.own.ask = true;
	o.credits = CREDITS;
	if (tp_client_open(&o, &ln->c, &why)) {
		ln->c = NULL;
		b->know_layouts = b->own_lane = false;
		lane_close(b);
		return;
	}
	ln->connect_by = now + b->connect_ms;
	lane_watch(b, tp_client_fd(ln->c));
}

void lane_flush(struct berth *b)
{
	struct lane *ln = &b->lane;
	struct op *op;

	if (TAILQ_EMPTY(&ln->pending))
		return;
	if (!ln->c)
		lane_open(b, now_ms());
	while (ln->up && (op = TAILQ_FIRST(&ln->pending))) {
		int err;

		TAILQ_REMOVE(&ln->pending, op, link);
		TAILQ_INSERT_TAIL(&ln->sent, op, link);
		err = op_send(op, ln->c, now_ms());
		if (err) {
			TAILQ_REMOVE(&ln->sent, op, link);
			op_finish(op, err == -ENOTCONN ? -ECONNRESET : err);
		}
	}
}

/* As session.c does for its own: registration here is an optimisation. */
static void came_up(struct berth *b)
{
	struct berth_mr *mr;

	b->lane.up = true;
	lane_watch(b, tp_client_fd(b->lane.c));
	LIST_FOREACH (mr, &b->regs, link)
		if (tp_client_register(b->lane.c, mr->base, mr->len, &mr->lane_mr))
			mr->lane_mr = NULL;
}

static bool too_late(const struct berth *b, uint64_t now)
{
	const struct lane *ln = &b->lane;
	const struct op *oldest = TAILQ_FIRST(&ln->sent);

	return (!ln->up && now >= ln->connect_by) || (oldest && now >= oldest->sent_at + b->timeout_ms);
}

void lane_advance(struct berth *b)
{
	struct lane *ln = &b->lane;
	int err, state;

	if (!ln->c)
		return;
	err = tp_client_progress(ln->c);
	state = tp_client_state(ln->c, NULL);
	if (err < 0 || state == TP_CLIENT_DOWN || too_late(b, now_ms()))
		lane_close(b);
	else if (state == TP_CLIENT_UP && !ln->up)
		came_up(b);
}

int lane_before_poll(struct berth *b, int *timeout_ms, uint64_t now)
{
	struct lane *ln = &b->lane;
	int t = -1;

	if (!ln->c)
		return TAILQ_EMPTY(&ln->pending) ? 0 : -EAGAIN;
	if (tp_client_before_poll(ln->c, &t))
		return -EAGAIN;
	if (t >= 0 && (*timeout_ms < 0 || t < *timeout_ms))
		*timeout_ms = t;
	if (!ln->up)
		sooner(timeout_ms, ln->connect_by, now);
	if (!TAILQ_EMPTY(&ln->sent))
		sooner(timeout_ms, TAILQ_FIRST(&ln->sent)->sent_at + b->timeout_ms, now);
	return 0;
}
