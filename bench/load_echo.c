/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_echo.c - the floor of sockets: a process that answers each request with as many bytes as it asks for
 *
 * It reads what is there and sends one reply for each request, without RPC, file or persistence. A request is its
 * length and the reply's length (both with these words), an id, a place, and filling; a reply begins with its length
 * and the id. The bytes of long requests are read into, and those of long replies sent from, that place in memory like
 * a pool's, to and from whole pages: what a server does to a cache, and to the copying of TCP, the echo does as well.
 */
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

#include "bench/floor.h"
#include "bench/load.h"
#include "bench/media.h"

enum {
	LONG = 2048, /* bytes: what is longer has a place */
	HEAD = 132,  /* of a reply, in front of what has a place: as long as that of a READ */
	PAGE = 4096,
};

struct peer {
	uint8_t in[65536]; /* from the beginning of a page on, as every party's */
	int fd;
	size_t have;
	size_t rest; /* of a long request, still to come into place */
	char *at;    /* where */
	uint32_t reply, id;
};

static void send_reply(struct peer *p, const char *media, uint32_t place)
{
	char head[HEAD] = { 0 };
	size_t n_head = p->reply < HEAD ? p->reply : HEAD;
	size_t body = p->reply - n_head;
	struct iovec iov[2] = { { head, n_head }, { (char *)(uintptr_t)media + (body > LONG ? place : 0), body } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

	memcpy(head, &p->reply, sizeof(p->reply));
	memcpy(head + sizeof(p->reply), &p->id, sizeof(p->id));
	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = sendmsg(p->fd, &m, MSG_NOSIGNAL);

		if (n < 0)
			return;
		for (int i = 0; i < 2; i++) {
			size_t k = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			iov[i].iov_base = (char *)iov[i].iov_base + k;
			iov[i].iov_len -= k;
			n -= (ssize_t)k;
		}
	}
}

static bool fits(const uint32_t *h)
{
	return h[0] >= 16 && h[0] <= LOAD_RECORD && h[1] >= 8 && h[1] <= LOAD_RECORD;
}

/* Where a long request goes: what it ends with, the data, to whole pages, as a server's does. */
static char *place_of(const uint32_t *h, char *media)
{
	return media + h[3] % (LOAD_SPAN - LOAD_RECORD - PAGE) + -h[0] % PAGE;
}

/* The beginning of a long request is there: the rest goes where it belongs. */
static void begin_long(struct peer *p, const uint32_t *h, const uint8_t *rec, size_t have, char *media)
{
	p->at = place_of(h, media);
	memcpy(p->at, rec, have);
	p->at += have;
	p->rest = h[0] - have;
	p->reply = h[1];
	p->id = h[2];
}

/* Answer what is whole. False: the peer is gone or broke the rules. */
static bool serve(struct peer *p, char *media)
{
	ssize_t n = p->rest ? recv(p->fd, p->at, p->rest, 0) : recv(p->fd, p->in + p->have, sizeof(p->in) - p->have, 0);
	size_t at = 0;
	uint32_t h[4];

	if (n <= 0)
		return false;
	if (p->rest) {
		p->rest -= (size_t)n;
		p->at += n;
		if (!p->rest)
			send_reply(p, media, 0);
		return true;
	}
	p->have += (size_t)n;
	while (p->have - at >= sizeof(h)) {
		memcpy(h, p->in + at, sizeof(h));
		if (!fits(h))
			return false;
		if (p->have - at < h[0] && h[0] > LONG) {
			begin_long(p, h, p->in + at, p->have - at, media);
			at = p->have;
			break;
		}
		if (p->have - at < h[0])
			break;
		if (h[0] > LONG)
			memcpy(place_of(h, media), p->in + at, h[0]);
		p->reply = h[1];
		p->id = h[2];
		send_reply(p, media, h[3] % (LOAD_SPAN - LOAD_RECORD));
		at += h[0];
	}
	memmove(p->in, p->in + at, p->have - at);
	p->have -= at;
	return true;
}

static void add(int ep, int fd, void *what)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = what };

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static void accept_peer(int ep, int lfd)
{
	struct peer *p = aligned_alloc(PAGE, (sizeof(*p) + PAGE - 1) / PAGE * PAGE);
	int one = 1;

	if (!p)
		return;
	memset(p, 0, sizeof(*p));
	p->fd = accept(lfd, NULL, NULL);
	setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	add(ep, p->fd, p);
}

/* Until @meet is closed at the other end. */
static int loop(int lfd, int meet, char *media)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev[64];

	add(ep, lfd, NULL);
	add(ep, meet, media);
	for (;;) {
		int n = epoll_wait(ep, ev, 64, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = ev[i].data.ptr;

			if (ev[i].data.ptr == media)
				return 0;
			if (!p) {
				accept_peer(ep, lfd);
			} else if (!serve(p, media)) {
				close(p->fd);
				free(p);
			}
		}
	}
}

struct echo_at { /* what its process tells who asked for it */
	int32_t err;
	uint16_t port; /* in network order */
};

int load_echo_serve(const char *node, int meet)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE }, *a;
	struct sockaddr_in6 in; /* a port is at the same place in both families */
	socklen_t len = sizeof(in);
	char *media = bench_media("/dev/shm");
	struct echo_at me;
	int lfd = -1, err = getaddrinfo(node, "0", &hints, &a) ? -EINVAL : 0;

	if (!err) {
		lfd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		err = lfd < 0 || bind(lfd, a->ai_addr, a->ai_addrlen) || listen(lfd, 4096) ||
		      getsockname(lfd, (struct sockaddr *)&in, &len) ? -errno : 0;
		freeaddrinfo(a);
	}
	err = err || media ? err : -ENOSPC;
	me = (struct echo_at){ err, err ? 0 : in.sin6_port };
	if (send(meet, &me, sizeof(me), MSG_NOSIGNAL) != sizeof(me))
		err = err ? err : -EPIPE;
	return err ? err : loop(lfd, meet, media);
}

int load_echo_start(const struct load_spec *s, struct floor_process *f, char node[64], unsigned *port)
{
	struct bare_shape shape = { .provider = "sockets", .conns = s->conns, .depth = s->depth };
	struct echo_at at;
	int err = floor_begin(f, s->floor, s->host, &shape);

	if (!err)
		err = recv(f->meet, &at, sizeof(at), MSG_WAITALL) == sizeof(at) ? at.err : -EPIPE;
	if (err) {
		fprintf(stderr, "berth-bench: the bare echo: %s%s\n", strerror(-err),
			err == -ENOSPC ? " (it wants 64 MiB in /dev/shm)" : s->floor ? " (is `berth-bench floor` there?)" : "");
		return err;
	}
	snprintf(node, 64, "%s", shape.node);
	*port = ntohs(at.port);
	return 0;
}
