/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * WRITEs that are ready together become durable together, over sockets and fabrics; whatever happens to their client or to the
 * server meanwhile, what was answered is there.
 *
 * Ready together: over a socket in one send, and where more than one connection or a fabric is concerned, sent while the server
 * is stopped (SIGSTOP).
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/mount3.h"
#include "proto/nfs3.h"
#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"
#include "transport/transport.h"

enum way { SOCKET, TCP_FABRIC, SHM };
static enum way ways[] = { SOCKET, TCP_FABRIC, SHM };
static const char *const way_name[] = { "sockets", "fabric tcp", "shm" };

enum { MANY = 16, BLOCK = 4096, SMALL = 512 };

struct peer {
	enum way way;
	int fd;
	struct tp_client *c;
};
struct put { /* a WRITE: what goes out, what came back */
	struct tp_req req; /* first */
	uint64_t off;
	uint32_t len, xid;
	char *data;
	struct iovec iov;
	bool done;
	int err;
	WRITE3resok ok;
};

static struct daemon d;
static char handle[NFS3_FHSIZE];
static unsigned handle_len;
static uint32_t next_xid = 0xba7c0000;

TestSuite(batch, .timeout = 200);

/* --- a client ----------------------------------------------------------------------------------------- */

static struct peer dial(enum way way)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		                  .sin_port = htons((uint16_t)d.port),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct peer p = { .way = way, .fd = -1 };
	struct tp_fabric_opts o = { .name = "test" };
	struct tp_error why = { "" };
	char port[16];

	if (way == SOCKET) {
		struct timeval limit = { .tv_sec = 20 };

		p.fd = socket(AF_INET, SOCK_STREAM, 0);
		cr_assert_eq(connect(p.fd, (struct sockaddr *)&to, sizeof(to)), 0);
		setsockopt(p.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		return p;
	}
	snprintf(port, sizeof(port), "%u", d.fabric_port);
	o.provider = way == SHM ? "shm" : "tcp";
	o.node = way == SHM ? NULL : "127.0.0.1";
	o.service = way == SHM ? d.shm : port;
	cr_assert_eq(tp_client_open(&o, &p.c, &why), 0, "%s", why.text);
	for (int i = 0; i < 200 && tp_client_state(p.c, &why) == TP_CLIENT_CONNECTING; i++)
		tp_client_wait(p.c, 50);
	cr_assert_eq(tp_client_state(p.c, &why), TP_CLIENT_UP, "%s", why.text);
	return p;
}

static void hang_up(struct peer *p)
{
	if (p->c)
		tp_client_close(p->c);
	else
		close(p->fd);
}

static bool encode(XDR *x, struct put *q)
{
	WRITE3head h = { .file = { { handle_len, handle } },
		         .offset = q->off,
		         .count = q->len,
		         .stable = FILE_SYNC };

	return xdr_WRITE3head(x, &h);
}

static void decode(XDR *x, struct put *q)
{
	WRITE3res res = { 0 };

	cr_assert(xdr_WRITE3res(x, &res), "results do not decode");
	cr_assert_eq(res.status, NFS3_OK, "status %d", res.status);
	q->ok = res.WRITE3res_u.resok;
	cr_assert_eq(q->ok.count, q->len);
	cr_assert_eq(q->ok.committed, FILE_SYNC);
}

static size_t record(char *buf, size_t room, struct put *q)
{
	uint32_t h[] = { q->xid, CALL, 2, NFS3_PROGRAM, 3, NFSPROC3_WRITE, AUTH_SYS, 20, 0, 0, 0, 0, 0, 0, 0 }, mark;
	u_int len = q->len;
	char *data = q->data;
	XDR x;

	xdrmem_create(&x, buf + 4, (u_int)(room - 4), XDR_ENCODE);
	for (unsigned i = 0; i < sizeof(h) / sizeof(*h); i++)
		cr_assert(xdr_uint32_t(&x, &h[i]));
	cr_assert(encode(&x, q) && xdr_bytes(&x, &data, &len, len));
	mark = htonl(0x80000000u | xdr_getpos(&x));
	memcpy(buf, &mark, 4);
	return 4 + xdr_getpos(&x);
}

