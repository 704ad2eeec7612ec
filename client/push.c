/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * push.c - read-after-write: a read behind the writes, shared by the puts that they belong to
 *
 *   put: written --push_queue()--> waits --a read goes out--> covered --the read is over--> put_pushed()
 *
 *   U1  What a card has been told to read it reads behind what it was told to write before on that connection, and what is
 *       on its way into memory goes in front. So one read, wherever it reads, is worth one for each put whose writes
 *       (completions, where the provider does not keep that order) came before it.
 *   U2  No put waits for one that may come. Its read goes out at once, or at the end of the round of callbacks that it was
 *       made in; while READS_OUT are out, when one of them is over, with all that wait by then.
 *   U3  Nor does it wait for more than SHARED bytes of those that came meanwhile: then the read goes out in front of the next.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/map.h"

#define READS_OUT 2
#define SHARED    65536u

struct push {
	struct tp_rma rma;
	struct op *op;
	struct berth *b;
	struct berth_map *m; /* its layout is read through; stays, as a put of it is among: */
	uint64_t epoch, layout;
	struct put_list puts;
};

static void tell_all(struct put_list *puts, int err)
{
	struct put *p;

	while ((p = TAILQ_FIRST(puts))) {
		TAILQ_REMOVE(puts, p, link);
		put_pushed(p, err);
	}
}

static void push_over(void *arg, int err, const struct berth_reply *r)
{
	struct push *u = arg;

	(void)r;
	u->b->pushes_out--;
	layout_rma_over(u->m, u->epoch, u->layout);
	tell_all(&u->puts, err);
	free(u);
}

/* The transport's callback. */
static void push_done(struct tp_rma *rma, int err)
{
	op_finish(container_of(rma, struct push, rma)->op, err);
}

/* Those that wait and may still use their layout come into @puts; the others know another way. */
static void take_waiting(struct berth *b, struct put_list *puts)
{
	struct put_list all = TAILQ_HEAD_INITIALIZER(all), late = TAILQ_HEAD_INITIALIZER(late);
	struct put *p;

	TAILQ_CONCAT(&all, &b->unpushed, link);
	b->unpushed_bytes = 0;
	while ((p = TAILQ_FIRST(&all))) {
		TAILQ_REMOVE(&all, p, link);
		if (map_usable_layout(p->m, p->epoch, p->layout))
			TAILQ_INSERT_TAIL(puts, p, link);
		else
			TAILQ_INSERT_TAIL(&late, p, link);
	}
	tell_all(&late, -EKEYEXPIRED);
}

static struct push *push_new(struct berth *b, const struct put *last)
{
	struct push *u = malloc(sizeof(*u));

	if (!u)
		return NULL;
	*u = (struct push){ .b = b, .m = last->m, .epoch = last->epoch, .layout = last->layout };
	u->rma = (struct tp_rma){ .how = TP_RMA_PUSH,
		                  .len = 1,
		                  .addr = last->push_addr,
		                  .key = last->push_key,
		                  .done = push_done };
	TAILQ_INIT(&u->puts);
	u->op = op_hold(b, push_over, u);
	if (u->op)
		return u;
	free(u);
	return NULL;
}

/* A read behind the writes of @puts. */
static int push_send(struct berth *b, struct put_list *puts)
{
	const struct put *last = TAILQ_LAST(puts, put_list);
	struct push *u = push_new(b, last);
	int err = u ? tp_client_rma(layouts_client(b), &u->rma) : -ENOMEM;

	if (err) {
		if (u)
			op_drop(u->op);
		free(u);
		return err;
	}
	layout_rma_begun(map_usable_layout(last->m, last->epoch, last->layout));
	b->count.rma_reads++;
	b->count.rma_read_bytes++;
	b->pushes_out++;
	TAILQ_CONCAT(&u->puts, puts, link);
	return 0;
}

static void push_now(struct berth *b)
{
	struct put_list puts = TAILQ_HEAD_INITIALIZER(puts);
	int err;

	take_waiting(b, &puts);
	err = TAILQ_EMPTY(&puts) ? 0 : push_send(b, &puts);
	if (err)
		tell_all(&puts, err);
}

void pushes_flush(struct berth *b)
{
	if (!TAILQ_EMPTY(&b->unpushed) && b->pushes_out < READS_OUT)
		push_now(b);
}

void push_before(struct berth *b, size_t len)
{
	if (!TAILQ_EMPTY(&b->unpushed) && (len > SHARED || b->unpushed_bytes > SHARED - len))
		push_now(b);
}

void push_queue(struct put *p)
{
	struct berth *b = p->m->f->b;

	p->wants_push = false;
	p->pushing = true;
	TAILQ_INSERT_TAIL(&b->unpushed, p, link);
	b->unpushed_bytes += p->len;
	if (!b->in_progress)
		pushes_flush(b);
}
