/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_kernel_calls.c - what the Linux kernel's client really sends, through our decoders, field by field
 *
 * Each recorded call stands in test/fixtures/kernel beside its meaning, which another program has read out of it. Here
 * the header goes through rr_decode, the message through the RPC layer with the real programs' tables, and the
 * arguments through the XDR of proto/; what they make of it must be the same text. A header is encoded again and must be
 * the same bytes.
 */
#include <criterion/criterion.h>
#include <ev.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mount3.h"
#include "server/nfs3.h"
#include "test/lib/fixture.h"
#include "transport/rpc.h"
#include "transport/rpcrdma.h"

/* --- text -------------------------------------------------------------------------------------------------------- */

static char text[65536];
static size_t used;

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	used += (size_t)vsnprintf(text + used, sizeof(text) - used, fmt, ap);
	va_end(ap);
	cr_assert_lt(used, sizeof(text));
}

static void say_hex(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		say("%02x", ((const uint8_t *)p)[i]);
}

static void say_fh(const nfs_fh3 *fh)
{
	say("fh=");
	say_hex(fh->data.data_val, fh->data.data_len);
}

static void say_at(const diropargs3 *d)
{
	say_fh(&d->dir);
	say(" name=%.*s", (int)d->name.filename3_len, d->name.filename3_val);
}

static void say_time(const char *name, time_how how, const nfstime3 *t)
{
	say(" %s=", name);
	if (how == SET_TO_CLIENT_TIME)
		say("%u.%09u", t->seconds, t->nseconds);
	else
		say(how == SET_TO_SERVER_TIME ? "server" : "-");
}

#define SAY_SET(name, fmt, set, value) ((set) ? say(" " name "=" fmt, value) : say(" " name "=-"))

static void say_sattr(const sattr3 *a)
{
	SAY_SET("mode", "%o", a->mode.set_it, a->mode.set_mode3_u.mode);
	SAY_SET("uid", "%u", a->uid.set_it, a->uid.set_uid3_u.uid);
	SAY_SET("gid", "%u", a->gid.set_it, a->gid.set_gid3_u.gid);
	SAY_SET("size", "%llu", a->size.set_it, (unsigned long long)a->size.set_size3_u.size);
	say_time("atime", a->atime.set_it, &a->atime.set_atime_u.atime);
	say_time("mtime", a->mtime.set_it, &a->mtime.set_mtime_u.mtime);
}

/* --- arguments of each procedure ------------------------------------------------------------------------------------ */

