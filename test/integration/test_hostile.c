/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What no honest client sends, to a real server, on every transport: each call gets the error that the RFCs name;
 * a well-behaved client beside notices nothing. (Broken records and RPC-over-RDMA headers: test/transport.)
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <rpc/rpc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/mount3.h"
#include "proto/nfs3.h"
#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"
#include "transport/transport.h"

static struct daemon d;

TestSuite(hostile, .timeout = 200);

/* --- one call, whatever the transport ------------------------------------------------------------------ */

struct wire {
	int fd;              /* a socket, or */
	struct tp_client *c; /* a fabric */
	char fh[NFS3_FHSIZE];
	unsigned fh_len;
};
struct answer {
	bool done;
	int err; /* 0, or the connection's end */
	unsigned accept;
	unsigned len;
	char bytes[600]; /* results */
};

static void send_all(int fd, const void *buf, size_t len)
{
	cr_assert_eq(send(fd, buf, len, MSG_NOSIGNAL), (ssize_t)len);
}

static struct answer call_socket(struct wire *w, const uint32_t rpc[3], const void *args, size_t len)
{
	static const uint32_t cred[] = { AUTH_SYS, 20, 0, 0, 0, 0, 0, AUTH_NONE, 0 };
	uint32_t head[1 + 6 + 9] = { 0, 7, CALL, 2, rpc[0], rpc[1], rpc[2] }, mark;
	struct answer a = { .done = true };
	char reply[8192], whole[sizeof(head) + 1024];
	size_t n;

	memcpy(head + 7, cred, sizeof(cred));
	for (int i = 1; i < 16; i++)
		head[i] = htonl(head[i]);
	head[0] = htonl(0x80000000u | (uint32_t)(sizeof(head) - 4 + len));
	memcpy(whole, head, sizeof(head));
	if (len)
		memcpy(whole + sizeof(head), args, len);
	send_all(w->fd, whole, sizeof(head) + len); /* in one: Nagle would wait for each half */
	if (recv(w->fd, &mark, 4, MSG_WAITALL) != 4) {
		a.err = -ECONNRESET;
		return a;
	}
	n = ntohl(mark) & 0x7fffffff;
	cr_assert(n >= 24 && n <= sizeof(reply), "a reply of %zu bytes", n);
	cr_assert_eq(recv(w->fd, reply, n, MSG_WAITALL), (ssize_t)n);
	memcpy(&mark, reply + 20, 4);
	a.accept = ntohl(mark);
	a.len = (unsigned)(n - 24 < sizeof(a.bytes) ? n - 24 : sizeof(a.bytes));
	memcpy(a.bytes, reply + 24, a.len);
	return a;
}

struct fabric_call {
	struct tp_req rq;
	struct answer a;
};

static void called_back(struct tp_req *rq, int err)
{
	struct fabric_call *fc = (struct fabric_call *)rq;
	char *p = fc->a.bytes;

	fc->a.done = true;
	fc->a.err = err;
	fc->a.accept = rq->reply.ar_stat;
	while (!err && fc->a.len < sizeof(fc->a.bytes) && XDR_GETBYTES(&rq->results, p + fc->a.len, 4))
		fc->a.len += 4;
}

static struct answer call_fabric(struct wire *w, const uint32_t rpc[3], const void *args, size_t len)
{
	struct tp_cred root = { .flavor = AUTH_SYS };
	struct fabric_call fc = { .rq = { .done = called_back, .max_results = 4096 } };
	XDR *x = tp_req_begin(w->c, &fc.rq, rpc[0], rpc[1], rpc[2], &root, len + 16);
	int err;

	cr_assert(x && XDR_PUTBYTES(x, args, (u_int)len));
	err = tp_req_send(w->c, &fc.rq);
	cr_assert_eq(err, 0, "%s", strerror(-err));
	for (int i = 0; i < 1000 && !fc.a.done; i++)
		tp_client_wait(w->c, 10);
	cr_assert(fc.a.done, "no answer in ten seconds");
	return fc.a;
}

static struct answer call(struct wire *w, uint32_t prog, uint32_t vers, uint32_t proc, const void *args, size_t len)
{
	const uint32_t rpc[3] = { prog, vers, proc };

	return w->c ? call_fabric(w, rpc, args, len) : call_socket(w, rpc, args, len);
}

static uint32_t status(const struct answer *a)
{
	uint32_t st;

	cr_assert_eq(a->err, 0, "%s", strerror(-a->err));
	cr_assert_eq(a->accept, SUCCESS, "accept_stat %u", a->accept);
	cr_assert_geq(a->len, 4);
	memcpy(&st, a->bytes, 4);
	return ntohl(st);
}

