/* SPDX-License-Identifier: BSD-3-Clause */
/* nfs_socket.c - READ and WRITE of NFS version 3 over a plain TCP socket, as small as a client can be */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <rpc/rpc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/bench.h"
#include "proto/mount3.h"
#include "proto/nfs3.h"

struct nfs_socket {
	struct bench_target t;
	int fd;
	uint32_t xid;
	char fh[NFS3_FHSIZE];
	unsigned fh_len;
	char *buf;
	char head[1024], back[4096];
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

/* Header of a call with AUTH_SYS root; arguments follow in @x. */
static void begin(struct nfs_socket *s, XDR *x, uint32_t prog, uint32_t proc)
{
	const uint32_t words[] = { ++s->xid, CALL, 2, prog, 3, proc, AUTH_SYS, 20, 0, 0, 0, 0, 0, AUTH_NONE, 0 };

	xdrmem_create(x, s->head + 4, sizeof(s->head) - 4, XDR_ENCODE);
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		u_int w = words[i];

		xdr_u_int(x, &w);
	}
}

/* Send with @len bytes of data behind; get the reply of which @into takes the last @want bytes. @x decodes the results. */
static int finish(struct nfs_socket *s, XDR *x, size_t len, size_t want)
{
	size_t head = xdr_getpos(x), got;
	uint32_t mark = htonl(0x80000000u | (uint32_t)(head + len));
	struct iovec iov[2] = { { s->head, head + 4 }, { s->buf, len } };
	int err;

	memcpy(s->head, &mark, 4);
	err = send_all(s->fd, iov, 2);
	if (!err)
		err = read_all(s->fd, &mark, 4);
	if (err)
		return err;
	got = ntohl(mark) & 0x7fffffff;
	if (got < want || got - want > sizeof(s->back))
		want = 0; /* an error is shorter */
	if (got - want > sizeof(s->back) || got - want < 24)
		return -EPROTO;
	err = read_all(s->fd, s->back, got - want);
	if (!err && want)
		err = read_all(s->fd, s->buf, want);
	xdrmem_create(x, s->back + 24, (u_int)(got - want - 24), XDR_DECODE);
	return err ? err : memcmp(s->back + 20, "\0\0\0", 4) ? -EPROTO : 0;
}

static int get_fh(struct nfs_socket *s, XDR *x)
{
	char *p = s->fh;

	return xdr_bytes(x, &p, &s->fh_len, NFS3_FHSIZE) ? 0 : -EPROTO;
}

static nfs_fh3 fh_of(struct nfs_socket *s)
{
	return (nfs_fh3){ { s->fh_len, s->fh } };
}

static int status_of(XDR *x)
{
	u_int st;

	return xdr_u_int(x, &st) ? -(int)st : -EPROTO;
}

static int mount_root(struct nfs_socket *s)
{
	mntpath3 path = { 1, (char *)"/" };
	XDR x;
	int err;

	begin(s, &x, MOUNT3_PROGRAM, MOUNTPROC3_MNT);
	xdr_mntpath3(&x, &path);
	err = finish(s, &x, 0, 0);
	if (!err)
		err = status_of(&x);
	return err ? err : get_fh(s, &x);
}

static int open_file(struct nfs_socket *s)
{
	CREATE3args a = { .where = { fh_of(s), { 5, (char *)"bench" } }, .how.mode = UNCHECKED };
	bool_t follows = 0;
	XDR x;
	int err;

	begin(s, &x, NFS3_PROGRAM, NFSPROC3_CREATE);
	xdr_CREATE3args(&x, &a);
	err = finish(s, &x, 0, 0);
	if (!err)
		err = status_of(&x);
	if (!err && (!xdr_bool(&x, &follows) || !follows))
		err = -EPROTO;
	return err ? err : get_fh(s, &x);
}

static int once(struct bench_target *t, enum bench_op op, uint64_t at, size_t len)
{
	struct nfs_socket *s = (struct nfs_socket *)t;
	WRITE3head w = { fh_of(s), at, (u_int)len, FILE_SYNC };
	READ3args r = { fh_of(s), at, (u_int)len };
	u_int n = (u_int)len;
	XDR x;
	int err;

	begin(s, &x, NFS3_PROGRAM, op == BENCH_WRITE ? NFSPROC3_WRITE : NFSPROC3_READ);
	if (op == BENCH_WRITE) {
		xdr_WRITE3head(&x, &w);
		xdr_u_int(&x, &n);
		err = finish(s, &x, len, 0);
	} else {
		xdr_READ3args(&x, &r);
		err = finish(s, &x, 0, len);
	}
	return err ? err : status_of(&x);
}

static void close_it(struct bench_target *t)
{
	struct nfs_socket *s = (struct nfs_socket *)t;

	close(s->fd);
	free(s->buf);
	free(s);
}

int nfs_socket_open(const char *host, unsigned port, struct bench_target **out)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct nfs_socket *s = calloc(1, sizeof(*s));
	int one = 1, err;

	if (!s || !(s->buf = aligned_alloc(4096, BENCH_MAX)))
		return -ENOMEM;
	s->t = (struct bench_target){ "sockets", once, close_it };
	memset(s->buf, 'b', BENCH_MAX);
	inet_pton(AF_INET, host, &in.sin_addr);
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s->fd, (struct sockaddr *)&in, sizeof(in)))
		return -errno;
	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	err = mount_root(s);
	if (!err)
		err = open_file(s);
	for (uint64_t at = 0; !err && at < BENCH_SPAN; at += BENCH_MAX)
		err = once(&s->t, BENCH_WRITE, at, BENCH_MAX);
	*out = &s->t;
	return err;
}
