/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.c - asking the server on this machine; berth stat without a URL
 *
 * The control socket takes one line ("stat") and answers JSON until it closes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

#define ANSWER_MAX (16u << 20)

static void default_socket(char *buf, size_t size)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	if (geteuid() && dir && *dir)
		snprintf(buf, size, "%s/berth.sock", dir);
	else
		snprintf(buf, size, "/run/berth/control.sock");
}

static int dial(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 10 };
	int fd, err;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&un, sizeof(un))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* The whole answer to @line, malloc'ed. */
static int ask(const char *path, const char *line, char **answer)
{
	size_t len = 0, room = 0;
	char *buf = NULL;
	ssize_t n = 0;
	int fd = dial(path), err = 0;

	if (fd < 0)
		return fd;
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		err = -errno;
	while (!err) {
		if (len + 1 >= room) {
			char *more =
				room < ANSWER_MAX ? realloc(buf, room ? room * 2 : 65536) : NULL;

			if (!more) {
				err = -ENOMEM;
				break;
			}
			buf = more;
			room = room ? room * 2 : 65536;
		}
		n = recv(fd, buf + len, room - len - 1, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	if (!err && n < 0)
		err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	if (err) {
		free(buf);
		return err;
	}
	buf[len] = '\0';
	*answer = buf;
	return 0;
}

/* --- for people --- */

static void print_value(json_t *v)
{
	if (json_is_string(v))
		printf("%s", json_string_value(v));
	else if (json_is_integer(v))
		printf("%lld", (long long)json_integer_value(v));
	else if (json_is_boolean(v))
		printf("%s", json_is_true(v) ? "yes" : "no");
	else if (json_is_real(v))
		printf("%g", json_real_value(v));
}

static void print_object(const char *title, json_t *o)
{
	const char *key;
	json_t *v;

	if (!json_is_object(o))
		return;
	printf("%s\n", title);
	json_object_foreach(o, key, v)
	{
		char label[64];
		size_t n;

		if (json_is_object(v) || json_is_array(v))
			continue;
		snprintf(label, sizeof(label), "%s", key);
		for (n = 0; label[n]; n++)
			if (label[n] == '_')
				label[n] = ' ';
		printf("  %-24s ", label);
		print_value(v);
		putchar('\n');
	}
}

/* The upper edge of the bucket that holds the @part-th of @count calls, in microseconds. */
static double quantile(json_t *hist, json_int_t count, double part)
{
	double seen = 0, want = (double)count * part;

	for (size_t i = 0; i < json_array_size(hist); i++) {
		seen += (double)json_integer_value(json_array_get(hist, i));
		if (seen >= want)
			return (double)(2ull << (i < 62 ? i : 62)) / 1000;
	}
	return 0;
}

static void print_calls(json_t *calls)
{
	const char *transport, *name;
	json_t *kind, *p;

	json_object_foreach(calls, transport, kind)
	{
		if (!json_object_size(kind))
			continue;
		printf("calls over %-20s %10s %8s %9s %9s %9s\n", transport, "count", "errors",
		       "mean us", "50% <", "99% <");
		json_object_foreach(kind, name, p)
		{
			json_t *h = json_object_get(p, "latency_log2_ns");
			json_int_t n = json_integer_value(json_object_get(p, "count"));

			printf("  %-29s %10lld %8lld %9.1f %9.1f %9.1f\n", name, (long long)n,
			       (long long)json_integer_value(json_object_get(p, "errors")),
			       (double)json_integer_value(json_object_get(p, "mean_ns")) / 1000,
			       quantile(h, n, 0.5), quantile(h, n, 0.99));
		}
	}
}

static void print_fabrics(json_t *list)
{
	size_t i;
	json_t *f;

	json_array_foreach(list, i, f)
	{
		const char *m = json_string_value(json_object_get(f, "layout_persistence"));
		const char *not = json_string_value(json_object_get(f, "layout_persistence_not_promised"));

		printf("  layouts, fabric %-8s %s (%s)%s%s\n", json_string_value(json_object_get(f, "name")),
		       m ? m : "none", json_string_value(json_object_get(f, "layout_persistence_reason")),
		       not ? "; not promised: " : "", not ? not : "");
	}
}

static void print_readably(json_t *o)
{
	json_t *l, *list = json_object_get(o, "listeners");
	size_t i;

	print_object("server", o);
	json_array_foreach(list, i, l) printf("  %-24s %s\n", "listens on",
	                                      json_string_value(l) ? json_string_value(l) : "?");
	print_fabrics(json_object_get(o, "fabrics"));
	print_object("pool", json_object_get(o, "pool"));
	print_object("counters", json_object_get(o, "counters"));
	print_calls(json_object_get(o, "calls"));
}

json_t *server_ask(struct cmd *c, const char *line)
{
	char path[256], *text = NULL;
	json_error_t bad;
	json_t *o;
	int err;

	default_socket(path, sizeof(path));
	if (c->socket)
		snprintf(path, sizeof(path), "%s", c->socket);
	err = ask(path, line, &text);
	if (err) {
		complain("control socket %s: %s; is berthd running? (-s names another socket)",
		         path, strerror(-err));
		return NULL;
	}
	o = json_loads(text, 0, &bad);
	if (!o)
		complain("control socket %s: the answer is no JSON (%s)", path, bad.text);
	free(text);
	return o;
}

int server_stat(struct cmd *c, bool json)
{
	json_t *o = server_ask(c, "stat\n");

	if (!o)
		return EXIT_SOME;
	if (json)
		return json_print(o);
	print_readably(o);
	json_decref(o);
	return fflush(stdout) ? EXIT_SOME : EXIT_OK;
}
