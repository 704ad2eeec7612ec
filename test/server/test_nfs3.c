/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NFS and MOUNT programs over a real worker, a real socket and a real pool: every procedure,
 * what it does and what it refuses. The client below speaks RPC by hand, so that it can also say
 * what is wrong.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/mount3.h"
#include "server/nfs3.h"
#include "server/process.h"
#include "test/lib/pool.h"

/* --- a server in this process, a client beside it --- */

enum {
	DENIED = 100, /* + auth_stat */
	LOST = -1,
	OUT_SIZE = 2 << 20
};

typedef struct {
	uint8_t b[FH_SIZE];
} H;

static const char exports_text[] =
	"/ 127.0.0.1(rw,no_root_squash,insecure)\n"
	"/ro 127.0.0.1(ro,no_root_squash,insecure)\n"
	"/sub 127.0.0.1(rw,no_root_squash,insecure)\n"
	"/squash 127.0.0.1(rw,root_squash,insecure,anonuid=77,anongid=88)\n"
	"/all 127.0.0.1(rw,all_squash,insecure,anonuid=77,anongid=88)\n"
	"/secure 127.0.0.1(rw,no_root_squash,secure)\n"
	"/far 192.0.2.1(rw)\n";

static struct test_pool pool;
static struct server srv;
static struct worker worker;
static struct tp_cred me; /* whom the next call speaks for */
static int sock;
static uint32_t xid;
static uint8_t *out, *in;
static XDR enc, res; /* arguments being made; results of the last call */
static H root;

static void die_unless(bool ok, const char *what)
{
	if (!ok) {
		perror(what);
		abort();
	}
}

static void dial(struct sockaddr_in *sa)
{
	sock = socket(AF_INET, SOCK_STREAM, 0);
	die_unless(connect(sock, (struct sockaddr *)sa, sizeof(*sa)) == 0, "connect");
}

static struct sockaddr_in where;

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

static void stop(void)
{
	close(sock);
	worker_stop(&worker);
	worker_fini(&worker);
	pool_close(&pool); /* fails if a pin was left behind */
	pool_drop(&pool);
	exports_free(srv.exports);
	mount_list_free(srv.mounts);
	free(out);
	free(in);
}

static void put32(uint8_t **p, uint32_t v)
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

#define ARGS_AT 256 /* in @out: behind any header */

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

static int receive(void)
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

/* Call with the @n bytes of arguments at out + ARGS_AT; accept_stat, DENIED + auth_stat, or LOST.
 */
static void post(uint32_t prog, uint32_t proc, size_t n)
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

/* The same and its answer: accept_stat, DENIED + auth_stat, or LOST. */
static int go(uint32_t prog, uint32_t proc, size_t n)
{
	post(prog, proc, n);
	return receive();
}

static XDR *args(void)
{
	xdrmem_create(&enc, (char *)out + ARGS_AT, OUT_SIZE - ARGS_AT, XDR_ENCODE);
	return &enc;
}

/* One whole call that must be accepted, results decoded. */
#define NFS(proc, argt, argp, rest, resp)                                                          \
	do {                                                                                       \
		cr_assert(xdr_##argt(args(), argp));                                               \
		cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_##proc, xdr_getpos(&enc)), SUCCESS);        \
		cr_assert(xdr_##rest(&res, resp), #proc ": results do not decode");                \
	} while (0)

static nfs_fh3 wire(const H *h)
{
	return (nfs_fh3){ { FH_SIZE, (char *)(uintptr_t)h->b } };
}

static diropargs3 at(const H *dir, const char *name)
{
	return (diropargs3){ wire(dir), { (u_int)strlen(name), (char *)(uintptr_t)name } };
}

static mountstat3 mnt(const char *path, H *h)
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

static nfsstat3 getattr(const H *h, fattr3 *a)
{
	GETATTR3args q = { wire(h) };
	GETATTR3res r = { 0 };

	NFS(GETATTR, GETATTR3args, &q, GETATTR3res, &r);
	if (a)
		*a = r.GETATTR3res_u.obj_attributes;
	return r.status;
}

static nfsstat3 lookup(const H *dir, const char *name, H *h)
{
	LOOKUP3args q = { at(dir, name) };
	LOOKUP3res r = { 0 };
	H none;

	r.LOOKUP3res_u.resok.object.data.data_val = (char *)(h ? h->b : none.b);
	NFS(LOOKUP, LOOKUP3args, &q, LOOKUP3res, &r);
	return r.status;
}

static const sattr3 nothing;

static sattr3 mode_is(uint32_t mode)
{
	return (sattr3){ .mode = { TRUE, { mode } } };
}

static CREATE3res made; /* by the last create, mkdir, symlink, mknod */
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

static nfsstat3 create_as(const H *dir, const char *name, createmode3 mode, sattr3 sa, H *h)
{
	CREATE3args q = { at(dir, name), { .mode = mode } };

	q.how.createhow3_u.obj_attributes = sa;
	NFS(CREATE, CREATE3args, &q, CREATE3res, fresh());
	return made_is(h);
}

static nfsstat3 create(const H *dir, const char *name, H *h)
{
	return create_as(dir, name, GUARDED, mode_is(0644), h);
}

static nfsstat3 create_excl(const H *dir, const char *name, const char verf[8], H *h)
{
	CREATE3args q = { at(dir, name), { .mode = EXCLUSIVE } };

	memcpy(q.how.createhow3_u.verf, verf, 8);
	NFS(CREATE, CREATE3args, &q, CREATE3res, fresh());
	return made_is(h);
}

static nfsstat3 mkdir_mode(const H *dir, const char *name, uint32_t mode, H *h)
{
	MKDIR3args q = { at(dir, name), mode_is(mode) };

	NFS(MKDIR, MKDIR3args, &q, CREATE3res, fresh());
	return made_is(h);
}

static nfsstat3 symlink_to(const H *dir, const char *name, const char *target, H *h)
{
	SYMLINK3args q = { at(dir, name),
		           { nothing, { (u_int)strlen(target), (char *)(uintptr_t)target } } };

	NFS(SYMLINK, SYMLINK3args, &q, CREATE3res, fresh());
	return made_is(h);
}

static nfsstat3 mknod_of(const H *dir, const char *name, ftype3 type, H *h)
{
	MKNOD3args q = { at(dir, name), { .type = type } };

	if (type == NF3CHR || type == NF3BLK)
		q.what.mknoddata3_u.device = (devicedata3){ mode_is(0600), { 7, 300 } };
	else
		q.what.mknoddata3_u.pipe_attributes = mode_is(0600);
	NFS(MKNOD, MKNOD3args, &q, CREATE3res, fresh());
	return made_is(h);
}

static REMOVE3res removed;
static nfsstat3 remove_name(const H *dir, const char *name)
{
	REMOVE3args q = { at(dir, name) };

	NFS(REMOVE, REMOVE3args, &q, REMOVE3res, &removed);
	return removed.status;
}

static nfsstat3 rmdir_name(const H *dir, const char *name)
{
	REMOVE3args q = { at(dir, name) };

	NFS(RMDIR, REMOVE3args, &q, REMOVE3res, &removed);
	return removed.status;
}

static RENAME3res renamed;
static nfsstat3 rename_name(const H *from, const char *fname, const H *to, const char *tname)
{
	RENAME3args q = { at(from, fname), at(to, tname) };

	NFS(RENAME, RENAME3args, &q, RENAME3res, &renamed);
	return renamed.status;
}

static LINK3res linked;
static nfsstat3 link_name(const H *file, const H *dir, const char *name)
{
	LINK3args q = { wire(file), at(dir, name) };

	NFS(LINK, LINK3args, &q, LINK3res, &linked);
	return linked.status;
}

static SETATTR3res set_res;
static nfsstat3 setattr_of(const H *h, sattr3 sa, const nfstime3 *guard)
{
	SETATTR3args q = { wire(h), sa, { .check = guard != NULL } };

	if (guard)
		q.guard.sattrguard3_u.obj_ctime = *guard;
	NFS(SETATTR, SETATTR3args, &q, SETATTR3res, &set_res);
	return set_res.status;
}

static uint32_t access_of(const H *h, uint32_t asked)
{
	ACCESS3args q = { wire(h), asked };
	ACCESS3res r = { 0 };

	NFS(ACCESS, ACCESS3args, &q, ACCESS3res, &r);
	cr_assert_eq(r.status, NFS3_OK);
	return r.ACCESS3res_u.resok.access;
}

static WRITE3res written;
static nfsstat3 write_n(const H *h, uint64_t off, const void *data, uint32_t n, stable_how stable,
                        uint32_t count)
{
	WRITE3head q = { wire(h), off, count, stable };
	char *p = (char *)(uintptr_t)data;

	cr_assert(xdr_WRITE3head(args(), &q) && xdr_bytes(&enc, &p, &n, n));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_WRITE, xdr_getpos(&enc)), SUCCESS);
	cr_assert(xdr_WRITE3res(&res, &written));
	return written.status;
}

static nfsstat3 write_at(const H *h, uint64_t off, const void *data, uint32_t n, stable_how stable)
{
	return write_n(h, off, data, n, stable, n);
}

static READ3head head; /* of the last read */
static nfsstat3 read_at(const H *h, uint64_t off, uint32_t count, void *buf, uint32_t *got)
{
	READ3args q = { wire(h), off, count };
	char *p = buf;

	NFS(READ, READ3args, &q, READ3head, &head);
	if (head.status == NFS3_OK) {
		cr_assert(xdr_bytes(&res, &p, got, count));
		cr_assert_eq(*got, head.READ3head_u.resok.count);
	}
	return head.status;
}

static COMMIT3res committed;
static nfsstat3 commit(const H *h, uint64_t off, uint32_t n)
{
	COMMIT3args q = { wire(h), off, n };

	NFS(COMMIT, COMMIT3args, &q, COMMIT3res, &committed);
	return committed.status;
}

