/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/nfs3fix.h"

enum { OUT_SIZE = 2 << 20 };

static const char exports_text[] =
	"/ 127.0.0.1(rw,no_root_squash,insecure)\n"
	"/ro 127.0.0.1(ro,no_root_squash,insecure)\n"
	"/sub 127.0.0.1(rw,no_root_squash,insecure)\n"
	"/squash 127.0.0.1(rw,root_squash,insecure,anonuid=77,anongid=88)\n"
	"/all 127.0.0.1(rw,all_squash,insecure,anonuid=77,anongid=88)\n"
	"/secure 127.0.0.1(rw,no_root_squash,secure)\n"
	"/far 192.0.2.1(rw)\n";

struct test_pool pool;
struct server srv;
struct worker worker;
struct tp_cred me;
int sock;
uint32_t xid;
uint8_t *out;
static uint8_t *in;
XDR enc, res;
H root;
struct sockaddr_in where;

void die_unless(bool ok, const char *what)
{
	if (!ok) {
		perror(what);
		abort();
	}
}

void dial(struct sockaddr_in *sa)
{
	sock = socket(AF_INET, SOCK_STREAM, 0);
	die_unless(connect(sock, (struct sockaddr *)sa, sizeof(*sa)) == 0, "connect");
}

static void serve(enum pm_method method, uint64_t size)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(sa);
	struct worker_plan plan = { .nfds = 1 };
	struct tp_error why;
	char text[500];

	pool_new(&pool, "nfs3", size, method);
	srv.store = pool.st;
	srv.workers = &worker;
	srv.nworkers = 1;
	srv.mounts = mount_list_new();
	srv.fsid = 0x1122334455667788;
	srv.conf.max_conns = 64;
	srv.conf.idle_timeout = 60;
	die_unless(exports_parse(exports_text, "test", &srv.exports, text, sizeof(text)) == 0,
	           text);
	plan.fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	die_unless(bind(plan.fds[0], (struct sockaddr *)&sa, sizeof(sa)) == 0, "bind");
	die_unless(listen(plan.fds[0], 64) == 0, "listen");
	getsockname(plan.fds[0], (struct sockaddr *)&sa, &len);
	die_unless(worker_init(&worker, &srv, 0, &plan) == 0, "worker_init");
	die_unless(worker_start(&worker) == 0, "worker_start");
	die_unless(worker_wait_up(&worker, &why) == 0, why.text);
	out = malloc(OUT_SIZE);
	in = malloc(OUT_SIZE);
	me = (struct tp_cred){ .flavor = AUTH_SYS };
	where = sa;
	dial(&sa);
}

void nfs3fix_stop(void)
{
	close(sock);
	worker_stop(&worker);
	worker_join(&worker);
	pool_close(&pool); /* fails if a pin was left behind */
	worker_fini(&worker);
	pool_drop(&pool);
	exports_free(srv.exports);
	mount_list_free(srv.mounts);
	free(out);
	free(in);
}

