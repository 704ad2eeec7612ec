/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.c - the control socket: one line in, one answer out, closed
 *
 *   stat   counters and state as JSON          ping   "pong"
 *   quota ...   see quota.c
 *   scrub  start [MB/s], pause, resume, stop or status: what it is doing now as JSON (scrub.c)
 *
 * It is a Unix socket that only the server's user can open.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "server/process.h"

#define MAX_CLIENTS 16

struct control_client {
	struct control *c;
	ev_io io;
	int fd;
	char line[128];
	size_t have;
	char *out;
	size_t len, sent;
	bool asking; /* the stats request is with the workers */
	bool gone;
	struct stats_request stats;
	LIST_ENTRY(control_client) link;
};
struct control {
	struct server *srv;
	struct ev_loop *loop;
	ev_io io;
	int fd;
	unsigned n;
	LIST_HEAD(, control_client) clients;
};

static void drop(struct control_client *cl)
{
	if (cl->fd >= 0) {
		ev_io_stop(cl->c->loop, &cl->io);
		close(cl->fd);
		cl->fd = -1;
	}
	if (cl->asking) { /* freed when the request comes back */
		cl->gone = true;
		return;
	}
	LIST_REMOVE(cl, link);
	cl->c->n--;
	free(cl->out);
	free(cl);
}

static void on_writable(struct ev_loop *loop, ev_io *io, int events)
{
	struct control_client *cl = container_of(io, struct control_client, io);
	ssize_t n = send(cl->fd, cl->out + cl->sent, cl->len - cl->sent, MSG_NOSIGNAL);

	(void)loop;
	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		cl->sent += (size_t)n;
	if (n <= 0 || cl->sent == cl->len)
		drop(cl);
}

static void answer(struct control_client *cl, char *text)
{
	if (!text) {
		drop(cl);
		return;
	}
	cl->out = text;
	cl->len = strlen(text);
	ev_io_stop(cl->c->loop, &cl->io);
	ev_io_init(&cl->io, on_writable, cl->fd, EV_WRITE);
	ev_io_start(cl->c->loop, &cl->io);
}

static void stats_done(struct stats_request *rq)
{
	struct control_client *cl = container_of(rq, struct control_client, stats);
	char *text = cl->gone ? NULL : stats_json(rq);

	stats_end(rq);
	cl->asking = false;
	answer(cl, text);
}

static void obey(struct control_client *cl)
{
	if (!strcmp(cl->line, "ping")) {
		answer(cl, strdup("pong\n"));
	} else if (!strcmp(cl->line, "stat")) {
		cl->asking = true;
		if (stats_begin(&cl->stats, cl->c->srv, stats_done)) {
			cl->asking = false;
			drop(cl);
		}
	} else if (!strcmp(cl->line, "quota") || !strncmp(cl->line, "quota ", 6)) {
		answer(cl, quota_command(cl->c->srv->store, cl->line));
	} else if (!strncmp(cl->line, "scrub ", 6)) {
		answer(cl, scrub_command(cl->c->srv, cl->line + 6));
	} else {
		answer(cl, strdup("unknown command; known are stat, quota, scrub and ping\n"));
	}
}

static void on_readable(struct ev_loop *loop, ev_io *io, int events)
{
	struct control_client *cl = container_of(io, struct control_client, io);
	ssize_t n = recv(cl->fd, cl->line + cl->have, sizeof(cl->line) - 1 - cl->have, 0);
	char *end;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(cl);
		return;
	}
	cl->have += (size_t)n;
	end = memchr(cl->line, '\n', cl->have);
	if (end) {
		*end = '\0';
		ev_io_stop(loop, &cl->io);
		obey(cl);
	} else if (cl->have == sizeof(cl->line) - 1) {
		drop(cl);
	}
}

static void on_connect(struct ev_loop *loop, ev_io *io, int events)
{
	struct control *c = container_of(io, struct control, io);
	int fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct control_client *cl;

	(void)events;
	if (fd < 0)
		return;
	cl = c->n < MAX_CLIENTS ? calloc(1, sizeof(*cl)) : NULL;
	if (!cl) {
		close(fd);
		return;
	}
	cl->c = c;
	cl->fd = fd;
	c->n++;
	LIST_INSERT_HEAD(&c->clients, cl, link);
	ev_io_init(&cl->io, on_readable, fd, EV_READ);
	ev_io_start(loop, &cl->io);
}

/* A socket file left by a server that was killed is in the way; one that answers is not ours to take. */
static int bind_control(const char *path, struct tp_error *why)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	mode_t old;
	int fd, err = 0;

	if (strlen(path) >= sizeof(sun.sun_path)) {
		snprintf(why->text, sizeof(why->text), "control socket %s: the path is longer than %zu bytes",
			 path, sizeof(sun.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(sun.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		close(fd);
		snprintf(why->text, sizeof(why->text), "control socket %s: another server answers there; "
						       "set control in [server]", path);
		return -EADDRINUSE;
	}
	unlink(path);
	old = umask(0177);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, MAX_CLIENTS))
		err = -errno;
	umask(old);
	if (!err)
		return fd;
	snprintf(why->text, sizeof(why->text), "control socket %s: %s; set control in [server]", path,
		 strerror(-err));
	close(fd);
	return err;
}

int control_open(struct server *srv, struct ev_loop *loop, struct control **out, struct tp_error *why)
{
	struct control *c = calloc(1, sizeof(*c));
	char *dir;

	if (!c)
		return -ENOMEM;
	dir = strdup(srv->conf.control);
	if (dir)
		mkdir(dirname(dir), 0755); /* /run/berth, if it is not there yet */
	free(dir);
	c->srv = srv;
	c->loop = loop;
	LIST_INIT(&c->clients);
	c->fd = bind_control(srv->conf.control, why);
	if (c->fd < 0) {
		int err = c->fd;

		free(c);
		return err;
	}
	ev_io_init(&c->io, on_connect, c->fd, EV_READ);
	ev_io_start(loop, &c->io);
	*out = c;
	return 0;
}

void control_close(struct control *c)
{
	struct control_client *cl;

	if (!c)
		return;
	while ((cl = LIST_FIRST(&c->clients))) {
		if (cl->asking) /* no worker will send it back any more */
			stats_end(&cl->stats);
		cl->asking = false;
		drop(cl);
	}
	ev_io_stop(c->loop, &c->io);
	close(c->fd);
	unlink(c->srv->conf.control);
	free(c);
}