static nfsstat3 readlink_of(const H *h, char *buf, uint32_t *len)
{
	READLINK3args q = { wire(h) };
	READLINK3head r;
	char *p = buf;

	NFS(READLINK, READLINK3args, &q, READLINK3head, &r);
	if (r.status == NFS3_OK)
		cr_assert(xdr_bytes(&res, &p, len, 8192));
	return r.status;
}

static void start(void)
{
	static const char *const dirs[] = { "ro", "sub", "squash", "all", "secure", "far" };

	serve(PM_CLWB, 64 << 20);
	cr_assert_eq(mnt("/", &root), MNT3_OK);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		cr_assert_eq(mkdir_mode(&root, dirs[i], 0777, NULL), NFS3_OK);
}

static void start_msync(void)
{
	serve(PM_MSYNC, 64 << 20);
	cr_assert_eq(mnt("/", &root), MNT3_OK);
}

static void be(uint32_t uid, uint32_t gid)
{
	me.uid = uid;
	me.gid = gid;
	me.ngids = 0;
}

TestSuite(nfs3, .init = start, .fini = stop, .timeout = 60);
TestSuite(mount3, .init = start, .fini = stop, .timeout = 60);
TestSuite(nfs3_msync, .init = start_msync, .fini = stop, .timeout = 60);

/* --- MOUNT --- */

static int lists(uint32_t proc)
{
	return go(MOUNT3_PROGRAM, proc, 0);
}

static unsigned dump(char hosts[][64], char paths[][1100])
{
	unsigned n = 0;
	bool_t more;

	cr_assert_eq(lists(MOUNTPROC3_DUMP), SUCCESS);
	for (; xdr_bool(&res, &more) && more; n++) {
		char host[256] = "", path[1100] = "";
		mountentry3 e = { { 0, host }, { 0, path } };

		cr_assert(xdr_mountentry3(&res, &e));
		if (n < 8) {
			strcpy(hosts[n], host);
			strcpy(paths[n], path);
		}
	}
	cr_assert_not(more);
	return n;
}

Test(mount3, null_and_unknown)
{
	cr_assert_eq(lists(MOUNTPROC3_NULL), SUCCESS);
	cr_assert_eq(lists(6), PROC_UNAVAIL);
}

Test(mount3, gives_handles_of_exports_and_of_what_is_below)
{
	H sub, deep, h;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(mkdir_mode(&sub, "deep", 0755, &deep), NFS3_OK);
	cr_assert_eq(mnt("/sub/deep", &h), MNT3_OK);
	cr_assert_arr_eq(h.b, deep.b, FH_SIZE, "a subdirectory belongs to the same export");
	cr_assert_eq(mnt("//sub/.//deep/", &h), MNT3_OK);
	cr_assert_arr_eq(h.b, deep.b, FH_SIZE);
}

Test(mount3, refuses_with_the_error_that_tells)
{
	char longest[600];
	H h;

	cr_assert_eq(create(&root, "file", NULL), NFS3_OK);
	cr_assert_eq(symlink_to(&root, "sym", "sub", NULL), NFS3_OK);
	cr_assert_eq(mnt("/none", &h), MNT3ERR_NOENT);
	cr_assert_eq(mnt("/file", &h), MNT3ERR_NOTDIR);
	cr_assert_eq(mnt("/file/x", &h), MNT3ERR_NOTDIR);
	cr_assert_eq(mnt("/sym", &h), MNT3ERR_NOTDIR);
	cr_assert_eq(mnt("/far", &h), MNT3ERR_ACCES);
	cr_assert_eq(mnt("/secure", &h), MNT3ERR_ACCES);
	cr_assert_eq(mnt("/sub/../far", &h), MNT3ERR_ACCES);
	cr_assert_eq(mnt("sub", &h), MNT3ERR_INVAL);
	cr_assert_eq(mnt("", &h), MNT3ERR_INVAL);
	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	longest[300] = 0;
	cr_assert_eq(mnt(longest, &h), MNT3ERR_NAMETOOLONG);
}

Test(mount3, lists_who_mounted_what)
{
	char hosts[8][64], paths[8][1100];
	mntpath3 p = { 4, (char *)(uintptr_t) "/sub" };
	H h;

	cr_assert_eq(dump(hosts, paths), 1); /* "/", by start() */
	cr_assert_str_eq(hosts[0], "127.0.0.1");
	cr_assert_str_eq(paths[0], "/");
	cr_assert_eq(mnt("/sub", &h), MNT3_OK);
	cr_assert_eq(mnt("/sub/", &h), MNT3_OK);
	cr_assert_eq(mnt("/none", &h), MNT3ERR_NOENT);
	cr_assert_eq(dump(hosts, paths), 2, "the same twice is one line, a refusal none");
	cr_assert_str_eq(paths[1], "/sub");
	cr_assert(xdr_mntpath3(args(), &p));
	cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_UMNT, xdr_getpos(&enc)), SUCCESS);
	cr_assert_eq(dump(hosts, paths), 1);
	cr_assert_eq(lists(MOUNTPROC3_UMNTALL), SUCCESS);
	cr_assert_eq(dump(hosts, paths), 0);
}

Test(mount3, the_list_is_bounded)
{
	char name[300], path[320], hosts[8][64], paths[8][1100];
	unsigned n;
	H h;

	for (unsigned i = 0; i < 1100; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		snprintf(path, sizeof(path), "/%s", name);
		cr_assert_eq(mkdir_mode(&root, name, 0755, NULL), NFS3_OK);
		cr_assert_eq(mnt(path, &h), MNT3_OK);
	}
	n = dump(hosts, paths);
	cr_assert_eq(n, 1024);
	cr_assert_str_eq(paths[0], "/d76", "the oldest left first");
}

Test(mount3, shows_the_exports)
{
	unsigned n = 0, far = 0;
	bool_t more, group;

	cr_assert_eq(lists(MOUNTPROC3_EXPORT), SUCCESS);
	for (; xdr_bool(&res, &more) && more; n++) {
		char path[1100] = "", spec[256] = "";
		mntpath3 p = { 0, path };

		cr_assert(xdr_mntpath3(&res, &p));
		while (xdr_bool(&res, &group) && group) {
			exportgroup3 g = { { 0, spec } };

			cr_assert(xdr_exportgroup3(&res, &g));
		}
		if (strcmp(path, "/far") == 0 && strstr(spec, "192.0.2.1"))
			far++;
	}
	cr_assert_eq(n, 7);
	cr_assert_eq(far, 1);
}

Test(mount3, needs_no_credential)
{
	H h;

	me.flavor = AUTH_NONE;
	cr_assert_eq(mnt("/", &h), MNT3_OK);
	args();
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_NULL, 0), SUCCESS);
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_GETATTR, 0), DENIED + AUTH_TOOWEAK);
}

/* --- handles and exports --- */

Test(nfs3, a_handle_with_a_flipped_bit_is_bad_everywhere)
{
	fattr3 a;
	H h = root;

	for (unsigned bit = 0; bit < 8 * FH_SIZE; bit += 7) {
		h.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(getattr(&h, &a), NFS3ERR_BADHANDLE);
		cr_assert_eq(lookup(&h, "sub", NULL), NFS3ERR_BADHANDLE);
		cr_assert_eq(create(&h, "x", NULL), NFS3ERR_BADHANDLE);
		cr_assert_eq(write_at(&h, 0, "x", 1, FILE_SYNC), NFS3ERR_BADHANDLE);
		cr_assert_eq(rename_name(&root, "a", &h, "b"), NFS3ERR_BADHANDLE);
		h.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
}

Test(nfs3, a_removed_file_is_stale)
{
	uint32_t got;
	char buf[8];
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(remove_name(&root, "f"), NFS3_OK);
	cr_assert_eq(getattr(&h, NULL), NFS3ERR_STALE);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3ERR_STALE);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3ERR_STALE);
	cr_assert_eq(commit(&h, 0, 0), NFS3ERR_STALE);
	cr_assert_eq(create(&root, "g", NULL), NFS3_OK);
	cr_assert_eq(getattr(&h, NULL), NFS3ERR_STALE, "though its inode number is in use again");
}

struct swap {
	struct mail mail;
	const struct exports *ex;
	sem_t done;
};

static void swap_in(struct worker *w, struct mail *m)
{
	struct swap *s = container_of(m, struct swap, mail);

	w->exports = s->ex;
	sem_post(&s->done);
}

static void export_instead(const char *text)
{
	struct swap s = { .mail.deliver = swap_in };
	struct exports *ex;
	char why[300];

	cr_assert_eq(exports_parse(text, "new", &ex, why, sizeof(why)), 0, "%s", why);
	s.ex = ex;
	sem_init(&s.done, 0, 0);
	worker_post(&worker, &s.mail);
	sem_wait(&s.done);
	exports_free(srv.exports);
	srv.exports = ex;
}