static void post_socket(struct peer *p, struct put *q, unsigned n, const void *behind, size_t behind_len)
{
	size_t room = n * (2 * BLOCK) + behind_len, len = 0;
	char *buf = malloc(room);

	for (unsigned i = 0; i < n; i++)
		len += record(buf + len, room - len, &q[i]);
	if (behind_len)
		memcpy(buf + len, behind, behind_len);
	len += behind_len;
	cr_assert_eq(send(p->fd, buf, len, MSG_NOSIGNAL), (ssize_t)len);
	free(buf);
}

static void answered(struct tp_req *req, int err)
{
	struct put *q = (struct put *)req;

	q->done = true;
	q->err = err;
	if (!err)
		decode(&req->results, q);
}

static void post_fabric(struct peer *p, struct put *q)
{
	struct tp_cred root = { .flavor = AUTH_SYS };
	XDR *x;

	q->iov = (struct iovec){ q->data, q->len };
	q->req = (struct tp_req){ .out = &q->iov, .nout = 1, .max_results = 512, .done = answered };
	x = tp_req_begin(p->c, &q->req, NFS3_PROGRAM, 3, NFSPROC3_WRITE, &root, 256);
	cr_assert(x && encode(x, q));
	cr_assert_eq(tp_req_send(p->c, &q->req), 0);
	tp_client_progress(p->c);
}

static void post(struct peer *p, struct put *q, unsigned n)
{
	if (p->way == SOCKET)
		post_socket(p, q, n, NULL, 0);
	for (unsigned i = 0; p->c && i < n; i++)
		post_fabric(p, &q[i]);
}

/* One reply; false: the connection is over. */
static bool receive(struct peer *p, struct put *q, unsigned n)
{
	uint32_t mark, len;
	char buf[512];
	unsigned i = 0;
	ssize_t got;
	XDR x;

	got = recv(p->fd, &mark, 4, MSG_WAITALL);
	cr_assert(got >= 0 || errno == ECONNRESET, "no reply, and nothing else happens");
	if (got != 4)
		return false;
	len = ntohl(mark) & 0x7fffffff;
	cr_assert(len >= 24 && len <= sizeof(buf));
	if (recv(p->fd, buf, len, MSG_WAITALL) != (ssize_t)len)
		return false;
	memcpy(&mark, buf, 4);
	while (i < n && (q[i].done || q[i].xid != ntohl(mark)))
		i++;
	cr_assert_lt(i, n, "a reply to xid %x", ntohl(mark));
	memcpy(&mark, buf + 20, 4);
	cr_assert_eq(ntohl(mark), SUCCESS);
	xdrmem_create(&x, buf + 24, len - 24, XDR_DECODE);
	decode(&x, &q[i]);
	q[i].done = true;
	return true;
}

static unsigned left_of(const struct put *q, unsigned n)
{
	unsigned left = 0;

	while (n--)
		left += !q[n].done;
	return left;
}

/* Until all are answered, or the connections are over. A fabric's server fetches payload from all clients at once. */
static void collect_all(struct peer *p, struct put *const *q, unsigned npeers, unsigned n)
{
	bool more = true;

	for (int i = 0; more && i < 20000; i++) {
		more = false;
		for (unsigned k = 0; k < npeers; k++) {
			if (!left_of(q[k], n) || (p[k].way == SOCKET && !receive(&p[k], q[k], n)))
				continue;
			if (p[k].c)
				tp_client_wait(p[k].c, 1);
			more = true;
		}
	}
}

static void collect(struct peer *p, struct put *q, unsigned n)
{
	collect_all(p, &q, 1, n);
}

static void must_have(const struct put *q, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		cr_assert(q[i].done && !q[i].err, "WRITE %u is not answered", i);
}

