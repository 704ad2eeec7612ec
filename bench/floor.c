/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/floor.h"
#include "bench/load.h"

enum { MEET = 3 }; /* descriptor of the socket in the new process */

/* HOST:PORT or [HOST]:PORT; -EINVAL. Free with freeaddrinfo(). */
static int resolve(const char *at, int flags, struct addrinfo **out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags };
	const char *colon = strrchr(at, ':');
	size_t len = colon ? (size_t)(colon - at) : 0;
	char host[256];

	if (!len || len >= sizeof(host))
		return -EINVAL;
	if (at[0] == '[' && at[len - 1] == ']')
		snprintf(host, sizeof(host), "%.*s", (int)len - 2, at + 1);
	else
		snprintf(host, sizeof(host), "%.*s", (int)len, at);
	return getaddrinfo(host, colon + 1, &hints, out) ? -EINVAL : 0;
}

static int text_of(const struct sockaddr_storage *ss, socklen_t len, char node[64])
{
	return getnameinfo((const struct sockaddr *)ss, len, node, 64, NULL, 0, NI_NUMERICHOST) ? -EAFNOSUPPORT : 0;
}

/* The address of this machine from which @host is reached. */
static int local_address(const char *host, char node[64])
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *a;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int fd, err;

	if (getaddrinfo(host ? host : "127.0.0.1", "9", &hints, &a))
		return -EHOSTUNREACH;
	fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	err = fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) || getsockname(fd, (struct sockaddr *)&ss, &len) ? -errno :
														  text_of(&ss, len, node);
	freeaddrinfo(a);
	if (fd >= 0)
		close(fd);
	return err;
}

/* --- the process -------------------------------------------------------------------------------------------- */

static int serve(int meet)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct bare_shape s;

	if (recv(meet, &s, sizeof(s), MSG_WAITALL) != sizeof(s) || getsockname(meet, (struct sockaddr *)&ss, &len))
		return -EPIPE;
	if (memchr(s.provider, 0, sizeof(s.provider)) == NULL || memchr(s.node, 0, sizeof(s.node)) == NULL || !s.conns ||
	    s.conns > LOAD_CONNS || !s.depth || s.depth > LOAD_DEPTH)
		return -EPROTO;
	if (ss.ss_family != AF_UNIX && text_of(&ss, len, s.node))
		return -EPROTO;
	return strcmp(s.provider, "sockets") ? load_exchange_serve(&s, meet) : load_echo_serve(s.node, meet);
}

static pid_t begin_process(int meet)
{
	static char name[] = "berth-bench", floor[] = "floor", how[] = "--meet";
	char *argv[] = { name, floor, how, NULL };
	posix_spawn_file_actions_t acts;
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid = -1;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&acts);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (posix_spawn_file_actions_adddup2(&acts, meet, MEET) || posix_spawn(&pid, "/proc/self/exe", &acts, &attr, argv, environ))
		pid = -1;
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&acts);
	return pid;
}

/* For ever: a process for each who comes. */
static int listen_at(const char *at)
{
	struct addrinfo *a;
	int fd, one = 1;

	if (resolve(at, AI_PASSIVE, &a)) {
		fprintf(stderr, "berth-bench: floor %s: want ADDRESS:PORT of this machine\n", at);
		return 2;
	}
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 64)) {
		fprintf(stderr, "berth-bench: floor %s: %s\n", at, strerror(errno));
		return 1;
	}
	freeaddrinfo(a);
	signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
	puts("ready");
	fflush(stdout);
	for (;;) {
		int meet = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

		if (meet >= 0)
			begin_process(meet);
		close(meet);
	}
}

int bench_floor(int argc, char **argv)
{
	int err;

	if (argc == 2 && !strcmp(argv[1], "--meet")) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_IGN); /* of a terminal: who asked for it ends it */
		err = serve(MEET);
		return err && err != -EPIPE; /* the end of the socket is the end */
	}
	if (argc == 2 && argv[1][0] != '-')
		return listen_at(argv[1]);
	err = bench_wants_help(argc, argv);
	fprintf(err ? stdout : stderr, "usage: berth-bench floor ADDRESS:PORT   on the server's machine, for load --floor\n");
	return err ? 0 : 2;
}

/* --- who asks for it ---------------------------------------------------------------------------------------- */

static int begin_here(struct floor_process *f, const char *server, struct bare_shape *s)
{
	int sv[2], err = local_address(server, s->node);

	if (err || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return err ? err : -errno;
	f->meet = sv[0];
	f->pid = begin_process(sv[1]);
	close(sv[1]);
	if (f->pid > 0)
		return 0;
	f->pid = 0;
	return -EAGAIN;
}

static int begin_there(struct floor_process *f, const char *at, struct bare_shape *s)
{
	struct addrinfo *a;
	int err = resolve(at, 0, &a);

	if (err)
		return err;
	f->meet = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	err = f->meet < 0 || connect(f->meet, a->ai_addr, a->ai_addrlen) ? -errno :
									   text_of((struct sockaddr_storage *)a->ai_addr,
										   a->ai_addrlen, s->node);
	freeaddrinfo(a);
	return err;
}

int floor_begin(struct floor_process *f, const char *at, const char *server, struct bare_shape *s)
{
	int err;

	*f = (struct floor_process){ .meet = -1 };
	err = at ? begin_there(f, at, s) : begin_here(f, server, s);
	if (!err && send(f->meet, s, sizeof(*s), MSG_NOSIGNAL) != sizeof(*s))
		err = -EPIPE;
	return err;
}

void floor_end(struct floor_process *f, const char *left)
{
	if (f->pid > 0)
		bench_end(f->pid, left);
	if (f->meet >= 0)
		close(f->meet);
	*f = (struct floor_process){ .meet = -1 };
}