Test(nfs3, an_export_that_is_gone_takes_its_handles_along)
{
	H sub;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	export_instead("/ 127.0.0.1(ro,insecure)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3ERR_STALE);
	cr_assert_eq(create(&root, "x", NULL), NFS3ERR_ROFS);
	export_instead("/sub 192.0.2.1(rw)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3ERR_ACCES);
	cr_assert_eq(getattr(&root, NULL), NFS3ERR_STALE);
	export_instead("/sub 127.0.0.1(rw)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3ERR_ACCES, "secure, and our port is not reserved");
	export_instead("/sub 127.0.0.1(rw,insecure)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3_OK, "the same key as before");
}

Test(nfs3, dot_dot_stays_within_the_export)
{
	H sub, dir, deep, h, seen;
	fattr3 a, b;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(mkdir_mode(&sub, "dir", 0755, &dir), NFS3_OK);
	cr_assert_eq(mkdir_mode(&dir, "deep", 0755, &deep), NFS3_OK);
	cr_assert_eq(lookup(&sub, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, sub.b, FH_SIZE);
	cr_assert_eq(lookup(&root, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, root.b, FH_SIZE);
	cr_assert_eq(lookup(&deep, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, dir.b, FH_SIZE);
	cr_assert_eq(lookup(&deep, ".", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, deep.b, FH_SIZE);

	/* Seen through "/", the same directory has another handle, and its parent is the root. */
	cr_assert_eq(lookup(&root, "sub", &seen), NFS3_OK);
	cr_assert_neq(memcmp(seen.b, sub.b, FH_SIZE), 0);
	cr_assert(getattr(&seen, &a) == NFS3_OK && getattr(&sub, &b) == NFS3_OK);
	cr_assert_eq(a.fileid, b.fileid);
	cr_assert_eq(lookup(&seen, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, root.b, FH_SIZE);

	/* Moved out by somebody else: the handle lives, but leads nowhere. */
	cr_assert_eq(rename_name(&seen, "dir", &root, "out"), NFS3_OK);
	cr_assert_eq(lookup(&dir, "..", &h), NFS3ERR_STALE);
	cr_assert_eq(lookup(&deep, "..", &h), NFS3ERR_STALE);
}

Test(nfs3, exports_do_not_mix)
{
	H sub, f;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(rename_name(&root, "f", &sub, "f"), NFS3ERR_XDEV);
	cr_assert_eq(link_name(&f, &sub, "f"), NFS3ERR_XDEV);
}

Test(nfs3, a_read_only_export_refuses_every_change)
{
	char buf[8];
	uint32_t got;
	H ro, via, f, f2;

	cr_assert_eq(lookup(&root, "ro", &via), NFS3_OK);
	cr_assert_eq(create(&via, "f", &f2), NFS3_OK);
	cr_assert_eq(write_at(&f2, 0, "data", 4, FILE_SYNC), NFS3_OK);
	cr_assert_eq(mnt("/ro", &ro), MNT3_OK);
	cr_assert_eq(lookup(&ro, "f", &f), NFS3_OK);
	cr_assert_eq(read_at(&f, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(got, 4);
	cr_assert_eq(setattr_of(&f, mode_is(0), NULL), NFS3ERR_ROFS);
	cr_assert_eq(write_at(&f, 0, "x", 1, UNSTABLE), NFS3ERR_ROFS);
	cr_assert_eq(commit(&f, 0, 0), NFS3ERR_ROFS);
	cr_assert_eq(create(&ro, "x", NULL), NFS3ERR_ROFS);
	cr_assert_eq(mkdir_mode(&ro, "x", 0755, NULL), NFS3ERR_ROFS);
	cr_assert_eq(symlink_to(&ro, "x", "y", NULL), NFS3ERR_ROFS);
	cr_assert_eq(mknod_of(&ro, "x", NF3FIFO, NULL), NFS3ERR_ROFS);
	cr_assert_eq(remove_name(&ro, "f"), NFS3ERR_ROFS);
	cr_assert_eq(rmdir_name(&ro, "f"), NFS3ERR_ROFS);
	cr_assert_eq(rename_name(&ro, "f", &ro, "g"), NFS3ERR_ROFS);
	cr_assert_eq(link_name(&f, &ro, "g"), NFS3ERR_ROFS);
	cr_assert_eq(access_of(&f, 0x3f), ACCESS3_READ);
}

Test(nfs3, squashed_callers_are_who_the_export_says)
{
	fattr3 a;
	H sq, all, h;

	cr_assert_eq(mnt("/squash", &sq), MNT3_OK);
	cr_assert_eq(mnt("/all", &all), MNT3_OK);
	cr_assert_eq(create(&sq, "by-root", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 77 && a.gid == 88);
	cr_assert_eq(mknod_of(&sq, "dev", NF3CHR, NULL), NFS3ERR_PERM);
	be(5, 6);
	cr_assert_eq(create(&sq, "by-5", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 5 && a.gid == 6);
	cr_assert_eq(create(&all, "by-5", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 77 && a.gid == 88);
}

/* --- attributes --- */

Test(nfs3, getattr_tells_all)
{
	H h, dev;
	fattr3 a;

	be(12, 34);
	cr_assert_eq(lookup(&root, "sub", &h), NFS3_OK);
	cr_assert_eq(create_as(&h, "f", UNCHECKED, mode_is(0640), &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 5000, "xyz", 3, FILE_SYNC), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.type == NF3REG && a.mode == 0640 && a.nlink == 1 && a.uid == 12 && a.gid == 34);
	cr_assert_eq(a.size, 5003);
	cr_assert(a.used > 0 && a.used <= 8192);
	cr_assert_eq(a.fsid, srv.fsid);
	cr_assert(a.mtime.seconds > 1600000000 && a.mtime.nseconds < 1000000000);
	be(0, 0);
	cr_assert_eq(mknod_of(&root, "dev", NF3BLK, &dev), NFS3_OK);
	cr_assert_eq(getattr(&dev, &a), NFS3_OK);
	cr_assert(a.type == NF3BLK && a.rdev.specdata1 == 7 && a.rdev.specdata2 == 300);
}

Test(nfs3, times_beyond_the_wire_are_clamped)
{
	struct pm_setattr sa = { .set = PM_SET_MTIME | PM_SET_ATIME,
		                 .mtime = { 1ll << 33, 5 },
		                 .atime = { -10, 5 } };
	struct pm_change ch;
	struct fh fh;
	fattr3 a;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(fh_parse(&srv, h.b, FH_SIZE, &fh), 0);
	cr_assert_eq(pm_setattr(pool.st, fh.id, &sa, &ch), 0);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mtime.seconds, UINT32_MAX);
	cr_assert(a.atime.seconds == 0 && a.atime.nseconds == 0);
}

Test(nfs3, setattr_sets)
{
	sattr3 sa = { .mode = { TRUE, { 0751 } },
		      .uid = { TRUE, { 9 } },
		      .gid = { TRUE, { 8 } },
		      .size = { TRUE, { 10000 } },
		      .atime = { SET_TO_CLIENT_TIME, { { 0xfffffff0, 999999999 } } },
		      .mtime = { SET_TO_CLIENT_TIME, { { 123, 456 } } } };
	fattr3 a, before;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &before), NFS3_OK);
	cr_assert_eq(setattr_of(&h, sa, NULL), NFS3_OK);
	cr_assert(set_res.obj_wcc.before.attributes_follow);
	cr_assert_eq(set_res.obj_wcc.before.pre_op_attr_u.attributes.size, 0);
	cr_assert_eq(
		memcmp(&set_res.obj_wcc.before.pre_op_attr_u.attributes.ctime, &before.ctime, 8),
		0);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(memcmp(&a, &set_res.obj_wcc.after.post_op_attr_u.attributes, sizeof(a)), 0);
	cr_assert(a.mode == 0751 && a.uid == 9 && a.gid == 8 && a.size == 10000);
	cr_assert(a.atime.seconds == 0xfffffff0 && a.atime.nseconds == 999999999);
	cr_assert(a.mtime.seconds == 123 && a.mtime.nseconds == 456);
	sa = (sattr3){ .mtime = { .set_it = SET_TO_SERVER_TIME } };
	cr_assert_eq(setattr_of(&h, sa, NULL), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_gt(a.mtime.seconds, 1600000000);
	cr_assert_eq(setattr_of(&h, nothing, NULL), NFS3_OK);
}

Test(nfs3, setattr_is_guarded_by_ctime)
{
	nfstime3 old;
	fattr3 a;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	old = a.ctime;
	cr_assert_eq(setattr_of(&h, mode_is(0600), &old), NFS3_OK);
	cr_assert_eq(setattr_of(&h, mode_is(0601), &old), NFS3ERR_NOT_SYNC);
	cr_assert(set_res.obj_wcc.after.attributes_follow);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mode, 0600);
}

Test(nfs3, setattr_refuses_what_makes_no_sense)
{
	sattr3 ns = { .atime = { SET_TO_CLIENT_TIME, { { 1, 1000000000 } } } };
	sattr3 now = { .atime = { SET_TO_CLIENT_TIME, { { 1, UTIME_NOW } } } };
	sattr3 huge = { .size = { TRUE, { UINT64_MAX } } };
	sattr3 size = { .size = { TRUE, { 1 } } };
	H h, dir, fifo;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	cr_assert_eq(mknod_of(&root, "p", NF3FIFO, &fifo), NFS3_OK);
	cr_assert_eq(setattr_of(&h, ns, NULL), NFS3ERR_INVAL);
	cr_assert_eq(setattr_of(&h, now, NULL), NFS3ERR_INVAL);
	cr_assert_eq(setattr_of(&h, huge, NULL), NFS3ERR_FBIG);
	cr_assert_eq(setattr_of(&dir, size, NULL), NFS3ERR_ISDIR);
	cr_assert_eq(setattr_of(&fifo, size, NULL), NFS3ERR_INVAL);
	be(3, 3);
	cr_assert_eq(setattr_of(&h, mode_is(0777), NULL), NFS3ERR_PERM);
	cr_assert_eq(setattr_of(&h, size, NULL), NFS3ERR_ACCES);
}

Test(nfs3, a_write_takes_set_id_bits_away)
{
	fattr3 a;
	H dir, h;

	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	be(3, 3);
	cr_assert_eq(create_as(&dir, "f", GUARDED, mode_is(06755), &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mode, 06755);
	cr_assert_eq(write_at(&h, 0, "x", 1, FILE_SYNC), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mode, 0755);
}

Test(nfs3, access_by_mode_and_groups)
{
	H h;

	cr_assert_eq(create_as(&root, "f", GUARDED,
	                       (sattr3){ .mode = { TRUE, { 0640 } },
	                                 .uid = { TRUE, { 5 } },
	                                 .gid = { TRUE, { 50 } } },
	                       &h),
	             NFS3_OK);
	cr_assert_eq(access_of(&h, 0x3f), ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND);
	be(5, 1);
	cr_assert_eq(access_of(&h, 0x3f), ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND);
	be(6, 1);
	cr_assert_eq(access_of(&h, 0x3f), 0);
	me.ngids = 3;
	me.gids[2] = 50;
	cr_assert_eq(access_of(&h, 0x3f), ACCESS3_READ);
}

Test(nfs3, fsstat_fsinfo_pathconf_tell_the_truth)
{
	FSSTAT3args sq = { wire(&root) };
	FSINFO3args iq = { wire(&root) };
	PATHCONF3args pq = { wire(&root) };
	FSSTAT3res s1, s2;
	FSINFO3res i;
	PATHCONF3res p;
	static char mib[1 << 20];
	H h;

	NFS(FSSTAT, FSSTAT3args, &sq, FSSTAT3res, &s1);
	cr_assert_eq(s1.status, NFS3_OK);
	cr_assert_leq(s1.FSSTAT3res_u.resok.tbytes, 64 << 20);
	cr_assert_gt(s1.FSSTAT3res_u.resok.tbytes, 32 << 20);
	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, mib, sizeof(mib), FILE_SYNC), NFS3_OK);
	NFS(FSSTAT, FSSTAT3args, &sq, FSSTAT3res, &s2);
	cr_assert_eq(s1.FSSTAT3res_u.resok.tbytes, s2.FSSTAT3res_u.resok.tbytes);
	cr_assert_geq(s1.FSSTAT3res_u.resok.fbytes - s2.FSSTAT3res_u.resok.fbytes, sizeof(mib));
	cr_assert_leq(s1.FSSTAT3res_u.resok.fbytes - s2.FSSTAT3res_u.resok.fbytes,
	              sizeof(mib) + 65536);

	NFS(FSINFO, FSINFO3args, &iq, FSINFO3res, &i);
	cr_assert_eq(i.status, NFS3_OK);
	cr_assert_eq(i.FSINFO3res_u.resok.wtmax, 1 << 20);
	cr_assert_eq(i.FSINFO3res_u.resok.rtmax, 1 << 20);
	cr_assert_eq(i.FSINFO3res_u.resok.dtpref, 65536);
	cr_assert_eq(i.FSINFO3res_u.resok.maxfilesize, PM_FILE_MAX);
	cr_assert_eq(i.FSINFO3res_u.resok.time_delta.nseconds, 1);
	cr_assert_eq(i.FSINFO3res_u.resok.properties, 0x1b);

	NFS(PATHCONF, PATHCONF3args, &pq, PATHCONF3res, &p);
	cr_assert_eq(p.status, NFS3_OK);
	cr_assert_eq(p.PATHCONF3res_u.resok.name_max, 255);
	cr_assert_eq(p.PATHCONF3res_u.resok.linkmax, PM_LINK_MAX);
	cr_assert(p.PATHCONF3res_u.resok.no_trunc && p.PATHCONF3res_u.resok.chown_restricted);
	cr_assert(p.PATHCONF3res_u.resok.case_preserving &&
	          !p.PATHCONF3res_u.resok.case_insensitive);
}

/* --- data --- */

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (uint8_t)(seed >> 16);
	}
}

Test(nfs3, what_is_written_is_read)
{
	static const struct {
		uint64_t off;
		uint32_t len;
	} at_[] = { { 0, 1 },          { 1, 4096 },         { 4095, 2 }, { 100000, 1 << 20 },
		    { 123457, 77777 }, { 1ull << 40, 4097 } };
	static uint8_t data[1 << 20], back[1 << 20];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	for (size_t i = 0; i < sizeof(at_) / sizeof(at_[0]); i++) {
		fill(data, at_[i].len, (unsigned)i);
		cr_assert_eq(write_at(&h, at_[i].off, data, at_[i].len, (stable_how)(i % 3)),
		             NFS3_OK);
		cr_assert_eq(written.WRITE3res_u.resok.count, at_[i].len);
		cr_assert_geq(written.WRITE3res_u.resok.committed, i % 3);
		cr_assert(written.WRITE3res_u.resok.file_wcc.before.attributes_follow);
		cr_assert(written.WRITE3res_u.resok.file_wcc.after.attributes_follow);
		cr_assert_eq(read_at(&h, at_[i].off, at_[i].len, back, &got), NFS3_OK);
		cr_assert_eq(got, at_[i].len);
		cr_assert_arr_eq(back, data, got);
	}
	cr_assert(head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, 1 << 22, 4096, back, &got), NFS3_OK);
	for (uint32_t i = 0; i < got; i++)
		cr_assert_eq(back[i], 0, "a hole");
	cr_assert_eq(got, 4096);
	cr_assert_not(head.READ3head_u.resok.eof);
}

Test(nfs3, reads_at_and_behind_the_end)
{
	char buf[16];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(read_at(&h, 0, 16, buf, &got), NFS3_OK);
	cr_assert(got == 0 && head.READ3head_u.resok.eof);
	cr_assert_eq(write_at(&h, 0, "0123456789", 10, FILE_SYNC), NFS3_OK);
	cr_assert_eq(read_at(&h, 4, 16, buf, &got), NFS3_OK);
	cr_assert(got == 6 && head.READ3head_u.resok.eof && memcmp(buf, "456789", 6) == 0);
	cr_assert_eq(read_at(&h, 4, 6, buf, &got), NFS3_OK);
	cr_assert(got == 6 && head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, 4, 5, buf, &got), NFS3_OK);
	cr_assert(got == 5 && !head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, 4, 0, buf, &got), NFS3_OK);
	cr_assert_eq(got, 0);
	cr_assert_eq(read_at(&h, 10, 1, buf, &got), NFS3_OK);
	cr_assert(got == 0 && head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, UINT64_MAX, 16, buf, &got), NFS3_OK);
	cr_assert(got == 0 && head.READ3head_u.resok.eof);
}

Test(nfs3, writes_near_the_end_of_numbers_are_too_big)
{
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, UINT64_MAX, "abcd", 4, FILE_SYNC), NFS3ERR_FBIG);
	cr_assert_eq(write_at(&h, UINT64_MAX - 3, "abcd", 4, FILE_SYNC), NFS3ERR_FBIG);
	cr_assert_eq(write_at(&h, PM_FILE_MAX - 3, "abcd", 4, FILE_SYNC), NFS3ERR_FBIG);
	cr_assert_eq(write_at(&h, PM_FILE_MAX - 4, "abcd", 4, FILE_SYNC), NFS3_OK);
	cr_assert_eq(commit(&h, UINT64_MAX, 2), NFS3ERR_INVAL);
	cr_assert_eq(commit(&h, 0, 0), NFS3_OK);
}

Test(nfs3, a_write_of_nothing_changes_nothing)
{
	fattr3 a, b;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(write_at(&h, 100, "", 0, FILE_SYNC), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.count, 0);
	cr_assert_eq(getattr(&h, &b), NFS3_OK);
	cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0);
}

Test(nfs3, count_and_data_of_a_write_must_agree)
{
	char buf[8];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_n(&h, 0, "abcd", 4, FILE_SYNC, 5), NFS3ERR_INVAL);
	cr_assert_eq(write_n(&h, 0, "abcd", 4, FILE_SYNC, 3), NFS3ERR_INVAL);
	cr_assert_eq(write_n(&h, 0, "abcd", 4, FILE_SYNC, UINT32_MAX), NFS3ERR_INVAL);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(got, 0);
}

