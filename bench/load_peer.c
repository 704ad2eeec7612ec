/* SPDX-License-Identifier: BSD-3-Clause */
/* load_peer.c - connections: a request is one send of its own; replies are read as many as are there */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/load.h"

static int dial(const char *host, unsigned port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	char name[16];
	int one = 1, fd, err;

	snprintf(name, sizeof(name), "%u", port);
	if (getaddrinfo(host, name, &hints, &list))
		return -EHOSTUNREACH;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && bindresvport(fd, NULL)) /* a server that asks for a privileged port gets one, if we may */
		errno = 0;
	err = fd < 0 || connect(fd, list->ai_addr, list->ai_addrlen) ? -errno : 0;
	freeaddrinfo(list);
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

int load_connect(struct load_target *t, const char *host, unsigned port, unsigned n)
{
	t->conn = calloc(n, sizeof(*t->conn));
	t->data = malloc(2 * LOAD_RECORD);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!t->conn || !t->data)
		return -ENOMEM;
	memset(t->data, 'b', 2 * LOAD_RECORD);
	for (; t->nconns < n; t->nconns++) {
		struct load_conn *c = &t->conn[t->nconns];
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

		c->id = t->nconns;
		c->fd = dial(host, port);
		c->in = malloc(LOAD_RECORD);
		if (c->fd < 0 || !c->in)
			return c->fd < 0 ? c->fd : -ENOMEM;
		epoll_ctl(t->epoll, EPOLL_CTL_ADD, c->fd, &ev);
	}
	return 0;
}

void load_close(struct load_target *t)
{
	for (unsigned i = 0; i < t->nconns; i++) {
		close(t->conn[i].fd);
		free(t->conn[i].in);
	}
	close(t->epoll);
	free(t->conn);
	free(t->data);
}

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

int load_send(struct load_target *t, struct load_conn *c, unsigned slot, enum load_step s, struct load_wire *w)
{
	uint8_t head[1024] = { 0 };
	struct iovec iov[2] = { { head, 0 }, { t->data, 0 } };
	uint32_t payload = 0, pad;

	if (t->echo) {
		uint32_t h[3] = { w->out, w->in, c->slot[slot].xid };

		memcpy(head, h, sizeof(h));
		iov[0].iov_len = w->out < 512 ? w->out : 256;
		iov[1].iov_len = w->out - iov[0].iov_len;
	} else {
		iov[0].iov_len = load_nfs_encode(t, c, slot, s, head, &payload);
		pad = -payload & 3;
		iov[1].iov_len = payload + pad;
		w->out = (uint32_t)(iov[0].iov_len + iov[1].iov_len);
		set_mark(head, w->out);
	}
	return send_all(c->fd, iov, iov[1].iov_len ? 2 : 1);
}

/* Length of the record at @p with its mark. */
static uint32_t record_len(const struct load_target *t, const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return t->echo ? v : (ntohl(v) & 0x7fffffff) + 4;
}

static int receive(struct load_target *t, struct load_conn *c, load_done *done, void *arg)
{
	ssize_t n = recv(c->fd, c->in + c->have, LOAD_RECORD - c->have, 0);
	size_t at = 0;
	int err = 0;

	if (n <= 0)
		return n ? -errno : -ECONNRESET;
	c->have += (size_t)n;
	while (!err && c->have - at >= 8) {
		uint32_t len = record_len(t, c->in + at), id;

		if (len > LOAD_RECORD || len < 8)
			return -EPROTO;
		if (c->have - at < len)
			break;
		memcpy(&id, c->in + at + 4, 4);
		id = t->echo ? id : ntohl(id);
		err = done(arg, c, id % LOAD_DEPTH, c->in + at, len);
		at += len;
	}
	memmove(c->in, c->in + at, c->have - at);
	c->have -= at;
	return err;
}

int load_wait(struct load_target *t, load_done *done, void *arg)
{
	struct epoll_event ev[64];
	int n, err = 0;

	if (t->nconns == 1)
		return receive(t, t->conn, done, arg);
	n = epoll_wait(t->epoll, ev, 64, 10000);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	for (int i = 0; !err && i < n; i++)
		err = receive(t, ev[i].data.ptr, done, arg);
	return err;
}

int load_raw_call(struct load_conn *c, const uint8_t *rec, size_t len, uint32_t *got)
{
	uint8_t *mark = (uint8_t *)(uintptr_t)rec;
	struct iovec iov = { mark, len };
	uint32_t v;
	int err;

	set_mark(mark, len);
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