#define ARGS(type) \
	type a; \
	memset(&a, 0, sizeof(a)); \
	cr_assert(xdr_##type(&call->args, &a), #type)
#define FREE(type) xdr_free((xdrproc_t)xdr_##type, (char *)&a)

/* Procedures whose arguments are one file handle. */
static void say_handle(struct tp_call *call)
{
	ARGS(GETATTR3args);
	say_fh(&a.object);
	FREE(GETATTR3args);
}

static void say_setattr(struct tp_call *call)
{
	ARGS(SETATTR3args);
	say_fh(&a.object);
	say_sattr(&a.new_attributes);
	if (a.guard.check)
		say(" guard=%u.%09u", a.guard.sattrguard3_u.obj_ctime.seconds, a.guard.sattrguard3_u.obj_ctime.nseconds);
	else
		say(" guard=-");
	FREE(SETATTR3args);
}

/* LOOKUP, REMOVE, RMDIR */
static void say_name(struct tp_call *call)
{
	ARGS(LOOKUP3args);
	say_at(&a.what);
	FREE(LOOKUP3args);
}

static void say_access(struct tp_call *call)
{
	ARGS(ACCESS3args);
	say_fh(&a.object);
	say(" access=%#x", a.access);
	FREE(ACCESS3args);
}

static void say_read(struct tp_call *call)
{
	ARGS(READ3args);
	say_fh(&a.file);
	say(" offset=%llu count=%u", (unsigned long long)a.offset, a.count);
	FREE(READ3args);
}

static void say_write(struct tp_call *call)
{
	ARGS(WRITE3head);
	say_fh(&a.file);
	say(" offset=%llu count=%u stable=%d data=%u", (unsigned long long)a.offset, a.count, a.stable, call->payload_len);
	FREE(WRITE3head);
}

static void say_create(struct tp_call *call)
{
	ARGS(CREATE3args);
	say_at(&a.where);
	say(" how=%d", a.how.mode);
	if (a.how.mode == EXCLUSIVE) {
		say(" verf=");
		say_hex(a.how.createhow3_u.verf, NFS3_CREATEVERFSIZE);
	} else {
		say_sattr(&a.how.createhow3_u.obj_attributes);
	}
	FREE(CREATE3args);
}

static void say_mkdir(struct tp_call *call)
{
	ARGS(MKDIR3args);
	say_at(&a.where);
	say_sattr(&a.attributes);
	FREE(MKDIR3args);
}

static void say_symlink(struct tp_call *call)
{
	ARGS(SYMLINK3args);
	say_at(&a.where);
	say_sattr(&a.symlink.symlink_attributes);
	say(" to=%.*s", (int)a.symlink.symlink_data.nfspath3_len, a.symlink.symlink_data.nfspath3_val);
	FREE(SYMLINK3args);
}

static void say_mknod(struct tp_call *call)
{
	ARGS(MKNOD3args);
	say_at(&a.where);
	say(" type=%d", a.what.type);
	if (a.what.type == NF3CHR || a.what.type == NF3BLK) {
		say_sattr(&a.what.mknoddata3_u.device.dev_attributes);
		say(" rdev=%u,%u", a.what.mknoddata3_u.device.spec.specdata1, a.what.mknoddata3_u.device.spec.specdata2);
	} else {
		say_sattr(&a.what.mknoddata3_u.pipe_attributes);
	}
	FREE(MKNOD3args);
}

static void say_rename(struct tp_call *call)
{
	ARGS(RENAME3args);
	say_at(&a.from);
	say(" to ");
	say_at(&a.to);
	FREE(RENAME3args);
}

static void say_link(struct tp_call *call)
{
	ARGS(LINK3args);
	say_fh(&a.file);
	say(" to ");
	say_at(&a.link);
	FREE(LINK3args);
}

static void say_readdirplus(struct tp_call *call)
{
	ARGS(READDIRPLUS3args);
	say_fh(&a.dir);
	say(" cookie=%llu verf=", (unsigned long long)a.cookie);
	say_hex(a.cookieverf, NFS3_COOKIEVERFSIZE);
	say(" dircount=%u maxcount=%u", a.dircount, a.maxcount);
	FREE(READDIRPLUS3args);
}

static void say_commit(struct tp_call *call)
{
	ARGS(COMMIT3args);
	say_fh(&a.file);
	say(" offset=%llu count=%u", (unsigned long long)a.offset, a.count);
	FREE(COMMIT3args);
}

static void say_path(struct tp_call *call)
{
	ARGS(mntpath3);
	say("path=%.*s", (int)a.mntpath3_len, a.mntpath3_val);
	FREE(mntpath3);
}

static void (*const nfs3_say[NFSPROC3_COUNT])(struct tp_call *) = {
	[NFSPROC3_GETATTR] = say_handle,   [NFSPROC3_SETATTR] = say_setattr,   [NFSPROC3_LOOKUP] = say_name,
	[NFSPROC3_ACCESS] = say_access,    [NFSPROC3_READLINK] = say_handle,   [NFSPROC3_READ] = say_read,
	[NFSPROC3_WRITE] = say_write,      [NFSPROC3_CREATE] = say_create,     [NFSPROC3_MKDIR] = say_mkdir,
	[NFSPROC3_SYMLINK] = say_symlink,  [NFSPROC3_MKNOD] = say_mknod,       [NFSPROC3_REMOVE] = say_name,
	[NFSPROC3_RMDIR] = say_name,       [NFSPROC3_RENAME] = say_rename,     [NFSPROC3_LINK] = say_link,
	[NFSPROC3_FSSTAT] = say_handle,    [NFSPROC3_FSINFO] = say_handle,     [NFSPROC3_PATHCONF] = say_handle,
	[NFSPROC3_COMMIT] = say_commit,    [NFSPROC3_READDIRPLUS] = say_readdirplus,
};
static void (*const mount3_say[])(struct tp_call *) = {
	[MOUNTPROC3_MNT] = say_path,
	[MOUNTPROC3_UMNT] = say_path,
	[MOUNTPROC3_EXPORT] = NULL,
};

/* --- a service that says what it was asked for ------------------------------------------------------------------------ */

#define MAX_PROCS 32
static struct tp_proc procs[2][MAX_PROCS];
static struct tp_program programs[2];
static const struct tp_program *const table[] = { &programs[0], &programs[1], NULL };
static const char *answered; /* what the RPC layer did by itself */

static void run(struct tp_call *call)
{
	const struct tp_cred *c = &call->cred;
	bool nfs = call->prog == NFS3_PROGRAM;
	const struct tp_proc *proc = &procs[!nfs][call->proc];
	void (*args)(struct tp_call *) = nfs ? nfs3_say[call->proc] : mount3_say[call->proc];

	say("%08x %u.%u.%u ", call->xid, call->prog, call->vers, call->proc);
	if (c->flavor == AUTH_SYS)
		say("sys,%u,%u,", c->uid, c->gid);
	else
		say("none");
	for (unsigned i = 0; i < c->ngids; i++)
		say("%s%u", i ? "+" : "", c->gids[i]);
	say(" %s", proc->name);
	if (args) {
		say(" ");
		args(call);
	}
	/* All but the payload's length word is decoded, and nothing is left. */
	cr_assert_eq(xdr_getpos(&call->args) + (proc->payload_at ? 4 : 0), call->arg_len, "%s", text);
	tp_drop(call);
}

static void table_make(unsigned i, const struct tp_program *of)
{
	programs[i] = *of;
	cr_assert_leq(of->nprocs, MAX_PROCS);
	for (uint32_t p = 0; p < of->nprocs; p++) {
		procs[i][p] = of->procs[p];
		procs[i][p].run = run;
	}
	programs[i].procs = procs[i];
}

static void drop(struct rpc_call *c)
{
	rpc_call_done(c, 0);
}

static uint8_t error_buf[1024];

static uint8_t *reply_buf(struct rpc_call *c, size_t max)
{
	(void)c;
	return max <= sizeof(error_buf) ? error_buf : NULL;
}

/* Only errors of the RPC layer come here. */
static void reply_end(struct rpc_call *c)
{
	cr_assert_eq(rpc_be32(error_buf + 20), PROG_UNAVAIL, "accept_stat %u", rpc_be32(error_buf + 20));
	answered = "unknown";
	rpc_call_done(c, 0);
}

static size_t room(const struct rpc_call *c)
{
	(void)c;
	return sizeof(error_buf);
}

static void conn_nothing(struct tp_conn *conn)
{
	(void)conn;
}

static const struct tp_conn_ops ops = {
	.priv_size = 1,
	.priv_zeroed = 1,
	.drop = drop,
	.reply_buf = reply_buf,
	.reply_end = reply_end,
	.reply_room = room,
	.stop = conn_nothing,
	.close = conn_nothing,
	.free = conn_nothing,
};

static struct tp_service *svc;
static struct tp_conn conn;

static void set_up(void)
{
	struct tp_service_opts o = { .programs = table };

	table_make(0, &nfs3_program);
	table_make(1, &mount3_program);
	cr_assert_eq(tp_service_new(ev_loop_new(0), &o, &svc), 0);
	cr_assert_eq(rpc_conn_init(&conn, svc, TP_FABRIC_MSG, &ops), 0);
}

static void tear_down(void)
{
	rpc_conn_dead(&conn);
	rpc_conn_put(&conn);
	tp_service_free(svc);
}

/* The RPC message @msg into text; @elsewhere bytes of payload are not in it. */
static void hear(const uint8_t *msg, size_t len, size_t elsewhere, unsigned line)
{
	struct rpc_call *c = rpc_call_get(&conn);
	struct rpc_head hd;

	used = 0;
	answered = NULL;
	rpc_head_scan(svc, msg, len, &hd);
	cr_assert(hd.kind == RPC_HEAD_WHOLE || hd.kind == RPC_HEAD_PAYLOAD, "line %u: kind %d", line, hd.kind);
	if (hd.kind == RPC_HEAD_PAYLOAD && !elsewhere)
		cr_assert_eq(len - hd.len, (hd.payload_len + 3) & ~3u, "line %u: %zu bytes behind the head", line, len - hd.len);
	cr_assert_eq(rpc_call_run(c, msg, hd.kind == RPC_HEAD_PAYLOAD ? hd.len : len, elsewhere ? elsewhere : len), 0);
	if (answered)
		say("%08x %u.%u.%u none %s", rpc_be32(msg), rpc_be32(msg + 12), rpc_be32(msg + 16), rpc_be32(msg + 20), answered);
}

/* --- headers ------------------------------------------------------------------------------------------------------- */

static void say_seg(const struct rr_seg *s)
{
	say("%08x:%u:%016llx", s->handle, s->length, (unsigned long long)s->offset);
}

static void say_chunk(const struct rr_chunk *c, const struct rr_seg *segs)
{
	for (unsigned i = 0; i < c->n; i++) {
		say(i ? "+" : "");
		say_seg(&segs[c->first + i]);
	}
}

static void say_header(const struct rr_header *h, const struct rr_seg *segs)
{
	used = 0;
	say("%08x v%u credits=%u proc=%u read[", h->xid, h->vers, h->credits, h->proc);
	for (unsigned i = 0; i < h->nreads; i++)
		for (unsigned j = 0; j < h->read[i].n; j++) {
			say("%s%u@", i || j ? " " : "", h->read[i].position);
			say_seg(&segs[h->read[i].first + j]);
		}
	say("] write[");
	for (unsigned i = 0; i < h->nwrites; i++) {
		say(i ? " " : "");
		say_chunk(&h->write[i], segs);
	}
	say("] reply[");
	if (h->has_reply)
		say_chunk(&h->reply, segs);
	say("]");
}

static void same(const struct fixture_line *want)
{
	cr_assert(want, "no meaning beside the call");
	cr_assert_str_eq(text, want->text, "line %u\n  ours:   %s\n  theirs: %s", want->number, text, want->text);
}

static void header_same(const struct fixture_line *call, struct rr_header *h)
{
	struct rr_seg segs[RR_MAX_SEGS];
	uint8_t again[4096];

	cr_assert_eq(rr_decode(call->data, call->len, h, segs, RR_MAX_SEGS), 0, "line %u", call->number);
	say_header(h, segs);
	cr_assert_eq(rr_size(h), h->size);
	cr_assert_eq(rr_encode(h, segs, again, sizeof(again)), h->size);
	cr_assert_eq(memcmp(again, call->data, h->size), 0, "line %u: encoded again: other bytes", call->number);
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

Test(kernel_calls, over_rdma, .init = set_up, .fini = tear_down)
{
	unsigned n = 0, pulled = 0, chunked = 0, written = 0, replied = 0;
	const struct fixture_line *l;
	struct fixture f;

	fixture_load("kernel/rdma.txt", &f);
	for (l = f.line; (l = fixture_next(&f, l, "call", NULL)); n++) {
		const struct fixture_line *want = fixture_next(&f, l, "=", "call"), *whole = fixture_next(&f, l, "run", "call");
		struct rr_header h;

		header_same(l, &h);
		same(want);
		chunked += h.nreads;
		written += h.nwrites;
		replied += h.has_reply;
		pulled += whole != NULL;
		if (whole) /* its chunk inserted at its position, padding and all */
			hear(whole->data, whole->len, 0, l->number);
		else
			hear(l->data + h.size, l->len - h.size, h.nreads ? (size_t)h.read[0].length : 0, l->number);
		same(fixture_next(&f, want, "=", "call"));
	}
	/* The session has one of everything. */
	cr_assert_geq(n, 90);
	cr_assert_geq(chunked, 4);
	cr_assert_geq(written, 3);
	cr_assert_geq(replied, 3);
	cr_assert_geq(pulled, 1);
	fixture_free(&f);
}

Test(kernel_calls, over_tcp, .init = set_up, .fini = tear_down)
{
	const struct fixture_line *l;
	struct fixture f;
	unsigned n = 0;

	fixture_load("kernel/tcp.txt", &f);
	for (l = f.line; (l = fixture_next(&f, l, "call", NULL)); n++) {
		cr_assert_eq(rpc_be32(l->data), 0x80000000 | (l->len - 4), "line %u: record mark", l->number);
		hear(l->data + 4, l->len - 4, 0, l->number);
		same(fixture_next(&f, l, "=", "call"));
	}
	cr_assert_geq(n, 90);
	fixture_free(&f);
}

/* It says 4096 twice, and cannot hear what we say. */
Test(kernel_calls, private_data)
{
	const struct fixture_line *l;
	struct fixture f;
	unsigned n = 0;

	fixture_load("kernel/rdma.txt", &f);
	for (l = f.line; (l = fixture_next(&f, l, "cm", NULL)); n++) {
		uint32_t send, recv;

		cr_assert_eq(rr_cm_decode(l->data, l->len, &send, &recv), RR_CM_DEAF);
		cr_assert(send == RR_DEF_INLINE && recv == RR_DEF_INLINE);
	}
	cr_assert_eq(n, 3);
	fixture_free(&f);
}

/* What is no longer whole is refused or means something else, and is never read beyond its end. */
Test(kernel_calls, cut_short, .init = set_up, .fini = tear_down)
{
	const struct fixture_line *l;
	struct fixture f;

	fixture_load("kernel/rdma.txt", &f);
	for (l = f.line; (l = fixture_next(&f, l, "call", NULL));) {
		struct rr_seg segs[RR_MAX_SEGS];
		struct rr_header whole;

		cr_assert_eq(rr_decode(l->data, l->len, &whole, segs, RR_MAX_SEGS), 0);
		for (size_t cut = 0; cut < whole.size; cut++) {
			uint8_t *copy = malloc(cut + !cut);
			struct rr_header h;

			memcpy(copy, l->data, cut);
			cr_assert_neq(rr_decode(copy, cut, &h, segs, RR_MAX_SEGS), 0, "line %u cut at %zu", l->number, cut);
			free(copy);
		}
	}
	fixture_free(&f);
}
