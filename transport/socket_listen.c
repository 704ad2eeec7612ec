/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * socket_listen.c - where TCP connections come from: binding, listening, accepting
 *
 * A bounded number is accepted in one turn. When no descriptor or memory is left for one that waits, nor a silent connection
 * that could give way, the listener, which would stay readable, looks away for a second.
 */
#include "transport/socket.h"

#include <errno.h>
#include <ev.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

enum { ACCEPT_TURN = 32 };

struct sock_listener {
	struct tp_listener l;
	int fd;
	ev_io io;
	ev_timer retry;
	int refused; /* why the last connection was: said once, not for each one */
};

/* --- accepting --- */

static void accept_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct sock_listener *sl = container_of(w, struct sock_listener, retry);

	(void)revents;
	ev_io_start(loop, &sl->io);
}

/* No descriptor or memory for a connection that waits: it keeps the listener readable, so look away
 * for a while. */
static void accept_pause(struct sock_listener *sl, int err)
{
	struct ev_loop *loop = sl->l.svc->loop;

	rpc_log(sl->l.svc, LOG_ERR,
	        "socket: cannot accept a connection: %s; trying again in a second%s", strerror(err),
	        err == EMFILE ? " (raise LimitNOFILE= or ulimit -n)" : "");
	ev_io_stop(loop, &sl->io);
	ev_timer_set(&sl->retry, 1., 0.);
	ev_timer_start(loop, &sl->retry);
}

/* accept() looks for a descriptor first, and fails for want of one although nobody is there. */
static bool one_waits(const struct sock_listener *sl)
{
	struct pollfd p = { .fd = sl->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void listener_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct sock_listener *sl = container_of(w, struct sock_listener, io);

	(void)loop;
	(void)revents;
	for (unsigned i = 0; i < ACCEPT_TURN; i++) {
		struct sockaddr_storage peer = { 0 };
		socklen_t len = sizeof(peer);
		int fd = accept4(sl->fd, (struct sockaddr *)&peer, &len,
		                 SOCK_NONBLOCK | SOCK_CLOEXEC),
		    err;

		if (fd < 0) {
			err = errno;
			if (err == EINTR || err == ECONNABORTED)
				continue;
			if (err == EMFILE && !one_waits(sl))
				return;
			if (err == EMFILE && rpc_conn_displace(sl->l.svc))
				continue;
			if (err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS)
				accept_pause(sl, err);
			return;
		}
		err = sock_conn_new(sl->l.svc, fd, &peer);
		if (err) {
			if (err != sl->refused)
				rpc_log(sl->l.svc, LOG_WARNING, "socket: connection refused: %s",
				        strerror(-err));
			close(fd);
		}
		sl->refused = err;
	}
}

static void listener_stop(struct tp_listener *l)
{
	struct sock_listener *sl = container_of(l, struct sock_listener, l);

	ev_io_stop(l->svc->loop, &sl->io);
	ev_timer_stop(l->svc->loop, &sl->retry);
}

static void listener_close(struct tp_listener *l)
{
	struct sock_listener *sl = container_of(l, struct sock_listener, l);

	listener_stop(l);
	rpc_listener_gone(l);
	close(sl->fd);
	free(sl);
}

static void listener_describe(const struct tp_listener *l, char *buf, size_t len)
{
	const struct sock_listener *sl =
		container_of((struct tp_listener *)(uintptr_t)l, struct sock_listener, l);
	struct sockaddr_storage ss = { 0 };
	socklen_t sslen = sizeof(ss);
	char host[64] = "?", port[16] = "?";

	if (!getsockname(sl->fd, (struct sockaddr *)&ss, &sslen))
		getnameinfo((struct sockaddr *)&ss, sslen, host, sizeof(host), port, sizeof(port),
		            NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(buf, len, ss.ss_family == AF_INET6 ? "socket at [%s]:%s" : "socket at %s:%s", host,
	         port);
}

static const struct tp_listener_ops listener_ops = {
	.stop = listener_stop,
	.describe = listener_describe,
	.close = listener_close,
};

int tp_listen_socket(struct tp_service *svc, int fd, struct tp_listener **out)
{
	struct sock_listener *sl = calloc(1, sizeof(*sl));

	if (!sl)
		return -ENOMEM;
	sl->fd = fd;
	ev_io_init(&sl->io, listener_readable, fd, EV_READ);
	ev_timer_init(&sl->retry, accept_retry, 0., 0.);
	rpc_listener_init(&sl->l, svc, &listener_ops);
	ev_io_start(svc->loop, &sl->io);
	*out = &sl->l;
	return 0;
}

/* --- binding --- */

static int bind_one(const struct addrinfo *ai, bool reuseport)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP),
	    on = 1, err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if ((reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on))) ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, SOMAXCONN)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static in_port_t *port_of(struct sockaddr *sa)
{
	return sa->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)sa)->sin6_port
	                                 : &((struct sockaddr_in *)(void *)sa)->sin_port;
}

/* The port that the kernel chose for the first socket serves all of them. */
static in_port_t chosen_port(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	return getsockname(fd, (struct sockaddr *)&ss, &len) ? 0 : *port_of((struct sockaddr *)&ss);
}

static int bind_failed(struct tp_error *why, const char *host, const char *port, int err)
{
	const char *cure = err == -EADDRINUSE
	                           ? "another server has this port: stop it or choose another port"
	                   : err == -EACCES ? "ports below 1024 need root or CAP_NET_BIND_SERVICE"
	                   : err == -EADDRNOTAVAIL ? "no interface of this machine has this address"
	                                           : "see bind(2)";

	snprintf(why->text, sizeof(why->text), "socket %s port %s: %s (%s)", host ? host : "*",
	         port, strerror(-err), cure);
	return err;
}

int tp_socket_bind(const char *host, const char *port, bool reuseport, int *fds, unsigned max,
                   unsigned *n, struct tp_error *why)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *list, *ai;
	int r = getaddrinfo(host, port, &hints, &list), err = -EADDRNOTAVAIL;
	unsigned have = 0;

	if (r) {
		snprintf(why->text, sizeof(why->text),
		         "socket %s port %s: %s (check the name and the port)", host ? host : "*",
		         port, gai_strerror(r));
		return r == EAI_MEMORY ? -ENOMEM : -EINVAL;
	}
	for (ai = list; ai && have < max; ai = ai->ai_next) {
		int fd;

		if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6)
			continue;
		if (have && !*port_of(ai->ai_addr))
			*port_of(ai->ai_addr) = chosen_port(fds[0]);
		fd = bind_one(ai, reuseport);
		if (fd >= 0) {
			fds[have++] = fd;
			continue;
		}
		err = fd;
		if (err != -EAFNOSUPPORT && err != -EADDRNOTAVAIL)
			break; /* a kernel without IPv6 is no error; half a service is */
	}
	freeaddrinfo(list);
	if (ai && have < max) {
		while (have)
			close(fds[--have]);
	}
	if (!have)
		return bind_failed(why, host, port, err);
	*n = have;
	return 0;
}
