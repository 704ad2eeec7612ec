/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_socket.c - clients over TCP: of an NFS version 3 server, and of the echo
 *
 * The same code for both: a request is one send of its own; replies are read as many as are there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <rpc/rpc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/load.h"

enum { PAGE = 4096 };

struct socket_conn {
	struct load_conn c;
	int fd;
	uint8_t *in; /* NULL: idle */
	size_t have;
	uint8_t step[LOAD_DEPTH]; /* that the call in a slot is */
};
struct socket_client {
	struct bench_client b;
	bool echo; /* bare: as many bytes, no meaning */
	int epoll;
	struct load_names names;
	uint8_t *data;
};

static struct socket_conn *conn_of(struct load_conn *c)
{
	return (struct socket_conn *)c;
}

/* --- connections ------------------------------------------------------------------------------------------- */

/* For every party at the same place of a page: some processors copy a tenth as fast where the destination is a few bytes
 * further into its page than the source, and TCP's pages are filled from their beginning. */
static void *room(size_t n)
{
	return aligned_alloc(PAGE, (n + PAGE - 1) / PAGE * PAGE);
}

static int dial_one(const struct addrinfo *a)
{
	int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	if (fd >= 0 && bindresvport_sa(fd, NULL)) /* a server that asks for a privileged port gets one, if we may */
		errno = 0;
	err = fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) ? -errno : 0;
	if (!err) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return err;
}

static int dial(const char *host, unsigned port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	char name[16];
	int got = -EHOSTUNREACH, gai;

	snprintf(name, sizeof(name), "%u", port);
	gai = getaddrinfo(host, name, &hints, &list);
	if (gai) {
		fprintf(stderr, "berth-bench: %s: %s\n", host, gai_strerror(gai));
		return got;
	}
	for (struct addrinfo *a = list; a && got < 0; a = a->ai_next)
		got = dial_one(a);
	freeaddrinfo(list);
	return got;
}

static int add_conn(struct socket_client *t, const struct load_spec *s, unsigned port)
{
	struct socket_conn *c = calloc(1, sizeof(*c));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

	if (!c)
		return -ENOMEM;
	c->c.id = s->first_id + t->b.nconns;
	c->fd = dial(s->host, port);
	c->in = s->bare ? NULL : room(LOAD_RECORD);
	if (c->fd < 0 || (!c->in && !s->bare)) {
		int err = c->fd < 0 ? c->fd : -ENOMEM;

		free(c);
		return err;
	}
	t->b.conn[t->b.nconns++] = &c->c;
	if (!s->bare)
		epoll_ctl(t->epoll, EPOLL_CTL_ADD, c->fd, &ev);
	return 0;
}

static void close_client(struct bench_client *b)
{
	struct socket_client *t = (struct socket_client *)b;

	for (unsigned i = 0; i < b->nconns; i++) {
		close(conn_of(b->conn[i])->fd);
		free(conn_of(b->conn[i])->in);
		free(b->conn[i]);
	}
	if (t->epoll >= 0)
		close(t->epoll);
	free(b->conn);
	free(t->data);
	free(t);
}

/* --- records ------------------------------------------------------------------------------------------------ */