Test(nfs3, data_calls_want_regular_files)
{
	char buf[8];
	uint32_t got;
	H l, d;

	cr_assert_eq(symlink_to(&root, "l", "x", &l), NFS3_OK);
	cr_assert_eq(lookup(&root, "sub", &d), NFS3_OK);
	cr_assert_eq(read_at(&d, 0, 8, buf, &got), NFS3ERR_ISDIR);
	cr_assert_eq(read_at(&l, 0, 8, buf, &got), NFS3ERR_INVAL);
	cr_assert_eq(write_at(&d, 0, "x", 1, UNSTABLE), NFS3ERR_ISDIR);
	cr_assert_eq(write_at(&l, 0, "x", 1, UNSTABLE), NFS3ERR_INVAL);
	cr_assert_eq(commit(&d, 0, 0), NFS3ERR_ISDIR);
}

Test(nfs3, data_calls_check_permission)
{
	char buf[8];
	uint32_t got;
	H dir, h;

	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create_as(&dir, "f", GUARDED, mode_is(0), &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3_OK,
	             "the owner wrote through an open file");
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(setattr_of(&h, mode_is(0711), NULL), NFS3_OK);
	be(6, 6);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3ERR_ACCES);
	cr_assert_eq(write_at(&h, 0, "", 0, UNSTABLE), NFS3ERR_ACCES);
	cr_assert_eq(commit(&h, 0, 0), NFS3ERR_ACCES);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK, "who may execute may read");
	be(5, 5);
	cr_assert_eq(setattr_of(&h, mode_is(0700), NULL), NFS3_OK);
	be(6, 6);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3ERR_ACCES);
}

Test(nfs3, cheap_persistence_answers_file_sync_at_once)
{
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, FILE_SYNC);
}

Test(nfs3, a_configured_server_honors_what_was_asked)
{
	H h;

	srv.conf.stability = STABILITY_HONOR;
	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, UNSTABLE);
	cr_assert_eq(commit(&h, 0, 0), NFS3_OK);
	cr_assert_arr_eq(committed.COMMIT3res_u.resok.verf, written.WRITE3res_u.resok.verf, 8);
	cr_assert_eq(write_at(&h, 0, "x", 1, FILE_SYNC), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, FILE_SYNC);
}

