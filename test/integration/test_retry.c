/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exactly once: whatever became of the answer, a change that is asked for again gets its first
 * answer, over sockets and fabrics, on the same connection, a new one, and after the server was
 * killed. The calls are made by hand, so that the test decides about transaction numbers.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pmemio/pmemio.h"
#include "proto/mount3.h"
#include "proto/nfs3.h"
#include "test/lib/daemon.h"
#include "transport/transport.h"

#define FH 32
#define D  "dir"

enum way { SOCKET, TCP_FABRIC, SHM };
static enum way ways[] = { SOCKET, TCP_FABRIC, SHM };
static const char everyone[] = "/ *(rw,no_root_squash,insecure)\n";

struct peer {
	enum way way;
	int fd;
	struct tp_client *c;
	uint32_t uid;
};
struct answer {
	int err; /* 0: these words came */
	uint32_t n, w[256];
};
struct handle {
	char b[FH];
};

static struct daemon d;
static struct handle root, dir;
static uint32_t next_xid = 0x5eed0000; /* of calls that are not repeated */

TestSuite(retry, .timeout = 300);

/* --- a client -------------------------------------------------------------------------------- */

static struct peer connect_as(enum way way, const char *from, uint8_t instance)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		                  .sin_port = htons((uint16_t)d.port),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in me = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(from) };
	struct peer p = { .way = way, .fd = -1 };
	struct tp_fabric_opts o = { .name = "test", .instance = { instance } };
	struct tp_error why = { "" };
	char port[16];

	if (way == SOCKET) {
		p.fd = socket(AF_INET, SOCK_STREAM, 0);
		cr_assert_eq(bind(p.fd, (struct sockaddr *)&me, sizeof(me)), 0);
		cr_assert_eq(connect(p.fd, (struct sockaddr *)&to, sizeof(to)), 0);
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

static struct peer connect_from(enum way way, const char *from)
{
	return connect_as(way, from, 0);
}

static struct peer dial(enum way way)
{
	return connect_from(way, "127.0.0.1");
}

static void hang_up(struct peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	if (p->c)
		tp_client_close(p->c);
	p->fd = -1;
	p->c = NULL;
}

struct call { /* arguments, ready to be sent as often as the test likes */
	uint32_t prog, proc, xid, len;
	char args[800];
};

static void header(XDR *x, const struct peer *p, const struct call *c)
{
	uint32_t h[] = { c->xid, CALL, 2,      c->prog, 3, c->proc, AUTH_SYS, 20,
		         0,      0,    p->uid, 0,       0, 0,       0 };

	for (unsigned i = 0; i < sizeof(h) / sizeof(*h); i++)
		cr_assert(xdr_uint32_t(x, &h[i]));
}

static void send_bytes(const struct peer *p, const struct call *c)
{
	char buf[1024];
	uint32_t mark;
	XDR x;

	xdrmem_create(&x, buf + 4, sizeof(buf) - 4, XDR_ENCODE);
	header(&x, p, c);
	cr_assert(xdr_opaque(&x, (char *)(uintptr_t)c->args, c->len));
	mark = htonl(0x80000000u | xdr_getpos(&x));
	memcpy(buf, &mark, 4);
	cr_assert_eq(write(p->fd, buf, 4 + xdr_getpos(&x)), (ssize_t)(4 + xdr_getpos(&x)));
}

static void receive_bytes(const struct peer *p, uint32_t xid, struct answer *a)
{
	uint32_t buf[300], len;

	*a = (struct answer){ .err = -ECONNRESET };
	if (recv(p->fd, &len, 4, MSG_WAITALL) != 4)
		return;
	len = ntohl(len) & 0x7fffffff;
	cr_assert(len >= 24 && len <= sizeof(buf));
	if (recv(p->fd, buf, len, MSG_WAITALL) != (ssize_t)len)
		return;
	cr_assert_eq(ntohl(buf[0]), xid);
	cr_assert(buf[2] == 0 && buf[5] == 0, "denied or not accepted");
	a->err = 0;
	a->n = len / 4 - 6;
	for (uint32_t i = 0; i < a->n; i++)
		a->w[i] = ntohl(buf[6 + i]);
}

struct ask {
	struct tp_req req;
	struct answer *a;
};

static void answered(struct tp_req *req, int err)
{
	struct ask *ask = (struct ask *)(void *)((char *)req - offsetof(struct ask, req));
	uint32_t v;

	ask->a->err = err;
	while (!err && ask->a->n < 256 && xdr_uint32_t(&req->results, &v))
		ask->a->w[ask->a->n++] = v;
}

static void send_fabric(const struct peer *p, const struct call *c, struct ask *ask)
{
	struct tp_cred cred = { .flavor = AUTH_SYS, .uid = p->uid };
	XDR *x;

	ask->req = (struct tp_req){
		.xid = c->xid, .set_xid = true, .max_results = 1000, .done = answered
	};
	*ask->a = (struct answer){ .err = 1 };
	x = tp_req_begin(p->c, &ask->req, c->prog, 3, c->proc, &cred, c->len);
	cr_assert(x && xdr_opaque(x, (char *)(uintptr_t)c->args, c->len));
	cr_assert_eq(tp_req_send(p->c, &ask->req), 0);
}

static void issue(const struct peer *p, const struct call *c, struct answer *a)
{
	struct ask ask = { .a = a };

	if (p->way == SOCKET) {
		send_bytes(p, c);
		receive_bytes(p, c->xid, a);
		return;
	}
	send_fabric(p, c, &ask);
	for (int i = 0; i < 600 && a->err == 1; i++)
		tp_client_wait(p->c, 50);
}

/* The same, and nobody waits for what comes back. */
static void issue_and_hang_up(struct peer *p, const struct call *c)
{
	struct answer a;
	struct ask ask = { .a = &a };

	if (p->way == SOCKET)
		send_bytes(p, c);
	else
		send_fabric(p, c, &ask);
	hang_up(p);
}

/* --- calls ----------------------------------------------------------------------------------- */

static nfs_fh3 wire(const struct handle *h)
{
	return (nfs_fh3){ { FH, (char *)(uintptr_t)h->b } };
}

static diropargs3 at(const struct handle *h, const char *name)
{
	return (diropargs3){ wire(h), { (u_int)strlen(name), (char *)(uintptr_t)name } };
}

#define CALL_OF(xid_, proc_, type, args_)                                                          \
	call_of(xid_, NFS3_PROGRAM, NFSPROC3_##proc_, (xdrproc_t)xdr_##type, args_)
static struct call call_of(uint32_t xid, uint32_t prog, uint32_t proc, xdrproc_t enc, void *args)
{
	struct call c = { .prog = prog, .proc = proc, .xid = xid ? xid : next_xid++ };
	XDR x;

	xdrmem_create(&x, c.args, sizeof(c.args), XDR_ENCODE);
	cr_assert(enc(&x, args));
	c.len = xdr_getpos(&x);
	return c;
}

static struct call create(uint32_t xid, const char *name, createmode3 mode)
{
	CREATE3args q = { at(&dir, name), { .mode = mode } };

	if (mode == EXCLUSIVE)
		memcpy(q.how.createhow3_u.verf, "verifier", 8);
	return CALL_OF(xid, CREATE, CREATE3args, &q);
}

static struct call make_dir(uint32_t xid, const struct handle *in, const char *name)
{
	MKDIR3args q = { .where = at(in, name) };

	q.attributes.mode.set_it = TRUE;
	q.attributes.mode.set_mode3_u.mode = 0755;
	return CALL_OF(xid, MKDIR, MKDIR3args, &q);
}

static struct call del(uint32_t xid, const char *name)
{
	REMOVE3args q = { at(&dir, name) };

	return CALL_OF(xid, REMOVE, REMOVE3args, &q);
}

static struct call del_dir(uint32_t xid, const char *name)
{
	REMOVE3args q = { at(&dir, name) };

	return CALL_OF(xid, RMDIR, REMOVE3args, &q);
}

static struct call move(uint32_t xid, const char *from, const char *to)
{
	RENAME3args q = { at(&dir, from), at(&dir, to) };

	return CALL_OF(xid, RENAME, RENAME3args, &q);
}

static struct call resize(uint32_t xid, const struct handle *h, uint64_t size)
{
	SETATTR3args q = { .object = wire(h) };

	q.new_attributes.size.set_it = TRUE;
	q.new_attributes.size.set_size3_u.size = size;
	return CALL_OF(xid, SETATTR, SETATTR3args, &q);
}

static uint32_t status(const struct peer *p, struct call c)
{
	struct answer a;

	issue(p, &c, &a);
	cr_assert_eq(a.err, 0, "lost: %d", a.err);
	return a.w[0];
}

static void must(const struct peer *p, struct call c)
{
	uint32_t s = status(p, c);

	cr_assert_eq(s, 0, "procedure %u: status %u", c.proc, s);
}

static void take_handle(const uint32_t *w, struct handle *h)
{
	for (unsigned i = 0; i < FH / 4; i++) {
		uint32_t v = htonl(w[i]);

		memcpy(h->b + 4 * i, &v, 4);
	}
}

static struct handle mount_root(const struct peer *p)
{
	mntpath3 path = { 1, (char *)(uintptr_t) "/" };
	struct call c = call_of(0, MOUNT3_PROGRAM, MOUNTPROC3_MNT, (xdrproc_t)xdr_mntpath3, &path);
	struct answer a;
	struct handle h;

	issue(p, &c, &a);
	cr_assert(a.err == 0 && a.w[0] == 0 && a.w[1] == FH);
	take_handle(a.w + 2, &h);
	return h;
}

static struct answer look(const struct peer *p, const struct handle *in, const char *name,
                          struct handle *h)
{
	LOOKUP3args q = { at(in, name) };
	struct call c = CALL_OF(0, LOOKUP, LOOKUP3args, &q);
	struct answer a;

	issue(p, &c, &a);
	cr_assert_eq(a.err, 0);
	if (a.w[0] == 0)
		take_handle(a.w + 2, h);
	return a;
}

/* --- one of each ----------------------------------------------------------------------------- */

enum {
	UNCHECKED_,
	GUARDED_,
	EXCLUSIVE_,
	MKDIR_,
	SYMLINK_,
	MKNOD_,
	LINK_,
	RENAME_,
	SETATTR_,
	CUT_,
	REMOVE_,
	RMDIR_,
	STEPS
};
#define MAKES_LAST MKNOD_

static void prepare(const struct peer *p)
{
	static const char *const files[] = { "file", "old", "gone", "guarded", "sized" };

	root = mount_root(p);
	must(p, make_dir(0, &root, D));
	cr_assert_eq(look(p, &root, D, &dir).w[0], 0);
	for (unsigned i = 0; i < sizeof(files) / sizeof(*files); i++)
		must(p, create(0, files[i], GUARDED));
	must(p, make_dir(0, &dir, "empty"));
}

static struct call symlink_call(uint32_t xid)
{
	SYMLINK3args q = { .where = at(&dir, "s"),
		           .symlink.symlink_data = { 2, (char *)(uintptr_t) "to" } };

	return CALL_OF(xid, SYMLINK, SYMLINK3args, &q);
}

static struct call mknod_call(uint32_t xid)
{
	MKNOD3args q = { at(&dir, "p"), { .type = NF3FIFO } };

	return CALL_OF(xid, MKNOD, MKNOD3args, &q);
}

static struct call link_call(uint32_t xid, const struct peer *p)
{
	struct handle file;
	LINK3args q;

	cr_assert_eq(look(p, &dir, "file", &file).w[0], 0);
	q = (LINK3args){ wire(&file), at(&dir, "l") };
	return CALL_OF(xid, LINK, LINK3args, &q);
}

static struct call chmod_call(uint32_t xid, const struct peer *p)
{
	struct handle h;
	struct answer a = look(p, &dir, "guarded", &h);
	const uint32_t *attr = a.w + 2 + FH / 4 + 1; /* 21 words, the change time last */
	SETATTR3args q = { .object = wire(&h), .guard.check = TRUE };

	q.guard.sattrguard3_u.obj_ctime = (nfstime3){ attr[19], attr[20] };
	q.new_attributes.mode.set_it = TRUE;
	q.new_attributes.mode.set_mode3_u.mode = 0711;
	return CALL_OF(xid, SETATTR, SETATTR3args, &q);
}

static struct call resize_call(uint32_t xid, const struct peer *p, uint64_t size)
{
	struct handle h;

	cr_assert_eq(look(p, &dir, "sized", &h).w[0], 0);
	return resize(xid, &h, size);
}

static struct call step(int i, const struct peer *p)
{
	uint32_t xid = 0x1000 + (uint32_t)i;

	switch (i) {
	case UNCHECKED_:
		return create(xid, "u", UNCHECKED);
	case GUARDED_:
		return create(xid, "g", GUARDED);
	case EXCLUSIVE_:
		return create(xid, "x", EXCLUSIVE);
	case MKDIR_:
		return make_dir(xid, &dir, "m");
	case SYMLINK_:
		return symlink_call(xid);
	case MKNOD_:
		return mknod_call(xid);
	case LINK_:
		return link_call(xid, p);
	case RENAME_:
		return move(xid, "old", "young");
	case SETATTR_:
		return chmod_call(xid, p);
	case CUT_:
		return resize_call(xid, p, 5);
	case REMOVE_:
		return del(xid, "gone");
	default:
		return del_dir(xid, "empty");
	}
}

/* Others go on with the tree: none of the steps could be made a second time without a trace. */
static void meddle(const struct peer *p)
{
	must(p, del(0, "u"));
	must(p, del(0, "x"));
	must(p, del_dir(0, "m"));
	must(p, del(0, "l"));
	must(p, move(0, "young", "younger"));
	must(p, create(0, "old", GUARDED));
	must(p, resize_call(0, p, 100));
	must(p, create(0, "gone", GUARDED));
	must(p, make_dir(0, &dir, "empty"));
}
static const char meddled[] = "empty file g gone guarded old p s sized younger ";

static bool by_name(void *arg, const struct pm_dirent *de)
{
	char(*names)[32] = arg;
	unsigned i = 0;

	if (de->name[0] == '.')
		return true;
	while (names[i][0])
		i++;
	cr_assert(i < 30 && de->len < 32);
	memcpy(names[i], de->name, de->len);
	return true;
}

static int order(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* The names in D of the stopped server's pool; then @want is what they must be. */
static void tree_is(const char *want)
{
	struct pm_error why;
	struct pm_store *st;
	struct pm_attr a;
	char names[32][32] = { "" }, text[1024] = "";
	bool eof;
	size_t n = 0, len = 0;

	cr_assert_eq(pm_open(d.pool, &(struct pm_open_opts){ .read_only = true }, &st, &why), 0,
	             "%s", why.text);
	cr_assert_eq(pm_lookup(st, (struct pm_id){ PM_ROOT_INO, 1 }, D, strlen(D), &a), 0);
	cr_assert_eq(pm_readdir(st, a.id, 0, false, by_name, names, &eof), 0);
	while (names[n][0])
		n++;
	qsort(names, n, sizeof(names[0]), order);
	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s ", names[i]);
	cr_assert_str_eq(text, want);
	if (want == meddled) {
		struct pm_id in = a.id;

		cr_assert_eq(pm_lookup(st, in, "sized", 5, &a), 0);
		cr_assert_eq(a.size, 100);
		cr_assert_eq(pm_lookup(st, in, "guarded", 7, &a), 0);
		cr_assert_eq(a.mode, 0711);
	}
	pm_close(st);
}

/* The first answer: success, and the same object. */
static void same_answer(int i, const struct answer *first, const struct answer *again)
{
	cr_assert_eq(again->err, 0, "step %d: lost", i);
	cr_assert_eq(again->w[0], 0, "step %d: status %u", i, again->w[0]);
	if (i <= MAKES_LAST) {
		cr_assert(again->w[1] == 1 && again->w[2] == FH, "step %d: no handle", i);
		cr_assert(!memcmp(first->w + 3, again->w + 3, FH), "step %d: another handle", i);
	}
}

static void repeat(const struct peer *p, const struct call *calls, const struct answer *first)
{
	for (int i = 0; i < STEPS; i++) {
		struct answer a;

		issue(p, &calls[i], &a);
		same_answer(i, &first[i], &a);
	}
}

/* What looks like a repetition and is none. */
static void others_are_served(struct peer *p, const struct call *calls)
{
	struct call c = create(calls[GUARDED_].xid, "g2", GUARDED);
	struct peer far;

	must(p, c); /* other arguments */
	must(p, del(calls[REMOVE_].xid, "g2"));
	c = calls[REMOVE_];
	c.proc = NFSPROC3_RMDIR; /* another procedure, the same bytes */
	cr_assert_eq(status(p, c), NFS3ERR_NOTDIR);
	p->uid = 1234; /* another caller */
	cr_assert_eq(status(p, calls[REMOVE_]), NFS3ERR_ACCES);
	p->uid = 0;
	if (p->way != SOCKET)
		return;
	far = connect_from(SOCKET, "127.0.0.2"); /* another client */
	cr_assert_eq(status(&far, calls[GUARDED_]), NFS3ERR_EXIST);
	hang_up(&far);
}

ParameterizedTestParameters(retry, the_first_answer_comes_back)
{
	return cr_make_param_array(enum way, ways, sizeof(ways) / sizeof(*ways));
}

ParameterizedTest(enum way *way, retry, the_first_answer_comes_back)
{
	struct call calls[STEPS];
	struct answer first[STEPS];
	struct peer p;

	daemon_start(&d, &(struct daemon_opts){ .exports = everyone, .no_fabric = *way == SOCKET });
	p = dial(*way);
	prepare(&p);
	for (int i = 0; i < STEPS; i++) {
		calls[i] = step(i, &p);
		issue(&p, &calls[i], &first[i]);
		cr_assert(first[i].err == 0 && first[i].w[0] == 0, "step %d: %u", i, first[i].w[0]);
	}
	meddle(&p);
	repeat(&p, calls, first);
	hang_up(&p);
	p = dial(*way);
	repeat(&p, calls, first);
	cr_assert_eq(daemon_counter(&d, "drc_hits"), 2 * STEPS);
	hang_up(&p);
	daemon_kill(&d);
	daemon_check(&d);
	daemon_launch(&d);
	p = dial(*way);
	repeat(&p, calls, first);
	cr_assert_eq(daemon_counter(&d, "drc_hits"), STEPS);
	hang_up(&p);
	daemon_stop(&d);
	daemon_launch(&d);
	p = dial(*way);
	repeat(&p, calls, first);
	others_are_served(&p, calls);
	hang_up(&p);
	daemon_stop(&d);
	tree_is(meddled);
	daemon_remove(&d);
}

Test(retry, a_client_may_come_back_over_another_transport)
{
	struct call calls[STEPS];
	struct answer first[STEPS];
	struct peer s, f;

	daemon_start(&d, &(struct daemon_opts){ .exports = everyone });
	s = dial(SOCKET);
	f = dial(TCP_FABRIC);
	prepare(&s);
	for (int i = 0; i < STEPS; i++) {
		calls[i] = step(i, &s);
		issue(i % 2 ? &s : &f, &calls[i], &first[i]);
		cr_assert_eq(first[i].w[0], 0);
	}
	meddle(&f);
	repeat(&s, calls, first);
	repeat(&f, calls, first);
	hang_up(&s);
	hang_up(&f);
	daemon_stop(&d);
	tree_is(meddled);
	daemon_remove(&d);
}

/* --- who is who on this machine ------------------------------------------------------------- */

Test(retry, clients_over_shm_are_told_apart_and_known_again)
{
	struct peer a, b;
	struct call c;

	daemon_start(&d, &(struct daemon_opts){ .exports = everyone });
	a = connect_as(SHM, "127.0.0.1", 1);
	b = connect_as(SHM, "127.0.0.1", 2);
	prepare(&a);
	c = step(REMOVE_, &a);
	must(&a, c);
	must(&a, c);
	cr_assert_eq(status(&b, c), NFS3ERR_NOENT, "another client's call is another call");
	hang_up(&a);
	a = connect_as(SHM, "127.0.0.1", 1);
	must(&a, c);
	hang_up(&a);
	hang_up(&b);
	daemon_kill(&d);
	daemon_launch(&d);
	a = connect_as(SHM, "127.0.0.1", 1);
	b = connect_as(SHM, "127.0.0.1", 2);
	must(&a, c);
	cr_assert_eq(status(&b, c), NFS3ERR_NOENT);
	hang_up(&a);
	hang_up(&b);
	daemon_remove(&d);
}

/* Those that do not say who they are: each process is one. */
Test(retry, processes_over_shm_are_told_apart)
{
	struct peer a;
	struct call c;
	int status_of = 0;
	pid_t pid;

	daemon_start(&d, &(struct daemon_opts){ .exports = everyone });
	a = dial(SHM);
	prepare(&a);
	c = step(REMOVE_, &a);
	must(&a, c);
	hang_up(&a);
	pid = fork();
	if (pid == 0) {
		struct peer b = dial(SHM);
		uint32_t s = status(&b, c);

		hang_up(&b);
		_exit(s == NFS3ERR_NOENT ? 7 : 1);
	}
	cr_assert_eq(waitpid(pid, &status_of, 0), pid);
	cr_assert(WIFEXITED(status_of) && WEXITSTATUS(status_of) == 7, "the other process: %x",
	          status_of);
	a = dial(SHM);
	must(&a, c);
	hang_up(&a);
	daemon_remove(&d);
}

/* --- cut connections -------------------------------------------------------------------------- */

static const char stepped[] = "file g guarded l m p s sized u x young ";

ParameterizedTestParameters(retry, a_cut_connection_costs_nothing)
{
	return cr_make_param_array(enum way, ways, sizeof(ways) / sizeof(*ways));
}

/* The first call may be served before, while or after the second one is, or never. */
ParameterizedTest(enum way *way, retry, a_cut_connection_costs_nothing)
{
	struct peer keep, p;

	daemon_start(&d, &(struct daemon_opts){
				 .exports = everyone, .workers = 2, .no_fabric = *way == SOCKET });
	keep = dial(*way);
	prepare(&keep);
	for (int i = 0; i < STEPS; i++) {
		struct call c = step(i, &keep);

		for (int n = 0; n < 3; n++) {
			p = dial(*way);
			issue_and_hang_up(&p, &c);
		}
		p = dial(*way);
		must(&p, c);
		must(&keep, c);
		hang_up(&p);
	}
	hang_up(&keep);
	daemon_stop(&d);
	tree_is(stepped);
	daemon_remove(&d);
}

/* --- kills ------------------------------------------------------------------------------------ */

static bool media[] = { false, true }; /* msync? */

ParameterizedTestParameters(retry, a_kill_before_the_answer_costs_nothing)
{
	return cr_make_param_array(bool, media, 2);
}

ParameterizedTest(bool *msync, retry, a_kill_before_the_answer_costs_nothing)
{
	unsigned seed = (unsigned)time(NULL);
	struct peer p;

	fprintf(stderr, "seed %u\n", seed);
	daemon_start(&d, &(struct daemon_opts){ .exports = everyone,
	                                        .no_fabric = true,
	                                        .no_supervisor = true,
	                                        .size = 64 << 20,
	                                        .msync = *msync });
	p = dial(SOCKET);
	prepare(&p);
	for (int i = 0; i < STEPS; i++) {
		struct call c = step(i, &p);

		send_bytes(&p, &c);
		if (rand_r(&seed) % 2) /* the answer is there, and nobody reads it */
			poll(&(struct pollfd){ .fd = p.fd, .events = POLLIN }, 1, 10000);
		else
			nanosleep(&(struct timespec){ 0, rand_r(&seed) % 500000 }, NULL);
		daemon_kill(&d);
		hang_up(&p);
		daemon_check(&d);
		daemon_launch(&d);
		p = dial(SOCKET);
		must(&p, c);
	}
	hang_up(&p);
	daemon_stop(&d);
	tree_is(stepped);
	daemon_remove(&d);
}

/* --- at the same time --------------------------------------------------------------------------
 */

#define LINES 6

/* The same call on all lines at once; all get the same answer. */
static void all_at_once(const struct peer *p, struct call c)
{
	struct answer first, a;

	for (int i = 0; i < LINES; i++)
		send_bytes(&p[i], &c);
	for (int i = 0; i < LINES; i++) {
		receive_bytes(&p[i], c.xid, &a);
		cr_assert_eq(a.err, 0);
		cr_assert_eq(a.w[0], 0, "procedure %u, line %d: status %u", c.proc, i, a.w[0]);
		if (i == 0)
			first = a;
		else if (c.proc == NFSPROC3_CREATE)
			same_answer(GUARDED_, &first, &a);
	}
}

ParameterizedTestParameters(retry, calls_in_progress_are_not_made_twice)
{
	return cr_make_param_array(bool, media, 2);
}

ParameterizedTest(bool *msync, retry, calls_in_progress_are_not_made_twice)
{
	int rounds = *msync ? 30 : 200;
	struct peer p[LINES];

	daemon_start(&d, &(struct daemon_opts){ .exports = everyone,
	                                        .no_fabric = true,
	                                        .workers = 3,
	                                        .msync = *msync });
	for (int i = 0; i < LINES; i++)
		p[i] = dial(SOCKET);
	prepare(&p[0]);
	for (int n = 0; n < rounds; n++) {
		all_at_once(p, create(0, "a", GUARDED));
		all_at_once(p, move(0, "a", "b"));
		all_at_once(p, del(0, "b"));
	}
	for (int n = 0; n < rounds; n++) { /* on one line */
		struct call c = create(0, "a", GUARDED), r = del(0, "a");
		struct answer a;

		for (int i = 0; i < 4; i++)
			send_bytes(&p[0], i < 2 ? &c : &r);
		for (int i = 0; i < 4; i++) {
			receive_bytes(&p[0], i < 2 ? c.xid : r.xid, &a);
			cr_assert(a.err == 0 && a.w[0] == 0, "call %d: status %u", i, a.w[0]);
		}
	}
	cr_assert_eq(daemon_counter(&d, "drc_hits"), (uint64_t)rounds * (3 * (LINES - 1) + 2));
	for (int i = 0; i < LINES; i++)
		hang_up(&p[i]);
	daemon_remove(&d);
}

/* --- for a while ------------------------------------------------------------------------------ */

/* A client that uses the same numbers again and again is not given old answers for ever. */
Test(retry, answers_are_forgotten_after_a_while)
{
	static const char *const set[] = { "nfs.drc_age=1", NULL };
	struct peer p;
	uint32_t s = 0;
	struct call c;

	daemon_start(&d,
	             &(struct daemon_opts){ .exports = everyone, .no_fabric = true, .set = set });
	p = dial(SOCKET);
	prepare(&p);
	c = step(REMOVE_, &p);
	must(&p, c);
	for (int i = 0; i < 600 && s == 0; i++) { /* the pool's clock has to tick */
		poll(NULL, 0, 50);
		s = status(&p, c);
	}
	cr_assert_eq(s, NFS3ERR_NOENT);
	hang_up(&p);
	daemon_remove(&d);
}

/* --- without ------------------------------------------------------------------------------------
 */

Test(retry, switched_off_nothing_is_remembered)
{
	static const char *const set[] = { "nfs.drc=off", NULL };
	struct peer p;
	struct call c;

	daemon_start(&d,
	             &(struct daemon_opts){ .exports = everyone, .no_fabric = true, .set = set });
	p = dial(SOCKET);
	prepare(&p);
	c = step(REMOVE_, &p);
	must(&p, c);
	cr_assert_eq(status(&p, c), NFS3ERR_NOENT);
	cr_assert_eq(daemon_counter(&d, "replies"), 0);
	cr_assert_eq(daemon_counter(&d, "drc_hits"), 0);
	hang_up(&p);
	daemon_remove(&d);
}