static void mount_root(struct wire *w)
{
	static const char args[] = "\0\0\0\1/\0\0";
	struct answer a = call(w, MOUNT3_PROGRAM, 3, MOUNTPROC3_MNT, args, 8);

	cr_assert_eq(status(&a), 0);
	w->fh_len = (unsigned char)a.bytes[7];
	memcpy(w->fh, a.bytes + 8, w->fh_len);
}

static void connect_fabric(struct wire *w, const char *provider, const char *service)
{
	struct tp_fabric_opts o = { .name = "test", .provider = provider, .service = service,
				    .node = strcmp(provider, "shm") ? "127.0.0.1" : NULL };
	struct tp_error why = { "" };

	cr_assert_eq(tp_client_open(&o, &w->c, &why), 0, "%s", why.text);
	for (int i = 0; i < 1000 && tp_client_state(w->c, &why) == TP_CLIENT_CONNECTING; i++)
		tp_client_wait(w->c, 10);
	cr_assert_eq(tp_client_state(w->c, &why), TP_CLIENT_UP, "%s", why.text);
}

static void connect_wire(struct wire *w, int kind)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d.port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char port[12];

	memset(w, 0, sizeof(*w));
	snprintf(port, sizeof(port), "%u", d.fabric_port);
	if (kind == 0) {
		w->fd = socket(AF_INET, SOCK_STREAM, 0);
		cr_assert_eq(connect(w->fd, (struct sockaddr *)&in, sizeof(in)), 0);
	} else {
		connect_fabric(w, kind == 1 ? "tcp" : "shm", kind == 1 ? port : d.shm);
	}
	mount_root(w);
}

static void disconnect(struct wire *w)
{
	if (w->c)
		tp_client_close(w->c);
	else
		close(w->fd);
}

/* --- arguments ----------------------------------------------------------------------------------------------- */

static nfs_fh3 root_of(struct wire *w)
{
	return (nfs_fh3){ { w->fh_len, w->fh } };
}

/* Honest arguments of each procedure, cut and bent by the tests. Returns their length. */
static size_t honest(struct wire *w, uint32_t proc, char *buf, size_t size)
{
	char name[] = "some-name", path[] = "/some/where";
	diropargs3 where = { root_of(w), { 9, name } };
	union {
		SETATTR3args setattr;
		ACCESS3args access;
		READ3args read;
		CREATE3args create;
		MKDIR3args mkdir;
		SYMLINK3args symlink;
		MKNOD3args mknod;
		RENAME3args rename;
		LINK3args link;
		READDIR3args readdir;
		READDIRPLUS3args readdirplus;
		COMMIT3args commit;
	} u;
	nfs_fh3 fh = root_of(w);
	XDR x;
	bool_t ok;

	memset(&u, 0, sizeof(u));
	u.setattr.object = fh; /* every structure but where's begins with a handle */
	xdrmem_create(&x, buf, (u_int)size, XDR_ENCODE);
	switch (proc) {
	case NFSPROC3_SETATTR:
		u.setattr.new_attributes.mode.set_it = TRUE;
		u.setattr.new_attributes.mode.set_mode3_u.mode = 0755;
		ok = xdr_SETATTR3args(&x, &u.setattr);
		break;
	case NFSPROC3_LOOKUP:
	case NFSPROC3_REMOVE:
	case NFSPROC3_RMDIR:
		ok = xdr_diropargs3(&x, &where);
		break;
	case NFSPROC3_ACCESS:
		u.access.access = 0x3f;
		ok = xdr_ACCESS3args(&x, &u.access);
		break;
	case NFSPROC3_READ:
		u.read.count = 10;
		ok = xdr_READ3args(&x, &u.read);
		break;
	case NFSPROC3_CREATE:
		u.create.where = where;
		ok = xdr_CREATE3args(&x, &u.create);
		break;
	case NFSPROC3_MKDIR:
		u.mkdir.where = where;
		ok = xdr_MKDIR3args(&x, &u.mkdir);
		break;
	case NFSPROC3_SYMLINK:
		u.symlink.where = where;
		u.symlink.symlink.symlink_data = (nfspath3){ 11, path };
		ok = xdr_SYMLINK3args(&x, &u.symlink);
		break;
	case NFSPROC3_MKNOD:
		u.mknod.where = where;
		u.mknod.what.type = NF3CHR;
		ok = xdr_MKNOD3args(&x, &u.mknod);
		break;
	case NFSPROC3_RENAME:
		u.rename.from = u.rename.to = where;
		ok = xdr_RENAME3args(&x, &u.rename);
		break;
	case NFSPROC3_LINK:
		u.link.file = fh;
		u.link.link = where;
		ok = xdr_LINK3args(&x, &u.link);
		break;
	case NFSPROC3_READDIR:
		u.readdir.count = 4096;
		ok = xdr_READDIR3args(&x, &u.readdir);
		break;
	case NFSPROC3_READDIRPLUS:
		u.readdirplus.dircount = u.readdirplus.maxcount = 4096;
		ok = xdr_READDIRPLUS3args(&x, &u.readdirplus);
		break;
	case NFSPROC3_COMMIT:
		ok = xdr_COMMIT3args(&x, &u.commit);
		break;
	default: /* GETATTR, READLINK, FSSTAT, FSINFO, PATHCONF */
		ok = xdr_nfs_fh3(&x, &fh);
	}
	cr_assert(ok);
	return xdr_getpos(&x);
}