Test(nfs3, a_full_pool_says_so_and_recovers)
{
	static uint8_t mib[1 << 20];
	char buf[8];
	uint32_t got;
	nfsstat3 stat = NFS3_OK;
	uint64_t off = 0;
	H h, first;

	cr_assert_eq(create(&root, "first", &first), NFS3_OK);
	cr_assert_eq(write_at(&first, 0, "precious", 8, FILE_SYNC), NFS3_OK);
	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	for (; stat == NFS3_OK && off < 100 << 20; off += sizeof(mib))
		stat = write_at(&h, off, mib, sizeof(mib), UNSTABLE);
	cr_assert_eq(stat, NFS3ERR_NOSPC);
	cr_assert(written.WRITE3res_u.resfail.file_wcc.after.attributes_follow);
	cr_assert_eq(read_at(&first, 0, 8, buf, &got), NFS3_OK);
	cr_assert_arr_eq(buf, "precious", 8);
	cr_assert_eq(remove_name(&root, "f"), NFS3_OK);
	cr_assert_eq(create(&root, "g", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, mib, sizeof(mib), UNSTABLE), NFS3_OK);
}

Test(nfs3, symbolic_links)
{
	char longest[4097], back[4097];
	uint32_t got;
	fattr3 a;
	H l, f;

	cr_assert_eq(symlink_to(&root, "l", "some/where", &l), NFS3_OK);
	cr_assert_eq(readlink_of(&l, back, &got), NFS3_OK);
	cr_assert(got == 10 && memcmp(back, "some/where", 10) == 0);
	cr_assert_eq(getattr(&l, &a), NFS3_OK);
	cr_assert(a.type == NF3LNK && a.size == 10 && a.mode == 0777);
	memset(longest, 't', sizeof(longest));
	longest[4096] = 0;
	cr_assert_eq(symlink_to(&root, "toolong", longest, NULL), NFS3ERR_NAMETOOLONG);
	longest[4095] = 0;
	cr_assert_eq(symlink_to(&root, "long", longest, &l), NFS3_OK);
	cr_assert_eq(readlink_of(&l, back, &got), NFS3_OK);
	cr_assert_eq(got, 4095);
	cr_assert_arr_eq(back, longest, 4095);
	cr_assert_eq(symlink_to(&root, "empty", "", NULL), NFS3ERR_INVAL);
	cr_assert_eq(symlink_to(&root, "l", "again", NULL), NFS3ERR_EXIST);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(readlink_of(&f, back, &got), NFS3ERR_INVAL);
}

/* --- names --- */

