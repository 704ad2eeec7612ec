/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_echo.c - the floor of `berth-bench load`: a process that answers each request with as many bytes as it asks for
 *
 * It reads what is there and sends one reply for each request, without RPC, file or persistence. A request is
 * its length and the reply's length (both with these words), an id, and filling; a reply begins with its length and the id.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/load.h"

struct peer {
	int fd;
	size_t have;
	uint8_t *in;
};

static void send_reply(int fd, uint8_t *reply, size_t len)
{
	for (size_t n = 0; n < len;) {
		ssize_t k = send(fd, reply + n, len - n, MSG_NOSIGNAL);

		if (k < 0)
			return;
		n += (size_t)k;
	}
}

/* Answer what is whole. False: the peer is gone or broke the rules. */
static bool serve(struct peer *p, uint8_t *reply)
{
	ssize_t n = recv(p->fd, p->in + p->have, LOAD_RECORD - p->have, 0);
	size_t at = 0;
	uint32_t h[3];

	if (n <= 0)
		return false;
	p->have += (size_t)n;
	while (p->have - at >= sizeof(h)) {
		memcpy(h, p->in + at, sizeof(h));
		if (h[0] < sizeof(h) || h[0] > LOAD_RECORD || h[1] < 8 || h[1] > LOAD_RECORD)
			return false;
		if (p->have - at < h[0])
			break;
		memcpy(reply, &h[1], 4);
		memcpy(reply + 4, &h[2], 4);
		send_reply(p->fd, reply, h[1]);
		at += h[0];
	}
	memmove(p->in, p->in + at, p->have - at);
	p->have -= at;
	return true;
}

static void loop(int lfd)
{
	struct epoll_event ev[64], add = { .events = EPOLLIN };
	uint8_t *reply = calloc(1, LOAD_RECORD);
	int ep = epoll_create1(0), one = 1;

	epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &add);
	for (;;) {
		int n = epoll_wait(ep, ev, 64, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = ev[i].data.ptr;

			if (p && !serve(p, reply)) {
				close(p->fd);
				free(p->in);
				free(p);
			} else if (!p && (p = calloc(1, sizeof(*p)))) {
				p->fd = accept(lfd, NULL, NULL);
				p->in = malloc(LOAD_RECORD);
				setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				add.data.ptr = p;
				epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &add);
			}
		}
	}
}

int load_echo_start(pid_t *pid, unsigned *port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (lfd < 0 || bind(lfd, (struct sockaddr *)&in, sizeof(in)) || listen(lfd, 4096) ||
	    getsockname(lfd, (struct sockaddr *)&in, &len))
		return -errno;
	*port = ntohs(in.sin_port);
	*pid = fork();
	if (*pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		loop(lfd);
		_exit(0);
	}
	close(lfd);
	return *pid < 0 ? -errno : 0;
}