/* --- what is written ----------------------------------------------------------------------------------- */

/* @n WRITEs of @len bytes each, one per block from @at on. */
static struct put *puts_of(unsigned n, uint64_t at, uint32_t len, unsigned seed)
{
	struct put *q = calloc(n, sizeof(*q));

	for (unsigned i = 0; i < n; i++) {
		q[i] = (struct put){ .off = at + (uint64_t)i * BLOCK, .len = len, .xid = next_xid++, .data = malloc(len) };
		memset(q[i].data, (int)(seed * 31 + i * 7 + 1), len);
	}
	return q;
}

static void puts_free(struct put *q, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(q[i].data);
	free(q);
}

/* Does the file hold what was written? */
static bool holds(const struct put *q)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	char *buf = malloc(q->len);
	struct nfsfh *fh;
	bool same;

	cr_assert_eq(nfs_open(nfs, "/file", O_RDONLY, &fh), 0, "%s", nfs_get_error(nfs));
	same = nfs_pread(nfs, fh, q->off, q->len, buf) == (int)q->len && !memcmp(buf, q->data, q->len);
	nfs_close(nfs, fh);
	nfs_destroy_context(nfs);
	free(buf);
	return same;
}

/* --- the server ------------------------------------------------------------------------------------------ */

/* By hand, as what is asked for are the bytes of the handle. */
static size_t ask(int fd, uint32_t prog, uint32_t proc, xdrproc_t enc, void *args, char *reply, size_t room)
{
	uint32_t h[] = { 7, CALL, 2, prog, 3, proc, AUTH_SYS, 20, 0, 0, 0, 0, 0, 0, 0 }, mark, len;
	char buf[512];
	XDR x;

	xdrmem_create(&x, buf + 4, sizeof(buf) - 4, XDR_ENCODE);
	for (unsigned i = 0; i < sizeof(h) / sizeof(*h); i++)
		cr_assert(xdr_uint32_t(&x, &h[i]));
	cr_assert(enc(&x, args));
	mark = htonl(0x80000000u | xdr_getpos(&x));
	memcpy(buf, &mark, 4);
	cr_assert_gt(send(fd, buf, 4 + xdr_getpos(&x), MSG_NOSIGNAL), 0);
	cr_assert_eq(recv(fd, &mark, 4, MSG_WAITALL), 4);
	len = ntohl(mark) & 0x7fffffff;
	cr_assert(len >= 28 && len <= room);
	cr_assert_eq(recv(fd, reply, len, MSG_WAITALL), (ssize_t)len);
	cr_assert_eq(memcmp(reply + 24, "\0\0\0\0", 4), 0, "status");
	return len;
}

/* Status, then an opaque of at most 64 bytes. */
static void take_handle(const char *reply)
{
	handle_len = (unsigned char)reply[31];
	cr_assert_leq(handle_len, sizeof(handle));
	memcpy(handle, reply + 32, handle_len);
}

static void find_file(void)
{
	mntpath3 path = { 1, (char *)(uintptr_t) "/" };
	struct peer p = dial(SOCKET);
	LOOKUP3args q = { 0 };
	char reply[1024];

	ask(p.fd, MOUNT3_PROGRAM, MOUNTPROC3_MNT, (xdrproc_t)xdr_mntpath3, &path, reply, sizeof(reply));
	take_handle(reply);
	q.what = (diropargs3){ { { handle_len, handle } }, { 4, (char *)(uintptr_t) "file" } };
	ask(p.fd, NFS3_PROGRAM, NFSPROC3_LOOKUP, (xdrproc_t)xdr_LOOKUP3args, &q, reply, sizeof(reply));
	take_handle(reply);
	hang_up(&p);
}