Test(nfs3, create_modes)
{
	sattr3 cut = { .mode = { TRUE, { 0777 } }, .size = { TRUE, { 0 } } };
	fattr3 a;
	H h, h2;

	cr_assert_eq(create_as(&root, "f", UNCHECKED, mode_is(0604), &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "data", 4, FILE_SYNC), NFS3_OK);
	cr_assert_eq(create_as(&root, "f", GUARDED, mode_is(0644), &h2), NFS3ERR_EXIST);
	cr_assert(made.CREATE3res_u.resfail.dir_wcc.after.attributes_follow);
	cr_assert_eq(create_as(&root, "f", UNCHECKED, mode_is(0777), &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.size == 4 && a.mode == 0604, "an existing file keeps what it has");
	cr_assert_eq(create_as(&root, "f", UNCHECKED, cut, &h2), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.size == 0 && a.mode == 0604, "but for its length");
	cr_assert_eq(create_as(&root, "sub", UNCHECKED, nothing, NULL), NFS3ERR_EXIST);
}

Test(nfs3, unchecked_create_needs_permission_only_for_what_it_does)
{
	sattr3 cut = { .size = { TRUE, { 0 } } };
	H h;

	cr_assert_eq(create_as(&root, "f", GUARDED, mode_is(0644), &h), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create_as(&root, "f", UNCHECKED, nothing, NULL), NFS3_OK,
	             "open without O_TRUNC");
	cr_assert_eq(create_as(&root, "f", UNCHECKED, cut, NULL), NFS3ERR_ACCES);
	cr_assert_eq(create_as(&root, "g", UNCHECKED, nothing, NULL), NFS3ERR_ACCES);
	cr_assert_eq(create_as(&root, "f", GUARDED, nothing, NULL), NFS3ERR_EXIST);
}

Test(nfs3, exclusive_create_can_be_repeated_by_the_same)
{
	H h, h2;

	cr_assert_eq(create_excl(&root, "f", "verifier", &h), NFS3_OK);
	cr_assert_eq(create_excl(&root, "f", "verifier", &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(create_excl(&root, "f", "somebody", &h2), NFS3ERR_EXIST);
}

Test(nfs3, bad_names_get_the_error_of_their_procedure)
{
	static char too_long[257];
	static const struct {
		const char *name;
		nfsstat3 look, make, gone, gonedir, move;
	} cases[] = {
		{ "", NFS3ERR_ACCES, NFS3ERR_ACCES, NFS3ERR_ACCES, NFS3ERR_ACCES, NFS3ERR_ACCES },
		{ "a/b", NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL,
		  NFS3ERR_INVAL },
		{ "/", NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL },
		{ ".", NFS3_OK, NFS3ERR_EXIST, NFS3ERR_ACCES, NFS3ERR_INVAL, NFS3ERR_INVAL },
		{ "..", NFS3_OK, NFS3ERR_EXIST, NFS3ERR_ACCES, NFS3ERR_EXIST, NFS3ERR_INVAL },
		{ too_long, NFS3ERR_NAMETOOLONG, NFS3ERR_NAMETOOLONG, NFS3ERR_NAMETOOLONG,
		  NFS3ERR_NAMETOOLONG, NFS3ERR_NAMETOOLONG },
		{ "none", NFS3ERR_NOENT, NFS3_OK, NFS3_OK, NFS3ERR_NOENT, NFS3ERR_NOENT },
	};
	H f, d;

	memset(too_long, 'n', 256);
	cr_assert_eq(lookup(&root, "sub", &d), NFS3_OK);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *n = cases[i].name;

		cr_assert_eq(lookup(&d, n, NULL), cases[i].look, "%zu", i);
		cr_assert_eq(create(&d, n, NULL), cases[i].make, "%zu", i);
		cr_assert_eq(remove_name(&d, n), cases[i].gone, "%zu", i);
		cr_assert_eq(mkdir_mode(&d, n, 0755, NULL), cases[i].make, "%zu", i);
		cr_assert_eq(cases[i].make == NFS3_OK ? rmdir_name(&d, n) : NFS3_OK, NFS3_OK, "%zu",
		             i);
		cr_assert_eq(rmdir_name(&d, n), cases[i].gonedir, "%zu", i);
		cr_assert_eq(symlink_to(&d, n, "t", NULL), cases[i].make, "%zu", i);
		cr_assert_eq(cases[i].make == NFS3_OK ? remove_name(&d, n) : NFS3_OK, NFS3_OK,
		             "%zu", i);
		cr_assert_eq(mknod_of(&d, n, NF3FIFO, NULL), cases[i].make, "%zu", i);
		cr_assert_eq(cases[i].make == NFS3_OK ? remove_name(&d, n) : NFS3_OK, NFS3_OK,
		             "%zu", i);
		cr_assert_eq(rename_name(&d, n, &d, "m"), cases[i].move, "%zu", i);
		if (cases[i].make != NFS3_OK) {
			cr_assert_eq(rename_name(&root, "f", &d, n), cases[i].move, "%zu", i);
			cr_assert_eq(link_name(&f, &d, n), cases[i].make, "%zu", i);
		}
	}
}

Test(nfs3, a_nul_in_a_name_is_seen)
{
	LOOKUP3args q = { { wire(&root), { 7, (char *)(uintptr_t) "sub\0sub" } } };
	LOOKUP3res r = { 0 };

	NFS(LOOKUP, LOOKUP3args, &q, LOOKUP3res, &r);
	cr_assert_eq(r.status, NFS3ERR_INVAL);
}

Test(nfs3, names_of_any_bytes_and_of_255)
{
	char name[256], odd[] = "\x01\xff\n \\*\"'\xc3\x28";
	H h, h2;

	memset(name, 0xe4, 255);
	name[255] = 0;
	cr_assert_eq(create(&root, name, &h), NFS3_OK);
	cr_assert_eq(lookup(&root, name, &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(create(&root, odd, &h), NFS3_OK);
	cr_assert_eq(rename_name(&root, odd, &root, name), NFS3_OK);
	cr_assert_eq(lookup(&root, name, &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(lookup(&root, odd, NULL), NFS3ERR_NOENT);
}

Test(nfs3, what_is_no_directory_holds_no_names)
{
	H f;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(lookup(&f, "x", NULL), NFS3ERR_NOTDIR);
	cr_assert_eq(create(&f, "x", NULL), NFS3ERR_NOTDIR);
	cr_assert_eq(mkdir_mode(&f, "x", 0755, NULL), NFS3ERR_NOTDIR);
	cr_assert_eq(remove_name(&f, "x"), NFS3ERR_NOTDIR);
	cr_assert_eq(rename_name(&root, "f", &f, "x"), NFS3ERR_NOTDIR);
	cr_assert_eq(link_name(&f, &f, "x"), NFS3ERR_NOTDIR);
}

Test(nfs3, remove_and_rmdir)
{
	H d;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(create(&d, "f", NULL), NFS3_OK);
	cr_assert_eq(rmdir_name(&root, "d"), NFS3ERR_NOTEMPTY);
	cr_assert_eq(remove_name(&root, "d"), NFS3ERR_ISDIR);
	cr_assert_eq(rmdir_name(&d, "f"), NFS3ERR_NOTDIR);
	cr_assert_eq(remove_name(&d, "f"), NFS3_OK);
	cr_assert(removed.dir_wcc.before.attributes_follow &&
	          removed.dir_wcc.after.attributes_follow);
	cr_assert_eq(remove_name(&d, "f"), NFS3ERR_NOENT);
	cr_assert_eq(rmdir_name(&root, "d"), NFS3_OK);
	cr_assert_eq(create(&d, "x", NULL), NFS3ERR_STALE);
}

Test(nfs3, sticky_directories)
{
	H d, h;

	cr_assert_eq(mkdir_mode(&root, "tmp", 01777, &d), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create(&d, "five", &h), NFS3_OK);
	be(6, 6);
	cr_assert_eq(create(&d, "six", &h), NFS3_OK);
	cr_assert_eq(remove_name(&d, "five"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&d, "five", &d, "x"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&d, "six", &d, "five"), NFS3ERR_ACCES);
	cr_assert_eq(remove_name(&d, "six"), NFS3_OK);
	be(5, 5);
	cr_assert_eq(remove_name(&d, "five"), NFS3_OK);
}

Test(nfs3, changes_need_a_writable_directory)
{
	H f;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create(&root, "x", NULL), NFS3ERR_ACCES);
	cr_assert_eq(mkdir_mode(&root, "x", 0755, NULL), NFS3ERR_ACCES);
	cr_assert_eq(symlink_to(&root, "x", "t", NULL), NFS3ERR_ACCES);
	cr_assert_eq(mknod_of(&root, "x", NF3FIFO, NULL), NFS3ERR_ACCES);
	cr_assert_eq(remove_name(&root, "f"), NFS3ERR_ACCES);
	cr_assert_eq(rmdir_name(&root, "sub"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&root, "f", &root, "g"), NFS3ERR_ACCES);
	cr_assert_eq(link_name(&f, &root, "g"), NFS3ERR_ACCES);
}

Test(nfs3, a_closed_directory_is_not_searched)
{
	H d;

	cr_assert_eq(mkdir_mode(&root, "d", 0700, &d), NFS3_OK);
	cr_assert_eq(create(&d, "f", NULL), NFS3_OK);
	be(5, 5);
	cr_assert_eq(lookup(&d, "f", NULL), NFS3ERR_ACCES);
	cr_assert_eq(lookup(&d, "none", NULL), NFS3ERR_ACCES);
}

Test(nfs3, rename_as_the_rfc_says)
{
	fattr3 a;
	H d, e, f, g, h;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "e", 0755, &e), NFS3_OK);
	cr_assert_eq(create(&d, "f", &f), NFS3_OK);
	cr_assert_eq(create(&e, "g", &g), NFS3_OK);
	cr_assert_eq(rename_name(&d, "f", &e, "g"), NFS3_OK);
	cr_assert(renamed.fromdir_wcc.before.attributes_follow &&
	          renamed.todir_wcc.before.attributes_follow);
	cr_assert(renamed.fromdir_wcc.after.attributes_follow &&
	          renamed.todir_wcc.after.attributes_follow);
	cr_assert_eq(getattr(&g, NULL), NFS3ERR_STALE);
	cr_assert_eq(lookup(&e, "g", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, f.b, FH_SIZE);
	cr_assert_eq(rename_name(&root, "e", &d, "e"), NFS3_OK);
	cr_assert_eq(lookup(&e, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, d.b, FH_SIZE);
	cr_assert_eq(getattr(&d, &a), NFS3_OK);
	cr_assert_eq(a.nlink, 3);
	cr_assert_eq(rename_name(&root, "d", &e, "d"), NFS3ERR_INVAL, "into its own subtree");
	cr_assert_eq(rename_name(&d, "none", &d, "x"), NFS3ERR_NOENT);
	cr_assert_neq(rename_name(&e, "g", &root, "d"), NFS3_OK, "a file over a directory");
	cr_assert_neq(rename_name(&root, "d", &e, "g"), NFS3_OK, "a directory over a file");
	cr_assert_neq(rename_name(&root, "sub", &root, "d"), NFS3_OK, "over a directory in use");
}

Test(nfs3, a_directory_moves_only_with_write_permission_on_itself)
{
	H d, e;

	cr_assert_eq(mkdir_mode(&root, "d", 0777, &d), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "e", 0777, &e), NFS3_OK);
	cr_assert_eq(mkdir_mode(&d, "x", 0755, NULL), NFS3_OK);
	be(5, 5);
	cr_assert_eq(rename_name(&d, "x", &e, "x"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&d, "x", &d, "y"), NFS3_OK);
}

Test(nfs3, hard_links)
{
	fattr3 a;
	H f, h, d;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(lookup(&root, "sub", &d), NFS3_OK);
	cr_assert_eq(link_name(&f, &d, "g"), NFS3_OK);
	cr_assert(linked.file_attributes.attributes_follow);
	cr_assert_eq(linked.file_attributes.post_op_attr_u.attributes.nlink, 2);
	cr_assert(linked.linkdir_wcc.before.attributes_follow &&
	          linked.linkdir_wcc.after.attributes_follow);
	cr_assert_eq(lookup(&d, "g", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, f.b, FH_SIZE);
	cr_assert_eq(link_name(&f, &d, "g"), NFS3ERR_EXIST);
	cr_assert_eq(link_name(&d, &d, "d"), NFS3ERR_ISDIR);
	cr_assert_eq(remove_name(&root, "f"), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.nlink, 1);
}

Test(nfs3, special_nodes)
{
	static const ftype3 good[] = { NF3CHR, NF3BLK, NF3SOCK, NF3FIFO };
	static const ftype3 bad[] = { NF3REG, NF3DIR, NF3LNK, 0, 8 };
	char name[8];
	fattr3 a;
	H h;

	for (size_t i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "n%zu", i);
		cr_assert_eq(mknod_of(&root, name, good[i], &h), NFS3_OK);
		cr_assert_eq(getattr(&h, &a), NFS3_OK);
		cr_assert_eq(a.type, good[i]);
	}
	for (size_t i = 0; i < 5; i++)
		cr_assert_eq(mknod_of(&root, "bad", bad[i], NULL), NFS3ERR_BADTYPE);
	be(5, 5);
	cr_assert_eq(lookup(&root, "sub", &h), NFS3_OK);
	cr_assert_eq(mknod_of(&h, "dev", NF3CHR, NULL), NFS3ERR_PERM);
	cr_assert_eq(mknod_of(&h, "fifo", NF3FIFO, NULL), NFS3_OK);
}

Test(nfs3, set_group_id_directories_hand_their_group_down)
{
	fattr3 a;
	H d, h;

	cr_assert_eq(mkdir_mode(&root, "d", 0777, &d), NFS3_OK);
	cr_assert_eq(setattr_of(&d,
	                        (sattr3){ .mode = { TRUE, { 02777 } }, .gid = { TRUE, { 50 } } },
	                        NULL),
	             NFS3_OK);
	be(5, 5);
	cr_assert_eq(create(&d, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 5 && a.gid == 50 && a.mode == 0644);
	cr_assert_eq(mkdir_mode(&d, "e", 0755, &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.gid == 50 && a.mode == 02755);
}

/* --- listings --- */

struct listed {
	unsigned n, dots, attrs, handles;
	uint64_t last, dot, dotdot; /* cookie; fileids */
	char verf[8];
	bool eof;
	size_t bytes;       /* of the last reply */
	uint8_t seen[2000]; /* of names "f%u" */
};

static void take_entry(struct listed *l, uint64_t fileid, const filename3 *name, uint64_t cookie)
{
	char text[256] = "";
	unsigned i;

	memcpy(text, name->filename3_val, name->filename3_len);
	l->n++;
	l->last = cookie;
	if (strcmp(text, ".") == 0)
		l->dot = fileid, l->dots++;
	else if (strcmp(text, "..") == 0)
		l->dotdot = fileid, l->dots++;
	else if (sscanf(text, "f%u", &i) == 1 && i < sizeof(l->seen))
		l->seen[i]++;
}

static nfsstat3 take_list(struct listed *l, bool plus)
{
	u_int from = xdr_getpos(&res);
	READDIR3head hd;
	bool_t more, eof;

	cr_assert(xdr_READDIR3head(&res, &hd));
	if (hd.status != NFS3_OK)
		return hd.status;
	memcpy(l->verf, hd.READDIR3head_u.resok.cookieverf, 8);
	cr_assert(hd.READDIR3head_u.resok.dir_attributes.attributes_follow);
	while (xdr_bool(&res, &more) && more) {
		char name[256];
		H h;
		entryplus3 e = { .name.filename3_val = name };
		entry3 s = { .name.filename3_val = name };

		e.name_handle.post_op_fh3_u.handle.data.data_val = (char *)h.b;
		if (!plus) {
			cr_assert(xdr_entry3(&res, &s));
			take_entry(l, s.fileid, &s.name, s.cookie);
			continue;
		}
		cr_assert(xdr_entryplus3(&res, &e));
		take_entry(l, e.fileid, &e.name, e.cookie);
		l->attrs += e.name_attributes.attributes_follow ? 1 : 0;
		l->handles += e.name_handle.handle_follows ? 1 : 0;
		if (e.name_attributes.attributes_follow)
			cr_assert_eq(e.name_attributes.post_op_attr_u.attributes.fileid, e.fileid);
	}
	cr_assert(xdr_bool(&res, &eof));
	l->eof = eof;
	l->bytes = xdr_getpos(&res) - from;
	return NFS3_OK;
}

static nfsstat3 readdir_one(const H *dir, struct listed *l, uint32_t count)
{
	READDIR3args q = { .dir = wire(dir), .cookie = l->last, .count = count };

	memcpy(q.cookieverf, l->verf, 8);
	cr_assert(xdr_READDIR3args(args(), &q));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_READDIR, xdr_getpos(&enc)), SUCCESS);
	return take_list(l, false);
}

static nfsstat3 readdirplus_one(const H *dir, struct listed *l, uint32_t dircount,
                                uint32_t maxcount)
{
	READDIRPLUS3args q = {
		.dir = wire(dir), .cookie = l->last, .dircount = dircount, .maxcount = maxcount
	};

	memcpy(q.cookieverf, l->verf, 8);
	cr_assert(xdr_READDIRPLUS3args(args(), &q));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_READDIRPLUS, xdr_getpos(&enc)), SUCCESS);
	return take_list(l, true);
}

static void populate(H *dir, unsigned n)
{
	char name[16];

	cr_assert_eq(mkdir_mode(&root, "list", 0755, dir), NFS3_OK);
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		cr_assert_eq(create(dir, name, NULL), NFS3_OK);
	}
}

Test(nfs3, listings_are_complete_and_keep_their_counts)
{
	static const uint32_t counts[] = { 140, 512, 4096, 65536, UINT32_MAX };
	H dir;

	populate(&dir, 300);
	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		struct listed l = { 0 }, p = { 0 };

		while (!l.eof) {
			cr_assert_eq(readdir_one(&dir, &l, counts[c]), NFS3_OK, "count %u",
			             counts[c]);
			cr_assert_leq(l.bytes, (size_t)counts[c] + 4);
		}
		cr_assert_eq(l.n, 302);
		cr_assert_eq(l.dots, 2);
		while (!p.eof) {
			cr_assert_eq(readdirplus_one(&dir, &p, counts[c],
			                             counts[c] + 200u > 200u ? counts[c] + 200
			                                                     : counts[c]),
			             NFS3_OK);
			cr_assert_leq(p.bytes, (size_t)counts[c] + 204);
		}
		cr_assert_eq(p.n, 302);
		cr_assert_eq(p.attrs, 302);
		cr_assert_eq(p.handles, 302);
		for (unsigned i = 0; i < 300; i++)
			cr_assert(l.seen[i] == 1 && p.seen[i] == 1, "f%u", i);
	}
}