static int send_all(int fd, struct iovec *iov, int n)
{
	while (n) {
		ssize_t sent = writev(fd, iov, n);

		if (sent < 0)
			return -errno;
		while (n && (size_t)sent >= iov->iov_len) {
			sent -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n) {
			iov->iov_base = (char *)iov->iov_base + sent;
			iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static void set_mark(uint8_t *rec, size_t len)
{
	uint32_t mark = htonl(0x80000000u | (uint32_t)(len - 4));

	memcpy(rec, &mark, 4);
}

static int send_step(struct bench_client *b, struct load_conn *c, unsigned slot, enum load_step s)
{
	struct socket_client *t = (struct socket_client *)b;
	struct load_wire *w = &b->wire[s];
	uint8_t head[1024] = { 0 };
	struct iovec iov[2] = { { head, 0 }, { t->data, 0 } };
	uint32_t payload = 0;

	conn_of(c)->step[slot] = (uint8_t)s;
	if (t->echo) {
		uint32_t h[4] = { w->out, w->in, c->slot[slot].xid, (uint32_t)c->slot[slot].off };

		memcpy(head, h, sizeof(h));
		iov[0].iov_len = w->out < 512 ? w->out : 256;
		iov[1].iov_len = w->out - iov[0].iov_len;
	} else {
		iov[0].iov_len = load_nfs_encode(&t->names, b->len, c, slot, s, head, &payload);
		iov[1].iov_len = payload + (-payload & 3);
		w->out = (uint32_t)(iov[0].iov_len + iov[1].iov_len);
		set_mark(head, w->out);
	}
	return send_all(conn_of(c)->fd, iov, iov[1].iov_len ? 2 : 1);
}

/* Length of the record at @p with its mark. */
static uint32_t record_len(const struct socket_client *t, const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return t->echo ? v : (ntohl(v) & 0x7fffffff) + 4;
}

static int one_record(struct socket_client *t, struct load_conn *c, const uint8_t *rec, uint32_t len)
{
	struct load_slot *sl;
	uint32_t id;

	memcpy(&id, rec + 4, 4);
	id = (t->echo ? id : ntohl(id)) % LOAD_DEPTH;
	sl = &c->slot[id];
	if (t->echo)
		return t->b.done(t->b.arg, c, id, 0);
	t->b.wire[conn_of(c)->step[id]].in = len;
	return t->b.done(t->b.arg, c, id, load_nfs_status(conn_of(c)->step[id], rec, len, &sl->fh));
}

static int receive(struct socket_client *t, struct socket_conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->have, LOAD_RECORD - c->have, 0);
	size_t at = 0;
	int err = 0;

	if (n <= 0)
		return n ? -errno : -ECONNRESET;
	c->have += (size_t)n;
	while (!err && c->have - at >= 8) {
		uint32_t len = record_len(t, c->in + at);

		if (len > LOAD_RECORD || len < 8)
			return -EPROTO;
		if (c->have - at < len)
			break;
		err = one_record(t, &c->c, c->in + at, len);
		at += len;
	}
	memmove(c->in, c->in + at, c->have - at);
	c->have -= at;
	return err;
}

static int wait_replies(struct bench_client *b)
{
	struct socket_client *t = (struct socket_client *)b;
	struct epoll_event ev[64];
	int n, err = 0;

	if (b->nconns == 1)
		return receive(t, conn_of(b->conn[0]));
	n = epoll_wait(t->epoll, ev, 64, 10000);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	for (int i = 0; !err && i < n; i++)
		err = receive(t, ev[i].data.ptr);
	return err;
}

/* --- before the first turn ----------------------------------------------------------------------------------- */

/* One call, alone on its connection; the reply lies in c->in. */
static int call(struct socket_conn *c, uint8_t *rec, size_t len, uint32_t *got)
{
	struct iovec iov = { rec, len };
	uint32_t v;
	int err;

	set_mark(rec, len);
	err = send_all(c->fd, &iov, 1);
	if (err)
		return err;
	if (recv(c->fd, c->in, 4, MSG_WAITALL) != 4)
		return -ECONNRESET;
	memcpy(&v, c->in, 4);
	v = ntohl(v) & 0x7fffffff;
	if (v > LOAD_RECORD - 4 || recv(c->fd, c->in + 4, v, MSG_WAITALL) != (ssize_t)v)
		return -EPROTO;
	*got = v + 4;
	return 0;
}

static int mount_export(struct socket_client *t, const struct load_spec *s)
{
	struct socket_client m = { .epoll = epoll_create1(EPOLL_CLOEXEC) };
	struct load_conn *conn;
	uint8_t buf[1400];
	uint32_t got;
	int err;

	m.b.conn = &conn;
	err = add_conn(&m, s, s->mountport);
	if (!err) {
		err = call(conn_of(conn), buf, load_nfs_mount(s->export, buf), &got);
		err = err ? err : load_nfs_mounted(conn_of(conn)->in, got, &t->names.root);
		close(conn_of(conn)->fd);
		free(conn_of(conn)->in);
		free(conn);
	}
	close(m.epoll);
	return err;
}

static int fill(struct socket_client *t)
{
	struct socket_conn *c = conn_of(t->b.conn[0]);
	uint8_t *buf = t->data + LOAD_DATA; /* room for a head in front of a copy of the data */
	uint32_t payload, got;
	int err = call(c, buf, load_nfs_create(&t->names.root, "bench", buf), &got);

	err = err ? err : load_nfs_status(L_CREATE, c->in, got, &t->names.file);
	for (uint64_t at = 0; !err && at < LOAD_SPAN; at += LOAD_DATA) {
		size_t n;

		c->c.slot[0].off = at;
		c->c.slot[0].xid = 1;
		n = load_nfs_encode(&t->names, LOAD_DATA, &c->c, 0, L_WRITE, buf, &payload);
		memcpy(buf + n, t->data, payload);
		err = call(c, buf, n + payload, &got);
		err = err ? err : load_nfs_status(L_WRITE, c->in, got, NULL);
	}
	return err;
}

/* Each connection has made a call before it is idle. */
static int call_once(struct socket_client *t)
{
	enum load_step s = L_NULL;
	uint32_t payload, got;
	int err = 0;

	for (unsigned i = 0; !err && i < t->b.nconns; i++) {
		struct socket_conn *c = conn_of(t->b.conn[i]);
		uint8_t buf[256];

		c->in = t->data;
		err = call(c, buf, load_nfs_encode(&t->names, 0, &c->c, 0, s, buf, &payload), &got);
		err = err ? err : load_nfs_status(s, c->in, got, NULL);
		c->in = NULL;
	}
	return err;
}

static const struct bench_client_ops calls = { "sockets", send_step, wait_replies, close_client };
static const struct bench_client_ops echoes = { "echo", send_step, wait_replies, close_client };

static int open_conns(const struct load_spec *s, unsigned port, bool echo, struct socket_client **out)
{
	struct socket_client *t = calloc(1, sizeof(*t));
	int err = 0;

	if (!t)
		return -ENOMEM;
	t->b.ops = echo ? &echoes : &calls;
	t->b.conn = calloc(s->conns, sizeof(*t->b.conn));
	t->data = room(2 * LOAD_RECORD);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	t->echo = echo;
	if (!t->b.conn || !t->data)
		err = -ENOMEM;
	else
		memset(t->data, 'b', 2 * LOAD_RECORD);
	while (!err && t->b.nconns < s->conns)
		err = add_conn(t, s, port);
	if (err) {
		close_client(&t->b);
		return err;
	}
	*out = t;
	return 0;
}

int load_socket_open(const struct load_spec *s, struct bench_client **out)
{
	struct socket_client *t;
	int err = open_conns(s, s->port, false, &t);

	if (err) {
		fprintf(stderr, "berth-bench: %s port %u: %s (%s)\n", s->host, s->port, strerror(-err),
			err == -EMFILE ? "raise ulimit -n" : "is a server there?");
		return err;
	}
	err = s->bare ? call_once(t) : mount_export(t, s);
	err = err || s->bare ? err : fill(t);
	if (err) {
		err = err > 0 ? -err : err;
		fprintf(stderr, "berth-bench: %s port %u: cannot mount %s and write the file \"bench\": %s (export, rights, space?)\n",
			s->host, s->port, s->export, strerror(-err));
		close_client(&t->b);
		return err;
	}
	*out = &t->b;
	return 0;
}

int load_echo_open(const char *node, unsigned port, const struct load_spec *s, struct bench_client **out)
{
	struct load_spec at = *s;
	struct socket_client *t;
	int err;

	at.host = node;
	err = open_conns(&at, port, true, &t);
	if (err)
		fprintf(stderr, "berth-bench: the bare echo: %s\n", strerror(-err));
	else
		*out = &t->b;
	return err;
}
