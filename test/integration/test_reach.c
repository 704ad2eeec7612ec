/* SPDX-License-Identifier: BSD-3-Clause */
/* test_reach.c - a server that is not there, or is not what was asked for: the error names it, and what to look at */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/client.h"
#include "test/lib/daemon.h"

TestSuite(reach, .timeout = 60);

/* A socket that listens, or is only bound, on a port of 127.0.0.1. */
static int taken(bool listens, unsigned *port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	cr_assert(fd >= 0 && !bind(fd, (struct sockaddr *)&in, len) && !getsockname(fd, (struct sockaddr *)&in, &len));
	cr_assert(!listens || !listen(fd, 5));
	*port = ntohs(in.sin_port);
	return fd;
}

static void connecting(const char *url, int err, const char *what, const char *cure)
{
	struct berth_error why = { "" };
	struct berth *b = NULL;
	int got = berth_connect(url, NULL, &b, &why);

	cr_expect_eq(got, -err, "%s: %d (%s), not %d", url, got, why.text, -err);
	cr_expect(strstr(why.text, what) && strstr(why.text, cure), "%s: '%s' says not '%s', '%s'", url, why.text, what, cure);
	if (!got)
		berth_disconnect(b);
}

Test(reach, nobody_there)
{
	char url[100], where[100], cmd[700], path[512], text[1000] = "";
	unsigned port;
	int fd = taken(false, &port);
	FILE *p;

	snprintf(url, sizeof(url), "berth+tcp://127.0.0.1:%u/x", port);
	snprintf(where, sizeof(where), "nobody listens at 127.0.0.1 port %u: is berthd running there", port);
	for (int i = 0; i < 20; i++) /* whichever tells first, completions or the event */
		connecting(url, ECONNREFUSED, where, "provider = tcp and service = ");
	connecting("berth+shm://nobody-at-all/x", ECONNREFUSED, "nobody listens at the shm endpoint 'nobody-at-all'", "as user ");
	snprintf(cmd, sizeof(cmd), "%s ls %s 2>&1", built("berth", path), url);
	p = popen(cmd, "r");
	cr_assert(p && fread(text, 1, sizeof(text) - 1, p) > 0);
	cr_expect_eq(WEXITSTATUS(pclose(p)), 1);
	cr_expect(strstr(text, where), "%s", text);
	close(fd);
}

Test(reach, another_program_there)
{
	unsigned port;
	int fd = taken(true, &port);
	char url[100];
	pid_t pid;

	snprintf(url, sizeof(url), "berth+tcp://127.0.0.1:%u/x", port);
	pid = fork();
	while (!pid) /* it hangs up on everybody */
		close(accept(fd, NULL, NULL));
	connecting(url, EPROTO, "accepts connections, but does not speak", "20049");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
}

Test(reach, the_port_for_sockets)
{
	struct daemon d;
	char url[100];

	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&d, NULL);
	snprintf(url, sizeof(url), "berth+tcp://127.0.0.1:%u/", d.port);
	connecting(url, EPROTO, "accepts connections, but does not speak", "berthd's port for sockets");
	daemon_remove(&d);
}

Test(reach, no_such_name)
{
	connecting("berth+tcp://no..where/x", EHOSTUNREACH, "no..where port 20049: ", "Name or service not known");
}

/* What the network, or a provider that is not on every machine, would say. */
Test(reach, what_providers_say)
{
	static const struct {
		const char *provider;
		int err, becomes;
		bool listens;
		const char *says;
	} of[] = {
		{ "tcp", EHOSTUNREACH, EHOSTUNREACH, true, "127.0.0.1 cannot be reached: No route to host" },
		{ "tcp", ENETUNREACH, ENETUNREACH, false, "127.0.0.1 cannot be reached: Network is unreachable" },
		{ "tcp", ECONNRESET, ECONNREFUSED, false, "nobody listens at 127.0.0.1 port " },
		{ "tcp", ECONNREFUSED, ECONNREFUSED, true, "refuses the connection by provider tcp" },
		{ "tcp", ECONNRESET, EPROTO, true, "does not speak as libfabric's tcp provider" },
		{ "efa", ECONNRESET, EPROTO, true, "does not speak as libfabric's efa provider" },
		{ "verbs", EHOSTUNREACH, EHOSTUNREACH, false, "cannot be reached" },
		{ "verbs", ECONNREFUSED, ECONNREFUSED, true, "with provider = verbs" },
		{ "verbs", ENODEV, ENODEV, true, "as it was" },
		{ "tcp", ENODEV, ENODEV, true, "as it was" },
		{ "tcp", ENOMEM, ENOMEM, true, "as it was" },
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(*of); i++) {
		struct tp_error why = { "as it was" };
		struct berth_url u = { .host = (char *)(uintptr_t)"127.0.0.1" };
		char port[20];
		unsigned n;
		int fd = taken(of[i].listens, &n), err;

		snprintf(port, sizeof(port), "%u", n);
		snprintf(u.provider, sizeof(u.provider), "%s", of[i].provider);
		u.port = port;
		err = reach_why(&u, -of[i].err, &why);
		cr_expect_eq(err, -of[i].becomes, "%zu: %d", i, err);
		cr_expect(strstr(why.text, of[i].says), "%zu: '%s', not '%s'", i, why.text, of[i].says);
		close(fd);
	}
}