Test(nfs3, dircount_bounds_the_names)
{
	struct listed l = { 0 };
	H dir;

	populate(&dir, 50);
	cr_assert_eq(readdirplus_one(&dir, &l, 10 * 24, 65536), NFS3_OK);
	cr_assert(l.n > 5 && l.n <= 10, "%u", l.n);
	cr_assert_not(l.eof);
	l = (struct listed){ 0 };
	cr_assert_eq(readdirplus_one(&dir, &l, 0, 65536), NFS3_OK);
	cr_assert_eq(l.n, 1, "never none");
}

Test(nfs3, a_listing_with_no_room_is_too_small)
{
	struct listed l = { 0 };
	char name[256];
	H dir;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &dir), NFS3_OK);
	memset(name, 'x', 255);
	name[255] = 0;
	cr_assert_eq(create(&dir, name, NULL), NFS3_OK);
	cr_assert_eq(readdir_one(&dir, &l, 0), NFS3ERR_TOOSMALL);
	cr_assert_eq(readdir_one(&dir, &l, 100), NFS3ERR_TOOSMALL);
	cr_assert_eq(readdirplus_one(&dir, &l, 100, 200), NFS3ERR_TOOSMALL);
	cr_assert_eq(readdir_one(&dir, &l, 180), NFS3_OK);
	cr_assert_eq(l.n, 2);
	cr_assert_eq(readdir_one(&dir, &l, 180), NFS3ERR_TOOSMALL, "the long name is next");
	cr_assert_eq(readdir_one(&dir, &l, 400), NFS3_OK);
	cr_assert_eq(l.n, 3);
	cr_assert(l.eof);
	cr_assert_eq(readdir_one(&dir, &l, 400), NFS3_OK);
	cr_assert(l.eof && l.n == 3);
}

Test(nfs3, a_cookie_needs_its_verifier)
{
	struct listed l = { 0 };
	H dir;

	populate(&dir, 5);
	cr_assert_eq(readdir_one(&dir, &l, 160), NFS3_OK);
	cr_assert_not(l.eof);
	l.verf[3] ^= 1;
	cr_assert_eq(readdir_one(&dir, &l, 160), NFS3ERR_BAD_COOKIE);
	cr_assert_eq(readdirplus_one(&dir, &l, 4096, 4096), NFS3ERR_BAD_COOKIE);
	l.verf[3] ^= 1;
	cr_assert_eq(readdir_one(&dir, &l, 160), NFS3_OK);
}

Test(nfs3, removal_while_listing_loses_no_other_entry)
{
	struct listed l = { 0 };
	char name[16];
	unsigned rounds = 0;
	H dir;

	populate(&dir, 400);
	while (!l.eof) {
		cr_assert_eq(readdirplus_one(&dir, &l, 65536, 2000), NFS3_OK);
		for (unsigned i = rounds * 7; i < rounds * 7 + 7 && i < 400; i++) {
			snprintf(name, sizeof(name), "f%u", i * 3 % 400);
			remove_name(&dir, name);
			if (!l.seen[i * 3 % 400])
				l.seen[i * 3 % 400] = 1; /* it need not be seen any more */
		}
		rounds++;
	}
	for (unsigned i = 0; i < 400; i++)
		cr_assert_geq(l.seen[i], 1, "f%u", i);
}

Test(nfs3, listings_of_an_exports_root_do_not_look_out)
{
	struct listed l = { 0 }, p = { 0 }, d = { 0 };
	fattr3 a;
	H sub, dir;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(mkdir_mode(&sub, "dir", 0755, &dir), NFS3_OK);
	cr_assert_eq(getattr(&sub, &a), NFS3_OK);
	cr_assert_eq(readdir_one(&sub, &l, 4096), NFS3_OK);
	cr_assert(l.dot == a.fileid && l.dotdot == a.fileid);
	cr_assert_eq(readdirplus_one(&sub, &p, 4096, 4096), NFS3_OK);
	cr_assert(p.dot == a.fileid && p.dotdot == a.fileid && p.handles == 3);
	cr_assert_eq(readdirplus_one(&dir, &d, 4096, 4096), NFS3_OK);
	cr_assert_eq(d.dotdot, a.fileid);
}

Test(nfs3, listings_check_permission_and_type)
{
	struct listed l = { 0 };
	H dir, f, x;

	cr_assert_eq(mkdir_mode(&root, "r", 0744, &dir), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "x", 0711, &x), NFS3_OK);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(readdir_one(&f, &l, 4096), NFS3ERR_NOTDIR);
	be(5, 5);
	cr_assert_eq(readdir_one(&dir, &l, 4096), NFS3_OK);
	l = (struct listed){ 0 };
	cr_assert_eq(readdirplus_one(&dir, &l, 4096, 4096), NFS3ERR_ACCES,
	             "attributes take search permission");
	cr_assert_eq(readdir_one(&x, &l, 4096), NFS3ERR_ACCES);
}

/* --- what peers may send --- */

static size_t sample(uint32_t proc)
{
	static char eight[8] = "verifier";
	sattr3 sa = { { TRUE, { 0644 } },
		      { TRUE, { 1 } },
		      { TRUE, { 2 } },
		      { TRUE, { 3 } },
		      { SET_TO_CLIENT_TIME, { { 1, 2 } } },
		      { SET_TO_CLIENT_TIME, { { 3, 4 } } } };
	diropargs3 d = at(&root, "cut"), d2 = at(&root, "other");
	nfs_fh3 h = wire(&root);
	XDR *x = args();
	uint32_t n = 5;
	char *p = eight;
	bool ok = true;

	switch (proc) {
	case NFSPROC3_SETATTR:
		ok = xdr_SETATTR3args(x, &(SETATTR3args){ h, sa, { TRUE, { { 1, 2 } } } });
		break;
	case NFSPROC3_LOOKUP:
	case NFSPROC3_REMOVE:
	case NFSPROC3_RMDIR:
		ok = xdr_diropargs3(x, &d);
		break;
	case NFSPROC3_ACCESS:
		ok = xdr_ACCESS3args(x, &(ACCESS3args){ h, 63 });
		break;
	case NFSPROC3_READ:
		ok = xdr_READ3args(x, &(READ3args){ h, 1, 2 });
		break;
	case NFSPROC3_WRITE:
		ok = xdr_WRITE3head(x, &(WRITE3head){ h, 1, 5, FILE_SYNC }) &&
		     xdr_bytes(x, &p, &n, 8);
		break;
	case NFSPROC3_CREATE:
		ok = xdr_CREATE3args(x, &(CREATE3args){ d, { GUARDED, { .obj_attributes = sa } } });
		break;
	case NFSPROC3_MKDIR:
		ok = xdr_MKDIR3args(x, &(MKDIR3args){ d, sa });
		break;
	case NFSPROC3_SYMLINK:
		ok = xdr_SYMLINK3args(
			x, &(SYMLINK3args){ d, { sa, { 6, (char *)(uintptr_t) "target" } } });
		break;
	case NFSPROC3_MKNOD:
		ok = xdr_MKNOD3args(x,
		                    &(MKNOD3args){ d, { NF3CHR, { .device = { sa, { 1, 2 } } } } });
		break;
	case NFSPROC3_RENAME:
		ok = xdr_RENAME3args(x, &(RENAME3args){ d, d2 });
		break;
	case NFSPROC3_LINK:
		ok = xdr_LINK3args(x, &(LINK3args){ h, d });
		break;
	case NFSPROC3_READDIR:
		ok = xdr_READDIR3args(x, &(READDIR3args){ .dir = h, .count = 1000 });
		break;
	case NFSPROC3_READDIRPLUS:
		ok = xdr_READDIRPLUS3args(
			x, &(READDIRPLUS3args){ .dir = h, .dircount = 9, .maxcount = 999 });
		break;
	case NFSPROC3_COMMIT:
		ok = xdr_COMMIT3args(x, &(COMMIT3args){ h, 1, 2 });
		break;
	default: /* a handle alone */
		ok = xdr_nfs_fh3(x, &h);
	}
	cr_assert(ok);
	return xdr_getpos(x);
}

