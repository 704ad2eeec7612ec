/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reach.c - why the first connection failed, so that one knows what to do
 *
 * What a provider tells of a connection that did not come about is one errno, and for a port where something else listens an
 * accidental one. So the name is looked up, and where the provider connects by TCP the port is tried with a socket, to which
 * nothing is said. Only done after a failure.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/client.h"

#define TRY_MS 2000

static bool is_unreachable(int err)
{
	return err == -EHOSTUNREACH || err == -ENETUNREACH || err == -EHOSTDOWN || err == -ENETDOWN;
}

/* 0: something accepts TCP connections at @ai. */
static int try_socket(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(err);

	if (fd < 0)
		return -errno;
	if (connect(fd, ai->ai_addr, ai->ai_addrlen))
		err = errno;
	if (err == EINPROGRESS) {
		err = poll(&p, 1, TRY_MS) == 1 ? 0 : ETIMEDOUT;
		if (!err)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	}
	close(fd);
	return -err;
}

static int nobody(const struct berth_url *u, const char *where, struct tp_error *why)
{
	snprintf(why->text, sizeof(why->text),
	         "nobody listens at %s: is berthd running there, with provider = %s and service = %s in a [fabric] section of "
	         "its berth.conf?",
	         where, u->provider, u->port);
	return -ECONNREFUSED;
}

/* Something listens where the provider did not get in. */
static int another(const struct berth_url *u, const char *where, int err, struct tp_error *why)
{
	if (err == -ECONNREFUSED) {
		snprintf(why->text, sizeof(why->text),
		         "%s refuses the connection by provider %s: berthd has as many as it takes (its log says so), or it is "
		         "another provider's port",
		         where, u->provider);
		return err;
	}
	snprintf(why->text, sizeof(why->text),
	         "%s accepts connections, but does not speak as libfabric's %s provider does: is it berthd's port for sockets "
	         "(mount -t nfs), or another program's? Fabrics have ports of their own, 20049 unless service = says otherwise",
	         where, u->provider);
	return -EPROTO;
}

static int reach_host(const struct berth_url *u, int err, struct tp_error *why)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;
	int found = getaddrinfo(u->host, u->port, &hints, &ai), tried;
	char where[200];

	if (found) {
		snprintf(why->text, sizeof(why->text), "%s port %s: %s", u->host, u->port, gai_strerror(found));
		return -EHOSTUNREACH;
	}
	snprintf(where, sizeof(where), "%.120s port %.60s", u->host, u->port);
	if (is_unreachable(err) || err == -ENODEV || !strcmp(u->provider, "verbs"))
		tried = -EOPNOTSUPP;
	else
		tried = try_socket(ai);
	freeaddrinfo(ai);
	if (is_unreachable(err) || is_unreachable(tried)) {
		err = is_unreachable(err) ? err : tried;
		snprintf(why->text, sizeof(why->text), "%s cannot be reached: %s", u->host, strerror(-err));
		return err;
	}
	if (tried == -ECONNREFUSED || (tried == -EOPNOTSUPP && err == -ECONNREFUSED))
		return nobody(u, where, why);
	return tried ? err : another(u, where, err, why);
}

int reach_why(const struct berth_url *u, int err, struct tp_error *why)
{
	if (u->host)
		return err == -EINVAL || err == -ENOMEM ? err : reach_host(u, err, why);
	if (err == -ECONNREFUSED)
		snprintf(why->text, sizeof(why->text),
		         "nobody listens at the %s endpoint '%s': is berthd running here as user %u, with provider = %s and "
		         "service = %s in a [fabric] section of its berth.conf?",
		         u->provider, u->port, (unsigned)geteuid(), u->provider, u->port);
	return err;
}