/* A file of @blocks blocks. */
static void start(unsigned blocks)
{
	struct nfs_context *nfs;
	char block[BLOCK] = { 0 };
	struct nfsfh *fh;

	daemon_start(&d, &(struct daemon_opts){ .no_supervisor = true });
	nfs = nfst_mount(&d, "/");
	cr_assert_eq(nfs_creat(nfs, "/file", 0644, &fh), 0);
	for (unsigned i = 0; i < blocks; i++)
		cr_assert_eq(nfs_pwrite(nfs, fh, (uint64_t)i * BLOCK, BLOCK, block), BLOCK);
	nfs_close(nfs, fh);
	nfs_destroy_context(nfs);
	find_file();
}

static bool asleep(pid_t pid)
{
	char path[300], line[512];
	struct dirent *de;
	bool all = true;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (de = readdir(dir))) {
		char *state = NULL;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", (int)pid, de->d_name);
		f = de->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (f && fgets(line, sizeof(line), f))
			state = strrchr(line, ')');
		if (f)
			fclose(f);
		all = all && (!state || state[2] == 'S');
	}
	if (dir)
		closedir(dir);
	return all;
}

/* Not in the middle of something: it could hold a lock of the provider's that a client needs for sending. */
static void freeze(void)
{
	int status;

	for (int i = 0; i < 10000 && !asleep(d.pid); i++)
		usleep(1000);
	kill(d.pid, SIGSTOP);
	cr_assert_eq(waitpid(d.pid, &status, WUNTRACED), d.pid);
	cr_assert(WIFSTOPPED(status));
}

static void thaw(void)
{
	kill(d.pid, SIGCONT);
}

/* --- tests --------------------------------------------------------------------------------------------------- */

/* Drains of one WRITE alone, answered without anything else happening. */
static uint64_t alone(struct peer *p)
{
	uint64_t before = daemon_counter(&d, "drains");

	for (unsigned i = 0; i < 4; i++) {
		struct put *q = puts_of(1, 0, SMALL, i);

		post(p, q, 1);
		collect(p, q, 1);
		must_have(q, 1);
		puts_free(q, 1);
	}
	return (daemon_counter(&d, "drains") - before) / 4;
}

/* @npeers clients with @each WRITEs of @len bytes: how many drains? */
static uint64_t together(struct peer *p, unsigned npeers, unsigned each, uint32_t len, unsigned seed)
{
	uint64_t before = daemon_counter(&d, "drains");
	struct put *q[MANY];

	freeze();
	for (unsigned i = 0; i < npeers; i++) {
		q[i] = puts_of(each, (uint64_t)i * each * BLOCK, len, seed);
		post(&p[i], q[i], each);
	}
	thaw();
	collect_all(p, q, npeers, each);
	for (unsigned i = 0; i < npeers; i++)
		must_have(q[i], each);
	before = daemon_counter(&d, "drains") - before;
	for (unsigned i = 0; i < npeers; i++) {
		for (unsigned k = 0; k < each; k++)
			cr_assert(holds(&q[i][k]));
		puts_free(q[i], each);
	}
	return before;
}

#define EACH_WAY(name)                                                                             \
	ParameterizedTestParameters(batch, name) { return cr_make_param_array(enum way, ways, 3); } \
	ParameterizedTest(enum way *way, batch, name)

/* What one look into a fabric's queue brings shares them; a few looks may be needed for all. */
static void expect_shared(enum way way, uint64_t drains, uint64_t one)
{
	uint64_t most = way == SOCKET ? one : 4 * one;

	cr_assert_leq(drains, most, "%s: %d drains, and %d of one WRITE alone", way_name[way], (int)drains, (int)one);
}

EACH_WAY(writes_of_one_connection_share_their_drains)
{
	struct peer p;
	uint64_t one;

	start(MANY);
	p = dial(*way);
	one = alone(&p);
	cr_assert_gt(one, 0);
	for (unsigned i = 0; i < 3; i++) /* and the client learns its credits */
		together(&p, 1, MANY, SMALL, 20 + i);
	expect_shared(*way, together(&p, 1, MANY, SMALL, 1), one);
	if (*way != TCP_FABRIC) /* where whole blocks come when the client's turns give them */
		expect_shared(*way, together(&p, 1, MANY, BLOCK, 2), one);
	hang_up(&p);
	daemon_remove(&d);
}

