/* SPDX-License-Identifier: BSD-3-Clause */
/* load_fabric.c - a client of libberth: calls over RPC-over-RDMA, and one-sided puts and gets through a mapping */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"
#include "client/berth.h"

struct fabric_conn;
struct flight { /* what a callback is told */
	struct fabric_conn *c;
	unsigned slot;
	enum load_step step;
};
struct fabric_conn {
	struct load_conn c;
	struct fabric_client *t;
	struct berth *b;
	struct berth_file *f;
	struct berth_map *m;
	uint64_t mapped; /* offset of what it maps: clients that map the same blocks take them from each other */
	struct flight flight[LOAD_DEPTH];
};
struct fabric_client {
	struct bench_client b;
	unsigned share; /* bytes that each maps */
	struct berth **session; /* of the connections */
	struct pollfd *poll;
	struct berth_fh root, file;
	char *data;
	int err; /* of a callback: the turn ends with it */
};

static struct fabric_conn *conn_of(struct load_conn *c)
{
	return (struct fabric_conn *)c;
}

static void step_over(void *arg, int err, const struct berth_reply *r)
{
	struct flight *fl = arg;
	struct fabric_client *t = fl->c->t;
	struct load_slot *sl = &fl->c->c.slot[fl->slot];

	if (!err && load_way(fl->step) && fl->step != L_PUT && fl->step != L_GET && r->count != t->b.len)
		err = -EIO; /* short */
	if (!err && fl->step == L_CREATE) {
		sl->fh.len = r->fh.len;
		memcpy(sl->fh.data, r->fh.data, r->fh.len);
	}
	err = t->b.done(t->b.arg, &fl->c->c, fl->slot, err);
	t->err = t->err ? t->err : err;
}

static int send_step(struct bench_client *b, struct load_conn *lc, unsigned slot, enum load_step s)
{
	struct fabric_client *t = (struct fabric_client *)b;
	struct fabric_conn *c = conn_of(lc);
	struct load_slot *sl = &lc->slot[slot];
	struct flight *fl = &c->flight[slot];
	struct berth_set mode = { .set = BERTH_SET_MODE, .mode = 0644 };
	struct berth_fh made = { .len = sl->fh.len };
	char name[32];

	memcpy(made.data, sl->fh.data, sl->fh.len);
	*fl = (struct flight){ c, slot, s };
	if (s == L_CREATE || s == L_REMOVE)
		load_name(lc, slot, s == L_REMOVE ? sl->made - 1 : sl->made, name);
	switch (s) {
	case L_NULL: return berth_start_null(c->b, step_over, fl);
	case L_GETATTR: return berth_start_getattr(c->b, &t->file, step_over, fl);
	case L_LOOKUP: return berth_start_lookup(c->b, &t->root, "bench", step_over, fl);
	case L_READ: return berth_start_read(c->b, &t->file, sl->off, t->data, b->len, step_over, fl);
	case L_WRITE: return berth_start_write(c->b, &t->file, sl->off, t->data, b->len, BERTH_FILE_SYNC, step_over, fl);
	case L_WRITE_UNSTABLE:
		return berth_start_write(c->b, &t->file, sl->off, t->data, b->len, BERTH_UNSTABLE, step_over, fl);
	case L_COMMIT: return berth_start_commit(c->b, &t->file, step_over, fl);
	case L_CREATE:
		return berth_start_create(c->b, &t->root, name, BERTH_UNCHECKED, &mode, NULL, step_over, fl);
	case L_REMOVE: return berth_start_remove(c->b, &t->root, name, step_over, fl);
	case L_WRITE_NEW:
		return berth_start_write(c->b, &made, 0, t->data, b->len, BERTH_FILE_SYNC, step_over, fl);
	case L_READ_NEW: return berth_start_read(c->b, &made, 0, t->data, b->len, step_over, fl);
	case L_PUT:
		return berth_map_start_put(c->m, c->mapped + sl->off % t->share, t->data, b->len, BERTH_DURABLE | BERTH_BY_RMA, step_over, fl);
	case L_GET: return berth_map_start_get(c->m, c->mapped + sl->off % t->share, t->data, b->len, BERTH_BY_RMA, step_over, fl);
	case L_NSTEPS: break;
	}
	return -EINVAL;
}

