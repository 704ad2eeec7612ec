/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_exchange.c - the floor of fabrics: the same bytes in the same pattern by bare libfabric calls
 *
 *   no data      fi_send of the request                     fi_send of the reply
 *   READ         fi_send of the request      fi_write       fi_send of the reply
 *   WRITE        fi_send of the request      fi_read        fi_send of the reply
 *   put, get     fi_writemsg (with FI_COMMIT_COMPLETE where the provider has it), fi_read: by the client alone
 *
 * The server process (floor.c) does nothing else: no RPC, no file, no persistence; its memory lies on tmpfs.
 */
#include <errno.h>
#include <rdma/fi_domain.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bare.h"
#include "bench/floor.h"
#include "bench/load.h"
#include "bench/media.h"

enum { REQUEST = 200, REPLY = 144 }; /* bytes: about those of a WRITE call and its reply */

struct wire_msg { /* the first bytes of a request, and of a reply */
	uint32_t way, len, conn, slot;
	uint64_t at, addr, key;
};
struct exchange {
	struct bench_client b;
	struct bare_end e;
	size_t memory; /* of the client */
	struct floor_process floor;
};

/* --- server ------------------------------------------------------------------------------------------------- */

static int reply_to(struct bare_end *e, unsigned conn, unsigned slot)
{
	struct wire_msg m = { .conn = conn, .slot = slot };

	return bare_send(e, conn, slot, &m, sizeof(m), REPLY);
}

static int answer(struct bare_end *e, struct bare_op *got)
{
	unsigned conn = got->conn;
	struct wire_msg m;
	struct bare_op *op;
	int err;

	memcpy(&m, got->msg, sizeof(m));
	err = bare_recv(e, conn, got->msg);
	if (err || m.slot >= e->depth || m.len > LOAD_DATA || m.at > LOAD_SPAN - m.len)
		return err ? err : -EPROTO;
	if (m.way == WAY_NONE)
		return reply_to(e, conn, m.slot);
	op = bare_op_get(e, BARE_MOVED, conn, m.slot);
	if (m.way == WAY_OUT)
		return bare_read(e, conn, e->data + m.at, m.len, m.addr, m.key, op);
	op->what = e->ordered ? BARE_SENT : BARE_MOVED; /* a reply may go out right behind a write that it cannot overtake */
	err = bare_write(e, conn, e->data + m.at, m.len, m.addr, m.key, op);
	return err || !e->ordered ? err : reply_to(e, conn, m.slot);
}

int load_exchange_serve(const struct bare_shape *s, int meet)
{
	char *data = bench_media("/dev/shm");
	struct bare_end e;
	int err;

	if (!data)
		return bare_refuse(meet, -ENOSPC);
	for (err = bare_serve(&e, s, data, LOAD_SPAN, meet); !err;) {
		struct bare_op *op = bare_next(&e, &err);

		if (op && op->what == BARE_GOT)
			err = answer(&e, op);
		else if (op && op->what == BARE_MOVED)
			err = reply_to(&e, op->conn, op->slot);
		if (op)
			bare_op_put(&e, op);
	}
	bare_close(&e);
	return err;
}

/* --- client ------------------------------------------------------------------------------------------------- */

static int one_sided(struct exchange *x, unsigned conn, struct bare_op *op, uint64_t at, size_t len, bool out)
{
	struct bare_end *e = &x->e;
	char *mine = e->data + (x->memory == LOAD_SPAN ? at : 0);

	return out ? bare_write_durable(e, conn, mine, len, e->addr + at, e->key, op) :
		     bare_read(e, conn, mine, len, e->addr + at, e->key, op);
}