void put32(uint8_t **p, uint32_t v)
{
	v = htonl(v);
	memcpy(*p, &v, 4);
	*p += 4;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

static bool read_all(uint8_t *p, size_t n)
{
	while (n) {
		ssize_t got = read(sock, p, n);

		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

int receive(void)
{
	size_t n = 0, last;
	uint8_t *p = in;

	do {
		if (!read_all(p, 4))
			return LOST;
		last = get32(p);
		n = last & 0x7fffffff;
		if (!read_all(p, n))
			return LOST;
		p += n;
	} while (!(last & 0x80000000));
	n = (size_t)(p - in);
	cr_assert_geq(n, 20);
	cr_assert_eq(get32(in), xid);
	cr_assert_eq(get32(in + 4), REPLY);
	if (get32(in + 8) == MSG_DENIED)
		return DENIED + (int)get32(in + 16);
	xdrmem_create(&res, (char *)in + 24, (u_int)(n - 24), XDR_DECODE);
	return (int)get32(in + 20);
}

void post(uint32_t prog, uint32_t proc, size_t n)
{
	uint8_t head[ARGS_AT], *p = head + 4, *mark = head;
	size_t len;

	put32(&p, ++xid);
	put32(&p, CALL);
	put32(&p, 2);
	put32(&p, prog);
	put32(&p, 3);
	put32(&p, proc);
	put32(&p, me.flavor);
	put32(&p, me.flavor == AUTH_SYS ? 20 + 4 * me.ngids : 0);
	if (me.flavor == AUTH_SYS) {
		put32(&p, 0);
		put32(&p, 0);
		put32(&p, me.uid);
		put32(&p, me.gid);
		put32(&p, me.ngids);
		for (uint32_t i = 0; i < me.ngids; i++)
			put32(&p, me.gids[i]);
	}
	put32(&p, AUTH_NONE);
	put32(&p, 0);
	len = (size_t)(p - head);
	put32(&mark, 0x80000000 | (uint32_t)(len - 4 + n));
	memcpy(out + ARGS_AT - len, head, len);
	die_unless(write(sock, out + ARGS_AT - len, len + n) == (ssize_t)(len + n), "write");
}

int go(uint32_t prog, uint32_t proc, size_t n)
{
	post(prog, proc, n);
	return receive();
}

XDR *args(void)
{
	xdrmem_create(&enc, (char *)out + ARGS_AT, OUT_SIZE - ARGS_AT, XDR_ENCODE);
	return &enc;
}

nfs_fh3 wire(const H *h)
{
	return (nfs_fh3){ { FH_SIZE, (char *)(uintptr_t)h->b } };
}

diropargs3 at(const H *dir, const char *name)
{
	return (diropargs3){ wire(dir), { (u_int)strlen(name), (char *)(uintptr_t)name } };
}

mountstat3 mnt(const char *path, H *h)
{
	mntpath3 p = { (u_int)strlen(path), (char *)(uintptr_t)path };
	mountres3 r = { 0 };
	int flavors[8];

	cr_assert(xdr_mntpath3(args(), &p));
	cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_MNT, xdr_getpos(&enc)), SUCCESS);
	r.mountres3_u.mountinfo.fhandle.fhandle3_val = (char *)h->b;
	r.mountres3_u.mountinfo.auth_flavors.auth_flavors_val = flavors;
	cr_assert(xdr_mountres3(&res, &r));
	return r.status;
}

nfsstat3 getattr(const H *h, fattr3 *a)
{
	GETATTR3args q = { wire(h) };
	GETATTR3res r = { 0 };

	NFS(GETATTR, GETATTR3args, &q, GETATTR3res, &r);
	if (a)
		*a = r.GETATTR3res_u.obj_attributes;
	return r.status;
}

nfsstat3 lookup(const H *dir, const char *name, H *h)
{
	LOOKUP3args q = { at(dir, name) };
	LOOKUP3res r = { 0 };
	H none;

	r.LOOKUP3res_u.resok.object.data.data_val = (char *)(h ? h->b : none.b);
	NFS(LOOKUP, LOOKUP3args, &q, LOOKUP3res, &r);
	return r.status;
}

const sattr3 nothing;

sattr3 mode_is(uint32_t mode)
{
	return (sattr3){ .mode = { TRUE, { mode } } };
}

CREATE3res made;
static H made_h;

static CREATE3res *fresh(void)
{
	memset(&made, 0, sizeof(made));
	made.CREATE3res_u.resok.obj.post_op_fh3_u.handle.data.data_val = (char *)made_h.b;
	return &made;
}

static nfsstat3 made_is(H *h)
{
	if (made.status == NFS3_OK) {
		cr_assert(made.CREATE3res_u.resok.obj.handle_follows);
		cr_assert(made.CREATE3res_u.resok.obj_attributes.attributes_follow);
		cr_assert(made.CREATE3res_u.resok.dir_wcc.before.attributes_follow);
		cr_assert(made.CREATE3res_u.resok.dir_wcc.after.attributes_follow);
		if (h)
			*h = made_h;
	}
	return made.status;
}

nfsstat3 create_as(const H *dir, const char *name, createmode3 mode, sattr3 sa, H *h)
{
	CREATE3args q = { at(dir, name), { .mode = mode } };

	q.how.createhow3_u.obj_attributes = sa;
	NFS(CREATE, CREATE3args, &q, CREATE3res, fresh());
	return made_is(h);
}

nfsstat3 create(const H *dir, const char *name, H *h)
{
	return create_as(dir, name, GUARDED, mode_is(0644), h);
}

nfsstat3 create_excl(const H *dir, const char *name, const char verf[8], H *h)
{
	CREATE3args q = { at(dir, name), { .mode = EXCLUSIVE } };

	memcpy(q.how.createhow3_u.verf, verf, 8);
	NFS(CREATE, CREATE3args, &q, CREATE3res, fresh());
	return made_is(h);
}

nfsstat3 mkdir_mode(const H *dir, const char *name, uint32_t mode, H *h)
{
	MKDIR3args q = { at(dir, name), mode_is(mode) };

	NFS(MKDIR, MKDIR3args, &q, CREATE3res, fresh());
	return made_is(h);
}

nfsstat3 symlink_to(const H *dir, const char *name, const char *target, H *h)
{
	SYMLINK3args q = { at(dir, name),
		           { nothing, { (u_int)strlen(target), (char *)(uintptr_t)target } } };

	NFS(SYMLINK, SYMLINK3args, &q, CREATE3res, fresh());
	return made_is(h);
}

nfsstat3 mknod_of(const H *dir, const char *name, ftype3 type, H *h)
{
	MKNOD3args q = { at(dir, name), { .type = type } };

	if (type == NF3CHR || type == NF3BLK)
		q.what.mknoddata3_u.device = (devicedata3){ mode_is(0600), { 7, 300 } };
	else
		q.what.mknoddata3_u.pipe_attributes = mode_is(0600);
	NFS(MKNOD, MKNOD3args, &q, CREATE3res, fresh());
	return made_is(h);
}

REMOVE3res removed;
nfsstat3 remove_name(const H *dir, const char *name)
{
	REMOVE3args q = { at(dir, name) };

	NFS(REMOVE, REMOVE3args, &q, REMOVE3res, &removed);
	return removed.status;
}

nfsstat3 rmdir_name(const H *dir, const char *name)
{
	REMOVE3args q = { at(dir, name) };

	NFS(RMDIR, REMOVE3args, &q, REMOVE3res, &removed);
	return removed.status;
}

RENAME3res renamed;
nfsstat3 rename_name(const H *from, const char *fname, const H *to, const char *tname)
{
	RENAME3args q = { at(from, fname), at(to, tname) };

	NFS(RENAME, RENAME3args, &q, RENAME3res, &renamed);
	return renamed.status;
}

LINK3res linked;
nfsstat3 link_name(const H *file, const H *dir, const char *name)
{
	LINK3args q = { wire(file), at(dir, name) };

	NFS(LINK, LINK3args, &q, LINK3res, &linked);
	return linked.status;
}

SETATTR3res set_res;
nfsstat3 setattr_of(const H *h, sattr3 sa, const nfstime3 *guard)
{
	SETATTR3args q = { wire(h), sa, { .check = guard != NULL } };

	if (guard)
		q.guard.sattrguard3_u.obj_ctime = *guard;
	NFS(SETATTR, SETATTR3args, &q, SETATTR3res, &set_res);
	return set_res.status;
}

uint32_t access_of(const H *h, uint32_t asked)
{
	ACCESS3args q = { wire(h), asked };
	ACCESS3res r = { 0 };

	NFS(ACCESS, ACCESS3args, &q, ACCESS3res, &r);
	cr_assert_eq(r.status, NFS3_OK);
	return r.ACCESS3res_u.resok.access;
}

WRITE3res written;
nfsstat3 write_n(const H *h, uint64_t off, const void *data, uint32_t n, stable_how stable,
                        uint32_t count)
{
	WRITE3head q = { wire(h), off, count, stable };
	char *p = (char *)(uintptr_t)data;

	cr_assert(xdr_WRITE3head(args(), &q) && xdr_bytes(&enc, &p, &n, n));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_WRITE, xdr_getpos(&enc)), SUCCESS);
	cr_assert(xdr_WRITE3res(&res, &written));
	return written.status;
}