Test(nfs3, arguments_cut_anywhere_are_garbage)
{
	for (uint32_t proc = 1; proc < NFSPROC3_COUNT; proc++) {
		size_t whole = sample(proc);

		/* The padding behind a payload is nobody's loss. */
		for (size_t n = 0; n < whole - (proc == NFSPROC3_WRITE ? 3 : 0); n++)
			cr_assert_eq(go(NFS3_PROGRAM, proc, n), GARBAGE_ARGS,
			             "procedure %u cut to %zu", proc, n);
		cr_assert_eq(go(NFS3_PROGRAM, proc, whole), SUCCESS, "procedure %u", proc);
	}
	cr_assert_eq(getattr(&root, NULL), NFS3_OK);
}

Test(nfs3, mount_arguments_cut_anywhere_are_garbage)
{
	mntpath3 p = { 7, (char *)(uintptr_t) "/a/b/cd" };

	for (size_t n = 0; n < 12; n++) {
		cr_assert(xdr_mntpath3(args(), &p));
		cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_MNT, n), GARBAGE_ARGS);
		cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_UMNT, n), GARBAGE_ARGS);
	}
}

Test(nfs3, lengths_and_kinds_out_of_range_are_garbage)
{
	/* For each procedure, every word in turn becomes 0xffffffff: whatever it says, there is an
	 * answer. */
	for (uint32_t proc = 1; proc < NFSPROC3_COUNT; proc++) {
		size_t whole = sample(proc);

		for (size_t at_word = 0; at_word < whole; at_word += 4) {
			int stat;

			sample(proc);
			memset(out + ARGS_AT + at_word, 0xff, 4);
			stat = go(NFS3_PROGRAM, proc, whole);
			cr_assert(stat == SUCCESS || stat == GARBAGE_ARGS,
			          "procedure %u word %zu: %d", proc, at_word / 4, stat);
			if (at_word == 0)
				cr_assert_eq(stat, GARBAGE_ARGS, "a handle of 4 GiB");
		}
	}
	cr_assert_eq(getattr(&root, NULL), NFS3_OK);
}

Test(nfs3, unknown_kinds_of_stability_and_creation_are_garbage)
{
	WRITE3head w = { wire(&root), 0, 0, (stable_how)3 };
	CREATE3args c = { at(&root, "x"), { .mode = GUARDED } };
	uint32_t none = 0;

	cr_assert(xdr_WRITE3head(args(), &w) && xdr_u_int32_t(&enc, &none));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_WRITE, xdr_getpos(&enc)), GARBAGE_ARGS);
	cr_assert(xdr_CREATE3args(args(), &c));
	out[ARGS_AT + 36 + 8 + 3] = 7;
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_CREATE, xdr_getpos(&enc)), GARBAGE_ARGS);
	cr_assert_eq(go(NFS3_PROGRAM, 22, 0), PROC_UNAVAIL);
}

/* Announce a WRITE of @len bytes at 0 on the present connection, but send only @now of them. */
static void write_stalled(const H *h, uint32_t len, uint32_t now)
{
	uint8_t begun[200], *p = begun;

	put32(&p, 0x80000000 | (24 + 28 + 8 + 36 + 20 + len));
	put32(&p, ++xid);
	put32(&p, CALL);
	put32(&p, 2);
	put32(&p, NFS3_PROGRAM);
	put32(&p, 3);
	put32(&p, NFSPROC3_WRITE);
	put32(&p, AUTH_SYS);
	put32(&p, 20);
	for (int i = 0; i < 7; i++)
		put32(&p, 0);
	put32(&p, FH_SIZE);
	memcpy(p, h->b, FH_SIZE);
	p += FH_SIZE;
	put32(&p, 0);
	put32(&p, 0);
	put32(&p, len);
	put32(&p, FILE_SYNC);
	put32(&p, len);
	memset(out, 'A', len);
	die_unless(write(sock, begun, (size_t)(p - begun)) == p - begun, "write");
	die_unless(write(sock, out, now) == (ssize_t)now, "write");
}

Test(nfs3, a_peer_that_dies_inside_a_write_leaves_nothing)
{
	char buf[8];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	for (unsigned round = 0; round < 5; round++) {
		write_stalled(&h, 65536, 1000 * round);
		close(sock);
		dial(&where);
	}
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(got, 0);
}

/* Two writes fill one new block: the second waits for the first, whether that succeeds or dies. */
static void share_a_block(bool first_dies)
{
	WRITE3head q;
	uint32_t n = 1, got, first_xid;
	char *p = (char *)(uintptr_t) "B", back[64];
	int first = sock;
	fattr3 a;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	write_stalled(&h, 1000, 500);
	first_xid = xid;
	dial(&where);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.size, 0, "others see nothing of it");
	q = (WRITE3head){ wire(&h), 2000, 1, FILE_SYNC };
	cr_assert(xdr_WRITE3head(args(), &q) && xdr_bytes(&enc, &p, &n, n));
	post(NFS3_PROGRAM, NFSPROC3_WRITE, xdr_getpos(&enc));
	if (!first_dies) {
		int second = sock;
		uint32_t second_xid = xid;

		memset(out, 'A', 500);
		die_unless(write(first, out, 500) == 500, "write");
		sock = first;
		xid = first_xid;
		cr_assert_eq(receive(), SUCCESS);
		sock = second;
		xid = second_xid;
	}
	close(first);
	cr_assert_eq(receive(), SUCCESS);
	cr_assert(xdr_WRITE3res(&res, &written));
	cr_assert_eq(written.status, NFS3_OK);
	cr_assert_eq(read_at(&h, 990, 20, back, &got), NFS3_OK);
	cr_assert_eq(got, 20);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(back[i], i < 10 && !first_dies ? 'A' : 0);
	cr_assert_eq(read_at(&h, 1999, 20, back, &got), NFS3_OK);
	cr_assert(got == 2 && back[0] == 0 && back[1] == 'B');
}

Test(nfs3, a_second_write_to_a_new_block_waits_for_the_first)
{
	share_a_block(false);
}

Test(nfs3, a_second_write_to_a_new_block_survives_the_first)
{
	share_a_block(true);
}

/* --- slow media: every durable answer comes by mail --- */

Test(nfs3_msync, all_changes_answer_once_they_are_durable)
{
	static uint8_t data[100000], back[100000];
	uint32_t got;
	H d, f, h;

	fill(data, sizeof(data), 9);
	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(create(&d, "f", &f), NFS3_OK);
	cr_assert_eq(create_excl(&d, "x", "12345678", NULL), NFS3_OK);
	cr_assert_eq(create_excl(&d, "x", "12345678", NULL), NFS3_OK);
	cr_assert_eq(write_at(&f, 3, data, sizeof(data), UNSTABLE), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, UNSTABLE);
	cr_assert_eq(commit(&f, 0, 0), NFS3_OK);
	cr_assert_arr_eq(committed.COMMIT3res_u.resok.verf, written.WRITE3res_u.resok.verf, 8);
	cr_assert_eq(write_at(&f, 7, data, sizeof(data), FILE_SYNC), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, FILE_SYNC);
	cr_assert_eq(read_at(&f, 7, sizeof(data), back, &got), NFS3_OK);
	cr_assert_arr_eq(back, data, sizeof(data));
	cr_assert_eq(setattr_of(&f, mode_is(0600), NULL), NFS3_OK);
	cr_assert_eq(symlink_to(&d, "s", "t", NULL), NFS3_OK);
	cr_assert_eq(mknod_of(&d, "p", NF3FIFO, NULL), NFS3_OK);
	cr_assert_eq(link_name(&f, &d, "l"), NFS3_OK);
	cr_assert_eq(rename_name(&d, "l", &root, "m"), NFS3_OK);
	cr_assert_eq(remove_name(&d, "f"), NFS3_OK);
	cr_assert_eq(lookup(&root, "m", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, f.b, FH_SIZE);
	cr_assert_eq(rmdir_name(&root, "d"), NFS3ERR_NOTEMPTY);
}

Test(nfs3_msync, a_client_that_does_not_wait_harms_nobody)
{
	WRITE3head q;
	H f;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	q = (WRITE3head){ wire(&f), 0, 8, FILE_SYNC };
	for (int i = 0; i < 20; i++) {
		uint32_t n = 8;
		char *p = (char *)(uintptr_t) "eightbyt";
		uint8_t head_[64], *hp = head_;
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		q.offset = (uint64_t)i * 100;
		cr_assert(xdr_WRITE3head(args(), &q) && xdr_bytes(&enc, &p, &n, 8));
		put32(&hp, 0x80000000 | (24 + 8 + 20 + 8 + xdr_getpos(&enc)));
		put32(&hp, 1000u + (uint32_t)i);
		put32(&hp, CALL);
		put32(&hp, 2);
		put32(&hp, NFS3_PROGRAM);
		put32(&hp, 3);
		put32(&hp, NFSPROC3_WRITE);
		put32(&hp, AUTH_SYS);
		put32(&hp, 20);
		die_unless(connect(fd, (struct sockaddr *)&where, sizeof(where)) == 0, "connect");
		memset(hp, 0, 28);
		hp += 28;
		die_unless(write(fd, head_, (size_t)(hp - head_)) == hp - head_, "write");
		die_unless(write(fd, out + ARGS_AT, xdr_getpos(&enc)) == (ssize_t)xdr_getpos(&enc),
		           "write");
		close(fd);
	}
	cr_assert_eq(getattr(&f, NULL), NFS3_OK);
	cr_assert_eq(write_at(&f, 0, "12345678", 8, FILE_SYNC), NFS3_OK);
}