static void cut_at_every_byte(struct wire *w)
{
	char args[1024];

	for (uint32_t proc = NFSPROC3_GETATTR; proc < NFSPROC3_COUNT; proc++) {
		size_t len;

		if (proc == NFSPROC3_WRITE) /* its payload is the transport's matter, tested there */
			continue;
		len = honest(w, proc, args, sizeof(args));
		for (size_t n = 0; n < len; n++) {
			struct answer a = call(w, NFS3_PROGRAM, 3, proc, args, n);

			if (n > len - 4 && !a.err && a.accept == SUCCESS)
				continue; /* only padding was missing */
			cr_assert(!a.err && a.accept == GARBAGE_ARGS,
				  "procedure %u cut at %zu of %zu: error %d, accept_stat %u", proc, n, len,
				  a.err, a.accept);
		}
	}
}

static void lengths_without_end(struct wire *w)
{
	for (uint32_t proc = NFSPROC3_GETATTR; proc < NFSPROC3_COUNT; proc++) {
		char args[1024];
		struct answer a;
		size_t len;

		if (proc == NFSPROC3_WRITE)
			continue;
		len = honest(w, proc, args, sizeof(args));
		memset(args, 0xff, 4); /* of the handle */
		a = call(w, NFS3_PROGRAM, 3, proc, args, len);
		cr_assert(!a.err && a.accept == GARBAGE_ARGS, "procedure %u", proc);
	}
}

static void unknown_things(struct wire *w)
{
	struct answer a = call(w, 99999, 3, 0, NULL, 0);

	cr_assert_eq(a.accept, PROG_UNAVAIL);
	a = call(w, NFS3_PROGRAM, 2, 0, NULL, 0);
	cr_assert_eq(a.accept, PROG_MISMATCH);
	a = call(w, NFS3_PROGRAM, 3, 22, NULL, 0);
	cr_assert_eq(a.accept, PROC_UNAVAIL);
	a = call(w, MOUNT3_PROGRAM, 3, 6, NULL, 0);
	cr_assert_eq(a.accept, PROC_UNAVAIL);
}

static void forged_handles(struct wire *w)
{
	char args[128];
	size_t len = honest(w, NFSPROC3_GETATTR, args, sizeof(args));
	struct answer a;

	for (size_t bit = 0; bit < (size_t)w->fh_len * 8; bit++) {
		args[4 + bit / 8] = (char)(args[4 + bit / 8] ^ (1 << bit % 8));
		a = call(w, NFS3_PROGRAM, 3, NFSPROC3_GETATTR, args, len);
		cr_assert_eq(status(&a), NFS3ERR_BADHANDLE, "bit %zu: status %u", bit, status(&a));
		args[4 + bit / 8] = (char)(args[4 + bit / 8] ^ (1 << bit % 8));
	}
	for (unsigned n = 0; n <= NFS3_FHSIZE; n += 4) { /* other lengths */
		char other[4 + NFS3_FHSIZE] = { 0, 0, 0, (char)n };

		if (n == w->fh_len)
			continue;
		a = call(w, NFS3_PROGRAM, 3, NFSPROC3_GETATTR, other, 4 + n);
		cr_assert_eq(status(&a), NFS3ERR_BADHANDLE);
	}
}