static int send_step(struct bench_client *b, struct load_conn *c, unsigned slot, enum load_step s)
{
	struct exchange *x = (struct exchange *)b;
	struct bare_end *e = &x->e;
	unsigned i = c->id, conn = e->msg_ep ? i : 0;
	struct wire_msg m = { load_way(s), b->len, i, slot, c->slot[slot].off, bare_base(e), fi_mr_key(e->data_mr) };

	if (s == L_PUT || s == L_GET)
		return one_sided(x, conn, bare_op_get(e, BARE_MOVED, i, slot), m.at, m.len, s == L_PUT);
	m.slot = e->msg_ep ? slot : i * (e->depth / b->nconns) + slot;
	return bare_send(e, conn, m.slot, &m, sizeof(m), REQUEST);
}

static int take(struct exchange *x, struct bare_op *op)
{
	struct bare_end *e = &x->e;
	enum bare_what what = op->what;
	unsigned conn = op->conn, slot = op->slot;
	int err = 0;

	if (what == BARE_GOT) {
		struct wire_msg m;
		unsigned per = e->depth / x->b.nconns;

		memcpy(&m, op->msg, sizeof(m));
		err = bare_recv(e, conn, op->msg);
		slot = e->msg_ep ? m.slot : m.slot % per;
		conn = e->msg_ep ? conn : m.slot / per;
	}
	bare_op_put(e, op);
	if (what == BARE_SENT)
		return 0;
	return err ? err : x->b.done(x->b.arg, x->b.conn[conn], slot, 0);
}

static int wait_done(struct bench_client *b)
{
	struct exchange *x = (struct exchange *)b;
	uint64_t late = bench_now() + 10000000000u;
	int err;

	for (;;) {
		struct bare_op *op = bare_next(&x->e, &err);

		if (err || op)
			return err ? err : take(x, op);
		if (bench_now() > late)
			return -ETIMEDOUT;
	}
}

static void close_client(struct bench_client *b)
{
	struct exchange *x = (struct exchange *)b;
	char *data = x->e.data;

	floor_end(&x->floor, x->e.left);
	bare_close(&x->e);
	for (unsigned i = 0; b->conn && i < b->nconns; i++)
		free(b->conn[i]);
	free(b->conn);
	free(data);
	free(x);
}

static int start(struct exchange *x, const char *provider, const struct load_spec *s)
{
	struct bare_shape shape = { .conns = s->conns, .depth = s->depth };
	char *data;
	int err;

	x->b.conn = calloc(s->conns, sizeof(*x->b.conn));
	for (unsigned i = 0; x->b.conn && i < s->conns; i++, x->b.nconns++) {
		if (!(x->b.conn[i] = calloc(1, sizeof(*x->b.conn[i]))))
			return -ENOMEM;
		x->b.conn[i]->id = i;
	}
	x->memory = s->wide ? LOAD_SPAN : LOAD_DATA;
	data = x->e.data = aligned_alloc(4096, x->memory);
	if (!x->b.conn || !data)
		return -ENOMEM;
	memset(data, 'b', x->memory);
	snprintf(shape.provider, sizeof(shape.provider), "%s", provider);
	err = floor_begin(&x->floor, s->floor, s->host, &shape);
	return err ? err : bare_connect(&x->e, &shape, data, x->memory, x->floor.meet);
}

int load_exchange_open(const char *provider, const struct load_spec *s, pid_t *pid, struct bench_client **out)
{
	static const struct bench_client_ops ops = { "exchange", send_step, wait_done, close_client };
	struct exchange *x = calloc(1, sizeof(*x));
	int err;

	if (!x)
		return -ENOMEM;
	x->b.ops = &ops;
	x->floor.meet = -1;
	err = start(x, provider, s);
	if (err) {
		fprintf(stderr, "berth-bench: the bare exchange over %s: %s (%s)\n", provider, strerror(-err),
			err == -ENOSPC ? "each of its processes wants 64 MiB in /dev/shm" :
			s->floor ? "is `berth-bench floor` there?" : "is the provider here? `fi_info` tells");
		close_client(&x->b);
		return err;
	}
	*pid = x->floor.pid;
	*out = &x->b;
	return 0;
}