EACH_WAY(writes_of_several_clients_share_their_drains)
{
	struct peer p[4];
	uint64_t one;

	start(MANY);
	for (unsigned i = 0; i < 4; i++)
		p[i] = dial(*way);
	one = alone(&p[0]);
	for (unsigned i = 0; i < 3; i++)
		together(p, 4, MANY / 4, SMALL, 20 + i);
	expect_shared(*way, together(p, 4, MANY / 4, SMALL, 1), one);
	if (*way != TCP_FABRIC)
		expect_shared(*way, together(p, 4, MANY / 4, BLOCK, 2), one);
	for (unsigned i = 0; i < 4; i++)
		hang_up(&p[i]);
	daemon_remove(&d);
}

/* Without stopping the server: one segment. */
Test(batch, writes_in_one_send_share_their_drains)
{
	uint64_t one, before;
	struct put *q;
	struct peer p;

	start(MANY);
	p = dial(SOCKET);
	one = alone(&p);
	before = daemon_counter(&d, "drains");
	q = puts_of(MANY, 0, SMALL, 5);
	post(&p, q, MANY);
	collect(&p, q, MANY);
	must_have(q, MANY);
	cr_assert_leq(daemon_counter(&d, "drains") - before, 2 * one); /* half of them may be there when it looks */
	puts_free(q, MANY);
	hang_up(&p);
	daemon_remove(&d);
}

static bool same_time(nfstime3 a, nfstime3 b)
{
	return a.seconds == b.seconds && a.nseconds == b.nseconds;
}

/* In the order in which they were made, each reply goes on where the one before ended. */
static void expect_chain(struct put *q, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const wcc_data *w = &q[i].ok.file_wcc;
		const pre_op_attr *b = &w->before;
		const fattr3 *last = i ? &q[i - 1].ok.file_wcc.after.post_op_attr_u.attributes : NULL;

		cr_assert(b->attributes_follow && w->after.attributes_follow);
		cr_assert_eq(w->after.post_op_attr_u.attributes.size, (uint64_t)(i + 1) * BLOCK);
		cr_assert_eq(b->pre_op_attr_u.attributes.size, (uint64_t)i * BLOCK, "WRITE %u", i);
		if (!last)
			continue;
		cr_assert(same_time(b->pre_op_attr_u.attributes.mtime, last->mtime), "WRITE %u", i);
		cr_assert(same_time(b->pre_op_attr_u.attributes.ctime, last->ctime), "WRITE %u", i);
	}
}

EACH_WAY(attributes_before_one_are_those_behind_the_last)
{
	struct peer p;
	struct put *q;

	start(0);
	p = dial(*way);
	freeze();
	q = puts_of(MANY, 0, BLOCK, 3);
	post(&p, q, MANY);
	thaw();
	collect(&p, q, MANY);
	must_have(q, MANY);
	expect_chain(q, MANY);
	puts_free(q, MANY);
	hang_up(&p);
	daemon_remove(&d);
}

/* The first fills a new block; the others change pieces of it and wait for the commit that is in the batch. */
static void fill_block(struct peer *p, unsigned block, unsigned n)
{
	struct put *q = puts_of(n, block * BLOCK, BLOCK, block);

	for (unsigned k = 1; k < n; k++) {
		q[k].len = BLOCK / 16;
		q[k].off = block * BLOCK + k * q[k].len;
	}
	freeze();
	post(p, q, n);
	thaw();
	collect(p, q, n);
	must_have(q, n);
	q[0].len = BLOCK / 16; /* what the others left of it */
	for (unsigned k = 0; k < n; k++)
		cr_assert(holds(&q[k]), "WRITE %u", k);
	puts_free(q, n);
}

EACH_WAY(writes_into_a_new_block_wait_for_the_one_that_fills_it)
{
	struct peer p;

	start(0);
	p = dial(*way);
	fill_block(&p, 0, 2);
	fill_block(&p, 1, 9);
	fill_block(&p, 2, 2);
	hang_up(&p);
	daemon_remove(&d);
}