static void odd_names(struct wire *w)
{
	static char long_name[256];
	static const struct {
		uint32_t len;
		const char *name;
	} names[] = { { 0, "" }, { 1, "." }, { 2, ".." }, { 3, "a/b" }, { 1, "/" }, { 3, "a\0b" }, { 256, long_name } };
	static const uint32_t procs[] = { NFSPROC3_CREATE, NFSPROC3_MKDIR, NFSPROC3_REMOVE, NFSPROC3_RMDIR };

	memset(long_name, 'n', sizeof(long_name));
	for (size_t p = 0; p < 4; p++) {
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
			char args[1024], name[256];
			CREATE3args cr = { .where = { root_of(w), { names[i].len, name } } };
			MKDIR3args mk = { .where = cr.where };
			struct answer a;
			uint32_t st;
			XDR x;

			memcpy(name, names[i].name, names[i].len);
			xdrmem_create(&x, args, sizeof(args), XDR_ENCODE);
			if (procs[p] == NFSPROC3_CREATE)
				xdr_CREATE3args(&x, &cr);
			else if (procs[p] == NFSPROC3_MKDIR)
				xdr_MKDIR3args(&x, &mk);
			else
				xdr_diropargs3(&x, &cr.where);
			a = call(w, NFS3_PROGRAM, 3, procs[p], args, xdr_getpos(&x));
			st = status(&a);
			cr_assert(st == NFS3ERR_INVAL || st == NFS3ERR_ACCES || st == NFS3ERR_EXIST ||
					  st == NFS3ERR_NAMETOOLONG || st == NFS3ERR_NOTEMPTY ||
					  st == NFS3ERR_ISDIR || st == NFS3ERR_NOENT,
				  "procedure %u, name %zu: status %u", procs[p], i, st);
			if (names[i].len == 256)
				cr_assert_eq(st, NFS3ERR_NAMETOOLONG);
		}
	}
}

static void far_offsets(struct wire *w)
{
	CREATE3args cr = { .where = { root_of(w), { 3, (char *)(uintptr_t)"far" } } };
	char args[1024], fh[NFS3_FHSIZE];
	SETATTR3args sa = { .new_attributes.size = { TRUE, { UINT64_MAX } } };
	READ3args rd = { .offset = UINT64_MAX - 5, .count = 100 };
	COMMIT3args cm = { .offset = UINT64_MAX, .count = UINT32_MAX };
	struct answer a;
	uint32_t st;
	XDR x;

	xdrmem_create(&x, args, sizeof(args), XDR_ENCODE);
	xdr_CREATE3args(&x, &cr);
	a = call(w, NFS3_PROGRAM, 3, NFSPROC3_CREATE, args, xdr_getpos(&x));
	cr_assert_eq(status(&a), 0);
	memcpy(fh, a.bytes + 12, w->fh_len);
	sa.object = rd.file = cm.file = (nfs_fh3){ { w->fh_len, fh } };

	xdrmem_create(&x, args, sizeof(args), XDR_ENCODE);
	xdr_SETATTR3args(&x, &sa);
	a = call(w, NFS3_PROGRAM, 3, NFSPROC3_SETATTR, args, xdr_getpos(&x));
	st = status(&a);
	cr_assert(st == NFS3ERR_FBIG || st == NFS3ERR_INVAL, "SETATTR: %u", st);

	xdrmem_create(&x, args, sizeof(args), XDR_ENCODE);
	xdr_READ3args(&x, &rd);
	a = call(w, NFS3_PROGRAM, 3, NFSPROC3_READ, args, xdr_getpos(&x));
	st = status(&a);
	cr_assert(st == NFS3_OK || st == NFS3ERR_INVAL, "READ: %u", st);

	xdrmem_create(&x, args, sizeof(args), XDR_ENCODE);
	xdr_COMMIT3args(&x, &cm);
	a = call(w, NFS3_PROGRAM, 3, NFSPROC3_COMMIT, args, xdr_getpos(&x));
	st = status(&a);
	cr_assert(st == NFS3_OK || st == NFS3ERR_INVAL, "COMMIT: %u", st);
}

/* --- the tests -------------------------------------------------------------------------------------------------- */

static void witness(_Atomic uint64_t *calls)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	struct nfs_stat_64 st;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (nfs_stat64(nfs, "/", &st))
			_exit(1);
		++*calls;
		usleep(500);
	}
}

static void everything(int kind)
{
	_Atomic uint64_t *calls = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t server, beside;
	struct wire w;
	int st;

	daemon_start(&d, &(struct daemon_opts){ .no_fabric = kind == 0 });
	server = daemon_server_pid(&d);
	beside = fork();
	if (beside == 0)
		witness(calls);
	connect_wire(&w, kind);
	cut_at_every_byte(&w);
	lengths_without_end(&w);
	unknown_things(&w);
	forged_handles(&w);
	odd_names(&w);
	far_offsets(&w);
	disconnect(&w);
	cr_assert_eq(waitpid(beside, &st, WNOHANG), 0, "the client beside failed");
	kill(beside, SIGKILL);
	waitpid(beside, NULL, 0);
	cr_assert_gt(*calls, 0);
	cr_assert_eq(daemon_server_pid(&d), server, "the server was restarted");
	daemon_remove(&d);
}

Test(hostile, bad_input_over_a_socket)
{
	everything(0);
}

Test(hostile, bad_input_over_fabric_tcp)
{
	everything(1);
}

Test(hostile, bad_input_over_shm)
{
	everything(2);
}