nfsstat3 write_at(const H *h, uint64_t off, const void *data, uint32_t n, stable_how stable)
{
	return write_n(h, off, data, n, stable, n);
}

READ3head read_head;
nfsstat3 read_at(const H *h, uint64_t off, uint32_t count, void *buf, uint32_t *got)
{
	READ3args q = { wire(h), off, count };
	char *p = buf;

	NFS(READ, READ3args, &q, READ3head, &read_head);
	if (read_head.status == NFS3_OK) {
		cr_assert(xdr_bytes(&res, &p, got, count));
		cr_assert_eq(*got, read_head.READ3head_u.resok.count);
	}
	return read_head.status;
}

COMMIT3res committed;
nfsstat3 commit(const H *h, uint64_t off, uint32_t n)
{
	COMMIT3args q = { wire(h), off, n };

	NFS(COMMIT, COMMIT3args, &q, COMMIT3res, &committed);
	return committed.status;
}

nfsstat3 readlink_of(const H *h, char *buf, uint32_t *len)
{
	READLINK3args q = { wire(h) };
	READLINK3head r;
	char *p = buf;

	NFS(READLINK, READLINK3args, &q, READLINK3head, &r);
	if (r.status == NFS3_OK)
		cr_assert(xdr_bytes(&res, &p, len, 8192));
	return r.status;
}

void nfs3fix_start(void)
{
	static const char *const dirs[] = { "ro", "sub", "squash", "all", "secure", "far" };

	serve(PM_CLWB, 64 << 20);
	cr_assert_eq(mnt("/", &root), MNT3_OK);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		cr_assert_eq(mkdir_mode(&root, dirs[i], 0777, NULL), NFS3_OK);
}

void nfs3fix_start_msync(void)
{
	serve(PM_MSYNC, 64 << 20);
	cr_assert_eq(mnt("/", &root), MNT3_OK);
}

void be(uint32_t uid, uint32_t gid)
{
	me.uid = uid;
	me.gid = gid;
	me.ngids = 0;
}