/* As berth_wait_any(), of any number of sessions. */
static int wait_any(struct fabric_client *t, int ms)
{
	uint64_t end = bench_now() + (uint64_t)ms * 1000000;

	if (t->b.nconns == 1)
		return berth_wait(t->session[0], ms);
	do {
		int sleep = ms, made = 0;

		for (unsigned i = 0; i < t->b.nconns; i++) {
			int got = berth_progress(t->session[i]), most = -1;

			if (got < 0)
				return got;
			made += got;
			if (berth_before_poll(t->session[i], &most) == -EAGAIN)
				sleep = 0;
			else if (most >= 0 && most < sleep)
				sleep = most;
			t->poll[i] = (struct pollfd){ .fd = berth_fd(t->session[i]), .events = POLLIN };
		}
		if (made)
			return made;
		if (sleep)
			poll(t->poll, t->b.nconns, sleep);
		else
			sched_yield();
	} while (bench_now() < end);
	return 0;
}

static int wait_done(struct bench_client *b)
{
	struct fabric_client *t = (struct fabric_client *)b;
	int n = wait_any(t, 10000);

	return t->err ? t->err : n < 0 ? n : n ? 0 : -ETIMEDOUT;
}

static void close_client(struct bench_client *b)
{
	struct fabric_client *t = (struct fabric_client *)b;

	for (unsigned i = 0; i < b->nconns; i++) {
		struct fabric_conn *c = conn_of(b->conn[i]);

		if (c->m)
			berth_unmap(c->m);
		if (c->f)
			berth_close(c->f);
		berth_disconnect(c->b);
		free(c);
	}
	free(t->session);
	free(t->poll);
	free(b->conn);
	free(t->data);
	free(t);
}

/* The file "bench" of the export, filled by the first. */
static int prepare(struct fabric_client *t, struct fabric_conn *c, const struct load_spec *s)
{
	int err = berth_open(c->b, NULL, "bench", O_CREAT | O_RDWR, 0644, &c->f);

	for (uint64_t at = 0; !err && c == conn_of(t->b.conn[0]) && at < LOAD_SPAN; at += LOAD_DATA) {
		ssize_t n = berth_pwrite(c->f, t->data, LOAD_DATA, at, BERTH_FILE_SYNC);

		err = n < 0 ? (int)n : n == LOAD_DATA ? 0 : -ENOSPC;
	}
	if (err)
		fprintf(stderr, "berth-bench: %s: cannot write the file \"bench\": %s (rights, space?)\n", s->url, strerror(-err));
	if (!err && s->one_sided) {
		c->mapped = (uint64_t)c->c.id * t->share;
		err = berth_map(c->f, c->mapped, t->share, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &c->m);
		if (err)
			fprintf(stderr, "berth-bench: %s: put and get need a mapping: %s (layouts = on in the server's [fabric]?)\n",
				s->url, strerror(-err));
	}
	berth_root(c->b, &t->root);
	if (!err)
		berth_file_fh(c->f, &t->file);
	return err;
}

static int add_conn(struct fabric_client *t, const struct load_spec *s)
{
	struct fabric_conn *c = calloc(1, sizeof(*c));
	struct berth_error why = { "" };
	struct berth_mr *mr;
	int err = c ? berth_connect(s->url, NULL, &c->b, &why) : -ENOMEM;

	if (err) {
		fprintf(stderr, "berth-bench: %s: %s\n", s->url, why.text[0] ? why.text : strerror(-err));
		free(c);
		return err;
	}
	c->t = t;
	c->c.id = s->first_id + t->b.nconns;
	t->session[t->b.nconns] = c->b;
	t->b.conn[t->b.nconns++] = &c->c;
	if (s->bare)
		return 0;
	err = berth_register(c->b, t->data, LOAD_DATA, &mr);
	return err ? err : prepare(t, c, s);
}

int load_fabric_open(const struct load_spec *s, struct bench_client **out)
{
	static const struct bench_client_ops ops = { "fabric", send_step, wait_done, close_client };
	struct fabric_client *t = calloc(1, sizeof(*t));
	int err = 0;

	if (!t)
		return -ENOMEM;
	t->b.ops = &ops;
	t->share = s->share;
	t->b.conn = calloc(s->conns, sizeof(*t->b.conn));
	t->session = calloc(s->conns, sizeof(*t->session));
	t->poll = calloc(s->conns, sizeof(*t->poll));
	t->data = s->bare ? NULL : aligned_alloc(4096, LOAD_DATA);
	if (!t->b.conn || !t->session || !t->poll || (!t->data && !s->bare))
		err = -ENOMEM;
	else if (t->data)
		memset(t->data, 'b', LOAD_DATA);
	while (!err && t->b.nconns < s->conns)
		err = add_conn(t, s);
	if (err)
		close_client(&t->b);
	else
		*out = &t->b;
	return err;
}