/* --- when something ends ------------------------------------------------------------------------------------ */

static void until_quiet(void)
{
	for (int i = 0; i < 400 && (daemon_counter(&d, "pins") || daemon_counter(&d, "calls_now")); i++)
		usleep(5000);
	cr_assert_eq(daemon_counter(&d, "pins"), 0);
	cr_assert_eq(daemon_counter(&d, "calls_now"), 0);
}

EACH_WAY(a_client_is_killed)
{
	struct put *q = puts_of(MANY, 0, SMALL, 6);
	int up[2], go[2], status;
	struct peer p;
	char c = 0;
	pid_t pid;

	start(MANY);
	cr_assert(!pipe(up) && !pipe(go));
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		p = dial(*way);
		if (write(up[1], &c, 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(1);
		post(&p, q, MANY);
		raise(SIGKILL);
	}
	cr_assert_eq(read(up[0], &c, 1), 1);
	freeze();
	cr_assert_eq(write(go[1], &c, 1), 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	thaw();
	until_quiet();
	for (unsigned i = 0; *way == SOCKET && i < MANY; i++)
		cr_assert(holds(&q[i]), "WRITE %u had arrived", i);
	p = dial(*way);
	cr_assert_gt(alone(&p), 0);
	hang_up(&p);
	puts_free(q, MANY);
	daemon_remove(&d);
}

/* The server closes the connection in the same turn, before the batch has ended. */
Test(batch, a_connection_breaks_the_rules)
{
	static const char mark[8] = { 0x7f, -1, -1, -1 };
	struct peer p[2];
	struct put *q[2];

	start(MANY);
	for (unsigned i = 0; i < 2; i++)
		p[i] = dial(SOCKET);
	freeze();
	for (unsigned i = 0; i < 2; i++) {
		q[i] = puts_of(MANY / 2, i * (MANY / 2) * BLOCK, SMALL, 7 + i);
		post_socket(&p[i], q[i], MANY / 2, mark, sizeof(mark));
	}
	thaw();
	for (unsigned i = 0; i < 2; i++) {
		collect(&p[i], q[i], MANY / 2);
		cr_assert_eq(left_of(q[i], MANY / 2), MANY / 2, "a reply on a connection that was to be closed");
	}
	until_quiet();
	cr_assert_eq(daemon_counter(&d, "bad_records"), 2);
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < MANY / 2; k++)
			cr_assert(holds(&q[i][k]));
		puts_free(q[i], MANY / 2);
		hang_up(&p[i]);
	}
	daemon_remove(&d);
}

EACH_WAY(the_server_is_told_to_stop)
{
	struct put *q = puts_of(MANY, 0, SMALL, 8);
	struct peer p;
	int status = 0;

	start(MANY);
	p = dial(*way);
	freeze();
	post(&p, q, MANY);
	kill(d.pid, SIGTERM);
	thaw();
	collect(&p, q, MANY);
	cr_assert_eq(waitpid(d.pid, &status, 0), d.pid);
	cr_assert_eq(status, 0, "it stopped with 0x%x", status);
	daemon_check(&d);
	daemon_launch(&d);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(!q[i].done || q[i].err || holds(&q[i]), "WRITE %u was answered", i);
	hang_up(&p);
	puts_free(q, MANY);
	daemon_remove(&d);
}

EACH_WAY(the_server_is_killed)
{
	struct put *q = puts_of(MANY, 0, SMALL, 9);
	struct peer p;

	start(MANY);
	p = dial(*way);
	freeze();
	post(&p, q, MANY);
	thaw();
	collect(&p, q, MANY);
	must_have(q, MANY);
	daemon_kill(&d);
	daemon_launch(&d);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(holds(&q[i]), "WRITE %u was answered", i);
	hang_up(&p);
	puts_free(q, MANY);
	daemon_remove(&d);
}
