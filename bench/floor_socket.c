/* SPDX-License-Identifier: BSD-3-Clause */
/* floor_socket.c - the same bytes over a bare TCP connection to a process that does nothing else */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/media.h"

struct floor_socket {
	struct bench_target t;
	int fd;
	pid_t pid;
	char *buf;
};
struct request { /* the first words of BENCH_REQUEST bytes */
	uint32_t op;
	uint32_t len;
	uint64_t at;
};

static int read_all(int fd, void *buf, size_t len)
{
	for (size_t n = 0; n < len;) {
		ssize_t got = recv(fd, (char *)buf + n, len - n, 0);

		if (got <= 0)
			return got ? -errno : -ECONNRESET;
		n += (size_t)got;
	}
	return 0;
}

static int write_two(int fd, void *a, size_t alen, void *b, size_t blen)
{
	struct iovec iov[2] = { { a, alen }, { b, blen } };

	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = writev(fd, iov, 2);

		if (n < 0)
			return -errno;
		for (int i = 0; i < 2; i++) {
			size_t k = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			iov[i].iov_base = (char *)iov[i].iov_base + k;
			iov[i].iov_len -= k;
			n -= (ssize_t)k;
		}
	}
	return 0;
}

static void serve(int fd, char *media)
{
	char head[BENCH_REQUEST], reply[BENCH_REPLY] = "";
	struct request rq;

	while (!read_all(fd, head, sizeof(head))) {
		memcpy(&rq, head, sizeof(rq));
		if (rq.op == BENCH_WRITE && read_all(fd, media + rq.at, rq.len))
			break;
		if (write_two(fd, reply, sizeof(reply), media + rq.at, rq.op == BENCH_READ ? rq.len : 0))
			break;
	}
	_exit(0);
}

static int once(struct bench_target *t, enum bench_op op, uint64_t at, size_t len)
{
	struct floor_socket *f = (struct floor_socket *)t;
	struct request rq = { op, (uint32_t)len, at };
	char head[BENCH_REQUEST] = "", reply[BENCH_REPLY];
	int err;

	memcpy(head, &rq, sizeof(rq));
	err = write_two(f->fd, head, sizeof(head), f->buf, op == BENCH_WRITE ? len : 0);
	if (!err)
		err = read_all(f->fd, reply, sizeof(reply));
	if (!err && op == BENCH_READ)
		err = read_all(f->fd, f->buf, len);
	return err;
}

static void close_it(struct bench_target *t)
{
	struct floor_socket *f = (struct floor_socket *)t;

	close(f->fd);
	waitpid(f->pid, NULL, 0);
	free(f->buf);
	free(f);
}

int floor_socket_open(const char *dir, struct bench_target **out)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct floor_socket *f = calloc(1, sizeof(*f));
	char *media = bench_media(dir);
	socklen_t len = sizeof(in);
	int lfd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (!f || !media || !(f->buf = aligned_alloc(4096, BENCH_MAX)))
		return -ENOMEM;
	memset(f->buf, 'b', BENCH_MAX);
	f->t = (struct bench_target){ "sockets", once, close_it };
	if (bind(lfd, (struct sockaddr *)&in, sizeof(in)) || listen(lfd, 1) ||
	    getsockname(lfd, (struct sockaddr *)&in, &len))
		return -errno;
	f->pid = fork();
	if (f->pid == 0) {
		int fd = accept(lfd, NULL, NULL);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		serve(fd, media);
	}
	f->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(f->fd, (struct sockaddr *)&in, sizeof(in)))
		return -errno;
	setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	close(lfd);
	*out = &f->t;
	return 0;
}
